//! Reading back: what a start needs, and queues as a stream.
//!
//! A queue is read in short pieces, from its place on: the state says which segment has the next unpaid debt, the segment's
//! directory says where. A reader holds one window of a file and nothing else, however long the queue is. The calls here
//! wait for the disk: they belong on a thread that may.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::bytes::{Malformed, Reader};
use crate::directory::{Directory, DirectoryFile};
use crate::disk::DiskFile;
use crate::durable::{DurableStore, Shared};
use crate::entry::{Entry, Owed, read_message};
use crate::format::{FRAME_HEAD, parse_frame, peek_frame};
use crate::maintenance::read_head;
use crate::queue::{Inflight, Queue, Session};
use crate::record::{MessageId, MessageRecord, Position, QueueKey, SessionKey};
use crate::recovery::{debts_of, directory_name, log_name};
use crate::scan::{Found, Scanner};
use crate::state::{Frame, Place, State, key_of};

/// Bytes that are read at once.
const WINDOW: usize = 128 * 1024;

/// A segment may be emptied and removed between finding and reading a debt, this often in a row.
const TRIES: usize = 8;

/// An Application Message that was kept. The fields are those of [`MessageRecord`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is documented where it is borrowed")]
pub struct StoredMessage {
    pub id: MessageId,
    pub topic: String,
    pub properties: Vec<u8>,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub received_at_ms: i64,
    pub expires_after_ms: Option<u64>,
    pub publisher: Option<String>,
    pub author: Vec<u8>,
}

impl StoredMessage {
    /// The record that has it written once more.
    #[must_use]
    pub fn as_record(&self) -> MessageRecord<'_> {
        MessageRecord {
            id: self.id,
            topic: &self.topic,
            properties: &self.properties,
            payload: &self.payload,
            qos: self.qos,
            received_at_ms: self.received_at_ms,
            expires_after_ms: self.expires_after_ms,
            publisher: self.publisher.as_deref(),
            author: &self.author,
        }
    }
}

/// A debt that isn't paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDebt {
    /// Its place in the queue.
    pub position: Position,
    /// The epoch in which it was first written: with the store's identity and the place it makes an idempotency key.
    pub epoch: u32,
    /// Quality of service of the delivery; 0 in an outbox and in a group's queue.
    pub qos: u8,
    /// RETAIN flag of the delivery.
    pub retain: bool,
    /// Subscription Identifiers of the delivery.
    pub identifiers: Vec<u32>,
    /// What was given as the body of a [`crate::Record::Queued`].
    pub body: Vec<u8>,
    /// The message.
    pub message: Option<StoredMessage>,
}

/// A queue's name, owned.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each field is documented where it is borrowed")]
pub enum StoredQueue {
    /// See [`QueueKey::Session`].
    Session { namespace: u32, client_id: String },
    /// See [`QueueKey::Group`].
    Group { namespace: u32, share_name: String, filter: String },
    /// See [`QueueKey::Outbox`].
    Outbox { namespace: u32, name: String },
    /// See [`QueueKey::DeadLetters`].
    DeadLetters { namespace: u32, name: String },
    /// See [`QueueKey::Wills`].
    Wills { namespace: u32 },
}

/// A session as it was kept, without what is owed to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSession {
    /// Namespace.
    pub namespace: u32,
    /// Client Identifier.
    pub client_id: String,
    /// Seconds after the Network Connection closes.
    pub expiry_interval_s: u32,
    /// Wall clock when its connection went, milliseconds since the epoch; `None`: it had one to the end.
    pub detached_at_ms: Option<i64>,
    /// User name of whose it is; empty: nobody's.
    pub owner: String,
    /// Its will.
    pub will: Option<StoredWill>,
    /// Its Subscriptions.
    pub subscriptions: Vec<StoredSubscription>,
    /// Packet Identifiers of inbound QoS 2 publishes that aren't released.
    pub received: Vec<u16>,
    /// What it was sent and hasn't completed.
    pub inflight: Vec<StoredInflight>,
    /// How many debts are in its queue, sent ones included.
    pub debts: u64,
    /// About how many bytes of the log they account for.
    pub bytes: u64,
    /// The last place that was given in its queue.
    pub last: Position,
}

/// A will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredWill {
    /// Will Delay Interval in seconds.
    pub delay_s: u32,
    /// Whether it is to be retained.
    pub retain: bool,
    /// The message.
    pub message: StoredMessage,
}

