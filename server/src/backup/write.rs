//! From entries to bytes.

use ring::digest::{Context, SHA256};
use serde::Serialize;
use serde_json::json;

use super::entry::{Entry, Header};

/// Writes a backup, line by line.
pub struct Writer {
    digest: Context,
    entries: u64,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("entries", &self.entries).finish_non_exhaustive()
    }
}

impl Writer {
    /// Begins one: the first line with it.
    ///
    /// # Errors
    /// Never as far as we know: it holds nothing that JSON can't say.
    pub fn begin(header: &Header) -> Result<(Self, Vec<u8>), serde_json::Error> {
        let mut writer = Self { digest: Context::new(&SHA256), entries: 0 };
        let line = writer.line(header)?;
        Ok((writer, line))
    }

    /// The line of an entry.
    ///
    /// # Errors
    /// As [`Writer::begin`].
    pub fn entry(&mut self, entry: &Entry) -> Result<Vec<u8>, serde_json::Error> {
        let line = self.line(entry)?;
        self.entries += 1;
        Ok(line)
    }

    /// The last line. What has none is refused as cut off.
    #[must_use]
    pub fn end(self) -> Vec<u8> {
        let sha256 = hex(self.digest.finish().as_ref());
        let mut line = json!({ "end": { "entries": self.entries, "sha256": sha256 } }).to_string();
        line.push('\n');
        line.into_bytes()
    }

    fn line(&mut self, value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.digest.update(&line);
        Ok(line)
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
