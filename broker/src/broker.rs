//! The broker as a whole: what its parts share, and the life of sessions beyond their connections.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use mqtt_protocol::topic::{self, TopicError};
use mqtt_protocol::{QoS, ReasonCode};
use parking_lot::Mutex;
use store::{CommitToken, MessageId, QueueKey, Record, SessionKey, Store};
use tokio::sync::{Notify, Semaphore};
use trace::Tracer;

use crate::access::{AccessControl, OpenAccess};
use crate::authorise::Denials;
use crate::clock::{Clock, Now};
use crate::config::BrokerConfig;
use crate::dispatch::{Dispatch, Fanout};
use crate::heavy::Heavy;
use crate::hook::MessageHook;
use crate::limits::{Addresses, SharedBucket, Users};
use crate::listeners::{self, Arrivals, Endpoint, Listener, ListenerConfig};
use crate::message::{Message, Publication, Trail};
use crate::meters::Meters;
use crate::metrics::{Metrics, PacketCount, Stats};
use crate::records::{Before, READS_MAX};
use crate::restore::settled_for_group;
use crate::session::memory::QueuedMemory;
use crate::session::registry::Registry;
use crate::session::{Session, SessionInner, WillMessage};
use crate::subscriptions::index::FilterIndex;
use crate::subscriptions::retained::Retained;
use crate::subscriptions::route::{self, Route};
use crate::subscriptions::{Group, Subscribers};
use crate::timers::{Deadline, Timers};
use crate::watch::Watchers;

static NEXT_BROKER: AtomicU64 = AtomicU64::new(1);

/// Subscriptions removed in one go when a session ends; more are removed in the background.
const UNSUBSCRIBE_CHUNK: usize = 512;

/// An MQTT broker. Cheap to clone: all clones are the same broker.
#[derive(Debug, Clone)]
pub struct Broker {
    pub(crate) shared: Arc<Shared>,
}

/// What every part of a broker sees.
pub(crate) struct Shared {
    /// Unique in the process.
    pub(crate) number: u64,
    pub(crate) config: BrokerConfig,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) hook: Option<Arc<dyn MessageHook>>,
    pub(crate) access: Arc<dyn AccessControl>,
    pub(crate) denials: Denials,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    pub(crate) meters: Meters,
    pub(crate) heavy: Heavy,
    pub(crate) tracer: Arc<Tracer>,
    pub(crate) sessions: Registry,
    pub(crate) subscriptions: FilterIndex<Subscribers>,
    pub(crate) subscription_count: AtomicU64,
    pub(crate) retained: Retained,
    pub(crate) timers: Timers,
    pub(crate) watchers: Watchers,
    pub(crate) listeners: Mutex<Vec<Arc<Listener>>>,
    pub(crate) arrivals: Arrivals,
    /// What waits in queues in memory.
    pub(crate) queued_memory: Arc<QueuedMemory>,
    pub(crate) connections: AtomicU32,
    pub(crate) clients: AtomicU64,
    /// Most clients at one time.
    pub(crate) clients_maximum: AtomicU64,
    /// Connections that are to be told that there is no place for them.
    pub(crate) refused: AtomicU32,
    pub(crate) addresses: Addresses,
    pub(crate) users: Users,
    pub(crate) connect_rate: SharedBucket,
    pub(crate) all_closed: Notify,
    pub(crate) shutting_down: AtomicBool,
    pub(crate) shutdown_started: Notify,
    /// Itself, for what goes on in the background.
    pub(crate) this: Weak<Self>,
    /// Queues can be read back from the store.
    pub(crate) can_stream: bool,
    /// Who may read a queue back.
    pub(crate) reads: Arc<Semaphore>,
    /// What the store knows of the time before this start.
    pub(crate) before: OnceLock<Before>,
    sequence: AtomicU64,
    pub(crate) store_id: u64,
    pub(crate) store_epoch: u32,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("number", &self.number)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

/// A listener that is open.
#[derive(Debug, Clone)]
pub struct BoundListener {
    /// Its name.
    pub name: Arc<str>,
    /// Where it listens; the port is the real one.
    pub endpoint: Endpoint,
}

impl BoundListener {
    /// Its IP address and port, unless it is a Unix socket.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.endpoint.address()
    }
}