/// A Subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSubscription {
    /// Topic Filter as the client wrote it, `$share` included.
    pub filter: String,
    /// Options byte.
    pub options: u8,
    /// Subscription Identifier, 0 for none.
    pub identifier: u32,
}

/// What a session was sent under a Packet Identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredInflight {
    /// Packet Identifier.
    pub packet_id: u16,
    /// Whose debt it is; `None` when that queue is gone.
    pub queue: Option<StoredQueue>,
    /// Its place there.
    pub position: Position,
    /// How far it has got.
    pub stage: Stage,
}

/// How far a delivery has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Sent; the debt stands.
    Sent,
    /// PUBREC has come, the debt is paid; PUBCOMP is awaited.
    AwaitsCompletion,
}

impl From<MessageRecord<'_>> for StoredMessage {
    fn from(message: MessageRecord<'_>) -> Self {
        Self {
            id: message.id,
            topic: message.topic.to_owned(),
            properties: message.properties.to_vec(),
            payload: message.payload.to_vec(),
            qos: message.qos,
            received_at_ms: message.received_at_ms,
            expires_after_ms: message.expires_after_ms,
            publisher: message.publisher.map(str::to_owned),
            author: message.author.to_vec(),
        }
    }
}

impl From<QueueKey<'_>> for StoredQueue {
    fn from(key: QueueKey<'_>) -> Self {
        match key {
            QueueKey::Session(SessionKey { namespace, client_id }) => {
                Self::Session { namespace, client_id: client_id.to_owned() }
            }
            QueueKey::Group { namespace, share_name, filter } => {
                Self::Group { namespace, share_name: share_name.to_owned(), filter: filter.to_owned() }
            }
            QueueKey::Outbox { namespace, name } => Self::Outbox { namespace, name: name.to_owned() },
            QueueKey::DeadLetters { namespace, name } => {
                Self::DeadLetters { namespace, name: name.to_owned() }
            }
            QueueKey::Wills { namespace } => Self::Wills { namespace },
        }
    }
}

impl StoredQueue {
    /// The borrowed form, for records.
    #[must_use]
    pub fn key(&self) -> QueueKey<'_> {
        match self {
            Self::Session { namespace, client_id } => {
                QueueKey::Session(SessionKey { namespace: *namespace, client_id })
            }
            Self::Group { namespace, share_name, filter } => {
                QueueKey::Group { namespace: *namespace, share_name, filter }
            }
            Self::Outbox { namespace, name } => QueueKey::Outbox { namespace: *namespace, name },
            Self::DeadLetters { namespace, name } => QueueKey::DeadLetters { namespace: *namespace, name },
            Self::Wills { namespace } => QueueKey::Wills { namespace: *namespace },
        }
    }
}

impl DurableStore {
    /// Hands every session to `each`, in no order. `each` must not call the store.
    pub fn for_each_session(&self, mut each: impl FnMut(StoredSession)) {
        let front = self.shared.front.lock();
        for queue in front.state.queues.values() {
            if let Some(session) = &queue.session
                && let Ok(QueueKey::Session(key)) = key_of(&queue.key)
            {
                each(stored_session(&front.state, key, queue, session));
            }
        }
    }

    /// Hands every queue and its length to `each`, in no order. `each` must not call the store.
    pub fn for_each_queue(&self, mut each: impl FnMut(StoredQueue, u64)) {
        let front = self.shared.front.lock();
        for queue in front.state.queues.values() {
            if let Ok(key) = key_of(&queue.key) {
                each(key.into(), queue.len());
            }
        }
    }

    /// The same for outboxes and dead letters alone, at a cost that doesn't depend on how many other queues there are.
    pub fn for_each_queue_of_actions(&self, mut each: impl FnMut(StoredQueue, u64)) {
        let front = self.shared.front.lock();
        for queue in front.state.of_actions.iter().filter_map(|number| front.state.queues.get(number)) {
            if let Ok(key) = key_of(&queue.key) {
                each(key.into(), queue.len());
            }
        }
    }

    /// How many debts a queue has, 0 when there is none of this name.
    #[must_use]
    pub fn queue_len(&self, key: QueueKey<'_>) -> u64 {
        let front = self.shared.front.lock();
        let queue = front.state.find(key, &mut Vec::new());
        queue.and_then(|queue| front.state.queues.get(&queue)).map_or(0, |queue| queue.len())
    }

