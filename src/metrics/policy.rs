//! Metrics of local data and blocklists.

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Registry};

/// Handles of the resolver's policy.
#[derive(Debug)]
pub struct Metrics {
    rules: IntGaugeVec,
    bytes: IntGaugeVec,
    hits: IntCounterVec,
    failures: IntCounterVec,
    /// Answers of upstreams that private addresses were taken out of.
    pub private: IntCounter,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            rules: super::gauges(
                registry,
                "headwater_policy_rules",
                "Rules in service, by list.",
                &["list"],
            ),
            bytes: super::gauges(
                registry,
                "headwater_policy_bytes",
                "Bytes of the rules in service, by list.",
                &["list"],
            ),
            hits: super::counters(
                registry,
                "headwater_policy_hits_total",
                "Queries and answers that a rule decided, by list.",
                &["list"],
            ),
            failures: super::counters(
                registry,
                "headwater_policy_load_failures_total",
                "Loads of a list that failed and left the version in service.",
                &["list"],
            ),
            private: super::counter(
                registry,
                "headwater_policy_private_answers_total",
                "Answers of upstreams that private addresses were taken out of.",
            ),
        }
    }

    /// The counter of what a list decided.
    #[must_use]
    pub fn hits(&self, list: &str) -> IntCounter {
        self.hits.with_label_values(&[list])
    }

    /// Shows the version of a list that is in service.
    pub fn in_service(&self, list: &str, rules: usize, bytes: usize) {
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.failures.with_label_values(&[list]);
        self.rules.with_label_values(&[list]).set(gauge(rules));
        self.bytes.with_label_values(&[list]).set(gauge(bytes));
    }

    /// Counts a failed load of a list.
    pub fn failed(&self, list: &str) {
        self.failures.with_label_values(&[list]).inc();
    }

    /// Forgets a list that is no longer configured.
    pub fn gone(&self, list: &str) {
        // An error says that the series was not there.
        let _ = self.rules.remove_label_values(&[list]);
        let _ = self.bytes.remove_label_values(&[list]);
        let _ = self.hits.remove_label_values(&[list]);
        let _ = self.failures.remove_label_values(&[list]);
    }
}
