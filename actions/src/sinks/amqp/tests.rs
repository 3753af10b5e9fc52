//! Settings, the messages that are sent, and what answers mean, against a server that answers what a test tells it to. A
//! real server stands in the integration tests.

mod hostile;
mod server;
mod settings;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use self::server::{
    Answer, Manner, Published, Server, ack, ack_all, blocked, close, nack, returned, start, tune, unblocked,
};
use super::AmqpSink;
use crate::config::{ActionConfig, ConnectorConfig};
use crate::connectors::Connectors;
use crate::delivery::{DeliveryError, Envelope, ItemId, Sink as _};
use crate::plan::Request;
use crate::record::Record;
use crate::targets::TargetPolicy;
use crate::testing::{config, plan, render};

const ACTION: &str = "type = 'amqp'\nname = 'a'\nconnector = 'q'\n";
/// The routing key and the body come from messages.
const KEYED: &str = "routing_key = '${k}'\nbody = '${b}'";
/// The exchange as well.
const EXCHANGED: &str = "exchange = '${e}'\nrouting_key = 'k'\nbody = '${b}'";

fn record(text: &str, values: &[(&str, &[u8])]) -> Record {
    match render(&plan(&format!("{ACTION}{text}")), values) {
        Ok(Request::Record(record)) => record,
        other => panic!("{other:?}"),
    }
}

fn connectors(text: &str) -> Connectors {
    let configs: BTreeMap<String, ConnectorConfig> = toml::from_str(text).unwrap();
    let allow_private = vec!["127.0.0.1".parse().unwrap()];
    let targets = TargetPolicy { allow_private, ..TargetPolicy::default() };
    Connectors::load(&configs, &targets, &Connectors::default()).unwrap()
}

fn sink(text: &str, connectors: &Connectors) -> AmqpSink {
    let ActionConfig::Amqp(settings) = config(&format!("{ACTION}{text}")) else { panic!() };
    AmqpSink::new("rule", &settings, connectors).unwrap()
}

fn batch(records: Vec<Record>) -> Vec<Arc<Envelope<Record>>> {
    let envelope = |(n, request): (u64, Record)| {
        Arc::new(Envelope::new(ItemId { store: 1, epoch: 2, sequence: n }, request, None))
    };
    (0..).zip(records).map(envelope).collect()
}

/// Messages with these bodies, each with its body as routing key.
fn bodies(texts: &[&str]) -> Vec<Arc<Envelope<Record>>> {
    let one = |text: &&str| record(KEYED, &[("routing_key", text.as_bytes()), ("body", text.as_bytes())]);
    batch(texts.iter().map(one).collect())
}

/// Messages with these bodies, each to the exchange of the same name.
fn to_exchanges(texts: &[&str]) -> Vec<Arc<Envelope<Record>>> {
    let one = |text: &&str| record(EXCHANGED, &[("exchange", text.as_bytes()), ("body", text.as_bytes())]);
    batch(texts.iter().map(one).collect())
}

fn acked(message: &Published) -> Answer {
    Some(ack(message))
}

/// What becomes of each: "ok", "again" (and whether the attempt counts), "refused" or "disabled".
fn whats(results: &[Result<(), DeliveryError>]) -> Vec<&'static str> {
    let what = |result: &Result<(), DeliveryError>| match result {
        Ok(()) => "ok",
        Err(error) if error.is_disabling() => "disabled",
        Err(error) if error.is_retriable() && error.is_attempt() => "again",
        Err(error) if error.is_retriable() => "later",
        Err(_) => "refused",
    };
    results.iter().map(what).collect()
}

