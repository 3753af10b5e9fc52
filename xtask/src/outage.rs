//! `cargo xtask outage`: a long outage of one far side of actions, with the figures.

use anyhow::Result;

use crate::process;

/// Builds everything as it is shipped and runs the outage.
///
/// # Errors
/// When something can't be built, or a message was lost.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    process::cargo().args(["build", "--release", "--package", "tidegate"]).run()?;
    process::cargo()
        .args(["run", "--release", "--package", "integration-tests", "--example", "outage", "--"])
        .args(arguments)
        .run()
}
