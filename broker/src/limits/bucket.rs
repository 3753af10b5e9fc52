//! Token buckets, without a clock of their own.
//!
//! A bucket is one number: the moment until which everything taken is paid for at the rate. It may lie ahead of now, which is
//! a debt: a packet larger than what a second allows goes through, and what follows waits longer. A bucket that wasn't used for a
//! while allows what [`BURST`] of time is worth at once, not more.

use std::time::Duration;

use parking_lot::Mutex;

/// What may be saved up.
pub(super) const BURST: Duration = Duration::from_secs(1);

const NANOS_PER_MS: u64 = 1_000_000;
const NANOS_PER_S: u128 = 1_000_000_000;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    per_second: u64,
    paid_until_ns: u64,
}

impl Bucket {
    /// A bucket that is full. `None`: a rate of zero, which is no limit.
    pub(super) fn new(per_second: u64) -> Option<Self> {
        (per_second > 0).then_some(Self { per_second, paid_until_ns: 0 })
    }

    /// Takes tokens.
    pub(super) fn take(&mut self, tokens: u64, now_ms: u64) {
        let now_ns = now_ms.saturating_mul(NANOS_PER_MS);
        let burst_ns = u64::try_from(BURST.as_nanos()).unwrap_or(u64::MAX);
        let cost_ns = u128::from(tokens) * NANOS_PER_S / u128::from(self.per_second);
        self.paid_until_ns = self
            .paid_until_ns
            .max(now_ns.saturating_sub(burst_ns))
            .saturating_add(u64::try_from(cost_ns).unwrap_or(u64::MAX));
    }

    /// When the debt is paid, on the broker's clock; in the past if there is none.
    pub(super) fn paid_at_ms(&self) -> u64 {
        self.paid_until_ns.div_ceil(NANOS_PER_MS)
    }
}

/// A bucket that several tasks take from.
#[derive(Debug)]
pub(crate) struct SharedBucket(Option<Mutex<Bucket>>);

impl SharedBucket {
    /// A bucket that is full; zero: no limit.
    pub(crate) fn new(per_second: u32) -> Self {
        Self(Bucket::new(u64::from(per_second)).map(Mutex::new))
    }

    /// Takes one token; returns how long to wait before the next.
    pub(crate) fn take(&self, now_ms: u64) -> Duration {
        let Some(bucket) = &self.0 else { return Duration::ZERO };
        let mut bucket = bucket.lock();
        bucket.take(1, now_ms);
        Duration::from_millis(bucket.paid_at_ms().saturating_sub(now_ms))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_bucket_gives_a_second_at_once_and_then_the_rate() {
        let now_ms = 5_000;
        let mut bucket = Bucket::new(10).unwrap();
        for _ in 0..10 {
            bucket.take(1, now_ms);
            assert!(bucket.paid_at_ms() <= now_ms, "the burst");
        }
        bucket.take(1, now_ms);
        assert_eq!(bucket.paid_at_ms(), now_ms + 100, "one past it");
        bucket.take(1, now_ms + 100);
        assert_eq!(bucket.paid_at_ms(), now_ms + 200, "and so on");
    }

    #[test]
    fn what_is_larger_than_the_rate_goes_through_and_is_paid_for() {
        let mut bucket = Bucket::new(1_000).unwrap();
        bucket.take(5_000, 5_000);
        assert_eq!(bucket.paid_at_ms(), 9_000);
    }

    #[test]
    fn no_rate_is_no_bucket() {
        assert!(Bucket::new(0).is_none());
        assert_eq!(SharedBucket::new(0).take(1), Duration::ZERO);
    }

    proptest! {
        /// Whoever waits for his debts never gets more than the burst and the rate together, and never much less.
        #[test]
        fn a_patient_taker_gets_the_rate(
            per_second in 1u64..2_000_000,
            sizes in prop::collection::vec(1u64..5_000, 1..300),
        ) {
            let start_ms = 10_000;
            let mut now_ms = start_ms;
            let mut bucket = Bucket::new(per_second).unwrap();
            let mut taken = 0u64;
            for size in &sizes {
                let before = taken;
                let elapsed_ms = now_ms - start_ms;
                // A millisecond for the rounding of moments.
                prop_assert!(before <= per_second + per_second * (elapsed_ms + 1) / 1_000 + 1);
                bucket.take(*size, now_ms);
                taken += size;
                now_ms = now_ms.max(bucket.paid_at_ms());
            }
            let elapsed_ms = now_ms - start_ms;
            // It waited for no more than was taken beyond the burst.
            prop_assert!(elapsed_ms <= (taken * 1_000).div_ceil(per_second) + sizes.len() as u64);
        }
    }
}
