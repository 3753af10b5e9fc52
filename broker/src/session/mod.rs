//! Sessions: who they are, what is attached to them, and the lock around their state machine.
//!
//! A [`Session`] lives from the CONNECT that made it to its expiry, over any number of Network Connections. One lock
//! guards all of it; publishers take it for the few dozen nanoseconds of an append, the client's own connection for its
//! acknowledgements and once per write.
//!
//! Lock order: a Shared Subscription's group, then one session; never two sessions, never a group below a session.

mod backlog;
mod inflight;
pub(crate) mod memory;
#[cfg(test)]
mod model_tests;
pub(crate) mod registry;
pub(crate) mod state;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;

use mqtt_protocol::ReasonCode;
use parking_lot::{Mutex, MutexGuard};
use store::{CommitToken, MessageRecord, QueueKey, QueueReader, Record, SessionKey, Store, StoredInflight};

use crate::config::Limits;
use crate::dispatch::message_record;
use crate::handlers::RetainedDelivery;
use crate::message::{Message, Publisher};
use crate::subscriptions::Group;
use crate::subscriptions::compact_set::{CompactSet, Keyed};
use memory::QueuedMemory;
use state::SessionState;

pub(crate) use backlog::{Backlog, BacklogRead};
pub(crate) use inflight::{Entry, Extra, Returned, Stage};
pub(crate) use state::{ClientLimits, Debt, Delivered, DropReason, Grant, Note};

/// Publishers that wait for one session at most.
const DRAIN_WAITERS_MAX: usize = 1024;

static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    /// Unique in the process; cheaper to compare than the Client Identifier.
    pub(crate) number: u64,
    pub(crate) client_id: Box<str>,
    /// When its client was last heard, milliseconds on the broker's clock.
    pub(crate) last_heard_ms: AtomicU64,
    /// What is owed to it goes on record.
    on_record: AtomicBool,
    inner: Mutex<SessionInner>,
}

/// What the session's lock guards.
#[derive(Debug)]
pub(crate) struct SessionInner {
    pub(crate) state: SessionState,
    pub(crate) link: Option<Link>,
    /// Who is connected.
    pub(crate) client: Option<Arc<Publisher>>,
    /// The user whose it is, connected or not; `None`: nobody's.
    pub(crate) owner: Option<Arc<str>>,
    pub(crate) subscriptions: CompactSet<SessionSubscription>,
    pub(crate) will: Option<Box<WillMessage>>,
    /// Seconds that the session outlives its connection; `u32::MAX`: for ever.
    pub(crate) expiry_interval_s: u32,
    /// Raised with every connection and every disconnection: what was scheduled for an older one is void.
    pub(crate) generation: u32,
    /// The session is over: nothing is delivered to it any more.
    pub(crate) ended: bool,
    /// The store knows of it.
    pub(crate) is_recorded: bool,
    /// What it held has been given back.
    pub(crate) is_retired: bool,
    /// It was found in the store and no connection has taken it on since: what it was sent, to be read then.
    pub(crate) cold: Option<Box<[StoredInflight]>>,
    /// That is being read.
    pub(crate) is_loading: bool,
    /// Connections that aren't through with what they took on: those that are there, and those that left publishes on their way.
    at_work: u32,
    /// Retained Messages that new Subscriptions were still being sent when the connection went: for the next one.
    pub(crate) retained: Box<[RetainedDelivery]>,
    /// Reads its queue while that is behind.
    pub(crate) reader: Option<Box<QueueReader>>,
    /// The connection has asked to be woken when this is safe.
    awaited: CommitToken,
    /// Publishers that pause until this session's client has read more.
    drain_waiters: Vec<Waker>,
}

/// A connection that has taken something on. The next one of the session waits until it is through: what one client
/// publishes is handed on in its order [MQTT-4.6.0-6, v5], over a takeover too.
#[derive(Debug)]
pub(crate) struct AtWork(Arc<Session>);

impl AtWork {
    /// `inner` is the session's own.
    pub(crate) fn begin(session: &Arc<Session>, inner: &mut SessionInner) -> Self {
        inner.at_work += 1;
        Self(Arc::clone(session))
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.at_work -= 1;
        if inner.at_work == 0 {
            inner.drain_waiters.drain(..).for_each(Waker::wake);
        }
    }
}

/// The Network Connection that a session is attached to.
#[derive(Debug)]
pub(crate) struct Link {
    waker: Option<Waker>,
    /// It was to be woken before it had ever gone to sleep.
    has_missed_wake: bool,
    /// Nobody has woken the connection since it last looked.
    asleep: bool,
    /// Why the connection is to close, once somebody else decided so.
    pub(crate) close: Option<ReasonCode>,
}

