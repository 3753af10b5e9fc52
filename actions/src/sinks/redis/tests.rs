//! Settings, the commands that are sent, and what answers mean, against a server that answers what a test tells it to. A
//! real server stands in the integration tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use super::RedisSink;
use crate::config::{ActionConfig, ConnectorConfig};
use crate::connectors::Connectors;
use crate::delivery::{DeliveryError, Envelope, ItemId, Sink as _};
use crate::plan::Request;
use crate::record::Record;
use crate::targets::TargetPolicy;
use crate::testing::{config, plan, refusal, render};

const ACTION: &str = "type = 'redis'\nname = 'a'\nconnector = 'r'\n";

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

fn sink(text: &str, connectors: &Connectors) -> RedisSink {
    let ActionConfig::Redis(settings) = config(&format!("{ACTION}{text}")) else { panic!() };
    RedisSink::new("rule", &settings, connectors).unwrap()
}

fn batch(records: Vec<Record>) -> Vec<Arc<Envelope<Record>>> {
    let envelope = |(n, request): (u64, Record)| {
        Arc::new(Envelope::new(ItemId { store: 1, epoch: 2, sequence: n }, request, None))
    };
    (0..).zip(records).map(envelope).collect()
}

/// A server that answers each command with the next of its lines, and keeps the commands.
struct Server {
    connectors: Connectors,
    settings: String,
    commands: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// `answers`: raw RESP; an empty one closes the connection, `hang` answers nothing.
    async fn start(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let commands: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&commands);
        let mut answers = answers.iter().map(|answer| (*answer).to_owned()).collect::<Vec<_>>().into_iter();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (mut input, mut output) = tcp.into_split();
                let mut decoder = combine::stream::Decoder::new();
                while let Ok(command) = redis::parse_redis_value_async(&mut decoder, &mut input).await {
                    let words: Vec<String> = redis::from_redis_value(command).unwrap();
                    seen.lock().push(words.join(" "));
                    match answers.next().as_deref() {
                        None | Some("hang") => {}
                        Some("") => break,
                        Some(answer) => output.write_all(answer.as_bytes()).await.unwrap(),
                    }
                }
            }
        });
        let settings = format!("[r]\ntype = 'redis'\nservers = ['{address}']\n");
        Self { connectors: connectors(&settings), settings, commands }
    }

    /// Connectors that show a password.
    fn signing_in(&self, password: &str) -> Connectors {
        connectors(&format!("{}password = '{password}'\n", self.settings))
    }

    fn commands(&self) -> Vec<String> {
        self.commands.lock().clone()
    }
}

#[tokio::test]
async fn each_command_has_its_words() {
    let marks = |n: u32| format!("Idempotency-Key 0000000000000001.2-{n}.rule.a");
    let x = [("key", &b"k"[..]), ("fields.t", b"61"), ("value", b"v")];
    for (text, values, expected) in [
        ("key = '${x}'", &x[..1], format!("xadd k * value {{\"t\":61}} {}", marks(0))),
        (
            "key = '${x}'\nmax_len = 1000\nfields = { t = '${t}' }",
            &x[..2],
            format!("xadd k MAXLEN ~ 1000 * t 61 {}", marks(0)),
        ),
        (
            "key = 's'\nvalue = '${x}'\nfields = { t = '${t}' }",
            &x[1..],
            format!("xadd s * value v t 61 {}", marks(0)),
        ),
        ("key = 's'\nfields = { Idempotency-Key = 'own' }", &[], "xadd s * Idempotency-Key own".to_owned()),
        ("key = 'c'\ncommand = 'publish'\nvalue = '${x}'", &x[2..], "publish c v".to_owned()),
        ("key = 'l'\ncommand = 'rpush'", &[], "rpush l {\"t\":61}".to_owned()),
        ("key = 'l'\ncommand = 'lpush'", &[], "lpush l {\"t\":61}".to_owned()),
        ("key = 'h'\ncommand = 'hset'\nfield = 'last'", &[], "hset h last {\"t\":61}".to_owned()),
        ("key = 'h'\ncommand = 'hset'\nfields = { t = '${t}' }", &x[1..2], "hset h t 61".to_owned()),
        ("key = 'k'\ncommand = 'set'", &[], "set k {\"t\":61}".to_owned()),
    ] {
        let server = Server::start(&["+OK\r\n"]).await;
        let results = sink(text, &server.connectors).deliver(&batch(vec![record(text, values)])).await;
        assert_eq!(results, [Ok(())], "{text}");
        assert_eq!(server.commands(), [expected], "{text}");
    }
}

#[tokio::test]
async fn what_comes_late_says_so() {
    let server = Server::start(&["+1-0\r\n"]).await;
    let request = record("key = 's'", &[]);
    let id = ItemId { store: 1, epoch: 2, sequence: 3 };
    let late = [Arc::new(Envelope::new(id, request, Some(1_700_000_000_000)))];
    assert_eq!(sink("key = 's'", &server.connectors).deliver(&late).await, [Ok(())]);
    let [command] = server.commands().try_into().unwrap();
    assert!(command.ends_with("Tidegate-Replayed true Tidegate-Received-At 1700000000000"), "{command}");
}

