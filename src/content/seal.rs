//! Seals: a seeded 64-bit hash of every 64 KiB block of a chunk whose digest was right.
//!
//! A seal is made from the very bytes that passed the digest and lives in memory only, under a seed that is drawn
//! at start. Bytes that match it are those bytes, but for a chance of about 2⁻⁶⁴ that no disk and no writer can
//! raise without the seed. It costs about a tenth of the digest.

use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

/// The seed of all seals of one process.
#[derive(Debug, Default)]
pub(crate) struct Sealer(foldhash::quality::RandomState);

/// The seals of one object's chunks.
#[derive(Debug, Default)]
pub(crate) struct Seals {
    /// One chunk's blocks, once it was proved. A lock a reader holds for one look.
    chunks: RwLock<Vec<Option<Arc<[u64]>>>>,
}

impl Sealer {
    /// The seal of one block.
    pub(crate) fn seal(&self, block: &[u8]) -> u64 {
        self.0.hash_one(block)
    }

    /// The seals of bytes that begin at a block.
    pub(crate) fn seal_all<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = u64> + 'a {
        bytes.chunks(BLOCK).map(|block| self.seal(block))
    }

    /// Whether `bytes`, which begin at block `first` of the sealed chunk, are those that were proved.
    pub(crate) fn holds(&self, seals: &[u64], first: usize, bytes: &[u8]) -> bool {
        let sealed = seals.get(first..).unwrap_or_default();
        sealed.len() >= bytes.len().div_ceil(BLOCK)
            && self
                .seal_all(bytes)
                .zip(sealed)
                .all(|(found, expected)| found == *expected)
    }
}

impl Seals {
    /// The seals of chunk `index`, if it was proved.
    pub(crate) fn get(&self, index: u32) -> Option<Arc<[u64]>> {
        let chunks = self.chunks.read().unwrap_or_else(PoisonError::into_inner);
        chunks.get(index as usize)?.clone()
    }

    /// Chunk `index` of `count` was proved.
    pub(crate) fn set(&self, index: u32, count: u32, seals: Vec<u64>) {
        let mut chunks = self.chunks.write().unwrap_or_else(PoisonError::into_inner);
        if chunks.is_empty() {
            chunks.resize(count as usize, None);
        }
        if let Some(chunk) = chunks.get_mut(index as usize) {
            *chunk = Some(seals.into());
        }
    }

    /// Chunk `index` was found wrong, or may be.
    pub(crate) fn clear(&self, index: u32) {
        let mut chunks = self.chunks.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(chunk) = chunks.get_mut(index as usize) {
            *chunk = None;
        }
    }
}

/// The whole blocks around `within`, in a chunk of `len` bytes: the first block's number, and their bytes.
pub(crate) fn blocks(within: &Range<u32>, len: u32) -> (usize, Range<usize>) {
    let first = within.start as usize / BLOCK;
    let end = (within.end as usize).div_ceil(BLOCK) * BLOCK;
    (first, first * BLOCK..end.min(len as usize))
}

/// Bytes of a block: a small range reads and checks this much. Chunks are multiples of it.
pub(crate) const BLOCK: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(within: Range<u32>, len: u32, first: usize, span: Range<usize>) {
        let expected = (first, span);
        assert_eq!(blocks(&within, len), expected);
    }

    #[test]
    fn blocks_around_a_slice_are_whole_or_end_the_chunk() {
        check(0..1, 200_000, 0, 0..65_536);
        check(65_535..65_537, 200_000, 0, 0..131_072);
        check(199_999..200_000, 200_000, 3, 196_608..200_000);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn seal_any_changed_bit_is_seen(len in 1usize..200_000, at: prop::sample::Index, bit in 0u8..8) {
            let sealer = Sealer::default();
            let mut bytes: Vec<u8> = (0..len).map(|i| (i % 253) as u8).collect();
            let seals: Vec<u64> = sealer.seal_all(&bytes).collect();
            prop_assert!(sealer.holds(&seals, 0, &bytes));
            prop_assert!(!sealer.holds(&seals, 1, &bytes));
            bytes[at.index(len)] ^= 1 << bit;
            prop_assert!(!sealer.holds(&seals, 0, &bytes));
        }
    }
}
