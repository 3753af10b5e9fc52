//! A broker that answers what a test tells it to, byte by byte, and keeps what it was sent.

use std::collections::{BTreeMap, VecDeque};
use std::io::Cursor;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use rskafka::protocol::record::{ControlBatchOrRecords, Record, RecordBatch};
use rskafka::protocol::traits::ReadType as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::config::ConnectorConfig;
use crate::connectors::Connectors;
use crate::targets::TargetPolicy;

const PRODUCE: i16 = 0;
const METADATA: i16 = 3;
const SASL_HANDSHAKE: i16 = 17;
const API_VERSIONS: i16 = 18;
const INIT_PRODUCER_ID: i16 = 22;
const SASL_AUTHENTICATE: i16 = 36;

/// The number of the first producer that asks for one.
pub(super) const FIRST_PRODUCER: i64 = 100;

/// What is done with a request that produces.
#[derive(Debug, Clone)]
pub(super) enum Say {
    /// The codes of the partitions, in the order of the request; 0 for those that there is no code for.
    Codes(Vec<i16>),
    /// Written, and a wish to be left alone for so many milliseconds.
    Quiet(i32),
    /// The connection is closed.
    Close,
    /// Nothing.
    Hang,
    /// These bytes behind the correlation id.
    Body(Vec<u8>),
    /// These bytes, whatever they are.
    Raw(Vec<u8>),
}

/// One record as it came, with the number of the request that it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) request: usize,
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) key: Option<String>,
    pub(super) value: String,
    pub(super) headers: BTreeMap<String, String>,
}

/// A record batch as it came: the producer's number and epoch, the first sequence, and the values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) partition: i32,
    pub(super) producer: (i64, i16),
    pub(super) first: i32,
    pub(super) values: Vec<String>,
}

/// A broker's side of a sign-in: to a message of the client, code and message.
pub(super) type Side = fn(&[u8]) -> (i16, Vec<u8>);

/// What the fake is like.
#[derive(Clone)]
pub(super) struct Like {
    /// Topics with their error, and the leaders of their partitions.
    pub(super) topics: BTreeMap<String, (i16, Vec<i32>)>,
    /// The brokers with their addresses; where there is none, the fake's own.
    pub(super) brokers: Vec<(i32, Option<(String, i32)>)>,
    /// What is answered to requests that produce; behind the last one, all is well.
    pub(super) says: VecDeque<Say>,
    /// The codes that are answered to who asks for a producer's number; behind the last one, all is well.
    pub(super) numbers: VecDeque<i16>,
    /// Whether such a request is known at all.
    pub(super) knows_producers: bool,
    /// What is answered to the messages of a sign-in: code and bytes.
    pub(super) sign_in: Option<Side>,
    /// What is answered to the first request of a connection, instead of versions.
    pub(super) hello: Option<Vec<u8>>,
    /// What is answered to requests for metadata.
    pub(super) metadata: Option<Vec<u8>>,
}

impl Default for Like {
    fn default() -> Self {
        Self {
            topics: BTreeMap::from([("t".to_owned(), (0, vec![1; 3]))]),
            brokers: vec![(1, None)],
            says: VecDeque::new(),
            numbers: VecDeque::new(),
            knows_producers: true,
            sign_in: None,
            hello: None,
            metadata: None,
        }
    }
}

impl Like {
    pub(super) fn says(says: impl IntoIterator<Item = Say>) -> Self {
        Self { says: says.into_iter().collect(), ..Self::default() }
    }
}

/// What the fake has seen.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) got: Mutex<Vec<Got>>,
    pub(super) batches: Mutex<Vec<Sent>>,
    pub(super) producers: Mutex<i64>,
    pub(super) attributes: Mutex<Vec<(i16, i32, String)>>,
    pub(super) connections: Mutex<usize>,
    pub(super) closed: Mutex<usize>,
    pub(super) metadata: Mutex<usize>,
    pub(super) client_ids: Mutex<Vec<String>>,
    pub(super) was_asked: Notify,
    pub(super) was_closed: Notify,
    /// Ends the connections of this moment.
    pub(super) hang_up: Notify,
}

pub(super) struct Fake {
    pub(super) address: SocketAddr,
    pub(super) seen: Arc<Seen>,
    pub(super) like: Arc<Mutex<Like>>,
}

impl Fake {
    pub(super) async fn start(like: Like) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, like) = (Arc::<Seen>::default(), Arc::new(Mutex::new(like)));
        let (all, script) = (Arc::clone(&seen), Arc::clone(&like));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                *all.connections.lock() += 1;
                let (seen, like) = (Arc::clone(&all), Arc::clone(&script));
                tokio::spawn(async move {
                    serve(tcp, address, &seen, &like).await;
                    *seen.closed.lock() += 1;
                    seen.was_closed.notify_one();
                });
            }
        });
        Self { address, seen, like }
    }

    /// Connectors with the one `k` that leads here, with further keys.
    pub(super) fn connectors(&self, more: &str) -> Connectors {
        connectors(&format!("[k]\ntype = 'kafka'\nservers = ['{}']\n{more}", self.address))
    }

    /// What came, without the headers of which every record has one more.
    pub(super) fn values(&self) -> Vec<String> {
        self.seen.got.lock().iter().map(|got| got.value.clone()).collect()
    }
}

