//! Where in a segment the debts of each queue are.
//!
//! While a segment is written its directory is in memory; once it is full the directory goes into a file beside it, sorted,
//! and is searched there. It holds nothing that the segment doesn't say: a directory that is missing or damaged is made
//! again by reading the segment.
//!
//! The file is blocks of [`BLOCK`] bytes after the head: a checksum, a count, then entries of queue, place and offset.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::bytes::{Malformed, Reader};
use crate::disk::DiskFile;
use crate::format::{FileHead, FileKind, HEAD};
use crate::state::FoundDebt;

/// Bytes of a block.
const BLOCK: usize = 4096;

/// Bytes of an entry.
const ENTRY: usize = 20;

/// Entries in a block.
const PER_BLOCK: usize = (BLOCK - 8) / ENTRY;

/// Debts that a segment holds at most: what bounds the directory in memory, at 16 bytes each.
pub(crate) const DEBTS_MAX: usize = 512 * 1024;

/// A directory that is being made.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    /// Places and offsets by queue, in the order of places.
    queues: HashMap<u64, Vec<(u64, u32)>, RandomState>,
}

impl Directory {
    pub(crate) fn push(&mut self, debt: FoundDebt, offset: u32) {
        let places = self.queues.entry(debt.queue).or_default();
        // Only debts that were moved here come out of turn.
        if places.last().is_some_and(|(last, _)| *last > debt.position) {
            let at = places.partition_point(|(position, _)| *position < debt.position);
            places.insert(at, (debt.position, offset));
        } else {
            places.push((debt.position, offset));
        }
    }

    /// Up to `max` debts of a queue with places from `first` to `last`, in order.
    pub(crate) fn look_up(&self, queue: u64, first: u64, last: u64, max: usize) -> Vec<(u64, u32)> {
        let places = self.queues.get(&queue).map(Vec::as_slice).unwrap_or_default();
        let from = places.partition_point(|(position, _)| *position < first);
        let found = places.get(from..).unwrap_or_default().iter();
        found.take_while(|(position, _)| *position <= last).take(max).copied().collect()
    }

    /// The blocks of its file.
    pub(crate) fn to_blocks(&self, salt: u64) -> Vec<u8> {
        let mut queues: Vec<_> = self.queues.iter().collect();
        queues.sort_unstable_by_key(|(queue, _)| **queue);
        let entries: Vec<_> = queues
            .into_iter()
            .flat_map(|(queue, places)| {
                places
                    .iter()
                    .map(|(position, offset)| (FoundDebt { queue: *queue, position: *position }, *offset))
            })
            .collect();
        let mut out = Vec::with_capacity(entries.len().div_ceil(PER_BLOCK) * BLOCK);
        for entries in entries.chunks(PER_BLOCK) {
            let mut block = Vec::with_capacity(BLOCK);
            block.extend_from_slice(&[0; 4]);
            block.extend_from_slice(&u32::try_from(entries.len()).unwrap_or(0).to_le_bytes());
            for (debt, offset) in entries {
                block.extend_from_slice(&debt.queue.to_le_bytes());
                block.extend_from_slice(&debt.position.to_le_bytes());
                block.extend_from_slice(&offset.to_le_bytes());
            }
            block.resize(BLOCK, 0);
            let crc = checksum(&block, salt);
            if let Some(place) = block.get_mut(..4) {
                place.copy_from_slice(&crc.to_le_bytes());
            }
            out.extend_from_slice(&block);
        }
        out
    }
}

fn checksum(block: &[u8], salt: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), block.get(4..).unwrap_or_default())
}

/// How many blocks so many bytes are.
pub(crate) fn blocks_in(bytes: usize) -> u64 {
    (bytes / BLOCK) as u64
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Malformed)
}

/// A directory in its file.
#[derive(Clone)]
pub(crate) struct DirectoryFile {
    file: Arc<dyn DiskFile>,
    salt: u64,
    blocks: u64,
}

impl DirectoryFile {
    /// Opens the directory of a segment; an error when it isn't whole or another one's.
    pub(crate) fn open(file: Arc<dyn DiskFile>, number: u64) -> io::Result<Self> {
        let mut head = [0; HEAD];
        let length = file.read_at(&mut head, 0)?;
        let head = FileHead::parse(head.get(..length).unwrap_or_default()).map_err(|_| damaged())?;
        let blocks = blocks_in(usize::try_from(file.size()?).unwrap_or(usize::MAX).saturating_sub(HEAD));
        if head.kind != FileKind::Directory || head.number != number || head.sequence != blocks {
            return Err(damaged());
        }
        Ok(Self { file, salt: head.salt, blocks })
    }

