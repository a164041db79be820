//! The caching resolver: it forwards, or resolves from the root and validates.
//!
//! From ground to roof: [`budget`] (one per client query), `form`, `message` and `reply` (what an upstream said, checked),
//! `partition` and `key` (which questions are one), `entry`, `table` and [`cache`] (wire answers in bounded memory),
//! [`near`] (a worker's copies of the hottest), [`policy`] (what is answered here, or not as asked), `failure` (what not to
//! ask again), `cuts` (names known not to exist), `flight` (one fetch for equal questions), `dump` (the cache as bytes),
//! [`upstream`] (asking one server), `forward` (which of several), [`recurse`] and [`validate`] (from the root, DNSSEC), `fetch`
//! (one fetch, to its end), `warm` (what is fetched before it is asked for), `saved` (the cache in a file), `rolling` (trust anchors, over time), then the driver,
//! [`Resolver`]. Up to `dump` nothing here reads a clock or touches a socket.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};

use self::budget::Budget;
use self::cache::{Cache, Partition};
use self::cuts::Cuts;
use self::entry::{Age, Entry};
use self::failure::{Failures, Memory};
use self::flight::{Failed, Flights};
use self::forward::Upstreams;
use self::key::Key;
use self::partition::Partitions;
use self::policy::{ListStatus, Policy};
use self::recurse::Recursor;
use self::recurse::driver::Driver;
use self::rolling::Rolling;
use self::upstream::{Exchanger, Target};
use super::Outcome;
use super::wire::{self, Ede, Query, Rcode};
use crate::metrics::Metrics;
use crate::metrics::resolver::CacheRequest;
use crate::net::Network;
use crate::time::Now;

pub mod budget;

mod form;

mod message;

mod reply;

mod partition;

mod key;

mod entry;

mod table;

pub mod cache;

pub mod near;

mod wanted;

mod failure;

mod cuts;

mod flight;

mod names;

mod dump;

pub mod policy;

pub mod upstream;

mod forward;

pub mod recurse;

pub mod validate;

mod fetch;

mod warm;

mod saved;

mod rolling;

pub use self::forward::{UPSTREAMS, UpstreamStatus};
pub use self::rolling::AnchorStatus;
pub use self::saved::{Loaded, SaveError};
pub use self::warm::WarmName;

#[cfg(test)]
mod testing;

/// Settings of the resolver.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who may recurse.
    pub allow: Vec<Network>,
    /// Upstreams for everything without a forward zone of its own (`mode = "forward"`).
    pub upstreams: Vec<Target>,
    /// Settings of recursion (`mode = "recursive"`; then there are no upstreams but those of forward zones) and of validating what is forwarded.
    pub recursion: Option<recurse::Config>,
    /// Forward zones (lower case, final dot) with their upstreams; each has its own cache partition.
    pub forward: Vec<ForwardZone>,
    /// The cache.
    pub cache: CacheConfig,
    /// Upstream packets per client query.
    pub packets: u32,
    /// Wall clock per client query, until the answer is with the client.
    pub time: Duration,
    /// Clients that may wait for one fetch.
    pub waiters: usize,
    /// Fetches in flight to all upstreams.
    pub fetches: usize,
    /// Bounds towards upstreams.
    pub upstream: upstream::Config,
}

/// Names beneath `zone` go to `upstreams`.
#[derive(Clone, Debug)]
pub struct ForwardZone {
    /// Apex, lower case, final dot.
    pub zone: String,
    /// Where to ask.
    pub upstreams: Vec<Target>,
}

