//! A connector of a Kafka cluster.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::connectors::links::{self, LinkSettings, Links};
use crate::connectors::{AddressList, Endpoint, Fault, TlsConfig};
use crate::secret::Secret;
use crate::targets::{AddressRange, TargetPolicy};
use crate::units;

/// Longest name that we go by, user name and password, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// `[connectors.<name>]` with `type = "kafka"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaConnectorConfig {
    /// `["host:port", …]`, 1 to 16: brokers that are asked for all others, in this order.
    pub servers: AddressList,
    /// What the brokers' logs and quotas know us by. Default `"tidegate"`; 1 to 255 bytes.
    #[schemars(length(min = 1, max = NAME_BYTES_MAX))]
    #[serde(default = "default_client_id")]
    pub client_id: String,
    /// Signs in to every broker. Default: no sign-in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sasl: Option<SaslConfig>,
    /// Longest time to make a connection, TLS and sign-in included. Default `"5s"`; `"10ms"` to `"10m"`.
    #[schemars(with = "units::Period")]
    #[serde(default = "links::default_connect_timeout", with = "units::duration")]
    pub connect_timeout: Duration,
    /// Speaks TLS, and says what is trusted and shown in it. Default: no TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// Loopback, private and reserved addresses that are allowed beside those of `[actions]`, for the brokers that the
    /// cluster names too. Default: none.
    #[serde(default)]
    pub allow_private: Vec<AddressRange>,
}

/// `sasl = { … }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SaslConfig {
    /// How it is shown that we know the password.
    pub mechanism: SaslMechanism,
    /// User name. 1 to 255 bytes.
    #[schemars(length(min = 1, max = NAME_BYTES_MAX))]
    pub username: String,
    /// Password. 1 to 255 bytes.
    pub password: Secret,
}

/// A way to sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub enum SaslMechanism {
    /// The password itself.
    #[serde(rename = "plain")]
    Plain,
    /// SCRAM with SHA-256: the password never leaves us, and the broker shows that it knows it too.
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// SCRAM with SHA-512.
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
}

impl KafkaConnectorConfig {
    /// Checks it without reading a file.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        self.servers.check()?;
        links::check_connect_timeout(self.connect_timeout)?;
        check_text("client_id", &self.client_id)?;
        if let Some(sasl) = &self.sasl {
            check_text("sasl.username", &sasl.username)?;
            check_text("sasl.password", sasl.password.expose())?;
        }
        self.tls.as_ref().map_or(Ok(()), TlsConfig::check)
    }

    /// What makes it show its credentials to everybody on the way.
    pub(crate) fn exposure(&self) -> Option<&'static str> {
        let shows = self.sasl.as_ref().is_some_and(|sasl| sasl.mechanism == SaslMechanism::Plain);
        (shows && self.tls.is_none()).then_some("it has no tls, and sasl.mechanism is \"plain\"")
    }
}

fn check_text(field: &str, text: &str) -> Result<(), Fault> {
    if !(1..=NAME_BYTES_MAX).contains(&text.len()) {
        return Err(Fault::new(field, format!("expected 1 to {NAME_BYTES_MAX} bytes, given {}", text.len())));
    }
    if text.chars().any(char::is_control) {
        return Err(Fault::new(field, "holds a control character"));
    }
    Ok(())
}

/// A Kafka cluster that actions share connections to, one per broker.
pub struct KafkaConnector {
    config: KafkaConnectorConfig,
    pub(super) links: Links,
    #[cfg(feature = "kafka")]
    pub(super) cluster: super::cluster::Cluster,
}

/// Shows no secret.
impl fmt::Debug for KafkaConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConnector").field("config", &self.config).finish_non_exhaustive()
    }
}

impl KafkaConnector {
    pub(crate) fn load(
        config: &KafkaConnectorConfig,
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
                    #[cfg(feature = "kafka")]
                    cluster: super::cluster::Cluster::default(),
                })
            },
        )
    }

    pub(super) fn servers(&self) -> impl Iterator<Item = &Endpoint> {
        self.config.servers.iter()
    }

    #[cfg(feature = "kafka")]
    pub(super) const fn config(&self) -> &KafkaConnectorConfig {
        &self.config
    }
}

fn default_client_id() -> String {
    "tidegate".to_owned()
}
