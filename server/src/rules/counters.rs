//! What is counted, per rule and per action.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use actions::Snapshot;
use parking_lot::Mutex;
use rules_sql::EvalError;

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

/// How many messages came to a rule, read off the counter that it shares with the rules on the same filters: that counter's
/// value less its value when the rule joined, and what was counted in other groups before.
#[derive(Debug, Default)]
pub(super) struct Matched(Mutex<Membership>);

#[derive(Debug, Default)]
struct Membership {
    before: u64,
    /// The shared counter, and its value when the rule joined.
    group: Option<(Arc<Counter>, u64)>,
}

impl Membership {
    fn value(&self) -> u64 {
        // A counter only grows.
        let here = self.group.as_ref().map_or(0, |(counter, joined)| counter.value().saturating_sub(*joined));
        self.before + here
    }
}

impl Matched {
    /// Counts with the given group from now on, or no more. To stay in a group changes nothing.
    pub(super) fn join(&self, group: Option<&Arc<Counter>>) {
        let mut membership = self.0.lock();
        let stays = match (&membership.group, group) {
            (Some((old, _)), Some(new)) => Arc::ptr_eq(old, new),
            (old, new) => old.is_none() && new.is_none(),
        };
        if !stays {
            membership.before = membership.value();
            membership.group = group.map(|counter| (Arc::clone(counter), counter.value()));
        }
    }

    pub(super) fn value(&self) -> u64 {
        self.0.lock().value()
    }
}

/// Messages for which evaluation went past a budget or panicked, in all, and by budget.
#[derive(Debug, Default)]
pub(super) struct FailedEvaluations {
    pub(super) all: Counter,
    pub(super) steps: Counter,
    pub(super) array_steps: Counter,
    pub(super) output_bytes: Counter,
}

impl FailedEvaluations {
    /// Counts one that panicked: no budget was met.
    pub(super) fn raise_for_panic(&self) {
        self.all.raise();
    }

    pub(super) fn raise(&self, error: &EvalError) {
        self.all.raise();
        match error {
            EvalError::Steps { .. } => self.steps.raise(),
            EvalError::ArraySteps { .. } => self.array_steps.raise(),
            EvalError::OutputBytes { .. } => self.output_bytes.raise(),
            // A budget that has no counter of its own yet.
            _ => {}
        }
    }
}

/// What WHERE holds back isn't counted but told from the rest, so that it costs nothing.
#[derive(Debug, Default)]
pub(super) struct RuleCounters {
    pub(super) matched: Matched,
    pub(super) passed: Counter,
    pub(super) no_output: Counter,
    pub(super) failed: FailedEvaluations,
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
    pub(super) backpressure: Counter,
}

/// The counters of one rule since it was first loaded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RuleStats {
    /// Name of the rule.
    pub name: String,
    /// Messages on a topic that FROM matches: the sum of the next five.
    pub matched: u64,
    /// Messages that WHERE let pass and that gave an output.
    pub passed: u64,
    /// Messages that WHERE held back; one whose turn is still to come counts here until then.
    pub no_match: u64,
    /// Messages that passed, but whose `SELECT VALUE` was Undefined: no action ran.
    pub no_output: u64,
    /// Messages for which evaluation went past a budget, or panicked.
    pub failed_evaluation: u64,
    /// Messages that WHERE might have let pass, but that this rule had a part in making: it left them alone.
    pub looped: u64,
    /// Of the failed evaluations, those that took more steps than allowed.
    pub failed_steps: u64,
    /// Of the failed evaluations, those that visited more array elements than allowed.
    pub failed_array_steps: u64,
    /// Of the failed evaluations, those whose output, or a value on the way to it, was longer than allowed.
    pub failed_output_bytes: u64,
    /// Times that the error action was set off, by messages that were admitted.
    pub error_actions: u64,
    /// Times that the error action itself failed.
    pub error_actions_failed: u64,
    /// The actions in order, the error action last.
    pub actions: Vec<ActionStats>,
}

/// The counters of one action since it was first loaded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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
    /// Messages refused because the queue was full and its policy is to let publishers wait.
    pub backpressure: u64,
    /// Queue, deliveries and drops; `None` for a republish.
    pub delivery: Option<Snapshot>,
}
