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
    wasted: [IntCounter; Waste::ALL.len()],
    /// Sources that were put aside for what they sent or did not send.
    pub put_aside: IntCounter,
    heard: [IntCounter; Heard::ALL.len()],
    /// Beacons sent on the local networks.
    pub beacons_sent: IntCounter,
    /// Beacons that could not be sent.
    pub beacons_failed: IntCounter,
    /// Sockets on which beacons are heard: one for each group and interface.
    pub beacon_sockets: IntGauge,
    /// Addresses at which a node may be.
    pub candidates: IntGauge,
    proofs: [IntCounter; Proof::ALL.len()],
    /// Rounds of looking up and announcing in the DHT that went right.
    pub dht_rounds: IntCounter,
    /// Those that did not.
    pub dht_failed: IntCounter,
    /// Addresses that the DHT named.
    pub dht_addresses: IntCounter,
}

/// How a node was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It is configured.
    Static,
    /// A node that is mirrored from named it.
    Tracker,
    /// It said so itself, to all on its network.
    Lan,
    /// It announced itself in the BitTorrent DHT.
    Dht,
}

/// What a datagram on the local network was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A node's beacon.
    Taken,
    /// This node's own.
    Own,
    /// No beacon.
    Malformed,
    /// A beacon of a node that has another secret.
    Stranger,
    /// A beacon of another time.
    Time,
    /// A beacon that was heard before.
    Replayed,
    /// A beacon of one node more than are remembered.
    Full,
    /// Not looked at: too many in this second.
    Dropped,
}

/// What came of asking an address whether a node is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A node that proved itself.
    Member,
    /// A node that is known by another address.
    Again,
    /// This node itself.
    Own,
    /// Something that did not prove to be of the swarm.
    Stranger,
    /// Nothing.
    Away,
}

/// Why bytes of a chunk were received in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waste {
    /// They are not the chunk's, or more than it has.
    Wrong,
    /// It broke off, or stalled.
    Broken,
    /// It was had from another source meanwhile.
    Late,
    /// It could not be kept.
    Unkept,
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
    /// Addresses at which a node may be.
    Candidates,
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
        let wasted = counters(
            registry,
            "headwater_replication_wasted_bytes_total",
            "Chunk bytes received in vain: wrong, broken off, had from another source meanwhile, or not to be kept.",
            &["why"],
        );
        let bitmaps = counters(
            registry,
            "headwater_peers_bitmaps_total",
            "Bitmaps asked of other nodes, by outcome.",
            &["outcome"],
        );
        let heard = counters(
            registry,
            "headwater_peers_beacons_received_total",
            "Datagrams received where nodes announce themselves on the local network, by what they were.",
            &["outcome"],
        );
        let sent = counters(
            registry,
            "headwater_peers_beacons_sent_total",
            "Announcements of this node on its local networks.",
            &["outcome"],
        );
        let proofs = counters(
            registry,
            "headwater_peers_proofs_total",
            "Addresses that were found and asked to prove that a node is there, by outcome.",
            &["outcome"],
        );
        let rounds = counters(
            registry,
            "headwater_peers_dht_rounds_total",
            "Rounds of looking others up and announcing this node in the DHT, by outcome.",
            &["outcome"],
        );
        Self {
            heard: Heard::ALL.map(|outcome| heard.with_label_values(&[outcome.label()])),
            beacons_sent: sent.with_label_values(&["sent"]),
            beacons_failed: sent.with_label_values(&["failed"]),
            beacon_sockets: gauge(
                registry,
                "headwater_peers_beacon_sockets",
                "Sockets on which announcements of nodes on the local networks are heard.",
            ),
            candidates: gauge(
                registry,
                "headwater_peers_candidates",
                "Addresses that were found, at which a node may be.",
            ),
            proofs: Proof::ALL.map(|outcome| proofs.with_label_values(&[outcome.label()])),
            dht_rounds: rounds.with_label_values(&["done"]),
            dht_failed: rounds.with_label_values(&["failed"]),
            dht_addresses: counter(
                registry,
                "headwater_peers_dht_addresses_total",
                "Addresses of nodes that the DHT named.",
            ),
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
            wasted: Waste::ALL.map(|why| wasted.with_label_values(&[why.label()])),
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

    /// Counts a datagram on the local network.
    pub fn heard(&self, outcome: Heard) {
        self.heard[outcome as usize].inc();
    }

    /// Counts what came of asking an address.
    pub fn proof(&self, outcome: Proof) {
        self.proofs[outcome as usize].inc();
    }

    /// Counts a bound that took effect.
    pub fn limit(&self, limit: Limit) {
        self.limits[limit as usize].inc();
    }

    /// Counts bytes of a chunk that were received in vain.
    pub fn waste(&self, why: Waste, bytes: u64) {
        self.wasted[why as usize].inc_by(bytes);
    }

    /// Bytes of chunks received in vain so far.
    #[must_use]
    pub fn wasted(&self, why: Waste) -> u64 {
        self.wasted[why as usize].get()
    }
}

impl Waste {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Wrong, Self::Broken, Self::Late, Self::Unkept];

    fn label(self) -> &'static str {
        match self {
            Self::Wrong => "wrong",
            Self::Broken => "broken",
            Self::Late => "late",
            Self::Unkept => "unkept",
        }
    }
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Static, Self::Tracker, Self::Lan, Self::Dht];

    /// Its name in metrics and the configuration.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Tracker => "tracker",
            Self::Lan => "lan",
            Self::Dht => "dht",
        }
    }
}

impl Heard {
    const ALL: [Self; 8] = [
        Self::Taken,
        Self::Own,
        Self::Malformed,
        Self::Stranger,
        Self::Time,
        Self::Replayed,
        Self::Full,
        Self::Dropped,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Own => "own",
            Self::Malformed => "malformed",
            Self::Stranger => "stranger",
            Self::Time => "time",
            Self::Replayed => "replayed",
            Self::Full => "full",
            Self::Dropped => "dropped",
        }
    }
}

impl Proof {
    const ALL: [Self; 5] = [
        Self::Member,
        Self::Again,
        Self::Own,
        Self::Stranger,
        Self::Away,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Again => "again",
            Self::Own => "own",
            Self::Stranger => "stranger",
            Self::Away => "away",
        }
    }
}

impl Limit {
    const ALL: [Self; 5] = [
        Self::Known,
        Self::Tracked,
        Self::Runs,
        Self::Silence,
        Self::Candidates,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Tracked => "tracked",
            Self::Runs => "runs",
            Self::Silence => "silence",
            Self::Candidates => "candidates",
        }
    }
}
