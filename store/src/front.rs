//! Between those who append and the thread that writes: the state, and the frames that wait for the disk.
//!
//! An append resolves names, gives places, applies its records to the state and encodes them at the end of one buffer, all
//! under one lock and without I/O. The writer takes the whole buffer at once; what is in it then becomes one group commit.
//! Only at that moment frames get their place in the log, because until then a debt can still be paid: such a debt is
//! never written, and neither is a frame that has nothing else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::task::Waker;

use parking_lot::Mutex;

use crate::bytes::put_number;
use crate::checkpoint::Snapshot;
use crate::directory::{DEBTS_MAX, Directory};
use crate::entry::{Entry, Owed, make_void};
use crate::format::{BODY_MAX, FRAME_HEAD, FrameKind, HEAD};
use crate::options::StoreOptions;
use crate::record::{MessageId, MessageRecord, Position, QueueKey, Record};
use crate::state::{FoundDebt, Frame, Place, Segment, State, share};
use crate::{CommitToken, StoreError};

/// Between two stamps of the wall clock in the log, in milliseconds.
const STAMP_INTERVAL_MS: i64 = 1000;

/// Segments that the log may have beyond twice what is alive: the one that is being filled, and one that isn't yet worth two
/// checkpoints.
const SEGMENTS_ALLOWED: u64 = 2;

/// Dead bytes that are worth two checkpoints, in sizes of a checkpoint: a quarter of them is written for it.
const CHECKPOINTS_WORTH: u64 = 8;

/// See the module.
pub(crate) struct Front {
    pub(crate) options: StoreOptions,
    pub(crate) epoch: u32,
    pub(crate) state: State,
    pub(crate) pending: Pending,
    /// The newest token.
    pub(crate) appended: u64,
    /// The sequence that the next frame of the log gets.
    pub(crate) next_sequence: u64,
    /// The number that the next segment gets.
    pub(crate) next_segment: u64,
    /// The segment that is being filled.
    pub(crate) tail: Option<u64>,
    /// Debts that have their place in it.
    pub(crate) tail_debts: usize,
    /// Directories that aren't in their files yet.
    pub(crate) directories: HashMap<u64, Arc<Mutex<Directory>>>,
    /// Debts that were moved and are on their way to the disk with the batch that the writer has, by queue and place: the
    /// segments in which they can be read until they have arrived.
    pub(crate) moved_on_way: HashMap<(u64, u64), u64>,
    /// Retained Messages on the same way, by where they will be, and where the topic's last can be read until then.
    pub(crate) retained_on_way: HashMap<Place, Option<Place>>,
    /// Dead segments that may go once this token is on disk: until then a power cut brings back what was alive in them.
    pub(crate) dying: BTreeMap<u64, u64>,
    /// Who reads retained messages now: no segment goes until they are done.
    pub(crate) readers: u32,
    /// Full segments of which something may still be on its way to the disk.
    pub(crate) sealing: Vec<u64>,
    /// Full segments whose directories want writing.
    pub(crate) sealed: Vec<u64>,
    /// Segments in which something couldn't be read.
    pub(crate) damaged: BTreeSet<u64>,
    /// Bytes of all segments.
    pub(crate) log_bytes: u64,
    /// Sequences that the two checkpoints cover, the older first.
    pub(crate) checkpoints: Vec<u64>,
    /// Bytes of the newest one.
    pub(crate) checkpoint_size: u64,
    /// Bytes written to the log since then.
    pub(crate) bytes_since_checkpoint: u64,
    /// A checkpoint is taken or being written.
    pub(crate) checkpoint_underway: bool,
    /// One couldn't be written: until the next tick of upkeep none is taken before its time.
    pub(crate) checkpoint_failed: bool,
    /// One that was taken, for the maintenance thread to write, and what it covers.
    pub(crate) snapshot: Option<(Snapshot, u64)>,
    /// A commit is wanted though nothing waits: for a checkpoint that makes room.
    pub(crate) wants_commit: bool,
    pub(crate) health: Health,
    pub(crate) is_closing: bool,
    /// The writer has written all that it ever will.
    pub(crate) writer_is_done: bool,
    pub(crate) waiting: Vec<(CommitToken, Waker)>,
    pub(crate) counters: Counters,
    /// Memory for a queue's encoded key.
    pub(crate) key: Vec<u8>,
}

