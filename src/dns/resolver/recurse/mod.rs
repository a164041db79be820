//! Recursion: from the root down, on one budget.
//!
//! From ground to roof: `dname`, `rtype`, `records`, `hints`, `response` (a reply, read), `judge` (what of it may be believed),
//! `trouble`; `store`, `fact` and `cut` (what is kept), `shared` (what is being looked up); `net` (what is needed of the world),
//! `walk` (how much of a name is shown), `pool` (who is asked next), `iterate` (the algorithm), `relay` (upstreams asked instead), `answer` (the message); `driver` (sockets); then the handle, [`Recursor`]. Up to `answer` nothing here
//! touches a socket or reads a clock.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::IntCounter;

use self::answer::Link;
use self::dname::Dname;
use self::hints::Hints;
use self::iterate::{Errand, World};
use self::net::Net;
use self::shared::Shared;
use self::store::Store;
use self::trouble::Trouble;
use super::budget::Budget;
use super::key::Parts;
use super::partition::{Partition, Partitions};
use super::upstream::Families;
use super::validate;
use super::validate::anchor::Anchors;
use super::validate::ranges::Ranges;
use super::validate::roll::Look;
use crate::net::Network;
use crate::time::Now;

pub(super) mod dname;

pub(super) mod rtype;

pub mod records;

pub mod hints;

pub(super) mod response;

pub(super) mod judge;

pub(super) mod trouble;

pub(super) mod store;

pub(super) mod fact;

pub(super) mod cut;

pub(super) mod shared;

pub(super) mod net;

mod walk;

mod pool;

pub(super) mod iterate;

mod relay;

mod answer;

pub(super) mod driver;

#[cfg(test)]
pub(super) mod tests;

/// Settings of recursion (`mode = "recursive"`), and of validating what upstreams say.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to begin.
    pub hints: Hints,
    /// Whether a zone's servers are shown no more of a name than they need (RFC 9156).
    pub qname_minimisation: bool,
    /// What servers are asked over.
    pub families: Families,
    /// Servers never asked: what stands in somebody's zone must not send packets to our own machine.
    pub deny_servers: Vec<Network>,
    /// Where servers listen: 53, but for tests.
    pub port: u16,
    /// Bytes of what is kept beside answers: RRsets, delegations, keys.
    pub size: u64,
    /// How deep the names of name servers may nest.
    pub depth: u8,
    /// Client queries that may wait for one look-up.
    pub waiters: usize,
    /// Aliases followed for one question.
    pub aliases: usize,
    /// Servers without glue whose names are looked up for one question to a zone.
    pub glueless: usize,
    /// Servers kept of a referral.
    pub name_servers: usize,
    /// Whether names beneath no forward zone are resolved from the root; else upstreams are asked for them, too.
    pub from_root: bool,
    /// Whether what upstreams say is asked for here, to validate it.
    pub forwards: bool,
    /// Validation; none: answers are as they come.
    pub dnssec: Option<validate::Config>,
    /// Ceiling of TTLs.
    pub max_ttl: Duration,
    /// Ceiling of negative TTLs.
    pub negative_max_ttl: Duration,
}

impl Config {
    fn may_ask(&self, address: IpAddr) -> bool {
        let family = match address {
            IpAddr::V4(_) => self.families.ip4,
            IpAddr::V6(_) => self.families.ip6,
        };
        family
            && !self
                .deny_servers
                .iter()
                .any(|network| network.contains(address))
    }

    /// The types of the addresses that may be asked.
    fn address_types(&self) -> impl Iterator<Item = u16> + use<> {
        let Families { ip4, ip6 } = self.families;
        let ip4 = ip4.then_some(rtype::A);
        ip4.into_iter().chain(ip6.then_some(rtype::AAAA))
    }
}

/// One counter per bound that recursion has of its own.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub(super) time: IntCounter,
    pub(super) depth: IntCounter,
    pub(super) aliases: IntCounter,
    pub(super) waiters: IntCounter,
    pub(super) glueless: IntCounter,
    pub(super) name_servers: IntCounter,
    pub(super) signatures: IntCounter,
    pub(super) signatures_per_rrset: IntCounter,
    pub(super) keys_per_tag: IntCounter,
    pub(super) ds_records: IntCounter,
    pub(super) nsec3_iterations: IntCounter,
    pub(super) nsec3_hashes: IntCounter,
    pub(super) other_servers: IntCounter,
    /// Not a bound: answers made from NSEC ranges.
    pub(super) denied: IntCounter,
}

/// Resolves by asking the servers of the zones themselves.
#[derive(Debug)]
pub(super) struct Recursor<N = driver::Driver> {
    world: World<N>,
}

