//! Who a client is.
//!
//! Each listener has a [`Chain`] of methods. A method says of an attempt that it is not its business, that the client is
//! who it says, or that it is not; the first that is decisive wins. A method that can't decide, because something is broken
//! or can't be reached, denies. What a client is told never depends on whether a user exists.

pub(crate) mod asker;
mod cache;
mod certificate;
mod chain;
mod describe;
pub(crate) mod fetch;
mod hashing;
mod http;
mod jwt;
mod lockout;
mod password_file;
mod scram;
#[cfg(test)]
pub(crate) mod test_server;
mod users;
mod verifier;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use mqtt_protocol::ProtocolVersion;

pub use asker::AskerError;
pub use certificate::{Certificate, CertificateName};
pub use chain::{Chain, Counters, CountersSnapshot, Exchange, Method, Named, Verdict};
pub use describe::CertificateSummary;
pub use fetch::{EndpointError, EndpointSettings, Guard};
pub use hashing::{Hashing, HashingLimits, Overloaded};
pub use http::{Http, HttpError, HttpSettings};
pub use jwt::{Algorithm, Jwt, JwtError, JwtSettings, KeyError, KeySetSettings, KeySource, TokenPlace};
pub use lockout::{Lockout, LockoutLimits};
pub use password_file::PasswordFile;
pub use scram::Scram;
pub use users::{Change, LineFault, UsersError, UsersFile, edit, users_in};
pub use verifier::{HashError, argon2id, is_argon2id, scram_sha_256};

/// What a client shows when it connects or authenticates again.
#[derive(Clone)]
pub struct Attempt {
    /// Client Identifier.
    pub client_id: Box<str>,
    /// User Name.
    pub username: Option<Box<str>>,
    /// Password.
    pub password: Option<Box<[u8]>>,
    /// Authentication Method and data of MQTT 5 enhanced authentication.
    pub enhanced: Option<(Box<str>, Box<[u8]>)>,
    /// The certificate that the client showed and whose key it holds, DER.
    pub certificate: Option<Arc<[u8]>>,
    /// Address of the client; `None`: it came by a Unix socket.
    pub address: Option<IpAddr>,
    /// Listener that it came by.
    pub listener: Arc<str>,
    /// Version of the protocol.
    pub version: ProtocolVersion,
}

impl fmt::Debug for Attempt {
    /// Says nothing of what is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .field("address", &self.address)
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

/// Who a client turned out to be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// Its user name, proven.
    pub username: Option<Box<str>>,
    /// Groups that it belongs to.
    pub groups: Box<[Arc<str>]>,
    /// When its right to be here ends, in milliseconds of wall time since the epoch.
    pub expires_at_ms: Option<i64>,
    /// Access rules that it brings with it, as they came.
    pub acl: Option<serde_json::Value>,
}

/// What a method says of an attempt.
#[derive(Debug)]
pub enum Outcome {
    /// It is not this method's business.
    Ignore,
    /// The client is who it says. The bytes are the last Authentication Data for it.
    Allow(Identity, Option<Box<[u8]>>),
    /// The client isn't who it says, or nobody can tell.
    Deny(Denial, Box<str>),
}

/// Why a client is denied, as far as it may know. The text beside it is for the log alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Denial {
    /// Its credentials are wrong.
    BadCredentials,
    /// Its credentials prove who it is, and that one may not come in; or it has none that count.
    NotAuthorized,
    /// It named an authentication method that isn't offered.
    BadMethod,
    /// Nobody can tell at the moment.
    Unavailable,
    /// There were too many failures.
    LockedOut,
}

impl Denial {
    /// Its name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadCredentials => "bad_credentials",
            Self::NotAuthorized => "not_authorized",
            Self::BadMethod => "bad_method",
            Self::Unavailable => "unavailable",
            Self::LockedOut => "locked_out",
        }
    }
}
