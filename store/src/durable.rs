//! The store that keeps its promise: [`DurableStore`], its threads, and what they share.
//!
//! Lock order: `front`, then a directory. Neither is held during I/O.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::disk::{Disk, Folder};
use crate::front::{Counters, Front, Health, Pending};
use crate::histogram::{Histogram, HistogramSnapshot};
use crate::maintenance::Maintenance;
use crate::notify::Notifier;
use crate::options::{OpenError, RecoveryReport, StoreOptions};
use crate::read::QueueReader;
use crate::record::{Position, QueueKey, Record};
use crate::recovery::{Recovered, recover};
use crate::writer::Writer;
use crate::{CommitToken, Store, StoreError, StoreIdentity};

/// The largest segment, in bytes: an offset in it fits 32 bits with room for the frame that fills it.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// Bounds for the time that a sync takes, in nanoseconds: from a disk that lies or caches to one that is in trouble.
const SYNC_BOUNDS: &[u64] = &[
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
];

/// The smallest, in bytes.
const SEGMENT_BYTES_MIN: u64 = 4096;

/// A store in a folder. See the crate's documentation, and docs/store-format.md for its files.
///
/// Dropping it writes what waits, and leaves nothing to replay for the next start.
pub struct DurableStore {
    pub(crate) shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
    maintenance: Option<JoinHandle<()>>,
}

/// What the threads and those who append share.
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) identity: StoreIdentity,
    pub(crate) options: StoreOptions,
    pub(crate) front: Mutex<Front>,
    /// Something waits for the writer.
    pub(crate) work: Condvar,
    /// Something waits for the maintenance thread, or something that it waits for has happened.
    pub(crate) maintenance: Condvar,
    /// Something has become safe, or never will.
    pub(crate) safe: Condvar,
    /// The newest token that is safe.
    pub(crate) committed: AtomicU64,
    /// The newest token that is on disk for sure: with [`crate::Durability::Interval`] an older one.
    pub(crate) synced: AtomicU64,
    /// Nothing becomes safe any more.
    pub(crate) failed: AtomicBool,
    /// How long the writer waited for the disk.
    pub(crate) sync_times: Histogram,
}

impl Shared {
    /// Waits until everything appended so far is safe; `false` when there is no telling how long that takes.
    pub(crate) fn wait_for_all(&self) -> bool {
        let appended = {
            let front = self.front.lock();
            (front.health == Health::Sound).then_some(CommitToken(front.appended))
        };
        appended.is_some_and(|appended| self.wait_for(appended))
    }

    /// The same for who reads; `false` when it never will be.
    ///
    /// # Errors
    /// The disk is full: there is no telling how long it takes, and who reads isn't kept waiting.
    pub(crate) fn wait_to_read(&self) -> io::Result<bool> {
        let mut front = self.front.lock();
        let appended = front.appended;
        while self.committed.load(Ordering::Acquire) < appended {
            match front.health {
                Health::Failed => return Ok(false),
                Health::Full { .. } => return Err(io::Error::from(io::ErrorKind::StorageFull)),
                Health::Sound if front.writer_is_done => return Ok(false),
                Health::Sound => self.safe.wait(&mut front),
            }
        }
        Ok(true)
    }

    /// Waits until a token is safe; `false` when the store fails or closes before.
    pub(crate) fn wait_for(&self, token: CommitToken) -> bool {
        let mut front = self.front.lock();
        while self.committed.load(Ordering::Acquire) < token.0 {
            if front.writer_is_done {
                return false;
            }
            self.safe.wait(&mut front);
        }
        true
    }
}

impl std::fmt::Debug for DurableStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DurableStore").field("identity", &self.shared.identity).finish_non_exhaustive()
    }
}

impl DurableStore {
    /// Opens the store in a folder, making one if there is none, and says what was found.
    ///
    /// # Errors
    /// [`OpenError`]; damage isn't one.
    pub fn open(folder: &Path, options: StoreOptions) -> Result<(Self, RecoveryReport), OpenError> {
        Self::open_on(Arc::new(Folder::open(folder)?), options)
    }

    /// Opens the store on a disk.
    ///
    /// # Errors
    /// As [`DurableStore::open`].
    pub fn open_on(
        disk: Arc<dyn Disk>,
        mut options: StoreOptions,
    ) -> Result<(Self, RecoveryReport), OpenError> {
        options.segment_bytes = options.segment_bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        let recovered = recover(&*disk)?;
        let report = recovered.report.clone();
        let identity = recovered.identity;
        let synced = recovered.next_sequence - 1;
        let shared = Arc::new(Shared {
            disk,
            identity,
            options,
            front: Mutex::new(front(recovered, options)),
            work: Condvar::new(),
            maintenance: Condvar::new(),
            safe: Condvar::new(),
            committed: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            sync_times: Histogram::new(SYNC_BOUNDS),
        });
        shared.check_room();
        let writer = Writer::new(Arc::clone(&shared), synced, Notifier::start()?);
        let maintenance = Maintenance::new(Arc::clone(&shared));
        let store = Self {
            writer: Some(spawn("store-writer", || writer.run())?),
            maintenance: Some(spawn("store-upkeep", || maintenance.run())?),
            shared,
        };
        Ok((store, report))
    }

