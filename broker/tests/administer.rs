//! What an administrator sees of clients, Subscriptions and Retained Messages, and does to them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests panic where they can't go on"
)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use broker::{Broker, BrokerConfig, ClientFilter, InternalPublish, Message, Trail};
use common::{Got, Harness, durable, listen};
use mqtt_protocol::{
    Connect, Packet, ProtocolVersion, PublishProperties, QoS, ReasonCode, SubscriptionOptions, Will,
};
use store::{DurableStore, FaultDisk, StoreOptions};

async fn start() -> Harness {
    common::start(quiet()).await
}

fn quiet() -> BrokerConfig {
    BrokerConfig { sys_interval: Duration::ZERO, ..BrokerConfig::default() }
}

async fn on(disk: &FaultDisk) -> Harness {
    let options = StoreOptions { segment_bytes: 1 << 20, reserve_bytes: 0, ..StoreOptions::default() };
    let (store, _) = DurableStore::open_on(Arc::new(disk.clone()), options).unwrap();
    let store = Arc::new(store);
    let broker = Broker::new(quiet(), Arc::clone(&store) as _, None);
    broker.restore(store).await.unwrap();
    listen(broker).await
}

async fn retain(broker: &Broker, topic: &str, payload: &[u8]) {
    let publish = InternalPublish {
        topic: topic.to_owned(),
        payload: payload.to_vec(),
        qos: QoS::AtLeastOnce,
        retain: true,
        properties: Vec::new(),
        message_expiry_interval_s: None,
        trail: Trail::default(),
        run_as: None,
    };
    broker.publish(publish).await.unwrap();
}

fn names(found: &[broker::ClientInfo]) -> Vec<&str> {
    found.iter().map(|client| client.client_id.as_str()).collect()
}

#[tokio::test]
async fn pages_of_clients_follow_their_names_and_miss_nobody() {
    let harness = start().await;
    let mut clients = Vec::new();
    for number in 0..25 {
        clients.push(harness.client(&format!("c{number:02}")).await);
    }
    let mut seen = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let (page, has_more) = harness.broker.clients(&ClientFilter::default(), after.as_deref(), 10);
        assert_eq!(has_more, page.len() == 10);
        seen.extend(page.into_iter().map(|client| client.client_id));
        after = seen.last().cloned();
        if !has_more {
            break;
        }
    }
    assert_eq!(seen, (0..25).map(|number| format!("c{number:02}")).collect::<Vec<_>>());
    let exactly = harness.broker.clients(&ClientFilter::default(), None, 25);
    assert_eq!(
        (exactly.0.len(), exactly.1),
        (25, false),
        "a page that is just full says that it is the last"
    );
    assert!(harness.broker.clients(&ClientFilter::default(), Some("c24"), 10).0.is_empty());
}

#[tokio::test]
async fn clients_are_found_by_part_of_their_name_and_by_being_connected() {
    let harness = start().await;
    let _here = harness.client("pump-1").await;
    let (gone, _) = harness.durable("pump-2").await;
    drop(gone);
    let _other = harness.client("valve-1").await;
    while harness.broker.client("pump-2").unwrap().connection.is_some() {
        tokio::task::yield_now().await;
    }
    let find = |filter: ClientFilter| {
        let (found, _) = harness.broker.clients(&filter, None, 10);
        names(&found).join(" ")
    };
    let pumps = || ClientFilter { contains: Some("pump".to_owned()), ..ClientFilter::default() };
    assert_eq!(find(pumps()), "pump-1 pump-2");
    assert_eq!(find(ClientFilter { connected: Some(true), ..pumps() }), "pump-1");
    assert_eq!(find(ClientFilter { connected: Some(false), ..ClientFilter::default() }), "pump-2");
    assert_eq!(find(ClientFilter { username: Some("ada".to_owned()), ..ClientFilter::default() }), "");
}

#[tokio::test]
async fn a_client_is_shown_as_it_is() {
    let harness = start().await;
    let mut connect = durable("c");
    connect.username = Some("ada");
    let (mut client, _) = harness.connect(&connect).await;
    client.subscribe("a/#", QoS::AtLeastOnce).await;
    let shown = harness.broker.client("c").unwrap();
    let connection = shown.connection.unwrap();
    assert_eq!(connection.who.username(), Some("ada"));
    assert_eq!(connection.version, ProtocolVersion::V5);
    assert_eq!((shown.session_expiry_s, shown.subscriptions, shown.has_will), (3600, 1, false));
    drop(client);
    while harness.broker.client("c").unwrap().connection.is_some() {
        tokio::task::yield_now().await;
    }
    retain(&harness.broker, "a/b", b"12345").await;
    let shown = harness.broker.client("c").unwrap();
    assert_eq!((shown.queued_messages, shown.queued_bytes), (1, 8));
    assert!(harness.broker.client("d").is_none());
}

