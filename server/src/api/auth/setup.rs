//! The setup token: makes an administrator, once, within an hour.
//!
//! It is for a gateway without any, and for one whose administrators have lost their passwords. It stands in a file of the data
//! directory for its owner alone, or on the terminal, never in the log.

use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::directory::{DirectoryError, write_file};
use super::secret::{self, Digest};

/// How long a setup token is good.
pub const SETUP_TOKEN_AGE_MAX: Duration = Duration::from_secs(3600);
/// Its file in the data directory.
const NAME: &str = "setup-token";

#[derive(Debug)]
pub(super) struct Setup {
    path: Option<PathBuf>,
    current: Mutex<Option<(Digest, Instant)>>,
}

impl Setup {
    pub(super) fn new(data_dir: Option<&Path>) -> Self {
        let setup = Self { path: data_dir.map(|folder| folder.join(NAME)), current: Mutex::new(None) };
        // One that is left over isn't good any more.
        setup.forget_file();
        setup
    }

    pub(super) fn make(&self) -> Result<String, DirectoryError> {
        let token = secret::random("tds_").ok_or(DirectoryError::NoRandomness)?;
        if let Some(path) = &self.path {
            write_file(path, format!("{token}\n").as_bytes())?;
        }
        *self.current.lock() = Some((Digest::of(&token), Instant::now()));
        Ok(token)
    }

    /// Whether this is the token.
    pub(super) fn is_good(&self, token: &str) -> bool {
        let current = *self.current.lock();
        current
            .is_some_and(|(digest, made)| digest == Digest::of(token) && made.elapsed() < SETUP_TOKEN_AGE_MAX)
    }

    /// Uses the token up. Of two who try at once, one does.
    pub(super) fn take(&self, token: &str) -> bool {
        let mut current = self.current.lock();
        let is_good = current.is_some_and(|(digest, made)| {
            digest == Digest::of(token) && made.elapsed() < SETUP_TOKEN_AGE_MAX
        });
        if is_good {
            *current = None;
            drop(current);
            self.forget_file();
        }
        is_good
    }

    fn forget_file(&self) {
        let Some(path) = &self.path else { return };
        if let Err(error) = std::fs::remove_file(path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "the file of a setup token can't be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_token_is_good_once_and_for_an_hour() {
        let folder = tempfile::tempdir().unwrap();
        let setup = Setup::new(Some(folder.path()));
        assert!(!setup.take(""));
        let first = setup.make().unwrap();
        let path = folder.path().join(NAME);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{first}\n"));
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let second = setup.make().unwrap();
        assert!(!setup.take(&first) && !setup.take(&second.to_lowercase()), "only the last one is good");
        assert!(setup.is_good(&second) && setup.take(&second) && !setup.take(&second));
        assert!(!path.exists());
        let third = setup.make().unwrap();
        tokio::time::advance(SETUP_TOKEN_AGE_MAX).await;
        assert!(!setup.is_good(&third) && !setup.take(&third));
    }
}
