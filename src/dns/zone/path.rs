//! Names as lookups walk them: label by label from the root, hashed on the way. Nothing here allocates.

use std::hash::Hasher;

use foldhash::{SharedSeed, fast::FoldHasher};

use crate::dns::wire::NAME_MAX;

/// A name taken apart for lookups: lower case, with the place of every label. On the stack, never allocated.
#[derive(Clone, Copy, Debug)]
pub(in crate::dns) struct Path {
    bytes: [u8; NAME_MAX],
    len: usize,
    /// Where each label starts, leftmost first.
    offsets: [u8; LABELS_MAX],
    labels: usize,
}

impl Path {
    /// The path of an uncompressed name in wire form, checked before (255 bytes at most).
    pub(in crate::dns) fn new(name: &[u8]) -> Self {
        let mut path = Self {
            bytes: [0; NAME_MAX],
            len: name.len(),
            offsets: [0; LABELS_MAX],
            labels: 0,
        };
        path.bytes[..name.len()].copy_from_slice(name);
        path.finish();
        path
    }

    /// The path of a name inside a message this server composed; `at` is where it starts. `None` if it is longer
    /// than a name may be.
    pub(in crate::dns) fn from_message(message: &[u8], at: usize) -> Option<Self> {
        let mut path = Self {
            bytes: [0; NAME_MAX],
            len: 0,
            offsets: [0; LABELS_MAX],
            labels: 0,
        };
        let mut at = at;
        loop {
            at = resolve_pointer(message, at);
            let len = usize::from(message[at]) + 1;
            let to = path.len..path.len + len;
            path.bytes
                .get_mut(to)?
                .copy_from_slice(&message[at..at + len]);
            path.len += len;
            at += len;
            if len == 1 {
                path.finish();
                return Some(path);
            }
        }
    }

    /// Lower-cases the bytes (a length byte is below any letter) and notes the labels.
    fn finish(&mut self) {
        self.bytes[..self.len].make_ascii_lowercase();
        let mut at = 0;
        while self.bytes[at] != 0 {
            self.offsets[self.labels] = at as u8; // Below NAME_MAX.
            self.labels += 1;
            at += usize::from(self.bytes[at]) + 1;
        }
    }

    /// Number of labels, the root not counted.
    pub(in crate::dns) fn labels(&self) -> usize {
        self.labels
    }

    /// Label `index` (leftmost is 0), its length byte before it.
    pub(in crate::dns) fn label(&self, index: usize) -> &[u8] {
        let at = self.offset(index);
        &self.bytes[at..=at + usize::from(self.bytes[at])]
    }

    /// Where label `index` starts; for `labels()` that is the root.
    pub(in crate::dns) fn offset(&self, index: usize) -> usize {
        if index == self.labels {
            self.len - 1
        } else {
            usize::from(self.offsets[index])
        }
    }

    /// The name from label `index` on, in wire form.
    pub(in crate::dns) fn suffix(&self, index: usize) -> &[u8] {
        &self.bytes[self.offset(index)..self.len]
    }

    /// The name before label `index`, without a root.
    pub(in crate::dns) fn prefix(&self, index: usize) -> &[u8] {
        &self.bytes[..self.offset(index)]
    }
}

/// The hash of a name, given that of its parent and its first label (length byte included, lower case). All names
/// of all zones hash the same way, so one walk from the root gives the key of every suffix. Seeded once per process.
pub(in crate::dns) fn hash_label(parent: u64, label: &[u8]) -> u64 {
    let mut hasher = FoldHasher::with_seed(parent, SharedSeed::global_random());
    hasher.write(label);
    hasher.finish()
}

/// The hash of the root.
pub(in crate::dns) const ROOT_HASH: u64 = 0;

/// Follows compression pointers from `at` to a label. Only for messages this server composed: they do not loop.
pub(in crate::dns) fn resolve_pointer(message: &[u8], mut at: usize) -> usize {
    while message[at] >= 0xC0 {
        at = usize::from(u16::from_be_bytes([message[at] & 0x3F, message[at + 1]]));
    }
    at
}

/// Where the part of a name behind its first `skip` bytes stands in a message; the name starts at `at`.
pub(in crate::dns) fn suffix_in_message(message: &[u8], at: usize, skip: usize) -> usize {
    let mut at = at;
    let mut left = skip;
    loop {
        at = resolve_pointer(message, at);
        if left == 0 {
            return at;
        }
        let label = usize::from(message[at]) + 1;
        at += label;
        left -= label;
    }
}

/// Labels of the longest name, plus one.
const LABELS_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_gives_labels_suffixes_and_prefixes_in_lower_case() {
        let path = Path::new(b"\x03wWw\x04TEST\0");
        assert_eq!(path.labels(), 2);
        assert_eq!(path.label(1), b"\x04test");
        assert_eq!(path.suffix(1), b"\x04test\0");
        assert_eq!(path.suffix(2), b"\0");
        assert_eq!(path.prefix(1), b"\x03www");
    }

    #[test]
    fn path_from_message_follows_pointers() {
        let message = b"....\x04test\0\x03www\xC0\x04\x01a\xC0\x0A";
        let path = Path::from_message(message, 16).expect("a short name");
        assert_eq!(path.suffix(0), b"\x01a\x03www\x04test\0");
        assert_eq!(suffix_in_message(message, 16, 2), 10);
        assert_eq!(suffix_in_message(message, 16, 6), 4);
    }
}
