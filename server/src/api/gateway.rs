//! What handlers work on: the gateway as it runs.

use std::sync::Arc;

use broker::{BoundListener, Broker};
use mqtt_protocol::ReasonCode;
use parking_lot::RwLock;
use store::{DurableStore, Store as _};

use super::auth::now_ms;
use super::dead_letters::Letters;
use super::problem::{Kind, Problem};
use crate::access::Access;
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
        Self { broker, book, rule_limits, letters, store_id, started_at_ms, listeners, reload, access: None }
    }

    /// Adds what decides what clients may do.
    #[must_use]
    pub fn with_access(self, access: Arc<Access>) -> Self {
        Self { access: Some(access), ..self }
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
