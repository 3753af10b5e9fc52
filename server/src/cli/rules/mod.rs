//! `tidegate rules`: work on rules without a server, one subcommand a file.

mod junit;
mod test;

use clap::{Args, Subcommand};

use super::{ConfigArgs, Exit, Failure};
use crate::config::Environment;

#[derive(Debug, Args)]
pub(super) struct RulesArgs {
    #[command(subcommand)]
    command: RulesCommand,
}

#[derive(Debug, Subcommand)]
enum RulesCommand {
    /// Run test cases that are kept as data beside the rules.
    Test(test::TestArgs),
}

pub(super) fn run(args: RulesArgs, outer: &ConfigArgs, environment: &Environment) -> Result<Exit, Failure> {
    match args.command {
        RulesCommand::Test(args) => test::run(&args.or(outer), environment),
    }
}
