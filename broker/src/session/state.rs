//! The outbound half of a session, and the identifiers of its inbound QoS 2 publishes: a state machine without I/O.
//!
//! Inputs are deliveries, acknowledgements, connects and disconnects, each with the time where it matters; the effect
//! of each is packets appended to [`SessionState::out`] and a small answer. Nothing here knows sockets, locks or
//! clocks, so that it can be run against a model over a lossy link.
//!
//! Invariants:
//! - Messages leave in the order in which they were delivered to the session; after a reconnect everything that is
//!   unacknowledged is sent again first, in its first order, with its own Packet Identifier [MQTT-4.4.0-1, v5].
//! - At most `window` messages are sent and unacknowledged on a connection (the client's Receive Maximum and our own
//!   limit); the others wait in the queue.
//! - The queue is bounded by messages and bytes; what it can't take is dropped by the named policy and counted.

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::Arc;

use mqtt_protocol::{
    AliasUse, Outgoing, PacketId, ProtocolVersion, QoS, ReasonCode, encode_publish, encode_pubrel,
};

use store::CommitToken;

use super::inflight::{Entry, Extra, Inflight, Stage};
use crate::config::{Limits, QueuePolicy};
use crate::dispatch::Fanout;
use crate::message::Message;
use crate::outbound::Outbound;
use crate::subscriptions::Group;
use crate::subscriptions::compact_set::{CompactSet, Keyed};

/// Above this many bytes waiting for the socket, queued messages stay in the queue, and publishers pause.
pub(crate) const CONGESTED_BYTES: usize = 256 * 1024;

/// Retained Messages that are queued ahead of a client's window at most.
const RETAINED_AHEAD: usize = 256;

/// What a subscription grants to one message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grant<'a> {
    /// QoS of the delivery: the lower of the publish's and the subscription's.
    pub(crate) qos: QoS,
    /// RETAIN flag to send.
    pub(crate) retain: bool,
    /// Subscription Identifiers to send.
    pub(crate) identifiers: &'a [u32],
    /// The Shared Subscription it comes through.
    pub(crate) group: Option<&'a Arc<Group>>,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// Appended to `out`.
    Sent,
    /// In the queue.
    Queued,
    /// In the queue, whose oldest message was dropped for it.
    QueuedDroppingOldest,
    /// Not delivered.
    Dropped(DropReason),
}

/// Why a message wasn't delivered to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DropReason {
    /// QoS 0 and no connection.
    Offline,
    /// QoS 0 and too many bytes are waiting for the socket already.
    SlowConsumer,
    /// The queue is full.
    QueueFull,
    /// Larger than the client's Maximum Packet Size [MQTT-3.1.2-25, v5].
    TooLarge,
}

/// An acknowledgement that doesn't fit what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AckError {
    /// The identifier isn't in use.
    Unknown,
    /// The packet doesn't belong to this quality of service or stage: a Protocol Error.
    Unexpected,
}

/// What a client said in its CONNECT about what it can take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientLimits {
    pub(crate) version: ProtocolVersion,
    pub(crate) receive_maximum: u16,
    pub(crate) maximum_packet_size: u32,
    pub(crate) topic_alias_maximum: u16,
}

/// What became of an inbound QoS 2 publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// It isn't here.
    No,
    /// It is on its way to be admitted.
    NotAdmitted,
    /// Its record is safe with this token.
    SafeAt(CommitToken),
}

/// An inbound QoS 2 publish that isn't released yet.
#[derive(Debug, Clone, Copy)]
struct ReceivedId {
    id: PacketId,
    /// When its record is safe; `None`: it isn't admitted yet.
    token: Option<CommitToken>,
    /// It came on the connection of now, and counts against our Receive Maximum.
    counts: bool,
}

impl Keyed for ReceivedId {
    type Key = PacketId;
    fn key(&self) -> &PacketId {
        &self.id
    }
}

#[derive(Debug)]
struct Queued {
    message: Arc<Message>,
    qos: QoS,
    retain: bool,
    extra: Option<Box<Extra>>,
}

