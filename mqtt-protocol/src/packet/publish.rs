//! PUBLISH (MQTT 5.0 §3.3, MQTT 3.1.1 §3.3) as it is received.
//!
//! Decoding makes no allocation and reads each byte of the header once; the payload is not looked at. How a Server sends
//! PUBLISH packets to many receivers is in `outgoing.rs`.

use std::{borrow::Cow, num::NonZeroU16};

use super::PacketType;
use crate::{
    error::{DecodeError, EncodeError},
    frame::Frame,
    packet_id::PacketId,
    property::{Place, Property, Section, put_properties, read_any},
    qos::QoS,
    topic::{TopicError, validate_topic_name},
    user_properties::UserProperties,
    version::ProtocolVersion,
    wire::{self, Reader},
};

pub(super) const DUP: u8 = 1 << 3;
pub(super) const QOS_SHIFT: u8 = 1;
pub(super) const RETAIN: u8 = 1;

/// An Application Message on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// The packet may have been sent before; never set at QoS 0.
    pub dup: bool,
    /// QoS of this delivery.
    pub qos: QoS,
    /// To a Server: keep it as the Retained Message; to a Client: it comes from one.
    pub retain: bool,
    /// Topic Name, valid; empty only together with a Topic Alias.
    pub topic: &'a str,
    /// Packet Identifier, exactly at QoS 1 and 2.
    pub packet_id: Option<PacketId>,
    /// Properties; none in 3.x.
    pub properties: PublishProperties<'a>,
    /// The Application Message itself.
    pub payload: &'a [u8],
}

/// Properties of a PUBLISH, also those a Will Message is published with. Source: MQTT 5.0 §3.3.2.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PublishProperties<'a> {
    /// True: the payload is UTF-8 text; false: bytes of no stated kind. Whether it is text is not checked here.
    pub payload_format_indicator: Option<bool>,
    /// Life time of the message, in seconds.
    pub message_expiry_interval_s: Option<u32>,
    /// Number that stands, or shall stand, for the Topic Name on this Network Connection.
    pub topic_alias: Option<NonZeroU16>,
    /// Topic Name for an answer; without wildcards, may be empty.
    pub response_topic: Option<&'a str>,
    /// What the answer is to repeat.
    pub correlation_data: Option<&'a [u8]>,
    /// Kind of content, usually a MIME type.
    pub content_type: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// Identifiers of the Subscriptions that this packet is sent for; only from Server to Client.
    pub subscription_identifiers: SubscriptionIdentifiers<'a>,
    /// The bytes that all of the above was decoded from; leave it at its default in properties made by hand, and set it
    /// back to that after changing a field.
    pub received: ReceivedProperties<'a>,
}

/// Property bytes of a received packet, by which they can be forwarded without encoding them again.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReceivedProperties<'a>(&'a [u8]);

impl PartialEq for ReceivedProperties<'_> {
    /// Always true: two packets are equal by what they say, not by how it was encoded.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for ReceivedProperties<'_> {}

impl<'a> Publish<'a> {
    /// Decodes a PUBLISH; the caller has looked at the packet type.
    ///
    /// # Errors
    /// Every Malformed Packet and Protocol Error that the packet shows by itself.
    #[inline]
    pub fn decode(frame: &Frame<'a>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let flags = frame.first_byte & 0x0F;
        check_publish_flags(flags)?;
        let qos = QoS::from_bits(flags >> QOS_SHIFT).ok_or(QOS_3)?;
        let mut reader = Reader::new(frame.body);
        let topic = reader.text()?;
        if wire::has_wildcard(topic.as_bytes()) {
            return Err(DecodeError::TopicInvalid(TopicError::Wildcard)); // [MQTT-3.3.2-2, v3.1.1 and v5]
        }
        let packet_id = if qos.has_packet_id() { Some(reader.packet_id()?) } else { None };
        let mut publish = Self {
            dup: flags & DUP != 0,
            qos,
            retain: flags & RETAIN != 0,
            topic,
            packet_id,
            properties: PublishProperties::default(),
            payload: &[],
        };
        if version.has_properties() {
            publish.properties.fill(Section::read(&mut reader, Place::PUBLISH)?)?;
        }
        if topic.is_empty() && publish.properties.topic_alias.is_none() {
            return Err(match version {
                ProtocolVersion::V5 => {
                    DecodeError::Protocol("topic name is empty and there is no topic alias")
                }
                _ => DecodeError::TopicInvalid(TopicError::Empty),
            });
        }
        publish.payload = reader.rest();
        Ok(publish)
    }

