//! Limits on who is here, how fast they come and how fast they publish: at the limit and one past it.
#![allow(clippy::unwrap_used, reason = "test code")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::{
    Broker, BrokerConfig, HookEffects, InternalPublish, Limits, ListenerLimits, MessageHandler, MessageHook,
    Progress, Publication, PublishError, Republish, Trail,
};
use common::{Client, Got, Harness, id, listen_within, start, start_with};
use mqtt_protocol::{Ack, Connect, Packet, PacketId, ProtocolVersion, QoS, ReasonCode, Will};
use store::MemoryStore;

const V3: ProtocolVersion = ProtocolVersion::V3_1_1;
const V5: ProtocolVersion = ProtocolVersion::V5;

fn limits(limits: Limits) -> BrokerConfig {
    BrokerConfig { limits, ..BrokerConfig::default() }
}

/// A broker whose listener has limits of its own.
async fn start_within(all: Limits, own: ListenerLimits) -> Harness {
    let broker = Broker::new(limits(all), Arc::new(MemoryStore::new(1)), None);
    listen_within(broker, true, own).await
}

/// Connects, and says what came.
async fn answer(harness: &Harness, connect: &Connect<'_>) -> (Client, Got) {
    let mut client = harness.raw(connect.version).await;
    client.send(&Packet::Connect(Box::new(*connect))).await;
    let got = client.receive().await;
    (client, got)
}

fn refused(reason: ReasonCode) -> Got {
    Got::ConnAck { session_present: false, reason }
}

/// `count` publishes at QoS 0 in one write, and a PINGREQ behind them.
async fn burst(client: &mut Client, count: usize, payload_bytes: usize) {
    let mut bytes = Vec::new();
    for _ in 0..count {
        let mut publish = Vec::from(*b"\0\x01t\0");
        publish.resize(4 + payload_bytes, b'x');
        bytes.push(0x30);
        let mut length = publish.len();
        while length >= 128 {
            bytes.push(u8::try_from(length % 128).unwrap() | 0x80);
            length /= 128;
        }
        bytes.push(u8::try_from(length).unwrap());
        bytes.extend(publish);
    }
    bytes.extend([0xc0, 0]);
    client.send_bytes(&bytes).await;
}

#[tokio::test]
async fn an_address_has_a_number_of_connections() {
    let harness = start(limits(Limits { max_connections_per_address: 2, ..Limits::default() })).await;
    let first = harness.client("first").await;
    let mut second = harness.client("second").await;
    let (mut third, got) = answer(&harness, &Connect::new(V5, "third")).await;
    assert_eq!(got, refused(ReasonCode::QuotaExceeded));
    assert_eq!(third.receive().await, Got::Closed);
    assert_eq!(harness.broker.stats().limit_connections_per_address, 1);
    second.send(&Packet::PingReq).await;
    assert_eq!(second.receive().await, Got::PingResp);
    // One that goes makes room, as soon as the broker has seen it.
    drop(first);
    loop {
        let (_again, got) = answer(&harness, &Connect::new(V5, "third")).await;
        if got == refused(ReasonCode::Success) {
            break;
        }
        assert_eq!(got, refused(ReasonCode::QuotaExceeded));
    }
}

#[tokio::test]
async fn a_broker_has_a_number_of_connections_and_says_so() {
    let harness = start(limits(Limits { max_connections: 1, ..Limits::default() })).await;
    let _first = harness.client("first").await;
    for (version, reason) in [(V5, ReasonCode::ServerBusy), (V3, ReasonCode::ServerUnavailable)] {
        let (mut second, got) = answer(&harness, &Connect::new(version, "second")).await;
        assert_eq!(got, refused(reason));
        assert_eq!(second.receive().await, Got::Closed);
    }
    assert_eq!(harness.broker.stats().limit_connections, 2);
}

