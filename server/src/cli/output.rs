//! Standard output, with the end of its reader taken for the end of the work.

use std::io::{self, Write as _};

use super::{Exit, Failure};

/// Standard output. Every write goes out at once, so that a reader sees a message when it comes.
#[derive(Debug, Default)]
pub(crate) struct Output(());

impl Output {
    /// The process's own.
    pub(crate) fn stdout() -> Self {
        Self(())
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::silent(Exit::Success),
            _ => Failure::new(Exit::Failed, format!("standard output can't be written: {error}")),
        })
    }

    /// Writes a line.
    pub(crate) fn line(&self, text: &str) -> Result<(), Failure> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Writes a value as one line of JSON.
    pub(crate) fn json(&self, value: &serde_json::Value) -> Result<(), Failure> {
        self.line(&value.to_string())
    }
}

/// Writes a line to standard error; there is no one left to tell if that fails.
pub(crate) fn notice(text: &str) {
    drop(writeln!(io::stderr().lock(), "tidegate: {text}"));
}
