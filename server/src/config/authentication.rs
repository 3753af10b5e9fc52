//! `[authentication.NAME]`: ways to tell who a client is, and what they may cost.
//!
//! Each type takes keys of its own; one table holds them all, so that a fault is told with its place.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use access::authentication::{
    Algorithm, CertificateName, EndpointSettings, Guard, HashingLimits, LockoutLimits,
};
use actions::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::Period;

/// One way to tell who a client is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthenticatorConfig {
    /// How.
    #[serde(rename = "type")]
    pub kind: AuthenticatorKind,
    /// `password_file`, `scram`: the file of users.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// `certificate`: where the user name stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<CertificateUsername>,
    /// `jwt`: algorithms of signatures that are accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithms: Option<Vec<JwtAlgorithm>>,
    /// `jwt`: the secret of HMAC algorithms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// `jwt`: whether the secret is written as base64. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_is_base64: Option<bool>,
    /// `jwt`: file of the public key, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// `jwt`: where the set of keys is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// `jwt`: age at which the set of keys is fetched again. Default 1 h, range 1 min to 7 days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_refresh: Option<Period>,
    /// `jwt`: age past which it serves no longer. Default 1 day, range 1 min to 30 days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_max_age: Option<Period>,
    /// `jwt`: where in the CONNECT the token is. Default `password`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<JwtPlace>,
    /// `jwt`: who has to have issued the token. Default: anybody who has the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// `jwt`: for whom the token may be. Default: nobody in particular.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<Vec<String>>,
    /// `jwt`: whether a token has to say when it ends. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require_expiry: Option<bool>,
    /// `jwt`: how far clocks may differ. Default 30 s, range 0 s to 10 min.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leeway: Option<Period>,
    /// `jwt`: claim of the user name. Default `sub`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username_claim: Option<String>,
    /// `jwt`: claim that has to be the Client Identifier. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id_claim: Option<String>,
    /// `jwt`: claim of the groups. Default `groups`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups_claim: Option<String>,
    /// `jwt`: claim of the access rules. Default `acl`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acl_claim: Option<String>,
    /// `http`: the server that is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// `http`: headers of each request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, Secret>>,
    /// `http`: requests at a time. Default 32, range 1 to 1,024.
    #[schemars(range(min = 1, max = 1_024))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u16>,
    /// `http`: how long a client that was let in comes in again without a request. Default 0 s (never), range 0 s to 1 day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_time: Option<Period>,
    /// `jwt`, `http`: CA certificates (PEM) of the server that is asked, instead of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// `jwt`, `http`: whether plain HTTP is fine beyond this machine. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub insecure_http: Option<bool>,
    /// `jwt`, `http`: longest time for a request and its answer. Default 5 s, range 100 ms to 60 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
}

/// An algorithm of a token's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSA PKCS #1 v1.5 with SHA-256.
    Rs256,
    /// RSA PKCS #1 v1.5 with SHA-384.
    Rs384,
    /// RSA PKCS #1 v1.5 with SHA-512.
    Rs512,
    /// RSA PSS with SHA-256.
    Ps256,
    /// RSA PSS with SHA-384.
    Ps384,
    /// RSA PSS with SHA-512.
    Ps512,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// ECDSA with P-384 and SHA-384.
    Es384,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl JwtAlgorithm {
    /// As the method takes it.
    pub fn algorithm(self) -> Algorithm {
        match self {
            Self::Hs256 => Algorithm::Hs256,
            Self::Hs384 => Algorithm::Hs384,
            Self::Hs512 => Algorithm::Hs512,
            Self::Rs256 => Algorithm::Rs256,
            Self::Rs384 => Algorithm::Rs384,
            Self::Rs512 => Algorithm::Rs512,
            Self::Ps256 => Algorithm::Ps256,
            Self::Ps384 => Algorithm::Ps384,
            Self::Ps512 => Algorithm::Ps512,
            Self::Es256 => Algorithm::Es256,
            Self::Es384 => Algorithm::Es384,
            Self::EdDsa => Algorithm::EdDsa,
        }
    }
}

/// Where in a CONNECT a token is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum JwtPlace {
    /// The Password.
    #[default]
    Password,
    /// The User Name.
    Username,
}

/// Where in a certificate the user name stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthenticatorKind {
    /// By user name and password, from a file.
    PasswordFile,
    /// By the certificate that the client shows.
    Certificate,
    /// By a token.
    Jwt,
    /// By asking a server.
    Http,
    /// By SCRAM-SHA-256, an authentication method of MQTT 5, from a file.
    Scram,
}

/// Keys of `jwt` that are not needed.
const JWT_KEYS: &[&str] = &[
    "secret",
    "secret_is_base64",
    "key",
    "jwks_url",
    "jwks_refresh",
    "jwks_max_age",
    "token",
    "issuer",
    "audience",
    "require_expiry",
    "leeway",
    "username_claim",
    "client_id_claim",
    "groups_claim",
    "acl_claim",
    "ca",
    "insecure_http",
    "timeout",
];

