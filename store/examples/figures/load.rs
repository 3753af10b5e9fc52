//! What everybody who measures the store needs: a message and its debt, a bare loop to compare with, waiting.

#![allow(dead_code, reason = "each program uses its part")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::task::{Poll, Wake, Waker};
use std::time::{Duration, Instant};

use store::{
    CommitToken, DurableStore, MessageId, MessageRecord, Position, QueueKey, Record, SessionKey, Store,
    StoreError, StoreOptions,
};

/// Bytes of a message, where nothing else is said.
pub(crate) const PAYLOAD: [u8; 256] = [b'p'; 256];

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits on this thread until a token is safe.
pub(crate) fn wait_for(store: &DurableStore, token: CommitToken) {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    while store.committed() < token {
        store.wake_when_committed(token, &waker);
        if store.committed() < token {
            std::thread::park();
        }
    }
}

/// Waits as a task until a token is safe.
pub(crate) async fn safe(store: &DurableStore, token: CommitToken) {
    std::future::poll_fn(|cx| {
        if store.committed() < token {
            store.wake_when_committed(token, cx.waker());
        }
        if store.committed() < token { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
}

/// Whom every message is owed to.
pub(crate) fn session() -> SessionKey<'static> {
    SessionKey { namespace: 0, client_id: "subscriber" }
}

pub(crate) fn queue() -> QueueKey<'static> {
    QueueKey::Session(session())
}

/// Opens a store that has the session.
pub(crate) fn open(folder: &Path) -> DurableStore {
    let (store, report) = DurableStore::open(folder, StoreOptions::default()).unwrap();
    assert!(!report.has_losses(), "{report:?}");
    start_session(&store);
    store
}

pub(crate) fn start_session(store: &DurableStore) {
    store.append(&[Record::SessionStarted { session: session(), expiry_interval_s: 60 }]).unwrap();
}

/// A message with one debt; `None` when too much waits for the disk.
pub(crate) fn try_publish(
    store: &DurableStore,
    number: u64,
    payload: &[u8],
    places: &mut Vec<Position>,
) -> Option<(CommitToken, Position)> {
    let id = MessageId { store: 1, epoch: 1, sequence: number };
    let topic = "sensors/1/temperature";
    let message = MessageRecord { id, topic, payload, qos: 1, ..MessageRecord::default() };
    let owed = Record::Owed { id, session: session(), qos: 1, retain: false, identifiers: &[] };
    places.clear();
    match store.append_debts(&[Record::Message(message), owed], places) {
        Ok(token) => Some((token, places.first().copied().unwrap_or_default())),
        Err(StoreError::Busy { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// The same, after as many tries as it takes.
pub(crate) fn publish(
    store: &DurableStore,
    number: u64,
    payload: &[u8],
    places: &mut Vec<Position>,
) -> (CommitToken, Position) {
    loop {
        match try_publish(store, number, payload, places) {
            Some(published) => return published,
            None => std::thread::yield_now(),
        }
    }
}

pub(crate) fn settle(store: &DurableStore, position: Position) {
    store.append(&[Record::Settled { queue: queue(), position }]).unwrap();
}

/// How long the same bytes take in the same number of writes and syncs, without anything else: appended to a file that
/// grows, or written to one whose blocks were allocated before, as segments are.
pub(crate) fn bare(folder: &Path, commits: u64, bytes: u64, is_allocated: bool) -> Duration {
    let path = folder.join("bare");
    let file = File::create(&path).unwrap();
    let chunk = vec![b'x'; usize::try_from(bytes / commits.max(1)).unwrap()];
    if is_allocated {
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).unwrap();
        file.sync_all().unwrap();
    }
    let start = Instant::now();
    for commit in 0..commits {
        file.write_all_at(&chunk, commit * chunk.len() as u64).unwrap();
        file.sync_data().unwrap();
    }
    let took = start.elapsed();
    drop(file);
    std::fs::remove_file(path).unwrap();
    took
}

/// Reads the queue from its beginning to its end; returns how many debts that were.
pub(crate) fn read_through(store: &DurableStore) -> usize {
    let (mut after, mut count) = (Position(0), 0);
    let mut reader = store.reader(queue());
    loop {
        let debts = reader.read(after, 1000, 1 << 20).unwrap();
        let Some(last) = debts.last() else { return count };
        after = last.position;
        count += debts.len();
    }
}
