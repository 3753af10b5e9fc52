//! `tidegate diag`: what somebody needs who is to find out what is wrong with a gateway, in one file.
//!
//! It is what the HTTP interface answers to a viewer and more, so that nothing is in it that the interface would not show: secrets are
//! masked there. Payloads, and texts out of them, are left out here too, unless they are asked for.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use serde_json::{Map, Value, json};

use super::format::iso_8601;
use super::gateway::{GatewayArgs, path};
use super::output::{Output, notice};
use super::{ConfigArgs, Exit, Failure};
use crate::admin::{AdminClientError, ApiClient};
use crate::config::Environment;

/// What is asked for: the name in the file, and the path.
const PARTS: [(&str, &[&str], &str); 10] = [
    ("server", &["server"], ""),
    ("alarms", &["alarms"], ""),
    ("config", &["config"], ""),
    ("actions", &["actions"], "?limit=1000"),
    ("connectors", &["connectors"], "?limit=1000"),
    ("rules", &["rules"], "?limit=1000"),
    ("clients", &["clients"], "?limit=100"),
    ("dead_letters", &["dead-letters"], "?limit=100"),
    ("audit", &["audit"], "?limit=200"),
    ("failed_traces", &["traces"], "?failed=true&limit=50"),
];

/// Files of the system that say how the machine and the process are.
const SYSTEM: [&str; 5] =
    ["/proc/version", "/proc/loadavg", "/proc/meminfo", "/proc/pressure/io", "/proc/pressure/cpu"];

/// Members that hold texts of clients or of rules' messages.
const PAYLOADS: [&str; 4] = ["payload", "request", "answer", "error"];

/// What stands for something that was left out.
const LEFT_OUT: &str = "(left out)";

/// Arguments of `diag`.
#[derive(Debug, Args)]
pub(super) struct DiagArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// The file to write; `-` for standard output.
    #[arg(value_name = "FILE", default_value = "tidegate-diag.json")]
    file: PathBuf,
    /// Keep what came out of messages: errors that quote them, and what far sides answered.
    #[arg(long)]
    with_payloads: bool,
    /// Write over a file that is there.
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub(super) fn run(args: &DiagArgs, outer: &ConfigArgs, environment: &Environment) -> Result<Exit, Failure> {
    let mut client = args.gateway.api(outer, environment)?;
    let mut whole = Map::new();
    whole.insert("made_at".to_owned(), iso_8601(SystemTime::now()).into());
    whole.insert("program".to_owned(), env!("CARGO_PKG_VERSION").into());
    for (name, parts, query) in PARTS {
        let mut answer = ask(&mut client, &(path(parts) + query))?;
        if !args.with_payloads && name != "config" {
            leave_out(&mut answer);
        }
        whole.insert(name.to_owned(), answer);
    }
    match client.get_text("/metrics") {
        Ok(text) => drop(whole.insert("metrics".to_owned(), text.into())),
        Err(error) => drop(whole.insert("metrics".to_owned(), refused(error)?)),
    }
    let system = SYSTEM.iter().filter_map(|file| {
        let text = std::fs::read_to_string(file).ok()?;
        Some(((*file).to_owned(), Value::from(text)))
    });
    whole.insert("system".to_owned(), Value::Object(system.collect()));
    let text = format!("{:#}\n", Value::Object(whole));
    if args.file.as_os_str() == "-" {
        Output::stdout().bytes(text.as_bytes())?;
        return Ok(Exit::Success);
    }
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600).create(true).truncate(args.force).create_new(!args.force);
    let written = options.open(&args.file).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| {
        let text = format!("{} can't be written: {error}; --force writes over a file", args.file.display());
        Failure::new(Exit::Failed, text)
    })?;
    notice(&format!("written to {}: read it before you hand it on", args.file.display()));
    Ok(Exit::Success)
}

/// Asks for a part. One that is refused says why in its place.
fn ask(client: &mut ApiClient, path: &str) -> Result<Value, Failure> {
    match client.get(path) {
        Ok(answer) => Ok(answer),
        Err(error) => refused(error),
    }
}

fn refused(error: AdminClientError) -> Result<Value, Failure> {
    match error {
        AdminClientError::Refused { code, message, .. } => Ok(json!({ "refused": code, "detail": message })),
        error => Err(error.into()),
    }
}

/// Takes texts of clients and of messages out, at any depth.
fn leave_out(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                if PAYLOADS.contains(&name.as_str()) && !value.is_null() {
                    *value = LEFT_OUT.into();
                } else {
                    leave_out(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(leave_out),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_out_of_messages_is_left_out_at_any_depth() {
        let mut value = json!({ "traces": [{ "error": "no \"canary\"", "topic": "a", "inner": { "payload": { "text": "canary" } } }],
            "error": null });
        leave_out(&mut value);
        assert!(!value.to_string().contains("canary"), "{value}");
        assert_eq!((&value["traces"][0]["topic"], &value["error"]), (&json!("a"), &Value::Null));
    }
}
