//! Kafka's wire against an implementation that isn't ours: librdkafka's mock cluster takes what the action sends, its
//! consumer reads it back, and what can be wrong with a cluster is wrong with it.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a failure is a failed test"
)]

mod librdkafka;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use integration_tests::sinks::{self, Outcome, Stage, Waits};
use integration_tests::{Broker, Client, Version};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use serde_json::Value;

use self::librdkafka::{Mock, TOPIC};

fn number(action: &Value, member: &str) -> u64 {
    action[member].as_u64().unwrap_or(0)
}

/// Messages go out, then something is wrong, and more go out.
fn in_the_middle(mock: &Mock, wrong: impl FnOnce(&Stage<'_>)) -> Outcome {
    sinks::play(mock, false, Waits::Long, |stage| {
        stage.publish(20);
        stage.wait("a delivery", |action| number(action, "delivered") > 0);
        wrong(stage);
        stage.publish(20);
        stage.neighbour_has_all();
    })
}

#[test]
fn every_fault_on_the_way_to_librdkafka() {
    sinks::hold::<Mock>(env!("CARGO_TARGET_TMPDIR"));
}

#[test]
fn a_foreign_consumer_reads_what_was_sent() {
    let mock = Mock::of(3, 4, "");
    let kinds = ["none", "gzip", "snappy"];
    let mut rules = String::new();
    for kind in kinds {
        mock.cluster.create_topic(kind, 4, 3).unwrap();
        rules += &format!(
            "[rules.{kind}]\nsql = \"SELECT * FROM 'plant/#'\"\n[[rules.{kind}.actions]]\nname = \"out\"\n\
             type = \"kafka\"\nconnector = \"far\"\ntopic = \"{kind}\"\nkey = \"${{topic(2)}}\"\n\
             headers = {{ site = \"${{topic(2)}}\" }}\ncompression = \"{kind}\"\n\n"
        );
    }
    let servers: Vec<String> = mock.brokers().iter().map(|address| format!("\"{address}\"")).collect();
    let broker = Broker::builder()
        .section(&format!("[connectors.far]\ntype = \"kafka\"\nservers = [{}]\n", servers.join(", ")))
        .rule_file("far", &rules)
        .start();
    let clients: Vec<String> = (0..8).map(|client| format!("c{client}")).collect();
    for client in &clients {
        let mut publisher = Client::connect(&broker, Version::V5, client);
        for n in 0..25 {
            let payload = format!("{{\"n\":{n},\"pad\":\"{}\"}}", "x".repeat(200));
            assert!(publisher.publish_acknowledged(&format!("plant/{client}/data"), &payload) < 0x80);
        }
    }
    for kind in kinds {
        let deadline = std::time::Instant::now() + integration_tests::PATIENCE;
        loop {
            let (_, text) = broker.command(&["rules", "counters", kind, "--json"]);
            let rule: Value = serde_json::from_str(text.trim()).unwrap();
            if number(&rule["actions"][0]["delivery"], "delivered") == 200 {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{text}");
        }
        let read = mock.read(kind, &[0; 4]);
        assert_eq!(read.len(), 200, "{kind}");
        let mut next: BTreeMap<&str, u64> = BTreeMap::new();
        let mut partitions: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
        let mut keys = BTreeSet::new();
        for record in &read {
            let client = record.key.as_deref().unwrap();
            assert_eq!(record.headers["site"], client);
            assert!(keys.insert(&record.headers["Idempotency-Key"]), "{record:?}");
            let value: Value = serde_json::from_slice(&record.value).unwrap();
            let next = next.entry(client).or_default();
            assert_eq!(value["n"].as_u64(), Some(*next), "{kind}: {client} is out of order");
            *next += 1;
            partitions.entry(client).or_default().insert(record.partition);
        }
        assert!(next.keys().copied().eq(clients.iter().map(String::as_str)), "{next:?}");
        assert!(partitions.values().all(|partitions| partitions.len() == 1), "{partitions:?}");
        assert!(partitions.values().flatten().collect::<BTreeSet<_>>().len() > 1, "{partitions:?}");
    }
    broker.stop();
}

#[test]
fn leaders_that_move_are_followed() {
    let mock = Mock::of(3, 4, "");
    let lead = |broker| {
        for partition in 0..4 {
            mock.cluster.partition_leader(TOPIC, partition, Some(broker)).unwrap();
        }
    };
    lead(1);
    let outcome = in_the_middle(&mock, |_| lead(2));
    assert_eq!((outcome.delivered, outcome.copies), (160, 0));
}

#[test]
fn a_partition_without_a_leader_is_waited_for() {
    let mock = Mock::of(3, 1, "");
    let outcome = sinks::play(&mock, false, Waits::Long, |stage| {
        mock.cluster.partition_leader(TOPIC, 0, None).unwrap();
        stage.publish(20);
        stage.wait("a failure", |action| !action["failure"].is_null());
        stage.neighbour_has_all();
        mock.cluster.partition_leader(TOPIC, 0, Some(2)).unwrap();
    });
    assert_eq!((outcome.delivered, outcome.copies), (80, 0));
}

#[test]
fn errors_that_pass_are_waited_out() {
    use RDKafkaRespErr::*;
    let mock = Mock::of(1, 1, "");
    let errors = [
        RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
        // The connection ends.
        RD_KAFKA_RESP_ERR__TRANSPORT,
    ];
    let outcome = in_the_middle(&mock, |_| mock.cluster.request_errors(RDKafkaApiKey::Produce, &errors));
    assert_eq!((outcome.delivered, outcome.dead_lettered, outcome.copies), (160, 0, 0));
}

#[test]
fn a_producer_that_is_forgotten_begins_anew() {
    use RDKafkaRespErr::*;
    let mock = Mock::of(1, 1, "");
    let errors = [
        RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID,
        RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
        RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH,
    ];
    let outcome = in_the_middle(&mock, |_| mock.cluster.request_errors(RDKafkaApiKey::Produce, &errors));
    assert_eq!((outcome.delivered, outcome.copies), (160, 0));
}

#[test]
fn a_record_that_is_refused_is_a_dead_letter_and_its_neighbours_arrive() {
    use RDKafkaRespErr::*;
    for error in [RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, RD_KAFKA_RESP_ERR_INVALID_RECORD] {
        let mock = Mock::of(1, 1, "");
        let outcome = sinks::play(&mock, false, Waits::Long, |stage| {
            // One publisher of two messages behind which others wait: the first half is refused, and the first of it alone.
            stage.control("pause");
            stage.poison(1);
            stage.publish(1);
            stage.neighbour_has_all();
            // Five records; the first two of them; the first one.
            mock.cluster.request_errors(RDKafkaApiKey::Produce, &[error; 3]);
            stage.control("resume");
        });
        assert_eq!((outcome.delivered, outcome.dead_lettered, outcome.copies), (4, 1, 0));
    }
}

#[test]
fn brokers_that_are_down_for_a_while_are_waited_for() {
    let mock = Mock::of(3, 4, "");
    let outcome = sinks::play(&mock, false, Waits::Long, |stage| {
        stage.publish(20);
        stage.wait("a delivery", |action| number(action, "delivered") > 0);
        mock.cluster.broker_down(-1).unwrap();
        stage.publish(20);
        stage.neighbour_has_all();
        stage.wait("a failure", |action| !action["failure"].is_null());
        mock.cluster.broker_up(-1).unwrap();
    });
    assert_eq!((outcome.delivered, outcome.copies), (160, 0));
}

#[test]
fn brokers_that_are_far_away_get_everything() {
    let mock = Mock::of(3, 4, "");
    mock.cluster.broker_round_trip_time(-1, Duration::from_millis(100)).unwrap();
    let outcome = sinks::play(&mock, false, Waits::Long, |stage| {
        stage.publish(20);
        stage.neighbour_has_all();
    });
    assert_eq!((outcome.delivered, outcome.copies), (80, 0));
}

/// Answers to what was written are lost.
fn lost_answers(mock: &Mock, may_repeat: bool) -> Outcome {
    let relay = mock.relay.as_ref().unwrap();
    sinks::play(mock, may_repeat, Waits::Long, |stage| {
        stage.publish(20);
        stage.wait("a delivery", |action| number(action, "delivered") > 0);
        relay.lose_answers(3);
        stage.publish(20);
        stage.wait_until("answers are lost", |_| relay.to_lose() == 0);
    })
}

#[test]
fn what_was_written_without_an_answer_is_there_once() {
    let outcome = lost_answers(&Mock::relayed(""), false);
    assert_eq!((outcome.delivered, outcome.copies), (160, 0));
}

#[test]
fn without_idempotence_it_is_there_twice() {
    // Nothing has a number, so nothing may have a transaction's name either.
    let mut mock = Mock::of(1, 1, "idempotence = false");
    mock.relay = Some(integration_tests::servers::KafkaRelay::start(mock.brokers()[0]));
    let outcome = lost_answers(&mock, true);
    assert!(outcome.delivered == 160 && outcome.copies > 0, "{outcome:?}");
}

#[test]
fn a_cluster_that_gives_no_number_is_done_without() {
    let mock = Mock::of(1, 1, "idempotence = false");
    mock.cluster.apiversion(RDKafkaApiKey::InitProducerId, None, None).unwrap();
    let outcome = in_the_middle(&mock, |_| ());
    assert_eq!((outcome.delivered, outcome.copies), (160, 0));
}
