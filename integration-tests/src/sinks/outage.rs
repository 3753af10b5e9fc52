//! A long outage: far more is published than memory should hold, and nothing may be lost of it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::ledger::{self, Copies};
use super::{FarSide, Outcome};
use crate::fault_proxy::{Fault, FaultProxy};
use crate::{Broker, wire};

/// Publishers.
const CLIENTS: u64 = 4;
/// Messages that a publisher sends before it waits for their acknowledgements.
const WINDOW: u64 = 100;
/// How long draining may take.
const DRAIN_PATIENCE: Duration = Duration::from_secs(1_800);
/// Who publishes after the outage, where that is to arrive before the rest.
const LIVE: &str = "c9";
/// How much.
const LIVE_MESSAGES: u64 = 100;
/// Between two looks at the counters.
const LOOK: Duration = Duration::from_millis(200);

/// What an outage took.
#[derive(Debug, Clone)]
pub struct Report {
    /// Messages of the outage.
    pub messages: u64,
    /// How long publishing them took.
    pub publishing: Duration,
    /// Resident memory of the broker before, in bytes.
    pub memory_before: u64,
    /// The same at the end of the outage.
    pub memory_in_outage: u64,
    /// The largest while draining.
    pub memory_draining: u64,
    /// How long draining took.
    pub draining: Duration,
    /// Copies that the far side got.
    pub copies: u64,
    /// Messages of the outage that arrived before the last of those that came after it; `None` where they weren't to go
    /// first, or the far side can't tell.
    pub before_live: Option<usize>,
}

/// Publishes `messages` while the far side is down, lets it come back, and waits until all is there.
///
/// `live_first`: a hundred more messages come after the outage, and are to arrive before the rest of it.
///
/// # Panics
/// When anything is lost.
#[track_caller]
pub fn outage<F: FarSide>(messages: u64, live_first: bool) -> Report {
    let far = F::start();
    far.clear();
    let proxy = FaultProxy::start(far.address(), Fault::Down);
    let drain = if live_first { "live_first" } else { "oldest_first" };
    let rule = format!(
        r#"
[rules.far]
sql = "SELECT * FROM 'plant/#'"

[[rules.far.actions]]
name = "out"
connector = "far"
retry = {{ max_attempts = 1000000, initial_backoff = "10ms", max_backoff = "200ms" }}
queue = {{ max_items = 10000000, max_bytes = "8GiB", drain = "{drain}" }}
{}
"#,
        far.action()
    );
    let broker = Broker::builder()
        .section(&format!(
            "[store]\ndurability = \"commit\"\nmax_bytes = \"16GiB\"\n\n[connectors.far]\n{}\n",
            far.connector(proxy.address())
        ))
        .rule_file("far", &rule)
        .start();
    let memory_before = broker.resident_bytes();
    let each = messages / CLIENTS;
    let begin = Instant::now();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let broker = &broker;
            scope.spawn(move || publish(broker, &format!("c{client}"), each));
        }
    });
    let publishing = begin.elapsed();
    let memory_in_outage = broker.resident_bytes();
    let mut published: BTreeMap<String, u64> =
        (0..CLIENTS).map(|client| (format!("c{client}"), each)).collect();
    let begin = Instant::now();
    proxy.set(Fault::None);
    if live_first {
        publish(&broker, LIVE, LIVE_MESSAGES);
        published.insert(LIVE.to_owned(), LIVE_MESSAGES);
    }
    let total: u64 = published.values().sum();
    let mut memory_draining = 0;
    loop {
        memory_draining = memory_draining.max(broker.resident_bytes());
        let action = counters(&broker);
        let number = |member: &str| action[member].as_u64().unwrap_or(0);
        if number("delivered") == total {
            break;
        }
        assert!(begin.elapsed() < DRAIN_PATIENCE, "it never drained: {action}");
        #[expect(clippy::disallowed_methods, reason = "looking more often would slow down what is measured")]
        thread::sleep(LOOK);
    }
    let draining = begin.elapsed();
    let mut outcome = Outcome::default();
    let mut arrived = far.arrived();
    let mut before_live = None;
    if live_first {
        let last = arrived.iter().rposition(|message| message.client == LIVE);
        before_live = last
            .filter(|_| F::TELLS_ORDER)
            .map(|last| arrived[..last].iter().filter(|message| message.client != LIVE).count());
        // What came while the queue was short was sent before what waited on disk: order holds among either alone.
        arrived.sort_by(|one, other| (&one.client, one.number).cmp(&(&other.client, other.number)));
    }
    ledger::check(&arrived, &published, Copies::Allowed, &mut outcome);
    broker.stop();
    Report {
        messages: each * CLIENTS,
        publishing,
        memory_before,
        memory_in_outage,
        memory_draining,
        draining,
        copies: outcome.copies,
        before_live,
    }
}

fn counters(broker: &Broker) -> Value {
    let (code, text) = broker.command(&["rules", "counters", "far", "--json"]);
    assert_eq!(code, Some(0), "{text}");
    let rule: Value = serde_json::from_str(text.trim()).unwrap();
    rule["actions"][0]["delivery"].clone()
}

/// Publishes at QoS 1, a window at a time.
fn publish(broker: &Broker, client: &str, count: u64) {
    let mut stream = TcpStream::connect(broker.address()).unwrap();
    stream.set_read_timeout(Some(crate::PATIENCE)).unwrap();
    stream.write_all(&wire::bytes(&format!("10 ['MQTT' 04 02 003c '{client}']"))).unwrap();
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).unwrap();
    assert_eq!(connack, [0x20, 2, 0, 0]);
    let topic = format!("plant/{client}/data");
    let mut sent = 0;
    while sent < count {
        let window = WINDOW.min(count - sent);
        let mut bytes = Vec::new();
        for number in sent..sent + window {
            let payload = ledger::payload(client, number, 0);
            let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
            body.extend_from_slice(topic.as_bytes());
            body.extend_from_slice(&u16::try_from(number % 60_000 + 1).unwrap().to_be_bytes());
            body.extend_from_slice(payload.as_bytes());
            bytes.push(0x32);
            bytes.extend(wire::variable_byte_integer(body.len()));
            bytes.extend(body);
        }
        stream.write_all(&bytes).unwrap();
        let mut acks = vec![0; usize::try_from(window).unwrap() * 4];
        stream.read_exact(&mut acks).unwrap();
        for ack in acks.chunks(4) {
            assert_eq!(ack[..2], [0x40, 2], "an acknowledgement");
        }
        sent += window;
    }
}
