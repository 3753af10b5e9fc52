//! Who asks, and what they may: users with passwords, tokens for programs, sessions of browsers.
//!
//! - A user has a role; a token has one too, and may be held to scopes. Both are declared in the configuration or kept in
//!   `directory`, never in both under one name.
//! - What proves somebody (a token, a session, the setup token) is 32 random bytes. Only its SHA-256 is kept, and it is
//!   looked up by that, so how long a look-up takes says nothing of the secret. Passwords are kept as Argon2id.
//! - Whoever comes by the administration socket owns the gateway, and needs no proof.
//! - A cookie is sent by the browser whoever's page asks, so a change by a session needs the session's CSRF token in a header too.
//! - An answer never depends on whether a user exists; whoever fails too often waits.

pub(super) mod account;
pub(super) mod directory;
mod secret;
mod sessions;
mod setup;

use std::net::IpAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use access::authentication::{Hashing, HashingLimits, Lockout, LockoutLimits};
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, COOKIE, HeaderName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use utoipa::ToSchema;

use super::problem::{Kind, Problem};
use super::serve::Peer;
use crate::config::Admin;
use directory::Directory;
pub(super) use directory::{DirectoryError, write_file};
pub(crate) use secret::Digest;
pub(super) use secret::random;
use sessions::Sessions;
pub use setup::SETUP_TOKEN_AGE_MAX;
use setup::Setup;

/// Name of the cookie of a session.
const COOKIE_NAME: &str = "tidegate_session";
/// Header that holds the CSRF token of a session.
pub(super) const CSRF_HEADER: HeaderName = HeaderName::from_static("x-csrf-token");
/// Passwords of the interface that wait to be checked.
const PASSWORDS_WAITING_MAX: usize = 32;

/// What somebody may do: each role may do what those before it may.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    Viewer,
    /// Look, and run the gateway: clients, messages, dead letters, rules.
    Operator,
    /// Everything, users and tokens too.
    Admin,
}

impl Role {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// What a token may be held to, beside its role: an area, and whether it may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) area: &'static str,
    pub(super) writes: bool,
}

/// The areas that scopes are about.
pub(super) const AREAS: [&str; 13] = [
    "acl",
    "actions",
    "audit",
    "backup",
    "clients",
    "config",
    "connectors",
    "dead_letters",
    "messages",
    "metrics",
    "rules",
    "server",
    "users",
];

/// Whether the text names a scope: `clients:read`, `clients:write`.
pub(crate) fn is_scope(text: &str) -> bool {
    Scope::parse(text).is_some()
}

impl Scope {
    fn parse(text: &str) -> Option<Self> {
        let (area, verb) = text.split_once(':')?;
        let area = AREAS.into_iter().find(|known| *known == area)?;
        let writes = match verb {
            "read" => false,
            "write" => true,
            _ => return None,
        };
        Some(Self { area, writes })
    }

    /// Whether one of the granted scopes is enough; who may write may read.
    fn is_in(self, granted: &[String]) -> bool {
        granted.iter().any(|granted| {
            granted.split_once(':').is_some_and(|(area, verb)| {
                area == self.area && (verb == "write" || (verb == "read" && !self.writes))
            })
        })
    }
}

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(super) name: String,
    pub(super) role: Role,
    /// `None`: whatever the role may.
    pub(super) scopes: Option<Vec<String>>,
    pub(super) by: By,
}

/// How the caller proved who it is.
#[derive(Debug, Clone)]
pub(super) enum By {
    /// By a token.
    Token,
    /// By the cookie of a session: its digest and its CSRF token.
    Session(Digest, String),
    /// By the administration socket.
    Socket,
}

impl Caller {
    /// Whether the caller may, and if not, why not.
    pub(super) fn may(&self, role: Role, scope: Scope) -> Result<(), Problem> {
        if self.role < role {
            let detail =
                format!("it takes the role {}, and {} has {}", role.name(), self.name, self.role.name());
            return Err(Problem::new(Kind::Forbidden, detail));
        }
        if self.scopes.as_deref().is_some_and(|granted| !scope.is_in(granted)) {
            let verb = if scope.writes { "write" } else { "read" };
            let detail = format!("it takes the scope {}:{verb}, which the token hasn't got", scope.area);
            return Err(Problem::new(Kind::Forbidden, detail));
        }
        Ok(())
    }

    /// Whoever makes a user gives everything that the user's role may, which a token that is held to scopes hasn't got itself.
    pub(super) fn must_be_unscoped(&self) -> Result<(), Problem> {
        match self.scopes {
            None => Ok(()),
            Some(_) => {
                let detail = "a token that is held to scopes can't give a user more than it has itself";
                Err(Problem::new(Kind::Forbidden, detail))
            }
        }
    }

    /// Whether a token of these scopes has no more than the caller.
    pub(super) fn may_grant(&self, scopes: Option<&[String]>) -> Result<(), Problem> {
        let Some(held) = &self.scopes else { return Ok(()) };
        let is_held = |granted: &String| Scope::parse(granted).is_some_and(|scope| scope.is_in(held));
        if scopes.is_some_and(|scopes| scopes.iter().all(is_held)) {
            return Ok(());
        }
        let detail = format!("a token may get the scopes of the one that makes it: {}", held.join(", "));
        Err(Problem::new(Kind::Forbidden, detail))
    }

