//! The keys of `type = "amqp"`.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{BodyFormat, DeliveryConfig, OrderBy, QueueConfig, RetryConfig};
use crate::error::ActionConfigError;
use crate::plan::{Slot, Templates};
use crate::record::{PartRule, RecordBatchConfig, RecordKind, RecordPlan, RecordPlanBuilder};
use crate::units;

/// Longest name of an exchange, routing key or content type in bytes (AMQP 0-9-1 section 4.2.5.3).
pub(super) const SHORT_BYTES_MAX: usize = 255;
/// Longest time that a message may be given to live in a queue: RabbitMQ takes no more milliseconds than these.
const EXPIRATION_MAX: Duration = Duration::from_millis(u32::MAX as u64);

/// `type = "amqp"`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AmqpConfig {
    /// The action's name, unique in its rule.
    #[serde(default)]
    pub name: String,
    /// Name of the connector, of type `amqp`.
    pub connector: String,
    /// Template of the exchange. Default `""`: the default exchange, where the routing key is the queue's name.
    #[serde(default)]
    pub exchange: String,
    /// Template of the routing key.
    pub routing_key: String,
    /// Template of the body. Default: the rule's output.
    pub body: Option<String>,
    /// How the body's template is read. Default `"auto"`.
    #[serde(default)]
    pub body_format: BodyFormat,
    /// Names to templates of values. Default: none.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// What the body is. Default: nothing is said.
    pub content_type: Option<String>,
    /// How long the message may wait in a queue. Default: as long as the queue says; `"1ms"` to about 49 days.
    #[schemars(with = "Option<units::Period>")]
    #[serde(default, deserialize_with = "units::optional_duration::deserialize")]
    pub expiration: Option<Duration>,
    /// Priority, for queues that have priorities. Default: none.
    pub priority: Option<u8>,
    /// Whether the server is to write the message to its disk. Default `true`.
    #[serde(default = "yes")]
    pub persistent: bool,
    /// Whether a message that no queue takes is an error. Default `true`.
    #[serde(default = "yes")]
    pub mandatory: bool,
    /// What becomes of a message that no queue takes, where `mandatory` is `true`. Default `"reject"`.
    pub unroutable: Option<Unroutable>,
    /// Longest time from sending a batch to the last of its confirmations. Default `"10s"`; `"10ms"` to `"10m"`.
    #[schemars(with = "units::Period")]
    #[serde(default = "default_timeout", with = "units::duration")]
    pub timeout: Duration,
    /// How many go out together.
    #[serde(default)]
    pub batch: RecordBatchConfig,
    /// Most batches in flight at a time, each on a channel of its own. Default 4; 1 to 256.
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

/// What becomes of a message that no queue takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Unroutable {
    /// It is given up, and becomes a dead letter.
    #[default]
    Reject,
    /// It is sent again, for queues that are bound later.
    Retry,
}

impl AmqpConfig {
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
        let builder = RecordPlanBuilder::new(RecordKind::Amqp, &self.name, templates)
            .part(&self.exchange, SHORT)?
            .part(&self.routing_key, SHORT)?
            .fields(&self.headers, Slot::PlainText, check_header)?;
        Ok(builder.payload(self.body.as_ref(), self.body_format).build())
    }

    fn check(&self) -> Result<(), ActionConfigError> {
        let fault =
            |field: &str, problem: String| Err(ActionConfigError::field_error(&self.name, field, problem));
        self.delivery().check(&self.name)?;
        if let Err((field, problem)) = self.batch.check() {
            return fault(field, problem);
        }
        crate::sinks::check_timeout(&self.name, self.timeout)?;
        if let Some(content_type) = &self.content_type
            && !(1..=SHORT_BYTES_MAX).contains(&content_type.len())
        {
            let given = content_type.len();
            return fault("content_type", format!("expected 1 to {SHORT_BYTES_MAX} bytes, given {given}"));
        }
        if let Some(expiration) = self.expiration
            && !(Duration::from_millis(1)..=EXPIRATION_MAX).contains(&expiration)
        {
            let problem = format!("expected 1ms to {}ms, given {expiration:?}", EXPIRATION_MAX.as_millis());
            return fault("expiration", problem);
        }
        if self.unroutable.is_some() && !self.mandatory {
            return fault("unroutable", "belongs to mandatory = true: without it nobody is told".to_owned());
        }
        Ok(())
    }
}

const SHORT: PartRule = PartRule { bytes_max: SHORT_BYTES_MAX, check: |_| Ok(()) };

/// RabbitMQ reads two headers as lists of further routing keys; a message's text must not become one.
fn check_header(name: &str) -> Result<(), &'static str> {
    if matches!(name, "CC" | "BCC") {
        return Err("the server would route by it; use routing_key, or bind the exchange to further queues");
    }
    Ok(())
}

const fn yes() -> bool {
    true
}

const fn default_timeout() -> Duration {
    Duration::from_secs(10)
}

const fn default_concurrency() -> usize {
    4
}
