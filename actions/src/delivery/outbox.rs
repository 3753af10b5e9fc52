//! Where an action's queue is kept: the store's outbox of that name.
//!
//! The store is the truth. An item is on disk with the message that it was made from, before the publisher is told yes, and
//! is settled only when it was confirmed or has ended for good. Memory holds the head of it (`HEAD_ITEMS_MAX`,
//! `HEAD_BYTES_MAX`): an item goes straight into the head while nothing older waits on disk, otherwise it is read from
//! there when its turn comes. While none of the head may leave, because all of it waits for one far end or one key, it is read
//! on past it (`STRETCHED_ITEMS_MAX`, `STRETCHED_BYTES_MAX`). What is settled before the store has written it never reaches the disk.
//!
//! With `drain = "live_first"` an item goes straight into memory though older ones wait on disk. There is room for twice the head,
//! of which what is read takes half; when it is used up, something older is put out of memory for what is new, and read again
//! when its turn comes.
//!
//! An item's body is a [`Body`]; bytes that don't decode end their item, and nothing else.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use store::{
    DurableStore, MessageRecord, Position, QueueKey, QueueReader, Record, Store as _, StoreError, StoredDebt,
};
use tokio::time::Instant;
use trace::Context;

use super::ItemId;
use super::burial::Endings;
use crate::config::{Drain, OrderBy};
use crate::outlet::QueuedRequest;

/// Most items of an outbox that are in memory.
pub(super) const HEAD_ITEMS_MAX: usize = 1_024;
/// Bytes of items in memory past which no more are taken.
pub(super) const HEAD_BYTES_MAX: usize = 1 << 20;
/// Most items in memory while none of them may leave: so far is read on past those of a key that is held up.
pub(super) const STRETCHED_ITEMS_MAX: usize = 8 * HEAD_ITEMS_MAX;
/// Bytes of items in memory past which no more are taken then.
pub(super) const STRETCHED_BYTES_MAX: usize = 8 * HEAD_BYTES_MAX;
/// Most items that are read at once.
const READ_ITEMS_MAX: usize = HEAD_ITEMS_MAX / 2;
/// Most ranges of places known ahead of the one up to which everything is known; past it the disk is read.
const AHEAD_MAX: usize = HEAD_ITEMS_MAX;
/// How long the disk is left alone after an error.
pub(super) const READ_PAUSE: Duration = Duration::from_secs(5);

/// Format of a body.
const VERSION: u8 = 1;
/// Flag beside the order: an identity follows.
const HAS_IDENTITY: u8 = 0x80;
/// Flag beside the order: the time of a redrive follows.
const HAS_REDRIVE: u8 = 0x40;
/// Flag beside the order: a trace's context follows.
const HAS_TRACE: u8 = 0x20;

/// The store's side of one action's queue.
#[derive(Debug, Clone)]
pub struct Outbox {
    pub(super) store: Arc<DurableStore>,
    name: Arc<str>,
    reader: Arc<Mutex<QueueReader>>,
    /// Reads items once more when they are put away.
    pub(super) grave_reader: Arc<Mutex<QueueReader>>,
    pub(super) letters_reader: Arc<Mutex<QueueReader>>,
    /// Hears of items that end.
    pub(super) endings: Option<Arc<dyn Endings>>,
    /// Makes keys of texts: the same for what comes from the disk and what doesn't.
    hasher: RandomState,
}

/// What came from the disk.
pub(super) struct Read<R> {
    pub(super) position: u64,
    pub(super) id: ItemId,
    /// Since the message was received, or sent again.
    pub(super) age: Duration,
    /// See [`super::Envelope::replayed`].
    pub(super) replayed: Option<i64>,
    /// What its attempts are told beneath.
    pub(super) trace: Option<Context>,
    /// `None`: the body can't be read.
    pub(super) decoded: Option<(Option<u64>, R)>,
}

impl Outbox {
    /// The outbox of `name`, `rule/action`. `hasher` is the one that the caller makes order keys with.
    #[must_use]
    pub fn new(store: Arc<DurableStore>, name: &str, hasher: RandomState) -> Self {
        let reader = |queue| Arc::new(Mutex::new(store.reader(queue)));
        Self {
            reader: reader(QueueKey::Outbox { namespace: 0, name }),
            grave_reader: reader(QueueKey::Outbox { namespace: 0, name }),
            letters_reader: reader(QueueKey::DeadLetters { namespace: 0, name }),
            endings: None,
            name: name.into(),
            hasher,
            store,
        }
    }

