//! One loaded zone: the names, their RRsets in the form answers take them, and the walk from the apex down.
//!
//! An RRset is kept as the bytes of its records, ready to be copied behind a question: owner `C0 0C`, type, class,
//! TTL, length, data. Names in the data of the types that may be compressed (RFC 3597 section 4) end in a marker
//! where the apex or the owner would follow; a copy has it replaced by a pointer. A name costs about 80 bytes with
//! one address.

use super::name;
use super::path::{Path, hash_label};
use super::rdata;
use super::table::Table;

/// One loaded zone: immutable, shared by all threads.
#[derive(Debug)]
pub struct Zone {
    pub(super) name: String,
    /// Wire form, lower case.
    pub(super) apex: Box<[u8]>,
    pub(super) serial: u32,
    pub(super) records: usize,
    /// The apex is number 0; a parent comes before its children.
    pub(super) nodes: Box<[Node]>,
    /// Nodes but the apex, by the hash of their names.
    pub(super) table: Table,
    /// First labels of all nodes, each with its length byte.
    pub(super) labels: Box<[u8]>,
    pub(super) rrsets: Box<[RRset]>,
    /// Records of all RRsets.
    pub(super) data: Box<[u8]>,
    /// Per record of an NS, MX or SRV RRset the node with its target's addresses, or [`NO_NODE`].
    pub(super) targets: Box<[u32]>,
    /// The SOA with the TTL of a negative answer (RFC 2308 section 3).
    pub(super) negative: RRset,
}

/// A name of the zone.
#[derive(Clone, Copy, Debug)]
pub(in crate::dns) struct Node {
    pub(super) parent: u32,
    /// In `labels`.
    pub(super) label: u32,
    /// The first of its RRsets, which are in the order of their types.
    pub(super) rrsets: u32,
    pub(super) rrset_count: u16,
    pub(super) flags: u16,
}

/// The records of one type at one name.
#[derive(Clone, Copy, Debug)]
pub(in crate::dns) struct RRset {
    pub(in crate::dns) rtype: u16,
    pub(in crate::dns) count: u16,
    /// In `data`.
    pub(super) start: u32,
    pub(super) len: u32,
    /// The first in `targets`.
    pub(super) targets: u32,
}

/// What a walk from the apex to a name finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dns) enum Found {
    /// The name exists (maybe without records: an empty non-terminal).
    Node(u32),
    /// The name is at a zone cut or beneath it. `depth`: label of the name where the cut's name starts.
    Cut { node: u32, depth: usize },
    /// The name is beneath a DNAME. `depth` as above.
    Dname { node: u32, depth: usize },
    /// The name does not exist, but a wildcard at its closest encloser does (RFC 4592 section 3.3.1).
    Wildcard(u32),
    /// The name does not exist.
    Missing,
}

impl Zone {
    /// Apex in text form with a final dot.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SOA serial.
    #[must_use]
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// Number of records.
    #[must_use]
    pub fn records(&self) -> usize {
        self.records
    }

