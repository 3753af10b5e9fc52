//! Connectors: where actions go, and what they show there, under a name of the configuration.
//!
//! A connector is made once and shared by every action that names it, its connections too. It knows address,
//! credentials and certificates; an action knows what it sends. So a queued request holds nothing of its connector, and a
//! changed password applies to what is queued as well.
//!
//! Each kind has its settings and its driver beside its sink (`sinks/<kind>/connector.rs`); here is what they have in
//! common: the table of all of them ([`Connectors`]), TLS (`tls`), how an address becomes a connection (`dial`), what is loaded for
//! that (`links`), and how it is tried without effect (`probe`).

mod bounded;
mod dial;
pub(crate) mod links;
mod probe;
mod shared;
pub(crate) mod tls;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

pub(crate) use self::bounded::{Allowance, Bounded};
pub use self::dial::AddressList;
pub(crate) use self::dial::{Dialer, Endpoint, Link};
pub(crate) use self::probe::Probe;
pub use self::probe::{ConnectorTest, TEST_TIMEOUT, TestStage, TestStep};
pub(crate) use self::shared::Shared;
pub use self::tls::TlsConfig;
use crate::error::ActionConfigError;
pub use crate::sinks::amqp::{AmqpConnector, AmqpConnectorConfig};
pub use crate::sinks::http::{HttpConnector, HttpConnectorConfig};
pub use crate::sinks::kafka::{KafkaConnector, KafkaConnectorConfig};
pub use crate::sinks::nats::{NatsConnector, NatsConnectorConfig};
pub use crate::sinks::redis::{RedisConnector, RedisConnectorConfig};
use crate::targets::TargetPolicy;
use crate::text::excerpt;

/// Most connectors of a configuration.
const CONNECTORS_MAX: usize = 1_000;

/// `[connectors.<name>]`: `type` says what it leads to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ConnectorConfig {
    /// `type = "http"`: HTTP servers.
    Http(Box<HttpConnectorConfig>),
    /// `type = "nats"`: NATS servers.
    Nats(Box<NatsConnectorConfig>),
    /// `type = "amqp"`: an AMQP 0-9-1 server.
    Amqp(Box<AmqpConnectorConfig>),
    /// `type = "kafka"`: a Kafka cluster.
    Kafka(Box<KafkaConnectorConfig>),
    /// `type = "redis"`: a Redis server.
    Redis(Box<RedisConnectorConfig>),
}

impl ConnectorConfig {
    /// The values that `type` may have.
    pub const KINDS: &'static [&'static str] = &["http", "amqp", "kafka", "nats", "redis"];

    /// Returns the value of `type`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Nats(_) => "nats",
            Self::Amqp(_) => "amqp",
            Self::Kafka(_) => "kafka",
            Self::Redis(_) => "redis",
        }
    }

    /// The files that it names.
    pub fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let (tls, other) = match self {
            Self::Http(config) => (&mut config.tls, None),
            Self::Nats(config) => (&mut config.tls, config.credentials_file.as_mut()),
            Self::Amqp(config) => (&mut config.tls, None),
            Self::Kafka(config) => (&mut config.tls, None),
            Self::Redis(config) => (&mut config.tls, None),
        };
        tls.iter_mut().flat_map(TlsConfig::files_mut).chain(other)
    }

    /// What makes it show its credentials to everybody on the way; `None` if nothing does.
    #[must_use]
    pub fn exposure(&self) -> Option<&'static str> {
        match self {
            Self::Http(config) => config.exposure(),
            Self::Nats(config) => config.exposure(),
            Self::Amqp(config) => config.exposure(),
            Self::Kafka(config) => config.exposure(),
            Self::Redis(config) => config.exposure(),
        }
    }
}

