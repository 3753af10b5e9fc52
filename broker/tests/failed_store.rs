//! A sync that fails: what was waiting for it is never acknowledged, its clients are told so, and everybody who owes the
//! disk nothing goes on.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic where they can't go on")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use broker::{Broker, BrokerConfig, InternalPublish, PublishError};
use common::{Client, Got, Harness, durable, id, listen};
use mqtt_protocol::{Ack, Connect, Packet, ProtocolVersion, QoS, ReasonCode, SubscriptionOptions};
use store::{DurableStore, FaultDisk, Store, StoreOptions};

const FAILED: ReasonCode = ReasonCode::ImplementationSpecificError;

struct Machine {
    harness: Harness,
    store: Arc<DurableStore>,
    disk: FaultDisk,
}

impl Machine {
    /// A broker that has a durable subscriber to `t/#`, which is away.
    async fn start() -> Self {
        let machine = Self::on(FaultDisk::default()).await;
        let (mut away, _) = machine.harness.durable("away").await;
        away.subscribe("t/#", QoS::ExactlyOnce).await;
        machine
    }

    async fn on(disk: FaultDisk) -> Self {
        let config = BrokerConfig { sys_interval: Duration::ZERO, ..BrokerConfig::default() };
        let options = StoreOptions { segment_bytes: 1 << 20, reserve_bytes: 0, ..StoreOptions::default() };
        let store = Arc::new(DurableStore::open_on(Arc::new(disk.clone()), options).unwrap().0);
        let broker = Broker::new(config, Arc::clone(&store) as _, None);
        broker.restore(Arc::clone(&store)).await.unwrap();
        Self { harness: listen(broker).await, store, disk }
    }

    /// The next commit fails. What the session of a connection that has just gone still had to say is safe before.
    async fn next_commit_fails(&self) {
        let store = Arc::clone(&self.store);
        assert!(tokio::task::spawn_blocking(move || store.wait_for_all()).await.unwrap());
        self.disk.fail_sync_after(0);
    }

    /// A machine whose store has failed already, because of a message that nobody else has to do with.
    async fn failed() -> Self {
        let machine = Self::start().await;
        let mut victim = machine.harness.client("victim").await;
        machine.next_commit_fails().await;
        victim.publish("t/victim", b"lost", QoS::AtLeastOnce, false, 1).await;
        assert_eq!(victim.receive().await, Got::Disconnect(FAILED));
        assert!(machine.store.has_failed());
        machine
    }
}

/// Nothing more but the end of the connection comes.
async fn expect_closed(client: &mut Client) {
    assert_eq!(client.receive().await, Got::Closed);
}

fn v311(client_id: &str) -> Connect<'_> {
    Connect::new(ProtocolVersion::V3_1_1, client_id)
}

#[tokio::test]
async fn whose_publish_can_never_be_safe_is_told_instead_of_left_waiting() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let machine = Machine::start().await;
        let (mut publisher, _) = machine.harness.durable("publisher").await;
        machine.next_commit_fails().await;
        publisher.publish("t/x", b"m", qos, false, 7).await;
        assert_eq!(
            publisher.receive().await,
            Got::Disconnect(FAILED),
            "{qos:?}: no acknowledgement before it"
        );
        expect_closed(&mut publisher).await;
    }
}

#[tokio::test]
async fn a_client_of_mqtt_3_is_closed_without_an_acknowledgement() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let machine = Machine::start().await;
        let (mut publisher, _) = machine.harness.connect(&v311("publisher")).await;
        machine.next_commit_fails().await;
        publisher.publish("t/x", b"m", qos, false, 7).await;
        expect_closed(&mut publisher).await;
    }
}

#[tokio::test]
async fn what_is_received_at_qos_2_goes_nowhere_and_comes_once_after_the_restart() {
    let machine = Machine::start().await;
    let (mut publisher, _) = machine.harness.durable("publisher").await;
    let mut live = machine.harness.client("live").await;
    live.subscribe("t/#", QoS::AtMostOnce).await;
    machine.next_commit_fails().await;
    publisher.publish("t/x", b"m", QoS::ExactlyOnce, false, 7).await;
    assert_eq!(publisher.receive().await, Got::Disconnect(FAILED));
    live.expect_nothing().await;
    for seed in 0..4 {
        let again = Machine::on(machine.disk.power_cut(seed)).await;
        let (mut publisher, present) = again.harness.durable("publisher").await;
        assert!(present);
        publisher.publish("t/x", b"m", QoS::ExactlyOnce, false, 7).await;
        assert!(matches!(publisher.receive().await, Got::Ack("PUBREC", _, reason) if !reason.is_error()));
        let (mut away, _) = again.harness.durable("away").await;
        assert_eq!(away.payload().await, b"m");
        away.expect_nothing().await;
    }
}

