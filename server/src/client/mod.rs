//! A small MQTT client: what `tidegate pub`, `tidegate sub` and the demo's devices connect with.
//!
//! One [`Client`] is one Network Connection, over TCP, TLS, WebSocket, both of them, or a Unix socket, in MQTT 3.1, 3.1.1 or
//! 5.0. It has no task of its own: bytes move
//! while [`Client::next`] is awaited, which answers keep-alive, acknowledges what arrives and returns [`Event`]s. Requests
//! ([`Client::publish`], [`Client::subscribe`]) only queue bytes and name the Packet Identifier that the event with their
//! outcome will carry, so a caller can keep many under way.
//!
//! What it leaves out: reconnecting and sending again what was not acknowledged (the caller knows what it still owes),
//! extended authentication, topic aliases.

mod connection;
mod endpoint;
mod error;
mod stream;
mod tls;
mod websocket;

#[cfg(test)]
mod tests;

use std::time::Duration;

use mqtt_protocol::{PacketId, ProtocolVersion, QoS, ReasonCode};

pub use self::connection::Client;
pub use self::endpoint::{Endpoint, Transport};
pub use self::error::ClientError;
pub use self::tls::TlsOptions;

/// How to connect.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to.
    pub endpoint: Endpoint,
    /// What carries MQTT there; over a Unix socket nothing does.
    pub transport: Transport,
    /// Version of the protocol.
    pub version: ProtocolVersion,
    /// Client Identifier; empty: the Server chooses one (not in 3.1).
    pub client_id: String,
    /// Whether a Session of that Client Identifier is discarded first (Clean Session in 3.x).
    pub clean_start: bool,
    /// Longest silence; zero: no limit. Whole seconds count, at most 65,535.
    pub keep_alive: Duration,
    /// Session Expiry Interval in seconds; 5.0 only.
    pub session_expiry_interval_s: u32,
    /// User name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Password>,
    /// What the Server publishes when the connection breaks.
    pub will: Option<Message>,
    /// QoS 1 and 2 messages that the Server may have under way to us; 5.0 only.
    pub receive_maximum: u16,
    /// Largest packet that is accepted, in bytes.
    pub maximum_packet_size: u32,
    /// Time for the connection and the answer to CONNECT.
    pub connect_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            endpoint: Endpoint::Tcp { host: "localhost".to_owned(), port: 1883 },
            transport: Transport::default(),
            version: ProtocolVersion::V5,
            client_id: String::new(),
            clean_start: true,
            keep_alive: Duration::from_secs(60),
            session_expiry_interval_s: 0,
            username: None,
            password: None,
            will: None,
            receive_maximum: 1_024,
            maximum_packet_size: 256 * 1024 * 1024,
            connect_timeout: Duration::from_secs(10),
        }
    }
}

/// A password: never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Vec<u8>);

impl Password {
    /// Takes the bytes as they are.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

/// An Application Message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Topic Name.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// Quality of service.
    pub qos: QoS,
    /// Whether it is, or was, a Retained Message.
    pub retain: bool,
    /// MQTT 5 properties; not sent before 5.0.
    pub properties: Properties,
}

impl Message {
    /// A message at QoS 0, not retained, without properties.
    pub fn new(topic: impl Into<String>, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            topic: topic.into(),
            payload: payload.into(),
            qos: QoS::AtMostOnce,
            retain: false,
            properties: Properties::default(),
        }
    }

    /// The same at another QoS.
    #[must_use]
    pub fn with_qos(self, qos: QoS) -> Self {
        Self { qos, ..self }
    }

    /// The same, to be retained.
    #[must_use]
    pub fn retained(self) -> Self {
        Self { retain: true, ..self }
    }
}

/// The properties of a message that travel from end to end. Source: MQTT 5.0 §3.3.2.3.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    /// `Some(true)`: the payload is UTF-8 text.
    pub payload_format_indicator: Option<bool>,
    /// Life time in seconds.
    pub message_expiry_interval_s: Option<u32>,
    /// Kind of content, usually a MIME type.
    pub content_type: Option<String>,
    /// Topic for an answer.
    pub response_topic: Option<String>,
    /// What the answer is to repeat.
    pub correlation_data: Option<Vec<u8>>,
    /// User Properties, in order.
    pub user_properties: Vec<(String, String)>,
}

/// A message that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The message.
    pub message: Message,
    /// Whether it may have come before (QoS 1), as the Server says.
    pub dup: bool,
    /// Its Packet Identifier on this connection.
    pub packet_id: Option<PacketId>,
    /// Identifiers of the Subscriptions that it matched.
    pub subscription_identifiers: Vec<u32>,
}

/// What happened on the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A message arrived. It is acknowledged when [`Client::next`] is called again.
    Message(Received),
    /// A publish at QoS 1 or 2 is settled; an error code means that it was refused.
    Published {
        /// As [`Client::publish`] returned it.
        packet_id: PacketId,
        /// What the Server said; `Success` before 5.0.
        reason_code: ReasonCode,
    },
    /// A SUBSCRIBE was answered, one code per filter.
    Subscribed {
        /// As [`Client::subscribe`] returned it.
        packet_id: PacketId,
        /// Granted QoS or error.
        reason_codes: Vec<ReasonCode>,
    },
    /// An UNSUBSCRIBE was answered.
    Unsubscribed {
        /// As [`Client::unsubscribe`] returned it.
        packet_id: PacketId,
        /// One code per filter; empty before 5.0.
        reason_codes: Vec<ReasonCode>,
    },
}

/// What the Server said when it accepted the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Whether a Session was resumed.
    pub session_present: bool,
    /// The Client Identifier in use: ours, or the one that the Server chose.
    pub client_id: String,
    /// QoS 1 and 2 publishes that may be under way at one time.
    pub receive_maximum: u16,
    /// Largest packet the Server takes, in bytes.
    pub maximum_packet_size: u32,
    /// Highest QoS the Server takes.
    pub maximum_qos: QoS,
    /// Longest silence allowed, zero for any: ours, or the one that the Server wants.
    pub keep_alive: Duration,
}
