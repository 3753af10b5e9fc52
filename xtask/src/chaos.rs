//! `cargo xtask chaos`: crash tests for as long as one likes.

use anyhow::Result;

use crate::process;
use crate::test::POWER_CUT;

/// Builds the binary whose kill is a power cut, and kills it as often as is asked for.
///
/// # Errors
/// When something can't be built, or a promise was broken: then it has been printed, with its seed.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    process::cargo().args(["build", "--package", "tidegate", "--features", POWER_CUT]).run()?;
    process::cargo()
        .args(["run", "--package", "integration-tests", "--example", "chaos", "--"])
        .args(arguments)
        .run()
}