#[tokio::test]
async fn no_more_than_a_few_are_told_that_there_is_no_place() {
    let harness = start(limits(Limits { max_connections: 1, ..Limits::default() })).await;
    let mut first = harness.client("first").await;
    // They say nothing, so that they wait to be told. The sockets beyond are closed at once.
    let mut waiting = Vec::new();
    for _ in 0..64 {
        waiting.push(harness.raw(V5).await);
    }
    let mut beyond = harness.raw(V5).await;
    assert_eq!(beyond.receive().await, Got::Closed);
    first.send(&Packet::PingReq).await;
    assert_eq!(first.receive().await, Got::PingResp);
    assert_eq!(harness.broker.stats().limit_connections, 65);
}

#[tokio::test]
async fn a_user_has_a_number_of_clients() {
    let harness = start(limits(Limits { max_connections_per_user: 2, ..Limits::default() })).await;
    let as_user = |client_id, username| Connect { username, ..Connect::new(V5, client_id) };
    let (_first, got) = answer(&harness, &as_user("first", Some("ann"))).await;
    assert_eq!(got, refused(ReasonCode::Success));
    let (mut second, got) = answer(&harness, &as_user("second", Some("ann"))).await;
    assert_eq!(got, refused(ReasonCode::Success));
    let (_third, got) = answer(&harness, &as_user("third", Some("ann"))).await;
    assert_eq!(got, refused(ReasonCode::QuotaExceeded));
    assert_eq!(harness.broker.stats().limit_connections_per_user, 1);
    // Others have places of their own, and nobody is counted without a name.
    for (client_id, username) in
        [("fourth", Some("ben")), ("fifth", None), ("sixth", None), ("seventh", None)]
    {
        let (_client, got) = answer(&harness, &as_user(client_id, username)).await;
        assert_eq!(got, refused(ReasonCode::Success), "{client_id}");
    }
    // A client that comes again takes over from itself, as often as it likes.
    let mut owners = Vec::new();
    for _ in 0..5 {
        let (client, got) = answer(&harness, &as_user("second", Some("ann"))).await;
        assert_eq!(got, refused(ReasonCode::Success));
        owners.push(client);
    }
    assert_eq!(second.receive().await, Got::Disconnect(ReasonCode::SessionTakenOver));
}

#[tokio::test]
async fn connections_beyond_the_rate_wait_and_all_come_in() {
    let rates = Limits { max_connect_rate: 20, ..Limits::default() };
    let own = ListenerLimits { max_connect_rate: 20, ..ListenerLimits::default() };
    let unlimited = Limits::default();
    for harness in [start(limits(rates)).await, start_within(unlimited, own).await] {
        let (began, mut is_fast) = (Instant::now(), false);
        let mut sockets = Vec::new();
        for _ in 0..25 {
            sockets.push(harness.raw(V5).await);
        }
        for (number, mut socket) in sockets.into_iter().enumerate() {
            let client_id = format!("c{number}");
            socket.send(&Packet::Connect(Box::new(Connect::new(V5, &client_id)))).await;
            assert_eq!(socket.receive().await, refused(ReasonCode::Success));
            is_fast |= number == 20 && began.elapsed() < Duration::from_millis(45);
        }
        // What 24 cost, less the second that was saved up, is paid before the last is accepted.
        assert!(began.elapsed() >= Duration::from_millis(195), "{:?}", began.elapsed());
        let stats = harness.broker.stats();
        assert_eq!(stats.connections_opened, 25);
        // A machine that took as long for the 21st as it costs has paid for it without waiting.
        let waits = u64::from(is_fast)..=5;
        assert!(waits.contains(&stats.limit_connect_rate), "{} of {waits:?}", stats.limit_connect_rate);
    }
}

#[tokio::test]
async fn a_client_has_a_rate_of_publishes_and_loses_none() {
    let all = Limits { max_publish_rate: 10, ..Limits::default() };
    let own = ListenerLimits { max_publish_rate: Some(10), ..ListenerLimits::default() };
    for harness in [start(limits(all)).await, start_within(Limits::default(), own).await] {
        let mut subscriber = harness.client("subscriber").await;
        subscriber.subscribe("t", QoS::AtMostOnce).await;
        for (count, pauses) in [(10, 0), (11, 1)] {
            let mut publisher = harness.client("publisher").await;
            burst(&mut publisher, count, 10).await;
            assert_eq!(publisher.receive().await, Got::PingResp);
            assert_eq!(harness.broker.stats().limit_publish_rate, pauses, "after {count} at once");
            for _ in 0..count {
                subscriber.payload().await;
            }
        }
        assert_eq!(harness.broker.stats().limit_publish_bytes_rate, 0);
    }
}

