//! `[alarms]`: what is worth an alarm.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{ByteSize, Period};

/// What is worth an alarm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Alarms {
    /// Whether there are alarms at all. Default true.
    pub enabled: bool,
    /// Time between two looks. Default 5 s, range 1 s to 1 h.
    pub interval: Period,
    /// The oldest item in the queue of an action has waited so long; 0: no alarm. Default 5 min, range 0 to 365 days.
    pub queue_age: Period,
    /// The queue of an action will be full within this time, at the pace of the last minute; 0: no alarm. Default 15 min, range 0
    /// to 365 days.
    pub queue_full_within: Period,
    /// The far side of an action has taken nothing for so long; 0: no alarm. Default 30 s, range 0 to 365 days.
    pub sink_down: Period,
    /// A listener's certificate expires within this time; 0: no alarm. Default 14 days, range 0 to 365 days.
    pub certificate_expiry: Period,
    /// Less is free on the store's disk; 0: no alarm. Default 256 MiB, range 0 to 1 TiB.
    pub disk_free: ByteSize,
    /// A rule failed so often within a minute; 0: no alarm. Default 10, range 0 to 1,000,000.
    pub rule_errors: u32,
    /// So many messages came to a rule and none has passed; 0: no alarm. Default 10,000, range 0 to 1,000,000,000.
    pub rule_silent: u32,
}

impl Default for Alarms {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Period::secs(5),
            queue_age: Period::secs(300),
            queue_full_within: Period::secs(900),
            sink_down: Period::secs(30),
            certificate_expiry: Period::days(14),
            disk_free: ByteSize::mib(256),
            rule_errors: 10,
            rule_silent: 10_000,
        }
    }
}
