//! Settings, the records that are sent, and what answers mean, against a broker that answers what a test tells it to.

mod fake;
mod idempotence;

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};

use self::fake::{Fake, Like, Say, Side, connectors};
use super::KafkaSink;
use super::partition::of_key;
use crate::config::{ActionConfig, ConnectorConfig};
use crate::connectors::Connectors;
use crate::delivery::{DeliveryError, Envelope, ItemId, Sink as _};
use crate::plan::Request;
use crate::record::Record;
use crate::targets::TargetPolicy;
use crate::testing::{config, plan, refusal, render};

const ACTION: &str = "type = 'kafka'\nname = 'a'\nconnector = 'k'\n";

fn record(text: &str, values: &[(&str, &[u8])]) -> Record {
    match render(&plan(&format!("{ACTION}{text}")), values) {
        Ok(Request::Record(record)) => record,
        other => panic!("{other:?}"),
    }
}

fn sink(text: &str, connectors: &Connectors) -> KafkaSink {
    let ActionConfig::Kafka(settings) = config(&format!("{ACTION}{text}")) else { panic!() };
    KafkaSink::new("rule", &settings, connectors).unwrap()
}

fn batch(records: Vec<Record>) -> Vec<Arc<Envelope<Record>>> {
    let envelope = |(n, request): (u64, Record)| {
        Arc::new(Envelope::new(ItemId { store: 1, epoch: 2, sequence: n }, request, None))
    };
    (0..).zip(records).map(envelope).collect()
}

/// Records of one topic with these values, all of one publisher.
fn values(text: &str, values: &[&str]) -> Vec<Arc<Envelope<Record>>> {
    let text = format!("{text}\nvalue = '${{x}}'");
    batch(values.iter().map(|value| record(&text, &[("value", value.as_bytes())])).collect())
}

fn whats(results: &[Result<(), DeliveryError>]) -> Vec<&'static str> {
    let what = |result: &Result<(), DeliveryError>| match result {
        Ok(()) => "ok",
        Err(DeliveryError::NotAttempted) => "behind",
        Err(error) if error.is_disabling() => "disabled",
        Err(error) if error.is_retriable() => "again",
        Err(_) => "refused",
    };
    results.iter().map(what).collect()
}

