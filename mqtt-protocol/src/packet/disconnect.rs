//! DISCONNECT (MQTT 5.0 §3.14, MQTT 3.1.1 §3.14), which both sides may send since 5.0.

use super::{PacketType, check_reason_code, reason_code};
use crate::{
    error::{DecodeError, EncodeError},
    property::{Place, Property, Section, put_properties},
    reason_code::ReasonCode,
    user_properties::UserProperties,
    version::ProtocolVersion,
    wire::{self, Reader},
};

/// End of a Network Connection; in 3.x without any content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Why; Normal disconnection in 3.x.
    pub reason_code: ReasonCode,
    /// New Session Expiry Interval, in seconds; only a Client may send it.
    pub session_expiry_interval_s: Option<u32>,
    /// Text for diagnosis, not to be parsed.
    pub reason_string: Option<&'a str>,
    /// Another Server to use; only a Server may send it.
    pub server_reference: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Disconnect<'a> {
    /// Makes a DISCONNECT without properties.
    pub const fn new(reason_code: ReasonCode) -> Self {
        Self {
            reason_code,
            session_expiry_interval_s: None,
            reason_string: None,
            server_reference: None,
            user_properties: UserProperties::NONE,
        }
    }

    pub(super) fn decode(body: &'a [u8], version: ProtocolVersion) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let mut disconnect = Self::new(ReasonCode::NormalDisconnection);
        if version.has_reason_codes() && !reader.is_empty() {
            disconnect.reason_code = reason_code(reader.u8()?, PacketType::Disconnect)?;
            if !reader.is_empty() {
                disconnect.read_properties(&mut reader)?;
            }
        }
        reader.finish()?;
        Ok(disconnect)
    }

    fn read_properties(&mut self, reader: &mut Reader<'a>) -> Result<(), DecodeError> {
        let mut section = Section::read(reader, Place::DISCONNECT)?;
        while let Some(property) = section.next()? {
            match property {
                Property::SessionExpiryInterval(value) => self.session_expiry_interval_s = Some(value),
                Property::ReasonString(text) => self.reason_string = Some(text),
                Property::ServerReference(text) => self.server_reference = Some(text),
                _ => debug_assert!(false, "the table allows no other here"),
            }
        }
        self.user_properties = section.user_properties();
        Ok(())
    }

    pub(super) fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if !version.has_reason_codes() {
            out.extend_from_slice(&[PacketType::Disconnect.first_byte(), 0]);
            return Ok(());
        }
        check_reason_code(self.reason_code, PacketType::Disconnect)?;
        let properties = [
            self.session_expiry_interval_s.map(Property::SessionExpiryInterval),
            self.reason_string.map(Property::ReasonString),
            self.server_reference.map(Property::ServerReference),
        ];
        let has_properties = properties.iter().any(Option::is_some) || !self.user_properties.is_empty();
        wire::put_packet(out, PacketType::Disconnect.first_byte(), |out| {
            if self.reason_code != ReasonCode::NormalDisconnection || has_properties {
                out.push(self.reason_code.code());
            }
            if has_properties { put_properties(out, properties, &self.user_properties) } else { Ok(()) }
        })
    }
}