    /// The same with somebody to hear of items that end without being delivered.
    #[must_use]
    pub fn heard_by(mut self, endings: Option<Arc<dyn Endings>>) -> Self {
        self.endings = endings;
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The identity of the item that has this place now.
    pub(super) fn id(&self, position: u64) -> ItemId {
        let identity = self.store.identity();
        ItemId { store: identity.id, epoch: identity.epoch, sequence: position }
    }

    /// Items that aren't settled.
    pub(super) fn len(&self) -> u64 {
        self.store.queue_len(self.key())
    }

    /// Items that aren't settled, and the bytes that they account for on disk.
    pub(super) fn size(&self) -> (u64, u64) {
        self.store.queue_size(self.key())
    }

    /// The last place that was given.
    pub(super) fn end(&self) -> u64 {
        self.store.queue_end(self.key()).0
    }

    pub(super) fn key(&self) -> QueueKey<'_> {
        QueueKey::Outbox { namespace: 0, name: &self.name }
    }

    /// Puts an item behind the others, in one frame with its message.
    pub(crate) fn keep(&self, message: &MessageRecord<'_>, body: &[u8]) -> Result<Position, StoreError> {
        let records =
            [Record::Message(*message), Record::Queued { queue: self.key(), id: Some(message.id), body }];
        let mut positions = Vec::new();
        self.store.append_debts(&records, &mut positions)?;
        Ok(positions.first().copied().unwrap_or(Position::NOWHERE))
    }

    /// Settles items. Lazily: one that comes again after a crash was confirmed once and is sent once more.
    pub(super) fn settle(&self, positions: &[u64]) {
        if positions.is_empty() {
            return;
        }
        let records: Vec<_> = positions
            .iter()
            .map(|position| Record::Settled { queue: self.key(), position: Position(*position) })
            .collect();
        if let Err(error) = self.store.append(&records) {
            tracing::warn!(action = &*self.name, %error, "what was delivered will be sent again after a restart");
        }
    }

    /// Reads what follows a place. Waits for the disk.
    pub(super) fn read<R: QueuedRequest>(&self, after: u64) -> io::Result<Vec<Read<R>>> {
        let debts = self.reader.lock().read(Position(after), READ_ITEMS_MAX, HEAD_BYTES_MAX)?;
        let now_ms = wall_clock_ms();
        Ok(debts.into_iter().map(|debt| self.decode(debt, now_ms)).collect())
    }

    fn decode<R: QueuedRequest>(&self, debt: StoredDebt, now_ms: i64) -> Read<R> {
        let body = Body::decode(&debt.body);
        let received_at_ms = debt.message.as_ref().map_or(now_ms, |message| message.received_at_ms);
        let since_ms = body.as_ref().and_then(|body| body.redriven_at_ms).unwrap_or(received_at_ms);
        // A clock that went back makes nothing older.
        let age = u64::try_from(now_ms.saturating_sub(since_ms)).unwrap_or(0);
        let own = ItemId { store: self.store.identity().id, epoch: debt.epoch, sequence: debt.position.0 };
        let id = body.as_ref().and_then(|body| body.identity).unwrap_or(own);
        let trace = body.as_ref().and_then(|body| body.trace);
        let decoded = body.and_then(|body| {
            let text = |text: Option<&String>| text.map(String::as_str).unwrap_or_default().to_owned();
            let key = match body.order {
                OrderBy::Publisher => Some(text(debt.message.as_ref().and_then(|m| m.publisher.as_ref()))),
                OrderBy::Topic => Some(text(debt.message.as_ref().map(|m| &m.topic))),
                OrderBy::None => None,
            };
            Some((key.map(|key| self.hasher.hash_one(key.as_str())), R::decode(body.request)?))
        });
        let is_replayed = debt.epoch != self.store.identity().epoch || id != own;
        let replayed = is_replayed.then_some(received_at_ms);
        Read { position: debt.position.0, id, age: Duration::from_millis(age), replayed, trace, decoded }
    }
}

pub(super) fn wall_clock_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// What an outbox keeps of an item, beside the message: `version, order and flags, identity, redrive, trace, origin,
/// request`, where identity, redrive and trace are there only if a flag says so, and the origin has its length before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Body<'a> {
    /// What it keeps its order with.
    pub order: OrderBy,
    /// Its identity, if that isn't made of its place: it had another place before.
    pub identity: Option<ItemId>,
    /// Wall clock when it was sent again, milliseconds since the epoch: its age counts from there.
    pub redriven_at_ms: Option<i64>,
    /// What its attempts are told beneath, if its message was traced.
    pub trace: Option<Context>,
    /// What the caller knows of the message beside what the store keeps of it. Handed back as it was given.
    pub origin: &'a [u8],
    /// The encoded request.
    pub request: &'a [u8],
}

