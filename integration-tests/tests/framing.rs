//! Fixed headers, PINGREQ, DISCONNECT, AUTH and packets that a Client must not send: §2 of both versions.

use integration_tests::{Broker, Client, Version, wire};

#[test]
fn pingreq_is_answered_v311_3_12_4_1_v5_3_12_4_1() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut client = Client::connect(&broker, version, "ping");
        client.send("c000 c000 c000");
        for _ in 0..3 {
            client.expect("d000");
        }
    }
}

#[test]
fn packets_of_the_server_are_protocol_errors_v311_4_8_0_1_v5_4_13_1_1() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let properties = version.no_properties();
        for packet in [
            format!("20 [00 00 {properties}]"),
            format!("90 [0001 {properties} 00]"),
            match version {
                Version::V311 => "b0 [0001]".to_owned(),
                Version::V5 => "b0 [0001 [] 00]".to_owned(),
            },
            "d0 []".to_owned(),
        ] {
            let mut client = Client::connect(&broker, version, "server");
            client.send(&packet);
            client.expect_end(0x82);
        }
    }
}

#[test]
fn packet_types_that_do_not_exist_are_malformed_v311_2_2_2_2_v5_2_1_3_1() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut client = Client::connect(&broker, version, "zero");
        client.send("00 00");
        client.expect_end(0x81);
    }
    // Type 15 is AUTH in MQTT 5 and reserved before.
    let mut client = Client::connect(&broker, Version::V311, "fifteen");
    client.send("f0 00");
    client.expect_closed();
}

#[test]
fn reserved_flags_of_the_fixed_header_are_malformed_v311_2_2_2_2_v5_2_1_3_1() {
    let broker = Broker::start();
    for version in Version::BOTH {
        // PINGREQ and DISCONNECT [MQTT-3.14.1-1, both versions].
        for packet in ["c1 00", "c8 00", "e1 00", "e2 00"] {
            let mut client = Client::connect(&broker, version, "flags");
            client.send(packet);
            client.expect_end(0x81);
        }
    }
    let mut client = Client::open(&broker, Version::V311);
    client.send("11 ['MQTT' 04 02 003c 'a']");
    client.expect_closed();
}

#[test]
fn remaining_length_of_five_bytes_is_malformed_v311_s2_2_3_v5_s1_5_5() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut client = Client::connect(&broker, version, "five");
        client.send("30 ffffffff 01");
        client.expect_end(0x81);
        let mut client = Client::open(&broker, version);
        client.send("10 ffffffff 01");
        client.expect_refused(0x81);
    }
}

#[test]
fn remaining_length_must_be_minimal_v5_1_5_5_1() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Version::V5, "overlong");
    client.send("c0 8000");
    client.expect_end(0x81);
}

#[test]
fn bodies_of_bodiless_packets_are_malformed_v311_4_8_0_1_v5_4_13_1_1() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut client = Client::connect(&broker, version, "body");
        client.send("c0 [00]");
        client.expect_end(0x81);
    }
    let mut client = Client::connect(&broker, Version::V311, "body");
    client.send("e0 [00]");
    client.expect_end(0x81);
}

#[test]
fn packets_arrive_in_any_pieces() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut client = Client::open(&broker, version);
        let properties = version.no_properties();
        let stream = wire::bytes(&format!(
            "{} 82 [0001 {properties} 'bits/#' 00] 30 ['bits/x' {properties} `{}`] c000",
            version.connect("bits"),
            "payload".repeat(50)
        ));
        for byte in stream {
            client.send_bytes(&[byte]);
        }
        assert_eq!(client.connack().code, 0);
        assert_eq!(client.ack(0x90).codes, [0]);
        assert_eq!(client.delivery().text(), "payload".repeat(50));
        client.expect("d000");
    }
}

#[test]
fn disconnect_ends_the_connection_v311_s3_14_4_v5_s3_14_4() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut watcher = Client::connect(&broker, version, "watcher");
        watcher.subscribe("after/#", 0);
        let mut client = Client::connect(&broker, version, "leaving");
        // What comes after DISCONNECT does not count.
        client.send(&format!("e000 30 ['after/x' {} `must not pass`]", version.no_properties()));
        client.expect_closed();
        watcher.ping();
    }
}

#[test]
fn auth_without_an_authentication_method_is_a_protocol_error_v5_4_12_0_7() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Version::V5, "auth");
    client.send("f0 [18 [15 'PLAIN']]");
    client.expect_end(0x82);
}

#[test]
fn no_disconnect_before_a_successful_connack_v5_3_14_0_1() {
    let broker = Broker::start();
    for first in ["c000", "30 ['a' [] `x`]", "f0 [18 [15 'PLAIN']]", "00 00"] {
        let mut client = Client::open(&broker, Version::V5);
        client.send(first);
        client.expect_refused(0x82);
    }
}
