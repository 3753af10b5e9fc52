//! The configuration of an action, as it stands in a rule.
//!
//! Every kind is one serde struct beside its sink, with unknown keys refused. `type` chooses the kind. Keys that kinds
//! have in common (`queue`, `retry`, `concurrency`, `order_by`) are repeated in each struct, because serde can't refuse
//! unknown keys through a flattened part.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::error::ActionConfigError;
pub use crate::sinks::http::{
    AuthConfig, AuthKind, BatchFormat, BodyFormat, ClientAuth, ConnectorConfig, ConnectorKind, HmacAlgorithm,
    HmacFormat, HostPattern, HttpBatchConfig, HttpConfig, Redirect, TlsConfig,
};
pub use crate::sinks::log::{LogConfig, LogLevel};
pub use crate::sinks::republish::{RepublishConfig, Scalar};
use crate::units;

/// Most characters of an action's name.
pub const NAME_CHARS_MAX: usize = 64;

/// One action of a rule.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ActionConfig {
    /// `type = "republish"`: publish to a topic of this broker.
    Republish(RepublishConfig),
    /// `type = "http"`: one HTTP request per message.
    Http(HttpConfig),
    /// `type = "log"`: one log line per message.
    Log(LogConfig),
}

impl ActionConfig {
    /// The values that `type` may have.
    pub const KINDS: &'static [&'static str] = &["republish", "http", "log"];

    /// Reads the settings of one kind; `deserializer` holds every key but `type`. For callers whose format can say
    /// where a value stands, which serde's own tagged form loses.
    ///
    /// Returns `None` when there is no such kind.
    ///
    /// # Errors
    /// The deserializer's own: unknown keys, missing keys, values of a wrong type.
    pub fn from_kind<'de, D: Deserializer<'de>>(
        kind: &str,
        deserializer: D,
    ) -> Option<Result<Self, D::Error>> {
        Some(match kind {
            "republish" => RepublishConfig::deserialize(deserializer).map(Self::Republish),
            "http" => HttpConfig::deserialize(deserializer).map(Self::Http),
            "log" => LogConfig::deserialize(deserializer).map(Self::Log),
            _ => return None,
        })
    }

    /// Returns the action's name; empty when none was given.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Republish(config) => &config.name,
            Self::Http(config) => &config.name,
            Self::Log(config) => &config.name,
        }
    }

    /// Returns this action under another name, for an error action, which has no key for it.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        match &mut self {
            Self::Republish(config) => name.clone_into(&mut config.name),
            Self::Http(config) => name.clone_into(&mut config.name),
            Self::Log(config) => name.clone_into(&mut config.name),
        }
        self
    }

    /// Returns what the action acts upon, for error documents and lists: the topic's template, the connector, or the URL's
    /// origin.
    /// Holds no path or query, which may hold a secret.
    #[must_use]
    pub fn resource(&self) -> String {
        match self {
            Self::Republish(config) => config.topic.clone(),
            Self::Http(HttpConfig { connector: Some(connector), .. }) => format!("connector {connector}"),
            Self::Http(config) => {
                let (scheme, rest) = config.url.split_once("://").unwrap_or(("http", ""));
                format!("{scheme}://{}", rest.split(['/', '?', '#']).next().unwrap_or_default())
            }
            Self::Log(_) => "log".to_owned(),
        }
    }

    /// Returns the value of `type`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Republish(_) => "republish",
            Self::Http(_) => "http",
            Self::Log(_) => "log",
        }
    }
}

pub(crate) fn check_name(name: &str) -> Result<(), ActionConfigError> {
    let fits = (1..=NAME_CHARS_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if fits { Ok(()) } else { Err(ActionConfigError::Name { name: name.to_owned(), max: NAME_CHARS_MAX }) }
}

/// What waits for delivery, at most, and what happens past that. `queue = { … }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueueConfig {
    /// Most requests waiting or in flight. Default 10,000; 1 to 10,000,000.
    pub max_items: usize,
    /// Most bytes of requests waiting or in flight. Default `"64MiB"`; at least `"1KiB"`.
    #[serde(with = "units::size")]
    pub max_bytes: u64,
    /// What gives way when either is reached. Default `"drop_oldest"`.
    pub overflow: Overflow,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self { max_items: 10_000, max_bytes: 64 << 20, overflow: Overflow::DropOldest }
    }
}