#[tokio::test]
async fn a_record_has_key_value_and_headers() {
    let fake = Fake::start(Like::default()).await;
    let connectors = fake.connectors("client_id = 'plant'\n");
    let text = "topic = '${x}'\nkey = '${x}'\nheaders = { site = '${x}', Idempotency-Key = 'own' }";
    let full = record(text, &[("topic", b"t"), ("key", b"foobar"), ("headers.site", b"berlin")]);
    assert_eq!(sink(text, &connectors).deliver(&batch(vec![full])).await, [Ok(())]);
    assert_eq!(
        sink("topic = 't'", &connectors).deliver(&batch(vec![record("topic = 't'", &[])])).await,
        [Ok(())]
    );
    let got = fake.seen.got.lock().clone();
    assert_eq!((got[0].topic.as_str(), got[0].key.as_deref()), ("t", Some("foobar")));
    assert_eq!(got[0].value, r#"{"t":61}"#);
    let headers = BTreeMap::from([("site", "berlin"), ("Idempotency-Key", "own")]);
    assert!(
        got[0]
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .eq(headers.into_iter().collect::<BTreeMap<_, _>>())
    );
    assert_eq!(got[0].partition, i32::try_from(of_key(b"foobar", 3)).unwrap());
    assert_eq!(got[1].key, None);
    assert_eq!(got[1].headers["Idempotency-Key"], "0000000000000001.2-0.rule.a");
    let (acks, timeout_ms, compression) = fake.seen.attributes.lock()[0].clone();
    assert_eq!((acks, compression.as_str()), (-1, "NoCompression"));
    assert!((1..30_000).contains(&timeout_ms), "{timeout_ms}");
    // One connection to ask who leads what, one to the leader; both actions share them, and what was learned.
    assert_eq!((*fake.seen.connections.lock(), *fake.seen.metadata.lock()), (2, 1));
    assert_eq!(*fake.seen.client_ids.lock(), ["plant", "plant"]);
}

#[tokio::test]
async fn what_comes_late_says_so() {
    let fake = Fake::start(Like::default()).await;
    let request = record("topic = 't'", &[]);
    let id = ItemId { store: 1, epoch: 2, sequence: 3 };
    let late = [Arc::new(Envelope::new(id, request, Some(1_700_000_000_000)))];
    assert_eq!(sink("topic = 't'", &fake.connectors("")).deliver(&late).await, [Ok(())]);
    let got = fake.seen.got.lock().clone();
    assert_eq!(got[0].headers["Tidegate-Replayed"], "true");
    assert_eq!(got[0].headers["Tidegate-Received-At"], "1700000000000");
}

#[tokio::test]
async fn records_are_compressed_as_the_action_says() {
    for (name, expected) in [("gzip", "Gzip"), ("snappy", "Snappy"), ("none", "NoCompression")] {
        let fake = Fake::start(Like::default()).await;
        let text = format!("topic = 't'\ncompression = '{name}'");
        let all = values(&text, &["one", "two"]);
        assert_eq!(sink(&text, &fake.connectors("")).deliver(&all).await, [Ok(()), Ok(())]);
        assert_eq!(fake.values(), ["one", "two"]);
        assert_eq!(fake.seen.attributes.lock()[0].2, expected);
    }
}

#[tokio::test]
async fn a_key_a_publisher_or_the_action_decides_the_partition() {
    let by_publisher = i32::try_from(of_key(b"client-1", 3)).unwrap();
    let by_topic = i32::try_from(of_key(b"a/b", 3)).unwrap();
    let by_key = i32::try_from(of_key(b"21", 3)).unwrap();
    for (text, expected) in [
        ("topic = 't'", by_publisher),
        ("topic = 't'\norder_by = 'topic'", by_topic),
        ("topic = 't'\nkey = '21'", by_key),
        ("topic = 't'\nkey = '21'\norder_by = 'none'", by_key),
        ("topic = 't'\npartition = 2\nkey = '21'", 2),
    ] {
        let fake = Fake::start(Like::default()).await;
        let once = batch(vec![record(text, &[]); 2]);
        assert_eq!(sink(text, &fake.connectors("")).deliver(&once).await, [Ok(()), Ok(())], "{text}");
        assert!(fake.seen.got.lock().iter().all(|got| got.partition == expected), "{text}");
    }
}

#[tokio::test]
async fn records_without_order_go_where_a_leader_is() {
    let topics = BTreeMap::from([("t".to_owned(), (0, vec![-1, 1, -1]))]);
    let fake = Fake::start(Like { topics, ..Like::default() }).await;
    let text = "topic = 't'\norder_by = 'none'";
    let sink = sink(text, &fake.connectors(""));
    for _ in 0..8 {
        assert_eq!(sink.deliver(&batch(vec![record(text, &[])])).await, [Ok(())]);
    }
    assert!(fake.seen.got.lock().iter().all(|got| got.partition == 1));
}

#[tokio::test]
async fn each_partition_has_an_answer_of_its_own() {
    // One request with partitions 0, 1 and 2, in this order.
    let fake = Fake::start(Like::says([Say::Codes(vec![0, 19, 17])])).await;
    let text = "topic = 't'\nkey = '${x}'";
    let key_of =
        |partition| (0..).map(|n: u32| n.to_string()).find(|key| of_key(key.as_bytes(), 3) == partition);
    let keys: Vec<String> = [0, 1, 2, 1, 0].into_iter().filter_map(key_of).collect();
    let records = keys.iter().map(|key| record(text, &[("key", key.as_bytes())])).collect();
    let results = sink(text, &fake.connectors("")).deliver(&batch(records)).await;
    assert_eq!(whats(&results), ["ok", "again", "refused", "again", "ok"]);
    let text = results[1].as_ref().unwrap_err().to_string();
    assert_eq!(text, "the far side refused it: the broker answered NOT_ENOUGH_REPLICAS");
    assert_eq!(fake.seen.attributes.lock().len(), 1);
}

#[tokio::test]
async fn one_refused_record_of_a_partition_is_refused_alone_and_the_others_keep_their_order() {
    // Five records: 0..5 refused; 0..2 taken; 2..5 refused, of which 2 is refused alone, and 3..5 are taken.
    let refused = |_| Say::Codes(vec![87]);
    let taken = || Say::Codes(vec![0]);
    let says = [refused(()), taken(), refused(()), refused(()), taken()];
    let fake = Fake::start(Like::says(says)).await;
    let all = values("topic = 't'", &["0", "1", "2", "3", "4"]);
    let results = sink("topic = 't'", &fake.connectors("")).deliver(&all).await;
    assert_eq!(whats(&results), ["ok", "ok", "refused", "ok", "ok"]);
    let sent: Vec<(usize, String)> =
        fake.seen.got.lock().iter().map(|got| (got.request, got.value.clone())).collect();
    let of = |request| -> String {
        sent.iter().filter(|got| got.0 == request).map(|got| got.1.as_str()).collect()
    };
    assert_eq!([of(0), of(1), of(2), of(3), of(4)], ["01234", "01", "234", "2", "34"]);
}

#[tokio::test]
async fn nothing_overtakes_a_record_that_is_to_be_sent_again() {
    let says = [Say::Codes(vec![10]), Say::Codes(vec![7])];
    let fake = Fake::start(Like::says(says)).await;
    let all = values("topic = 't'", &["0", "1", "2", "3"]);
    let results = sink("topic = 't'", &fake.connectors("")).deliver(&all).await;
    assert_eq!(whats(&results), ["again", "again", "behind", "behind"]);
    assert_eq!(fake.seen.attributes.lock().len(), 2);
}

#[tokio::test]
async fn a_request_holds_no_more_of_a_partition_than_brokers_take() {
    let fake = Fake::start(Like::default()).await;
    let large = "x".repeat(400 << 10);
    let all = values("topic = 't'", &[&large, &large, &large, "small"]);
    let results = sink("topic = 't'", &fake.connectors("")).deliver(&all).await;
    assert_eq!(whats(&results), ["ok"; 4]);
    let requests: Vec<usize> = fake.seen.got.lock().iter().map(|got| got.request).collect();
    assert_eq!(requests, [0, 0, 1, 1]);
}

#[tokio::test]
async fn codes_decide_what_becomes_of_a_record() {
    for (code, expected, is_attempt) in [
        (7, "again", true),
        (19, "again", true),
        (6, "again", false),
        (3, "again", true),
        (10, "refused", true),
        (29, "disabled", false),
        (76, "disabled", false),
        (1234, "again", true),
    ] {
        let fake = Fake::start(Like::says([Say::Codes(vec![code])])).await;
        let results = sink("topic = 't'", &fake.connectors("")).deliver(&values("topic = 't'", &["v"])).await;
        assert_eq!(whats(&results), [expected], "{code}");
        assert_eq!(results[0].as_ref().unwrap_err().is_attempt(), is_attempt, "{code}");
    }
}

#[tokio::test]
async fn a_partition_that_moved_is_asked_for_again() {
    let fake = Fake::start(Like::says([Say::Codes(vec![6])])).await;
    let sink = sink("topic = 't'", &fake.connectors(""));
    let once = values("topic = 't'", &["v"]);
    assert_eq!(whats(&sink.deliver(&once).await), ["again"]);
    assert_eq!(*fake.seen.metadata.lock(), 1);
    assert_eq!(sink.deliver(&once).await, [Ok(())]);
    assert_eq!(*fake.seen.metadata.lock(), 2);
}

#[tokio::test]
async fn topics_that_cannot_be_written_to_are_told_apart() {
    let topics = [
        ("fine", (0, vec![1])),
        ("missing", (3, vec![])),
        ("forbidden", (29, vec![])),
        ("starts", (5, vec![])),
        ("leaderless", (0, vec![-1])),
        ("empty", (0, vec![])),
        ("elsewhere", (0, vec![9])),
    ];
    let names: Vec<&str> = topics.iter().map(|(name, _)| *name).collect();
    let topics = topics.iter().map(|(name, like)| ((*name).to_owned(), like.clone())).collect();
    let fake = Fake::start(Like { topics, ..Like::default() }).await;
    let text = "topic = '${x}'";
    let records = names.iter().map(|name| record(text, &[("topic", name.as_bytes())])).collect();
    let results = sink(text, &fake.connectors("")).deliver(&batch(records)).await;
    assert_eq!(whats(&results), ["ok", "again", "disabled", "again", "again", "again", "again"]);
    let told: Vec<String> =
        results[1..].iter().map(|result| result.as_ref().unwrap_err().to_string()).collect();
    for (told, expected) in told.iter().zip([
        "UNKNOWN_TOPIC_OR_PARTITION",
        "TOPIC_AUTHORIZATION_FAILED",
        "LEADER_NOT_AVAILABLE",
        "partition 0 of topic \"leaderless\" has no leader",
        "the topic has no partition",
        "the cluster doesn't say where its broker 9 is",
    ]) {
        assert!(told.contains(expected), "{told}");
    }
}

#[tokio::test]
async fn a_partition_that_there_is_not_is_waited_for() {
    let fake = Fake::start(Like::default()).await;
    let text = "topic = 't'\npartition = 3";
    let results = sink(text, &fake.connectors("")).deliver(&batch(vec![record(text, &[])])).await;
    assert_eq!(whats(&results), ["again"]);
    let told = results[0].as_ref().unwrap_err().to_string();
    assert!(told.contains("topic \"t\" has 3 partitions, none with the number 3"), "{told}");
}

#[tokio::test]
async fn a_broken_or_silent_connection_is_made_anew() {
    let fake = Fake::start(Like::says([Say::Codes(Vec::new()), Say::Hang, Say::Close])).await;
    let connectors = fake.connectors("");
    let (patient, hasty) =
        (sink("topic = 't'", &connectors), sink("topic = 't'\ntimeout = '300ms'", &connectors));
    let once = values("topic = 't'", &["v"]);
    assert_eq!(patient.deliver(&once).await, [Ok(())]);
    assert!(matches!(hasty.deliver(&once).await[..], [Err(DeliveryError::TimedOut { .. })]));
    assert!(matches!(patient.deliver(&once).await[..], [Err(DeliveryError::Interrupted { .. })]));
    assert_eq!(patient.deliver(&once).await, [Ok(())]);
}

#[tokio::test]
async fn a_connection_that_the_broker_closed_meanwhile_costs_no_attempt() {
    let fake = Fake::start(Like::default()).await;
    let once = values("topic = 't'", &["v"]);
    let sink = sink("topic = 't'", &fake.connectors(""));
    assert_eq!(sink.deliver(&once).await, [Ok(())]);
    fake.seen.hang_up.notify_waiters();
    while *fake.seen.closed.lock() < 2 {
        fake.seen.was_closed.notified().await;
    }
    // Other connections come and go, so that the end of the first has been seen by now.
    let other = self::sink("topic = 't'", &fake.connectors(""));
    assert_eq!(other.deliver(&once).await, [Ok(())]);
    assert_eq!(sink.deliver(&once).await, [Ok(())]);
}

#[tokio::test]
async fn what_is_given_up_leaves_no_connection_behind() {
    let fake = Fake::start(Like::says([Say::Hang])).await;
    let connectors = fake.connectors("");
    let sink = sink("topic = 't'", &connectors);
    let once = values("topic = 't'", &["v"]);
    let delivery = tokio::spawn(async move { sink.deliver(&once).await });
    fake.seen.was_asked.notified().await;
    delivery.abort();
    assert!(delivery.await.unwrap_err().is_cancelled());
    drop(connectors);
    while *fake.seen.closed.lock() < 2 {
        fake.seen.was_closed.notified().await;
    }
}

#[tokio::test]
async fn hostile_answers_break_the_connection_and_nothing_else() {
    let frame = |bytes: &[u8]| {
        let mut out = i32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
        out.extend(bytes);
        out
    };
    let mut huge = (2_000_000_000_i32).to_be_bytes().to_vec();
    huge.extend(vec![0; 5 << 20]);
    for say in [
        Say::Raw(b"garbage, and much of it".to_vec()),
        Say::Raw((-1_i32).to_be_bytes().to_vec()),
        Say::Raw(huge),
        Say::Raw(frame(b"")),
        Say::Raw(frame(&[0xff; 64])),
        Say::Raw(vec![0; 5 << 20]),
        Say::Body(Vec::new()),
        Say::Body(vec![0x7f; 4]),
        Say::Body(vec![0xff; 64]),
        Say::Body(vec![0x7f; 1 << 20]),
        Say::Body(vec![0; 8]),
        Say::Body(vec![0; 1 << 16]),
    ] {
        let fake = Fake::start(Like::says([Say::Codes(Vec::new()), say.clone()])).await;
        let connectors = fake.connectors("");
        // Some of them are beginnings, whose rest would be waited for.
        let (patient, hasty) =
            (sink("topic = 't'", &connectors), sink("topic = 't'\ntimeout = '300ms'", &connectors));
        let once = values("topic = 't'", &["v"]);
        let told = format!("{say:?}").chars().take(40).collect::<String>();
        assert_eq!(patient.deliver(&once).await, [Ok(())], "{told}");
        let [Err(error)] = &hasty.deliver(&once).await[..] else { panic!("{told}") };
        assert!(error.is_retriable() && error.is_attempt(), "{told}: {error}");
        assert_eq!(patient.deliver(&once).await, [Ok(())], "{told}");
    }
}

#[tokio::test]
async fn hostile_greetings_and_hostile_metadata_are_survived() {
    let text = "topic = 't'";
    for bytes in
        [Vec::new(), vec![0; 3], vec![0xff; 100], vec![0x7f; 100], vec![0x7f; 1 << 20], vec![0; 1 << 16]]
    {
        for is_greeting in [true, false] {
            let like = if is_greeting {
                Like { hello: Some(bytes.clone()), ..Like::default() }
            } else {
                Like { metadata: Some(bytes.clone()), ..Like::default() }
            };
            let fake = Fake::start(like).await;
            let sink = sink(text, &fake.connectors(""));
            let once = values(text, &["v"]);
            let [Err(error)] = &sink.deliver(&once).await[..] else { panic!() };
            assert!(error.is_retriable() && !error.is_disabling(), "{error}");
            *fake.like.lock() = Like::default();
            assert_eq!(sink.deliver(&once).await, [Ok(())]);
        }
    }
}

#[tokio::test]
async fn brokers_that_the_cluster_names_are_judged_like_others() {
    for (host, port, expected) in [
        ("169.254.169.254", 80, "169.254.169.254"),
        ("10.0.0.7", 9092, "10.0.0.7"),
        ("[::1]", 9092, "where its broker 1 is"),
        ("::1", 9092, "::1"),
        ("a b", 9092, "where its broker 1 is"),
        ("h", 0, "where its broker 1 is"),
        ("h", 70_000, "where its broker 1 is"),
        ("", 9092, "where its broker 1 is"),
    ] {
        let brokers = vec![(1, Some((host.to_owned(), port)))];
        let fake = Fake::start(Like { brokers, ..Like::default() }).await;
        let results = sink("topic = 't'", &fake.connectors("")).deliver(&values("topic = 't'", &["v"])).await;
        let told = results[0].as_ref().unwrap_err().to_string();
        assert!(told.contains(expected), "{host}:{port}: {told}");
        assert!(fake.seen.got.lock().is_empty());
    }
}

#[tokio::test]
async fn the_next_server_is_asked_where_one_says_nothing() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fake = Fake::start(Like::default()).await;
    let text = format!(
        "[k]\ntype = 'kafka'\nservers = ['{}', '{}']\nconnect_timeout = '2s'",
        silent.local_addr().unwrap(),
        fake.address
    );
    let results = sink("topic = 't'", &connectors(&text)).deliver(&values("topic = 't'", &["v"])).await;
    assert_eq!(results, [Ok(())]);
}

