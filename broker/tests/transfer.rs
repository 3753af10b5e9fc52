//! Retained Messages that are carried out of a broker and into another one.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic where they can't go on")]

mod common;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use broker::{Broker, BrokerConfig, InternalPublish, Limits, RetainedCopy, Trail};
use common::{Harness, listen};
use mqtt_protocol::{Connect, ProtocolVersion, QoS, ReasonCode};
use store::{DurableStore, FaultDisk, StoreOptions};

fn config(limits: Limits) -> BrokerConfig {
    BrokerConfig { sys_interval: Duration::ZERO, limits, ..BrokerConfig::default() }
}

async fn on(disk: &FaultDisk, limits: Limits) -> Harness {
    let options = StoreOptions { segment_bytes: 1 << 20, reserve_bytes: 0, ..StoreOptions::default() };
    let (store, _) = DurableStore::open_on(Arc::new(disk.clone()), options).unwrap();
    let store = Arc::new(store);
    let broker = Broker::new(config(limits), Arc::clone(&store) as _, None);
    broker.restore(store).await.unwrap();
    listen(broker).await
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn copy(topic: &str, payload: &[u8]) -> RetainedCopy {
    RetainedCopy {
        topic: topic.to_owned(),
        payload: payload.to_vec(),
        properties: Vec::new(),
        qos: QoS::AtLeastOnce,
        received_at_ms: 1_700_000_000_123,
        expires_at_ms: None,
        publisher: None,
        author: Vec::new(),
    }
}

fn copies(broker: &Broker, topics: &[&str]) -> Vec<RetainedCopy> {
    let found = topics.iter().filter_map(|topic| broker.retained_message(topic));
    found.map(|message| broker.copy_retained(&message)).collect()
}

#[tokio::test]
async fn a_copy_is_retained_elsewhere_as_it_was_and_is_there_after_a_power_cut() {
    let (from, disk) = (common::start(config(Limits::default())).await, FaultDisk::default());
    let mut client = from.client("press-1").await;
    client.publish("line/1", b"running", QoS::AtLeastOnce, true, 1).await;
    client.receive().await;
    let publish = InternalPublish {
        topic: "line/2".into(),
        payload: b"until later".to_vec(),
        qos: QoS::AtMostOnce,
        retain: true,
        // Content Type.
        properties: vec![3, 0, 1, b'x'],
        message_expiry_interval_s: Some(1_000),
        trail: Trail::default(),
        run_as: None,
    };
    from.broker.publish(publish).await.unwrap();
    let taken = copies(&from.broker, &["line/1", "line/2"]);
    assert_eq!(taken.first().unwrap().publisher.as_deref(), Some("press-1"));
    let left_ms = taken.last().unwrap().expires_at_ms.unwrap() - now_ms();
    assert!((900_000..=1_000_000).contains(&left_ms), "{left_ms}");

    let to = on(&disk, Limits::default()).await;
    let mut subscriber = to.connect(&Connect::new(ProtocolVersion::V5, "s")).await.0;
    subscriber.subscribe("#", QoS::AtLeastOnce).await;
    to.broker.put_retained(&taken).await.unwrap();
    subscriber.expect_nothing().await;
    let but_the_moment = |copies: Vec<RetainedCopy>| -> Vec<RetainedCopy> {
        // Two clocks tell when it expires, and the last digits may differ.
        copies
            .into_iter()
            .map(|copy| RetainedCopy {
                expires_at_ms: copy.expires_at_ms.map(|at_ms| at_ms / 60_000),
                ..copy
            })
            .collect()
    };
    let expected = but_the_moment(taken);
    assert_eq!(but_the_moment(copies(&to.broker, &["line/1", "line/2"])), expected);
    drop((subscriber, to));
    let again = on(&disk.power_cut(7), Limits::default()).await;
    assert_eq!(but_the_moment(copies(&again.broker, &["line/1", "line/2"])), expected);
}

#[tokio::test]
async fn what_has_expired_stays_out_and_what_is_there_is_replaced() {
    let harness = common::start(config(Limits::default())).await;
    harness.broker.put_retained(&[copy("a", b"before"), copy("b", b"before")]).await.unwrap();
    let expired = RetainedCopy { expires_at_ms: Some(now_ms() - 1), ..copy("b", b"after") };
    harness.broker.put_retained(&[copy("a", b"after"), expired]).await.unwrap();
    let payload = |topic: &str| harness.broker.retained_message(topic).unwrap().payload().to_vec();
    assert_eq!((payload("a"), payload("b")), (b"after".to_vec(), b"before".to_vec()));
}

#[tokio::test]
async fn as_many_as_the_limit_are_retained_and_no_more() {
    let limits = Limits { max_retained_messages: 2, ..Limits::default() };
    let harness = common::start(config(limits)).await;
    assert_eq!(harness.broker.retained_limits().0, 2);
    harness.broker.put_retained(&[copy("a", b"1"), copy("b", b"1")]).await.unwrap();
    let refused = harness.broker.put_retained(&[copy("b", b"2"), copy("c", b"2")]).await;
    assert_eq!(refused, Err(ReasonCode::QuotaExceeded));
    assert_eq!(harness.broker.retained_message("b").unwrap().payload(), b"2");
    assert!(harness.broker.retained_message("c").is_none());
}

#[tokio::test]
async fn what_no_publish_could_have_left_is_refused() {
    let limits = Limits { max_topic_levels: 2, max_packet_size: 16, ..Limits::default() };
    let harness = common::start(config(limits)).await;
    let check = |copy: &RetainedCopy| harness.broker.check_retained_copy(copy).is_ok();
    assert!(check(&copy("a/b", &[0; 13])));
    assert!(!check(&copy("a/b", &[0; 14])));
    for topic in ["", "a/b/c", "a/+", "#", "$SYS/x", "$x"] {
        assert!(!check(&copy(topic, b"1")), "{topic}");
    }
    assert!(!check(&copy("a", b"")));
    assert!(!check(&RetainedCopy { properties: vec![3, 0, 9], ..copy("a", b"1") }));
}

#[tokio::test]
async fn what_is_forgotten_stays_so_after_a_power_cut_and_nobody_is_sent_anything() {
    let disk = FaultDisk::default();
    let harness = on(&disk, Limits::default()).await;
    harness.broker.put_retained(&[copy("a", b"1"), copy("b", b"1"), copy("c", b"1")]).await.unwrap();
    let mut subscriber = harness.connect(&Connect::new(ProtocolVersion::V5, "s")).await.0;
    subscriber.subscribe("none", QoS::AtMostOnce).await;
    let topics = ["a", "c", "never"].map(str::to_owned);
    harness.broker.forget_retained(&topics).await.unwrap();
    subscriber.expect_nothing().await;
    assert_eq!(harness.broker.stats().retained_messages, 1);
    drop((subscriber, harness));
    let again = on(&disk.power_cut(3), Limits::default()).await;
    let left = ["a", "b", "c"].map(|topic| again.broker.retained_message(topic).is_some());
    assert_eq!(left, [false, true, false]);
}
