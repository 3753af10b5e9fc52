//! The HTTP interface of administration: `/api/v1`, its OpenAPI document, and two paths for those who watch over processes.
//!
//! `serve` owns the connections: how many, how long, how much. `guard` looks at every request before anything else does
//! (who is addressed, from which page) and puts the headers on every answer. `routes` is the one table of what there is: from it
//! come the router, the OpenAPI document and docs/api-routes.md, so that a path without a description can't be. `problem` is
//! the form of every error, `extract` what is taken from a request, `paging` how lists are cut. `gateway` is what handlers work on,
//! and each of them stands with those of its kind: `clients`, `messages`, `rules`, `rule_changes`, `rule_cases`, `rule_tests`, `language`, `action_queues`, `connectors`,
//! `dead_letters`, `acl`, `config`, `server_info`, `overview`, `metrics`, `measures`, `backup` and `restore`. `console` sends the pages of who looks with a browser,
//! `mqtt` lets its MQTT client in. `counters` and `shown` are parts of several answers. `audit` keeps
//! who changed what.
//!
//! It must never hold up messages: nothing here takes a lock of the broker for longer than a step, and a gateway whose
//! interface can't be opened runs all the same.

mod acl;
mod action_queues;
mod alarms;
mod audit;
mod auth;
mod backup;
mod clients;
mod config;
mod connectors;
mod console;
mod counters;
mod dead_letters;
mod document;
mod examples;
mod extract;
mod gateway;
mod guard;
mod health;
mod language;
mod live;
mod measures;
mod messages;
mod metrics;
mod mqtt;
mod overview;
mod paging;
mod problem;
mod restore;
mod routes;
mod rule_cases;
mod rule_changes;
mod rule_tests;
mod rules;
mod serve;
mod server_info;
mod shown;
#[cfg(test)]
pub(crate) mod tests;
mod traces;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use broker::{BoundListener, TlsSetup};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::config::Admin;
use audit::Audit;
use auth::Auth;
use guard::Guard;

pub use action_queues::PURGE_WAIT_MAX;
pub use audit::{FILE_BYTES_MAX as AUDIT_FILE_BYTES_MAX, SHOWN_MAX as AUDIT_SHOWN_MAX};
pub(crate) use auth::{Digest, account::is_name, is_scope};
pub use auth::{Role, SETUP_TOKEN_AGE_MAX};
pub use backup::BACKUPS_MAX;
pub use document::document;
pub use extract::{BODY_BYTES_MAX, RULES_BODY_BYTES_MAX};
pub use gateway::Gateway;
pub use live::{
    RATE_DEFAULT as LIVE_RATE_DEFAULT, RATE_MAX as LIVE_RATE_MAX, STREAMS_MAX as LIVE_STREAMS_MAX,
};
pub use mqtt::MQTT_MAX;
pub use paging::{PAGE_DEFAULT, PAGE_MAX};
pub(crate) use paging::{cursor, place};
pub use problem::ERRORS_MAX;
pub(crate) use problem::{Kind, Problem};
pub use routes::route_page;
pub use rule_cases::{RULE_CASES_BYTES_MAX, RULE_CASES_MAX, RULES_WITH_CASES_MAX};
pub use rule_tests::TESTED_MAX;
pub use rules::{EXPLAINED_MAX, RULES_PAGE_BYTES_MAX};
pub use serve::{
    BODY_TIMEOUT, CONNECTION_AGE_MAX, CONNECTIONS_MAX, HEAD_BYTES_MAX, HEAD_TIMEOUT, REQUEST_TIMEOUT,
    RESTORE_TIMEOUT, STOP_TIMEOUT,
};

/// What every handler sees.
#[derive(Debug)]
pub(crate) struct Api {
    guard: Guard,
    auth: Auth,
    audit: Audit,
    gateway: Gateway,
    /// Nothing may be changed through it.
    is_read_only: bool,
    /// Browsers come over TLS.
    has_tls: bool,
    /// Clients are let in.
    is_ready: AtomicBool,
    /// Streams of events that are open.
    streams: AtomicUsize,
    /// Where clients of whoever is signed in come in.
    mqtt: mqtt::MqttDoor,
    /// How the gateway was at the last look.
    overview: overview::Kept,
    /// Cases of rules.
    cases: rule_cases::KeptCases,
    /// Turns at making and restoring backups.
    backups: Arc<Semaphore>,
    /// Where what is uploaded lies until it is known to be whole; `None`: where the system keeps such things.
    data_dir: Option<PathBuf>,
    /// Something is sent: streams end, and connections after the request that they are at.
    stop: watch::Sender<()>,
}

