//! JSON Web Tokens (RFC 7519, RFC 7515) in the place of a password.
//!
//! What is accepted is fixed by the configuration: the algorithms, the keys, who issued the token and for whom. The header of a
//! token chooses among that and adds nothing. A token that is none is another method's business; one that doesn't hold is refused.

mod key;
mod key_set;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

pub use key::{Algorithm, KeyError};
pub use key_set::KeySetSettings;

use super::fetch::EndpointError;
use super::{Attempt, Denial, Identity, Outcome};
use key::Key;
use key_set::{KeySet, NoKeys};

/// Largest token, in bytes.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Longest user name, and longest name of a group, in bytes.
const NAME_BYTES_MAX: usize = 1024;
/// Most groups of a token.
const GROUPS_MAX: usize = 256;

/// Why tokens can't be checked as configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JwtError {
    /// The key can't be used.
    #[error("the key can't be used")]
    Key(#[source] KeyError),
    /// The server of the keys can't be asked.
    #[error("the keys can't be fetched")]
    KeySet(#[source] EndpointError),
}

/// Where keys come from.
#[derive(Clone)]
pub enum KeySource {
    /// A secret that both sides have.
    Secret(Box<[u8]>),
    /// A public key or certificate, PEM.
    Public(Vec<u8>),
    /// A set behind a URL.
    Set(KeySetSettings),
}

impl std::fmt::Debug for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret",
            Self::Public(_) => "Public",
            Self::Set(_) => "Set",
        })
    }
}

/// Where in a CONNECT the token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenPlace {
    /// The Password; the User Name may be anything.
    Password,
    /// The User Name.
    Username,
}

/// What a token has to be like.
#[derive(Debug, Clone)]
pub struct JwtSettings {
    /// Algorithms that are accepted.
    pub algorithms: Vec<Algorithm>,
    /// The keys.
    pub keys: KeySource,
    /// Where the token is.
    pub place: TokenPlace,
    /// Who has to have issued it; `None`: anybody who has the key.
    pub issuer: Option<String>,
    /// For whom it may be. Without any a token that is for somebody is refused.
    pub audience: Vec<String>,
    /// Whether it has to say when it ends.
    pub needs_expiry: bool,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// Claim of the user name.
    pub username_claim: String,
    /// Claim that has to be the Client Identifier; `None`: the token is good for any.
    pub client_id_claim: Option<String>,
    /// Claim of the groups.
    pub groups_claim: String,
    /// Claim of the access rules.
    pub acl_claim: String,
}

/// See the module.
pub struct Jwt {
    settings: JwtSettings,
    keys: Keys,
}

enum Keys {
    One(Key),
    Set(Box<KeySet>),
}

impl std::fmt::Debug for Jwt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jwt").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A token in its parts, not checked yet.
struct Token<'t> {
    /// Header and payload as they are signed.
    signed: &'t [u8],
    header: Map<String, Value>,
    payload: &'t str,
    signature: Vec<u8>,
}

impl<'t> Token<'t> {
    /// Takes a token apart; `None`: it is none.
    fn split(text: &'t str) -> Option<Self> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        if payload.contains('.') {
            return None;
        }
        let header = match serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?) {
            Ok(Value::Object(header)) => header,
            _ => return None,
        };
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        Some(Self { signed: signed.as_bytes(), header, payload, signature })
    }
}

impl Jwt {
    /// Makes one.
    ///
    /// # Errors
    /// [`JwtError`].
    pub fn new(settings: JwtSettings) -> Result<Self, JwtError> {
        let keys = match &settings.keys {
            KeySource::Secret(secret) => {
                Keys::One(Key::secret(secret, &settings.algorithms).map_err(JwtError::Key)?)
            }
            KeySource::Public(pem) => {
                Keys::One(Key::public(pem, &settings.algorithms).map_err(JwtError::Key)?)
            }
            KeySource::Set(set) => Keys::Set(Box::new(KeySet::new(set.clone()).map_err(JwtError::KeySet)?)),
        };
        Ok(Self { settings, keys })
    }

    pub(crate) async fn authenticate(&self, attempt: &Attempt) -> Outcome {
        let text = match self.settings.place {
            TokenPlace::Password => {
                attempt.password.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok())
            }
            TokenPlace::Username => attempt.username.as_deref(),
        };
        let Some(token) = text.filter(|text| text.len() <= TOKEN_BYTES_MAX).and_then(Token::split) else {
            return Outcome::Ignore;
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        match self.check(&token, &attempt.client_id, now).await {
            Ok(identity) => Outcome::Allow(identity, None),
            Err((denial, why)) => Outcome::Deny(denial, why.into()),
        }
    }

