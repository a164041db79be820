//! Digests, and the arithmetic between byte ranges and chunks.

/// A BLAKE3 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Digest(pub [u8; 32]);

/// How an object of `size` bytes is cut into chunks of `chunk` bytes (the last may be shorter).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Object size, bytes.
    pub size: u64,
    /// Chunk size, bytes; not 0.
    pub chunk: u32,
}

/// A part of one chunk: chunk number and the bytes within it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slice {
    /// Chunk number.
    pub index: u32,
    /// Bytes within the chunk.
    pub within: std::ops::Range<u32>,
}

impl Layout {
    /// Number of chunks.
    #[must_use]
    pub fn count(&self) -> u32 {
        unimplemented!()
    }

    /// Bytes of chunk `index`.
    #[must_use]
    pub fn len(&self, index: u32) -> u32 {
        let _ = index;
        unimplemented!()
    }

    /// The chunks that cover `range` (within the object), in order, each with its inner slice.
    pub fn cover(&self, range: std::ops::Range<u64>) -> impl Iterator<Item = Slice> + use<> {
        let _ = range;
        std::iter::empty()
    }
}
