//! What the server may say to the library, judged before the library reads it.
//!
//! The library's parser follows tables within tables as deep as they go, on a thread's stack; it keeps the bodies of
//! messages that come back; and an acknowledgement of what was never sent makes it panic. A server could so end the
//! whole process, or fill its memory. Here every frame is held back until it is whole, and passes only if it is one
//! that a publisher can be sent, of a bounded size, without any table in it:
//!
//! - `connection.start` loses the server's properties, a returned message its headers and its body;
//! - an acknowledgement must be for something that was sent on its channel and isn't acknowledged;
//! - a message can come back only where one isn't acknowledged yet.
//!
//! Anything else ends the connection. What is needed of it beyond the library's own errors (why a channel or the
//! connection was closed, that the server takes nothing at the moment) is noted on the way. No I/O is in here.

use std::collections::{BTreeSet, HashMap};

/// Largest frame in bytes, its envelope included, that is agreed on with the server. The library keeps 64 of them.
pub(super) const FRAME_BYTES_MAX: u32 = 64 << 10;
/// Bytes around a frame's payload: type, channel, size and the end.
pub(super) const ENVELOPE_BYTES: usize = 8;
/// Bytes before a frame's payload.
const HEAD_BYTES: usize = 7;
/// What a frame ends with.
const END: u8 = 0xce;
/// Length of the protocol header, which is sent before any frame.
const PROTOCOL_HEADER_BYTES: usize = 8;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// Why a connection can't go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Violation {
    /// The server said what it mustn't.
    Protocol(String),
    /// It doesn't let anybody in who comes as we do.
    Mechanism(String),
}

fn violation<T>(text: impl Into<String>) -> Result<T, Violation> {
    Err(Violation::Protocol(text.into()))
}

/// What was noted on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    /// The server closes a channel; channel 0 is the connection.
    Closed { channel: u16, code: u16, text: String },
    /// It takes no messages for the time being.
    Blocked { reason: String },
    /// It does again.
    Unblocked,
}

/// Both directions of one connection.
#[derive(Debug)]
pub(super) struct Guard {
    mechanism: &'static str,
    channels: HashMap<u16, Published>,
    /// The frame that is being received.
    frame: Vec<u8>,
    /// How long it is, as far as is known.
    frame_bytes: usize,
    sent: Sent,
}

/// What was published on a channel.
#[derive(Debug, Default)]
struct Published {
    last: u64,
    /// Sent and not acknowledged.
    open: BTreeSet<u64>,
    /// Came back and not acknowledged.
    returned: usize,
    content: Content,
}

/// What is to come of a returned message.
#[derive(Debug, Default, PartialEq, Eq)]
enum Content {
    #[default]
    None,
    Header,
    Body(u64),
}

/// Where the bytes that are sent stand within their frame.
#[derive(Debug)]
struct Sent {
    /// Type, channel, size, and of a method which one it is.
    head: Vec<u8>,
    /// Bytes to come that don't matter.
    skip: usize,
}

impl Guard {
    /// `mechanism`: how we say who we are.
    pub(super) fn new(mechanism: &'static str) -> Self {
        Self {
            mechanism,
            channels: HashMap::new(),
            frame: Vec::new(),
            frame_bytes: HEAD_BYTES,
            sent: Sent { head: Vec::new(), skip: PROTOCOL_HEADER_BYTES },
        }
    }

    /// Judges what the server sent. What may pass is appended to `out`, in whole frames.
    pub(super) fn received(
        &mut self,
        mut bytes: &[u8],
        out: &mut Vec<u8>,
        notices: &mut Vec<Notice>,
    ) -> Result<(), Violation> {
        while !bytes.is_empty() {
            let wanted = self.frame_bytes.saturating_sub(self.frame.len()).min(bytes.len());
            let (head, rest) = bytes.split_at_checked(wanted).unwrap_or((bytes, &[]));
            self.frame.extend_from_slice(head);
            bytes = rest;
            if self.frame.len() < self.frame_bytes {
                continue;
            }
            if self.frame_bytes == HEAD_BYTES {
                self.frame_bytes = whole_bytes(&self.frame)?;
                continue;
            }
            let frame = std::mem::take(&mut self.frame);
            let judged = self.judge(&frame, out, notices);
            // Its room is used again.
            self.frame = frame;
            self.frame.clear();
            self.frame_bytes = HEAD_BYTES;
            judged?;
        }
        Ok(())
    }

    fn judge(&mut self, frame: &[u8], out: &mut Vec<u8>, notices: &mut Vec<Notice>) -> Result<(), Violation> {
        let mut from = Cursor(frame);
        let (kind, channel, size) = (from.u8()?, from.u16()?, from.size()?);
        let payload = from.take(size)?;
        if from.u8()? != END {
            return violation("a frame doesn't end where it says");
        }
        match kind {
            METHOD => self.method(channel, payload, out, notices),
            HEADER => self.header(channel, payload, out),
            BODY => self.body(channel, size),
            HEARTBEAT if channel == 0 && size == 0 => {
                out.extend_from_slice(frame);
                Ok(())
            }
            _ => violation(format!("a frame of type {kind} with {size} bytes on channel {channel}")),
        }
    }

