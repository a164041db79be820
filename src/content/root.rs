//! A published directory: its files looked at, listed, digested.
//!
//! Everything is opened beneath the directory (`openat2` with `RESOLVE_BENEATH`): symbolic links work inside it and
//! lead nowhere else. Names that begin with a dot are not published (half-written files of rsync and editors, `.git`),
//! but for `.well-known` (RFC 8615).

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FileType, Mode, OFlags};
use sha2::Digest as _;

use super::PublishConfig;
use super::chunk::{Digest, Layout};
use super::file::{Place, Stamp};
use super::manifest::Manifest;
use super::media::media_type;
use super::name;
use super::object::Digested;
use super::reader::Reader;
use super::seal::{BLOCK, Seals};
use crate::time::Now;

/// One published directory.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) config: PublishConfig,
    fd: Arc<OwnedFd>,
}

/// What stands at a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Look {
    File(Stamp),
    Directory,
    None,
}

/// One entry of a directory.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) name: String,
    pub(super) look: Look,
    /// It is a symbolic link.
    pub(super) link: bool,
}

impl Root {
    pub(super) fn open(config: PublishConfig) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&config.dir, flags, Mode::empty())?;
        Ok(Self {
            config,
            fd: Arc::new(fd),
        })
    }

    /// The directory itself.
    pub(super) fn top(&self) -> &OwnedFd {
        &self.fd
    }

    /// Where a URL path would lie; `None` if it is not beneath this prefix or not published.
    pub(super) fn place(&self, path: &str) -> Option<Place> {
        let inner = path.strip_prefix(&self.config.prefix)?;
        if inner.contains('\0') || !inner.trim_end_matches('/').split('/').all(is_published) {
            return None;
        }
        let path = match inner.trim_end_matches('/') {
            "" => PathBuf::from("."),
            inner => PathBuf::from(file_name(inner)),
        };
        Some(Place {
            root: Arc::clone(&self.fd),
            path,
        })
    }

    /// The URL path of a file of this directory, given by its place in the file system.
    pub(super) fn path_of(&self, file: &Path) -> Option<String> {
        let inner = file.strip_prefix(&self.config.dir).ok()?;
        let inner = name::from_bytes(inner.as_os_str().as_bytes());
        Some(format!("{}{inner}", self.config.prefix))
    }

    /// What stands at a URL path. Blocking.
    pub(super) fn look(&self, path: &str) -> Look {
        match self.place(path) {
            Some(place) => look(&place),
            None => Look::None,
        }
    }

    /// The published entries of the directory at a URL path with its final `/`, at most `most`. Blocking.
    pub(super) fn items(&self, path: &str, most: usize) -> io::Result<Vec<Item>> {
        let place = self.place(path).ok_or(io::ErrorKind::NotFound)?;
        let dir = place.open(OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut items = Vec::new();
        for entry in rustix::fs::Dir::read_from(&dir)? {
            let entry = entry?;
            let bytes = entry.file_name().to_bytes();
            let name = name::from_bytes(bytes);
            if !is_published(&name) || items.len() == most {
                continue;
            }
            items.push(Item {
                look: look(&Place {
                    root: Arc::clone(&place.root),
                    path: place.path.join(OsStr::from_bytes(bytes)),
                }),
                link: entry.file_type() == FileType::Symlink,
                name: name.into_owned(),
            });
        }
        Ok(items)
    }

    /// Reads the file at a URL path and makes its manifest; `None` if no regular file is there. Blocking.
    ///
    /// # Errors
    /// What the kernel said; `Interrupted` when `stop` was set; `WouldBlock` when the file keeps changing.
    pub(super) fn digest(
        &self,
        path: &str,
        chunk: u32,
        reader: &Reader,
        stop: &AtomicBool,
    ) -> io::Result<Option<(Digested, Place, File)>> {
        let place = self.place(path).ok_or(io::ErrorKind::NotFound)?;
        for _ in 0..TRIES {
            let Some((file, stamp)) = open_regular(&place)? else {
                return Ok(None);
            };
            if let Some(digested) = digest(path, &file, stamp, chunk, reader, stop)? {
                return Ok(Some((digested, place, file)));
            }
        }
        Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            "the file keeps changing while it is read",
        ))
    }
}

