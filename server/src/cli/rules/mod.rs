//! `tidegate rules`: work on rules. `counters` and what is in `gateway.rs` ask a gateway that runs; the others need none.

mod counters;
mod explain;
mod gateway;
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
    /// Have the store of a gateway that runs own the rules of a folder.
    Apply(gateway::ApplyArgs),
    /// Say what `apply --prune` would change; exit code 1 if it would.
    Diff(gateway::DiffArgs),
    /// Switch off a rule of the store.
    Disable(gateway::NameArgs),
    /// Switch on a rule of the store.
    Enable(gateway::NameArgs),
    /// Print the rules of the store as a rule file.
    Export(gateway::ExportArgs),
    /// List the rules of a gateway that runs, with their owners.
    List(gateway::ListArgs),
    /// Take out a rule of the store.
    Remove(gateway::NameArgs),
    /// Let a suspended rule run again.
    Resume(gateway::NameArgs),
    /// Have a rule of the store say again what it said in an earlier version.
    Rollback(gateway::RollbackArgs),
    /// Print one rule.
    Show(gateway::NameArgs),
    /// Let a rule of a file run no more, whatever its file says.
    Suspend(gateway::NameArgs),
    /// List the versions of a rule of the store, and what each changed.
    Versions(gateway::NameArgs),
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
        RulesCommand::Apply(args) => gateway::apply(&args, outer, environment),
        RulesCommand::Diff(args) => gateway::diff(&args, outer, environment),
        RulesCommand::Disable(args) => gateway::change(gateway::Deed::Disable, &args, outer, environment),
        RulesCommand::Enable(args) => gateway::change(gateway::Deed::Enable, &args, outer, environment),
        RulesCommand::Export(args) => gateway::export(&args, outer, environment),
        RulesCommand::List(args) => gateway::list(&args, outer, environment),
        RulesCommand::Remove(args) => gateway::change(gateway::Deed::Remove, &args, outer, environment),
        RulesCommand::Resume(args) => gateway::change(gateway::Deed::Resume, &args, outer, environment),
        RulesCommand::Rollback(args) => gateway::rollback(&args, outer, environment),
        RulesCommand::Show(args) => gateway::show(&args, outer, environment),
        RulesCommand::Suspend(args) => gateway::change(gateway::Deed::Suspend, &args, outer, environment),
        RulesCommand::Versions(args) => gateway::versions(&args, outer, environment),
        RulesCommand::Counters(args) => counters::run(&args, outer, environment),
        RulesCommand::Explain(args) => explain::run(&args.or(outer), environment),
        RulesCommand::New(args) => new::run(&args),
        RulesCommand::Test(args) => test::run(&args.or(outer), environment),
    }
}
