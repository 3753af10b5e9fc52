//! `[metrics]`: what is measured beside what is always counted.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::Period;

/// Most filters whose messages are counted.
pub const METERED_TOPICS_MAX: usize = broker::METERS_MAX;

/// What is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// One evaluation of a rule in so many is timed; 0: none. Default 64, range 0 to 1,000,000.
    pub rule_sample: u32,
    /// Rules that have values of their own at `/metrics`; those loaded later share the label `_other`. Default 1,000, range 1 to
    /// 100,000.
    pub max_rules: u32,
    /// Topic Filters whose messages are counted, at most 64. Default: none.
    #[schemars(length(max = 64))]
    pub topics: Vec<String>,
    /// Topics, and as many clients, that publish most and are named; 0: none. Default 0, range 0 to 1,000.
    pub heavy_hitters: u16,
    /// One publish in so many is looked at for that. Default 64, range 1 to 1,000,000.
    pub heavy_hitters_sample: u32,
    /// Clients that are slow to take their messages and are named; 0: none. Default 10, range 0 to 1,000.
    pub slow_subscribers: u16,
    /// How long a message waits before its client is called slow. Default 1 s, range 100 ms to 1 day.
    pub slow_after: Period,
    /// Whether the main figures of the last day are kept. Default true.
    pub history: bool,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            rule_sample: 64,
            max_rules: 1_000,
            topics: Vec::new(),
            heavy_hitters: 0,
            heavy_hitters_sample: 64,
            slow_subscribers: 10,
            slow_after: Period::secs(1),
            history: true,
        }
    }
}
