//! What every file begins with, and the frame that everything in a file is in. docs/store-format.md has the layouts.
//!
//! The checksum of a frame also covers the file's *salt*, eight random bytes that stand in the file's head and are never
//! seen outside. So the payload of a message can't be mistaken for a frame when a damaged file is searched for the next
//! whole one, whatever a publisher puts there, and neither can what another file left on the disk's blocks.

use crate::bytes::{Malformed, Reader};

/// The version that this program writes, and the newest that it reads. Version 1 had no queues of wills; version 2 no
/// owners of sessions and no authors.
pub(crate) const VERSION: u16 = 3;

/// Every file of the store begins with this.
pub(crate) const MAGIC: [u8; 8] = *b"TIDELOG\n";

/// Bytes of a file's head.
pub(crate) const HEAD: usize = 64;

/// A frame begins with this. It only makes the search for one quick.
const MARK: [u8; 4] = *b"tgF1";

/// Bytes of a frame before its body.
pub(crate) const FRAME_HEAD: usize = 32;

/// The longest body, in bytes: one message of the largest packet there is, and its debts.
pub(crate) const BODY_MAX: usize = 512 * 1024 * 1024;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum FileKind {
    Log = 1,
    Checkpoint = 2,
    Directory = 3,
    Identity = 4,
}

/// The head of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileHead {
    pub(crate) kind: FileKind,
    pub(crate) store: u64,
    pub(crate) epoch: u32,
    /// The segment's number; of a checkpoint 0.
    pub(crate) number: u64,
    /// Of a log the first frame's sequence, of a checkpoint the sequence that it covers, of a directory its blocks.
    pub(crate) sequence: u64,
    pub(crate) salt: u64,
}

/// Why a file's head wasn't accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadError {
    /// Too short, another magic, a wrong checksum, a kind that doesn't exist.
    Damaged,
    /// Whole, and from a newer program.
    Newer(u16),
}

impl FileHead {
    pub(crate) fn to_bytes(self) -> [u8; HEAD] {
        let mut bytes = Vec::with_capacity(HEAD);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(self.kind as u16).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.store.to_le_bytes());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        bytes.extend_from_slice(&self.salt.to_le_bytes());
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.resize(HEAD, 0);
        let crc = head_checksum(&bytes);
        let mut head = [0; HEAD];
        head.copy_from_slice(&bytes);
        if let Some(place) = head.get_mut(12..16) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
        head
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, HeadError> {
        let bytes = bytes.get(..HEAD).ok_or(HeadError::Damaged)?;
        let mut reader = Reader::new(bytes);
        let mut read = || {
            let magic = reader.fixed::<8>()?;
            let version = reader.fixed_u16()?;
            let kind = reader.fixed_u16()?;
            let crc = reader.fixed_u32()?;
            let store = reader.fixed_u64()?;
            let number = reader.fixed_u64()?;
            let sequence = reader.fixed_u64()?;
            let salt = reader.fixed_u64()?;
            let epoch = reader.fixed_u32()?;
            Ok::<_, Malformed>((magic, version, kind, crc, store, number, sequence, salt, epoch))
        };
        let (magic, version, kind, crc, store, number, sequence, salt, epoch) =
            read().map_err(|_| HeadError::Damaged)?;
        if magic != MAGIC || crc != head_checksum(bytes) {
            return Err(HeadError::Damaged);
        }
        if version > VERSION {
            return Err(HeadError::Newer(version));
        }
        let kind = match kind {
            1 => FileKind::Log,
            2 => FileKind::Checkpoint,
            3 => FileKind::Directory,
            4 => FileKind::Identity,
            _ => return Err(HeadError::Damaged),
        };
        Ok(Self { kind, store, epoch, number, sequence, salt })
    }
}

fn head_checksum(bytes: &[u8]) -> u32 {
    let crc = crc32c::crc32c(bytes.get(..12).unwrap_or_default());
    crc32c::crc32c_append(crc, bytes.get(16..HEAD).unwrap_or_default())
}

/// What is in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FrameKind {
    /// The records of one append.
    Records = 1,
    /// Debts that were moved here from an older segment.
    Moved = 2,
    /// A part of a checkpoint.
    State = 3,
    /// The end of a checkpoint: without it the file isn't whole.
    End = 4,
    /// Stands where damaged frames were cut out of a file, with the sequence of the last of them.
    Filler = 5,
}

impl FrameKind {
    fn parse(byte: u8) -> Option<Self> {
        [Self::Records, Self::Moved, Self::State, Self::End, Self::Filler]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub(crate) kind: FrameKind,
    pub(crate) sequence: u64,
    /// How many frames before and with this one weren't known to be safe when it was written. What is older was safe: if
    /// it is missing, it isn't the end of an interrupted write but damage.
    pub(crate) unsynced: u32,
    pub(crate) body: u32,
}

impl FrameHead {
    /// Bytes of the whole frame.
    pub(crate) fn size(&self) -> usize {
        FRAME_HEAD + self.body as usize
    }

