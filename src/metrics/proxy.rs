//! Metrics of the proxy cache.

use prometheus::{IntCounter, IntGauge, Registry};

use super::{counter, counters, gauge};

/// Handles of the proxy cache.
#[derive(Debug)]
pub struct Metrics {
    requests: [IntCounter; Outcome::ALL.len()],
    upstream: [IntCounter; Upstream::ALL.len()],
    limits: [IntCounter; Limit::ALL.len()],
    disk_failures: [IntCounter; Disk::ALL.len()],
    /// Body bytes received from upstreams.
    pub received: IntCounter,
    /// Responses kept.
    pub entries: IntGauge,
    /// Large bodies being brought by a thread each.
    pub fill_threads: IntGauge,
    /// Bytes of responses held in memory.
    pub memory: IntGauge,
    /// Bytes of responses held on disk.
    pub disk: IntGauge,
    /// Responses that made room for others.
    pub evicted: IntCounter,
    /// Responses dropped because a later request made them stale, or an operator did.
    pub purged: IntCounter,
    /// Transfers ended because nobody read them any more.
    pub abandoned: IntCounter,
}

/// What became of a proxied request in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered from the cache.
    Hit,
    /// Answered stale: while it is validated, or because the upstream failed.
    Stale,
    /// Answered from the cache after the upstream confirmed it.
    Revalidated,
    /// Fetched.
    Miss,
    /// Shared the fetch of another request.
    Collapsed,
    /// Sent on without the cache: its method, fields or answer wanted it so.
    Pass,
    /// The upstream could not answer.
    Failed,
    /// Refused here.
    Refused,
}

/// How a request to an upstream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// 2xx or 3xx.
    Ok,
    /// 304.
    NotModified,
    /// 4xx.
    ClientError,
    /// 5xx.
    ServerError,
    /// No answer in time.
    Timeout,
    /// No connection, or it broke.
    Broken,
}

/// A bound that was hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Requests at upstreams at once.
    Requests,
    /// Time to connect.
    Connect,
    /// Time to the head.
    HeadTime,
    /// Time between bytes.
    Silence,
    /// Responses for one target.
    Variants,
    /// Bytes of a response.
    Object,
    /// Large bodies that are brought by a thread each at once.
    FillThreads,
}

/// What went wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// It could not be written.
    Write,
    /// It could not be read.
    Read,
    /// It was not what had been written.
    Rot,
    /// There was no room for it.
    Full,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let requests = counters(
            registry,
            "headwater_proxy_requests_total",
            "Proxied requests, by what became of them in the cache.",
            &["outcome"],
        );
        let upstream = counters(
            registry,
            "headwater_proxy_upstream_requests_total",
            "Requests to upstreams of the proxy, by outcome.",
            &["outcome"],
        );
        let limits = counters(
            registry,
            "headwater_proxy_limit_reached_total",
            "Times a bound of the proxy took effect, by its key.",
            &["limit"],
        );
        let disk_failures = counters(
            registry,
            "headwater_proxy_disk_failures_total",
            "Files of the proxy cache that could not be written or read, or had changed.",
            &["reason"],
        );
        Self {
            requests: Outcome::ALL.map(|o| requests.with_label_values(&[o.label()])),
            upstream: Upstream::ALL.map(|o| upstream.with_label_values(&[o.label()])),
            limits: Limit::ALL.map(|l| limits.with_label_values(&[l.label()])),
            disk_failures: Disk::ALL.map(|d| disk_failures.with_label_values(&[d.label()])),
            received: counter(
                registry,
                "headwater_proxy_upstream_received_bytes_total",
                "Body bytes received from upstreams of the proxy.",
            ),
            entries: gauge(
                registry,
                "headwater_proxy_entries",
                "Responses kept by the proxy.",
            ),
            fill_threads: gauge(
                registry,
                "headwater_proxy_fill_threads",
                "Large bodies that a thread each is bringing into the proxy's cache.",
            ),
            memory: gauge(
                registry,
                "headwater_proxy_memory_bytes",
                "Bytes of responses the proxy holds in memory.",
            ),
            disk: gauge(
                registry,
                "headwater_proxy_disk_bytes",
                "Bytes of responses the proxy holds on disk.",
            ),
            evicted: counter(
                registry,
                "headwater_proxy_evicted_total",
                "Responses the proxy dropped to make room.",
            ),
            purged: counter(
                registry,
                "headwater_proxy_purged_total",
                "Responses the proxy dropped because a later request or an operator wanted it.",
            ),
            abandoned: counter(
                registry,
                "headwater_proxy_abandoned_total",
                "Transfers from upstreams ended because nobody read them any more.",
            ),
        }
    }

    /// Counts a proxied request.
    pub fn request(&self, outcome: Outcome) {
        self.requests[outcome as usize].inc();
    }

    /// Proxied requests so far.
    #[must_use]
    pub fn requests(&self, outcome: Outcome) -> u64 {
        self.requests[outcome as usize].get()
    }

    /// Counts a request to an upstream.
    pub fn upstream(&self, outcome: Upstream) {
        self.upstream[outcome as usize].inc();
    }

    /// Counts a bound that took effect.
    pub fn limit(&self, limit: Limit) {
        self.limits[limit as usize].inc();
    }

    /// Counts a file that failed.
    pub fn disk_failure(&self, reason: Disk) {
        self.disk_failures[reason as usize].inc();
    }
}

impl Outcome {
    const ALL: [Self; 8] = [
        Self::Hit,
        Self::Stale,
        Self::Revalidated,
        Self::Miss,
        Self::Collapsed,
        Self::Pass,
        Self::Failed,
        Self::Refused,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Revalidated => "revalidated",
            Self::Miss => "miss",
            Self::Collapsed => "collapsed",
            Self::Pass => "pass",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}

impl Upstream {
    const ALL: [Self; 6] = [
        Self::Ok,
        Self::NotModified,
        Self::ClientError,
        Self::ServerError,
        Self::Timeout,
        Self::Broken,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotModified => "not_modified",
            Self::ClientError => "client_error",
            Self::ServerError => "server_error",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
        }
    }
}

impl Limit {
    const ALL: [Self; 7] = [
        Self::Requests,
        Self::Connect,
        Self::HeadTime,
        Self::Silence,
        Self::Variants,
        Self::Object,
        Self::FillThreads,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Connect => "connect",
            Self::HeadTime => "head_time",
            Self::Silence => "silence",
            Self::Variants => "variants",
            Self::Object => "object",
            Self::FillThreads => "fill_threads",
        }
    }
}

impl Disk {
    const ALL: [Self; 4] = [Self::Write, Self::Read, Self::Rot, Self::Full];

    fn label(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::Rot => "rot",
            Self::Full => "full",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_counts_its_own_series() {
        let metrics = Metrics::new(&Registry::new());
        for (i, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(i, outcome as usize);
            metrics.request(outcome);
            assert_eq!(metrics.requests(outcome), 1);
        }
        assert!(
            Upstream::ALL
                .iter()
                .enumerate()
                .all(|(i, o)| i == *o as usize)
        );
        assert!(Limit::ALL.iter().enumerate().all(|(i, o)| i == *o as usize));
        assert!(Disk::ALL.iter().enumerate().all(|(i, o)| i == *o as usize));
    }
}
