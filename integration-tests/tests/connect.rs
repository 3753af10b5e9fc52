//! CONNECT and CONNACK: MQTT 3.1.1 §3.1 and §3.2, MQTT 5.0 §3.1 and §3.2.

use std::time::{Duration, Instant};

use integration_tests::{Broker, Client, Version};

#[test]
fn first_packet_must_be_connect_v311_3_1_0_1_v5_3_1_0_1() {
    let broker = Broker::start();
    for first in
        ["c0 00", "30 ['a/b' `x`]", "82 [0001 'a/b' 00]", "e0 00", "20 [00 00]", "40 [0001]", "f0 00"]
    {
        let mut client = Client::open(&broker, Version::V311);
        client.send(first);
        client.expect_closed();
    }
}

#[test]
fn second_connect_is_a_protocol_error_v311_3_1_0_2_v5_3_1_0_2() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut client = Client::connect(&broker, version, "twice");
        client.send(&version.connect("twice"));
        client.expect_end(0x82);
    }
}

#[test]
fn wrong_protocol_name_is_refused_v311_3_1_2_1_v5_3_1_2_1() {
    let broker = Broker::start();
    for (version, connect) in [
        (Version::V311, "10 ['MQIX' 04 02 003c 'a']"),
        (Version::V311, "10 ['mqtt' 04 02 003c 'a']"),
        (Version::V311, "10 ['MQIsdp' 04 02 003c 'a']"),
        (Version::V5, "10 ['mqtt' 05 02 003c [] 'a']"),
        (Version::V5, "10 ['' 05 02 003c [] 'a']"),
    ] {
        let mut client = Client::open(&broker, version);
        client.send(connect);
        // Which version the Client speaks cannot be known, so an answer would have no agreed form.
        let refusal = client.end_of_refusal();
        assert!(matches!(refusal, None | Some(0x01 | 0x84)), "{connect}: {refusal:02x?}");
    }
}

#[test]
fn unknown_protocol_level_is_refused_by_its_code_v311_3_1_2_2_v5_3_1_2_2() {
    let broker = Broker::start();
    for connect in ["10 ['MQTT' 06 02 003c [] 'a']", "10 ['MQTT' 02 02 003c 'a']"] {
        let mut client = Client::open(&broker, Version::V311);
        client.send(connect);
        let refusal = client.end_of_refusal();
        assert!(matches!(refusal, Some(0x01 | 0x84)), "{connect}: {refusal:02x?}");
    }
}

#[test]
fn reserved_connect_flag_is_malformed_v311_3_1_2_3_v5_3_1_2_3() {
    let broker = Broker::start();
    for (version, connect) in
        [(Version::V311, "10 ['MQTT' 04 03 003c 'a']"), (Version::V5, "10 ['MQTT' 05 03 003c [] 'a']")]
    {
        let mut client = Client::open(&broker, version);
        client.send(connect);
        client.expect_refused(0x81);
    }
}

#[test]
fn will_flags_without_a_will_are_malformed_v311_3_1_2_11_v5_3_1_2_11() {
    let broker = Broker::start();
    // Will QoS 1, Will QoS 2, Will Retain: each without the Will Flag [MQTT-3.1.2-13, -15, v3.1.1] [MQTT-3.1.2-13, v5].
    for flags in ["0a", "12", "22"] {
        for version in Version::BOTH {
            let (level, properties) = level(version);
            let mut client = Client::open(&broker, version);
            client.send(&format!("10 ['MQTT' {level} {flags} 003c {properties} 'a']"));
            client.expect_refused(0x81);
        }
    }
}

#[test]
fn will_qos_three_is_malformed_v311_3_1_2_14_v5_3_1_2_12() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let (level, properties) = level(version);
        let mut client = Client::open(&broker, version);
        client.send(&format!("10 ['MQTT' {level} 1e 003c {properties} 'a' {properties} 'will' 'x']"));
        client.expect_refused(0x81);
    }
}

#[test]
fn password_without_user_name_is_malformed_v311_3_1_2_22() {
    let broker = Broker::start();
    let mut client = Client::open(&broker, Version::V311);
    client.send("10 ['MQTT' 04 42 003c 'a' 'secret']");
    client.expect_refused(0x81);
    // MQTT 5 allows it (§3.1.2.9).
    let mut client = Client::open(&broker, Version::V5);
    client.send("10 ['MQTT' 05 42 003c [] 'a' 'secret']");
    let connack = client.connack();
    assert!(matches!(connack.code, 0 | 0x86 | 0x87), "{connack:?}");
}

