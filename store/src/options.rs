//! The settings of a durable store, and why one doesn't open.

use std::io;
use std::time::Duration;

/// When a frame counts as safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On disk.
    Commit,
    /// Written; on disk at most this much later. What the system hadn't written by a power cut is lost, a killed process
    /// loses nothing.
    Interval(Duration),
}

/// The settings of a [`crate::DurableStore`].
#[derive(Debug, Clone, Copy)]
pub struct StoreOptions {
    /// When a frame counts as safe.
    pub durability: Durability,
    /// Bytes of a segment of the log. A larger frame gets a segment of its own.
    pub segment_bytes: u64,
    /// Bytes that wait for the disk at most; then appends are refused as [`crate::StoreError::Busy`]. Frames that only end
    /// debts may use as much again.
    pub queue_bytes_max: usize,
    /// Bytes of log after which the state is written to a checkpoint.
    pub checkpoint_bytes: u64,
    /// Bytes of the log that there may be; past them new debts are refused as [`crate::StoreError::Full`].
    pub log_bytes_max: u64,
    /// Bytes that stay free on the disk: with less, new debts are refused, and what ends debts still has room.
    pub reserve_bytes: u64,
    /// The wall clock, in milliseconds since the epoch.
    pub wall_clock_ms: fn() -> i64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Commit,
            segment_bytes: 64 * MIB,
            queue_bytes_max: 16 * 1024 * 1024,
            checkpoint_bytes: 64 * MIB,
            log_bytes_max: u64::MAX,
            reserve_bytes: 256 * MIB,
            wall_clock_ms,
        }
    }
}

const MIB: u64 = 1024 * 1024;

fn wall_clock_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Why a store doesn't open. Damage is no reason: it is put aside and reported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A file is of a newer format: an older program would take it for damage.
    #[error(
        "{file} has format version {version}, and this program reads up to {supported}: use the newer program"
    )]
    Newer {
        /// Its name.
        file: String,
        /// Its version.
        version: u16,
        /// The newest that is read.
        supported: u16,
    },
    /// The folder could not be read or written.
    #[error("the store's folder can't be used")]
    Io(#[from] io::Error),
}

/// What a start found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Files that were put aside, by their new names.
    pub quarantined: Vec<String>,
    /// Segments that should be there and aren't.
    pub segments_missing: Vec<u64>,
    /// Frames that were safe once and are lost, as far as it can be told.
    pub frames_lost: u64,
    /// Debts that are lost because their segment is.
    pub debts_lost: u64,
    /// Retained messages that are lost because their segment is.
    pub retained_lost: u64,
    /// Bytes of an interrupted write that were cut off. They had not been acknowledged.
    pub bytes_cut: u64,
    /// Frames that were read from the log.
    pub frames_replayed: u64,
    /// No checkpoint could be used, though there was a log: what its older parts had ended may be back.
    pub without_checkpoint: bool,
}

impl RecoveryReport {
    /// Whether something that had been acknowledged may be lost.
    #[must_use]
    pub fn has_losses(&self) -> bool {
        self.frames_lost + self.debts_lost + self.retained_lost > 0
            || !self.segments_missing.is_empty()
            || self.without_checkpoint
    }
}
