//! `tidegate dead-letters` against a server that runs on a store with dead letters in it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that can't go on fails, in its helpers too"
)]

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::mpsc;
use std::time::Duration;

use actions::config::OrderBy;
use actions::delivery::outbox::Body;
use actions::{DeadLetter, DropReason, ItemId};
use common::tidegate;
use serde_json::Value;
use store::{DurableStore, MessageId, MessageRecord, QueueKey, Record, Store as _, StoreOptions};
use tempfile::TempDir;
use tidegate::config::{self, Config, Durability, Environment, Listener};
use tidegate::rules::RuleSet;
use tidegate::server::Server;
use tidegate::storage::Storage;

/// Longest wait for something that must happen; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Keeps a letter of the action `hot/ops`, as the delivery machine does.
fn keep(store: &DurableStore, number: u64, url: &str, cause: DropReason) {
    let mut request = Vec::new();
    for part in ["\0", "POST", url, &format!("body {number}"), "authorization", "Bearer hush"] {
        request.extend_from_slice(&u32::try_from(part.len()).unwrap().to_be_bytes());
        request.extend_from_slice(part.as_bytes());
    }
    let (order, request) = (OrderBy::Publisher, &request[..]);
    let letter = DeadLetter {
        item: ItemId { store: 10, epoch: 11, sequence: number },
        cause: cause.as_str().to_owned(),
        error: format!("the answer was 400 Bad Request, number {number}"),
        attempts: 1,
        received_at_ms: 1_000,
        first_attempt_at_ms: Some(1_000),
        ended_at_ms: 1_772_352_000_000 + i64::try_from(number).unwrap() * 1_000,
        request: Body { order, identity: None, redriven_at_ms: None, trace: None, origin: &[], request }
            .encode(),
    };
    let mut body = Vec::new();
    letter.encode(&mut body);
    let id = MessageId { store: 10, epoch: 11, sequence: number };
    let payload = format!("{{\"t\":{number}}}");
    let message = MessageRecord {
        id,
        topic: "sensors/hall/temp",
        payload: if number == 3 { b"\x00\xff" } else { payload.as_bytes() },
        qos: 1,
        received_at_ms: 1_000,
        publisher: Some("sensor-1"),
        ..MessageRecord::default()
    };
    let queue = QueueKey::DeadLetters { namespace: 0, name: "hot/ops" };
    store.append(&[Record::Message(message), Record::Queued { queue, id: Some(id), body: &body }]).unwrap();
}