#[tokio::test]
async fn a_quota_is_heeded() {
    let fake = Fake::start(Like::says([Say::Quiet(i32::MAX)])).await;
    let sink = sink("topic = 't'\ntimeout = '1s'", &fake.connectors(""));
    let once = values("topic = 't'", &["v"]);
    assert_eq!(sink.deliver(&once).await, [Ok(())]);
    let [Err(error)] = &sink.deliver(&once).await[..] else { panic!() };
    assert!(error.to_string().contains("asks to be left alone") && !error.is_attempt(), "{error}");
    assert_eq!(fake.values(), ["v"]);
}

const SASL: &str = "sasl = { mechanism = 'MECHANISM', username = 'u', password = 'pencil-and-more' }";

/// A broker's side of SCRAM with SHA-256. It has no memory: what it must know of the exchange is in the client's nonce.
fn scram(said: &[u8], password: &[u8]) -> (i16, Vec<u8>) {
    let said = std::str::from_utf8(said).unwrap();
    let iterations = std::num::NonZeroU32::new(4096).unwrap();
    if let Some(bare) = said.strip_prefix("n,,n=u,r=") {
        return (0, format!("r={bare}x,s=QQ==,i={iterations}").into_bytes());
    }
    let (unproven, proof) = said.split_once(",p=").unwrap();
    let nonce = unproven.strip_prefix("c=biws,r=").unwrap();
    let all =
        format!("n=u,r={},r={nonce},s=QQ==,i={iterations},{unproven}", nonce.strip_suffix('x').unwrap());
    let mut salted = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, b"A", password, &mut salted);
    let sign =
        |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec();
    let stored = digest::digest(&digest::SHA256, &sign(&salted, b"Client Key"));
    let signature = sign(stored.as_ref(), all.as_bytes());
    let proof = STANDARD.decode(proof).unwrap();
    let key: Vec<u8> = proof.iter().zip(signature).map(|(proof, by)| proof ^ by).collect();
    if digest::digest(&digest::SHA256, &key).as_ref() != stored.as_ref() {
        return (58, Vec::new());
    }
    let shown = STANDARD.encode(sign(&sign(&salted, b"Server Key"), all.as_bytes()));
    (0, format!("v={shown}").into_bytes())
}

