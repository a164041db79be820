//! The records of a zone, checked, as the bytes and tables that answers are made from.

use std::collections::HashSet;

use super::super::denial::Denial;
use super::super::path::Path;
use super::super::report::Report;
use super::super::tree::{
    APEX, Found, HTTPS, MARK_APEX, MARK_OWNER, NO_NODE, NS, Node, Place, RECORD_HEAD, RRSIG, RRset,
    SOA, SVCB, Signatures, Zone, is_service_alias, name_places, target_offset,
};
use super::super::{name, rdata, signed};
use super::{Builder, FEW, Group};
use crate::dns::wire::CODE_LEN_MAX;

impl Builder {
    pub(super) fn encode(&mut self, groups: &[Group], soa: Group, report: &mut Report) -> Zone {
        let mut nodes: Vec<Node> = Vec::with_capacity(self.nodes.len());
        let mut rrsets: Vec<RRset> = Vec::new();
        let mut covers = Vec::new();
        let room = self.labels.len() + self.data.len() + self.records.len() * RECORD_HEAD;
        let mut data = Vec::with_capacity(room + SOA_ROOM);
        let mut places = Vec::new(); // Records with a target, in the order of `targets`.
        let mut here: Vec<RRset> = Vec::new();
        let mut groups_left = groups.iter().peekable();
        for (number, name) in (0..).zip(&self.nodes) {
            let label = data.len() as u32; // As in `add`.
            data.extend_from_slice(self.label(number));
            here.clear();
            while let Some(group) = groups_left.next_if(|group| group.node == number) {
                let part = self.encode_rrset(group, group.ttl, places.len(), &mut data);
                if group.rtype == RRSIG {
                    covers.push((group.node, group.covered, signatures(part)));
                }
                let rrset = match here.pop_if(|last| last.rtype == group.rtype) {
                    // The signatures of a name are one RRset, in the order of what they cover.
                    Some(before) => RRset {
                        count: before.count.saturating_add(part.count),
                        len: before.len + part.len,
                        ..before
                    },
                    None => part,
                };
                if target_offset(group.rtype).is_some() {
                    places.extend(group.range());
                }
                if rrset.len as usize + CODE_LEN_MAX > usize::from(u16::MAX) {
                    report.error(
                        self.records[group.start as usize].at(),
                        format!(
                            "{} {}: found an RRset of {} bytes, expected one that fits a message of 65535",
                            self.owner_text(group.node),
                            rdata::mnemonic(group.rtype),
                            rrset.len,
                        ),
                    );
                }
                here.push(rrset);
            }
            nodes.push(Node {
                parent: name.parent,
                label,
                rrsets: rrsets.len() as u32, // Fewer RRsets than records.
                rrset_count: here.len() as u16, // At most 65,536 types, and storable ones are fewer.
                flags: name.flags,
                first: here.first().copied().unwrap_or_default(),
            });
            if here.len() > 1 {
                rrsets.extend_from_slice(&here);
            }
        }
        let raw = self.raw(&self.records[soa.start as usize]);
        let number = |from_end: usize| {
            let at = raw.len() - from_end;
            u32::from_be_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]])
        };
        let serial = number(20);
        let negative_ttl = soa.ttl.min(number(4));
        let only = Group {
            end: soa.start + 1,
            ..soa
        };
        let negative = self.encode_rrset(&only, negative_ttl, 0, &mut data);
        let negative_signatures = groups
            .iter()
            .find(|group| (group.node, group.rtype, group.covered) == (APEX, RRSIG, SOA))
            .map(|group| signatures(self.encode_rrset(group, negative_ttl, 0, &mut data)));
        let mut table = std::mem::take(&mut self.table);
        table.update(|spot| spot.label = nodes[spot.node as usize].label);
        let mut zone = Zone {
            name: name::to_text(&self.apex),
            apex: self.apex.clone().into(),
            serial,
            records: self.records.len(),
            signatures: signed::assign(&nodes, &rrsets, &covers),
            negative_signatures: negative_signatures.unwrap_or_default(),
            denial: Denial::None,
            expires: None,
            nodes: nodes.into(),
            table,
            rrsets: rrsets.into(),
            data: data.into(),
            targets: Box::default(),
            negative,
        };
        zone.targets = self.targets(&zone, &places);
        zone
    }

    /// Per record its target; a name that an RRset names twice (two preferences) counts once.
    fn targets(&self, zone: &Zone, places: &[usize]) -> Box<[u32]> {
        let mut targets = Vec::with_capacity(places.len());
        for rrset in
            places.chunk_by(|&one, &next| self.records[one].key() == self.records[next].key())
        {
            let rtype = self.records[rrset[0]].rtype;
            let offset = target_offset(rtype).unwrap_or(0);
            let mut owner = Vec::new();
            if matches!(rtype, SVCB | HTTPS) {
                self.append_owner(self.records[rrset[0]].node, &mut owner);
            }
            let name = |at: usize| {
                let raw = self.raw(&self.records[at]);
                // Behind a service's target come parameters.
                match first_name(&raw[offset..]) {
                    // A service at its owner's own name (RFC 9460 section 2.5.2).
                    [0] if !owner.is_empty() && !is_service_alias(rtype, raw) => &owner[..],
                    name => name,
                }
            };
            // Many are remembered, few compared.
            let mut named = HashSet::new();
            for (index, &at) in rrset.iter().enumerate() {
                let again = if rrset.len() <= FEW {
                    let before = &mut rrset[..index].iter();
                    before.any(|&before| name(before).eq_ignore_ascii_case(name(at)))
                } else {
                    !named.insert(name(at).to_ascii_lowercase())
                };
                targets.push(if again {
                    NO_NODE
                } else {
                    self.target(zone, rtype, &Path::new(name(at)))
                });
            }
        }
        targets.into()
    }

    fn encode_rrset(&self, group: &Group, ttl: u32, targets: usize, data: &mut Vec<u8>) -> RRset {
        let start = data.len();
        let mut owner = Vec::new();
        // A record of a wildcard is answered under another owner: nothing may point to the one it has here.
        if group.node != APEX
            && !self.is_wildcard(group.node)
            && !name_places(group.rtype).is_empty()
        {
            self.append_owner(group.node, &mut owner);
        }
        for raw in &self.records[group.range()] {
            data.extend([0xC0, 12]);
            data.extend(group.rtype.to_be_bytes());
            data.extend([0, 1]);
            data.extend(ttl.to_be_bytes());
            data.extend([0, 0]);
            let from = data.len();
            self.encode_data(group.rtype, self.raw(raw), &owner, data);
            let len = (data.len() - from) as u16; // Never longer than what was read.
            data[from - 2..from].copy_from_slice(&len.to_be_bytes());
        }
        RRset {
            rtype: group.rtype,
            count: (group.end - group.start).min(u32::from(u16::MAX)) as u16,
            start: start as u32, // Memory ends before 4 GiB of records in one zone do.
            len: (data.len() - start) as u32,
            targets: targets as u32,
        }
    }

    fn encode_data(&self, rtype: u16, raw: &[u8], owner: &[u8], out: &mut Vec<u8>) {
        let mut rest = raw;
        for place in name_places(rtype) {
            match place {
                Place::Bytes(len) => {
                    let (bytes, after) = rest.split_at(*len);
                    out.extend_from_slice(bytes);
                    rest = after;
                }
                Place::Name => loop {
                    let mark = if !owner.is_empty() && starts_with_name(rest, owner) {
                        Some((MARK_OWNER, owner.len()))
                    } else if self.apex.len() > 1 && starts_with_name(rest, &self.apex) {
                        Some((MARK_APEX, self.apex.len()))
                    } else {
                        None
                    };
                    if let Some((mark, len)) = mark {
                        out.extend([0xC0, mark]);
                        rest = &rest[len..];
                        break;
                    }
                    let (label, after) = rest.split_at(usize::from(rest[0]) + 1);
                    out.extend_from_slice(label);
                    rest = after;
                    if label.len() == 1 {
                        break;
                    }
                },
            }
        }
        out.extend_from_slice(rest);
    }

    /// The node whose addresses go to the additional section with this record: that of its target, or the wildcard
    /// that covers it. What lies beneath a zone cut is glue, and goes with NS only.
    fn target(&self, zone: &Zone, rtype: u16, path: &Path) -> u32 {
        let Some(below) = self.depth_below_apex(path) else {
            return NO_NODE;
        };
        match zone.find(path, below, self.apex_hash) {
            Found::Node(node) | Found::Wildcard { node, .. } => node,
            Found::Cut { .. } if rtype == NS => {
                zone.lookup(path, below, self.apex_hash).unwrap_or(NO_NODE)
            }
            _ => NO_NODE,
        }
    }
}

/// An RRset of RRSIG records as signatures.
fn signatures(rrset: RRset) -> Signatures {
    Signatures {
        start: rrset.start,
        len: rrset.len,
        count: rrset.count,
    }
}

fn starts_with_name(bytes: &[u8], name: &[u8]) -> bool {
    bytes
        .get(..name.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(name))
}

/// The name that `data` begins with.
fn first_name(data: &[u8]) -> &[u8] {
    let mut end = 0;
    while let Some(&label @ 1..) = data.get(end) {
        end += 1 + usize::from(label);
    }
    &data[..data.len().min(end + 1)]
}

/// Two copies of a SOA, with names of full length.
const SOA_ROOM: usize = 1_200;
