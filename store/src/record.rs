//! The vocabulary of debts: what a frame can hold.

/// Identity of one message: unique over restarts, restores and copies of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MessageId {
    /// Identity of the store that admitted it.
    pub store: u64,
    /// The store's epoch at that time.
    pub epoch: u32,
    /// 64-bit sequence of the admitting shard (one shard now).
    pub sequence: u64,
}

/// A session within a store: its Client Identifier below a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionKey<'a> {
    /// Namespace, 32 bits, the prefix of every key; 0 until there are tenants.
    pub namespace: u32,
    /// Client Identifier.
    pub client_id: &'a str,
}

/// One debt or transition. A frame is a slice of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Record<'a> {
    /// The session exists, with this Session Expiry Interval in seconds (`u32::MAX`: never expires).
    SessionStarted {
        /// Whose.
        session: SessionKey<'a>,
        /// Seconds after the Network Connection closes.
        expiry_interval_s: u32,
    },
    /// The session and everything it holds is gone.
    SessionEnded {
        /// Whose.
        session: SessionKey<'a>,
    },
    /// A Subscription was made or replaced. `options` is the options byte of MQTT 5.0 §3.8.3.1.
    Subscribed {
        /// Whose.
        session: SessionKey<'a>,
        /// Topic Filter as the client wrote it, `$share` included.
        filter: &'a str,
        /// Options byte.
        options: u8,
        /// Subscription Identifier, 0 for none.
        identifier: u32,
    },
    /// A Subscription was removed.
    Unsubscribed {
        /// Whose.
        session: SessionKey<'a>,
        /// Topic Filter as the client wrote it.
        filter: &'a str,
    },
    /// The message itself; the records after it in the same frame refer to it by `id`.
    Message {
        /// Identity.
        id: MessageId,
        /// Topic Name.
        topic: &'a str,
        /// Encoded MQTT 5 properties that are forwarded unaltered.
        properties: &'a [u8],
        /// Application payload.
        payload: &'a [u8],
    },
    /// The message is owed to a session.
    Owed {
        /// Which message.
        id: MessageId,
        /// To whom.
        session: SessionKey<'a>,
        /// Quality of service of the delivery, 1 or 2.
        qos: u8,
    },
    /// The message is owed to a Shared Subscription's group, not to one member.
    OwedToGroup {
        /// Which message.
        id: MessageId,
        /// Share name.
        share_name: &'a str,
        /// Topic Filter below the share name.
        filter: &'a str,
    },
    /// The message became the Retained Message of its topic.
    Retained {
        /// Which message.
        id: MessageId,
    },
    /// The topic has no Retained Message any more.
    RetainedCleared {
        /// Topic Name.
        topic: &'a str,
    },
    /// An inbound QoS 2 PUBLISH was accepted under this Packet Identifier.
    Received {
        /// From whom.
        session: SessionKey<'a>,
        /// Packet Identifier.
        packet_id: u16,
    },
    /// The publisher released it (PUBREL): the identifier may be used again.
    Released {
        /// From whom.
        session: SessionKey<'a>,
        /// Packet Identifier.
        packet_id: u16,
    },
}
