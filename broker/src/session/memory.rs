//! How much memory the queues of all sessions take together, and how much they may.
//!
//! Each queue has its own limits, and a thousand of them at once can be more than the machine has. So the bytes of every
//! message that waits in a session's or a group's queue are counted in one number, which those queues touch only when a
//! message is put in or taken out: what is sent at once isn't counted. A message in several queues counts in each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The memory of all queues.
#[derive(Debug)]
pub(crate) struct QueuedMemory {
    used: AtomicU64,
    limit: u64,
}

impl QueuedMemory {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), limit })
    }

    /// Bytes in all queues.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether so many bytes more would be more than may be.
    fn is_over(&self, more: u64) -> bool {
        self.used() + more > self.limit
    }
}

/// Bytes in one queue, counted among all.
#[derive(Debug)]
pub(crate) struct QueuedBytes {
    bytes: u64,
    all: Arc<QueuedMemory>,
}

impl QueuedBytes {
    pub(crate) fn new(all: &Arc<QueuedMemory>) -> Self {
        Self { bytes: 0, all: Arc::clone(all) }
    }

    pub(crate) fn get(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.all.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn sub(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.all.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether all queues together have no room for so many bytes more.
    pub(crate) fn memory_is_full(&self, more: u64) -> bool {
        self.all.is_over(more)
    }
}

impl Drop for QueuedBytes {
    fn drop(&mut self) {
        self.sub(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::{QueuedBytes, QueuedMemory};

    #[test]
    fn all_queues_count_and_a_queue_that_is_gone_counts_no_more() {
        let all = QueuedMemory::new(100);
        let (mut one, mut other) = (QueuedBytes::new(&all), QueuedBytes::new(&all));
        one.add(60);
        other.add(30);
        assert!(!one.memory_is_full(10) && one.memory_is_full(11));
        other.sub(31);
        assert_eq!((one.get(), other.get(), all.used()), (60, 0, 60), "never less than nothing");
        drop(one);
        assert_eq!(all.used(), 0);
    }
}
