//! The figures of the durable store that take longer than a bench may: `cargo run --release -p store --example figures`
//! with one of
//!
//! - `publishers`: messages a second and commit latency at 1, 10 and 100 publishers with windows of 1, 20 and 100, each
//!   beside a bare loop that writes and syncs the same bytes in as many pieces;
//! - `soak SECONDS`: a steady load of which one message in fifty is never settled; what is written for a byte, what the disk
//!   holds, and the commit latency of each tenth of the time;
//! - `restart MESSAGES BYTES`: a start with so many messages of that size queued, after kill -9 and after a clean end.
//!
//! What they printed stands in docs/decisions/0010-segment-log.md.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "it prints figures, and may fail where it stands"
)]

use std::collections::VecDeque;
use std::fs::File;
use std::io::BufRead;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use store::{
    CommitToken, Counters, DurableStore, MessageId, MessageRecord, Position, QueueKey, Record, SessionKey,
    Store, StoreError, StoreOptions,
};

/// Bytes of a message of the first two.
const PAYLOAD: usize = 256;

/// How long each row of `publishers` is measured.
const ROW: Duration = Duration::from_secs(4);

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn wait_for(store: &DurableStore, token: CommitToken, waker: &Waker) {
    while store.committed() < token {
        store.wake_when_committed(token, waker);
        if store.committed() < token {
            std::thread::park();
        }
    }
}

fn session() -> SessionKey<'static> {
    SessionKey { namespace: 0, client_id: "subscriber" }
}

fn open(folder: &Path) -> DurableStore {
    let (store, report) = DurableStore::open(folder, StoreOptions::default()).unwrap();
    assert!(!report.has_losses(), "{report:?}");
    store.append(&[Record::SessionStarted { session: session(), expiry_interval_s: 60 }]).unwrap();
    store
}

fn publish(store: &DurableStore, number: u64, payload: &[u8], places: &mut Vec<Position>) -> CommitToken {
    let id = MessageId { store: 1, epoch: 1, sequence: number };
    let topic = "sensors/1/temperature";
    let message = MessageRecord { id, topic, payload, qos: 1, ..MessageRecord::default() };
    let owed = Record::Owed { id, session: session(), qos: 1, retain: false, identifiers: &[] };
    loop {
        places.clear();
        match store.append_debts(&[Record::Message(message), owed], places) {
            Ok(token) => return token,
            Err(StoreError::Busy { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Latencies in microseconds, by their order of magnitude and a sixteenth of it.
struct Histogram(Vec<AtomicU64>);

impl Histogram {
    fn new() -> Self {
        Self((0..64 * 16).map(|_| AtomicU64::new(0)).collect())
    }

    fn add(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(16);
        let magnitude = micros.ilog2();
        let index = magnitude * 16 + u32::try_from(micros >> (magnitude - 4) & 15).unwrap();
        if let Some(count) = self.0.get(index as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The latency that so many percent don't exceed.
    fn percentile(&self, percent: u64) -> Duration {
        let total: u64 = self.0.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        let mut left = total * percent / 100;
        for (index, count) in (0u64..).zip(&self.0) {
            let count = count.load(Ordering::Relaxed);
            if left < count {
                return Duration::from_micros((17 + index % 16) << (index / 16) >> 4);
            }
            left -= count;
        }
        Duration::ZERO
    }
}

/// What publishers do until they are told to stop.
struct Load<'a> {
    store: &'a DurableStore,
    window: usize,
    /// One message in so many is never settled; 0: none is settled at all.
    stragglers: u64,
    /// Between two messages of a publisher; zero: as fast as the window lets it.
    pace: Duration,
    is_over: AtomicBool,
    published: AtomicU64,
    latencies: Histogram,
}

impl Load<'_> {
    fn publisher(&self) {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let payload = [b'p'; PAYLOAD];
        let mut sent: VecDeque<(CommitToken, Position, Instant)> = VecDeque::new();
        let mut places = Vec::new();
        let mut next = Instant::now();
        for number in 0.. {
            if self.is_over.load(Ordering::Relaxed) {
                break;
            }
            if sent.len() >= self.window
                && let Some((token, ..)) = sent.front()
            {
                wait_for(self.store, *token, &waker);
            }
            let committed = self.store.committed();
            while let Some((_, position, start)) = sent.pop_front_if(|(token, ..)| *token <= committed) {
                self.latencies.add(start.elapsed());
                if self.stragglers > 0 && number % self.stragglers != 0 {
                    let queue = QueueKey::Session(session());
                    self.store.append(&[Record::Settled { queue, position }]).unwrap();
                }
            }
            next += self.pace;
            while !self.pace.is_zero() && Instant::now() < next {
                std::thread::park_timeout(next - Instant::now());
            }
            let start = Instant::now();
            let token = publish(self.store, number, &payload, &mut places);
            sent.push_back((token, places.first().copied().unwrap_or_default(), start));
            self.published.fetch_add(1, Ordering::Relaxed);
        }
        if let Some((token, ..)) = sent.back() {
            wait_for(self.store, *token, &waker);
        }
    }
}

/// The same bytes in the same number of writes and syncs, without anything else.
fn bare(folder: &Path, commits: u64, bytes: u64) -> Duration {
    let file = File::create(folder.join("bare")).unwrap();
    let chunk = vec![b'x'; usize::try_from(bytes / commits.max(1)).unwrap()];
    let start = Instant::now();
    for commit in 0..commits {
        file.write_all_at(&chunk, commit * chunk.len() as u64).unwrap();
        file.sync_data().unwrap();
    }
    let took = start.elapsed();
    std::fs::remove_file(folder.join("bare")).unwrap();
    took
}

fn load_average() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned()
}

fn publishers() {
    println!(
        "publishers | window | messages/s | commits/s | bytes/commit | p50 | p99 | of a bare loop | load average"
    );
    for count in [1, 10, 100] {
        for window in [1, 20, 100] {
            let folder = tempfile::tempdir_in(".").unwrap();
            let store = open(folder.path());
            let before = store.counters();
            let load = Load {
                store: &store,
                window,
                stragglers: 0,
                pace: Duration::ZERO,
                is_over: AtomicBool::new(false),
                published: AtomicU64::new(0),
                latencies: Histogram::new(),
            };
            let start = Instant::now();
            std::thread::scope(|scope| {
                for _ in 0..count {
                    scope.spawn(|| load.publisher());
                }
                std::thread::park_timeout(ROW);
                load.is_over.store(true, Ordering::Relaxed);
            });
            let took = start.elapsed();
            let after = store.counters();
            let (commits, bytes) = (after.commits - before.commits, after.log_bytes - before.log_bytes);
            let bare = bare(folder.path(), commits, bytes);
            println!(
                "{count} | {window} | {:.0} | {:.0} | {} | {:?} | {:?} | {:.2} | {}",
                load.published.load(Ordering::Relaxed) as f64 / took.as_secs_f64(),
                commits as f64 / took.as_secs_f64(),
                bytes / commits.max(1),
                load.latencies.percentile(50),
                load.latencies.percentile(99),
                bare.as_secs_f64() / took.as_secs_f64(),
                load_average(),
            );
        }
    }
}

fn written(counters: Counters) -> (u64, u64) {
    (counters.log_bytes + counters.index_bytes, counters.log_bytes - counters.moved_bytes)
}

fn soak(time: Duration) {
    let folder = tempfile::tempdir_in(".").unwrap();
    let store = open(folder.path());
    let mut load = Load {
        store: &store,
        window: 100,
        stragglers: 50,
        pace: Duration::from_millis(1),
        is_over: AtomicBool::new(false),
        published: AtomicU64::new(0),
        latencies: Histogram::new(),
    };
    println!(
        "minute | messages/s | p50 | p99 | written per byte | log bytes | alive | segments removed | load average"
    );
    let start = Instant::now();
    for tenth in 1..=10 {
        load.is_over = AtomicBool::new(false);
        load.latencies = Histogram::new();
        let before = load.published.load(Ordering::Relaxed);
        std::thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| load.publisher());
            }
            while start.elapsed() < time / 10 * tenth {
                std::thread::park_timeout((time / 10 * tenth).saturating_sub(start.elapsed()));
            }
            load.is_over.store(true, Ordering::Relaxed);
        });
        let (all, appended) = written(store.counters());
        let (used, live) = store.log_bytes();
        println!(
            "{:.1} | {:.0} | {:?} | {:?} | {:.3} | {used} | {live} | {} | {}",
            start.elapsed().as_secs_f64() / 60.0,
            (load.published.load(Ordering::Relaxed) - before) as f64 / (time / 10).as_secs_f64(),
            load.latencies.percentile(50),
            load.latencies.percentile(99),
            all as f64 / appended as f64,
            store.counters().segments_removed,
            load_average(),
        );
    }
}

