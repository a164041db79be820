//! Metrics of the `dns` topic.

use prometheus::Registry;

/// Handles of the `dns` topic.
#[derive(Debug)]
pub struct Metrics {}

impl Metrics {
    pub(super) fn new(_registry: &Registry) -> Self {
        Self {}
    }
}
