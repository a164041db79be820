//! Chunks and entries in files.
//!
//! One file of chunks and one entry file for each response, beneath one folder. All is written by one thread, which
//! takes its work from a bounded queue, except what is brought by a thread of its own, which writes it too: who fills
//! faster than the disk takes is held back. Nothing is synced: a chunk is believed only if it digests to what its entry says, and an entry is put in place by renaming. So a crash, and bits
//! that flip, cost a fetch and never a wrong byte.
//!
//! A chunk is *sealed* when it is written, and when it was digested: a seeded hash of each block, which costs a tenth of
//! the digest (see `content/seal.rs`). What lies in the page cache is read on the calling thread, without waiting, and
//! held against the seals; all else is read and digested on a thread that may wait.

use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::{CWD, FallocateFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use tokio::sync::{mpsc, oneshot};

use super::content::{CHUNK, Content, Ledger, OnDisk, Proof};
use super::entry;
use super::table::Stored;
use crate::content::buffers::Buffers;
use crate::content::file::read_resident;
use crate::content::seal::{self, BLOCK, Sealer};
use crate::metrics::Metrics;
use crate::metrics::proxy::Disk as Reason;
use crate::time::Now;

/// The files of the cache. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Disk {
    jobs: mpsc::Sender<Job>,
    /// What is dropped from now on is dropped because the daemon ends: its files stay.
    closed: Arc<AtomicBool>,
    buffers: Arc<Buffers>,
    writer: Arc<Writer>,
}

enum Job {
    Chunk {
        content: Weak<Content>,
        index: u64,
    },
    Entry(Arc<Stored>),
    Done(oneshot::Sender<()>),
    /// There is something among those that are gone.
    Sweep,
}

/// What the threads that write tell and ask.
pub trait Room: Send + Sync {
    /// A chunk was written: memory may be kept within its budget.
    fn written(&self, content: &Arc<Content>, index: u64);

    /// The disk is full: lets something go. Gives whether there was anything.
    fn make(&self) -> bool;
}

impl Disk {
    /// Opens `dir`, making it where needed.
    ///
    /// # Errors
    /// What the kernel said of the folder or the thread.
    pub fn open(dir: &Path, metrics: Arc<Metrics>, room: impl Room + 'static) -> io::Result<Self> {
        for byte in 0..=255u8 {
            fs::create_dir_all(dir.join(format!("{byte:02x}")))?;
        }
        let (jobs, mut queue) = mpsc::channel(JOBS);
        let writer = Arc::new(Writer {
            dir: dir.into(),
            gone: Mutex::default(),
            failed: AtomicU64::new(0),
            sealer: Sealer::default(),
            metrics,
            room: Box::new(room),
        });
        let disk = Self {
            jobs,
            closed: Arc::default(),
            buffers: Buffers::new(BUFFERS),
            writer: Arc::clone(&writer),
        };
        let work = move || {
            while let Some(job) = next(&mut queue) {
                writer.sweep();
                writer.work(job);
            }
        };
        std::thread::Builder::new()
            .name("proxy-disk".to_owned())
            .spawn(work)?;
        Ok(disk)
    }

    /// Has a chunk written; waits while the queue is full.
    pub async fn chunk(&self, content: &Arc<Content>, index: u64) {
        let content = Arc::downgrade(content);
        // The thread ends only with the process.
        let _ = self.jobs.send(Job::Chunk { content, index }).await;
    }

    /// Writes a chunk; blocks.
    pub fn write(&self, content: &Arc<Content>, index: u64) {
        self.writer.chunk(content, index);
    }

    /// Buffers for what is read.
    #[must_use]
    pub(super) fn buffers(&self) -> &Arc<Buffers> {
        &self.buffers
    }

    /// Whether it could not be written a moment ago: what does not fit in memory is passed on then, and tried again soon.
    #[must_use]
    pub fn fails(&self, now: u64) -> bool {
        now.saturating_sub(self.writer.failed.load(Relaxed)) < AGAIN
    }