impl<'a> Body<'a> {
    /// Makes the bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let order = match self.order {
            OrderBy::None => 0,
            OrderBy::Publisher => 1,
            OrderBy::Topic => 2,
        };
        let mut out = Vec::with_capacity(32 + self.origin.len() + self.request.len());
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        out.push(VERSION);
        out.push(
            order
                | flag(self.identity.is_some(), HAS_IDENTITY)
                | flag(self.redriven_at_ms.is_some(), HAS_REDRIVE)
                | flag(self.trace.is_some(), HAS_TRACE),
        );
        if let Some(id) = self.identity {
            out.extend_from_slice(&id.store.to_be_bytes());
            out.extend_from_slice(&id.epoch.to_be_bytes());
            out.extend_from_slice(&id.sequence.to_be_bytes());
        }
        if let Some(at_ms) = self.redriven_at_ms {
            out.extend_from_slice(&at_ms.to_be_bytes());
        }
        if let Some(context) = self.trace {
            out.extend_from_slice(&context.to_bytes());
        }
        put_bytes(&mut out, self.origin);
        out.extend_from_slice(self.request);
        out
    }

    /// Reads the bytes; `None` if they are something else.
    #[must_use]
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (&[VERSION, flags], mut rest) = bytes.split_first_chunk::<2>()? else { return None };
        let order = match flags & !(HAS_IDENTITY | HAS_REDRIVE | HAS_TRACE) {
            0 => OrderBy::None,
            1 => OrderBy::Publisher,
            2 => OrderBy::Topic,
            _ => return None,
        };
        let identity = if flags & HAS_IDENTITY == 0 {
            None
        } else {
            let store = u64::from_be_bytes(take_chunk(&mut rest)?);
            let epoch = u32::from_be_bytes(take_chunk(&mut rest)?);
            Some(ItemId { store, epoch, sequence: u64::from_be_bytes(take_chunk(&mut rest)?) })
        };
        let redriven_at_ms =
            if flags & HAS_REDRIVE == 0 { None } else { Some(i64::from_be_bytes(take_chunk(&mut rest)?)) };
        let trace = if flags & HAS_TRACE == 0 {
            None
        } else {
            Some(Context::from_bytes(&take_chunk::<{ Context::BYTES }>(&mut rest)?)?)
        };
        let origin = take_bytes(&mut rest)?;
        Some(Self { order, identity, redriven_at_ms, trace, origin, request: rest })
    }
}

pub(crate) fn take_chunk<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (chunk, rest) = from.split_first_chunk::<N>()?;
    *from = rest;
    Some(*chunk)
}

/// Makes the body of a new item.
pub(crate) fn encode<R: QueuedRequest>(
    order: OrderBy,
    origin: &[u8],
    request: &R,
    trace: Option<Context>,
) -> Vec<u8> {
    let mut encoded = Vec::new();
    request.encode(&mut encoded);
    Body { order, identity: None, redriven_at_ms: None, trace, origin, request: &encoded }.encode()
}

/// Appends a length and so many bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Takes what [`put_bytes`] has put.
pub(crate) fn take_bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = from.split_first_chunk::<4>()?;
    let (bytes, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *from = rest;
    Some(bytes)
}

/// What the queue knows of its part on disk.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Every place up to here is in memory, or has been.
    known_to: u64,
    /// Places past it that came straight into memory: first and last of each range.
    ahead: BTreeMap<u64, u64>,
    /// Places that are in memory no more, though a read that goes on takes them for known.
    forgotten: Vec<u64>,
    /// Something waits on disk: what comes now stands in line there.
    has_more: bool,
    is_reading: bool,
    /// Something was left on disk since the read began.
    left_meanwhile: bool,
    /// Items on disk that aren't in memory. Negative while some were read before their publisher's turn told of them.
    items: i64,
    pub(super) paused_until: Option<Instant>,
}

impl Backlog {
    pub(super) fn new(items: u64) -> Self {
        Self { has_more: items > 0, items: i64::try_from(items).unwrap_or(i64::MAX), ..Self::default() }
    }

    /// Items on disk alone, and those in memory that nobody has told of yet.
    pub(super) fn counts(&self) -> (u64, u64) {
        let of = |count: i64| u64::try_from(count).unwrap_or(0);
        (of(self.items), of(self.items.saturating_neg()))
    }

    /// Whether something up to this place may be on disk that isn't in memory.
    pub(super) fn may_have_up_to(&self, position: u64) -> bool {
        let is_unknown = self.known_to < position || self.forgotten.iter().any(|place| *place <= position);
        is_unknown && (self.has_more || self.is_reading)
    }

