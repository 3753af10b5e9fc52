//! What a cell has to do with: the broker, what stands before the far side, publishers, and the action beside.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cells::{Cell, Connector};
use super::ledger::{self, Arrived, Copies};
use super::{FarSide, Outcome, POISON, Secure, Waits};
use crate::fault_proxy::{Fault, FaultProxy};
use crate::{Broker, Client, HttpReceiver, PATIENCE, Version};

/// Publishers of a cell.
pub(super) const CLIENTS: usize = 4;
/// By how much the broker may grow while a far side floods it.
const GROWTH_BYTES_MAX: u64 = 64 << 20;
/// How many times as long as for a message that doesn't go to the far side the 99th percentile of the time to a PUBACK may be
/// while a fault lasts. Whoever waited for the far side would take hundreds of times as long, or for ever.
const SLOWER_MAX: u32 = 10;
/// The same is less than this where the disk takes no time: a difference below is the scheduler's.
const QUICK: Duration = Duration::from_millis(1);
/// Half of the PUBACKs are there within this while a fault lasts, or everybody waits for the far side, whatever is published.
const USUAL_MAX: Duration = Duration::from_millis(500);
/// How often that is measured before it counts as too long: a machine that is busy for a moment is no fault.
const ROUNDS_MAX: usize = 5;

/// What a cell has to do with.
pub struct Stage<'f> {
    pub(super) far: &'f dyn Server,
    pub(super) proxy: FaultProxy,
    pub(super) huge_answer: Vec<u8>,
    /// The lines of the right connector.
    pub(super) right: String,
    pub(super) secure: Option<Secure>,
    broker: Broker,
    neighbour: Neighbour,
    published: BTreeMap<String, u64>,
    padding: usize,
    /// The lines of the connector that the broker has.
    connector: String,
    latencies: Vec<Duration>,
}

/// How long PUBACKs took.
#[derive(Default)]
struct Latencies {
    /// Of messages that go to the far side.
    far: Vec<Duration>,
    /// Of messages that were published between them and go to the action beside alone.
    beside: Vec<Duration>,
}

/// What of a [`FarSide`] a cell may use while it runs.
pub(super) trait Server {
    fn arrived(&self) -> Vec<Arrived>;
    fn kill(&self);
    fn start_again(&self);
}

impl<F: FarSide> Server for F {
    fn arrived(&self) -> Vec<Arrived> {
        FarSide::arrived(self)
    }

    fn kill(&self) {
        FarSide::kill(self);
    }

    fn start_again(&self) {
        FarSide::start_again(self);
    }
}

/// Runs one.
#[track_caller]
pub(super) fn run<F: FarSide>(far: &F, cell: &Cell) -> Outcome {
    let mut stage = Stage::set_up(far, cell.before.clone(), cell.connector, cell.waits);
    (cell.run)(&mut stage);
    // Who refused us has never seen a message. Who resets each connection may have, for all that is known.
    let is_once = cell.copies == Copies::None && cell.before == Fault::None;
    stage.end(is_once, if F::WRITES_ONCE { Copies::None } else { cell.copies })
}

/// Runs a scene that one far side alone can play, and asks for the same as behind every cell. `may_repeat`: whether it may
/// get a message twice. `waits`: how long the action waits for it.
///
/// # Panics
/// When a message is lost, out of order, or there twice.
#[track_caller]
pub fn play<F: FarSide>(
    far: &F,
    may_repeat: bool,
    waits: Waits,
    scene: impl FnOnce(&mut Stage<'_>),
) -> Outcome {
    let mut stage = Stage::set_up(far, Fault::None, Connector::Right, waits);
    scene(&mut stage);
    stage.end(false, if may_repeat { Copies::Allowed } else { Copies::None })
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
url = "http://{neighbour}{COUNTED}"

[rules.beside]
sql = "SELECT * FROM 'beside/#'"

[[rules.beside.actions]]
name = "beside"
type = "http"
url = "http://{neighbour}/beside"
"#
    )
}

impl fmt::Debug for Stage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").field("published", &self.published).finish_non_exhaustive()
    }
}

impl<'f> Stage<'f> {
    #[track_caller]
    fn set_up<F: FarSide>(far: &'f F, before: Fault, connector: Connector, waits: Waits) -> Self {
        let proxy = FaultProxy::start(far.address(), before);
        let neighbour = Neighbour::start();
        let right = far.connector(proxy.address());
        let connector = match connector {
            Connector::Right => right.clone(),
            Connector::WrongCredentials => far.wrong_connector(proxy.address()),
            Connector::Tls => far.tls_connector(proxy.address()),
        };
        let (action_waits, connector_waits) = waits.lines::<F>();
        let rules = rules(&format!("{}\n{action_waits}", far.action()), neighbour.address);
        let broker = Broker::builder()
            .section(&format!(
                "[store]\ndurability = \"commit\"\n\n[connectors.far]\n{connector}\n{connector_waits}"
            ))
            .rule_file("far", &rules)
            .expect_error("sink refuses the action as it is configured")
            .start();
        Self {
            far,
            huge_answer: far.huge_answer(),
            right,
            secure: far.secure(proxy.address()),
            proxy,
            broker,
            neighbour,
            published: BTreeMap::new(),
            padding: far.poison_padding(),
            connector,
            latencies: Vec::new(),
        }
    }
}

