//! Whose a session is, and who left what is retained or waits to be sent: over takeovers and power cuts.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic where they can't go on")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use broker::{
    AccessControl, Action, Answer, Attempt, Broker, BrokerConfig, ClientIds, Decision, Grants, Identity,
    Limits, ListenerConfig, Publisher, Takeover, Verdict,
};
use common::{Client, FOR_EVER, Got, Harness, id};
use mqtt_protocol::{Connect, Packet, ProtocolVersion, QoS, ReasonCode, SubscriptionOptions, Will};
use parking_lot::Mutex;
use store::{DurableStore, FaultDisk, ManualStore, MemoryStore, Store, StoreOptions};

/// Believes whoever shows a password, and denies what it is told to.
#[derive(Debug, Default)]
struct People {
    denied: Mutex<Vec<&'static str>>,
    version: AtomicU64,
    /// Whom it was asked about, and what.
    asked: Mutex<Vec<String>>,
}

#[derive(Debug)]
struct Granted;

impl Grants for Granted {}

impl People {
    fn deny(&self, what: &'static str) {
        self.denied.lock().push(what);
        self.version.fetch_add(1, Ordering::Release);
    }

    fn was_asked(&self, what: &str) -> bool {
        self.asked.lock().iter().any(|asked| asked == what)
    }
}

impl AccessControl for People {
    fn authenticate(&self, attempt: Attempt) -> Answer {
        let is_proven = attempt.password.is_some();
        let brings_rules = attempt.password.as_deref() == Some(b"rules");
        let identity = Identity {
            username: attempt.username,
            authenticator: is_proven.then(|| "people".into()),
            groups: if is_proven { ["crew".into()].into() } else { Box::default() },
            expires_at_ms: None,
            grants: brings_rules.then(|| Arc::new(Granted) as Arc<dyn Grants>),
        };
        Box::pin(std::future::ready(Verdict::Accept(Arc::new(identity), None)))
    }

    fn is_open(&self, _: &Publisher) -> bool {
        false
    }

    /// Asked as `who: action topic`, with `*` for a user name that isn't proven.
    fn decide(&self, who: &Publisher, action: Action<'_>) -> Decision {
        let user = who.identity.authenticator.as_ref().map_or("*", |_| who.username().unwrap_or("?"));
        let (action, topic) = match action {
            Action::Publish { topic, .. } => ("publish", topic),
            Action::Subscribe { filter, .. } => ("subscribe", filter),
            Action::Receive { topic } => ("receive", topic),
        };
        let asked = format!("{user}: {action} {topic}");
        let groups: Vec<&str> = who.identity.groups.iter().map(|group| &**group).collect();
        let address = who.address.ip().map(|address| address.to_string()).unwrap_or_default();
        self.asked
            .lock()
            .push(format!("{asked} ({}, {groups:?}, {address}, {})", who.client_id, who.listener));
        if self.denied.lock().contains(&asked.as_str()) {
            Decision::Deny("the test".into())
        } else if action == "subscribe" && topic.ends_with('#') {
            Decision::AllowInPart
        } else {
            Decision::Allow
        }
    }

    fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }
}

async fn listen(broker: &Broker, client_ids: ClientIds, takeover: Takeover) -> Harness {
    let config = ListenerConfig {
        allow_anonymous: true,
        client_ids,
        takeover,
        ..ListenerConfig::tcp("tcp", ([127, 0, 0, 1], 0).into())
    };
    let listener = broker.listen(config).await.unwrap();
    Harness { broker: broker.clone(), port: listener.address().unwrap().port() }
}

fn config() -> BrokerConfig {
    let limits = Limits { will_after_crash: Duration::from_millis(1), ..Limits::default() };
    BrokerConfig { limits, sys_interval: Duration::ZERO, ..BrokerConfig::default() }
}

fn broker(store: Arc<dyn Store>) -> (Broker, Arc<People>) {
    let people = Arc::new(People::default());
    (Broker::with_access(config(), store, None, Arc::clone(&people) as _), people)
}

async fn strict() -> (Harness, Arc<People>) {
    let (broker, people) = broker(Arc::new(MemoryStore::new(1)));
    (listen(&broker, ClientIds::Any, Takeover::SameUser).await, people)
}

