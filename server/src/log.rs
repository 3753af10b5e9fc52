//! The program's own log: `tracing` events to standard error, for people or as JSON.

use std::io::IsTerminal as _;

use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Environment, Log, LogFormat};

/// Why the log can't be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// `TIDEGATE_LOG` is no level.
    #[error(
        "TIDEGATE_LOG is \"{text}\": write off, error, warn, info, debug or trace, for single parts as in `info,broker=debug`"
    )]
    Level {
        /// The variable's value.
        text: String,
    },
}

/// Starts the log; `TIDEGATE_LOG` wins over the configured level. A second start in one process changes nothing.
///
/// # Errors
/// [`LogError::Level`].
pub fn start(log: &Log, environment: &Environment) -> Result<(), LogError> {
    let text = environment.get("TIDEGATE_LOG").unwrap_or(&log.level);
    let level: Targets = text.parse().map_err(|_| LogError::Level { text: text.to_owned() })?;
    let colours = std::io::stderr().is_terminal() && environment.get("NO_COLOR").is_none_or(str::is_empty);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    let layer = match log.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
        }
    };
    // An error says that there is a log already, as in a test that starts two servers.
    drop(tracing_subscriber::registry().with(layer.with_filter(level)).try_init());
    Ok(())
}
