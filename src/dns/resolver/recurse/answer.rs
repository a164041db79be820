//! From facts to the message that is cached and given to clients.

use std::sync::Arc;

use super::dname::Dname;
use super::fact::{Fact, Status, What};
use super::iterate::negative_ttl;
use super::judge::{NXDOMAIN, Nothing};
use super::response::RrSet;
use super::rtype;
use crate::time::Now;

/// One step of an answer: what is known of one name on the way along the aliases.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) name: Dname,
    pub(super) fact: Arc<Fact>,
}

/// Writes the answer of `links` (not empty) to (`name`, `qtype`): question, records with the TTLs they have left at `now`, signatures and
/// proofs if `dnssec_ok`. AD says that every link is secure.
pub(super) fn write(links: &[Link], name: &[u8], qtype: u16, dnssec_ok: bool, now: Now) -> Vec<u8> {
    let mut message = Message::new(name, qtype, dnssec_ok);
    let mut proofs: Vec<(&Arc<RrSet>, u32)> = Vec::new();
    let mut rcode = 0;
    for link in links {
        let ttl = link.fact.ttl(now);
        match &link.fact.what {
            What::Set { set, proof } => {
                message.set(ANSWER, set, ttl);
                if set.rtype == rtype::DNAME
                    && let Some(target) = link.fact.alias(&link.name, qtype)
                {
                    message.record(ANSWER, &link.name, rtype::CNAME, ttl, &target);
                }
                // Only a wildcard's expansion needs them.
                if is_expanded(set) {
                    proofs.extend(proof.iter().map(|set| (set, ttl)));
                }
            }
            What::Nothing(Nothing {
                nxdomain,
                soa,
                proof,
            }) => {
                if *nxdomain {
                    rcode = NXDOMAIN;
                }
                if let Some(soa) = soa {
                    message.set(AUTHORITY, soa, ttl.min(negative_ttl(soa)));
                }
                proofs.extend(proof.iter().map(|set| (set, ttl)));
            }
        }
    }
    if dnssec_ok {
        for (set, ttl) in proofs {
            message.set(AUTHORITY, set, ttl);
        }
    }
    let secure = links.iter().all(|link| link.fact.status == Status::Secure);
    message.finish(rcode, secure)
}

/// Whether a signature says that `set` was made from a wildcard (RFC 4035 section 5.3.4).
pub(super) fn is_expanded(set: &RrSet) -> bool {
    let labels = set.owner.labels() - usize::from(set.owner.starts_with(b"\x01*"));
    set.sigs.iter().any(|sig| {
        sig.get(3)
            .is_some_and(|&signed| usize::from(signed) < labels)
    })
}

const ANSWER: usize = 0;
const AUTHORITY: usize = 1;

struct Message {
    question: Vec<u8>,
    sections: [Vec<u8>; 2],
    counts: [u16; 2],
    dnssec_ok: bool,
    seen: Vec<(Dname, u16)>,
}

impl Message {
    fn new(name: &[u8], qtype: u16, dnssec_ok: bool) -> Self {
        let [high, low] = qtype.to_be_bytes();
        Self {
            question: [name, &[high, low, 0, 1]].concat(),
            sections: [Vec::new(), Vec::new()],
            counts: [0; 2],
            dnssec_ok,
            seen: Vec::new(),
        }
    }

    fn set(&mut self, section: usize, set: &RrSet, ttl: u32) {
        // Two links may have their proof in common.
        let this = (set.owner.clone(), set.rtype);
        if self.seen.contains(&this) {
            return;
        }
        self.seen.push(this);
        for rdata in &set.data {
            self.record(section, &set.owner, set.rtype, ttl, rdata);
        }
        if self.dnssec_ok {
            for rdata in &set.sigs {
                self.record(section, &set.owner, rtype::RRSIG, ttl, rdata);
            }
        }
    }

    fn record(&mut self, section: usize, owner: &[u8], rtype: u16, ttl: u32, rdata: &[u8]) {
        let Ok(length) = u16::try_from(rdata.len()) else {
            return;
        };
        let bytes = &mut self.sections[section];
        bytes.extend(owner);
        bytes.extend(rtype.to_be_bytes());
        bytes.extend([0, 1]);
        bytes.extend(ttl.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes.extend(rdata);
        self.counts[section] = self.counts[section].saturating_add(1);
    }

    fn finish(self, rcode: u8, secure: bool) -> Vec<u8> {
        let mut message = vec![0, 0, 0x80, 0x80 | u8::from(secure) << 5 | rcode, 0, 1];
        for count in self.counts {
            message.extend(count.to_be_bytes());
        }
        message.extend([0, 0]);
        message.extend(self.question);
        message.extend(self.sections.concat());
        message
    }
}
