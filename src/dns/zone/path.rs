//! Names as lookups walk them: label by label from the root, hashed on the way. Nothing here allocates.

use std::hash::Hasher;

use foldhash::{SharedSeed, fast::FoldHasher};

use crate::dns::wire::{NAME_MAX, name_len};

/// A name taken apart for lookups: lower case, with the place of every label and the hashes of its suffixes. Every table of
/// names goes by these hashes, so a name is hashed once, however many of them it is looked up in. Never allocated.
#[derive(Clone, Copy, Debug)]
pub(in crate::dns) struct Path {
    /// Of the suffix of one label, of two, and so on, as far as there is room.
    hashes: [u64; HASHES],
    /// Of the whole name.
    hash: u64,
    len: usize,
    labels: usize,
    bytes: [u8; BYTES],
    /// Where each label starts, leftmost first.
    offsets: [u8; LABELS_MAX],
}

impl Path {
    /// The path of the root.
    pub(in crate::dns) const ROOT: Self = Self {
        hashes: [0; HASHES],
        hash: ROOT_HASH,
        len: 1,
        labels: 0,
        bytes: [0; BYTES],
        offsets: [0; LABELS_MAX],
    };

    /// The path of an uncompressed name in wire form, checked before (255 bytes at most).
    pub(in crate::dns) fn new(name: &[u8]) -> Self {
        let mut path = Self::ROOT;
        path.set(name);
        path
    }

    /// Becomes the path of the uncompressed name at the start of `bytes`; that of the root if there is none.
    pub(in crate::dns) fn read(&mut self, bytes: &[u8]) {
        let len = name_len(bytes).unwrap_or(0);
        match bytes.get(..len) {
            Some(name) if len > 0 => self.set(name),
            _ => self.set(&[0]),
        }
    }

    #[inline]
    fn set(&mut self, name: &[u8]) {
        self.len = name.len();
        self.bytes[..name.len()].copy_from_slice(name);
        self.finish();
    }

    /// The path of a name inside a message this server composed; `at` is where it starts. `None` if it is longer
    /// than a name may be.
    pub(in crate::dns) fn from_message(message: &[u8], at: usize) -> Option<Self> {
        let mut path = Self::ROOT;
        path.len = 0;
        let mut at = at;
        loop {
            at = resolve_pointer(message, at);
            let len = usize::from(message[at]) + 1;
            let to = path.len..path.len + len;
            path.bytes
                .get_mut(to)
                .filter(|_| path.len + len <= NAME_MAX)?
                .copy_from_slice(&message[at..at + len]);
            path.len += len;
            at += len;
            if len == 1 {
                path.finish();
                return Some(path);
            }
        }
    }

    /// Lower-cases the bytes (a length byte is below any letter), notes the labels, hashes the suffixes.
    fn finish(&mut self) {
        let (blocks, _) = self.bytes.as_chunks_mut::<BLOCK>();
        for block in blocks.iter_mut().take(self.len.div_ceil(BLOCK)) {
            for byte in block {
                *byte |= u8::from(byte.is_ascii_uppercase()) << 5;
            }
        }
        // An index of one byte is never out of the 256: the walk has no check in it.
        let (mut at, mut labels) = (0_u8, 0);
        loop {
            let label = self.bytes[usize::from(at)];
            if label == 0 {
                break;
            }
            self.offsets[labels % LABELS_MAX] = at;
            labels += 1;
            at = at.wrapping_add(label).wrapping_add(1);
        }
        self.labels = labels;
        let mut hash = ROOT_HASH;
        let mut end = self.len - 1;
        for depth in 0..labels {
            let start = usize::from(self.offsets[(labels - 1 - depth) % LABELS_MAX]);
            hash = hash_label(hash, &self.bytes[start..end]);
            end = start;
            if let Some(kept) = self.hashes.get_mut(depth) {
                *kept = hash;
            }
        }
        self.hash = hash;
    }

