//! A connection to a NATS server that only sends: which answer belongs to which message.
//!
//! Why no library: docs/decisions/0020-libraries-of-sinks.md. What is needed is small, and the order of what the server
//! says carries meaning that has to be kept: behind each batch goes a `PING`, and its `PONG` says that the server has
//! looked at every message of the batch. What it had to say against one of them (`-ERR`, which names no more than a
//! subject) came before that `PONG`, so it belongs to the batch whose `PONG` is the next. What a stream answers comes to a
//! subject of the message's own.
//!
//! One task serves a connection and ends with the last handle to it. Nothing is sent twice, nothing connects again, and
//! nothing waits behind the back of whoever sends: all of that is the delivery machine's.

use std::collections::{HashMap, VecDeque};
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, split};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::wire::{Decoder, Info, Message, Said};
use crate::connectors::Link;
use crate::delivery::Envelope;
use crate::record::Record;

/// Most batches that wait to be written; further ones wait for a place, within their time.
const WRITES_MAX: usize = 16;
/// What the server says when a subject isn't ours to publish to, before the subject.
const NOT_ALLOWED: &str = "Permissions Violation for Publish to ";

/// A handle of a connection. The connection ends with the last of them.
#[derive(Clone)]
pub(super) struct Connection(Arc<Open>);

struct Open {
    state: Arc<State>,
    writes: mpsc::Sender<Vec<u8>>,
    /// Why no acknowledgement can be heard, if that is so; in the server's words.
    deafness: Option<String>,
    task: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the task of a connection shares with those who send over it.
struct State {
    /// What subjects for answers begin with.
    inbox: String,
    table: Mutex<Table>,
    owes_pong: Notify,
    payload_bytes_max: AtomicUsize,
    next_flight: AtomicU64,
}

#[derive(Default)]
struct Table {
    flights: HashMap<u64, Flight>,
    /// Batches whose `PONG` hasn't come, in the order in which they were written.
    pongs: VecDeque<u64>,
    /// What the server said last against anything.
    last_error: Option<String>,
    /// Why the connection is of no use any more.
    broken: Option<String>,
}

impl Table {
    /// The batch that the server looks at.
    fn looked_at(&mut self) -> Option<&mut Flight> {
        self.flights.get_mut(self.pongs.front()?)
    }
}

/// A batch on its way.
struct Flight {
    items: Vec<Arc<Envelope<Record>>>,
    answers: Vec<Option<Answer>>,
    /// How many have no answer.
    missing: usize,
    /// Whether each message has an answer to come.
    wants_answers: bool,
    is_ponged: bool,
    /// How many errors may still be about it: one for each message.
    errors_left: usize,
    complaint: Option<String>,
    done: Option<oneshot::Sender<()>>,
}

/// What is known of a message that was sent.
#[derive(Debug)]
pub(super) enum Answer {
    /// What came to the message's own subject.
    Came { status: Option<u16>, payload: Bytes },
    /// The server doesn't let us publish it; in its words.
    NotAllowed(String),
}

/// What became of a batch.
#[derive(Default)]
pub(super) struct Landing {
    /// One for each message that was sent; fewer, or `None`, where nothing is known.
    pub(super) answers: Vec<Option<Answer>>,
    /// Whether the server has looked at every message.
    pub(super) is_ponged: bool,
    /// What it said against the batch, if it was no message that it meant.
    pub(super) complaint: Option<String>,
    /// Why nothing more will come, if the connection broke.
    pub(super) broken: Option<String>,
}

impl Flight {
    fn answer(&mut self, index: usize, answer: Answer) {
        if let Some(slot @ None) = self.answers.get_mut(index) {
            *slot = Some(answer);
            self.missing -= 1;
        }
    }

    /// Takes what the server says against something in this batch.
    fn complain(&mut self, text: &str) {
        if self.errors_left == 0 {
            // More than there are messages mean none of them. All are looked through for each.
            self.complaint.get_or_insert_with(|| text.to_owned());
            return;
        }
        self.errors_left -= 1;
        let subject = text.strip_prefix(NOT_ALLOWED).map(|subject| subject.trim_matches('"'));
        let meant: Vec<usize> = (0..)
            .zip(&self.items)
            .filter(|(_, item)| subject == Some(item.request.part(0)))
            .map(|(n, _)| n)
            .collect();
        if meant.is_empty() {
            self.complaint = Some(text.to_owned());
        }
        for index in meant {
            self.answer(index, Answer::NotAllowed(text.to_owned()));
        }
    }

    /// Tells who waits, if there is nothing to wait for any more.
    fn settle(&mut self) {
        let is_settled = self.is_ponged && (self.missing == 0 || !self.wants_answers);
        if is_settled && let Some(done) = self.done.take() {
            // Whoever waited may have given up.
            done.send(()).ok();
        }
    }
}

impl State {
    /// Ends the wait of everybody.
    fn break_with(&self, cause: &dyn Display) {
        let mut table = self.table.lock();
        if table.broken.is_some() {
            return;
        }
        table.broken = Some(match &table.last_error {
            Some(said) => format!("{cause}; the last that it said was \"{said}\""),
            None => cause.to_string(),
        });
        for flight in table.flights.values_mut() {
            flight.done = None;
        }
    }

