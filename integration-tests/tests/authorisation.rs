//! What clients may do: a test for each way that a message goes and each answer. docs/authorisation.md shows them as a table.
//!
//! The rules stand in a file that is changed while the broker runs, where a right is revoked meanwhile.

#![allow(clippy::unwrap_used, reason = "a helper of tests panics where it can't go on")]

use std::fs;
use std::path::PathBuf;

use integration_tests::{Broker, BrokerBuilder, Client, Version};

/// Not authorized.
const DENIED: u8 = 0x87;
/// The same, and any other failure, in the SUBACK of MQTT 3.1.1.
const FAILURE: u8 = 0x80;

/// A broker with rules in a file.
struct Gateway {
    folder: PathBuf,
    broker: Option<Broker>,
}

/// `watcher` may see everything, `writer` may publish below `open` and `in`; `reader` may read `open/#`.
const RULES: &str = "allow subscribe client watcher \"#\"\nallow publish client writer \"open/#\"\n\
                     allow publish client writer \"secret/#\"\nallow publish client writer \"in/#\"\n\
                     allow subscribe client reader \"open/#\"\nallow subscribe client other \"open/#\"\n";

impl Gateway {
    fn start(rules: &str) -> Self {
        Self::start_with(rules, |builder| builder)
    }

    fn start_with(rules: &str, more: impl FnOnce(BrokerBuilder) -> BrokerBuilder) -> Self {
        let name = std::thread::current().name().unwrap_or_default().replace(':', "-");
        let folder = std::env::temp_dir().join(format!("tidegate-acl-{}-{name}", std::process::id()));
        drop(fs::remove_dir_all(&folder));
        fs::create_dir(&folder).unwrap();
        let mut gateway = Self { folder, broker: None };
        gateway.write(rules);
        let path = gateway.folder.join("acl");
        let builder = Broker::builder().section(&format!("[acl]\nfile = {path:?}\n"));
        gateway.broker = Some(more(builder).start());
        gateway
    }

    fn broker(&self) -> &Broker {
        self.broker.as_ref().unwrap()
    }

    /// In one step, so that no reader sees half of it.
    fn write(&self, rules: &str) {
        let new = self.folder.join("acl.new");
        fs::write(&new, rules).unwrap();
        fs::rename(&new, self.folder.join("acl")).unwrap();
    }