#[tokio::test]
async fn each_message_has_its_words() {
    let server = Server::start(acked).await;
    let text = "routing_key = 'k'";
    let results = sink(text, &server.connectors).deliver(&batch(vec![record(text, &[])])).await;
    assert_eq!(results, [Ok(())]);
    let id = "0000000000000001.2-0.rule.a";
    let plain = Published {
        channel: 1,
        tag: 1,
        routing_key: "k".to_owned(),
        is_mandatory: true,
        headers: BTreeMap::from([("Idempotency-Key".to_owned(), id.to_owned())]),
        delivery_mode: Some(2),
        message_id: Some(id.to_owned()),
        body: b"{\"t\":61}".to_vec(),
        ..Published::default()
    };
    assert_eq!(server.published(), std::slice::from_ref(&plain));
    assert_eq!(server.sign_ins(), [b"\0u\0hunter2-and-more"]);

    let server = Server::start(acked).await;
    let text = "exchange = 'e-${x}'\nrouting_key = '${k}'\nbody = '${b}'\nheaders = { site = '${s}', Idempotency-Key = 'own' }
        content_type = 'text/plain'\nexpiration = '1m'\npriority = 7\npersistent = false\nmandatory = false";
    let values: &[(&str, &[u8])] =
        &[("exchange", b"e-1"), ("routing_key", b"a.b"), ("body", b"\0\xff"), ("headers.site", b"x\r\ny")];
    let results = sink(text, &server.connectors).deliver(&batch(vec![record(text, values)])).await;
    assert_eq!(results, [Ok(())]);
    let full = Published {
        exchange: "e-1".to_owned(),
        routing_key: "a.b".to_owned(),
        is_mandatory: false,
        content_type: Some("text/plain".to_owned()),
        headers: [("site", "x\r\ny"), ("Idempotency-Key", "own")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        delivery_mode: Some(1),
        priority: Some(7),
        expiration: Some("60000".to_owned()),
        body: b"\0\xff".to_vec(),
        ..plain
    };
    assert_eq!(server.published(), [full]);
}

#[tokio::test]
async fn what_comes_late_says_so() {
    let server = Server::start(acked).await;
    let request = record("routing_key = 'k'", &[]);
    let id = ItemId { store: 1, epoch: 2, sequence: 3 };
    let late = [Arc::new(Envelope::new(id, request, Some(1_700_000_000_123)))];
    assert_eq!(sink("routing_key = 'k'", &server.connectors).deliver(&late).await, [Ok(())]);
    let [message] = server.published().try_into().unwrap();
    assert_eq!(message.headers["Tidegate-Replayed"], "true");
    assert_eq!(message.headers["Tidegate-Received-At"], "1700000000123");
    assert_eq!(message.timestamp, None);
}

#[tokio::test]
async fn a_batch_leaves_in_order_and_its_channel_is_used_again() {
    let server =
        Server::start(|message| (message.tag % 3 == 0).then(|| ack_all(message)).or(Some(vec![]))).await;
    let sink = sink(KEYED, &server.connectors);
    for _ in 0..2 {
        assert_eq!(whats(&sink.deliver(&bodies(&["1", "2", "3"])).await), ["ok"; 3]);
    }
    assert_eq!(server.bodies(), ["1", "2", "3", "1", "2", "3"]);
    assert!(server.published().iter().all(|message| message.channel == 1));
}

#[tokio::test]
async fn bodies_larger_than_a_frame_arrive_whole() {
    let large = "x".repeat(300_000);
    for frame_bytes in [131_072, 4_096] {
        let manner = Manner { tune: tune(0, frame_bytes, 0), ..Manner::default() };
        let server = Server::with(manner, acked).await;
        let one = |body: &str| record(KEYED, &[("routing_key", b"k"), ("body", body.as_bytes())]);
        let results = sink(KEYED, &server.connectors).deliver(&batch(vec![one(&large), one("")])).await;
        assert_eq!(whats(&results), ["ok"; 2]);
        assert_eq!(server.bodies(), [large.as_str(), ""]);
    }
}

#[tokio::test]
async fn headers_that_no_frame_holds_are_refused_alone() {
    let text = "routing_key = 'k'\nheaders = { a = '${h}' }";
    let server = Server::start(acked).await;
    let with = |bytes: usize| record(text, &[("headers.a", &vec![b'x'; bytes])]);
    let sink = sink(text, &server.connectors);
    let results = sink.deliver(&batch(vec![with(10), with(64 << 10), with(64_000)])).await;
    assert_eq!(whats(&results), ["ok", "refused", "ok"]);
    assert_eq!(server.published().len(), 2);
}

/// The server tells of the second one before it acknowledges the first, and the library hands that over with the first.
#[tokio::test]
async fn a_message_that_comes_back_is_not_delivered_and_no_other_is_taken_for_it() {
    for (setting, expected) in [("", "refused"), ("\nunroutable = 'retry'", "again")] {
        let mut first = None;
        let server = Server::start(move |message| match message.body.as_slice() {
            b"1" => {
                first = Some(message.clone());
                Some(vec![])
            }
            b"2" => Some(returned(message, 312, "NO_ROUTE")),
            b"3" => Some(vec![]),
            _ => Some([ack(first.as_ref().unwrap()), ack_all(message)].concat()),
        })
        .await;
        let results = sink(&format!("{KEYED}{setting}"), &server.connectors)
            .deliver(&bodies(&["1", "2", "3", "4"]))
            .await;
        assert_eq!(whats(&results), ["ok", expected, "ok", "ok"], "{results:?}");
        assert_eq!(
            results[1].as_ref().unwrap_err().to_string(),
            "the far side refused it: the server answered 312 NO_ROUTE"
        );
    }
}

#[tokio::test]
async fn all_come_back_with_one_acknowledgement() {
    let server = Server::start(|message| {
        let back = returned(message, 312, "NO_ROUTE");
        Some(if message.tag == 3 { [back, ack_all(message)].concat() } else { back })
    })
    .await;
    let results = sink(KEYED, &server.connectors).deliver(&bodies(&["1", "2", "3"])).await;
    assert_eq!(whats(&results), ["refused"; 3]);
}

/// The third is acknowledged, but comes with the second, and the second with nobody: what of the third's own return?
#[tokio::test]
async fn a_message_whose_return_may_be_on_its_way_is_not_taken_for_delivered() {
    let server = Server::start(|message| match message.tag {
        1 => Some(vec![]),
        2 => Some(returned(message, 312, "NO_ROUTE")),
        _ => Some([returned(message, 312, "NO_ROUTE"), ack(message)].concat()),
    })
    .await;
    let text = format!("{KEYED}\ntimeout = '200ms'");
    let results = sink(&text, &server.connectors).deliver(&bodies(&["1", "2", "3"])).await;
    assert_eq!(whats(&results), ["again"; 3], "{results:?}");
}

#[tokio::test]
async fn what_the_server_cannot_take_is_sent_again() {
    let server =
        Server::start(|message| Some(if message.tag == 2 { nack(message) } else { ack(message) })).await;
    let results = sink(KEYED, &server.connectors).deliver(&bodies(&["1", "2", "3"])).await;
    assert_eq!(whats(&results), ["ok", "again", "ok"]);
}

/// The server says nothing of those before the one that it closes the channel for, and hears nothing of those behind.
fn closing(code: u16, text: &'static str) -> impl FnMut(&Published) -> Answer + Send + 'static {
    let mut closed = None;
    let mut seen = 0;
    move |message| {
        seen += 1;
        if closed == Some(message.channel) && message.tag > 1 {
            return Some(vec![]);
        }
        closed = None;
        if message.exchange.starts_with("bad") {
            closed = Some(message.channel);
            return Some(close(message.channel, code, text));
        }
        // Of the first batch nothing is confirmed in time.
        Some(if seen < 3 { vec![] } else { ack(message) })
    }
}

#[tokio::test]
async fn one_message_that_closes_the_channel_is_refused_alone() {
    for (code, text, expected) in [
        (404, "NOT_FOUND - no exchange 'bad' in vhost '/'", "refused"),
        (403, "ACCESS_REFUSED - access to exchange 'bad' in vhost '/' refused for user 'u'", "refused"),
        (406, "PRECONDITION_FAILED - invalid expiration", "refused"),
        (405, "RESOURCE_LOCKED", "again"),
    ] {
        let server = Server::start(closing(code, text)).await;
        let results =
            sink(EXCHANGED, &server.connectors).deliver(&to_exchanges(&["1", "2", "bad", "3", "4"])).await;
        assert_eq!(whats(&results), ["ok", "ok", expected, "ok", "ok"], "{code}: {results:?}");
        let error = results[2].as_ref().unwrap_err().to_string();
        assert_eq!(error, format!("the far side refused it: the server answered {code} {text}"));
        let first: Vec<String> = server.bodies().into_iter().skip(5).collect();
        // One by one up to the one at fault, then together.
        assert_eq!(first, ["1", "2", "bad", "3", "4"], "{code}");
    }
}

#[tokio::test]
async fn several_that_close_the_channel_are_refused_and_the_same_is_asked_once() {
    let server = Server::start(closing(404, "NOT_FOUND")).await;
    let texts = ["1", "bad", "bad", "2", "bad-too", "3", "bad"];
    let results = sink(EXCHANGED, &server.connectors).deliver(&to_exchanges(&texts)).await;
    let refused = "refused";
    assert_eq!(whats(&results), ["ok", refused, refused, "ok", refused, "ok", refused]);
    let asked = server.bodies().into_iter().skip(7).filter(|body| body == "bad").count();
    assert_eq!(asked, 1);
}

/// Nobody would fare better, so the message isn't given up.
#[tokio::test]
async fn a_missing_exchange_of_the_configuration_pauses_the_action() {
    let text = "exchange = 'bad'\nrouting_key = '${k}'\nbody = '${b}'";
    for (code, words, expected) in [
        (404, "NOT_FOUND - no exchange 'bad' in vhost '/'", ["disabled"; 3]),
        (403, "ACCESS_REFUSED - access to exchange 'bad' in vhost '/' refused for user 'u'", ["disabled"; 3]),
        (403, "ACCESS_REFUSED - write access to topic '1' in exchange 'bad' refused", ["refused"; 3]),
    ] {
        let server = Server::start(closing(code, words)).await;
        let one = |key: &[u8]| record(text, &[("routing_key", key), ("body", key)]);
        let records = vec![one(b"1"), one(b"2"), one(b"3")];
        let results = sink(text, &server.connectors).deliver(&batch(records.clone())).await;
        assert_eq!(whats(&results), expected, "{words}");
        // What was kept for another exchange is to blame itself.
        let server = Server::start(closing(code, words)).await;
        let elsewhere = text.replace("'bad'", "'good'");
        let results = sink(&elsewhere, &server.connectors).deliver(&batch(records)).await;
        assert_eq!(whats(&results), ["refused"; 3], "{words}");
    }
}

#[tokio::test]
async fn a_server_that_takes_nothing_is_left_alone_until_it_does() {
    let mut seen = 0;
    let server = Server::start(move |message| {
        seen += 1;
        Some(if seen == 1 { blocked("low on memory") } else { ack(message) })
    })
    .await;
    let sink = sink(KEYED, &server.connectors);
    for _ in 0..2 {
        let results = sink.deliver(&bodies(&["1"])).await;
        assert_eq!(
            results[0].as_ref().unwrap_err().to_string(),
            "the far side can't be reached: the server takes no messages at the moment: low on memory"
        );
        assert_eq!(whats(&results), ["later"]);
    }
    assert_eq!(server.bodies(), ["1"]);
    server.say.send(unblocked()).await.unwrap();
    // The same connection, which knows that it is free as soon as it has heard of it.
    while whats(&sink.deliver(&bodies(&["2"])).await) != ["ok"] {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.bodies(), ["1", "2"]);
    assert_eq!(server.sign_ins().len(), 1);
}

#[tokio::test]
async fn a_broken_or_silent_connection_is_made_anew() {
    // The test says where we are: what is hasty may give up before the server has anything of it.
    let step = Arc::new(AtomicUsize::new(1));
    let at = Arc::clone(&step);
    let mut server = Server::start(move |message| match at.load(Ordering::Relaxed) {
        1 => None,
        2 => Some(vec![]),
        3 => Some(close(0, 320, "CONNECTION_FORCED - broker forced connection closure")),
        _ => Some(ack(message)),
    })
    .await;
    let (patient, hasty) =
        (sink(KEYED, &server.connectors), sink(&format!("{KEYED}\ntimeout = '500ms'"), &server.connectors));
    let once = bodies(&["1"]);
    assert!(matches!(patient.deliver(&once).await[..], [Err(DeliveryError::Interrupted { .. })]));
    step.store(2, Ordering::Relaxed);
    assert!(matches!(hasty.deliver(&once).await[..], [Err(DeliveryError::TimedOut { .. })]));
    step.store(3, Ordering::Relaxed);
    let [Err(DeliveryError::Interrupted { cause })] = &patient.deliver(&once).await[..] else { panic!() };
    assert!(cause.contains("320 CONNECTION_FORCED"), "{cause}");
    step.store(4, Ordering::Relaxed);
    assert_eq!(patient.deliver(&once).await, [Ok(())]);
    // Each of the earlier ones has ended.
    for _ in 0..3 {
        server.ended.recv().await.unwrap();
    }
}

#[tokio::test]
async fn a_connection_that_broke_unused_is_no_failure() {
    let mut server = Server::start(acked).await;
    let sink = sink(KEYED, &server.connectors);
    assert_eq!(sink.deliver(&bodies(&["1"])).await, [Ok(())]);
    server.say.send(close(0, 320, "CONNECTION_FORCED")).await.unwrap();
    let connector = Arc::clone(server.connectors.get("q").and_then(crate::Connector::amqp).unwrap());
    let (connection, _) = connector.connection().await.unwrap();
    // It may have been made anew already.
    if connection.is_alive() && server.sign_ins().len() == 1 {
        while connection.is_alive() {
            tokio::task::yield_now().await;
        }
    }
    drop(connection);
    assert_eq!(sink.deliver(&bodies(&["2"])).await, [Ok(())]);
    server.ended.recv().await.unwrap();
    assert_eq!(server.bodies(), ["1", "2"]);
}

/// Neither the library's thread nor its tasks hold on to a connection that nobody wants, whatever the server does.
#[tokio::test]
async fn nothing_outlives_a_connector() {
    let mut server = Server::start(|_| Some(vec![])).await;
    let sink = sink(&format!("{KEYED}\ntimeout = '50ms'"), &server.connectors);
    assert_eq!(whats(&sink.deliver(&bodies(&["1"])).await), ["again"]);
    server.ended.recv().await.unwrap();
    let connector = Arc::clone(server.connectors.get("q").and_then(crate::Connector::amqp).unwrap());
    let (connection, _) = connector.connection().await.unwrap();
    let gate = Arc::clone(&connection.gate);
    drop((sink, connection, connector));
    server.connectors = Connectors::default();
    gate.gone().await;
    server.ended.recv().await.unwrap();
    // Everything that held the gate has gone with it.
    while Arc::strong_count(&gate) > 1 {
        tokio::task::yield_now().await;
    }
    // The first was cut: what had timed out was not to arrive later.
    assert_eq!(server.goodbyes(), [200]);
}

#[tokio::test]
async fn a_connection_that_nobody_wants_takes_leave() {
    for is_sullen in [false, true] {
        let mut server = Server::with(Manner { is_sullen, ..Manner::default() }, acked).await;
        let sink = sink(KEYED, &server.connectors);
        assert_eq!(sink.deliver(&bodies(&["1"])).await, [Ok(())]);
        assert!(server.goodbyes().is_empty());
        drop(sink);
        server.connectors = Connectors::default();
        server.ended.recv().await.unwrap();
        assert_eq!(server.goodbyes(), [200]);
    }
}
