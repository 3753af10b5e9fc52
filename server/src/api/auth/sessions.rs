//! Sessions of browsers: in memory alone, so a restart ends them.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::secret::{self, Digest};

/// Most sessions at a time; one more ends the one that was silent longest.
pub(super) const SESSIONS_MAX: usize = 256;
/// How long a session lives without a request.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(30 * 60);
/// How long a session lives.
pub(super) const AGE_MAX: Duration = Duration::from_secs(12 * 3600);

#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) user: String,
    /// The user's at the sign-in: another password, or another role, ends the session.
    pub(super) stamp: u64,
    pub(super) csrf: String,
    began: Instant,
    heard: Instant,
}

impl Session {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.began) >= AGE_MAX || now.duration_since(self.heard) >= IDLE_MAX
    }
}

#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<Digest, Session>>);

impl Sessions {
    /// Begins a session; returns the cookie's secret and the CSRF token.
    pub(super) fn begin(&self, user: &str, stamp: u64) -> Option<(String, String)> {
        let (secret, csrf) = (secret::random("")?, secret::random("")?);
        let now = Instant::now();
        let mut sessions = self.0.lock();
        sessions.retain(|_, session| !session.is_over(now));
        if sessions.len() >= SESSIONS_MAX {
            let oldest = sessions.iter().min_by_key(|(_, session)| session.heard).map(|(digest, _)| *digest);
            oldest.and_then(|oldest| sessions.remove(&oldest));
        }
        let session = Session { user: user.to_owned(), stamp, csrf: csrf.clone(), began: now, heard: now };
        sessions.insert(Digest::of(&secret), session);
        Some((secret, csrf))
    }

    /// The session, which is heard now.
    pub(super) fn find(&self, digest: &Digest) -> Option<Session> {
        let now = Instant::now();
        let mut sessions = self.0.lock();
        let session = sessions.get_mut(digest)?;
        if session.is_over(now) {
            sessions.remove(digest);
            return None;
        }
        session.heard = now;
        Some(session.clone())
    }

    /// The session as it is.
    pub(super) fn look(&self, digest: &Digest) -> Option<Session> {
        let now = Instant::now();
        self.0.lock().get(digest).filter(|session| !session.is_over(now)).cloned()
    }

    pub(super) fn end(&self, digest: &Digest) {
        self.0.lock().remove(digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_by_silence_and_by_age() {
        let sessions = Sessions::default();
        let (secret, _) = sessions.begin("ada", 1).unwrap();
        let digest = Digest::of(&secret);
        let almost = IDLE_MAX - Duration::from_secs(1);
        for _ in 0..(AGE_MAX.as_secs() / almost.as_secs()) {
            tokio::time::advance(almost).await;
            assert!(sessions.find(&digest).is_some());
        }
        tokio::time::advance(almost).await;
        assert!(sessions.find(&digest).is_none(), "it is older than {AGE_MAX:?}");
        let (secret, _) = sessions.begin("ada", 1).unwrap();
        // A look is no request.
        tokio::time::advance(almost).await;
        assert!(sessions.look(&Digest::of(&secret)).is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(sessions.look(&Digest::of(&secret)).is_none());
        assert!(sessions.find(&Digest::of(&secret)).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn one_session_more_than_the_limit_ends_the_most_silent_one() {
        let sessions = Sessions::default();
        let mut secrets = Vec::new();
        for _ in 0..SESSIONS_MAX {
            secrets.push(sessions.begin("ada", 1).unwrap().0);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        let find = |index: usize| sessions.find(&Digest::of(&secrets[index])).is_some();
        assert!(find(0));
        sessions.begin("ada", 1).unwrap();
        assert!(find(0) && !find(1) && find(2));
    }
}
