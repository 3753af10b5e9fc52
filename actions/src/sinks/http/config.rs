//! The keys of `type = "http"`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::hosts::{HOSTS_MAX, HostPattern};
use crate::config::{DeliveryConfig, OrderBy, QueueConfig, RetryConfig};
use crate::delivery::AnswerClass;
use crate::error::ActionConfigError;
use crate::units;

/// `type = "http"`. Its `Debug` text shows no header value and no body.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// The action's name, unique in its rule.
    #[serde(default)]
    pub name: String,
    /// Template of the URL, `http` or `https`. Scheme and port are literal, the host too unless a list says which hosts are
    /// allowed. With a connector that has a URL of its own: template of the path behind that. Values are percent-encoded.
    pub url: String,
    /// Name of the connector that address, credentials, certificates and proxy are taken from. Default: none.
    pub connector: Option<String>,
    /// Hosts that a rendered URL may name. Default: the one that is written in it.
    #[serde(default)]
    pub allowed_hosts: Vec<HostPattern>,
    /// Template of the method. Default `"POST"`.
    #[serde(default = "default_method")]
    pub method: String,
    /// Headers: names are literal, values are templates.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Template of the body. Default: the rule's output.
    pub body: Option<String>,
    /// How the body's template is read. Default `"auto"`.
    #[serde(default)]
    pub body_format: BodyFormat,
    /// Longest time from the start of an attempt to the end of its answer. Default `"10s"`; `"10ms"` to `"10m"`.
    #[schemars(with = "units::Period")]
    #[serde(default = "default_timeout", with = "units::duration")]
    pub timeout: Duration,
    /// Longest time to make a connection, TLS included. Default `"5s"`; `"10ms"` to `"10m"`.
    #[schemars(with = "units::Period")]
    #[serde(default = "default_connect_timeout", with = "units::duration")]
    pub connect_timeout: Duration,
    /// Which redirects are followed. Default `"none"`.
    #[serde(default)]
    pub redirect: Redirect,
    /// Most bytes of an answer's body that are read. Default `"64KiB"`; `"0B"` to `"16MiB"`.
    #[schemars(with = "units::Size")]
    #[serde(default = "default_max_answer", with = "units::size")]
    pub max_answer: u64,
    /// Most requests in flight at a time. Default 8; 1 to 256.
    #[schemars(range(min = 1, max = DeliveryConfig::CONCURRENCY_MAX))]
    #[serde(default = "default_concurrency")]
    pub concurrency: usize,
    /// Most requests in a second. Default: as many as the far side takes; 1 to 100,000.
    #[schemars(range(min = 1, max = DeliveryConfig::RATE_MAX))]
    pub max_per_second: Option<u32>,
    /// Sends several bodies in one request. Default: one request per message.
    pub batch: Option<HttpBatchConfig>,
    /// Statuses that mean another try, beside those that do anyway. 300 to 599.
    #[schemars(inner(range(min = 300, max = 599)))]
    #[serde(default)]
    pub retry_on: Vec<u16>,
    /// Statuses that end the request, beside those that do anyway. 300 to 599.
    #[schemars(inner(range(min = 300, max = 599)))]
    #[serde(default)]
    pub reject_on: Vec<u16>,
    /// Statuses that pause the action, beside those that do anyway. 300 to 599.
    #[schemars(inner(range(min = 300, max = 599)))]
    #[serde(default)]
    pub disable_on: Vec<u16>,
    /// Which requests keep their order. Default `"publisher"`.
    #[serde(default)]
    pub order_by: OrderBy,
    /// Bounds of the queue.
    #[serde(default)]
    pub queue: QueueConfig,
    /// Retry policy.
    #[serde(default)]
    pub retry: RetryConfig,
}

impl HttpConfig {
    pub(crate) fn delivery(&self) -> DeliveryConfig {
        DeliveryConfig {
            queue: self.queue,
            retry: self.retry,
            concurrency: self.concurrency,
            max_per_second: self.max_per_second,
        }
    }

    pub(super) fn answers(&self) -> AnswerLists {
        AnswerLists {
            retry: self.retry_on.clone(),
            reject: self.reject_on.clone(),
            disable: self.disable_on.clone(),
        }
    }

