//! The records of a zone one by one, how two versions differ, and a zone made of records that came another way than by
//! a master file.

use std::sync::Arc;

use super::build::Builder;
use super::denial::{self, Denial};
use super::name;
use super::path::Path;
use super::report::{At, Report};
use super::tree::{APEX, HASHED, RRset, SOA, Zone};
use super::{Loaded, Problem};
use crate::dns::TtlOverride;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record {
    /// Wire form, lower case.
    pub owner: Box<[u8]>,
    /// TYPE.
    pub rtype: u16,
    /// Seconds.
    pub ttl: u32,
    /// Uncompressed.
    pub data: Box<[u8]>,
}

/// A place in a zone: the record that comes next.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::dns) struct Cursor {
    node: u32,
    rrset: usize,
    record: usize,
}

impl Zone {
    /// The SOA.
    pub(in crate::dns) fn soa(&self) -> Option<Record> {
        let rrset = self.rrset(APEX, SOA)?;
        self.expand(rrset, &self.apex).into_iter().next()
    }

    /// Gives `visit` the records from `at` on, the SOA left out; ends at the first that it does not take (`false`),
    /// which is then the next. True: that was all.
    pub(in crate::dns) fn walk(
        &self,
        at: &mut Cursor,
        mut visit: impl FnMut(&[u8], u16, u32, &[u8]) -> bool,
    ) -> bool {
        while (at.node as usize) < self.nodes.len() {
            let rrsets = self.rrsets_of(at.node);
            if at.rrset < rrsets.len() {
                let owner = self.owner(at.node);
                for rrset in &rrsets[at.rrset..] {
                    if rrset.rtype != SOA || at.node != APEX {
                        for record in self.records_of(rrset).skip(at.record) {
                            let data = record.data_expanded(rrset.rtype, &owner, &self.apex);
                            if !visit(&owner, rrset.rtype, record.ttl(), &data) {
                                return false;
                            }
                            at.record += 1;
                        }
                    }
                    at.rrset += 1;
                    at.record = 0;
                }
            }
            *at = Cursor {
                node: at.node + 1,
                ..Cursor::default()
            };
        }
        true
    }

    /// The records of an RRset; `owner` in wire form.
    pub(in crate::dns) fn expand(&self, rrset: &RRset, owner: &[u8]) -> Vec<Record> {
        self.records_of(rrset)
            .map(|record| Record {
                owner: owner.into(),
                rtype: rrset.rtype,
                ttl: record.ttl(),
                data: record.data_expanded(rrset.rtype, owner, &self.apex).into(),
            })
            .collect()
    }

    /// The records at a name (wire form, lower case), whatever is cut or occluded above it.
    pub(in crate::dns) fn records_at(&self, owner: &[u8]) -> Vec<Record> {
        let Some(node) = self.node_of(owner) else {
            return Vec::new();
        };
        let rrsets = self.rrsets_of(node).iter();
        rrsets.flat_map(|rrset| self.expand(rrset, owner)).collect()
    }

    /// The node of a name (wire form, lower case), whatever is cut or occluded above it.
    fn node_of(&self, name: &[u8]) -> Option<u32> {
        if !self.contains(name) {
            return None;
        }
        let path = Path::new(name);
        let below = path.labels() - Path::new(&self.apex).labels();
        self.lookup(&path, below, path.suffix_hash(below))
    }

    /// The node of the same name in another version. `owner`: its name.
    fn twin(&self, node: u32, owner: &[u8], other: &Self) -> Option<u32> {
        if self.nodes[node as usize].flags & HASHED == 0 {
            return other.node_of(owner);
        }
        // No lookup finds the owner of an NSEC3 record.
        match &other.denial {
            Denial::Nsec3(chain) => chain.at(denial::from_label(owner.get(1..33)?)?),
            _ => None,
        }
    }

    /// Whether a name (wire form, lower case) is at or beneath the apex.
    pub(in crate::dns) fn contains(&self, name: &[u8]) -> bool {
        is_beneath(name, &self.apex)
    }

    /// What differs: records of `self` that `next` has not, and the other way round, without the SOA. Both are
    /// versions of one zone.
    pub(in crate::dns) fn difference(&self, next: &Self) -> (Vec<Record>, Vec<Record>) {
        (self.without(next), next.without(self))
    }

    /// The records that `other` has not.
    fn without(&self, other: &Self) -> Vec<Record> {
        let mut found = Vec::new();
        for node in 0..self.nodes.len() as u32 {
            let rrsets = self.rrsets_of(node);
            if rrsets.is_empty() {
                continue;
            }
            let owner = self.owner(node);
            let twin = self.twin(node, &owner, other);
            for rrset in rrsets {
                if rrset.rtype == SOA {
                    continue;
                }
                let same = twin.and_then(|twin| other.rrset(twin, rrset.rtype));
                match same {
                    // Encoded against the same apex and owner: equal octets are equal records.
                    Some(same) if other.bytes_of(same) == self.bytes_of(rrset) => {}
                    Some(same) => {
                        let kept: std::collections::HashSet<Record> =
                            other.expand(same, &owner).into_iter().collect();
                        let mut records = self.expand(rrset, &owner);
                        records.retain(|record| !kept.contains(record));
                        found.append(&mut records);
                    }
                    None => found.append(&mut self.expand(rrset, &owner)),
                }
            }
        }
        found
    }
}

/// Takes records one by one: owner, type, TTL, data.
pub(in crate::dns) type Take<'t> = dyn FnMut(&[u8], u16, u32, &[u8]) + 't;

/// The zone of these records. `from` says where they come from in what is found wrong; configured TTLs win over
/// theirs.
///
/// # Errors
/// What keeps them from being a zone.
pub(in crate::dns) fn from_records(
    apex: &[u8],
    from: &str,
    ttls: &[TtlOverride],
    mut records: impl FnMut(&mut Take<'_>),
) -> Result<Loaded, Vec<Problem>> {
    let mut report = Report::default();
    let at = At {
        file: report.file(from.to_owned()),
        line: 0,
    };
    let mut builder = Builder::new(apex);
    records(&mut |owner, rtype, ttl, data| {
        if let Err(problem) = builder.add(owner, rtype, ttl, data, at) {
            report.error(at, problem);
        }
    });
    let zone = builder.finish(ttls, &mut report);
    match (zone, report.finish()) {
        (Some(zone), (errors, warnings)) if errors.is_empty() => Ok(Loaded {
            zone: Arc::new(zone),
            warnings,
        }),
        (_, (errors, _)) => Err(errors),
    }
}

/// Whether a name is at or beneath another; both in wire form, lower case.
pub(in crate::dns) fn is_beneath(name: &[u8], apex: &[u8]) -> bool {
    let mut rest = name;
    // Label by label, so that the octets of a label are never taken for a shorter name.
    while rest.len() >= apex.len() {
        if rest == apex {
            return true;
        }
        match rest.split_first() {
            Some((&len, tail)) if len > 0 => rest = &tail[usize::from(len)..],
            _ => return false,
        }
    }
    false
}

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let owner = name::to_text(&self.owner);
        let mnemonic = super::rdata::mnemonic(self.rtype);
        let data = super::rdata::to_text(self.rtype, &self.data);
        write!(f, "{owner} {} IN {mnemonic} {data}", self.ttl)
    }
}
