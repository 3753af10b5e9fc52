//! The methods of a listener, asked one after the other.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::certificate::Certificate;
use super::hashing::Hashing;
use super::lockout::Lockout;
use super::password_file::PasswordFile;
use super::users::UsersFile;
use super::{Attempt, Denial, Identity, Outcome};

/// One way to tell who a client is.
#[derive(Debug)]
pub enum Method {
    /// Passwords of a file.
    PasswordFile(PasswordFile),
    /// The client's certificate.
    Certificate(Certificate),
}

impl Method {
    /// The file of users that it looks into.
    #[must_use]
    pub fn users_file(&self) -> Option<&UsersFile> {
        match self {
            Self::PasswordFile(method) => Some(method.file()),
            Self::Certificate(_) => None,
        }
    }
}

/// A method under its name in the configuration.
pub type Named = (Arc<str>, Arc<Method>);

/// What a chain comes to.
#[derive(Debug)]
pub enum Verdict {
    /// The client comes in; `None`: as an anonymous one, if its listener lets those in. The bytes are the last Authentication
    /// Data for it.
    Accept(Option<(Arc<str>, Identity)>, Option<Box<[u8]>>),
    /// It stays outside; the text is for the log.
    Refuse(Denial, Box<str>),
}

/// What was decided since the start. Shared by all chains.
#[derive(Debug, Default)]
pub struct Counters {
    accepted: AtomicU64,
    anonymous: AtomicU64,
    refused: AtomicU64,
    unavailable: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CountersSnapshot {
    /// Attempts that proved who the client is.
    pub accepted: u64,
    /// Attempts without credentials.
    pub anonymous: u64,
    /// Attempts that were refused, the others here included.
    pub refused: u64,
    /// Attempts refused because nobody could tell.
    pub unavailable: u64,
    /// Attempts refused because an address or a user had to wait.
    pub locked_out: u64,
    /// Waits that began.
    pub lockouts: u64,
    /// Passwords hashed.
    pub hashed: u64,
    /// Passwords that were remembered as right.
    pub remembered: u64,
    /// Passwords refused because too many waited.
    pub hash_overloads: u64,
}

/// See the module.
pub struct Chain {
    methods: Box<[Named]>,
    lockout: Arc<Lockout>,
    hashing: Arc<Hashing>,
    counters: Arc<Counters>,
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.methods.iter().map(|(name, _)| name)).finish()
    }
}

impl Chain {
    /// Makes one. Without any method a listener takes clients as what they say they are, as far as it lets them in.
    #[must_use]
    pub fn new(
        methods: Vec<Named>,
        lockout: Arc<Lockout>,
        hashing: Arc<Hashing>,
        counters: Arc<Counters>,
    ) -> Self {
        Self { methods: methods.into(), lockout, hashing, counters }
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counters(&self) -> CountersSnapshot {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CountersSnapshot {
            accepted: of(&self.counters.accepted),
            anonymous: of(&self.counters.anonymous),
            refused: of(&self.counters.refused),
            unavailable: of(&self.counters.unavailable),
            locked_out: of(&self.lockout.refused),
            lockouts: of(&self.lockout.lockouts),
            hashed: of(&self.hashing.hashed),
            remembered: of(&self.hashing.remembered_hits),
            hash_overloads: of(&self.hashing.overloads),
        }
    }

    /// Decides about an attempt.
    pub async fn decide(&self, attempt: &Attempt) -> Verdict {
        let user = attempt.username.as_deref();
        let verdict = match self.lockout.wait(attempt.address, user) {
            // Before anything that costs.
            Some(_) => Verdict::Refuse(Denial::LockedOut, "too many failures before".into()),
            None => self.ask(attempt).await,
        };
        self.count(attempt, &verdict);
        verdict
    }

    async fn ask(&self, attempt: &Attempt) -> Verdict {
        if attempt.enhanced.is_some() {
            return Verdict::Refuse(Denial::BadMethod, "no method of this name is offered here".into());
        }
        for (name, method) in &self.methods {
            let outcome = match &**method {
                Method::PasswordFile(method) => method.authenticate(attempt).await,
                Method::Certificate(method) => method.authenticate(attempt),
            };
            match outcome {
                Outcome::Ignore => {}
                Outcome::Allow(identity, data) => {
                    return Verdict::Accept(Some((Arc::clone(name), identity)), data);
                }
                Outcome::Deny(denial, why) => {
                    return Verdict::Refuse(denial, format!("{name}: {why}").into());
                }
            }
        }
        let has_credentials = attempt.username.is_some() || attempt.password.is_some();
        if self.methods.is_empty() {
            Verdict::Accept(None, None)
        } else if has_credentials {
            // The same as for a wrong password.
            Verdict::Refuse(Denial::BadCredentials, "no method knows the client".into())
        } else {
            Verdict::Accept(None, None)
        }
    }

    /// Counts what came of it, for the statistics and against guessing.
    fn count(&self, attempt: &Attempt, verdict: &Verdict) {
        let user = attempt.username.as_deref();
        let add = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        match verdict {
            Verdict::Accept(Some(_), _) => {
                add(&self.counters.accepted);
                self.lockout.succeeded(attempt.address, user);
            }
            Verdict::Accept(None, _) => drop(add(&self.counters.anonymous)),
            Verdict::Refuse(denial, _) => {
                add(&self.counters.refused);
                match denial {
                    Denial::BadCredentials => self.lockout.failed(attempt.address, user),
                    Denial::Unavailable => drop(add(&self.counters.unavailable)),
                    Denial::NotAuthorized | Denial::BadMethod | Denial::LockedOut => {}
                }
            }
        }
    }
}