    /// Waits until everything that was appended is safe; `false` when it never will be. It waits for the disk: it belongs
    /// on a thread that may.
    #[must_use]
    pub fn wait_for_all(&self) -> bool {
        self.shared.wait_for_all()
    }

    /// Whether the store is of use: what was appended before the question is safe within so long, or waits for room on a full
    /// disk, which is an answer too. `false` once it has failed, and while the disk or the thread that writes to it hangs. It
    /// waits: it belongs on a thread that may.
    #[must_use]
    pub fn answers_within(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let shared = &self.shared;
        let mut front = shared.front.lock();
        let appended = front.appended;
        loop {
            match front.health {
                Health::Failed => return false,
                Health::Full { .. } => return true,
                Health::Sound if front.writer_is_done => return false,
                Health::Sound if shared.committed.load(Ordering::Acquire) >= appended => return true,
                Health::Sound => {
                    if shared.safe.wait_until(&mut front, deadline).timed_out() {
                        return false;
                    }
                }
            }
        }
    }

    /// How the store is.
    #[must_use]
    pub fn health(&self) -> Health {
        self.shared.front.lock().health
    }

    /// What it has done since its start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.front.lock().counters
    }

    /// How long the syncs of group commits took.
    #[must_use]
    pub fn sync_times(&self) -> HistogramSnapshot {
        self.shared.sync_times.snapshot()
    }

    /// Bytes that are free on its disk. It asks the system: it belongs on a thread that may wait.
    ///
    /// # Errors
    /// What the system says.
    pub fn free_bytes(&self) -> io::Result<u64> {
        self.shared.disk.free_bytes()
    }

    /// Bytes of the log on disk, and those of them that somebody still needs.
    #[must_use]
    pub fn log_bytes(&self) -> (u64, u64) {
        let front = self.shared.front.lock();
        (front.log_bytes, front.state.segments.values().map(|segment| segment.live).sum())
    }

    /// When the store was last written to, by its own stamps of the wall clock: milliseconds since the epoch, 0 before the
    /// first. At most a second behind.
    #[must_use]
    pub fn last_stamp_ms(&self) -> i64 {
        self.shared.front.lock().state.stamp_ms
    }
}

fn front(recovered: Recovered, options: StoreOptions) -> Front {
    Front {
        options,
        epoch: recovered.identity.epoch,
        log_bytes: recovered.state.segments.values().map(|segment| segment.size).sum(),
        state: recovered.state,
        pending: Pending::default(),
        appended: 0,
        next_sequence: recovered.next_sequence,
        next_segment: recovered.next_segment,
        tail: None,
        tail_debts: 0,
        sealed: recovered.directories.iter().map(|(number, _)| *number).collect(),
        directories: recovered
            .directories
            .into_iter()
            .map(|(number, directory)| (number, Arc::new(Mutex::new(directory))))
            .collect(),
        moved_on_way: HashMap::new(),
        retained_on_way: HashMap::new(),
        dying: BTreeMap::new(),
        readers: 0,
        sealing: Vec::new(),
        damaged: std::collections::BTreeSet::new(),
        checkpoints: recovered.checkpoints,
        checkpoint_size: recovered.checkpoint_size,
        bytes_since_checkpoint: recovered.replayed_bytes,
        checkpoint_underway: false,
        checkpoint_failed: false,
        snapshot: None,
        wants_commit: false,
        health: Health::Sound,
        is_closing: false,
        writer_is_done: false,
        waiting: Vec::new(),
        counters: Counters::default(),
        key: Vec::new(),
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    Ok(std::thread::Builder::new().name(name.to_owned()).spawn(run)?)
}

impl Drop for DurableStore {
    fn drop(&mut self) {
        self.shared.front.lock().is_closing = true;
        // The writer first: the other one writes the last checkpoint.
        for thread in [self.writer.take(), self.maintenance.take()].into_iter().flatten() {
            self.shared.work.notify_all();
            self.shared.maintenance.notify_all();
            if thread.join().is_err() {
                tracing::error!("a thread of the store has panicked");
            }
        }
    }
}

impl Store for DurableStore {
    fn identity(&self) -> StoreIdentity {
        self.shared.identity
    }

    fn keeps_records(&self) -> bool {
        true
    }

    fn append_debts(
        &self,
        records: &[Record<'_>],
        positions: &mut Vec<Position>,
    ) -> Result<CommitToken, StoreError> {
        let mut front = self.shared.front.lock();
        let was_idle = front.waiting_bytes() == 0;
        let token = front.append(records, positions)?;
        drop(front);
        if was_idle {
            self.shared.work.notify_one();
        }
        Ok(token)
    }

    fn committed(&self) -> CommitToken {
        CommitToken(self.shared.committed.load(Ordering::Acquire))
    }

    fn has_failed(&self) -> bool {
        self.shared.failed.load(Ordering::Acquire)
    }

    fn queue_reader(&self, queue: QueueKey<'_>) -> Option<QueueReader> {
        Some(self.reader(queue))
    }

    fn wake_when_committed(&self, token: CommitToken, waker: &Waker) {
        let mut front = self.shared.front.lock();
        if token <= self.committed() {
            drop(front);
            waker.wake_by_ref();
        } else if front.health != Health::Failed {
            front.waiting.push((token, waker.clone()));
        }
    }
}
