//! Mirrors that find each other without being told: on the local network, and in a DHT.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};

use headwater::peer::swarm::{DhtConfig, LanConfig};
use headwater::time::Now;
use mainline::Testnet;

use super::*;

const SECRET: &[u8] = b"all of us know this one";

/// Announcements over loopback, to a port that nobody else has.
fn lan() -> LanConfig {
    let free = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    LanConfig {
        groups: vec![SocketAddr::from(([239, 255, 72, 87], port))],
        interfaces: vec!["lo".to_owned()],
        interval: Duration::from_secs(1),
        beacons: 200,
    }
}

/// Nodes that hear of each other over loopback alone.
fn hearing(lan: &LanConfig, secret: &[u8]) -> SwarmConfig {
    SwarmConfig {
        secret: Some(Secret::new(secret)),
        lan: lan.clone(),
        ..by(Way::Lan, &[])
    }
}

/// A DHT of its own.
fn meeting_in(net: &Testnet) -> DhtConfig {
    DhtConfig {
        bootstrap: net.bootstrap.clone(),
        listen: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0),
        serve: false,
        interval: Duration::from_secs(1),
    }
}

/// What `headwater_peers_…` says.
fn series(metrics: &Metrics, name: &str) -> u64 {
    let text = metrics.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.unwrap_or_else(|| panic!("no {name} in:\n{text}"));
    value.trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_that_hear_of_each_other_on_the_network_fill_from_each_other() {
    let bytes = noise(11, 200 * CHUNK + 77);
    let config = hearing(&lan(), SECRET);
    let origin = Origin::within(config.clone(), &[("a", &bytes)]).await;
    let (listeners, _) = sockets(3).await;
    let configs = [config.clone(), config.clone(), config];
    three_mirrors_share(configs, listeners, origin, &bytes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_that_meet_in_a_dht_fill_from_each_other() {
    let bytes = noise(12, 200 * CHUNK + 77);
    let net = Testnet::builder(5).build().unwrap();
    let config = SwarmConfig {
        secret: Some(Secret::new(SECRET)),
        dht: meeting_in(&net),
        ..by(Way::Dht, &[])
    };
    let origin = Origin::within(config.clone(), &[]).await;
    let from = [origin.url()];
    let (listeners, _) = sockets(3).await;
    let start = |listener| Node::start(listener, config.clone(), &from);
    let nodes: Vec<Node> = listeners.into_iter().map(start).collect();
    let known = |node: &Node| series(&node.metrics, "headwater_peers_known{way=\"dht\"}");
    until("all to know each other and the origin", || {
        nodes.iter().all(|node| known(node) == 3)
    })
    .await;
    origin.ways.pause.store(150, Ordering::Relaxed);
    put(origin.content.path(), "a", &bytes);
    all_share(&nodes, &origin, &bytes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn first_node_of_a_dht_that_comes_after_the_others_is_found_and_finds_them() {
    let origin = Origin::new(&[("a", b"a")]).await;
    let from = [origin.url()];
    let free = UdpSocket::bind("127.0.0.1:0").unwrap();
    let first = free.local_addr().unwrap();
    drop(free);
    let at = |bootstrap: Vec<String>, port| {
        let dht = DhtConfig {
            bootstrap,
            listen: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port),
            serve: true,
            interval: Duration::from_secs(1),
        };
        SwarmConfig {
            secret: Some(Secret::new(SECRET)),
            dht,
            ..by(Way::Dht, &[])
        }
    };
    let (mut listeners, _) = sockets(3).await;
    let last = listeners.remove(0);
    let start = |listener| Node::start(listener, at(vec![first.to_string()], 0), &from);
    let mut nodes: Vec<Node> = listeners.into_iter().map(start).collect();
    let failed = |node: &Node| node.metrics.peers.dht_failed.get();
    until("the two to have met nobody", || {
        nodes.iter().all(|node| failed(node) >= 1)
    })
    .await;
    nodes.push(Node::start(last, at(Vec::new(), first.port()), &from));
    let known = |node: &Node| series(&node.metrics, "headwater_peers_known{way=\"dht\"}");
    until("all to know each other", || {
        nodes.iter().all(|node| known(node) == 2)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_another_secret_are_heard_and_left_out() {
    let origin = Origin::new(&[("a", b"a")]).await;
    let from = [origin.url()];
    let lan = lan();
    let (listeners, _) = sockets(3).await;
    let secrets = [SECRET, SECRET, b"some others know this one"];
    let nodes = listeners.into_iter().zip(secrets);
    let nodes = nodes.map(|(l, secret)| Node::start(l, hearing(&lan, secret), &from));
    let mut nodes: Vec<Node> = nodes.collect();
    let known = |node: &Node| series(&node.metrics, "headwater_peers_known{way=\"lan\"}");
    let strangers = |node: &Node| {
        let name = "headwater_peers_beacons_received_total{outcome=\"stranger\"}";
        series(&node.metrics, name)
    };
    until("the two to know each other", || {
        known(&nodes[0]) == 1 && known(&nodes[1]) == 1
    })
    .await;
    until("the stranger to be heard by all, and all by it", || {
        nodes.iter().all(|node| strangers(node) >= 2)
    })
    .await;
    let counts: Vec<u64> = nodes.iter().map(known).collect();
    assert_eq!(counts, [1, 1, 0]);
    // Its goodbye is heard at once, not when it was not heard for long.
    drop(nodes.remove(1));
    until("the one that left to be forgotten", || {
        known(&nodes[0]) == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn address_in_the_dht_that_proves_nothing_is_never_known() {
    let net = Testnet::builder(5).build().unwrap();
    let origin = Origin::new(&[("a", b"a")]).await;
    let (mut listeners, urls) = sockets(2).await;
    let closed = SwarmConfig {
        secret: Some(Secret::new(SECRET)),
        ..by(Way::Static, &[])
    };
    let (second, first) = (listeners.remove(1), listeners.remove(0));
    let _closed = Node::start(first, closed, &[origin.url()]);
    let _open = Node::start(second, by(Way::Static, &[]), &[origin.url()]);
    // They are announced where mirrors of one key meet; one of them lets in only who knows its secret.
    let mirror = MirrorConfig {
        keys: vec![origin.library.editions().key()],
        ..MirrorConfig::new("/", vec![origin.url()])
    };
    let meeting = |run: u64, http: &str| {
        let config = SwarmConfig {
            dht: meeting_in(&net),
            ..by(Way::Dht, &[])
        };
        let metrics = Arc::new(Metrics::new());
        let swarm = Arc::new(Swarm::new(config, run, metrics.clone()));
        let here = Here {
            node: "other".to_owned(),
            http: vec![http.strip_prefix("http://").unwrap().parse().unwrap()],
        };
        let mirrors = std::slice::from_ref(&mirror);
        let published = nothing(&origin.library);
        let discovery = Discovery::new(mirrors, &published, here, swarm.clone());
        let stop = CancellationToken::new();
        tokio::spawn(discovery.run(stop.clone()));
        (metrics, swarm, stop.drop_guard())
    };
    let _first = meeting(77, &urls[0]);
    let _second = meeting(78, &urls[1]);
    let (metrics, swarm, _stop) = meeting(79, "http://127.0.0.1:9");
    let proofs = |outcome: &str| {
        let name = format!("headwater_peers_proofs_total{{outcome=\"{outcome}\"}}");
        series(&metrics, &name)
    };
    until("both to be asked", || {
        proofs("stranger") >= 1 && proofs("member") >= 1
    })
    .await;
    assert_eq!(swarm.directory().known(Now::read()), [urls[1].clone()]);
}

/// A mirror that is told nothing but whose objects it mirrors.
fn by_key(origin: &Origin, prefix: &str) -> MirrorConfig {
    MirrorConfig {
        keys: vec![origin.library.editions().key()],
        ..MirrorConfig::new(prefix, Vec::new())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_that_know_but_a_key_find_the_origin_and_each_other_on_the_network() {
    let bytes = noise(13, 200 * CHUNK + 77);
    let config = hearing(&lan(), SECRET);
    let origin = Origin::within(config.clone(), &[("a", &bytes)]).await;
    origin.ways.pause.store(150, Ordering::Relaxed);
    let (listeners, _) = sockets(3).await;
    let start = |l| Node::mirroring(l, config.clone(), by_key(&origin, "/"));
    let nodes: Vec<Node> = listeners.into_iter().map(start).collect();
    all_share(&nodes, &origin, &bytes).await;
    put(origin.content.path(), "later", b"one chunk");
    for node in &nodes {
        node.has("/later", b"one chunk").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mirror_of_a_part_that_knows_but_a_key_finds_who_publishes_the_whole_in_a_dht() {
    let bytes = noise(14, 20 * CHUNK + 77);
    let net = Testnet::builder(5).build().unwrap();
    let config = SwarmConfig {
        dht: meeting_in(&net),
        ..by(Way::Dht, &[])
    };
    let origin = Origin::within(config.clone(), &[("v/a", &bytes), ("b", b"b")]).await;
    let (mut listeners, _) = sockets(1).await;
    let mirror = by_key(&origin, "/v/");
    let node = Node::mirroring(listeners.remove(0), config, mirror);
    node.has("/v/a", &bytes).await;
    assert!(node.library.get("/b").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn mirror_that_found_nobody_says_so_until_it_did() {
    let config = hearing(&lan(), SECRET);
    let origin = Origin::new(&[("a", b"a")]).await;
    let (mut listeners, _) = sockets(1).await;
    let mirror = by_key(&origin, "/");
    let node = Node::mirroring(listeners.remove(0), config.clone(), mirror);
    let problem = || node.handle.status().remove(0).problem;
    until("it to be said", || {
        problem().as_deref() == Some("no other node found yet (lan)")
    })
    .await;
    let _other = Origin::within(config, &[]).await;
    until("another to be found", || problem().is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn origin_that_was_found_is_not_put_aside_for_being_slow() {
    let bytes = noise(15, 10 * CHUNK);
    let config = hearing(&lan(), SECRET);
    let origin = Origin::within(config.clone(), &[("a", &bytes)]).await;
    origin.ways.pause.store(3_000, Ordering::Relaxed);
    let (mut listeners, _) = sockets(1).await;
    let node = Node::mirroring(listeners.remove(0), config, by_key(&origin, "/"));
    let failed = || node.metrics.replication.chunks(Outcome::Failed);
    until("a chunk to be waited for in vain", || failed() > 0).await;
    origin.ways.pause.store(0, Ordering::Relaxed);
    node.has("/a", &bytes).await;
    assert_eq!(node.metrics.peers.put_aside.get(), 0);
}
