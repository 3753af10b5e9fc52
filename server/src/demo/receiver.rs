//! A small HTTP server on the loopback: what the HTTP actions of the demo's rules talk to.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Largest body that is taken, in bytes; the demo's are a few hundred.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// A request that came.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) body: Vec<u8>,
}

/// The running server.
#[derive(Debug)]
pub(super) struct Receiver {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Receiver {
    /// Listens on a free port of the loopback; every request goes to the channel before it is answered.
    pub(super) async fn start(requests: mpsc::Sender<Request>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            // Dropped with this task, which ends the connections too.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let requests = requests.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(request, requests.clone()));
                    // A client that breaks off is its own matter.
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    drop(connection.await);
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, task })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn stop(&self) {
        self.task.abort();
    }
}

async fn answer(
    request: hyper::Request<Incoming>,
    requests: mpsc::Sender<Request>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let status = match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => {
            let request = Request {
                method: head.method.to_string(),
                path: head.uri.to_string(),
                body: body.to_bytes().to_vec(),
            };
            match requests.send(request).await {
                Ok(()) => StatusCode::NO_CONTENT,
                Err(_) => StatusCode::SERVICE_UNAVAILABLE,
            }
        }
        Err(_) => StatusCode::PAYLOAD_TOO_LARGE,
    };
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    Ok(response)
}