/// How a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Health {
    /// All is well.
    #[default]
    Sound,
    /// New debts are refused until there is room.
    Full {
        /// Bytes in use.
        used: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// A write or a sync failed: nothing is acknowledged any more until the next start.
    Failed,
}

/// What a store has done since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Frames accepted.
    pub frames_appended: u64,
    /// Frames that were never written, because all they held was paid in time.
    pub frames_spared: u64,
    /// Bytes written to the log.
    pub log_bytes: u64,
    /// Bytes written to checkpoints and directories.
    pub index_bytes: u64,
    /// Bytes of the log that are there again because they were moved.
    pub moved_bytes: u64,
    /// Group commits.
    pub commits: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Checkpoints that could not be written.
    pub checkpoint_failures: u64,
    /// Segments removed.
    pub segments_removed: u64,
    /// Segments in which damage was found while the store was open. Each is put aside under a name that ends in `.bad` once
    /// what is whole in it has been moved.
    pub segments_damaged: u64,
    /// Debts that turned out to be unreadable.
    pub debts_lost: u64,
    /// Retained messages that turned out to be unreadable.
    pub retained_lost: u64,
}

/// Frames that wait for the disk.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    bytes: Vec<u8>,
    frames: Vec<PendingFrame>,
    items: Vec<Item>,
    /// Memory of the batch before, to be used again.
    pub(crate) spare: Vec<u8>,
}

#[derive(Debug)]
struct PendingFrame {
    kind: FrameKind,
    range: Range<usize>,
    items: Range<usize>,
    /// It has records that have to be written whatever becomes of its debts.
    has_transitions: bool,
}

/// What has a place in the log once its frame has one.
#[derive(Debug)]
enum Item {
    Debt { debt: FoundDebt, at: usize, is_moved: bool },
    Retained { topic: Box<str>, message: u32, at: usize, moved_from: Option<Place> },
    Cleared { topic: Box<str> },
    Void,
}

/// What the writer writes at once.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) writes: Vec<Write>,
    /// For the directories, once it is safe.
    pub(crate) debts: Vec<(u64, FoundDebt, u32)>,
    /// Everything up to here is safe then.
    pub(crate) token: CommitToken,
}

/// One frame of a batch.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) kind: FrameKind,
    pub(crate) range: Range<usize>,
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) sequence: u64,
}

