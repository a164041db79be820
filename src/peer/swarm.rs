//! What the mirrors of this node and its HTTP server share: who is known, who is let in, what is on its way here.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::directory::Directory;
use super::exchange::COMING;
use super::secret::{Gate, Refused, Secret, Signer};
use super::tracker::{Full, Others, Tracker};
use crate::content::chunk::Digest;
use crate::link::pace::Pace;
use crate::metrics::Metrics;
use crate::metrics::peers::{Limit, Way};
use crate::time::Now;

/// Settings of what nodes do among themselves.
#[derive(Clone, Debug)]
pub struct SwarmConfig {
    /// What all nodes of the swarm know; `None`: anybody is let in.
    pub secret: Option<Secret>,
    /// How other nodes are found.
    pub discover: Vec<Way>,
    /// Base URLs of nodes that are known from the start.
    pub known: Vec<String>,
    /// Nodes known at most.
    pub nodes: usize,
    /// Announcements remembered as a tracker at most.
    pub tracked: usize,
    /// Chunks in flight to one source, if there are others.
    pub in_flight: usize,
    /// A source that sends nothing for so long in the middle of a chunk has failed.
    pub silence: Duration,
    /// Addresses at most that were found and have not all been asked yet who is there.
    pub candidates: usize,
    /// How nodes of one network hear of each other.
    pub lan: LanConfig,
    /// How nodes find each other in the DHT.
    pub dht: DhtConfig,
}

/// Settings of announcements on the local networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanConfig {
    /// Multicast groups and their ports.
    pub groups: Vec<SocketAddr>,
    /// Names of interfaces; none: all that are up and take multicast, except loopback.
    pub interfaces: Vec<String>,
    /// How often this node announces itself.
    pub interval: Duration,
    /// Announcements of others looked at in a second.
    pub beacons: u32,
}

/// Settings of the BitTorrent DHT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhtConfig {
    /// Hosts and ports of nodes of the DHT to begin with; none: this node is the first.
    pub bootstrap: Vec<String>,
    /// Where this node speaks to it, over UDP.
    pub listen: SocketAddrV4,
    /// Whether it answers others from the start, not only when it was seen to be reachable.
    pub serve: bool,
    /// How often it looks others up and announces itself.
    pub interval: Duration,
}

/// The state of one node in the swarm.
#[derive(Debug)]
pub struct Swarm {
    config: SwarmConfig,
    /// Drawn at the start.
    run: u64,
    gate: Option<Gate>,
    signer: Option<Arc<Signer>>,
    tracker: Option<Tracker>,
    directory: Directory,
    coming: Mutex<HashMap<Digest, Vec<u32>>>,
    pace: Arc<Pace>,
    metrics: Arc<Metrics>,
}

impl Default for SwarmConfig {
    fn default() -> Self {
        Self {
            secret: None,
            discover: vec![Way::Static, Way::Tracker],
            known: Vec::new(),
            nodes: 64,
            tracked: 4_096,
            in_flight: 4,
            silence: Duration::from_secs(5),
            candidates: 256,
            lan: LanConfig {
                groups: Vec::new(),
                interfaces: Vec::new(),
                interval: Duration::from_secs(30),
                beacons: 200,
            },
            dht: DhtConfig {
                bootstrap: Vec::new(),
                listen: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0),
                serve: false,
                interval: Duration::from_secs(600),
            },
        }
    }
}

impl Swarm {
    /// The swarm of a node; `run` is drawn at its start.
    #[must_use]
    pub fn new(config: SwarmConfig, run: u64, metrics: Arc<Metrics>) -> Self {
        let directory = Directory::new(config.nodes, metrics.clone());
        if config.discover.contains(&Way::Static) {
            let never = Now {
                mono_ns: 0,
                unix_ms: 0,
            };
            for base in &config.known {
                directory.found(base.clone(), Way::Static, None, never);
            }
        }
        let secret = config.secret.clone();
        let tracks = config.discover.contains(&Way::Tracker);
        Self {
            run,
            gate: secret.clone().map(|secret| Gate::new(secret, RUNS)),
            signer: secret.map(|secret| Arc::new(Signer::new(secret, run))),
            tracker: tracks.then(|| Tracker::new(config.tracked)),
            directory,
            coming: Mutex::default(),
            pace: Pace::new(u64::MAX, 1.0, &metrics),
            config,
            metrics,
        }
    }

    /// Holds replication back by `pace`.
    #[must_use]
    pub fn paced(mut self, pace: Arc<Pace>) -> Self {
        self.pace = pace;
        self
    }

    /// What holds replication back for viewers.
    #[must_use]
    pub fn pace(&self) -> &Arc<Pace> {
        &self.pace
    }

    /// Its settings.
    #[must_use]
    pub fn config(&self) -> &SwarmConfig {
        &self.config
    }

    /// The number by which this node knows itself.
    #[must_use]
    pub fn run(&self) -> u64 {
        self.run
    }

    /// What signs this node's requests.
    #[must_use]
    pub fn signer(&self) -> Option<Arc<Signer>> {
        self.signer.clone()
    }

    /// Where it counts.
    #[must_use]
    pub fn metrics(&self) -> &crate::metrics::peers::Metrics {
        &self.metrics.peers
    }

    /// The nodes that are known.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Judges a request of another node; returns the proof its answer carries, if nodes prove themselves.
    ///
    /// # Errors
    /// Why it is not let in.
    pub fn admit(
        &self,
        method: &str,
        target: &str,
        field: Option<&str>,
        now: Now,
    ) -> Result<Option<String>, Refused> {
        let metrics = &self.metrics.peers;
        let judged = match &self.gate {
            None => Ok(None),
            Some(gate) => gate.admit(method, target, field, now).map(Some),
        };
        match &judged {
            Ok(_) => metrics.admitted.inc(),
            Err(refused) => {
                metrics.refused.inc();
                if *refused == Refused::Full {
                    metrics.limit(Limit::Runs);
                }
            }
        }
        judged
    }

    /// Takes the announcement of a node at `from`; `None` if this node is no tracker.
    #[must_use]
    pub fn announced(
        &self,
        from: IpAddr,
        port: u16,
        prefix: &str,
        now: Now,
    ) -> Option<Result<Others, Full>> {
        let tracker = self.tracker.as_ref()?;
        let answer = tracker.announce(SocketAddr::new(from, port), prefix, now, now.mono_ns);
        if answer.is_err() {
            self.metrics.peers.limit(Limit::Tracked);
        }
        let tracked = i64::try_from(tracker.len()).unwrap_or(i64::MAX);
        self.metrics.peers.tracked.set(tracked);
        Some(answer)
    }

    /// The chunks of a version that are on their way here.
    #[must_use]
    pub fn coming(&self, id: Digest) -> Vec<u32> {
        let coming = self.coming.lock().unwrap_or_else(PoisonError::into_inner);
        coming.get(&id).cloned().unwrap_or_default()
    }

    /// Says which chunks of a version are on their way here; empty: none any more.
    pub fn expect(&self, id: Digest, mut chunks: Vec<u32>) {
        chunks.truncate(COMING);
        let mut coming = self.coming.lock().unwrap_or_else(PoisonError::into_inner);
        if chunks.is_empty() {
            coming.remove(&id);
        } else {
            coming.insert(id, chunks);
        }
    }
}

/// Runs of nodes whose requests are told apart.
const RUNS: usize = 4_096;
