//! Log: one line per message in the broker's own log, for trying rules out and for events that are rare.
//!
//! A line is one line: control characters, line separators and bidirectional controls from payloads are escaped, and
//! long text is cut. Lines past `max_per_second` are dropped and counted under `rate_limited`, so that a busy topic
//! can't fill a disk.

mod config;
mod sink;
#[cfg(test)]
mod tests;

pub use config::{LogConfig, LogLevel};
pub(crate) use sink::LogPlan;
pub use sink::{LineWriter, LogLine, LogSink, TracingWriter};