/// A message that the embedding program publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InternalPublish {
    /// Topic Name.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// Quality of service.
    pub qos: QoS,
    /// Whether it is to be retained.
    pub retain: bool,
    /// Encoded MQTT 5 properties that are forwarded unaltered; may be empty.
    pub properties: Vec<u8>,
    /// Seconds until it expires.
    pub message_expiry_interval_s: Option<u32>,
    /// Rules that led to it; they won't see it again.
    pub trail: Trail,
    /// User name whose rights it needs; `None`: the program may publish what it likes.
    pub run_as: Option<Arc<str>>,
}

/// Why a topic is refused.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopicRefused {
    /// It breaks the rules of MQTT 5.0 §4.7.
    #[error(transparent)]
    Invalid(#[from] TopicError),
    /// It has more levels than allowed.
    #[error("has {levels} levels, more than the limit of {limit}")]
    TooManyLevels {
        /// Levels that it has.
        levels: usize,
        /// Levels allowed.
        limit: usize,
    },
}

/// Why an internal publish was refused. Nobody received it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// The topic can't be published to.
    #[error("topic {topic:?}: {cause}")]
    Topic {
        /// The topic.
        topic: String,
        /// What is wrong with it.
        cause: TopicRefused,
    },
    /// A limit or the store refused it.
    #[error("the publish was refused: {0:?}")]
    Refused(ReasonCode),
}

impl Broker {
    /// Makes a broker in which everybody may do everything; it needs a tokio runtime around it. It listens nowhere yet.
    #[must_use]
    pub fn new(config: BrokerConfig, store: Arc<dyn Store>, hook: Option<Arc<dyn MessageHook>>) -> Self {
        Self::with_access(config, store, hook, Arc::new(OpenAccess))
    }

    /// The same, with somebody who decides who may come in and what they may do.
    #[must_use]
    pub fn with_access(
        config: BrokerConfig,
        store: Arc<dyn Store>,
        hook: Option<Arc<dyn MessageHook>>,
        access: Arc<dyn AccessControl>,
    ) -> Self {
        Self::with_tracer(config, store, hook, access, Arc::default())
    }

    /// The same, with somebody who is told the way of single messages.
    #[must_use]
    pub fn with_tracer(
        config: BrokerConfig,
        store: Arc<dyn Store>,
        hook: Option<Arc<dyn MessageHook>>,
        access: Arc<dyn AccessControl>,
        tracer: Arc<Tracer>,
    ) -> Self {
        let identity = store.identity();
        let no_session = QueueKey::Session(SessionKey { namespace: 0, client_id: "" });
        let can_stream = store.queue_reader(no_session).is_some();
        let connect_rate = SharedBucket::new(config.limits.max_connect_rate);
        let max_queued_memory = config.limits.max_queued_memory;
        let (heavy_hitters, clock) = (config.heavy_hitters, Clock::new());
        let shared = Arc::new_cyclic(|this| Shared {
            this: Weak::clone(this),
            can_stream,
            reads: Arc::new(Semaphore::new(READS_MAX)),
            before: OnceLock::new(),
            number: NEXT_BROKER.fetch_add(1, Ordering::Relaxed),
            config,
            store,
            hook,
            access,
            denials: Denials::default(),
            heavy: Heavy::new(heavy_hitters, clock.now().mono_ms),
            clock,
            metrics: Metrics::default(),
            meters: Meters::default(),
            tracer,
            sessions: Registry::new(),
            subscriptions: FilterIndex::new(),
            subscription_count: AtomicU64::new(0),
            retained: Retained::new(),
            timers: Timers::new(),
            watchers: Watchers::default(),
            listeners: Mutex::new(Vec::new()),
            arrivals: Arrivals::default(),
            queued_memory: QueuedMemory::new(max_queued_memory),
            connections: AtomicU32::new(0),
            clients: AtomicU64::new(0),
            clients_maximum: AtomicU64::new(0),
            refused: AtomicU32::new(0),
            addresses: Addresses::default(),
            users: Users::default(),
            connect_rate,
            all_closed: Notify::new(),
            shutting_down: AtomicBool::new(false),
            shutdown_started: Notify::new(),
            sequence: AtomicU64::new(1),
            store_id: identity.id,
            store_epoch: identity.epoch,
        });
        tokio::spawn(housekeeping(Arc::downgrade(&shared)));
        if !shared.config.sys_interval.is_zero() {
            tokio::spawn(crate::sys_topics::publish_regularly(Arc::downgrade(&shared)));
        }
        Self { shared }
    }