    /// Bytes of the snapshot on the heap.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.nodes)
            + self.table.bytes()
            + self.labels.len()
            + size_of_val(&*self.rrsets)
            + self.data.len()
            + size_of_val(&*self.targets)
    }

    /// The zone as master-file lines (absolute names), for `headwater zone show`. The SOA comes first, the rest in
    /// canonical order (RFC 4034 section 6.1).
    #[must_use]
    pub fn to_text(&self) -> String {
        use std::fmt::Write as _;
        let mut order: Vec<(Vec<u8>, u32)> = (0..self.nodes.len() as u32)
            .map(|node| (self.sort_key(node), node))
            .collect();
        order.sort_unstable();
        let mut text = String::new();
        for (_, node) in order {
            let owner = self.owner(node);
            let owner_text = name::to_text(&owner);
            let mut rrsets: Vec<&RRset> = self.rrsets_of(node).iter().collect();
            rrsets.sort_by_key(|rrset| rrset.rtype != SOA);
            for rrset in rrsets {
                let mnemonic = rdata::mnemonic(rrset.rtype);
                for record in self.records_of(rrset) {
                    let wire = record.data_expanded(rrset.rtype, &owner, &self.apex);
                    let data = rdata::to_text(rrset.rtype, &wire);
                    let ttl = record.ttl();
                    let _ = writeln!(text, "{owner_text} {ttl} IN {mnemonic} {data}"); // A String takes everything.
                }
            }
        }
        text
    }

    /// Walks from the apex to the name of `path`; the apex starts at label `apex` of it, `hash` is its hash. Looks
    /// at every name on the way once, so a missing name costs no more than one that exists.
    pub(in crate::dns) fn find(&self, path: &Path, apex: usize, hash: u64) -> Found {
        if apex > 0 && self.nodes[0].flags & DNAME_HERE != 0 {
            return Found::Dname {
                node: APEX,
                depth: apex,
            };
        }
        let mut node = APEX;
        let mut hash = hash;
        for depth in (0..apex).rev() {
            let label = path.label(depth);
            let child = hash_label(hash, label);
            let Some(next) = self.child(node, child, label) else {
                if self.nodes[node as usize].flags & WILDCARD_BELOW == 0 {
                    return Found::Missing;
                }
                let wildcard = self.child(node, hash_label(hash, WILDCARD), WILDCARD);
                return wildcard.map_or(Found::Missing, Found::Wildcard);
            };
            (node, hash) = (next, child);
            let flags = self.nodes[node as usize].flags;
            if flags & (CUT | DNAME_HERE) != 0 {
                if flags & CUT != 0 {
                    return Found::Cut { node, depth };
                }
                if depth > 0 {
                    return Found::Dname { node, depth };
                }
            }
        }
        Found::Node(node)
    }

    fn child(&self, parent: u32, hash: u64, label: &[u8]) -> Option<u32> {
        self.table.get(hash, |candidate| {
            let node = &self.nodes[candidate as usize];
            let at = node.label as usize;
            node.parent == parent && self.labels.get(at..at + label.len()) == Some(label)
        })
    }

    /// The RRsets of a node, in the order of their types.
    pub(in crate::dns) fn rrsets_of(&self, node: u32) -> &[RRset] {
        let node = &self.nodes[node as usize];
        let start = node.rrsets as usize;
        &self.rrsets[start..start + usize::from(node.rrset_count)]
    }

    /// The RRset of one type at a node.
    pub(in crate::dns) fn rrset(&self, node: u32, rtype: u16) -> Option<&RRset> {
        self.rrsets_of(node)
            .iter()
            .find(|rrset| rrset.rtype == rtype)
    }

    /// The SOA of negative answers.
    pub(in crate::dns) fn negative(&self) -> &RRset {
        &self.negative
    }

    /// The apex, wire form, lower case.
    pub(in crate::dns) fn apex(&self) -> &[u8] {
        &self.apex
    }

    /// The records of an RRset as they go behind a question.
    pub(in crate::dns) fn bytes_of(&self, rrset: &RRset) -> &[u8] {
        let start = rrset.start as usize;
        &self.data[start..start + rrset.len as usize]
    }

    /// Per record the node with the addresses of its target; empty if the type has no such target.
    pub(in crate::dns) fn targets_of(&self, rrset: &RRset) -> &[u32] {
        if target_offset(rrset.rtype).is_none() {
            return &[];
        }
        let start = rrset.targets as usize;
        &self.targets[start..start + usize::from(rrset.count)]
    }

    pub(super) fn records_of<'a>(&'a self, rrset: &RRset) -> impl Iterator<Item = Record<'a>> {
        let mut rest = self.bytes_of(rrset);
        std::iter::from_fn(move || {
            let len =
                RECORD_HEAD + usize::from(u16::from_be_bytes([*rest.get(10)?, *rest.get(11)?]));
            let (record, after) = rest.split_at(len);
            rest = after;
            Some(Record(record))
        })
    }

    /// The name of a node in wire form.
    pub(super) fn owner(&self, mut node: u32) -> Vec<u8> {
        let mut owner = Vec::new();
        while node != APEX {
            owner.extend_from_slice(self.label(node));
            node = self.nodes[node as usize].parent;
        }
        owner.extend_from_slice(&self.apex);
        owner
    }

    fn label(&self, node: u32) -> &[u8] {
        let at = self.nodes[node as usize].label as usize;
        &self.labels[at..=at + usize::from(self.labels[at])]
    }

    /// Sorts as RFC 4034 section 6.1 wants: labels from the apex down, each ended by two zero bytes, a zero inside
    /// a label written as 0 1.
    fn sort_key(&self, mut node: u32) -> Vec<u8> {
        let mut labels = Vec::new();
        while node != APEX {
            labels.push(&self.label(node)[1..]);
            node = self.nodes[node as usize].parent;
        }
        let mut key = Vec::new();
        for label in labels.into_iter().rev() {
            for &byte in label {
                key.push(byte);
                if byte == 0 {
                    key.push(1);
                }
            }
            key.extend([0, 0]);
        }
        key
    }
}

