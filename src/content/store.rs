//! Mirrored objects on disk: begun, filled chunk by chunk, recovered after a crash, removed.
//!
//! Below the configured directory:
//!
//! ```text
//! lock                       held while a store is open: two daemons never share one
//! objects/ID/{data,have,manifest}   one object; ID is its manifest's digest in hexadecimal; behind the manifest stands
//!                                   the publisher's signature, if there is one
//! removed/N/…                removed objects that may still be read
//! incoming/N                 objects on their way whose digests are not known yet (see `spool`)
//! published/…                digests of published files (see `remembered`)
//! ```
//!
//! *Begin*: directory, `data` (its full size allocated, so that a full disk shows here), `have` (no chunk), both
//! synced; the manifest last, by a temporary name, sync, rename, sync of both directories. *Fill*: each chunk is
//! written to `data` and then marked in `have`, so that a killed process loses at most the chunks in flight; both are
//! synced every 64 MiB, when the object is whole, and by [`Store::flush`]. After a power loss `have` may claim chunks
//! whose bytes never reached the disk: therefore nothing that was read from disk leaves undigested (see
//! [`super::object`]), and such a chunk is dropped and fetched again. *Recovery* keeps what has a good manifest under
//! its right name and a `data` file of the right size; all else is what a crash left, and is swept.
//!
//! *Evict*: where room is needed, whole objects go that are cold, that nobody reads and that another node has (see
//! `room`).
//!
//! At one path a whole version serves until the next is whole. Its files go with its last reader; until then they
//! count. If both are found at start (a crash between the two steps), the one begun last stays if it is whole.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::fs::{Mode, OFlags};

use super::StoreConfig;
use super::chunk::Digest;
use super::disk::Disk;
use super::file::{Place, Source};
use super::fill::{Fill, Keeper};
use super::have::Have;
use super::heat::Heat;
use super::library::Library;
use super::manifest::Manifest;
use super::object::{Object, WriteError};
use super::sign::Seal;
use super::threads::Threads;
use crate::metrics::Metrics;
use crate::time::Now;

mod recover;
mod room;
mod spool;

use room::Room;

pub use room::Purpose;
pub use spool::Spool;

/// The store. A cheap handle.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    objects: PathBuf,
    objects_fd: Arc<OwnedFd>,
    incoming: PathBuf,
    removed: PathBuf,
    removed_fd: Arc<OwnedFd>,
    disk: Disk,
    size: u64,
    used: AtomicU64,
    /// Names in `removed`.
    next_removed: AtomicU64,
    room: Mutex<Room>,
    /// One object begins, replaces or goes at a time.
    change: Mutex<()>,
    /// Objects that left the library and could not be moved aside yet.
    left: Mutex<Vec<Arc<Object>>>,
    library: Library,
    metrics: Arc<Metrics>,
    /// Unlocked when it is closed.
    _lock: File,
}

