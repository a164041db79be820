//! Files on their way into a published directory: written under a name that is not published, then moved to their own.
//!
//! They lie in `.headwater` at the top of the published directory, so that the move is one rename within a file system, and are
//! named by a digest of their path and their size, so that what broke off can go on. Whoever writes one holds a lock on it (`flock`): the
//! kernel gives it back however the process ends, so nothing about them is kept in memory. A crash leaves a file that nobody holds, which
//! can go on or is swept; under its own name a file is whole or not there.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{AtFlags, FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::beneath;
use super::chunk::Digest;
use super::library::Library;
use super::manifest::check_path;
use super::object::Object;
use super::root::Root;
use super::threads::Threads;
use crate::time::Now;

/// One file being written. Dropped before [`Intake::finish`] it stays for whoever goes on, until it is swept, if its size was said at
/// the beginning; else it is gone.
#[derive(Debug)]
pub struct Intake {
    root: Arc<OwnedFd>,
    dir: OwnedFd,
    name: String,
    /// Where it will lie, relative to `root`.
    place: PathBuf,
    file: File,
    length: u64,
    stays: bool,
}

/// Why a file was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// Nothing can be published at this path.
    #[error("nothing can be published at {0}")]
    Place(String),
    /// Somebody else writes it.
    #[error("it is being written by another")]
    Busy,
    /// It cannot go on from there, but from here.
    #[error("it goes on at byte {0}")]
    Offset(u64),
    /// A directory has this name, or a file the name of one of its directories.
    #[error("a directory has this name, or a file that of one of its directories")]
    Taken,
    /// There is no room: on the disk, or for one more object.
    #[error("no room")]
    Full,
    /// The kernel said so.
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for IntakeError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => Self::Full,
            Some(Errno::ISDIR | Errno::NOTDIR | Errno::EXIST | Errno::NOTEMPTY) => Self::Taken,
            _ => Self::Io(error),
        }
    }
}

impl From<Errno> for IntakeError {
    fn from(error: Errno) -> Self {
        io::Error::from(error).into()
    }
}

impl Library {
    /// Begins a file of `total` bytes (if that is known) at `path` from `offset` on: 0 begins anew, else so much of it must have been
    /// written before. Blocking.
    ///
    /// # Errors
    /// See [`IntakeError`].
    pub fn receive(
        &self,
        path: &str,
        total: Option<u64>,
        offset: u64,
    ) -> Result<Intake, IntakeError> {
        let wrong = || IntakeError::Place(path.to_owned());
        let root = self.root(path).ok_or_else(wrong)?;
        let place = root.place(path).filter(|_| check_path(path).is_ok());
        let place = place.ok_or_else(wrong)?;
        if place.path.components().count() > DEPTH {
            return Err(wrong());
        }
        if self.published_at(path).is_none() && !self.has_room() {
            return Err(IntakeError::Full);
        }
        let dir = open_dir(root, true)?;
        let name = name(path, total);
        let file = claim(&dir, &name, true)?;
        let mut intake = Intake {
            root: place.root,
            dir,
            name,
            place: place.path,
            length: file.metadata()?.len(),
            file,
            stays: total.is_some(),
        };
        if offset > intake.length {
            intake.stays = intake.length > 0;
            return Err(IntakeError::Offset(intake.length));
        }
        intake.file.set_len(offset)?;
        intake.length = offset;
        if let Some(total) = total
            && let Err(full) = intake.reserve(total)
        {
            intake.stays = offset > 0;
            return Err(full);
        }
        Ok(intake)
    }

