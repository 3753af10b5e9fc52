//! What clients see of sessions, Subscriptions, Retained Messages, wills and limits.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use broker::{
    BrokerConfig, HookEffects, Limits, MessageHandler, MessageHook, Progress, Publication, QueuePolicy,
    Republish,
};
use common::{Got, durable, id, start, start_with};
use mqtt_protocol::{
    Connect, Disconnect, Packet, ProtocolVersion, PublishProperties, QoS, ReasonCode, RetainHandling,
    SubscriptionOptions, Will,
};
use store::MemoryStore;

fn limits(limits: Limits) -> BrokerConfig {
    BrokerConfig { limits, ..BrokerConfig::default() }
}

#[tokio::test]
async fn a_publish_to_more_receivers_than_a_chunk_reaches_all_of_them() {
    let harness = start(BrokerConfig::default()).await;
    let mut receivers = Vec::new();
    for number in 0..1300 {
        let mut client = harness.client(&format!("c{number}")).await;
        client.subscribe("t", QoS::AtLeastOnce).await;
        receivers.push(client);
    }
    let mut publisher = harness.client("publisher").await;
    for number in 0..3u16 {
        publisher.publish("t", &number.to_be_bytes(), QoS::AtLeastOnce, number == 2, number + 1).await;
    }
    for number in 0..3u16 {
        assert_eq!(publisher.receive().await, Got::Ack("PUBACK", id(number + 1), ReasonCode::Success));
    }
    for receiver in &mut receivers {
        for number in 0..3u16 {
            assert_eq!(receiver.payload().await, number.to_be_bytes());
        }
    }
}

#[tokio::test]
async fn overlapping_subscriptions_give_one_message_with_the_highest_qos_and_all_identifiers() {
    let harness = start(BrokerConfig::default()).await;
    let mut client = harness.client("c").await;
    for (filter, qos, identifier) in [("a/+", 0, Some(5)), ("a/#", 2, Some(6)), ("a/b", 1, None)] {
        let options = SubscriptionOptions::from_qos(QoS::try_from(qos).unwrap());
        client.subscribe_with(filter, options, identifier).await;
        client.receive().await;
    }
    client.publish("a/b", b"m", QoS::ExactlyOnce, false, 1).await;
    let mut publishes = Vec::new();
    for _ in 0..2 {
        if let Got::Publish { qos, mut identifiers, .. } = client.receive().await {
            identifiers.sort_unstable();
            publishes.push((qos, identifiers));
        }
    }
    assert_eq!(publishes, [(QoS::ExactlyOnce, vec![5, 6])]);
    client.expect_nothing().await;
}

#[tokio::test]
async fn no_local_keeps_own_messages_away_but_not_through_another_subscription() {
    let harness = start(BrokerConfig::default()).await;
    let mut client = harness.client("c").await;
    let no_local = SubscriptionOptions { no_local: true, ..SubscriptionOptions::from_qos(QoS::AtMostOnce) };
    client.subscribe_with("a/b", no_local, None).await;
    client.receive().await;
    client.publish("a/b", b"own", QoS::AtMostOnce, false, 0).await;
    client.expect_nothing().await;
    client.subscribe("a/+", QoS::AtMostOnce).await;
    client.publish("a/b", b"own", QoS::AtMostOnce, false, 0).await;
    assert_eq!(client.payload().await, b"own");
    client.expect_nothing().await;
}