/// Settings of the resolver cache.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// Bytes, keys and bookkeeping included. A sixteenth of it, at most 64 MiB, is for the UDP workers' own copies.
    pub size: u64,
    /// Floor of positive TTLs.
    pub min_ttl: Duration,
    /// Ceiling of positive TTLs.
    pub max_ttl: Duration,
    /// Ceiling of negative TTLs.
    pub negative_max_ttl: Duration,
    /// How long an expired answer is kept for RFC 8767; zero: off.
    pub stale: Duration,
    /// Wait for a fetch until a stale answer is with the client.
    pub stale_wait: Duration,
    /// TTL of a stale answer.
    pub stale_ttl: Duration,
    /// First and longest life of a remembered failure (RFC 9520).
    pub failure_ttl: (Duration, Duration),
    /// Largest answer kept, bytes.
    pub entry: usize,
    /// Most records of one type at one name in an answer that is kept.
    pub records: usize,
    /// Aliases followed in one reply of an upstream, and times they are followed from one forward zone to the next; what is kept
    /// of an answer ends there.
    pub aliases: usize,
    /// Whether an answer that is asked for when a tenth of its life is left is fetched anew before it expires.
    pub prefetch: bool,
    /// Refreshes under way at once, of answers in use and of names kept warm each.
    pub refreshes: usize,
    /// Answers in use that may wait to be refreshed.
    pub refreshes_waiting: usize,
    /// Names whose answers are always there.
    pub keep_warm: Vec<WarmName>,
    /// Whether a name that does not exist means that none beneath it does (RFC 8020).
    pub nxdomain_cut: bool,
    /// Where the cache is kept over a restart, if it is, and how often it is written between.
    pub file: Option<PathBuf>,
    /// See `file`.
    pub save: Duration,
}

impl Default for CacheConfig {
    /// As in `config/base.toml`, but not kept over a restart.
    fn default() -> Self {
        Self {
            size: 256 << 20,
            min_ttl: Duration::ZERO,
            max_ttl: Duration::from_secs(86_400),
            negative_max_ttl: Duration::from_secs(3_600),
            stale: Duration::from_secs(86_400),
            stale_wait: Duration::from_millis(1_800),
            stale_ttl: Duration::from_secs(30),
            failure_ttl: (Duration::from_secs(1), Duration::from_secs(300)),
            entry: 16 << 10,
            records: 100,
            aliases: 11,
            prefetch: true,
            refreshes: 64,
            refreshes_waiting: 64,
            keep_warm: Vec::new(),
            nxdomain_cut: true,
            file: None,
            save: Duration::from_secs(900),
        }
    }
}

/// A forwarding or recursive resolver: cheap to clone, owned by the DNS runtime.
#[derive(Clone, Debug)]
pub struct Resolver {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    cache: Cache,
    failures: Failures,
    cuts: Cuts,
    flights: Flights,
    partitions: Arc<Partitions>,
    policy: ArcSwap<Policy>,
    /// How the policy's lists were loaded.
    lists: Mutex<Vec<ListStatus>>,
    /// By partition: the default ones, then those of each forward zone.
    upstreams: Arc<[Upstreams]>,
    /// Instead of them, if names are resolved from the root or what they say is validated.
    recursor: Option<Recursor>,
    /// Its trust anchors, if they roll.
    rolling: Option<Rolling>,
    exchanger: Arc<Exchanger>,
    metrics: Arc<Metrics>,
}

impl Inner {
    /// See [`Resolver::budget`].
    fn budget(&self) -> Budget {
        let deadline = Now::read().plus(budget::for_work(self.config.time));
        Budget::new(self.config.packets, deadline)
    }
}

