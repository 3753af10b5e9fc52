//! SUBSCRIBE and UNSUBSCRIBE: MQTT 3.1.1 §3.8–3.11, MQTT 5.0 §3.8–3.11.

use integration_tests::{Broker, Client, Version};

#[test]
fn subscribe_and_unsubscribe_flags_are_checked_v311_3_8_1_1_v5_3_8_1_1() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let properties = version.no_properties();
        for packet in [
            format!("80 [0001 {properties} 'a/b' 00]"),
            format!("83 [0001 {properties} 'a/b' 00]"),
            // [MQTT-3.10.1-1, both versions]
            format!("a0 [0001 {properties} 'a/b']"),
            format!("a3 [0001 {properties} 'a/b']"),
        ] {
            let mut client = Client::connect(&broker, version, "flags");
            client.send(&packet);
            client.expect_end(0x81);
        }
    }
}

#[test]
fn at_least_one_filter_v311_3_8_3_3_v5_3_8_3_2() {
    let broker = Broker::start();
    for version in Version::BOTH {
        // [MQTT-3.10.3-2, both versions] says it of UNSUBSCRIBE.
        for first in ["82", "a2"] {
            let mut client = Client::connect(&broker, version, "none");
            client.send(&format!("{first} [0001 {}]", version.no_properties()));
            let code = client.end_of_session();
            assert!(version == Version::V311 || matches!(code, Some(0x81 | 0x82)), "{code:02x?}");
        }
    }
}

#[test]
fn packet_identifier_zero_is_a_protocol_error_v311_2_3_1_1_v5_2_2_1_3() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let properties = version.no_properties();
        for packet in [format!("82 [0000 {properties} 'a/b' 00]"), format!("a2 [0000 {properties} 'a/b']")] {
            let mut client = Client::connect(&broker, version, "zero");
            client.send(&packet);
            client.expect_end(0x82);
        }
    }
}

#[test]
fn options_are_checked_v311_3_8_3_4_v5_3_8_3_5() {
    let broker = Broker::start();
    for (version, options) in [
        (Version::V311, "03"),
        (Version::V311, "04"),
        (Version::V311, "81"),
        (Version::V5, "03"), // QoS 3
        (Version::V5, "30"), // Retain Handling 3
        (Version::V5, "40"), // reserved
        (Version::V5, "80"),
    ] {
        let mut client = Client::connect(&broker, version, "options");
        client.send(&format!("82 [0001 {} 'a/b' {options}]", version.no_properties()));
        let code = client.end_of_session();
        assert!(version == Version::V311 || matches!(code, Some(0x81 | 0x82)), "{options}: {code:02x?}");
    }
}

#[test]
fn subscribe_properties_are_checked_v5_s3_8_2_1() {
    let broker = Broker::start();
    for (properties, reason_codes) in [
        ("[0b 00]", &[0x82][..]),      // Subscription Identifier 0 (§3.8.2.1.2)
        ("[0b 01 0b 02]", &[0x82]),    // twice
        ("[0b ffffffff 7f]", &[0x81]), // longer than four bytes
        ("[01 01]", &[0x81, 0x82]),    // Payload Format Indicator belongs to PUBLISH
    ] {
        let mut client = Client::connect(&broker, Version::V5, "properties");
        client.send(&format!("82 [0001 {properties} 'a/b' 00]"));
        let code = client.end_of_session();
        assert!(code.is_some_and(|code| reason_codes.contains(&code)), "{properties}: {code:02x?}");
    }
}

#[test]
fn suback_answers_each_filter_in_order_v311_3_9_3_1_v5_3_9_3_1() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut client = Client::connect(&broker, version, "order");
        client.send(&format!("82 [1234 {} 'a/b' 02 'c/+' 00 'd/#' 01]", version.no_properties()));
        let suback = client.ack(0x90);
        assert_eq!(
            (suback.packet_id, &suback.codes[..]),
            (0x1234, &[2, 0, 1][..]),
            "[MQTT-3.8.4-2, both versions]"
        );
    }
}

