//! Mirrors that fill from each other: one process, real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use headwater::content::library::Library;
use headwater::content::object::Role;
use headwater::metrics::Metrics;
use headwater::metrics::peers::{Waste, Way};
use headwater::metrics::replication::Outcome;
use headwater::peer::MirrorConfig;
use headwater::peer::discover::{Discovery, Here, Published};
use headwater::peer::replicate::{MirrorHandle, Replicator};
use headwater::peer::secret::Secret;
use headwater::peer::swarm::{Swarm, SwarmConfig};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::replication::{CHUNK, Origin, Ways, noise, open, put, read, serve, until};

mod liars;

mod found;

/// A mirror that serves other nodes, too.
struct Node {
    library: Library,
    metrics: Arc<Metrics>,
    handle: MirrorHandle,
    ways: Arc<Ways>,
    _state: TempDir,
    _stop: DropGuard,
}

/// Sockets of nodes that are to know of each other from the start.
async fn sockets(count: usize) -> (Vec<TcpListener>, Vec<String>) {
    let mut listeners = Vec::new();
    for _ in 0..count {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
    let urls = listeners.iter().map(url).collect();
    (listeners, urls)
}

/// Settings by which nodes are found in this way alone.
fn by(way: Way, known: &[String]) -> SwarmConfig {
    SwarmConfig {
        discover: vec![way],
        known: known.to_vec(),
        silence: Duration::from_secs(1),
        ..SwarmConfig::default()
    }
}

/// A node publishes nothing.
fn nothing(library: &Library) -> Published {
    Published {
        key: library.editions().key(),
        prefixes: Vec::new(),
    }
}

impl Node {
    fn start(listener: TcpListener, config: SwarmConfig, from: &[String]) -> Self {
        Self::mirroring(listener, config, MirrorConfig::new("/", from.to_vec()))
    }

    fn mirroring(listener: TcpListener, config: SwarmConfig, mirror: MirrorConfig) -> Self {
        let state = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new());
        let (library, store) = open(state.path(), &metrics);
        let address: SocketAddr = listener.local_addr().unwrap();
        let run = u64::from(address.port()) + 1_000_000;
        let swarm = Arc::new(Swarm::new(config, run, metrics.clone()));
        let ways = Arc::new(Ways::default());
        ways.chunks_left.store(u64::MAX, Ordering::Relaxed);
        let stop = CancellationToken::new();
        let served = (library.clone(), swarm.clone(), metrics.clone());
        serve(listener, served, ways.clone(), stop.clone());
        let mirrors = vec![MirrorConfig {
            interval: Duration::from_millis(200),
            in_flight: 8,
            filling: 3,
            ..mirror
        }];
        let name = format!("mirror-{}", address.port());
        let here = Here {
            node: name.clone(),
            http: vec![address],
        };
        let discovery = Discovery::new(&mirrors, &nothing(&library), here, swarm.clone());
        let replicator = Replicator::new(
            mirrors,
            name,
            store,
            library.clone(),
            &swarm,
            metrics.clone(),
        );
        let handle = replicator.handle();
        tokio::spawn(discovery.run(stop.clone()));
        tokio::spawn(replicator.run(stop.clone()));
        Self {
            library,
            metrics,
            handle,
            ways,
            _state: state,
            _stop: stop.drop_guard(),
        }
    }

    async fn has(&self, path: &str, bytes: &[u8]) {
        let whole = || self.library.get(path).is_some_and(|o| o.complete());
        until(&format!("{path} to be whole"), whole).await;
        let object = self.library.get(path).unwrap();
        assert_eq!(object.role(), Role::Mirror);
        assert!(read(&object).await == bytes, "{path}: other bytes");
    }

    fn held(&self, path: &str) -> u32 {
        self.library.get(path).map_or(0, |object| object.held())
    }
}

/// Three mirrors of an origin that is slow; every one gets the object, which leaves the origin about once.
async fn three_mirrors_share(
    configs: [SwarmConfig; 3],
    listeners: Vec<TcpListener>,
    origin: Origin,
    bytes: &[u8],
) {
    origin.ways.pause.store(150, Ordering::Relaxed);
    let from = [origin.url()];
    let nodes = listeners.into_iter().zip(configs);
    let nodes: Vec<Node> = nodes.map(|(l, c)| Node::start(l, c, &from)).collect();
    all_share(&nodes, &origin, bytes).await;
}

