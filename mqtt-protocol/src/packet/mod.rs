//! Control Packets, one file for each, decode beside encode.
//!
//! All of them borrow from the [`Frame`] they are decoded from. A packet that only one side may send decodes like any
//! other; who may send what is for the caller to judge.

mod ack;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod outgoing;
mod publish;
mod suback;
mod subscribe;
mod unsuback;
mod unsubscribe;

use std::fmt;

use crate::{
    error::{DecodeError, EncodeError},
    frame::{Frame, RESERVED_FLAGS},
    reason_code::ReasonCode,
    version::ProtocolVersion,
};

pub use ack::{Ack, encode_puback, encode_pubcomp, encode_pubrec, encode_pubrel};
pub use auth::Auth;
pub use connack::{ConnAck, ConnAckProperties};
pub use connect::{Connect, ConnectProperties, Will};
pub use disconnect::Disconnect;
pub use outgoing::{AliasUse, Outgoing, PublishLayout, encode_publish};
pub(crate) use publish::check_publish_flags;
pub use publish::{
    Publish, PublishProperties, ReceivedProperties, SubscriptionIdentifiers, SubscriptionIdentifiersIter,
};
pub use suback::SubAck;
pub use subscribe::{
    RetainHandling, Subscribe, SubscribeFilter, SubscribeFilters, SubscribeFiltersBuf, SubscribeFiltersIter,
    SubscriptionOptions,
};
pub use unsuback::UnsubAck;
pub use unsubscribe::{TopicFilters, TopicFiltersBuf, TopicFiltersIter, Unsubscribe};

/// Type of a Control Packet, the high four bits of its first byte. Source: MQTT 5.0 §2.1.2, MQTT 3.1.1 §2.2.1.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PacketType {
    /// CONNECT.
    Connect = 1,
    /// CONNACK.
    ConnAck = 2,
    /// PUBLISH.
    Publish = 3,
    /// PUBACK.
    PubAck = 4,
    /// PUBREC.
    PubRec = 5,
    /// PUBREL.
    PubRel = 6,
    /// PUBCOMP.
    PubComp = 7,
    /// SUBSCRIBE.
    Subscribe = 8,
    /// SUBACK.
    SubAck = 9,
    /// UNSUBSCRIBE.
    Unsubscribe = 10,
    /// UNSUBACK.
    UnsubAck = 11,
    /// PINGREQ.
    PingReq = 12,
    /// PINGRESP.
    PingResp = 13,
    /// DISCONNECT.
    Disconnect = 14,
    /// AUTH, since MQTT 5.0.
    Auth = 15,
}

impl PacketType {
    /// Every type, ascending.
    pub const ALL: [Self; 15] = [
        Self::Connect,
        Self::ConnAck,
        Self::Publish,
        Self::PubAck,
        Self::PubRec,
        Self::PubRel,
        Self::PubComp,
        Self::Subscribe,
        Self::SubAck,
        Self::Unsubscribe,
        Self::UnsubAck,
        Self::PingReq,
        Self::PingResp,
        Self::Disconnect,
        Self::Auth,
    ];

