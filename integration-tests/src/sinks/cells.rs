//! The faults, one after the other.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::ledger::{self, Arrived, Copies};
use super::{FarSide, Outcome, POISON};
use crate::fault_proxy::{Fault, FaultProxy};
use crate::{Broker, Client, HttpReceiver, PATIENCE, Version};

/// Publishers of a cell.
const CLIENTS: usize = 4;
/// Messages of each publisher in one go.
const MESSAGES: u64 = 40;
/// Bytes of a client after which a connection is reset in mid-batch: more than a sign-in, less than what is to be sent.
const RESET_AFTER: u64 = 6_000;
/// Resets after which the way is repaired.
const RESETS: u64 = 3;
/// By how much the broker may grow while a far side floods it.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

/// One fault.
pub struct Cell {
    /// As it stands in the table.
    pub name: &'static str,
    run: fn(&mut Stage<'_>),
    before: Fault,
    copies: Copies,
    connector: Connector,
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// With which connector the broker starts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Connector {
    Right,
    WrongCredentials,
    Tls,
}

const fn cell(name: &'static str, before: Fault, copies: Copies, run: fn(&mut Stage<'_>)) -> Cell {
    Cell { name, run, before, copies, connector: Connector::Right }
}

/// All of them.
pub static CELLS: [Cell; 13] = [
    cell("normal", Fault::None, Copies::None, |stage| {
        stage.publish(MESSAGES);
        stage.neighbour_has_all();
    }),
    // The first attempts may have got as far as a connection, never as far as a message.
    cell("down at start", Fault::Down, Copies::None, |stage| {
        stage.publish(MESSAGES);
        stage.neighbour_has_all();
        stage.proxy.set(Fault::None);
    }),
    cell("down for a while", Fault::None, Copies::Allowed, |stage| {
        stage.publish(MESSAGES);
        stage.wait("a delivery", |action| number(action, "delivered") > 0);
        stage.proxy.set(Fault::Down);
        stage.publish(MESSAGES);
        stage.neighbour_has_all();
        stage.proxy.set(Fault::None);
    }),
    cell("stall", Fault::None, Copies::Allowed, |stage| {
        stage.publish(MESSAGES);
        stage.wait("a delivery", |action| number(action, "delivered") > 0);
        stage.proxy.set(Fault::Stall);
        stage.publish(MESSAGES);
        stage.neighbour_has_all();
        stage.wait("a time-out", |action| !action["failure"].is_null());
        stage.proxy.set(Fault::None);
    }),
    cell("half-open", Fault::None, Copies::Allowed, |stage| {
        stage.publish(MESSAGES);
        stage.wait("a delivery", |action| number(action, "delivered") > 0);
        stage.proxy.set(Fault::HalfOpen);
        stage.publish(MESSAGES);
        stage.neighbour_has_all();
        stage.wait("a time-out", |action| !action["failure"].is_null());
        stage.proxy.set(Fault::None);
    }),
    cell("slow", Fault::Slow(Duration::from_millis(30)), Copies::Allowed, |stage| {
        stage.publish(MESSAGES);
        stage.neighbour_has_all();
    }),
    cell("narrow", Fault::Bandwidth(100_000), Copies::Allowed, |stage| {
        stage.publish(MESSAGES);
        stage.neighbour_has_all();
    }),
    cell("reset in mid-batch", Fault::ResetAfter(RESET_AFTER), Copies::Allowed, |stage| {
        stage.publish(MESSAGES);
        stage.neighbour_has_all();
        stage.wait_until("connections are reset", |stage| stage.proxy.resets() >= RESETS);
        stage.proxy.set(Fault::None);
    }),
    cell("one of a batch refused", Fault::None, Copies::None, |stage| {
        // All of it waits, so that the poison is in the middle of a batch.
        stage.control("pause");
        stage.publish(MESSAGES / 2);
        stage.poison(2);
        stage.publish(MESSAGES / 2);
        stage.neighbour_has_all();
        stage.control("resume");
    }),
    Cell {
        name: "wrong credentials",
        before: Fault::None,
        copies: Copies::None,
        connector: Connector::WrongCredentials,
        run: |stage| {
            stage.publish(MESSAGES);
            stage.neighbour_has_all();
            stage.wait("a refusal", |action| action["circuit"] == "open" && !action["failure"].is_null());
            let action = stage.action();
            assert_eq!(number(&action, "delivered"), 0, "{action}");
            assert_eq!(action["dead_lettered"], serde_json::json!({}), "{action}");
            stage.mend();
        },
    },
    Cell {
        name: "TLS failure",
        before: Fault::None,
        copies: Copies::None,
        connector: Connector::Tls,
        run: |stage| {
            stage.publish(MESSAGES);
            stage.neighbour_has_all();
            stage.wait("a refusal", |action| !action["failure"].is_null());
            stage.mend();
        },
    },
    cell("garbage and endless answers", Fault::None, Copies::Allowed, |stage| {
        stage.flood(b"\0\xff garbage \r\n\r\n".to_vec());
    }),
    cell("huge answers", Fault::None, Copies::Allowed, |stage| {
        let answer = stage.huge_answer.clone();
        stage.flood(answer);
    }),
];