    /// Whether there is room for `len` bytes, if all that is kept, `held` bytes, makes room. Counts it if there is not.
    #[must_use]
    pub fn fits(&self, len: u64, held: u64) -> bool {
        // What cannot be told is tried.
        let fits = rustix::fs::statvfs(&*self.writer.dir).map_or(true, |disk| {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            len <= free.saturating_add(held)
        });
        if !fits {
            self.writer.metrics.proxy.disk_failure(Reason::Full);
        }
        fits
    }

    /// Has an entry written; waits while the queue is full.
    pub async fn entry(&self, stored: &Arc<Stored>) {
        let _ = self.jobs.send(Job::Entry(Arc::clone(stored))).await;
    }

    /// Waits until all that was queued is done; from now on no file is removed.
    pub async fn close(&self) {
        self.closed.store(true, Relaxed);
        let (done, wait) = oneshot::channel();
        let _ = self.jobs.send(Job::Done(done)).await;
        let _ = wait.await;
    }

    /// Removes the files of a content that is gone.
    pub fn remove(&self, id: u128) {
        if !self.closed.load(Relaxed) {
            lock(&self.writer.gone).push(id);
            // A full queue means that the thread is awake, and it sweeps before each job.
            let _ = self.jobs.try_send(Job::Sweep);
        }
    }

    /// Opens the chunks of a content, if that can be had without waiting for the disk.
    #[must_use]
    pub fn file(&self, id: u128) -> Option<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let path = chunk_file(&self.writer.dir, id);
        let file = rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED);
        file.ok().map(File::from)
    }

    /// A part of a chunk, held against its seals, if it can be had without waiting: of memory of our own, used again.
    #[must_use]
    pub fn read_resident(&self, file: &File, part: &OnDisk) -> Option<Bytes> {
        let seals = part.proof.seals.as_ref()?;
        let edge = |at: usize| u32::try_from(at).ok();
        let within = edge(part.within.start)?..edge(part.within.end)?;
        let (first, span) = seal::blocks(&within, u32::try_from(part.length).ok()?);
        let mut buffer = self.buffers.take(span.len());
        let at = part.index * CHUNK + span.start as u64;
        if !read_resident(file, buffer.as_mut(), at)
            || !self.writer.sealer.holds(seals, first, buffer.as_ref())
        {
            return None;
        }
        Some(buffer.share(part.within.start - span.start..part.within.end - span.start))
    }

    /// As [`Disk::read_resident`], the whole chunk, into memory that may be kept.
    #[must_use]
    pub fn read_whole(&self, file: &File, part: &OnDisk) -> Option<Bytes> {
        let seals = part.proof.seals.as_ref()?;
        let mut buffer = self.buffers.take(usize::try_from(part.length).ok()?);
        if !read_resident(file, buffer.as_mut(), part.index * CHUNK)
            || !self.writer.sealer.holds(seals, 0, buffer.as_ref())
        {
            return None;
        }
        Some(buffer.share(0..usize::try_from(part.length).ok()?))
    }

    /// Reads the whole chunk of `part` and digests it; blocks. `None` when it cannot be read or is not what was written.
    #[must_use]
    pub fn read(&self, id: u128, part: &OnDisk) -> Option<(Bytes, Vec<u64>)> {
        let length = usize::try_from(part.length).ok()?;
        let mut buffer = self.buffers.take(length);
        let read = File::open(chunk_file(&self.writer.dir, id))
            .and_then(|file| file.read_exact_at(buffer.as_mut(), part.index * CHUNK));
        if let Err(error) = read {
            self.writer.metrics.proxy.disk_failure(Reason::Read);
            tracing::debug!(%error, "proxy cache: not read");
            return None;
        }
        if *blake3::hash(buffer.as_ref()).as_bytes() != part.proof.digest {
            self.writer.metrics.proxy.disk_failure(Reason::Rot);
            tracing::warn!(
                index = part.index,
                "proxy cache: a chunk changed on disk and is fetched again"
            );
            return None;
        }
        let seals = self.writer.sealer.seal_all(buffer.as_ref()).collect();
        Some((buffer.share(0..length), seals))
    }

    /// Reads all entries; removes files that belong to none. Blocks.
    #[must_use]
    pub fn restore(&self, ledger: &Ledger) -> Vec<Arc<Stored>> {
        let mut found = Vec::new();
        for byte in 0..=255u8 {
            let Ok(files) = fs::read_dir(self.writer.dir.join(format!("{byte:02x}"))) else {
                continue;
            };
            let mut orphans: Vec<PathBuf> = Vec::new();
            let mut known = Vec::new();
            for file in files.flatten() {
                let path = file.path();
                if path.extension().is_none_or(|e| e != "entry") {
                    orphans.push(path);
                    continue;
                }
                let stored = fs::read(&path)
                    .ok()
                    .and_then(|text| entry::restore(&text, ledger));
                match stored {
                    Some(stored) if path == entry_file(&self.writer.dir, stored.content.id) => {
                        known.push(chunk_file(&self.writer.dir, stored.content.id));
                        found.push(Arc::new(stored));
                    }
                    _ => orphans.push(path),
                }
            }
            for orphan in orphans.iter().filter(|path| !known.contains(path)) {
                // What stays is found again at the next start.
                let _ = fs::remove_file(orphan);
            }
        }
        found
    }
}

