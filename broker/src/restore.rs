//! Start-up: sessions, Subscriptions, Shared Subscription queues and Retained Messages as the store has them.
//!
//! What was queued stays on disk until somebody comes for it, so a start takes memory for sessions and Retained Messages
//! and none for backlogs. What a session was sent and hasn't completed is read when a connection takes the session on.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mqtt_protocol::{PacketId, QoS, SubscriptionOptions};
use store::{
    CommitToken, DurableStore, Position, QueueKey, QueueReader, Record, Stage as StoredStage, StoredDebt,
    StoredInflight, StoredMessage, StoredQueue, StoredSession,
};

use crate::author;
use crate::broker::{Broker, Shared};
use crate::clock::Now;
use crate::handlers::{OWES_RETAINED, RetainedDelivery};
use crate::message::{Publication, Publisher, Trail};
use crate::records::Before;
use crate::session::{
    Backlog, Debt, Entry, Extra, Session, SessionInner, SessionSubscription, Stage, WILLS, WillMessage,
};
use crate::subscriptions::Group;
use crate::timers::Deadline;

/// What a start has brought back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restored {
    /// Sessions.
    pub sessions: u64,
    /// Sessions whose time was over.
    pub sessions_expired: u64,
    /// Messages that wait for sessions.
    pub queued_messages: u64,
    /// Retained Messages.
    pub retained_messages: u64,
}

/// Debts that are read at once for a window.
const PIECE: usize = 256;

/// Places of a group's debts that sessions were sent at QoS 2.
type Handed = HashMap<StoredQueue, BTreeSet<u64>>;

/// What comes of restoring sessions, to be seen to when all of them are there.
#[derive(Default)]
struct Found {
    restored: Restored,
    handed: Handed,
    /// Wills of sessions whose time was over.
    wills: Vec<WillMessage>,
}

impl Broker {
    /// Takes up what `store`, the broker's own, has kept. To be called once, before any listener is opened.
    ///
    /// # Errors
    /// What the disk says when Retained Messages are read.
    pub async fn restore(&self, store: Arc<DurableStore>) -> io::Result<Restored> {
        let shared = Arc::clone(&self.shared);
        let runtime = tokio::runtime::Handle::current();
        let restored = tokio::task::spawn_blocking(move || {
            let _entered = runtime.enter();
            shared.restore(&store)
        });
        restored.await.map_err(io::Error::other)?
    }
}

impl Shared {
    fn restore(self: &Arc<Self>, store: &DurableStore) -> io::Result<Restored> {
        let now = self.clock.now();
        let before = *self.before.get_or_init(|| Before { stamp_ms: store.last_stamp_ms(), start: now });
        let mut found = Found::default();
        let mut sessions = Vec::new();
        store.for_each_session(|session| sessions.push(session));
        for session in sessions {
            self.restore_session(session, before, now, &mut found);
        }
        let Found { mut restored, handed, mut wills } = found;
        self.restore_groups(store, handed);
        self.restore_retained(store, now, &mut restored)?;
        self.restore_wills(store, &mut wills)?;
        for will in wills {
            self.publish_will(will);
        }
        Ok(restored)
    }

