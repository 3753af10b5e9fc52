//! `[acl.http]`: a server that has rules for each client. The tests play it.

#![allow(clippy::unwrap_used, reason = "a helper of tests panics where it can't go on")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use integration_tests::{Broker, BrokerBuilder, Client, HttpReceiver, PATIENCE, Version};

/// Not authorized.
const DENIED: u8 = 0x87;

/// A server with a list of rules for each Client Identifier; to others it says nothing that is understood.
#[derive(Clone, Default)]
struct Rules {
    lists: Arc<Mutex<HashMap<&'static str, &'static str>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Rules {
    fn set(&self, client_id: &'static str, acl: &'static str) {
        self.lists.lock().unwrap().insert(client_id, acl);
    }

    fn forget(&self, client_id: &str) {
        self.lists.lock().unwrap().remove(client_id);
    }

    /// Starts to answer; returns a broker's configuration that asks here.
    fn serve(&self, keys: &str) -> BrokerBuilder {
        let server = HttpReceiver::start();
        let section = format!(
            "[acl]\nrules = ['deny publish all \"shut/#\"', 'allow subscribe all \"all\"']\n\
             [acl.http]\nurl = \"http://{}/rules\"\nheaders = {{ X-Token = \"s3cret-canary\" }}\n{keys}",
            server.address()
        );
        let this = self.clone();
        server.answer_all(move |request| {
            assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/rules"));
            assert_eq!(request.header("x-token"), Some("s3cret-canary"));
            this.asked.lock().unwrap().push(request.text().to_owned());
            let lists = this.lists.lock().unwrap();
            let of = |client_id: &&&str| request.text().contains(&format!("\"client_id\":\"{client_id}\""));
            match lists.keys().find(of).and_then(|client_id| lists.get(client_id)) {
                Some(acl) => ("200 OK", format!("{{\"acl\":{acl}}}")),
                None => ("404 Not Found", String::new()),
            }
        });
        Broker::builder().section(&section)
    }
}

/// Publishes until that is denied.
#[track_caller]
fn until_denied(client: &mut Client, topic: &str) {
    until(topic, || client.publish_acknowledged(topic, "again") == DENIED);
}

/// Publishes until that is allowed, whether somebody gets it or not.
#[track_caller]
fn until_allowed(client: &mut Client, topic: &str) {
    until(topic, || client.publish_acknowledged(topic, "again") != DENIED);
}

#[track_caller]
fn until(topic: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{topic}: the answer stays the same");
    }
}

