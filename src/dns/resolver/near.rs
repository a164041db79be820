//! A worker's own table of answers asked for often, in front of the shared cache.
//!
//! A hit in the shared cache costs a walk over several cache lines that other threads write, a count of references and
//! a note of the use. A [`Near`] belongs to one thread and holds copies of small answers, each in one cell: a hit
//! reads one set of places and one cell, writes nothing shared and allocates nothing.
//!
//! The shared cache stays the authority. Whatever it takes in or drops changes a version in [`Versions`], and a copy
//! is used only while the version is that from before it was looked up. And it is told of uses now and then, so that
//! it goes on to keep what is used: every [`USES`]th hit of a cell is left to it, and the first after [`USES_NS`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::entry::{Entry, Facts, Place};
use super::key::TAIL;
use crate::dns::wire::Query;
use crate::dns::zone::path::Path;
use crate::time::Now;

/// Copies of answers, for one thread and one cache.
pub struct Near {
    versions: Arc<Versions>,
    sets: Box<[Set]>,
    /// Filled one after the other, so that few answers lie close together.
    cells: Vec<Cell>,
    cells_max: usize,
    /// The cell that is looked at next for one to give up.
    hand: usize,
}

/// Places of names whose hashes have the same low bits.
#[derive(Clone, Copy)]
#[repr(align(32))]
struct Set {
    tags: [u16; WAYS],
    /// Indices of cells, or [`NONE`].
    cells: [u16; WAYS],
}

/// One answer. What a hit reads of a short one is two cache lines that are fetched together.
#[derive(Clone, Copy)]
#[repr(C, align(128))]
struct Cell {
    facts: Facts,
    /// When the shared cache was last asked for it, on the monotonic clock.
    asked_ns: u64,
    version: u32,
    /// The lower half of the name's hash: leads to the set.
    hash: u32,
    /// Bytes of the answer.
    len: u8,
    ttls_len: u8,
    name_len: u8,
    /// Hits left until the shared cache is asked.
    uses_left: u8,
    /// Hit since the hand passed.
    used: bool,
    /// The key behind the name.
    tail: [u8; TAIL],
    ttls: [Place; TTLS],
    /// Begins with the second line.
    wire: [u8; WIRE],
}

/// Where a question is looked for, and the version that what is found must have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot<'p> {
    path: &'p Path,
    tail: [u8; TAIL],
    version: u32,
}

/// How often the shared cache has changed, by hash of the name: what makes copies invalid.
///
/// A change counts here after it is made there, and a reader takes the version before it looks there: so a copy with
/// the version of now is of what is there now. Questions that share a count cost each other a look, nothing else.
pub(super) struct Versions {
    counts: Box<[AtomicU32]>,
}

impl Versions {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            counts: (0..VERSIONS).map(|_| AtomicU32::new(0)).collect(),
        })
    }

    /// What the shared cache has for a question about `name` (wire form) has changed.
    pub(super) fn change(&self, name: &[u8]) {
        self.count(Path::new(name).hash())
            .fetch_add(1, Ordering::Release);
    }

    /// Anything in the shared cache may have changed.
    pub(super) fn change_all(&self) {
        for count in &self.counts {
            count.fetch_add(1, Ordering::Release);
        }
    }

    /// Bytes the counts take.
    pub(super) const BYTES: u64 = (VERSIONS * size_of::<AtomicU32>()) as u64;

    #[inline]
    fn count(&self, hash: u64) -> &AtomicU32 {
        // The mask keeps the index below the length.
        &self.counts[hash as usize & (VERSIONS - 1)]
    }
}

impl Near {
    /// An empty table of at most `bytes`, never more than [`CELLS_MAX`] answers.
    pub(super) fn new(versions: Arc<Versions>, bytes: u64) -> Self {
        let per_cell = size_of::<Cell>() + size_of::<Set>() / CELLS_PER_SET * 2;
        let cells_max = usize::try_from(bytes / per_cell as u64)
            .unwrap_or(CELLS_MAX)
            .min(CELLS_MAX);
        let sets = if cells_max < CELLS_PER_SET {
            0
        } else {
            (cells_max / CELLS_PER_SET).next_power_of_two()
        };
        Self {
            versions,
            sets: vec![Set::EMPTY; sets].into(),
            cells: Vec::with_capacity(cells_max),
            cells_max,
            hand: 0,
        }
    }

