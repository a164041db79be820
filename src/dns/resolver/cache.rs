//! The resolver cache: wire answers in a bounded table, freshness decided by the `now` given.
//!
//! The table decides only what is kept: by bytes, by use, and no longer than TTL and stale window together.
//! Whether an answer is fresh is a field of it. So a test moves time by an argument, and an expired answer is still
//! there when no upstream answers.

use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foldhash::fast::RandomState;

use super::CacheConfig;
use super::entry::{Age, Entry};
use super::key::{Key, Parts};
use super::near::{Near, Versions};
pub use super::partition::Partition;
use super::reply::{Bounds, Invalid, Reply};
use super::table::Table;
use super::wanted::Wanted;
use crate::dns::wire::Query;
use crate::dns::zone::path::Path;
use crate::metrics::Metrics;
use crate::metrics::resolver::CacheRequest;
use crate::time::Now;

/// The cache.
pub struct Cache {
    entries: Table,
    /// Of keys: where the table looks.
    hasher: RandomState,
    config: CacheConfig,
    /// Counts flushes: what was fetched before one must not come in after it.
    generation: AtomicU64,
    /// What tells the workers' copies of changes.
    versions: Arc<Versions>,
    wanted: Arc<Wanted>,
    metrics: Arc<Metrics>,
}

/// What the cache has for a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cached {
    /// `out[..len]` is the answer, fresh; `negative`: NXDOMAIN or NODATA.
    Fresh {
        /// Bytes of the answer.
        len: usize,
        /// NXDOMAIN or NODATA.
        negative: bool,
    },
    /// `out[..len]` is an expired answer that may be given at once, since its refresh failed a moment ago.
    Stale {
        /// Bytes of the answer.
        len: usize,
    },
    /// Nothing that may be given without asking upstream.
    Miss,
}

impl Cache {
    /// An empty cache.
    #[must_use]
    pub fn new(config: CacheConfig, metrics: Arc<Metrics>) -> Self {
        // What all threads share, and what each has of its own, is of its bytes.
        let fixed = near_bytes(config.size) + Versions::BYTES;
        let bytes = config.size.saturating_sub(fixed).max(config.size / 2);
        let entries = Table::new(usize::try_from(bytes).unwrap_or(usize::MAX), config.stale);
        let (waiting, limits) = (config.refreshes_waiting, &metrics.resolver.limits);
        Self {
            entries,
            hasher: RandomState::default(),
            config,
            generation: AtomicU64::new(0),
            versions: Versions::new(),
            wanted: Wanted::new(waiting, limits.refreshes_waiting.clone()),
            metrics,
        }
    }

    /// A table of copies for one of `workers` threads, empty. All of them together stay within their part of the
    /// cache's size. It serves no other cache.
    #[must_use]
    pub fn near(&self, workers: usize) -> Near {
        let bytes = near_bytes(self.config.size) / workers.max(1) as u64;
        Near::new(Arc::clone(&self.versions), bytes)
    }

    /// Answers `query` into `out`, at most `limit` bytes, from an entry of `partition`. Allocates nothing.
    ///
    /// `out` holds [`CODE_LEN_MAX`](crate::dns::wire::CODE_LEN_MAX) bytes or more.
    #[must_use]
    pub fn answer(
        &self,
        query: &Query<'_>,
        partition: Partition,
        now: Now,
        limit: usize,
        out: &mut [u8],
    ) -> Cached {
        if query.qclass != super::message::CLASS_IN {
            return Cached::Miss;
        }
        let key = Key::of(query, partition);
        match self.held(&key) {
            Some(entry) => self.answer_from(&key, &entry, query, now, limit, out),
            None => Cached::Miss,
        }
    }

    /// As [`Cache::answer`], from the caller's own copies where they will do; what is not among them is copied.
    #[must_use]
    #[inline]
    pub fn answer_near(
        &self,
        near: &mut Near,
        query: &Query<'_>,
        partition: Partition,
        now: Now,
        limit: usize,
        out: &mut [u8],
    ) -> Cached {
        let path = Path::new(query.name);
        self.answer_at((near, &path), query, partition, now, limit, out)
    }

