//! A record: what the actions of queues and streams send for one message, whatever the system.
//!
//! A record has an address in so many parts as its kind needs, a key where the kind knows one, named fields, and a
//! payload. What the parts are called, and what may stand in them, each kind says beside its driver
//! (`sinks/<kind>/config.rs`); building one from templates ([`RecordPlan`]), keeping it in an outbox, and what a batch holds
//! are the same for all, and are here.

mod batch;
mod plan;

use std::fmt;

use bytes::Bytes;

pub use self::batch::RecordBatchConfig;
pub(crate) use self::plan::{PartRule, RecordPlan, RecordPlanBuilder};
use trace::{Span, TRACEPARENT};

use crate::delivery::Envelope;
use crate::delivery::outbox::{put_bytes, take_bytes};
use crate::outlet::QueuedRequest;

/// Most named fields of a record.
pub(crate) const FIELDS_MAX: usize = 64;
/// Longest name of a field in bytes.
pub(crate) const FIELD_NAME_BYTES_MAX: usize = 255;
/// Most parts of an address.
const PARTS_MAX: usize = 4;
/// What a kept record begins with, so that it can't be taken for a request of another shape.
const MARK: &[u8] = b"record/1";

/// Which kind of system a record is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RecordKind {
    /// NATS: subject.
    Nats,
    /// AMQP 0-9-1: exchange and routing key.
    Amqp,
    /// Kafka: topic, and what messages that keep their order have in common.
    Kafka,
    /// Redis: command, key, and for a hash the field.
    Redis,
}

/// What traces call the system that an action of a kind (its `type`) sends to; `None`: none for messages.
#[must_use]
pub fn messaging_system(kind: &str) -> Option<&'static str> {
    let kind = RecordKind::ALL.into_iter().find(|known| known.as_str() == kind)?;
    Some(kind.messaging_system())
}

impl RecordKind {
    const ALL: [Self; 4] = [Self::Amqp, Self::Kafka, Self::Nats, Self::Redis];

    /// The `type` of actions that make such records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Amqp => "amqp",
            Self::Kafka => "kafka",
            Self::Redis => "redis",
        }
    }

    /// What the parts of the address are called in the configuration, in order.
    #[must_use]
    pub const fn parts(self) -> &'static [&'static str] {
        match self {
            Self::Nats => &["subject"],
            Self::Amqp => &["exchange", "routing_key"],
            Self::Kafka => &["topic", "line"],
            Self::Redis => &["command", "key", "field"],
        }
    }

    /// What traces call the system; OpenTelemetry's conventions have a name for the first two.
    #[must_use]
    pub const fn messaging_system(self) -> &'static str {
        match self {
            Self::Amqp => "rabbitmq",
            Self::Kafka => "kafka",
            Self::Nats => "nats",
            Self::Redis => "redis",
        }
    }

    /// What the fields are called.
    #[must_use]
    pub const fn fields(self) -> &'static str {
        match self {
            Self::Amqp | Self::Kafka | Self::Nats => "headers",
            Self::Redis => "fields",
        }
    }

    /// What the payload is called.
    #[must_use]
    pub const fn payload(self) -> &'static str {
        match self {
            Self::Nats => "payload",
            Self::Amqp => "body",
            Self::Kafka | Self::Redis => "value",
        }
    }
}

/// What is sent for one message. Its `Debug` text shows no field's value and no payload.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// What it is for.
    pub kind: RecordKind,
    /// Where it goes: as many parts as [`RecordKind::parts`] names.
    pub address: Vec<String>,
    /// What it is kept together by, where the kind knows that.
    pub key: Option<Bytes>,
    /// Named values, in the order of the configuration.
    pub fields: Vec<(String, Bytes)>,
    /// The payload, possibly empty.
    pub payload: Bytes,
}

impl Record {
    /// A part of the address; empty where there is none.
    #[must_use]
    pub fn part(&self, index: usize) -> &str {
        self.address.get(index).map_or("", String::as_str)
    }

