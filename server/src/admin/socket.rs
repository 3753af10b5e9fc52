//! The socket and its connections: who may connect, and how many. How long and how much is as for every connection to the interface.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};

use super::AdminError;
use crate::api::{Kind, OwnersDoor, Problem};

/// Most connections at a time; one more is told so and closed. Of those that are told so there are no more at a time, either: what
/// comes beyond is closed without a word.
pub const CONNECTIONS_MAX: usize = 8;
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
    pub(super) async fn run(self, door: OwnersDoor, mut stop: oneshot::Receiver<()>) {
        let mut connections: JoinSet<()> = JoinSet::new();
        let mut turned_away: JoinSet<()> = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                // First, so that the place of one that has ended is free.
                biased;
                _ = &mut stop => break,
                Some(ended) = connections.join_next(), if !connections.is_empty() => {
                    note(ended);
                    continue;
                }
                Some(ended) = turned_away.join_next(), if !turned_away.is_empty() => {
                    note(ended);
                    continue;
                }
                accepted = self.listener.accept() => accepted,
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
                Ok(uid) => drop(connections.spawn(door.clone().serve(stream, uid))),
                Err(problem) if turned_away.len() < CONNECTIONS_MAX => {
                    turned_away.spawn(OwnersDoor::turn_away(stream, problem));
                }
                Err(_) => {}
            }
        }
        connections.shutdown().await;
        turned_away.shutdown().await;
    }

    /// Says which user is at the other end, if it may come in.
    fn admit(&self, stream: &UnixStream, connections: usize) -> Result<u32, Problem> {
        let peer = stream.peer_cred().map(|peer| peer.uid());
        // The system's administrator reads every file here anyway.
        let Some(uid) = peer.ok().filter(|uid| *uid == self.owner || *uid == 0) else {
            return Err(Problem::new(
                Kind::Forbidden,
                "only the gateway's owner may administer it by its socket",
            ));
        };
        if connections >= CONNECTIONS_MAX {
            let detail = format!("{CONNECTIONS_MAX} connections to the socket are open, which is the limit");
            return Err(Problem::new(Kind::Unavailable, detail));
        }
        Ok(uid)
    }
}

fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection to the administration socket ended early");
    }
}
