//! The state as it was after a frame, in a file: so that a start reads only the log after it.
//!
//! A checkpoint is written whole, beside the ones that are there, and gets its name once it is safe. The two newest are
//! kept, and the log from the older one on: a damaged checkpoint costs time and nothing else.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::bytes::{Malformed, Reader, put_bytes, put_number, put_signed};
use crate::disk::{Disk, DiskFile};
use crate::format::{FRAME_HEAD, FileHead, FileKind, FrameKind, HEAD, HeadError, seal};
use crate::queue::{Inflight, Queue, Run, Session};
use crate::scan::{Found, Scanner};
use crate::shards::Shards;
use crate::state::{Place, Segment, State};

/// A frame ends once it is longer than this, in bytes.
const FRAME_BYTES: usize = 256 * 1024;

const GLOBAL: u8 = 1;
const SEGMENT: u8 = 2;
const QUEUE: u8 = 3;
const RETAINED: u8 = 4;
/// Of a session whose queue stands before it.
const OWNER: u8 = 5;

/// Why a checkpoint can't be used.
#[derive(Debug)]
pub(crate) enum CheckpointError {
    Io(io::Error),
    Damaged,
    Newer(u16),
}

impl From<io::Error> for CheckpointError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Malformed> for CheckpointError {
    fn from(_: Malformed) -> Self {
        Self::Damaged
    }
}

/// A state on its way into a file. Taking one costs the same however large the state is.
pub(crate) struct Snapshot {
    next_queue: u64,
    stamp_ms: i64,
    segments: BTreeMap<u64, Segment>,
    queues: Shards<u64, Arc<Queue>>,
    retained: Shards<Box<str>, Place>,
}

impl Snapshot {
    pub(crate) fn of(state: &State) -> Self {
        Self {
            next_queue: state.next_queue,
            stamp_ms: state.stamp_ms,
            segments: state.segments.clone(),
            queues: state.queues.clone(),
            retained: state.retained.clone(),
        }
    }

    /// Writes the file under `name` and makes it safe; returns its size in bytes.
    pub(crate) fn write(self, disk: &dyn Disk, name: &str, head: FileHead) -> io::Result<u64> {
        let file = create_temporary(disk)?;
        file.write_at(&head.to_bytes(), 0)?;
        let mut frames =
            Frames { file: &*file, salt: head.salt, offset: HEAD as u64, sequence: 0, body: Vec::new() };
        self.put(&mut frames)?;
        frames.finish(FrameKind::State)?;
        frames.finish(FrameKind::End)?;
        file.sync()?;
        disk.rename(TEMPORARY, name)?;
        disk.sync_names()?;
        Ok(frames.offset)
    }

    fn put(self, frames: &mut Frames<'_>) -> io::Result<()> {
        frames.item(|out| {
            out.push(GLOBAL);
            put_number(out, self.next_queue);
            put_signed(out, self.stamp_ms);
        })?;
        for (number, segment) in &self.segments {
            frames.item(|out| {
                out.push(SEGMENT);
                put_number(out, *number);
                put_number(out, segment.epoch.into());
                for number in [segment.size, segment.live, segment.last_sequence] {
                    put_number(out, number);
                }
            })?;
        }
        for part in self.queues.into_parts() {
            for (number, queue) in &*part {
                frames.item(|out| {
                    out.push(QUEUE);
                    put_number(out, *number);
                    put_queue(out, queue);
                    if let Some(session) = queue.session.as_ref().filter(|session| !session.owner.is_empty())
                    {
                        out.push(OWNER);
                        put_number(out, *number);
                        put_bytes(out, session.owner.as_bytes());
                    }
                })?;
            }
        }
        for part in self.retained.into_parts() {
            for (topic, place) in &*part {
                frames.item(|out| {
                    out.push(RETAINED);
                    put_bytes(out, topic.as_bytes());
                    for number in [place.segment, place.offset.into(), place.message.into(), place.bytes] {
                        put_number(out, number);
                    }
                })?;
            }
        }
        Ok(())
    }
}

/// The frames of a checkpoint, one after the other: one is in memory.
struct Frames<'a> {
    file: &'a dyn DiskFile,
    salt: u64,
    offset: u64,
    sequence: u64,
    /// Room for the head, and the items so far.
    body: Vec<u8>,
}

impl Frames<'_> {
    fn item(&mut self, put: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        if self.body.is_empty() {
            self.body.resize(FRAME_HEAD, 0);
        }
        put(&mut self.body);
        if self.body.len() > FRAME_BYTES { self.finish(FrameKind::State) } else { Ok(()) }
    }

    /// Writes the frame that is being made; an end is one without items.
    fn finish(&mut self, kind: FrameKind) -> io::Result<()> {
        if kind == FrameKind::End {
            self.body.resize(FRAME_HEAD, 0);
        }
        if self.body.is_empty() {
            return Ok(());
        }
        self.sequence += 1;
        seal(&mut self.body, kind, self.sequence, 0, self.salt);
        self.file.write_at(&self.body, self.offset)?;
        self.offset += self.body.len() as u64;
        self.body.clear();
        Ok(())
    }
}

