//! What is known of one name and type: an RRset, or that there is none; and how far it has been proven.

use std::net::IpAddr;
use std::sync::Arc;

use super::super::partition::Partition;
use super::dname::Dname;
use super::judge::{Nothing, target};
use super::response::RrSet;
use super::rtype;
use super::store::Perishable;
use crate::time::Now;

/// One fact, as a zone's servers told it.
#[derive(Clone, Debug)]
pub(in super::super) struct Fact {
    pub(in super::super) what: What,
    pub(in super::super) status: Status,
    /// Who told it; none: it is made from proofs.
    pub(in super::super) from: Option<Source>,
    /// Until when on the monotonic clock; never beyond the delegation of the zone that told it.
    pub(in super::super) until_ns: u64,
}

/// Who told something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Source {
    /// A server of the zone.
    Server(IpAddr),
    /// An upstream, by its place among those of its partition.
    Upstream(Partition, u8),
}

/// What a fact says.
#[derive(Clone, Debug)]
pub(in super::super) enum What {
    /// Data, or an alias.
    Set {
        set: Arc<RrSet>,
        /// NSEC or NSEC3 sets that came with it.
        proof: Vec<Arc<RrSet>>,
    },
    /// No such name, or no such type.
    Nothing(Nothing),
}

/// How far a fact has been proven (RFC 4035 section 4.3; what is bogus is not kept).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Status {
    /// Nobody has looked.
    Unchecked,
    /// Signed, up to a trust anchor.
    Secure,
    /// It is proven that it need not be signed.
    Insecure,
}

impl Fact {
    /// Where the alias leads from `name`; `None`: it is none, or none to follow for `qtype`.
    pub(in super::super) fn alias(&self, name: &Dname, qtype: u16) -> Option<Dname> {
        match &self.what {
            What::Set { set, .. } if set.rtype != qtype => target(set, name),
            _ => None,
        }
    }

    /// Whether it denies something without a SOA to show for it.
    pub(super) fn lacks_soa(&self) -> bool {
        matches!(&self.what, What::Nothing(Nothing { soa: None, .. }))
    }

    /// Seconds it still holds. One that has begun counts, as in RFC 1035's count of TTLs: what came a moment ago with a TTL of 1
    /// holds for its second, and is kept.
    pub(in super::super) fn ttl(&self, now: Now) -> u32 {
        let left_ns = self.until_ns.saturating_sub(now.mono_ns);
        u32::try_from(left_ns.div_ceil(NANOS)).unwrap_or(u32::MAX)
    }

    /// The type it is kept under: a name that does not exist has none of any. But of the DS the parent speaks, whose upstreams may not be
    /// those of the name.
    pub(in super::super) fn kept_as(&self, qtype: u16) -> u16 {
        match &self.what {
            What::Set { set, .. } => set.rtype,
            What::Nothing(Nothing { nxdomain: true, .. }) if qtype != rtype::DS => NO_NAME,
            What::Nothing(_) => qtype,
        }
    }

    /// The name it is kept under; that of a DNAME stands above the one asked.
    pub(in super::super) fn kept_at<'a>(&'a self, name: &'a Dname) -> &'a Dname {
        match &self.what {
            What::Set { set, .. } if set.rtype == rtype::DNAME => &set.owner,
            _ => name,
        }
    }
}

impl Perishable for Fact {
    fn until_ns(&self) -> u64 {
        self.until_ns
    }

    fn weight(&self) -> usize {
        let sets = |sets: &[Arc<RrSet>]| sets.iter().map(|set| set.weight()).sum::<usize>();
        size_of::<Self>()
            + match &self.what {
                What::Set { set, proof } => set.weight() + sets(proof),
                What::Nothing(nothing) => {
                    nothing.soa.as_ref().map_or(0, |soa| soa.weight()) + sets(&nothing.proof)
                }
            }
    }
}

/// The type under which it is kept that a name does not exist; no record has it.
pub(in super::super) const NO_NAME: u16 = 0;

pub(in super::super) const NANOS: u64 = 1_000_000_000;
