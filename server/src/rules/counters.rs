//! What is counted, per rule and per action.

use std::cell::Cell;
use std::fmt::Display;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actions::Snapshot;
use parking_lot::Mutex;
use rules_sql::EvalError;
use store::{Histogram, HistogramSnapshot};

/// Bounds for the time that an evaluation takes, in nanoseconds: from a comparison to a rule that holds its connection up.
const EVALUATION_BOUNDS: &[u64] = &[
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    5_000_000,
    25_000_000,
    100_000_000,
];

/// Most bytes of an error's words that are kept.
pub const ERROR_TEXT_BYTES_MAX: usize = 512;
/// Most bytes of its topic.
pub const ERROR_TOPIC_BYTES_MAX: usize = 256;

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

/// Where a rule failed for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// While its statement was evaluated.
    Evaluation,
    /// While a request was made of the output.
    Template,
    /// When an action was to take it.
    Action,
    /// When its error action was to run.
    ErrorAction,
}

impl Stage {
    /// Its name in answers and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Evaluation => "evaluation",
            Self::Template => "template",
            Self::Action => "action",
            Self::ErrorAction => "error_action",
        }
    }
}

/// The last failure of a rule, cut to a bounded size.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ErrorSample {
    /// Where it failed.
    pub stage: Stage,
    /// What went wrong, in words: at most [`ERROR_TEXT_BYTES_MAX`] bytes.
    pub error: String,
    /// Topic of the message: at most [`ERROR_TOPIC_BYTES_MAX`] bytes; empty where nobody knows it any more.
    pub topic: String,
    /// When the message was received, milliseconds since the epoch.
    pub at_ms: i64,
}

fn cut(text: &str, bytes_max: usize) -> String {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or_default().to_owned()
}

/// When a rule let a message pass last, and what went wrong last.
#[derive(Debug)]
pub(super) struct Last {
    match_ms: AtomicI64,
    error: Mutex<Option<ErrorSample>>,
}

impl Default for Last {
    fn default() -> Self {
        Self { match_ms: AtomicI64::new(i64::MIN), error: Mutex::default() }
    }
}

impl Last {
    pub(super) fn matched(&self, at_ms: i64) {
        self.match_ms.store(at_ms, Ordering::Relaxed);
    }

    pub(super) fn match_ms(&self) -> Option<i64> {
        Some(self.match_ms.load(Ordering::Relaxed)).filter(|at_ms| *at_ms != i64::MIN)
    }

    /// Keeps a failure as the last. One that comes while another is being kept isn't waited for.
    pub(super) fn failed(&self, stage: Stage, error: &dyn Display, topic: &str, at_ms: i64) {
        let sample = || ErrorSample {
            stage,
            error: cut(&error.to_string(), ERROR_TEXT_BYTES_MAX),
            topic: cut(topic, ERROR_TOPIC_BYTES_MAX),
            at_ms,
        };
        if let Some(mut last) = self.error.try_lock() {
            *last = Some(sample());
        }
    }

    pub(super) fn error(&self) -> Option<ErrorSample> {
        self.error.lock().clone()
    }
}

thread_local! {
    /// Evaluations of this thread until the next one that is timed.
    static UNTIL_TIMED: Cell<u32> = const { Cell::new(0) };
}

/// Whether this evaluation is one to be timed: one in `every` of each thread's, none where that is 0.
pub(super) fn is_timed(every: u32) -> bool {
    if every == 0 {
        return false;
    }
    let left = UNTIL_TIMED.get();
    UNTIL_TIMED.set(if left == 0 { every - 1 } else { left - 1 });
    left == 0
}

/// How long evaluations took. Most rules are never timed, so there is nothing before the first.
#[derive(Debug, Default)]
pub(super) struct EvaluationTimes(OnceLock<Box<Histogram>>);

impl EvaluationTimes {
    pub(super) fn observe(&self, took: Duration) {
        self.0.get_or_init(|| Box::new(Histogram::new(EVALUATION_BOUNDS))).observe(took);
    }

    pub(super) fn snapshot(&self) -> HistogramSnapshot {
        self.0.get().map_or_else(|| Histogram::new(EVALUATION_BOUNDS).snapshot(), |times| times.snapshot())
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
    pub(super) last: Last,
    pub(super) times: EvaluationTimes,
}

#[derive(Debug, Default)]
pub(super) struct ActionCounters {
    pub(super) requests: Counter,
    pub(super) failed_render: Counter,
    pub(super) hop_limited: Counter,
    pub(super) refused: Counter,
    pub(super) backpressure: Counter,
}

/// The counters of all rules that run, and of their actions, added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RuleTotals {
    /// Messages that came to rules.
    pub matched: u64,
    /// Messages that passed.
    pub passed: u64,
    /// Failed evaluations, and messages for which an action got no request.
    pub failed: u64,
    /// Requests that far sides confirmed.
    pub delivered: u64,
    /// Requests that became dead letters or were dropped.
    pub lost: u64,
    /// Requests that wait or are under way.
    pub queued: u64,
}

impl RuleTotals {
    /// Adds those of one rule.
    pub(super) fn add(&mut self, rule: &RuleStats) {
        self.matched += rule.matched;
        self.passed += rule.passed;
        self.failed += rule.failed_evaluation;
        for action in &rule.actions {
            self.failed += action.failed_render + action.hop_limited + action.refused + action.backpressure;
            if let Some(delivery) = &action.delivery {
                self.delivered += delivery.delivered;
                self.lost += delivery.dead_lettered_total() + delivery.dropped_total();
                self.queued += delivery.queued + delivery.in_flight;
            }
        }
    }
}

/// The counters of one rule since it was first loaded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RuleStats {
    /// Name of the rule.
    pub name: String,
    /// Its number, in the order in which rules were first loaded.
    pub number: u32,
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
    /// When a message passed last, milliseconds since the epoch.
    pub last_match_at_ms: Option<i64>,
    /// What went wrong last.
    pub last_error: Option<ErrorSample>,
    /// How long evaluations took, of those that were timed.
    pub evaluation: HistogramSnapshot,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_last_error_a_bounded_sample_is_kept() {
        let last = Last::default();
        assert_eq!((last.match_ms(), last.error()), (None, None));
        let (error, topic) = ("e".repeat(ERROR_TEXT_BYTES_MAX), "t".repeat(ERROR_TOPIC_BYTES_MAX));
        last.failed(Stage::Template, &error, &topic, 7);
        let kept = last.error().unwrap();
        assert_eq!((&kept.error, &kept.topic, kept.at_ms), (&error, &topic, 7));
        last.failed(Stage::Action, &format!("{error}x"), &format!("x{topic}"), 8);
        let kept = last.error().unwrap();
        assert_eq!((kept.stage, kept.error.len(), kept.topic.len()), (Stage::Action, 512, 256));
        // A character of two bytes across the limit is left out as a whole.
        last.failed(Stage::Action, &format!("{}ä", "e".repeat(511)), "", 9);
        assert_eq!(last.error().unwrap().error.len(), 511);
    }

    #[test]
    fn one_evaluation_in_so_many_is_timed() {
        std::thread::spawn(|| {
            let timed = |every, count: usize| (0..count).filter(|_| is_timed(every)).count();
            assert_eq!(timed(64, 640), 10);
            assert_eq!(timed(0, 1_000), 0);
            assert_eq!(timed(1, 5), 5);
        })
        .join()
        .unwrap();
    }
}