#[tokio::test]
async fn every_connection_signs_in() {
    let plain: Side = |said| (if said == b"\0u\0pencil-and-more" { 0 } else { 58 }, Vec::new());
    let good: Side = |said| scram(said, b"pencil-and-more");
    for (mechanism, side) in
        [("plain", plain as fn(&[u8]) -> (i16, Vec<u8>)), ("scram-sha-256", good as fn(&[u8]) -> _)]
    {
        let fake = Fake::start(Like { sign_in: Some(side), ..Like::default() }).await;
        let connectors = fake.connectors(&SASL.replace("MECHANISM", mechanism));
        let results = sink("topic = 't'", &connectors).deliver(&values("topic = 't'", &["v"])).await;
        assert_eq!(results, [Ok(())], "{mechanism}");
    }
}

#[tokio::test]
async fn refused_credentials_are_no_fault_of_the_record() {
    let refuses: Side = |_| (58, Vec::new());
    let other: Side = |said| scram(said, b"another");
    let lies: Side = |said| match scram(said, b"another") {
        (58, _) => (0, b"v=QQ==".to_vec()),
        said => said,
    };
    for (mechanism, side, expected) in [
        ("plain", refuses, "SASL_AUTHENTICATION_FAILED: \"as the test says\""),
        ("scram-sha-512", refuses, "SASL_AUTHENTICATION_FAILED"),
        ("scram-sha-256", other, "SASL_AUTHENTICATION_FAILED"),
        ("scram-sha-256", lies, "the broker doesn't know the password"),
    ] {
        let fake = Fake::start(Like { sign_in: Some(side), ..Like::default() }).await;
        let connectors = fake.connectors(&SASL.replace("MECHANISM", mechanism));
        let results = sink("topic = 't'", &connectors).deliver(&values("topic = 't'", &["v"])).await;
        let error = results[0].as_ref().unwrap_err();
        assert!(error.is_disabling() && !error.is_attempt(), "{mechanism}: {error:?}");
        assert!(error.to_string().contains(expected), "{mechanism}: {error}");
        assert!(!format!("{error:?} {connectors:?}").contains("pencil"), "{error:?}");
    }
}