impl Stage<'_> {
    /// Every client publishes so many messages and waits for each acknowledgement.
    #[track_caller]
    pub fn publish(&mut self, count: u64) {
        self.publish_during(count, |_| {});
    }

    /// The same, while something else happens.
    #[track_caller]
    pub(super) fn publish_during(&mut self, count: u64, happens: impl FnOnce(&Self)) {
        self.send(count, false, happens);
    }

    /// The same while a fault lasts: publishers mustn't feel it. What they take is held against what they take in the same moments
    /// for messages that differ in nothing but that the far side gets none of them.
    #[track_caller]
    pub(super) fn publish_undisturbed(&mut self, count: u64) {
        let mut rounds = Vec::new();
        while rounds.len() < ROUNDS_MAX {
            let Latencies { far, beside } = self.send(count, true, |_| {});
            let (usual, slowest, slowest_beside) =
                (percentile(&far, 50), percentile(&far, 99), percentile(&beside, 99));
            if usual <= USUAL_MAX && slowest <= slowest_beside.max(QUICK) * SLOWER_MAX {
                return;
            }
            rounds.push((usual, slowest, slowest_beside));
        }
        panic!(
            "publishers wait for the far side: of each round the median, the 99th percentile, and that of \
             messages that don't go there: {rounds:?}"
        );
    }

    /// Every client publishes so many messages to the far side, with `is_compared` as many between them that don't go there.
    #[track_caller]
    fn send(&mut self, count: u64, is_compared: bool, happens: impl FnOnce(&Self)) -> Latencies {
        let clients: Vec<String> = (0..CLIENTS).map(|client| format!("c{client}")).collect();
        let mut latencies = Latencies::default();
        thread::scope(|scope| {
            let publishers = clients.iter().enumerate().map(|(place, client)| {
                let first = self.published.get(client).copied().unwrap_or(0);
                let broker = &self.broker;
                // Half of the clients begin with the one, half with the other: a moment in which all of them wait counts for both.
                let compared = is_compared.then_some(place % 2 == 0);
                scope.spawn(move || send(broker, client, first..first + count, 0, compared))
            });
            let publishers: Vec<_> = publishers.collect();
            happens(self);
            for publisher in publishers {
                let Latencies { far, beside } = publisher.join().unwrap();
                latencies.far.extend(far);
                latencies.beside.extend(beside);
            }
        });
        self.latencies.extend(&latencies.far);
        for client in clients {
            *self.published.entry(client).or_default() += count;
        }
        latencies
    }

    /// Publishes messages that the far side refuses.
    #[track_caller]
    pub fn poison(&mut self, count: u64) {
        send(&self.broker, POISON, 0..count, self.padding, None);
        *self.published.entry(POISON.to_owned()).or_default() += count;
    }

    fn total(&self) -> u64 {
        self.published.values().sum()
    }

    /// Waits until the action beside the one under test has delivered everything, whatever is wrong with the other, and checks
    /// that nothing ever was with it.
    #[track_caller]
    pub fn neighbour_has_all(&self) {
        let total = self.total();
        self.neighbour.wait_for(total);
        self.wait_until("what the action beside counts", |stage| {
            number(&stage.counters("near"), "delivered") == total
        });
        let action = self.counters("near");
        assert!(action["failure"].is_null() && action["circuit"] == "closed", "{action}");
        assert_eq!((number(&action, "attempts"), number(&action, "retried")), (total, 0), "{action}");
    }

    /// What the counters say of the action.
    #[track_caller]
    #[must_use]
    pub fn action(&self) -> Value {
        self.counters("far")
    }

    #[track_caller]
    fn counters(&self, rule: &str) -> Value {
        let (code, text) = self.broker.command(&["rules", "counters", rule, "--json"]);
        assert_eq!(code, Some(0), "{text}");
        let rule: Value = serde_json::from_str(text.trim()).unwrap();
        rule["actions"][0]["delivery"].clone()
    }

    /// Whether nothing is left to do.
    #[track_caller]
    pub(super) fn is_all_delivered(&self) -> bool {
        number(&self.action(), "delivered") == self.total()
    }

    /// Checks that the far side has at least what counts as delivered.
    #[track_caller]
    pub(super) fn has_what_counts_as_delivered(&self) {
        let delivered = number(&self.action(), "delivered");
        let arrived = self.far.arrived();
        let there: BTreeSet<_> = arrived.iter().map(|message| (&message.client, message.number)).collect();
        assert!(
            there.len() as u64 >= delivered,
            "{delivered} count as delivered, of which the far side has lost {}",
            delivered - there.len() as u64
        );
    }

    /// From here on this is wrong with the way.
    pub fn fault(&self, fault: Fault) {
        self.proxy.set(fault);
    }

    /// Waits until the counters of the action are as they are wanted.
    #[track_caller]
    pub fn wait(&self, what: &str, wanted: impl Fn(&Value) -> bool) {
        self.wait_until(what, |stage| wanted(&stage.action()));
    }

    /// Waits until everything is as it is wanted.
    #[track_caller]
    pub fn wait_until(&self, what: &str, wanted: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE * 2;
        while !wanted(self) {
            assert!(Instant::now() < deadline, "{what} never came: {}", self.action());
        }
    }

    /// Tells the action to pause, or to go on.
    #[track_caller]
    pub fn control(&self, verb: &str) {
        let (code, text) = self.broker.command(&["actions", verb, "far/out"]);
        assert_eq!(code, Some(0), "{verb}: {text}");
    }

    /// Puts another connector in place of the one that the broker has, while it runs.
    #[track_caller]
    pub(super) fn mend(&mut self, connector: &str) {
        let path = self.broker.folder().join("tidegate.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(&self.connector), "{text}");
        std::fs::write(&path, text.replace(&self.connector, connector)).unwrap();
        connector.clone_into(&mut self.connector);
        self.broker.reload();
    }

    /// The far side answers with what nobody can take, and the broker must stay as it is.
    #[track_caller]
    pub(super) fn flood(&mut self, answer: Vec<u8>, count: u64) {
        let before = self.broker.resident_bytes();
        self.proxy.set(Fault::Answer(answer));
        let connections = self.proxy.connections();
        self.publish_undisturbed(count);
        self.neighbour_has_all();
        self.wait_until("more attempts", |stage| {
            let grown = stage.broker.resident_bytes().saturating_sub(before);
            assert!(grown < GROWTH_BYTES_MAX, "the broker grew by {grown} bytes");
            stage.proxy.connections() >= connections + 3
        });
        self.proxy.set(Fault::None);
    }

    /// Waits until nothing is queued, and checks everything. `is_once`: whether each message takes one attempt.
    #[track_caller]
    fn end(self, is_once: bool, copies: Copies) -> Outcome {
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
        if is_once && poison == 0 {
            assert_eq!((number(&action, "attempts"), number(&action, "retried")), (total, 0), "{action}");
        }
        let mut outcome = Outcome {
            published: total,
            delivered: number(&action, "delivered"),
            dead_lettered,
            attempts: number(&action, "attempts"),
            p99: percentile(&self.latencies, 99),
            copies: 0,
        };
        ledger::check(&self.far.arrived(), &self.published, copies, &mut outcome);
        self.neighbour_has_all();
        self.broker.stop();
        outcome
    }
}

