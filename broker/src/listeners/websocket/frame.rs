//! WebSocket frames (RFC 6455 §5): read where they lie.
//!
//! MQTT doesn't care where frames begin and end: their payloads together are the stream (MQTT 5.0 §6). So no frame is ever
//! gathered. [`FrameReader::read`] takes bytes as they came, takes the masks off, and moves the payloads together at the
//! front of the same bytes; of what isn't whole it keeps only the head of a frame, or a control frame of at most 125 bytes.

/// Largest payload of a control frame, in bytes (RFC 6455 §5.5).
const CONTROL_BYTES_MAX: usize = 125;
/// Largest head of a frame: two bytes, a length of eight, a mask of four.
const HEAD_BYTES_MAX: usize = 14;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;

/// A frame that may not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A client has to mask what it sends (§5.1).
    #[error("a frame without a mask")]
    NotMasked,
    /// A server may not (§5.1).
    #[error("a frame with a mask, from a server")]
    Masked,
    /// Bits for extensions that nobody agreed on.
    #[error("a frame with reserved bits set")]
    Reserved,
    /// An operation that doesn't exist.
    #[error("a frame of the unknown kind {0:#x}")]
    Unknown(u8),
    /// MQTT travels in binary frames [MQTT-6.0.0-1].
    #[error("a text frame; MQTT travels in binary frames")]
    Text,
    /// A message was begun inside another, or goes on without having begun.
    #[error("a fragment out of place")]
    Fragment,
    /// A control frame that is cut in pieces, or too large.
    #[error("a control frame in pieces, or of more than {CONTROL_BYTES_MAX} bytes")]
    Control,
    /// A length that isn't written as briefly as possible, or that no stream can hold.
    #[error("a length that is written in a form that is not allowed")]
    Length,
    /// A Close with half a status code, or one that nobody may send.
    #[error("a close frame that is malformed")]
    Close,
    /// A frame beyond the limit.
    #[error("a frame of {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Bytes of its payload, as announced.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
}

impl FrameError {
    /// The status code that the client is told (§7.4.1).
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Text => 1003,
            Self::TooLarge { .. } => 1009,
            Self::NotMasked
            | Self::Masked
            | Self::Reserved
            | Self::Unknown(_)
            | Self::Fragment
            | Self::Control
            | Self::Length
            | Self::Close => 1002,
        }
    }
}

/// What came beside the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// To be answered with a Pong of the same bytes.
    Ping(Box<[u8]>),
    /// The other side ends: its status code, if it gave one. Nothing that follows is read.
    Close(Option<u16>),
}

/// Reads the frames of one side. See the module.
#[derive(Debug)]
pub struct FrameReader {
    max_frame_size: u64,
    /// Whether the frames have masks: a client's have, a server's haven't.
    is_masked: bool,
    head: [u8; HEAD_BYTES_MAX],
    head_len: u8,
    mask: [u8; 4],
    /// Bytes of the payload's mask that are used up, modulo four.
    mask_at: u8,
    /// Payload of the frame that is still to come.
    left: u64,
    /// Operation of the control frame that is being read.
    control: Option<u8>,
    payload: Vec<u8>,
    /// A message has begun that isn't at its end.
    in_message: bool,
    is_closed: bool,
}

impl FrameReader {
    /// A reader at the beginning of what a client sends.
    #[must_use]
    pub fn new(max_frame_size: u64) -> Self {
        Self {
            max_frame_size,
            is_masked: true,
            head: [0; HEAD_BYTES_MAX],
            head_len: 0,
            mask: [0; 4],
            mask_at: 0,
            left: 0,
            control: None,
            payload: Vec::new(),
            in_message: false,
            is_closed: false,
        }
    }

    /// A reader at the beginning of what a server sends.
    #[must_use]
    pub fn of_server(max_frame_size: u64) -> Self {
        Self { is_masked: false, ..Self::new(max_frame_size) }
    }

