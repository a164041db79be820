//! Finding other nodes: announcements to those that are mirrored from (trackers).
//!
//! What is found goes into the swarm's directory, from which the mirrors take it; nobody waits for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::MirrorConfig;
use super::client::{Client, check_base};
use super::swarm::Swarm;
use super::tracker::LIFE;
use crate::metrics::peers::Way;
use crate::time::Now;

/// What looks for other nodes.
#[derive(Debug)]
pub struct Discovery {
    trackers: Vec<(Client, String)>,
    port: u16,
    swarm: Arc<Swarm>,
}

impl Discovery {
    /// For the mirrors of this node, which serves HTTP on `port`.
    #[must_use]
    pub fn new(mirrors: &[MirrorConfig], port: u16, swarm: Arc<Swarm>) -> Self {
        let tracks = swarm.config().discover.contains(&Way::Tracker);
        let named = mirrors.iter().filter(|_| tracks).flat_map(|mirror| {
            let client = |base: &String| Client::new(base, swarm.signer()).ok();
            let clients = mirror.from.iter().filter_map(client);
            clients.map(|client| (client, mirror.prefix.clone()))
        });
        Self {
            trackers: named.collect(),
            port,
            swarm,
        }
    }

    /// Looks for nodes until `stop`.
    ///
    /// # Errors
    /// A task that panicked.
    pub async fn run(self, stop: CancellationToken) -> Result<(), anyhow::Error> {
        let mut running = JoinSet::new();
        for (client, prefix) in self.trackers {
            let work = announce(client, prefix, self.port, self.swarm.clone());
            running.spawn(stop.clone().run_until_cancelled_owned(work));
        }
        while let Some(ended) = running.join_next().await {
            ended?;
        }
        stop.cancelled().await;
        Ok(())
    }
}

/// Announces this node to one tracker again and again: soon at first, while others may come, then rarely.
async fn announce(client: Client, prefix: String, port: u16, swarm: Arc<Swarm>) {
    let mut pause = FIRST;
    loop {
        match client.announce(&prefix, port).await {
            Ok(others) => {
                let now = Now::read();
                for peer in others.peers {
                    if let Ok(base) = check_base(&format!("http://{peer}")) {
                        let directory = swarm.directory();
                        directory.found(base, Way::Tracker, Some(LIFE * 2), now);
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "not announced"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(OFTEN);
    }
}

/// Pause after the first announcement.
const FIRST: Duration = Duration::from_millis(250);

/// Longest pause between announcements.
const OFTEN: Duration = Duration::from_secs(20);
