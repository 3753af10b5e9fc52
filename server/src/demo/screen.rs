//! What the demo prints: a line for each thing that happens, in colour on a terminal, plain elsewhere.

use std::cell::Cell;
use std::io::IsTerminal as _;

use super::receiver::Request;
use crate::cli::{Failure, Output, without_control_characters};
use crate::config::Environment;
use crate::rules::RuleStats;

/// Columns of the second field, so that payloads stand under each other.
const SUBJECT_WIDTH: usize = 26;

/// Longest payload that is printed, in characters.
const PAYLOAD_CHARS_MAX: usize = 200;

#[derive(Debug)]
pub(super) struct Screen {
    out: Output,
    colours: bool,
    messages: Cell<u64>,
    outputs: Cell<u64>,
    requests: Cell<u64>,
}

/// What a line is about; the colour is an ANSI code.
#[derive(Debug, Clone, Copy)]
enum Kind {
    In,
    Rule,
    Out,
    Http,
}

impl Kind {
    const fn word_and_colour(self) -> (&'static str, &'static str) {
        match self {
            Self::In => ("in", "36"),
            Self::Rule => ("rule", "35"),
            Self::Out => ("out", "32"),
            Self::Http => ("http", "33"),
        }
    }
}

impl Screen {
    pub(super) fn new(environment: &Environment) -> Self {
        Self {
            out: Output::stdout(),
            colours: std::io::stdout().is_terminal() && environment.get("NO_COLOR").is_none_or(str::is_empty),
            messages: Cell::new(0),
            outputs: Cell::new(0),
            requests: Cell::new(0),
        }
    }

    pub(super) fn title(&self, text: &str) -> Result<(), Failure> {
        self.out.line(&self.coloured("1", text))
    }

    pub(super) fn note(&self, text: &str) -> Result<(), Failure> {
        self.out.line(text)
    }

    /// A message from a device.
    pub(super) fn input(&self, topic: &str, payload: &[u8]) -> Result<(), Failure> {
        self.messages.set(self.messages.get() + 1);
        self.line(Kind::In, topic, &printable(payload))
    }

    /// A message made by a rule.
    pub(super) fn out(&self, topic: &str, payload: &[u8]) -> Result<(), Failure> {
        self.outputs.set(self.outputs.get() + 1);
        self.line(Kind::Out, topic, &printable(payload))
    }

    /// A rule that let a message pass.
    pub(super) fn rule(&self, rule: &RuleStats) -> Result<(), Failure> {
        self.line(
            Kind::Rule,
            &rule.name,
            &format!("passed {} of {} messages so far", rule.passed, rule.matched),
        )
    }

    /// A request that a rule's action made.
    pub(super) fn http(&self, request: &Request) -> Result<(), Failure> {
        self.requests.set(self.requests.get() + 1);
        self.line(Kind::Http, &format!("{} {}", request.method, request.path), &printable(&request.body))
    }

    pub(super) fn summary(&self, rules: &[RuleStats]) -> Result<(), Failure> {
        self.note("")?;
        self.title("summary")?;
        self.note(&format!(
            "{} messages from devices, {} messages made by rules, {} http requests",
            self.messages.get(),
            self.outputs.get(),
            self.requests.get()
        ))?;
        for rule in rules {
            let RuleStats { name, matched, passed, no_match, failed_evaluation, .. } = rule;
            self.note(&format!(
                "rule {name:<12} matched {matched}, passed {passed}, held back {no_match}, failed {failed_evaluation}"
            ))?;
        }
        Ok(())
    }

    fn line(&self, kind: Kind, subject: &str, text: &str) -> Result<(), Failure> {
        let (word, colour) = kind.word_and_colour();
        let subject = printable(subject.as_bytes());
        self.out.line(&format!(
            "{} {subject:<SUBJECT_WIDTH$} {text}",
            self.coloured(colour, &format!("{word:<4}"))
        ))
    }

    fn coloured(&self, colour: &str, text: &str) -> String {
        if self.colours { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Payloads come from whoever connects: they are shown, not obeyed, and not at any length.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&without_control_characters(bytes)).replace('\n', "\\n");
    match text.char_indices().nth(PAYLOAD_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_one_line_of_bounded_length() {
        assert_eq!(printable(b"a\nb\x1b[2J"), "a\\nb\\u{1b}[2J");
        let long = "é".repeat(PAYLOAD_CHARS_MAX);
        assert_eq!(printable(long.as_bytes()), long);
        assert_eq!(printable(format!("{long}é").as_bytes()), format!("{long}…"));
    }
}