    /// As [`Cache::answer_near`]; `path` is that of the query's name.
    #[inline]
    pub(in crate::dns) fn answer_at(
        &self,
        (near, path): (&mut Near, &Path),
        query: &Query<'_>,
        partition: Partition,
        now: Now,
        limit: usize,
        out: &mut [u8],
    ) -> Cached {
        if query.qclass != super::message::CLASS_IN {
            return Cached::Miss;
        }
        let spot = near.spot(path, Key::tail(query, partition));
        if let Some((len, negative)) = near.answer(spot, query, now, limit, out) {
            return self.fresh(len, negative);
        }
        let key = Key::of(query, partition);
        let Some(entry) = self.held(&key) else {
            return Cached::Miss;
        };
        near.keep(spot, &entry, now);
        self.answer_from(&key, &entry, query, now, limit, out)
    }

    fn answer_from(
        &self,
        key: &Key,
        entry: &Entry,
        query: &Query<'_>,
        now: Now,
        limit: usize,
        out: &mut [u8],
    ) -> Cached {
        if let Some(age) = entry.age(now) {
            if self.config.prefetch && entry.claim_refresh(now) {
                self.wanted.add(key);
            }
            let len = entry.write(query, age, limit, out);
            return self.fresh(len, entry.is_negative());
        }
        if entry.refresh_failed_lately(now) && entry.is_stale(now, self.config.stale) {
            self.metrics.resolver.cache.count(CacheRequest::Stale);
            let len = entry.write(query, self.stale_age(), limit, out);
            return Cached::Stale { len };
        }
        Cached::Miss
    }

    /// Counts a fresh answer.
    #[inline]
    fn fresh(&self, len: usize, negative: bool) -> Cached {
        self.metrics.resolver.cache.count(if negative {
            CacheRequest::Negative
        } else {
            CacheRequest::Hit
        });
        Cached::Fresh { len, negative }
    }

    /// How an expired entry is to look.
    pub(super) fn stale_age(&self) -> Age {
        Age::Stale(secs(self.config.stale_ttl))
    }

    /// Checks an upstream's `message` as the answer to `question`.
    ///
    /// # Errors
    /// What is wrong with the message.
    pub(super) fn read(&self, question: Parts<'_>, message: &[u8]) -> Result<Reply, Invalid> {
        self.read_of(question, &[], message)
    }

    /// As [`Cache::read`], from one who speaks for `zone` only (wire form, lower case; empty: for all).
    ///
    /// # Errors
    /// What is wrong with the message.
    pub(super) fn read_of(
        &self,
        question: Parts<'_>,
        zone: &[u8],
        message: &[u8],
    ) -> Result<Reply, Invalid> {
        let reply = Reply::read(message, &question, zone, self.bounds())?;
        if reply.shortened {
            self.metrics.resolver.limits.aliases.inc();
        }
        Ok(reply)
    }

    /// Keeps a checked reply if it may be kept.
    ///
    /// `begun` is [`Cache::generation`] from before the question was sent: if something was flushed since, the answer
    /// is not kept. The entry returned answers those who wait, kept or not.
    pub(super) fn keep(&self, key: &[u8], reply: Reply, begun: u64, now: Now) -> Arc<Entry> {
        let keep = self.may_keep(&reply);
        let entry = Arc::new(Entry::new(reply, now));
        if keep && self.generation() == begun {
            let hash = self.hash(key);
            self.entries.insert(hash, key, Arc::clone(&entry), now);
            // A flush counts first and removes then; if it has counted since, it may have looked before we put.
            if self.generation() != begun {
                self.entries.remove(hash, key);
            }
            self.versions.change(Key::parts(key).name);
        }
        entry
    }

    /// Keeps an upstream's `message` as the answer to `query`, as a fetch would. For benches and tests.
    ///
    /// Returns whether it was a valid answer to it.
    pub fn store(&self, query: &Query<'_>, partition: Partition, message: &[u8], now: Now) -> bool {
        let key = Key::of(query, partition);
        match self.read(Key::parts(&key), message) {
            Ok(reply) => {
                self.keep(&key, reply, self.generation(), now);
                true
            }
            Err(_) => false,
        }
    }

    fn may_keep(&self, reply: &Reply) -> bool {
        let limits = &self.metrics.resolver.limits;
        if reply.wire.len() > self.config.entry {
            limits.entry.inc();
            return false;
        }
        if reply.rrset > self.config.records {
            limits.records.inc();
            return false;
        }
        reply.ttl > 0
    }

    pub(super) fn bounds(&self) -> Bounds {
        Bounds {
            min: secs(self.config.min_ttl),
            max: secs(self.config.max_ttl),
            negative_max: secs(self.config.negative_max_ttl),
            aliases: self.config.aliases,
        }
    }

