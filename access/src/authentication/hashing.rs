//! Checking passwords costs tens of milliseconds and megabytes each on purpose: it happens off the workers, few at a time,
//! and a password that was right a moment ago isn't checked again.
//!
//! What is remembered of a right password is an HMAC under a key that no other process has, over the user, the password and
//! the verifier that it fitted; so a changed file makes what was remembered void by itself. After a broker's restart
//! thousands of devices come back at once, often several times: that is whom it is for.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::cache::Cache;
use super::verifier::{HashError, Verifier, random};

/// What hashing may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashingLimits {
    /// Passwords hashed at a time.
    pub concurrent: usize,
    /// Passwords that wait for it.
    pub queued: usize,
    /// Right passwords that are remembered; 0: none.
    pub cached: usize,
    /// How long.
    pub cached_for: Duration,
}

impl Default for HashingLimits {
    fn default() -> Self {
        Self { concurrent: 1, queued: 4096, cached: 10_000, cached_for: Duration::from_secs(300) }
    }
}

/// Too many passwords wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords wait to be checked")]
pub struct Overloaded;

/// See the module.
pub struct Hashing {
    limits: HashingLimits,
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    remembered: Cache<()>,
    pub(crate) hashed: AtomicU64,
    pub(crate) remembered_hits: AtomicU64,
    pub(crate) overloads: AtomicU64,
}

impl std::fmt::Debug for Hashing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hashing").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Hashing {
    /// Makes one.
    ///
    /// # Errors
    /// [`HashError::NoRandomness`].
    pub fn new(limits: HashingLimits) -> Result<Self, HashError> {
        Ok(Self {
            limits,
            permits: Arc::new(Semaphore::new(limits.concurrent)),
            waiting: AtomicUsize::new(0),
            remembered: Cache::new(limits.cached)?,
            hashed: AtomicU64::new(0),
            remembered_hits: AtomicU64::new(0),
            overloads: AtomicU64::new(0),
        })
    }

    /// Whether the password fits the verifier. A wrong one costs as much as `costliest`, whatever the user's own costs.
    pub(crate) async fn verify(
        &self,
        user: &str,
        password: &[u8],
        verifier: &Arc<Verifier>,
        costliest: &Arc<Verifier>,
    ) -> Result<bool, Overloaded> {
        let tag = self.remembered.tag(&[user.as_bytes(), password, verifier.fingerprint()]);
        if self.remembered.find(&tag).is_some() {
            self.remembered_hits.fetch_add(1, Ordering::Relaxed);
            return Ok(true);
        }
        let (verifier, costliest) = (Arc::clone(verifier), Arc::clone(costliest));
        let password: Box<[u8]> = password.into();
        let permit = self.permit().await?;
        // The same client may have been checked while this one waited: a device that comes back tries more than once.
        if self.remembered.find(&tag).is_some() {
            self.remembered_hits.fetch_add(1, Ordering::Relaxed);
            return Ok(true);
        }
        // The permit comes back, so that the next one finds what is remembered.
        let (is_right, _permit) = self
            .run(permit, move || {
                let is_right = verifier.verify(&password);
                if !is_right && verifier.cost() < costliest.cost() {
                    std::hint::black_box(costliest.verify(&password));
                }
                is_right
            })
            .await?;
        if is_right {
            self.remembered.keep(tag, (), self.limits.cached_for);
        }
        Ok(is_right)
    }

    /// Costs what a check costs, for a user who doesn't exist.
    pub(crate) async fn pretend(&self, password: &[u8], costliest: &Arc<Verifier>) -> Result<(), Overloaded> {
        let (costliest, password): (_, Box<[u8]>) = (Arc::clone(costliest), password.into());
        let permit = self.permit().await?;
        self.run(permit, move || std::hint::black_box(costliest.verify(&password))).await.map(|_| ())
    }

    /// Waits for its turn.
    async fn permit(&self) -> Result<OwnedSemaphorePermit, Overloaded> {
        let _place = Place::take(self)?;
        Arc::clone(&self.permits).acquire_owned().await.map_err(|_| Overloaded)
    }

    /// Whether the password fits what is kept of the user's, as [`argon2id`](super::argon2id) makes it; `None`: there is no such
    /// user, which costs the same.
    ///
    /// # Errors
    /// [`Overloaded`].
    pub async fn check(&self, user: &str, password: &[u8], kept: Option<&str>) -> Result<bool, Overloaded> {
        let usual = match USUAL.get() {
            Some(usual) => Arc::clone(usual),
            None => {
                let permit = self.permit().await?;
                self.run(permit, usual).await?.0?
            }
        };
        match kept.map(Verifier::parse) {
            Some(Ok(verifier)) => self.verify(user, password, &Arc::new(verifier), &usual).await,
            Some(Err(_)) | None => self.pretend(password, &usual).await.map(|()| false),
        }
    }

    /// What is to be kept of a password, by Argon2id.
    ///
    /// # Errors
    /// [`Overloaded`]; a hash that can't be made counts as one.
    pub async fn hash(&self, password: &[u8]) -> Result<String, Overloaded> {
        let password: Box<[u8]> = password.into();
        let permit = self.permit().await?;
        let (hash, _permit) = self.run(permit, move || super::argon2id(&password)).await?;
        hash.map_err(|_| Overloaded)
    }

    async fn run<T: Send + 'static>(
        &self,
        permit: OwnedSemaphorePermit,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<(T, OwnedSemaphorePermit), Overloaded> {
        self.hashed.fetch_add(1, Ordering::Relaxed);
        // The permit goes along: what has begun counts to its end, though nobody waits for it any more.
        let work = tokio::task::spawn_blocking(move || (work(), permit));
        work.await.map_err(|_| Overloaded)
    }
}

