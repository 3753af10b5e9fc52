//! What the records so far amount to: sessions, queues, retained messages, and how many bytes of each segment are alive.
//!
//! It is a function of the frames: applied to the same frames in the same order it is the same, at run time and when the
//! log is read again. What it never holds is a message or a debt; those stay in the log, and [`Queue`] says where.
//!
//! The frame that a debt or a retained message is in has its bytes divided among them: the share dies when they do.

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::bytes::{Malformed, Reader, put_number};
use crate::entry::{Entry, Owed, put_key, put_message, read_key};
use crate::format::FrameKind;
use crate::queue::{Inflight, Queue, Session};
use crate::record::QueueKey;
use crate::shards::Shards;

type HashMap<K, V> = std::collections::HashMap<K, V, RandomState>;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    pub(crate) queues: Shards<u64, Arc<Queue>>,
    /// Numbers of queues by their encoded keys.
    pub(crate) names: HashMap<Box<[u8]>, u64>,
    /// Numbers of the queues that belong to actions: few, among all those of sessions.
    pub(crate) of_actions: BTreeSet<u64>,
    pub(crate) retained: Shards<Box<str>, Place>,
    pub(crate) segments: BTreeMap<u64, Segment>,
    /// The number that the next queue gets.
    pub(crate) next_queue: u64,
    /// The newest wall-clock stamp, milliseconds since the epoch.
    pub(crate) stamp_ms: i64,
    /// Debts that have a place in their queue and none in the log yet, with what the writer knows them by.
    pub(crate) unplaced: HashMap<(u64, u64), usize>,
    /// Those of them that were paid meanwhile.
    pub(crate) voided: Vec<usize>,
}

/// Where a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    /// Where its frame begins.
    pub(crate) offset: u32,
    /// Which message of the frame.
    pub(crate) message: u32,
    /// Its share of the frame.
    pub(crate) bytes: u64,
}

/// A file of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) epoch: u32,
    /// Bytes written, the head included.
    pub(crate) size: u64,
    /// Bytes that somebody still needs.
    pub(crate) live: u64,
    /// Sequence of the last frame in it; before the first one, of the last frame before it.
    pub(crate) last_sequence: u64,
}

/// A debt as it was found in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FoundDebt {
    pub(crate) queue: u64,
    pub(crate) position: u64,
}

impl State {
    /// A queue, to be changed.
    pub(crate) fn queue_mut(&mut self, number: u64) -> Option<&mut Queue> {
        self.queues.get_mut(&number).map(Arc::make_mut)
    }

    /// The number of a queue.
    pub(crate) fn find(&self, key: QueueKey<'_>, scratch: &mut Vec<u8>) -> Option<u64> {
        scratch.clear();
        put_key(scratch, key);
        self.names.get(scratch.as_slice()).copied()
    }

