//! PUBACK, PUBREC, PUBREL, PUBCOMP and delivery again: MQTT 3.1.1 §3.4–3.7, §4.3, §4.4; MQTT 5.0 the same.

use integration_tests::{Broker, Client, Version};

#[test]
fn qos_1_is_acknowledged_with_its_identifier_v311_4_3_2_2_v5_4_3_2_4() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut client = Client::connect(&broker, version, "one");
        for packet_id in ["0001", "00ff", "ffff", "0001"] {
            client.send(&format!("32 ['q1/x' {packet_id} {} `x`]", version.no_properties()));
            let puback = client.ack(0x40);
            assert_eq!(
                format!("{:04x}", puback.packet_id),
                packet_id,
                "[MQTT-2.3.1-6, v3.1.1] [MQTT-2.2.1-5, v5]"
            );
            assert!(version == Version::V311 || matches!(puback.codes[..], [0 | 0x10]), "{puback:?}");
        }
    }
}

#[test]
fn qos_2_is_delivered_once_v311_4_3_3_2_v5_4_3_3_10() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let properties = version.no_properties();
        let mut subscriber = Client::connect(&broker, version, "subscriber");
        subscriber.subscribe("q2/x", 0);
        let mut publisher = Client::connect(&broker, version, "publisher");
        publisher.send(&format!("34 ['q2/x' 0003 {properties} `first`]"));
        assert_eq!(publisher.ack(0x50).packet_id, 3);
        // The same identifier before PUBREL is the same message, however often it comes.
        for _ in 0..3 {
            publisher.send(&format!("3c ['q2/x' 0003 {properties} `first`]"));
            assert_eq!(publisher.ack(0x50).packet_id, 3);
        }
        publisher.send("62 [0003]");
        assert_eq!(publisher.ack(0x70).packet_id, 3);
        // After it, it is a new one [MQTT-4.3.3-12, v5].
        publisher.send(&format!("34 ['q2/x' 0003 {properties} `second`]"));
        assert_eq!(publisher.ack(0x50).packet_id, 3);
        publisher.send("62 [0003]");
        assert_eq!(publisher.ack(0x70).packet_id, 3);
        assert_eq!(subscriber.delivery().text(), "first");
        assert_eq!(subscriber.delivery().text(), "second");
        subscriber.ping();
    }
}

#[test]
fn pubrel_again_gets_pubcomp_again_v311_4_3_3_2_v5_4_3_3_11() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut client = Client::connect(&broker, version, "again");
        client.send(&format!("34 ['q2/x' 0003 {} `x`]", version.no_properties()));
        assert_eq!(client.ack(0x50).packet_id, 3);
        client.send("62 [0003]");
        assert_eq!(client.ack(0x70).codes.first().copied().unwrap_or(0), 0);
        client.send("62 [0003]");
        let pubcomp = client.ack(0x70);
        assert_eq!(pubcomp.packet_id, 3);
        // MQTT 5 says that the identifier is not known (§3.7.2.1).
        assert!(version == Version::V311 || pubcomp.codes == [0x92], "{pubcomp:?}");
    }
}

#[test]
fn exactly_once_survives_a_reconnect_v311_4_4_0_1_v5_4_4_0_1() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let properties = version.no_properties();
        let mut subscriber = Client::connect(&broker, version, "subscriber");
        subscriber.subscribe("q2/#", 0);
        let (mut publisher, _) = Client::connect_as(&broker, version, &version.resume("publisher"));
        publisher.send(&format!("34 ['q2/x' 0003 {properties} `once`]"));
        assert_eq!(publisher.ack(0x50).packet_id, 3);
        publisher.drop_connection();
        let (mut publisher, connack) = Client::connect_as(&broker, version, &version.resume("publisher"));
        assert!(connack.session_present);
        // The publisher cannot know whether PUBREC was sent, and sends the message again.
        publisher.send(&format!("3c ['q2/x' 0003 {properties} `once`]"));
        assert_eq!(publisher.ack(0x50).packet_id, 3);
        publisher.send("62 [0003]");
        assert_eq!(publisher.ack(0x70).packet_id, 3);
        assert_eq!(subscriber.delivery().text(), "once");
        subscriber.ping();
        Client::connect(&broker, version, "publisher").leave();
    }
}

#[test]
fn unacknowledged_qos_1_comes_again_with_dup_v311_4_4_0_1_v5_4_4_0_1() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let (mut subscriber, _) = Client::connect_as(&broker, version, &version.resume("subscriber"));
        subscriber.subscribe("again/#", 1);
        let mut publisher = Client::connect(&broker, version, "publisher");
        for payload in ["first", "second", "third"] {
            publisher.publish_acknowledged("again/x", payload);
        }
        let first = subscriber.delivery();
        let second = subscriber.delivery();
        let third = subscriber.delivery();
        assert_eq!((first.dup, second.dup, third.dup), (false, false, false));
        subscriber.send(&format!("40 [{:04x}]", first.packet_id.unwrap_or(0)));
        subscriber.ping();
        subscriber.drop_connection();

        let (mut subscriber, connack) = Client::connect_as(&broker, version, &version.resume("subscriber"));
        assert!(connack.session_present);
        for before in [second, third] {
            let again = subscriber.delivery();
            assert_eq!(again.text(), before.text(), "in the order of the first time [MQTT-4.6.0-1]");
            assert!(again.dup, "[MQTT-3.3.1-1, both versions]");
            assert_eq!(again.packet_id, before.packet_id, "the same Packet Identifier");
            subscriber.send(&format!("40 [{:04x}]", again.packet_id.unwrap_or(0)));
        }
        subscriber.ping();
        Client::connect(&broker, version, "subscriber").leave();
    }
}

