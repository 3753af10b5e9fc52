//! The same faults for every sink: what stands between a broker and a far side misbehaves, and nothing may be lost for it.
//!
//! A [`FarSide`] is a real server with what an action needs to send to it, and what a test needs to look at it from outside.
//! [`hold`] runs every cell with it: the broker, the fault, publishers that wait for their acknowledgements, and beside the
//! action under test a neighbour that must get everything while the fault lasts. After the fault each cell asks for
//! conservation (everything that was acknowledged has arrived or is a dead letter, and the counters say so), order per
//! publisher, and copies only where the outcome of an attempt was unknown.
//!
//! A cell that a far side can't have says "n/a" and why (`lacking`). Results go into a file per kind, of which
//! `cargo xtask matrix` makes a table.

mod amqp;
mod cells;
mod http;
mod kafka;
mod ledger;
mod nats;
mod outage;
mod redis;
mod stage;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

pub use self::amqp::AmqpFarSide;
pub use self::cells::{CELLS, Cell};
pub use self::http::HttpFarSide;
pub use self::ledger::Arrived;
pub use self::nats::NatsCore;
pub use self::outage::{Report, outage};
pub use self::stage::{Stage, play};

/// A real server that an action sends to.
pub trait FarSide {
    /// What its column is called: the `type` of the action, and how it is used if there are several ways.
    const KIND: &'static str;

    /// Whether a message that is sent again never arrives twice, whatever became of an answer.
    const WRITES_ONCE: bool = false;

    /// Whether it tells what it has in the order in which it came, whoever sent it.
    const TELLS_ORDER: bool = true;

    /// Whether the action says how long making a connection may take, and not the connector.
    const ACTION_CONNECTS: bool = false;

    /// Starts it.
    fn start() -> Self;

    /// Where it listens.
    fn address(&self) -> SocketAddr;

    /// Makes it as it was at the start.
    fn clear(&self);

    /// The lines of `[connectors.far]` but time-outs, with the right credentials, for a server at this address.
    fn connector(&self, address: SocketAddr) -> String;

    /// The same with credentials that it refuses.
    fn wrong_connector(&self, address: SocketAddr) -> String;

    /// The same with TLS that nothing is known of: where it isn't spoken at all, or with a certificate that nobody knows.
    fn tls_connector(&self, address: SocketAddr) -> String;

    /// What it speaks TLS with; `None`: with nobody. The address is the one that connectors are to name.
    fn secure(&self, _address: SocketAddr) -> Option<Secure> {
        None
    }

    /// Ends its process as `kill -9` does. Not asked where no such cell can be.
    fn kill(&self) {
        unreachable!("{} can't be killed", Self::KIND);
    }

    /// Starts it again where it was, with what it has kept.
    fn start_again(&self) {
        unreachable!("{} can't be started again", Self::KIND);
    }

    /// The lines of the action, but name, connector and time-outs. It must send the whole payload of the message on
    /// `plant/<client>/<word>`, and be refused for [`POISON`] as the client.
    fn action(&self) -> String;

    /// So many bytes more in a message that is to be refused.
    fn poison_padding(&self) -> usize {
        0
    }

    /// The beginning of an answer that announces more than anybody could take.
    fn huge_answer(&self) -> Vec<u8>;

    /// What has arrived, in order for each client.
    fn arrived(&self) -> Vec<Arrived>;
}

/// The client whose messages the far side refuses.
pub const POISON: &str = "poison";

/// TLS of a far side.
#[derive(Debug)]
pub struct Secure {
    /// Where it speaks it.
    pub address: SocketAddr,
    /// Connectors that come to nothing, each with words that say why.
    pub refused: Vec<(String, &'static str)>,
    /// Connectors that get through.
    pub taken: Vec<String>,
}

/// Why a far side has no such cell; `None`: it has.
fn lacking(kind: &str, cell: &str) -> Option<&'static str> {
    match (kind, cell) {
        ("http", "server killed") => Some("no system stands behind HTTP, so nothing says what it keeps"),
        ("kafka" | "librdkafka", "server killed") => Some("the far side keeps nothing on disk"),
        ("librdkafka", "wrong credentials") => Some("the mock cluster knows no sign-in"),
        ("librdkafka", "one of a batch refused") => Some("the mock cluster refuses no record for what it is"),
        ("nats_core", "server killed") => {
            Some("a core message is kept by nobody, so none outlives its server")
        }
        _ => None,
    }
}

/// How long an action waits for its far side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// Longer than a far side takes on the busiest machine: whatever is tried again there is tried again for the fault.
    Long,
    /// As long for an answer, but less for a connection: some servers say nothing to a client that speaks TLS to them.
    ShortToConnect,
    /// So that a time-out comes soon. What is late without a fault is tried again, too.
    Short,
}

impl Waits {
    /// The lines of an action and of its connector, for such a far side.
    fn lines<F: FarSide>(self) -> (String, String) {
        let (connect, answer) = match self {
            Self::Long => ("20s", "20s"),
            Self::ShortToConnect => ("5s", "20s"),
            Self::Short => ("1s", "1s"),
        };
        let (answer, connect) =
            (format!("timeout = \"{answer}\"\n"), format!("connect_timeout = \"{connect}\"\n"));
        if F::ACTION_CONNECTS { (answer + &connect, String::new()) } else { (answer, connect) }
    }
}

/// What came of a cell.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Acknowledged messages.
    pub published: u64,
    /// Those that the counters call delivered.
    pub delivered: u64,
    /// Dead letters.
    pub dead_lettered: u64,
    /// Copies that the far side got.
    pub copies: u64,
    /// Calls of the sink that may have reached it.
    pub attempts: u64,
    /// The 99th percentile of the time to a PUBACK, fault and all.
    pub p99: Duration,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { published, delivered, dead_lettered, copies, attempts, p99 } = self;
        let p99_us = p99.as_micros();
        write!(
            f,
            "published={published} delivered={delivered} dead_lettered={dead_lettered} copies={copies} attempts={attempts} p99_us={p99_us}"
        )
    }
}

/// Runs every cell with one far side. `target`: the folder of the test's own files, where the results go.
///
/// # Panics
/// When a cell failed, after all of them have run.
pub fn hold<F: FarSide>(target: &str) {
    let far = F::start();
    let mut results = BTreeMap::new();
    let only = std::env::var("TIDEGATE_CELL").ok();
    for cell in &CELLS {
        if only.as_deref().is_some_and(|only| only != cell.name) {
            continue;
        }
        if let Some(why) = lacking(F::KIND, cell.name) {
            results.insert(cell.name, Some(format!("n/a\t{why}")));
            continue;
        }
        far.clear();
        eprintln!("--- {} / {}", F::KIND, cell.name);
        let outcome = catch_unwind(AssertUnwindSafe(|| stage::run(&far, cell))).ok();
        results.insert(cell.name, outcome.map(|outcome| format!("passed\t{outcome}")));
    }
    let mut text = String::new();
    for (cell, outcome) in &results {
        writeln!(text, "{cell}\t{}", outcome.as_deref().unwrap_or("failed")).unwrap();
    }
    if only.is_none() {
        let folder = Path::new(target).join("matrix");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{}.tsv", F::KIND)), &text).unwrap();
    }
    eprintln!("{text}");
    let failed: Vec<_> =
        results.iter().filter(|(_, outcome)| outcome.is_none()).map(|(cell, _)| cell).collect();
    assert!(failed.is_empty(), "{}: failed in {failed:?}", F::KIND);
}
