//! Will messages: MQTT 3.1.1 §3.1.2.5, MQTT 5.0 §3.1.2.5 and §3.1.3.2.

use std::time::{Duration, Instant};

use integration_tests::{Broker, Client, PATIENCE, Version};

/// A CONNECT with a will on `will/<client_id>`; `flags` without Clean Start.
fn connect(version: Version, client_id: &str, flags: u8, keep_alive: &str) -> String {
    let flags = flags | 0x06;
    match version {
        Version::V311 => {
            format!("10 ['MQTT' 04 {flags:02x} {keep_alive} '{client_id}' 'will/{client_id}' 'gone']")
        }
        Version::V5 => {
            format!("10 ['MQTT' 05 {flags:02x} {keep_alive} [] '{client_id}' [] 'will/{client_id}' 'gone']")
        }
    }
}

#[test]
fn will_is_published_when_the_connection_breaks_v311_3_1_2_8_v5_3_1_2_8() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut watcher = Client::connect(&broker, version, "watcher");
        watcher.subscribe("will/#", 2);
        for (flags, qos) in [(0x00, 0), (0x08, 1), (0x10, 2)] {
            let (client, _) =
                Client::connect_as(&broker, version, &connect(version, "mortal", flags, "003c"));
            client.drop_connection();
            let will = watcher.delivery();
            assert_eq!((will.topic.as_str(), will.text()), ("will/mortal", "gone"));
            assert_eq!((will.qos, will.retain), (qos, false));
            if qos == 1 {
                watcher.send(&format!("40 [{:04x}]", will.packet_id.unwrap_or(0)));
            }
        }
    }
}

#[test]
fn will_is_published_at_a_protocol_error_v311_3_1_2_8_v5_3_1_2_8() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut watcher = Client::connect(&broker, version, "watcher");
        watcher.subscribe("will/#", 0);
        let (mut client, _) = Client::connect_as(&broker, version, &connect(version, "rude", 0, "003c"));
        client.send(&version.connect("rude"));
        client.expect_end(0x82);
        assert_eq!(watcher.delivery().text(), "gone");
    }
}

#[test]
fn will_is_published_when_the_keep_alive_runs_out_v311_3_1_2_24_v5_3_1_2_22() {
    let broker = Broker::start();
    let mut watcher = Client::connect(&broker, Version::V5, "watcher");
    watcher.subscribe("will/#", 0);
    let (_silent, _) = Client::connect_as(&broker, Version::V5, &connect(Version::V5, "silent", 0, "0001"));
    assert_eq!(watcher.delivery().text(), "gone");
}

#[test]
fn will_is_published_at_takeover_v5_3_1_4_3() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut watcher = Client::connect(&broker, version, "watcher");
        watcher.subscribe("will/#", 0);
        let (_first, _) = Client::connect_as(&broker, version, &connect(version, "taken", 0, "003c"));
        let _second = Client::connect(&broker, version, "taken");
        assert_eq!(watcher.delivery().text(), "gone");
    }
}

#[test]
fn disconnect_discards_the_will_v311_3_14_4_3_v5_3_14_4_3() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut watcher = Client::connect(&broker, version, "watcher");
        watcher.subscribe("will/#", 0);
        let (client, _) = Client::connect_as(&broker, version, &connect(version, "polite", 0, "003c"));
        client.leave();
        // A second one that breaks shows that the first has passed.
        let (client, _) = Client::connect_as(&broker, version, &connect(version, "impolite", 0, "003c"));
        client.drop_connection();
        assert_eq!(watcher.delivery().topic, "will/impolite");
    }
}

#[test]
fn disconnect_may_ask_for_the_will_v5_s3_14_2_1() {
    let broker = Broker::start();
    let mut watcher = Client::connect(&broker, Version::V5, "watcher");
    watcher.subscribe("will/#", 0);
    let (mut client, _) =
        Client::connect_as(&broker, Version::V5, &connect(Version::V5, "asking", 0, "003c"));
    client.send("e0 [04]");
    client.expect_closed();
    assert_eq!(watcher.delivery().topic, "will/asking");
}