#[tokio::test]
async fn retained_messages_are_set_replaced_cleared_and_sent_as_retain_handling_says() {
    let harness = start(BrokerConfig::default()).await;
    let mut publisher = harness.client("publisher").await;
    publisher.publish("r/1", b"old", QoS::AtLeastOnce, true, 1).await;
    publisher.publish("r/1", b"new", QoS::AtLeastOnce, true, 2).await;
    publisher.publish("r/2", b"x", QoS::AtLeastOnce, true, 3).await;
    publisher.publish("r/2", b"", QoS::AtLeastOnce, true, 4).await;
    for _ in 0..4 {
        publisher.receive().await;
    }
    assert_eq!(harness.broker.stats().retained_messages, 1);
    let mut client = harness.client("c").await;
    let with = |retain_handling| SubscriptionOptions {
        retain_handling,
        ..SubscriptionOptions::from_qos(QoS::AtMostOnce)
    };
    for (handling, sends) in [
        (RetainHandling::DoNotSend, false),
        (RetainHandling::SendAtNewSubscribe, false),
        (RetainHandling::SendAtSubscribe, true),
        (RetainHandling::SendAtSubscribe, true),
    ] {
        client.subscribe_with("r/#", with(handling), None).await;
        assert_eq!(client.receive().await, Got::SubAck(vec![0]));
        if sends {
            let Got::Publish { payload, retain, .. } = client.receive().await else {
                panic!("a Retained Message")
            };
            assert_eq!((&*payload, retain), (&b"new"[..], true));
        }
        client.expect_nothing().await;
    }
    let mut fresh = harness.client("fresh").await;
    fresh.subscribe_with("r/#", with(RetainHandling::SendAtNewSubscribe), None).await;
    fresh.receive().await;
    assert_eq!(fresh.payload().await, b"new");
}

#[tokio::test]
async fn a_session_keeps_what_its_client_missed_in_order_and_redelivers_with_dup() {
    let harness = start(BrokerConfig::default()).await;
    let (mut client, present) = harness.durable("c").await;
    assert!(!present);
    client.subscribe("t", QoS::AtLeastOnce).await;
    let mut publisher = harness.client("publisher").await;
    publisher.publish("t", b"0", QoS::AtLeastOnce, false, 1).await;
    let Got::Publish { id: first, dup: false, .. } = client.receive().await else {
        panic!("the first delivery")
    };
    drop(client);
    publisher.receive().await;
    for number in 1..5u8 {
        publisher.publish("t", &[b'0' + number], QoS::AtLeastOnce, false, 1).await;
        publisher.receive().await;
    }
    let (mut client, present) = harness.durable("c").await;
    assert!(present);
    for number in 0..5u8 {
        let Got::Publish { payload, dup, id, .. } = client.receive().await else {
            panic!("message {number}")
        };
        assert_eq!((payload, dup), (vec![b'0' + number], number == 0));
        assert!(number > 0 || id == first);
        client.puback(id.unwrap()).await;
    }
    client.expect_nothing().await;
}

#[tokio::test]
async fn a_session_ends_with_its_expiry_and_takes_its_subscriptions_along() {
    let harness = start(BrokerConfig::default()).await;
    let mut connect = durable("c");
    connect.properties.session_expiry_interval_s = 1;
    let (mut client, _) = harness.connect(&connect).await;
    client.subscribe("t", QoS::AtLeastOnce).await;
    drop(client);
    let ended = async {
        while harness.broker.stats().sessions > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(common::FOR_EVER, ended).await.unwrap();
    assert_eq!(harness.broker.stats().subscriptions, 0);
    assert!(!harness.durable("c").await.1);
}

#[tokio::test]
async fn a_thousand_takeovers_leave_one_session_and_each_is_told() {
    let harness = start(BrokerConfig::default()).await;
    let (mut last, _) = harness.durable("c").await;
    last.subscribe("t", QoS::AtLeastOnce).await;
    for _ in 0..1000 {
        let (next, present) = harness.durable("c").await;
        assert!(present);
        let mut old = std::mem::replace(&mut last, next);
        assert_eq!(old.receive().await, Got::Disconnect(ReasonCode::SessionTakenOver));
        assert_eq!(old.receive().await, Got::Closed);
    }
    let stats = harness.broker.stats();
    assert_eq!((stats.sessions, stats.subscriptions, stats.takeovers), (1, 1, 1000));
    harness.client("p").await.publish("t", b"m", QoS::AtLeastOnce, false, 1).await;
    assert_eq!(last.payload().await, b"m");
}

fn with_will<'a>(client_id: &'a str, delay_interval_s: u32) -> Connect<'a> {
    let mut connect = durable(client_id);
    connect.will = Some(Will {
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: "will",
        payload: client_id.as_bytes(),
        delay_interval_s,
        publish: PublishProperties::default(),
    });
    connect
}

