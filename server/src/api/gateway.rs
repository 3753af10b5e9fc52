//! What handlers work on: the gateway as it runs.

use std::path::Path;
use std::sync::Arc;

use broker::{BoundListener, Broker};
use mqtt_protocol::ReasonCode;
use parking_lot::RwLock;
use store::{DurableStore, Store as _};

use super::auth::now_ms;
use super::dead_letters::Letters;
use super::problem::{Kind, Problem};
use crate::access::Access;
use crate::alarms::{self, Alarms};
use crate::config;
use crate::metrics::{Observer, Seen, Sources};
use crate::otlp::Exporter;
use crate::reload::ReloadSlot;
use crate::rules::{RuleBook, RulePipeline};

/// The gateway that is administered.
#[derive(Clone)]
pub struct Gateway {
    pub(super) broker: Broker,
    pub(super) book: RuleBook,
    /// What a rule may use.
    pub(super) rule_limits: rules_sql::Limits,
    /// Dead letters; `None`: there is no store on disk to keep any.
    pub(super) letters: Option<Arc<Letters>>,
    /// Identity of the store on disk; 0: there is none.
    pub(super) store_id: u64,
    pub(super) started_at_ms: i64,
    /// Those that are open, once they are.
    pub(super) listeners: Arc<RwLock<Vec<BoundListener>>>,
    /// What reads the configuration again, once there is one.
    pub(super) reload: ReloadSlot,
    /// What clients may do; `None`: everything.
    pub(super) access: Option<Arc<Access>>,
    store: Option<Arc<DurableStore>>,
    /// What is measured.
    metrics: config::Metrics,
    /// What is worth an alarm.
    alarms: Arc<Alarms>,
    /// What is seen from time to time.
    seen: Arc<Seen>,
    /// What sends traces to a collector.
    exporter: Arc<Exporter>,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("started_at_ms", &self.started_at_ms).finish_non_exhaustive()
    }
}

impl Gateway {
    /// A gateway that starts now.
    #[must_use]
    pub fn new(
        broker: Broker,
        book: RuleBook,
        rule_limits: rules_sql::Limits,
        store: Option<&Arc<DurableStore>>,
    ) -> Self {
        let letters = store.map(|store| Arc::new(Letters::new(store, Arc::new(book.pipeline().clone()))));
        let store_id = store.map_or(0, |store| store.identity().id);
        let started_at_ms = now_ms();
        let (listeners, reload) = Default::default();
        Self {
            broker,
            book,
            rule_limits,
            letters,
            store_id,
            started_at_ms,
            listeners,
            reload,
            access: None,
            store: store.cloned(),
            metrics: config::Metrics::default(),
            alarms: Arc::default(),
            seen: Arc::default(),
            exporter: Arc::default(),
        }
    }

    /// Adds what decides what clients may do.
    #[must_use]
    pub fn with_access(self, access: Arc<Access>) -> Self {
        Self { access: Some(access), ..self }
    }

    /// Says what is measured.
    #[must_use]
    pub fn with_metrics(self, metrics: config::Metrics) -> Self {
        Self { metrics, ..self }
    }

    /// Where the counters are.
    pub(super) fn sources(&self) -> Sources {
        Sources {
            broker: self.broker.clone(),
            book: self.book.clone(),
            store: self.store.clone(),
            access: self.access.clone(),
            alarms: Arc::clone(&self.alarms),
            exporter: Arc::clone(&self.exporter),
            started_at_ms: self.started_at_ms,
            rules_max: usize::try_from(self.metrics.max_rules).unwrap_or(usize::MAX),
        }
    }

    /// What is seen from time to time.
    pub(super) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Begins to look at the gateway from time to time, on the current tokio runtime, and keeps the history in `data_dir`.
    pub(crate) fn observe(&self, data_dir: Option<&Path>) -> Option<Observer> {
        let data_dir = data_dir.map(Path::to_owned);
        Observer::start(self.sources(), &self.metrics, Arc::clone(&self.seen), data_dir)
    }

    /// Adds what sends traces to a collector.
    #[must_use]
    pub(crate) fn with_exporter(self, exporter: Arc<Exporter>) -> Self {
        Self { exporter, ..self }
    }

    /// Says what is worth an alarm.
    #[must_use]
    pub(crate) fn with_alarms(self, alarms: Arc<Alarms>) -> Self {
        Self { alarms, ..self }
    }

    /// The alarms.
    pub(super) fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    /// Begins to look for what is worth an alarm, on the current tokio runtime.
    pub(crate) fn watch_alarms(&self) -> alarms::Watch {
        alarms::Watch::start(self.sources(), Arc::clone(&self.alarms))
    }

    /// Where what reads the configuration again is put.
    pub(crate) fn reload(&self) -> &ReloadSlot {
        &self.reload
    }

    /// What runs the rules.
    pub(super) fn rules(&self) -> &RulePipeline {
        self.book.pipeline()
    }

    /// The dead letters.
    pub(super) fn letters(&self) -> Result<&Arc<Letters>, Problem> {
        let missing = || Problem::new(Kind::Conflict, "there are no dead letters without a store on disk");
        self.letters.as_ref().ok_or_else(missing)
    }
}

/// Why the broker doesn't do something.
pub(super) fn refused(reason: ReasonCode) -> Problem {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the broker has no other reasons for the embedding program"
    )]
    let kind = match reason {
        ReasonCode::NotAuthorized => Kind::Forbidden,
        ReasonCode::PacketTooLarge => Kind::TooLarge,
        ReasonCode::ImplementationSpecificError | ReasonCode::ServerUnavailable => Kind::Unavailable,
        _ => Kind::Conflict,
    };
    Problem::new(kind, format!("the broker refuses: {}", reason.name()))
}
