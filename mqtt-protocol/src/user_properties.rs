//! User Properties: name-value pairs, read lazily from checked bytes, in order, duplicates kept [MQTT-3.3.2-18, v5].

use std::fmt;

use crate::{
    error::{DecodeError, EncodeError},
    property::{Place, Property, Section, USER_PROPERTY_ID, read_any},
    wire::{self, Reader},
};

/// User Properties of one packet; a view on checked bytes that costs nothing to copy.
#[derive(Clone, Copy, Default)]
pub struct UserProperties<'a> {
    /// From the first User Property to the end of the last; other properties may stand between them.
    stretch: &'a [u8],
    count: usize,
    /// Bytes of the User Properties alone; equals `stretch.len()` when nothing stands between them.
    encoded_len: usize,
}

impl<'a> UserProperties<'a> {
    /// No User Properties.
    pub const NONE: Self = Self { stretch: &[], count: 0, encoded_len: 0 };

    /// Checks encoded properties (without a length before them) as a PUBLISH may hold them, and views the User
    /// Properties among them.
    ///
    /// # Errors
    /// What [`Packet::decode`](crate::Packet::decode) would say of such a section.
    pub fn from_encoded(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut section = Section::new(bytes, Place::PUBLISH);
        while section.next()?.is_some() {}
        Ok(section.user_properties())
    }

    /// Says whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns how many pairs there are.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Returns how many bytes the pairs take in a packet, identifiers and lengths included.
    pub const fn encoded_len(&self) -> usize {
        self.encoded_len
    }

    /// Iterates over names and values.
    pub const fn iter(&self) -> UserPropertiesIter<'a> {
        UserPropertiesIter { rest: Reader::new(self.stretch), left: self.count }
    }

    /// Returns the value of the first pair with this name.
    pub fn find(&self, name: &str) -> Option<&'a str> {
        self.iter().find_map(|(other, value)| (other == name).then_some(value))
    }

    /// Appends the pairs as properties, without a length before them.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        if self.encoded_len == self.stretch.len() {
            out.extend_from_slice(self.stretch);
            return;
        }
        let mut rest = Reader::new(self.stretch);
        while !rest.is_empty() {
            let before = rest.rest();
            let Ok(property) = read_any(&mut rest) else { return };
            if let Property::UserProperty(_) = property {
                let len = before.len() - rest.rest().len();
                out.extend_from_slice(before.get(..len).unwrap_or_default());
            }
        }
    }

    /// Takes in one more pair that ends `stretch` and is `len` bytes long.
    #[inline]
    pub(crate) const fn widen(&mut self, stretch: &'a [u8], len: usize) {
        self.stretch = stretch;
        self.count += 1;
        self.encoded_len += len;
    }
}

impl fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count && self.iter().eq(other.iter())
    }
}

impl Eq for UserProperties<'_> {}

impl<'a> IntoIterator for UserProperties<'a> {
    type Item = (&'a str, &'a str);
    type IntoIter = UserPropertiesIter<'a>;

    fn into_iter(self) -> UserPropertiesIter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &UserProperties<'a> {
    type Item = (&'a str, &'a str);
    type IntoIter = UserPropertiesIter<'a>;

    fn into_iter(self) -> UserPropertiesIter<'a> {
        self.iter()
    }
}

/// Iterator over names and values of [`UserProperties`].
#[derive(Debug, Clone)]
pub struct UserPropertiesIter<'a> {
    rest: Reader<'a>,
    left: usize,
}

impl<'a> Iterator for UserPropertiesIter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        while self.left > 0 {
            // The section was checked when it was decoded, so `read_any` does not fail.
            if let Property::UserProperty(pair) = read_any(&mut self.rest).ok()? {
                self.left -= 1;
                return Some(pair);
            }
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for UserPropertiesIter<'_> {}

/// User Properties under construction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserPropertiesBuf {
    encoded: Vec<u8>,
    count: usize,
}

impl UserPropertiesBuf {
    /// Makes an empty list.
    pub const fn new() -> Self {
        Self { encoded: Vec::new(), count: 0 }
    }

    /// Adds one pair at the end.
    ///
    /// # Errors
    /// A name or value longer than 65,535 bytes or with U+0000; the list is unchanged then.
    pub fn push(&mut self, name: &str, value: &str) -> Result<(), EncodeError> {
        let start = self.encoded.len();
        self.encoded.push(USER_PROPERTY_ID);
        wire::put_text(&mut self.encoded, name)
            .and_then(|()| wire::put_text(&mut self.encoded, value))
            .inspect_err(|_| self.encoded.truncate(start))?;
        self.count += 1;
        Ok(())
    }

    /// Removes all pairs and keeps the memory.
    pub fn clear(&mut self) {
        self.encoded.clear();
        self.count = 0;
    }

    /// Views the list as a packet holds it.
    pub fn as_properties(&self) -> UserProperties<'_> {
        UserProperties { stretch: &self.encoded, count: self.count, encoded_len: self.encoded.len() }
    }

    /// Returns the encoded pairs, ready to append to a property section.
    pub fn as_bytes(&self) -> &[u8] {
        &self.encoded
    }
}