    /// Reads the type from the first byte of a packet; `None` for the reserved type 0.
    pub const fn of(first_byte: u8) -> Option<Self> {
        Some(match first_byte >> 4 {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// Returns the first byte of such a packet with its fixed flags; for PUBLISH with all flags 0.
    pub const fn first_byte(self) -> u8 {
        let flags = match self {
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            _ => 0,
        };
        ((self as u8) << 4) | flags
    }

    /// Returns the specification's name, in capitals.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::ConnAck => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::PubAck => "PUBACK",
            Self::PubRec => "PUBREC",
            Self::PubRel => "PUBREL",
            Self::PubComp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::SubAck => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::UnsubAck => "UNSUBACK",
            Self::PingReq => "PINGREQ",
            Self::PingResp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        }
    }
}

impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One decoded Control Packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    /// CONNECT; boxed, since it is large and comes once.
    Connect(Box<Connect<'a>>),
    /// CONNACK.
    ConnAck(ConnAck<'a>),
    /// PUBLISH.
    Publish(Publish<'a>),
    /// PUBACK.
    PubAck(Ack<'a>),
    /// PUBREC.
    PubRec(Ack<'a>),
    /// PUBREL.
    PubRel(Ack<'a>),
    /// PUBCOMP.
    PubComp(Ack<'a>),
    /// SUBSCRIBE.
    Subscribe(Subscribe<'a>),
    /// SUBACK.
    SubAck(SubAck<'a>),
    /// UNSUBSCRIBE.
    Unsubscribe(Unsubscribe<'a>),
    /// UNSUBACK.
    UnsubAck(UnsubAck<'a>),
    /// PINGREQ.
    PingReq,
    /// PINGRESP.
    PingResp,
    /// DISCONNECT.
    Disconnect(Disconnect<'a>),
    /// AUTH, since MQTT 5.0.
    Auth(Auth<'a>),
}

impl<'a> Packet<'a> {
    /// Decodes one packet; `version` is the connection's, and does not matter for a CONNECT, which says its own.
    ///
    /// # Errors
    /// Every Malformed Packet and Protocol Error that the packet shows by itself.
    #[inline]
    pub fn decode(frame: &Frame<'a>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let Some(packet_type) = PacketType::of(frame.first_byte) else {
            return Err(DecodeError::Malformed("packet type 0 is reserved"));
        };
        if version == ProtocolVersion::V5 && packet_type != PacketType::Connect {
            check_length_form(frame)?;
        }
        if packet_type == PacketType::Publish {
            return Publish::decode(frame, version).map(Self::Publish);
        }
        check_flags(frame.first_byte, packet_type, version)?;
        let body = frame.body;
        Ok(match packet_type {
            PacketType::Connect => Self::Connect(Box::new(Connect::decode(frame)?)),
            PacketType::ConnAck => Self::ConnAck(ConnAck::decode(body, version)?),
            PacketType::Publish => Self::Publish(Publish::decode(frame, version)?),
            PacketType::PubAck => Self::PubAck(Ack::decode(body, packet_type, version)?),
            PacketType::PubRec => Self::PubRec(Ack::decode(body, packet_type, version)?),
            PacketType::PubRel => Self::PubRel(Ack::decode(body, packet_type, version)?),
            PacketType::PubComp => Self::PubComp(Ack::decode(body, packet_type, version)?),
            PacketType::Subscribe => Self::Subscribe(Subscribe::decode(body, version)?),
            PacketType::SubAck => Self::SubAck(SubAck::decode(body, version)?),
            PacketType::Unsubscribe => Self::Unsubscribe(Unsubscribe::decode(body, version)?),
            PacketType::UnsubAck => Self::UnsubAck(UnsubAck::decode(body, version)?),
            PacketType::PingReq => empty(body, Self::PingReq)?,
            PacketType::PingResp => empty(body, Self::PingResp)?,
            PacketType::Disconnect => Self::Disconnect(Disconnect::decode(body, version)?),
            PacketType::Auth => Self::Auth(Auth::decode(body, version)?),
        })
    }

    /// Appends the packet; `version` is the connection's, and does not matter for a CONNECT, which holds its own.
    ///
    /// What a version has no place for (properties and most Reason Codes before 5.0) is left out.
    ///
    /// # Errors
    /// A packet that no receiver may accept; `out` is unchanged then.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Self::Connect(connect) => connect.encode(out),
            Self::ConnAck(connack) => connack.encode(version, out),
            Self::Publish(publish) => publish.encode(version, out),
            Self::PubAck(ack) => ack.encode(PacketType::PubAck, version, out),
            Self::PubRec(ack) => ack.encode(PacketType::PubRec, version, out),
            Self::PubRel(ack) => ack.encode(PacketType::PubRel, version, out),
            Self::PubComp(ack) => ack.encode(PacketType::PubComp, version, out),
            Self::Subscribe(subscribe) => subscribe.encode(version, out),
            Self::SubAck(suback) => suback.encode(version, out),
            Self::Unsubscribe(unsubscribe) => unsubscribe.encode(version, out),
            Self::UnsubAck(unsuback) => unsuback.encode(version, out),
            Self::PingReq => {
                encode_pingreq(out);
                Ok(())
            }
            Self::PingResp => {
                encode_pingresp(out);
                Ok(())
            }
            Self::Disconnect(disconnect) => disconnect.encode(version, out),
            Self::Auth(auth) => auth.encode(version, out),
        }
    }

    /// Returns the type of the packet.
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }
}

/// Appends a PINGREQ.
pub fn encode_pingreq(out: &mut Vec<u8>) {
    out.extend_from_slice(&[PacketType::PingReq.first_byte(), 0]);
}

/// Appends a PINGRESP.
pub fn encode_pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[PacketType::PingResp.first_byte(), 0]);
}

/// Checks the flags of all packets but PUBLISH [MQTT-2.1.3-1, v5] [MQTT-2.2.2-1, v3.1.1].
///
/// MQTT 3.1 §2.1 gives PUBREL, SUBSCRIBE and UNSUBSCRIBE a DUP flag, which is accepted and not kept.
fn check_flags(first_byte: u8, packet_type: PacketType, version: ProtocolVersion) -> Result<(), DecodeError> {
    const DUP: u8 = 0b1000;
    let expected = packet_type.first_byte();
    let has_dup = matches!(packet_type, PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe)
        && version == ProtocolVersion::V3_1;
    if first_byte == expected || (has_dup && first_byte == expected | DUP) {
        Ok(())
    } else {
        Err(RESERVED_FLAGS)
    }
}

/// Refuses a Remaining Length that is not in its shortest form [MQTT-1.5.5-1, v5]; 3.1.1 has no such rule.
fn check_length_form(frame: &Frame<'_>) -> Result<(), DecodeError> {
    if frame.is_length_padded() {
        Err(DecodeError::Malformed("remaining length is longer than its value needs"))
    } else {
        Ok(())
    }
}

fn empty<'a>(body: &[u8], packet: Packet<'a>) -> Result<Packet<'a>, DecodeError> {
    if body.is_empty() { Ok(packet) } else { Err(DecodeError::Malformed("remaining length is not 0")) }
}

/// Reads a Reason Code that this packet may hold.
fn reason_code(code: u8, packet: PacketType) -> Result<ReasonCode, DecodeError> {
    match ReasonCode::try_from(code) {
        Ok(code) if code.is_valid_in(packet) => Ok(code),
        _ => Err(DecodeError::Protocol("reason code is not one of this packet")),
    }
}

/// Checks a Reason Code that is about to be sent.
fn check_reason_code(code: ReasonCode, packet: PacketType) -> Result<(), EncodeError> {
    if code.is_valid_in(packet) { Ok(()) } else { Err(EncodeError::ReasonCode { code: code.code(), packet }) }
}
