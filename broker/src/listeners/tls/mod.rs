//! TLS below MQTT.
//!
//! Made on rustls' interface without buffers: what is read is decrypted in a buffer of the thread, and what is written is
//! encrypted into another. A connection keeps only the beginning of a record when one was cut, and what the socket didn't
//! take; an idle one keeps neither, just its keys.

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, WriteTraffic,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of a thread's buffer for what comes from sockets.
const SEALED_BYTES: usize = 64 * 1024;
/// Plain bytes that are encrypted in one go: four records.
const PLAIN_BYTES_MAX: usize = 64 * 1024;
/// Bytes that records add to those, a KeyUpdate before them included.
const RECORDS_BYTES: usize = 1024;
/// Bytes that a connection may keep of what isn't whole: a record, or a message of the handshake (a client's certificates).
const INCOMPLETE_BYTES_MAX: usize = 20 * 1024;
/// Bytes for the alert with which a side ends, encrypted; a KeyUpdate may go before it.
const CLOSE_NOTIFY_BYTES: usize = 256;

thread_local! {
    static RECEIVED: RefCell<Vec<u8>> = RefCell::new(vec![0; SEALED_BYTES]);
    static SEALED: RefCell<Vec<u8>> = RefCell::new(vec![0; PLAIN_BYTES_MAX + RECORDS_BYTES]);
    static GATHERED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What a listener shows and trusts. Every clone is the same one: what is put in its place holds for new connections, those
/// that are open stay as they are.
#[derive(Clone)]
pub struct TlsSetup(Arc<RwLock<Current>>);

struct Current {
    config: Arc<ServerConfig>,
    expires_at_s: Option<i64>,
}

impl TlsSetup {
    /// Takes settings, and when the first of the listener's own certificates expires, in seconds since the epoch.
    #[must_use]
    pub fn new(config: Arc<ServerConfig>, expires_at_s: Option<i64>) -> Self {
        Self(Arc::new(RwLock::new(Current { config, expires_at_s })))
    }

    /// Puts other settings in place of those that it has.
    pub fn replace(&self, config: Arc<ServerConfig>, expires_at_s: Option<i64>) {
        *self.0.write() = Current { config, expires_at_s };
    }

    /// When the first of the listener's own certificates expires, in seconds since the epoch.
    #[must_use]
    pub fn expires_at_s(&self) -> Option<i64> {
        self.0.read().expires_at_s
    }

    /// The settings as they are now.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.read().config)
    }
}

impl fmt::Debug for TlsSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSetup").field("expires_at_s", &self.expires_at_s()).finish_non_exhaustive()
    }
}

/// A stream inside TLS, on the server's side.
pub(crate) struct TlsStream<IO> {
    io: IO,
    session: UnbufferedServerConnection,
    /// What was received and isn't whole; at most [`INCOMPLETE_BYTES_MAX`].
    incomplete: Vec<u8>,
    /// What was decrypted and not taken: at most what one read decrypts.
    plain: Vec<u8>,
    /// Records on their way out.
    outgoing: Vec<u8>,
    sent: usize,
    is_open: bool,
    /// The client sends nothing more.
    is_at_end: bool,
    /// We have said that we send nothing more.
    is_shut: bool,
}

