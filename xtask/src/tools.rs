//! Cargo's helpers that chores need: the user's own, or one under `target/tools` that is built on first use.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::process::{self, Program};

/// A program that cargo installs.
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    /// Version that is installed when there is none.
    pub(crate) version: &'static str,
}

pub(crate) const CARGO_DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2" };

/// Makes the Debian package.
pub(crate) const CARGO_DEB: Tool = Tool { name: "cargo-deb", version: "3.8.0" };

impl Tool {
    /// The path of the program, which works.
    ///
    /// # Errors
    /// When it can't be built.
    pub(crate) fn ensure(&self) -> Result<PathBuf> {
        if Program::new(self.name).arg("--version").succeeds() {
            return Ok(self.name.into());
        }
        let tools = process::root().join("target/tools");
        let path = tools.join("bin").join(self.name);
        if !Program::new(&path).arg("--version").succeeds() {
            let start = Instant::now();
            process::cargo()
                .args(["install", self.name, "--locked", "--version", self.version, "--root"])
                .arg(&tools)
                .run()?;
            let took = Duration::from_secs(start.elapsed().as_secs());
            println!("{} {} built in {took:?}", self.name, self.version);
        }
        Ok(path)
    }
}
