//! CONNECT (MQTT 5.0 §3.1, MQTT 3.1.1 §3.1, MQTT 3.1 §3.1).
//!
//! Where 3.1 says something of its own it is followed: the Will bits are unused without the Will Flag, and the User Name
//! and Password may be missing from the payload although their flags are set (the Remaining Length decides).

use std::num::{NonZeroU16, NonZeroU32};

use super::{PacketType, PublishProperties, check_length_form, publish};
use crate::{
    error::{DecodeError, EncodeError},
    frame::Frame,
    property::{Place, Property, Section, put_properties},
    qos::QoS,
    topic::validate_topic_name,
    user_properties::UserProperties,
    version::ProtocolVersion,
    wire::{self, Reader},
};

const RESERVED: u8 = 1;
const CLEAN_START: u8 = 1 << 1;
const WILL: u8 = 1 << 2;
const WILL_QOS_SHIFT: u8 = 3;
const WILL_QOS: u8 = 0b11 << WILL_QOS_SHIFT;
const WILL_RETAIN: u8 = 1 << 5;
const PASSWORD: u8 = 1 << 6;
const USERNAME: u8 = 1 << 7;
/// Bit of the Protocol Level by which Mosquitto's bridges say what they are.
const BRIDGE: u8 = 0x80;

/// First packet of a Client.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// Version of the protocol, for the whole Network Connection.
    pub version: ProtocolVersion,
    /// Clean Start; in 3.x Clean Session.
    pub clean_start: bool,
    /// Keep Alive, in seconds; 0 for none.
    pub keep_alive_s: u16,
    /// Client Identifier; may be empty.
    pub client_id: &'a str,
    /// User Name.
    pub username: Option<&'a str>,
    /// Password; needs a User Name before 5.0.
    pub password: Option<&'a [u8]>,
    /// Will Message.
    pub will: Option<Will<'a>>,
    /// Properties; the defaults in 3.x.
    pub properties: ConnectProperties<'a>,
    /// The Client is a bridge (bit 0x80 of the Protocol Level, a convention of Mosquitto's): it wants the RETAIN flag
    /// as published and none of its own messages back.
    pub is_bridge: bool,
}

/// Will Message of a CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Will<'a> {
    /// QoS to publish it with.
    pub qos: QoS,
    /// Whether to publish it as a Retained Message.
    pub retain: bool,
    /// Topic Name, valid.
    pub topic: &'a str,
    /// Payload, up to 65,535 bytes.
    pub payload: &'a [u8],
    /// How long to wait before it is published, in seconds.
    pub delay_interval_s: u32,
    /// Properties to publish it with; no Topic Alias, no Subscription Identifiers.
    pub publish: PublishProperties<'a>,
}

/// Properties of a CONNECT; absent ones have the specification's default. Source: MQTT 5.0 §3.1.2.11.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ConnectProperties<'a> {
    /// How long the Session outlives the Network Connection, in seconds; 0xFFFFFFFF: for ever. Default 0.
    pub session_expiry_interval_s: u32,
    /// How many unacknowledged messages of QoS 1 and 2 the Client takes; 1 or more. Default 65,535.
    pub receive_maximum: u16,
    /// Largest packet that the Client takes, in bytes; 1 or more. Default: no limit.
    pub maximum_packet_size: Option<u32>,
    /// Highest Topic Alias that the Client takes. Default 0: none.
    pub topic_alias_maximum: u16,
    /// The Client would like Response Information. Default false.
    pub request_response_information: bool,
    /// Reason String and User Properties may be sent in any packet. Default true.
    pub request_problem_information: bool,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// Name of the authentication method.
    pub authentication_method: Option<&'a str>,
    /// Data whose meaning the method defines; needs a method.
    pub authentication_data: Option<&'a [u8]>,
}

impl Default for ConnectProperties<'_> {
    fn default() -> Self {
        Self {
            session_expiry_interval_s: 0,
            receive_maximum: u16::MAX,
            maximum_packet_size: None,
            topic_alias_maximum: 0,
            request_response_information: false,
            request_problem_information: true,
            user_properties: UserProperties::NONE,
            authentication_method: None,
            authentication_data: None,
        }
    }
}

impl std::fmt::Debug for Connect<'_> {
    /// Leaves out the Password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("clean_start", &self.clean_start)
            .field("keep_alive_s", &self.keep_alive_s)
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .field("password", &self.password.map(|_| "…"))
            .field("will", &self.will)
            .field("properties", &self.properties)
            .field("is_bridge", &self.is_bridge)
            .finish()
    }
}

