//! `tidegate setup-token`: asks a running gateway for a token with which an administrator can be made.

use clap::Args;
use serde_json::Value;

use super::gateway::GatewayArgs;
use super::output::Output;
use super::{ConfigArgs, Exit, Failure};
use crate::config::Environment;

/// Arguments of `setup-token`.
#[derive(Debug, Args)]
pub(super) struct SetupTokenArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
}

/// Runs the command.
pub(super) fn run(
    args: &SetupTokenArgs,
    outer: &ConfigArgs,
    environment: &Environment,
) -> Result<Exit, Failure> {
    let answer = args.gateway.api(outer, environment)?.post("/api/v1/setup-tokens", &Value::Null)?;
    let token = answer.get("setup_token").and_then(Value::as_str);
    let token = token.ok_or_else(|| Failure::new(Exit::Failed, "the gateway's answer holds no token"))?;
    Output::stdout().line(token)?;
    Ok(Exit::Success)
}
