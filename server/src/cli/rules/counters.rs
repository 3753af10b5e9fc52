//! `tidegate rules counters`: what became of every message and of every request in a gateway that runs.
//!
//! Figures are for people in tables, for programs as the gateway gives them.

use clap::Args;
use serde_json::Value;

use crate::admin::{AdminClientError, ApiClient};
use crate::cli::gateway::{GatewayArgs, pages, path};
use crate::cli::output::{Output, notice};
use crate::cli::table::in_columns;
use crate::cli::{ConfigArgs, Exit, Failure};
use crate::config::Environment;

#[derive(Debug, Args)]
pub(super) struct CountersArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// This rule alone.
    #[arg(value_name = "RULE")]
    rule: Option<String>,
    /// Print each rule as one JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(
    args: &CountersArgs,
    outer: &ConfigArgs,
    environment: &Environment,
) -> Result<Exit, Failure> {
    let mut client = args.gateway.api(outer, environment)?;
    let rules = fetch(&mut client, args.rule.as_deref())?;
    let out = Output::stdout();
    if args.json {
        rules.iter().try_for_each(|rule| out.json(rule))?;
    } else if rules.is_empty() {
        notice("no rules run");
    } else {
        out.bytes(text(&rules).as_bytes())?;
    }
    Ok(Exit::Success)
}

/// The counters of the rules that run, by name, or of the one that is named.
fn fetch(client: &mut ApiClient, rule: Option<&str>) -> Result<Vec<Value>, Failure> {
    let Some(name) = rule else {
        let filters = [("runs", Some("true")), ("details", Some("true"))];
        let (rules, _) = pages(client, &path(&["rules"]), &filters, "rules", u64::MAX)?;
        return Ok(rules.into_iter().filter_map(|mut rule| counters(rule.get_mut("details"))).collect());
    };
    let mut rule = match client.get(&path(&["rules", name])) {
        Err(AdminClientError::Refused { code, .. }) if code == "missing" => Value::Null,
        answer => answer?,
    };
    match counters(Some(&mut rule)) {
        Some(counters) => Ok(vec![counters]),
        None => Err(Failure::new(Exit::Denied, format!("no rule runs that is called \"{name}\""))),
    }
}

/// What is told of a rule that runs.
fn counters(of: Option<&mut Value>) -> Option<Value> {
    of?.get_mut("counters").map(Value::take).filter(Value::is_object)
}

const OF_RULES: [&str; 8] =
    ["RULE", "MATCHED", "PASSED", "NO MATCH", "NO OUTPUT", "FAILED", "LOOPED", "ERROR ACTIONS"];

const OF_ACTIONS: [&str; 10] = [
    "ACTION",
    "TYPE",
    "AT START",
    "RECEIVED",
    "DELIVERED",
    "QUEUED",
    "DEAD LETTERS",
    "DROPPED",
    "ATTEMPTS",
    "CIRCUIT",
];

fn text(rules: &[Value]) -> String {
    let of_rules = rules.iter().map(|rule| {
        let members =
            ["matched", "passed", "no_match", "no_output", "failed_evaluation", "looped", "error_actions"];
        let mut row = OF_RULES.map(|_| name(rule, "name"));
        for (cell, member) in row.iter_mut().skip(1).zip(members) {
            *cell = number(rule, member).to_string();
        }
        row
    });
    let of_actions = rules.iter().flat_map(|rule| {
        let actions = rule.get("actions").and_then(Value::as_array).into_iter().flatten();
        actions.map(|action| of_action(&name(rule, "name"), action))
    });
    format!("{}\n{}", in_columns(OF_RULES, of_rules), in_columns(OF_ACTIONS, of_actions))
}

fn of_action(rule: &str, action: &Value) -> [String; OF_ACTIONS.len()] {
    let named = format!("{rule}/{}", name(action, "name"));
    let Some(delivery) = action.get("delivery").filter(|delivery| delivery.is_object()) else {
        let mut row = OF_ACTIONS.map(|_| "-".to_owned());
        // A republish has no queue: what it asked for was done.
        let known = [named, name(action, "type"), "-".to_owned(), number(action, "requests").to_string()];
        row.iter_mut().zip(known).for_each(|(cell, known)| *cell = known);
        return row;
    };
    let of = |member| number(delivery, member).to_string();
    [
        named,
        name(action, "type"),
        of("queued_at_start"),
        of("received"),
        of("delivered"),
        (number(delivery, "queued") + number(delivery, "in_flight")).to_string(),
        by_reason(delivery.get("dead_lettered")),
        by_reason(delivery.get("dropped")),
        of("attempts"),
        name(delivery, "circuit"),
    ]
}

/// How many in all, and for which reasons.
fn by_reason(counts: Option<&Value>) -> String {
    let counts: Vec<(&str, u64)> = counts
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(reason, count)| (reason.as_str(), count.as_u64().unwrap_or_default()))
        .collect();
    let total: u64 = counts.iter().map(|(_, count)| count).sum();
    if counts.is_empty() {
        return total.to_string();
    }
    let reasons: Vec<String> = counts.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    format!("{total} ({})", reasons.join(", "))
}

fn number(value: &Value, member: &str) -> u64 {
    value.get(member).and_then(Value::as_u64).unwrap_or_default()
}

fn name(value: &Value, member: &str) -> String {
    value.get(member).and_then(Value::as_str).unwrap_or("-").to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_are_shown_in_two_tables() {
        let rules = [json!({
            "name": "overheat", "matched": 70, "passed": 9, "no_match": 60, "no_output": 1, "failed_evaluation": 0,
            "looped": 0, "error_actions": 3,
            "actions": [
                { "name": "alarm", "type": "republish", "requests": 9, "delivery": null },
                { "name": "ops", "type": "http", "requests": 9, "delivery": {
                    "queued_at_start": 2, "received": 9, "delivered": 5, "queued": 2, "in_flight": 1, "attempts": 12,
                    "dead_lettered": { "refused": 2 }, "dropped": { "queue_full": 1 }, "circuit": "open",
                } },
            ],
        })];
        let expected = "\
RULE      MATCHED  PASSED  NO MATCH  NO OUTPUT  FAILED  LOOPED  ERROR ACTIONS
overheat  70       9       60        1          0       0       3

ACTION          TYPE       AT START  RECEIVED  DELIVERED  QUEUED  DEAD LETTERS   DROPPED           ATTEMPTS  CIRCUIT
overheat/alarm  republish  -         9         -          -       -              -                 -         -
overheat/ops    http       2         9         5          3       2 (refused 2)  1 (queue_full 1)  12        open
";
        assert_eq!(text(&rules), expected);
    }
}
