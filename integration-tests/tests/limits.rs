//! Limits from the configuration, seen from outside: at the limit and one past it.

use integration_tests::{Broker, Client, Version};

#[test]
fn client_identifiers_have_a_longest() {
    let broker = Broker::builder().limit("max_client_id_bytes", "30").start();
    for version in Version::BOTH {
        Client::connect(&broker, version, &"i".repeat(30)).leave();
        let mut client = Client::open(&broker, version);
        client.send(&version.connect(&"i".repeat(31)));
        assert_eq!(client.end_of_refusal(), Some(if version == Version::V5 { 0x85 } else { 0x02 }));
    }
}

#[test]
fn keep_alive_has_a_longest_v5_3_2_2_21() {
    let broker = Broker::builder().limit("max_keep_alive", "\"30s\"").start();
    for (asked, told) in [("001e", None), ("001f", Some(30)), ("ffff", Some(30)), ("0000", Some(30))] {
        let connect = format!("10 ['MQTT' 05 02 {asked} [] 'keen']");
        let (client, connack) = Client::connect_as(&broker, Version::V5, &connect);
        assert_eq!(connack.properties.number(0x13), told, "Server Keep Alive for {asked}");
        client.leave();
    }
    // An older client cannot be told, and is accepted.
    Client::connect_as(&broker, Version::V311, "10 ['MQTT' 04 02 ffff 'keen']").0.leave();
}

#[test]
fn sessions_have_a_longest_expiry_v5_s3_2_2_3_2() {
    let broker = Broker::builder().limit("max_session_expiry", "\"1m\"").start();
    for (asked, told) in [("0000003c", None), ("0000003d", Some(60)), ("ffffffff", Some(60))] {
        let connect = format!("10 ['MQTT' 05 02 003c [11 {asked}] 'lasting']");
        let (client, connack) = Client::connect_as(&broker, Version::V5, &connect);
        assert_eq!(connack.properties.number(0x11), told, "Session Expiry Interval for {asked}");
        client.leave();
    }
}

#[test]
fn topics_have_a_deepest() {
    let broker = Broker::builder().limit("max_topic_levels", "3").start();
    let mut client = Client::connect(&broker, Version::V5, "deep");
    client.subscribe("a/b/c", 0);
    client.publish("a/b/c", "fits");
    assert_eq!(client.delivery().text(), "fits");
    client.send("82 [0001 [] 'a/b/c/d' 00]");
    let codes = client.ack(0x90).codes;
    assert!(codes.len() == 1 && codes[0] >= 0x80, "{codes:02x?}");
    let code = client.publish_acknowledged("a/b/c/d", "does not fit");
    assert!(code >= 0x80, "{code:02x}");
    client.ping();
}

#[test]
fn a_session_has_a_number_of_subscriptions() {
    let broker = Broker::builder().limit("max_subscriptions_per_session", "2").start();
    for version in Version::BOTH {
        let properties = version.no_properties();
        let mut client = Client::connect(&broker, version, "many");
        client.send(&format!("82 [0001 {properties} 'one' 00 'two' 00 'three' 00]"));
        let refusal = if version == Version::V5 { 0x97 } else { 0x80 };
        assert_eq!(client.ack(0x90).codes, [0, 0, refusal]);
        // One of them again is not one more; one less makes room.
        client.subscribe("two", 1);
        client.send(&format!("a2 [0002 {properties} 'one']"));
        assert_eq!(client.ack(0xb0).packet_id, 2);
        client.subscribe("three", 0);
    }
}