/// Reads connectors from tables whose only key is their type: `{ ops = { http = { url = … } } }`. For readers that tell the
/// place of a fault, which is lost where the type stands among the other keys.
///
/// # Errors
/// The deserializer's own: unknown types and keys, missing keys, values of a wrong type.
pub fn by_type<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, ConnectorConfig>, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum ByType {
        Http(Box<HttpConnectorConfig>),
        Nats(Box<NatsConnectorConfig>),
        Amqp(Box<AmqpConnectorConfig>),
        Kafka(Box<KafkaConnectorConfig>),
        Redis(Box<RedisConnectorConfig>),
    }
    let tables = BTreeMap::<String, ByType>::deserialize(deserializer)?;
    let connector = |(name, table)| {
        let config = match table {
            ByType::Http(config) => ConnectorConfig::Http(config),
            ByType::Nats(config) => ConnectorConfig::Nats(config),
            ByType::Amqp(config) => ConnectorConfig::Amqp(config),
            ByType::Kafka(config) => ConnectorConfig::Kafka(config),
            ByType::Redis(config) => ConnectorConfig::Redis(config),
        };
        (name, config)
    };
    Ok(tables.into_iter().map(connector).collect())
}

/// A setting of a connector that can't work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("connector \"{connector}\", {field}: {problem}")]
pub struct ConnectorError {
    /// The connector's name.
    pub connector: String,
    /// The key, as in the configuration: `auth.token_url`.
    pub field: String,
    /// What is wrong and what was expected. Holds no secret.
    pub problem: String,
}

/// One connector, ready to use.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Connector {
    /// For actions of type `http`.
    Http(Arc<HttpConnector>),
    /// For actions of type `nats`.
    Nats(Arc<NatsConnector>),
    /// For actions of type `amqp`.
    Amqp(Arc<AmqpConnector>),
    /// For actions of type `kafka`.
    Kafka(Arc<KafkaConnector>),
    /// For actions of type `redis`.
    Redis(Arc<RedisConnector>),
}

impl Connector {
    fn load(config: &ConnectorConfig, targets: &TargetPolicy, before: Option<&Self>) -> Result<Self, Fault> {
        match config {
            ConnectorConfig::Http(config) => {
                let before = before.and_then(Self::http);
                HttpConnector::load(config, targets, before).map(Self::Http)
            }
            ConnectorConfig::Nats(config) => {
                let before = before.and_then(Self::nats);
                NatsConnector::load(config, targets, before).map(Self::Nats)
            }
            ConnectorConfig::Amqp(config) => {
                let before = before.and_then(Self::amqp);
                AmqpConnector::load(config, targets, before).map(Self::Amqp)
            }
            ConnectorConfig::Kafka(config) => {
                let before = before.and_then(Self::kafka);
                KafkaConnector::load(config, targets, before).map(Self::Kafka)
            }
            ConnectorConfig::Redis(config) => {
                let before = before.and_then(Self::redis);
                RedisConnector::load(config, targets, before).map(Self::Redis)
            }
        }
    }

    /// Whether these are the very same.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Http(one), Self::Http(other)) => Arc::ptr_eq(one, other),
            (Self::Nats(one), Self::Nats(other)) => Arc::ptr_eq(one, other),
            (Self::Amqp(one), Self::Amqp(other)) => Arc::ptr_eq(one, other),
            (Self::Kafka(one), Self::Kafka(other)) => Arc::ptr_eq(one, other),
            (Self::Redis(one), Self::Redis(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// Returns the value of `type`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Nats(_) => "nats",
            Self::Amqp(_) => "amqp",
            Self::Kafka(_) => "kafka",
            Self::Redis(_) => "redis",
        }
    }

    pub(crate) const fn http(&self) -> Option<&Arc<HttpConnector>> {
        if let Self::Http(connector) = self { Some(connector) } else { None }
    }

    pub(crate) const fn nats(&self) -> Option<&Arc<NatsConnector>> {
        if let Self::Nats(connector) = self { Some(connector) } else { None }
    }

    pub(crate) const fn amqp(&self) -> Option<&Arc<AmqpConnector>> {
        if let Self::Amqp(connector) = self { Some(connector) } else { None }
    }

    pub(crate) const fn kafka(&self) -> Option<&Arc<KafkaConnector>> {
        if let Self::Kafka(connector) = self { Some(connector) } else { None }
    }