#[test]
fn payload_must_hold_what_the_flags_promise_v311_3_1_4_1_v5_3_1_4_1() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let (level, properties) = level(version);
        for (flags, payload) in [
            ("02", String::new()),
            ("06", "'a'".to_owned()),
            ("06", format!("'a' {properties} 'will'")),
            ("82", "'a'".to_owned()),
            ("c2", "'a' 'user'".to_owned()),
            ("02", "'a' 'left over'".to_owned()),
        ] {
            let connect = format!("10 ['MQTT' {level} {flags} 003c {properties} {payload}]");
            let mut client = Client::open(&broker, version);
            client.send(&connect);
            client.expect_refused(0x81);
        }
    }
}

#[test]
fn strings_of_connect_must_be_utf8_v311_1_5_3_1_v5_1_5_4_1() {
    let broker = Broker::start();
    // A Client Identifier, user name and will topic with a lone surrogate, an overlong form, a cut sequence and U+0000.
    for bad in ["0003 eda080", "0002 c080", "0001 c3", "0001 ff", "0001 00"] {
        for version in Version::BOTH {
            let (level, properties) = level(version);
            for connect in [
                format!("10 ['MQTT' {level} 02 003c {properties} {bad}]"),
                format!("10 ['MQTT' {level} 82 003c {properties} 'a' {bad}]"),
                format!("10 ['MQTT' {level} 06 003c {properties} 'a' {properties} {bad} 'x']"),
            ] {
                let mut client = Client::open(&broker, version);
                client.send(&connect);
                client.expect_refused(0x81);
            }
        }
    }
}

#[test]
fn client_identifier_of_1_to_23_letters_and_digits_is_accepted_v311_3_1_3_5_v5_3_1_3_5() {
    let broker = Broker::start();
    for version in Version::BOTH {
        for client_id in ["a", "0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ", "KLMNOPQRSTUVWXYZ"] {
            Client::connect(&broker, version, client_id).leave();
        }
    }
}

#[test]
fn empty_client_identifier_gets_a_unique_one_v311_3_1_3_6_v5_3_1_3_6() {
    let broker = Broker::start();
    let mut first = Client::connect(&broker, Version::V311, "");
    let second = Client::connect(&broker, Version::V311, "");
    // Both live: neither took the other's session over.
    first.ping();
    drop(second);

    let (_one, connack) = Client::connect_as(&broker, Version::V5, &Version::V5.connect(""));
    let (_other, other_connack) = Client::connect_as(&broker, Version::V5, &Version::V5.connect(""));
    let assigned = connack.properties.text(0x12).expect("an Assigned Client Identifier [MQTT-3.1.3-7, v5]");
    assert!(!assigned.is_empty());
    assert_ne!(Some(assigned), other_connack.properties.text(0x12));
}

#[test]
fn empty_client_identifier_with_a_kept_session_is_refused_v311_3_1_3_8() {
    let broker = Broker::start();
    let mut client = Client::open(&broker, Version::V311);
    client.send("10 ['MQTT' 04 00 003c '']");
    client.expect("20 [00 02]");
    client.expect_closed();
}

#[test]
fn client_identifier_is_assigned_for_a_kept_session_v5_3_1_3_7() {
    let broker = Broker::start();
    let (client, connack) =
        Client::connect_as(&broker, Version::V5, "10 ['MQTT' 05 00 003c [11 0000003c] '']");
    let assigned = connack.properties.text(0x12).expect("an Assigned Client Identifier");
    client.leave();
    let (_client, connack) = Client::connect_as(&broker, Version::V5, &Version::V5.resume(&assigned));
    assert!(
        connack.session_present,
        "the session that began without an identifier is found by the assigned one"
    );
}

#[test]
fn session_present_tells_the_truth_v311_3_2_2_1_v5_3_2_2_2() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let present = |connect: &str| {
            let (client, connack) = Client::connect_as(&broker, version, connect);
            client.leave();
            connack.session_present
        };
        let (clean, resume) = (version.connect("present"), version.resume("present"));
        assert!(!present(&resume), "nothing to resume [MQTT-3.2.2-3, v3.1.1] [MQTT-3.2.2-3, v5]");
        assert!(present(&resume), "a kept session [MQTT-3.2.2-2, v3.1.1] [MQTT-3.2.2-3, v5]");
        assert!(!present(&clean), "a clean start [MQTT-3.2.2-1, v3.1.1] [MQTT-3.2.2-2, v5]");
        assert!(!present(&resume), "a clean start discards [MQTT-3.1.2-6, v3.1.1] [MQTT-3.1.2-4, v5]");
        present(&clean);
    }
}

#[test]
fn connack_comes_first_and_once_v311_3_2_0_1_v5_3_2_0_1() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let properties = version.no_properties();
        let mut client = Client::open(&broker, version);
        // All in one write: a Client need not wait for CONNACK (§3.1.4 in both versions).
        client.send(&format!(
            "{} 82 [0001 {properties} 'eager/#' 00] 30 ['eager/x' {properties} `hello`] c0 00",
            version.connect("eager")
        ));
        assert_eq!(client.connack().code, 0);
        assert_eq!(client.ack(0x90).codes, [0]);
        assert_eq!(client.delivery().text(), "hello");
        client.expect("d0 00");
    }
}

