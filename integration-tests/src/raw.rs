//! The raw client.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::wire::{self, Properties, bytes};
use crate::{Broker, PATIENCE};

/// The protocol version that a test speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V311,
    /// MQTT 5.0.
    V5,
}

impl Version {
    /// Both versions, for what holds in both.
    pub const BOTH: [Self; 2] = [Self::V311, Self::V5];

    /// No properties, in notation: nothing before MQTT 5.
    #[must_use]
    pub fn no_properties(self) -> &'static str {
        match self {
            Self::V311 => "",
            Self::V5 => "[]",
        }
    }

    /// A CONNECT with a clean start, a Keep Alive of 60 seconds and nothing optional, in notation.
    #[must_use]
    pub fn connect(self, client_id: &str) -> String {
        match self {
            Self::V311 => format!("10 ['MQTT' 04 02 003c '{client_id}']"),
            Self::V5 => format!("10 ['MQTT' 05 02 003c [] '{client_id}']"),
        }
    }

    /// A CONNECT that resumes the session of `client_id` or begins one, and keeps it after the connection (for a
    /// minute in MQTT 5), in notation.
    #[must_use]
    pub fn resume(self, client_id: &str) -> String {
        match self {
            Self::V311 => format!("10 ['MQTT' 04 00 003c '{client_id}']"),
            Self::V5 => format!("10 ['MQTT' 05 00 003c [11 0000003c] '{client_id}']"),
        }
    }
}

/// A connection to the broker under test. Every failure panics at the caller's line.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    version: Version,
    /// Bytes that arrived and belong to packets not yet read.
    received: Vec<u8>,
    /// Packets that were passed over by [`Client::release`].
    set_aside: VecDeque<Vec<u8>>,
}

/// A CONNACK.
#[derive(Debug)]
pub struct Connack {
    /// The Session Present flag.
    pub session_present: bool,
    /// Reason Code, or the return code of MQTT 3.1.1.
    pub code: u8,
    /// Empty before MQTT 5.
    pub properties: Properties,
}

/// A PUBLISH from the Server.
#[derive(Debug)]
pub struct Delivery {
    /// The DUP flag.
    pub dup: bool,
    /// 0, 1 or 2.
    pub qos: u8,
    /// The RETAIN flag.
    pub retain: bool,
    /// Topic Name; empty when a Topic Alias stands for it.
    pub topic: String,
    /// Packet Identifier; None at QoS 0.
    pub packet_id: Option<u16>,
    /// Empty before MQTT 5.
    pub properties: Properties,
    /// Application Message.
    pub payload: Vec<u8>,
}

impl Delivery {
    /// The payload as text.
    #[track_caller]
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("a payload of UTF-8")
    }
}

/// An acknowledgement: PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK or UNSUBACK.
#[derive(Debug)]
pub struct Ack {
    /// Packet Identifier.
    pub packet_id: u16,
    /// Reason Codes: one, but for SUBACK and UNSUBACK. 0 (Success) where the packet leaves it out.
    pub codes: Vec<u8>,
    /// Empty before MQTT 5.
    pub properties: Properties,
}

impl Client {
    /// Opens a connection and sends nothing.
    #[track_caller]
    #[must_use]
    pub fn open(broker: &Broker, version: Version) -> Self {
        Self::open_at(broker.address(), version)
    }