    fn hear(&self, said: Said) {
        match said {
            Said::Ok => {}
            Said::Ping => self.owes_pong.notify_one(),
            Said::Info(info) => self.payload_bytes_max.store(info.payload_bytes_max(), Ordering::Relaxed),
            Said::Pong => {
                let mut table = self.table.lock();
                if let Some(flight) = table.looked_at() {
                    flight.is_ponged = true;
                    flight.settle();
                }
                table.pongs.pop_front();
            }
            Said::Error(text) => {
                let mut table = self.table.lock();
                if let Some(flight) = table.looked_at() {
                    flight.complain(&text);
                }
                table.last_error = Some(text);
            }
            Said::Message(message) => {
                let Some((flight, index)) = self.addressee(&message) else { return };
                if let Some(flight) = self.table.lock().flights.get_mut(&flight) {
                    flight.answer(index, Answer::Came { status: message.status, payload: message.payload });
                    flight.settle();
                }
            }
        }
    }

    /// The batch, and the message of it, that a message is the answer to.
    fn addressee(&self, message: &Message) -> Option<(u64, usize)> {
        let token = message.subject.strip_prefix(self.inbox.as_bytes())?;
        let (flight, index) = std::str::from_utf8(token).ok()?.split_once('-')?;
        Some((flight.parse().ok()?, index.parse().ok()?))
    }
}

impl Connection {
    /// Takes over a connection on which the sign-in is done.
    pub(super) fn start(
        link: Link,
        decoder: Decoder,
        info: &Info,
        inbox: String,
        deafness: Option<String>,
    ) -> Self {
        let state = Arc::new(State {
            inbox,
            table: Mutex::default(),
            owes_pong: Notify::new(),
            payload_bytes_max: AtomicUsize::new(info.payload_bytes_max()),
            next_flight: AtomicU64::new(0),
        });
        let (writes, to_write) = mpsc::channel(WRITES_MAX);
        let task = tokio::spawn(serve(link, decoder, to_write, Arc::clone(&state))).abort_handle();
        Self(Arc::new(Open { state, writes, deafness, task }))
    }

    pub(super) fn is_broken(&self) -> bool {
        self.0.writes.is_closed() || self.0.state.table.lock().broken.is_some()
    }

    /// Ends it for everybody who uses it.
    pub(super) fn close(&self, cause: &dyn Display) {
        self.0.state.break_with(cause);
        self.0.task.abort();
    }

    pub(super) fn deafness(&self) -> Option<&str> {
        self.0.deafness.as_deref()
    }

    /// Most bytes of a message, headers included.
    pub(super) fn payload_bytes_max(&self) -> usize {
        self.0.state.payload_bytes_max.load(Ordering::Relaxed)
    }

    /// A number for a batch.
    pub(super) fn next_flight(&self) -> u64 {
        self.0.state.next_flight.fetch_add(1, Ordering::Relaxed)
    }

    /// Where the answer to a message is to go.
    pub(super) fn reply_to(&self, flight: u64, index: usize) -> String {
        format!("{}{flight}-{index}", self.0.state.inbox)
    }

    /// Sends a batch, as the bytes that it is, and waits for what is said to it, until `deadline`.
    pub(super) async fn fly(
        &self,
        number: u64,
        bytes: Vec<u8>,
        items: Vec<Arc<Envelope<Record>>>,
        wants_answers: bool,
        deadline: Instant,
    ) -> Landing {
        let state = &self.0.state;
        let Ok(place) = timeout_at(deadline, self.0.writes.reserve()).await else {
            return Landing::default();
        };
        let (done, landed) = oneshot::channel();
        let flight = Ticket { state, number };
        {
            // Written in the order in which their answers are expected: both happen under the lock.
            let mut table = state.table.lock();
            let Some(place) = place.ok().filter(|_| table.broken.is_none()) else {
                let broken = table.broken.clone().or_else(|| Some("it was closed".to_owned()));
                return Landing { broken, ..Landing::default() };
            };
            let missing = items.len();
            let answers = items.iter().map(|_| None).collect();
            let flight = Flight {
                items,
                answers,
                missing,
                wants_answers,
                is_ponged: false,
                errors_left: missing,
                complaint: None,
                done: Some(done),
            };
            table.flights.insert(number, flight);
            table.pongs.push_back(number);
            place.send(bytes);
        }
        // Late, or broken, or all said: what there is says which.
        drop(timeout_at(deadline, landed).await);
        flight.land()
    }
}

/// A batch's place in the table, which ends with whoever waits for it.
struct Ticket<'s> {
    state: &'s State,
    number: u64,
}

impl Ticket<'_> {
    fn land(self) -> Landing {
        let mut table = self.state.table.lock();
        let broken = table.broken.clone();
        match table.flights.remove(&self.number) {
            Some(Flight { answers, is_ponged, complaint, .. }) => {
                Landing { answers, is_ponged, complaint, broken }
            }
            None => Landing { broken, ..Landing::default() },
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.state.table.lock().flights.remove(&self.number);
    }
}

/// Moves bytes in both directions until one of them fails.
async fn serve(link: Link, decoder: Decoder, to_write: mpsc::Receiver<Vec<u8>>, state: Arc<State>) {
    let (input, output) = split(link);
    tokio::select! {
        () = listen(input, decoder, &state) => {}
        () = write(output, to_write, &state) => {}
    }
}

async fn listen(mut input: impl AsyncRead + Unpin, mut decoder: Decoder, state: &State) {
    loop {
        match decoder.next(&mut input).await {
            Ok(said) => state.hear(said),
            Err(error) => return state.break_with(&error),
        }
    }
}

async fn write(mut output: impl AsyncWrite + Unpin, mut to_write: mpsc::Receiver<Vec<u8>>, state: &State) {
    loop {
        let bytes = tokio::select! {
            () = state.owes_pong.notified() => b"PONG\r\n".to_vec(),
            bytes = to_write.recv() => match bytes {
                Some(bytes) => bytes,
                None => return,
            },
        };
        let written = async {
            output.write_all(&bytes).await?;
            output.flush().await
        };
        if let Err(error) = written.await {
            return state.break_with(&error);
        }
    }
}
