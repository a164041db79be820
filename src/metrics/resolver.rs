//! Metrics of the `resolver` topic.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Handles of the `resolver` topic.
#[derive(Debug)]
pub struct Metrics {
    /// Queries to the cache, by outcome.
    pub cache: Arc<CacheRequests>,
    /// Bytes the cache holds.
    pub cache_bytes: IntGauge,
    /// Entries the cache holds.
    pub cache_entries: IntGauge,
    /// Failures remembered (RFC 9520).
    pub failures: IntGauge,
    /// Fetches in flight.
    pub fetches: IntGauge,
    /// Names denied by NSEC ranges (RFC 8198).
    pub denied: IntCounter,
    /// Bytes of what recursion keeps beside answers.
    pub recursion_bytes: IntGauge,
    /// Packets sent to upstreams: datagrams, connects, TLS handshakes and queries on connections.
    pub upstream_packets: IntCounter,
    /// Queries sent to an upstream once more, since no reply came.
    pub retransmissions: IntCounter,
    /// Packets that came to a socket of ours and were not the reply waited for.
    pub rejected: Rejected,
    /// UDP sockets open towards upstreams.
    pub sockets: IntGauge,
    /// Connections open to upstreams: TCP, TLS and HTTPS.
    pub streams: IntGauge,
    /// Connections to upstreams over TLS and HTTPS, by how opening them ended.
    pub handshakes: Handshakes,
    /// Answers fetched anew before they expired.
    pub prefetches: Prefetches,
    /// Answers taken over from before the start.
    pub restored: IntGauge,
    /// The share of queries that the cache answered in the first two seconds with queries.
    pub warm_ratio: Gauge,
    /// Trust anchors that roll by themselves (RFC 5011).
    pub anchors: Anchors,
    /// Bounds that were hit.
    pub limits: Limits,
    upstream_queries: IntCounterVec,
}

/// One counter per bound of the resolver: `headwater_resolver_limit_hits_total{limit}`.
#[derive(Debug)]
pub struct Limits {
    /// Clients turned away because too many wait for one fetch.
    pub waiters: IntCounter,
    /// Queries turned away because too many fetches are in flight.
    pub fetches: IntCounter,
    /// Client queries that used up their upstream packets.
    pub packets: IntCounter,
    /// Client queries that used up their time.
    pub time: IntCounter,
    /// Answers too large to be kept.
    pub entry: IntCounter,
    /// Answers with too many records of one type to be kept.
    pub records: IntCounter,
    /// Fetches refused because too many are in flight beneath one zone.
    pub zone_fetches: IntCounter,
    /// Queries that had to wait because too many are in flight to their server.
    pub server_fetches: IntCounter,
    /// Queries not sent because all UDP sockets are in use.
    pub sockets: IntCounter,
    /// Queries not sent because of too many connections.
    pub streams: IntCounter,
    /// Names of name servers that nested too deep.
    pub depth: IntCounter,
    /// Aliases that were too many for one question or in one reply, or led in a circle.
    pub aliases: IntCounter,
    /// Zones with more servers without glue than are looked up for one question.
    pub glueless: IntCounter,
    /// Referrals with more servers than are kept.
    pub name_servers: IntCounter,
    /// Answers that would have taken more signature checks than one query may.
    pub signatures: IntCounter,
    /// RRsets with more signatures than are looked at, none of which held.
    pub signatures_per_rrset: IntCounter,
    /// Signatures for which not every key of their tag was tried.
    pub keys_per_tag: IntCounter,
    /// DS sets of which not every record was looked at.
    pub ds_records: IntCounter,
    /// Proofs of zones that count as unsigned since their NSEC3 records take too many iterations.
    pub nsec3_iterations: IntCounter,
    /// Proofs that would have taken more hashes than one query may.
    pub nsec3_hashes: IntCounter,
    /// Answers that do not validate and were not asked of one more server.
    pub other_servers: IntCounter,
    /// Questions sent to a server as often as they may be, over one transport, without a reply.
    pub sends: IntCounter,
    /// Replies over TCP or TLS that came while other queries waited, and queries over HTTPS that had to wait, since the connection
    /// carried as many as it may.
    pub stream_queries: IntCounter,
    /// Refreshes put off or not made because too many were under way.
    pub refreshes: IntCounter,
    /// Answers in use that were not refreshed because too many waited for it.
    pub refreshes_waiting: IntCounter,
}

