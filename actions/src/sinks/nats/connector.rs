//! A connector of NATS servers.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::auth::Credentials;
use super::config::check_subject;
use crate::connectors::links::{self, LinkSettings, Links};
use crate::connectors::{AddressList, Fault, TlsConfig};
use crate::secret::Secret;
use crate::targets::{AddressRange, TargetPolicy};
use crate::units;

/// Longest prefix of inboxes in bytes.
const INBOX_PREFIX_BYTES_MAX: usize = 100;

/// `[connectors.<name>]` with `type = "nats"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NatsConnectorConfig {
    /// `["host:port", …]`, 1 to 16, tried in this order. Others that a server tells of are not connected to.
    pub servers: AddressList,
    /// User name. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Password. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Token, instead of name and password. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// File with a user's JWT and seed (`.creds`). Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<PathBuf>,
    /// Seed of a user's nkey (`SU…`). Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nkey_seed: Option<Secret>,
    /// What subjects for answers begin with. Default `"_INBOX"`; 1 to 100 bytes.
    #[serde(default = "default_inbox_prefix")]
    pub inbox_prefix: String,
    /// Longest time to make a connection, TLS and sign-in included. Default `"5s"`; `"10ms"` to `"10m"`.
    #[schemars(with = "units::Period")]
    #[serde(default = "links::default_connect_timeout", with = "units::duration")]
    pub connect_timeout: Duration,
    /// Speaks TLS, and says what is trusted and shown in it. Default: no TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// Whether TLS comes before the server's greeting (`handshake_first` there). Default `false`.
    #[serde(default)]
    pub tls_first: bool,
    /// Loopback, private and reserved addresses that are allowed beside those of `[actions]`. Default: none.
    #[serde(default)]
    pub allow_private: Vec<AddressRange>,
}

impl NatsConnectorConfig {
    /// Checks it without reading a file.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        self.servers.check()?;
        links::check_connect_timeout(self.connect_timeout)?;
        match (&self.username, &self.password) {
            (Some(_), None) => return Err(Fault::new("username", "needs password too")),
            (None, Some(_)) => return Err(Fault::new("password", "needs username too")),
            _ => {}
        }
        let ways = [
            ("username", self.username.is_some()),
            ("token", self.token.is_some()),
            ("credentials_file", self.credentials_file.is_some()),
            ("nkey_seed", self.nkey_seed.is_some()),
        ];
        let mut given = ways.into_iter().filter(|(_, is_given)| *is_given);
        if let (Some((first, _)), Some((second, _))) = (given.next(), given.next()) {
            return Err(Fault::new(second, format!("{first} is given too; expected one of them")));
        }
        let prefix = &self.inbox_prefix;
        if prefix.len() > INBOX_PREFIX_BYTES_MAX {
            let given = prefix.len();
            let problem = format!("{given} bytes, more than the limit of {INBOX_PREFIX_BYTES_MAX}");
            return Err(Fault::new("inbox_prefix", problem));
        }
        check_subject(prefix).map_err(|expected| Fault::new("inbox_prefix", expected))?;
        if self.tls_first && self.tls.is_none() {
            return Err(Fault::new("tls_first", "needs tls too"));
        }
        self.tls.as_ref().map_or(Ok(()), TlsConfig::check)
    }

    /// What makes it show its credentials to everybody on the way. Seeds sign, and are never sent.
    pub(crate) fn exposure(&self) -> Option<&'static str> {
        let is_sent = self.password.is_some() || self.token.is_some();
        (is_sent && self.tls.is_none()).then_some("it has no tls")
    }
}

/// NATS servers that actions share a connection to.
pub struct NatsConnector {
    pub(super) config: NatsConnectorConfig,
    pub(super) credentials: Credentials,
    pub(super) links: Links,
    #[cfg(feature = "nats")]
    pub(super) shared: crate::connectors::Shared<super::client::Connection>,
}

/// Shows no secret.
impl fmt::Debug for NatsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsConnector").field("config", &self.config).finish_non_exhaustive()
    }
}

impl NatsConnector {
    pub(crate) fn load(
        config: &NatsConnectorConfig,
        targets: &TargetPolicy,
        before: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, Fault> {
        config.check()?;
        let settings = LinkSettings {
            allow_private: &config.allow_private,
            tls: config.tls.as_ref(),
            secret_file: config.credentials_file.as_deref().map(|path| ("credentials_file", path)),
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
                    credentials: Credentials::new(config, links.secret())?,
                    links,
                    #[cfg(feature = "nats")]
                    shared: crate::connectors::Shared::default(),
                })
            },
        )
    }
}

fn default_inbox_prefix() -> String {
    "_INBOX".to_owned()
}
