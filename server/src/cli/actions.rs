//! `tidegate actions`: how the actions of a gateway that runs do, and what is done to their queues.

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

use super::gateway::{GatewayArgs, pages, path, text_of};
use super::output::{Output, notice};
use super::table::in_columns;
use super::{ConfigArgs, Exit, Failure};
use crate::config::Environment;

/// Arguments of `actions`.
#[derive(Debug, Args)]
pub(super) struct ActionsArgs {
    #[command(subcommand)]
    command: ActionsCommand,
}

#[derive(Debug, Subcommand)]
enum ActionsCommand {
    /// List actions, by rule and name, with what waits.
    List(ListArgs),
    /// Show one.
    Show(OneArgs),
    /// Send nothing more until it is resumed, over restarts too; the queue goes on taking requests.
    Pause(OneArgs),
    /// Send again.
    Resume(OneArgs),
    /// Try at once what waits, instead of at the end of a pause.
    Drain(OneArgs),
    /// Drop what waits, without dead letters.
    Purge(PurgeArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Those of this rule.
    #[arg(long, value_name = "NAME")]
    rule: Option<String>,
    /// Those that name this connector.
    #[arg(long, value_name = "NAME")]
    connector: Option<String>,
    /// Those that are like this.
    #[arg(long, value_parser = ["running", "waiting", "refused", "paused", "draining", "stopped"])]
    state: Option<String>,
    /// Most actions to list.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Print each as one JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct OneArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// The action, as in overheat/ops.
    #[arg(value_name = "RULE/ACTION", value_parser = ActionName::read)]
    action: ActionName,
    /// Print the answer as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("meant").required(true).args(["dry_run", "confirm"])))]
struct PurgeArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Only say how many requests it would drop.
    #[arg(long)]
    dry_run: bool,
    /// The action once more: what is dropped doesn't come back.
    #[arg(long, value_name = "RULE/ACTION")]
    confirm: Option<String>,
}

#[derive(Debug, Clone)]
struct ActionName {
    rule: String,
    action: String,
}

impl ActionName {
    fn read(text: &str) -> Result<Self, String> {
        let (rule, action) = text.split_once('/').unwrap_or_default();
        if rule.is_empty() || action.is_empty() {
            return Err("expected a rule and its action, as in overheat/ops".to_owned());
        }
        Ok(Self { rule: rule.to_owned(), action: action.to_owned() })
    }

