//! Sessions: MQTT 3.1.1 §3.1.2.4 and §4.1, MQTT 5.0 §3.1.2.4, §3.1.2.11.2 and §4.1.

use std::time::{Duration, Instant};

use integration_tests::{Broker, Client, PATIENCE, Version};

#[test]
fn messages_wait_for_a_kept_session_v311_3_1_2_5_v5_3_1_2_23() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let properties = version.no_properties();
        let (mut subscriber, _) = Client::connect_as(&broker, version, &version.resume("subscriber"));
        subscriber.subscribe("wait/1", 1);
        subscriber.subscribe("wait/2", 2);
        subscriber.leave();
        let mut publisher = Client::connect(&broker, version, "publisher");
        publisher.publish_acknowledged("wait/1", "one");
        publisher.send(&format!("34 ['wait/2' 0001 {properties} `two`] 62 [0001]"));
        assert_eq!(publisher.ack(0x50).packet_id, publisher.ack(0x70).packet_id);
        publisher.publish_acknowledged("wait/1", "three");

        let (mut subscriber, connack) = Client::connect_as(&broker, version, &version.resume("subscriber"));
        assert!(connack.session_present);
        for (payload, qos) in [("one", 1), ("two", 2), ("three", 1)] {
            let delivery = subscriber.delivery();
            assert_eq!((delivery.text(), delivery.qos, delivery.dup), (payload, qos, false));
        }
        // The subscriptions are still there.
        publisher.publish_acknowledged("wait/1", "live");
        assert_eq!(subscriber.delivery().text(), "live");
        drop(subscriber);
        Client::connect(&broker, version, "subscriber").leave();
    }
    broker.adds_up();
}

#[test]
fn a_clean_start_discards_the_session_v311_3_1_2_6_v5_3_1_2_4() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let (mut subscriber, _) = Client::connect_as(&broker, version, &version.resume("subscriber"));
        subscriber.subscribe("discard/#", 1);
        subscriber.leave();
        let mut publisher = Client::connect(&broker, version, "publisher");
        publisher.publish_acknowledged("discard/x", "must not come");
        let (mut subscriber, connack) = Client::connect_as(&broker, version, &version.connect("subscriber"));
        assert!(!connack.session_present);
        publisher.publish_acknowledged("discard/x", "nor this");
        subscriber.ping();
        subscriber.leave();
        // It ended with its connection and left nothing behind.
        let (subscriber, connack) = Client::connect_as(&broker, version, &version.resume("subscriber"));
        assert!(!connack.session_present);
        drop(subscriber);
        Client::connect(&broker, version, "subscriber").leave();
    }
}

#[test]
fn a_session_can_go_on_in_the_other_version() {
    let broker = Broker::start();
    let (mut older, _) = Client::connect_as(&broker, Version::V311, &Version::V311.resume("changing"));
    older.subscribe("change/#", 1);
    older.leave();
    let mut publisher = Client::connect(&broker, Version::V5, "publisher");
    publisher.send("32 ['change/x' 0001 [03 'text/plain'] `1`]");
    assert_eq!(publisher.ack(0x40).packet_id, 1);
    let (mut newer, connack) = Client::connect_as(&broker, Version::V5, &Version::V5.resume("changing"));
    assert!(connack.session_present);
    let delivery = newer.delivery();
    assert_eq!((delivery.text(), delivery.properties.text(0x03).as_deref()), ("1", Some("text/plain")));
}

#[test]
fn session_without_expiry_interval_ends_with_its_connection_v5_s3_1_2_11_2() {
    let broker = Broker::start();
    let connect = "10 ['MQTT' 05 00 003c [] 'short']";
    for _ in 0..2 {
        let (mut client, connack) = Client::connect_as(&broker, Version::V5, connect);
        assert!(!connack.session_present);
        client.subscribe("short/#", 1);
        client.leave();
    }
}

