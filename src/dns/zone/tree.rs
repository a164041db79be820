//! One loaded zone: the names, their RRsets in the form answers take them, and the walk from the apex down.
//!
//! An RRset is kept as the bytes of its records, ready to be copied behind a question: owner `C0 0C`, type, class,
//! TTL, length, data. Names in the data of the types that may be compressed (RFC 3597 section 4) end in a marker
//! where the apex or the owner would follow; a copy has it replaced by a pointer. A name costs about 85 bytes with
//! one address.

use super::denial::Denial;
use super::name;
use super::path::{Path, hash_label, is_same};
use super::rdata;
use super::table::{Table, Value};

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
    pub(super) table: Table<Spot>,
    /// The RRsets of nodes that have more than one.
    pub(super) rrsets: Box<[RRset]>,
    /// Per node its first label, with its length byte, and then the records of its RRsets.
    pub(super) data: Box<[u8]>,
    /// Per record of an NS, MX, SRV, SVCB or HTTPS RRset the node with its target's addresses, or [`NO_NODE`].
    pub(super) targets: Box<[u32]>,
    /// The SOA with the TTL of a negative answer (RFC 2308 section 3).
    pub(super) negative: RRset,
    /// Per RRset its signatures, a part of the RRSIG RRset of the same name; empty if the zone is not signed.
    pub(super) signatures: Box<[Signatures]>,
    /// Those of `negative`.
    pub(super) negative_signatures: Signatures,
    /// How names and types are proved not to exist.
    pub(super) denial: Denial,
    /// When the first signature ends, seconds since 1970 as in RFC 4034 section 3.1.5.
    pub(super) expires: Option<u32>,
}

/// The RRSIG records that cover one RRset.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::dns) struct Signatures {
    /// In `data`.
    pub(super) start: u32,
    pub(super) len: u32,
    pub(in crate::dns) count: u16,
}

/// A name of the zone: half a cache line, which is all a lookup needs of a name with one RRset besides its bytes.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(32))]
pub(in crate::dns) struct Node {
    pub(super) parent: u32,
    /// In `data`.
    pub(super) label: u32,
    /// The first of its RRsets in `rrsets`, which are in the order of their types, if it has more than one.
    pub(super) rrsets: u32,
    pub(super) rrset_count: u16,
    pub(super) flags: u16,
    /// The first of its RRsets, if it has any.
    pub(super) first: RRset,
}

/// What the table holds of a node: also its label, so that a lookup in a large zone fetches both at once.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::dns) struct Spot {
    pub(super) node: u32,
    /// In `data`.
    pub(super) label: u32,
}

impl Value for Spot {
    const EMPTY: Self = Self {
        node: NO_NODE,
        label: 0,
    };

    fn is_empty(self) -> bool {
        self.node == NO_NODE
    }
}

/// The records of one type at one name.
#[derive(Clone, Copy, Debug, Default)]
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
    Wildcard { node: u32, encloser: Encloser },
    /// The name does not exist.
    Missing(Encloser),
}

