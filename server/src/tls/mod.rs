//! The certificates of listeners and of the administration interface: read, judged whole, and read again when their files change.
//!
//! Files are looked at every few seconds, through symbolic links, so that a certificate manager needs to tell nobody. A
//! change is taken when it has stayed the same from one look to the next, so that a key isn't read without its
//! certificate. What doesn't hold together is refused, with an error in the log, and what was there stays. Connections that
//! are open notice nothing.

mod setup;
mod validity;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use broker::TlsSetup;
use parking_lot::Mutex;
use tracing::{error, info, warn};

use self::setup::{Made, make};
use crate::config::{Config, ListenerKind, ListenerTls};
use crate::stamp::Stamp;

/// How often files are looked at for changes.
const LOOK: Duration = Duration::from_secs(2);
/// Days before the end of a certificate at which a warning is logged, and at each of the next ones again.
const WARNING_DAYS: [i64; 3] = [30, 7, 1];
const DAY_S: i64 = 24 * 3600;

/// Why a listener's certificates can't be used. No secret is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {key} \"{}\": {problem}", path.display())]
pub struct TlsError {
    /// Whose certificates: a listener, or `[admin]`.
    pub place: String,
    /// The key of the configuration that names the file.
    pub key: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub problem: String,
}

/// The certificates of all listeners, and of the administration interface.
#[derive(Debug, Default)]
pub struct Certificates {
    /// By place, as errors name it.
    places: Mutex<BTreeMap<String, Arc<Watched>>>,
}

/// Whose certificates: the place of the administration interface.
const ADMIN: &str = "[admin]";

fn place_of(listener: &str) -> String {
    format!("listener \"{listener}\"")
}

/// The certificates of one place.
#[derive(Debug)]
struct Watched {
    kind: ListenerKind,
    config: ListenerTls,
    setup: TlsSetup,
    seen: Mutex<Seen>,
}

/// Certificates that were read and found good, for places that there are to be.
#[derive(Debug)]
pub struct Prepared {
    places: BTreeMap<String, Fresh>,
}

/// The same of one place.
#[derive(Debug)]
struct Fresh {
    watched: Arc<Watched>,
    /// What it is to show and trust from then on, with the time at which it expires; where it is open already and something
    /// has changed.
    replaces: Option<(Arc<rustls::ServerConfig>, i64)>,
}

impl Prepared {
    /// What a listener that isn't open yet is to show and trust.
    pub fn setup(&self, listener: &str) -> Option<TlsSetup> {
        self.places.get(&place_of(listener)).map(|fresh| fresh.watched.setup.clone())
    }
}

/// What was seen of its files, and said of its certificate.
#[derive(Debug)]
struct Seen {
    /// The files that are in use.
    used: Vec<Stamp>,
    /// The files that are in use, or that were refused.
    judged: Vec<Stamp>,
    /// The files at the last look.
    last: Vec<Stamp>,
    /// How many of [`WARNING_DAYS`] have been warned of, the end itself included.
    warnings: usize,
}

fn stamps(config: &ListenerTls) -> Vec<Stamp> {
    config.files().map(|path| Stamp::of(path)).collect()
}

impl Certificates {
    /// Reads and judges the certificates of every place that has some.
    ///
    /// # Errors
    /// Every fault.
    pub fn load(config: &Config) -> Result<Self, Vec<TlsError>> {
        let certificates = Self::default();
        certificates.apply(certificates.prepare(config)?);
        Ok(certificates)
    }

    /// Reads and judges the certificates of every place that has some, without any effect yet.
    ///
    /// # Errors
    /// Every fault.
    pub fn prepare(&self, config: &Config) -> Result<Prepared, Vec<TlsError>> {
        let of_listeners = config
            .listeners
            .iter()
            .filter_map(|listener| Some((place_of(&listener.name), listener.kind, listener.tls.as_ref()?)));
        // What is spoken inside is HTTP there, as it is for WebSocket.
        let admin = config.admin.tls.as_ref().map(|tls| (ADMIN.to_owned(), ListenerKind::Wss, tls));
        let mut places = BTreeMap::new();
        let mut faults = Vec::new();
        for (place, kind, config) in of_listeners.chain(admin) {
            let files = stamps(config);
            let open = self.places.lock().get(&place).cloned();
            if let Some(open) = open.as_ref().filter(|open| open.uses(kind, config, &files)) {
                let fresh = Fresh { watched: Arc::clone(open), replaces: None };
                places.insert(place, fresh);
                continue;
            }
            match make(&place, kind, config, now_s()) {
                Ok(Made { config: made, expires_at_s }) => {
                    let replaces = open.is_some().then(|| (Arc::clone(&made), expires_at_s));
                    let setup = open.map(|open| open.setup.clone());
                    let seen = Seen { used: files.clone(), judged: files.clone(), last: files, warnings: 0 };
                    let watched = Arc::new(Watched {
                        kind,
                        config: config.clone(),
                        setup: setup.unwrap_or_else(|| TlsSetup::new(made, Some(expires_at_s))),
                        seen: Mutex::new(seen),
                    });
                    places.insert(place, Fresh { watched, replaces });
                }
                Err(fault) => faults.push(fault),
            }
        }
        if faults.is_empty() { Ok(Prepared { places }) } else { Err(faults) }
    }

