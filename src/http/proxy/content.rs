//! The bytes of one stored response, in chunks: held in memory, on disk, or still on their way.
//!
//! A fill appends; readers follow its edge, so many share one fill. A chunk is whole before it is kept; of the one that
//! is being filled readers see what has come. Nothing here waits or reads a clock: [`Content::look`] says what a reader
//! gets now, and `changed` is rung when that may be more.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use prometheus::IntGauge;
use tokio::sync::Notify;

use super::disk::Disk;

/// Digest of a chunk on disk (BLAKE3).
pub type Digest = [u8; 32];

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
    /// Rung when bytes came, or a fill ended.
    pub changed: Notify,
    readers: AtomicUsize,
    ledger: Ledger,
}

/// Bytes held by all contents together.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// In memory.
    pub memory: IntGauge,
    /// On disk.
    pub disk: IntGauge,
    /// Where files of contents that are gone are removed.
    pub files: Option<Disk>,
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

#[derive(Default)]
enum Slot {
    #[default]
    Empty,
    /// A fill brings it.
    Open {
        fill: u64,
        parts: Vec<Bytes>,
        have: u64,
    },
    /// Held: in memory, on disk, or both.
    Held {
        bytes: Option<Bytes>,
        digest: Option<Digest>,
        length: u64,
        touched: bool,
    },
}

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    /// These bytes.
    Bytes(Bytes),
    /// This part of a chunk on disk.
    Disk {
        /// The chunk.
        index: u64,
        /// What it must digest to.
        digest: Digest,
        /// Bytes of the whole chunk.
        length: u64,
        /// The part wanted.
        within: Range<usize>,
    },
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
            readers: AtomicUsize::new(0),
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
                    *slot = Slot::Held {
                        bytes: None,
                        digest: Some(*digest),
                        length,
                        touched: false,
                    };
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
            (
                len,
                [
                    Slot::Held {
                        bytes: Some(bytes),
                        touched,
                        ..
                    },
                ],
            ) if len == bytes.len() as u64 => {
                *touched = true;
                Some(bytes.clone())
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
        state.len.is_some() && state.slots.iter().all(|s| matches!(s, Slot::Held { .. }))
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
            Some(Slot::Held {
                bytes,
                digest,
                length,
                touched,
            }) => {
                *touched = true;
                let until = until.min(*length);
                if start >= until {
                    return Look::End;
                }
                let within = place(start)..place(until);
                match (bytes, digest) {
                    (Some(bytes), _) => Look::Bytes(bytes.slice(within)),
                    (None, Some(digest)) => Look::Disk {
                        index,
                        digest: *digest,
                        length: *length,
                        within,
                    },
                    (None, None) => Look::Failed,
                }
            }
            Some(Slot::Open { parts, have, .. }) => {
                if start >= *have {
                    return Look::Wait;
                }
                let mut before = 0;
                for part in parts {
                    let after = before + part.len() as u64;
                    if start < after {
                        let cut = place(start - before)..place(until.min(after) - before);
                        return Look::Bytes(part.slice(cut));
                    }
                    before = after;
                }
                Look::Wait
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
        Filler {
            content: Arc::clone(self),
            id,
            done: false,
        }
    }

    /// A chunk was written: from now on its copy in memory may go.
    pub fn written(&self, index: u64, found: Digest) {
        if let Some(Slot::Held { digest, length, .. }) = self.state().slot(index)
            && digest.is_none()
        {
            *digest = Some(found);
            self.ledger.disk.add(signed(*length));
        }
    }

    /// A chunk was read and verified: it is in memory again. Gives whether it was not before.
    pub fn read_back(&self, index: u64, read: &Bytes) -> bool {
        if let Some(Slot::Held { bytes, .. }) = self.state().slot(index)
            && bytes.is_none()
        {
            *bytes = Some(read.clone());
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
            && let Slot::Held {
                bytes: None,
                length,
                ..
            } = slot
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
        if let Some(Slot::Held {
            bytes,
            digest: Some(_),
            touched,
            ..
        }) = self.state().slot(index)
        {
            if std::mem::take(touched) {
                return false;
            }
            if let Some(bytes) = bytes.take() {
                self.ledger.memory.sub(signed(bytes.len() as u64));
            }
        }
        true
    }

    /// Length and digests of what lies on disk.
    #[must_use]
    pub fn digests(&self) -> Option<(u64, Vec<Option<Digest>>)> {
        let state = self.state();
        let digests = state.slots.iter().map(|slot| match slot {
            Slot::Held { digest, .. } => *digest,
            _ => None,
        });
        Some((state.len?, digests.collect()))
    }

    /// One reader more; the guard's drop takes it back.
    #[must_use]
    pub fn reader(self: &Arc<Self>) -> Reading {
        self.readers.fetch_add(1, Relaxed);
        Reading(Arc::clone(self))
    }

    /// Whether somebody reads it now.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.readers.load(Relaxed) > 0
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
            match slot {
                Slot::Empty => {}
                Slot::Open { have, .. } => memory += have,
                Slot::Held {
                    bytes,
                    digest,
                    length,
                    ..
                } => {
                    memory += bytes.as_ref().map_or(0, |b| b.len() as u64);
                    disk += if digest.is_some() { *length } else { 0 };
                }
            }
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
pub struct Reading(Arc<Content>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Relaxed);
    }
}

