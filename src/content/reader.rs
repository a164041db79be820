//! What all objects of one library share to read: buffers, the seed of the seals, and the bounds.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{AcquireError, Notify, OwnedSemaphorePermit, Semaphore};

use super::StoreConfig;
use super::buffers::Buffers;
use super::disk::Disk;
use super::memory::{self, Memory};
use super::seal::Sealer;
use super::threads::Threads;
use crate::metrics::Metrics;
use crate::metrics::content::Limit;

/// Shared by all objects of one library.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) buffers: Arc<Buffers>,
    pub(super) sealer: Sealer,
    pub(super) memory: Arc<Memory>,
    /// Reads that wait for the disk, at once; more wait here and not on threads.
    pub(super) waiting_reads: Arc<Semaphore>,
    reads: usize,
    pub(super) threads: Threads,
    /// Objects whose file is kept open.
    pub(super) open_files: Arc<Semaphore>,
    /// Published paths whose file is not what it was.
    pub(super) suspects: Suspects,
    pub(super) disk: Disk,
    pub(super) metrics: Arc<Metrics>,
    /// Half of an object's heat is forgotten in this time.
    pub(super) cold_secs: u64,
    small_object: u64,
    small_total: u64,
    small_used: AtomicU64,
}

/// A small object in memory; its share of the total is given back on drop.
#[derive(Debug)]
pub(super) struct Small {
    pub(super) bytes: Bytes,
    reader: Arc<Reader>,
}

/// Paths to look at anew; each once, however often it is named.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    paths: Mutex<BTreeSet<String>>,
    named: Notify,
}

impl Reader {
    /// Waits for one of `permits`, which bound `limit`.
    pub(super) async fn permit(
        &self,
        permits: &Arc<Semaphore>,
        limit: Limit,
    ) -> Result<OwnedSemaphorePermit, AcquireError> {
        if let Ok(permit) = Arc::clone(permits).try_acquire_owned() {
            return Ok(permit);
        }
        self.metrics.content.limit(limit);
        Arc::clone(permits).acquire_owned().await
    }

    pub(super) fn new(config: &StoreConfig, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            buffers: Buffers::new(config.buffers),
            sealer: Sealer::default(),
            memory: Memory::new(
                config.memory.unwrap_or_else(memory::default_size),
                Arc::clone(&metrics),
            ),
            waiting_reads: Arc::new(Semaphore::new(config.reads)),
            reads: config.reads,
            threads: Threads::new(config.threads, Arc::clone(&metrics)),
            open_files: Arc::new(Semaphore::new(open_files())),
            suspects: Suspects::default(),
            disk: config.disk.clone(),
            metrics,
            cold_secs: config.cold.as_secs(),
            small_object: u64::from(config.small_object),
            small_total: config.small_total,
            small_used: AtomicU64::new(0),
        })
    }

    /// Whether a read waits for the disk now.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting_reads.available_permits() < self.reads
    }

    /// Whether objects of `size` bytes are kept whole.
    pub(super) fn is_small(&self, size: u64) -> bool {
        size <= self.small_object
    }

    /// Keeps a whole object in memory if it is small and there is room. The room is not yet taken back from
    /// objects nobody asks for any more; a new version or a removal gives it back.
    pub(super) fn keep_small(self: &Arc<Self>, bytes: &[u8]) -> Option<Small> {
        let len = bytes.len() as u64;
        if !self.is_small(len) {
            return None;
        }
        let used = self.small_used.fetch_add(len, Ordering::Relaxed) + len;
        if used > self.small_total {
            self.small_used.fetch_sub(len, Ordering::Relaxed);
            return None;
        }
        self.metrics.content.small_bytes.add(gauge(len));
        Some(Small {
            bytes: Bytes::copy_from_slice(bytes),
            reader: Arc::clone(self),
        })
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let len = self.bytes.len() as u64;
        self.reader.small_used.fetch_sub(len, Ordering::Relaxed);
        self.reader.metrics.content.small_bytes.sub(gauge(len));
    }
}

impl Suspects {
    pub(super) fn name(&self, path: &str) {
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        if paths.insert(path.to_owned()) {
            self.named.notify_one();
        }
    }

    /// Waits until some are named and takes them. One taker. Cancel-safe.
    pub(super) async fn take(&self) -> BTreeSet<String> {
        loop {
            let taken = {
                let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut *paths)
            };
            if !taken.is_empty() {
                return taken;
            }
            self.named.notified().await;
        }
    }
}

/// Half of the files this process may open: sockets need the others.
fn open_files() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let half = limit.unwrap_or(u64::MAX) / 2;
    usize::try_from(half).unwrap_or(usize::MAX).min(1 << 20)
}

fn gauge(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
