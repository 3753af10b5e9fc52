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
//! - For a session on record ([`SessionState::keep_records`]) what becomes of debts is noted ([`Note`]) for the store, and no
//!   packet of a QoS 2 exchange leaves before its note is safe. Its queue holds a head; the rest stays on disk ([`Backlog`]).

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::Arc;

use mqtt_protocol::{
    AliasUse, Outgoing, PacketId, PacketType, ProtocolVersion, QoS, ReasonCode, encode_publish,
};

use store::CommitToken;

use super::backlog::{Backlog, BacklogRead};
use super::inflight::{Entry, Extra, Inflight, Returned, Stage};
use super::memory::{QueuedBytes, QueuedMemory};
use crate::authorise::Guard;
use crate::config::{Limits, QueuePolicy};
use crate::dispatch::Fanout;
use crate::message::Message;
use crate::metrics::{sent, tally};
use crate::outbound::Outbound;
use crate::subscriptions::Group;
use crate::subscriptions::compact_set::{CompactSet, Keyed};

/// Above this many bytes waiting for the socket, queued messages stay in the queue, and publishers pause.
pub(crate) const CONGESTED_BYTES: usize = 256 * 1024;

/// Retained Messages that are queued ahead of a client's window at most.
const RETAINED_AHEAD: usize = 256;

/// The head of a queue whose rest is on disk: messages at most.
pub(crate) const HEAD_MESSAGES: usize = 1_024;

/// The same in bytes (topic, properties, payload), but for a single larger message.
pub(crate) const HEAD_BYTES: u64 = 1024 * 1024;

/// The token of what isn't appended yet.
const UNRECORDED: CommitToken = CommitToken(u64::MAX);

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
    /// The debt's place in the queue of the session or the group, 0 for none.
    pub(crate) place: u64,
}

/// Something that the store is to be told of a session.
#[derive(Debug)]
pub(crate) enum Note {
    /// A debt is paid or dropped: a group's, or the session's own.
    Settled { group: Option<Arc<Group>>, place: u64 },
    /// A debt is to be sent under this Packet Identifier at QoS 2.
    Sent { group: Option<Arc<Group>>, place: u64, id: PacketId },
    /// PUBREC came.
    AwaitsCompletion(PacketId),
    /// The exchange under this Packet Identifier is over.
    Completed(PacketId),
}

/// A debt that was read back.
#[derive(Debug)]
pub(crate) struct Debt {
    pub(crate) message: Arc<Message>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) identifiers: Vec<u32>,
    pub(crate) place: u64,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// Appended to `out`.
    Sent,
    /// In the queue.
    Queued,
    /// In the queue, whose oldest messages were dropped for it, and counted.
    QueuedDroppingOldest,
    /// Left on disk: the queue is behind.
    OnDisk,
    /// Nothing to do: it was read from the disk before it came.
    Known,
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
    /// All queues together have as much memory as they may.
    MemoryFull,
    /// Larger than the client's Maximum Packet Size [MQTT-3.1.2-25, v5].
    TooLarge,
    /// The client may not have it.
    NotAuthorized,
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
    place: u64,
    extra: Option<Box<Extra>>,
}

