//! What brings bytes into a content.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::slot::{Parts, Slot};
use super::{CHUNK, Content, Fill, State, place, signed};

/// Brings bytes into a content. Dropped before [`Filler::finish`], it broke off.
#[derive(Debug)]
pub struct Filler {
    content: Arc<Content>,
    id: u64,
    done: bool,
}

impl Filler {
    pub(super) fn new(content: &Arc<Content>, id: u64) -> Self {
        Self {
            content: Arc::clone(content),
            id,
            done: false,
        }
    }

    /// The next bytes. Gives the chunks they completed; `None` if they are more than was announced.
    pub fn append(&mut self, mut bytes: Bytes) -> Option<Vec<u64>> {
        let mut whole = Vec::new();
        let mut state = self.content.state();
        let state = &mut *state;
        let exact = state.is_small();
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
                    parts: Parts::default(),
                };
            }
            // A chunk that is held, or brought by another fill, stays as it is.
            if let Slot::Open { fill, parts } = slot
                && *fill == self.id
                && parts.len() == start
            {
                self.content.ledger.memory.add(signed(part.len() as u64));
                parts.push(part);
                let length = len.map_or(CHUNK, |len| (len - index * CHUNK).min(CHUNK));
                if parts.len() == length {
                    slot.close(exact);
                    whole.push(index);
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
    pub(in crate::http::proxy) fn finish(mut self) -> Result<Option<u64>, ()> {
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
                let exact = state.is_small();
                if let Some(slot @ Slot::Open { .. }) = state.slot(index) {
                    slot.close(exact);
                    last = Some(index);
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
        self.look(|fill| fill.end.saturating_sub(fill.at))
            .unwrap_or(0)
    }

    /// What it has still to bring, if that is known.
    #[must_use]
    pub fn rest(&self) -> Option<Range<u64>> {
        self.look(|fill| fill.at..fill.end)
            .filter(|rest| rest.end < u64::MAX)
    }

    /// Whether it brought more than `bytes`.
    #[must_use]
    pub fn past(&self, bytes: u64) -> bool {
        self.look(|fill| fill.at > bytes).unwrap_or(false)
    }

    fn look<T>(&self, at: impl FnOnce(&Fill) -> T) -> Option<T> {
        let state = self.content.state();
        state.fills.iter().find(|f| f.id == self.id).map(at)
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
            if let Slot::Open { fill, parts } = slot
                && *fill == self.id
            {
                lost += parts.len();
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

impl State {
    /// Whether it is one chunk at most, as far as is known.
    fn is_small(&self) -> bool {
        self.len.is_some_and(|len| len <= CHUNK)
    }
}