#[tokio::test]
async fn a_connector_is_tested_as_far_as_the_sign_in() {
    let good: Side = |said| scram(said, b"pencil-and-more");
    let refuses: Side = |_| (58, Vec::new());
    for (side, passed, expected) in
        [(good, true, "signed in"), (refuses, false, "SASL_AUTHENTICATION_FAILED")]
    {
        let fake = Fake::start(Like { sign_in: Some(side), ..Like::default() }).await;
        let connectors = fake.connectors(&SASL.replace("MECHANISM", "scram-sha-256"));
        let connector = connectors.get("k").unwrap();
        assert_eq!(connector.addresses(), [fake.address.to_string()]);
        let test = connector.test().await;
        assert_eq!(test.passed, passed, "{test:?}");
        assert!(test.steps.last().unwrap().detail.contains(expected), "{test:?}");
        assert!(!format!("{test:?}").contains("pencil"), "{test:?}");
        assert_eq!((*fake.seen.metadata.lock(), fake.values()), (0, Vec::new()));
    }
}

#[test]
fn refuses_settings_that_cannot_work() {
    let long = format!("topic = '{}'", "t".repeat(250));
    for (text, expected) in [
        ("", "missing field `topic`"),
        ("topic = ''", "topic: expected 1 to 249 letters"),
        ("topic = '..'", "topic: expected 1 to 249 letters"),
        ("topic = 'a/b'", "topic: expected 1 to 249 letters"),
        (&long, "topic: 250 bytes, more than the limit of 249"),
        ("topic = 't'\ncompression = 'zstd'", "unknown variant `zstd`"),
        ("topic = 't'\nacks = 1", "unknown field `acks`"),
        ("topic = 't'\npartition = 2147483648", "partition: expected 0 to 2147483647"),
        ("topic = 't'\npartition = -1", "invalid value: integer `-1`"),
        ("topic = 't'\nheaders = { '' = '1' }", "expected a name of 1 to 255 bytes"),
        ("topic = 't'\ntimeout = '1ms'", "timeout: expected 10ms to 10m"),
        ("topic = 't'\nbatch = { max_items = 0 }", "batch.max_items: expected 1 to 10000"),
        ("topic = 't'\nconcurrency = 0", "concurrency: expected 1 to 256"),
    ] {
        let refusal = refusal(&format!("{ACTION}{text}"));
        assert!(refusal.contains(expected), "{text}: {refusal}");
    }
    let longest = format!("{ACTION}topic = '{}'\npartition = 2147483647", "t".repeat(249));
    plan(&longest);
}

