//! The answers of the cache in a table of bounded memory: what is used stays, a scan of names goes through.
//!
//! The table is cut into shards, each with a lock of its own that is held for one look or one change. A shard keeps its
//! answers in two queues (S3-FIFO): a newcomer waits in the small one, and only if it is used there, or comes back soon after
//! it was dropped, gets into the large one, where each use is worth one more round. What cannot even be given stale any more
//! goes first.
//!
//! Bytes are those the allocator hands out: of each answer its two pieces with their headers, and the arrays of the shard with
//! the room they have. The key is not kept: name and type stand in the answer, the rest beside it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::entry::Entry;
use super::key::{Key, Parts};
use super::partition::Partition;
use crate::time::Now;

/// Answers by key.
pub(super) struct Table {
    shards: Box<[Mutex<Shard>]>,
}

struct Shard {
    slots: Vec<Slot>,
    /// The first of the slots that hold nothing; their hashes lead on.
    vacant: u32,
    /// Slots by hash, open addressing with linear probing; a power of two, or empty.
    index: Vec<u32>,
    small: VecDeque<u32>,
    large: VecDeque<u32>,
    /// Who was dropped from the small queue lately: by hash, the latest only.
    ghosts: Box<[u16]>,
    /// Bytes of the answers, and the most with everything else.
    answers: usize,
    most: usize,
    stale: Duration,
}

/// Where an answer is.
struct Slot {
    entry: Option<Arc<Entry>>,
    /// The lower half of the hash of the key; of a vacant slot, the next vacant one.
    hash: u32,
    partition: Partition,
    /// DO and CD, as in the key.
    flags: u8,
    /// Uses since it got its place in a queue, at most [`USES`].
    uses: u8,
}

impl Table {
    /// An empty table of at most `bytes`. Answers are gone once they have been expired for `stale`.
    pub(super) fn new(bytes: usize, stale: Duration) -> Self {
        let shards = (bytes / SHARD_LEAST).clamp(1, SHARDS);
        let shards = 1 << shards.ilog2();
        let shard = || Mutex::new(Shard::new(bytes / shards, stale));
        Self {
            shards: (0..shards).map(|_| shard()).collect(),
        }
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        // The lower half leads to the place within.
        let at = (hash >> 32) as usize & (self.shards.len() - 1);
        lock(&self.shards[at])
    }

    /// The answer of `key`, whose hash is `hash`, whatever its age. Counts as a use.
    #[inline]
    pub(super) fn get(&self, hash: u64, key: &[u8]) -> Option<Arc<Entry>> {
        let mut shard = self.shard(hash);
        let (_, at) = shard.find(hash as u32, key)?;
        let slot = &mut shard.slots[at as usize];
        slot.uses = (slot.uses + 1).min(USES);
        slot.entry.clone()
    }

    /// Keeps `entry` in place of what there was of `key`; what has to go for it at `now`, goes.
    pub(super) fn insert(&self, hash: u64, key: &[u8], entry: Arc<Entry>, now: Now) {
        // What it takes the place of is given back once the lock is.
        let _old = self.shard(hash).insert(hash as u32, key, entry, now);
    }

    /// Drops the answer of `key`; whether there was one.
    pub(super) fn remove(&self, hash: u64, key: &[u8]) -> bool {
        let mut shard = self.shard(hash);
        let Some((_, at)) = shard.find(hash as u32, key) else {
            return false;
        };
        shard.retain(|slot, _| slot != at);
        true
    }

    /// Drops all whose key `matches`; returns how many.
    pub(super) fn flush(&self, matches: impl Fn(&[u8]) -> bool) -> usize {
        let goes = |slot: &Slot| slot.key().is_some_and(|key| matches(&key));
        let shards = self.shards.iter();
        shards
            .map(|shard| lock(shard).retain(|_, slot| !goes(slot)))
            .sum()
    }

