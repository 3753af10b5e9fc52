//! `tidegate trace`: the way of single messages through a gateway that runs.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

use super::gateway::{GatewayArgs, pages, path, query, text_of};
use super::output::{Output, notice};
use super::table::in_columns;
use super::{ConfigArgs, Exit, Failure, signals, without_control_characters};
use crate::admin::ApiClient;
use crate::config::Environment;

/// Between two looks at what has come.
const LOOK: Duration = Duration::from_millis(500);
/// How long a trace has to stay as it is before it is shown.
const SETTLED: Duration = Duration::from_millis(700);
/// Traces that are remembered as shown.
const SHOWN_MAX: usize = 10_000;

/// Arguments of `trace`.
#[derive(Debug, Args)]
pub(super) struct TraceArgs {
    #[command(subcommand)]
    command: TraceCommand,
}

#[derive(Debug, Subcommand)]
enum TraceCommand {
    /// Have messages traced for a while, and show each.
    Watch(WatchArgs),
    /// List the traces that there are, the newest first.
    List(ListArgs),
    /// Show one, step by step.
    Show(ShowArgs),
}

#[derive(Debug, Args)]
struct WatchArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Trace messages of this publisher; may be repeated.
    #[arg(short = 'i', long = "client", value_name = "ID")]
    clients: Vec<String>,
    /// Trace messages whose topic this filter matches; may be repeated.
    #[arg(short = 't', long = "topic", value_name = "FILTER")]
    topics: Vec<String>,
    /// Trace messages that come to this rule; may be repeated.
    #[arg(short = 'r', long = "rule", value_name = "NAME")]
    rules: Vec<String>,
    /// Trace this share of all messages, 0 to 1.
    #[arg(long, value_name = "SHARE")]
    ratio: Option<f64>,
    /// Stop after so many seconds.
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 600)]
    for_s: u64,
    /// Stop after so many traces.
    #[arg(short = 'n', long, value_name = "COUNT")]
    count: Option<u64>,
    /// Print each as one JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Only those in which something failed.
    #[arg(long)]
    failed: bool,
    /// Only those of messages of this publisher.
    #[arg(short = 'i', long, value_name = "ID")]
    client: Option<String>,
    /// Only those of messages whose topic this filter matches.
    #[arg(short = 't', long, value_name = "FILTER")]
    topic: Option<String>,
    /// Only those in which this rule made something of the message.
    #[arg(short = 'r', long, value_name = "NAME")]
    rule: Option<String>,
    /// Most traces.
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 50)]
    limit: u64,
    /// Print each as one JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ShowArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// The trace's identifier: 32 hexadecimal digits, with or without hyphens, as traceid() gives it in a rule.
    #[arg(value_name = "TRACE")]
    trace: String,
    /// Print it as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(args: &TraceArgs, outer: &ConfigArgs, environment: &Environment) -> Result<Exit, Failure> {
    let out = Output::stdout();
    match &args.command {
        TraceCommand::Watch(args) => {
            let mut client = args.gateway.api(outer, environment)?;
            return watch(args, &mut client, &out);
        }
        TraceCommand::List(args) => {
            let mut client = args.gateway.api(outer, environment)?;
            let wanted = [
                ("failed", args.failed.then_some("true")),
                ("client_id", args.client.as_deref()),
                ("topic", args.topic.as_deref()),
                ("rule", args.rule.as_deref()),
            ];
            let (found, _) = pages(&mut client, &path(&["traces"]), &wanted, "traces", args.limit)?;
            if args.json {
                found.iter().try_for_each(|trace| out.json(trace))?;
            } else if found.is_empty() {
                notice("no traces");
            } else {
                out.bytes(in_columns(HEADINGS, found.iter().map(row)).as_bytes())?;
            }
        }
        TraceCommand::Show(args) => {
            let trace = args.gateway.api(outer, environment)?.get(&path(&["traces", &args.trace]))?;
            show(&out, &trace, args.json)?;
        }
    }
    Ok(Exit::Success)
}

const HEADINGS: [&str; 8] = ["TRACE", "TIME", "WHY", "CLIENT", "TOPIC", "STEPS", "TOOK", "ERROR"];

fn row(trace: &Value) -> [String; HEADINGS.len()] {
    let took = trace.get("duration_us").and_then(Value::as_u64).map(took).unwrap_or_default();
    let at = trace.get("at_ms").and_then(Value::as_i64).map(time_of_day).unwrap_or_default();
    let [id, why, client, topic, steps, error] =
        ["trace_id", "why", "client_id", "topic", "spans", "error"].map(|member| text_of(trace, member));
    [id, at, why, client, topic, steps, took, error]
}

