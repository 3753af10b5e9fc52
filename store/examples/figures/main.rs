//! The figures of the durable store that take longer than a bench may: `cargo run --release -p store --example figures`
//! with one of
//!
//! - `publishers`: messages a second and commit latency at 1, 10 and 100 publishers with windows of 1, 20 and 100 (or of
//!   one row, given both), beside a bare loop that writes and syncs the same bytes in as many pieces, to a file that grows and to one
//!   whose blocks were allocated before. They take turns, and medians are printed: what else the disk has to do meets all;
//! - `soak SECONDS`: a steady load of which one message in fifty is never settled; what is written for a byte, what the disk
//!   holds, and the commit latency of each tenth of the time;
//! - `restart MESSAGES BYTES`: a start with so many messages of that size queued, after kill -9 and after a clean end.
//!
//! Publishers are tasks, as connections of the broker are: with a thread for each it is the system's scheduler that is
//! measured, which has to wake a hundred threads on two cores for every commit.
//!
//! What they printed stands in docs/decisions/0010-segment-log.md.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "it prints figures, and may fail where it stands"
)]

mod load;

use std::collections::VecDeque;
use std::io::BufRead;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use store::{CommitToken, Counters, DurableStore, Position, Store, StoreOptions};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use load::{PAYLOAD, bare, open, publish, queue, read_through, safe, settle, try_publish, wait_for};

/// How often a row of `publishers` is measured; the median is printed.
const ROUNDS: usize = 5;

/// How long each time.
const ROUND: Duration = Duration::from_millis(1500);

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
struct Load {
    store: DurableStore,
    window: usize,
    /// One message in so many is never settled; 0: none is settled at all.
    stragglers: u64,
    /// Between two messages of a publisher; zero: as fast as the window lets it.
    pace: Duration,
    is_over: AtomicBool,
    published: AtomicU64,
    latencies: Histogram,
}

impl Load {
    fn new(store: DurableStore, window: usize) -> Self {
        Self {
            store,
            window,
            stragglers: 0,
            pace: Duration::ZERO,
            is_over: AtomicBool::new(false),
            published: AtomicU64::new(0),
            latencies: Histogram::new(),
        }
    }

    async fn publisher(self: Arc<Self>) {
        let store = &self.store;
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
                safe(store, *token).await;
            }
            let committed = store.committed();
            while let Some((_, position, start)) = sent.pop_front_if(|(token, ..)| *token <= committed) {
                self.latencies.add(start.elapsed());
                if self.stragglers > 0 && number % self.stragglers != 0 {
                    settle(store, position);
                }
            }
            if !self.pace.is_zero() {
                next += self.pace;
                tokio::time::sleep_until(next.into()).await;
            }
            let start = Instant::now();
            let (token, position) = loop {
                match try_publish(store, number, &PAYLOAD, &mut places) {
                    Some(published) => break published,
                    None => safe(store, CommitToken(store.committed().0 + 1)).await,
                }
            };
            sent.push_back((token, position, start));
            self.published.fetch_add(1, Ordering::Relaxed);
        }
        if let Some((token, ..)) = sent.back() {
            safe(store, *token).await;
        }
    }

    /// Has so many of them publish until the time is over.
    fn run(self: &Arc<Self>, runtime: &Runtime, publishers: usize, time: Duration) {
        self.is_over.store(false, Ordering::Relaxed);
        runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for _ in 0..publishers {
                tasks.spawn(Arc::clone(self).publisher());
            }
            tokio::time::sleep(time).await;
            self.is_over.store(true, Ordering::Relaxed);
            while let Some(done) = tasks.join_next().await {
                done.unwrap();
            }
        });
    }
}