/// A broker on a disk, with whatever is on it.
async fn on(disk: &FaultDisk, deny: &[&'static str]) -> (Harness, Arc<People>) {
    let options = StoreOptions { segment_bytes: 1 << 20, reserve_bytes: 0, ..StoreOptions::default() };
    let (store, _) = DurableStore::open_on(Arc::new(disk.clone()), options).unwrap();
    let store = Arc::new(store);
    let (broker, people) = broker(Arc::clone(&store) as _);
    deny.iter().for_each(|what| people.deny(what));
    broker.restore(store).await.unwrap();
    (listen(&broker, ClientIds::Any, Takeover::SameUser).await, people)
}

/// A CONNECT for a session that outlives its connection, by a user who is proven.
fn by<'a>(version: ProtocolVersion, user: Option<&'a str>, client_id: &'a str) -> Connect<'a> {
    let mut connect = Connect::new(version, client_id);
    connect.clean_start = false;
    if version == ProtocolVersion::V5 {
        connect.properties.session_expiry_interval_s = 3600;
    }
    connect.username = user;
    connect.password = user.map(|_| &b"proven"[..]);
    connect
}

async fn refused(harness: &Harness, connect: &Connect<'_>) -> ReasonCode {
    let mut client = harness.raw(connect.version).await;
    client.send(&Packet::Connect(Box::new(*connect))).await;
    match client.receive().await {
        Got::ConnAck { session_present: false, reason } if reason.is_error() => {
            assert_eq!(client.receive().await, Got::Closed);
            reason
        }
        other => panic!("not refused but {other:?}"),
    }
}

async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let reached = async {
        while !so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(FOR_EVER, reached).await.unwrap_or_else(|_| panic!("never: {what}"));
}

const VERSIONS: [ProtocolVersion; 2] = [ProtocolVersion::V3_1_1, ProtocolVersion::V5];

#[tokio::test]
async fn a_session_is_refused_to_another_user_and_nothing_of_it_is_touched() {
    for version in VERSIONS {
        let (harness, _) = strict().await;
        let ada = by(version, Some("ada"), "pump");
        let (mut pump, _) = harness.connect(&ada).await;
        assert_eq!(pump.subscribe("t", QoS::AtLeastOnce).await, [1]);
        let others = [by(version, Some("bob"), "pump"), by(version, None, "pump")];
        let said = Connect { password: None, ..by(version, Some("ada"), "pump") };
        for other in others.into_iter().chain((version == ProtocolVersion::V5).then_some(said)) {
            for clean_start in [false, true] {
                let other = Connect { clean_start, ..other };
                assert_eq!(refused(&harness, &other).await, ReasonCode::NotAuthorized);
            }
        }
        // The connection that has it is undisturbed, and so is the session without one.
        pump.expect_nothing().await;
        drop(pump);
        until("the connection is gone", || harness.broker.stats().connections == 0).await;
        assert_eq!(refused(&harness, &by(version, Some("bob"), "pump")).await, ReasonCode::NotAuthorized);
        let mut publisher = harness.client("publisher").await;
        publisher.publish("t", b"for ada", QoS::AtLeastOnce, false, 1).await;
        let (mut pump, present) = harness.connect(&ada).await;
        assert!(present);
        assert_eq!(pump.payload().await, b"for ada");
        let refusals = harness.broker.stats().takeovers_refused;
        assert_eq!(refusals, if version == ProtocolVersion::V5 { 7 } else { 5 });
    }
}

#[tokio::test]
async fn a_connection_without_a_session_that_lasts_is_kept_from_others_too() {
    for version in VERSIONS {
        let (harness, _) = strict().await;
        let ada = Connect { clean_start: true, ..by(version, Some("ada"), "pump") };
        let mut ada = ada;
        ada.properties.session_expiry_interval_s = 0;
        let (mut pump, _) = harness.connect(&ada).await;
        assert_eq!(refused(&harness, &by(version, Some("bob"), "pump")).await, ReasonCode::NotAuthorized);
        pump.expect_nothing().await;
        drop(pump);
        until("the session is over", || harness.broker.stats().sessions == 0).await;
        // It was ada's as long as it was.
        assert!(!harness.connect(&by(version, Some("bob"), "pump")).await.1);
    }
}

#[tokio::test]
async fn a_session_without_a_proven_user_is_anybodys() {
    for version in VERSIONS {
        let (harness, _) = strict().await;
        let (first, _) = harness.connect(&by(version, None, "pump")).await;
        assert!(harness.connect(&by(version, None, "pump")).await.1);
        // Whoever is known and takes it has it from then on.
        let (second, present) = harness.connect(&by(version, Some("ada"), "pump")).await;
        assert!(present);
        drop((first, second));
        assert_eq!(refused(&harness, &by(version, None, "pump")).await, ReasonCode::NotAuthorized);
    }
}

#[tokio::test]
async fn a_listener_may_let_anyone_take_over() {
    for version in VERSIONS {
        let (broker, _) = broker(Arc::new(MemoryStore::new(1)));
        let strict = listen(&broker, ClientIds::Any, Takeover::SameUser).await;
        let free = listen(&broker, ClientIds::Any, Takeover::Anyone).await;
        let (_ada, _) = strict.connect(&by(version, Some("ada"), "pump")).await;
        let (_bob, present) = free.connect(&by(version, Some("bob"), "pump")).await;
        assert!(present);
        // Now it is bob's.
        assert_eq!(refused(&strict, &by(version, Some("ada"), "pump")).await, ReasonCode::NotAuthorized);
        assert!(strict.connect(&by(version, Some("bob"), "pump")).await.1);
        // And nobody's.
        let (_nobody, _) = free.connect(&by(version, None, "pump")).await;
        assert!(strict.connect(&by(version, None, "pump")).await.1);
    }
}

#[tokio::test]
async fn a_session_is_its_owners_after_a_power_cut() {
    for version in VERSIONS {
        let disk = FaultDisk::default();
        let (harness, _) = on(&disk, &[]).await;
        let (mut pump, _) = harness.connect(&by(version, Some("ada"), "pump")).await;
        assert_eq!(pump.subscribe("t", QoS::AtLeastOnce).await, [1]);
        let (nobodys, _) = harness.connect(&by(version, None, "open")).await;
        // Ada's first, then bob's: by the end of ada's session.
        let (first, _) = harness.connect(&by(version, Some("ada"), "sold")).await;
        let mut ending = by(version, Some("ada"), "sold");
        ending.clean_start = true;
        ending.properties.session_expiry_interval_s = 0;
        let (second, _) = harness.connect(&ending).await;
        drop((first, second));
        until("ada's is over", || harness.broker.stats().sessions == 2).await;
        let (sold, _) = harness.connect(&by(version, Some("bob"), "sold")).await;
        drop((pump, nobodys, sold));
        let disk = disk.power_cut(7);
        drop(harness);
        for _ in 0..2 {
            let (harness, _) = on(&disk, &[]).await;
            for (user, client_id) in [("bob", "pump"), ("ada", "sold")] {
                let other = by(version, Some(user), client_id);
                assert_eq!(refused(&harness, &other).await, ReasonCode::NotAuthorized, "{client_id}");
            }
            assert!(harness.connect(&by(version, Some("ada"), "pump")).await.1);
            assert!(harness.connect(&by(version, Some("bob"), "sold")).await.1);
            assert!(harness.connect(&by(version, None, "open")).await.1);
        }
    }
}

#[tokio::test]
async fn client_identifiers_are_held_to_user_names() {
    for version in VERSIONS {
        let (broker, _) = broker(Arc::new(MemoryStore::new(1)));
        let own = listen(&broker, ClientIds::Username, Takeover::SameUser).await;
        let prefix = listen(&broker, ClientIds::Prefix, Takeover::SameUser).await;
        let invalid = ReasonCode::ClientIdentifierNotValid;
        for (harness, user, client_id) in [
            (&own, Some("ada"), "bob"),
            (&own, Some("ada"), "ada:1"),
            (&own, None, "ada"),
            (&prefix, Some("ada"), "adam"),
            (&prefix, None, "ada"),
        ] {
            assert_eq!(refused(harness, &by(version, user, client_id)).await, invalid, "{client_id}");
        }
        assert_eq!(broker.stats().client_ids_refused, 5);
        harness_takes(&own, &by(version, Some("ada"), "ada")).await;
        harness_takes(&prefix, &by(version, Some("ada"), "ada")).await;
        harness_takes(&prefix, &by(version, Some("ada"), "ada:2")).await;
        // A client that gives none gets its user's.
        let nameless = Connect { clean_start: true, ..by(version, Some("eve"), "") };
        let (mut first, _) = own.connect(&nameless).await;
        let _second = own.connect(&by(version, Some("eve"), "eve")).await;
        if version == ProtocolVersion::V5 {
            assert_eq!(first.receive().await, Got::Disconnect(ReasonCode::SessionTakenOver));
        }
        assert_eq!(first.receive().await, Got::Closed);
        let nobody = Connect { clean_start: true, ..by(version, None, "") };
        assert_eq!(refused(&own, &nobody).await, invalid);
    }
}

async fn harness_takes(harness: &Harness, connect: &Connect<'_>) {
    let (mut client, _) = harness.connect(connect).await;
    client.expect_nothing().await;
}

/// A client of ada's with a will, for a session that lasts; `password` says whether it brings rules of its own.
async fn ada_with_a_will(harness: &Harness, client_id: &str, password: &'static [u8], topic: &str) -> Client {
    let mut connect = by(ProtocolVersion::V5, Some("ada"), client_id);
    connect.password = Some(password);
    connect.will = Some(Will {
        qos: QoS::AtLeastOnce,
        retain: false,
        topic,
        payload: b"gone",
        delay_interval_s: 0,
        publish: mqtt_protocol::PublishProperties::default(),
    });
    harness.connect(&connect).await.0
}

#[tokio::test]
async fn authors_are_asked_about_after_a_power_cut_as_those_who_they_were() {
    let disk = FaultDisk::default();
    let (harness, _) = on(&disk, &[]).await;
    let mut client = ada_with_a_will(&harness, "a1", b"proven", "will/ada").await;
    let brought = ada_with_a_will(&harness, "a2", b"rules", "will/brought").await;
    for (number, topic) in [(1, "kept/ada"), (2, "kept/fine")] {
        client.publish(topic, b"x", QoS::AtLeastOnce, true, number).await;
        assert!(matches!(client.receive().await, Got::Ack("PUBACK", ..)));
    }
    let mut other = ada_with_a_will(&harness, "a3", b"rules", "will/fine").await;
    other.publish("kept/brought", b"x", QoS::AtLeastOnce, true, 1).await;
    assert!(matches!(other.receive().await, Got::Ack("PUBACK", ..)));
    let mut disk = disk.power_cut(3);
    drop((client, brought, other, harness));
    // Twice: what was read is written again.
    for _ in 0..2 {
        let denied = ["ada: publish kept/ada", "ada: publish kept/brought", "ada: publish will/ada"];
        let (harness, people) = on(&disk, &denied).await;
        let mut reader = harness.client("reader").await;
        reader.subscribe_with("kept/+", SubscriptionOptions::from_qos(QoS::AtMostOnce), None).await;
        let mut topics = Vec::new();
        while topics.len() < 3 {
            match reader.receive().await {
                Got::Publish { topic, .. } => topics.push(topic),
                Got::SubAck(_) => topics.push("SUBACK".to_owned()),
                other => panic!("{other:?}"),
            }
        }
        reader.expect_nothing().await;
        topics.sort();
        assert_eq!(topics, ["SUBACK", "kept/brought", "kept/fine"]);
        let asked = "ada: publish kept/ada (a1, [\"crew\"], 127.0.0.1, tcp)";
        assert!(people.was_asked(asked), "{:?}", people.asked.lock());
        assert_eq!(harness.broker.stats().dropped_not_authorized, 1);
        disk = disk.power_cut(4);
    }
}

#[tokio::test]
async fn a_will_is_asked_about_after_a_power_cut() {
    let disk = FaultDisk::default();
    let (harness, _) = on(&disk, &[]).await;
    let mut watcher = harness.connect(&by(ProtocolVersion::V5, None, "watcher")).await.0;
    assert_eq!(watcher.subscribe("will/+", QoS::AtLeastOnce).await, [1]);
    let clients = [
        ada_with_a_will(&harness, "a1", b"proven", "will/denied").await,
        ada_with_a_will(&harness, "a2", b"proven", "will/fine").await,
        ada_with_a_will(&harness, "a3", b"rules", "will/brought").await,
    ];
    // Before the clients go: whose wills are due is what the next start finds.
    let disk = disk.power_cut(3);
    drop((clients, watcher, harness));
    let (harness, people) = on(&disk, &["ada: publish will/denied", "ada: publish will/brought"]).await;
    let mut watcher = harness.connect(&by(ProtocolVersion::V5, None, "watcher")).await.0;
    let mut topics = Vec::new();
    for _ in 0..2 {
        match watcher.receive().await {
            Got::Publish { topic, id: Some(id), .. } => {
                topics.push(topic);
                watcher.puback(id).await;
            }
            other => panic!("{other:?}"),
        }
    }
    topics.sort();
    assert_eq!(topics, ["will/brought", "will/fine"]);
    until("the will is denied", || harness.broker.stats().wills_denied == 1).await;
    watcher.expect_nothing().await;
    assert!(people.was_asked("ada: publish will/denied (a1, [\"crew\"], 127.0.0.1, tcp)"));
}

#[tokio::test]
async fn what_a_receiver_may_not_have_is_never_on_record_as_owed() {
    let store = Arc::new(ManualStore::default());
    let (broker, people) = broker(Arc::clone(&store) as _);
    let harness = listen(&broker, ClientIds::Any, Takeover::SameUser).await;
    people.deny("ada: receive t/secret");
    let frames = |count: usize| {
        let store = Arc::clone(&store);
        async move {
            until("frames", || store.frames().len() >= count).await;
            store.commit_all();
        }
    };
    let mut ada = harness.raw(ProtocolVersion::V5).await;
    ada.send(&Packet::Connect(Box::new(by(ProtocolVersion::V5, Some("ada"), "a")))).await;
    frames(1).await;
    assert!(matches!(ada.receive().await, Got::ConnAck { reason: ReasonCode::Success, .. }));
    ada.subscribe_with("t/#", SubscriptionOptions::from_qos(QoS::AtLeastOnce), None).await;
    frames(2).await;
    assert_eq!(ada.receive().await, Got::SubAck(vec![1]));
    let mut publisher = harness.client("publisher").await;
    // Nobody is owed anything, so there is nothing to wait for.
    publisher.publish("t/secret", b"no", QoS::AtLeastOnce, false, 1).await;
    assert!(matches!(publisher.receive().await, Got::Ack("PUBACK", got, _) if got == id(1)));
    assert_eq!(store.frames().len(), 2, "{:?}", store.frames());
    publisher.publish("t/open", b"yes", QoS::AtLeastOnce, false, 2).await;
    frames(3).await;
    assert!(store.frames()[2].contains("Owed"));
    assert_eq!(ada.payload().await, b"yes");
    assert!(matches!(publisher.receive().await, Got::Ack("PUBACK", got, _) if got == id(2)));
    assert_eq!(harness.broker.stats().dropped_not_authorized, 1);
    // A Retained Message of that topic: the frame has the message, and owes it to nobody.
    publisher.publish("t/secret", b"no", QoS::AtLeastOnce, true, 3).await;
    frames(4).await;
    assert!(matches!(publisher.receive().await, Got::Ack("PUBACK", got, _) if got == id(3)));
    assert!(!store.frames()[3].contains("Owed"), "{}", store.frames()[3]);
    ada.subscribe_with("t/#", SubscriptionOptions::from_qos(QoS::AtLeastOnce), None).await;
    frames(5).await;
    assert_eq!(ada.receive().await, Got::SubAck(vec![1]));
    ada.expect_nothing().await;
    assert_eq!(store.frames().len(), 5, "{:?}", store.frames());
}
