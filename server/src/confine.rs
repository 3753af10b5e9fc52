//! What the serving process denies itself: files for others, and an image of its memory on disk.
//!
//! Every file that it makes is for its owner alone, whatever the shell that started it allows. An image of its memory would
//! hold passwords and what clients published, so none is written when it dies; `prlimit --core` allows one in a process that
//! is being examined.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit, umask};
use tracing::{debug, warn};

/// Permissions of group and others.
const OTHERS: u32 = 0o077;

/// Confines this process; to be called before it makes files, once the log is there.
pub(crate) fn confine() {
    umask(Mode::from_raw_mode(OTHERS));
    let maximum = getrlimit(Resource::Core).maximum;
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum }) {
        debug!(%error, "an image of the process's memory may be written when it dies");
    }
    if geteuid().is_root() {
        warn!(
            "running as root: whoever finds a way in has the whole machine; a user of its own needs nothing but its data_dir"
        );
    }
}

/// Warns if others may look into the data directory: it was there before, or somebody changed it.
pub(crate) fn warn_if_open(data_dir: &Path) {
    let Ok(mode) = fs::metadata(data_dir).map(|metadata| metadata.permissions().mode()) else { return };
    if mode & OTHERS != 0 {
        warn!(
            data_dir = %data_dir.display(),
            mode = format!("{:04o}", mode & 0o7777),
            "others may look into the data directory, which holds what clients publish: `chmod 700` closes it"
        );
    }
}
