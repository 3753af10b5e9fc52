//! What is counted, per rule and per action.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use actions::Snapshot;

/// A counter that any thread may raise.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn raise(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Lets one log line through in a while, so that a busy rule that fails can't fill the log.
#[derive(Debug)]
pub(super) struct LogGate(AtomicI64);

impl Default for LogGate {
    fn default() -> Self {
        Self(AtomicI64::new(i64::MIN))
    }
}

impl LogGate {
    const PAUSE_MS: i64 = 10_000;

    pub(super) fn opens(&self, now_ms: i64) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        let due = now_ms.saturating_sub(last) >= Self::PAUSE_MS || now_ms < last;
        due && self.0.compare_exchange(last, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[derive(Debug, Default)]
pub(super) struct RuleCounters {
    pub(super) passed: Counter,
    pub(super) no_match: Counter,
    pub(super) no_output: Counter,
    pub(super) failed_evaluation: Counter,
    pub(super) looped: Counter,
    pub(super) error_actions: Counter,
    pub(super) error_actions_failed: Counter,
    pub(super) log: LogGate,
}

#[derive(Debug, Default)]
pub(super) struct ActionCounters {
    pub(super) requests: Counter,
    pub(super) failed_render: Counter,
    pub(super) hop_limited: Counter,
    pub(super) refused: Counter,
}

/// The counters of one rule since it was first loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuleStats {
    /// Name of the rule.
    pub name: String,
    /// Messages on a topic that FROM matches: the sum of the next five.
    pub matched: u64,
    /// Messages that WHERE let pass and that gave an output.
    pub passed: u64,
    /// Messages that WHERE held back.
    pub no_match: u64,
    /// Messages that passed, but whose `SELECT VALUE` was Undefined: no action ran.
    pub no_output: u64,
    /// Messages for which evaluation went past a budget.
    pub failed_evaluation: u64,
    /// Messages that this rule had a part in making, and that it therefore left alone.
    pub looped: u64,
    /// Times that the error action was set off, by messages that were admitted.
    pub error_actions: u64,
    /// Times that the error action itself failed.
    pub error_actions_failed: u64,
    /// The actions in order, the error action last.
    pub actions: Vec<ActionStats>,
}

/// The counters of one action since it was first loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ActionStats {
    /// Name of the action.
    pub name: String,
    /// Its `type`.
    pub kind: &'static str,
    /// Requests that went to the queue, those that it dropped at once included; of a republish, those handed to the
    /// broker.
    pub requests: u64,
    /// Messages for which a template failed or gave a value that didn't fit.
    pub failed_render: u64,
    /// Republishes held back because the message had been through too many rules.
    pub hop_limited: u64,
    /// Requests that the broker refused to publish, or that the queue was not made for.
    pub refused: u64,
    /// Queue, deliveries and drops; `None` for a republish.
    pub delivery: Option<Snapshot>,
}
