//! Traces: the way of single messages, and captures, which have more of them traced for a while.
//!
//! A trace shows values out of payloads, so who may see one is whoever may see messages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use hyper::StatusCode;
use mqtt_protocol::topic::{matches, validate_topic_filter};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use trace::{CAPTURE_TIME_MAX, CaptureError, CaptureId, Sampling, Span, Summary, Trace};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::action_queues::millis;
use super::audit::Change;
use super::auth::now_ms;
use super::extract::{Json, Path, Query};
use super::paging::{cursor, limit, place};
use super::problem::{Kind, Problem};

/// Which traces are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TracesQuery {
    /// Those in which something failed, or those in which nothing did.
    failed: Option<bool>,
    /// Those of messages of this publisher.
    client_id: Option<String>,
    /// Those of messages whose topic this Topic Filter matches.
    topic: Option<String>,
    /// Those in which this rule made something of the message, or failed.
    rule: Option<String>,
    /// Those that something was added to since: the `last` of an earlier answer.
    #[param(maximum = 9_223_372_036_854_775_807_i64)]
    since: Option<u64>,
    /// Most entries, 1 to 1,000; 100 where nothing is said.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before.
    after: Option<String>,
}

/// A page of traces, those first that something was added to last.
#[derive(Serialize, ToSchema)]
pub(super) struct TracePage {
    traces: Vec<TraceSummary>,
    /// Where the next page begins; null: there is none.
    next: Option<String>,
    /// What `since` takes, to ask for what comes after this answer.
    last: u64,
}

/// A trace in short.
#[derive(Serialize, ToSchema)]
pub(super) struct TraceSummary {
    /// 32 hexadecimal digits.
    trace_id: String,
    /// Why the message was traced: `ratio`, `client`, `topic`, `rule`, `context` or `error`.
    why: &'static str,
    /// When its first step began, milliseconds since 1970.
    at_ms: i64,
    /// From there to the end of the last one.
    duration_us: u64,
    /// How many steps are kept.
    spans: usize,
    /// The first error; null: nothing failed.
    error: Option<String>,
    /// Topic of the message; null: it isn't known.
    topic: Option<String>,
    /// Its publisher; null: it isn't known.
    client_id: Option<String>,
    /// Rules that made something of it.
    rules: Vec<String>,
}

impl TraceSummary {
    fn of(summary: Summary) -> Self {
        Self {
            trace_id: format!("{:032x}", summary.trace_id),
            why: summary.why.as_str(),
            at_ms: at_ms(summary.start_ns),
            duration_us: summary.duration_ns / 1_000,
            spans: summary.spans,
            error: summary.error,
            topic: summary.topic,
            client_id: summary.client_id,
            rules: summary.rules,
        }
    }
}

/// A trace.
#[derive(Serialize, ToSchema)]
pub(super) struct TraceInfo {
    #[serde(flatten)]
    summary: TraceSummary,
    /// Its steps, in the order in which they began.
    steps: Vec<TraceStep>,
    /// Steps that are not kept, because there were too many.
    steps_dropped: u64,
}

/// A step of a message's way: a span, in the words of OpenTelemetry.
#[derive(Serialize, ToSchema)]
pub(super) struct TraceStep {
    /// 16 hexadecimal digits.
    span_id: String,
    /// The step that this is a part of; null: it is a part of none.
    parent_span_id: Option<String>,
    /// `publish`, `rule`, `route`, `republish`, `action`, `attempt` or `settle`.
    kind: &'static str,
    name: String,
    /// When it began, microseconds since 1970.
    at_us: u64,
    duration_us: u64,
    /// Why it failed; null: it didn't.
    error: Option<String>,
    /// What else is known, by the names of OpenTelemetry's conventions where there is one.
    attributes: Map<String, Value>,
    /// Steps that it has to do with: the attempt before, or those of other messages in one batch. As `traceparent`.
    links: Vec<String>,
}

