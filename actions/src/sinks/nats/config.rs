//! The keys of `type = "nats"`.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{BodyFormat, DeliveryConfig, OrderBy, QueueConfig, RetryConfig};
use crate::error::ActionConfigError;
use crate::plan::{Slot, Templates, is_literal};
use crate::record::{PartRule, RecordBatchConfig, RecordKind, RecordPlan, RecordPlanBuilder};
use crate::units;

/// Longest subject in bytes. A server reads a line of 4,096, which holds the subject twice over and the place for an answer.
const SUBJECT_BYTES_MAX: usize = 255;

/// `type = "nats"`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NatsConfig {
    /// The action's name, unique in its rule.
    #[serde(default)]
    pub name: String,
    /// Name of the connector, of type `nats`.
    pub connector: String,
    /// Template of the subject.
    pub subject: String,
    /// Whether a stream must have stored the message before it is done. Default `true`; `false`: the server must have it.
    #[serde(default = "default_jetstream")]
    pub jetstream: bool,
    /// Names to templates of values. Default: none.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Template of the payload. Default: the rule's output.
    pub payload: Option<String>,
    /// How the payload's template is read. Default `"auto"`.
    #[serde(default)]
    pub payload_format: BodyFormat,
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

impl NatsConfig {
    pub(crate) const fn delivery(&self) -> DeliveryConfig {
        DeliveryConfig {
            queue: self.queue,
            retry: self.retry,
            concurrency: self.concurrency,
            max_per_second: self.max_per_second,
        }
    }

    /// Whether no message changes the subject, so that none is to blame when nobody takes it.
    pub(super) fn is_subject_fixed(&self) -> bool {
        is_literal(&self.subject)
    }

    pub(crate) fn plan(&self, templates: &mut Templates) -> Result<RecordPlan, ActionConfigError> {
        self.delivery().check(&self.name)?;
        self.batch
            .check()
            .map_err(|(field, problem)| ActionConfigError::field_error(&self.name, field, problem))?;
        crate::sinks::check_timeout(&self.name, self.timeout)?;
        let begins_with_value = self.subject.starts_with("${");
        let rule = PartRule {
            bytes_max: SUBJECT_BYTES_MAX,
            check: if begins_with_value { check_subject_of_value } else { check_subject },
        };
        let builder = RecordPlanBuilder::new(RecordKind::Nats, &self.name, templates)
            .part(&self.subject, rule)?
            .fields(&self.headers, Slot::HeaderValue, check_header_name)?;
        Ok(builder.payload(self.payload.as_ref(), self.payload_format).build())
    }
}

/// Checks what may be published to: tokens parted by dots, no wildcard, nothing that would end the line.
pub(super) fn check_subject(text: &str) -> Result<(), &'static str> {
    if text.split('.').any(str::is_empty) {
        return Err("expected tokens parted by single dots, none of them empty");
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("expected no spaces and no control characters");
    }
    if text.contains(['*', '>']) {
        return Err("expected no wildcards (\"*\", \">\")");
    }
    Ok(())
}

/// The same where a message's value stands first: what the server and its clients keep for themselves (`$JS.API`, `$SYS`,
/// `_INBOX`) isn't for messages to choose.
fn check_subject_of_value(text: &str) -> Result<(), &'static str> {
    if text.starts_with(['$', '_']) {
        return Err("expected no \"$\" or \"_\" at the beginning, where a value stands");
    }
    check_subject(text)
}

fn check_header_name(name: &str) -> Result<(), &'static str> {
    if name.bytes().all(|b| b.is_ascii_graphic() && b != b':') {
        return Ok(());
    }
    Err("expected a name of printable ASCII without spaces and colons")
}

const fn default_jetstream() -> bool {
    true
}

const fn default_timeout() -> Duration {
    Duration::from_secs(10)
}

const fn default_concurrency() -> usize {
    4
}