fn load_average() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// One row: the store and the bare loop take turns, so that what else the disk has to do meets both.
fn row(runtime: &Runtime, publishers: usize, window: usize) {
    let folder = tempfile::tempdir_in(".").unwrap();
    let load = Arc::new(Load::new(open(folder.path()), window));
    let (mut rates, mut commit_rates, mut sizes) = (vec![], vec![], vec![]);
    let mut ratios = [vec![], vec![]];
    for _ in 0..ROUNDS {
        let before = load.store.counters();
        let published = load.published.load(Ordering::Relaxed);
        let start = Instant::now();
        load.run(runtime, publishers, ROUND);
        let took = start.elapsed();
        let published = load.published.load(Ordering::Relaxed) - published;
        let after = load.store.counters();
        let (commits, bytes) = (after.commits - before.commits, after.log_bytes - before.log_bytes);
        rates.push(published as f64 / took.as_secs_f64());
        commit_rates.push(commits as f64 / took.as_secs_f64());
        sizes.push(bytes as f64 / commits.max(1) as f64);
        for (ratios, is_allocated) in ratios.iter_mut().zip([false, true]) {
            let bare = bare(folder.path(), commits, bytes, is_allocated);
            ratios.push(bare.as_secs_f64() / took.as_secs_f64());
        }
    }
    let [appending, allocated] = ratios.map(median);
    println!(
        "{publishers} | {window} | {:.0} | {:.0} | {:.0} | {:?} | {:?} | {appending:.2} | {allocated:.2} | {}",
        median(rates),
        median(commit_rates),
        median(sizes),
        load.latencies.percentile(50),
        load.latencies.percentile(99),
        load_average(),
    );
}

fn publishers(only: Option<(usize, usize)>) {
    let runtime = Runtime::new().unwrap();
    println!(
        "publishers | window | messages/s | commits/s | bytes/commit | p50 | p99 | of a bare loop that appends | \
         of one with blocks allocated before | load average"
    );
    for publishers in [1, 10, 100] {
        for window in [1, 20, 100] {
            if only.is_none_or(|only| only == (publishers, window)) {
                row(&runtime, publishers, window);
            }
        }
    }
}

fn written(counters: Counters) -> (u64, u64) {
    (counters.log_bytes + counters.index_bytes, counters.log_bytes - counters.moved_bytes)
}

fn soak(time: Duration) {
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir_in(".").unwrap();
    let mut load = Load::new(open(folder.path()), 100);
    load.stragglers = 50;
    load.pace = Duration::from_millis(1);
    println!(
        "minute | messages/s | p50 | p99 | written per byte | log bytes | alive | segments removed | load average"
    );
    let start = Instant::now();
    for tenth in 1..=10 {
        load.latencies = Histogram::new();
        let before = load.published.load(Ordering::Relaxed);
        let running = Arc::new(load);
        running.run(&runtime, 10, (time / 10 * tenth).saturating_sub(start.elapsed()));
        load = Arc::into_inner(running).unwrap();
        let (all, appended) = written(load.store.counters());
        let (used, live) = load.store.log_bytes();
        println!(
            "{:.1} | {:.0} | {:?} | {:?} | {:.3} | {used} | {live} | {} | {}",
            start.elapsed().as_secs_f64() / 60.0,
            (load.published.load(Ordering::Relaxed) - before) as f64 / (time / 10).as_secs_f64(),
            load.latencies.percentile(50),
            load.latencies.percentile(99),
            all as f64 / appended as f64,
            load.store.counters().segments_removed,
            load_average(),
        );
    }
}

/// Fills a folder, says so, and waits to be killed.
fn fill(folder: &Path, messages: u64, bytes: usize) {
    let store = open(folder);
    let payload = vec![b'p'; bytes];
    let mut last = CommitToken::NOTHING_OWED;
    let mut places = Vec::new();
    for number in 0..messages {
        (last, _) = publish(&store, number, &payload, &mut places);
    }
    wait_for(&store, last);
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
            store.queue_len(queue()),
            load_average(),
        );
        let start = Instant::now();
        let count = read_through(&store);
        println!("  {count} debts read in {:?}", start.elapsed());
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["publishers"] => publishers(None),
        ["publishers", count, window] => {
            publishers(Some((count.parse().unwrap(), window.parse().unwrap())));
        }
        ["soak", seconds] => soak(Duration::from_secs(seconds.parse().unwrap())),
        ["restart", messages, bytes] => restart(messages, bytes),
        ["fill", folder, messages, bytes] => {
            fill(Path::new(folder), messages.parse().unwrap(), bytes.parse().unwrap());
        }
        _ => println!("usage: figures publishers [COUNT WINDOW] | soak SECONDS | restart MESSAGES BYTES"),
    }
}
