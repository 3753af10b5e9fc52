//! What is sent, and what answers mean, against a server that answers what a test tells it to. A real server stands in the
//! integration tests.

mod faults;
mod settings;
mod sign_in;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use super::NatsSink;
use crate::config::{ActionConfig, ConnectorConfig};
use crate::connectors::Connectors;
use crate::delivery::{DeliveryError, Envelope, ItemId, Sink as _};
use crate::plan::Request;
use crate::record::Record;
use crate::targets::TargetPolicy;
use crate::testing::{closed, config, plan, refusal, render};

const ACTION: &str = "type = 'nats'\nname = 'a'\nconnector = 'n'\n";
const CORE: &str = "subject = 's'\njetstream = false";
const INFO: &str =
    r#"INFO {"server_id":"x","version":"2.9.10","headers":true,"max_payload":1048576,"nonce":"once"}"#;
const STORED: Act = Act::Reply(r#"{"stream":"S","seq":1}"#);

fn record(text: &str, values: &[(&str, &[u8])]) -> Record {
    match render(&plan(&format!("{ACTION}{text}")), values) {
        Ok(Request::Record(record)) => record,
        other => panic!("{other:?}"),
    }
}

fn connectors(text: &str) -> Connectors {
    let configs: BTreeMap<String, ConnectorConfig> = toml::from_str(text).unwrap();
    let allow_private = vec!["127.0.0.1".parse().unwrap()];
    let targets = TargetPolicy { allow_private, ..TargetPolicy::default() };
    Connectors::load(&configs, &targets, &Connectors::default()).unwrap()
}

fn sink(text: &str, connectors: &Connectors) -> NatsSink {
    let ActionConfig::Nats(settings) = config(&format!("{ACTION}{text}")) else { panic!() };
    NatsSink::new("rule", &settings, connectors).unwrap()
}

type Batch = Vec<Arc<Envelope<Record>>>;

fn batch(records: Vec<Record>) -> Batch {
    let envelope = |(n, request): (u64, Record)| {
        Arc::new(Envelope::new(ItemId { store: 1, epoch: 2, sequence: n }, request, None))
    };
    (0..).zip(records).map(envelope).collect()
}

/// As many messages of an action.
fn some(text: &str, count: usize) -> Batch {
    batch(vec![record(text, &[]); count])
}

/// What became of each, in a word.
fn fates(results: &[Result<(), DeliveryError>]) -> Vec<&'static str> {
    let fate = |result: &Result<(), DeliveryError>| match result {
        Ok(()) => "ok",
        Err(error) if error.is_disabling() => "disabled",
        Err(error) if error.is_retriable() => "again",
        Err(_) => "refused",
    };
    results.iter().map(fate).collect()
}

/// What the server does with a message.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// Answers to the message's own subject.
    Reply(&'static str),
    /// The same with a status and nothing else.
    Status(u16),
    /// Says this, whatever it is.
    Say(&'static str),
    /// Says nothing to the message.
    Nothing,
    /// Says nothing any more, on this connection.
    Hang,
    /// Closes the connection.
    Close,
}

/// A message that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sent {
    subject: String,
    reply: String,
    header: String,
    payload: String,
}

impl Sent {
    fn header(&self, name: &str) -> Option<&str> {
        self.header.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// How a server greets.
#[derive(Clone)]
struct Greeting {
    /// What it says first, without the end of the line.
    info: String,
    /// What it says to the sign-in; `PONG` if it has nothing against it.
    answer: &'static str,
    /// Speaks TLS with this, after the greeting or before.
    tls: Option<TlsAcceptor>,
    is_tls_first: bool,
}

impl Default for Greeting {
    fn default() -> Self {
        Self { info: INFO.to_owned(), answer: "PONG\r\n", tls: None, is_tls_first: false }
    }
}

/// A server that does with each message the next of what it was told, then stores everything.
struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    acts: Mutex<VecDeque<Act>>,
    sent: Mutex<Vec<Sent>>,
    /// `CONNECT` and what came with it, line by line.
    hellos: Mutex<Vec<String>>,
    pongs: Notify,
    /// Connections that the other side has closed.
    closed: Notify,
}

impl Server {
    async fn start(acts: &[Act]) -> Self {
        Self::greet(Greeting::default(), acts).await
    }

