//! The configuration of an action, as it stands in a rule.
//!
//! Every kind is one serde struct beside its sink, with unknown keys refused. `type` chooses the kind. Keys that kinds
//! have in common (`queue`, `retry`, `concurrency`, `order_by`) are repeated in each struct, because serde can't refuse
//! unknown keys through a flattened part.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

pub use crate::connectors::{
    AddressList, ConnectorConfig, HttpConnectorConfig, NatsConnectorConfig, RedisConnectorConfig, TlsConfig,
};
use crate::error::ActionConfigError;
pub use crate::record::RecordBatchConfig;
pub use crate::sinks::http::{
    AuthConfig, AuthKind, BatchFormat, BodyFormat, ClientAuth, HmacAlgorithm, HmacFormat, HostPattern,
    HttpBatchConfig, HttpConfig, Redirect,
};
pub use crate::sinks::log::{LogConfig, LogLevel};
pub use crate::sinks::nats::NatsConfig;
pub use crate::sinks::redis::{RedisCommand, RedisConfig};
pub use crate::sinks::republish::{RepublishConfig, Scalar};
use crate::units;

/// Most characters of an action's name.
pub const NAME_CHARS_MAX: usize = 64;

/// One action of a rule.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ActionConfig {
    /// `type = "republish"`: publish to a topic of this broker.
    Republish(RepublishConfig),
    /// `type = "http"`: one HTTP request per message.
    Http(Box<HttpConfig>),
    /// `type = "log"`: one log line per message.
    Log(LogConfig),
    /// `type = "nats"`: one NATS message per message.
    Nats(Box<NatsConfig>),
    /// `type = "redis"`: one command of a Redis server per message.
    Redis(Box<RedisConfig>),
}

impl ActionConfig {
    /// The values that `type` may have.
    pub const KINDS: &'static [&'static str] = &["republish", "http", "log", "nats", "redis"];

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
            "http" => HttpConfig::deserialize(deserializer).map(|config| Self::Http(Box::new(config))),
            "log" => LogConfig::deserialize(deserializer).map(Self::Log),
            "nats" => NatsConfig::deserialize(deserializer).map(|config| Self::Nats(Box::new(config))),
            "redis" => RedisConfig::deserialize(deserializer).map(|config| Self::Redis(Box::new(config))),
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
            Self::Nats(config) => &config.name,
            Self::Redis(config) => &config.name,
        }
    }

    /// Returns this action under another name, for an error action, which has no key for it.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        match &mut self {
            Self::Republish(config) => name.clone_into(&mut config.name),
            Self::Http(config) => name.clone_into(&mut config.name),
            Self::Log(config) => name.clone_into(&mut config.name),
            Self::Nats(config) => name.clone_into(&mut config.name),
            Self::Redis(config) => name.clone_into(&mut config.name),
        }
        self
    }

    /// Returns what the action acts upon, for error documents and lists: the topic's template, the connector, or the URL's
    /// origin.
    /// Holds no path or query, which may hold a secret.
    #[must_use]
    pub fn resource(&self) -> String {
        if let Some(connector) = self.connector() {
            return format!("connector {connector}");
        }
        match self {
            Self::Republish(config) => config.topic.clone(),
            Self::Http(config) => {
                let (scheme, rest) = config.url.split_once("://").unwrap_or(("http", ""));
                format!("{scheme}://{}", rest.split(['/', '?', '#']).next().unwrap_or_default())
            }
            _ => self.kind().to_owned(),
        }
    }

    /// Returns the name of the connector that it uses.
    #[must_use]
    pub fn connector(&self) -> Option<&str> {
        match self {
            Self::Republish(_) | Self::Log(_) => None,
            Self::Http(config) => config.connector.as_deref(),
            Self::Nats(config) => Some(&config.connector),
            Self::Redis(config) => Some(&config.connector),
        }
    }

    /// Whether its requests wait in a queue.
    #[must_use]
    pub const fn has_queue(&self) -> bool {
        !matches!(self, Self::Republish(_))
    }

    /// Whether its queue is an outbox, where there is a store on disk.
    #[must_use]
    pub const fn has_outbox(&self) -> bool {
        !matches!(self, Self::Republish(_) | Self::Log(_))
    }

    /// Returns the settings of its queue and worker; a republish has none.
    pub(crate) fn delivery(&self) -> Option<DeliveryConfig> {
        match self {
            Self::Republish(_) => None,
            Self::Http(config) => Some(config.delivery()),
            Self::Log(config) => Some(config.delivery()),
            Self::Nats(config) => Some(config.delivery()),
            Self::Redis(config) => Some(config.delivery()),
        }
    }

    /// Returns which of its requests keep their order.
    pub(crate) const fn order_by(&self) -> OrderBy {
        match self {
            Self::Republish(_) => OrderBy::Publisher,
            Self::Http(config) => config.order_by,
            Self::Log(config) => config.order_by,
            Self::Nats(config) => config.order_by,
            Self::Redis(config) => config.order_by,
        }
    }

    /// Returns the value of `type`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Republish(_) => "republish",
            Self::Http(_) => "http",
            Self::Log(_) => "log",
            Self::Nats(_) => "nats",
            Self::Redis(_) => "redis",
        }
    }
}

