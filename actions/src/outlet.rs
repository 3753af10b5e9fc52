//! One queued action, whatever its kind: the delivery machine with the right driver in it.

use std::collections::HashSet;
use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use store::{DurableStore, MessageRecord, Position, StoreError};

use crate::config::{ActionConfig, Kept, OrderBy};
use crate::delivery::burial::Fate;
use crate::delivery::outbox::encode;
use crate::delivery::{
    Control, Delivery, DropReason, Endings, Enqueued, ItemId, OnFailure, Outbox, Outgoing, Place, Snapshot,
    Start,
};
use crate::error::ActionConfigError;
use crate::plan::Request;
use crate::sinks::http::{Connectors, HttpRequest, HttpSink};
use crate::sinks::log::{LogLine, LogSink, TracingWriter};
use crate::targets::TargetPolicy;

/// A request that can wait in a queue.
pub trait QueuedRequest: Send + Sync + 'static {
    /// Returns about how many bytes of memory it takes.
    fn bytes(&self) -> usize;

    /// Returns how many bytes it takes in a batch, as [`crate::delivery::BatchPolicy::max_bytes`] counts them.
    fn batch_bytes(&self) -> usize {
        self.bytes()
    }

    /// Whether it may go in one batch with `first`, which is another request.
    fn goes_with(&self, _first: &Self) -> bool {
        true
    }

    /// Appends the request as an outbox keeps it.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads what [`QueuedRequest::encode`] has written; `None` for anything else. Every check that a request had when it
    /// was rendered is made again.
    fn decode(bytes: &[u8]) -> Option<Self>
    where
        Self: Sized;
}

/// What outlets need besides an action's own settings.
#[derive(Debug, Clone, Default)]
pub struct OutletSettings {
    /// Which addresses actions may connect to.
    pub targets: Arc<TargetPolicy>,
    /// What actions take addresses and credentials from.
    pub connectors: Arc<Connectors>,
    /// Seeds the jitter of retries.
    pub seed: u64,
    /// Where queues are kept; `None`: in memory alone.
    pub store: Option<Arc<DurableStore>>,
    /// What the caller makes order keys with.
    pub hasher: RandomState,
    /// Hears of items of outboxes that end without being delivered.
    pub endings: Option<Arc<dyn Endings>>,
    /// Actions that an operator has paused, as `rule/action`: their queues begin so.
    pub paused: Arc<HashSet<String>>,
}

impl OutletSettings {
    /// Whether an action's driver must be made anew because these settings aren't the ones that it was made with.
    #[must_use]
    pub fn changes(&self, before: &Self, config: &ActionConfig) -> bool {
        let ActionConfig::Http(config) = config else { return false };
        let same_connector = config.connector.as_deref().is_none_or(|name| {
            matches!(
                (self.connectors.get(name), before.connectors.get(name)),
                (Some(now), Some(before)) if Arc::ptr_eq(now, before)
            )
        });
        self.targets != before.targets || !same_connector
    }
}

/// The queue and driver of one action. Republish has none.
#[derive(Debug)]
pub struct Outlet {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Http(Delivery<HttpSink>),
    Log(Delivery<LogSink<TracingWriter>>),
}

impl Outlet {
    /// Checks what making a driver for `config` needs from the machine, without making it.
    ///
    /// # Errors
    /// As [`Outlet::spawn`].
    pub fn check(config: &ActionConfig, connectors: &Connectors) -> Result<(), ActionConfigError> {
        match config {
            ActionConfig::Http(config) => HttpSink::check(config, connectors),
            ActionConfig::Republish(_) | ActionConfig::Log(_) => Ok(()),
        }
    }

    /// Checks that the action's queue can have its policy with this store, or without one.
    ///
    /// # Errors
    /// [`ActionConfigError`] when the policy needs a queue on disk.
    pub fn check_store(
        config: &ActionConfig,
        store: Option<&Arc<DurableStore>>,
    ) -> Result<(), ActionConfigError> {
        let kept = if store.is_some() { Kept::OnDisk } else { Kept::InMemory };
        match config {
            ActionConfig::Http(config) => config.queue.check_kept(&config.name, kept),
            ActionConfig::Republish(_) | ActionConfig::Log(_) => Ok(()),
        }
    }

