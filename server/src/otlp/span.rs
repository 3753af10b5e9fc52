//! What of a span is told, and in which of the protocol's words.

use trace::{Kind, Span, Value};

/// Where the names of attributes are described.
pub(super) const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.37.0";
/// Who makes the spans.
pub(super) const SCOPE: &str = "tidegate";

/// `STATUS_CODE_ERROR`.
pub(super) const STATUS_ERROR: u8 = 2;

/// What `error.type` says where nothing better is known.
const ERROR_OTHER: &str = "_OTHER";
const ERROR_TYPE: &str = "error.type";
/// Shows values out of payloads.
const EXPLANATION: &str = "tidegate.rule.explanation";

/// `SpanKind`: what stands at an end of the gateway has another kind than what happens within.
pub(super) fn kind(span: &Span) -> u8 {
    const INTERNAL: u8 = 1;
    const CLIENT: u8 = 3;
    const PRODUCER: u8 = 4;
    const CONSUMER: u8 = 5;
    match span.kind {
        Kind::Publish | Kind::Rule => CONSUMER,
        Kind::Republish | Kind::Action => PRODUCER,
        // A message of a queue carries the context of the attempt that sent it; a request is one of a client.
        Kind::Attempt if span.attribute("messaging.system").is_some() => PRODUCER,
        Kind::Attempt => CLIENT,
        _ => INTERNAL,
    }
}

/// W3C flags (sampled), and whether the parent is somebody else's span, as far as that is known.
pub(super) fn flags(span: &Span) -> u32 {
    let is_remote = span.kind == Kind::Publish && span.parent.is_some();
    FLAGS_OF_OURS | if is_remote { 0x200 } else { 0 }
}

/// Of a span of this gateway: sampled, and known not to be remote.
pub(super) const FLAGS_OF_OURS: u32 = 0x101;

/// When it ended, nanoseconds since the epoch.
pub(super) fn end_ns(span: &Span) -> u64 {
    span.start_ns.saturating_add(u64::try_from(span.duration.as_nanos()).unwrap_or(u64::MAX))
}

/// One attribute, borrowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Told<'s> {
    Text(&'s str),
    Int(i64),
    Bool(bool),
}

/// The attributes that are told. What has failed without a kind of failure gets one.
pub(super) fn attributes(span: &Span, explanations: bool) -> impl Iterator<Item = (&'static str, Told<'_>)> {
    let own = span.attributes.iter().filter(move |(name, _)| explanations || *name != EXPLANATION);
    let own = own.map(|(name, value)| {
        let told = match value {
            Value::Text(text) => Told::Text(text),
            Value::Int(number) => Told::Int(*number),
            Value::Bool(is) => Told::Bool(*is),
        };
        (*name, told)
    });
    let is_untyped = span.error.is_some() && span.attribute(ERROR_TYPE).is_none();
    own.chain(is_untyped.then_some((ERROR_TYPE, Told::Text(ERROR_OTHER))))
}