    /// Keeps an entry that was kept before.
    pub(super) fn put(&self, key: &[u8], entry: Entry, now: Now) -> Arc<Entry> {
        let entry = Arc::new(entry);
        self.entries
            .insert(self.hash(key), key, Arc::clone(&entry), now);
        self.versions.change(Key::parts(key).name);
        entry
    }

    /// All that is held. Does not count as use.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Key, Arc<Entry>)> + '_ {
        self.entries.iter()
    }

    #[inline]
    fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key);
        hasher.finish()
    }

    /// The entry of a key, whatever its age.
    pub(super) fn held(&self, key: &[u8]) -> Option<Arc<Entry>> {
        self.entries.get(self.hash(key), key)
    }

    /// What is to be refreshed before it expires.
    pub(super) fn wanted(&self) -> &Arc<Wanted> {
        &self.wanted
    }

    /// Flushes so far.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Drops every entry whose key `matches`; returns how many. Walks the whole cache.
    pub(super) fn flush(&self, matches: impl Fn(&[u8]) -> bool) -> usize {
        self.generation.fetch_add(1, Ordering::SeqCst);
        let gone = self.entries.flush(matches);
        // All, since copies may outlive their entry.
        self.versions.change_all();
        gone
    }

    /// Drops an entry as the cache does when it needs room: the copies do not hear of it.
    #[cfg(test)]
    pub(super) fn evict(&self, key: &[u8]) {
        self.entries.remove(self.hash(key), key);
    }

    /// The entries whose key `matches`. Walks the whole cache; does not count as use.
    pub(super) fn find(&self, matches: impl Fn(&[u8]) -> bool) -> Vec<(Key, Arc<Entry>)> {
        self.entries
            .iter()
            .filter(|(key, _)| matches(key))
            .collect()
    }

    /// Drops some of what not even its stale window keeps at `now`, then returns entries and bytes held; the copies take theirs
    /// beside that.
    pub(super) fn settle(&self, now: Now) -> (u64, u64) {
        self.entries.sweep(now);
        let (entries, bytes) = self.entries.size();
        (entries as u64, bytes as u64)
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("config", &self.config)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// What of a cache of `size` bytes the workers' copies may take.
fn near_bytes(size: u64) -> u64 {
    (size / NEAR_SHARE).min(NEAR_MAX)
}

fn secs(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

/// The part of the cache's size that is set aside for the workers' copies, and the most of it, bytes: what fifteen
/// workers use.
const NEAR_SHARE: u64 = 16;
const NEAR_MAX: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;
    use proptest::prelude::*;

    use super::super::testing::{self, Asked, START, message};
    use super::*;

    const SOA: &str = "example. 600 SOA ns.example. host.example. 1 2 3 4 60";

    fn cache() -> Cache {
        Cache::new(testing::config(), Arc::new(Metrics::new()))
    }

    fn after(secs: u64) -> Now {
        START.plus(Duration::from_secs(secs))
    }

    /// What `cache` answers to `asked` at `now`: how, and the message.
    fn answer(cache: &Cache, asked: &Asked, now: Now, limit: usize) -> (Cached, Option<Message>) {
        let mut out = vec![0xAA; limit.max(512)];
        let cached = cache.answer(&asked.query(), Partition(0), now, limit, &mut out);
        let message = match cached {
            Cached::Fresh { len, .. } | Cached::Stale { len } => {
                assert!(len <= limit, "{len} > {limit}");
                Some(Message::from_vec(&out[..len]).unwrap())
            }
            Cached::Miss => None,
        };
        (cached, message)
    }

    #[test]
    fn answer_counts_its_ttls_down_until_it_misses() {
        let cache = cache();
        let asked = Asked::new("a.example.", 1);
        let records = ["a.example. 100 A 192.0.2.1", "a.example. 100 A 192.0.2.2"];
        let message = message("a.example.", 1, 0, &records, &[]);
        assert!(cache.store(&asked.query(), Partition(0), &message, START));
        for (secs, ttl) in [(0, 100), (1, 99), (99, 1)] {
            let (_, message) = answer(&cache, &asked, after(secs), 512);
            let ttls: Vec<u32> = message.unwrap().answers.iter().map(|r| r.ttl).collect();
            assert_eq!(ttls, [ttl, ttl], "after {secs} s");
        }
        assert_eq!(answer(&cache, &asked, after(100), 512).0, Cached::Miss);
    }

    #[test]
    fn answer_repeats_id_flags_and_case_of_the_question() {
        let cache = cache();
        let message = message("a.example.", 1, 0, &["a.example. 9 A 192.0.2.1"], &[]);
        let asked = Asked::new("a.example.", 1);
        assert!(cache.store(&asked.query(), Partition(0), &message, START));
        let asked = Asked::new("A.eXample.", 1);
        let (_, message) = answer(&cache, &asked, START, 512);
        let message = message.unwrap();
        assert_eq!(message.id, asked.query().id);
        assert_eq!(message.queries[0].name.to_ascii(), "A.eXample.");
        assert!(message.recursion_desired && message.recursion_available);
        assert!(!message.authoritative && !message.truncation);
        assert!(message.edns.is_none());
    }

    #[test]
    fn answer_has_opt_exactly_if_the_query_had_one() {
        let cache = cache();
        let asked = Asked::new("a.example.", 1).edns(false);
        let message = message("a.example.", 1, 0, &["a.example. 9 A 192.0.2.1"], &[]);
        assert!(cache.store(&asked.query(), Partition(0), &message, START));
        let (_, message) = answer(&cache, &asked, START, 1232);
        let edns = message.unwrap().edns.unwrap();
        assert_eq!((edns.max_payload(), edns.flags().dnssec_ok), (1232, false));
    }

    #[test]
    fn answer_of_one_flag_or_partition_is_not_one_of_another() {
        let cache = cache();
        let plain = Asked::new("a.example.", 1);
        let message = message("a.example.", 1, 0, &["a.example. 9 A 192.0.2.1"], &[]);
        assert!(cache.store(&plain.query(), Partition(0), &message, START));
        for other in [
            Asked::new("a.example.", 1).edns(true),
            Asked::new("a.example.", 1).checking_disabled(),
            Asked::new("a.example.", 28),
        ] {
            assert_eq!(answer(&cache, &other, START, 512).0, Cached::Miss);
        }
        let mut out = [0; 512];
        let cached = cache.answer(&plain.query(), Partition(1), START, 512, &mut out);
        assert_eq!(cached, Cached::Miss);
    }

    #[test]
    fn answer_negative_is_fresh_for_the_soa_minimum() {
        let cache = cache();
        let asked = Asked::new("none.example.", 1);
        let message = message("none.example.", 1, 3, &[], &[SOA]);
        assert!(cache.store(&asked.query(), Partition(0), &message, START));
        let (cached, message) = answer(&cache, &asked, after(20), 512);
        assert!(matches!(cached, Cached::Fresh { negative: true, .. }));
        let message = message.unwrap();
        assert_eq!(message.response_code.low(), 3);
        assert_eq!(message.authorities[0].ttl, 40);
        assert_eq!(answer(&cache, &asked, after(60), 512).0, Cached::Miss);
    }

    #[test]
    fn answer_is_stale_only_after_a_failed_refresh_and_for_its_window() {
        let cache = cache();
        let asked = Asked::new("a.example.", 1).edns(false);
        let message = message("a.example.", 1, 0, &["a.example. 9 A 192.0.2.1"], &[]);
        assert!(cache.store(&asked.query(), Partition(0), &message, START));
        assert_eq!(answer(&cache, &asked, after(10), 512).0, Cached::Miss);

        let entry = cache.held(&Key::of(&asked.query(), Partition(0))).unwrap();
        entry.refresh_failed(after(10), Duration::from_secs(30));
        let (cached, message) = answer(&cache, &asked, after(39), 512);
        assert!(matches!(cached, Cached::Stale { .. }));
        assert_eq!(message.unwrap().answers[0].ttl, 30);
        assert_eq!(answer(&cache, &asked, after(40), 512).0, Cached::Miss);

        let window = testing::config().stale.as_secs();
        entry.refresh_failed(after(9 + window - 1), Duration::from_secs(30));
        let (last, _) = answer(&cache, &asked, after(9 + window - 1), 512);
        assert!(matches!(last, Cached::Stale { .. }));
        assert_eq!(
            answer(&cache, &asked, after(9 + window), 512).0,
            Cached::Miss
        );
    }

    #[test]
    fn answer_too_large_loses_its_authority_first_and_then_everything() {
        let cache = cache();
        let asked = Asked::new("a.example.", 16);
        let long = "x".repeat(200);
        let txt = |n| format!("a.example. 9 TXT {n}{long}");
        let ns: Vec<String> = (0..9)
            .map(|n| format!("example. 9 NS {n}{}.example.", &long[..40]))
            .collect();
        let ns: Vec<&str> = ns.iter().map(String::as_str).collect();
        let message = message("a.example.", 16, 0, &[&txt(1), &txt(2)], &ns);
        assert!(cache.store(&asked.query(), Partition(0), &message, START));

        let (_, cut) = answer(&cache, &asked, START, 512);
        let cut = cut.unwrap();
        assert_eq!((cut.answers.len(), cut.authorities.len()), (2, 0));
        assert!(!cut.truncation);
        let (_, cut) = answer(&cache, &asked, START, 400);
        let cut = cut.unwrap();
        assert_eq!((cut.answers.len(), cut.authorities.len()), (0, 0));
        assert!(cut.truncation);
    }

    #[test]
    fn answer_too_large_to_keep_is_counted_and_not_kept() {
        let metrics = Arc::new(Metrics::new());
        let config = CacheConfig {
            entry: 100,
            ..testing::config()
        };
        let cache = Cache::new(config, Arc::clone(&metrics));
        let asked = Asked::new("a.example.", 16);
        let txt = format!("a.example. 9 TXT {}", "x".repeat(100));
        let large = message("a.example.", 16, 0, &[&txt], &[]);
        assert!(cache.store(&asked.query(), Partition(0), &large, START));
        assert_eq!(answer(&cache, &asked, START, 512).0, Cached::Miss);
        assert_eq!(metrics.resolver.limits.entry.get(), 1);

        let zero = message("a.example.", 16, 0, &["a.example. 0 TXT x"], &[]);
        assert!(cache.store(&asked.query(), Partition(0), &zero, START));
        assert_eq!(answer(&cache, &asked, START, 512).0, Cached::Miss);
    }

    #[test]
    fn insert_begun_before_a_flush_is_not_kept() {
        let cache = cache();
        let asked = Asked::new("a.example.", 1);
        let message = message("a.example.", 1, 0, &["a.example. 9 A 192.0.2.1"], &[]);
        let key = Key::of(&asked.query(), Partition(0));
        let begun = cache.generation();
        assert!(cache.store(&asked.query(), Partition(0), &message, START));
        assert_eq!(cache.flush(|found| *found == *key), 1);
        assert_eq!(answer(&cache, &asked, START, 512).0, Cached::Miss);
        let late = cache.read(Key::parts(&key), &message).unwrap();
        cache.keep(&key, late, begun, START);
        assert_eq!(answer(&cache, &asked, START, 512).0, Cached::Miss);
    }

    #[test]
    fn cache_holds_no_more_bytes_than_its_size() {
        let config = CacheConfig {
            size: 100_000,
            ..testing::config()
        };
        let cache = Cache::new(config, Arc::new(Metrics::new()));
        for n in 0..1_000 {
            let name = format!("n{n}.example.");
            let record = format!("{name} 900 A 192.0.2.1");
            let asked = Asked::new(&name, 1);
            let message = message(&name, 1, 0, &[&record], &[]);
            assert!(cache.store(&asked.query(), Partition(0), &message, START));
        }
        let (entries, bytes) = cache.settle(START);
        assert!(bytes <= 100_000, "{bytes}");
        assert!(entries > 100, "{entries}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// An answer out of the cache is within the limit and has the records that came from upstream, its TTLs
        /// less its age; or it has TC and the RRsets that fit, whole.
        #[test]
        fn answer_is_within_the_limit_and_the_same_but_for_its_age(
            hosts in prop::collection::vec((0_u8..255, "[a-z]{1,20}"), 1..30),
            age in 0_u64..200,
            limit in 300_usize..2_000,
            edns in any::<bool>(),
        ) {
            let mut records = vec![String::from("a.example. 200 CNAME b.example.")];
            records.extend(hosts.iter().map(|(n, host)| format!("b.example. {} MX {n} {host}.example.", 200 + u32::from(*n))));
            let records: Vec<&str> = records.iter().map(String::as_str).collect();
            let upstream = message("a.example.", 15, 0, &records, &[]);
            let cache = cache();
            let mut asked = Asked::new("a.EXAMPLE.", 15);
            if edns {
                asked = asked.edns(false);
            }
            prop_assert!(cache.store(&asked.query(), Partition(0), &upstream, START));
            let (cached, message) = answer(&cache, &asked, after(age), limit);
            let fresh = matches!(cached, Cached::Fresh { negative: false, .. });
            prop_assert!(fresh);
            let message = message.unwrap();
            let mut expected = Message::from_vec(&upstream).unwrap().answers;
            for record in &mut expected {
                record.ttl -= u32::try_from(age).unwrap();
            }
            if message.truncation {
                expected.truncate(1);
            }
            prop_assert_eq!(message.answers, expected);
        }
    }
}