/// What a cell has to do with.
pub(super) struct Stage<'f> {
    far: &'f dyn Fn() -> Vec<Arrived>,
    broker: Broker,
    proxy: FaultProxy,
    neighbour: Neighbour,
    published: BTreeMap<String, u64>,
    padding: usize,
    huge_answer: Vec<u8>,
    wrong: String,
    right: String,
    latencies: Vec<Duration>,
}

/// Runs one.
#[track_caller]
pub(super) fn run<F: FarSide>(far: &F, cell: &Cell) -> Outcome {
    let proxy = FaultProxy::start(far.address(), cell.before.clone());
    let neighbour = Neighbour::start();
    let right = far.connector(proxy.address());
    let connector = match cell.connector {
        Connector::Right => right.clone(),
        Connector::WrongCredentials => far.wrong_connector(proxy.address()),
        Connector::Tls => far.tls_connector(proxy.address()),
    };
    let rules = rules(&far.action(), neighbour.address);
    let broker = Broker::builder()
        .section(&format!("[store]\ndurability = \"commit\"\n\n[connectors.far]\n{connector}\n"))
        .rule_file("far", &rules)
        .expect_error("sink refuses the action as it is configured")
        .start();
    let mut stage = Stage {
        far: &|| far.arrived(),
        broker,
        proxy,
        neighbour,
        published: BTreeMap::new(),
        padding: far.poison_padding(),
        huge_answer: far.huge_answer(),
        wrong: connector,
        right,
        latencies: Vec::new(),
    };
    (cell.run)(&mut stage);
    stage.end(cell.copies)
}

fn rules(action: &str, neighbour: SocketAddr) -> String {
    format!(
        r#"
[rules.far]
sql = "SELECT * FROM 'plant/#'"

[[rules.far.actions]]
name = "out"
connector = "far"
retry = {{ max_attempts = 1000000, initial_backoff = "10ms", max_backoff = "200ms", disabled_pause = "1h" }}
{action}

[rules.near]
sql = "SELECT * FROM 'plant/#'"

[[rules.near.actions]]
name = "beside"
type = "http"
url = "http://{neighbour}/"
"#
    )
}

