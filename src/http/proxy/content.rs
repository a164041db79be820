//! The bytes of one stored response, in chunks: held in memory, on disk, or still on their way.
//!
//! A fill appends; readers follow its edge, so many share one fill. A chunk is whole before it is kept; of the one that
//! is being filled readers see what has come. Nothing here waits or reads a clock: [`Content::look`] says what a reader
//! gets now, and `changed` is rung when that may be more.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use prometheus::IntGauge;
use tokio::sync::Notify;

use super::disk::Disk;

mod fill;

mod slot;

pub use fill::Filler;
pub use slot::{Digest, OnDisk, Proof};
use slot::{Held, Parts, Slot};

/// Bytes of a chunk.
pub const CHUNK: u64 = 1 << 20;

/// A reader waits for a fill that is at most so many chunks behind; else it fetches for itself.
pub const AHEAD: u64 = 8;

/// The body of one stored response.
pub struct Content {
    /// Names its file.
    pub id: u128,
    /// Parts fetched at different times may be put together.
    pub strong: bool,
    state: Mutex<State>,
    /// Rung when bytes came, or a fill ended; and when a reader goes on in what is not kept.
    pub changed: Notify,
    /// Where its readers are.
    readers: Mutex<Vec<Arc<AtomicU64>>>,
    /// The disk did not take all of it: it goes to those who read it now, and is not kept.
    unkept: AtomicBool,
    ledger: Ledger,
}

/// Bytes held by all contents together.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// In memory.
    pub memory: IntGauge,
    /// On disk.
    pub disk: IntGauge,
    /// Read from disk.
    pub reads: Reads,
    /// Where files of contents that are gone are removed.
    pub files: Option<Disk>,
}

/// Bytes read from disk by all, which is the clock that says what was lately: it does not run while nobody reads.
#[derive(Clone, Debug)]
pub struct Reads {
    bytes: Arc<AtomicU64>,
    era: u64,
}

type Era = u64;

impl Reads {
    /// "Lately" is one to two times `bytes` read.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self {
            bytes: Arc::default(),
            era: bytes.max(1),
        }
    }

    fn now(&self) -> Era {
        self.bytes.load(Relaxed) / self.era
    }

    fn count(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }
}

#[derive(Default)]
struct State {
    len: Option<u64>,
    slots: Vec<Slot>,
    fills: Vec<Fill>,
    next: u64,
    failed: bool,
}

struct Fill {
    id: u64,
    at: u64,
    end: u64,
}

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    /// These bytes.
    Bytes(Bytes),
    /// This part of a chunk on disk.
    Disk(OnDisk),
    /// They are on their way.
    Wait,
    /// Nobody brings this chunk.
    Absent(u64),
    /// They will not come.
    Failed,
    /// The body has ended.
    End,
}

impl Content {
    /// A body of which nothing is there yet; `len` is `None` when only its end will tell.
    #[must_use]
    pub fn new(id: u128, len: Option<u64>, strong: bool, ledger: Ledger) -> Arc<Self> {
        let slots = len.map_or(0, |len| len.div_ceil(CHUNK));
        let state = State {
            len,
            slots: (0..slots).map(|_| Slot::Empty).collect(),
            ..State::default()
        };
        Arc::new(Self {
            id,
            strong,
            state: Mutex::new(state),
            changed: Notify::new(),
            readers: Mutex::default(),
            unkept: AtomicBool::new(false),
            ledger,
        })
    }

    /// A body whose chunks lie on disk; `None` where one is missing.
    #[must_use]
    pub fn restored(
        id: u128,
        len: u64,
        strong: bool,
        digests: &[Option<Digest>],
        ledger: Ledger,
    ) -> Arc<Self> {
        let content = Self::new(id, Some(len), strong, ledger);
        for (index, digest) in (0..).zip(digests) {
            if let Some(digest) = digest {
                let mut state = content.state();
                let length = state.length(index);
                if let Some(slot) = state.slot(index) {
                    *slot = Slot::Held(Held {
                        memory: None,
                        proof: Some(Proof {
                            digest: *digest,
                            seals: None,
                        }),
                        length,
                        touched: false,
                        lately: (0, 0),
                    });
                    content.ledger.disk.add(signed(length));
                }
            }
        }
        content
    }

