//! Ten thousand changes of rules while clients publish and subscribe: nobody is dropped, nothing is missed, memory stays.
//!
//! Alone in its file, so that the memory of the process is that of this one test.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that can't go on fails, in its helpers too"
)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mqtt_protocol::{QoS, SubscriptionOptions};
use serde_json::json;
use tidegate::client::{Client, Endpoint, Event, Message, Options};
use tidegate::config::{Admin, Config, Listener};
use tidegate::rules::{Expected, RuleChange, RuleSet};
use tidegate::server::Server;
use tidegate::storage::Storage;

/// Longest wait for something that must happen; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(100);
const CHANGES: usize = 10_000;
/// Changes between two looks at the memory of the process.
const BLOCK: usize = 2_000;
/// Blocks in a row that have to make do with the memory that the process had before them.
const STEADY_BLOCKS: usize = 4;
/// Blocks after which memory that still grows is called a leak.
const BLOCKS_MAX: usize = 15;
/// What memory may grow by over [`STEADY_BLOCKS`], for pages that the allocator holds on to: two kilobytes for each change.
const GROWTH_BYTES_MAX: u64 = 16 << 20;
/// Rules that come and go.
const NAMES: usize = 16;

const STEADY: &str = "
[rules.steady]
sql = \"SELECT * FROM 'in/#'\"
[[rules.steady.actions]]
name = 'out'
type = 'republish'
topic = 'out/steady'
qos = 1
";

fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}

/// Whether the last [`STEADY_BLOCKS`] took no memory worth the name.
fn is_steady(sizes: &[u64]) -> bool {
    match sizes.iter().rev().nth(STEADY_BLOCKS) {
        Some(before) => sizes.last().is_some_and(|last| *last < before + GROWTH_BYTES_MAX),
        None => false,
    }
}

fn change(number: usize) -> RuleChange {
    let name = format!("r{}", number % NAMES);
    match number / NAMES % 3 {
        2 => RuleChange::Remove { name, expected: Expected::Any },
        _ => RuleChange::Put {
            name,
            definition: json!({
                "sql": format!("SELECT * FROM 'in/#' WHERE n = {}", -1 - i64::try_from(number).unwrap()),
                "actions": [{ "name": "out", "type": "republish", "topic": format!("out/{number}") }],
            }),
            expected: Expected::Any,
        },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_changes_drop_no_client_miss_no_message_and_leak_no_memory() {
    let listener = Listener { address: "127.0.0.1:0".parse().ok(), ..Config::default().listeners[0].clone() };
    let admin = Admin { enabled: false, ..Admin::default() };
    let config = Config { listeners: vec![listener], admin, ..Config::default() };
    let rules = RuleSet::from_texts([(Path::new("steady.toml"), STEADY)], &rules_sql::Limits::default());
    let server = Server::start(&config, &rules.unwrap(), &Storage::memory()).await.unwrap();
    let address = server.address().unwrap();
    let options = |name: &str| Options {
        endpoint: Endpoint::Tcp { host: address.ip().to_string(), port: address.port() },
        client_id: name.to_owned(),
        ..Options::default()
    };

    let mut subscriber = Client::connect(&options("subscriber")).await.unwrap();
    subscriber.subscribe([("out/#", SubscriptionOptions::from_qos(QoS::AtLeastOnce))]).unwrap();
    assert!(matches!(subscriber.next().await.unwrap(), Event::Subscribed { .. }));
    let is_over = Arc::new(AtomicBool::new(false));
    let published = tokio::spawn({
        let (is_over, mut publisher) =
            (Arc::clone(&is_over), Client::connect(&options("publisher")).await.unwrap());
        async move {
            let mut published = 0u64;
            while !is_over.load(Ordering::Relaxed) {
                let text = format!("{{\"n\":{published}}}");
                publisher.publish(&Message::new("in/a", text).with_qos(QoS::AtLeastOnce)).unwrap();
                published += 1;
                while publisher.unsettled() > 0 {
                    publisher.next().await.unwrap();
                }
            }
            published
        }
    });
    let received = tokio::spawn(async move {
        let mut next = 0u64;
        loop {
            match subscriber.next().await.unwrap() {
                Event::Message(received) if received.message.topic == "out/end" => return next,
                Event::Message(received) => {
                    let payload: serde_json::Value =
                        serde_json::from_slice(&received.message.payload).unwrap();
                    assert_eq!(
                        (received.message.topic.as_str(), payload["n"].as_u64()),
                        ("out/steady", Some(next))
                    );
                    next += 1;
                }
                _ => {}
            }
        }
    });

    let book = server.rule_book().clone();
    let changes = tokio::task::spawn_blocking(move || {
        let mut sizes = Vec::new();
        for block in 0.. {
            for number in block * BLOCK..(block + 1) * BLOCK {
                let changed = book.change(&[change(number)], "test").unwrap();
                assert_eq!(changed.rules.len(), 1, "{number}");
            }
            sizes.push(resident_bytes());
            if sizes.len() * BLOCK >= CHANGES && is_steady(&sizes) {
                break;
            }
            assert!(sizes.len() < BLOCKS_MAX, "memory grows without end: {sizes:?}");
        }
    });
    tokio::time::timeout(PATIENCE, changes).await.unwrap().unwrap();
    is_over.store(true, Ordering::Relaxed);
    let published = published.await.unwrap();
    let mut last = Client::connect(&options("last")).await.unwrap();
    last.publish(&Message::new("out/end", "").with_qos(QoS::AtLeastOnce)).unwrap();
    last.flush().await.unwrap();
    let received = tokio::time::timeout(PATIENCE, received).await.unwrap().unwrap();

    assert!(published > 0);
    assert_eq!(received, published, "every message went through the rule that was there all along");
    let steady = server.rules().stats().into_iter().find(|stats| stats.name == "steady").unwrap();
    assert_eq!((steady.matched, steady.passed), (published, published));
    server.stop(Duration::ZERO).await;
}