    /// The last place that was given in a queue, [`Position::NOWHERE`] when there is none of this name.
    #[must_use]
    pub fn queue_end(&self, key: QueueKey<'_>) -> Position {
        let front = self.shared.front.lock();
        let queue = front.state.find(key, &mut Vec::new());
        queue
            .and_then(|queue| front.state.queues.get(&queue))
            .map_or(Position::NOWHERE, |queue| Position(queue.next - 1))
    }

    /// How many debts a queue has, and the bytes that they account for in the log: those on their way there aren't among
    /// the bytes yet.
    #[must_use]
    pub fn queue_size(&self, key: QueueKey<'_>) -> (u64, u64) {
        let front = self.shared.front.lock();
        let queue = front.state.find(key, &mut Vec::new()).and_then(|queue| front.state.queues.get(&queue));
        queue.map_or((0, 0), |queue| (queue.len(), queue.runs.iter().map(|run| run.bytes).sum()))
    }

    /// Hands every Retained Message to `each`, in the order of the log, once everything that was appended so far is safe. Of
    /// what waits for room on a full disk it has what was retained before. One whose bytes are damaged is passed over,
    /// cleared and counted as lost.
    ///
    /// # Errors
    /// What the disk says when it doesn't give any bytes.
    pub fn for_each_retained(&self, mut each: impl FnMut(StoredMessage)) -> io::Result<()> {
        // On a full disk there is no telling when the newest are safe: then those before them are what is retained.
        let is_safe = self.shared.wait_to_read();
        if let Err(error) = &is_safe {
            tracing::warn!(%error, "Retained Messages that wait for room are not read");
        }
        let mut places: Vec<_> = {
            let mut front = self.shared.front.lock();
            front.readers += 1;
            let before = &front.retained_on_way;
            let places = front.state.retained.values();
            places.filter_map(|place| *before.get(place).unwrap_or(&Some(*place))).collect()
        };
        let done = self.read_retained(&mut places, &mut each);
        self.shared.front.lock().readers -= 1;
        self.shared.maintenance.notify_all();
        done
    }

    fn read_retained(&self, places: &mut [Place], each: &mut impl FnMut(StoredMessage)) -> io::Result<()> {
        places.sort_unstable_by_key(|place| (place.segment, place.offset, place.message));
        let mut window = Window::new(Arc::clone(&self.shared));
        for place in places {
            // No segment goes while retained messages are read: one that isn't there is lost.
            let mut tries = TRIES;
            if let Err(error) = window.go_to(place.segment) {
                window.lose_unless_moved(place.segment, error, &mut tries)?;
                continue;
            }
            let frame = window.frame(place.offset)?.and_then(|body| Frame::read(body).ok());
            match frame.as_ref().and_then(|frame| frame.messages.get(place.message as usize)) {
                Some(message) => each((*message).into()),
                None => window.shared.lose_retained(*place),
            }
        }
        Ok(())
    }

    /// A reader of a queue.
    #[must_use]
    pub fn reader(&self, queue: QueueKey<'_>) -> QueueReader {
        QueueReader { queue: queue.into(), window: Window::new(Arc::clone(&self.shared)) }
    }
}

fn stored_session(state: &State, key: SessionKey<'_>, queue: &Queue, session: &Session) -> StoredSession {
    StoredSession {
        namespace: key.namespace,
        client_id: key.client_id.to_owned(),
        expiry_interval_s: session.expiry_interval_s,
        detached_at_ms: session.detached_at_ms,
        owner: session.owner.to_string(),
        will: session.will.as_deref().and_then(|will| stored_will(will).ok()),
        subscriptions: session
            .subscriptions
            .iter()
            .map(|(filter, (options, identifier))| StoredSubscription {
                filter: filter.to_string(),
                options: *options,
                identifier: *identifier,
            })
            .collect(),
        received: session.received.iter().copied().collect(),
        inflight: session
            .inflight
            .iter()
            .map(|(packet_id, inflight)| stored_inflight(state, *packet_id, inflight))
            .collect(),
        debts: queue.len(),
        bytes: queue.runs.iter().map(|run| run.bytes).sum(),
        last: Position(queue.next - 1),
    }
}

fn stored_inflight(state: &State, packet_id: u16, inflight: &Inflight) -> StoredInflight {
    let owner = state.queues.get(&inflight.owner).and_then(|owner| key_of(&owner.key).ok());
    StoredInflight {
        packet_id,
        queue: owner.map(Into::into),
        position: Position(inflight.position),
        stage: if inflight.awaits_completion { Stage::AwaitsCompletion } else { Stage::Sent },
    }
}