    /// The same as [`Directory::look_up`]; an error when what was looked at is damaged.
    pub(crate) fn look_up(
        &self,
        queue: u64,
        first: u64,
        last: u64,
        max: usize,
    ) -> io::Result<Vec<(u64, u32)>> {
        let wanted = FoundDebt { queue, position: first };
        // The first block that ends at the wanted debt or after it.
        let (mut low, mut high) = (0, self.blocks);
        while low < high {
            let middle = low + (high - low) / 2;
            let ends_before = self.block(middle)?.last().is_none_or(|(debt, _)| *debt < wanted);
            if ends_before {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let mut found = Vec::new();
        for block in low..self.blocks {
            for (debt, offset) in self.block(block)? {
                if debt < wanted {
                    continue;
                }
                if debt.queue != queue || debt.position > last || found.len() >= max {
                    return Ok(found);
                }
                found.push((debt.position, offset));
            }
        }
        Ok(found)
    }

    fn block(&self, number: u64) -> io::Result<Vec<(FoundDebt, u32)>> {
        let mut block = [0; BLOCK];
        let read = self.file.read_at(&mut block, HEAD as u64 + number * BLOCK as u64)?;
        let parse = || {
            let mut reader = Reader::new(block.get(..read).ok_or(Malformed)?);
            if reader.fixed_u32()? != checksum(&block, self.salt) {
                return Err(Malformed);
            }
            let count = reader.fixed_u32()?;
            let mut entries = Vec::with_capacity((count as usize).min(PER_BLOCK));
            for _ in 0..count {
                let debt = FoundDebt { queue: reader.fixed_u64()?, position: reader.fixed_u64()? };
                entries.push((debt, reader.fixed_u32()?));
            }
            Ok(entries)
        };
        parse().map_err(|_| damaged())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;
    use crate::fault::FaultDisk;

    const NAME: &str = "000000000003.dir";

    fn directory() -> Directory {
        let mut directory = Directory::default();
        for number in 1..=1000u32 {
            for queue in [1, 5, 9] {
                let position = u64::from(number) * 2;
                directory.push(FoundDebt { queue, position }, number * 100);
            }
        }
        directory
    }

    fn file(directory: &Directory) -> (FaultDisk, DirectoryFile) {
        let disk = FaultDisk::default();
        crate::recovery::write_directory(&disk, 1, 3, directory).unwrap();
        let file = DirectoryFile::open(disk.open(NAME).unwrap(), 3).unwrap();
        (disk, file)
    }

    #[test]
    fn the_file_finds_what_the_memory_finds() {
        let directory = directory();
        let (_disk, file) = file(&directory);
        for queue in [0, 1, 2, 5, 9, 10] {
            for first in [0, 1, 2, 3, 407, 408, 409, 1999, 2000, 2001] {
                for (last, max) in [(u64::MAX, 3), (1000, 10_000), (first, 1)] {
                    let expected = directory.look_up(queue, first, last, max);
                    assert_eq!(file.look_up(queue, first, last, max).unwrap(), expected);
                }
            }
        }
        assert_eq!(directory.look_up(5, 3, 8, 10), [(4, 200), (6, 300), (8, 400)]);
        assert!(directory.look_up(4, 0, u64::MAX, 10).is_empty());
    }

    #[test]
    fn debts_that_come_out_of_turn_are_in_order() {
        let mut directory = Directory::default();
        for number in [5, 9, 2, 7u32] {
            directory.push(FoundDebt { queue: 1, position: number.into() }, number);
        }
        assert_eq!(directory.look_up(1, 1, 8, 9), [(2, 2), (5, 5), (7, 7)]);
    }

    #[test]
    fn damage_is_an_error_and_nothing_is_read_from_it() {
        let (disk, file) = file(&directory());
        disk.flip_bit(NAME, (HEAD as u64 + 300) * 8);
        assert_eq!(file.look_up(1, 0, 10, 1).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(file.look_up(9, 1900, 2000, 1).is_ok(), "another block");
        let bytes = disk.content(NAME).unwrap();
        for length in [0, 10, HEAD, bytes.len() - BLOCK, bytes.len() - 1] {
            disk.put(NAME, &bytes[..length]);
            assert!(DirectoryFile::open(disk.open(NAME).unwrap(), 3).is_err(), "{length}");
        }
        disk.put(NAME, &bytes);
        assert!(DirectoryFile::open(disk.open(NAME).unwrap(), 4).is_err(), "another segment's");
        let (_disk, empty) = self::file(&Directory::default());
        assert!(empty.look_up(1, 0, 10, 1).unwrap().is_empty());
    }
}