    /// Starts queue and worker of an action on the current tokio runtime; `None` for a republish.
    ///
    /// # Errors
    /// [`ActionConfigError`] when the driver can't be made.
    pub fn spawn(
        rule: &str,
        config: &ActionConfig,
        settings: &OutletSettings,
    ) -> Result<Option<Self>, ActionConfigError> {
        let label = format!("{rule}/{}", config.name());
        let start = if settings.paused.contains(&label) { Start::Paused } else { Start::Sending };
        let kind = match config {
            ActionConfig::Republish(_) => return Ok(None),
            ActionConfig::Http(config) => {
                let sink = HttpSink::new(rule, config, Arc::clone(&settings.targets), &settings.connectors)?;
                let outbox = settings.store.as_ref();
                let outbox = outbox.map(|store| {
                    Outbox::new(Arc::clone(store), &label, settings.hasher.clone())
                        .heard_by(settings.endings.clone())
                });
                Kind::Http(Delivery::spawn_on(&label, sink, config.delivery(), settings.seed, outbox, start))
            }
            ActionConfig::Log(config) => {
                let sink = LogSink::new(TracingWriter, config.max_per_second);
                Kind::Log(Delivery::spawn_on(&label, sink, config.delivery(), settings.seed, None, start))
            }
        };
        Ok(Some(Self { kind }))
    }

    /// Gives the running queue new settings. Returns `false`, and changes nothing, when `config` is of another kind.
    ///
    /// # Errors
    /// [`ActionConfigError`] when the driver can't be made; nothing changed then.
    pub fn reconfigure(
        &self,
        rule: &str,
        config: &ActionConfig,
        settings: &OutletSettings,
    ) -> Result<bool, ActionConfigError> {
        match (&self.kind, config) {
            (Kind::Http(delivery), ActionConfig::Http(config)) => {
                let sink = HttpSink::new(rule, config, Arc::clone(&settings.targets), &settings.connectors)?;
                delivery.reconfigure(sink, config.delivery());
            }
            (Kind::Log(delivery), ActionConfig::Log(config)) => {
                delivery.reconfigure(LogSink::new(TracingWriter, config.max_per_second), config.delivery());
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Whether the queue is kept in an outbox.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        match &self.kind {
            Kind::Http(delivery) => delivery.outbox().is_some(),
            Kind::Log(_) => false,
        }
    }

    /// Where a request is to go, to be asked before its message is admitted. `origin` is what the caller wants back with the
    /// item (see [`crate::delivery::outbox::Body`]).
    #[must_use]
    pub fn owe(
        &self,
        message: ItemId,
        received_at_ms: i64,
        order: OrderBy,
        origin: &[u8],
        request: &Request,
    ) -> Owing {
        let (Kind::Http(delivery), Request::Http(request)) = (&self.kind, request) else {
            return Owing::InMemory;
        };
        let Some(outbox) = delivery.outbox() else { return Owing::InMemory };
        let name = Arc::clone(outbox.name());
        let body = encode(order, origin, request);
        match delivery.ask(body.len()) {
            None => Owing::InMemory,
            Some(Place::Outbox) => Owing::Outbox { name, body },
            Some(Place::Refused(error)) => Owing::Refused { error },
            Some(Place::None(reason, error, fate)) => {
                let letter = (fate == Fate::DeadLetter)
                    .then(|| (name, Outbox::letter_of(message, received_at_ms, reason, &error, body)));
                Owing::Nowhere { early: Early { reason, fate }, error, letter }
            }
        }
    }

    /// Counts a request for which [`Outlet::owe`] found no place, once its message is admitted.
    pub fn ended_early(&self, early: Early) {
        match &self.kind {
            Kind::Http(delivery) => delivery.ended_early(early.reason, early.fate),
            Kind::Log(_) => {}
        }
    }

    /// Tells of a request that [`Outlet::owe`] gave a body for, and that has this place in the outbox now. Never waits. A
    /// request of another kind than the outlet's is left to be found there. One that the store gave no place, because it
    /// keeps nothing, waits in memory.
    pub fn placed(&self, position: Position, item: OutletItem) {
        if position == Position::NOWHERE {
            // Its end is told through the item.
            drop(self.enqueue(item));
            return;
        }
        let OutletItem { id, key, request, on_failure, extra_bytes } = item;
        if let (Kind::Http(delivery), Request::Http(request)) = (&self.kind, request) {
            delivery.placed(position, Outgoing { id, key, request, on_failure, extra_bytes });
        }
    }

    /// Puts a request into the outbox, with the message that it was made from, outside any admission. Never waits. A
    /// request of an outlet without outbox goes into the queue.
    ///
    /// # Errors
    /// [`KeepError`] when there is no room; the request is gone then.
    pub fn keep(
        &self,
        message: &MessageRecord<'_>,
        order: OrderBy,
        origin: &[u8],
        item: OutletItem,
    ) -> Result<(), KeepError> {
        match (&self.kind, self.owe(item.id, message.received_at_ms, order, origin, &item.request)) {
            (Kind::Http(delivery), Owing::Outbox { body, .. }) => {
                let position = match delivery.outbox() {
                    Some(outbox) => outbox.keep(message, &body)?,
                    None => Position::NOWHERE,
                };
                self.placed(position, item);
                Ok(())
            }
            (_, Owing::Nowhere { early: Early { reason, .. }, error, .. }) => {
                self.ended_early(Early { reason, fate: Fate::Drop });
                Err(KeepError::NoRoom { error })
            }
            (_, Owing::Refused { error }) => Err(KeepError::NoRoom { error }),
            (_, Owing::Outbox { .. } | Owing::InMemory) => {
                // A drop is counted, and told through the item.
                drop(self.enqueue(item));
                Ok(())
            }
        }
    }

    /// Tells of an item that somebody has put into the outbox, where it is to be read. Never waits.
    pub fn arrived(&self, position: Position) {
        match &self.kind {
            Kind::Http(delivery) => delivery.arrived(position),
            Kind::Log(_) => {}
        }
    }

    /// Puts a request into the queue. Never waits. A request of another kind than the outlet's is handed back.
    ///
    /// # Errors
    /// The request, when it is of another kind.
    pub fn enqueue(&self, item: OutletItem) -> Result<Enqueued, Box<Request>> {
        let OutletItem { id, key, request, on_failure, extra_bytes } = item;
        match (&self.kind, request) {
            (Kind::Http(delivery), Request::Http(request)) => {
                Ok(delivery.enqueue(Outgoing::<HttpRequest> { id, key, request, on_failure, extra_bytes }))
            }
            (Kind::Log(delivery), Request::Log(request)) => {
                Ok(delivery.enqueue(Outgoing::<LogLine> { id, key, request, on_failure, extra_bytes }))
            }
            (_, request) => Err(Box::new(request)),
        }
    }

    /// What an operator may do to the queue.
    #[must_use]
    pub fn control(&self) -> &dyn Control {
        match &self.kind {
            Kind::Http(delivery) => delivery,
            Kind::Log(delivery) => delivery,
        }
    }

    /// Returns the counters and the health of this moment.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        match &self.kind {
            Kind::Http(delivery) => delivery.snapshot(),
            Kind::Log(delivery) => delivery.snapshot(),
        }
    }

