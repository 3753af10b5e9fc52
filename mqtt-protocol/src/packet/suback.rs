//! SUBACK (MQTT 5.0 §3.9, MQTT 3.1.1 §3.9).

use super::PacketType;
use crate::{
    error::{DecodeError, EncodeError},
    packet_id::PacketId,
    property::{Place, Property, Section, put_properties},
    reason_code::ReasonCode,
    user_properties::UserProperties,
    version::ProtocolVersion,
    wire::{self, Reader},
};

/// The only failure that a SUBACK of 3.x knows (3.1.1 §3.9.3).
const FAILURE_V3: u8 = 0x80;

/// Answer to a SUBSCRIBE: one code for each filter, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// Packet Identifier of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// Reason Codes as bytes; on encoding for 3.x every failure becomes 0x80.
    pub codes: &'a [u8],
    /// Text for diagnosis, not to be parsed.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

impl<'a> SubAck<'a> {
    /// Makes a SUBACK without properties.
    pub const fn new(packet_id: PacketId, codes: &'a [u8]) -> Self {
        Self { packet_id, codes, reason_string: None, user_properties: UserProperties::NONE }
    }

    /// Iterates over the Reason Codes; bytes that are none (possible only when made by hand) are left out.
    pub fn reason_codes(&self) -> impl Iterator<Item = ReasonCode> {
        self.codes.iter().filter_map(|&code| ReasonCode::try_from(code).ok())
    }

    pub(super) fn decode(body: &'a [u8], version: ProtocolVersion) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let mut suback = Self::new(reader.packet_id()?, &[]);
        if version.has_properties() {
            let mut section = Section::read(&mut reader, Place::SUBACK)?;
            while let Some(property) = section.next()? {
                if let Property::ReasonString(text) = property {
                    suback.reason_string = Some(text);
                }
            }
            suback.user_properties = section.user_properties();
        }
        suback.codes = reader.rest();
        if suback.codes.is_empty() {
            return Err(DecodeError::Malformed("suback has no payload"));
        }
        if !suback.codes.iter().all(|&code| is_valid(code, version)) {
            // Codes other than these are reserved [MQTT-3.9.3-2, v3.1.1] [MQTT-3.9.3-2, v5].
            return Err(DecodeError::Protocol("reason code is not one of this packet"));
        }
        Ok(suback)
    }

    pub(super) fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.codes.is_empty() {
            return Err(EncodeError::Forbidden("suback needs a reason code for each filter"));
        }
        if let Some(&code) = self.codes.iter().find(|&&code| !is_valid(code, ProtocolVersion::V5)) {
            return Err(EncodeError::ReasonCode { code, packet: PacketType::SubAck });
        }
        wire::put_packet(out, PacketType::SubAck.first_byte(), |out| {
            wire::put_u16(out, self.packet_id.get());
            if version.has_properties() {
                put_properties(out, [self.reason_string.map(Property::ReasonString)], &self.user_properties)?;
                out.extend_from_slice(self.codes);
            } else {
                out.extend(self.codes.iter().map(|&code| code.min(FAILURE_V3)));
            }
            Ok(())
        })
    }
}

fn is_valid(code: u8, version: ProtocolVersion) -> bool {
    if version.has_reason_codes() {
        ReasonCode::try_from(code).is_ok_and(|code| code.is_valid_in(PacketType::SubAck))
    } else {
        matches!(code, 0..=2 | FAILURE_V3)
    }
}
