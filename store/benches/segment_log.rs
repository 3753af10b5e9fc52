//! What the durable store costs on this machine's disk: `cargo bench -p store`. Figures stand in
//! docs/decisions/0010-segment-log.md.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench prints, and may fail where it stands"
)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use store::{
    CommitToken, DurableStore, MessageId, MessageRecord, Position, QueueKey, Record, SessionKey, Store,
    StoreOptions,
};

const PAYLOAD: [u8; 256] = [b'p'; 256];

/// Messages that are on their way at once: 100 publishers with windows of 100.
const WINDOW: u64 = 10_000;

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn wait_for(store: &DurableStore, token: CommitToken) {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    while store.committed() < token {
        store.wake_when_committed(token, &waker);
        if store.committed() < token {
            std::thread::park();
        }
    }
}

fn session() -> SessionKey<'static> {
    SessionKey { namespace: 0, client_id: "subscriber" }
}

fn publish(store: &DurableStore, number: u64) -> (CommitToken, Position) {
    let id = MessageId { store: 1, epoch: 1, sequence: number };
    let message = MessageRecord {
        id,
        topic: "sensors/1/temperature",
        payload: &PAYLOAD,
        qos: 1,
        ..MessageRecord::default()
    };
    let owed = Record::Owed { id, session: session(), qos: 1, retain: false, identifiers: &[] };
    let mut positions = Vec::new();
    loop {
        match store.append_debts(&[Record::Message(message), owed], &mut positions) {
            Ok(token) => return (token, positions.first().copied().unwrap_or_default()),
            Err(store::StoreError::Busy { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn open(folder: &Path) -> (DurableStore, Duration) {
    let start = Instant::now();
    let (store, report) = DurableStore::open(folder, StoreOptions::default()).unwrap();
    assert!(!report.has_losses());
    let took = start.elapsed();
    println!("open: {took:?}, {} frames replayed", report.frames_replayed);
    (store, took)
}

/// Messages a second with a window, and the commits and bytes that it took.
fn append(store: &DurableStore, messages: u64, window: u64, settle: bool) -> (f64, u64, u64) {
    let before = store.counters();
    let start = Instant::now();
    let mut sent = std::collections::VecDeque::new();
    for number in 0..messages {
        if sent.len() as u64 >= window
            && let Some((token, position)) = sent.pop_front()
        {
            wait_for(store, token);
            if settle && number % 50 != 0 {
                store.append(&[Record::Settled { queue: QueueKey::Session(session()), position }]).unwrap();
            }
        }
        sent.push_back(publish(store, number));
    }
    if let Some((token, _)) = sent.pop_back() {
        wait_for(store, token);
    }
    let rate = messages as f64 / start.elapsed().as_secs_f64();
    let after = store.counters();
    (rate, after.commits - before.commits, after.log_bytes - before.log_bytes)
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
    drop(file);
    std::fs::remove_file(folder.join("bare")).unwrap();
    took
}

fn main() {
    let folder = tempfile::tempdir_in(".").unwrap();
    let (store, _) = open(folder.path());
    store.append(&[Record::SessionStarted { session: session(), expiry_interval_s: 60 }]).unwrap();
    for (messages, window) in [(500, 1), (20_000, 100), (400_000, WINDOW)] {
        let (rate, commits, bytes) = append(&store, messages, window, false);
        let bare = bare(folder.path(), commits, bytes);
        println!(
            "window {window}: {rate:.0} messages/s in {commits} commits of {} bytes; bare loop {:.0} messages/s; ratio {:.2}",
            bytes / commits,
            messages as f64 / bare.as_secs_f64(),
            rate / (messages as f64 / bare.as_secs_f64()),
        );
    }
    append(&store, 1_000_000, WINDOW, false);
    println!("queued: {}", store.queue_len(QueueKey::Session(session())));
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
    let mut reader = store.reader(QueueKey::Session(session()));
    let (start, mut after, mut count) = (Instant::now(), Position(0), 0);
    loop {
        let debts = reader.read(after, 1000, 1 << 20).unwrap();
        let Some(last) = debts.last() else { break };
        after = last.position;
        count += debts.len();
    }
    println!("drain: {count} debts read in {:?}", start.elapsed());
    store.append(&[Record::QueueDropped { queue: QueueKey::Session(session()) }]).unwrap();
    store.append(&[Record::SessionStarted { session: session(), expiry_interval_s: 60 }]).unwrap();
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
