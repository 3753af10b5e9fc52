//! What the broker counts. Relaxed atomics: exact in the end, never a reason to wait.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use mqtt_protocol::{PacketType, QoS};

use crate::session::DropReason;

/// Declares counters with a snapshot of the same fields.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of a broker since its start.
        #[derive(Debug, Default)]
        pub(crate) struct Metrics {
            $($(#[$doc])* pub(crate) $name: Counter,)*
            /// Packets of clients by type.
            packets_received: [Counter; PACKET_TYPES],
            /// Packets to clients by type.
            packets_sent: [Counter; PACKET_TYPES],
        }

        /// The counters at one moment, and how many of what there is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
            /// PUBLISH packets of clients, whatever became of them: the sum by QoS.
            pub messages_received: u64,
            /// Messages handed to receivers (sent or queued): the sum by QoS.
            pub messages_delivered: u64,
            /// Network Connections with an accepted CONNECT.
            pub connections: u64,
            /// Most of them at one time.
            pub connections_maximum: u64,
            /// Sessions, those without a connection included.
            pub sessions: u64,
            /// Subscriptions.
            pub subscriptions: u64,
            /// Retained Messages.
            pub retained_messages: u64,
            /// Bytes of all Retained Messages.
            pub retained_bytes: u64,
            /// Bytes of all messages that wait in queues in memory, counted in each queue.
            pub queued_memory_bytes: u64,
        }

        impl Stats {
            /// Names and values: counters first, then how many of what there is.
            #[must_use]
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![
                    $((stringify!($name), self.$name),)*
                    ("messages_received", self.messages_received),
                    ("messages_delivered", self.messages_delivered),
                    ("connections", self.connections),
                    ("connections_maximum", self.connections_maximum),
                    ("sessions", self.sessions),
                    ("subscriptions", self.subscriptions),
                    ("retained_messages", self.retained_messages),
                    ("retained_bytes", self.retained_bytes),
                    ("queued_memory_bytes", self.queued_memory_bytes),
                ]
            }
        }

        impl Metrics {
            /// Names and values of the counters of limits, as `$SYS/broker/limits/NAME`.
            pub(crate) fn limits(&self) -> Vec<(&'static str, u64)> {
                [$((stringify!($name), self.$name.get())),*]
                    .into_iter()
                    .filter_map(|(name, count)| Some((name.strip_prefix("limit_")?, count)))
                    .collect()
            }

            pub(crate) fn snapshot(&self) -> Stats {
                let mut stats = Stats { $($name: self.$name.get(),)* ..Stats::default() };
                stats.messages_received = stats.received_by_qos().iter().sum();
                stats.messages_delivered = stats.delivered_by_qos().iter().sum();
                stats
            }
        }
    };
}

