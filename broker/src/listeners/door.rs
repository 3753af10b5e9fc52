//! Clients that come by no listener: the embedding program has a stream to each, inside WebSocket, and knows who is at its
//! other end.
//!
//! Everything behind the CONNECT is as for any client: limits, access, sessions. What the CONNECT says of who it is counts for
//! nothing.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::{Carrier, ClientIds, Listener, PeerAddress, Speaks, Takeover, WebSocketConfig};
use crate::access::Identity;
use crate::broker::{Broker, Shared};
use crate::connection::Connection;
use crate::limits::{ListenerLimits, Place, SharedBucket};
use crate::listeners::websocket::WebSocket;

/// A stream of bytes in both directions.
pub trait GivenStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> GivenStream for T {}

/// A stream to a client that is known.
pub(crate) struct Known {
    io: Box<dyn GivenStream>,
    identity: Arc<Identity>,
}

impl Known {
    pub(super) fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity)
    }
}

impl AsyncRead for Known {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Known {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_shutdown(cx)
    }
}

/// Where such clients come in.
#[derive(Clone)]
pub struct Door {
    shared: Arc<Shared>,
    listener: Arc<Listener>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Broker {
    /// Makes a way in for clients that the embedding program has let in. `name` is the listener that they are shown with.
    #[must_use]
    pub fn door(&self, name: &str, max_connections: u32) -> Door {
        let listener = Listener {
            name: name.into(),
            allow_anonymous: false,
            client_ids: ClientIds::default(),
            takeover: Takeover::SameUser,
            speaks: Speaks::WebSocket(WebSocketConfig::default()),
            proxies: None,
            max_connections,
            connections: AtomicU32::new(0),
            limits: ListenerLimits::default(),
            connect_rate: SharedBucket::new(0),
            warned_ms: AtomicU64::new(0),
            closing: Notify::new(),
        };
        Door { shared: Arc::clone(&self.shared), listener: Arc::new(listener) }
    }
}

impl Door {
    /// Serves a client until its connection ends. `stream` is what comes behind the answer to its request for WebSocket;
    /// `identity` needs an authenticator, or the client is refused. Dropping it ends the connection as if it had broken.
    pub async fn serve(
        &self,
        stream: impl GivenStream + 'static,
        address: PeerAddress,
        identity: Arc<Identity>,
    ) {
        if self.shared.shutting_down.load(Ordering::Acquire) {
            return;
        }
        let Some(place) = Place::take(&self.shared, &self.listener, address.ip()) else {
            self.shared.metrics.connections_refused.add(1);
            return;
        };
        self.shared.metrics.connections_opened.add(1);
        let limits = &self.shared.config.limits;
        // A packet may come in a frame of its own.
        let frame_max = WebSocketConfig::default().max_frame_size.max(u64::from(limits.max_packet_size));
        let known = Known { io: Box::new(stream), identity };
        let carrier = Carrier::Known(Box::new(WebSocket::answered(known, frame_max)));
        let deadline = Box::pin(tokio::time::sleep(limits.connect_timeout));
        Connection::new(carrier, Arc::clone(&self.shared), place, address).until(deadline).await;
    }
}
