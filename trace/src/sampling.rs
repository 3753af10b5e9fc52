//! Which messages are traced.
//!
//! The settings say it for good; a [`Capture`] says it for a while, because somebody looks at something just now.

use std::fmt;
use std::time::{Duration, Instant};

use mqtt_protocol::topic::{matches, validate_topic_filter};

/// Most captures at a time.
pub const CAPTURES_MAX: usize = 16;
/// Longest time for which a capture runs.
pub const CAPTURE_TIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// Most clients, filters or rules of one capture.
pub const NAMES_MAX: usize = 64;

/// Which messages are traced. A message is, when any of it says so.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sampling {
    /// Share of all messages, 0 to 1.
    pub ratio: f64,
    /// Client Identifiers of publishers.
    pub clients: Vec<String>,
    /// Topic Filters.
    pub topics: Vec<String>,
    /// Rules: messages that come to one of them.
    pub rules: Vec<String>,
}

/// How many values the random part of a trace's identifier has.
const RANDOM: u64 = 1 << 56;

/// The random part of a trace's identifier.
#[expect(clippy::cast_possible_truncation, reason = "it is the last 56 bits")]
pub(crate) const fn random_part(trace_id: u128) -> u64 {
    trace_id as u64 & (RANDOM - 1)
}

/// The random parts below it are left out.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "2^56 is exact, and a product with a number from 0 to 1 is no larger"
)]
fn threshold(ratio: f64) -> u64 {
    ((1.0 - ratio.clamp(0.0, 1.0)) * RANDOM as f64) as u64
}

impl Sampling {
    /// Whether it names any message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ratio <= 0.0 && self.clients.is_empty() && self.topics.is_empty() && self.rules.is_empty()
    }

    /// Checks what can be wrong.
    ///
    /// # Errors
    /// What, in words.
    pub fn check(&self) -> Result<(), CaptureError> {
        if !(0.0..=1.0).contains(&self.ratio) {
            return Err(CaptureError::Ratio(self.ratio));
        }
        for (what, names) in [("clients", &self.clients), ("topics", &self.topics), ("rules", &self.rules)] {
            if names.len() > NAMES_MAX {
                return Err(CaptureError::TooMany { what, given: names.len() });
            }
        }
        for filter in &self.topics {
            validate_topic_filter(filter)
                .map_err(|error| CaptureError::Filter { filter: filter.clone(), error: error.to_string() })?;
        }
        Ok(())
    }

    /// Whether a message is wanted, as long as its own trace doesn't decide.
    pub(crate) fn of_message(&self, topic: &str, client_id: Option<&str>) -> Option<Why> {
        if client_id.is_some_and(|client| self.clients.iter().any(|wanted| wanted == client)) {
            return Some(Why::Client);
        }
        if self.topics.iter().any(|filter| matches(filter, topic)) {
            return Some(Why::Topic);
        }
        None
    }

    /// Whether a trace is one of the share. Its identifier alone decides, so that all who sample by the same share keep the
    /// same traces: those whose last 56 bits, which are random, are not below a threshold (OpenTelemetry's consistent
    /// sampling by probability, W3C Trace Context level 2 §3.2.2.3).
    pub(crate) fn of_trace(&self, trace_id: u128) -> bool {
        self.ratio > 0.0 && random_part(trace_id) >= threshold(self.ratio)
    }

    /// The random part below which it wants no message, whatever the message is. Those that come to a rule aside, which are
    /// looked at later.
    pub(crate) fn never_below(&self) -> u64 {
        if self.clients.is_empty() && self.topics.is_empty() { threshold(self.ratio) } else { 0 }
    }

    pub(crate) fn of_rule(&self, rule: &str) -> bool {
        self.rules.iter().any(|wanted| wanted == rule)
    }
}

/// Why a message is traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Why {
    /// It is one of the share.
    Ratio,
    /// Its publisher is looked at.
    Client,
    /// Its topic is looked at.
    Topic,
    /// A rule that it came to is looked at.
    Rule,
    /// Its publisher, or whoever it came from, traces it.
    Context,
    /// Something failed.
    Error,
}