impl Queued {
    fn group(&self) -> Option<Arc<Group>> {
        self.extra.as_ref().and_then(|extra| extra.group.clone())
    }
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
    /// With as many bytes sent and unacknowledged the window is shut; the message that reaches them goes.
    window_bytes: u64,
    /// Sent on this connection and unacknowledged.
    unacknowledged: u16,
    /// Entries of the window from this place on haven't been sent on this connection.
    resend_from: usize,
    /// So many at the end of the window have never been sent.
    waiting: usize,
    inflight: Inflight,
    queue: VecDeque<Queued>,
    queued_bytes: QueuedBytes,
    /// The store knows of this session.
    is_recorded: bool,
    /// Its queue can be read back.
    can_stream: bool,
    backlog: Backlog,
    /// Bytes of what was left to the disk, about.
    disk_bytes: u64,
    notes: Vec<Note>,
    /// PUBRELs that wait for their notes to be safe.
    pubrels: VecDeque<PacketId>,
    /// [`SessionState::pump`] would find something to do.
    wants_turn: bool,
    /// Bytes promised to publishes that are being admitted (policy `refuse`).
    reserved_bytes: u64,
    reserved_messages: u32,
    received: CompactSet<ReceivedId>,
    /// How many of them count against our Receive Maximum.
    received_counting: usize,
    /// Publishers waited for this client in vain: they don't again until it has caught up.
    is_hopeless: bool,
    aliases: Option<Box<Aliases>>,
    /// Asks whether the client may have a message, where not all is allowed to it.
    pub(crate) guard: Option<Box<Guard>>,
    /// Packets for the client's socket.
    pub(crate) out: Outbound,
}

impl SessionState {
    /// A session without a connection, whose queue counts among those of `memory`.
    pub(crate) fn new(memory: &Arc<QueuedMemory>) -> Self {
        Self {
            version: ProtocolVersion::V5,
            online: false,
            window: 0,
            maximum_packet_size: u32::MAX,
            window_bytes: u64::MAX,
            unacknowledged: 0,
            resend_from: 0,
            waiting: 0,
            inflight: Inflight::new(),
            queue: VecDeque::new(),
            queued_bytes: QueuedBytes::new(memory),
            is_recorded: false,
            can_stream: false,
            backlog: Backlog::default(),
            disk_bytes: 0,
            notes: Vec::new(),
            pubrels: VecDeque::new(),
            wants_turn: false,
            reserved_bytes: 0,
            reserved_messages: 0,
            received: CompactSet::default(),
            received_counting: 0,
            is_hopeless: false,
            aliases: None,
            guard: None,
            out: Outbound::default(),
        }
    }

    /// A connection takes the session on. Call [`SessionState::pump`] once its CONNACK is in `out`.
    pub(crate) fn connect(&mut self, client: ClientLimits, limits: &Limits) {
        self.version = client.version;
        self.online = true;
        self.window = client.receive_maximum.min(limits.max_inflight).max(1);
        self.window_bytes = limits.max_inflight_bytes;
        self.maximum_packet_size = client.maximum_packet_size;
        self.begin_again();
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
        self.begin_again();
        self.aliases = None;
        self.guard = None;
        self.out.clear();
    }

    /// Nothing of the window was sent on the connection that begins.
    fn begin_again(&mut self) {
        self.unacknowledged = 0;
        self.resend_from = 0;
        self.waiting = 0;
        self.pubrels.clear();
    }

    /// The store knows of the session from here on, and its queue can be read back if it `can_stream`.
    pub(crate) fn keep_records(&mut self, can_stream: bool) {
        self.is_recorded = true;
        self.can_stream = can_stream;
    }

    /// The session is as it was found in the store: these debts are on disk, and these Packet Identifiers of inbound QoS 2
    /// publishes aren't released.
    pub(crate) fn restore(&mut self, backlog: Backlog, disk_bytes: u64, received: &[PacketId]) {
        self.backlog = backlog;
        self.disk_bytes = disk_bytes;
        for id in received {
            self.received.insert(ReceivedId {
                id: *id,
                token: Some(CommitToken::NOTHING_OWED),
                counts: false,
            });
        }
    }

    /// The window is as it was found in the store; see [`Inflight::restored`].
    pub(crate) fn restore_window(&mut self, entries: Vec<(PacketId, Entry)>, between: Vec<Entry>) {
        self.inflight = Inflight::restored(entries, between);
        for entry in self.inflight.iter().filter(|entry| entry.place != 0 && entry.group().is_none()) {
            self.backlog.hold(entry.place);
        }
        self.begin_again();
    }

    /// Takes what is to be told to the store. [`SessionState::noted`] says when it is safe.
    pub(crate) fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    pub(crate) fn has_notes(&self) -> bool {
        !self.notes.is_empty()
    }