    /// The hash of the whole name.
    pub(in crate::dns) fn hash(&self) -> u64 {
        self.hash
    }

    /// The hash of the suffix that starts at label `index`, given that of the suffix one label shorter.
    #[inline]
    pub(in crate::dns) fn hash_at(&self, index: usize, shorter: u64) -> u64 {
        match self.hashes.get(self.labels - index - 1) {
            Some(&hash) => hash,
            None => hash_label(shorter, self.label(index)),
        }
    }

    /// The hash of the suffix that starts at label `index`; the root's for `labels()`.
    pub(in crate::dns) fn suffix_hash(&self, index: usize) -> u64 {
        let depth = self.labels - index;
        if depth == 0 {
            return ROOT_HASH;
        }
        if let Some(&hash) = self.hashes.get(depth - 1) {
            return hash;
        }
        let deeper = (index..self.labels - HASHES).rev();
        deeper.fold(self.hashes[HASHES - 1], |hash, index| {
            hash_label(hash, self.label(index))
        })
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
#[inline]
pub(in crate::dns) fn hash_label(parent: u64, label: &[u8]) -> u64 {
    let mut hasher = FoldHasher::with_seed(parent, SharedSeed::global_random());
    hasher.write(label);
    hasher.finish()
}

/// Whether two labels, or other short strings of bytes, are equal. A call of `memcmp` costs more than they do.
#[inline]
pub(in crate::dns) fn is_same(one: &[u8], other: &[u8]) -> bool {
    fn ends<const N: usize>(bytes: &[u8]) -> Option<([u8; N], [u8; N])> {
        Some((*bytes.first_chunk()?, *bytes.last_chunk()?))
    }
    match one.len() {
        len if len != other.len() => false,
        8..=16 => ends::<8>(one) == ends::<8>(other),
        4..=7 => ends::<4>(one) == ends::<4>(other),
        0..=3 => one.iter().eq(other),
        _ => one == other,
    }
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

/// Room for the longest name, in whole blocks; a block is lower-cased at once.
const BYTES: usize = 256;
const BLOCK: usize = 32;
const _: () = assert!(NAME_MAX < BYTES && BYTES.is_multiple_of(BLOCK));

/// Labels of the longest name, plus one.
const LABELS_MAX: usize = 128;

/// Suffixes whose hashes are kept: all of any name but a few in ip6.arpa, which are hashed label by label where they are
/// looked up.
const HASHES: usize = 16;

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
    fn labels_are_same_exactly_if_their_bytes_are() {
        let bytes: Vec<u8> = (0..40).collect();
        for len in 0..bytes.len() {
            let one = &bytes[..len];
            assert!(is_same(one, one));
            assert!(!is_same(one, &bytes[..=len]));
            for at in 0..len {
                let mut other = one.to_vec();
                other[at] ^= 0x80;
                assert!(!is_same(one, &other), "{len} {at}");
            }
        }
    }

    #[test]
    fn path_read_anew_is_that_of_the_new_name() {
        let mut path = Path::new(b"\x01a\x01b\x01c\x01d\0");
        path.read(b"\x03wWw\x04TEST\0\0\x01");
        assert_eq!(
            (path.labels(), path.suffix(0)),
            (2, &b"\x03www\x04test\0"[..])
        );
        assert_eq!(path.hash(), Path::new(b"\x03www\x04test\0").hash());
        for bad in [&b"\x03ww"[..], b"", b"\xC0\x0C", &[63; 300]] {
            path.read(bad);
            assert_eq!(
                (path.labels(), path.suffix(0), path.hash()),
                (0, &b"\0"[..], ROOT_HASH)
            );
        }
    }

    #[test]
    fn path_has_one_hash_for_each_suffix_however_deep() {
        let name = [&b"\x01x".repeat(100)[..], b"\0"].concat();
        let path = Path::new(&name);
        for index in 0..=path.labels() {
            let hash = Path::new(path.suffix(index)).hash();
            assert_eq!(path.suffix_hash(index), hash, "{index}");
        }
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