/// Topic Aliases that we use towards the client: the first topics get one each, for the life of the connection.
#[derive(Debug)]
struct Aliases {
    maximum: u16,
    given: std::collections::HashMap<Box<[u8]>, NonZeroU16, foldhash::fast::RandomState>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct SessionState {
    version: ProtocolVersion,
    online: bool,
    window: u16,
    maximum_packet_size: u32,
    /// Sent on this connection and unacknowledged.
    unacknowledged: u16,
    /// Entries of the window from this place on haven't been sent on this connection.
    resend_from: usize,
    inflight: Inflight,
    queue: VecDeque<Queued>,
    queued_bytes: u64,
    /// Bytes promised to publishes that are being admitted (policy `refuse`).
    reserved_bytes: u64,
    reserved_messages: u32,
    received: CompactSet<ReceivedId>,
    /// How many of them count against our Receive Maximum.
    received_counting: usize,
    /// Publishers waited for this client in vain: they don't again until it has caught up.
    is_hopeless: bool,
    aliases: Option<Box<Aliases>>,
    /// Packets for the client's socket.
    pub(crate) out: Outbound,
}

impl SessionState {
    pub(crate) fn new() -> Self {
        Self {
            version: ProtocolVersion::V5,
            online: false,
            window: 0,
            maximum_packet_size: u32::MAX,
            unacknowledged: 0,
            resend_from: 0,
            inflight: Inflight::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            reserved_bytes: 0,
            reserved_messages: 0,
            received: CompactSet::default(),
            received_counting: 0,
            is_hopeless: false,
            aliases: None,
            out: Outbound::default(),
        }
    }

    /// A connection takes the session on. Call [`SessionState::pump`] once its CONNACK is in `out`.
    pub(crate) fn connect(&mut self, client: ClientLimits, limits: &Limits) {
        self.version = client.version;
        self.online = true;
        self.window = client.receive_maximum.min(limits.max_inflight).max(1);
        self.maximum_packet_size = client.maximum_packet_size;
        self.unacknowledged = 0;
        self.resend_from = 0;
        self.is_hopeless = false;
        self.forget_counting();
        let maximum = client.topic_alias_maximum.min(limits.topic_alias_maximum);
        self.aliases =
            (maximum > 0).then(|| Box::new(Aliases { maximum, given: std::collections::HashMap::default() }));
        self.out.clear();
    }

    /// The connection is gone. QoS 0 packets that weren't written are lost with it.
    pub(crate) fn disconnect(&mut self) {
        self.online = false;
        self.unacknowledged = 0;
        self.resend_from = 0;
        self.aliases = None;
        self.out.clear();
    }

    pub(crate) fn is_online(&self) -> bool {
        self.online
    }

    /// Whether so much waits for the socket that publishers should pause.
    pub(crate) fn is_congested(&self) -> bool {
        self.out.len() > CONGESTED_BYTES
    }

    /// Whether the publishers of QoS 1 and 2 messages should pause: the queue of a live connection is filling.
    pub(crate) fn is_backlogged(&self, limits: &Limits) -> bool {
        self.online && !self.is_hopeless && self.is_behind(limits, 2)
    }

    /// Whether more than one part in `parts` of what may wait is waiting.
    fn is_behind(&self, limits: &Limits, parts: u32) -> bool {
        self.out.len() > CONGESTED_BYTES * 2 / parts as usize
            || self.queue.len() > (limits.max_queued_messages / parts) as usize
            || self.queued_bytes > limits.max_queued_bytes / u64::from(parts)
    }

    /// A publisher waited as long as it may.
    pub(crate) fn give_up_waiting(&mut self) {
        self.is_hopeless = true;
    }

    /// Whether the client has caught up so far that publishers may go on, and wait for it again.
    pub(crate) fn catches_up(&mut self, limits: &Limits) -> bool {
        let caught_up = !self.is_behind(limits, 4);
        self.is_hopeless &= !caught_up;
        caught_up
    }

    /// Whether messages that aren't urgent (retained ones) may be delivered without piling up.
    pub(crate) fn takes_more(&self) -> bool {
        self.online && self.out.len() < CONGESTED_BYTES / 2 && self.queue.len() < RETAINED_AHEAD
    }

    /// Messages waiting in the queue and their bytes.
    #[cfg(test)]
    pub(crate) fn queued(&self) -> (usize, u64) {
        (self.queue.len(), self.queued_bytes)
    }

    /// Messages sent and not yet acknowledged.
    #[cfg(test)]
    pub(crate) fn inflight(&self) -> usize {
        self.inflight.len()
    }