    /// Applies a record that has nothing to do with where it lies. The others are passed over.
    pub(crate) fn apply(&mut self, entry: &Entry<'_>) {
        match *entry {
            Entry::QueueMade { queue, key } => self.make_queue(queue, key),
            Entry::QueueGone { queue } => self.end_queue(queue),
            Entry::Settled { queue, position } => self.settle(queue, position),
            Entry::Stamp { at_ms } => self.stamp_ms = at_ms,
            Entry::SessionStarted { queue, expiry_interval_s } => self.with_session(queue, |session| {
                session.expiry_interval_s = expiry_interval_s;
                session.detached_at_ms = None;
                session.will = None;
            }),
            Entry::SessionOwner { queue, owner } => {
                self.with_session(queue, |session| session.owner = owner.into());
            }
            Entry::SessionDetached { queue, at_ms } => {
                self.with_session(queue, |session| session.detached_at_ms = Some(at_ms));
            }
            Entry::Will { queue, delay_s, retain, message } => self.with_session(queue, |session| {
                let mut will = Vec::new();
                put_number(&mut will, delay_s.into());
                will.push(retain.into());
                put_message(&mut will, &message);
                session.will = Some(will.into());
            }),
            Entry::WillGone { queue } => self.with_session(queue, |session| session.will = None),
            Entry::Subscribed { queue, filter, options, identifier } => {
                self.with_session(queue, |session| {
                    session.subscriptions.insert(filter.into(), (options, identifier));
                });
            }
            Entry::Unsubscribed { queue, filter } => self.with_session(queue, |session| {
                session.subscriptions.remove(filter);
            }),
            Entry::Received { queue, packet_id } => self.with_session(queue, |session| {
                session.received.insert(packet_id);
            }),
            Entry::Released { queue, packet_id } => self.with_session(queue, |session| {
                session.received.remove(&packet_id);
            }),
            Entry::Sent { queue, owner, position, packet_id } => self.with_session(queue, |session| {
                let sent = Inflight { owner, position, awaits_completion: false };
                session.inflight.insert(packet_id, sent);
            }),
            Entry::AwaitsCompletion { queue, packet_id } => {
                let mut paid = None;
                self.with_session(queue, |session| {
                    if let Some(inflight) = session.inflight.get_mut(&packet_id) {
                        inflight.awaits_completion = true;
                        paid = Some((inflight.owner, inflight.position));
                    }
                });
                if let Some((owner, position)) = paid {
                    self.settle(owner, position);
                }
            }
            Entry::Completed { queue, packet_id } => {
                let mut paid = None;
                self.with_session(queue, |session| paid = session.inflight.remove(&packet_id));
                if let Some(Inflight { owner, position, awaits_completion: false }) = paid {
                    self.settle(owner, position);
                }
            }
            Entry::Message(_)
            | Entry::Owed(_)
            | Entry::Retained { .. }
            | Entry::RetainedCleared { .. }
            | Entry::Void => {}
        }
    }

    fn make_queue(&mut self, number: u64, key: QueueKey<'_>) {
        let mut name = Vec::new();
        put_key(&mut name, key);
        self.next_queue = self.next_queue.max(number + 1);
        let made = self.queues.get_or_insert_with(number, || Arc::new(Queue::new(&name)));
        let Some(queue) = made.map(Arc::make_mut) else { return };
        queue.key = name.as_slice().into();
        if matches!(key, QueueKey::Session(_)) && queue.session.is_none() {
            queue.session = Some(Box::default());
        }
        self.know(number, name.into());
    }

    /// Finds a queue by its encoded key from here on.
    pub(crate) fn know(&mut self, number: u64, name: Box<[u8]>) {
        if matches!(key_of(&name), Ok(QueueKey::Outbox { .. } | QueueKey::DeadLetters { .. })) {
            self.of_actions.insert(number);
        }
        self.names.insert(name, number);
    }

    fn end_queue(&mut self, number: u64) {
        let Some(queue) = self.queues.remove(&number) else { return };
        self.of_actions.remove(&number);
        if let Slot::Occupied(slot) = self.names.entry(queue.key.clone())
            && *slot.get() == number
        {
            slot.remove();
        }
        for run in &queue.runs {
            self.die(run.segment, run.bytes);
        }
    }

    fn with_session(&mut self, queue: u64, change: impl FnOnce(&mut Session)) {
        if let Some(session) = self.queue_mut(queue).and_then(|queue| queue.session.as_mut()) {
            change(session);
        }
    }

    /// Pays a debt, wherever it is.
    pub(crate) fn settle(&mut self, queue: u64, position: u64) {
        let Some(owing) = self.queue_mut(queue) else { return };
        if let Some((segment, bytes)) = owing.settle(position) {
            self.die(segment, bytes);
        }
        if !self.unplaced.is_empty()
            && let Some(index) = self.unplaced.remove(&(queue, position))
        {
            self.voided.push(index);
        }
    }

