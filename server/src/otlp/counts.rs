//! What became of spans that were to be exported.

use std::sync::atomic::{AtomicU64, Ordering};

/// What became of spans since the start. Every span that was taken is one of these, or waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counts {
    /// Spans that the collector took.
    pub exported: u64,
    /// Spans that the queue had no room for.
    pub dropped_full: u64,
    /// Spans that couldn't be handed over: refused, or not taken in time.
    pub dropped_failed: u64,
    /// Spans that the collector says it left out of batches that it took.
    pub rejected: u64,
    /// Requests, each repetition included.
    pub requests: u64,
    /// Spans in the queue.
    pub waiting: usize,
}

/// The counters behind it.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) exported: AtomicU64,
    pub(super) dropped_full: AtomicU64,
    pub(super) dropped_failed: AtomicU64,
    pub(super) rejected: AtomicU64,
    pub(super) requests: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self, waiting: usize) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            exported: read(&self.exported),
            dropped_full: read(&self.dropped_full),
            dropped_failed: read(&self.dropped_failed),
            rejected: read(&self.rejected),
            requests: read(&self.requests),
            waiting,
        }
    }
}

pub(super) fn add(counter: &AtomicU64, more: usize) {
    counter.fetch_add(u64::try_from(more).unwrap_or(u64::MAX), Ordering::Relaxed);
}
