//! Metrics of the node itself: its start, its reloads, its control and metrics listeners.

use prometheus::{IntCounter, IntGauge, Registry};

use super::{counters, gauge};

/// Handles of the node.
#[derive(Debug)]
pub struct Metrics {
    /// When the process was started, Unix seconds.
    pub start_time: IntGauge,
    /// Whether the last reload of configuration and zones found no fault.
    pub reload_good: IntGauge,
    /// Connections turned away because the control socket's bound was reached.
    pub admin_refused: IntCounter,
    /// Connections turned away because the metrics listener's bound was reached.
    pub metrics_refused: IntCounter,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let refused = counters(
            registry,
            "headwater_control_connections_refused_total",
            "Connections turned away because a listener's bound was reached.",
            &["listener"],
        );
        Self {
            start_time: gauge(
                registry,
                "headwater_start_time_seconds",
                "When the process was started, Unix seconds.",
            ),
            reload_good: gauge(
                registry,
                "headwater_last_reload_good",
                "1: the last load of configuration and zones found no fault.",
            ),
            admin_refused: refused.with_label_values(&["admin"]),
            metrics_refused: refused.with_label_values(&["metrics"]),
        }
    }
}
