//! What the broker counts. Relaxed atomics: exact in the end, never a reason to wait.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::session::DropReason;

/// Declares counters with a snapshot of the same fields.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of a broker since its start.
        #[derive(Debug, Default)]
        pub(crate) struct Metrics { $($(#[$doc])* pub(crate) $name: Counter),* }

        /// The counters at one moment, and how many of what there is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
            /// Network Connections with an accepted CONNECT.
            pub connections: u64,
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
                    ("connections", self.connections),
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
                Stats { $($name: self.$name.get(),)* ..Stats::default() }
            }
        }
    };
}

counters! {
    /// PUBLISH packets accepted from clients.
    messages_received,
    /// Payload bytes of those.
    payload_bytes_received,
    /// Messages made by rules.
    messages_republished,
    /// Messages handed to receivers (sent or queued).
    messages_delivered,
    /// Payload bytes of those.
    payload_bytes_delivered,
    /// Publishes that matched no Subscription.
    messages_unmatched,
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

/// What a thread has counted in this turn: one addition to each counter at the turn's end instead of one per message.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) received: u64,
    pub(crate) payload_bytes_received: u64,
    pub(crate) delivered: u64,
    pub(crate) payload_bytes_delivered: u64,
    pub(crate) not_authorized: u64,
    pub(crate) waited_for_bytes: u64,
}

thread_local! {
    static TALLY: std::cell::Cell<Tally> = const {
        std::cell::Cell::new(Tally {
            received: 0,
            payload_bytes_received: 0,
            delivered: 0,
            payload_bytes_delivered: 0,
            not_authorized: 0,
            waited_for_bytes: 0,
        })
    };
}

/// Counts something in this turn. Whoever begins a turn ends it with [`Metrics::end_turn`].
pub(crate) fn tally(count: impl FnOnce(&mut Tally)) {
    let mut tally = TALLY.get();
    count(&mut tally);
    TALLY.set(tally);
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
        let tally = TALLY.replace(Tally::default());
        self.messages_received.add(tally.received);
        self.payload_bytes_received.add(tally.payload_bytes_received);
        self.messages_delivered.add(tally.delivered);
        self.payload_bytes_delivered.add(tally.payload_bytes_delivered);
        self.dropped_not_authorized.add(tally.not_authorized);
        self.limit_inflight_bytes.add(tally.waited_for_bytes);
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