#[tokio::test]
async fn wills_come_when_they_are_due_and_only_then() {
    let harness = start(BrokerConfig::default()).await;
    let mut watcher = harness.client("watcher").await;
    watcher.subscribe("will", QoS::AtLeastOnce).await;

    drop(harness.connect(&with_will("lost", 0)).await);
    assert_eq!(watcher.payload().await, b"lost");

    let (mut polite, _) = harness.connect(&with_will("polite", 0)).await;
    polite.send(&Packet::Disconnect(Disconnect::new(ReasonCode::NormalDisconnection))).await;
    assert_eq!(polite.receive().await, Got::Closed);

    let (mut insisting, _) = harness.connect(&with_will("insisting", 0)).await;
    insisting.send(&Packet::Disconnect(Disconnect::new(ReasonCode::DisconnectWithWillMessage))).await;
    assert_eq!(watcher.payload().await, b"insisting");

    // Taken on again before its delay is over: cancelled. The next one isn't.
    drop(harness.connect(&with_will("delayed", 1)).await);
    let (back, present) = harness.connect(&with_will("delayed", 2)).await;
    assert!(present);
    drop(back);
    assert_eq!(watcher.payload().await, b"delayed");
    watcher.expect_nothing().await;

    // Clean Start ends the session, and with it the delay [MQTT-3.1.3-9, v5].
    drop(harness.connect(&with_will("ended", 600)).await);
    let mut again = durable("ended");
    again.clean_start = true;
    let _again = harness.connect(&again).await;
    assert_eq!(watcher.payload().await, b"ended");
}

