//! Chunks and entries in files.
//!
//! One file of chunks and one entry file for each response, beneath one folder. All is written by one thread, which
//! takes its work from a bounded queue: who fills faster than the disk takes is held back. Nothing is synced: a chunk is
//! believed only if it digests to what its entry says, and an entry is put in place by renaming. So a crash, and bits
//! that flip, cost a fetch and never a wrong byte.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::content::{CHUNK, Content, Digest, Ledger};
use super::freshness::Life;
use super::table::Stored;
use crate::metrics::Metrics;
use crate::metrics::proxy::Disk as Reason;
use crate::time::Now;

/// The files of the cache. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Disk {
    dir: Arc<Path>,
    jobs: mpsc::Sender<Job>,
    /// What is dropped from now on is dropped because the daemon ends: its files stay.
    closed: Arc<AtomicBool>,
    /// When it could not be written last, milliseconds since 1970.
    failed: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
}

enum Job {
    Chunk {
        content: Weak<Content>,
        index: u64,
        bytes: Bytes,
    },
    Entry(Arc<Stored>),
    Remove(u128),
    Done(oneshot::Sender<()>),
}

/// Rung for each chunk that was written, to keep memory within its budget.
pub type Written = Box<dyn Fn(&Arc<Content>, u64) + Send>;

impl Disk {
    /// Opens `dir`, making it where needed. What is written is told to `written`.
    ///
    /// # Errors
    /// What the kernel said of the folder or the thread.
    pub fn open(dir: &Path, metrics: Arc<Metrics>, written: Written) -> io::Result<Self> {
        for byte in 0..=255u8 {
            fs::create_dir_all(dir.join(format!("{byte:02x}")))?;
        }
        let (jobs, mut queue) = mpsc::channel(JOBS);
        let disk = Self {
            dir: dir.into(),
            jobs,
            closed: Arc::default(),
            failed: Arc::default(),
            metrics,
        };
        let (dir, metrics) = (Arc::clone(&disk.dir), Arc::clone(&disk.metrics));
        let failed = Arc::clone(&disk.failed);
        let work = move || {
            while let Some(job) = queue.blocking_recv() {
                if let Err(error) = work(&dir, job, &written) {
                    metrics.proxy.disk_failure(Reason::Write);
                    failed.store(Now::read().unix_ms, Relaxed);
                    tracing::debug!(%error, "proxy cache: not written");
                }
            }
        };
        std::thread::Builder::new()
            .name("proxy-disk".to_owned())
            .spawn(work)?;
        Ok(disk)
    }

    /// Has a chunk written; waits while the queue is full.
    pub async fn chunk(&self, content: &Arc<Content>, index: u64, bytes: Bytes) {
        let content = Arc::downgrade(content);
        // The thread ends only with the process.
        let _ = self
            .jobs
            .send(Job::Chunk {
                content,
                index,
                bytes,
            })
            .await;
    }

