//! `tidegate reload`: has a running gateway read its configuration and its rules again.

use clap::Args;
use serde_json::Value;

use super::gateway::{GatewayArgs, path, query};
use super::output::{Output, notice};
use super::{ConfigArgs, Exit, Failure};
use crate::admin::AdminClientError;
use crate::config::Environment;
use crate::reload::Fault;

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
    let mut client = args.gateway.api(outer, environment)?;
    let dry_run = args.dry_run.then_some("true");
    let path = format!("{}{}", path(&["reload"]), query(&[("dry_run", dry_run)]));
    let told = match client.post(&path, &Value::Null) {
        Ok(told) => told,
        Err(AdminClientError::Refused { code, message, errors }) if code == "refused" => {
            return Err(refused(&message, errors));
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

/// Every fault that is named, as a configuration's faults are said, or else what is said of all.
fn refused(message: &str, errors: Vec<Value>) -> Failure {
    let mut text = String::new();
    for fault in errors.into_iter().filter_map(|fault| serde_json::from_value::<Fault>(fault).ok()) {
        text.push_str(&format!("error: {fault}\n"));
        if let Some(marked) = fault.help.as_deref().filter(|help| help.contains('\n')) {
            text.push_str(&format!("{}\n", marked.trim_end()));
        }
    }
    if text.is_empty() {
        text = format!("error: {message}\n");
    }
    text.push_str("nothing was changed\n");
    Failure::rendered(Exit::Refused, text)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn faults_are_said_a_line_each_and_a_statement_is_shown() {
        let errors = vec![
            json!({ "origin": "t.toml", "line": 2, "column": 1, "message": "unknown key", "help": "did you mean `x`?" }),
            json!({ "origin": "r.toml", "line": 3, "column": null, "rule": "r", "message": "no statement", "help": "SELEC\n^\n" }),
        ];
        let expected = "error: t.toml:2:1: unknown key; did you mean `x`?\n\
            error: r.toml:3: rule \"r\": no statement\nSELEC\n^\nnothing was changed\n";
        assert_eq!(refused("", errors).text(), expected);
        assert_eq!(refused("why", Vec::new()).text(), "error: why\nnothing was changed\n");
    }
}
