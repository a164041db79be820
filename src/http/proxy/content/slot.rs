//! One chunk of a content: not there, on its way, in memory, on disk.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::{Era, place};

/// Digest of a chunk on disk (BLAKE3).
pub type Digest = [u8; 32];

/// What a chunk on disk is held against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Its digest.
    pub digest: Digest,
    /// Hashes of its blocks that cost less, under a seed of this process; `None` until it was digested by it.
    pub seals: Option<Arc<[u64]>>,
}

#[derive(Debug, Default)]
pub(super) enum Slot {
    #[default]
    Empty,
    /// A fill brings it.
    Open {
        fill: u64,
        parts: Parts,
    },
    Held(Held),
}

/// A chunk that is whole: in memory, on disk, or both.
#[derive(Debug)]
pub(super) struct Held {
    /// Its bytes in memory; `None`: only on disk.
    pub(super) memory: Option<Parts>,
    /// Set once it is on disk.
    pub(super) proof: Option<Proof>,
    pub(super) length: u64,
    /// Read from memory since the hand came by.
    pub(super) touched: bool,
    /// Bytes of it read from disk lately, and when that was.
    pub(super) lately: (Era, u64),
}

/// Bytes as they came, piece by piece.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    parts: Vec<Bytes>,
    len: u64,
}

impl Parts {
    pub(super) fn push(&mut self, part: Bytes) {
        self.len += part.len() as u64;
        self.parts.push(part);
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The pieces.
    pub(super) fn into_vec(self) -> Vec<Bytes> {
        self.parts
    }

    /// All, if it is one piece.
    pub(super) fn one(&self) -> Option<&Bytes> {
        match self.parts.as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }

    /// What the piece at `start` has, at most to `until`; `None` if that has not come.
    pub(super) fn at(&self, start: u64, until: u64) -> Option<Bytes> {
        let mut before = 0;
        for part in &self.parts {
            let after = before + part.len() as u64;
            if start < after {
                return Some(part.slice(place(start - before)..place(until.min(after) - before)));
            }
            before = after;
        }
        None
    }

    /// Made to hold no more memory than its bytes, or little more: pieces are slices of the buffers they were read into.
    /// `exact` where it may stay for long; else small pieces only are put together, and large ones not copied.
    pub(super) fn settle(&mut self, exact: bool) {
        if self.parts.is_empty() || !exact && self.parts.len() <= PIECES {
            return;
        }
        let mut whole = BytesMut::with_capacity(place(self.len));
        for part in &self.parts {
            whole.extend_from_slice(part);
        }
        self.parts = vec![whole.freeze()];
    }
}

impl From<Bytes> for Parts {
    fn from(bytes: Bytes) -> Self {
        Self {
            len: bytes.len() as u64,
            parts: vec![bytes],
        }
    }
}

impl Slot {
    /// Bytes of it in memory, and on disk.
    pub(super) fn weight(&self) -> (u64, u64) {
        match self {
            Self::Empty => (0, 0),
            Self::Open { parts, .. } => (parts.len(), 0),
            Self::Held(held) => (
                held.memory.as_ref().map_or(0, Parts::len),
                if held.proof.is_some() { held.length } else { 0 },
            ),
        }
    }

    /// Makes an open chunk a held one.
    pub(super) fn close(&mut self, exact: bool) {
        if let Self::Open { parts, .. } = self {
            let mut parts = std::mem::take(parts);
            parts.settle(exact);
            *self = Self::Held(Held {
                length: parts.len(),
                memory: Some(parts),
                proof: None,
                touched: true,
                lately: (0, 0),
            });
        }
    }
}

impl Held {
    /// The bytes `within`, as they lie on disk.
    pub(super) fn on_disk(&mut self, index: u64, within: Range<u64>, era: Era) -> Option<OnDisk> {
        let proof = self.proof.clone()?;
        let within = within.start..within.end.min((within.start / FRAME + 1) * FRAME);
        if self.lately.0 + 1 < era {
            self.lately.1 = 0;
        }
        let often = self.lately.1 >= self.length;
        self.lately = (era, self.lately.1 + within.end - within.start);
        Some(OnDisk {
            index,
            proof,
            length: self.length,
            within: place(within.start)..place(within.end),
            often,
        })
    }
}

/// A part of a chunk on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnDisk {
    /// The chunk.
    pub index: u64,
    /// What it is held against.
    pub proof: Proof,
    /// Bytes of the whole chunk.
    pub length: u64,
    /// The part wanted; it ends at a multiple of 256 KiB, or where the chunk or the range does.
    pub within: Range<usize>,
    /// All of it was read lately: it should be in memory.
    pub often: bool,
}

/// Bytes read from disk at a time.
const FRAME: u64 = 256 << 10;

/// A chunk may consist of so many pieces before they are put together.
const PIECES: usize = 16;
