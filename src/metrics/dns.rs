//! Metrics of the `dns` topic.
//!
//! UDP workers count into a [`Tally`] of their own and hand it over once per batch, so that a query
//! costs no shared cache line.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, Metric, MetricFamily, MetricType};
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::{ONCE, counter, counters, gauge, gauges};
use crate::dns::{Outcome, Transport};

/// Handles of the `dns` topic.
#[derive(Debug)]
pub struct Metrics {
    queries: [[IntCounter; Outcome::ALL.len()]; Transport::ALL.len()],
    duration: Durations,
    limits: [IntCounter; Limit::ALL.len()],
    log_written: IntCounterVec,
    log_dropped: IntCounterVec,
    /// Queries on the slow path now.
    pub in_flight: IntGauge,
    /// Connections open now: TCP, TLS, HTTPS and QUIC.
    pub tcp_connections: IntGauge,
    /// Connections accepted: TCP, TLS, HTTPS and QUIC.
    pub tcp_accepted: IntCounter,
    /// Failed `accept` calls: the process or the machine is out of descriptors or memory.
    pub accept_failures: IntCounter,
    /// TLS and QUIC handshakes that failed, those that took too long not counted.
    pub handshake_failures: IntCounter,
    /// Answers the kernel did not take.
    pub send_failures: IntCounter,
    zone_serial: IntGaugeVec,
    zone_records: IntGaugeVec,
    zone_reload_failures: IntCounterVec,
    zone_signature_expiry: IntGaugeVec,
    zone_signing_failures: IntCounterVec,
    parent_looks: [IntCounter; ParentLook::ALL.len()],
}

/// What came of asking a parent for DS, for `headwater_zone_parent_looks_total{outcome}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParentLook {
    /// It has what is waited for.
    AsAwaited,
    /// It has not.
    Other,
    /// The answer is not validated.
    Unproven,
    /// There was no answer.
    Failed,
}

impl ParentLook {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::AsAwaited, Self::Other, Self::Unproven, Self::Failed];

    fn label(self) -> &'static str {
        match self {
            Self::AsAwaited => "as_awaited",
            Self::Other => "other",
            Self::Unproven => "unproven",
            Self::Failed => "failed",
        }
    }
}

/// A bound of the front, for `headwater_dns_limit_reached_total{limit}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Queries on the slow path, in all.
    QueriesInFlight,
    /// Queries on the slow path of one client network.
    QueriesInFlightPerNetwork,
    /// A late answer over UDP for a network over its share.
    UdpLate,
    /// TCP connections in all.
    TcpConnections,
    /// TCP connections of one address.
    TcpConnectionsPerAddress,
    /// An idle TCP connection.
    TcpIdle,
    /// A message begun and not finished in time.
    TcpMessage,
    /// Unanswered queries on one connection: no more are read until one is answered.
    TcpUnanswered,
    /// Answers a TCP client left unread: too many bytes, or for too long.
    TcpUnread,
    /// EDNS options of one query beyond those that are looked at.
    EdnsOptions,
    /// A TLS or QUIC handshake that took too long.
    TlsHandshake,
    /// An HTTP/2 connection with too many streams that were reset.
    HttpsResets,
    /// A bucket of the rate limit that was in use and made room for another.
    RateLimitBuckets,
}

impl Limit {
    /// All limits, in the order of their discriminants.
    pub const ALL: [Self; 13] = [
        Self::QueriesInFlight,
        Self::QueriesInFlightPerNetwork,
        Self::UdpLate,
        Self::TcpConnections,
        Self::TcpConnectionsPerAddress,
        Self::TcpIdle,
        Self::TcpMessage,
        Self::TcpUnanswered,
        Self::TcpUnread,
        Self::EdnsOptions,
        Self::TlsHandshake,
        Self::HttpsResets,
        Self::RateLimitBuckets,
    ];