/// The far side: says yes to everything, and hands on the idempotency key and body of each request.
fn far_side() -> (SocketAddr, mpsc::Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let sender = sender.clone();
            std::thread::spawn(move || {
                let mut input = BufReader::new(&stream);
                loop {
                    let (mut key, mut length) = (String::new(), 0);
                    loop {
                        let mut line = String::new();
                        if input.read_line(&mut line).is_ok_and(|read| read > 0) {
                            match line.trim_end().to_ascii_lowercase().split_once(": ") {
                                Some(("idempotency-key", value)) => value.clone_into(&mut key),
                                Some(("content-length", value)) => length = value.parse().unwrap(),
                                Some(_) => {}
                                None if line == "\r\n" => break,
                                None => {}
                            }
                        } else {
                            return;
                        }
                    }
                    let mut body = vec![0; length];
                    input.read_exact(&mut body).unwrap();
                    (&stream).write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
                    if sender.send((key, String::from_utf8(body).unwrap())).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, requests)
}

/// A server with five dead letters.
struct Gateway {
    folder: TempDir,
    server: Server,
    requests: mpsc::Receiver<(String, String)>,
}

impl Gateway {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (address, requests) = far_side();
        let url = format!("http://{address}/alarms");
        let data_dir = folder.path().join("data");
        {
            std::fs::create_dir(&data_dir).unwrap();
            let store = DurableStore::open(&data_dir.join("store"), StoreOptions::default()).unwrap().0;
            for number in 1..=5 {
                let cause = if number == 5 { DropReason::Expired } else { DropReason::Refused };
                keep(&store, number, &url, cause);
            }
        }
        let rule = format!(
            "[rules.hot]\nsql = \"SELECT * FROM 'sensors/#'\"\n\
             [[rules.hot.actions]]\nname = \"ops\"\ntype = \"http\"\nurl = \"{url}\"\n\
             queue = {{ dead_letters = {{ max_age = \"3650d\" }} }}\n"
        );
        let rules =
            RuleSet::from_texts([(Path::new("hot.toml"), rule.as_str())], &rules_sql::Limits::default());
        let listener =
            Listener { address: "127.0.0.1:0".parse().ok(), ..Config::default().listeners[0].clone() };
        let on_disk = config::Store { durability: Durability::Commit, ..config::Store::default() };
        let actions = config::Actions { allow_private: vec!["127.0.0.1".parse().unwrap()] };
        let config = Config {
            data_dir: Some(data_dir),
            store: on_disk,
            actions,
            listeners: vec![listener],
            // The command line comes in by the data directory.
            admin: config::Admin { enabled: false, ..config::Admin::default() },
            ..Config::default()
        };
        let storage = Storage::open(&config, &Environment::default()).unwrap();
        let server = Server::start(&config, &rules.unwrap(), &storage).await.unwrap();
        Self { folder, server, requests }
    }

    fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Runs `tidegate dead-letters` on it.
    fn run(&self, arguments: &[&str]) -> Output {
        let data_dir = self.data_dir();
        let mut all = vec!["dead-letters"];
        all.extend(arguments);
        all.extend(["--data-dir", data_dir.to_str().unwrap()]);
        tidegate(&all)
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{}\n{}", out(&output), err(&output));
        out(&output)
    }

    /// Names of the letters that are listed.
    #[track_caller]
    fn names(&self, arguments: &[&str]) -> Vec<String> {
        let listed = self.ok(&[&["list", "--json"], arguments].concat());
        let letters = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        letters.map(|letter| letter["name"].as_str().unwrap().to_owned()).collect()
    }

    #[track_caller]
    fn fails(&self, code: i32, arguments: &[&str], text: &str) {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}\n{}", out(&output), err(&output));
        assert!(err(&output).contains(text), "{arguments:?}: {}", err(&output));
    }

    fn next_request(&self) -> (String, String) {
        self.requests.recv_timeout(PATIENCE).unwrap()
    }
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_are_listed_with_filters_and_a_limit() {
    let gateway = Gateway::start().await;
    let table = gateway.ok(&["list"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 6, "{table}");
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["LETTER", "CAUSE", "ATTEMPTS", "ENDED", "TOPIC", "ERROR"]
    );
    assert_eq!(
        lines[1],
        "hot/ops:1  refused  1         2026-03-01T08:00:01Z  sensors/hall/temp  the answer was 400 Bad Request, number 1"
    );
    assert_eq!(gateway.names(&["--cause", "expired"]), ["hot/ops:5"]);
    assert_eq!(gateway.names(&["--rule", "cold"]), [""; 0]);
    assert_eq!(
        gateway.names(&["--since", "2026-03-01T08:00:02Z", "--until", "2026-03-01T09:00:04+01:00"]),
        ["hot/ops:2", "hot/ops:3"]
    );
    let limited = gateway.run(&["list", "--json", "--limit", "2"]);
    assert_eq!(out(&limited).lines().count(), 2);
    assert!(err(&limited).contains("--after hot/ops:2"), "{}", err(&limited));
    assert_eq!(gateway.names(&["--after", "hot/ops:2"]), ["hot/ops:3", "hot/ops:4", "hot/ops:5"]);
    let nothing = gateway.run(&["list", "--action", "other"]);
    assert_eq!((out(&nothing).as_str(), err(&nothing).as_str()), ("", "tidegate: no dead letters\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_is_shown_whole_and_without_secrets() {
    let gateway = Gateway::start().await;
    let page = gateway.ok(&["show", "hot/ops:1"]);
    for line in [
        "  cause               refused",
        "  topic               sensors/hall/temp",
        "  publisher           sensor-1",
        "  payload             {\"t\":1}",
        "  headers.authorization  ***",
        "  body                body 1",
    ] {
        assert!(page.lines().any(|shown| shown == line), "{line}\n{page}");
    }
    let bytes = gateway.ok(&["show", "hot/ops:3"]);
    assert!(bytes.contains("payload             00ff (hexadecimal, 2 bytes)"), "{bytes}");
    let json: Value = serde_json::from_str(&gateway.ok(&["show", "hot/ops:1", "--json"])).unwrap();
    assert_eq!(json["item"], "000000000000000a.11-1");
    assert!(!json.to_string().contains("hush") && !page.contains("hush"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_again_arrives_under_its_first_key() {
    let gateway = Gateway::start().await;
    assert_eq!(gateway.ok(&["redrive", "hot/ops:2"]), "1 dead letter sent again\n");
    let key = |number: u64| format!("000000000000000a.11-{number}.hot.ops");
    assert_eq!(gateway.next_request(), (key(2), "body 2".to_owned()));
    // One that is gone is said to be, and the other is sent all the same.
    let again = gateway.run(&["redrive", "hot/ops:2", "hot/ops:3"]);
    assert_eq!((again.status.code(), out(&again).as_str()), (Some(5), "1 dead letter sent again\n"));
    assert!(err(&again).contains("there is no dead letter \"hot/ops:2\""), "{}", err(&again));
    assert_eq!(gateway.next_request(), (key(3), "body 3".to_owned()));
    let rest: Value =
        serde_json::from_str(&gateway.ok(&["redrive", "--cause", "refused", "--json"])).unwrap();
    assert_eq!(rest, serde_json::json!({ "done": 2, "refused": [] }));
    let mut keys = [gateway.next_request().0, gateway.next_request().0];
    keys.sort_unstable();
    assert_eq!(keys, [key(1), key(4)]);
    assert_eq!(gateway.names(&[]), ["hot/ops:5"]);
    gateway.server.stop(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_dropped_is_gone() {
    let gateway = Gateway::start().await;
    assert_eq!(gateway.ok(&["drop", "hot/ops:1", "hot/ops:5"]), "2 dead letters dropped\n");
    assert_eq!(gateway.names(&[]), ["hot/ops:2", "hot/ops:3", "hot/ops:4"]);
    assert_eq!(gateway.ok(&["drop", "--until", "2026-03-01T08:00:03Z"]), "1 dead letter dropped\n");
    assert_eq!(gateway.ok(&["drop", "--all"]), "2 dead letters dropped\n");
    assert_eq!(gateway.ok(&["drop", "--all"]), "0 dead letters dropped\n");
    assert_eq!(gateway.names(&[]), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_meant_is_refused_and_nothing_is_done() {
    let gateway = Gateway::start().await;
    for verb in ["drop", "redrive"] {
        gateway.fails(2, &[verb], "or --all");
        gateway.fails(2, &[verb, "--all", "--rule", "hot"], "cannot be used with");
        gateway.fails(2, &[verb, "hot/ops:1", "--all"], "cannot be used with");
        gateway.fails(2, &[verb, "hot/ops:1", "--cause", "refused"], "cannot be used with");
        gateway.fails(2, &[verb, "--since", "yesterday"], "--since: expected how long ago");
        gateway.fails(5, &[verb, "--cause", "refusedd"], "expected one of queue_full");
        gateway.fails(5, &[verb, "hot"], "expected the name of a dead letter");
        gateway.fails(5, &[verb, "hot/ops:9"], "there is no dead letter");
    }
    gateway.fails(2, &["list", "--limit", "0"], "--limit");
    gateway.fails(2, &["list", "--limit", "10001"], "--limit");
    gateway.fails(5, &["list", "--after", "hot"], "expected the name of a dead letter");
    gateway.fails(5, &["show", "hot/ops:9"], "there is no dead letter \"hot/ops:9\"");
    gateway.fails(2, &["show"], "LETTER");
    assert_eq!(gateway.names(&[]).len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_is_found_as_serve_finds_its_data() {
    let gateway = Gateway::start().await;
    let file = gateway.folder.path().join("tidegate.toml");
    std::fs::write(&file, "data_dir = \"data\"\n[store]\ndurability = \"commit\"\n").unwrap();
    let file = file.to_str().unwrap();
    for arguments in [["dead-letters", "list", "--config", file], ["--config", file, "dead-letters", "list"]]
    {
        let output = tidegate(&arguments);
        assert_eq!(out(&output).lines().count(), 6, "{}", err(&output));
    }
    std::fs::write(file, "[store]\ndurability = \"memory\"\n").unwrap();
    let memory = tidegate(&["dead-letters", "list", "--config", file]);
    assert_eq!(memory.status.code(), Some(1));
    assert!(err(&memory).contains("keeps everything in memory"), "{}", err(&memory));
    gateway.server.stop(Duration::ZERO).await;
    gateway.fails(4, &["list"], "no gateway runs with a store on disk in the data directory");
    assert!(!gateway.data_dir().join("admin.sock").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_tell_of_what_was_sent_again() {
    let gateway = Gateway::start().await;
    gateway.ok(&["redrive", "hot/ops:2"]);
    gateway.next_request();
    let data_dir = gateway.data_dir();
    let counters = |more: &[&str]| {
        let arguments = [&["rules", "counters", "--data-dir", data_dir.to_str().unwrap()], more].concat();
        tidegate(&arguments)
    };
    // The answer is on its way.
    let deadline = std::time::Instant::now() + PATIENCE;
    let delivery = loop {
        let rule: Value = serde_json::from_str(&out(&counters(&["hot", "--json"]))).unwrap();
        let delivery = rule["actions"][0]["delivery"].clone();
        if delivery["delivered"] == 1 {
            break delivery;
        }
        assert!(std::time::Instant::now() < deadline, "{delivery}");
    };
    let figures = ["queued_at_start", "received", "queued", "in_flight", "attempts"];
    assert_eq!(figures.map(|member| delivery[member].as_u64().unwrap()), [0, 1, 0, 0, 1]);
    let table = out(&counters(&[]));
    let line = table.lines().find(|line| line.starts_with("hot/ops ")).unwrap();
    let cells: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(cells, ["hot/ops", "http", "0", "1", "1", "0", "0", "0", "1", "closed"]);
    let unknown = counters(&["cold"]);
    assert_eq!(unknown.status.code(), Some(5));
    assert!(err(&unknown).contains("no rule runs that is called \"cold\""), "{}", err(&unknown));
}