    /// Who is told the way of single messages.
    #[must_use]
    pub fn tracer(&self) -> &Arc<Tracer> {
        &self.shared.tracer
    }

    /// Opens a listener and serves it until shutdown.
    ///
    /// # Errors
    /// What binding the address met with, "address in use" above all.
    pub async fn listen(&self, config: ListenerConfig) -> std::io::Result<BoundListener> {
        listeners::open(Arc::clone(&self.shared), config).await
    }

    /// Has a listener take no more connections; those that it has stay. Returns whether there was one of the name. Its address
    /// is free a moment later.
    pub fn close_listener(&self, name: &str) -> bool {
        listeners::close(&self.shared, name)
    }

    /// Publishes a message as the broker itself; returns when every receiver has it in its queue and every debt is safe.
    ///
    /// # Errors
    /// [`PublishError`]; then nobody received it.
    pub async fn publish(&self, publish: InternalPublish) -> Result<(), PublishError> {
        self.shared
            .check_topic_name(&publish.topic)
            .map_err(|cause| PublishError::Topic { topic: publish.topic.clone(), cause })?;
        self.shared
            .check_size(&publish.topic, &publish.payload, &publish.properties)
            .map_err(PublishError::Refused)?;
        if !self.shared.may_run_as(publish.run_as.as_ref(), &publish.topic, publish.qos, publish.retain) {
            return Err(PublishError::Refused(ReasonCode::NotAuthorized));
        }
        let message = self.shared.internal_message(&publish);
        publish_message(&self.shared, Dispatch::internal(&self.shared, message))
            .await
            .map_err(PublishError::Refused)
    }

    /// An identity for a message that no other message has had.
    #[must_use]
    pub fn new_message_id(&self) -> MessageId {
        self.shared.next_message_id()
    }

    /// To be called when decisions may have changed ([`AccessControl::version`]): looks again at what every connected client
    /// subscribes to. When it returns, nobody receives what they may not have any more. Subscriptions stay, whatever they
    /// receive. It doesn't keep the broker alive.
    pub fn access_listener(&self) -> impl Fn() + Send + Sync + 'static {
        let shared = Arc::downgrade(&self.shared);
        move || {
            let Some(shared) = shared.upgrade() else { return };
            for session in shared.sessions.all() {
                shared.watch_receiver(&mut session.lock());
            }
        }
    }

    /// Packets since the start, by type.
    #[must_use]
    pub fn packets(&self) -> Vec<PacketCount> {
        self.shared.metrics.packets()
    }

    /// Counters and totals.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Closes every listener and connection: MQTT 5 clients are told 0x8B (Server shutting down). Returns when all are
    /// gone or `grace` is over.
    pub async fn shutdown(&self, grace: Duration) {
        let shared = &self.shared;
        shared.shutting_down.store(true, Ordering::Release);
        shared.shutdown_started.notify_waiters();
        for session in shared.sessions.all() {
            session.lock().close(ReasonCode::ServerShuttingDown);
        }
        let everybody_gone = async {
            loop {
                let notified = shared.all_closed.notified();
                if shared.connections.load(Ordering::Acquire) == 0 {
                    return;
                }
                notified.await;
            }
        };
        if tokio::time::timeout(grace, everybody_gone).await.is_err() {
            let left = shared.connections.load(Ordering::Acquire);
            tracing::warn!(connections = left, "shutdown: connections still open after the grace time");
        }
    }
}

/// Runs a message through admission and fan-out, turn by turn.
pub(crate) async fn publish_message(shared: &Arc<Shared>, dispatch: Dispatch) -> Result<(), ReasonCode> {
    shared.metrics.messages_own.add(1);
    let outcome = dispatch.finish(shared).await?;
    shared.safe(outcome.token).await
}

impl Shared {
    /// The route of a topic.
    pub(crate) fn route(&self, topic: &str) -> Arc<Route> {
        route::route(self.number, &self.subscriptions, self.hook.as_ref(), &self.meters, topic)
    }

