//! The replication loops of the mirrored prefixes, started and watched together.
//!
//! The daemon runs one [`Replicator`]; it owns one [`Mirror`] per prefix. On stop, requests in flight are dropped;
//! after a crash the store's own bitmaps say what is still missing, so that only chunks that were in flight are
//! fetched again.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::MirrorConfig;
use super::mirror::Mirror;
use super::swarm::Swarm;
use crate::content::library::Library;
use crate::content::sign::PublicKey;
use crate::content::store::Store;
use crate::metrics::Metrics;

/// The replicator of all mirrored prefixes.
#[derive(Debug)]
pub struct Replicator {
    mirrors: Vec<Mirror>,
    handle: MirrorHandle,
}

/// The state of one mirrored prefix, for `status` and `content list`.
#[derive(Clone, Debug, Default)]
pub struct MirrorStatus {
    /// The prefix.
    pub prefix: String,
    /// The node that gave the index last.
    pub from: String,
    /// Objects in its index.
    pub objects: usize,
    /// Objects not whole here yet.
    pub filling: usize,
    /// When the index was read last, Unix milliseconds.
    pub seen_unix_ms: Option<u64>,
    /// The key of the origin, or of the first of several, once it is known.
    pub key: Option<PublicKey>,
    /// The version of its catalogue.
    pub version: Option<u64>,
    /// What went wrong last, until it goes right.
    pub problem: Option<String>,
}

/// Reads the replicator's state. A cheap handle.
#[derive(Clone, Debug)]
pub struct MirrorHandle {
    mirrors: Arc<[Arc<ArcSwap<MirrorStatus>>]>,
}

impl MirrorHandle {
    /// The state of every mirrored prefix.
    #[must_use]
    pub fn status(&self) -> Vec<MirrorStatus> {
        let one = |status: &Arc<ArcSwap<MirrorStatus>>| MirrorStatus::clone(&status.load());
        self.mirrors.iter().map(one).collect()
    }
}

impl Replicator {
    /// A replicator that is not running yet. `node` is this node's name; it makes the pauses of different nodes differ.
    /// Where prefixes lie within each other, the longer one's mirror, or bucket, has its objects alone.
    #[must_use]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "handles are moved in, as everywhere"
    )]
    pub fn new(
        mirrors: Vec<MirrorConfig>,
        node: String,
        store: Store,
        library: Library,
        swarm: &Arc<Swarm>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let own = library.books();
        let own = own.iter().map(|book| book.prefix().to_owned());
        let prefixes: Vec<String> = mirrors
            .iter()
            .map(|m| m.prefix.clone())
            .chain(own)
            .collect();
        let mirrors: Vec<Mirror> = mirrors
            .into_iter()
            .map(|config| {
                let within = |p: &&String| p.starts_with(&config.prefix) && **p != config.prefix;
                let inner = prefixes.iter().filter(within).cloned().collect();
                let (store, library) = (store.clone(), library.clone());
                let (swarm, metrics) = (swarm.clone(), metrics.clone());
                Mirror::new(config, inner, &node, store, library, swarm, metrics)
            })
            .collect();
        let handle = MirrorHandle {
            mirrors: mirrors.iter().map(Mirror::status).collect(),
        };
        Self { mirrors, handle }
    }

    /// Its state, for others to read.
    #[must_use]
    pub fn handle(&self) -> MirrorHandle {
        self.handle.clone()
    }

    /// Replicates until `stop`.
    ///
    /// # Errors
    /// What ended it early; a node that is away or lies is no such end.
    pub async fn run(self, stop: CancellationToken) -> Result<(), anyhow::Error> {
        let mut running = JoinSet::new();
        for mirror in self.mirrors {
            running.spawn(mirror.run(stop.clone()));
        }
        while let Some(ended) = running.join_next().await {
            ended??;
        }
        stop.cancelled().await;
        Ok(())
    }
}