fn stored_will(bytes: &[u8]) -> Result<StoredWill, Malformed> {
    let mut reader = Reader::new(bytes);
    Ok(StoredWill {
        delay_s: reader.u32()?,
        retain: reader.byte()? != 0,
        message: read_message(&mut reader)?.into(),
    })
}

/// Reads a queue from any place on. See the module.
pub struct QueueReader {
    queue: StoredQueue,
    window: Window,
}

impl std::fmt::Debug for QueueReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueueReader").field("queue", &self.queue).finish_non_exhaustive()
    }
}

/// Whether there is an unpaid debt, and where.
enum Look {
    At(Next),
    /// It has a place in its queue and none in the log yet.
    Unplaced,
    Nothing,
}

/// The next unpaid debt and where to look for it.
struct Next {
    queue: u64,
    position: u64,
    segment: u64,
    /// The last place that the segment has in a row.
    last: u64,
    /// Where it is until it has arrived there, if it is being moved.
    before: Option<u64>,
}

impl QueueReader {
    /// The unpaid debts after a place, in order: at most `max`, and no further once they have more than `max_bytes`.
    /// If the first of them is on its way to the disk, waits for it: nothing means that nothing was owed, or that the store
    /// has failed. A debt that can't be read because its bytes are damaged is settled and counted as lost; what is whole in
    /// the same segment is moved out of it.
    ///
    /// # Errors
    /// What the disk says when it doesn't give any bytes; [`io::ErrorKind::StorageFull`] when the first of them waits for room
    /// on a full disk. What was to be read is still owed.
    pub fn read(&mut self, after: Position, max: usize, max_bytes: usize) -> io::Result<Vec<StoredDebt>> {
        let mut debts = Vec::new();
        let mut bytes = 0;
        let mut after = after.0;
        let mut tries = 0;
        while debts.len() < max && bytes < max_bytes {
            let next = match self.next(after) {
                Look::At(next) => next,
                // Whatever is waited for is safe or paid afterwards: nothing is waited for twice.
                Look::Unplaced if debts.is_empty() && self.window.shared.wait_to_read()? => continue,
                Look::Unplaced | Look::Nothing => break,
            };
            let mut segment = next.segment;
            let (mut places, is_growing) = match self.find(&next, segment, after, max - debts.len()) {
                Ok(found) => found,
                Err(error) => {
                    self.window.lose_unless_moved(segment, error, &mut tries)?;
                    continue;
                }
            };
            if places.is_empty()
                && is_growing
                && let Some(before) = next.before
            {
                segment = before;
                places = match self.find(&next, segment, after, max - debts.len()) {
                    Ok((found, _)) => found,
                    Err(error) => {
                        self.window.lose_unless_moved(segment, error, &mut tries)?;
                        continue;
                    }
                };
            }
            if places.is_empty() && is_growing {
                // It has its place in the log and isn't safe there yet.
                if debts.is_empty() && self.window.shared.wait_to_read()? {
                    continue;
                }
                break;
            }
            if let Err(error) = self.window.go_to(segment) {
                self.window.lose_unless_moved(segment, error, &mut tries)?;
                continue;
            }
            tries = 0;
            if places.is_empty() {
                self.window.give_up(next.queue, next.position);
                after = next.position;
            }
            for (position, offset) in places {
                after = position;
                match self.window.debt(next.queue, position, offset)? {
                    Some(debt) => {
                        bytes += debt.size();
                        debts.push(debt);
                    }
                    None => self.window.give_up(next.queue, position),
                }
                if bytes >= max_bytes || debts.len() >= max {
                    break;
                }
            }
        }
        Ok(debts)
    }

    /// Where the first unpaid debt after a place is.
    fn next(&self, after: u64) -> Look {
        let front = self.window.shared.front.lock();
        let found = front.state.find(self.queue.key(), &mut Vec::new());
        let Some((number, queue)) = found.and_then(|number| Some((number, front.state.queues.get(&number)?)))
        else {
            return Look::Nothing;
        };
        let position = queue.settled.first_missing(after + 1);
        if position >= queue.next {
            return Look::Nothing;
        }
        let run = queue.runs.iter().find(|run| run.last >= position);
        match run.filter(|run| run.first <= position) {
            Some(run) => Look::At(Next {
                queue: number,
                position,
                segment: run.segment,
                last: run.last,
                before: front.moved_on_way.get(&(number, position)).copied(),
            }),
            None => Look::Unplaced,
        }
    }

