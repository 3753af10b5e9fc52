//! The keys of `type = "log"`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{DeliveryConfig, OrderBy, QueueConfig, RetryConfig};

/// `type = "log"`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// The action's name, unique in its rule.
    #[serde(default)]
    pub name: String,
    /// Template of the line. Default: the rule's output.
    pub message: Option<String>,
    /// Level of the line. Default `"info"`.
    #[serde(default)]
    pub level: LogLevel,
    /// Most characters of the message that are written; the rest is cut off. Default 8,192; 16 to 262,144.
    #[schemars(range(min = 16, max = 262_144))]
    #[serde(default = "default_max_chars")]
    pub max_chars: usize,
    /// Most lines per second; more are dropped and counted. Default 100; 1 to 100,000.
    #[schemars(range(min = 1, max = 100_000))]
    #[serde(default = "default_max_per_second")]
    pub max_per_second: u32,
    /// Bounds of the queue.
    #[serde(default)]
    pub queue: QueueConfig,
    /// Which lines keep their order. Default `"publisher"`.
    #[serde(default)]
    pub order_by: OrderBy,
}

impl LogConfig {
    pub(crate) fn delivery(&self) -> DeliveryConfig {
        // One writer keeps lines in order; nothing is ever retried.
        DeliveryConfig {
            queue: self.queue,
            retry: RetryConfig::default(),
            concurrency: 1,
            max_per_second: None,
        }
    }
}

/// Level of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogLevel {
    /// An operator must act.
    Error,
    /// Unexpected, worth a look.
    Warn,
    /// Worth knowing.
    #[default]
    Info,
    /// For whoever looks closely.
    Debug,
}

const fn default_max_chars() -> usize {
    8_192
}

const fn default_max_per_second() -> u32 {
    100
}
