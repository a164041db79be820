//! What a reply says of a question put to the servers of one zone, and what of it may be believed.
//!
//! Bailiwick (RFC 5452 section 6): the servers of a zone speak for names at or beneath it, and of those only for what was
//! asked. Kept are the records along the aliases from the name asked, as far as they stay in the zone; the SOA and the
//! proofs of a negative answer; of a referral the NS set, its DS or the proof that there is none, and addresses of those
//! very servers. Everything else goes unread.

use std::net::IpAddr;
use std::sync::Arc;

use super::dname::Dname;
use super::response::{Response, RrSet};
use super::rtype;

/// What a reply says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Data, or an alias on the way to it.
    Answer {
        /// The RRsets from the name asked along aliases; not empty.
        sets: Vec<Arc<RrSet>>,
        /// NSEC or NSEC3 sets (a wildcard's expansion needs them).
        proof: Vec<Arc<RrSet>>,
    },
    /// There is no such name, or no such type at it.
    Nothing(Nothing),
    /// Somebody beneath knows.
    Referral(Referral),
    /// Nothing this zone's servers should say.
    Lame(Lame),
}

/// A negative answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Nothing {
    /// NXDOMAIN, not NODATA.
    pub(in super::super) nxdomain: bool,
    pub(in super::super) soa: Option<Arc<RrSet>>,
    /// NSEC or NSEC3 sets.
    pub(in super::super) proof: Vec<Arc<RrSet>>,
}

/// A delegation, as the parent tells of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Referral {
    /// The zone delegated; strictly beneath the zone asked.
    pub(super) zone: Dname,
    /// TTL of the NS set, seconds.
    pub(super) ttl: u32,
    /// Its servers.
    pub(super) servers: Vec<NameServer>,
    /// NS records dropped as too many.
    pub(super) dropped: usize,
    pub(super) ds: Option<Arc<RrSet>>,
    /// NSEC or NSEC3 sets: that there is no DS.
    pub(super) proof: Vec<Arc<RrSet>>,
}

/// One server of a delegation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NameServer {
    pub(super) name: Dname,
    /// Its glue: used to ask, never given as an answer.
    pub(super) glue: Vec<IpAddr>,
}

/// Why a reply is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lame {
    /// Neither NOERROR nor NXDOMAIN.
    Rcode(u8),
    /// It comes from another resolver's cache.
    Recursive,
    /// It points upwards, sideways or nowhere.
    Astray,
}

/// Judges `response` to (`name`, `qtype`), put to a server of `zone`; at most `servers_max` servers are kept of a referral.
pub(super) fn judge(
    response: &Response,
    zone: &Dname,
    name: &Dname,
    qtype: u16,
    servers_max: usize,
) -> Verdict {
    match response.rcode {
        NOERROR | NXDOMAIN | YXDOMAIN => {}
        rcode => return Verdict::Lame(Lame::Rcode(rcode)),
    }
    // Without AA, with RA: what a resolver has in its cache, for which it is no authority.
    let hearsay = !response.authoritative && response.recursive;
    let sets = chain(response, zone, name, qtype);
    if !sets.is_empty() {
        if hearsay {
            return Verdict::Lame(Lame::Recursive);
        }
        return Verdict::Answer {
            sets,
            proof: proofs(response, zone),
        };
    }
    if response.rcode == YXDOMAIN {
        return Verdict::Lame(Lame::Rcode(YXDOMAIN));
    }
    let soa = response
        .authority
        .iter()
        .find(|set| {
            set.rtype == rtype::SOA && set.owner.is_beneath(zone) && name.is_beneath(&set.owner)
        })
        .cloned();
    if response.rcode == NOERROR && soa.is_none() {
        let ns = response.authority.iter().find(|set| {
            set.rtype == rtype::NS
                && set.owner.is_strictly_beneath(zone)
                && name.is_beneath(&set.owner)
        });
        if let Some(ns) = ns {
            // Where the DS lies, the parent has to say; a server that refers to the child does not know the type.
            if qtype == rtype::DS && ns.owner == *name {
                return Verdict::Lame(Lame::Astray);
            }
            return Verdict::Referral(referral(response, zone, ns, servers_max));
        }
    }
    if hearsay {
        return Verdict::Lame(Lame::Recursive);
    }
    if soa.is_none() && !response.authoritative {
        return Verdict::Lame(Lame::Astray);
    }
    Verdict::Nothing(Nothing {
        nxdomain: response.rcode == NXDOMAIN,
        soa,
        proof: proofs(response, zone),
    })
}

