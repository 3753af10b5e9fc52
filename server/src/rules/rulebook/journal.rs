//! The file that store-owned rules are kept in: `rules.journal` in the data directory.
//!
//! ```text
//! tidegate-rules 1
//! 5d2c11f0 {"versions":[{"rule":"overheat","number":1,"at_ms":1764250000000,"author":"uid 1000","definition":{…}}]}
//! 0b7a94e2 {"suspensions":[{"rule":"comfort","by":"uid 1000","at_ms":1764250090000,"suspended":true}]}
//! 91c40d37 {"pauses":[{"action":"overheat/ops","by":"uid 1000","at_ms":1764250120000,"paused":true}]}
//! ```
//!
//! A line is one change, however many rules it concerns, with its CRC-32C in front: after a crash it is there whole or not at
//! all. A change counts when its line is on disk. An end without a newline was never acknowledged and is cut off; a line that
//! doesn't agree with its checksum is damage, and nothing is guessed about what it said. When most of the file has been
//! overtaken, what still counts is written to a new one, which then takes its place.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::BookError;

/// The file's name in the data directory.
const NAME: &str = "rules.journal";
/// The first line.
const HEADER: &str = "tidegate-rules 1\n";
/// Largest journal that is read, in bytes.
const JOURNAL_BYTES_MAX: u64 = 1 << 30;
/// Bytes below which a journal isn't worth writing anew.
const COMPACT_FROM_BYTES: u64 = 1 << 20;

/// One change.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    /// New versions of rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) versions: Vec<VersionRecord>,
    /// Rules of files that were suspended or resumed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) suspensions: Vec<SuspensionRecord>,
    /// Actions that were paused, or that send again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) pauses: Vec<PauseRecord>,
}

/// One version of one rule.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VersionRecord {
    pub(super) rule: String,
    pub(super) number: u32,
    pub(super) at_ms: i64,
    pub(super) author: String,
    /// What the rule says; `None`: it is gone from then on.
    pub(super) definition: Option<Box<RawValue>>,
}

/// A rule of a file that was suspended, or is no more.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SuspensionRecord {
    pub(super) rule: String,
    pub(super) by: String,
    pub(super) at_ms: i64,
    pub(super) suspended: bool,
}

/// An action that was paused, or is no more.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PauseRecord {
    /// As `rule/action`.
    pub(super) action: String,
    pub(super) by: String,
    pub(super) at_ms: i64,
    pub(super) paused: bool,
}

/// The open file.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: Option<File>,
    /// Up to where it counts.
    bytes: u64,
    /// Its length when it was last written anew.
    compacted_bytes: u64,
    /// A write failed and couldn't be taken back.
    is_broken: bool,
}

impl Journal {
    /// Where the journal of a data directory is.
    pub(super) fn path_in(data_dir: &Path) -> PathBuf {
        data_dir.join(NAME)
    }