    /// Goes on until nothing is left, and then ends. For the queue of an action that is gone.
    pub fn retire(&self) {
        match &self.kind {
            Kind::Http(delivery) => delivery.retire(),
            Kind::Log(delivery) => delivery.retire(),
        }
    }

    /// Whether the queue has ended after [`Outlet::retire`] or [`Outlet::shutdown`].
    #[must_use]
    pub fn is_finished(&self) -> bool {
        match &self.kind {
            Kind::Http(delivery) => delivery.is_finished(),
            Kind::Log(delivery) => delivery.is_finished(),
        }
    }

    /// Takes back [`Outlet::retire`]; `false` when the queue has ended.
    #[must_use]
    pub fn revive(&self) -> bool {
        match &self.kind {
            Kind::Http(delivery) => delivery.revive(),
            Kind::Log(delivery) => delivery.revive(),
        }
    }

    /// Takes nothing more, sends what is queued for at most `grace`, then gives up the rest and counts it under
    /// [`crate::DropReason::Shutdown`].
    pub async fn shutdown(&self, grace: Duration) {
        match &self.kind {
            Kind::Http(delivery) => delivery.shutdown(grace).await,
            Kind::Log(delivery) => delivery.shutdown(grace).await,
        }
    }
}

/// Where a request is to go.
#[derive(Debug)]
#[non_exhaustive]
pub enum Owing {
    /// Into memory: [`Outlet::enqueue`], once the message is admitted.
    InMemory,
    /// Into the outbox, in the message's own frame. [`Outlet::placed`] is to be told its place.
    Outbox {
        /// The outbox's name.
        name: Arc<str>,
        /// What it is to keep.
        body: Vec<u8>,
    },
    /// Nowhere: there is no room. [`Outlet::ended_early`] is to be called once the message is admitted.
    Nowhere {
        /// What is counted.
        early: Early,
        /// Why, in words.
        error: String,
        /// The name and body of a dead letter that is to be in the message's own frame.
        letter: Option<(Arc<str>, Vec<u8>)>,
    },
    /// There is no room, and the message is to be refused.
    Refused {
        /// Why, in words.
        error: String,
    },
}

/// What is counted for a request that never got a place.
#[derive(Debug, Clone, Copy)]
pub struct Early {
    reason: DropReason,
    fate: Fate,
}

/// Why a request was not kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeepError {
    /// The store takes nothing.
    #[error("the store doesn't take it: {0}")]
    Store(#[from] StoreError),
    /// The outbox is full.
    #[error("{error}")]
    NoRoom {
        /// Which bound.
        error: String,
    },
}

/// What goes into [`Outlet::enqueue`].
pub struct OutletItem {
    /// The message that the request was made from.
    pub id: ItemId,
    /// Items with the same key keep their order; `None` for an item without order.
    pub key: Option<u64>,
    /// The request.
    pub request: Request,
    /// Told if it is given up.
    pub on_failure: Option<OnFailure>,
    /// Bytes that live as long as the item does, beside the request's own.
    pub extra_bytes: usize,
}