impl TraceStep {
    fn of(span: &Span) -> Self {
        let attributes = span.attributes.iter().map(|(name, value)| {
            let value = match value {
                trace::Value::Text(text) => json!(text),
                trace::Value::Int(number) => json!(number),
                trace::Value::Bool(is) => json!(is),
            };
            ((*name).to_owned(), value)
        });
        Self {
            span_id: format!("{:016x}", span.context.span_id),
            parent_span_id: span.parent.map(|parent| format!("{parent:016x}")),
            kind: span.kind.as_str(),
            name: span.name.clone(),
            at_us: span.start_ns / 1_000,
            duration_us: u64::try_from(span.duration.as_micros()).unwrap_or(u64::MAX),
            error: span.error.clone(),
            attributes: attributes.collect(),
            links: span.links.iter().map(|link| link.traceparent()).collect(),
        }
    }
}

impl TraceInfo {
    fn of(trace: &Trace) -> Self {
        let mut spans: Vec<&Span> = trace.spans.iter().collect();
        spans.sort_by_key(|span| span.start_ns);
        Self {
            summary: TraceSummary::of(trace.summary()),
            steps: spans.into_iter().map(TraceStep::of).collect(),
            steps_dropped: trace.spans_dropped,
        }
    }
}

fn at_ms(ns: u64) -> i64 {
    i64::try_from(ns / 1_000_000).unwrap_or(i64::MAX)
}

/// Lists traces.
#[utoipa::path(get, path = "/api/v1/traces", operation_id = "listTraces", tag = "traces", params(TracesQuery),
    responses((status = 200, description = "A page of traces", body = TracePage)))]
pub(super) async fn list_traces(
    State(api): State<Arc<Api>>,
    Query(query): Query<TracesQuery>,
) -> Result<Json<TracePage>, Problem> {
    let limit = limit(query.limit)?;
    let before: Option<u64> = place(query.after.as_deref())?;
    if let Some(since) = query.since.filter(|since| i64::try_from(*since).is_err()) {
        return Err(Problem::new(
            Kind::Invalid,
            format!("since: expected at most {}, given {since}", i64::MAX),
        ));
    }
    if let Some(filter) = &query.topic {
        validate_topic_filter(filter)
            .map_err(|error| Problem::new(Kind::Invalid, format!("topic: {error}")))?;
    }
    api.blocking(move |api| {
        let mut last = query.since.unwrap_or(0);
        let mut found = api.gateway.broker.tracer().list(limit + 1, |summary| {
            last = last.max(summary.changed);
            before.is_none_or(|before| summary.changed < before)
                && query.since.is_none_or(|since| summary.changed > since)
                && query.failed.is_none_or(|failed| summary.error.is_some() == failed)
                && query.client_id.as_ref().is_none_or(|wanted| summary.client_id.as_ref() == Some(wanted))
                && query.rule.as_ref().is_none_or(|wanted| summary.rules.contains(wanted))
                && query
                    .topic
                    .as_ref()
                    .is_none_or(|filter| summary.topic.as_ref().is_some_and(|topic| matches(filter, topic)))
        });
        let has_more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| has_more).map(|summary| cursor(&summary.changed));
        Ok::<_, Problem>(Json(TracePage {
            traces: found.into_iter().map(TraceSummary::of).collect(),
            next,
            last,
        }))
    })
    .await
}

/// Shows a trace.
#[utoipa::path(get, path = "/api/v1/traces/{trace_id}", operation_id = "getTrace", tag = "traces",
    params(("trace_id" = String, Path, description = "32 hexadecimal digits, with or without hyphens")),
    responses((status = 200, description = "The trace", body = TraceInfo)))]
pub(super) async fn get_trace(
    State(api): State<Arc<Api>>,
    Path(trace_id): Path<String>,
) -> Result<Json<TraceInfo>, Problem> {
    let missing = || Problem::new(Kind::Missing, format!("there is no trace {trace_id:?}, or no longer"));
    // As rules show it, too: with hyphens.
    let digits = trace_id.replace('-', "");
    let is_id = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = is_id.then(|| u128::from_str_radix(&digits, 16).ok()).flatten().ok_or_else(missing)?;
    let trace = api.gateway.broker.tracer().trace(id).ok_or_else(missing)?;
    Ok(Json(TraceInfo::of(&trace)))
}