/// A frame that is being encoded.
struct Making<'a> {
    start: usize,
    first_item: usize,
    /// Its first message, and the others: most frames have one.
    first: Option<(MessageId, &'a str)>,
    others: Vec<(MessageId, &'a str)>,
    has_transitions: bool,
}

impl Front {
    /// Puts a frame behind the others.
    pub(crate) fn append(
        &mut self,
        records: &[Record<'_>],
        positions: &mut Vec<Position>,
    ) -> Result<CommitToken, StoreError> {
        self.check(records)?;
        let mut making = self.begin();
        for record in records {
            self.put_record(&mut making, record, positions);
        }
        Ok(self.finish(FrameKind::Records, &making))
    }

    /// Refuses a frame before anything of it has had an effect.
    fn check(&self, records: &[Record<'_>]) -> Result<(), StoreError> {
        if self.health == Health::Failed || self.is_closing {
            return Err(StoreError::Failed);
        }
        let size = size_of(records)?;
        let waiting = self.pending.bytes.len();
        let limit = self.options.queue_bytes_max;
        if records.iter().any(Record::is_debt) {
            if let Health::Full { used, limit } = self.health {
                return Err(StoreError::Full { used, limit });
            }
            let used = self.log_bytes + (waiting + size) as u64;
            if used > self.options.log_bytes_max {
                return Err(StoreError::Full { used, limit: self.options.log_bytes_max });
            }
            if waiting > 0 && waiting + size > limit {
                return Err(StoreError::Busy { waiting, limit });
            }
        } else if waiting > 0 && waiting + size > limit.saturating_mul(2) {
            return Err(StoreError::Busy { waiting, limit: limit.saturating_mul(2) });
        }
        Ok(())
    }

    fn begin<'a>(&mut self) -> Making<'a> {
        let start = self.pending.bytes.len();
        self.pending.bytes.resize(start + FRAME_HEAD, 0);
        Making {
            start,
            first_item: self.pending.items.len(),
            first: None,
            others: Vec::new(),
            has_transitions: false,
        }
    }

    fn finish(&mut self, kind: FrameKind, making: &Making<'_>) -> CommitToken {
        for index in std::mem::take(&mut self.state.voided) {
            self.make_void(index);
        }
        let end = self.pending.bytes.len();
        if end == making.start + FRAME_HEAD {
            self.pending.bytes.truncate(making.start);
            return CommitToken::NOTHING_OWED;
        }
        self.pending.frames.push(PendingFrame {
            kind,
            range: making.start..end,
            items: making.first_item..self.pending.items.len(),
            has_transitions: making.has_transitions,
        });
        self.appended += 1;
        self.counters.frames_appended += 1;
        CommitToken(self.appended)
    }

    fn make_void(&mut self, index: usize) {
        let Some(item) = self.pending.items.get_mut(index) else { return };
        if let Item::Debt { at, .. } | Item::Retained { at, .. } = std::mem::replace(item, Item::Void)
            && let Some(bytes) = self.pending.bytes.get_mut(at..)
        {
            make_void(bytes);
        }
    }

    /// Encodes a transition and applies it.
    fn put(&mut self, making: &mut Making<'_>, entry: &Entry<'_>) {
        self.state.apply(entry);
        entry.put(&mut self.pending.bytes);
        making.has_transitions = true;
    }

    /// The number of a queue, which is made if it isn't there.
    fn queue(&mut self, making: &mut Making<'_>, key: QueueKey<'_>) -> u64 {
        if let Some(queue) = self.find(key) {
            return queue;
        }
        let queue = self.state.next_queue.max(1);
        self.put(making, &Entry::QueueMade { queue, key });
        queue
    }

    fn find(&mut self, key: QueueKey<'_>) -> Option<u64> {
        self.state.find(key, &mut self.key)
    }

    fn put_record<'a>(
        &mut self,
        making: &mut Making<'a>,
        record: &Record<'a>,
        positions: &mut Vec<Position>,
    ) {
        match *record {
            Record::Message(message) => self.put_message(making, &message),
            Record::Owed { id, session, qos, retain, identifiers } => {
                let mut encoded = Vec::new();
                for identifier in identifiers {
                    put_number(&mut encoded, (*identifier).into());
                }
                let queue = self.find(QueueKey::Session(session));
                let debt = Debt { message: Some(id), qos, retain, identifiers: &encoded, body: &[] };
                positions.push(self.put_debt(making, queue, &debt));
            }
            Record::OwedToGroup { id, share_name, filter, retain } => {
                let queue = self.queue(making, QueueKey::Group { namespace: 0, share_name, filter });
                let debt = Debt { message: Some(id), qos: 0, retain, identifiers: &[], body: &[] };
                positions.push(self.put_debt(making, Some(queue), &debt));
            }
            Record::Queued { queue, id, body } => {
                let queue = self.queue(making, queue);
                let debt = Debt { message: id, qos: 0, retain: false, identifiers: &[], body };
                positions.push(self.put_debt(making, Some(queue), &debt));
            }
            Record::Retained { id } => {
                if let Some((message, topic)) = making.find(id) {
                    self.put_retained(topic, message, None);
                }
            }
            Record::RetainedCleared { topic } => self.put_cleared(making, topic),
            Record::Settled { queue, position } => {
                if let Some(queue) = self.find(queue) {
                    self.put_settled(making, queue, position.0);
                }
            }
            Record::QueueDropped { queue } => {
                if let Some(queue) = self.find(queue) {
                    self.put(making, &Entry::QueueGone { queue });
                }
            }
            _ => self.put_of_session(making, record),
        }
    }

    fn put_of_session(&mut self, making: &mut Making<'_>, record: &Record<'_>) {
        let Some(session) = record.session() else { return };
        let key = QueueKey::Session(session);
        if let Record::SessionStarted { expiry_interval_s, .. } = *record {
            let queue = self.queue(making, key);
            self.put(making, &Entry::SessionStarted { queue, expiry_interval_s });
            return;
        }
        let Some(queue) = self.find(key) else { return };
        let entry = match *record {
            Record::SessionOwner { owner, .. } => Entry::SessionOwner { queue, owner },
            Record::SessionDetached { at_ms, .. } => Entry::SessionDetached { queue, at_ms },
            Record::SessionEnded { .. } => Entry::QueueGone { queue },
            Record::Will { delay_s, retain, message, .. } => Entry::Will { queue, delay_s, retain, message },
            Record::WillGone { .. } => Entry::WillGone { queue },
            Record::Subscribed { filter, options, identifier, .. } => {
                Entry::Subscribed { queue, filter, options, identifier }
            }
            Record::Unsubscribed { filter, .. } => Entry::Unsubscribed { queue, filter },
            Record::Received { packet_id, .. } => Entry::Received { queue, packet_id },
            Record::Released { packet_id, .. } => Entry::Released { queue, packet_id },
            Record::Sent { queue: owner, position, packet_id, .. } => {
                let Some(owner) = self.find(owner) else { return };
                Entry::Sent { queue, owner, position: position.0, packet_id }
            }
            Record::AwaitsCompletion { packet_id, .. } => Entry::AwaitsCompletion { queue, packet_id },
            Record::Completed { packet_id, .. } => Entry::Completed { queue, packet_id },
            Record::SessionStarted { .. }
            | Record::Message(_)
            | Record::Owed { .. }
            | Record::OwedToGroup { .. }
            | Record::Queued { .. }
            | Record::Settled { .. }
            | Record::QueueDropped { .. }
            | Record::Retained { .. }
            | Record::RetainedCleared { .. } => return,
        };
        self.put(making, &entry);
    }

    fn put_message<'a>(&mut self, making: &mut Making<'a>, message: &MessageRecord<'a>) {
        Entry::Message(*message).put(&mut self.pending.bytes);
        if making.first.is_none() {
            making.first = Some((message.id, message.topic));
        } else {
            making.others.push((message.id, message.topic));
        }
    }

    fn put_retained(&mut self, topic: &str, message: u32, moved_from: Option<Place>) {
        let at = self.pending.bytes.len();
        Entry::Retained { message }.put(&mut self.pending.bytes);
        self.pending.items.push(Item::Retained { topic: topic.into(), message, at, moved_from });
    }

    fn put_cleared(&mut self, making: &mut Making<'_>, topic: &str) {
        Entry::RetainedCleared { topic }.put(&mut self.pending.bytes);
        making.has_transitions = true;
        self.pending.items.push(Item::Cleared { topic: topic.into() });
    }

    fn put_debt(&mut self, making: &Making<'_>, queue: Option<u64>, debt: &Debt<'_>) -> Position {
        let message = debt.message.and_then(|id| making.find(id)).map(|(message, _)| message);
        let Some((number, queue)) = queue.and_then(|number| Some((number, self.state.queue_mut(number)?)))
        else {
            return Position::NOWHERE;
        };
        let position = queue.next;
        queue.next += 1;
        let owed = Owed {
            queue: number,
            position,
            epoch: self.epoch,
            message,
            qos: debt.qos,
            retain: debt.retain,
            identifiers: debt.identifiers,
            body: debt.body,
        };
        self.put_owed(&owed, false);
        Position(position)
    }

    fn put_owed(&mut self, owed: &Owed<'_>, is_moved: bool) {
        let debt = FoundDebt { queue: owed.queue, position: owed.position };
        self.state.unplaced.insert((owed.queue, owed.position), self.pending.items.len());
        self.pending.items.push(Item::Debt { debt, at: self.pending.bytes.len(), is_moved });
        Entry::Owed(*owed).put(&mut self.pending.bytes);
    }

    fn put_settled(&mut self, making: &mut Making<'_>, queue: u64, position: u64) {
        if !self.state.queues.get(&queue).is_some_and(|queue| queue.owes(position)) {
            return;
        }
        let unplaced = self.state.unplaced.get(&(queue, position)).copied();
        let never_written = unplaced
            .and_then(|index| self.pending.items.get(index))
            .is_some_and(|item| matches!(item, Item::Debt { is_moved: false, .. }));
        if never_written {
            self.state.settle(queue, position);
        } else {
            self.put(making, &Entry::Settled { queue, position });
        }
    }

    /// Puts whatever of a frame of `segment` is still needed behind the others. Returns its token and bytes, if there was
    /// anything.
    pub(crate) fn move_frame(
        &mut self,
        segment: u64,
        offset: u32,
        frame: &Frame<'_>,
    ) -> Option<(CommitToken, u64)> {
        let needed: Vec<_> = frame
            .entries
            .iter()
            .filter(|entry| match entry {
                Entry::Owed(owed) => self.is_in(owed, segment),
                Entry::Retained { message } => self.retained_at(frame, *message, segment, offset).is_some(),
                _ => false,
            })
            .collect();
        if needed.is_empty() {
            return None;
        }
        let mut making = self.begin();
        // Messages by their old numbers, in the order of their new ones.
        let mut moved: Vec<u32> = Vec::new();
        for entry in &needed {
            let (Entry::Owed(Owed { message: Some(old), .. }) | Entry::Retained { message: old }) = entry
            else {
                continue;
            };
            if let Some(message) = frame.messages.get(*old as usize).filter(|_| !moved.contains(old)) {
                moved.push(*old);
                self.put_message(&mut making, message);
            }
        }
        let number_of = |old: u32| {
            moved.iter().position(|known| *known == old).and_then(|index| u32::try_from(index).ok())
        };
        for entry in needed {
            match *entry {
                Entry::Owed(owed) => {
                    self.put_owed(&Owed { message: owed.message.and_then(number_of), ..owed }, true);
                }
                Entry::Retained { message: old } => {
                    if let Some((topic, place)) = self.retained_at(frame, old, segment, offset)
                        && let Some(message) = number_of(old)
                    {
                        self.put_retained(topic, message, Some(place));
                    }
                }
                _ => {}
            }
        }
        let bytes = (self.pending.bytes.len() - making.start) as u64;
        self.counters.moved_bytes += bytes;
        Some((self.finish(FrameKind::Moved, &making), bytes))
    }

    /// Whether a debt is still to be paid and lies in this segment, and nowhere else.
    fn is_in(&self, owed: &Owed<'_>, segment: u64) -> bool {
        !self.state.unplaced.contains_key(&(owed.queue, owed.position))
            && self.state.queues.get(&owed.queue).is_some_and(|queue| {
                queue.owes(owed.position) && queue.segment_of(owed.position) == Some(segment)
            })
    }

    /// The topic and the place of a message, if it is still the Retained Message.
    fn retained_at<'a>(
        &self,
        frame: &Frame<'a>,
        message: u32,
        segment: u64,
        offset: u32,
    ) -> Option<(&'a str, Place)> {
        let topic = frame.messages.get(message as usize)?.topic;
        let place = self.state.retained.get(topic)?;
        (place.segment == segment && place.offset == offset && place.message == message)
            .then_some((topic, *place))
    }

    /// Bytes that wait for the disk.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.pending.bytes.len()
    }

    /// Puts the wall clock into the log, if it isn't there often enough already.
    fn stamp(&mut self) {
        let at_ms = (self.options.wall_clock_ms)();
        // A commit that is wanted has something in it: the checkpoint after it covers more than the one before.
        let is_wanted = std::mem::take(&mut self.wants_commit);
        if is_wanted || (at_ms - self.state.stamp_ms).abs() >= STAMP_INTERVAL_MS {
            let mut making = self.begin();
            self.put(&mut making, &Entry::Stamp { at_ms });
            self.finish(FrameKind::Records, &making);
        }
    }

    /// Takes everything that waits, and gives it its place in the log.
    pub(crate) fn take_batch(&mut self) -> Batch {
        self.stamp();
        let mut frames = std::mem::take(&mut self.pending.frames);
        let mut items = std::mem::take(&mut self.pending.items);
        let mut spare = std::mem::take(&mut self.pending.spare);
        spare.clear();
        let mut batch = Batch {
            bytes: std::mem::replace(&mut self.pending.bytes, spare),
            writes: Vec::with_capacity(frames.len()),
            debts: Vec::new(),
            token: CommitToken(self.appended),
        };
        self.state.unplaced.clear();
        for frame in frames.drain(..) {
            let items = items.get_mut(frame.items.clone()).unwrap_or_default();
            self.place_frame(&frame, items, &mut batch);
        }
        self.pending.frames = frames;
        items.clear();
        self.pending.items = items;
        batch
    }

    fn place_frame(&mut self, frame: &PendingFrame, items: &mut [Item], batch: &mut Batch) {
        let mut needed = 0;
        for item in &mut *items {
            let is_needed = match item {
                Item::Debt { debt, .. } => {
                    self.state.queues.get(&debt.queue).is_some_and(|queue| queue.owes(debt.position))
                }
                Item::Retained { topic, moved_from: Some(from), .. } => {
                    self.state.retained.get(topic.as_ref()) == Some(from)
                }
                Item::Retained { .. } => true,
                Item::Cleared { .. } | Item::Void => continue,
            };
            if is_needed {
                needed += 1;
            } else if let Item::Debt { at, .. } | Item::Retained { at, .. } =
                std::mem::replace(item, Item::Void)
                && let Some(bytes) = batch.bytes.get_mut(at..)
            {
                make_void(bytes);
            }
        }
        if needed == 0 && !frame.has_transitions {
            self.counters.frames_spared += 1;
            return;
        }
        let size = frame.range.len() as u64;
        let (segment, offset) = self.place_for(size, needed);
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        if let Some(tail) = self.state.segments.get_mut(&segment) {
            tail.size += size;
            tail.last_sequence = sequence;
        }
        self.log_bytes += size;
        self.bytes_since_checkpoint += size;
        self.counters.log_bytes += size;
        batch.writes.push(Write { kind: frame.kind, range: frame.range.clone(), segment, offset, sequence });
        // No segment is longer than an offset can say, except one with a single frame, which begins at its front.
        let offset = u32::try_from(offset).unwrap_or(u32::MAX);
        let bytes = share(frame.range.len() - FRAME_HEAD, needed);
        for item in items {
            match std::mem::replace(item, Item::Void) {
                Item::Debt { debt, is_moved, .. } => {
                    let FoundDebt { queue, position } = debt;
                    if is_moved
                        && let Some(before) =
                            self.state.queues.get(&queue).and_then(|queue| queue.segment_of(position))
                    {
                        self.moved_on_way.insert((queue, position), before);
                    }
                    self.state.place(frame.kind, debt, segment, bytes);
                    batch.debts.push((segment, debt, offset));
                }
                Item::Retained { topic, message, .. } => {
                    let place = Place { segment, offset, message, bytes };
                    let before = self.state.retained.get(topic.as_ref()).copied();
                    let safe =
                        before.and_then(|before| *self.retained_on_way.get(&before).unwrap_or(&Some(before)));
                    self.retained_on_way.insert(place, safe);
                    self.state.retain(&topic, place);
                }
                Item::Cleared { topic } => self.state.clear_retained(&topic),
                Item::Void => {}
            }
        }
    }

    /// Where a frame of this size goes.
    fn place_for(&mut self, size: u64, debts: usize) -> (u64, u64) {
        let fitting = self.tail.and_then(|number| Some((number, self.state.segments.get(&number)?.size)));
        if let Some((number, used)) = fitting {
            let fits = used + size <= self.options.segment_bytes && self.tail_debts + debts <= DEBTS_MAX;
            if fits || used == HEAD as u64 {
                self.tail_debts += debts;
                return (number, used);
            }
            self.sealing.push(number);
        }
        let number = self.next_segment;
        self.next_segment += 1;
        self.tail = Some(number);
        self.tail_debts = debts;
        let last_sequence = self.next_sequence - 1;
        let segment = Segment { epoch: self.epoch, size: HEAD as u64, live: 0, last_sequence };
        self.log_bytes += segment.size;
        self.state.segments.insert(number, segment);
        self.directories.insert(number, Arc::default());
        (number, HEAD as u64)
    }

    /// The state after everything that was taken, if it is time for a checkpoint, and the sequence that it covers.
    pub(crate) fn checkpoint_due(&mut self) -> Option<(Snapshot, u64)> {
        let threshold = self.options.checkpoint_bytes.max(self.checkpoint_size.saturating_mul(4));
        let covered = self.next_sequence - 1;
        let is_due = self.bytes_since_checkpoint >= threshold || self.wants_checkpoint();
        if self.checkpoint_underway || !is_due || self.checkpoints.last() == Some(&covered) {
            return None;
        }
        self.checkpoint_underway = true;
        self.bytes_since_checkpoint = 0;
        Some((Snapshot::of(&self.state), covered))
    }

    /// Whether the log is longer than twice what is alive in it, and [`SEGMENTS_ALLOWED`].
    pub(crate) fn is_long(&self) -> bool {
        let live: u64 = self.state.segments.values().map(|segment| segment.live).sum();
        self.log_bytes > 2 * live + SEGMENTS_ALLOWED * self.options.segment_bytes
    }

    /// Whether a checkpoint before its time would make room: dead segments wait for two of them. A full store takes one for
    /// any; otherwise they have to be worth it.
    pub(crate) fn wants_checkpoint(&self) -> bool {
        if self.checkpoint_failed {
            return false;
        }
        let covered = self.covered_twice();
        let waiting: u64 = self
            .state
            .segments
            .iter()
            .filter(|(number, segment)| {
                segment.live == 0 && self.tail != Some(**number) && segment.last_sequence > covered
            })
            .map(|(_, segment)| segment.size)
            .sum();
        match self.health {
            Health::Sound => {
                let worth =
                    self.options.segment_bytes.max(self.checkpoint_size.saturating_mul(CHECKPOINTS_WORTH));
                waiting >= worth && self.is_long()
            }
            Health::Full { .. } => waiting > 0,
            Health::Failed => false,
        }
    }

    /// Gives up what lies in a segment; returns how many debts and Retained Messages that were.
    pub(crate) fn give_up(&mut self, number: u64) -> (u64, u64) {
        let segment = self.state.segments.get(&number).copied();
        let (debts, retained) = self.state.lose_segment(number);
        if let Some(segment) = segment {
            self.state.segments.insert(number, Segment { live: 0, ..segment });
            self.note_damage(number);
        }
        // What is appended from here on would be as unreadable.
        if self.tail == Some(number) {
            self.tail = None;
            self.sealing.push(number);
        }
        self.counters.debts_lost += debts;
        self.counters.retained_lost += retained;
        (debts, retained)
    }

    /// A segment has bytes that can't be read: it is emptied as soon as it may be, and then put aside instead of removed.
    pub(crate) fn note_damage(&mut self, number: u64) {
        if self.state.segments.contains_key(&number) && self.damaged.insert(number) {
            self.counters.segments_damaged += 1;
        }
    }

    /// Clears a Retained Message that can't be read, unless another one has taken its place.
    pub(crate) fn lose_retained(&mut self, place: Place) {
        let found = self.state.retained.iter().find(|(_, known)| **known == place);
        let Some(topic) = found.map(|(topic, _)| topic.clone()) else { return };
        self.counters.retained_lost += 1;
        self.note_damage(place.segment);
        let mut making = self.begin();
        self.put_cleared(&mut making, &topic);
        self.finish(FrameKind::Records, &making);
    }

    /// Settles a debt that can't be read; `false` when nobody owes it any more.
    pub(crate) fn lose_debt(&mut self, queue: u64, position: u64) -> bool {
        if !self.state.queues.get(&queue).is_some_and(|queue| queue.owes(position)) {
            return false;
        }
        self.counters.debts_lost += 1;
        let segment = self.state.queues.get(&queue).and_then(|queue| queue.segment_of(position));
        if let Some(segment) = segment {
            self.note_damage(segment);
        }
        let mut making = self.begin();
        self.put_settled(&mut making, queue, position);
        self.finish(FrameKind::Records, &making);
        true
    }

    /// What the older of the two checkpoints covers.
    pub(crate) fn covered_twice(&self) -> u64 {
        match self.checkpoints.as_slice() {
            [.., older, _] => *older,
            _ => 0,
        }
    }
}

