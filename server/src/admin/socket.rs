//! The socket and its connections: who may connect, how many, how long, how much.

use std::fmt;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::protocol::{Code, REQUEST_BYTES_MAX, Refusal, Request, answer};
use super::{AdminError, Services};

/// Most connections at a time; one more is told so and closed.
pub const CONNECTIONS_MAX: usize = 8;
/// How long a connection may be silent, or not take its answer, before it is closed.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest path of a socket in bytes: the system's structure has room for so many and a zero.
pub const SOCKET_PATH_BYTES_MAX: usize = if cfg!(target_os = "linux") { 107 } else { 103 };
/// How long nothing is accepted after the system has refused to.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket that is open.
pub(super) struct Listener {
    listener: UnixListener,
    /// Whose socket it is: this process's user.
    owner: u32,
}

impl Listener {
    /// Opens the socket, in place of one that was left over.
    pub(super) fn bind(path: &Path) -> Result<Self, AdminError> {
        let bytes = path.as_os_str().len();
        if bytes > SOCKET_PATH_BYTES_MAX {
            return Err(AdminError::PathTooLong { path: path.to_owned(), bytes });
        }
        let failed = |source| AdminError::Open { path: path.to_owned(), source };
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path).map_err(failed)?,
            Ok(_) => return Err(AdminError::Occupied { path: path.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        // Until here others may have connected, if the directory lets them: the owner is asked for on top.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let owner = std::fs::symlink_metadata(path).map_err(failed)?.uid();
        Ok(Self { listener, owner })
    }

    /// Serves connections until whoever holds the other end of `stop` lets go of it; then ends them all.
    pub(super) async fn run(self, services: Arc<Services>, mut stop: oneshot::Receiver<()>) {
        let mut connections: JoinSet<()> = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(ended) = connections.join_next(), if !connections.is_empty() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a connection to the administration socket ended early");
                    }
                    continue;
                }
                _ = &mut stop => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the administration socket accepts nothing for a moment");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            match self.admit(&stream, connections.len()) {
                Ok(peer) => {
                    connections.spawn(serve(stream, peer, Arc::clone(&services)));
                }
                // Its buffer is empty, so a short answer fits; who doesn't take it has lost nothing else.
                Err(refusal) => drop(stream.try_write(&answer(Err(refusal)))),
            }
        }
        connections.shutdown().await;
    }

    /// Says which user is at the other end, if it may come in.
    fn admit(&self, stream: &UnixStream, connections: usize) -> Result<Peer, Refusal> {
        let peer = stream.peer_cred().map(|peer| peer.uid());
        // The system's administrator reads every file here anyway.
        let Some(uid) = peer.ok().filter(|uid| *uid == self.owner || *uid == 0) else {
            return Err(Refusal::new(Code::Peer, "only the gateway's owner may administer it"));
        };
        if connections >= CONNECTIONS_MAX {
            let message = format!("{CONNECTIONS_MAX} connections are open, which is the limit");
            return Err(Refusal::new(Code::Busy, message));
        }
        Ok(Peer(uid))
    }
}

/// Who asks, by the user id that the system tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(u32);

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {}", self.0)
    }
}

/// Answers one connection's requests until it ends: HTTP, or lines of JSON, as the first byte says.
async fn serve(stream: UnixStream, peer: Peer, services: Arc<Services>) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let first = timeout(IDLE_TIMEOUT, reader.fill_buf()).await;
    let is_http = matches!(first, Ok(Ok(bytes)) if bytes.first().is_some_and(u8::is_ascii_uppercase));
    if let Some(door) = services.door.clone().filter(|_| is_http) {
        return door.serve(tokio::io::join(reader, writer), peer.0).await;
    }
    loop {
        let (line, is_last) = match timeout(IDLE_TIMEOUT, read_line(&mut reader)).await {
            Ok(Ok(Line::Request(line))) => (services.answer(&line, peer).await, false),
            Ok(Ok(Line::TooLong)) => {
                let message = format!("a request may have {REQUEST_BYTES_MAX} bytes");
                (answer(Err(Refusal::new(Code::TooLong, message))), true)
            }
            Ok(Ok(Line::End)) => return,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a connection to the administration socket broke");
                return;
            }
            Err(_) => {
                let message = format!("nothing was asked for {} seconds", IDLE_TIMEOUT.as_secs());
                (answer(Err(Refusal::new(Code::Idle, message))), true)
            }
        };
        let is_written = timeout(IDLE_TIMEOUT, writer.write_all(&line)).await;
        if is_last || !is_written.is_ok_and(|written| written.is_ok()) {
            return;
        }
    }
}

enum Line {
    Request(Vec<u8>),
    TooLong,
    End,
}

async fn read_line(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Line> {
    let mut line = Vec::new();
    // One more for the newline.
    let max = REQUEST_BYTES_MAX as u64 + 1;
    reader.take(max).read_until(b'\n', &mut line).await?;
    if line.pop_if(|byte| *byte == b'\n').is_some() {
        return Ok(Line::Request(line));
    }
    Ok(match line.len() {
        0 => Line::End,
        length if length > REQUEST_BYTES_MAX => Line::TooLong,
        // The last one of a peer that writes no more.
        _ => Line::Request(line),
    })
}

impl Services {
    async fn answer(self: &Arc<Self>, line: &[u8], peer: Peer) -> Vec<u8> {
        let outcome = match Request::read(line) {
            Ok(request) => self.carry_out(request, peer).await,
            Err(refusal) => Err(refusal),
        };
        answer(outcome)
    }
}