#[test]
fn refuses_connectors_that_cannot_work() {
    let long = format!("servers = ['h:1']\nclient_id = '{}'", "c".repeat(256));
    let nul = "servers = ['h:1']\nsasl = { mechanism = 'plain', username = \"u\\u0000\", password = 'p' }";
    for (text, expected) in [
        ("servers = []", "servers: expected 1 to 16 servers, given 0"),
        ("servers = ['h']", "\"h\" is no server: expected \"host:port\""),
        ("servers = ['h:1']\nclient_id = ''", "client_id: expected 1 to 255 bytes, given 0"),
        (&long, "client_id: expected 1 to 255 bytes, given 256"),
        ("servers = ['h:1']\nsasl = { username = 'u', password = 'p' }", "missing field `mechanism`"),
        (
            "servers = ['h:1']\nsasl = { mechanism = 'gssapi', username = 'u', password = 'p' }",
            "unknown variant `gssapi`",
        ),
        (
            "servers = ['h:1']\nsasl = { mechanism = 'plain', username = 'u', password = '' }",
            "sasl.password: expected 1 to 255 bytes, given 0",
        ),
        (nul, "sasl.username: holds a control character"),
        ("servers = ['h:1']\nconnect_timeout = '1ms'", "connect_timeout: expected 10ms to 10m"),
        ("servers = ['h:1']\nurl = 'x'", "unknown field `url`"),
        ("servers = ['h:1']\ntls = { ca_file = '/none' }", "tls.ca_file: \"/none\" can't be read"),
    ] {
        let text = format!("[k]\ntype = 'kafka'\n{text}");
        let refusal = match toml::from_str::<BTreeMap<String, ConnectorConfig>>(&text) {
            Err(error) => error.message().to_owned(),
            Ok(configs) => {
                let refused = Connectors::load(&configs, &TargetPolicy::default(), &Connectors::default());
                refused.expect_err(&text)[0].to_string()
            }
        };
        assert!(refusal.contains(expected), "{text}: {refusal}");
    }
}

