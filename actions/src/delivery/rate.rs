//! How many calls of a sink may leave in a second.
//!
//! A bucket that fills evenly, kept as the one moment when it would be full again. It holds a tenth of a second's calls,
//! at least one: timers are too coarse to space thousands of calls a second one by one, and no second sees more than a
//! tenth above the cap.

use std::time::Duration;

use tokio::time::Instant;

/// Parts of a second whose calls may leave at once.
const BURSTS_PER_SECOND: u32 = 10;

/// The bucket of one action.
#[derive(Debug, Default)]
pub(crate) struct RateCap {
    /// When it is full again; `None`: it is.
    full_at: Option<Instant>,
}

impl RateCap {
    /// Until when no call may leave; `None`: one may now.
    pub(crate) fn blocked_until(&self, per_second: u32, now: Instant) -> Option<Instant> {
        let burst = (per_second / BURSTS_PER_SECOND).max(1);
        // All but one of the burst may be missing for one more to leave.
        let until = self.full_at?.checked_sub(spacing(per_second) * (burst - 1))?;
        (until > now).then_some(until)
    }

    /// A call leaves.
    pub(crate) fn spend(&mut self, per_second: u32, now: Instant) {
        let full_at = self.full_at.map_or(now, |at| at.max(now));
        self.full_at = Some(full_at + spacing(per_second));
    }
}

fn spacing(per_second: u32) -> Duration {
    Duration::from_secs(1) / per_second.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When each of `calls` leaves if all want to at once.
    fn departures(per_second: u32, calls: usize) -> Vec<Duration> {
        let began = Instant::now();
        let mut cap = RateCap::default();
        let mut now = began;
        let mut left = Vec::new();
        for _ in 0..calls {
            while let Some(until) = cap.blocked_until(per_second, now) {
                now = until;
            }
            cap.spend(per_second, now);
            left.push(now - began);
        }
        left
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_rate_is_spaced_evenly() {
        let seconds: Vec<u128> = departures(2, 5).iter().map(Duration::as_millis).collect();
        assert_eq!(seconds, [0, 500, 1_000, 1_500, 2_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_second_sees_more_than_a_tenth_above_the_cap() {
        for per_second in [1, 9, 10, 100, 1_000, 7_777] {
            let left = departures(per_second, per_second as usize * 3);
            let burst = (per_second / 10).max(1) as usize;
            for (i, first) in left.iter().enumerate() {
                let within = left[i..].iter().take_while(|at| **at - *first < Duration::from_secs(1)).count();
                assert!(within <= per_second as usize + burst, "{per_second}: {within}");
            }
            // And it is reached.
            let last = left.last().unwrap().as_secs_f64();
            assert!((2.5..3.0).contains(&last) || per_second == 1, "{per_second}: {last}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_saves_up_no_more_than_the_burst() {
        let mut cap = RateCap::default();
        let began = Instant::now();
        cap.spend(100, began);
        let later = began + Duration::from_secs(3_600);
        let mut at_once = 0;
        while cap.blocked_until(100, later).is_none() {
            cap.spend(100, later);
            at_once += 1;
        }
        assert_eq!(at_once, 10);
    }
}