/// Trust anchors that roll by themselves.
#[derive(Clone, Debug)]
pub struct Anchors {
    /// Keys by their state, in one word: `headwater_resolver_trust_anchor_keys{state}`.
    pub keys: [(&'static str, IntGauge); 5],
    /// Looks at a zone's keys that were proven: `headwater_resolver_trust_anchor_looks_total{outcome="seen"}`.
    pub seen: IntCounter,
    /// Those that were not.
    pub failed: IntCounter,
    /// Looks that showed more keys than are tracked.
    pub crowded: IntCounter,
}

/// How opening a connection over TLS or HTTPS ended: `headwater_resolver_upstream_handshakes_total{outcome}`.
#[derive(Debug)]
pub struct Handshakes {
    /// Open, after a whole handshake.
    pub full: IntCounter,
    /// Open, by a session from before.
    pub resumed: IntCounter,
    /// The certificate is not for the name, not valid now, or nobody trusted vouches for it.
    pub certificate: IntCounter,
    /// No agreement: versions, ciphers, HTTP/2, or what came is no TLS.
    pub failed: IntCounter,
    /// Nobody listens there, or there is no way.
    pub unreachable: IntCounter,
    /// It took too long.
    pub timeout: IntCounter,
}

/// How the refreshes of answers about to expire ended: `headwater_resolver_prefetches_total{outcome}`.
#[derive(Debug)]
pub struct Prefetches {
    /// There is a fresh answer.
    pub done: IntCounter,
    /// There is none, or one was being fetched already.
    pub failed: IntCounter,
    /// Too many were under way.
    pub dropped: IntCounter,
}

/// Packets from a server that were not the reply waited for, by what was wrong:
/// `headwater_resolver_upstream_rejected_total{reason}`.
#[derive(Clone, Debug)]
pub struct Rejected {
    /// No DNS response, or one that ends early.
    pub malformed: IntCounter,
    /// Another id.
    pub id: IntCounter,
    /// Another question.
    pub question: IntCounter,
    /// The question in another case than it was asked in.
    pub case: IntCounter,
    /// Somebody else's cookie.
    pub cookie: IntCounter,
    /// Nothing was waited for any more.
    pub late: IntCounter,
}

/// How the queries to one upstream ended: `headwater_resolver_upstream_queries_total{upstream,outcome}`.
/// A query may be several packets; each has one outcome.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// NOERROR or NXDOMAIN.
    pub answer: IntCounter,
    /// Any other response code.
    pub failure: IntCounter,
    /// Nothing came in time.
    pub timeout: IntCounter,
    /// Not sent or not understood.
    pub error: IntCounter,
    /// Another upstream was faster, or nobody waits any more.
    pub abandoned: IntCounter,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let cache = Arc::<CacheRequests>::default();
        registry
            .register(Box::new(Sums::new(Arc::clone(&cache))))
            .expect(super::ONCE);
        let limits = super::counters(
            registry,
            "headwater_resolver_limit_hits_total",
            "Times a bound of the resolver was hit.",
            &["limit"],
        );
        let limit = |name: &str| limits.with_label_values(&[name]);
        let rejected = super::counters(
            registry,
            "headwater_resolver_upstream_rejected_total",
            "Packets from upstreams that were not the reply waited for, by what was wrong.",
            &["reason"],
        );
        let handshakes = super::counters(
            registry,
            "headwater_resolver_upstream_handshakes_total",
            "Connections to upstreams over TLS and HTTPS, by how opening them ended.",
            &["outcome"],
        );
        let handshake = |name: &str| handshakes.with_label_values(&[name]);
        let prefetches = super::counters(
            registry,
            "headwater_resolver_prefetches_total",
            "Refreshes of answers in use that were about to expire, by how they ended.",
            &["outcome"],
        );
        let warm_ratio = Gauge::new(
            "headwater_resolver_cache_warm_hit_ratio",
            "Share of the queries of the first two seconds with queries that the cache answered.",
        )
        .expect(super::ONCE);
        registry
            .register(Box::new(warm_ratio.clone()))
            .expect(super::ONCE);
        let anchors = super::gauges(
            registry,
            "headwater_resolver_trust_anchor_keys",
            "Keys of trust anchors that were shown (RFC 5011), by whether they are believed.",
            &["state"],
        );
        let anchor_looks = super::counters(
            registry,
            "headwater_resolver_trust_anchor_looks_total",
            "Looks at the keys of trust anchors (RFC 5011), by whether those believed had signed what was seen.",
            &["outcome"],
        );
        let reject = |name: &str| rejected.with_label_values(&[name]);
        Self {
            cache,
            cache_bytes: super::gauge(
                registry,
                "headwater_resolver_cache_bytes",
                "Bytes the resolver cache holds, keys and bookkeeping included.",
            ),
            cache_entries: super::gauge(
                registry,
                "headwater_resolver_cache_entries",
                "Answers the resolver cache holds, expired ones included.",
            ),
            failures: super::gauge(
                registry,
                "headwater_resolver_failures",
                "Questions whose failure is remembered (RFC 9520).",
            ),
            fetches: super::gauge(
                registry,
                "headwater_resolver_fetches",
                "Fetches from upstreams in flight.",
            ),
            denied: super::counter(
                registry,
                "headwater_resolver_denied_by_range_total",
                "Names and types denied by what validated NSEC records prove, without asking (RFC 8198).",
            ),
            recursion_bytes: super::gauge(
                registry,
                "headwater_resolver_recursion_bytes",
                "Bytes of RRsets, delegations and keys kept to resolve from the root.",
            ),
            upstream_packets: super::counter(
                registry,
                "headwater_resolver_upstream_packets_total",
                "Datagrams, connects, TLS handshakes and queries on connections sent to upstreams.",
            ),
            retransmissions: super::counter(
                registry,
                "headwater_resolver_upstream_retransmissions_total",
                "Queries sent to an upstream once more, since no reply came.",
            ),
            rejected: Rejected {
                malformed: reject("malformed"),
                id: reject("id"),
                question: reject("question"),
                case: reject("case"),
                cookie: reject("cookie"),
                late: reject("late"),
            },
            sockets: super::gauge(
                registry,
                "headwater_resolver_upstream_sockets",
                "UDP sockets open towards upstreams.",
            ),
            streams: super::gauge(
                registry,
                "headwater_resolver_upstream_streams",
                "Connections open to upstreams: TCP, TLS and HTTPS.",
            ),
            handshakes: Handshakes {
                full: handshake("full"),
                resumed: handshake("resumed"),
                certificate: handshake("certificate"),
                failed: handshake("failed"),
                unreachable: handshake("unreachable"),
                timeout: handshake("timeout"),
            },
            prefetches: Prefetches {
                done: prefetches.with_label_values(&["done"]),
                failed: prefetches.with_label_values(&["failed"]),
                dropped: prefetches.with_label_values(&["dropped"]),
            },
            restored: super::gauge(
                registry,
                "headwater_resolver_cache_restored_entries",
                "Answers taken over from before the start.",
            ),
            warm_ratio,
            anchors: Anchors {
                keys: ["pending", "valid", "missing", "revoked", "removed"]
                    .map(|state| (state, anchors.with_label_values(&[state]))),
                seen: anchor_looks.with_label_values(&["seen"]),
                failed: anchor_looks.with_label_values(&["failed"]),
                crowded: limit("anchor_keys"),
            },
            limits: Limits {
                waiters: limit("waiters"),
                fetches: limit("fetches"),
                packets: limit("packets"),
                time: limit("time"),
                entry: limit("entry"),
                records: limit("records"),
                zone_fetches: limit("zone_fetches"),
                server_fetches: limit("server_fetches"),
                sockets: limit("sockets"),
                streams: limit("streams"),
                depth: limit("depth"),
                aliases: limit("aliases"),
                glueless: limit("glueless"),
                name_servers: limit("name_servers"),
                signatures: limit("signatures"),
                signatures_per_rrset: limit("signatures_per_rrset"),
                keys_per_tag: limit("keys_per_tag"),
                ds_records: limit("ds_records"),
                nsec3_iterations: limit("nsec3_iterations"),
                nsec3_hashes: limit("nsec3_hashes"),
                other_servers: limit("other_servers"),
                sends: limit("sends"),
                stream_queries: limit("stream_queries"),
                refreshes: limit("refreshes"),
                refreshes_waiting: limit("refreshes_waiting"),
            },
            upstream_queries: super::counters(
                registry,
                "headwater_resolver_upstream_queries_total",
                "Queries to upstreams, by how they ended.",
                &["upstream", "outcome"],
            ),
        }
    }

