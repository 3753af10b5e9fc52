//! Shared Subscriptions: one group takes each message once, whichever member gets it.
//!
//! The debt belongs to the group: what no member can take now waits in the group's queue, and a member holds nothing
//! but what was sent to it. When a member goes away, its unacknowledged QoS 1 messages come back to the group if
//! another member is there; QoS 2 messages that were sent stay with their member [MQTT-4.8.2-4, -5, v5].
//!
//! Members take turns. One that can't take a QoS 1 or 2 message now (offline, window full, socket congested) is passed
//! over.
//!
//! While a member's session is on record, so is what the group is owed. Its queue holds a head then; the rest is on disk.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mqtt_protocol::{QoS, SubscriptionOptions};
use parking_lot::Mutex;
use store::{Position, QueueKey, Record};

use crate::broker::Shared;
use crate::config::{Limits, QueuePolicy};
use crate::dispatch::Fanout;
use crate::message::Message;
use crate::metrics::tally;
use crate::session::memory::{QueuedBytes, QueuedMemory};
use crate::session::state::{HEAD_BYTES, HEAD_MESSAGES};
use crate::session::{Backlog, BacklogRead, Debt, Delivered, DropReason, Grant, Returned, Session};

/// The members of one share name at one Topic Filter.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) share_name: Box<str>,
    pub(crate) filter: Arc<str>,
    inner: Mutex<Inner>,
    /// Whether anything is queued: lets a member that has room again skip the lock.
    has_more: AtomicBool,
    /// Members whose sessions are on record.
    recorded_members: AtomicUsize,
    /// Places of debts that members were handed and haven't paid. Taken last of all locks.
    handed: Mutex<BTreeSet<u64>>,
}

#[derive(Debug)]
struct Inner {
    members: Vec<Member>,
    /// Whose turn it is.
    next: usize,
    queue: VecDeque<Queued>,
    queued_bytes: QueuedBytes,
    backlog: Backlog,
    /// Bytes of what was left to the disk, about.
    disk_bytes: u64,
}

#[derive(Debug)]
struct Queued {
    message: Arc<Message>,
    /// Its place in the group's queue in the store, 0 for none.
    place: u64,
}

#[derive(Debug)]
struct Member {
    session: Arc<Session>,
    options: SubscriptionOptions,
    identifier: u32,
}

impl Group {
    /// A group without members, whose queue counts among those of `memory`.
    pub(crate) fn new(share_name: &str, filter: Arc<str>, memory: &Arc<QueuedMemory>) -> Self {
        Self {
            share_name: share_name.into(),
            filter,
            inner: Mutex::new(Inner {
                members: Vec::new(),
                next: 0,
                queue: VecDeque::new(),
                queued_bytes: QueuedBytes::new(memory),
                backlog: Backlog::default(),
                disk_bytes: 0,
            }),
            has_more: AtomicBool::new(false),
            recorded_members: AtomicUsize::new(0),
            handed: Mutex::default(),
        }
    }

