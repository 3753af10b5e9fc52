//! The keys of `type = "redis"`.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{BodyFormat, DeliveryConfig, OrderBy, QueueConfig, RetryConfig};
use crate::error::ActionConfigError;
use crate::plan::{Slot, Templates};
use crate::record::{PartRule, RecordBatchConfig, RecordKind, RecordPlan, RecordPlanBuilder};
use crate::units;

/// Longest key in bytes; Redis takes 512 MB, which no topic needs.
const KEY_BYTES_MAX: usize = 64 << 10;
/// Most entries that a stream may be asked to keep.
const MAX_LEN_MAX: u64 = 1_000_000_000;

/// `type = "redis"`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    /// The action's name, unique in its rule.
    #[serde(default)]
    pub name: String,
    /// Name of the connector, of type `redis`.
    pub connector: String,
    /// The command. Default `"xadd"`.
    #[serde(default)]
    pub command: RedisCommand,
    /// Template of the stream, channel, list, hash or key.
    pub key: String,
    /// With `hset` and a `value`: template of the field that it is put into. Default: none.
    pub field: Option<String>,
    /// With `xadd` and `hset`: names to templates of values. Default: none.
    #[serde(default)]
    pub fields: BTreeMap<String, String>,
    /// Template of the value; with `xadd` the one of the field `value`. Default: the rule's output, or none where there are
    /// `fields`.
    pub value: Option<String>,
    /// How the value's template is read. Default `"auto"`.
    #[serde(default)]
    pub value_format: BodyFormat,
    /// With `xadd`: about how many entries the stream keeps (`MAXLEN ~`). Default: all; 1 to 1,000,000,000.
    #[schemars(range(min = 1, max = MAX_LEN_MAX))]
    pub max_len: Option<u64>,
    /// Longest time from sending a batch to the last of its answers. Default `"10s"`; `"10ms"` to `"10m"`.
    #[schemars(with = "units::Period")]
    #[serde(default = "default_timeout", with = "units::duration")]
    pub timeout: Duration,
    /// How many go out together.
    #[serde(default)]
    pub batch: RecordBatchConfig,
    /// Most batches in flight at a time. Default 4; 1 to 256.
    #[schemars(range(min = 1, max = DeliveryConfig::CONCURRENCY_MAX))]
    #[serde(default = "default_concurrency")]
    pub concurrency: usize,
    /// Most batches in a second. Default: as many as the far side takes; 1 to 100,000.
    #[schemars(range(min = 1, max = DeliveryConfig::RATE_MAX))]
    pub max_per_second: Option<u32>,
    /// Which records keep their order. Default `"publisher"`.
    #[serde(default)]
    pub order_by: OrderBy,
    /// Bounds of the queue.
    #[serde(default)]
    pub queue: QueueConfig,
    /// Retry policy.
    #[serde(default)]
    pub retry: RetryConfig,
}

/// What is done with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RedisCommand {
    /// `XADD key [MAXLEN ~ n] * field value …`: an entry of a stream.
    #[default]
    Xadd,
    /// `PUBLISH channel value`: to whoever listens now.
    Publish,
    /// `RPUSH key value`: behind the last element of a list.
    Rpush,
    /// `LPUSH key value`: before the first element of a list.
    Lpush,
    /// `HSET key field value …`: fields of a hash.
    Hset,
    /// `SET key value`.
    Set,
}

impl RedisCommand {
    pub(super) const ALL: [Self; 6] =
        [Self::Xadd, Self::Publish, Self::Rpush, Self::Lpush, Self::Hset, Self::Set];

    /// The command as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Xadd => "xadd",
            Self::Publish => "publish",
            Self::Rpush => "rpush",
            Self::Lpush => "lpush",
            Self::Hset => "hset",
            Self::Set => "set",
        }
    }
}

impl RedisConfig {
    pub(crate) const fn delivery(&self) -> DeliveryConfig {
        DeliveryConfig {
            queue: self.queue,
            retry: self.retry,
            concurrency: self.concurrency,
            max_per_second: self.max_per_second,
        }
    }

    pub(crate) fn plan(&self, templates: &mut Templates) -> Result<RecordPlan, ActionConfigError> {
        self.check()?;
        let builder = RecordPlanBuilder::new(RecordKind::Redis, &self.name, templates)
            .fixed(self.command.as_str())
            .part(&self.key, KEY)?;
        let builder = match &self.field {
            Some(field) => builder.part(field, KEY)?,
            None => builder.fixed(""),
        };
        let builder = builder.fields(&self.fields, Slot::Text, |_| Ok(()))?;
        let has_payload = self.value.is_some() || self.fields.is_empty();
        Ok(if has_payload {
            builder.payload(self.value.as_ref(), self.value_format).build()
        } else {
            builder.no_payload().build()
        })
    }

    fn check(&self) -> Result<(), ActionConfigError> {
        let fault =
            |field: &str, problem: String| Err(ActionConfigError::field_error(&self.name, field, problem));
        self.delivery().check(&self.name)?;
        if let Err((field, problem)) = self.batch.check() {
            return fault(field, problem);
        }
        crate::sinks::check_timeout(&self.name, self.timeout)?;
        let command = self.command.as_str();
        let takes_fields = matches!(self.command, RedisCommand::Xadd | RedisCommand::Hset);
        if !takes_fields && !self.fields.is_empty() {
            return fault(
                "fields",
                format!("\"{command}\" has none; expected command = \"xadd\" or \"hset\""),
            );
        }
        let puts_one = self.command == RedisCommand::Hset && (self.value.is_some() || self.fields.is_empty());
        match (&self.field, puts_one) {
            (Some(_), false) => {
                return fault(
                    "field",
                    "belongs to command = \"hset\" with a value; others use fields, or none".to_owned(),
                );
            }
            (None, true) => {
                return fault(
                    "field",
                    "\"hset\" needs the field that the value is put into, or fields".to_owned(),
                );
            }
            _ => {}
        }
        match self.max_len {
            Some(_) if self.command != RedisCommand::Xadd => {
                fault("max_len", format!("belongs to command = \"xadd\", not \"{command}\""))
            }
            Some(len) if !(1..=MAX_LEN_MAX).contains(&len) => {
                fault("max_len", format!("expected 1 to {MAX_LEN_MAX}, given {len}"))
            }
            _ => Ok(()),
        }
    }
}

const KEY: PartRule = PartRule {
    bytes_max: KEY_BYTES_MAX,
    check: |text| if text.is_empty() { Err("expected a text that isn't empty") } else { Ok(()) },
};

const fn default_timeout() -> Duration {
    Duration::from_secs(10)
}

const fn default_concurrency() -> usize {
    4
}
