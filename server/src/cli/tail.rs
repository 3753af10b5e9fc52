//! `tidegate tail`: messages as they go through a gateway that runs, whoever publishes them.
//!
//! Nothing is subscribed to, so nobody's session changes and nothing is owed to who looks on: what comes faster than asked for, or
//! faster than it is read, is missed and counted.

use std::io;

use clap::{Args, ValueEnum};
use hyper::Method;
use serde_json::Value;

use super::dead_letters::time;
use super::gateway::{GatewayArgs, path, query, text_of};
use super::output::{Output, notice};
use super::{ConfigArgs, Exit, Failure, without_control_characters};
use crate::admin::{AdminClientError, download};
use crate::config::Environment;

/// Longest event that is taken, in bytes: a payload that is shown in hexadecimal, twice over.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// Arguments of `tail`.
#[derive(Debug, Args)]
pub(super) struct TailArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Topic Filter of the messages; `#` is all but those that begin with `$`.
    #[arg(short = 't', long = "topic", value_name = "FILTER", default_value = "#")]
    topic: String,
    /// Most messages a second, 1 to 1000.
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    rate: u32,
    /// End after so many messages.
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// How payloads are printed.
    #[arg(long, value_name = "AS", default_value = "auto")]
    decode: Decode,
    /// Print each message as one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// How payloads are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Decode {
    /// JSON on several lines where it is that, otherwise text, otherwise hexadecimal.
    Pretty,
    /// As text on one line where it is that, otherwise in hexadecimal.
    Auto,
    /// In hexadecimal.
    Hex,
    /// Only how many bytes there are.
    Size,
}

