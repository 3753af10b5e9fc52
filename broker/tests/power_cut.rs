//! What is left after a power cut: a broker on a disk that loses what wasn't synced, and the broker that finds the rest.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests panic where they can't go on"
)]

mod common;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::{Broker, BrokerConfig, Limits, Restored};
use common::{Client, FOR_EVER, Got, Harness, durable, id, listen};
use mqtt_protocol::{
    Ack, Connect, Packet, PacketId, ProtocolVersion, QoS, ReasonCode, SubscriptionOptions, Will,
};
use store::{DurableStore, FaultDisk, QueueKey, StoreOptions};

/// A broker and the disk under it.
struct Machine {
    harness: Harness,
    store: Arc<DurableStore>,
    disk: FaultDisk,
    restored: Restored,
}

impl Machine {
    async fn start() -> Self {
        Self::on(FaultDisk::default()).await
    }

    async fn on(disk: FaultDisk) -> Self {
        let limits = Limits { will_after_crash: Duration::from_millis(300), ..Limits::default() };
        let config = BrokerConfig { limits, sys_interval: Duration::ZERO, ..BrokerConfig::default() };
        let options = StoreOptions { segment_bytes: 1 << 20, reserve_bytes: 0, ..StoreOptions::default() };
        let (store, report) = DurableStore::open_on(Arc::new(disk.clone()), options).unwrap();
        assert!(!report.has_losses(), "{report:?}");
        let store = Arc::new(store);
        let broker = Broker::new(config, Arc::clone(&store) as _, None);
        let restored = broker.restore(Arc::clone(&store)).await.unwrap();
        Self { harness: listen(broker).await, store, disk, restored }
    }

    /// The same machine after its power was cut, with what was safe then.
    async fn cut_power(self, seed: u64) -> Self {
        Self::on(self.disk.power_cut(seed)).await
    }
}

/// Acknowledges messages until as many came as are expected, and every exchange is over; returns their payloads as text.
async fn take(client: &mut Client, count: usize) -> Vec<String> {
    take_until(client, &mut HashSet::new(), |got, open| got >= count && open == 0).await
}

/// Acknowledges messages until there were so many, and so many exchanges at QoS 2 are `open`.
async fn take_until(
    client: &mut Client,
    open: &mut HashSet<PacketId>,
    is_enough: impl Fn(usize, usize) -> bool,
) -> Vec<String> {
    let mut got = Vec::new();
    while !is_enough(got.len(), open.len()) {
        match client.receive().await {
            Got::Publish { payload, qos, id, .. } => {
                let payload = String::from_utf8(payload).unwrap();
                match (qos, id) {
                    (QoS::AtLeastOnce, Some(id)) => {
                        got.push(payload);
                        client.puback(id).await;
                    }
                    (QoS::ExactlyOnce, Some(id)) => {
                        if open.insert(id) {
                            got.push(payload);
                        }
                        client.send(&Packet::PubRec(Ack::new(id, ReasonCode::Success))).await;
                    }
                    other => panic!("{other:?}"),
                }
            }
            Got::Ack("PUBREL", id, _) => {
                open.remove(&id);
                client.send(&Packet::PubComp(Ack::new(id, ReasonCode::Success))).await;
            }
            // It may come behind the first messages.
            Got::SubAck(_) => {}
            other => panic!("{other:?}"),
        }
    }
    got
}

async fn publish(client: &mut Client, topic: &str, payload: &str, qos: QoS, packet_id: u16) {
    client.publish(topic, payload.as_bytes(), qos, false, packet_id).await;
    acknowledged(client, qos, packet_id).await;
}

async fn acknowledged(client: &mut Client, qos: QoS, packet_id: u16) {
    let answer = if qos == QoS::ExactlyOnce { "PUBREC" } else { "PUBACK" };
    match client.receive().await {
        Got::Ack(got, got_id, reason) if got == answer && got_id == id(packet_id) && !reason.is_error() => {}
        other => panic!("no {answer} but {other:?}"),
    }
    if qos == QoS::ExactlyOnce {
        release(client, packet_id).await;
    }
}

async fn release(client: &mut Client, packet_id: u16) {
    client.send(&Packet::PubRel(Ack::new(id(packet_id), ReasonCode::Success))).await;
    assert_eq!(client.receive().await, Got::Ack("PUBCOMP", id(packet_id), ReasonCode::Success));
}

