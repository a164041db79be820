//! Metrics of the `replication` topic.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::{counters, gauge, gauges};

/// Handles of the `replication` topic.
#[derive(Debug)]
pub struct Metrics {
    /// Chunk bytes received from nodes that publish the object.
    pub in_origin: IntCounter,
    /// Chunk bytes received from nodes that mirror the object.
    pub in_peer: IntCounter,
    /// Chunk bytes sent of objects this node publishes.
    pub out_origin: IntCounter,
    /// Chunk bytes sent of objects this node mirrors.
    pub out_peer: IntCounter,
    /// Chunks asked for, by [`Outcome`].
    chunks: [IntCounter; Outcome::ALL.len()],
    /// Indexes asked for, by [`IndexOutcome`].
    indexes: [IntCounter; IndexOutcome::ALL.len()],
    /// Manifests, catalogues and nodes that were refused, by [`SealFault`].
    refused: [IntCounter; SealFault::ALL.len()],
    /// Chunks asked for and not answered yet.
    pub in_flight: IntGauge,
    objects: IntGaugeVec,
    sources: IntGaugeVec,
}

/// What became of a chunk that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Verified and kept.
    Kept,
    /// The node was away, too slow, or had a fault.
    Failed,
    /// The node does not hold it.
    Missing,
    /// Its bytes were not those of the manifest.
    Mismatch,
    /// Right, but the store or the disk is full.
    Full,
    /// Right, but the disk had a fault.
    Io,
    /// Called off: another source had it first, or its source was put aside.
    Dropped,
}

/// What became of an index that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexOutcome {
    /// A new one.
    Changed,
    /// As before (304).
    Unchanged,
    /// The node was away, too slow, or had a fault.
    Failed,
    /// Not an index.
    Refused,
}

/// Why a manifest, a catalogue or a node is not what an origin signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealFault {
    /// No signature.
    Missing,
    /// A signature that the key named did not make.
    Wrong,
    /// Another key than the one that is pinned or configured.
    OtherKey,
    /// A catalogue older than one that was known.
    Older,
}

/// Where an object of a mirrored prefix stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectState {
    /// Every chunk is held.
    Whole,
    /// Being fetched.
    Filling,
    /// Waits until another is whole (`filling` objects at once).
    Waiting,
    /// No space, or a fault; tried again at the next index.
    Refused,
}

/// How a node that is mirrored from does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceState {
    /// Asked as needed.
    Up,
    /// Failed lately; asked again after a pause.
    BackOff,
    /// Sent wrong bytes; not asked for a good while.
    CutOff,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let bytes = counters(
            registry,
            "headwater_replication_bytes_total",
            "Chunk bytes received from (in) and sent to (out) other nodes, by the role the sender has for the object.",
            &["direction", "source"],
        );
        let chunks = counters(
            registry,
            "headwater_replication_chunks_total",
            "Chunks asked of other nodes, by outcome.",
            &["outcome"],
        );
        let indexes = counters(
            registry,
            "headwater_replication_indexes_total",
            "Indexes asked of other nodes, by outcome.",
            &["outcome"],
        );
        let refused = counters(
            registry,
            "headwater_replication_signatures_refused_total",
            "Manifests, catalogues and nodes that were refused because of their signature, by what was wrong with it.",
            &["reason"],
        );
        Self {
            refused: resolve(&refused, SealFault::ALL.map(SealFault::label)),
            in_origin: bytes.with_label_values(&["in", "origin"]),
            in_peer: bytes.with_label_values(&["in", "peer"]),
            out_origin: bytes.with_label_values(&["out", "origin"]),
            out_peer: bytes.with_label_values(&["out", "peer"]),
            chunks: resolve(&chunks, Outcome::ALL.map(Outcome::label)),
            indexes: resolve(&indexes, IndexOutcome::ALL.map(IndexOutcome::label)),
            in_flight: gauge(
                registry,
                "headwater_replication_chunks_in_flight",
                "Chunks asked of other nodes and not answered yet.",
            ),
            objects: gauges(
                registry,
                "headwater_replication_objects",
                "Objects in the index of a mirrored prefix, by state.",
                &["prefix", "state"],
            ),
            sources: gauges(
                registry,
                "headwater_replication_source_state",
                "1 for the state the node that is mirrored from is in, else 0.",
                &["node", "state"],
            ),
        }
    }

    /// Counts a chunk that was asked for.
    pub fn chunk(&self, outcome: Outcome) {
        self.chunks[outcome as usize].inc();
    }

    /// Counts an index that was asked for.
    pub fn index(&self, outcome: IndexOutcome) {
        self.indexes[outcome as usize].inc();
    }

    /// Counts a manifest, a catalogue or a node that is not what an origin signed.
    pub fn refused(&self, fault: SealFault) {
        self.refused[fault as usize].inc();
    }

    /// Such refusals so far.
    #[must_use]
    pub fn refusals(&self, fault: SealFault) -> u64 {
        self.refused[fault as usize].get()
    }

    /// Chunks asked for so far with this outcome.
    #[must_use]
    pub fn chunks(&self, outcome: Outcome) -> u64 {
        self.chunks[outcome as usize].get()
    }

    /// Says how many objects of a mirrored prefix are in a state.
    pub fn objects(&self, prefix: &str, state: ObjectState, count: usize) {
        self.objects
            .with_label_values(&[prefix, state.label()])
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Says which state a node is in. `node` is its base URL as configured.
    pub fn source(&self, node: &str, state: SourceState) {
        for one in SourceState::ALL {
            self.sources
                .with_label_values(&[node, one.label()])
                .set(i64::from(one == state));
        }
    }
}

impl Outcome {
    const ALL: [Self; 7] = [
        Self::Kept,
        Self::Failed,
        Self::Missing,
        Self::Mismatch,
        Self::Full,
        Self::Io,
        Self::Dropped,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Failed => "failed",
            Self::Missing => "missing",
            Self::Mismatch => "mismatch",
            Self::Full => "full",
            Self::Io => "io",
            Self::Dropped => "dropped",
        }
    }
}

impl IndexOutcome {
    const ALL: [Self; 4] = [Self::Changed, Self::Unchanged, Self::Failed, Self::Refused];

    fn label(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}

impl SealFault {
    const ALL: [Self; 4] = [Self::Missing, Self::Wrong, Self::OtherKey, Self::Older];

    fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Wrong => "wrong",
            Self::OtherKey => "other_key",
            Self::Older => "older",
        }
    }
}

impl ObjectState {
    fn label(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Filling => "filling",
            Self::Waiting => "waiting",
            Self::Refused => "refused",
        }
    }
}

impl SourceState {
    const ALL: [Self; 3] = [Self::Up, Self::BackOff, Self::CutOff];

    fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::BackOff => "back_off",
            Self::CutOff => "cut_off",
        }
    }
}

fn resolve<const N: usize>(family: &IntCounterVec, labels: [&str; N]) -> [IntCounter; N] {
    labels.map(|label| family.with_label_values(&[label]))
}
