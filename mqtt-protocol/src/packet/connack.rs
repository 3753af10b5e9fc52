//! CONNACK (MQTT 5.0 §3.2, MQTT 3.1.1 §3.2).

use std::num::{NonZeroU16, NonZeroU32};

use super::{PacketType, check_reason_code, reason_code};
use crate::{
    error::{DecodeError, EncodeError},
    property::{Place, Property, Section, put_properties},
    qos::QoS,
    reason_code::{ConnectReturnCode, ReasonCode},
    user_properties::UserProperties,
    version::ProtocolVersion,
    wire::{self, Reader},
};

const SESSION_PRESENT: u8 = 1;

/// Answer to a CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// The Server has a Session for this Client; false in 3.1.
    pub session_present: bool,
    /// Outcome; encoded as its [`ConnectReturnCode`] in 3.x.
    pub reason_code: ReasonCode,
    /// Properties; none in 3.x.
    pub properties: ConnAckProperties<'a>,
}

/// Properties of a CONNACK, `None` where it has none. Source: MQTT 5.0 §3.2.2.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnAckProperties<'a> {
    /// Session Expiry Interval in use, in seconds, when it is not the one asked for.
    pub session_expiry_interval_s: Option<u32>,
    /// How many unacknowledged messages of QoS 1 and 2 the Server takes; 1 or more.
    pub receive_maximum: Option<u16>,
    /// QoS 0 or 1; 2 is said by `None`.
    pub maximum_qos: Option<QoS>,
    /// Whether the Server keeps Retained Messages.
    pub retain_available: Option<bool>,
    /// Largest packet that the Server takes, in bytes; 1 or more.
    pub maximum_packet_size: Option<u32>,
    /// Client Identifier that the Server chose for a Client without one.
    pub assigned_client_identifier: Option<&'a str>,
    /// Highest Topic Alias that the Server takes.
    pub topic_alias_maximum: Option<u16>,
    /// Text for diagnosis, not to be parsed.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// Whether Topic Filters may hold wildcards.
    pub wildcard_subscription_available: Option<bool>,
    /// Whether the Server has Subscription Identifiers.
    pub subscription_identifiers_available: Option<bool>,
    /// Whether the Server has Shared Subscriptions.
    pub shared_subscription_available: Option<bool>,
    /// Keep Alive that the Client must use instead of its own, in seconds.
    pub server_keep_alive_s: Option<u16>,
    /// Basis for Response Topics.
    pub response_information: Option<&'a str>,
    /// Another Server to use.
    pub server_reference: Option<&'a str>,
    /// Name of the authentication method.
    pub authentication_method: Option<&'a str>,
    /// Data whose meaning the method defines.
    pub authentication_data: Option<&'a [u8]>,
}

impl<'a> ConnAck<'a> {
    /// Makes a CONNACK without properties and without Session Present.
    pub fn new(reason_code: ReasonCode) -> Self {
        Self { session_present: false, reason_code, properties: ConnAckProperties::default() }
    }

    pub(super) fn decode(body: &'a [u8], version: ProtocolVersion) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let flags = reader.u8()?;
        let code = reader.u8()?;
        let session_present = match version {
            ProtocolVersion::V3_1 => false, // the byte has no meaning there
            _ if flags > SESSION_PRESENT => {
                return Err(DecodeError::Malformed("reserved bits of the connect acknowledge flags are set"));
            }
            _ => flags == SESSION_PRESENT,
        };
        let mut connack = Self::new(ReasonCode::Success);
        connack.session_present = session_present;
        if version.has_reason_codes() {
            connack.reason_code = reason_code(code, PacketType::ConnAck)?;
            connack.properties = ConnAckProperties::read(&mut reader)?;
        } else {
            connack.reason_code = ConnectReturnCode::try_from(code)
                .map_err(|_| DecodeError::Protocol("connect return code is above 5"))?
                .reason_code();
        }
        reader.finish()?;
        if session_present && connack.reason_code != ReasonCode::Success {
            // [MQTT-3.2.2-6, v5] [MQTT-3.2.2-4, v3.1.1]
            return Err(DecodeError::Protocol("session present is set in a refusal"));
        }
        Ok(connack)
    }