/// Brings bytes into a content. Dropped before [`Filler::finish`], it broke off.
#[derive(Debug)]
pub struct Filler {
    content: Arc<Content>,
    id: u64,
    done: bool,
}

impl Filler {
    /// The next bytes. Gives the chunks they completed; `None` if they are more than was announced.
    pub fn append(&mut self, mut bytes: Bytes) -> Option<Vec<(u64, Bytes)>> {
        let mut whole = Vec::new();
        let mut state = self.content.state();
        let state = &mut *state;
        let fill = state.fills.iter_mut().find(|f| f.id == self.id)?;
        if fill.at.saturating_add(bytes.len() as u64) > fill.end {
            return None;
        }
        while !bytes.is_empty() {
            let (index, start) = (fill.at / CHUNK, fill.at % CHUNK);
            let part = bytes.split_to(bytes.len().min(place(CHUNK - start)));
            fill.at += part.len() as u64;
            let len = state.len;
            while state.slots.len() <= place(index) {
                state.slots.push(Slot::Empty);
            }
            let slot = &mut state.slots[place(index)];
            if matches!(slot, Slot::Empty) && start == 0 {
                *slot = Slot::Open {
                    fill: self.id,
                    parts: Vec::new(),
                    have: 0,
                };
            }
            // A chunk that is held, or brought by another fill, stays as it is.
            if let Slot::Open { fill, parts, have } = slot
                && *fill == self.id
                && *have == start
            {
                *have += part.len() as u64;
                self.content.ledger.memory.add(signed(part.len() as u64));
                parts.push(part);
                let length = len.map_or(CHUNK, |len| (len - index * CHUNK).min(CHUNK));
                if *have == length {
                    whole.push((index, slot.close()));
                }
            }
        }
        self.content.changed.notify_waiters();
        Some(whole)
    }

    /// All came that was to come. Gives the last chunk of a body of unknown length.
    ///
    /// # Errors
    /// It ended too early.
    pub(super) fn finish(mut self) -> Result<Option<(u64, Bytes)>, ()> {
        let mut state = self.content.state();
        let place = state.fills.iter().position(|f| f.id == self.id).ok_or(())?;
        let at = state.fills[place].at;
        let mut last = None;
        match state.len {
            Some(len) if at < state.fills[place].end.min(len) => return Err(()),
            Some(_) => {}
            None => {
                state.len = Some(at);
                let index = at / CHUNK;
                if let Some(slot @ Slot::Open { .. }) = state.slot(index) {
                    last = Some((index, slot.close()));
                }
            }
        }
        state.fills.swap_remove(place);
        drop(state);
        self.done = true;
        self.content.changed.notify_waiters();
        Ok(last)
    }

    /// How much is left of it, as far as is known.
    #[must_use]
    pub fn left(&self) -> u64 {
        let state = self.content.state();
        let fill = state.fills.iter().find(|f| f.id == self.id);
        fill.map_or(0, |fill| fill.end.saturating_sub(fill.at))
    }

    /// Whether it brought more than `bytes`.
    #[must_use]
    pub fn past(&self, bytes: u64) -> bool {
        let state = self.content.state();
        let fill = state.fills.iter().find(|f| f.id == self.id);
        fill.is_some_and(|fill| fill.at > bytes)
    }

    /// What it fills.
    #[must_use]
    pub fn content(&self) -> &Arc<Content> {
        &self.content
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let mut state = self.content.state();
        state.fills.retain(|f| f.id != self.id);
        let mut lost = 0;
        for slot in &mut state.slots {
            if let Slot::Open { fill, have, .. } = slot
                && *fill == self.id
            {
                lost += *have;
                *slot = Slot::Empty;
            }
        }
        if !self.content.strong || state.len.is_none() {
            state.failed = true;
        }
        drop(state);
        self.content.ledger.memory.sub(signed(lost));
        self.content.changed.notify_waiters();
    }
}

impl Slot {
    /// Makes an open chunk a held one; a copy, so that no larger buffer is kept alive by it.
    fn close(&mut self) -> Bytes {
        let Self::Open { parts, have, .. } = self else {
            return Bytes::new();
        };
        let length = *have;
        let mut whole = BytesMut::with_capacity(place(length));
        for part in parts {
            whole.extend_from_slice(part);
        }
        let whole = whole.freeze();
        *self = Self::Held {
            bytes: Some(whole.clone()),
            digest: None,
            length,
            touched: true,
        };
        whole
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
            files: None,
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
        assert_eq!(last, Some((0, bytes(0..5))));
        assert_eq!(
            (content.len(), content.look(5, u64::MAX)),
            (Some(5), Look::End)
        );
        assert_eq!(ledger.memory.get(), 5);
        drop((content, last));
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
        content.written(0, [7; 32]);
        assert!(!content.release(0), "used since");
        assert!(content.release(0));
        assert_eq!((ledger.memory.get(), ledger.disk.get()), (0, 5));
        assert!(matches!(content.look(1, 5), Look::Disk { index: 0, .. }));
        assert!(content.read_back(0, &bytes(0..5)));
        assert_eq!(content.whole(), Some(bytes(0..5)));
        assert!(!content.release(0) && content.release(0));
        content.rotten(0);
        assert_eq!(content.look(0, 5), Look::Absent(0));
        assert_eq!((ledger.memory.get(), ledger.disk.get()), (0, 0));
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
