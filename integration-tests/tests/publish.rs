//! PUBLISH: MQTT 3.1.1 §3.3, MQTT 5.0 §3.3, and topic names of §4.7.

use std::time::Duration;

use integration_tests::{Broker, Client, Version, wire};

#[test]
fn qos_three_is_malformed_v311_3_3_1_4_v5_3_3_1_4() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut client = Client::connect(&broker, version, "three");
        client.send(&format!("36 ['a/b' 0001 {} `x`]", version.no_properties()));
        client.expect_end(0x81);
    }
}

#[test]
fn dup_at_qos_zero_is_malformed_v311_3_3_1_2_v5_3_3_1_2() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut client = Client::connect(&broker, version, "dup");
        client.send(&format!("38 ['a/b' {} `x`]", version.no_properties()));
        client.expect_end(0x81);
    }
}

#[test]
fn packet_identifier_zero_is_a_protocol_error_v311_2_3_1_1_v5_2_2_1_3() {
    let broker = Broker::start();
    for version in Version::BOTH {
        for first in ["32", "34"] {
            let mut client = Client::connect(&broker, version, "zero");
            client.send(&format!("{first} ['a/b' 0000 {} `x`]", version.no_properties()));
            client.expect_end(0x82);
        }
    }
}

#[test]
fn wildcards_in_a_topic_name_are_refused_v311_3_3_2_2_v5_3_3_2_2() {
    let broker = Broker::start();
    for version in Version::BOTH {
        for topic in ["a/+", "#", "a/#", "a+b"] {
            let mut client = Client::connect(&broker, version, "wild");
            client.send(&format!("30 ['{topic}' {} `x`]", version.no_properties()));
            client.expect_end(0x90);
        }
    }
}

#[test]
fn empty_topic_name_is_refused_v311_4_7_3_1_v5_4_7_3_1() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Version::V311, "empty");
    client.send("30 ['' `x`]");
    client.expect_end(0x90);
    // In MQTT 5 it stands for a Topic Alias, and without one it is a Protocol Error (§3.3.2.1).
    let mut client = Client::connect(&broker, Version::V5, "empty");
    client.send("30 ['' [] `x`]");
    client.expect_end(0x82);
}

#[test]
fn topic_names_must_be_utf8_without_nul_v311_1_5_3_1_v5_1_5_4_1() {
    let broker = Broker::start();
    for version in Version::BOTH {
        for bad in ["0003 eda080", "0002 c080", "0001 ff", "0003 610062", "0001 c3"] {
            let mut client = Client::connect(&broker, version, "utf8");
            client.send(&format!("30 [{bad} {} `x`]", version.no_properties()));
            client.expect_end(0x81);
        }
    }
}

#[test]
fn topic_name_that_reaches_past_the_packet_is_malformed_v5_4_13_1_1() {
    let broker = Broker::start();
    for version in Version::BOTH {
        for body in ["30 [00]", "30 [0005 6162]", "32 ['a' 00]"] {
            let mut client = Client::connect(&broker, version, "short");
            client.send(body);
            client.expect_end(0x81);
        }
    }
}

#[test]
fn topics_are_compared_byte_for_byte_v311_4_7_3_4_v5_4_7_3_4() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut client = Client::connect(&broker, version, "bytes");
        // A letter with its accent, and the same text decomposed; upper and lower case; an empty level; a byte order
        // mark, which is a character like any other [MQTT-1.5.3-3, v3.1.1] [MQTT-1.5.4-3, v5].
        client.subscribe("caf\u{e9}", 0);
        for other in ["cafe\u{301}", "Caf\u{e9}", "/caf\u{e9}", "caf\u{e9}/", "\u{feff}caf\u{e9}"] {
            client.publish(other, "another topic");
        }
        client.publish("caf\u{e9}", "the one");
        let delivery = client.delivery();
        assert_eq!((delivery.topic.as_str(), delivery.text()), ("caf\u{e9}", "the one"));
        client.subscribe("\u{feff}/x", 0);
        client.publish("\u{feff}/x", "marked");
        assert_eq!(client.delivery().topic, "\u{feff}/x");
    }
}

