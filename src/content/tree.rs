//! Writing beneath published directories, and listing what stands beneath a path: for protocols that put files.
//!
//! A file comes whole or not at all: it is written beside the published names (`.headwater-uploads`, which nobody is
//! served from), synced, renamed into its place, and its directory synced. All of it blocks: call on a thread that may.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};

use rustix::fs::{AtFlags, Mode, OFlags};

use super::file::Stamp;
use super::library::Library;
use super::manifest::check_path;
use super::object::Role;
use super::root::{Look, Root, file_name};

/// A file or directory at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// It is a directory.
    pub directory: bool,
    /// Bytes of the file.
    pub size: u64,
    /// Last modification, seconds since 1970.
    pub modified: u64,
}

/// A file on its way into a published directory. Dropped before [`Incoming::commit`], nothing of it stays.
#[derive(Debug)]
pub struct Incoming {
    file: File,
    folder: File,
    name: String,
    to: (File, OsString),
    placed: bool,
}

impl Library {
    /// Whether a path (a directory's with its final `/`) lies in a directory this node publishes, and may be written.
    #[must_use]
    pub fn is_published_place(&self, path: &str) -> bool {
        self.root(path)
            .is_some_and(|root| root.place(path).is_some())
    }

    /// What stands at `path`, without a final `/` (but for the root); `None`: nothing.
    #[must_use]
    pub fn node(&self, path: &str) -> Option<Node> {
        let dir = as_directory(path);
        let directory = Node {
            directory: true,
            size: 0,
            modified: 0,
        };
        if path == "/" {
            return Some(directory);
        }
        for (root, at) in [(self.root(path), path), (self.root(&dir), dir.as_str())] {
            match root.map_or(Look::None, |root| root.look(at)) {
                Look::File(stamp) if at == path => return Some(file(stamp)),
                Look::Directory => return Some(directory),
                _ => {}
            }
        }
        if let Some(object) = self.get(path).filter(|o| o.role() == Role::Mirror) {
            return Some(Node {
                directory: false,
                size: object.manifest().layout.size,
                modified: object.manifest().modified,
            });
        }
        let inner = |object: &std::sync::Arc<super::object::Object>| {
            object.role() == Role::Mirror && object.manifest().path.starts_with(&dir)
        };
        let prefix = self.published().is_some_and(|published| {
            let mut roots = published.roots.iter();
            roots.any(|root| root.config.prefix.starts_with(&dir))
        });
        (prefix || self.list().iter().any(inner)).then_some(directory)
    }

