//! Messages counted by Topic Filter, for whoever asked for it.
//!
//! A topic's route knows the meters that its messages count with, so they cost nothing where there are none, and a look-up of
//! filters only when a route is worked out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mqtt_protocol::topic::{TopicError, matches, validate_topic_filter};
use parking_lot::RwLock;

use crate::broker::Broker;
use crate::metrics::Counter;

/// Most filters at one time.
pub const METERS_MAX: usize = 64;

/// Why messages of a filter aren't counted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MeterError {
    /// It is no Topic Filter.
    #[error(transparent)]
    Filter(#[from] TopicError),
    /// There are as many as there may be.
    #[error("{limit} filters are counted, which is the limit")]
    TooMany {
        /// The limit.
        limit: usize,
    },
}

/// What one filter has counted since it was added.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MeterReading {
    /// The filter.
    pub filter: String,
    /// When it was added, milliseconds since the epoch.
    pub since_ms: i64,
    /// Messages that were admitted, those of rules and of the program among them.
    pub received: u64,
    /// Payload bytes of those.
    pub received_bytes: u64,
    /// Messages handed to receivers.
    pub delivered: u64,
    /// Payload bytes of those.
    pub delivered_bytes: u64,
    /// Messages that a receiver should have had and that were dropped when they came.
    pub dropped: u64,
}

#[derive(Debug)]
pub(crate) struct Meter {
    filter: Box<str>,
    since_ms: i64,
    received: Counter,
    received_bytes: Counter,
    delivered: Counter,
    delivered_bytes: Counter,
    dropped: Counter,
}

impl Meter {
    /// Messages were admitted.
    pub(crate) fn receive(&self, messages: u64, payload_bytes: u64) {
        self.received.add(messages);
        self.received_bytes.add(payload_bytes);
    }

    /// Messages were handed to receivers, or dropped.
    pub(crate) fn deliver(&self, messages: u64, payload_bytes: u64, dropped: u64) {
        self.delivered.add(messages);
        self.delivered_bytes.add(payload_bytes);
        self.dropped.add(dropped);
    }

    fn read(&self) -> MeterReading {
        MeterReading {
            filter: self.filter.to_string(),
            since_ms: self.since_ms,
            received: self.received.get(),
            received_bytes: self.received_bytes.get(),
            delivered: self.delivered.get(),
            delivered_bytes: self.delivered_bytes.get(),
            dropped: self.dropped.get(),
        }
    }
}

/// All meters, in the order in which they were added.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    /// Raised by every change.
    generation: AtomicU64,
    list: RwLock<Vec<Arc<Meter>>>,
}

impl Meters {
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Those that messages of a topic count with.
    pub(crate) fn of(&self, topic: &str) -> Box<[Arc<Meter>]> {
        self.list.read().iter().filter(|meter| matches(&meter.filter, topic)).cloned().collect()
    }

    /// Returns whether it is new.
    fn add(&self, filter: &str, since_ms: i64) -> Result<bool, MeterError> {
        validate_topic_filter(filter)?;
        let mut list = self.list.write();
        if list.iter().any(|meter| *meter.filter == *filter) {
            return Ok(false);
        }
        if list.len() >= METERS_MAX {
            return Err(MeterError::TooMany { limit: METERS_MAX });
        }
        list.push(Arc::new(Meter {
            filter: filter.into(),
            since_ms,
            received: Counter::default(),
            received_bytes: Counter::default(),
            delivered: Counter::default(),
            delivered_bytes: Counter::default(),
            dropped: Counter::default(),
        }));
        self.generation.fetch_add(1, Ordering::AcqRel);
        Ok(true)
    }

    fn remove(&self, filter: &str) -> bool {
        let mut list = self.list.write();
        let before = list.len();
        list.retain(|meter| *meter.filter != *filter);
        let is_gone = list.len() < before;
        if is_gone {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        is_gone
    }
}

impl Broker {
    /// Counts messages of a Topic Filter from now on. Returns whether it wasn't counted before.
    ///
    /// # Errors
    /// [`MeterError`].
    pub fn add_meter(&self, filter: &str) -> Result<bool, MeterError> {
        self.shared.meters.add(filter, self.shared.clock.now().wall_ms)
    }

    /// Counts them no more, and forgets what was counted. Returns whether it was.
    pub fn remove_meter(&self, filter: &str) -> bool {
        self.shared.meters.remove(filter)
    }

    /// What the filters have counted, in the order in which they were added.
    #[must_use]
    pub fn meters(&self) -> Vec<MeterReading> {
        self.shared.meters.list.read().iter().map(|meter| meter.read()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_have_a_number_and_stand_there_once() {
        let meters = Meters::default();
        for number in 0..METERS_MAX {
            assert_eq!(meters.add(&format!("f/{number}"), 0), Ok(true));
        }
        assert_eq!(meters.add("f/0", 0), Ok(false), "it is there already");
        assert_eq!(meters.add("one/more", 0), Err(MeterError::TooMany { limit: METERS_MAX }));
        assert!(meters.remove("f/0") && !meters.remove("f/0"));
        assert_eq!(meters.add("one/more", 0), Ok(true));
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        let meters = Meters::default();
        for filter in ["", "a/#/b", "a+"] {
            assert!(matches!(meters.add(filter, 0), Err(MeterError::Filter(_))), "{filter}");
        }
        assert_eq!(meters.generation(), 0);
    }

    #[test]
    fn a_topic_counts_with_every_filter_that_matches() {
        let meters = Meters::default();
        for filter in ["a/+", "a/b", "c"] {
            meters.add(filter, 0).unwrap();
        }
        let filters =
            |topic: &str| meters.of(topic).iter().map(|meter| meter.filter.clone()).collect::<Vec<_>>();
        assert_eq!(filters("a/b"), ["a/+".into(), "a/b".into()]);
        assert!(filters("x").is_empty());
        assert_eq!(meters.generation(), 3);
    }
}