/// One record as stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a>(&'a [u8]);

impl Record<'_> {
    fn ttl(self) -> u32 {
        u32::from_be_bytes([self.0[6], self.0[7], self.0[8], self.0[9]])
    }

    /// The data with its names written out.
    pub(super) fn data_expanded(self, rtype: u16, owner: &[u8], apex: &[u8]) -> Vec<u8> {
        let data = &self.0[RECORD_HEAD..];
        let mut out = Vec::with_capacity(data.len() + apex.len());
        let mut at = 0;
        for place in name_places(rtype) {
            match place {
                Place::Bytes(len) => {
                    out.extend_from_slice(&data[at..at + len]);
                    at += len;
                }
                Place::Name => {
                    while data[at] != 0 && data[at] < 0xC0 {
                        let end = at + 1 + usize::from(data[at]);
                        out.extend_from_slice(&data[at..end]);
                        at = end;
                    }
                    if data[at] == 0 {
                        out.push(0);
                        at += 1;
                    } else {
                        out.extend_from_slice(if data[at + 1] == MARK_APEX {
                            apex
                        } else {
                            owner
                        });
                        at += 2;
                    }
                }
            }
        }
        out.extend_from_slice(&data[at..]);
        out
    }
}

/// A part of record data.
#[derive(Clone, Copy, Debug)]
pub(in crate::dns) enum Place {
    /// So many bytes that are no name.
    Bytes(usize),
    /// A name that may end in a marker.
    Name,
}

/// The layout of the data of types whose names are stored with markers: those of RFC 1035 that are in use.
pub(in crate::dns) fn name_places(rtype: u16) -> &'static [Place] {
    match rtype {
        NS | CNAME | PTR => &[Place::Name],
        MX => &[Place::Bytes(2), Place::Name],
        SOA => &[Place::Name, Place::Name],
        _ => &[],
    }
}

/// Where in the data the name starts whose addresses go to the additional section.
pub(in crate::dns) fn target_offset(rtype: u16) -> Option<usize> {
    match rtype {
        NS => Some(0),
        MX => Some(2),
        SRV => Some(6),
        _ => None,
    }
}

/// The apex of every zone.
pub(super) const APEX: u32 = 0;

/// No node.
pub(in crate::dns) const NO_NODE: u32 = u32::MAX;

/// Bytes of a record before its data.
pub(in crate::dns) const RECORD_HEAD: usize = 12;

/// Second byte of a marker: the apex follows.
pub(in crate::dns) const MARK_APEX: u8 = 1;
/// Second byte of a marker: the owner follows.
pub(in crate::dns) const MARK_OWNER: u8 = 2;

/// A node with NS records below the apex.
pub(super) const CUT: u16 = 1;
/// A node with a child `*`.
pub(super) const WILDCARD_BELOW: u16 = 2;
/// A node with a DNAME.
pub(super) const DNAME_HERE: u16 = 4;

pub(super) const WILDCARD: &[u8] = b"\x01*";

pub(in crate::dns) const A: u16 = 1;
pub(in crate::dns) const NS: u16 = 2;
pub(in crate::dns) const CNAME: u16 = 5;
pub(in crate::dns) const SOA: u16 = 6;
pub(in crate::dns) const PTR: u16 = 12;
pub(in crate::dns) const MX: u16 = 15;
pub(in crate::dns) const AAAA: u16 = 28;
pub(in crate::dns) const SRV: u16 = 33;
pub(in crate::dns) const DNAME: u16 = 39;
pub(in crate::dns) const DS: u16 = 43;
