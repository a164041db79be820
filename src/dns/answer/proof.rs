//! Proofs that go with answers from signed zones: that a name or a type does not exist, and that a wildcard was right
//! to stand in (RFC 4035 section 3.1.3, RFC 5155 section 7.2).

use super::{Answer, Asked, CHAIN_MAX, POINTER_MAX, pointer, records};
use crate::dns::wire::Section;
use crate::dns::zone::denial::{Denial, Key, Nsec3};
use crate::dns::zone::path::{Path, suffix_in_message};
use crate::dns::zone::tree::{APEX, Encloser, NSEC, NSEC3, Zone};

/// What an answer has proved, and what it has yet to prove.
#[derive(Debug, Default)]
pub(super) struct Proofs<'a> {
    /// Names that a wildcard stood in for, until they are proved not to exist: behind all answers.
    expanded: [Option<Expanded<'a>>; CHAIN_MAX + 1],
    /// Nodes whose NSEC or NSEC3 record is in the message: one may prove several things.
    put: [Option<(&'a Zone, u32)>; PUT_MAX],
}

/// Names in the message that the owner of a proof may end in.
#[derive(Clone, Copy, Debug)]
struct Ends {
    /// A node whose name is in the message, and where.
    node: u32,
    name: usize,
    /// Where the apex is.
    apex: usize,
}

/// A name that a wildcard stood in for.
#[derive(Clone, Copy, Debug)]
struct Expanded<'a> {
    zone: &'a Zone,
    /// Where the name is in the message.
    owner: usize,
    /// Its labels below the apex.
    apex: usize,
    encloser: Encloser,
}

impl<'a> Answer<'a, '_> {
    /// Notes a name that a wildcard stood in for.
    pub(super) fn expanded(&mut self, asked: Asked<'a, '_>, encloser: Encloser) {
        if let Some(proofs) = &mut self.proofs
            && let Some(free) = proofs.expanded.iter_mut().find(|slot| slot.is_none())
        {
            *free = Some(Expanded {
                zone: asked.zone,
                owner: asked.spot.owner,
                apex: asked.apex,
                encloser,
            });
        }
    }

    /// Proves of the names noted so far that they do not exist themselves (RFC 4035 section 3.1.3.3, RFC 5155 section
    /// 7.2.6).
    #[inline]
    pub(super) fn prove_expansions(&mut self) {
        if self.proofs.is_some() {
            self.prove_each_expansion();
        }
    }

    fn prove_each_expansion(&mut self) {
        for slot in 0..=CHAIN_MAX {
            let Some(proofs) = &mut self.proofs else {
                return;
            };
            let Some(found) = proofs.expanded[slot].take() else {
                return;
            };
            let message = self.writer.written();
            let Some(path) = Path::from_message(message, found.owner) else {
                continue;
            };
            let (zone, encloser) = (found.zone, found.encloser);
            let at = |label| suffix_in_message(message, found.owner, path.offset(label));
            let ends = Ends {
                node: encloser.node,
                name: at(encloser.depth),
                apex: at(found.apex),
            };
            match zone.denial() {
                Denial::None => {}
                Denial::Nsec(chain) => {
                    let node = chain.covering(&Key::new(&path, 0, found.apex));
                    self.put_proof(zone, node, NSEC, ends);
                }
                Denial::Nsec3(chain) => {
                    let node = chain.covering([path.suffix(encloser.depth - 1), &[]]);
                    self.put_proof(zone, node, NSEC3, ends);
                }
            }
        }
    }

    /// Proves that neither the name nor a wildcard for it exists (RFC 4035 section 3.1.3.2, RFC 5155 section 7.2.2).
    pub(super) fn prove_missing(&mut self, asked: Asked<'a, '_>, encloser: Encloser) {
        self.prove_without(asked, encloser, None);
    }

    /// Proves that the name does not exist, and that the wildcard `node` has no records of the type asked for (RFC 4035
    /// section 3.1.3.4, RFC 5155 section 7.2.5).
    pub(super) fn prove_wildcard_nodata(
        &mut self,
        asked: Asked<'a, '_>,
        node: u32,
        encloser: Encloser,
    ) {
        self.prove_without(asked, encloser, Some(node));
    }

    /// Proves that the name does not exist, and gives what is at or before the wildcard for it.
    fn prove_without(&mut self, asked: Asked<'a, '_>, encloser: Encloser, wildcard: Option<u32>) {
        if self.proofs.is_none() {
            return;
        }
        let (zone, path) = (asked.zone, asked.path);
        let ends = self.ends(asked, encloser);
        match zone.denial() {
            Denial::None => {}
            Denial::Nsec(chain) => {
                let name = chain.covering(&Key::new(path, 0, asked.apex));
                self.put_proof(zone, name, NSEC, ends);
                let key = Key::new(path, encloser.depth, asked.apex).wildcard();
                self.put_proof(zone, chain.covering(&key), NSEC, ends);
            }
            Denial::Nsec3(chain) => {
                let proved = self.prove_encloser(asked, chain, encloser);
                let wildcard = wildcard.and_then(|node| chain.matching(node));
                let wildcard = wildcard
                    .unwrap_or_else(|| chain.covering([b"\x01*", path.suffix(proved.depth)]));
                self.put_proof(zone, wildcard, NSEC3, ends);
            }
        }
    }

    /// Proves that a name which exists, and starts at label `depth`, has no records of the type asked for, or no DS
    /// (RFC 4035 section 3.1.3.1, RFC 5155 sections 7.2.3, 7.2.4 and 7.2.7).
    pub(super) fn prove_nodata(&mut self, asked: Asked<'a, '_>, node: u32, depth: usize) {
        if self.proofs.is_none() {
            return;
        }
        let zone = asked.zone;
        let ends = self.ends(asked, Encloser { node, depth });
        match zone.denial() {
            Denial::None => {}
            Denial::Nsec(chain) => {
                // An empty non-terminal has no record of its own.
                let found = match zone.rrset(node, NSEC) {
                    Some(_) => node,
                    None => chain.covering(&Key::new(asked.path, depth, asked.apex)),
                };
                self.put_proof(zone, found, NSEC, ends);
            }
            Denial::Nsec3(chain) => match chain.matching(node) {
                Some(found) => self.put_proof(zone, found, NSEC3, ends),
                // A delegation that was opted out, or a name above nothing but such.
                None => {
                    let encloser = Encloser {
                        node: zone.parent(node),
                        depth: depth + 1,
                    };
                    self.prove_encloser(asked, chain, encloser);
                }
            },
        }
    }

    /// Proves the closest encloser that has a record, and that the name below it does not exist or is opted out (RFC
    /// 5155 section 7.2.1). Returns that encloser.
    fn prove_encloser(
        &mut self,
        asked: Asked<'a, '_>,
        chain: &Nsec3,
        encloser: Encloser,
    ) -> Encloser {
        let zone = asked.zone;
        let ends = self.ends(asked, encloser);
        let mut at = encloser;
        let found = loop {
            if at.node == APEX {
                break chain.matching(APEX);
            }
            if let Some(found) = chain.matching(at.node) {
                break Some(found);
            }
            at = Encloser {
                node: zone.parent(at.node),
                depth: at.depth + 1,
            };
        };
        if let Some(found) = found {
            self.put_proof(zone, found, NSEC3, ends);
        }
        // The apex asked of itself has a record, or the zone is broken: there is nothing below it to cover.
        if let Some(next) = at.depth.checked_sub(1).filter(|_| at.depth <= asked.apex) {
            let covering = chain.covering([asked.path.suffix(next), &[]]);
            self.put_proof(zone, covering, NSEC3, ends);
        }
        at
    }

    /// The name of a node that the name asked for ends in, from label `depth` on, and the apex.
    fn ends(&self, asked: Asked<'_, '_>, Encloser { node, depth }: Encloser) -> Ends {
        let skip = asked.path.offset(depth);
        Ends {
            node,
            name: suffix_in_message(self.writer.written(), asked.spot.owner, skip),
            apex: asked.spot.apex,
        }
    }

    /// Appends the NSEC or NSEC3 record of a node with its signatures to the authority section, once, or sets TC.
    fn put_proof(&mut self, zone: &'a Zone, node: u32, rtype: u16, ends: Ends) {
        let Some(rrset) = zone.rrset(node, rtype) else {
            return;
        };
        let Some(proofs) = &mut self.proofs else {
            return;
        };
        let is_this = |put: &(&Zone, u32)| std::ptr::eq(put.0, zone) && put.1 == node;
        for slot in &mut proofs.put {
            match slot {
                Some(put) if is_this(put) => return,
                Some(_) => {}
                None => {
                    *slot = Some((zone, node));
                    break;
                }
            }
        }
        let (signatures, signed) = self.signatures(zone, rrset);
        let mark = self.writer.mark();
        let owner = self.writer.position();
        for record in records(zone.bytes_of(rrset)).chain(records(signatures)) {
            let first = self.writer.position() == owner;
            let named = if !first && owner <= POINTER_MAX {
                self.writer.append(&pointer(owner))
            } else {
                self.append_name(zone, node, ends)
            };
            if !named || !self.writer.append(&record[2..]) {
                self.writer.rewind(mark);
                self.writer.truncated();
                return;
            }
        }
        self.writer.count(Section::Authority, rrset.count + signed);
    }

    /// Appends the name of a node; `false` if it does not fit.
    fn append_name(&mut self, zone: &Zone, node: u32, ends: Ends) -> bool {
        let mut at = node;
        for label in zone.labels_of(node) {
            if at == ends.node && ends.name <= POINTER_MAX {
                return self.writer.append(&pointer(ends.name));
            }
            if !self.writer.append(label) {
                return false;
            }
            at = zone.parent(at);
        }
        if ends.apex <= POINTER_MAX && zone.apex().len() > 1 {
            self.writer.append(&pointer(ends.apex))
        } else {
            self.writer.append(zone.apex())
        }
    }
}

/// Records put as proofs into one answer: one per name of a chain, and three for the last.
const PUT_MAX: usize = CHAIN_MAX + 1 + 3;
