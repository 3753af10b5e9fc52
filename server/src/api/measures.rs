//! What is measured beside `/metrics`: topics, who publishes most, who is slow, the figures of the last day.

use std::sync::Arc;

use axum::extract::State;
use broker::{HeavyHitter, MeterError, MeterReading};
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::audit::Change;
use super::extract::{Json, Path, Query};
use super::problem::{Kind, Problem};
use crate::metrics::{Resolution, SERIES};

/// Messages of a Topic Filter, since it is counted.
#[derive(Serialize, ToSchema)]
pub(super) struct TopicMetrics {
    filter: String,
    /// Since when, milliseconds since 1970.
    since_ms: i64,
    /// Messages that came, those of rules and of the gateway among them.
    received: u64,
    /// Payload bytes of those.
    received_bytes: u64,
    /// Messages handed to receivers, one for each.
    delivered: u64,
    /// Payload bytes of those.
    delivered_bytes: u64,
    /// Messages that a receiver should have had and that were dropped when they came.
    dropped: u64,
}

impl From<MeterReading> for TopicMetrics {
    fn from(reading: MeterReading) -> Self {
        Self {
            filter: reading.filter,
            since_ms: reading.since_ms,
            received: reading.received,
            received_bytes: reading.received_bytes,
            delivered: reading.delivered,
            delivered_bytes: reading.delivered_bytes,
            dropped: reading.dropped,
        }
    }
}

/// All filters that are counted, in the order in which they were added.
#[derive(Serialize, ToSchema)]
pub(super) struct TopicMetricsList {
    topics: Vec<TopicMetrics>,
}

/// A filter that is to be counted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTopicMetrics {
    filter: String,
}

/// Shows what Topic Filters have counted.
#[utoipa::path(get, path = "/api/v1/metrics/topics", operation_id = "listTopicMetrics", tag = "metrics",
    responses((status = 200, description = "The filters", body = TopicMetricsList)))]
pub(super) async fn list_topics(State(api): State<Arc<Api>>) -> Json<TopicMetricsList> {
    let topics = api.gateway.broker.meters().into_iter().map(TopicMetrics::from).collect();
    Json(TopicMetricsList { topics })
}

/// Counts messages of a Topic Filter from now on, until the gateway ends. One that is counted already goes on.
#[utoipa::path(post, path = "/api/v1/metrics/topics", operation_id = "addTopicMetrics", tag = "metrics",
    request_body = NewTopicMetrics,
    responses((status = 200, description = "All filters", body = TopicMetricsList)))]
pub(super) async fn add_topic(
    State(api): State<Arc<Api>>,
    Json(body): Json<NewTopicMetrics>,
) -> Result<(Change, Json<TopicMetricsList>), Problem> {
    let refused = |error: MeterError| {
        let kind = if matches!(error, MeterError::TooMany { .. }) { Kind::Conflict } else { Kind::Invalid };
        Problem::new(kind, format!("filter: {error}"))
    };
    api.gateway.broker.add_meter(&body.filter).map_err(refused)?;
    let change = Change::of(body.filter);
    Ok((change, list_topics(State(api)).await))
}

/// Counts messages of a Topic Filter no more, and forgets what was counted.
#[utoipa::path(delete, path = "/api/v1/metrics/topics/{filter}", operation_id = "removeTopicMetrics", tag = "metrics",
    params(("filter" = String, Path, description = "The filter, percent-encoded")),
    responses((status = 204, description = "It isn't counted any more")))]
pub(super) async fn remove_topic(
    State(api): State<Arc<Api>>,
    Path(filter): Path<String>,
) -> Result<StatusCode, Problem> {
    if api.gateway.broker.remove_meter(&filter) {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::new(Kind::Missing, "messages of this filter aren't counted"))
    }
}

/// A topic or a client that publishes much.
#[derive(Serialize, ToSchema)]
pub(super) struct HeavyHitterInfo {
    /// Topic Name or Client Identifier, cut to 256 bytes.
    name: String,
    /// Messages in the window, about.
    messages: u64,
    /// By how many of them that may be too much.
    too_many_at_most: u64,
}

impl From<HeavyHitter> for HeavyHitterInfo {
    fn from(hitter: HeavyHitter) -> Self {
        let HeavyHitter { name, messages, too_many_at_most, .. } = hitter;
        Self { name, messages, too_many_at_most }
    }
}

/// Who publishes most.
#[derive(Serialize, ToSchema)]
pub(super) struct HeavyHittersInfo {
    /// Whether anybody looks for that (`metrics.heavy_hitters`).
    is_on: bool,
    /// Length of the window that is shown, in milliseconds.
    window_ms: u64,
    /// The most frequent first.
    topics: Vec<HeavyHitterInfo>,
    /// The most frequent first.
    clients: Vec<HeavyHitterInfo>,
}

/// Shows the topics and the clients that publish most.
#[utoipa::path(get, path = "/api/v1/metrics/heavy-hitters", operation_id = "getHeavyHitters", tag = "metrics",
    responses((status = 200, description = "The topics and the clients", body = HeavyHittersInfo)))]
