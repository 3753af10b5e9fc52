//! Messages: publishing one, and those that are retained.

use std::sync::Arc;

use axum::extract::State;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use broker::{InternalPublish, Message, PublishError, RetainedPlace, Trail};
use hyper::StatusCode;
use mqtt_protocol::topic::{ParsedFilter, parse_filter, validate_topic_name};
use mqtt_protocol::{PublishProperties, QoS};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::audit::Change;
use super::extract::{Json, Path, Query, objects};
use super::gateway::refused;
use super::paging::{cursor, limit, place};
use super::problem::{Kind, Problem};
use super::shown::Shown;
use crate::rules::{HIDDEN, SampleProperties, is_secret_name};

/// A message to be published. It has a payload, as text or in base64.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Publish {
    /// Topic Name; none that begins with `$`.
    #[schema(pattern = r"^[^$+#\x00][^+#\x00]*$")]
    topic: String,
    /// Payload as text.
    #[serde(default)]
    payload: Option<String>,
    /// Payload in base64.
    #[serde(default)]
    #[schema(pattern = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$")]
    payload_base64: Option<String>,
    /// 0, 1 or 2.
    #[serde(default)]
    #[schema(maximum = 2)]
    qos: u8,
    #[serde(default)]
    retain: bool,
    /// User name whose rights it needs; absent: the gateway's own, which may publish anything.
    #[serde(default)]
    run_as: Option<String>,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    #[schema(pattern = r"^[^+#\x00]*$")]
    response_topic: Option<String>,
    /// Correlation Data in base64.
    #[serde(default)]
    #[schema(pattern = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$")]
    correlation_data_base64: Option<String>,
    /// Whether the payload is said to be UTF-8 text.
    #[serde(default)]
    payload_is_text: Option<bool>,
    /// Seconds until it expires.
    #[serde(default)]
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 4294967295_i64)]
    message_expiry_interval_s: Option<u32>,
    #[serde(default, deserialize_with = "objects")]
    user_properties: Vec<UserProperty>,
}

/// A User Property.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UserProperty {
    name: String,
    value: String,
}

impl UserProperty {
    pub(super) fn into_pair(self) -> (String, String) {
        (self.name, self.value)
    }
}

/// Which Retained Messages are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RetainedQuery {
    /// Topic Filter; `#` where nothing is said.
    filter: Option<String>,
    /// Most entries, 1 to 1,000; 100 where nothing is said.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before.
    after: Option<String>,
}

/// A page of Retained Messages, in no order. It may have fewer than `limit`, even none, though another one follows.
#[derive(Serialize, ToSchema)]
pub(super) struct RetainedPage {
    messages: Vec<RetainedSummary>,
    /// Where the next page begins; null: there is none.
    next: Option<String>,
}

/// A Retained Message without what it says.
#[derive(Serialize, ToSchema)]
pub(super) struct RetainedSummary {
    topic: String,
    qos: u8,
    payload_bytes: usize,
    /// Milliseconds since 1970.
    received_at_ms: i64,
    /// Seconds until it expires; null: never.
    expires_in_s: Option<u64>,
    /// Client Identifier of its publisher; null: the gateway itself, or nobody knows any more.
    publisher: Option<String>,
}

/// A Retained Message.
#[derive(Serialize, ToSchema)]
pub(super) struct RetainedMessage {
    summary: RetainedSummary,
    payload: Shown,
    content_type: Option<String>,
    response_topic: Option<String>,
    correlation_data: Option<Shown>,
    /// Whether the payload is said to be UTF-8 text.
    payload_is_text: Option<bool>,
    /// Values of what is called a secret aren't shown.
    user_properties: Vec<UserProperty>,
}

/// Publishes a message: it goes to rules, actions and subscribers as a client's would, within the same limits.
#[utoipa::path(post, path = "/api/v1/publish", operation_id = "publish", tag = "messages", request_body = Publish,
    responses((status = 204, description = "Whoever it is for has it, or will")))]
pub(super) async fn publish(
    State(api): State<Arc<Api>>,
    Json(body): Json<Publish>,
) -> Result<(Change, StatusCode), Problem> {
    let invalid = |what: &str, why: &str| Problem::new(Kind::Invalid, format!("{what}: {why}"));
    let base64 =
        |what: &str, text: &str| BASE64_STANDARD.decode(text).map_err(|_| invalid(what, "expected base64"));
    if body.topic.starts_with('$') {
        return Err(invalid("topic", "topics that begin with $ are the gateway's own"));
    }
    let payload = match (body.payload, body.payload_base64) {
        (Some(text), None) => text.into_bytes(),
        (None, Some(text)) => base64("payload_base64", &text)?,
        _ => return Err(invalid("payload", "expected either payload or payload_base64")),
    };
    let qos = QoS::try_from(body.qos).map_err(|_| invalid("qos", "expected 0, 1 or 2"))?;
    let correlation_data = body.correlation_data_base64.as_deref();
    let properties = SampleProperties {
        content_type: body.content_type,
        response_topic: body.response_topic,
        correlation_data: correlation_data.map(|text| base64("correlation_data_base64", text)).transpose()?,
        payload_format_indicator: body.payload_is_text,
        message_expiry_interval_s: None,
        user_properties: body.user_properties.into_iter().map(UserProperty::into_pair).collect(),
    };
    let change = Change::of(body.topic.clone()).after(json!({
        "qos": body.qos, "retain": body.retain, "payload_bytes": payload.len(), "run_as": body.run_as,
    }));
    let publish = InternalPublish {
        topic: body.topic,
        payload,
        qos,
        retain: body.retain,
        properties: properties.encode().map_err(|error| Problem::new(Kind::Invalid, error))?,
        message_expiry_interval_s: body.message_expiry_interval_s,
        trail: Trail::default(),
        run_as: body.run_as.map(Arc::from),
    };
    match api.gateway.broker.publish(publish).await {
        Ok(()) => Ok((change, StatusCode::NO_CONTENT)),
        Err(PublishError::Refused(reason)) => Err(refused(reason)),
        Err(error) => Err(Problem::new(Kind::Invalid, error.to_string())),
    }
}

