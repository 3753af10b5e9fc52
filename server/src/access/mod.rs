//! Who may come in and what they may do: the broker's questions, answered by the `access` crate as the configuration says.
//!
//! Each listener has a chain of methods. All of them are made before any takes effect, at a start as at a reload: what can't be
//! made leaves everything as it was. What was counted against guessing and what is remembered of passwords outlives a reload.

mod convert;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use access::authentication::{
    Attempt, Certificate, Chain, Counters, HashError, Hashing, Lockout, Method, Named, PasswordFile,
    UsersError,
};
use arc_swap::ArcSwap;
use broker::{AccessControl, Action, Answer, Decision, Publisher, Verdict};
use mqtt_protocol::ReasonCode;

use crate::config::{AuthenticatorConfig, AuthenticatorKind, Config};

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
    /// Passwords can't be checked.
    #[error("passwords can't be checked")]
    Hashing(#[source] HashError),
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
}

/// What a reload changes.
#[derive(Debug)]
pub struct Prepared {
    methods: Vec<Named>,
    by_listener: HashMap<Arc<str>, Arc<Chain>>,
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
            current: ArcSwap::from_pointee(Prepared { methods: Vec::new(), by_listener: HashMap::new() }),
        };
        let prepared = access.prepare(config)?;
        access.apply(prepared);
        Ok(access)
    }

    /// Puts what was prepared in place of what is there. Limits stay as they were at the start.
    pub fn apply(&self, prepared: Prepared) {
        self.current.store(Arc::new(prepared));
    }

    /// Makes the methods of a configuration, without any effect yet.
    ///
    /// # Errors
    /// [`AccessError`] of the first method that can't be made.
    pub fn prepare(&self, config: &Config) -> Result<Prepared, AccessError> {
        let mut methods: BTreeMap<&str, Named> = BTreeMap::new();
        for (name, method) in &config.authentication {
            methods.insert(name, (name.as_str().into(), Arc::new(self.method(name, method)?)));
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
            by_listener.insert(listener.name.as_str().into(), Arc::new(chain));
        }
        Ok(Prepared { methods: methods.into_values().collect(), by_listener })
    }

    fn method(&self, name: &str, config: &AuthenticatorConfig) -> Result<Method, AccessError> {
        match config.kind {
            AuthenticatorKind::Certificate => {
                let username = needed(name, "username", config.username)?;
                Ok(Method::Certificate(Certificate::new(username.place())))
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
    }

    /// Looks after files for as long as somebody uses this.
    pub fn watch(self: &Arc<Self>) {
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
        let chain = self.current.load().by_listener.get(&attempt.listener).cloned();
        Box::pin(async move {
            let Some(chain) = chain else {
                return Verdict::Refuse(ReasonCode::NotAuthorized, "the listener is not known".into());
            };
            let verdict = chain.decide(&attempt).await;
            convert::verdict(verdict, attempt)
        })
    }

    fn decide(&self, _who: &Publisher, _action: Action<'_>) -> Decision {
        Decision::Allow
    }

    fn version(&self) -> u64 {
        0
    }
}
