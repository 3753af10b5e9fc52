//! From the files of a folder to the state: what a start reads, and what it does about damage.
//!
//! The newest sound checkpoint is the beginning; the log after it is replayed, frame by frame, in bounded memory. What is
//! wrong never stops a start, with one exception: a file of a newer format, which is sound and not ours to judge.
//!
//! - The end of the last segment may hold a write that was interrupted. It is cut off: nobody was told of it.
//! - Anything else that isn't a sound frame is damage. A frame says how far the log was safe when it was written, so a
//!   missing frame before that was safe once. The file is put aside under `.bad`, and a copy takes its place in which a
//!   filler stands where the damage was; the frames after it count.
//! - A file that isn't this store's, or whose head is damaged, is put aside whole.
//! - A segment that the checkpoint knows and that isn't there takes its debts and retained messages with it.
//!
//! A full disk is no reason not to start: who is to read can read, and new debts are refused until there is room. What a start
//! writes is either written over what is there (the identity), or left for later (directories, copies of what is damaged).
//!
//! Every start raises the epoch, durably, before anything is accepted. The epoch is also in the names of the files, so that
//! damage to the newest of them can't bring an old one back.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::StoreIdentity;
use crate::checkpoint::{self, CheckpointError, Snapshot, TEMPORARY, create_temporary};
use crate::directory::{self, Directory};
use crate::disk::{Disk, DiskFile};
use crate::format::{
    FRAME_HEAD, FileHead, FileKind, FrameHead, FrameKind, HEAD, HeadError, MAGIC, VERSION, seal,
};
use crate::options::{OpenError, RecoveryReport};
use crate::scan::{Found, Scanner};
use crate::state::{FoundDebt, Frame, Segment, State};
use crate::writer::is_full;

/// The files that say whose folder this is: two, so that damage to one doesn't bring an old epoch back.
const IDENTITY: [&str; 2] = ["identity", "identity.copy"];

/// Bytes that are copied at once.
const COPY: usize = 1024 * 1024;

/// The name of a segment.
pub(crate) fn log_name(number: u64, epoch: u32) -> String {
    format!("{number:012}-{epoch:08}.log")
}

/// The name of a segment's directory.
pub(crate) fn directory_name(number: u64) -> String {
    format!("{number:012}.dir")
}

/// The name of a checkpoint.
pub(crate) fn checkpoint_name(sequence: u64, epoch: u32) -> String {
    format!("{sequence:020}-{epoch:08}.state")
}

/// The two numbers of a segment's or a checkpoint's name.
fn parse_name(name: &str, extension: &str) -> Option<(u64, u32)> {
    let (number, epoch) = name.strip_suffix(extension)?.split_once('-')?;
    Some((number.parse().ok()?, epoch.parse().ok()?))
}

/// What a start found and made of it.
pub(crate) struct Recovered {
    pub(crate) identity: StoreIdentity,
    pub(crate) state: State,
    pub(crate) next_sequence: u64,
    pub(crate) next_segment: u64,
    /// Sequences of the checkpoints that are there, the older first.
    pub(crate) checkpoints: Vec<u64>,
    pub(crate) checkpoint_size: u64,
    /// Bytes of log that were replayed.
    pub(crate) replayed_bytes: u64,
    /// Directories for which there was no room.
    pub(crate) directories: Vec<(u64, Directory)>,
    pub(crate) report: RecoveryReport,
}

struct Recovery<'a> {
    disk: &'a dyn Disk,
    store: Option<u64>,
    epoch: u32,
    logs: BTreeMap<u64, Log>,
    report: RecoveryReport,
    state: State,
    /// The sequence that the checkpoint covers.
    covered: u64,
    last_sequence: u64,
    replayed_bytes: u64,
    directories: Vec<(u64, Directory)>,
}

struct Log {
    name: String,
    head: FileHead,
    file: Arc<dyn DiskFile>,
}