    /// What stands in the directory `path`, at most `most` entries of each kind of source; `None`: no directory.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn nodes(&self, path: &str, most: usize) -> io::Result<Option<BTreeMap<String, Node>>> {
        if !self.node(path).is_some_and(|node| node.directory) {
            return Ok(None);
        }
        let dir = as_directory(path);
        let directory = Node {
            directory: true,
            size: 0,
            modified: 0,
        };
        let mut nodes = BTreeMap::new();
        let mirrored = self.list().into_iter();
        for object in mirrored.filter(|object| object.role() == Role::Mirror) {
            let manifest = object.manifest();
            let Some(inner) = manifest.path.strip_prefix(&dir) else {
                continue;
            };
            if nodes.len() >= most {
                break;
            }
            match inner.split_once('/') {
                Some((name, _)) => nodes.insert(name.to_owned(), directory.clone()),
                None => nodes.insert(
                    inner.to_owned(),
                    Node {
                        directory: false,
                        size: manifest.layout.size,
                        modified: manifest.modified,
                    },
                ),
            };
        }
        for root in self.published().into_iter().flat_map(|p| &p.roots) {
            if let Some(inner) = root.config.prefix.strip_prefix(&dir)
                && let Some((name, _)) = inner.split_once('/')
            {
                nodes.insert(name.to_owned(), directory.clone());
            }
        }
        if let Some(root) = self.root(&dir)
            && root.look(&dir) == Look::Directory
        {
            for item in root.items(&dir, most)? {
                match item.look {
                    Look::File(stamp) => nodes.insert(item.name, file(stamp)),
                    Look::Directory => nodes.insert(item.name, directory.clone()),
                    Look::None => None,
                };
            }
        }
        Ok(Some(nodes))
    }

    /// Begins to write the file at `path`; its directory must be there.
    ///
    /// # Errors
    /// `PermissionDenied`: not beneath a published directory, or a name that is not published; else the kernel's.
    pub fn incoming(&self, path: &str) -> io::Result<Incoming> {
        let (root, dir, name) = self.parent(path)?;
        let to = (directory(root, dir)?, name);
        let folder = uploads(root)?;
        let mut dice = [0; 8];
        rustix::rand::getrandom(&mut dice, rustix::rand::GetRandomFlags::empty())?;
        let name = format!("{:016x}", u64::from_ne_bytes(dice));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&folder, &name, flags, Mode::from_raw_mode(0o644))?;
        Ok(Incoming {
            file: file.into(),
            folder,
            name,
            to,
            placed: false,
        })
    }

    /// Removes the file, or the empty directory, at `path`.
    ///
    /// # Errors
    /// As [`Library::incoming`].
    pub fn remove(&self, path: &str, is_directory: bool) -> io::Result<()> {
        let (root, dir, name) = self.parent(path)?;
        let dir = directory(root, dir)?;
        let flags = match is_directory {
            true => AtFlags::REMOVEDIR,
            false => AtFlags::empty(),
        };
        rustix::fs::unlinkat(&dir, name, flags)?;
        Ok(rustix::fs::fsync(&dir)?)
    }

    /// Makes the directory `path`.
    ///
    /// # Errors
    /// As [`Library::incoming`].
    pub fn make_directory(&self, path: &str) -> io::Result<()> {
        let (root, dir, name) = self.parent(path)?;
        let dir = directory(root, dir)?;
        rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755))?;
        Ok(rustix::fs::fsync(&dir)?)
    }

    /// Renames a file or directory.
    ///
    /// # Errors
    /// As [`Library::incoming`].
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (root, dir, old) = self.parent(from)?;
        let from = directory(root, dir)?;
        let (root, dir, new) = self.parent(to)?;
        let to = directory(root, dir)?;
        rustix::fs::renameat(&from, old, &to, new)?;
        rustix::fs::fsync(&to)?;
        Ok(rustix::fs::fsync(&from)?)
    }

    /// Removes what a node that was killed left of files on their way.
    pub fn sweep_incoming(&self) {
        for root in self.published().into_iter().flat_map(|p| &p.roots) {
            let folder = root.config.dir.join(UPLOADS);
            match std::fs::remove_dir_all(&folder) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(folder = %folder.display(), error = %e, "not swept");
                }
                _ => {}
            }
        }
    }

    /// The root of `path`, its directory (with its final `/`) and its name there.
    fn parent<'p>(&self, path: &'p str) -> io::Result<(&Root, &'p str, OsString)> {
        let refused = || io::Error::from(io::ErrorKind::PermissionDenied);
        check_path(path).map_err(|_| refused())?;
        let at = path.rfind('/').ok_or_else(refused)? + 1;
        let root = self.root(path).ok_or_else(refused)?;
        root.place(path).ok_or_else(refused)?;
        Ok((root, &path[..at], file_name(&path[at..])))
    }
}

impl Incoming {
    /// Takes the first `len` bytes of the file that stands at its path, to go on after them.
    ///
    /// # Errors
    /// `InvalidInput`: it is shorter; else the kernel's.
    pub fn take_over(&mut self, len: u64) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let old: File = rustix::fs::openat(&self.to.0, &self.to.1, flags, Mode::empty())?.into();
        let meta = old.metadata()?;
        if !meta.is_file() || meta.len() < len {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        io::copy(&mut io::Read::take(old, len), &mut self.file)?;
        Ok(())
    }

    /// Writes what comes next.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Puts the file at its path, durably.
    ///
    /// # Errors
    /// What the kernel said; what stood there stays.
    pub fn commit(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        let (to, name) = &self.to;
        rustix::fs::renameat(&self.folder, &self.name, to, name)?;
        self.placed = true;
        Ok(rustix::fs::fsync(to)?)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.placed {
            // It is swept at the next start if this fails.
            let _ = rustix::fs::unlinkat(&self.folder, &self.name, AtFlags::empty());
        }
    }
}

fn file(stamp: Stamp) -> Node {
    Node {
        directory: false,
        size: stamp.size,
        modified: stamp.modified_secs(),
    }
}

fn as_directory(path: &str) -> String {
    format!("{}/", path.trim_end_matches('/'))
}

/// Opens a directory of `root` by its URL path.
fn directory(root: &Root, path: &str) -> io::Result<File> {
    let place = root.place(path).ok_or(io::ErrorKind::PermissionDenied)?;
    place.open(OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Where files of `root` are written before they have their name.
fn uploads(root: &Root) -> io::Result<File> {
    let top = directory(root, &root.config.prefix)?;
    match rustix::fs::mkdirat(&top, UPLOADS, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(&top, UPLOADS, flags, Mode::empty())?.into())
}

/// Begins with a dot: nothing in it is published.
const UPLOADS: &str = ".headwater-uploads";
