//! `tidegate retained`: the Retained Messages of a gateway that runs.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::Value;

use super::gateway::{GatewayArgs, pages, path, text_of};
use super::output::{Output, notice};
use super::table::in_columns;
use super::{ConfigArgs, Exit, Failure, without_control_characters};
use crate::config::Environment;

/// Arguments of `retained`.
#[derive(Debug, Args)]
pub(super) struct RetainedArgs {
    #[command(subcommand)]
    command: RetainedCommand,
}

#[derive(Debug, Subcommand)]
enum RetainedCommand {
    /// List Retained Messages, without their payloads.
    List(ListArgs),
    /// Show one.
    Show(ShowArgs),
    /// Forget them; nobody is sent anything.
    Clear(ClearArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Those that this Topic Filter matches.
    #[arg(value_name = "FILTER", default_value = "#")]
    filter: String,
    /// Most messages to list.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Print each as one JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ShowArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// The Topic Name.
    topic: String,
    /// Print it as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ClearArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Topic Names.
    #[arg(value_name = "TOPIC", required = true)]
    topics: Vec<String>,
}

/// Runs the command.
pub(super) fn run(
    args: &RetainedArgs,
    outer: &ConfigArgs,
    environment: &Environment,
) -> Result<Exit, Failure> {
    let out = Output::stdout();
    match &args.command {
        RetainedCommand::List(list) => {
            let mut client = list.gateway.api(outer, environment)?;
            let filters = [("filter", Some(list.filter.as_str()))];
            let (mut found, has_more) =
                pages(&mut client, &path(&["retained"]), &filters, "messages", list.limit)?;
            if list.json {
                found.iter().try_for_each(|message| out.json(message))?;
            } else if found.is_empty() {
                notice("nothing is retained there");
            } else {
                found.sort_by_key(|message| text_of(message, "topic"));
                let members = ["topic", "qos", "payload_bytes", "expires_in_s", "publisher"];
                let rows = found.iter().map(|message| members.map(|member| text_of(message, member)));
                let headings = ["TOPIC", "QOS", "BYTES", "EXPIRES IN S", "PUBLISHER"];
                out.bytes(in_columns(headings, rows).as_bytes())?;
            }
            if has_more {
                notice("there may be more: a greater --limit shows them");
            }
        }
        RetainedCommand::Show(show) => {
            let message = show.gateway.api(outer, environment)?.get(&path(&["retained", &show.topic]))?;
            if show.json { out.json(&message)? } else { out.bytes(page(&message).as_bytes())? }
        }
        RetainedCommand::Clear(clear) => {
            let mut client = clear.gateway.api(outer, environment)?;
            for topic in &clear.topics {
                client.request(&Method::DELETE, &path(&["retained", topic]), None)?;
            }
        }
    }
    Ok(Exit::Success)
}

/// All of one message, for people.
fn page(message: &Value) -> String {
    let nothing = Value::Null;
    let summary = message.get("summary").unwrap_or(&nothing);
    let mut page = String::new();
    let mut line = |name: &str, text: &str| {
        let _infallible = writeln!(page, "{name:<18}{text}");
    };
    for (name, member) in [
        ("topic", "topic"),
        ("qos", "qos"),
        ("publisher", "publisher"),
        ("expires in s", "expires_in_s"),
        ("payload bytes", "payload_bytes"),
    ] {
        line(name, &text_of(summary, member));
    }
    for (name, member) in [("content type", "content_type"), ("response topic", "response_topic")] {
        if message.get(member).is_some_and(|value| !value.is_null()) {
            line(name, &text_of(message, member));
        }
    }
    for property in message.get("user_properties").and_then(Value::as_array).into_iter().flatten() {
        line("user property", &format!("{} = {}", text_of(property, "name"), text_of(property, "value")));
    }
    let payload = message.get("payload").unwrap_or(&nothing);
    page.push('\n');
    match payload.get("text").and_then(Value::as_str) {
        Some(text) => page.push_str(&String::from_utf8_lossy(&without_control_characters(text.as_bytes()))),
        None => {
            let _infallible = write!(page, "hex {}", text_of(payload, "hex"));
        }
    }
    page.push('\n');
    if payload.get("cut") == Some(&Value::Bool(true)) {
        page.push_str("(the rest isn't shown)\n");
    }
    page
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_is_shown_and_obeyed_in_nothing() {
        let message = json!({
            "summary": { "topic": "a/b", "qos": 1, "payload_bytes": 9, "received_at_ms": 0, "expires_in_s": null, "publisher": "p" },
            "payload": { "bytes": 9, "text": "x\u{1b}y", "cut": false },
            "content_type": "text/plain", "response_topic": null, "correlation_data": null, "payload_is_text": true,
            "user_properties": [{ "name": "site", "value": "a" }],
        });
        let page = page(&message);
        for part in ["topic             a/b\n", "content type      text/plain\n", "site = a", "x\\u{1b}y\n"] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(!page.contains("response topic"), "{page}");
        let raw = json!({ "summary": {}, "payload": { "bytes": 70000, "hex": "00ff", "cut": true } });
        assert!(super::page(&raw).ends_with("\nhex 00ff\n(the rest isn't shown)\n"));
    }
}
