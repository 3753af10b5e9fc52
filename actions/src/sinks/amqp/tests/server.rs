//! A server that answers what a test tells it to, written from the specification and not with the library under test.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::connectors;
use crate::connectors::Connectors;

/// A message as it came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) channel: u16,
    /// Its number on the channel.
    pub(super) tag: u64,
    pub(super) exchange: String,
    pub(super) routing_key: String,
    pub(super) is_mandatory: bool,
    pub(super) content_type: Option<String>,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) delivery_mode: Option<u8>,
    pub(super) priority: Option<u8>,
    pub(super) expiration: Option<String>,
    pub(super) message_id: Option<String>,
    pub(super) timestamp: Option<u64>,
    pub(super) body: Vec<u8>,
}

/// What a message is answered with: raw frames; `None` breaks the connection.
pub(super) type Answer = Option<Vec<u8>>;

/// How the server meets a client.
pub(super) struct Manner {
    pub(super) start: Vec<u8>,
    /// Behind the client's sign-in: `connection.tune`, as a rule.
    pub(super) tune: Vec<u8>,
    /// Whether it leaves as soon as it has answered the sign-in.
    pub(super) leaves: bool,
    /// Whether it says nothing to a client that takes leave.
    pub(super) is_sullen: bool,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            start: start(&[], "PLAIN EXTERNAL"),
            tune: tune(2_047, 131_072, 60),
            leaves: false,
            is_sullen: false,
        }
    }
}

pub(super) struct Server {
    pub(super) connectors: Connectors,
    pub(super) address: String,
    published: Arc<Mutex<Vec<Published>>>,
    sign_ins: Arc<Mutex<Vec<Vec<u8>>>>,
    goodbyes: Arc<Mutex<Vec<u16>>>,
    /// Gets one for each connection that ended.
    pub(super) ended: mpsc::Receiver<()>,
    /// Sent to whoever is connected.
    pub(super) say: mpsc::Sender<Vec<u8>>,
}

impl Server {
    pub(super) async fn start(answer: impl FnMut(&Published) -> Answer + Send + 'static) -> Self {
        Self::with(Manner::default(), answer).await
    }

    pub(super) async fn with(
        manner: Manner,
        answer: impl FnMut(&Published) -> Answer + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (end, ended) = mpsc::channel(64);
        let (say, mut saying) = mpsc::channel(8);
        let mut one = One {
            manner,
            answer: Box::new(answer),
            published: Arc::default(),
            sign_ins: Arc::default(),
            goodbyes: Arc::default(),
            tags: BTreeMap::new(),
        };
        let (published, sign_ins) = (Arc::clone(&one.published), Arc::clone(&one.sign_ins));
        let goodbyes = Arc::clone(&one.goodbyes);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                one.tags.clear();
                // However the connection breaks: the next one is taken.
                drop(one.serve(tcp, &mut saying).await);
                if end.send(()).await.is_err() {
                    return;
                }
            }
        });
        let text = format!(
            "[q]\ntype = 'amqp'\nservers = ['{address}']\nusername = 'u'\npassword = 'hunter2-and-more'\n"
        );
        Self { connectors: connectors(&text), address, published, sign_ins, goodbyes, ended, say }
    }

    pub(super) fn published(&self) -> Vec<Published> {
        self.published.lock().clone()
    }

    pub(super) fn bodies(&self) -> Vec<String> {
        let body = |message: &Published| String::from_utf8_lossy(&message.body).into_owned();
        self.published.lock().iter().map(body).collect()
    }

    /// The codes of clients that took leave.
    pub(super) fn goodbyes(&self) -> Vec<u16> {
        self.goodbyes.lock().clone()
    }

    pub(super) fn sign_ins(&self) -> Vec<Vec<u8>> {
        self.sign_ins.lock().clone()
    }
}

struct One {
    manner: Manner,
    answer: Box<dyn FnMut(&Published) -> Answer + Send>,
    published: Arc<Mutex<Vec<Published>>>,
    sign_ins: Arc<Mutex<Vec<Vec<u8>>>>,
    goodbyes: Arc<Mutex<Vec<u16>>>,
    tags: BTreeMap<u16, u64>,
}

