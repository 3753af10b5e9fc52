//! Real files whose unsynced part is in the memory of this process alone, so that `kill -9` does what a power cut does.
//!
//! A killed process leaves everything it has written to the system, synced or not: killing one shows little about syncs that
//! are missing or come too late. [`PowerCutFolder`] stands before a [`Folder`] and hands a write on only at
//! [`DiskFile::sync`], a name only at [`Disk::sync_names`]. A new file has a name of its own making until then
//! (`unnamed.1`), so it can be synced and still be lost.
//!
//! Disks aren't that orderly, and a store must not come to rely on it. As a seed decides, a write or a part of it is handed
//! on at once, and so are the names so far; a sync hands a write on in pieces, out of order and with a pause somewhere, so
//! that a kill may tear it; files that nobody syncs are written back when others are. What it doesn't do is wait for the
//! disk: what the system has survives the kill.
//!
//! It is for tests: only a build with the feature `power-cut` has it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, Folder};

/// A write is torn at multiples of this, counted from the start of the file, in bytes.
const SECTOR: u64 = 512;

/// Pieces that a sync hands a write on in, at most.
const PIECES: u64 = 16;

/// What a sync takes at most, so that kills fall into it.
const SYNC_MAX: Duration = Duration::from_micros(1500);

/// One in so many writes, and one in so many names, is handed on before it is synced.
const EARLY: u32 = 8;

/// How the files are called that have no name yet.
const UNNAMED: &str = "unnamed.";

/// See the module.
#[derive(Debug)]
pub struct PowerCutFolder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    folder: Folder,
    path: PathBuf,
    names: Mutex<Names>,
    random: Mutex<fastrand::Rng>,
}

#[derive(Debug)]
struct Names {
    /// What the process sees; `None`: a file that hasn't been opened since it was last clean.
    seen: BTreeMap<String, Option<Arc<Inode>>>,
    /// Changes that aren't in the folder yet, in order.
    changes: Vec<Change>,
    /// Files made so far.
    made: u64,
}

#[derive(Debug)]
enum Change {
    /// The file of this number gets its first name.
    Name(u64, String),
    Rename(String, String),
    Remove(String),
}

#[derive(Debug)]
struct Inode {
    file: File,
    content: Mutex<Content>,
}

#[derive(Debug)]
struct Content {
    /// As the process sees it, in bytes.
    length: u64,
    /// What the file doesn't have yet, in order.
    unsynced: Vec<Write>,
}

#[derive(Debug)]
enum Write {
    Bytes { offset: u64, bytes: Vec<u8> },
    Allocate(u64),
    Truncate(u64),
}

struct PowerCutFile {
    shared: Arc<Shared>,
    inode: Arc<Inode>,
}

impl PowerCutFolder {
    /// Opens a folder as [`Folder::open`] does; `seed` decides what is handed on early and in which order.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn open(path: &Path, seed: u64) -> io::Result<Self> {
        let folder = Folder::open(path)?;
        let mut seen = BTreeMap::new();
        for name in folder.names()? {
            if name.starts_with(UNNAMED) {
                folder.remove(&name)?;
            } else {
                seen.insert(name, None);
            }
        }
        Ok(Self {
            shared: Arc::new(Shared {
                folder,
                path: path.to_owned(),
                names: Mutex::new(Names { seen, changes: Vec::new(), made: 0 }),
                random: Mutex::new(fastrand::Rng::with_seed(seed)),
            }),
        })
    }
}