#[tokio::test]
async fn publishes_far_beyond_the_rate_arrive_in_order() {
    let harness = start(limits(Limits { max_publish_rate: 100, ..Limits::default() })).await;
    let mut subscriber = harness.client("subscriber").await;
    subscriber.subscribe("t", QoS::AtLeastOnce).await;
    let mut publisher = harness.client("publisher").await;
    let began = Instant::now();
    for number in 0..150u16 {
        publisher.publish("t", &number.to_be_bytes(), QoS::AtLeastOnce, false, number + 1).await;
    }
    for number in 0..150u16 {
        assert_eq!(subscriber.payload().await, number.to_be_bytes());
        assert_eq!(publisher.receive().await, Got::Ack("PUBACK", id(number + 1), ReasonCode::Success));
    }
    // What 149 cost, less the second that was saved up.
    assert!(began.elapsed() >= Duration::from_millis(485), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_client_has_a_rate_of_bytes() {
    let all = Limits { max_publish_bytes_rate: 10_000, ..Limits::default() };
    let own = ListenerLimits { max_publish_bytes_rate: Some(10_000), ..ListenerLimits::default() };
    for harness in [start(limits(all)).await, start_within(Limits::default(), own).await] {
        // The packet's own bytes count: two of the fixed header, three of the length, four of the variable header.
        for (payload_bytes, pauses) in [(10_000 - 7, 0), (10_001 - 7, 1)] {
            let mut publisher = harness.client("publisher").await;
            burst(&mut publisher, 1, payload_bytes).await;
            assert_eq!(publisher.receive().await, Got::PingResp);
            assert_eq!(harness.broker.stats().limit_publish_bytes_rate, pauses, "{payload_bytes} bytes");
        }
        assert_eq!(harness.broker.stats().limit_publish_rate, 0);
    }
}

#[tokio::test]
async fn the_keep_alive_stands_still_while_a_client_is_not_read() {
    let harness = start(limits(Limits { max_publish_bytes_rate: 1_000, ..Limits::default() })).await;
    let (mut publisher, _) =
        harness.connect(&Connect { keep_alive_s: 1, ..Connect::new(V5, "publisher") }).await;
    // Not read for three seconds, which is more than one and a half.
    burst(&mut publisher, 1, 4_000).await;
    assert_eq!(publisher.receive().await, Got::PingResp);
    assert_eq!(harness.broker.stats().keep_alive_timeouts, 0);
    // It goes on when the client is read again.
    assert_eq!(publisher.receive().await, Got::Disconnect(ReasonCode::KeepAliveTimeout));
}

#[tokio::test]
async fn a_client_that_is_not_read_can_be_taken_over_and_stopped() {
    let harness = start(limits(Limits { max_publish_bytes_rate: 1, ..Limits::default() })).await;
    let mut first = harness.client("same").await;
    burst(&mut first, 1, 100_000).await;
    let mut second = harness.client("same").await;
    assert_eq!(first.receive().await, Got::Disconnect(ReasonCode::SessionTakenOver));
    burst(&mut second, 1, 100_000).await;
    harness.broker.shutdown(Duration::from_secs(5)).await;
    assert_eq!(second.receive().await, Got::Disconnect(ReasonCode::ServerShuttingDown));
}

#[tokio::test]
async fn a_listener_has_a_largest_packet_of_its_own() {
    let own = ListenerLimits { max_packet_size: Some(2_048), ..ListenerLimits::default() };
    let harness = start_within(Limits::default(), own).await;
    for (payload_bytes, ends) in [(2_048 - 7, false), (2_049 - 7, true)] {
        let mut client = harness.client("c").await;
        burst(&mut client, 1, payload_bytes).await;
        let expected = if ends { Got::Disconnect(ReasonCode::PacketTooLarge) } else { Got::PingResp };
        assert_eq!(client.receive().await, expected, "{payload_bytes} bytes");
    }
    assert_eq!(harness.broker.stats().limit_packet_size, 1);
}

/// Republishes what comes on `in` to `out`, with a payload of so many bytes, retained.
#[derive(Debug, Clone)]
struct Grow(usize);

impl MessageHook for Grow {
    fn generation(&self) -> u64 {
        1
    }

    fn candidates(&self, topic: &str) -> Option<Arc<dyn MessageHandler>> {
        (topic == "in").then(|| Arc::new(self.clone()) as Arc<dyn MessageHandler>)
    }
}

impl MessageHandler for Grow {
    fn handle(&self, _: &Publication<'_>, _: &mut usize, effects: &mut HookEffects) -> Progress {
        effects.republish.push(Republish {
            rule: 1,
            topic: "out".into(),
            payload: vec![b'x'; self.0],
            qos: QoS::AtMostOnce,
            retain: true,
            properties: Vec::new(),
            message_expiry_interval_s: None,
            run_as: None,
            trace: None,
        });
        Progress::Done
    }
}

#[tokio::test]
async fn the_largest_message_holds_for_rules_and_for_the_program() {
    for (bytes, kept) in [(2_048 - 3, 1), (2_049 - 3, 0)] {
        let config = limits(Limits { max_packet_size: 2_048, ..Limits::default() });
        let store = Arc::new(MemoryStore::new(1));
        let harness = start_with(config, store, Some(Arc::new(Grow(bytes)))).await;
        let mut client = harness.client("c").await;
        client.publish("in", b"", QoS::AtLeastOnce, false, 1).await;
        client.receive().await;
        assert_eq!(harness.broker.stats().retained_messages, kept, "made by a rule, {bytes} bytes");
        let publish = internal("abc", bytes);
        let expected =
            if kept == 1 { Ok(()) } else { Err(PublishError::Refused(ReasonCode::PacketTooLarge)) };
        assert_eq!(harness.broker.publish(publish).await, expected);
        assert_eq!(harness.broker.stats().limit_packet_size, if kept == 1 { 0 } else { 2 });
    }
}

fn internal(topic: &str, payload_bytes: usize) -> InternalPublish {
    InternalPublish {
        topic: topic.into(),
        payload: vec![b'x'; payload_bytes],
        qos: QoS::AtMostOnce,
        retain: true,
        properties: Vec::new(),
        message_expiry_interval_s: None,
        trail: Trail::default(),
        run_as: None,
    }
}

/// Every way by which a message comes to be retained, against the number of retained messages.
#[tokio::test]
async fn the_number_of_retained_messages_holds_on_every_way() {
    for room in [1, 0] {
        let config = limits(Limits { max_retained_messages: room, ..Limits::default() });
        let retained = |harness: &Harness| harness.broker.stats().retained_messages;
        // PUBLISH
        let harness = start(config.clone()).await;
        let mut client = harness.client("c").await;
        client.publish("kept", b"x", QoS::AtLeastOnce, true, 1).await;
        client.receive().await;
        assert_eq!((retained(&harness), harness.broker.stats().limit_retained), (room, 1 - room), "PUBLISH");
        // A will
        let harness = start(config.clone()).await;
        let mut watcher = harness.client("watcher").await;
        watcher.subscribe("will", QoS::AtMostOnce).await;
        let will = Will { qos: QoS::AtMostOnce, retain: true, ..will("will") };
        let (client, _) = harness.connect(&Connect { will: Some(will), ..Connect::new(V5, "dying") }).await;
        drop(client);
        if room > 0 {
            watcher.payload().await;
        } else {
            while harness.broker.stats().limit_retained == 0 {
                // A round trip lets the broker get on.
                watcher.send(&Packet::PingReq).await;
                assert_eq!(watcher.receive().await, Got::PingResp);
            }
        }
        assert_eq!((retained(&harness), harness.broker.stats().limit_retained), (room, 1 - room), "a will");
        // A rule
        let store = Arc::new(MemoryStore::new(1));
        let harness = start_with(config.clone(), store, Some(Arc::new(Grow(1)))).await;
        let mut client = harness.client("c").await;
        client.publish("in", b"", QoS::AtLeastOnce, false, 1).await;
        client.receive().await;
        assert_eq!((retained(&harness), harness.broker.stats().limit_retained), (room, 1 - room), "a rule");
        // The program
        let harness = start(config).await;
        let published = harness.broker.publish(internal("kept", 1)).await;
        assert_eq!(published.is_ok(), room > 0);
        assert_eq!(
            (retained(&harness), harness.broker.stats().limit_retained),
            (room, 1 - room),
            "the program"
        );
    }
}

fn will(topic: &str) -> Will<'_> {
    Will {
        qos: QoS::AtMostOnce,
        retain: false,
        topic,
        payload: b"x",
        delay_interval_s: 0,
        publish: mqtt_protocol::PublishProperties::default(),
    }
}

#[tokio::test]
async fn the_levels_of_a_topic_hold_on_every_way() {
    let store = Arc::new(MemoryStore::new(1));
    let config = limits(Limits { max_topic_levels: 2, ..Limits::default() });
    let harness = start_with(config, store, None).await;
    for (topic, levels) in [("a/b", 2), ("a/b/c", 3)] {
        let fits = levels <= 2;
        let connect = Connect { will: Some(will(topic)), ..Connect::new(V5, "c") };
        let (_client, got) = answer(&harness, &connect).await;
        assert_eq!(got == refused(ReasonCode::Success), fits, "a will on {topic}");
        assert_eq!(harness.broker.publish(internal(topic, 1)).await.is_ok(), fits, "the program on {topic}");
    }
    assert_eq!(harness.broker.stats().limit_topic_levels, 2);
}

#[tokio::test]
async fn a_client_has_a_number_of_messages_under_way() {
    let harness = start(limits(Limits { max_inflight: 2, ..Limits::default() })).await;
    let mut subscriber = harness.client("subscriber").await;
    subscriber.subscribe("t", QoS::AtLeastOnce).await;
    let mut publisher = harness.client("publisher").await;
    for number in 1..=3u16 {
        publisher.publish("t", &number.to_be_bytes(), QoS::AtLeastOnce, false, number).await;
        publisher.receive().await;
    }
    let mut first = None;
    for _ in 0..2 {
        let Got::Publish { id, .. } = subscriber.receive().await else { panic!("a message is due") };
        first = first.or(id);
    }
    // One past it waits.
    subscriber.send(&Packet::PingReq).await;
    assert_eq!(subscriber.receive().await, Got::PingResp);
    subscriber.puback(first.unwrap()).await;
    assert_eq!(subscriber.payload().await, 3u16.to_be_bytes());
}

#[tokio::test]
async fn a_client_has_a_number_of_bytes_under_way() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        // Payloads of 1,000 bytes under a topic of one: two of them reach it, and are no more than it.
        let harness = start(limits(Limits { max_inflight_bytes: 2_002, ..Limits::default() })).await;
        let mut subscriber = harness.client("subscriber").await;
        subscriber.subscribe("t", qos).await;
        let mut publisher = harness.client("publisher").await;
        for number in 1..=4u16 {
            publisher.publish("t", &vec![u8::try_from(number).unwrap(); 1_000], qos, false, number).await;
            publisher.receive().await;
            if qos == QoS::ExactlyOnce {
                let pubrel = Ack::new(PacketId::new(number).unwrap(), ReasonCode::Success);
                publisher.send(&Packet::PubRel(pubrel)).await;
                publisher.receive().await;
            }
        }
        let mut ids = Vec::new();
        for number in 1..=2u8 {
            let Got::Publish { id, payload, .. } = subscriber.receive().await else {
                panic!("a message is due")
            };
            assert_eq!(payload[0], number);
            ids.extend(id);
        }
        // One past it waits, and is counted; so does the next.
        subscriber.send(&Packet::PingReq).await;
        assert_eq!(subscriber.receive().await, Got::PingResp);
        assert_eq!(harness.broker.stats().limit_inflight_bytes, 2);
        // What the client has for certain makes room; the rest of an exchange at QoS 2 holds no message.
        let first = Ack::new(ids[0], ReasonCode::Success);
        if qos == QoS::ExactlyOnce {
            subscriber.send(&Packet::PubRec(first)).await;
            assert!(matches!(subscriber.receive().await, Got::Ack(..)));
        } else {
            subscriber.send(&Packet::PubAck(first)).await;
        }
        assert_eq!(subscriber.payload().await, [3; 1_000]);
        subscriber.send(&Packet::PingReq).await;
        assert_eq!(subscriber.receive().await, Got::PingResp);
    }
}

