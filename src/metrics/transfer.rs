//! Metrics of zones between servers.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use super::{counter, counters, gauge};

/// Handles of transfers, NOTIFY and signatures.
#[derive(Debug)]
pub struct Metrics {
    transfers: IntCounterVec,
    /// Transfers to secondaries now.
    pub outgoing: IntGauge,
    /// Zones asked for at primaries now.
    pub incoming: IntGauge,
    /// Zones that went out of service because no primary confirmed them.
    pub expired: IntCounter,
    /// Updates done, and how often some of them were committed.
    pub updates: IntCounter,
    /// See `updates`.
    pub commits: IntCounter,
    /// Updates refused because as many as allowed waited for their zone.
    pub limit_updates: IntCounter,
    /// Requests refused because as many transfers as allowed were going out.
    pub limit_outgoing: IntCounter,
    /// Times a zone was not asked for yet because as many as allowed were.
    pub limit_incoming: IntCounter,
    /// NOTIFY messages that waited because as many as allowed were under way.
    pub limit_notifies: IntCounter,
    sent_bytes: IntCounter,
    /// Signed messages that were not believed.
    pub signatures_refused: IntCounter,
    notices: IntCounterVec,
}

/// Which way a transfer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From a primary.
    In,
    /// To a secondary.
    Out,
}

/// What is transferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The whole zone.
    Axfr,
    /// Differences.
    Ixfr,
}

/// How a transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Whole.
    Done,
    /// Not allowed.
    Refused,
    /// Broken off on the way, by either side.
    Broken,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let transfers = counters(
            registry,
            "headwater_zone_transfers_total",
            "Zone transfers by direction, kind and how they ended.",
            &["direction", "kind", "outcome"],
        );
        for direction in [Direction::In, Direction::Out] {
            for kind in [Kind::Axfr, Kind::Ixfr] {
                for ended in [Ended::Done, Ended::Refused, Ended::Broken] {
                    transfers.with_label_values(&labels(direction, kind, ended));
                }
            }
        }
        let notices = counters(
            registry,
            "headwater_zone_notifies_total",
            "NOTIFY messages to other servers, by how they ended.",
            &["outcome"],
        );
        for answered in ["answered", "refused", "silent"] {
            notices.with_label_values(&[answered]);
        }
        Self {
            transfers,
            outgoing: gauge(
                registry,
                "headwater_zone_transfers_outgoing",
                "Transfers to secondaries now.",
            ),
            incoming: gauge(
                registry,
                "headwater_zone_transfers_incoming",
                "Zones asked for at primaries now; at most dns.transfer.incoming.",
            ),
            expired: counter(
                registry,
                "headwater_zone_expired_total",
                "Secondary zones out of service because no primary confirmed them in time.",
            ),
            updates: counter(
                registry,
                "headwater_zone_updates_total",
                "Dynamic updates judged in commits that changed their zone.",
            ),
            commits: counter(
                registry,
                "headwater_zone_update_commits_total",
                "Commits of updates: one entry on disk and one version of the zone for all updates that waited.",
            ),
            limit_updates: counter(
                registry,
                "headwater_zone_updates_waiting_limit_total",
                "Updates refused because updates_waiting of them waited for their zone.",
            ),
            limit_outgoing: counter(
                registry,
                "headwater_zone_transfers_outgoing_limit_total",
                "Requests refused because dns.transfer.outgoing transfers were going out.",
            ),
            limit_incoming: counter(
                registry,
                "headwater_zone_transfers_incoming_limit_total",
                "Times a zone waited because dns.transfer.incoming zones were being asked for.",
            ),
            limit_notifies: counter(
                registry,
                "headwater_zone_notifies_limit_total",
                "NOTIFY messages that waited because dns.transfer.notifies were under way.",
            ),
            sent_bytes: counter(
                registry,
                "headwater_zone_transfer_sent_bytes_total",
                "Bytes of zone transfers to secondaries.",
            ),
            signatures_refused: counter(
                registry,
                "headwater_dns_signatures_refused_total",
                "Messages signed with a key (TSIG) that were not believed.",
            ),
            notices,
        }
    }

    /// Counts a transfer that ended.
    pub fn ended(&self, direction: Direction, kind: Kind, ended: Ended) {
        self.transfers
            .with_label_values(&labels(direction, kind, ended))
            .inc();
    }

    /// Counts bytes that left.
    pub fn sent(&self, bytes: usize) {
        self.sent_bytes.inc_by(bytes as u64);
    }

    /// Counts a NOTIFY that ended: `answered`, `refused` or `silent`.
    pub fn notice(&self, outcome: &'static str) {
        self.notices.with_label_values(&[outcome]).inc();
    }
}

fn labels(direction: Direction, kind: Kind, ended: Ended) -> [&'static str; 3] {
    [
        match direction {
            Direction::In => "in",
            Direction::Out => "out",
        },
        match kind {
            Kind::Axfr => "axfr",
            Kind::Ixfr => "ixfr",
        },
        match ended {
            Ended::Done => "done",
            Ended::Refused => "refused",
            Ended::Broken => "broken",
        },
    ]
}
