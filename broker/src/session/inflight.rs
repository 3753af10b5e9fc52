//! The outbound inflight window: messages that have a Packet Identifier and aren't acknowledged yet, in sending order.
//!
//! Packet Identifiers are given out in sequence, so an identifier's place follows from the first entry's. Entries
//! acknowledged out of order stay as `Done` until those before them are through; at most 65,535 entries exist.

use std::collections::VecDeque;
use std::sync::Arc;

use mqtt_protocol::PacketId;
use store::CommitToken;

use crate::message::Message;
use crate::subscriptions::Group;

/// Identifiers in use at most: all but zero.
const IDENTIFIERS: usize = u16::MAX as usize;

/// What the other side still owes for a message.
#[derive(Debug)]
pub(crate) enum Stage {
    /// QoS 1.
    AwaitPuback(Arc<Message>),
    /// QoS 2.
    AwaitPubrec(Arc<Message>),
    /// QoS 2, released: the message itself is no longer needed.
    AwaitPubcomp,
    /// Nothing; waiting for earlier entries.
    Done,
}

/// One message in the window.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) stage: Stage,
    pub(crate) retain: bool,
    /// It was sent, on this connection or an earlier one.
    pub(crate) was_sent: bool,
    /// The debt's place in its queue in the store, 0 for none.
    pub(crate) place: u64,
    /// The next packet of the exchange may leave once this is safe.
    pub(crate) safe_at: CommitToken,
    /// What few messages have; boxed to keep the others small.
    pub(crate) extra: Option<Box<Extra>>,
}

/// A message of a Shared Subscription that its member didn't get.
#[derive(Debug)]
pub(crate) struct Returned {
    pub(crate) group: Arc<Group>,
    pub(crate) message: Arc<Message>,
    /// Its place in the group's queue in the store, 0 for none.
    pub(crate) place: u64,
}

/// Subscription Identifiers to send along, and the Shared Subscription that the message came through.
#[derive(Debug, Clone, Default)]
pub(crate) struct Extra {
    pub(crate) identifiers: Box<[u32]>,
    pub(crate) group: Option<Arc<Group>>,
}

impl Entry {
    pub(crate) fn identifiers(&self) -> &[u32] {
        self.extra.as_ref().map(|extra| &*extra.identifiers).unwrap_or_default()
    }

    pub(crate) fn group(&self) -> Option<Arc<Group>> {
        self.extra.as_ref().and_then(|extra| extra.group.clone())
    }

    /// Bytes of the message that it holds.
    fn bytes(&self) -> u64 {
        match &self.stage {
            Stage::AwaitPuback(message) | Stage::AwaitPubrec(message) => message.size() as u64,
            Stage::AwaitPubcomp | Stage::Done => 0,
        }
    }

