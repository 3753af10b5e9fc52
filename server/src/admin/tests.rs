//! The socket with a real store behind it: what it answers, what it refuses, and how it bears bad guests.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener as StdUnixListener;

use actions::config::OrderBy;
use actions::delivery::outbox::Body;
use actions::{DeadLetter, DropReason, ItemId};
use parking_lot::Mutex;
use rules_sql::Limits;
use serde_json::{Value, json};
use store::{FaultDisk, MessageId, MessageRecord, Position, QueueKey, Record, Store as _, StoreOptions};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::*;
use crate::rules::{ActionStats, PipelineSettings, RuleSet};

/// Actions that are told of what arrives.
#[derive(Default)]
struct Actions {
    arrived: Mutex<Vec<(String, Position)>>,
    /// How many each rule has.
    per_rule: usize,
}

impl Outlets for Actions {
    fn has(&self, outbox: &str) -> bool {
        outbox == "hot/ops"
    }

    fn arrived(&self, outbox: &str, position: Position) {
        self.arrived.lock().push((outbox.to_owned(), position));
    }
}

/// Rules that have done something, by name.
const RULES: [&str; 3] = ["cold", "hot", "warm"];

impl RunningRules for Actions {
    fn stats_after(
        &self,
        after: Option<&str>,
        visit: &mut dyn FnMut(RuleStats) -> ControlFlow<()>,
    ) -> Option<String> {
        let mut rules = RULES.iter().filter(|name| after.is_none_or(|after| **name > after)).peekable();
        while let Some(name) = rules.next() {
            let is_enough = visit(counted(name, self.per_rule)).is_break();
            if is_enough && rules.peek().is_some() {
                return Some((*name).to_owned());
            }
        }
        None
    }
}

/// The counters of a rule with so many actions.
fn counted(name: &str, actions: usize) -> RuleStats {
    let action = |number| ActionStats {
        name: format!("a{number}"),
        kind: "republish",
        requests: 4,
        failed_render: 1,
        ..ActionStats::default()
    };
    RuleStats {
        name: name.to_owned(),
        matched: 9,
        passed: 5,
        no_match: 4,
        actions: (0..actions).map(action).collect(),
        ..RuleStats::default()
    }
}

struct Gateway {
    folder: TempDir,
    store: Arc<DurableStore>,
    actions: Arc<Actions>,
    socket: AdminSocket,
    /// Open as long as it is kept.
    _api: ApiServer,
}

impl Gateway {
    fn start() -> Self {
        Self::start_on(&FaultDisk::default())
    }

    fn start_on(disk: &FaultDisk) -> Self {
        Self::start_with(disk, Actions::default())
    }

    fn start_with(disk: &FaultDisk, actions: Actions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableStore::open_on(Arc::new(disk.clone()), StoreOptions::default()).unwrap().0;
        let (store, actions) = (Arc::new(store), Arc::new(actions));
        let api =
            ApiServer::open(&crate::config::Admin::default(), None, crate::api::tests::gateway()).unwrap();
        let services = Services::new(&store, Arc::<Actions>::clone(&actions)).with_api(Some(&api));
        let socket = AdminSocket::open(folder.path(), services).unwrap();
        Self { folder, store, actions, socket, _api: api }
    }

    /// Keeps a letter, as the delivery machine does.
    fn keep(&self, outbox: &str, number: u64, request: &[u8]) {
        self.keep_of("sensors/1/temp", outbox, number, request);
    }

    fn keep_of(&self, topic: &str, outbox: &str, number: u64, request: &[u8]) {
        keep_letter(&self.store, topic, outbox, number, request);
    }

    async fn connect(&self) -> Guest {
        Guest(BufReader::new(UnixStream::connect(self.socket.path()).await.unwrap()))
    }
}