    /// Where to look for a question: the name of `path`, and what its key has behind the name.
    #[inline]
    pub(super) fn spot<'p>(&self, path: &'p Path, tail: [u8; TAIL]) -> Spot<'p> {
        Spot {
            path,
            tail,
            version: self.versions.count(path.hash()).load(Ordering::Acquire),
        }
    }

    /// Whether looks mostly have to wait for memory.
    #[inline]
    pub(in crate::dns) fn is_large(&self) -> bool {
        self.cells.len() > LARGE
    }

    /// Something of what tells where the copies for a name are, and whether they are valid: to read it is to bring that in.
    #[inline]
    pub(in crate::dns) fn near_set(&self, path: &Path) -> usize {
        let count = self.versions.count(path.hash()).load(Ordering::Relaxed);
        let set = self.sets.get(self.set_of(path.hash()));
        count as usize ^ set.map_or(0, |set| usize::from(set.tags[0]))
    }

    /// The cell of the first copy for a name, most likely.
    #[inline]
    pub(in crate::dns) fn likely_cell(&self, path: &Path) -> Option<u16> {
        let set = self.sets.get(self.set_of(path.hash()))?;
        let tag = name_tag(path.hash());
        let mut places = set.tags.iter().zip(set.cells);
        places.find_map(|(&found, at)| (found & !KIND == tag && at != NONE).then_some(at))
    }

    /// Something of a cell, from each of the two lines that short answers take, as in [`Near::near_set`].
    #[inline]
    pub(in crate::dns) fn near_cell(&self, at: u16) -> usize {
        let cell = self.cells.get(usize::from(at));
        cell.map_or(0, |cell| usize::from(cell.uses_left ^ cell.wire[0]))
    }

    /// Answers `query` from a copy that is fresh at `now`; see [`Facts::write`]. Returns the
    /// length of the answer, and whether it is negative. `None`: ask the shared cache.
    #[inline]
    pub(super) fn answer(
        &mut self,
        spot: Spot<'_>,
        query: &Query<'_>,
        now: Now,
        limit: usize,
        out: &mut [u8],
    ) -> Option<(usize, bool)> {
        let at = self.find(spot)?;
        let cell = &mut self.cells[at];
        let age = cell.facts.age(now)?;
        // An answer about to expire is for the shared cache to see, which has it refreshed.
        if cell.facts.is_ending(now)
            || cell.version != spot.version
            || cell.uses_left == 0
            || now.mono_ns.saturating_sub(cell.asked_ns) >= USES_NS
        {
            return None;
        }
        cell.uses_left -= 1;
        cell.used = true;
        let wire = &cell.wire[..usize::from(cell.len)];
        let ttls = &cell.ttls[..usize::from(cell.ttls_len)];
        let len = cell.facts.write(wire, ttls, query, age, limit, out);
        Some((len, cell.facts.is_negative()))
    }

    /// Copies what the shared cache has for the question, if it is small enough. `spot` is from before it was looked up.
    pub(super) fn keep(&mut self, spot: Spot<'_>, entry: &Entry, now: Now) {
        let Some(cell) = Cell::new(spot, entry, now) else {
            return;
        };
        match self.find(spot).or_else(|| self.room(spot)) {
            Some(at) if at < self.cells.len() => self.cells[at] = cell,
            Some(_) => self.cells.push(cell),
            None => {}
        }
    }

    /// The cell of the question, whatever its version.
    #[inline]
    fn find(&self, spot: Spot<'_>) -> Option<usize> {
        let set = self.sets.get(self.set_of(spot.path.hash()))?;
        let tag = spot.tag();
        set.tags.iter().zip(set.cells).find_map(|(&found, at)| {
            let at = usize::from(at);
            (found == tag && self.cells.get(at)?.is_of(spot)).then_some(at)
        })
    }

    /// A place for a new answer: the index of a cell, at most that of one to be added. `None`: what is there was used
    /// lately, and stays.
    fn room(&mut self, spot: Spot<'_>) -> Option<usize> {
        let index = self.set_of(spot.path.hash());
        let ways = self.sets.get(index)?.cells;
        let (way, at) = if let Some(way) = ways.iter().position(|&at| at == NONE) {
            let at = if self.cells.len() < self.cells_max {
                self.cells.len()
            } else {
                self.give_up()?
            };
            (way, at)
        } else {
            self.hand = (self.hand + 1) % self.cells.len();
            let way = self.hand % WAYS;
            let at = usize::from(ways[way]);
            if std::mem::take(&mut self.cells[at].used) {
                return None;
            }
            (way, at)
        };
        self.sets[index].tags[way] = spot.tag();
        // `CELLS_MAX` is below `NONE`.
        self.sets[index].cells[way] = u16::try_from(at).unwrap_or(NONE);
        Some(at)
    }

    /// A cell that was not used since the hand passed, out of its set. The hand takes a few steps only: a flood of
    /// questions that come once must not cost more than it displaces.
    fn give_up(&mut self) -> Option<usize> {
        for _ in 0..STEPS {
            self.hand = (self.hand + 1) % self.cells.len();
            let cell = &mut self.cells[self.hand];
            if std::mem::take(&mut cell.used) {
                continue;
            }
            let hash = u64::from(cell.hash);
            let index = self.set_of(hash);
            for at in &mut self.sets[index].cells {
                if usize::from(*at) == self.hand {
                    *at = NONE;
                }
            }
            return Some(self.hand);
        }
        None
    }

    /// The set of a hash. Without sets, an index that there is not.
    #[inline]
    fn set_of(&self, hash: u64) -> usize {
        hash as usize & self.sets.len().wrapping_sub(1)
    }
}