/// A Will Message and its delay.
#[derive(Debug)]
pub(crate) struct WillMessage {
    pub(crate) message: Arc<Message>,
    pub(crate) delay_s: u32,
    /// Message Expiry Interval: counted from publication, not from the CONNECT.
    pub(crate) expiry_interval_s: Option<u32>,
    /// Its place in the store's queue of wills; 0: it isn't there.
    pub(crate) place: u64,
    /// Whose it is, as the store keeps it.
    pub(crate) author: Arc<[u8]>,
}

/// The store's queue of wills.
pub(crate) const WILLS: QueueKey<'_> = QueueKey::Wills { namespace: 0 };

impl WillMessage {
    /// The will as the store keeps it; `message` and `author` are its own.
    pub(crate) fn record<'a>(
        &self,
        session: SessionKey<'a>,
        message: &'a Message,
        author: &'a [u8],
        now_ms: u64,
    ) -> Record<'a> {
        Record::Will {
            session,
            delay_s: self.delay_s,
            retain: message.publication().retain,
            message: self.message_record(message, author, now_ms),
        }
    }

    /// The will in the queue of those that are published whatever becomes of the session; `message` and `author` are its own.
    pub(crate) fn queued<'a>(&self, message: &'a Message, author: &'a [u8], now_ms: u64) -> [Record<'a>; 2] {
        let publication = message.publication();
        [
            Record::Message(self.message_record(message, author, now_ms)),
            Record::Queued {
                queue: WILLS,
                id: Some(publication.id),
                body: if publication.retain { &[1] } else { &[0] },
            },
        ]
    }

    fn message_record<'a>(&self, message: &'a Message, author: &'a [u8], now_ms: u64) -> MessageRecord<'a> {
        MessageRecord {
            author,
            expires_after_ms: self.expiry_interval_s.map(|seconds| u64::from(seconds) * 1_000),
            ..message_record(&message.publication(), now_ms)
        }
    }
}

/// A session's own record of one Subscription.
#[derive(Debug)]
pub(crate) struct SessionSubscription {
    /// The filter as the client wrote it, `$share` included.
    pub(crate) filter: Arc<str>,
    pub(crate) group: Option<Arc<Group>>,
}

impl Keyed for SessionSubscription {
    type Key = str;
    fn key(&self) -> &str {
        &self.filter
    }
}