    /// Takes bytes, and leaves those that belong to the stream at their front. Returns how many these are, and what went
    /// wrong after them; after an error, or a Close, nothing more is read.
    pub fn read(
        &mut self,
        bytes: &mut [u8],
        control: &mut dyn FnMut(Control),
    ) -> (usize, Result<(), FrameError>) {
        let mut kept = 0;
        let mut at = 0;
        while at < bytes.len() && !self.is_closed {
            if self.left == 0 {
                let Some(byte) = bytes.get(at) else { break };
                at += 1;
                match self.push_head(*byte) {
                    Ok(()) => {}
                    Err(error) => {
                        self.is_closed = true;
                        return (kept, Err(error));
                    }
                }
            } else {
                let rest = u64::try_from(bytes.len() - at).unwrap_or(u64::MAX);
                let count = usize::try_from(self.left.min(rest)).unwrap_or(0);
                self.take_payload(bytes, at, count, &mut kept);
                at += count;
            }
            if self.left == 0
                && self.head_len == 0
                && let Some(kind) = self.control.take()
                && let Err(error) = self.end_control(kind, control)
            {
                self.is_closed = true;
                return (kept, Err(error));
            }
        }
        (kept, Ok(()))
    }

    /// Takes `count` bytes of payload from `at` on.
    fn take_payload(&mut self, bytes: &mut [u8], at: usize, count: usize, kept: &mut usize) {
        if let Some(part) = bytes.get_mut(at..at + count) {
            if self.is_masked {
                mask(part, self.mask, self.mask_at);
            }
            if self.control.is_some() {
                self.payload.extend_from_slice(part);
            }
        }
        if self.control.is_none() {
            if *kept != at {
                bytes.copy_within(at..at + count, *kept);
            }
            *kept += count;
        }
        // Only the last two bits matter.
        self.mask_at = (self.mask_at + u8::try_from(count & 3).unwrap_or(0)) & 3;
        self.left -= count as u64;
    }

    /// Takes one more byte of a head; with the last one the payload begins.
    fn push_head(&mut self, byte: u8) -> Result<(), FrameError> {
        if let Some(place) = self.head.get_mut(usize::from(self.head_len)) {
            *place = byte;
        }
        self.head_len += 1;
        let [first, second, ..] = self.head;
        match self.head_len {
            1 => return self.check_kind(first),
            2 => self.check_length(first, second)?,
            _ => {}
        }
        let length_bytes: u8 = match second & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask_bytes = if self.is_masked { 4 } else { 0 };
        if self.head_len < 2 + length_bytes + mask_bytes {
            return Ok(());
        }
        let long: [u8; 8] = self.head.get(2..10).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
        let (size, least) = match length_bytes {
            2 => (u64::from(u16::from_be_bytes([long[0], long[1]])), 126),
            8 => (u64::from_be_bytes(long), 65_536),
            _ => (u64::from(second & !MASKED), 0),
        };
        if size < least || size > i64::MAX as u64 {
            return Err(FrameError::Length);
        }
        if size > self.max_frame_size {
            return Err(FrameError::TooLarge { size, limit: self.max_frame_size });
        }
        let mask = self.head.get(usize::from(2 + length_bytes)..).and_then(|rest| rest.first_chunk::<4>());
        self.mask = mask.copied().unwrap_or_default();
        self.mask_at = 0;
        self.head_len = 0;
        self.left = size;
        let kind = first & 0x0f;
        if kind < CLOSE {
            self.in_message = first & FIN == 0;
        } else {
            self.control = Some(kind);
        }
        Ok(())
    }

    fn check_kind(&self, first: u8) -> Result<(), FrameError> {
        if first & 0x70 != 0 {
            return Err(FrameError::Reserved);
        }
        match first & 0x0f {
            TEXT => Err(FrameError::Text),
            BINARY if self.in_message => Err(FrameError::Fragment),
            CONTINUATION if !self.in_message => Err(FrameError::Fragment),
            BINARY | CONTINUATION => Ok(()),
            CLOSE | PING | PONG if first & FIN == 0 => Err(FrameError::Control),
            CLOSE | PING | PONG => Ok(()),
            other => Err(FrameError::Unknown(other)),
        }
    }

    fn check_length(&self, first: u8, second: u8) -> Result<(), FrameError> {
        match (self.is_masked, second & MASKED != 0) {
            (true, false) => return Err(FrameError::NotMasked),
            (false, true) => return Err(FrameError::Masked),
            _ => {}
        }
        if first & 0x0f >= CLOSE && usize::from(second & !MASKED) > CONTROL_BYTES_MAX {
            return Err(FrameError::Control);
        }
        Ok(())
    }

