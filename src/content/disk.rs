//! The store's file operations, all in one place, so that a test can make any one of them fail.
//!
//! A [`Disk`] without [`Faults`] is the operating system and nothing else: one branch per operation. Reads that do
//! not wait (`file::read_resident`) go by: what they do not give is read here.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use super::file::Place;

/// Where files are. A cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    faults: Option<Arc<dyn Faults>>,
}

/// A kind of file operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// A directory is made.
    MakeDirectory,
    /// A directory is listed.
    List,
    /// A file is made.
    Create,
    /// A file is opened.
    Open,
    /// A file is given its size.
    Allocate,
    /// Bytes are read.
    Read,
    /// Bytes are written.
    Write,
    /// A file or directory is made durable.
    Sync,
    /// A file or directory gets another name.
    Rename,
    /// A file or directory with all in it is removed.
    Remove,
}

/// What makes operations fail (tests).
pub trait Faults: std::fmt::Debug + Send + Sync {
    /// Called before each operation; what it gives happens instead.
    ///
    /// # Errors
    /// The operation's.
    fn before(&self, operation: Operation) -> Result<(), Fault>;
}

/// How an operation fails.
#[derive(Debug)]
pub struct Fault {
    /// What its caller is told.
    pub error: io::Error,
    /// The first half of a write, and one file of a directory that is removed, are done nevertheless.
    pub half: bool,
}

impl Disk {
    /// A disk on which operations fail as `faults` says.
    #[must_use]
    pub fn with_faults(faults: Arc<dyn Faults>) -> Self {
        Self {
            faults: Some(faults),
        }
    }

    fn step(&self, operation: Operation) -> Result<(), Fault> {
        match &self.faults {
            None => Ok(()),
            Some(faults) => faults.before(operation),
        }
    }

    fn simple(&self, operation: Operation) -> io::Result<()> {
        self.step(operation).map_err(|fault| fault.error)
    }

    pub(super) fn make_directories(&self, path: &Path) -> io::Result<()> {
        self.simple(Operation::MakeDirectory)?;
        fs::create_dir_all(path)
    }

    pub(super) fn make_directory(&self, path: &Path) -> io::Result<()> {
        self.simple(Operation::MakeDirectory)?;
        fs::create_dir(path)
    }

    /// What is in a directory, in no order.
    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.simple(Operation::List)?;
        let entries = fs::read_dir(path)?;
        entries.map(|entry| Ok(entry?.path())).collect()
    }

    /// A new file, to read and write.
    pub(super) fn create(&self, path: &Path) -> io::Result<File> {
        self.simple(Operation::Create)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o640);
        options.open(path)
    }

    pub(super) fn open(&self, place: &Place, flags: OFlags) -> io::Result<File> {
        self.simple(Operation::Open)?;
        place.open(flags)
    }

    /// Gives the file its size and the disk's promise for it, where the file system can promise.
    pub(super) fn allocate(&self, file: &File, size: u64) -> io::Result<()> {
        self.simple(Operation::Allocate)?;
        if size == 0 {
            return Ok(());
        }
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(size),
            Err(e) => Err(e.into()),
        }
    }

    /// Reads all of `buffer` at `offset`, waiting for the disk.
    pub(super) fn read_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.simple(Operation::Read)?;
        file.read_exact_at(buffer, offset)
    }

    /// All bytes of a file.
    pub(super) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.simple(Operation::Read)?;
        fs::read(path)
    }

    pub(super) fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Err(fault) = self.step(Operation::Write) {
            if fault.half {
                file.write_all_at(&bytes[..bytes.len() / 2], offset)?;
            }
            return Err(fault.error);
        }
        file.write_all_at(bytes, offset)
    }

    /// Puts `bytes` at `path` at once: written beside it, then renamed. Not made durable.
    pub(super) fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(TEMPORARY);
        let temporary = PathBuf::from(temporary);
        self.simple(Operation::Create)?;
        let file = File::create(&temporary)?;
        self.write_at(&file, bytes, 0)?;
        self.rename(&temporary, path)
    }

    /// Makes a file's bytes and size durable.
    pub(super) fn sync(&self, file: impl AsFd) -> io::Result<()> {
        self.simple(Operation::Sync)?;
        Ok(rustix::fs::fsync(file)?)
    }

    /// Makes a file's bytes durable.
    pub(super) fn sync_data(&self, file: impl AsFd) -> io::Result<()> {
        self.simple(Operation::Sync)?;
        Ok(rustix::fs::fdatasync(file)?)
    }

    /// Makes the names in a directory durable.
    pub(super) fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.sync(File::open(path)?)
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.simple(Operation::Rename)?;
        fs::rename(from, to)
    }

    /// Removes a file, or a directory with all that is in it.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        if let Err(fault) = self.step(Operation::Remove) {
            if fault.half
                && let Ok(mut entries) = fs::read_dir(path)
                && let Some(Ok(first)) = entries.next()
            {
                fs::remove_file(first.path())?;
            }
            return Err(fault.error);
        }
        match fs::symlink_metadata(path)?.is_dir() {
            true => fs::remove_dir_all(path),
            false => fs::remove_file(path),
        }
    }
}

/// What the name of a file that is being written ends with.
const TEMPORARY: &str = ".new";
