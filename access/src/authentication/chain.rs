//! The methods of a listener, asked one after the other.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::certificate::Certificate;
use super::hashing::Hashing;
use super::http::Http;
use super::jwt::Jwt;
use super::lockout::Lockout;
use super::password_file::PasswordFile;
use super::scram::{Challenge, ClientFirst, METHOD, Scram};
use super::users::UsersFile;
use super::{Attempt, Denial, Identity, Outcome};

/// One way to tell who a client is.
#[derive(Debug)]
pub enum Method {
    /// Passwords of a file.
    PasswordFile(PasswordFile),
    /// The client's certificate.
    Certificate(Certificate),
    /// A token.
    Jwt(Box<Jwt>),
    /// A server of the operator's.
    Http(Box<Http>),
    /// SCRAM-SHA-256, an authentication method of MQTT 5.
    Scram(Scram),
}

impl Method {
    /// The file of users that it looks into.
    #[must_use]
    pub fn users_file(&self) -> Option<&UsersFile> {
        match self {
            Self::PasswordFile(method) => Some(method.file()),
            Self::Scram(method) => Some(method.file()),
            Self::Certificate(_) | Self::Jwt(_) | Self::Http(_) => None,
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
    /// It has to answer this first.
    Continue(Box<Exchange>, Box<[u8]>),
    /// It stays outside; the text is for the log.
    Refuse(Denial, Box<str>),
}

/// An enhanced authentication that waits for the client.
pub struct Exchange {
    challenge: Challenge,
    name: Arc<str>,
    tally: Tally,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Exchange {
    /// Goes on with what the client answered.
    #[must_use]
    pub fn answer(self, data: &[u8]) -> Verdict {
        let Self { challenge, name, tally } = self;
        let verdict = match challenge.answer(data) {
            Ok(proof) => {
                let username = Some(challenge.username.clone());
                let identity = Identity { username, ..Identity::default() };
                Verdict::Accept(Some((Arc::clone(&name), identity)), Some(proof.into()))
            }
            Err(why) => Verdict::Refuse(Denial::BadCredentials, format!("{name}: {why}").into()),
        };
        tally.count(&name, Some(&challenge.username), &verdict);
        verdict
    }
}

/// Counts what comes of an attempt, for the statistics and against guessing.
#[derive(Clone)]
struct Tally {
    address: Option<IpAddr>,
    lockout: Arc<Lockout>,
    counters: Arc<Counters>,
}

impl Tally {
    /// `method` is the one that decided.
    fn count(&self, method: &str, user: Option<&str>, verdict: &Verdict) {
        let add = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        match verdict {
            Verdict::Accept(Some(_), _) => {
                add(&self.counters.accepted);
                self.lockout.succeeded(self.address, user);
            }
            Verdict::Accept(None, _) => {
                add(&self.counters.anonymous);
            }
            // Counted at its end.
            Verdict::Continue(..) => {}
            Verdict::Refuse(denial, _) => {
                add(&self.counters.refused);
                self.counters.refuse(method, *denial);
                match denial {
                    Denial::BadCredentials => self.lockout.failed(self.address, user),
                    Denial::Unavailable => {
                        add(&self.counters.unavailable);
                    }
                    Denial::NotAuthorized | Denial::BadMethod | Denial::LockedOut => {}
                }
            }
        }
    }
}

/// What was decided since the start. Shared by all chains.
#[derive(Debug, Default)]
pub struct Counters {
    accepted: AtomicU64,
    anonymous: AtomicU64,
    refused: AtomicU64,
    unavailable: AtomicU64,
    /// Refusals by the method that decided, and why.
    refusals: Mutex<Refusals>,
}

type Refusals = BTreeMap<(Box<str>, Denial), u64>;

/// Stands for the method where none decided: nobody was asked, or nobody knew the client.
const NO_METHOD: &str = "none";

impl Counters {
    fn refuse(&self, method: &str, denial: Denial) {
        *self.refusals.lock().entry((method.into(), denial)).or_default() += 1;
    }
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

    /// Refusals by the name of the method that decided (`none`: none did), and why. Their number is bounded by the names of the
    /// configuration.
    #[must_use]
    pub fn refusals(&self) -> Vec<(String, Denial, u64)> {
        let refusals = self.counters.refusals.lock();
        refusals.iter().map(|((method, denial), count)| (method.to_string(), *denial, *count)).collect()
    }

    /// Decides about an attempt.
    pub async fn decide(&self, attempt: &Attempt) -> Verdict {
        let tally = Tally {
            address: attempt.address,
            lockout: Arc::clone(&self.lockout),
            counters: Arc::clone(&self.counters),
        };
        if let Some((method, data)) = &attempt.enhanced {
            return self.begin_exchange(attempt, method, data, tally);
        }
        let user = attempt.username.as_deref();
        let (method, verdict) = match self.lockout.wait(attempt.address, user) {
            // Before anything that costs.
            Some(_) => (None, locked_out()),
            None => self.ask(attempt).await,
        };
        tally.count(method.unwrap_or(NO_METHOD), user, &verdict);
        verdict
    }

    /// Answers the first message of an authentication method of MQTT 5.
    fn begin_exchange(&self, attempt: &Attempt, method: &str, data: &[u8], tally: Tally) -> Verdict {
        let offered = || {
            self.methods.iter().filter_map(|(name, method)| match &**method {
                Method::Scram(scram) => Some((name, scram)),
                _ => None,
            })
        };
        if method != METHOD || offered().next().is_none() {
            let verdict = Verdict::Refuse(Denial::BadMethod, "no method of this name is offered here".into());
            tally.count(NO_METHOD, None, &verdict);
            return verdict;
        }
        let refuse = |user: Option<&str>, why: Box<str>| {
            let verdict = Verdict::Refuse(Denial::BadCredentials, why);
            tally.count(METHOD, user, &verdict);
            verdict
        };
        let first = match ClientFirst::parse(data) {
            Ok(first) => first,
            Err(why) => return refuse(None, why.to_string().into()),
        };
        let user = Some(&*first.username);
        if self.lockout.wait(attempt.address, user).is_some() {
            let verdict = locked_out();
            tally.count(NO_METHOD, user, &verdict);
            return verdict;
        }
        if attempt.username.is_some() && attempt.username.as_deref() != user {
            return refuse(user, "the user name is another one than that of the exchange".into());
        }
        // One that nobody knows goes through the exchange all the same, to fail at its end.
        let whose = offered().find(|(_, scram)| scram.knows(&first.username)).or_else(|| offered().next());
        match whose.and_then(|(name, scram)| Some((name, scram.challenge(&first)?))) {
            Some((name, (challenge, data))) => {
                let exchange = Exchange { challenge, name: Arc::clone(name), tally };
                Verdict::Continue(Box::new(exchange), data.into())
            }
            None => {
                let verdict =
                    Verdict::Refuse(Denial::Unavailable, "the system gives no random numbers".into());
                tally.count(METHOD, user, &verdict);
                verdict
            }
        }
    }

    /// What the methods say, and which of them decided.
    async fn ask(&self, attempt: &Attempt) -> (Option<&str>, Verdict) {
        for (name, method) in &self.methods {
            let outcome = match &**method {
                Method::PasswordFile(method) => method.authenticate(attempt).await,
                Method::Certificate(method) => method.authenticate(attempt),
                Method::Jwt(method) => method.authenticate(attempt).await,
                Method::Http(method) => method.authenticate(attempt).await,
                Method::Scram(_) => Outcome::Ignore,
            };
            match outcome {
                Outcome::Ignore => {}
                Outcome::Allow(identity, data) => {
                    return (Some(name), Verdict::Accept(Some((Arc::clone(name), identity)), data));
                }
                Outcome::Deny(denial, why) => {
                    return (Some(name), Verdict::Refuse(denial, format!("{name}: {why}").into()));
                }
            }
        }
        let has_credentials = attempt.username.is_some() || attempt.password.is_some();
        let verdict = if self.methods.is_empty() {
            Verdict::Accept(None, None)
        } else if has_credentials {
            // The same as for a wrong password.
            Verdict::Refuse(Denial::BadCredentials, "no method knows the client".into())
        } else {
            Verdict::Accept(None, None)
        };
        (None, verdict)
    }
}

fn locked_out() -> Verdict {
    Verdict::Refuse(Denial::LockedOut, "too many failures before".into())
}