    /// The newest sequence that was safe when this frame was written.
    pub(crate) fn safe_before(&self) -> u64 {
        self.sequence.saturating_sub(u64::from(self.unsynced))
    }
}

/// Writes the head of a frame into the [`FRAME_HEAD`] bytes that were left free for it before its body.
pub(crate) fn seal(frame: &mut [u8], kind: FrameKind, sequence: u64, unsynced: u32, salt: u64) {
    let Some(body) = frame.len().checked_sub(FRAME_HEAD) else { return };
    let body = u32::try_from(body).unwrap_or(u32::MAX);
    let mut head = [0; FRAME_HEAD];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        if let Some(place) = head.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
        at += bytes.len();
    };
    put(&MARK);
    put(&body.to_le_bytes());
    put(&[0; 4]);
    put(&[kind as u8, 0, 0, 0]);
    put(&sequence.to_le_bytes());
    put(&unsynced.to_le_bytes());
    put(&[0; 4]);
    if let Some(place) = frame.get_mut(..FRAME_HEAD) {
        place.copy_from_slice(&head);
    }
    let crc = frame_checksum(frame, salt);
    if let Some(place) = frame.get_mut(8..12) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}

fn frame_checksum(frame: &[u8], salt: u64) -> u32 {
    let crc = crc32c::crc32c(&salt.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, frame.get(..8).unwrap_or_default());
    crc32c::crc32c_append(crc, frame.get(12..).unwrap_or_default())
}

/// Reads the head of a frame without its checksum: `None` when there can't be one here.
pub(crate) fn peek_frame(bytes: &[u8]) -> Option<FrameHead> {
    let mut reader = Reader::new(bytes.get(..FRAME_HEAD)?);
    let mut read = || {
        let mark = reader.fixed::<4>()?;
        let body = reader.fixed_u32()?;
        reader.fixed_u32()?;
        let [kind, ..] = reader.fixed::<4>()?;
        let sequence = reader.fixed_u64()?;
        let unsynced = reader.fixed_u32()?;
        Ok::<_, Malformed>((mark, body, kind, sequence, unsynced))
    };
    let (mark, body, kind, sequence, unsynced) = read().ok()?;
    let kind = FrameKind::parse(kind)?;
    (mark == MARK && body as usize <= BODY_MAX).then_some(FrameHead { kind, sequence, unsynced, body })
}

/// Reads the frame at the front of `bytes`, checksum and all; `None` when it isn't whole and sound.
pub(crate) fn parse_frame(bytes: &[u8], salt: u64) -> Option<(FrameHead, &[u8])> {
    let head = peek_frame(bytes)?;
    let frame = bytes.get(..head.size())?;
    let crc = Reader::new(frame.get(8..12)?).fixed_u32().ok()?;
    if crc != frame_checksum(frame, salt) {
        return None;
    }
    Some((head, frame.get(FRAME_HEAD..)?))
}

/// Where the next mark of a frame is in `bytes`.
pub(crate) fn find_mark(bytes: &[u8]) -> Option<usize> {
    bytes.windows(MARK.len()).position(|window| window == MARK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> FileHead {
        FileHead { kind: FileKind::Log, store: 7, epoch: 3, number: 9, sequence: 1000, salt: 0x5a17 }
    }

    fn frame(body: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; FRAME_HEAD];
        frame.extend_from_slice(body);
        seal(&mut frame, FrameKind::Records, 42, 3, 0x5a17);
        frame
    }

    #[test]
    fn any_changed_bit_of_a_file_head_is_noticed() {
        let bytes = head().to_bytes();
        assert_eq!(FileHead::parse(&bytes), Ok(head()));
        for bit in 0..HEAD * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FileHead::parse(&changed), Err(HeadError::Damaged), "bit {bit}");
        }
        assert_eq!(FileHead::parse(&bytes[..HEAD - 1]), Err(HeadError::Damaged));
    }

    #[test]
    fn a_newer_version_is_not_damage() {
        let mut bytes = head().to_bytes();
        bytes[8..10].copy_from_slice(&(VERSION + 1).to_le_bytes());
        let crc = head_checksum(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(FileHead::parse(&bytes), Err(HeadError::Newer(VERSION + 1)));
    }

    #[test]
    fn any_changed_bit_of_a_frame_is_noticed() {
        let bytes = frame(b"tide");
        let (head, body) = parse_frame(&bytes, 0x5a17).unwrap();
        assert_eq!((head.sequence, head.safe_before(), body), (42, 39, &b"tide"[..]));
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse_frame(&changed, 0x5a17), None, "bit {bit}");
        }
        assert_eq!(parse_frame(&bytes, 0x5a18), None, "another file's frame");
        assert_eq!(parse_frame(&bytes[..bytes.len() - 1], 0x5a17), None);
        assert_eq!(find_mark(&[&b"tgFtg"[..], &bytes].concat()), Some(5));
    }
}