    /// Where unpaid debts are in a segment, from the next one on and without one being left out; and whether more may come
    /// there.
    fn find(
        &mut self,
        next: &Next,
        segment: u64,
        after: u64,
        max: usize,
    ) -> io::Result<(Vec<(u64, u32)>, bool)> {
        let (found, is_growing) = self.window.look_up(next, segment, max)?;
        Ok((self.unpaid(next.queue, after, next.last, &found), is_growing))
    }

    /// Those of the found debts that follow one another without one being left out.
    fn unpaid(&self, queue: u64, after: u64, last: u64, found: &[(u64, u32)]) -> Vec<(u64, u32)> {
        let front = self.window.shared.front.lock();
        let Some(queue) = front.state.queues.get(&queue) else { return Vec::new() };
        let mut places = Vec::with_capacity(found.len());
        let mut expected = queue.settled.first_missing(after + 1);
        for (position, offset) in found {
            if *position < expected {
                continue;
            }
            if *position > expected || *position > last {
                break;
            }
            places.push((*position, *offset));
            expected = queue.settled.first_missing(position + 1);
        }
        places
    }
}

impl StoredDebt {
    fn size(&self) -> usize {
        let message = self
            .message
            .as_ref()
            .map_or(0, |message| message.topic.len() + message.properties.len() + message.payload.len());
        self.body.len() + message
    }
}

/// A view into one segment.
struct Window {
    shared: Arc<Shared>,
    segment: Option<OpenSegment>,
    buffer: Vec<u8>,
    /// Where the buffer begins in the file.
    start: u64,
    /// Bytes of it that were read.
    filled: usize,
}

struct OpenSegment {
    number: u64,
    file: Arc<dyn DiskFile>,
    salt: u64,
    directory: Option<DirectoryFile>,
}

impl Window {
    fn new(shared: Arc<Shared>) -> Self {
        Self { shared, segment: None, buffer: Vec::new(), start: 0, filled: 0 }
    }

    /// Opens a segment, unless it is open already.
    fn go_to(&mut self, number: u64) -> io::Result<()> {
        if self.segment.as_ref().is_some_and(|open| open.number == number) {
            return Ok(());
        }
        self.segment = None;
        self.filled = 0;
        let epoch = self.shared.front.lock().state.segments.get(&number).map(|segment| segment.epoch);
        let epoch = epoch.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let file = self.shared.disk.open(&log_name(number, epoch))?;
        let salt = read_head(&*file)?.salt;
        self.segment = Some(OpenSegment { number, file, salt, directory: None });
        Ok(())
    }

    /// Up to `max` debts of a queue in a segment from a place on, paid ones included, and whether more may come.
    fn look_up(&mut self, next: &Next, number: u64, max: usize) -> io::Result<(Vec<(u64, u32)>, bool)> {
        let max = max.max(16);
        let (in_memory, is_growing) = {
            let front = self.shared.front.lock();
            let is_growing = front.tail == Some(number) || front.sealing.contains(&number);
            (front.directories.get(&number).cloned(), is_growing)
        };
        if let Some(directory) = in_memory {
            return Ok((directory.lock().look_up(next.queue, next.position, next.last, max), is_growing));
        }
        // Nothing of a segment with a directory in a file is on its way.
        self.go_to(number)?;
        let Some(open) = &mut self.segment else { return Ok((Vec::new(), false)) };
        if open.directory.is_none() {
            let file = self.shared.disk.open(&directory_name(open.number));
            open.directory = file.and_then(|file| DirectoryFile::open(file, open.number)).ok();
        }
        let found = open
            .directory
            .as_ref()
            .map(|directory| directory.look_up(next.queue, next.position, next.last, max));
        match found {
            Some(Ok(found)) if !found.is_empty() => Ok((found, false)),
            _ => {
                let directory = make_directory(&*open.file, open.salt)?;
                let found = directory.look_up(next.queue, next.position, next.last, max);
                let number = open.number;
                open.directory = None;
                let mut front = self.shared.front.lock();
                front.directories.entry(number).or_insert_with(|| Arc::new(Mutex::new(directory)));
                front.sealed.push(number);
                drop(front);
                self.shared.maintenance.notify_all();
                Ok((found, false))
            }
        }
    }

