//! SUBSCRIBE (MQTT 5.0 §3.8, MQTT 3.1.1 §3.8).
//!
//! A Topic Filter is checked as a string only. Its own syntax is left to [`parse_filter`](crate::topic::parse_filter),
//! since a Server answers a bad filter with a Reason Code of its own in the SUBACK.

use super::PacketType;
use crate::{
    VARIABLE_BYTE_INTEGER_MAX,
    error::{DecodeError, EncodeError},
    packet_id::PacketId,
    property::{Place, Property, Section, put_properties},
    qos::QoS,
    user_properties::UserProperties,
    version::ProtocolVersion,
    wire::{self, Reader},
};

/// Request for one or more Subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Packet Identifier, which the SUBACK repeats.
    pub packet_id: PacketId,
    /// Number from 1 to 268,435,455 that comes back with each message these Subscriptions match.
    pub subscription_identifier: Option<u32>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// What to subscribe to; never empty when decoded.
    pub filters: SubscribeFilters<'a>,
}

/// One Topic Filter of a SUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscribeFilter<'a> {
    /// The filter as sent, `$share/…` included; a well-formed, non-empty string of unchecked syntax.
    pub filter: &'a str,
    /// How messages are to be delivered.
    pub options: SubscriptionOptions,
}

/// When Retained Messages are sent for a Subscription. Source: MQTT 5.0 §3.8.3.1.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RetainHandling {
    /// At every SUBSCRIBE; the only way of 3.x.
    #[default]
    SendAtSubscribe = 0,
    /// At a SUBSCRIBE that makes a new Subscription.
    SendAtNewSubscribe = 1,
    /// Never.
    DoNotSend = 2,
}

/// Subscription Options. Source: MQTT 5.0 §3.8.3.1; 3.x has only the QoS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SubscriptionOptions {
    /// Highest QoS at which messages may be sent.
    pub qos: QoS,
    /// Messages that this Client publishes are not sent back to it.
    pub no_local: bool,
    /// The RETAIN flag stays as it was published.
    pub retain_as_published: bool,
    /// When Retained Messages are sent.
    pub retain_handling: RetainHandling,
}

const NO_LOCAL: u8 = 1 << 2;
const RETAIN_AS_PUBLISHED: u8 = 1 << 3;
const RESERVED: u8 = 0b1100_0000;

impl SubscriptionOptions {
    /// Makes options that are 0 but for the QoS, as every 3.x Subscription has them.
    pub const fn from_qos(qos: QoS) -> Self {
        Self {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::SendAtSubscribe,
        }
    }

    /// Packs the options as MQTT 5.0 puts them on the wire.
    pub const fn to_byte(self) -> u8 {
        let mut byte = self.qos.level() | (self.retain_handling as u8) << 4;
        if self.no_local {
            byte |= NO_LOCAL;
        }
        if self.retain_as_published {
            byte |= RETAIN_AS_PUBLISHED;
        }
        byte
    }

    /// Unpacks the options from the wire format of MQTT 5.0; inverse of [`SubscriptionOptions::to_byte`].
    ///
    /// # Errors
    /// Reserved bits [MQTT-3.8.3-5, v5], QoS 3, Retain Handling 3.
    pub const fn from_byte(byte: u8) -> Result<Self, DecodeError> {
        if byte & RESERVED != 0 {
            return Err(DecodeError::Malformed("reserved bits of the subscription options are set"));
        }
        let Some(qos) = QoS::from_bits(byte) else {
            return Err(DecodeError::Protocol("maximum qos of a subscription is 3"));
        };
        let retain_handling = match byte >> 4 {
            0 => RetainHandling::SendAtSubscribe,
            1 => RetainHandling::SendAtNewSubscribe,
            2 => RetainHandling::DoNotSend,
            _ => return Err(DecodeError::Protocol("retain handling of a subscription is 3")),
        };
        Ok(Self {
            qos,
            no_local: byte & NO_LOCAL != 0,
            retain_as_published: byte & RETAIN_AS_PUBLISHED != 0,
            retain_handling,
        })
    }

    /// Reads the options byte as the version has it; all of 3.1.1 but the QoS is reserved [MQTT-3-8.3-4, v3.1.1].
    fn read(byte: u8, version: ProtocolVersion) -> Result<Self, DecodeError> {
        if version == ProtocolVersion::V5 {
            return Self::from_byte(byte);
        }
        match QoS::from_bits(byte) {
            Some(qos) if byte == qos.level() => Ok(Self::from_qos(qos)),
            _ => Err(DecodeError::Malformed("requested qos is none of 0, 1, 2")),
        }
    }
}

impl<'a> Subscribe<'a> {
    pub(super) fn decode(body: &'a [u8], version: ProtocolVersion) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let mut subscription_identifier = None;
        let mut user_properties = UserProperties::NONE;
        if version.has_properties() {
            let mut section = Section::read(&mut reader, Place::SUBSCRIBE)?;
            while let Some(property) = section.next()? {
                if let Property::SubscriptionIdentifier(value) = property {
                    subscription_identifier = Some(value);
                }
            }
            user_properties = section.user_properties();
        }
        let filters = SubscribeFilters::read(reader, version)?;
        Ok(Self { packet_id, subscription_identifier, user_properties, filters })
    }