/// Begins a capture, and shows what it brings until its end.
fn watch(args: &WatchArgs, client: &mut ApiClient, out: &Output) -> Result<Exit, Failure> {
    let nothing =
        args.clients.is_empty() && args.topics.is_empty() && args.rules.is_empty() && args.ratio.is_none();
    let all = ["#".to_owned()];
    let topics = if nothing { &all[..] } else { &args.topics };
    let wanted = json!({
        "clients": args.clients, "topics": topics, "rules": args.rules, "ratio": args.ratio.unwrap_or(0.0),
        "for_s": args.for_s,
    });
    let before = client.get(&(path(&["traces"]) + &query(&[("limit", Some("1"))])))?;
    let mut since = before.get("last").and_then(Value::as_u64).unwrap_or(0);
    let capture = client.request(&Method::POST, &path(&["trace-captures"]), Some(&wanted))?;
    let capture = path(&["trace-captures", &text_of(&capture, "id")]);
    let stop = signals::stop_flag()?;
    let end = Instant::now() + Duration::from_secs(args.for_s) + SETTLED;
    // When each trace was seen to change last; `None`: it was shown.
    let mut seen: HashMap<String, Option<Instant>> = HashMap::new();
    let mut shown = 0;
    while Instant::now() < end && args.count.is_none_or(|count| shown < count) {
        let since_text = since.to_string();
        let wanted = [("since", Some(since_text.as_str())), ("limit", Some("1000"))];
        let page = client.get(&(path(&["traces"]) + &query(&wanted)))?;
        since = page.get("last").and_then(Value::as_u64).unwrap_or(since);
        let now = Instant::now();
        for trace in page.get("traces").and_then(Value::as_array).into_iter().flatten() {
            // What was shown and goes on is shown again, as a whole.
            seen.insert(text_of(trace, "trace_id"), Some(now));
        }
        let settled: Vec<String> = seen
            .iter()
            .filter(|(_, at)| at.is_some_and(|at| now.duration_since(at) >= SETTLED))
            .map(|(id, _)| id.clone())
            .collect();
        for id in settled {
            seen.insert(id.clone(), None);
            if args.count.is_some_and(|count| shown >= count) {
                break;
            }
            // It may be gone already.
            if let Ok(trace) = client.get(&path(&["traces", &id])) {
                show(out, &trace, args.json)?;
                shown += 1;
            }
        }
        if seen.len() > SHOWN_MAX {
            seen.retain(|_, at| at.is_some());
        }
        if stop.wait(LOOK) {
            break;
        }
    }
    // Its time may be over.
    drop(client.request(&Method::DELETE, &capture, None));
    Ok(Exit::Success)
}

fn show(out: &Output, trace: &Value, is_json: bool) -> Result<(), Failure> {
    if is_json { out.json(trace) } else { out.bytes(&without_control_characters(page(trace).as_bytes())) }
}

/// A trace for people: its steps as a tree.
fn page(trace: &Value) -> String {
    let mut page = format!("trace {}  {}\n", text_of(trace, "trace_id"), text_of(trace, "why"));
    let steps = trace.get("steps").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let id = |step: &Value| text_of(step, "span_id");
    let is_known = |parent: &str| steps.iter().any(|step| id(step) == parent);
    let begin = steps.first().map_or(0, |step| number(step, "at_us"));
    // What belongs to nothing that is kept stands at the left.
    let roots = steps.iter().filter(|step| !is_known(&text_of(step, "parent_span_id")));
    let mut left: Vec<(usize, &Value)> = roots.map(|step| (0, step)).collect();
    left.reverse();
    while let Some((depth, step)) = left.pop() {
        step_lines(&mut page, depth, step, begin);
        let own = id(step);
        // A span is no ancestor of itself, whatever was sent to us.
        let children =
            steps.iter().filter(|child| text_of(child, "parent_span_id") == own && id(child) != own);
        let mut children: Vec<(usize, &Value)> = children.map(|child| (depth + 1, child)).collect();
        children.reverse();
        left.append(&mut children);
        if depth > steps.len() {
            break;
        }
    }
    let dropped = number(trace, "steps_dropped");
    if dropped > 0 {
        let _infallible = writeln!(page, "  {dropped} more steps were not kept");
    }
    page
}

