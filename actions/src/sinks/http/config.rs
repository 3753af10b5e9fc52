//! The keys of `type = "http"`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::config::{DeliveryConfig, OrderBy, QueueConfig, RetryConfig};
use crate::units;

/// `type = "http"`. Its `Debug` text shows no header value and no body.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// The action's name, unique in its rule.
    #[serde(default)]
    pub name: String,
    /// Template of the URL, `http` or `https`. Scheme, host and port are literal; templates may stand in path, query
    /// and fragment, and their values are percent-encoded.
    pub url: String,
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
    #[serde(default = "default_timeout", with = "units::duration")]
    pub timeout: Duration,
    /// Longest time to make a connection, TLS included. Default `"5s"`; `"10ms"` to `"10m"`.
    #[serde(default = "default_connect_timeout", with = "units::duration")]
    pub connect_timeout: Duration,
    /// Which redirects are followed. Default `"none"`.
    #[serde(default)]
    pub redirect: Redirect,
    /// Most bytes of an answer's body that are read. Default `"64KiB"`; `"0B"` to `"16MiB"`.
    #[serde(default = "default_max_answer", with = "units::size")]
    pub max_answer: u64,
    /// Most requests in flight at a time. Default 8; 1 to 256.
    #[serde(default = "default_concurrency")]
    pub concurrency: usize,
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
            max_per_second: None,
        }
    }
}

impl fmt::Debug for HttpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpConfig")
            .field("name", &self.name)
            .field("url", &self.url.split('?').next().unwrap_or_default())
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
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
