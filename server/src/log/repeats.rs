//! Lines that repeat themselves: so many of each are written, and then one that says how many were left out.
//!
//! Whoever can make the gateway write a line can make it write it as often as he likes: a client that connects without right, a
//! far side that answers nonsense. So each place in the program that writes lines has a budget: [`BURST`] lines at once, and one
//! more every [`EVERY`]. The first line that is written again after some were left out is preceded by their number. Lines
//! for debugging are not held back: whoever asks for them wants all.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use crate::cli::iso_8601;
use crate::config::LogFormat;

/// Lines of one place that are written at once.
const BURST: u32 = 50;
/// Time for one more.
const EVERY: Duration = Duration::from_millis(200);

/// Writes so many lines of each place, and throws the others away.
#[derive(Debug)]
pub(super) struct Repeats<W> {
    to: W,
    format: LogFormat,
    /// As many as the program has places that write lines.
    budgets: Mutex<HashMap<Identifier, Budget>>,
}

impl<W> Repeats<W> {
    pub(super) fn new(to: W, format: LogFormat) -> Self {
        Self { to, format, budgets: Mutex::default() }
    }

    /// What is said of lines that were left out.
    fn told(&self, left_out: u64, of: &Metadata<'_>) -> String {
        let at = iso_8601(SystemTime::now());
        let (target, line) = (of.target(), of.line().unwrap_or(0));
        let message = "lines like the next one were left out";
        match self.format {
            LogFormat::Text => format!("{at}  WARN {target}: {message} left_out={left_out} line={line}\n"),
            LogFormat::Json => {
                let line = serde_json::json!({ "timestamp": at, "level": "WARN", "message": message,
                    "left_out": left_out, "line": line, "target": target });
                format!("{line}\n")
            }
        }
    }
}

/// Where one line goes.
pub(super) enum Line<W> {
    /// Nowhere.
    Nowhere,
    /// There, behind what is said of those before it.
    Somewhere(W, Option<String>),
}

impl<W: io::Write> io::Write for Line<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Nowhere => Ok(bytes.len()),
            Self::Somewhere(to, before) => {
                if let Some(before) = before.take() {
                    to.write_all(before.as_bytes())?;
                }
                to.write(bytes)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Nowhere => Ok(()),
            Self::Somewhere(to, _) => to.flush(),
        }
    }
}

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for Repeats<W> {
    type Writer = Line<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        Line::Somewhere(self.to.make_writer(), None)
    }

    fn make_writer_for(&'w self, of: &Metadata<'_>) -> Self::Writer {
        if *of.level() > Level::INFO {
            return self.make_writer();
        }
        let now = Instant::now();
        let spent = {
            let mut budgets = self.budgets.lock();
            budgets.entry(of.callsite()).or_insert_with(|| Budget::new(now)).spend(now)
        };
        match spent {
            None => Line::Nowhere,
            Some(left_out) => {
                let before = (left_out > 0).then(|| self.told(left_out, of));
                Line::Somewhere(self.to.make_writer_for(of), before)
            }
        }
    }
}

#[derive(Debug)]
struct Budget {
    left: u32,
    at: Instant,
    left_out: u64,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { left: BURST, at: now, left_out: 0 }
    }

    /// Spends a line: `None` if it is to be left out, otherwise how many were before it.
    fn spend(&mut self, now: Instant) -> Option<u64> {
        let lines = now.saturating_duration_since(self.at).as_millis() / EVERY.as_millis();
        let lines = u32::try_from(lines).unwrap_or(u32::MAX);
        if lines > 0 {
            self.left = self.left.saturating_add(lines).min(BURST);
            // What is left of the time counts for the next one.
            self.at = if self.left == BURST { now } else { self.at + EVERY * lines };
        }
        if self.left == 0 {
            self.left_out += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Debug, Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'w> MakeWriter<'w> for Lines {
        type Writer = Self;

        fn make_writer(&'w self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn a_place_writes_so_many_lines_and_others_are_not_held_back_by_it() {
        let lines = Lines::default();
        let repeats = Repeats::new(lines.clone(), LogFormat::Json);
        let layer = tracing_subscriber::fmt::layer().json().with_writer(repeats);
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..BURST * 20 {
                tracing::warn!(number, "again");
                if number == BURST * 10 {
                    tracing::error!("something else");
                }
            }
            for number in 0..BURST * 3 {
                tracing::debug!(number, "wanted");
            }
        });
        let text = String::from_utf8(lines.0.lock().clone()).unwrap();
        for line in text.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
        let count = |of: &str| text.lines().filter(|line| line.contains(of)).count();
        // Time goes on meanwhile: a few more may pass, each behind a line that counts those before it.
        let again = count("again");
        assert!((50..200).contains(&again), "{again}");
        assert_eq!(count("were left out"), again - BURST as usize);
        assert_eq!((count("something else"), count("wanted")), (1, BURST as usize * 3));
    }

    #[test]
    fn a_budget_fills_up_again_and_no_further() {
        let begin = Instant::now();
        let mut budget = Budget::new(begin);
        for _ in 0..BURST {
            assert_eq!(budget.spend(begin), Some(0));
        }
        assert_eq!(budget.spend(begin), None);
        assert_eq!(budget.spend(begin + EVERY / 2), None);
        assert_eq!(budget.spend(begin + EVERY), Some(2));
        assert_eq!(budget.spend(begin + EVERY * 3 / 2), None);
        assert_eq!(budget.spend(begin + EVERY * 2), Some(1));
        let later = begin + EVERY * 10_000;
        for _ in 0..BURST {
            assert!(budget.spend(later).is_some());
        }
        assert_eq!(budget.spend(later), None);
    }
}
