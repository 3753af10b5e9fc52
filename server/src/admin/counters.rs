//! The command about counters: what became of every message and of every request, rule by rule.
//!
//! An answer has so many rules as fit into it, by name; `next` says behind which to go on.

use std::ops::ControlFlow;

use actions::delivery::CircuitState;
use actions::{DropReason, Snapshot};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Services;
use super::dead_letters::LIST_BYTES_MAX;
use super::protocol::{Code, Refusal};
use crate::rules::{ActionStats, RuleStats};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CountersParams {
    /// This rule alone.
    rule: Option<String>,
    /// Rules behind this one.
    after: Option<String>,
}

impl Services {
    pub(super) fn counters(&self, params: &CountersParams) -> Result<Value, Refusal> {
        let mut rules = Vec::new();
        let mut bytes = 0;
        let next = self.rules.stats_after(params.after.as_deref(), &mut |stats| {
            if params.rule.as_ref().is_some_and(|rule| *rule != stats.name) {
                return ControlFlow::Continue(());
            }
            let rule = rule(&stats);
            bytes += rule.to_string().len();
            rules.push(rule);
            if bytes < LIST_BYTES_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        match &params.rule {
            Some(name) if rules.is_empty() => {
                Err(Refusal::new(Code::Missing, format!("no rule runs that is called \"{name}\"")))
            }
            _ => Ok(json!({ "since_ms": self.since_ms, "rules": rules, "next": next })),
        }
    }
}

pub(crate) fn rule(stats: &RuleStats) -> Value {
    json!({
        "name": stats.name,
        "matched": stats.matched,
        "passed": stats.passed,
        "no_match": stats.no_match,
        "no_output": stats.no_output,
        "failed_evaluation": stats.failed_evaluation,
        "failed_steps": stats.failed_steps,
        "failed_array_steps": stats.failed_array_steps,
        "failed_output_bytes": stats.failed_output_bytes,
        "looped": stats.looped,
        "error_actions": stats.error_actions,
        "error_actions_failed": stats.error_actions_failed,
        "actions": stats.actions.iter().map(action).collect::<Vec<_>>(),
    })
}

fn action(stats: &ActionStats) -> Value {
    json!({
        "name": stats.name,
        "type": stats.kind,
        "requests": stats.requests,
        "failed_render": stats.failed_render,
        "hop_limited": stats.hop_limited,
        "refused": stats.refused,
        "backpressure": stats.backpressure,
        "delivery": stats.delivery.as_ref().map(delivery),
    })
}

fn delivery(snapshot: &Snapshot) -> Value {
    let oldest_ms = snapshot.oldest_age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    json!({
        "queued_at_start": snapshot.queued_at_start,
        "received": snapshot.received,
        "delivered": snapshot.delivered,
        "queued": snapshot.queued,
        "in_flight": snapshot.in_flight,
        "dead_lettered": by_reason(&snapshot.dead_lettered),
        "dropped": by_reason(&snapshot.dropped),
        "attempts": snapshot.attempts,
        "retried": snapshot.retried,
        "letters_dropped": snapshot.letters_dropped,
        "memory_bytes": snapshot.bytes,
        "oldest_age_ms": oldest_ms,
        "circuit": match snapshot.health.circuit {
            CircuitState::Closed => "closed",
            CircuitState::HalfOpen => "half_open",
            CircuitState::Open => "open",
        },
        "failure": snapshot.health.cause,
    })
}

/// Those reasons that there was any of.
fn by_reason(counts: &[(DropReason, u64)]) -> Value {
    let counted = counts.iter().filter(|(_, count)| *count > 0);
    Value::Object(
        counted.map(|(reason, count)| (reason.as_str().to_owned(), (*count).into())).collect::<Map<_, _>>(),
    )
}