    /// The body of the frame at an offset of the open segment; `None` when it isn't sound.
    fn frame(&mut self, offset: u32) -> io::Result<Option<&[u8]>> {
        let Some(open) = &self.segment else { return Ok(None) };
        let (file, salt, offset) = (Arc::clone(&open.file), open.salt, u64::from(offset));
        let mut wanted = FRAME_HEAD;
        loop {
            let at = usize::try_from(offset.wrapping_sub(self.start)).unwrap_or(usize::MAX);
            let is_here = offset >= self.start && at.saturating_add(wanted) <= self.filled;
            if !is_here {
                // One long frame doesn't make the window long for ever.
                if self.buffer.len() != wanted.max(WINDOW) {
                    self.buffer = vec![0; wanted.max(WINDOW)];
                }
                self.filled = file.read_at(&mut self.buffer, offset)?;
                self.start = offset;
                if self.filled < wanted {
                    self.filled = 0;
                    return Ok(None);
                }
                continue;
            }
            let bytes = self.buffer.get(at..self.filled).unwrap_or_default();
            let Some(head) = peek_frame(bytes) else { return Ok(None) };
            if wanted < head.size() {
                wanted = head.size();
                continue;
            }
            let bytes = self.buffer.get(at..self.filled).unwrap_or_default();
            return Ok(parse_frame(bytes, salt).map(|(_, body)| body));
        }
    }

    /// The debt in the frame at an offset; `None` when it can't be read.
    fn debt(&mut self, queue: u64, position: u64, offset: u32) -> io::Result<Option<StoredDebt>> {
        let find = |body: &[u8]| {
            let frame = Frame::read(body).ok()?;
            let owed = frame.entries.iter().find_map(|entry| match entry {
                Entry::Owed(owed) if owed.queue == queue && owed.position == position => Some(owed),
                _ => None,
            })?;
            stored_debt(&frame, owed).ok()
        };
        if let Some(found) = self.frame(offset)?.and_then(find) {
            return Ok(Some(found));
        }
        // The window may be older than what was written since.
        self.filled = 0;
        Ok(self.frame(offset)?.and_then(find))
    }

    /// What becomes of a segment that can't be opened: another look, as it may have been emptied meanwhile; if that
    /// doesn't help, or its head is damaged, everything in it is lost.
    fn lose_unless_moved(&mut self, number: u64, error: io::Error, tries: &mut usize) -> io::Result<()> {
        self.segment = None;
        match error.kind() {
            io::ErrorKind::NotFound if *tries < TRIES => *tries += 1,
            io::ErrorKind::NotFound | io::ErrorKind::InvalidData => {
                *tries = 0;
                self.shared.lose_segment(number, &error);
            }
            _ => return Err(error),
        }
        Ok(())
    }

    /// Settles a debt that can't be read.
    fn give_up(&self, queue: u64, position: u64) {
        let is_lost = self.shared.front.lock().lose_debt(queue, position);
        if is_lost {
            tracing::error!(queue, position, "a debt can't be read: it is lost");
            self.shared.work.notify_one();
        }
    }
}

fn stored_debt(frame: &Frame<'_>, owed: &Owed<'_>) -> Result<StoredDebt, Malformed> {
    let mut reader = Reader::new(owed.identifiers);
    let mut identifiers = Vec::new();
    while !reader.is_empty() {
        identifiers.push(reader.u32()?);
    }
    let message = match owed.message {
        Some(message) => Some((*frame.messages.get(message as usize).ok_or(Malformed)?).into()),
        None => None,
    };
    Ok(StoredDebt {
        position: Position(owed.position),
        epoch: owed.epoch,
        qos: owed.qos,
        retain: owed.retain,
        identifiers,
        body: owed.body.to_vec(),
        message,
    })
}

/// Makes the directory of a segment from the segment.
fn make_directory(file: &dyn DiskFile, salt: u64) -> io::Result<Directory> {
    let mut directory = Directory::default();
    let mut scanner = Scanner::new(file, salt)?;
    loop {
        match scanner.next()? {
            Found::Frame { offset, body, .. } => {
                let offset = u32::try_from(offset).unwrap_or(u32::MAX);
                debts_of(body, |debt| directory.push(debt, offset));
            }
            Found::Gap { .. } => {}
            Found::End { .. } => return Ok(directory),
        }
    }
}
