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