/// Keeps a letter, as the delivery machine does.
pub(crate) fn keep_letter(store: &DurableStore, topic: &str, outbox: &str, number: u64, request: &[u8]) {
    let letter = DeadLetter {
        item: ItemId { store: 5, epoch: 6, sequence: number },
        cause: DropReason::Refused.as_str().to_owned(),
        error: "the answer was 400 Bad Request".to_owned(),
        attempts: 1,
        received_at_ms: 1_000,
        first_attempt_at_ms: Some(1_500),
        ended_at_ms: 2_000,
        request: Body {
            order: OrderBy::Publisher,
            identity: None,
            redriven_at_ms: None,
            origin: &[],
            request,
        }
        .encode(),
    };
    let mut body = Vec::new();
    letter.encode(&mut body);
    let id = MessageId { store: 5, epoch: 6, sequence: number };
    // Content Type "text/plain", and the User Properties site = a and token = hush.
    let properties = b"\x03\x00\x0atext/plain\x26\x00\x04site\x00\x01a\x26\x00\x05token\x00\x04hush";
    let message = MessageRecord {
        id,
        topic,
        properties,
        payload: b"{\"t\":99}",
        qos: 1,
        received_at_ms: 1_000,
        expires_after_ms: None,
        publisher: Some("sensor-1"),
        author: &[],
    };
    let queue = QueueKey::DeadLetters { namespace: 0, name: outbox };
    store.append(&[Record::Message(message), Record::Queued { queue, id: Some(id), body: &body }]).unwrap();
}

/// A request to an HTTP server as an outbox keeps it.
fn http_request(url: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |text: &str| {
        out.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
        out.extend_from_slice(text.as_bytes());
    };
    // It is no part of a batch.
    for part in ["\0", "POST", url, "{\"hot\":true}"] {
        put(part);
    }
    for (name, value) in headers {
        put(name);
        put(value);
    }
    out
}

pub(crate) fn plain_request() -> Vec<u8> {
    http_request("https://ops.example/alarms", &[])
}

struct Guest(BufReader<UnixStream>);

impl Guest {
    async fn send(&mut self, line: &[u8]) {
        self.0.get_mut().write_all(line).await.unwrap();
    }

    /// The next answer; `None` once the connection is closed.
    async fn answer(&mut self) -> Option<Value> {
        let mut line = String::new();
        let length = self.0.read_line(&mut line).await.unwrap();
        assert!(length == 0 || line.ends_with('\n'), "{line}");
        (length > 0).then(|| serde_json::from_str(&line).unwrap())
    }

    async fn ask(&mut self, line: &str) -> Value {
        self.send(format!("{line}\n").as_bytes()).await;
        self.answer().await.unwrap()
    }

    async fn call(&mut self, command: &str, params: Value) -> Value {
        let answer =
            self.ask(&json!({ "version": 1, "command": command, "params": params }).to_string()).await;
        assert_eq!(answer["version"], 1, "{answer}");
        assert!(answer.get("result").is_some(), "{answer}");
        answer["result"].clone()
    }

    async fn refused(&mut self, line: &str) -> String {
        let answer = self.ask(line).await;
        assert_eq!(answer["version"], 1, "{answer}");
        assert!(!answer["error"]["message"].as_str().unwrap().is_empty(), "{answer}");
        answer["error"]["code"].as_str().unwrap().to_owned()
    }
}

