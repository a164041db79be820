//! Memory and disk within their budgets.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use bytes::Bytes;

use super::content::{CHUNK, Content, Ledger, OnDisk, Reads};
use super::disk::{Disk, Room};
use super::table::{Stored, Table};
use super::{Config, fetch};
use crate::metrics::Metrics;
use crate::metrics::proxy::Limit;

/// What is kept, and where.
#[derive(Debug)]
pub(super) struct Keep {
    pub(super) table: Arc<Table>,
    pub(super) disk: Disk,
    pub(super) ledger: Ledger,
    memory: Arc<Memory>,
    size: u64,
    metrics: Arc<Metrics>,
}

/// Chunks in memory that are on disk too.
#[derive(Debug)]
struct Memory {
    rings: Mutex<Rings>,
    budget: i64,
    ledger: Ledger,
}

#[derive(Debug, Default)]
struct Rings {
    /// Small bodies, and chunks read often: what was not used since the hand came by goes first.
    kept: VecDeque<(Weak<Content>, u64)>,
    /// Chunks of large bodies that were just brought: those who read close behind find them here, then they go. One large
    /// body does not wash out the rest.
    passing: VecDeque<(Weak<Content>, u64)>,
}

impl Memory {
    /// A chunk came in whose copy in memory may go again.
    fn came(&self, content: &Arc<Content>, index: u64) {
        let mut rings = self.rings();
        rings.kept.push_back((Arc::downgrade(content), index));
        self.fit(&mut rings);
        // Contents that are gone leave their places behind.
        let kept = &mut rings.kept;
        if kept.len() > RING && kept.len().is_power_of_two() {
            kept.retain(|(content, _)| content.strong_count() > 0);
        }
    }

    /// A chunk of a large body came in.
    fn passes(&self, content: &Arc<Content>, index: u64) {
        let mut rings = self.rings();
        rings.passing.push_back((Arc::downgrade(content), index));
        // A buffer that is free again soon is still in the processor's cache when it is filled again.
        rings.passing.retain(|(content, index)| {
            let content = content.upgrade();
            let wanted = content.filter(|content| content.is_wanted(*index));
            wanted.is_some()
        });
        let most = usize::try_from(self.budget / 8 / CHUNK as i64).unwrap_or(usize::MAX);
        if rings.passing.len() > most.clamp(1, PASSING) {
            pass_oldest(&mut rings);
        }
        self.fit(&mut rings);
    }

    fn fit(&self, rings: &mut Rings) {
        let over = || self.ledger.memory.get() > self.budget;
        while over() && pass_oldest(rings) {}
        for _ in 0..2 * rings.kept.len() {
            if !over() {
                break;
            }
            let Some((content, index)) = rings.kept.pop_front() else {
                break;
            };
            if let Some(held) = content.upgrade()
                && !held.release(index)
            {
                rings.kept.push_back((content, index));
            }
        }
    }

    fn rings(&self) -> std::sync::MutexGuard<'_, Rings> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets the oldest of the passing chunks go; `false` if there is none.
fn pass_oldest(rings: &mut Rings) -> bool {
    let oldest = rings.passing.pop_front();
    if let Some(content) = oldest.as_ref().and_then(|(content, _)| content.upgrade()) {
        content.pass(oldest.as_ref().map_or(0, |(_, index)| *index));
    }
    oldest.is_some()
}

/// What the thread that writes knows of the rest.
struct Desk {
    memory: Arc<Memory>,
    /// Weak: what is stored knows that thread.
    table: Weak<Table>,
    disk: prometheus::IntGauge,
    metrics: Arc<Metrics>,
}

impl Room for Desk {
    fn written(&self, content: &Arc<Content>, index: u64) {
        if content.is_large() {
            self.memory.passes(content, index);
        } else {
            self.memory.came(content, index);
        }
    }