/// The closest encloser of a name that does not exist (RFC 4592 section 3.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dns) struct Encloser {
    pub(in crate::dns) node: u32,
    /// Label of the name where the encloser's name starts; at least 1.
    pub(in crate::dns) depth: usize,
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
            + size_of_val(&*self.rrsets)
            + self.data.len()
            + size_of_val(&*self.targets)
            + size_of_val(&*self.signatures)
            + self.denial.bytes()
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
            let child = path.hash_at(depth, hash);
            let Some(next) = self.child(node, child, label) else {
                let encloser = Encloser {
                    node,
                    depth: depth + 1,
                };
                if self.nodes[node as usize].flags & WILDCARD_BELOW == 0 {
                    return Found::Missing(encloser);
                }
                let wildcard = self.child(node, hash_label(hash, WILDCARD), WILDCARD);
                return match wildcard {
                    Some(node) => Found::Wildcard { node, encloser },
                    None => Found::Missing(encloser),
                };
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

    /// Whether looks at its names mostly have to wait for memory.
    #[inline]
    pub(in crate::dns) fn is_large(&self) -> bool {
        self.nodes.len() > LARGE
    }

    /// Something that lies where the name of `path` is looked for: to read it is to bring that in.
    #[inline]
    pub(in crate::dns) fn near_spot(&self, path: &Path) -> usize {
        self.table.near(path.hash())
    }

    /// Where the name of `path` is, most likely.
    #[inline]
    pub(in crate::dns) fn likely_spot(&self, path: &Path) -> Option<Spot> {
        self.table.first(path.hash())
    }

    /// Something that lies at `spot`, as in [`Zone::near_spot`].
    #[inline]
    pub(in crate::dns) fn near_name(&self, spot: Spot) -> usize {
        let node = self.nodes.get(spot.node as usize);
        let label = spot.label as usize;
        // A short label and a record with an address behind it: maybe the next line.
        let bytes = [
            self.data.get(label),
            self.data.get(label + LABEL_AND_RECORD),
        ];
        let [first, last] = bytes.map(|byte| usize::from(byte.copied().unwrap_or(0)));
        node.map_or(0, |node| node.parent as usize) ^ first ^ last
    }

    /// The node of a name, whatever is cut or occluded above it; arguments as those of [`Zone::find`].
    pub(super) fn lookup(&self, path: &Path, apex: usize, hash: u64) -> Option<u32> {
        let found = (0..apex)
            .rev()
            .try_fold((APEX, hash), |(node, hash), index| {
                let hash = path.hash_at(index, hash);
                Some((self.child(node, hash, path.label(index))?, hash))
            });
        found.map(|(node, _)| node)
    }

    pub(super) fn child(&self, parent: u32, hash: u64, label: &[u8]) -> Option<u32> {
        let found = self.table.get(hash, |spot| {
            let at = spot.label as usize;
            self.data
                .get(at..at + label.len())
                .is_some_and(|stored| is_same(stored, label))
                && self.nodes[spot.node as usize].parent == parent
        });
        found.map(|spot| spot.node)
    }

    /// The RRsets of a node, in the order of their types.
    pub(in crate::dns) fn rrsets_of(&self, node: u32) -> &[RRset] {
        let node = &self.nodes[node as usize];
        match usize::from(node.rrset_count) {
            0 => &[],
            1 => std::slice::from_ref(&node.first),
            count => &self.rrsets[node.rrsets as usize..][..count],
        }
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

    /// Whether the zone has signatures.
    pub(in crate::dns) fn is_signed(&self) -> bool {
        !self.signatures.is_empty()
    }

    /// When the first of the signatures ends, Unix seconds modulo 2^32; `None`: the zone is not signed.
    #[must_use]
    pub fn signatures_expire(&self) -> Option<u32> {
        self.expires
    }

    /// The signatures of an RRset of this zone.
    pub(in crate::dns) fn signatures_of(&self, rrset: &RRset) -> Signatures {
        match self.rrsets.element_offset(rrset) {
            Some(at) => self.signatures.get(at).copied().unwrap_or_default(),
            None if std::ptr::eq(rrset, &self.negative) => self.negative_signatures,
            None => Signatures::default(),
        }
    }

    /// The signatures of one RRset of a node, as an RRset: what a question for RRSIG is answered with.
    pub(in crate::dns) fn some_signatures(&self, node: u32) -> Option<RRset> {
        let mut all = self
            .rrsets_of(node)
            .iter()
            .map(|rrset| self.signatures_of(rrset));
        let found = all.find(|signatures| signatures.count > 0)?;
        Some(RRset {
            rtype: RRSIG,
            count: found.count,
            start: found.start,
            len: found.len,
            targets: 0,
        })
    }

    /// The records of signatures, as those of an RRset.
    pub(in crate::dns) fn signature_bytes(&self, signatures: Signatures) -> &[u8] {
        let start = signatures.start as usize;
        &self.data[start..start + signatures.len as usize]
    }

    /// How names and types are proved not to exist.
    pub(in crate::dns) fn denial(&self) -> &Denial {
        &self.denial
    }

    /// All RRsets.
    pub(super) fn all_rrsets(&self) -> impl Iterator<Item = &RRset> {
        (0..self.nodes.len() as u32).flat_map(|node| self.rrsets_of(node))
    }

    /// The node above; the apex is above itself.
    pub(in crate::dns) fn parent(&self, node: u32) -> u32 {
        self.nodes[node as usize].parent
    }

    /// Whether a node stands in for names that do not exist.
    pub(in crate::dns) fn is_wildcard(&self, node: u32) -> bool {
        node != APEX && self.label(node) == WILDCARD
    }

    /// The labels of a node up to the apex, leftmost first, each with its length byte.
    pub(in crate::dns) fn labels_of(&self, node: u32) -> impl Iterator<Item = &[u8]> {
        let mut node = node;
        std::iter::from_fn(move || {
            let label = (node != APEX).then(|| self.label(node))?;
            node = self.parent(node);
            Some(label)
        })
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
    pub(super) fn owner(&self, node: u32) -> Vec<u8> {
        let mut owner: Vec<u8> = self.labels_of(node).flatten().copied().collect();
        owner.extend_from_slice(&self.apex);
        owner
    }

    fn label(&self, node: u32) -> &[u8] {
        let at = self.nodes[node as usize].label as usize;
        &self.data[at..=at + usize::from(self.data[at])]
    }

    /// Sorts as RFC 4034 section 6.1 wants: labels from the apex down, each ended by two zero bytes, a zero inside
    /// a label written as 0 1.
    pub(super) fn sort_key(&self, node: u32) -> Vec<u8> {
        let labels: Vec<&[u8]> = self.labels_of(node).collect();
        let mut key = Vec::new();
        for label in labels.into_iter().rev() {
            for &byte in &label[1..] {
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

impl<'a> Record<'a> {
    /// The data as stored.
    pub(super) fn data(self) -> &'a [u8] {
        &self.0[RECORD_HEAD..]
    }

    pub(super) fn ttl(self) -> u32 {
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
        MX | SVCB | HTTPS => Some(2),
        SRV => Some(6),
        _ => None,
    }
}

/// Whether the record of type `rtype` with this data is an alias of the type's own kind (RFC 9460 section 2.4.2).
pub(in crate::dns) fn is_service_alias(rtype: u16, data: &[u8]) -> bool {
    matches!(rtype, SVCB | HTTPS) && data.starts_with(&[0, 0])
}

const LABEL_AND_RECORD: usize = 24;

/// Names whose zone is larger than what a core has of caches of its own.
const LARGE: usize = 1 << 12;

/// The apex of every zone.
pub(in crate::dns) const APEX: u32 = 0;

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
/// A node with an NSEC3 record. It is in no table: its name does not exist (RFC 5155 section 7.2.8). Another node may
/// have the same name.
pub(super) const HASHED: u16 = 8;

pub(super) const WILDCARD: &[u8] = b"\x01*";

pub(in crate::dns) const A: u16 = 1;
pub(in crate::dns) const NS: u16 = 2;
pub(in crate::dns) const CNAME: u16 = 5;
pub(in crate::dns) const SOA: u16 = 6;
pub(in crate::dns) const PTR: u16 = 12;
pub(in crate::dns) const MX: u16 = 15;
pub(in crate::dns) const AAAA: u16 = 28;
pub(in crate::dns) const SRV: u16 = 33;
pub(in crate::dns) const SVCB: u16 = 64;
pub(in crate::dns) const HTTPS: u16 = 65;
pub(in crate::dns) const DNAME: u16 = 39;
pub(in crate::dns) const DS: u16 = 43;
pub(in crate::dns) const RRSIG: u16 = 46;
pub(in crate::dns) const NSEC: u16 = 47;
pub(in crate::dns) const NSEC3: u16 = 50;
pub(in crate::dns) const NSEC3PARAM: u16 = 51;