#[tokio::test]
async fn a_message_above_the_bytes_under_way_goes_alone() {
    let harness = start(limits(Limits { max_inflight_bytes: 1_024, ..Limits::default() })).await;
    let mut subscriber = harness.client("subscriber").await;
    subscriber.subscribe("t", QoS::AtLeastOnce).await;
    let mut publisher = harness.client("publisher").await;
    for number in 1..=2u16 {
        publisher.publish("t", &[7; 100_000], QoS::AtLeastOnce, false, number).await;
        publisher.receive().await;
    }
    for _ in 0..2 {
        let Got::Publish { id, .. } = subscriber.receive().await else { panic!("a message is due") };
        subscriber.send(&Packet::PingReq).await;
        assert_eq!(subscriber.receive().await, Got::PingResp);
        subscriber.puback(id.unwrap()).await;
    }
}

#[tokio::test]
async fn a_publisher_pauses_for_a_receiver_that_is_behind_where_it_may() {
    for (pause, pauses) in [(Duration::from_millis(20), true), (Duration::ZERO, false)] {
        let harness = start(limits(Limits { max_publish_pause: pause, ..Limits::default() })).await;
        let mut stuck = harness.client("stuck").await;
        stuck.subscribe("t", QoS::AtMostOnce).await;
        let mut publisher = harness.client("publisher").await;
        // Far more than what sockets hold.
        for _ in 0..32 {
            burst(&mut publisher, 1, 1_000_000).await;
            assert_eq!(publisher.receive().await, Got::PingResp);
        }
        let stats = harness.broker.stats();
        assert_eq!(stats.limit_publish_pause > 0, pauses, "{pause:?}: {}", stats.limit_publish_pause);
        assert!(stats.dropped_slow_consumer > 0);
    }
}