    /// A change by a session needs the session's own token in a header.
    pub(super) fn check_csrf(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let By::Session(_, expected) = &self.by else { return Ok(()) };
        let given = headers.get(CSRF_HEADER).map_or(&b""[..], |value| value.as_bytes());
        if bool::from(given.ct_eq(expected.as_bytes())) {
            return Ok(());
        }
        Err(Problem::new(Kind::Csrf, "a change by a session takes its csrf_token in the header X-CSRF-Token"))
    }
}

/// Everything about who asks.
#[derive(Debug)]
pub(crate) struct Auth {
    pub(super) directory: Directory,
    sessions: Sessions,
    setup: Setup,
    hashing: Hashing,
    lockout: Lockout,
}

impl Auth {
    /// Reads who there is. Without a data directory everything is kept in memory.
    pub(super) fn open(config: &Admin, data_dir: Option<&Path>) -> Result<Self, DirectoryError> {
        let limits = HashingLimits { queued: PASSWORDS_WAITING_MAX, cached: 0, ..HashingLimits::default() };
        let lockout = LockoutLimits { failures_per_user: 5, ..LockoutLimits::default() };
        let hashing = Hashing::new(limits).map_err(|_| DirectoryError::NoRandomness)?;
        Ok(Self {
            directory: Directory::open(config, data_dir)?,
            sessions: Sessions::default(),
            setup: Setup::new(data_dir),
            hashing,
            lockout: Lockout::new(lockout),
        })
    }

    /// Makes a setup token, with which an administrator can be made, and voids the one before.
    pub(super) fn make_setup_token(&self) -> Result<String, DirectoryError> {
        self.setup.make()
    }

    /// Who asks; `None`: nobody says so.
    pub(super) fn caller(&self, headers: &HeaderMap, peer: Option<Peer>) -> Result<Option<Caller>, Problem> {
        self.known(headers, peer, Sessions::find)
    }

    /// Who asked, if that still holds. It isn't a request: a session that is silent stays so.
    pub(super) fn still(&self, headers: &HeaderMap, peer: Option<Peer>) -> Option<Caller> {
        self.known(headers, peer, Sessions::look).ok().flatten()
    }

    fn known(
        &self,
        headers: &HeaderMap,
        peer: Option<Peer>,
        find: fn(&Sessions, &Digest) -> Option<sessions::Session>,
    ) -> Result<Option<Caller>, Problem> {
        if let Some(peer @ Peer::Owner(_)) = peer {
            let name = peer.to_string();
            return Ok(Some(Caller { name, role: Role::Admin, scopes: None, by: By::Socket }));
        }
        let unknown =
            || Problem::new(Kind::Unauthenticated, "the token or session isn't known, or its time is over");
        if let Some(authorization) = headers.get(AUTHORIZATION) {
            let text = authorization.to_str().ok();
            let token = text
                .and_then(|text| text.split_once(' '))
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            let (_, token) = token.ok_or_else(|| {
                Problem::new(Kind::Unauthenticated, "expected a token: Authorization: Bearer …")
            })?;
            return self.directory.token(&Digest::of(token.trim()), now_ms()).map(Some).ok_or_else(unknown);
        }
        let Some(secret) = cookie(headers) else { return Ok(None) };
        let digest = Digest::of(secret);
        let session = find(&self.sessions, &digest).ok_or_else(unknown)?;
        // As the user is now, not as it was at the sign-in.
        let user = self.directory.user(&session.user).filter(|user| user.stamp == session.stamp);
        let Some(user) = user else {
            self.sessions.end(&digest);
            return Err(unknown());
        };
        let by = By::Session(digest, session.csrf);
        Ok(Some(Caller { name: session.user, role: user.role, scopes: None, by }))
    }

    /// Checks a name and a password.
    async fn sign_in(
        &self,
        name: &str,
        password: &str,
        address: Option<IpAddr>,
    ) -> Result<directory::KnownUser, Problem> {
        if let Some(wait) = self.lockout.wait(address, Some(name)) {
            let seconds = wait.as_secs() + 1;
            let problem = Problem::new(Kind::LockedOut, "too many failures: try again later");
            return Err(problem.retry_after(seconds));
        }
        let user = self.directory.user(name);
        let kept = user.as_ref().map(|user| &*user.password);
        let is_right = self.hashing.check(name, password.as_bytes(), kept).await;
        let is_right = is_right.map_err(|error| Problem::new(Kind::Unavailable, error.to_string()))?;
        match user.filter(|_| is_right) {
            Some(user) => {
                self.lockout.succeeded(address, Some(name));
                Ok(user)
            }
            None => {
                self.lockout.failed(address, Some(name));
                Err(Problem::new(Kind::Unauthenticated, "the name or the password is wrong"))
            }
        }
    }

    pub(super) async fn hash(&self, password: &str) -> Result<String, Problem> {
        let hash = self.hashing.hash(password.as_bytes()).await;
        hash.map_err(|error| Problem::new(Kind::Unavailable, error.to_string()))
    }
}

/// The secret of the session's cookie.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE_NAME).then_some(value))
}

/// Milliseconds since the epoch.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The answer of a caller who has to prove who it is.
pub(super) fn unauthenticated() -> Problem {
    Problem::new(Kind::Unauthenticated, "sign in, or send a token")
}
