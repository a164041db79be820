//! Chains of names that prove what does not exist: NSEC (RFC 4034) and NSEC3 (RFC 5155).
//!
//! Both are sorted lists of what exists; the proof for anything else is the entry before it. Looking one up does not
//! allocate; a name is hashed on the stack.

use sha1::{Digest as _, Sha1};

use super::path::Path;
use super::tree::NO_NODE;
use crate::dns::wire::NAME_MAX;

/// How a zone proves that something does not exist.
#[derive(Debug, Default)]
pub(in crate::dns) enum Denial {
    /// It cannot: it is not signed.
    #[default]
    None,
    Nsec(Nsec),
    Nsec3(Nsec3),
}

impl Denial {
    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Nsec(chain) => size_of_val(&*chain.entries) + chain.keys.len(),
            Self::Nsec3(chain) => {
                size_of_val(&*chain.entries) + size_of_val(&*chain.of_node) + chain.salt.len()
            }
        }
    }
}

/// The names with NSEC records, in canonical order (RFC 4034 section 6.1).
#[derive(Debug)]
pub(in crate::dns) struct Nsec {
    /// Node, and where its key ends in `keys`; it starts where the one before it ends.
    entries: Box<[(u32, u32)]>,
    keys: Box<[u8]>,
}

impl Nsec {
    /// The chain of nodes with their sort keys, in their order.
    pub(super) fn new(names: impl Iterator<Item = (Vec<u8>, u32)>) -> Self {
        let mut keys = Vec::new();
        let entries = names
            .map(|(key, node)| {
                keys.extend_from_slice(&key);
                (node, keys.len() as u32) // Shorter than the zone's names, twice.
            })
            .collect();
        Self {
            entries,
            keys: keys.into(),
        }
    }

    /// The node whose NSEC record is at or closest before the name with this key.
    pub(in crate::dns) fn covering(&self, key: &Key) -> u32 {
        let key = &key.bytes[..key.len];
        let (mut low, mut high) = (0, self.entries.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.key(middle) <= key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        // The apex comes first and its key is empty: something is at or before every name.
        let (node, _) = self.entries[low.saturating_sub(1)];
        node
    }

    fn key(&self, entry: usize) -> &[u8] {
        let start = entry
            .checked_sub(1)
            .map_or(0, |before| self.entries[before].1);
        &self.keys[start as usize..self.entries[entry].1 as usize]
    }
}

/// The sort key of a name below an apex, as [`Zone::sort_key`](super::tree::Zone) gives that of a node.
#[derive(Debug)]
pub(in crate::dns) struct Key {
    bytes: [u8; KEY_MAX],
    len: usize,
}

impl Key {
    /// The key of the name of `path` from label `from` on; the apex starts at label `apex`.
    pub(in crate::dns) fn new(path: &Path, from: usize, apex: usize) -> Self {
        let mut key = Self {
            bytes: [0; KEY_MAX],
            len: 0,
        };
        for label in (from..apex).rev() {
            key.push(&path.label(label)[1..]);
        }
        key
    }

    /// The key of the wildcard directly below this name.
    pub(in crate::dns) fn wildcard(mut self) -> Self {
        self.push(b"*");
        self
    }

    fn push(&mut self, label: &[u8]) {
        for &byte in label {
            self.bytes[self.len] = byte;
            self.len += 1;
            if byte == 0 {
                self.bytes[self.len] = 1;
                self.len += 1;
            }
        }
        self.bytes[self.len..self.len + 2].fill(0);
        self.len += 2;
    }
}

/// The hashes of names with NSEC3 records, in their order.
#[derive(Debug)]
pub(in crate::dns) struct Nsec3 {
    iterations: u16,
    salt: Box<[u8]>,
    entries: Box<[(Hash, u32)]>,
    /// Per node of the zone the one with its NSEC3 record, or [`NO_NODE`].
    of_node: Box<[u32]>,
}

impl Nsec3 {
    /// The chain of hashes (sorted, at least one), each with the node of its record. `of_node` is per node of the zone.
    pub(super) fn new(params: Params, entries: Vec<(Hash, u32)>, of_node: Vec<u32>) -> Self {
        Self {
            iterations: params.iterations,
            salt: params.salt.into(),
            entries: entries.into(),
            of_node: of_node.into(),
        }
    }

    /// The node with the NSEC3 record of a node's name; `None`: it has none.
    pub(in crate::dns) fn matching(&self, node: u32) -> Option<u32> {
        let found = self.of_node.get(node as usize).copied();
        found.filter(|&found| found != NO_NODE)
    }

    /// The node with the NSEC3 record at a hash.
    pub(super) fn at(&self, hash: Hash) -> Option<u32> {
        let found = self
            .entries
            .binary_search_by_key(&hash, |(entry, _)| *entry);
        Some(self.entries[found.ok()?].1)
    }

    /// The node whose NSEC3 record is at or closest before the hash of a name given in parts.
    pub(in crate::dns) fn covering(&self, name: [&[u8]; 2]) -> u32 {
        let hash = hash(name, &self.salt, self.iterations);
        let after = self.entries.partition_point(|(entry, _)| *entry <= hash);
        // The last one covers what is before the first.
        let at = after.checked_sub(1).unwrap_or(self.entries.len() - 1);
        self.entries[at].1
    }
}

/// Salt and iterations of an NSEC3 chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dns) struct Params {
    pub(in crate::dns) iterations: u16,
    pub(in crate::dns) salt: Vec<u8>,
}