/// Runs the command.
pub(super) fn run(args: &TailArgs, outer: &ConfigArgs, environment: &Environment) -> Result<Exit, Failure> {
    let data_dir = args.gateway.data_dir(outer, environment)?;
    let rate = args.rate.to_string();
    let wanted = [("filter", Some(args.topic.as_str())), ("rate", Some(rate.as_str()))];
    let path = path(&["live", "messages"]) + &query(&wanted);
    let out = Output::stdout();
    let mut events = Events::default();
    let mut seen = 0;
    let mut failure = None;
    let told = download(&data_dir, &Method::GET, &path, |bytes| {
        events.take(bytes, |event, data| {
            if event == "missed" {
                notice(&format!("{} messages were missed", text_of(data, "messages")));
                return Ok(());
            }
            let printed =
                if args.json { out.json(data) } else { out.bytes(line(data, args.decode).as_bytes()) };
            if let Err(error) = printed {
                failure = Some(error);
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            seen += 1;
            // Enough is enough: the connection is given up.
            if args.count.is_some_and(|count| seen >= count) {
                Err(io::ErrorKind::Interrupted.into())
            } else {
                Ok(())
            }
        })
    });
    match (failure, told) {
        (Some(failure), _) => Err(failure),
        (None, Err(AdminClientError::Broken(error))) if error.kind() == io::ErrorKind::Interrupted => {
            Ok(Exit::Success)
        }
        (None, told) => {
            told?;
            Ok(Exit::Success)
        }
    }
}

/// Server-sent events, taken apart as they come.
#[derive(Debug, Default)]
struct Events(Vec<u8>);

impl Events {
    /// Takes more bytes, and hands on each event that is whole.
    fn take(
        &mut self,
        bytes: &[u8],
        mut event: impl FnMut(&str, &Value) -> io::Result<()>,
    ) -> io::Result<()> {
        self.0.extend_from_slice(bytes);
        while let Some(end) = self.0.windows(2).position(|pair| pair == b"\n\n") {
            let rest = self.0.split_off(end + 2);
            let whole = std::mem::replace(&mut self.0, rest);
            let text = String::from_utf8_lossy(&whole);
            let of = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
            if let (Some(name), Some(data)) = (of("event: "), of("data: ")) {
                let data = serde_json::from_str(data)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                event(name, &data)?;
            }
        }
        if self.0.len() > EVENT_BYTES_MAX {
            let text = format!("an event has more than {EVENT_BYTES_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(())
    }
}

/// A message for people.
fn line(message: &Value, decode: Decode) -> String {
    let at = message.get("received_at_ms").and_then(Value::as_i64).map(time).unwrap_or_default();
    let retained = if message.get("retain") == Some(&Value::Bool(true)) { " retained" } else { "" };
    let head = format!(
        "{at} {} q{}{retained} from {}: ",
        text_of(message, "topic"),
        text_of(message, "qos"),
        text_of(message, "publisher")
    );
    head + &payload(message.get("payload").unwrap_or(&Value::Null), decode) + "\n"
}

fn payload(payload: &Value, decode: Decode) -> String {
    let text = payload.get("text").and_then(Value::as_str);
    let size = || format!("({} bytes)", text_of(payload, "bytes"));
    let cut = if payload.get("cut") == Some(&Value::Bool(true)) { "…" } else { "" };
    let hex = || match (payload.get("hex").and_then(Value::as_str), text) {
        (Some(hex), _) => hex.to_owned(),
        (None, Some(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        (None, None) => String::new(),
    };
    let shown = match (decode, text) {
        (Decode::Size, _) => return size(),
        (Decode::Pretty, Some(text)) => match serde_json::from_str::<Value>(text) {
            // Its characters are escaped, those that a terminal obeys among them.
            Ok(json) => format!("\n{json:#}"),
            Err(_) => clean(text),
        },
        (Decode::Auto, Some(text)) => clean(text),
        (Decode::Hex, _) | (_, None) => format!("{} {}", hex(), size()),
    };
    shown + cut
}

/// On one line, and nothing that a terminal obeys.
fn clean(text: &str) -> String {
    let line = text.replace(['\n', '\t', '\r'], " ");
    String::from_utf8_lossy(&without_control_characters(line.as_bytes())).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_found_however_they_are_cut() {
        let stream = "event: message\ndata: {\"n\":1}\n\n:\n\nevent: missed\ndata: {\"messages\":3}\n\n";
        for size in 1..stream.len() {
            let (mut events, mut seen) = (Events::default(), Vec::new());
            for piece in stream.as_bytes().chunks(size) {
                events
                    .take(piece, |event, data| {
                        seen.push(format!("{event} {data}"));
                        Ok(())
                    })
                    .unwrap();
            }
            assert_eq!(seen, ["message {\"n\":1}", "missed {\"messages\":3}"], "{size}");
        }
    }

    #[test]
    fn an_event_has_a_longest_length_and_is_json() {
        let mut events = Events::default();
        let fine = events.take(&vec![b'a'; EVENT_BYTES_MAX], |_, _| Ok(()));
        assert!(fine.is_ok() && events.take(b"a", |_, _| Ok(())).is_err());
        let wrong = Events::default().take(b"event: message\ndata: {\n\n", |_, _| Ok(()));
        assert_eq!(wrong.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_message_is_one_line_and_obeys_nothing() {
        let message = json!({ "topic": "a/\u{1b}b", "qos": 1, "retain": true, "received_at_ms": 0, "publisher": "p",
            "payload": { "bytes": 9, "text": "{\"t\":\n1}\u{7}", "cut": false } });
        assert_eq!(
            line(&message, Decode::Auto),
            "1970-01-01T00:00:00Z a/\\u{1b}b q1 retained from p: {\"t\": 1}\\u{7}\n"
        );
        let bytes = json!({ "bytes": 2, "hex": "00ff", "cut": true });
        assert_eq!(payload(&bytes, Decode::Auto), "00ff (2 bytes)…");
        assert_eq!(
            payload(&json!({ "bytes": 2, "text": "ab", "cut": false }), Decode::Hex),
            "6162 (2 bytes)"
        );
        assert_eq!(payload(&bytes, Decode::Size), "(2 bytes)");
        assert_eq!(
            payload(&json!({ "bytes": 7, "text": "{\"a\":1}", "cut": false }), Decode::Pretty),
            "\n{\n  \"a\": 1\n}"
        );
    }
}
