//! Shared Subscriptions: one group takes each message once, whichever member gets it.
//!
//! The debt belongs to the group: what no member can take now waits in the group's queue, and a member holds nothing
//! but what was sent to it. When a member goes away, its unacknowledged QoS 1 messages come back to the group if
//! another member is there; QoS 2 messages that were sent stay with their member [MQTT-4.8.2-4, -5, v5].
//!
//! Members take turns. One that can't take a QoS 1 or 2 message now (offline, window full, socket congested) is passed
//! over.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mqtt_protocol::{QoS, SubscriptionOptions};
use parking_lot::Mutex;

use crate::config::{Limits, QueuePolicy};
use crate::dispatch::Fanout;
use crate::message::Message;
use crate::session::{Delivered, DropReason, Grant, Session};

/// The members of one share name at one Topic Filter.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) share_name: Box<str>,
    pub(crate) filter: Arc<str>,
    inner: Mutex<Inner>,
    /// Whether anything is queued: lets a member that has room again skip the lock.
    backlog: AtomicBool,
}

#[derive(Debug, Default)]
struct Inner {
    members: Vec<Member>,
    /// Whose turn it is.
    next: usize,
    queue: VecDeque<Arc<Message>>,
    queued_bytes: u64,
}

#[derive(Debug)]
struct Member {
    session: Arc<Session>,
    options: SubscriptionOptions,
    identifier: u32,
}

impl Group {
    pub(crate) fn new(share_name: &str, filter: Arc<str>) -> Self {
        Self {
            share_name: share_name.into(),
            filter,
            inner: Mutex::default(),
            backlog: AtomicBool::new(false),
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
                false
            }
        }
    }

    /// Removes a member; returns whether the group is empty now. An empty group's queue is gone with it.
    pub(crate) fn leave(&self, session: &Session) -> bool {
        let mut inner = self.inner.lock();
        inner.members.retain(|member| member.session.number != session.number);
        inner.members.is_empty()
    }

    /// Whether a member other than this one is connected.
    pub(crate) fn has_other_online(&self, session: &Session) -> bool {
        let inner = self.inner.lock();
        inner
            .members
            .iter()
            .any(|member| member.session.number != session.number && member.session.lock().state.is_online())
    }

    /// Gives the message to one member, or keeps it for the first that has room.
    pub(crate) fn deliver(self: &Arc<Self>, fanout: &mut Fanout<'_>, limits: &Limits) -> Delivered {
        let mut inner = self.inner.lock();
        if inner.members.is_empty() {
            return Delivered::Dropped(DropReason::Offline);
        }
        let must_wait = !inner.queue.is_empty();
        if !must_wait && let Some(delivered) = inner.offer(self, fanout, limits) {
            return delivered;
        }
        // Nobody could take it. What is at QoS 0 for everybody, or can only ever be, isn't kept.
        if fanout.qos() == QoS::AtMostOnce
            || inner.members.iter().all(|member| member.options.qos == QoS::AtMostOnce)
        {
            return Delivered::Dropped(DropReason::Offline);
        }
        let size = fanout.message().size() as u64;
        if size > limits.max_queued_bytes {
            return Delivered::Dropped(DropReason::QueueFull);
        }
        let mut dropped = false;
        while inner.queue.len() >= limits.max_queued_messages as usize
            || inner.queued_bytes + size > limits.max_queued_bytes
        {
            if limits.max_queued_policy == QueuePolicy::Refuse || inner.queue.is_empty() {
                return Delivered::Dropped(DropReason::QueueFull);
            }
            if let Some(oldest) = inner.queue.pop_front() {
                inner.queued_bytes -= oldest.size() as u64;
            }
            dropped = true;
        }
        inner.queued_bytes += size;
        inner.queue.push_back(Arc::clone(fanout.message()));
        self.backlog.store(true, Ordering::Release);
        // A member may have got room after it was asked and before it could see that something waits.
        self.hand_out(&mut inner, limits, fanout.now_ms());
        if dropped { Delivered::QueuedDroppingOldest } else { Delivered::Queued }
    }

    /// Puts a message back that a member didn't acknowledge, before everything that is queued.
    fn take_back(&self, message: Arc<Message>) {
        let mut inner = self.inner.lock();
        inner.queued_bytes += message.size() as u64;
        inner.queue.push_front(message);
        self.backlog.store(true, Ordering::Release);
    }

    /// Hands out what is queued while a member has room. Returns how many messages had expired.
    pub(crate) fn pump(self: &Arc<Self>, limits: &Limits, now_ms: u64) -> u64 {
        if !self.backlog.load(Ordering::Acquire) {
            return 0;
        }
        let mut inner = self.inner.lock();
        self.hand_out(&mut inner, limits, now_ms)
    }

    fn hand_out(self: &Arc<Self>, inner: &mut Inner, limits: &Limits, now_ms: u64) -> u64 {
        let mut expired = 0;
        while let Some(message) = inner.queue.front().cloned() {
            if message.is_expired(now_ms) {
                expired += 1;
            } else {
                let mut fanout = Fanout::of_message(&message, 1, now_ms);
                if inner.offer(self, &mut fanout, limits).is_none() {
                    break;
                }
            }
            inner.queue.pop_front();
            inner.queued_bytes -= message.size() as u64;
        }
        self.backlog.store(!inner.queue.is_empty(), Ordering::Release);
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
pub(crate) fn give_back(taken: Vec<(Arc<Group>, Arc<Message>)>) {
    for (group, message) in taken.into_iter().rev() {
        group.take_back(message);
    }
}

impl Inner {
    /// Offers the message to each member once, beginning with whose turn it is.
    fn offer(&mut self, group: &Arc<Group>, fanout: &mut Fanout<'_>, limits: &Limits) -> Option<Delivered> {
        let count = self.members.len();
        for step in 0..count {
            let place = (self.next + step) % count;
            let Some(member) = self.members.get(place) else { continue };
            let qos = fanout.qos().min(member.options.qos);
            let mut session = member.session.lock();
            let takes = match qos {
                QoS::AtMostOnce => session.state.is_online() && !session.state.is_congested(),
                QoS::AtLeastOnce | QoS::ExactlyOnce => session.state.has_room(),
            };
            if session.ended || !takes {
                continue;
            }
            let identifier = [member.identifier];
            let identifiers = if member.identifier == 0 { &[][..] } else { &identifier[..] };
            let grant = Grant {
                qos,
                retain: fanout.retain() && member.options.retain_as_published,
                identifiers,
                group: (qos != QoS::AtMostOnce).then_some(group),
            };
            let delivered = session.state.deliver(fanout, grant, limits);
            session.wake_to_write();
            drop(session);
            self.next = place + 1;
            return Some(delivered);
        }
        None
    }
}
