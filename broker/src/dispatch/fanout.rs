//! A message, or a run of frames, on its way to many receivers: what they share is made once.

use std::sync::Arc;

use mqtt_protocol::{FrameStatus, Outgoing, PacketType, ProtocolVersion, Publish, PublishLayout, QoS};

use super::admit::{Places, adopt};
use super::is_matched;
use crate::broker::Shared;
use crate::clock::Now;
use crate::message::{Message, Publication, Publisher, Trail};
use crate::metrics::{sent, tally};
use crate::outbound::{SHARE_ALWAYS_BYTES, SHARE_RECEIVERS, SHARE_WIDE_BYTES};
use crate::session::state::remaining_s;
use crate::session::{Delivered, DropReason, Grant, Session};
use crate::subscriptions::route::Route;

/// Receivers served in one turn.
pub(crate) const CHUNK: usize = 512;

/// One message being handed to many: what they share is made once, when first needed.
#[derive(Debug)]
pub(crate) struct Fanout<'a> {
    publication: Publication<'a>,
    owned: Option<Arc<Message>>,
    shares_payload: bool,
    /// One receiver: nothing is worth preparing.
    is_single: bool,
    now_ms: u64,
    remaining_s: Option<u32>,
    /// By version (3.x, 5) and presence of a Packet Identifier.
    layouts: [Option<PublishLayout>; 4],
}

thread_local! {
    /// Memory of layouts to use again.
    static SCRATCH: std::cell::RefCell<Vec<Vec<u8>>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl<'a> Fanout<'a> {
    pub(super) fn new(
        publication: Publication<'a>,
        owned: Option<Arc<Message>>,
        receivers: usize,
        now_ms: u64,
    ) -> Self {
        let size = publication.payload.len();
        Self {
            owned,
            shares_payload: receivers > 1
                && (size >= SHARE_ALWAYS_BYTES || (size >= SHARE_WIDE_BYTES && receivers > SHARE_RECEIVERS)),
            is_single: receivers <= 1,
            now_ms,
            remaining_s: remaining_s(publication.expires_at_ms, now_ms),
            publication,
            layouts: [None, None, None, None],
        }
    }

    pub(crate) fn of_message(message: &'a Arc<Message>, receivers: usize, now_ms: u64) -> Self {
        Self::new(message.publication(), Some(Arc::clone(message)), receivers, now_ms)
    }

    /// QoS of the publish.
    pub(crate) fn qos(&self) -> QoS {
        self.publication.qos
    }

    /// RETAIN flag of the publish.
    pub(crate) fn retain(&self) -> bool {
        self.publication.retain
    }

    pub(crate) fn topic(&self) -> &'a str {
        self.publication.topic
    }

    /// Client Identifier of the client that published it.
    fn publisher(&self) -> Option<&'a str> {
        self.publication.publisher.map(|publisher| &*publisher.client_id)
    }

    pub(crate) fn payload(&self) -> &'a [u8] {
        self.publication.payload
    }

    /// Whether receivers point at one copy of the payload instead of copying it.
    pub(crate) fn shares_payload(&self) -> bool {
        self.shares_payload
    }

    /// When the fan-out began, on the broker's clock.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Whether there is one receiver only: its packet is encoded in place, without a layout to copy.
    pub(crate) fn is_single(&self) -> bool {
        self.is_single
    }

    /// The message as something that can be kept.
    pub(crate) fn message(&mut self) -> &Arc<Message> {
        self.owned.get_or_insert_with(|| self.publication.to_message())
    }

    pub(crate) fn outgoing(&self) -> Outgoing<'a> {
        Outgoing {
            topic: self.publication.topic,
            payload: self.publication.payload,
            forward: self.publication.properties,
            message_expiry_interval_s: self.remaining_s,
        }
    }

    /// The encoded header for receivers of this kind; `None` if the message can't be encoded for them.
    pub(crate) fn layout(&mut self, version: ProtocolVersion, has_id: bool) -> Option<&PublishLayout> {
        let outgoing = self.outgoing();
        let place = usize::from(version.has_properties()) * 2 + usize::from(has_id);
        let slot = self.layouts.get_mut(place)?;
        if slot.is_none() {
            let scratch = SCRATCH.with_borrow_mut(Vec::pop).unwrap_or_default();
            *slot = PublishLayout::new(version, has_id, &outgoing, scratch).ok();
        }
        slot.as_ref()
    }
}

