//! Why bytes are no packet, and why a packet cannot become bytes.

use crate::{packet::PacketType, reason_code::ReasonCode, topic::TopicError};

/// Why a packet was refused; small and without allocation, since a peer can cause any number of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes cannot be parsed as the specification says (Malformed Packet, MQTT 5.0 §4.13).
    #[error("malformed packet: {0}")]
    Malformed(&'static str),
    /// The bytes parse but say something that the protocol forbids (Protocol Error, MQTT 5.0 §4.13).
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// The packet is larger than the receiver allows; both numbers are whole packets in bytes.
    #[error("packet of {size} bytes exceeds the maximum packet size of {limit}")]
    PacketTooLarge {
        /// Size that the fixed header announces.
        size: u32,
        /// Largest size that is accepted.
        limit: u32,
    },
    /// A CONNECT with the Protocol Name of MQTT and a Protocol Level that is not known.
    #[error("protocol level {level} is none of 3 (MQIsdp), 4 and 5 (MQTT)")]
    UnsupportedVersion {
        /// Protocol Level byte as received.
        level: u8,
    },
    /// A CONNECT whose Protocol Name is neither `MQTT` nor `MQIsdp` [MQTT-3.1.2-1, v3.1.1 and v5].
    #[error("protocol name is neither MQTT nor MQIsdp")]
    UnknownProtocolName,
    /// A Topic Name that breaks the rules of MQTT 5.0 §4.7 while being a well-formed string.
    #[error("topic name: {0}")]
    TopicInvalid(TopicError),
    /// Topic Alias 0 [MQTT-3.3.2-8, v5].
    #[error("topic alias 0 is not permitted")]
    TopicAliasInvalid,
}

impl DecodeError {
    /// Returns the Reason Code to send in CONNACK or DISCONNECT before the Network Connection is closed.
    ///
    /// Source: MQTT 5.0 §4.13.
    pub const fn reason_code(&self) -> ReasonCode {
        match self {
            Self::Malformed(_) => ReasonCode::MalformedPacket,
            Self::Protocol(_) => ReasonCode::ProtocolError,
            Self::PacketTooLarge { .. } => ReasonCode::PacketTooLarge,
            Self::UnsupportedVersion { .. } | Self::UnknownProtocolName => {
                ReasonCode::UnsupportedProtocolVersion
            }
            Self::TopicInvalid(_) => ReasonCode::TopicNameInvalid,
            Self::TopicAliasInvalid => ReasonCode::TopicAliasInvalid,
        }
    }
}

/// Why a packet cannot be encoded; always a fault of the caller, never of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A string or binary field longer than 65,535 bytes.
    #[error("field of {len} bytes exceeds the limit of {limit}", limit = crate::STRING_BYTES_MAX)]
    FieldTooLong {
        /// Length of the field, in bytes.
        len: usize,
    },
    /// A Remaining Length above 268,435,455.
    #[error("remaining length of {len} bytes exceeds the limit of {limit}", limit = crate::VARIABLE_BYTE_INTEGER_MAX)]
    PacketTooLarge {
        /// Remaining Length that the packet would have, in bytes.
        len: usize,
    },
    /// A string with the character U+0000 [MQTT-1.5.4-2, v5] [MQTT-1.5.3-2, v3.1.1].
    #[error("string holds the character U+0000")]
    NulCharacter,
    /// A topic that no receiver may accept.
    #[error("topic name: {0}")]
    TopicInvalid(TopicError),
    /// A Reason Code that the specification does not list for this packet.
    #[error("reason code 0x{code:02x} is not for {packet} packets")]
    ReasonCode {
        /// The code.
        code: u8,
        /// The packet it was to go in.
        packet: PacketType,
    },
    /// A field or a combination of fields that the protocol forbids.
    #[error("{0}")]
    Forbidden(&'static str),
}
