//! Listeners: accepting connections within the limits, and closing on shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use crate::broker::{BoundListener, Shared};
use crate::config::{Limits, ListenerConfig};
use crate::connection::Connection;
use crate::limits::{Flow, ListenerLimits, Place, SharedBucket};

pub use self::peer::PeerAddress;
pub(crate) use self::transport::Transport;

mod peer;
mod transport;

/// Pause after an accept that failed for want of something, as file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What connections see of their listener.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) name: Arc<str>,
    pub(crate) allow_anonymous: bool,
    pub(crate) max_connections: u32,
    pub(crate) connections: AtomicU32,
    pub(crate) limits: ListenerLimits,
    connect_rate: SharedBucket,
}

impl Listener {
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

pub(crate) async fn open(shared: Arc<Shared>, config: ListenerConfig) -> std::io::Result<BoundListener> {
    let socket = TcpListener::bind(config.address).await?;
    let local_addr = socket.local_addr()?;
    let name: Arc<str> = config.name.as_str().into();
    let listener = Arc::new(Listener {
        name: Arc::clone(&name),
        allow_anonymous: config.allow_anonymous,
        max_connections: config.max_connections,
        connections: AtomicU32::new(0),
        limits: config.limits,
        connect_rate: SharedBucket::new(config.limits.max_connect_rate),
    });
    tracing::info!(listener = %name, address = %local_addr, "listening");
    tokio::spawn(accept(shared, listener, socket));
    Ok(BoundListener { name, local_addr })
}

async fn accept(shared: Arc<Shared>, listener: Arc<Listener>, socket: TcpListener) {
    loop {
        let shutdown = shared.shutdown_started.notified();
        if shared.shutting_down.load(Ordering::Acquire) {
            return;
        }
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = shutdown => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                serve(&shared, &listener, stream, peer);
                listener.keep_rate(&shared).await;
            }
            Err(error) => {
                tracing::warn!(listener = %listener.name, %error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn serve(shared: &Arc<Shared>, listener: &Arc<Listener>, stream: TcpStream, peer: SocketAddr) {
    let Some(place) = Place::take(shared, listener, Some(peer.ip())) else {
        tracing::debug!(listener = %listener.name, %peer, "connection closed: no more are allowed");
        return;
    };
    // Without it an answer waits for the acknowledgement of the one before.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "TCP_NODELAY could not be set");
    }
    shared.metrics.connections_opened.add(1);
    tokio::spawn(Connection::new(stream, Arc::clone(shared), place, peer.into()));
}
