//! Iteration: from the closest known delegation down to the servers that have the answer.
//!
//! An [`Errand`] is everything done for one client query. It is an algorithm over [`Net`]: what is asked of whom follows from the
//! question, what is kept, the clock and the dice, and from nothing else, so tests run it against an Internet in memory. Names of
//! servers are looked up, keys are fetched by the same errand and on the same account; nothing in it starts a count anew.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::super::budget::Budget;
use super::super::partition::{Partition, Partitions};
use super::super::validate::Account;
use super::super::validate::anchor::Anchors;
use super::super::validate::chain::Trust;
use super::super::validate::ranges::Ranges;
use super::cut::{self, Cut};
use super::dname::Dname;
use super::fact::{Fact, NO_NAME, Source, Status, What};
use super::hints::Hints;
use super::judge::{self, Lame, NameServer, Nothing, Referral, Verdict};
use super::net::{Net, Silence};
use super::pool::Pool;
use super::response::{Response, RrSet};
use super::rtype;
use super::shared::{self, Learnt, Seat, Shared};
use super::store::{Perishable, Store};
use super::trouble::Trouble;
use super::walk::Walk;
use super::{Config, Limits};
use crate::time::Now;

/// What all errands share.
pub(in super::super) struct World<N> {
    pub(super) net: N,
    pub(in super::super) config: Config,
    pub(in super::super) facts: Store<Fact>,
    pub(in super::super) cuts: Store<Cut>,
    pub(in super::super) trusts: Store<Trust>,
    pub(in super::super) ranges: Ranges,
    pub(in super::super) limits: Limits,
    pub(super) shared: Shared,
    /// Which names upstreams are asked for.
    pub(super) routes: Arc<Partitions>,
    /// Where trust begins now.
    pub(super) anchors: ArcSwap<Anchors>,
    /// Whether it has been said that upstreams leave out what proves their answers.
    pub(in super::super) stripped: AtomicBool,
}

/// A question that is put again, since what these said of it does not validate.
pub(in super::super) struct Avoided {
    pub(in super::super) name: Dname,
    pub(in super::super) qtype: u16,
    pub(in super::super) sources: Vec<Source>,
}

/// The work for one client query.
pub(in super::super) struct Errand<'w, N> {
    pub(in super::super) world: &'w World<N>,
    pub(super) budget: &'w Budget,
    /// What validation may still spend.
    pub(in super::super) account: Account,
    /// Where trust begins, for all of it.
    pub(in super::super) anchors: Arc<Anchors>,
    /// Servers whose names are being looked up, outermost first.
    resolving: Vec<Dname>,
    /// Servers not looked up because of where this errand already is; another one might.
    skipped: u32,
    /// What is asked again, and of which servers not.
    pub(in super::super) avoided: Option<Avoided>,
    /// How often it may still be asked again.
    pub(in super::super) others: u32,
    /// Upstreams that have said what does not validate; they come last for all else.
    pub(in super::super) suspects: Vec<(Partition, u8)>,
    /// Among the errands that share look-ups.
    number: u64,
}

type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, Trouble>> + Send + 'a>>;

impl<'w, N: Net> Errand<'w, N> {
    pub(super) fn new(world: &'w World<N>, budget: &'w Budget) -> Self {
        Self {
            world,
            budget,
            account: Account::new(world.config.dnssec.as_ref()),
            anchors: world.anchors.load_full(),
            resolving: Vec::new(),
            skipped: 0,
            avoided: None,
            suspects: Vec::new(),
            others: (world.config.dnssec.as_ref()).map_or(0, |dnssec| dnssec.other_servers),
            number: world.shared.enrol(),
        }
    }

    pub(in super::super) fn now(&self) -> Now {
        self.world.net.now()
    }