    fn method(
        &mut self,
        channel: u16,
        payload: &[u8],
        out: &mut Vec<u8>,
        notices: &mut Vec<Notice>,
    ) -> Result<(), Violation> {
        let mut from = Cursor(payload);
        let (class, method) = (from.u16()?, from.u16()?);
        if (channel == 0) != (class == 10) {
            return violation(format!("method {class}.{method} on channel {channel}"));
        }
        match (class, method) {
            (10, 10) => return self.start(from, out),
            // connection: tune, open-ok, close-ok; channel: open-ok, flow; confirm: select-ok
            (10, 30 | 41 | 51) | (20, 11 | 20) | (85, 11) => {}
            (10, 50) | (20, 40) => {
                let (code, text) = (from.u16()?, from.short()?);
                notices.push(Notice::Closed { channel, code, text });
                if let Some(published) = self.channels.get_mut(&channel) {
                    *published = Published::default();
                }
            }
            (10, 60) => notices.push(Notice::Blocked { reason: from.short()? }),
            (10, 61) => notices.push(Notice::Unblocked),
            (20, 41) => drop(self.channels.remove(&channel)),
            (60, 50) => self.returned(channel)?,
            (60, 80 | 120) => {
                let (tag, bits) = (from.u64()?, from.u8()?);
                self.acknowledged(channel, tag, bits & 1 == 1)?;
            }
            _ => return violation(format!("method {class}.{method}, which nobody asked for")),
        }
        put_frame(out, METHOD, channel, payload)
    }

    /// The server's properties are left out.
    fn start(&self, mut from: Cursor<'_>, out: &mut Vec<u8>) -> Result<(), Violation> {
        let versions = from.take(2)?;
        let properties = from.size()?;
        from.take(properties)?;
        let rest = from.0;
        let size = from.size()?;
        let mechanisms = from.take(size)?;
        let offers = String::from_utf8_lossy(mechanisms);
        if !offers.split_whitespace().any(|offered| offered == self.mechanism) {
            let wanted = self.mechanism;
            return Err(Violation::Mechanism(format!("the server doesn't offer {wanted}, but {offers}")));
        }
        let mut payload = vec![0, 10, 0, 10];
        payload.extend_from_slice(versions);
        payload.extend_from_slice(&[0; 4]);
        payload.extend_from_slice(rest);
        put_frame(out, METHOD, 0, &payload)
    }

    fn published(&mut self, channel: u16) -> Result<&mut Published, Violation> {
        let known = self.channels.get_mut(&channel);
        known.ok_or_else(|| Violation::Protocol(format!("an answer on channel {channel}, which isn't open")))
    }

    fn acknowledged(&mut self, channel: u16, tag: u64, is_multiple: bool) -> Result<(), Violation> {
        let published = self.published(channel)?;
        let before = published.open.len();
        match (is_multiple, tag) {
            (true, 0) => published.open.clear(),
            (true, tag) if tag <= published.last => {
                published.open = published.open.split_off(&tag.saturating_add(1));
            }
            (false, tag) if published.open.remove(&tag) => {}
            _ => return violation("an acknowledgement of what wasn't sent"),
        }
        published.returned = published.returned.saturating_sub(before - published.open.len());
        Ok(())
    }

    fn returned(&mut self, channel: u16) -> Result<(), Violation> {
        let published = self.published(channel)?;
        if published.content != Content::None || published.returned >= published.open.len() {
            return violation("a message came back that wasn't sent");
        }
        published.returned += 1;
        published.content = Content::Header;
        Ok(())
    }

    /// Of a returned message only its identifier is let through.
    fn header(&mut self, channel: u16, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Violation> {
        let published = self.published(channel)?;
        if published.content != Content::Header {
            return violation("a message that nobody asked for");
        }
        let mut from = Cursor(payload);
        let (class, _, body_bytes) = (from.u16()?, from.u16()?, from.u64()?);
        if class != 60 {
            return violation(format!("content of class {class}"));
        }
        let message_id = message_id(&mut from)?;
        published.content = if body_bytes == 0 { Content::None } else { Content::Body(body_bytes) };
        // Class, weight, and a body of no bytes.
        let mut short = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let flags: u16 = if message_id.is_some() { MESSAGE_ID } else { 0 };
        short.extend_from_slice(&flags.to_be_bytes());
        if let Some(id) = message_id {
            short.push(u8::try_from(id.len()).or_else(|_| violation("a name is too long"))?);
            short.extend_from_slice(id);
        }
        put_frame(out, HEADER, channel, &short)
    }

    fn body(&mut self, channel: u16, bytes: usize) -> Result<(), Violation> {
        let published = self.published(channel)?;
        let Content::Body(left) = published.content else {
            return violation("a body that nobody asked for");
        };
        match left.checked_sub(u64::try_from(bytes).unwrap_or(u64::MAX)) {
            Some(_) if bytes == 0 => violation("a frame of a body with nothing in it"),
            Some(0) => {
                published.content = Content::None;
                Ok(())
            }
            Some(left) => {
                published.content = Content::Body(left);
                Ok(())
            }
            None => violation("a body longer than it says"),
        }
    }

    /// Takes note of what is sent: which channels are open, and how much is published on each.
    pub(super) fn sent(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = self.sent.skip.min(bytes.len());
            self.sent.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let missing = self.sent.missing().min(bytes.len());
            let (head, rest) = bytes.split_at_checked(missing).unwrap_or((bytes, &[]));
            self.sent.head.extend_from_slice(head);
            bytes = rest;
            if self.sent.skip == 0 && self.sent.missing() == 0 {
                self.sent_head();
            }
        }
    }

