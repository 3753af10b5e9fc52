//! How many records a second a sink sends to a real server, and what they cost beside a bare loop of the same library.
//!
//! `cargo run --profile profiling -p actions --all-features --example throughput -- KIND ADDRESS [--items N] [--user U] [--password P]`
//!
//! KIND is `amqp`, `http`, `nats` or `redis`; at ADDRESS (`127.0.0.1:PORT`) is a server that the tool may fill. Everything
//! happens in one process, one after the other, three times: the bare loop with batches, the sink with batches, the bare
//! loop without, the sink without. CPU is that of this process, user and system, from /proc/self/stat.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a tool that is run by hand; what fails shall end it"
)]

mod bare;
mod runtime;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actions::config::{ConnectorConfig, DeliveryConfig, QueueConfig, RetryConfig};
use actions::delivery::Outgoing;
use actions::sinks::amqp::AmqpSink;
use actions::sinks::http::{HttpRequest, HttpSink, RequestUrl};
use actions::sinks::nats::NatsSink;
use actions::sinks::redis::RedisSink;
use actions::{ActionConfig, Connectors, Delivery, Enqueued, ItemId, Record, RecordKind, Sink, TargetPolicy};
use bytes::Bytes;

/// Payload of every record in bytes.
const PAYLOAD_BYTES: usize = 200;
/// Records that go together where batches are on.
const BATCH: usize = 500;
/// Order keys that the records have: as many publishers.
const PUBLISHERS: u64 = 16;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, address, rest @ ..] = arguments.as_slice() else {
        println!("usage: throughput KIND ADDRESS [--items N] [--user U] [--password P]");
        return;
    };
    let option =
        |name: &str| rest.iter().position(|word| word == name).and_then(|at| rest.get(at + 1)).cloned();
    let items: usize = option("--items").map_or(200_000, |text| text.parse().unwrap());
    // The one provider of this workspace, for the bare loop of HTTP.
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let target = Target {
        kind: kind.clone(),
        address: address.clone(),
        user: option("--user"),
        password: option("--password"),
    };
    for round in 1..=3 {
        for batch in [BATCH, 1] {
            // Without batches it is one round trip for each record, so fewer do.
            let items = if batch == 1 { items / 10 } else { items };
            let (bare, sink) = (target.bare(items, batch).await, target.sink(items, batch).await);
            println!(
                "{kind} round {round} batch {batch:>3}: bare {bare} | sink {sink} | CPU {:.2} of the bare loop",
                sink.cpu_per_item() / bare.cpu_per_item()
            );
        }
    }
}

struct Target {
    kind: String,
    address: String,
    user: Option<String>,
    password: Option<String>,
}

/// What a run took.
struct Run {
    items: usize,
    wall: Duration,
    cpu: Duration,
}

impl Run {
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn cpu_per_item(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.items as f64
    }
}

impl std::fmt::Display for Run {
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let per_second = self.items as f64 / self.wall.as_secs_f64();
        write!(f, "{per_second:>8.0}/s {:>6.2} µs CPU each", self.cpu_per_item())
    }
}

struct Watch {
    begin: Instant,
    cpu: Duration,
}

impl Watch {
    fn start() -> Self {
        Self { begin: Instant::now(), cpu: cpu() }
    }