#[test]
fn retained_messages_have_a_number() {
    let broker =
        Broker::builder().limit("max_retained_messages", "2").section("[sys]\ninterval = \"0s\"").start();
    let mut client = Client::connect(&broker, Version::V5, "keeper");
    let mut retain = |topic: &str, payload: &str| {
        client.send(&format!("33 ['{topic}' 0001 [] `{payload}`]"));
        client.ack(0x40).codes
    };
    assert!(retain("kept/1", "x")[0] < 0x80 && retain("kept/2", "x")[0] < 0x80);
    assert_eq!(retain("kept/3", "x"), [0x97], "Quota exceeded");
    // Another text on a topic that is kept is not one more; one less makes room.
    assert!(retain("kept/2", "y")[0] < 0x80);
    assert!(retain("kept/1", "")[0] < 0x80);
    assert!(retain("kept/3", "x")[0] < 0x80);
    let mut subscriber = Client::connect(&broker, Version::V5, "subscriber");
    subscriber.subscribe("kept/+", 0);
    let mut topics = [subscriber.delivery().topic, subscriber.delivery().topic];
    topics.sort();
    assert_eq!(topics, ["kept/2", "kept/3"]);
    subscriber.ping();
}

#[test]
fn a_queue_drops_its_oldest_by_default() {
    let broker = Broker::builder().section(IN_MEMORY).limit("max_queued_messages", "3").start();
    queue_five(&broker, "");
    expect_queued(&broker, "345");
}

#[test]
fn a_queue_that_refuses_tells_the_publisher() {
    let refuse = ("max_queued_policy", "\"refuse\"");
    let broker = Broker::builder()
        .section(IN_MEMORY)
        .limit("max_queued_messages", "3")
        .limit(refuse.0, refuse.1)
        .start();
    assert_eq!(queue_five(&broker, "")[3..], [0x97, 0x97], "Quota exceeded");
    expect_queued(&broker, "123");
}

#[test]
fn a_queue_on_disk_is_bounded_by_its_bytes_alone() {
    let filler = "x".repeat(20_000);
    let builder =
        || Broker::builder().limit("max_queued_messages", "3").limit("max_queued_bytes", "\"64KiB\"");
    let broker = builder().start();
    queue_five(&broker, "");
    expect_queued(&broker, "12345");
    queue_five(&broker, &filler);
    expect_queued(&broker, "345");
    let broker = builder().limit("max_queued_policy", "\"refuse\"").start();
    assert_eq!(queue_five(&broker, &filler)[3..], [0x97, 0x97], "Quota exceeded");
    expect_queued(&broker, "123");
}

const IN_MEMORY: &str = "[store]\ndurability = \"memory\"\n";

/// Publishes `1` to `5`, with something behind each, at QoS 1 for a session that is away; returns the Reason Codes of the
/// PUBACKs.
fn queue_five(broker: &Broker, filler: &str) -> Vec<u8> {
    let (mut away, _) = Client::connect_as(broker, Version::V5, &Version::V5.resume("away"));
    away.subscribe("queue/#", 1);
    away.leave();
    let mut publisher = Client::connect(broker, Version::V5, "publisher");
    (1..=5).map(|number| publisher.publish_acknowledged("queue/x", &format!("{number}{filler}"))).collect()
}

/// Takes what was queued for the session that was away, and acknowledges it.
fn expect_queued(broker: &Broker, expected: &str) {
    let (mut away, _) = Client::connect_as(broker, Version::V5, &Version::V5.resume("away"));
    for expected in expected.chars() {
        let delivery = away.delivery();
        assert_eq!(delivery.text().chars().next(), Some(expected));
        away.send(&format!("40 [{:04x}]", delivery.packet_id.unwrap_or(0)));
    }
    away.ping();
    away.leave();
}

#[test]
fn user_properties_have_a_number() {
    let broker = Broker::builder().limit("max_user_properties", "2").start();
    let mut client = Client::connect(&broker, Version::V5, "rich");
    let mut publish = |properties: &str| {
        client.send(&format!("32 ['a/b' 0001 [{properties}] `x`]"));
        client.ack(0x40).codes
    };
    assert!(publish("26 'a' '1' 26 'b' '2'")[0] < 0x80);
    assert_eq!(publish("26 'a' '1' 26 'b' '2' 26 'c' '3'"), [0x97]);
}

#[test]
fn a_stop_is_announced_v5_s4_13() {
    let broker = Broker::start();
    let mut newer = Client::connect(&broker, Version::V5, "newer");
    let mut older = Client::connect(&broker, Version::V311, "older");
    broker.stop();
    // Server shutting down.
    newer.expect_end_in_silence(0x8b);
    older.expect_end_in_silence(0x8b);
}
