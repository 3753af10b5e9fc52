//! What hostile or careless clients send. Each time the broker must be alive afterwards, for everybody.

use std::time::{Duration, Instant};

use integration_tests::{Broker, Client, PATIENCE, Version, wire};

/// Asserts that clients of both versions can connect, subscribe and get a message.
#[track_caller]
fn assert_alive(broker: &Broker) {
    for version in Version::BOTH {
        let mut client = Client::connect(broker, version, "after the attack");
        client.subscribe("alive/#", 1);
        client.publish("alive/x", "yes");
        assert_eq!(client.delivery().text(), "yes");
        client.leave();
    }
}

#[test]
fn topics_beyond_ascii_with_every_kind_of_subscription() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut subscriber = Client::connect(&broker, version, "subscriber");
        for filter in ["t", "+/x", "#", "\u{e9}/#", "\u{e9}/x", "$share/g/\u{e9}/x"] {
            subscriber.subscribe(filter, 0);
        }
        let mut publisher = Client::connect(&broker, version, "publisher");
        publisher.publish("\u{e9}/x", "1");
        publisher.publish("\u{1f600}", "2");
        let mut topics = Vec::new();
        while !topics.contains(&"\u{1f600}".to_owned()) {
            topics.push(subscriber.delivery().topic);
        }
        assert!(topics.contains(&"\u{e9}/x".to_owned()));
    }
    assert_alive(&broker);
}

#[test]
fn malformed_shared_filters() {
    let broker = Broker::start();
    for version in Version::BOTH {
        for filter in ["$share//x", "$share/", "$share", "$share/\u{e9}", "$share/a/", "$share/+/x"] {
            let mut client = Client::connect(&broker, version, "shared");
            client.send(&format!("82 [0001 {} '{filter}' 01]", version.no_properties()));
            if let Some(codes) = client.refusal_of_filters() {
                assert!(matches!(codes[..], [0x80 | 0x8f]), "{filter}: {codes:02x?}");
            }
        }
    }
    assert_alive(&broker);
}

#[test]
fn packets_that_only_a_server_sends_before_and_after_connect() {
    let broker = Broker::start();
    for version in Version::BOTH {
        for packet in ["20 [00 00]", "20 [00 00 []]", "90 [0001 00]", "b0 [0001]", "d000"] {
            let mut client = Client::open(&broker, version);
            client.send(packet);
            client.expect_refused(0x82);
            let mut client = Client::connect(&broker, version, "server");
            client.send(packet);
            let _either_code = client.end_of_session();
        }
    }
    assert_alive(&broker);
}

#[test]
fn lengths_that_promise_more_than_the_limit() {
    let broker = Broker::start();
    let before = broker.resident_bytes();
    // 200 connections each promise a packet of 256 MiB, before and after CONNECT, and send little of it.
    for version in Version::BOTH {
        for number in 0..50 {
            let mut client = Client::open(&broker, version);
            client.send("10 ffffff7f 0004");
            client.expect_refused(0x95);
            let mut client = Client::connect(&broker, version, &format!("large {number}"));
            client.send("30 ffffff7f 0001");
            client.expect_end(0x95);
        }
    }
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "memory grew by {grown} bytes");
    assert_alive(&broker);
}

#[test]
fn connections_that_stop_in_the_middle_of_a_packet() {
    let broker = Broker::start();
    let files = broker.open_files();
    for version in Version::BOTH {
        let connect = wire::bytes(&version.connect("cut"));
        for end in 0..connect.len() {
            let mut client = Client::open(&broker, version);
            client.send_bytes(&connect[..end]);
            client.drop_connection();
        }
        let publish = wire::bytes(&format!("32 ['a/b' 0001 {} `payload`]", version.no_properties()));
        for end in 0..publish.len() {
            let mut client = Client::connect(&broker, version, "cut");
            client.send_bytes(&publish[..end]);
            client.drop_connection();
        }
    }
    assert_alive(&broker);
    assert_files_return(&broker, files);
}

/// Asserts that the broker comes back to about this number of open files: connections leave nothing behind.
#[track_caller]
fn assert_files_return(broker: &Broker, before: usize) {
    let deadline = Instant::now() + PATIENCE;
    while broker.open_files() > before + 2 {
        assert!(Instant::now() < deadline, "{} files open, {before} before", broker.open_files());
        // A round trip takes the time that the broker needs to see the last connections end.
        Client::connect(broker, Version::V5, "waiting").leave();
    }
}