#[test]
fn a_topic_name_may_have_65535_bytes_v311_4_7_3_3_v5_4_7_3_3() {
    let broker = Broker::start();
    let topic = "t".repeat(65_535);
    for version in Version::BOTH {
        let mut client = Client::connect(&broker, version, "long");
        client.subscribe(&topic, 0);
        client.publish(&topic, "x");
        assert_eq!(client.delivery().topic, topic);
    }
}

#[test]
fn dup_is_not_passed_on_v311_3_3_1_3_v5_3_3_1_3() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut subscriber = Client::connect(&broker, version, "subscriber");
        subscriber.subscribe("dup/x", 1);
        let mut publisher = Client::connect(&broker, version, "publisher");
        publisher.send(&format!("3a ['dup/x' 0005 {} `again`]", version.no_properties()));
        assert_eq!(publisher.ack(0x40).packet_id, 5);
        let delivery = subscriber.delivery();
        assert_eq!((delivery.dup, delivery.qos, delivery.text()), (false, 1, "again"));
    }
}

#[test]
fn delivery_has_the_lower_qos_v311_3_8_4_6_v5_3_8_4_8() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let properties = version.no_properties();
        let mut publisher = Client::connect(&broker, version, "publisher");
        for granted in 0..3_u8 {
            let mut subscriber = Client::connect(&broker, version, "subscriber");
            subscriber.subscribe("qos/#", granted);
            for published in 0..3_u8 {
                let identifier = if published == 0 { "" } else { "0009" };
                let first = 0x30 | published << 1;
                publisher.send(&format!("{first:02x} ['qos/x' {identifier} {properties} `{published}`]"));
                match published {
                    1 => assert_eq!(publisher.ack(0x40).packet_id, 9),
                    2 => {
                        assert_eq!(publisher.ack(0x50).packet_id, 9);
                        publisher.send("62 [0009]");
                        assert_eq!(publisher.ack(0x70).packet_id, 9);
                    }
                    _ => {}
                }
                let delivery = subscriber.delivery();
                assert_eq!(delivery.qos, published.min(granted), "published {published}, granted {granted}");
                assert_eq!(delivery.packet_id.is_some(), delivery.qos > 0, "[MQTT-2.3.1-5, v3.1.1]");
                assert_eq!(delivery.text(), published.to_string());
            }
        }
    }
}

#[test]
fn messages_of_a_topic_keep_their_order_v311_4_6_0_6_v5_4_6_0_6() {
    let broker = Broker::start();
    for version in Version::BOTH {
        for qos in 0..3_u8 {
            let mut subscriber = Client::connect(&broker, version, "subscriber");
            subscriber.subscribe("order/x", qos);
            let mut publisher = Client::connect(&broker, version, "publisher");
            for window in 0..10_u16 {
                let numbers = window * 20 + 1..=window * 20 + 20;
                let packet = |number: u16| {
                    let identifier = if qos == 0 { String::new() } else { format!("{number:04x}") };
                    let first = 0x30 | qos << 1;
                    format!("{first:02x} ['order/x' {identifier} {} `{number}`]", version.no_properties())
                };
                publisher.send(&numbers.clone().map(packet).collect::<String>());
                // Acknowledgements come in the order of the publishes [MQTT-4.6.0-2, -3, both versions].
                for number in numbers.clone().filter(|_| qos > 0) {
                    assert_eq!(publisher.ack(if qos == 1 { 0x40 } else { 0x50 }).packet_id, number);
                }
                for number in numbers.clone().filter(|_| qos == 2) {
                    publisher.send(&format!("62 [{number:04x}]"));
                    assert_eq!(publisher.ack(0x70).packet_id, number);
                }
                for number in numbers {
                    let delivery = subscriber.delivery();
                    assert_eq!(delivery.text(), number.to_string());
                    let packet_id = delivery.packet_id.unwrap_or(0);
                    match qos {
                        1 => subscriber.send(&format!("40 [{packet_id:04x}]")),
                        2 => subscriber.send(&format!("50 [{packet_id:04x}]")),
                        _ => {}
                    }
                    if qos == 2 {
                        // PUBRELs come in the order of the PUBRECs [MQTT-4.6.0-4, both versions]; messages may lie between.
                        subscriber.release(packet_id);
                    }
                }
            }
        }
    }
}