    fn end_control(&mut self, kind: u8, control: &mut dyn FnMut(Control)) -> Result<(), FrameError> {
        let payload = std::mem::take(&mut self.payload);
        match kind {
            PING => control(Control::Ping(payload.into())),
            CLOSE => {
                self.is_closed = true;
                let status = match payload.as_slice() {
                    [] => None,
                    [high, low, reason @ ..] => {
                        let status = u16::from_be_bytes([*high, *low]);
                        if !may_be_sent(status) || std::str::from_utf8(reason).is_err() {
                            return Err(FrameError::Close);
                        }
                        Some(status)
                    }
                    [_] => return Err(FrameError::Close),
                };
                control(Control::Close(status));
            }
            // A Pong that nobody asked for may come (§5.5.3).
            _ => {}
        }
        Ok(())
    }
}

/// Whether a Close may carry this status code (§7.4).
fn may_be_sent(status: u16) -> bool {
    matches!(status, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Takes a mask off, or puts it on (§5.3); of the mask, `used` bytes are used up.
fn mask(bytes: &mut [u8], mut mask: [u8; 4], used: u8) {
    mask.rotate_left(usize::from(used & 3));
    let wide = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// The head of a frame of ours: whole, not masked.
#[derive(Debug, Default)]
pub(super) struct Head {
    bytes: [u8; 10],
    len: u8,
    sent: u8,
}

impl Head {
    /// The head of a binary frame.
    pub(super) fn binary(size: usize) -> Self {
        Self::new(BINARY, size)
    }

    fn new(kind: u8, size: usize) -> Self {
        let mut bytes = [0; 10];
        bytes[0] = FIN | kind;
        let len = match (u8::try_from(size), u16::try_from(size)) {
            (Ok(size @ ..126), _) => {
                bytes[1] = size;
                2
            }
            (_, Ok(size)) => {
                bytes[1] = 126;
                bytes[2..4].copy_from_slice(&size.to_be_bytes());
                4
            }
            _ => {
                bytes[1] = 127;
                bytes[2..].copy_from_slice(&(size as u64).to_be_bytes());
                10
            }
        };
        Self { bytes, len, sent: 0 }
    }

    /// What of it is still to be sent.
    pub(super) fn rest(&self) -> &[u8] {
        self.bytes.get(usize::from(self.sent)..usize::from(self.len)).unwrap_or_default()
    }

    /// Notes that of what is to be sent, this head first, `count` bytes are; returns how many weren't of the head.
    pub(super) fn advance(&mut self, count: usize) -> usize {
        let of_head = count.min(usize::from(self.len - self.sent));
        self.sent += u8::try_from(of_head).unwrap_or(0);
        count - of_head
    }
}

/// A frame that a client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientFrame<'p> {
    /// A piece of the stream.
    Binary(&'p [u8]),
    /// The answer to a Ping, with its bytes.
    Pong(&'p [u8]),
    /// The end, with a status code.
    Close(u16),
}

impl ClientFrame<'_> {
    /// Appends the frame under a mask, which should be one that nobody can guess (§10.3).
    pub fn append(self, with: [u8; 4], out: &mut Vec<u8>) {
        let status;
        let (kind, payload) = match self {
            Self::Binary(payload) => (BINARY, payload),
            Self::Pong(payload) => (PONG, payload),
            Self::Close(code) => {
                status = code.to_be_bytes();
                (CLOSE, status.as_slice())
            }
        };
        let mut head = Head::new(kind, payload.len());
        head.bytes[1] |= MASKED;
        out.extend_from_slice(head.rest());
        out.extend_from_slice(&with);
        let start = out.len();
        out.extend_from_slice(payload);
        mask(out.get_mut(start..).unwrap_or_default(), with, 0);
    }
}

/// Appends a Pong.
pub(super) fn append_pong(payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(Head::new(PONG, payload.len()).rest());
    out.extend_from_slice(payload);
}

/// Appends a Close.
pub(super) fn append_close(status: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(Head::new(CLOSE, 2).rest());
    out.extend_from_slice(&status.to_be_bytes());
}
