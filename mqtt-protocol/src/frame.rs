//! The fixed header: where one packet ends in a stream of bytes.
//!
//! Looks at no more than five bytes and allocates nothing. A packet that can never be accepted is refused from as few
//! bytes as show it: packet type and flags from the first, size from the Remaining Length, before its body is there.

use crate::{DecodeError, VARIABLE_BYTE_INTEGER_MAX, wire::var_int_len};

/// One whole packet, cut from the stream but not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Packet type (high four bits) and flags (low four bits).
    pub first_byte: u8,
    /// Everything after the fixed header.
    pub body: &'a [u8],
    /// Length of the whole packet with its fixed header, in bytes.
    pub len: usize,
}

impl Frame<'_> {
    /// Says whether the Remaining Length took more bytes than it needs, which only 3.x lets pass [MQTT-1.5.5-1, v5].
    pub(crate) fn is_length_padded(&self) -> bool {
        let needed = u32::try_from(self.body.len()).map_or(4, var_int_len);
        self.len > 1 + needed + self.body.len()
    }
}

/// What the bytes received so far amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameStatus<'a> {
    /// The first packet is there.
    Complete(Frame<'a>),
    /// More bytes must come first.
    Incomplete {
        /// Total length of the packet when its fixed header is complete, else one more than there are bytes now.
        needed: usize,
    },
}

/// Cuts the first packet from `input`.
///
/// `max_packet_size` is the largest whole packet to accept, in bytes (MQTT 5.0 §3.1.2.11.4). Flags are checked for all
/// versions at once; what only one of them forbids is left to [`Packet::decode`](crate::Packet::decode).
///
/// # Errors
/// Reserved packet type or flags [MQTT-2.1.3-1, v5] [MQTT-2.2.2-1, v3.1.1], QoS 3 [MQTT-3.3.1-4, v3.1.1 and v5], DUP at
/// QoS 0 [MQTT-3.3.1-2, v3.1.1 and v5], a Remaining Length of five bytes, a packet above the limit.
#[inline]
pub fn frame(input: &[u8], max_packet_size: u32) -> Result<FrameStatus<'_>, DecodeError> {
    let Some((&first_byte, mut rest)) = input.split_first() else {
        return Ok(FrameStatus::Incomplete { needed: 1 });
    };
    check_first_byte(first_byte)?;
    let mut remaining = 0u32;
    let mut header_len = 1u32;
    for shift in [0, 7, 14, 21] {
        let Some((&byte, after)) = rest.split_first() else {
            return Ok(FrameStatus::Incomplete { needed: input.len() + 1 });
        };
        rest = after;
        header_len += 1;
        remaining |= u32::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return cut(first_byte, header_len, remaining, rest, max_packet_size);
        }
    }
    Err(DecodeError::Malformed("remaining length has more than four bytes"))
}

#[inline]
fn cut(
    first_byte: u8,
    header_len: u32,
    remaining: u32,
    rest: &[u8],
    max_packet_size: u32,
) -> Result<FrameStatus<'_>, DecodeError> {
    debug_assert!(remaining <= VARIABLE_BYTE_INTEGER_MAX, "four bytes of seven bits");
    let size = header_len + remaining;
    if size > max_packet_size {
        return Err(DecodeError::PacketTooLarge { size, limit: max_packet_size });
    }
    Ok(match (usize::try_from(remaining), usize::try_from(size)) {
        (Ok(remaining), Ok(len)) => match rest.get(..remaining) {
            Some(body) => FrameStatus::Complete(Frame { first_byte, body, len }),
            None => FrameStatus::Incomplete { needed: len },
        },
        _ => return Err(DecodeError::PacketTooLarge { size, limit: max_packet_size }),
    })
}

#[inline]
fn check_first_byte(first_byte: u8) -> Result<(), DecodeError> {
    let flags = first_byte & 0x0F;
    match first_byte >> 4 {
        0 => Err(DecodeError::Malformed("packet type 0 is reserved")),
        3 => crate::packet::check_publish_flags(flags),
        // PUBREL, SUBSCRIBE, UNSUBSCRIBE; their bit 3 was DUP in MQTT 3.1, so it is judged when the version is known.
        6 | 8 | 10 if flags & 0b0111 == 0b0010 => Ok(()),
        6 | 8 | 10 => Err(RESERVED_FLAGS),
        _ if flags == 0 => Ok(()),
        _ => Err(RESERVED_FLAGS),
    }
}

pub(crate) const RESERVED_FLAGS: DecodeError =
    DecodeError::Malformed("reserved flags of the fixed header are wrong");