impl Api {
    /// Whether nobody can sign in or send a token yet, and a setup token would change that.
    fn needs_setup(&self) -> bool {
        !self.is_read_only && self.auth.directory.is_empty()
    }

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

/// The interface as its owner reaches it, over the administration socket.
#[derive(Debug, Clone)]
pub struct OwnersDoor {
    router: axum::Router,
    stop: watch::Receiver<()>,
}

impl OwnersDoor {
    /// Answers one connection's requests until it ends. The caller has made sure that the user at the other end owns the
    /// gateway, or the machine: it may do everything.
    pub async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, uid: u32) {
        serve::serve(stream, serve::Peer::Owner(uid), self.router, self.stop).await;
    }

    /// Tells somebody who isn't let in why.
    pub(crate) async fn turn_away(stream: impl AsyncRead + AsyncWrite + Unpin, problem: Problem) {
        serve::turn_away(stream, problem).await;
    }
}

/// The open interface.
#[derive(Debug)]
pub struct ApiServer {
    api: Arc<Api>,
    router: axum::Router,
    /// Where it listens, and the task that does.
    listening: Option<(SocketAddr, JoinHandle<()>)>,
}

impl ApiServer {
    /// Makes the interface, which listens nowhere yet. It isn't ready before [`ApiServer::ready`].
    ///
    /// # Errors
    /// [`ApiError::Users`].
    pub fn open(config: &Admin, data_dir: Option<&Path>, gateway: Gateway) -> Result<Self, ApiError> {
        let auth = Auth::open(config, data_dir).map_err(|error| ApiError::Users(Box::new(error)))?;
        let api = Arc::new(Api {
            guard: Guard::new(config),
            auth,
            audit: Audit::open(data_dir),
            mqtt: mqtt::MqttDoor::new(&gateway.broker),
            gateway,
            is_read_only: config.read_only,
            has_tls: config.tls.is_some(),
            is_ready: AtomicBool::new(false),
            streams: AtomicUsize::new(0),
            overview: overview::Kept::default(),
            cases: rule_cases::KeptCases::new(data_dir),
            backups: Arc::new(Semaphore::new(BACKUPS_MAX)),
            data_dir: data_dir.map(Path::to_owned),
            stop: watch::Sender::new(()),
        });
        let router = routes::router(&api);
        Ok(Self { api, router, listening: None })
    }

    /// Listens on an address, inside the current tokio runtime.
    ///
    /// # Errors
    /// [`ApiError::Listen`].
    pub async fn listen(
        &mut self,
        address: SocketAddr,
        tls: Option<TlsSetup>,
    ) -> Result<SocketAddr, ApiError> {
        let failed = |source| ApiError::Listen { address, source };
        let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let task = tokio::spawn(serve::run(listener, tls, self.router.clone(), self.api.stop.subscribe()));
        self.listening = Some((address, task));
        Ok(address)
    }

    /// Where it listens; the port is the real one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.listening.as_ref().map(|(address, _)| *address)
    }

    /// Where its owner comes in.
    #[must_use]
    pub fn owners_door(&self) -> OwnersDoor {
        OwnersDoor { router: self.router.clone(), stop: self.api.stop.subscribe() }
    }

    /// Makes a setup token, and voids the one before.
    ///
    /// # Errors
    /// [`ApiError::Users`] when the system gives no random numbers, or the token's file can't be written.
    pub fn make_setup_token(&self) -> Result<String, ApiError> {
        self.api.auth.make_setup_token().map_err(|error| ApiError::Users(Box::new(error)))
    }

    /// Whether nobody can sign in or send a token yet, and a setup token would change that.
    #[must_use]
    pub fn needs_setup(&self) -> bool {
        self.api.needs_setup()
    }

    /// Clients are let in from here on, by these listeners: `/readyz` says so.
    pub fn ready(&self, listeners: &[BoundListener]) {
        *self.api.gateway.listeners.write() = listeners.to_vec();
        self.api.is_ready.store(true, Ordering::Release);
    }

    /// Nobody is let in any more.
    pub fn not_ready(&self) {
        self.api.is_ready.store(false, Ordering::Release);
    }

    /// Takes no more connections, lets those that are open finish their request, and ends those that take too long.
    pub async fn close(mut self) {
        self.not_ready();
        self.api.stop.send_replace(());
        if let Some((_, task)) = &mut self.listening
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the administration interface ended early");
        }
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if let Some((_, task)) = &self.listening {
            task.abort();
        }
    }
}