#[test]
fn session_ends_when_its_interval_has_passed_v5_4_1_0_2() {
    let broker = Broker::start();
    let connect = "10 ['MQTT' 05 00 003c [11 00000001] 'second']";
    let (client, _) = Client::connect_as(&broker, Version::V5, connect);
    client.leave();
    let mut watch = Client::connect(&broker, Version::V5, "watch");
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Longer than it takes to see that the time is over. Who comes back too early begins it anew.
        watch.expect_silence(Duration::from_millis(2_100));
        let (client, connack) = Client::connect_as(&broker, Version::V5, connect);
        if !connack.session_present {
            break;
        }
        client.leave();
        assert!(Instant::now() < deadline, "the session never ends");
    }
}

#[test]
fn disconnect_may_change_the_expiry_interval_v5_s3_14_2_2_2() {
    let broker = Broker::start();
    // To nothing: the session ends at once.
    let (mut client, _) = Client::connect_as(&broker, Version::V5, &Version::V5.resume("changing"));
    client.send("e0 [00 [11 00000000]]");
    client.expect_closed();
    let (mut client, connack) = Client::connect_as(&broker, Version::V5, &Version::V5.resume("changing"));
    assert!(!connack.session_present);
    // To longer: it stays.
    client.send("e0 [00 [11 00000e10]]");
    client.expect_closed();
    let (client, connack) = Client::connect_as(&broker, Version::V5, &Version::V5.resume("changing"));
    assert!(connack.session_present);
    client.leave();
    Client::connect(&broker, Version::V5, "changing").leave();
    // From nothing to something is a Protocol Error.
    let mut client = Client::connect(&broker, Version::V5, "changing");
    client.send("e0 [00 [11 0000000a]]");
    let code = client.end_of_session();
    assert!(matches!(code, None | Some(0x82)), "{code:02x?}");
    let (_client, connack) = Client::connect_as(&broker, Version::V5, &Version::V5.resume("changing"));
    assert!(!connack.session_present);
}

#[test]
fn takeover_hands_the_session_over_v311_3_1_4_2_v5_3_1_4_3() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let (mut first, _) = Client::connect_as(&broker, version, &version.resume("taken"));
        first.subscribe("taken/#", 1);
        let mut publisher = Client::connect(&broker, version, "publisher");
        publisher.publish_acknowledged("taken/x", "unacknowledged");
        let before = first.delivery();
        let (mut second, connack) = Client::connect_as(&broker, version, &version.resume("taken"));
        assert!(connack.session_present);
        let again = second.delivery();
        assert_eq!((again.dup, again.packet_id), (true, before.packet_id));
        first.expect_end_in_silence(0x8e);
        drop(second);
        Client::connect(&broker, version, "taken").leave();
    }
}

#[test]
fn qos_0_is_not_kept_beyond_what_is_promised_v311_4_1_0_1_v5_4_1_0_1() {
    // What a session away gets at QoS 0 is the Server's choice; it must not displace or reorder the rest.
    let broker = Broker::start();
    for version in Version::BOTH {
        let (mut subscriber, _) = Client::connect_as(&broker, version, &version.resume("mixed"));
        subscriber.subscribe("mixed/#", 1);
        subscriber.leave();
        let mut publisher = Client::connect(&broker, version, "publisher");
        for number in 0..20 {
            publisher.publish("mixed/0", &format!("zero {number}"));
            publisher.publish_acknowledged("mixed/1", &number.to_string());
        }
        let (mut subscriber, _) = Client::connect_as(&broker, version, &version.resume("mixed"));
        let mut numbers = Vec::new();
        while numbers.len() < 20 {
            let delivery = subscriber.delivery();
            if let Some(packet_id) = delivery.packet_id {
                numbers.push(delivery.text().to_owned());
                subscriber.send(&format!("40 [{packet_id:04x}]"));
            }
        }
        assert_eq!(numbers, (0..20).map(|number: u8| number.to_string()).collect::<Vec<_>>());
        drop(subscriber);
        Client::connect(&broker, version, "mixed").leave();
    }
    broker.adds_up();
}