    pub(crate) const fn redis(&self) -> Option<&Arc<RedisConnector>> {
        if let Self::Redis(connector) = self { Some(connector) } else { None }
    }
}

/// The connectors of a configuration, ready to use.
#[derive(Debug, Clone, Default)]
pub struct Connectors(BTreeMap<String, Connector>);

impl Connectors {
    /// Makes connectors of their settings and reads their files. Nothing is connected to. One that hasn't changed since
    /// `before`, its files included, stays the same, with the connections and tokens that it holds.
    ///
    /// # Errors
    /// Every fault that is found.
    pub fn load<'c>(
        configs: impl IntoIterator<Item = (&'c String, &'c ConnectorConfig)>,
        targets: &TargetPolicy,
        before: &Self,
    ) -> Result<Self, Vec<ConnectorError>> {
        let mut connectors = BTreeMap::new();
        let mut errors = Vec::new();
        for (name, config) in configs {
            if connectors.len() >= CONNECTORS_MAX {
                let fault = Fault::new("type", format!("more than {CONNECTORS_MAX} connectors"));
                errors.push(fault.of(name));
                break;
            }
            match Connector::load(config, targets, before.get(name)) {
                Ok(connector) => {
                    connectors.insert(name.clone(), connector);
                }
                Err(fault) => errors.push(fault.of(name)),
            }
        }
        if errors.is_empty() { Ok(Self(connectors)) } else { Err(errors) }
    }

    /// Checks settings without reading a file.
    ///
    /// # Errors
    /// The first fault.
    pub fn check(name: &str, config: &ConnectorConfig) -> Result<(), ConnectorError> {
        let result = match config {
            ConnectorConfig::Http(config) => config.check(),
            ConnectorConfig::Nats(config) => config.check(),
            ConnectorConfig::Amqp(config) => config.check(),
            ConnectorConfig::Kafka(config) => config.check(),
            ConnectorConfig::Redis(config) => config.check(),
        };
        result.map_err(|fault| fault.of(name))
    }

    /// The connector of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Connector> {
        self.0.get(name)
    }

    /// The one that an action of this kind names.
    ///
    /// # Errors
    /// [`ActionConfigError`] when there is none of the name, or it is of another kind.
    pub(crate) fn of_kind<'c, C>(
        &'c self,
        action: &str,
        name: &str,
        kind: &str,
        of: impl Fn(&'c Connector) -> Option<&'c Arc<C>>,
    ) -> Result<&'c Arc<C>, ActionConfigError> {
        let fault = |problem: String| ActionConfigError::field_error(action, "connector", problem);
        let shown = excerpt(name.as_bytes(), 64);
        let expected = || {
            let fit: Vec<&str> =
                self.0.iter().filter(|(_, c)| c.kind() == kind).map(|(name, _)| name.as_str()).collect();
            if fit.is_empty() {
                "there is none".to_owned()
            } else {
                format!("expected one of {}", fit.join(", "))
            }
        };
        let Some(connector) = self.get(name) else {
            return Err(fault(format!("the configuration has no [connectors.{shown}]; {}", expected())));
        };
        of(connector).ok_or_else(|| {
            let found = connector.kind();
            fault(format!("[connectors.{shown}] is of type \"{found}\", not \"{kind}\"; {}", expected()))
        })
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether both have the very same connector under this name, or none.
    #[must_use]
    pub fn agree_on(&self, other: &Self, name: &str) -> bool {
        match (self.get(name), other.get(name)) {
            (Some(one), Some(other)) => one.is_same(other),
            (None, None) => true,
            _ => false,
        }
    }

    /// Whether these are the very same connectors, none changed and none made anew.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.keys().all(|name| self.agree_on(other, name))
    }
}

/// A key that is at fault, while the connector's name isn't known.
#[derive(Debug)]
pub(crate) struct Fault {
    field: String,
    problem: String,
}

impl Fault {
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }

    fn of(self, connector: &str) -> ConnectorError {
        ConnectorError { connector: connector.to_owned(), field: self.field, problem: self.problem }
    }
}
