//! Whole verified chunks in memory.
//!
//! A chunk that is asked for again and again is read, checked and copied once: it stays in memory that nobody else
//! can write, truncate or evict, and every later slice of it is a reference. Which bytes an object has never changes
//! (another version is another object), so what is kept needs no further check.
//!
//! A chunk is taken in when more than its own length of it was read lately, so one pass over a huge file leaves
//! what others need alone. "Lately" is counted in bytes read from disk by all, and lasts one to two times the
//! memory's size. When the memory is full a hand goes round what is kept (the clock algorithm): a chunk that was
//! read since the hand was there stays, any other makes room. The hand goes [`LOOKS`] steps at most for one new
//! chunk, which is else not taken in: of a set too large for the memory most of what is kept stays, and serves.
//!
//! The bound holds at every moment: bytes count until the last response that refers to them has ended.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use bytes::Bytes;

use crate::metrics::Metrics;

/// The memory all objects of one library share.
#[derive(Debug)]
pub(super) struct Memory {
    /// Bytes at most.
    size: u64,
    used: AtomicU64,
    /// Bytes read from disk so far: the clock that says what is recent.
    read: AtomicU64,
    ring: Mutex<Ring>,
    metrics: Arc<Metrics>,
}

/// What is kept, in the order the hand meets it.
#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<Entry>,
    /// Entries that were left when those without a chunk were dropped last.
    live: usize,
}

#[derive(Debug)]
struct Entry {
    owner: Weak<InMemory>,
    index: u32,
}

/// One object's chunks in memory.
#[derive(Debug)]
pub(super) struct InMemory {
    memory: Arc<Memory>,
    places: RwLock<Places>,
}

#[derive(Debug)]
struct Places {
    /// One for each chunk once the first was read; none once it is over.
    places: Vec<Place>,
    /// The version was replaced or removed: nothing is taken in any more.
    over: bool,
}

#[derive(Debug, Default)]
struct Place {
    kept: Option<Bytes>,
    /// Read since the hand was here.
    used: AtomicBool,
    /// The upper half says when it was read last (see [`Memory::era`]), the lower how many bytes of it.
    recent: AtomicU64,
}

/// Memory for one chunk; counted from its making to its drop.
#[derive(Debug)]
pub(super) struct Room {
    bytes: Box<[u8]>,
    memory: Arc<Memory>,
}

impl Memory {
    /// At most `size` bytes; 0: none.
    pub(super) fn new(size: u64, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            size,
            used: AtomicU64::new(0),
            read: AtomicU64::new(0),
            ring: Mutex::default(),
            metrics,
        })
    }

    /// Memory for `len` bytes, of which others may have to go; `None` if too few may.
    fn room(self: &Arc<Self>, len: usize) -> Option<Room> {
        let bytes = len as u64;
        let mut looks = LOOKS;
        loop {
            let used = self.used.fetch_add(bytes, Ordering::AcqRel) + bytes;
            if used <= self.size {
                self.metrics.content.memory_bytes.add(gauge(bytes));
                return Some(Room {
                    bytes: vec![0; len].into_boxed_slice(),
                    memory: Arc::clone(self),
                });
            }
            self.used.fetch_sub(bytes, Ordering::AcqRel);
            if !self.turn(&mut looks) {
                return None;
            }
        }
    }

    /// Moves the hand until a chunk has gone; `false` if none has.
    fn turn(&self, looks: &mut usize) -> bool {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        while *looks > 0 {
            *looks -= 1;
            let Some(entry) = ring.entries.pop_front() else {
                return false;
            };
            match entry.owner.upgrade().map(|owner| owner.pass(entry.index)) {
                Some(Passed::Stays) => ring.entries.push_back(entry),
                Some(Passed::Gone(bytes)) => {
                    drop(ring);
                    drop(bytes);
                    return true;
                }
                Some(Passed::Nothing) | None => {}
            }
        }
        false
    }

    fn push(&self, owner: &Arc<InMemory>, index: u32) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.entries.push_back(Entry {
            owner: Arc::downgrade(owner),
            index,
        });
        // What left the memory by itself is still in the ring: it does not grow by more than that again.
        if ring.entries.len() > 2 * ring.live + RING {
            let keeps = |entry: &Entry| entry.owner.upgrade().is_some_and(|o| o.keeps(entry.index));
            ring.entries.retain(keeps);
            ring.live = ring.entries.len();
        }
    }

    /// `len` bytes were read from disk: the time by that clock, in steps of the memory's size.
    fn era(&self, len: u32) -> u32 {
        let read = self.read.fetch_add(u64::from(len), Ordering::Relaxed);
        // Wrapping it would at worst forget what was recent.
        (read / self.size.max(1)) as u32
    }
}

/// What the hand found.
enum Passed {
    Stays,
    Gone(Bytes),
    Nothing,
}

impl InMemory {
    /// None yet of an object's chunks.
    pub(super) fn new(memory: &Arc<Memory>) -> Arc<Self> {
        Arc::new(Self {
            memory: Arc::clone(memory),
            places: RwLock::new(Places {
                places: Vec::new(),
                over: false,
            }),
        })
    }