pub(crate) fn check_name(name: &str) -> Result<(), ActionConfigError> {
    let fits = (1..=NAME_CHARS_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if fits { Ok(()) } else { Err(ActionConfigError::Name { name: name.to_owned(), max: NAME_CHARS_MAX }) }
}

/// What waits for delivery, at most, and what happens past that. `queue = { … }`. Some defaults depend on where the queue is
/// kept: see [`QueueConfig::bounds`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QueueConfig {
    /// Most requests waiting or in flight. Default 1,000,000 on disk, 10,000 in memory; 1 to 10,000,000.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_items: Option<usize>,
    /// Most bytes of requests waiting or in flight: on disk those of the log, messages included. Default `"1GiB"` on disk,
    /// `"64MiB"` in memory; at least `"1KiB"`.
    #[schemars(with = "Option<units::Size>")]
    #[serde(deserialize_with = "units::optional_size::deserialize")]
    pub max_bytes: Option<u64>,
    /// A request older than this is given up. Default `"7d"`; `"1s"` to `"30d"`.
    #[schemars(with = "Option<units::Period>")]
    #[serde(deserialize_with = "units::optional_duration::deserialize")]
    pub max_age: Option<Duration>,
    /// What gives way when `max_items` or `max_bytes` is reached. Default `"dead_letter"` on disk, `"drop_oldest"` in
    /// memory.
    pub overflow: Option<Overflow>,
    /// Which requests are sent first while the queue is longer than its head in memory. Default `"oldest_first"`;
    /// `"live_first"` for queues on disk.
    pub drain: Drain,
    /// What is kept of requests that ended for good.
    pub dead_letters: DeadLettersConfig,
}

/// Which requests of a queue on disk are sent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Drain {
    /// Those that have waited longest. Requests with one key keep their order.
    #[default]
    OldestFirst,
    /// Those that come now; what waits on disk is sent where they leave room. Among either, requests with one key keep their
    /// order.
    LiveFirst,
}

/// Where a queue is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// In the store's outbox.
    OnDisk,
    /// In memory alone.
    InMemory,
}

/// The bounds of one queue, defaults filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueBounds {
    /// Most requests waiting or in flight.
    pub max_items: usize,
    /// Most bytes of them.
    pub max_bytes: u64,
    /// A request older than this is given up.
    pub max_age: Duration,
    /// What gives way.
    pub overflow: Overflow,
    /// Bounds of the dead letters.
    pub dead_letters: DeadLettersConfig,
}

impl QueueConfig {
    /// The bounds of a queue that is kept there.
    #[must_use]
    pub fn bounds(&self, kept: Kept) -> QueueBounds {
        let (items, bytes, overflow) = match kept {
            Kept::OnDisk => (1_000_000, 1 << 30, Overflow::DeadLetter),
            Kept::InMemory => (10_000, 64 << 20, Overflow::DropOldest),
        };
        QueueBounds {
            max_items: self.max_items.unwrap_or(items),
            max_bytes: self.max_bytes.unwrap_or(bytes),
            max_age: self.max_age.unwrap_or(WEEK),
            overflow: self.overflow.unwrap_or(overflow),
            dead_letters: self.dead_letters,
        }
    }

    /// Checks that a queue that is kept there can have the policy.
    pub(crate) fn check_kept(&self, action: &str, kept: Kept) -> Result<(), ActionConfigError> {
        if self.drain == Drain::LiveFirst && kept == Kept::InMemory {
            let problem =
                "\"live_first\" needs a queue on disk, and this one is in memory; expected \"oldest_first\"";
            return Err(ActionConfigError::field_error(action, "queue.drain", problem.to_owned()));
        }
        match (self.overflow, kept) {
            (Some(overflow @ (Overflow::DeadLetter | Overflow::Backpressure)), Kept::InMemory) => {
                Err(ActionConfigError::field_error(
                    action,
                    "queue.overflow",
                    format!(
                        "\"{}\" needs a queue on disk, and this one is in memory; expected \"drop_oldest\" or \"drop_newest\"",
                        overflow.as_str()
                    ),
                ))
            }
            _ => Ok(()),
        }
    }
}

