//! What answers show of a dead letter.
//!
//! No value is shown at any length, and what usually holds a secret isn't shown: header and user property values by their name, values of a
//! URL's query by theirs, and a URL's user and password.

use actions::DropReason;
use actions::dead_letters::{DeadLetter, FoundLetter};
use mqtt_protocol::PublishProperties;
use serde::Serialize;
use serde_json::{Value, json};
use store::StoredMessage;
use utoipa::ToSchema;

use crate::api::shown::Shown;
use crate::rules::{HIDDEN, is_secret_name, parameters};

/// A dead letter: what an action owed and could not deliver.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(in crate::api) struct Letter {
    /// `rule/action:position`.
    pub(super) name: String,
    rule: String,
    action: String,
    /// What it died of, as in docs/dead-letters.md.
    cause: String,
    error: String,
    attempts: Option<u64>,
    /// Milliseconds since 1970, as all times here.
    received_at_ms: Option<i64>,
    first_attempt_at_ms: Option<i64>,
    ended_at_ms: Option<i64>,
    item: Option<String>,
    topic: Option<String>,
    publisher: Option<String>,
    payload_bytes: Option<u64>,
}

/// A dead letter, its message and what would have been sent.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(in crate::api) struct WholeLetter {
    pub(super) letter: Letter,
    /// The message; null: it is unreadable.
    #[schema(value_type = Option<Object>)]
    pub(super) message: Value,
    /// The request's parameters, without secrets.
    #[schema(value_type = Option<Vec<Object>>)]
    pub(super) request: Value,
}

impl Letter {
    pub(super) fn of(found: &FoundLetter) -> Self {
        let FoundLetter { name, letter, message } = found;
        let letter = letter.as_ref();
        let message = message.as_ref();
        // One that can't be read ended when its message came, as far as anybody knows.
        let received_at_ms = letter
            .map_or(message.map(|message| message.received_at_ms), |letter| Some(letter.received_at_ms));
        Self {
            name: name.to_string(),
            rule: name.rule().to_owned(),
            action: name.action().to_owned(),
            cause: letter.map_or(DropReason::Unreadable.as_str(), |letter| &letter.cause).to_owned(),
            error: match letter {
                Ok(letter) => letter.error.clone(),
                Err(error) => error.to_string(),
            },
            attempts: letter.ok().map(|letter| letter.attempts.into()),
            received_at_ms,
            first_attempt_at_ms: letter.ok().and_then(|letter| letter.first_attempt_at_ms),
            ended_at_ms: letter.ok().map(|letter| letter.ended_at_ms),
            item: letter.ok().map(|letter| letter.item.to_string()),
            topic: message.map(|message| message.topic.to_string()),
            publisher: message.and_then(|message| message.publisher.as_deref()).map(str::to_owned),
            payload_bytes: message.map(|message| message.payload.len() as u64),
        }
    }

    /// How long it is, written down.
    pub(super) fn bytes(&self) -> usize {
        serde_json::to_vec(self).map_or(0, |json| json.len())
    }
}

impl WholeLetter {
    pub(super) fn of(found: &FoundLetter) -> Self {
        Self {
            letter: Letter::of(found),
            message: found.message.as_ref().map(message).into(),
            request: found.letter.as_ref().ok().and_then(request).into(),
        }
    }
}

fn message(message: &StoredMessage) -> Value {
    let properties = PublishProperties::from_encoded(&message.properties).unwrap_or_default();
    let user_properties: Vec<_> = properties
        .user_properties
        .iter()
        .map(|(name, value)| json!([name, if is_secret_name(name) { HIDDEN } else { value }]))
        .collect();
    json!({
        "topic": message.topic,
        "qos": message.qos,
        "publisher": message.publisher,
        "received_at_ms": message.received_at_ms,
        "expires_after_ms": message.expires_after_ms,
        "content_type": properties.content_type,
        "response_topic": properties.response_topic,
        "correlation_data": properties.correlation_data.map(bytes),
        "payload_format_indicator": properties.payload_format_indicator.map(u8::from),
        "user_properties": user_properties,
        "payload": bytes(&message.payload),
    })
}

/// What would be sent, in the order in which a rule file has it.
fn request(letter: &DeadLetter) -> Option<Value> {
    let request = letter.kept_request()?;
    let shown: Vec<_> = parameters(&request)
        .into_iter()
        .map(|(name, value)| {
            let value = match name.strip_prefix("headers.") {
                Some(header) if is_secret_name(header) => HIDDEN.into(),
                None if name == "url" => without_secrets(&String::from_utf8_lossy(&value)).into_bytes(),
                _ => value,
            };
            json!({ "name": name, "value": bytes(&value) })
        })
        .collect();
    Some(shown.into())
}

fn bytes(bytes: impl AsRef<[u8]>) -> Value {
    serde_json::to_value(Shown::of(bytes.as_ref())).unwrap_or_default()
}

/// A URL without user, password and the values of its query that are called a secret.
fn without_secrets(url: &str) -> String {
    let (before_query, query) = match url.split_once('?') {
        Some((before, query)) => (before, Some(query)),
        None => (url, None),
    };
    let mut shown = match before_query.split_once("://") {
        Some((scheme, rest)) => {
            let authority_ends = rest.find('/').unwrap_or(rest.len());
            let (authority, path) = rest.split_at_checked(authority_ends).unwrap_or((rest, ""));
            match authority.rsplit_once('@') {
                Some((_, host)) => format!("{scheme}://{HIDDEN}@{host}{path}"),
                None => before_query.to_owned(),
            }
        }
        None => before_query.to_owned(),
    };
    if let Some(query) = query {
        let pairs = query.split('&').map(|pair| match pair.split_once('=') {
            Some((name, _)) if is_secret_name(name) || name.to_ascii_lowercase().contains("sig") => {
                format!("{name}={HIDDEN}")
            }
            _ => pair.to_owned(),
        });
        shown.push('?');
        shown.push_str(&pairs.collect::<Vec<_>>().join("&"));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_secrets() {
        for (url, shown) in [
            ("https://h.example/a/b", "https://h.example/a/b"),
            ("https://u:p@h.example/a", "https://***@h.example/a"),
            ("https://u@h.example", "https://***@h.example"),
            ("https://h.example/@a", "https://h.example/@a"),
            ("https://h.example/a?x=1&token=t&y", "https://h.example/a?x=1&token=***&y"),
            (
                "https://h.example/?API_KEY=1&Signature=2&sv=3",
                "https://h.example/?API_KEY=***&Signature=***&sv=3",
            ),
            ("https://h.example/?access_token=", "https://h.example/?access_token=***"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }
}
