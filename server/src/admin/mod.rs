//! The administration of a running gateway: a Unix socket in its data directory.
//!
//! Whoever may open the socket may do everything that it offers, so its file mode is 0600, its directory is the owner's
//! alone, and a peer that runs as somebody else is turned away. Requests and answers are lines of JSON
//! (docs/admin-socket.md); `protocol` has their form and limits, `socket` the connections, `commands` says
//! which there are, `dead_letters`, `counters` and `rules` carry them out, `view` is what is shown of a letter, `client` the other end, `http` and
//! `transfer` that of the HTTP interface.
//!
//! Nothing here holds up the broker: commands that read the disk run where blocking is allowed, as many at a time as there are
//! connections.

mod client;
mod commands;
mod counters;
mod dead_letters;
mod http;
mod protocol;
mod rules;
mod socket;
#[cfg(test)]
pub(crate) mod tests;
mod transfer;
mod view;

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use actions::dead_letters::{DeadLetters, Outlets};
use store::DurableStore;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::api::{ApiServer, OwnersDoor};
use crate::rules::{RuleBook, RulePipeline, RuleStats};

pub use client::{AdminClient, AdminClientError};
pub(crate) use counters::rule as counters_of;
pub(crate) use dead_letters::{ChangeParams, ListParams, ShowParams, Verb};
pub use http::ApiClient;
pub use protocol::{ANSWER_BYTES_MAX, REQUEST_BYTES_MAX, VERSION};
pub(crate) use protocol::{Code, Refusal};
pub use socket::{CONNECTIONS_MAX, IDLE_TIMEOUT, SOCKET_PATH_BYTES_MAX};
pub use transfer::{download, upload};
pub(crate) use view::Shown;

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

/// What the commands work on.
#[derive(Clone)]
pub struct Services {
    store: Arc<DurableStore>,
    letters: DeadLetters,
    rules: Arc<dyn RunningRules>,
    book: Option<RuleBook>,
    /// Wall clock when the gateway started, milliseconds since the epoch.
    since_ms: i64,
    /// Where HTTP comes in.
    door: Option<OwnersDoor>,
}

/// The rules that run, as the administration sees them.
pub trait RunningRules: Outlets {
    /// Shows the counters of rules, by name, from behind `after` on, until `visit` has enough. Returns the name of the last
    /// one, where there are more.
    fn stats_after(
        &self,
        after: Option<&str>,
        visit: &mut dyn FnMut(RuleStats) -> ControlFlow<()>,
    ) -> Option<String>;
}

impl RunningRules for RulePipeline {
    fn stats_after(
        &self,
        after: Option<&str>,
        visit: &mut dyn FnMut(RuleStats) -> ControlFlow<()>,
    ) -> Option<String> {
        Self::stats_after(self, after, visit)
    }
}

impl Services {
    /// The dead letters of a store, and the rules that run: their actions can send letters again.
    pub fn new(store: &Arc<DurableStore>, rules: Arc<dyn RunningRules>) -> Self {
        let letters = DeadLetters::new(Arc::clone(store));
        Self { store: Arc::clone(store), letters, rules, book: None, since_ms: now_ms(), door: None }
    }

    /// Adds who owns which rule: without it rules can't be changed.
    #[must_use]
    pub fn with_book(self, book: RuleBook) -> Self {
        Self { book: Some(book), ..self }
    }

    /// Adds the HTTP interface, which is served beside the lines of JSON.
    #[must_use]
    pub fn with_api(self, api: Option<&ApiServer>) -> Self {
        Self { door: api.map(ApiServer::owners_door), ..self }
    }
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
    pub fn open(data_dir: &Path, services: Services) -> Result<Self, AdminError> {
        let path = socket_path(data_dir);
        let listener = socket::Listener::bind(&path)?;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(listener.run(Arc::new(services), stopped));
        Ok(Self { path, stop: Some(stop), task })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ends every connection and removes the socket. A command that works on many letters ends between two of them.
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

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
