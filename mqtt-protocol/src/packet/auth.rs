//! AUTH (MQTT 5.0 §3.15): a step of extended authentication.

use super::{PacketType, check_reason_code, reason_code};
use crate::{
    error::{DecodeError, EncodeError},
    property::{Place, Property, Section, put_properties},
    reason_code::ReasonCode,
    user_properties::UserProperties,
    version::ProtocolVersion,
    wire::{self, Reader},
};

/// A step of extended authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Success, Continue authentication or Re-authenticate.
    pub reason_code: ReasonCode,
    /// Name of the method. Missing only in the shortest form, Success with Remaining Length 0 (§3.15.2.1).
    pub authentication_method: Option<&'a str>,
    /// Data whose meaning the method defines.
    pub authentication_data: Option<&'a [u8]>,
    /// Text for diagnosis, not to be parsed.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Auth<'a> {
    /// Makes an AUTH of this method without other properties.
    pub const fn new(reason_code: ReasonCode, authentication_method: Option<&'a str>) -> Self {
        Self {
            reason_code,
            authentication_method,
            authentication_data: None,
            reason_string: None,
            user_properties: UserProperties::NONE,
        }
    }

    pub(super) fn decode(body: &'a [u8], version: ProtocolVersion) -> Result<Self, DecodeError> {
        if version != ProtocolVersion::V5 {
            return Err(DecodeError::Malformed("packet type 15 is reserved before MQTT 5.0"));
        }
        let mut reader = Reader::new(body);
        let mut auth = Self::new(ReasonCode::Success, None);
        if reader.is_empty() {
            return Ok(auth);
        }
        auth.reason_code = reason_code(reader.u8()?, PacketType::Auth)?;
        let mut section = Section::read(&mut reader, Place::AUTH)?;
        while let Some(property) = section.next()? {
            match property {
                Property::AuthenticationMethod(text) => auth.authentication_method = Some(text),
                Property::AuthenticationData(data) => auth.authentication_data = Some(data),
                Property::ReasonString(text) => auth.reason_string = Some(text),
                _ => debug_assert!(false, "the table allows no other here"),
            }
        }
        auth.user_properties = section.user_properties();
        reader.finish()?;
        if auth.authentication_method.is_none() {
            return Err(DecodeError::Protocol("authentication method is missing"));
        }
        Ok(auth)
    }

    pub(super) fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if version != ProtocolVersion::V5 {
            return Err(EncodeError::Forbidden("there is no AUTH packet before MQTT 5.0"));
        }
        check_reason_code(self.reason_code, PacketType::Auth)?;
        if *self == Self::new(ReasonCode::Success, None) {
            out.extend_from_slice(&[PacketType::Auth.first_byte(), 0]);
            return Ok(());
        }
        if self.authentication_method.is_none() {
            return Err(EncodeError::Forbidden("authentication method is missing"));
        }
        wire::put_packet(out, PacketType::Auth.first_byte(), |out| {
            out.push(self.reason_code.code());
            let properties = [
                self.authentication_method.map(Property::AuthenticationMethod),
                self.authentication_data.map(Property::AuthenticationData),
                self.reason_string.map(Property::ReasonString),
            ];
            put_properties(out, properties, &self.user_properties)
        })
    }
}
