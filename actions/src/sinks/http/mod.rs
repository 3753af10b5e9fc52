//! HTTP: one request per message, confirmed by a status from 200 to 299.
//!
//! What is retried: a connection that fails or breaks, a time-out, and the statuses 408, 425, 429 and 5xx, with
//! `Retry-After` respected. Every other status is final. Answers are read up to a limit, and only so that the
//! connection can be used again and an error can quote its beginning; nothing is decompressed.
//!
//! Safety: the host, port and scheme are literal in the configuration, and the rendered URL is compared with them;
//! values from messages are percent-encoded and can't form `.` or `..` path segments; every address is judged when it
//! is connected to (`targets.rs`); no proxy is taken from the environment; redirects are not followed, or, where
//! asked for, only to the same origin and only with the method and body kept (307, 308).

mod config;
mod sink;
#[cfg(test)]
mod tests;

pub use config::{BodyFormat, HttpConfig, Redirect};
pub(crate) use sink::HttpPlan;
pub use sink::{HttpRequest, HttpSink};
