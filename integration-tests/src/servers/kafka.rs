//! A Kafka broker of our own, in memory: Debian has none. It answers the five requests that a producer asks, in the words of
//! Kafka's protocol guide, and reads record batches by that guide too, not with the library that the action uses.
//!
//! A producer connects to where a broker says that it is. So that a fault on the way is met by everything, and not by the
//! first question alone, this one says that it is at the port that the client's name ends with (`at-4711`).

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

const PRODUCE: i16 = 0;
const METADATA: i16 = 3;
const SASL_HANDSHAKE: i16 = 17;
const API_VERSIONS: i16 = 18;
const INIT_PRODUCER_ID: i16 = 22;
const SASL_AUTHENTICATE: i16 = 36;

/// Each request, with the one version of it that is spoken.
const VERSIONS: [(i16, i16); 6] = [
    (PRODUCE, 7),
    (METADATA, 4),
    (SASL_HANDSHAKE, 1),
    (API_VERSIONS, 0),
    (INIT_PRODUCER_ID, 1),
    (SASL_AUTHENTICATE, 0),
];

const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const UNSUPPORTED_VERSION: i16 = 35;
const SASL_AUTHENTICATION_FAILED: i16 = 58;
const INVALID_RECORD: i16 = 87;
const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
const UNKNOWN_PRODUCER_ID: i16 = 59;

/// Batches of a producer that are remembered, as brokers do.
const BATCHES: usize = 5;

/// Longest request in bytes.
const REQUEST_BYTES_MAX: usize = 64 << 20;

/// A broker with a topic of one partition, that wants a password.
#[derive(Debug)]
pub struct Kafka {
    address: SocketAddr,
    log: Arc<Mutex<Log>>,
}

#[derive(Debug, Default)]
struct Log {
    written: Vec<Stored>,
    /// Of each producer by its number, first and last sequence of its last batches.
    producers: HashMap<i64, VecDeque<(i32, i32)>>,
}

/// A record as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's value.
    pub value: Vec<u8>,
    /// Names and values.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Kafka {
    /// The user that it knows.
    pub const USERNAME: &str = "gateway";
    /// The password that it wants.
    pub const PASSWORD: &str = "only for tests: kafka";
    /// The topic that there is.
    pub const TOPIC: &str = "cells";
    /// A partition's records are refused when one of them has this key.
    pub const REFUSED_KEY: &str = "poison";

    /// Starts one, which lives as long as the process.
    #[track_caller]
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let log: Arc<Mutex<Log>> = Arc::default();
        let written = Arc::clone(&log);
        thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                let log = Arc::clone(&written);
                // A client that goes away, or says what is no Kafka, is nothing to tell of.
                thread::spawn(move || Connection { tcp, log: &log, is_signed_in: false }.serve());
            }
        });
        Self { address, log }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has been written, in order.
    #[must_use]
    pub fn written(&self) -> Vec<Stored> {
        self.log.lock().unwrap().written.clone()
    }

    /// Forgets what has been written.
    pub fn clear(&self) {
        self.log.lock().unwrap().written.clear();
    }
}

struct Connection<'l> {
    tcp: TcpStream,
    log: &'l Mutex<Log>,
    is_signed_in: bool,
}

