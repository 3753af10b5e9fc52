//! A line that says how far long work has come.
//!
//! It stands on standard error where that is a terminal, is written over as the work goes on, and is gone at the end. Where
//! nobody looks on there is nothing of it.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// How long one state of the line stands, at least.
const PAUSE: Duration = Duration::from_millis(100);
/// Goes to the beginning of the line, and clears it.
const CLEAR: &str = "\r\x1b[2K";

/// See the module.
#[derive(Debug)]
pub(super) struct Progress {
    what: &'static str,
    /// `None`: nobody looks on.
    shown_at: Option<Instant>,
    is_shown: bool,
}

impl Progress {
    /// For work that is called so.
    pub(super) fn new(what: &'static str) -> Self {
        let shown_at = io::stderr().is_terminal().then(Instant::now);
        Self { what, shown_at, is_shown: false }
    }

    /// Shows how far it has come, unless it was shown a moment ago.
    pub(super) fn show(&mut self, done: impl FnOnce() -> String) {
        let Some(shown_at) = self.shown_at else { return };
        let now = Instant::now();
        if now.duration_since(shown_at) < PAUSE {
            return;
        }
        (self.shown_at, self.is_shown) = (Some(now), true);
        write(&format!("{CLEAR}{}: {}", self.what, done()));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            write(CLEAR);
        }
    }
}

/// There is no one left to tell if that fails.
fn write(text: &str) {
    let mut err = io::stderr().lock();
    drop(err.write_all(text.as_bytes()).and_then(|()| err.flush()));
}

/// Bytes for people: `812 bytes`, `3.4 MiB`; with the whole, where it is known, how much of it that is.
pub(super) fn bytes(done: u64, whole: Option<u64>) -> String {
    let text = if done < 1 << 20 {
        format!("{done} bytes")
    } else {
        format!("{}.{} MiB", done >> 20, ((done & ((1 << 20) - 1)) * 10) >> 20)
    };
    match whole.filter(|whole| *whole > 0) {
        Some(whole) => format!("{text}, {} %", (done.saturating_mul(100) / whole).min(100)),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_told_with_their_unit_and_their_share() {
        assert_eq!(bytes(0, None), "0 bytes");
        assert_eq!(bytes((1 << 20) - 1, Some(0)), "1048575 bytes");
        assert_eq!(bytes(1 << 20, Some(4 << 20)), "1.0 MiB, 25 %");
        assert_eq!(bytes((3 << 20) + (1 << 19), None), "3.5 MiB");
        // What is being written may grow meanwhile.
        assert_eq!(bytes(20, Some(10)), "20 bytes, 100 %");
    }

    #[test]
    fn nothing_is_shown_where_nobody_looks_on() {
        let mut progress = Progress { what: "backup", shown_at: None, is_shown: false };
        progress.show(|| panic!("nobody asks"));
    }
}