impl Why {
    /// Its name in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ratio => "ratio",
            Self::Client => "client",
            Self::Topic => "topic",
            Self::Rule => "rule",
            Self::Context => "context",
            Self::Error => "error",
        }
    }
}

/// Names a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CaptureId(pub u64);

impl fmt::Display for CaptureId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Messages that are traced for a while.
#[derive(Debug, Clone)]
pub struct Capture {
    /// Its name.
    pub id: CaptureId,
    /// Which messages.
    pub sampling: Sampling,
    /// When it ends.
    pub until: Instant,
}

/// Why a capture can't be begun, or settings can't be.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum CaptureError {
    /// It names nothing.
    Empty,
    /// Not from 0 to 1.
    Ratio(f64),
    /// No Topic Filter.
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        error: String,
    },
    /// More names than [`NAMES_MAX`].
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        given: usize,
    },
    /// Longer than [`CAPTURE_TIME_MAX`], or no time at all.
    Time(Duration),
    /// [`CAPTURES_MAX`] run.
    Full,
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("expected a share of messages, clients, topics or rules"),
            Self::Ratio(ratio) => write!(f, "ratio: expected 0 to 1, given {ratio}"),
            Self::Filter { filter, error } => write!(f, "topics: \"{filter}\": {error}"),
            Self::TooMany { what, given } => {
                write!(f, "{what}: {given} given, more than the limit of {NAMES_MAX}")
            }
            Self::Time(time) => write!(f, "expected 1s to 24h, given {time:?}"),
            Self::Full => write!(f, "{CAPTURES_MAX} captures run, which is the limit: end one first"),
        }
    }
}

impl std::error::Error for CaptureError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(clients: &[&str], topics: &[&str]) -> Sampling {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Sampling { clients: owned(clients), topics: owned(topics), ..Sampling::default() }
    }

    #[test]
    fn a_message_is_chosen_by_client_topic_or_share() {
        let sampling = of(&["press-1"], &["plant/+/state"]);
        assert_eq!(sampling.of_message("x", Some("press-1")), Some(Why::Client));
        assert_eq!(sampling.of_message("plant/a/state", Some("other")), Some(Why::Topic));
        assert_eq!(sampling.of_message("plant/a/state", None), Some(Why::Topic));
        assert_eq!(sampling.of_message("plant/a", Some("press-11")), None);
        let all = Sampling { ratio: 1.0, ..Sampling::default() };
        assert_eq!(all.of_message("x", None), None);
        assert!(all.of_trace(0) && all.of_trace(u128::MAX));
        assert_eq!(Sampling::default().of_message("x", Some("")), None);
        assert!(!Sampling::default().of_trace(u128::MAX));
    }

    #[test]
    fn a_share_is_chosen_by_the_last_56_bits_of_the_trace() {
        let of = |ratio: f64, trace_id: u128| Sampling { ratio, ..Sampling::default() }.of_trace(trace_id);
        let other_bits = 0xffff_ffff_ffff_ffff_ff00_0000_0000_0000_u128;
        for above in [0, other_bits] {
            // The specification's example: one in four begins at 0xc0.
            assert!(of(0.25, above | 0x00c0_0000_0000_0000));
            assert!(!of(0.25, above | 0x00bf_ffff_ffff_ffff));
            assert!(of(0.5, above | 0x0080_0000_0000_0000));
            assert!(!of(0.5, above | 0x007f_ffff_ffff_ffff));
        }
        // Who keeps a smaller share keeps a part of what others keep.
        for trace_id in (0..1_000).map(|n| n << 46) {
            assert!(!of(0.01, trace_id) || of(0.1, trace_id));
        }
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for ratio in [-0.1, 1.1, f64::NAN] {
            assert!(Sampling { ratio, ..Sampling::default() }.check().is_err(), "{ratio}");
        }
        assert!(of(&[], &["a/#/b"]).check().unwrap_err().to_string().starts_with("topics: \"a/#/b\""));
        assert!(of(&vec!["c"; NAMES_MAX], &[]).check().is_ok());
        assert!(of(&vec!["c"; NAMES_MAX + 1], &[]).check().is_err());
    }
}
