//! The other end: asks a gateway that runs.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::protocol::{ANSWER_BYTES_MAX, Request, VERSION};
use super::{SOCKET_PATH_BYTES_MAX, socket_path};

/// How long an answer may take. A step may wait for the disk for half of that.
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
        /// A stable name of the reason, see docs/admin-socket.md.
        code: String,
        /// The reason in words.
        message: String,
        /// Faults one by one, where it names them so.
        errors: Vec<Value>,
    },
}

/// A connection to a gateway that runs.
#[derive(Debug)]
pub struct AdminClient {
    stream: BufReader<UnixStream>,
}

impl AdminClient {
    /// Connects to the gateway that has this data directory.
    ///
    /// # Errors
    /// [`AdminClientError::NoGateway`] when none runs, [`AdminClientError::Connect`] when it can't be asked.
    pub fn connect(data_dir: &Path) -> Result<Self, AdminClientError> {
        let stream = open(data_dir)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// [`AdminClientError`]; after any but `Refused` the connection is of no use.
    pub fn call(&mut self, command: &str, params: Value) -> Result<Value, AdminClientError> {
        let request = Request { version: VERSION, command: command.to_owned(), params };
        let mut line = serde_json::to_vec(&request).map_err(io::Error::from)?;
        line.push(b'\n');
        // One that was turned away has an answer waiting, though nothing can be written any more.
        let written = self.stream.get_mut().write_all(&line);
        let mut answer = Vec::new();
        let read = self.stream.by_ref().take(ANSWER_BYTES_MAX as u64).read_until(b'\n', &mut answer);
        if answer.is_empty() {
            written?;
            read?;
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        read_answer(&answer)
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

fn read_answer(line: &[u8]) -> Result<Value, AdminClientError> {
    let foreign = |problem: &str| AdminClientError::Foreign { problem: problem.to_owned() };
    let mut answer: Value = serde_json::from_slice(line)
        .map_err(|error| foreign(&format!("its answer can't be read: {error}")))?;
    let error = answer.get("error").filter(|error| error.is_object());
    if let Some(error) = error {
        let text = |key| error.get(key).and_then(Value::as_str).unwrap_or("unknown").to_owned();
        return Err(AdminClientError::Refused {
            code: text("code"),
            message: text("message"),
            errors: Vec::new(),
        });
    }
    match answer.get_mut("result") {
        Some(result) => Ok(result.take()),
        None => Err(foreign("its answer has neither a result nor an error")),
    }
}