#[tokio::test]
async fn what_was_acknowledged_is_there_in_order_and_once() {
    for seed in 0..10 {
        let machine = Machine::start().await;
        let (mut away, _) = machine.harness.durable("away").await;
        away.subscribe("t/#", QoS::ExactlyOnce).await;
        drop(away);
        let mut publisher = machine.harness.client("publisher").await;
        for (number, qos) in [(1, QoS::AtLeastOnce), (2, QoS::ExactlyOnce), (3, QoS::AtLeastOnce)] {
            publish(&mut publisher, "t/x", &number.to_string(), qos, number).await;
        }
        let machine = machine.cut_power(seed).await;
        assert_eq!((machine.restored.sessions, machine.restored.queued_messages), (1, 3));
        let (mut away, present) = machine.harness.durable("away").await;
        assert!(present);
        assert_eq!(take(&mut away, 3).await, ["1", "2", "3"]);
        away.expect_nothing().await;
        // The subscription, too.
        let mut publisher = machine.harness.client("publisher").await;
        publish(&mut publisher, "t/y", "4", QoS::AtLeastOnce, 1).await;
        assert_eq!(take(&mut away, 1).await, ["4"]);
    }
}

/// The next message, which comes at QoS 2.
async fn at_qos_2(client: &mut Client) -> (PacketId, bool, String) {
    match client.receive().await {
        Got::Publish { id: Some(id), dup, payload, qos: QoS::ExactlyOnce, .. } => {
            (id, dup, String::from_utf8(payload).unwrap())
        }
        other => panic!("no PUBLISH at QoS 2 but {other:?}"),
    }
}

#[tokio::test]
async fn exactly_once_goes_on_where_it_was() {
    for seed in 0..10 {
        let machine = Machine::start().await;
        let (mut subscriber, _) = machine.harness.durable("subscriber").await;
        subscriber.subscribe("t", QoS::ExactlyOnce).await;
        let mut publisher = machine.harness.client("publisher").await;
        for number in 1..=3u16 {
            publish(&mut publisher, "t", &number.to_string(), QoS::ExactlyOnce, number).await;
        }
        let mut ids = Vec::new();
        for number in 1..=3 {
            let (id, dup, payload) = at_qos_2(&mut subscriber).await;
            assert_eq!((dup, payload), (false, number.to_string()));
            ids.push(id);
        }
        // The first is received and about to be released, of the second we know nothing, the third isn't received.
        subscriber.send(&Packet::PubRec(Ack::new(ids[0], ReasonCode::Success))).await;
        assert_eq!(subscriber.receive().await, Got::Ack("PUBREL", ids[0], ReasonCode::Success));
        let machine = machine.cut_power(seed).await;
        let (mut subscriber, present) = machine.harness.durable("subscriber").await;
        assert!(present);
        assert_eq!(subscriber.receive().await, Got::Ack("PUBREL", ids[0], ReasonCode::Success));
        for (number, expected) in [(2, ids[1]), (3, ids[2])] {
            assert_eq!(at_qos_2(&mut subscriber).await, (expected, true, number.to_string()));
        }
        // An identifier that may be in use with the client isn't given to another message.
        let mut publisher = machine.harness.client("publisher").await;
        publish(&mut publisher, "t", "4", QoS::ExactlyOnce, 1).await;
        let (new, dup, payload) = at_qos_2(&mut subscriber).await;
        assert_eq!((dup, payload.as_str(), ids.contains(&new)), (false, "4", false));
        for id in [ids[1], ids[2], new] {
            subscriber.send(&Packet::PubRec(Ack::new(id, ReasonCode::Success))).await;
            assert_eq!(subscriber.receive().await, Got::Ack("PUBREL", id, ReasonCode::Success));
        }
        let machine = machine.cut_power(seed).await;
        let (mut subscriber, _) = machine.harness.durable("subscriber").await;
        for id in [ids[0], ids[1], ids[2], new] {
            assert_eq!(subscriber.receive().await, Got::Ack("PUBREL", id, ReasonCode::Success));
            subscriber.send(&Packet::PubComp(Ack::new(id, ReasonCode::Success))).await;
        }
        subscriber.expect_nothing().await;
    }
}