impl fmt::Debug for Near {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Near")
            .field("cells", &self.cells.len())
            .field("cells_max", &self.cells_max)
            .finish_non_exhaustive()
    }
}

impl Set {
    const EMPTY: Self = Self {
        tags: [0; WAYS],
        cells: [NONE; WAYS],
    };
}

impl Cell {
    /// A copy of `entry`; `None`: it does not fit.
    fn new(spot: Spot<'_>, entry: &Entry, now: Now) -> Option<Self> {
        let name = spot.path.suffix(0);
        let (message, ttls) = (entry.wire(), entry.ttls());
        // An entry begins with its question, in lower case like the key.
        if ttls.len() > TTLS || !message.get(NAME_AT..)?.starts_with(name) {
            return None;
        }
        let mut cell = Self {
            facts: entry.facts(),
            asked_ns: now.mono_ns,
            version: spot.version,
            hash: spot.path.hash() as u32, // The lower half.
            len: u8::try_from(message.len()).ok()?,
            ttls_len: ttls.len() as u8, // At most `TTLS`.
            name_len: u8::try_from(name.len()).ok()?,
            uses_left: USES - 1,
            used: false,
            tail: spot.tail,
            ttls: [[0; 2]; TTLS],
            wire: [0; WIRE],
        };
        cell.wire.get_mut(..message.len())?.copy_from_slice(message);
        cell.ttls[..ttls.len()].copy_from_slice(ttls);
        Some(cell)
    }

    #[inline]
    fn is_of(&self, spot: Spot<'_>) -> bool {
        let name = spot.path.suffix(0);
        self.tail == spot.tail
            && name.len() == usize::from(self.name_len)
            && *name == self.wire[NAME_AT..NAME_AT + name.len()]
    }
}

impl Spot<'_> {
    /// All questions about a name stand in one set; their tags differ in the lowest bits.
    #[inline]
    fn tag(&self) -> u16 {
        let [high, low, flags, ..] = self.tail;
        let qtype = u16::from_be_bytes([high, low]);
        let kind = qtype.wrapping_mul(0x9E37) >> 12; // A, AAAA and HTTPS differ.
        name_tag(self.path.hash()) | ((kind ^ u16::from(flags)) & KIND)
    }
}

#[inline]
fn name_tag(hash: u64) -> u16 {
    (hash >> 48) as u16 & !KIND
}

/// The bits of a tag that stand for type and flags.
const KIND: u16 = 0xF;

/// Answers one table holds at most: with their sets 4.25 MiB, about what a core has of caches of its own.
const CELLS_MAX: usize = 16_384;

