//! `tidegate rules`: work on rules, one subcommand a file. All but `counters` need no server.

mod counters;
mod explain;
mod junit;
mod new;
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
    /// Show what became of messages and requests in a gateway that runs.
    Counters(counters::CountersArgs),
    /// Say for one message what each rule makes of it, and why.
    Explain(Box<explain::ExplainArgs>),
    /// Print a rule file for a statement, to be completed.
    New(new::NewArgs),
    /// Run test cases that are kept as data beside the rules.
    Test(test::TestArgs),
}

pub(super) fn run(args: RulesArgs, outer: &ConfigArgs, environment: &Environment) -> Result<Exit, Failure> {
    match args.command {
        RulesCommand::Counters(args) => counters::run(&args, outer, environment),
        RulesCommand::Explain(args) => explain::run(&args.or(outer), environment),
        RulesCommand::New(args) => new::run(&args),
        RulesCommand::Test(args) => test::run(&args.or(outer), environment),
    }
}