    /// What is known of (`name`, `qtype`), from memory or from the servers. An alias is not followed.
    pub(in super::super) fn lookup<'a>(
        &'a mut self,
        name: &'a Dname,
        qtype: u16,
        depth: u8,
    ) -> Pending<'a, Arc<Fact>> {
        Box::pin(async move {
            if let Some(fact) = self.world.known(name, qtype, self.now()) {
                return Ok(fact);
            }
            let partition = self.world.partition(name, qtype);
            let same = |zone: &[u8]| self.world.routes.find(zone) == partition;
            if let Some(fact) = self.world.ranges.deny(name, qtype, self.now(), same) {
                self.world.limits.denied.inc();
                return Ok(fact);
            }
            if let Some(fact) = self.world.expand(name, qtype, self.now()) {
                self.world.limits.denied.inc();
                return Ok(fact);
            }
            self.iterate(name, qtype, depth).await
        })
    }

    async fn iterate(&mut self, name: &Dname, qtype: u16, depth: u8) -> Result<Arc<Fact>, Trouble> {
        if depth > self.world.config.depth {
            self.world.limits.depth.inc();
            return Err(Trouble::Depth);
        }
        // The parent has the DS.
        let start = match (qtype, name.parent()) {
            (rtype::DS, Some(parent)) => parent,
            _ => name.clone(),
        };
        let upstreams = self.world.upstreams(name, qtype);
        let minimise = upstreams.is_none() && self.world.config.qname_minimisation;
        let mut cut = match upstreams {
            Some(upstreams) => upstreams,
            None => self.closest(&start, depth).await?,
        };
        let mut walk = Walk::new(&cut, minimise);
        // Each turn goes down a label or ends.
        loop {
            let (asked, atype) = walk.next(name, qtype);
            let whole = asked == *name && atype == qtype;
            if !whole {
                match self.world.known(&asked, atype, self.now()).as_deref() {
                    Some(fact) if walk.passes(fact, &asked) => continue,
                    _ => {}
                }
            }
            let learnt = if whole && cut.upstreams.is_none() && walk.may_skip_a_cut(name) {
                self.follow(&cut, name, qtype, depth).await?
            } else {
                self.learn(&cut, &asked, atype, depth).await?
            };
            match learnt {
                Learnt::Cut(below) => {
                    cut = below;
                    walk = Walk::new(&cut, minimise);
                }
                Learnt::Fact(fact) if whole => return Ok(fact),
                Learnt::Fact(fact) => walk.hears(&fact, &asked),
            }
        }
    }

    /// What the servers of `cut` say of (`name`, `qtype`), from the errand that asks them already if there is one.
    async fn learn(
        &mut self,
        cut: &Cut,
        name: &Dname,
        qtype: u16,
        depth: u8,
    ) -> Result<Learnt, Trouble> {
        let world = self.world;
        // Others may be asking a server that this errand is to avoid.
        if !self.avoided(name, qtype).is_empty() {
            return self.ask_and_keep(cut, name, qtype, depth).await;
        }
        let key = shared::key(&cut.zone, name, qtype);
        loop {
            match world.shared.board(self.number, &key) {
                Seat::Lead(lead) => {
                    let skipped = self.skipped;
                    let learnt = self.ask_and_keep(cut, name, qtype, depth).await;
                    // What is this errand's own (its account, the way it came) says nothing to others.
                    match &learnt {
                        Err(Trouble::Packets | Trouble::Time) => {}
                        Err(_) if self.skipped != skipped => {}
                        _ => lead.land(&learnt),
                    }
                    return learnt;
                }
                Seat::Wait(wait) => {
                    let now = self.now();
                    let until = now.plus(self.budget.remaining(now));
                    match world.net.wait(wait.landed(), until).await {
                        Some(Some(learnt)) => return learnt,
                        Some(None) => {}
                        None => {
                            world.limits.time.inc();
                            return Err(Trouble::Time);
                        }
                    }
                }
                Seat::Alone => return self.ask_and_keep(cut, name, qtype, depth).await,
                Seat::Crowded => {
                    world.limits.waiters.inc();
                    return Err(Trouble::Busy(cut.zone.clone()));
                }
            }
        }
    }

    /// Shows a name whole that may lie beneath a delegation not known yet. Of all such names beneath one label the first goes ahead; the
    /// others wait a moment for the delegation it may find.
    async fn follow(
        &mut self,
        cut: &Cut,
        name: &Dname,
        qtype: u16,
        depth: u8,
    ) -> Result<Learnt, Trouble> {
        let world = self.world;
        let way = name.suffix(cut.zone.labels() + 1);
        let key = shared::key(&cut.zone, &way, WAY);
        match world.shared.board(self.number, &key) {
            Seat::Lead(lead) => {
                let learnt = self.learn(cut, name, qtype, depth).await;
                lead.land(&learnt);
                learnt
            }
            Seat::Wait(wait) => {
                let now = self.now();
                let until = now.plus(self.budget.remaining(now).min(AHEAD));
                match world.net.wait(wait.landed(), until).await {
                    Some(Some(Ok(Learnt::Cut(below)))) if name.is_beneath(&below.zone) => {
                        Ok(Learnt::Cut(below))
                    }
                    _ => self.learn(cut, name, qtype, depth).await,
                }
            }
            Seat::Alone | Seat::Crowded => self.learn(cut, name, qtype, depth).await,
        }
    }

    /// Who is not to be asked for (`name`, `qtype`).
    pub(super) fn avoided(&self, name: &Dname, qtype: u16) -> &[Source] {
        match &self.avoided {
            Some(avoided) if avoided.name == *name && avoided.qtype == qtype => &avoided.sources,
            _ => &[],
        }
    }

    /// Asks the servers of `cut` and keeps what they say.
    async fn ask_and_keep(
        &mut self,
        cut: &Cut,
        name: &Dname,
        qtype: u16,
        depth: u8,
    ) -> Result<Learnt, Trouble> {
        let heard = self.ask_zone(cut, name, qtype, depth).await?;
        Ok(match heard.verdict {
            Verdict::Referral(referral) => Learnt::Cut(self.keep_cut(cut, referral, heard.from)),
            Verdict::Answer { sets, proof } => {
                let mut first = None;
                let partition = self.world.partition(name, qtype);
                for set in sets {
                    // Where an alias leads into another forward zone, others are to be asked.
                    let elsewhere = self.world.partition(&set.owner, set.rtype) != partition;
                    if elsewhere && first.is_some() {
                        break;
                    }
                    let fact = self.keep_set(cut, set, &proof, heard.from);
                    first.get_or_insert(fact);
                }
                Learnt::Fact(first.expect("an answer has at least one set"))
            }
            Verdict::Nothing(nothing) => {
                Learnt::Fact(self.keep_nothing(cut, name, qtype, nothing, heard.from))
            }
            Verdict::Lame(_) => return Err(Trouble::Unreachable(cut.zone.clone())),
        })
    }

    /// The delegation to begin with.
    async fn closest(&mut self, name: &Dname, depth: u8) -> Result<Arc<Cut>, Trouble> {
        if let Some(cut) = cut::closest(&self.world.cuts, name, self.now()) {
            return Ok(cut);
        }
        // RFC 8109: the hints are asked who the servers are.
        let now = self.now();
        let Hints(servers) = &self.world.config.hints;
        let hints = Arc::new(Cut {
            zone: Dname::root(),
            servers: servers.clone(),
            upstreams: None,
            since_ns: now.mono_ns,
            until_ns: now.plus(UNPRIMED).mono_ns,
        });
        let key = shared::key(&hints.zone, &hints.zone, WAY);
        match self.world.shared.board(self.number, &key) {
            Seat::Lead(lead) => {
                let cut = self.prime(hints, depth).await?;
                lead.land(&Ok(Learnt::Cut(Arc::clone(&cut))));
                Ok(cut)
            }
            Seat::Wait(wait) => {
                let until = now.plus(self.budget.remaining(now));
                match self.world.net.wait(wait.landed(), until).await {
                    Some(Some(Ok(Learnt::Cut(cut)))) => Ok(cut),
                    _ => self.prime(hints, depth).await,
                }
            }
            Seat::Alone | Seat::Crowded => self.prime(hints, depth).await,
        }
    }

    async fn prime(&mut self, hints: Arc<Cut>, depth: u8) -> Result<Arc<Cut>, Trouble> {
        let primed = match self.ask_zone(&hints, &hints.zone, rtype::NS, depth).await {
            Ok(heard) => root(&heard, &hints, self.world, self.now()),
            Err(error @ (Trouble::Packets | Trouble::Time)) => return Err(error),
            Err(_) => None,
        };
        let cut = primed.map_or(hints, Arc::new);
        let now = self.now();
        self.world
            .cuts
            .keep(&cut.zone, rtype::NS, Arc::clone(&cut), now);
        Ok(cut)
    }

    /// Puts the question to the servers of `cut` until one gives a usable answer.
    async fn ask_zone(
        &mut self,
        cut: &Cut,
        name: &Dname,
        qtype: u16,
        depth: u8,
    ) -> Result<Heard, Trouble> {
        if let Some(partition) = cut.upstreams {
            return self.ask_upstreams(cut, partition, name, qtype).await;
        }
        let world = self.world;
        let config = &world.config;
        let (avoided, dice) = (self.avoided(name, qtype), world.net.dice());
        let mut pool = Pool::new(cut, avoided, config, &world.facts, dice, self.now());
        // Whether somebody has replied to no avail.
        let mut useless = false;
        let mut followed = 0;
        loop {
            let now = self.now();
            let left = self.budget.remaining(now);
            if left.is_zero() {
                world.limits.time.inc();
                return Err(Trouble::Time);
            }
            let Some((address, patience)) = pool.pick(&world.net, now) else {
                match pool.nameless.pop() {
                    Some(server) if followed < config.glueless => {
                        followed += 1;
                        let found = self.addresses(cut, &server, depth).await?;
                        pool.add(found);
                        continue;
                    }
                    Some(_) => {
                        world.limits.glueless.inc();
                        // Those whose address is known get their other turns.
                        pool.nameless.clear();
                        continue;
                    }
                    None => {}
                }
                let zone = cut.zone.clone();
                return Err(if useless {
                    Trouble::Useless(zone)
                } else {
                    Trouble::Unreachable(zone)
                });
            };
            let until = now.plus(patience.min(left));
            let reply = world
                .net
                .ask(address, &cut.zone, (name, qtype), self.budget, until)
                .await;
            match reply {
                Ok(message) => {
                    let Some(response) = Response::read(&message, name, qtype) else {
                        useless = true;
                        pool.exclude(address);
                        continue;
                    };
                    let verdict =
                        judge::judge(&response, &cut.zone, name, qtype, config.name_servers);
                    if let Verdict::Lame(why) = verdict {
                        useless |= why != Lame::Rcode(judge::REFUSED);
                        tracing::debug!(zone = %cut.zone, server = %address, ?why, "lame");
                        pool.exclude(address);
                        continue;
                    }
                    return Ok(Heard {
                        verdict,
                        response,
                        from: Some(Source::Server(address)),
                    });
                }
                Err(Silence::Silent) => {}
                Err(Silence::Broken) => useless = true,
                Err(Silence::Spent) => return Err(Trouble::Packets),
                Err(Silence::Busy) => return Err(Trouble::Busy(cut.zone.clone())),
            }
        }
    }

    /// The addresses of a server that came without glue. What goes wrong with one server is no reason to give up the others.
    async fn addresses(
        &mut self,
        cut: &Cut,
        server: &Dname,
        depth: u8,
    ) -> Result<Vec<IpAddr>, Trouble> {
        let mut found = Vec::new();
        // It would have to be asked for at itself.
        if server.is_beneath(&cut.zone) {
            return Ok(found);
        }
        if self.resolving.contains(server) {
            self.skipped += 1;
            return Ok(found);
        }
        self.resolving.push(server.clone());
        for rtype in self.world.config.address_types() {
            match self.lookup(server, rtype, depth + 1).await {
                Ok(fact) => match &fact.what {
                    What::Set { set, .. } => found.extend(judge::addresses(set)),
                    What::Nothing(Nothing { nxdomain: true, .. }) => break,
                    What::Nothing(_) => {}
                },
                Err(error @ (Trouble::Packets | Trouble::Time)) => return Err(error),
                Err(error) => {
                    self.skipped += u32::from(error == Trouble::Depth);
                    break;
                }
            }
            if !found.is_empty() {
                break;
            }
        }
        self.resolving.pop();
        found.retain(|&address| self.world.config.may_ask(address));
        Ok(found)
    }

    /// Keeps what a referral says; returns the new cut. It ends no later than the cut above it.
    fn keep_cut(&self, above: &Cut, referral: Referral, from: Option<Source>) -> Arc<Cut> {
        let world = self.world;
        let now = self.now();
        if referral.dropped > 0 {
            world.limits.name_servers.inc();
        }
        let until = |ttl: u32| {
            let life = Duration::from_secs(ttl.into()).min(world.config.max_ttl);
            now.plus(life).mono_ns.min(above.bound_ns())
        };
        let cut = Arc::new(Cut {
            zone: referral.zone,
            servers: referral.servers,
            upstreams: None,
            since_ns: now.mono_ns,
            until_ns: until(referral.ttl),
        });
        let what = match referral.ds {
            Some(set) => Some((
                set.ttl,
                What::Set {
                    set,
                    proof: Vec::new(),
                },
            )),
            None => referral.proof.iter().map(|set| set.ttl).min().map(|ttl| {
                let nothing = Nothing {
                    nxdomain: false,
                    soa: None,
                    proof: referral.proof.clone(),
                };
                (ttl, What::Nothing(nothing))
            }),
        };
        if let Some((ttl, what)) = what {
            let fact = Fact {
                what,
                status: Status::Unchecked,
                from,
                until_ns: until(ttl.min(referral.ttl)),
            };
            world.facts.keep(&cut.zone, rtype::DS, Arc::new(fact), now);
        }
        world.cuts.keep(&cut.zone, rtype::NS, Arc::clone(&cut), now);
        cut
    }

    fn keep_set(
        &self,
        cut: &Cut,
        set: Arc<RrSet>,
        proof: &[Arc<RrSet>],
        from: Option<Source>,
    ) -> Arc<Fact> {
        let life = Duration::from_secs(set.ttl.into()).min(self.world.config.max_ttl);
        let owner = set.owner.clone();
        let rtype = set.rtype;
        let what = What::Set {
            set,
            proof: proof.to_vec(),
        };
        self.keep(cut, &owner, rtype, what, life, from)
    }

    fn keep_nothing(
        &self,
        cut: &Cut,
        name: &Dname,
        qtype: u16,
        nothing: Nothing,
        from: Option<Source>,
    ) -> Arc<Fact> {
        let config = &self.world.config;
        let ttl = nothing.soa.as_deref().map_or(NO_SOA, negative_ttl);
        let life = Duration::from_secs(ttl.into()).min(config.negative_max_ttl);
        let rtype = match qtype {
            rtype::DS => qtype,
            _ if nothing.nxdomain => NO_NAME,
            _ => qtype,
        };
        self.keep(cut, name, rtype, What::Nothing(nothing), life, from)
    }

    fn keep(
        &self,
        cut: &Cut,
        name: &Dname,
        rtype: u16,
        what: What,
        life: Duration,
        from: Option<Source>,
    ) -> Arc<Fact> {
        let now = self.now();
        let fact = Arc::new(Fact {
            what,
            status: Status::Unchecked,
            from,
            until_ns: now.plus(life).mono_ns.min(cut.bound_ns()),
        });
        if fact.weight() <= FACT_MAX {
            self.world.facts.keep(name, rtype, Arc::clone(&fact), now);
        }
        fact
    }
}

