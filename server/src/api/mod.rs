//! The HTTP interface of administration: `/api/v1`, its OpenAPI document, and two paths for those who watch over processes.
//!
//! `serve` owns the connections: how many, how long, how much. `guard` looks at every request before anything else does
//! (who is addressed, from which page) and puts the headers on every answer. `routes` is the one table of what there is: from it
//! come the router, the OpenAPI document and docs/api-routes.md, so that a path without a description can't be. `problem` is
//! the form of every error, `extract` what is taken from a request.
//!
//! It must never hold up messages: nothing here takes a lock of the broker for longer than a step, and a gateway whose
//! interface can't be opened runs all the same.

mod auth;
mod document;
mod extract;
mod guard;
mod health;
mod problem;
mod routes;
mod serve;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::Admin;
use auth::Auth;
use guard::Guard;
use problem::{Kind, Problem};

pub(crate) use auth::{Digest, account::is_name, is_scope};
pub use auth::{Role, SETUP_TOKEN_AGE_MAX};
pub use document::document;
pub use extract::BODY_BYTES_MAX;
pub use routes::route_page;
pub use serve::{
    BODY_TIMEOUT, CONNECTION_AGE_MAX, CONNECTIONS_MAX, HEAD_BYTES_MAX, HEAD_TIMEOUT, REQUEST_TIMEOUT,
    STOP_TIMEOUT,
};

/// What every handler sees.
#[derive(Debug)]
pub(crate) struct Api {
    guard: Guard,
    auth: Auth,
    /// Nothing may be changed through it.
    is_read_only: bool,
    /// Clients are let in.
    is_ready: AtomicBool,
}

impl Api {
    /// Runs what waits for the disk where that is allowed.
    async fn blocking<T: Send + 'static, E: Into<Problem> + Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, E> + Send + 'static,
    ) -> Result<T, Problem> {
        let api = Arc::clone(self);
        match tokio::task::spawn_blocking(move || work(&api)).await {
            Ok(done) => done.map_err(Into::into),
            Err(error) => {
                tracing::error!(%error, "a request to the administration interface broke off");
                Err(Problem::new(Kind::Internal, "the request broke off"))
            }
        }
    }
}

/// Why the interface isn't opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// The address can't be had.
    #[error("its address (admin.address) {address} can't be had")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Nobody knows who may ask.
    #[error("its users and tokens can't be used")]
    Users(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Makes setup tokens for whoever may open the administration socket.
#[derive(Debug, Clone)]
pub struct SetupTokens(Arc<Api>);

impl SetupTokens {
    /// Makes one, and voids the one before.
    ///
    /// # Errors
    /// When the system gives no random numbers, or the token's file can't be written.
    pub fn make(&self) -> Result<String, ApiError> {
        self.0.auth.make_setup_token().map_err(|error| ApiError::Users(Box::new(error)))
    }
}

/// The open interface.
#[derive(Debug)]
pub struct ApiServer {
    address: SocketAddr,
    api: Arc<Api>,
    /// Gone: connections end after the request that they are at.
    stop: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl ApiServer {
    /// Opens the interface inside the current tokio runtime. It isn't ready before [`ApiServer::ready`].
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn open(config: &Admin, data_dir: Option<&Path>) -> Result<Self, ApiError> {
        let failed = |source| ApiError::Listen { address: config.address, source };
        let auth = Auth::open(config, data_dir).map_err(|error| ApiError::Users(Box::new(error)))?;
        let listener = tokio::net::TcpListener::bind(config.address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let api = Arc::new(Api {
            guard: Guard::new(config),
            auth,
            is_read_only: config.read_only,
            is_ready: AtomicBool::new(false),
        });
        let (stop, stopped) = watch::channel(());
        let task = tokio::spawn(serve::run(listener, routes::router(&api), stopped));
        Ok(Self { address, api, stop, task })
    }

    /// Where it listens; the port is the real one.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes setup tokens.
    #[must_use]
    pub fn setup_tokens(&self) -> SetupTokens {
        SetupTokens(Arc::clone(&self.api))
    }

    /// Whether nobody can sign in or send a token yet, and a setup token would change that.
    #[must_use]
    pub fn needs_setup(&self) -> bool {
        !self.api.is_read_only && self.api.auth.directory.is_empty()
    }

    /// Clients are let in from here on: `/readyz` says so.
    pub fn ready(&self) {
        self.api.is_ready.store(true, Ordering::Release);
    }

    /// Nobody is let in any more.
    pub fn not_ready(&self) {
        self.api.is_ready.store(false, Ordering::Release);
    }

    /// Takes no more connections, lets those that are open finish their request, and ends those that take too long.
    pub async fn close(mut self) {
        self.not_ready();
        self.stop.send_replace(());
        if let Err(error) = (&mut self.task).await {
            tracing::error!(%error, "the administration interface ended early");
        }
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