/// Fills a folder, says so, and waits to be killed.
fn fill(folder: &Path, messages: u64, bytes: usize) {
    let store = open(folder);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let payload = vec![b'p'; bytes];
    let mut last = CommitToken::NOTHING_OWED;
    let mut places = Vec::new();
    for number in 0..messages {
        last = publish(&store, number, &payload, &mut places);
    }
    wait_for(&store, last, &waker);
    println!("filled");
    std::io::stdin().lock().lines().for_each(drop);
}

fn size_of(folder: &Path) -> u64 {
    std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

fn restart(messages: &str, bytes: &str) {
    let folder = tempfile::tempdir_in(".").unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["fill", folder.path().to_str().unwrap(), messages, bytes])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    println!("{messages} messages of {bytes} bytes: {} bytes on disk", size_of(folder.path()));
    for what in ["killed", "closed"] {
        let start = Instant::now();
        let (store, report) = DurableStore::open(folder.path(), StoreOptions::default()).unwrap();
        println!(
            "{what}: open after {:?}, {} frames replayed, {} queued, load average {}",
            start.elapsed(),
            report.frames_replayed,
            store.queue_len(QueueKey::Session(session())),
            load_average(),
        );
        let (start, mut after, mut count) = (Instant::now(), Position(0), 0);
        let mut reader = store.reader(QueueKey::Session(session()));
        loop {
            let debts = reader.read(after, 1000, 1 << 20).unwrap();
            let Some(last) = debts.last() else { break };
            after = last.position;
            count += debts.len();
        }
        println!("  {count} debts read in {:?}", start.elapsed());
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["publishers"] => publishers(),
        ["soak", seconds] => soak(Duration::from_secs(seconds.parse().unwrap())),
        ["restart", messages, bytes] => restart(messages, bytes),
        ["fill", folder, messages, bytes] => {
            fill(Path::new(folder), messages.parse().unwrap(), bytes.parse().unwrap());
        }
        _ => println!("usage: figures publishers | soak SECONDS | restart MESSAGES BYTES"),
    }
}
