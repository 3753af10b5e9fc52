//! Nothing leaves before the store has said that it is safe: a store that commits only when told shows it.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use broker::BrokerConfig;
use common::{Got, Harness, durable, id, start_with};
use mqtt_protocol::{Ack, Packet, QoS, ReasonCode};
use store::ManualStore;

async fn start() -> (Harness, Arc<ManualStore>) {
    let store = Arc::new(ManualStore::default());
    (start_with(BrokerConfig::default(), Arc::clone(&store) as _, None).await, store)
}

/// A subscriber with a durable session, its records safe.
async fn subscriber(harness: &Harness, store: &ManualStore, qos: QoS) -> common::Client {
    let mut client = harness.raw(mqtt_protocol::ProtocolVersion::V5).await;
    client.send(&Packet::Connect(Box::new(durable("subscriber")))).await;
    wait_for_frames(store, 1).await;
    store.commit_all();
    assert!(matches!(client.receive().await, Got::ConnAck { reason: ReasonCode::Success, .. }));
    client.subscribe_with("t", mqtt_protocol::SubscriptionOptions::from_qos(qos), None).await;
    wait_for_frames(store, 2).await;
    store.commit_all();
    assert_eq!(client.receive().await, Got::SubAck(vec![qos as u8]));
    client
}

/// A publisher with a durable session, its record safe.
async fn publisher(harness: &Harness, store: &ManualStore) -> common::Client {
    let frames = store.frames().len();
    let mut client = harness.raw(mqtt_protocol::ProtocolVersion::V5).await;
    client.send(&Packet::Connect(Box::new(durable("publisher")))).await;
    wait_for_frames(store, frames + 1).await;
    store.commit_all();
    assert!(matches!(client.receive().await, Got::ConnAck { reason: ReasonCode::Success, .. }));
    client
}

