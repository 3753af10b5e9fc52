//! The binary, run to its end, with nothing of the machine that runs the tests in its environment.

use std::process::{Command, Output, Stdio};

/// Runs `tidegate` with these arguments and no input.
pub(crate) fn tidegate(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDEGATE_")) {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}