#[test]
fn only_a_password_in_the_open_is_exposed() {
    let exposure = |text: &str| {
        let text = format!("[k]\ntype = 'kafka'\nservers = ['h:1']\n{text}");
        let configs: BTreeMap<String, ConnectorConfig> = toml::from_str(&text).unwrap();
        configs["k"].exposure().is_some()
    };
    assert!(exposure(&SASL.replace("MECHANISM", "plain")));
    assert!(!exposure(&format!("{}\ntls = {{}}", SASL.replace("MECHANISM", "plain"))));
    assert!(!exposure(&SASL.replace("MECHANISM", "scram-sha-256")));
    assert!(!exposure(""));
}

#[test]
fn a_connector_stays_the_same_until_it_is_another() {
    let text = "[k]\ntype = 'kafka'\nservers = ['h:1']\n";
    let configs: BTreeMap<String, ConnectorConfig> = toml::from_str(text).unwrap();
    let more = format!("{text}client_id = 'other'");
    let others: BTreeMap<String, ConnectorConfig> = toml::from_str(&more).unwrap();
    let targets = TargetPolicy::default();
    let first = Connectors::load(&configs, &targets, &Connectors::default()).unwrap();
    assert!(Connectors::load(&configs, &targets, &first).unwrap().is_same(&first));
    assert!(!Connectors::load(&others, &targets, &first).unwrap().is_same(&first));
}

