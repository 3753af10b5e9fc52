//! `cargo xtask console`: builds the web console, which the server then embeds.
//!
//! npm fetches what the lock file names, with its checksums, and runs no script of any package; the compiler checks the types;
//! `console/build.mjs` makes the files, prints what they weigh and fails when that is too much. Whoever only builds the broker needs
//! none of it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::process::{self, Program};

/// Builds `console/dist`.
///
/// # Errors
/// When the packages can't be fetched, a type is wrong, or the console has become too big.
pub(crate) fn run() -> Result<()> {
    let folder = folder();
    install()?;
    Program::new("node")
        .args(["node_modules/typescript/bin/tsc", "--noEmit"])
        .current_dir(&folder)
        .run()
        .context("the console's types don't fit")?;
    Program::new("node").arg("build.mjs").current_dir(&folder).run()
}

/// Installs the packages when the lock file isn't the one that they were installed from: with everything present no network is needed.
fn install() -> Result<()> {
    let folder = folder();
    let lock = fs::read(folder.join("package-lock.json")).context("cannot read console/package-lock.json")?;
    let stamp = folder.join("node_modules/.installed-from.json");
    if fs::read(&stamp).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    Program::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])
        .current_dir(&folder)
        .run()?;
    fs::write(&stamp, lock).with_context(|| format!("cannot write {}", stamp.display()))
}

fn folder() -> PathBuf {
    process::root().join("console")
}