#[tokio::test]
async fn a_publisher_that_repeats_itself_is_heard_once() {
    for seed in 0..10 {
        let machine = Machine::start().await;
        let (mut subscriber, _) = machine.harness.durable("subscriber").await;
        subscriber.subscribe("t", QoS::AtLeastOnce).await;
        let (mut publisher, _) = machine.harness.durable("publisher").await;
        publisher.publish("t", b"once", QoS::ExactlyOnce, false, 7).await;
        assert_eq!(publisher.receive().await, Got::Ack("PUBREC", id(7), ReasonCode::Success));
        let machine = machine.cut_power(seed).await;
        let (mut publisher, present) = machine.harness.durable("publisher").await;
        assert!(present);
        publisher.publish("t", b"once", QoS::ExactlyOnce, false, 7).await;
        acknowledged(&mut publisher, QoS::ExactlyOnce, 7).await;
        // Released: what comes under this identifier now is another message.
        let machine = machine.cut_power(seed + 1).await;
        let (mut publisher, _) = machine.harness.durable("publisher").await;
        publish(&mut publisher, "t", "other", QoS::ExactlyOnce, 7).await;
        let (mut subscriber, _) = machine.harness.durable("subscriber").await;
        let mut got = take(&mut subscriber, 2).await;
        subscriber.expect_nothing().await;
        got.sort();
        assert_eq!(got, ["once", "other"]);
    }
}

#[tokio::test]
async fn a_clean_start_forgets_what_the_session_had_received() {
    for seed in 0..10 {
        let machine = Machine::start().await;
        let (mut publisher, _) = machine.harness.durable("publisher").await;
        publisher.subscribe("old", QoS::AtLeastOnce).await;
        publisher.publish("t", b"lost to nobody", QoS::ExactlyOnce, false, 7).await;
        assert!(matches!(publisher.receive().await, Got::Ack("PUBREC", ..)));
        let mut fresh = durable("publisher");
        fresh.clean_start = true;
        let (mut publisher, present) = machine.harness.connect(&fresh).await;
        assert!(!present);
        let (mut subscriber, _) = machine.harness.durable("subscriber").await;
        subscriber.subscribe("t", QoS::AtLeastOnce).await;
        publisher.publish("t", b"new", QoS::ExactlyOnce, false, 7).await;
        assert!(matches!(publisher.receive().await, Got::Ack("PUBREC", ..)));
        let machine = machine.cut_power(seed).await;
        let (mut publisher, present) = machine.harness.durable("publisher").await;
        assert!(present, "the session that began with the Clean Start");
        publisher.publish("t", b"new", QoS::ExactlyOnce, false, 7).await;
        acknowledged(&mut publisher, QoS::ExactlyOnce, 7).await;
        let (mut subscriber, _) = machine.harness.durable("subscriber").await;
        assert_eq!(take(&mut subscriber, 1).await, ["new"]);
        // Subscriptions of the session that ended are not those of the one after it.
        publish(&mut publisher, "old", "x", QoS::AtLeastOnce, 8).await;
        publisher.expect_nothing().await;
        subscriber.expect_nothing().await;
    }
}

#[tokio::test]
async fn the_message_that_is_retained_is_the_last_that_was_seen() {
    for seed in 0..5 {
        let machine = Machine::start().await;
        let (mut away, _) = machine.harness.durable("away").await;
        away.subscribe("t", QoS::AtLeastOnce).await;
        let mut publishers = Vec::new();
        for publisher in 0..4 {
            let mut client = machine.harness.client(&format!("publisher-{publisher}")).await;
            publishers.push(tokio::spawn(async move {
                for number in 1..=25u16 {
                    let payload = format!("{publisher}-{number}");
                    client.publish("t", payload.as_bytes(), QoS::AtLeastOnce, true, number).await;
                }
                for number in 1..=25 {
                    acknowledged(&mut client, QoS::AtLeastOnce, number).await;
                }
            }));
        }
        let seen = take(&mut away, 100).await;
        for publisher in publishers {
            publisher.await.unwrap();
        }
        let last = retained(&machine.harness).await;
        assert_eq!(seen.last(), Some(&last));
        let machine = machine.cut_power(seed).await;
        assert_eq!(retained(&machine.harness).await, last);
        // Cleared for good.
        let mut publisher = machine.harness.client("publisher").await;
        publisher.publish("t", b"", QoS::AtLeastOnce, true, 1).await;
        acknowledged(&mut publisher, QoS::AtLeastOnce, 1).await;
        let machine = machine.cut_power(seed).await;
        assert_eq!(machine.restored.retained_messages, 0);
    }
}

async fn retained(harness: &Harness) -> String {
    let mut client = harness.client("curious").await;
    client.subscribe("t", QoS::AtMostOnce).await;
    String::from_utf8(client.payload().await).unwrap()
}