/// A file that hasn't its name yet. One that is found at a start is left of an interrupted write, and removed.
pub(crate) const TEMPORARY: &str = "new.tmp";

pub(crate) fn create_temporary(disk: &dyn Disk) -> io::Result<Arc<dyn DiskFile>> {
    match disk.remove(TEMPORARY) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    disk.create(TEMPORARY)
}

/// Reads a checkpoint: its head and the state.
pub(crate) fn read(file: &dyn DiskFile) -> Result<(FileHead, State), CheckpointError> {
    let mut head = [0; HEAD];
    let length = file.read_at(&mut head, 0)?;
    let head = FileHead::parse(head.get(..length).unwrap_or_default()).map_err(|error| match error {
        HeadError::Damaged => CheckpointError::Damaged,
        HeadError::Newer(version) => CheckpointError::Newer(version),
    })?;
    if head.kind != FileKind::Checkpoint {
        return Err(CheckpointError::Damaged);
    }
    let mut state = State::default();
    let mut scanner = Scanner::new(file, head.salt)?;
    let mut sequence = 0;
    loop {
        let Found::Frame { head: frame, body, .. } = scanner.next()? else {
            return Err(CheckpointError::Damaged);
        };
        sequence += 1;
        if frame.sequence != sequence {
            return Err(CheckpointError::Damaged);
        }
        match frame.kind {
            FrameKind::State => read_frame(&mut state, body)?,
            FrameKind::End => return Ok((head, state)),
            FrameKind::Records | FrameKind::Moved | FrameKind::Filler => {
                return Err(CheckpointError::Damaged);
            }
        }
    }
}

fn read_frame(state: &mut State, body: &[u8]) -> Result<(), Malformed> {
    let mut reader = Reader::new(body);
    while !reader.is_empty() {
        match reader.byte()? {
            GLOBAL => {
                state.next_queue = reader.number()?;
                state.stamp_ms = reader.signed()?;
            }
            SEGMENT => {
                let number = reader.number()?;
                let epoch = reader.u32()?;
                let (size, live, last_sequence) = (reader.number()?, reader.number()?, reader.number()?);
                state.segments.insert(number, Segment { epoch, size, live, last_sequence });
            }
            QUEUE => {
                let number = reader.number()?;
                let queue = read_queue(&mut reader)?;
                state.know(number, queue.key.clone());
                state.queues.insert(number, Arc::new(queue));
            }
            OWNER => {
                let number = reader.number()?;
                let owner = reader.text()?;
                let session = state.queue_mut(number).and_then(|queue| queue.session.as_mut());
                session.ok_or(Malformed)?.owner = owner.into();
            }
            RETAINED => {
                let topic = reader.text()?;
                let place = Place {
                    segment: reader.number()?,
                    offset: reader.u32()?,
                    message: reader.u32()?,
                    bytes: reader.number()?,
                };
                state.retained.insert(topic.into(), place);
            }
            _ => return Err(Malformed),
        }
    }
    Ok(())
}

fn put_queue(out: &mut Vec<u8>, queue: &Queue) {
    put_bytes(out, &queue.key);
    put_number(out, queue.next);
    put_number(out, queue.settled.len() as u64);
    for (first, last) in queue.settled.iter() {
        put_number(out, first);
        put_number(out, last);
    }
    put_number(out, queue.runs.len() as u64);
    for run in &queue.runs {
        for number in [run.first, run.last, run.segment, run.count, run.bytes] {
            put_number(out, number);
        }
    }
    out.push(queue.session.is_some().into());
    if let Some(session) = &queue.session {
        put_session(out, session);
    }
}

fn put_session(out: &mut Vec<u8>, session: &Session) {
    put_number(out, session.expiry_interval_s.into());
    out.push(session.detached_at_ms.is_some().into());
    put_signed(out, session.detached_at_ms.unwrap_or(0));
    put_bytes(out, session.will.as_deref().unwrap_or_default());
    put_number(out, session.subscriptions.len() as u64);
    for (filter, (options, identifier)) in &session.subscriptions {
        put_bytes(out, filter.as_bytes());
        out.push(*options);
        put_number(out, (*identifier).into());
    }
    put_number(out, session.received.len() as u64);
    for packet_id in &session.received {
        put_number(out, (*packet_id).into());
    }
    put_number(out, session.inflight.len() as u64);
    for (packet_id, inflight) in &session.inflight {
        put_number(out, (*packet_id).into());
        put_number(out, inflight.owner);
        put_number(out, inflight.position);
        out.push(inflight.awaits_completion.into());
    }
}

fn read_queue(reader: &mut Reader<'_>) -> Result<Queue, Malformed> {
    let mut queue = Queue::new(reader.bytes()?);
    queue.next = reader.number()?;
    for _ in 0..reader.number()? {
        queue.settled.insert(reader.number()?, reader.number()?);
    }
    for _ in 0..reader.number()? {
        queue.runs.push_back(Run {
            first: reader.number()?,
            last: reader.number()?,
            segment: reader.number()?,
            count: reader.number()?,
            bytes: reader.number()?,
        });
    }
    if reader.byte()? != 0 {
        queue.session = Some(Box::new(read_session(reader)?));
    }
    Ok(queue)
}

