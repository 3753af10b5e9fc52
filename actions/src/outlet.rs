//! One queued action, whatever its kind: the delivery machine with the right driver in it.

use std::any::Any;
use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::hash::RandomState;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use store::{DurableStore, MessageRecord, Position, StoreError};
use trace::{Context, Tracer};

use crate::config::{ActionConfig, DeliveryConfig, Kept, OrderBy};
use crate::connectors::Connectors;
use crate::delivery::burial::Fate;
use crate::delivery::outbox::encode;
use crate::delivery::{
    Control, Delivery, DropReason, Endings, Enqueued, ItemId, OnFailure, Outbox, Outgoing, Place, Sink,
    Snapshot, Start,
};
use crate::error::ActionConfigError;
use crate::plan::{OneOf, Request};
#[cfg(feature = "amqp")]
use crate::sinks::amqp::AmqpSink;
use crate::sinks::http::HttpSink;
#[cfg(feature = "kafka")]
use crate::sinks::kafka::KafkaSink;
use crate::sinks::log::{LogSink, TracingWriter};
#[cfg(feature = "nats")]
use crate::sinks::nats::NatsSink;
#[cfg(feature = "redis")]
use crate::sinks::redis::RedisSink;
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
    /// Who is told of single requests.
    pub tracer: Arc<Tracer>,
}

impl OutletSettings {
    /// Whether an action's driver must be made anew because these settings aren't the ones that it was made with.
    #[must_use]
    pub fn changes(&self, before: &Self, config: &ActionConfig) -> bool {
        match config {
            ActionConfig::Republish(_) | ActionConfig::Log(_) => false,
            // Links judge addresses for the connector, which is another one when the policy is.
            config => {
                let judges = matches!(config, ActionConfig::Http(_)) && self.targets != before.targets;
                let connector = config.connector();
                judges || !connector.is_none_or(|name| self.connectors.agree_on(&before.connectors, name))
            }
        }
    }
}

/// The queue and driver of one action. Republish has none.
pub struct Outlet {
    kind: &'static str,
    queue: Box<dyn Queue>,
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlet").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// A delivery, whatever its sink.
trait Queue: Send + Sync {
    /// As itself, for whoever knows its sink.
    fn any(&self) -> &dyn Any;
    fn outbox(&self) -> Option<&Outbox>;
    /// The body of a request in the outbox, and its place; `None`: it is none of the sink's, or there is no outbox.
    fn ask(
        &self,
        order: OrderBy,
        origin: &[u8],
        request: &Request,
        trace: Option<Context>,
    ) -> Option<(Place, Vec<u8>)>;
    fn ended_early(&self, reason: DropReason, fate: Fate);
    fn placed(&self, position: Position, item: OutletItem);
    fn arrived(&self, position: Position);
    fn enqueue(&self, item: OutletItem) -> Result<Enqueued, Box<Request>>;
    fn control(&self) -> &dyn Control;
    fn snapshot(&self) -> Snapshot;
    fn retire(&self);
    fn is_finished(&self) -> bool;
    fn revive(&self) -> bool;
    fn shutdown(&self, grace: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

impl<S: Sink> Queue for Delivery<S>
where
    S::Request: OneOf,
{
    fn any(&self) -> &dyn Any {
        self
    }

    fn outbox(&self) -> Option<&Outbox> {
        self.outbox()
    }

    fn ask(
        &self,
        order: OrderBy,
        origin: &[u8],
        request: &Request,
        trace: Option<Context>,
    ) -> Option<(Place, Vec<u8>)> {
        self.outbox()?;
        let body = encode(order, origin, S::Request::among(request)?, trace);
        let place = self.ask(body.len())?;
        Some((place, body))
    }

    fn ended_early(&self, reason: DropReason, fate: Fate) {
        self.ended_early(reason, fate);
    }

    fn placed(&self, position: Position, item: OutletItem) {
        let OutletItem { id, key, request, on_failure, extra_bytes, trace } = item;
        if let Ok(request) = S::Request::take(request) {
            self.placed(position, Outgoing { id, key, request, on_failure, extra_bytes, trace });
        }
    }

    fn arrived(&self, position: Position) {
        self.arrived(position);
    }

    fn enqueue(&self, item: OutletItem) -> Result<Enqueued, Box<Request>> {
        let OutletItem { id, key, request, on_failure, extra_bytes, trace } = item;
        let request = S::Request::take(request)?;
        Ok(self.enqueue(Outgoing { id, key, request, on_failure, extra_bytes, trace }))
    }

    fn control(&self) -> &dyn Control {
        self
    }

    fn snapshot(&self) -> Snapshot {
        self.snapshot()
    }

    fn retire(&self) {
        self.retire();
    }

    fn is_finished(&self) -> bool {
        self.is_finished()
    }

    fn revive(&self) -> bool {
        self.revive()
    }

    fn shutdown(&self, grace: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.shutdown(grace))
    }
}

/// Takes the driver of an action, whose type is the action's own.
trait WithSink {
    type Output;

