//! When a failed item is tried again.

use std::time::Duration;

use crate::config::RetryConfig;

/// Returns the pause after the `failures`-th failure in a row (1 for the first): evenly distributed between zero and
/// `initial · 2^(failures-1)`, at most the configured ceiling. "Full jitter": items that failed together come back
/// apart.
pub(crate) fn backoff(config: &RetryConfig, failures: u32, random: &mut fastrand::Rng) -> Duration {
    let ceiling = ceiling(config, failures);
    let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(random.u64(0..=nanos))
}

/// Returns the longest pause after the `failures`-th failure in a row.
pub(crate) fn ceiling(config: &RetryConfig, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    config.initial_backoff.saturating_mul(1 << doublings).min(config.max_backoff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_limit() {
        let config = RetryConfig {
            initial_backoff: Duration::from_millis(500),
            max_backoff: Duration::from_secs(60),
            ..RetryConfig::default()
        };
        let ceilings: Vec<u128> = (1..=9).map(|n| ceiling(&config, n).as_millis()).collect();
        assert_eq!(ceilings, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(ceiling(&config, u32::MAX), Duration::from_secs(60));
    }

    #[test]
    fn jitter_covers_the_whole_range_and_repeats_for_a_seed() {
        let config = RetryConfig::default();
        let pauses = |seed| {
            let mut random = fastrand::Rng::with_seed(seed);
            (0..1_000).map(|_| backoff(&config, 3, &mut random)).collect::<Vec<_>>()
        };
        let seen = pauses(7);
        assert_eq!(seen, pauses(7));
        assert_ne!(seen, pauses(8));
        let limit = ceiling(&config, 3);
        assert!(seen.iter().all(|pause| *pause <= limit));
        assert!(seen.iter().any(|pause| *pause < limit / 10));
        assert!(seen.iter().any(|pause| *pause > limit - limit / 10));
    }
}