    /// Checks every range.
    pub(super) fn check(&self) -> Result<(), ActionConfigError> {
        let fault =
            |field: &str, problem: String| Err(ActionConfigError::field_error(&self.name, field, problem));
        self.delivery().check(&self.name)?;
        let timeouts = Duration::from_millis(10)..=Duration::from_secs(600);
        for (field, value) in [("timeout", self.timeout), ("connect_timeout", self.connect_timeout)] {
            if !timeouts.contains(&value) {
                return fault(field, format!("expected 10ms to 10m, given {value:?}"));
            }
        }
        if self.max_answer > 16 << 20 {
            return fault("max_answer", format!("expected 0B to 16MiB, given {} bytes", self.max_answer));
        }
        let hosts = self.allowed_hosts.len();
        if hosts > HOSTS_MAX {
            return fault("allowed_hosts", format!("{hosts} given, more than the limit of {HOSTS_MAX}"));
        }
        if hosts > 0 && self.connector.is_some() {
            return fault("allowed_hosts", "with a connector its own list counts".to_owned());
        }
        if let Some(batch) = &self.batch
            && let Err((field, problem)) = batch.check()
        {
            return fault(field, problem);
        }
        let mut seen: Vec<u16> = Vec::new();
        let lists =
            [("retry_on", &self.retry_on), ("reject_on", &self.reject_on), ("disable_on", &self.disable_on)];
        for (field, statuses) in lists {
            for status in statuses {
                if !(300..=599).contains(status) {
                    return fault(field, format!("expected statuses from 300 to 599, given {status}"));
                }
                if seen.contains(status) {
                    return fault(field, format!("{status} is given twice"));
                }
                seen.push(*status);
            }
        }
        Ok(())
    }
}

/// What the action says about statuses.
#[derive(Debug, Clone, Default)]
pub(super) struct AnswerLists {
    retry: Vec<u16>,
    reject: Vec<u16>,
    disable: Vec<u16>,
}

impl AnswerLists {
    pub(super) fn class(&self, status: u16) -> AnswerClass {
        if self.retry.contains(&status) {
            AnswerClass::Retry
        } else if self.reject.contains(&status) {
            AnswerClass::Reject
        } else if self.disable.contains(&status) {
            AnswerClass::Disable
        } else {
            AnswerClass::of(status)
        }
    }
}

/// Several bodies in one request. `batch = { … }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpBatchConfig {
    /// Most bodies. Default 100; 1 to 10,000.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_items: usize,
    /// Most bytes of the whole; a single larger body goes alone. Default `"1MiB"`; `"1KiB"` to `"16MiB"`.
    #[schemars(with = "units::Size")]
    #[serde(with = "units::size")]
    pub max_bytes: u64,
    /// How long the first waits for company. Default `"100ms"`; at most `"1m"`.
    #[schemars(with = "units::Period")]
    #[serde(with = "units::duration")]
    pub linger: Duration,
    /// How they are put together. Default `"json_array"`.
    pub format: BatchFormat,
}

impl Default for HttpBatchConfig {
    fn default() -> Self {
        Self {
            max_items: 100,
            max_bytes: 1 << 20,
            linger: Duration::from_millis(100),
            format: BatchFormat::JsonArray,
        }
    }
}

impl HttpBatchConfig {
    fn check(&self) -> Result<(), (&'static str, String)> {
        crate::sinks::check_batch(self.max_items, self.max_bytes, self.linger)
    }
}

/// How the bodies of a batch are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BatchFormat {
    /// An array of them, `application/json`.
    #[default]
    JsonArray,
    /// One on each line, `application/x-ndjson`.
    JsonLines,
}

impl fmt::Debug for HttpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpConfig")
            .field("name", &self.name)
            .field("url", &self.url.split('?').next().unwrap_or_default())
            .field("connector", &self.connector)
            .field("method", &self.method)
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("timeout", &self.timeout)
            .field("redirect", &self.redirect)
            .field("queue", &self.queue)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

/// How a body's template is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BodyFormat {
    /// As a JSON template where it parses as JSON with its placeholders, otherwise as text.
    #[default]
    Auto,
    /// As text: values are pasted as they are.
    Text,
}

/// Which redirects are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Redirect {
    /// None: a redirect is a final failure.
    #[default]
    None,
    /// 307 and 308 to the same scheme, host and port, at most three in a row.
    SameOrigin,
}

fn default_method() -> String {
    "POST".to_owned()
}

const fn default_timeout() -> Duration {
    Duration::from_secs(10)
}

const fn default_connect_timeout() -> Duration {
    Duration::from_secs(5)
}

const fn default_max_answer() -> u64 {
    64 << 10
}

const fn default_concurrency() -> usize {
    8
}