#[tokio::test]
async fn one_refused_command_of_a_batch_is_refused_alone() {
    let server = Server::start(&[
        ":1\r\n",
        "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
        "-OOM command not allowed when used memory > 'maxmemory'.\r\n",
        "-NOPERM no permission\r\n",
        "-ERR unknown command 'rpush'\r\n",
        "-ERR syntax error\r\n",
        ":2\r\n",
    ])
    .await;
    let text = "key = 'l'\ncommand = 'rpush'";
    let records = vec![record(text, &[]); 7];
    let results = sink(text, &server.connectors).deliver(&batch(records)).await;
    let what = |result: &Result<(), DeliveryError>| match result {
        Ok(()) => "ok",
        Err(error) if error.is_disabling() => "disabled",
        Err(error) if error.is_retriable() => "again",
        Err(_) => "refused",
    };
    let whats: Vec<&str> = results.iter().map(what).collect();
    assert_eq!(whats, ["ok", "refused", "again", "disabled", "disabled", "refused", "ok"]);
    let text = results[1].as_ref().unwrap_err().to_string();
    assert_eq!(
        text,
        "the far side refused it: the server answered WRONGTYPE Operation against a key holding the wrong kind of value"
    );
}

#[tokio::test]
async fn an_error_that_repeats_the_password_is_not_shown() {
    let (text, password) = ("key = 'l'\ncommand = 'rpush'", "canary-0123456789");
    for (answer, is_repeated) in [
        (format!("-ERR not after AUTH {password}\r\n"), true),
        (format!("-{password} and more\r\n"), true),
        // Cut by the server, in the middle of it.
        ("-ERR not after canary-01234\r\n".to_owned(), true),
        ("-ERR not after canary\r\n".to_owned(), false),
    ] {
        let server = Server::start(&["+OK\r\n", &answer]).await;
        let connectors = server.signing_in(password);
        let results = sink(text, &connectors).deliver(&batch(vec![record(text, &[])])).await;
        let told = results[0].as_ref().unwrap_err().to_string();
        assert_eq!(told.contains("(it repeats a secret)"), is_repeated, "{answer}: {told}");
        assert_eq!(told.contains("canary"), !is_repeated, "{answer}: {told}");
        assert_eq!(server.commands()[0], format!("AUTH {password}"));
    }
}

#[tokio::test]
async fn a_sign_in_that_is_refused_does_not_tell_the_password() {
    let (text, password) = ("key = 'l'\ncommand = 'rpush'", "canary-0123456789");
    for answer in
        ["-ERR unknown command 'AUTH', with args beginning with: 'canary-0123456789'", "-canary-0123456789"]
    {
        let server = Server::start(&[&format!("{answer}\r\n")]).await;
        let results = sink(text, &server.signing_in(password)).deliver(&batch(vec![record(text, &[])])).await;
        let told = results[0].as_ref().unwrap_err().to_string();
        assert!(!told.contains("canary"), "{answer}: {told}");
    }
}

#[tokio::test]
async fn a_broken_or_silent_connection_is_made_anew() {
    let text = "key = 'l'\ncommand = 'rpush'";
    let server = Server::start(&["", "hang", ":1\r\n"]).await;
    // What ends by an event has all the time that it needs.
    let (patient, hasty) =
        (sink(text, &server.connectors), sink(&format!("{text}\ntimeout = '200ms'"), &server.connectors));
    let once = batch(vec![record(text, &[])]);
    assert!(matches!(patient.deliver(&once).await[..], [Err(DeliveryError::Interrupted { .. })]));
    assert!(matches!(hasty.deliver(&once).await[..], [Err(DeliveryError::TimedOut { .. })]));
    assert_eq!(patient.deliver(&once).await, [Ok(())]);
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let text = "key = 'l'\ncommand = 'rpush'";
    let endless = format!("${}\r\n{}", 100 << 20, "x".repeat(5 << 20));
    for garbage in [endless.as_str(), "garbage\r\n", "*3\r\n:1\r\n", "\0\0\0\0\0\0\0\0\r\n"] {
        let server = Server::start(&[garbage, ":1\r\n"]).await;
        // One of them is a beginning, whose rest would be waited for.
        let (patient, hasty) =
            (sink(text, &server.connectors), sink(&format!("{text}\ntimeout = '500ms'"), &server.connectors));
        let once = batch(vec![record(text, &[])]);
        let [Err(error)] = &hasty.deliver(&once).await[..] else { panic!("{}", excerpted(garbage)) };
        assert!(error.is_retriable() && error.is_attempt(), "{error}");
        assert_eq!(patient.deliver(&once).await, [Ok(())], "{}", excerpted(garbage));
    }
}

fn excerpted(text: &str) -> String {
    text.chars().take(40).collect()
}