fn read_session(reader: &mut Reader<'_>) -> Result<Session, Malformed> {
    let mut session = Session { expiry_interval_s: reader.u32()?, ..Session::default() };
    let is_detached = reader.byte()? != 0;
    let detached_at_ms = reader.signed()?;
    session.detached_at_ms = is_detached.then_some(detached_at_ms);
    let will = reader.bytes()?;
    session.will = (!will.is_empty()).then(|| will.into());
    for _ in 0..reader.number()? {
        session.subscriptions.insert(reader.text()?.into(), (reader.byte()?, reader.u32()?));
    }
    for _ in 0..reader.number()? {
        session.received.insert(reader.u16()?);
    }
    for _ in 0..reader.number()? {
        let packet_id = reader.u16()?;
        let inflight = Inflight {
            owner: reader.number()?,
            position: reader.number()?,
            awaits_completion: reader.byte()? != 0,
        };
        session.inflight.insert(packet_id, inflight);
    }
    Ok(session)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Entry;
    use crate::fault::FaultDisk;
    use crate::format::FrameKind;
    use crate::record::{MessageRecord, QueueKey, SessionKey};
    use crate::state::FoundDebt;

    fn head() -> FileHead {
        FileHead { kind: FileKind::Checkpoint, store: 1, epoch: 2, number: 0, sequence: 77, salt: 5 }
    }

    fn state() -> State {
        let mut state = State::default();
        state.segments.insert(4, Segment { epoch: 1, size: 900, live: 0, last_sequence: 70 });
        for number in 1..3000 {
            let client_id = format!("client {number}");
            let key = QueueKey::Session(SessionKey { namespace: 1, client_id: &client_id });
            state.apply(&Entry::QueueMade { queue: number, key });
        }
        let message = MessageRecord { topic: "will", payload: b"gone", ..MessageRecord::default() };
        for entry in [
            Entry::QueueMade {
                queue: 4000,
                key: QueueKey::Group { namespace: 0, share_name: "s", filter: "f" },
            },
            Entry::SessionStarted { queue: 1, expiry_interval_s: 60 },
            Entry::SessionOwner { queue: 1, owner: "u" },
            Entry::Will { queue: 1, delay_s: 5, retain: true, message },
            Entry::SessionDetached { queue: 1, at_ms: -9 },
            Entry::Subscribed { queue: 1, filter: "a/#", options: 1, identifier: 9 },
            Entry::Received { queue: 1, packet_id: 12 },
            Entry::Sent { queue: 1, owner: 4000, position: 1, packet_id: 3 },
            Entry::AwaitsCompletion { queue: 1, packet_id: 3 },
            Entry::Stamp { at_ms: 123 },
        ] {
            state.apply(&entry);
        }
        for position in 1..6 {
            state.place(FrameKind::Records, FoundDebt { queue: 2, position }, 4, 100);
        }
        state.settle(2, 3);
        state.retain("kept", Place { segment: 4, offset: 64, message: 1, bytes: 50 });
        state
    }

    fn describe(state: &State) -> String {
        let mut queues: Vec<_> = state.queues.iter().collect();
        queues.sort_by_key(|(number, _)| **number);
        let retained: std::collections::BTreeMap<_, _> = state.retained.iter().collect();
        let names: std::collections::BTreeMap<_, _> = state.names.iter().collect();
        format!(
            "{queues:?} {retained:?} {names:?} {:?} {} {}",
            state.segments, state.next_queue, state.stamp_ms
        )
    }

    #[test]
    fn a_state_comes_back() {
        let disk = FaultDisk::default();
        let size = Snapshot::of(&state()).write(&disk, "c", head()).unwrap();
        let file = disk.open("c").unwrap();
        assert_eq!(file.size().unwrap(), size);
        let (found, state_found) = read(&*file).unwrap();
        assert_eq!(found, head());
        assert_eq!(describe(&state_found), describe(&state()));
        assert_eq!(disk.names().unwrap(), ["c"]);
        assert!(disk.power_cut(1).content("c").unwrap().len() as u64 == size, "safe at once");
    }

    #[test]
    fn a_part_or_a_damaged_one_is_refused() {
        let disk = FaultDisk::default();
        Snapshot::of(&state()).write(&disk, "c", head()).unwrap();
        let bytes = disk.content("c").unwrap();
        for length in [0, 10, HEAD, HEAD + 1, 5000, bytes.len() - FRAME_HEAD, bytes.len() - 1] {
            disk.put("c", &bytes[..length]);
            assert!(matches!(read(&*disk.open("c").unwrap()), Err(CheckpointError::Damaged)), "{length}");
        }
        for bit in (0..bytes.len() as u64 * 8).step_by(40_009) {
            disk.put("c", &bytes);
            disk.flip_bit("c", bit);
            assert!(matches!(read(&*disk.open("c").unwrap()), Err(CheckpointError::Damaged)), "{bit}");
        }
    }
}