impl Drop for Fanout<'_> {
    fn drop(&mut self) {
        for layout in self.layouts.iter_mut().filter_map(Option::take) {
            SCRATCH.with_borrow_mut(|scratch| {
                if scratch.len() < 8 {
                    scratch.push(layout.into_scratch());
                }
            });
        }
    }
}

/// Whole PUBLISH frames of one topic as a client sent them: QoS 0, not retained, without properties.
pub(crate) struct Frames<'a> {
    pub(crate) bytes: &'a [u8],
    /// Version that they are encoded in.
    pub(crate) version: ProtocolVersion,
    /// Length of the longest.
    pub(crate) longest: usize,
    pub(crate) count: u64,
    pub(crate) payload_bytes: u64,
    /// Topic Name of all of them.
    pub(crate) topic: &'a [u8],
    /// Has no handler and at most [`CHUNK`] receivers.
    pub(crate) route: Arc<Route>,
}

/// Hands frames on as they are; returns a receiver that is behind.
pub(crate) fn forward(
    shared: &Shared,
    frames: &Frames<'_>,
    publisher: &Arc<Publisher>,
    now: Now,
) -> Option<Arc<Session>> {
    let limits = &shared.config.limits;
    let route = &frames.route;
    let mut slow = None;
    let mut delivered = 0;
    let mut payload_bytes = 0;
    let (mut dropped, mut behind) = (0, 0);
    // Those that were handed on one by one.
    let mut singly = (0, 0);
    let mut one_by_one = |fanout: &mut Fanout<'_>, result| match result {
        Delivered::Dropped(reason) => {
            dropped += u64::from(reason != DropReason::Offline);
            shared.metrics.dropped(reason);
        }
        Delivered::Sent
        | Delivered::Queued
        | Delivered::QueuedDroppingOldest
        | Delivered::OnDisk
        | Delivered::Known => {
            let payload_bytes = fanout.payload().len() as u64;
            singly = (singly.0 + 1, singly.1 + payload_bytes);
            tally(|tally| tally.delivered(QoS::AtMostOnce, 1, payload_bytes));
        }
    };
    for receiver in &route.receivers {
        let Some(granted) = receiver.granted(Some(&publisher.client_id)) else { continue };
        let mut session = receiver.session.lock();
        if session.ended || !session.state.is_online() {
            continue;
        }
        if !granted.identifiers.is_empty() || !session.state.takes_frames(frames.version, frames.longest) {
            let grant = Grant {
                qos: QoS::AtMostOnce,
                retain: false,
                identifiers: &granted.identifiers,
                group: None,
                place: 0,
            };
            each_message(shared, frames, publisher, now, |fanout| {
                let result = session.state.deliver(fanout, grant, limits);
                one_by_one(fanout, result);
            });
        } else if session.state.out.len() > limits.max_outbound_bytes as usize {
            shared.metrics.dropped_slow_consumer.add(frames.count);
            behind += frames.count;
        } else {
            session.state.out.buffer().extend_from_slice(frames.bytes);
            sent(PacketType::Publish, frames.count);
            delivered += frames.count;
            payload_bytes += frames.payload_bytes;
        }
        session.wake_to_write();
        if slow.is_none() && session.state.is_backlogged(limits) {
            slow = Some(Arc::clone(&receiver.session));
        }
    }
    for group in &route.groups {
        each_message(shared, frames, publisher, now, |fanout| {
            let result = group.deliver(shared, fanout, 0);
            one_by_one(fanout, result);
        });
    }
    if !is_matched(route) {
        shared.metrics.messages_unmatched.add(frames.count);
    }
    tally(|tally| {
        tally.matched(if is_matched(route) { frames.count } else { 0 });
        tally.delivered(QoS::AtMostOnce, delivered, payload_bytes);
    });
    shared.heavy.see(frames.topic, Some(&publisher.client_id), frames.count, now.mono_ms);
    for meter in &route.meters {
        meter.receive(frames.count, frames.payload_bytes);
        meter.deliver(delivered + singly.0, payload_bytes + singly.1, dropped + behind);
    }
    slow
}