    pub(super) fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.check(version)?;
        let mut first_byte = PacketType::Publish.first_byte() | self.qos.level() << QOS_SHIFT;
        if self.dup {
            first_byte |= DUP;
        }
        if self.retain {
            first_byte |= RETAIN;
        }
        wire::put_packet(out, first_byte, |out| {
            wire::put_text(out, self.topic)?;
            if let Some(packet_id) = self.packet_id {
                wire::put_u16(out, packet_id.get());
            }
            if version.has_properties() {
                self.properties.put(out)?;
            }
            out.extend_from_slice(self.payload);
            Ok(())
        })
    }

    fn check(&self, version: ProtocolVersion) -> Result<(), EncodeError> {
        let has_alias = version.has_properties() && self.properties.topic_alias.is_some();
        if !(self.topic.is_empty() && has_alias) {
            validate_topic_name(self.topic).map_err(EncodeError::TopicInvalid)?;
        }
        if self.qos.has_packet_id() != self.packet_id.is_some() {
            return Err(EncodeError::Forbidden("packet identifier goes with qos 1 and 2, not with qos 0"));
        }
        if self.dup && self.qos == QoS::AtMostOnce {
            return Err(EncodeError::Forbidden("dup is set at qos 0"));
        }
        Ok(())
    }
}

const QOS_3: DecodeError = DecodeError::Malformed("qos of a publish is 3");

/// Checks the flags of a PUBLISH: QoS 3 [MQTT-3.3.1-4, v3.1.1 and v5], DUP at QoS 0 [MQTT-3.3.1-2, v3.1.1 and v5].
#[inline]
pub(crate) fn check_publish_flags(flags: u8) -> Result<(), DecodeError> {
    match flags >> QOS_SHIFT & 0b11 {
        3 => Err(QOS_3),
        0 if flags & DUP != 0 => Err(DecodeError::Malformed("dup is set at qos 0")),
        _ => Ok(()),
    }
}

/// Reads the Will Properties of a CONNECT: those of a PUBLISH, and the Will Delay Interval in seconds.
pub(super) fn read_will_properties<'a>(
    reader: &mut Reader<'a>,
) -> Result<(PublishProperties<'a>, u32), DecodeError> {
    let mut section = Section::read(reader, Place::WILL)?;
    let mut read = PublishProperties::default();
    let mut delay_interval_s = 0;
    while let Some(property) = section.next()? {
        match property {
            Property::WillDelayInterval(value) => delay_interval_s = value,
            other => read.take(other),
        }
    }
    read.user_properties = section.user_properties();
    read.received = ReceivedProperties(section.whole());
    Ok((read, delay_interval_s))
}

impl<'a> PublishProperties<'a> {
    /// Decodes the bytes of a PUBLISH's properties, without the length before them: what
    /// [`PublishProperties::forward_bytes`] gave, for example.
    ///
    /// # Errors
    /// What [`Packet::decode`](crate::Packet::decode) would say of such properties.
    pub fn from_encoded(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut properties = Self::default();
        properties.fill(Section::new(bytes, Place::PUBLISH))?;
        Ok(properties)
    }

    /// Reads in place, which spares the hot path a copy.
    #[inline]
    fn fill(&mut self, mut section: Section<'a>) -> Result<(), DecodeError> {
        let mut identifiers = 0;
        while let Some(property) = section.next()? {
            if let Property::SubscriptionIdentifier(_) = property {
                identifiers += 1;
            }
            self.take(property);
        }
        if identifiers > 0 {
            self.subscription_identifiers = SubscriptionIdentifiers(Identifiers::Section {
                section: section.whole(),
                count: identifiers,
            });
        }
        self.user_properties = section.user_properties();
        self.received = ReceivedProperties(section.whole());
        Ok(())
    }

    #[inline]
    fn take(&mut self, property: Property<'a>) {
        match property {
            Property::PayloadFormatIndicator(value) => self.payload_format_indicator = Some(value),
            Property::MessageExpiryInterval(value) => self.message_expiry_interval_s = Some(value),
            Property::TopicAlias(value) => self.topic_alias = Some(value),
            Property::ResponseTopic(text) => self.response_topic = Some(text),
            Property::CorrelationData(data) => self.correlation_data = Some(data),
            Property::ContentType(text) => self.content_type = Some(text),
            Property::SubscriptionIdentifier(_) => {} // counted by the caller, read again when asked for
            _ => debug_assert!(false, "the table allows no other here"),
        }
    }

    /// Returns all but User Properties and Subscription Identifiers, in the order of their identifiers.
    pub(super) fn in_order(&self) -> [Option<Property<'a>>; 6] {
        let [format, content_type, response_topic, correlation_data] = self.forwardable();
        [
            format,
            self.message_expiry_interval_s.map(Property::MessageExpiryInterval),
            content_type,
            response_topic,
            correlation_data,
            self.topic_alias.map(Property::TopicAlias),
        ]
    }

    fn forwardable(&self) -> [Option<Property<'a>>; 4] {
        [
            self.payload_format_indicator.map(Property::PayloadFormatIndicator),
            self.content_type.map(Property::ContentType),
            self.response_topic.map(Property::ResponseTopic),
            self.correlation_data.map(Property::CorrelationData),
        ]
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let identifiers =
            self.subscription_identifiers.iter().map(|id| Some(Property::SubscriptionIdentifier(id)));
        put_properties(out, self.in_order().into_iter().chain(identifiers), &self.user_properties)
    }

