//! The thread that writes: one append and one sync for everything that waits.
//!
//! It owns the end of the log and nothing else. What it can't write because the disk is full it keeps, and tries again once
//! there is room: nobody was told that it is safe. A sync that fails is different: what is on the disk is unknown then,
//! and asking again doesn't tell, so the store has failed for good.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::CommitToken;
use crate::checkpoint::Snapshot;
use crate::disk::DiskFile;
use crate::durable::Shared;
use crate::format::{FileHead, FileKind, HEAD, seal};
use crate::front::{Batch, Health, Write};
use crate::notify::Notifier;
use crate::options::Durability;
use crate::recovery::log_name;

/// Between two tries to write to a full disk.
const RETRY: Duration = Duration::from_millis(500);

pub(crate) struct Writer {
    shared: Arc<Shared>,
    tail: Option<Tail>,
    /// The newest sequence that is on disk for sure.
    synced_sequence: u64,
    /// The token of the last batch that was written whole.
    written: CommitToken,
    last_sync: Instant,
    notify: Notifier,
}

/// The segment that is being written.
struct Tail {
    number: u64,
    file: Arc<dyn DiskFile>,
    salt: u64,
    /// The newest sequence written to it and not synced.
    unsynced: Option<u64>,
}

/// What there is to do.
enum Task {
    Write(Batch, Option<(Snapshot, u64)>),
    Sync,
    Stop,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, synced_sequence: u64, notify: Notifier) -> Self {
        let written = CommitToken::NOTHING_OWED;
        Self { shared, tail: None, synced_sequence, written, last_sync: Instant::now(), notify }
    }

    /// Writes until the store is closed or has failed.
    pub(crate) fn run(mut self) {
        loop {
            let done = match self.next_task() {
                Task::Write(batch, snapshot) => self.commit(batch, snapshot),
                Task::Sync => self.sync(),
                Task::Stop => break,
            };
            if let Err(error) = done {
                tracing::error!(%error, "the store has failed: nothing is acknowledged any more");
                self.fail();
                break;
            }
        }
        if let Some(tail) = self.tail.take() {
            self.shared.trim(tail.number, &*tail.file);
        }
        self.shared.front.lock().writer_is_done = true;
        self.shared.maintenance.notify_all();
        self.shared.safe.notify_all();
    }

    /// Lets everybody know who waits for what will never be safe.
    fn fail(&self) {
        let waiting = {
            let mut front = self.shared.front.lock();
            front.health = Health::Failed;
            self.shared.failed.store(true, Ordering::Release);
            std::mem::take(&mut front.waiting)
        };
        self.notify.wake(waiting.into_iter().map(|(_, waker)| waker).collect());
    }

    fn next_task(&mut self) -> Task {
        let mut front = self.shared.front.lock();
        loop {
            if front.waiting_bytes() > 0 || front.wants_commit {
                let batch = front.take_batch();
                let snapshot = front.checkpoint_due();
                return Task::Write(batch, snapshot);
            }
            let is_dirty = self.tail.as_ref().is_some_and(|tail| tail.unsynced.is_some());
            if front.is_closing {
                return if is_dirty { Task::Sync } else { Task::Stop };
            }
            let due = match front.options.durability {
                Durability::Interval(interval) if is_dirty => self.last_sync.checked_add(interval),
                Durability::Interval(_) | Durability::Commit => None,
            };
            match due {
                None => self.shared.work.wait(&mut front),
                Some(due) if due <= Instant::now() => return Task::Sync,
                Some(due) => {
                    self.shared.work.wait_until(&mut front, due);
                }
            }
        }
    }

    fn commit(&mut self, mut batch: Batch, snapshot: Option<(Snapshot, u64)>) -> io::Result<()> {
        let mut rest = batch.writes.as_slice();
        while let Some(first) = rest.first() {
            let count = rest.iter().take_while(|write| write.segment == first.segment).count();
            let (here, after) = rest.split_at(count);
            self.write(&mut batch.bytes, here)?;
            rest = after;
        }
        self.written = batch.token;
        let is_due = match self.shared.options.durability {
            Durability::Commit => true,
            Durability::Interval(interval) => self.last_sync.elapsed() >= interval,
        };
        // A checkpoint must not be ahead of the log.
        if is_due || snapshot.is_some() {
            self.sync()?;
        }
        self.finish(batch, snapshot);
        Ok(())
    }

    /// Writes frames that lie in one segment one after the other.
    fn write(&mut self, bytes: &mut [u8], writes: &[Write]) -> io::Result<()> {
        let Some(first) = writes.first() else { return Ok(()) };
        self.open_segment(first, writes)?;
        let Some(tail) = &mut self.tail else { return Ok(()) };
        for write in writes {
            if let Some(frame) = bytes.get_mut(write.range.clone()) {
                let unsynced = u32::try_from(write.sequence - self.synced_sequence).unwrap_or(u32::MAX);
                seal(frame, write.kind, write.sequence, unsynced, tail.salt);
            }
        }
        let file = Arc::clone(&tail.file);
        // Frames that were spared leave holes in the buffer, not in the file.
        for together in writes.chunk_by(|write, next| write.range.end == next.range.start) {
            let (Some(first), Some(last)) = (together.first(), together.last()) else { continue };
            let Some(bytes) = bytes.get(first.range.start..last.range.end) else { continue };
            self.shared.until_there_is_room(|| file.write_at(bytes, first.offset))?;
        }
        if let (Some(tail), Some(last)) = (&mut self.tail, writes.last()) {
            tail.unsynced = Some(last.sequence);
        }
        Ok(())
    }

    /// Makes the segment that these frames go to, if it isn't the one that is open.
    fn open_segment(&mut self, first: &Write, writes: &[Write]) -> io::Result<()> {
        if self.tail.as_ref().is_some_and(|tail| tail.number == first.segment) {
            return Ok(());
        }
        // Whatever lies in an older segment is safe before a newer one exists: only the last one can end in a torn write.
        self.sync()?;
        if let Some(tail) = self.tail.take() {
            self.shared.trim(tail.number, &*tail.file);
        }
        let shared = &self.shared;
        let salt = fastrand::u64(..);
        let epoch = shared.identity.epoch;
        let head = FileHead {
            kind: FileKind::Log,
            store: shared.identity.id,
            epoch,
            number: first.segment,
            sequence: first.sequence,
            salt,
        };
        let name = log_name(first.segment, epoch);
        let end = writes.last().map_or(0, |last| last.offset + last.range.len() as u64);
        let size = shared.options.segment_bytes.max(end);
        let file = shared.until_there_is_room(|| {
            let file = match shared.disk.create(&name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => shared.disk.open(&name)?,
                made => made?,
            };
            match file.allocate(size) {
                // What ends debts is short, and may still find room.
                Err(error) if is_full(&error) => {
                    file.truncate(0)?;
                    file.allocate(end)?;
                }
                done => done?,
            }
            file.write_at(&head.to_bytes(), 0)?;
            Ok(file)
        })?;
        debug_assert!(first.offset == HEAD as u64);
        file.sync()?;
        shared.disk.sync_names()?;
        // Each segment takes some: the reserve is noticed before it is used up.
        shared.check_room();
        self.tail = Some(Tail { number: first.segment, file, salt, unsynced: None });
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if let Some(tail) = &mut self.tail
            && let Some(sequence) = tail.unsynced
        {
            let started = Instant::now();
            tail.file.sync()?;
            self.shared.sync_times.observe(started.elapsed());
            tail.unsynced = None;
            self.synced_sequence = sequence;
        }
        self.shared.synced.store(self.written.0, Ordering::Release);
        self.last_sync = Instant::now();
        Ok(())
    }

    /// Tells everybody.
    fn finish(&self, batch: Batch, snapshot: Option<(Snapshot, u64)>) {
        let shared = &self.shared;
        self.note_debts(&batch);
        let mut front = shared.front.lock();
        // Only now: a directory must be whole when it is written.
        let sealed = std::mem::take(&mut front.sealing);
        front.sealed.extend(sealed);
        front.counters.commits += 1;
        front.pending.spare = batch.bytes;
        front.moved_on_way.clear();
        front.retained_on_way.clear();
        shared.committed.store(batch.token.0, Ordering::Release);
        let safe: Vec<_> = front.waiting.extract_if(.., |(token, _)| *token <= batch.token).collect();
        let has_work = snapshot.is_some() || !front.sealed.is_empty() || !front.dying.is_empty();
        if snapshot.is_some() {
            front.snapshot = snapshot;
        }
        drop(front);
        shared.safe.notify_all();
        if has_work {
            shared.maintenance.notify_all();
        }
        self.notify.wake(safe.into_iter().map(|(_, waker)| waker).collect());
    }

    /// Puts the debts of a batch, which is safe now, into the directories of their segments.
    fn note_debts(&self, batch: &Batch) {
        for here in batch.debts.chunk_by(|(segment, ..), (next, ..)| segment == next) {
            let Some((segment, ..)) = here.first() else { continue };
            let directory = self.shared.front.lock().directories.get(segment).cloned();
            let Some(directory) = directory else { continue };
            let mut directory = directory.lock();
            for (_, debt, offset) in here {
                directory.push(*debt, *offset);
            }
        }
    }
}

impl Shared {
    /// Runs a write again until the disk isn't full any more.
    fn until_there_is_room<T>(&self, mut write: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            match write() {
                Err(error) if is_full(&error) => {}
                done => return done,
            }
            let mut front = self.front.lock();
            if front.is_closing {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            if front.health == Health::Sound {
                tracing::error!("the disk is full: the log waits for room");
            }
            front.health = Health::Full { used: front.log_bytes, limit: front.log_bytes };
            self.maintenance.notify_all();
            self.safe.notify_all();
            self.work.wait_for(&mut front, RETRY);
        }
    }

    /// Gives back what was reserved for a segment and isn't needed.
    fn trim(&self, number: u64, file: &dyn DiskFile) {
        let used = self.front.lock().state.segments.get(&number).map(|segment| segment.size);
        if let Some(used) = used
            && let Err(error) = file.truncate(used)
        {
            tracing::warn!(%error, number, "a full segment could not be cut to its size");
        }
    }
}

/// Whether there is no room, for bytes or for files.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
