//! Where the server keeps what it must not forget: opened before anything else, closed after everything else.
//!
//! With `commit` and `interval` a [`DurableStore`] in the folder `store` of the data directory, which one process may have
//! open at a time; with `memory` nothing is written.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use store::{DurableStore, MemoryStore, OpenError, RecoveryReport, Store, StoreOptions};
use tracing::{error, info, warn};

use crate::config::{self, Config, Durability, Environment};
use crate::confine::warn_if_open;
use crate::server::random;

/// Folder of the store in the data directory.
const FOLDER: &str = "store";

/// Set to a number, the seed of what a cut of the power makes of writes that were on their way.
#[cfg(feature = "power-cut")]
const POWER_CUT: &str = "TIDEGATE_POWER_CUT";

/// Why the store doesn't open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The data directory can't be made.
    #[error("the data directory (data_dir) {} can't be made", path.display())]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it.
    #[error("the store {} is in use by another process: each needs a data directory (data_dir) of its own", path.display())]
    InUse {
        /// The store's folder.
        path: PathBuf,
    },
    /// It was written by a newer version.
    #[error("the store {} can't be read", path.display())]
    Newer {
        /// The store's folder.
        path: PathBuf,
        /// Which file, and of what version.
        source: OpenError,
    },
    /// It can't be read or written.
    #[error("the store {} can't be opened", path.display())]
    Unusable {
        /// The store's folder.
        path: PathBuf,
        /// What the system said.
        source: OpenError,
    },
}

/// An open store. Cheap to clone; every clone is the same.
#[derive(Debug, Clone)]
pub enum Storage {
    /// Nothing outlives the process.
    Memory(Arc<MemoryStore>),
    /// On disk.
    Durable {
        /// The store.
        store: Arc<DurableStore>,
        /// The data directory.
        data_dir: PathBuf,
    },
}

impl Storage {
    /// A store that keeps nothing.
    #[must_use]
    pub fn memory() -> Self {
        Self::Memory(Arc::new(MemoryStore::new(random())))
    }

    /// Opens the store that a configuration asks for, and logs what was found in it.
    ///
    /// # Errors
    /// [`StorageError`]. Damage isn't one: it is put aside and logged.
    pub fn open(config: &Config, environment: &Environment) -> Result<Self, StorageError> {
        if config.store.durability == Durability::Memory {
            return Ok(Self::memory());
        }
        let data_dir = config.data_dir.clone().unwrap_or_else(|| config::default_data_dir(environment));
        // What clients published is nobody else's business.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&data_dir)
            .map_err(|source| StorageError::DataDir { path: data_dir.clone(), source })?;
        warn_if_open(&data_dir);
        let path = data_dir.join(FOLDER);
        let (store, report) = open_store(&path, options(&config.store)).map_err(|source| match source {
            OpenError::Io(error) if error.kind() == io::ErrorKind::WouldBlock => {
                StorageError::InUse { path: path.clone() }
            }
            OpenError::Newer { .. } => StorageError::Newer { path: path.clone(), source },
            source => StorageError::Unusable { path: path.clone(), source },
        })?;
        log_report(&path, &report);
        Ok(Self::Durable { store: Arc::new(store), data_dir })
    }

    /// Returns when everything that was appended is safe, or never will be.
    pub async fn settle(&self) {
        if let Self::Durable { store, .. } = self {
            let store = Arc::clone(store);
            let settled = tokio::task::spawn_blocking(move || store.wait_for_all()).await;
            if !settled.unwrap_or(false) {
                warn!("the store could not write everything before the end");
            }
        }
    }

    /// The store as the broker takes it.
    #[must_use]
    pub fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Memory(store) => Arc::<MemoryStore>::clone(store),
            Self::Durable { store, .. } => Arc::<DurableStore>::clone(store),
        }
    }

    /// The store, if it is one on disk.
    #[must_use]
    pub fn durable(&self) -> Option<&Arc<DurableStore>> {
        match self {
            Self::Memory(_) => None,
            Self::Durable { store, .. } => Some(store),
        }
    }

    /// The data directory, if anything is kept there.
    #[must_use]
    pub fn data_dir(&self) -> Option<&Path> {
        match self {
            Self::Memory(_) => None,
            Self::Durable { data_dir, .. } => Some(data_dir),
        }
    }
}

