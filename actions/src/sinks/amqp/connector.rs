//! A connector of an AMQP 0-9-1 server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::config::SHORT_BYTES_MAX;
use crate::connectors::links::{self, LinkSettings, Links};
use crate::connectors::{AddressList, Fault, TlsConfig};
use crate::secret::Secret;
use crate::targets::{AddressRange, TargetPolicy};
use crate::units;

/// `[connectors.<name>]` with `type = "amqp"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AmqpConnectorConfig {
    /// `["host:port", …]`, 1 to 16, tried in this order.
    pub servers: AddressList,
    /// The virtual host. Default `"/"`.
    #[serde(default = "default_vhost")]
    pub vhost: String,
    /// User name, with `auth_mechanism = "plain"`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Password, with `auth_mechanism = "plain"`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// How it says who it is. Default `"plain"`.
    #[serde(default)]
    pub auth_mechanism: AuthMechanism,
    /// How long either side may be silent; after twice as long the connection is given up. Default `"30s"`, whole seconds,
    /// `"1s"` to `"1h"`; the server may want less.
    #[schemars(with = "units::Period")]
    #[serde(default = "default_heartbeat", with = "units::duration")]
    pub heartbeat: Duration,
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

/// How a connector says who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AuthMechanism {
    /// By user name and password.
    #[default]
    Plain,
    /// By the certificate that it shows in TLS.
    External,
}

impl AmqpConnectorConfig {
    /// Checks it without reading a file.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        self.servers.check()?;
        links::check_connect_timeout(self.connect_timeout)?;
        if self.vhost.len() > SHORT_BYTES_MAX {
            let given = self.vhost.len();
            return Err(Fault::new(
                "vhost",
                format!("expected at most {SHORT_BYTES_MAX} bytes, given {given}"),
            ));
        }
        let is_whole = self.heartbeat.subsec_nanos() == 0;
        if !is_whole || !(1..=3_600).contains(&self.heartbeat.as_secs()) {
            let problem = format!("expected 1s to 1h in whole seconds, given {:?}", self.heartbeat);
            return Err(Fault::new("heartbeat", problem));
        }
        self.check_credentials()?;
        self.tls.as_ref().map_or(Ok(()), TlsConfig::check)
    }

    fn check_credentials(&self) -> Result<(), Fault> {
        match self.auth_mechanism {
            AuthMechanism::Plain => {
                let Some(username) = &self.username else {
                    return Err(Fault::new("username", "auth_mechanism = \"plain\" needs it"));
                };
                let Some(password) = &self.password else {
                    return Err(Fault::new("password", "auth_mechanism = \"plain\" needs it"));
                };
                // It stands between the two.
                let has_nul = |text: &str| text.contains('\0');
                match (has_nul(username), has_nul(password.expose())) {
                    (true, _) => Err(Fault::new("username", "holds a NUL")),
                    (_, true) => Err(Fault::new("password", "holds a NUL")),
                    _ => Ok(()),
                }
            }
            AuthMechanism::External => {
                if self.username.is_some() || self.password.is_some() {
                    let field = if self.username.is_some() { "username" } else { "password" };
                    return Err(Fault::new(field, "belongs to auth_mechanism = \"plain\""));
                }
                if self.tls.as_ref().is_none_or(|tls| tls.client_cert_file.is_none()) {
                    let problem = "\"external\" needs a certificate: tls.client_cert_file";
                    return Err(Fault::new("auth_mechanism", problem));
                }
                Ok(())
            }
        }
    }

    /// What makes it show its credentials to everybody on the way.
    pub(crate) fn exposure(&self) -> Option<&'static str> {
        (self.password.is_some() && self.tls.is_none()).then_some("it has no tls")
    }
}

/// An AMQP server that actions share a connection to.
pub struct AmqpConnector {
    config: AmqpConnectorConfig,
    pub(super) links: Links,
    #[cfg(feature = "amqp")]
    pub(super) shared: crate::connectors::Shared<super::connection::Connection>,
}

/// Shows no secret.
impl fmt::Debug for AmqpConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AmqpConnector").field("config", &self.config).finish_non_exhaustive()
    }
}

impl AmqpConnector {
    pub(crate) fn load(
        config: &AmqpConnectorConfig,
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
                    #[cfg(feature = "amqp")]
                    shared: crate::connectors::Shared::default(),
                })
            },
        )
    }

    pub(super) fn servers(&self) -> impl Iterator<Item = &crate::connectors::Endpoint> {
        self.config.servers.iter()
    }

    #[cfg(feature = "amqp")]
    pub(super) const fn config(&self) -> &AmqpConnectorConfig {
        &self.config
    }
}

fn default_vhost() -> String {
    "/".to_owned()
}

const fn default_heartbeat() -> Duration {
    Duration::from_secs(30)
}