impl Connection<'_> {
    fn serve(mut self) -> io::Result<()> {
        self.tcp.set_nodelay(true)?;
        loop {
            let mut bytes = [0; 4];
            self.tcp.read_exact(&mut bytes)?;
            let bytes = usize::try_from(i32::from_be_bytes(bytes)).map_err(io::Error::other)?;
            if bytes > REQUEST_BYTES_MAX {
                return Err(io::Error::other("a request that is none"));
            }
            let mut request = vec![0; bytes];
            self.tcp.read_exact(&mut request)?;
            let answer =
                self.answer(&mut Reader(&request)).ok_or_else(|| io::Error::other("not understood"))?;
            let mut out = i32::try_from(answer.len()).map_err(io::Error::other)?.to_be_bytes().to_vec();
            out.extend(answer);
            self.tcp.write_all(&out)?;
        }
    }

    /// `None`: it makes no sense, and the connection ends.
    fn answer(&mut self, from: &mut Reader<'_>) -> Option<Vec<u8>> {
        let (api, version, correlation) = (from.i16()?, from.i16()?, from.i32()?);
        let client_id = from.string()?.unwrap_or_default();
        let mut out = correlation.to_be_bytes().to_vec();
        match api {
            API_VERSIONS => {
                let code = if version == 0 { 0 } else { UNSUPPORTED_VERSION };
                out.extend(code.to_be_bytes());
                out.extend(6_i32.to_be_bytes());
                for (api, version) in VERSIONS {
                    for number in [api, version, version] {
                        out.extend(number.to_be_bytes());
                    }
                }
            }
            SASL_HANDSHAKE => {
                out.extend(0_i16.to_be_bytes());
                out.extend(1_i32.to_be_bytes());
                put_string(&mut out, "PLAIN");
            }
            SASL_AUTHENTICATE => {
                let expected = format!("\0{}\0{}", Kafka::USERNAME, Kafka::PASSWORD);
                self.is_signed_in = from.bytes()? == expected.as_bytes();
                let code = if self.is_signed_in { 0 } else { SASL_AUTHENTICATION_FAILED };
                out.extend(code.to_be_bytes());
                put_string(&mut out, "as it is");
                out.extend(0_i32.to_be_bytes());
            }
            METADATA if self.is_signed_in => metadata(from, &client_id, &mut out)?,
            INIT_PRODUCER_ID if self.is_signed_in => {
                assert_eq!(from.string()?, None, "no transaction");
                let mut log = self.log.lock().unwrap();
                let number = i64::try_from(log.producers.len()).ok()?;
                log.producers.insert(number, VecDeque::new());
                out.extend(0_i32.to_be_bytes());
                out.extend(0_i16.to_be_bytes());
                out.extend(number.to_be_bytes());
                out.extend(0_i16.to_be_bytes());
            }
            PRODUCE if self.is_signed_in => self.produce(from, &mut out)?,
            _ => return None,
        }
        Some(out)
    }

    fn produce(&self, from: &mut Reader<'_>, out: &mut Vec<u8>) -> Option<()> {
        let (transaction, acks, _timeout_ms) = (from.string()?, from.i16()?, from.i32()?);
        assert_eq!((transaction, acks), (None, -1), "all replicas, and no transaction");
        let topics = from.i32()?;
        out.extend(topics.to_be_bytes());
        for _ in 0..topics {
            let topic = from.string()??;
            put_string(out, &topic);
            let partitions = from.i32()?;
            out.extend(partitions.to_be_bytes());
            for _ in 0..partitions {
                let partition = from.i32()?;
                let batch = batch(from.bytes()?)?;
                let is_refused =
                    |record: &Stored| record.key.as_deref() == Some(Kafka::REFUSED_KEY.as_bytes());
                let code = if topic != Kafka::TOPIC || partition != 0 {
                    UNKNOWN_TOPIC_OR_PARTITION
                } else if batch.records.iter().any(is_refused) {
                    INVALID_RECORD
                } else {
                    self.log.lock().unwrap().append(batch)
                };
                out.extend(partition.to_be_bytes());
                out.extend(code.to_be_bytes());
                // Offset, time and first offset: nobody asks.
                out.extend([0; 24]);
            }
        }
        out.extend(0_i32.to_be_bytes());
        Some(())
    }
}

impl Log {
    /// Writes a batch, unless it is there or isn't the next one. Returns the code of the answer.
    fn append(&mut self, batch: Batch) -> i16 {
        if batch.producer >= 0 {
            let Some(batches) = self.producers.get_mut(&batch.producer) else { return UNKNOWN_PRODUCER_ID };
            let last = batch.first + i32::try_from(batch.records.len()).unwrap() - 1;
            if batches.contains(&(batch.first, last)) {
                return 0;
            }
            if batches.back().map_or(0, |(_, last)| last + 1) != batch.first {
                return OUT_OF_ORDER_SEQUENCE_NUMBER;
            }
            batches.push_back((batch.first, last));
            if batches.len() > BATCHES {
                batches.pop_front();
            }
        }
        self.written.extend(batch.records);
        0
    }
}

