//! The caching, forwarding resolver.
//!
//! [`budget`] (one per client query), [`cache`] (wire answers on moka), then the driver:
//! [`Resolver`] with single flight, failure cache and serve-stale over hickory-resolver's pool.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use self::budget::Budget;
use self::cache::{Cache, Partition};
use super::Outcome;
use super::wire::Query;
use crate::metrics::Metrics;
use crate::net::Network;

pub mod budget;

pub mod cache;

/// Settings of the resolver (`mode = "forward"`).
#[derive(Clone, Debug)]
pub struct Config {
    /// Who may recurse.
    pub allow: Vec<Network>,
    /// Upstreams for everything without a forward zone of its own; not empty.
    pub upstreams: Vec<SocketAddr>,
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
    /// Bytes, keys and bookkeeping included.
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
}

/// A forwarding resolver: cheap to clone, owned by the DNS runtime.
#[derive(Clone, Debug)]
pub struct Resolver {
    inner: Arc<()>,
}

impl Resolver {
    /// Builds pools and cache. Must be called inside the DNS runtime.
    ///
    /// # Errors
    /// What hickory-resolver said of the upstreams.
    pub fn new(config: Config, metrics: Arc<Metrics>) -> Result<Self, std::io::Error> {
        let _ = (config, metrics);
        Ok(Self {
            inner: Arc::new(()),
        })
    }

    /// Whether `client` may recurse.
    #[must_use]
    pub fn allows(&self, client: IpAddr) -> bool {
        let _ = (client, &self.inner);
        unimplemented!()
    }

    /// The cache, for the fast path.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        unimplemented!()
    }

    /// The partition (forward zone) of a name in wire form. No allocation.
    #[must_use]
    pub fn partition(&self, name: &[u8]) -> Partition {
        let _ = name;
        unimplemented!()
    }

    /// A full budget for one client query, from the settings (`packets`, `time`); starts now.
    #[must_use]
    pub fn budget(&self) -> Budget {
        unimplemented!()
    }

    /// Resolves a query the cache did not have: single flight, failure cache, stale after the wait.
    /// Writes the whole answer (header, question as asked, OPT, cut at `limit` with TC) to `out`.
    pub async fn resolve(
        &self,
        query: &Query<'_>,
        limit: usize,
        budget: &Budget,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let _ = (query, limit, budget, out);
        unimplemented!()
    }

    /// What the cache holds and did.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        unimplemented!()
    }

    /// Cached answers for `name` (text, any case), of one type or all.
    #[must_use]
    pub fn lookup(&self, name: &str, qtype: Option<u16>) -> Vec<CachedEntry> {
        let _ = (name, qtype);
        unimplemented!()
    }

    /// Drops what `what` names; returns how many entries went.
    pub fn flush(&self, what: &Flush) -> usize {
        let _ = what;
        unimplemented!()
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