#[tokio::test]
async fn subscriptions_are_shown_with_their_options_and_in_pages() {
    let harness = start().await;
    let mut one = harness.client("a").await;
    for filter in ["x/1", "x/+", "$share/g/x/#"] {
        let options =
            SubscriptionOptions { no_local: false, ..SubscriptionOptions::from_qos(QoS::ExactlyOnce) };
        one.subscribe_with(filter, options, Some(7)).await;
        assert!(matches!(one.receive().await, Got::SubAck(_)));
    }
    let mut two = harness.client("b").await;
    two.subscribe("y", QoS::AtMostOnce).await;
    two.subscribe("x/2", QoS::AtMostOnce).await;
    let _none = harness.client("c").await;
    let all = |client_id, topic| {
        let mut seen: Vec<String> = Vec::new();
        let mut after: Option<(String, String)> = None;
        loop {
            let behind = after.as_ref().map(|(id, filter)| (id.as_str(), filter.as_str()));
            let (page, has_more) = harness.broker.subscriptions(client_id, topic, behind, 2);
            assert!(page.len() <= 2 && (!has_more || page.len() == 2));
            seen.extend(page.iter().map(|found| format!("{} {}", found.client_id, found.filter)));
            match page.last().filter(|_| has_more) {
                Some(last) => after = Some((last.client_id.clone(), last.filter.clone())),
                None => return seen,
            }
        }
    };
    assert_eq!(all(None, None), ["a $share/g/x/#", "a x/+", "a x/1", "b x/2", "b y"]);
    assert_eq!(all(Some("a"), None), ["a $share/g/x/#", "a x/+", "a x/1"]);
    assert_eq!(all(None, Some("x/2")), ["a $share/g/x/#", "a x/+", "b x/2"]);
    assert_eq!(all(Some("nobody"), None), Vec::<String>::new());
    let (shown, _) = harness.broker.subscriptions(Some("a"), None, None, 10);
    for subscription in shown {
        assert_eq!(
            (subscription.options.qos, subscription.identifier),
            (QoS::ExactlyOnce, 7),
            "{subscription:?}"
        );
    }
}

#[tokio::test]
async fn pages_of_retained_messages_have_each_of_them_once() {
    let harness = start().await;
    for number in 0..50 {
        retain(&harness.broker, &format!("d/{number}"), b"x").await;
    }
    retain(&harness.broker, "e", b"x").await;
    let mut topics = Vec::new();
    let mut from = None;
    let mut pages = 0;
    loop {
        let (page, next) = harness.broker.retained("d/#", from, 7).await;
        assert!(page.len() <= 7);
        topics.extend(page.iter().map(|message: &Arc<Message>| message.topic().to_owned()));
        pages += 1;
        match next {
            Some(next) => from = Some(next),
            None => break,
        }
    }
    assert!(pages >= 8);
    topics.sort_unstable();
    let mut expected: Vec<_> = (0..50).map(|number| format!("d/{number}")).collect();
    expected.sort_unstable();
    assert_eq!(topics, expected);
    assert_eq!(harness.broker.retained_message("e").unwrap().payload(), b"x");
    assert!(harness.broker.retained_message("f").is_none());
}

#[tokio::test]
async fn a_client_that_is_disconnected_is_told_and_keeps_its_session() {
    let harness = start().await;
    let (mut client, _) = harness.durable("c").await;
    client.subscribe("a", QoS::AtLeastOnce).await;
    assert!(harness.broker.disconnect("c"));
    assert_eq!(client.receive().await, Got::Disconnect(ReasonCode::AdministrativeAction));
    assert_eq!(client.receive().await, Got::Closed);
    assert!(!harness.broker.disconnect("nobody"));
    let (_again, present) = harness.durable("c").await;
    assert!(present);
}

#[tokio::test]
async fn a_session_that_is_ended_is_gone_with_its_connection_and_what_it_was_owed() {
    let disk = FaultDisk::default();
    let harness = on(&disk).await;
    let (mut client, _) = harness.durable("c").await;
    client.subscribe("a", QoS::AtLeastOnce).await;
    client.subscribe("$share/g/b", QoS::AtLeastOnce).await;
    assert_eq!(harness.broker.end_session("c").await, Ok(true));
    assert!(harness.broker.client("c").is_none());
    assert_eq!(harness.broker.subscriptions(None, None, None, 10), (Vec::new(), false));
    assert_eq!(harness.broker.stats().subscriptions, 0);
    assert_eq!(client.receive().await, Got::Disconnect(ReasonCode::AdministrativeAction));
    assert_eq!(client.receive().await, Got::Closed);
    assert_eq!(harness.broker.end_session("c").await, Ok(false));

    // As at the moment of the answer: the store has forgotten it, too.
    drop(harness);
    let harness = on(&disk.power_cut(1)).await;
    assert!(harness.broker.client("c").is_none());
    let (mut again, present) = harness.durable("c").await;
    assert!(!present);
    again.subscribe("a", QoS::AtLeastOnce).await;
    again.expect_nothing().await;
}