    async fn check(
        &self,
        token: &Token<'_>,
        client_id: &str,
        now: Duration,
    ) -> Result<Identity, (Denial, &'static str)> {
        let bad = |why| (Denial::BadCredentials, why);
        let text = |key| token.header.get(key).and_then(Value::as_str);
        let algorithm =
            text("alg").and_then(Algorithm::of_name).ok_or(bad("the token's algorithm is not known"))?;
        if !self.settings.algorithms.contains(&algorithm) {
            return Err(bad("the token's algorithm is not allowed"));
        }
        // What has to be understood and isn't (RFC 7515 §4.1.11).
        if token.header.contains_key("crit") {
            return Err(bad("the token has extensions that are not understood"));
        }
        let is_signed = match &self.keys {
            Keys::One(key) => key.verify(algorithm, token.signed, &token.signature),
            Keys::Set(set) => {
                let found = set.verify(text("kid"), algorithm, token.signed, &token.signature).await;
                found.map_err(|NoKeys| (Denial::Unavailable, "the keys of tokens can't be had"))?
            }
        };
        if !is_signed {
            return Err(bad("the token's signature is not of a key that is trusted"));
        }
        let payload = URL_SAFE_NO_PAD.decode(token.payload).ok();
        let claims = payload.and_then(|payload| serde_json::from_slice::<Value>(&payload).ok());
        let Some(Value::Object(claims)) = claims else {
            return Err(bad("the token's claims are not understood"));
        };
        self.check_claims(claims, client_id, now).map_err(bad)
    }

    fn check_claims(
        &self,
        mut claims: Map<String, Value>,
        client_id: &str,
        now: Duration,
    ) -> Result<Identity, &'static str> {
        let settings = &self.settings;
        let (now, leeway) = (now.as_secs_f64(), settings.leeway.as_secs_f64());
        let expires_at = match claims.get("exp") {
            None if settings.needs_expiry => return Err("the token doesn't say when it ends"),
            None => None,
            Some(at) => Some(at.as_f64().ok_or("the token's end is no time")? + leeway),
        };
        if expires_at.is_some_and(|at| at <= now) {
            return Err("the token has ended");
        }
        if let Some(from) = claims.get("nbf")
            && from.as_f64().ok_or("the token's beginning is no time")? - leeway > now
        {
            return Err("the token's time hasn't come");
        }
        if let Some(issuer) = &settings.issuer
            && claims.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return Err("the token is of another issuer");
        }
        if !is_for(claims.get("aud"), &settings.audience) {
            return Err("the token is for somebody else");
        }
        if let Some(claim) = &settings.client_id_claim
            && claims.get(claim).and_then(Value::as_str) != Some(client_id)
        {
            return Err("the token is for another Client Identifier");
        }
        let username = claims.get(&settings.username_claim).and_then(Value::as_str);
        let username = username.filter(|name| is_name(name)).ok_or("the token names no user")?.into();
        let groups =
            groups_of(claims.get(&settings.groups_claim)).ok_or("the token's groups are no list of names")?;
        Ok(Identity {
            username: Some(username),
            groups,
            expires_at_ms: expires_at.map(milliseconds),
            acl: claims.remove(&settings.acl_claim),
        })
    }
}

/// Whether a token is for one of ours (RFC 7519 §4.1.3): one that is for somebody is for nobody else.
fn is_for(claim: Option<&Value>, ours: &[String]) -> bool {
    let is_ours = |name: &Value| name.as_str().is_some_and(|name| ours.iter().any(|our| our == name));
    match claim {
        None => ours.is_empty(),
        Some(Value::Array(names)) => names.iter().any(is_ours),
        Some(name) => is_ours(name),
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains(char::is_control)
}

fn groups_of(claim: Option<&Value>) -> Option<Box<[Arc<str>]>> {
    match claim {
        None => Some(Box::default()),
        Some(Value::Array(names)) if names.len() <= GROUPS_MAX => {
            names.iter().map(|name| name.as_str().filter(|name| is_name(name)).map(Into::into)).collect()
        }
        Some(_) => None,
    }
}

/// Seconds as milliseconds; what is too far away is as far as can be said.
fn milliseconds(seconds: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "a cast of a float saturates")]
    let milliseconds = (seconds * 1000.0) as i64;
    milliseconds
}

#[cfg(test)]
mod tests;