/// Lists Retained Messages.
#[utoipa::path(get, path = "/api/v1/retained", operation_id = "listRetained", tag = "messages", params(RetainedQuery),
    responses((status = 200, description = "A page of Retained Messages", body = RetainedPage)))]
pub(super) async fn list_retained(
    State(api): State<Arc<Api>>,
    Query(query): Query<RetainedQuery>,
) -> Result<Json<RetainedPage>, Problem> {
    let limit = limit(query.limit)?;
    let from: Option<(usize, Vec<u8>)> = place(query.after.as_deref())?;
    let filter = query.filter.as_deref().unwrap_or("#");
    match parse_filter(filter) {
        Ok(ParsedFilter::Plain(_)) => {}
        Ok(ParsedFilter::Shared(_)) => {
            return Err(Problem::new(Kind::Invalid, "filter: nothing is retained for Shared Subscriptions"));
        }
        Err(error) => return Err(Problem::new(Kind::Invalid, format!("filter: {error}"))),
    }
    let broker = &api.gateway.broker;
    let from = from.map(|(part, from)| RetainedPlace { part, from });
    let (found, next) = broker.retained(filter, from, limit).await;
    let messages = found.iter().map(|message| summary(&api, message)).collect();
    let next = next.map(|place| cursor(&(place.part, place.from)));
    Ok(Json(RetainedPage { messages, next }))
}

fn summary(api: &Api, message: &Message) -> RetainedSummary {
    let publication = message.publication();
    RetainedSummary {
        topic: message.topic().to_owned(),
        qos: message.qos().level(),
        payload_bytes: message.payload().len(),
        received_at_ms: publication.received_at_ms,
        expires_in_s: api.gateway.broker.expires_in_s(message),
        publisher: publication.publisher.map(|publisher| publisher.client_id.to_string()),
    }
}

fn nothing_retained(topic: &str) -> Problem {
    Problem::new(Kind::Missing, format!("nothing is retained at {topic:?}"))
}

/// Shows a Retained Message, at most 64 KiB of its payload.
#[utoipa::path(get, path = "/api/v1/retained/{topic}", operation_id = "getRetained", tag = "messages",
    params(("topic" = String, Path, description = "Topic Name, each `/` written `%2F`")),
    responses((status = 200, description = "The message", body = RetainedMessage)))]
pub(super) async fn get_retained(
    State(api): State<Arc<Api>>,
    Path(topic): Path<String>,
) -> Result<Json<RetainedMessage>, Problem> {
    let message = api.gateway.broker.retained_message(&topic).ok_or_else(|| nothing_retained(&topic))?;
    let properties = PublishProperties::from_encoded(message.properties()).unwrap_or_default();
    let user_properties = properties.user_properties.iter().map(|(name, value)| UserProperty {
        name: name.to_owned(),
        value: if is_secret_name(name) { HIDDEN.to_owned() } else { value.to_owned() },
    });
    Ok(Json(RetainedMessage {
        summary: summary(&api, &message),
        payload: Shown::of(message.payload()),
        content_type: properties.content_type.map(str::to_owned),
        response_topic: properties.response_topic.map(str::to_owned),
        correlation_data: properties.correlation_data.map(Shown::of),
        payload_is_text: properties.payload_format_indicator,
        user_properties: user_properties.collect(),
    }))
}

/// Forgets a Retained Message; nobody is sent anything.
#[utoipa::path(delete, path = "/api/v1/retained/{topic}", operation_id = "clearRetained", tag = "messages",
    params(("topic" = String, Path, description = "Topic Name, each `/` written `%2F`")),
    responses((status = 204, description = "Nothing is retained there any more")))]
pub(super) async fn clear_retained(
    State(api): State<Arc<Api>>,
    Path(topic): Path<String>,
) -> Result<(Change, StatusCode), Problem> {
    if let Err(error) = validate_topic_name(&topic) {
        return Err(Problem::new(Kind::Invalid, format!("topic: {error}")));
    }
    let before = api.gateway.broker.retained_message(&topic);
    if !api.gateway.broker.clear_retained(&topic).await.map_err(refused)? {
        return Err(nothing_retained(&topic));
    }
    let before = before
        .map(|message| json!({ "qos": message.qos().level(), "payload_bytes": message.payload().len() }));
    Ok((Change::of(topic).before(before.unwrap_or_default()), StatusCode::NO_CONTENT))
}
