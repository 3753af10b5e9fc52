//! The same request as JSON: identifiers in hexadecimal digits, 64-bit numbers as texts, enumerations as numbers.

use serde_json::{Value, json};
use trace::{Context, Span};

use super::span::{FLAGS_OF_OURS, SCHEMA_URL, SCOPE, STATUS_ERROR, Told, attributes, end_ns, flags, kind};
use super::wire::Partial;

/// A request with these spans.
pub(super) fn request(resource: &[(String, String)], spans: &[Span], explanations: bool) -> Vec<u8> {
    let resource: Vec<Value> =
        resource.iter().map(|(name, value)| key_value(name, Told::Text(value))).collect();
    let spans: Vec<Value> = spans.iter().map(|span| one(span, explanations)).collect();
    json!({ "resourceSpans": [{
        "resource": { "attributes": resource },
        "scopeSpans": [{
            "scope": { "name": SCOPE, "version": env!("CARGO_PKG_VERSION") },
            "spans": spans,
            "schemaUrl": SCHEMA_URL,
        }],
        "schemaUrl": SCHEMA_URL,
    }]})
    .to_string()
    .into_bytes()
}

fn one(span: &Span, explanations: bool) -> Value {
    let attributes: Vec<Value> =
        attributes(span, explanations).map(|(name, value)| key_value(name, value)).collect();
    let links: Vec<Value> =
        span.links.iter().map(|link| with_context(*link, json!({ "flags": FLAGS_OF_OURS }))).collect();
    let mut told = json!({
        "name": span.name,
        "kind": kind(span),
        "startTimeUnixNano": span.start_ns.to_string(),
        "endTimeUnixNano": end_ns(span).to_string(),
        "attributes": attributes,
        "links": links,
        "flags": flags(span),
    });
    if let Some(object) = told.as_object_mut() {
        if let Some(parent) = span.parent {
            object.insert("parentSpanId".to_owned(), format!("{parent:016x}").into());
        }
        if let Some(error) = &span.error {
            object.insert("status".to_owned(), json!({ "message": error, "code": STATUS_ERROR }));
        }
    }
    with_context(span.context, told)
}

fn with_context(context: Context, mut of: Value) -> Value {
    if let Some(object) = of.as_object_mut() {
        object.insert("traceId".to_owned(), format!("{:032x}", context.trace_id).into());
        object.insert("spanId".to_owned(), format!("{:016x}", context.span_id).into());
    }
    of
}

fn key_value(name: &str, value: Told<'_>) -> Value {
    let value = match value {
        Told::Text(text) => json!({ "stringValue": text }),
        Told::Int(number) => json!({ "intValue": number.to_string() }),
        Told::Bool(is) => json!({ "boolValue": is }),
    };
    json!({ "key": name, "value": value })
}

/// Reads an answer; `None`: all was taken, or nobody can tell.
pub(super) fn partial(answer: &[u8]) -> Option<Partial> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let partial = answer.get("partialSuccess")?;
    let rejected = partial.get("rejectedSpans");
    // A 64-bit number is a text, and may be a number.
    let rejected = rejected.and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok()));
    let message = partial.get("errorMessage").and_then(Value::as_str).unwrap_or_default();
    let partial = Partial { rejected: rejected.unwrap_or(0), message: message.to_owned() };
    (partial != Partial::default()).then_some(partial)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_out_is_read() {
        let said = |rejected: u64, message: &str| Some(Partial { rejected, message: message.to_owned() });
        let read = |text: &str| partial(text.as_bytes());
        assert_eq!(read(r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"old"}}"#), said(3, "old"));
        assert_eq!(read(r#"{"partialSuccess":{"rejectedSpans":3}}"#), said(3, ""));
        assert_eq!(read(r#"{"partialSuccess":{"rejectedSpans":-3,"errorMessage":7}}"#), None);
        for nothing in ["", "{}", "[]", "3", r#"{"partialSuccess":{}}"#, r#"{"partialSuccess":null}"#] {
            assert_eq!(read(nothing), None, "{nothing}");
        }
    }
}