#[test]
fn an_action_needs_a_connector_of_its_own_type() {
    let known = connectors("[h]\ntype = 'http'\n[other]\ntype = 'kafka'\nservers = ['h:1']\n");
    for (name, expected) in [
        ("none", "connector: the configuration has no [connectors.none]; expected one of other"),
        ("h", "connector: [connectors.h] is of type \"http\", not \"kafka\"; expected one of other"),
    ] {
        let text = format!("type = 'kafka'\nname = 'a'\nconnector = '{name}'\ntopic = 't'");
        let ActionConfig::Kafka(settings) = config(&text) else { panic!() };
        let error = KafkaSink::new("rule", &settings, &known).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn topics_keys_and_headers_from_messages_are_bounded() {
    let plan = plan(&format!("{ACTION}topic = '${{x}}'\nkey = '${{x}}'\nheaders = {{ h = '${{x}}' }}"));
    let limit = vec![b'x'; 64 << 10];
    let large = vec![b'x'; (64 << 10) + 1];
    let topic = vec![b't'; 250];
    assert!(render(&plan, &[("topic", &topic[1..]), ("key", &limit), ("headers.h", &limit)]).is_ok());
    for values in [
        [("topic", &topic[..]), ("key", b"k"), ("headers.h", b"h")],
        [("topic", b"a b"), ("key", b"k"), ("headers.h", b"h")],
        [("topic", b""), ("key", b"k"), ("headers.h", b"h")],
        [("topic", b"t"), ("key", &large), ("headers.h", b"h")],
        [("topic", b"t"), ("key", b"k"), ("headers.h", &large)],
    ] {
        assert!(render(&plan, &values).is_err());
    }
}
