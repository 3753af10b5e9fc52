//! `sub -F`: what is printed for a message, in the format language of mosquitto_sub.
//!
//! `%t` topic, `%p` payload, `%x`/`%X` payload in hexadecimal, `%l` its length, `%q` QoS, `%r` retain, `%d` DUP, `%m`
//! Packet Identifier, `%C` content type, `%D` correlation data, `%E` expiry interval, `%F` format indicator, `%R` response
//! topic, `%P` user properties as `name:value`, `%S` Subscription Identifiers, `%U` time as seconds with nine decimals,
//! `%I` time in ISO 8601 (UTC), `%j` all of it as JSON with the payload as a string, `%J` the same with a JSON payload as it
//! is, `%%` a percent sign; `\n`, `\t`, `\r`, `\0`, `\\` as usual. `@` begins mosquitto_sub's time formats, which are not
//! supported: `@@` is the sign itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::client::Received;

/// A format, read once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Format(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(char),
}

/// Letters that stand for something.
const FIELDS: &str = "tpxXlqrdmCDEFRPSUIjJ";

impl Format {
    /// The format of `sub` without `-F`.
    pub(super) fn plain(with_topic: bool) -> Self {
        let topic = [Piece::Field('t'), Piece::Text(" ".to_owned())];
        let mut pieces = if with_topic { topic.to_vec() } else { Vec::new() };
        pieces.push(Piece::Field('p'));
        Self(pieces)
    }

    /// Appends one message.
    pub(super) fn write(&self, received: &Received, now: SystemTime, out: &mut Vec<u8>) {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Field(letter) => write_field(*letter, received, now, out),
            }
        }
    }
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match (c, if matches!(c, '%' | '\\' | '@') { chars.next() } else { None }) {
                ('%', Some(letter)) if FIELDS.contains(letter) => {
                    if !plain.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut plain)));
                    }
                    pieces.push(Piece::Field(letter));
                }
                ('%', Some('%')) => plain.push('%'),
                ('@', Some('@')) => plain.push('@'),
                ('\\', Some('n')) => plain.push('\n'),
                ('\\', Some('t')) => plain.push('\t'),
                ('\\', Some('r')) => plain.push('\r'),
                ('\\', Some('0')) => plain.push('\0'),
                ('\\', Some('\\')) => plain.push('\\'),
                ('%' | '\\' | '@', next) => {
                    let sequence: String = std::iter::once(c).chain(next).collect();
                    return Err(format!("`{sequence}` is not known in a format"));
                }
                (other, _) => plain.push(other),
            }
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }
}

fn write_field(letter: char, received: &Received, now: SystemTime, out: &mut Vec<u8>) {
    let message = &received.message;
    let properties = &message.properties;
    let mut text = |text: &str| out.extend_from_slice(text.as_bytes());
    match letter {
        't' => text(&message.topic),
        'p' => out.extend_from_slice(&message.payload),
        'x' => message.payload.iter().for_each(|byte| text(&format!("{byte:02x}"))),
        'X' => message.payload.iter().for_each(|byte| text(&format!("{byte:02X}"))),
        'l' => text(&message.payload.len().to_string()),
        'q' => text(&message.qos.level().to_string()),
        'r' => text(if message.retain { "1" } else { "0" }),
        'd' => text(if received.dup { "1" } else { "0" }),
        'm' => text(&received.packet_id.map_or(0, |id| id.get()).to_string()),
        'C' => text(properties.content_type.as_deref().unwrap_or_default()),
        'D' => out.extend_from_slice(properties.correlation_data.as_deref().unwrap_or_default()),
        'E' => text(&properties.message_expiry_interval_s.map(|s| s.to_string()).unwrap_or_default()),
        'F' => text(match properties.payload_format_indicator {
            Some(true) => "1",
            Some(false) => "0",
            None => "",
        }),
        'R' => text(properties.response_topic.as_deref().unwrap_or_default()),
        'P' => {
            let pairs = properties.user_properties.iter().map(|(name, value)| format!("{name}:{value}"));
            text(&pairs.collect::<Vec<_>>().join(" "));
        }
        'S' => {
            let ids = received.subscription_identifiers.iter().map(u32::to_string);
            text(&ids.collect::<Vec<_>>().join(" "));
        }
        'U' => {
            let since = since_epoch(now);
            text(&format!("{}.{:09}", since.as_secs(), since.subsec_nanos()));
        }
        'I' => text(&iso_8601(now)),
        'j' => text(&as_json(received, now, payload_as_text).to_string()),
        'J' => text(&as_json(received, now, payload_as_json).to_string()),
        _ => {}
    }
}

