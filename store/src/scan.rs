//! Reads a file frame by frame, in bounded memory, and finds the way on after damage.

use std::io;

use crate::disk::DiskFile;
use crate::format::{FRAME_HEAD, FrameHead, HEAD, find_mark, parse_frame, peek_frame};

/// Bytes that are read at once.
const CHUNK: usize = 1024 * 1024;

/// See the module.
pub(crate) struct Scanner<'a> {
    file: &'a dyn DiskFile,
    salt: u64,
    size: u64,
    /// Where the buffer begins in the file.
    start: u64,
    buffer: Vec<u8>,
    /// Where the next frame should begin in the file.
    offset: u64,
}

/// What comes next in a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// A sound frame.
    Frame {
        /// Where it begins.
        offset: u64,
        head: FrameHead,
        body: &'a [u8],
    },
    /// Bytes that are no frame, with a sound frame after them.
    Gap {
        /// Where they begin.
        from: u64,
        /// Where the frame after them begins.
        to: u64,
    },
    /// No sound frame from here on.
    End {
        /// Where the last one ends.
        offset: u64,
        /// Whether there is nothing but zeros.
        is_clean: bool,
    },
}

/// What is known of the next step before anything is borrowed.
enum Step {
    Frame,
    Gap(u64),
    End(bool),
}

impl<'a> Scanner<'a> {
    /// Begins after the head of a file.
    pub(crate) fn new(file: &'a dyn DiskFile, salt: u64) -> io::Result<Self> {
        Ok(Self { file, salt, size: file.size()?, start: 0, buffer: Vec::new(), offset: HEAD as u64 })
    }