/// Decodes frames that were checked already.
fn each_message(
    shared: &Shared,
    frames: &Frames<'_>,
    publisher: &Arc<Publisher>,
    now: Now,
    mut deliver: impl FnMut(&mut Fanout<'_>),
) {
    let mut rest = frames.bytes;
    while let Ok(FrameStatus::Complete(frame)) = mqtt_protocol::frame(rest, u32::MAX)
        && let Ok(publish) = Publish::decode(&frame, frames.version)
    {
        let publication = Publication {
            id: shared.next_message_id(),
            namespace: 0,
            topic: publish.topic,
            payload: publish.payload,
            qos: QoS::AtMostOnce,
            retain: false,
            properties: &[],
            expires_at_ms: None,
            received_at_ms: now.wall_ms,
            publisher: Some(publisher),
            trail: &Trail::default(),
            trace: None,
        };
        deliver(&mut Fanout::new(publication, None, 1, now.mono_ms));
        rest = rest.get(frame.len..).unwrap_or_default();
        if rest.is_empty() {
            return;
        }
    }
}

/// Serves up to [`CHUNK`] receivers from `next` on, and the groups after the last; returns where to go on.
pub(super) fn fan_out(
    shared: &Shared,
    fanout: &mut Fanout<'_>,
    route: &Route,
    places: &Places,
    next: usize,
    slow: &mut Option<Arc<Session>>,
) -> usize {
    let payload_bytes = fanout.payload().len() as u64;
    if next == 0 {
        shared.watchers.show(fanout);
        shared.heavy.see(fanout.topic().as_bytes(), fanout.publisher(), 1, fanout.now_ms);
        route.meters.iter().for_each(|meter| meter.receive(1, payload_bytes));
    }
    let limits = &shared.config.limits;
    let publisher = fanout.publisher();
    let published = fanout.publication.qos;
    let published_retain = fanout.publication.retain;
    let (mut delivered, mut dropped) = (0, 0);
    let mut count = |qos, result| match result {
        Delivered::Sent
        | Delivered::Queued
        | Delivered::QueuedDroppingOldest
        | Delivered::OnDisk
        | Delivered::Known => {
            delivered += 1;
            tally(|tally| tally.delivered(qos, 1, payload_bytes));
        }
        Delivered::Dropped(reason) => {
            dropped += u64::from(reason != DropReason::Offline);
            shared.metrics.dropped(reason);
        }
    };
    let reached = route.receivers.len().min(next + CHUNK);
    for (number, receiver) in route.receivers.iter().enumerate().take(reached).skip(next) {
        let Some(granted) = receiver.granted(publisher) else { continue };
        let mut grant = Grant {
            qos: granted.qos.min(published),
            retain: published_retain && granted.retain_as_published,
            identifiers: &granted.identifiers,
            group: None,
            place: Places::find(&places.receivers, number),
        };
        let mut session = receiver.session.lock();
        if session.ended
            || (grant.qos > QoS::AtMostOnce && !session.state.is_online() && !session.is_durable())
        {
            continue;
        }
        if grant.qos > QoS::AtMostOnce
            && grant.place == 0
            && session.is_recorded
            && session.state.permits(fanout.publication.topic)
        {
            // It was put on record, or given the right, after the message was admitted.
            grant.place = adopt(shared, &fanout.publication, &receiver.session, &grant);
        }
        let result = session.state.deliver(fanout, grant, limits);
        count(grant.qos, result);
        if session.state.has_notes() && !session.state.is_online() {
            // No connection does it.
            shared.record(&receiver.session, &mut session);
        }
        if result == Delivered::OnDisk {
            shared.read_backlog(&receiver.session, &mut session);
        }
        session.wake_to_write();
        if slow.is_none() && session.state.is_backlogged(limits) {
            *slow = Some(Arc::clone(&receiver.session));
        }
    }
    if reached == route.receivers.len() {
        for (number, group) in route.groups.iter().enumerate() {
            // Which of its members takes it, and how, shows later.
            count(published, group.deliver(shared, fanout, Places::find(&places.groups, number)));
        }
        if is_matched(route) {
            tally(|tally| tally.matched(1));
        } else {
            shared.metrics.messages_unmatched.add(1);
        }
    }
    for meter in &route.meters {
        meter.deliver(delivered, delivered * payload_bytes, dropped);
    }
    reached
}