    pub(crate) fn next_message_id(&self) -> MessageId {
        MessageId {
            store: self.store_id,
            epoch: self.store_epoch,
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Whether a Topic Name is valid and within the limits.
    pub(crate) fn check_topic_name(&self, name: &str) -> Result<(), TopicRefused> {
        topic::validate_topic_name(name)?;
        self.check_levels(name)
    }

    /// Whether a message that no client's packet brought would fit one.
    pub(crate) fn check_size(
        &self,
        topic: &str,
        payload: &[u8],
        properties: &[u8],
    ) -> Result<(), ReasonCode> {
        let size = topic.len() + payload.len() + properties.len();
        if size <= self.config.limits.max_packet_size as usize {
            return Ok(());
        }
        self.metrics.limit_packet_size.add(1);
        Err(ReasonCode::PacketTooLarge)
    }

    /// Whether a topic or filter has few enough levels.
    pub(crate) fn check_levels(&self, text: &str) -> Result<(), TopicRefused> {
        let limit = usize::from(self.config.limits.max_topic_levels);
        let levels = text.bytes().filter(|byte| *byte == b'/').count() + 1;
        if levels <= limit {
            return Ok(());
        }
        self.metrics.limit_topic_levels.add(1);
        Err(TopicRefused::TooManyLevels { levels, limit })
    }

    /// Whether there is room to retain a message of this size.
    pub(crate) fn may_retain(&self, topic: &str, size: usize) -> bool {
        let fits = self.retained.has_room(topic, size, &self.config.limits).is_ok();
        if !fits {
            self.metrics.limit_retained.add(1);
        }
        fits
    }

    /// Stores or clears the Retained Message of the topic. The caller holds the turn.
    pub(crate) fn retain(&self, fanout: &mut Fanout<'_>) -> Result<(), ReasonCode> {
        if fanout.payload().is_empty() {
            let topic = fanout.outgoing().topic;
            self.retained.clear(topic);
            return Ok(());
        }
        let message = Arc::clone(fanout.message());
        if !self.may_retain(message.topic(), message.size()) {
            return Err(ReasonCode::QuotaExceeded);
        }
        self.retained.set(message);
        Ok(())
    }

    pub(crate) fn internal_message(&self, publish: &InternalPublish) -> Arc<Message> {
        let now = self.clock.now();
        Publication {
            id: self.next_message_id(),
            namespace: 0,
            topic: &publish.topic,
            payload: &publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            properties: &publish.properties,
            expires_at_ms: now.expiry(publish.message_expiry_interval_s),
            received_at_ms: now.wall_ms,
            publisher: None,
            trail: &publish.trail,
            trace: None,
        }
        .to_message()
    }

    pub(crate) fn stats(&self) -> Stats {
        let (retained_messages, retained_bytes) = self.retained.totals();
        let mut stats = self.metrics.snapshot();
        stats.connections = self.clients.load(Ordering::Relaxed);
        stats.connections_maximum = self.clients_maximum.load(Ordering::Relaxed);
        stats.sessions = self.sessions.len() as u64;
        stats.subscriptions = self.subscription_count.load(Ordering::Relaxed);
        stats.retained_messages = retained_messages;
        stats.retained_bytes = retained_bytes;
        stats.queued_memory_bytes = self.queued_memory.used();
        stats
    }

    /// A session's connection is gone: what becomes of its will and of the session.
    ///
    /// `send_will` is false after a DISCONNECT that discards the will [MQTT-3.14.4-3, v5].
    pub(crate) fn connection_lost(
        self: &Arc<Self>,
        session: &Arc<Session>,
        generation: u32,
        send_will: bool,
    ) {
        let mut inner = session.lock();
        if !inner.detach(generation) {
            return;
        }
        self.record(session, &mut inner);
        let generation = inner.generation;
        let expiry_s = inner.expiry_interval_s;
        // Said under the same lock: nobody can take the session on between here and its end.
        inner.ended = expiry_s == 0;
        if !send_will && let Some(will) = inner.will.take() {
            self.forget_will(&will);
        }
        let now = self.clock.now();
        let mut publish_now = None;
        // With the session that ends goes its will, at its end.
        if let Some(will) = inner.will.take_if(|_| expiry_s != 0) {
            if will.delay_s == 0 {
                publish_now = Some(will);
            } else {
                let delay_s = will.delay_s.min(expiry_s);
                inner.will = Some(will);
                let at_ms = now.mono_ms + u64::from(delay_s) * 1000;
                self.timers.insert(now.mono_ms, session, generation, Deadline::Will { at_ms });
            }
        }
        if expiry_s != 0 && expiry_s != u32::MAX {
            let at_ms = now.mono_ms + u64::from(expiry_s) * 1000;
            self.timers.insert(now.mono_ms, session, generation, Deadline::Expiry { at_ms });
        }
        if inner.is_recorded && expiry_s != 0 {
            let detached = Record::SessionDetached { session: session.key(), at_ms: now.wall_ms };
            let no_will = inner.will.is_none().then_some(Record::WillGone { session: session.key() });
            let records: Vec<_> = [Some(detached), no_will].into_iter().flatten().collect();
            if let Err(reason) = self.append_with_wills(records, publish_now.as_deref_mut()) {
                tracing::debug!(?reason, "the end of a connection could not be recorded");
            }
        }
        let groups: Vec<_> =
            inner.subscriptions.iter().filter_map(|subscription| subscription.group.clone()).collect();
        drop(inner);
        self.give_shared_to_others(session, &groups, now, expiry_s == 0);
        if expiry_s == 0 {
            self.end_session(session);
        }
        if let Some(will) = publish_now {
            self.publish_will(*will);
        }
    }

    /// Unacknowledged QoS 1 messages of Shared Subscriptions go to members that are there.
    fn give_shared_to_others(&self, session: &Arc<Session>, groups: &[Arc<Group>], now: Now, ends: bool) {
        if groups.is_empty() {
            return;
        }
        if ends || groups.iter().any(|group| group.has_other_online(session)) {
            let taken = session.lock().state.take_shared();
            crate::subscriptions::give_back(taken);
        }
        for group in groups {
            self.metrics.dropped_expired.add(group.pump(self, now.mono_ms));
        }
    }

    /// The session is over: nothing finds it any more and nothing is delivered to it.
    fn end_session(self: &Arc<Self>, session: &Arc<Session>) {
        // Whoever has ended it before has said so, too.
        let _ended = self.take_out(session, |_| true);
        self.retire(session);
    }

    /// Takes a session out of the registry if it is still there and `is_over` says so; the token says when that is safe. Its end
    /// is on record before anybody can make another one of the same Client Identifier.
    pub(crate) fn take_out(
        &self,
        session: &Arc<Session>,
        is_over: impl FnOnce(&mut SessionInner) -> bool,
    ) -> Option<Result<CommitToken, ReasonCode>> {
        self.sessions.change(&session.client_id, |found| {
            let is_this = found.is_some_and(|found| Arc::ptr_eq(found, session));
            let mut inner = session.lock();
            if !is_this || !is_over(&mut inner) {
                return (found.cloned(), None);
            }
            inner.ended = true;
            (None, Some(self.record_end(session, &mut inner)))
        })
    }

    /// Tells the store of a session's end, once. The token says when that is safe.
    ///
    /// An error, which is told to the log as well: the store doesn't take it.
    pub(crate) fn record_end(
        &self,
        session: &Session,
        inner: &mut SessionInner,
    ) -> Result<CommitToken, ReasonCode> {
        inner.state.settle_shared();
        self.record(session, inner);
        if !session.take_off_record(inner) {
            return Ok(CommitToken::NOTHING_OWED);
        }
        let cold = inner.cold.take().unwrap_or_default();
        let mut records = vec![Record::SessionEnded { session: session.key() }];
        records.extend(cold.iter().filter_map(settled_for_group));
        // Its will is due now, and no record of the session's any more.
        self.append_with_wills(records, inner.will.as_deref_mut()).inspect_err(|reason| {
            tracing::warn!(?reason, "the end of a session could not be recorded");
        })
    }

    /// Gives back what a session held that the registry no longer has, once.
    pub(crate) fn retire(self: &Arc<Self>, session: &Arc<Session>) {
        let (subscriptions, taken, will) = {
            let mut inner = session.lock();
            inner.ended = true;
            if std::mem::replace(&mut inner.is_retired, true) {
                return;
            }
            let taken = inner.state.take_shared();
            self.metrics.dropped_session_ended.add(inner.state.unconfirmed());
            (std::mem::take(&mut inner.subscriptions), taken, inner.will.take())
        };
        let mut groups: Vec<_> = taken.iter().map(|returned| Arc::clone(&returned.group)).collect();
        groups.dedup_by(|next, kept| Arc::ptr_eq(next, kept));
        crate::subscriptions::give_back(taken);
        // A will that is still waiting is due when the session ends [MQTT-3.1.3-9, v5].
        if let Some(will) = will {
            self.publish_will(*will);
        }
        if subscriptions.len() <= UNSUBSCRIBE_CHUNK {
            for subscription in subscriptions.iter() {
                self.forget_subscription(session, &subscription.filter);
            }
        } else {
            let (shared, session) = (Arc::clone(self), Arc::clone(session));
            tokio::spawn(async move {
                for (number, subscription) in subscriptions.iter().enumerate() {
                    shared.forget_subscription(&session, &subscription.filter);
                    if number % UNSUBSCRIBE_CHUNK == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            });
        }
        let now = self.clock.now();
        for group in groups {
            self.metrics.dropped_expired.add(group.pump(self, now.mono_ms));
        }
        session.lock().state = crate::session::state::SessionState::new(&self.queued_memory);
    }

    /// Publishes a will, in the background.
    pub(crate) fn publish_will(self: &Arc<Self>, will: WillMessage) {
        if !self.author_may(&will.message) {
            self.metrics.wills_denied.add(1);
            self.forget_will(&will);
            return;
        }
        let shared = Arc::clone(self);
        let now = self.clock.now();
        let publication = will.message.publication();
        let message = Publication {
            id: self.next_message_id(),
            expires_at_ms: now.expiry(will.expiry_interval_s),
            received_at_ms: now.wall_ms,
            ..publication
        }
        .to_message();
        tokio::spawn(async move {
            if let Err(reason) = publish_message(&shared, Dispatch::will(&shared, message, will.place)).await
            {
                tracing::warn!(?reason, "a will message was refused");
                shared.forget_will(&will);
            }
        });
    }
}

/// Fires deadlines and sweeps expired Retained Messages, for as long as the broker lives.
async fn housekeeping(shared: Weak<Shared>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(crate::timers::SLOT_MS));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut sweep = 0usize;
    loop {
        ticks.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        let now = shared.clock.now();
        shared.tracer.tick();
        for (number, due) in shared.timers.due(now.mono_ms).into_iter().enumerate() {
            if let Some(session) = shared.sessions.named(due.session) {
                fire(&shared, &session, due.generation, due.deadline, now);
            }
            if number % 256 == 255 {
                tokio::task::yield_now().await;
            }
        }
        // One shard a tick: all of them every four seconds.
        sweep += 1;
        let swept = shared.retained.sweep(sweep, 1000, now.mono_ms, |topic| {
            if let Err(reason) = shared.append(&[Record::RetainedCleared { topic }]) {
                tracing::debug!(?reason, "an expired retained message could not be cleared");
            }
        });
        shared.metrics.dropped_expired.add(swept as u64);
        // What this thread has counted outside the turns of connections.
        shared.metrics.end_turn();
    }
}

fn fire(shared: &Arc<Shared>, session: &Arc<Session>, generation: u32, deadline: Deadline, now: Now) {
    let mut inner = session.lock();
    if inner.generation != generation || inner.ended {
        return;
    }
    if deadline.at_ms(session) > now.mono_ms {
        drop(inner);
        shared.timers.insert(now.mono_ms, session, generation, deadline);
        return;
    }
    match deadline {
        Deadline::KeepAlive { .. } => {
            shared.metrics.keep_alive_timeouts.add(1);
            inner.close(ReasonCode::KeepAliveTimeout);
        }
        Deadline::Will { .. } => {
            let Some(mut will) = inner.will.take() else { return };
            if inner.is_recorded {
                // One frame, before the client can come back with another will.
                let gone = vec![Record::WillGone { session: session.key() }];
                if let Err(reason) = shared.append_with_wills(gone, [&mut *will]) {
                    tracing::debug!(?reason, "a will that is due could not be recorded");
                }
            }
            drop(inner);
            shared.publish_will(*will);
        }
        Deadline::Expiry { .. } => {
            drop(inner);
            shared.expire(session, generation);
        }
    }
}

impl Shared {
    /// Ends a session whose time is over, unless a connection has taken it on meanwhile.
    fn expire(self: &Arc<Self>, session: &Arc<Session>, generation: u32) {
        if self.take_out(session, |inner| inner.generation == generation).is_some() {
            self.metrics.sessions_expired.add(1);
            self.retire(session);
        }
    }
}