    async fn greet(greeting: Greeting, acts: &[Act]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared =
            Arc::new(Shared { acts: Mutex::new(acts.iter().copied().collect()), ..Shared::default() });
        let of_task = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (greeting, shared) = (greeting.clone(), Arc::clone(&of_task));
                tokio::spawn(async move { shared.talk(tcp, greeting).await });
            }
        });
        Self { address, shared }
    }

    /// A connector of this server with further keys.
    fn connectors(&self, more: &str) -> Connectors {
        connectors(&format!("[n]\ntype = 'nats'\nservers = ['{}']\n{more}", self.address))
    }

    async fn deliver(&self, text: &str, batch: &Batch) -> Vec<Result<(), DeliveryError>> {
        sink(text, &self.connectors("")).deliver(batch).await
    }

    fn sent(&self) -> Vec<Sent> {
        self.shared.sent.lock().clone()
    }

    fn hellos(&self) -> Vec<String> {
        self.shared.hellos.lock().clone()
    }

    fn signed_in(&self) -> usize {
        self.hellos().iter().filter(|line| line.starts_with("CONNECT")).count()
    }
}

impl Shared {
    async fn talk(&self, mut tcp: TcpStream, greeting: Greeting) -> Option<()> {
        let info = format!("{}\r\n", greeting.info);
        if !greeting.is_tls_first {
            tcp.write_all(info.as_bytes()).await.ok()?;
        }
        let Some(tls) = greeting.tls else { return self.listen(tcp, greeting.answer).await };
        let mut tls = tls.accept(tcp).await.ok()?;
        if greeting.is_tls_first {
            tls.write_all(info.as_bytes()).await.ok()?;
        }
        self.listen(tls, greeting.answer).await
    }