    /// Opens a connection to another of the broker's listeners.
    #[track_caller]
    #[must_use]
    pub fn open_at(address: SocketAddr, version: Version) -> Self {
        let stream = TcpStream::connect(address).expect("the broker accepts connections");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, version, received: Vec::new(), set_aside: VecDeque::new() }
    }

    /// Connects with a clean start and asserts that the broker accepts.
    #[track_caller]
    #[must_use]
    pub fn connect(broker: &Broker, version: Version, client_id: &str) -> Self {
        Self::connect_as(broker, version, &version.connect(client_id)).0
    }

    /// Connects to a broker that waits for a CONNECT no longer than a busy machine may take to send one: as often as it takes until
    /// one is in time.
    #[track_caller]
    #[must_use]
    pub fn connect_in_time(broker: &Broker, version: Version, client_id: &str) -> Self {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut client = Self::open(broker, version);
            client.send_to_a_closing_broker(&bytes(&version.connect(client_id)));
            if let Some(packet) = client.next_packet() {
                client.set_aside.push_front(packet);
                let connack = client.connack();
                assert_eq!(connack.code, 0, "the broker refused {client_id}: {connack:?}");
                return client;
            }
            assert!(Instant::now() < deadline, "no CONNECT of {client_id} is in time");
        }
    }

    /// Sends a CONNECT of its own and asserts that the broker accepts.
    #[track_caller]
    #[must_use]
    pub fn connect_as(broker: &Broker, version: Version, connect: &str) -> (Self, Connack) {
        let mut client = Self::open(broker, version);
        client.send(connect);
        let connack = client.connack();
        assert_eq!(connack.code, 0, "the broker refused {connect}: {connack:?}");
        (client, connack)
    }

    /// Sends notation ([`wire::bytes`]) in one write.
    #[track_caller]
    pub fn send(&mut self, notation: &str) {
        self.send_bytes(&bytes(notation));
    }

    /// Sends bytes in one write.
    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the broker reads");
    }

    /// Sends bytes that the broker need not take: it may have closed the connection already.
    pub fn send_to_a_closing_broker(&mut self, bytes: &[u8]) {
        drop(self.stream.write_all(bytes));
    }

    /// Reads the next packet whole.
    #[track_caller]
    #[must_use]
    pub fn packet(&mut self) -> Vec<u8> {
        match self.next_packet() {
            Some(packet) => packet,
            None => panic!("the broker closed the connection where a packet was expected"),
        }
    }

    /// Reads the next packet whole, or None when the broker closed the connection instead.
    #[track_caller]
    #[must_use]
    pub fn packet_or_end(&mut self) -> Option<Vec<u8>> {
        self.next_packet()
    }

    /// Reads the next packet, or None at the end of the connection.
    #[track_caller]
    fn next_packet(&mut self) -> Option<Vec<u8>> {
        if let Some(packet) = self.set_aside.pop_front() {
            return Some(packet);
        }
        self.arriving_packet()
    }

    #[track_caller]
    fn arriving_packet(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some((length, size)) = self.received.get(1..).and_then(wire::read_variable_byte_integer) {
                let whole = 1 + size + length;
                if self.received.len() >= whole {
                    let rest = self.received.split_off(whole);
                    return Some(std::mem::replace(&mut self.received, rest));
                }
            }
            let mut chunk = [0; 65_536];
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    assert!(self.received.is_empty(), "the connection ended inside {:02x?}", self.received);
                    return None;
                }
                Ok(count) => self.received.extend(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no packet in time: {error}"),
            }
        }
    }

    /// Asserts that the next packet is exactly this one.
    #[track_caller]
    pub fn expect(&mut self, notation: &str) {
        let packet = self.packet();
        assert_eq!(hex(&packet), hex(&bytes(notation)), "expected {notation}");
    }

    /// Asserts that the broker closes the connection and says nothing.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        if let Some(packet) = self.next_packet() {
            panic!("{} came where the connection should have been closed", hex(&packet));
        }
    }

    /// Asserts that the broker ends an established connection over a fault of ours: with a DISCONNECT that carries the
    /// Reason Code in MQTT 5, without a word in MQTT 3.1.1.
    #[track_caller]
    pub fn expect_end(&mut self, reason_code: u8) {
        // Where the broker takes no offence, a PINGRESP shows it at once.
        self.send_to_a_closing_broker(&[0xc0, 0]);
        self.expect_end_in_silence(reason_code);
    }

    /// The same without a word from us, for what the broker does by itself.
    #[track_caller]
    pub fn expect_end_in_silence(&mut self, reason_code: u8) {
        if self.version == Version::V5 {
            let Some(packet) = self.next_packet() else {
                // The specification lets a Server be silent (§4.13.1). Ours says why.
                assert!(Broker::is_foreign(), "closed without a DISCONNECT of {reason_code:#04x}");
                return;
            };
            assert_eq!(hex(&packet[..1]), "e0", "{} came, expected a DISCONNECT", hex(&packet));
            let code = body(&packet).first().copied().unwrap_or(0);
            assert_eq!(code, reason_code, "DISCONNECT with {code:#04x}, expected {reason_code:#04x}");
        }
        self.expect_closed();
    }

    /// Asserts that the broker refuses the connection: it closes, in MQTT 5 perhaps after a CONNACK with this Reason
    /// Code [MQTT-3.1.4-1, v5].
    #[track_caller]
    pub fn expect_refused(&mut self, reason_code: u8) {
        let Some(packet) = self.next_packet() else { return };
        assert_eq!(self.version, Version::V5, "{} came, expected the end", hex(&packet));
        assert_eq!(hex(&packet[..1]), "20", "{} came, expected a CONNACK", hex(&packet));
        assert_eq!(body(&packet)[..2], [0, reason_code], "{}", hex(&packet));
        self.expect_closed();
    }

    /// Asserts that the broker ends the connection before it was established. Returns the code of the CONNACK that it
    /// sent before, if any.
    #[track_caller]
    #[must_use]
    pub fn end_of_refusal(&mut self) -> Option<u8> {
        let packet = self.next_packet()?;
        assert_eq!(hex(&packet[..1]), "20", "{} came, expected a CONNACK", hex(&packet));
        assert_ne!(body(&packet)[1], 0, "the broker accepted the connection");
        self.expect_closed();
        Some(body(&packet)[1])
    }

    /// Asserts that the broker sends nothing for as long as `time`.
    #[track_caller]
    pub fn expect_silence(&mut self, time: Duration) {
        self.stream.set_read_timeout(Some(time)).unwrap();
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            other => panic!("{other:?} ({byte:02x?}) came, expected silence for {time:?}"),
        }
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }

    /// Asserts that the broker ends an established connection. Returns the Reason Code of its DISCONNECT, if it sent
    /// one.
    #[track_caller]
    #[must_use]
    pub fn end_of_session(&mut self) -> Option<u8> {
        // Where the broker takes no offence, a PINGRESP shows it at once.
        self.send_to_a_closing_broker(&[0xc0, 0]);
        let packet = self.next_packet()?;
        assert_eq!(hex(&packet[..1]), "e0", "{} came, expected a DISCONNECT", hex(&packet));
        self.expect_closed();
        Some(body(&packet).first().copied().unwrap_or(0))
    }

    /// Reads the SUBACK to filters of which some are malformed: its codes, or None when the broker ended the connection
    /// instead (with Malformed Packet, Protocol Error or Topic Filter invalid in MQTT 5).
    #[track_caller]
    #[must_use]
    pub fn refusal_of_filters(&mut self) -> Option<Vec<u8>> {
        let packet = self.next_packet()?;
        if packet[0] == 0xe0 {
            let code = body(&packet).first().copied().unwrap_or(0);
            assert!(matches!(code, 0x81 | 0x82 | 0x8f), "DISCONNECT with {code:#04x}");
            self.expect_closed();
            return None;
        }
        self.set_aside.push_front(packet);
        Some(self.ack(0x90).codes)
    }

    /// Reads a DISCONNECT and returns its Reason Code.
    #[track_caller]
    #[must_use]
    pub fn disconnect(&mut self) -> u8 {
        let packet = self.packet_of_type(0xe0);
        packet.first().copied().unwrap_or(0)
    }

    /// Waits for the PUBREL of this Packet Identifier and answers with PUBCOMP. PUBLISH packets that arrive before it
    /// stay to be read.
    #[track_caller]
    pub fn release(&mut self, packet_id: u16) {
        let pubrel = bytes(&format!("62 [{packet_id:04x}]"));
        loop {
            let Some(packet) = self.arriving_packet() else { panic!("the broker closed before its PUBREL") };
            if packet == pubrel {
                break;
            }
            assert_eq!(packet[0] & 0xf0, 0x30, "{} came, expected PUBREL {packet_id}", hex(&packet));
            self.set_aside.push_back(packet);
        }
        self.send(&format!("70 [{packet_id:04x}]"));
    }

    /// Shows that the connection lives, and that nothing else was on its way: PINGREQ, and PINGRESP comes next.
    #[track_caller]
    pub fn ping(&mut self) {
        self.send("c0 00");
        self.expect("d0 00");
    }

    /// Says that nothing more will be sent; what comes can still be read.
    pub fn finish_sending(&mut self) {
        drop(self.stream.shutdown(Shutdown::Write));
    }

    /// Closes the connection without a DISCONNECT.
    pub fn drop_connection(self) {
        drop(self.stream.shutdown(Shutdown::Both));
    }

    /// Sends DISCONNECT and waits until the broker closed the connection.
    #[track_caller]
    pub fn leave(mut self) {
        self.send("e0 00");
        self.expect_closed();
    }

    /// Reads a CONNACK.
    #[track_caller]
    #[must_use]
    pub fn connack(&mut self) -> Connack {
        let body = self.packet_of_type(0x20);
        assert!(body[0] <= 1, "reserved bits of the Connect Acknowledge Flags are set: {}", hex(&body));
        let properties = match self.version {
            Version::V5 => self.only_properties(&body[2..]),
            Version::V311 => {
                assert_eq!(body.len(), 2, "a CONNACK of MQTT 3.1.1 has two bytes: {}", hex(&body));
                Properties::default()
            }
        };
        Connack { session_present: body[0] == 1, code: body[1], properties }
    }

    /// Reads an acknowledgement with this fixed header byte: `0x40`, `0x50`, `0x62`, `0x70`, `0x90` or `0xb0`.
    #[track_caller]
    #[must_use]
    pub fn ack(&mut self, first_byte: u8) -> Ack {
        let body = self.packet_of_type(first_byte);
        let packet_id = u16::from_be_bytes([body[0], body[1]]);
        let rest = &body[2..];
        let is_list = matches!(first_byte, 0x90 | 0xb0);
        if self.version == Version::V311 {
            assert!(is_list || rest.is_empty(), "more than a Packet Identifier: {}", hex(&body));
            return Ack { packet_id, codes: rest.to_vec(), properties: Properties::default() };
        }
        if is_list {
            let (properties, size) = Properties::read(rest);
            return Ack { packet_id, codes: rest[size..].to_vec(), properties };
        }
        let properties =
            if rest.len() > 1 { self.only_properties(&rest[1..]) } else { Properties::default() };
        Ack { packet_id, codes: vec![rest.first().copied().unwrap_or(0)], properties }
    }

    /// Reads a PUBLISH that may come later than others.
    #[track_caller]
    #[must_use]
    pub fn delivery_within(&mut self, time: Duration) -> Delivery {
        self.stream.set_read_timeout(Some(time)).unwrap();
        let delivery = self.delivery();
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        delivery
    }

    /// Reads a PUBLISH.
    #[track_caller]
    #[must_use]
    pub fn delivery(&mut self) -> Delivery {
        let packet = self.packet();
        assert_eq!(packet[0] & 0xf0, 0x30, "{} is not a PUBLISH", hex(&packet));
        let qos = packet[0] >> 1 & 3;
        let body = body(&packet);
        let topic_end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
        let topic = String::from_utf8(body[2..topic_end].to_vec()).expect("a Topic Name of UTF-8");
        let mut at = topic_end;
        let packet_id = (qos > 0).then(|| {
            at += 2;
            u16::from_be_bytes([body[at - 2], body[at - 1]])
        });
        assert_ne!(packet_id, Some(0), "a Packet Identifier of zero");
        let mut properties = Properties::default();
        if self.version == Version::V5 {
            let (read, size) = Properties::read(&body[at..]);
            properties = read;
            at += size;
        }
        Delivery {
            dup: packet[0] & 8 != 0,
            qos,
            retain: packet[0] & 1 != 0,
            topic,
            packet_id,
            properties,
            payload: body[at..].to_vec(),
        }
    }

    /// Subscribes to one filter and asserts that the broker grants what was asked for.
    #[track_caller]
    pub fn subscribe(&mut self, filter: &str, options: u8) {
        let properties = self.version.no_properties();
        self.send(&format!("82 [7001 {properties} '{filter}' {options:02x}]"));
        let suback = self.ack(0x90);
        assert_eq!((suback.packet_id, &suback.codes[..]), (0x7001, &[options & 3][..]), "{filter}");
    }

    /// Publishes at QoS 0.
    #[track_caller]
    pub fn publish(&mut self, topic: &str, payload: &str) {
        let properties = self.version.no_properties();
        self.send(&format!("30 ['{topic}' {properties} `{payload}`]"));
    }

    /// Publishes at QoS 1 and waits for the PUBACK, so that the message has been routed. Returns its Reason Code.
    #[track_caller]
    pub fn publish_acknowledged(&mut self, topic: &str, payload: &str) -> u8 {
        let properties = self.version.no_properties();
        self.send(&format!("32 ['{topic}' 7002 {properties} `{payload}`]"));
        let puback = self.ack(0x40);
        assert_eq!(puback.packet_id, 0x7002);
        puback.codes.first().copied().unwrap_or(0)
    }

    #[track_caller]
    fn packet_of_type(&mut self, first_byte: u8) -> Vec<u8> {
        let packet = self.packet();
        assert_eq!(packet[0], first_byte, "{} came, expected a packet {first_byte:02x}", hex(&packet));
        body(&packet).to_vec()
    }

    #[track_caller]
    fn only_properties(&self, input: &[u8]) -> Properties {
        let (properties, size) = Properties::read(input);
        assert_eq!(size, input.len(), "bytes after the properties: {}", hex(input));
        properties
    }
}

/// The packet without its fixed header.
fn body(packet: &[u8]) -> &[u8] {
    let (_, size) = wire::read_variable_byte_integer(&packet[1..]).unwrap();
    &packet[1 + size..]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}