#[test]
fn malformed_filters_are_refused_v311_4_7_1_2_v5_4_7_1_1() {
    let broker = Broker::start();
    // `#` is last and alone in its level, `+` alone in its level [MQTT-4.7.1-3, v3.1.1] [MQTT-4.7.1-2, v5].
    for filter in ["#/a", "a/#/b", "a#", "a/b#", "a+", "+a/b", "a/+b", "a/++"] {
        for version in Version::BOTH {
            let mut client = Client::connect(&broker, version, "filters");
            client.send(&format!("82 [0001 {} '{filter}' 00 'good' 00]", version.no_properties()));
            // Either the filter is refused, or the whole packet as malformed and the connection with it.
            match client.refusal_of_filters() {
                None => {}
                Some(codes) => match version {
                    Version::V311 => assert_eq!(codes, [0x80, 0], "{filter}"),
                    Version::V5 => assert_eq!(codes, [0x8f, 0], "{filter}"),
                },
            }
        }
    }
}

#[test]
fn empty_filter_is_refused_v311_4_7_3_1_v5_4_7_3_1() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut client = Client::connect(&broker, version, "empty");
        client.send(&format!("82 [0001 {} '' 00]", version.no_properties()));
        if let Some(codes) = client.refusal_of_filters() {
            assert!(matches!(codes[..], [0x80 | 0x8f]), "{codes:02x?}");
        }
    }
}

#[test]
fn filters_must_be_utf8_without_nul_v311_3_8_3_1_v5_3_8_3_1() {
    let broker = Broker::start();
    for version in Version::BOTH {
        for bad in ["0003 eda080", "0001 ff", "0003 610062"] {
            let mut client = Client::connect(&broker, version, "utf8");
            client.send(&format!("82 [0001 {} {bad} 00]", version.no_properties()));
            client.expect_end(0x81);
            // [MQTT-3.10.3-1, both versions]
            let mut client = Client::connect(&broker, version, "utf8");
            client.send(&format!("a2 [0001 {} {bad}]", version.no_properties()));
            client.expect_end(0x81);
        }
    }
}

#[test]
fn the_same_filter_again_replaces_the_subscription_v311_3_8_4_3_v5_3_8_4_3() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut subscriber = Client::connect(&broker, version, "subscriber");
        let mut publisher = Client::connect(&broker, version, "publisher");
        publisher.send(&format!("33 ['same/x' 0001 {} `kept`]", version.no_properties()));
        assert_eq!(publisher.ack(0x40).packet_id, 1);
        subscriber.subscribe("same/x", 0);
        assert_eq!(subscriber.delivery().qos, 0);
        subscriber.subscribe("same/x", 1);
        // Retained messages come again [MQTT-3.8.4-3, v3.1.1] [MQTT-3.8.4-4, v5], at the new QoS.
        let again = subscriber.delivery();
        assert_eq!((again.retain, again.qos, again.text()), (true, 1, "kept"));
        publisher.publish_acknowledged("same/x", "once");
        let delivery = subscriber.delivery();
        assert_eq!((delivery.qos, delivery.text()), (1, "once"));
        subscriber.ping();
    }
}

#[test]
fn overlapping_subscriptions_deliver_at_the_highest_qos_v311_3_3_5_1_v5_3_3_4_2() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut subscriber = Client::connect(&broker, version, "subscriber");
        subscriber.subscribe("over/#", 0);
        subscriber.subscribe("over/+/x", 1);
        subscriber.subscribe("over/lap/x", 0);
        let mut publisher = Client::connect(&broker, version, "publisher");
        publisher.publish_acknowledged("over/lap/x", "once");
        publisher.publish_acknowledged("over", "end");
        let delivery = subscriber.delivery();
        assert_eq!((delivery.qos, delivery.text()), (1, "once"));
        // One message with the highest QoS is what this Server chose; the specification allows one for each, too.
        assert_eq!(subscriber.delivery().text(), "end");
    }
}

