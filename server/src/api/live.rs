//! What goes on right now, as server-sent events: messages as they go by, rules as they work, the gateway as a whole.
//!
//! Nothing is owed to who looks on. Messages beyond the rate, or faster than they are read, are missed and counted.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use broker::Message;
use http_body_util::channel::{Channel, Sender};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use mqtt_protocol::PublishProperties;
use mqtt_protocol::topic::{ParsedFilter, parse_filter};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};
use utoipa::IntoParams;

use super::Api;
use super::counters::of_rule;
use super::extract::Query;
use super::overview;
use super::problem::{Kind, Problem};
use super::shown::Shown;
use crate::rules::{HIDDEN, RuleStats, is_secret_name};

/// Most streams at a time.
pub const STREAMS_MAX: usize = 16;
/// Messages a second where the request doesn't say how many.
pub const RATE_DEFAULT: u32 = 20;
/// Most messages a second.
pub const RATE_MAX: u32 = 1_000;
/// How often rules are looked at, missed messages told, and a line sent to show that the connection stands.
const TICK: Duration = Duration::from_secs(1);
/// Ticks of silence before a line is sent.
const SILENT_TICKS: u32 = 15;
/// Events that wait to be sent.
const EVENTS_WAITING_MAX: usize = 64;

/// Which messages are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct MessagesQuery {
    /// Topic Filter; `#` where nothing is said, which is all but what begins with `$`.
    filter: Option<String>,
    /// Most messages a second, 1 to 1,000; 20 where nothing is said.
    #[param(minimum = 1, maximum = 1000)]
    rate: Option<u32>,
}

/// There is nothing to choose.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoQuery {}

/// A stream's place among [`STREAMS_MAX`], for as long as it is kept.
struct Place(Arc<Api>);

impl Place {
    fn take(api: &Arc<Api>) -> Result<Self, Problem> {
        if api.streams.fetch_add(1, Ordering::Relaxed) >= STREAMS_MAX {
            api.streams.fetch_sub(1, Ordering::Relaxed);
            let detail = format!("{STREAMS_MAX} streams are open, which is the limit");
            return Err(Problem::new(Kind::Unavailable, detail));
        }
        Ok(Self(Arc::clone(api)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where events go.
struct Events(Sender<Bytes>);

impl Events {
    /// Sends one; `false`: nobody listens any more.
    async fn send(&mut self, event: &str, data: impl Display) -> bool {
        self.0.send_data(format!("event: {event}\ndata: {data}\n\n").into()).await.is_ok()
    }

    /// Sends a line that means nothing.
    async fn comment(&mut self) -> bool {
        self.0.send_data(Bytes::from_static(b":\n\n")).await.is_ok()
    }
}

fn stream() -> (Events, Response) {
    let (sender, body) = Channel::<Bytes>::new(EVENTS_WAITING_MAX);
    let kind = [(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))];
    (Events(sender), (kind, Body::new(body)).into_response())
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Shows messages as they go by, as events `message`; those that were missed are counted in events `missed`.
#[utoipa::path(get, path = "/api/v1/live/messages", operation_id = "watchMessages", tag = "live", params(MessagesQuery),
    responses((status = 200, description = "Events without end", body = String, content_type = "text/event-stream")))]
pub(super) async fn watch_messages(
    State(api): State<Arc<Api>>,
    Query(query): Query<MessagesQuery>,
) -> Result<Response, Problem> {
    let filter = query.filter.as_deref().unwrap_or("#");
    match parse_filter(filter) {
        Ok(ParsedFilter::Plain(_)) => {}
        Ok(ParsedFilter::Shared(_)) => {
            return Err(Problem::new(Kind::Invalid, "filter: expected no Shared Subscription"));
        }
        Err(error) => return Err(Problem::new(Kind::Invalid, format!("filter: {error}"))),
    }
    let rate = query.rate.unwrap_or(RATE_DEFAULT);
    if !(1..=RATE_MAX).contains(&rate) {
        return Err(Problem::new(Kind::Invalid, format!("rate: expected 1 to {RATE_MAX}, given {rate}")));
    }
    let place = Place::take(&api)?;
    let mut watch = api.gateway.broker.watch(filter, rate);
    let mut stopped = api.stop.subscribe();
    let (mut events, response) = stream();
    tokio::spawn(async move {
        let _place = place;
        let (mut ticks, mut silent) = (ticks(), 0_u32);
        loop {
            let is_heard = tokio::select! {
                message = watch.next() => match message {
                    Some(message) => { silent = 0; events.send("message", shown(&message)).await }
                    None => return,
                },
                _ = ticks.tick() => {
                    let missed = watch.take_missed();
                    silent += 1;
                    if missed > 0 {
                        events.send("missed", json!({ "messages": missed })).await
                    } else if silent % SILENT_TICKS == 0 {
                        events.comment().await
                    } else {
                        true
                    }
                }
                _ = stopped.changed() => return,
            };
            if !is_heard {
                return;
            }
        }
    });
    Ok(response)
}

fn shown(message: &Message) -> Value {
    let publication = message.publication();
    let properties = PublishProperties::from_encoded(message.properties()).unwrap_or_default();
    let user_properties: Vec<Value> = properties
        .user_properties
        .iter()
        .map(|(name, value)| json!({ "name": name, "value": if is_secret_name(name) { HIDDEN } else { value } }))
        .collect();
    json!({
        "topic": message.topic(),
        "qos": message.qos().level(),
        "retain": publication.retain,
        "received_at_ms": publication.received_at_ms,
        "publisher": publication.publisher.map(|publisher| &*publisher.client_id),
        "payload": Shown::of(message.payload()),
        "content_type": properties.content_type,
        "user_properties": user_properties,
    })
}

/// Shows what rules do: once a second an event `rule` for each whose counters have changed, with all of them; all rules to
/// begin with.
#[utoipa::path(get, path = "/api/v1/live/rules", operation_id = "watchRules", tag = "live",
    responses((status = 200, description = "Events without end", body = String, content_type = "text/event-stream")))]
