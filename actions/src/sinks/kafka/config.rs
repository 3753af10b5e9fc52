//! The keys of `type = "kafka"`.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{BodyFormat, DeliveryConfig, OrderBy, QueueConfig, RetryConfig};
use crate::error::ActionConfigError;
use crate::plan::{Slot, Templates};
use crate::record::{PartRule, RecordBatchConfig, RecordKind, RecordPlan, RecordPlanBuilder};
use crate::units;

/// Longest name of a topic in bytes, as brokers have it.
const TOPIC_BYTES_MAX: usize = 249;
/// Largest number of a partition.
const PARTITION_MAX: u32 = i32::MAX.unsigned_abs();

/// `type = "kafka"`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// The action's name, unique in its rule.
    #[serde(default)]
    pub name: String,
    /// Name of the connector, of type `kafka`.
    pub connector: String,
    /// Template of the topic: 1 to 249 letters, digits, `.`, `_` or `-`.
    pub topic: String,
    /// Template of the record's key, which decides its partition. Default: none.
    pub key: Option<String>,
    /// Template of the record's value. Default: the rule's output.
    pub value: Option<String>,
    /// How the value's template is read. Default `"auto"`.
    #[serde(default)]
    pub value_format: BodyFormat,
    /// Names to templates of the record's headers. Default: none.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The one partition that all records go to. Default: decided per record; 0 to 2,147,483,647.
    #[schemars(range(min = 0, max = PARTITION_MAX))]
    pub partition: Option<u32>,
    /// How records are compressed. Default `"none"`.
    #[serde(default)]
    pub compression: KafkaCompression,
    /// Whether a record that is sent again, because an answer was lost, is written once. Default `true`.
    #[serde(default = "default_idempotence")]
    pub idempotence: bool,
    /// Longest time from a batch's begin to the last of its answers. Default `"30s"`; `"10ms"` to `"10m"`.
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

/// How the records of one partition are made smaller on their way and on the brokers' disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KafkaCompression {
    /// Not at all.
    #[default]
    None,
    /// gzip: small, and the slowest.
    Gzip,
    /// Snappy: fast, and not as small.
    Snappy,
}

impl KafkaConfig {
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
        let builder = RecordPlanBuilder::new(RecordKind::Kafka, &self.name, templates)
            .part(&self.topic, TOPIC)?
            .line(self.order_by);
        let builder = match &self.key {
            Some(key) => builder.key(key),
            None => builder,
        };
        let builder = builder.fields(&self.headers, Slot::PlainText, |_| Ok(()))?;
        Ok(builder.payload(self.value.as_ref(), self.value_format).build())
    }

    fn check(&self) -> Result<(), ActionConfigError> {
        let fault =
            |field: &str, problem: String| Err(ActionConfigError::field_error(&self.name, field, problem));
        self.delivery().check(&self.name)?;
        if let Err((field, problem)) = self.batch.check() {
            return fault(field, problem);
        }
        crate::sinks::check_timeout(&self.name, self.timeout)?;
        match self.partition {
            Some(partition) if partition > PARTITION_MAX => {
                fault("partition", format!("expected 0 to {PARTITION_MAX}, given {partition}"))
            }
            _ => Ok(()),
        }
    }
}

const TOPIC: PartRule = PartRule {
    bytes_max: TOPIC_BYTES_MAX,
    check: |text| {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if text.is_empty() || !text.bytes().all(is_plain) || matches!(text, "." | "..") {
            return Err("expected 1 to 249 letters, digits, \".\", \"_\" or \"-\", and not \".\" or \"..\"");
        }
        Ok(())
    },
};

const fn default_idempotence() -> bool {
    true
}

const fn default_timeout() -> Duration {
    Duration::from_secs(30)
}

const fn default_concurrency() -> usize {
    4
}
