//! The caching resolver: it forwards, or resolves from the root and validates.
//!
//! From ground to roof: [`budget`] (one per client query), `message` and `reply` (what an upstream said, checked),
//! `partition` and `key` (which questions are one), `entry` and [`cache`] (wire answers on moka),
//! [`near`] (a worker's copies of the hottest), [`policy`] (what is answered here, or not as asked), `failure` (what not to
//! ask again), `flight` (one fetch for equal questions), [`upstream`] (asking one server), `forward` (which of several),
//! [`recurse`] and [`validate`] (from the root, DNSSEC), then the driver, [`Resolver`]. Up to `flight` nothing here reads a clock or touches a socket.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use futures_util::future::BoxFuture;

use self::budget::Budget;
use self::cache::{Cache, Partition};
use self::entry::{Age, Entry};
use self::failure::Failures;
use self::flight::{Failed, Flights, Pilot, Seat};
use self::forward::{Unanswered, Upstreams};
use self::key::Key;
use self::partition::Partitions;
use self::policy::{ListStatus, Policy};
use self::recurse::Recursor;
use self::recurse::driver::Driver;
use self::reply::Reply;
use self::upstream::Exchanger;
use super::Outcome;
use super::wire::{self, Ede, Query, Rcode};
use crate::metrics::Metrics;
use crate::metrics::resolver::CacheRequest;
use crate::net::Network;
use crate::time::Now;

pub mod budget;

mod message;

mod reply;

mod partition;

mod key;

mod entry;

pub mod cache;

pub mod near;

mod failure;

mod flight;

mod names;

pub mod policy;

pub mod upstream;

mod forward;

pub mod recurse;

pub mod validate;

#[cfg(test)]
mod testing;

/// Settings of the resolver.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who may recurse.
    pub allow: Vec<Network>,
    /// Upstreams for everything without a forward zone of its own (`mode = "forward"`).
    pub upstreams: Vec<SocketAddr>,
    /// Settings of recursion (`mode = "recursive"`); then there are no upstreams but those of forward zones.
    pub recursion: Option<recurse::Config>,
    /// Forward zones (lower case, final dot) with their upstreams; each has its own cache partition.
    pub forward: Vec<ForwardZone>,
    /// The cache.
    pub cache: CacheConfig,
    /// Upstream packets per client query.
    pub packets: u32,
    /// Wall clock per client query.
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
    pub upstreams: Vec<SocketAddr>,
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
    /// Wait for a fetch before a stale answer is given.
    pub stale_wait: Duration,
    /// TTL of a stale answer.
    pub stale_ttl: Duration,
    /// First and longest life of a remembered failure (RFC 9520).
    pub failure_ttl: (Duration, Duration),
    /// Largest answer kept, bytes.
    pub entry: usize,
    /// Most records of one type at one name in an answer that is kept.
    pub records: usize,
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
    flights: Flights,
    partitions: Partitions,
    policy: ArcSwap<Policy>,
    /// How the policy's lists were loaded.
    lists: Mutex<Vec<ListStatus>>,
    /// By partition: the default ones, then those of each forward zone.
    upstreams: Vec<Upstreams>,
    /// Instead of the default ones, if names are resolved from the root.
    recursor: Option<Recursor>,
    exchanger: Arc<Exchanger>,
    metrics: Arc<Metrics>,
}

impl Resolver {
    /// Builds pools and cache. Must be called inside the DNS runtime.
    ///
    /// # Errors
    /// A forward zone that is no domain name or comes twice, or what the kernel said to epoll.
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
        let exchanger = Arc::new(Exchanger::new(config.upstream, Arc::clone(&metrics))?);
        let set = |addresses: &[SocketAddr]| Upstreams::new(addresses, &exchanger, &metrics);
        let upstreams = std::iter::once(&config.upstreams)
            .chain(config.forward.iter().map(|forward| &forward.upstreams))
            .map(|addresses| set(addresses))
            .collect();
        let recursor = config.recursion.clone().map(|recursion| {
            let driver = Driver::new(Arc::clone(&exchanger), recursion.port);
            Recursor::new(driver, recursion, &metrics)
        });
        let inner = Arc::new(Inner {
            cache: Cache::new(config.cache.clone(), Arc::clone(&metrics)),
            failures: Failures::new(
                (config.cache.size / FAILURES_SHARE).max(FAILURES_LEAST),
                config.cache.failure_ttl,
            ),
            flights: Flights::new(config.fetches, config.waiters),
            partitions,
            policy: ArcSwap::default(),
            lists: Mutex::default(),
            upstreams,
            recursor,
            exchanger,
            config,
            metrics,
        });
        tokio::spawn(keep_honest(Arc::downgrade(&inner)));
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

