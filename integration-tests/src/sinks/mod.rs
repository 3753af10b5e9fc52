//! The same faults for every sink: what stands between a broker and a far side misbehaves, and nothing may be lost for it.
//!
//! A [`FarSide`] is a real server with what an action needs to send to it, and what a test needs to look at it from outside.
//! [`hold`] runs every cell with it: the broker, the fault, publishers that wait for their acknowledgements, and beside the
//! action under test a neighbour that must get everything while the fault lasts. After the fault each cell asks for
//! conservation (everything that was acknowledged has arrived or is a dead letter, and the counters say so), order per
//! publisher, and copies only where the outcome of an attempt was unknown.
//!
//! Results go into a file per kind, of which `cargo xtask matrix` makes a table.

mod amqp;
mod cells;
mod http;
mod kafka;
mod ledger;
mod nats;
mod outage;
mod redis;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

pub use self::amqp::AmqpFarSide;
pub use self::cells::{CELLS, Cell};
pub use self::http::HttpFarSide;
pub use self::ledger::Arrived;
pub use self::outage::{Report, outage};

/// A real server that an action sends to.
pub trait FarSide {
    /// The `type` of the action.
    const KIND: &'static str;

    /// Starts it.
    fn start() -> Self;

    /// Where it listens.
    fn address(&self) -> SocketAddr;

    /// Makes it as it was at the start.
    fn clear(&self);

    /// The lines of `[connectors.far]`, with the right credentials, for a server at this address.
    fn connector(&self, address: SocketAddr) -> String;

    /// The same with credentials that it refuses.
    fn wrong_connector(&self, address: SocketAddr) -> String;

    /// The same with TLS, which it doesn't speak there.
    fn tls_connector(&self, address: SocketAddr) -> String;

    /// The lines of the action, but name and connector. It must send the whole payload of the message on
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

/// Runs every cell with one far side. `target`: the folder of the test's own files, where the results go.
///
/// # Panics
/// When a cell failed, after all of them have run.
pub fn hold<F: FarSide>(target: &str) {
    let far = F::start();
    let mut results = BTreeMap::new();
    let only = std::env::var("TIDEGATE_CELL").ok();
    for cell in CELLS.iter().filter(|cell| only.as_deref().is_none_or(|only| only == cell.name)) {
        far.clear();
        eprintln!("--- {} / {}", F::KIND, cell.name);
        let outcome = catch_unwind(AssertUnwindSafe(|| cells::run(&far, cell)));
        results.insert(cell.name, outcome.ok());
    }
    let mut text = String::new();
    for (cell, outcome) in &results {
        let line = match outcome {
            None => writeln!(text, "{cell}\tfailed"),
            Some(Outcome { published, delivered, dead_lettered, copies, attempts, p99 }) => writeln!(
                text,
                "{cell}\tpassed\tpublished={published} delivered={delivered} dead_lettered={dead_lettered} copies={copies} attempts={attempts} p99_us={}",
                p99.as_micros()
            ),
        };
        line.unwrap();
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
