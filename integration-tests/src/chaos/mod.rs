//! A broker that is killed again and again while clients use it, and a verdict on what they saw.
//!
//! Publishers send at QoS 1 and 2 and send again what isn't answered for; durable subscribers of both versions come and go;
//! a Shared Subscription divides messages among its members; topics are retained and cleared; a rule sends everything to an
//! HTTP server that is rarely well. At random moments, in the
//! middle of a start too, the process gets a `kill -9`, and a new one starts on the same folder. The binary keeps what it
//! hasn't synced in its own memory (`TIDEGATE_POWER_CUT`), so each kill is a power cut.
//!
//! In the end everything is sent, answered for and fetched, and [`check()`] reads the history. A [`Failure`] holds every
//! violation with the lines that are about it, and the seed. A seed fixes what the clients and the killer decide, not how
//! threads and processes run: a run repeats the same plan, not the same moments.
//!
//! - `history`: what happened; `check`: what may not.
//! - `stage`: what the parts share; `publisher`, `subscriber`: the clients; `link`: their connection; `message`: what they
//!   send.
//! - `sink`: the HTTP server; `accounts`: whether the broker's own counters add up.
//! - `queue`, `sink_queue`: other runs, for a session and for a far side that stay away for long.

mod accounts;
mod check;
mod history;
mod link;
mod message;
mod publisher;
mod queue;
mod sink;
mod sink_queue;
mod stage;
mod subscriber;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use accounts::{Account, Seen};
use check::Explained;
pub use check::{Receiver, Violation, check};
pub use history::{Entry, Event, Label, Lane, Wrong};
use link::{Link, Packet};
use publisher::Publisher;
pub use queue::{QueueSummary, run_queue};
use sink::Sink;
pub use sink_queue::run_sink_queue;
use stage::{Phase, Stage};
use subscriber::{Role, Subscriber};

use crate::broker::new_folder;
use crate::{Broker, BrokerBuilder, PATIENCE, Version};

/// Messages that each publisher gets to send in a round.
const MESSAGES_PER_ROUND: u32 = 30;

/// One start in so many is killed before it is done.
const KILLED_STARTS: u32 = 6;

/// After this time without a new message nothing more is expected.
const QUIET: Duration = Duration::from_secs(5);

/// How often dead letters are looked for.
const REDRIVES_MAX: usize = 3;

/// How long the subscribers stay after the last start, for what comes again though it shouldn't.
const AFTERMATH: Duration = Duration::from_millis(500);

/// In one round of so many publishers get to the end of what they have to send, and accounts are looked at before the kill.
const ROUNDS_PER_ACCOUNT: u32 = 4;

/// Violations that are shown at most.
const SHOWN_MAX: usize = 10;

const PUBLISHERS: [&str; 4] = ["pub-0", "pub-1", "pub-2", "pub-3"];

const GROUP: &str = "group";

const SUBSCRIBERS: [Receiver; 4] = [
    Receiver { name: "sub-0", takes_qos_2: true, is_ordered: true },
    Receiver { name: "sub-1", takes_qos_2: true, is_ordered: true },
    Receiver { name: "sub-2", takes_qos_2: false, is_ordered: true },
    Receiver { name: GROUP, takes_qos_2: true, is_ordered: false },
];

const FAR_SIDE: Receiver = Receiver { name: sink::SINK, takes_qos_2: false, is_ordered: true };

const SHARED_FILTER: &str = "$share/group/chaos/#";

const ROLES: [Role; 5] = [
    role("sub-0", "sub-0", Version::V5, message::FILTER, 2),
    role("sub-1", "sub-1", Version::V311, message::FILTER, 2),
    role("sub-2", "sub-2", Version::V5, message::FILTER, 1),
    role("member-0", GROUP, Version::V5, SHARED_FILTER, 2),
    role("member-1", GROUP, Version::V311, SHARED_FILTER, 2),
];

const fn role(
    name: &'static str,
    receiver: &'static str,
    version: Version,
    filter: &'static str,
    qos: u8,
) -> Role {
    Role { name, receiver, version, filter, qos }
}

/// What to do in a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Fixes what is decided at random.
    pub seed: u64,
    /// How often the publishers are given something to do.
    pub rounds: u32,
    /// Whether each round ends in a kill.
    pub with_kills: bool,
    /// The broker's `[store] durability`.
    pub durability: String,
    /// Whether a rule sends every message to an HTTP server that is rarely well, too.
    pub with_sink: bool,
}

