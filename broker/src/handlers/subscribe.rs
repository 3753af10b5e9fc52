//! SUBSCRIBE and UNSUBSCRIBE, and the Retained Messages that a new Subscription brings.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Context;

use mqtt_protocol::topic::{ParsedFilter, parse_filter};
use mqtt_protocol::{
    Packet, QoS, ReasonCode, RetainHandling, SubAck, Subscribe, SubscriptionOptions, UnsubAck, Unsubscribe,
    UserProperties,
};
use smallvec::SmallVec;
use store::{CommitToken, Record};

use super::{Client, Flow, Owed, cannot_record};
use crate::broker::Shared;
use crate::clock::Now;
use crate::connection::Close;
use crate::dispatch::{CHUNK, Fanout, adopt};
use crate::metrics::{sent, tally};
use crate::session::{Delivered, Grant, Session, SessionSubscription, wake_after_this_turn};
use crate::subscriptions::retained::{Cursor, Step, TurnGuard};
use crate::subscriptions::{Group, Subscriber};

/// Filters in one SUBSCRIBE at most: each is answered, and each may bring Retained Messages.
const FILTERS_MAX: usize = 50_000;

/// Set in the options of a Subscription's record: Retained Messages are still to be sent to it.
pub(crate) const OWES_RETAINED: u8 = 1 << 6;

/// Retained Messages on their way to one new Subscription.
///
/// What is sent becomes a debt of the session. Of the rest its record says only that there is some: after a crash all of them
/// are sent again, for who subscribes to everything isn't owed everything at once.
pub(crate) struct RetainedDelivery {
    filter: Box<str>,
    qos: QoS,
    identifier: u32,
    cursor: Cursor,
    /// The record of the Subscription says so: its options and identifier, to be written without that at the end.
    on_record: Option<(SubscriptionOptions, u32)>,
    /// A message of the shard is being published; the search goes on after it.
    waiting: Option<Pin<Box<dyn Future<Output = TurnGuard> + Send>>>,
}

impl RetainedDelivery {
    /// To a Subscription on whose record it was found.
    pub(crate) fn restored(filter: &str, options: SubscriptionOptions, identifier: u32) -> Self {
        Self { on_record: Some((options, identifier)), ..Self::new(filter, options.qos, identifier) }
    }

    fn new(filter: &str, qos: QoS, identifier: u32) -> Self {
        Self {
            filter: filter.into(),
            qos,
            identifier,
            cursor: Cursor::default(),
            on_record: None,
            waiting: None,
        }
    }

    /// Whether it is held up by a message that is being published.
    pub(super) fn waits_for_turn(&self) -> bool {
        self.waiting.is_some()
    }

    /// Lets go of its connection; the search goes on where it was.
    pub(super) fn pause(&mut self) {
        self.waiting = None;
    }
}

impl std::fmt::Debug for RetainedDelivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RetainedDelivery").field("filter", &self.filter).finish_non_exhaustive()
    }
}