/// A verifier of the costs that new ones have, of a password that nobody knows.
static USUAL: OnceLock<Arc<Verifier>> = OnceLock::new();

fn usual() -> Result<Arc<Verifier>, Overloaded> {
    let password = random::<32>().map_err(|_| Overloaded)?;
    let text = super::argon2id(&password).map_err(|_| Overloaded)?;
    let verifier = Verifier::parse(&text).map_err(|_| Overloaded)?;
    Ok(Arc::clone(USUAL.get_or_init(|| Arc::new(verifier))))
}

/// A place among those that wait; given back when dropped.
struct Place<'a>(&'a Hashing);

impl<'a> Place<'a> {
    fn take(hashing: &'a Hashing) -> Result<Self, Overloaded> {
        let place = Self(hashing);
        if hashing.waiting.fetch_add(1, Ordering::AcqRel) >= hashing.limits.queued {
            hashing.overloads.fetch_add(1, Ordering::Relaxed);
            return Err(Overloaded);
        }
        Ok(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::super::verifier::scram_sha_256;
    use super::*;

    fn verifier(password: &[u8]) -> Arc<Verifier> {
        Arc::new(Verifier::parse(&scram_sha_256(password).unwrap()).ok().unwrap())
    }

    fn hashing(limits: HashingLimits) -> Hashing {
        Hashing::new(limits).unwrap()
    }

    async fn check(hashing: &Hashing, user: &str, password: &[u8], verifier: &Arc<Verifier>) -> bool {
        hashing.verify(user, password, verifier, verifier).await.unwrap()
    }

    #[tokio::test]
    async fn a_right_password_is_hashed_once_a_wrong_one_each_time() {
        let hashing = hashing(HashingLimits::default());
        let (x, other) = (verifier(b"x"), verifier(b"x"));
        assert!(check(&hashing, "ada", b"x", &x).await);
        assert!(check(&hashing, "ada", b"x", &x).await);
        assert_eq!(hashing.hashed.load(Ordering::Relaxed), 1);
        assert!(!check(&hashing, "ada", b"y", &x).await);
        assert!(!check(&hashing, "ada", b"y", &x).await);
        assert_eq!(hashing.hashed.load(Ordering::Relaxed), 3);
        // Another user, and the same one after the file was changed.
        assert!(check(&hashing, "bob", b"x", &x).await);
        assert!(check(&hashing, "ada", b"x", &other).await);
        assert_eq!(hashing.hashed.load(Ordering::Relaxed), 5);
        assert_eq!(hashing.remembered_hits.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn attempts_that_wait_for_the_same_check_share_it() {
        let hashing = Arc::new(hashing(HashingLimits::default()));
        let x = verifier(b"x");
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let (hashing, x) = (Arc::clone(&hashing), Arc::clone(&x));
                tokio::spawn(async move { check(&hashing, "ada", b"x", &x).await })
            })
            .collect();
        for task in tasks {
            assert!(task.await.unwrap());
        }
        assert_eq!(hashing.hashed.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn as_many_wait_as_the_limit_says_and_one_more_is_refused() {
        let hashing = Arc::new(hashing(HashingLimits { queued: 2, ..HashingLimits::default() }));
        let (go, wait) = mpsc::channel::<()>();
        let spawn = |work: Box<dyn FnOnce() + Send>| {
            let hashing = Arc::clone(&hashing);
            tokio::spawn(async move {
                let permit = hashing.permit().await?;
                hashing.run(permit, work).await.map(|((), _permit)| ())
            })
        };
        let running = spawn(Box::new(move || wait.recv().unwrap()));
        while hashing.hashed.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        let waiting = [spawn(Box::new(|| ())), spawn(Box::new(|| ()))];
        while hashing.waiting.load(Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
        assert!(hashing.permit().await.is_err());
        assert_eq!(hashing.overloads.load(Ordering::Relaxed), 1);
        // One that gives up makes room.
        let [first, second] = waiting;
        first.abort();
        assert!(first.await.is_err());
        let another = spawn(Box::new(|| ()));
        go.send(()).unwrap();
        for task in [running, second, another] {
            assert_eq!(task.await.unwrap(), Ok(()));
        }
        assert_eq!(hashing.waiting.load(Ordering::Relaxed), 0);
    }
}
