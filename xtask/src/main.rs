//! The project's chores: `cargo xtask <command>`.
//!
//! One command does what CI does (`ci`), one runs every test with everything the tests need (`test`), one shows the
//! product (`demo`). Each step is an ordinary command that is printed before it runs, so it can be repeated by hand.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to its terminal")]

mod bench;
mod chaos;
mod ci;
mod clients;
mod console;
mod fuzz;
mod matrix;
mod outage;
mod packages;
mod process;
mod test;
mod tools;

use std::env;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::process::Program;

const USAGE: &str = "\
usage: cargo xtask <command>

  demo [ARGUMENTS]             build the console and the release binary, and run `tidegate demo`
  console                      build the web console, which the next build of the broker embeds
  test [--yes]                 install what the tests need, then run every test of the workspace
  ci                           what CI runs: fmt, clippy, doc, deny, test, a short run of each fuzz target
  fuzz [TARGET] [--seconds N]  run one fuzz target, or all of them (default: 60 seconds each)
  chaos [--kills N] [--seed N] kill a broker under load again and again, and see whether it keeps its promises
  matrix [--yes]               put every sink through every fault, and print what came of it
  outage KIND [--messages N]   publish a million messages while the far side of an action is down, and count them
  deb [--binary FILE]          make the Debian package, of a release build or of a binary that is there
  image                        build the static binary, and the container image where an engine for it is installed
  bench [NAME]                 run the micro-benchmarks of the crates, or those whose name contains NAME

`test` and `matrix` ask before they install anything, unless --yes is given or the variable CI is set.";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<()> {
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", arguments),
    };
    match command {
        "demo" => demo(rest),
        "console" => {
            no_arguments(rest)?;
            console::run()
        }
        "test" => test::run(clients::Consent::from_arguments(rest)?, None),
        "ci" => {
            no_arguments(rest)?;
            ci::run()
        }
        "fuzz" => fuzz::run(&fuzz::Options::from_arguments(rest)?),
        "chaos" => chaos::run(rest),
        "matrix" => matrix::run(clients::Consent::from_arguments(rest)?),
        "outage" => outage::run(rest),
        "deb" => packages::deb(rest),
        "image" => {
            no_arguments(rest)?;
            packages::image()
        }
        "bench" => bench::run(rest),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(())
        }
        other => bail!("unknown command \"{other}\"\n\n{USAGE}"),
    }
}

/// Without Node the demo runs all the same; its page says how the console is built.
fn demo(arguments: &[String]) -> Result<()> {
    if Program::new("node").arg("--version").succeeds() && Program::new("npm").arg("--version").succeeds() {
        console::run()?;
    } else {
        println!("Node with npm is not installed: the demo runs without the console");
    }
    process::cargo().args(["run", "--release", "--package", "tidegate", "--", "demo"]).args(arguments).run()
}

fn no_arguments(arguments: &[String]) -> Result<()> {
    match arguments.first() {
        None => Ok(()),
        Some(argument) => bail!("unexpected argument \"{argument}\"\n\n{USAGE}"),
    }
}