impl<N> World<N> {
    /// What is kept that answers (`name`, `qtype`): the very set, an alias on the way, or that there is nothing.
    pub(super) fn known(&self, name: &Dname, qtype: u16, now: Now) -> Option<Arc<Fact>> {
        let find = |name: &[u8], rtype| self.facts.find(name, rtype, now);
        let partition = self.partition(name, qtype);
        // Others speak for what lies in another partition.
        let same = |name: &[u8]| self.routes.find(name) == partition;
        find(name, qtype)
            .or_else(|| find(name, rtype::CNAME))
            // Of the DS the parent speaks: to look it up is how a denial is proven that came without proof.
            .or_else(|| {
                find(name, NO_NAME).filter(|fact| {
                    same(name) && (qtype != rtype::DS || fact.status == Status::Secure)
                })
            })
            .or_else(|| {
                let above = name.ancestors().skip(1);
                above.take_while(|above| same(above)).find_map(|above| {
                    find(above, rtype::DNAME)
                        // RFC 8020: nothing beneath what does not exist. Believed where it is proven only: some servers
                        // deny names that have others beneath them.
                        .or_else(|| find(above, NO_NAME).filter(|f| f.status == Status::Secure))
                })
            })
    }
}

impl<N> World<N> {
    /// What a wildcard known to be there says of `name`, which is proven not to be there itself (RFC 8198 section 5.3).
    fn expand(&self, name: &Dname, qtype: u16, now: Now) -> Option<Arc<Fact>> {
        let partition = self.partition(name, qtype);
        let same = |zone: &[u8]| self.routes.find(zone) == partition;
        let absent = self.ranges.absent(name, qtype, now, same)?;
        let fact = [qtype, rtype::CNAME].iter().find_map(|&rtype| {
            let fact = self.facts.find(&absent.wildcard, rtype, now);
            fact.filter(|fact| fact.status == Status::Secure)
        })?;
        let What::Set { set, .. } = &fact.what else {
            return None;
        };
        let set = RrSet {
            owner: name.clone(),
            ..RrSet::clone(set)
        };
        Some(Arc::new(Fact {
            what: What::Set {
                set: Arc::new(set),
                proof: vec![absent.nsec],
            },
            status: Status::Secure,
            from: None,
            until_ns: fact.until_ns.min(absent.until_ns),
        }))
    }
}

