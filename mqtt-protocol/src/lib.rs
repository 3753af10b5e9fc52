//! MQTT 3.1, 3.1.1 and 5.0: the specification's vocabulary, and a codec that borrows everything from the caller's buffer.
//!
//! What it owns: Control Packets ([`packet`]), the fixed header ([`mod@frame`]), properties ([`property`]), Reason Codes,
//! Topic Names and Topic Filters ([`topic`]). What it leaves out: sockets, clocks, sessions, and every rule that needs
//! more than one packet to decide (packet order, Receive Maximum, Topic Alias values, who may send what).
//!
//! Invariants:
//! - Decoding never panics and allocates at most one box (for a CONNECT); limits are checked before bytes are touched.
//! - What decodes is free of every Malformed Packet and Protocol Error that one packet by itself can show; the exact
//!   code for the peer is [`DecodeError::reason_code`].
//! - What encodes decodes again to an equal packet; a failed encode leaves the output as it was.
//!
//! Statements are cited with the version, as `[MQTT-2.2.1-3, v5]`: numbers differ between 3.1.1 and 5.0.

pub mod error;
pub mod frame;
pub mod packet;
pub mod packet_id;
pub mod property;
pub mod qos;
pub mod reason_code;
pub mod topic;
pub mod user_properties;
pub mod version;
mod wire;

pub use error::{DecodeError, EncodeError};
pub use frame::{Frame, FrameStatus, frame};
pub use packet::{
    Ack, AliasUse, Auth, ConnAck, ConnAckProperties, Connect, ConnectProperties, Disconnect, Outgoing,
    Packet, PacketType, Publish, PublishLayout, PublishProperties, ReceivedProperties, RetainHandling,
    SubAck, Subscribe, SubscribeFilter, SubscribeFilters, SubscribeFiltersBuf, SubscriptionIdentifiers,
    SubscriptionOptions, TopicFilters, TopicFiltersBuf, UnsubAck, Unsubscribe, Will, encode_pingreq,
    encode_pingresp, encode_puback, encode_pubcomp, encode_publish, encode_pubrec, encode_pubrel,
};
pub use packet_id::PacketId;
pub use qos::{InvalidQoS, QoS};
pub use reason_code::{ConnectReturnCode, InvalidReasonCode, ReasonCode};
pub use topic::{
    ParsedFilter, SharedFilter, TopicError, levels, matches, parse_filter, validate_topic_filter,
    validate_topic_name,
};
pub use user_properties::{UserProperties, UserPropertiesBuf};
pub use version::ProtocolVersion;

/// Longest string or binary field that the wire format can carry, in bytes.
///
/// Source: MQTT 5.0 §1.5.4, MQTT 3.1.1 §1.5.3.
pub const STRING_BYTES_MAX: usize = 65_535;

/// Largest value of a Variable Byte Integer, hence the largest Remaining Length in bytes and the largest Subscription
/// Identifier.
///
/// Source: MQTT 5.0 §1.5.5, MQTT 3.1.1 §2.2.3.
pub const VARIABLE_BYTE_INTEGER_MAX: u32 = 268_435_455;
