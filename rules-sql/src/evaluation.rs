//! One message under evaluation, and what comes out.

use crate::error::EvalError;
use crate::eval::Random;
use crate::event::Event;
use crate::json::Document;

/// One message being evaluated by many rules: the payload is parsed at most once, when first needed, and shared.
#[derive(Debug)]
pub struct Evaluation<'a> {
    event: &'a Event<'a>,
    payload: Payload,
    /// The payload, when it is JSON.
    document: Document<'a>,
    seed: u64,
    /// Where the current rule's random numbers begin.
    pub(crate) rule_seed: u64,
    /// State of the random generator.
    pub(crate) random: u64,
}

/// What is known of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Payload {
    Unread,
    Json,
    Other,
}

impl<'a> Evaluation<'a> {
    /// Starts with a message; `seed` feeds `rand()` and `newuuid()` and should be unpredictable.
    #[must_use]
    pub fn new(event: &'a Event<'a>, seed: u64) -> Self {
        Evaluation {
            event,
            payload: Payload::Unread,
            document: Document::default(),
            seed,
            rule_seed: seed,
            random: seed,
        }
    }

    /// Says that a rule comes next, under a number that no other rule of the message has. What `rand()` and `newuuid()`
    /// answer it and its templates from here on is then its own: it doesn't depend on which rules came before.
    pub fn begin_rule(&mut self, number: u32) {
        // The numbers are neighbours, the streams must not be: the generator scatters them.
        self.rule_seed = Random::new(self.seed ^ Random::new(u64::from(number)).next()).next();
        self.random = self.rule_seed;
    }

    /// As [`Self::begin_rule`], for templates of a rule that was evaluated before, in another [`Evaluation`] of the same
    /// seed: SET variables have the values that they had, and what else is random is random anew.
    pub fn begin_rule_again(&mut self, number: u32) {
        self.begin_rule(number);
        self.random = Random::new(!self.rule_seed).next();
    }

    /// The message under evaluation.
    #[must_use]
    pub fn event(&self) -> &'a Event<'a> {
        self.event
    }

    /// Parses the payload unless that was done; the first caller's `depth` holds for the message.
    pub(crate) fn read_payload(&mut self, depth: usize) {
        if self.payload == Payload::Unread {
            let scanned = self.document.fill(self.event.payload, depth);
            self.payload = if scanned.is_some() { Payload::Json } else { Payload::Other };
        }
    }

    /// The payload, if it was read and is JSON.
    pub(crate) fn document(&self) -> Option<&Document<'a>> {
        (self.payload == Payload::Json).then_some(&self.document)
    }
}

/// What a rule made of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// FROM or WHERE does not select the message.
    NoMatch,
    /// The message is selected and this is the output.
    Output(Output),
    /// The message is selected, but `SELECT VALUE` yields Undefined: no action runs.
    NoOutput,
    /// A budget was exceeded; the message itself goes on to its subscribers.
    Failed(EvalError),
}

/// The output of a rule: compact JSON text, or the payload's raw bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    bytes: Vec<u8>,
    is_json: bool,
}

impl Output {
    pub(crate) fn json(bytes: Vec<u8>) -> Output {
        Output { bytes, is_json: true }
    }

    /// A document that stands where a rule's output does: what `output()` is in the templates of an error action.
    ///
    /// `text` is to be one JSON document; should it be none, `output()` is a String.
    #[must_use]
    pub fn of_document(text: Vec<u8>) -> Output {
        Output::json(text)
    }

    pub(crate) fn raw(bytes: Vec<u8>) -> Output {
        Output { bytes, is_json: false }
    }

    /// The output's bytes: JSON text when [`Output::is_json`], else raw.
    ///
    /// JSON text is compact, except that `SELECT *` hands on the payload's bytes as they are.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// True when the bytes are one JSON document.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.is_json
    }

    /// Whether the output is an Object without members.
    #[must_use]
    pub fn is_empty_object(&self) -> bool {
        // `SELECT *` hands on the white space of the payload.
        self.is_json && self.bytes.iter().filter(|byte| !byte.is_ascii_whitespace()).take(3).eq(b"{}".iter())
    }

    /// The bytes themselves.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}