    /// Whether QoS 0 frames of this version, the longest of this length, can be handed on as they are.
    pub(crate) fn takes_frames(&self, version: ProtocolVersion, longest: usize) -> bool {
        self.version.has_properties() == version.has_properties()
            && self.aliases.is_none()
            && longest <= self.maximum_packet_size as usize
    }

    /// Whether a QoS 1 or 2 message could be sent right now. What a Shared Subscription's group asks.
    pub(crate) fn has_room(&self) -> bool {
        self.online && self.window_is_open() && self.queue.is_empty() && !self.is_congested()
    }

    fn window_is_open(&self) -> bool {
        self.unacknowledged < self.window
            && self.resend_from >= self.inflight.len()
            && self.inflight.next_id().is_some()
    }

    /// Reserves room in the queue for one message of this size (policy `refuse`); `false` when there is none.
    pub(crate) fn reserve(&mut self, bytes: usize, limits: &Limits) -> bool {
        let messages = self.queue.len() + self.reserved_messages as usize + 1;
        let bytes = bytes as u64;
        if messages > limits.max_queued_messages as usize
            || self.queued_bytes + self.reserved_bytes + bytes > limits.max_queued_bytes
        {
            return false;
        }
        self.reserved_messages += 1;
        self.reserved_bytes += bytes;
        true
    }

    /// Gives a reservation back: its message is delivered now, or isn't going to be.
    pub(crate) fn release(&mut self, bytes: usize) {
        self.reserved_messages = self.reserved_messages.saturating_sub(1);
        self.reserved_bytes = self.reserved_bytes.saturating_sub(bytes as u64);
    }

    /// Delivers one message: sends it, queues it, or says why not.
    pub(crate) fn deliver(
        &mut self,
        fanout: &mut Fanout<'_>,
        grant: Grant<'_>,
        limits: &Limits,
    ) -> Delivered {
        if grant.qos == QoS::AtMostOnce {
            if !self.online {
                return Delivered::Dropped(DropReason::Offline);
            }
            if self.out.len() > limits.max_outbound_bytes as usize {
                return Delivered::Dropped(DropReason::SlowConsumer);
            }
            return match self.send_fanout(fanout, &grant, None) {
                Ok(()) => Delivered::Sent,
                Err(TooLarge) => Delivered::Dropped(DropReason::TooLarge),
            };
        }
        if self.has_room()
            && let Some(id) = self.inflight.next_id()
        {
            if self.send_fanout(fanout, &grant, Some(id)).is_err() {
                return Delivered::Dropped(DropReason::TooLarge);
            }
            let message = Arc::clone(fanout.message());
            self.sent(message, grant.qos, grant.retain, extra(grant.identifiers, grant.group));
            return Delivered::Sent;
        }
        let message = fanout.message();
        let size = message.size() as u64;
        if size > limits.max_queued_bytes {
            return Delivered::Dropped(DropReason::QueueFull);
        }
        let mut dropped = false;
        while self.queue.len() >= limits.max_queued_messages as usize
            || self.queued_bytes + size > limits.max_queued_bytes
        {
            if limits.max_queued_policy == QueuePolicy::Refuse {
                // Admission has made sure of the room; it was only taken meanwhile, by a message or two.
                break;
            }
            if self.pop_queued().is_none() {
                return Delivered::Dropped(DropReason::QueueFull);
            }
            dropped = true;
        }
        self.queued_bytes += size;
        self.queue.push_back(Queued {
            message: Arc::clone(message),
            qos: grant.qos,
            retain: grant.retain,
            extra: extra(grant.identifiers, grant.group),
        });
        if dropped { Delivered::QueuedDroppingOldest } else { Delivered::Queued }
    }

    fn pop_queued(&mut self) -> Option<Queued> {
        let queued = self.queue.pop_front()?;
        self.queued_bytes = self.queued_bytes.saturating_sub(queued.message.size() as u64);
        if self.queue.is_empty() && self.queue.capacity() > 64 {
            self.queue = VecDeque::new();
        }
        Some(queued)
    }

    fn sent(&mut self, message: Arc<Message>, qos: QoS, retain: bool, extra: Option<Box<Extra>>) {
        let stage = match qos {
            QoS::ExactlyOnce => Stage::AwaitPubrec(message),
            QoS::AtLeastOnce | QoS::AtMostOnce => Stage::AwaitPuback(message),
        };
        self.inflight.push(Entry { stage, retain, extra });
        self.resend_from = self.inflight.len();
        self.unacknowledged += 1;
    }

