//! Dead letters for people: a table of many, a page of one.
//!
//! Topics, payloads and errors come from elsewhere, so that control characters are shown instead of obeyed, wherever the
//! output goes; in the table, they and long texts don't break a line.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;

use crate::cli::format::iso_8601;
use crate::cli::table::in_columns;
use crate::cli::without_control_characters;

/// Characters of a text that a table shows.
const CELL_CHARS_MAX: usize = 60;
/// Width of the names on a page.
const NAME_WIDTH: usize = 18;

const HEADINGS: [&str; 6] = ["LETTER", "CAUSE", "ATTEMPTS", "ENDED", "TOPIC", "ERROR"];

/// A line for each letter, in columns.
pub(super) fn table(letters: &[Value]) -> String {
    in_columns(HEADINGS, letters.iter().map(row))
}

fn row(letter: &Value) -> [String; HEADINGS.len()] {
    let text = |key: &str| match letter.get(key) {
        Some(Value::String(text)) => cell(text),
        Some(Value::Number(number)) => number.to_string(),
        _ => "-".to_owned(),
    };
    // To the second: a list is for an overview.
    let ended = letter.get("ended_at_ms").and_then(Value::as_i64).map(|at_ms| time(at_ms / 1_000 * 1_000));
    [
        text("name"),
        text("cause"),
        text("attempts"),
        ended.unwrap_or_else(|| "-".to_owned()),
        text("topic"),
        text("error"),
    ]
}

/// All of a letter.
pub(super) fn page(letter: &Value) -> String {
    let mut page = Page::default();
    page.heading(&text_of(letter, "name"));
    page.text("cause", letter.get("cause"));
    page.text("error", letter.get("error"));
    page.text("attempts", letter.get("attempts"));
    page.time("received", letter.get("received_at_ms"));
    page.time("first attempt", letter.get("first_attempt_at_ms"));
    page.time("ended", letter.get("ended_at_ms"));
    page.text("item", letter.get("item"));
    match letter.get("message").filter(|message| message.is_object()) {
        Some(message) => page.message(message),
        None => page.heading("the message was not kept"),
    }
    match letter.get("request").and_then(Value::as_array) {
        Some(parts) => {
            page.heading("request");
            for part in parts {
                page.bytes(&text_of(part, "name"), part.get("value"));
            }
        }
        None => page.heading("no request could be made or read"),
    }
    page.0
}

/// Why a letter was left as it is.
pub(super) fn refusal(letter: &Value) -> String {
    format!("{}: {}", cell(&text_of(letter, "name")), text_of(letter, "message"))
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn heading(&mut self, text: &str) {
        let _infallible = writeln!(self.0, "{}", shown(text));
    }

    fn line(&mut self, name: &str, value: &str) {
        let indent = " ".repeat(NAME_WIDTH + 4);
        // Names may come from elsewhere too: user properties.
        let name = shown(name).replace(['\n', '\t'], " ");
        let value = shown(value).replace('\n', &format!("\n{indent}"));
        let _infallible = writeln!(self.0, "  {name:NAME_WIDTH$}  {}", value.trim_end());
    }

    fn text(&mut self, name: &str, value: Option<&Value>) {
        match value {
            Some(Value::String(text)) => self.line(name, text),
            Some(Value::Null) | None => {}
            Some(other) => self.line(name, &other.to_string()),
        }
    }

    fn time(&mut self, name: &str, value: Option<&Value>) {
        if let Some(at_ms) = value.and_then(Value::as_i64) {
            self.line(name, &time(at_ms));
        }
    }

    /// Bytes as the gateway gives them: text or hexadecimal, perhaps only the beginning.
    fn bytes(&mut self, name: &str, value: Option<&Value>) {
        let Some(value) = value.filter(|value| value.is_object()) else { return };
        let bytes = value.get("bytes").and_then(Value::as_u64).unwrap_or_default();
        let mut text = match (value.get("text").and_then(Value::as_str), value.get("hex")) {
            (Some(text), _) => text.to_owned(),
            (None, Some(hex)) => format!("{} (hexadecimal, {bytes} bytes)", hex.as_str().unwrap_or_default()),
            (None, None) => return,
        };
        if value.get("cut").and_then(Value::as_bool) == Some(true) {
            let _infallible = write!(text, "… ({bytes} bytes in all)");
        }
        self.line(name, &text);
    }

    fn message(&mut self, message: &Value) {
        self.heading("message");
        self.text("topic", message.get("topic"));
        self.text("qos", message.get("qos"));
        self.text("publisher", message.get("publisher"));
        self.text("content type", message.get("content_type"));
        self.text("response topic", message.get("response_topic"));
        self.bytes("correlation data", message.get("correlation_data"));
        self.text("payload format", message.get("payload_format_indicator"));
        for pair in message.get("user_properties").and_then(Value::as_array).into_iter().flatten() {
            let part = |index: usize| pair.get(index).and_then(Value::as_str).unwrap_or_default();
            self.line("user property", &format!("{} = {}", part(0), part(1)));
        }
        self.bytes("payload", message.get("payload"));
    }
}

