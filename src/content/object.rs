//! One object: a manifest, a file, and which of its bytes have been proved.
//!
//! No byte leaves without having been checked, on every read, and yet a resident read costs little more than the
//! copy out of the page cache:
//!
//! 1. A chunk is first read whole on the blocking pool and its BLAKE3 digest is compared with the manifest's. The
//!    same bytes are *sealed*: a seeded 64-bit hash of every 64 KiB block stays in memory (see `seal`; 128 KiB per
//!    GiB). Once per chunk and process: about 0.2 to 0.4 CPU seconds per GiB.
//! 2. Every later read takes the blocks around the wanted slice straight from the page cache on the calling thread
//!    (`preadv2` with `RWF_NOWAIT`, into a buffer used again) and compares their seals: the copy, and about 0.05 CPU
//!    seconds per GiB. Bytes that match are those that were proved, whoever else wrote or read the file meanwhile.
//! 3. Blocks that are not resident (or a file system that cannot tell) are read on the blocking pool and compared
//!    with their seals there.
//! 4. A seal that differs leads back to 1. A digest that differs ends in [`ReadError::Corrupt`]: a mirror drops the
//!    chunk, so that it is fetched again; of a published file whose stamp (device, inode, size, times) changed, a
//!    new version is made; one whose stamp did not change has rotted, and stays out of service until it is
//!    restored.
//!
//! A chunk that is read again and again skips all this: it is taken whole into memory (see `memory`), by 2 or 3, and
//! every later slice is a reference. Memory of our own cannot be written or truncated by others, so it needs no
//! second look: its bytes are the version's for as long as there is the version. Whether the published file is still
//! this version is looked at once a second.
//!
//! A published file is also held against its stamp at each slice: after any change that the file system knows of,
//! seals are not enough and the digest decides. Readers of an old version thus get its bytes while these exist
//! (a file replaced by `rename` stays open here), or an error; never a mixture.
//!
//! Why not a mapping: whoever truncates a mapped file kills the process (SIGBUS), bytes may change between check
//! and send, and a page that is not resident stalls all connections of the thread. Why not trust residency (a proved
//! page still in memory is still proved): `RWF_NOWAIT` itself starts read-ahead, and any other reader of the file
//! brings evicted pages back unproved.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::chunk::Digest;
use super::file::{Source, Stamp, read_at, read_resident};
use super::fill::Fill;
use super::have::Have;
use super::manifest::Manifest;
use super::memory::InMemory;
use super::reader::{Reader, Small};
use super::seal::{self, BLOCK, Seals};
use super::threads::Threads;
use crate::metrics::content::Limit;
use crate::time::Now;

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
    Elsewhere(Fill),
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
        reader: Arc<Reader>,
    ) -> Self {
        Self::new(manifest, id, source, Origin::Elsewhere(fill), reader)
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

    /// Strong entity tag with its quotes: 128 bits of the manifest's digest, equal on every node.
    #[must_use]
    pub fn etag(&self) -> &str {
        &self.etag
    }

    /// The whole object from memory, verified, if it is small and was read before. No system call but, once a
    /// second, a look whether the published file changed; if so a new version is made, and this one serves until
    /// then.
    #[must_use]
    pub fn small(&self) -> Option<Bytes> {
        if self.manifest.layout.size == 0 {
            return Some(Bytes::new());
        }
        let small = self.small.get()?;
        if self.changed(Now::read()).is_some() {
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

    /// Verified bytes of one chunk. Does not wait when they are resident and proved before; else they are read on
    /// the blocking pool, with a bound on reads at once.
    ///
    /// # Errors
    /// See [`ReadError`]; `Missing` for a chunk not held.
    pub async fn read(
        self: &Arc<Self>,
        index: u32,
        within: Range<u32>,
    ) -> Result<Bytes, ReadError> {
        self.admit(index, &within)?;
        if let Some(bytes) = self.read_memory(index, &within) {
            return Ok(bytes);
        }
        let often = self.note(index, &within);
        if let Some(bytes) = self.read_ready(index, &within, often) {
            return Ok(bytes);
        }
        let permits = &self.reader.waiting_reads;
        let permit = self.reader.permit(permits, Limit::Reads).await;
        // Whoever was before may have proved the chunk: of many readers of one cold chunk, few digest it.
        let ready = self.read_memory(index, &within);
        if let Some(bytes) = ready.or_else(|| self.read_ready(index, &within, often)) {
            return Ok(bytes);
        }
        let object = Arc::clone(self);
        let read = self.reader.threads.run(move || {
            let _permit = permit; // Held until the thread is done, even if the reader is gone.
            object.read_waiting(index, &within, often)
        });
        match read.await {
            Ok(result) => result,
            Err(stopped) => Err(self.io(io::Error::other(stopped))),
        }
    }

    /// As [`Object::read`], for a thread that may wait.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read_blocking(&self, index: u32, within: Range<u32>) -> Result<Bytes, ReadError> {
        self.admit(index, &within)?;
        if let Some(bytes) = self.read_memory(index, &within) {
            return Ok(bytes);
        }
        let often = self.note(index, &within);
        match self.read_ready(index, &within, often) {
            Some(bytes) => Ok(bytes),
            None => self.read_waiting(index, &within, often),
        }
    }

    /// Whether there can be such bytes.
    fn admit(&self, index: u32, within: &Range<u32>) -> Result<(), ReadError> {
        let len = self.manifest.layout.len(index);
        if within.start > within.end || within.end > len {
            let found = format!("bytes {within:?} of a chunk of {len}");
            return Err(self.io(io::Error::new(io::ErrorKind::InvalidInput, found)));
        }
        match self.fill() {
            Some(fill) if len > 0 && !fill.contains(index) => Err(ReadError::Missing {
                path: self.manifest.path.clone(),
                index,
            }),
            _ => Ok(()),
        }
    }

    /// A slice of a chunk that is held, if it is in memory. No system call but, once a second, a look whether the
    /// published file changed, as for [`Object::small`].
    #[must_use]
    pub fn in_memory(&self, index: u32, within: &Range<u32>) -> Option<Bytes> {
        self.admit(index, within).ok()?;
        self.read_memory(index, within)
    }

    /// What needs neither a disk nor a check.
    fn read_memory(&self, index: u32, within: &Range<u32>) -> Option<Bytes> {
        if within.is_empty() {
            return Some(Bytes::new());
        }
        let chunk = match self.small.get() {
            Some(small) => small.bytes.clone(),
            None => self.in_memory.get(index)?,
        };
        // These are the version's bytes whatever became of the file: the look is for whoever wants the next one.
        if self.changed(Now::read()).is_some() {
            self.reader.suspects.name(&self.manifest.path);
        }
        self.reader.metrics.content.from_memory.inc();
        Some(chunk.slice(within.start as usize..within.end as usize))
    }

    /// A slice is read from disk now. Whether its chunk is read often enough to be taken into memory.
    fn note(&self, index: u32, within: &Range<u32>) -> bool {
        self.reader.metrics.content.from_disk.inc();
        let layout = self.manifest.layout;
        if self.reader.is_small(layout.size) {
            return false;
        }
        let read = within.end - within.start;
        self.in_memory
            .note(index, layout.count(), layout.len(index), read)
    }

    /// What can be had from disk without waiting.
    fn read_ready(&self, index: u32, within: &Range<u32>, often: bool) -> Option<Bytes> {
        let file = self.source.kept()?;
        self.read_proved(index, within, file, often, read_resident)
    }

    fn read_waiting(
        &self,
        index: u32,
        within: &Range<u32>,
        often: bool,
    ) -> Result<Bytes, ReadError> {
        let file = self.source.open().map_err(|e| self.io(e))?;
        let read = |file: &File, buffer: &mut [u8], at| read_at(file, buffer, at).is_ok();
        match self.read_proved(index, within, &file, often, read) {
            Some(bytes) => Ok(bytes),
            None => self.read_digested(index, within, &file),
        }
    }

    /// Reads a slice of a chunk that was proved before, and the whole chunk into memory if it is read often.
    fn read_proved(
        &self,
        index: u32,
        within: &Range<u32>,
        file: &File,
        often: bool,
        read: impl Fn(&File, &mut [u8], u64) -> bool,
    ) -> Option<Bytes> {
        if often && let Some(chunk) = self.take_in(index, file, &read) {
            return Some(chunk.slice(within.start as usize..within.end as usize));
        }
        self.read_sealed(index, within, file, read)
    }

    /// Reads a whole chunk into memory, holds it against its seals and keeps it.
    fn take_in(
        &self,
        index: u32,
        file: &File,
        read: impl FnOnce(&File, &mut [u8], u64) -> bool,
    ) -> Option<Bytes> {
        let seals = self.seals.get(index)?;
        let layout = self.manifest.layout;
        let mut room = self.in_memory.room(layout.len(index))?;
        if !read(file, room.as_mut(), layout.start(index))
            || !self.reader.sealer.holds(&seals, 0, room.as_ref())
            || !self.stamped(file)
        {
            return None;
        }
        self.reader.metrics.content.proved.inc();
        Some(self.in_memory.put(index, room))
    }

    /// Reads the blocks around the slice and holds them against their seals.
    fn read_sealed(
        &self,
        index: u32,
        within: &Range<u32>,
        file: &File,
        read: impl FnOnce(&File, &mut [u8], u64) -> bool,
    ) -> Option<Bytes> {
        let seals = self.seals.get(index)?;
        let layout = self.manifest.layout;
        let (first, span) = seal::blocks(within, layout.len(index));
        let mut buffer = self.reader.buffers.take(span.len());
        if !read(
            file,
            buffer.as_mut(),
            layout.start(index) + span.start as u64,
        ) || !self.reader.sealer.holds(&seals, first, buffer.as_ref())
            || !self.stamped(file)
        {
            return None;
        }
        self.reader.metrics.content.proved.inc();
        let start = within.start as usize - span.start;
        let bytes = buffer.share(start..start + within.len());
        if within.len() as u64 == layout.size {
            self.keep_small(&bytes);
        }
        Some(bytes)
    }

    /// Reads the whole chunk, holds it against the manifest and seals it.
    fn read_digested(
        &self,
        index: u32,
        within: &Range<u32>,
        file: &File,
    ) -> Result<Bytes, ReadError> {
        let layout = self.manifest.layout;
        let len = layout.len(index) as usize;
        let wanted = within.start as usize..within.end as usize;
        let mut out = self.reader.buffers.take(wanted.len());
        let mut work = self.reader.buffers.take(WORK.min(len));
        let mut hasher = blake3::Hasher::new();
        let mut seals = Vec::with_capacity(len.div_ceil(BLOCK));
        for start in (0..len).step_by(WORK) {
            let end = len.min(start + WORK);
            let part = &mut work.as_mut()[..end - start];
            match read_at(file, part, layout.start(index) + start as u64) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(self.corrupt(index, file));
                }
                Err(e) => return Err(self.io(e)),
            }
            hasher.update(part);
            seals.extend(self.reader.sealer.seal_all(part));
            let (from, to) = (wanted.start.max(start), wanted.end.min(end));
            if from < to {
                out.as_mut()[from - wanted.start..to - wanted.start]
                    .copy_from_slice(&part[from - start..to - start]);
            }
        }
        self.reader.metrics.content.digested.inc();
        if self.manifest.chunks[index as usize].0 != *hasher.finalize().as_bytes() {
            return Err(self.corrupt(index, file));
        }
        if self.stamped(file) {
            self.seals.set(index, layout.count(), seals);
            if wanted.len() as u64 == layout.size {
                self.keep_small(out.as_ref());
            }
        }
        Ok(out.share(0..wanted.len()))
    }

    /// Whether the published file is as it was when it was digested; a mirrored one is written by us alone.
    fn stamped(&self, file: &File) -> bool {
        match &self.origin {
            Origin::Here(published) => {
                matches!(Stamp::of_file(file), Ok(Some(stamp)) if stamp == published.stamp)
            }
            Origin::Elsewhere(_) => true,
        }
    }

    fn keep_small(&self, bytes: &[u8]) {
        if self.small.get().is_none()
            && let Some(small) = self.reader.keep_small(bytes)
        {
            // If another reader was faster, this one's share is given back.
            drop(self.small.set(small));
        }
    }

    /// Takes chunk `index` out of service and tells who can mend it.
    fn corrupt(&self, index: u32, file: &File) -> ReadError {
        let path = &self.manifest.path;
        self.seals.clear(index);
        self.in_memory.remove(index);
        self.reader.metrics.content.corrupt.inc();
        match &self.origin {
            Origin::Elsewhere(fill) => match fill.remove(index) {
                Ok(true) => {
                    tracing::warn!(%path, index, "digest mismatch on disk, chunk is fetched again");
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(%path, index, %error, "have record not written"),
            },
            Origin::Here(published) if self.stamped(file) => {
                if !published.reported.swap(true, Ordering::Relaxed) {
                    tracing::error!(
                        %path,
                        index,
                        "published file rotted: bytes changed, times did not; restore or touch it"
                    );
                }
                // A file digested while it was being written may look like this; the publisher tells.
                self.reader.suspects.name(path);
            }
            Origin::Here(_) => self.reader.suspects.name(path),
        }
        ReadError::Corrupt {
            path: path.clone(),
            index,
        }
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

    /// Verifies and keeps one chunk (mirror), then wakes its readers. Blocking: call on the blocking pool.
    ///
    /// # Errors
    /// See [`WriteError`]; nothing is kept then.
    pub fn write(self: &Arc<Self>, index: u32, bytes: &[u8]) -> Result<(), WriteError> {
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
            return Ok(());
        }
        let kept = (|| {
            let file = self.source.open()?;
            file.write_all_at(bytes, layout.start(index))?;
            let seals = self.reader.sealer.seal_all(bytes).collect();
            self.seals.set(index, layout.count(), seals);
            let marked = fill.insert(index, layout.len(index))?;
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
        Ok(())
    }

    /// Makes the chunks written so far durable. Blocking.
    pub(super) fn flush(&self) -> io::Result<()> {
        match self.fill() {
            Some(fill) if fill.unsynced() => fill.sync(&*self.source.open()?),
            _ => Ok(()),
        }
    }

    /// Digests every held chunk anew; those that fail are dropped (mirror). Blocking. Returns (good, bad).
    #[must_use]
    pub fn verify(&self) -> (u32, u32) {
        let Ok(file) = self.source.open() else {
            return (0, self.held());
        };
        let (mut good, mut bad) = (0, 0);
        for index in 0..self.manifest.layout.count() {
            if self.fill().is_some_and(|fill| !fill.contains(index)) {
                continue;
            }
            match self.read_digested(index, &(0..0), &file) {
                Ok(_) => good += 1,
                Err(_) => bad += 1,
            }
        }
        (good, bad)
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
        if let Some(fill) = self.fill()
            && let Some(dir) = fill.doomed()
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

/// Bytes read and digested at a time: they stay in the processor's cache.
const WORK: usize = 4 * BLOCK;