impl<'a> Making<'a> {
    /// A message by its identity: its number in the frame, and its topic.
    fn find(&self, id: MessageId) -> Option<(u32, &'a str)> {
        let number = self.others.iter().rposition(|(known, _)| *known == id).map(|index| index + 1);
        let number = number.or_else(|| self.first.is_some_and(|(known, _)| known == id).then_some(0))?;
        let (_, topic) = if number == 0 { self.first? } else { *self.others.get(number - 1)? };
        Some((u32::try_from(number).ok()?, topic))
    }
}

/// A debt on its way into a frame.
struct Debt<'a> {
    message: Option<MessageId>,
    qos: u8,
    retain: bool,
    identifiers: &'a [u8],
    body: &'a [u8],
}

/// About what a frame takes, and that its debts refer to messages that are in it.
fn size_of(records: &[Record<'_>]) -> Result<usize, StoreError> {
    let mut size = FRAME_HEAD;
    // Debts mostly stand right behind their message.
    let mut last = None;
    for (place, record) in records.iter().enumerate() {
        size += 32;
        let needed = match record {
            Record::Message(message) => {
                last = Some(message.id);
                size += 48 + message.topic.len() + message.properties.len() + message.payload.len();
                None
            }
            Record::Will { message, .. } => {
                size += 48 + message.topic.len() + message.properties.len() + message.payload.len();
                None
            }
            Record::Owed { id, .. } | Record::OwedToGroup { id, .. } | Record::Retained { id } => Some(*id),
            Record::Queued { id, body, .. } => {
                size += body.len();
                *id
            }
            _ => None,
        };
        let is_before = |id| {
            let before = records.get(..place).unwrap_or_default();
            before.iter().any(|record| matches!(record, Record::Message(message) if message.id == id))
        };
        if needed.is_some_and(|id| last != Some(id) && !is_before(id)) {
            return Err(StoreError::Dangling);
        }
    }
    if size > BODY_MAX {
        return Err(StoreError::TooLarge { size, limit: BODY_MAX });
    }
    Ok(size)
}