    /// The store didn't take these notes: they are to be offered again.
    pub(crate) fn put_notes_back(&mut self, mut notes: Vec<Note>) {
        notes.append(&mut self.notes);
        self.notes = notes;
    }

    /// These notes are safe with this token.
    pub(crate) fn noted(&mut self, notes: &[Note], token: CommitToken) {
        for note in notes {
            if let Note::Sent { id, .. } | Note::AwaitsCompletion(id) = note
                && let Some(entry) = self.inflight.place_of(*id).and_then(|place| self.inflight.at_mut(place))
                && entry.safe_at == UNRECORDED
            {
                entry.safe_at = token;
                self.wants_turn = true;
            }
        }
    }

    /// What has to be safe before the next packet can leave.
    pub(crate) fn awaited(&self) -> Option<CommitToken> {
        if !self.online {
            return None;
        }
        let pubrel = self.pubrels.front().and_then(|id| self.inflight.place_of(*id));
        let next = (self.resend_from < self.inflight.len()).then_some(self.resend_from);
        [pubrel, next]
            .into_iter()
            .flatten()
            .filter_map(|place| Some(self.inflight.at(place)?.1.safe_at))
            .filter(|token| *token != CommitToken::NOTHING_OWED && *token != UNRECORDED)
            .min()
    }

    /// Whether the connection has reason to look here.
    pub(crate) fn wants_turn(&self) -> bool {
        self.wants_turn || !self.out.is_empty()
    }

    /// Notes that a debt is paid or given up.
    fn settle(&mut self, group: Option<Arc<Group>>, place: u64) {
        if place != 0 {
            if let Some(group) = &group {
                group.settled(place);
            }
            self.notes.push(Note::Settled { group, place });
        }
    }

    /// Whether debts are on disk that have to be read before newer ones may be taken.
    pub(crate) fn is_behind_on_disk(&self) -> bool {
        self.backlog.is_behind()
    }

    /// Begins to read debts back, if there are any on disk and it is time: the client is there and has taken most of the
    /// head, or there are more than may be, and the oldest are to be dropped.
    pub(crate) fn begin_read(&mut self, limits: &Limits) -> Option<BacklogRead> {
        let is_wanted = self.online
            && self.queue.len() < HEAD_MESSAGES / 2
            && self.queued_bytes.get() < HEAD_BYTES / 2
            && (self.queue.is_empty() || !self.queued_bytes.memory_is_full(HEAD_BYTES / 2))
            || self.queue.is_empty() && self.is_over(0, limits);
        if is_wanted { self.backlog.begin_read() } else { None }
    }

    /// A debt was read back.
    pub(crate) fn arrive(&mut self, debt: Debt) {
        let size = debt.message.size() as u64;
        if !self.backlog.take(debt.place) {
            return;
        }
        self.disk_bytes = self.disk_bytes.saturating_sub(size);
        self.queued_bytes.add(size);
        self.queue.push_back(Queued {
            message: debt.message,
            qos: debt.qos,
            retain: debt.retain,
            place: debt.place,
            extra: extra(&debt.identifiers, None),
        });
        self.wants_turn = true;
    }

    /// The read is over. Returns how many of the oldest messages were dropped because there were more than may be.
    pub(crate) fn end_read(&mut self, read: BacklogRead, found_nothing: bool, limits: &Limits) -> u64 {
        self.backlog.end_read(read, found_nothing);
        if !self.backlog.is_behind() {
            self.disk_bytes = 0;
        }
        self.drop_oldest(0, limits)
    }

    /// Whether one more message of this size would be more than may be queued.
    fn is_over(&self, size: u64, limits: &Limits) -> bool {
        let messages = self.queue.len() + usize::from(size > 0);
        // What is on disk is bounded by its bytes alone.
        (!self.can_stream && messages > limits.max_queued_messages as usize)
            || self.queued_bytes.get() + self.disk_bytes + size > limits.max_queued_bytes
            // What can go to the disk goes there instead.
            || (!self.can_stream && size > 0 && self.queued_bytes.memory_is_full(size))
    }