    /// Sends what the window and the socket's buffer allow: first again what is unacknowledged, then from the queue.
    /// Returns how many queued messages had expired or were too large for the client.
    pub(crate) fn pump(&mut self, now_ms: u64) -> u64 {
        let mut dropped = 0;
        if !self.online {
            return dropped;
        }
        while self.resend_from < self.inflight.len() && !self.is_congested() {
            if !self.resend(now_ms) {
                return dropped;
            }
        }
        while !self.queue.is_empty() && self.window_is_open() && !self.is_congested() {
            let Some(id) = self.inflight.next_id() else { break };
            let Some(queued) = self.pop_queued() else { break };
            if queued.message.is_expired(now_ms) {
                dropped += 1;
                continue;
            }
            let identifiers = queued.extra.as_ref().map(|extra| &*extra.identifiers).unwrap_or_default();
            let header = Header { qos: queued.qos, retain: queued.retain, dup: false, id: Some(id) };
            if self.send_message(&queued.message, header, identifiers, now_ms).is_err() {
                dropped += 1;
                continue;
            }
            self.sent(queued.message, queued.qos, queued.retain, queued.extra);
        }
        dropped
    }

    /// Sends the next entry of the window again; `false` when it has to wait for an acknowledgement.
    fn resend(&mut self, now_ms: u64) -> bool {
        let Some((id, entry)) = self.inflight.at(self.resend_from) else { return false };
        let (qos, message) = match &entry.stage {
            Stage::Done => {
                self.resend_from += 1;
                return true;
            }
            Stage::AwaitPubcomp => {
                encode_pubrel(self.out.buffer(), self.version, id, ReasonCode::Success);
                self.resend_from += 1;
                self.unacknowledged += 1;
                return true;
            }
            Stage::AwaitPuback(message) => (QoS::AtLeastOnce, Arc::clone(message)),
            Stage::AwaitPubrec(message) => (QoS::ExactlyOnce, Arc::clone(message)),
        };
        if self.unacknowledged >= self.window {
            return false;
        }
        let identifiers = entry.identifiers().to_vec();
        let header = Header { qos, retain: entry.retain, dup: true, id: Some(id) };
        let place = self.resend_from;
        if self.send_message(&message, header, &identifiers, now_ms).is_ok() {
            self.resend_from += 1;
            self.unacknowledged += 1;
        } else {
            // Larger than this connection takes: discarded as if it had been acknowledged [MQTT-3.1.2-25, v5].
            let gone = self.inflight.finish(place);
            self.resend_from = (place + 1).saturating_sub(gone);
        }
        true
    }

    /// PUBACK.
    pub(crate) fn puback(&mut self, id: PacketId) -> Result<(), AckError> {
        let place = self.inflight.place_of(id).ok_or(AckError::Unknown)?;
        match self.inflight.stage_mut(place) {
            Some(Stage::AwaitPuback(_)) => {
                self.finish(place);
                Ok(())
            }
            Some(Stage::Done) | None => Err(AckError::Unknown),
            Some(Stage::AwaitPubrec(_) | Stage::AwaitPubcomp) => Err(AckError::Unexpected),
        }
    }

    /// PUBREC; answers with PUBREL. An error code ends the delivery instead [MQTT-4.3.3-4, v5].
    pub(crate) fn pubrec(&mut self, id: PacketId, is_error: bool) -> Result<(), AckError> {
        let place = self.inflight.place_of(id);
        match place.and_then(|place| self.inflight.stage_mut(place)) {
            Some(stage @ Stage::AwaitPubrec(_)) => {
                if is_error {
                    self.finish(place.unwrap_or_default());
                } else {
                    *stage = Stage::AwaitPubcomp;
                    encode_pubrel(self.out.buffer(), self.version, id, ReasonCode::Success);
                }
                Ok(())
            }
            Some(Stage::AwaitPubcomp) if !is_error => {
                encode_pubrel(self.out.buffer(), self.version, id, ReasonCode::Success);
                Ok(())
            }
            Some(Stage::AwaitPubcomp | Stage::Done) | None => {
                if !is_error {
                    encode_pubrel(self.out.buffer(), self.version, id, ReasonCode::PacketIdentifierNotFound);
                }
                Err(AckError::Unknown)
            }
            Some(Stage::AwaitPuback(_)) => Err(AckError::Unexpected),
        }
    }

