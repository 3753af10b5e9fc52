//! The counters of a rule as answers show them: what became of every message and of every request.

use actions::DropReason;
use actions::Snapshot;
use actions::delivery::CircuitState;
use serde_json::{Map, Value, json};

use crate::rules::{ActionStats, ErrorSample, RuleStats};

pub(super) fn of_rule(stats: &RuleStats) -> Value {
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
        "last_match_at_ms": stats.last_match_at_ms,
        "last_error": stats.last_error.as_ref().map(last_error),
        "actions": stats.actions.iter().map(action).collect::<Vec<_>>(),
    })
}

fn last_error(sample: &ErrorSample) -> Value {
    json!({
        "stage": sample.stage.as_str(),
        "error": sample.error,
        "topic": sample.topic,
        "at_ms": sample.at_ms,
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rules_sql::Limits;

    use super::*;
    use crate::rules::{PipelineSettings, RulePipeline, RuleSet};

    #[test]
    fn what_was_counted_is_told_member_by_member() {
        let action = ActionStats {
            name: "a0".to_owned(),
            kind: "republish",
            requests: 4,
            failed_render: 1,
            ..ActionStats::default()
        };
        let stats = RuleStats {
            name: "cold".to_owned(),
            matched: 9,
            passed: 5,
            no_match: 4,
            actions: vec![action],
            ..RuleStats::default()
        };
        let expected = json!({
            "name": "cold", "matched": 9, "passed": 5, "no_match": 4, "no_output": 0, "failed_evaluation": 0,
            "failed_steps": 0, "failed_array_steps": 0, "failed_output_bytes": 0, "looped": 0, "error_actions": 0,
            "error_actions_failed": 0, "last_match_at_ms": null, "last_error": null, "actions": [{
                "name": "a0", "type": "republish", "requests": 4, "failed_render": 1, "hop_limited": 0, "refused": 0,
                "backpressure": 0, "delivery": null,
            }],
        });
        assert_eq!(of_rule(&stats), expected);
    }

    #[tokio::test]
    async fn every_counter_is_described() {
        let text = "[rules.r]\nsql = \"SELECT * FROM 'in'\"\n\
                    [[rules.r.actions]]\nname = \"ops\"\ntype = \"http\"\nurl = \"https://ops.example\"\n";
        let rules = RuleSet::from_texts([(Path::new("r.toml"), text)], &Limits::default()).unwrap();
        let pipeline = RulePipeline::new(&rules, &PipelineSettings::default()).unwrap();
        let counted = of_rule(&pipeline.stats()[0]);
        assert!(counted["actions"][0]["delivery"].is_object());
        let page = include_str!("../../../docs/cli.md");
        for member in members(&counted) {
            assert!(page.contains(&format!("`{member}`")), "{member}");
        }
    }

    /// The names of all members, at any depth.
    fn members(value: &Value) -> Vec<String> {
        match value {
            Value::Object(object) => object
                .iter()
                .flat_map(|(name, value)| std::iter::once(name.clone()).chain(members(value)))
                .collect(),
            Value::Array(values) => values.iter().flat_map(members).collect(),
            _ => Vec::new(),
        }
    }
}
