//! How long things take: durations counted by fixed bounds.
//!
//! It stands in this crate because everything that measures itself sees this crate. To count a duration is two additions of relaxed
//! atomics and a search among a dozen bounds; to read is one load for each of them. Count and sum are read one after the
//! other, so a sum may be a duration behind.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Most bounds of a histogram.
const BOUNDS_MAX: usize = 16;

/// Counts durations by upper bounds.
#[derive(Debug)]
pub struct Histogram {
    /// Ascending, in nanoseconds.
    bounds: &'static [u64],
    /// One for each bound, and one for what is beyond the last.
    counts: [AtomicU64; BOUNDS_MAX + 1],
    sum_ns: AtomicU64,
}

/// A histogram at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HistogramSnapshot {
    /// Upper bounds in nanoseconds, each with how many durations were no longer.
    pub buckets: Vec<(u64, u64)>,
    /// How many durations there were.
    pub count: u64,
    /// Their sum in nanoseconds.
    pub sum_ns: u64,
}

impl Histogram {
    /// Makes an empty one. Bounds are nanoseconds, ascending; those beyond the sixteenth don't count.
    #[must_use]
    pub const fn new(bounds: &'static [u64]) -> Self {
        Self { bounds, counts: [const { AtomicU64::new(0) }; BOUNDS_MAX + 1], sum_ns: AtomicU64::new(0) }
    }

    /// Counts a duration.
    pub fn observe(&self, duration: Duration) {
        self.observe_many(duration, 1);
    }

    /// Counts a duration that so many things took together.
    pub fn observe_many(&self, duration: Duration, count: u64) {
        if count == 0 {
            return;
        }
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let place = self.used().partition_point(|bound| *bound < ns);
        if let Some(counter) = self.counts.get(place) {
            counter.fetch_add(count, Ordering::Relaxed);
        }
        self.sum_ns.fetch_add(ns.saturating_mul(count), Ordering::Relaxed);
    }

    /// What was counted so far.
    #[must_use]
    pub fn snapshot(&self) -> HistogramSnapshot {
        let sum_ns = self.sum_ns.load(Ordering::Relaxed);
        let mut count = 0;
        let mut buckets = Vec::with_capacity(self.used().len());
        for (place, counter) in self.counts.iter().take(self.used().len() + 1).enumerate() {
            count += counter.load(Ordering::Relaxed);
            if let Some(bound) = self.used().get(place) {
                buckets.push((*bound, count));
            }
        }
        HistogramSnapshot { buckets, count, sum_ns }
    }

    fn used(&self) -> &'static [u64] {
        self.bounds.get(..BOUNDS_MAX).unwrap_or(self.bounds)
    }
}

impl HistogramSnapshot {
    /// Adds what another one with the same bounds has counted.
    pub fn add(&mut self, other: &Self) {
        if self.buckets.is_empty() {
            self.clone_from(other);
            return;
        }
        for ((_, count), (_, more)) in self.buckets.iter_mut().zip(&other.buckets) {
            *count += more;
        }
        self.count += other.count;
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: &[u64] = &[1_000, 5_000];

    #[test]
    fn a_duration_counts_at_its_bound_and_in_all_above() {
        let histogram = Histogram::new(BOUNDS);
        histogram.observe(Duration::from_nanos(1_000));
        histogram.observe(Duration::from_nanos(1_001));
        histogram.observe_many(Duration::from_nanos(5_001), 3);
        histogram.observe_many(Duration::from_secs(1), 0);
        let expected = HistogramSnapshot {
            buckets: vec![(1_000, 1), (5_000, 2)],
            count: 5,
            sum_ns: 1_000 + 1_001 + 3 * 5_001,
        };
        assert_eq!(histogram.snapshot(), expected);
    }

    #[test]
    fn a_duration_beyond_all_numbers_counts_as_the_longest() {
        let histogram = Histogram::new(BOUNDS);
        histogram.observe(Duration::MAX);
        let snapshot = histogram.snapshot();
        assert_eq!((snapshot.count, snapshot.sum_ns), (1, u64::MAX));
        assert_eq!(snapshot.buckets, [(1_000, 0), (5_000, 0)]);
    }

    #[test]
    fn bounds_have_a_number() {
        const MANY: &[u64] = &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17];
        let histogram = Histogram::new(MANY);
        histogram.observe(Duration::from_nanos(17));
        let snapshot = histogram.snapshot();
        assert_eq!((snapshot.buckets.len(), snapshot.count), (BOUNDS_MAX, 1));
        assert_eq!(snapshot.buckets.last(), Some(&(16, 0)));
    }

    #[test]
    fn those_of_the_same_bounds_add_up() {
        let (one, other) = (Histogram::new(BOUNDS), Histogram::new(BOUNDS));
        one.observe(Duration::from_nanos(10));
        other.observe(Duration::from_nanos(2_000));
        let mut sum = HistogramSnapshot::default();
        sum.add(&one.snapshot());
        sum.add(&other.snapshot());
        assert_eq!(sum.buckets, [(1_000, 1), (5_000, 2)]);
        assert_eq!((sum.count, sum.sum_ns), (2, 2_010));
    }
}