    /// Whether nothing is left on disk that isn't in memory.
    pub(super) fn is_empty(&self) -> bool {
        self.items <= 0 && !self.has_more && !self.is_reading
    }

    /// Somebody tells of a new item. Returns whether it is to go straight into memory: where there is room, and nothing
    /// waits on disk that goes before it.
    pub(super) fn told(&mut self, position: u64, has_room: bool, drain: Drain) -> bool {
        if position <= self.known_to || self.knows_ahead(position) {
            // It was read before.
            self.items += 1;
            return false;
        }
        let stands_in_line = drain == Drain::OldestFirst && (self.has_more || self.is_reading);
        if stands_in_line || !has_room || self.ahead.len() >= AHEAD_MAX {
            self.items += 1;
            self.has_more = true;
            self.left_meanwhile = true;
            return false;
        }
        self.know_ahead(position);
        self.catch_up();
        true
    }

    fn know_ahead(&mut self, position: u64) {
        let mut range = (position, position);
        if let Some((first, last)) = self.ahead.range(..position).next_back()
            && *last + 1 == position
        {
            range.0 = *first;
        }
        if let Some(last) = self.ahead.remove(&(position + 1)) {
            range.1 = last;
        }
        self.ahead.insert(range.0, range.1);
    }

    fn knows_ahead(&self, position: u64) -> bool {
        self.ahead.range(..=position).next_back().is_some_and(|(_, last)| position <= *last)
    }

    /// Forgets what is known ahead of a place that is behind it by now, and goes on to the end of what follows it.
    fn catch_up(&mut self) {
        while let Some(first) = self.ahead.first_entry()
            && *first.key() <= self.known_to + 1
        {
            self.known_to = self.known_to.max(first.remove());
        }
    }

    /// Whether one more place can be forgotten.
    pub(super) fn can_forget(&self) -> bool {
        self.ahead.len() < AHEAD_MAX && self.forgotten.len() < AHEAD_MAX
    }

    /// The item of a place is in memory no more and has to be read again.
    pub(super) fn forget(&mut self, position: u64) {
        self.items += 1;
        self.has_more = true;
        self.left_meanwhile = true;
        if self.is_reading {
            self.forgotten.push(position);
        } else {
            self.know_no_more(position);
        }
    }

    fn know_no_more(&mut self, position: u64) {
        if position <= self.known_to {
            if position < self.known_to {
                self.ahead.insert(position + 1, self.known_to);
            }
            self.known_to = position.saturating_sub(1);
        } else if let Some((&first, &last)) = self.ahead.range(..=position).next_back()
            && position <= last
        {
            self.ahead.remove(&first);
            if first < position {
                self.ahead.insert(first, position - 1);
            }
            if position < last {
                self.ahead.insert(position + 1, last);
            }
        }
    }

    /// Where to read on, if that is to be done now.
    pub(super) fn begin_read(&mut self, now: Instant) -> Option<u64> {
        if !self.has_more || self.is_reading || self.paused_until.is_some_and(|until| until > now) {
            return None;
        }
        self.paused_until = None;
        self.is_reading = true;
        self.left_meanwhile = false;
        Some(self.known_to)
    }

    /// Takes over one item that was read. Returns whether it is new.
    pub(super) fn found(&mut self, position: u64) -> bool {
        let is_new = position > self.known_to && !self.knows_ahead(position);
        self.known_to = self.known_to.max(position);
        if is_new {
            self.items -= 1;
        }
        is_new
    }

    /// A read is over.
    pub(super) fn end_read(&mut self, found_any: bool) {
        self.catch_up();
        self.stop_reading();
        self.has_more = found_any || self.left_meanwhile;
    }

    fn stop_reading(&mut self) {
        self.is_reading = false;
        for position in std::mem::take(&mut self.forgotten) {
            self.know_no_more(position);
        }
    }

    /// A read has failed.
    pub(super) fn fail_read(&mut self, until: Instant) {
        self.stop_reading();
        self.paused_until = Some(until);
    }

    /// An item that is in memory is left to the disk and the next start.
    pub(super) fn leave(&mut self) {
        self.items += 1;
    }

    /// Whether nothing is left on disk that could be read, so that what is still counted is lost.
    pub(super) fn lost(&mut self, on_disk: u64, in_memory: u64) -> u64 {
        let (items, _) = self.counts();
        if self.has_more || self.is_reading || items == 0 || on_disk > in_memory {
            return 0;
        }
        self.items = 0;
        items
    }
}

#[cfg(test)]
mod tests;
