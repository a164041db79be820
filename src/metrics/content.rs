//! Metrics of the `content` topic.

use prometheus::Registry;

/// Handles of the `content` topic.
#[derive(Debug)]
pub struct Metrics {}

impl Metrics {
    pub(super) fn new(_registry: &Registry) -> Self {
        Self {}
    }
}
