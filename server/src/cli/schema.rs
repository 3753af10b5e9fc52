//! `tidegate schema`: what a configuration and a rule file may hold, as JSON Schema.

use clap::Args;

use super::output::Output;
use super::{Exit, Failure};
use crate::{config, rules};

#[derive(Debug, Args)]
pub(super) struct SchemaArgs {
    /// Of rule files instead of the configuration.
    #[arg(long)]
    rules: bool,
}

pub(super) fn run(args: &SchemaArgs) -> Result<Exit, Failure> {
    let schema = if args.rules { rules::rule_schema() } else { config::schema() };
    Output::stdout().line(&format!("{schema:#}"))?;
    Ok(Exit::Success)
}
