//! Mirrored objects on disk: begun, filled chunk by chunk, recovered after a crash, removed.
//!
//! Below the configured directory:
//!
//! ```text
//! lock                       held while a store is open: two daemons never share one
//! objects/ID/{data,have,manifest}   one object; ID is its manifest's digest in hexadecimal; behind the manifest stands
//!                                   the publisher's signature, if there is one
//! removed/N/…                removed objects that may still be read
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
//! At one path a whole version serves until the next is whole. Its files go with its last reader; until then they
//! count. If both are found at start (a crash between the two steps), the one begun last stays if it is whole.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use rustix::fs::{FallocateFlags, Mode, OFlags};

use super::StoreConfig;
use super::chunk::Digest;
use super::file::{Place, Source};
use super::fill::{Fill, Keeper};
use super::have::Have;
use super::library::Library;
use super::manifest::{Manifest, SIZE_MAX};
use super::object::{Object, WriteError};
use super::sign::Seal;
use super::threads::Threads;
use crate::metrics::Metrics;

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
    removed: PathBuf,
    size: u64,
    used: AtomicU64,
    /// Names in `removed`.
    next_removed: AtomicU64,
    /// One object begins, replaces or goes at a time.
    change: Mutex<()>,
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
        for path in [dir, &objects, &removed] {
            fs::create_dir_all(path).map_err(|e| at(path, e))?;
        }
        let lock = lock(&dir.join("lock"))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let objects_fd =
            rustix::fs::open(&objects, flags, Mode::empty()).map_err(|e| at(&objects, e.into()))?;
        let inner = Inner {
            dir: dir.clone(),
            objects_fd: Arc::new(objects_fd),
            objects,
            removed,
            size: config.size,
            used: AtomicU64::new(0),
            next_removed: AtomicU64::new(0),
            change: Mutex::default(),
            library: library.clone(),
            metrics,
            _lock: lock,
        };
        let metrics = &inner.metrics.content;
        metrics.store_capacity.set(gauge(config.size));
        let store = Self {
            inner: Arc::new(inner),
        };
        store.recover()?;
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
        self.begin_signed(manifest, None)
    }

    /// Begins a mirrored object, or gives the one already begun with the same manifest. It becomes visible in the
    /// library at once and is served while it fills; an older whole version at the same path stays in service until
    /// the new one is whole, a partial one is given up. Blocking.
    ///
    /// # Errors
    /// See [`WriteError`]: `Full` when the store's size or the bound on objects would be exceeded, or the disk is
    /// full. Nothing of the new object stays then, and nothing of the old is touched. `Io` with `InvalidInput` for a
    /// manifest that [`Manifest::check`] refuses.
    pub fn begin_signed(
        &self,
        manifest: Manifest,
        seal: Option<Seal>,
    ) -> Result<Arc<Object>, WriteError> {
        let inner = &self.inner;
        let begun = inner.begin(manifest, seal);
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

    /// Puts what is whole or well begun into the library and sweeps the rest.
    fn recover(&self) -> io::Result<()> {
        let inner = &self.inner;
        for entry in fs::read_dir(&inner.removed).map_err(|e| at(&inner.removed, e))? {
            inner.sweep(&entry?.path(), "removed before");
        }
        let mut found = Vec::new();
        for entry in fs::read_dir(&inner.objects).map_err(|e| at(&inner.objects, e))? {
            let dir = entry?.path();
            match inner.recover_one(&dir) {
                Ok(recovered) => found.push(recovered),
                Err(reason) => inner.sweep(&dir, &reason),
            }
        }
        // The whole ones first, then by age: a version takes its place as it did before the crash.
        found.sort_by_key(|(begun, object)| (!object.complete(), *begun));
        for (_, object) in found {
            if !inner.library.has_room() {
                break; // What does not fit stays on disk, for a larger bound.
            }
            inner.count(object.manifest().layout.size);
            let _change = inner.changing();
            let replaced = inner.library.put_mirrored(&object);
            inner.doom(replaced)?;
        }
        Ok(())
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
        let used = self.used.load(Ordering::Acquire);
        if used.saturating_add(size) > self.size {
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
        let made = self.make(&dir, manifest, seal, id, &encoded);
        let object = made.map_err(|error| {
            // What was allocated is given back at once: others may need it.
            drop(fs::remove_dir_all(&dir));
            WriteError::of(&path, error)
        })?;
        self.count(size);
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
    ) -> io::Result<Arc<Object>> {
        match fs::remove_dir_all(dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => fs::create_dir(dir)?,
        }
        let data = create(&dir.join(DATA))?;
        allocate(&data, manifest.layout.size)?;
        let have = Have::empty(manifest.layout.count());
        let mut record = create(&dir.join(HAVE))?;
        record.write_all(&have.encode())?;
        data.sync_all()?;
        record.sync_all()?;
        let temporary = dir.join(MANIFEST_NEW);
        let mut file = create(&temporary)?;
        file.write_all(encoded)?;
        file.sync_all()?;
        fs::rename(&temporary, dir.join(MANIFEST))?;
        sync_dir(dir)?;
        sync_dir(&self.objects)?;
        Ok(self.object(Arc::new(manifest), seal, id, data, &have))
    }

    fn object(
        self: &Arc<Self>,
        manifest: Arc<Manifest>,
        seal: Option<Seal>,
        id: Digest,
        data: File,
        have: &Have,
    ) -> Arc<Object> {
        let place = |name| Place {
            root: Arc::clone(&self.objects_fd),
            path: Path::new(&id.to_string()).join(name),
        };
        let reader = self.library.reader();
        let source = Source::new(place(DATA), data, true, &reader.open_files);
        let keeper: Weak<Self> = Arc::downgrade(self);
        let fill = Fill::new(have, place(HAVE), keeper);
        let reader = Arc::clone(reader);
        Arc::new(Object::mirrored(manifest, id, source, fill, seal, reader))
    }

    /// One directory of `objects`: the object and when it was begun, or why it is none.
    fn recover_one(self: &Arc<Self>, dir: &Path) -> Result<(SystemTime, Arc<Object>), String> {
        let text = |e: io::Error| e.to_string();
        let name = dir.file_name().and_then(|name| name.to_str());
        let id: Digest = name
            .and_then(|name| name.parse().ok())
            .ok_or("not named by a digest")?;
        let path = dir.join(MANIFEST);
        let meta = fs::metadata(&path).map_err(|e| format!("manifest: {e}"))?;
        if meta.len() > (SIZE_MAX + Seal::SIZE) as u64 {
            return Err(format!("manifest of {} bytes", meta.len()));
        }
        let encoded = fs::read(&path).map_err(text)?;
        let whose = |payload: &[u8]| Digest::of(payload) == id;
        let (payload, seal) = match Seal::split(&encoded) {
            Some((payload, seal)) if whose(payload) => (payload, Some(seal)),
            _ if whose(&encoded) => (encoded.as_slice(), None),
            _ => return Err("manifest of another digest".into()),
        };
        let manifest = Manifest::decode(payload).map_err(|e| e.to_string())?;
        let mut options = OpenOptions::new();
        let data = options.read(true).write(true).open(dir.join(DATA));
        let data = data.map_err(|e| format!("data: {e}"))?;
        let size = data.metadata().map_err(text)?.len();
        if size != manifest.layout.size {
            let expected = manifest.layout.size;
            return Err(format!("data of {size} bytes, expected {expected}"));
        }
        let bytes = fs::read(dir.join(HAVE)).map_err(|e| format!("have: {e}"))?;
        let have = Have::decode(&bytes, manifest.layout.count()).ok_or("have of wrong shape")?;
        let begun = meta.modified().map_err(text)?;
        let object = self.object(Arc::new(manifest), seal, id, data, &have);
        Ok((begun, object))
    }

    /// Removes what recovery cannot use.
    fn sweep(&self, path: &Path, reason: &str) {
        let swept = if path.is_dir() {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        };
        match swept {
            Ok(()) => tracing::info!(path = %path.display(), reason, "swept from the store"),
            Err(error) => tracing::warn!(path = %path.display(), %error, "not swept"),
        }
    }

    /// Moves the files of objects that left the library aside; they go with the last reader. Under `change`.
    fn doom(&self, objects: Vec<Arc<Object>>) -> io::Result<()> {
        for object in objects {
            let dir = self.objects.join(object.id().to_string());
            let number = self.next_removed.fetch_add(1, Ordering::Relaxed);
            let aside = self.removed.join(number.to_string());
            fs::rename(&dir, &aside).map_err(|e| at(&dir, e))?;
            if let Some(fill) = object.fill() {
                fill.doom(aside);
            }
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

    fn released(&self, dir: &Path, size: u64) {
        let used = self.used.fetch_sub(size, Ordering::AcqRel) - size;
        self.metrics.content.store_used.set(gauge(used));
        let dir = dir.to_owned();
        let remove = move || {
            if let Err(error) = fs::remove_dir_all(&dir) {
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

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o640);
    options.open(path)
}

/// Gives the file its size and the disk's promise for it, where the file system can promise.
fn allocate(file: &File, size: u64) -> io::Result<()> {
    use rustix::io::Errno;
    if size == 0 {
        return Ok(());
    }
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(size),
        Err(e) => Err(e.into()),
    }
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[expect(clippy::needless_pass_by_value, reason = "it is made for map_err")]
fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn gauge(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

const DATA: &str = "data";
const HAVE: &str = "have";
const MANIFEST: &str = "manifest";
const MANIFEST_NEW: &str = "manifest.new";
