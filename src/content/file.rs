//! Where an object's bytes lie: a file, opened beneath its directory and told from others by its stamp.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{AtFlags, OFlags};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::beneath;

/// What tells one state of a file from another without reading it.
///
/// The change time is set by the kernel on every write, truncation, rename and link, and no program can set it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stamp {
    pub(super) dev: u64,
    pub(super) ino: u64,
    pub(super) size: u64,
    pub(super) modified_ns: i64,
    pub(super) changed_ns: i64,
}

/// A file beneath a directory: never above it, whatever symbolic links say.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) root: Arc<OwnedFd>,
    /// Relative to `root`.
    pub(super) path: PathBuf,
}

/// An object's file: kept open while the process may have enough files open, else opened at each read.
#[derive(Debug)]
pub(super) struct Source {
    place: Place,
    writable: bool,
    kept: Option<(Arc<File>, OwnedSemaphorePermit)>,
}

impl Stamp {
    #[expect(
        clippy::useless_conversion,
        clippy::unnecessary_cast,
        reason = "the fields of stat differ between processors"
    )]
    fn of(stat: &rustix::fs::Stat) -> Self {
        let ns = |secs: i64, nanos: i64| secs.saturating_mul(1_000_000_000).saturating_add(nanos);
        Self {
            dev: stat.st_dev.into(),
            ino: stat.st_ino.into(),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified_ns: ns(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            changed_ns: ns(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        }
    }

    /// The stamp of an open regular file; `None` for anything else.
    pub(super) fn of_file(file: impl AsFd) -> io::Result<Option<Self>> {
        let stat = rustix::fs::fstat(file)?;
        let regular = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
        Ok(regular.then(|| Self::of(&stat)))
    }

    /// Its last modification, seconds since 1970.
    pub(super) fn modified_secs(&self) -> u64 {
        u64::try_from(self.modified_ns / 1_000_000_000).unwrap_or(0)
    }

    /// When the file was last touched, nanoseconds since 1970.
    pub(super) fn touched_ns(&self) -> i64 {
        self.modified_ns.max(self.changed_ns)
    }
}

impl Place {
    /// Opens it; a pipe or device is opened without waiting (and refused by whoever looks at its kind).
    pub(super) fn open(&self, flags: OFlags) -> io::Result<File> {
        let flags = match flags.contains(OFlags::PATH) {
            true => flags, // It is not opened, and openat2 says so to whoever asks for more.
            false => flags | OFlags::NOCTTY | OFlags::NONBLOCK,
        };
        let fd = beneath::open(&self.root, &self.path, flags | OFlags::CLOEXEC)?;
        Ok(File::from(fd))
    }

    /// The stamp of whatever stands there now. It follows symbolic links anywhere: it is compared, not read.
    pub(super) fn stamp(&self) -> io::Result<Stamp> {
        let stat = rustix::fs::statat(&*self.root, &self.path, AtFlags::empty())?;
        Ok(Stamp::of(&stat))
    }
}

impl Source {
    /// `file` is `place`, open already; it is kept if a permit is left.
    pub(super) fn new(place: Place, file: File, writable: bool, permits: &Arc<Semaphore>) -> Self {
        let permit = Arc::clone(permits).try_acquire_owned().ok();
        Self {
            place,
            writable,
            kept: permit.map(|permit| (Arc::new(file), permit)),
        }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The open file, if it is kept. No system call.
    pub(super) fn kept(&self) -> Option<&File> {
        self.kept.as_ref().map(|(file, _)| &**file)
    }

    /// The open file, or a fresh opening of it. Blocking.
    pub(super) fn open(&self) -> io::Result<Arc<File>> {
        match &self.kept {
            Some((file, _)) => Ok(Arc::clone(file)),
            None if self.writable => self.place.open(OFlags::RDWR).map(Arc::new),
            None => self.place.open(OFlags::RDONLY).map(Arc::new),
        }
    }
}

/// Reads all of `buffer` at `offset`, waiting for the disk.
pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    file.read_exact_at(buffer, offset)
}

/// Reads all of `buffer` at `offset` if it is in memory; `false` if it is not, or if the file system cannot tell.
pub(super) fn read_resident(file: &File, buffer: &mut [u8], offset: u64) -> bool {
    let len = buffer.len();
    let mut parts = [io::IoSliceMut::new(buffer)];
    let flags = rustix::io::ReadWriteFlags::NOWAIT;
    matches!(rustix::io::preadv2(file, &mut parts, offset, flags), Ok(read) if read == len)
}
