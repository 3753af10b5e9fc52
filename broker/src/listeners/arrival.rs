//! What comes before MQTT, on listeners where something does.
//!
//! All of it, and the CONNECT behind it, has to be done within `connect_timeout`. How many are at it at a time is limited:
//! they cost more than a connection that waits for its CONNECT.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::TcpStream;

use super::Listener;
use super::config::{Speaks, WebSocketConfig};
use super::peer::PeerAddress;
use super::proxy::{ProxyError, read_header};
use super::tls::{TlsSetup, TlsStream};
use super::transport::Carrier;
use super::websocket::{UpgradeError, WebSocket};
use crate::broker::Shared;
use crate::connection::Connection;
use crate::limits::Place;

/// First byte of a CONNECT.
const CONNECT: u8 = 0x10;
/// First byte of a handshake of TLS.
const HANDSHAKE: u8 = 0x16;
/// First byte of a request for WebSocket: `GET`.
const GET: u8 = b'G';

/// Why nothing became of a connection.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("it comes from no proxy of this listener")]
    NoProxy,
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error("handshake of TLS")]
    Tls(#[source] io::Error),
    #[error("request for WebSocket")]
    WebSocket(#[from] UpgradeError),
    #[error("it begins with {0:#04x}, which is neither MQTT, nor TLS, nor a request of HTTP")]
    Unknown(u8),
    #[error("it begins with a handshake of TLS, for which this listener has no certificate")]
    NoCertificate,
    #[error("the connection broke")]
    Io(#[from] io::Error),
    #[error("closed by the client")]
    Gone,
    #[error("not done in time")]
    Timeout,
}

/// Connections that are on their way to MQTT.
#[derive(Debug, Default)]
pub(crate) struct Arrivals(AtomicU32);

/// One of them; given back when dropped.
struct Arrival<'s>(&'s Arrivals);

impl Arrivals {
    fn begin(&self, limit: u32) -> Option<Arrival<'_>> {
        let arrival = Arrival(self);
        (self.0.fetch_add(1, Ordering::AcqRel) < limit).then_some(arrival)
    }
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What carries a connection that has arrived.
enum Arrived {
    Tcp(TcpStream),
    Other(Carrier),
}

/// Takes a connection to where MQTT begins.
pub(super) async fn arrive(shared: Arc<Shared>, place: Place, stream: TcpStream, peer: PeerAddress) {
    let shutdown = shared.shutdown_started.notified();
    if shared.shutting_down.load(Ordering::Acquire) {
        return;
    }
    let listener = Arc::clone(&place.listener);
    let limit = shared.config.limits.max_handshakes;
    let Some(arrival) = shared.arrivals.begin(limit) else {
        shared.metrics.handshakes_refused.add(1);
        tracing::debug!(%peer, listener = %listener.name, limit, "connection closed: as many handshakes as allowed are under way");
        return;
    };
    let mut deadline = Box::pin(tokio::time::sleep(shared.config.limits.connect_timeout));
    let outcome = tokio::select! {
        outcome = establish(&listener, stream, peer) => outcome,
        () = &mut deadline => Err(Fault::Timeout),
        () = shutdown => return,
    };
    drop(arrival);
    let place = match &outcome {
        // The proxy has named whose connection it is.
        Ok((client, _)) if listener.proxies.is_some() => place.count_for(client.ip()),
        Ok(_) | Err(_) => Some(place),
    };
    let Some(place) = place else {
        shared.metrics.connections_refused.add(1);
        return;
    };
    let shared_too = Arc::clone(&shared);
    match outcome {
        Ok((peer, Arrived::Tcp(stream))) => {
            tokio::spawn(Connection::new(stream, shared_too, place, peer).until(deadline));
        }
        Ok((peer, Arrived::Other(carrier))) => {
            tokio::spawn(Connection::new(carrier, shared_too, place, peer).until(deadline));
        }
        Err(fault) => note(&shared, &listener, peer, &fault),
    }
}

/// Counts what came to nothing. What an operator has to mend is a warning, seldom; what anybody can send is none.
fn note(shared: &Shared, listener: &Listener, peer: PeerAddress, fault: &Fault) {
    let counter = match fault {
        Fault::NoProxy | Fault::Proxy(_) => &shared.metrics.proxied_refused,
        Fault::Tls(_) | Fault::NoCertificate => &shared.metrics.tls_failed,
        Fault::WebSocket(_) => &shared.metrics.websocket_failed,
        Fault::Unknown(_) | Fault::Io(_) | Fault::Gone => &shared.metrics.protocol_errors,
        Fault::Timeout => &shared.metrics.handshake_timeouts,
    };
    counter.add(1);
    let why = reasons(fault);
    let is_config =
        matches!(fault, Fault::NoProxy | Fault::Proxy(ProxyError::Version1 | ProxyError::Missing));
    if is_config && listener.may_warn(shared.clock.now().mono_ms) {
        tracing::warn!(%peer, listener = %listener.name, why, "a connection is refused; more like it aren't told for a minute");
    } else {
        tracing::debug!(%peer, listener = %listener.name, why, "closed before MQTT began");
    }
}

fn reasons(fault: &Fault) -> String {
    let mut text = fault.to_string();
    let mut source = std::error::Error::source(fault);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

async fn establish(
    listener: &Listener,
    mut stream: TcpStream,
    peer: PeerAddress,
) -> Result<(PeerAddress, Arrived), Fault> {
    let peer = match &listener.proxies {
        Some(proxies) if peer.ip().is_some_and(|ip| proxies.contain(ip)) => {
            let client: Option<SocketAddr> = read_header(&mut stream).await?;
            client.map_or(peer, PeerAddress::Ip)
        }
        Some(_) => return Err(Fault::NoProxy),
        None => peer,
    };
    let arrived = match &listener.speaks {
        Speaks::Mqtt => Arrived::Tcp(stream),
        Speaks::Tls(setup) => {
            let stream = handshake(stream, setup).await?;
            Arrived::Other(Carrier::Tls(Box::new(stream)))
        }
        Speaks::WebSocket(config) => {
            let stream = WebSocket::accept(stream, config).await?;
            Arrived::Other(Carrier::WebSocket(Box::new(stream)))
        }
        Speaks::SecureWebSocket(setup, config) => {
            let stream = handshake(stream, setup).await?;
            secure_websocket(stream, config).await?
        }
        Speaks::Any(setup, config) => any(stream, setup.as_ref(), config).await?,
    };
    Ok((peer, arrived))
}

async fn handshake(stream: TcpStream, setup: &TlsSetup) -> Result<TlsStream<TcpStream>, Fault> {
    TlsStream::accept(stream, setup.config()).await.map_err(Fault::Tls)
}

async fn secure_websocket(stream: TlsStream<TcpStream>, config: &WebSocketConfig) -> Result<Arrived, Fault> {
    let stream = WebSocket::accept(stream, config).await?;
    Ok(Arrived::Other(Carrier::SecureWebSocket(Box::new(stream))))
}

/// Goes by the first byte, and inside TLS by the first one there: every one of them decides alone.
async fn any(
    stream: TcpStream,
    setup: Option<&TlsSetup>,
    config: &WebSocketConfig,
) -> Result<Arrived, Fault> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(Fault::Gone);
    }
    match first[0] {
        CONNECT => Ok(Arrived::Tcp(stream)),
        GET => {
            let stream = WebSocket::accept(stream, config).await?;
            Ok(Arrived::Other(Carrier::WebSocket(Box::new(stream))))
        }
        HANDSHAKE => {
            let mut stream = handshake(stream, setup.ok_or(Fault::NoCertificate)?).await?;
            match stream.first_byte().await? {
                Some(CONNECT) => Ok(Arrived::Other(Carrier::Tls(Box::new(stream)))),
                Some(GET) => secure_websocket(stream, config).await,
                Some(other) => Err(Fault::Unknown(other)),
                None => Err(Fault::Gone),
            }
        }
        other => Err(Fault::Unknown(other)),
    }
}
