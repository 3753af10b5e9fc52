//! The administration of a running gateway from its own machine: a Unix socket in its data directory.
//!
//! Whoever may open the socket may do everything that the HTTP interface offers, so its file mode is 0600, its directory is the owner's
//! alone, and a peer that runs as somebody else is turned away. HTTP is all that is spoken there (docs/admin-socket.md): `crate::api` has
//! what it is about. `socket` is the connections, `client` the other end, `transfer` what is too large for one answer or one request.

mod client;
mod socket;
#[cfg(test)]
mod tests;
mod transfer;

use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::api::OwnersDoor;

pub use client::{ANSWER_BYTES_MAX, AdminClientError, ApiClient};
pub use socket::{CONNECTIONS_MAX, SOCKET_PATH_BYTES_MAX};
pub use transfer::{download, upload};

/// The socket's name in the data directory.
const NAME: &str = "admin.sock";

/// Where the socket of a data directory is.
#[must_use]
pub fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join(NAME)
}

/// Why the socket can't be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The system takes no path of this length for a socket.
    #[error(
        "the path of the administration socket, {}, is {bytes} bytes long and the system takes {SOCKET_PATH_BYTES_MAX}: choose a shorter data_dir",
        path.display()
    )]
    PathTooLong {
        /// The socket's path.
        path: PathBuf,
        /// Its length in bytes.
        bytes: usize,
    },
    /// Something else has the name.
    #[error("{} is no socket: move it away, the administration socket goes there", path.display())]
    Occupied {
        /// The socket's path.
        path: PathBuf,
    },
    /// The system says no.
    #[error("the administration socket {} can't be opened", path.display())]
    Open {
        /// The socket's path.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// The open socket.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
    /// Gone: the task ends.
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl AdminSocket {
    /// Opens the socket of a data directory inside the current tokio runtime. The caller has the directory's store open, so
    /// a socket that is there is left over from a gateway that is gone, and is replaced.
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn open(data_dir: &Path, door: OwnersDoor) -> Result<Self, AdminError> {
        let path = socket_path(data_dir);
        let listener = socket::Listener::bind(&path)?;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(listener.run(door, stopped));
        Ok(Self { path, stop: Some(stop), task })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ends every connection and removes the socket. What was asked for and has begun is still done.
    pub async fn close(mut self) {
        drop(self.stop.take());
        if let Err(error) = (&mut self.task).await {
            tracing::error!(%error, "the administration socket ended early");
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "the administration socket can't be removed");
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        self.task.abort();
    }
}
