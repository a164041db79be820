//! Finding other nodes: announcements to those that are mirrored from (trackers), to all on the local networks
//! ([`lan`]), and in the BitTorrent DHT ([`dht`]). Who publishes announces itself as well, so that a mirror that knows
//! nothing but its origin's key finds it.
//!
//! What a tracker names goes into the swarm's directory, from which the mirrors take it; what is heard or looked up has to
//! prove itself first ([`vet`]). Nobody waits for any of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::MirrorConfig;
use super::client::{Client, check_base};
use super::secret::Secret;
use super::swarm::Swarm;
use super::tracker::LIFE;
use crate::content::sign::PublicKey;
use crate::metrics::peers::Way;
use crate::time::Now;

mod vet;

mod lan;

mod dht;

/// What looks for other nodes.
#[derive(Debug)]
pub struct Discovery {
    trackers: Vec<(Client, String)>,
    here: Here,
    meeting: dht::Meeting,
    swarm: Arc<Swarm>,
}

/// What others are told of this node.
#[derive(Clone, Debug)]
pub struct Here {
    /// Its name.
    pub node: String,
    /// Where it serves HTTP.
    pub http: Vec<SocketAddr>,
}

/// What this node publishes.
#[derive(Clone, Debug)]
pub struct Published {
    /// The key it signs with.
    pub key: PublicKey,
    /// URL path prefixes; each begins and ends with `/`.
    pub prefixes: Vec<String>,
}

impl Here {
    fn port(&self) -> Option<u16> {
        self.http.first().map(SocketAddr::port)
    }
}

impl Discovery {
    /// For the mirrors of this node, and for those who mirror what it publishes.
    #[must_use]
    pub fn new(
        mirrors: &[MirrorConfig],
        published: &Published,
        here: Here,
        swarm: Arc<Swarm>,
    ) -> Self {
        let tracks = swarm.config().discover.contains(&Way::Tracker);
        let named = mirrors.iter().filter(|_| tracks).flat_map(|mirror| {
            let client = |base: &String| Client::new(base, &swarm).ok();
            let clients = mirror.from.iter().filter_map(client);
            clients.map(|client| (client, mirror.prefix.clone()))
        });
        Self {
            trackers: named.collect(),
            here,
            meeting: meeting(mirrors, published, swarm.config().secret.as_ref()),
            swarm,
        }
    }

    /// Looks for nodes until `stop`.
    ///
    /// # Errors
    /// A task that panicked.
    pub async fn run(self, stop: CancellationToken) -> Result<(), anyhow::Error> {
        let mut running = JoinSet::new();
        if let Some(port) = self.here.port() {
            for (client, prefix) in self.trackers {
                let work = announce(client, prefix, port, self.swarm.clone());
                running.spawn(until(stop.clone(), work));
            }
        }
        let (finds, found) = vet::queue(&self.swarm);
        let ways = &self.swarm.config().discover;
        if ways.contains(&Way::Lan) {
            let here = self.here.clone();
            // It says goodbye at the end.
            let work = lan::run(here, self.swarm.clone(), finds.clone(), stop.clone());
            running.spawn(work);
        }
        if let (true, Some(port)) = (ways.contains(&Way::Dht), self.here.port()) {
            let work = dht::run(self.meeting, port, self.swarm.clone(), finds);
            running.spawn(until(stop.clone(), work));
        }
        running.spawn(until(stop.clone(), vet::run(found, self.swarm.clone())));
        while let Some(ended) = running.join_next().await {
            ended?;
        }
        stop.cancelled().await;
        Ok(())
    }
}

/// Does `work` until `stop`.
async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    stop.run_until_cancelled_owned(work).await;
}

