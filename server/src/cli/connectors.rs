//! `tidegate connectors`: where the connectors of a gateway that runs lead, and whether the way there is open.

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::Value;

use super::gateway::{GatewayArgs, pages, path, text_of};
use super::output::{Output, notice};
use super::table::in_columns;
use super::{ConfigArgs, Exit, Failure};
use crate::config::Environment;

/// Arguments of `connectors`.
#[derive(Debug, Args)]
pub(super) struct ConnectorsArgs {
    #[command(subcommand)]
    command: ConnectorsCommand,
}

#[derive(Debug, Subcommand)]
enum ConnectorsCommand {
    /// List connectors, by name.
    List(ListArgs),
    /// Show one.
    Show(OneArgs),
    /// Try the way to its far side, stage by stage; the exit code is 1 where it ends before that.
    Test(OneArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Print each as one JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct OneArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Name of the connector.
    #[arg(value_name = "NAME")]
    name: String,
    /// Print the answer as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(
    args: &ConnectorsArgs,
    outer: &ConfigArgs,
    environment: &Environment,
) -> Result<Exit, Failure> {
    let out = Output::stdout();
    match &args.command {
        ConnectorsCommand::List(list) => {
            let mut client = list.gateway.api(outer, environment)?;
            let (found, _) = pages(&mut client, &path(&["connectors"]), &[], "connectors", u64::MAX)?;
            if list.json {
                found.iter().try_for_each(|connector| out.json(connector))?;
            } else if found.is_empty() {
                notice("no connectors");
            } else {
                out.bytes(in_columns(HEADINGS, found.iter().map(row)).as_bytes())?;
            }
        }
        ConnectorsCommand::Show(one) => {
            let connector = one.gateway.api(outer, environment)?.get(&path(&["connectors", &one.name]))?;
            if one.json { out.json(&connector)? } else { out.bytes(page(&connector).as_bytes())? }
        }
        ConnectorsCommand::Test(one) => {
            let path = path(&["connectors", &one.name, "test"]);
            let tested = one.gateway.api(outer, environment)?.request(&Method::POST, &path, None)?;
            if one.json {
                out.json(&tested)?
            } else {
                out.bytes(tested_page(&tested).as_bytes())?
            }
            if tested.get("passed") != Some(&Value::Bool(true)) {
                return Ok(Exit::Failed);
            }
        }
    }
    Ok(Exit::Success)
}

const HEADINGS: [&str; 6] = ["CONNECTOR", "TYPE", "ADDRESSES", "ACTIONS", "HEALTH", "CAUSE"];

fn row(connector: &Value) -> [String; HEADINGS.len()] {
    ["name", "kind", "addresses", "uses", "health", "cause"].map(|member| text_of(connector, member))
}

/// All of one connector, for people.
fn page(connector: &Value) -> String {
    let nothing = Value::Null;
    let error = connector.get("last_error").unwrap_or(&nothing);
    [
        ("connector", connector, "name"),
        ("type", connector, "kind"),
        ("addresses", connector, "addresses"),
        ("used by", connector, "used_by"),
        ("health", connector, "health"),
        ("cause", connector, "cause"),
        ("last error", error, "error"),
    ]
    .iter()
    .map(|(name, of, member)| format!("{name:<12}{}\n", text_of(of, member)))
    .collect()
}

/// A test, a line for each stage.
fn tested_page(tested: &Value) -> String {
    let steps = tested.get("steps").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let rows = steps.iter().map(|step| {
        let outcome = if step.get("passed") == Some(&Value::Bool(true)) { "ok" } else { "FAILED" };
        let took = format!("{} ms", text_of(step, "took_ms"));
        [text_of(step, "server"), text_of(step, "stage"), outcome.to_owned(), took, text_of(step, "detail")]
    });
    let mut page = in_columns(["SERVER", "STAGE", "OUTCOME", "TIME", "DETAIL"], rows);
    if tested.get("note").is_some_and(|note| !note.is_null()) {
        page = format!("nothing was tried: {}\n", text_of(tested, "note"));
    }
    page
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_connector_is_a_row_and_a_page_and_a_test_a_table() {
        let connector = json!({ "name": "ops", "kind": "http", "addresses": ["https://ops.example:443"], "uses": 2,
            "used_by": ["a/b", "c/d"], "health": "failing", "cause": "no\u{7}", "last_error": null });
        let table = in_columns(HEADINGS, [&connector].into_iter().map(row));
        assert!(
            table.ends_with("ops        http  https://ops.example:443  2        failing  no\\u{7}\n"),
            "{table}"
        );
        assert!(page(&connector).contains("used by     a/b, c/d\n"));
        let step = |stage: &str, passed: bool| json!({ "server": "ops.example:443", "stage": stage, "passed": passed, "detail": "d", "took_ms": 3 });
        let tested =
            json!({ "passed": false, "note": null, "steps": [step("name", true), step("connect", false)] });
        let expected = "\
SERVER           STAGE    OUTCOME  TIME  DETAIL
ops.example:443  name     ok       3 ms  d
ops.example:443  connect  FAILED   3 ms  d
";
        assert_eq!(tested_page(&tested), expected);
        let nothing = json!({ "passed": false, "note": "no url", "steps": [] });
        assert_eq!(tested_page(&nothing), "nothing was tried: no url\n");
    }
}
