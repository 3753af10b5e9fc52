//! What one listener is told: where it listens, what is spoken there, and who may bring whom.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use super::tls::TlsSetup;
use crate::limits::ListenerLimits;

/// One place where clients connect.
#[derive(Debug, Clone)]
pub struct ListenerConfig {
    /// Name, for logs, metrics and `listener()` in rules.
    pub name: String,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// What is spoken there.
    pub speaks: Speaks,
    /// Whether clients need not say who they are. Without it, and without an authenticator, nobody gets in.
    pub allow_anonymous: bool,
    /// Which Client Identifiers clients may have.
    pub client_ids: ClientIds,
    /// Who may take over the session of a user.
    pub takeover: Takeover,
    /// Network Connections at a time on this listener.
    pub max_connections: u32,
    /// What it allows otherwise than the broker.
    pub limits: ListenerLimits,
    /// Who must say, by the PROXY protocol, whose connection it passes on. With it nobody else may connect.
    pub proxies: Option<Proxies>,
}

impl ListenerConfig {
    /// A listener for plain MQTT over TCP; port 0 takes a free one.
    #[must_use]
    pub fn tcp(name: &str, address: SocketAddr) -> Self {
        Self {
            name: name.to_owned(),
            endpoint: Endpoint::Ip(address),
            speaks: Speaks::Mqtt,
            allow_anonymous: false,
            client_ids: ClientIds::default(),
            takeover: Takeover::default(),
            max_connections: 100_000,
            limits: ListenerLimits::default(),
            proxies: None,
        }
    }
}

/// Which Client Identifiers clients may have. A client that gives none gets one that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientIds {
    /// Any.
    #[default]
    Any,
    /// The user name, as it was proven, and no other.
    Username,
    /// The user name, alone or followed by `:` and anything.
    Prefix,
}

/// Who may take over the session of a user who has proven to be that user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Takeover {
    /// That user alone.
    #[default]
    SameUser,
    /// Whoever names its Client Identifier.
    Anyone,
}

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// An IP address and a port.
    Ip(SocketAddr),
    /// A Unix socket.
    Unix {
        /// The socket's file.
        path: PathBuf,
        /// Its permissions, as in `chmod`.
        mode: u32,
    },
}

impl Endpoint {
    /// The IP address and port, unless it is a Unix socket.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix { .. } => None,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix { path, .. } => path.display().fmt(f),
        }
    }
}

/// What is spoken below MQTT.
#[derive(Debug, Clone)]
pub enum Speaks {
    /// Nothing: MQTT as it is. The only choice for a Unix socket.
    Mqtt,
    /// TLS.
    Tls(TlsSetup),
    /// WebSocket.
    WebSocket(WebSocketConfig),
    /// WebSocket over TLS.
    SecureWebSocket(TlsSetup, WebSocketConfig),
    /// Whatever the client's first byte says: MQTT, WebSocket, or either of them over TLS where there is a setup for it.
    Any(Option<TlsSetup>, WebSocketConfig),
}

impl Speaks {
    /// The setup of TLS, where it is spoken.
    pub(super) fn tls(&self) -> Option<&TlsSetup> {
        match self {
            Self::Tls(setup) | Self::SecureWebSocket(setup, _) | Self::Any(Some(setup), _) => Some(setup),
            Self::Mqtt | Self::WebSocket(_) | Self::Any(None, _) => None,
        }
    }
}

/// Settings of WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocketConfig {
    /// Path of the request, as in `ws://host/mqtt`.
    pub path: String,
    /// Pages that may connect, as browsers name them (`https://console.example`); empty: all. Programs that name none may.
    pub origins: Vec<String>,
    /// Largest frame that is accepted, in bytes of its payload.
    pub max_frame_size: u64,
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self { path: "/mqtt".to_owned(), origins: Vec::new(), max_frame_size: 2 * 1024 * 1024 }
    }
}

/// Tells by its address whether somebody is one of the proxies.
type IsProxy = dyn Fn(IpAddr) -> bool + Send + Sync;

/// Addresses of proxies.
#[derive(Clone)]
pub struct Proxies(Arc<IsProxy>);

impl Proxies {
    /// The addresses for which `is_proxy` holds.
    pub fn new(is_proxy: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(is_proxy))
    }

    pub(super) fn contain(&self, address: IpAddr) -> bool {
        (self.0)(address.to_canonical())
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proxies")
    }
}