    /// The whole body, if it is small and in memory.
    #[must_use]
    pub fn whole(&self) -> Option<Bytes> {
        let mut state = self.state();
        match (state.len?, state.slots.as_mut_slice()) {
            (0, _) => Some(Bytes::new()),
            (len, [Slot::Held(held)]) => {
                let one = held.memory.as_ref()?.one()?;
                if len != one.len() as u64 {
                    return None;
                }
                held.touched = true;
                Some(one.clone())
            }
            _ => None,
        }
    }

    /// Its length, once that is known.
    #[must_use]
    pub(super) fn len(&self) -> Option<u64> {
        self.state().len
    }

    /// Whether all of it is held.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let state = self.state();
        state.len.is_some() && state.slots.iter().all(|s| matches!(s, Slot::Held(_)))
    }

    /// Whether it broke off and cannot be completed.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.state().failed
    }

    /// The bytes at `at`, at most to `end`.
    #[must_use]
    pub fn look(&self, at: u64, end: u64) -> Look {
        let mut state = self.state();
        let end = state.len.map_or(end, |len| len.min(end));
        if at >= end {
            return Look::End;
        }
        let (index, start) = (at / CHUNK, at % CHUNK);
        let until = (end - index * CHUNK).min(CHUNK);
        let awaited = |state: &State, far: bool| {
            state.fills.iter().any(|fill| {
                let next = fill.at / CHUNK;
                let near = far || index.saturating_sub(next) <= AHEAD;
                next <= index && index * CHUNK < fill.end && near
            })
        };
        let failed = state.failed;
        match state.slot(index) {
            Some(Slot::Held(held)) => {
                let until = until.min(held.length);
                if start >= until {
                    return Look::End;
                }
                if let Some(parts) = &held.memory {
                    held.touched = true;
                    return parts.at(start, until).map_or(Look::Failed, Look::Bytes);
                }
                let era = self.ledger.reads.now();
                match held.on_disk(index, start..until, era) {
                    Some(on_disk) => {
                        self.ledger.reads.count(on_disk.within.len());
                        Look::Disk(on_disk)
                    }
                    None => Look::Failed,
                }
            }
            Some(Slot::Open { parts, .. }) => {
                parts.at(start, until).map_or(Look::Wait, Look::Bytes)
            }
            Some(Slot::Empty) | None if failed => Look::Failed,
            Some(Slot::Empty) | None => {
                if awaited(&state, !self.strong) {
                    Look::Wait
                } else if self.strong && state.len.is_some() {
                    Look::Absent(index)
                } else {
                    Look::Failed
                }
            }
        }
    }

    /// The missing chunks from `index` on that one fetch for a reader up to `end` should bring, as a range of bytes.
    #[must_use]
    pub fn gap(&self, index: u64, end: u64) -> Range<u64> {
        let state = self.state();
        let len = state.len.unwrap_or(u64::MAX);
        let last = end.min(len).div_ceil(CHUNK);
        let mut until = index + 1;
        while until < last
            && usize::try_from(until)
                .ok()
                .and_then(|i| state.slots.get(i))
                .is_some_and(|slot| matches!(slot, Slot::Empty))
        {
            until += 1;
        }
        index * CHUNK..(until * CHUNK).min(len)
    }

    /// Where the whole is missing its first byte, if its beginning is held: a fetch of the rest begins there.
    #[must_use]
    pub fn first_gap(&self) -> Option<u64> {
        let state = self.state();
        let gap = state.slots.iter().position(|s| matches!(s, Slot::Empty))?;
        Some(gap as u64 * CHUNK)
    }

    /// A fill of `range` begins.
    #[must_use]
    pub fn begin(self: &Arc<Self>, range: Range<u64>) -> Filler {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        state.fills.push(Fill {
            id,
            at: range.start,
            end: range.end,
        });
        drop(state);
        Filler::new(self, id)
    }

    /// The bytes of a chunk that is not on disk yet.
    #[must_use]
    pub fn unwritten(&self, index: u64) -> Option<Vec<Bytes>> {
        match self.state().slot(index)? {
            Slot::Held(held) if held.proof.is_none() => held.memory.clone().map(Parts::into_vec),
            _ => None,
        }
    }

    /// A chunk was written: from now on its copy in memory may go.
    pub fn written(&self, index: u64, proof: Proof) {
        if let Some(Slot::Held(held)) = self.state().slot(index)
            && held.proof.is_none()
        {
            held.proof = Some(proof);
            self.ledger.disk.add(signed(held.length));
        }
    }

    /// A chunk on disk was digested by this process.
    pub fn sealed(&self, index: u64, seals: Vec<u64>) {
        if let Some(Slot::Held(held)) = self.state().slot(index)
            && let Some(proof) = &mut held.proof
        {
            proof.seals = Some(seals.into());
        }
    }

    /// A chunk was read and verified: it is in memory again. Gives whether it was not before.
    pub fn read_back(&self, index: u64, read: &Bytes) -> bool {
        if let Some(Slot::Held(held)) = self.state().slot(index)
            && held.memory.is_none()
        {
            held.memory = Some(read.clone().into());
            self.ledger.memory.add(signed(read.len() as u64));
            return true;
        }
        false
    }

    /// A chunk on disk is not what was written: it is forgotten.
    pub fn rotten(&self, index: u64) {
        let mut state = self.state();
        let mut lost = None;
        if let Some(slot) = state.slot(index)
            && let Slot::Held(Held {
                memory: None,
                length,
                ..
            }) = slot
        {
            lost = Some(*length);
            *slot = Slot::Empty;
        }
        if let Some(length) = lost {
            self.ledger.disk.sub(signed(length));
            if !self.strong {
                state.failed = true;
            }
        }
    }

    /// Lets a chunk's copy in memory go, if it is on disk. Gives `false` when it was used since the last time: later.
    #[must_use]
    pub fn release(&self, index: u64) -> bool {
        if let Some(Slot::Held(held)) = self.state().slot(index)
            && held.proof.is_some()
        {
            if std::mem::take(&mut held.touched) {
                return false;
            }
            self.let_go(held);
        }
        true
    }

    /// As [`Content::release`], whether it was used or not.
    pub fn pass(&self, index: u64) {
        if let Some(Slot::Held(held)) = self.state().slot(index)
            && held.proof.is_some()
        {
            self.let_go(held);
        }
    }

    /// Whether a reader has still to come by a chunk; if not, its copy in memory goes, as with [`Content::pass`].
    pub fn is_wanted(&self, index: u64) -> bool {
        let behind = self.readers().iter().map(|at| at.load(Relaxed)).min();
        let wanted = behind.is_some_and(|behind| behind < (index + 1) * CHUNK);
        if !wanted {
            self.pass(index);
        }
        wanted
    }

    fn let_go(&self, held: &mut Held) {
        if let Some(parts) = held.memory.take() {
            self.ledger.memory.sub(signed(parts.len()));
        }
    }

    /// Whether more than one chunk of it is known: such are not kept in memory alone.
    #[must_use]
    pub fn is_large(&self) -> bool {
        let state = self.state();
        state.len.is_some_and(|len| len > CHUNK) || state.slots.len() > 1
    }

    /// The disk does not take it.
    pub fn unkeep(&self) {
        self.unkept.store(true, Relaxed);
        self.changed.notify_waiters();
    }

    /// Whether it goes to those who read it now only.
    #[must_use]
    pub fn is_unkept(&self) -> bool {
        self.unkept.load(Relaxed)
    }

    /// Forgets the chunks in memory that are not on disk and that all readers have behind them. Gives the bytes that are
    /// left of such.
    pub fn forget_passed(&self) -> u64 {
        let positions = self.readers().iter().map(|at| at.load(Relaxed)).min();
        let behind = positions.unwrap_or(u64::MAX);
        let (mut left, mut gone) = (0, 0);
        for (index, slot) in (0..).zip(&mut self.state().slots) {
            let Slot::Held(Held {
                memory: Some(parts),
                proof: None,
                ..
            }) = slot
            else {
                continue;
            };
            if (index + 1) * CHUNK <= behind {
                gone += parts.len();
                *slot = Slot::Empty;
            } else {
                left += parts.len();
            }
        }
        self.ledger.memory.sub(signed(gone));
        left
    }

    /// Length and digests of what lies on disk.
    #[must_use]
    pub fn digests(&self) -> Option<(u64, Vec<Option<Digest>>)> {
        let state = self.state();
        let digests = state.slots.iter().map(|slot| match slot {
            Slot::Held(held) => held.proof.as_ref().map(|proof| proof.digest),
            _ => None,
        });
        Some((state.len?, digests.collect()))
    }

    /// One reader more, which is at its beginning; the guard's drop takes it back.
    #[must_use]
    pub fn reader(self: &Arc<Self>) -> Reading {
        let at = Arc::new(AtomicU64::new(0));
        self.readers().push(Arc::clone(&at));
        Reading {
            content: Arc::clone(self),
            at,
        }
    }

    /// Whether somebody reads it now.
    #[must_use]
    pub fn is_read(&self) -> bool {
        !self.readers().is_empty()
    }

    fn readers(&self) -> MutexGuard<'_, Vec<Arc<AtomicU64>>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content")
            .field("id", &self.id)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let (mut memory, mut disk) = (0, 0);
        for slot in &state.slots {
            let (in_memory, on_disk) = slot.weight();
            memory += in_memory;
            disk += on_disk;
        }
        self.ledger.memory.sub(signed(memory));
        self.ledger.disk.sub(signed(disk));
        if let Some(files) = &self.ledger.files {
            files.remove(self.id);
        }
    }
}