#[test]
fn random_bytes_before_and_after_connect() {
    let broker = Broker::start();
    // SplitMix64 from a fixed seed: the same bytes in every run.
    let mut state = 0x7469_6465_6761_7465_u64;
    let mut random = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    for round in 0..300_u32 {
        let version = if round % 2 == 0 { Version::V311 } else { Version::V5 };
        let length = random() % 64 + 1;
        let mut bytes: Vec<u8> = (0..length).flat_map(|_| random().to_be_bytes()).collect();
        // Half of them begin with a fixed header that is believed.
        if round % 4 < 2 {
            bytes[0] = [0x10, 0x30, 0x32, 0x34, 0x82, 0xa2, 0x62, 0xe0, 0xf0][usize::from(bytes[0]) % 9];
            bytes[1] %= 0x80;
        }
        let mut client = Client::open(&broker, version);
        if round % 3 > 0 {
            client.send(&version.connect(&format!("random {round}")));
            assert_eq!(client.connack().code, 0);
        }
        client.send_to_a_closing_broker(&bytes);
        client.drop_connection();
    }
    assert_alive(&broker);
}

#[test]
fn a_client_that_never_reads_holds_nobody_up() {
    let broker = Broker::start();
    let mut stuck = Client::connect(&broker, Version::V5, "stuck");
    stuck.subscribe("flood/#", 0);
    let mut reading = Client::connect(&broker, Version::V5, "reading");
    reading.subscribe("flood/last", 1);
    let before = broker.resident_bytes();
    let mut publisher = Client::connect(&broker, Version::V5, "publisher");
    let payload = "x".repeat(16_384);
    let packet = wire::bytes(&format!("30 ['flood/x' [] `{payload}`]"));
    // 160 MiB for a client that does not read. The others' pace is not its own.
    let deadline = Instant::now() + 2 * PATIENCE;
    for sent in 0..10_240 {
        publisher.send_bytes(&packet);
        assert!(Instant::now() < deadline, "the publisher got rid of {sent} of 10,240 messages");
    }
    publisher.publish_acknowledged("flood/last", "arrived");
    assert_eq!(reading.delivery().text(), "arrived");
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown < 100 << 20, "the broker keeps {grown} bytes for a client that does not read");
    assert_alive(&broker);
}

#[test]
fn a_thousand_takeovers_leave_one_owner() {
    let broker = Broker::start();
    let files = broker.open_files();
    let mut owner = Client::connect_as(&broker, Version::V5, &Version::V5.resume("contested")).0;
    owner.subscribe("contested/#", 1);
    for round in 0..1_000_u32 {
        let version = if round % 2 == 0 { Version::V311 } else { Version::V5 };
        let (next, connack) = Client::connect_as(&broker, version, &version.resume("contested"));
        assert!(connack.session_present, "round {round}");
        owner.expect_end_in_silence(0x8e);
        owner = next;
    }
    // The subscription came along, and only the last owner gets the message.
    let mut publisher = Client::connect(&broker, Version::V5, "publisher");
    publisher.publish_acknowledged("contested/x", "for the last");
    assert_eq!(owner.delivery().text(), "for the last");
    drop((owner, publisher));
    assert_files_return(&broker, files);
    assert_alive(&broker);
}

#[test]
fn deep_topics_are_refused_or_work() {
    let broker = Broker::start();
    let deep = ["/"; 60_000].concat();
    for version in Version::BOTH {
        let properties = version.no_properties();
        for packet in [
            format!("30 ['{deep}' {properties} `x`]"),
            format!("82 [0001 {properties} '{deep}' 00]"),
            format!("82 [0001 {properties} '{deep}#' 00]"),
        ] {
            let mut client = Client::connect(&broker, version, "deep");
            client.send(&packet);
            client.send_to_a_closing_broker(&wire::bytes("c000"));
            // Any answer will do; an answer there must be.
            let _answer = client.packet_or_end();
        }
    }
    assert_alive(&broker);
}

#[test]
fn a_connection_that_says_nothing_is_closed() {
    let broker = Broker::builder().limit("connect_timeout", "\"1s\"").start();
    for version in Version::BOTH {
        let mut client = Client::open(&broker, version);
        client.expect_closed();
        // Dribbling does not help.
        let mut client = Client::open(&broker, version);
        client.send("10");
        client.expect_refused(0x81);
    }
    // The limit concerns the time until CONNECT alone.
    let mut client = Client::connect_in_time(&broker, Version::V5, "patient");
    client.expect_silence(Duration::from_millis(1_300));
    client.ping();
}
