//! What the broker can be told: limits, each with a unit and a default.
//!
//! Plain types: reading them from a file is the server's matter.

use std::time::Duration;

use crate::heavy::HeavyHittersConfig;

/// What happens to a message that a session's full queue can't take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueuePolicy {
    /// The oldest queued message makes room (counted).
    #[default]
    DropOldest,
    /// The publish is refused as a whole: nobody receives it, the publisher is told 0x97 (Quota exceeded).
    Refuse,
}

/// Every limit of the broker. Each is enforced with the reason code that the specification names for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest packet accepted, in bytes, fixed header included (MQTT 5.0 §3.2.2.3.6).
    pub max_packet_size: u32,
    /// Largest packet accepted before a CONNECT was, in bytes.
    pub max_connect_packet_size: u32,
    /// QoS 1 and 2 publishes a client may have unacknowledged towards us (MQTT 5.0 §3.2.2.3.3).
    pub receive_maximum: u16,
    /// QoS 1 and 2 messages sent to a client and not yet acknowledged; the client's Receive Maximum lowers it.
    pub max_inflight: u16,
    /// Bytes of those messages: with as many under way further ones wait.
    pub max_inflight_bytes: u64,
    /// Topic Aliases that a client may use towards us (MQTT 5.0 §3.2.2.3.8).
    pub topic_alias_maximum: u16,
    /// Longest Keep Alive, zero for any. MQTT 5 clients are told (Server Keep Alive), others are capped.
    pub max_keep_alive: Duration,
    /// Longest Session Expiry Interval; also the life of a 3.1.1 session with Clean Session 0.
    pub max_session_expiry: Duration,
    /// Bytes queued for one session.
    pub max_queued_bytes: u64,
    /// Messages queued in memory for one session while sessions live in memory.
    pub max_queued_messages: u32,
    /// Bytes of the messages that wait in memory for all sessions together. Past them sessions in memory go by their policy,
    /// durable ones leave more to the disk, and clients that read too slowly get no more at QoS 0.
    pub max_queued_memory: u64,
    /// What happens when one of these is reached.
    pub max_queued_policy: QueuePolicy,
    /// Bytes waiting in memory for one client's socket; QoS 0 messages beyond it are dropped and counted.
    pub max_outbound_bytes: u32,
    /// Longest time for which a publisher isn't read because one of its receivers is behind.
    pub max_publish_pause: Duration,
    /// Levels in a Topic Name or Topic Filter.
    pub max_topic_levels: u16,
    /// Bytes in a Client Identifier.
    pub max_client_id_bytes: u16,
    /// User Properties in one packet.
    pub max_user_properties: u16,
    /// Bytes of all User Properties of one packet, as encoded.
    pub max_user_properties_bytes: u32,
    /// Subscriptions of one session.
    pub max_subscriptions: u32,
    /// Retained Messages.
    pub max_retained_messages: u64,
    /// Bytes of all Retained Messages: topic, properties and payload.
    pub max_retained_bytes: u64,
    /// Network Connections at a time of one address (of one /64 in IPv6); zero: any number.
    pub max_connections_per_address: u32,
    /// Clients connected at a time under one user name; zero: any number.
    pub max_connections_per_user: u32,
    /// Network Connections accepted in a second; zero: any number. Those beyond wait to be accepted.
    pub max_connect_rate: u32,
    /// PUBLISH packets of one client in a second; zero: any number. A client that is faster isn't read for a while.
    pub max_publish_rate: u32,
    /// Bytes of the PUBLISH packets of one client in a second; zero: any number. The same.
    pub max_publish_bytes_rate: u64,
    /// Time from the first byte of a connection to its CONNECT.
    pub connect_timeout: Duration,
    /// Network Connections at a time.
    pub max_connections: u32,
    /// Connections at a time that are on their way to MQTT: through a proxy's header, a handshake of TLS, a request for
    /// WebSocket.
    pub max_handshakes: u32,
    /// Shortest time that a will waits after a crash of the broker, if its session may be resumed; the longest is twice that,
    /// so that not all go out at once.
    pub will_after_crash: Duration,
    /// Rules that may make a message from a message before the chain is cut.
    pub max_rule_hops: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_packet_size: 1024 * 1024,
            max_connect_packet_size: 16 * 1024,
            receive_maximum: 1024,
            max_inflight: 1024,
            max_inflight_bytes: 16 * 1024 * 1024,
            topic_alias_maximum: 32,
            max_keep_alive: Duration::ZERO,
            max_session_expiry: Duration::from_secs(7 * 24 * 3600),
            max_queued_bytes: 1024 * 1024 * 1024,
            max_queued_messages: 10_000,
            max_queued_memory: 1024 * 1024 * 1024,
            max_queued_policy: QueuePolicy::DropOldest,
            max_outbound_bytes: 4 * 1024 * 1024,
            max_publish_pause: Duration::from_millis(100),
            max_topic_levels: 128,
            max_client_id_bytes: 256,
            max_user_properties: 64,
            max_user_properties_bytes: 8 * 1024,
            max_subscriptions: 10_000,
            max_retained_messages: 1_000_000,
            max_retained_bytes: 1024 * 1024 * 1024,
            max_connections_per_address: 0,
            max_connections_per_user: 0,
            max_connect_rate: 0,
            max_publish_rate: 0,
            max_publish_bytes_rate: 0,
            connect_timeout: Duration::from_secs(10),
            max_connections: 1_000_000,
            max_handshakes: 4_096,
            will_after_crash: Duration::from_secs(30),
            max_rule_hops: 8,
        }
    }
}

/// Settings of a broker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BrokerConfig {
    /// Limits.
    pub limits: Limits,
    /// Time between two publications of the `$SYS` topics; zero: none.
    pub sys_interval: Duration,
    /// Version text for `$SYS/broker/version`.
    pub version: String,
    /// Which heavy hitters are looked for. Default: none.
    pub heavy_hitters: HeavyHittersConfig,
}
