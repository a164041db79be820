//! Metrics of the `http` topic.

use prometheus::Registry;

/// Handles of the `http` topic.
#[derive(Debug)]
pub struct Metrics {}

impl Metrics {
    pub(super) fn new(_registry: &Registry) -> Self {
        Self {}
    }
}
