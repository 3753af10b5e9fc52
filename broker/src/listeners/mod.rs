//! Listeners: where clients connect, what is spoken there below MQTT, and how many may come.
//!
//! A plain TCP connection becomes a [`Connection`] as soon as it is accepted. On every other listener something comes before
//! MQTT (`arrival`): the word of a proxy, a handshake of TLS, a request for WebSocket. That runs in a task of its own, so
//! that the connection's task is as small as it can be; what comes out of it is a [`Transport`]. By a [`Door`] the embedding
//! program brings connections that it has let in itself.

mod arrival;
mod config;
mod door;
mod peer;
mod proxy;
mod tls;
mod transport;
mod unix;
mod websocket;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;

pub(crate) use self::arrival::Arrivals;
pub use self::config::{ClientIds, Endpoint, ListenerConfig, Proxies, Speaks, Takeover, WebSocketConfig};
pub use self::door::{Door, GivenStream};
pub use self::peer::PeerAddress;
pub use self::proxy::{PREFIX_BYTES as PROXY_PREFIX_BYTES, Prefix as ProxyPrefix, ProxyError};
pub use self::tls::TlsSetup;
pub(crate) use self::transport::{Carrier, Transport};
pub use self::websocket::{
    ClientFrame as WebSocketClientFrame, Control as WebSocketControl, FrameError as WebSocketFrameError,
    FrameReader as WebSocketFrameReader, accept_key as websocket_accept_key,
};
use crate::broker::{BoundListener, Shared};
use crate::config::Limits;
use crate::connection::Connection;
use crate::limits::{Flow, ListenerLimits, Place, SharedBucket};

/// Connections that may wait to be accepted; the system's own bound, `net.core.somaxconn`, may be lower. What comes beyond is dropped
/// by the system, and tries again after a second: a fleet that comes back at once would wait for that again and again.
const BACKLOG: u32 = 1024;
/// Pause after an accept that failed for want of something, as file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time between two warnings of one listener about connections that it refuses: they may come by the thousand.
const WARNING_INTERVAL_MS: u64 = 60_000;

/// What connections see of their listener.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) name: Arc<str>,
    pub(crate) allow_anonymous: bool,
    pub(crate) client_ids: ClientIds,
    pub(crate) takeover: Takeover,
    speaks: Speaks,
    proxies: Option<Proxies>,
    pub(crate) max_connections: u32,
    pub(crate) connections: AtomicU32,
    pub(crate) limits: ListenerLimits,
    connect_rate: SharedBucket,
    /// When it warned last, on the monotonic clock.
    warned_ms: AtomicU64,
    /// Told once when it takes no more connections.
    closing: Notify,
}

impl Listener {
    /// When the first of its own certificates expires, in seconds since the epoch.
    pub(crate) fn certificate_expires_at_s(&self) -> Option<i64> {
        self.speaks.tls()?.expires_at_s()
    }

    /// Whether it may warn again.
    fn may_warn(&self, now_ms: u64) -> bool {
        let warned = self.warned_ms.load(Ordering::Relaxed);
        let may = warned == 0 || now_ms.saturating_sub(warned) >= WARNING_INTERVAL_MS;
        if may {
            self.warned_ms.store(now_ms.max(1), Ordering::Relaxed);
        }
        may
    }

    /// Largest packet accepted here, in bytes.
    pub(crate) fn max_packet_size(&self, limits: &Limits) -> u32 {
        self.limits.max_packet_size.unwrap_or(limits.max_packet_size)
    }

    /// What watches how fast one client publishes here.
    pub(crate) fn flow(&self, limits: &Limits) -> Option<Box<Flow>> {
        Flow::new(
            self.limits.max_publish_rate.unwrap_or(limits.max_publish_rate),
            self.limits.max_publish_bytes_rate.unwrap_or(limits.max_publish_bytes_rate),
        )
    }

    /// Waits as long as connections came faster than they may; those that come meanwhile wait in the system's accept queue.
    async fn keep_rate(&self, shared: &Shared) {
        let now_ms = shared.clock.now().mono_ms;
        let wait = self.connect_rate.take(now_ms).max(shared.connect_rate.take(now_ms));
        if wait.is_zero() {
            return;
        }
        shared.metrics.limit_connect_rate.add(1);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shared.shutdown_started.notified() => {}
        }
    }
}

/// A socket that listens.
enum Socket {
    Tcp(TcpListener),
    Unix(unix::UnixSocket),
}

/// A connection that was accepted.
enum Accepted {
    Tcp(TcpStream, PeerAddress),
    Unix(tokio::net::UnixStream),
}