impl State {
    fn slot(&mut self, index: u64) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(index).ok()?)
    }

    /// Bytes of chunk `index`, as far as is known.
    fn length(&self, index: u64) -> u64 {
        self.len
            .map_or(CHUNK, |len| len.saturating_sub(index * CHUNK).min(CHUNK))
    }
}

/// A reader of a content.
#[derive(Debug)]
pub struct Reading {
    content: Arc<Content>,
    at: Arc<AtomicU64>,
}

impl Reading {
    /// It wants nothing before `at` any more.
    pub fn passed(&self, at: u64) {
        self.at.store(at, Relaxed);
        if self.content.is_unkept() {
            self.content.changed.notify_waiters();
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.content
            .readers()
            .retain(|at| !Arc::ptr_eq(at, &self.at));
        if self.content.is_unkept() {
            self.content.changed.notify_waiters();
        }
    }
}

/// A place within a chunk, or the number of one.
fn place(at: u64) -> usize {
    usize::try_from(at).expect("chunks and their numbers fit in memory")
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ledger() -> Ledger {
        let gauge = || IntGauge::new("a", "b").unwrap();
        Ledger {
            memory: gauge(),
            disk: gauge(),
            reads: Reads::new(4 * CHUNK),
            files: None,
        }
    }

    fn proof() -> Proof {
        Proof {
            digest: [7; 32],
            seals: None,
        }
    }

    fn bytes(range: Range<u64>) -> Bytes {
        range.map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn reader_follows_the_edge() {
        let content = Content::new(1, Some(10), false, ledger());
        assert_eq!(content.look(0, 10), Look::Failed, "nobody brings it");
        let mut fill = content.begin(0..10);
        assert_eq!(content.look(0, 10), Look::Wait);
        assert!(fill.append(bytes(0..4)).unwrap().is_empty());
        assert_eq!(content.look(1, 10), Look::Bytes(bytes(1..4)));
        assert_eq!(content.look(4, 10), Look::Wait);
        assert!(content.whole().is_none());
        assert_eq!(fill.append(bytes(4..10)).unwrap().len(), 1);
        fill.finish().unwrap();
        assert_eq!(content.whole(), Some(bytes(0..10)));
        assert_eq!(content.look(10, 20), Look::End);
    }

    #[test]
    fn body_of_unknown_length_has_one_at_its_end() {
        let ledger = ledger();
        let content = Content::new(1, None, false, ledger.clone());
        let mut fill = content.begin(0..u64::MAX);
        fill.append(bytes(0..5)).unwrap();
        assert_eq!(
            (content.len(), content.look(5, u64::MAX)),
            (None, Look::Wait)
        );
        let last = fill.finish().unwrap();
        assert_eq!(last, Some(0));
        assert_eq!(
            (content.len(), content.look(5, u64::MAX)),
            (Some(5), Look::End)
        );
        assert_eq!(ledger.memory.get(), 5);
        drop(content);
        assert_eq!(ledger.memory.get(), 0);
    }

    #[test]
    fn fill_that_breaks_off_fails_its_readers() {
        let content = Content::new(1, Some(10), false, ledger());
        let mut fill = content.begin(0..10);
        fill.append(bytes(0..4)).unwrap();
        drop(fill);
        assert_eq!(content.look(0, 10), Look::Failed);
        assert!(content.is_failed());
        let short = Content::new(1, Some(10), false, ledger());
        assert!(short.begin(0..10).finish().is_err());
        assert!(short.is_failed());
    }

    #[test]
    fn body_longer_than_announced_is_refused() {
        let content = Content::new(1, Some(3), false, ledger());
        assert!(content.begin(0..3).append(bytes(0..4)).is_none());
    }

    #[test]
    fn part_far_from_every_fill_is_fetched_for_itself() {
        let len = 64 * CHUNK;
        let content = Content::new(1, Some(len), true, ledger());
        let _fill = content.begin(0..len);
        assert_eq!(content.look(AHEAD * CHUNK, len), Look::Wait);
        assert_eq!(content.look(40 * CHUNK + 7, len), Look::Absent(40));
        assert_eq!(content.gap(40, 40 * CHUNK + 8), 40 * CHUNK..41 * CHUNK);
        assert_eq!(content.gap(63, u64::MAX), 63 * CHUNK..len);
    }

    #[test]
    fn memory_is_given_back_only_for_what_lies_on_disk() {
        let ledger = ledger();
        let content = Content::new(1, Some(5), true, ledger.clone());
        let mut fill = content.begin(0..5);
        fill.append(bytes(0..5)).unwrap();
        fill.finish().unwrap();
        assert!(content.release(0) && content.whole().is_some());
        content.written(0, proof());
        assert!(!content.release(0), "used since");
        assert!(content.release(0));
        assert_eq!((ledger.memory.get(), ledger.disk.get()), (0, 5));
        assert!(matches!(content.look(1, 5), Look::Disk(on) if on.index == 0));
        assert!(content.read_back(0, &bytes(0..5)));
        assert_eq!(content.whole(), Some(bytes(0..5)));
        assert!(!content.release(0) && content.release(0));
        content.rotten(0);
        assert_eq!(content.look(0, 5), Look::Absent(0));
        assert_eq!((ledger.memory.get(), ledger.disk.get()), (0, 0));
    }

    #[test]
    fn chunk_read_again_and_again_from_disk_should_be_in_memory() {
        let len = 2 * CHUNK;
        let digests = [Some([7; 32]); 2];
        let content = Content::restored(1, len, true, &digests, ledger());
        let often = |at: u64| match content.look(at, len) {
            Look::Disk(on_disk) => {
                assert_eq!(on_disk.within.len(), 256 << 10);
                on_disk.often
            }
            other => panic!("{other:?}"),
        };
        // One pass over all of it is not often.
        assert!((0..8).all(|frame| !often(frame * (256 << 10))));
        assert!(often(0));
        // Much was read meanwhile: what was read before does not count any more.
        for _ in 0..24 {
            often(CHUNK);
        }
        assert!(!often(0));
    }

    #[test]
    fn unkept_chunks_go_when_all_readers_have_them_behind_them() {
        let ledger = ledger();
        let content = Content::new(1, Some(3 * CHUNK), false, ledger.clone());
        let mut fill = content.begin(0..3 * CHUNK);
        let (fast, slow) = (content.reader(), content.reader());
        fill.append(bytes(0..2 * CHUNK)).unwrap();
        content.unkeep();
        fast.passed(2 * CHUNK);
        assert_eq!(content.forget_passed(), 2 * CHUNK, "the slow one wants it");
        slow.passed(CHUNK);
        assert_eq!(content.forget_passed(), CHUNK);
        assert_eq!(ledger.memory.get(), signed(CHUNK));
        drop(slow);
        assert_eq!(content.forget_passed(), 0);
        fill.append(bytes(0..CHUNK)).unwrap();
        fill.finish().unwrap();
        assert!(!content.is_complete());
        drop((content, fast));
        assert_eq!(ledger.memory.get(), 0);
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_brought(
            len in 0u64..5_000_000, cuts in proptest::collection::vec(1u64..700_000, 1..20),
            from in 0u64..5_000_000, known: bool,
        ) {
            let content = Content::new(1, known.then_some(len), false, ledger());
            let mut fill = content.begin(0..if known { len } else { u64::MAX });
            let mut at = 0;
            for cut in cuts.iter().cycle() {
                if at == len { break; }
                let next = (at + cut).min(len);
                fill.append(bytes(at..next)).unwrap();
                at = next;
            }
            fill.finish().unwrap();
            prop_assert!(content.is_complete());
            let (mut at, mut out) = (from.min(len), Vec::new());
            loop {
                match content.look(at, u64::MAX) {
                    Look::Bytes(b) => { at += b.len() as u64; out.extend_from_slice(&b); }
                    other => { prop_assert_eq!(other, Look::End); break; }
                }
            }
            prop_assert!(out == bytes(from.min(len)..len));
        }
    }
}