/// What a run without a violation did.
#[derive(Debug, Clone, Copy)]
pub struct Summary {
    /// Messages that were acknowledged.
    pub acknowledged: usize,
    /// Deliveries, repeated ones included.
    pub delivered: usize,
    /// How often the broker was killed.
    pub kills: usize,
    /// How often it was killed before it listened.
    pub killed_starts: usize,
    /// Retained Messages that were looked at.
    pub kept: usize,
    /// How often the broker's account of the rule was looked at, and added up.
    pub accounts: usize,
    /// The longest time from a start to an open listener.
    pub longest_start: Duration,
    /// How long it took.
    pub took: Duration,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills, {} of them during a start; {} messages acknowledged, {} deliveries, {} looks at Retained Messages, {} at \
             accounts; longest start {:?}; {:?}",
            self.kills,
            self.killed_starts,
            self.acknowledged,
            self.delivered,
            self.kept,
            self.accounts,
            self.longest_start,
            self.took
        )
    }
}

/// A run in which a promise was broken. Shows each with what happened to its message, and where the whole history is.
#[derive(Debug)]
pub struct Failure {
    /// Of the run.
    pub seed: u64,
    /// What was broken.
    pub violations: Vec<Violation>,
    /// What happened.
    pub history: Vec<Entry>,
    trace: Option<PathBuf>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {} violations", self.seed, self.violations.len())?;
        for violation in self.violations.iter().take(SHOWN_MAX) {
            write!(f, "{}", Explained { violation, history: &self.history })?;
        }
        if self.violations.len() > SHOWN_MAX {
            writeln!(f, "and {} more", self.violations.len() - SHOWN_MAX)?;
        }
        if let Some(trace) = &self.trace {
            writeln!(f, "the whole history: {}", trace.display())?;
        }
        Ok(())
    }
}

/// Runs it.
///
/// # Errors
/// [`Failure`] when a promise was broken.
pub fn run(options: &Options) -> Result<Summary, Box<Failure>> {
    let folder = new_folder();
    let stage = Stage::new();
    let start = Instant::now();
    let mut random = fastrand::Rng::with_seed(options.seed);
    let (sink, listener) = Sink::new(&stage, random.u64(..)).expect("loopback has a free port");
    let mut receivers = SUBSCRIBERS.to_vec();
    receivers.extend(options.with_sink.then_some(FAR_SIDE));
    let mut director = Director::new(&stage, options, &receivers, &folder);
    if options.with_sink {
        director.builder = director.builder.rule_file("chaos", &sink.rule());
    }
    let done = thread::scope(|scope| {
        sink::spawn(&sink, listener, scope);
        for role in ROLES {
            let subscriber = Subscriber::new(&stage, role, random.u64(..));
            scope.spawn(|| subscriber.run());
        }
        for (number, name) in (0..).zip(PUBLISHERS) {
            let publisher = Publisher::new(&stage, name, number, random.u64(..));
            scope.spawn(|| publisher.run());
        }
        let done = director.direct();
        stage.change(|state| state.phase = Phase::Over);
        done
    });
    // Now that nobody is connected who would take its farewell for a fault.
    if let Some(broker) = director.broker.take() {
        broker.stop();
    }
    let history = std::mem::take(&mut stage.lock().history);
    // What ended the run explains the rest.
    let mut violations: Vec<_> = done.err().map(|what| Violation { what, about: None }).into_iter().collect();
    violations.extend(check(&receivers, &history));
    drop(std::fs::remove_dir_all(&folder));
    if !violations.is_empty() {
        let trace = write_trace(options.seed, &history).ok();
        return Err(Box::new(Failure { seed: options.seed, violations, history, trace }));
    }
    let count = |what: fn(&Event) -> bool| history.iter().filter(|entry| what(&entry.event)).count();
    Ok(Summary {
        acknowledged: count(|event| matches!(event, Event::Acknowledged(_))),
        delivered: count(|event| matches!(event, Event::Delivered(..))),
        kills: count(|event| matches!(event, Event::Killed)),
        killed_starts: director.killed_starts,
        accounts: director.accounts,
        kept: count(|event| matches!(event, Event::Kept { .. })),
        longest_start: director.longest_start,
        took: start.elapsed(),
    })
}

fn write_trace(seed: u64, history: &[Entry]) -> io::Result<PathBuf> {
    let path = std::env::temp_dir().join(format!("tidegate-chaos-{seed}.txt"));
    let lines: String = history.iter().map(|entry| format!("{entry}\n")).collect();
    std::fs::write(&path, lines)?;
    Ok(path)
}

/// Starts the broker and kills it, and tells the clients when to do what.
struct Director<'a> {
    stage: &'a Stage,
    receivers: &'a [Receiver],
    builder: BrokerBuilder,
    broker: Option<Broker>,
    random: fastrand::Rng,
    rounds: u32,
    with_kills: bool,
    killed_starts: usize,
    longest_start: Duration,
    probes: u32,
    /// Dead letters that this process has sent again.
    redriven: u64,
    accounts: usize,
}

