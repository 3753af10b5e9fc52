//! What is done beside the commits: directories, checkpoints, making room.
//!
//! One thread does it, one thing at a time. Nothing that it does is needed for what was committed to be safe: if it fails
//! it is counted and tried again, and the next start replays more.
//!
//! **Room.** A segment in which nothing is alive goes once both checkpoints cover it. One that is mostly dead is read, and
//! what is alive in it is written again at the end of the log, at most [`MOVE_BYTES`] in one commit, so that those who
//! publish don't notice; then it is dead. So what a slow session pins is its own messages and not their neighbours. When there
//! is nothing left to do, the log is at most twice what is alive in it, and two segments, or one and eight checkpoints where
//! those are larger: every segment but the one that is being filled is at least half alive, or dead and not yet worth a
//! checkpoint before its time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::checkpoint::Snapshot;
use crate::disk::DiskFile;
use crate::durable::Shared;
use crate::format::{FileHead, FileKind, HEAD};
use crate::front::{Front, Health};
use crate::recovery::{checkpoint_name, directory_name, log_name, remove_old_checkpoints, write_directory};
use crate::scan::{Found, Scanner};
use crate::state::{Frame, Place, Segment};

/// How often room is looked for when nobody asks.
const TICK: Duration = Duration::from_secs(1);

/// Bytes that are moved in one commit.
const MOVE_BYTES: u64 = 1024 * 1024;

/// A segment with a smaller part alive, in percent, has it moved.
const MOSTLY_DEAD: u64 = 25;

/// The same while the log is long: [`Front::is_long`].
const HALF_DEAD: u64 = 50;

pub(crate) struct Maintenance {
    shared: Arc<Shared>,
    /// A segment that couldn't be emptied; it isn't tried again.
    hopeless: Vec<u64>,
    /// Directories that couldn't be written, to be tried again at the next tick.
    unwritten: Vec<u64>,
}

/// What there is to do.
enum Task {
    Directory(u64),
    Checkpoint(Snapshot, u64),
    Remove(u64, u32),
    Empty(u64, u32),
    CheckRoom,
    Stop,
}

