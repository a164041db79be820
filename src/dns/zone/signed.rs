//! What a signed zone has beside its RRsets: which signatures cover which RRset, and the chain that proves what is
//! missing.

use super::denial::{self, Denial, ITERATIONS_MAX, Nsec, Nsec3, Params};
use super::report::{At, Report};
use super::tree::{
    APEX, CUT, DNAME_HERE, HASHED, NO_NODE, NSEC, NSEC3, NSEC3PARAM, Node, RRSIG, RRset,
    Signatures, Zone,
};

/// The type that an RRSIG covers; 0 for data of another type.
pub(super) fn covered(rtype: u16, data: &[u8]) -> u16 {
    match data {
        [high, low, ..] if rtype == RRSIG => u16::from_be_bytes([*high, *low]),
        _ => 0,
    }
}

/// Per RRset its signatures. `covers` has `(node, type covered, signatures)` in that order, as `nodes` and `rrsets` are.
pub(super) fn assign(
    nodes: &[Node],
    rrsets: &[RRset],
    covers: &[(u32, u16, Signatures)],
) -> Box<[Signatures]> {
    if covers.is_empty() {
        return Box::default();
    }
    let mut assigned = vec![Signatures::default(); rrsets.len()];
    for &(node, covered, signatures) in covers {
        let node = &nodes[node as usize];
        if node.rrset_count < 2 {
            continue; // Signatures of what is not there.
        }
        let start = node.rrsets as usize;
        let here = &rrsets[start..start + usize::from(node.rrset_count)];
        if let Ok(at) = here.binary_search_by_key(&covered, |rrset| rrset.rtype) {
            assigned[start + at] = signatures;
        }
    }
    assigned.into()
}

impl Zone {
    /// Finds the chain among the zone's records, and when its first signature ends.
    pub(super) fn look_for_chain(&mut self, report: &mut Report) {
        if !self.is_signed() {
            return;
        }
        self.expires = self
            .all_rrsets()
            .filter(|rrset| rrset.rtype == RRSIG)
            .flat_map(|rrset| self.records_of(rrset))
            .filter_map(|record| {
                let end = record.data().get(8..12)?;
                Some(u32::from_be_bytes([end[0], end[1], end[2], end[3]]))
            })
            .min();
        let params = self.rrset(APEX, NSEC3PARAM).and_then(|rrset| {
            // One with flags is being built or torn down (RFC 5155 section 4.1.2).
            let mut records = self.records_of(rrset).map(|record| record.data());
            records
                .find(|data| data.get(1) == Some(&0))
                .and_then(Params::read)
        });
        self.denial = match params {
            Some(params) if params.iterations > ITERATIONS_MAX => {
                report.error(
                    At::default(),
                    format!(
                        "NSEC3PARAM: found {} iterations, expected at most {ITERATIONS_MAX} (RFC 9276: 0)",
                        params.iterations
                    ),
                );
                return;
            }
            Some(params) => self.nsec3(params),
            None if self.rrset(APEX, NSEC).is_some() => self.nsec(),
            None => Denial::None,
        };
        if matches!(self.denial, Denial::None) {
            report.warn(
                At::default(),
                "found signatures and no chain of NSEC or NSEC3 records from the apex, expected one: that a name \
                 does not exist cannot be proved",
            );
        }
    }

    fn nsec(&self) -> Denial {
        let mut names: Vec<(Vec<u8>, u32)> = (0..self.nodes.len() as u32)
            .filter(|&node| self.rrset(node, NSEC).is_some())
            .map(|node| (self.sort_key(node), node))
            .collect();
        names.sort_unstable();
        Denial::Nsec(Nsec::new(names.into_iter()))
    }

    fn nsec3(&self, params: Params) -> Denial {
        let mut entries: Vec<(denial::Hash, u32)> = (0..self.nodes.len() as u32)
            .filter(|&node| self.nodes[node as usize].flags & HASHED != 0)
            .filter_map(|node| {
                let mut records = self.records_of(self.rrset(node, NSEC3)?);
                let same =
                    records.any(|record| Params::read(record.data()).as_ref() == Some(&params));
                let label = self.labels_of(node).next()?;
                same.then_some((denial::from_label(&label[1..])?, node))
            })
            .collect();
        if entries.is_empty() {
            return Denial::None;
        }
        entries.sort_unstable();
        let mut of_node = vec![NO_NODE; self.nodes.len()];
        let mut below = vec![false; self.nodes.len()]; // A parent comes before its children.
        for (at, node) in self.nodes.iter().enumerate() {
            let parent = &self.nodes[node.parent as usize];
            below[at] =
                at > 0 && (below[node.parent as usize] || parent.flags & (CUT | DNAME_HERE) != 0);
            if below[at] || node.flags & HASHED != 0 {
                continue;
            }
            let owner = self.owner(at as u32); // Nodes are numbered so.
            let hash = denial::hash([&owner, &[]], &params.salt, params.iterations);
            if let Ok(found) = entries.binary_search_by_key(&hash, |(entry, _)| *entry) {
                of_node[at] = entries[found].1;
            }
        }
        Denial::Nsec3(Nsec3::new(params, entries, of_node))
    }
}
