//! One Network Connection: bytes to packets, packets to bytes, deadlines, an orderly close.
//!
//! A connection is one hand-written future. Each time it is polled it takes one turn: settle what waited, read once and
//! handle what came, then write once, acknowledgements and messages together. Reads go through one buffer per thread;
//! an idle connection holds no buffer, only the beginning of a packet when one was cut. What a packet means is decided
//! in [`crate::handlers`].

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mqtt_protocol::{Connect, Frame, FrameStatus, Packet, ProtocolVersion, ReasonCode};
use tokio::io::ReadBuf;
use tokio::time::Sleep;

use crate::broker::Shared;
use crate::clock::Now;
use crate::handlers::{Authenticating, Client, Connecting, Decided, Flow, Known, Position, Refusal};
use crate::limits::{Place, UserPlace};
use crate::listeners::{PeerAddress, Transport};
use crate::metrics::tally;
use crate::outbound::{Outbound, Writing};
use crate::session::wake_after_this_turn;

/// Bytes of a thread's read buffer.
const READ_BUFFER_BYTES: usize = 128 * 1024;
/// A packet of which more than this has come, and which isn't complete, is read into memory of its own.
const LARGE_PARTIAL_BYTES: usize = 32 * 1024;
/// Bytes by which that memory grows.
const LARGE_READ_BYTES: usize = 64 * 1024;
/// How long a closing connection may take to get its last packets out and see the client go.
const CLOSE_TIME: Duration = Duration::from_secs(2);
/// Bytes that a closing connection reads and drops, so that the client finds our last packet before a reset.
const CLOSE_DISCARD_BYTES: usize = 256 * 1024;

/// What a CONNECT begins with.
const CONNECT_BYTE: u8 = 0x10;

const NO_CONNECT: Close = Close {
    reason: None,
    why: std::borrow::Cow::Borrowed("the first packet is not a CONNECT [MQTT-3.1.0-1]"),
    discard_will: false,
};

thread_local! {
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BUFFER_BYTES]);
}

/// See the module.
pub(crate) struct Connection<IO> {
    io: IO,
    shared: Arc<Shared>,
    place: Place,
    peer: PeerAddress,
    phase: Phase,
    /// Bytes that were read and not handled: the beginning of a packet, or whole packets while handling is held up.
    unhandled: Vec<u8>,
    /// `unhandled` begins with a whole packet that had to wait.
    held_up: bool,
    writing: Writing,
}

enum Phase {
    /// No CONNECT yet.
    New {
        deadline: Option<Pin<Box<Sleep>>>,
    },
    /// Whose the CONNECT is isn't known yet.
    Authenticating(Box<Authenticating>),
    /// The CONNECT is accepted; its record isn't safe yet.
    Accepting(Box<Connecting>),
    Open(Box<Client>),
    /// The session is detached. The last packets are written, then what still comes is dropped until the client goes.
    Closing {
        deadline: Pin<Box<Sleep>>,
        shut: bool,
        discarded: usize,
    },
}

/// Why a connection closes.
#[derive(Debug)]
pub(crate) struct Close {
    /// What an MQTT 5 client is told; `None`: nothing.
    pub(crate) reason: Option<ReasonCode>,
    /// For the log and the Reason String.
    pub(crate) why: std::borrow::Cow<'static, str>,
    /// The client said goodbye and wants no will.
    pub(crate) discard_will: bool,
}

impl Close {
    pub(crate) fn quietly(why: &'static str) -> Self {
        Self { reason: None, why: why.into(), discard_will: false }
    }

    pub(crate) fn because(reason: ReasonCode, why: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self { reason: Some(reason), why: why.into(), discard_will: false }
    }
}

/// How a read ended.
enum Read {
    /// Nothing more for now; the waker is registered.
    Pending,
    /// Handled a buffer full: there is likely more.
    Full,
    /// Handled what came.
    Some,
}

