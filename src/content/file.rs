//! Where an object's bytes lie: a file, opened beneath its directory and told from others by its stamp.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use rustix::fs::{AtFlags, OFlags};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::beneath;
use super::disk::Disk;

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

/// An object's file: opened at the first read, and kept open while the process may have enough files open.
#[derive(Debug)]
pub(super) struct Source {
    place: Place,
    /// Where it lies since its object was removed.
    moved: ArcSwapOption<Place>,
    writable: bool,
    kept: OnceLock<(Arc<File>, OwnedSemaphorePermit)>,
    permits: Arc<Semaphore>,
    disk: Disk,
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
    /// The file at `place`, not opened yet. It will be kept open if one of `permits` is left.
    pub(super) fn new(place: Place, writable: bool, permits: &Arc<Semaphore>, disk: &Disk) -> Self {
        Self {
            place,
            moved: ArcSwapOption::empty(),
            writable,
            kept: OnceLock::new(),
            permits: Arc::clone(permits),
            disk: disk.clone(),
        }
    }

    /// `file` is `place`, open already.
    pub(super) fn opened(self, file: File) -> Self {
        self.keep(&Arc::new(file));
        self
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The open file, if it is kept. No system call.
    pub(super) fn kept(&self) -> Option<&File> {
        self.kept.get().map(|(file, _)| &**file)
    }

    /// The open file, or a fresh opening of it. Blocking.
    pub(super) fn open(&self) -> io::Result<Arc<File>> {
        if let Some((file, _)) = self.kept.get() {
            return Ok(Arc::clone(file));
        }
        let flags = match self.writable {
            true => OFlags::RDWR,
            false => OFlags::RDONLY,
        };
        let opened = match (self.disk.open(&self.place, flags), &*self.moved.load()) {
            (Err(e), Some(moved)) if e.kind() == io::ErrorKind::NotFound => {
                self.disk.open(moved, flags)
            }
            (opened, _) => opened,
        };
        let file = Arc::new(opened?);
        self.keep(&file);
        Ok(file)
    }

    /// The file will be at `place` in a moment, or stay where it is.
    pub(super) fn moves(&self, place: Place) {
        self.moved.store(Some(Arc::new(place)));
    }

    /// Keeps the file open if it may.
    fn keep(&self, file: &Arc<File>) {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            // If another reader was faster, this one's permit goes back.
            drop(self.kept.set((Arc::clone(file), permit)));
        }
    }
}

/// Reads all of `buffer` at `offset` if it is in memory; `false` if it is not, or if the file system cannot tell.
pub(crate) fn read_resident(file: &File, buffer: &mut [u8], offset: u64) -> bool {
    let len = buffer.len();
    let mut parts = [io::IoSliceMut::new(buffer)];
    let flags = rustix::io::ReadWriteFlags::NOWAIT;
    matches!(rustix::io::preadv2(file, &mut parts, offset, flags), Ok(read) if read == len)
}
