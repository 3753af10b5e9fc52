//! A disk for tests: nothing is safe before it is synced, and things go wrong on cue.
//!
//! [`FaultDisk`] keeps the whole folder in process memory, twice: as the process sees it, and as it would be found after a
//! power cut. [`FaultDisk::power_cut`] gives the second one, with some of the writes that were on their way applied, whole
//! or torn at a sector, as a seed decides. The old value goes on as a disk that nobody reads any more. Besides that it
//! fills up, fails a sync, flips bits.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::disk::{Disk, DiskFile, read_around};

/// A write is torn at multiples of this, counted from the start of the file, in bytes.
const SECTOR: usize = 512;

/// See the module.
#[derive(Debug, Clone)]
pub struct FaultDisk {
    shared: Arc<Mutex<Shared>>,
    /// Every sync goes through it.
    gate: Arc<Mutex<()>>,
}

#[derive(Debug)]
struct Shared {
    /// What the process sees.
    names: BTreeMap<String, Content>,
    /// What is safe of the names.
    safe_names: BTreeMap<String, Content>,
    /// Changes of names that aren't safe yet, in order.
    changes: Vec<Change>,
    capacity: u64,
    syncs_until_failure: Option<u64>,
    syncs: u64,
    written: u64,
}

type Content = Arc<Mutex<FileContent>>;

#[derive(Debug, Default)]
struct FileContent {
    seen: Vec<u8>,
    safe: Vec<u8>,
    /// Writes since the last sync, in order; a cut of the file is a write too.
    unsynced: Vec<Write>,
    /// Bytes that count against the capacity.
    allocated: u64,
    /// Where reading fails.
    unreadable: Vec<Range<usize>>,
}

#[derive(Debug, Clone)]
enum Write {
    Bytes { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Debug, Clone)]
enum Change {
    Name(String, Content),
    Remove(String),
    Rename(String, String),
}

impl Default for FaultDisk {
    fn default() -> Self {
        Self {
            shared: Arc::new(Mutex::new(Shared {
                names: BTreeMap::new(),
                safe_names: BTreeMap::new(),
                changes: Vec::new(),
                capacity: u64::MAX,
                syncs_until_failure: None,
                syncs: 0,
                written: 0,
            })),
            gate: Arc::default(),
        }
    }
}

impl FaultDisk {
    /// What is found after the power was cut now. Each unsynced write is there, is torn or is missing, as `seed` decides.
    #[must_use]
    pub fn power_cut(&self, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let shared = self.shared.lock();
        let mut names = shared.safe_names.clone();
        let kept = random.usize(..=shared.changes.len());
        for change in shared.changes.iter().take(kept) {
            apply(&mut names, change);
        }
        let names: BTreeMap<_, _> = names
            .into_iter()
            .map(|(name, content)| {
                let content = content.lock();
                let mut found = content.safe.clone();
                for write in &content.unsynced {
                    tear(write, &mut found, &mut random);
                }
                let allocated = content.allocated;
                let unreadable = content.unreadable.clone();
                let content = FileContent {
                    seen: found.clone(),
                    safe: found,
                    unsynced: Vec::new(),
                    allocated,
                    unreadable,
                };
                (name, Arc::new(Mutex::new(content)))
            })
            .collect();
        let after = Self::default();
        {
            let mut after = after.shared.lock();
            after.safe_names.clone_from(&names);
            after.names = names;
            after.capacity = shared.capacity;
        }
        after
    }

    /// Sets how many bytes all files together may have.
    pub fn set_capacity(&self, bytes: u64) {
        self.shared.lock().capacity = bytes;
    }

    /// Lets the sync after this many more fail; what it should have made safe never is.
    pub fn fail_sync_after(&self, syncs: u64) {
        self.shared.lock().syncs_until_failure = Some(syncs);
    }