    /// Bytes of a file of `total` bytes at `path` that broke off. Blocking.
    ///
    /// # Errors
    /// See [`IntakeError`].
    pub fn received(&self, path: &str, total: u64) -> Result<u64, IntakeError> {
        let wrong = || IntakeError::Place(path.to_owned());
        let root = self.root(path).ok_or_else(wrong)?;
        let absent = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let dir = match open_dir(root, false) {
            Ok(dir) => dir,
            Err(error) if absent(&error) => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        match claim(&dir, &name(path, Some(total)), false) {
            Ok(file) => Ok(file.metadata()?.len()),
            Err(IntakeError::Io(error)) if absent(&error) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Takes the file published at `path` away; `false`: there is none. Blocking; what stands at the path changes with
    /// [`Library::refresh`].
    ///
    /// # Errors
    /// See [`IntakeError`].
    pub fn take_away(&self, path: &str) -> Result<bool, IntakeError> {
        let wrong = || IntakeError::Place(path.to_owned());
        let root = self.root(path).ok_or_else(wrong)?;
        let place = root.place(path).filter(|_| check_path(path).is_ok());
        let place = place.ok_or_else(wrong)?;
        let (parent, name) = split(&place.path);
        let gone = |error: &io::Error| {
            matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            )
        };
        let parent = match beneath::open(&place.root, parent, OFlags::DIRECTORY | OFlags::CLOEXEC) {
            Ok(parent) => parent,
            Err(error) if gone(&error) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        rustix::fs::fsync(&parent)?;
        Ok(true)
    }

    /// Brings what stands at `path` up to date with its file, now; gives the object.
    pub async fn refresh(&self, path: &str) -> Option<Arc<Object>> {
        // Somebody may have begun before the file was moved; who begins after that sees it.
        for _ in 0..2 {
            self.publish(path).cancelled().await;
        }
        self.published_at(path)
    }

    /// Removes files that nobody has written to for `age`, and at once those that nobody writes and that cannot go on; how many.
    /// Blocking.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn sweep(&self, age: Duration) -> io::Result<u64> {
        let mut swept = 0;
        let now = Now::read().unix_ms / 1000;
        let roots = self.published().into_iter().flat_map(|p| &p.roots);
        for root in roots {
            let Ok(dir) = open_dir(root, false) else {
                continue; // There is none.
            };
            for entry in rustix::fs::Dir::read_from(&dir)? {
                let entry = entry?;
                let Some(name) = entry
                    .file_name()
                    .to_str()
                    .ok()
                    .filter(|n| n.ends_with(PART))
                else {
                    continue;
                };
                let old = |stat: rustix::fs::Stat| {
                    let touched = u64::try_from(stat.st_mtime).unwrap_or(0);
                    name.ends_with(ALL) || now.saturating_sub(touched) >= age.as_secs()
                };
                // Looked at first, so that nobody who goes on with a young one finds it held.
                let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW);
                if !stat.is_ok_and(old) {
                    continue;
                }
                let Ok(file) = claim(&dir, name, false) else {
                    continue; // It is being written, or gone.
                };
                if old(rustix::fs::fstat(&file)?) {
                    rustix::fs::unlinkat(&dir, name, AtFlags::empty())?;
                    swept += 1;
                }
            }
        }
        Ok(swept)
    }

    /// Where what waits for the disk is done.
    #[must_use]
    pub fn threads(&self) -> &Threads {
        &self.reader().threads
    }
}

impl Intake {
    /// Bytes written so far.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Takes room for `total` bytes in all: that there is none is better known now than after the bytes came. Blocking.
    ///
    /// # Errors
    /// [`IntakeError::Full`]. Not every file system can tell.
    pub fn reserve(&self, total: u64) -> Result<(), IntakeError> {
        let Some(left) = total.checked_sub(self.length).filter(|left| *left > 0) else {
            return Ok(());
        };
        let flags = FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, flags, self.length, left) {
            Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Writes on. Blocking.
    ///
    /// # Errors
    /// See [`IntakeError`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), IntakeError> {
        let mut done = 0;
        while done < bytes.len() {
            match self.file.write_at(&bytes[done..], self.length) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(n) => {
                    done += n;
                    self.length += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.stays = false; // On a full disk it would only be in the way.
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    /// Hands all that was written to `take`, in order. Blocking.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn read_back(&self, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let mut buffer = vec![0; 256 << 10];
        let mut at = 0;
        while at < self.length {
            match self.file.read_at(&mut buffer, at)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => {
                    take(&buffer[..n]);
                    at += n as u64;
                }
            }
        }
        Ok(())
    }

    /// Makes it durable and moves it to its name, making its directories. Blocking; what stands at the path changes with
    /// [`Library::refresh`].
    ///
    /// # Errors
    /// See [`IntakeError`]; under its name is then what was there before.
    pub fn finish(mut self) -> Result<(), IntakeError> {
        self.stays = false;
        self.file.set_len(self.length)?; // Gives back what was reserved beyond.
        self.file.flush()?;
        self.file.sync_all()?;
        let (parent, name) = split(&self.place);
        let parent = make_dirs(&self.root, parent)?;
        rustix::fs::renameat(&self.dir, &self.name, &parent, name)?;
        self.stays = true;
        rustix::fs::fsync(&parent)?;
        Ok(())
    }

    /// Removes it. Blocking.
    pub fn discard(mut self) {
        self.stays = false;
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        if !self.stays {
            // What cannot be removed is swept.
            let _ = rustix::fs::unlinkat(&self.dir, &self.name, AtFlags::empty());
        }
    }
}

/// The directory of files on their way; made if it is to be.
fn open_dir(root: &Root, make: bool) -> io::Result<OwnedFd> {
    let top = root.top();
    if make {
        match rustix::fs::mkdirat(top, DIR, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(top, DIR, flags, Mode::empty())?)
}

/// Opens a file and takes its lock.
fn claim(dir: &OwnedFd, name: &str, make: bool) -> Result<File, IntakeError> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let flags = if make { flags | OFlags::CREATE } else { flags };
    loop {
        let file = rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o644))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(IntakeError::Busy),
            Err(error) => return Err(error.into()),
        }
        // It may have been moved or swept between the two.
        let named = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
        let own = rustix::fs::fstat(&file)?;
        match named {
            Ok(named) if (named.st_dev, named.st_ino) == (own.st_dev, own.st_ino) => {
                return Ok(File::from(file));
            }
            Ok(_) | Err(Errno::NOENT) if make => {}
            Ok(_) | Err(Errno::NOENT) => return Err(IntakeError::Busy),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Opens the directory `path` beneath `root`, making what is missing.
fn make_dirs(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    match beneath::open(root, path, flags) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    let (parent, name) = split(path);
    let parent = make_dirs(root, parent)?;
    match rustix::fs::mkdirat(parent.as_fd(), name, Mode::from_raw_mode(0o755)) {
        Ok(()) => rustix::fs::fsync(&parent)?,
        Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    beneath::open(root, path, flags)
}

/// The directory of a path, `.` for the top, and the name in it.
fn split(path: &Path) -> (&Path, &Path) {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let name = path.file_name().map_or(path, Path::new);
    (parent.unwrap_or(Path::new(".")), name)
}

fn name(path: &str, total: Option<u64>) -> String {
    let digest = Digest::of(path.as_bytes());
    match total {
        Some(total) => format!("{digest:.32}-{total}{PART}"),
        None => format!("{digest:.32}{ALL}"),
    }
}

const DIR: &str = ".headwater";

const PART: &str = ".part";

/// How the names of those end whose size nobody has said: what a crash left of one can only begin anew.
const ALL: &str = "-all.part";

/// Directories within directories, as the publisher has it.
const DEPTH: usize = 64;
