//! The memory of all queues together: at its limit and one message past it.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic where they can't go on")]

mod common;

use std::sync::Arc;

use broker::{Broker, BrokerConfig, Limits, QueuePolicy};
use common::{Client, Got, Harness, id, listen, start};
use mqtt_protocol::{QoS, ReasonCode};
use store::{DurableStore, FaultDisk, StoreOptions};

/// With a topic of one byte, a message of [`SIZE`].
const PAYLOAD: [u8; 99] = [b'p'; 99];

const SIZE: u64 = 100;

fn config(messages: u64, max_queued_policy: QueuePolicy) -> BrokerConfig {
    let limits = Limits { max_queued_memory: messages * SIZE, max_queued_policy, ..Limits::default() };
    BrokerConfig { limits, ..BrokerConfig::default() }
}

/// Sessions that are away, each subscribed to the topic of its name.
async fn away(harness: &Harness, names: &[&str]) {
    for name in names {
        let (mut client, _) = harness.durable(name).await;
        client.subscribe(name, QoS::AtLeastOnce).await;
    }
    // Their connections are gone once somebody else has come and gone.
    while harness.broker.stats().connections > 0 {
        tokio::task::yield_now().await;
    }
}

async fn publish(client: &mut Client, topic: &str, number: u8) -> ReasonCode {
    let mut payload = PAYLOAD;
    payload.fill(number);
    client.publish(topic, &payload, QoS::AtLeastOnce, false, 1).await;
    match client.receive().await {
        Got::Ack("PUBACK", got, reason) if got == id(1) => reason,
        other => panic!("no PUBACK but {other:?}"),
    }
}

/// First bytes of the messages that a session was kept.
async fn take(harness: &Harness, name: &str, count: usize) -> Vec<u8> {
    let (mut client, _) = harness.durable(name).await;
    let mut got = Vec::new();
    for _ in 0..count {
        match client.receive().await {
            Got::Publish { payload, id: Some(id), .. } => {
                got.extend(payload.first());
                client.puback(id).await;
            }
            other => panic!("{other:?}"),
        }
    }
    client.expect_nothing().await;
    got
}

#[tokio::test]
async fn sessions_in_memory_drop_their_own_oldest_and_one_without_any_gets_nothing() {
    let harness = start(config(6, QueuePolicy::DropOldest)).await;
    away(&harness, &["a", "b", "c"]).await;
    let mut publisher = harness.client("publisher").await;
    for number in 0..3 {
        publish(&mut publisher, "a", number).await;
        publish(&mut publisher, "b", number).await;
    }
    let stats = harness.broker.stats();
    assert_eq!((stats.queued_memory_bytes, stats.dropped_queue_full), (6 * SIZE, 0), "at the limit");
    assert_eq!(publish(&mut publisher, "a", 3).await, ReasonCode::Success);
    assert_eq!(publish(&mut publisher, "c", 0).await, ReasonCode::Success);
    let stats = harness.broker.stats();
    assert_eq!(stats.queued_memory_bytes, 6 * SIZE);
    assert_eq!((stats.dropped_queue_full, stats.dropped_memory_full), (1, 1));
    assert_eq!(take(&harness, "a", 3).await, [1, 2, 3]);
    assert_eq!(take(&harness, "b", 3).await, [0, 1, 2]);
    assert_eq!(harness.broker.stats().queued_memory_bytes, 0);
    publish(&mut publisher, "c", 1).await;
    assert_eq!(take(&harness, "c", 1).await, [1]);
}

#[tokio::test]
async fn with_the_policy_refuse_the_publisher_is_told() {
    let harness = start(config(4, QueuePolicy::Refuse)).await;
    away(&harness, &["a", "b"]).await;
    let mut publisher = harness.client("publisher").await;
    for (number, topic) in [(0, "a"), (0, "b"), (1, "a"), (1, "b")] {
        let reason = publish(&mut publisher, topic, number).await;
        assert_eq!(reason, ReasonCode::Success, "up to the limit");
    }
    for topic in ["a", "b"] {
        assert_eq!(publish(&mut publisher, topic, 2).await, ReasonCode::QuotaExceeded);
    }
    assert_eq!(take(&harness, "a", 2).await, [0, 1]);
    assert_eq!(publish(&mut publisher, "b", 2).await, ReasonCode::Success);
    assert_eq!(take(&harness, "b", 3).await, [0, 1, 2]);
}

#[tokio::test]
async fn a_session_that_ends_gives_its_memory_back() {
    let harness = start(config(4, QueuePolicy::DropOldest)).await;
    away(&harness, &["a"]).await;
    let mut publisher = harness.client("publisher").await;
    for number in 0..4 {
        publish(&mut publisher, "a", number).await;
    }
    drop(harness.client("a").await);
    while harness.broker.stats().queued_memory_bytes > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn durable_sessions_leave_more_to_the_disk_and_lose_nothing() {
    let disk = Arc::new(FaultDisk::default());
    let options = StoreOptions { reserve_bytes: 0, ..StoreOptions::default() };
    let store = Arc::new(DurableStore::open_on(disk, options).unwrap().0);
    let broker = Broker::new(config(6, QueuePolicy::DropOldest), Arc::clone(&store) as _, None);
    broker.restore(store).await.unwrap();
    let harness = listen(broker).await;
    away(&harness, &["a", "b", "c"]).await;
    let mut publisher = harness.client("publisher").await;
    for number in 0..20 {
        for topic in ["a", "b", "c"] {
            assert_eq!(publish(&mut publisher, topic, number).await, ReasonCode::Success);
        }
    }
    let stats = harness.broker.stats();
    assert_eq!(stats.queued_memory_bytes, 6 * SIZE);
    assert_eq!((stats.dropped_queue_full, stats.dropped_memory_full), (0, 0));
    for name in ["a", "b", "c"] {
        assert!(take(&harness, name, 20).await.into_iter().eq(0..20));
    }
}

#[tokio::test]
async fn a_shared_subscriptions_queue_counts_too() {
    let harness = start(config(2, QueuePolicy::DropOldest)).await;
    let (mut member, _) = harness.durable("member").await;
    member.subscribe("$share/g/s", QoS::AtLeastOnce).await;
    drop(member);
    away(&harness, &["a"]).await;
    let mut publisher = harness.client("publisher").await;
    for number in 0..2 {
        publish(&mut publisher, "s", number).await;
    }
    assert_eq!(harness.broker.stats().queued_memory_bytes, 2 * SIZE);
    publish(&mut publisher, "s", 2).await;
    publish(&mut publisher, "a", 0).await;
    let stats = harness.broker.stats();
    assert_eq!((stats.dropped_queue_full, stats.dropped_memory_full), (1, 1));
    assert_eq!(take(&harness, "member", 2).await, [1, 2]);
}
