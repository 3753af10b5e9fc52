//! UNSUBACK (MQTT 5.0 §3.11, MQTT 3.1.1 §3.11).

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

/// Answer to an UNSUBSCRIBE; in 3.x a bare Packet Identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// Packet Identifier of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// Reason Codes as bytes, one for each filter in their order; empty in 3.x.
    pub codes: &'a [u8],
    /// Text for diagnosis, not to be parsed.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

impl<'a> UnsubAck<'a> {
    /// Makes an UNSUBACK without properties.
    pub const fn new(packet_id: PacketId, codes: &'a [u8]) -> Self {
        Self { packet_id, codes, reason_string: None, user_properties: UserProperties::NONE }
    }

    /// Iterates over the Reason Codes; bytes that are none (possible only when made by hand) are left out.
    pub fn reason_codes(&self) -> impl Iterator<Item = ReasonCode> {
        self.codes.iter().filter_map(|&code| ReasonCode::try_from(code).ok())
    }

    pub(super) fn decode(body: &'a [u8], version: ProtocolVersion) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let mut unsuback = Self::new(reader.packet_id()?, &[]);
        if !version.has_properties() {
            reader.finish()?;
            return Ok(unsuback);
        }
        let mut section = Section::read(&mut reader, Place::UNSUBACK)?;
        while let Some(property) = section.next()? {
            if let Property::ReasonString(text) = property {
                unsuback.reason_string = Some(text);
            }
        }
        unsuback.user_properties = section.user_properties();
        unsuback.codes = reader.rest();
        if unsuback.codes.is_empty() {
            return Err(DecodeError::Malformed("unsuback has no payload"));
        }
        if !unsuback.codes.iter().all(|&code| is_valid(code)) {
            return Err(DecodeError::Protocol("reason code is not one of this packet"));
        }
        Ok(unsuback)
    }

    pub(super) fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if version.has_properties() {
            if self.codes.is_empty() {
                return Err(EncodeError::Forbidden("unsuback needs a reason code for each filter"));
            }
            if let Some(&code) = self.codes.iter().find(|&&code| !is_valid(code)) {
                return Err(EncodeError::ReasonCode { code, packet: PacketType::UnsubAck });
            }
        }
        wire::put_packet(out, PacketType::UnsubAck.first_byte(), |out| {
            wire::put_u16(out, self.packet_id.get());
            if version.has_properties() {
                put_properties(out, [self.reason_string.map(Property::ReasonString)], &self.user_properties)?;
                out.extend_from_slice(self.codes);
            }
            Ok(())
        })
    }
}

fn is_valid(code: u8) -> bool {
    ReasonCode::try_from(code).is_ok_and(|code| code.is_valid_in(PacketType::UnsubAck))
}