    async fn listen(&self, stream: impl AsyncRead + AsyncWrite, answer: &str) -> Option<()> {
        let (input, mut output) = tokio::io::split(stream);
        let mut input = BufReader::new(input);
        let (mut is_signed_in, mut hangs) = (false, false);
        loop {
            let mut line = String::new();
            if input.read_line(&mut line).await.unwrap_or(0) == 0 {
                self.closed.notify_one();
                return None;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            let said = match words[0] {
                "PING" if !is_signed_in => {
                    is_signed_in = true;
                    answer.to_owned()
                }
                "PING" => "PONG\r\n".to_owned(),
                "PONG" => {
                    self.pongs.notify_one();
                    String::new()
                }
                "HPUB" => {
                    let sizes: Vec<usize> =
                        words[words.len() - 2..].iter().map(|n| n.parse().unwrap()).collect();
                    let mut bytes = vec![0; sizes[1] + 2];
                    input.read_exact(&mut bytes).await.ok()?;
                    assert!(bytes.ends_with(b"\r\n"));
                    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                    let reply = if words.len() == 5 { words[2] } else { "" };
                    self.sent.lock().push(Sent {
                        subject: words[1].to_owned(),
                        reply: reply.to_owned(),
                        header: text(&bytes[..sizes[0]]),
                        payload: text(&bytes[sizes[0]..sizes[1]]),
                    });
                    match self.acts.lock().pop_front().unwrap_or(STORED) {
                        Act::Reply(_) | Act::Status(_) if reply.is_empty() => String::new(),
                        Act::Reply(text) => format!("MSG {reply} 1 {}\r\n{text}\r\n", text.len()),
                        Act::Status(status) => {
                            format!("HMSG {reply} 1 16 16\r\nNATS/1.0 {status}\r\n\r\n\r\n")
                        }
                        Act::Say(text) => text.to_owned(),
                        Act::Nothing => String::new(),
                        Act::Hang => {
                            hangs = true;
                            String::new()
                        }
                        Act::Close => return None,
                    }
                }
                _ => {
                    self.hellos.lock().push(line.trim_end().to_owned());
                    String::new()
                }
            };
            if !hangs {
                output.write_all(said.as_bytes()).await.ok()?;
                output.flush().await.ok()?;
            }
        }
    }
}

#[tokio::test]
async fn each_message_has_its_words() {
    let key = "0000000000000001.2-0.rule.a";
    for (text, subject, header, payload) in [
        (
            "subject = 'readings.7'",
            "readings.7",
            format!("Nats-Msg-Id: {key}\r\nIdempotency-Key: {key}\r\n"),
            "{\"t\":61}",
        ),
        (
            "subject = 'readings.7'\njetstream = false\npayload = 'plain'",
            "readings.7",
            format!("Idempotency-Key: {key}\r\n"),
            "plain",
        ),
        (
            "subject = 's'\npayload = ''\nheaders = { Site = 'a: b', Unit = '' }",
            "s",
            format!("Site: a: b\r\nUnit: \r\nNats-Msg-Id: {key}\r\nIdempotency-Key: {key}\r\n"),
            "",
        ),
        (
            "subject = 's'\nheaders = { Nats-Msg-Id = 'own', Idempotency-Key = 'own too' }",
            "s",
            "Idempotency-Key: own too\r\nNats-Msg-Id: own\r\n".to_owned(),
            "{\"t\":61}",
        ),
    ] {
        let server = Server::start(&[]).await;
        assert_eq!(server.deliver(text, &some(text, 1)).await, [Ok(())], "{text}");
        let [sent] = server.sent().try_into().unwrap();
        assert_eq!(sent.header, format!("NATS/1.0\r\n{header}\r\n"), "{text}");
        assert_eq!((&*sent.subject, &*sent.payload), (subject, payload), "{text}");
        assert_eq!(sent.reply.is_empty(), text.contains("jetstream = false"), "{text}");
    }
}

#[tokio::test]
async fn what_comes_late_says_so() {
    let server = Server::start(&[]).await;
    let id = ItemId { store: 1, epoch: 2, sequence: 3 };
    let late = vec![Arc::new(Envelope::new(id, record(CORE, &[]), Some(1_700_000_000_000)))];
    assert_eq!(server.deliver(CORE, &late).await, [Ok(())]);
    let [sent] = server.sent().try_into().unwrap();
    assert_eq!(sent.header("Tidegate-Replayed"), Some("true"));
    assert_eq!(sent.header("Tidegate-Received-At"), Some("1700000000000"));
}

#[tokio::test]
async fn one_refused_message_of_a_batch_is_refused_alone() {
    let acts = [
        STORED,
        Act::Reply(
            r#"{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum allowed"}}"#,
        ),
        Act::Reply(r#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"}}"#),
        Act::Reply(r#"{"stream":"S","seq":7,"duplicate":true}"#),
        Act::Status(503),
        Act::Reply("pong"),
    ];
    let text = "subject = '${x}'";
    let server = Server::start(&acts).await;
    let results = server.deliver(text, &batch(vec![record(text, &[("subject", b"s")]); 7])).await;
    assert_eq!(fates(&results), ["ok", "refused", "again", "ok", "again", "again", "ok"]);
    assert_eq!(
        results[1].as_ref().unwrap_err().to_string(),
        "the far side refused it: the stream answered 400 (10054): message size exceeds maximum allowed"
    );
    assert_eq!(
        results[4].as_ref().unwrap_err().to_string(),
        "the far side refused it: no stream takes the subject"
    );
    assert_eq!(server.sent().len(), 7);
}

/// A subject that no message changes is the same for all: the action pauses.
#[tokio::test]
async fn nobody_fares_better_where_the_subject_is_fixed() {
    let text = "subject = 's'";
    let server = Server::start(&[Act::Status(503)]).await;
    assert_eq!(fates(&server.deliver(text, &some(text, 1)).await), ["disabled"]);
    let not_allowed = Act::Say("-ERR 'Permissions Violation for Publish to \"s\"'\r\n");
    for text in [text, CORE] {
        let server = Server::start(&[not_allowed]).await;
        let results = server.deliver(text, &some(text, 1)).await;
        assert_eq!(fates(&results), ["disabled"], "{text}");
        let cause = results[0].as_ref().unwrap_err().to_string();
        assert!(cause.contains("Permissions Violation for Publish to \"s\""), "{cause}");
        assert!(!results[0].as_ref().unwrap_err().is_attempt());
    }
}

/// One subject that isn't allowed harms no other message, whichever of both kinds of delivery.
#[tokio::test]
async fn a_subject_that_is_not_allowed_harms_no_other() {
    for text in ["subject = '${x}'", "subject = '${x}'\njetstream = false"] {
        let not_allowed = Act::Say("-ERR 'Permissions Violation for Publish to \"b\"'\r\n");
        let server = Server::start(&[STORED, not_allowed, STORED]).await;
        let records = [&b"a"[..], b"b", b"c"].map(|subject| record(text, &[("subject", subject)]));
        let results = server.deliver(text, &batch(records.to_vec())).await;
        assert_eq!(fates(&results), ["ok", "again", "ok"], "{text}");
        assert!(results[1].as_ref().unwrap_err().is_attempt());
    }
}

/// An error names no message but a subject: it belongs to the batch whose `PONG` is the next.
#[tokio::test]
async fn an_error_belongs_to_the_batch_that_is_looked_at() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let (input, mut output) = tcp.into_split();
        let mut lines = BufReader::new(input).lines();
        output.write_all(format!("{INFO}\r\n").as_bytes()).await.unwrap();
        let mut pings = 0;
        while let Ok(Some(line)) = lines.next_line().await {
            pings += usize::from(line == "PING");
            let said = match (line.as_str(), pings) {
                ("PING", 1) => "PONG\r\n",
                ("PING", 3) => "PONG\r\n-ERR 'Permissions Violation for Publish to \"s\"'\r\nPONG\r\n",
                _ => "",
            };
            output.write_all(said.as_bytes()).await.unwrap();
        }
    });
    let sink = sink(CORE, &connectors(&format!("[n]\ntype = 'nats'\nservers = ['{address}']\n")));
    let (one, other) = (some(CORE, 2), some(CORE, 2));
    let (one, other) = tokio::join!(sink.deliver(&one), sink.deliver(&other));
    assert_eq!((fates(&one), fates(&other)), (vec!["ok"; 2], vec!["disabled"; 2]));
}