#[test]
fn will_may_be_retained_v311_3_1_2_17_v5_3_1_2_15() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut watcher = Client::connect(&broker, version, "watcher");
        watcher.subscribe("will/#", 0);
        let (client, _) = Client::connect_as(&broker, version, &connect(version, "kept", 0x20, "003c"));
        client.drop_connection();
        // To a subscription that was there before, it is a message like any other.
        let live = watcher.delivery();
        assert_eq!((live.retain, live.text()), (false, "gone"));
        let mut late = Client::connect(&broker, version, "late");
        late.subscribe("will/kept", 0);
        let kept = late.delivery();
        assert_eq!((kept.retain, kept.text()), (true, "gone"));
        late.leave();
        let mut cleaner = Client::connect(&broker, version, "cleaner");
        cleaner.send(&format!("31 ['will/kept' {}]", version.no_properties()));
        cleaner.ping();
    }
}

#[test]
fn will_carries_its_properties_v5_3_1_3_10() {
    let broker = Broker::start();
    let mut watcher = Client::connect(&broker, Version::V5, "watcher");
    watcher.subscribe("will/#", 0);
    let (client, _) = Client::connect_as(
        &broker,
        Version::V5,
        "10 ['MQTT' 05 06 003c [] 'rich' [01 01 03 'text/plain' 08 'answer' 09 0001 07 26 'b' '1' 26 'a' '2'] 'will/rich' 'gone']",
    );
    client.drop_connection();
    let will = watcher.delivery();
    assert_eq!(will.properties.number(0x01), Some(1));
    assert_eq!(will.properties.text(0x03).as_deref(), Some("text/plain"));
    assert_eq!(will.properties.text(0x08).as_deref(), Some("answer"));
    assert_eq!(will.properties.one(0x09), Some(&[0, 1, 7][..]));
    let user: Vec<_> = will.properties.all(0x26).collect();
    assert_eq!(user, [b"\x00\x01b\x00\x011", b"\x00\x01a\x00\x012"], "in their order");
}

#[test]
fn will_delay_holds_the_will_back_v5_3_1_3_9() {
    let broker = Broker::start();
    let deadline = Instant::now() + PATIENCE;
    let mut round = 0;
    let (mut watcher, client, name) = loop {
        // Under a name that is new each time: no will of a round before is heard.
        round += 1;
        let name = format!("late{round}");
        let delayed =
            format!("10 ['MQTT' 05 04 003c [11 0000003c] '{name}' [18 00000001] 'will/{name}' 'gone']");
        let mut watcher = Client::connect(&broker, Version::V5, "watcher");
        watcher.subscribe(&format!("will/{name}"), 0);
        let (client, _) = Client::connect_as(&broker, Version::V5, &delayed);
        let begun = Instant::now();
        client.drop_connection();
        let (client, connack) = Client::connect_as(&broker, Version::V5, &delayed);
        let was_in_time = begun.elapsed() < Duration::from_secs(1);
        assert!(connack.session_present);
        // A client that is back in time: no will. One that isn't, on a busy machine, says nothing.
        if was_in_time {
            watcher.expect_silence(Duration::from_millis(1_600));
            break (watcher, client, name);
        }
        assert!(Instant::now() < deadline, "no client is back in time");
    };
    // One that is not.
    let begun = Instant::now();
    client.drop_connection();
    assert_eq!(watcher.delivery().text(), "gone");
    assert!(begun.elapsed() >= Duration::from_millis(900), "after {:?}", begun.elapsed());
    Client::connect(&broker, Version::V5, &name).leave();
}

#[test]
fn will_comes_when_the_session_ends_before_its_delay_v5_s3_1_2_5() {
    let broker = Broker::start();
    let mut watcher = Client::connect(&broker, Version::V5, "watcher");
    watcher.subscribe("will/#", 0);
    // The session ends with the connection, so an hour's delay does not count.
    let (client, _) = Client::connect_as(
        &broker,
        Version::V5,
        "10 ['MQTT' 05 06 003c [] 'early' [18 00000e10] 'will/early' 'gone']",
    );
    client.drop_connection();
    assert_eq!(watcher.delivery().text(), "gone");
    // The same when a clean start ends the session that waits.
    let (client, _) = Client::connect_as(
        &broker,
        Version::V5,
        "10 ['MQTT' 05 04 003c [11 00000e10] 'early' [18 00000e10] 'will/early' 'again']",
    );
    client.drop_connection();
    watcher.ping();
    Client::connect(&broker, Version::V5, "early").leave();
    assert_eq!(watcher.delivery().text(), "again");
    broker.adds_up();
}