impl AuthenticatorKind {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::PasswordFile => "password_file",
            Self::Certificate => "certificate",
            Self::Jwt => "jwt",
            Self::Http => "http",
            Self::Scram => "scram",
        }
    }

    /// Whether clients show what others could use in their place.
    pub(super) fn shows_secrets(self) -> bool {
        match self {
            Self::PasswordFile | Self::Jwt | Self::Http => true,
            Self::Certificate | Self::Scram => false,
        }
    }

    /// The keys that it needs, and those that it may have.
    fn keys(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Self::PasswordFile | Self::Scram => (&["file"], &[]),
            Self::Certificate => (&["username"], &[]),
            Self::Jwt => (&["algorithms"], JWT_KEYS),
            Self::Http => {
                (&["url"], &["headers", "concurrency", "cache_time", "ca", "insecure_http", "timeout"])
            }
        }
    }
}

impl AuthenticatorConfig {
    /// The keys that are there.
    fn given(&self) -> Vec<&'static str> {
        let keys = [
            ("file", self.file.is_some()),
            ("username", self.username.is_some()),
            ("algorithms", self.algorithms.is_some()),
            ("secret", self.secret.is_some()),
            ("secret_is_base64", self.secret_is_base64.is_some()),
            ("key", self.key.is_some()),
            ("jwks_url", self.jwks_url.is_some()),
            ("jwks_refresh", self.jwks_refresh.is_some()),
            ("jwks_max_age", self.jwks_max_age.is_some()),
            ("token", self.token.is_some()),
            ("issuer", self.issuer.is_some()),
            ("audience", self.audience.is_some()),
            ("require_expiry", self.require_expiry.is_some()),
            ("leeway", self.leeway.is_some()),
            ("username_claim", self.username_claim.is_some()),
            ("client_id_claim", self.client_id_claim.is_some()),
            ("groups_claim", self.groups_claim.is_some()),
            ("acl_claim", self.acl_claim.is_some()),
            ("url", self.url.is_some()),
            ("headers", self.headers.is_some()),
            ("concurrency", self.concurrency.is_some()),
            ("cache_time", self.cache_time.is_some()),
            ("ca", self.ca.is_some()),
            ("insecure_http", self.insecure_http.is_some()),
            ("timeout", self.timeout.is_some()),
        ];
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
        missing.chain(foreign).chain(self.out_of_range()).chain(self.faults_of_tokens()).collect()
    }

    fn out_of_range(&self) -> impl Iterator<Item = (Option<&'static str>, String)> {
        let ranges = [
            ("jwks_refresh", self.jwks_refresh, Period::secs(60), Period::days(7)),
            ("jwks_max_age", self.jwks_max_age, Period::secs(60), Period::days(30)),
            ("leeway", self.leeway, Period::ZERO, Period::secs(600)),
            ("cache_time", self.cache_time, Period::ZERO, Period::days(1)),
            ("timeout", self.timeout, Period::millis(100), Period::secs(60)),
        ];
        let periods = ranges.into_iter().filter_map(|(key, value, min, max)| {
            let value = value.filter(|value| *value < min || *value > max)?;
            Some((Some(key), format!("{key} is {value}, must be between {min} and {max}")))
        });
        let concurrency = self.concurrency.filter(|value| !(1..=1_024).contains(value)).map(|value| {
            (Some("concurrency"), format!("concurrency is {value}, must be between 1 and 1024"))
        });
        periods.chain(concurrency)
    }

    /// What the keys about tokens must agree on.
    fn faults_of_tokens(&self) -> Vec<(Option<&'static str>, String)> {
        let mut faults = Vec::new();
        if self.kind != AuthenticatorKind::Jwt {
            return faults;
        }
        let mut fault = |key, problem: &str| faults.push((key, problem.to_owned()));
        let sources = [self.secret.is_some(), self.key.is_some(), self.jwks_url.is_some()];
        if sources.iter().filter(|given| **given).count() != 1 {
            fault(None, "type \"jwt\" needs exactly one of `secret`, `key` and `jwks_url`");
        }
        let algorithms = self.algorithms.as_deref().unwrap_or_default();
        if self.algorithms.is_some() && algorithms.is_empty() {
            fault(Some("algorithms"), "at least one algorithm is needed");
        }
        let with_secrets = algorithms.iter().filter(|algorithm| algorithm.algorithm().is_symmetric()).count();
        if self.secret.is_some() && with_secrets < algorithms.len() {
            fault(Some("algorithms"), "a secret serves HS256, HS384 and HS512 alone");
        }
        if self.secret.is_none() && with_secrets > 0 {
            fault(Some("algorithms"), "HS256, HS384 and HS512 need a secret: a public key is none");
        }
        if self.secret.is_none() && self.secret_is_base64.is_some() {
            fault(Some("secret_is_base64"), "there is no secret");
        }
        let of_sets = ["jwks_refresh", "jwks_max_age", "ca", "insecure_http", "timeout"];
        for key in self.given().into_iter().filter(|key| of_sets.contains(key)) {
            if self.jwks_url.is_none() {
                fault(Some(key), &format!("`{key}` needs `jwks_url`"));
            }
        }
        faults
    }

    /// The server that is asked.
    pub fn endpoint(&self, url: &str, guard: &Guard) -> EndpointSettings {
        EndpointSettings {
            url: url.to_owned(),
            ca: self.ca.clone(),
            insecure_http: self.insecure_http.unwrap_or(false),
            timeout: self.timeout.unwrap_or(Period::secs(5)).as_duration(),
            guard: Some(guard.clone()),
        }
    }

    /// Every path in it.
    pub(super) fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [&mut self.file, &mut self.key, &mut self.ca].into_iter().flatten()
    }
}

/// What telling who clients are may cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
