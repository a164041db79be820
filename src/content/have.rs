//! Which chunks of an object are held: a bitmap.

/// A bitmap of chunks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Have {
    /// Chunk `i` is bit `i % 64` of word `i / 64`; bits beyond `count` are 0.
    words: Vec<u64>,
    count: u32,
}

impl Have {
    /// None of `count` chunks.
    #[must_use]
    pub fn empty(count: u32) -> Self {
        Self {
            words: vec![0; words(count)],
            count,
        }
    }

    /// All of `count` chunks.
    #[must_use]
    pub fn full(count: u32) -> Self {
        Self::from_words(vec![u64::MAX; words(count)], count)
    }

    /// Takes words as [`Have::words`] gives them; bits beyond `count` are dropped.
    pub(super) fn from_words(mut words: Vec<u64>, count: u32) -> Self {
        words.resize(self::words(count), 0);
        if let (Some(last), used @ 1..) = (words.last_mut(), count % 64) {
            *last &= (1 << used) - 1;
        }
        Self { words, count }
    }

    pub(super) fn words(&self) -> &[u64] {
        &self.words
    }

    /// Whether chunk `index` is held.
    #[must_use]
    pub fn contains(&self, index: u32) -> bool {
        self.words
            .get(index as usize / 64)
            .is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// Marks chunk `index` as held; beyond the last it does nothing.
    pub fn insert(&mut self, index: u32) {
        if index < self.count {
            self.words[index as usize / 64] |= 1 << (index % 64);
        }
    }

    /// Marks chunk `index` as not held.
    pub fn remove(&mut self, index: u32) {
        if index < self.count {
            self.words[index as usize / 64] &= !(1 << (index % 64));
        }
    }

    /// Chunks held.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// Chunks in all.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Chunks that are missing, in order.
    pub fn missing(&self) -> impl Iterator<Item = u32> + '_ {
        let count = self.count;
        (0u32..).zip(&self.words).flat_map(move |(at, word)| {
            let mut left = !word;
            let base = at * 64;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                if bit == 64 || base + bit >= count {
                    return None;
                }
                left &= left - 1;
                Some(base + bit)
            })
        })
    }

    /// The bitmap as bytes, chunk `i` in bit `i % 8` of byte `i / 8`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|w| w.to_le_bytes()).collect();
        bytes.truncate(self.count.div_ceil(8) as usize);
        bytes
    }

    /// Reads what [`Have::encode`] wrote for `count` chunks; `None` if the length or the bits beyond are wrong.
    #[must_use]
    pub fn decode(bytes: &[u8], count: u32) -> Option<Self> {
        if bytes.len() != count.div_ceil(8) as usize {
            return None;
        }
        let words = bytes
            .chunks(8)
            .map(|part| {
                let mut word = [0; 8];
                word[..part.len()].copy_from_slice(part);
                u64::from_le_bytes(word)
            })
            .collect::<Vec<_>>();
        let have = Self::from_words(words.clone(), count);
        (have.words == words).then_some(have)
    }
}

fn words(count: u32) -> usize {
    count.div_ceil(64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn full_bitmap_misses_nothing() {
        for count in [0, 1, 63, 64, 65, 128, 1000] {
            let have = Have::full(count);
            assert_eq!(have.held(), count);
            assert_eq!(have.missing().next(), None);
            assert!(!have.contains(count));
        }
    }

    #[test]
    fn decode_stray_bits_or_length_is_refused() {
        assert_eq!(Have::decode(&[0b1000], 3), None);
        assert_eq!(Have::decode(&[0, 0], 3), None);
        assert_eq!(Have::decode(&[], 3), None);
        assert_eq!(Have::decode(&[0b111], 3), Some(Have::full(3)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn bitmap_is_the_set(count in 0u32..300, set in proptest::collection::btree_set(0u32..300, 0..80)) {
            let mut have = Have::empty(count);
            for &index in &set {
                have.insert(index);
            }
            let held: Vec<u32> = set.into_iter().filter(|&i| i < count).collect();
            prop_assert_eq!(have.held() as usize, held.len());
            let missing: Vec<u32> = have.missing().collect();
            prop_assert_eq!(&missing, &(0..count).filter(|i| !held.contains(i)).collect::<Vec<_>>());
            prop_assert_eq!(Have::decode(&have.encode(), count), Some(have.clone()));
            for index in held {
                have.remove(index);
            }
            prop_assert_eq!(have, Have::empty(count));
        }

        #[test]
        fn decode_arbitrary_bytes_never_panics(bytes: Vec<u8>, count in 0u32..5000) {
            if let Some(have) = Have::decode(&bytes, count) {
                prop_assert_eq!(have.encode(), bytes);
            }
        }
    }
}
