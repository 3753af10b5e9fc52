//! A message as rules and error documents see it.

use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;

use actions::ItemId;
use broker::{Identity, Publication, Publisher, Trail};
use mqtt_protocol::{PublishProperties, QoS};
use rules_sql::{Event, EventProperties};
use store::{MessageId, MessageRecord, StoredMessage};
use trace::Context;

use super::origin::{Origin, OriginClient};

/// Encoded MQTT 5 properties, decoded each time one is asked for: most rules never ask.
#[derive(Debug, Clone, Copy)]
pub(super) struct Properties<'a>(pub(super) &'a [u8]);

impl<'a> Properties<'a> {
    fn decoded(&self) -> PublishProperties<'a> {
        // They were checked when the message came in; should they ever not decode, they read as none.
        PublishProperties::from_encoded(self.0).unwrap_or_default()
    }
}

impl EventProperties for Properties<'_> {
    fn content_type(&self) -> Option<&str> {
        self.decoded().content_type
    }

    fn response_topic(&self) -> Option<&str> {
        self.decoded().response_topic
    }

    fn correlation_data(&self) -> Option<&[u8]> {
        self.decoded().correlation_data
    }

    fn payload_is_utf8(&self) -> Option<bool> {
        self.decoded().payload_format_indicator
    }

    fn for_each_user_property(&self, visit: &mut dyn FnMut(&str, &str)) {
        for (name, value) in self.decoded().user_properties.iter() {
            visit(name, value);
        }
    }
}

/// Everything about one message that a rule may ask for, borrowed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) id: ItemId,
    pub(super) topic: &'a str,
    pub(super) payload: &'a [u8],
    pub(super) properties: Properties<'a>,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) received_at_ms: i64,
    pub(super) publisher: Option<&'a Arc<Publisher>>,
    /// Rules that made it.
    pub(super) trail: &'a Trail,
    /// The trace identifier that it had in another run; `None`: it is made from its identity.
    trace_id: Option<u128>,
    /// What is told of it is told beneath this, if it is traced.
    pub(super) trace: Option<Context>,
}

impl<'a> Facts<'a> {
    pub(super) fn of(message: &Publication<'a>) -> Self {
        Self {
            id: ItemId { store: message.id.store, epoch: message.id.epoch, sequence: message.id.sequence },
            topic: message.topic,
            payload: message.payload,
            properties: Properties(message.properties),
            qos: message.qos,
            retain: message.retain,
            received_at_ms: message.received_at_ms,
            publisher: message.publisher,
            trail: message.trail,
            trace_id: None,
            trace: message.trace.copied(),
        }
    }

    /// The same, told of beneath this.
    pub(super) fn beneath(self, context: Context) -> Self {
        Self { trace: Some(context), ..self }
    }

    pub(super) fn trace_id(&self, secret: &Secret) -> u128 {
        let traced = self.trace.map(|context| context.trace_id);
        self.trace_id.or(traced).unwrap_or_else(|| secret.trace_id(self.id))
    }

    /// What an outbox is to keep of it. `trail` are names of rules.
    pub(super) fn origin(&self, secret: &Secret, trail: Vec<String>) -> Origin {
        Origin {
            retain: self.retain,
            trace_id: self.trace_id(secret),
            client: self.publisher.map(|publisher| OriginClient {
                username: publisher.username().map(str::to_owned),
                address: publisher.address.to_string(),
                listener: publisher.listener.to_string(),
            }),
            trail,
        }
    }

    pub(super) fn client_id(&self) -> Option<&'a str> {
        self.publisher.map(|publisher| &*publisher.client_id)
    }

    /// The message as the SQL engine takes it.
    pub(super) fn event<'e>(&'e self, secret: &Secret) -> Event<'e> {
        let username = self.publisher.and_then(|publisher| publisher.username());
        Event {
            client_id: self.client_id(),
            username,
            principal: username,
            source_ip: self.publisher.and_then(|publisher| publisher.address.ip()),
            listener: self.publisher.map(|publisher| &*publisher.listener),
            qos: self.qos as u8,
            retain: self.retain,
            trace_id: Some(self.trace_id(secret)),
            now_ms: self.received_at_ms,
            properties: &self.properties,
            ..Event::new(self.topic, self.payload)
        }
    }

    /// A copy that outlives the call.
    pub(super) fn to_kept(self) -> KeptMessage {
        KeptMessage {
            id: self.id,
            topic: self.topic.into(),
            payload: self.payload.into(),
            properties: self.properties.0.into(),
            qos: self.qos,
            retain: self.retain,
            received_at_ms: self.received_at_ms,
            publisher: self.publisher.cloned(),
            trail: self.trail.clone(),
            trace_id: self.trace_id,
            trace: self.trace,
        }
    }
}

