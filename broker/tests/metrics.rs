//! What is counted adds up: messages by where they went, packets by type, messages by filter.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod common;

use std::time::Duration;

use broker::{BrokerConfig, HeavyHittersConfig, InternalPublish, Limits, MeterReading, Stats, Trail};
use common::{Got, Harness, start};
use mqtt_protocol::{Ack, Packet, PacketType, QoS, ReasonCode};

fn quiet() -> BrokerConfig {
    BrokerConfig { sys_interval: Duration::ZERO, ..BrokerConfig::default() }
}

/// What came, and what became of it.
fn sides(stats: &Stats) -> (u64, u64) {
    let came = stats.messages_received + stats.messages_republished + stats.messages_own;
    let went =
        stats.messages_matched + stats.messages_unmatched + stats.messages_refused + stats.messages_repeated;
    (came, went)
}

/// Waits until all that came is accounted for, which is at the end of a turn.
async fn settled(harness: &Harness) -> Stats {
    loop {
        let stats = harness.broker.stats();
        let (came, went) = sides(&stats);
        if came == went {
            return stats;
        }
        tokio::task::yield_now().await;
    }
}

fn packets(harness: &Harness, kind: PacketType) -> (u64, u64) {
    let counts = harness.broker.packets();
    let count = counts.iter().find(|count| count.kind == kind).unwrap();
    (count.received, count.sent)
}

#[tokio::test]
async fn every_message_is_accounted_for_by_where_it_went() {
    let limits = Limits { max_topic_levels: 3, ..Limits::default() };
    let harness = start(BrokerConfig { limits, ..quiet() }).await;
    let mut subscriber = harness.client("subscriber").await;
    subscriber.subscribe("a/#", QoS::ExactlyOnce).await;
    let mut publisher = harness.client("publisher").await;
    // Matched, unmatched, refused, and at QoS 2 a first copy and a second one.
    publisher.publish("a/1", b"x", QoS::AtMostOnce, false, 0).await;
    publisher.publish("b", b"x", QoS::AtLeastOnce, false, 1).await;
    publisher.publish("a/1/2/3", b"x", QoS::AtLeastOnce, false, 2).await;
    publisher.publish("a/2", b"x", QoS::ExactlyOnce, false, 3).await;
    publisher.publish("a/2", b"x", QoS::ExactlyOnce, false, 3).await;
    for _ in 0..4 {
        publisher.receive().await;
    }
    let own = InternalPublish {
        topic: "a/own".to_owned(),
        payload: Vec::new(),
        qos: QoS::AtMostOnce,
        retain: false,
        properties: Vec::new(),
        message_expiry_interval_s: None,
        trail: Trail::default(),
        run_as: None,
    };
    harness.broker.publish(own).await.unwrap();
    let stats = settled(&harness).await;
    assert_eq!(stats.received_by_qos(), [1, 2, 2]);
    assert_eq!(stats.delivered_by_qos(), [2, 0, 1]);
    let went =
        (stats.messages_matched, stats.messages_unmatched, stats.messages_refused, stats.messages_repeated);
    assert_eq!((went, stats.messages_own), ((3, 1, 1, 1), 1));
    assert_eq!(packets(&harness, PacketType::Publish).0, 5);
    assert_eq!(packets(&harness, PacketType::PubAck), (0, 2));
    assert_eq!(packets(&harness, PacketType::PubRec), (0, 2));
    assert_eq!(packets(&harness, PacketType::Connect), (2, 0));
    assert_eq!(packets(&harness, PacketType::ConnAck), (0, 2));
    assert_eq!(packets(&harness, PacketType::SubAck), (0, 1));
}

