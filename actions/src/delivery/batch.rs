//! How much goes into one call of a sink.

use std::time::Duration;

/// Bounds of a batch. It is sent when one of them is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchPolicy {
    /// Most items; at least 1.
    pub max_items: usize,
    /// Most bytes; a single larger item still goes, alone.
    pub max_bytes: usize,
    /// How long the first item waits for company; zero: not at all.
    pub linger: Duration,
}

impl BatchPolicy {
    /// One item per call.
    pub const SINGLE: Self = Self { max_items: 1, max_bytes: usize::MAX, linger: Duration::ZERO };

    /// Whether `bytes` more fit beside what a batch holds already.
    pub(crate) const fn has_room(&self, held_items: usize, held_bytes: usize, bytes: usize) -> bool {
        held_items == 0 || (held_items < self.max_items && held_bytes.saturating_add(bytes) <= self.max_bytes)
    }
}