pub(super) fn connectors(text: &str) -> Connectors {
    let configs: BTreeMap<String, ConnectorConfig> = toml::from_str(text).unwrap();
    let allow_private = vec!["127.0.0.1".parse().unwrap()];
    let targets = TargetPolicy { allow_private, ..TargetPolicy::default() };
    Connectors::load(&configs, &targets, &Connectors::default()).unwrap()
}

async fn serve(mut tcp: TcpStream, address: SocketAddr, seen: &Seen, like: &Mutex<Like>) {
    loop {
        let bytes = tokio::select! {
            bytes = tcp.read_i32() => bytes,
            () = seen.hang_up.notified() => return,
        };
        let Ok(bytes) = bytes else { return };
        let mut frame = vec![0; usize::try_from(bytes).unwrap()];
        if tcp.read_exact(&mut frame).await.is_err() {
            return;
        }
        let mut from = Cursor::new(&frame[..]);
        let (api, version) = (i16_of(&mut from), i16_of(&mut from));
        let correlation = i32_of(&mut from);
        let client_id = string_of(&mut from).unwrap();
        let body = match api {
            API_VERSIONS => {
                seen.client_ids.lock().push(client_id);
                let like = like.lock();
                like.hello.clone().unwrap_or_else(|| versions(version, like.knows_producers))
            }
            METADATA => {
                *seen.metadata.lock() += 1;
                let like = like.lock();
                like.metadata.clone().unwrap_or_else(|| metadata(&mut from, address, &like))
            }
            INIT_PRODUCER_ID => {
                assert_eq!((string_of(&mut from), i32_of(&mut from)), (None, i32::MAX));
                let code = like.lock().numbers.pop_front().unwrap_or(0);
                let mut producers = seen.producers.lock();
                let number = if code == 0 { FIRST_PRODUCER + *producers } else { -1 };
                *producers += 1;
                let mut out = 0_i32.to_be_bytes().to_vec();
                out.extend(code.to_be_bytes());
                out.extend(number.to_be_bytes());
                out.extend(if code == 0 { 3_i16 } else { -1 }.to_be_bytes());
                out
            }
            SASL_HANDSHAKE => {
                let mut out = vec![0, 0];
                out.extend(1_i32.to_be_bytes());
                put_string(&mut out, &string_of(&mut from).unwrap());
                out
            }
            SASL_AUTHENTICATE => {
                let said = bytes_of(&mut from);
                let (code, answer) = (like.lock().sign_in.unwrap())(&said);
                let mut out = code.to_be_bytes().to_vec();
                put_string(&mut out, "as the test says");
                out.extend(i32::try_from(answer.len()).unwrap().to_be_bytes());
                out.extend(answer);
                out
            }
            PRODUCE => {
                let say = like.lock().says.pop_front().unwrap_or(Say::Codes(Vec::new()));
                let partitions = take_produce(&mut from, seen);
                seen.was_asked.notify_one();
                match say {
                    Say::Codes(codes) => produced(&partitions, &codes, 0),
                    Say::Quiet(ms) => produced(&partitions, &[], ms),
                    Say::Body(body) => body,
                    Say::Close => return,
                    Say::Hang => continue,
                    Say::Raw(bytes) => {
                        if tcp.write_all(&bytes).await.is_err() {
                            return;
                        }
                        continue;
                    }
                }
            }
            other => panic!("api {other}"),
        };
        let mut out = i32::try_from(body.len() + 4).unwrap().to_be_bytes().to_vec();
        out.extend(correlation.to_be_bytes());
        out.extend(body);
        if tcp.write_all(&out).await.is_err() {
            return;
        }
    }
}

/// Keeps the records of a request; returns their topics and partitions.
fn take_produce(from: &mut Cursor<&[u8]>, seen: &Seen) -> Vec<(String, i32)> {
    assert_eq!(string_of(from), None, "no transaction");
    let (acks, timeout_ms) = (i16_of(from), i32_of(from));
    let request = seen.attributes.lock().len();
    let mut compression = String::new();
    let mut partitions = Vec::new();
    for _ in 0..i32_of(from) {
        let topic = string_of(from).unwrap();
        for _ in 0..i32_of(from) {
            let partition = i32_of(from);
            let batch = RecordBatch::read(&mut Cursor::new(bytes_of(from))).unwrap();
            compression = format!("{:?}", batch.compression);
            let ControlBatchOrRecords::Records(records) = batch.records else { panic!() };
            let value = |record: &Record| String::from_utf8(record.value.clone().unwrap()).unwrap();
            seen.batches.lock().push(Sent {
                partition,
                producer: (batch.producer_id, batch.producer_epoch),
                first: batch.base_sequence,
                values: records.iter().map(value).collect(),
            });
            assert_eq!(batch.last_offset_delta, i32::try_from(records.len()).unwrap() - 1);
            for (offset, record) in (0..).zip(records) {
                assert_eq!(record.offset_delta, offset);
                let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
                let headers = record.headers.into_iter().map(|header| (header.key, text(header.value)));
                seen.got.lock().push(Got {
                    request,
                    topic: topic.clone(),
                    partition,
                    key: record.key.map(text),
                    value: text(record.value.unwrap()),
                    headers: headers.collect(),
                });
            }
            partitions.push((topic.clone(), partition));
        }
    }
    seen.attributes.lock().push((acks, timeout_ms, compression));
    partitions
}