fn as_json(received: &Received, now: SystemTime, payload: fn(&[u8]) -> Value) -> Value {
    let message = &received.message;
    let properties = &message.properties;
    let mut object = Map::new();
    object.insert("tst".to_owned(), json!(iso_8601(now)));
    object.insert("topic".to_owned(), json!(message.topic));
    object.insert("qos".to_owned(), json!(message.qos.level()));
    object.insert("retain".to_owned(), json!(u8::from(message.retain)));
    object.insert("payloadlen".to_owned(), json!(message.payload.len()));
    if let Some(id) = received.packet_id {
        object.insert("mid".to_owned(), json!(id.get()));
    }
    let mut shown = Map::new();
    if let Some(is_text) = properties.payload_format_indicator {
        shown.insert("payload-format-indicator".to_owned(), json!(u8::from(is_text)));
    }
    if let Some(seconds) = properties.message_expiry_interval_s {
        shown.insert("message-expiry-interval".to_owned(), json!(seconds));
    }
    if let Some(text) = &properties.content_type {
        shown.insert("content-type".to_owned(), json!(text));
    }
    if let Some(text) = &properties.response_topic {
        shown.insert("response-topic".to_owned(), json!(text));
    }
    if let Some(data) = &properties.correlation_data {
        shown.insert("correlation-data".to_owned(), json!(String::from_utf8_lossy(data)));
    }
    if !properties.user_properties.is_empty() {
        // Names may repeat, so this is a list of pairs.
        let pairs = properties.user_properties.iter().map(|(name, value)| json!({ name.as_str(): value }));
        shown.insert("user-properties".to_owned(), pairs.collect());
    }
    if !shown.is_empty() {
        object.insert("properties".to_owned(), Value::Object(shown));
    }
    object.insert("payload".to_owned(), payload(&message.payload));
    Value::Object(object)
}

fn payload_as_text(payload: &[u8]) -> Value {
    json!(String::from_utf8_lossy(payload))
}

fn payload_as_json(payload: &[u8]) -> Value {
    serde_json::from_slice(payload).unwrap_or_else(|_| payload_as_text(payload))
}

fn since_epoch(now: SystemTime) -> Duration {
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// `2026-02-03T04:05:06.123456Z`. Civil date from a day number after Howard Hinnant, "chrono-compatible low-level date
/// algorithms".
pub(crate) fn iso_8601(now: SystemTime) -> String {
    let since = since_epoch(now);
    let seconds = since.as_secs();
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Days from 1 March of year 0; eras of 400 years have 146,097 days.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        of_day / 3_600,
        of_day / 60 % 60,
        of_day % 60,
        since.subsec_micros()
    )
}

#[cfg(test)]
mod tests {
    use mqtt_protocol::{PacketId, QoS};

    use super::*;
    use crate::client::{Message, Properties};

    fn received() -> Received {
        Received {
            message: Message {
                qos: QoS::AtLeastOnce,
                retain: true,
                properties: Properties {
                    content_type: Some("application/json".into()),
                    user_properties: vec![("a".into(), "1".into()), ("a".into(), "2".into())],
                    ..Properties::default()
                },
                ..Message::new("a/b", "{\"t\":1}")
            },
            dup: false,
            packet_id: PacketId::new(7),
            subscription_identifiers: vec![3, 9],
        }
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::new(1_770_091_506, 123_456_789)
    }

    #[track_caller]
    fn check(format: &str, expected: &str) {
        let mut out = Vec::new();
        format.parse::<Format>().unwrap().write(&received(), now(), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn every_letter_prints_its_part() {
        check("%t|%p|%l|%q|%r|%d|%m", "a/b|{\"t\":1}|7|1|1|0|7");
        check("%x %X", "7b2274223a317d 7B2274223A317D");
        check("%C|%D|%E|%F|%R|%P|%S", "application/json|||||a:1 a:2|3 9");
        check("%U %I", "1770091506.123456789 2026-02-03T04:05:06.123456Z");
        check("100%% @@ a\\tb\\n", "100% @ a\tb\n");
    }

    #[test]
    fn json_holds_the_message() {
        let mut out = Vec::new();
        "%J".parse::<Format>().unwrap().write(&received(), now(), &mut out);
        let value: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["payload"], json!({"t": 1}));
        assert_eq!(value["properties"]["user-properties"], json!([{"a": "1"}, {"a": "2"}]));
        check("%j", &String::from_utf8(out).unwrap().replace("{\"t\":1}", "\"{\\\"t\\\":1}\""));
    }

    #[test]
    fn unknown_sequences_are_refused() {
        for text in ["%", "%z", "\\q", "@H", "abc\\"] {
            assert!(text.parse::<Format>().is_err(), "{text}");
        }
    }

    #[test]
    fn dates_are_right_around_leap_days() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (951_868_800, "2000-03-01T00:00:00.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000Z"),
        ] {
            assert_eq!(iso_8601(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }
}
