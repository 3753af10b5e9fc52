//! The other end: asks the HTTP interface of a gateway that runs (docs/api.md), over its socket.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::{SOCKET_PATH_BYTES_MAX, socket_path};

/// Longest answer in bytes that is taken, but for a [download](super::download).
pub const ANSWER_BYTES_MAX: usize = 16 << 20;
/// How long an answer may take. What the gateway does may wait for the disk for half of that.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a gateway wasn't asked, or didn't do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminClientError {
    /// Nobody is there.
    #[error("no gateway runs with a store on disk in the data directory {}: nobody answers at its administration socket", data_dir.display())]
    NoGateway {
        /// The data directory.
        data_dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The socket is there and can't be used.
    #[error("the administration socket {} can't be used", path.display())]
    Connect {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to the gateway broke")]
    Broken(#[from] io::Error),
    /// What came is no answer.
    #[error("what answers is no gateway of this version: {problem}")]
    Foreign {
        /// What is wrong with it.
        problem: String,
    },
    /// The gateway refuses.
    #[error("{message}")]
    Refused {
        /// A stable name of the reason, see docs/api.md.
        code: String,
        /// The reason in words.
        message: String,
        /// Faults one by one, where it names them so.
        errors: Vec<Value>,
    },
}

/// A connection to the HTTP interface of a gateway that runs.
#[derive(Debug)]
pub struct ApiClient {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
}

impl ApiClient {
    /// Connects to the gateway that has this data directory. It blocks, as all of this does.
    ///
    /// # Errors
    /// [`AdminClientError::NoGateway`] when none runs, [`AdminClientError::Connect`] when it can't be asked.
    pub fn connect(data_dir: &Path) -> Result<Self, AdminClientError> {
        let stream = open(data_dir)?;
        stream.set_nonblocking(true)?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let sender = runtime.block_on(async {
            let stream = TokioIo::new(tokio::net::UnixStream::from_std(stream)?);
            let (sender, connection) = handshake(stream).await.map_err(io::Error::other)?;
            // It moves whenever a request is waited for; how it ends, the request says.
            drop(tokio::spawn(connection));
            Ok::<_, AdminClientError>(sender)
        })?;
        Ok(Self { runtime, sender })
    }

    /// Asks for something that is looked at: the answer's body.
    ///
    /// # Errors
    /// [`AdminClientError`]; after any but `Refused` the connection is of no use.
    pub fn get(&mut self, path: &str) -> Result<Value, AdminClientError> {
        self.request(&Method::GET, path, None)
    }

    /// Asks for something to be done, with what it takes: the answer's body, null where there is none.
    ///
    /// # Errors
    /// As [`ApiClient::get`].
    pub fn post(&mut self, path: &str, body: &Value) -> Result<Value, AdminClientError> {
        self.request(&Method::POST, path, Some(body))
    }

    /// Asks for something that is looked at and is no JSON: the answer's body as text.
    ///
    /// # Errors
    /// As [`ApiClient::get`].
    pub fn get_text(&mut self, path: &str) -> Result<String, AdminClientError> {
        let (status, body) = self.exchange(&Method::GET, path, None)?;
        if !status.is_success() {
            read_answer(status, &body)?;
        }
        let foreign = |_| AdminClientError::Foreign { problem: "its answer is no text".to_owned() };
        String::from_utf8(body.into()).map_err(foreign)
    }

    /// Asks by any method.
    ///
    /// # Errors
    /// As [`ApiClient::get`].
    pub fn request(
        &mut self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, AdminClientError> {
        let (status, body) = self.exchange(method, path, body)?;
        read_answer(status, &body)
    }

    fn exchange(
        &mut self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Bytes), AdminClientError> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, "localhost");
        let bytes = match body.filter(|body| !body.is_null()) {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                serde_json::to_vec(body).map_err(io::Error::from)?
            }
            None => Vec::new(),
        };
        let request = request.body(Full::from(bytes)).map_err(io::Error::other)?;
        let sender = &mut self.sender;
        // A timer is made inside the runtime or not at all.
        let answered =
            self.runtime.block_on(async { timeout(ANSWER_TIMEOUT, answer(sender, request)).await });
        Ok(answered.map_err(|_| {
            let seconds = ANSWER_TIMEOUT.as_secs();
            io::Error::new(io::ErrorKind::TimedOut, format!("no answer came for {seconds} seconds"))
        })??)
    }
}

async fn answer(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> io::Result<(StatusCode, Bytes)> {
    sender.ready().await.map_err(io::Error::other)?;
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = answer.status();
    let body =
        Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(io::Error::other)?;
    Ok((status, body.to_bytes()))
}

pub(super) fn read_answer(status: StatusCode, body: &[u8]) -> Result<Value, AdminClientError> {
    let foreign = |problem: String| AdminClientError::Foreign { problem };
    if status == StatusCode::NO_CONTENT {
        return Ok(Value::Null);
    }
    let answer: Value = serde_json::from_slice(body)
        .map_err(|error| foreign(format!("its answer of status {status} can't be read: {error}")))?;
    if status.is_success() {
        return Ok(answer);
    }
    let text = |key| answer.get(key).and_then(Value::as_str).map(str::to_owned);
    match text("code").zip(text("detail")) {
        Some((code, message)) => {
            let errors = answer.get("errors").and_then(Value::as_array).cloned().unwrap_or_default();
            Err(AdminClientError::Refused { code, message, errors })
        }
        None => Err(foreign(format!("its answer of status {status} is no problem of ours"))),
    }
}

/// Connects to the socket of a data directory.
pub(super) fn open(data_dir: &Path) -> Result<UnixStream, AdminClientError> {
    let path = socket_path(data_dir);
    let bytes = path.as_os_str().len();
    if bytes > SOCKET_PATH_BYTES_MAX {
        let text = format!("its path is {bytes} bytes long and the system takes {SOCKET_PATH_BYTES_MAX}");
        let source = io::Error::new(io::ErrorKind::InvalidFilename, text);
        return Err(AdminClientError::Connect { path, source });
    }
    UnixStream::connect(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            AdminClientError::NoGateway { data_dir: data_dir.to_owned(), source }
        }
        _ => AdminClientError::Connect { path: path.clone(), source },
    })
}
