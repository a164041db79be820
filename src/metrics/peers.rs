//! Metrics of the `peers` topic: who is known, who is let in.

use prometheus::{IntCounter, IntGauge, Registry};

use super::{counter, counters, gauge, gauges};

/// Handles of the `peers` topic.
#[derive(Debug)]
pub struct Metrics {
    known: [IntGauge; Way::ALL.len()],
    limits: [IntCounter; Limit::ALL.len()],
    /// Requests between nodes that proved to know the secret (or need not).
    pub admitted: IntCounter,
    /// Requests that did not.
    pub refused: IntCounter,
    /// Announcements that count at this tracker.
    pub tracked: IntGauge,
    /// Bitmaps asked for that came.
    pub bitmaps: IntCounter,
    /// Bitmaps asked for that did not come or made no sense.
    pub bitmaps_failed: IntCounter,
    /// Chunk bytes that were received in vain: wrong, or had from another source meanwhile.
    pub wasted: IntCounter,
    /// Sources that were put aside for what they sent or did not send.
    pub put_aside: IntCounter,
}

/// How a node was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It is configured.
    Static,
    /// A node that is mirrored from named it.
    Tracker,
}

/// A bound that took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Nodes known.
    Known,
    /// Announcements remembered as a tracker.
    Tracked,
    /// Nodes that prove themselves at once.
    Runs,
    /// Silence of a source.
    Silence,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let known = gauges(
            registry,
            "headwater_peers_known",
            "Nodes known beside those a mirror names, by how they were found.",
            &["way"],
        );
        let limits = counters(
            registry,
            "headwater_peers_limit_reached_total",
            "Bounds among nodes that took effect.",
            &["limit"],
        );
        let requests = counters(
            registry,
            "headwater_peers_requests_total",
            "Requests of other nodes, by whether they were let in.",
            &["outcome"],
        );
        let bitmaps = counters(
            registry,
            "headwater_peers_bitmaps_total",
            "Bitmaps asked of other nodes, by outcome.",
            &["outcome"],
        );
        Self {
            known: Way::ALL.map(|way| known.with_label_values(&[way.label()])),
            limits: Limit::ALL.map(|limit| limits.with_label_values(&[limit.label()])),
            admitted: requests.with_label_values(&["admitted"]),
            refused: requests.with_label_values(&["refused"]),
            tracked: gauge(
                registry,
                "headwater_peers_tracked",
                "Announcements of other nodes that count at this tracker.",
            ),
            bitmaps: bitmaps.with_label_values(&["kept"]),
            bitmaps_failed: bitmaps.with_label_values(&["failed"]),
            wasted: counter(
                registry,
                "headwater_replication_wasted_bytes_total",
                "Chunk bytes received in vain: wrong, or had from another source meanwhile.",
            ),
            put_aside: counter(
                registry,
                "headwater_replication_sources_put_aside_total",
                "Times a source was not asked for half a minute or longer, for what it sent or did not send.",
            ),
        }
    }

    /// Says how many nodes are known by one way.
    pub fn known(&self, way: Way, count: usize) {
        self.known[way as usize].set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts a bound that took effect.
    pub fn limit(&self, limit: Limit) {
        self.limits[limit as usize].inc();
    }
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Static, Self::Tracker];

    /// Its name in metrics and the configuration.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Tracker => "tracker",
        }
    }
}

impl Limit {
    const ALL: [Self; 4] = [Self::Known, Self::Tracked, Self::Runs, Self::Silence];

    fn label(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Tracked => "tracked",
            Self::Runs => "runs",
            Self::Silence => "silence",
        }
    }
}