impl Shared {
    fn happens(&self, one_in: u32) -> bool {
        self.random.lock().u32(..one_in) == 0
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a disk takes its time, and nobody here awaits an event of it"
    )]
    fn pause(&self) {
        let longest = u64::try_from(SYNC_MAX.as_micros()).unwrap_or(u64::MAX);
        let pause = Duration::from_micros(self.random.lock().u64(..longest));
        std::thread::sleep(pause);
    }

    /// Hands on the changes of names so far.
    fn hand_on_names(&self, names: &mut Names) -> io::Result<()> {
        for change in std::mem::take(&mut names.changes) {
            match change {
                Change::Name(number, name) => self.folder.rename(&format!("{UNNAMED}{number}"), &name)?,
                Change::Rename(from, to) => self.folder.rename(&from, &to)?,
                Change::Remove(name) => self.folder.remove(&name)?,
            }
        }
        // Who isn't open and has nothing to lose needs no descriptor.
        for slot in names.seen.values_mut() {
            if slot.as_ref().is_some_and(|inode| Arc::strong_count(inode) == 1 && inode.is_clean()) {
                *slot = None;
            }
        }
        Ok(())
    }

    /// Notes a change of names, and hands it on with those before it at times.
    fn change(&self, names: &mut Names, change: Change) -> io::Result<()> {
        names.changes.push(change);
        if self.happens(EARLY) { self.hand_on_names(names) } else { Ok(()) }
    }

    /// The file of a name. A file that isn't open yet has the same name in the folder.
    fn inode(&self, names: &mut Names, name: &str) -> io::Result<Arc<Inode>> {
        let slot = names.seen.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        if let Some(inode) = slot {
            return Ok(Arc::clone(inode));
        }
        let file = File::options().read(true).write(true).open(self.path.join(name))?;
        let inode = Arc::new(Inode::new(file)?);
        *slot = Some(Arc::clone(&inode));
        Ok(inode)
    }

    /// Hands all writes of a file on, each in pieces and out of order.
    fn hand_on(&self, inode: &Inode) -> io::Result<()> {
        let mut content = inode.content.lock();
        for write in &content.unsynced {
            let Write::Bytes { offset, bytes } = write else {
                write.hand_on(&inode.file)?;
                continue;
            };
            let mut pieces = pieces(*offset, bytes.len() as u64);
            self.random.lock().shuffle(&mut pieces);
            let pause_at = self.random.lock().usize(..pieces.len().max(1));
            for (index, (from, to)) in pieces.into_iter().enumerate() {
                if index == pause_at {
                    self.pause();
                }
                hand_on_part(&inode.file, *offset, bytes, from, to)?;
            }
        }
        content.unsynced.clear();
        Ok(())
    }

    /// Writes back a file that is nobody's concern at the moment, as systems do after a while.
    fn write_back_another(&self) -> io::Result<()> {
        let dirty: Vec<_> = {
            let names = self.names.lock();
            names.seen.values().flatten().filter(|inode| !inode.is_clean()).cloned().collect()
        };
        let Some(inode) = self.random.lock().choice(&dirty).cloned() else { return Ok(()) };
        self.hand_on(&inode)
    }
}

/// Cuts a write into pieces of whole sectors: from where to where in the file.
fn pieces(offset: u64, length: u64) -> Vec<(u64, u64)> {
    let end = offset + length;
    let step = (length / PIECES / SECTOR + 1) * SECTOR;
    let mut pieces = Vec::new();
    let mut from = offset;
    while from < end {
        let to = ((from / SECTOR * SECTOR) + step).min(end);
        pieces.push((from, to));
        from = to;
    }
    pieces
}

fn hand_on_part(file: &File, offset: u64, bytes: &[u8], from: u64, to: u64) -> io::Result<()> {
    let index = |at: u64| usize::try_from(at - offset).unwrap_or(usize::MAX);
    let part = bytes.get(index(from)..index(to)).unwrap_or_default();
    DiskFile::write_at(file, part, from)
}

impl Inode {
    fn new(file: File) -> io::Result<Self> {
        let length = DiskFile::size(&file)?;
        Ok(Self { file, content: Mutex::new(Content { length, unsynced: Vec::new() }) })
    }

    fn is_clean(&self) -> bool {
        self.content.lock().unsynced.is_empty()
    }
}

impl Write {
    fn hand_on(&self, file: &File) -> io::Result<()> {
        match self {
            Self::Bytes { offset, bytes } => DiskFile::write_at(file, bytes, *offset),
            Self::Allocate(size) => DiskFile::allocate(file, *size),
            Self::Truncate(size) => DiskFile::truncate(file, *size),
        }
    }

    /// Puts what it changes of the part of the file from `start` on into `buffer`.
    fn show(&self, buffer: &mut [u8], start: u64) {
        let index = |at: u64| usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX);
        match self {
            Self::Bytes { offset, bytes } => {
                let skipped = usize::try_from(start.saturating_sub(*offset)).unwrap_or(usize::MAX);
                let from = bytes.get(skipped..).unwrap_or_default();
                let to = buffer.get_mut(index(*offset)..).unwrap_or_default();
                let length = from.len().min(to.len());
                if let (Some(to), Some(from)) = (to.get_mut(..length), from.get(..length)) {
                    to.copy_from_slice(from);
                }
            }
            Self::Truncate(size) => {
                if let Some(gone) = buffer.get_mut(index(*size)..) {
                    gone.fill(0);
                }
            }
            Self::Allocate(_) => {}
        }
    }
}