#[test]
fn properties_are_passed_on_unaltered_v5_3_3_2_4() {
    let broker = Broker::start();
    let mut subscriber = Client::connect(&broker, Version::V5, "subscriber");
    subscriber.subscribe("properties/#", 0);
    let mut older = Client::connect(&broker, Version::V311, "older");
    older.subscribe("properties/#", 0);
    let mut publisher = Client::connect(&broker, Version::V5, "publisher");
    publisher.send(
        "30 ['properties/x' [01 01 08 'answers/to' 09 0003 00ff01 03 'text/plain' 26 'b' '2' 26 'a' '1' 26 'b' '2'] `x`]",
    );
    let delivery = subscriber.delivery();
    let properties = &delivery.properties;
    assert_eq!(properties.number(0x01), Some(1), "Payload Format Indicator [MQTT-3.3.2-4, v5]");
    assert_eq!(properties.text(0x08).as_deref(), Some("answers/to"), "Response Topic [MQTT-3.3.2-15, v5]");
    assert_eq!(properties.one(0x09), Some(&[0, 3, 0, 0xff, 1][..]), "Correlation Data [MQTT-3.3.2-16, v5]");
    assert_eq!(properties.text(0x03).as_deref(), Some("text/plain"), "Content Type [MQTT-3.3.2-20, v5]");
    let user: Vec<_> = properties.all(0x26).map(<[u8]>::to_vec).collect();
    let sent: Vec<_> = ["'b' '2'", "'a' '1'", "'b' '2'"].iter().map(|pair| wire::bytes(pair)).collect();
    assert_eq!(user, sent, "User Properties in their order [MQTT-3.3.2-17, -18, v5]");
    assert_eq!(older.delivery().text(), "x");
}

#[test]
fn publish_properties_are_checked_v5_s3_3_2_3() {
    let broker = Broker::start();
    for (properties, reason_codes) in [
        ("[01 02]", &[0x81, 0x82][..]),      // Payload Format Indicator 2
        ("[01 01 01 01]", &[0x82]),          // twice
        ("[0b 01]", &[0x82]),                // Subscription Identifier from a Client [MQTT-3.3.4-6, v5]
        ("[08 'a/+']", &[0x81, 0x82, 0x90]), // Response Topic with a wildcard [MQTT-3.3.2-14, v5]
        ("[08 0001 ff]", &[0x81]),           // Response Topic that is not UTF-8 [MQTT-3.3.2-13, v5]
        ("[03 0001 ff]", &[0x81]),           // Content Type that is not UTF-8 [MQTT-3.3.2-19, v5]
        ("[11 00000001]", &[0x81, 0x82]),    // Session Expiry Interval belongs to CONNECT
        ("[02 0000]", &[0x81]),              // cut short
    ] {
        let mut client = Client::connect(&broker, Version::V5, "checked");
        client.send(&format!("30 ['a/b' {properties} `x`] c000"));
        let answer = client.packet_or_end();
        assert_ne!(answer.as_deref(), Some(&[0xd0, 0][..]), "{properties} was accepted");
        let code = answer.and_then(|packet| packet.get(2).copied());
        assert!(code.is_some_and(|code| reason_codes.contains(&code)), "{properties}: {code:02x?}");
    }
}

#[test]
fn topic_alias_stands_for_its_topic_v5_3_3_2_12() {
    let broker = Broker::start();
    let mut subscriber = Client::connect(&broker, Version::V5, "subscriber");
    subscriber.subscribe("alias/#", 0);
    let (mut publisher, connack) =
        Client::connect_as(&broker, Version::V5, &Version::V5.connect("publisher"));
    let maximum = connack.properties.number(0x22).expect("a Topic Alias Maximum");
    assert!(maximum >= 2);
    publisher.send(&format!("30 ['alias/one' [23 0001] `1`] 30 ['alias/two' [23 {maximum:04x}] `2`]"));
    publisher.send(&format!("30 ['' [23 0001] `3`] 30 ['' [23 {maximum:04x}] `4`]"));
    // Set anew, and used again.
    publisher.send("30 ['alias/three' [23 0001] `5`] 30 ['' [23 0001] `6`]");
    for (topic, payload) in [
        ("alias/one", "1"),
        ("alias/two", "2"),
        ("alias/one", "3"),
        ("alias/two", "4"),
        ("alias/three", "5"),
        ("alias/three", "6"),
    ] {
        let delivery = subscriber.delivery();
        assert_eq!((delivery.topic.as_str(), delivery.text()), (topic, payload));
        assert_eq!(
            delivery.properties.number(0x23),
            None,
            "no alias to a Client that allows none [MQTT-3.1.2-27, v5]"
        );
    }
}