impl<N: Net> Recursor<N> {
    pub(super) fn new(
        net: N,
        config: Config,
        routes: Arc<Partitions>,
        metrics: &crate::metrics::Metrics,
    ) -> Self {
        let limits = &metrics.resolver.limits;
        let limits = Limits {
            time: limits.time.clone(),
            depth: limits.depth.clone(),
            aliases: limits.aliases.clone(),
            waiters: limits.waiters.clone(),
            glueless: limits.glueless.clone(),
            name_servers: limits.name_servers.clone(),
            signatures: limits.signatures.clone(),
            signatures_per_rrset: limits.signatures_per_rrset.clone(),
            keys_per_tag: limits.keys_per_tag.clone(),
            ds_records: limits.ds_records.clone(),
            nsec3_iterations: limits.nsec3_iterations.clone(),
            nsec3_hashes: limits.nsec3_hashes.clone(),
            other_servers: limits.other_servers.clone(),
            denied: metrics.resolver.denied.clone(),
        };
        let anchors = config.dnssec.as_ref().map(|dnssec| dnssec.anchors.clone());
        let anchors = anchors.unwrap_or_default();
        Self {
            world: World {
                net,
                facts: Store::new(config.size / 4 * 3),
                cuts: Store::new(config.size / 8),
                trusts: Store::new(config.size / 8),
                ranges: Ranges::new(config.dnssec.as_ref().map_or(0, |dnssec| dnssec.ranges)),
                limits,
                shared: Shared::new(config.waiters),
                routes,
                anchors: ArcSwap::from_pointee(anchors),
                stripped: AtomicBool::new(false),
                config,
            },
        }
    }

    /// Whether questions of `partition` are resolved here.
    pub(super) fn takes(&self, partition: Partition) -> bool {
        let config = &self.world.config;
        config.forwards || partition == Partition(0) && config.from_root
    }

    /// Resolves the question, on `budget`, and validates the answer unless the client has set CD; returns a message as an upstream would
    /// give it. Where an alias leads into another partition it ends.
    pub(super) async fn fetch(
        &self,
        question: Parts<'_>,
        budget: &Budget,
    ) -> Result<Fetched, Trouble> {
        let name = Dname::new(question.name);
        let qtype = question.qtype;
        let mut errand = Errand::new(&self.world, budget);
        let mut links: Vec<Link> = Vec::new();
        let mut at = name.clone();
        let onward = loop {
            let mut fact = errand.lookup(&at, qtype, 0).await?;
            if fact.lacks_soa() && qtype == rtype::DS {
                // From a referral, where it serves to validate; a client is told who says so.
                self.world.facts.drop_one(&at, qtype);
                fact = errand.lookup(&at, qtype, 0).await?;
            }
            if !question.checking_disabled {
                fact = errand.check(&at, qtype, fact, 0).await?;
            }
            let next = fact.alias(&at, qtype);
            links.push(Link { name: at, fact });
            let Some(next) = next else { break None };
            if links.len() > self.world.config.aliases || links.iter().any(|link| link.name == next)
            {
                self.world.limits.aliases.inc();
                return Err(Trouble::Aliases);
            }
            if self.world.routes.find(&next) != question.partition {
                break Some(next);
            }
            at = next;
        };
        let now = errand.now();
        let ttls = links.iter().map(|link| link.fact.ttl(now));
        Ok(Fetched {
            onward: onward.map(|target| (Box::from(&*target), ttls.min().unwrap_or(0))),
            message: answer::write(&links, &name, qtype, question.dnssec_ok, now),
        })
    }

    /// What the zone of a trust anchor shows now, on `budget`.
    pub(super) async fn look(&self, zone: &Dname, budget: &Budget) -> Result<Look, Trouble> {
        Errand::new(&self.world, budget).look(zone).await
    }

    /// The clock it goes by.
    pub(super) fn now(&self) -> Now {
        self.world.net.now()
    }

    /// Believes the anchors that `of` makes of those configured, from the next client query on.
    pub(super) fn believe(&self, of: impl FnOnce(&Anchors) -> Anchors) {
        if let Some(dnssec) = &self.world.config.dnssec {
            self.world.anchors.store(Arc::new(of(&dnssec.anchors)));
            self.world.trusts.flush(&|_, _| true);
        }
    }

    /// Forgets everything whose name and type `matches`.
    pub(super) fn flush(&self, matches: &dyn Fn(&[u8], u16) -> bool) -> usize {
        self.world.ranges.clear();
        self.world.shared.forget();
        let World {
            facts,
            cuts,
            trusts,
            ..
        } = &self.world;
        facts.flush(matches) + cuts.flush(matches) + trusts.flush(matches)
    }

    /// Bytes kept.
    pub(super) fn settle(&self) -> u64 {
        self.world.facts.settle() + self.world.cuts.settle() + self.world.trusts.settle()
    }
}

/// What came of a question.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) message: Vec<u8>,
    /// The name in another partition that the aliases lead to, and how long they do, seconds.
    pub(super) onward: Option<(Box<[u8]>, u32)>,
}

impl<N> std::fmt::Debug for World<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
