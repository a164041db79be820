//! One owned Prometheus registry, one struct per topic; handles are resolved at start.
//!
//! Labels are closed sets (or names from the configuration), never client names, paths or hosts.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

pub mod bucket;
pub mod catalog;
pub mod content;
pub mod dns;
pub mod ftp;
pub mod http;
pub mod link;
pub mod node;
pub mod proxy;
pub mod replication;
pub mod resolver;
pub mod transfer;

pub mod peers;
pub mod policy;

/// All metrics of one daemon. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Queries, TCP connections and zones.
    pub dns: dns::Metrics,
    /// Zones between servers.
    pub transfer: transfer::Metrics,
    /// Zones that list zones.
    pub catalog: catalog::Metrics,
    /// The resolver, its cache and its upstreams.
    pub resolver: resolver::Metrics,
    /// The `policy` of the resolver.
    pub policy: policy::Metrics,
    /// HTTP requests and connections.
    pub http: http::Metrics,
    /// FTP sessions.
    pub ftp: ftp::Metrics,
    /// The cache of other servers.
    pub proxy: proxy::Metrics,
    /// Objects and the store.
    pub content: content::Metrics,
    /// What is published from buckets.
    pub bucket: bucket::Metrics,
    /// Chunks fetched from and sent to other nodes.
    pub replication: replication::Metrics,
    /// Nodes among themselves.
    pub peers: peers::Metrics,
    /// Load of the network interfaces.
    pub link: link::Metrics,
    /// The node itself.
    pub node: node::Metrics,
}

impl Metrics {
    /// Registers every metric once. Two daemons in one process have two of these.
    ///
    /// # Panics
    /// If two topics register one name, which a unit test would show first.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let build = gauges(
            &registry,
            "headwater_build_info",
            "Always 1; the labels say what was built.",
            &["version"],
        );
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Self {
            dns: dns::Metrics::new(&registry),
            transfer: transfer::Metrics::new(&registry),
            catalog: catalog::Metrics::new(&registry),
            resolver: resolver::Metrics::new(&registry),
            policy: policy::Metrics::new(&registry),
            http: http::Metrics::new(&registry),
            ftp: ftp::Metrics::new(&registry),
            proxy: proxy::Metrics::new(&registry),
            content: content::Metrics::new(&registry),
            bucket: bucket::Metrics::new(&registry),
            replication: replication::Metrics::new(&registry),
            peers: peers::Metrics::new(&registry),
            link: link::Metrics::new(&registry),
            node: node::Metrics::new(&registry),
            registry,
        }
    }

    /// All metrics as they stand now.
    #[must_use]
    pub fn gather(&self) -> Vec<prometheus::proto::MetricFamily> {
        self.registry.gather()
    }

    /// The text exposition format (version 0.0.4) of all metrics.
    #[must_use]
    pub fn text(&self) -> String {
        prometheus::TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_default()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

const ONCE: &str = "every metric is valid and registered once";

pub(crate) fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    let metric = IntCounter::new(name, help).expect(ONCE);
    registry.register(Box::new(metric.clone())).expect(ONCE);
    metric
}

pub(crate) fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> IntCounterVec {
    let metric = IntCounterVec::new(Opts::new(name, help), labels).expect(ONCE);
    registry.register(Box::new(metric.clone())).expect(ONCE);
    metric
}

pub(crate) fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    let metric = IntGauge::new(name, help).expect(ONCE);
    registry.register(Box::new(metric.clone())).expect(ONCE);
    metric
}

pub(crate) fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    let metric = IntGaugeVec::new(Opts::new(name, help), labels).expect(ONCE);
    registry.register(Box::new(metric.clone())).expect(ONCE);
    metric
}