pub(super) async fn heavy_hitters(State(api): State<Arc<Api>>) -> Json<HeavyHittersInfo> {
    let found = api.gateway.broker.heavy_hitters();
    let is_on = found.is_some();
    let found = found.unwrap_or_default();
    let shown = |hitters: Vec<HeavyHitter>| hitters.into_iter().map(HeavyHitterInfo::from).collect();
    let (topics, clients) = (shown(found.topics), shown(found.clients));
    Json(HeavyHittersInfo { is_on, window_ms: found.window_ms, topics, clients })
}

/// A client that is slow to take its messages, or was in the last hour.
#[derive(Serialize, ToSchema)]
#[schema(as = SlowSubscriber)]
pub(super) struct SlowSubscriberInfo {
    client_id: String,
    /// Age of the message that has waited longest; null: it has caught up.
    oldest_age_ms: Option<u64>,
    /// The longest that a message was seen to have waited.
    longest_ms: u64,
    /// When it was slow last, milliseconds since 1970.
    last_at_ms: i64,
    /// Messages that waited then.
    messages: u64,
    /// Their bytes.
    bytes: u64,
}

/// Slow subscribers.
#[derive(Serialize, ToSchema)]
pub(super) struct SlowSubscriberList {
    /// Those that are slow now first, and the slowest first.
    subscribers: Vec<SlowSubscriberInfo>,
}

/// Shows the clients that are slow to take their messages.
#[utoipa::path(get, path = "/api/v1/metrics/slow-subscribers", operation_id = "listSlowSubscribers", tag = "metrics",
    responses((status = 200, description = "The clients", body = SlowSubscriberList)))]
pub(super) async fn slow_subscribers(State(api): State<Arc<Api>>) -> Json<SlowSubscriberList> {
    let slow = api.gateway.seen().slow.lock().read();
    let subscribers = slow.into_iter().map(|client| SlowSubscriberInfo {
        client_id: client.client_id,
        oldest_age_ms: client.oldest_age_ms,
        longest_ms: client.longest_ms,
        last_at_ms: client.last_at_ms,
        messages: client.messages,
        bytes: client.bytes,
    });
    Json(SlowSubscriberList { subscribers: subscribers.collect() })
}

/// Which figures of the past are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct HistoryQuery {
    /// Names of figures, with commas between them; all where nothing is said.
    series: Option<String>,
    /// From when on, milliseconds since 1970; as far as it goes where nothing is said.
    from: Option<i64>,
    /// `fine`: every ten seconds, for an hour; `minute`: every minute, for a day. `minute` where nothing is said.
    #[param(inline)]
    resolution: Option<Resolution>,
}

/// Figures of the past.
#[derive(Serialize, ToSchema)]
pub(super) struct HistoryInfo {
    /// Milliseconds since 1970, oldest first. Empty: nothing is kept yet, or at all (`metrics.history`).
    at_ms: Vec<i64>,
    series: Vec<HistorySeries>,
}

/// A figure.
#[derive(Serialize, ToSchema)]
pub(super) struct HistorySeries {
    name: &'static str,
    /// Whether it only grows, from 0 at the gateway's start.
    is_counter: bool,
    /// A value for each of `at_ms`.
    values: Vec<u64>,
}

/// Shows how the main figures were in the last day.
#[utoipa::path(get, path = "/api/v1/metrics/history", operation_id = "getMetricsHistory", tag = "metrics",
    params(HistoryQuery),
    responses((status = 200, description = "The figures", body = HistoryInfo)))]
pub(super) async fn history(
    State(api): State<Arc<Api>>,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<HistoryInfo>, Problem> {
    let wanted: Option<Vec<&str>> = query.series.as_deref().map(|names| names.split(',').collect());
    let is_known = |name: &&&str| SERIES.iter().any(|(known, _)| known == *name);
    if let Some(unknown) = wanted.iter().flatten().find(|name| !is_known(name)) {
        let known: Vec<_> = SERIES.iter().map(|(name, _)| *name).collect();
        let text = format!("series: {unknown:?} is none of {}", known.join(", "));
        return Err(Problem::new(Kind::Invalid, text));
    }
    let resolution = query.resolution.unwrap_or(Resolution::Minute);
    let samples = api.gateway.seen().history.lock().since(query.from.unwrap_or(i64::MIN), resolution);
    let of = |(place, (name, is_counter)): (usize, &(&'static str, bool))| HistorySeries {
        name,
        is_counter: *is_counter,
        values: samples.iter().filter_map(|sample| sample.values.get(place).copied()).collect(),
    };
    let is_wanted = |name: &str| wanted.as_ref().is_none_or(|wanted| wanted.contains(&name));
    let series = SERIES.iter().enumerate().filter(|(_, (name, _))| is_wanted(name)).map(of);
    Ok(Json(HistoryInfo {
        at_ms: samples.iter().map(|sample| sample.at_ms).collect(),
        series: series.collect(),
    }))
}
