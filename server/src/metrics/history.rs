//! The main figures of the last day, in memory of a fixed size, and kept over a restart by `kept`.
//!
//! One sample every [`STEP_S`] seconds is kept for an hour, one a minute for a day. A counter is kept as it stood: who draws it takes
//! differences, and sees a restart as a value that is lower than the one before.

use std::collections::VecDeque;

use broker::Stats;
use utoipa::ToSchema;

use crate::rules::RuleTotals;

/// Seconds between two samples.
pub(crate) const STEP_S: u64 = 10;
/// Samples of the last hour.
const FINE_KEPT: usize = 360;
/// Samples of the last day, one a minute.
pub(super) const COARSE_KEPT: usize = 1_440;
/// So many samples make a minute.
const PER_MINUTE: u64 = 6;

/// The names of the figures, and whether they only grow.
pub(crate) const SERIES: [(&str, bool); 18] = [
    ("messages_received", true),
    ("messages_delivered", true),
    ("messages_dropped", true),
    ("messages_refused", true),
    ("bytes_received", true),
    ("bytes_sent", true),
    ("connections", false),
    ("sessions", false),
    ("subscriptions", false),
    ("retained_messages", false),
    ("queued_memory_bytes", false),
    ("rules_matched", true),
    ("rules_passed", true),
    ("rules_failed", true),
    ("actions_delivered", true),
    ("actions_failed", true),
    ("actions_queued", false),
    ("store_bytes", false),
];

/// The figures of one moment, in the order of [`SERIES`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Milliseconds since the epoch.
    pub(crate) at_ms: i64,
    pub(crate) values: [u64; SERIES.len()],
}

impl Sample {
    pub(crate) fn new(at_ms: i64, stats: &Stats, rules: &RuleTotals, store_bytes: u64) -> Self {
        let dropped: u64 = stats.dropped_by_reason().iter().map(|(_, count)| count).sum();
        let values = [
            stats.messages_received,
            stats.messages_delivered,
            dropped,
            stats.messages_refused,
            stats.bytes_received,
            stats.bytes_sent,
            stats.connections,
            stats.sessions,
            stats.subscriptions,
            stats.retained_messages,
            stats.queued_memory_bytes,
            rules.matched,
            rules.passed,
            rules.failed,
            rules.delivered,
            rules.lost,
            rules.queued,
            store_bytes,
        ];
        Self { at_ms, values }
    }
}

/// Which samples are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Resolution {
    /// Every ten seconds, for an hour.
    Fine,
    /// Every minute, for a day.
    Minute,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct History {
    fine: VecDeque<Sample>,
    coarse: VecDeque<Sample>,
    taken: u64,
}

impl History {
    /// A history that goes on from these samples, one a minute.
    pub(super) fn after(coarse: Vec<Sample>) -> Self {
        Self { coarse: coarse.into(), ..Self::default() }
    }

    /// Adds a sample. Returns whether it counts as one of a minute, too.
    pub(crate) fn push(&mut self, sample: Sample) -> bool {
        let is_of_a_minute = self.taken.is_multiple_of(PER_MINUTE);
        if is_of_a_minute {
            keep(&mut self.coarse, sample, COARSE_KEPT);
        }
        keep(&mut self.fine, sample, FINE_KEPT);
        self.taken += 1;
        is_of_a_minute
    }

    /// Samples from a time on, oldest first.
    pub(crate) fn since(&self, from_ms: i64, resolution: Resolution) -> Vec<Sample> {
        let samples = match resolution {
            Resolution::Fine => &self.fine,
            Resolution::Minute => &self.coarse,
        };
        samples.iter().filter(|sample| sample.at_ms >= from_ms).copied().collect()
    }
}

fn keep(samples: &mut VecDeque<Sample>, sample: Sample, kept: usize) {
    if samples.len() >= kept {
        samples.pop_front();
    }
    samples.push_back(sample);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(number: i64) -> Sample {
        Sample { at_ms: number * 10_000, values: [0; SERIES.len()] }
    }

    #[test]
    fn an_hour_is_kept_fine_and_a_day_by_the_minute_and_no_more() {
        let mut history = History::default();
        let all = (COARSE_KEPT + 5) * 6;
        for number in 0..i64::try_from(all).unwrap() {
            history.push(sample(number));
        }
        let (fine, coarse) =
            (history.since(i64::MIN, Resolution::Fine), history.since(i64::MIN, Resolution::Minute));
        assert_eq!((fine.len(), coarse.len()), (FINE_KEPT, COARSE_KEPT));
        let last = i64::try_from(all).unwrap() - 1;
        assert_eq!(fine.last().unwrap().at_ms, last * 10_000);
        assert_eq!(fine[0].at_ms, (last - 359) * 10_000);
        assert_eq!(coarse.last().unwrap().at_ms - coarse[0].at_ms, 1_439 * 60_000);
        assert_eq!(history.since(last * 10_000, Resolution::Fine).len(), 1);
        assert!(history.since(i64::MAX, Resolution::Fine).is_empty());
    }

    #[test]
    fn each_figure_stands_in_its_place() {
        let stats = Stats::default();
        let rules = RuleTotals { matched: 1, passed: 2, failed: 3, delivered: 4, lost: 5, queued: 6 };
        let sample = Sample::new(7, &stats, &rules, 8);
        let value = |name: &str| sample.values[SERIES.iter().position(|(other, _)| *other == name).unwrap()];
        let names = [
            "rules_matched",
            "rules_passed",
            "rules_failed",
            "actions_delivered",
            "actions_failed",
            "actions_queued",
            "store_bytes",
        ];
        assert_eq!(names.map(value), [1, 2, 3, 4, 5, 6, 8]);
    }
}