impl Store {
    /// Opens (or makes) the store: recovers whole and partial objects into `library`, sweeps what a crash left.
    /// Blocking.
    ///
    /// # Errors
    /// The path and what the kernel said; `WouldBlock` if another process has the store open.
    pub fn open(
        config: &StoreConfig,
        library: &Library,
        metrics: Arc<Metrics>,
    ) -> Result<Self, io::Error> {
        let dir = &config.dir;
        let objects = dir.join("objects");
        let removed = dir.join("removed");
        let incoming = dir.join("incoming");
        let disk = config.disk.clone();
        for path in [dir, &objects, &removed, &incoming] {
            disk.make_directories(path).map_err(|e| at(path, e))?;
        }
        let lock = lock(&dir.join("lock"))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path: &Path| match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Arc::new(fd)),
            Err(error) => Err(at(path, error.into())),
        };
        let inner = Inner {
            dir: dir.clone(),
            objects_fd: open(&objects)?,
            objects,
            incoming,
            removed_fd: open(&removed)?,
            removed,
            disk,
            size: config.size,
            used: AtomicU64::new(0),
            next_removed: AtomicU64::new(0),
            room: Mutex::default(),
            change: Mutex::default(),
            left: Mutex::default(),
            library: library.clone(),
            metrics,
            _lock: lock,
        };
        let metrics = &inner.metrics.content;
        metrics.store_capacity.set(gauge(config.size));
        let store = Self {
            inner: Arc::new(inner),
        };
        store.inner.recover(config.threads.min(SCAN))?;
        Ok(store)
    }

    /// The directory it lives in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Where what waits for the disk is done.
    #[must_use]
    pub fn threads(&self) -> &Threads {
        &self.inner.library.reader().threads
    }

    /// As [`Store::begin_signed`], of a manifest without a signature: other nodes do not get it from this one.
    ///
    /// # Errors
    /// As [`Store::begin_signed`].
    pub fn begin(&self, manifest: Manifest) -> Result<Arc<Object>, WriteError> {
        self.begin_signed(manifest, None, Purpose::Replicate)
    }

    /// Begins a mirrored object, or gives the one already begun with the same manifest. It becomes visible in the
    /// library at once and is served while it fills; an older whole version at the same path stays in service until
    /// the new one is whole, a partial one is given up. Blocking.
    ///
    /// # Errors
    /// See [`WriteError`]: `Full` when the store's size would be exceeded and too little is cold (see [`super::evict`]),
    /// the bound on objects would be, or the disk is full. Nothing of the new object stays then. `Io` with `InvalidInput` for a
    /// manifest that [`Manifest::check`] refuses.
    pub fn begin_signed(
        &self,
        manifest: Manifest,
        seal: Option<Seal>,
        purpose: Purpose,
    ) -> Result<Arc<Object>, WriteError> {
        let inner = &self.inner;
        let begun = inner.begin(manifest, seal, purpose, None);
        let metrics = &inner.metrics.content;
        match &begun {
            Ok(_) => {}
            Err(WriteError::Full { .. }) => metrics.write_full.inc(),
            Err(WriteError::Mismatch { .. }) => metrics.write_mismatch.inc(),
            Err(WriteError::Io { .. }) => metrics.write_io.inc(),
        }
        begun
    }

    /// Removes the mirrored object at `path` from library and disk; readers finish on the open file. Blocking.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn remove(&self, path: &str) -> Result<bool, io::Error> {
        let _change = self.inner.changing();
        let removed = self.inner.library.remove_mirrored(path);
        let any = !removed.is_empty();
        self.inner.doom(removed)?;
        Ok(any)
    }

    /// Drops what may go while more is held than the store's size, which was lowered. Blocking.
    pub fn trim(&self) {
        let _change = self.inner.changing();
        self.inner.trim(Now::read());
    }

    /// Whether more is held than the store's size.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.used() > self.inner.size
    }

    /// Bytes of mirrored objects on disk.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.inner.used.load(Ordering::Acquire)
    }

    /// Makes everything written so far durable (drain). Blocking.
    ///
    /// # Errors
    /// What the kernel said; every object is tried.
    pub fn flush(&self) -> Result<(), io::Error> {
        let mut result = Ok(());
        for holding in self.inner.library.holdings() {
            let versions = self.inner.library.mirrored(&holding.path);
            for object in versions.into_iter().flatten() {
                if let Err(error) = object.flush() {
                    result = Err(at(Path::new(&holding.path), error));
                }
            }
        }
        result
    }
}