    /// Returns the encoded properties that a Server forwards unaltered, without a length before them: all but Topic
    /// Alias, Message Expiry Interval, Subscription Identifiers and Will Delay Interval.
    ///
    /// Source: [MQTT-3.3.2-4, -15, -16, -17, -18, -20, v5]. Borrowed when a received packet held none of those four.
    /// Always complete for received properties; a field made by hand that cannot be encoded is left out, and
    /// [`PublishProperties::append_forward`] is the way to hear of it.
    pub fn forward_bytes(&self) -> Cow<'a, [u8]> {
        if self.is_forwardable_as_received() {
            return Cow::Borrowed(self.received.0);
        }
        let mut encoded = Vec::with_capacity(self.forward_len());
        for property in self.forwardable().into_iter().flatten() {
            let before = encoded.len();
            if property.put(&mut encoded).is_err() {
                encoded.truncate(before);
            }
        }
        self.user_properties.append_to(&mut encoded);
        Cow::Owned(encoded)
    }

    /// Appends what [`PublishProperties::forward_bytes`] returns, without an allocation of its own.
    ///
    /// # Errors
    /// A field made by hand that cannot be encoded; `out` is unchanged then.
    pub fn append_forward(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.is_forwardable_as_received() {
            out.extend_from_slice(self.received.0);
            return Ok(());
        }
        let start = out.len();
        for property in self.forwardable().into_iter().flatten() {
            property.put(out).inspect_err(|_| out.truncate(start))?;
        }
        self.user_properties.append_to(out);
        Ok(())
    }

    /// Returns how many bytes [`PublishProperties::forward_bytes`] has.
    pub fn forward_len(&self) -> usize {
        let field = |len: usize| 1 + 2 + len;
        self.payload_format_indicator.map_or(0, |_| 2)
            + self.content_type.map_or(0, |text| field(text.len()))
            + self.response_topic.map_or(0, |text| field(text.len()))
            + self.correlation_data.map_or(0, |data| field(data.len()))
            + self.user_properties.encoded_len()
    }

    /// Holds when the received bytes are the forwardable properties and nothing else; the lengths show it, since
    /// each property that is left out takes bytes.
    fn is_forwardable_as_received(&self) -> bool {
        self.received.0.len() == self.forward_len()
    }
}

/// Subscription Identifiers of a PUBLISH, from 1 to 268,435,455 each.
#[derive(Clone, Copy, Default)]
pub struct SubscriptionIdentifiers<'a>(Identifiers<'a>);

#[derive(Clone, Copy)]
enum Identifiers<'a> {
    Section { section: &'a [u8], count: usize },
    List(&'a [u32]),
}

impl Default for Identifiers<'_> {
    fn default() -> Self {
        Self::List(&[])
    }
}

impl<'a> SubscriptionIdentifiers<'a> {
    /// Says whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Returns how many there are.
    pub const fn count(&self) -> usize {
        match self.0 {
            Identifiers::Section { count, .. } => count,
            Identifiers::List(list) => list.len(),
        }
    }

    /// Iterates over the identifiers, in their order in the packet.
    pub fn iter(&self) -> SubscriptionIdentifiersIter<'a> {
        SubscriptionIdentifiersIter(match self.0 {
            Identifiers::Section { section, count } => Identifiers2::Section(Reader::new(section), count),
            Identifiers::List(list) => Identifiers2::List(list.iter()),
        })
    }
}

impl<'a> From<&'a [u32]> for SubscriptionIdentifiers<'a> {
    /// Takes the numbers as they are; encoding refuses those outside 1..=268,435,455.
    fn from(list: &'a [u32]) -> Self {
        Self(Identifiers::List(list))
    }
}

impl std::fmt::Debug for SubscriptionIdentifiers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for SubscriptionIdentifiers<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SubscriptionIdentifiers<'_> {}

impl<'a> IntoIterator for SubscriptionIdentifiers<'a> {
    type Item = u32;
    type IntoIter = SubscriptionIdentifiersIter<'a>;

    fn into_iter(self) -> SubscriptionIdentifiersIter<'a> {
        self.iter()
    }
}

/// Iterator over [`SubscriptionIdentifiers`].
#[derive(Debug, Clone)]
pub struct SubscriptionIdentifiersIter<'a>(Identifiers2<'a>);

#[derive(Debug, Clone)]
enum Identifiers2<'a> {
    Section(Reader<'a>, usize),
    List(std::slice::Iter<'a, u32>),
}

impl Iterator for SubscriptionIdentifiersIter<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        match &mut self.0 {
            Identifiers2::List(list) => list.next().copied(),
            Identifiers2::Section(reader, left) => {
                *left = left.checked_sub(1)?;
                loop {
                    // The section was checked when it was decoded, so `read_any` does not fail.
                    if let Property::SubscriptionIdentifier(id) = read_any(reader).ok()? {
                        return Some(id);
                    }
                }
            }
        }
    }
}