#[tokio::test]
async fn a_run_of_messages_counts_by_its_number() {
    let config = BrokerConfig { heavy_hitters: HeavyHittersConfig { shown: 2, one_in: 1 }, ..quiet() };
    let harness = start(config).await;
    assert!(harness.broker.add_meter("run").unwrap());
    let mut subscriber = harness.client("subscriber").await;
    subscriber.subscribe("run", QoS::AtMostOnce).await;
    let mut publisher = harness.client("publisher").await;
    let one = [0x30, 7, 0, 3, b'r', b'u', b'n', 0, b'x'];
    publisher.send_bytes(&one.repeat(50)).await;
    for _ in 0..50 {
        assert_eq!(subscriber.payload().await, b"x");
    }
    let stats = settled(&harness).await;
    assert_eq!(
        (stats.received_by_qos()[0], stats.delivered_by_qos()[0], stats.messages_matched),
        (50, 50, 50)
    );
    assert_eq!(packets(&harness, PacketType::Publish), (50, 50));
    let [MeterReading { received, received_bytes, delivered, delivered_bytes, dropped, .. }] =
        &harness.broker.meters()[..]
    else {
        panic!("one filter is counted");
    };
    assert_eq!([received, received_bytes, delivered, delivered_bytes, dropped], [&50, &50, &50, &50, &0]);
    let heavy = harness.broker.heavy_hitters().unwrap();
    assert_eq!((&*heavy.topics[0].name, heavy.topics[0].messages), ("run", 50));
    assert_eq!((&*heavy.clients[0].name, heavy.clients[0].messages), ("publisher", 50));
}

/// One message that makes several give way counts as that many.
#[tokio::test]
async fn all_messages_that_give_way_are_counted() {
    let limits = Limits { max_queued_bytes: 64 * 1024, ..Limits::default() };
    let harness = start(BrokerConfig { limits, ..quiet() }).await;
    let (mut away, _) = harness.durable("away").await;
    away.subscribe("q", QoS::AtLeastOnce).await;
    drop(away);
    let mut publisher = harness.client("publisher").await;
    // As long as the connection isn't seen to be gone, messages go to its socket.
    while harness.broker.client("away").unwrap().connection.is_some() {
        tokio::task::yield_now().await;
    }
    for number in 1..=6 {
        publisher.publish("q", &[b'x'; 10_000], QoS::AtLeastOnce, false, number).await;
        publisher.receive().await;
    }
    assert_eq!(settled(&harness).await.dropped_queue_full, 0);
    publisher.publish("q", &[b'x'; 50_000], QoS::AtLeastOnce, false, 7).await;
    publisher.receive().await;
    let stats = settled(&harness).await;
    let waiting = harness.broker.session_queues(0);
    assert_eq!((stats.dropped_queue_full, waiting.messages), (5, 2));
    assert_eq!(stats.messages_delivered, 7);
    // What waits when the session ends is lost, and counted.
    let mut again = harness.client("away").await;
    again.send(&Packet::PingReq).await;
    assert_eq!(again.receive().await, Got::PingResp);
    assert_eq!(harness.broker.stats().dropped_session_ended, 2);
}

#[tokio::test]
async fn a_connected_client_that_confirms_nothing_is_among_the_slowest() {
    let limits = Limits { max_inflight: 1, ..Limits::default() };
    let harness = start(BrokerConfig { limits, ..quiet() }).await;
    let mut slow = harness.client("slow").await;
    slow.subscribe("s", QoS::AtLeastOnce).await;
    let mut publisher = harness.client("publisher").await;
    for number in 1..=3 {
        publisher.publish("s", b"x", QoS::AtLeastOnce, false, number).await;
        publisher.receive().await;
    }
    let queues = harness.broker.session_queues(5);
    let [found] = &queues.slowest[..] else { panic!("{queues:?}") };
    assert_eq!((&*found.client_id, found.messages, queues.inflight), ("slow", 2, 1));
    assert!(harness.broker.session_queues(0).slowest.is_empty());
    for _ in 1..=3 {
        let Got::Publish { id: Some(packet_id), .. } = slow.receive().await else { panic!("a PUBLISH") };
        slow.send(&Packet::PubAck(Ack::new(packet_id, ReasonCode::Success))).await;
    }
    while harness.broker.session_queues(0).messages + harness.broker.session_queues(0).inflight > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(harness.broker.stats().connections_maximum, 2);
}