    /// Says where it goes on the span of an attempt.
    pub(crate) fn describe(&self, span: &mut Span) {
        span.set("messaging.system", self.kind.messaging_system());
        let destination = match self.kind {
            RecordKind::Amqp => format!("{}:{}", self.part(0), self.part(1)),
            RecordKind::Kafka | RecordKind::Nats => self.part(0).to_owned(),
            RecordKind::Redis => self.part(1).to_owned(),
        };
        span.set("messaging.destination.name", destination);
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("kind", &self.kind)
            .field("address", &self.address)
            .field("fields", &self.fields.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

impl QueuedRequest for Record {
    fn bytes(&self) -> usize {
        let address: usize = self.address.iter().map(|part| part.len() + 24).sum();
        let fields: usize = self.fields.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
        let key = self.key.as_ref().map_or(0, Bytes::len);
        size_of::<Self>() + address + fields + key + self.payload.len()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, MARK);
        put_bytes(out, self.kind.as_str().as_bytes());
        put_bytes(out, &[u8::try_from(self.address.len()).unwrap_or(u8::MAX), u8::from(self.key.is_some())]);
        for part in &self.address {
            put_bytes(out, part.as_bytes());
        }
        if let Some(key) = &self.key {
            put_bytes(out, key);
        }
        put_bytes(out, &self.payload);
        for (name, value) in &self.fields {
            put_bytes(out, name.as_bytes());
            put_bytes(out, value);
        }
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let from = &mut bytes;
        if take_bytes(from)? != MARK {
            return None;
        }
        let kind = take_bytes(from)?;
        let kind = RecordKind::ALL.into_iter().find(|known| known.as_str().as_bytes() == kind)?;
        let &[parts, has_key @ (0 | 1)] = take_bytes(from)? else { return None };
        let parts = usize::from(parts);
        if parts > PARTS_MAX || parts != kind.parts().len() {
            return None;
        }
        let mut address = Vec::with_capacity(parts);
        for _ in 0..parts {
            address.push(text(take_bytes(from)?)?);
        }
        let key = if has_key == 1 { Some(Bytes::copy_from_slice(take_bytes(from)?)) } else { None };
        let payload = Bytes::copy_from_slice(take_bytes(from)?);
        let mut fields = Vec::new();
        while !from.is_empty() {
            let name = text(take_bytes(from)?)?;
            let value = Bytes::copy_from_slice(take_bytes(from)?);
            if fields.len() >= FIELDS_MAX || !(1..=FIELD_NAME_BYTES_MAX).contains(&name.len()) {
                return None;
            }
            fields.push((name, value));
        }
        Some(Self { kind, address, key, fields, payload })
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

/// What an action adds to its records: the key by which the far side can tell that it has seen one, and what marks those
/// that come late.
#[derive(Debug)]
pub(crate) struct Marks {
    /// What makes the keys of one action differ from those of another for the same message.
    suffix: String,
}

impl Marks {
    /// Names the key that stays the same over retries and restarts.
    pub(crate) const IDEMPOTENCY_KEY: &'static str = "Idempotency-Key";

    pub(crate) fn new(rule: &str, action: &str) -> Self {
        Self { suffix: format!(".{rule}.{action}") }
    }

    /// The key of a record.
    pub(crate) fn key(&self, item: &Envelope<Record>) -> String {
        format!("{}{}", item.id, self.suffix)
    }

    /// The key; for a record of an earlier run, or one that was a dead letter, that it is one and when its message was
    /// received; and for one that is traced, where that goes on.
    pub(crate) fn of(&self, item: &Envelope<Record>) -> impl Iterator<Item = (&'static str, String)> {
        let late = item.replayed.map(|received_at_ms| {
            [("Tidegate-Replayed", "true".to_owned()), ("Tidegate-Received-At", received_at_ms.to_string())]
        });
        let trace = item.trace.traceparent().map(|traceparent| (TRACEPARENT, traceparent));
        std::iter::once((Self::IDEMPOTENCY_KEY, self.key(item)))
            .chain(late.into_iter().flatten())
            .chain(trace)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn records() -> impl Strategy<Value = Record> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        (
            prop::sample::select(RecordKind::ALL.to_vec()),
            prop::collection::vec(".{0,12}", PARTS_MAX),
            prop::option::of(bytes()),
            prop::collection::vec((".{1,12}", bytes()), 0..5),
            bytes(),
        )
            .prop_map(|(kind, mut address, key, fields, payload)| {
                address.truncate(kind.parts().len());
                Record { kind, address, key, fields, payload }
            })
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_comes_back(record in records()) {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            prop_assert_eq!(Record::decode(&bytes), Some(record));
            prop_assert!(crate::HttpRequest::decode(&bytes).is_none());
        }

        #[test]
        fn what_is_cut_or_changed_is_refused_or_is_another(record in records(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            let at = at.index(bytes.len());
            let changed = { let mut changed = bytes.clone(); changed[at] ^= 1 << bit; changed };
            prop_assert_ne!(Record::decode(&changed), Some(record.clone()));
            prop_assert_ne!(Record::decode(&bytes[..at]), Some(record));
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(Record::decode(&bytes));
        }
    }
}
