//! One object: a manifest, a file, and which of its bytes have been proved. How its bytes are read is in `read`.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::chunk::Digest;
use super::file::{Place, Source, Stamp};
use super::fill::Fill;
use super::have::Have;
use super::manifest::Manifest;
use super::memory::InMemory;
use super::reader::{Reader, Small};
use super::seal::Seals;
use super::sign::Seal;
use super::threads::Threads;
use crate::time::Now;

mod read;

/// Where an object comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Published by this node.
    Origin,
    /// Mirrored from another node.
    Mirror,
}

/// One version of one object. Shared by readers; a newer version is another `Object`.
#[derive(Debug)]
pub struct Object {
    manifest: Arc<Manifest>,
    id: Digest,
    etag: String,
    seal: Option<Seal>,
    source: Source,
    origin: Origin,
    seals: Seals,
    small: OnceLock<Small>,
    in_memory: Arc<InMemory>,
    reader: Arc<Reader>,
}

/// What differs between the roles.
#[derive(Debug)]
enum Origin {
    Here(Published),
    Elsewhere(Box<Fill>),
}

/// What a published object has beyond a mirrored one.
#[derive(Debug)]
struct Published {
    /// The file, as it was digested.
    stamp: Stamp,
    /// When the stamp was compared last, seconds of the monotonic clock.
    checked: AtomicU64,
    /// See [`Object::settled`].
    settled: bool,
    /// A wrong chunk was logged.
    reported: AtomicBool,
}

/// A file's manifest, and how it was found.
#[derive(Debug)]
pub(super) struct Digested {
    pub(super) manifest: Manifest,
    pub(super) stamp: Stamp,
    /// See [`Object::settled`].
    pub(super) settled: bool,
    /// Of all chunks if the file was just read, of none if its digests were remembered.
    pub(super) seals: Seals,
}

/// What became of a published file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// It is another file, or has other bytes.
    To(Stamp),
    /// It is not there, or cannot be looked at.
    Gone,
}

impl Object {
    /// An object whose file is `source`; `seals` are those of its chunks if it was just digested.
    pub(super) fn published(
        digested: Digested,
        source: Source,
        now: Now,
        reader: Arc<Reader>,
    ) -> Self {
        let origin = Origin::Here(Published {
            stamp: digested.stamp,
            checked: AtomicU64::new(now.mono_secs()),
            settled: digested.settled,
            reported: AtomicBool::new(false),
        });
        let id = digested.manifest.digest();
        let manifest = Arc::new(digested.manifest);
        let mut object = Self::new(manifest, id, source, origin, reader);
        object.seals = digested.seals;
        object
    }

    pub(super) fn mirrored(
        manifest: Arc<Manifest>,
        id: Digest,
        source: Source,
        fill: Fill,
        seal: Option<Seal>,
        reader: Arc<Reader>,
    ) -> Self {
        let mut object = Self::new(
            manifest,
            id,
            source,
            Origin::Elsewhere(Box::new(fill)),
            reader,
        );
        object.seal = seal;
        object
    }

    fn new(
        manifest: Arc<Manifest>,
        id: Digest,
        source: Source,
        origin: Origin,
        reader: Arc<Reader>,
    ) -> Self {
        Self {
            manifest,
            id,
            etag: format!("\"{id:.32}\""),
            seal: None,
            source,
            origin,
            seals: Seals::default(),
            small: OnceLock::new(),
            in_memory: InMemory::new(&reader.memory),
            reader,
        }
    }

    /// What its bytes must be.
    #[must_use]
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// Where what waits for the disk is done.
    #[must_use]
    pub fn threads(&self) -> &Threads {
        &self.reader.threads
    }

    /// The manifest's digest: the version.
    #[must_use]
    pub fn id(&self) -> Digest {
        self.id
    }