#[test]
fn topic_alias_zero_or_above_the_maximum_is_invalid_v5_3_3_2_8() {
    let broker = Broker::start();
    let (client, connack) = Client::connect_as(&broker, Version::V5, &Version::V5.connect("alias"));
    let beyond = connack.properties.number(0x22).unwrap_or(0) + 1;
    client.leave();
    // The second is [MQTT-3.3.2-9, v5].
    for alias in ["0000".to_owned(), format!("{beyond:04x}")] {
        let mut client = Client::connect(&broker, Version::V5, "alias");
        client.send(&format!("30 ['a/b' [23 {alias}] `x`]"));
        client.expect_end(0x94);
    }
}

#[test]
fn topic_alias_that_was_never_set_is_a_protocol_error_v5_3_3_2_7() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Version::V5, "unset");
    client.send("30 ['a/b' [23 0001] `x`]");
    client.ping();
    client.leave();
    // The mapping does not outlive its connection [MQTT-3.3.2-7, v5].
    let mut client = Client::connect(&broker, Version::V5, "unset");
    client.send("30 ['' [23 0001] `x`]");
    let code = client.end_of_session();
    assert!(matches!(code, Some(0x82 | 0x94)), "{code:02x?}");
}

#[test]
fn server_aliases_stay_within_what_the_client_allows_v5_3_1_2_26() {
    let broker = Broker::start();
    let (mut subscriber, _) =
        Client::connect_as(&broker, Version::V5, "10 ['MQTT' 05 02 003c [22 0002] 'subscriber']");
    subscriber.subscribe("many/#", 0);
    let mut publisher = Client::connect(&broker, Version::V5, "publisher");
    let mut known = [None, None];
    for round in 0..3 {
        for number in 0..5 {
            let topic = format!("many/{number}");
            publisher.publish(&topic, &format!("{round} {number}"));
            let delivery = subscriber.delivery();
            assert_eq!(delivery.text(), format!("{round} {number}"));
            let alias = delivery.properties.number(0x23);
            let place = alias.map(|alias| usize::try_from(alias - 1).unwrap());
            assert!(place.is_none_or(|place| place < known.len()), "alias {alias:?} of at most 2");
            match (place, delivery.topic.as_str()) {
                (Some(place), "") => assert_eq!(known[place].as_deref(), Some(topic.as_str())),
                (Some(place), given) => known[place] = Some(given.to_owned()),
                (None, _) => {}
            }
            assert!(delivery.topic.is_empty() || delivery.topic == topic, "{delivery:?}");
        }
    }
}

#[test]
fn message_that_expired_is_not_delivered_v5_3_3_2_5() {
    let broker = Broker::start();
    let (mut sleeper, _) = Client::connect_as(&broker, Version::V5, &Version::V5.resume("sleeper"));
    sleeper.subscribe("expiry/#", 1);
    sleeper.leave();
    let mut publisher = Client::connect(&broker, Version::V5, "publisher");
    publisher.send("32 ['expiry/short' 0001 [02 00000001] `gone`]");
    assert_eq!(publisher.ack(0x40).packet_id, 1);
    publisher.send("32 ['expiry/long' 0002 [02 00000064] `kept`]");
    assert_eq!(publisher.ack(0x40).packet_id, 2);
    publisher.expect_silence(Duration::from_millis(2_100));
    let (mut sleeper, connack) = Client::connect_as(&broker, Version::V5, &Version::V5.resume("sleeper"));
    assert!(connack.session_present);
    let delivery = sleeper.delivery();
    assert_eq!((delivery.topic.as_str(), delivery.text()), ("expiry/long", "kept"));
    // What is left of the interval goes along [MQTT-3.3.2-6, v5].
    let left = delivery.properties.number(0x02).expect("a Message Expiry Interval");
    assert!((1..=98).contains(&left), "{left} of 100 seconds left after more than two");
}