    /// PUBCOMP.
    pub(crate) fn pubcomp(&mut self, id: PacketId) -> Result<(), AckError> {
        let place = self.inflight.place_of(id).ok_or(AckError::Unknown)?;
        match self.inflight.stage_mut(place) {
            Some(Stage::AwaitPubcomp) => {
                self.finish(place);
                Ok(())
            }
            Some(Stage::Done) | None => Err(AckError::Unknown),
            Some(Stage::AwaitPuback(_) | Stage::AwaitPubrec(_)) => Err(AckError::Unexpected),
        }
    }

    fn finish(&mut self, place: usize) {
        if place < self.resend_from {
            self.unacknowledged = self.unacknowledged.saturating_sub(1);
        }
        let gone = self.inflight.finish(place);
        self.resend_from = self.resend_from.saturating_sub(gone);
    }

    /// Notes an inbound QoS 2 publish. `false`: its first copy is here already.
    pub(crate) fn receive(&mut self, id: PacketId) -> bool {
        let first = self.received.find(&id).copied();
        let counted = first.is_some_and(|first| first.counts);
        self.received_counting += usize::from(!counted);
        let token = first.and_then(|first| first.token);
        self.received.insert(ReceivedId { id, token, counts: true });
        first.is_none()
    }

    /// The publish is admitted: its record is safe with this token.
    pub(crate) fn admit_received(&mut self, id: PacketId, token: CommitToken) {
        if let Some(received) = self.received.find(&id).copied() {
            self.received.insert(ReceivedId { token: Some(token), ..received });
        }
    }

    /// When the record of an inbound QoS 2 publish is safe.
    pub(crate) fn received_token(&self, id: PacketId) -> Received {
        match self.received.find(&id) {
            None => Received::No,
            Some(ReceivedId { token: None, .. }) => Received::NotAdmitted,
            Some(ReceivedId { token: Some(token), .. }) => Received::SafeAt(*token),
        }
    }

    /// PUBREL, or the publish was refused: the identifier is free again. `false` when it wasn't in use.
    pub(crate) fn release_received(&mut self, id: PacketId) -> bool {
        let removed = self.received.remove(&id);
        self.received_counting -= usize::from(removed.is_some_and(|removed| removed.counts));
        removed.is_some()
    }

    /// Whether an inbound QoS 2 publish of this identifier isn't released.
    pub(crate) fn has_received(&self, id: PacketId) -> bool {
        self.received.find(&id).is_some()
    }

    /// Inbound QoS 2 publishes of this connection that aren't released.
    pub(crate) fn received_len(&self) -> usize {
        self.received_counting
    }

    /// Another connection begins: what came on the one before doesn't count against its Receive Maximum (MQTT 5.0 §4.9).
    fn forget_counting(&mut self) {
        if self.received_counting > 0 {
            let all: Vec<_> = self.received.iter().copied().collect();
            for received in all {
                self.received.insert(ReceivedId { counts: false, ..received });
            }
            self.received_counting = 0;
        }
    }

    /// Takes out the unacknowledged QoS 1 messages of Shared Subscriptions, sent or queued, for other members.
    /// QoS 2 messages that were sent stay [MQTT-4.8.2-4, MQTT-4.8.2-5, v5].
    pub(crate) fn take_shared(&mut self) -> Vec<(Arc<Group>, Arc<Message>)> {
        let before = self.inflight.len();
        let mut taken = self.inflight.take_shared();
        self.resend_from = self.resend_from.saturating_sub(before - self.inflight.len());
        let mut kept = VecDeque::new();
        for queued in std::mem::take(&mut self.queue) {
            match queued.extra.as_ref().and_then(|extra| extra.group.clone()) {
                Some(group) => {
                    self.queued_bytes = self.queued_bytes.saturating_sub(queued.message.size() as u64);
                    taken.push((group, queued.message));
                }
                None => kept.push_back(queued),
            }
        }
        self.queue = kept;
        taken
    }