impl One {
    async fn serve(
        &mut self,
        mut tcp: TcpStream,
        saying: &mut mpsc::Receiver<Vec<u8>>,
    ) -> std::io::Result<()> {
        let mut greeting = [0; 8];
        tcp.read_exact(&mut greeting).await?;
        assert_eq!(&greeting, b"AMQP\x00\x00\x09\x01");
        tcp.write_all(&self.manner.start).await?;
        let mut message = Published::default();
        let mut left = 0;
        loop {
            let head = &mut [0; 7];
            tokio::select! {
                read = tcp.read_exact(head) => drop(read?),
                Some(bytes) = saying.recv() => {
                    tcp.write_all(&bytes).await?;
                    continue;
                }
            }
            let (kind, channel) = (head[0], u16::from_be_bytes([head[1], head[2]]));
            let mut payload =
                vec![
                    0;
                    usize::try_from(u32::from_be_bytes([head[3], head[4], head[5], head[6]])).unwrap() + 1
                ];
            tcp.read_exact(&mut payload).await?;
            assert_eq!(payload.pop(), Some(0xce));
            let mut from = From(&payload);
            let is_complete = match kind {
                1 => match (from.u16(), from.u16()) {
                    (60, 40) => {
                        from.u16();
                        let tag = self.tags.entry(channel).or_default();
                        *tag += 1;
                        message = Published { channel, tag: *tag, ..Published::default() };
                        message.exchange = from.short();
                        message.routing_key = from.short();
                        message.is_mandatory = from.u8() & 1 == 1;
                        false
                    }
                    method => {
                        if let Some(reply) = self.reply(method, channel, from) {
                            tcp.write_all(&reply).await?;
                        }
                        if method == (10, 11) && self.manner.leaves {
                            return Ok(());
                        }
                        false
                    }
                },
                2 => {
                    left = from.content_header(&mut message);
                    left == 0
                }
                3 => {
                    message.body.extend_from_slice(&payload);
                    left -= u64::try_from(payload.len()).unwrap();
                    left == 0
                }
                _ => false,
            };
            if is_complete {
                self.published.lock().push(message.clone());
                match (self.answer)(&message) {
                    Some(reply) => tcp.write_all(&reply).await?,
                    None => return Ok(()),
                }
            }
        }
    }

    fn reply(&mut self, method: (u16, u16), channel: u16, mut from: From<'_>) -> Option<Vec<u8>> {
        match method {
            (10, 11) => {
                from.table();
                from.short();
                self.sign_ins.lock().push(from.long());
                Some(self.manner.tune.clone())
            }
            (10, 40) => Some(frame(0, &method_of(10, 41, &[0]))),
            (10, 50) => {
                self.goodbyes.lock().push(from.u16());
                (!self.manner.is_sullen).then(|| frame(0, &method_of(10, 51, &[])))
            }
            (20, 10) => {
                self.tags.insert(channel, 0);
                Some(frame(channel, &method_of(20, 11, &[0; 4])))
            }
            (20, 40) => Some(frame(channel, &method_of(20, 41, &[]))),
            (85, 10) => Some(frame(channel, &method_of(85, 11, &[]))),
            (10, 31 | 51) | (20, 41) => None,
            other => panic!("method {other:?}"),
        }
    }
}

/// Reads what a client sends.
struct From<'b>(&'b [u8]);

impl<'b> From<'b> {
    fn take(&mut self, bytes: usize) -> &'b [u8] {
        let (head, rest) = self.0.split_at(bytes);
        self.0 = rest;
        head
    }

    fn u8(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    fn u32(&mut self) -> usize {
        usize::try_from(u32::from_be_bytes(self.take(4).try_into().unwrap())).unwrap()
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take(8).try_into().unwrap())
    }

    fn short(&mut self) -> String {
        let bytes = self.u8();
        String::from_utf8(self.take(bytes.into()).to_vec()).unwrap()
    }

    fn long(&mut self) -> Vec<u8> {
        let bytes = self.u32();
        self.take(bytes).to_vec()
    }

    fn table(&mut self) -> BTreeMap<String, String> {
        let bytes = self.u32();
        let mut from = From(self.take(bytes));
        let mut table = BTreeMap::new();
        while !from.0.is_empty() {
            let name = from.short();
            let value = match from.u8() {
                b'S' => String::from_utf8(from.long()).unwrap(),
                b't' => from.u8().to_string(),
                b'F' => format!("{:?}", from.table()),
                other => panic!("value of type {other}"),
            };
            table.insert(name, value);
        }
        table
    }

    /// Returns how long the body is.
    fn content_header(&mut self, message: &mut Published) -> u64 {
        assert_eq!((self.u16(), self.u16()), (60, 0));
        let bytes = self.u64();
        let flags = self.u16();
        let has = |bit: u16| flags & 1 << bit != 0;
        message.content_type = has(15).then(|| self.short());
        assert!(!has(14));
        message.headers = if has(13) { self.table() } else { BTreeMap::new() };
        message.delivery_mode = has(12).then(|| self.u8());
        message.priority = has(11).then(|| self.u8());
        assert!(!has(10) && !has(9));
        message.expiration = has(8).then(|| self.short());
        message.message_id = has(7).then(|| self.short());
        message.timestamp = has(6).then(|| self.u64());
        assert!(self.0.is_empty());
        bytes
    }
}

