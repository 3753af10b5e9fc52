//! Data representation (MQTT 5.0 §1.5): integers, strings and binary data, read and written.

use crate::{
    STRING_BYTES_MAX, VARIABLE_BYTE_INTEGER_MAX,
    error::{DecodeError, EncodeError},
};

const TRUNCATED: DecodeError = DecodeError::Malformed("packet ends inside a field");

/// Reads fields from the front of a packet's bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        let (&byte, rest) = self.rest.split_first().ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        let (&bytes, rest) = self.rest.split_first_chunk().ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(u16::from_be_bytes(bytes))
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        let (&bytes, rest) = self.rest.split_first_chunk().ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(bytes))
    }

    /// Reads a Variable Byte Integer: at most four bytes, in the shortest form [MQTT-1.5.5-1, v5].
    #[inline]
    pub(crate) fn var_int(&mut self) -> Result<u32, DecodeError> {
        let first = self.u8()?;
        if first < 0x80 {
            return Ok(u32::from(first));
        }
        let mut value = u32::from(first & 0x7F);
        for shift in [7, 14, 21] {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return match byte {
                    0 => Err(DecodeError::Malformed("variable byte integer is longer than its value needs")),
                    _ => Ok(value),
                };
            }
        }
        Err(DecodeError::Malformed("variable byte integer has more than four bytes"))
    }

    #[inline]
    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Reads Binary Data: a length of two bytes, then that many bytes.
    #[inline]
    pub(crate) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u16()?;
        self.bytes(usize::from(len))
    }

    /// Reads a UTF-8 Encoded String: well-formed, without surrogates [MQTT-1.5.4-1, v5] and U+0000 [MQTT-1.5.4-2, v5];
    /// a byte order mark is kept [MQTT-1.5.4-3, v5].
    #[inline]
    pub(crate) fn text(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = self.binary()?;
        let text = std::str::from_utf8(bytes)
            .map_err(|_| DecodeError::Malformed("string is not well-formed UTF-8"))?;
        if has_nul(bytes) {
            return Err(DecodeError::Malformed("string holds the character U+0000"));
        }
        Ok(text)
    }

    /// Reads a Packet Identifier, which is never zero [MQTT-2.2.1-3, v5] [MQTT-2.3.1-1, v3.1.1].
    #[inline]
    pub(crate) fn packet_id(&mut self) -> Result<crate::PacketId, DecodeError> {
        crate::PacketId::new(self.u16()?).ok_or(DecodeError::Protocol("packet identifier is 0"))
    }

    /// Refuses bytes after the last field.
    #[inline]
    pub(crate) fn finish(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Malformed("remaining length covers more than the packet's fields"))
        }
    }
}

/// Says whether a string holds U+0000.
#[inline]
pub(crate) fn has_nul(bytes: &[u8]) -> bool {
    any_byte(bytes, has_zero, |byte| byte == 0)
}

/// Says whether a string holds `+` or `#`.
#[inline]
pub(crate) fn has_wildcard(bytes: &[u8]) -> bool {
    const PLUS: u64 = u64::from_ne_bytes([b'+'; 8]);
    const HASH: u64 = u64::from_ne_bytes([b'#'; 8]);
    any_byte(bytes, |word| has_zero(word ^ PLUS) | has_zero(word ^ HASH), |byte| matches!(byte, b'+' | b'#'))
}

/// Looks at eight bytes at a time; the last word may overlap the one before, which spares a loop over single bytes.
#[inline]
fn any_byte(bytes: &[u8], in_word: impl Fn(u64) -> bool, is_it: impl Fn(u8) -> bool) -> bool {
    let Some(last) = bytes.last_chunk() else {
        return match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
            (Some(&[a, b, c, d]), Some(&[e, f, g, h])) => {
                in_word(u64::from_ne_bytes([a, b, c, d, e, f, g, h]))
            }
            _ => bytes.iter().any(|&byte| is_it(byte)),
        };
    };
    let (words, _) = bytes.as_chunks();
    words.iter().any(|word| in_word(u64::from_ne_bytes(*word))) || in_word(u64::from_ne_bytes(*last))
}

