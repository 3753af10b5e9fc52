//! Who stands in line behind whom.
//!
//! Items of a key stand in line behind each other; a line is *ready* (its first item may leave), *busy* (items of it are
//! in flight) or *delayed* (its first item waits to be retried). Ready lines are served by the age of their first item,
//! so across keys the order is nearly that of arrival. Three indices make every step logarithmic in the number of
//! items: waiting items by age, ready lines by age, delayed lines by time.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use tokio::time::Instant;

use super::batch::{BatchPolicy, LINES_LOOKED_AT_MAX};
use super::item::{Batch, Item, Key};
use crate::outlet::QueuedRequest;

/// Where the numbers of items begin that go behind those that come now.
pub(super) const LATER: u64 = 1 << 63;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Ready,
    Busy,
    Delayed(Instant),
}

/// The items of one key that wait. Present while it has any, or is busy.
struct Line<R> {
    items: VecDeque<Item<R>>,
    turn: Turn,
}

/// The items that wait.
pub(super) struct Lines<R> {
    lines: HashMap<Key, Line<R>>,
    /// Waiting items by number.
    waiting: BTreeMap<u64, Key>,
    /// Ready lines by the number of their first item.
    ready: BTreeMap<u64, Key>,
    /// Delayed lines by the time when they become ready.
    delayed: BTreeSet<(Instant, Key)>,
}

/// The items that would leave together.
pub(super) struct Gathered {
    /// Lines by the number of their first item, with how many of their items go.
    parts: Vec<(u64, Key, usize)>,
    /// Whether no more would fit.
    pub(super) is_full: bool,
}

impl<R> Default for Lines<R> {
    fn default() -> Self {
        Self {
            lines: HashMap::new(),
            waiting: BTreeMap::new(),
            ready: BTreeMap::new(),
            delayed: BTreeSet::new(),
        }
    }
}

impl<R: QueuedRequest> Lines<R> {
    /// Items that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether no line may send its first item.
    pub(super) fn none_is_ready(&self) -> bool {
        self.ready.is_empty()
    }

    /// All that wait, in no order.
    pub(super) fn items(&self) -> impl Iterator<Item = &Item<R>> {
        self.lines.values().flat_map(|line| &line.items)
    }

    /// The first item of all, which goes before the others.
    pub(super) fn first(&self) -> Option<&Item<R>> {
        let (_, key) = self.waiting.first_key_value()?;
        self.lines.get(key)?.items.front()
    }

    /// The first item that may leave.
    pub(super) fn first_ready(&self) -> Option<&Item<R>> {
        let (_, key) = self.ready.first_key_value()?;
        self.lines.get(key)?.items.front()
    }

    /// When the next line is ready again that is delayed now.
    pub(super) fn delayed_until(&self) -> Option<Instant> {
        self.delayed.first().map(|(at, _)| *at)
    }

    /// Makes ready what was delayed until now.
    pub(super) fn end_delays(&mut self, now: Instant) {
        while let Some((at, key)) = self.delayed.first().copied() {
            if at > now {
                break;
            }
            self.delayed.remove(&(at, key));
            if let Some(line) = self.lines.get_mut(&key) {
                line.turn = Turn::Ready;
                if let Some(front) = line.items.front() {
                    self.ready.insert(front.number, key);
                }
            }
        }
    }

    /// Makes ready all that is delayed.
    pub(super) fn end_all_delays(&mut self) {
        if let Some((last, _)) = self.delayed.last().copied() {
            self.end_delays(last);
        }
    }

    /// Which items would leave together now: those that go with the first ready one.
    pub(super) fn gather(&self, policy: &BatchPolicy) -> Gathered {
        let mut gathered = Gathered { parts: Vec::new(), is_full: false };
        let mut items_max = policy.max_items;
        let (mut items, mut bytes) = (0_usize, 0_usize);
        let mut first: Option<&R> = None;
        for (number, key) in self.ready.iter().take(LINES_LOOKED_AT_MAX) {
            let Some(line) = self.lines.get(key) else { continue };
            let mut from_line = 0;
            for item in &line.items {
                let request = &item.envelope.request;
                // Those behind it in the line may not overtake it.
                if first.is_some_and(|first| !request.goes_with(first)) {
                    break;
                }
                first.get_or_insert(request);
                let with_it = items_max.min(item.batch_items_max);
                if !policy.has_room(with_it, items, bytes, request.batch_bytes()) {
                    gathered.is_full = true;
                    break;
                }
                items_max = with_it;
                items += 1;
                bytes = bytes.saturating_add(request.batch_bytes());
                from_line += 1;
            }
            if from_line > 0 {
                gathered.parts.push((*number, *key, from_line));
            }
            if gathered.is_full {
                break;
            }
        }
        gathered.is_full |= items >= items_max;
        gathered
    }

