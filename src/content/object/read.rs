//! The bytes of one object, as they leave.
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
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::super::file::{Stamp, read_resident};
use super::super::seal::{self, BLOCK};
use super::{Object, Origin, ReadError};
use crate::metrics::content::Limit;
use crate::time::Now;

impl Object {
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
        let now = Now::read();
        self.warm(within, now);
        // These are the version's bytes whatever became of the file: the look is for whoever wants the next one.
        if self.changed(now).is_some() {
            self.reader.suspects.name(&self.manifest.path);
        }
        self.reader.metrics.content.from_memory.inc();
        Some(chunk.slice(within.start as usize..within.end as usize))
    }

    /// A slice is read from disk now. Whether its chunk is read often enough to be taken into memory.
    fn note(&self, index: u32, within: &Range<u32>) -> bool {
        self.reader.metrics.content.from_disk.inc();
        let layout = self.manifest.layout;
        self.warm(within, Now::read());
        if self.reader.is_small(layout.size) {
            return false;
        }
        let read = within.end - within.start;
        self.in_memory
            .note(index, layout.count(), layout.len(index), read)
    }

    /// A slice is read now.
    fn warm(&self, within: &Range<u32>, now: Now) {
        if let Some(fill) = self.fill() {
            let read = u64::from(within.end - within.start);
            fill.heat.warm(read, self.manifest.layout.size, now);
        }
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
        let disk = &self.reader.disk;
        let read = |file: &File, buffer: &mut [u8], at| disk.read_at(file, buffer, at).is_ok();
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
            let at = layout.start(index) + start as u64;
            match self.reader.disk.read_at(file, part, at) {
                Ok(()) => {}
                // What the disk cannot give back is as good as wrong; a mirror has it from elsewhere.
                Err(e)
                    if e.kind() == io::ErrorKind::UnexpectedEof
                        || (self.fill().is_some() && is_lost(&e)) =>
                {
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
        // A look that wants no bytes keeps no seals: it may go over a whole store.
        if !wanted.is_empty() && self.stamped(file) {
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
                Ok(false) => {}
                marked => {
                    tracing::warn!(%path, index, "wrong on disk, chunk is fetched again");
                    if let Err(error) = marked {
                        // After a restart its digest is looked at again.
                        tracing::warn!(%path, index, %error, "have record not written");
                    }
                    fill.quarantine(index);
                    self.reader.metrics.content.quarantined.inc();
                    if let Some(keeper) = fill.keeper() {
                        keeper.dropped(path);
                    }
                }
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

    /// Reads a chunk from disk and digests it, and leaves the page cache as it was; a wrong one is dropped as if a reader
    /// had found it. Blocking. `None` if it is not held.
    pub(in crate::content) fn scrub(&self, index: u32) -> Option<bool> {
        if self.fill().is_some_and(|fill| !fill.contains(index)) {
            return None;
        }
        let file = self.source.open().ok()?;
        let layout = self.manifest.layout;
        let (start, len) = (layout.start(index), layout.len(index));
        let was_resident = read_resident(&file, &mut [0], start);
        let good = self.read_digested(index, &(0..0), &file).is_ok();
        if !was_resident {
            let advice = rustix::fs::Advice::DontNeed;
            // Advice: nothing is lost where it is not taken.
            let _taken = rustix::fs::fadvise(&*file, start, NonZeroU64::new(len.into()), advice);
        }
        Some(good)
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
}

/// Whether the disk says that it cannot read what was written.
fn is_lost(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// Bytes read and digested at a time: they stay in the processor's cache.
const WORK: usize = 4 * BLOCK;