    /// The label value: the configuration key below `[dns]`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::QueriesInFlight => "queries_in_flight",
            Self::QueriesInFlightPerNetwork => "queries_in_flight_per_network",
            Self::UdpLate => "udp_late",
            Self::TcpConnections => "tcp_connections",
            Self::TcpConnectionsPerAddress => "tcp_connections_per_address",
            Self::TcpIdle => "tcp_idle",
            Self::TcpMessage => "tcp_message_time",
            Self::TcpUnanswered => "tcp_unanswered",
            Self::TcpUnread => "tcp_unread",
            Self::EdnsOptions => "edns_options",
            Self::TlsHandshake => "tls_handshake",
            Self::HttpsResets => "https_resets",
            Self::RateLimitBuckets => "rate_limit.buckets",
        }
    }
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let queries = counters(
            registry,
            "headwater_dns_queries_total",
            "Queries by how they came and how they ended; the outcomes sum to all queries.",
            &["transport", "outcome"],
        );
        let limits = counters(
            registry,
            "headwater_dns_limit_reached_total",
            "Times a bound of the DNS front took effect, by configuration key.",
            &["limit"],
        );
        let duration = Durations::new(
            "headwater_dns_query_duration_seconds",
            "Time from the receipt of a query to its answer; those of one batch count alike.",
        );
        registry.register(Box::new(duration.clone())).expect(ONCE);
        let of = |transport: Transport| {
            Outcome::ALL.map(|o| queries.with_label_values(&[transport.label(), o.label()]))
        };
        Self {
            queries: Transport::ALL.map(of),
            duration,
            limits: Limit::ALL.map(|l| limits.with_label_values(&[l.label()])),
            log_written: counters(
                registry,
                "headwater_dns_log_written_total",
                "Lines of the query log and frames of dnstap that were written.",
                &["sink"],
            ),
            log_dropped: counters(
                registry,
                "headwater_dns_log_dropped_total",
                "What of the query log was dropped: exchanges when a ring was full, lines and frames that could not be written.",
                &["sink"],
            ),
            in_flight: gauge(
                registry,
                "headwater_dns_queries_in_flight",
                "Queries on the slow path now.",
            ),
            tcp_connections: gauge(
                registry,
                "headwater_dns_tcp_connections",
                "Connections open now: TCP, TLS, HTTPS and QUIC.",
            ),
            tcp_accepted: counter(
                registry,
                "headwater_dns_tcp_accepted_total",
                "Connections of TCP, TLS, HTTPS and QUIC, those refused by a limit included.",
            ),
            accept_failures: counter(
                registry,
                "headwater_dns_accept_failures_total",
                "Failed accept calls: out of descriptors or memory.",
            ),
            handshake_failures: counter(
                registry,
                "headwater_dns_handshake_failures_total",
                "TLS and QUIC handshakes that failed, those that took too long not counted.",
            ),
            send_failures: counter(
                registry,
                "headwater_dns_send_failures_total",
                "UDP answers the kernel did not take.",
            ),
            zone_serial: gauges(
                registry,
                "headwater_zone_serial",
                "SOA serial in service.",
                &["zone"],
            ),
            zone_records: gauges(
                registry,
                "headwater_zone_records",
                "Records in service.",
                &["zone"],
            ),
            zone_reload_failures: counters(
                registry,
                "headwater_zone_reload_failures_total",
                "Loads of a zone that failed and left the version in service.",
                &["zone"],
            ),
            zone_signature_expiry: gauges(
                registry,
                "headwater_zone_signature_expiry_seconds",
                "When the first signature of a signed zone ends, Unix time.",
                &["zone"],
            ),
            zone_signing_failures: counters(
                registry,
                "headwater_zone_signing_failures_total",
                "Times a zone could not be signed.",
                &["zone"],
            ),
            parent_looks: {
                let looks = counters(
                    registry,
                    "headwater_zone_parent_looks_total",
                    "Times a parent was asked for the DS that a zone waits for.",
                    &["outcome"],
                );
                ParentLook::ALL.map(|look| looks.with_label_values(&[look.label()]))
            },
        }
    }

    /// Counts one query that ended.
    pub fn record(&self, transport: Transport, outcome: Outcome, took: Duration) {
        self.queries[transport as usize][outcome as usize].inc();
        self.duration.observe(took, 1);
    }

    /// Counts a limit that took effect.
    pub fn limit(&self, limit: Limit) {
        self.limits(limit, 1);
    }

    /// Counts a limit that took effect so many times.
    pub fn limits(&self, limit: Limit, times: u64) {
        self.limits[limit as usize].inc_by(times);
    }

    /// How often a limit took effect.
    #[must_use]
    pub fn limit_count(&self, limit: Limit) -> u64 {
        self.limits[limit as usize].get()
    }

    /// How many queries ended so.
    #[must_use]
    pub fn query_count(&self, transport: Transport, outcome: Outcome) -> u64 {
        self.queries[transport as usize][outcome as usize].get()
    }

    /// The counter of what a sink of the query log has written.
    #[must_use]
    pub fn log_written(&self, sink: &str) -> IntCounter {
        self.log_written.with_label_values(&[sink])
    }

    /// The counter of what a sink of the query log has dropped.
    #[must_use]
    pub fn log_dropped(&self, sink: &str) -> IntCounter {
        self.log_dropped.with_label_values(&[sink])
    }

    /// Shows the version of a zone that is in service.
    pub fn zone_in_service(&self, zone: &str, serial: u32, records: usize) {
        self.zone_reload_failures.with_label_values(&[zone]);
        self.zone_serial
            .with_label_values(&[zone])
            .set(i64::from(serial));
        self.zone_records
            .with_label_values(&[zone])
            .set(i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// Shows when the first signature of a zone ends, Unix seconds; `None`: it has none.
    pub fn zone_signed_until(&self, zone: &str, until: Option<u64>) {
        let Some(until) = until else {
            let _ = self.zone_signature_expiry.remove_label_values(&[zone]);
            return;
        };
        self.zone_signing_failures.with_label_values(&[zone]);
        self.zone_signature_expiry
            .with_label_values(&[zone])
            .set(i64::try_from(until).unwrap_or(i64::MAX));
    }

    /// Counts that a zone could not be signed.
    pub fn zone_not_signed(&self, zone: &str) {
        self.zone_signing_failures.with_label_values(&[zone]).inc();
    }

    /// Counts that a parent was asked for DS.
    pub fn parent_asked(&self, look: ParentLook) {
        self.parent_looks[look as usize].inc();
    }

    /// Counts a failed load of a zone.
    pub fn zone_failed(&self, zone: &str) {
        self.zone_reload_failures.with_label_values(&[zone]).inc();
    }

    /// Forgets a zone that is no longer configured.
    pub fn zone_gone(&self, zone: &str) {
        // An error says that the series was not there.
        let _ = self.zone_serial.remove_label_values(&[zone]);
        let _ = self.zone_records.remove_label_values(&[zone]);
        let _ = self.zone_signature_expiry.remove_label_values(&[zone]);
        let _ = self.zone_signing_failures.remove_label_values(&[zone]);
        let _ = self.zone_reload_failures.remove_label_values(&[zone]);
    }
}

/// Queries one thread has answered since it last told [`Metrics`].
#[derive(Debug)]
pub struct Tally {
    transport: Transport,
    outcomes: [u32; Outcome::ALL.len()],
}

impl Tally {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(transport: Transport) -> Self {
        Self {
            transport,
            outcomes: [0; Outcome::ALL.len()],
        }
    }

    /// Counts one query.
    pub fn count(&mut self, outcome: Outcome) {
        self.outcomes[outcome as usize] += 1;
    }

    /// Adds what was counted to `metrics`, each query with the duration `took`, and starts anew.
    pub fn flush(&mut self, metrics: &Metrics, took: Duration) {
        let counters = &metrics.queries[self.transport as usize];
        let mut total = 0;
        for (count, counter) in self.outcomes.iter_mut().zip(counters) {
            if *count > 0 {
                counter.inc_by(u64::from(*count));
                total += u64::from(*count);
                *count = 0;
            }
        }
        if total > 0 {
            metrics.duration.observe(took, total);
        }
    }
}

/// A histogram that takes one value for many queries at once, which the library's does not.
#[derive(Clone, Debug)]
struct Durations {
    desc: Desc,
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct Counts {
    buckets: [AtomicU64; BOUNDS_NS.len() + 1],
    sum_ns: AtomicU64,
}

impl Durations {
    fn new(name: &str, help: &str) -> Self {
        Self {
            desc: Desc::new(name.to_owned(), help.to_owned(), vec![], HashMap::new()).expect(ONCE),
            counts: Arc::new(Counts {
                buckets: std::array::from_fn(|_| AtomicU64::new(0)),
                sum_ns: AtomicU64::new(0),
            }),
        }
    }

    fn observe(&self, took: Duration, weight: u64) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_NS
            .iter()
            .position(|&bound| ns <= bound)
            .unwrap_or(BOUNDS_NS.len());
        self.counts.buckets[bucket].fetch_add(weight, Relaxed);
        self.counts
            .sum_ns
            .fetch_add(ns.saturating_mul(weight), Relaxed);
    }
}

impl Collector for Durations {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    #[expect(clippy::cast_precision_loss, reason = "seconds for people")]
    fn collect(&self) -> Vec<MetricFamily> {
        const NS: f64 = 1e9;
        let mut total = 0;
        let mut buckets = Vec::with_capacity(BOUNDS_NS.len());
        for (i, count) in self.counts.buckets.iter().enumerate() {
            total += count.load(Relaxed);
            if let Some(&bound) = BOUNDS_NS.get(i) {
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(bound as f64 / NS);
                bucket.set_cumulative_count(total);
                buckets.push(bucket);
            }
        }
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(total);
        histogram.set_sample_sum(self.counts.sum_ns.load(Relaxed) as f64 / NS);
        let mut metric = Metric::from_label(vec![]);
        metric.set_histogram(histogram);
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(vec![metric]);
        vec![family]
    }
}

/// Upper bounds of the buckets: a cache hit takes microseconds, a resolution up to seconds.
const BOUNDS_NS: [u64; 14] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    1_000_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
    2_000_000_000,
    5_000_000_000,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tally_flushed_sums_to_its_queries() {
        let metrics = crate::metrics::Metrics::new();
        let mut tally = Tally::new(Transport::Udp);
        for _ in 0..3 {
            tally.count(Outcome::Authoritative);
        }
        tally.count(Outcome::Dropped);
        tally.flush(&metrics.dns, Duration::from_micros(20));
        tally.flush(&metrics.dns, Duration::from_secs(9));
        let text = metrics.text();
        for line in [
            r#"headwater_dns_queries_total{outcome="authoritative",transport="udp"} 3"#,
            r#"headwater_dns_queries_total{outcome="dropped",transport="udp"} 1"#,
            r#"headwater_dns_query_duration_seconds_bucket{le="0.00001"} 0"#,
            r#"headwater_dns_query_duration_seconds_bucket{le="0.000025"} 4"#,
            r#"headwater_dns_query_duration_seconds_bucket{le="+Inf"} 4"#,
            "headwater_dns_query_duration_seconds_sum 0.00008",
            "headwater_dns_query_duration_seconds_count 4",
        ] {
            assert!(text.contains(line), "{line} in:\n{text}");
        }
    }

    #[test]
    fn outcomes_and_limits_are_indexed_by_their_discriminants() {
        for (i, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, i);
        }
        for (i, transport) in Transport::ALL.into_iter().enumerate() {
            assert_eq!(transport as usize, i);
        }
        for (i, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, i);
        }
    }

    #[test]
    fn zone_no_longer_configured_leaves_no_series() {
        let metrics = crate::metrics::Metrics::new();
        metrics.dns.zone_in_service("cdn.test.", 7, 12);
        metrics.dns.zone_failed("cdn.test.");
        assert!(
            metrics
                .text()
                .contains(r#"headwater_zone_serial{zone="cdn.test."} 7"#)
        );
        metrics.dns.zone_gone("cdn.test.");
        assert!(!metrics.text().contains("cdn.test."));
    }
}