/// What gives way when a queue is full. Either way the loss is counted under `queue_full`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Overflow {
    /// The requests that have waited longest.
    DropOldest,
    /// The request that doesn't fit any more.
    DropNewest,
}

/// When a request that failed is tried again, and when it is given up. `retry = { … }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryConfig {
    /// Most attempts that may have reached the far side; refused connections and failed name look-ups don't count.
    /// Default 20; 1 to 1,000,000.
    pub max_attempts: u32,
    /// A request older than this is given up. Default `"1d"`; `"1s"` to `"30d"`.
    #[serde(with = "units::duration")]
    pub max_age: Duration,
    /// Upper end of the first pause; it doubles with each attempt. Default `"500ms"`; at least `"1ms"`.
    #[serde(with = "units::duration")]
    pub initial_backoff: Duration,
    /// Upper end of every pause, for `Retry-After` too. Default `"1m"`; at most `"1d"`.
    #[serde(with = "units::duration")]
    pub max_backoff: Duration,
    /// Pause after an answer that says that nothing will be taken from us as we are. Default `"5m"`; `"1s"` to `"1d"`.
    #[serde(with = "units::duration")]
    pub disabled_pause: Duration,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            max_attempts: 20,
            max_age: Duration::from_secs(86_400),
            initial_backoff: Duration::from_millis(500),
            max_backoff: Duration::from_secs(60),
            disabled_pause: Duration::from_secs(300),
        }
    }
}

/// Which requests keep their order among each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OrderBy {
    /// Those made from messages of one publisher. One of them is in flight at a time.
    #[default]
    Publisher,
    /// Those made from messages on one topic.
    Topic,
    /// None: every request goes out as soon as it can.
    None,
}

/// The settings of the delivery machine, taken from an action's common keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryConfig {
    /// Bounds of the queue.
    pub queue: QueueConfig,
    /// Retry policy.
    pub retry: RetryConfig,
    /// Most batches in flight at a time.
    pub concurrency: usize,
    /// Most calls of the sink in a second; `None`: as many as it takes.
    pub max_per_second: Option<u32>,
}

impl DeliveryConfig {
    /// Most batches in flight that an action may ask for.
    pub const CONCURRENCY_MAX: usize = 256;

    /// Largest rate that an action may ask for.
    pub const RATE_MAX: u32 = 100_000;

    /// Checks every range.
    pub(crate) fn check(&self, action: &str) -> Result<(), ActionConfigError> {
        let fault =
            |field: &str, problem: String| Err(ActionConfigError::field_error(action, field, problem));
        let QueueConfig { max_items, max_bytes, overflow: _ } = self.queue;
        if !(1..=10_000_000).contains(&max_items) {
            return fault("queue.max_items", format!("expected 1 to 10000000, given {max_items}"));
        }
        if max_bytes < 1_024 {
            return fault("queue.max_bytes", format!("expected at least 1KiB, given {max_bytes} bytes"));
        }
        let retry = self.retry;
        if !(1..=1_000_000).contains(&retry.max_attempts) {
            return fault(
                "retry.max_attempts",
                format!("expected 1 to 1000000, given {}", retry.max_attempts),
            );
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(30 * 86_400)).contains(&retry.max_age) {
            return fault("retry.max_age", format!("expected 1s to 30d, given {:?}", retry.max_age));
        }
        if retry.initial_backoff < Duration::from_millis(1) || retry.initial_backoff > retry.max_backoff {
            return fault(
                "retry.initial_backoff",
                format!(
                    "expected 1ms to max_backoff ({:?}), given {:?}",
                    retry.max_backoff, retry.initial_backoff
                ),
            );
        }
        if retry.max_backoff > Duration::from_secs(86_400) {
            return fault("retry.max_backoff", format!("expected at most 1d, given {:?}", retry.max_backoff));
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(&retry.disabled_pause) {
            return fault(
                "retry.disabled_pause",
                format!("expected 1s to 1d, given {:?}", retry.disabled_pause),
            );
        }
        if let Some(rate) = self.max_per_second
            && !(1..=Self::RATE_MAX).contains(&rate)
        {
            return fault("max_per_second", format!("expected 1 to {}, given {rate}", Self::RATE_MAX));
        }
        if !(1..=Self::CONCURRENCY_MAX).contains(&self.concurrency) {
            return fault(
                "concurrency",
                format!("expected 1 to {}, given {}", Self::CONCURRENCY_MAX, self.concurrency),
            );
        }
        Ok(())
    }
}
