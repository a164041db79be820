//! What recursion keeps: a bounded table over moka whose entries end at a time of the caller's clock.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use super::super::key::Kept;
use super::dname::Dname;
use crate::time::Now;

/// Something that is kept for a time.
pub(in super::super) trait Perishable: Send + Sync + 'static {
    /// Until when on the monotonic clock, nanoseconds.
    fn until_ns(&self) -> u64;
    /// Bytes it takes.
    fn weight(&self) -> usize;
}

/// A table by name and type, bounded in bytes.
pub(in super::super) struct Store<T: Perishable> {
    entries: moka::sync::Cache<Kept, Slot<T>, RandomState>,
}

struct Slot<T> {
    value: Arc<T>,
    life: Duration,
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self {
            value: Arc::clone(&self.value),
            life: self.life,
        }
    }
}

impl<T: Perishable> Store<T> {
    pub(in super::super) fn new(bytes: u64) -> Self {
        Self {
            entries: moka::sync::Cache::builder()
                .max_capacity(bytes)
                .weigher(|key: &Kept, slot: &Slot<T>| {
                    u32::try_from(key.len() + slot.value.weight() + OVERHEAD).unwrap_or(u32::MAX)
                })
                .expire_after(Life)
                .build_with_hasher(RandomState::default()),
        }
    }

    /// What is kept for (`name`, `rtype`) and has not run out at `now`.
    pub(in super::super) fn find(&self, name: &[u8], rtype: u16, now: Now) -> Option<Arc<T>> {
        let mut key = [0; 257];
        let key = &mut key[..name.len() + 2];
        key[..name.len()].copy_from_slice(name);
        key[name.len()..].copy_from_slice(&rtype.to_be_bytes());
        let slot = self.entries.get(&*key)?;
        (now.mono_ns < slot.value.until_ns()).then_some(slot.value)
    }

    /// Keeps `value`, unless it has run out already.
    pub(in super::super) fn keep(&self, name: &Dname, rtype: u16, value: Arc<T>, now: Now) {
        let life = Duration::from_nanos(value.until_ns().saturating_sub(now.mono_ns));
        if !life.is_zero() {
            self.entries.insert(key(name, rtype), Slot { value, life });
        }
    }

    /// Drops what is kept for (`name`, `rtype`).
    pub(in super::super) fn drop_one(&self, name: &Dname, rtype: u16) {
        self.entries.invalidate(&*key(name, rtype));
    }

    /// Drops everything whose name and type `matches`; returns how much. Walks the whole table.
    pub(in super::super) fn flush(&self, matches: &dyn Fn(&[u8], u16) -> bool) -> usize {
        self.entries
            .iter()
            .filter(|(key, _)| {
                let (name, rtype) = key.split_at(key.len() - 2);
                matches(name, u16::from_be_bytes([rtype[0], rtype[1]]))
            })
            .filter(|(key, _)| self.entries.remove(&***key).is_some())
            .count()
    }

    /// Does the bookkeeping moka has put off, then returns the bytes held.
    pub(in super::super) fn settle(&self) -> u64 {
        self.entries.run_pending_tasks();
        self.entries.weighted_size()
    }
}

impl<T: Perishable> fmt::Debug for Store<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("entries", &self.entries.entry_count())
            .finish()
    }
}

fn key(name: &Dname, rtype: u16) -> Kept {
    Kept::from(&*[name, &rtype.to_be_bytes()[..]].concat())
}

struct Life;

impl<T> moka::Expiry<Kept, Slot<T>> for Life {
    fn expire_after_create(&self, _: &Kept, slot: &Slot<T>, _: Instant) -> Option<Duration> {
        Some(slot.life)
    }

    fn expire_after_update(
        &self,
        _: &Kept,
        slot: &Slot<T>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(slot.life)
    }
}

/// What moka and the allocator take per entry beside key and entry: measured, 405 bytes at first and 640 once most have been
/// replaced.
const OVERHEAD: usize = 600;
