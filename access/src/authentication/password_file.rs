//! Passwords of a file of users.
//!
//! A user who isn't in the file is another method's business. That costs as much as a wrong password, and at the end of the
//! chain both are answered alike.

use std::path::Path;
use std::sync::Arc;

use super::hashing::{Hashing, Overloaded};
use super::users::{Kind, UsersError, UsersFile};
use super::{Attempt, Denial, Identity, Outcome};

/// See the module.
#[derive(Debug)]
pub struct PasswordFile {
    file: UsersFile,
    hashing: Arc<Hashing>,
}

impl PasswordFile {
    /// Reads the file.
    ///
    /// # Errors
    /// [`UsersError`].
    pub fn open(path: &Path, hashing: Arc<Hashing>) -> Result<Self, UsersError> {
        Ok(Self { file: UsersFile::open(path, Kind::Any)?, hashing })
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &UsersFile {
        &self.file
    }

    pub(crate) async fn authenticate(&self, attempt: &Attempt) -> Outcome {
        let (Some(username), Some(password)) = (&attempt.username, &attempt.password) else {
            return Outcome::Ignore;
        };
        let users = self.file.users();
        let is_right = match users.find(username) {
            Some(verifier) => {
                self.hashing.verify(username, password, verifier, users.costliest()).await.map(Some)
            }
            None => self.hashing.pretend(password, users.costliest()).await.map(|()| None),
        };
        match is_right {
            Ok(Some(true)) => {
                Outcome::Allow(Identity { username: Some(username.clone()), ..Identity::default() }, None)
            }
            Ok(Some(false)) => Outcome::Deny(Denial::BadCredentials, "the password is wrong".into()),
            Ok(None) => Outcome::Ignore,
            Err(Overloaded) => {
                Outcome::Deny(Denial::Unavailable, "too many passwords wait to be checked".into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use mqtt_protocol::ProtocolVersion;

    use super::super::hashing::HashingLimits;
    use super::*;

    /// "wonderland", made by mosquitto_passwd 2.0.11; the second one by `-H sha512`.
    const USERS: &str = "ada:$7$101$UsXfrsPcVjpjTi+n$QyxYvJkC/35ogZI3b/2wPSd3if6wmKgK8gPHD7LuPrKbZ3chVNbcv2+GT06vZfwadP1fct4lS6kAHUC1QN1F8Q==
bob:$6$8plttfgSvF30CeX9$oOmsCsOL8/1sCA7GvisajZD8ctMgPx5B4eOLf8NiGDv85plLtJHRmSBc7TVgGvSasXnLY6OipyQOpAVId4n4lA==
";

    fn attempt(username: Option<&str>, password: Option<&str>) -> Attempt {
        Attempt {
            client_id: "c".into(),
            username: username.map(Into::into),
            password: password.map(|password| password.as_bytes().into()),
            enhanced: None,
            certificate: None,
            address: None,
            listener: "tcp".into(),
            version: ProtocolVersion::V5,
        }
    }

    #[tokio::test]
    async fn a_wrong_password_and_an_unknown_user_cost_a_hash_each() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwd");
        std::fs::write(&path, USERS).unwrap();
        let hashing = Arc::new(Hashing::new(HashingLimits::default()).unwrap());
        let file = PasswordFile::open(&path, Arc::clone(&hashing)).unwrap();
        let hashed = || hashing.hashed.load(Ordering::Relaxed);
        let wrong = file.authenticate(&attempt(Some("ada"), Some("x"))).await;
        assert!(matches!(wrong, Outcome::Deny(Denial::BadCredentials, _)), "{wrong:?}");
        assert_eq!(hashed(), 1);
        let unknown = file.authenticate(&attempt(Some("eve"), Some("x"))).await;
        assert!(matches!(unknown, Outcome::Ignore), "{unknown:?}");
        assert_eq!(hashed(), 2);
        let right = file.authenticate(&attempt(Some("bob"), Some("wonderland"))).await;
        assert!(
            matches!(&right, Outcome::Allow(identity, None) if identity.username.as_deref() == Some("bob"))
        );
        assert_eq!(hashed(), 3);
        // Nothing to check: it costs the same for everybody, nothing.
        for (username, password) in
            [(Some("ada"), None), (Some("eve"), None), (None, Some("x")), (None, None)]
        {
            let outcome = file.authenticate(&attempt(username, password)).await;
            assert!(matches!(outcome, Outcome::Ignore), "{outcome:?}");
        }
        assert_eq!(hashed(), 3);
    }

    #[tokio::test]
    async fn where_too_many_wait_nobody_comes_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwd");
        std::fs::write(&path, USERS).unwrap();
        let limits = HashingLimits { queued: 0, ..HashingLimits::default() };
        let file = PasswordFile::open(&path, Arc::new(Hashing::new(limits).unwrap())).unwrap();
        for user in ["ada", "eve"] {
            let outcome = file.authenticate(&attempt(Some(user), Some("wonderland"))).await;
            assert!(matches!(outcome, Outcome::Deny(Denial::Unavailable, _)), "{outcome:?}");
        }
    }
}
