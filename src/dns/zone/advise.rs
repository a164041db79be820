//! What is legal but unwise about the targets of a zone's NS, MX and SRV records.

use super::name;
use super::path::Path;
use super::rdata;
use super::report::{At, Report};
use super::tree::{A, AAAA, APEX, CNAME, Found, MX, NO_NODE, NS, SRV, Zone, target_offset};

impl Zone {
    /// Warns of name servers, mail exchangers and servers of services in the zone that have no address or are aliases; of the
    /// zone's own name servers that is a fault. `at` gives the place of a record.
    pub(super) fn check_targets(&self, report: &mut Report, at: impl Fn(u32, u16, usize) -> At) {
        for node in 0..self.nodes.len() as u32 {
            for rrset in self
                .rrsets_of(node)
                .iter()
                .filter(|rrset| matches!(rrset.rtype, NS | MX | SRV))
            {
                let owner = self.owner(node);
                for (index, (record, &target)) in self
                    .records_of(rrset)
                    .zip(self.targets_of(rrset))
                    .enumerate()
                {
                    if self.is_good(target) || self.is_elsewhere(rrset.rtype, record.data()) {
                        continue; // Most are: nothing is looked up for them.
                    }
                    let data = record.data_expanded(rrset.rtype, &owner, &self.apex);
                    let name = &data[target_offset(rrset.rtype).unwrap_or(0)..];
                    let place = || at(node, rrset.rtype, index);
                    let warning = self.target_warning(node, rrset.rtype, name, target);
                    match warning {
                        Some(message) if node == APEX && rrset.rtype == NS => {
                            report.fault(place(), message);
                        }
                        Some(message) => report.warn(place(), message),
                        None => {}
                    }
                }
            }
        }
    }

    /// Whether a target that was found has addresses and is no alias.
    fn is_good(&self, target: u32) -> bool {
        let has = |rtype| self.rrset(target, rtype).is_some();
        target != NO_NODE && (has(A) || has(AAAA)) && !has(CNAME)
    }

    /// Whether the name at the end of stored data is in another zone, as one that no marker ends is.
    fn is_elsewhere(&self, rtype: u16, data: &[u8]) -> bool {
        rtype != SRV && self.apex.len() > 1 && data.last() == Some(&0)
    }

    fn target_warning(&self, node: u32, rtype: u16, target: &[u8], found: u32) -> Option<String> {
        let path = Path::new(target);
        let apex = Path::new(&self.apex);
        let below = path
            .labels()
            .checked_sub(apex.labels())
            .filter(|&at| path.suffix(at) == &*self.apex)?;
        if target == [0] {
            return None; // There is none, on purpose (RFC 7505, RFC 2782).
        }
        let cut = match self.find(&path, below, apex.hash()) {
            Found::Cut { node, .. } => Some(node),
            _ => None,
        };
        let has = |rtype| found != NO_NODE && self.rrset(found, rtype).is_some();
        let (owner, target) = (name::to_text(&self.owner(node)), name::to_text(target));
        let mnemonic = rdata::mnemonic(rtype);
        if has(CNAME) {
            return Some(format!(
                "{owner} {mnemonic}: found the alias {target}, expected a name with addresses (RFC 2181 section 10.3)"
            ));
        }
        match cut {
            // Another server's business, if not ours to give as glue.
            Some(cut) if rtype != NS || cut != node => None,
            _ if has(A) || has(AAAA) => None,
            Some(_) => Some(format!(
                "{owner} NS: found no glue for {target}, expected A or AAAA records"
            )),
            None => Some(format!(
                "{owner} {mnemonic}: found no address of {target} in the zone, expected A or AAAA records"
            )),
        }
    }
}