    /// No sync comes back for as long as the guard is there, as on a disk that hangs.
    pub fn hold_syncs(&self) -> MutexGuard<'_, ()> {
        self.gate.lock()
    }

    /// Syncs of files so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.shared.lock().syncs
    }

    /// Bytes written so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.shared.lock().written
    }

    /// A file's bytes as the process sees them.
    #[must_use]
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let shared = self.shared.lock();
        shared.names.get(name).map(|content| content.lock().seen.clone())
    }

    /// Puts a file there, whole and safe, over one that is there.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let content = FileContent {
            seen: bytes.to_vec(),
            safe: bytes.to_vec(),
            unsynced: Vec::new(),
            allocated: bytes.len() as u64,
            unreadable: Vec::new(),
        };
        let content = Arc::new(Mutex::new(content));
        let mut shared = self.shared.lock();
        shared.names.insert(name.to_owned(), Arc::clone(&content));
        shared.safe_names.insert(name.to_owned(), content);
    }

    /// Lets every read of these bytes of a file fail, as it does where a disk has a bad sector.
    pub fn make_unreadable(&self, name: &str, bytes: Range<usize>) {
        if let Some(content) = self.shared.lock().names.get(name) {
            content.lock().unreadable.push(bytes);
        }
    }

    /// Changes one bit of a file, on the disk and in what is seen.
    pub fn flip_bit(&self, name: &str, bit: u64) {
        let shared = self.shared.lock();
        let Some(content) = shared.names.get(name) else { return };
        let mut content = content.lock();
        let byte = usize::try_from(bit / 8).unwrap_or(usize::MAX);
        let FileContent { seen, safe, .. } = &mut *content;
        for bytes in [seen, safe] {
            if let Some(byte) = bytes.get_mut(byte) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }
}

fn apply(names: &mut BTreeMap<String, Content>, change: &Change) {
    match change {
        Change::Name(name, content) => {
            names.insert(name.clone(), Arc::clone(content));
        }
        Change::Remove(name) => {
            names.remove(name);
        }
        Change::Rename(from, to) => {
            if let Some(content) = names.remove(from) {
                names.insert(to.clone(), content);
            }
        }
    }
}

/// Applies a write, each sector of it or none, or all or nothing.
fn tear(write: &Write, found: &mut Vec<u8>, random: &mut fastrand::Rng) {
    match write {
        Write::Length(length) => {
            if random.bool() {
                found.resize(*length, 0);
            }
        }
        Write::Bytes { offset, bytes } => {
            let fate = random.u8(..4);
            let mut done = 0;
            while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
                let at = offset + done;
                let length = (SECTOR - at % SECTOR).min(rest.len());
                let arrives = match fate {
                    0 => false,
                    1 => true,
                    _ => random.bool(),
                };
                if arrives && let Some(sector) = rest.get(..length) {
                    put_at(found, at, sector);
                }
                done += length;
            }
        }
    }
}

fn put_at(bytes: &mut Vec<u8>, offset: usize, new: &[u8]) {
    if bytes.len() < offset + new.len() {
        bytes.resize(offset + new.len(), 0);
    }
    if let Some(place) = bytes.get_mut(offset..offset + new.len()) {
        place.copy_from_slice(new);
    }
}

fn full() -> io::Error {
    io::Error::from(io::ErrorKind::StorageFull)
}

fn missing() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl Shared {
    fn used(&self) -> u64 {
        self.names.values().map(|content| content.lock().allocated).sum()
    }
}

