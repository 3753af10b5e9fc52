//! Rules of a gateway that runs: which there are, who owns them, and changes of those that its store owns.
//!
//! What is printed for programs is flat and has no member without a value, whatever the interface's answers look like.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use hyper::Method;
use rules_sql::Limits;
use serde_json::{Value, json};

use crate::admin::AdminClientError;
use crate::cli::dead_letters::time;
use crate::cli::gateway::{GatewayArgs, pages, path, query};
use crate::cli::output::{Output, notice};
use crate::cli::serve::render_finding;
use crate::cli::table::in_columns;
use crate::cli::{ConfigArgs, Exit, Failure, without_control_characters};
use crate::config::Environment;
use crate::reload::Fault;
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
    let mut client = args.gateway.api(outer, environment)?;
    let details = [("details", args.json.then_some("true"))];
    let (summaries, _) = pages(&mut client, &path(&["rules"]), &details, "rules", u64::MAX)?;
    let rules: Vec<Value> = summaries.into_iter().map(entry).collect();
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

/// A rule as it is printed, of its summary in an answer.
fn entry(mut summary: Value) -> Value {
    if let Value::Object(members) = &mut summary {
        if let Some(mut details) = members.remove("details") {
            members.insert(
                "warnings".to_owned(),
                details.get_mut("warnings").map(Value::take).unwrap_or_default(),
            );
            add_last(members, &details.get("counters").cloned().unwrap_or_default());
        }
        members.retain(|_, value| !value.is_null());
    }
    summary
}

/// Adds when a message passed last, and what went wrong last.
fn add_last(members: &mut serde_json::Map<String, Value>, counters: &Value) {
    for member in ["last_match_at_ms", "last_error"] {
        if let Some(value) = counters.get(member).filter(|value| !value.is_null()) {
            members.insert(member.to_owned(), value.clone());
        }
    }
}

/// What a change came to as it is printed.
fn changed(mut answer: Value) -> Value {
    for rule in answer.get_mut("rules").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Value::Object(members) = rule {
            let name = members.remove("name").unwrap_or_default();
            members.insert("rule".to_owned(), name);
            members.retain(|_, value| !value.is_null());
        }
    }
    answer
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
    let mut client = args.gateway.api(outer, environment)?;
    let mut answer = client.get(&path(&["rules", &args.rule]))?;
    let mut take = |member: &str| answer.get_mut(member).map(Value::take).unwrap_or_default();
    let mut rule = entry(take("summary"));
    if let Value::Object(members) = &mut rule {
        members.extend(["definition", "warnings"].map(|member| (member.to_owned(), take(member))));
        add_last(members, &take("counters"));
    }
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
    if let Some(at_ms) = rule.get("last_match_at_ms").and_then(Value::as_i64) {
        comment(format!("a message passed last at {}", time(at_ms)))?;
    }
    if let Some(error) = rule.get("last_error") {
        let at = error.get("at_ms").and_then(Value::as_i64).map(time).unwrap_or_default();
        let (stage, topic) = (text(error, "stage"), text(error, "topic"));
        comment(format!("failed last at {at} ({stage}, topic \"{topic}\"): {}", text(error, "error")))?;
    }
    let definition = rule.get("definition").cloned().unwrap_or_default();
    let failed = |error: toml::ser::Error| Failure::new(Exit::Failed, error);
    let definition = toml::Value::try_from(json!({ "rules": { &args.rule: definition } })).map_err(failed)?;
    out.bytes(toml::to_string(&definition).map_err(failed)?.as_bytes())?;
    Ok(Exit::Success)
}

/// One change of one rule.
#[derive(Debug, Clone, Copy)]
pub(super) enum Deed {
    Suspend,
    Resume,
    Enable,
    Disable,
    Remove,
}