#[tokio::test]
async fn a_shared_subscription_is_fair_and_gives_each_message_to_one_member() {
    let harness = start(BrokerConfig::default()).await;
    let mut members = Vec::new();
    for number in 0..4 {
        let mut member = harness.client(&format!("m{number}")).await;
        member.subscribe("$share/g/t/+", QoS::AtLeastOnce).await;
        members.push(member);
    }
    let mut publisher = harness.client("publisher").await;
    for number in 0..40u16 {
        publisher.publish("t/x", &number.to_be_bytes(), QoS::AtLeastOnce, false, number + 1).await;
        publisher.receive().await;
    }
    let mut all = Vec::new();
    for member in &mut members {
        for _ in 0..10 {
            let Got::Publish { payload, id: Some(id), .. } = member.receive().await else {
                panic!("a share")
            };
            all.push(u16::from_be_bytes(payload.try_into().unwrap()));
            member.puback(id).await;
        }
        member.expect_nothing().await;
    }
    all.sort_unstable();
    assert_eq!(all, (0..40).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_a_member_did_not_acknowledge_goes_to_another_at_qos_1_and_stays_at_qos_2() {
    let harness = start(BrokerConfig::default()).await;
    let (mut first, _) = harness.durable("first").await;
    first.subscribe("$share/g/t", QoS::ExactlyOnce).await;
    let mut publisher = harness.client("publisher").await;
    publisher.publish("t", b"one", QoS::AtLeastOnce, false, 1).await;
    publisher.publish("t", b"two", QoS::ExactlyOnce, false, 2).await;
    assert_eq!(first.payload().await, b"one");
    assert_eq!(first.payload().await, b"two");
    let (mut second, _) = harness.durable("second").await;
    second.subscribe("$share/g/t", QoS::ExactlyOnce).await;
    drop(first);
    assert_eq!(second.payload().await, b"one");
    second.expect_nothing().await;
    let (mut first, present) = harness.durable("first").await;
    assert!(present);
    let Got::Publish { payload, dup: true, qos: QoS::ExactlyOnce, .. } = first.receive().await else {
        panic!("the QoS 2 message stays with its member")
    };
    assert_eq!(payload, b"two");
    first.expect_nothing().await;
}

#[tokio::test]
async fn a_group_keeps_messages_while_no_member_has_room() {
    let harness = start(BrokerConfig::default()).await;
    let mut connect = durable("m");
    connect.properties.receive_maximum = 2;
    let (mut member, _) = harness.connect(&connect).await;
    member.subscribe("$share/g/t", QoS::AtLeastOnce).await;
    let mut publisher = harness.client("publisher").await;
    for number in 0..20u8 {
        publisher.publish("t", &[number], QoS::AtLeastOnce, false, 1).await;
        publisher.receive().await;
    }
    for number in 0..10u8 {
        let Got::Publish { payload, id: Some(id), .. } = member.receive().await else {
            panic!("message {number}")
        };
        assert_eq!(payload, [number]);
        member.puback(id).await;
    }
    drop(member);
    let (mut member, _) = harness.connect(&connect).await;
    for number in 10..20u8 {
        let Got::Publish { payload, id: Some(id), .. } = member.receive().await else {
            panic!("message {number}")
        };
        assert_eq!(payload, [number]);
        member.puback(id).await;
    }
    member.expect_nothing().await;
}

#[tokio::test]
async fn a_full_queue_with_policy_refuse_refuses_the_publish_for_everybody() {
    let config = limits(Limits {
        max_queued_messages: 3,
        max_queued_policy: QueuePolicy::Refuse,
        ..Limits::default()
    });
    let harness = start(config).await;
    let (mut sleeper, _) = harness.durable("sleeper").await;
    sleeper.subscribe("t", QoS::AtLeastOnce).await;
    drop(sleeper);
    let mut watcher = harness.client("watcher").await;
    watcher.subscribe("t", QoS::AtLeastOnce).await;
    let mut publisher = harness.client("publisher").await;
    let mut refused = 0;
    for number in 0..6u8 {
        publisher.publish("t", &[number], QoS::AtLeastOnce, false, 1).await;
        match publisher.receive().await {
            Got::Ack("PUBACK", _, ReasonCode::Success) => assert_eq!(watcher.payload().await, [number]),
            Got::Ack("PUBACK", _, ReasonCode::QuotaExceeded) => {
                watcher.expect_nothing().await;
                refused += 1;
            }
            other => panic!("no PUBACK but {other:?}"),
        }
    }
    assert!(
        (2..=3).contains(&refused),
        "the sleeper's queue takes three, or four if it was still connected: {refused}"
    );
}

#[tokio::test]
async fn the_limits_answer_with_the_reason_code_of_the_specification() {
    let config = limits(Limits {
        max_subscriptions: 2,
        max_topic_levels: 3,
        receive_maximum: 2,
        topic_alias_maximum: 1,
        ..Limits::default()
    });
    let harness = start(config).await;
    let mut client = harness.client("c").await;
    assert_eq!(client.subscribe("a/b/c", QoS::AtMostOnce).await, [0]);
    assert_eq!(client.subscribe("a/b/c/d", QoS::AtMostOnce).await, [ReasonCode::TopicFilterInvalid.code()]);
    assert_eq!(client.subscribe("b", QoS::AtMostOnce).await, [0]);
    assert_eq!(client.subscribe("c", QoS::AtMostOnce).await, [ReasonCode::QuotaExceeded.code()]);
    assert_eq!(client.subscribe("$share//c", QoS::AtMostOnce).await, [ReasonCode::TopicFilterInvalid.code()]);
    client.publish("a/b/c/d", b"", QoS::AtLeastOnce, false, 1).await;
    assert_eq!(client.receive().await, Got::Ack("PUBACK", id(1), ReasonCode::TopicNameInvalid));
    client.publish("$SYS/x", b"", QoS::AtLeastOnce, false, 1).await;
    assert_eq!(client.receive().await, Got::Ack("PUBACK", id(1), ReasonCode::NotAuthorized));
    for number in 1..=3 {
        client.publish("x", b"", QoS::ExactlyOnce, false, number).await;
    }
    for number in 1..=2 {
        assert_eq!(client.receive().await, Got::Ack("PUBREC", id(number), ReasonCode::NoMatchingSubscribers));
    }
    assert_eq!(client.receive().await, Got::Disconnect(ReasonCode::ReceiveMaximumExceeded));
    assert_eq!(client.receive().await, Got::Closed);
}

#[tokio::test]
async fn silence_beyond_the_keep_alive_closes_the_connection() {
    let harness = start(BrokerConfig::default()).await;
    let mut connect = Connect::new(ProtocolVersion::V5, "c");
    connect.keep_alive_s = 1;
    let began = std::time::Instant::now();
    let (mut client, _) = harness.connect(&connect).await;
    assert_eq!(client.receive().await, Got::Disconnect(ReasonCode::KeepAliveTimeout));
    assert!(began.elapsed() >= std::time::Duration::from_millis(1450), "never early");
}

#[tokio::test]
async fn shutdown_tells_clients_and_closes() {
    let harness = start(BrokerConfig::default()).await;
    let mut client = harness.client("c").await;
    let broker = harness.broker.clone();
    let shutdown = tokio::spawn(async move { broker.shutdown(common::FOR_EVER).await });
    assert_eq!(client.receive().await, Got::Disconnect(ReasonCode::ServerShuttingDown));
    drop(client);
    shutdown.await.unwrap();
}

/// Republishes everything to `out/<topic>` in as many turns as it is told, and counts.
#[derive(Default)]
struct Doubler {
    turns: usize,
    seen: AtomicU64,
}

struct Hook(Arc<Doubler>);

impl MessageHook for Hook {
    fn generation(&self) -> u64 {
        0
    }
    fn candidates(&self, topic: &str) -> Option<Arc<dyn MessageHandler>> {
        (!topic.starts_with("plain")).then(|| Arc::clone(&self.0) as _)
    }
}

impl MessageHandler for Doubler {
    fn handle(&self, message: &Publication<'_>, cursor: &mut usize, effects: &mut HookEffects) -> Progress {
        *cursor += 1;
        if *cursor < self.turns {
            return Progress::Yield;
        }
        self.seen.fetch_add(1, Ordering::Relaxed);
        effects.republish.push(Republish {
            rule: u32::try_from(message.trail.rules().len()).unwrap_or(u32::MAX),
            topic: format!("out/{}", message.topic),
            payload: message.payload.to_vec(),
            qos: message.qos,
            retain: false,
            properties: Vec::new(),
            message_expiry_interval_s: None,
            run_as: None,
            trace: None,
        });
        Progress::Done
    }
}

#[tokio::test]
async fn what_rules_make_is_routed_in_order_before_the_acknowledgement_and_chains_end() {
    let doubler = Arc::new(Doubler { turns: 3, ..Doubler::default() });
    let hook = Arc::new(Hook(Arc::clone(&doubler)));
    let harness = start_with(BrokerConfig::default(), Arc::new(MemoryStore::new(1)), Some(hook)).await;
    let mut client = harness.client("c").await;
    client.subscribe("#", QoS::AtLeastOnce).await;
    client.publish("t", b"m", QoS::AtLeastOnce, false, 1).await;
    let mut expected = "t".to_owned();
    let mut acknowledged = false;
    for _ in 0..10 {
        match client.receive().await {
            Got::Publish { topic, .. } => {
                assert_eq!(topic, expected);
                expected = format!("out/{expected}");
            }
            Got::Ack("PUBACK", ..) => acknowledged = true,
            other => panic!("{other:?}"),
        }
    }
    assert!(acknowledged);
    client.expect_nothing().await;
    assert_eq!(doubler.seen.load(Ordering::Relaxed), 9, "the message and eight hops");
    assert_eq!(harness.broker.stats().dropped_rule_output, 1);
    client.publish("plain", b"", QoS::AtMostOnce, false, 0).await;
    client.receive().await;
    assert_eq!(doubler.seen.load(Ordering::Relaxed), 9);
}

/// Whatever way a message takes through admission, those that rules made of it come right behind it, in their order.
#[tokio::test]
async fn what_rules_make_comes_right_behind_its_source_on_every_way() {
    for (max_queued_policy, qos, retain) in [
        (QueuePolicy::DropOldest, QoS::AtMostOnce, false),
        (QueuePolicy::DropOldest, QoS::AtLeastOnce, false),
        (QueuePolicy::DropOldest, QoS::ExactlyOnce, false),
        (QueuePolicy::DropOldest, QoS::AtLeastOnce, true),
        (QueuePolicy::Refuse, QoS::AtLeastOnce, false),
    ] {
        let hook = Arc::new(Tripler { retain });
        let config = limits(Limits { max_queued_policy, ..Limits::default() });
        let harness = start_with(config, Arc::new(MemoryStore::new(1)), Some(hook)).await;
        let mut receiver = harness.client("receiver").await;
        receiver.subscribe("#", QoS::AtMostOnce).await;
        let mut publisher = harness.client("publisher").await;
        for number in 1..=3u16 {
            let id = if qos == QoS::AtMostOnce { 0 } else { number };
            publisher.publish("in/t", &number.to_be_bytes(), qos, false, id).await;
        }
        for number in 1..=3u16 {
            for expected in ["in/t", "out/0", "out/1", "out/2"] {
                let Got::Publish { topic, payload, .. } = receiver.receive().await else {
                    panic!("a message")
                };
                assert_eq!((&*topic, &*payload), (expected, &number.to_be_bytes()[..]));
            }
            let answer = match qos {
                QoS::AtMostOnce => continue,
                QoS::AtLeastOnce => "PUBACK",
                QoS::ExactlyOnce => "PUBREC",
            };
            assert_eq!(publisher.receive().await, Got::Ack(answer, id(number), ReasonCode::Success));
        }
        receiver.expect_nothing().await;
        let stats = harness.broker.stats();
        assert_eq!((stats.messages_received, stats.messages_republished), (3, 9));
        assert_eq!(stats.retained_messages, if retain { 3 } else { 0 });
    }
}

/// Republishes what comes below `in/` to three topics that no rule sees.
struct Tripler {
    retain: bool,
}

impl MessageHook for Tripler {
    fn generation(&self) -> u64 {
        0
    }
    fn candidates(&self, topic: &str) -> Option<Arc<dyn MessageHandler>> {
        topic.starts_with("in/").then(|| Arc::new(Self { retain: self.retain }) as _)
    }
}

impl MessageHandler for Tripler {
    fn handle(&self, message: &Publication<'_>, _: &mut usize, effects: &mut HookEffects) -> Progress {
        effects.republish.extend((0..3).map(|number| Republish {
            rule: 1,
            topic: format!("out/{number}"),
            payload: message.payload.to_vec(),
            qos: message.qos,
            retain: self.retain,
            properties: Vec::new(),
            message_expiry_interval_s: None,
            run_as: None,
            trace: None,
        }));
        Progress::Done
    }
}

/// Publishes that stand together in a read buffer are handed on together; receivers that differ still get what is theirs.
#[tokio::test]
async fn a_run_of_publishes_reaches_every_kind_of_receiver_in_order() {
    let harness = start(BrokerConfig::default()).await;
    let old = |client_id| Connect::new(ProtocolVersion::V3_1_1, client_id);
    let mut aliasing = Connect::new(ProtocolVersion::V5, "aliasing");
    aliasing.properties.topic_alias_maximum = 5;
    let mut small = Connect::new(ProtocolVersion::V5, "small");
    small.properties.maximum_packet_size = Some(60);
    let (mut same, _) = harness.connect(&Connect::new(ProtocolVersion::V5, "same")).await;
    let (mut older, _) = harness.connect(&old("older")).await;
    let (mut aliasing, _) = harness.connect(&aliasing).await;
    let (mut small, _) = harness.connect(&small).await;
    let (mut sharing, _) = harness.connect(&Connect::new(ProtocolVersion::V5, "sharing")).await;
    let (mut identified, _) = harness.connect(&Connect::new(ProtocolVersion::V5, "identified")).await;
    for client in [&mut same, &mut older, &mut aliasing, &mut small] {
        client.subscribe("run/+", QoS::AtLeastOnce).await;
    }
    sharing.subscribe("$share/g/run/#", QoS::AtLeastOnce).await;
    identified.subscribe_with("run/a", SubscriptionOptions::from_qos(QoS::AtMostOnce), Some(9)).await;
    identified.receive().await;
    let mut alias_of = std::collections::HashMap::new();
    for version in [ProtocolVersion::V5, ProtocolVersion::V3_1_1] {
        let (mut publisher, _) = harness.connect(&Connect::new(version, "publisher")).await;
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for number in 0..50u8 {
            let payload = vec![number; if number == 7 { 80 } else { usize::from(number % 5) }];
            let topic = if number % 10 == 9 { "run/b" } else { "run/a" };
            let outgoing = mqtt_protocol::Outgoing {
                topic,
                payload: &payload,
                forward: &[],
                message_expiry_interval_s: None,
            };
            // A QoS 1 publish in the middle stays in its place.
            let (qos, id) =
                if number == 25 { (QoS::AtLeastOnce, Some(id(1))) } else { (QoS::AtMostOnce, None) };
            mqtt_protocol::encode_publish(
                &mut bytes,
                version,
                &outgoing,
                qos,
                false,
                false,
                id,
                None,
                &[],
                true,
            )
            .expect("encodes");
            expected.push((topic.to_owned(), payload));
        }
        publisher.send_bytes(&bytes).await;
        assert!(matches!(publisher.receive().await, Got::Ack("PUBACK", ..)));
        publisher.expect_nothing().await;
        for (client, takes) in
            [(&mut same, usize::MAX), (&mut older, usize::MAX), (&mut small, 50), (&mut sharing, usize::MAX)]
        {
            for (topic, payload) in expected.iter().filter(|(_, payload)| payload.len() <= takes) {
                let Got::Publish { topic: got, payload: got_payload, .. } = client.receive().await else {
                    panic!("a message")
                };
                assert_eq!((&got, &got_payload), (topic, payload));
            }
            client.expect_nothing().await;
        }
        for (topic, payload) in expected.iter().filter(|(topic, _)| topic == "run/a") {
            let Got::Publish { topic: got, payload: got_payload, identifiers, .. } =
                identified.receive().await
            else {
                panic!("a message")
            };
            assert_eq!((&got, &got_payload, &identifiers[..]), (topic, payload, &[9][..]));
        }
        for (topic, payload) in &expected {
            let Got::Publish { topic: got, payload: got_payload, alias, .. } = aliasing.receive().await
            else {
                panic!("a message")
            };
            let known = alias.map(|alias| alias_of.entry(alias).or_insert_with(|| got.clone()).clone());
            assert_eq!((known.unwrap_or(got), &got_payload), (topic.clone(), payload));
        }
    }
    let stats = harness.broker.stats();
    assert_eq!(stats.messages_received, 100);
    assert_eq!(stats.dropped_too_large, 2);
}

#[tokio::test]
async fn what_an_ended_session_held_of_a_share_goes_to_an_idle_member() {
    let harness = start(BrokerConfig::default()).await;
    let (mut first, _) = harness.durable("first").await;
    first.subscribe("$share/g/t", QoS::AtLeastOnce).await;
    let mut publisher = harness.client("publisher").await;
    for number in 0..3u8 {
        publisher.publish("t", &[number], QoS::AtLeastOnce, false, 1).await;
        publisher.receive().await;
    }
    let (mut second, _) = harness.durable("second").await;
    second.subscribe("$share/g/t", QoS::AtLeastOnce).await;
    second.expect_nothing().await;
    // Clean Start ends the session that holds three unacknowledged messages.
    let mut fresh = durable("first");
    fresh.clean_start = true;
    let _fresh = harness.connect(&fresh).await;
    for number in 0..3u8 {
        assert_eq!(second.payload().await, [number]);
    }
    publisher.publish("t", b"later", QoS::AtLeastOnce, false, 1).await;
    assert_eq!(second.payload().await, b"later");
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_closed_by_its_keep_alive_and_its_will_is_sent() {
    let harness = start(BrokerConfig::default()).await;
    let mut watcher = harness.client("watcher").await;
    watcher.subscribe("will", QoS::AtMostOnce).await;
    let mut connect = with_will("stuck", 0);
    connect.keep_alive_s = 1;
    let (mut stuck, _) = harness.connect(&connect).await;
    stuck.subscribe("flood", QoS::AtMostOnce).await;
    let mut publisher = harness.client("publisher").await;
    // More than the sockets between them hold, so that the broker has something left to write.
    for _ in 0..64 {
        publisher.publish("flood", &vec![0; 256 * 1024], QoS::AtMostOnce, false, 0).await;
    }
    assert_eq!(watcher.payload().await, b"stuck");
}

#[tokio::test]
async fn a_client_that_asks_and_never_reads_is_read_no_further() {
    let harness = start(limits(Limits { max_outbound_bytes: 64 * 1024, ..Limits::default() })).await;
    let mut client = harness.client("c").await;
    let pings = [0xC0, 0x00].repeat(512 * 1024);
    // Answers of this size don't fit into the sockets: at some point the broker stops reading, and so does this end.
    let mut blocked = false;
    for _ in 0..64 {
        let sent =
            tokio::time::timeout(std::time::Duration::from_millis(500), client.send_bytes(&pings)).await;
        if sent.is_err() {
            blocked = true;
            break;
        }
    }
    assert!(blocked, "64 MiB of PINGREQ were taken in");
    harness.client("other").await.expect_nothing().await;
}

/// What is handed on as it came must be what other clients accept.
#[tokio::test]
async fn a_padded_length_is_not_handed_on() {
    let harness = start(BrokerConfig::default()).await;
    let mut receiver = harness.client("receiver").await;
    receiver.subscribe("t", QoS::AtMostOnce).await;
    let plain = [0x30, 5, 0, 1, b't', 0, b'x'];
    let padded = [0x30, 0x85, 0, 0, 1, b't', 0, b'y'];
    let mut publisher = harness.client("publisher").await;
    publisher.send_bytes(&[&plain[..], &padded[..], &plain[..]].concat()).await;
    assert_eq!(publisher.receive().await, Got::Disconnect(ReasonCode::MalformedPacket));
    assert_eq!(receiver.payload().await, b"x");
    receiver.expect_nothing().await;
    // MQTT 3 has no rule against it; others get it in its proper form.
    let (mut publisher, _) = harness.connect(&Connect::new(ProtocolVersion::V3_1_1, "publisher")).await;
    let (mut old, _) = harness.connect(&Connect::new(ProtocolVersion::V3_1_1, "old")).await;
    old.subscribe("t", QoS::AtMostOnce).await;
    let padded = [0x30, 0x84, 0, 0, 1, b't', b'y'];
    publisher.send_bytes(&[&padded[..], &padded[..]].concat()).await;
    for receiver in [&mut receiver, &mut old] {
        assert_eq!(receiver.payload().await, b"y");
        assert_eq!(receiver.payload().await, b"y");
        receiver.expect_nothing().await;
    }
}

#[tokio::test]
async fn a_connection_that_was_taken_over_can_no_longer_touch_the_session() {
    let harness = start(BrokerConfig::default()).await;
    let (mut old, _) = harness.durable("c").await;
    old.subscribe("kept", QoS::AtLeastOnce).await;
    for round in 0..50 {
        let (new, present) = harness.durable("c").await;
        assert!(present);
        // Sent in the moment of the takeover: it would end the session with the new connection.
        let mut goodbye = Disconnect::new(ReasonCode::NormalDisconnection);
        goodbye.session_expiry_interval_s = Some(0);
        let mut bytes = Vec::new();
        Packet::Disconnect(goodbye).encode(ProtocolVersion::V5, &mut bytes).expect("encodes");
        old.try_send_bytes(&bytes).await;
        assert_eq!(harness.broker.stats().sessions, 1, "round {round}");
        old = new;
    }
    drop(old);
    let (_again, present) = harness.durable("c").await;
    assert!(present);
}

#[tokio::test]
async fn a_copy_of_a_publish_that_mqtt_3_may_not_make_is_answered_like_the_first() {
    let harness = start(BrokerConfig::default()).await;
    let (mut client, _) = harness.connect(&Connect::new(ProtocolVersion::V3_1_1, "c")).await;
    for _ in 0..2 {
        client.publish("$SYS/x", b"", QoS::ExactlyOnce, false, 1).await;
        assert_eq!(client.receive().await, Got::Ack("PUBREC", id(1), ReasonCode::Success));
    }
    client.publish("t", b"", QoS::AtLeastOnce, false, 2).await;
    assert_eq!(client.receive().await, Got::Ack("PUBACK", id(2), ReasonCode::Success));
}