fn metadata(from: &mut Reader<'_>, client_id: &str, out: &mut Vec<u8>) -> Option<()> {
    let port: i32 = client_id.rsplit_once("at-")?.1.parse().ok()?;
    out.extend(0_i32.to_be_bytes());
    // One broker, number 1, in no rack; no name of the cluster, and the same broker controls it.
    out.extend(1_i32.to_be_bytes());
    out.extend(1_i32.to_be_bytes());
    put_string(out, "127.0.0.1");
    out.extend(port.to_be_bytes());
    out.extend((-1_i16).to_be_bytes());
    out.extend((-1_i16).to_be_bytes());
    out.extend(1_i32.to_be_bytes());
    let topics = from.i32()?;
    out.extend(topics.to_be_bytes());
    for _ in 0..topics {
        let topic = from.string()??;
        let is_there = topic == Kafka::TOPIC;
        out.extend(if is_there { 0 } else { UNKNOWN_TOPIC_OR_PARTITION }.to_be_bytes());
        put_string(out, &topic);
        out.push(0);
        out.extend(i32::from(is_there).to_be_bytes());
        if is_there {
            // No error, partition 0, led by broker 1, which is its only replica.
            out.extend(0_i16.to_be_bytes());
            for number in [0_i32, 1, 1, 1, 1, 1] {
                out.extend(number.to_be_bytes());
            }
        }
    }
    Some(())
}

struct Batch {
    /// The number of the producer, or -1.
    producer: i64,
    /// The first record's place in its sequence.
    first: i32,
    records: Vec<Stored>,
}

/// One batch of the second version, not compressed.
fn batch(batch: &[u8]) -> Option<Batch> {
    let from = &mut Reader(batch);
    let (_base, _length, _epoch, magic) = (from.take(8)?, from.i32()?, from.i32()?, from.take(1)?);
    assert_eq!(magic, [2]);
    let sum = u32::from_be_bytes(from.take(4)?.try_into().ok()?);
    assert_eq!(sum, crc32c(from.0), "the checksum of a batch");
    assert_eq!(from.i16()?, 0, "not compressed");
    let last = from.i32()?;
    let _times = from.take(8 + 8)?;
    let (producer, _epoch, first) = (from.i64()?, from.i16()?, from.i32()?);
    let count = from.i32()?;
    assert_eq!(last, count - 1);
    let mut records = Vec::new();
    for number in 0..i64::from(count) {
        let bytes = from.varint()?;
        let record = &mut Reader(from.take(usize::try_from(bytes).ok()?)?);
        let (_attributes, _time, offset) = (record.take(1)?, record.varint()?, record.varint()?);
        assert_eq!(offset, number);
        let key = record.varbytes()?.map(<[u8]>::to_vec);
        let value = record.varbytes()??.to_vec();
        let mut headers = Vec::new();
        for _ in 0..record.varint()? {
            let name = String::from_utf8(record.varbytes()??.to_vec()).ok()?;
            headers.push((name, record.varbytes()??.to_vec()));
        }
        assert_eq!(record.0, b"");
        records.push(Stored { key, value, headers });
    }
    assert_eq!(from.0, b"");
    Some(Batch { producer, first, records })
}

/// CRC-32C (RFC 3720, appendix B.4), bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    };
    !bytes.iter().fold(!0, step)
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend(i16::try_from(text.len()).unwrap().to_be_bytes());
    out.extend(text.as_bytes());
}

/// What is left of a message.
struct Reader<'m>(&'m [u8]);

impl<'m> Reader<'m> {
    fn take(&mut self, bytes: usize) -> Option<&'m [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn i16(&mut self) -> Option<i16> {
        Some(i16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn i32(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn i64(&mut self) -> Option<i64> {
        Some(i64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    fn string(&mut self) -> Option<Option<String>> {
        let Ok(bytes) = usize::try_from(self.i16()?) else { return Some(None) };
        String::from_utf8(self.take(bytes)?.to_vec()).ok().map(Some)
    }

    fn bytes(&mut self) -> Option<&'m [u8]> {
        let bytes = usize::try_from(self.i32()?).ok()?;
        self.take(bytes)
    }

    /// A number of variable length, whose lowest bit is its sign.
    fn varint(&mut self) -> Option<i64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?.first()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
            }
        }
        None
    }

    fn varbytes(&mut self) -> Option<Option<&'m [u8]>> {
        let Ok(bytes) = usize::try_from(self.varint()?) else { return Some(None) };
        self.take(bytes).map(Some)
    }
}