    /// Drops the oldest messages until one of this size fits, as far as they are in memory. Returns how many.
    fn drop_oldest(&mut self, size: u64, limits: &Limits) -> u64 {
        let mut dropped = 0;
        while limits.max_queued_policy == QueuePolicy::DropOldest && self.is_over(size, limits) {
            let Some(oldest) = self.pop_queued() else { break };
            self.settle(oldest.group(), oldest.place);
            dropped += 1;
        }
        dropped
    }

    /// Whether the head of the queue takes another message of this size.
    fn head_has_room(&self, size: u64) -> bool {
        self.queue.is_empty()
            || (self.queue.len() < HEAD_MESSAGES
                && self.queued_bytes.get() + size <= HEAD_BYTES
                && !self.queued_bytes.memory_is_full(size))
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
            // What goes on to the disk holds nobody up.
            || (!self.can_stream
                && (self.queue.len() > (limits.max_queued_messages / parts) as usize
                    || self.queued_bytes.get() > limits.max_queued_bytes / u64::from(parts)))
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
    pub(crate) fn queued(&self) -> (usize, u64) {
        (self.queue.len(), self.queued_bytes.get())
    }

    /// Messages that the client hasn't confirmed and now never will: those in the queue, and those that it doesn't have yet for
    /// all that is known. What is on disk alone isn't among them.
    pub(crate) fn unconfirmed(&self) -> u64 {
        let under_way = self
            .inflight
            .iter()
            .filter(|entry| matches!(entry.stage, Stage::AwaitPuback(_) | Stage::AwaitPubrec(_)));
        (self.queue.len() + under_way.count()) as u64
    }

    /// When the message that has waited longest in the queue was received, milliseconds since the epoch.
    pub(crate) fn oldest_received_at_ms(&self) -> Option<i64> {
        self.queue.front().map(|queued| queued.message.publication().received_at_ms)
    }

    /// Messages sent and not yet acknowledged.
    pub(crate) fn inflight(&self) -> usize {
        self.inflight.len()
    }

    /// Bytes of what was left to the disk, about.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.disk_bytes
    }

    /// Version of the protocol on the connection.
    pub(crate) fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// Whether QoS 0 frames of this version, the longest of this length, can be handed on as they are.
    pub(crate) fn takes_frames(&self, version: ProtocolVersion, longest: usize) -> bool {
        self.version.has_properties() == version.has_properties()
            && self.aliases.is_none()
            && self.guard.is_none()
            && longest <= self.maximum_packet_size as usize
    }

    /// Whether a QoS 1 or 2 message could be sent right now. What a Shared Subscription's group asks.
    pub(crate) fn has_room(&self) -> bool {
        self.online
            && self.window_is_open()
            && self.queue.is_empty()
            && !self.backlog.is_behind()
            && !self.is_congested()
    }

    /// Whether another message may get a Packet Identifier: everything of earlier connections was sent again, and the client
    /// takes one more.
    fn window_is_open(&self) -> bool {
        self.window_takes_one() && self.inflight.bytes() < self.window_bytes
    }

    /// The same, whatever bytes are under way.
    fn window_takes_one(&self) -> bool {
        usize::from(self.unacknowledged) + self.waiting < usize::from(self.window)
            && self.resend_from + self.waiting >= self.inflight.len()
            && self.inflight.next_id().is_some()
    }

