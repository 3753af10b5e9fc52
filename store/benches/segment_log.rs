//! What the durable store costs on this machine's disk: `cargo bench -p store`. Figures stand in
//! docs/decisions/0010-segment-log.md.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench prints, and may fail where it stands"
)]

#[path = "../examples/figures/load.rs"]
mod load;

use std::path::Path;
use std::time::{Duration, Instant};

use store::{DurableStore, Record, Store, StoreOptions};

use load::{PAYLOAD, bare, publish, queue, read_through, settle, start_session, wait_for};

/// Messages that are on their way at once: 100 publishers with windows of 100.
const WINDOW: u64 = 10_000;

fn open(folder: &Path) -> (DurableStore, Duration) {
    let start = Instant::now();
    let (store, report) = DurableStore::open(folder, StoreOptions::default()).unwrap();
    assert!(!report.has_losses());
    let took = start.elapsed();
    println!("open: {took:?}, {} frames replayed", report.frames_replayed);
    (store, took)
}

/// Messages a second with a window, and the commits and bytes that it took.
fn append(store: &DurableStore, messages: u64, window: u64, settles: bool) -> (f64, u64, u64) {
    let before = store.counters();
    let start = Instant::now();
    let (mut sent, mut places) = (std::collections::VecDeque::new(), Vec::new());
    for number in 0..messages {
        if sent.len() as u64 >= window
            && let Some((token, position)) = sent.pop_front()
        {
            wait_for(store, token);
            if settles && number % 50 != 0 {
                settle(store, position);
            }
        }
        sent.push_back(publish(store, number, &PAYLOAD, &mut places));
    }
    if let Some((token, _)) = sent.pop_back() {
        wait_for(store, token);
    }
    let rate = messages as f64 / start.elapsed().as_secs_f64();
    let after = store.counters();
    (rate, after.commits - before.commits, after.log_bytes - before.log_bytes)
}

fn main() {
    let folder = tempfile::tempdir_in(".").unwrap();
    let (store, _) = open(folder.path());
    start_session(&store);
    for (messages, window) in [(500, 1), (20_000, 100), (400_000, WINDOW)] {
        let (rate, commits, bytes) = append(&store, messages, window, false);
        let bare = bare(folder.path(), commits, bytes, false);
        println!(
            "window {window}: {rate:.0} messages/s in {commits} commits of {} bytes; bare loop {:.0} messages/s; ratio {:.2}",
            bytes / commits,
            messages as f64 / bare.as_secs_f64(),
            rate / (messages as f64 / bare.as_secs_f64()),
        );
    }
    append(&store, 1_000_000, WINDOW, false);
    println!("queued: {}", store.queue_len(queue()));
    // As after kill -9: what is there while the store runs.
    let killed = tempfile::tempdir_in(".").unwrap();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), killed.path().join(entry.file_name())).unwrap();
    }
    println!("killed:");
    drop(open(killed.path()));
    drop(killed);
    drop(store);
    println!("closed:");
    let (store, _) = open(folder.path());
    let start = Instant::now();
    let count = read_through(&store);
    println!("drain: {count} debts read in {:?}", start.elapsed());
    store.append(&[Record::QueueDropped { queue: queue() }]).unwrap();
    start_session(&store);
    let before = store.counters();
    append(&store, 2_000_000, WINDOW, true);
    let after = store.counters();
    let (log, index, moved) = (
        after.log_bytes - before.log_bytes,
        after.index_bytes - before.index_bytes,
        after.moved_bytes - before.moved_bytes,
    );
    let (used, live) = store.log_bytes();
    println!(
        "2 % stragglers: {log} bytes of log, {moved} of them moved, {index} of checkpoints and directories: {:.3} written per byte; disk {used} for {live} alive; {} segments removed",
        (log + index) as f64 / (log - moved) as f64,
        after.segments_removed - before.segments_removed,
    );
}
