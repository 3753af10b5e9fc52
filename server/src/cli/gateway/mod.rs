//! Which gateway a command asks, and what its answers mean for the exit code.
//!
//! The gateway is found by its data directory, as `serve` finds it, and asked by HTTP over its administration socket.

use std::path::PathBuf;

use clap::Args;

mod ask;

pub(super) use ask::{pages, path, query, text_of};

use super::{ConfigArgs, Exit, Failure, chain};
use crate::admin::{AdminClientError, ApiClient};
use crate::config::{self, Durability, Environment, Loaded};

/// Which gateway is asked.
#[derive(Debug, Args)]
pub(super) struct GatewayArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Data directory of the gateway; without it, the configuration's.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl GatewayArgs {
    /// The configuration that is named.
    pub(super) fn config(&self) -> &ConfigArgs {
        &self.config
    }

    /// Whether a data directory is named.
    pub(super) fn names_data_dir(&self) -> bool {
        self.data_dir.is_some()
    }

    /// The HTTP interface of the gateway, over its socket.
    pub(super) fn api(&self, outer: &ConfigArgs, environment: &Environment) -> Result<ApiClient, Failure> {
        Ok(ApiClient::connect(&self.data_dir(outer, environment)?)?)
    }

    /// The configuration that is named.
    pub(super) fn configuration(
        &self,
        outer: &ConfigArgs,
        environment: &Environment,
    ) -> Result<Loaded, Failure> {
        self.config.clone().or(outer).load(environment)
    }

    /// The data directory that is named, else the one that `serve` would use.
    pub(super) fn data_dir(&self, outer: &ConfigArgs, environment: &Environment) -> Result<PathBuf, Failure> {
        if let Some(data_dir) = &self.data_dir {
            return Ok(data_dir.clone());
        }
        let config = self.configuration(outer, environment)?.config;
        if config.store.durability == Durability::Memory {
            return Err(Failure::new(
                Exit::Failed,
                "the gateway keeps everything in memory (store.durability = \"memory\"), so it has no dead letters and no administration socket",
            ));
        }
        Ok(config.data_dir.unwrap_or_else(|| config::default_data_dir(environment)))
    }
}

impl From<AdminClientError> for Failure {
    fn from(error: AdminClientError) -> Self {
        let exit = match &error {
            AdminClientError::Refused { .. } => Exit::Denied,
            _ => Exit::Unreachable,
        };
        Self::new(exit, chain(&error))
    }
}