    /// Encodes a message that is being fanned out, from its cached layout where nothing is special about the receiver.
    fn send_fanout(
        &mut self,
        fanout: &mut Fanout<'_>,
        grant: &Grant<'_>,
        id: Option<PacketId>,
    ) -> Result<(), TooLarge> {
        if fanout.is_single() || self.aliases.is_some() || !grant.identifiers.is_empty() {
            let header = Header { qos: grant.qos, retain: grant.retain, dup: false, id };
            let message = fanout.shares_payload().then(|| Arc::clone(fanout.message()));
            let outgoing = fanout.outgoing();
            return self.send_special(&outgoing, header, grant.identifiers, message.as_ref());
        }
        let shared = fanout.shares_payload().then(|| Arc::clone(fanout.message()));
        let layout = fanout.layout(self.version, id.is_some()).ok_or(TooLarge)?;
        if layout.packet_len() > self.maximum_packet_size as usize {
            return Err(TooLarge);
        }
        layout.append_header(self.out.buffer(), grant.qos, grant.retain, false, id);
        match shared {
            Some(message) => self.out.share_payload(&message),
            None => {
                let payload = fanout.payload();
                self.out.buffer().extend_from_slice(payload);
            }
        }
        Ok(())
    }

    fn send_message(
        &mut self,
        message: &Arc<Message>,
        header: Header,
        identifiers: &[u32],
        now_ms: u64,
    ) -> Result<(), TooLarge> {
        let outgoing = Outgoing {
            topic: message.topic(),
            payload: message.payload(),
            forward: message.properties(),
            message_expiry_interval_s: remaining_s(message.expires_at_ms(), now_ms),
        };
        let share = message.payload().len() >= crate::outbound::SHARE_ALWAYS_BYTES;
        self.send_special(&outgoing, header, identifiers, share.then_some(message))
    }

    /// Encodes one packet from scratch, with alias and Subscription Identifiers. A payload is copied unless `shared`.
    fn send_special(
        &mut self,
        outgoing: &Outgoing<'_>,
        header: Header,
        identifiers: &[u32],
        shared: Option<&Arc<Message>>,
    ) -> Result<(), TooLarge> {
        let mut fresh_alias = None;
        let alias = match self.aliases.as_deref_mut() {
            None => None,
            Some(aliases) => match aliases.given.get(outgoing.topic.as_bytes()) {
                Some(alias) => Some((*alias, AliasUse::Replace)),
                None => {
                    let next =
                        u16::try_from(aliases.given.len() + 1).ok().filter(|next| *next <= aliases.maximum);
                    fresh_alias = next.and_then(NonZeroU16::new);
                    fresh_alias.map(|alias| (alias, AliasUse::Establish))
                }
            },
        };
        let identifiers = if self.version.has_properties() { identifiers } else { &[] };
        let buffer = self.out.buffer();
        let start = buffer.len();
        let encoded = encode_publish(
            buffer,
            self.version,
            outgoing,
            header.qos,
            header.retain,
            header.dup,
            header.id,
            alias,
            identifiers,
            shared.is_none(),
        );
        if !encoded.is_ok_and(|length| length <= self.maximum_packet_size as usize) {
            buffer.truncate(start);
            if fresh_alias.is_some()
                && let Some(aliases) = self.aliases.take()
            {
                // Naming an alias takes three bytes more than doing without.
                let result = self.send_special(outgoing, header, identifiers, shared);
                self.aliases = Some(aliases);
                return result;
            }
            return Err(TooLarge);
        }
        if let Some(message) = shared {
            self.out.share_payload(message);
        }
        if let (Some(alias), Some(aliases)) = (fresh_alias, self.aliases.as_deref_mut()) {
            aliases.given.insert(outgoing.topic.as_bytes().into(), alias);
        }
        Ok(())
    }
}

/// The fixed header's flags and the Packet Identifier.
#[derive(Debug, Clone, Copy)]
struct Header {
    qos: QoS,
    retain: bool,
    dup: bool,
    id: Option<PacketId>,
}

/// The packet is larger than the client takes.
#[derive(Debug)]
struct TooLarge;

fn extra(identifiers: &[u32], group: Option<&Arc<Group>>) -> Option<Box<Extra>> {
    (!identifiers.is_empty() || group.is_some())
        .then(|| Box::new(Extra { identifiers: identifiers.into(), group: group.cloned() }))
}

/// Seconds that a message still has to live, as it is forwarded [MQTT-3.3.2-6, v5]; at least 1 while it lives.
pub(crate) fn remaining_s(expires_at_ms: Option<u64>, now_ms: u64) -> Option<u32> {
    expires_at_ms.map(|at| u32::try_from(at.saturating_sub(now_ms).div_ceil(1000)).unwrap_or(u32::MAX))
}
