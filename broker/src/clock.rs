//! Time, read once per turn: monotonic for every deadline, wall clock for what is told to others.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// Milliseconds since the broker was made; never goes back.
    pub(crate) mono_ms: u64,
    /// Milliseconds since the epoch.
    pub(crate) wall_ms: i64,
}

impl Now {
    /// When something that lives this many seconds from now expires, in `mono_ms`.
    pub(crate) fn expiry(self, seconds: Option<u32>) -> Option<u64> {
        seconds.map(|seconds| self.mono_ms + u64::from(seconds) * 1000)
    }
}

/// The broker's clock.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        // A second ahead, so that 0 is in the past of everything.
        let start = Instant::now();
        Self { start: start.checked_sub(Duration::from_secs(1)).unwrap_or(start) }
    }

    pub(crate) fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            mono_ms: u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX),
            wall_ms: i64::try_from(wall.as_millis()).unwrap_or(i64::MAX),
        }
    }
}