    /// Reads the changes of a journal; none where there is no file. Nothing is written.
    pub(super) fn read(path: &Path) -> Result<(Vec<Line>, u64), BookError> {
        let failed = |source| BookError::Journal { path: path.to_owned(), source };
        let mut text = Vec::new();
        match File::open(path) {
            Ok(file) => file.take(JOURNAL_BYTES_MAX + 1).read_to_end(&mut text).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
            Err(error) => return Err(failed(error)),
        };
        if text.len() as u64 > JOURNAL_BYTES_MAX {
            let what = format!("it is larger than the limit of {JOURNAL_BYTES_MAX} bytes");
            return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, what)));
        }
        // The file's very first write broke off.
        if text.len() < HEADER.len() && HEADER.as_bytes().starts_with(&text) {
            return Ok((Vec::new(), 0));
        }
        let damaged = |line, problem: String| BookError::Damaged { path: path.to_owned(), line, problem };
        let Some(mut rest) = text.strip_prefix(HEADER.as_bytes()) else {
            let what = "it begins with no header that this version knows";
            return Err(damaged(1, what.to_owned()));
        };
        let mut lines = Vec::new();
        let mut bytes = HEADER.len() as u64;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let Some((line, after)) = rest.split_at_checked(end + 1) else { break };
            lines.push(parse(line.trim_ascii_end()).map_err(|what| damaged(lines.len() + 2, what))?);
            bytes += line.len() as u64;
            rest = after;
        }
        Ok((lines, bytes))
    }

    /// A journal that counts up to `bytes`, as [`Journal::read`] has said. The file is opened, or made, with the first change.
    pub(super) fn new(path: PathBuf, bytes: u64) -> Self {
        Self { path, file: None, bytes, compacted_bytes: bytes, is_broken: false }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn open(&mut self) -> io::Result<&File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                let mut options = OpenOptions::new();
                options.read(true).write(true).create(true).truncate(false).mode(0o600);
                let file = options.open(&self.path)?;
                if self.bytes == 0 {
                    file.write_all_at(HEADER.as_bytes(), 0)?;
                    self.bytes = HEADER.len() as u64;
                }
                // What lies behind was never acknowledged.
                file.set_len(self.bytes)?;
                file.sync_all()?;
                sync_folder_of(&self.path)?;
                file
            }
        };
        Ok(self.file.insert(file))
    }

    /// Writes a change and returns when it is on disk, with what [`Journal::take_back`] needs. After an error it isn't there.
    pub(super) fn append(&mut self, line: &Line) -> Result<u64, BookError> {
        let text = print(line).map_err(|source| self.failed(source))?;
        if self.is_broken {
            let what = "an earlier write failed and couldn't be taken back; the next start reads it again";
            return Err(self.failed(io::Error::other(what)));
        }
        if self.bytes + text.len() as u64 > JOURNAL_BYTES_MAX {
            let what = format!("it would be larger than the limit of {JOURNAL_BYTES_MAX} bytes");
            return Err(self.failed(io::Error::new(io::ErrorKind::FileTooLarge, what)));
        }
        if let Err(source) = self.open() {
            return Err(self.failed(source));
        }
        let before = self.bytes;
        let written = self.open().and_then(|file| {
            file.write_all_at(text.as_bytes(), before)?;
            file.sync_data()
        });
        if let Err(error) = written {
            self.cut(before);
            return Err(self.failed(error));
        }
        self.bytes = before + text.len() as u64;
        Ok(before)
    }

    /// Takes back what was appended last.
    pub(super) fn take_back(&mut self, before: u64) {
        self.cut(before);
    }

    fn cut(&mut self, bytes: u64) {
        self.bytes = bytes;
        let cut = self.open().and_then(|file| {
            file.set_len(bytes)?;
            file.sync_data()
        });
        if let Err(error) = cut {
            tracing::error!(path = %self.path.display(), %error, "a change of rules can't be taken back");
            self.is_broken = true;
        }
    }

    /// Whether most of it has been overtaken by what came later.
    pub(super) fn is_worth_compacting(&self) -> bool {
        self.bytes >= COMPACT_FROM_BYTES && self.bytes >= self.compacted_bytes.saturating_mul(2)
    }

    /// Writes what still counts to a new file, which takes the place of this one. After an error this one goes on.
    pub(super) fn compact(&mut self, lines: impl Iterator<Item = Line>) -> Result<(), BookError> {
        let fresh = self.path.with_extension("journal.new");
        let (file, bytes) = write_anew(&fresh, lines)
            .and_then(|written| std::fs::rename(&fresh, &self.path).map(|()| written))
            .map_err(|source| self.failed(source))?;
        (self.file, self.bytes, self.compacted_bytes) = (Some(file), bytes, bytes);
        sync_folder_of(&self.path).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> BookError {
        BookError::Journal { path: self.path.clone(), source }
    }
}

fn write_anew(path: &Path, lines: impl Iterator<Item = Line>) -> io::Result<(File, u64)> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut out = io::BufWriter::new(&file);
    out.write_all(HEADER.as_bytes())?;
    let mut bytes = HEADER.len() as u64;
    for line in lines {
        let text = print(&line)?;
        out.write_all(text.as_bytes())?;
        bytes += text.len() as u64;
    }
    out.flush()?;
    drop(out);
    file.sync_all()?;
    Ok((file, bytes))
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn print(line: &Line) -> io::Result<String> {
    let json = serde_json::to_string(line)?;
    Ok(format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes())))
}

fn parse(line: &[u8]) -> Result<Line, String> {
    let (sum, json) =
        std::str::from_utf8(line).ok().and_then(|line| line.split_once(' ')).ok_or("it has no checksum")?;
    if u32::from_str_radix(sum, 16).ok() != Some(crc32c::crc32c(json.as_bytes())) {
        return Err("it doesn't agree with its checksum".to_owned());
    }
    serde_json::from_str(json).map_err(|error| format!("it can't be read: {error}"))
}
