//! PUBACK, PUBREC, PUBREL and PUBCOMP, which differ in type and Reason Codes only.
//!
//! MQTT 5.0 §3.4.2: Remaining Length 2 stands for Success without properties, 3 for no properties. 3.x has only the
//! form of length 2.

use super::{PacketType, check_reason_code, reason_code};
use crate::{
    error::{DecodeError, EncodeError},
    packet_id::PacketId,
    property::{Place, Property, Section, put_properties},
    reason_code::ReasonCode,
    user_properties::UserProperties,
    version::ProtocolVersion,
    wire::{self, Reader},
};

/// Acknowledgement of a PUBLISH or of another acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Packet Identifier of the PUBLISH.
    pub packet_id: PacketId,
    /// Outcome; Success in 3.x.
    pub reason_code: ReasonCode,
    /// Text for diagnosis, not to be parsed.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Ack<'a> {
    /// Makes an acknowledgement without properties.
    pub const fn new(packet_id: PacketId, reason_code: ReasonCode) -> Self {
        Self { packet_id, reason_code, reason_string: None, user_properties: UserProperties::NONE }
    }

    pub(super) fn decode(
        body: &'a [u8],
        packet: PacketType,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let mut ack = Self::new(reader.packet_id()?, ReasonCode::Success);
        if version.has_reason_codes() && !reader.is_empty() {
            ack.reason_code = reason_code(reader.u8()?, packet)?;
            if !reader.is_empty() {
                let mut section = Section::read(&mut reader, Place::ACK)?;
                while let Some(property) = section.next()? {
                    if let Property::ReasonString(text) = property {
                        ack.reason_string = Some(text);
                    }
                }
                ack.user_properties = section.user_properties();
            }
        }
        reader.finish()?;
        Ok(ack)
    }

    pub(super) fn encode(
        &self,
        packet: PacketType,
        version: ProtocolVersion,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        if !version.has_reason_codes() {
            encode_short(out, packet, version, self.packet_id, ReasonCode::Success);
            return Ok(());
        }
        check_reason_code(self.reason_code, packet)?;
        if self.reason_string.is_none() && self.user_properties.is_empty() {
            encode_short(out, packet, version, self.packet_id, self.reason_code);
            return Ok(());
        }
        wire::put_packet(out, packet.first_byte(), |out| {
            wire::put_u16(out, self.packet_id.get());
            out.push(self.reason_code.code());
            put_properties(out, [self.reason_string.map(Property::ReasonString)], &self.user_properties)
        })
    }
}

/// Appends a PUBACK without properties; the Reason Code goes out in 5.0 only and must be one of PUBACK's.
pub fn encode_puback(
    out: &mut Vec<u8>,
    version: ProtocolVersion,
    packet_id: PacketId,
    reason_code: ReasonCode,
) {
    encode_short(out, PacketType::PubAck, version, packet_id, reason_code);
}

/// Appends a PUBREC without properties; the Reason Code goes out in 5.0 only and must be one of PUBREC's.
pub fn encode_pubrec(
    out: &mut Vec<u8>,
    version: ProtocolVersion,
    packet_id: PacketId,
    reason_code: ReasonCode,
) {
    encode_short(out, PacketType::PubRec, version, packet_id, reason_code);
}

/// Appends a PUBREL without properties; the Reason Code goes out in 5.0 only and must be one of PUBREL's.
pub fn encode_pubrel(
    out: &mut Vec<u8>,
    version: ProtocolVersion,
    packet_id: PacketId,
    reason_code: ReasonCode,
) {
    encode_short(out, PacketType::PubRel, version, packet_id, reason_code);
}

/// Appends a PUBCOMP without properties; the Reason Code goes out in 5.0 only and must be one of PUBCOMP's.
pub fn encode_pubcomp(
    out: &mut Vec<u8>,
    version: ProtocolVersion,
    packet_id: PacketId,
    reason_code: ReasonCode,
) {
    encode_short(out, PacketType::PubComp, version, packet_id, reason_code);
}

#[inline]
fn encode_short(
    out: &mut Vec<u8>,
    packet: PacketType,
    version: ProtocolVersion,
    packet_id: PacketId,
    reason_code: ReasonCode,
) {
    debug_assert!(reason_code.is_valid_in(packet), "{reason_code} in a {packet}");
    let [high, low] = packet_id.get().to_be_bytes();
    if version.has_reason_codes() && reason_code != ReasonCode::Success {
        out.extend_from_slice(&[packet.first_byte(), 3, high, low, reason_code.code()]);
    } else {
        out.extend_from_slice(&[packet.first_byte(), 2, high, low]);
    }
}