    /// Puts what was prepared in place of what is there. Connections that are open notice nothing.
    pub fn apply(&self, prepared: Prepared) {
        let mut places = BTreeMap::new();
        for (place, Fresh { watched, replaces }) in prepared.places {
            if let Some((config, expires_at_s)) = replaces {
                watched.setup.replace(config, Some(expires_at_s));
                told(&place, expires_at_s);
            }
            watched.warn_of_end(&place, now_s());
            places.insert(place, watched);
        }
        *self.places.lock() = places;
    }

    /// What a listener shows and trusts.
    pub fn setup(&self, listener: &str) -> Option<TlsSetup> {
        self.places.lock().get(&place_of(listener)).map(|watched| watched.setup.clone())
    }

    /// What the administration interface shows and trusts.
    pub fn admin(&self) -> Option<TlsSetup> {
        self.places.lock().get(ADMIN).map(|watched| watched.setup.clone())
    }

    /// Looks at the files from time to time, for as long as the certificates are kept.
    pub fn watch(self: &Arc<Self>) {
        let this = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut looks = tokio::time::interval(LOOK);
            looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                looks.tick().await;
                let Some(this) = this.upgrade() else { return };
                // Files may be slow.
                let look = tokio::task::spawn_blocking(move || this.look());
                if let Err(error) = look.await {
                    error!(%error, "certificates could not be looked at");
                }
            }
        });
    }

    /// Looks once: takes what has changed and stayed so since the last look.
    fn look(&self) {
        let places = self.places.lock().clone();
        for (place, watched) in &places {
            let now = stamps(&watched.config);
            let is_settled = {
                let mut seen = watched.seen.lock();
                let is_settled = now != seen.judged && now == seen.last;
                seen.last.clone_from(&now);
                is_settled
            };
            if is_settled {
                watched.take(place, now);
            }
            watched.warn_of_end(place, now_s());
        }
    }
}

impl Watched {
    /// Whether it is made of these files as they are.
    fn uses(&self, kind: ListenerKind, config: &ListenerTls, files: &[Stamp]) -> bool {
        self.kind == kind && self.config == *config && self.seen.lock().used == files
    }

    fn take(&self, place: &str, stamps: Vec<Stamp>) {
        self.seen.lock().judged.clone_from(&stamps);
        match make(place, self.kind, &self.config, now_s()) {
            Ok(Made { config, expires_at_s }) => {
                self.setup.replace(config, Some(expires_at_s));
                let mut seen = self.seen.lock();
                seen.used = stamps;
                seen.warnings = 0;
                drop(seen);
                told(place, expires_at_s);
            }
            Err(fault) => error!(%fault, "certificates are refused; those that were there stay"),
        }
    }

    fn warn_of_end(&self, place: &str, now_s: i64) {
        let Some(left_s) = self.setup.expires_at_s().map(|end| end - now_s) else { return };
        let due = due_warnings(left_s);
        let mut seen = self.seen.lock();
        if due > seen.warnings {
            seen.warnings = due;
            if left_s <= 0 {
                error!(place, "the certificate has expired: clients refuse it");
            } else {
                warn!(place, days_left = left_s / DAY_S, "the certificate expires soon");
            }
        }
    }
}

fn told(place: &str, expires_at_s: i64) {
    info!(place, expires_in_days = (expires_at_s - now_s()) / DAY_S, "certificates reloaded");
}

/// How many warnings are due for a certificate with this much time left.
fn due_warnings(left_s: i64) -> usize {
    WARNING_DAYS.iter().map(|days| days * DAY_S).chain([0]).filter(|limit_s| left_s <= *limit_s).count()
}

/// Seconds since the epoch.
fn now_s() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}