const WEEK: Duration = Duration::from_secs(7 * 86_400);
const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// How much is kept of what an action could not deliver. `queue.dead_letters = { … }`. What is oldest goes first, and is
/// counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLettersConfig {
    /// Most dead letters. Default 100,000; 1 to 10,000,000.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_items: usize,
    /// Most bytes of them in the log, messages included. Default `"256MiB"`; at least `"1KiB"`.
    #[schemars(with = "units::Size")]
    #[serde(with = "units::size")]
    pub max_bytes: u64,
    /// Longest time that one is kept. Default `"30d"`; at least `"1m"`.
    #[schemars(with = "units::Period")]
    #[serde(with = "units::duration")]
    pub max_age: Duration,
}

impl Default for DeadLettersConfig {
    fn default() -> Self {
        Self { max_items: 100_000, max_bytes: 256 << 20, max_age: MONTH }
    }
}

/// What gives way when a queue is full. Either way it is counted under `queue_full`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Overflow {
    /// The request that doesn't fit any more becomes a dead letter. For queues on disk.
    DeadLetter,
    /// The publisher: its message is refused, and nobody receives it. For queues on disk.
    Backpressure,
    /// The requests that have waited longest.
    DropOldest,
    /// The request that doesn't fit any more.
    DropNewest,
}

impl Overflow {
    /// The policy as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DeadLetter => "dead_letter",
            Self::Backpressure => "backpressure",
            Self::DropOldest => "drop_oldest",
            Self::DropNewest => "drop_newest",
        }
    }
}

/// What becomes of the outbox of an action that is removed or renamed. `on_remove = "…"`, of an action or of its rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnRemove {
    /// It is sent with the last settings, until it is empty or the process ends.
    Drain,
    /// It becomes dead letters.
    DeadLetter,
    /// It is dropped.
    Purge,
}

/// When a request that failed is tried again, and when it is given up. `retry = { … }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryConfig {
    /// Most attempts that may have reached the far side; refused connections and failed name look-ups don't count.
    /// Default 20; 1 to 1,000,000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_attempts: u32,
    /// Upper end of the first pause; it doubles with each attempt. Default `"500ms"`; at least `"1ms"`.
    #[schemars(with = "units::Period")]
    #[serde(with = "units::duration")]
    pub initial_backoff: Duration,
    /// Upper end of every pause, for `Retry-After` too. Default `"1m"`; at most `"1d"`.
    #[schemars(with = "units::Period")]
    #[serde(with = "units::duration")]
    pub max_backoff: Duration,
    /// Pause after an answer that says that nothing will be taken from us as we are. Default `"5m"`; `"1s"` to `"1d"`.
    #[schemars(with = "units::Period")]
    #[serde(with = "units::duration")]
    pub disabled_pause: Duration,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            max_attempts: 20,
            initial_backoff: Duration::from_millis(500),
            max_backoff: Duration::from_secs(60),
            disabled_pause: Duration::from_secs(300),
        }
    }
}

/// Which requests keep their order among each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
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
        // The defaults of either are within the ranges.
        let QueueBounds { max_items, max_bytes, max_age, overflow: _, dead_letters } =
            self.queue.bounds(Kept::InMemory);
        for (field, items) in
            [("queue.max_items", max_items), ("queue.dead_letters.max_items", dead_letters.max_items)]
        {
            if !(1..=10_000_000).contains(&items) {
                return fault(field, format!("expected 1 to 10000000, given {items}"));
            }
        }
        for (field, bytes) in
            [("queue.max_bytes", max_bytes), ("queue.dead_letters.max_bytes", dead_letters.max_bytes)]
        {
            if bytes < 1_024 {
                return fault(field, format!("expected at least 1KiB, given {bytes} bytes"));
            }
        }
        if !(Duration::from_secs(1)..=MONTH).contains(&max_age) {
            return fault("queue.max_age", format!("expected 1s to 30d, given {max_age:?}"));
        }
        if dead_letters.max_age < Duration::from_secs(60) {
            let given = dead_letters.max_age;
            return fault("queue.dead_letters.max_age", format!("expected at least 1m, given {given:?}"));
        }
        let retry = self.retry;
        if !(1..=1_000_000).contains(&retry.max_attempts) {
            return fault(
                "retry.max_attempts",
                format!("expected 1 to 1000000, given {}", retry.max_attempts),
            );
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
