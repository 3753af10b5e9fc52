//! One step of a message's way: what was done, when, how long it took, and what came of it.

use std::time::{Duration, Instant, SystemTime};

use crate::Context;

/// Bytes of an attribute's text that are kept.
pub const ATTRIBUTE_BYTES_MAX: usize = 4_096;

/// What a span tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A message was taken, from a client or from the gateway itself: the first span of a trace.
    Publish,
    /// A rule looked at it.
    Rule,
    /// It was handed to receivers.
    Route,
    /// A rule made another message of it.
    Republish,
    /// An action was given something to send.
    Action,
    /// One attempt to send it.
    Attempt,
    /// It was given up.
    Settle,
}

impl Kind {
    /// Its name in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Rule => "rule",
            Self::Route => "route",
            Self::Republish => "republish",
            Self::Action => "action",
            Self::Attempt => "attempt",
            Self::Settle => "settle",
        }
    }
}

/// What an attribute says.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Int(i64),
    /// Yes or no.
    Bool(bool),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        let mut end = text.len().min(ATTRIBUTE_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        match text.get(..end) {
            Some(kept) if kept.len() < text.len() => Self::Text(format!("{kept}…")),
            _ => Self::Text(text.to_owned()),
        }
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        if text.len() <= ATTRIBUTE_BYTES_MAX { Self::Text(text) } else { text.as_str().into() }
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Int(number.into())
    }
}

impl From<u8> for Value {
    fn from(number: u8) -> Self {
        Self::Int(number.into())
    }
}

impl From<bool> for Value {
    fn from(is: bool) -> Self {
        Self::Bool(is)
    }
}

/// One step of a trace.
#[derive(Debug, Clone)]
pub struct Span {
    /// Which trace, and the span's own identifier.
    pub context: Context,
    /// The span that it is a part of; `None` for the first of a trace that came from nowhere else.
    pub parent: Option<u64>,
    /// What it tells of.
    pub kind: Kind,
    /// Its name: an operation and what it was done to, without anything that differs from message to message.
    pub name: String,
    /// When it began, nanoseconds since the epoch.
    pub start_ns: u64,
    /// How long it took.
    pub duration: Duration,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// What else is known.
    pub attributes: Vec<(&'static str, Value)>,
    /// Spans that it has to do with and is no part of: the attempt before it, the other messages of its batch.
    pub links: Vec<Context>,
    began: Instant,
}

impl Span {
    /// The span of a context, which begins now. Those who do something for it take the context as their parent.
    #[must_use]
    pub fn of(context: Context, parent: Option<u64>, kind: Kind, name: impl Into<String>) -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            context,
            parent,
            kind,
            name: name.into(),
            start_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
            duration: Duration::ZERO,
            error: None,
            attributes: Vec::new(),
            links: Vec::new(),
            began: Instant::now(),
        }
    }

    /// A part of what `parent` is, which begins now.
    #[must_use]
    pub fn child(parent: Context, kind: Kind, name: impl Into<String>) -> Self {
        let context = Context { trace_id: parent.trace_id, span_id: new_id() };
        Self::of(context, Some(parent.span_id), kind, name)
    }

    /// The same, begun so long ago.
    #[must_use]
    pub fn begun(mut self, ago: Duration) -> Self {
        self.start_ns = self.start_ns.saturating_sub(u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX));
        self.began = self.began.checked_sub(ago).unwrap_or(self.began);
        self
    }

    /// Says something more.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        self.attributes.push((name, value.into()));
    }

    /// The same, in a chain.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.set(name, value);
        self
    }

    /// It failed.
    pub fn fail(&mut self, error: &str) {
        let Value::Text(error) = error.into() else { return };
        self.error = Some(error);
    }

    /// An attribute, if there is one of the name.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&Value> {
        self.attributes.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    pub(crate) fn end(&mut self) {
        if self.duration.is_zero() {
            self.duration = self.began.elapsed();
        }
    }

    /// About how much memory it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let attributes = self.attributes.iter().map(|(_, value)| match value {
            Value::Text(text) => size_of::<(&str, Value)>() + text.len(),
            Value::Int(_) | Value::Bool(_) => size_of::<(&str, Value)>(),
        });
        size_of::<Self>()
            + self.name.len()
            + self.error.as_ref().map_or(0, String::len)
            + attributes.sum::<usize>()
            + self.links.len() * size_of::<Context>()
    }
}

/// An identifier for a span.
pub(crate) fn new_id() -> u64 {
    fastrand::u64(1..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let text = "ä".repeat(ATTRIBUTE_BYTES_MAX);
        let Value::Text(kept) = Value::from(text) else { panic!() };
        assert_eq!(kept, "ä".repeat(ATTRIBUTE_BYTES_MAX / 2) + "…");
        let fits = "a".repeat(ATTRIBUTE_BYTES_MAX);
        assert_eq!(Value::from(fits.as_str()), Value::Text(fits));
    }

    #[test]
    fn a_child_is_of_the_same_trace() {
        let parent = Context { trace_id: 7, span_id: 8 };
        let child = Span::child(parent, Kind::Rule, "process r");
        assert_eq!((child.context.trace_id, child.parent), (7, Some(8)));
        assert_ne!(child.context.span_id, 8);
    }
}
