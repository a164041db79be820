//! The digests of an object whose bytes come from its beginning to its end, in parts of any size. Pure.

use sha2::Digest as _;

use super::super::chunk::{Digest, Layout};
use super::super::manifest::Manifest;
use super::super::media::media_type;

/// Digests of what has come so far.
#[derive(Clone, Debug)]
pub struct Digests {
    chunk: u32,
    whole: sha2::Sha256,
    current: blake3::Hasher,
    filled: u32,
    chunks: Vec<Digest>,
    length: u64,
}

impl Digests {
    /// Of nothing yet.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self {
            chunk: layout.chunk,
            whole: sha2::Sha256::new(),
            current: blake3::Hasher::new(),
            filled: 0,
            chunks: Vec::with_capacity(layout.count() as usize),
            length: 0,
        }
    }

    /// Takes what comes next, however it was cut.
    pub fn take(&mut self, mut part: &[u8]) {
        self.whole.update(part);
        self.length += part.len() as u64;
        while !part.is_empty() {
            let room = (self.chunk - self.filled) as usize;
            let (now, rest) = part.split_at(room.min(part.len()));
            self.current.update(now);
            self.filled += now.len() as u32;
            if self.filled == self.chunk {
                self.close();
            }
            part = rest;
        }
    }

    fn close(&mut self) {
        let digest = self.current.finalize();
        self.chunks.push(Digest(*digest.as_bytes()));
        self.current.reset();
        self.filled = 0;
    }

    /// Bytes that have come.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The manifest of the object at `path`, of which all has come; `modified` is in Unix seconds.
    #[must_use]
    pub fn manifest(mut self, path: &str, layout: Layout, modified: u64) -> Manifest {
        if self.filled > 0 {
            self.close();
        }
        Manifest {
            path: path.to_owned(),
            layout,
            media_type: media_type(path).to_owned(),
            modified,
            sha256: self.whole.finalize().into(),
            chunks: self.chunks,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn digests_do_not_depend_on_how_the_bytes_come(
            bytes in proptest::collection::vec(any::<u8>(), 0..4_000),
            parts in proptest::collection::vec(1usize..900, 1..50),
        ) {
            let layout = Layout { size: bytes.len() as u64, chunk: 512 };
            let mut digests = Digests::new(layout);
            let (mut rest, mut parts) = (bytes.as_slice(), parts.iter().cycle());
            while !rest.is_empty() {
                let len = parts.next().map_or(1, |len| *len).min(rest.len());
                digests.take(&rest[..len]);
                rest = &rest[len..];
            }
            let manifest = digests.manifest("/a.txt", layout, 5);
            let expected: Vec<_> = bytes.chunks(512).map(Digest::of).collect();
            prop_assert_eq!(manifest.chunks, expected);
            let whole: [u8; 32] = sha2::Sha256::digest(&bytes).into();
            prop_assert_eq!(manifest.sha256, whole);
        }
    }
}
