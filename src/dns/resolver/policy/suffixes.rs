//! Names with a number each, found by walking down from the root: compact enough for millions.
//!
//! Every suffix of a name that is here has a node, so the walk of an ordinary name ends at the first label that no
//! listed name shares. A node is its label, its parent and its number: 12 bytes, the label, and a slot of the table.

use crate::dns::zone::path::{Path, ROOT_HASH};
use crate::dns::zone::table::Table;

/// An immutable set of names.
#[derive(Debug)]
pub(super) struct Suffixes {
    nodes: Vec<Node>,
    labels: Vec<u8>,
    table: Table,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    parent: u32,
    /// In `labels`.
    label: u32,
    value: u32,
}

/// A set of names that grows.
#[derive(Debug)]
pub(super) struct Growing {
    suffixes: Suffixes,
    /// By node: the table asks for them when it grows.
    hashes: Vec<u64>,
}

impl Suffixes {
    /// Calls `visit` with the label each suffix of `path` begins at and its number, from the root down, as far as they
    /// are here.
    #[inline]
    pub(super) fn walk(&self, path: &Path, mut visit: impl FnMut(usize, u32)) {
        let (mut node, mut hash) = (ROOT, ROOT_HASH);
        visit(path.labels(), self.nodes[ROOT as usize].value);
        for index in (0..path.labels()).rev() {
            let label = path.label(index);
            hash = path.hash_at(index, hash);
            let Some(child) = self.child(node, hash, label) else {
                return;
            };
            node = child;
            visit(index, self.nodes[node as usize].value);
        }
    }

    fn child(&self, parent: u32, hash: u64, label: &[u8]) -> Option<u32> {
        self.table.get(hash, |candidate| {
            let node = &self.nodes[candidate as usize];
            node.parent == parent && self.labels[node.label as usize..].starts_with(label)
        })
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>() + self.labels.capacity() + self.table.bytes()
    }
}

impl Growing {
    /// Only the root, with the number 0.
    pub(super) fn new() -> Self {
        Self {
            suffixes: Suffixes {
                nodes: vec![Node {
                    parent: ROOT,
                    label: 0,
                    value: 0,
                }],
                labels: vec![0],
                table: Table::default(),
            },
            hashes: vec![ROOT_HASH],
        }
    }

    /// The number of a name, to be set; a new name, and each new suffix of it, has 0.
    pub(super) fn value(&mut self, path: &Path) -> &mut u32 {
        let mut node = ROOT;
        for index in (0..path.labels()).rev() {
            let label = path.label(index);
            let hash = path.hash_at(index, self.hashes[node as usize]);
            node = match self.suffixes.child(node, hash, label) {
                Some(child) => child,
                None => self.grow(node, hash, label),
            };
        }
        &mut self.suffixes.nodes[node as usize].value
    }

    fn grow(&mut self, parent: u32, hash: u64, label: &[u8]) -> u32 {
        let suffixes = &mut self.suffixes;
        let node = suffixes.nodes.len() as u32; // Rules are bounded far below 2^32.
        suffixes.nodes.push(Node {
            parent,
            label: suffixes.labels.len() as u32, // As above: 10,000,000 names of 255 bytes.
            value: 0,
        });
        suffixes.labels.extend_from_slice(label);
        self.hashes.push(hash);
        let hashes = &self.hashes;
        suffixes
            .table
            .insert(hash, node, |value| hashes[value as usize]);
        node
    }

    /// The set as it is kept: no byte more than it needs.
    pub(super) fn finish(self) -> Suffixes {
        let mut suffixes = self.suffixes;
        suffixes.nodes.shrink_to_fit();
        suffixes.labels.shrink_to_fit();
        let mut table = Table::with_capacity(self.hashes.len() - 1);
        let others = self.hashes.iter().zip(0_u32..).skip(1);
        for (&hash, node) in others {
            table.insert(hash, node, |value| self.hashes[value as usize]);
        }
        suffixes.table = table;
        suffixes
    }
}

const ROOT: u32 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(suffixes: &Suffixes, name: &[u8]) -> Vec<(usize, u32)> {
        let mut seen = Vec::new();
        suffixes.walk(&Path::new(name), |index, value| seen.push((index, value)));
        seen
    }

    #[test]
    fn walk_ends_at_the_first_label_that_is_not_here() {
        let mut growing = Growing::new();
        *growing.value(&Path::new(b"\x03ads\x07example\0")) = 7;
        let suffixes = growing.finish();
        assert_eq!(
            walk(&suffixes, b"\x01a\x03ADS\x07example\0"),
            [(3, 0), (2, 0), (1, 7)]
        );
        assert_eq!(walk(&suffixes, b"\x01a\x03com\0"), [(2, 0)]);
        assert_eq!(walk(&suffixes, b"\0"), [(0, 0)]);
    }

    #[test]
    fn label_that_only_begins_alike_is_another() {
        let mut growing = Growing::new();
        *growing.value(&Path::new(b"\x02ab\0")) = 1;
        *growing.value(&Path::new(b"\x03abc\0")) = 2;
        let suffixes = growing.finish();
        assert_eq!(walk(&suffixes, b"\x02ab\0"), [(1, 0), (0, 1)]);
        assert_eq!(walk(&suffixes, b"\x03abc\0"), [(1, 0), (0, 2)]);
        assert_eq!(walk(&suffixes, b"\x01a\0"), [(1, 0)]);
    }
}