impl Socket {
    async fn accept(&self) -> std::io::Result<Accepted> {
        match self {
            Self::Tcp(socket) => {
                socket.accept().await.map(|(stream, peer)| Accepted::Tcp(stream, peer.into()))
            }
            Self::Unix(socket) => socket.accept().await.map(Accepted::Unix),
        }
    }
}

pub(crate) async fn open(shared: Arc<Shared>, config: ListenerConfig) -> std::io::Result<BoundListener> {
    let (socket, endpoint) = match config.endpoint {
        Endpoint::Ip(address) => {
            let socket = bind(address)?;
            let endpoint = Endpoint::Ip(socket.local_addr()?);
            (Socket::Tcp(socket), endpoint)
        }
        Endpoint::Unix { path, mode } => {
            let socket = unix::UnixSocket::bind(&path, mode)?;
            (Socket::Unix(socket), Endpoint::Unix { path, mode })
        }
    };
    let name: Arc<str> = config.name.as_str().into();
    let listener = Arc::new(Listener {
        name: Arc::clone(&name),
        allow_anonymous: config.allow_anonymous,
        client_ids: config.client_ids,
        takeover: config.takeover,
        speaks: config.speaks,
        proxies: config.proxies,
        max_connections: config.max_connections,
        connections: AtomicU32::new(0),
        limits: config.limits,
        connect_rate: SharedBucket::new(config.limits.max_connect_rate),
        warned_ms: AtomicU64::new(0),
        closing: Notify::new(),
    });
    shared.listeners.lock().push(Arc::clone(&listener));
    tracing::info!(listener = %name, address = %endpoint, "listening");
    tokio::spawn(accept(shared, listener, socket));
    Ok(BoundListener { name, endpoint })
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // The address is free at once when its last owner has ended.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Has a listener take no more connections; those that it has stay. Returns whether there was one of the name.
pub(crate) fn close(shared: &Shared, name: &str) -> bool {
    let mut listeners = shared.listeners.lock();
    let Some(place) = listeners.iter().position(|listener| &*listener.name == name) else { return false };
    let listener = listeners.remove(place);
    // It waits there until somebody listens for it.
    listener.closing.notify_one();
    true
}

async fn accept(shared: Arc<Shared>, listener: Arc<Listener>, socket: Socket) {
    loop {
        let shutdown = shared.shutdown_started.notified();
        if shared.shutting_down.load(Ordering::Acquire) {
            return;
        }
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = shutdown => return,
            () = listener.closing.notified() => {
                tracing::info!(listener = %listener.name, "listens no more");
                return;
            }
        };
        match accepted {
            Ok(accepted) => {
                serve(&shared, &listener, accepted);
                listener.keep_rate(&shared).await;
            }
            Err(error) => {
                tracing::warn!(listener = %listener.name, %error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn serve(shared: &Arc<Shared>, listener: &Arc<Listener>, accepted: Accepted) {
    // A proxy's own address counts for nobody; its clients' are counted when it has named them.
    let address = match &accepted {
        Accepted::Tcp(_, peer) if listener.proxies.is_none() => peer.ip(),
        Accepted::Tcp(..) | Accepted::Unix(_) => None,
    };
    let Some(place) = Place::take(shared, listener, address) else {
        shared.metrics.connections_refused.add(1);
        tracing::debug!(listener = %listener.name, "connection closed: no more are allowed");
        return;
    };
    shared.metrics.connections_opened.add(1);
    match accepted {
        Accepted::Unix(stream) => {
            let carrier = Carrier::Unix(stream);
            tokio::spawn(Connection::new(carrier, Arc::clone(shared), place, PeerAddress::Unix));
        }
        Accepted::Tcp(stream, peer) => {
            // Without it an answer waits for the acknowledgement of the one before.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%peer, %error, "TCP_NODELAY could not be set");
            }
            if matches!(listener.speaks, Speaks::Mqtt) && listener.proxies.is_none() {
                tokio::spawn(Connection::new(stream, Arc::clone(shared), place, peer));
            } else {
                tokio::spawn(arrival::arrive(Arc::clone(shared), place, stream, peer));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thousand_connections_may_wait_to_be_accepted() {
        let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
        let count = most.trim().parse().unwrap_or(1000).min(1000);
        let socket = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = socket.local_addr().unwrap();
        // Nobody accepts: this is the only thread, and it waits for the connections.
        let connect = |_| std::net::TcpStream::connect_timeout(&address, Duration::from_secs(60));
        let waiting: Vec<_> = (0..count).map(connect).collect::<Result<_, _>>().unwrap();
        for _ in waiting {
            socket.accept().await.unwrap();
        }
    }
}