#[test]
fn the_rules_of_the_server_hold_and_change_while_the_client_is_there() {
    let rules = Rules::default();
    rules.set("watcher", r##"{"sub":["#"]}"##);
    rules.set("writer", r#"{"pub":["open/${clientid}","shut/a"]}"#);
    let broker = rules.serve("refresh = \"1s\"\n").start();
    let mut watcher = Client::connect(&broker, Version::V5, "watcher");
    watcher.subscribe("#", 0);
    let mut writer = Client::connect(&broker, Version::V5, "writer");
    assert_eq!(writer.publish_acknowledged("open/writer", "first"), 0);
    // Before those of the configuration.
    assert_eq!(writer.publish_acknowledged("shut/a", "second"), 0);
    assert_eq!(writer.publish_acknowledged("shut/b", "no"), DENIED);
    assert_eq!(writer.publish_acknowledged("open/other", "no"), DENIED);
    assert_eq!((watcher.delivery().text(), watcher.delivery().text()), ("first", "second"));
    // A wildcard is no topic of what is allowed; what the configuration allows is.
    writer.send("82 [7003 [] '#' 01 'all' 01]");
    assert_eq!(writer.ack(0x90).codes, [DENIED, 1]);
    let asked = rules.asked.lock().unwrap().iter().find(|asked| asked.contains("writer")).cloned().unwrap();
    for part in [r#""username":null"#, r#""groups":[]"#, r#""address":"127.0.0.1""#, r#""listener":"tcp""#] {
        assert!(asked.contains(part), "{asked}");
    }
    // Asked again: other rights, and a Subscription that doesn't receive everything any more.
    rules.set("writer", r#"{"pub":["new","mark"]}"#);
    rules.set("watcher", r##"[{"permission":"deny","action":"subscribe","topic":"new"},{"permission":"allow","action":"subscribe","topic":"#"}]"##);
    until_denied(&mut writer, "open/writer");
    until_allowed(&mut writer, "new");
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert_eq!(writer.publish_acknowledged("new", "kept from the watcher"), 0);
        assert_eq!(writer.publish_acknowledged("mark", "last"), 0);
        let mut topics = Vec::new();
        while topics.last().is_none_or(|topic| topic != "mark") {
            topics.push(watcher.delivery().topic);
        }
        if !topics.iter().any(|topic| topic == "new") {
            break;
        }
        assert!(Instant::now() < deadline, "the watcher still receives it");
    }
    let line = broker.logged("no rule allows it");
    assert!(line.contains("denied") && line.contains("writer"), "{line}");
}

#[test]
fn without_rules_nobody_comes_in_and_old_ones_serve_for_a_while() {
    let rules = Rules::default();
    rules.set("writer", r#"{"pub":["a"]}"#);
    let broker = rules
        .serve("refresh = \"1s\"\nmax_age = \"3s\"\n")
        .expect_error("the authorisation server gives no rules")
        .start();
    for (version, code) in Version::BOTH.into_iter().zip([3, 0x88]) {
        let mut stranger = Client::open(&broker, version);
        stranger.send(&version.connect("stranger"));
        assert_eq!(stranger.connack().code, code);
    }
    let mut writer = Client::connect(&broker, Version::V5, "writer");
    assert_ne!(writer.publish_acknowledged("a", "x"), DENIED);
    rules.forget("writer");
    until_denied(&mut writer, "a");
    let line = broker.logged("the rules of the authorisation server are too old");
    assert!(line.contains("writer"), "{line}");
    // Its connection stays, and so does its right once the server is there again.
    rules.set("writer", r#"{"pub":["a"]}"#);
    until_allowed(&mut writer, "a");
    assert!(!broker.log().contains("s3cret-canary"));
}

#[test]
fn denials_and_decisions_are_counted_under_sys() {
    let rules = Rules::default();
    rules.set("watcher", r##"{"sub":["$SYS/#"]}"##);
    rules.set("writer", "[]");
    let broker = rules.serve("").section("[sys]\ninterval = \"1s\"\n").start();
    let mut writer = Client::connect(&broker, Version::V5, "writer");
    for _ in 0..3 {
        assert_eq!(writer.publish_acknowledged("a", "x"), DENIED);
    }
    writer.send("82 [7003 [] 'b' 01]");
    assert_eq!(writer.ack(0x90).codes, [DENIED]);
    let mut watcher = Client::connect(&broker, Version::V5, "watcher");
    watcher.subscribe("$SYS/broker/#", 0);
    let mut wanted: HashMap<&str, &str> = [
        ("authorisation/denied/publish", "3"),
        ("authorisation/denied/subscribe", "1"),
        ("authorisation/denied/receive", "0"),
        ("authorisation/denied/will", "0"),
        ("authorisation/denied/rule_output", "0"),
        ("authorisation/denied/session", "0"),
        ("authorisation/denied/client_id", "0"),
        ("authorisation/http/asked", "2"),
        ("authorisation/http/failed", "0"),
        ("authorisation/http/full", "0"),
        ("authentication/accepted", "0"),
        ("authentication/anonymous", "2"),
        ("authentication/refused", "0"),
        ("authentication/unavailable", "0"),
        ("authentication/locked_out", "0"),
        ("authentication/timeouts", "0"),
    ]
    .into();
    while !wanted.is_empty() {
        let delivery = watcher.delivery();
        let name = delivery.topic.strip_prefix("$SYS/broker/").unwrap();
        if wanted.get(name).is_some_and(|count| *count == delivery.text()) {
            wanted.remove(name);
        }
    }
}
