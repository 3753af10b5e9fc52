//! The drivers. Each has the same files: `mod.rs` (what it does), `config.rs` (its keys), `sink.rs` (plan and driver),
//! `tests.rs`, and `connector.rs` where it has connectors of its own. A driver that needs a library of its own is a feature
//! of the crate; its settings are read and checked without it, so that the same configuration is right or wrong in every
//! build.

pub mod amqp;
pub mod http;
pub mod kafka;
pub mod log;
pub mod nats;
pub mod redis;
pub mod republish;

use std::time::Duration;

use crate::error::ActionConfigError;

/// Checks the ranges of a `batch`.
pub(crate) fn check_batch(
    max_items: usize,
    max_bytes: u64,
    linger: Duration,
) -> Result<(), (&'static str, String)> {
    if !(1..=10_000).contains(&max_items) {
        return Err(("batch.max_items", format!("expected 1 to 10000, given {max_items}")));
    }
    if !(1 << 10..=16 << 20).contains(&max_bytes) {
        return Err(("batch.max_bytes", format!("expected 1KiB to 16MiB, given {max_bytes} bytes")));
    }
    if linger > Duration::from_secs(60) {
        return Err(("batch.linger", format!("expected at most 1m, given {linger:?}")));
    }
    Ok(())
}

/// Checks the range of a `timeout`.
pub(crate) fn check_timeout(action: &str, timeout: Duration) -> Result<(), ActionConfigError> {
    if (Duration::from_millis(10)..=Duration::from_secs(600)).contains(&timeout) {
        return Ok(());
    }
    let problem = format!("expected 10ms to 10m, given {timeout:?}");
    Err(ActionConfigError::field_error(action, "timeout", problem))
}