#[test]
fn nothing_is_processed_after_a_refused_connect_v311_3_1_4_5_v5_3_1_4_6() {
    let broker = Broker::start();
    let mut watcher = Client::connect(&broker, Version::V311, "watcher");
    watcher.subscribe("refused/#", 0);
    let mut client = Client::open(&broker, Version::V311);
    client.send("10 ['MQTT' 04 00 003c ''] 30 ['refused/x' `must not pass`]");
    client.expect("20 [00 02]");
    client.expect_closed();
    watcher.ping();
}

#[test]
fn takeover_ends_the_older_connection_v311_3_1_4_2_v5_3_1_4_3() {
    let broker = Broker::start();
    for old in Version::BOTH {
        for new in Version::BOTH {
            let mut first = Client::connect(&broker, old, "same");
            let mut second = Client::connect(&broker, new, "same");
            first.expect_end_in_silence(0x8e);
            second.ping();
            second.leave();
        }
    }
}

#[test]
fn silence_beyond_the_keep_alive_ends_the_connection_v311_3_1_2_24_v5_3_1_2_22() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let (level, properties) = level(version);
        let begun = Instant::now();
        let (mut client, _) = Client::connect_as(
            &broker,
            version,
            &format!("10 ['MQTT' {level} 02 0001 {properties} 'silent']"),
        );
        let mut without_limit = Client::connect_as(
            &broker,
            version,
            &format!("10 ['MQTT' {level} 02 0000 {properties} 'for-ever']"),
        )
        .0;
        client.expect_end_in_silence(0x8d);
        assert!(begun.elapsed() >= Duration::from_millis(1_500), "one and a half times the Keep Alive");
        // Keep Alive 0 has no limit (§3.1.2.10).
        without_limit.ping();
    }
}

#[test]
fn mqtt_3_1_and_the_bridge_bit_are_accepted() {
    let broker = Broker::start();
    for connect in [
        "10 ['MQIsdp' 03 02 003c 'old']",
        // What Mosquitto's bridges set in the protocol level.
        "10 ['MQTT' 84 02 003c 'bridge']",
    ] {
        let (mut client, _) = Client::connect_as(&broker, Version::V311, connect);
        client.subscribe("old/#", 1);
        // From somebody else: a bridge gets no own messages back.
        Client::connect(&broker, Version::V311, "publisher").publish("old/x", "1");
        assert_eq!(client.delivery().text(), "1");
        client.ping();
    }
}

#[test]
fn connect_properties_are_checked_v5_s3_1_2_11() {
    let broker = Broker::start();
    for (properties, reason_code) in [
        ("[21 0000]", 0x82),                 // Receive Maximum 0 (§3.1.2.11.3)
        ("[27 00000000]", 0x82),             // Maximum Packet Size 0 (§3.1.2.11.4)
        ("[17 02]", 0x82),                   // Request Problem Information 2 (§3.1.2.11.7)
        ("[19 02]", 0x82),                   // Request Response Information 2 (§3.1.2.11.6)
        ("[11 00000000 11 00000000]", 0x82), // Session Expiry Interval twice (§3.1.2.11.2)
        ("[16 'data']", 0x82),               // Authentication Data without a Method (§3.1.2.11.10)
        ("[01 01]", 0x81),                   // Payload Format Indicator belongs to PUBLISH (§2.2.2.2)
        ("[23 0001]", 0x81),                 // Topic Alias belongs to PUBLISH
        ("[7f 00]", 0x81),                   // no such property
        ("[11 0000]", 0x81),                 // cut short
    ] {
        let mut client = Client::open(&broker, Version::V5);
        client.send(&format!("10 ['MQTT' 05 02 003c {properties} 'a']"));
        let refusal = client.end_of_refusal();
        // A property that is not allowed here may be called either (§4.13.1).
        let allowed = [None, Some(reason_code), Some(0x81), Some(0x82)];
        assert!(allowed.contains(&refusal), "{properties}: {refusal:02x?}");
    }
}

#[test]
fn authentication_method_that_the_server_lacks_is_refused_v5_4_12_0_1() {
    let broker = Broker::start();
    let mut client = Client::open(&broker, Version::V5);
    client.send("10 ['MQTT' 05 02 003c [15 'SCRAM-SHA-1'] 'a']");
    let connack = client.connack();
    assert_eq!((connack.session_present, connack.code), (false, 0x8c));
    client.expect_closed();
}

/// Protocol level and an empty property list, in notation.
fn level(version: Version) -> (&'static str, &'static str) {
    match version {
        Version::V311 => ("04", ""),
        Version::V5 => ("05", "[]"),
    }
}