/// What was stored before one that stood in front of it is stored again behind that one, if it is sent again: under the same
/// id the stream would leave it where it is.
#[tokio::test]
async fn what_overtook_another_is_stored_again_behind_it() {
    let text = "subject = '${x}'";
    let full =
        Act::Reply(r#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"}}"#);
    let server = Server::start(&[STORED, full, STORED, Act::Nothing]).await;
    // So long for the message that nobody answers, and at most for everything else.
    let text = format!("{text}\ntimeout = '2s'");
    let sink = sink(&text, &server.connectors(""));
    let all = batch(vec![record(&text, &[("subject", b"s")]); 4]);
    assert_eq!(fates(&sink.deliver(&all).await), ["ok", "again", "ok", "again"]);
    assert_eq!(fates(&sink.deliver(&all[1..]).await), ["ok"; 3]);
    assert_eq!(fates(&sink.deliver(&all[2..3]).await), ["ok"]);
    let ids: Vec<String> =
        server.sent().iter().map(|sent| sent.header("Nats-Msg-Id").unwrap().to_owned()).collect();
    let expected = ["0", "1", "2", "3", "1", "2.1", "3", "2"].map(|id| {
        let (number, times) =
            id.split_once('.').map_or((id, String::new()), |(n, times)| (n, format!(".{times}")));
        format!("0000000000000001.2-{number}.rule.a{times}")
    });
    assert_eq!(ids, expected);
    let keys: Vec<String> =
        server.sent().iter().map(|sent| sent.header("Idempotency-Key").unwrap().to_owned()).collect();
    assert!(keys.iter().all(|key| key.ends_with(".rule.a")), "{keys:?}");
}

#[tokio::test]
async fn only_so_many_overtakers_are_remembered() {
    let records = some(CORE, super::sink::OVERTAKERS_MAX + 2);
    let mut results = vec![Ok(()); records.len()];
    results[0] = Err(DeliveryError::NotAttempted);
    let mut overtakers = super::sink::Overtakers::default();
    overtakers.learn(&records[..=super::sink::OVERTAKERS_MAX], &results);
    assert_eq!(overtakers.times(records[1].id), 1);
    overtakers.learn(&records, &results);
    assert_eq!(overtakers.times(records[1].id), 0);
    assert_eq!(overtakers.times(records[2].id), 2);
}

#[tokio::test]
async fn what_is_larger_than_the_server_takes_is_refused_alone() {
    let text = "subject = 's'\npayload = '${x}'\nheaders = {}";
    let server = Server::start(&[]).await;
    let small = batch(vec![record(text, &[("payload", b"")])]);
    assert_eq!(server.deliver(text, &small).await, [Ok(())]);
    let limit = server.sent()[0].header.len() + 5;
    let info = INFO.replace("1048576", &limit.to_string());
    let server = Server::greet(Greeting { info, ..Greeting::default() }, &[]).await;
    let records = [&b"12345"[..], b"123456", b""].map(|payload| record(text, &[("payload", payload)]));
    let results = server.deliver(text, &batch(records.to_vec())).await;
    assert_eq!(fates(&results), ["ok", "refused", "ok"]);
    let cause = results[1].as_ref().unwrap_err().to_string();
    assert!(
        cause.contains(&format!(
            "{} bytes with its headers, more than the server's limit of {limit}",
            limit + 1
        )),
        "{cause}"
    );
    // The server may say so at any time.
    let more = Act::Say("INFO {\"headers\":true,\"max_payload\":9000}\r\n");
    let server = Server::start(&[more]).await;
    let text = format!("{text}\njetstream = false");
    let sink = sink(&text, &server.connectors(""));
    let large = batch(vec![record(&text, &[("payload", &[b'x'; 9000])])]);
    assert_eq!(fates(&sink.deliver(&large).await), ["ok"]);
    assert_eq!(fates(&sink.deliver(&large).await), ["refused"]);
}