    /// The handles of one configured upstream.
    #[must_use]
    pub fn upstream(&self, upstream: &str) -> Upstream {
        let handle = |outcome| {
            self.upstream_queries
                .with_label_values(&[upstream, outcome])
        };
        Upstream {
            answer: handle("answer"),
            failure: handle("failure"),
            timeout: handle("timeout"),
            error: handle("error"),
            abandoned: handle("abandoned"),
        }
    }
}

/// How the cache met a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheRequest {
    /// Fresh and positive.
    Hit,
    /// Expired, given because no upstream answered.
    Stale,
    /// Not held, or expired and fetched anew.
    Miss,
    /// Fresh NXDOMAIN or NODATA.
    Negative,
}

impl CacheRequest {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Hit, "hit"),
        (Self::Stale, "stale"),
        (Self::Miss, "miss"),
        (Self::Negative, "negative"),
    ];
}

/// `headwater_resolver_cache_requests_total{outcome}`, counted per packet.
///
/// A plain counter would be one cache line that every DNS thread writes for every packet. So each thread adds
/// to one of several shards, and the shards are summed when somebody looks.
#[derive(Debug, Default)]
pub struct CacheRequests {
    shards: [Shard; SHARDS],
}

/// Two cache lines, since neighbours are prefetched in pairs.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Shard([AtomicU64; CacheRequest::ALL.len()]);

