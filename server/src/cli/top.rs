//! `tidegate top`: what a gateway that runs is busy with. Rates of the last seconds, rules that see most, topics and clients that publish most,
//! clients that are slow.

use std::cmp::Reverse;

use clap::Args;
use serde_json::{Map, Value};

use super::gateway::{GatewayArgs, pages, path};
use super::output::Output;
use super::table::in_columns;
use super::{ConfigArgs, Exit, Failure, without_control_characters};
use crate::cli::dead_letters::time;
use crate::config::Environment;

/// Arguments of `top`.
#[derive(Debug, Args)]
pub(super) struct TopArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Most lines of each table.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    limit: u16,
    /// Print everything as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(args: &TopArgs, outer: &ConfigArgs, environment: &Environment) -> Result<Exit, Failure> {
    let mut client = args.gateway.api(outer, environment)?;
    let mut seen = Map::new();
    for (member, place) in [
        ("stats", "stats"),
        ("history", "metrics/history?resolution=fine"),
        ("heavy_hitters", "metrics/heavy-hitters"),
        ("slow_subscribers", "metrics/slow-subscribers"),
        ("topics", "metrics/topics"),
    ] {
        seen.insert(member.to_owned(), client.get(&format!("/api/v1/{place}"))?);
    }
    let filters = [("runs", Some("true")), ("details", Some("true"))];
    let (rules, _) = pages(&mut client, &path(&["rules"]), &filters, "rules", u64::MAX)?;
    let counters = rules.into_iter().filter_map(|mut rule| {
        let counters = rule.get_mut("details")?.get_mut("counters").map(Value::take)?;
        counters.is_object().then_some(counters)
    });
    seen.insert("rules".to_owned(), counters.collect());
    let seen = Value::Object(seen);
    let out = Output::stdout();
    if args.json {
        out.json(&seen)?;
    } else {
        out.bytes(text(&seen, usize::from(args.limit)).as_bytes())?;
    }
    Ok(Exit::Success)
}

/// The last two samples of a figure, and the seconds between them.
fn last_two(history: &Value, series: &str) -> Option<(u64, u64, f64)> {
    let times = history.get("at_ms")?.as_array()?;
    let values = history
        .get("series")?
        .as_array()?
        .iter()
        .find(|one| one["name"] == *series)?
        .get("values")?
        .as_array()?;
    let before = |of: &[Value]| of.len().checked_sub(2).and_then(|place| of.get(place)).cloned();
    #[expect(clippy::cast_precision_loss, reason = "some seconds")]
    let elapsed_s = (times.last()?.as_i64()? - before(times)?.as_i64()?) as f64 / 1_000.0;
    Some((before(values)?.as_u64()?, values.last()?.as_u64()?, elapsed_s)).filter(|_| elapsed_s > 0.0)
}

fn rate(history: &Value, series: &str) -> String {
    let Some((before, after, elapsed_s)) = last_two(history, series) else { return "-".to_owned() };
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let per_second = after.saturating_sub(before) as f64 / elapsed_s;
    format!("{per_second:.1}")
}