impl<IO: Transport> Connection<IO> {
    pub(crate) fn new(io: IO, shared: Arc<Shared>, place: Place, peer: PeerAddress) -> Self {
        Self {
            io,
            shared,
            place,
            peer,
            phase: Phase::New { deadline: None },
            unhandled: Vec::new(),
            held_up: false,
            writing: Writing::default(),
        }
    }

    /// Gives it what is left of the time for its CONNECT.
    pub(crate) fn until(mut self, deadline: Pin<Box<Sleep>>) -> Self {
        self.phase = Phase::New { deadline: Some(deadline) };
        self
    }

    /// One turn; an error closes the connection.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<(), Close> {
        let now = self.shared.clock.now();
        self.watch_deadline(cx)?;
        if matches!(self.phase, Phase::Authenticating(_)) && !self.authenticate(cx, now)? {
            return self.read_ahead(cx);
        }
        if matches!(self.phase, Phase::Accepting(_)) && !self.open_if_safe(cx, now)? {
            return Ok(());
        }
        if let Phase::Open(client) = &mut self.phase {
            // Here and not only when there is something to write: a client that doesn't read is closed all the same.
            client.check_link()?;
            client.settle(cx, now)?;
        }
        if self.held_up && self.takes_input(cx) {
            self.held_up = false;
            let input = std::mem::take(&mut self.unhandled);
            self.handle_and_keep_rest(&input, cx, now)?;
        }
        while self.takes_input(cx) {
            match self.read(cx, now)? {
                Read::Pending => break,
                Read::Full => {
                    wake_after_this_turn(cx.waker());
                    break;
                }
                Read::Some => {}
            }
        }
        if let Phase::Open(client) = &mut self.phase {
            client.settle(cx, now)?;
        }
        self.read_ahead(cx)?;
        self.write(cx, now)?;
        if let Phase::Open(client) = &self.phase
            && client.waits_for_output()
            && self.writing.is_done()
        {
            wake_after_this_turn(cx.waker());
        }
        Ok(())
    }

    /// Closes a socket whose CONNECT doesn't come, or that can't be told from whom it is.
    fn watch_deadline(&mut self, cx: &mut Context<'_>) -> Result<(), Close> {
        if let Phase::New { deadline } = &mut self.phase {
            let limit = self.shared.config.limits.connect_timeout;
            let deadline = deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
            if deadline.as_mut().poll(cx).is_ready() {
                self.shared.metrics.limit_connect_timeout.add(1);
                return Err(Close::quietly("no CONNECT in time"));
            }
            if self.shared.shutting_down.load(Ordering::Acquire) {
                return Err(Close::quietly("shutting down"));
            }
        }
        if let Phase::Authenticating(stage) = &mut self.phase
            && stage.deadline.as_mut().poll(cx).is_ready()
        {
            return Err(match stage.overdue(&self.shared) {
                Some(refusal) => self.refuse_kept(&refusal),
                None => Close::quietly("no AUTH in time"),
            });
        }
        Ok(())
    }

    fn takes_input(&mut self, cx: &mut Context<'_>) -> bool {
        match &mut self.phase {
            Phase::New { .. } => true,
            Phase::Authenticating(stage) => stage.is_challenged(),
            Phase::Open(client) => client.takes_input(cx),
            Phase::Accepting(_) | Phase::Closing { .. } => false,
        }
    }

    fn read(&mut self, cx: &mut Context<'_>, now: Now) -> Result<Read, Close> {
        if self.unhandled.len() > LARGE_PARTIAL_BYTES {
            return self.read_large(cx, now);
        }
        READ_BUFFER.with_borrow_mut(|buffer| {
            let kept = self.unhandled.len();
            let Some(space) = buffer.get_mut(kept..) else { return Ok(Read::Pending) };
            let mut read = ReadBuf::new(space);
            let count = match Pin::new(&mut self.io).poll_read(cx, &mut read) {
                Poll::Pending => return Ok(Read::Pending),
                Poll::Ready(Err(error)) => {
                    return Err(Close { reason: None, why: error.to_string().into(), discard_will: false });
                }
                Poll::Ready(Ok(())) => read.filled().len(),
            };
            self.note_read(count, now)?;
            let end = kept + count;
            let full = end == buffer.len();
            if let Some(head) = buffer.get_mut(..kept) {
                head.copy_from_slice(&self.unhandled);
                self.unhandled = Vec::new();
            }
            self.handle_and_keep_rest(buffer.get(..end).unwrap_or_default(), cx, now)?;
            Ok(if full { Read::Full } else { Read::Some })
        })
    }

    /// Reads on into the memory of a packet that is large.
    fn read_large(&mut self, cx: &mut Context<'_>, now: Now) -> Result<Read, Close> {
        let kept = self.unhandled.len();
        self.unhandled.resize(kept + LARGE_READ_BYTES, 0);
        let mut read = ReadBuf::new(self.unhandled.get_mut(kept..).unwrap_or_default());
        let polled = Pin::new(&mut self.io).poll_read(cx, &mut read);
        let count = read.filled().len();
        self.unhandled.truncate(kept + count);
        match polled {
            Poll::Pending => return Ok(Read::Pending),
            Poll::Ready(Err(error)) => {
                return Err(Close { reason: None, why: error.to_string().into(), discard_will: false });
            }
            Poll::Ready(Ok(())) => {}
        }
        self.note_read(count, now)?;
        let input = std::mem::take(&mut self.unhandled);
        self.handle_and_keep_rest_of(input, cx, now)?;
        Ok(if count == LARGE_READ_BYTES { Read::Full } else { Read::Some })
    }

    fn note_read(&mut self, count: usize, now: Now) -> Result<(), Close> {
        if count == 0 {
            return Err(Close::quietly("closed by the client"));
        }
        self.shared.metrics.bytes_received.add(count as u64);
        if let Phase::Open(client) = &self.phase {
            client.heard(now);
        }
        Ok(())
    }

    fn handle_and_keep_rest(&mut self, input: &[u8], cx: &mut Context<'_>, now: Now) -> Result<(), Close> {
        let used = self.handle(input, cx, now)?;
        if let Some(rest) = input.get(used..)
            && !rest.is_empty()
        {
            self.unhandled = rest.to_vec();
        }
        Ok(())
    }

    /// The same for memory that is the connection's own: a packet that isn't complete stays where it is.
    fn handle_and_keep_rest_of(
        &mut self,
        mut input: Vec<u8>,
        cx: &mut Context<'_>,
        now: Now,
    ) -> Result<(), Close> {
        let used = self.handle(&input, cx, now)?;
        if used > 0 {
            input.drain(..used);
            input.shrink_to_fit();
        }
        self.unhandled = input;
        Ok(())
    }

    /// Handles packets until one is incomplete or handling is held up; returns how many bytes they took.
    fn handle(&mut self, input: &[u8], cx: &mut Context<'_>, now: Now) -> Result<usize, Close> {
        let handled = self.handle_frames(input, cx, now);
        if let Phase::Open(client) = &mut self.phase {
            client.end_run(input, now);
        }
        handled
    }

    fn handle_frames(&mut self, input: &[u8], cx: &mut Context<'_>, now: Now) -> Result<usize, Close> {
        let mut used = 0;
        loop {
            let rest = input.get(used..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(used);
            }
            let limits = &self.shared.config.limits;
            let limit = match &self.phase {
                // Told from the first byte, so that other protocols needn't send a whole packet of ours to be refused.
                Phase::New { .. } if rest.first() != Some(&CONNECT_BYTE) => return Err(NO_CONNECT),
                Phase::New { .. } | Phase::Authenticating(_) => {
                    limits.max_connect_packet_size.min(self.place.listener.max_packet_size(limits))
                }
                _ => self.place.listener.max_packet_size(limits),
            };
            let frame = match mqtt_protocol::frame(rest, limit) {
                Ok(FrameStatus::Complete(frame)) => frame,
                Ok(FrameStatus::Incomplete { .. }) => return Ok(used),
                Err(error) => return Err(self.decode_error(&error)),
            };
            let at = used;
            used += frame.len;
            if let Phase::Open(client) = &mut self.phase {
                if client.extend_run(input, &frame, at) {
                    tally(|tally| tally.packet_received(frame.first_byte));
                    client.count_publish(&frame, now);
                    continue;
                }
                client.end_run(input, now);
                if !client.takes_input(cx) {
                    self.held_up = true;
                    return Ok(at);
                }
                client.count_publish(&frame, now);
            }
            tally(|tally| tally.packet_received(frame.first_byte));
            if !self.handle_frame(&frame, at, cx, now)? {
                self.held_up = true;
                return Ok(used);
            }
        }
    }

    /// Handles one packet; `false` when what follows has to wait.
    fn handle_frame(
        &mut self,
        frame: &Frame<'_>,
        at: usize,
        cx: &mut Context<'_>,
        now: Now,
    ) -> Result<bool, Close> {
        match &mut self.phase {
            Phase::New { deadline } => {
                let connect = match Packet::decode(frame, ProtocolVersion::V5) {
                    Ok(Packet::Connect(connect)) => connect,
                    Ok(_) => return Err(NO_CONNECT),
                    Err(error) => return Err(self.refuse_connect(frame, &error)),
                };
                if let Some((reason, why)) = self.place.refusal {
                    return Err(self.refuse(&Refusal::new(reason, why), &connect));
                }
                let limit = self.shared.config.limits.connect_timeout;
                let deadline = deadline.take().unwrap_or_else(|| Box::pin(tokio::time::sleep(limit)));
                let stage = Authenticating::begin(
                    &self.shared,
                    &self.place.listener,
                    self.peer,
                    self.io.identity(),
                    self.io.certificate(),
                    &connect,
                    deadline,
                );
                let mut stage = match stage {
                    Ok(stage) => Box::new(stage),
                    Err(refusal) => return Err(self.refuse(&refusal, &connect)),
                };
                match stage.poll(&self.shared, cx, now, self.writing.tail()) {
                    Poll::Ready(Decided::Known(known)) => self.accept(known, &connect, cx, now),
                    Poll::Ready(Decided::Refused(refusal)) => Err(self.refuse(&refusal, &connect)),
                    Poll::Ready(Decided::Challenged) | Poll::Pending => {
                        stage.keep(frame);
                        let goes_on = stage.is_challenged();
                        self.phase = Phase::Authenticating(stage);
                        Ok(goes_on)
                    }
                }
            }
            Phase::Authenticating(stage) => {
                let packet = match Packet::decode(frame, ProtocolVersion::V5) {
                    Ok(Packet::Disconnect(_)) => return Err(Close::quietly("DISCONNECT before the CONNACK")),
                    Ok(packet) => packet,
                    Err(error) => {
                        let refusal =
                            Refusal::new(error.reason_code(), "a packet before the CONNACK doesn't decode");
                        return Err(self.refuse_kept(&refusal));
                    }
                };
                match stage.handle(&packet) {
                    Ok(()) => self.authenticate(cx, now),
                    Err(refusal) => {
                        self.shared.metrics.protocol_errors.add(1);
                        Err(self.refuse_kept(&refusal))
                    }
                }
            }
            Phase::Open(client) => match Packet::decode(frame, client.version) {
                Ok(packet) => {
                    let position = Position { frame: at..at + frame.len, body_bytes: frame.body.len() };
                    Ok(client.handle(&packet, &position, cx, now)? == Flow::GoOn)
                }
                Err(error) => Err(self.decode_error(&error)),
            },
            Phase::Accepting(_) | Phase::Closing { .. } => Ok(false),
        }
    }

    /// Goes on with finding out whose the CONNECT is; `false` while somebody decides.
    fn authenticate(&mut self, cx: &mut Context<'_>, now: Now) -> Result<bool, Close> {
        let Phase::Authenticating(stage) = &mut self.phase else { return Ok(true) };
        match stage.poll(&self.shared, cx, now, self.writing.tail()) {
            Poll::Pending => Ok(stage.is_challenged()),
            Poll::Ready(Decided::Challenged) => Ok(true),
            Poll::Ready(Decided::Refused(refusal)) => Err(self.refuse_kept(&refusal)),
            Poll::Ready(Decided::Known(known)) => {
                let phase = std::mem::replace(&mut self.phase, Phase::New { deadline: None });
                let Phase::Authenticating(stage) = phase else { return Ok(true) };
                // What was decoded once is decoded again.
                match Packet::decode(&stage.connect(), ProtocolVersion::V5) {
                    Ok(Packet::Connect(connect)) => self.accept(known, &connect, cx, now),
                    Ok(_) => Err(Close::quietly("the CONNECT is gone")),
                    Err(error) => Err(self.decode_error(&error)),
                }
            }
        }
    }

    /// Reads what the client sends while somebody decides, within a bound, to notice when it goes.
    fn read_ahead(&mut self, cx: &mut Context<'_>) -> Result<(), Close> {
        let limit = self.shared.config.limits.max_connect_packet_size as usize;
        let Phase::Authenticating(stage) = &mut self.phase else { return Ok(()) };
        if stage.is_challenged() {
            return Ok(());
        }
        READ_BUFFER.with_borrow_mut(|buffer| {
            while self.unhandled.len() < limit && !stage.is_at_end {
                let room = (limit - self.unhandled.len()).min(buffer.len());
                let mut read = ReadBuf::new(buffer.get_mut(..room).unwrap_or_default());
                match Pin::new(&mut self.io).poll_read(cx, &mut read) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(Err(error)) => {
                        return Err(Close {
                            reason: None,
                            why: error.to_string().into(),
                            discard_will: false,
                        });
                    }
                    Poll::Ready(Ok(())) => {}
                }
                self.shared.metrics.bytes_received.add(read.filled().len() as u64);
                self.unhandled.extend_from_slice(read.filled());
                if read.filled().is_empty() {
                    // One that has sent all and gone, as the smallest devices do, is served to the end.
                    if self.unhandled.is_empty() {
                        return Err(Close::quietly("closed by the client"));
                    }
                    stage.is_at_end = true;
                }
            }
            Ok(())
        })
    }

    /// The client is known: its session, then the CONNACK as soon as that is safe. `false` when what follows has to wait.
    fn accept(
        &mut self,
        known: Known,
        connect: &Connect<'_>,
        cx: &mut Context<'_>,
        now: Now,
    ) -> Result<bool, Close> {
        let user = UserPlace::take(&self.shared, known.username(), known.client_id());
        let Ok(user) = user else {
            self.shared.metrics.limit_connections_per_user.add(1);
            let refusal = Refusal::new(ReasonCode::QuotaExceeded, "no more clients of this user are allowed");
            return Err(self.refuse(&refusal, connect));
        };
        match Connecting::begin(&self.shared, &self.place.listener, known, user, connect, now) {
            Ok(connecting) => {
                self.phase = Phase::Accepting(Box::new(connecting));
                self.open_if_safe(cx, now)
            }
            Err(refusal) => Err(self.refuse(&refusal, connect)),
        }
    }

    /// Says that a CONNECT is refused.
    fn refuse(&mut self, refusal: &Refusal, connect: &Connect<'_>) -> Close {
        self.shared.metrics.connects_refused.add(1);
        refusal.encode(connect, self.writing.tail());
        Close::quietly("CONNECT refused")
    }

    /// The same for a CONNECT that was kept.
    fn refuse_kept(&mut self, refusal: &Refusal) -> Close {
        let phase = std::mem::replace(&mut self.phase, Phase::New { deadline: None });
        if let Phase::Authenticating(stage) = phase
            && let Ok(Packet::Connect(connect)) = Packet::decode(&stage.connect(), ProtocolVersion::V5)
        {
            return self.refuse(refusal, &connect);
        }
        Close::quietly("CONNECT refused")
    }

    /// Lets the session go online if the CONNECT's record is safe. One that never will be is refused.
    fn open_if_safe(&mut self, cx: &mut Context<'_>, now: Now) -> Result<bool, Close> {
        let Phase::Accepting(connecting) = &mut self.phase else { return Ok(true) };
        match connecting.is_safe(&self.shared, cx, self.writing.tail()) {
            None => {
                self.shared.metrics.connects_refused.add(1);
                Err(Close::quietly("CONNECT refused"))
            }
            Some(false) => Ok(false),
            Some(true) => self.open(now).map(|()| true),
        }
    }

    /// The CONNECT's record is safe: the session goes online.
    fn open(&mut self, now: Now) -> Result<(), Close> {
        let phase = std::mem::replace(&mut self.phase, Phase::New { deadline: None });
        if let Phase::Accepting(connecting) = phase {
            let client =
                connecting.finish(&self.shared, &self.place.listener, now).map_err(Close::quietly)?;
            self.phase = Phase::Open(Box::new(client));
        }
        Ok(())
    }

    fn decode_error(&self, error: &mqtt_protocol::DecodeError) -> Close {
        self.shared.metrics.protocol_errors.add(1);
        if matches!(error, mqtt_protocol::DecodeError::PacketTooLarge { .. }) {
            self.shared.metrics.limit_packet_size.add(1);
        }
        Close::because(error.reason_code(), error.to_string())
    }

    /// A CONNECT that doesn't decode: told why if it is clear in which version.
    fn refuse_connect(&mut self, frame: &Frame<'_>, error: &mqtt_protocol::DecodeError) -> Close {
        self.shared.metrics.protocol_errors.add(1);
        let mut out = Outbound::default();
        crate::handlers::refuse_undecodable(frame, error, out.buffer());
        self.writing = out.take();
        Close { reason: None, why: error.to_string().into(), discard_will: false }
    }

    /// Writes everything there is, as far as the socket takes it.
    fn write(&mut self, cx: &mut Context<'_>, now: Now) -> Result<(), Close> {
        loop {
            if self.writing.is_done() {
                let Phase::Open(client) = &mut self.phase else { return self.flush(cx) };
                match client.take_output(cx, now)? {
                    Some(writing) => self.writing = writing,
                    None => return self.flush(cx),
                }
            }
            match self.write_some(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(close)) => return Err(close),
                Poll::Pending => {
                    if let Phase::Open(client) = &mut self.phase {
                        client.wait_for_socket(cx);
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Gets out what the transport has accepted and kept; it wakes the connection when the socket takes more.
    fn flush(&mut self, cx: &mut Context<'_>) -> Result<(), Close> {
        match Pin::new(&mut self.io).poll_flush(cx) {
            Poll::Ready(Err(error)) => {
                Err(Close { reason: None, why: error.to_string().into(), discard_will: false })
            }
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    fn write_some(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Close>> {
        while !self.writing.is_done() {
            let written = match self.writing.plain() {
                Some(bytes) => Pin::new(&mut self.io).poll_write(cx, bytes),
                None => Pin::new(&mut self.io).poll_write_vectored(cx, &self.writing.slices()),
            };
            match ready!(written) {
                Ok(0) => return Poll::Ready(Err(Close::quietly("closed by the client"))),
                Ok(count) => {
                    self.shared.metrics.bytes_sent.add(count as u64);
                    self.writing.advance(count);
                }
                Err(error) => {
                    return Poll::Ready(Err(Close {
                        reason: None,
                        why: error.to_string().into(),
                        discard_will: false,
                    }));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Leaves the session and begins to close: an MQTT 5 client gets a DISCONNECT with the reason.
    fn begin_close(&mut self, close: &Close) {
        let phase = std::mem::replace(
            &mut self.phase,
            Phase::Closing { deadline: Box::pin(tokio::time::sleep(CLOSE_TIME)), shut: false, discarded: 0 },
        );
        self.unhandled = Vec::new();
        tracing::debug!(peer = %self.peer, listener = %self.place.listener.name, reason = ?close.reason, why = %close.why, "closing");
        match phase {
            Phase::Open(mut client) => {
                if close.reason == Some(ReasonCode::SessionTakenOver) {
                    self.shared.metrics.takeovers.add(1);
                }
                // What was answered before the fault is still said, then why it ends.
                if self.writing.is_done() {
                    self.writing = client.take_rest();
                }
                if let Some(reason) = close.reason
                    && client.version.has_reason_codes()
                {
                    client.encode_disconnect(reason, &close.why, self.writing.tail());
                }
                client.leave(close.discard_will);
            }
            Phase::Accepting(connecting) => connecting.abandon(&self.shared),
            // An attempt that is under way is given up.
            Phase::New { .. } | Phase::Authenticating(_) | Phase::Closing { .. } => {}
        }
    }

    /// Gets the last bytes out, says that nothing follows, and waits a moment for the client to go.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.writing.is_done() {
            match self.write_some(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return self.poll_close_deadline(cx),
            }
        }
        let Phase::Closing { shut, discarded, .. } = &mut self.phase else { return Poll::Ready(()) };
        if !*shut {
            match Pin::new(&mut self.io).poll_shutdown(cx) {
                Poll::Ready(Ok(())) => *shut = true,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return self.poll_close_deadline(cx),
            }
        }
        let gone = READ_BUFFER.with_borrow_mut(|buffer| {
            loop {
                let mut read = ReadBuf::new(buffer);
                match Pin::new(&mut self.io).poll_read(cx, &mut read) {
                    Poll::Pending => return false,
                    Poll::Ready(Err(_)) => return true,
                    Poll::Ready(Ok(())) => {
                        *discarded += read.filled().len();
                        if read.filled().is_empty() || *discarded > CLOSE_DISCARD_BYTES {
                            return true;
                        }
                    }
                }
            }
        });
        if gone { Poll::Ready(()) } else { self.poll_close_deadline(cx) }
    }

    fn poll_close_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.phase {
            Phase::Closing { deadline, .. } => deadline.as_mut().poll(cx),
            Phase::New { .. } | Phase::Authenticating(_) | Phase::Accepting(_) | Phase::Open(_) => {
                Poll::Ready(())
            }
        }
    }
}

impl<IO: Transport> Future for Connection<IO> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if !matches!(this.phase, Phase::Closing { .. }) {
            let turn = this.turn(cx);
            this.shared.metrics.end_turn();
            match turn {
                Ok(()) => return Poll::Pending,
                Err(close) => {
                    this.begin_close(&close);
                    this.shared.metrics.end_turn();
                }
            }
        }
        this.poll_close(cx)
    }
}

impl<IO> Drop for Connection<IO> {
    /// A task that panicked or was dropped still leaves its session as a lost connection would.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.metrics.connection_panics.add(1);
            tracing::error!(peer = %self.peer, "a connection's task panicked; only this connection is closed");
        }
        match std::mem::replace(&mut self.phase, Phase::New { deadline: None }) {
            Phase::Open(client) => client.leave(false),
            Phase::Accepting(connecting) => connecting.abandon(&self.shared),
            // An attempt that is under way is given up.
            Phase::New { .. } | Phase::Authenticating(_) | Phase::Closing { .. } => {}
        }
        self.shared.metrics.end_turn();
    }
}