    /// Where it comes from.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.origin {
            Origin::Here(_) => Role::Origin,
            Origin::Elsewhere(_) => Role::Mirror,
        }
    }

    /// The publisher's signature, if it came with the manifest; `None` for what this node publishes itself.
    #[must_use]
    pub fn seal(&self) -> Option<Seal> {
        self.seal
    }

    /// Strong entity tag with its quotes: 128 bits of the manifest's digest, equal on every node.
    #[must_use]
    pub fn etag(&self) -> &str {
        &self.etag
    }

    /// The whole object from memory, verified, if it is small and was read before. No system call but, once a
    /// second, a look whether the published file changed; if so a new version is made, and this one serves until
    /// then.
    #[must_use]
    pub fn small(&self, now: Now) -> Option<Bytes> {
        if self.manifest.layout.size == 0 {
            return Some(Bytes::new());
        }
        let small = self.small.get()?;
        if let Some(fill) = self.fill() {
            fill.heat.touch(now);
        }
        if self.changed(now).is_some() {
            self.reader.suspects.name(&self.manifest.path);
        }
        Some(small.bytes.clone())
    }

    /// The chunks held now.
    #[must_use]
    pub fn have(&self) -> Have {
        match self.fill() {
            Some(fill) => fill.have(),
            None => Have::full(self.manifest.layout.count()),
        }
    }

    /// Chunks held now, without making a bitmap.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.fill()
            .map_or_else(|| self.manifest.layout.count(), Fill::held)
    }

    /// Whether every chunk is held.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.fill().is_none_or(Fill::complete)
    }

    /// Asks for a chunk to be fetched before others (a reader waits for it) and waits until it is held.
    /// Cancel-safe; the caller sets the deadline.
    pub async fn wanted(&self, index: u32) {
        if let Some(fill) = self.fill() {
            fill.wanted(index).await;
        }
    }

    /// Chunks readers wait for now, most urgent first (for the schedule).
    #[must_use]
    pub fn wants(&self) -> Vec<u32> {
        self.fill().map_or_else(Vec::new, Fill::wants)
    }

    /// Waits until a reader wants a chunk or a held one was dropped, so that the schedule need not be polled.
    /// For one waiter (the replicator). Cancel-safe; never ends for a published object.
    pub async fn asked(&self) {
        match self.fill() {
            Some(fill) => fill.asked().await,
            None => std::future::pending().await,
        }
    }

    /// Verifies and keeps one chunk (mirror), then wakes its readers; `false`: it was kept already. Blocking: call on the blocking
    /// pool.
    ///
    /// # Errors
    /// See [`WriteError`]; nothing is kept then.
    pub fn write(self: &Arc<Self>, index: u32, bytes: &[u8]) -> Result<bool, WriteError> {
        let metrics = &self.reader.metrics.content;
        let path = || self.manifest.path.clone();
        let Some(fill) = self.fill() else {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "published, not mirrored");
            return Err(WriteError::Io {
                path: path(),
                source,
            });
        };
        let layout = self.manifest.layout;
        let digest = self.manifest.chunks.get(index as usize);
        if bytes.len() != layout.len(index) as usize || digest != Some(&Digest::of(bytes)) {
            metrics.write_mismatch.inc();
            return Err(WriteError::Mismatch {
                path: path(),
                index,
            });
        }
        if fill.contains(index) {
            return Ok(false);
        }
        let kept = (|| {
            let file = self.source.open()?;
            self.reader
                .disk
                .write_at(&file, bytes, layout.start(index))?;
            let seals = self.reader.sealer.seal_all(bytes).collect();
            self.seals.set(index, layout.count(), seals);
            let marked = fill.insert(index, layout.len(index))?;
            if fill.mended(index) {
                metrics.repaired.inc();
                metrics.quarantined.dec();
            }
            if marked.sync
                && let Err(error) = fill.sync(&file)
            {
                // What was not made durable may be gone from memory too: at least this chunk comes again.
                fill.remove(index)?;
                return Err(error);
            }
            Ok(marked)
        })();
        let marked = kept.map_err(|e| {
            let error = WriteError::of(&self.manifest.path, e);
            match error {
                WriteError::Full { .. } => metrics.write_full.inc(),
                _ => metrics.write_io.inc(),
            }
            error
        })?;
        if marked.whole
            && let Some(keeper) = fill.keeper()
        {
            keeper.whole(self);
        }
        Ok(true)
    }

    /// Says whether it stays at another node when it is dropped here. One that does not is not evicted, nor one of
    /// which this was never said.
    pub fn set_elsewhere(&self, elsewhere: bool) {
        if let Some(fill) = self.fill() {
            fill.elsewhere.store(elsewhere, Ordering::Relaxed);
        }
    }

    /// Whether it was last said to stay at another node.
    #[must_use]
    pub fn elsewhere(&self) -> bool {
        self.fill()
            .is_some_and(|fill| fill.elsewhere.load(Ordering::Relaxed))
    }

    /// Readings of the whole lately (see [`super::evict`]); 0 for a published object, which is not evicted.
    pub(super) fn heat(&self, now: Now) -> f32 {
        self.fill().map_or(0.0, |fill| fill.heat.at(now))
    }

    /// Makes the chunks written so far durable. Blocking.
    pub(super) fn flush(&self) -> io::Result<()> {
        match self.fill() {
            Some(fill) if fill.unsynced() => fill.sync(&*self.source.open()?),
            _ => Ok(()),
        }
    }

    /// Its file will be at `place` in a moment: it was replaced or removed.
    pub(super) fn moves(&self, place: Place) {
        self.source.moves(place);
    }

    /// It was replaced or removed: it leaves the memory at once.
    pub(super) fn end(&self) {
        self.in_memory.end();
    }

    pub(super) fn fill(&self) -> Option<&Fill> {
        match &self.origin {
            Origin::Elsewhere(fill) => Some(fill),
            Origin::Here(_) => None,
        }
    }

    /// The stamp of a published object's file when it was digested.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        match &self.origin {
            Origin::Here(published) => Some(published.stamp),
            Origin::Elsewhere(_) => None,
        }
    }

    /// Whether the published file had been left alone long enough when it was digested, so that any later change
    /// shows in its stamp.
    pub(super) fn settled(&self) -> bool {
        matches!(&self.origin, Origin::Here(published) if published.settled)
    }

    /// How the file of a published object changed, looked at no more than once a second.
    pub(super) fn changed(&self, now: Now) -> Option<Change> {
        let Origin::Here(published) = &self.origin else {
            return None;
        };
        let secs = now.mono_secs();
        // The load first: a swap at every request would pass the line between all processors.
        let checked = &published.checked;
        if checked.load(Ordering::Relaxed) == secs || checked.swap(secs, Ordering::Relaxed) == secs
        {
            return None;
        }
        match self.source.place().stamp() {
            Ok(stamp) if stamp == published.stamp => None,
            Ok(stamp) => Some(Change::To(stamp)),
            Err(_) => Some(Change::Gone),
        }
    }

    fn io(&self, source: io::Error) -> ReadError {
        ReadError::Io {
            path: self.manifest.path.clone(),
            source,
        }
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        let Some(fill) = self.fill() else {
            return;
        };
        let metrics = &self.reader.metrics.content;
        metrics.quarantined.sub(fill.quarantined() as i64);
        if let Some(dir) = fill.doomed()
            && let Some(keeper) = fill.keeper()
        {
            keeper.released(dir, self.manifest.layout.size);
        }
    }
}

