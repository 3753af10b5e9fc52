//! Rules of a gateway that runs: which there are, who owns them, and changes of those that its store owns.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use rules_sql::Limits;
use serde_json::{Value, json};

use crate::admin::{AdminClient, AdminClientError};
use crate::cli::dead_letters::time;
use crate::cli::gateway::GatewayArgs;
use crate::cli::output::{Output, notice};
use crate::cli::serve::render_finding;
use crate::cli::table::in_columns;
use crate::cli::{ConfigArgs, Exit, Failure, without_control_characters};
use crate::config::Environment;
use crate::rules::load_rules;
use crate::server::rule_limits;

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Print each rule as one JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct NameArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// The rule.
    #[arg(value_name = "RULE")]
    rule: String,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RollbackArgs {
    #[command(flatten)]
    name: NameArgs,
    /// The version whose definition is to hold again.
    #[arg(value_name = "VERSION")]
    version: u32,
}

#[derive(Debug, Args)]
pub(super) struct ApplyArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Folder of rule files, as rules_dir is one.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Take out every rule of the store that isn't in the folder.
    #[arg(long)]
    prune: bool,
    /// Only say what would change.
    #[arg(long)]
    dry_run: bool,
    /// Print what changes as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Folder of rule files, as rules_dir is one.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Print what differs as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
}

pub(super) fn list(args: &ListArgs, outer: &ConfigArgs, environment: &Environment) -> Result<Exit, Failure> {
    let mut client = args.gateway.connect(outer, environment)?;
    let mut rules = Vec::new();
    let mut after = Value::Null;
    loop {
        let mut page = call(&mut client, "rules.list", json!({ "after": after }))?;
        rules.extend(items(&page, "rules").iter().cloned());
        after = page.get_mut("next").map(Value::take).unwrap_or_default();
        if after.is_null() {
            break;
        }
    }
    let out = Output::stdout();
    if args.json {
        rules.iter().try_for_each(|rule| out.json(rule))?;
    } else if rules.is_empty() {
        notice("there are no rules");
    } else {
        let headings = ["RULE", "OWNER", "VERSION", "STATE", "DESCRIPTION"];
        out.bytes(in_columns(headings, rules.iter().map(row)).as_bytes())?;
    }
    Ok(Exit::Success)
}

fn row(rule: &Value) -> [String; 5] {
    let state = match (rule.get("suspended").is_some(), rule.get("runs").and_then(Value::as_bool)) {
        (true, _) => "suspended",
        (false, Some(true)) => "runs",
        (false, _) => "disabled",
    };
    let version = rule.get("version").map_or_else(|| "-".to_owned(), Value::to_string);
    let description = plain(text(rule, "description"));
    let (name, owner) = (text(rule, "name").to_owned(), text(rule, "owner").to_owned());
    [name, owner, version, state.to_owned(), description]
}

pub(super) fn show(args: &NameArgs, outer: &ConfigArgs, environment: &Environment) -> Result<Exit, Failure> {
    let mut client = args.gateway.connect(outer, environment)?;
    let rule = call(&mut client, "rules.show", json!({ "name": args.rule }))?;
    let out = Output::stdout();
    if args.json {
        out.json(&rule)?;
        return Ok(Exit::Success);
    }
    let comment = |line: String| out.line(&format!("# {}", plain(&line)));
    match rule.get("version") {
        Some(version) => {
            let author = text(&rule, "author");
            comment(format!("of the store, version {version}, by {author}"))?;
        }
        None => comment(format!("of the file {}", text(&rule, "file")))?,
    }
    if let Some(suspension) = rule.get("suspended") {
        comment(format!("suspended by {}", text(suspension, "by")))?;
    }
    let definition = rule.get("definition").cloned().unwrap_or_default();
    let failed = |error: toml::ser::Error| Failure::new(Exit::Failed, error);
    let definition = toml::Value::try_from(json!({ "rules": { &args.rule: definition } })).map_err(failed)?;
    out.bytes(toml::to_string(&definition).map_err(failed)?.as_bytes())?;
    Ok(Exit::Success)
}

/// One change of one rule, by the name of its command.
pub(super) fn change(
    command: &str,
    args: &NameArgs,
    outer: &ConfigArgs,
    environment: &Environment,
) -> Result<Exit, Failure> {
    let mut client = args.gateway.connect(outer, environment)?;
    let changed = call(&mut client, command, json!({ "name": args.rule }))?;
    print_changed(&changed, args.json)?;
    Ok(Exit::Success)
}

pub(super) fn rollback(
    args: &RollbackArgs,
    outer: &ConfigArgs,
    environment: &Environment,
) -> Result<Exit, Failure> {
    let mut client = args.name.gateway.connect(outer, environment)?;
    let params = json!({ "name": args.name.rule, "version": args.version });
    let changed = call(&mut client, "rules.rollback", params)?;
    print_changed(&changed, args.name.json)?;
    Ok(Exit::Success)
}

