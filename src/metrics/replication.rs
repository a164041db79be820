//! Metrics of the `replication` topic.

use prometheus::Registry;

/// Handles of the `replication` topic.
#[derive(Debug)]
pub struct Metrics {}

impl Metrics {
    pub(super) fn new(_registry: &Registry) -> Self {
        Self {}
    }
}