impl Params {
    /// From the data of an NSEC3PARAM record, or the start of that of an NSEC3; `None` if the algorithm is not SHA-1
    /// or the data too short. Flags are not looked at.
    pub(in crate::dns) fn read(data: &[u8]) -> Option<Self> {
        let (&[algorithm, _, high, low, salt], rest) = data.split_first_chunk::<5>()?;
        let salt = rest.get(..usize::from(salt))?.to_vec();
        (algorithm == 1).then(|| Self {
            iterations: u16::from_be_bytes([high, low]),
            salt,
        })
    }
}

/// The hash of an owner name (wire form, lower case, in parts) with the only algorithm there is (RFC 5155 section 5).
pub(in crate::dns) fn hash(name: [&[u8]; 2], salt: &[u8], iterations: u16) -> Hash {
    let mut sha = Sha1::new();
    sha.update(name[0]);
    sha.update(name[1]);
    sha.update(salt);
    let mut digest: Hash = sha.finalize().into();
    for _ in 0..iterations {
        let mut sha = Sha1::new();
        sha.update(digest);
        sha.update(salt);
        digest = sha.finalize().into();
    }
    digest
}

/// A label of 32 characters in base32hex (RFC 4648 section 7), lower case, as a hash.
pub(super) fn from_label(label: &[u8]) -> Option<Hash> {
    let text: &[u8; 32] = label.try_into().ok()?;
    let mut hash = [0; 20];
    for (five, eight) in hash.chunks_exact_mut(5).zip(text.chunks_exact(8)) {
        let mut bits = 0_u64;
        for &character in eight {
            let value = match character {
                b'0'..=b'9' => character - b'0',
                b'a'..=b'v' => character - b'a' + 10,
                _ => return None,
            };
            bits = bits << 5 | u64::from(value);
        }
        five.copy_from_slice(&bits.to_be_bytes()[3..]);
    }
    Some(hash)
}

/// A hash as such a label, without its length.
pub(in crate::dns) fn to_label(hash: &Hash) -> [u8; 32] {
    let mut label = [0; 32];
    for (eight, five) in label.chunks_exact_mut(8).zip(hash.chunks_exact(5)) {
        let bits = five
            .iter()
            .fold(0_u64, |bits, &byte| bits << 8 | u64::from(byte));
        for (place, character) in eight.iter_mut().enumerate() {
            let value = (bits >> (35 - 5 * place)) & 31;
            *character = b"0123456789abcdefghijklmnopqrstuv"[value as usize];
        }
    }
    label
}

/// A SHA-1 digest.
pub(in crate::dns) type Hash = [u8; 20];

/// Iterations of a chain that is served (CVE-2023-50868).
pub(in crate::dns) const ITERATIONS_MAX: u16 = 50;

/// The longest sort key: 127 labels of one zero byte, each written as four.
const KEY_MAX: usize = NAME_MAX * 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_that_of_the_rfc() {
        // RFC 5155 appendix A.
        let salt = [0xAA, 0xBB, 0xCC, 0xDD];
        for (name, expected) in [
            (&b"\x07example\0"[..], b"0p9mhaveqvm6t7vbl5lop2u3t2rp3tom"),
            (b"\x01a\x07example\0", b"35mthgpgcu1qg68fab165klnsnk3dpvl"),
            (
                b"\x01x\x01y\x01w\x07example\0",
                b"2vptu5timamqttgl4luu9kg21e0aor3s",
            ),
        ] {
            let (first, second) = name.split_at(3);
            assert_eq!(Some(hash([first, second], &salt, 12)), from_label(expected));
        }
        assert_eq!(from_label(b"0p9mhaveqvm6t7vbl5lop2u3t2rp3tow"), None);
        assert_eq!(from_label(b"0p9mhave"), None);
        let label = b"2vptu5timamqttgl4luu9kg21e0aor3s";
        assert_eq!(from_label(label).map(|hash| to_label(&hash)), Some(*label));
    }

    #[test]
    fn covering_takes_the_name_at_or_before_in_canonical_order() {
        // RFC 4034 section 6.1, below the apex `example.`
        let names: [&[u8]; 8] = [
            b"\x07example\0",
            b"\x01a\x07example\0",
            b"\x08yljkjljk\x01a\x07example\0",
            b"\x01z\x01a\x07example\0",
            b"\x04zabc\x01a\x07example\0",
            b"\x01z\x07example\0",
            b"\x01\x01\x01z\x07example\0",
            b"\x01*\x01z\x07example\0",
        ];
        let key = |name: &[u8]| {
            let path = Path::new(name);
            Key::new(&path, 0, path.labels() - 1)
        };
        let sorted = names.iter().zip(0..).map(|(name, node)| {
            let key = key(name);
            (key.bytes[..key.len].to_vec(), node)
        });
        let chain = Nsec::new(sorted);
        for (name, node) in names.iter().zip(0..) {
            assert_eq!(chain.covering(&key(name)), node);
        }
        for (name, node) in [
            (&b"\x01\0\x07example\0"[..], 0),
            (b"\x01b\x07example\0", 4),
            (b"\x02a\0\x07example\0", 4),
            (b"\x01a\x01z\x01a\x07example\0", 3),
            (b"\x01\x00\x01z\x07example\0", 5),
            (b"\x02zz\x07example\0", 7),
        ] {
            assert_eq!(chain.covering(&key(name)), node, "{name:?}");
        }
        let path = Path::new(b"\x01z\x07example\0");
        assert_eq!(chain.covering(&Key::new(&path, 0, 1).wildcard()), 7);
    }

    #[test]
    fn longest_names_have_keys() {
        let name = [[1, 0].repeat(127), vec![0]].concat();
        let key = Key::new(&Path::new(&name), 0, 127);
        assert_eq!(key.len, 508);
        let parent = Path::new(&name[2..]);
        assert_eq!(Key::new(&parent, 0, 126).wildcard().len, 507);
    }
}