/// What went wrong apart from the messages, in words.
type Done<T> = Result<T, String>;

impl<'a> Director<'a> {
    fn new(stage: &'a Stage, options: &Options, receivers: &'a [Receiver], folder: &Path) -> Self {
        let store = format!(
            "[store]\ndurability = \"{}\"\nreserve = 0\n[sys]\ninterval = \"0s\"\n",
            options.durability
        );
        let builder = Broker::builder()
            .in_folder(folder)
            .section(&store)
            .variable("TIDEGATE_POWER_CUT", &options.seed.to_string());
        Self {
            stage,
            receivers,
            builder,
            broker: None,
            random: fastrand::Rng::with_seed(!options.seed),
            rounds: options.rounds,
            with_kills: options.with_kills,
            killed_starts: 0,
            longest_start: Duration::ZERO,
            probes: 0,
            redriven: 0,
            accounts: 0,
        }
    }

    fn direct(&mut self) -> Done<()> {
        self.start()?;
        self.wait("every Subscription", |state| state.subscribed == ROLES.len())?;
        let publishers = u32::try_from(PUBLISHERS.len()).expect("there are few");
        for round in 0..self.rounds {
            self.stage.change(|state| state.allowed += MESSAGES_PER_ROUND);
            if self.random.u8(..3) == 0 {
                self.look_at_retained()?;
            }
            // Somewhere in what there is to do now, the last answer of all included.
            let in_this_round = self.random.u32(..=MESSAGES_PER_ROUND * publishers);
            let enough = round * MESSAGES_PER_ROUND * publishers + in_this_round;
            self.wait("acknowledgements", |state| state.acknowledged >= enough)?;
            if self.has_sink() && round % ROUNDS_PER_ACCOUNT == 0 {
                let all = (round + 1) * MESSAGES_PER_ROUND * publishers;
                self.wait("every acknowledgement", |state| state.acknowledged >= all)?;
                self.look_at_account(|_| true)?;
            }
            if self.with_kills {
                self.kill()?;
                self.start()?;
            }
        }
        self.finish()
    }

    /// Lets everybody finish, and then looks once more what a restart brings.
    fn finish(&mut self) -> Done<()> {
        self.stage.change(|state| state.phase = Phase::Draining);
        self.wait("the last acknowledgement", |state| state.finished == PUBLISHERS.len())?;
        self.drain(stage::State::unsettled);
        // What was rejected a moment ago may become a dead letter after the first look.
        for _ in 0..if self.has_sink() { REDRIVES_MAX } else { 0 } {
            self.redrive()?;
            self.drain(stage::State::missing);
            if self.stage.lock().missing(self.receivers) == 0 {
                break;
            }
        }
        if self.has_sink() {
            self.look_at_account(Account::is_drained)?;
        }
        self.look_at_retained()?;
        if self.with_kills {
            let connected = self.connections();
            self.kill()?;
            self.start()?;
            self.look_at_retained()?;
            self.wait("every subscriber", |state| connections(&state.history) >= connected + ROLES.len())?;
            self.stage.pause(AFTERMATH, Phase::Over);
            if self.has_sink() {
                self.look_at_account(Account::is_drained)?;
            }
        }
        Ok(())
    }

    fn has_sink(&self) -> bool {
        self.receivers.contains(&FAR_SIDE)
    }