fn text_of(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn shown(text: &str) -> String {
    String::from_utf8_lossy(&without_control_characters(text.as_bytes())).into_owned()
}

/// A short text on one line.
fn cell(text: &str) -> String {
    let text = shown(text).replace('\n', "\\n").replace('\t', "\\t");
    match text.char_indices().nth(CELL_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

pub(in crate::cli) fn time(at_ms: i64) -> String {
    let printed = iso_8601(UNIX_EPOCH + Duration::from_millis(u64::try_from(at_ms).unwrap_or(0)));
    // Milliseconds are all there is.
    match printed.strip_suffix("000Z").map(|printed| printed.trim_end_matches('0').trim_end_matches('.')) {
        Some(printed) => format!("{printed}Z"),
        None => printed,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_has_columns_and_one_line_for_each() {
        let letters = [
            json!({ "name": "a/b:1", "cause": "refused", "error": "no\nmore\u{1b}[2J", "attempts": 1, "ended_at_ms": 1_500, "topic": "t" }),
            json!({ "name": "rule/action:12", "cause": "unreadable", "error": "x".repeat(100), "attempts": null, "ended_at_ms": null, "topic": null }),
        ];
        let expected = format!(
            "LETTER          CAUSE       ATTEMPTS  ENDED                 TOPIC  ERROR\n\
             a/b:1           refused     1         1970-01-01T00:00:01Z  t      no\\nmore\\u{{1b}}[2J\n\
             rule/action:12  unreadable  -         -                     -      {}…\n",
            "x".repeat(CELL_CHARS_MAX)
        );
        assert_eq!(table(&letters), expected);
    }

    #[test]
    fn a_page_has_everything_and_obeys_nothing() {
        let letter = json!({
            "name": "hot/ops:1", "cause": "refused", "error": "the answer was 400", "attempts": 2,
            "received_at_ms": 1_000, "first_attempt_at_ms": null, "ended_at_ms": 1_250, "item": "5.6-1",
            "message": {
                "topic": "a/b", "qos": 1, "publisher": null, "content_type": "text/plain",
                "correlation_data": { "bytes": 2, "hex": "00ff", "cut": false },
                "user_properties": [["site\u{7}", "a\u{1b}"]],
                "payload": { "bytes": 70_000, "text": "one\ntwo", "cut": true },
            },
            "request": [{ "name": "method", "value": { "bytes": 4, "text": "POST", "cut": false } }],
        });
        let expected = "\
hot/ops:1
  cause               refused
  error               the answer was 400
  attempts            2
  received            1970-01-01T00:00:01Z
  ended               1970-01-01T00:00:01.25Z
  item                5.6-1
message
  topic               a/b
  qos                 1
  content type        text/plain
  correlation data    00ff (hexadecimal, 2 bytes)
  user property       site\\u{7} = a\\u{1b}
  payload             one
                      two… (70000 bytes in all)
request
  method              POST
";
        assert_eq!(page(&letter), expected);
        let bare = json!({ "name": "hot/ops:2", "cause": "unreadable", "message": null, "request": null });
        assert!(page(&bare).ends_with("the message was not kept\nno request could be made or read\n"));
    }
}