pub(super) fn change(
    deed: Deed,
    args: &NameArgs,
    outer: &ConfigArgs,
    environment: &Environment,
) -> Result<Exit, Failure> {
    let mut client = args.gateway.api(outer, environment)?;
    let mut post = |verb| client.post(&path(&["rules", &args.rule, verb]), &Value::Null);
    let answer = match deed {
        Deed::Suspend => post("suspend"),
        Deed::Resume => post("resume"),
        Deed::Enable => post("enable"),
        Deed::Disable => post("disable"),
        Deed::Remove => client.request(&Method::DELETE, &path(&["rules", &args.rule]), None),
    };
    print_changed(&changed(answer.map_err(refused)?), args.json)?;
    Ok(Exit::Success)
}

pub(super) fn rollback(
    args: &RollbackArgs,
    outer: &ConfigArgs,
    environment: &Environment,
) -> Result<Exit, Failure> {
    let mut client = args.name.gateway.api(outer, environment)?;
    let path = path(&["rules", &args.name.rule, "roll-back"]);
    let answer = client.post(&path, &json!({ "version": args.version })).map_err(refused)?;
    print_changed(&changed(answer), args.name.json)?;
    Ok(Exit::Success)
}

pub(super) fn versions(
    args: &NameArgs,
    outer: &ConfigArgs,
    environment: &Environment,
) -> Result<Exit, Failure> {
    let mut client = args.gateway.api(outer, environment)?;
    let answer = client.get(&path(&["rules", &args.rule, "versions"])).map_err(refused)?;
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
    let mut client = args.gateway.api(outer, environment)?;
    let text = client.get_text(&path(&["export", "rules"]))?;
    Output::stdout().bytes(text.as_bytes())?;
    Ok(Exit::Success)
}

pub(super) fn apply(
    args: &ApplyArgs,
    outer: &ConfigArgs,
    environment: &Environment,
) -> Result<Exit, Failure> {
    let changed = put(&args.gateway, &args.folder, (args.prune, args.dry_run), outer, environment)?;
    print_changed(&changed, args.json)?;
    match (args.dry_run, items(&changed, "rules").is_empty()) {
        (_, true) => notice("nothing differs"),
        (true, false) => notice("nothing was changed (--dry-run)"),
        (false, false) => {}
    }
    Ok(Exit::Success)
}

pub(super) fn diff(args: &DiffArgs, outer: &ConfigArgs, environment: &Environment) -> Result<Exit, Failure> {
    let changed = put(&args.gateway, &args.folder, (true, true), outer, environment)?;
    print_changed(&changed, args.json)?;
    Ok(if items(&changed, "rules").is_empty() { Exit::Success } else { Exit::Failed })
}

/// Has the store own the rules of a folder, and says what that comes to.
fn put(
    gateway: &GatewayArgs,
    folder: &Path,
    (prune, dry_run): (bool, bool),
    outer: &ConfigArgs,
    environment: &Environment,
) -> Result<Value, Failure> {
    let rules = definitions(folder, outer, environment)?;
    let mut client = gateway.api(outer, environment)?;
    let path = format!("{}{}", path(&["rules", "apply"]), query(&[("dry_run", dry_run.then_some("true"))]));
    let answer = client.post(&path, &json!({ "rules": rules, "prune": prune }));
    answer.map(changed).map_err(refused)
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

/// What is refused is said a line each, as a configuration's faults are.
fn refused(error: AdminClientError) -> Failure {
    match error {
        AdminClientError::Refused { code, message, errors }
            if matches!(code.as_str(), "invalid" | "conflict" | "precondition") =>
        {
            let faults = errors.into_iter().filter_map(|fault| serde_json::from_value::<Fault>(fault).ok());
            let mut text: String = faults.map(|fault| format!("error: {fault}\n")).collect();
            if text.is_empty() {
                text = message.lines().map(|line| format!("error: {line}\n")).collect();
            }
            Failure::rendered(Exit::Refused, text)
        }
        error => error.into(),
    }
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
