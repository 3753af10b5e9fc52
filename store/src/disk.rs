//! The little that the store asks of a disk: one flat folder of files.
//!
//! Everything goes through [`Disk`] and [`DiskFile`], so that a test can stand between the store and the disk and lose
//! what wasn't synced ([`crate::FaultDisk`]). The traits promise what POSIX promises and no more: a write is safe after
//! [`DiskFile::sync`], a name after [`Disk::sync_names`], and nothing before.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A flat folder of files that one process owns.
pub trait Disk: Send + Sync + 'static {
    /// Names of all files, in no order.
    ///
    /// # Errors
    /// What the system says.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Makes a new file, for reading and writing.
    ///
    /// # Errors
    /// `AlreadyExists`, or what the system says.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file, for reading and writing.
    ///
    /// # Errors
    /// `NotFound`, or what the system says.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Renames a file, over another one if there is one of that name.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Who has it open can still read it.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes names safe: files made, renamed and removed so far.
    ///
    /// # Errors
    /// What the system says.
    fn sync_names(&self) -> io::Result<()>;

    /// Bytes that may still be written before the disk is full.
    ///
    /// # Errors
    /// What the system says.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// One open file.
pub trait DiskFile: Send + Sync {
    /// Bytes in the file.
    ///
    /// # Errors
    /// What the system says.
    fn size(&self) -> io::Result<u64>;

    /// Reads from `offset` until `buffer` is full or the file ends; returns how much was read.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// What the system says; then any part may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Reserves blocks up to `size` and makes the file that long; the new part reads as zeros.
    ///
    /// # Errors
    /// `StorageFull`, or what the system says.
    fn allocate(&self, size: u64) -> io::Result<()>;

    /// Cuts the file to `size`.
    ///
    /// # Errors
    /// What the system says.
    fn truncate(&self, size: u64) -> io::Result<()>;

    /// Makes everything written so far safe.
    ///
    /// # Errors
    /// What the system says; then it is unknown what is safe, and asking again doesn't tell.
    fn sync(&self) -> io::Result<()>;
}

/// A folder of the file system, locked against a second process for as long as this value lives.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Kept open for its lock and for syncing names.
    lock: File,
}

/// What a disk can't read is looked for in pieces of so many bytes.
const PAGE: usize = 4096;

/// Name of the file that is locked. It is never written to.
const LOCK: &str = "lock";

impl Folder {
    /// Opens a folder, making it if it isn't there.
    ///
    /// # Errors
    /// `WouldBlock` when another process has it; else what the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let lock = File::options().create(true).truncate(false).write(true).open(path.join(LOCK))?;
        lock.try_lock()?;
        Ok(Self { path: path.to_owned(), lock })
    }
}

impl Disk for Folder {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
                && name != LOCK
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = File::options().create_new(true).read(true).write(true).open(self.path.join(name))?;
        Ok(Arc::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(File::options().read(true).write(true).open(self.path.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let room = rustix::fs::fstatvfs(&self.lock)?;
        Ok(room.f_bavail.saturating_mul(room.f_frsize))
    }
}

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        read_around(buffer, offset, |buffer, offset| read_full(self, buffer, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        match rustix::fs::fallocate(self, rustix::fs::FallocateFlags::empty(), 0, size) {
            Ok(()) => Ok(()),
            // A file system that can't reserve grows the file as it is written.
            Err(rustix::io::Errno::OPNOTSUPP) => self.set_len(size),
            Err(error) => Err(error.into()),
        }
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match FileExt::read_at(file, rest, offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Reads around places that the disk can't give back: they count as zeros, which no checksum lets pass, as long as the front
/// of the file can be read. A disk that gives nothing at all is another matter, and an error.
pub(crate) fn read_around(
    buffer: &mut [u8],
    offset: u64,
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<usize> {
    let error = match read(buffer, offset) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => error,
        done => return done,
    };
    if read(&mut [0; 1], 0).is_err() {
        return Err(error);
    }
    let (mut done, mut found) = (0, 0);
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let at = offset + done as u64;
        // Whole pages of the file, as the disk has them.
        let length = PAGE - usize::try_from(at % PAGE as u64).unwrap_or(0);
        let length = length.min(rest.len());
        let Some(page) = rest.get_mut(..length) else { break };
        match read(page, at) {
            Ok(count) => {
                found += count;
                done += count;
                if count < length {
                    break;
                }
            }
            Err(_) => {
                page.fill(0);
                done += length;
            }
        }
    }
    tracing::error!(%error, offset, missing = done - found, "the disk can't read a part of a file");
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_open_once() {
        let folder = tempfile::tempdir().unwrap();
        let first = Folder::open(folder.path()).unwrap();
        assert_eq!(Folder::open(folder.path()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        Folder::open(folder.path()).unwrap();
    }

    #[test]
    fn files_read_back_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Folder::open(folder.path()).unwrap();
        let file = disk.create("a").unwrap();
        file.allocate(10_000).unwrap();
        file.write_at(b"tide", 9_000).unwrap();
        file.sync().unwrap();
        disk.sync_names().unwrap();
        assert_eq!(disk.create("a").err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(file.size().unwrap(), 10_000);
        let mut buffer = [1; 2000];
        assert_eq!(file.read_at(&mut buffer, 8_998).unwrap(), 1002);
        assert_eq!(buffer[..6], *b"\0\0tide");
        file.truncate(9_002).unwrap();
        disk.rename("a", "b").unwrap();
        assert_eq!(disk.names().unwrap(), ["b"]);
        assert_eq!(disk.open("b").unwrap().read_at(&mut buffer, 9_000).unwrap(), 2);
        assert_eq!(disk.open("a").err().unwrap().kind(), io::ErrorKind::NotFound);
        assert!(disk.free_bytes().unwrap() > 0);
        disk.remove("b").unwrap();
        assert!(disk.names().unwrap().is_empty());
    }
}
