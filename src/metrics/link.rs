//! Metrics of the `link` topic.

use prometheus::{
    Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::{ONCE, counter, counters, gauge, gauges};

/// Handles of the `link` topic.
#[derive(Debug)]
pub struct Metrics {
    transmit: IntCounterVec,
    receive: IntCounterVec,
    capacity: IntGaugeVec,
    utilization: GaugeVec,
    allowance: IntGaugeVec,
    demand: IntGaugeVec,
    background: IntCounterVec,
    delayed: IntCounterVec,
    sharing: Sharing,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Away from this node.
    Transmit,
    /// To it.
    Receive,
}

/// Handles of what replication takes of the link in one direction.
#[derive(Clone, Debug)]
pub struct Background {
    /// Bytes per second it may take.
    pub allowance: IntGauge,
    /// Bytes per second viewers are held to want.
    pub demand: IntGauge,
    /// Bytes it moved.
    pub moved: IntCounter,
    /// Bytes of these that had to wait.
    pub delayed: IntCounter,
}

/// Handles of how a full link is shared among clients.
#[derive(Clone, Debug)]
pub struct Sharing {
    /// Addresses that have connections.
    pub clients: IntGauge,
    /// Bytes per second that each may have; 0: what it will.
    pub level: IntGauge,
    /// Writes put off.
    pub delayed: IntCounter,
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
        let metrics = Self {
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
            allowance: gauges(
                registry,
                "headwater_link_background_allowance_bytes_per_second",
                "Bytes per second that replication may take of the link.",
                &["direction"],
            ),
            demand: gauges(
                registry,
                "headwater_link_viewer_demand_bytes_per_second",
                "Bytes per second that viewers are held to want of the link.",
                &["direction"],
            ),
            background: counters(
                registry,
                "headwater_link_background_bytes_total",
                "Bytes of chunks that replication moved.",
                &["direction"],
            ),
            delayed: counters(
                registry,
                "headwater_link_background_delayed_bytes_total",
                "Bytes of chunks that replication held back for a while, for viewers or for want of capacity.",
                &["direction"],
            ),
            sharing: Sharing {
                clients: gauge(
                    registry,
                    "headwater_link_clients",
                    "Addresses of clients that have connections, IPv6 by their /64.",
                ),
                level: gauge(
                    registry,
                    "headwater_link_client_level_bytes_per_second",
                    "Bytes per second that each client may have of a full link; 0: what it will.",
                ),
                delayed: counter(
                    registry,
                    "headwater_link_client_delayed_writes_total",
                    "Writes to clients put off because these had their share of a full link.",
                ),
            },
        };
        // Shown from the start.
        drop([Direction::Transmit, Direction::Receive].map(|d| metrics.background(d)));
        metrics
    }

    /// The handles of what replication takes in one direction.
    #[must_use]
    pub fn background(&self, direction: Direction) -> Background {
        let name = &[match direction {
            Direction::Transmit => "transmit",
            Direction::Receive => "receive",
        }];
        Background {
            allowance: self.allowance.with_label_values(name),
            demand: self.demand.with_label_values(name),
            moved: self.background.with_label_values(name),
            delayed: self.delayed.with_label_values(name),
        }
    }

    /// The handles of how a full link is shared among clients.
    #[must_use]
    pub fn sharing(&self) -> Sharing {
        self.sharing.clone()
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