    /// Its path, or that of what is done to it.
    fn path(&self, verb: Option<&str>) -> String {
        let parts = ["actions", &self.rule, &self.action].into_iter().chain(verb);
        path(&parts.collect::<Vec<_>>())
    }
}

/// Runs the command.
pub(super) fn run(
    args: &ActionsArgs,
    outer: &ConfigArgs,
    environment: &Environment,
) -> Result<Exit, Failure> {
    match &args.command {
        ActionsCommand::List(list) => list_actions(list, outer, environment)?,
        ActionsCommand::Show(one) => {
            let action = one.gateway.api(outer, environment)?.get(&one.action.path(None))?;
            let out = Output::stdout();
            if one.json { out.json(&action)? } else { out.bytes(page(&action).as_bytes())? }
        }
        ActionsCommand::Pause(one) => {
            let changed = change(one, "pause", None, outer, environment)?;
            tell(one, &changed, || if was_changed(&changed) { "paused" } else { "it was paused already" })?;
        }
        ActionsCommand::Resume(one) => {
            let changed = change(one, "resume", None, outer, environment)?;
            tell(one, &changed, || if was_changed(&changed) { "resumed" } else { "it wasn't paused" })?;
        }
        ActionsCommand::Drain(one) => {
            let drained = change(one, "drain", None, outer, environment)?;
            tell(one, &drained, || format!("{} requests are tried now", text_of(&drained, "items")))?;
        }
        ActionsCommand::Purge(PurgeArgs { one, dry_run, confirm }) => {
            let verb = if *dry_run { "purge?dry_run=true" } else { "purge" };
            let purged = change(one, verb, Some(&json!({ "confirm": confirm })), outer, environment)?;
            let items = text_of(&purged, "items");
            tell(one, &purged, || match (*dry_run, purged.get("is_done") == Some(&Value::Bool(true))) {
                (true, _) => format!("{items} requests would be dropped"),
                (false, true) => format!("{items} requests dropped"),
                (false, false) => {
                    format!("{items} requests are being dropped; they aren't all off the disk yet")
                }
            })?;
        }
    }
    Ok(Exit::Success)
}

/// Asks for a change and returns the answer.
fn change(
    one: &OneArgs,
    verb: &str,
    body: Option<&Value>,
    outer: &ConfigArgs,
    environment: &Environment,
) -> Result<Value, Failure> {
    let (verb, query) = verb.split_once('?').unwrap_or((verb, ""));
    let mut path = one.action.path(Some(verb));
    if !query.is_empty() {
        path.push('?');
        path.push_str(query);
    }
    Ok(one.gateway.api(outer, environment)?.request(&Method::POST, &path, body)?)
}

fn was_changed(answer: &Value) -> bool {
    answer.get("changed") == Some(&Value::Bool(true))
}

/// Prints the answer, for programs or in words for people.
fn tell<T: AsRef<str>>(one: &OneArgs, answer: &Value, words: impl FnOnce() -> T) -> Result<(), Failure> {
    let out = Output::stdout();
    if one.json {
        return out.json(answer);
    }
    out.line(&format!("{}/{}: {}", one.action.rule, one.action.action, words().as_ref()))
}

fn list_actions(args: &ListArgs, outer: &ConfigArgs, environment: &Environment) -> Result<(), Failure> {
    let filters = [
        ("rule", args.rule.as_deref()),
        ("connector", args.connector.as_deref()),
        ("state", args.state.as_deref()),
    ];
    let mut client = args.gateway.api(outer, environment)?;
    let (found, has_more) = pages(&mut client, &path(&["actions"]), &filters, "actions", args.limit)?;
    let out = Output::stdout();
    if args.json {
        found.iter().try_for_each(|action| out.json(action))?;
    } else if found.is_empty() {
        notice("no actions");
    } else {
        out.bytes(in_columns(HEADINGS, found.iter().map(row)).as_bytes())?;
    }
    if has_more {
        notice("there may be more: a greater --limit shows them");
    }
    Ok(())
}

const HEADINGS: [&str; 9] =
    ["ACTION", "TYPE", "RESOURCE", "STATE", "QUEUED", "IN FLIGHT", "OLDEST", "NEXT TRY", "CAUSE"];

fn row(action: &Value) -> [String; HEADINGS.len()] {
    let of_queue =
        |member: &str| action.get("queue").map_or_else(|| "-".to_owned(), |queue| text_of(queue, member));
    let time_of = |member: &str| {
        let millis = action.get("queue").and_then(|queue| queue.get(member)?.as_u64());
        millis.map_or_else(|| "-".to_owned(), in_words)
    };
    [
        format!("{}/{}", text_of(action, "rule"), text_of(action, "name")),
        text_of(action, "kind"),
        text_of(action, "resource"),
        text_of(action, "state"),
        of_queue("queued"),
        of_queue("in_flight"),
        time_of("oldest_age_ms"),
        time_of("next_attempt_in_ms"),
        text_of(action, "cause"),
    ]
}

/// A time as people take it in: its two largest units at most.
fn in_words(millis: u64) -> String {
    let seconds = millis / 1_000;
    match seconds {
        0 => format!("{millis} ms"),
        1..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// All of one action, for people.
fn page(action: &Value) -> String {
    let mut page = String::new();
    let mut line = |name: &str, text: &str| page.push_str(&format!("{name:<18}{text}\n"));
    let cells = row(action);
    let [name, kind, resource, state, queued, in_flight, oldest, next, cause] = &cells;
    for (name, text) in [
        ("action", name),
        ("type", kind),
        ("resource", resource),
        ("state", state),
        ("cause", cause),
        ("queued", queued),
        ("in flight", in_flight),
        ("oldest", oldest),
        ("next try in", next),
    ] {
        line(name, text);
    }
    let nothing = Value::Null;
    let queue = action.get("queue").unwrap_or(&nothing);
    for (name, member) in [("memory bytes", "memory_bytes"), ("disk bytes", "disk_bytes")] {
        line(name, &text_of(queue, member));
    }
    let outcomes = action.get("outcomes").unwrap_or(&nothing);
    for (name, member) in [
        ("queued at start", "queued_at_start"),
        ("received", "received"),
        ("delivered", "delivered"),
        ("attempts", "attempts"),
        ("retried", "retried"),
        ("failed render", "failed_render"),
    ] {
        line(name, &text_of(outcomes, member));
    }
    for (name, member) in [("dead letters", "dead_lettered"), ("dropped", "dropped")] {
        let reasons = outcomes.get(member).and_then(Value::as_object);
        for (reason, count) in reasons.into_iter().flatten() {
            line(name, &format!("{count} {reason}"));
        }
    }
    if let Some(error) = action.get("last_error").filter(|error| error.is_object()) {
        line("last error", &text_of(error, "error"));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_a_row_and_a_page() {
        let waiting = json!({
            "rule": "overheat", "name": "ops", "kind": "http", "resource": "https://ops.example", "state": "waiting",
            "cause": "refused\u{1b}[2J\nby all", "is_error_action": false, "connector": null, "paused": null,
            "queue": { "is_durable": true, "queued": 12, "in_flight": 1, "memory_bytes": 90, "disk_bytes": 4096,
                       "oldest_age_ms": 93_784_000, "next_attempt_in_ms": 61_000, "failures_in_a_row": 3 },
            "outcomes": { "queued_at_start": 0, "received": 20, "delivered": 7, "attempts": 9, "retried": 1,
                          "dead_lettered": { "refused": 2 }, "dropped": {}, "failed_render": 0, "backpressure": 0 },
            "last_error": { "error": "no answer", "at_ms": 0 }, "last_delivered_at_ms": null,
        });
        let plain = json!({ "rule": "a", "name": "b", "kind": "republish", "resource": "t", "state": "running",
                            "cause": null, "queue": null, "outcomes": null });
        let table = in_columns(HEADINGS, [&waiting, &plain].into_iter().map(row));
        let expected = "\
ACTION        TYPE       RESOURCE             STATE    QUEUED  IN FLIGHT  OLDEST   NEXT TRY   CAUSE
overheat/ops  http       https://ops.example  waiting  12      1          1 d 2 h  1 min 1 s  refused\\u{1b}[2J by all
a/b           republish  t                    running  -       -          -        -          -
";
        assert_eq!(table, expected);
        let page = page(&waiting);
        for part in
            ["disk bytes        4096\n", "dead letters      2 refused\n", "last error        no answer\n"]
        {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(!super::page(&plain).contains("last error"));
    }

    #[test]
    fn times_are_told_in_two_units() {
        for (millis, words) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1 s"),
            (59_999, "59 s"),
            (60_000, "1 min 0 s"),
            (3_599_999, "59 min 59 s"),
            (3_600_000, "1 h 0 min"),
            (86_399_999, "23 h 59 min"),
            (86_400_000, "1 d 0 h"),
        ] {
            assert_eq!(in_words(millis), words);
        }
    }

    #[test]
    fn a_name_is_a_rule_and_an_action() {
        let name = ActionName::read("overheat/ops").unwrap();
        assert_eq!(name.path(Some("pause")), "/api/v1/actions/overheat/ops/pause");
        for text in ["", "/", "a/", "/b", "a"] {
            assert!(ActionName::read(text).is_err(), "{text}");
        }
        assert_eq!(ActionName::read("../x/y").unwrap().path(None), "/api/v1/actions/%2E%2E/x%2Fy");
    }
}