fn produced(partitions: &[(String, i32)], codes: &[i16], quiet_ms: i32) -> Vec<u8> {
    let mut out = i32::try_from(partitions.len()).unwrap().to_be_bytes().to_vec();
    let mut codes = codes.iter();
    for (topic, partition) in partitions {
        put_string(&mut out, topic);
        out.extend(1_i32.to_be_bytes());
        out.extend(partition.to_be_bytes());
        out.extend(codes.next().unwrap_or(&0).to_be_bytes());
        out.extend([0; 24]);
    }
    out.extend(quiet_ms.to_be_bytes());
    out
}

fn versions(version: i16, knows_producers: bool) -> Vec<u8> {
    assert_eq!(version, 3);
    let mut known =
        vec![(PRODUCE, 7), (METADATA, 4), (SASL_HANDSHAKE, 1), (API_VERSIONS, 3), (SASL_AUTHENTICATE, 0)];
    if knows_producers {
        known.push((INIT_PRODUCER_ID, 4));
    }
    let mut out = vec![0, 0, u8::try_from(known.len() + 1).unwrap()];
    for (api, max) in known {
        out.extend(api.to_be_bytes());
        out.extend(0_i16.to_be_bytes());
        out.extend(i16::to_be_bytes(max));
        out.push(0);
    }
    out.extend([0; 5]);
    out
}

fn metadata(from: &mut Cursor<&[u8]>, address: SocketAddr, like: &Like) -> Vec<u8> {
    let asked: Vec<String> = (0..i32_of(from)).map(|_| string_of(from).unwrap()).collect();
    let makes_topics = from.get_ref()[usize::try_from(from.position()).unwrap()];
    assert_eq!(makes_topics, 0, "topics aren't made");
    let mut out = 0_i32.to_be_bytes().to_vec();
    out.extend(i32::try_from(like.brokers.len()).unwrap().to_be_bytes());
    for (number, at) in &like.brokers {
        let own = || (address.ip().to_string(), i32::from(address.port()));
        let (host, port) = at.clone().unwrap_or_else(own);
        out.extend(number.to_be_bytes());
        put_string(&mut out, &host);
        out.extend(port.to_be_bytes());
        out.extend((-1_i16).to_be_bytes());
    }
    out.extend((-1_i16).to_be_bytes());
    out.extend(1_i32.to_be_bytes());
    out.extend(i32::try_from(asked.len()).unwrap().to_be_bytes());
    for name in asked {
        let (error, leaders) = like.topics.get(&name).cloned().unwrap_or((3, Vec::new()));
        out.extend(error.to_be_bytes());
        put_string(&mut out, &name);
        out.push(0);
        out.extend(i32::try_from(leaders.len()).unwrap().to_be_bytes());
        for (index, leader) in (0_i32..).zip(leaders) {
            out.extend([0, 0]);
            out.extend(index.to_be_bytes());
            out.extend(leader.to_be_bytes());
            out.extend([0; 8]);
        }
    }
    out
}

pub(super) fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend(i16::try_from(text.len()).unwrap().to_be_bytes());
    out.extend(text.as_bytes());
}

fn take<const N: usize>(from: &mut Cursor<&[u8]>) -> [u8; N] {
    let mut bytes = [0; N];
    std::io::Read::read_exact(from, &mut bytes).unwrap();
    bytes
}

fn i16_of(from: &mut Cursor<&[u8]>) -> i16 {
    i16::from_be_bytes(take(from))
}

fn i32_of(from: &mut Cursor<&[u8]>) -> i32 {
    i32::from_be_bytes(take(from))
}

fn string_of(from: &mut Cursor<&[u8]>) -> Option<String> {
    let bytes = usize::try_from(i16_of(from)).ok()?;
    let mut text = vec![0; bytes];
    std::io::Read::read_exact(from, &mut text).unwrap();
    Some(String::from_utf8(text).unwrap())
}

fn bytes_of(from: &mut Cursor<&[u8]>) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(i32_of(from)).unwrap()];
    std::io::Read::read_exact(from, &mut bytes).unwrap();
    bytes
}