    /// Reserves room in the queue for one message of this size (policy `refuse`); `false` when there is none.
    pub(crate) fn reserve(&mut self, bytes: usize, limits: &Limits) -> bool {
        let messages = self.queue.len() + self.reserved_messages as usize + 1;
        let bytes = bytes as u64;
        if (!self.can_stream && messages > limits.max_queued_messages as usize)
            || self.queued_bytes.get() + self.disk_bytes + self.reserved_bytes + bytes
                > limits.max_queued_bytes
            || (!self.can_stream && self.queued_bytes.memory_is_full(self.reserved_bytes + bytes))
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

    /// Whether the client may have a message of this topic. Of one that isn't connected nobody knows yet: it is asked about
    /// when it is sent.
    pub(crate) fn permits(&mut self, topic: &str) -> bool {
        self.guard.as_mut().is_none_or(|guard| guard.permits(topic))
    }

    /// Whether messages wait, those that have to be sent again included.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.queue.is_empty() || self.backlog.is_behind() || self.resend_from < self.inflight.len()
    }

    /// Delivers one message: sends it, queues it, or says why not.
    pub(crate) fn deliver(
        &mut self,
        fanout: &mut Fanout<'_>,
        grant: Grant<'_>,
        limits: &Limits,
    ) -> Delivered {
        if self.guard.is_some() && !self.permits(fanout.outgoing().topic) {
            self.settle(grant.group.cloned(), grant.place);
            return Delivered::Dropped(DropReason::NotAuthorized);
        }
        if grant.qos == QoS::AtMostOnce {
            if !self.online {
                return Delivered::Dropped(DropReason::Offline);
            }
            if self.out.len() > limits.max_outbound_bytes as usize {
                return Delivered::Dropped(DropReason::SlowConsumer);
            }
            if self.is_congested() && self.queued_bytes.memory_is_full(0) {
                return Delivered::Dropped(DropReason::MemoryFull);
            }
            let sent = self.send_fanout(fanout, &grant, None);
            // Nobody acknowledges what a group owes at QoS 0.
            self.settle(grant.group.cloned(), grant.place);
            return match sent {
                Ok(()) => Delivered::Sent,
                Err(TooLarge) => Delivered::Dropped(DropReason::TooLarge),
            };
        }
        // A group's debt is in the group's queue.
        let own_place = if grant.group.is_none() { grant.place } else { 0 };
        if self.backlog.knows(own_place) {
            return Delivered::Known;
        }
        let waits_for_record = self.is_recorded && grant.qos == QoS::ExactlyOnce;
        if self.has_room()
            && self.waiting == 0
            && !waits_for_record
            && let Some(id) = self.inflight.next_id()
        {
            if self.send_fanout(fanout, &grant, Some(id)).is_err() {
                self.settle(grant.group.cloned(), grant.place);
                return Delivered::Dropped(DropReason::TooLarge);
            }
            let message = Arc::clone(fanout.message());
            self.inflight.push(Entry {
                stage: stage(message, grant.qos),
                retain: grant.retain,
                was_sent: true,
                place: grant.place,
                safe_at: CommitToken::NOTHING_OWED,
                extra: extra(grant.identifiers, grant.group),
            });
            self.resend_from = self.inflight.len();
            self.unacknowledged += 1;
            return Delivered::Sent;
        }
        if self.online && self.window_takes_one() && !self.window_is_open() {
            tally(|tally| tally.waited_for_bytes());
        }
        let message = fanout.message();
        let size = message.size() as u64;
        if size > limits.max_queued_bytes {
            self.settle(grant.group.cloned(), grant.place);
            return Delivered::Dropped(DropReason::QueueFull);
        }
        // Under the policy `refuse` admission has made sure of the room; it was only taken meanwhile, by a message or two.
        let dropped = self.drop_oldest(size, limits);
        if dropped > 0 {
            tally(|tally| tally.queue_full(dropped));
        }
        if own_place != 0 && self.can_stream && (self.backlog.is_behind() || !self.head_has_room(size)) {
            let in_memory = self.inflight.iter().map(|entry| entry.place);
            let queued = self.queue.iter().map(|queued| queued.place);
            self.backlog.leave(own_place, in_memory.chain(queued));
            self.disk_bytes += size;
            return Delivered::OnDisk;
        }
        if !self.can_stream
            && limits.max_queued_policy == QueuePolicy::DropOldest
            && self.queued_bytes.memory_is_full(size)
        {
            // It has given up all that it had, and others have the rest.
            self.settle(grant.group.cloned(), grant.place);
            return Delivered::Dropped(DropReason::MemoryFull);
        }
        self.queued_bytes.add(size);
        self.queue.push_back(Queued {
            message: Arc::clone(fanout.message()),
            qos: grant.qos,
            retain: grant.retain,
            place: grant.place,
            extra: extra(grant.identifiers, grant.group),
        });
        self.wants_turn |= self.online && self.window_is_open();
        if dropped > 0 { Delivered::QueuedDroppingOldest } else { Delivered::Queued }
    }

