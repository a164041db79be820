//! Memory and disk within their budgets.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;

use super::content::{Content, Ledger};
use super::disk::Disk;
use super::table::{Stored, Table};
use super::{Config, fetch};
use crate::metrics::Metrics;
use crate::metrics::proxy::Limit;

/// What is kept, and where.
#[derive(Debug)]
pub(super) struct Keep {
    pub(super) table: Table,
    pub(super) disk: Disk,
    pub(super) ledger: Ledger,
    memory: Arc<Memory>,
    size: u64,
    metrics: Arc<Metrics>,
}

/// Chunks in memory that are on disk too: what was not used since the hand came by goes first.
#[derive(Debug)]
struct Memory {
    ring: Mutex<VecDeque<(Weak<Content>, u64)>>,
    budget: i64,
    ledger: Ledger,
}

impl Memory {
    /// A chunk came in whose copy in memory may go again.
    fn came(&self, content: &Arc<Content>, index: u64) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.push_back((Arc::downgrade(content), index));
        for _ in 0..2 * ring.len() {
            if self.ledger.memory.get() <= self.budget {
                break;
            }
            let Some((content, index)) = ring.pop_front() else {
                break;
            };
            if let Some(held) = content.upgrade()
                && !held.release(index)
            {
                ring.push_back((content, index));
            }
        }
        // Contents that are gone leave their places behind.
        if ring.len() > RING && ring.len().is_power_of_two() {
            ring.retain(|(content, _)| content.strong_count() > 0);
        }
    }
}

impl Keep {
    /// Opens the files and takes over what they hold. Blocks.
    pub(super) fn open(config: &Config, metrics: &Arc<Metrics>) -> std::io::Result<Self> {
        let ledger = Ledger {
            memory: metrics.proxy.memory.clone(),
            disk: metrics.proxy.disk.clone(),
            files: None,
        };
        let memory = Arc::new(Memory {
            ring: Mutex::default(),
            budget: i64::try_from(config.memory).unwrap_or(i64::MAX),
            ledger: ledger.clone(),
        });
        let told = Arc::clone(&memory);
        let written = Box::new(move |content: &Arc<Content>, index| told.came(content, index));
        let disk = Disk::open(&config.dir, Arc::clone(metrics), written)?;
        let ledger = Ledger {
            files: Some(disk.clone()),
            ..ledger
        };
        let keep = Self {
            table: Table::new(config.entries, config.variants),
            disk,
            ledger,
            memory,
            size: config.size,
            metrics: Arc::clone(metrics),
        };
        for stored in keep.disk.restore(&keep.ledger) {
            keep.insert(&stored);
        }
        Ok(keep)
    }

    /// A content of its own, in no table yet.
    pub(super) fn content(&self, len: Option<u64>, strong: bool) -> Arc<Content> {
        Content::new(fetch::dice(), len, strong, self.ledger.clone())
    }

    /// Stores, and makes room.
    pub(super) fn insert(&self, stored: &Arc<Stored>) {
        let gone = self.table.insert(Arc::clone(stored));
        for old in &gone {
            if old.key == stored.key {
                self.metrics.proxy.limit(Limit::Variants);
            } else {
                self.metrics.proxy.evicted.inc();
            }
        }
        self.room();
    }

    /// Drops what is used least while there is more on disk, or in memory without being on disk, than there may be.
    pub(super) fn room(&self) {
        let over = |keep: &Self| {
            let disk = u64::try_from(keep.ledger.disk.get()).unwrap_or(0);
            disk > keep.size || keep.ledger.memory.get() > keep.memory.budget.saturating_mul(2)
        };
        // One response may be all that is kept.
        while over(self) && self.table.count() > 1 {
            match self.table.evict() {
                Some(_) => self.metrics.proxy.evicted.inc(),
                None => break,
            }
        }
        self.count();
    }

    /// Whether there is far more in memory than there may be: what comes is not taken by the disk.
    pub(super) fn is_crowded(&self) -> bool {
        self.ledger.memory.get() > self.memory.budget.saturating_mul(4)
    }

    /// Shows how much is stored.
    pub(super) fn count(&self) {
        let entries = i64::try_from(self.table.count()).unwrap_or(i64::MAX);
        self.metrics.proxy.entries.set(entries);
    }

    /// Reads a chunk from disk, verified, into memory. `None`: it is lost.
    pub(super) async fn read(
        &self,
        content: &Arc<Content>,
        index: u64,
        length: u64,
        digest: [u8; 32],
    ) -> Option<Bytes> {
        let (disk, id) = (self.disk.clone(), content.id);
        let read = move || disk.read(id, index, length, &digest);
        let read = tokio::task::spawn_blocking(read).await.ok().flatten();
        match &read {
            Some(bytes) => {
                if content.read_back(index, bytes) {
                    self.memory.came(content, index);
                }
            }
            None => content.rotten(index),
        }
        read
    }
}

/// Places in the ring from which on those of contents that are gone are looked for.
const RING: usize = 1024;