impl CacheRequests {
    /// Counts one query.
    #[inline]
    pub fn count(&self, request: CacheRequest) {
        // Threads have stacks of their own, megabytes apart: the address of a local tells them apart without
        // a thread-local or a registration. A collision costs a little time, never a count.
        let local = 0_u8;
        let address = std::ptr::from_ref(&local).addr() as u64 >> 20;
        let shard = address.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 60;
        self.shards[shard as usize % SHARDS].0[request as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Queries so far that ended as `request`.
    #[must_use]
    pub fn get(&self, request: CacheRequest) -> u64 {
        self.shards
            .iter()
            .map(|shard| shard.0[request as usize].load(Ordering::Relaxed))
            .sum()
    }
}

/// What the registry has of [`CacheRequests`].
#[derive(Debug)]
struct Sums {
    requests: Arc<CacheRequests>,
    counters: Mutex<IntCounterVec>,
    desc: Vec<Desc>,
}

impl Sums {
    fn new(requests: Arc<CacheRequests>) -> Self {
        let options = Opts::new(
            "headwater_resolver_cache_requests_total",
            "Queries to the resolver cache, by outcome.",
        );
        let counters = IntCounterVec::new(options, &["outcome"]).expect(super::ONCE);
        Self {
            requests,
            desc: counters.desc().into_iter().cloned().collect(),
            counters: Mutex::new(counters),
        }
    }
}

impl Collector for Sums {
    fn desc(&self) -> Vec<&Desc> {
        self.desc.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let counters = self.counters.lock().expect("no panic while it is held");
        for (request, label) in CacheRequest::ALL {
            let counter = counters.with_label_values(&[label]);
            counter.inc_by(self.requests.get(request).saturating_sub(counter.get()));
        }
        counters.collect()
    }
}

const SHARDS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_requests_of_many_threads_are_summed_in_the_text() {
        let metrics = crate::metrics::Metrics::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        metrics.resolver.cache.count(CacheRequest::Hit);
                    }
                    metrics.resolver.cache.count(CacheRequest::Negative);
                });
            }
        });
        for _ in 0..2 {
            let text = metrics.text();
            for line in [
                "headwater_resolver_cache_requests_total{outcome=\"hit\"} 4000",
                "headwater_resolver_cache_requests_total{outcome=\"negative\"} 4",
                "headwater_resolver_cache_requests_total{outcome=\"miss\"} 0",
            ] {
                assert!(text.contains(line), "{line} in {text}");
            }
        }
    }
}
