//! Metrics of the `link` topic.

use prometheus::{
    Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::{ONCE, counters, gauges};

/// Handles of the `link` topic.
#[derive(Debug)]
pub struct Metrics {
    transmit: IntCounterVec,
    receive: IntCounterVec,
    capacity: IntGaugeVec,
    utilization: GaugeVec,
}

/// Handles of one link.
#[derive(Clone, Debug)]
pub struct Link {
    /// Bytes sent; follows the kernel's counter.
    pub transmit: IntCounter,
    /// Bytes received; follows the kernel's counter.
    pub receive: IntCounter,
    /// Bytes per second it can carry in one direction.
    pub capacity: IntGauge,
    /// The busier direction's smoothed rate over the capacity.
    pub utilization: Gauge,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let utilization = GaugeVec::new(
            Opts::new(
                "headwater_link_utilization_ratio",
                "Smoothed rate of the link's busier direction over its capacity.",
            ),
            &["link"],
        )
        .expect(ONCE);
        registry
            .register(Box::new(utilization.clone()))
            .expect(ONCE);
        Self {
            transmit: counters(
                registry,
                "headwater_link_transmit_bytes_total",
                "Bytes the link sent, as the kernel counts them.",
                &["link"],
            ),
            receive: counters(
                registry,
                "headwater_link_receive_bytes_total",
                "Bytes the link received, as the kernel counts them.",
                &["link"],
            ),
            capacity: gauges(
                registry,
                "headwater_link_capacity_bytes_per_second",
                "Bytes per second the link can carry in one direction.",
                &["link"],
            ),
            utilization,
        }
    }

    /// The handles of the link named `name` (a network interface).
    #[must_use]
    pub fn link(&self, name: &str) -> Link {
        let name = &[name];
        Link {
            transmit: self.transmit.with_label_values(name),
            receive: self.receive.with_label_values(name),
            capacity: self.capacity.with_label_values(name),
            utilization: self.utilization.with_label_values(name),
        }
    }
}
