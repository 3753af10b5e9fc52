//! The listeners of a server: opened at a start, opened and closed at a reload.
//!
//! A listener that a reload takes out takes no more connections; those that it has stay until they end. One that is changed
//! stays as it is, but for its certificates: its address can't be bound twice, and to close it first would leave a moment in
//! which nobody can come.

use std::io;

use broker::{BoundListener, Broker, Endpoint, ListenerConfig, Proxies, Speaks, TlsSetup, WebSocketConfig};
use parking_lot::Mutex;

use crate::config::{ByteSize, Config, Listener, ListenerKind};
use crate::server::StartError;

/// The listeners that are open.
#[derive(Debug)]
pub struct Listeners {
    broker: Broker,
    bound: Mutex<Vec<BoundListener>>,
}

impl Listeners {
    /// None yet.
    pub(crate) fn new(broker: &Broker) -> Self {
        Self { broker: broker.clone(), bound: Mutex::default() }
    }

    /// Opens one inside the current tokio runtime; `setup` is for those that speak TLS.
    pub(crate) async fn open(
        &self,
        listener: &Listener,
        config: &Config,
        setup: Option<TlsSetup>,
    ) -> Result<(), StartError> {
        let bound = match listener_config(listener, config, setup) {
            Ok(settings) => self.broker.listen(settings).await,
            Err(error) => Err(error),
        };
        self.bound.lock().push(bound.map_err(|error| cannot_listen(listener, error))?);
        Ok(())
    }

    /// Has one take no more connections.
    pub(crate) fn close(&self, name: &str) {
        self.broker.close_listener(name);
        self.bound.lock().retain(|bound| &*bound.name != name);
    }

    /// Those that are open, with their real addresses, in the order in which they were opened.
    pub fn bound(&self) -> Vec<BoundListener> {
        self.bound.lock().clone()
    }
}

fn cannot_listen(listener: &Listener, source: io::Error) -> StartError {
    let name = listener.name.clone();
    match (source.kind(), listener.address) {
        (io::ErrorKind::AddrInUse, Some(address)) => StartError::AddressInUse { listener: name, address },
        _ => StartError::Listen { listener: name, place: listener.place(), source },
    }
}

/// A listener as the broker takes it. What a checked configuration can't lack is no reason to guess: never is TLS left out.
fn listener_config(
    listener: &Listener,
    config: &Config,
    setup: Option<TlsSetup>,
) -> Result<ListenerConfig, io::Error> {
    let lacks = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("it has no {what}"));
    let websocket = || {
        let settings = listener.websocket.clone().unwrap_or_default();
        // A packet may come in a frame of its own.
        let max_frame_size = settings.max_frame_size.max(config.limits.max_packet_size).as_u64();
        WebSocketConfig { path: settings.path, origins: settings.origins, max_frame_size }
    };
    let speaks = match (listener.kind, setup) {
        (ListenerKind::Tls, Some(setup)) => Speaks::Tls(setup),
        (ListenerKind::Wss, Some(setup)) => Speaks::SecureWebSocket(setup, websocket()),
        (ListenerKind::Ws, _) => Speaks::WebSocket(websocket()),
        (ListenerKind::Auto, setup) => Speaks::Any(setup, websocket()),
        (ListenerKind::Tcp | ListenerKind::Unix, _) => Speaks::Mqtt,
        (ListenerKind::Tls | ListenerKind::Wss, None) => return Err(lacks("certificate")),
    };
    let endpoint = match (listener.kind, &listener.path, listener.address) {
        (ListenerKind::Unix, Some(path), _) => {
            Endpoint::Unix { path: path.clone(), mode: listener.socket_mode().unwrap_or(0o600) }
        }
        (ListenerKind::Unix, None, _) => return Err(lacks("path")),
        (_, _, Some(address)) => Endpoint::Ip(address),
        (_, _, None) => return Err(lacks("address")),
    };
    let ranges = listener.proxy_protocol.clone();
    Ok(ListenerConfig {
        name: listener.name.clone(),
        endpoint,
        speaks,
        allow_anonymous: listener.allow_anonymous,
        client_ids: listener.client_id.client_ids(),
        takeover: listener.session_takeover.takeover(),
        max_connections: listener.max_connections,
        limits: broker::ListenerLimits {
            max_packet_size: listener.limits.max_packet_size.map(ByteSize::as_u32_saturating),
            max_connect_rate: listener.limits.max_connect_rate,
            max_publish_rate: listener.limits.max_publish_rate,
            max_publish_bytes_rate: listener.limits.max_publish_bytes_rate.map(ByteSize::as_u64),
        },
        proxies: (!ranges.is_empty())
            .then(|| Proxies::new(move |address| ranges.iter().any(|range| range.contains(address)))),
    })
}