/// Judges what a resolver that is asked for all beneath `zone` says of (`name`, `qtype`).
pub(super) fn relayed(response: &Response, zone: &Dname, name: &Dname, qtype: u16) -> Verdict {
    if !matches!(response.rcode, NOERROR | NXDOMAIN) {
        return Verdict::Lame(Lame::Rcode(response.rcode));
    }
    let sets = chain(response, zone, name, qtype);
    let proof = proofs(response, zone);
    if !sets.is_empty() {
        return Verdict::Answer { sets, proof };
    }
    let soa = response.authority.iter().find(|set| {
        set.rtype == rtype::SOA && set.owner.is_beneath(zone) && name.is_beneath(&set.owner)
    });
    Verdict::Nothing(Nothing {
        nxdomain: response.rcode == NXDOMAIN,
        soa: soa.cloned(),
        proof,
    })
}

/// The RRsets from `name` along its aliases, while they stay in `zone`.
fn chain(response: &Response, zone: &Dname, name: &Dname, qtype: u16) -> Vec<Arc<RrSet>> {
    let mut sets: Vec<Arc<RrSet>> = Vec::new();
    let mut at = name.clone();
    while at.is_beneath(zone) && sets.len() <= CHAIN {
        let exact = response.answer.iter().find(|set| {
            set.owner == at
                && (set.rtype == qtype || qtype == rtype::ANY && set.rtype != rtype::CNAME)
        });
        if let Some(set) = exact {
            sets.push(Arc::clone(set));
            break;
        }
        // A DNAME comes with the CNAME made from it, which nobody has signed.
        let alias = response
            .answer
            .iter()
            .filter(|set| match set.rtype {
                rtype::DNAME => at.is_strictly_beneath(&set.owner) && set.owner.is_beneath(zone),
                rtype::CNAME => set.owner == at,
                _ => false,
            })
            .max_by_key(|set| set.rtype);
        let Some(alias) = alias else { break };
        let next = target(alias, &at);
        if sets.contains(alias) && next.is_none() {
            break;
        }
        sets.push(Arc::clone(alias));
        match next {
            Some(next) => at = next,
            None => break,
        }
    }
    sets
}

/// Where the alias `set` leads from `name`.
pub(in super::super) fn target(set: &RrSet, name: &Dname) -> Option<Dname> {
    match set.rtype {
        rtype::CNAME => set.target(),
        rtype::DNAME => name.rewritten(&set.owner, &set.target()?),
        _ => None,
    }
}

fn proofs(response: &Response, zone: &Dname) -> Vec<Arc<RrSet>> {
    response
        .authority
        .iter()
        .filter(|set| matches!(set.rtype, rtype::NSEC | rtype::NSEC3) && set.owner.is_beneath(zone))
        .take(PROOFS)
        .cloned()
        .collect()
}

fn referral(response: &Response, zone: &Dname, ns: &RrSet, servers_max: usize) -> Referral {
    let names = ns.data.iter().filter_map(|rdata| {
        let (name, _) = super::super::message::Name::read(rdata, 0)?;
        Some(Dname::new(name.as_wire()))
    });
    let servers = names
        .take(servers_max)
        .map(|name| NameServer {
            glue: glue(response, zone, &name),
            name,
        })
        .collect();
    let ds = response
        .authority
        .iter()
        .find(|set| set.rtype == rtype::DS && set.owner == ns.owner);
    Referral {
        zone: ns.owner.clone(),
        ttl: ns.ttl,
        servers,
        dropped: ns.data.len().saturating_sub(servers_max),
        ds: ds.cloned(),
        proof: proofs(response, zone),
    }
}

/// The addresses the reply gives for `name`, if `zone` may speak of it.
pub(super) fn glue(response: &Response, zone: &Dname, name: &Dname) -> Vec<IpAddr> {
    if !name.is_beneath(zone) {
        return Vec::new();
    }
    response
        .additional
        .iter()
        .filter(|set| set.owner == *name)
        .flat_map(|set| addresses(set))
        .take(GLUE)
        .collect()
}

/// The addresses in an A or AAAA set.
pub(super) fn addresses(set: &RrSet) -> impl Iterator<Item = IpAddr> {
    set.data.iter().filter_map(|rdata| match set.rtype {
        rtype::A => <[u8; 4]>::try_from(&**rdata).ok().map(IpAddr::from),
        rtype::AAAA => <[u8; 16]>::try_from(&**rdata).ok().map(IpAddr::from),
        _ => None,
    })
}

pub(super) const NOERROR: u8 = 0;
pub(super) const NXDOMAIN: u8 = 3;
pub(super) const REFUSED: u8 = 5;
const YXDOMAIN: u8 = 6;

/// Aliases followed within one reply.
const CHAIN: usize = 12;

/// Proofs kept of one reply: a closest encloser, two covers and as much again for a wildcard are enough.
const PROOFS: usize = 8;

/// Addresses kept of one server.
const GLUE: usize = 6;
