//! UNSUBSCRIBE (MQTT 5.0 §3.10, MQTT 3.1.1 §3.10).

use super::PacketType;
use crate::{
    error::{DecodeError, EncodeError},
    packet_id::PacketId,
    property::{Place, Section, put_properties},
    user_properties::UserProperties,
    version::ProtocolVersion,
    wire::{self, Reader},
};

/// Request to end one or more Subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Packet Identifier, which the UNSUBACK repeats.
    pub packet_id: PacketId,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// What to unsubscribe from; never empty when decoded.
    pub filters: TopicFilters<'a>,
}

impl<'a> Unsubscribe<'a> {
    pub(super) fn decode(body: &'a [u8], version: ProtocolVersion) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let mut user_properties = UserProperties::NONE;
        if version.has_properties() {
            let mut section = Section::read(&mut reader, Place::UNSUBSCRIBE)?;
            while section.next()?.is_some() {}
            user_properties = section.user_properties();
        }
        let filters = TopicFilters::read(reader)?;
        Ok(Self { packet_id, user_properties, filters })
    }

    pub(super) fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.filters.is_empty() {
            return Err(EncodeError::Forbidden("unsubscribe needs a topic filter"));
        }
        wire::put_packet(out, PacketType::Unsubscribe.first_byte(), |out| {
            wire::put_u16(out, self.packet_id.get());
            if version.has_properties() {
                put_properties(out, [], &self.user_properties)?;
            }
            out.extend_from_slice(self.filters.encoded);
            Ok(())
        })
    }
}

/// Topic Filters of an UNSUBSCRIBE: a view on checked bytes that costs nothing to copy.
///
/// Each is a well-formed, non-empty string of unchecked syntax, `$share/…` included.
#[derive(Clone, Copy, Default)]
pub struct TopicFilters<'a> {
    encoded: &'a [u8],
    count: usize,
}

impl<'a> TopicFilters<'a> {
    fn read(mut reader: Reader<'a>) -> Result<Self, DecodeError> {
        let encoded = reader.rest();
        let mut count = 0;
        while !reader.is_empty() {
            if reader.text()?.is_empty() {
                return Err(DecodeError::Protocol("topic filter is empty"));
            }
            count += 1;
        }
        if count == 0 {
            return Err(DecodeError::Protocol("unsubscribe has no topic filter"));
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
    pub const fn iter(&self) -> TopicFiltersIter<'a> {
        TopicFiltersIter { rest: Reader::new(self.encoded), left: self.count }
    }
}

impl std::fmt::Debug for TopicFilters<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for TopicFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.encoded == other.encoded
    }
}

impl Eq for TopicFilters<'_> {}

impl<'a> IntoIterator for TopicFilters<'a> {
    type Item = &'a str;
    type IntoIter = TopicFiltersIter<'a>;

    fn into_iter(self) -> TopicFiltersIter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &TopicFilters<'a> {
    type Item = &'a str;
    type IntoIter = TopicFiltersIter<'a>;

    fn into_iter(self) -> TopicFiltersIter<'a> {
        self.iter()
    }
}

/// Iterator over [`TopicFilters`].
#[derive(Debug, Clone)]
pub struct TopicFiltersIter<'a> {
    rest: Reader<'a>,
    left: usize,
}

impl<'a> Iterator for TopicFiltersIter<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.left = self.left.checked_sub(1)?;
        self.rest.text().ok() // the list was checked when it was decoded
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for TopicFiltersIter<'_> {}

/// Topic Filters for an UNSUBSCRIBE under construction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicFiltersBuf {
    encoded: Vec<u8>,
    count: usize,
}

impl TopicFiltersBuf {
    /// Makes an empty list.
    pub const fn new() -> Self {
        Self { encoded: Vec::new(), count: 0 }
    }

    /// Adds one filter at the end.
    ///
    /// # Errors
    /// A filter that is empty, longer than 65,535 bytes or with U+0000; the list is unchanged then.
    pub fn push(&mut self, filter: &str) -> Result<(), EncodeError> {
        if filter.is_empty() {
            return Err(EncodeError::TopicInvalid(crate::TopicError::Empty));
        }
        wire::put_text(&mut self.encoded, filter)?;
        self.count += 1;
        Ok(())
    }

    /// Views the list as a packet holds it.
    pub fn as_filters(&self) -> TopicFilters<'_> {
        TopicFilters { encoded: &self.encoded, count: self.count }
    }
}