/// Says whether one of the eight bytes is zero.
#[inline]
const fn has_zero(word: u64) -> bool {
    const LOW: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    word.wrapping_sub(LOW) & !word & HIGH != 0
}

/// Returns how many bytes a Variable Byte Integer takes; `value` is within [`VARIABLE_BYTE_INTEGER_MAX`].
#[inline]
pub(crate) const fn var_int_len(value: u32) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// Writes a Variable Byte Integer to the front of four bytes and says how many it takes; the caller has checked it
/// against [`VARIABLE_BYTE_INTEGER_MAX`].
#[inline]
pub(crate) fn var_int_bytes(value: u32) -> ([u8; 4], usize) {
    debug_assert!(value <= VARIABLE_BYTE_INTEGER_MAX, "caller checks the limit");
    let len = var_int_len(value);
    let mut bytes = [0; 4];
    let mut rest = value;
    for (index, byte) in bytes.iter_mut().enumerate().take(len) {
        let [low, ..] = rest.to_le_bytes();
        *byte = if index + 1 < len { low | 0x80 } else { low & 0x7F };
        rest >>= 7;
    }
    (bytes, len)
}

/// Appends a Variable Byte Integer; the caller has checked it against [`VARIABLE_BYTE_INTEGER_MAX`].
#[inline]
pub(crate) fn put_var_int(out: &mut Vec<u8>, mut value: u32) {
    debug_assert!(value <= VARIABLE_BYTE_INTEGER_MAX, "caller checks the limit");
    while value >= 0x80 {
        let [low, ..] = value.to_le_bytes();
        out.push(low | 0x80);
        value >>= 7;
    }
    let [low, ..] = value.to_le_bytes();
    out.push(low);
}

#[inline]
pub(crate) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

#[inline]
pub(crate) fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), EncodeError> {
    let len = field_len(bytes)?;
    put_u16(out, len);
    out.extend_from_slice(bytes);
    Ok(())
}

#[inline]
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) -> Result<(), EncodeError> {
    if has_nul(text.as_bytes()) {
        return Err(EncodeError::NulCharacter);
    }
    put_binary(out, text.as_bytes())
}

/// Returns the length prefix of a string or binary field.
#[inline]
pub(crate) fn field_len(bytes: &[u8]) -> Result<u16, EncodeError> {
    debug_assert_eq!(usize::from(u16::MAX), STRING_BYTES_MAX);
    u16::try_from(bytes.len()).map_err(|_| EncodeError::FieldTooLong { len: bytes.len() })
}

/// Checks a Remaining Length or Property Length.
#[inline]
pub(crate) fn section_len(len: usize) -> Result<u32, EncodeError> {
    match u32::try_from(len) {
        Ok(short) if short <= VARIABLE_BYTE_INTEGER_MAX => Ok(short),
        _ => Err(EncodeError::PacketTooLarge { len }),
    }
}

/// Appends what `content` appends, with its length as a Variable Byte Integer before it.
pub(crate) fn put_section(
    out: &mut Vec<u8>,
    content: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let prefix_at = out.len();
    out.push(0); // most sections are shorter than 128 bytes; longer ones are moved below
    content(out)?;
    let len = section_len(out.len() - prefix_at - 1)?;
    let (prefix, prefix_len) = var_int_bytes(len);
    out.splice(prefix_at..=prefix_at, prefix.into_iter().take(prefix_len));
    Ok(())
}

/// Appends a whole packet: first byte, Remaining Length, and what `body` appends. Leaves `out` as it was on an error.
pub(crate) fn put_packet(
    out: &mut Vec<u8>,
    first_byte: u8,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.push(first_byte);
    put_section(out, body).inspect_err(|_| out.truncate(start))
}
