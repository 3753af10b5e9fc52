//! Why a connection or a request failed.

use std::time::Duration;

use mqtt_protocol::{DecodeError, EncodeError, QoS, ReasonCode};

use super::Endpoint;
use super::tls;

/// What can go wrong for a client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No connection.
    #[error("can't connect to {endpoint}")]
    Unreachable {
        /// As given.
        endpoint: Endpoint,
        /// What the system said about the last address tried.
        source: std::io::Error,
    },
    /// No answer to the connection attempt or to CONNECT.
    #[error("no answer from {endpoint} within {} s", timeout.as_secs())]
    ConnectTimeout {
        /// As given.
        endpoint: Endpoint,
        /// The time that was waited.
        timeout: Duration,
    },
    /// TLS can't be set up as it is asked for.
    #[error("{0}")]
    TlsSetup(String),
    /// One side refused the other in TLS.
    #[error("no connection over TLS: {}", tls::explain(.0))]
    Tls(rustls::Error),
    /// The answer to the request for WebSocket was no.
    #[error("the server refused WebSocket: {status} {}", reason.escape_debug())]
    WebSocketRefused {
        /// Status of HTTP.
        status: u16,
        /// Its text.
        reason: String,
    },
    /// The answer to the request for WebSocket was none.
    #[error("the server doesn't agree on WebSocket: {0}")]
    WebSocket(&'static str),
    /// The Server answered CONNECT with an error.
    #[error("the server refused the connection: {reason_code} (0x{:02x}){}", reason_code.code(), text(reason))]
    Refused {
        /// The Server's code; the nearest one of MQTT 5.0 for 3.x.
        reason_code: ReasonCode,
        /// The Server's Reason String.
        reason: Option<String>,
    },
    /// The Server said DISCONNECT.
    #[error("the server closed the connection: {reason_code} (0x{:02x}){}", reason_code.code(), text(reason))]
    Disconnected {
        /// The Server's code.
        reason_code: ReasonCode,
        /// The Server's Reason String.
        reason: Option<String>,
    },
    /// The connection ended without a word.
    #[error("the connection was closed")]
    Closed,
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[source] std::io::Error),
    /// No PINGRESP came in time.
    #[error("the server did not answer a ping within {} s", timeout.as_secs())]
    PingTimeout {
        /// The time that was waited.
        timeout: Duration,
    },
    /// The Server sent bytes that are no MQTT, or MQTT that it must not send.
    #[error("the server sent something that it must not send: {0}")]
    Decode(#[from] DecodeError),
    /// A request that can't be written as a packet.
    #[error("the request can't be sent: {0}")]
    Encode(#[from] EncodeError),
    /// The packet is larger than the Server takes.
    #[error("a packet of {size} bytes exceeds the server's limit of {limit}")]
    PacketTooLarge {
        /// Bytes of the packet.
        size: usize,
        /// The Server's Maximum Packet Size.
        limit: u32,
    },
    /// The Server takes no messages of this QoS.
    #[error("qos {} exceeds the server's maximum of {}", qos.level(), limit.level())]
    QosNotSupported {
        /// As asked for.
        qos: QoS,
        /// The Server's Maximum QoS.
        limit: QoS,
    },
    /// As many publishes are under way as the Server allows: await [`Client::next`](super::Client::next).
    #[error("{limit} messages are under way, as many as the server allows")]
    WindowFull {
        /// The Server's Receive Maximum.
        limit: u16,
    },
}

impl ClientError {
    /// Whether trying again later may help: true for what the network does, false for what we or the Server decided.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::ConnectTimeout { .. }
            | Self::Closed
            | Self::Io(_)
            | Self::PingTimeout { .. } => true,
            Self::Refused { reason_code, .. } | Self::Disconnected { reason_code, .. } => matches!(
                reason_code,
                ReasonCode::ServerUnavailable
                    | ReasonCode::ServerBusy
                    | ReasonCode::ServerShuttingDown
                    | ReasonCode::KeepAliveTimeout
                    | ReasonCode::QuotaExceeded
                    | ReasonCode::ConnectionRateExceeded
            ),
            // A proxy that can't reach the server just now.
            Self::WebSocketRefused { status, .. } => *status >= 500,
            _ => false,
        }
    }
}

impl From<std::io::Error> for ClientError {
    /// What TLS has to say comes inside an error of the stream.
    fn from(error: std::io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(fault) => Self::Tls(fault.clone()),
            // The end of a stream without the goodbye of TLS is an end, too.
            None if error.kind() == std::io::ErrorKind::UnexpectedEof => Self::Closed,
            None => Self::Io(error),
        }
    }
}

fn text(reason: &Option<String>) -> String {
    reason.as_ref().map(|reason| format!(": {}", reason.escape_debug())).unwrap_or_default()
}
