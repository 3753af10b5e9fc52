//! How much goes into one call of a sink, and which items go together.
//!
//! Where the far side takes a batch as one ([`BatchPolicy::is_whole`]), a batch whose outcome may be unknown is never made
//! up anew: it is held back as it is and sent again as it is, so that the far side can tell by its key that it has
//! seen it. Its lines stay busy meanwhile, so nothing overtakes it. A batch that was refused outright is taken apart:
//! its items may go in batches of half its size from then on, so that after a few rounds an item that spoils every batch
//! stands alone, and is refused alone.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::item::{Batch, Item};

/// Most lines that are looked at for items that go together.
pub(super) const LINES_LOOKED_AT_MAX: usize = 256;

/// Bounds of a batch. It is sent when one of them is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchPolicy {
    /// Most items; at least 1.
    pub max_items: usize,
    /// Most bytes as the request counts them for a batch; a single larger item still goes, alone.
    pub max_bytes: usize,
    /// How long the first item waits for company; zero: not at all.
    pub linger: Duration,
    /// Whether the far side takes a batch as one, so that all of its items share one fate.
    pub is_whole: bool,
}

impl BatchPolicy {
    /// One item per call.
    pub const SINGLE: Self =
        Self { max_items: 1, max_bytes: usize::MAX, linger: Duration::ZERO, is_whole: false };

    /// Whether `bytes` more fit beside what a batch of at most `items_max` holds already.
    pub(crate) const fn has_room(
        &self,
        items_max: usize,
        held_items: usize,
        held_bytes: usize,
        bytes: usize,
    ) -> bool {
        held_items == 0 || (held_items < items_max && held_bytes.saturating_add(bytes) <= self.max_bytes)
    }
}

/// Batches that are to be sent again as they are.
pub(super) struct Held<R> {
    batches: BTreeMap<(Instant, u64), Batch<R>>,
    next_number: u64,
    items: usize,
}

impl<R> Default for Held<R> {
    fn default() -> Self {
        Self { batches: BTreeMap::new(), next_number: 0, items: 0 }
    }
}

impl<R> Held<R> {
    /// How many items all of them have.
    pub(super) const fn len(&self) -> usize {
        self.items
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Items of all of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Item<R>> {
        self.batches.values().flat_map(|batch| &batch.items)
    }

    /// Holds a batch back until its time.
    pub(super) fn hold(&mut self, batch: Batch<R>, until: Instant) {
        self.items += batch.len();
        self.batches.insert((until, self.next_number), batch);
        self.next_number += 1;
    }

    /// When the next one is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.batches.first_key_value().map(|((until, _), _)| *until)
    }

    /// Holds none back any longer.
    pub(super) fn end_delays(&mut self, now: Instant) {
        let held = std::mem::take(&mut self.batches);
        self.batches =
            held.into_iter().map(|((until, number), batch)| ((until.min(now), number), batch)).collect();
    }

    /// Takes one that is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Batch<R>> {
        self.take(|until, _| until <= now)
    }

    /// Takes one that holds an item from before `oldest`.
    pub(super) fn take_older(&mut self, oldest: Instant) -> Option<Batch<R>> {
        self.take(|_, batch| batch.oldest().is_some_and(|arrived_at| arrived_at <= oldest))
    }

    /// Takes any.
    pub(super) fn take_any(&mut self) -> Option<Batch<R>> {
        self.take(|_, _| true)
    }

    fn take(&mut self, mut wanted: impl FnMut(Instant, &Batch<R>) -> bool) -> Option<Batch<R>> {
        let key = *self.batches.iter().find(|((until, _), batch)| wanted(*until, batch))?.0;
        let batch = self.batches.remove(&key)?;
        self.items -= batch.len();
        Some(batch)
    }

    /// When the oldest item of all came.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.batches.values().filter_map(Batch::oldest).min()
    }
}
