//! A set of keys behind a URL (RFC 7517), kept for a while.
//!
//! The set is fetched when a token needs it: when there is none, when it is old, and when a token names a key that isn't in it, since
//! that may be a new one. Tokens with invented names must not make us ask all the time, so there is a pause between two requests. When
//! the server can't be reached, the keys of before serve on for a while; then nobody comes in.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::key::{Algorithm, Jwk, Key};
use crate::authentication::fetch::{Endpoint, EndpointError, EndpointSettings};

/// Largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Most keys of a set that are looked at.
const KEYS_MAX: usize = 64;
/// Shortest time between two requests.
const PAUSE: Duration = Duration::from_secs(60);
/// Shortest time between two requests while there is no key at all.
const PAUSE_WITHOUT_KEYS: Duration = Duration::from_secs(5);

/// Where keys come from and how long they serve.
#[derive(Debug, Clone)]
pub struct KeySetSettings {
    /// Where the set is.
    pub endpoint: EndpointSettings,
    /// Age at which the set is fetched again.
    pub refresh_after: Duration,
    /// Age past which it serves no longer.
    pub max_age: Duration,
}

/// See the module.
#[derive(Debug)]
pub(super) struct KeySet {
    settings: KeySetSettings,
    endpoint: Endpoint,
    fetched: ArcSwapOption<Fetched>,
    /// When the last request began. Whoever holds it asks.
    asked: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Fetched {
    keys: Vec<SetKey>,
    at: Instant,
}

#[derive(Debug)]
struct SetKey {
    id: Option<Box<str>>,
    key: Key,
    algorithm: Option<Algorithm>,
}

#[derive(Deserialize)]
struct Answer {
    // One key of a kind that isn't understood must not spoil the others.
    keys: Vec<serde_json::Value>,
}

/// No keys can be had.
#[derive(Debug)]
pub(super) struct NoKeys;

impl KeySet {
    pub(super) fn new(settings: KeySetSettings) -> Result<Self, EndpointError> {
        let endpoint = Endpoint::new(&settings.endpoint)?;
        Ok(Self { settings, endpoint, fetched: ArcSwapOption::empty(), asked: Mutex::new(None) })
    }

    /// Whether a key of the set made the signature.
    pub(super) async fn verify(
        &self,
        key_id: Option<&str>,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<bool, NoKeys> {
        let is_there = self.usable().is_some_and(|fetched| fetched.has(key_id, algorithm));
        let is_old = self
            .fetched
            .load()
            .as_ref()
            .is_none_or(|fetched| fetched.at.elapsed() >= self.settings.refresh_after);
        if !is_there || is_old {
            self.fetch().await;
        }
        let fetched = self.usable().ok_or(NoKeys)?;
        Ok(fetched.candidates(key_id, algorithm).any(|key| key.key.verify(algorithm, message, signature)))
    }

    fn usable(&self) -> Option<Arc<Fetched>> {
        self.fetched.load_full().filter(|fetched| fetched.at.elapsed() < self.settings.max_age)
    }

    /// Asks for the set, unless somebody just did.
    async fn fetch(&self) {
        let mut asked = self.asked.lock().await;
        let pause = if self.usable().is_some() { PAUSE } else { PAUSE_WITHOUT_KEYS };
        if asked.is_some_and(|at| at.elapsed() < pause) {
            return;
        }
        *asked = Some(Instant::now());
        let answer = self.endpoint.ask(Method::GET, HeaderMap::new(), Vec::new(), ANSWER_BYTES_MAX).await;
        let keys = match answer {
            Ok(answer) => keys_of(&answer),
            Err(error) => {
                tracing::warn!(%error, "the keys of tokens could not be fetched");
                return;
            }
        };
        if keys.is_empty() {
            tracing::warn!("the set of keys of tokens has none that can be used");
            return;
        }
        self.fetched.store(Some(Arc::new(Fetched { keys, at: Instant::now() })));
    }
}

impl Fetched {
    fn candidates(&self, key_id: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &SetKey> {
        self.keys.iter().filter(move |key| {
            key_id.is_none_or(|id| key.id.as_deref() == Some(id))
                && key.key.fits(algorithm)
                && key.algorithm.is_none_or(|only| only == algorithm)
        })
    }

    fn has(&self, key_id: Option<&str>, algorithm: Algorithm) -> bool {
        self.candidates(key_id, algorithm).next().is_some()
    }
}

fn keys_of(answer: &[u8]) -> Vec<SetKey> {
    let Ok(answer) = serde_json::from_slice::<Answer>(answer) else { return Vec::new() };
    let known = answer.keys.into_iter().take(KEYS_MAX).filter_map(|key| {
        let jwk: Jwk = serde_json::from_value(key).ok()?;
        let (key, algorithm) = jwk.key()?;
        Some(SetKey { id: jwk.kid.map(Into::into), key, algorithm })
    });
    known.collect()
}
