//! How many records a second go to a Kafka cluster through the action and through librdkafka, and what each costs.
//!
//! `cargo run --profile profiling -p integration-tests --example kafka_producers [-- RECORDS]`
//!
//! Both send the same records, of 200 bytes with a key and one header, to librdkafka's mock cluster, as idempotent producers
//! that wait for all replicas, with the batches that they make by default. Cluster and producer are processes of their own, so
//! that the CPU is the producer's alone: user and system, from /proc/self/stat, between the first record and the last answer.
//! The sink has its queue before it, as in an action, and so has librdkafka.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool that is run by hand; what fails shall end it"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actions::config::{ConnectorConfig, DeliveryConfig, QueueConfig, RetryConfig};
use actions::delivery::Outgoing;
use actions::sinks::kafka::KafkaSink;
use actions::{ActionConfig, Connectors, Delivery, Enqueued, ItemId, Record, RecordKind, TargetPolicy};
use bytes::Bytes;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};

const TOPIC: &str = "figures";
const BROKERS: i32 = 3;
const PARTITIONS: i32 = 4;
/// Value of every record in bytes.
const VALUE_BYTES: usize = 200;
/// Keys that the records have: as many publishers.
const PUBLISHERS: u64 = 16;
/// How long librdkafka may take for its last answers.
const FLUSH: Duration = Duration::from_secs(60);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["cluster"] => cluster(),
        ["produce", "action", servers, records] => tell(&action(servers, records.parse().unwrap())),
        ["produce", "librdkafka", servers, records] => tell(&librdkafka(servers, records.parse().unwrap())),
        [] => compare("500000"),
        [records] => compare(records),
        _ => println!("usage: kafka_producers [RECORDS]"),
    }
}

/// Three rounds, each producer with a cluster of its own.
fn compare(records: &str) {
    for round in 1..=3 {
        for producer in ["action", "librdkafka"] {
            let mut cluster = start(&["cluster"]);
            let mut servers = String::new();
            BufReader::new(cluster.stdout.take().unwrap()).read_line(&mut servers).unwrap();
            let output = start(&["produce", producer, servers.trim(), records]).wait_with_output().unwrap();
            assert!(output.status.success());
            print!("round {round} {producer:>10}: {}", String::from_utf8(output.stdout).unwrap());
            // It ends with its input.
            drop(cluster.stdin.take());
            cluster.wait().unwrap();
        }
    }
}

fn start(arguments: &[&str]) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().unwrap()
}

/// The cluster: says where it is, and stays until its input ends.
fn cluster() {
    let cluster = MockCluster::new(BROKERS).unwrap();
    cluster.create_topic(TOPIC, PARTITIONS, BROKERS).unwrap();
    println!("{}", cluster.bootstrap_servers());
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// What a run took.
struct Run {
    records: usize,
    wall: Duration,
    cpu: Duration,
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn tell(run: &Run) {
    let records = run.records as f64;
    let (per_second, each) = (records / run.wall.as_secs_f64(), run.cpu.as_secs_f64() * 1e6 / records);
    println!("{per_second:>9.0} records/s, {each:>6.2} µs CPU each");
}

struct Watch {
    begin: Instant,
    cpu: Duration,
}

impl Watch {
    fn start() -> Self {
        Self { begin: Instant::now(), cpu: cpu() }
    }

    fn stop(&self, records: usize) -> Run {
        Run { records, wall: self.begin.elapsed(), cpu: cpu() - self.cpu }
    }
}

/// CPU time of this process; the clock ticks a hundred times a second.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// A JSON string.
fn value() -> Bytes {
    let mut value = vec![b'x'; VALUE_BYTES];
    value[0] = b'"';
    value[VALUE_BYTES - 1] = b'"';
    Bytes::from(value)
}

/// The action, with its queue and all defaults.
#[tokio::main]
async fn action(servers: &str, records: usize) -> Run {
    let servers: Vec<String> = servers.split(',').map(|server| format!("\"{server}\"")).collect();
    let connector = format!("[far]\ntype = \"kafka\"\nservers = [{}]\n", servers.join(", "));
    let configs: BTreeMap<String, ConnectorConfig> = toml::from_str(&connector).unwrap();
    let allow_private = vec!["127.0.0.1".parse().unwrap()];
    let targets = TargetPolicy { allow_private, ..TargetPolicy::default() };
    let connectors = Connectors::load(&configs, &targets, &Connectors::default()).unwrap();
    let action = format!("type = \"kafka\"\nname = \"a\"\nconnector = \"far\"\ntopic = \"{TOPIC}\"\n");
    let ActionConfig::Kafka(config) = toml::from_str(&action).unwrap() else { panic!("another action") };
    let sink = KafkaSink::new("rule", &config, &connectors).unwrap();
    let queue = QueueConfig { max_items: Some(records), max_bytes: Some(8 << 30), ..QueueConfig::default() };
    let settings = DeliveryConfig {
        queue,
        retry: RetryConfig::default(),
        concurrency: config.concurrency,
        max_per_second: None,
    };
    let delivery = Delivery::spawn("rule/a", sink, settings, 1);
    let value = value();
    let watch = Watch::start();
    for n in 0..records as u64 {
        let publisher = format!("c{}", n % PUBLISHERS);
        let record = Record {
            kind: RecordKind::Kafka,
            key: Some(Bytes::from(publisher.clone())),
            address: vec![TOPIC.to_owned(), publisher],
            fields: Vec::new(),
            payload: value.clone(),
        };
        let id = ItemId { store: 1, epoch: 1, sequence: n };
        let item = Outgoing::new(id, Some(n % PUBLISHERS), record);
        assert_eq!(delivery.enqueue(item), Enqueued::Queued);
    }
    loop {
        let snapshot = delivery.snapshot();
        if snapshot.delivered == records as u64 {
            return watch.stop(records);
        }
        assert!(snapshot.dropped.iter().all(|(_, count)| *count == 0), "{snapshot:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Counts what was written.
#[derive(Clone, Default)]
struct Written(Arc<AtomicUsize>);

impl ClientContext for Written {}

impl ProducerContext for Written {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        assert!(result.is_ok(), "{result:?}");
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// librdkafka with its defaults, and room for all records.
fn librdkafka(servers: &str, records: usize) -> Run {
    let written = Written::default();
    let producer: BaseProducer<Written> = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", records.max(100_000).to_string())
        .set("queue.buffering.max.kbytes", "2000000")
        .create_with_context(written.clone())
        .unwrap();
    let value = value();
    let watch = Watch::start();
    for n in 0..records as u64 {
        let publisher = format!("c{}", n % PUBLISHERS);
        let key = format!("{:016x}.1-{n}.rule.a", 1);
        let headers = OwnedHeaders::new_with_capacity(1);
        let headers = headers.insert(Header { key: "Idempotency-Key", value: Some(&key) });
        let mut record = BaseRecord::to(TOPIC).key(&publisher).payload(&value[..]).headers(headers);
        while let Err((error, back)) = producer.send(record) {
            assert!(matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)), "{error}");
            producer.poll(Duration::from_millis(1));
            record = back;
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(FLUSH).expect("all answers");
    let run = watch.stop(records);
    assert_eq!(written.0.load(Ordering::Relaxed), records);
    run
}
