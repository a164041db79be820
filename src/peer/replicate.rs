//! The replication loop of the mirrored prefixes.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::MirrorConfig;
use crate::content::library::Library;
use crate::content::store::Store;
use crate::metrics::Metrics;

/// The replicator of all mirrored prefixes.
#[derive(Debug)]
pub struct Replicator {}

/// The state of one mirrored prefix, for `status` and `content list`.
#[derive(Clone, Debug, Default)]
pub struct MirrorStatus {
    /// The prefix.
    pub prefix: String,
    /// The node asked last.
    pub from: String,
    /// Objects in its index.
    pub objects: usize,
    /// Objects not whole here yet.
    pub filling: usize,
    /// When the index was read last, Unix milliseconds.
    pub seen_unix_ms: Option<u64>,
    /// What went wrong last, until it goes right.
    pub problem: Option<String>,
}

/// Reads the replicator's state. A cheap handle.
#[derive(Clone, Debug)]
pub struct MirrorHandle {}

impl MirrorHandle {
    /// The state of every mirrored prefix.
    #[must_use]
    pub fn status(&self) -> Vec<MirrorStatus> {
        unimplemented!()
    }
}

impl Replicator {
    /// A replicator that is not running yet.
    #[must_use]
    pub fn new(
        mirrors: Vec<MirrorConfig>,
        node: String,
        store: Store,
        library: Library,
        metrics: Arc<Metrics>,
    ) -> Self {
        let _ = (mirrors, node, store, library, metrics);
        unimplemented!()
    }

    /// Its state, for others to read.
    #[must_use]
    pub fn handle(&self) -> MirrorHandle {
        unimplemented!()
    }

    /// Replicates until `stop`.
    ///
    /// # Errors
    /// What ended it early; a node that is away or lies is no such end.
    pub async fn run(self, stop: CancellationToken) -> Result<(), anyhow::Error> {
        let _ = stop;
        unimplemented!()
    }
}