impl Maintenance {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, hopeless: Vec::new(), unwritten: Vec::new() }
    }

    /// Works until the store is closed.
    pub(crate) fn run(mut self) {
        loop {
            let (what, done) = match self.next_task() {
                Task::Directory(number) => {
                    let done = self.write_directory(number);
                    if done.is_err() {
                        self.unwritten.push(number);
                    }
                    ("write a directory", done)
                }
                Task::Checkpoint(snapshot, covered) => {
                    ("write a checkpoint", self.write_checkpoint(snapshot, covered))
                }
                Task::Remove(number, epoch) => ("remove a segment", self.remove(number, epoch)),
                Task::Empty(number, epoch) => ("move what is alive", self.empty(number, epoch)),
                Task::CheckRoom => {
                    self.shared.check_room();
                    continue;
                }
                Task::Stop => break,
            };
            if let Err(error) = done {
                tracing::warn!(%error, what, "the store's upkeep failed");
            }
        }
        self.last_checkpoint();
    }

    fn next_task(&mut self) -> Task {
        let shared = Arc::clone(&self.shared);
        let mut front = shared.front.lock();
        loop {
            if let Some((snapshot, covered)) = front.snapshot.take() {
                return Task::Checkpoint(snapshot, covered);
            }
            if let Some(number) = front.sealed.pop() {
                return Task::Directory(number);
            }
            if front.is_closing && front.writer_is_done {
                return Task::Stop;
            }
            if front.health != Health::Failed && !front.is_closing {
                let synced = shared.synced.load(Ordering::Acquire);
                if let Some((number, segment)) = removable(&mut front, synced) {
                    return Task::Remove(number, segment.epoch);
                }
                if let Some((number, segment)) = self.worth_emptying(&front) {
                    return Task::Empty(number, segment.epoch);
                }
                if front.wants_checkpoint() && !front.checkpoint_underway && !front.wants_commit {
                    front.wants_commit = true;
                    shared.work.notify_one();
                }
            }
            if shared.maintenance.wait_for(&mut front, TICK).timed_out() {
                front.sealed.append(&mut self.unwritten);
                front.checkpoint_failed = false;
                return Task::CheckRoom;
            }
        }
    }

    fn write_directory(&self, number: u64) -> io::Result<()> {
        let directory = self.shared.front.lock().directories.get(&number).cloned();
        let Some(directory) = directory else { return Ok(()) };
        let written =
            write_directory(&*self.shared.disk, self.shared.identity.id, number, &directory.lock())?;
        let mut front = self.shared.front.lock();
        front.directories.remove(&number);
        front.counters.index_bytes += written;
        Ok(())
    }

    fn write_checkpoint(&self, snapshot: Snapshot, covered: u64) -> io::Result<()> {
        let shared = &self.shared;
        let head = FileHead {
            kind: FileKind::Checkpoint,
            store: shared.identity.id,
            epoch: shared.identity.epoch,
            number: 0,
            sequence: covered,
            salt: fastrand::u64(..),
        };
        let done = snapshot.write(&*shared.disk, &checkpoint_name(covered, shared.identity.epoch), head);
        let mut front = shared.front.lock();
        front.checkpoint_underway = false;
        let size = match done {
            Ok(size) => size,
            Err(error) => {
                front.counters.checkpoint_failures += 1;
                front.checkpoint_failed = true;
                return Err(error);
            }
        };
        front.counters.checkpoints += 1;
        front.counters.index_bytes += size;
        front.checkpoint_size = size;
        front.checkpoints.push(covered);
        let kept = front.checkpoints.len().saturating_sub(2);
        front.checkpoints.drain(..kept);
        drop(front);
        remove_old_checkpoints(&*shared.disk)?;
        Ok(())
    }

    fn remove(&self, number: u64, epoch: u32) -> io::Result<()> {
        let is_damaged = {
            let mut front = self.shared.front.lock();
            if let Some(segment) = front.state.segments.remove(&number) {
                front.log_bytes -= segment.size;
            }
            front.directories.remove(&number);
            front.counters.segments_removed += 1;
            front.damaged.remove(&number)
        };
        let directory = self.shared.disk.remove(&directory_name(number));
        let name = log_name(number, epoch);
        if is_damaged {
            self.shared.disk.rename(&name, &format!("{name}.bad"))?;
        } else {
            self.shared.disk.remove(&name)?;
        }
        self.shared.check_room();
        match directory {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The segment that is best emptied, if one is worth it.
    fn worth_emptying(&self, front: &Front) -> Option<(u64, Segment)> {
        let limit = if front.is_long() { HALF_DEAD } else { MOSTLY_DEAD };
        front
            .state
            .segments
            .iter()
            .filter(|(number, segment)| {
                front.tail != Some(**number)
                    && segment.live > 0
                    && (segment.live * 100 < segment.size * limit || front.damaged.contains(number))
                    && !self.hopeless.contains(number)
                    && !front.sealing.contains(number)
                    && !front.sealed.contains(number)
                    && !self.unwritten.contains(number)
            })
            .min_by_key(|(_, segment)| segment.live * 1000 / segment.size.max(1))
            .map(|(number, segment)| (*number, *segment))
    }

    /// Moves everything that is alive out of a segment.
    fn empty(&mut self, number: u64, epoch: u32) -> io::Result<()> {
        // Whatever happens, it is tried once.
        self.hopeless.push(number);
        let opened = self.shared.disk.open(&log_name(number, epoch)).and_then(|file| {
            let head = read_head(&*file)?;
            Ok((file, head))
        });
        let (file, head) = match opened {
            Ok(opened) => opened,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
                self.shared.lose_segment(number, &error);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut scanner = Scanner::new(&*file, head.salt)?;
        let mut last = None;
        let mut in_this_commit = 0;
        loop {
            let (offset, body) = match scanner.next()? {
                Found::Frame { offset, body, .. } => (offset, body),
                Found::Gap { .. } => continue,
                Found::End { .. } => break,
            };
            let Ok(frame) = Frame::read(body) else { continue };
            let offset = u32::try_from(offset).unwrap_or(u32::MAX);
            let moved = {
                let mut front = self.shared.front.lock();
                if front.is_closing || front.health == Health::Failed {
                    return Ok(());
                }
                let was_idle = front.waiting_bytes() == 0;
                let moved = front.move_frame(number, offset, &frame);
                if was_idle && moved.is_some() {
                    self.shared.work.notify_one();
                }
                moved
            };
            if let Some((token, bytes)) = moved {
                last = Some(token);
                in_this_commit += bytes;
                if in_this_commit >= MOVE_BYTES {
                    in_this_commit = 0;
                    if !self.shared.wait_for(token) {
                        return Ok(());
                    }
                }
            }
        }
        if last.is_some_and(|token| !self.shared.wait_for(token)) {
            return Ok(());
        }
        let mut front = self.shared.front.lock();
        let left = front.state.segments.get(&number).map_or(0, |segment| segment.live);
        if left > 0 {
            // It was there and couldn't be read.
            let (debts, retained) = front.give_up(number);
            tracing::error!(
                number,
                debts,
                retained,
                "a segment of the log is damaged: what couldn't be read is lost"
            );
        }
        self.hopeless.retain(|hopeless| *hopeless != number);
        Ok(())
    }

    /// Leaves a checkpoint of everything, so that the next start has nothing to replay.
    fn last_checkpoint(&self) {
        let last = {
            let mut front = self.shared.front.lock();
            let covered = front.next_sequence - 1;
            let is_safe = front.health != Health::Failed && front.waiting_bytes() == 0;
            (is_safe && front.checkpoints.last() != Some(&covered)).then(|| {
                if let Some(tail) = front.tail {
                    front.sealed.push(tail);
                }
                (Snapshot::of(&front.state), covered, std::mem::take(&mut front.sealed))
            })
        };
        let Some((snapshot, covered, sealed)) = last else { return };
        let directories = sealed.into_iter().try_for_each(|number| self.write_directory(number));
        if let Err(error) = directories.and_then(|()| self.write_checkpoint(snapshot, covered)) {
            tracing::warn!(%error, "the last checkpoint could not be written: the next start takes longer");
        }
    }
}

/// A segment that nobody needs any more, not even after a power cut: what ended the last that was alive in it is on disk.
/// What a frame ends and what it has instead are lost or kept together.
fn removable(front: &mut Front, synced: u64) -> Option<(u64, Segment)> {
    if front.readers > 0 {
        return None;
    }
    let covered = front.covered_twice();
    let Front { state, dying, tail, appended, .. } = front;
    let dead = state.segments.iter().filter(|(number, segment)| {
        segment.live == 0 && *tail != Some(**number) && segment.last_sequence <= covered
    });
    let mut found = None;
    for (number, segment) in dead {
        // Whatever ended it was appended by now.
        if *dying.entry(*number).or_insert(*appended) <= synced && found.is_none() {
            found = Some((*number, *segment));
        }
    }
    if let Some((number, _)) = found {
        dying.remove(&number);
    }
    found
}

/// The head of a segment that was sound when the store was opened.
pub(crate) fn read_head(file: &dyn DiskFile) -> io::Result<FileHead> {
    let mut head = [0; HEAD];
    let length = file.read_at(&mut head, 0)?;
    FileHead::parse(head.get(..length).unwrap_or_default())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the head of a segment is damaged"))
}

impl Shared {
    /// Gives up a segment that can't be opened.
    pub(crate) fn lose_segment(&self, number: u64, error: &io::Error) {
        let (debts, retained) = self.front.lock().give_up(number);
        tracing::error!(%error, number, debts, retained, "a segment of the log can't be opened: what was in it is lost");
    }

    /// Gives up a Retained Message that can't be read.
    pub(crate) fn lose_retained(&self, place: Place) {
        let mut front = self.front.lock();
        let was_idle = front.waiting_bytes() == 0;
        front.lose_retained(place);
        drop(front);
        tracing::error!(
            segment = place.segment,
            offset = place.offset,
            "a Retained Message can't be read: it is lost"
        );
        if was_idle {
            self.work.notify_one();
        }
    }

    /// Looks how much room there is, and refuses or accepts new debts accordingly.
    pub(crate) fn check_room(&self) {
        let free = match self.disk.free_bytes() {
            Ok(free) => free,
            Err(error) => {
                tracing::warn!(%error, "the room on the disk can't be told");
                return;
            }
        };
        let mut front = self.front.lock();
        let used = front.log_bytes;
        // What is reserved for the tail already counts as room.
        let tail = front
            .tail
            .and_then(|tail| front.state.segments.get(&tail))
            .map_or(0, |tail| front.options.segment_bytes.saturating_sub(tail.size));
        let room = free.saturating_add(tail);
        let reserve = front.options.reserve_bytes;
        match front.health {
            Health::Sound if room < reserve => {
                tracing::error!(free, reserve, "the disk is nearly full: new debts are refused");
                front.health = Health::Full { used, limit: used };
            }
            // Not at the first byte: or it would go back and forth.
            Health::Full { .. } if room >= reserve.saturating_add(reserve / 8) => {
                tracing::warn!(free, reserve, "there is room on the disk again");
                front.health = Health::Sound;
            }
            Health::Sound | Health::Full { .. } | Health::Failed => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk as _;
    use crate::fault::FaultDisk;
    use crate::options::StoreOptions;
    use crate::record::{MessageId, MessageRecord, Position, QueueKey, Record};
    use crate::{DurableStore, Store as _};

    fn letters(name: &str) -> QueueKey<'_> {
        QueueKey::DeadLetters { namespace: 0, name }
    }

    fn message(sequence: u64, payload: &[u8]) -> MessageRecord<'_> {
        let id = MessageId { store: 1, epoch: 1, sequence };
        MessageRecord { id, topic: "t", payload, ..MessageRecord::default() }
    }

    fn queued<'a>(message: MessageRecord<'a>, name: &'a str) -> [Record<'a>; 2] {
        [Record::Message(message), Record::Queued { queue: letters(name), id: Some(message.id), body: &[] }]
    }

    #[test]
    fn a_segment_stays_until_what_ended_the_last_in_it_is_on_disk() {
        let options = StoreOptions {
            segment_bytes: 8192,
            checkpoint_bytes: 16 * 1024,
            reserve_bytes: 0,
            ..StoreOptions::default()
        };
        let disk = FaultDisk::default();
        let (store, _) = DurableStore::open_on(Arc::new(disk.clone()), options).unwrap();
        // Nearly all of the first segment, so that it isn't moved.
        let mut places = Vec::new();
        store.append_debts(&queued(message(1, &[0; 7500]), "a"), &mut places).unwrap();
        assert!(store.wait_for_all());
        while store.shared.front.lock().covered_twice() == 0 {
            store.append(&[Record::RetainedCleared { topic: &"x".repeat(1000) }]).unwrap();
            assert!(store.wait_for_all());
        }
        disk.set_capacity(0);
        // As a letter that is sent again, in one frame: it is longer than what is left of any segment.
        let mut again = vec![Record::Settled { queue: letters("a"), position: places[0] }];
        again.extend(queued(message(2, &[0; 9000]), "b"));
        let token = store.append(&again).unwrap();
        let may_go = |number| {
            let mut front = store.shared.front.lock();
            let synced = store.shared.synced.load(Ordering::Acquire);
            let is_dead = front.state.segments.get(&number).is_none_or(|segment| segment.live == 0);
            assert!(is_dead && front.state.segments.contains_key(&number));
            std::iter::from_fn(|| removable(&mut front, synced)).any(|(found, _)| found == number)
        };
        assert!(!may_go(1), "what was in it is nowhere else");
        assert!(!may_go(1), "however often it is looked at");
        for seed in 0..8 {
            let (after, report) = DurableStore::open_on(Arc::new(disk.power_cut(seed)), options).unwrap();
            assert!(!report.has_losses(), "{report:?}");
            assert_eq!((after.queue_len(letters("a")), after.queue_len(letters("b"))), (1, 0));
        }
        disk.set_capacity(u64::MAX);
        assert!(store.shared.wait_for(token));
        while disk.names().unwrap().iter().any(|name| name.starts_with("000000000001-")) {
            // Upkeep follows the log.
            let token = store.append(&[Record::RetainedCleared { topic: "x" }]).unwrap();
            assert!(store.shared.wait_for(token));
        }
        assert_eq!((store.queue_len(letters("a")), store.queue_len(letters("b"))), (0, 1));
        assert!(store.reader(letters("b")).read(Position(0), 1, 1).unwrap().len() == 1);
    }
}