    /// Makes one session again, or ends it if its time is over.
    fn restore_session(self: &Arc<Self>, stored: StoredSession, before: Before, now: Now, found: &mut Found) {
        let session = Session::new(&stored.client_id, stored.expiry_interval_s, &self.queued_memory);
        let since_ms = before.since(stored.detached_at_ms.unwrap_or(before.stamp_ms), now);
        let expiry_ms = match stored.expiry_interval_s {
            u32::MAX => u64::MAX,
            seconds => u64::from(seconds) * 1_000,
        };
        let left_ms = expiry_ms.saturating_sub(since_ms);
        let mut will = stored.will.as_ref().map(|will| {
            let revived = self.revive_will(&will.message, will.retain);
            Box::new(WillMessage { delay_s: will.delay_s, ..revived })
        });
        if left_ms == 0 {
            let mut records = vec![Record::SessionEnded { session: session.key() }];
            records.extend(stored.inflight.iter().filter_map(settled_for_group));
            if let Err(reason) = self.append_with_wills(records, will.as_deref_mut()) {
                tracing::warn!(?reason, "the end of a session could not be recorded");
            }
            found.restored.sessions_expired += 1;
            found.wills.extend(will.map(|will| *will));
            return;
        }
        found.restored.sessions += 1;
        let mut inner = session.lock();
        session.put_on_record(&mut inner, true);
        let mut ahead = BTreeSet::new();
        for inflight in stored.inflight.iter().filter(|inflight| inflight.stage == StoredStage::Sent) {
            match &inflight.queue {
                Some(group @ StoredQueue::Group { .. }) => {
                    found.handed.entry(group.clone()).or_default().insert(inflight.position.0);
                }
                Some(StoredQueue::Session { .. }) => {
                    ahead.insert(inflight.position.0);
                }
                _ => {}
            }
        }
        let received: Vec<_> = stored.received.iter().filter_map(|id| PacketId::new(*id)).collect();
        let last = if stored.debts > 0 { stored.last.0 } else { 0 };
        found.restored.queued_messages += stored.debts;
        inner.state.restore(Backlog::on_disk(last, ahead), stored.bytes, &received);
        inner.cold = Some(stored.inflight.into_boxed_slice());
        inner.will = will;
        inner.owner = Some(stored.owner).filter(|owner| !owner.is_empty()).map(Into::into);
        let generation = inner.generation;
        let will_delay_s = stored.will.as_ref().map(|will| will.delay_s);
        drop(inner);
        self.sessions.change(&session.client_id, |_| (Some(Arc::clone(&session)), ()));
        let mut retained = Vec::new();
        for subscription in &stored.subscriptions {
            let is_owed_retained = subscription.options & OWES_RETAINED != 0;
            let options = subscription.options & !OWES_RETAINED;
            let Ok(options) = SubscriptionOptions::from_byte(options) else { continue };
            let (filter, identifier) = (&*subscription.filter, subscription.identifier);
            self.restore_subscription(&session, filter, options, identifier);
            if is_owed_retained {
                retained.push(RetainedDelivery::restored(filter, options, identifier));
            }
        }
        session.lock().retained = retained.into();
        if let Some(delay_s) = will_delay_s {
            // Its client gets time to come back, and not all wills go out at once.
            let least_ms = u64::try_from(self.config.limits.will_after_crash.as_millis()).unwrap_or(u64::MAX);
            let spread_ms = session.number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % least_ms.max(1);
            let delay_ms = (u64::from(delay_s) * 1_000).max(least_ms + spread_ms).min(left_ms);
            let deadline = Deadline::Will { at_ms: now.mono_ms + delay_ms };
            self.timers.insert(now.mono_ms, &session, generation, deadline);
        }
        if expiry_ms != u64::MAX {
            let deadline = Deadline::Expiry { at_ms: now.mono_ms + left_ms };
            self.timers.insert(now.mono_ms, &session, generation, deadline);
        }
    }

    fn restore_subscription(
        &self,
        session: &Arc<Session>,
        text: &str,
        options: SubscriptionOptions,
        identifier: u32,
    ) {
        let Some((stored, group)) = self.add_subscription(session, text, options, identifier) else {
            tracing::error!(client_id = %session.client_id, filter = text, "a stored subscription is not valid");
            return;
        };
        session.lock().subscriptions.insert(SessionSubscription { filter: stored, group });
        self.subscription_count.fetch_add(1, Ordering::Relaxed);
    }

    /// Finds the wills that are to be published whatever became of their sessions: their clients' connections are gone.
    fn restore_wills(&self, store: &DurableStore, wills: &mut Vec<WillMessage>) -> io::Result<()> {
        // Those of sessions that ended just now have their places there by now.
        let known: BTreeSet<u64> = wills.iter().map(|will| will.place).collect();
        let mut reader = store.reader(WILLS);
        let mut after = Position::NOWHERE;
        loop {
            let found = match reader.read(after, PIECE, usize::MAX) {
                // What waits for room on a full disk is known: it was put there just now.
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
                read => read?,
            };
            let Some(last) = found.last() else { return Ok(()) };
            after = last.position;
            for debt in found {
                let Some(message) = debt.message.filter(|_| !known.contains(&debt.position.0)) else {
                    continue;
                };
                let retain = debt.body.first().is_some_and(|retain| *retain != 0);
                wills.push(WillMessage { place: debt.position.0, ..self.revive_will(&message, retain) });
            }
        }
    }