fn step_lines(page: &mut String, depth: usize, step: &Value, begin: u64) {
    let indent = "  ".repeat(depth + 1);
    let attribute = |name: &str| text_of(step.get("attributes").unwrap_or(&Value::Null), name);
    let what = match text_of(step, "kind").as_str() {
        "publish" => format!(
            "publish on {} by {}, QoS {}, {} bytes",
            attribute("messaging.destination.name"),
            or(attribute("messaging.client.id"), "the gateway"),
            attribute("tidegate.qos"),
            attribute("messaging.message.body.size"),
        ),
        "rule" => format!("rule {}: {}", attribute("tidegate.rule.id"), attribute("tidegate.rule.outcome")),
        "route" => format!(
            "to {} receivers and {} shared groups: {}",
            attribute("tidegate.receivers"),
            attribute("tidegate.shared_groups"),
            or(attribute("tidegate.receivers.client_ids"), "nobody"),
        ),
        "republish" => format!("republished on {}", attribute("messaging.destination.name")),
        "action" => format!(
            "action {} ({}) {}",
            attribute("tidegate.action.id"),
            attribute("tidegate.action.kind"),
            attribute("tidegate.action.resource")
        ),
        "attempt" => format!(
            "attempt {} after {} ms in the queue: {}",
            attribute("tidegate.attempt"),
            attribute("tidegate.waited_ms"),
            attribute("tidegate.outcome")
        ),
        "settle" => format!("given up: {}", attribute("tidegate.reason")),
        _ => text_of(step, "name"),
    };
    let at = took(number(step, "at_us").saturating_sub(begin));
    let _infallible = writeln!(page, "{indent}+{at:<9} {what}  [{}]", took(number(step, "duration_us")));
    let error = text_of(step, "error");
    if error != "-" {
        let _infallible = writeln!(page, "{indent}           error: {error}");
    }
    let explanation =
        step.get("attributes").and_then(|attributes| attributes.get("tidegate.rule.explanation"));
    for line in explanation.and_then(Value::as_str).into_iter().flat_map(str::lines).skip(1) {
        let _infallible = writeln!(page, "{indent}           {line}");
    }
}

fn or(text: String, instead: &str) -> String {
    // What a member that isn't there is shown as.
    if text == "-" { instead.to_owned() } else { text }
}

fn number(of: &Value, member: &str) -> u64 {
    of.get(member).and_then(Value::as_u64).unwrap_or(0)
}

/// So many microseconds.
fn took(us: u64) -> String {
    match us {
        0..1_000 => format!("{us}us"),
        1_000..1_000_000 => format!("{}.{:01}ms", us / 1_000, us % 1_000 / 100),
        _ => format!("{}.{:01}s", us / 1_000_000, us % 1_000_000 / 100_000),
    }
}

/// The time of day, UTC.
fn time_of_day(ms: i64) -> String {
    let of_day = ms.rem_euclid(86_400_000);
    let (seconds, rest) = (of_day / 1_000, of_day % 1_000);
    format!("{:02}:{:02}:{:02}.{rest:03}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_a_tree_whatever_belongs_to_whom() {
        let step = |id: &str, parent: Option<&str>, kind: &str| {
            json!({ "span_id": id, "parent_span_id": parent, "kind": kind, "name": kind, "at_us": 5, "duration_us": 1_500,
                "error": if kind == "settle" { Some("no") } else { None }, "attributes": {
                "tidegate.rule.id": "hot", "tidegate.rule.outcome": "output",
                "tidegate.rule.explanation": "hot: passed\n  WHERE t > 1  =>  true\n" }, "links": [] })
        };
        let trace = json!({ "trace_id": "ab", "why": "topic", "steps_dropped": 2, "steps": [
            step("1", Some("gone"), "publish"), step("2", Some("1"), "rule"), step("3", Some("2"), "settle"),
            step("4", Some("4"), "other"),
        ] });
        let page = page(&trace);
        let lines: Vec<&str> = page.lines().collect();
        assert!(lines[0].starts_with("trace ab  topic"));
        assert!(lines[1].starts_with("  +0us") && lines[1].contains("publish on"), "{page}");
        assert!(page.contains("\n    +0us       rule hot: output  [1.5ms]\n"), "{page}");
        assert!(page.contains("WHERE t > 1  =>  true"), "{page}");
        assert!(page.contains("error: no") && page.ends_with("  2 more steps were not kept\n"), "{page}");
    }

    #[test]
    fn times_are_short() {
        assert_eq!([999, 1_000, 12_345, 2_500_000].map(took), ["999us", "1.0ms", "12.3ms", "2.5s"]);
        assert_eq!(time_of_day(86_400_000 + 3_661_007), "01:01:01.007Z");
        assert_eq!(time_of_day(-1), "23:59:59.999Z");
    }
}
