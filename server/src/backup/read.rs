//! From bytes to entries.
//!
//! A [`Reader`] takes any `BufRead` and gives one entry after the other. Nothing that it has given may be acted on before it
//! has come to the end: only there does it turn out whether the backup is whole.

use std::io::{self, BufRead, Read as _};

use ring::digest::{Context, SHA256};
use serde::Deserialize;

use super::entry::{Entry, Header, Line, Part};
use super::files::is_file_name;
use super::write::hex;
use super::{BACKUP_BYTES_MAX, FORMAT};

/// Why a backup is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// It begins like none.
    #[error("it is no backup: its first line isn't that of one")]
    Foreign,
    /// It is of a version that isn't known.
    #[error("it is of format {found}, and this version knows {FORMAT}")]
    Format {
        /// Its version.
        found: u32,
    },
    /// It has no end.
    #[error("it is cut off: after {entries} entries the end is missing")]
    CutOff {
        /// How many entries there are.
        entries: u64,
    },
    /// It isn't what was written.
    #[error("it is damaged: {what} doesn't agree with its last line")]
    Damaged {
        /// What differs.
        what: &'static str,
    },
    /// Something follows its end.
    #[error("something follows its last line")]
    Trailing,
    /// A line can't be read.
    #[error("line {line}: {problem}")]
    Line {
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// A line is too long.
    #[error("line {line} is longer than the limit of {limit} bytes")]
    LineTooLong {
        /// The line, from 1.
        line: u64,
        /// The limit in bytes.
        limit: usize,
    },
    /// It is too large.
    #[error("it is larger than the limit of {BACKUP_BYTES_MAX} bytes")]
    TooLarge,
    /// It can't be read.
    #[error("it can't be read")]
    Io(#[from] io::Error),
}

/// Reads a backup.
pub struct Reader<R> {
    from: R,
    line_bytes_max: usize,
    header: Header,
    digest: Context,
    entries: u64,
    bytes: u64,
    line: Vec<u8>,
    is_over: bool,
}

impl<R> std::fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("header", &self.header)
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

/// The first line, whatever else it says.
#[derive(Deserialize)]
struct Version {
    tidegate_backup: u32,
}

impl<R: BufRead> Reader<R> {
    /// Reads the first line. No line may be longer than so many bytes.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn open(from: R, line_bytes_max: usize) -> Result<Self, BackupError> {
        let header = Header {
            format: 0,
            product: String::new(),
            store: String::new(),
            made_at_ms: 0,
            parts: Vec::new(),
        };
        let digest = Context::new(&SHA256);
        let mut reader = Self {
            from,
            line_bytes_max,
            header,
            digest,
            entries: 0,
            bytes: 0,
            line: Vec::new(),
            is_over: false,
        };
        match reader.next_line(HEADER_BYTES_MAX) {
            Ok(()) => {}
            Err(BackupError::Io(error)) => return Err(error.into()),
            Err(_) => return Err(BackupError::Foreign),
        }
        // serde would take a list of the members' values for the same.
        let object = reader.line.strip_prefix(b"{").and(Some(&reader.line)).ok_or(BackupError::Foreign)?;
        let version: Version = serde_json::from_slice(object).map_err(|_| BackupError::Foreign)?;
        if version.tidegate_backup != FORMAT {
            return Err(BackupError::Format { found: version.tidegate_backup });
        }
        let header = serde_json::from_slice(&reader.line);
        reader.header = header.map_err(|error| BackupError::Line { line: 1, problem: error.to_string() })?;
        reader.digest.update(&reader.line);
        Ok(reader)
    }

    /// What the first line says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next entry; `None`: that was all, and it is whole.
    ///
    /// # Errors
    /// [`BackupError`]; nothing more is to be read then.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, BackupError> {
        if self.is_over {
            return Ok(None);
        }
        self.next_line(self.line_bytes_max)?;
        match serde_json::from_slice(&self.line) {
            Ok(Line::Entry(_)) if !is_object_in_object(&self.line) => Err(self.fault(UNKNOWN)),
            Ok(Line::Entry(entry)) => {
                if !self.header.parts.contains(&part_of(&entry)) {
                    return Err(self.fault("it belongs to a part that the first line doesn't name"));
                }
                if matches!(&entry, Entry::File(file) if !is_file_name(&file.name)) {
                    return Err(self.fault("that is no name of a file of a backup"));
                }
                self.digest.update(&self.line);
                self.entries += 1;
                Ok(Some(entry))
            }
            Ok(Line::End { end }) => {
                self.is_over = true;
                if end.entries != self.entries {
                    return Err(BackupError::Damaged { what: "the number of entries" });
                }
                if end.sha256 != hex(self.digest.clone().finish().as_ref()) {
                    return Err(BackupError::Damaged { what: "what it says" });
                }
                if !self.from.fill_buf()?.is_empty() {
                    return Err(BackupError::Trailing);
                }
                Ok(None)
            }
            // What a value is isn't repeated: it may be a secret.
            Err(_) => Err(self.fault(match serde_json::from_slice::<serde::de::IgnoredAny>(&self.line) {
                Ok(_) => UNKNOWN,
                Err(_) => "it is no JSON",
            })),
        }
    }

    fn fault(&self, problem: &str) -> BackupError {
        // The first line is no entry, and this one isn't counted where it can't be read.
        BackupError::Line { line: self.entries + 2, problem: problem.to_owned() }
    }

    /// Reads a line of so many bytes, and its newline.
    fn next_line(&mut self, limit: usize) -> Result<(), BackupError> {
        self.line.clear();
        // A long one isn't kept for the short ones after it.
        self.line.shrink_to(64 << 10);
        let most = limit as u64 + 1;
        let read = self.from.by_ref().take(most).read_until(b'\n', &mut self.line)?;
        self.bytes = self.bytes.saturating_add(read as u64);
        if self.bytes > BACKUP_BYTES_MAX {
            return Err(BackupError::TooLarge);
        }
        if self.line.last() == Some(&b'\n') {
            return Ok(());
        }
        if read as u64 == most {
            return Err(BackupError::LineTooLong { line: self.entries + 2, limit });
        }
        Err(BackupError::CutOff { entries: self.entries })
    }
}

/// What is wrong with a line that is JSON and no entry.
const UNKNOWN: &str = "it is no entry that this version knows";

/// Whether a line is an object whose first member is one. serde would take a list of the members' values for the same.
fn is_object_in_object(line: &[u8]) -> bool {
    let mut parts = line.splitn(2, |byte| *byte == b':');
    let is_object = |part: Option<&[u8]>| part.is_some_and(|part| part.starts_with(b"{"));
    is_object(parts.next()) && is_object(parts.next())
}

/// Longest first line, in bytes.
const HEADER_BYTES_MAX: usize = 4 << 10;

/// The part that an entry belongs to.
fn part_of(entry: &Entry) -> Part {
    match entry {
        Entry::Rule(_) | Entry::Suspended(_) => Part::Rules,
        Entry::Cases(_) => Part::Cases,
        Entry::User(_) | Entry::Token(_) => Part::Users,
        Entry::Retained(_) => Part::Retained,
        Entry::File(_) => Part::Files,
    }
}