pub(super) fn versions(
    args: &NameArgs,
    outer: &ConfigArgs,
    environment: &Environment,
) -> Result<Exit, Failure> {
    let mut client = args.gateway.connect(outer, environment)?;
    let answer = call(&mut client, "rules.versions", json!({ "name": args.rule }))?;
    let out = Output::stdout();
    for version in items(&answer, "versions") {
        if args.json {
            out.json(version)?;
            continue;
        }
        let number = version.get("number").map(Value::to_string).unwrap_or_default();
        let at_ms = version.get("at_ms").and_then(Value::as_i64).unwrap_or_default();
        let gone = if version.get("definition").is_some_and(Value::is_null) { ", taken out" } else { "" };
        let author = plain(text(version, "author"));
        out.line(&format!("version {number}, {}, by {author}{gone}", time(at_ms)))?;
        if gone.is_empty() {
            print_members(items(version, "members"))?;
        }
    }
    Ok(Exit::Success)
}

pub(super) fn export(
    args: &ExportArgs,
    outer: &ConfigArgs,
    environment: &Environment,
) -> Result<Exit, Failure> {
    let mut client = args.gateway.connect(outer, environment)?;
    let answer = call(&mut client, "rules.export", json!({}))?;
    Output::stdout().bytes(text(&answer, "toml").as_bytes())?;
    Ok(Exit::Success)
}

pub(super) fn apply(
    args: &ApplyArgs,
    outer: &ConfigArgs,
    environment: &Environment,
) -> Result<Exit, Failure> {
    let rules = definitions(&args.folder, outer, environment)?;
    let mut client = args.gateway.connect(outer, environment)?;
    let params = json!({ "rules": rules, "prune": args.prune, "dry_run": args.dry_run });
    let changed = call(&mut client, "rules.apply", params)?;
    print_changed(&changed, args.json)?;
    match (args.dry_run, items(&changed, "rules").is_empty()) {
        (_, true) => notice("nothing differs"),
        (true, false) => notice("nothing was changed (--dry-run)"),
        (false, false) => {}
    }
    Ok(Exit::Success)
}

pub(super) fn diff(args: &DiffArgs, outer: &ConfigArgs, environment: &Environment) -> Result<Exit, Failure> {
    let rules = definitions(&args.folder, outer, environment)?;
    let mut client = args.gateway.connect(outer, environment)?;
    let params = json!({ "rules": rules, "prune": true, "dry_run": true });
    let changed = call(&mut client, "rules.apply", params)?;
    print_changed(&changed, args.json)?;
    Ok(if items(&changed, "rules").is_empty() { Exit::Success } else { Exit::Failed })
}

/// What the rules of a folder say, by name. They are checked here, where faults have places in files; the gateway checks them
/// again.
fn definitions(
    folder: &Path,
    outer: &ConfigArgs,
    environment: &Environment,
) -> Result<BTreeMap<String, Value>, Failure> {
    let limits = outer
        .load(environment)
        .map_or_else(|_| Limits::default(), |loaded| rule_limits(&loaded.config.limits.rules));
    let rules = load_rules(folder, &limits).map_err(|faults| {
        let text = faults.iter().map(|fault| render_finding("error", fault)).collect();
        Failure::rendered(Exit::Refused, text)
    })?;
    Ok(rules.iter().map(|rule| (rule.name.clone(), rule.definition_value())).collect())
}

/// Asks; what is refused is said a line each, as a configuration's faults are.
fn call(client: &mut AdminClient, command: &str, params: Value) -> Result<Value, Failure> {
    client.call(command, params).map_err(|error| match error {
        AdminClientError::Refused { code, message, .. } if code == "refused" => {
            let faults = message.lines().map(|line| format!("error: {line}\n")).collect();
            Failure::rendered(Exit::Refused, faults)
        }
        error => error.into(),
    })
}

fn print_changed(changed: &Value, as_json: bool) -> Result<(), Failure> {
    let out = Output::stdout();
    if as_json {
        return out.json(changed);
    }
    for warning in items(changed, "warnings") {
        notice(&format!("warning: {}", warning.as_str().unwrap_or_default()));
    }
    for delta in items(changed, "rules") {
        let name = text(delta, "rule");
        match text(delta, "change") {
            "added" => out.line(&format!("+ rule {name}"))?,
            "removed" => out.line(&format!("- rule {name}"))?,
            "changed" => {
                out.line(&format!("~ rule {name}"))?;
                print_members(items(delta, "members"))?;
            }
            change => out.line(&format!("~ rule {name}: {change}"))?,
        }
    }
    Ok(())
}

fn print_members(members: &[Value]) -> Result<(), Failure> {
    let out = Output::stdout();
    for member in members {
        let name = text(member, "member");
        let value = |side| member.get(side).filter(|value| !value.is_null()).map(Value::to_string);
        out.line(&match (value("before"), value("after")) {
            (Some(before), Some(after)) => format!("    {name}: {before} -> {after}"),
            (Some(before), None) => format!("    {name}: {before} -> nothing"),
            (None, Some(after)) => format!("    {name}: {after}"),
            (None, None) => format!("    {name}"),
        })?;
    }
    Ok(())
}

fn items<'v>(value: &'v Value, member: &str) -> &'v [Value] {
    value.get(member).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'v>(value: &'v Value, member: &str) -> &'v str {
    value.get(member).and_then(Value::as_str).unwrap_or_default()
}

/// A text on one line that does nothing to a terminal.
fn plain(text: &str) -> String {
    let bytes = without_control_characters(text.replace(['\n', '\t'], " ").as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}
