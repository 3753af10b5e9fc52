//! A connector of a Redis server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::connectors::links::{self, LinkSettings, Links};
use crate::connectors::{AddressList, Fault, TlsConfig};
use crate::secret::Secret;
#[cfg(feature = "redis")]
use crate::secret::{HIDDEN_ANSWER, repeats};
use crate::targets::{AddressRange, TargetPolicy};
#[cfg(feature = "redis")]
use crate::text::excerpt;
use crate::units;

/// Characters of an error that are quoted.
#[cfg(feature = "redis")]
const ERROR_CHARS: usize = 200;

/// `[connectors.<name>]` with `type = "redis"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedisConnectorConfig {
    /// `["host:port", …]`, 1 to 16, tried in this order.
    pub servers: AddressList,
    /// User name, for servers with access lists. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Password. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Number of the database. Default 0.
    #[serde(default)]
    pub database: u16,
    /// Longest time to make a connection, TLS and sign-in included. Default `"5s"`; `"10ms"` to `"10m"`.
    #[schemars(with = "units::Period")]
    #[serde(default = "links::default_connect_timeout", with = "units::duration")]
    pub connect_timeout: Duration,
    /// Speaks TLS, and says what is trusted and shown in it. Default: no TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// Loopback, private and reserved addresses that are allowed beside those of `[actions]`. Default: none.
    #[serde(default)]
    pub allow_private: Vec<AddressRange>,
}

impl RedisConnectorConfig {
    /// Checks it without reading a file.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        self.servers.check()?;
        links::check_connect_timeout(self.connect_timeout)?;
        if self.username.is_some() && self.password.is_none() {
            return Err(Fault::new("username", "needs password too"));
        }
        self.tls.as_ref().map_or(Ok(()), TlsConfig::check)
    }

    /// What makes it show its credentials to everybody on the way.
    pub(crate) fn exposure(&self) -> Option<&'static str> {
        (self.password.is_some() && self.tls.is_none()).then_some("it has no tls")
    }
}

/// A Redis server that actions share a connection to.
pub struct RedisConnector {
    config: RedisConnectorConfig,
    pub(super) links: Links,
    #[cfg(feature = "redis")]
    pub(super) shared: crate::connectors::Shared<super::sink::Connection>,
}

/// Shows no secret.
impl fmt::Debug for RedisConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConnector").field("config", &self.config).finish_non_exhaustive()
    }
}

impl RedisConnector {
    pub(crate) fn load(
        config: &RedisConnectorConfig,
        targets: &TargetPolicy,
        before: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, Fault> {
        config.check()?;
        let settings = LinkSettings {
            allow_private: &config.allow_private,
            tls: config.tls.as_ref(),
            secret_file: None,
            connect_timeout: config.connect_timeout,
        };
        let before = before.filter(|before| before.config == *config);
        Links::load(
            &settings,
            targets,
            before,
            |before| &before.links,
            |links| {
                Ok(Self {
                    config: config.clone(),
                    links,
                    #[cfg(feature = "redis")]
                    shared: crate::connectors::Shared::default(),
                })
            },
        )
    }

    pub(super) fn servers(&self) -> impl Iterator<Item = &crate::connectors::Endpoint> {
        self.config.servers.iter()
    }

    /// The beginning of what the server said, unless it repeats the password.
    #[cfg(feature = "redis")]
    pub(super) fn excerpt(&self, said: &str) -> String {
        let password = self.config.password.as_ref();
        if password.is_some_and(|password| repeats(said, password.expose())) {
            return HIDDEN_ANSWER.to_owned();
        }
        excerpt(said.as_bytes(), ERROR_CHARS)
    }

    #[cfg(feature = "redis")]
    pub(super) const fn config(&self) -> &RedisConnectorConfig {
        &self.config
    }
}