    /// What keeps the place of an identifier that isn't in use.
    fn done() -> Self {
        Self {
            stage: Stage::Done,
            retain: false,
            was_sent: true,
            place: 0,
            safe_at: CommitToken::NOTHING_OWED,
            extra: None,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Inflight {
    entries: VecDeque<Entry>,
    /// Bytes of the messages that the entries hold.
    bytes: u64,
    /// Identifier of the next message sent; the first entry's is `entries.len()` before it.
    next: PacketId,
}

impl Inflight {
    pub(crate) fn new() -> Self {
        Self { entries: VecDeque::new(), bytes: 0, next: PacketId::MIN }
    }

    /// A window with these entries, by their identifiers. They were sent in the order of identifiers, which go round.
    ///
    /// `between` are messages without an identifier, by their places in the session's queue: each comes before the first
    /// entry that has a later place, where identifiers are free. Those that find none stay out.
    pub(crate) fn restored(mut entries: Vec<(PacketId, Entry)>, between: Vec<Entry>) -> Self {
        let mut window = Self::new();
        entries.sort_by_key(|(id, _)| *id);
        // Whatever was sent lies between two ends that are further apart than any two neighbours.
        let count = entries.len();
        let ids: Vec<usize> = entries.iter().map(|(id, _)| usize::from(id.get())).collect();
        let free_before = |place: usize| {
            let before = ids.get((place + count - 1) % count).copied().unwrap_or(0);
            let this = ids.get(place).copied().unwrap_or(0);
            (this + IDENTIFIERS - before - 1) % IDENTIFIERS
        };
        let first = (0..count).max_by_key(|place| free_before(*place)).unwrap_or(0);
        let free_in_front = if count == 0 { 0 } else { free_before(first) };
        entries.rotate_left(first);
        // What comes before an entry without a place comes before the next that has one.
        let mut bounds: Vec<u64> = entries.iter().map(|(_, entry)| entry.place).collect();
        for number in (1..bounds.len()).rev() {
            let next = bounds.get(number).copied().unwrap_or(0);
            if let Some(bound) = bounds.get_mut(number - 1).filter(|bound| **bound == 0) {
                *bound = next;
            }
        }
        let mut between = between.into_iter().peekable();
        for ((id, entry), bound) in entries.into_iter().zip(bounds) {
            let free = if window.entries.is_empty() {
                free_in_front
            } else {
                (usize::from(id.get()) + IDENTIFIERS - usize::from(window.next.get())) % IDENTIFIERS
            };
            let mut fitting = Vec::new();
            while fitting.len() < free
                && let Some(entry) = between.next_if(|entry| entry.place < bound)
            {
                fitting.push(entry);
            }
            if window.entries.is_empty() {
                let raw = (usize::from(id.get()) + IDENTIFIERS - 1 - fitting.len()) % IDENTIFIERS + 1;
                window.next = u16::try_from(raw).ok().and_then(PacketId::new).unwrap_or(id);
            }
            fitting.into_iter().for_each(|entry| window.push(entry));
            while window.next != id && window.entries.len() < IDENTIFIERS {
                window.push(Entry::done());
            }
            window.push(entry);
        }
        window
    }

    /// Places taken, those of `Done` entries included.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of the messages that the client doesn't have for certain.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The identifier that [`Inflight::push`] will use, `None` when all are taken.
    pub(crate) fn next_id(&self) -> Option<PacketId> {
        (self.entries.len() < IDENTIFIERS).then_some(self.next)
    }

    /// Adds an entry under [`Inflight::next_id`], which must have been there.
    pub(crate) fn push(&mut self, entry: Entry) {
        debug_assert!(self.entries.len() < IDENTIFIERS, "a packet identifier was free");
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
        self.next = self.next.next();
    }

    /// The entry at a place, and its identifier.
    pub(crate) fn at(&self, place: usize) -> Option<(PacketId, &Entry)> {
        let entry = self.entries.get(place)?;
        Some((self.id_at(place)?, entry))
    }

    /// The place of an identifier in use.
    pub(crate) fn place_of(&self, id: PacketId) -> Option<usize> {
        let from_end = (usize::from(self.next.get()) + IDENTIFIERS - usize::from(id.get())) % IDENTIFIERS;
        // `next` itself is a whole turn back, in use only when every identifier is.
        let from_end = if from_end == 0 { IDENTIFIERS } else { from_end };
        self.entries.len().checked_sub(from_end)
    }

    pub(crate) fn at_mut(&mut self, place: usize) -> Option<&mut Entry> {
        self.entries.get_mut(place)
    }

    /// The client has the message at this place: only the exchange is to be ended.
    pub(crate) fn await_pubcomp(&mut self, place: usize) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(place)?;
        self.bytes -= entry.bytes();
        entry.stage = Stage::AwaitPubcomp;
        Some(entry)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Marks the entry as through and forgets what leads the window and is through. Returns how many places at the
    /// front went away.
    pub(crate) fn finish(&mut self, place: usize) -> usize {
        if let Some(entry) = self.entries.get_mut(place) {
            self.bytes -= entry.bytes();
            *entry = Entry::done();
        }
        let mut gone = 0;
        while self.entries.front().is_some_and(|entry| matches!(entry.stage, Stage::Done)) {
            self.entries.pop_front();
            gone += 1;
        }
        if self.entries.is_empty() && self.entries.capacity() > 64 {
            self.entries = VecDeque::new();
        }
        gone
    }

    /// Takes out every unacknowledged QoS 1 message that came through a Shared Subscription, oldest first.
    pub(crate) fn take_shared(&mut self) -> Vec<Returned> {
        let mut taken = Vec::new();
        for entry in &mut self.entries {
            if !matches!(entry.stage, Stage::AwaitPuback(_)) {
                continue;
            }
            let Some(group) = entry.group() else { continue };
            let place = entry.place;
            self.bytes -= entry.bytes();
            if let Stage::AwaitPuback(message) = std::mem::replace(entry, Entry::done()).stage {
                taken.push(Returned { group, message, place });
            }
        }
        if let Some(Stage::Done) = self.entries.front().map(|entry| &entry.stage) {
            self.finish(0);
        }
        taken
    }

    fn id_at(&self, place: usize) -> Option<PacketId> {
        let back = self.entries.len().checked_sub(place)?;
        let raw = (usize::from(self.next.get()) + IDENTIFIERS - 1 - back) % IDENTIFIERS + 1;
        PacketId::new(u16::try_from(raw).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use mqtt_protocol::PacketId;

    use super::{Entry, Inflight, Stage};

    fn entry() -> Entry {
        Entry { stage: Stage::AwaitPubcomp, ..Entry::done() }
    }

    #[test]
    fn a_window_is_restored_with_its_gaps_and_over_the_wrap() {
        let restored = |ids: &[u16]| {
            Inflight::restored(ids.iter().map(|id| (PacketId::new(*id).unwrap(), entry())).collect(), vec![])
        };
        let in_use = |window: &Inflight| -> Vec<u16> {
            (0..window.len())
                .filter_map(|place| window.at(place))
                .filter(|(_, entry)| !matches!(entry.stage, Stage::Done))
                .map(|(id, _)| id.get())
                .collect()
        };
        assert_eq!(restored(&[]).next_id(), PacketId::new(1));
        let window = restored(&[7]);
        assert_eq!((window.len(), window.next_id()), (1, PacketId::new(8)));
        assert_eq!(window.place_of(PacketId::new(7).unwrap()), Some(0));
        let window = restored(&[65_530, 3, 1, 65_535]);
        assert_eq!(in_use(&window), [65_530, 65_535, 1, 3]);
        assert_eq!(window.next_id(), PacketId::new(4));
        for (place, id) in [(0, 65_530), (5, 65_535), (6, 1), (8, 3)] {
            assert_eq!(window.place_of(PacketId::new(id).unwrap()), Some(place));
        }
        let all: Vec<u16> = (1..=65_535).collect();
        let window = restored(&all);
        assert_eq!((window.len(), window.next_id()), (65_535, None));
    }

    #[test]
    fn messages_without_an_identifier_take_free_ones_in_order() {
        let at = |place: u64| Entry { place, ..entry() };
        let restored = |sent: &[(u16, u64)], between: &[u64]| -> Vec<(u16, u64)> {
            let sent = sent.iter().map(|(id, place)| (PacketId::new(*id).unwrap(), at(*place))).collect();
            let window = Inflight::restored(sent, between.iter().map(|place| at(*place)).collect());
            (0..window.len())
                .filter_map(|place| window.at(place))
                .filter(|(_, entry)| !matches!(entry.stage, Stage::Done))
                .map(|(id, entry)| (id.get(), entry.place))
                .collect()
        };
        assert_eq!(
            restored(&[(3, 10), (6, 13), (7, 14)], &[8, 9, 11, 12]),
            [(1, 8), (2, 9), (3, 10), (4, 11), (5, 12), (6, 13), (7, 14)]
        );
        // Before the first there are as many as there are; over the wrap, too.
        assert_eq!(restored(&[(1, 10)], &[8, 9]), [(65_534, 8), (65_535, 9), (1, 10)]);
        // No identifier is free between these, and none is given to what comes after the last.
        assert_eq!(restored(&[(1, 10), (2, 12)], &[11, 13]), [(1, 10), (2, 12)]);
        // One that is released has no place: what comes next bounds it.
        assert_eq!(restored(&[(2, 0), (4, 9)], &[8, 10]), [(1, 8), (2, 0), (4, 9)]);
        assert_eq!(restored(&[], &[1]), []);
    }

    #[test]
    fn identifiers_and_places_agree_over_the_wrap() {
        let mut window = Inflight::new();
        for _ in 0..65_530 {
            window.push(entry());
            window.finish(0);
        }
        let ids: Vec<u16> = (0..10)
            .map(|_| {
                let id = window.next_id().unwrap().get();
                window.push(entry());
                id
            })
            .collect();
        assert_eq!(ids, [65_531, 65_532, 65_533, 65_534, 65_535, 1, 2, 3, 4, 5]);
        for (place, id) in ids.iter().enumerate() {
            let id = PacketId::new(*id).unwrap();
            assert_eq!(window.place_of(id), Some(place));
            assert_eq!(window.at(place).unwrap().0, id);
        }
        assert_eq!(window.place_of(PacketId::new(6).unwrap()), None);
        assert_eq!(window.place_of(PacketId::new(65_530).unwrap()), None);
        assert_eq!(window.finish(1), 0, "the first is still awaited");
        assert_eq!(window.finish(0), 2);
        assert_eq!(window.place_of(PacketId::new(65_533).unwrap()), Some(0));
    }

    #[test]
    fn all_identifiers_can_be_in_use_and_then_none_is_free() {
        let mut window = Inflight::new();
        for _ in 0..65_535 {
            assert!(window.next_id().is_some());
            window.push(entry());
        }
        assert!(window.next_id().is_none());
        assert_eq!(window.place_of(PacketId::new(1).unwrap()), Some(0));
        assert_eq!(window.place_of(PacketId::new(65_535).unwrap()), Some(65_534));
        window.finish(0);
        assert_eq!(window.next_id(), PacketId::new(1));
    }
}