/// How far the records that were there have brought a session.
struct Progress {
    /// Bytes at the front that are done with.
    used: usize,
    is_open: bool,
    is_at_end: bool,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> TlsStream<IO> {
    /// Runs the handshake.
    pub(super) async fn accept(io: IO, config: Arc<ServerConfig>) -> io::Result<Self> {
        let session = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        let mut stream = Self {
            io,
            session,
            incomplete: Vec::new(),
            plain: Vec::new(),
            outgoing: Vec::new(),
            sent: 0,
            is_open: false,
            is_at_end: false,
            is_shut: false,
        };
        std::future::poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    /// Waits for the first byte inside and leaves it to be read; `None`: the client went.
    pub(super) async fn first_byte(&mut self) -> io::Result<Option<u8>> {
        std::future::poll_fn(|cx| {
            while self.plain.is_empty() && !self.is_at_end {
                let mut plain = Vec::new();
                let received = self.poll_receive(cx, &mut |bytes| plain.extend_from_slice(bytes));
                self.plain = plain;
                ready!(received)?;
            }
            Poll::Ready(Ok(self.plain.first().copied()))
        })
        .await
    }

    /// The certificate that the client showed, DER.
    pub(super) fn certificate(&self) -> Option<Arc<[u8]>> {
        self.session.peer_certificates()?.first().map(|certificate| certificate.as_ref().into())
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_send(cx))?;
            if self.is_open {
                return Poll::Ready(Ok(()));
            }
            if self.is_at_end {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            let mut plain = std::mem::take(&mut self.plain);
            let received = self.poll_receive(cx, &mut |bytes| plain.extend_from_slice(bytes));
            self.plain = plain;
            ready!(received)?;
        }
    }

    /// Reads once, and hands what is inside to `take`.
    fn poll_receive(&mut self, cx: &mut Context<'_>, take: &mut dyn FnMut(&[u8])) -> Poll<io::Result<()>> {
        RECEIVED.with_borrow_mut(|buffer| {
            let kept = self.incomplete.len();
            let mut read = ReadBuf::new(buffer.get_mut(kept..).unwrap_or_default());
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
            let count = read.filled().len();
            if count == 0 {
                // Whether it said so in TLS doesn't matter: MQTT has an end of its own.
                self.is_at_end = true;
                return Poll::Ready(Ok(()));
            }
            let received = buffer.get_mut(..kept + count).unwrap_or_default();
            if let Some(front) = received.get_mut(..kept) {
                front.copy_from_slice(&self.incomplete);
                self.incomplete = Vec::new();
            }
            let progress = match process(&mut self.session, received, &mut self.outgoing, take) {
                Ok(progress) => progress,
                Err(error) => {
                    self.is_at_end = true;
                    // The alert says why; it is all that can still be done.
                    drop(self.poll_send(cx));
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
                }
            };
            self.is_open |= progress.is_open;
            self.is_at_end |= progress.is_at_end;
            let rest = received.get(progress.used..).unwrap_or_default();
            if rest.len() > INCOMPLETE_BYTES_MAX {
                let why = format!(
                    "{} bytes of a message that isn't whole, more than the limit of {INCOMPLETE_BYTES_MAX}",
                    rest.len()
                );
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
            }
            if !rest.is_empty() && !self.is_at_end {
                self.incomplete = rest.to_vec();
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Gets out the records that wait.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.outgoing.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.io).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        self.outgoing = Vec::new();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Encrypts `plain` and sends what the socket takes of it; the rest waits.
    fn seal_and_send(&mut self, cx: &mut Context<'_>, plain: &[u8]) -> io::Result<()> {
        SEALED.with_borrow_mut(|sealed| {
            let count = self.seal(plain, sealed)?;
            let mut rest = sealed.get(..count).unwrap_or_default();
            // Records that were to go first go first.
            if self.outgoing.is_empty() {
                while !rest.is_empty() {
                    match Pin::new(&mut self.io).poll_write(cx, rest) {
                        Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                        Poll::Ready(Ok(count)) => rest = rest.get(count..).unwrap_or_default(),
                        Poll::Ready(Err(error)) => return Err(error),
                        Poll::Pending => break,
                    }
                }
            }
            self.outgoing.extend_from_slice(rest);
            Ok(())
        })
    }

    fn seal(&mut self, plain: &[u8], sealed: &mut Vec<u8>) -> io::Result<usize> {
        self.with_open_session(|state| {
            loop {
                match state.encrypt(plain, sealed) {
                    Ok(count) => return Ok(count),
                    Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => {
                        sealed.resize(required_size, 0);
                    }
                    Err(error @ EncryptError::EncryptExhausted) => return Err(io::Error::other(error)),
                }
            }
        })
    }

    /// Calls `write` in the state in which something may be written.
    fn with_open_session<T>(
        &mut self,
        mut write: impl FnMut(&mut WriteTraffic<'_, ServerConnectionData>) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            // What isn't whole has to be there: the session knows parts of it by their places.
            let status = self.session.process_tls_records(&mut self.incomplete);
            let mut discard = status.discard;
            let mut is_written = None;
            match status.state.map_err(io::Error::other)? {
                ConnectionState::WriteTraffic(mut traffic) => is_written = Some(write(&mut traffic)),
                ConnectionState::EncodeTlsData(mut data) => encode(&mut data, &mut self.outgoing),
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed => self.is_at_end = true,
                ConnectionState::ReadTraffic(mut records) => {
                    while let Some(record) = records.next_record() {
                        let record = record.map_err(io::Error::other)?;
                        discard += record.discard;
                        self.plain.extend_from_slice(record.payload);
                    }
                }
                _ => return Err(io::ErrorKind::BrokenPipe.into()),
            }
            self.incomplete.drain(..discard.min(self.incomplete.len()));
            if let Some(written) = is_written {
                return written;
            }
        }
    }
}

/// Takes a session through the records that are there. What it answers goes to `outgoing`, what is inside to `take`.
fn process(
    session: &mut UnbufferedServerConnection,
    records: &mut [u8],
    outgoing: &mut Vec<u8>,
    take: &mut dyn FnMut(&[u8]),
) -> Result<Progress, rustls::Error> {
    let mut progress = Progress { used: 0, is_open: false, is_at_end: false };
    loop {
        let rest = records.get_mut(progress.used..).unwrap_or_default();
        let status = session.process_tls_records(rest);
        let mut discard = status.discard;
        let mut goes_on = true;
        match status.state {
            Ok(ConnectionState::ReadTraffic(mut found)) => {
                while let Some(record) = found.next_record() {
                    let record = record?;
                    discard += record.discard;
                    take(record.payload);
                }
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, outgoing),
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::PeerClosed) => progress.is_at_end = true,
            Ok(ConnectionState::WriteTraffic(_)) => {
                progress.is_open = true;
                goes_on = false;
            }
            // Waiting for more, or over. Early data is never asked for.
            Ok(_) => goes_on = false,
            Err(error) => {
                // The alert is the last of what waits: a part of the handshake may go before it.
                while session.wants_write()
                    && let Ok(ConnectionState::EncodeTlsData(mut data)) =
                        session.process_tls_records(rest).state
                {
                    encode(&mut data, outgoing);
                }
                return Err(error);
            }
        }
        progress.used += discard;
        if !goes_on {
            return Ok(progress);
        }
    }
}

/// Appends a record of the handshake, or an alert.
fn encode(data: &mut EncodeTlsData<'_, ServerConnectionData>, outgoing: &mut Vec<u8>) {
    let start = outgoing.len();
    while let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) =
        data.encode(outgoing.get_mut(start..).unwrap_or_default())
    {
        outgoing.resize(start + required_size, 0);
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.plain.is_empty() {
                let count = buf.remaining().min(this.plain.len());
                let mut left = std::mem::take(&mut this.plain);
                buf.put_slice(left.get(..count).unwrap_or_default());
                left.drain(..count);
                // Idle, it keeps no memory.
                this.plain = if left.is_empty() { Vec::new() } else { left };
                return Poll::Ready(Ok(()));
            }
            if this.is_at_end || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let before = buf.filled().len();
            let mut left = Vec::new();
            let received = this.poll_receive(cx, &mut |plain| {
                let (fits, more) = plain.split_at(buf.remaining().min(plain.len()));
                buf.put_slice(fits);
                left.extend_from_slice(more);
            });
            this.plain = left;
            ready!(received)?;
            if let Poll::Ready(Err(error)) = this.poll_send(cx) {
                return Poll::Ready(Err(error));
            }
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        let plain = buf.get(..PLAIN_BYTES_MAX).unwrap_or(buf);
        this.seal_and_send(cx, plain)?;
        Poll::Ready(Ok(plain.len()))
    }

    /// Gathers the slices, so that small ones share a record.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = bufs {
            return self.poll_write(cx, only);
        }
        GATHERED.with_borrow_mut(|gathered| {
            gathered.clear();
            for slice in bufs {
                let room = PLAIN_BYTES_MAX - gathered.len();
                gathered.extend_from_slice(slice.get(..room).unwrap_or(slice));
            }
            self.poll_write(cx, gathered)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        if !this.is_shut {
            this.is_shut = true;
            let mut alert = [0; CLOSE_NOTIFY_BYTES];
            let count = this
                .with_open_session(|state| state.queue_close_notify(&mut alert).map_err(io::Error::other));
            this.outgoing
                .extend_from_slice(count.ok().and_then(|count| alert.get(..count)).unwrap_or_default());
            ready!(this.poll_send(cx))?;
        }
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}