counters! {
    /// PUBLISH packets of clients at QoS 0.
    messages_received_qos0,
    /// PUBLISH packets of clients at QoS 1.
    messages_received_qos1,
    /// PUBLISH packets of clients at QoS 2, repeated ones among them.
    messages_received_qos2,
    /// Payload bytes of those.
    payload_bytes_received,
    /// PUBLISH packets at QoS 2 whose first copy was here already.
    messages_repeated,
    /// Messages made by rules.
    messages_republished,
    /// Messages that the program published itself: `$SYS`, wills, those of administrators and of error actions.
    messages_own,
    /// Messages handed to receivers at QoS 0.
    messages_delivered_qos0,
    /// Messages handed to receivers at QoS 1.
    messages_delivered_qos1,
    /// Messages handed to receivers at QoS 2.
    messages_delivered_qos2,
    /// Payload bytes of those.
    payload_bytes_delivered,
    /// Messages that matched a Subscription.
    messages_matched,
    /// Messages that matched no Subscription.
    messages_unmatched,
    /// Messages that nobody received because something was against it, whatever it was.
    messages_refused,
    /// QoS 0 messages dropped because the receiver reads too slowly.
    dropped_slow_consumer,
    /// Messages dropped because a queue was full.
    dropped_queue_full,
    /// Messages dropped because all queues together had as much memory as they may.
    dropped_memory_full,
    /// Messages larger than the receiver's Maximum Packet Size.
    dropped_too_large,
    /// Messages whose Message Expiry Interval was over.
    dropped_expired,
    /// Messages that waited for a client, or were under way to it, when its session ended.
    dropped_session_ended,
    /// Messages that their receiver, or the author of a Retained Message, has no right to any more.
    dropped_not_authorized,
    /// Publishes that their client may not make.
    publishes_denied,
    /// Subscriptions that their client may not have.
    subscriptions_denied,
    /// Wills that their client may not leave, or may not any more when they were due.
    wills_denied,
    /// Messages that a rule, or the program in its name, had no right to publish.
    rule_output_denied,
    /// Messages made by rules that were refused: too many hops, or an invalid topic.
    dropped_rule_output,
    /// Publishes refused as a whole.
    publishes_refused,
    /// Network Connections accepted by listeners.
    connections_opened,
    /// Network Connections closed at once because no more were allowed.
    connections_refused,
    /// Network Connections closed because as many handshakes as allowed were under way.
    handshakes_refused,
    /// Network Connections closed because TLS, WebSocket or a proxy's header took too long.
    handshake_timeouts,
    /// Handshakes of TLS that failed.
    tls_failed,
    /// Requests for WebSocket that were refused.
    websocket_failed,
    /// Network Connections refused because no proxy, or none of the listener's, said whose they were.
    proxied_refused,
    /// CONNECT packets refused.
    connects_refused,
    /// CONNECT packets given up because nobody decided about them in time, or the client didn't answer.
    authentication_timeouts,
    /// Clients that authenticated again on their open connection.
    reauthentications,
    /// Connections closed because the client's right to be here was over.
    identities_expired,
    /// Connections closed because the client broke the protocol.
    protocol_errors,
    /// Connections closed because another one took the session over.
    takeovers,
    /// CONNECT packets refused because the session is another user's.
    takeovers_refused,
    /// CONNECT packets refused because the Client Identifier isn't one of the user's.
    client_ids_refused,
    /// Sessions that ended because their time was over.
    sessions_expired,
    /// Connections closed for silence beyond the Keep Alive.
    keep_alive_timeouts,
    /// Connections that found no place in the broker or on their listener (`max_connections`).
    limit_connections,
    /// Connections that found no place among those of their address (`max_connections_per_address`).
    limit_connections_per_address,
    /// Clients that found no place among those of their user (`max_connections_per_user`).
    limit_connections_per_user,
    /// Times that a listener waited before it accepted the next connection (`max_connect_rate`).
    limit_connect_rate,
    /// Times that a client wasn't read for the number of its publishes (`max_publish_rate`).
    limit_publish_rate,
    /// Times that a client wasn't read for the bytes of its publishes (`max_publish_bytes_rate`).
    limit_publish_bytes_rate,
    /// Times that a publisher wasn't read because a receiver was behind (`max_publish_pause`).
    limit_publish_pause,
    /// Connections closed for want of a CONNECT (`connect_timeout`).
    limit_connect_timeout,
    /// Packets larger than the largest (`max_packet_size`, `max_connect_packet_size`).
    limit_packet_size,
    /// Publishes beyond the Receive Maximum (`receive_maximum`).
    limit_receive_maximum,
    /// Messages that waited because as many bytes as allowed were under way to their client (`max_inflight_bytes`).
    limit_inflight_bytes,
    /// Topic Aliases above the maximum (`topic_alias_maximum`).
    limit_topic_alias,
    /// Keep Alives that were cut (`max_keep_alive`).
    limit_keep_alive,
    /// Session Expiry Intervals that were cut (`max_session_expiry`).
    limit_session_expiry,
    /// Topics and filters with too many levels (`max_topic_levels`).
    limit_topic_levels,
    /// Client Identifiers that were too long (`max_client_id_bytes`).
    limit_client_id,
    /// Packets with too many or too large User Properties (`max_user_properties`, `max_user_properties_bytes`).
    limit_user_properties,
    /// Subscriptions beyond those of a session (`max_subscriptions_per_session`).
    limit_subscriptions,
    /// Messages for which the retained messages had no room (`max_retained_messages`, `max_retained_bytes`).
    limit_retained,
    /// Connection tasks that panicked; each closed its own connection only.
    connection_panics,
    /// Bytes read from sockets.
    bytes_received,
    /// Bytes written to sockets.
    bytes_sent,
}