impl Session {
    pub(crate) fn new(client_id: &str, expiry_interval_s: u32, memory: &Arc<QueuedMemory>) -> Arc<Self> {
        Arc::new(Self {
            number: NEXT_NUMBER.fetch_add(1, Ordering::Relaxed),
            client_id: client_id.into(),
            last_heard_ms: AtomicU64::new(0),
            on_record: AtomicBool::new(false),
            inner: Mutex::new(SessionInner {
                state: SessionState::new(memory),
                link: None,
                client: None,
                owner: None,
                subscriptions: CompactSet::default(),
                will: None,
                expiry_interval_s,
                generation: 0,
                ended: false,
                is_recorded: false,
                is_retired: false,
                cold: None,
                is_loading: false,
                at_work: 0,
                retained: Box::default(),
                reader: None,
                awaited: CommitToken::NOTHING_OWED,
                drain_waiters: Vec::new(),
            }),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, SessionInner> {
        self.inner.lock()
    }

    /// Whether what is owed to it goes on record.
    pub(crate) fn is_on_record(&self) -> bool {
        self.on_record.load(Ordering::Acquire)
    }

    /// The store knows of the session from here on. `can_stream`: its queue can be read back.
    pub(crate) fn put_on_record(&self, inner: &mut SessionInner, can_stream: bool) {
        inner.is_recorded = true;
        inner.state.keep_records(can_stream);
        self.on_record.store(true, Ordering::Release);
    }

    /// The store is told to forget the session. Returns whether it knew of it.
    pub(crate) fn take_off_record(&self, inner: &mut SessionInner) -> bool {
        self.on_record.store(false, Ordering::Release);
        std::mem::take(&mut inner.is_recorded)
    }

    /// The session's name in the store.
    pub(crate) fn key(&self) -> store::SessionKey<'_> {
        store::SessionKey { namespace: 0, client_id: &self.client_id }
    }
}

impl SessionInner {
    /// Attaches a connection. The one before, if any, is told to close for `replaced`.
    pub(crate) fn attach(&mut self, replaced: ReasonCode) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.awaited = CommitToken::NOTHING_OWED;
        if let Some(mut old) =
            self.link.replace(Link { waker: None, has_missed_wake: false, asleep: false, close: None })
        {
            old.close = Some(replaced);
            old.wake();
        }
        self.generation
    }

    /// Detaches the connection of this generation; `false` when another one has taken over.
    pub(crate) fn detach(&mut self, generation: u32) -> bool {
        if self.generation != generation || self.link.is_none() {
            return false;
        }
        self.generation = self.generation.wrapping_add(1);
        self.link = None;
        self.client = None;
        self.state.disconnect();
        for waker in self.drain_waiters.drain(..) {
            waker.wake();
        }
        true
    }

    /// Whether the session outlives its connection.
    pub(crate) fn is_durable(&self) -> bool {
        self.expiry_interval_s > 0
    }

    /// Wakes the connection, after this turn, if there is something to write and it doesn't know yet.
    pub(crate) fn wake_to_write(&mut self) {
        if let Some(link) = &mut self.link
            && link.asleep
            && self.state.wants_turn()
        {
            link.asleep = false;
            if let Some(waker) = &link.waker {
                wake_after_this_turn(waker);
            }
        }
    }

    /// Asks the connection to close.
    pub(crate) fn close(&mut self, reason: ReasonCode) {
        if let Some(link) = &mut self.link {
            link.close.get_or_insert(reason);
            link.wake();
        }
    }

    /// The connection has looked at everything and goes to sleep.
    pub(crate) fn sleep(&mut self, waker: &Waker) {
        if let Some(link) = &mut self.link {
            link.asleep = true;
            if !link.waker.as_ref().is_some_and(|old| old.will_wake(waker)) {
                link.waker = Some(waker.clone());
            }
            if std::mem::take(&mut link.has_missed_wake) {
                link.wake();
            }
        }
    }

    /// Has the connection woken when what its next packet waits for is safe.
    pub(crate) fn wait_for_commit(&mut self, store: &dyn Store, waker: &Waker) {
        // Notes that are left are those that the store had no room for.
        let retry = self.state.has_notes().then(|| CommitToken(store.committed().0.saturating_add(1)));
        for token in [self.state.awaited(), retry].into_iter().flatten() {
            if token > self.awaited {
                self.awaited = token;
                store.wake_when_committed(token, waker);
            }
        }
    }

    /// Whether a connection can take the session online: it is loaded, and those before are through.
    pub(crate) fn is_free(&self) -> bool {
        !self.is_loading && self.at_work == 0
    }

    /// Wakes `waker` when that may have changed.
    pub(crate) fn wait_until_free(&mut self, waker: &Waker) {
        self.drain_waiters.push(waker.clone());
    }

    /// The session is loaded.
    pub(crate) fn loaded(&mut self) {
        self.is_loading = false;
        self.drain_waiters.drain(..).for_each(Waker::wake);
    }

    /// The connection has more to write than the socket takes: only its readiness, or a wish to close, wakes it.
    pub(crate) fn wait_for_socket(&mut self, generation: u32, waker: &Waker) {
        if self.generation == generation {
            self.sleep(waker);
            if let Some(link) = &mut self.link {
                link.asleep = false;
            }
        }
    }

    /// Wakes `waker` when the client has caught up, or its connection is gone.
    pub(crate) fn wait_for_drain(&mut self, waker: &Waker) {
        if self.drain_waiters.len() >= DRAIN_WAITERS_MAX {
            // Some may belong to connections that are gone; the others come back if they still have to wait.
            self.drain_waiters.drain(..).for_each(Waker::wake);
        }
        if !self.drain_waiters.iter().any(|waiting| waiting.will_wake(waker)) {
            self.drain_waiters.push(waker.clone());
        }
    }

    /// Wakes the publishers that pause, if the client has caught up.
    pub(crate) fn drained(&mut self, limits: &Limits) {
        if self.state.catches_up(limits) {
            self.drain_waiters.drain(..).for_each(Waker::wake);
        }
    }

    /// Lets the connection look again, whatever it waits for.
    pub(crate) fn nudge(&mut self) {
        if let Some(link) = &mut self.link {
            link.wake();
        }
    }
}

impl Link {
    fn wake(&mut self) {
        self.asleep = false;
        match &self.waker {
            Some(waker) => waker.wake_by_ref(),
            // It may have looked already and be on its way to sleep.
            None => self.has_missed_wake = true,
        }
    }
}

/// Wakes a task once every task that is ready now has run and the sockets were asked for news.
///
/// Waking a receiver for each message would write each message on its own; woken after the turn, it finds what all
/// publishers of the turn had for it and writes once. `yield_now` defers the wake-up of whoever polls it to exactly that
/// point; outside a runtime it wakes at once.
pub(crate) fn wake_after_this_turn(waker: &Waker) {
    let mut deferred = std::pin::pin!(tokio::task::yield_now());
    let pending = deferred.as_mut().poll(&mut std::task::Context::from_waker(waker));
    debug_assert!(pending.is_pending(), "the first poll of yield_now is always pending");
}