/// A message that is kept until an action has ended, for the error action.
#[derive(Debug)]
pub(super) struct KeptMessage {
    id: ItemId,
    topic: Box<str>,
    payload: Box<[u8]>,
    properties: Box<[u8]>,
    qos: QoS,
    retain: bool,
    received_at_ms: i64,
    publisher: Option<Arc<Publisher>>,
    pub(super) trail: Trail,
    trace_id: Option<u128>,
    trace: Option<Context>,
}

impl KeptMessage {
    /// A message as it comes back from an outbox. `trail` are the numbers of its origin's rules.
    pub(super) fn of_stored(message: &StoredMessage, origin: Option<&Origin>, trail: Trail) -> Self {
        let client = origin.and_then(|origin| origin.client.as_ref());
        let publisher = message.publisher.as_ref().map(|client_id| {
            let unknown = SocketAddr::from(([0, 0, 0, 0], 0)).into();
            Arc::new(Publisher {
                client_id: client_id.as_str().into(),
                identity: Arc::new(Identity {
                    username: client.and_then(|client| client.username.as_deref().map(Into::into)),
                    ..Identity::default()
                }),
                address: client.and_then(|client| client.address.parse().ok()).unwrap_or(unknown),
                listener: client.map_or("", |client| client.listener.as_str()).into(),
            })
        });
        let MessageId { store, epoch, sequence } = message.id;
        Self {
            id: ItemId { store, epoch, sequence },
            topic: message.topic.as_str().into(),
            payload: message.payload.as_slice().into(),
            properties: message.properties.as_slice().into(),
            qos: QoS::try_from(message.qos).unwrap_or(QoS::AtMostOnce),
            retain: origin.is_some_and(|origin| origin.retain),
            received_at_ms: message.received_at_ms,
            publisher,
            trail,
            trace_id: origin.map(|origin| origin.trace_id),
            trace: None,
        }
    }

    pub(super) fn facts(&self) -> Facts<'_> {
        Facts {
            id: self.id,
            topic: &self.topic,
            payload: &self.payload,
            properties: Properties(&self.properties),
            qos: self.qos,
            retain: self.retain,
            received_at_ms: self.received_at_ms,
            publisher: self.publisher.as_ref(),
            trail: &self.trail,
            trace_id: self.trace_id,
            trace: self.trace,
        }
    }

    /// The message as the store keeps it.
    pub(super) fn record(&self) -> MessageRecord<'_> {
        MessageRecord {
            id: MessageId { store: self.id.store, epoch: self.id.epoch, sequence: self.id.sequence },
            topic: &self.topic,
            properties: &self.properties,
            payload: &self.payload,
            qos: self.qos as u8,
            received_at_ms: self.received_at_ms,
            expires_after_ms: None,
            publisher: self.publisher.as_ref().map(|publisher| &*publisher.client_id),
            author: &[],
        }
    }

    /// About how many bytes of memory it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.topic.len() + self.payload.len() + self.properties.len()
    }
}

/// A secret of this process, from which seeds and trace identifiers are made: unpredictable to those who see some of
/// them, and the same for every rule that sees a message.
#[derive(Debug, Default)]
pub(super) struct Secret(RandomState);

impl Secret {
    /// The seed of `rand()` and `newuuid()` for the rules of one message.
    pub(super) fn seed(&self, id: ItemId) -> u64 {
        self.0.hash_one((id, "seed"))
    }

    /// A number for traces: its high half can't be guessed, its low half differs for each sequence number.
    pub(super) fn trace_id(&self, id: ItemId) -> u128 {
        let hash = self.0.hash_one((id, "trace"));
        u128::from(hash) << 64 | u128::from(hash.rotate_left(32) ^ id.sequence)
    }

    /// What [`Self::key`] is made with.
    pub(super) fn hasher(&self) -> RandomState {
        self.0.clone()
    }

    /// What items are ordered by, made from a client identifier or a topic.
    pub(super) fn key(&self, text: &str) -> u64 {
        self.0.hash_one(text)
    }
}