#[test]
fn client_that_allows_small_packets_gets_no_larger_one_v5_3_1_2_24() {
    let broker = Broker::start();
    let (mut subscriber, _) =
        Client::connect_as(&broker, Version::V5, "10 ['MQTT' 05 02 003c [27 00000028] 'small']");
    subscriber.subscribe("s/#", 1);
    let mut publisher = Client::connect(&broker, Version::V5, "publisher");
    publisher.publish_acknowledged("s/large", &"x".repeat(100));
    publisher.publish_acknowledged("s/small", "fits");
    // The large one counts as delivered and is gone [MQTT-3.1.2-25, v5].
    assert_eq!(subscriber.delivery().topic, "s/small");
    subscriber.ping();
}

#[test]
fn packet_above_the_servers_maximum_ends_the_connection_v5_3_2_2_15() {
    let broker = Broker::builder().limit("max_packet_size", "\"1KiB\"").start();
    for version in Version::BOTH {
        let (mut client, connack) = Client::connect_as(&broker, version, &version.connect("large"));
        if version == Version::V5 {
            assert_eq!(connack.properties.number(0x27), Some(1_024), "Maximum Packet Size");
        }
        let properties = version.no_properties();
        // The limit counts the whole packet (§2.1.4): 3 bytes of fixed header, 2 of length, the topic and the payload.
        let fits = format!("30 ['t' {properties} `{}`]", "x".repeat(1_024 - 3 - 3 - properties.len() / 2));
        assert_eq!(wire::bytes(&fits).len(), 1_024);
        client.send(&fits);
        client.ping();
        let mut one_more = wire::bytes(&fits);
        one_more.push(b'x');
        one_more[1] += 1;
        client.send_bytes(&one_more);
        client.expect_end(0x95);
    }
}

#[test]
fn receive_maximum_of_the_client_is_kept_v5_3_3_4_9() {
    let broker = Broker::start();
    let (mut subscriber, _) =
        Client::connect_as(&broker, Version::V5, "10 ['MQTT' 05 02 003c [21 0002] 'two']");
    subscriber.subscribe("window/#", 2);
    let mut publisher = Client::connect(&broker, Version::V5, "publisher");
    for number in 0..5 {
        publisher.publish_acknowledged("window/x", &number.to_string());
    }
    let first = subscriber.delivery();
    let second = subscriber.delivery();
    assert_eq!((first.text(), second.text()), ("0", "1"));
    subscriber.ping();
    // QoS 0 is not held up (§4.9).
    subscriber.subscribe("free/#", 0);
    publisher.publish("free/x", "not counted");
    assert_eq!(subscriber.delivery().text(), "not counted");
    subscriber.send(&format!("40 [{:04x}]", first.packet_id.unwrap_or(0)));
    assert_eq!(subscriber.delivery().text(), "2");
    subscriber.ping();
}

#[test]
fn receive_maximum_of_the_server_is_enforced_v5_3_3_4_7() {
    let broker = Broker::builder().limit("receive_maximum", "2").start();
    let (mut client, connack) = Client::connect_as(&broker, Version::V5, &Version::V5.connect("eager"));
    assert_eq!(connack.properties.number(0x21), Some(2), "Receive Maximum");
    client.send("34 ['w/x' 0001 [] `1`] 34 ['w/x' 0002 [] `2`]");
    assert_eq!(client.ack(0x50).packet_id, 1);
    assert_eq!(client.ack(0x50).packet_id, 2);
    client.send("62 [0001]");
    assert_eq!(client.ack(0x70).packet_id, 1);
    // One of two is complete: there is room for one more, and not for two.
    client.send("34 ['w/x' 0003 [] `3`]");
    assert_eq!(client.ack(0x50).packet_id, 3);
    client.send("34 ['w/x' 0004 [] `4`]");
    client.expect_end(0x93);
    broker.adds_up();
}