impl std::fmt::Debug for ConnectProperties<'_> {
    /// Leaves out the Authentication Data.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectProperties")
            .field("session_expiry_interval_s", &self.session_expiry_interval_s)
            .field("receive_maximum", &self.receive_maximum)
            .field("maximum_packet_size", &self.maximum_packet_size)
            .field("topic_alias_maximum", &self.topic_alias_maximum)
            .field("request_response_information", &self.request_response_information)
            .field("request_problem_information", &self.request_problem_information)
            .field("user_properties", &self.user_properties)
            .field("authentication_method", &self.authentication_method)
            .field("authentication_data", &self.authentication_data.map(|_| "…"))
            .finish()
    }
}

impl<'a> Connect<'a> {
    /// Makes a CONNECT without User Name, Password, Will Message and properties, with Clean Start and Keep Alive 0.
    pub fn new(version: ProtocolVersion, client_id: &'a str) -> Self {
        Self {
            version,
            clean_start: true,
            keep_alive_s: 0,
            client_id,
            username: None,
            password: None,
            will: None,
            properties: ConnectProperties::default(),
            is_bridge: false,
        }
    }

    pub(super) fn decode(frame: &Frame<'a>) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(frame.body);
        let (version, is_bridge) = read_version(&mut reader)?;
        if version == ProtocolVersion::V5 {
            check_length_form(frame)?;
        }
        let flags = reader.u8()?;
        check_flags(flags, version)?;
        let keep_alive_s = reader.u16()?;
        let properties = match version.has_properties() {
            true => ConnectProperties::read(&mut reader)?,
            false => ConnectProperties::default(),
        };
        let client_id = reader.text()?;
        let will = if flags & WILL != 0 { Some(Will::read(&mut reader, flags, version)?) } else { None };
        let may_miss = version == ProtocolVersion::V3_1;
        let has = |flag: u8, reader: &Reader<'_>| flags & flag != 0 && !(may_miss && reader.is_empty());
        let username = if has(USERNAME, &reader) { Some(reader.text()?) } else { None };
        let password = if has(PASSWORD, &reader) { Some(reader.binary()?) } else { None };
        reader.finish()?;
        Ok(Self {
            version,
            clean_start: flags & CLEAN_START != 0,
            keep_alive_s,
            client_id,
            username,
            password,
            will,
            properties,
            is_bridge,
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.password.is_some() && self.username.is_none() && self.version != ProtocolVersion::V5 {
            return Err(EncodeError::Forbidden("password needs a user name before MQTT 5.0"));
        }
        wire::put_packet(out, PacketType::Connect.first_byte(), |out| {
            wire::put_text(out, self.version.protocol_name())?;
            out.push(self.version.level() | if self.is_bridge { BRIDGE } else { 0 });
            out.push(self.flags());
            wire::put_u16(out, self.keep_alive_s);
            if self.version.has_properties() {
                self.properties.put(out)?;
            }
            wire::put_text(out, self.client_id)?;
            if let Some(will) = &self.will {
                will.put(out, self.version)?;
            }
            if let Some(username) = self.username {
                wire::put_text(out, username)?;
            }
            if let Some(password) = self.password {
                wire::put_binary(out, password)?;
            }
            Ok(())
        })
    }

    fn flags(&self) -> u8 {
        let mut flags = 0;
        if self.clean_start {
            flags |= CLEAN_START;
        }
        if let Some(will) = &self.will {
            flags |= WILL | will.qos.level() << WILL_QOS_SHIFT;
            if will.retain {
                flags |= WILL_RETAIN;
            }
        }
        if self.username.is_some() {
            flags |= USERNAME;
        }
        if self.password.is_some() {
            flags |= PASSWORD;
        }
        flags
    }
}

/// Reads Protocol Name and Protocol Level, and whether the bridge bit is set in the latter.
fn read_version(reader: &mut Reader<'_>) -> Result<(ProtocolVersion, bool), DecodeError> {
    let name = reader.binary()?;
    if name != b"MQTT" && name != b"MQIsdp" {
        return Err(DecodeError::UnknownProtocolName);
    }
    let level = reader.u8()?;
    let version = ProtocolVersion::ALL
        .into_iter()
        .find(|version| version.protocol_name().as_bytes() == name && version.level() == level & !BRIDGE)
        .ok_or(DecodeError::UnsupportedVersion { level })?;
    Ok((version, level & BRIDGE != 0))
}

/// Checks the Connect Flags: [MQTT-3.1.2-3, -11, -12, -13, v5], [MQTT-3.1.2-3, -13, -14, -15, -22, v3.1.1].
fn check_flags(flags: u8, version: ProtocolVersion) -> Result<(), DecodeError> {
    if flags & RESERVED != 0 {
        return Err(DecodeError::Malformed("reserved connect flag is set"));
    }
    if flags & WILL != 0 && flags & WILL_QOS == WILL_QOS {
        return Err(DecodeError::Malformed("will qos is 3"));
    }
    if flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0 && version != ProtocolVersion::V3_1 {
        return Err(DecodeError::Malformed("will qos or will retain is set without a will"));
    }
    if flags & PASSWORD != 0 && flags & USERNAME == 0 && version != ProtocolVersion::V5 {
        return Err(DecodeError::Malformed("password flag is set without the user name flag"));
    }
    Ok(())
}

impl<'a> Will<'a> {
    fn read(reader: &mut Reader<'a>, flags: u8, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let qos = QoS::from_bits(flags >> WILL_QOS_SHIFT).ok_or(DecodeError::Malformed("will qos is 3"))?;
        let (publish, delay_interval_s) = match version.has_properties() {
            true => publish::read_will_properties(reader)?,
            false => (PublishProperties::default(), 0),
        };
        let topic = reader.text()?;
        validate_topic_name(topic).map_err(DecodeError::TopicInvalid)?;
        let payload = reader.binary()?;
        Ok(Self { qos, retain: flags & WILL_RETAIN != 0, topic, payload, delay_interval_s, publish })
    }

    fn put(&self, out: &mut Vec<u8>, version: ProtocolVersion) -> Result<(), EncodeError> {
        validate_topic_name(self.topic).map_err(EncodeError::TopicInvalid)?;
        if version.has_properties() {
            if self.publish.topic_alias.is_some() || !self.publish.subscription_identifiers.is_empty() {
                return Err(EncodeError::Forbidden("will has a topic alias or a subscription identifier"));
            }
            let delay =
                (self.delay_interval_s != 0).then_some(Property::WillDelayInterval(self.delay_interval_s));
            let properties = self.publish.in_order().into_iter().chain([delay]);
            put_properties(out, properties, &self.publish.user_properties)?;
        }
        wire::put_text(out, self.topic)?;
        wire::put_binary(out, self.payload)
    }
}

impl<'a> ConnectProperties<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut section = Section::read(reader, Place::CONNECT)?;
        let mut read = Self::default();
        while let Some(property) = section.next()? {
            match property {
                Property::SessionExpiryInterval(value) => read.session_expiry_interval_s = value,
                Property::ReceiveMaximum(value) => read.receive_maximum = value.get(),
                Property::MaximumPacketSize(value) => read.maximum_packet_size = Some(value.get()),
                Property::TopicAliasMaximum(value) => read.topic_alias_maximum = value,
                Property::RequestResponseInformation(value) => read.request_response_information = value,
                Property::RequestProblemInformation(value) => read.request_problem_information = value,
                Property::AuthenticationMethod(text) => read.authentication_method = Some(text),
                Property::AuthenticationData(data) => read.authentication_data = Some(data),
                _ => debug_assert!(false, "the table allows no other here"),
            }
        }
        read.user_properties = section.user_properties();
        if read.authentication_data.is_some() && read.authentication_method.is_none() {
            return Err(DecodeError::Protocol("authentication data comes without an authentication method"));
        }
        Ok(read)
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.authentication_data.is_some() && self.authentication_method.is_none() {
            return Err(EncodeError::Forbidden("authentication data comes without an authentication method"));
        }
        let receive_maximum =
            NonZeroU16::new(self.receive_maximum).ok_or(EncodeError::Forbidden("receive maximum is 0"))?;
        let maximum_packet_size = match self.maximum_packet_size.map(NonZeroU32::new) {
            Some(None) => return Err(EncodeError::Forbidden("maximum packet size is 0")),
            value => value.flatten(),
        };
        let default = Self::default();
        let properties = [
            (self.session_expiry_interval_s != default.session_expiry_interval_s)
                .then_some(Property::SessionExpiryInterval(self.session_expiry_interval_s)),
            (self.receive_maximum != default.receive_maximum)
                .then_some(Property::ReceiveMaximum(receive_maximum)),
            maximum_packet_size.map(Property::MaximumPacketSize),
            (self.topic_alias_maximum != default.topic_alias_maximum)
                .then_some(Property::TopicAliasMaximum(self.topic_alias_maximum)),
            self.request_response_information.then_some(Property::RequestResponseInformation(true)),
            (!self.request_problem_information).then_some(Property::RequestProblemInformation(false)),
            self.authentication_method.map(Property::AuthenticationMethod),
            self.authentication_data.map(Property::AuthenticationData),
        ];
        put_properties(out, properties, &self.user_properties)
    }
}