#[test]
fn unfinished_qos_2_goes_on_where_it_stood_v311_4_4_0_1_v5_4_4_0_1() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let (mut subscriber, _) = Client::connect_as(&broker, version, &version.resume("subscriber"));
        subscriber.subscribe("again/#", 2);
        let mut publisher = Client::connect(&broker, version, "publisher");
        let properties = version.no_properties();
        for (packet_id, payload) in [("0001", "first"), ("0002", "second")] {
            publisher.send(&format!("34 ['again/x' {packet_id} {properties} `{payload}`] 62 [{packet_id}]"));
            assert_eq!(publisher.ack(0x50).packet_id, publisher.ack(0x70).packet_id);
        }
        let first = subscriber.delivery();
        let second = subscriber.delivery();
        let first_id = first.packet_id.unwrap_or(0);
        subscriber.send(&format!("50 [{first_id:04x}]"));
        subscriber.expect(&format!("62 [{first_id:04x}]"));
        subscriber.drop_connection();

        let (mut subscriber, _) = Client::connect_as(&broker, version, &version.resume("subscriber"));
        // The first awaits PUBCOMP, so its PUBREL comes again; the second awaits PUBREC, so the message does.
        let (mut released, mut delivered) = (false, false);
        for _ in 0..2 {
            let packet = subscriber.packet();
            match packet[0] {
                0x62 => {
                    assert_eq!(packet[2..4], first_id.to_be_bytes());
                    released = true;
                }
                0x3c => {
                    assert!(packet.ends_with(b"second"), "{packet:02x?}");
                    delivered = true;
                }
                other => panic!("{other:02x} came"),
            }
        }
        assert!(released && delivered);
        let second_id = second.packet_id.unwrap_or(0);
        subscriber.send(&format!("70 [{first_id:04x}] 50 [{second_id:04x}]"));
        subscriber.expect(&format!("62 [{second_id:04x}]"));
        subscriber.send(&format!("70 [{second_id:04x}]"));
        subscriber.ping();
        Client::connect(&broker, version, "subscriber").leave();
    }
}

#[test]
fn nothing_comes_again_while_the_connection_lives_v5_4_4_0_1() {
    let broker = Broker::start();
    let mut subscriber = Client::connect(&broker, Version::V5, "subscriber");
    subscriber.subscribe("again/#", 1);
    let mut publisher = Client::connect(&broker, Version::V5, "publisher");
    publisher.publish_acknowledged("again/x", "first");
    assert_eq!(subscriber.delivery().text(), "first");
    publisher.publish_acknowledged("again/x", "second");
    assert_eq!(subscriber.delivery().text(), "second");
    subscriber.ping();
}

#[test]
fn refusal_by_the_subscriber_ends_the_delivery_v5_4_4_0_2() {
    let broker = Broker::start();
    let (mut subscriber, _) = Client::connect_as(&broker, Version::V5, &Version::V5.resume("subscriber"));
    subscriber.subscribe("refused/#", 2);
    let mut publisher = Client::connect(&broker, Version::V5, "publisher");
    publisher.publish_acknowledged("refused/1", "x");
    publisher.send("34 ['refused/2' 0001 [] `y`] 62 [0001]");
    assert_eq!(publisher.ack(0x50).packet_id, publisher.ack(0x70).packet_id);
    // PUBACK and PUBREC with 0x80 (Unspecified error).
    let at_qos_1 = subscriber.delivery();
    subscriber.send(&format!("40 [{:04x} 80]", at_qos_1.packet_id.unwrap_or(0)));
    let at_qos_2 = subscriber.delivery();
    subscriber.send(&format!("50 [{:04x} 80]", at_qos_2.packet_id.unwrap_or(0)));
    subscriber.ping();
    subscriber.drop_connection();
    let (mut subscriber, connack) =
        Client::connect_as(&broker, Version::V5, &Version::V5.resume("subscriber"));
    assert!(connack.session_present);
    subscriber.ping();
}

#[test]
fn pubrec_of_an_unknown_identifier_is_answered_v5_s3_6_2_1() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Version::V5, "unknown");
    client.send("50 [0007]");
    let pubrel = client.ack(0x62);
    assert_eq!((pubrel.packet_id, &pubrel.codes[..]), (7, &[0x92][..]), "Packet Identifier not found");
    client.ping();
}

#[test]
fn acknowledgements_of_unknown_identifiers_do_no_harm() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut client = Client::connect(&broker, version, "unknown");
        client.send("40 [0007] 70 [0008]");
        client.ping();
    }
}

#[test]
fn reserved_flags_of_acknowledgements_are_malformed_v311_2_2_2_2_v5_2_1_3_1() {
    let broker = Broker::start();
    for version in Version::BOTH {
        // PUBREL must carry 0010 [MQTT-3.6.1-1, both versions], the others 0000.
        for packet in ["41 [0001]", "42 [0001]", "52 [0001]", "60 [0001]", "63 [0001]", "72 [0001]"] {
            let mut client = Client::connect(&broker, version, "flags");
            client.send(packet);
            client.expect_end(0x81);
        }
    }
}

#[test]
fn acknowledgements_of_a_wrong_length_are_malformed_v311_4_8_0_1_v5_4_13_1_1() {
    let broker = Broker::start();
    for packet in ["40 []", "40 [00]", "50 [00]", "62 [00]", "70 [00]"] {
        for version in Version::BOTH {
            let mut client = Client::connect(&broker, version, "length");
            client.send(packet);
            client.expect_end(0x81);
        }
    }
    for packet in ["40 [0001 00]", "62 [0001 00 00]"] {
        let mut client = Client::connect(&broker, Version::V311, "length");
        client.send(packet);
        client.expect_end(0x81);
    }
}