#[tokio::test]
async fn refused_credentials_are_no_fault_of_the_record() {
    for answer in [
        "-WRONGPASS invalid username-password pair or user is disabled.\r\n",
        "-ERR AUTH <password> called without any password configured\r\n",
    ] {
        let listener = Server::start(&[answer]).await;
        let [address] = listener.connectors.names().collect::<Vec<_>>().try_into().unwrap();
        assert_eq!(address, "r");
        let text = "key = 'l'\ncommand = 'rpush'";
        let config = listener.connectors.get("r").and_then(crate::Connector::redis).unwrap().config().clone();
        let secret =
            crate::config::RedisConnectorConfig { password: Some("hunter2-and-more".into()), ..config };
        let configs = BTreeMap::from([("r".to_owned(), ConnectorConfig::Redis(Box::new(secret)))]);
        let allow_private = vec!["127.0.0.1".parse().unwrap()];
        let targets = TargetPolicy { allow_private, ..TargetPolicy::default() };
        let connectors = Connectors::load(&configs, &targets, &Connectors::default()).unwrap();
        let [Err(error)] = &sink(text, &connectors).deliver(&batch(vec![record(text, &[])])).await[..] else {
            panic!("{answer}")
        };
        assert!(error.is_disabling() && !error.is_attempt(), "{answer}: {error:?}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[test]
fn refuses_settings_that_cannot_work() {
    for (text, expected) in [
        ("", "missing field `key`"),
        ("key = ''", "key: expected a text that isn't empty"),
        ("key = 'k'\ncommand = 'flushall'", "unknown variant `flushall`"),
        ("key = 'k'\ncommand = 'set'\nmax_len = 1", "max_len: belongs to command = \"xadd\""),
        ("key = 'k'\nmax_len = 0", "max_len: expected 1 to 1000000000"),
        ("key = 'k'\ncommand = 'rpush'\nfields = { a = '1' }", "fields: \"rpush\" has none"),
        ("key = 'k'\ncommand = 'hset'", "field: \"hset\" needs the field"),
        ("key = 'k'\nfield = 'f'", "field: belongs to command = \"hset\""),
        ("key = 'k'\nfields = { '' = '1' }", "expected a name of 1 to 255 bytes"),
        ("key = 'k'\ntimeout = '1ms'", "timeout: expected 10ms to 10m"),
        ("key = 'k'\nbatch = { max_items = 0 }", "batch.max_items: expected 1 to 10000"),
        ("key = 'k'\nconcurrency = 0", "concurrency: expected 1 to 256"),
    ] {
        let refusal = refusal(&format!("{ACTION}{text}"));
        assert!(refusal.contains(expected), "{text}: {refusal}");
    }
}

#[test]
fn refuses_connectors_that_cannot_work() {
    for (text, expected) in [
        ("servers = []", "servers: expected 1 to 16 servers, given 0"),
        ("servers = ['h']", "\"h\" is no server: expected \"host:port\""),
        ("servers = ['h:1']\nusername = 'u'", "username: needs password too"),
        ("servers = ['h:1']\nconnect_timeout = '1ms'", "connect_timeout: expected 10ms to 10m"),
        ("servers = ['h:1']\nurl = 'x'", "unknown field `url`"),
        ("servers = ['h:1']\ntls = { ca_file = '/none' }", "tls.ca_file: \"/none\" can't be read"),
    ] {
        let text = format!("[r]\ntype = 'redis'\n{text}");
        let refusal = match toml::from_str::<BTreeMap<String, ConnectorConfig>>(&text) {
            Err(error) => error.message().to_owned(),
            Ok(configs) => {
                let refused = Connectors::load(&configs, &TargetPolicy::default(), &Connectors::default());
                refused.expect_err(&text)[0].to_string()
            }
        };
        assert!(refusal.contains(expected), "{text}: {refusal}");
    }
}

#[test]
fn an_action_needs_a_connector_of_its_own_type() {
    let known =
        connectors("[h]\ntype = 'http'\n[other]\ntype = 'redis'\nservers = ['h:1']\n[r]\ntype = 'http'\n");
    for (name, expected) in [
        ("none", "connector: the configuration has no [connectors.none]; expected one of other"),
        ("h", "connector: [connectors.h] is of type \"http\", not \"redis\"; expected one of other"),
    ] {
        let text = format!("type = 'redis'\nname = 'a'\nconnector = '{name}'\nkey = 'k'");
        let ActionConfig::Redis(settings) = config(&text) else { panic!() };
        let error = RedisSink::new("rule", &settings, &known).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn keys_and_values_from_messages_are_bounded() {
    let plan = plan(&format!("{ACTION}key = '${{x}}'\nfields = {{ t = '${{t}}' }}"));
    let large = vec![b'x'; (64 << 10) + 1];
    for values in [
        [("key", &large[..]), ("fields.t", b"1")],
        [("key", b"k"), ("fields.t", &large[..])],
        [("key", b""), ("fields.t", b"1")],
    ] {
        assert!(render(&plan, &values).is_err());
    }
}