    /// All that is held, shard after shard. Does not count as use.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, Arc<Entry>)> + '_ {
        self.shards.iter().flat_map(|shard| {
            let held: Vec<(Partition, u8, Arc<Entry>)> = (lock(shard).slots.iter())
                .filter_map(|slot| Some((slot.partition, slot.flags, slot.entry.clone()?)))
                .collect();
            (held.into_iter())
                .map(|(partition, flags, entry)| (key(&entry, flags, partition), entry))
        })
    }

    /// Drops what is gone at `now`, as far as it stands first in its queue: a little at a time.
    pub(super) fn sweep(&self, now: Now) {
        for shard in &self.shards {
            lock(shard).sweep(now);
        }
    }

    /// How many answers are held, and the bytes they take with everything else.
    pub(super) fn size(&self) -> (usize, usize) {
        self.shards.iter().fold((0, 0), |(count, bytes), shard| {
            let shard = lock(shard);
            (count + shard.len(), bytes + shard.bytes())
        })
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("shards", &self.shards.len())
            .finish_non_exhaustive()
    }
}

impl Shard {
    fn new(most: usize, stale: Duration) -> Self {
        let ghosts = (most / GHOST_SHARE).next_power_of_two();
        Self {
            slots: Vec::new(),
            vacant: NONE,
            index: Vec::new(),
            small: VecDeque::new(),
            large: VecDeque::new(),
            ghosts: vec![0; ghosts].into(),
            answers: 0,
            most,
            stale,
        }
    }

    fn len(&self) -> usize {
        self.small.len() + self.large.len()
    }

    fn bytes(&self) -> usize {
        let queues = self.small.capacity() + self.large.capacity();
        self.answers
            + self.slots.capacity() * size_of::<Slot>()
            + (self.index.len() + queues) * size_of::<u32>()
            + size_of_val(&*self.ghosts)
    }

    /// The place in the index, and the slot, of `key`.
    #[inline]
    fn find(&self, hash: u32, key: &[u8]) -> Option<(usize, u32)> {
        let mask = self.index.len().checked_sub(1)?;
        let mut place = hash as usize & mask;
        loop {
            let at = self.index[place];
            if at == NONE {
                return None;
            }
            let slot = &self.slots[at as usize];
            if slot.hash == hash && slot.is_of(key) {
                return Some((place, at));
            }
            place = (place + 1) & mask;
        }
    }

    fn insert(&mut self, hash: u32, key: &[u8], entry: Arc<Entry>, now: Now) -> Option<Arc<Entry>> {
        let weight = entry.weight();
        if let Some((_, at)) = self.find(hash, key) {
            let slot = &mut self.slots[at as usize];
            let old = slot.entry.replace(entry);
            self.answers -= old.as_ref().map_or(0, |old| old.weight());
            self.answers += weight;
            self.make_room(now);
            return old;
        }
        let Parts {
            partition,
            dnssec_ok,
            checking_disabled,
            ..
        } = Key::parts(key);
        let slot = Slot {
            entry: Some(entry),
            hash,
            partition,
            flags: u8::from(dnssec_ok) | u8::from(checking_disabled) << 1,
            uses: 0,
        };
        self.grow_index();
        let at = self.occupy(slot);
        self.answers += weight;
        self.enter(hash, at);
        if self.is_ghost(hash) {
            push(&mut self.large, at);
        } else {
            push(&mut self.small, at);
        }
        self.make_room(now);
        None
    }

    /// Puts `slot` where there is room.
    fn occupy(&mut self, slot: Slot) -> u32 {
        if let Some(place) = self.slots.get_mut(self.vacant as usize) {
            let at = self.vacant;
            self.vacant = place.hash;
            *place = slot;
            return at;
        }
        if self.slots.len() == self.slots.capacity() {
            self.slots.reserve_exact(step(self.slots.len()));
        }
        self.slots.push(slot);
        // Bytes run out long before numbers do.
        (self.slots.len() - 1) as u32
    }

    /// Makes the index large enough for one answer more: at most seven eighths of it are in use.
    fn grow_index(&mut self) {
        let wanted = (self.len() + 1) * 8 / 7 + 1;
        if wanted <= self.index.len() {
            return;
        }
        self.index = vec![NONE; wanted.next_power_of_two().max(16)];
        for at in 0..self.slots.len() {
            if self.slots[at].entry.is_some() {
                self.enter(self.slots[at].hash, at as u32);
            }
        }
    }

