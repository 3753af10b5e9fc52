//! What answers show of a dead letter, as JSON.
//!
//! Nothing here is longer than [`SHOWN_BYTES_MAX`] in one piece, and what usually holds a secret isn't shown: header and user
//! property values by their name, values of a URL's query by theirs, and a URL's user and password.

use actions::DropReason;
use actions::dead_letters::{DeadLetter, FoundLetter};
use mqtt_protocol::PublishProperties;
use serde::Serialize;
use serde_json::{Map, Value, json};
use store::StoredMessage;
use utoipa::ToSchema;

use crate::rules::{HIDDEN, is_secret_name, parameters};

/// Most bytes that are shown of one payload, body or other value.
pub(super) const SHOWN_BYTES_MAX: usize = 64 << 10;

/// One letter in a list.
pub(super) fn summary(found: &FoundLetter) -> Value {
    Value::Object(facts(found))
}

/// All of a letter.
pub(super) fn whole(found: &FoundLetter) -> Value {
    let mut shown = facts(found);
    shown.insert("message".to_owned(), found.message.as_ref().map(message).into());
    shown.insert("request".to_owned(), found.letter.as_ref().ok().and_then(request).into());
    Value::Object(shown)
}

fn facts(found: &FoundLetter) -> Map<String, Value> {
    let FoundLetter { name, letter, message } = found;
    let mut facts = Map::new();
    let mut put = |key: &str, value: Value| facts.insert(key.to_owned(), value);
    put("name", name.to_string().into());
    put("rule", name.rule().into());
    put("action", name.action().into());
    match letter {
        Ok(letter) => {
            put("cause", letter.cause.as_str().into());
            put("error", letter.error.as_str().into());
            put("attempts", letter.attempts.into());
            put("received_at_ms", letter.received_at_ms.into());
            put("first_attempt_at_ms", letter.first_attempt_at_ms.into());
            put("ended_at_ms", letter.ended_at_ms.into());
            put("item", letter.item.to_string().into());
        }
        Err(error) => {
            put("cause", DropReason::Unreadable.as_str().into());
            put("error", error.to_string().into());
            put("attempts", Value::Null);
            put("received_at_ms", message.as_ref().map(|message| message.received_at_ms).into());
            put("first_attempt_at_ms", Value::Null);
            put("ended_at_ms", Value::Null);
            put("item", Value::Null);
        }
    }
    put("topic", message.as_ref().map(|message| message.topic.as_str()).into());
    put("publisher", message.as_ref().and_then(|message| message.publisher.as_deref()).into());
    put("payload_bytes", message.as_ref().map(|message| message.payload.len()).into());
    facts
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

/// Bytes as text when they are that, else in hexadecimal; with their number, and cut when they are many.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Shown {
    /// How many there are.
    bytes: usize,
    /// As text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    text: Option<String>,
    /// In hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    hex: Option<String>,
    /// Whether only the first 64 KiB are shown.
    cut: bool,
}

impl Shown {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let (text, hex) = match std::str::from_utf8(bytes) {
            Ok(text) => {
                let head = text.get(..text.floor_char_boundary(SHOWN_BYTES_MAX)).unwrap_or_default();
                (Some(head.to_owned()), None)
            }
            Err(_) => {
                let head = bytes.get(..SHOWN_BYTES_MAX).unwrap_or(bytes);
                (None, Some(head.iter().map(|byte| format!("{byte:02x}")).collect()))
            }
        };
        Self { bytes: bytes.len(), text, hex, cut: bytes.len() > SHOWN_BYTES_MAX }
    }
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
    fn bytes_are_text_or_hexadecimal_and_bounded() {
        assert_eq!(bytes("grün\n".as_bytes()), json!({ "bytes": 6, "text": "grün\n", "cut": false }));
        assert_eq!(bytes(b"\x00\xff"), json!({ "bytes": 2, "hex": "00ff", "cut": false }));
        assert_eq!(bytes(b""), json!({ "bytes": 0, "text": "", "cut": false }));
        for (length, is_cut) in [(SHOWN_BYTES_MAX, false), (SHOWN_BYTES_MAX + 1, true)] {
            let text = bytes(vec![b'a'; length]);
            assert_eq!(
                (text["text"].as_str().unwrap().len(), text["cut"].as_bool()),
                (SHOWN_BYTES_MAX, Some(is_cut))
            );
            let hex = bytes(vec![0xff; length]);
            assert_eq!(
                (hex["hex"].as_str().unwrap().len(), hex["cut"].as_bool()),
                (2 * SHOWN_BYTES_MAX, Some(is_cut))
            );
        }
        let umlauts = bytes("ä".repeat(SHOWN_BYTES_MAX).as_bytes());
        assert_eq!(umlauts["text"].as_str().unwrap().len(), SHOWN_BYTES_MAX);
        let shifted = bytes(format!("a{}", "ä".repeat(SHOWN_BYTES_MAX)).as_bytes());
        assert_eq!(shifted["text"].as_str().unwrap().len(), SHOWN_BYTES_MAX - 1, "no half a character");
    }

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