    pub(super) fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.session_present && self.reason_code != ReasonCode::Success {
            return Err(EncodeError::Forbidden("session present is set in a refusal"));
        }
        check_reason_code(self.reason_code, PacketType::ConnAck)?;
        wire::put_packet(out, PacketType::ConnAck.first_byte(), |out| {
            out.push(u8::from(self.session_present && version != ProtocolVersion::V3_1));
            if version.has_reason_codes() {
                out.push(self.reason_code.code());
                self.properties.put(out)
            } else {
                out.push(self.reason_code.connect_return_code().code());
                Ok(())
            }
        })
    }
}

impl<'a> ConnAckProperties<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut section = Section::read(reader, Place::CONNACK)?;
        let mut read = Self::default();
        while let Some(property) = section.next()? {
            match property {
                Property::SessionExpiryInterval(value) => read.session_expiry_interval_s = Some(value),
                Property::ReceiveMaximum(value) => read.receive_maximum = Some(value.get()),
                Property::MaximumQoS(value) => read.maximum_qos = Some(value),
                Property::RetainAvailable(value) => read.retain_available = Some(value),
                Property::MaximumPacketSize(value) => read.maximum_packet_size = Some(value.get()),
                Property::AssignedClientIdentifier(text) => read.assigned_client_identifier = Some(text),
                Property::TopicAliasMaximum(value) => read.topic_alias_maximum = Some(value),
                Property::ReasonString(text) => read.reason_string = Some(text),
                Property::WildcardSubscriptionAvailable(value) => {
                    read.wildcard_subscription_available = Some(value)
                }
                Property::SubscriptionIdentifiersAvailable(value) => {
                    read.subscription_identifiers_available = Some(value);
                }
                Property::SharedSubscriptionAvailable(value) => {
                    read.shared_subscription_available = Some(value)
                }
                Property::ServerKeepAlive(value) => read.server_keep_alive_s = Some(value),
                Property::ResponseInformation(text) => read.response_information = Some(text),
                Property::ServerReference(text) => read.server_reference = Some(text),
                Property::AuthenticationMethod(text) => read.authentication_method = Some(text),
                Property::AuthenticationData(data) => read.authentication_data = Some(data),
                _ => debug_assert!(false, "the table allows no other here"),
            }
        }
        read.user_properties = section.user_properties();
        Ok(read)
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let receive_maximum = match self.receive_maximum.map(NonZeroU16::new) {
            Some(None) => return Err(EncodeError::Forbidden("receive maximum is 0")),
            value => value.flatten(),
        };
        let maximum_packet_size = match self.maximum_packet_size.map(NonZeroU32::new) {
            Some(None) => return Err(EncodeError::Forbidden("maximum packet size is 0")),
            value => value.flatten(),
        };
        let properties = [
            self.session_expiry_interval_s.map(Property::SessionExpiryInterval),
            receive_maximum.map(Property::ReceiveMaximum),
            self.maximum_qos.map(Property::MaximumQoS),
            self.retain_available.map(Property::RetainAvailable),
            maximum_packet_size.map(Property::MaximumPacketSize),
            self.assigned_client_identifier.map(Property::AssignedClientIdentifier),
            self.topic_alias_maximum.map(Property::TopicAliasMaximum),
            self.reason_string.map(Property::ReasonString),
            self.wildcard_subscription_available.map(Property::WildcardSubscriptionAvailable),
            self.subscription_identifiers_available.map(Property::SubscriptionIdentifiersAvailable),
            self.shared_subscription_available.map(Property::SharedSubscriptionAvailable),
            self.server_keep_alive_s.map(Property::ServerKeepAlive),
            self.response_information.map(Property::ResponseInformation),
            self.server_reference.map(Property::ServerReference),
            self.authentication_method.map(Property::AuthenticationMethod),
            self.authentication_data.map(Property::AuthenticationData),
        ];
        put_properties(out, properties, &self.user_properties)
    }
}