    /// A will as it was, without delay.
    fn revive_will(&self, message: &StoredMessage, retain: bool) -> WillMessage {
        let author = author_of(message);
        let revived = Publication {
            id: message.id,
            namespace: 0,
            topic: &message.topic,
            payload: &message.payload,
            qos: QoS::try_from(message.qos).unwrap_or(QoS::AtMostOnce),
            retain,
            properties: &message.properties,
            expires_at_ms: None,
            received_at_ms: message.received_at_ms,
            publisher: author.as_ref(),
            trail: &Trail::default(),
            trace: None,
        };
        WillMessage {
            message: revived.to_message(),
            delay_s: 0,
            place: 0,
            author: message.author.as_slice().into(),
            expiry_interval_s: message
                .expires_after_ms
                .map(|after_ms| u32::try_from(after_ms / 1_000).unwrap_or(u32::MAX)),
        }
    }

    /// Gives groups their queues back, and drops those of groups that have no member any more.
    fn restore_groups(&self, store: &DurableStore, mut handed: Handed) {
        let mut queues = Vec::new();
        store.for_each_queue(|queue, debts| {
            if let StoredQueue::Group { .. } = queue {
                queues.push((queue, debts));
            }
        });
        for (queue, debts) in queues {
            let StoredQueue::Group { share_name, filter, .. } = &queue else { continue };
            let group = self.find_group(filter, share_name);
            match group {
                Some(group) if debts > 0 => {
                    let last = store.queue_end(queue.key());
                    group.restore(last.0, handed.remove(&queue).unwrap_or_default());
                }
                Some(_) => {}
                None => {
                    if let Err(reason) = self.append(&[Record::QueueDropped { queue: queue.key() }]) {
                        tracing::warn!(?reason, "the end of a shared subscription could not be recorded");
                    }
                }
            }
        }
    }

    fn find_group(&self, filter: &str, share_name: &str) -> Option<Arc<Group>> {
        self.subscriptions.change(filter, |_, subscribers| {
            let groups = subscribers.groups.as_ref()?;
            groups.iter().find(|group| *group.share_name == *share_name).cloned()
        })
    }

    fn restore_retained(&self, store: &DurableStore, now: Now, restored: &mut Restored) -> io::Result<()> {
        let mut expired = Vec::new();
        // Most have few authors among them.
        let mut authors = Authors::new();
        store.for_each_retained(|mut stored| {
            let key = (stored.publisher.take(), std::mem::take(&mut stored.author));
            let author = authors.entry(key).or_insert_with_key(|(client_id, author)| {
                author::decode(client_id.as_deref()?, author).map(Arc::new)
            });
            let message = self.revive(&stored, true, author.as_ref());
            if message.is_expired(now.mono_ms) {
                expired.push(stored.topic);
            } else {
                restored.retained_messages += 1;
                self.retained.set(message);
            }
        })?;
        for topic in &expired {
            if let Err(reason) = self.append(&[Record::RetainedCleared { topic }]) {
                tracing::warn!(?reason, "an expired retained message could not be cleared");
            }
        }
        Ok(())
    }

    /// Reads what a session was sent before the start, for the connection that takes it on.
    pub(crate) fn load_window(self: &Arc<Self>, session: &Arc<Session>, inner: &mut SessionInner) {
        let Some(cold) = inner.cold.take() else { return };
        if cold.is_empty() {
            return;
        }
        inner.is_loading = true;
        let groups: Vec<Arc<Group>> =
            inner.subscriptions.iter().filter_map(|subscription| subscription.group.clone()).collect();
        let (shared, session) = (Arc::clone(self), Arc::clone(session));
        tokio::task::spawn_blocking(move || {
            let (entries, between) = shared.read_window(&session, &cold, &groups);
            let mut inner = session.lock();
            inner.state.restore_window(entries, between);
            if inner.ended {
                // Its end came first, and found nothing to settle.
                inner.state.settle_shared();
                shared.record(&session, &mut inner);
            }
            inner.loaded();
        });
    }