/// Where in the DHT the nodes of these mirrors and of what is published meet: with a secret all at one point that only
/// they know, else at one for each origin's key and prefix. Mirrors of a part look where those of the whole are, too.
fn meeting(
    mirrors: &[MirrorConfig],
    published: &Published,
    secret: Option<&Secret>,
) -> dht::Meeting {
    let point = |digest: &[u8; 32]| {
        let mut point = [0; 20];
        point.copy_from_slice(&digest[..20]);
        point
    };
    if let Some(secret) = secret {
        return dht::Meeting {
            own: vec![point(secret.digest("meeting point", &[]).as_bytes())],
            others: Vec::new(),
        };
    }
    let of = |key: &PublicKey, prefix: &str| {
        let what = [&key.0[..], prefix.as_bytes()].concat();
        point(&blake3::derive_key(
            "headwater 2026 meeting point of mirrors",
            &what,
        ))
    };
    let here = published.prefixes.iter().map(|p| of(&published.key, p));
    let mut own: Vec<dht::Point> = here.collect();
    let mut others = Vec::new();
    for mirror in mirrors {
        for key in &mirror.keys {
            own.push(of(key, &mirror.prefix));
            others.extend(above(&mirror.prefix).map(|prefix| of(key, prefix)));
        }
    }
    for points in [&mut own, &mut others] {
        points.sort_unstable();
        points.dedup();
    }
    others.retain(|point| own.binary_search(point).is_err());
    dht::Meeting { own, others }
}

/// The prefixes that a prefix lies within, without itself.
fn above(prefix: &str) -> impl Iterator<Item = &str> {
    let slashes = prefix.match_indices('/').map(|(at, _)| &prefix[..=at]);
    slashes.filter(move |above| *above != prefix)
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

/// Spreads what nodes do at the same pace: a number for each `count` of a run.
fn dice(run: u64, count: u64) -> u64 {
    let digest = blake3::hash(&[run.to_le_bytes(), count.to_le_bytes()].concat());
    let mut number = [0; 8];
    number.copy_from_slice(&digest.as_bytes()[..8]);
    u64::from_le_bytes(number)
}

/// Between three and five quarters of `pause`.
fn jittered(pause: Duration, run: u64, count: u64) -> Duration {
    let share = (dice(run, count) % 1_000) as u32;
    pause * 3 / 4 + pause / 2 * share / 1_000
}

/// Pause after the first announcement.
const FIRST: Duration = Duration::from_millis(250);

/// Longest pause between announcements.
const OFTEN: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(prefix: &str, keys: &[u8]) -> MirrorConfig {
        MirrorConfig {
            keys: keys.iter().map(|key| PublicKey([*key; 32])).collect(),
            ..MirrorConfig::new(prefix, Vec::new())
        }
    }

    fn publishing(key: u8, prefixes: &[&str]) -> Published {
        Published {
            key: PublicKey([key; 32]),
            prefixes: prefixes.iter().map(|&p| p.to_owned()).collect(),
        }
    }

    #[test]
    fn nodes_meet_by_their_secret_or_by_what_they_mirror() {
        let (one, other) = (Secret::new(b"one"), Secret::new(b"other"));
        let mirrors = [mirror("/a/", &[1]), mirror("/b/", &[1, 2])];
        let with = |secret| meeting(&mirrors, &publishing(9, &[]), secret).own;
        assert_eq!(with(Some(&one)).len(), 1);
        assert_ne!(with(Some(&one)), with(Some(&other)));
        let without = with(None);
        assert_eq!(without.len(), 3);
        let others = [mirror("/b/", &[2]), mirror("/", &[1])];
        let elsewhere = meeting(&others, &publishing(9, &[]), None).own;
        let common = elsewhere.iter().filter(|point| without.contains(point));
        assert_eq!(common.count(), 1, "the same key and the same prefix");
        let nowhere = meeting(&[mirror("/", &[])], &publishing(9, &[]), None);
        assert!(nowhere.own.is_empty() && nowhere.others.is_empty());
    }

    #[test]
    fn mirror_of_a_part_looks_where_who_publishes_the_whole_is() {
        let origin = meeting(&[], &publishing(1, &["/", "/v/w/"]), None);
        assert_eq!((origin.own.len(), origin.others.len()), (2, 0));
        let looks = |prefix, key| {
            let meeting = meeting(&[mirror(prefix, &[key])], &publishing(9, &[]), None);
            let all = [meeting.own, meeting.others].concat();
            all.iter().filter(|at| origin.own.contains(at)).count()
        };
        assert_eq!([looks("/v/w/x/", 1), looks("/v/", 1)], [2, 1]);
        assert_eq!(looks("/v/", 2), 0, "another key");
    }

    #[test]
    fn pauses_of_nodes_differ_around_the_one_that_is_asked_for() {
        let pause = Duration::from_secs(40);
        let pauses: Vec<Duration> = (0..200).map(|n| jittered(pause, n, 3)).collect();
        let (least, most) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
        assert!(*least >= pause * 3 / 4 && *most <= pause * 5 / 4);
        assert!(*most - *least > pause / 4);
    }
}