/// Publishes as one client. `compared`: with every message another one that doesn't go to the far side, `true`: before it.
#[track_caller]
fn send(
    broker: &Broker,
    client: &str,
    numbers: std::ops::Range<u64>,
    padding: usize,
    compared: Option<bool>,
) -> Latencies {
    let mut publisher = Client::connect(broker, Version::V5, client);
    let (far, beside) = (format!("plant/{client}/data"), format!("beside/{client}/data"));
    let mut latencies = Latencies::default();
    for number in numbers {
        let payload = ledger::payload(client, number, padding);
        let mut publish = |topic: &str| {
            let begin = Instant::now();
            // 0x10: nobody subscribes to it, which is right.
            let code = publisher.publish_acknowledged(topic, &payload);
            assert!(code < 0x80, "{topic} {number}: refused with {code:#x}");
            begin.elapsed()
        };
        if compared == Some(true) {
            latencies.beside.push(publish(&beside));
        }
        latencies.far.push(publish(&far));
        if compared == Some(false) {
            latencies.beside.push(publish(&beside));
        }
    }
    latencies
}

pub(super) fn number(action: &Value, member: &str) -> u64 {
    action[member].as_u64().unwrap_or(0)
}

fn percentile(latencies: &[Duration], percent: usize) -> Duration {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() * percent / 100).copied().unwrap_or_default()
}

fn sum(counts: &Value) -> u64 {
    counts.as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum()
}

/// Where the far side of the action beside counts what comes.
const COUNTED: &str = "/";

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
        receiver.answer_all(move |request| {
            if request.target == COUNTED {
                *counting.0.lock().unwrap() += 1;
                counting.1.notify_all();
            }
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