pub(super) async fn watch_rules(
    State(api): State<Arc<Api>>,
    Query(NoQuery {}): Query<NoQuery>,
) -> Result<Response, Problem> {
    let place = Place::take(&api)?;
    let mut stopped = api.stop.subscribe();
    let (mut events, response) = stream();
    tokio::spawn(async move {
        let place = place;
        let mut before = BTreeMap::new();
        let (mut ticks, mut silent) = (ticks(), 0_u32);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = stopped.changed() => return,
            }
            let now = counters(&place.0);
            silent += 1;
            for (name, counters) in &now {
                if before.get(name) != Some(counters) {
                    silent = 0;
                    if !events.send("rule", counters).await {
                        return;
                    }
                }
            }
            for name in before.keys().filter(|name| !now.contains_key(*name)) {
                if !events.send("rule_gone", json!({ "name": name })).await {
                    return;
                }
            }
            before = now;
            if silent > 0 && silent % SILENT_TICKS == 0 && !events.comment().await {
                return;
            }
        }
    });
    Ok(response)
}

/// Shows how the gateway is, as getOverview does: an event `overview` at once, and then one a second.
#[utoipa::path(get, path = "/api/v1/live/overview", operation_id = "watchOverview", tag = "live",
    responses((status = 200, description = "Events without end", body = String, content_type = "text/event-stream")))]
pub(super) async fn watch_overview(
    State(api): State<Arc<Api>>,
    Query(NoQuery {}): Query<NoQuery>,
) -> Result<Response, Problem> {
    let place = Place::take(&api)?;
    let mut stopped = api.stop.subscribe();
    let (mut events, response) = stream();
    tokio::spawn(async move {
        let place = place;
        let mut ticks = ticks();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = stopped.changed() => return,
            }
            let is_heard = match overview::shared(&place.0).await {
                Ok(overview) => events.send("overview", &overview).await,
                // The log has it.
                Err(_) => events.comment().await,
            };
            if !is_heard {
                return;
            }
        }
    });
    Ok(response)
}

/// The counters of rules that run, by name.
fn counters(api: &Api) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    api.gateway.rules().stats_after(None, &mut |stats: RuleStats| {
        all.insert(stats.name.clone(), of_rule(&stats));
        ControlFlow::Continue(())
    });
    all
}