    /// Chunk `index`, if it is kept.
    pub(super) fn get(&self, index: u32) -> Option<Bytes> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        let place = places.places.get(index as usize)?;
        let bytes = place.kept.clone()?;
        if !place.used.load(Ordering::Relaxed) {
            place.used.store(true, Ordering::Relaxed);
        }
        Some(bytes)
    }

    /// `read` bytes of chunk `index` (of `count`, `len` bytes long) are read from disk now. Whether it should be
    /// taken in.
    pub(super) fn note(&self, index: u32, count: u32, len: u32, read: u32) -> bool {
        if u64::from(len) > self.memory.size {
            return false;
        }
        let era = self.memory.era(read);
        let mut places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        if places.places.is_empty() && !places.over {
            drop(places);
            let mut empty = self.places.write().unwrap_or_else(PoisonError::into_inner);
            if empty.places.is_empty() && !empty.over {
                empty.places.resize_with(count as usize, Place::default);
            }
            drop(empty);
            places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        }
        let Some(place) = places.places.get(index as usize) else {
            return false;
        };
        // Two readers at once may count as one: the next read makes up for it.
        let recent = place.recent.load(Ordering::Relaxed);
        let last = (recent >> 32) as u32;
        let before = if era.wrapping_sub(last) <= 1 {
            recent as u32
        } else {
            0
        };
        let bytes = before.saturating_add(read);
        let recent = u64::from(era) << 32 | u64::from(bytes);
        place.recent.store(recent, Ordering::Relaxed);
        bytes > len
    }

    /// Memory for a chunk of `len` bytes that is to be taken in; `None` if there is none.
    pub(super) fn room(&self, len: u32) -> Option<Room> {
        self.memory.room(len as usize)
    }

    /// Takes in chunk `index`, proved. The bytes, kept or not.
    pub(super) fn put(self: &Arc<Self>, index: u32, room: Room) -> Bytes {
        let bytes = Bytes::from_owner(room);
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        let fresh = match places.places.get_mut(index as usize) {
            Some(place) if place.kept.is_none() => {
                place.kept = Some(bytes.clone());
                *place.used.get_mut() = true;
                true
            }
            _ => false,
        };
        drop(places); // The hand takes the locks the other way round.
        if fresh {
            self.memory.push(self, index);
        }
        bytes
    }

    /// Chunk `index` may be wrong on disk, or is not held any more: it leaves.
    pub(super) fn remove(&self, index: u32) {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.places.get_mut(index as usize) {
            *place = Place::default();
        }
    }

    /// The version was replaced or removed: all leaves, and nothing comes again.
    pub(super) fn end(&self) {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        places.over = true;
        places.places = Vec::new();
    }

    fn keeps(&self, index: u32) -> bool {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        let place = places.places.get(index as usize);
        place.is_some_and(|place| place.kept.is_some())
    }

    /// The hand is at chunk `index`.
    fn pass(&self, index: u32) -> Passed {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = places.places.get_mut(index as usize) else {
            return Passed::Nothing;
        };
        if place.kept.is_some() && std::mem::take(place.used.get_mut()) {
            return Passed::Stays;
        }
        place.kept.take().map_or(Passed::Nothing, Passed::Gone)
    }
}

impl Room {
    pub(super) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Room {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let len = self.bytes.len() as u64;
        self.memory.used.fetch_sub(len, Ordering::AcqRel);
        self.memory.metrics.content.memory_bytes.sub(gauge(len));
    }
}

/// An eighth of what this process may have: of the machine's memory, or of its control group's.
#[expect(
    clippy::useless_conversion,
    reason = "the field's type differs between processors"
)]
pub(super) fn default_size() -> u64 {
    let info = rustix::system::sysinfo();
    let machine = u64::try_from(info.totalram).unwrap_or(u64::MAX);
    let machine = machine.saturating_mul(u64::from(info.mem_unit.max(1)));
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let read = |file: &Path| std::fs::read_to_string(file).ok();
    machine.min(group_limit(&groups, read)) / 8
}

/// The smallest limit of the control groups this process is in and of those around them. `groups` is the text of
/// `/proc/self/cgroup` (cgroups(7)); `read` gives a file's text.
fn group_limit(groups: &str, read: impl Fn(&Path) -> Option<String>) -> u64 {
    let lines = groups.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        rest.split_once(':')
    });
    let mut limit = u64::MAX;
    for (controllers, group) in lines {
        let (root, name) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|c| c == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        for group in Path::new(group.trim_start_matches('/')).ancestors() {
            let text = read(&Path::new(root).join(group).join(name));
            // "max": no limit.
            let found = text.and_then(|text| text.trim().parse().ok());
            limit = limit.min(found.unwrap_or(u64::MAX));
        }
    }
    limit
}