    fn enter(&mut self, hash: u32, at: u32) {
        let mask = self.index.len() - 1;
        let mut place = hash as usize & mask;
        while self.index[place] != NONE {
            place = (place + 1) & mask;
        }
        self.index[place] = at;
    }

    /// Takes a slot out of the index, and moves those behind it up.
    fn leave(&mut self, at: u32) {
        let mask = self.index.len() - 1;
        let mut hole = self.slots[at as usize].hash as usize & mask;
        while self.index[hole] != at {
            hole = (hole + 1) & mask;
        }
        let mut place = hole;
        loop {
            place = (place + 1) & mask;
            let next = self.index[place];
            if next == NONE {
                break;
            }
            let home = self.slots[next as usize].hash as usize & mask;
            // It may stand nearer to its home, but not before it.
            if place.wrapping_sub(home) & mask >= place.wrapping_sub(hole) & mask {
                self.index[hole] = next;
                hole = place;
            }
        }
        self.index[hole] = NONE;
    }

    /// Empties a slot that is in no queue any more.
    fn free(&mut self, at: u32) {
        self.leave(at);
        let vacant = self.vacant;
        let slot = &mut self.slots[at as usize];
        let old = slot.entry.take();
        slot.hash = vacant;
        self.vacant = at;
        self.answers -= old.map_or(0, |old| old.weight());
    }

    fn make_room(&mut self, now: Now) {
        while self.bytes() > self.most && self.evict(now) {}
    }

    /// Drops one answer; `false`: there is none.
    fn evict(&mut self, now: Now) -> bool {
        while self.small.len() * SMALL_SHARE > self.len() || self.large.is_empty() {
            let Some(at) = self.small.pop_front() else {
                return false;
            };
            let slot = &mut self.slots[at as usize];
            let (hash, is_gone) = (slot.hash, slot.is_gone(now, self.stale));
            if slot.uses > 0 && !is_gone {
                slot.uses = 0;
                push(&mut self.large, at);
                continue;
            }
            if !is_gone {
                self.remember(hash);
            }
            self.free(at);
            return true;
        }
        for round in 0.. {
            let Some(at) = self.large.pop_front() else {
                return false;
            };
            let slot = &mut self.slots[at as usize];
            if slot.uses > 0 && round < ROUNDS && !slot.is_gone(now, self.stale) {
                slot.uses -= 1;
                self.large.push_back(at);
                continue;
            }
            self.free(at);
            return true;
        }
        false
    }

    fn sweep(&mut self, now: Now) {
        for _ in 0..SWEPT {
            let is_gone = |&at: &u32| self.slots[at as usize].is_gone(now, self.stale);
            let at = if self.small.front().is_some_and(is_gone) {
                self.small.pop_front()
            } else if self.large.front().is_some_and(is_gone) {
                self.large.pop_front()
            } else {
                None
            };
            let Some(at) = at else { return };
            self.free(at);
        }
    }

    /// Drops all that `keep` (by slot) is false of; returns how many.
    fn retain(&mut self, keep: impl Fn(u32, &Slot) -> bool) -> usize {
        let mut gone = Vec::new();
        for queue in [&mut self.small, &mut self.large] {
            let slots = &self.slots;
            queue.retain(|&at| {
                let stays = keep(at, &slots[at as usize]);
                if !stays {
                    gone.push(at);
                }
                stays
            });
        }
        for &at in &gone {
            self.free(at);
        }
        gone.len()
    }

    fn remember(&mut self, hash: u32) {
        let (place, tag) = self.ghost(hash);
        self.ghosts[place] = tag;
    }

    /// Whether it was dropped lately; then it is no ghost any more.
    fn is_ghost(&mut self, hash: u32) -> bool {
        let (place, tag) = self.ghost(hash);
        let found = self.ghosts[place] == tag;
        if found {
            self.ghosts[place] = 0;
        }
        found
    }

    fn ghost(&self, hash: u32) -> (usize, u16) {
        let place = hash as usize & (self.ghosts.len() - 1);
        // 0: nobody.
        (place, ((hash >> 16) as u16).max(1))
    }
}