    /// The next frame, gap or end. After the end comes the end again.
    pub(crate) fn next(&mut self) -> io::Result<Found<'_>> {
        let offset = self.offset;
        match self.step()? {
            Step::Gap(to) => {
                self.offset = to;
                Ok(Found::Gap { from: offset, to })
            }
            Step::End(is_clean) => Ok(Found::End { offset, is_clean }),
            Step::Frame => {
                let at = self.index_of(offset);
                let bytes = self.buffer.get(at..).unwrap_or_default();
                match parse_frame(bytes, self.salt) {
                    Some((head, body)) => {
                        self.offset += head.size() as u64;
                        Ok(Found::Frame { offset, head, body })
                    }
                    None => Ok(Found::End { offset, is_clean: false }),
                }
            }
        }
    }

    fn step(&mut self) -> io::Result<Step> {
        let offset = self.offset;
        if self.is_frame_at(offset)? {
            return Ok(Step::Frame);
        }
        let mut is_clean = true;
        let mut at = offset;
        while at < self.size {
            self.fill(at, CHUNK)?;
            let index = self.index_of(at);
            let bytes = self.buffer.get(index..).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            is_clean &= bytes.iter().all(|byte| *byte == 0);
            let length = bytes.len() as u64;
            match find_mark(bytes) {
                Some(found) => {
                    at += found as u64;
                    if at > offset && self.is_frame_at(at)? {
                        return Ok(Step::Gap(at));
                    }
                    at += 1;
                }
                // A mark may lie across the end of what was read.
                None if at + length < self.size => at += length.saturating_sub(3).max(1),
                None => break,
            }
        }
        Ok(Step::End(is_clean))
    }

    /// Whether a sound frame begins there; if so, it is in the buffer whole.
    fn is_frame_at(&mut self, offset: u64) -> io::Result<bool> {
        self.fill(offset, FRAME_HEAD)?;
        let at = self.index_of(offset);
        let Some(head) = peek_frame(self.buffer.get(at..).unwrap_or_default()) else { return Ok(false) };
        if offset + head.size() as u64 > self.size {
            return Ok(false);
        }
        self.fill(offset, head.size())?;
        let at = self.index_of(offset);
        Ok(parse_frame(self.buffer.get(at..).unwrap_or_default(), self.salt).is_some())
    }

    fn index_of(&self, offset: u64) -> usize {
        usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX)
    }

    /// Sees to it that `length` bytes from `offset` on are in the buffer, as far as the file has them.
    fn fill(&mut self, offset: u64, length: usize) -> io::Result<()> {
        let end = (offset + length as u64).min(self.size);
        if offset >= self.start && end <= self.start + self.buffer.len() as u64 {
            return Ok(());
        }
        let rest = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = length.max(CHUNK).min(rest);
        self.buffer.resize(wanted, 0);
        self.buffer.shrink_to(wanted);
        let read = self.file.read_at(&mut self.buffer, offset)?;
        self.buffer.truncate(read);
        self.start = offset;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;
    use crate::fault::FaultDisk;
    use crate::format::{FrameKind, seal};

    const SALT: u64 = 99;

    fn frame(sequence: u64, body: usize) -> Vec<u8> {
        let mut frame = vec![0; FRAME_HEAD + body];
        seal(&mut frame, FrameKind::Records, sequence, 1, SALT);
        frame
    }

    fn scan(bytes: &[u8]) -> Vec<String> {
        let disk = FaultDisk::default();
        disk.put("f", bytes);
        let file = disk.open("f").unwrap();
        let mut scanner = Scanner::new(&*file, SALT).unwrap();
        let mut found = Vec::new();
        loop {
            match scanner.next().unwrap() {
                Found::Frame { offset, head, body } => {
                    found.push(format!("{}@{offset}+{}", head.sequence, body.len()));
                }
                Found::Gap { from, to } => found.push(format!("gap {from}..{to}")),
                Found::End { offset, is_clean } => {
                    found.push(format!("end {offset} {}", if is_clean { "clean" } else { "torn" }));
                    return found;
                }
            }
        }
    }

    #[test]
    fn frames_gaps_and_ends_are_told_apart() {
        let head = [7; HEAD];
        let three = [&head[..], &frame(1, 100), &frame(2, 3), &frame(3, 0)].concat();
        assert_eq!(scan(&three), ["1@64+100", "2@196+3", "3@231+0", "end 263 clean"]);
        let padded = [&three[..], &[0; 5000]].concat();
        assert_eq!(scan(&padded)[3], "end 263 clean");
        let mut flipped = padded.clone();
        flipped[150] ^= 1;
        assert_eq!(scan(&flipped), ["gap 64..196", "2@196+3", "3@231+0", "end 263 clean"]);
        // A length that points behind the end.
        flipped[68 + 2] = 0xff;
        assert_eq!(scan(&flipped)[0], "gap 64..196");
        let mut last = padded.clone();
        last[240] ^= 1;
        assert_eq!(scan(&last)[2], "end 231 torn");
        assert_eq!(scan(&three[..250]), ["1@64+100", "2@196+3", "end 231 torn"]);
        assert_eq!(scan(&head), ["end 64 clean"]);
        assert_eq!(scan(&[]), ["end 64 clean"]);
    }

    #[test]
    fn frames_longer_than_what_is_read_at_once_are_found_after_damage_too() {
        let head = [7; HEAD];
        let long = frame(2, 3 * CHUNK);
        let mut bytes = [&head[..], &frame(1, CHUNK - 50), &long, &frame(3, 5)].concat();
        let second = HEAD + FRAME_HEAD + CHUNK - 50;
        let third = second + long.len();
        assert_eq!(scan(&bytes).len(), 4);
        bytes[100] ^= 4;
        assert_eq!(scan(&bytes)[..2], [format!("gap 64..{second}"), format!("2@{second}+{}", 3 * CHUNK)]);
        bytes[second + 2 * CHUNK] ^= 4;
        assert_eq!(scan(&bytes)[0], format!("gap 64..{third}"));
    }

    #[test]
    fn a_frame_inside_a_payload_is_not_taken_for_one() {
        let mut forged = frame(9, 10);
        seal(&mut forged, FrameKind::Records, 9, 1, SALT + 1);
        let mut outer = vec![0; FRAME_HEAD];
        outer.extend_from_slice(&forged);
        seal(&mut outer, FrameKind::Records, 1, 1, SALT);
        let mut bytes = [&[7; HEAD][..], &outer, &frame(2, 0)].concat();
        bytes[HEAD + 9] ^= 1;
        assert_eq!(scan(&bytes)[1], format!("2@{}+0", HEAD + outer.len()));
    }
}
