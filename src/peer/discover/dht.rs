//! Meeting in the BitTorrent DHT (BEP 5): this node looks up who announced itself at the meeting points, and announces
//! itself there. Over IPv4, which is all the library speaks.
//!
//! Anybody can announce anything there, so what is found is a candidate and no more. The library runs on a thread of its own;
//! should it panic, on what others send it, this node goes on without it and starts it anew.

use std::collections::BTreeSet;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use mainline::async_dht::AsyncDht;
use mainline::{Dht, Id, ServerSettings};
use tokio::task::JoinSet;

use super::super::swarm::{DhtConfig, Swarm};
use super::jittered;
use super::vet::{Find, Finds};
use crate::metrics::peers::Way;

/// A place in the DHT.
pub(super) type Point = [u8; 20];

/// Where others are met.
#[derive(Clone, Debug)]
pub(super) struct Meeting {
    /// Here this node announces itself, and looks who else did.
    pub(super) own: Vec<Point>,
    /// Here it only looks.
    pub(super) others: Vec<Point>,
}

/// Meets others for ever, who are told that HTTP is served on `port`.
pub(super) async fn run(meeting: Meeting, port: u16, swarm: Arc<Swarm>, finds: Finds) {
    let mut count = 0;
    loop {
        let (meeting, swarm, finds) = (meeting.clone(), swarm.clone(), finds.clone());
        let mut session = JoinSet::new(); // Ends with this future.
        let (run, metrics) = (swarm.run(), swarm.clone());
        session.spawn(async move { meet(&meeting, port, &swarm, &finds).await });
        match session.join_next().await {
            Some(Ok(Ok(()))) | None => {}
            Some(Ok(Err(error))) => tracing::warn!("DHT: {error:#}"),
            Some(Err(error)) => tracing::error!(%error, "DHT: begun anew"),
        }
        metrics.metrics().dht_failed.inc();
        count += 1;
        tokio::time::sleep(jittered(AGAIN, run, count)).await;
    }
}

/// Rounds of looking up and announcing: often at first, while others may come, then rarely.
async fn meet(
    meeting: &Meeting,
    port: u16,
    swarm: &Swarm,
    finds: &Finds,
) -> Result<(), anyhow::Error> {
    let (config, metrics) = (&swarm.config().dht, swarm.metrics());
    let dht = join(config).await?;
    let mut pause = FIRST.min(config.interval);
    let mut failing = false;
    for count in 0.. {
        // One that names nobody to begin with knows only who looks for itself: also one that came up later than this node.
        let own = *dht.info().await.id();
        let _ = tokio::time::timeout(PATIENCE, dht.find_node(own)).await;
        for point in meeting.own.iter().chain(&meeting.others) {
            let id = Id::from(*point);
            let found = tokio::time::timeout(PATIENCE, look_up(&dht, id)).await;
            for address in found.unwrap_or_default() {
                metrics.dht_addresses.inc();
                let life = config.interval * 2 + PATIENCE;
                finds.say(Find::Found(SocketAddr::V4(address), Way::Dht, life));
            }
        }
        for point in &meeting.own {
            let id = Id::from(*point);
            let told = tokio::time::timeout(PATIENCE, dht.announce_peer(id, Some(port))).await;
            let problem = match told {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("not done within {PATIENCE:?}")),
            };
            match &problem {
                None => metrics.dht_rounds.inc(),
                Some(_) => metrics.dht_failed.inc(),
            }
            if let (Some(problem), false) = (&problem, failing) {
                tracing::warn!(problem, "not announced in the DHT");
            }
            failing = problem.is_some();
        }
        tokio::time::sleep(jittered(pause, swarm.run(), count)).await;
        pause = (pause * 2).min(config.interval);
    }
    Ok(())
}

/// A node of the DHT.
///
/// # Errors
/// No name of those to begin with has an address, or the socket cannot be had.
async fn join(config: &DhtConfig) -> Result<AsyncDht, anyhow::Error> {
    let mut known: Vec<SocketAddrV4> = Vec::new();
    for name in &config.bootstrap {
        match tokio::time::timeout(NAMES, tokio::net::lookup_host(name)).await {
            Ok(Ok(addresses)) => known.extend(addresses.filter_map(|address| match address {
                SocketAddr::V4(address) => Some(address),
                SocketAddr::V6(_) => None,
            })),
            Ok(Err(error)) => tracing::debug!(name, %error, "no address"),
            Err(_) => tracing::debug!(name, "no address within {NAMES:?}"),
        }
    }
    if known.is_empty() && !config.bootstrap.is_empty() {
        anyhow::bail!("no name of peers.dht_bootstrap has an IPv4 address");
    }
    let (listen, serve) = (config.listen, config.serve);
    // It waits for its thread.
    let dht = tokio::task::spawn_blocking(move || {
        let mut builder = Dht::builder();
        builder
            .bind_address(*listen.ip())
            .port(listen.port())
            .bootstrap(&known)
            .server_settings(ServerSettings {
                max_info_hashes: POINTS,
                max_peers_per_info_hash: PEERS,
                max_immutable_values: VALUES,
                max_mutable_values: VALUES,
                ..ServerSettings::default()
            });
        if serve {
            builder.server_mode();
        }
        builder.build()
    });
    let dht = dht.await?;
    let dht = dht.with_context(|| format!("peers.dht_listen: {listen}"))?;
    Ok(dht.as_async())
}

/// The addresses that announced themselves at a point; at most [`FOUND`].
async fn look_up(dht: &AsyncDht, id: Id) -> BTreeSet<SocketAddrV4> {
    let mut found = BTreeSet::new();
    let mut answers = dht.get_peers(id);
    while let Some(addresses) = answers.next().await {
        let room = FOUND - found.len();
        found.extend(addresses.into_iter().filter(|a| a.port() != 0).take(room));
        if found.len() >= FOUND {
            break;
        }
    }
    found
}

/// Addresses taken of one look-up.
const FOUND: usize = 200;

/// What is kept for others where this node answers them: points, addresses at each, values of each kind.
const POINTS: usize = 256;
const PEERS: usize = 128;
const VALUES: usize = 64;

/// Pause after the first round.
const FIRST: Duration = Duration::from_secs(1);

/// Pause before another try when the DHT cannot be joined.
const AGAIN: Duration = Duration::from_secs(60);

/// One look-up or announcement takes a few seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a name to begin with is looked up.
const NAMES: Duration = Duration::from_secs(5);