    fn with<S: Sink>(self, sink: S) -> Self::Output
    where
        S::Request: OneOf;
}

/// Makes the driver of an action and gives it to `with`; `None` for a republish, which has none.
fn driver<W: WithSink>(
    rule: &str,
    config: &ActionConfig,
    settings: &OutletSettings,
    with: W,
) -> Result<Option<W::Output>, ActionConfigError> {
    Ok(Some(match config {
        ActionConfig::Republish(_) => return Ok(None),
        ActionConfig::Http(config) => {
            with.with(HttpSink::new(rule, config, Arc::clone(&settings.targets), &settings.connectors)?)
        }
        ActionConfig::Log(config) => with.with(LogSink::new(TracingWriter, config.max_per_second)),
        #[cfg(feature = "nats")]
        ActionConfig::Nats(config) => with.with(NatsSink::new(rule, config, &settings.connectors)?),
        #[cfg(not(feature = "nats"))]
        ActionConfig::Nats(_) => return Err(left_out(config)),
        #[cfg(feature = "amqp")]
        ActionConfig::Amqp(config) => with.with(AmqpSink::new(rule, config, &settings.connectors)?),
        #[cfg(not(feature = "amqp"))]
        ActionConfig::Amqp(_) => return Err(left_out(config)),
        #[cfg(feature = "kafka")]
        ActionConfig::Kafka(config) => with.with(KafkaSink::new(rule, config, &settings.connectors)?),
        #[cfg(not(feature = "kafka"))]
        ActionConfig::Kafka(_) => return Err(left_out(config)),
        #[cfg(feature = "redis")]
        ActionConfig::Redis(config) => with.with(RedisSink::new(rule, config, &settings.connectors)?),
        #[cfg(not(feature = "redis"))]
        ActionConfig::Redis(_) => return Err(left_out(config)),
    }))
}

/// The error of an action whose driver this program was built without.
#[cfg(not(all(feature = "amqp", feature = "kafka", feature = "nats", feature = "redis")))]
fn left_out(config: &ActionConfig) -> ActionConfigError {
    let kind = config.kind();
    let problem = format!("this program was built without \"{kind}\" (cargo feature `{kind}`)");
    ActionConfigError::field_error(config.name(), "type", problem)
}

/// Starts a queue.
struct Spawn<'a> {
    label: &'a str,
    delivery: DeliveryConfig,
    seed: u64,
    outbox: Option<Outbox>,
    start: Start,
    tracer: Arc<Tracer>,
}

impl WithSink for Spawn<'_> {
    type Output = Box<dyn Queue>;

    fn with<S: Sink>(self, sink: S) -> Self::Output
    where
        S::Request: OneOf,
    {
        let Self { label, delivery, seed, outbox, start, tracer } = self;
        Box::new(Delivery::spawn_traced(label, sink, delivery, seed, outbox, start, tracer))
    }
}

/// Gives a running queue another driver of the same type; `false` if the type isn't.
struct Replace<'a> {
    queue: &'a dyn Queue,
    delivery: DeliveryConfig,
}

impl WithSink for Replace<'_> {
    type Output = bool;

    fn with<S: Sink>(self, sink: S) -> bool
    where
        S::Request: OneOf,
    {
        let Some(delivery) = self.queue.any().downcast_ref::<Delivery<S>>() else { return false };
        delivery.reconfigure(sink, self.delivery);
        true
    }
}

/// Checks a driver without a queue for it.
struct Check;

impl WithSink for Check {
    type Output = ();

    fn with<S: Sink>(self, _: S)
    where
        S::Request: OneOf,
    {
    }
}