/// What was heard.
pub(super) struct Heard {
    pub(super) verdict: Verdict,
    pub(super) response: Response,
    pub(super) from: Option<Source>,
}

/// The root's delegation, from a reply to the priming query.
fn root<N>(heard: &Heard, hints: &Cut, world: &World<N>, now: Now) -> Option<Cut> {
    let Verdict::Answer { sets, .. } = &heard.verdict else {
        return None;
    };
    let ns = sets.first().filter(|set| set.rtype == rtype::NS)?;
    let servers: Vec<NameServer> = ns
        .data
        .iter()
        .filter_map(|rdata| super::super::message::Name::read(rdata, 0))
        .map(|(name, _)| Dname::new(name.as_wire()))
        .take(world.config.name_servers)
        .map(|name| NameServer {
            glue: judge::glue(&heard.response, &hints.zone, &name),
            name,
        })
        .collect();
    // Without addresses they would have to be asked for at themselves.
    if servers.iter().all(|server| server.glue.is_empty()) {
        return None;
    }
    let life =
        Duration::from_secs(ns.ttl.into()).clamp(UNPRIMED, world.config.max_ttl.max(UNPRIMED));
    Some(Cut {
        zone: Dname::root(),
        servers,
        upstreams: None,
        since_ns: now.mono_ns,
        until_ns: now.plus(life).mono_ns,
    })
}

/// The lesser of a SOA's TTL and its MINIMUM (RFC 2308 section 5).
pub(super) fn negative_ttl(soa: &RrSet) -> u32 {
    let minimum = soa
        .data
        .first()
        .and_then(|rdata| rdata.last_chunk::<4>())
        .map_or(0, |last| u32::from_be_bytes(*last));
    soa.ttl.min(minimum)
}

/// RFC 2308 section 5: without a SOA not to be kept; a few seconds keep a hot name off the servers.
const NO_SOA: u32 = 5;

/// How long the hints are used as they are when the root does not say who its servers are.
const UNPRIMED: Duration = Duration::from_secs(30);

/// The type under which a way is shared that several questions have in common; no record has it.
const WAY: u16 = 0;

/// How long a question waits for one that goes the same way ahead of it.
const AHEAD: Duration = Duration::from_millis(400);

/// Larger facts are used but not kept, bytes.
const FACT_MAX: usize = 64 << 10;
