//! How files are seen to change, by looking at them from time to time.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// What changes about a file when it is written, or another is put in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp(Option<(u64, u64, i64, i64, u64)>);

impl Stamp {
    /// The stamp of what a path leads to now, through symbolic links.
    pub(crate) fn of(path: &Path) -> Self {
        let file = std::fs::metadata(path).ok();
        Self(file.map(|file| (file.dev(), file.ino(), file.mtime(), file.mtime_nsec(), file.size())))
    }
}