/// What is wrong in a segment, from a first look at it.
#[derive(Default)]
struct Survey {
    /// Damage with sound frames after it: from where to where, and the sequence of the frame after it.
    holes: Vec<(u64, u64, u64)>,
    /// Where the sound frames end.
    end: u64,
    /// There is something after the end that isn't zeros.
    is_torn: bool,
}

pub(crate) fn recover(disk: &dyn Disk) -> Result<Recovered, OpenError> {
    let mut recovery = Recovery {
        disk,
        store: None,
        epoch: 0,
        logs: BTreeMap::new(),
        report: RecoveryReport::default(),
        state: State::default(),
        covered: 0,
        last_sequence: 0,
        replayed_bytes: 0,
        directories: Vec::new(),
    };
    let names = disk.names()?;
    recovery.read_identity()?;
    let checkpoints = recovery.read_checkpoints(&names)?;
    recovery.read_heads(&names)?;
    let (kept, checkpoint_size) = recovery.settle_checkpoints(checkpoints)?;
    recovery.replay()?;
    recovery.finish(names, kept, checkpoint_size)
}

impl Recovery<'_> {
    fn read_identity(&mut self) -> Result<(), OpenError> {
        for name in IDENTITY {
            let file = match self.disk.open(name) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            };
            match self.head_of(name, &*file)? {
                Some(head) if head.kind == FileKind::Identity => {
                    self.store.get_or_insert(head.store);
                    self.epoch = self.epoch.max(head.epoch);
                }
                _ => self.put_aside(name)?,
            }
        }
        Ok(())
    }

    /// A file's head, `None` when it is damaged.
    fn head_of(&self, name: &str, file: &dyn DiskFile) -> Result<Option<FileHead>, OpenError> {
        let mut head = [0; HEAD];
        let length = file.read_at(&mut head, 0)?;
        match FileHead::parse(head.get(..length).unwrap_or_default()) {
            Ok(head) => Ok(Some(head)),
            Err(HeadError::Damaged) => Ok(None),
            Err(HeadError::Newer(version)) => {
                Err(OpenError::Newer { file: name.to_owned(), version, supported: VERSION })
            }
        }
    }

    /// Renames a file, so that nothing takes it for one of the store's.
    fn put_aside(&mut self, name: &str) -> io::Result<()> {
        let new = format!("{name}.bad");
        self.disk.rename(name, &new)?;
        self.disk.sync_names()?;
        self.report.quarantined.push(new);
        Ok(())
    }

    /// Sizes of all sound checkpoints, by the sequence that they cover and their epoch.
    fn read_checkpoints(&mut self, names: &[String]) -> Result<BTreeMap<(u64, u32), u64>, OpenError> {
        let mut named: Vec<_> = names
            .iter()
            .filter_map(|name| Some((parse_name(name, ".state")?, name)))
            .inspect(|((_, epoch), _)| self.epoch = self.epoch.max(*epoch))
            .collect();
        named.sort_unstable();
        let mut found = BTreeMap::new();
        let mut is_read = false;
        for ((sequence, epoch), name) in named.into_iter().rev() {
            let file = self.disk.open(name)?;
            // Only the newest sound one is read whole.
            let head = if is_read {
                self.head_of(name, &*file)?.filter(|head| head.kind == FileKind::Checkpoint)
            } else {
                match checkpoint::read(&*file) {
                    Ok((head, state)) if self.store.is_none_or(|store| store == head.store) => {
                        self.state = state;
                        self.covered = head.sequence;
                        is_read = true;
                        Some(head)
                    }
                    Ok(_) | Err(CheckpointError::Damaged) => None,
                    Err(CheckpointError::Io(error)) => return Err(error.into()),
                    Err(CheckpointError::Newer(version)) => {
                        return Err(OpenError::Newer { file: name.clone(), version, supported: VERSION });
                    }
                }
            };
            let Some(head) = head.filter(|head| head.sequence == sequence) else {
                self.put_aside(name)?;
                continue;
            };
            self.store.get_or_insert(head.store);
            self.epoch = self.epoch.max(head.epoch);
            found.insert((sequence, epoch), file.size()?);
        }
        Ok(found)
    }

    fn read_heads(&mut self, names: &[String]) -> Result<(), OpenError> {
        let mut named: Vec<_> =
            names.iter().filter_map(|name| Some((parse_name(name, ".log")?, name))).collect();
        named.sort_unstable();
        let last = named.last().map(|(_, name)| (*name).clone());
        for ((number, epoch), name) in named {
            self.epoch = self.epoch.max(epoch);
            let file = self.disk.open(name)?;
            let head = self.head_of(name, &*file)?;
            let is_ours = |head: &FileHead| {
                head.kind == FileKind::Log
                    && head.number == number
                    && head.epoch == epoch
                    && self.store.is_none_or(|store| store == head.store)
            };
            match head.filter(is_ours) {
                Some(head) => {
                    self.store.get_or_insert(head.store);
                    self.logs.insert(number, Log { name: name.clone(), head, file });
                }
                // Its making was interrupted: nothing has been written to it.
                None if last.as_ref() == Some(name) && is_blank(&*file)? => {
                    self.disk.remove(name)?;
                }
                None => {
                    self.put_aside(name)?;
                    if !self.state.segments.contains_key(&number) {
                        self.report.frames_lost += 1;
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes what the newest checkpoint makes superfluous; returns the sequences of the checkpoints that are kept.
    fn settle_checkpoints(
        &mut self,
        checkpoints: BTreeMap<(u64, u32), u64>,
    ) -> Result<(Vec<u64>, u64), OpenError> {
        let size = checkpoints.last_key_value().map_or(0, |(_, size)| *size);
        let mut kept: Vec<u64> = checkpoints.keys().rev().take(2).map(|(sequence, _)| *sequence).collect();
        kept.reverse();
        if checkpoints.is_empty() {
            self.report.without_checkpoint =
                self.logs.first_key_value().is_some_and(|(_, log)| log.head.sequence > 1);
            return Ok((kept, size));
        }
        // A segment that the checkpoint doesn't know and could was dead, and its removal wasn't safe yet.
        let newest = self.state.segments.last_key_value().map_or(0, |(number, _)| *number);
        let dead: Vec<u64> = self
            .logs
            .iter()
            .filter(|(number, log)| {
                **number < newest
                    && log.head.sequence <= self.covered
                    && !self.state.segments.contains_key(number)
            })
            .map(|(number, _)| *number)
            .collect();
        for number in dead {
            if let Some(log) = self.logs.remove(&number) {
                self.disk.remove(&log.name)?;
            }
        }
        Ok((kept, size))
    }

    fn replay(&mut self) -> Result<(), OpenError> {
        self.last_sequence = self.covered;
        // What is covered whole isn't read at all.
        let first = self
            .state
            .segments
            .iter()
            .rfind(|(_, segment)| segment.last_sequence <= self.covered)
            .map_or(0, |(number, _)| *number);
        let numbers: Vec<u64> = self.logs.range(first..).map(|(number, _)| *number).collect();
        let mut previous = None;
        for number in &numbers {
            let is_last = numbers.last() == Some(number);
            if previous.is_some() || self.covered == 0 {
                self.note_gap_before(*number, previous);
            }
            self.replay_segment(*number, is_last)?;
            previous = Some(*number);
        }
        self.lose_missing();
        for queue in self.state.queues.values_mut() {
            Arc::make_mut(queue).close_gaps();
        }
        Ok(())
    }

    /// Gives up what lies in segments that aren't there. Only now: what was removed in its time has nothing left by the
    /// end of the log.
    fn lose_missing(&mut self) {
        let missing: Vec<_> = self
            .state
            .segments
            .iter()
            .filter(|(number, _)| !self.logs.contains_key(number))
            .map(|(number, segment)| (*number, segment.live > 0))
            .collect();
        for (number, is_loss) in missing {
            let (debts, retained) = self.state.lose_segment(number);
            self.report.debts_lost += debts;
            self.report.retained_lost += retained;
            if is_loss {
                self.report.segments_missing.push(number);
            }
        }
    }

    /// Notes whether segments are missing before this one.
    fn note_gap_before(&mut self, number: u64, previous: Option<u64>) {
        let Some(log) = self.logs.get(&number) else { return };
        let (is_next, first) = (previous.is_none_or(|previous| number == previous + 1), log.head.sequence);
        if first > self.last_sequence + 1 {
            if self.covered > 0 || is_next && previous.is_some() {
                self.report.frames_lost += first - self.last_sequence - 1;
            }
            if self.covered > 0
                && let Some(previous) = previous
            {
                self.report.segments_missing.extend(previous + 1..number);
            }
            self.last_sequence = first - 1;
        }
    }

    fn replay_segment(&mut self, number: u64, is_last: bool) -> Result<(), OpenError> {
        let Some(log) = self.logs.get(&number) else { return Ok(()) };
        let (name, head, mut file) = (log.name.clone(), log.head, Arc::clone(&log.file));
        let survey = survey(&*file, head, is_last)?;
        if !survey.holes.is_empty() {
            // Without room for a copy the damage stays where it is, and the next start reports it again.
            if let Some(copy) = unless_full(self.fill_holes(&name, &*file, head, &survey))? {
                file = copy;
            }
        }
        let size = file.size()?;
        if survey.end < size {
            if survey.is_torn {
                self.report.bytes_cut += size - survey.end;
                if !is_last {
                    // What came before the next segment was safe before it was made.
                    self.report.frames_lost += 1;
                    if unless_full(self.copy_aside(&name, &*file))?.is_none() {
                        return self.apply_segment(number, head, &*file);
                    }
                }
            }
            file.truncate(survey.end)?;
        }
        if survey.end < size || is_last {
            // What a killed process has written may be in the system's memory alone. From here on it counts as safe.
            file.sync()?;
        }
        self.apply_segment(number, head, &*file)
    }

    fn apply_segment(&mut self, number: u64, head: FileHead, file: &dyn DiskFile) -> Result<(), OpenError> {
        let last_sequence = head.sequence.saturating_sub(1);
        self.state.segments.entry(number).or_insert(Segment {
            epoch: head.epoch,
            size: HEAD as u64,
            live: 0,
            last_sequence,
        });
        let mut directory = Directory::default();
        let mut scanner = Scanner::new(file, head.salt)?;
        loop {
            let (offset, frame, body) = match scanner.next()? {
                Found::Frame { offset, head, body } => (offset, head, body),
                Found::Gap { .. } => continue,
                Found::End { .. } => break,
            };
            let is_new = frame.sequence > self.covered.max(self.last_sequence);
            let end = offset + frame.size() as u64;
            let offset = u32::try_from(offset).unwrap_or(u32::MAX);
            if frame.kind == FrameKind::Filler {
                self.last_sequence = self.last_sequence.max(frame.sequence);
            } else if is_new {
                self.last_sequence = frame.sequence;
                self.report.frames_replayed += 1;
                self.replayed_bytes += frame.size() as u64;
                let found = |debt| directory.push(debt, offset);
                if self.state.replay(frame.kind, body, number, offset, found).is_err() {
                    self.report.frames_lost += 1;
                }
            } else {
                debts_of(body, |debt| directory.push(debt, offset));
            }
            if let Some(segment) = self.state.segments.get_mut(&number) {
                segment.size = end;
                segment.last_sequence = segment.last_sequence.max(frame.sequence);
            }
        }
        if unless_full(write_directory(self.disk, head.store, number, &directory))?.is_none() {
            self.directories.push((number, directory));
        }
        Ok(())
    }

    /// Puts a damaged segment aside and a copy in its place, with fillers for the damage.
    fn fill_holes(
        &mut self,
        name: &str,
        file: &dyn DiskFile,
        head: FileHead,
        survey: &Survey,
    ) -> io::Result<Arc<dyn DiskFile>> {
        for (from, to, _) in &survey.holes {
            self.report.frames_lost += u64::from(to - from >= FRAME_HEAD as u64);
        }
        let copy = create_temporary(self.disk)?;
        copy_file(file, &*copy)?;
        for (from, to, next) in &survey.holes {
            let length = usize::try_from(to - from).unwrap_or(usize::MAX);
            if length < FRAME_HEAD {
                continue;
            }
            let mut filler = vec![0; length];
            seal(&mut filler, FrameKind::Filler, next.saturating_sub(1), 0, head.salt);
            copy.write_at(&filler, *from)?;
        }
        copy.sync()?;
        self.put_aside(name)?;
        self.disk.rename(TEMPORARY, name)?;
        self.disk.sync_names()?;
        Ok(copy)
    }

    /// Keeps a copy of a file that is about to be cut.
    fn copy_aside(&mut self, name: &str, file: &dyn DiskFile) -> io::Result<()> {
        let copy = create_temporary(self.disk)?;
        copy_file(file, &*copy)?;
        copy.sync()?;
        let new = format!("{name}.bad");
        self.disk.rename(TEMPORARY, &new)?;
        self.disk.sync_names()?;
        self.report.quarantined.push(new);
        Ok(())
    }

    fn finish(
        mut self,
        names: Vec<String>,
        checkpoints: Vec<u64>,
        checkpoint_size: u64,
    ) -> Result<Recovered, OpenError> {
        // Directories without a segment, and files whose making was interrupted.
        for name in names {
            let number = name.strip_suffix(".dir").and_then(|number| number.parse::<u64>().ok());
            if name == TEMPORARY || number.is_some_and(|number| !self.logs.contains_key(&number)) {
                match self.disk.remove(&name) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                    _ => {}
                }
            }
        }
        let store = self.store.unwrap_or_else(|| fastrand::u64(1..));
        let epoch = self.epoch + 1;
        let head = FileHead { kind: FileKind::Identity, store, epoch, number: 0, sequence: 0, salt: 0 };
        for name in IDENTITY {
            self.write_identity(name, head)?;
        }
        let (mut checkpoints, mut checkpoint_size) = (checkpoints, checkpoint_size);
        if self.report.has_losses() {
            // So that it is reported once.
            let snapshot = Snapshot::of(&self.state);
            let sequence = self.last_sequence;
            let salt = fastrand::u64(..);
            let head = FileHead { kind: FileKind::Checkpoint, sequence, salt, ..head };
            let written = snapshot.write(self.disk, &checkpoint_name(sequence, epoch), head);
            if let Some(size) = unless_full(written)? {
                checkpoint_size = size;
                checkpoints.push(sequence);
                checkpoints.drain(..checkpoints.len().saturating_sub(2));
            }
        }
        remove_old_checkpoints(self.disk)?;
        let newest = self.logs.last_key_value().map_or(0, |(number, _)| *number);
        let newest = newest.max(self.state.segments.last_key_value().map_or(0, |(number, _)| *number));
        self.report.quarantined.sort_unstable();
        Ok(Recovered {
            identity: StoreIdentity { id: store, epoch },
            state: self.state,
            next_sequence: self.last_sequence + 1,
            next_segment: newest + 1,
            checkpoints,
            checkpoint_size,
            replayed_bytes: self.replayed_bytes,
            directories: self.directories,
            report: self.report,
        })
    }

    /// Writes an identity file: over the old one, which takes no room. It fits a sector, and while one of the two is
    /// written the other one is whole.
    fn write_identity(&self, name: &str, head: FileHead) -> io::Result<()> {
        match self.disk.open(name) {
            Ok(file) if file.size()? == HEAD as u64 => {
                file.write_at(&head.to_bytes(), 0)?;
                file.sync()
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => {
                let file = create_temporary(self.disk)?;
                file.write_at(&head.to_bytes(), 0)?;
                file.sync()?;
                self.disk.rename(TEMPORARY, name)?;
                self.disk.sync_names()
            }
        }
    }
}

/// `None` where there was no room.
fn unless_full<T>(done: io::Result<T>) -> io::Result<Option<T>> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(error) if is_full(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes all checkpoints but the two newest.
pub(crate) fn remove_old_checkpoints(disk: &dyn Disk) -> io::Result<()> {
    let mut names: Vec<_> =
        disk.names()?.into_iter().filter_map(|name| Some((parse_name(&name, ".state")?, name))).collect();
    names.sort_unstable();
    names.truncate(names.len().saturating_sub(2));
    names.iter().try_for_each(|(_, name)| disk.remove(name))
}

/// Writes a segment's directory. It isn't synced: it can be made again.
pub(crate) fn write_directory(
    disk: &dyn Disk,
    store: u64,
    number: u64,
    directory: &Directory,
) -> io::Result<u64> {
    let salt = fastrand::u64(..);
    let blocks = directory.to_blocks(salt);
    let sequence = directory::blocks_in(blocks.len());
    let head = FileHead { kind: FileKind::Directory, store, epoch: 0, number, sequence, salt };
    let file = create_temporary(disk)?;
    file.write_at(&head.to_bytes(), 0)?;
    file.write_at(&blocks, HEAD as u64)?;
    disk.rename(TEMPORARY, &directory_name(number))?;
    Ok((HEAD + blocks.len()) as u64)
}

/// Hands on the debts of a frame without applying it.
pub(crate) fn debts_of(body: &[u8], mut found: impl FnMut(FoundDebt)) {
    let Ok(frame) = Frame::read(body) else { return };
    for entry in frame.entries {
        if let crate::entry::Entry::Owed(owed) = entry {
            found(FoundDebt { queue: owed.queue, position: owed.position });
        }
    }
}

/// Looks a segment over. In the last one, what isn't proven to have been safe is its end.
fn survey(file: &dyn DiskFile, head: FileHead, is_last: bool) -> io::Result<Survey> {
    let mut survey = Survey::default();
    let mut scanner = Scanner::new(file, head.salt)?;
    let mut safe = 0;
    let mut expected = head.sequence;
    // Where each hole begins and which frame is missing there first.
    let mut open: Option<(u64, u64)> = None;
    let mut holes: Vec<(u64, u64, u64, u64)> = Vec::new();
    loop {
        match scanner.next()? {
            Found::Frame { offset, head: frame, .. } => {
                if let Some((from, missing)) = open.take() {
                    holes.push((from, offset, missing, frame.sequence));
                }
                safe = safe.max(safe_before(&frame));
                expected = frame.sequence + 1;
            }
            Found::Gap { from, .. } => open = Some((from, expected)),
            Found::End { offset, is_clean } => {
                survey.end = offset;
                survey.is_torn = !is_clean;
                break;
            }
        }
    }
    for (from, to, missing, next) in holes {
        if is_last && missing > safe {
            survey.end = from;
            survey.is_torn = true;
            break;
        }
        survey.holes.push((from, to, next));
    }
    Ok(survey)
}

fn safe_before(frame: &FrameHead) -> u64 {
    if frame.kind == FrameKind::Filler { 0 } else { frame.safe_before() }
}

/// Whether a file has nothing but zeros, or a head of ours that came to harm and nothing but zeros after it.
fn is_blank(file: &dyn DiskFile) -> io::Result<bool> {
    let mut magic = [0; MAGIC.len()];
    file.read_at(&mut magic, 0)?;
    let mut offset = if magic == MAGIC { HEAD as u64 } else { 0 };
    let mut buffer = vec![0; COPY];
    loop {
        let read = file.read_at(&mut buffer, offset)?;
        let found = buffer.get(..read).unwrap_or_default();
        if found.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        if read < COPY {
            return Ok(true);
        }
        offset += read as u64;
    }
}

fn copy_file(from: &dyn DiskFile, to: &dyn DiskFile) -> io::Result<()> {
    let mut offset = 0;
    let mut buffer = vec![0; COPY];
    loop {
        let read = from.read_at(&mut buffer, offset)?;
        to.write_at(buffer.get(..read).unwrap_or_default(), offset)?;
        offset += read as u64;
        if read < COPY {
            return Ok(());
        }
    }
}
