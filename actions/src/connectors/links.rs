//! What connectors that make their connections themselves have in common: addresses that they may connect to, TLS, and files
//! that are read once and compared when the configuration is read again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::tls::{TlsConfig, TlsFiles, read};
use super::{Dialer, Fault};
use crate::targets::{AddressRange, TargetPolicy};

/// What the settings of a connector say of its connections.
pub(crate) struct LinkSettings<'c> {
    /// Addresses that are allowed beside those of all connectors.
    pub(crate) allow_private: &'c [AddressRange],
    pub(crate) tls: Option<&'c TlsConfig>,
    /// A file with a secret, and the key that names it.
    pub(crate) secret_file: Option<(&'static str, &'c Path)>,
    pub(crate) connect_timeout: Duration,
}

/// How a connector makes its connections, and what its files held when it was loaded.
pub(crate) struct Links {
    pub(crate) dialer: Dialer,
    files: TlsFiles,
    secret: Option<Vec<u8>>,
}

impl Links {
    /// Returns `before`, which is of the same settings, unless files or addresses have changed since; else what `make` makes.
    /// `links`: where those of a connector are.
    pub(crate) fn load<C>(
        settings: &LinkSettings<'_>,
        targets: &TargetPolicy,
        before: Option<&Arc<C>>,
        links: impl FnOnce(&C) -> &Self,
        make: impl FnOnce(Self) -> Result<C, Fault>,
    ) -> Result<Arc<C>, Fault> {
        let mut targets = targets.clone();
        targets.allow_private.extend_from_slice(settings.allow_private);
        let files = TlsFiles::read(settings.tls)?;
        let secret = settings.secret_file.map(|(key, path)| {
            read(path).map_err(|why| Fault::new(key, format!("\"{}\" can't be read: {why}", path.display())))
        });
        let secret = secret.transpose()?;
        if let Some(before) = before
            && let links = links(before)
            && *links.dialer.targets == targets
            && links.files == files
            && links.secret == secret
        {
            return Ok(Arc::clone(before));
        }
        let dialer = Dialer {
            targets: Arc::new(targets),
            tls: files.for_links(settings.tls)?,
            timeout: settings.connect_timeout,
        };
        make(Self { dialer, files, secret }).map(Arc::new)
    }

    /// What the file with the secret held.
    pub(crate) fn secret(&self) -> Option<&[u8]> {
        self.secret.as_deref()
    }
}

/// Default of `connect_timeout`.
pub(crate) const fn default_connect_timeout() -> Duration {
    Duration::from_secs(5)
}

/// Checks the range of `connect_timeout`.
pub(crate) fn check_connect_timeout(timeout: Duration) -> Result<(), Fault> {
    if (Duration::from_millis(10)..=Duration::from_secs(600)).contains(&timeout) {
        return Ok(());
    }
    Err(Fault::new("connect_timeout", format!("expected 10ms to 10m, given {timeout:?}")))
}