/// Why bytes could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes on disk are not those of the manifest; the chunk was dropped (mirror) or the object is
    /// being published anew (origin). Nothing wrong left the node.
    #[error("chunk {index} of {path}: digest mismatch")]
    Corrupt {
        /// Object path.
        path: String,
        /// Chunk number.
        index: u32,
    },
    /// The chunk is not held (mirror still filling).
    #[error("chunk {index} of {path} is not held yet")]
    Missing {
        /// Object path.
        path: String,
        /// Chunk number.
        index: u32,
    },
    /// The operating system's error.
    #[error("{path}: {source}")]
    Io {
        /// Object path.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why a chunk was not kept.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Its bytes are not those of the manifest: whoever sent it is wrong.
    #[error("chunk {index} of {path}: digest mismatch")]
    Mismatch {
        /// Object path.
        path: String,
        /// Chunk number.
        index: u32,
    },
    /// The disk or the store's size is used up.
    #[error("{path}: no space: {reason}")]
    Full {
        /// Object path.
        path: String,
        /// What is full: the store (bytes used and allowed) or the disk.
        reason: String,
    },
    /// The operating system's error.
    #[error("{path}: {source}")]
    Io {
        /// Object path.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl WriteError {
    pub(super) fn of(path: &str, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull => Self::Full {
                path,
                reason: "the disk is full".into(),
            },
            io::ErrorKind::QuotaExceeded => Self::Full {
                path,
                reason: "the disk quota is used up".into(),
            },
            _ => Self::Io { path, source },
        }
    }
}