    /// What a session was sent at QoS 2, and what it was sent at QoS 1 in between: that isn't on record, but it has no reason
    /// to come after what it came before.
    fn read_window(
        &self,
        session: &Session,
        cold: &[StoredInflight],
        groups: &[Arc<Group>],
    ) -> (Vec<(PacketId, Entry)>, Vec<Entry>) {
        let own = QueueKey::Session(session.key());
        let is_sent = |inflight: &&StoredInflight| inflight.stage == StoredStage::Sent;
        let is_own =
            |inflight: &StoredInflight| inflight.queue.as_ref().is_some_and(|queue| queue.key() == own);
        let last = cold
            .iter()
            .filter(is_sent)
            .filter(|inflight| is_own(inflight))
            .map(|inflight| inflight.position)
            .max();
        let mut debts = HashMap::new();
        let mut reader = self.store.queue_reader(own);
        let mut after = Position::NOWHERE;
        while let (Some(reader), Some(last)) = (&mut reader, last)
            && after < last
        {
            let found = self.read_logged(session, reader, after, PIECE);
            let Some(end) = found.last().map(|debt| debt.position) else { break };
            debts.extend(
                found.into_iter().filter(|debt| debt.position <= last).map(|debt| (debt.position, debt)),
            );
            after = end;
        }
        let mut entries = Vec::with_capacity(cold.len());
        for inflight in cold {
            let Some(id) = PacketId::new(inflight.packet_id) else { continue };
            let mut group = None;
            let found = match &inflight.queue {
                Some(StoredQueue::Group { share_name, filter, .. }) if is_sent(&inflight) => {
                    let is_it =
                        |group: &&Arc<Group>| *group.share_name == **share_name && *group.filter == **filter;
                    group = groups.iter().find(is_it).cloned();
                    group.as_ref().and_then(|group| {
                        let mut reader = self.store.queue_reader(group.key())?;
                        let before = Position(inflight.position.0.saturating_sub(1));
                        self.read_logged(session, &mut reader, before, 1).into_iter().next()
                    })
                }
                _ if is_sent(&inflight) && is_own(inflight) => debts.remove(&inflight.position),
                _ => None,
            };
            let debt =
                found.filter(|debt| debt.position == inflight.position).and_then(|debt| self.debt(debt));
            entries.push((id, sent_entry(debt, QoS::ExactlyOnce, group)));
        }
        let mut between: Vec<_> = debts
            .into_values()
            .filter_map(|debt| self.debt(debt))
            .filter(|debt| debt.qos == QoS::AtLeastOnce)
            .map(|debt| sent_entry(Some(debt), QoS::AtLeastOnce, None))
            .collect();
        between.sort_by_key(|entry| entry.place);
        (entries, between)
    }

    fn read_logged(
        &self,
        session: &Session,
        reader: &mut QueueReader,
        after: Position,
        max: usize,
    ) -> Vec<StoredDebt> {
        reader.read(after, max, usize::MAX).unwrap_or_else(|error| {
            tracing::error!(%error, client_id = %session.client_id, "what a session was sent can't be read");
            Vec::new()
        })
    }
}

/// Authors by Client Identifier and what was kept of them.
type Authors = HashMap<(Option<String>, Vec<u8>), Option<Arc<Publisher>>>;

/// Who left a message, if that was kept.
fn author_of(stored: &StoredMessage) -> Option<Arc<Publisher>> {
    author::decode(stored.publisher.as_deref()?, &stored.author).map(Arc::new)
}

/// An entry of a window. Without its message an exchange goes on as if the client had it: whether it does, nobody can tell.
fn sent_entry(debt: Option<Debt>, qos: QoS, group: Option<Arc<Group>>) -> Entry {
    let mut entry = Entry {
        stage: Stage::AwaitPubcomp,
        retain: false,
        was_sent: true,
        place: 0,
        safe_at: CommitToken::NOTHING_OWED,
        extra: None,
    };
    if let Some(debt) = debt {
        entry.stage = match qos {
            QoS::ExactlyOnce => Stage::AwaitPubrec(debt.message),
            QoS::AtLeastOnce | QoS::AtMostOnce => Stage::AwaitPuback(debt.message),
        };
        entry.retain = debt.retain;
        entry.place = debt.place;
        let identifiers = debt.identifiers.into_boxed_slice();
        entry.extra =
            (group.is_some() || !identifiers.is_empty()).then(|| Box::new(Extra { identifiers, group }));
    }
    entry
}

/// A debt of a group that a session was sent at QoS 2 and ends with it [MQTT-4.8.2-5, v5].
pub(crate) fn settled_for_group(inflight: &StoredInflight) -> Option<Record<'_>> {
    match &inflight.queue {
        Some(queue @ StoredQueue::Group { .. }) if inflight.stage == StoredStage::Sent => {
            Some(Record::Settled { queue: queue.key(), position: inflight.position })
        }
        _ => None,
    }
}
