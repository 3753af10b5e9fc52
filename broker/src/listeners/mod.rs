//! Listeners: accepting connections within the limits, and closing on shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use crate::broker::{BoundListener, Shared};
use crate::config::ListenerConfig;
use crate::connection::Connection;

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
    max_connections: u32,
    connections: AtomicU32,
}

/// One connection's place in the counts; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    shared: Arc<Shared>,
    pub(crate) listener: Arc<Listener>,
}

impl Place {
    /// Takes a place, if both the listener and the broker have one.
    fn take(shared: &Arc<Shared>, listener: &Arc<Listener>) -> Option<Self> {
        listener.connections.fetch_add(1, Ordering::AcqRel);
        shared.connections.fetch_add(1, Ordering::AcqRel);
        let place = Self { shared: Arc::clone(shared), listener: Arc::clone(listener) };
        let fits = listener.connections.load(Ordering::Acquire) <= listener.max_connections
            && shared.connections.load(Ordering::Acquire) <= shared.config.limits.max_connections;
        fits.then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.listener.connections.fetch_sub(1, Ordering::AcqRel);
        if self.shared.connections.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.all_closed.notify_waiters();
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
            Ok((stream, peer)) => serve(&shared, &listener, stream, peer),
            Err(error) => {
                tracing::warn!(listener = %listener.name, %error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn serve(shared: &Arc<Shared>, listener: &Arc<Listener>, stream: TcpStream, peer: SocketAddr) {
    let Some(place) = Place::take(shared, listener) else {
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