    /// The group's queue in the store.
    pub(crate) fn key(&self) -> QueueKey<'_> {
        QueueKey::Group { namespace: 0, share_name: &self.share_name, filter: &self.filter }
    }

    /// Whether what the group is owed goes on record.
    pub(crate) fn is_on_record(&self) -> bool {
        self.recorded_members.load(Ordering::Acquire) > 0
    }

    /// The group's queue is as it was found in the store: debts up to `last` are on disk, but for those that members were
    /// `handed`.
    pub(crate) fn restore(&self, last: u64, handed: BTreeSet<u64>) {
        self.inner.lock().backlog = Backlog::on_disk(last, handed.clone());
        *self.handed.lock() = handed;
        self.has_more.store(true, Ordering::Release);
    }

    /// A member has paid a debt, or given it up.
    pub(crate) fn settled(&self, place: u64) {
        self.handed.lock().remove(&place);
    }

    /// Gives up a debt that no member was handed.
    fn give_up(&self, shared: &Shared, place: u64) {
        if place != 0
            && let Err(reason) =
                shared.append(&[Record::Settled { queue: self.key(), position: Position(place) }])
        {
            tracing::debug!(?reason, "a debt of a shared subscription could not be settled");
        }
    }

    /// Adds a member or replaces its options. Returns whether it was a member already.
    pub(crate) fn join(&self, session: &Arc<Session>, options: SubscriptionOptions, identifier: u32) -> bool {
        let mut inner = self.inner.lock();
        let member = Member { session: Arc::clone(session), options, identifier };
        match inner.members.iter_mut().find(|old| old.session.number == session.number) {
            Some(old) => {
                *old = member;
                true
            }
            None => {
                inner.members.push(member);
                self.recorded_members.fetch_add(usize::from(session.is_on_record()), Ordering::AcqRel);
                false
            }
        }
    }

    /// Removes a member; returns whether the group is empty now. An empty group's queue is gone with it.
    pub(crate) fn leave(&self, session: &Session, shared: &Shared) -> bool {
        let mut inner = self.inner.lock();
        inner.members.retain(|member| member.session.number != session.number);
        // Counted anew: the one that leaves may be off the record by now.
        let recorded = inner.members.iter().filter(|member| member.session.is_on_record()).count();
        let was_recorded = self.recorded_members.swap(recorded, Ordering::AcqRel) > 0;
        let is_empty = inner.members.is_empty();
        if is_empty
            && was_recorded
            && let Err(reason) = shared.append(&[Record::QueueDropped { queue: self.key() }])
        {
            tracing::warn!(?reason, "the end of a shared subscription could not be recorded");
        }
        is_empty
    }

    /// A member's options and Subscription Identifier.
    pub(crate) fn options_of(&self, session: &Session) -> Option<(SubscriptionOptions, u32)> {
        let inner = self.inner.lock();
        let member = inner.members.iter().find(|member| member.session.number == session.number)?;
        Some((member.options, member.identifier))
    }

    /// Whether a member other than this one is connected.
    pub(crate) fn has_other_online(&self, session: &Session) -> bool {
        let inner = self.inner.lock();
        inner
            .members
            .iter()
            .any(|member| member.session.number != session.number && member.session.lock().state.is_online())
    }

    /// Gives the message to one member, or keeps it for the first that has room. `place` is that of the debt in the group's
    /// queue in the store, 0 for none.
    pub(crate) fn deliver(
        self: &Arc<Self>,
        shared: &Shared,
        fanout: &mut Fanout<'_>,
        place: u64,
    ) -> Delivered {
        let limits = &shared.config.limits;
        let mut inner = self.inner.lock();
        if inner.backlog.knows(place) {
            return Delivered::Known;
        }
        if inner.members.is_empty() {
            self.give_up(shared, place);
            return Delivered::Dropped(DropReason::Offline);
        }
        let must_wait = !inner.queue.is_empty() || inner.backlog.is_behind();
        if !must_wait && let Some(delivered) = inner.offer(self, fanout, place, limits) {
            if delivered == Delivered::Dropped(DropReason::NotAuthorized) {
                self.give_up(shared, place);
            }
            return delivered;
        }
        // Nobody could take it. What is at QoS 0 for everybody, or can only ever be, isn't kept.
        if fanout.qos() == QoS::AtMostOnce
            || inner.members.iter().all(|member| member.options.qos == QoS::AtMostOnce)
        {
            self.give_up(shared, place);
            return Delivered::Dropped(DropReason::Offline);
        }
        let size = fanout.message().size() as u64;
        let can_stream = place != 0 && shared.can_stream;
        let is_over = |inner: &Inner| {
            (!can_stream && inner.queue.len() >= limits.max_queued_messages as usize)
                || inner.queued_bytes.get() + inner.disk_bytes + size > limits.max_queued_bytes
                || (!can_stream && inner.queued_bytes.memory_is_full(size))
        };
        if size > limits.max_queued_bytes
            || (is_over(&inner) && limits.max_queued_policy == QueuePolicy::Refuse)
        {
            self.give_up(shared, place);
            return Delivered::Dropped(DropReason::QueueFull);
        }
        let mut dropped = 0;
        while is_over(&inner)
            && let Some(oldest) = inner.pop()
        {
            self.give_up(shared, oldest.place);
            dropped += 1;
        }
        if dropped > 0 {
            tally(|tally| tally.queue_full(dropped));
        }
        if !can_stream && inner.queued_bytes.memory_is_full(size) {
            self.give_up(shared, place);
            return Delivered::Dropped(DropReason::MemoryFull);
        }
        let head_is_full = inner.queue.len() >= HEAD_MESSAGES
            || inner.queued_bytes.get() + size > HEAD_BYTES
            || inner.queued_bytes.memory_is_full(size);
        self.has_more.store(true, Ordering::Release);
        if can_stream && (inner.backlog.is_behind() || (head_is_full && !inner.queue.is_empty())) {
            let handed = self.handed.lock().clone();
            let Inner { queue, backlog, .. } = &mut *inner;
            backlog.leave(place, queue.iter().map(|queued| queued.place).chain(handed));
            inner.disk_bytes += size;
            if is_over(&inner) {
                self.read_more(shared, &mut inner);
            }
            return Delivered::OnDisk;
        }
        inner.queued_bytes.add(size);
        inner.queue.push_back(Queued { message: Arc::clone(fanout.message()), place });
        // A member may have got room after it was asked and before it could see that something waits.
        self.hand_out(shared, &mut inner, fanout.now_ms());
        if dropped > 0 { Delivered::QueuedDroppingOldest } else { Delivered::Queued }
    }

    /// Puts a message back that a member didn't acknowledge, before everything that is queued.
    fn take_back(&self, message: Arc<Message>, place: u64) {
        let mut inner = self.inner.lock();
        inner.queued_bytes.add(message.size() as u64);
        inner.queue.push_front(Queued { message, place });
        self.handed.lock().remove(&place);
        self.has_more.store(true, Ordering::Release);
    }

    /// Hands out what is queued while a member has room. Returns how many messages had expired.
    pub(crate) fn pump(self: &Arc<Self>, shared: &Shared, now_ms: u64) -> u64 {
        if !self.has_more.load(Ordering::Acquire) {
            return 0;
        }
        let mut inner = self.inner.lock();
        let expired = self.hand_out(shared, &mut inner, now_ms);
        if inner.queue.len() < HEAD_MESSAGES / 2 && inner.queued_bytes.get() < HEAD_BYTES / 2 {
            self.read_more(shared, &mut inner);
        }
        expired
    }

    fn read_more(self: &Arc<Self>, shared: &Shared, inner: &mut Inner) {
        if let Some(read) = inner.backlog.begin_read() {
            shared.read_group(self, read);
        }
    }

    /// Debts were read back.
    pub(crate) fn arrive(
        self: &Arc<Self>,
        shared: &Shared,
        read: BacklogRead,
        debts: Vec<Debt>,
        found_nothing: bool,
    ) {
        let mut inner = self.inner.lock();
        for debt in debts {
            let size = debt.message.size() as u64;
            if inner.backlog.take(debt.place) {
                inner.disk_bytes = inner.disk_bytes.saturating_sub(size);
                inner.queued_bytes.add(size);
                inner.queue.push_back(Queued { message: debt.message, place: debt.place });
            }
        }
        inner.backlog.end_read(read, found_nothing);
        if !inner.backlog.is_behind() {
            inner.disk_bytes = 0;
        }
        let limits = &shared.config.limits;
        while limits.max_queued_policy == QueuePolicy::DropOldest
            && inner.queued_bytes.get() + inner.disk_bytes > limits.max_queued_bytes
            && let Some(oldest) = inner.pop()
        {
            self.give_up(shared, oldest.place);
            shared.metrics.dropped_queue_full.add(1);
        }
        let expired = self.hand_out(shared, &mut inner, shared.clock.now().mono_ms);
        shared.metrics.dropped_expired.add(expired);
        let has_room_for_more = inner.members.iter().any(|member| member.session.lock().state.has_room());
        if inner.queue.is_empty() && has_room_for_more {
            self.read_more(shared, &mut inner);
        }
    }

    fn hand_out(self: &Arc<Self>, shared: &Shared, inner: &mut Inner, now_ms: u64) -> u64 {
        let mut expired = 0;
        while let Some(Queued { message, place }) = inner.queue.front() {
            let (message, place) = (Arc::clone(message), *place);
            if message.is_expired(now_ms) {
                expired += 1;
                self.give_up(shared, place);
            } else {
                let mut fanout = Fanout::of_message(&message, 1, now_ms);
                match inner.offer(self, &mut fanout, place, &shared.config.limits) {
                    None => break,
                    Some(Delivered::Dropped(reason @ DropReason::NotAuthorized)) => {
                        shared.metrics.dropped(reason);
                        self.give_up(shared, place);
                    }
                    Some(_) => {}
                }
            }
            inner.pop();
        }
        self.has_more.store(!inner.queue.is_empty() || inner.backlog.is_behind(), Ordering::Release);
        expired
    }

    /// Unacknowledged QoS 1 messages of members that aren't connected come back to the group.
    pub(crate) fn reclaim_from_offline(self: &Arc<Self>) {
        let offline: Vec<_> = {
            let inner = self.inner.lock();
            inner.members.iter().map(|member| Arc::clone(&member.session)).collect()
        };
        for session in offline {
            let taken = {
                let mut inner = session.lock();
                if inner.state.is_online() { Vec::new() } else { inner.state.take_shared() }
            };
            give_back(taken);
        }
    }
}