fn gauge(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Steps of the hand for one new chunk.
const LOOKS: usize = 8;

/// Entries of the ring without a chunk that are always allowed.
const RING: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u32 = 100;

    fn memory(chunks: u64) -> Arc<Memory> {
        Memory::new(chunks * u64::from(LEN), Arc::new(Metrics::new()))
    }

    /// Reads chunk `index` whole; whether it came from memory, and is kept now.
    fn read(object: &Arc<InMemory>, index: u32) -> (bool, bool) {
        if object.get(index).is_some() {
            return (true, true);
        }
        if object.note(index, 64, LEN, LEN)
            && let Some(mut room) = object.room(LEN)
        {
            room.as_mut().fill(index as u8);
            assert_eq!(object.put(index, room), vec![index as u8; LEN as usize]);
        }
        (false, object.keeps(index))
    }

    #[track_caller]
    fn check(object: &Arc<InMemory>, reads: &[u32], kept: &[u32]) {
        for &index in reads {
            read(object, index);
            assert!(object.memory.used.load(Ordering::Acquire) <= object.memory.size);
        }
        let found: Vec<u32> = (0..64).filter(|&index| object.keeps(index)).collect();
        assert_eq!(found, kept);
        let bytes = object.memory.metrics.content.memory_bytes.get();
        assert_eq!(bytes, kept.len() as i64 * i64::from(LEN));
    }

    #[test]
    fn chunk_read_twice_is_kept_and_one_read_once_is_not() {
        let memory = memory(10);
        let object = InMemory::new(&memory);
        check(&object, &[0, 1, 2, 1], &[1]);
        assert_eq!(read(&object, 1), (true, true));
    }

    #[test]
    fn second_read_long_after_the_first_does_not_count() {
        let memory = memory(4);
        let object = InMemory::new(&memory);
        let pass: Vec<u32> = (0..30).collect();
        check(&object, &[&pass[..], &pass[..]].concat(), &[]);
    }

    #[test]
    fn pass_over_a_huge_file_leaves_what_is_kept() {
        let memory = memory(4);
        let [kept, huge] = [InMemory::new(&memory), InMemory::new(&memory)];
        check(&kept, &[0, 0, 1, 1, 2, 2, 3, 3], &[0, 1, 2, 3]);
        for index in 0..64 {
            assert_eq!(read(&huge, index), (false, false));
        }
        check(&kept, &[], &[0, 1, 2, 3]);
    }

    #[test]
    fn full_memory_gives_up_what_is_not_read() {
        let memory = memory(4);
        let object = InMemory::new(&memory);
        check(&object, &[0, 0, 1, 1, 2, 2, 3, 3], &[0, 1, 2, 3]);
        // The first turn of the hand finds all of them read, and only says so.
        check(&object, &[4, 4], &[1, 2, 3, 4]);
        check(&object, &[1, 3, 5, 5], &[1, 3, 4, 5]);
    }

    #[test]
    fn memory_in_use_counts_after_its_chunk_has_gone() {
        let memory = memory(1);
        let [a, b] = [InMemory::new(&memory), InMemory::new(&memory)];
        check(&a, &[0, 0], &[0]);
        let sent = a.get(0).unwrap();
        a.end();
        assert!(!a.keeps(0));
        assert_eq!(read(&b, 1), (false, false));
        assert_eq!(read(&b, 1), (false, false));
        drop(sent);
        assert_eq!(read(&b, 1), (false, true));
    }

    #[test]
    fn object_that_is_over_takes_nothing_in() {
        let memory = memory(4);
        let object = InMemory::new(&memory);
        check(&object, &[0, 0, 1, 1], &[0, 1]);
        object.remove(0);
        check(&object, &[], &[1]);
        object.end();
        check(&object, &[0, 0, 0, 1, 1, 1], &[]);
    }

    #[test]
    fn no_memory_takes_nothing_in() {
        let memory = memory(0);
        let object = InMemory::new(&memory);
        check(&object, &[0, 0, 0], &[]);
    }

    #[test]
    fn ring_forgets_what_has_gone() {
        let memory = memory(4);
        for _ in 0..2 * RING {
            let object = InMemory::new(&memory);
            check(&object, &[0, 0], &[0]);
        }
        assert!(memory.ring.lock().unwrap().entries.len() <= RING + 1);
    }

    #[test]
    fn group_limit_is_the_smallest_of_all_around() {
        let files = |file: &Path| match file.to_str()? {
            "/sys/fs/cgroup/memory.max" => Some("max\n".into()),
            "/sys/fs/cgroup/a/memory.max" => Some("1000\n".into()),
            "/sys/fs/cgroup/a/b/memory.max" => Some("max\n".into()),
            "/sys/fs/cgroup/memory/x/memory.limit_in_bytes" => Some("500\n".into()),
            _ => None,
        };
        for (groups, expected) in [
            ("0::/a/b\n", 1000),
            ("0::/\n", u64::MAX),
            ("", u64::MAX),
            ("4:cpu:/x\n3:memory:/x\n0::/a\n", 500),
        ] {
            assert_eq!(group_limit(groups, files), expected, "{groups}");
        }
    }
}