impl Resolver {
    /// Builds pools and cache, and reads the state of trust anchors that roll. Must be called inside the DNS runtime.
    ///
    /// # Errors
    /// A forward zone that is no domain name or comes twice, or what the kernel said to epoll or the TLS library.
    pub fn new(config: Config, metrics: Arc<Metrics>) -> Result<Self, std::io::Error> {
        let zones = config
            .forward
            .iter()
            .map(|forward| {
                names::wire(&forward.zone).ok_or_else(|| {
                    std::io::Error::other(format!(
                        "forward zone: found {:?}, expected a domain name",
                        forward.zone
                    ))
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let partitions = Partitions::new(zones).map_err(|place| {
            std::io::Error::other(format!(
                "forward zone: found {:?} again, expected at most 65,535 different ones",
                config.forward[place].zone
            ))
        })?;
        let exchanger = Arc::new(Exchanger::new(
            config.upstream.clone(),
            Arc::clone(&metrics),
        )?);
        let set = |targets: &[Target]| Upstreams::new(targets, &exchanger, &metrics);
        let partitions = Arc::new(partitions);
        let upstreams: Arc<[_]> = std::iter::once(&config.upstreams)
            .chain(config.forward.iter().map(|forward| &forward.upstreams))
            .map(|targets| set(targets))
            .collect();
        let validation = config.recursion.as_ref().and_then(|r| r.dnssec.as_ref());
        let rolling = validation.and_then(|validation| {
            let rolling = validation.rolling.as_ref()?;
            let (anchors, metrics) = (&validation.anchors, &metrics.resolver.anchors);
            Some(Rolling::open(rolling, anchors, metrics, Now::read()))
        });
        let recursor = config.recursion.clone().map(|recursion| {
            let (exchanger, upstreams) = (Arc::clone(&exchanger), Arc::clone(&upstreams));
            let driver = Driver::new(exchanger, recursion.port, upstreams);
            Recursor::new(driver, recursion, Arc::clone(&partitions), &metrics)
        });
        if let (Some(recursor), Some(rolling)) = (&recursor, &rolling) {
            recursor.believe(|configured| rolling.anchors(configured));
        }
        let inner = Arc::new(Inner {
            cache: Cache::new(config.cache.clone(), Arc::clone(&metrics)),
            failures: Failures::new(
                (config.cache.size / FAILURES_SHARE).max(FAILURES_LEAST),
                config.cache.failure_ttl,
            ),
            cuts: Cuts::new((config.cache.size / CUTS_SHARE).max(FAILURES_LEAST)),
            flights: Flights::new(config.fetches, config.waiters),
            partitions,
            policy: ArcSwap::default(),
            lists: Mutex::default(),
            upstreams,
            recursor,
            rolling,
            exchanger,
            config,
            metrics,
        });
        tokio::spawn(keep_honest(Arc::downgrade(&inner)));
        tokio::spawn(warm::refresh(Arc::downgrade(&inner)));
        tokio::spawn(warm::keep(Arc::downgrade(&inner)));
        tokio::spawn(saved::keep(Arc::downgrade(&inner)));
        tokio::spawn(rolling::keep(Arc::downgrade(&inner)));
        Ok(Self { inner })
    }

    /// Whether `client` may recurse.
    #[must_use]
    pub fn allows(&self, client: IpAddr) -> bool {
        self.inner
            .config
            .allow
            .iter()
            .any(|network| network.contains(client))
    }

    /// The cache, for the fast path.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.inner.cache
    }

    /// What is answered without the cache, and what not as asked.
    #[must_use]
    pub fn policy(&self) -> Guard<Arc<Policy>> {
        self.inner.policy.load()
    }

    /// Reads the policy's files and puts it in service; a list that does not load stays as it was. Cached answers that it
    /// would not have kept go. Reads files and walks the whole cache: not for a DNS thread.
    pub fn load_policy(&self, config: &policy::Config) -> Vec<ListStatus> {
        let inner = &self.inner;
        let mut lists = inner.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let forward = inner.config.forward.iter();
        let forwarded: Vec<_> = forward.filter_map(|f| names::wire(&f.zone)).collect();
        let old = inner.policy.load_full();
        let (policy, statuses) = policy::load(config, &forwarded, &old, &inner.metrics.policy);
        let policy = Arc::new(policy);
        inner.policy.store(Arc::clone(&policy));
        let bad: HashSet<Vec<u8>> = (inner.cache.find(|_| true).iter())
            .filter(|(key, entry)| {
                let forwarded = Key::parts(key).partition.0 != 0;
                policy.screen(entry.wire(), forwarded).is_some()
            })
            .map(|(key, _)| key.to_vec())
            .collect();
        // Also what was screened by the old policy and is not kept yet, is not kept then.
        inner.cache.flush(|key| bad.contains(key));
        lists.clone_from(&statuses);
        statuses
    }

    /// The lists of the policy and how they were loaded.
    #[must_use]
    pub fn lists(&self) -> Vec<ListStatus> {
        let lists = self.inner.lists.lock();
        lists.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The partition (forward zone) of a name in wire form. No allocation.
    #[must_use]
    pub fn partition(&self, name: &[u8]) -> Partition {
        self.inner.partitions.find(name)
    }

    /// A full budget for one client query, from the settings (`packets`, `time` less what the answer needs to leave); starts now.
    #[must_use]
    pub fn budget(&self) -> Budget {
        self.inner.budget()
    }

    /// The keys of its trust anchors, if they roll.
    #[must_use]
    pub fn anchors(&self) -> AnchorStatus {
        let rolling = self.inner.rolling.as_ref();
        rolling.map(Rolling::status).unwrap_or_default()
    }

    /// Resolves a query the cache did not have: single flight, failure cache, stale after the wait.
    /// Writes the whole answer (header, question as asked, OPT, cut at `limit` with TC) to `out`.
    ///
    /// The cache counts hits where it answers; what it could not answer is counted here, once the end is known: stale
    /// or miss.
    pub async fn resolve(
        &self,
        query: &Query<'_>,
        limit: usize,
        budget: &Budget,
        out: &mut Vec<u8>,
    ) -> Outcome {
        if query.qclass != message::CLASS_IN || META_TYPES.contains(&query.qtype) {
            return code(query, Rcode::NotImp, Ede::InvalidQueryType, out);
        }
        let inner = &self.inner;
        // The key is large, and is not to lie in the future.
        let (flight, stale) = {
            let key = Key::of(query, self.partition(query.name));
            let now = Now::read();
            let held = inner.cache.held(&key);
            // Another fetch may have landed since the fast path looked.
            if let Some(entry) = &held
                && let Some(age) = entry.age(now)
            {
                inner.metrics.resolver.cache.count(CacheRequest::Miss);
                write(entry, query, age, limit, out);
                return Outcome::Resolved;
            }
            let stale = held.filter(|entry| entry.is_stale(now, inner.config.cache.stale));
            let wait = budget::for_work(inner.config.cache.stale_wait);
            let patience = stale.is_some().then(|| budget.remaining(now).min(wait));
            if inner.config.cache.nxdomain_cut
                && let Some(entry) = inner.cuts.find(&key, now)
            {
                inner.metrics.resolver.cache.count(CacheRequest::Negative);
                write(&entry, query, Age::Fresh(0), limit, out);
                return Outcome::CacheHit;
            }
            let memory = inner.failures.recall(&key, now);
            let tried_lately = memory == Memory::Fresh
                || stale
                    .as_ref()
                    .is_some_and(|entry| entry.refresh_failed_lately(now));
            let flight =
                (!tried_lately).then(|| fetch::start(inner, &key, memory, budget, patience));
            (flight, stale)
        };
        let landed = match flight {
            Some(flight) => flight.await,
            None => Err(Failed(Ede::CachedError)),
        };
        match (landed, stale) {
            (Ok(entry), _) => {
                inner.metrics.resolver.cache.count(CacheRequest::Miss);
                // Of what has just come, also a TTL of 0 may be used once.
                let age = entry.age(Now::read()).unwrap_or(Age::Fresh(0));
                write(&entry, query, age, limit, out);
                Outcome::Resolved
            }
            // What does not validate is no reason to believe what is old.
            (Err(Failed(reason)), Some(entry)) if !reason.is_bogus() => {
                // One client has waited; the next need not, while the fetch may still go on.
                entry.refresh_failed(Now::read(), fetch::RECHECK);
                inner.metrics.resolver.cache.count(CacheRequest::Stale);
                write(&entry, query, inner.cache.stale_age(), limit, out);
                Outcome::CacheStale
            }
            (Err(Failed(reason)), _) => {
                inner.metrics.resolver.cache.count(CacheRequest::Miss);
                code(query, Rcode::ServFail, reason, out)
            }
        }
    }

    /// How the upstreams do, in the order of the configuration: first those for everything, then those of forward zones.
    #[must_use]
    pub fn upstreams(&self) -> Vec<UpstreamStatus> {
        let forward = self.inner.config.forward.iter();
        let zones = std::iter::once(".").chain(forward.map(|forward| &*forward.zone));
        (zones.zip(self.inner.upstreams.iter()))
            .flat_map(|(zone, upstreams)| upstreams.status(zone))
            .collect()
    }

    /// What the cache holds and did.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let (entries, bytes) = self.inner.cache.settle(Now::read());
        let requests = &self.inner.metrics.resolver.cache;
        CacheStats {
            entries,
            bytes,
            capacity: self.inner.config.cache.size,
            hits: requests.get(CacheRequest::Hit),
            negative: requests.get(CacheRequest::Negative),
            stale: requests.get(CacheRequest::Stale),
            misses: requests.get(CacheRequest::Miss),
        }
    }

    /// Cached answers for `name` (text, any case), of one type or all, in the order of their types. Walks the whole
    /// cache: not for a DNS thread.
    #[must_use]
    pub fn lookup(&self, name: &str, qtype: Option<u16>) -> Vec<CachedEntry> {
        let Some(wire) = names::wire(name) else {
            return Vec::new();
        };
        let now = Now::read();
        let mut found = self.inner.cache.find(|key| is(key, &wire, qtype));
        found.sort_by(|(a, _), (b, _)| (**a).cmp(b));
        found
            .iter()
            .map(|(key, entry)| {
                let parts = Key::parts(key);
                CachedEntry {
                    name: names::text(parts.name),
                    qtype: parts.qtype,
                    rcode: entry.rcode().into(),
                    ttl: entry.ttl_left(now),
                    bytes: entry.wire().len(),
                    records: names::records(entry.wire()),
                }
            })
            .collect()
    }

    /// Drops what `what` names, remembered failures included; returns how many entries went. What is being fetched
    /// meanwhile still answers those who wait, but is not kept. Walks the whole cache: not for a DNS thread.
    pub fn flush(&self, what: &Flush) -> usize {
        let inner = &self.inner;
        let flush = |wire: &[u8], matches: &dyn Fn(&[u8]) -> bool| {
            let gone = inner.cache.flush(matches);
            inner.failures.flush(matches);
            // A name is also gone while one above it is.
            inner.cuts.flush(|key| {
                let name = Key::parts(key).name;
                names::is_beneath(name, wire) || names::is_beneath(wire, name)
            });
            gone
        };
        // First what answers are made of.
        if let Some(recursor) = &inner.recursor {
            match what {
                Flush::All => recursor.flush(&|_, _| true),
                Flush::Name(name, qtype) => {
                    let wire = names::wire(name).unwrap_or_default();
                    recursor.flush(&|name, rtype| {
                        // Type 0: that there is no such name.
                        *name == *wire && qtype.is_none_or(|qtype| rtype == qtype || rtype == 0)
                    })
                }
                Flush::Zone(zone) => {
                    let wire = names::wire(zone).unwrap_or_default();
                    recursor.flush(&|name, _| !wire.is_empty() && names::is_beneath(name, &wire))
                }
            };
        }
        match what {
            Flush::All => flush(b"\0", &|_| true),
            Flush::Name(name, qtype) => {
                names::wire(name).map_or(0, |wire| flush(&wire, &|key| is(key, &wire, *qtype)))
            }
            Flush::Zone(zone) => names::wire(zone).map_or(0, |wire| {
                flush(&wire, &|key| names::is_beneath(Key::parts(key).name, &wire))
            }),
        }
    }
}

/// Whether `key` is of the lower-cased name and, if given, the type.
fn is(key: &[u8], name: &[u8], qtype: Option<u16>) -> bool {
    let parts = Key::parts(key);
    parts.name == name && qtype.is_none_or(|qtype| parts.qtype == qtype)
}

/// Keeps the gauges true, as long as there is a resolver.
async fn keep_honest(inner: Weak<Inner>) {
    let mut warmth = warm::Warmth::default();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(inner) = inner.upgrade() else {
            return;
        };
        let metrics = &inner.metrics.resolver;
        let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let (entries, bytes) = inner.cache.settle(Now::read());
        metrics.cache_entries.set(gauge(entries));
        metrics.cache_bytes.set(gauge(bytes));
        metrics.failures.set(gauge(inner.failures.settle()));
        let busy = inner.config.fetches.saturating_sub(inner.flights.free());
        metrics.fetches.set(gauge(busy as u64));
        warmth.note(&inner.metrics.resolver);
        inner.exchanger.tidy(Now::read());
        if let Some(recursor) = &inner.recursor {
            metrics.recursion_bytes.set(gauge(recursor.settle()));
        }
    }
}

/// Writes `entry` as the answer to `query`.
fn write(entry: &Entry, query: &Query<'_>, age: Age, limit: usize, out: &mut Vec<u8>) {
    out.clear();
    out.resize(limit.min(entry.room()), 0);
    let len = entry.write(query, age, limit, out);
    out.truncate(len);
}

/// Writes an answer that is only a code.
fn code(query: &Query<'_>, rcode: Rcode, reason: Ede, out: &mut Vec<u8>) -> Outcome {
    out.clear();
    out.resize(wire::CODE_LEN_MAX, 0);
    let len = wire::code(query, rcode, Some(reason.into()), out);
    out.truncate(len);
    if let Some(flags) = out.get_mut(3) {
        *flags |= RECURSION_AVAILABLE;
    }
    match rcode {
        Rcode::NotImp => Outcome::Notimp,
        _ => Outcome::Servfail,
    }
}

/// What to drop from the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flush {
    /// One name: one type or all.
    Name(String, Option<u16>),
    /// A name and everything beneath it.
    Zone(String),
    /// Everything.
    All,
}

/// Numbers of the cache, for `headwater cache stats`.
#[derive(Clone, Copy, Debug, Default)]
pub struct CacheStats {
    /// Entries held, stale ones included.
    pub entries: u64,
    /// Bytes held.
    pub bytes: u64,
    /// Bytes allowed.
    pub capacity: u64,
    /// Answers from fresh positive entries.
    pub hits: u64,
    /// Answers from fresh negative entries.
    pub negative: u64,
    /// Answers from expired entries.
    pub stale: u64,
    /// Queries the cache could not answer.
    pub misses: u64,
}

/// One cached answer, for `headwater cache lookup`.
#[derive(Clone, Debug)]
pub struct CachedEntry {
    /// Question name, text form.
    pub name: String,
    /// Question type.
    pub qtype: u16,
    /// Response code.
    pub rcode: u16,
    /// Seconds of freshness left; negative: expired that long ago.
    pub ttl: i64,
    /// Bytes of the answer.
    pub bytes: usize,
    /// Its records as master-file lines.
    pub records: Vec<String>,
}

/// The failure cache may take this part of the cache's size, on top of it.
const FAILURES_SHARE: u64 = 32;

/// Likewise the names known not to exist.
const CUTS_SHARE: u64 = 32;

/// What each of them may take however small the cache is, bytes: some hundred failures.
const FAILURES_LEAST: u64 = 256 << 10;

/// Types that name no data to fetch: OPT, and TKEY to MAILA (transfers among them).
const META_TYPES: [u16; 7] = [41, 249, 250, 251, 252, 253, 254];

/// RA, in the fourth octet.
const RECURSION_AVAILABLE: u8 = 0x80;