impl Disk for PowerCutFolder {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.shared.names.lock().seen.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let shared = &self.shared;
        let mut names = shared.names.lock();
        if names.seen.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        names.made += 1;
        let number = names.made;
        let path = shared.path.join(format!("{UNNAMED}{number}"));
        let file = File::options().create_new(true).read(true).write(true).open(path)?;
        let inode = Arc::new(Inode::new(file)?);
        names.seen.insert(name.to_owned(), Some(Arc::clone(&inode)));
        shared.change(&mut names, Change::Name(number, name.to_owned()))?;
        Ok(Arc::new(PowerCutFile { shared: Arc::clone(shared), inode }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let shared = &self.shared;
        let inode = shared.inode(&mut shared.names.lock(), name)?;
        Ok(Arc::new(PowerCutFile { shared: Arc::clone(shared), inode }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut names = self.shared.names.lock();
        // From here on its name in the folder is another one.
        let inode = self.shared.inode(&mut names, from)?;
        names.seen.remove(from);
        names.seen.insert(to.to_owned(), Some(inode));
        self.shared.change(&mut names, Change::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut names = self.shared.names.lock();
        names.seen.remove(name).ok_or(io::ErrorKind::NotFound)?;
        self.shared.change(&mut names, Change::Remove(name.to_owned()))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.shared.pause();
        self.shared.hand_on_names(&mut self.shared.names.lock())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.shared.folder.free_bytes()
    }
}

impl PowerCutFile {
    fn push(&self, write: Write, length: impl FnOnce(u64) -> u64) -> io::Result<()> {
        let mut content = self.inode.content.lock();
        content.length = length(content.length);
        if self.shared.happens(EARLY) {
            let is_whole = self.shared.happens(2);
            if let Write::Bytes { offset, bytes } = &write {
                for (from, to) in pieces(*offset, bytes.len() as u64) {
                    if is_whole || self.shared.happens(2) {
                        hand_on_part(&self.inode.file, *offset, bytes, from, to)?;
                    }
                }
            } else {
                write.hand_on(&self.inode.file)?;
            }
        }
        // It stays in any case: what comes before it is still to be handed on.
        content.unsynced.push(write);
        Ok(())
    }
}

impl DiskFile for PowerCutFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.inode.content.lock().length)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = self.inode.content.lock();
        let rest = usize::try_from(content.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = rest.min(buffer.len());
        let Some(found) = buffer.get_mut(..length) else { return Ok(0) };
        let there = DiskFile::read_at(&self.inode.file, found, offset)?;
        if let Some(missing) = found.get_mut(there..) {
            missing.fill(0);
        }
        for write in &content.unsynced {
            write.show(found, offset);
        }
        Ok(length)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset + bytes.len() as u64;
        self.push(Write::Bytes { offset, bytes: bytes.to_vec() }, |length| length.max(end))
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        self.push(Write::Allocate(size), |length| length.max(size))
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.push(Write::Truncate(size), |_| size)
    }

    fn sync(&self) -> io::Result<()> {
        self.shared.hand_on(&self.inode)?;
        if self.shared.happens(EARLY) { self.shared.write_back_another() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(disk: &PowerCutFolder, name: &str) -> Vec<u8> {
        let file = disk.open(name).unwrap();
        let mut bytes = vec![9; 20_000];
        let length = file.read_at(&mut bytes, 0).unwrap();
        assert_eq!(length as u64, file.size().unwrap());
        bytes.truncate(length);
        bytes
    }

    /// Does the same with many seeds, cuts the power, and looks at what is found after it.
    fn cut_after(work: impl Fn(&PowerCutFolder), mut look: impl FnMut(&PowerCutFolder)) {
        for seed in 0..200 {
            let folder = tempfile::tempdir().unwrap();
            let disk = PowerCutFolder::open(folder.path(), seed).unwrap();
            work(&disk);
            drop(disk);
            look(&PowerCutFolder::open(folder.path(), seed).unwrap());
        }
    }

    fn make(disk: &PowerCutFolder, name: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
        let file = disk.create(name).unwrap();
        file.write_at(bytes, 0).unwrap();
        file.sync().unwrap();
        file
    }

    #[test]
    fn what_is_synced_survives_whole() {
        let work = |disk: &PowerCutFolder| {
            let file = make(disk, "a", &[1; 5000]);
            file.write_at(&[2; 5000], 2500).unwrap();
            file.truncate(6000).unwrap();
            file.write_at(&[3; 10], 5995).unwrap();
            file.sync().unwrap();
            make(disk, "b", b"b");
            make(disk, "c", b"c");
            disk.rename("a", "d").unwrap();
            disk.remove("b").unwrap();
            disk.rename("c", "b").unwrap();
            disk.sync_names().unwrap();
        };
        let expected = [&[1; 2500][..], &[2; 3495], &[3; 10]].concat();
        cut_after(work, |after| {
            assert_eq!(after.names().unwrap(), ["b", "d"]);
            assert_eq!(content(after, "b"), b"c");
            assert!(content(after, "d") == expected);
        });
    }

    #[test]
    fn a_write_that_is_not_synced_is_lost_torn_or_there() {
        let work = |disk: &PowerCutFolder| {
            let file = make(disk, "a", &[1; 4096]);
            disk.sync_names().unwrap();
            file.write_at(&[2; 4096], 0).unwrap();
        };
        let (mut lost, mut torn, mut there) = (0, 0, 0);
        cut_after(work, |after| {
            let found = content(after, "a");
            assert_eq!(found.len(), 4096);
            for sector in found.chunks(512) {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "torn at sectors only");
            }
            match found.iter().filter(|byte| **byte == 2).count() {
                0 => lost += 1,
                4096 => there += 1,
                _ => torn += 1,
            }
        });
        assert!(lost > 100 && torn > 3 && there > 3, "{lost} lost, {torn} torn, {there} there");
    }

    #[test]
    fn a_name_that_is_not_synced_is_lost_or_there_and_names_keep_their_order() {
        let work = |disk: &PowerCutFolder| {
            make(disk, "a", b"a");
            disk.sync_names().unwrap();
            make(disk, "new", b"new");
            disk.rename("new", "b").unwrap();
            disk.remove("a").unwrap();
        };
        let mut found = BTreeMap::new();
        cut_after(work, |after| {
            let names = after.names().unwrap();
            for name in names.iter().filter(|name| *name != "a") {
                assert_eq!(content(after, name), b"new", "it was synced");
            }
            *found.entry(names.join(" ")).or_insert(0) += 1;
        });
        let all: Vec<_> = found.keys().map(String::as_str).collect();
        assert_eq!(all, ["a", "a b", "a new", "b"], "each of them and nothing else: {found:?}");
        assert!(found["a"] > 100, "{found:?}");
    }

    #[test]
    fn pieces_are_whole_sectors_and_leave_nothing_out() {
        for (offset, length) in [(0, 0), (0, 1), (511, 2), (64, 100_000), (4096, 512 * 16), (100, 1 << 20)] {
            let pieces = pieces(offset, length);
            assert!(pieces.len() as u64 <= PIECES + 1, "{offset} {length}");
            let mut at = offset;
            for (from, to) in pieces {
                assert_eq!(from, at);
                assert!(to == offset + length || to % SECTOR == 0);
                at = to;
            }
            assert_eq!(at, offset + length);
        }
    }

    #[test]
    fn the_process_sees_what_it_has_written() {
        let folder = tempfile::tempdir().unwrap();
        let disk = PowerCutFolder::open(folder.path(), 3).unwrap();
        let file = disk.create("a").unwrap();
        file.allocate(10_000).unwrap();
        file.write_at(b"tide", 9_000).unwrap();
        file.write_at(b"ebb", 9_003).unwrap();
        assert_eq!(content(&disk, "a")[8_999..9_007], *b"\0tidebb\0");
        file.truncate(9_002).unwrap();
        file.allocate(9_010).unwrap();
        assert_eq!(content(&disk, "a")[8_999..], *b"\0ti\0\0\0\0\0\0\0\0");
        disk.rename("a", "b").unwrap();
        file.sync().unwrap();
        assert_eq!(content(&disk, "b")[8_999..], *b"\0ti\0\0\0\0\0\0\0\0");
        let mut two = [0; 2];
        assert_eq!(file.read_at(&mut two, 9_001).unwrap(), 2);
        assert_eq!(two, *b"i\0");
        assert_eq!(disk.create("b").err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(disk.open("a").err().unwrap().kind(), io::ErrorKind::NotFound);
        assert_eq!(disk.names().unwrap(), ["b"]);
        disk.remove("b").unwrap();
        assert!(disk.names().unwrap().is_empty());
        assert_eq!(file.read_at(&mut two, 9_001).unwrap(), 2, "who has it open can read it");
    }
}
