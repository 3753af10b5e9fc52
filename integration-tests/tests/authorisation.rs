//! What a client may do, on every path that moves a message, by access rules that allow, deny, and are changed meanwhile.
//!
//! A test for each cell; docs/authorisation.md shows them as a table.

#![allow(clippy::unwrap_used, reason = "a helper of tests panics where it can't go on")]

use std::fs;
use std::path::PathBuf;

use integration_tests::{Broker, Client, Version};

/// A broker whose access rules are in a file, and change with it.
struct Gateway {
    broker: Broker,
    folder: PathBuf,
    changes: usize,
}

impl Gateway {
    fn start(name: &str, rules: &str) -> Self {
        Self::start_with(name, rules, "")
    }

    fn start_with(name: &str, rules: &str, rule_file: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("tidegate-authorisation-{}-{name}", std::process::id()));
        drop(fs::remove_dir_all(&folder));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("acl"), rules).unwrap();
        let mut builder = Broker::builder().section("[acl]\nfile = \"acl\"\n").in_folder(&folder);
        if !rule_file.is_empty() {
            builder = builder.rule_file("copy", rule_file);
        }
        Self { broker: builder.start(), folder, changes: 0 }
    }

    /// Puts other rules in place of those of now; they hold when this returns.
    fn change(&mut self, rules: &str) {
        self.changes += 1;
        // The number makes each text another, and tells its line in the log from those before.
        let more = "deny publish client nobody \"none\"\n".repeat(100 + self.changes);
        let count = rules.lines().filter(|line| !line.is_empty()).count() + 100 + self.changes;
        let new = self.folder.join("acl.new");
        fs::write(&new, format!("{rules}\n{more}")).unwrap();
        fs::rename(&new, self.folder.join("acl")).unwrap();
        self.broker.logged(&format!("\"message\":\"access rules read again\",\"rules\":{count},"));
    }

    fn client(&self, version: Version, client_id: &str) -> Client {
        Client::connect(&self.broker, version, client_id)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// The watcher sees everything, and does nothing else.
const WATCHER: &str = "allow all client watcher \"#\"\n";

fn with_watcher(rules: &str) -> String {
    format!("{WATCHER}{rules}\n")
}

/// A publish that nobody may get is followed by one that everybody gets: so it is known not to have come.
fn expect_next(client: &mut Client, payload: &str) {
    assert_eq!(client.delivery().text(), payload);
}

#[test]
fn publish_allow() {
    let gateway = Gateway::start("publish_allow", &with_watcher("allow publish client device \"a/+\""));
    for version in Version::BOTH {
        let mut watcher = gateway.client(version, "watcher");
        watcher.subscribe("#", 0);
        let mut device = gateway.client(version, "device");
        assert_eq!(device.publish_acknowledged("a/x", "1"), 0);
        device.publish("a/y", "2");
        expect_next(&mut watcher, "1");
        expect_next(&mut watcher, "2");
        watcher.leave();
    }
}

#[test]
fn publish_deny() {
    let gateway = Gateway::start(
        "publish_deny",
        &with_watcher(
            "deny publish client device \"a/secret\"\nallow publish client device qos 0-1 retain no \"a/+\"",
        ),
    );
    for version in Version::BOTH {
        let mut watcher = gateway.client(version, "watcher");
        watcher.subscribe("#", 0);
        let mut device = gateway.client(version, "device");
        let properties = version.no_properties();
        // Older clients can't be told: they get their acknowledgement, and nobody the message [MQTT-3.3.5-2, v3.1.1].
        let refused = if version == Version::V5 { 0x87 } else { 0 };
        assert_eq!(device.publish_acknowledged("a/secret", "no"), refused);
        assert_eq!(device.publish_acknowledged("b", "no"), refused);
        // Neither the quality of service nor RETAIN is allowed.
        device.send(&format!("34 ['a/x' 0009 {properties} `no`]"));
        let pubrec = device.ack(0x50);
        assert_eq!((pubrec.packet_id, pubrec.codes.first().copied().unwrap_or(0)), (9, refused));
        if version == Version::V311 {
            device.send("62 [0009]");
            assert_eq!(device.ack(0x70).packet_id, 9);
        }
        device.send(&format!("33 ['a/x' 0007 {properties} `no`]"));
        assert_eq!(device.ack(0x40).codes.first().copied().unwrap_or(0), refused);
        device.publish("a/secret", "no");
        device.publish("a/x", "yes");
        expect_next(&mut watcher, "yes");
        watcher.leave();
    }
}

#[test]
fn publish_revoked_meanwhile() {
    let allowed = with_watcher("allow publish client device \"a\"\nallow publish client device \"b\"");
    let mut gateway = Gateway::start("publish_revoked", &allowed);
    let mut watcher = gateway.client(Version::V5, "watcher");
    watcher.subscribe("#", 0);
    let mut device = gateway.client(Version::V5, "device");
    assert_eq!(device.publish_acknowledged("a", "1"), 0);
    gateway.change(&with_watcher("allow publish client device \"b\""));
    assert_eq!(device.publish_acknowledged("a", "2"), 0x87);
    assert_eq!(device.publish_acknowledged("b", "3"), 0);
    gateway.change(&allowed);
    assert_eq!(device.publish_acknowledged("a", "4"), 0);
    for payload in ["1", "3", "4"] {
        expect_next(&mut watcher, payload);
    }
}

#[test]
fn subscribe_allow() {
    let gateway = Gateway::start("subscribe_allow", &with_watcher("allow subscribe client device \"a/#\""));
    for version in Version::BOTH {
        let mut device = gateway.client(version, "device");
        for filter in ["a/#", "a/+", "a", "a/x/y"] {
            device.subscribe(filter, 1);
        }
        let mut watcher = gateway.client(version, "watcher");
        watcher.publish("a/x/y", "1");
        expect_next(&mut device, "1");
    }
}

#[test]
fn subscribe_deny() {
    let gateway = Gateway::start(
        "subscribe_deny",
        &with_watcher("deny subscribe client device \"a/x\"\nallow subscribe client device qos 0-1 \"a/+\""),
    );
    for version in Version::BOTH {
        let mut device = gateway.client(version, "device");
        let properties = version.no_properties();
        device.send(&format!(
            "82 [0001 {properties} 'a/x' 00 'a/#' 00 '#' 00 'b' 00 'a/+' 02 'a/+' 01 '$SYS/#' 00 '+/+' 00]"
        ));
        let no = if version == Version::V5 { 0x87 } else { 0x80 };
        assert_eq!(device.ack(0x90).codes, [no, no, no, no, no, 1, no, no], "{version:?}");
    }
}

#[test]
fn subscribe_revoked_meanwhile() {
    let allowed = with_watcher("allow subscribe client device \"a/#\"");
    let mut gateway = Gateway::start("subscribe_revoked", &allowed);
    let mut device = gateway.client(Version::V5, "device");
    device.subscribe("a/#", 1);
    let mut watcher = gateway.client(Version::V5, "watcher");
    watcher.publish_acknowledged("a/x", "1");
    gateway.change(&with_watcher("allow subscribe client device \"a/y\""));
    watcher.publish_acknowledged("a/x", "2");
    watcher.publish("a/x", "3");
    watcher.publish_acknowledged("a/y", "4");
    device.send("82 [0002 [] 'a/#' 01]");
    assert_eq!(device.delivery().text(), "1");
    assert_eq!(device.delivery().text(), "4");
    assert_eq!(device.ack(0x90).codes, [0x87]);
    gateway.change(&allowed);
    watcher.publish_acknowledged("a/x", "5");
    expect_next(&mut device, "5");
}

/// A CONNECT with a will at QoS 1 on this topic, in notation.
fn connect_with_will(version: Version, client_id: &str, topic: &str) -> String {
    match version {
        Version::V311 => format!("10 ['MQTT' 04 0e 003c '{client_id}' '{topic}' 'gone']"),
        Version::V5 => format!("10 ['MQTT' 05 0e 003c [] '{client_id}' [] '{topic}' 'gone']"),
    }
}

#[test]
fn will_allow() {
    let gateway = Gateway::start("will_allow", &with_watcher("allow publish client device \"will/+\""));
    for version in Version::BOTH {
        let mut watcher = gateway.client(version, "watcher");
        watcher.subscribe("#", 0);
        let connect = connect_with_will(version, "device", "will/x");
        let (device, _) = Client::connect_as(&gateway.broker, version, &connect);
        device.drop_connection();
        expect_next(&mut watcher, "gone");
    }
}

#[test]
fn will_deny() {
    let gateway = Gateway::start("will_deny", &with_watcher("allow publish client device \"a\""));
    for version in Version::BOTH {
        for topic in ["will/x", "$SYS/x"] {
            let mut device = Client::open(&gateway.broker, version);
            device.send(&connect_with_will(version, "device", topic));
            match version {
                Version::V5 => device.expect_refused(0x87),
                Version::V311 => {
                    device.expect("20 [00 05]");
                    device.expect_closed();
                }
            }
        }
    }
}

#[test]
fn will_revoked_meanwhile() {
    let mut gateway = Gateway::start("will_revoked", &with_watcher("allow publish client device \"will/+\""));
    let mut watcher = gateway.client(Version::V5, "watcher");
    watcher.subscribe("#", 0);
    let connect = connect_with_will(Version::V5, "device", "will/x");
    let (device, _) = Client::connect_as(&gateway.broker, Version::V5, &connect);
    gateway.change(&with_watcher("allow publish client device \"a\""));
    device.drop_connection();
    // The same client once more: when it is in, the first will was decided about.
    let mut device = gateway.client(Version::V5, "device");
    device.publish_acknowledged("a", "back");
    expect_next(&mut watcher, "back");
}

fn retain(client: &mut Client, topic: &str, payload: &str) {
    client.send(&format!("33 ['{topic}' 0003 [] `{payload}`]"));
    let code = client.ack(0x40).codes.first().copied().unwrap_or(0);
    assert!(code < 0x80, "{code:#x}");
}

/// What a subscription to this filter brings, up to a message to the topic `end`.
fn retained(gateway: &Gateway, client_id: &str, filter: &str) -> Vec<String> {
    let mut device = gateway.client(Version::V5, client_id);
    device.subscribe("end", 0);
    device.subscribe(filter, 0);
    device.publish("end", "end");
    let mut found = Vec::new();
    loop {
        let delivery = device.delivery();
        if delivery.topic == "end" {
            return found;
        }
        assert!(delivery.retain);
        found.push(delivery.text().to_owned());
    }
}

const END: &str = "allow all all \"end\"\n";

#[test]
fn retained_allow() {
    let gateway =
        Gateway::start("retained_allow", &with_watcher(&format!("{END}allow subscribe all \"a/#\"")));
    retain(&mut gateway.client(Version::V5, "watcher"), "a/x", "1");
    assert_eq!(retained(&gateway, "device", "a/#"), ["1"]);
}

#[test]
fn retained_deny() {
    let rules = with_watcher(&format!("{END}deny subscribe all \"a/secret\"\nallow subscribe all \"a/#\""));
    let gateway = Gateway::start("retained_deny", &rules);
    let mut watcher = gateway.client(Version::V5, "watcher");
    retain(&mut watcher, "a/secret", "no");
    retain(&mut watcher, "a/open", "yes");
    assert_eq!(retained(&gateway, "device", "a/#"), ["yes"]);
    assert_eq!(retained(&gateway, "device", "a/+"), ["yes"]);
}

#[test]
fn retained_revoked_meanwhile() {
    // The right of whoever made it counts when it is handed out.
    let subscriber = format!("{END}allow subscribe client device \"a/#\"\n");
    let mut gateway = Gateway::start(
        "retained_revoked",
        &with_watcher(&format!("{subscriber}allow publish client author \"a/#\"")),
    );
    retain(&mut gateway.client(Version::V5, "author"), "a/x", "by the author");
    retain(&mut gateway.client(Version::V5, "watcher"), "a/y", "by the watcher");
    let mut both = retained(&gateway, "device", "a/#");
    both.sort();
    assert_eq!(both, ["by the author", "by the watcher"]);
    gateway.change(&with_watcher(&subscriber));
    assert_eq!(retained(&gateway, "device", "a/#"), ["by the watcher"]);
}

#[test]
fn queued_allow() {
    let gateway = Gateway::start("queued_allow", &with_watcher("allow subscribe client device \"a/#\""));
    for version in Version::BOTH {
        let (mut device, _) = Client::connect_as(&gateway.broker, version, &version.resume("device"));
        device.subscribe("a/#", 1);
        device.leave();
        let mut watcher = gateway.client(version, "watcher");
        watcher.publish_acknowledged("a/x", "1");
        let (mut device, connack) = Client::connect_as(&gateway.broker, version, &version.resume("device"));
        assert!(connack.session_present);
        expect_next(&mut device, "1");
        // Ends the session.
        device.leave();
        gateway.client(version, "device").leave();
    }
}

#[test]
fn queued_deny() {
    let gateway = Gateway::start(
        "queued_deny",
        &with_watcher("deny subscribe client device \"a/secret\"\nallow subscribe client device \"a/#\""),
    );
    let version = Version::V5;
    let (mut device, _) = Client::connect_as(&gateway.broker, version, &version.resume("device"));
    device.subscribe("a/#", 2);
    device.leave();
    let mut watcher = gateway.client(version, "watcher");
    for (topic, payload) in [("a/x", "1"), ("a/secret", "no"), ("a/y", "2")] {
        watcher.publish_acknowledged(topic, payload);
    }
    let (mut device, _) = Client::connect_as(&gateway.broker, version, &version.resume("device"));
    expect_next(&mut device, "1");
    expect_next(&mut device, "2");
}

#[test]
fn queued_revoked_meanwhile() {
    let mut gateway =
        Gateway::start("queued_revoked", &with_watcher("allow subscribe client device \"a/#\""));
    let version = Version::V5;
    let (mut device, _) = Client::connect_as(&gateway.broker, version, &version.resume("device"));
    device.subscribe("a/#", 1);
    device.leave();
    let mut watcher = gateway.client(version, "watcher");
    watcher.publish_acknowledged("a/x", "no");
    watcher.publish_acknowledged("a/y", "yes");
    gateway.change(&with_watcher("allow subscribe client device \"a/y\""));
    watcher.publish_acknowledged("a/x", "no");
    let (mut device, connack) = Client::connect_as(&gateway.broker, version, &version.resume("device"));
    assert!(connack.session_present);
    expect_next(&mut device, "yes");
    watcher.publish_acknowledged("a/y", "live");
    expect_next(&mut device, "live");
}

#[test]
fn shared_allow() {
    // The filter inside is what the rules speak of.
    let gateway = Gateway::start("shared_allow", &with_watcher("allow subscribe client device \"jobs/#\""));
    for version in Version::BOTH {
        let mut device = gateway.client(version, "device");
        device.subscribe("$share/group/jobs/#", 1);
        gateway.client(version, "watcher").publish_acknowledged("jobs/x", "1");
        expect_next(&mut device, "1");
    }
}

#[test]
fn shared_deny() {
    let rules = with_watcher(
        "deny subscribe client one \"jobs/secret\"\nallow subscribe all \"jobs/#\"\ndeny subscribe all \"other\"",
    );
    let gateway = Gateway::start("shared_deny", &rules);
    let version = Version::V5;
    let mut one = gateway.client(version, "one");
    one.send("82 [0001 [] '$share/group/other' 01 '$share/group/#' 01]");
    assert_eq!(one.ack(0x90).codes, [0x87, 0x87]);
    one.subscribe("$share/group/jobs/#", 1);
    let mut watcher = gateway.client(version, "watcher");
    // It is the only member, and may not have it: it must not stand in the way of what follows.
    watcher.publish_acknowledged("jobs/secret", "for nobody");
    watcher.publish_acknowledged("jobs/x", "1");
    let delivery = one.delivery();
    assert_eq!(delivery.text(), "1");
    one.send(&format!("40 [{:04x}]", delivery.packet_id.unwrap()));
    let mut two = gateway.client(version, "two");
    two.subscribe("$share/group/jobs/#", 1);
    for number in 0..4 {
        watcher.publish_acknowledged("jobs/secret", &number.to_string());
        expect_next(&mut two, &number.to_string());
    }
}

#[test]
fn shared_revoked_meanwhile() {
    let mut gateway = Gateway::start("shared_revoked", &with_watcher("allow subscribe all \"jobs/#\""));
    let version = Version::V5;
    let mut one = gateway.client(version, "one");
    one.subscribe("$share/group/jobs/#", 0);
    let mut two = gateway.client(version, "two");
    two.subscribe("$share/group/jobs/#", 0);
    gateway.change(&with_watcher("allow subscribe client two \"jobs/#\"\nallow all client one \"mine\""));
    let mut watcher = gateway.client(version, "watcher");
    for number in 0..4 {
        watcher.publish("jobs/x", &number.to_string());
        expect_next(&mut two, &number.to_string());
    }
    one.subscribe("mine", 0);
    one.publish("mine", "nothing before this");
    expect_next(&mut one, "nothing before this");
}

#[test]
fn wildcard_allow() {
    let gateway = Gateway::start("wildcard_allow", &with_watcher("allow subscribe all \"#\""));
    for version in Version::BOTH {
        let mut device = gateway.client(version, "device");
        device.subscribe("#", 0);
        let mut watcher = gateway.client(version, "watcher");
        for topic in ["a", "a/b", "/"] {
            watcher.publish(topic, topic);
            expect_next(&mut device, topic);
        }
    }
}

#[test]
fn wildcard_deny() {
    let rules = with_watcher("deny subscribe client device \"+/secret/#\"\nallow subscribe all \"#\"");
    let gateway = Gateway::start("wildcard_deny", &rules);
    for version in Version::BOTH {
        let mut watcher = gateway.client(version, "watcher");
        // By any of these a part is allowed, and that part only is received.
        for filter in ["#", "+/+/x", "a/#"] {
            let mut device = gateway.client(version, "device");
            device.subscribe(filter, 1);
            for topic in ["a/secret/x", "a/open/x", "a/secret", "a/b/x"] {
                watcher.publish(topic, "QoS 0");
                watcher.publish_acknowledged(topic, "QoS 1");
            }
            for topic in ["a/open/x", "a/b/x"] {
                for payload in ["QoS 0", "QoS 1"] {
                    let delivery = device.delivery();
                    assert_eq!((delivery.topic.as_str(), delivery.text()), (topic, payload), "{filter}");
                }
            }
            watcher.publish("a/b/x", "end");
            expect_next(&mut device, "end");
        }
    }
}

#[test]
fn wildcard_revoked_meanwhile() {
    let mut gateway = Gateway::start("wildcard_revoked", &with_watcher("allow subscribe all \"#\""));
    let mut device = gateway.client(Version::V5, "device");
    device.subscribe("#", 0);
    let mut watcher = gateway.client(Version::V5, "watcher");
    watcher.publish("a/secret", "1");
    expect_next(&mut device, "1");
    gateway.change(&with_watcher("deny subscribe client device \"a/secret\"\nallow subscribe all \"#\""));
    watcher.publish("a/secret", "no");
    watcher.publish("a/open", "2");
    expect_next(&mut device, "2");
}

#[test]
fn names_never_widen_what_is_allowed() {
    let gateway = Gateway::start(
        "names",
        &with_watcher(
            "allow all all \"own/${clientid}/#\"\ndeny publish all \"x/${clientid}\"\nallow publish all \"x/#\"",
        ),
    );
    for client_id in ["+", "#", "a/b", "+/#", "a/#"] {
        let mut device = gateway.client(Version::V5, client_id);
        for topic in ["own/a/x", "own/a/b/x"] {
            assert_eq!(device.publish_acknowledged(topic, "no"), 0x87, "{client_id} {topic}");
        }
        // What is denied by name is denied to whoever is named by a wildcard, whatever the topic's level.
        let code = device.publish_acknowledged("x/y", "?");
        assert_eq!(code == 0x87, !client_id.contains('/'), "{client_id} {code:#x}");
        device.send("82 [0001 [] 'own/#' 00 'own/+/x' 00 'own/a/x' 00 '#' 00]");
        assert_eq!(device.ack(0x90).codes, [0x87; 4], "{client_id}");
    }
    let mut device = gateway.client(Version::V5, "a");
    assert_eq!(device.publish_acknowledged("own/a/x", "yes"), 0x10);
    assert_eq!(device.publish_acknowledged("own/b/x", "no"), 0x87);
    assert_eq!(device.publish_acknowledged("x/a", "no"), 0x87);
    device.subscribe("own/a/+", 0);
}

#[test]
fn a_denial_is_told_with_its_line() {
    let rules = with_watcher("deny publish client device \"a\"\nallow publish client device \"b\"");
    let gateway = Gateway::start("told", &rules);
    let mut device = gateway.client(Version::V5, "device");
    assert_eq!(device.publish_acknowledged("a", "no"), 0x87);
    let line = gateway.broker.logged("denied");
    assert!(
        line.contains("\"client_id\":\"device\"")
            && line.contains("\"topic\":\"a\"")
            && line.contains("acl:2: deny publish client device"),
        "{line}"
    );
    let (code, said) = gateway.broker.command(&["acl", "explain", "--client", "device", "--publish", "a"]);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("deny: ") && said.contains("acl:2: deny publish client device \"a\""), "{said}");
}