    /// Takes the items that leave together now; their lines are busy until [`Self::release`].
    pub(super) fn take(&mut self, policy: &BatchPolicy) -> Batch<R> {
        let mut items: Vec<Item<R>> = Vec::new();
        for (number, key, from_line) in self.gather(policy).parts {
            let Some(line) = self.lines.get_mut(&key) else { continue };
            for item in line.items.drain(..from_line) {
                self.waiting.remove(&item.number);
                items.push(item);
            }
            line.turn = Turn::Busy;
            self.ready.remove(&number);
        }
        Batch { items, is_whole: policy.is_whole, sent_at: None }
    }

    /// Puts an item behind all others of its key.
    pub(super) fn push_back(&mut self, item: Item<R>) {
        let (number, key) = (item.number, item.key);
        self.waiting.insert(number, key);
        let line =
            self.lines.entry(key).or_insert_with(|| Line { items: VecDeque::new(), turn: Turn::Ready });
        if line.items.is_empty() && line.turn == Turn::Ready {
            self.ready.insert(number, key);
        }
        line.items.push_back(item);
    }

    /// Puts an item that was in flight back; its line is busy until [`Self::release`].
    pub(super) fn push_front(&mut self, item: Item<R>) {
        self.waiting.insert(item.number, item.key);
        let line =
            self.lines.entry(item.key).or_insert_with(|| Line { items: VecDeque::new(), turn: Turn::Busy });
        line.items.push_front(item);
    }

    /// Lets a line that was busy go on, after a delay if there is one.
    pub(super) fn release(&mut self, key: Key, delay: Option<Instant>) {
        let Some(line) = self.lines.get_mut(&key) else { return };
        if line.turn != Turn::Busy {
            return;
        }
        match (line.items.front(), delay) {
            (None, _) => {
                self.lines.remove(&key);
            }
            (Some(_), Some(at)) => {
                line.turn = Turn::Delayed(at);
                self.delayed.insert((at, key));
            }
            (Some(front), None) => {
                line.turn = Turn::Ready;
                self.ready.insert(front.number, key);
            }
        }
    }

    /// The number and the key of the item that has waited longest: what was read from the outbox has waited longer than what
    /// came meanwhile.
    fn oldest_place(&self) -> Option<(u64, Key)> {
        let later = self.waiting.range(LATER..).next();
        later.or_else(|| self.waiting.first_key_value()).map(|(number, key)| (*number, *key))
    }

    /// The item that has waited longest.
    pub(super) fn oldest(&self) -> Option<&Item<R>> {
        let (_, key) = self.oldest_place()?;
        self.lines.get(&key)?.items.front()
    }

    /// Takes out the item that has waited longest.
    pub(super) fn pop_oldest(&mut self) -> Option<Item<R>> {
        let (number, key) = self.oldest_place()?;
        self.pop_front(number, key)
    }

    /// Takes out the item of this number, which stands first in the line of this key.
    fn pop_front(&mut self, number: u64, key: Key) -> Option<Item<R>> {
        self.waiting.remove(&number)?;
        let item = self.lines.get_mut(&key)?.items.pop_front()?;
        debug_assert_eq!(item.number, number, "the oldest item stands first in its line");
        self.front_left(number, key);
        Some(item)
    }

    /// Takes out an item that something newer goes before: the last of those from the outbox, or else the one that has waited
    /// longest.
    pub(super) fn pop_for_newer(&mut self) -> Option<Item<R>> {
        if self.waiting.last_key_value().is_some_and(|(number, _)| *number >= LATER) {
            self.pop_newest()
        } else {
            self.pop_oldest()
        }
    }

    /// Takes out the item that came last.
    pub(super) fn pop_newest(&mut self) -> Option<Item<R>> {
        let (number, key) = self.waiting.pop_last()?;
        let item = self.lines.get_mut(&key)?.items.pop_back()?;
        debug_assert_eq!(item.number, number, "the newest item stands last in its line");
        self.front_left(number, key);
        Some(item)
    }

    /// Brings the indices in line after the item with `number` left the line other than by being sent.
    fn front_left(&mut self, number: u64, key: Key) {
        let Some(line) = self.lines.get(&key) else { return };
        match (line.turn, line.items.front()) {
            (Turn::Ready, front) => {
                let front = front.map(|front| front.number);
                if self.ready.remove(&number).is_some()
                    && let Some(front) = front
                {
                    self.ready.insert(front, key);
                }
                if front.is_none() {
                    self.lines.remove(&key);
                }
            }
            (Turn::Delayed(at), None) => {
                self.delayed.remove(&(at, key));
                self.lines.remove(&key);
            }
            (Turn::Delayed(_), Some(_)) | (Turn::Busy, _) => {}
        }
    }
}