/// Messages that are traced for a while: those for which any of it says so.
#[derive(Serialize, ToSchema)]
#[schema(as = Capture)]
pub(super) struct CaptureInfo {
    id: u64,
    /// Share of all messages, 0 to 1.
    ratio: f64,
    /// Client Identifiers of publishers.
    clients: Vec<String>,
    /// Topic Filters.
    topics: Vec<String>,
    /// Rules that the message comes to.
    rules: Vec<String>,
    /// When it ends, milliseconds since 1970.
    until_ms: i64,
}

/// A capture that is wanted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewCapture {
    /// Share of all messages, 0 to 1.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 1)]
    ratio: f64,
    /// Client Identifiers of publishers.
    #[serde(default)]
    #[schema(max_items = 64)]
    clients: Vec<String>,
    /// Topic Filters.
    #[serde(default)]
    #[schema(max_items = 64)]
    topics: Vec<String>,
    /// Rules that the message comes to.
    #[serde(default)]
    #[schema(max_items = 64)]
    rules: Vec<String>,
    /// For how long, 1 to 86,400; 600 where nothing is said.
    #[serde(default = "default_time_s")]
    #[schema(minimum = 1, maximum = 86400)]
    for_s: u64,
}

const fn default_time_s() -> u64 {
    600
}

/// The captures that run.
#[derive(Serialize, ToSchema)]
pub(super) struct CaptureList {
    captures: Vec<CaptureInfo>,
}

impl CaptureInfo {
    fn of(capture: trace::Capture) -> Self {
        let left = millis(capture.until.saturating_duration_since(Instant::now()));
        let Sampling { ratio, clients, topics, rules } = capture.sampling;
        Self {
            id: capture.id.0,
            ratio,
            clients,
            topics,
            rules,
            until_ms: now_ms().saturating_add(i64::try_from(left).unwrap_or(i64::MAX)),
        }
    }
}

/// Lists captures.
#[utoipa::path(get, path = "/api/v1/trace-captures", operation_id = "listTraceCaptures", tag = "traces",
    responses((status = 200, description = "The captures that run", body = CaptureList)))]
pub(super) async fn list_captures(State(api): State<Arc<Api>>) -> Json<CaptureList> {
    let captures = api.gateway.broker.tracer().captures();
    Json(CaptureList { captures: captures.into_iter().map(CaptureInfo::of).collect() })
}

/// Has messages traced for a while.
#[utoipa::path(post, path = "/api/v1/trace-captures", operation_id = "startTraceCapture", tag = "traces",
    request_body = NewCapture,
    responses((status = 201, description = "The capture", body = CaptureInfo)))]
pub(super) async fn start_capture(
    State(api): State<Arc<Api>>,
    Json(wanted): Json<NewCapture>,
) -> Result<(StatusCode, Change, Json<CaptureInfo>), Problem> {
    let NewCapture { ratio, clients, topics, rules, for_s } = wanted;
    let tracer = api.gateway.broker.tracer();
    let time = Duration::from_secs(for_s.min(CAPTURE_TIME_MAX.as_secs() + 1));
    let id = tracer.capture(Sampling { ratio, clients, topics, rules }, time).map_err(|error| {
        let kind = if error == CaptureError::Full { Kind::Conflict } else { Kind::Invalid };
        Problem::new(kind, error.to_string())
    })?;
    let capture = tracer.captures().into_iter().find(|capture| capture.id == id);
    let capture = capture.ok_or_else(|| Problem::new(Kind::Conflict, "it has ended already"))?;
    let info = CaptureInfo::of(capture);
    let change = Change::of(id.to_string()).after(serde_json::to_value(&info).unwrap_or_default());
    Ok((StatusCode::CREATED, change, Json(info)))
}

/// Ends a capture before its time. What it has had traced stays.
#[utoipa::path(delete, path = "/api/v1/trace-captures/{id}", operation_id = "endTraceCapture", tag = "traces",
    params(("id" = u64, Path, description = "Its number")),
    responses((status = 204, description = "It has ended")))]
pub(super) async fn end_capture(
    State(api): State<Arc<Api>>,
    Path(id): Path<u64>,
) -> Result<(Change, StatusCode), Problem> {
    if !api.gateway.broker.tracer().end_capture(CaptureId(id)) {
        return Err(Problem::new(Kind::Missing, format!("there is no capture {id}, or no longer")));
    }
    Ok((Change::of(id.to_string()), StatusCode::NO_CONTENT))
}
