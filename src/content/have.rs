//! Which chunks of an object are held: a bitmap.

/// A bitmap of chunks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Have {}

impl Have {
    /// None of `count` chunks.
    #[must_use]
    pub fn empty(count: u32) -> Self {
        let _ = count;
        unimplemented!()
    }

    /// Whether chunk `index` is held.
    #[must_use]
    pub fn contains(&self, index: u32) -> bool {
        let _ = index;
        unimplemented!()
    }

    /// Chunks held.
    #[must_use]
    pub fn held(&self) -> u32 {
        unimplemented!()
    }

    /// Chunks in all.
    #[must_use]
    pub fn count(&self) -> u32 {
        unimplemented!()
    }

    /// Chunks that are missing, in order.
    pub fn missing(&self) -> impl Iterator<Item = u32> + '_ {
        std::iter::empty()
    }
}