/// Every one of these mirrors gets `/a` of its slow origin and of the others, and it leaves the origin about once.
async fn all_share(nodes: &[Node], origin: &Origin, bytes: &[u8]) {
    let count = bytes.len().div_ceil(CHUNK);
    for node in nodes {
        node.has("/a", bytes).await;
    }
    let asked = origin.ways.asked.lock().unwrap().len();
    assert!(
        asked * 10 <= count * 13,
        "{asked} chunks of {count} were asked of the origin for three mirrors"
    );
    for node in nodes {
        let replication = &node.metrics.replication;
        let (own, others) = (replication.in_origin.get(), replication.in_peer.get());
        assert!(
            own > 0 && others > 0,
            "{own} bytes of the origin, {others} of others"
        );
        for why in [Waste::Wrong, Waste::Broken, Waste::Unkept] {
            assert_eq!(node.metrics.peers.wasted(why), 0, "{why:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_with_a_static_list_fill_from_each_other() {
    let bytes = noise(1, 200 * CHUNK + 77);
    let origin = Origin::new(&[("a", &bytes)]).await;
    let (listeners, urls) = sockets(3).await;
    let config = by(Way::Static, &urls);
    let configs = [config.clone(), config.clone(), config];
    three_mirrors_share(configs, listeners, origin, &bytes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_with_a_tracker_alone_fill_from_each_other() {
    let bytes = noise(2, 400 * CHUNK + 77);
    let origin = Origin::within(by(Way::Tracker, &[]), &[("a", &bytes)]).await;
    let (listeners, _) = sockets(3).await;
    let config = by(Way::Tracker, &[]);
    let configs = [config.clone(), config.clone(), config];
    three_mirrors_share(configs, listeners, origin, &bytes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_one_secret_replicate_and_strangers_get_nothing() {
    let bytes = noise(3, 60 * CHUNK);
    let secret = |text: &str| Some(Secret::new(text.as_bytes()));
    let (listeners, urls) = sockets(5).await;
    let closed = SwarmConfig {
        secret: secret("all of us know this one"),
        ..by(Way::Static, &urls)
    };
    let origin = Origin::within(closed.clone(), &[("a", &bytes)]).await;
    let from = [origin.url()];
    let other = SwarmConfig {
        secret: secret("some others know this one"),
        ..closed.clone()
    };
    let none = SwarmConfig {
        secret: None,
        ..closed.clone()
    };
    let configs = [closed.clone(), closed.clone(), closed, other, none];
    let nodes = listeners.into_iter().zip(configs);
    let nodes: Vec<Node> = nodes.map(|(l, c)| Node::start(l, c, &from)).collect();
    for node in &nodes[..3] {
        node.has("/a", &bytes).await;
    }
    for node in &nodes[3..] {
        until("the stranger to be told", || {
            let status = node.handle.status().remove(0);
            status
                .problem
                .is_some_and(|problem| problem.contains("secret"))
        })
        .await;
        assert!(node.library.get("/a").is_none());
    }
    assert!(origin.metrics.peers.refused.get() >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn reader_whose_source_dies_goes_on_from_another() {
    let bytes = noise(4, 120 * CHUNK + 5);
    let origin = Origin::new(&[("a", &bytes)]).await;
    let (mut listeners, urls) = sockets(2).await;
    let (last, first) = (listeners.remove(1), listeners.remove(0));
    let holder = Node::start(first, by(Way::Static, &[]), &[origin.url()]);
    holder.has("/a", &bytes).await;
    origin.ways.pause.store(20, Ordering::Relaxed);
    holder.ways.pause.store(20, Ordering::Relaxed);
    let node = Node::start(last, by(Way::Static, &urls), &[origin.url()]);
    until("the fill to begin", || node.held("/a") > 0).await;
    let object = node.library.get("/a").unwrap();
    let mut read = Vec::new();
    for index in 0..object.manifest().layout.count() {
        if index == 20 {
            origin.ways.away.store(true, Ordering::Relaxed);
        }
        let patience = Duration::from_secs(10);
        let wanted = tokio::time::timeout(patience, object.wanted(index)).await;
        assert!(wanted.is_ok(), "chunk {index} did not come");
        let len = object.manifest().layout.len(index);
        read.extend(object.read(index, 0..len).await.unwrap());
    }
    assert!(read == bytes);
    assert_eq!(node.metrics.replication.chunks(Outcome::Mismatch), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn mirror_begun_while_the_origin_is_away_fills_from_another_holder() {
    let bytes = noise(5, 40 * CHUNK + 5);
    let origin = Origin::new(&[("a", &bytes), ("small", b"one chunk")]).await;
    let mirror = MirrorConfig {
        keys: vec![origin.library.editions().key()],
        ..MirrorConfig::new("/", vec![origin.url()])
    };
    let (mut listeners, urls) = sockets(2).await;
    let (last, first) = (listeners.remove(1), listeners.remove(0));
    let holder = Node::mirroring(first, by(Way::Static, &[]), mirror.clone());
    holder.has("/a", &bytes).await;
    holder.has("/small", b"one chunk").await;
    origin.ways.away.store(true, Ordering::Relaxed);
    let node = Node::mirroring(last, by(Way::Static, &urls), mirror.clone());
    node.has("/a", &bytes).await;
    node.has("/small", b"one chunk").await;
    assert_eq!(node.metrics.replication.in_origin.get(), 0);
    // One that goes by another key takes nothing of that holder.
    let (mut listeners, _) = sockets(1).await;
    let other = MirrorConfig {
        keys: vec![headwater::content::sign::PublicKey([9; 32])],
        ..mirror
    };
    let stranger = Node::mirroring(listeners.remove(0), by(Way::Static, &urls), other);
    until("its index to be read", || {
        stranger.handle.status()[0].seen_unix_ms.is_some()
    })
    .await;
    assert!(stranger.library.get("/a").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_that_nobody_else_has_any_more_is_not_to_be_evicted() {
    let bytes = noise(5, 10 * CHUNK);
    let origin = Origin::new(&[("a", &bytes)]).await;
    let (mut listeners, urls) = sockets(2).await;
    let mut nodes: Vec<Node> = (0..2)
        .map(|me| {
            let from = [origin.url(), urls[1 - me].clone()];
            Node::start(listeners.remove(0), by(Way::Static, &urls), &from)
        })
        .collect();
    for node in &nodes {
        node.has("/a", &bytes).await;
    }
    let elsewhere = |node: &Node| node.library.get("/a").unwrap().elsewhere();
    until("the origin to count", || nodes.iter().all(elsewhere)).await;
    drop(origin);
    // Each of them sees the other's copy; were both to go by that, both could go.
    until("one to keep what the other goes by", || {
        elsewhere(&nodes[0]) != elsewhere(&nodes[1])
    })
    .await;
    let keeper = usize::from(elsewhere(&nodes[0]));
    drop(nodes.remove(keeper));
    let last = &nodes[0];
    until("nobody to count", || !elsewhere(last)).await;
    let object = last.library.get("/a").unwrap();
    assert!(read(&object).await == bytes);
}