fn with_will(client_id: &str) -> Connect<'_> {
    let mut connect = durable(client_id);
    connect.will = Some(Will {
        qos: QoS::AtLeastOnce,
        retain: true,
        topic: "will",
        payload: client_id.as_bytes(),
        delay_interval_s: 0,
        publish: mqtt_protocol::PublishProperties::default(),
    });
    connect
}

#[tokio::test]
async fn a_will_outlives_the_broker_unless_its_client_comes_back() {
    let machine = Machine::start().await;
    let (mut watcher, _) = machine.harness.durable("watcher").await;
    watcher.subscribe("will", QoS::AtLeastOnce).await;
    let _gone = machine.harness.connect(&with_will("gone")).await;
    // Nothing is published in its name before it is back, however long that takes.
    let mut back = with_will("back");
    back.will = back.will.map(|will| Will { delay_interval_s: 3600, ..will });
    let _back = machine.harness.connect(&back).await;
    let (mut polite, _) = machine.harness.connect(&with_will("polite")).await;
    let goodbye = mqtt_protocol::Disconnect::new(ReasonCode::NormalDisconnection);
    polite.send(&Packet::Disconnect(goodbye)).await;
    assert_eq!(polite.receive().await, Got::Closed);
    // What says goodbye is written lazily; something that isn't is behind it.
    drop(machine.harness.durable("later").await);
    let cut = Instant::now();
    let machine = machine.cut_power(1).await;
    let (mut back, present) = machine.harness.durable("back").await;
    assert!(present);
    let (mut watcher, _) = machine.harness.durable("watcher").await;
    assert_eq!(take(&mut watcher, 1).await, ["gone"]);
    assert!(cut.elapsed() >= Duration::from_millis(290), "everybody gets time to come back");
    back.expect_nothing().await;
    // It is published once, and what it owes is safe with it.
    drop(machine.harness.durable("later").await);
    let machine = machine.cut_power(2).await;
    assert_eq!(machine.restored.retained_messages, 1);
    tokio::time::timeout(FOR_EVER, async {
        while machine.harness.broker.stats().messages_received > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let (mut watcher, _) = machine.harness.durable("watcher").await;
    watcher.expect_nothing().await;
}

#[tokio::test]
async fn a_queue_longer_than_its_head_comes_from_disk_in_order_and_once() {
    let machine = Machine::start().await;
    let (mut away, _) = machine.harness.durable("away").await;
    away.subscribe("t", QoS::ExactlyOnce).await;
    drop(away);
    let mut publisher = machine.harness.client("publisher").await;
    let qos = |number: u16| if number.is_multiple_of(3) { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
    for batch in 0..40u16 {
        for number in batch * 100..(batch + 1) * 100 {
            publisher.publish("t", number.to_string().as_bytes(), qos(number), false, number + 1).await;
        }
        let mut open = 100;
        while open > 0 {
            match publisher.receive().await {
                Got::Ack("PUBREC", id, _) => {
                    publisher.send(&Packet::PubRel(Ack::new(id, ReasonCode::Success))).await;
                }
                Got::Ack("PUBACK" | "PUBCOMP", ..) => open -= 1,
                other => panic!("{other:?}"),
            }
        }
    }
    let expected: Vec<String> = (0..4000).map(|number| number.to_string()).collect();
    // A first part without a restart, while more comes.
    let (mut away, _) = machine.harness.durable("away").await;
    let mut open = HashSet::new();
    let mut got = take_until(&mut away, &mut open, |got, _| got == 1500).await;
    publish(&mut publisher, "t", "4000", QoS::AtLeastOnce, 1).await;
    got.extend(take_until(&mut away, &mut open, |got, _| got == 1000).await);
    drop(away);
    let taken = got.len();
    assert_eq!(got, expected[..taken]);
    // What was acknowledged at QoS 1 in the last moment may come again, and nothing else.
    let machine = machine.cut_power(3).await;
    let (mut away, present) = machine.harness.durable("away").await;
    assert!(present);
    let mut got: Vec<String> = Vec::new();
    while got.last().is_none_or(|last| last != "4000") {
        got.extend(take_until(&mut away, &mut open, |got, _| got == 1).await);
    }
    take_until(&mut away, &mut open, |_, open| open == 0).await;
    away.expect_nothing().await;
    let first: usize = got[0].parse().unwrap();
    assert!(first <= taken, "{first} after {taken}");
    let mut numbers: Vec<usize> = got.iter().map(|number| number.parse().unwrap()).collect();
    assert!(numbers.iter().filter(|number| **number < taken).all(|number| number % 3 != 0), "QoS 2 twice");
    numbers.retain(|number| *number >= taken);
    assert_eq!(numbers, (taken..=4000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_shared_queue_outlives_the_broker() {
    let machine = Machine::start().await;
    let (mut member, _) = machine.harness.durable("member").await;
    member.subscribe("$share/g/t", QoS::ExactlyOnce).await;
    let mut publisher = machine.harness.client("publisher").await;
    publish(&mut publisher, "t", "sent", QoS::ExactlyOnce, 1).await;
    let (sent, ..) = at_qos_2(&mut member).await;
    drop(member);
    for number in 1..=3000u16 {
        publisher.publish("t", number.to_string().as_bytes(), QoS::AtLeastOnce, false, number + 1).await;
        if number % 500 == 0 {
            for number in number - 499..=number {
                acknowledged(&mut publisher, QoS::AtLeastOnce, number + 1).await;
            }
        }
    }
    let machine = machine.cut_power(4).await;
    // What was sent at QoS 2 stays with its member; another one gets the rest.
    let (mut other, _) = machine.harness.durable("other").await;
    let options = SubscriptionOptions::from_qos(QoS::AtLeastOnce);
    other.subscribe_with("$share/g/t", options, None).await;
    let got = take(&mut other, 3000).await;
    assert_eq!(got, (1..=3000).map(|number| number.to_string()).collect::<Vec<_>>());
    other.expect_nothing().await;
    let (mut member, present) = machine.harness.durable("member").await;
    assert!(present);
    assert_eq!(at_qos_2(&mut member).await, (sent, true, "sent".to_owned()));
    // A group without members owes nothing to anybody.
    let mut fresh = Connect::new(ProtocolVersion::V5, "member");
    fresh.clean_start = true;
    drop(machine.harness.connect(&fresh).await);
    let mut fresh = Connect::new(ProtocolVersion::V5, "other");
    fresh.clean_start = true;
    drop(machine.harness.connect(&fresh).await);
    let machine = machine.cut_power(5).await;
    let (mut member, present) = machine.harness.durable("member").await;
    assert!(!present);
    member.subscribe("$share/g/t", QoS::ExactlyOnce).await;
    member.expect_nothing().await;
}

/// A session that ends with its connection.
fn short(client_id: &str) -> Connect<'_> {
    let mut connect = with_will(client_id);
    connect.clean_start = true;
    connect.properties.session_expiry_interval_s = 0;
    connect
}

/// Cuts the power again, and sees that nothing comes that came before.
async fn nothing_more(machine: Machine) {
    let store = Arc::clone(&machine.store);
    assert!(tokio::task::spawn_blocking(move || store.wait_for_all()).await.unwrap());
    let again = machine.cut_power(9).await;
    let (mut watcher, _) = again.harness.durable("watcher").await;
    watcher.expect_nothing().await;
    assert_eq!(again.store.queue_len(QueueKey::Wills { namespace: 0 }), 0);
}

#[tokio::test]
async fn a_will_of_a_session_that_ends_with_its_connection_outlives_the_broker() {
    for seed in 0..5 {
        let machine = Machine::start().await;
        let (mut watcher, _) = machine.harness.durable("watcher").await;
        watcher.subscribe("will", QoS::AtLeastOnce).await;
        let _cut_off = machine.harness.connect(&short("cut off")).await;
        let mut old = short("of mqtt 3");
        old.version = ProtocolVersion::V3_1_1;
        let _old = machine.harness.connect(&old).await;
        let (mut polite, _) = machine.harness.connect(&short("polite")).await;
        polite
            .send(&Packet::Disconnect(mqtt_protocol::Disconnect::new(ReasonCode::NormalDisconnection)))
            .await;
        assert_eq!(polite.receive().await, Got::Closed);
        drop(machine.harness.connect(&short("lost before")).await);
        assert_eq!(take(&mut watcher, 1).await, ["lost before"]);
        // What is written lazily is written before this.
        drop(machine.harness.durable("later").await);
        let machine = machine.cut_power(seed).await;
        let (mut watcher, _) = machine.harness.durable("watcher").await;
        let mut wills = take(&mut watcher, 2).await;
        wills.sort();
        // One that was published and acknowledged in the last moment may come again.
        wills.retain(|will| will != "lost before");
        while wills.len() < 2 {
            wills.extend(take(&mut watcher, 1).await);
        }
        wills.sort();
        assert_eq!(wills, ["cut off", "of mqtt 3"]);
        watcher.expect_nothing().await;
        nothing_more(machine).await;
    }
}

#[tokio::test]
async fn a_will_of_a_session_that_is_over_at_the_start_is_published_at_once_and_once() {
    let machine = Machine::start().await;
    let (mut watcher, _) = machine.harness.durable("watcher").await;
    watcher.subscribe("will", QoS::AtLeastOnce).await;
    // On record, and ending with this connection.
    drop(machine.harness.durable("c").await);
    let mut connect = short("c");
    connect.clean_start = false;
    let _client = machine.harness.connect(&connect).await;
    let machine = machine.cut_power(3).await;
    assert_eq!(machine.restored.sessions_expired, 1);
    // The power goes again before anybody has come for it.
    let store = Arc::clone(&machine.store);
    assert!(tokio::task::spawn_blocking(move || store.wait_for_all()).await.unwrap());
    let machine = machine.cut_power(4).await;
    assert_eq!(machine.restored.sessions_expired, 0);
    let (mut watcher, _) = machine.harness.durable("watcher").await;
    assert_eq!(take(&mut watcher, 1).await, ["c"]);
    watcher.expect_nothing().await;
    nothing_more(machine).await;
}

#[tokio::test]
async fn a_takeover_leaves_the_old_will_to_be_published_and_the_new_one_to_wait() {
    let machine = Machine::start().await;
    let (mut watcher, _) = machine.harness.durable("watcher").await;
    watcher.subscribe("will", QoS::AtLeastOnce).await;
    let _old = machine.harness.connect(&with_will("c")).await;
    let mut connect = with_will("c");
    connect.will = connect.will.map(|will| Will { payload: b"new", ..will });
    let _new = machine.harness.connect(&connect).await;
    assert_eq!(take(&mut watcher, 1).await, ["c"], "the old one");
    drop(machine.harness.durable("later").await);
    let machine = machine.cut_power(5).await;
    let (mut watcher, _) = machine.harness.durable("watcher").await;
    // The new will waits for its client to come back, as that of any session that is not over.
    let mut wills = Vec::new();
    while wills.last().is_none_or(|will| will != "new") {
        wills.extend(take(&mut watcher, 1).await);
    }
    assert!(wills.len() == 1 || wills == ["c", "new"], "{wills:?}");
    // Its acknowledgement has been handled when this is answered.
    watcher.expect_nothing().await;
    nothing_more(machine).await;
}

#[tokio::test]
async fn retained_messages_that_a_new_subscription_still_waits_for_come_after_the_start() {
    const MESSAGES: usize = 1000;
    let is_owed = |machine: &Machine| {
        let mut is_owed = false;
        machine.store.for_each_session(|session| {
            is_owed |= session.subscriptions.iter().any(|subscription| subscription.options & 1 << 6 != 0);
        });
        is_owed
    };
    let mut machine = Machine::start().await;
    for number in 0..MESSAGES {
        let publish = broker::InternalPublish {
            topic: format!("r/{number}"),
            payload: number.to_string().into_bytes(),
            qos: QoS::AtLeastOnce,
            retain: true,
            properties: Vec::new(),
            message_expiry_interval_s: None,
            run_as: None,
            trail: broker::Trail::default(),
        };
        machine.harness.broker.publish(publish).await.unwrap();
    }
    let mut connect = durable("c");
    connect.properties.receive_maximum = 5;
    let (mut client, _) = machine.harness.connect(&connect).await;
    client.subscribe_with("r/#", SubscriptionOptions::from_qos(QoS::AtLeastOnce), None).await;
    let mut got: HashSet<String> = take(&mut client, 20).await.into_iter().collect();
    assert!(is_owed(&machine), "on record with the Subscription");
    machine = machine.cut_power(5).await;
    let (mut client, present) = machine.harness.connect(&connect).await;
    assert!(present);
    while got.len() < MESSAGES {
        got.extend(take(&mut client, 1).await);
    }
    // The one that came last had not been sent before: now all have been.
    let is_noted = async {
        while is_owed(&machine) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(FOR_EVER, is_noted).await.unwrap();
    let store = Arc::clone(&machine.store);
    assert!(tokio::task::spawn_blocking(move || store.wait_for_all()).await.unwrap());
    machine = machine.cut_power(6).await;
    let (mut client, _) = machine.harness.connect(&connect).await;
    // What the window held when the power went comes again, and nothing else.
    let mut again = 0;
    client.send(&Packet::PingReq).await;
    loop {
        match client.receive().await {
            Got::Publish { .. } => again += 1,
            Got::PingResp => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(again <= 5, "{again}");
}