    fn stop(&self, items: usize) -> Run {
        Run { items, wall: self.begin.elapsed(), cpu: cpu() - self.cpu }
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
fn payload() -> Bytes {
    let mut payload = vec![b'x'; PAYLOAD_BYTES];
    payload[0] = b'"';
    payload[PAYLOAD_BYTES - 1] = b'"';
    Bytes::from(payload)
}

impl Target {
    /// A sink of the crate, with a queue before it as in an action.
    async fn sink(&self, items: usize, batch: usize) -> Run {
        let (connector, action) = self.settings(batch);
        let configs: BTreeMap<String, ConnectorConfig> = toml::from_str(&connector).unwrap();
        let allow_private = vec!["127.0.0.1".parse().unwrap()];
        let targets = TargetPolicy { allow_private, ..TargetPolicy::default() };
        let connectors = Connectors::load(&configs, &targets, &Connectors::default()).unwrap();
        match toml::from_str(&action).unwrap() {
            ActionConfig::Amqp(config) => {
                let sink = AmqpSink::new("rule", &config, &connectors).unwrap();
                drain(sink, record(RecordKind::Amqp, &["", "sink"]), items).await
            }
            ActionConfig::Http(config) => {
                let sink = HttpSink::new("rule", &config, Arc::new(targets), &connectors).unwrap();
                drain(sink, self.request(batch), items).await
            }
            ActionConfig::Nats(config) => {
                let sink = NatsSink::new("rule", &config, &connectors).unwrap();
                drain(sink, record(RecordKind::Nats, &["sink.a"]), items).await
            }
            ActionConfig::Redis(config) => {
                let sink = RedisSink::new("rule", &config, &connectors).unwrap();
                drain(sink, record(RecordKind::Redis, &["xadd", "sink", ""]), items).await
            }
            other => panic!("no sink for {other:?}"),
        }
    }

    fn settings(&self, batch: usize) -> (String, String) {
        let (kind, address) = (self.kind.as_str(), &self.address);
        let mut connector = match kind {
            "http" => format!("[far]\ntype = \"http\"\nurl = \"http://{address}\"\n"),
            _ => format!("[far]\ntype = \"{kind}\"\nservers = [\"{address}\"]\n"),
        };
        for (key, value) in [("username", &self.user), ("password", &self.password)] {
            if let Some(value) = value {
                writeln!(connector, "{key} = \"{value}\"").unwrap();
            }
        }
        let own = match kind {
            "amqp" => "exchange = \"\"\nrouting_key = \"sink\"",
            "http" => "url = \"/sink\"",
            "nats" => "subject = \"sink.a\"",
            "redis" => "key = \"sink\"\nmax_len = 10000",
            other => panic!("no settings for \"{other}\""),
        };
        let batch = match (kind, batch) {
            ("http", 1) => String::new(),
            _ => format!("batch = {{ max_items = {batch} }}\n"),
        };
        let common = format!("type = \"{kind}\"\nname = \"a\"\nconnector = \"far\"\nconcurrency = 1\n");
        (connector, format!("{common}{batch}{own}\n"))
    }

    fn request(&self, batch: usize) -> HttpRequest {
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert("content-type", "application/json".parse().unwrap());
        HttpRequest {
            method: reqwest::Method::POST,
            url: RequestUrl::Path("/sink".to_owned()),
            headers,
            body: payload(),
            is_batch_item: batch > 1,
        }
    }
}

fn record(kind: RecordKind, address: &[&str]) -> Record {
    let address = address.iter().map(|part| (*part).to_owned()).collect();
    Record { kind, address, key: None, fields: Vec::new(), payload: payload() }
}

/// Puts requests into a queue in memory and waits until all of them are confirmed.
async fn drain<S: Sink>(sink: S, request: S::Request, items: usize) -> Run
where
    S::Request: Clone,
{
    let queue = QueueConfig { max_items: Some(items), max_bytes: Some(8 << 30), ..QueueConfig::default() };
    let settings =
        DeliveryConfig { queue, retry: RetryConfig::default(), concurrency: 1, max_per_second: None };
    let delivery = Delivery::spawn("rule/a", sink, settings, 1);
    let watch = Watch::start();
    for n in 0..items as u64 {
        let id = ItemId { store: 1, epoch: 1, sequence: n };
        let item = Outgoing::new(id, Some(n % PUBLISHERS), request.clone());
        assert_eq!(delivery.enqueue(item), Enqueued::Queued);
    }
    loop {
        let snapshot = delivery.snapshot();
        if snapshot.delivered == items as u64 {
            return watch.stop(items);
        }
        assert!(snapshot.dropped.iter().all(|(_, count)| *count == 0), "{snapshot:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