impl Inner {
    fn changing(&self) -> std::sync::MutexGuard<'_, ()> {
        self.change.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(
        self: &Arc<Self>,
        manifest: Manifest,
        seal: Option<Seal>,
        purpose: Purpose,
        mut spool: Option<Spool>,
    ) -> Result<Arc<Object>, WriteError> {
        let path = manifest.path.clone();
        let size = manifest.layout.size;
        if let Err(error) = manifest.check() {
            let source = io::Error::new(io::ErrorKind::InvalidInput, error);
            return Err(WriteError::Io { path, source });
        }
        let mut encoded = manifest.encode();
        let id = Digest::of(&encoded);
        encoded.extend(seal.iter().flat_map(Seal::encode));
        let _change = self.changing();
        let [serving, next] = self.library.mirrored(&path);
        if let Some(serving) = serving.filter(|serving| serving.id() == id) {
            // What was on its way to replace it is not wanted any more.
            let given_up = self.library.remove_next(&path).into_iter().collect();
            self.doom_or_warn(&path, given_up);
            return Ok(serving);
        }
        if let Some(next) = next.filter(|next| next.id() == id) {
            return Ok(next);
        }
        let full = |reason| WriteError::Full {
            path: path.clone(),
            reason,
        };
        // This very version may be among those that could not be moved aside; and all of them take room.
        self.doom(Vec::new())
            .map_err(|error| WriteError::of(&path, error))?;
        let more = if spool.is_some() { 0 } else { size }; // A spool counts already.
        self.make_room(id, more, purpose, Now::read());
        let used = self.used.load(Ordering::Acquire);
        if spool.is_none() && used.saturating_add(size) > self.size {
            let allowed = self.size;
            return Err(full(format!(
                "{size} bytes, and the store has {used} of {allowed} in use"
            )));
        }
        if !self.library.has_room() {
            let most = self.library.objects_most();
            return Err(full(format!("{most} objects are held, the most allowed")));
        }
        let dir = self.objects.join(id.to_string());
        let made = self.make(&dir, manifest, seal, id, &encoded, spool.as_mut());
        let object = made.map_err(|error| {
            // What was allocated is given back at once: others may need it.
            drop(self.disk.remove(&dir));
            WriteError::of(&path, error)
        })?;
        match &mut spool {
            Some(spool) => spool.kept = true,
            None => self.count(size),
        }
        self.came(id);
        let replaced = self.library.put_mirrored(&object);
        self.doom_or_warn(&path, replaced);
        Ok(object)
    }

    /// Makes an object's files; the manifest last, since it is what recovery goes by.
    fn make(
        self: &Arc<Self>,
        dir: &Path,
        manifest: Manifest,
        seal: Option<Seal>,
        id: Digest,
        encoded: &[u8],
        spool: Option<&mut Spool>,
    ) -> io::Result<Arc<Object>> {
        let disk = &self.disk;
        match disk.remove(dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => disk.make_directory(dir)?,
        }
        let place = dir.join(DATA);
        let (data, have) = match spool.map(|spool| (spool.file.take(), &spool.path)) {
            Some((Some(file), path)) => {
                disk.rename(path, &place)?;
                (file, Have::full(manifest.layout.count()))
            }
            _ => {
                let data = disk.create(&place)?;
                disk.allocate(&data, manifest.layout.size)?;
                (data, Have::empty(manifest.layout.count()))
            }
        };
        let record = disk.create(&dir.join(HAVE))?;
        disk.write_at(&record, &have.encode(), 0)?;
        disk.sync(&data)?;
        disk.sync(&record)?;
        let temporary = dir.join(MANIFEST_NEW);
        let file = disk.create(&temporary)?;
        disk.write_at(&file, encoded, 0)?;
        disk.sync(&file)?;
        disk.rename(&temporary, &dir.join(MANIFEST))?;
        disk.sync_directory(dir)?;
        disk.sync_directory(&self.objects)?;
        Ok(self.object(Arc::new(manifest), seal, id, Some(data), &have))
    }