#[test]
fn subscription_identifiers_come_with_the_message_v5_3_3_4_3() {
    let broker = Broker::start();
    let mut subscriber = Client::connect(&broker, Version::V5, "subscriber");
    subscriber.send(
        "82 [0001 [0b 01] 'id/#' 00 'other' 00] 82 [0002 [0b ffffff7f] 'id/+' 01] 82 [0003 [] 'id/x' 00]",
    );
    for _ in 0..3 {
        assert!(subscriber.ack(0x90).codes.iter().all(|&code| code < 3));
    }
    let mut publisher = Client::connect(&broker, Version::V5, "publisher");
    publisher.publish("id/x/y", "one");
    let one = subscriber.delivery();
    assert_eq!(one.properties.all(0x0b).collect::<Vec<_>>(), [&[1][..]]);
    publisher.publish("id/x", "both");
    let both = subscriber.delivery();
    let mut identifiers: Vec<_> = both.properties.all(0x0b).collect();
    identifiers.sort();
    // A single copy carries the identifiers of all that have one [MQTT-3.3.4-4, v5].
    assert_eq!(identifiers, [&[1][..], &[0xff, 0xff, 0xff, 0x7f]]);
    // A new subscription replaces the identifier, or takes it away.
    subscriber.send("82 [0004 [] 'id/#' 00]");
    assert_eq!(subscriber.ack(0x90).codes, [0]);
    publisher.publish("id/x/y", "none");
    assert_eq!(subscriber.delivery().properties.one(0x0b), None);
}

#[test]
fn no_local_keeps_a_clients_own_messages_away_v5_3_8_3_3() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Version::V5, "local");
    client.subscribe("local/#", 0x04);
    let mut other = Client::connect(&broker, Version::V5, "other");
    client.publish_acknowledged("local/x", "own");
    other.publish_acknowledged("local/x", "of another");
    assert_eq!(client.delivery().text(), "of another");
    // Without No Local it comes back.
    client.subscribe("local/#", 0x00);
    client.publish("local/x", "own");
    assert_eq!(client.delivery().text(), "own");
}

#[test]
fn unsubscribe_ends_a_subscription_v311_3_10_4_2_v5_3_10_4_2() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let properties = version.no_properties();
        let mut subscriber = Client::connect(&broker, version, "subscriber");
        subscriber.subscribe("gone/+", 0);
        subscriber.subscribe("gone/x", 0);
        subscriber.subscribe("stays/x", 0);
        // Filters are compared as text, not by what they match [MQTT-3.10.4-1, both versions].
        subscriber.send(&format!("a2 [4321 {properties} 'gone/#' 'gone/+']"));
        let unsuback = subscriber.ack(0xb0);
        assert_eq!(unsuback.packet_id, 0x4321, "[MQTT-3.10.4-4, v3.1.1] [MQTT-3.10.4-5, v5]");
        match version {
            Version::V311 => assert!(unsuback.codes.is_empty()),
            // One Reason Code for each, in order [MQTT-3.11.3-1, v5]: No subscription existed, Success.
            Version::V5 => assert_eq!(unsuback.codes, [0x11, 0]),
        }
        let mut publisher = Client::connect(&broker, version, "publisher");
        publisher.publish("gone/y", "not this");
        publisher.publish("gone/x", "still by the other");
        publisher.publish("stays/x", "this");
        assert_eq!(subscriber.delivery().text(), "still by the other");
        assert_eq!(subscriber.delivery().text(), "this");
        // An answer even where nothing matched [MQTT-3.10.4-5, both versions].
        subscriber.send(&format!("a2 [0002 {properties} 'never']"));
        assert_eq!(subscriber.ack(0xb0).packet_id, 2);
    }
}

#[test]
fn deliveries_that_began_are_completed_after_unsubscribe_v311_3_10_4_3_v5_3_10_4_3() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let properties = version.no_properties();
        let (mut subscriber, _) = Client::connect_as(&broker, version, &version.resume("subscriber"));
        subscriber.subscribe("begun/x", 1);
        let mut publisher = Client::connect(&broker, version, "publisher");
        publisher.publish_acknowledged("begun/x", "begun");
        let begun = subscriber.delivery();
        subscriber.send(&format!("a2 [0001 {properties} 'begun/x']"));
        assert_eq!(subscriber.ack(0xb0).packet_id, 1);
        subscriber.drop_connection();
        let (mut subscriber, _) = Client::connect_as(&broker, version, &version.resume("subscriber"));
        let again = subscriber.delivery();
        assert_eq!((again.dup, again.packet_id), (true, begun.packet_id));
        subscriber.send(&format!("40 [{:04x}]", again.packet_id.unwrap_or(0)));
        subscriber.ping();
        Client::connect(&broker, version, "subscriber").leave();
    }
}