    /// Whether it could not be written a moment ago: what does not fit in memory is passed on then, and tried again soon.
    #[must_use]
    pub fn fails(&self, now: u64) -> bool {
        now.saturating_sub(self.failed.load(Relaxed)) < AGAIN
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

    /// Removes the files of a content that is gone. Should the queue be full, they go at the next start.
    pub fn remove(&self, id: u128) {
        if !self.closed.load(Relaxed) {
            let _ = self.jobs.try_send(Job::Remove(id));
        }
    }

    /// Reads chunk `index` of `length` bytes and verifies it; blocks. `None` when it cannot be read or is not what was
    /// written.
    #[must_use]
    pub fn read(&self, id: u128, index: u64, length: u64, digest: &Digest) -> Option<Bytes> {
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        let read = File::open(chunks(&self.dir, id))
            .and_then(|file| file.read_exact_at(&mut bytes, index * CHUNK));
        if let Err(error) = read {
            self.metrics.proxy.disk_failure(Reason::Read);
            tracing::debug!(%error, "proxy cache: not read");
            return None;
        }
        if blake3::hash(&bytes).as_bytes() != digest {
            self.metrics.proxy.disk_failure(Reason::Rot);
            tracing::warn!(
                index,
                "proxy cache: a chunk changed on disk and is fetched again"
            );
            return None;
        }
        Some(bytes.into())
    }

    /// Reads all entries; removes files that belong to none. Blocks.
    #[must_use]
    pub fn restore(&self, ledger: &Ledger) -> Vec<Arc<Stored>> {
        let mut found = Vec::new();
        for byte in 0..=255u8 {
            let Ok(files) = fs::read_dir(self.dir.join(format!("{byte:02x}"))) else {
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
                let stored = fs::read(&path).ok().and_then(|text| restore(&text, ledger));
                match stored {
                    Some(stored) if path == entry(&self.dir, stored.content.id) => {
                        known.push(chunks(&self.dir, stored.content.id));
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

fn work(dir: &Path, job: Job, written: &Written) -> io::Result<()> {
    match job {
        Job::Chunk {
            content,
            index,
            bytes,
        } => {
            let Some(content) = content.upgrade() else {
                return Ok(());
            };
            let digest = *blake3::hash(&bytes).as_bytes();
            let file = File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(chunks(dir, content.id))?;
            file.write_all_at(&bytes, index * CHUNK)?;
            content.written(index, digest);
            written(&content, index);
            Ok(())
        }
        Job::Entry(stored) => {
            let Some(text) = text(&stored) else {
                return Ok(());
            };
            let path = entry(dir, stored.content.id);
            let fresh = path.with_extension("new");
            fs::write(&fresh, text)?;
            fs::rename(&fresh, &path)
        }
        Job::Remove(id) => {
            // Either may never have been written.
            let _ = fs::remove_file(entry(dir, id));
            let _ = fs::remove_file(chunks(dir, id));
            Ok(())
        }
        Job::Done(done) => {
            let _ = done.send(());
            Ok(())
        }
    }
}

fn entry(dir: &Path, id: u128) -> PathBuf {
    dir.join(format!("{:02x}/{id:032x}.entry", id >> 120))
}

fn chunks(dir: &Path, id: u128) -> PathBuf {
    dir.join(format!("{:02x}/{id:032x}.chunks", id >> 120))
}

/// An entry as its file holds it. Field values are kept byte for byte, each as one character.
#[derive(Serialize, Deserialize)]
struct Entry {
    id: String,
    key: String,
    vary: Vec<(String, Option<String>)>,
    status: u16,
    head: Vec<(String, String)>,
    born: u64,
    fresh: u64,
    revalidate: u64,
    on_error: u64,
    always: bool,
    strict: bool,
    strong: bool,
    len: u64,
    /// Digests of its chunks; empty where one is missing.
    chunks: Vec<String>,
}

fn text(stored: &Stored) -> Option<Vec<u8>> {
    let (len, digests) = stored.content.digests()?;
    let life = stored.life;
    let entry = Entry {
        id: format!("{:032x}", stored.content.id),
        key: stored.key.to_string(),
        vary: stored
            .vary
            .iter()
            .map(|(n, v)| (n.to_string(), v.as_deref().map(latin)))
            .collect(),
        status: stored.status.as_u16(),
        head: stored
            .head
            .iter()
            .map(|(n, v)| (n.to_string(), latin(v.as_bytes())))
            .collect(),
        born: life.born,
        fresh: life.fresh,
        revalidate: life.revalidate,
        on_error: life.on_error,
        always: life.always,
        strict: life.strict,
        strong: stored.content.strong,
        len,
        chunks: digests
            .iter()
            .map(|d| d.map_or_else(String::new, |d| blake3::Hash::from(d).to_hex().to_string()))
            .collect(),
    };
    serde_json::to_vec(&entry).ok()
}

fn restore(text: &[u8], ledger: &Ledger) -> Option<Stored> {
    let entry: Entry = serde_json::from_slice(text).ok()?;
    let id = u128::from_str_radix(&entry.id, 16).ok()?;
    let mut digests = Vec::with_capacity(entry.chunks.len());
    for text in &entry.chunks {
        digests.push(if text.is_empty() {
            None
        } else {
            Some(*blake3::Hash::from_hex(text).ok()?.as_bytes())
        });
    }
    // What is not whole and cannot be completed is of no use.
    if digests.len() as u64 != entry.len.div_ceil(CHUNK)
        || !entry.strong && digests.iter().any(Option::is_none)
    {
        return None;
    }
    let mut head = HeaderMap::with_capacity(entry.head.len());
    for (name, value) in &entry.head {
        head.append(
            HeaderName::from_bytes(name.as_bytes()).ok()?,
            HeaderValue::from_bytes(&bytes(value)?).ok()?,
        );
    }
    let mut vary = Vec::with_capacity(entry.vary.len());
    for (name, value) in &entry.vary {
        let value = match value {
            Some(value) => Some(bytes(value)?),
            None => None,
        };
        vary.push((HeaderName::from_bytes(name.as_bytes()).ok()?, value));
    }
    let life = Life {
        born: entry.born,
        fresh: entry.fresh,
        revalidate: entry.revalidate,
        on_error: entry.on_error,
        always: entry.always,
        strict: entry.strict,
    };
    let status = StatusCode::from_u16(entry.status).ok()?;
    let content = Content::restored(id, entry.len, entry.strong, &digests, ledger.clone());
    Some(Stored::new(
        entry.key.into(),
        vary,
        status,
        head,
        life,
        content,
    ))
}

fn latin(bytes: &[u8]) -> String {
    bytes.iter().map(|b| char::from(*b)).collect()
}

fn bytes(latin: &str) -> Option<Vec<u8>> {
    latin.chars().map(|c| u8::try_from(c).ok()).collect()
}

/// For so long after a failure only what is small is kept, milliseconds.
const AGAIN: u64 = 5_000;

/// Chunks and entries that may wait to be written.
const JOBS: usize = 16;
