//! `cargo xtask test`: everything that can be tested, with everything it needs.

use anyhow::{Result, bail};

use crate::clients::{self, Consent};
use crate::console;
use crate::process::{self, Program};
use crate::tools;

/// Lets a killed process lose what it hasn't synced, when a test asks for it. Given wherever the workspace is built for
/// tests, so that it is built once.
pub(crate) const POWER_CUT: &str = "tidegate/power-cut";

/// Installs what is missing, then builds and runs every test of the workspace and prints the runners' closing lines. Property tests
/// draw other cases each time, or those of `seed`.
///
/// # Errors
/// When something cannot be installed or built, or a test fails. All runners run before that is reported.
pub(crate) fn run(consent: Consent, seed: Option<u64>) -> Result<()> {
    clients::ensure(consent)?;
    // A test makes the package, and is no place to wait for a tool.
    tools::CARGO_DEB.ensure()?;
    // Embedded in the binary, and looked at in a browser.
    console::run()?;
    // The integration tests start the binary, and nothing else builds it.
    process::cargo().args(["build", "--package", "tidegate", "--features", POWER_CUT]).run()?;

    let tests = if Program::new("cargo-nextest").args(["nextest", "--version"]).succeeds() {
        process::cargo().args(["nextest", "run", "--workspace", "--features", POWER_CUT, "--no-fail-fast"])
    } else {
        println!(
            "cargo-nextest is not installed: the tests run under `cargo test`, one file after the other"
        );
        process::cargo().args([
            "test",
            "--workspace",
            "--features",
            POWER_CUT,
            "--all-targets",
            "--no-fail-fast",
        ])
    };
    let doctests =
        process::cargo().args(["test", "--workspace", "--features", POWER_CUT, "--doc", "--no-fail-fast"]);

    let mut closing = Vec::new();
    let mut failures = Vec::new();
    for mut runner in [tests, doctests] {
        if let Some(seed) = seed {
            runner = runner.env("PROPTEST_RNG_SEED", seed.to_string());
        }
        let (lines, result) = runner.run_and_keep(is_closing_line);
        closing.extend(lines);
        failures.extend(result.err());
    }
    println!("\nClosing lines of the test runners:");
    for line in &closing {
        println!("  {line}");
    }
    match failures.into_iter().next() {
        Some(first) => Err(first),
        None if closing.is_empty() => bail!("no runner reported a result"),
        None => Ok(()),
    }
}

/// nextest: `Summary [ 12.3s] 321 tests run: …` and its list of failures; libtest: `test result: ok. 12 passed; …`.
fn is_closing_line(line: &str) -> bool {
    // nextest repeats what a failed test printed, indented.
    line.trim_start().starts_with("Summary [")
        || (line.starts_with("test result: ") && !line.contains(" 0 passed; 0 failed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_recognised() {
        assert!(is_closing_line("     Summary [   4.190s] 81 tests run: 81 passed, 0 skipped"));
        assert!(is_closing_line(
            "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out"
        ));
        assert!(!is_closing_line(
            "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out"
        ));
        assert!(!is_closing_line("    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured"));
        assert!(!is_closing_line("        PASS [   0.004s] xtask tests::a"));
    }
}
