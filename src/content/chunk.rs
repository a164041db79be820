//! Digests, and the arithmetic between byte ranges and chunks.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A BLAKE3 digest. As text (also in JSON): 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
    pub within: Range<u32>,
}

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = HEX[usize::from(byte >> 4)];
            pair[1] = HEX[usize::from(byte & 15)];
        }
        f.pad(std::str::from_utf8(&text).expect("hexadecimal digits are ASCII"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    /// Reads 64 lower-case hexadecimal digits; upper case is refused, so that one digest has one name.
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let text = text.as_bytes();
        let mut digest = [0u8; 32];
        if text.len() != 64 {
            return Err(DigestError);
        }
        for (byte, pair) in digest.iter_mut().zip(text.chunks_exact(2)) {
            *byte = (nibble(pair[0])? << 4) | nibble(pair[1])?;
        }
        Ok(Self(digest))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl Layout {
    /// Number of chunks; none for an empty object.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.size.div_ceil(u64::from(self.chunk))).unwrap_or(u32::MAX)
    }

    /// Bytes of chunk `index`; 0 beyond the last.
    #[must_use]
    pub fn len(&self, index: u32) -> u32 {
        let left = self.size.saturating_sub(self.start(index));
        u32::try_from(left).unwrap_or(u32::MAX).min(self.chunk)
    }

    /// Where chunk `index` begins in the object.
    #[must_use]
    pub fn start(&self, index: u32) -> u64 {
        u64::from(index) * u64::from(self.chunk)
    }

    /// The chunks that cover `range` (within the object), in order, each with its inner slice. What lies beyond
    /// the object is left out; an empty range is covered by nothing.
    pub fn cover(&self, range: Range<u64>) -> impl Iterator<Item = Slice> + use<> {
        let chunk = u64::from(self.chunk);
        let end = range.end.min(self.size);
        let mut at = range.start;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let index = at / chunk;
            let start = index * chunk;
            let stop = end.min(start + chunk);
            let slice = Slice {
                index: u32::try_from(index).ok()?,
                within: fit(at - start)..fit(stop - start),
            };
            at = stop;
            Some(slice)
        })
    }
}

/// An offset within a chunk, which is at most `u32::MAX`.
fn fit(offset: u64) -> u32 {
    u32::try_from(offset).expect("an offset within a chunk is at most the chunk's size")
}

fn nibble(digit: u8) -> Result<u8, DigestError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(DigestError),
    }
}

/// The text is not a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("digest: expected 64 lower-case hexadecimal digits")]
pub struct DigestError;

const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(size: u64, chunk: u32, range: Range<u64>, expected: &[(u32, Range<u32>)]) {
        let covered: Vec<_> = Layout { size, chunk }
            .cover(range)
            .map(|slice| (slice.index, slice.within))
            .collect();
        assert_eq!(covered, expected);
    }

    #[test]
    fn cover_range_within_one_chunk_is_one_slice() {
        check(100, 64, 3..10, &[(0, 3..10)]);
    }

    #[test]
    fn cover_range_across_a_border_is_two_slices() {
        check(100, 64, 60..100, &[(0, 60..64), (1, 0..36)]);
    }

    #[test]
    fn cover_range_beyond_the_object_is_cut() {
        check(100, 64, 90..500, &[(1, 26..36)]);
        check(100, 64, 100..500, &[]);
        check(0, 64, 0..1, &[]);
    }

    #[test]
    fn layout_whole_multiple_has_no_short_chunk() {
        let layout = Layout {
            size: 128,
            chunk: 64,
        };
        assert_eq!((layout.count(), layout.len(1), layout.len(2)), (2, 64, 0));
    }

    #[test]
    fn digest_text_in_upper_case_or_of_wrong_length_is_refused() {
        let text = Digest::of(b"x").to_string();
        assert_eq!(text.to_uppercase().parse::<Digest>(), Err(DigestError));
        assert_eq!(text[1..].parse::<Digest>(), Err(DigestError));
        assert_eq!("é".repeat(32).parse::<Digest>(), Err(DigestError));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn cover_then_slice_is_the_bytes(
            size in 0usize..3000, chunk in 1u32..700, a in 0u64..3200, b in 0u64..3200,
        ) {
            let bytes: Vec<u8> = (0..size).map(|i| (i * 31 % 251) as u8).collect();
            let layout = Layout { size: size as u64, chunk };
            let chunks: Vec<&[u8]> = bytes.chunks(chunk as usize).collect();
            prop_assert_eq!(chunks.len(), layout.count() as usize);
            for (index, chunk) in chunks.iter().enumerate() {
                prop_assert_eq!(chunk.len(), layout.len(index as u32) as usize);
            }
            let mut joined = Vec::new();
            for slice in layout.cover(a..b) {
                prop_assert!(!slice.within.is_empty());
                let within = slice.within.start as usize..slice.within.end as usize;
                joined.extend_from_slice(&chunks[slice.index as usize][within]);
            }
            let (a, b) = ((a as usize).min(size), (b as usize).min(size));
            prop_assert_eq!(&joined[..], bytes.get(a..b).unwrap_or_default());
        }

        #[test]
        fn digest_text_reads_back(bytes: [u8; 32]) {
            let digest = Digest(bytes);
            prop_assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
            let json = serde_json::to_string(&digest).expect("a string");
            prop_assert_eq!(serde_json::from_str::<Digest>(&json).expect("a digest"), digest);
        }
    }
}