    pub(super) fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.filters.is_empty() {
            return Err(EncodeError::Forbidden("subscribe needs a topic filter"));
        }
        if self.subscription_identifier.is_some_and(|id| id == 0 || id > VARIABLE_BYTE_INTEGER_MAX) {
            return Err(EncodeError::Forbidden("subscription identifier is outside 1..=268435455"));
        }
        wire::put_packet(out, PacketType::Subscribe.first_byte(), |out| {
            wire::put_u16(out, self.packet_id.get());
            if version.has_properties() {
                let identifier = self.subscription_identifier.map(Property::SubscriptionIdentifier);
                put_properties(out, [identifier], &self.user_properties)?;
                out.extend_from_slice(self.filters.encoded);
                return Ok(());
            }
            for SubscribeFilter { filter, options } in self.filters {
                wire::put_text(out, filter)?;
                out.push(options.qos.level());
            }
            Ok(())
        })
    }
}

/// Topic Filters of a SUBSCRIBE: a view on checked bytes that costs nothing to copy.
#[derive(Clone, Copy, Default)]
pub struct SubscribeFilters<'a> {
    /// Filters and options in the wire format of MQTT 5.0, of which that of 3.x is a part.
    encoded: &'a [u8],
    count: usize,
}

impl<'a> SubscribeFilters<'a> {
    fn read(mut reader: Reader<'a>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let encoded = reader.rest();
        let mut count = 0;
        while !reader.is_empty() {
            let filter = reader.text()?;
            let options = SubscriptionOptions::read(reader.u8()?, version)?;
            if filter.is_empty() {
                return Err(DecodeError::Protocol("topic filter is empty"));
            }
            if options.no_local && filter.starts_with("$share/") {
                return Err(DecodeError::Protocol("no local is set on a shared subscription"));
            }
            count += 1;
        }
        if count == 0 {
            return Err(DecodeError::Protocol("subscribe has no topic filter"));
        }
        Ok(Self { encoded, count })
    }

    /// Returns how many filters there are.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Says whether there are none, which only a packet made by hand can show.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Iterates over the filters.
    pub const fn iter(&self) -> SubscribeFiltersIter<'a> {
        SubscribeFiltersIter { rest: Reader::new(self.encoded), left: self.count }
    }
}

impl std::fmt::Debug for SubscribeFilters<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for SubscribeFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.encoded == other.encoded
    }
}

impl Eq for SubscribeFilters<'_> {}

impl<'a> IntoIterator for SubscribeFilters<'a> {
    type Item = SubscribeFilter<'a>;
    type IntoIter = SubscribeFiltersIter<'a>;

    fn into_iter(self) -> SubscribeFiltersIter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &SubscribeFilters<'a> {
    type Item = SubscribeFilter<'a>;
    type IntoIter = SubscribeFiltersIter<'a>;

    fn into_iter(self) -> SubscribeFiltersIter<'a> {
        self.iter()
    }
}

/// Iterator over [`SubscribeFilters`].
#[derive(Debug, Clone)]
pub struct SubscribeFiltersIter<'a> {
    rest: Reader<'a>,
    left: usize,
}

impl<'a> Iterator for SubscribeFiltersIter<'a> {
    type Item = SubscribeFilter<'a>;

    fn next(&mut self) -> Option<SubscribeFilter<'a>> {
        self.left = self.left.checked_sub(1)?;
        // The list was checked when it was decoded, so none of these fails.
        let filter = self.rest.text().ok()?;
        let options = SubscriptionOptions::from_byte(self.rest.u8().ok()?).ok()?;
        Some(SubscribeFilter { filter, options })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for SubscribeFiltersIter<'_> {}

/// Topic Filters for a SUBSCRIBE under construction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubscribeFiltersBuf {
    encoded: Vec<u8>,
    count: usize,
}

impl SubscribeFiltersBuf {
    /// Makes an empty list.
    pub const fn new() -> Self {
        Self { encoded: Vec::new(), count: 0 }
    }

    /// Adds one filter at the end.
    ///
    /// # Errors
    /// A filter that is empty, longer than 65,535 bytes or with U+0000, or No Local on a Shared Subscription
    /// [MQTT-3.8.3-4, v5]; the list is unchanged then.
    pub fn push(&mut self, filter: &str, options: SubscriptionOptions) -> Result<(), EncodeError> {
        if filter.is_empty() {
            return Err(EncodeError::TopicInvalid(crate::TopicError::Empty));
        }
        if options.no_local && filter.starts_with("$share/") {
            return Err(EncodeError::Forbidden("no local is set on a shared subscription"));
        }
        wire::put_text(&mut self.encoded, filter)?;
        self.encoded.push(options.to_byte());
        self.count += 1;
        Ok(())
    }

    /// Views the list as a packet holds it.
    pub fn as_filters(&self) -> SubscribeFilters<'_> {
        SubscribeFilters { encoded: &self.encoded, count: self.count }
    }
}
