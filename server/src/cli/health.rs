//! `tidegate health`: whether a running gateway lets clients in, for whoever starts and stops it.

use clap::Args;

use super::gateway::GatewayArgs;
use super::output::Output;
use super::{ConfigArgs, Exit, Failure};
use crate::config::Environment;

/// Arguments of `health`.
#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
}

/// Runs the command.
pub(super) fn run(args: &HealthArgs, outer: &ConfigArgs, environment: &Environment) -> Result<Exit, Failure> {
    args.gateway.api(outer, environment)?.get("/readyz")?;
    Output::stdout().line("ready")?;
    Ok(Exit::Success)
}
