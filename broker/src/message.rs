//! Application Messages: borrowed while they are dispatched, owned when something outlives the call.
//!
//! A [`Publication`] points into the read buffer. Whatever keeps a message (a queue, an inflight window, the retained
//! store) holds an [`Arc<Message>`] whose body was copied once, to its exact size: never a slice of a read buffer.

use std::sync::Arc;

use mqtt_protocol::QoS;
use store::MessageId;
use trace::Context;

use crate::access::Identity;
use crate::listeners::PeerAddress;

/// Who published: fixed for the life of a Network Connection.
#[derive(Debug, Clone)]
pub struct Publisher {
    /// Client Identifier.
    pub client_id: Box<str>,
    /// Who that is.
    pub identity: Arc<Identity>,
    /// Remote address.
    pub address: PeerAddress,
    /// Name of the listener.
    pub listener: Arc<str>,
}

impl Publisher {
    /// Somebody who isn't connected, and in whose name something is published: no client, no listener, no address.
    pub(crate) fn running_as(username: &str) -> Self {
        let identity = Identity {
            username: Some(username.into()),
            authenticator: Some(Arc::from("run_as")),
            ..Identity::default()
        };
        Self {
            client_id: Box::default(),
            identity: Arc::new(identity),
            address: PeerAddress::Unix,
            listener: Arc::from(""),
        }
    }

    /// User name, if there is one.
    #[must_use]
    pub fn username(&self) -> Option<&str> {
        self.identity.username.as_deref()
    }
}

/// Numbers of the rules that made a message, oldest first. Empty for what a client published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trail(Option<Arc<[u32]>>);

impl Trail {
    /// The trail with one more rule.
    #[must_use]
    pub fn with(&self, rule: u32) -> Self {
        let mut rules = self.rules().to_vec();
        rules.push(rule);
        Self(Some(rules.into()))
    }

    /// The rules, oldest first.
    #[must_use]
    pub fn rules(&self) -> &[u32] {
        self.0.as_deref().unwrap_or_default()
    }
}

/// One Application Message on its way, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Publication<'a> {
    /// Identity, given at admission.
    pub id: MessageId,
    /// Namespace: 0 until there are tenants.
    pub namespace: u32,
    /// Topic Name.
    pub topic: &'a str,
    /// Payload.
    pub payload: &'a [u8],
    /// Quality of service of the publish.
    pub qos: QoS,
    /// Whether it was published to be retained.
    pub retain: bool,
    /// Encoded MQTT 5 properties that a Server forwards unaltered, without length prefix.
    pub properties: &'a [u8],
    /// When it expires: milliseconds on the broker's monotonic clock.
    pub expires_at_ms: Option<u64>,
    /// Wall clock at admission, milliseconds since the epoch.
    pub received_at_ms: i64,
    /// Who published it; `None`: the broker itself.
    pub publisher: Option<&'a Arc<Publisher>>,
    /// Rules that made it.
    pub trail: &'a Trail,
    /// Its trace, and the span that what is done with it belongs to; `None`: it isn't traced.
    pub trace: Option<&'a Context>,
}

impl Publication<'_> {
    /// A copy that outlives the call.
    #[must_use]
    pub fn to_message(&self) -> Arc<Message> {
        let mut body = Vec::with_capacity(self.topic.len() + self.properties.len() + self.payload.len());
        body.extend_from_slice(self.topic.as_bytes());
        body.extend_from_slice(self.properties);
        body.extend_from_slice(self.payload);
        Arc::new(Message {
            body: body.into_boxed_slice(),
            topic_bytes: u32::try_from(self.topic.len()).unwrap_or(0),
            properties_bytes: u32::try_from(self.properties.len()).unwrap_or(0),
            namespace: self.namespace,
            qos: self.qos,
            retain: self.retain,
            id: self.id,
            expires_at_ms: self.expires_at_ms.unwrap_or(u64::MAX),
            received_at_ms: self.received_at_ms,
            publisher: self.publisher.cloned(),
            trail: self.trail.clone(),
            trace: self.trace.copied().map(Box::new),
        })
    }
}

/// One Application Message that is kept.
#[derive(Debug)]
pub struct Message {
    /// Topic, properties and payload, one after the other.
    body: Box<[u8]>,
    topic_bytes: u32,
    properties_bytes: u32,
    namespace: u32,
    qos: QoS,
    retain: bool,
    id: MessageId,
    /// `u64::MAX`: never.
    expires_at_ms: u64,
    received_at_ms: i64,
    publisher: Option<Arc<Publisher>>,
    trail: Trail,
    /// Few messages have one.
    trace: Option<Box<Context>>,
}

impl Message {
    /// Topic Name.
    #[must_use]
    pub fn topic(&self) -> &str {
        // The bytes were copied from a `&str` of this length; the fallback is never taken.
        self.body
            .get(..self.topic_bytes as usize)
            .and_then(|b| std::str::from_utf8(b).ok())
            .unwrap_or_default()
    }

    /// The topic's bytes: cheaper than [`Message::topic`] where the text isn't needed.
    #[must_use]
    pub fn topic_bytes(&self) -> &[u8] {
        self.body.get(..self.topic_bytes as usize).unwrap_or_default()
    }

    /// Encoded properties that are forwarded unaltered.
    #[must_use]
    pub fn properties(&self) -> &[u8] {
        let start = self.topic_bytes as usize;
        self.body.get(start..start + self.properties_bytes as usize).unwrap_or_default()
    }

    /// Payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.body.get(self.topic_bytes as usize + self.properties_bytes as usize..).unwrap_or_default()
    }

    /// Quality of service of the publish.
    #[must_use]
    pub fn qos(&self) -> QoS {
        self.qos
    }

    /// Identity.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// Bytes that it counts for against a queue's limit.
    #[must_use]
    pub fn size(&self) -> usize {
        self.body.len()
    }

    /// When it expires on the monotonic clock, milliseconds.
    #[must_use]
    pub fn expires_at_ms(&self) -> Option<u64> {
        (self.expires_at_ms != u64::MAX).then_some(self.expires_at_ms)
    }

    /// Whether its time is over.
    #[must_use]
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms <= now_ms
    }

    /// The borrowed view that dispatch works on.
    #[must_use]
    pub fn publication(&self) -> Publication<'_> {
        Publication {
            id: self.id,
            namespace: self.namespace,
            topic: self.topic(),
            payload: self.payload(),
            qos: self.qos,
            retain: self.retain,
            properties: self.properties(),
            expires_at_ms: self.expires_at_ms(),
            received_at_ms: self.received_at_ms,
            publisher: self.publisher.as_ref(),
            trail: &self.trail,
            trace: self.trace.as_deref(),
        }
    }
}