    fn object(
        self: &Arc<Self>,
        manifest: Arc<Manifest>,
        seal: Option<Seal>,
        id: Digest,
        data: Option<File>,
        have: &Have,
    ) -> Arc<Object> {
        let reader = self.library.reader();
        let mut source = Source::new(self.place(id, DATA), true, &reader.open_files, &self.disk);
        if let Some(data) = data {
            source = source.opened(data);
        }
        let keeper: Weak<Self> = Arc::downgrade(self);
        let heat = Heat::new(Now::read(), reader.cold_secs);
        let fill = Fill::new(have, self.place(id, HAVE), keeper, self.disk.clone(), heat);
        let reader = Arc::clone(reader);
        Arc::new(Object::mirrored(manifest, id, source, fill, seal, reader))
    }

    /// Where a file of an object is.
    fn place(&self, id: Digest, name: &str) -> Place {
        Place {
            root: Arc::clone(&self.objects_fd),
            path: Path::new(&id.to_string()).join(name),
        }
    }

    /// Moves the files of objects that left the library aside; they go with the last reader. What could not be moved
    /// is moved at the next change. Under `change`.
    fn doom(&self, objects: Vec<Arc<Object>>) -> io::Result<()> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.extend(objects);
        while let Some(object) = left.last() {
            let dir = self.objects.join(object.id().to_string());
            let number = self.next_removed.fetch_add(1, Ordering::Relaxed);
            let aside = self.removed.join(number.to_string());
            object.moves(Place {
                root: Arc::clone(&self.removed_fd),
                path: Path::new(&number.to_string()).join(DATA),
            });
            self.disk.rename(&dir, &aside).map_err(|e| at(&dir, e))?;
            if let Some(fill) = object.fill() {
                fill.doom(aside);
            }
            left.pop();
        }
        Ok(())
    }

    fn doom_or_warn(&self, path: &str, objects: Vec<Arc<Object>>) {
        if let Err(error) = self.doom(objects) {
            tracing::warn!(%path, %error, "replaced version not removed");
        }
    }

    fn count(&self, size: u64) {
        let used = self.used.fetch_add(size, Ordering::AcqRel) + size;
        self.metrics.content.store_used.set(gauge(used));
    }
}

impl Keeper for Inner {
    fn whole(&self, object: &Arc<Object>) {
        let _change = self.changing();
        let path = &object.manifest().path;
        tracing::info!(%path, id = %object.id(), "mirrored object whole");
        let replaced = self.library.promote(object).into_iter().collect();
        self.doom_or_warn(path, replaced);
    }

    fn dropped(&self, path: &str) {
        // The mirror begins it again at once, as for a reader. If it cannot be told now, its next round finds out.
        drop(self.library.demand(path).map(|demand| demand.ask(path)));
    }

    fn released(&self, dir: &Path, size: u64) {
        let used = self.used.fetch_sub(size, Ordering::AcqRel) - size;
        self.metrics.content.store_used.set(gauge(used));
        let dir = dir.to_owned();
        let disk = self.disk.clone();
        let remove = move || {
            if let Err(error) = disk.remove(&dir) {
                // It is swept at the next start.
                tracing::warn!(path = %dir.display(), %error, "removed object still on disk");
            }
        };
        // The last reader may be a connection: the gigabytes of a large file are not freed on its thread.
        match tokio::runtime::Handle::try_current() {
            Ok(_) => drop(self.library.reader().threads.run(remove)),
            Err(_) => remove(),
        }
    }
}

/// Takes the store for this process.
fn lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    let file = options.open(path).map_err(|e| at(path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let reason = "the store is in use by another process, one daemon at a time may open it";
            let error = io::Error::new(io::ErrorKind::WouldBlock, reason);
            Err(at(path, error))
        }
        Err(TryLockError::Error(e)) => Err(at(path, e)),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is made for map_err")]
fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn gauge(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Threads that read what a store holds when it is opened.
const SCAN: usize = 8;

const DATA: &str = "data";
const HAVE: &str = "have";
const MANIFEST: &str = "manifest";
const MANIFEST_NEW: &str = "manifest.new";
