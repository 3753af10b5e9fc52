//! What is too large for one answer or one request: sent and taken piece by piece, over the gateway's socket.

use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use http_body_util::channel::Channel;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::client::{ANSWER_BYTES_MAX, ANSWER_TIMEOUT, AdminClientError, open, read_answer};
use crate::api::RESTORE_TIMEOUT;

/// Bytes that are sent at once.
const CHUNK_BYTES: usize = 64 << 10;
/// What such a body is called.
const MEDIA_TYPE: &str = "application/octet-stream";

type Sender = http_body_util::channel::Sender<Bytes, io::Error>;
type Body = Channel<Bytes, io::Error>;

/// Asks for something large, and hands over its pieces as they come.
///
/// # Errors
/// [`AdminClientError`], also where `take` fails.
pub fn download(
    data_dir: &Path,
    method: &Method,
    path: &str,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), AdminClientError> {
    let (runtime, mut sender) = connect(data_dir)?;
    runtime.block_on(async {
        // Nothing is sent.
        let (_, body) = Channel::new(1);
        let answer = sender.send_request(request(method, path, body)?);
        let answer = within(ANSWER_TIMEOUT, answer).await?.map_err(io::Error::other)?;
        if !answer.status().is_success() {
            return Err(match read(answer).await {
                Err(error) => error,
                Ok(_) => AdminClientError::Foreign { problem: "its refusal is none".to_owned() },
            });
        }
        let mut body = answer.into_body();
        while let Some(frame) = within(ANSWER_TIMEOUT, body.frame()).await? {
            if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
                take(&data)?;
            }
        }
        Ok(())
    })
}

/// Sends something large, and returns the answer. `sent` is told how many bytes are on their way.
///
/// # Errors
/// [`AdminClientError`], also where `from` can't be read.
pub fn upload(
    data_dir: &Path,
    path: &str,
    from: impl Read,
    sent: impl FnMut(u64),
) -> Result<Value, AdminClientError> {
    let (runtime, mut sender) = connect(data_dir)?;
    runtime.block_on(async {
        let (pieces, body) = Channel::new(1);
        let answer = sender.send_request(request(&Method::POST, path, body)?);
        // Who refuses early answers early.
        let (answer, fed) = tokio::join!(within(RESTORE_TIMEOUT, answer), feed(pieces, from, sent));
        fed?;
        read(answer?.map_err(io::Error::other)?).await
    })
}

/// Sends what there is; nobody need take all of it.
async fn feed(mut pieces: Sender, mut from: impl Read, mut sent: impl FnMut(u64)) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut bytes = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let told = io::Error::new(error.kind(), "what is sent can't be read");
                pieces.abort(told);
                return Err(error);
            }
        };
        let piece = buffer.get(..count).unwrap_or_default().to_vec();
        if pieces.send_data(piece.into()).await.is_err() {
            return Ok(());
        }
        bytes += count as u64;
        sent(bytes);
    }
}

fn connect(data_dir: &Path) -> Result<(Runtime, SendRequest<Body>), AdminClientError> {
    let stream = open(data_dir)?;
    stream.set_nonblocking(true)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let sender = runtime.block_on(async {
        let stream = TokioIo::new(tokio::net::UnixStream::from_std(stream)?);
        let (sender, connection) = handshake(stream).await.map_err(io::Error::other)?;
        drop(tokio::spawn(connection));
        Ok::<_, AdminClientError>(sender)
    })?;
    Ok((runtime, sender))
}

fn request(method: &Method, path: &str, body: Body) -> io::Result<Request<Body>> {
    let request = Request::builder().method(method).uri(path).header(HOST, "localhost");
    request.header(CONTENT_TYPE, MEDIA_TYPE).body(body).map_err(io::Error::other)
}

async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> io::Result<T> {
    timeout(limit, work).await.map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, format!("no answer came for {} seconds", limit.as_secs()))
    })
}

async fn read(answer: Response<Incoming>) -> Result<Value, AdminClientError> {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect();
    let body = within(ANSWER_TIMEOUT, body).await?.map_err(io::Error::other)?;
    read_answer(status, &body.to_bytes())
}