impl Stage<'_> {
    /// Every client publishes so many messages and waits for each acknowledgement.
    #[track_caller]
    fn publish(&mut self, count: u64) {
        let clients: Vec<String> = (0..CLIENTS).map(|client| format!("c{client}")).collect();
        let broker = &self.broker;
        let published = &self.published;
        let latencies: Vec<Vec<Duration>> = thread::scope(|scope| {
            let publishers = clients.iter().map(|client| {
                let first = published.get(client).copied().unwrap_or(0);
                scope.spawn(move || send(broker, client, first..first + count, 0))
            });
            let publishers: Vec<_> = publishers.collect();
            publishers.into_iter().map(|publisher| publisher.join().unwrap()).collect()
        });
        self.latencies.extend(latencies.into_iter().flatten());
        for client in clients {
            *self.published.entry(client).or_default() += count;
        }
    }

    /// Publishes messages that the far side refuses.
    #[track_caller]
    fn poison(&mut self, count: u64) {
        send(&self.broker, POISON, 0..count, self.padding);
        *self.published.entry(POISON.to_owned()).or_default() += count;
    }

    fn total(&self) -> u64 {
        self.published.values().sum()
    }

    /// Waits until the action beside the one under test has delivered everything, whatever is wrong with the other.
    #[track_caller]
    fn neighbour_has_all(&self) {
        self.neighbour.wait_for(self.total());
    }

    /// What the counters say of the action.
    #[track_caller]
    fn action(&self) -> Value {
        let (code, text) = self.broker.command(&["rules", "counters", "far", "--json"]);
        assert_eq!(code, Some(0), "{text}");
        let rule: Value = serde_json::from_str(text.trim()).unwrap();
        rule["actions"][0]["delivery"].clone()
    }

    #[track_caller]
    fn wait(&self, what: &str, wanted: impl Fn(&Value) -> bool) {
        self.wait_until(what, |stage| wanted(&stage.action()));
    }

    #[track_caller]
    fn wait_until(&self, what: &str, wanted: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE * 2;
        while !wanted(self) {
            assert!(Instant::now() < deadline, "{what} never came: {}", self.action());
        }
    }

    /// Tells the action to pause, or to go on.
    #[track_caller]
    fn control(&self, verb: &str) {
        let (code, text) = self.broker.command(&["actions", verb, "far/out"]);
        assert_eq!(code, Some(0), "{verb}: {text}");
    }

    /// Puts the right connector in place of the wrong one, while the broker runs.
    #[track_caller]
    fn mend(&self) {
        let path = self.broker.folder().join("tidegate.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(&self.wrong), "{text}");
        std::fs::write(&path, text.replace(&self.wrong, &self.right)).unwrap();
        self.broker.reload();
    }

    /// The far side answers with what nobody can take, and the broker must stay as it is.
    #[track_caller]
    fn flood(&mut self, answer: Vec<u8>) {
        self.publish(MESSAGES);
        self.wait("everything", |action| number(action, "delivered") == MESSAGES * CLIENTS as u64);
        let before = self.broker.resident_bytes();
        self.proxy.set(Fault::Answer(answer));
        let connections = self.proxy.connections();
        self.publish(MESSAGES);
        self.neighbour_has_all();
        self.wait_until("more attempts", |stage| {
            let grown = stage.broker.resident_bytes().saturating_sub(before);
            assert!(grown < GROWTH_BYTES_MAX, "the broker grew by {grown} bytes");
            stage.proxy.connections() >= connections + 3
        });
        self.proxy.set(Fault::None);
    }

    /// Waits until nothing is queued, and checks everything.
    #[track_caller]
    fn end(mut self, copies: Copies) -> Outcome {
        let total = self.total();
        self.wait("the end of the queue", |action| {
            number(action, "received") == total && number(action, "queued") + number(action, "in_flight") == 0
        });
        let action = self.action();
        let poison = self.published.get(POISON).copied().unwrap_or(0);
        let dead_lettered = sum(&action["dead_lettered"]);
        assert_eq!(sum(&action["dropped"]), 0, "{action}");
        assert_eq!(dead_lettered, poison, "{action}");
        assert_eq!(number(&action, "delivered") + dead_lettered, total, "{action}");
        self.latencies.sort_unstable();
        let at = self.latencies.len() * 99 / 100;
        let mut outcome = Outcome {
            published: total,
            delivered: number(&action, "delivered"),
            dead_lettered,
            attempts: number(&action, "attempts"),
            p99: self.latencies.get(at).copied().unwrap_or_default(),
            copies: 0,
        };
        ledger::check(&(self.far)(), &self.published, copies, &mut outcome);
        self.neighbour.wait_for(total);
        self.broker.stop();
        outcome
    }
}

#[track_caller]
fn send(broker: &Broker, client: &str, numbers: std::ops::Range<u64>, padding: usize) -> Vec<Duration> {
    let mut publisher = Client::connect(broker, Version::V5, client);
    let topic = format!("plant/{client}/data");
    numbers
        .map(|number| {
            let payload = ledger::payload(client, number, padding);
            let begin = Instant::now();
            // 0x10: nobody subscribes to it, which is right.
            let code = publisher.publish_acknowledged(&topic, &payload);
            assert!(code < 0x80, "{topic} {number}: refused with {code:#x}");
            begin.elapsed()
        })
        .collect()
}

fn number(action: &Value, member: &str) -> u64 {
    action[member].as_u64().unwrap_or(0)
}

fn sum(counts: &Value) -> u64 {
    counts.as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum()
}

/// The far side of the action beside.
struct Neighbour {
    address: SocketAddr,
    count: Arc<(Mutex<u64>, Condvar)>,
}

impl Neighbour {
    fn start() -> Self {
        let receiver = HttpReceiver::start();
        let address = receiver.address();
        let count = Arc::new((Mutex::new(0), Condvar::new()));
        let counting = Arc::clone(&count);
        receiver.answer_all(move |_| {
            *counting.0.lock().unwrap() += 1;
            counting.1.notify_all();
            ("204 No Content", String::new())
        });
        Self { address, count }
    }

    #[track_caller]
    fn wait_for(&self, total: u64) {
        let count = self.count.0.lock().unwrap();
        let (count, waited) =
            self.count.1.wait_timeout_while(count, PATIENCE, |count| *count < total).unwrap();
        assert!(!waited.timed_out(), "the action beside has delivered {count} of {total}");
    }
}