#[cfg(not(feature = "power-cut"))]
fn open_store(path: &Path, options: StoreOptions) -> Result<(DurableStore, RecoveryReport), OpenError> {
    DurableStore::open(path, options)
}

/// Lets `kill -9` be a power cut if the environment asks for it. Segments are small then, so that a short test has many of
/// them, and everything that is done with them happens.
#[cfg(feature = "power-cut")]
fn open_store(path: &Path, options: StoreOptions) -> Result<(DurableStore, RecoveryReport), OpenError> {
    let Some(seed) = std::env::var(POWER_CUT).ok().and_then(|seed| seed.parse().ok()) else {
        return DurableStore::open(path, options);
    };
    warn!(seed, "{POWER_CUT} is set: what isn't synced is lost when this process is killed");
    let disk = store::PowerCutFolder::open(path, seed)?;
    let options = StoreOptions { segment_bytes: 128 * 1024, checkpoint_bytes: 256 * 1024, ..options };
    DurableStore::open_on(Arc::new(disk), options)
}

fn options(config: &config::Store) -> StoreOptions {
    StoreOptions {
        durability: match config.durability {
            Durability::Interval => store::Durability::Interval(config.interval.as_duration()),
            Durability::Commit | Durability::Memory => store::Durability::Commit,
        },
        log_bytes_max: config.max_bytes.as_u64(),
        reserve_bytes: config.reserve.as_u64(),
        ..StoreOptions::default()
    }
}

/// Says in words what a start found.
fn log_report(path: &Path, report: &RecoveryReport) {
    let store = path.display();
    for file in &report.quarantined {
        error!(%store, file, "a damaged file was put aside");
    }
    for segment in &report.segments_missing {
        error!(%store, segment, "a segment of the log is missing");
    }
    if report.without_checkpoint {
        error!(
            %store,
            "no checkpoint could be read: the state was put together from the log, and what had ended long ago may be back"
        );
    }
    if report.frames_lost + report.debts_lost + report.retained_lost > 0 {
        error!(
            %store,
            frames = report.frames_lost,
            queued_messages = report.debts_lost,
            retained_messages = report.retained_lost,
            "damage has cost acknowledged messages"
        );
    }
    if report.bytes_cut > 0 {
        warn!(%store, bytes = report.bytes_cut, "a write was cut off by a crash; nothing in it had been acknowledged");
    }
    info!(%store, frames_replayed = report.frames_replayed, "store opened");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(folder: &Path, durability: Durability) -> Config {
        Config {
            data_dir: Some(folder.join("data")),
            store: config::Store { durability, ..config::Store::default() },
            ..Config::default()
        }
    }

    #[test]
    fn memory_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), Durability::Memory);
        let storage = Storage::open(&config, &Environment::default()).unwrap();
        assert!(storage.durable().is_none() && storage.data_dir().is_none());
        assert!(!storage.store().keeps_records());
        assert!(!folder.path().join("data").exists());
    }

    #[test]
    fn a_store_on_disk_is_one_processs_and_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), Durability::Commit);
        let storage = Storage::open(&config, &Environment::default()).unwrap();
        assert!(storage.store().keeps_records());
        let mode = std::fs::metadata(folder.path().join("data")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert!(matches!(
            Storage::open(&config, &Environment::default()),
            Err(StorageError::InUse { path }) if path.ends_with("data/store")
        ));
        drop(storage);
        assert!(Storage::open(&config, &Environment::default()).is_ok());
    }

    #[test]
    fn a_data_directory_that_is_a_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("data"), "").unwrap();
        let config = config(folder.path(), Durability::Interval);
        let error = Storage::open(&config, &Environment::default()).unwrap_err();
        assert!(matches!(error, StorageError::DataDir { .. }), "{error:?}");
    }
}