/// What the threads that write work with.
struct Writer {
    dir: Box<Path>,
    /// Contents whose files are to go.
    gone: Mutex<Vec<u128>>,
    /// When it could not be written last, milliseconds since 1970.
    failed: AtomicU64,
    sealer: Sealer,
    metrics: Arc<Metrics>,
    room: Box<dyn Room>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl Writer {
    fn work(&self, job: Job) {
        match job {
            Job::Chunk { content, index } => {
                if let Some(content) = content.upgrade() {
                    self.chunk(&content, index);
                }
            }
            Job::Entry(stored) => {
                if let Some(text) = entry::text(&stored) {
                    let path = entry_file(&self.dir, stored.content.id);
                    self.persist(|| replace(&path, &text));
                }
            }
            Job::Done(done) => {
                let _ = done.send(());
            }
            Job::Sweep => {}
        }
    }

    fn chunk(&self, content: &Arc<Content>, index: u64) {
        let Some(parts) = content.unwritten(index) else {
            return;
        };
        if self.persist(|| write(&chunk_file(&self.dir, content.id), index, &parts)) {
            content.written(index, prove(&self.sealer, &parts));
            self.room.written(content, index);
        } else if content.is_large() {
            content.unkeep();
        }
    }

    /// Does `write`, again while a full disk can be helped; gives whether it was done.
    fn persist(&self, write: impl Fn() -> io::Result<()>) -> bool {
        let mut turns = 0;
        loop {
            let Err(error) = write() else {
                return true;
            };
            let full = matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            );
            if full && turns < TURNS && self.room.make() {
                self.sweep();
                turns += 1;
                continue;
            }
            let reason = if full { Reason::Full } else { Reason::Write };
            self.metrics.proxy.disk_failure(reason);
            self.failed.store(Now::read().unix_ms, Relaxed);
            tracing::debug!(%error, "proxy cache: not written");
            return false;
        }
    }

    /// Removes the files of what is gone.
    fn sweep(&self) {
        let gone = std::mem::take(&mut *lock(&self.gone));
        for id in gone {
            // Either may never have been written; what stays is found at the next start.
            let _ = fs::remove_file(entry_file(&self.dir, id));
            let _ = fs::remove_file(chunk_file(&self.dir, id));
        }
    }
}

/// What is to be done next. After a pause it waits a little: who asked for a chunk is still being sent it, and a write
/// takes the core for milliseconds where pages are cold.
fn next(queue: &mut mpsc::Receiver<Job>) -> Option<Job> {
    if let Ok(job) = queue.try_recv() {
        return Some(job);
    }
    let job = queue.blocking_recv()?;
    std::thread::sleep(AFTER);
    Some(job)
}

