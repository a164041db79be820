//! Room in the store: what goes when more is wanted than `store.size` allows.
//!
//! What goes is chosen by [`evict`], of whole objects that nobody reads now. An object that went comes again by itself
//! only where room is left: else two objects of which one fits would be fetched in turns for ever.

use std::collections::HashSet;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::Inner;
use crate::content::chunk::Digest;
use crate::content::evict::{self, Candidate, Need};
use crate::metrics::content::Eviction;
use crate::time::Now;

/// What a new object is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Nobody asked for it yet.
    Replicate,
    /// A reader waits for it: it displaces whatever may go, the coldest first.
    Reader,
}

/// What is remembered of earlier evictions.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Versions that went; at most as many as there may be objects.
    gone: HashSet<Digest>,
    /// When too little was cold for a replica, by the second, and how many bytes were wanted: nothing cools in the same second, and
    /// all objects are looked at each time.
    fruitless: Option<(u64, u64)>,
}

impl Inner {
    /// Makes room for `size` bytes of version `id` if it is new here, or a reader waits for it. Under `change`.
    pub(super) fn make_room(&self, id: Digest, size: u64, purpose: Purpose, now: Now) {
        let used = self.used.load(Ordering::Acquire);
        let bytes = used.saturating_add(size).saturating_sub(self.size);
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes == 0 || size > self.size {
            return;
        }
        let (colder_than, reason) = match purpose {
            Purpose::Reader => (f32::INFINITY, Eviction::Reader),
            Purpose::Replicate if room.gone.contains(&id) => return,
            Purpose::Replicate => (evict::COLD, Eviction::Replicate),
        };
        let now_secs = now.mono_secs();
        let known = |&(at, wanted): &(u64, u64)| at == now_secs && bytes >= wanted;
        if purpose == Purpose::Replicate && room.fruitless.as_ref().is_some_and(known) {
            return;
        }
        let need = Need {
            bytes,
            spare: self.size / SPARE,
            colder_than,
        };
        if !self.evict(&mut room, need, reason, now) {
            // If not even what is hot is enough, what is cold is not.
            room.fruitless = Some((now_secs, bytes));
        }
    }

    /// Brings the store below its size after this was lowered: whatever may go goes, the coldest first. Under `change`.
    pub(super) fn trim(&self, now: Now) {
        self.doom_or_warn("objects removed before", Vec::new());
        let bytes = self.used.load(Ordering::Acquire).saturating_sub(self.size);
        if bytes == 0 {
            return;
        }
        let need = Need {
            bytes,
            spare: 0,
            colder_than: f32::INFINITY,
        };
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        self.evict(&mut room, need, Eviction::Size, now);
    }

    /// The version is here again.
    pub(super) fn came(&self, id: Digest) {
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        room.gone.remove(&id);
    }

    /// Evicts what `need` says; `false` if that cannot be had. Then nothing goes, unless for `Eviction::Size`.
    fn evict(&self, room: &mut Room, need: Need, reason: Eviction, now: Now) -> bool {
        let objects = self.library.evictable();
        let candidates: Vec<Candidate> = objects
            .iter()
            .map(|object| Candidate {
                bytes: object.manifest().layout.size,
                heat: object.heat(now),
                // The library has one, this list the other.
                pinned: std::sync::Arc::strong_count(object) > 2,
                elsewhere: object.elsewhere(),
            })
            .collect();
        let (chosen, freed) = evict::choose(&candidates, need);
        let enough = freed >= need.bytes;
        if !enough && reason != Eviction::Size {
            return false;
        }
        for place in chosen {
            let object = &objects[place];
            let (path, bytes) = (&object.manifest().path, candidates[place].bytes);
            tracing::info!(%path, bytes, reason = reason.label(), "evicted");
            self.metrics.content.evicted(reason, bytes);
            if room.gone.len() < self.library.objects_most() {
                room.gone.insert(object.id());
            }
            let removed = self.library.remove_mirrored(path);
            self.doom_or_warn(path, removed);
        }
        enough // The bytes are given back when `objects` goes.
    }
}

/// One part in so many is freed beyond the need, if it is cold: not every new object then looks at all others.
const SPARE: u64 = 64;