pub(super) fn frame_of(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
    out.extend_from_slice(payload);
    out.push(0xce);
    out
}

fn frame(channel: u16, payload: &[u8]) -> Vec<u8> {
    frame_of(1, channel, payload)
}

pub(super) fn method_of(class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    [&class.to_be_bytes(), &method.to_be_bytes(), arguments].concat()
}

fn short(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// `connection.start`. `properties`: the table's inside.
pub(super) fn start(properties: &[u8], mechanisms: &str) -> Vec<u8> {
    let arguments = [&[0, 9][..], &long(properties), &long(mechanisms.as_bytes()), &long(b"en_US")].concat();
    frame(0, &method_of(10, 10, &arguments))
}

pub(super) fn tune(channels: u16, frame_bytes: u32, heartbeat: u16) -> Vec<u8> {
    let arguments =
        [&channels.to_be_bytes()[..], &frame_bytes.to_be_bytes(), &heartbeat.to_be_bytes()].concat();
    frame(0, &method_of(10, 30, &arguments))
}

pub(super) fn close(channel: u16, code: u16, text: &str) -> Vec<u8> {
    let (class, method) = if channel == 0 { (10, 50) } else { (20, 40) };
    let arguments = [&code.to_be_bytes()[..], &short(text), &[0, 60, 0, 40]].concat();
    frame(channel, &method_of(class, method, &arguments))
}

pub(super) fn blocked(reason: &str) -> Vec<u8> {
    frame(0, &method_of(10, 60, &short(reason)))
}

pub(super) fn unblocked() -> Vec<u8> {
    frame(0, &method_of(10, 61, &[]))
}

pub(super) fn ack(message: &Published) -> Vec<u8> {
    acknowledge(80, message.channel, message.tag, 0)
}

/// All up to this one.
pub(super) fn ack_all(message: &Published) -> Vec<u8> {
    acknowledge(80, message.channel, message.tag, 1)
}

pub(super) fn nack(message: &Published) -> Vec<u8> {
    acknowledge(120, message.channel, message.tag, 0)
}

pub(super) fn acknowledge(method: u16, channel: u16, tag: u64, bits: u8) -> Vec<u8> {
    frame(channel, &method_of(60, method, &[&tag.to_be_bytes()[..], &[bits]].concat()))
}

/// The message comes back: method, header with its properties, and body.
pub(super) fn returned(message: &Published, code: u16, text: &str) -> Vec<u8> {
    let arguments =
        [&code.to_be_bytes()[..], &short(text), &short(&message.exchange), &short(&message.routing_key)];
    let mut out = frame(message.channel, &method_of(60, 50, &arguments.concat()));
    let size = u64::try_from(message.body.len()).unwrap();
    // content-type, headers, delivery-mode and message-id
    let mut header = [&[0, 60, 0, 0][..], &size.to_be_bytes(), &0xb080_u16.to_be_bytes()].concat();
    header.extend(short("text/plain"));
    header.extend(long(&[short("a"), b"S".to_vec(), long(b"b")].concat()));
    header.push(2);
    header.extend(short(message.message_id.as_deref().unwrap()));
    out.extend(frame_of(2, message.channel, &header));
    for part in message.body.chunks(1_000) {
        out.extend(frame_of(3, message.channel, part));
    }
    out
}