    fn pop_queued(&mut self) -> Option<Queued> {
        let queued = self.queue.pop_front()?;
        self.queued_bytes.sub(queued.message.size() as u64);
        if self.queue.is_empty() && self.queue.capacity() > 64 {
            self.queue = VecDeque::new();
        }
        Some(queued)
    }

    /// Sends what the window and the socket's buffer allow and what is safe by `committed`: first again what is
    /// unacknowledged, then from the queue. Returns how many queued messages had expired or were too large for the client.
    pub(crate) fn pump(&mut self, now_ms: u64, committed: CommitToken) -> u64 {
        let mut dropped = 0;
        self.wants_turn = false;
        if !self.online {
            return dropped;
        }
        self.send_pubrels(committed);
        while self.resend_from < self.inflight.len() && !self.is_congested() {
            if !self.send_next(now_ms, committed) {
                break;
            }
        }
        while !self.queue.is_empty() && self.window_is_open() && !self.is_congested() {
            let Some(id) = self.inflight.next_id() else { break };
            let Some(queued) = self.pop_queued() else { break };
            let group = queued.group();
            if queued.message.is_expired(now_ms) {
                self.settle(group, queued.place);
                dropped += 1;
                continue;
            }
            if !self.permits(queued.message.topic()) {
                self.settle(group, queued.place);
                tally(|tally| tally.not_authorized());
                continue;
            }
            let waits_for_record = self.is_recorded && queued.qos == QoS::ExactlyOnce;
            // Behind one that waits everybody waits: order is kept.
            let waits = waits_for_record || self.waiting > 0;
            if !waits {
                let identifiers = queued.extra.as_ref().map(|extra| &*extra.identifiers).unwrap_or_default();
                let header = Header { qos: queued.qos, retain: queued.retain, dup: false, id: Some(id) };
                if self.send_message(&queued.message, header, identifiers, now_ms).is_err() {
                    self.settle(group, queued.place);
                    dropped += 1;
                    continue;
                }
            }
            if waits_for_record {
                self.notes.push(Note::Sent { group, place: queued.place, id });
            }
            self.inflight.push(Entry {
                stage: stage(queued.message, queued.qos),
                retain: queued.retain,
                was_sent: !waits,
                place: queued.place,
                safe_at: if waits_for_record { UNRECORDED } else { CommitToken::NOTHING_OWED },
                extra: queued.extra,
            });
            if waits {
                self.waiting += 1;
            } else {
                self.resend_from = self.inflight.len();
                self.unacknowledged += 1;
            }
        }
        if self.guard.as_ref().is_some_and(|guard| guard.is_for_waiting()) && !self.has_waiting() {
            self.guard = None;
        }
        dropped
    }

    /// Sends the PUBRELs whose notes are safe.
    fn send_pubrels(&mut self, committed: CommitToken) {
        while let Some(id) = self.pubrels.front().copied() {
            let entry = self.inflight.place_of(id).and_then(|place| Some(self.inflight.at(place)?.1));
            match entry.map(|entry| (&entry.stage, entry.safe_at)) {
                Some((Stage::AwaitPubcomp, safe_at)) if safe_at > committed => return,
                Some((Stage::AwaitPubcomp, _)) => {
                    self.send_pubrel(id, ReasonCode::Success);
                }
                _ => {}
            }
            self.pubrels.pop_front();
        }
    }

