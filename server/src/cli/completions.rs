//! `tidegate completions`: what a shell needs to complete our command line.

use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};

use super::output::Output;
use super::{Cli, Exit, Failure};

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

/// Runs the command.
pub(super) fn run(args: &CompletionsArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "tidegate", &mut script);
    Output::stdout().bytes(&script)?;
    Ok(Exit::Success)
}
