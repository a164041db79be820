//! Asks the addresses that were found whether a node of the swarm is there, and lets those that prove it be known.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::super::candidate::{Answer, Candidates, LIFE};
use super::super::client::{Client, Error};
use super::super::swarm::Swarm;
use crate::metrics::peers::{Limit, Way};
use crate::time::Now;

/// What was found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Find {
    /// A node may be at this address; that counts for so long.
    Found(SocketAddr, Way, Duration),
    /// The node at this address is going.
    Left(SocketAddr, Way),
}

/// Where it is said. A cheap handle; what comes faster than it is looked at is left out and counted.
#[derive(Clone, Debug)]
pub(super) struct Finds {
    queue: mpsc::Sender<Find>,
    swarm: Arc<Swarm>,
}

impl Finds {
    pub(super) fn say(&self, find: Find) {
        if self.queue.try_send(find).is_err() {
            self.swarm.metrics().limit(Limit::Candidates);
        }
    }
}

/// Both ends of what is found for `swarm`.
pub(super) fn queue(swarm: &Arc<Swarm>) -> (Finds, mpsc::Receiver<Find>) {
    let (queue, found) = mpsc::channel(swarm.config().candidates);
    let swarm = swarm.clone();
    (Finds { queue, swarm }, found)
}

/// Asks for ever.
pub(super) async fn run(mut found: mpsc::Receiver<Find>, swarm: Arc<Swarm>) {
    let metrics = swarm.metrics();
    let mut candidates = Candidates::new(swarm.run(), swarm.config().candidates);
    let mut asking = JoinSet::new();
    loop {
        let now = Now::read();
        while let Some(address) = candidates.next(now) {
            asking.spawn(ask(address, Arc::clone(&swarm)));
        }
        swarm.directory().sweep(now);
        let count = i64::try_from(candidates.len()).unwrap_or(i64::MAX);
        metrics.candidates.set(count);
        let idle = candidates.idle(now).clamp(SOON, SWEEP);
        tokio::select! {
            Some(find) = found.recv() => match find {
                Find::Found(address, way, life) => {
                    if !candidates.found(address, way, life, Now::read()) {
                        metrics.limit(Limit::Candidates);
                    }
                }
                Find::Left(address, way) => {
                    if candidates.left(address, way) {
                        swarm.directory().left(&base(address), way);
                    }
                }
            },
            Some(Ok((address, answer))) = asking.join_next() => {
                let now = Now::read();
                let (proof, known) = candidates.asked(address, answer, now);
                metrics.proof(proof);
                if let Some(way) = known {
                    swarm.directory().found(base(address), way, Some(LIFE), now);
                }
            }
            () = tokio::time::sleep(idle) => {}
        }
    }
}

async fn ask(address: SocketAddr, swarm: Arc<Swarm>) -> (SocketAddr, Answer) {
    let Ok(client) = Client::new(&base(address), &swarm) else {
        return (address, Answer::Nobody);
    };
    let answer = match client.hello().await {
        Ok(node) => Answer::Node(node),
        Err(error) => {
            tracing::debug!(%error, "no node of the swarm");
            match error {
                Error::Retry { .. } | Error::Stalled { .. } => Answer::Nobody,
                _ => Answer::Stranger,
            }
        }
    };
    (address, answer)
}

fn base(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// Nothing is looked at more often.
const SOON: Duration = Duration::from_millis(10);

/// What is known too long is forgotten at least this often.
const SWEEP: Duration = Duration::from_secs(5);