fn text(seen: &Value, limit: usize) -> String {
    let (history, stats) = (part(seen, "/history"), part(seen, "/stats/stats"));
    let count = |name: &str| stats[name].as_u64().unwrap_or(0).to_string();
    let heading = ["", "NOW", "PER SECOND"];
    let rows = [
        ["connections".to_owned(), count("connections"), "-".to_owned()],
        ["sessions".to_owned(), count("sessions"), "-".to_owned()],
        ["messages received".to_owned(), count("messages_received"), rate(history, "messages_received")],
        ["messages delivered".to_owned(), count("messages_delivered"), rate(history, "messages_delivered")],
        ["bytes received".to_owned(), count("bytes_received"), rate(history, "bytes_received")],
        ["bytes sent".to_owned(), count("bytes_sent"), rate(history, "bytes_sent")],
    ];
    let mut out = in_columns(heading, rows.into_iter());
    let mut rules: Vec<&Value> = seen["rules"].as_array().into_iter().flatten().collect();
    rules.sort_by_key(|rule| Reverse(number(rule, "matched")));
    let rules = rules.into_iter().take(limit).map(|rule| {
        [
            name(rule, "name"),
            shown(rule, "matched"),
            shown(rule, "passed"),
            shown(rule, "failed_evaluation"),
            at(rule, "last_match_at_ms"),
        ]
    });
    section(&mut out, ["RULE", "MATCHED", "PASSED", "FAILED", "LAST MATCH"], rules);
    for (member, heading) in [("topics", "TOPIC"), ("clients", "CLIENT")] {
        let heavy =
            part(seen, &format!("/heavy_hitters/{member}")).as_array().into_iter().flatten().take(limit);
        section(
            &mut out,
            [heading, "MESSAGES"],
            heavy.map(|one| [name(one, "name"), shown(one, "messages")]),
        );
    }
    let slow = part(seen, "/slow_subscribers/subscribers").as_array().into_iter().flatten().take(limit).map(
        |client| {
            let now =
                client["oldest_age_ms"].as_u64().map_or_else(|| "-".to_owned(), |age| format!("{age} ms"));
            [
                name(client, "client_id"),
                now,
                format!("{} ms", number(client, "longest_ms")),
                at(client, "last_at_ms"),
                shown(client, "messages"),
            ]
        },
    );
    section(&mut out, ["SLOW CLIENT", "WAITS", "LONGEST", "LAST", "MESSAGES"], slow);
    let topics = part(seen, "/topics/topics").as_array().into_iter().flatten().take(limit).map(|topic| {
        [
            name(topic, "filter"),
            shown(topic, "received"),
            shown(topic, "delivered"),
            shown(topic, "dropped"),
            shown(topic, "received_bytes"),
        ]
    });
    section(&mut out, ["FILTER", "IN", "OUT", "DROPPED", "BYTES IN"], topics);
    out
}

/// A part of what was seen; null: it isn't there.
fn part<'v>(seen: &'v Value, pointer: &str) -> &'v Value {
    seen.pointer(pointer).unwrap_or(&Value::Null)
}

/// Adds a table, if it has lines.
fn section<const N: usize>(out: &mut String, heading: [&str; N], rows: impl Iterator<Item = [String; N]>) {
    let rows: Vec<_> = rows.collect();
    if !rows.is_empty() {
        out.push('\n');
        out.push_str(&in_columns(heading, rows.into_iter()));
    }
}

fn number(value: &Value, member: &str) -> u64 {
    value[member].as_u64().unwrap_or(0)
}

fn shown(value: &Value, member: &str) -> String {
    number(value, member).to_string()
}

fn at(value: &Value, member: &str) -> String {
    value[member].as_i64().map_or_else(|| "-".to_owned(), time)
}

/// A name that somebody chose, without what a terminal would obey.
fn name(value: &Value, member: &str) -> String {
    let name = value[member].as_str().unwrap_or_default();
    String::from_utf8_lossy(&without_control_characters(name.as_bytes())).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_there_is_stands_in_tables_and_what_there_is_not_is_left_out() {
        let seen = json!({
            "stats": { "stats": { "connections": 3, "sessions": 4, "messages_received": 70 } },
            "history": { "at_ms": [0, 10_000], "series": [{ "name": "messages_received", "values": [20, 70] }] },
            "rules": [
                { "name": "quiet", "matched": 1, "passed": 0, "failed_evaluation": 0, "last_match_at_ms": null },
                { "name": "busy", "matched": 9, "passed": 5, "failed_evaluation": 1, "last_match_at_ms": 0 },
            ],
            "heavy_hitters": { "topics": [{ "name": "a/\u{1b}b", "messages": 640 }], "clients": [] },
            "slow_subscribers": { "subscribers": [
                { "client_id": "c", "oldest_age_ms": null, "longest_ms": 1_500, "last_at_ms": 0, "messages": 7 },
            ] },
            "topics": { "topics": [] },
        });
        let figures = "                    NOW  PER SECOND\n";
        let expected = "\
connections         3    -
sessions            4    -
messages received   70   5.0
messages delivered  0    -
bytes received      0    -
bytes sent          0    -

RULE  MATCHED  PASSED  FAILED  LAST MATCH
busy  9        5       1       1970-01-01T00:00:00Z

TOPIC      MESSAGES
a/\\u{1b}b  640

SLOW CLIENT  WAITS  LONGEST  LAST                  MESSAGES
c            -      1500 ms  1970-01-01T00:00:00Z  7
";
        assert_eq!(text(&seen, 1), format!("{figures}{expected}"));
    }
}