/// Kinds of packets, those that can't be among them: what four bits can say.
const PACKET_TYPES: usize = 16;

/// Packets by their types since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PacketCount {
    /// Which packets.
    pub kind: PacketType,
    /// Those that clients sent, complete ones, well-formed or not.
    pub received: u64,
    /// Those that were written for clients.
    pub sent: u64,
}

impl Stats {
    /// Messages received, by QoS.
    #[must_use]
    pub const fn received_by_qos(&self) -> [u64; 3] {
        [self.messages_received_qos0, self.messages_received_qos1, self.messages_received_qos2]
    }

    /// Messages handed to receivers, by QoS.
    #[must_use]
    pub const fn delivered_by_qos(&self) -> [u64; 3] {
        [self.messages_delivered_qos0, self.messages_delivered_qos1, self.messages_delivered_qos2]
    }

    /// Messages that a receiver should have had and didn't get, by reason.
    #[must_use]
    pub const fn dropped_by_reason(&self) -> [(&'static str, u64); 7] {
        [
            ("expired", self.dropped_expired),
            ("memory_full", self.dropped_memory_full),
            ("not_authorized", self.dropped_not_authorized),
            ("queue_full", self.dropped_queue_full),
            ("session_ended", self.dropped_session_ended),
            ("slow_consumer", self.dropped_slow_consumer),
            ("too_large", self.dropped_too_large),
        ]
    }
}

/// What a thread has counted in this turn: one addition to each counter at the turn's end instead of one per message.
#[derive(Debug)]
pub(crate) struct Tally {
    received: [Cell<u64>; 3],
    payload_bytes_received: Cell<u64>,
    delivered: [Cell<u64>; 3],
    payload_bytes_delivered: Cell<u64>,
    matched: Cell<u64>,
    queue_full: Cell<u64>,
    not_authorized: Cell<u64>,
    waited_for_bytes: Cell<u64>,
    packets_received: [Cell<u64>; PACKET_TYPES],
    packets_sent: [Cell<u64>; PACKET_TYPES],
    /// A bit for each type of packet that was counted: few are in a turn.
    types: Cell<u16>,
}

thread_local! {
    static TALLY: Tally = const {
        Tally {
            received: [const { Cell::new(0) }; 3],
            payload_bytes_received: Cell::new(0),
            delivered: [const { Cell::new(0) }; 3],
            payload_bytes_delivered: Cell::new(0),
            matched: Cell::new(0),
            queue_full: Cell::new(0),
            not_authorized: Cell::new(0),
            waited_for_bytes: Cell::new(0),
            packets_received: [const { Cell::new(0) }; PACKET_TYPES],
            packets_sent: [const { Cell::new(0) }; PACKET_TYPES],
            types: Cell::new(0),
        }
    };
}

/// Counts something in this turn. Whoever begins a turn ends it with [`Metrics::end_turn`].
pub(crate) fn tally(count: impl FnOnce(&Tally)) {
    TALLY.with(count);
}

fn add(cell: &Cell<u64>, count: u64) {
    cell.set(cell.get() + count);
}

fn add_at<const N: usize>(cells: &[Cell<u64>; N], place: usize, count: u64) {
    if let Some(cell) = cells.get(place) {
        add(cell, count);
    }
}

impl Tally {
    /// A PUBLISH of a client.
    pub(crate) fn received(&self, qos: QoS, payload_bytes: u64) {
        add_at(&self.received, usize::from(qos as u8), 1);
        add(&self.payload_bytes_received, payload_bytes);
    }