#[tokio::test]
async fn connack_suback_and_pubcomp_are_answers_that_never_come() {
    let machine = Machine::start().await;
    machine.next_commit_fails().await;
    let mut client = machine.harness.raw(ProtocolVersion::V5).await;
    client.send(&Packet::Connect(Box::new(durable("new")))).await;
    assert_eq!(client.receive().await, Got::ConnAck { session_present: false, reason: FAILED });
    expect_closed(&mut client).await;

    let machine = Machine::start().await;
    let (mut client, _) = machine.harness.durable("c").await;
    machine.next_commit_fails().await;
    client.subscribe_with("u", SubscriptionOptions::from_qos(QoS::AtLeastOnce), None).await;
    assert_eq!(client.receive().await, Got::Disconnect(FAILED));

    let machine = Machine::start().await;
    let (mut client, _) = machine.harness.durable("c").await;
    client.publish("t/x", b"m", QoS::ExactlyOnce, false, 3).await;
    assert_eq!(client.receive().await, Got::Ack("PUBREC", id(3), ReasonCode::Success));
    machine.next_commit_fails().await;
    client.send(&Packet::PubRel(Ack::new(id(3), ReasonCode::Success))).await;
    assert_eq!(client.receive().await, Got::Disconnect(FAILED));
}

#[tokio::test]
async fn what_comes_after_the_failure_is_refused_if_it_owes_the_disk_something() {
    let machine = Machine::failed().await;
    let mut publisher = machine.harness.client("publisher").await;
    for number in 1..3 {
        publisher.publish("t/x", b"m", QoS::AtLeastOnce, false, number).await;
        assert_eq!(publisher.receive().await, Got::Ack("PUBACK", id(number), FAILED));
        publisher.publish("r", b"retained", QoS::ExactlyOnce, true, number).await;
        assert_eq!(publisher.receive().await, Got::Ack("PUBREC", id(number), FAILED));
    }
    let (mut old, _) = machine.harness.connect(&v311("old")).await;
    old.publish("t/x", b"m", QoS::AtLeastOnce, false, 1).await;
    expect_closed(&mut old).await;
    for connect in [durable("new"), durable("away")] {
        let mut client = machine.harness.raw(connect.version).await;
        client.send(&Packet::Connect(Box::new(connect))).await;
        assert_eq!(client.receive().await, Got::ConnAck { session_present: false, reason: FAILED });
    }
    let message = InternalPublish {
        topic: "t/x".into(),
        payload: b"m".to_vec(),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Vec::new(),
        message_expiry_interval_s: None,
        run_as: None,
        trail: broker::Trail::default(),
    };
    assert_eq!(machine.harness.broker.publish(message).await, Err(PublishError::Refused(FAILED)));
}

#[tokio::test]
async fn who_owes_the_disk_nothing_goes_on() {
    let machine = Machine::start().await;
    let mut before = machine.harness.client("before").await;
    before.subscribe("#", QoS::ExactlyOnce).await;
    let (mut recorded, _) = machine.harness.durable("recorded").await;
    recorded.subscribe("#", QoS::AtLeastOnce).await;
    let mut victim = machine.harness.client("victim").await;
    machine.next_commit_fails().await;
    victim.publish("t/victim", b"lost", QoS::AtLeastOnce, false, 1).await;
    assert_eq!(victim.receive().await, Got::Disconnect(FAILED));
    // A delivery at QoS 1 doesn't wait for the commit.
    assert_eq!(recorded.payload().await, b"lost");
    assert_eq!(before.payload().await, b"lost");
    let mut publisher = machine.harness.client("publisher").await;
    assert_eq!(publisher.subscribe("own", QoS::AtLeastOnce).await, [1]);
    publisher.publish("t/x", b"0", QoS::AtMostOnce, false, 0).await;
    for subscriber in [&mut before, &mut recorded] {
        assert_eq!(subscriber.payload().await, b"0");
        subscriber.expect_nothing().await;
    }
}

#[tokio::test]
async fn a_session_without_debts_has_all_of_its_exchanges_where_nobody_else_is_durable() {
    let disk = FaultDisk::default();
    let machine = Machine::on(disk).await;
    let mut subscriber = machine.harness.client("subscriber").await;
    subscriber.subscribe("t", QoS::AtLeastOnce).await;
    machine.next_commit_fails().await;
    let mut victim = machine.harness.raw(ProtocolVersion::V5).await;
    victim.send(&Packet::Connect(Box::new(durable("victim")))).await;
    assert_eq!(victim.receive().await, Got::ConnAck { session_present: false, reason: FAILED });
    let mut publisher = machine.harness.client("publisher").await;
    publisher.publish("t", b"1", QoS::AtLeastOnce, false, 1).await;
    assert_eq!(publisher.receive().await, Got::Ack("PUBACK", id(1), ReasonCode::Success));
    assert_eq!(subscriber.payload().await, b"1");
}
