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

/// What debts queue up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueueKey<'a> {
    /// A session.
    Session(SessionKey<'a>),
    /// A Shared Subscription's group: the debt is the group's, a member only holds what it was sent.
    Group {
        /// Namespace.
        namespace: u32,
        /// Share name.
        share_name: &'a str,
        /// Topic Filter below the share name.
        filter: &'a str,
    },
    /// An action of a rule.
    Outbox {
        /// Namespace.
        namespace: u32,
        /// `rule/action`.
        name: &'a str,
    },
    /// What an action could not deliver.
    DeadLetters {
        /// Namespace.
        namespace: u32,
        /// `rule/action`.
        name: &'a str,
    },
    /// Wills that are to be published whatever becomes of their sessions: those of sessions that end with their connection,
    /// and those that are due. The debt's message is the will, its body the RETAIN flag.
    Wills {
        /// Namespace.
        namespace: u32,
    },
}

/// The place of a debt in its queue: the first is 1, the next one greater, never given twice while the queue exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

impl Position {
    /// The place of a debt that nobody has to pay: its queue doesn't exist.
    pub const NOWHERE: Self = Self(0);
}

/// An Application Message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MessageRecord<'a> {
    /// Identity.
    pub id: MessageId,
    /// Topic Name.
    pub topic: &'a str,
    /// Encoded MQTT 5 properties that are forwarded unaltered.
    pub properties: &'a [u8],
    /// Application payload.
    pub payload: &'a [u8],
    /// Quality of service of the publish.
    pub qos: u8,
    /// Wall clock at admission, milliseconds since the epoch.
    pub received_at_ms: i64,
    /// When it expires, milliseconds after its admission.
    pub expires_after_ms: Option<u64>,
    /// Client Identifier of the publisher; `None`: the broker itself.
    pub publisher: Option<&'a str>,
    /// Who that was, where it is asked later whether it still may; empty: not said. The store doesn't look into it.
    pub author: &'a [u8],
}

/// One debt or transition. A frame is a slice of these.
///
/// Records of a session that doesn't exist are passed over: it may have ended while its message was on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Record<'a> {
    /// The session exists and has a connection, with this Session Expiry Interval in seconds (`u32::MAX`: never expires).
    /// One that existed goes on with all it holds except its will.
    SessionStarted {
        /// Whose.
        session: SessionKey<'a>,
        /// Seconds after the Network Connection closes.
        expiry_interval_s: u32,
    },
    /// The session is this user's from here on; empty: nobody's.
    SessionOwner {
        /// Whose.
        session: SessionKey<'a>,
        /// User name.
        owner: &'a str,
    },
    /// The session's connection is gone: its expiry runs from here.
    SessionDetached {
        /// Whose.
        session: SessionKey<'a>,
        /// Wall clock, milliseconds since the epoch.
        at_ms: i64,
    },
    /// The session and everything it holds is gone.
    SessionEnded {
        /// Whose.
        session: SessionKey<'a>,
    },
    /// The session has this will.
    Will {
        /// Whose.
        session: SessionKey<'a>,
        /// Will Delay Interval in seconds.
        delay_s: u32,
        /// Whether it is to be retained.
        retain: bool,
        /// The message; its identity is given when it is published, and its expiry runs from there.
        message: MessageRecord<'a>,
    },
    /// The session has no will any more: it was discarded, or what it owed is in the same frame.
    WillGone {
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
    /// The message itself; the records after it in the same frame refer to it by its identity.
    Message(MessageRecord<'a>),
    /// The message is owed to a session.
    Owed {
        /// Which message.
        id: MessageId,
        /// To whom.
        session: SessionKey<'a>,
        /// Quality of service of the delivery, 1 or 2.
        qos: u8,
        /// RETAIN flag of the delivery.
        retain: bool,
        /// Subscription Identifiers of the delivery.
        identifiers: &'a [u32],
    },
    /// The message is owed to a Shared Subscription's group, not to one member.
    OwedToGroup {
        /// Which message.
        id: MessageId,
        /// Share name.
        share_name: &'a str,
        /// Topic Filter below the share name.
        filter: &'a str,
        /// RETAIN flag of the publish.
        retain: bool,
    },
    /// Something is owed to an action, or kept for somebody to look at.
    Queued {
        /// An [`QueueKey::Outbox`], [`QueueKey::DeadLetters`] or [`QueueKey::Wills`], made if it isn't there.
        queue: QueueKey<'a>,
        /// The message that it came of, if it is in the frame and wanted later.
        id: Option<MessageId>,
        /// What the action needs to deliver it.
        body: &'a [u8],
    },
    /// The debt is paid, dropped or passed on.
    Settled {
        /// Whose debt.
        queue: QueueKey<'a>,
        /// Its place.
        position: Position,
    },
    /// A queue and everything in it is gone.
    QueueDropped {
        /// Which.
        queue: QueueKey<'a>,
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
    /// A debt is on its way to a session under this Packet Identifier. From here it stays with this session.
    Sent {
        /// To whom.
        session: SessionKey<'a>,
        /// Whose debt: the session's own, or a group's.
        queue: QueueKey<'a>,
        /// Its place.
        position: Position,
        /// Packet Identifier.
        packet_id: u16,
    },
    /// The session has the message (PUBREC): the debt is paid, the identifier is in use until PUBCOMP.
    AwaitsCompletion {
        /// Whose.
        session: SessionKey<'a>,
        /// Packet Identifier.
        packet_id: u16,
    },
    /// The identifier is free again (PUBACK, PUBCOMP). A debt sent under it that isn't paid is paid.
    Completed {
        /// Whose.
        session: SessionKey<'a>,
        /// Packet Identifier.
        packet_id: u16,
    },
}

impl<'a> Record<'a> {
    /// Whether it makes the store owe or keep more than before. The others may use the reserve of a full store.
    pub(crate) fn is_debt(&self) -> bool {
        match self {
            Self::SessionStarted { .. }
            | Self::SessionOwner { .. }
            | Self::Will { .. }
            | Self::Subscribed { .. }
            | Self::Owed { .. }
            | Self::OwedToGroup { .. }
            | Self::Queued { .. }
            | Self::Retained { .. }
            | Self::Received { .. } => true,
            Self::SessionDetached { .. }
            | Self::SessionEnded { .. }
            | Self::WillGone { .. }
            | Self::Unsubscribed { .. }
            | Self::Message(_)
            | Self::Settled { .. }
            | Self::QueueDropped { .. }
            | Self::RetainedCleared { .. }
            | Self::Released { .. }
            | Self::Sent { .. }
            | Self::AwaitsCompletion { .. }
            | Self::Completed { .. } => false,
        }
    }

    /// Whose record it is, if it is one session's alone.
    pub(crate) fn session(&self) -> Option<SessionKey<'a>> {
        match *self {
            Self::SessionStarted { session, .. }
            | Self::SessionOwner { session, .. }
            | Self::SessionDetached { session, .. }
            | Self::SessionEnded { session }
            | Self::Will { session, .. }
            | Self::WillGone { session }
            | Self::Subscribed { session, .. }
            | Self::Unsubscribed { session, .. }
            | Self::Owed { session, .. }
            | Self::Received { session, .. }
            | Self::Released { session, .. }
            | Self::Sent { session, .. }
            | Self::AwaitsCompletion { session, .. }
            | Self::Completed { session, .. } => Some(session),
            Self::Message(_)
            | Self::OwedToGroup { .. }
            | Self::Queued { .. }
            | Self::Settled { .. }
            | Self::QueueDropped { .. }
            | Self::Retained { .. }
            | Self::RetainedCleared { .. } => None,
        }
    }
}
