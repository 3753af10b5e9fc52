//! Retained messages: MQTT 3.1.1 §3.3.1.3, MQTT 5.0 §3.3.1.3 and §3.8.3.1.

use std::time::Duration;

use integration_tests::{Broker, Client, Version};

/// Publishes a retained message at QoS 1 and waits until the broker has it.
fn retain(client: &mut Client, version: Version, topic: &str, payload: &str) {
    client.send(&format!("33 ['{topic}' 0001 {} `{payload}`]", version.no_properties()));
    assert_eq!(client.ack(0x40).packet_id, 1);
}

#[test]
fn the_last_retained_message_greets_a_new_subscription_v311_3_3_1_6_v5_3_3_1_5() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut publisher = Client::connect(&broker, version, "publisher");
        retain(&mut publisher, version, "kept/x", "first");
        retain(&mut publisher, version, "kept/x", "second");
        retain(&mut publisher, version, "kept/y", "other");
        // Without RETAIN it neither replaces nor deletes [MQTT-3.3.1-12, v3.1.1] [MQTT-3.3.1-8, v5].
        publisher.publish_acknowledged("kept/x", "passing");
        publisher.publish_acknowledged("kept/x", "");
        let mut subscriber = Client::connect(&broker, version, "subscriber");
        subscriber.subscribe("kept/x", 1);
        let delivery = subscriber.delivery();
        assert_eq!((delivery.retain, delivery.qos, delivery.text()), (true, 1, "second"));
        // A wildcard gets all that match; the order between topics is free.
        let mut subscriber = Client::connect(&broker, version, "wildcard");
        subscriber.subscribe("kept/#", 0);
        let mut texts = [subscriber.delivery().text().to_owned(), subscriber.delivery().text().to_owned()];
        texts.sort();
        assert_eq!(texts, ["other", "second"]);
        subscriber.ping();
        retain(&mut publisher, version, "kept/x", "");
        retain(&mut publisher, version, "kept/y", "");
    }
}

#[test]
fn an_established_subscription_sees_no_retain_flag_v311_3_3_1_9_v5_3_3_1_12() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut subscriber = Client::connect(&broker, version, "subscriber");
        subscriber.subscribe("kept/#", 0);
        let mut publisher = Client::connect(&broker, version, "publisher");
        retain(&mut publisher, version, "kept/x", "live");
        let delivery = subscriber.delivery();
        assert_eq!((delivery.retain, delivery.text()), (false, "live"));
        retain(&mut publisher, version, "kept/x", "");
    }
}

#[test]
fn an_empty_payload_removes_the_retained_message_v311_3_3_1_10_v5_3_3_1_6() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut publisher = Client::connect(&broker, version, "publisher");
        retain(&mut publisher, version, "kept/x", "to be removed");
        let mut watcher = Client::connect(&broker, version, "watcher");
        watcher.subscribe("kept/x", 0);
        assert_eq!(watcher.delivery().text(), "to be removed");
        retain(&mut publisher, version, "kept/x", "");
        // It is passed on like any other, and nothing is kept [MQTT-3.3.1-11, v3.1.1] [MQTT-3.3.1-7, v5].
        assert_eq!(watcher.delivery().text(), "");
        let mut late = Client::connect(&broker, version, "late");
        late.subscribe("kept/#", 0);
        late.ping();
    }
}

#[test]
fn qos_0_replaces_what_is_retained_v311_3_3_1_7() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut publisher = Client::connect(&broker, version, "publisher");
        retain(&mut publisher, version, "kept/x", "old");
        publisher.send(&format!("31 ['kept/x' {} `new`]", version.no_properties()));
        publisher.ping();
        let mut subscriber = Client::connect(&broker, version, "subscriber");
        subscriber.subscribe("kept/x", 2);
        let delivery = subscriber.delivery();
        assert_eq!((delivery.retain, delivery.qos, delivery.text()), (true, 0, "new"));
        retain(&mut publisher, version, "kept/x", "");
    }
}

#[test]
fn retained_messages_outlive_the_session_v311_3_1_2_7() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut publisher = Client::connect(&broker, version, "publisher");
        retain(&mut publisher, version, "kept/x", "stays");
        publisher.leave();
        Client::connect(&broker, version, "publisher").leave();
        let mut subscriber = Client::connect(&broker, version, "subscriber");
        subscriber.subscribe("kept/x", 0);
        assert_eq!(subscriber.delivery().text(), "stays");
        subscriber.leave();
        retain(&mut Client::connect(&broker, version, "publisher"), version, "kept/x", "");
    }
}

#[test]
fn retain_handling_decides_when_they_are_sent_v5_3_3_1_9() {
    let broker = Broker::start();
    let mut publisher = Client::connect(&broker, Version::V5, "publisher");
    retain(&mut publisher, Version::V5, "kept/x", "r");
    let mut subscriber = Client::connect(&broker, Version::V5, "subscriber");
    // 2: never [MQTT-3.3.1-11, v5].
    subscriber.subscribe("kept/x", 0x20);
    subscriber.ping();
    // 1: not for a subscription that exists [MQTT-3.3.1-10, v5].
    subscriber.subscribe("kept/x", 0x10);
    subscriber.ping();
    // 0: always.
    subscriber.subscribe("kept/x", 0x00);
    assert_eq!(subscriber.delivery().text(), "r");
    subscriber.subscribe("kept/x", 0x00);
    assert_eq!(subscriber.delivery().text(), "r");
    // 1, and new.
    subscriber.subscribe("kept/+", 0x10);
    assert_eq!(subscriber.delivery().text(), "r");
    subscriber.ping();
}

#[test]
fn retain_as_published_keeps_the_flag_v5_3_3_1_13() {
    let broker = Broker::start();
    let mut subscriber = Client::connect(&broker, Version::V5, "subscriber");
    subscriber.subscribe("as/#", 0x08);
    let mut publisher = Client::connect(&broker, Version::V5, "publisher");
    retain(&mut publisher, Version::V5, "as/kept", "1");
    publisher.publish("as/passing", "2");
    let (kept, passing) = (subscriber.delivery(), subscriber.delivery());
    assert_eq!((kept.retain, passing.retain), (true, false));
}

#[test]
fn retained_messages_keep_their_properties_and_expire_v5_3_3_2_5() {
    let broker = Broker::start();
    let mut publisher = Client::connect(&broker, Version::V5, "publisher");
    publisher.send("33 ['kept/short' 0001 [02 00000001] `short`] 33 ['kept/long' 0002 [02 00000064 03 'text/plain' 26 'a' 'b'] `long`]");
    assert_eq!((publisher.ack(0x40).packet_id, publisher.ack(0x40).packet_id), (1, 2));
    publisher.expect_silence(Duration::from_millis(2_100));
    let mut subscriber = Client::connect(&broker, Version::V5, "subscriber");
    subscriber.subscribe("kept/#", 0);
    let delivery = subscriber.delivery();
    assert_eq!((delivery.text(), delivery.properties.text(0x03).as_deref()), ("long", Some("text/plain")));
    assert_eq!(delivery.properties.all(0x26).count(), 1);
    let left = delivery.properties.number(0x02).expect("a Message Expiry Interval");
    assert!((1..=98).contains(&left), "{left} of 100 seconds left after more than two");
    subscriber.ping();
    broker.adds_up();
}