impl Client {
    pub(super) fn subscribe(
        &mut self,
        subscribe: &Subscribe<'_>,
        cx: &mut Context<'_>,
        now: Now,
    ) -> Result<Flow, Close> {
        let shared = Arc::clone(&self.shared);
        self.check_user_properties(&subscribe.user_properties)?;
        let identifier = subscribe.subscription_identifier.unwrap_or(0);
        if subscribe.filters.count() > FILTERS_MAX {
            return Err(self.violation(ReasonCode::QuotaExceeded, "more filters than one SUBSCRIBE may have"));
        }
        drop(self.mine()?);
        let mut codes: SmallVec<[u8; 8]> = SmallVec::new();
        let mut retained = Vec::new();
        let session = Arc::clone(&self.session);
        let is_recorded = session.is_on_record();
        let mut made = Vec::new();
        for entry in subscribe.filters.iter() {
            let code = match self.subscribe_one(entry.filter, entry.options, identifier, &mut retained) {
                Ok(options) => {
                    if is_recorded {
                        made.push((entry.filter, options));
                    }
                    entry.options.qos as u8
                }
                Err(reason) if self.version.has_reason_codes() => reason.code(),
                // Failure; 3.1 knows none and would take it for a QoS, but there is nothing better to say.
                Err(_) => 0x80,
            };
            codes.push(code);
        }
        let mut repeated = HashSet::new();
        retained.retain(|delivery| repeated.insert(delivery.filter.clone()));
        self.retained.retain(|pending| !repeated.contains(&pending.filter));
        self.retained.extend(retained);
        let owing = self.note_owing(&made, identifier);
        let records: SmallVec<[Record<'_>; 1]> = made
            .iter()
            .map(|(filter, options)| Record::Subscribed {
                session: session.key(),
                filter,
                options: options.to_byte() | if owing.contains(*filter) { OWES_RETAINED } else { 0 },
                identifier,
            })
            .collect();
        let token = shared.append(&records).map_err(cannot_record)?;
        let refused = codes.iter().any(|code| *code >= 0x80);
        let mut suback = SubAck::new(subscribe.packet_id, &codes);
        if refused && self.wants_problem_information && self.maximum_packet_size as usize > 128 + codes.len()
        {
            suback.reason_string = Some(
                "a filter is malformed, not allowed, has too many levels, or is one more than the limit",
            );
        }
        self.reply(&Packet::SubAck(suback), token)?;
        self.deliver_retained(cx, now);
        self.pump_groups(now);
        Ok(Flow::GoOn)
    }

    /// Which of these Subscriptions Retained Messages are on their way to that have to come whatever happens; those will
    /// say so on the record.
    fn note_owing<'a>(
        &mut self,
        made: &[(&'a str, SubscriptionOptions)],
        identifier: u32,
    ) -> HashSet<&'a str> {
        let mut owing = HashSet::new();
        if made.is_empty() || self.retained.is_empty() {
            return owing;
        }
        // Of a filter that is there twice the last counts.
        let made: HashMap<&'a str, SubscriptionOptions> = made.iter().copied().collect();
        for pending in self.retained.iter_mut().filter(|pending| pending.qos > QoS::AtMostOnce) {
            if let Some((filter, options)) = made.get_key_value(&*pending.filter) {
                pending.on_record = Some((*options, identifier));
                owing.insert(*filter);
            }
        }
        owing
    }

    /// All Retained Messages have been sent to a Subscription.
    fn note_sent(&self, delivery: &RetainedDelivery) {
        let Some((options, identifier)) = delivery.on_record else { return };
        let inner = self.session.lock();
        // Not after its end: there may be another one of this name.
        if inner.ended || inner.generation != self.generation {
            return;
        }
        let sent = Record::Subscribed {
            session: self.session.key(),
            filter: &delivery.filter,
            options: options.to_byte(),
            identifier,
        };
        if let Err(reason) = self.shared.append(&[sent]) {
            tracing::debug!(?reason, "Retained Messages that were sent will be sent again after a restart");
        }
    }

    fn check_user_properties(&self, properties: &UserProperties<'_>) -> Result<(), Close> {
        if self.shared.config.limits.allow(properties) {
            return Ok(());
        }
        self.shared.metrics.limit_user_properties.add(1);
        Err(self.violation(ReasonCode::QuotaExceeded, "more User Properties than the limit"))
    }

    /// Sends a packet before anything that is delivered from now on, or when its debts are safe.
    fn reply(&mut self, packet: &Packet<'_>, token: CommitToken) -> Result<(), Close> {
        let at_once = self.owed.is_empty() && self.shared.store.committed() >= token;
        let mut bytes = Vec::new();
        match packet.encode(self.version, &mut bytes) {
            Ok(_) => sent(packet.packet_type(), 1),
            Err(error) => tracing::error!(%error, "an answer could not be encoded"),
        }
        if bytes.len() > self.maximum_packet_size as usize {
            return Err(Close::because(
                ReasonCode::PacketTooLarge,
                "an answer is larger than the Maximum Packet Size",
            ));
        }
        if at_once {
            let mut inner = self.mine()?;
            inner.state.out.buffer().extend_from_slice(&bytes);
            let waiting = inner.state.out.len();
            drop(inner);
            self.output_is_full |= waiting > self.shared.config.limits.max_outbound_bytes as usize;
        } else {
            self.owed.push_back(Owed::Packet(token, bytes));
        }
        Ok(())
    }

    fn subscribe_one(
        &mut self,
        text: &str,
        mut options: SubscriptionOptions,
        identifier: u32,
        retained: &mut Vec<RetainedDelivery>,
    ) -> Result<SubscriptionOptions, ReasonCode> {
        let shared = &self.shared;
        let parsed = parse_filter(text).map_err(|_| ReasonCode::TopicFilterInvalid)?;
        let (filter, share_name) = match parsed {
            ParsedFilter::Plain(filter) => (filter, None),
            ParsedFilter::Shared(shared) => (shared.filter, Some(shared.share_name)),
        };
        if self.is_bridge {
            options.retain_as_published = true;
            options.no_local = share_name.is_none();
        }
        shared.check_levels(filter).map_err(|_| ReasonCode::TopicFilterInvalid)?;
        let limit = shared.config.limits.max_subscriptions as usize;
        let existed = {
            let inner = self.session.lock();
            let existed = inner.subscriptions.find(text).is_some();
            if !existed && inner.subscriptions.len() >= limit {
                shared.metrics.limit_subscriptions.add(1);
                return Err(ReasonCode::QuotaExceeded);
            }
            existed
        };
        // Read before the question: rules that change meanwhile are asked again.
        let version = shared.access.version();
        let mut is_partial = !shared.access.is_open(&self.publisher)
            && shared.may_subscribe(&self.publisher, filter, options.qos).ok_or(ReasonCode::NotAuthorized)?;
        let (stored, group) = shared
            .add_subscription(&self.session, text, options, identifier)
            .ok_or(ReasonCode::TopicFilterInvalid)?;
        if let Some(group) = &group
            && !self.groups.iter().any(|known| Arc::ptr_eq(known, group))
        {
            self.groups.push(Arc::clone(group));
            group.reclaim_from_offline();
        }
        let is_shared = group.is_some();
        {
            let mut inner = self.session.lock();
            if inner.ended || inner.generation != self.generation {
                drop(inner);
                // Whoever took the session over, or ended it, must not find this.
                if !existed {
                    shared.subscription_count.fetch_add(1, Ordering::Relaxed);
                    shared.forget_subscription(&self.session, text);
                }
                return Err(ReasonCode::UnspecifiedError);
            }
            inner.subscriptions.insert(SessionSubscription { filter: stored, group });
            is_partial |= shared.access.version() != version;
            if is_partial {
                inner.state.guard = Some(shared.guard(&self.publisher));
            }
        }
        if !existed {
            shared.subscription_count.fetch_add(1, Ordering::Relaxed);
        }
        // A Shared Subscription gets no Retained Messages (MQTT 5.0 §4.8.2).
        let wanted = !is_shared
            && match options.retain_handling {
                RetainHandling::SendAtSubscribe => true,
                RetainHandling::SendAtNewSubscribe => !existed,
                RetainHandling::DoNotSend => false,
            };
        if wanted && shared.retained.totals().0 > 0 {
            retained.push(RetainedDelivery::new(filter, options.qos, identifier));
        }
        Ok(options)
    }

    pub(super) fn unsubscribe(&mut self, unsubscribe: &Unsubscribe<'_>) -> Result<Flow, Close> {
        let shared = Arc::clone(&self.shared);
        self.check_user_properties(&unsubscribe.user_properties)?;
        let mut codes: SmallVec<[u8; 8]> = SmallVec::new();
        let mut records = Vec::new();
        for filter in unsubscribe.filters.iter() {
            let removed = self.mine()?.subscriptions.remove(filter);
            let code = match removed {
                Some(subscription) => {
                    shared.forget_subscription(&self.session, &subscription.filter);
                    if let Some(group) = &subscription.group {
                        self.groups.retain(|known| !Arc::ptr_eq(known, group));
                    }
                    self.retained.retain(|delivery| *delivery.filter != *filter);
                    if self.session.is_on_record() {
                        records.push(Record::Unsubscribed { session: self.session.key(), filter });
                    }
                    ReasonCode::Success
                }
                None if parse_filter(filter).is_err() => ReasonCode::TopicFilterInvalid,
                None => ReasonCode::NoSubscriptionExisted,
            };
            codes.push(code.code());
        }
        let token = shared.append(&records).map_err(cannot_record)?;
        let unsuback = Packet::UnsubAck(UnsubAck::new(unsubscribe.packet_id, &codes));
        self.reply(&unsuback, token)?;
        Ok(Flow::GoOn)
    }

    /// Sends Retained Messages, a chunk at a time and only as fast as the client reads.
    pub(super) fn deliver_retained(&mut self, cx: &mut Context<'_>, now: Now) {
        let shared = Arc::clone(&self.shared);
        let session = Arc::clone(&self.session);
        while let Some(delivery) = self.retained.front_mut() {
            if let Some(waiting) = &mut delivery.waiting {
                if waiting.as_mut().poll(cx).is_pending() {
                    return;
                }
                delivery.waiting = None;
            }
            // Not queued ahead of the client: `take_output` asks again when this is written.
            if !session.lock().state.takes_more() {
                return;
            }
            let (qos, identifier) = (delivery.qos, delivery.identifier);
            let step = shared.retained.search(
                &delivery.filter,
                &mut delivery.cursor,
                CHUNK,
                now.mono_ms,
                |message| {
                    if !shared.author_may(message) {
                        shared.metrics.dropped_not_authorized.add(1);
                        return true;
                    }
                    let mut fanout = Fanout::of_message(message, 1, now.mono_ms);
                    let identifiers = [identifier];
                    let identifiers = if identifier == 0 { &[][..] } else { &identifiers[..] };
                    let qos = qos.min(message.qos());
                    let mut grant = Grant { qos, retain: true, identifiers, group: None, place: 0 };
                    let mut inner = session.lock();
                    if grant.qos > QoS::AtMostOnce
                        && inner.is_recorded
                        && inner.state.permits(message.topic())
                    {
                        grant.place = adopt(&shared, &message.publication(), &session, &grant);
                    }
                    match inner.state.deliver(&mut fanout, grant, &shared.config.limits) {
                        Delivered::Sent
                        | Delivered::Queued
                        | Delivered::QueuedDroppingOldest
                        | Delivered::OnDisk
                        | Delivered::Known => {
                            tally(|tally| tally.delivered(qos, 1, message.payload().len() as u64));
                        }
                        Delivered::Dropped(reason) => shared.metrics.dropped(reason),
                    }
                    inner.state.takes_more()
                },
            );
            match step {
                Step::Finished => {
                    if let Some(delivery) = self.retained.pop_front() {
                        self.note_sent(&delivery);
                    }
                }
                Step::More => {
                    wake_after_this_turn(cx.waker());
                    return;
                }
                Step::Busy => delivery.waiting = Some(Box::pin(shared.retained.turn_at(&delivery.cursor))),
            }
        }
    }
}

/// Where a Subscription went.
enum Added {
    /// To the filter, whose stored text this is.
    Plain(Arc<str>),
    Shared(Arc<Group>),
}

fn add(
    shared: &Shared,
    session: &Arc<Session>,
    filter: &str,
    share_name: Option<&str>,
    options: SubscriptionOptions,
    identifier: u32,
) -> Added {
    shared.subscriptions.change(filter, |stored, subscribers| match share_name {
        None => {
            subscribers.sessions.insert(Subscriber { session: Arc::clone(session), identifier, options });
            Added::Plain(Arc::clone(stored))
        }
        Some(share_name) => {
            let groups = subscribers.groups.get_or_insert_default();
            let group = match groups.iter().find(|group| *group.share_name == *share_name) {
                Some(group) => Arc::clone(group),
                None => {
                    let group = Arc::new(Group::new(share_name, Arc::clone(stored), &shared.queued_memory));
                    groups.push(Arc::clone(&group));
                    group
                }
            };
            group.join(session, options, identifier);
            Added::Shared(group)
        }
    })
}

impl Shared {
    /// Puts a Subscription into the index; `text` is the filter as the client wrote it. Returns the text to keep, and the
    /// group of a Shared Subscription; `None` if the filter is not valid.
    pub(crate) fn add_subscription(
        &self,
        session: &Arc<Session>,
        text: &str,
        options: SubscriptionOptions,
        identifier: u32,
    ) -> Option<(Arc<str>, Option<Arc<Group>>)> {
        let (filter, share_name) = match parse_filter(text).ok()? {
            ParsedFilter::Plain(filter) => (filter, None),
            ParsedFilter::Shared(shared) => (shared.filter, Some(shared.share_name)),
        };
        Some(match add(self, session, filter, share_name, options, identifier) {
            // The filter's own text is shared with the index; a share's text is its own.
            Added::Plain(filter) => (filter, None),
            Added::Shared(group) => (text.into(), Some(group)),
        })
    }

    /// Takes a Subscription out of the index; `text` is the filter as the client wrote it.
    pub(crate) fn forget_subscription(&self, session: &Session, text: &str) {
        let Ok(parsed) = parse_filter(text) else { return };
        let (filter, share_name) = match parsed {
            ParsedFilter::Plain(filter) => (filter, None),
            ParsedFilter::Shared(shared) => (shared.filter, Some(shared.share_name)),
        };
        self.subscriptions.change(filter, |_, subscribers| match share_name {
            None => {
                subscribers.sessions.remove(&session.number);
            }
            Some(share_name) => {
                if let Some(groups) = &mut subscribers.groups {
                    groups.retain(|group| *group.share_name != *share_name || !group.leave(session, self));
                    if groups.is_empty() {
                        subscribers.groups = None;
                    }
                }
            }
        });
        self.subscription_count.fetch_sub(1, Ordering::Relaxed);
    }
}