impl Slot {
    /// Name and type stand in the answer as they do in the key.
    #[inline]
    fn is_of(&self, key: &[u8]) -> bool {
        let Some(entry) = &self.entry else {
            return false;
        };
        let Some((question, &[flags, high, low])) = key.split_last_chunk() else {
            return false;
        };
        self.flags == flags
            && self.partition == Partition(u16::from_be_bytes([high, low]))
            && entry.wire()[crate::dns::wire::HEADER_LEN..].starts_with(question)
    }

    fn key(&self) -> Option<Key> {
        let entry = self.entry.as_ref()?;
        Some(key(entry, self.flags, self.partition))
    }

    fn is_gone(&self, now: Now, stale: Duration) -> bool {
        self.entry
            .as_ref()
            .is_none_or(|entry| entry.is_gone(now, stale))
    }
}

/// The key of an answer.
fn key(entry: &Entry, flags: u8, partition: Partition) -> Key {
    let (name, qtype) = entry.question();
    Key::new(name, qtype, flags & 1 != 0, flags & 2 != 0, partition)
}

/// Adds to a queue, whose room grows by little.
fn push(queue: &mut VecDeque<u32>, at: u32) {
    if queue.len() == queue.capacity() {
        queue.reserve_exact(step(queue.len()));
    }
    queue.push_back(at);
}