#[tokio::test]
async fn a_session_without_a_connection_is_ended_and_its_will_is_published() {
    let harness = start().await;
    let mut watcher = harness.client("watcher").await;
    watcher.subscribe("will", QoS::AtMostOnce).await;
    let mut connect = durable("c");
    connect.will = Some(Will {
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "will",
        payload: b"gone",
        delay_interval_s: 3600,
        publish: PublishProperties::default(),
    });
    let (client, _) = harness.connect(&connect).await;
    drop(client);
    while harness.broker.client("c").unwrap().connection.is_some() {
        tokio::task::yield_now().await;
    }
    assert!(harness.broker.client("c").unwrap().has_will);
    assert_eq!(harness.broker.end_session("c").await, Ok(true));
    assert_eq!(watcher.payload().await, b"gone");
}

#[tokio::test]
async fn the_next_client_of_an_ended_session_begins_anew_while_the_old_one_is_on_its_way_out() {
    let harness = start().await;
    let connect = Packet::Connect(Box::new(durable("c")));
    for _ in 0..50 {
        let (mut old, _) = harness.durable("c").await;
        old.subscribe("a", QoS::AtLeastOnce).await;
        let mut next = harness.raw(ProtocolVersion::V5).await;
        let (ended, ()) = tokio::join!(harness.broker.end_session("c"), next.send(&connect));
        assert_eq!(ended, Ok(true));
        assert!(matches!(next.receive().await, Got::ConnAck { reason: ReasonCode::Success, .. }));
        next.expect_nothing().await;
        assert!(matches!(old.receive().await, Got::Disconnect(_)));
        assert_eq!(harness.broker.end_session("c").await, Ok(true));
        assert_eq!(next.receive().await, Got::Disconnect(ReasonCode::AdministrativeAction));
        assert_eq!(next.receive().await, Got::Closed);
    }
    assert_eq!(harness.broker.stats().subscriptions, 0);
}

#[tokio::test]
async fn a_retained_message_is_forgotten_and_nobody_is_sent_anything() {
    let disk = FaultDisk::default();
    let harness = on(&disk).await;
    retain(&harness.broker, "a", b"1").await;
    retain(&harness.broker, "b", b"2").await;
    let mut client = harness.connect(&Connect::new(ProtocolVersion::V5, "c")).await.0;
    client.subscribe("a", QoS::AtMostOnce).await;
    assert_eq!(client.payload().await, b"1");
    assert_eq!(harness.broker.clear_retained("a").await, Ok(true));
    assert_eq!(harness.broker.clear_retained("a").await, Ok(false));
    client.expect_nothing().await;
    let totals = harness.broker.stats();
    assert_eq!(totals.retained_messages, 1);
    drop((client, harness));
    let harness = on(&disk.power_cut(2)).await;
    assert!(harness.broker.retained_message("a").is_none());
    assert_eq!(harness.broker.retained_message("b").unwrap().payload(), b"2");
}

#[tokio::test]
async fn a_watch_sees_what_it_asks_for_at_its_rate_and_counts_the_rest() {
    let harness = start().await;
    let mut hall = harness.broker.watch("hall/+", 3);
    let mut all = harness.broker.watch("#", 1_000_000);
    for number in 0..300 {
        retain(&harness.broker, &format!("hall/{number}"), b"x").await;
    }
    retain(&harness.broker, "yard", b"y").await;
    retain(&harness.broker, "hall/0/temp", b"z").await;
    assert_eq!(hall.next().await.unwrap().topic(), "hall/0");
    // The second may have changed in between.
    let mut shown = 1;
    while let Ok(Some(message)) = tokio::time::timeout(Duration::ZERO, hall.next()).await {
        assert!(message.topic().starts_with("hall/") && message.payload() == b"x");
        shown += 1;
    }
    assert!((3..=256).contains(&shown), "{shown}");
    assert_eq!(hall.take_missed(), 300 - shown);
    assert_eq!(hall.take_missed(), 0);
    // What isn't read is missed, and nobody waits for it.
    let mut read = 0;
    while let Ok(Some(_)) = tokio::time::timeout(Duration::ZERO, all.next()).await {
        read += 1;
    }
    assert_eq!((read, all.take_missed()), (256, 302 - 256));
    drop(hall);
    retain(&harness.broker, "hall/9", b"again").await;
    assert_eq!(all.next().await.unwrap().payload(), b"again");
}

#[tokio::test]
async fn a_watch_shows_a_message_of_many_receivers_once() {
    let harness = start().await;
    let mut clients = Vec::new();
    for number in 0..600 {
        let mut client = harness.client(&format!("c{number}")).await;
        client.subscribe("t", QoS::AtMostOnce).await;
        clients.push(client);
    }
    let mut watch = harness.broker.watch("#", 100);
    retain(&harness.broker, "t", b"1").await;
    retain(&harness.broker, "t", b"2").await;
    assert_eq!(watch.next().await.unwrap().payload(), b"1");
    assert_eq!(watch.next().await.unwrap().payload(), b"2");
}
