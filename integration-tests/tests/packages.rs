//! The Debian package, made from the binary under test, in a root of its own.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic where they can't go on")]

use std::path::{Path, PathBuf};
use std::process::Command;

use integration_tests::tools::tidegate;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Runs a program to its end; what it prints is the test's output if it fails.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.current_dir(root()).output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}:\n{text}", output.status);
    text
}

/// A program that runs as root: as it is where we are root, else by sudo, which mustn't ask.
fn as_root(program: &str) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["--non-interactive", program]);
    command
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().unwrap();
    output.stdout == b"0\n"
}

/// What the package is installed in: nothing of it is seen outside.
const NAMESPACES: [&str; 4] = ["--mount", "--net", "--pid", "--fork"];

fn may_make_namespaces() -> bool {
    as_root("unshare").args(NAMESPACES).arg("true").output().is_ok_and(|output| output.status.success())
}

#[test]
fn the_debian_package_installs_runs_upgrades_and_goes() {
    run(Command::new(env!("CARGO")).args(["xtask", "deb", "--binary"]).arg(tidegate().get_program()));
    let package = root().join("target/packaging/tidegate.deb");
    if !may_make_namespaces() {
        // Containers often forbid it. The machine itself is no place to try it.
        eprintln!("namespaces may not be made here: the package was made and isn't tried");
        return;
    }
    let script = root().join("integration-tests/packages/debian.sh");
    let said = run(as_root("unshare").args(NAMESPACES).arg(script).arg(package));
    // A script that ends early shows less.
    assert_eq!(said.lines().filter(|line| line.starts_with("shows: ")).count(), 8, "{said}");
    assert_eq!(said.lines().last(), Some("done"), "{said}");
}