    /// Sends the next entry of the window, again if it was sent before; `false` when it has to wait.
    fn send_next(&mut self, now_ms: u64, committed: CommitToken) -> bool {
        let Some((id, entry)) = self.inflight.at(self.resend_from) else { return false };
        if entry.safe_at > committed {
            return false;
        }
        let (qos, message) = match &entry.stage {
            Stage::Done => {
                self.step_on();
                return true;
            }
            Stage::AwaitPubcomp => {
                self.send_pubrel(id, ReasonCode::Success);
                self.step_on();
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
        let header = Header { qos, retain: entry.retain, dup: entry.was_sent, id: Some(id) };
        let place = self.resend_from;
        let may = self.permits(message.topic());
        if !may {
            tally(|tally| tally.not_authorized());
        }
        if may && self.send_message(&message, header, &identifiers, now_ms).is_ok() {
            if let Some(entry) = self.inflight.at_mut(place) {
                entry.was_sent = true;
            }
            self.step_on();
            self.unacknowledged += 1;
        } else {
            // Larger than this connection takes, or not for this client any more: discarded as if it had been acknowledged
            // [MQTT-3.1.2-25, v5].
            self.step_on();
            self.end(place, id);
            let gone = self.inflight.finish(place);
            self.resend_from = (place + 1).saturating_sub(gone);
        }
        true
    }

    /// The entry at `resend_from` is dealt with.
    fn step_on(&mut self) {
        if self.resend_from + self.waiting >= self.inflight.len() {
            self.waiting = self.waiting.saturating_sub(1);
        }
        self.resend_from += 1;
    }

    /// Notes that the delivery at a place of the window is over.
    fn end(&mut self, place: usize, id: PacketId) {
        let Some((_, entry)) = self.inflight.at(place) else { return };
        let (group, debt) = (entry.group(), entry.place);
        match entry.stage {
            Stage::AwaitPubrec(_) | Stage::AwaitPubcomp if self.is_recorded => {
                if let Some(group) = &group {
                    group.settled(debt);
                }
                self.notes.push(Note::Completed(id));
            }
            Stage::AwaitPuback(_) | Stage::AwaitPubrec(_) => self.settle(group, debt),
            Stage::AwaitPubcomp | Stage::Done => {}
        }
    }

    /// PUBACK.
    pub(crate) fn puback(&mut self, id: PacketId) -> Result<(), AckError> {
        let (place, entry) = self.sent(id).ok_or(AckError::Unknown)?;
        match &entry.stage {
            Stage::AwaitPuback(_) => {
                self.finish(place, id);
                Ok(())
            }
            Stage::Done => Err(AckError::Unknown),
            Stage::AwaitPubrec(_) | Stage::AwaitPubcomp => Err(AckError::Unexpected),
        }
    }

    /// PUBREC; answers with PUBREL. An error code ends the delivery instead [MQTT-4.3.3-4, v5].
    pub(crate) fn pubrec(&mut self, id: PacketId, is_error: bool) -> Result<(), AckError> {
        let found = self.sent(id).map(|(place, entry)| (place, &entry.stage));
        match found {
            Some((place, Stage::AwaitPubrec(_))) if is_error => {
                self.finish(place, id);
                Ok(())
            }
            Some((place, Stage::AwaitPubrec(_))) => {
                self.received_by_client(place, id);
                Ok(())
            }
            Some((_, Stage::AwaitPubcomp)) if !is_error => {
                self.pubrel(id);
                Ok(())
            }
            Some((_, Stage::AwaitPubcomp | Stage::Done)) | None => {
                if !is_error {
                    self.send_pubrel(id, ReasonCode::PacketIdentifierNotFound);
                }
                Err(AckError::Unknown)
            }
            Some((_, Stage::AwaitPuback(_))) => Err(AckError::Unexpected),
        }
    }

    /// The client has the message at a place of the window: its debt is paid, PUBREL follows.
    fn received_by_client(&mut self, place: usize, id: PacketId) {
        let Some(entry) = self.inflight.await_pubcomp(place) else { return };
        let group = entry.group();
        let debt = std::mem::take(&mut entry.place);
        if self.is_recorded {
            entry.safe_at = UNRECORDED;
            if let Some(group) = group {
                group.settled(debt);
            }
            self.notes.push(Note::AwaitsCompletion(id));
        } else {
            self.settle(group, debt);
        }
        self.pubrel(id);
    }

    /// Sends a PUBREL, or notes that it is to be sent.
    fn pubrel(&mut self, id: PacketId) {
        if self.is_recorded {
            if !self.pubrels.contains(&id) {
                self.pubrels.push_back(id);
            }
            self.wants_turn = true;
        } else {
            self.send_pubrel(id, ReasonCode::Success);
        }
    }

    fn send_pubrel(&mut self, id: PacketId, reason: ReasonCode) {
        sent(PacketType::PubRel, 1);
        mqtt_protocol::encode_pubrel(self.out.buffer(), self.version, id, reason);
    }

    /// PUBCOMP.
    pub(crate) fn pubcomp(&mut self, id: PacketId) -> Result<(), AckError> {
        let (place, entry) = self.sent(id).ok_or(AckError::Unknown)?;
        match &entry.stage {
            Stage::AwaitPubcomp => {
                self.finish(place, id);
                Ok(())
            }
            Stage::Done => Err(AckError::Unknown),
            Stage::AwaitPuback(_) | Stage::AwaitPubrec(_) => Err(AckError::Unexpected),
        }
    }

    /// What was sent under an identifier, and its place in the window.
    fn sent(&self, id: PacketId) -> Option<(usize, &Entry)> {
        let place = self.inflight.place_of(id)?;
        let (_, entry) = self.inflight.at(place)?;
        entry.was_sent.then_some((place, entry))
    }

    fn finish(&mut self, place: usize, id: PacketId) {
        self.end(place, id);
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
    pub(crate) fn take_shared(&mut self) -> Vec<Returned> {
        let before = self.inflight.len();
        let mut taken = self.inflight.take_shared();
        self.resend_from = self.resend_from.saturating_sub(before - self.inflight.len());
        let mut kept = VecDeque::new();
        for queued in std::mem::take(&mut self.queue) {
            match queued.group() {
                Some(group) => {
                    self.queued_bytes.sub(queued.message.size() as u64);
                    taken.push(Returned { group, message: queued.message, place: queued.place });
                }
                None => kept.push_back(queued),
            }
        }
        self.queue = kept;
        taken
    }

    /// The session is over: the QoS 2 messages of Shared Subscriptions that it was sent go to nobody else
    /// [MQTT-4.8.2-5, v5].
    pub(crate) fn settle_shared(&mut self) {
        let is_sent = |entry: &&Entry| matches!(entry.stage, Stage::AwaitPubrec(_));
        let sent: Vec<_> = self
            .inflight
            .iter()
            .filter(is_sent)
            .filter_map(|entry| Some((entry.group()?, entry.place)))
            .collect();
        for (group, place) in sent {
            self.settle(Some(group), place);
        }
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
        sent(PacketType::Publish, 1);
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
        sent(PacketType::Publish, 1);
        if let Some(message) = shared {
            self.out.share_payload(message);
        }
        if let (Some(alias), Some(aliases)) = (fresh_alias, self.aliases.as_deref_mut()) {
            aliases.given.insert(outgoing.topic.as_bytes().into(), alias);
        }
        Ok(())
    }
}

/// What is awaited first of a message that is sent at this QoS.
fn stage(message: Arc<Message>, qos: QoS) -> Stage {
    match qos {
        QoS::ExactlyOnce => Stage::AwaitPubrec(message),
        QoS::AtLeastOnce | QoS::AtMostOnce => Stage::AwaitPuback(message),
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
