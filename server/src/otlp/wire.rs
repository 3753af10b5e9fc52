//! `ExportTraceServiceRequest` as Protocol Buffers, and what is needed of the answer.
//!
//! Fields are written in the order of their numbers, as they stand in `opentelemetry/proto/trace/v1/trace.proto` 1.9; those
//! with their default value are left out. What is read is bounded by its length: no number in it is believed before the
//! bytes are there.

use trace::{Context, Span};

use super::span::{FLAGS_OF_OURS, SCHEMA_URL, SCOPE, STATUS_ERROR, Told, attributes, end_ns, flags, kind};

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// A request with these spans.
pub(super) fn request(resource: &[(String, String)], spans: &[Span], explanations: bool) -> Vec<u8> {
    let mut request = Message::default();
    // resource_spans
    request.message(1, |resource_spans| {
        resource_spans.message(1, |message| {
            for (name, value) in resource {
                message.message(1, |pair| pair.key_value(name, Told::Text(value)));
            }
        });
        // scope_spans
        resource_spans.message(2, |scope_spans| {
            scope_spans.message(1, |scope| {
                scope.text(1, SCOPE);
                scope.text(2, env!("CARGO_PKG_VERSION"));
            });
            for span in spans {
                scope_spans.message(2, |message| message.span(span, explanations));
            }
            scope_spans.text(3, SCHEMA_URL);
        });
        resource_spans.text(3, SCHEMA_URL);
    });
    request.0
}

/// A message under way.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn span(&mut self, span: &Span, explanations: bool) {
        self.context(span.context);
        if let Some(parent) = span.parent {
            self.bytes(4, &parent.to_be_bytes());
        }
        self.text(5, &span.name);
        self.number(6, kind(span).into());
        self.fixed64(7, span.start_ns);
        self.fixed64(8, end_ns(span));
        for (name, value) in attributes(span, explanations) {
            self.message(9, |pair| pair.key_value(name, value));
        }
        for link in &span.links {
            self.message(13, |message| {
                message.context(*link);
                message.fixed32(6, FLAGS_OF_OURS);
            });
        }
        if let Some(error) = &span.error {
            self.message(15, |status| {
                status.text(2, error);
                status.number(3, STATUS_ERROR.into());
            });
        }
        self.fixed32(16, flags(span));
    }

    fn context(&mut self, context: Context) {
        self.bytes(1, &context.trace_id.to_be_bytes());
        self.bytes(2, &context.span_id.to_be_bytes());
    }

    fn key_value(&mut self, name: &str, value: Told<'_>) {
        self.text(1, name);
        self.message(2, |any| match value {
            // An empty text is a value too, so it is written where a default would be left out.
            Told::Text(text) => any.bytes(1, text.as_bytes()),
            Told::Bool(is) => any.any_number(2, is.into()),
            Told::Int(number) => any.any_number(3, number.cast_unsigned()),
        });
    }

    fn tag(&mut self, field: u64, wire_type: u64) {
        self.varint(field << 3 | wire_type);
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
    }

    fn any_number(&mut self, field: u64, number: u64) {
        self.tag(field, VARINT);
        self.varint(number);
    }

    fn number(&mut self, field: u64, number: u64) {
        if number != 0 {
            self.any_number(field, number);
        }
    }

    fn fixed64(&mut self, field: u64, number: u64) {
        self.tag(field, FIXED64);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn fixed32(&mut self, field: u64, number: u32) {
        self.tag(field, FIXED32);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.tag(field, BYTES);
        self.varint(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, field: u64, text: &str) {
        if !text.is_empty() {
            self.bytes(field, text.as_bytes());
        }
    }

    fn message(&mut self, field: u64, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }
}

/// What a collector didn't take of a batch that it took.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Partial {
    pub(super) rejected: u64,
    pub(super) message: String,
}

/// Reads an `ExportTraceServiceResponse`; `None`: all was taken, or nobody can tell from these bytes.
pub(super) fn partial(answer: &[u8]) -> Option<Partial> {
    let inner = Fields(answer).find_map(|field| match field {
        (1, Field::Bytes(bytes)) => Some(bytes),
        _ => None,
    })?;
    let mut partial = Partial::default();
    for field in Fields(inner) {
        match field {
            (1, Field::Number(rejected)) => {
                partial.rejected = u64::try_from(rejected.cast_signed()).unwrap_or(0)
            }
            (2, Field::Bytes(text)) => partial.message = String::from_utf8_lossy(text).into_owned(),
            _ => {}
        }
    }
    (partial != Partial::default()).then_some(partial)
}

enum Field<'b> {
    Number(u64),
    Bytes(&'b [u8]),
    Other,
}

/// The fields of a message, up to the first that is broken.
struct Fields<'b>(&'b [u8]);

impl<'b> Fields<'b> {
    fn varint(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}

impl<'b> Iterator for Fields<'b> {
    type Item = (u64, Field<'b>);

    fn next(&mut self) -> Option<Self::Item> {
        let tag = self.varint()?;
        let field = match tag & 7 {
            VARINT => Field::Number(self.varint()?),
            BYTES => {
                let length = usize::try_from(self.varint()?).ok()?;
                Field::Bytes(self.take(length)?)
            }
            FIXED64 => self.take(8).map(|_| Field::Other)?,
            FIXED32 => self.take(4).map(|_| Field::Other)?,
            _ => return None,
        };
        Some((tag >> 3, field))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_written_as_the_encoding_asks() {
        let mut message = Message::default();
        // The example of the encoding's description.
        message.number(1, 150);
        assert_eq!(message.0, [0x08, 0x96, 0x01]);
        let mut message = Message::default();
        message.any_number(3, (-1_i64).cast_unsigned());
        assert_eq!(message.0, [&[0x18][..], &[0xff; 9], &[0x01]].concat());
    }

    #[test]
    fn what_was_left_out_is_read() {
        let mut answer = Message::default();
        answer.fixed64(7, 1);
        answer.message(1, |partial| {
            partial.number(1, 300);
            partial.text(2, "too old");
        });
        assert_eq!(partial(&answer.0), Some(Partial { rejected: 300, message: "too old".to_owned() }));
        assert_eq!(partial(&[]), None);
        // An empty one says that all was taken.
        assert_eq!(partial(&[0x0a, 0x00]), None);
        // A negative number, and a length past the end.
        let mut negative = Message::default();
        negative.message(1, |partial| partial.any_number(1, u64::MAX));
        assert_eq!(partial(&negative.0), None);
        assert_eq!(partial(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), None);
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(answer in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some(partial) = partial(&answer) {
                prop_assert!(partial.message.len() <= answer.len() * 3);
            }
        }
    }
}