    /// A full budget for one client query, from the settings (`packets`, `time`); starts now.
    #[must_use]
    pub fn budget(&self) -> Budget {
        let config = &self.inner.config;
        Budget::new(config.packets, Now::read().plus(config.time))
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
        let patience = stale
            .is_some()
            .then(|| budget.remaining(now).min(inner.config.cache.stale_wait));
        let remembered = inner.failures.is_remembered(&key, now);
        let landed = if remembered
            || stale
                .as_ref()
                .is_some_and(|entry| entry.refresh_failed_lately(now))
        {
            Err(Failed(Ede::CachedError))
        } else {
            self.fetch(&key, budget, patience).await
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

    /// Joins or starts the fetch for `key` and waits for it, at most for `patience`.
    async fn fetch(
        &self,
        key: &Key,
        budget: &Budget,
        patience: Option<Duration>,
    ) -> Result<Arc<Entry>, Failed> {
        let inner = &self.inner;
        let limits = &inner.metrics.resolver.limits;
        let mut result = match inner.flights.board(key, inner.cache.generation()) {
            Seat::Wait(result) => result,
            Seat::Lead(pilot) => {
                let result = patience.and_then(|_| pilot.wait());
                let flight = Flight::new(fly(Arc::clone(inner), pilot, budget.share()));
                match result {
                    // It ends within the budget by itself.
                    None => return flight.await,
                    Some(result) => {
                        // Goes on when this client has been given something stale.
                        drop(flight);
                        result
                    }
                }
            }
            Seat::CrowdedOut => {
                limits.waiters.inc();
                return Err(Failed(Ede::Other));
            }
            Seat::Grounded => {
                limits.fetches.inc();
                return Err(Failed(Ede::Other));
            }
        };
        let patience = patience.unwrap_or_else(|| budget.remaining(Now::read()));
        match tokio::time::timeout(patience, result.wait_for(Option::is_some)).await {
            Ok(Ok(landed)) => landed.clone().unwrap_or(Err(Failed(Ede::Other))),
            // The task that fetched is gone, or it takes too long for this client.
            Ok(Err(_)) | Err(_) => Err(Failed(Ede::NoReachableAuthority)),
        }
    }

    /// What the cache holds and did.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let (entries, bytes) = self.inner.cache.settle();
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
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
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
        let flush = |matches: &dyn Fn(&[u8]) -> bool| {
            let gone = inner.cache.flush(matches);
            inner.failures.flush(matches);
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
            Flush::All => flush(&|_| true),
            Flush::Name(name, qtype) => {
                names::wire(name).map_or(0, |wire| flush(&|key| is(key, &wire, *qtype)))
            }
            Flush::Zone(zone) => names::wire(zone).map_or(0, |wire| {
                flush(&|key| names::is_beneath(Key::parts(key).name, &wire))
            }),
        }
    }
}

/// Whether `key` is of the lower-cased name and, if given, the type.
fn is(key: &[u8], name: &[u8], qtype: Option<u16>) -> bool {
    let parts = Key::parts(key);
    parts.name == name && qtype.is_none_or(|qtype| parts.qtype == qtype)
}

/// A fetch, polled by the client that came first; dropped before its end, it goes on as a task of its own, since others may
/// wait for it. So the usual fetch costs no task.
struct Flight(Option<BoxFuture<'static, Result<Arc<Entry>, Failed>>>);

impl Flight {
    fn new(fetch: impl Future<Output = Result<Arc<Entry>, Failed>> + Send + 'static) -> Self {
        Self(Some(Box::pin(fetch)))
    }
}

impl Future for Flight {
    type Output = Result<Arc<Entry>, Failed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(fetch) = &mut self.0 else {
            return Poll::Ready(Err(Failed(Ede::Other)));
        };
        let polled = fetch.as_mut().poll(cx);
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if let Some(fetch) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(fetch);
        }
    }
}

