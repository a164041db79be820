//! Metrics of the `link` topic.

use prometheus::Registry;

/// Handles of the `link` topic.
#[derive(Debug)]
pub struct Metrics {}

impl Metrics {
    pub(super) fn new(_registry: &Registry) -> Self {
        Self {}
    }
}
