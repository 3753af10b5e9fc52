//! Who may come in and what they may do: the broker's questions, answered by the `access` crate as the configuration says.
//!
//! Each listener has a chain of methods. All of them are made before any takes effect, at a start as at a reload: what can't be
//! made leaves everything as it was. What was counted against guessing and what is remembered of passwords outlives a reload.

mod acl;
mod convert;
mod explain;
mod served;
mod token;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use access::acl::HttpRules;
use access::authentication::{
    AskerError, Attempt, Certificate, Chain, Counters, Guard, HashError, Hashing, Http, HttpError,
    HttpSettings, Jwt, JwtError, Lockout, Method, Named, PasswordFile, Scram, UsersError,
};
use arc_swap::ArcSwap;
use broker::{AccessControl, Action, Answer, Decision, Publisher, Verdict};
use mqtt_protocol::ReasonCode;

use crate::config::{AuthenticatorConfig, AuthenticatorKind, Config, Period};

use self::acl::Acl;
pub use self::acl::AclLoadError;
pub(crate) use self::acl::{OPEN, load_rules, subject};
pub(crate) use self::explain::{Explained, Ruling, Wanted, explain};

/// How often files are looked at for changes.
const LOOK: Duration = Duration::from_secs(2);

/// Why access can't be decided about as the configuration says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// A file of users isn't taken.
    #[error("authentication \"{name}\": the file of users is refused")]
    Users {
        /// Name of the method.
        name: String,
        /// Why.
        source: UsersError,
    },
    /// Tokens can't be checked.
    #[error("authentication \"{name}\": tokens can't be checked")]
    Jwt {
        /// Name of the method.
        name: String,
        /// Why.
        source: JwtError,
    },
    /// A server can't be asked.
    #[error("authentication \"{name}\": nobody can be asked")]
    Http {
        /// Name of the method.
        name: String,
        /// Why.
        source: HttpError,
    },
    /// A file can't be read.
    #[error("authentication \"{name}\": {} can't be read", path.display())]
    File {
        /// Name of the method.
        name: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A secret is no base64.
    #[error("authentication \"{name}\": the secret is no base64")]
    NotBase64 {
        /// Name of the method.
        name: String,
    },
    /// Passwords can't be checked.
    #[error("passwords can't be checked")]
    Hashing(#[source] HashError),
    /// The access rules aren't taken.
    #[error("the access rules are refused")]
    Acl(#[source] AclLoadError),
    /// Nobody can be asked for access rules.
    #[error("acl.http: nobody can be asked")]
    AclHttp(#[source] AskerError),
    /// A key is missing: the configuration wasn't checked.
    #[error("authentication \"{name}\": `{key}` is missing")]
    Missing {
        /// Name of the method.
        name: String,
        /// The key.
        key: &'static str,
    },
}

/// See the module.
pub struct Access {
    lockout: Arc<Lockout>,
    hashing: Arc<Hashing>,
    counters: Arc<Counters>,
    current: ArcSwap<Prepared>,
    /// Raised when a decision may have changed.
    version: AtomicU64,
    /// Who has to look again then.
    listener: OnceLock<Listener>,
}

/// Told when a decision may have changed.
type Listener = Box<dyn Fn() + Send + Sync>;

/// What a reload changes.
#[derive(Debug)]
pub struct Prepared {
    methods: Vec<Named>,
    by_listener: HashMap<Arc<str>, OfListener>,
    acl: Option<Acl>,
    /// Who has rules for single clients.
    http: Option<Arc<HttpRules>>,
}

/// How one listener tells who its clients are.
#[derive(Debug, Clone)]
struct OfListener {
    chain: Arc<Chain>,
    allow_anonymous: bool,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("listeners", &self.current.load().by_listener).finish_non_exhaustive()
    }
}

impl Access {
    /// Makes what a configuration says.
    ///
    /// # Errors
    /// [`AccessError`] of the first method that can't be made.
    pub fn new(config: &Config) -> Result<Self, AccessError> {
        let access = Self {
            lockout: Arc::new(Lockout::new(config.limits.lockout.limits())),
            hashing: Arc::new(
                Hashing::new(config.limits.authentication.hashing()).map_err(AccessError::Hashing)?,
            ),
            counters: Arc::default(),
            current: ArcSwap::from_pointee(Prepared {
                methods: Vec::new(),
                by_listener: HashMap::new(),
                acl: None,
                http: None,
            }),
            version: AtomicU64::new(1),
            listener: OnceLock::new(),
        };
        let prepared = access.prepare(config)?;
        access.apply(prepared);
        Ok(access)
    }

    /// Puts what was prepared in place of what is there. Limits stay as they were at the start.
    pub fn apply(&self, prepared: Prepared) {
        let after = Arc::new(prepared);
        let before = self.current.swap(Arc::clone(&after));
        if let (Some(after), Some(before)) = (&after.http, &before.http) {
            after.take_over(before);
        }
        self.changed();
    }

    /// Has the broker look again at what its clients receive whenever that may have changed.
    pub fn attach(&self, listener: impl Fn() + Send + Sync + 'static) {
        drop(self.listener.set(Box::new(listener)));
    }

    /// Clients that were kept outside, by the name of the method that decided and why, since the start.
    pub fn refusals(&self) -> Vec<(String, &'static str, u64)> {
        let current = self.current.load();
        // All chains count together.
        let chain = current.by_listener.values().next().map(|of_listener| &of_listener.chain);
        let refusals = chain.map(|chain| chain.refusals()).unwrap_or_default();
        refusals.into_iter().map(|(method, denial, count)| (method, denial.as_str(), count)).collect()
    }

    fn changed(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
        if let Some(listener) = self.listener.get() {
            listener();
        }
    }

    /// Makes the methods of a configuration, without any effect yet.
    ///
    /// # Errors
    /// [`AccessError`] of the first method that can't be made.
    pub fn prepare(&self, config: &Config) -> Result<Prepared, AccessError> {
        let guard = served::guard(config);
        let mut methods: BTreeMap<&str, Named> = BTreeMap::new();
        for (name, method) in &config.authentication {
            let method = self.method(name, method, &guard)?;
            methods.insert(name, (name.as_str().into(), Arc::new(method)));
        }
        let mut by_listener = HashMap::new();
        for listener in &config.listeners {
            let of_listener: Vec<Named> = match &listener.authentication {
                Some(names) => names.iter().filter_map(|name| methods.get(name.as_str()).cloned()).collect(),
                None => methods.values().cloned().collect(),
            };
            let chain = Chain::new(
                of_listener,
                Arc::clone(&self.lockout),
                Arc::clone(&self.hashing),
                Arc::clone(&self.counters),
            );
            let of_listener =
                OfListener { chain: Arc::new(chain), allow_anonymous: listener.allow_anonymous };
            by_listener.insert(listener.name.as_str().into(), of_listener);
        }
        let acl = Acl::load(&config.acl).map_err(AccessError::Acl)?;
        let http = served::http_rules(config)?;
        Ok(Prepared { methods: methods.into_values().collect(), by_listener, acl, http })
    }

    fn method(&self, name: &str, config: &AuthenticatorConfig, guard: &Guard) -> Result<Method, AccessError> {
        match config.kind {
            AuthenticatorKind::Certificate => {
                let username = needed(name, "username", config.username)?;
                Ok(Method::Certificate(Certificate::new(username.place())))
            }
            AuthenticatorKind::Jwt => {
                let settings = token::settings(name, config, guard)?;
                Jwt::new(settings)
                    .map(|method| Method::Jwt(Box::new(method)))
                    .map_err(|source| AccessError::Jwt { name: name.to_owned(), source })
            }
            AuthenticatorKind::Http => {
                let url = needed(name, "url", config.url.as_deref())?;
                let headers = config.headers.iter().flatten();
                Http::new(&HttpSettings {
                    endpoint: config.endpoint(url, guard),
                    headers: headers.map(|(name, value)| (name.clone(), value.expose().to_owned())).collect(),
                    requests: usize::from(config.concurrency.unwrap_or(32)),
                    cached_for: config.cache_time.unwrap_or(Period::ZERO).as_duration(),
                })
                .map(|method| Method::Http(Box::new(method)))
                .map_err(|source| AccessError::Http { name: name.to_owned(), source })
            }
            AuthenticatorKind::Scram => {
                let path = needed(name, "file", config.file.as_deref())?;
                Scram::open(path)
                    .map(Method::Scram)
                    .map_err(|source| AccessError::Users { name: name.to_owned(), source })
            }
            AuthenticatorKind::PasswordFile => {
                let path = needed(name, "file", config.file.as_deref())?;
                PasswordFile::open(path, Arc::clone(&self.hashing))
                    .map(Method::PasswordFile)
                    .map_err(|source| AccessError::Users { name: name.to_owned(), source })
            }
        }
    }

    /// Reads files again that have changed; what isn't understood is told and leaves the last good one.
    fn refresh(&self) {
        for (name, method) in &self.current.load().methods {
            let Some(file) = method.users_file() else { continue };
            match file.refresh() {
                Ok(None) => {}
                Ok(Some(users)) => tracing::info!(authentication = %name, users, "file of users read again"),
                Err(error) => {
                    let error = crate::cli::chain(&error);
                    tracing::error!(authentication = %name, error, "the users of before go on");
                }
            }
        }
        self.refresh_acl();
    }

    fn refresh_acl(&self) {
        let before = self.current.load_full();
        let Some(mut acl) = before.acl.clone() else { return };
        let is_changed = match acl.refresh() {
            Ok(false) => return,
            Ok(true) => true,
            Err(error) => {
                tracing::error!(error = crate::cli::chain(&error), "the access rules of before go on");
                false
            }
        };
        let rules = acl.rules.len();
        let after = Prepared {
            methods: before.methods.clone(),
            by_listener: before.by_listener.clone(),
            acl: Some(acl),
            http: before.http.clone(),
        };
        // Whatever was put there meanwhile is newer than this.
        let replaced = self.current.compare_and_swap(&before, Arc::new(after));
        if Arc::ptr_eq(&replaced, &before) && is_changed {
            self.changed();
            // Now they hold.
            tracing::info!(rules, "access rules read again");
        }
    }

    /// Looks after files for as long as somebody uses this.
    pub fn watch(self: &Arc<Self>) {
        tokio::spawn(served::keep_fresh(Arc::downgrade(self)));
        let access = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(LOOK);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let Some(access) = access.upgrade() else { return };
                // Reading and parsing may take a while.
                if let Err(error) = tokio::task::spawn_blocking(move || access.refresh()).await {
                    tracing::error!(%error, "files of users could not be looked at");
                }
            }
        });
    }
}

