//! `tidegate alarms`: what somebody should look at on a gateway that runs.

use clap::Args;
use serde_json::Value;

use super::dead_letters::time;
use super::gateway::{GatewayArgs, path, text_of};
use super::output::{Output, notice};
use super::table::in_columns;
use super::{ConfigArgs, Exit, Failure};
use crate::config::Environment;

/// Arguments of `alarms`.
#[derive(Debug, Args)]
pub(super) struct AlarmsArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Show those that are over, too.
    #[arg(long)]
    all: bool,
    /// Print each as one JSON object a line.
    #[arg(long)]
    json: bool,
}

const HEADINGS: [&str; 6] = ["ALARM", "SUBJECT", "SEVERITY", "SINCE", "CLEARED", "DETAIL"];

/// Lists alarms. The exit code is 1 while one stands, so that a script can ask.
pub(super) fn run(args: &AlarmsArgs, outer: &ConfigArgs, environment: &Environment) -> Result<Exit, Failure> {
    let out = Output::stdout();
    let answer = args.gateway.api(outer, environment)?.get(&path(&["alarms"]))?;
    let list = |member: &str| answer.get(member).and_then(Value::as_array).cloned().unwrap_or_default();
    let standing = list("standing");
    let exit = if standing.is_empty() { Exit::Success } else { Exit::Failed };
    let shown = if args.all { [standing, list("ended")].concat() } else { standing };
    if args.json {
        shown.iter().try_for_each(|alarm| out.json(alarm))?;
    } else if shown.is_empty() {
        notice("no alarms");
    } else {
        out.bytes(in_columns(HEADINGS, shown.iter().map(row)).as_bytes())?;
    }
    Ok(exit)
}

fn row(alarm: &Value) -> [String; HEADINGS.len()] {
    let [kind, subject, severity, detail] =
        ["alarm", "subject", "severity", "detail"].map(|member| text_of(alarm, member));
    let time = |member: &str| alarm.get(member).and_then(Value::as_i64).map_or_else(|| "-".to_owned(), time);
    [kind, subject, severity, time("raised_at_ms"), time("cleared_at_ms"), detail]
}
