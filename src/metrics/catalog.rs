//! Metrics of catalog zones.

use prometheus::{IntCounter, IntGaugeVec, Registry};

use super::{counter, gauges};

/// Handles of catalogs.
#[derive(Debug)]
pub struct Metrics {
    members: IntGaugeVec,
    broken: IntGaugeVec,
    /// Member zones not taken because they are configured here or belong to another catalog.
    pub clashes: IntCounter,
    /// Versions of a catalog not followed because they list too many zones.
    pub limit_members: IntCounter,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            members: gauges(
                registry,
                "headwater_catalog_members",
                "Member zones of a catalog zone; of one from elsewhere at most its catalog_members.",
                &["zone"],
            ),
            broken: gauges(
                registry,
                "headwater_catalog_broken",
                "1: the version of a catalog zone in service makes no sense; its members stay as they were.",
                &["zone"],
            ),
            clashes: counter(
                registry,
                "headwater_catalog_clashes_total",
                "Member zones not taken because they are configured here or belong to another catalog.",
            ),
            limit_members: counter(
                registry,
                "headwater_catalog_members_limit_total",
                "Versions of a catalog zone not followed because they list more than catalog_members zones.",
            ),
        }
    }

    /// Shows how many members a catalog has.
    pub fn members(&self, catalog: &str, members: usize) {
        let gauge = self.members.with_label_values(&[catalog]);
        gauge.set(i64::try_from(members).unwrap_or(i64::MAX));
    }

    /// Shows whether a catalog is broken.
    pub fn broken(&self, catalog: &str, broken: bool) {
        let gauge = self.broken.with_label_values(&[catalog]);
        gauge.set(i64::from(broken));
    }

    /// Forgets a zone that is no longer configured.
    pub fn gone(&self, zone: &str) {
        // An error says that the series was not there.
        let _ = self.members.remove_label_values(&[zone]);
        let _ = self.broken.remove_label_values(&[zone]);
    }
}