    fn make(&self) -> bool {
        let Some(table) = self.table.upgrade() else {
            return false;
        };
        let before = self.disk.get();
        // What is being read, or filled, goes only when that is over: then another has to.
        for _ in 0..EVICTED {
            match table.evict() {
                Some(_) => self.metrics.proxy.evicted.inc(),
                None => break,
            }
            if before - self.disk.get() >= ROOM {
                break;
            }
        }
        let entries = i64::try_from(table.count()).unwrap_or(i64::MAX);
        self.metrics.proxy.entries.set(entries);
        self.disk.get() < before
    }
}

impl Keep {
    /// Opens the files and takes over what they hold. Blocks.
    pub(super) fn open(config: &Config, metrics: &Arc<Metrics>) -> std::io::Result<Self> {
        let ledger = Ledger {
            memory: metrics.proxy.memory.clone(),
            disk: metrics.proxy.disk.clone(),
            reads: Reads::new(config.memory),
            files: None,
        };
        let memory = Arc::new(Memory {
            rings: Mutex::default(),
            budget: i64::try_from(config.memory).unwrap_or(i64::MAX),
            ledger: ledger.clone(),
        });
        let table = Arc::new(Table::new(config.entries, config.variants));
        let desk = Desk {
            memory: Arc::clone(&memory),
            table: Arc::downgrade(&table),
            disk: ledger.disk.clone(),
            metrics: Arc::clone(metrics),
        };
        let disk = Disk::open(&config.dir, Arc::clone(metrics), desk)?;
        let ledger = Ledger {
            files: Some(disk.clone()),
            ..ledger
        };
        let keep = Self {
            table,
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

    /// Whether the disk may take `len` bytes more, were all else to make room.
    pub(super) fn fits(&self, len: u64) -> bool {
        let held = u64::try_from(self.ledger.disk.get()).unwrap_or(0);
        self.disk.fits(len, held)
    }

    /// Reads from disk, verified. What is read often comes into memory. `None`: it is lost.
    pub(super) async fn read(&self, reader: &Open, part: OnDisk) -> Option<Bytes> {
        if let Some(bytes) = self.read_ready(reader, &part) {
            return Some(bytes);
        }
        let content = &reader.content;
        let (disk, id) = (self.disk.clone(), content.id);
        let read = {
            let part = part.clone();
            move || disk.read(id, &part)
        };
        let read = tokio::task::spawn_blocking(read).await.ok().flatten();
        let Some((bytes, seals)) = read else {
            content.rotten(part.index);
            return None;
        };
        content.sealed(part.index, seals);
        if part.often || !content.is_large() {
            self.take_in(content, part.index, &bytes);
        }
        Some(bytes.slice(part.within))
    }

    /// What can be had without waiting.
    fn read_ready(&self, reader: &Open, part: &OnDisk) -> Option<Bytes> {
        part.proof.seals.as_ref()?;
        let file = match reader.file.get() {
            Some(file) => file,
            None => {
                let file = self.disk.file(reader.content.id)?;
                reader.file.get_or_init(|| file)
            }
        };
        if part.often
            && let Some(bytes) = self.disk.read_whole(file, part)
        {
            self.take_in(&reader.content, part.index, &bytes);
            return Some(bytes.slice(part.within.clone()));
        }
        self.disk.read_resident(file, part)
    }

    fn take_in(&self, content: &Arc<Content>, index: u64, bytes: &Bytes) {
        // It may stay for long: of what is less than a buffer, a copy.
        let bytes = if (bytes.len() as u64) < CHUNK {
            &Bytes::copy_from_slice(bytes)
        } else {
            bytes
        };
        if content.read_back(index, bytes) {
            self.memory.came(content, index);
        }
    }
}

/// A content as one reader has it open.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) content: Arc<Content>,
    file: OnceLock<File>,
}

impl Open {
    pub(super) fn new(content: &Arc<Content>) -> Self {
        Self {
            content: Arc::clone(content),
            file: OnceLock::new(),
        }
    }
}

/// Places in the ring from which on those of contents that are gone are looked for.
const RING: usize = 1024;

/// Chunks of large bodies that stay in memory for those who read close behind.
const PASSING: usize = 32;

/// Responses that make room on a full disk at once, at most.
const EVICTED: usize = 64;

/// Bytes that are enough room for now.
const ROOM: i64 = 4 << 20;