impl Disk for FaultDisk {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.shared.lock().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut shared = self.shared.lock();
        if shared.names.contains_key(name) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        let content = Content::default();
        shared.names.insert(name.to_owned(), Arc::clone(&content));
        shared.changes.push(Change::Name(name.to_owned(), Arc::clone(&content)));
        Ok(Arc::new(FaultFile { shared: Arc::clone(&self.shared), gate: Arc::clone(&self.gate), content }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let content = self.shared.lock().names.get(name).cloned().ok_or_else(missing)?;
        Ok(Arc::new(FaultFile { shared: Arc::clone(&self.shared), gate: Arc::clone(&self.gate), content }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut shared = self.shared.lock();
        if !shared.names.contains_key(from) {
            return Err(missing());
        }
        let change = Change::Rename(from.to_owned(), to.to_owned());
        apply(&mut shared.names, &change);
        shared.changes.push(change);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut shared = self.shared.lock();
        shared.names.remove(name).ok_or_else(missing)?;
        shared.changes.push(Change::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut shared = self.shared.lock();
        for change in std::mem::take(&mut shared.changes) {
            apply(&mut shared.safe_names, &change);
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let shared = self.shared.lock();
        Ok(shared.capacity.saturating_sub(shared.used()))
    }
}

struct FaultFile {
    shared: Arc<Mutex<Shared>>,
    gate: Arc<Mutex<()>>,
    content: Content,
}

impl FaultFile {
    fn read_once(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = self.content.lock();
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let found = content.seen.get(offset..).unwrap_or_default();
        let length = found.len().min(buffer.len());
        let wanted = offset..offset.saturating_add(length);
        if content.unreadable.iter().any(|bad| bad.start < wanted.end && wanted.start < bad.end) {
            return Err(rustix::io::Errno::IO.into());
        }
        if let (Some(to), Some(from)) = (buffer.get_mut(..length), found.get(..length)) {
            to.copy_from_slice(from);
        }
        Ok(length)
    }

    /// Takes the room for a file of `size` bytes, or says that there is none.
    fn take_room(&self, size: u64) -> io::Result<()> {
        let shared = self.shared.lock();
        let used = shared.used();
        let mut content = self.content.lock();
        let more = size.saturating_sub(content.allocated);
        if more > 0 && used + more > shared.capacity {
            return Err(full());
        }
        content.allocated += more;
        Ok(())
    }
}

impl DiskFile for FaultFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.content.lock().seen.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        read_around(buffer, offset, |buffer, offset| self.read_once(buffer, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.take_room(offset + bytes.len() as u64)?;
        self.shared.lock().written += bytes.len() as u64;
        let mut content = self.content.lock();
        let offset = usize::try_from(offset).map_err(|_| full())?;
        put_at(&mut content.seen, offset, bytes);
        content.unsynced.push(Write::Bytes { offset, bytes: bytes.to_vec() });
        Ok(())
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        self.take_room(size)?;
        let mut content = self.content.lock();
        let size = usize::try_from(size).map_err(|_| full())?;
        if content.seen.len() < size {
            content.seen.resize(size, 0);
            content.unsynced.push(Write::Length(size));
        }
        Ok(())
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        let mut content = self.content.lock();
        content.allocated = content.allocated.min(size);
        let size = usize::try_from(size).map_err(|_| full())?;
        content.seen.resize(size, 0);
        content.unsynced.push(Write::Length(size));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let _passed = self.gate.lock();
        let mut shared = self.shared.lock();
        shared.syncs += 1;
        if let Some(left) = &mut shared.syncs_until_failure {
            if *left == 0 {
                // As Linux does: the pages count as clean from here on, and the next sync would succeed.
                shared.syncs_until_failure = None;
                self.content.lock().unsynced.clear();
                return Err(io::Error::other("the disk failed to sync"));
            }
            *left -= 1;
        }
        let mut content = self.content.lock();
        let FileContent { seen, safe, unsynced, .. } = &mut *content;
        for write in unsynced.drain(..) {
            match write {
                Write::Bytes { offset, bytes } => put_at(safe, offset, &bytes),
                Write::Length(length) => safe.resize(length, 0),
            }
        }
        debug_assert!(seen.len() >= safe.len());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_synced_is_sure_to_survive() {
        let disk = FaultDisk::default();
        let file = disk.create("a").unwrap();
        file.write_at(&[1; 2000], 0).unwrap();
        file.sync().unwrap();
        disk.sync_names().unwrap();
        file.write_at(&[2; 2000], 1000).unwrap();
        disk.create("b").unwrap();
        let (mut old, mut new, mut torn, mut names) = (0, 0, 0, 0);
        for seed in 0..100 {
            let after = disk.power_cut(seed);
            let found = after.content("a").unwrap();
            assert_eq!(found[..1000], [1; 1000], "what was synced and not written since");
            match found.iter().filter(|byte| **byte == 2).count() {
                0 => old += 1,
                2000 => new += 1,
                _ => torn += 1,
            }
            names += usize::from(after.content("b").is_some());
        }
        assert!(old > 10 && new > 10 && torn > 10, "{old} {new} {torn}");
        assert!((20..80).contains(&names), "{names}");
    }

    #[test]
    fn a_failed_sync_loses_what_it_should_have_saved() {
        let disk = FaultDisk::default();
        let file = disk.create("a").unwrap();
        disk.sync_names().unwrap();
        disk.fail_sync_after(1);
        file.write_at(b"one", 0).unwrap();
        file.sync().unwrap();
        file.write_at(b"two", 3).unwrap();
        file.sync().unwrap_err();
        file.sync().unwrap();
        assert_eq!(disk.content("a").unwrap(), b"onetwo");
        assert_eq!(disk.power_cut(1).content("a").unwrap(), b"one");
    }

    #[test]
    fn the_capacity_is_one_for_all_files() {
        let disk = FaultDisk::default();
        disk.set_capacity(1000);
        let first = disk.create("a").unwrap();
        first.allocate(600).unwrap();
        let second = disk.create("b").unwrap();
        second.write_at(&[0; 400], 0).unwrap();
        assert_eq!(second.write_at(&[0; 1], 400).unwrap_err().kind(), io::ErrorKind::StorageFull);
        first.write_at(&[0; 600], 0).unwrap();
        first.truncate(100).unwrap();
        second.write_at(&[0; 1], 400).unwrap();
        assert_eq!(disk.free_bytes().unwrap(), 499);
    }
}