    /// Puts other rules in place and waits until they hold.
    #[track_caller]
    fn change(&self, rules: &str) {
        self.write(rules);
        // No two versions of a test have as many.
        self.broker().logged(&format!(r#""access rules read again","rules":{},"#, rules.lines().count()));
    }

    #[track_caller]
    fn client(&self, client_id: &str) -> Client {
        Client::connect(self.broker(), Version::V5, client_id)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.broker.take());
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// Subscribes and returns the answer.
#[track_caller]
fn subscribe(client: &mut Client, version: Version, filter: &str) -> u8 {
    client.send(&format!("82 [7003 {} '{filter}' 01]", version.no_properties()));
    client.ack(0x90).codes.first().copied().unwrap()
}

/// Rules without those that name any of these clients.
fn without(clients: &[&str]) -> String {
    let is_kept = |line: &&str| !clients.iter().any(|client| line.contains(&format!("client {client} ")));
    RULES.lines().filter(is_kept).fold(String::new(), |text, line| text + line + "\n")
}

// ---- publish

#[test]
fn publish_allow() {
    let gateway = Gateway::start(RULES);
    let (mut watcher, mut writer) = (gateway.client("watcher"), gateway.client("writer"));
    watcher.subscribe("#", 0);
    assert_eq!(writer.publish_acknowledged("open/a", "one"), 0);
    assert_eq!(watcher.delivery().text(), "one");
}

#[test]
fn publish_deny() {
    let gateway = Gateway::start(RULES);
    let mut watcher = gateway.client("watcher");
    watcher.subscribe("#", 0);
    let mut reader = gateway.client("reader");
    assert_eq!(reader.publish_acknowledged("open/a", "qos 1"), DENIED);
    reader.publish("open/a", "qos 0");
    reader.send("34 ['open/a' 7004 [] `qos 2`]");
    assert_eq!(reader.ack(0x50).codes, [DENIED]);
    reader.ping();
    // Older clients can't be told: they get their acknowledgements, and nobody gets the message [MQTT-3.3.5-2, v3.1.1].
    let mut old = Client::connect(gateway.broker(), Version::V311, "old");
    assert_eq!(old.publish_acknowledged("open/a", "qos 1"), 0);
    old.send("34 ['open/a' 7005 `qos 2`]");
    old.expect("50 [7005]");
    old.ping();
    let mut writer = gateway.client("writer");
    assert_eq!(writer.publish_acknowledged("closed/a", "elsewhere"), DENIED);
    writer.publish_acknowledged("open/a", "last");
    assert_eq!(watcher.delivery().text(), "last", "nothing came before it");
    let line = gateway.broker().logged("denied");
    for told in ["reader", "open/a", "publish", "no rule allows it"] {
        assert!(line.contains(told), "{line}");
    }
}

#[test]
fn publish_revoked_meanwhile() {
    let gateway = Gateway::start(RULES);
    let mut watcher = gateway.client("watcher");
    watcher.subscribe("#", 0);
    let mut writer = gateway.client("writer");
    assert_eq!(writer.publish_acknowledged("open/a", "before"), 0);
    assert_eq!(watcher.delivery().text(), "before");
    gateway.change(&format!("deny publish client writer \"open/a\"\n{RULES}"));
    assert_eq!(writer.publish_acknowledged("open/a", "after"), DENIED);
    assert_eq!(writer.publish_acknowledged("open/b", "last"), 0);
    assert_eq!(watcher.delivery().text(), "last");
}

// ---- subscribe

#[test]
fn subscribe_allow() {
    let gateway = Gateway::start(RULES);
    let (mut reader, mut writer) = (gateway.client("reader"), gateway.client("writer"));
    assert_eq!(subscribe(&mut reader, Version::V5, "open/a"), 1);
    writer.publish_acknowledged("open/a", "one");
    assert_eq!(reader.delivery().text(), "one");
}

#[test]
fn subscribe_deny() {
    let gateway = Gateway::start(RULES);
    let mut reader = gateway.client("reader");
    for filter in ["secret/a", "closed", "$SYS/#", "$events/#"] {
        assert_eq!(subscribe(&mut reader, Version::V5, filter), DENIED, "{filter}");
    }
    let mut old = Client::connect(gateway.broker(), Version::V311, "old");
    assert_eq!(subscribe(&mut old, Version::V311, "open/a"), FAILURE);
    let mut writer = gateway.client("writer");
    writer.publish_acknowledged("secret/a", "one");
    writer.publish_acknowledged("open/a", "two");
    reader.ping();
    old.ping();
}

#[test]
fn subscribe_revoked_meanwhile() {
    let gateway = Gateway::start(RULES);
    let (mut reader, mut writer) = (gateway.client("reader"), gateway.client("writer"));
    let mut other = gateway.client("other");
    reader.subscribe("open/#", 1);
    other.subscribe("open/#", 1);
    gateway.change(&without(&["reader"]));
    writer.publish_acknowledged("open/a", "after");
    assert_eq!(other.delivery().text(), "after");
    reader.ping();
    assert_eq!(subscribe(&mut reader, Version::V5, "open/#"), DENIED);
    // The Subscription is still there, for when the right comes back.
    gateway.change(RULES);
    writer.publish_acknowledged("open/a", "back");
    assert_eq!(reader.delivery().text(), "back");
}

// ---- will

const WITH_WILL: &str = "10 ['MQTT' 05 06 003c [] 'CLIENT' [] 'open/will' 'gone']";

#[test]
fn will_allow() {
    let gateway = Gateway::start(RULES);
    let mut watcher = gateway.client("watcher");
    watcher.subscribe("#", 0);
    let connect = WITH_WILL.replace("CLIENT", "writer");
    let (client, _) = Client::connect_as(gateway.broker(), Version::V5, &connect);
    client.drop_connection();
    assert_eq!(watcher.delivery().text(), "gone");
}

#[test]
fn will_deny() {
    let gateway = Gateway::start(RULES);
    for (version, connect, code) in [
        (Version::V5, WITH_WILL.replace("CLIENT", "reader"), DENIED),
        (Version::V5, WITH_WILL.replace("CLIENT", "writer").replace("open/will", "$SYS/will"), DENIED),
        (Version::V311, "10 ['MQTT' 04 06 003c 'reader' 'open/will' 'gone']".to_owned(), 5),
    ] {
        let mut client = Client::open(gateway.broker(), version);
        client.send(&connect);
        assert_eq!(client.end_of_refusal(), Some(code));
    }
}

#[test]
fn will_revoked_meanwhile() {
    let gateway = Gateway::start(RULES);
    let mut watcher = gateway.client("watcher");
    watcher.subscribe("#", 0);
    let connect = WITH_WILL.replace("CLIENT", "writer");
    let (client, _) = Client::connect_as(gateway.broker(), Version::V5, &connect);
    gateway.change(&format!("deny publish client writer \"open/will\"\n{RULES}"));
    client.drop_connection();
    gateway.broker().logged("open/will");
    gateway.client("writer").publish_acknowledged("open/a", "last");
    assert_eq!(watcher.delivery().text(), "last", "no will came before it");
}

// ---- retained

fn retain(gateway: &Gateway, topics: &[&str]) {
    let mut writer = gateway.client("writer");
    for topic in topics {
        writer.send(&format!("33 ['{topic}' 7006 [] `kept`]"));
        assert_eq!(writer.ack(0x40).codes.first().copied().unwrap_or(0) & 0x80, 0);
    }
}

#[test]
fn retained_allow() {
    let gateway = Gateway::start(RULES);
    retain(&gateway, &["open/a"]);
    let mut reader = gateway.client("reader");
    reader.subscribe("open/#", 0);
    assert_eq!(reader.delivery().topic, "open/a");
}

#[test]
fn retained_deny() {
    let gateway = Gateway::start(&format!("deny subscribe client reader \"open/hidden\"\n{RULES}"));
    retain(&gateway, &["open/hidden", "open/seen"]);
    let mut reader = gateway.client("reader");
    reader.subscribe("open/#", 0);
    assert_eq!(reader.delivery().topic, "open/seen");
    reader.ping();
    assert_eq!(subscribe(&mut reader, Version::V5, "open/hidden"), DENIED);
    reader.ping();
}

/// CVE-2018-12546: nobody gets what its author may not publish any more.
#[test]
fn retained_revoked_meanwhile() {
    let gateway = Gateway::start(RULES);
    retain(&gateway, &["open/a", "open/b"]);
    gateway.change(&format!("deny publish client writer \"open/a\"\n{RULES}"));
    let mut reader = gateway.client("reader");
    reader.subscribe("open/#", 0);
    assert_eq!(reader.delivery().topic, "open/b");
    reader.ping();
    assert_eq!(subscribe(&mut reader, Version::V5, "open/a"), 1);
    reader.ping();
}

// ---- queued

/// Queues messages for `reader`, which comes back after `meanwhile`.
#[track_caller]
fn queued(gateway: &Gateway, meanwhile: impl FnOnce()) -> Client {
    let mut writer = gateway.client("writer");
    let (mut reader, _) = Client::connect_as(gateway.broker(), Version::V5, &Version::V5.resume("reader"));
    reader.subscribe("open/#", 1);
    reader.leave();
    for topic in ["open/a", "open/b", "open/c"] {
        writer.publish_acknowledged(topic, "queued");
    }
    meanwhile();
    let (reader, connack) = Client::connect_as(gateway.broker(), Version::V5, &Version::V5.resume("reader"));
    assert!(connack.session_present);
    reader
}

#[test]
fn queued_allow() {
    let gateway = Gateway::start(RULES);
    let mut reader = queued(&gateway, || {});
    for topic in ["open/a", "open/b", "open/c"] {
        assert_eq!(reader.delivery().topic, topic);
    }
}

#[test]
fn queued_deny() {
    let gateway = Gateway::start(&format!("deny subscribe client reader \"open/b\"\n{RULES}"));
    let mut reader = queued(&gateway, || {});
    assert_eq!(reader.delivery().topic, "open/a");
    assert_eq!(reader.delivery().topic, "open/c");
    reader.ping();
}

/// CVE-2021-34434: a right that is gone is gone for what waits, too.
#[test]
fn queued_revoked_meanwhile() {
    let gateway = Gateway::start(RULES);
    let mut reader = queued(&gateway, || {
        gateway.change(&format!("deny subscribe client reader \"open/b\"\n{RULES}"));
    });
    assert_eq!(reader.delivery().topic, "open/a");
    assert_eq!(reader.delivery().topic, "open/c");
    reader.ping();
}

/// The same for a message that was sent, and not acknowledged, before.
#[test]
fn unacknowledged_revoked_meanwhile() {
    let gateway = Gateway::start(RULES);
    let mut writer = gateway.client("writer");
    let (mut reader, _) = Client::connect_as(gateway.broker(), Version::V5, &Version::V5.resume("reader"));
    reader.subscribe("open/#", 1);
    writer.publish_acknowledged("open/b", "sent");
    writer.publish_acknowledged("open/c", "sent");
    assert_eq!(reader.delivery().topic, "open/b");
    assert_eq!(reader.delivery().topic, "open/c");
    reader.drop_connection();
    gateway.change(&format!("deny subscribe client reader \"open/b\"\n{RULES}"));
    let (mut reader, _) = Client::connect_as(gateway.broker(), Version::V5, &Version::V5.resume("reader"));
    let again = reader.delivery();
    assert!(again.dup && again.topic == "open/c", "{again:?}");
    reader.ping();
}

// ---- shared

#[test]
fn shared_allow() {
    let gateway = Gateway::start(RULES);
    let (mut reader, mut writer) = (gateway.client("reader"), gateway.client("writer"));
    assert_eq!(subscribe(&mut reader, Version::V5, "$share/g/open/+"), 1);
    writer.publish_acknowledged("open/a", "one");
    assert_eq!(reader.delivery().text(), "one");
}

/// What counts is the filter inside.
#[test]
fn shared_deny() {
    let gateway = Gateway::start(&format!("deny subscribe client reader \"open/hidden\"\n{RULES}"));
    let (mut reader, mut writer) = (gateway.client("reader"), gateway.client("writer"));
    assert_eq!(subscribe(&mut reader, Version::V5, "$share/g/secret/#"), DENIED);
    assert_eq!(subscribe(&mut reader, Version::V5, "$share/g/#"), DENIED);
    assert_eq!(subscribe(&mut reader, Version::V5, "$share/g/open/hidden"), DENIED);
    let mut other = gateway.client("other");
    assert_eq!(subscribe(&mut reader, Version::V5, "$share/g/open/#"), 1);
    assert_eq!(subscribe(&mut other, Version::V5, "$share/g/open/#"), 1);
    // Whoever's turn it is: it goes to the member that may have it, and is not in the way where none may.
    for _ in 0..4 {
        writer.publish_acknowledged("open/hidden", "hidden");
        let delivery = other.delivery();
        assert_eq!(delivery.text(), "hidden");
    }
    other.leave();
    writer.publish_acknowledged("open/hidden", "for nobody");
    writer.publish_acknowledged("open/seen", "for the reader");
    assert_eq!(reader.delivery().text(), "for the reader");
}

#[test]
fn shared_revoked_meanwhile() {
    let gateway = Gateway::start(RULES);
    let (mut reader, mut writer) = (gateway.client("reader"), gateway.client("writer"));
    let mut other = gateway.client("other");
    assert_eq!(subscribe(&mut reader, Version::V5, "$share/g/open/#"), 1);
    assert_eq!(subscribe(&mut other, Version::V5, "$share/g/open/#"), 1);
    gateway.change(&without(&["reader"]));
    for _ in 0..4 {
        writer.publish_acknowledged("open/a", "after");
        assert_eq!(other.delivery().text(), "after");
    }
    reader.ping();
}

// ---- wildcard

#[test]
fn wildcard_allow() {
    let gateway = Gateway::start(&format!("deny subscribe client reader \"open/hidden/#\"\n{RULES}"));
    let (mut reader, mut writer) = (gateway.client("reader"), gateway.client("writer"));
    assert_eq!(subscribe(&mut reader, Version::V5, "open/#"), 1);
    for topic in ["open/hidden", "open/hidden/x", "open/seen"] {
        writer.publish_acknowledged(topic, "one");
        writer.publish(topic, "two");
    }
    assert_eq!(reader.delivery().topic, "open/seen");
    assert_eq!(reader.delivery().topic, "open/seen");
    reader.ping();
}

/// What is allowed in part isn't allowed: nobody sees more through a wildcard than by name.
#[test]
fn wildcard_deny() {
    let gateway = Gateway::start(RULES);
    let mut reader = gateway.client("reader");
    for filter in ["#", "+/a", "+/#", "$SYS/#"] {
        assert_eq!(subscribe(&mut reader, Version::V5, filter), DENIED, "{filter}");
    }
    gateway.client("writer").publish_acknowledged("open/a", "one");
    reader.ping();
    // `#` doesn't reach what begins with $, not even for who may have all the rest.
    let mut watcher = gateway.client("watcher");
    assert_eq!(subscribe(&mut watcher, Version::V5, "$SYS/#"), DENIED);
}

#[test]
fn wildcard_revoked_meanwhile() {
    let gateway = Gateway::start(RULES);
    let (mut reader, mut writer) = (gateway.client("reader"), gateway.client("writer"));
    reader.subscribe("open/#", 0);
    writer.publish_acknowledged("open/hidden", "before");
    assert_eq!(reader.delivery().text(), "before");
    gateway.change(&format!("deny subscribe client reader \"open/hidden\"\n{RULES}"));
    writer.publish_acknowledged("open/hidden", "after");
    writer.publish("open/hidden", "after");
    writer.publish_acknowledged("open/seen", "after");
    assert_eq!(reader.delivery().topic, "open/seen");
    reader.ping();
}

// ---- rule output

/// Makes of each message below `in` one at `out/made`.
fn rule(run_as: &str) -> String {
    format!(
        "[rules.copy]\nsql = \"SELECT * FROM 'in/#'\"\n{run_as}\n[[rules.copy.actions]]\nname = \"out\"\n\
         type = \"republish\"\ntopic = \"out/made\"\n"
    )
}

fn with_rule(rules: &str, run_as: &str) -> Gateway {
    Gateway::start_with(rules, |builder| builder.rule_file("copy", &rule(run_as)))
}

const ROBOT: &str = "run_as = \"robot\"";

#[test]
fn rule_output_allow() {
    for (rules, run_as) in
        [(RULES.to_owned(), ""), (format!("allow publish user robot \"out/#\"\n{RULES}"), ROBOT)]
    {
        let gateway = with_rule(&rules, run_as);
        let mut watcher = gateway.client("watcher");
        watcher.subscribe("out/#", 0);
        gateway.client("writer").publish_acknowledged("in/a", "{\"one\":1}");
        assert_eq!(watcher.delivery().topic, "out/made", "{run_as}");
    }
}

/// The message itself goes on, and the publisher doesn't know.
#[test]
fn rule_output_deny() {
    let gateway = with_rule(RULES, ROBOT);
    let mut watcher = gateway.client("watcher");
    watcher.subscribe("#", 0);
    gateway.client("writer").publish_acknowledged("in/a", "{\"one\":1}");
    assert_eq!(watcher.delivery().topic, "in/a");
    watcher.ping();
    let line = gateway.broker().logged("denied");
    assert!(line.contains("robot") && line.contains("out/made"), "{line}");
}

#[test]
fn rule_output_revoked_meanwhile() {
    let gateway = with_rule(&format!("allow publish user robot \"out/#\"\n{RULES}"), ROBOT);
    let (mut watcher, mut writer) = (gateway.client("watcher"), gateway.client("writer"));
    watcher.subscribe("out/#", 0);
    writer.publish_acknowledged("in/a", "{\"one\":1}");
    assert_eq!(watcher.delivery().topic, "out/made");
    gateway.change(RULES);
    writer.publish_acknowledged("in/a", "{\"one\":1}");
    watcher.ping();
}

// ---- names, and rules that are broken

/// CVE-2017-7650: a name is text, whatever stands in it.
#[test]
fn a_client_identifier_is_never_a_pattern() {
    let gateway =
        Gateway::start("allow subscribe client watcher \"#\"\nallow all all \"own/${clientid}/#\"\n");
    let mut watcher = gateway.client("watcher");
    watcher.subscribe("#", 0);
    for name in ["#", "+", "a/b", "own/#"] {
        let mut client = gateway.client(name);
        for filter in ["own/#", "own/+/#", "own/a/b/#", "own/a/#", "#"] {
            assert_eq!(subscribe(&mut client, Version::V5, filter), DENIED, "{name} {filter}");
        }
        for topic in ["own/a", "own/a/b/c", "own/x/y"] {
            assert_eq!(client.publish_acknowledged(topic, "no"), DENIED, "{name} {topic}");
        }
    }
    let mut client = gateway.client("a");
    assert_eq!(client.publish_acknowledged("own/b/x", "no"), DENIED);
    assert_eq!(client.publish_acknowledged("own/a/x", "yes"), 0);
    assert_eq!(watcher.delivery().text(), "yes");
    assert_eq!(subscribe(&mut client, Version::V5, "own/a/#"), 1);
}

/// A user name that nobody has proven is only what a client calls itself.
#[test]
fn an_anonymous_client_has_no_user_name() {
    let gateway = Gateway::start("allow publish user ada \"a\"\n");
    let connect = "10 ['MQTT' 05 82 003c [] 'c' 'ada']";
    let (mut client, _) = Client::connect_as(gateway.broker(), Version::V5, connect);
    assert_eq!(client.publish_acknowledged("a", "no"), DENIED);
}

#[test]
fn rules_that_cannot_be_had_open_nothing() {
    let folder = std::env::temp_dir().join(format!("tidegate-acl-broken-{}", std::process::id()));
    drop(fs::remove_dir_all(&folder));
    fs::create_dir(&folder).unwrap();
    let path = folder.join("acl");
    let starts = || Broker::builder().section(&format!("[acl]\nfile = {path:?}\n")).fails_to_start();
    assert!(starts().contains("can't be read"), "it is missing");
    for (text, expected) in [
        ("", "has none"),
        ("# nothing\n", "has none"),
        ("allow all all \"#", "acl:1:15: the quotation mark isn't closed"),
        ("allow all all \"a\"\nallow everything\n", "acl:2:7: expected"),
    ] {
        fs::write(&path, text).unwrap();
        let printed = starts();
        assert!(printed.contains(expected), "{text}: {printed}");
    }
    fs::remove_dir_all(&folder).unwrap();

    let gateway = Gateway::start_with(RULES, |builder| builder.expect_error("rules"));
    gateway.write("allow all all \"#\"\nallow everything\n");
    gateway.broker().logged("acl:2:7");
    let mut reader = gateway.client("reader");
    assert_eq!(reader.publish_acknowledged("open/a", "no"), DENIED);
    assert_eq!(gateway.client("writer").publish_acknowledged("open/a", "yes") & 0x80, 0);
}

#[test]
fn explain_says_what_and_why() {
    let gateway = Gateway::start(&format!("deny subscribe all \"open/hidden\"\n{RULES}"));
    let explain = |arguments: &[&str]| {
        let mut all = vec!["acl", "explain"];
        all.extend(arguments);
        gateway.broker().command(&all)
    };
    let (code, text) = explain(&["--client", "writer", "--publish", "open/a"]);
    assert!(code == Some(0) && text.contains("acl:3: allow publish client writer"), "{text}");
    let (code, text) = explain(&["--client", "reader", "--publish", "open/a"]);
    assert!(code == Some(5) && text.contains("no rule allows it"), "{text}");
    let (code, text) = explain(&["--client", "reader", "--subscribe", "open/hidden"]);
    assert!(code == Some(5) && text.contains("acl:1: deny subscribe all"), "{text}");
    let (code, text) = explain(&["--client", "reader", "--subscribe", "open/#"]);
    assert!(code == Some(0) && text.contains("part"), "{text}");
}