impl Outlet {
    /// Checks what making a driver for `config` needs from the machine, without making it.
    ///
    /// # Errors
    /// As [`Outlet::spawn`].
    pub fn check(config: &ActionConfig, connectors: &Connectors) -> Result<(), ActionConfigError> {
        match config {
            // Its driver is dear.
            ActionConfig::Http(config) => HttpSink::check(config, connectors),
            config => {
                let settings =
                    OutletSettings { connectors: Arc::new(connectors.clone()), ..OutletSettings::default() };
                driver("", config, &settings, Check).map(drop)
            }
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
        if !config.has_outbox() {
            return Ok(());
        }
        let kept = if store.is_some() { Kept::OnDisk } else { Kept::InMemory };
        match config.delivery() {
            Some(delivery) => delivery.queue.check_kept(config.name(), kept),
            None => Ok(()),
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
        let Some(delivery) = config.delivery() else { return Ok(None) };
        let label = format!("{rule}/{}", config.name());
        let outbox = settings.store.as_ref().filter(|_| config.has_outbox()).map(|store| {
            Outbox::new(Arc::clone(store), &label, settings.hasher.clone()).heard_by(settings.endings.clone())
        });
        let start = if settings.paused.contains(&label) { Start::Paused } else { Start::Sending };
        let spawn = Spawn {
            label: &label,
            delivery,
            seed: settings.seed,
            outbox,
            start,
            tracer: Arc::clone(&settings.tracer),
        };
        let queue = driver(rule, config, settings, spawn)?;
        Ok(queue.map(|queue| Self { kind: config.kind(), queue }))
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
        let Some(delivery) = config.delivery().filter(|_| config.kind() == self.kind) else {
            return Ok(false);
        };
        let replace = Replace { queue: &*self.queue, delivery };
        Ok(driver(rule, config, settings, replace)?.unwrap_or(false))
    }

    /// Whether the queue is kept in an outbox.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.queue.outbox().is_some()
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
        trace: Option<Context>,
    ) -> Owing {
        let Some(outbox) = self.queue.outbox() else { return Owing::InMemory };
        let Some((place, body)) = self.queue.ask(order, origin, request, trace) else {
            return Owing::InMemory;
        };
        let name = Arc::clone(outbox.name());
        match place {
            Place::Outbox => Owing::Outbox { name, body },
            Place::Refused(error) => Owing::Refused { error },
            Place::None(reason, error, fate) => {
                let letter = (fate == Fate::DeadLetter)
                    .then(|| (name, Outbox::letter_of(message, received_at_ms, reason, &error, body)));
                Owing::Nowhere { early: Early { reason, fate }, error, letter }
            }
        }
    }

    /// Counts a request for which [`Outlet::owe`] found no place, once its message is admitted.
    pub fn ended_early(&self, early: Early) {
        self.queue.ended_early(early.reason, early.fate);
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
        self.queue.placed(position, item);
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
        match self.owe(item.id, message.received_at_ms, order, origin, &item.request, item.trace) {
            Owing::Outbox { body, .. } => {
                let position = match self.queue.outbox() {
                    Some(outbox) => outbox.keep(message, &body)?,
                    None => Position::NOWHERE,
                };
                self.placed(position, item);
                Ok(())
            }
            Owing::Nowhere { early: Early { reason, .. }, error, .. } => {
                self.ended_early(Early { reason, fate: Fate::Drop });
                Err(KeepError::NoRoom { error })
            }
            Owing::Refused { error } => Err(KeepError::NoRoom { error }),
            Owing::InMemory => {
                // A drop is counted, and told through the item.
                drop(self.enqueue(item));
                Ok(())
            }
        }
    }

    /// Tells of an item that somebody has put into the outbox, where it is to be read. Never waits.
    pub fn arrived(&self, position: Position) {
        self.queue.arrived(position);
    }

    /// Puts a request into the queue. Never waits. A request of another kind than the outlet's is handed back.
    ///
    /// # Errors
    /// The request, when it is of another kind.
    pub fn enqueue(&self, item: OutletItem) -> Result<Enqueued, Box<Request>> {
        self.queue.enqueue(item)
    }

    /// What an operator may do to the queue.
    #[must_use]
    pub fn control(&self) -> &dyn Control {
        self.queue.control()
    }

    /// Returns the counters and the health of this moment.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.queue.snapshot()
    }

    /// Goes on until nothing is left, and then ends. For the queue of an action that is gone.
    pub fn retire(&self) {
        self.queue.retire();
    }

    /// Whether the queue has ended after [`Outlet::retire`] or [`Outlet::shutdown`].
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.queue.is_finished()
    }

    /// Takes back [`Outlet::retire`]; `false` when the queue has ended.
    #[must_use]
    pub fn revive(&self) -> bool {
        self.queue.revive()
    }

    /// Takes nothing more, sends what is queued for at most `grace`, then gives up the rest and counts it under
    /// [`crate::DropReason::Shutdown`].
    pub async fn shutdown(&self, grace: Duration) {
        self.queue.shutdown(grace).await;
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
    /// What its attempts are told beneath, if the message is traced.
    pub trace: Option<Context>,
}