#[tokio::test]
async fn user_properties_have_a_number_of_bytes() {
    let config = limits(Limits { max_user_properties_bytes: 20, ..Limits::default() });
    let harness = start(config).await;
    let mut client = harness.client("c").await;
    // Identifier, two lengths and a name of one byte: six bytes beside the value.
    for (value_bytes, reason) in [(14, ReasonCode::NoMatchingSubscribers), (15, ReasonCode::QuotaExceeded)] {
        let mut property = Vec::from(*b"\x26\0\x01n\0");
        property.push(value_bytes);
        property.resize(6 + usize::from(value_bytes), b'v');
        let mut publish = vec![0x32, 6 + 6 + value_bytes, 0, 1, b't', 0, 1, 6 + value_bytes];
        publish.extend(property);
        client.send_bytes(&publish).await;
        assert_eq!(client.receive().await, Got::Ack("PUBACK", id(1), reason), "{value_bytes} bytes");
    }
    assert_eq!(harness.broker.stats().limit_user_properties, 1);
}

#[tokio::test]
async fn a_connect_has_a_largest_size() {
    let config = limits(Limits { max_connect_packet_size: 1_024, ..Limits::default() });
    let harness = start(config).await;
    // Three bytes of the fixed header and sixteen beside the user name.
    for (username_bytes, expected) in [(1_005, refused(ReasonCode::Success)), (1_006, Got::Closed)] {
        let username = "u".repeat(username_bytes);
        let connect = Connect { username: Some(&username), ..Connect::new(V5, "c") };
        let (_client, got) = answer(&harness, &connect).await;
        assert_eq!(got, expected, "a user name of {username_bytes} bytes");
    }
    assert_eq!(harness.broker.stats().limit_packet_size, 1);
}