async fn wait_for_frames(store: &ManualStore, count: usize) {
    let reached = async {
        while store.frames().len() < count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(common::FOR_EVER, reached)
        .await
        .unwrap_or_else(|_| panic!("frames: {:#?}", store.frames()));
}

#[tokio::test]
async fn connack_and_suback_wait_for_their_commit() {
    let (harness, store) = start().await;
    let mut client = harness.raw(mqtt_protocol::ProtocolVersion::V5).await;
    client.send(&Packet::Connect(Box::new(durable("c")))).await;
    // Handled once the record is there; what leaves would be in the socket before this second client's CONNACK.
    wait_for_frames(&store, 1).await;
    let mut other = harness.client("other").await;
    other.expect_nothing().await;
    assert!(
        tokio::time::timeout(std::time::Duration::ZERO, client.receive()).await.is_err(),
        "CONNACK before the commit"
    );
    store.commit_all();
    assert!(matches!(client.receive().await, Got::ConnAck { .. }));
    client.subscribe_with("t", mqtt_protocol::SubscriptionOptions::from_qos(QoS::AtLeastOnce), None).await;
    wait_for_frames(&store, 2).await;
    client.expect_nothing().await;
    store.commit_all();
    assert_eq!(client.receive().await, Got::SubAck(vec![1]));
}

#[tokio::test]
async fn puback_waits_while_the_delivery_may_leave() {
    let (harness, store) = start().await;
    let mut subscriber = subscriber(&harness, &store, QoS::AtLeastOnce).await;
    let mut publisher = harness.client("publisher").await;
    publisher.publish("t", b"m", QoS::AtLeastOnce, false, 7).await;
    assert_eq!(subscriber.payload().await, b"m");
    publisher.expect_nothing().await;
    assert!(store.frames().last().unwrap().contains("Owed"), "{:?}", store.frames());
    store.commit_all();
    assert_eq!(publisher.receive().await, Got::Ack("PUBACK", id(7), ReasonCode::Success));
}

#[tokio::test]
async fn qos_2_goes_nowhere_before_its_receive_record_is_safe() {
    let (harness, store) = start().await;
    let mut subscriber = subscriber(&harness, &store, QoS::ExactlyOnce).await;
    let mut publisher = publisher(&harness, &store).await;
    publisher.publish("t", b"m", QoS::ExactlyOnce, false, 7).await;
    wait_for_frames(&store, 4).await;
    // Its duplicate joins the first copy.
    publisher.publish("t", b"m", QoS::ExactlyOnce, false, 7).await;
    publisher.expect_nothing().await;
    subscriber.expect_nothing().await;
    store.commit_all();
    assert_eq!(publisher.receive().await, Got::Ack("PUBREC", id(7), ReasonCode::Success));
    // Nor does it go out before it is on record who gets it under which identifier.
    wait_for_frames(&store, 5).await;
    assert!(store.frames()[4].contains("Sent {"), "{}", store.frames()[4]);
    subscriber.expect_nothing().await;
    store.commit_all();
    assert_eq!(subscriber.payload().await, b"m");
    publisher.send(&Packet::PubRel(Ack::new(id(7), ReasonCode::Success))).await;
    wait_for_frames(&store, 6).await;
    assert!(store.frames().last().unwrap().contains("Released"));
    publisher.expect_nothing().await;
    store.commit_all();
    assert_eq!(publisher.receive().await, Got::Ack("PUBCOMP", id(7), ReasonCode::Success));
    subscriber.expect_nothing().await;
}

#[tokio::test]
async fn what_a_client_asks_after_its_subscribe_is_answered_after_a_retained_message_that_is_being_changed() {
    let (harness, store) = start().await;
    let mut publisher = publisher(&harness, &store).await;
    for (number, payload) in [(1, b"old"), (2, b"new")] {
        let frames = store.frames().len();
        publisher.publish("t", payload, QoS::ExactlyOnce, true, number).await;
        wait_for_frames(&store, frames + 1).await;
        if number == 1 {
            store.commit_all();
            assert_eq!(
                publisher.receive().await,
                Got::Ack("PUBREC", id(1), ReasonCode::NoMatchingSubscribers)
            );
        }
    }
    // The new one waits for its commit and lets nobody look at what is retained until then. This session isn't on record:
    // its SUBACK waits for nothing.
    let mut client = harness.client("c").await;
    let mut filters = mqtt_protocol::SubscribeFiltersBuf::new();
    filters.push("t", mqtt_protocol::SubscriptionOptions::from_qos(QoS::AtMostOnce)).unwrap();
    let subscribe = mqtt_protocol::Subscribe {
        packet_id: id(1),
        subscription_identifier: None,
        user_properties: mqtt_protocol::UserProperties::NONE,
        filters: filters.as_filters(),
    };
    let mut bytes = Vec::new();
    for packet in [Packet::Subscribe(subscribe), Packet::PingReq] {
        packet.encode(mqtt_protocol::ProtocolVersion::V5, &mut bytes).unwrap();
    }
    // Together, so that the ping is at hand before the SUBACK leaves.
    client.send_bytes(&bytes).await;
    assert_eq!(client.receive().await, Got::SubAck(vec![0]));
    store.commit_all();
    assert_eq!(client.payload().await, b"new");
    assert_eq!(client.receive().await, Got::PingResp);
}

#[tokio::test]
async fn acknowledgements_keep_the_order_of_the_publishes() {
    let (harness, store) = start().await;
    let mut subscriber = subscriber(&harness, &store, QoS::AtLeastOnce).await;
    let mut publisher = harness.client("publisher").await;
    publisher.publish("t", b"owed", QoS::AtLeastOnce, false, 1).await;
    // Owes nothing, and still waits behind the one that does [MQTT-4.6.0-2, v5].
    publisher.publish("nobody", b"", QoS::AtLeastOnce, false, 2).await;
    assert_eq!(subscriber.payload().await, b"owed");
    publisher.expect_nothing().await;
    store.commit_all();
    assert_eq!(publisher.receive().await, Got::Ack("PUBACK", id(1), ReasonCode::Success));
    assert_eq!(publisher.receive().await, Got::Ack("PUBACK", id(2), ReasonCode::NoMatchingSubscribers));
}

#[tokio::test]
async fn qos_2_publishes_are_admitted_together_and_fanned_out_in_order() {
    let (harness, store) = start().await;
    let mut subscriber = subscriber(&harness, &store, QoS::ExactlyOnce).await;
    let mut publisher = publisher(&harness, &store).await;
    for number in 1..=5u16 {
        publisher.publish("t", &number.to_be_bytes(), QoS::ExactlyOnce, false, number).await;
    }
    publisher.publish("t", b"last, at QoS 0", QoS::AtMostOnce, false, 0).await;
    wait_for_frames(&store, 8).await;
    subscriber.expect_nothing().await;
    store.commit_all();
    for number in 1..=5u16 {
        assert_eq!(publisher.receive().await, Got::Ack("PUBREC", id(number), ReasonCode::Success));
    }
    // They are fanned out together, so one frame has all five.
    wait_for_frames(&store, 9).await;
    assert_eq!(store.frames()[8].matches("Sent {").count(), 5);
    store.commit_all();
    let mut got = Vec::new();
    while got.len() < 6 {
        got.push(subscriber.payload().await);
    }
    // QoS 0 waits for nothing.
    let last = got.iter().position(|payload| payload == b"last, at QoS 0").unwrap();
    got.remove(last);
    assert_eq!(got, [1u16, 2, 3, 4, 5].map(|number| number.to_be_bytes().to_vec()));
}

#[tokio::test]
async fn a_full_store_refuses_and_nobody_receives() {
    let (harness, store) = start().await;
    let mut subscriber = subscriber(&harness, &store, QoS::AtLeastOnce).await;
    let mut publisher = harness.client("publisher").await;
    store.set_full(true);
    publisher.publish("t", b"refused", QoS::AtLeastOnce, false, 1).await;
    assert_eq!(publisher.receive().await, Got::Ack("PUBACK", id(1), ReasonCode::QuotaExceeded));
    publisher.publish("t", b"refused", QoS::ExactlyOnce, false, 2).await;
    assert_eq!(publisher.receive().await, Got::Ack("PUBREC", id(2), ReasonCode::QuotaExceeded));
    subscriber.expect_nothing().await;
    store.set_full(false);
    publisher.publish("t", b"accepted", QoS::ExactlyOnce, false, 2).await;
    wait_for_frames(&store, 3).await;
    store.commit_all();
    assert_eq!(publisher.receive().await, Got::Ack("PUBREC", id(2), ReasonCode::Success));
    assert_eq!(subscriber.payload().await, b"accepted");
}

#[tokio::test]
async fn a_client_of_3_1_1_gets_no_acknowledgement_for_what_was_refused() {
    let (harness, store) = start().await;
    let _subscriber = subscriber(&harness, &store, QoS::AtLeastOnce).await;
    let connect = mqtt_protocol::Connect::new(mqtt_protocol::ProtocolVersion::V3_1_1, "publisher");
    let (mut publisher, _) = harness.connect(&connect).await;
    store.set_full(true);
    publisher.publish("t", b"refused", QoS::AtLeastOnce, false, 1).await;
    assert_eq!(publisher.receive().await, Got::Closed);
}

/// Counts messages that were admitted, and wants nothing else.
struct Counting(AtomicU64);

struct Hook(Arc<Counting>);

impl broker::MessageHook for Hook {
    fn generation(&self) -> u64 {
        0
    }
    fn candidates(&self, _: &str) -> Option<Arc<dyn broker::MessageHandler>> {
        Some(Arc::new(Hook(Arc::clone(&self.0))))
    }
}

impl broker::MessageHandler for Hook {
    fn handle(
        &self,
        _: &broker::Publication<'_>,
        _: &mut usize,
        effects: &mut broker::HookEffects,
    ) -> broker::Progress {
        let counting = Arc::clone(&self.0);
        effects.admitted.push(Box::new(move || {
            counting.0.fetch_add(1, Ordering::Relaxed);
        }));
        broker::Progress::Done
    }
}

#[tokio::test]
async fn what_a_rule_wants_done_is_done_for_admitted_messages_only() {
    let store = Arc::new(ManualStore::default());
    let counting = Arc::new(Counting(AtomicU64::new(0)));
    let hook = Arc::new(Hook(Arc::clone(&counting)));
    let harness = start_with(BrokerConfig::default(), Arc::clone(&store) as _, Some(hook)).await;
    let _subscriber = subscriber(&harness, &store, QoS::AtLeastOnce).await;
    let mut publisher = harness.client("publisher").await;
    store.set_full(true);
    publisher.publish("t", b"refused", QoS::AtLeastOnce, false, 1).await;
    assert_eq!(publisher.receive().await, Got::Ack("PUBACK", id(1), ReasonCode::QuotaExceeded));
    assert_eq!(counting.0.load(Ordering::Relaxed), 0);
    store.set_full(false);
    publisher.publish("t", b"accepted", QoS::AtLeastOnce, false, 2).await;
    publisher.publish("t", b"owes nothing", QoS::AtMostOnce, false, 0).await;
    publisher.expect_nothing().await;
    assert_eq!(counting.0.load(Ordering::Relaxed), 2);
}

/// Owes an action every message, and is told the places. Payload `no` finds it without room.
#[derive(Default)]
struct Owing(Arc<parking_lot::Mutex<Places>>);

/// Payloads and the places of what is owed for them.
type Places = Vec<(Vec<u8>, u64)>;

impl broker::MessageHook for Owing {
    fn generation(&self) -> u64 {
        0
    }
    fn candidates(&self, _: &str) -> Option<Arc<dyn broker::MessageHandler>> {
        Some(Arc::new(Owing(Arc::clone(&self.0))))
    }
}

impl broker::MessageHandler for Owing {
    fn handle(
        &self,
        message: &broker::Publication<'_>,
        _: &mut usize,
        effects: &mut broker::HookEffects,
    ) -> broker::Progress {
        effects.refused = message.payload == b"no";
        let (placed, payload) = (Arc::clone(&self.0), message.payload.to_vec());
        effects.owed.push(broker::OwedToAction {
            queue: broker::ActionQueue::Outbox("rule/action".into()),
            body: b"request".to_vec(),
            placed: Box::new(move |position| placed.lock().push((payload, position.0))),
        });
        broker::Progress::Done
    }
}

#[tokio::test]
async fn what_actions_are_owed_is_in_the_frame_of_the_message() {
    let store = Arc::new(ManualStore::default());
    let owing = Owing::default();
    let placed = Arc::clone(&owing.0);
    let harness = start_with(BrokerConfig::default(), Arc::clone(&store) as _, Some(Arc::new(owing))).await;
    let mut subscriber = subscriber(&harness, &store, QoS::AtLeastOnce).await;
    let mut publisher = publisher(&harness, &store).await;
    publisher.publish("t", b"one", QoS::AtLeastOnce, false, 1).await;
    assert_eq!(subscriber.payload().await, b"one");
    publisher.expect_nothing().await;
    let frame = store.frames().pop().unwrap();
    for record in ["Message(", "Owed {", "Queued { queue: Outbox { namespace: 0, name: \"rule/action\" }"] {
        assert!(frame.contains(record), "{record}: {frame}");
    }
    assert_eq!(*placed.lock(), [(b"one".to_vec(), 2)], "behind the session's debt");
    store.commit_all();
    assert_eq!(publisher.receive().await, Got::Ack("PUBACK", id(1), ReasonCode::Success));
    // Nobody subscribes, at QoS 0: the action is owed it all the same.
    publisher.publish("nobody", b"two", QoS::AtMostOnce, false, 0).await;
    publisher.expect_nothing().await;
    assert_eq!(placed.lock().pop(), Some((b"two".to_vec(), 3)));
    // At QoS 2 it is passed on once it is safe.
    publisher.publish("t", b"three", QoS::ExactlyOnce, false, 3).await;
    wait_for_frames(&store, 6).await;
    publisher.expect_nothing().await;
    assert_eq!(placed.lock().len(), 1);
    store.commit_all();
    assert_eq!(publisher.receive().await, Got::Ack("PUBREC", id(3), ReasonCode::Success));
    assert_eq!(placed.lock().pop(), Some((b"three".to_vec(), 5)));
}

#[tokio::test]
async fn what_is_refused_is_owed_to_no_action() {
    let store = Arc::new(ManualStore::default());
    let owing = Owing::default();
    let placed = Arc::clone(&owing.0);
    let harness = start_with(BrokerConfig::default(), Arc::clone(&store) as _, Some(Arc::new(owing))).await;
    let mut subscriber = subscriber(&harness, &store, QoS::AtLeastOnce).await;
    let mut publisher = harness.client("publisher").await;
    publisher.publish("t", b"no", QoS::AtLeastOnce, false, 1).await;
    assert_eq!(publisher.receive().await, Got::Ack("PUBACK", id(1), ReasonCode::QuotaExceeded));
    store.set_full(true);
    publisher.publish("t", b"yes", QoS::AtLeastOnce, false, 2).await;
    assert_eq!(publisher.receive().await, Got::Ack("PUBACK", id(2), ReasonCode::QuotaExceeded));
    subscriber.expect_nothing().await;
    assert_eq!((store.frames().len(), placed.lock().len()), (2, 0));
}

#[tokio::test]
async fn without_a_durable_store_debts_to_actions_have_no_place() {
    let owing = Owing::default();
    let placed = Arc::clone(&owing.0);
    let store = Arc::new(store::MemoryStore::new(1));
    let harness = start_with(BrokerConfig::default(), store, Some(Arc::new(owing))).await;
    let mut publisher = harness.client("publisher").await;
    publisher.publish("t", b"m", QoS::AtLeastOnce, false, 1).await;
    assert_eq!(publisher.receive().await, Got::Ack("PUBACK", id(1), ReasonCode::NoMatchingSubscribers));
    assert_eq!(*placed.lock(), [(b"m".to_vec(), 0)]);
}

#[tokio::test]
async fn the_end_of_a_session_is_on_record_before_the_next_of_its_name() {
    let (harness, store) = start().await;
    let _first = subscriber(&harness, &store, QoS::AtLeastOnce).await;
    let mut fresh = durable("subscriber");
    fresh.clean_start = true;
    let mut second = harness.raw(mqtt_protocol::ProtocolVersion::V5).await;
    second.send(&Packet::Connect(Box::new(fresh))).await;
    wait_for_frames(&store, 3).await;
    store.commit_all();
    assert!(matches!(second.receive().await, Got::ConnAck { session_present: false, .. }));
    let frames = store.frames();
    let (ended, started) = (frames[2].find("SessionEnded"), frames[2].find("SessionStarted"));
    assert!(ended.is_some() && ended < started, "{}", frames[2]);
    assert_eq!(frames.len(), 3);
    // Told to end with its connection.
    let mut goodbye = mqtt_protocol::Disconnect::new(ReasonCode::NormalDisconnection);
    goodbye.session_expiry_interval_s = Some(0);
    second.send(&Packet::Disconnect(goodbye)).await;
    assert_eq!(second.receive().await, Got::Closed);
    wait_for_frames(&store, 5).await;
    assert!(store.frames()[4].contains("SessionEnded"));
    // One that ends with its connection anyway is nobody's business.
    let mut passing = harness.client("passing").await;
    passing.send(&Packet::Disconnect(mqtt_protocol::Disconnect::new(ReasonCode::NormalDisconnection))).await;
    assert_eq!(passing.receive().await, Got::Closed);
    assert_eq!(store.frames().len(), 5);
}

#[tokio::test]
async fn a_takeover_while_a_commit_is_pending_loses_and_doubles_nothing() {
    let (harness, store) = start().await;
    let mut subscriber = subscriber(&harness, &store, QoS::AtLeastOnce).await;
    let mut first = publisher(&harness, &store).await;
    first.publish("t", b"at 2", QoS::ExactlyOnce, false, 1).await;
    first.publish("t", b"at 1", QoS::AtLeastOnce, false, 2).await;
    wait_for_frames(&store, 5).await;
    // Nothing is safe yet when the client comes again: it gets no answer before its first copies are.
    let mut second = harness.raw(mqtt_protocol::ProtocolVersion::V5).await;
    second.send(&Packet::Connect(Box::new(durable("publisher")))).await;
    assert_eq!(first.receive().await, Got::Disconnect(ReasonCode::SessionTakenOver));
    wait_for_frames(&store, 6).await;
    subscriber.expect_nothing().await;
    store.commit_all();
    assert!(matches!(second.receive().await, Got::ConnAck { session_present: true, .. }));
    assert_eq!(subscriber.payload().await, b"at 2");
    assert_eq!(subscriber.payload().await, b"at 1");
    // The copy joins what is there.
    second.publish("t", b"at 2", QoS::ExactlyOnce, false, 1).await;
    assert_eq!(second.receive().await, Got::Ack("PUBREC", id(1), ReasonCode::Success));
    subscriber.expect_nothing().await;
}

#[tokio::test]
async fn a_window_and_its_releases_wait_for_their_records() {
    let (harness, store) = start().await;
    let mut subscriber = subscriber(&harness, &store, QoS::ExactlyOnce).await;
    let mut passing = harness.client("passing").await;
    passing.publish("t", b"two", QoS::ExactlyOnce, false, 1).await;
    passing.publish("t", b"one", QoS::AtLeastOnce, false, 2).await;
    // Its debt, and who gets it under which identifier; what comes after it waits behind it.
    wait_for_frames(&store, 5).await;
    subscriber.expect_nothing().await;
    store.commit_all();
    let mut first = None;
    for expected in [&b"two"[..], b"one"] {
        match subscriber.receive().await {
            Got::Publish { payload, id, dup: false, .. } if payload == expected => first = first.or(id),
            other => panic!("{other:?}"),
        }
    }
    let first = first.unwrap();
    let frames = store.frames().len();
    subscriber.send(&Packet::PubRec(Ack::new(first, ReasonCode::Success))).await;
    wait_for_frames(&store, frames + 1).await;
    assert!(store.frames()[frames].contains("AwaitsCompletion"), "{}", store.frames()[frames]);
    subscriber.expect_nothing().await;
    store.commit_all();
    assert_eq!(subscriber.receive().await, Got::Ack("PUBREL", first, ReasonCode::Success));
}

/// A will to the topic `will`, at QoS 0.
fn with_will<'a>(connect: mqtt_protocol::Connect<'a>, payload: &'a str) -> mqtt_protocol::Connect<'a> {
    let will = mqtt_protocol::Will {
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "will",
        payload: payload.as_bytes(),
        delay_interval_s: 0,
        publish: mqtt_protocol::PublishProperties::default(),
    };
    mqtt_protocol::Connect { will: Some(will), ..connect }
}

#[tokio::test]
async fn a_will_that_is_due_is_in_the_frame_that_ends_its_own_record() {
    let (harness, store) = start().await;
    let connect = async |connect: mqtt_protocol::Connect<'_>, frames| {
        let mut client = harness.raw(connect.version).await;
        client.send(&Packet::Connect(Box::new(connect))).await;
        wait_for_frames(&store, frames).await;
        store.commit_all();
        assert!(matches!(client.receive().await, Got::ConnAck { reason: ReasonCode::Success, .. }));
        client
    };
    let frame = |number: usize| store.frames()[number - 1].clone();
    // A takeover: the session goes on with its new will, the old one is due.
    let first = connect(with_will(durable("c"), "first"), 1).await;
    let second = connect(with_will(durable("c"), "second"), 3).await;
    assert!(frame(2).contains("SessionStarted") && frame(2).contains("Will {"), "{}", frame(2));
    assert!(frame(2).contains("Queued { queue: Wills"), "{}", frame(2));
    // Published, it goes with what it owes.
    assert!(frame(3).contains("Settled { queue: Wills"), "{}", frame(3));
    // Clean Start: the session ends, and its will is due.
    let clean = mqtt_protocol::Connect::new(mqtt_protocol::ProtocolVersion::V5, "c");
    let third = connect(with_will(clean, "third"), 5).await;
    assert!(frame(4).contains("SessionEnded"), "{}", frame(4));
    assert_eq!(frame(4).matches("Queued { queue: Wills").count(), 2, "the old one and its own: {}", frame(4));
    assert!(frame(5).contains("Settled { queue: Wills"), "{}", frame(5));
    // The connection of a session that isn't on record is lost.
    drop(third);
    wait_for_frames(&store, 6).await;
    assert!(frame(6).contains("Settled { queue: Wills"), "{}", frame(6));
    drop((first, second));
}

#[tokio::test]
async fn a_full_store_lets_sessions_without_records_in_with_their_wills() {
    let (harness, store) = start().await;
    store.set_full(true);
    let mut watcher = harness.client("watcher").await;
    watcher.subscribe("will", QoS::AtMostOnce).await;
    let clean = mqtt_protocol::Connect::new(mqtt_protocol::ProtocolVersion::V5, "c");
    let (client, _) = harness.connect(&with_will(clean, "gone")).await;
    drop(client);
    assert_eq!(watcher.payload().await, b"gone");
    assert_eq!(store.frames(), [""; 0]);
}