    /// Messages handed to receivers.
    pub(crate) fn delivered(&self, qos: QoS, count: u64, payload_bytes: u64) {
        add_at(&self.delivered, usize::from(qos as u8), count);
        add(&self.payload_bytes_delivered, payload_bytes);
    }

    /// Messages that matched a Subscription.
    pub(crate) fn matched(&self, count: u64) {
        add(&self.matched, count);
    }

    /// The oldest messages of a queue gave way.
    pub(crate) fn queue_full(&self, count: u64) {
        add(&self.queue_full, count);
    }

    /// A receiver may not have a message any more.
    pub(crate) fn not_authorized(&self) {
        add(&self.not_authorized, 1);
    }

    /// A message waits for the bytes under way to its client.
    pub(crate) fn waited_for_bytes(&self) {
        add(&self.waited_for_bytes, 1);
    }

    /// A packet of a client, by the first byte of its fixed header.
    pub(crate) fn packet_received(&self, first_byte: u8) {
        let kind = first_byte >> 4;
        add_at(&self.packets_received, usize::from(kind), 1);
        self.types.set(self.types.get() | 1 << kind);
    }

    /// Packets to clients.
    pub(crate) fn packets_sent(&self, kind: PacketType, count: u64) {
        let kind = kind as u8;
        add_at(&self.packets_sent, usize::from(kind), count);
        self.types.set(self.types.get() | 1 << kind);
    }
}

/// Counts packets that were encoded for a client.
pub(crate) fn sent(kind: PacketType, count: u64) {
    tally(|tally| tally.packets_sent(kind, count));
}

/// One counter.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        if count > 0 {
            self.0.fetch_add(count, Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Metrics {
    /// Adds what this thread has counted since the last time.
    pub(crate) fn end_turn(&self) {
        tally(|tally| {
            let by_qos = |counters: [&Counter; 3], cells: &[Cell<u64>; 3]| {
                counters.into_iter().zip(cells).for_each(|(counter, cell)| counter.add(cell.take()));
            };
            by_qos(
                [&self.messages_received_qos0, &self.messages_received_qos1, &self.messages_received_qos2],
                &tally.received,
            );
            by_qos(
                [&self.messages_delivered_qos0, &self.messages_delivered_qos1, &self.messages_delivered_qos2],
                &tally.delivered,
            );
            self.payload_bytes_received.add(tally.payload_bytes_received.take());
            self.payload_bytes_delivered.add(tally.payload_bytes_delivered.take());
            self.messages_matched.add(tally.matched.take());
            self.dropped_queue_full.add(tally.queue_full.take());
            self.dropped_not_authorized.add(tally.not_authorized.take());
            self.limit_inflight_bytes.add(tally.waited_for_bytes.take());
            let mut types = tally.types.take();
            while types != 0 {
                let kind = types.trailing_zeros() as usize;
                types &= types - 1;
                for (counters, cells) in [
                    (&self.packets_received, &tally.packets_received),
                    (&self.packets_sent, &tally.packets_sent),
                ] {
                    if let (Some(counter), Some(cell)) = (counters.get(kind), cells.get(kind)) {
                        counter.add(cell.take());
                    }
                }
            }
        });
    }

    /// Packets by type, each type that there is.
    pub(crate) fn packets(&self) -> Vec<PacketCount> {
        let count = |counters: &[Counter; PACKET_TYPES], kind: PacketType| {
            counters.get(usize::from(kind as u8)).map_or(0, Counter::get)
        };
        let of = |kind| PacketCount {
            kind,
            received: count(&self.packets_received, kind),
            sent: count(&self.packets_sent, kind),
        };
        PacketType::ALL.map(of).into()
    }

    pub(crate) fn dropped(&self, reason: DropReason) {
        match reason {
            DropReason::Offline => {}
            DropReason::SlowConsumer => self.dropped_slow_consumer.add(1),
            DropReason::QueueFull => self.dropped_queue_full.add(1),
            DropReason::MemoryFull => self.dropped_memory_full.add(1),
            DropReason::NotAuthorized => self.dropped_not_authorized.add(1),
            DropReason::TooLarge => self.dropped_too_large.add(1),
        }
    }
}