/// Opens a regular file and takes its stamp; `None` if nothing or something else is there.
pub(super) fn open_regular(place: &Place) -> io::Result<Option<(File, Stamp)>> {
    let file = match place.open(OFlags::RDONLY) {
        Ok(file) => file,
        Err(e) if is_absent(&e) => return Ok(None),
        Err(e) => return Err(e),
    };
    Ok(Stamp::of_file(&file)?.map(|stamp| (file, stamp)))
}

/// One pass over the file: BLAKE3 and seals of each chunk, SHA-256 of all. `None` if it changed meanwhile.
fn digest(
    path: &str,
    mut file: &File,
    stamp: Stamp,
    chunk: u32,
    reader: &Reader,
    stop: &AtomicBool,
) -> io::Result<Option<Digested>> {
    let layout = Layout {
        size: stamp.size,
        chunk,
    };
    let mut whole = sha2::Sha256::new();
    let mut chunks = Vec::with_capacity(layout.count() as usize);
    let seals = Seals::default();
    let mut work = reader.buffers.take(4 * BLOCK);
    for index in 0..layout.count() {
        let mut left = layout.len(index) as usize;
        let mut hasher = blake3::Hasher::new();
        let mut blocks = Vec::with_capacity(left.div_ceil(BLOCK));
        while left > 0 {
            if stop.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let len = left.min(4 * BLOCK);
            let part = &mut work.as_mut()[..len];
            match file.read_exact(part) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(e) => return Err(e),
            }
            hasher.update(part);
            whole.update(&*part);
            blocks.extend(reader.sealer.seal_all(part));
            left -= len;
        }
        chunks.push(Digest(*hasher.finalize().as_bytes()));
        seals.set(index, layout.count(), blocks);
    }
    if Stamp::of_file(file)? != Some(stamp) {
        return Ok(None);
    }
    reader.metrics.content.hashed_bytes.inc_by(stamp.size);
    let manifest = Manifest {
        path: path.to_owned(),
        layout,
        media_type: media_type(path).to_owned(),
        modified: stamp.modified_secs(),
        sha256: whole.finalize().into(),
        chunks,
    };
    Ok(Some(Digested {
        manifest,
        stamp,
        settled: is_settled(stamp, Now::read()),
        seals,
    }))
}

/// Whether a write after `now` is bound to change the stamp: file systems count time in steps of some milliseconds,
/// old ones in steps of two seconds.
fn is_settled(stamp: Stamp, now: Now) -> bool {
    let coarse = stamp.touched_ns() % 1_000_000_000 == 0;
    let step_ms = if coarse { 2_000 } else { 50 };
    let touched_ms = u64::try_from(stamp.touched_ns() / 1_000_000).unwrap_or(0);
    touched_ms + step_ms < now.unix_ms
}

fn look(place: &Place) -> Look {
    let Ok(file) = place.open(OFlags::PATH) else {
        return Look::None;
    };
    match Stamp::of_file(&file) {
        Ok(Some(stamp)) => Look::File(stamp),
        Ok(None) => match rustix::fs::fstat(&file) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => Look::Directory,
            _ => Look::None,
        },
        Err(_) => Look::None,
    }
}

/// Whether an error means that nothing (that may be served) is there.
fn is_absent(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let absent = [
        Errno::NOENT,
        Errno::NOTDIR,
        Errno::XDEV, // A symbolic link out of the directory.
        Errno::LOOP,
        Errno::NAMETOOLONG,
        Errno::NXIO, // A socket, or a pipe without a reader.
        Errno::ISDIR,
    ];
    error
        .raw_os_error()
        .is_some_and(|code| absent.contains(&Errno::from_raw_os_error(code)))
}

/// The name, or path, of a file as the kernel knows it.
pub(super) fn file_name(text: &str) -> OsString {
    OsString::from_vec(name::to_bytes(text).into_owned())
}

fn is_published(name: &str) -> bool {
    !name.starts_with('.') || name == ".well-known"
}

/// How often a changing file is read before it is left for later.
const TRIES: usize = 3;
