//! An HTTP server for tests: it gives the answer that it was told, and counts.

#![allow(clippy::unwrap_used, reason = "a helper of tests panics where it can't go on")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[derive(Default)]
struct State {
    answer: Mutex<(u16, String)>,
    requests: AtomicUsize,
    seen: Mutex<Vec<String>>,
}

pub(crate) struct Server {
    address: SocketAddr,
    state: Arc<State>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { address, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/x", self.address)
    }

    pub(crate) fn answer(&self, status: u16, body: &str) {
        *self.state.answer.lock() = (status, body.to_owned());
    }

    pub(crate) fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// The last request as it came.
    pub(crate) fn last(&self) -> String {
        self.state.seen.lock().last().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, state: Arc<State>) {
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&received).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let header =
                |line: &str| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok();
            let length: usize = head.lines().find_map(header).unwrap_or(0);
            if body.len() >= length {
                state.seen.lock().push(text);
                break;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(count @ 1..) => received.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
    state.requests.fetch_add(1, Ordering::SeqCst);
    let (status, body) = state.answer.lock().clone();
    let answer = format!(
        "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\nLocation: /y\r\n\r\n{body}",
        body.len()
    );
    drop(stream.write_all(answer.as_bytes()).await);
}