    /// Asks the broker for its account of the rule, now that nothing is published, until it fits to what others have seen:
    /// the last answers may be on their way. It has to add up every time.
    fn look_at_account(&mut self, is_so: fn(&Account) -> bool) -> Done<()> {
        let Some(broker) = &self.broker else { return Ok(()) };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (_, text) = broker.command(&["rules", "counters", "chaos", "--json"]);
            let account = Account::read(&text).ok_or_else(|| format!("no account: {text}"))?;
            account.check()?;
            let seen = Seen::of(&self.stage.lock().history, self.redriven);
            let compared = account.compare(&seen);
            if compared.is_ok() && is_so(&account) {
                self.accounts += 1;
                return Ok(());
            }
            if Instant::now() > deadline {
                compared?;
                return Err(format!("nothing is published, and still something waits: {account:?}"));
            }
        }
    }

    /// Waits until nothing is left, or until it gets no less.
    fn drain(&self, left: fn(&stage::State, &[Receiver]) -> usize) {
        let mut last = usize::MAX;
        loop {
            let before = last;
            let is_moving = self.stage.wait(QUIET, |state| {
                last = left(state, self.receivers);
                last == 0 || last < before
            });
            if last == 0 || !is_moving {
                return;
            }
        }
    }

    /// Sends again what the far side has rejected, now that it is well: with what it has, that is everything.
    fn redrive(&mut self) -> Done<()> {
        let Some(broker) = &self.broker else { return Ok(()) };
        let (code, text) = broker.command(&["dead-letters", "redrive", "--all"]);
        let done = text.split_once(" dead letter").and_then(|(done, _)| done.parse::<u64>().ok());
        match done {
            Some(done) if code == Some(0) => {
                self.redriven += done;
                Ok(())
            }
            _ => Err(format!("dead letters are not sent again: {text}")),
        }
    }

    fn connections(&self) -> usize {
        connections(&self.stage.lock().history)
    }

    fn wait(&self, what: &str, so: impl FnMut(&stage::State) -> bool) -> Done<()> {
        if self.stage.wait(PATIENCE * 3, so) { Ok(()) } else { Err(format!("waited in vain for {what}")) }
    }

    fn start(&mut self) -> Done<()> {
        loop {
            self.stage.note(Event::Started);
            self.redriven = 0;
            let start = Instant::now();
            let mut broker = self.builder.clone().spawn();
            if self.with_kills && self.random.u32(..KILLED_STARTS) == 0 {
                let moment = Duration::from_micros(self.random.u64(..30_000));
                self.stage.pause(moment, Phase::Over);
                self.killed_starts += 1;
                self.stage.note(Event::Killed);
                broker.kill_9()?;
                continue;
            }
            broker.wait_until_it_listens()?;
            self.longest_start = self.longest_start.max(start.elapsed());
            self.stage.note(Event::Listening);
            let address = broker.address();
            self.broker = Some(broker);
            self.stage.change(|state| state.address = Some(address));
            return Ok(());
        }
    }

    fn kill(&mut self) -> Done<()> {
        self.stage.change(|state| state.address = None);
        let Some(broker) = self.broker.take() else { return Ok(()) };
        self.stage.note(Event::Killed);
        broker.kill_9()
    }

    /// Subscribes to all retained topics with a new client, and notes what each has.
    fn look_at_retained(&mut self) -> Done<()> {
        self.probes += 1;
        let topics: Vec<_> = (0..)
            .zip(PUBLISHERS)
            .flat_map(|(publisher, _)| (0..message::RETAINED_TOPICS).map(move |topic| (publisher, topic)))
            .collect();
        let acknowledged: Vec<_> = {
            let state = self.stage.lock();
            topics.iter().map(|(publisher, topic)| state.retained(*publisher, *topic).1).collect()
        };
        let address = self.stage.lock().address.ok_or("there is no broker")?;
        let found = retained(address, self.probes).map_err(|error| error.to_string())?;
        for ((publisher, topic), acknowledged) in topics.into_iter().zip(acknowledged) {
            let label = found
                .iter()
                .find(|label| label.publisher == publisher && label.lane == Lane::Retained(topic));
            let sent = self.stage.lock().retained(publisher, topic).0;
            let found = label.map(|label| label.number);
            self.stage.note(Event::Kept { publisher, topic, found, acknowledged, sent });
        }
        Ok(())
    }
}

fn connections(history: &[Entry]) -> usize {
    let is_one = |entry: &&Entry| matches!(entry.event, Event::Connected(name, _) if ROLES.iter().any(|role| role.name == name));
    history.iter().filter(is_one).count()
}

/// The Retained Messages that a new subscriber gets: whatever comes before a message that it sends itself.
fn retained(address: std::net::SocketAddr, probe: u32) -> io::Result<Vec<Label>> {
    let mut link = Link::clean(address, "probe")?;
    let marker = format!("marker/{probe}");
    link.send(&crate::wire::bytes(&format!("82 [7001 [] '{marker}' 00 '{}' 00]", message::RETAINED_FILTER)))?;
    let mut found = Vec::new();
    loop {
        match link.next(PATIENCE)? {
            Some(Packet::Suback(_)) => {
                link.send(&crate::wire::bytes(&format!("30 ['{marker}' []]")))?;
            }
            Some(Packet::Publish { topic, .. }) if topic == marker => break,
            Some(Packet::Publish { topic, payload, .. }) => {
                // A message that is published meanwhile counts as well; a clear says that there is none.
                let label = message::label(&topic, &payload);
                found.retain(|known| message::topic(*known) != topic);
                found.extend(label);
            }
            other => return Err(io::Error::other(format!("{other:?} came, not a Retained Message"))),
        }
    }
    link.leave(true);
    Ok(found)
}
