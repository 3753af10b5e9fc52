//! The history on disk: a line a minute, so that a day outlives a restart.
//!
//! Each line is one JSON object with the figures by name, in `metrics-history.jsonl` in the data directory. A line that can't be read,
//! or isn't younger than the one before it, is passed over. The file is never synced: what a power cut takes are minutes of a chart.
//! When it has twice the lines that are needed, it is written anew.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::history::{COARSE_KEPT, SERIES, Sample};

/// Its name in the data directory.
const NAME: &str = "metrics-history.jsonl";
/// So much of its end is read.
const READ_BYTES_MAX: u64 = 4 << 20;
/// As long as the history goes back, in milliseconds.
const KEPT_MS: i64 = 24 * 60 * 60 * 1_000;

/// The file.
#[derive(Debug)]
pub(crate) struct HistoryFile {
    path: PathBuf,
    lines: usize,
    has_failed: bool,
}

impl HistoryFile {
    /// Reads what a run before has left of the last day, oldest first.
    pub(crate) fn open(data_dir: &Path, now_ms: i64) -> (Self, Vec<Sample>) {
        let path = data_dir.join(NAME);
        let mut kept = Self { path, lines: 0, has_failed: false };
        let text = match read_end(&kept.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                kept.tell("read", &error);
                String::new()
            }
        };
        let mut samples: Vec<Sample> = Vec::new();
        for line in text.lines() {
            kept.lines += 1;
            let is_later = |at_ms: i64| samples.last().is_none_or(|last| at_ms > last.at_ms);
            if let Some(sample) = parse(line)
                && (now_ms.saturating_sub(KEPT_MS)..=now_ms).contains(&sample.at_ms)
                && is_later(sample.at_ms)
            {
                samples.push(sample);
            }
        }
        samples.drain(..samples.len().saturating_sub(COARSE_KEPT));
        (kept, samples)
    }

    /// Adds the last of `samples`, which are all that are to be kept.
    pub(crate) fn add(&mut self, samples: &[Sample]) {
        let added =
            if self.lines >= 2 * COARSE_KEPT { self.write_anew(samples) } else { self.append(samples) };
        match added {
            Ok(()) => self.has_failed = false,
            Err(error) => self.tell("written", &error),
        }
    }

    fn append(&mut self, samples: &[Sample]) -> io::Result<()> {
        let Some(last) = samples.last() else { return Ok(()) };
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.path)?;
        let mut line = String::new();
        // A line that was cut off ends here, so that it takes no other with it.
        if file.seek(SeekFrom::End(-1)).is_ok() {
            let mut end = [0];
            file.read_exact(&mut end)?;
            if end != *b"\n" {
                line.push('\n');
            }
        }
        line.push_str(&shown(last));
        file.write_all(line.as_bytes())?;
        self.lines += 1;
        Ok(())
    }

    fn write_anew(&mut self, samples: &[Sample]) -> io::Result<()> {
        let new = self.path.with_extension("jsonl.new");
        let text: String = samples.iter().map(shown).collect();
        let mut file = OpenOptions::new().write(true).truncate(true).create(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&new, &self.path)?;
        self.lines = samples.len();
        Ok(())
    }

    /// Says once that something is wrong, until it isn't any more.
    fn tell(&mut self, what: &str, error: &io::Error) {
        if !std::mem::replace(&mut self.has_failed, true) {
            tracing::warn!(path = %self.path.display(), %error, "the history of figures can't be {what}");
        }
    }
}

fn read_end(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let skipped = length.saturating_sub(READ_BYTES_MAX);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(READ_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn shown(sample: &Sample) -> String {
    let figures =
        SERIES.iter().zip(sample.values).map(|((name, _), value)| ((*name).to_owned(), value.into()));
    let mut line = Map::from_iter([("at_ms".to_owned(), Value::from(sample.at_ms))]);
    line.extend(figures);
    format!("{}\n", Value::Object(line))
}

/// A figure that the line doesn't have, because the version that wrote it didn't know it, is 0.
fn parse(line: &str) -> Option<Sample> {
    let line: Map<String, Value> = serde_json::from_str(line).ok()?;
    let at_ms = line.get("at_ms")?.as_i64()?;
    let values = SERIES.map(|(name, _)| line.get(name).and_then(Value::as_u64).unwrap_or(0));
    Some(Sample { at_ms, values })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: i64 = 60_000;

    fn sample(at_ms: i64) -> Sample {
        let mut values = [0; SERIES.len()];
        values[0] = u64::try_from(at_ms).unwrap();
        values[SERIES.len() - 1] = u64::MAX;
        Sample { at_ms, values }
    }

    fn times(samples: &[Sample]) -> Vec<i64> {
        samples.iter().map(|sample| sample.at_ms).collect()
    }

    #[test]
    fn a_day_comes_back_as_it_was_and_no_more_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut all: Vec<Sample> = Vec::new();
        let (mut file, none) = HistoryFile::open(folder.path(), 0);
        assert!(none.is_empty());
        let count = i64::try_from(2 * COARSE_KEPT + 100).unwrap();
        for minute in 1..=count {
            all.push(sample(minute * MINUTE_MS));
            all.drain(..all.len().saturating_sub(COARSE_KEPT));
            file.add(&all);
        }
        let lines = fs::read_to_string(folder.path().join(NAME)).unwrap().lines().count();
        assert!((COARSE_KEPT..2 * COARSE_KEPT).contains(&lines), "{lines}");
        let (_, back) = HistoryFile::open(folder.path(), count * MINUTE_MS);
        assert_eq!(times(&back), times(&all));
        assert_eq!(back[7].values, all[7].values);
        // A day later nothing of it counts, and neither does what a clock of tomorrow has written.
        let (_, old) = HistoryFile::open(folder.path(), count * MINUTE_MS + KEPT_MS + 1);
        assert!(old.is_empty());
        let (_, early) = HistoryFile::open(folder.path(), MINUTE_MS);
        assert!(early.is_empty());
    }

    #[test]
    fn what_is_damaged_takes_nothing_else_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        let cut = r#"{"at_ms": 90"#;
        let text = format!(
            "{}\u{0}garbage\n[1]\n{{\"at_ms\":\"x\"}}\n{}{}{cut}",
            shown(&sample(5)),
            shown(&sample(4)),
            shown(&sample(6))
        );
        fs::write(&path, text).unwrap();
        let (mut file, samples) = HistoryFile::open(folder.path(), 100);
        assert_eq!(times(&samples), [5, 6]);
        file.add(&[sample(91)]);
        assert_eq!(times(&HistoryFile::open(folder.path(), 100).1), [5, 6, 91]);
        fs::write(&path, b"\xff\xfe\n{\"at_ms\":7}\n").unwrap();
        assert_eq!(times(&HistoryFile::open(folder.path(), 100).1), [7]);
    }

    #[test]
    fn a_folder_that_is_gone_is_no_fault() {
        let folder = tempfile::tempdir().unwrap();
        let (mut file, samples) = HistoryFile::open(&folder.path().join("gone"), 100);
        assert!(samples.is_empty());
        file.add(&[sample(1)]);
        assert!(file.has_failed);
    }
}