/// Room that is added at once to an array of `len`.
fn step(len: usize) -> usize {
    (len / 8).max(16)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// No slot.
const NONE: u32 = u32::MAX;

/// Most shards, and bytes each has at least.
const SHARDS: usize = 64;
const SHARD_LEAST: usize = 256 << 10;

/// The part of all answers that the small queue may hold when room is made.
const SMALL_SHARE: usize = 10;

/// Uses that are remembered, and answers that get another round before one goes whatever its uses: so one change costs little.
const USES: u8 = 3;
const ROUNDS: usize = 64;

/// Answers dropped from a shard in one sweep.
const SWEPT: usize = 1_024;

/// Bytes of the table for each ghost: about as many as there are answers.
const GHOST_SHARE: usize = 256;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::super::key::Key;
    use super::super::reply::{Bounds, Reply};
    use super::super::testing::{START, message, wire};
    use super::*;

    const STALE: Duration = Duration::from_secs(100);

    const BOUNDS: Bounds = Bounds {
        min: 0,
        max: 86_400,
        negative_max: 3_600,
        aliases: 11,
    };

    fn after(secs: u64) -> Now {
        START.plus(Duration::from_secs(secs))
    }

    fn key_of(n: usize) -> Key {
        Key::new(
            &wire(&format!("n{n}.example.")),
            1,
            false,
            false,
            Partition(0),
        )
    }

    /// Spread, but such that some share the lower bits that lead to a place.
    fn hash(n: usize) -> u64 {
        (n as u64 / 3).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (n as u64) << 20
    }

    fn entry(n: usize, ttl: u32, addresses: u8) -> Arc<Entry> {
        let name = format!("n{n}.example.");
        let records: Vec<String> = (0..addresses)
            .map(|host| format!("{name} {ttl} A 192.0.2.{host}"))
            .collect();
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        let message = message(&name, 1, 0, &records, &[]);
        let reply = Reply::read(&message, &Key::parts(&key_of(n)), &[], BOUNDS).unwrap();
        Arc::new(Entry::new(reply, START))
    }

    fn put(table: &Table, n: usize) {
        table.insert(hash(n), &key_of(n), entry(n, 60, 1), START);
    }

    fn get(table: &Table, n: usize) -> Option<Arc<Entry>> {
        table.get(hash(n), &key_of(n))
    }

    #[test]
    fn names_asked_for_again_stay_while_a_scan_goes_through() {
        let table = Table::new(200_000, STALE);
        for n in 0..100 {
            put(&table, n);
            assert!(get(&table, n).is_some());
        }
        for n in 1_000..20_000 {
            put(&table, n);
            if n % 50 == 0 {
                assert!((0..100).all(|n| get(&table, n).is_some()), "at {n}");
            }
        }
        let (count, bytes) = table.size();
        assert!(bytes <= 200_000, "{bytes}");
        assert!(count > 500, "{count}");
    }

    #[test]
    fn name_that_comes_back_soon_after_it_was_dropped_outlives_a_scan() {
        let table = Table::new(200_000, STALE);
        put(&table, 0);
        let mut next = 1;
        while table.iter().any(|(key, _)| *key == *key_of(0)) {
            put(&table, next);
            next += 1;
        }
        put(&table, 0);
        for n in next..next + 10_000 {
            put(&table, n);
        }
        assert!(get(&table, 0).is_some());
    }

    #[test]
    fn names_nobody_asks_for_any_more_make_room() {
        let table = Table::new(200_000, STALE);
        for n in 0..500 {
            put(&table, n);
            assert!(get(&table, n).is_some());
        }
        // Another working set, asked for again and again.
        for round in 0..40 {
            for n in 10_000..10_500 {
                if get(&table, n).is_none() {
                    put(&table, n);
                }
                put(&table, 20_000 + round * 500 + n);
            }
        }
        let held = (10_000..10_500)
            .filter(|&n| get(&table, n).is_some())
            .count();
        assert!(held > 400, "{held} of 500");
    }

    #[test]
    fn expired_answers_go_before_those_that_can_be_given() {
        let table = Table::new(200_000, STALE);
        for n in 0..200 {
            table.insert(hash(n), &key_of(n), entry(n, 10, 1), START);
            // Whatever its uses.
            assert!(get(&table, n).is_some());
        }
        table.sweep(after(109));
        assert_eq!(table.size().0, 200);
        table.sweep(after(110));
        assert_eq!(table.size().0, 0);
    }

    #[test]
    fn answer_larger_than_the_table_is_not_kept_and_costs_no_more_than_all() {
        let table = Table::new(2_000, STALE);
        put(&table, 1);
        table.insert(hash(2), &key_of(2), entry(2, 60, 200), START);
        assert!(table.size().1 <= 2_000, "{:?}", table.size());
        assert!(get(&table, 2).is_none());
        put(&table, 3);
        assert!(get(&table, 3).is_some());
    }

    /// What happens to the answer of a number.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Put(usize, u8),
        Get(usize),
        Remove(usize),
        Flush(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0_usize..300, 1_u8..6).prop_map(|(n, addresses)| Step::Put(n, addresses)),
            6 => (0_usize..300).prop_map(Step::Get),
            1 => (0_usize..300).prop_map(Step::Remove),
            1 => (2_usize..60).prop_map(Step::Flush),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Whatever happens: never more bytes than allowed, never another answer than the last one put, and what is counted is
        /// what is there.
        #[test]
        fn table_holds_the_latest_answers_within_its_bytes(
            most in prop_oneof![Just(8_000_usize), Just(30_000), Just(1_000_000)],
            steps in prop::collection::vec(step(), 1..400),
        ) {
            let table = Table::new(most, STALE);
            let mut model: HashMap<usize, Arc<Entry>> = HashMap::new();
            for step in steps {
                match step {
                    Step::Put(n, addresses) => {
                        let entry = entry(n, 60, addresses);
                        table.insert(hash(n), &key_of(n), Arc::clone(&entry), START);
                        model.insert(n, entry);
                    }
                    Step::Get(n) => {
                        let found = get(&table, n);
                        if let Some(found) = &found {
                            prop_assert!(Arc::ptr_eq(found, &model[&n]));
                        }
                        if most == 1_000_000 {
                            prop_assert_eq!(found.is_some(), model.contains_key(&n));
                        }
                    }
                    Step::Remove(n) => {
                        let had = table.remove(hash(n), &key_of(n));
                        prop_assert!(!had || model.contains_key(&n));
                        model.remove(&n);
                    }
                    Step::Flush(part) => {
                        let of: Vec<Key> = (0..300).filter(|n| n % part == 0).map(key_of).collect();
                        let before = table.size().0;
                        let gone = table.flush(|key| of.iter().any(|of| **of == *key));
                        prop_assert_eq!(table.size().0, before - gone);
                        model.retain(|n, _| n % part != 0);
                    }
                }
                let (count, bytes) = table.size();
                prop_assert!(bytes <= most, "{} > {}", bytes, most);
                prop_assert!(count <= model.len());
            }
            let (count, bytes) = table.size();
            prop_assert_eq!(table.iter().count(), count);
            let weights: usize = table.iter().map(|(_, entry)| entry.weight()).sum();
            prop_assert!(weights < bytes);
        }
    }
}