/// Cells for each set, on average; it has room for twice as many, since hashes do not spread evenly.
const CELLS_PER_SET: usize = WAYS / 2;
const WAYS: usize = 8;

/// No cell.
const NONE: u16 = u16::MAX;

/// Longest answer copied, bytes, and most TTLs in it: such that a cell has 256 bytes.
const WIRE: usize = 192;
const TTLS: usize = 7;
const _: () = assert!(size_of::<Cell>() == 256 && size_of::<Set>() == 32);

/// Copies of more bytes than what is left of a core's own caches.
const LARGE: usize = 2_048;

/// Where the name of the question starts.
const NAME_AT: usize = crate::dns::wire::HEADER_LEN;

/// One hit of so many goes to the shared cache, and the first one this long after the last that did.
const USES: u8 = 64;
const USES_NS: u64 = 10_000_000_000;

/// Cells looked at for one to give up.
const STEPS: usize = 8;

/// Counts of changes, 64 KiB of them: as many as copies, so that a change costs about one copy that it is not about.
const VERSIONS: usize = 1 << 14;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hickory_proto::op::Message;
    use hickory_proto::rr::RData;
    use proptest::prelude::*;

    use super::super::CacheConfig;
    use super::super::cache::{Cache, Cached, Partition};
    use super::super::key::Key;
    use super::super::testing::{self, Asked, START, message};
    use super::*;
    use crate::metrics::Metrics;
    use crate::metrics::resolver::CacheRequest;

    const TTL: u64 = 100;

    /// A cache, one worker's copies, and what both count in.
    struct Setting {
        cache: Cache,
        near: Near,
        metrics: Arc<Metrics>,
    }

    impl Setting {
        fn new(size: u64) -> Self {
            let config = CacheConfig {
                size,
                ..testing::config()
            };
            let metrics = Arc::new(Metrics::new());
            let cache = Cache::new(config, Arc::clone(&metrics));
            Self {
                near: cache.near(1),
                cache,
                metrics,
            }
        }

        /// Puts `name` with the address 192.0.2.`host` into the cache.
        fn store(&self, name: &str, host: u8, now: Now) {
            let asked = Asked::new(name, 1);
            let record = format!("{name} {TTL} A 192.0.2.{host}");
            let message = message(name, 1, 0, &[&record], &[]);
            assert!(
                self.cache
                    .store(&asked.query(), Partition(0), &message, now)
            );
        }

        /// The answer by way of the copies: the host in its address, and its TTL.
        fn ask(&mut self, asked: &Asked, now: Now) -> Option<(u8, u32)> {
            let mut out = [0; 512];
            let query = asked.query();
            let near = &mut self.near;
            let cached = self
                .cache
                .answer_near(near, &query, Partition(0), now, 512, &mut out);
            read(cached, &out)
        }

        /// Whether there is a copy that answers; a hit of it, if so.
        fn hits_copy(&mut self, asked: &Asked, now: Now) -> bool {
            let mut out = [0; 512];
            let query = asked.query();
            let path = Path::new(query.name);
            let spot = self.near.spot(&path, Key::tail(&query, Partition(0)));
            let answer = self.near.answer(spot, &query, now, 512, &mut out);
            answer.is_some()
        }
    }

    fn read(cached: Cached, out: &[u8]) -> Option<(u8, u32)> {
        let Cached::Fresh { len, .. } = cached else {
            assert_eq!(cached, Cached::Miss);
            return None;
        };
        let message = Message::from_vec(&out[..len]).unwrap();
        let record = &message.answers[0];
        assert_eq!(record.name, message.queries[0].name);
        match &record.data {
            RData::A(address) => Some((address.octets()[3], record.ttl)),
            other => panic!("{other}: an address expected"),
        }
    }

    fn after(secs: u64) -> Now {
        START.plus(Duration::from_secs(secs))
    }

    /// A setting with a copy of a.example., 192.0.2.1.
    fn copied() -> (Setting, Asked) {
        let mut setting = Setting::new(1 << 20);
        let asked = Asked::new("a.example.", 1);
        setting.store("a.example.", 1, START);
        assert_eq!(setting.ask(&asked, START), Some((1, 100)));
        assert!(setting.hits_copy(&asked, START));
        (setting, asked)
    }

    #[test]
    fn copy_is_not_used_after_a_flush() {
        let (mut setting, asked) = copied();
        assert_eq!(setting.cache.flush(|_| true), 1);
        assert!(!setting.hits_copy(&asked, START));
        assert_eq!(setting.ask(&asked, START), None);
    }

    #[test]
    fn copy_whose_entry_was_evicted_is_not_used_after_a_flush() {
        let (mut setting, asked) = copied();
        setting.cache.evict(&Key::of(&asked.query(), Partition(0)));
        assert!(setting.hits_copy(&asked, START));
        assert_eq!(setting.cache.flush(|_| true), 0);
        assert!(!setting.hits_copy(&asked, START));
    }

    #[test]
    fn copy_of_a_replaced_entry_is_not_used() {
        let (mut setting, asked) = copied();
        setting.store("a.example.", 2, after(1));
        assert!(!setting.hits_copy(&asked, after(1)));
        assert_eq!(setting.ask(&asked, after(1)), Some((2, 100)));
        assert!(setting.hits_copy(&asked, after(1)));
        assert_eq!(setting.ask(&asked, after(2)), Some((2, 99)));
    }

    #[test]
    fn copy_looked_up_before_a_change_and_kept_after_it_is_not_used() {
        let (mut setting, asked) = copied();
        let key = Key::of(&asked.query(), Partition(0));
        let path = Path::new(Key::parts(&key).name);
        let tail = Key::tail(&asked.query(), Partition(0));
        let spot = setting.near.spot(&path, tail);
        let old = setting.cache.held(&key).unwrap();
        setting.store("a.example.", 2, START);
        setting.near.keep(spot, &old, START);
        assert_eq!(setting.ask(&asked, START), Some((2, 100)));
    }

    #[test]
    fn copy_counts_its_ttl_down_and_expires() {
        let (mut setting, asked) = copied();
        assert!(setting.hits_copy(&asked, after(9)));
        assert_eq!(setting.ask(&asked, after(9)), Some((1, 91)));
        assert_eq!(setting.ask(&asked, after(99)), Some((1, 1)));
        assert_eq!(setting.ask(&asked, after(81)), Some((1, 19)));
        assert!(setting.hits_copy(&asked, after(89)));
        assert!(
            !setting.hits_copy(&asked, after(90)),
            "to be refreshed by the cache"
        );
        assert!(!setting.hits_copy(&asked, after(TTL)));
        assert_eq!(setting.ask(&asked, after(TTL)), None);
    }

    #[test]
    fn copy_answers_only_its_own_type_flags_and_partition() {
        let (mut setting, asked) = copied();
        for other in [
            Asked::new("a.example.", 28),
            Asked::new("a.example.", 1).edns(true),
            Asked::new("a.example.", 1).checking_disabled(),
            Asked::new("b.example.", 1),
        ] {
            assert_eq!(setting.ask(&other, START), None);
        }
        let (query, mut out) = (asked.query(), [0; 512]);
        let near = &mut setting.near;
        let cached = setting
            .cache
            .answer_near(near, &query, Partition(1), START, 512, &mut out);
        assert_eq!(cached, Cached::Miss);
        assert_eq!(
            setting.ask(&Asked::new("A.eXample.", 1).edns(false), START),
            Some((1, 100))
        );
    }

    #[test]
    fn every_64th_hit_reaches_the_cache() {
        let mut setting = Setting::new(1 << 20);
        let asked = Asked::new("a.example.", 1);
        setting.store("a.example.", 1, START);
        let mut reached = 0;
        for _ in 0..640 {
            if !setting.hits_copy(&asked, START) {
                reached += 1;
                assert_eq!(setting.ask(&asked, START), Some((1, 100)));
            }
        }
        assert_eq!(reached, 10);
    }

    #[test]
    fn copy_whose_entry_was_evicted_ends_with_the_hit_that_reaches_the_cache() {
        let (mut setting, asked) = copied();
        setting.cache.evict(&Key::of(&asked.query(), Partition(0)));
        let answers = (0..640).map_while(|_| setting.ask(&asked, START)).count();
        assert_eq!(answers, usize::from(USES) - 2);
    }

    #[test]
    fn first_hit_in_ten_seconds_reaches_the_cache() {
        let (mut setting, asked) = copied();
        assert!(setting.hits_copy(&asked, after(9)));
        assert!(!setting.hits_copy(&asked, after(10)));
        assert_eq!(setting.ask(&asked, after(10)), Some((1, 90)));
        assert!(setting.hits_copy(&asked, after(19)));
    }

    #[test]
    fn every_hit_is_counted() {
        let (mut setting, asked) = copied();
        let count = |setting: &Setting| setting.metrics.resolver.cache.get(CacheRequest::Hit);
        let before = count(&setting);
        for _ in 0..100 {
            assert!(setting.ask(&asked, START).is_some());
        }
        assert_eq!(count(&setting), before + 100);
    }

    #[test]
    fn answer_too_large_for_a_copy_comes_from_the_cache() {
        let mut setting = Setting::new(1 << 20);
        let asked = Asked::new("a.example.", 1);
        let records: Vec<String> = (1..20)
            .map(|host| format!("a.example. {TTL} A 192.0.2.{host}"))
            .collect();
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        let message = message("a.example.", 1, 0, &records, &[]);
        assert!(
            setting
                .cache
                .store(&asked.query(), Partition(0), &message, START)
        );
        for _ in 0..3 {
            assert_eq!(setting.ask(&asked, START), Some((1, 100)));
            assert!(!setting.hits_copy(&asked, START));
        }
    }

    #[test]
    fn copies_of_many_answers_stay_within_their_bytes() {
        let mut setting = Setting::new(4 << 20);
        let bytes = (4 << 20) / 16;
        for n in 0..4_000 {
            let name = format!("n{n}.example.");
            setting.store(&name, 7, START);
            let _ = setting.ask(&Asked::new(&name, 1), START);
        }
        let near = &setting.near;
        let held = near.cells.capacity() * size_of::<Cell>() + size_of_val(&*near.sets);
        assert!(held <= bytes, "{held}");
        assert_eq!(near.cells.len(), near.cells_max);
        assert!(near.cells_max > 900, "{}", near.cells_max);
    }

    #[test]
    fn copies_of_a_cache_too_small_for_any_are_none() {
        let mut setting = Setting::new(10_000);
        setting.store("a.example.", 1, START);
        let asked = Asked::new("a.example.", 1);
        for _ in 0..2 {
            assert_eq!(setting.ask(&asked, START), Some((1, 100)));
        }
        assert!(!setting.hits_copy(&asked, START));
    }

    /// Something that happens to the name of a number, or to all.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Store(u8, u8),
        Ask(u8),
        Flush(u8),
        Wait(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => (0_u8..40, any::<u8>()).prop_map(|(n, host)| Step::Store(n, host)),
            8 => (0_u8..40).prop_map(Step::Ask),
            1 => (0_u8..40).prop_map(Step::Flush),
            1 => (1_u8..30).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Whatever happens, the copies answer as the cache does; also when there are fewer cells than names.
        #[test]
        fn copies_answer_as_the_cache_does(steps in prop::collection::vec(step(), 1..300)) {
            let mut setting = Setting::new(1 << 20);
            setting.near = Near::new(Arc::clone(&setting.near.versions), 4_000);
            let name = |n: u8| format!("n{n}.example.");
            let mut now = START;
            for step in steps {
                match step {
                    Step::Store(n, host) => setting.store(&name(n), host, now),
                    Step::Ask(n) => {
                        let asked = Asked::new(&name(n), 1);
                        let mut out = [0; 512];
                        let cached = setting.cache.answer(&asked.query(), Partition(0), now, 512, &mut out);
                        let expected = read(cached, &out);
                        prop_assert_eq!(setting.ask(&asked, now), expected);
                    }
                    Step::Flush(n) => {
                        let asked = Asked::new(&name(n), 1);
                        let key = Key::of(&asked.query(), Partition(0));
                        setting.cache.flush(|found| *found == *key);
                    }
                    Step::Wait(secs) => now = now.plus(Duration::from_secs(secs.into())),
                }
            }
        }
    }
}
