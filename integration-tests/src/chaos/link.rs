//! A connection that may end at any moment: like [`crate::Client`], and nothing that happens to it is a failure.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::history::Wrong;
use crate::wire::{self, Properties, variable_byte_integer};
use crate::{PATIENCE, Version};

/// Seconds for which MQTT 5 sessions are kept.
const EXPIRY_S: u32 = 86_400;

/// A connection with its session resumed or begun.
#[derive(Debug)]
pub(super) struct Link {
    stream: TcpStream,
    version: Version,
    received: Vec<u8>,
}

/// A packet of the broker.
#[derive(Debug)]
pub(super) enum Packet {
    Publish { dup: bool, qos: u8, packet_id: u16, topic: String, payload: Vec<u8> },
    Puback(u16, u8),
    Pubrec(u16, u8),
    Pubrel(u16),
    Pubcomp(u16),
    Suback(Vec<u8>),
    Pingresp,
    Disconnect(u8),
    Other(u8),
}

impl Packet {
    /// That it has no business there.
    pub(super) fn unexpected(&self) -> Wrong {
        match *self {
            Self::Publish { .. } => Wrong::Unexpected(0x30),
            Self::Puback(packet_id, _) => Wrong::Unasked(0x40, packet_id),
            Self::Pubrec(packet_id, _) => Wrong::Unasked(0x50, packet_id),
            Self::Pubrel(packet_id) => Wrong::Unasked(0x62, packet_id),
            Self::Pubcomp(packet_id) => Wrong::Unasked(0x70, packet_id),
            Self::Suback(_) => Wrong::Unexpected(0x90),
            Self::Pingresp => Wrong::Unexpected(0xd0),
            Self::Disconnect(code) => Wrong::Disconnected(code),
            Self::Other(first) => Wrong::Unexpected(first),
        }
    }
}

impl Link {
    /// Connects as a client whose session lasts. Also returns the Session Present flag.
    pub(super) fn resume(address: SocketAddr, version: Version, client_id: &str) -> io::Result<(Self, bool)> {
        let connect = match version {
            Version::V311 => format!("10 ['MQTT' 04 00 003c '{client_id}']"),
            Version::V5 => format!("10 ['MQTT' 05 00 003c [11 {EXPIRY_S:08x}] '{client_id}']"),
        };
        Self::connect(address, version, &connect)
    }

    /// Connects as a client without a past or a future.
    pub(super) fn clean(address: SocketAddr, client_id: &str) -> io::Result<Self> {
        Ok(Self::connect(address, Version::V5, &Version::V5.connect(client_id))?.0)
    }

    fn connect(address: SocketAddr, version: Version, connect: &str) -> io::Result<(Self, bool)> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut link = Self { stream, version, received: Vec::new() };
        link.send(&wire::bytes(connect))?;
        let Some(packet) = link.next_bytes(PATIENCE)? else { return Err(ErrorKind::TimedOut.into()) };
        match packet.as_slice() {
            [0x20, _, flags, 0, ..] => Ok((link, flags & 1 == 1)),
            other => Err(io::Error::other(format!("{other:02x?} came where a CONNACK was expected"))),
        }
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next packet; `None` when none came in time.
    pub(super) fn next(&mut self, wait: Duration) -> io::Result<Option<Packet>> {
        Ok(self.next_bytes(wait)?.map(|bytes| self.parse(&bytes)))
    }

    /// Whether more has been read than was asked for.
    pub(super) fn has_more(&self) -> bool {
        self.whole_packet().is_some()
    }

    pub(super) fn leave(mut self, is_orderly: bool) {
        if is_orderly {
            drop(self.send(&[0xe0, 0]));
        }
        drop(self.stream.shutdown(Shutdown::Both));
    }

    /// Bytes of the first packet, if it has arrived whole.
    fn whole_packet(&self) -> Option<usize> {
        let (length, size) = wire::read_variable_byte_integer(self.received.get(1..)?)?;
        let whole = 1 + size + length;
        (self.received.len() >= whole).then_some(whole)
    }

    fn next_bytes(&mut self, wait: Duration) -> io::Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + wait;
        loop {
            if let Some(whole) = self.whole_packet() {
                let rest = self.received.split_off(whole);
                return Ok(Some(std::mem::replace(&mut self.received, rest)));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut chunk = [0; 16_384];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.received.extend(&chunk[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn parse(&self, packet: &[u8]) -> Packet {
        let (_, size) = wire::read_variable_byte_integer(&packet[1..]).expect("the packet is whole");
        let body = &packet[1 + size..];
        let packet_id = || u16::from_be_bytes([body[0], body[1]]);
        let code = || body.get(2).copied().unwrap_or(0);
        match packet[0] {
            first if first & 0xf0 == 0x30 => self.parse_publish(first, body),
            0x40 => Packet::Puback(packet_id(), code()),
            0x50 => Packet::Pubrec(packet_id(), code()),
            0x62 => Packet::Pubrel(packet_id()),
            0x70 => Packet::Pubcomp(packet_id()),
            0x90 => {
                let properties = if self.version == Version::V5 { Properties::read(&body[2..]).1 } else { 0 };
                Packet::Suback(body[2 + properties..].to_vec())
            }
            0xd0 => Packet::Pingresp,
            0xe0 => Packet::Disconnect(body.first().copied().unwrap_or(0)),
            other => Packet::Other(other),
        }
    }

    fn parse_publish(&self, first: u8, body: &[u8]) -> Packet {
        let qos = first >> 1 & 3;
        let end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
        let topic = String::from_utf8_lossy(&body[2..end]).into_owned();
        let mut rest = &body[end..];
        let mut packet_id = 0;
        if qos > 0 {
            packet_id = u16::from_be_bytes([rest[0], rest[1]]);
            rest = &rest[2..];
        }
        if self.version == Version::V5 {
            rest = &rest[Properties::read(rest).1..];
        }
        Packet::Publish { dup: first & 8 != 0, qos, packet_id, topic, payload: rest.to_vec() }
    }
}

/// What is sent of a PUBLISH.
#[derive(Debug, Clone, Copy)]
pub(super) struct Publish<'a> {
    pub(super) dup: bool,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) topic: &'a str,
    pub(super) packet_id: u16,
    pub(super) payload: &'a [u8],
}

impl Publish<'_> {
    pub(super) fn put(&self, version: Version, out: &mut Vec<u8>) {
        let mut body = u16::try_from(self.topic.len()).expect("a short topic").to_be_bytes().to_vec();
        body.extend(self.topic.as_bytes());
        body.extend(self.packet_id.to_be_bytes());
        if version == Version::V5 {
            body.push(0);
        }
        body.extend(self.payload);
        out.push(0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain));
        out.extend(variable_byte_integer(body.len()));
        out.extend(body);
    }
}

/// Puts a PUBACK, PUBREC, PUBREL or PUBCOMP, by its first byte.
pub(super) fn put_ack(first: u8, packet_id: u16, out: &mut Vec<u8>) {
    let [high, low] = packet_id.to_be_bytes();
    out.extend([first, 2, high, low]);
}
