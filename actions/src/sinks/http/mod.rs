//! HTTP: a request per message, or per batch of them, confirmed by a status from 200 to 299.
//!
//! What is retried: a connection that fails or breaks, a time-out, and the statuses 408, 425, 429 and 5xx, with
//! `Retry-After` respected. 401, 403 and 407 pause the action and cost no request. Every other status is final. Actions
//! may list statuses that mean something else. Answers are read up to a limit, and only so that the connection can be
//! used again and an error can quote its beginning; nothing is decompressed.
//!
//! Batches: requests that differ in their bodies alone go together. A batch has one idempotency key, made of exactly the
//! items in it. While its outcome is unknown it is sent again as it was, so that the key says the truth; when it was
//! refused it is taken apart (`delivery/batch.rs`). After a restart batches are made up anew, with keys of their own.
//!
//! Safety: scheme and port are literal in the configuration, the host too unless a list of hosts is; the rendered URL is
//! compared with them, and compared again with the settings of the moment when it is sent. Values from messages are
//! percent-encoded and can't form `.` or `..` path segments; every address is judged when it is connected to
//! (`targets.rs`); no proxy is taken from the environment; redirects are not followed, or, where asked for, only to the
//! same origin and only with the method and body kept (307, 308). Secrets stand in connectors, which the configuration
//! holds, and not in actions.

mod auth;
mod client;
mod config;
mod connector;
mod hosts;
mod plan;
mod probe;
mod request;
mod sink;
#[cfg(test)]
mod tests;
mod token;

pub use auth::{AuthConfig, AuthKind, ClientAuth, HmacAlgorithm, HmacFormat};
pub use config::{BatchFormat, BodyFormat, HttpBatchConfig, HttpConfig, Redirect};
pub use connector::{HttpConnector, HttpConnectorConfig};
pub use hosts::{HostPattern, HostPatternError};
pub(crate) use plan::HttpPlan;
pub use request::{HttpRequest, RequestUrl};
pub use sink::HttpSink;