    fn die(&mut self, segment: u64, bytes: u64) {
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.live = segment.live.saturating_sub(bytes);
        }
    }

    fn live(&mut self, segment: u64, bytes: u64) {
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.live += bytes;
        }
    }

    /// A debt lies in a segment now; `false` when nobody owes it any more.
    pub(crate) fn place(&mut self, kind: FrameKind, debt: FoundDebt, segment: u64, bytes: u64) -> bool {
        let FoundDebt { queue, position } = debt;
        let Some(owing) = self.queue_mut(queue) else { return false };
        owing.next = owing.next.max(position + 1);
        if !owing.owes(position) {
            return false;
        }
        let moved = match kind {
            FrameKind::Moved => owing.relocate(position, segment, bytes),
            FrameKind::Records | FrameKind::State | FrameKind::End | FrameKind::Filler => {
                owing.place(position, segment, bytes);
                None
            }
        };
        if let Some((segment, bytes)) = moved {
            self.die(segment, bytes);
        }
        self.live(segment, bytes);
        true
    }

    /// The message at `place` is the topic's Retained Message now.
    pub(crate) fn retain(&mut self, topic: &str, place: Place) {
        self.live(place.segment, place.bytes);
        let before = match self.retained.get_mut(topic) {
            Some(slot) => Some(std::mem::replace(slot, place)),
            None => self.retained.insert(topic.into(), place),
        };
        if let Some(before) = before {
            self.die(before.segment, before.bytes);
        }
    }

    pub(crate) fn clear_retained(&mut self, topic: &str) {
        if let Some(place) = self.retained.remove(topic) {
            self.die(place.segment, place.bytes);
        }
    }

    /// Applies a whole frame as it is read from the log, and hands its debts to `found`.
    pub(crate) fn replay(
        &mut self,
        kind: FrameKind,
        body: &[u8],
        segment: u64,
        offset: u32,
        mut found: impl FnMut(FoundDebt),
    ) -> Result<(), Malformed> {
        let frame = Frame::read(body)?;
        let share = frame.share(body.len());
        for entry in &frame.entries {
            match *entry {
                Entry::Owed(Owed { queue, position, .. }) => {
                    let debt = FoundDebt { queue, position };
                    self.place(kind, debt, segment, share);
                    found(debt);
                }
                Entry::Retained { message } => {
                    let topic = frame.messages.get(message as usize).ok_or(Malformed)?.topic;
                    let place = Place { segment, offset, message, bytes: share };
                    self.retain(topic, place);
                }
                Entry::RetainedCleared { topic } => self.clear_retained(topic),
                _ => self.apply(entry),
            }
        }
        Ok(())
    }

    /// Gives up everything that lies in a segment; returns how many debts and retained messages that were.
    pub(crate) fn lose_segment(&mut self, number: u64) -> (u64, u64) {
        self.segments.remove(&number);
        let debts = self.queues.values_mut().map(|queue| Arc::make_mut(queue).lose(number)).sum();
        let before = self.retained.len();
        self.retained.retain(|_, place| place.segment != number);
        (debts, (before - self.retained.len()) as u64)
    }
}

/// The records of a frame, with its messages apart.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) entries: Vec<Entry<'a>>,
    pub(crate) messages: Vec<crate::record::MessageRecord<'a>>,
}

impl<'a> Frame<'a> {
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let mut frame = Self { entries: Vec::new(), messages: Vec::new() };
        while !reader.is_empty() {
            match Entry::read(&mut reader)? {
                Entry::Message(message) => frame.messages.push(message),
                entry => frame.entries.push(entry),
            }
        }
        Ok(frame)
    }

    /// What each debt and retained message accounts for, in bytes.
    pub(crate) fn share(&self, body: usize) -> u64 {
        share(
            body,
            self.entries
                .iter()
                .filter(|entry| matches!(entry, Entry::Owed(_) | Entry::Retained { .. }))
                .count(),
        )
    }
}

/// What each of `among` accounts for of a frame with a body of this size.
pub(crate) fn share(body: usize, among: usize) -> u64 {
    ((body + crate::format::FRAME_HEAD) / among.max(1)) as u64
}

/// The key of a queue, from its bytes.
pub(crate) fn key_of(bytes: &[u8]) -> Result<QueueKey<'_>, Malformed> {
    read_key(&mut Reader::new(bytes))
}