/// Writes a chunk to its place: at once, however it came, as the file system takes what is written at once in folios as
/// large.
fn write(path: &Path, index: u64, parts: &[Bytes]) -> io::Result<()> {
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    let mut at = index * CHUNK;
    let length: u64 = parts.iter().map(|part| part.len() as u64).sum();
    if length >= AHEAD {
        // Where it cannot be done or there is no room, the write says so.
        let _ = rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, at, length);
    }
    let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut left = &mut slices[..];
    while !left.is_empty() {
        match rustix::io::pwritev(&file, &left[..left.len().min(SLICES)], at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(wrote) => {
                at += wrote as u64;
                IoSlice::advance_slices(&mut left, wrote);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Puts a file in the place of the one before, whole or not at all.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let done = fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, path));
    if done.is_err() {
        // Half of it would take room.
        let _ = fs::remove_file(&fresh);
    }
    done
}

/// Digest and seals of a chunk in pieces: block by block, so that each is in the processor's cache for both.
fn prove(sealer: &Sealer, parts: &[Bytes]) -> Proof {
    let mut digest = blake3::Hasher::new();
    let mut seals = Vec::new();
    let mut take = |block: &[u8]| {
        digest.update(block);
        seals.push(sealer.seal(block));
    };
    let mut scratch = Vec::new();
    for part in parts {
        let mut part = &part[..];
        if !scratch.is_empty() {
            let (begun, rest) = part.split_at(part.len().min(BLOCK - scratch.len()));
            scratch.extend_from_slice(begun);
            part = rest;
            if scratch.len() == BLOCK {
                take(&scratch);
                scratch.clear();
            }
        }
        let blocks = part.chunks_exact(BLOCK);
        let rest = blocks.remainder();
        blocks.for_each(&mut take);
        scratch.extend_from_slice(rest);
    }
    if !scratch.is_empty() {
        take(&scratch);
    }
    Proof {
        digest: *digest.finalize().as_bytes(),
        seals: Some(seals.into()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn entry_file(dir: &Path, id: u128) -> PathBuf {
    dir.join(format!("{:02x}/{id:032x}.entry", id >> 120))
}

fn chunk_file(dir: &Path, id: u128) -> PathBuf {
    dir.join(format!("{:02x}/{id:032x}.chunks", id >> 120))
}

/// For so long after a failure only what is small is kept, milliseconds.
const AGAIN: u64 = 5_000;

/// How long a write waits for those who read to be done: far less than the queue takes to fill.
const AFTER: Duration = Duration::from_millis(4);

/// Chunks and entries that may wait to be written.
const JOBS: usize = 16;

/// What is at least so long has its place on the disk found before it is written, bytes: at once, where the file system
/// (ext4) would else keep accounts of each page. It saves a quarter of the processor time of writing a chunk.
const AHEAD: u64 = 256 << 10;

/// Pieces written at once, at most (`IOV_MAX`).
const SLICES: usize = 1024;

/// How often room is made for one write.
const TURNS: usize = 2;

/// Bytes of read buffers that are kept to be used again.
const BUFFERS: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn proof_is_the_same_however_a_chunk_came(
            len in 0usize..400_000, cuts in proptest::collection::vec(1usize..150_000, 1..12),
        ) {
            let whole: Bytes = (0..len).map(|i| (i % 251) as u8).collect();
            let mut left = whole.clone();
            let mut parts = Vec::new();
            for cut in cuts.iter().cycle() {
                if left.is_empty() { break; }
                parts.push(left.split_to(left.len().min(*cut)));
            }
            let sealer = Sealer::default();
            let proof = prove(&sealer, &parts);
            prop_assert_eq!(proof.digest, *blake3::hash(&whole).as_bytes());
            prop_assert_eq!(proof.seals.unwrap().to_vec(), sealer.seal_all(&whole).collect::<Vec<_>>());
        }
    }
}