fn needed<T>(name: &str, key: &'static str, value: Option<T>) -> Result<T, AccessError> {
    value.ok_or_else(|| AccessError::Missing { name: name.to_owned(), key })
}

impl AccessControl for Access {
    fn authenticate(&self, attempt: broker::Attempt) -> Answer {
        let attempt: Attempt = convert::attempt(attempt);
        let current = self.current.load();
        let of_listener = current.by_listener.get(&attempt.listener).cloned();
        let http = current.http.clone();
        Box::pin(async move {
            let Some(OfListener { chain, allow_anonymous }) = of_listener else {
                return Verdict::Refuse(ReasonCode::NotAuthorized, "the listener is not known".into());
            };
            let verdict = chain.decide(&attempt).await;
            // Nobody is asked about somebody who is kept outside all the same.
            let stays_outside =
                matches!(&verdict, access::authentication::Verdict::Accept(None, _)) && !allow_anonymous;
            convert::verdict(verdict, attempt, http.filter(|_| !stays_outside)).await
        })
    }

    fn is_open(&self, who: &Publisher) -> bool {
        acl::is_open(self.current.load().acl.as_ref(), who)
    }

    fn decide(&self, who: &Publisher, action: Action<'_>) -> Decision {
        // Asked for each publish, in the task of the publisher's connection.
        #[cfg(feature = "power-cut")]
        if let Action::Publish { topic, .. } = action {
            crate::fault::point("connection", topic.as_bytes());
        }
        acl::decide(self.current.load().acl.as_ref(), who, action)
    }

    fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        let current = self.current.load();
        let mut figures = Vec::new();
        // All chains count together.
        if let Some(chain) = current.by_listener.values().next().map(|of_listener| &of_listener.chain) {
            let counters = chain.counters();
            figures.extend([
                ("authentication/accepted", counters.accepted),
                ("authentication/anonymous", counters.anonymous),
                ("authentication/refused", counters.refused),
                ("authentication/unavailable", counters.unavailable),
                ("authentication/locked_out", counters.locked_out),
            ]);
        }
        if let Some(http) = &current.http {
            let counters = http.counters();
            figures.extend([
                ("authorisation/http/asked", counters.asked),
                ("authorisation/http/failed", counters.failed),
                ("authorisation/http/full", counters.full),
            ]);
        }
        figures
    }
}
