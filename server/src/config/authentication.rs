//! `[authentication.NAME]`: ways to tell who a client is, and what they may cost.
//!
//! Each type takes keys of its own; one table holds them all, so that a fault is told with its place.

use std::path::PathBuf;
use std::time::Duration;

use access::authentication::{CertificateName, HashingLimits, LockoutLimits};
use serde::{Deserialize, Serialize};

use super::units::Period;

/// One way to tell who a client is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthenticatorConfig {
    /// How.
    #[serde(rename = "type")]
    pub kind: AuthenticatorKind,
    /// `password_file`: the file of users.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// `certificate`: where the user name stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<CertificateUsername>,
}

/// Where in a certificate the user name stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateUsername {
    /// The Common Name of the subject.
    SubjectCn,
    /// The whole subject.
    SubjectDn,
    /// The one DNS name among the alternative names.
    SanDns,
    /// The one e-mail address among the alternative names.
    SanEmail,
    /// The one URI among the alternative names.
    SanUri,
    /// SHA-256 of the certificate.
    Fingerprint,
}

impl CertificateUsername {
    /// As the method takes it.
    pub fn place(self) -> CertificateName {
        match self {
            Self::SubjectCn => CertificateName::SubjectCn,
            Self::SubjectDn => CertificateName::SubjectDn,
            Self::SanDns => CertificateName::SanDns,
            Self::SanEmail => CertificateName::SanEmail,
            Self::SanUri => CertificateName::SanUri,
            Self::Fingerprint => CertificateName::Fingerprint,
        }
    }
}

/// How to tell who a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthenticatorKind {
    /// By user name and password, from a file.
    PasswordFile,
    /// By the certificate that the client shows.
    Certificate,
}

impl AuthenticatorKind {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::PasswordFile => "password_file",
            Self::Certificate => "certificate",
        }
    }

    /// Whether clients show what others could use in their place.
    pub(super) fn shows_secrets(self) -> bool {
        match self {
            Self::PasswordFile => true,
            Self::Certificate => false,
        }
    }

    /// The keys that it needs, and those that it may have.
    fn keys(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Self::PasswordFile => (&["file"], &[]),
            Self::Certificate => (&["username"], &[]),
        }
    }
}

impl AuthenticatorConfig {
    /// The keys that are there.
    fn given(&self) -> Vec<&'static str> {
        let keys = [("file", self.file.is_some()), ("username", self.username.is_some())];
        keys.into_iter().filter(|(_, given)| *given).map(|(key, _)| key).collect()
    }

    /// What is wrong with it: the key, or none for the whole, and in what way.
    pub(super) fn faults(&self) -> Vec<(Option<&'static str>, String)> {
        let (needed, allowed) = self.kind.keys();
        let kind = self.kind.name();
        let given = self.given();
        let missing = needed.iter().filter(|key| !given.contains(key));
        let missing = missing.map(|key| (None, format!("type \"{kind}\" needs the key `{key}`")));
        let foreign = given.iter().filter(|key| !needed.contains(key) && !allowed.contains(key));
        let foreign = foreign.map(|key| (Some(*key), format!("type \"{kind}\" has no key `{key}`")));
        missing.chain(foreign).collect()
    }

    /// Every path in it.
    pub(super) fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.file.iter_mut()
    }
}

/// What telling who clients are may cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthenticationLimits {
    /// Passwords hashed at a time. Default 0 (half of the cores), range 0 to 1,024.
    pub concurrent_hashes: u16,
    /// Passwords that wait for it. Default 4,096, range 1 to 1,000,000.
    pub queued_hashes: u32,
    /// Right passwords that are remembered. Default 10,000, range 0 (none) to 10,000,000.
    pub cached_passwords: u32,
    /// How long. Default 5 min, range 1 s to 1 day.
    pub cached_password_time: Period,
}

impl Default for AuthenticationLimits {
    fn default() -> Self {
        Self {
            concurrent_hashes: 0,
            queued_hashes: 4_096,
            cached_passwords: 10_000,
            cached_password_time: Period::secs(300),
        }
    }
}

impl AuthenticationLimits {
    /// As the hashing takes them.
    pub fn hashing(&self) -> HashingLimits {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let concurrent = match self.concurrent_hashes {
            0 => (cores / 2).max(1),
            some => usize::from(some),
        };
        HashingLimits {
            concurrent,
            queued: usize::try_from(self.queued_hashes).unwrap_or(usize::MAX),
            cached: usize::try_from(self.cached_passwords).unwrap_or(usize::MAX),
            cached_for: self.cached_password_time.as_duration(),
        }
    }
}

/// When somebody who fails has to wait, and how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LockoutConfig {
    /// Failures of one address without a wait. Default 20, range 0 (any number) to 1,000,000.
    pub failures_per_address: u32,
    /// Failures under one user name without a wait. Default 10, range 0 (any number) to 1,000,000.
    pub failures_per_user: u32,
    /// The first wait; each further failure doubles it. Default 1 s, range 100 ms to 1 hour.
    pub first_wait: Period,
    /// The longest wait. Default 5 min, range 1 s to 1 day.
    pub longest_wait: Period,
    /// Time after which failures are forgotten. Default 15 min, range 1 s to 30 days.
    pub forget_after: Period,
    /// Addresses, and user names, that are remembered. Default 10,000, range 16 to 10,000,000.
    pub remembered: u32,
}

impl Default for LockoutConfig {
    fn default() -> Self {
        Self {
            failures_per_address: 20,
            failures_per_user: 10,
            first_wait: Period::secs(1),
            longest_wait: Period::secs(300),
            forget_after: Period::secs(900),
            remembered: 10_000,
        }
    }
}

impl LockoutConfig {
    /// As the lockout takes them.
    pub fn limits(&self) -> LockoutLimits {
        let duration = |period: Period| -> Duration { period.as_duration() };
        LockoutLimits {
            failures_per_address: self.failures_per_address,
            failures_per_user: self.failures_per_user,
            first_wait: duration(self.first_wait),
            longest_wait: duration(self.longest_wait),
            forget_after: duration(self.forget_after),
            remembered: usize::try_from(self.remembered).unwrap_or(usize::MAX),
        }
    }
}
