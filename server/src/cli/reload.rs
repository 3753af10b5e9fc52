//! `tidegate reload`: has a running gateway read its configuration and its rules again.

use clap::Args;
use serde_json::{Value, json};

use super::gateway::GatewayArgs;
use super::output::{Output, notice};
use super::{ConfigArgs, Exit, Failure};
use crate::admin::AdminClientError;
use crate::config::Environment;

#[derive(Debug, Args)]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Only say what would change.
    #[arg(long)]
    dry_run: bool,
    /// Print what changes as one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ReloadArgs, outer: &ConfigArgs, environment: &Environment) -> Result<Exit, Failure> {
    let mut client = args.gateway.connect(outer, environment)?;
    let told = match client.call("config.reload", json!({ "dry_run": args.dry_run })) {
        Ok(told) => told,
        Err(AdminClientError::Refused { code, message }) if code == "refused" => {
            let faults = message.lines().map(|line| format!("error: {line}\n")).collect::<String>();
            let text = format!("{faults}nothing was changed\n");
            return Err(Failure::rendered(Exit::Refused, text));
        }
        Err(error) => return Err(error.into()),
    };
    let out = Output::stdout();
    if args.json {
        out.json(&told)?;
        return Ok(Exit::Success);
    }
    for warning in list(&told, "warnings") {
        notice(&format!("warning: {}", warning.as_str().unwrap_or_default()));
    }
    for change in list(&told, "changes") {
        out.line(&line_of(change))?;
    }
    let rules = told.get("rules").unwrap_or(&Value::Null);
    for (member, sign) in [("added", '+'), ("changed", '~'), ("removed", '-')] {
        for rule in list(rules, member) {
            out.line(&format!("{sign} rule {}", rule.as_str().unwrap_or_default()))?;
        }
    }
    notice(if args.dry_run { "nothing was changed (--dry-run)" } else { "reloaded" });
    Ok(Exit::Success)
}

fn list<'v>(value: &'v Value, member: &str) -> &'v [Value] {
    value.get(member).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// `~ limits.max_inflight: 1024 -> 2048, needs a restart`
fn line_of(change: &Value) -> String {
    let key = change.get("key").and_then(Value::as_str).unwrap_or_default();
    let value = |member| change.get(member).filter(|value| !value.is_null()).map(Value::to_string);
    let mut line = match (value("before"), value("after")) {
        (Some(before), Some(after)) => format!("~ {key}: {before} -> {after}"),
        (None, Some(after)) => format!("+ {key}: {after}"),
        (Some(before), None) => format!("- {key}: {before}"),
        (None, None) => format!("~ {key}"),
    };
    if change.get("needs_restart").and_then(Value::as_bool) == Some(true) {
        line.push_str(", needs a restart");
    }
    line
}
