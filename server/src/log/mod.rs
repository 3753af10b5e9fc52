//! The program's own log: `tracing` events to standard error, for people or as JSON. What repeats itself is held back
//! (`repeats`).

mod repeats;

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, reload};

use self::repeats::Repeats;
use crate::config::{Environment, Log, LogFormat};

/// What changes the level of the log that runs, once there is one.
static LEVEL: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

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

/// Libraries that write a line for whatever a far side sends, or repeat what was sent to it: one that means harm could fill
/// the log, and payloads don't belong there. They are heard if they are asked for (`info,rskafka=debug`).
const TALKATIVE: &[&str] = &["lapin", "rskafka"];

/// Reads a level, or levels of single parts: `info,broker=debug`. A word alone must be a level; `Targets` itself would take
/// a misspelt one for the name of a part, and log nothing else.
pub(crate) fn levels(text: &str) -> Option<Targets> {
    let mut targets = Targets::new();
    for library in TALKATIVE {
        targets = targets.with_target(*library, LevelFilter::OFF);
    }
    for part in text.split(',').map(str::trim) {
        targets = match part.split_once('=') {
            None => targets.with_default(word(part)?),
            Some((name, text)) if !name.is_empty() => targets.with_target(name, word(text)?),
            Some(_) => return None,
        };
    }
    Some(targets)
}

fn word(text: &str) -> Option<LevelFilter> {
    // As words only: the library takes numbers too, in an order that few know by heart.
    text.starts_with(|c: char| c.is_ascii_alphabetic()).then(|| text.parse().ok())?
}

/// Starts the log; `TIDEGATE_LOG` wins over the configured level. A second start in one process changes nothing.
///
/// # Errors
/// [`LogError::Level`].
pub fn start(log: &Log, environment: &Environment) -> Result<(), LogError> {
    let (level, handle) = reload::Layer::new(level(log, environment)?);
    let colours = std::io::stderr().is_terminal() && environment.get("NO_COLOR").is_none_or(str::is_empty);
    let writer = Repeats::new(std::io::stderr, log.format);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours);
    let layer = match log.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
        }
    };
    // An error says that there is a log already, as in a test that starts two servers.
    if tracing_subscriber::registry().with(layer.with_filter(level)).try_init().is_ok() {
        drop(LEVEL.set(handle));
        log_panics();
    }
    Ok(())
}

/// Has panics logged like everything else, in one line. Whatever they were about may stand in their message, and no value
/// is repeated: only the place in the program is told, which is what finds the fault.
fn log_panics() {
    let plain = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if tracing::enabled!(tracing::Level::ERROR) {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            let thread = std::thread::current().name().unwrap_or_default().to_owned();
            tracing::error!(place, thread, "panicked");
        } else {
            plain(panic);
        }
    }));
}

/// The level that a configuration wants; `TIDEGATE_LOG` goes on to win.
///
/// # Errors
/// [`LogError::Level`].
pub(crate) fn level(log: &Log, environment: &Environment) -> Result<Targets, LogError> {
    let text = environment.get("TIDEGATE_LOG").unwrap_or(&log.level);
    levels(text).ok_or_else(|| LogError::Level { text: text.to_owned() })
}

/// Changes the level of the log that runs.
pub(crate) fn set_level(level: Targets) {
    if let Some(handle) = LEVEL.get() {
        // It fails only when the log is gone, and then nobody reads it.
        drop(handle.reload(level));
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn levels_are_words_alone_or_with_a_part() {
        let quiet = levels("warn, broker=trace,actions=off").unwrap();
        assert!(quiet.would_enable("tidegate::server", &Level::WARN));
        assert!(!quiet.would_enable("tidegate::server", &Level::INFO));
        assert!(quiet.would_enable("broker::connection", &Level::TRACE));
        assert!(!quiet.would_enable("actions", &Level::ERROR));
        assert!(!levels("off").unwrap().would_enable("broker", &Level::ERROR));
    }

    #[test]
    fn libraries_that_a_far_side_makes_talk_are_heard_only_when_asked_for() {
        let all = levels("trace").unwrap();
        assert!(!all.would_enable("rskafka::messenger", &Level::ERROR));
        assert!(all.would_enable("actions::sinks::kafka", &Level::TRACE));
        let asked = levels("info,rskafka=debug,lapin=warn").unwrap();
        assert!(asked.would_enable("rskafka::messenger", &Level::DEBUG));
        assert!(!all.would_enable("lapin::returned_messages", &Level::ERROR));
        assert!(asked.would_enable("lapin::io_loop", &Level::WARN));
    }

    #[test]
    fn a_misspelt_level_is_none() {
        for text in ["", "infoo", "verbose", "info,", "broker", "broker=chatty", "=info", "3", "broker=3"] {
            assert!(levels(text).is_none(), "{text}");
        }
    }
}
