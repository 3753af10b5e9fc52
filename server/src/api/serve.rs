//! Connections: how many, how long, how much. HTTP/1.1 alone; who wants more puts a proxy in front.
//!
//! They come over TCP, with TLS where `[admin.tls]` is set, and from the gateway's owner over the administration socket.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use broker::TlsSetup;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::problem::{Kind, Problem};
use super::restore::RESTORE_PATH;

/// Most connections at a time; one more waits until one of them ends.
pub const CONNECTIONS_MAX: usize = 64;
/// Most bytes of a request's line and headers.
pub const HEAD_BYTES_MAX: usize = 16 << 10;
/// How long a connection may be without a whole head of a request, and how long its TLS handshake may take.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a body may take to come.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a request may take until its answer begins.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a restore may take, its upload with it.
pub const RESTORE_TIMEOUT: Duration = Duration::from_secs(540);
/// How long a connection lives; then it ends after the request that it is at.
pub const CONNECTION_AGE_MAX: Duration = Duration::from_secs(600);
/// How long a connection that is to end may take for the rest.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long nothing is accepted after the system has refused to.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end, beside each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// Somebody who has to prove who it is.
    Address(SocketAddr),
    /// A process of this user, which owns the gateway or the machine: it came by the administration socket.
    Owner(u32),
}

impl Peer {
    pub(super) fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(address.ip()),
            Self::Owner(_) => None,
        }
    }

    /// Where that is: an IP address, or the user of this machine.
    pub(super) fn place(&self) -> String {
        self.ip().map_or_else(|| self.to_string(), |address| address.to_string())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Owner(uid) => write!(f, "uid:{uid}"),
        }
    }
}

/// Serves connections until something is sent by `stop`, or its sender is gone; then ends them all.
pub(super) async fn run(
    listener: TcpListener,
    tls: Option<TlsSetup>,
    router: Router,
    mut stop: watch::Receiver<()>,
) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections: JoinSet<()> = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &permits) => accepted,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection to the administration interface ended early");
                }
                continue;
            }
            _ = stop.changed() => break,
        };
        let Some((stream, peer, permit)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (router, stop) = (router.clone(), stop.clone());
        let tls = tls.as_ref().map(|tls| TlsAcceptor::from(tls.config()));
        connections.spawn(async move {
            let peer = Peer::Address(peer);
            match tls {
                None => serve(stream, peer, router, stop).await,
                Some(tls) => match timeout(HEAD_TIMEOUT, tls.accept(stream)).await {
                    Ok(Ok(stream)) => serve(stream, peer, router, stop).await,
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake of the administration interface failed"),
                    Err(_) => tracing::debug!(%peer, "a TLS handshake of the administration interface took too long"),
                },
            }
            drop(permit);
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, permit)),
        Err(error) => {
            tracing::warn!(%error, "the administration interface accepts nothing for a moment");
            None
        }
    }
}

/// Answers one connection's requests until it ends, or becomes something else, which is counted apart.
pub(super) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    router: Router,
    mut stop: watch::Receiver<()>,
) {
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let router = TowerToHyperService::new(router.clone());
        async move { Ok::<_, Infallible>(answer(&router, request.map(Body::new)).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES_MAX);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = async { tokio::select! { _ = stop.changed() => (), () = sleep(CONNECTION_AGE_MAX) => () } } => {
            connection.as_mut().graceful_shutdown();
            match timeout(STOP_TIMEOUT, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection to the administration interface broke");
    }
}

/// Answers one request, whatever it is, with a problem, and ends the connection.
pub(super) async fn turn_away(stream: impl AsyncRead + AsyncWrite + Unpin, problem: Problem) {
    let service = service_fn(move |_: hyper::Request<Incoming>| {
        let answer = problem.clone().into_response();
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false);
    let told = timeout(HEAD_TIMEOUT + STOP_TIMEOUT, http.serve_connection(TokioIo::new(stream), service));
    if !told.await.is_ok_and(|told| told.is_ok()) {
        tracing::debug!("somebody who was turned away at the administration socket didn't listen");
    }
}

async fn answer(router: &TowerToHyperService<Router>, request: Request) -> Response {
    let limit = if request.uri().path() == RESTORE_PATH { RESTORE_TIMEOUT } else { REQUEST_TIMEOUT };
    match timeout(limit, router.call(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => {
            let seconds = limit.as_secs();
            Problem::new(Kind::Unavailable, format!("it took longer than {seconds} seconds")).into_response()
        }
    }
}