fn names(list: &Value) -> Vec<&str> {
    list["letters"].as_array().unwrap().iter().map(|letter| letter["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn letters_are_listed_in_pages_shown_sent_again_and_dropped() {
    let gateway = Gateway::start();
    for number in 1..=3 {
        gateway.keep("hot/ops", number, &plain_request());
    }
    gateway.keep("cold/log", 4, &plain_request());
    let mut guest = gateway.connect().await;
    let all = guest.call("dead_letters.list", json!({})).await;
    assert_eq!(names(&all), ["cold/log:1", "hot/ops:1", "hot/ops:2", "hot/ops:3"]);
    assert_eq!(all["next"], Value::Null);
    let first = json!({
        "name": "hot/ops:1", "rule": "hot", "action": "ops", "cause": "refused",
        "error": "the answer was 400 Bad Request", "attempts": 1, "received_at_ms": 1_000,
        "first_attempt_at_ms": 1_500, "ended_at_ms": 2_000, "item": "0000000000000005.6-1",
        "topic": "sensors/1/temp", "publisher": "sensor-1", "payload_bytes": 8,
    });
    assert_eq!(all["letters"][1], first);
    let page = guest.call("dead_letters.list", json!({ "limit": 3 })).await;
    assert_eq!((names(&page).len(), page["next"].as_str()), (3, Some("hot/ops:2")));
    let page = guest.call("dead_letters.list", json!({ "limit": 3, "after": page["next"] })).await;
    assert_eq!((names(&page), &page["next"]), (vec!["hot/ops:3"], &Value::Null));
    let filter =
        json!({ "filter": { "rule": "hot", "cause": "refused", "since_ms": 2_000, "until_ms": 2_001 } });
    assert_eq!(names(&guest.call("dead_letters.list", filter).await).len(), 3);
    let shown = guest.call("dead_letters.show", json!({ "name": "hot/ops:1" })).await;
    assert_eq!(shown["message"]["payload"], json!({ "bytes": 8, "text": "{\"t\":99}", "cut": false }));
    assert_eq!(
        shown["request"][2],
        json!({ "name": "body", "value": { "bytes": 12, "text": "{\"hot\":true}", "cut": false } })
    );
    let one = guest.call("dead_letters.redrive", json!({ "name": "hot/ops:2" })).await;
    assert_eq!(one, json!({ "done": 1, "refused": [], "next": null }));
    assert_eq!(gateway.actions.arrived.lock().len(), 1);
    let many = guest.call("dead_letters.redrive", json!({ "filter": {} })).await;
    assert_eq!((many["done"].as_u64(), many["refused"][0]["name"].as_str()), (Some(2), Some("cold/log:1")));
    assert!(many["refused"][0]["message"].as_str().unwrap().contains("no action \"cold/log\" runs"));
    let outbox = QueueKey::Outbox { namespace: 0, name: "hot/ops" };
    assert_eq!(gateway.store.queue_len(outbox), 3);
    let dropped = guest.call("dead_letters.drop", json!({ "filter": { "action": "log" } })).await;
    assert_eq!(dropped["done"], 1);
    assert_eq!(names(&guest.call("dead_letters.list", json!({})).await), [""; 0]);
}

#[tokio::test]
async fn counters_are_told_by_rule_in_parts_that_fit_an_answer() {
    let gateway = Gateway::start_with(&FaultDisk::default(), Actions { per_rule: 1, ..Actions::default() });
    let mut guest = gateway.connect().await;
    let all = guest.call("rules.counters", json!({})).await;
    assert_eq!((all["rules"].as_array().unwrap().len(), &all["next"]), (3, &Value::Null));
    assert!(all["since_ms"].as_i64().unwrap() <= now_ms());
    let expected = json!({
        "name": "cold", "matched": 9, "passed": 5, "no_match": 4, "no_output": 0, "failed_evaluation": 0,
        "failed_steps": 0, "failed_array_steps": 0, "failed_output_bytes": 0, "looped": 0, "error_actions": 0,
        "error_actions_failed": 0, "actions": [{
            "name": "a0", "type": "republish", "requests": 4, "failed_render": 1, "hop_limited": 0, "refused": 0,
            "backpressure": 0, "delivery": null,
        }],
    });
    assert_eq!(all["rules"][0], expected);
    let one = guest.call("rules.counters", json!({ "rule": "hot" })).await;
    assert_eq!((one["rules"].as_array().unwrap().len(), &one["rules"][0]["name"]), (1, &json!("hot")));
    for (params, code) in
        [(r#"{"rule":"cool"}"#, "missing"), (r#"{"name":"hot"}"#, "params"), ("[]", "params")]
    {
        let line = format!(r#"{{"version":1,"command":"rules.counters","params":{params}}}"#);
        assert_eq!(guest.refused(&line).await, code, "{line}");
    }

    let gateway =
        Gateway::start_with(&FaultDisk::default(), Actions { per_rule: 6_000, ..Actions::default() });
    let mut guest = gateway.connect().await;
    let (mut after, mut pages) = (Value::Null, Vec::new());
    loop {
        let page = guest.call("rules.counters", json!({ "after": after })).await;
        assert!(page.to_string().len() < ANSWER_BYTES_MAX);
        let names =
            page["rules"].as_array().unwrap().iter().map(|rule| rule["name"].as_str().unwrap().to_owned());
        pages.push(names.collect::<Vec<_>>());
        after = page["next"].clone();
        if after.is_null() {
            break;
        }
    }
    assert_eq!(pages, [vec!["cold", "hot"], vec!["warm"]]);
}

/// docs/admin-socket.md: its example is answered, and it has every code and every limit.
#[tokio::test]
async fn the_documentation_is_right() {
    let page = include_str!("../../../docs/admin-socket.md");
    let gateway = Gateway::start();
    let mut guest = gateway.connect().await;
    let blocks: Vec<&str> =
        page.split("```json\n").skip(1).map(|block| block.split("\n```").next().unwrap()).collect();
    let expected: Value = serde_json::from_str(blocks[1]).unwrap();
    assert_eq!(guest.ask(blocks[0]).await, expected);
    let error: Value = serde_json::from_str(blocks[2]).unwrap();
    assert_eq!(
        guest.refused(&blocks[0].replace("rule", "rul")).await,
        error["error"]["code"].as_str().unwrap()
    );
    let text = "[rules.r]\nsql = \"SELECT * FROM 'in'\"\n\
                [[rules.r.actions]]\nname = \"ops\"\ntype = \"http\"\nurl = \"https://ops.example\"\n";
    let rules = RuleSet::from_texts([(Path::new("r.toml"), text)], &Limits::default()).unwrap();
    let pipeline = RulePipeline::new(&rules, &PipelineSettings::default()).unwrap();
    let counted = counters::rule(&pipeline.stats()[0]);
    assert!(counted["actions"][0]["delivery"].is_object());
    for member in members(&counted) {
        assert!(page.contains(&format!("`{member}`")), "{member}");
    }
    for code in protocol::Code::ALL {
        assert!(page.contains(&format!("`{}`", code.as_str())), "{code:?}");
    }
    for row in [
        format!("| length of a request | {} KiB |", REQUEST_BYTES_MAX >> 10),
        format!("| length of an answer | {} MiB |", ANSWER_BYTES_MAX >> 20),
        format!("| connections | {CONNECTIONS_MAX} |"),
        format!("not taken | {} s |", IDLE_TIMEOUT.as_secs()),
    ] {
        assert!(page.contains(&row), "{row}");
    }
}

/// The names of all members of an answer, at any depth.
fn members(value: &Value) -> Vec<String> {
    match value {
        Value::Object(object) => object
            .iter()
            .flat_map(|(name, value)| std::iter::once(name.clone()).chain(members(value)))
            .collect(),
        Value::Array(values) => values.iter().flat_map(members).collect(),
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn secrets_are_not_shown() {
    let gateway = Gateway::start();
    let headers = [
        ("authorization", "Bearer hush"),
        ("cookie", "hush"),
        ("x-api-key", "hush"),
        ("idempotency-key", "seen"),
        ("x-site", "a"),
    ];
    gateway.keep("hot/ops", 1, &http_request("https://ops.example/a?token=hush&x=1", &headers));
    let mut guest = gateway.connect().await;
    let shown = guest.call("dead_letters.show", json!({ "name": "hot/ops:1" })).await;
    assert!(!shown.to_string().contains("hush"), "{shown}");
    let values: Vec<(&str, &str)> = shown["request"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| (part["name"].as_str().unwrap(), part["value"]["text"].as_str().unwrap()))
        .collect();
    assert_eq!(
        values,
        [
            ("method", "POST"),
            ("url", "https://ops.example/a?token=***&x=1"),
            ("headers.authorization", "***"),
            ("headers.cookie", "***"),
            ("headers.x-api-key", "***"),
            ("headers.idempotency-key", "seen"),
            ("headers.x-site", "a"),
            ("body", "{\"hot\":true}"),
        ]
    );
    assert_eq!(shown["message"]["user_properties"], json!([["site", "a"], ["token", "***"]]));
    assert_eq!(shown["message"]["content_type"], "text/plain");
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_the_next_one_answered() {
    let gateway = Gateway::start();
    gateway.keep("hot/ops", 1, &plain_request());
    let mut guest = gateway.connect().await;
    for (line, code) in [
        ("", "malformed"),
        ("garbage", "malformed"),
        ("\u{0}\u{1}", "malformed"),
        ("{\"version\":1", "malformed"),
        ("[]", "version"),
        ("1", "version"),
        ("{}", "version"),
        (r#"{"command":"dead_letters.list"}"#, "version"),
        (r#"{"version":2,"command":"dead_letters.list"}"#, "version"),
        (r#"{"version":"1","command":"dead_letters.list"}"#, "version"),
        (r#"{"version":1}"#, "malformed"),
        (r#"{"version":1,"command":7}"#, "malformed"),
        (r#"{"version":1,"command":"dead_letters.list","extra":1}"#, "malformed"),
        (r#"{"version":1,"command":"dead_letters"}"#, "unknown_command"),
        (r#"{"version":1,"command":"dead_letters.list","params":[]}"#, "params"),
        (r#"{"version":1,"command":"dead_letters.list","params":{"filters":{}}}"#, "params"),
        (r#"{"version":1,"command":"dead_letters.list","params":{"filter":{"rul":"a"}}}"#, "params"),
        (r#"{"version":1,"command":"dead_letters.list","params":{"filter":{"cause":"refusedd"}}}"#, "params"),
        (r#"{"version":1,"command":"dead_letters.list","params":{"limit":0}}"#, "params"),
        (r#"{"version":1,"command":"dead_letters.list","params":{"limit":1001}}"#, "params"),
        (r#"{"version":1,"command":"dead_letters.list","params":{"after":"hot"}}"#, "params"),
        (r#"{"version":1,"command":"dead_letters.show"}"#, "params"),
        (r#"{"version":1,"command":"dead_letters.show","params":{"name":"../x:1"}}"#, "params"),
        (r#"{"version":1,"command":"dead_letters.show","params":{"name":"hot/ops:2"}}"#, "missing"),
        (r#"{"version":1,"command":"dead_letters.drop"}"#, "params"),
        (r#"{"version":1,"command":"dead_letters.drop","params":{"filter":[]}}"#, "params"),
        (r#"{"version":1,"command":"dead_letters.drop","params":{"filter":null}}"#, "params"),
        (r#"{"version":1,"command":"dead_letters.drop","params":[null,{}]}"#, "params"),
        (
            r#"{"version":1,"command":"dead_letters.drop","params":{"name":"hot/ops:1","filter":{}}}"#,
            "params",
        ),
        (r#"{"version":1,"command":"dead_letters.drop","params":{"filter":{"rul":"x"}}}"#, "params"),
        (r#"{"version":1,"command":"dead_letters.drop","params":{"name":"hot/ops:2"}}"#, "missing"),
        (r#"{"version":1,"command":"dead_letters.redrive","params":{"name":"hot/ops:2"}}"#, "missing"),
    ] {
        assert_eq!(guest.refused(line).await, code, "{line}");
    }
    let limits = guest.call("dead_letters.list", json!({ "limit": 1000, "filter": {} })).await;
    assert_eq!(names(&limits), ["hot/ops:1"], "and nothing was done");
}

#[tokio::test]
async fn a_letter_whose_request_cannot_be_read_is_shown_as_far_as_it_can() {
    let gateway = Gateway::start();
    gateway.keep("hot/ops", 1, b"no request");
    let queue = QueueKey::DeadLetters { namespace: 0, name: "hot/ops" };
    gateway.store.append(&[Record::Queued { queue, id: None, body: b"\xff" }]).unwrap();
    let mut guest = gateway.connect().await;
    let shown = guest.call("dead_letters.show", json!({ "name": "hot/ops:1" })).await;
    assert_eq!((&shown["request"], shown["cause"].as_str()), (&Value::Null, Some("refused")));
    let shown = guest.call("dead_letters.show", json!({ "name": "hot/ops:2" })).await;
    assert_eq!((shown["cause"].as_str(), &shown["message"]), (Some("unreadable"), &Value::Null));
    assert_eq!(shown["error"], "dead letter of format 255, expected 1");
    let refused = guest
        .refused(r#"{"version":1,"command":"dead_letters.redrive","params":{"name":"hot/ops:2"}}"#)
        .await;
    assert_eq!(refused, "refused");
}

#[tokio::test]
async fn a_request_is_taken_up_to_its_longest_and_no_further() {
    let gateway = Gateway::start();
    let mut guest = gateway.connect().await;
    let request = |bytes: usize| {
        let (begin, end) = (r#"{"version":1,"command":""#, r#""}"#);
        format!("{begin}{}{end}", "x".repeat(bytes - begin.len() - end.len()))
    };
    assert_eq!(guest.refused(&request(REQUEST_BYTES_MAX)).await, "unknown_command");
    assert_eq!(guest.refused(&request(REQUEST_BYTES_MAX + 1)).await, "too_long");
    assert_eq!(guest.answer().await, None, "what follows can't be told from the rest of it");
    // Without any newline too.
    let mut guest = gateway.connect().await;
    guest.send(&vec![b'x'; REQUEST_BYTES_MAX + 1]).await;
    assert_eq!(guest.answer().await.unwrap()["error"]["code"], "too_long");
    assert_eq!(guest.answer().await, None);
    // The last request of one who writes no more needs none.
    let mut guest = gateway.connect().await;
    guest.send(br#"{"version":1,"command":"dead_letters.list"}"#).await;
    guest.0.get_mut().shutdown().await.unwrap();
    assert_eq!(guest.answer().await.unwrap()["result"]["next"], Value::Null);
    assert_eq!(guest.answer().await, None);
}

#[tokio::test]
async fn several_requests_at_once_are_answered_in_order() {
    let gateway = Gateway::start();
    let mut guest = gateway.connect().await;
    let list = r#"{"version":1,"command":"dead_letters.list"}"#;
    guest.send(format!("{list}\nnonsense\r\n{list}\r\n").as_bytes()).await;
    assert!(guest.answer().await.unwrap().get("result").is_some());
    assert_eq!(guest.answer().await.unwrap()["error"]["code"], "malformed");
    assert!(guest.answer().await.unwrap().get("result").is_some());
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let gateway = Gateway::start();
    let mut guests = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut guest = gateway.connect().await;
        guest.call("dead_letters.list", json!({})).await;
        guests.push(guest);
    }
    let mut late = gateway.connect().await;
    assert_eq!(late.answer().await.unwrap()["error"]["code"], "busy");
    assert_eq!(late.answer().await, None);
    // Its place is free as soon as its end was seen, which is when the next one is let in.
    guests.pop();
    loop {
        let mut next = gateway.connect().await;
        next.send(b"{\"version\":1,\"command\":\"dead_letters.list\"}\n").await;
        if next.answer().await.unwrap().get("result").is_some() {
            break;
        }
    }
    for guest in &mut guests {
        guest.call("dead_letters.list", json!({})).await;
    }
}

#[tokio::test]
async fn two_who_want_the_same_letter_send_it_once() {
    let gateway = Gateway::start();
    for number in 1..=20 {
        gateway.keep("hot/ops", number, &plain_request());
    }
    let (mut one, mut other) = (gateway.connect().await, gateway.connect().await);
    for number in 1..=20 {
        let line = json!({
            "version": 1, "command": "dead_letters.redrive", "params": { "name": format!("hot/ops:{number}") },
        });
        let line = line.to_string();
        let (first, second) = tokio::join!(one.ask(&line), other.ask(&line));
        let done = [&first, &second].iter().filter(|answer| answer["result"]["done"] == 1).count();
        let missing = [&first, &second].iter().filter(|answer| answer["error"]["code"] == "missing").count();
        assert_eq!((done, missing), (1, 1), "{first} {second}");
    }
    assert_eq!(gateway.store.queue_len(QueueKey::Outbox { namespace: 0, name: "hot/ops" }), 20);
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_sent_away() {
    let gateway = Gateway::start();
    let mut guest = gateway.connect().await;
    guest.send(b"{\"version\":1,").await;
    let begin = tokio::time::Instant::now();
    assert_eq!(guest.answer().await.unwrap()["error"]["code"], "idle");
    assert_eq!(guest.answer().await, None);
    assert!(begin.elapsed() >= IDLE_TIMEOUT, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn the_socket_is_its_owners_and_takes_the_place_of_one_left_over() {
    let gateway = Gateway::start();
    let path = gateway.socket.path().to_owned();
    assert_eq!(path, gateway.folder.path().join("admin.sock"));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut guest = gateway.connect().await;
    guest.call("dead_letters.list", json!({})).await;
    gateway.socket.close().await;
    assert!(!path.exists());
    assert_eq!(guest.0.read_u8().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    // One that a crash has left over.
    drop(StdUnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let services = Services::new(&gateway.store, gateway.actions.clone());
    let socket = AdminSocket::open(gateway.folder.path(), services.clone()).unwrap();
    let mut guest = Guest(BufReader::new(UnixStream::connect(socket.path()).await.unwrap()));
    guest.call("dead_letters.list", json!({})).await;
    socket.close().await;
    // Anything else of that name is somebody's.
    std::fs::write(&path, "mine").unwrap();
    let error = AdminSocket::open(gateway.folder.path(), services).unwrap_err();
    assert!(matches!(error, AdminError::Occupied { path: named } if named == path));
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

#[tokio::test]
async fn a_path_that_the_system_cannot_take_is_refused_in_words() {
    let gateway = Gateway::start();
    let services = Services::new(&gateway.store, gateway.actions.clone());
    let base = gateway.folder.path().as_os_str().len();
    let at = |bytes: usize| {
        let name = "d".repeat(bytes - base - "//admin.sock".len());
        let folder = gateway.folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        assert_eq!(socket_path(&folder).as_os_str().len(), bytes);
        folder
    };
    let longest = at(SOCKET_PATH_BYTES_MAX);
    let socket = AdminSocket::open(&longest, services.clone()).unwrap();
    assert!(AdminClient::connect(&longest).is_ok());
    socket.close().await;
    let longer = at(SOCKET_PATH_BYTES_MAX + 1);
    let error = AdminSocket::open(&longer, services).unwrap_err();
    assert!(matches!(error, AdminError::PathTooLong { bytes, .. } if bytes == SOCKET_PATH_BYTES_MAX + 1));
    assert!(error.to_string().contains("choose a shorter data_dir"), "{error}");
    assert!(matches!(AdminClient::connect(&longer), Err(AdminClientError::Connect { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_tells_a_refusal_from_an_answer_and_from_nobody() {
    let gateway = Gateway::start();
    gateway.keep("hot/ops", 1, &plain_request());
    let data_dir = gateway.folder.path().to_owned();
    let client = tokio::task::spawn_blocking(move || {
        let mut client = AdminClient::connect(&data_dir).unwrap();
        let list = client.call("dead_letters.list", json!({})).unwrap();
        assert_eq!(names(&list), ["hot/ops:1"]);
        let error = client.call("dead_letters.show", json!({ "name": "hot/ops:7" })).unwrap_err();
        assert!(matches!(error, AdminClientError::Refused { code, .. } if code == "missing"));
        client.call("dead_letters.show", json!({ "name": "hot/ops:1" })).unwrap();
        (client, data_dir)
    });
    let (mut client, data_dir) = client.await.unwrap();
    gateway.socket.close().await;
    assert!(matches!(client.call("dead_letters.list", json!({})), Err(AdminClientError::Broken(_))));
    assert!(matches!(AdminClient::connect(&data_dir), Err(AdminClientError::NoGateway { .. })));
    // A server of something else.
    for (answer, problem) in [("hello\n", "can't be read"), ("{}\n", "neither"), ("[]\n", "neither")] {
        let path = socket_path(&data_dir);
        drop(std::fs::remove_file(&path));
        let other = StdUnixListener::bind(path).unwrap();
        let mut client = AdminClient::connect(&data_dir).unwrap();
        io::Write::write_all(&mut other.accept().unwrap().0, answer.as_bytes()).unwrap();
        let error = client.call("dead_letters.list", json!({})).unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
    }
}

#[tokio::test]
async fn an_answer_is_bounded_whatever_the_letters_hold() {
    let gateway = Gateway::start();
    let topic = "t".repeat(65_535);
    for number in 1..=40 {
        gateway.keep_of(&topic, "hot/ops", number, &plain_request());
    }
    let mut guest = gateway.connect().await;
    let (mut after, mut seen) = (Value::Null, 0);
    loop {
        let page = guest.call("dead_letters.list", json!({ "limit": 1000, "after": after })).await;
        let bytes = page.to_string().len();
        assert!(bytes < (1 << 20) + 70_000, "{bytes}");
        seen += names(&page).len();
        after = page["next"].clone();
        if after.is_null() {
            break;
        }
    }
    assert_eq!(seen, 40);
}

#[tokio::test(start_paused = true)]
async fn what_the_disk_does_not_confirm_is_not_said_to_be_done() {
    let disk = FaultDisk::default();
    let gateway = Gateway::start_on(&disk);
    gateway.keep("hot/ops", 1, &plain_request());
    let mut guest = gateway.connect().await;
    assert_eq!(names(&guest.call("dead_letters.list", json!({})).await), ["hot/ops:1"]);
    disk.fail_sync_after(0);
    let drop_it = r#"{"version":1,"command":"dead_letters.drop","params":{"name":"hot/ops:1"}}"#;
    assert_eq!(guest.refused(drop_it).await, "store");
    let again = r#"{"version":1,"command":"dead_letters.redrive","params":{"filter":{}}}"#;
    let answer = guest.ask(again).await;
    assert!(answer["result"]["done"] == 0 || answer["error"]["code"] == "store", "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_comes_in_beside_the_lines_of_json() {
    let gateway = Gateway::start();
    let data_dir = gateway.folder.path().to_owned();
    let client = tokio::task::spawn_blocking(move || {
        let mut client = ApiClient::connect(&data_dir).unwrap();
        let me = client.get("/api/v1/session").unwrap();
        assert_eq!(me["role"], "admin");
        let error = client.get("/api/v1/nothing").unwrap_err();
        assert!(matches!(error, AdminClientError::Refused { code, .. } if code == "no_path"));
        // One connection serves many requests.
        let token = client.post("/api/v1/setup-tokens", &Value::Null).unwrap();
        assert!(token["setup_token"].as_str().unwrap().starts_with("tds_"));
        let mut lines = AdminClient::connect(&data_dir).unwrap();
        lines.call("dead_letters.list", json!({})).unwrap();
        (client, data_dir)
    });
    let (client, data_dir) = client.await.unwrap();
    gateway.socket.close().await;
    let gone = tokio::task::spawn_blocking(move || {
        let mut client = client;
        assert!(matches!(client.get("/api/v1/session"), Err(AdminClientError::Broken(_))));
        assert!(matches!(ApiClient::connect(&data_dir), Err(AdminClientError::NoGateway { .. })));
    });
    gone.await.unwrap();
}