/// One fetch: asks, checks, keeps, tells those who wait.
async fn fly(inner: Arc<Inner>, pilot: Pilot, budget: Budget) -> Result<Arc<Entry>, Failed> {
    let metrics = &inner.metrics.resolver;
    let question = Key::parts(pilot.key());
    let result = ask(&inner, question, &budget).await;
    let result = result.map(|reply| screen(&inner, question, reply));
    let now = Now::read();
    let landed = match result {
        Ok(reply) => {
            inner.failures.forget(pilot.key());
            Ok(inner
                .cache
                .keep(pilot.key(), reply, pilot.generation(), now))
        }
        Err(error) => {
            match error {
                Unanswered::Exhausted => metrics.limits.packets.inc(),
                Unanswered::TimeUp => metrics.limits.time.inc(),
                Unanswered::Busy | Unanswered::Nobody | Unanswered::Failed(_) => {}
            }
            tracing::debug!(
                name = %names::text(question.name),
                qtype = question.qtype,
                %error,
                "fetch failed"
            );
            // That we were too busy says nothing about the question.
            if error != Unanswered::Busy {
                if inner.cache.generation() == pilot.generation() {
                    inner.failures.remember(pilot.key(), now);
                }
                if let Some(entry) = inner.cache.held(pilot.key()) {
                    entry.refresh_failed(now, RECHECK);
                }
            }
            Err(Failed(match error {
                Unanswered::Failed(reason) => reason,
                Unanswered::Busy => Ede::Other,
                _ => Ede::NoReachableAuthority,
            }))
        }
    };
    pilot.land(&landed);
    landed
}

/// Asks the upstreams of the key's partition, within the budget.
async fn ask(
    inner: &Inner,
    question: key::Parts<'_>,
    budget: &Budget,
) -> Result<Reply, Unanswered> {
    if question.partition == Partition(0)
        && let Some(recursor) = &inner.recursor
    {
        let message = recursor.fetch(question, budget).await.map_err(|trouble| {
            tracing::debug!(name = %names::text(question.name), qtype = question.qtype, %trouble, "not resolved");
            trouble.as_unanswered()
        })?;
        return inner
            .cache
            .read(question, &message)
            .map_err(|_| Unanswered::Nobody);
    }
    let upstreams = inner
        .upstreams
        .get(usize::from(question.partition.0))
        .ok_or(Unanswered::Nobody)?;
    let read = |message: &[u8]| inner.cache.read(question, message);
    upstreams
        .fetch(&inner.exchanger, question, budget, read)
        .await
}

/// What of a reply is to be kept, by the policy.
fn screen(inner: &Inner, question: key::Parts<'_>, reply: Reply) -> Reply {
    let forwarded = question.partition.0 != 0;
    let screened = inner.policy.load().screen(&reply.wire, forwarded);
    let Some(screened) = screened else {
        return reply;
    };
    if screened.private {
        inner.metrics.policy.private.inc();
    }
    // What the policy writes is a reply to the question; were it none, what came stays.
    let read = inner.cache.read(question, &screened.message);
    read.unwrap_or(reply)
}

/// Keeps the gauges true, as long as there is a resolver.
async fn keep_honest(inner: Weak<Inner>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(inner) = inner.upgrade() else {
            return;
        };
        let metrics = &inner.metrics.resolver;
        let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let (entries, bytes) = inner.cache.settle();
        metrics.cache_entries.set(gauge(entries));
        metrics.cache_bytes.set(gauge(bytes));
        metrics.failures.set(gauge(inner.failures.settle()));
        let busy = inner.config.fetches.saturating_sub(inner.flights.free());
        metrics.fetches.set(gauge(busy as u64));
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

/// How long a failed refresh of an expired answer is not tried again (RFC 8767 section 5).
const RECHECK: Duration = Duration::from_secs(30);

/// The failure cache may take this part of the cache's size, on top of it.
const FAILURES_SHARE: u64 = 32;

/// What the failure cache may take however small the cache is, bytes: some hundred failures.
const FAILURES_LEAST: u64 = 256 << 10;

/// Types that name no data to fetch: OPT, and TKEY to MAILA (transfers among them).
const META_TYPES: [u16; 7] = [41, 249, 250, 251, 252, 253, 254];

/// RA, in the fourth octet.
const RECURSION_AVAILABLE: u8 = 0x80;