    fn sent_head(&mut self) {
        let head = std::mem::take(&mut self.sent.head);
        self.sent.skip = (size_of_head(&head) + ENVELOPE_BYTES).saturating_sub(head.len());
        let &[METHOD, c0, c1, _, _, _, _, class0, class1, method0, method1] = &*head else { return };
        let channel = u16::from_be_bytes([c0, c1]);
        match (u16::from_be_bytes([class0, class1]), u16::from_be_bytes([method0, method1])) {
            (20, 10) => drop(self.channels.insert(channel, Published::default())),
            // close-ok: the server has closed it
            (20, 41) => drop(self.channels.remove(&channel)),
            (60, 40) => {
                if let Some(published) = self.channels.get_mut(&channel) {
                    published.last += 1;
                    published.open.insert(published.last);
                }
            }
            _ => {}
        }
    }
}

impl Sent {
    /// Bytes of the head that are missing.
    fn missing(&self) -> usize {
        let method = if self.head.len() < HEAD_BYTES { 0 } else { size_of_head(&self.head).min(4) };
        (HEAD_BYTES + method).saturating_sub(self.head.len())
    }
}

fn size_of_head(head: &[u8]) -> usize {
    match head {
        &[_, _, _, a, b, c, d, ..] => usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX),
        _ => 0,
    }
}

/// How many bytes the frame has that begins so.
fn whole_bytes(head: &[u8]) -> Result<usize, Violation> {
    let size = size_of_head(head);
    match head.first() {
        Some(b'A') => violation("the server doesn't speak AMQP 0-9-1"),
        Some(&(METHOD | HEADER | BODY | HEARTBEAT)) => {
            let limit = usize::try_from(FRAME_BYTES_MAX).unwrap_or(usize::MAX);
            match size.checked_add(ENVELOPE_BYTES) {
                Some(whole) if whole <= limit => Ok(whole),
                _ => violation(format!("a frame of {size} bytes, more than the limit of {limit}")),
            }
        }
        _ => violation("what was received is no AMQP"),
    }
}

fn put_frame(out: &mut Vec<u8>, kind: u8, channel: u16, payload: &[u8]) -> Result<(), Violation> {
    let size = u32::try_from(payload.len()).or_else(|_| violation("a frame is too large"))?;
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&size.to_be_bytes());
    out.extend_from_slice(payload);
    out.push(END);
    Ok(())
}

/// The flag of the property `message-id` (AMQP 0-9-1, class basic).
const MESSAGE_ID: u16 = 1 << 7;

fn message_id<'b>(from: &mut Cursor<'b>) -> Result<Option<&'b [u8]>, Violation> {
    let flags = from.u16()?;
    if flags & 1 == 1 {
        return violation("more properties than there are");
    }
    // What stands before it: texts, the table of headers, and two numbers of one byte.
    for bit in (8..=15).rev().filter(|bit| flags & (1 << bit) != 0) {
        match bit {
            13 => {
                let size = from.size()?;
                from.take(size)?;
            }
            11 | 12 => {
                from.u8()?;
            }
            _ => {
                from.short_bytes()?;
            }
        }
    }
    if flags & MESSAGE_ID == 0 { Ok(None) } else { from.short_bytes().map(Some) }
}

/// Reads numbers and texts off the front.
struct Cursor<'b>(&'b [u8]);

impl<'b> Cursor<'b> {
    fn take(&mut self, bytes: usize) -> Result<&'b [u8], Violation> {
        let Some((head, rest)) = self.0.split_at_checked(bytes) else {
            return violation("a frame is shorter than what it holds");
        };
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Violation> {
        let bytes = self.take(N)?;
        bytes.try_into().or_else(|_| violation("a frame is shorter than what it holds"))
    }

    fn u8(&mut self) -> Result<u8, Violation> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, Violation> {
        self.array().map(u16::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Violation> {
        self.array().map(u64::from_be_bytes)
    }

    fn size(&mut self) -> Result<usize, Violation> {
        let size = self.array().map(u32::from_be_bytes)?;
        usize::try_from(size).or_else(|_| violation("a size is too large"))
    }

    fn short_bytes(&mut self) -> Result<&'b [u8], Violation> {
        let size = self.u8()?;
        self.take(size.into())
    }

    fn short(&mut self) -> Result<String, Violation> {
        Ok(String::from_utf8_lossy(self.short_bytes()?).into_owned())
    }
}