/// Returns messages, oldest first, to the groups that they came from.
pub(crate) fn give_back(taken: Vec<Returned>) {
    for Returned { group, message, place } in taken.into_iter().rev() {
        group.take_back(message, place);
    }
}

impl Inner {
    fn pop(&mut self) -> Option<Queued> {
        let queued = self.queue.pop_front()?;
        self.queued_bytes.sub(queued.message.size() as u64);
        Some(queued)
    }

    /// Offers the message to each member once, beginning with whose turn it is. `None`: nobody can take it now. Dropped as not
    /// authorized: no member that is connected may have it, and the debt is the caller's to give up.
    fn offer(
        &mut self,
        group: &Arc<Group>,
        fanout: &mut Fanout<'_>,
        place: u64,
        limits: &Limits,
    ) -> Option<Delivered> {
        let count = self.members.len();
        let (mut is_permitted, mut is_denied) = (false, false);
        for step in 0..count {
            let number = (self.next + step) % count;
            let Some(member) = self.members.get(number) else { continue };
            let qos = fanout.qos().min(member.options.qos);
            let mut session = member.session.lock();
            let takes = match qos {
                QoS::AtMostOnce => session.state.is_online() && !session.state.is_congested(),
                QoS::AtLeastOnce | QoS::ExactlyOnce => session.state.has_room(),
            };
            if session.ended {
                continue;
            }
            if session.state.is_online() {
                let permits = session.state.permits(fanout.outgoing().topic);
                is_permitted |= permits;
                is_denied |= !permits;
                if !permits {
                    continue;
                }
            }
            if !takes {
                continue;
            }
            let identifier = [member.identifier];
            let identifiers = if member.identifier == 0 { &[][..] } else { &identifier[..] };
            let grant = Grant {
                qos,
                retain: fanout.retain() && member.options.retain_as_published,
                identifiers,
                group: (qos != QoS::AtMostOnce || place != 0).then_some(group),
                place,
            };
            if place != 0 {
                group.handed.lock().insert(place);
            }
            let delivered = session.state.deliver(fanout, grant, limits);
            session.wake_to_write();
            drop(session);
            self.next = number + 1;
            return Some(delivered);
        }
        // No member that is connected may have it: it must not stand in the way of what they may.
        if is_denied && !is_permitted {
            return Some(Delivered::Dropped(DropReason::NotAuthorized));
        }
        None
    }
}
