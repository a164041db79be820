//! Recursion over real sockets: the made-up Internet on addresses of 127.0.0.0/8, its packets counted at its servers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use headwater::dns::Outcome;
use headwater::dns::resolver::recurse::hints::Hints;
use headwater::dns::resolver::upstream::Families;
use headwater::dns::resolver::{Config, Flush, ForwardZone, Resolver, recurse};
use headwater::dns::wire::Query;
use headwater::metrics::Metrics;
use hickory_proto::op::{Message, ResponseCode};
use tokio::net::UdpSocket;

use self::internet::{Asked, Server, Zone};
use crate::dns::forward_to;

#[path = "../support/internet.rs"]
mod internet;

/// Servers with sockets, and a resolver that begins at the one on 127.53.0.1.
struct Made {
    resolver: Resolver,
    packets: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

impl Made {
    async fn new(servers: Vec<(&str, Server)>) -> Self {
        Self::with(servers, |_| {}).await
    }

    async fn with(servers: Vec<(&str, Server)>, change: impl FnOnce(&mut Config)) -> Self {
        let packets = Arc::<AtomicUsize>::default();
        let port = loop {
            // One port for all; where it is taken, another one is tried.
            let first = UdpSocket::bind("127.53.0.1:0").await.unwrap();
            let port = first.local_addr().unwrap().port();
            drop(first);
            let mut sockets = Vec::new();
            for (at, _) in &servers {
                let at: IpAddr = at.parse().unwrap();
                sockets.push(UdpSocket::bind(SocketAddr::new(at, port)).await.ok());
            }
            if sockets.iter().all(Option::is_some) {
                for (socket, (_, server)) in sockets.into_iter().flatten().zip(servers) {
                    tokio::spawn(serve(socket, server, Arc::clone(&packets)));
                }
                break port;
            }
        };
        let mut config = forward_to(SocketAddr::from(([127, 0, 0, 1], 1)));
        config.time = Duration::from_secs(5);
        config.recursion = Some(recurse::Config {
            hints: Hints::parse(". NS ns.root.\nns.root. A 127.53.0.1\n").unwrap(),
            qname_minimisation: true,
            families: Families {
                ip4: true,
                ip6: false,
            },
            deny_servers: vec!["0.0.0.0/8".parse().unwrap()],
            port,
            size: 16 << 20,
            depth: 12,
            waiters: 1_000,
            aliases: 11,
            glueless: 5,
            name_servers: 13,
            from_root: true,
            forwards: false,
            dnssec: None,
            max_ttl: Duration::from_secs(86_400),
            negative_max_ttl: Duration::from_secs(3_600),
        });
        change(&mut config);
        let metrics = Arc::new(Metrics::new());
        Self {
            resolver: Resolver::new(config, Arc::clone(&metrics)).unwrap(),
            packets,
            metrics,
        }
    }

    /// Resolves as for a client; also how many packets reached the servers, and how long it took.
    async fn resolve(&self, name: &str, qtype: u16) -> Answer {
        let mut packet = vec![0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        packet.extend(internet::name(name));
        packet.extend(qtype.to_be_bytes());
        packet.extend([0, 1]);
        let query = Query::parse(&packet).unwrap();
        let before = self.packets.load(Ordering::SeqCst);
        let begun = Instant::now();
        let mut out = Vec::new();
        let budget = self.resolver.budget();
        let outcome = self
            .resolver
            .resolve(&query, 65_535, &budget, &mut out)
            .await;
        Answer {
            outcome,
            message: Message::from_vec(&out).unwrap(),
            packets: self.packets.load(Ordering::SeqCst) - before,
            time: begun.elapsed(),
        }
    }
}

/// An upstream on a port of its own.
async fn upstream(server: Server) -> SocketAddr {
    let socket = UdpSocket::bind("127.53.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = vec![0; 65_535];
        loop {
            let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
                continue;
            };
            let asked = Asked::read(&buffer[..length]).expect("the resolver sends queries");
            assert!(asked.recursion_desired, "upstreams are asked to recurse");
            if let Some(reply) = server.reply(&asked) {
                let _ = socket.send_to(&reply, client).await;
            }
        }
    });
    address
}

async fn serve(socket: UdpSocket, server: Server, packets: Arc<AtomicUsize>) {
    let mut buffer = vec![0; 65_535];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        packets.fetch_add(1, Ordering::SeqCst);
        let asked = Asked::read(&buffer[..length]).expect("the resolver sends queries");
        assert!(
            !asked.recursion_desired,
            "authorities are not asked to recurse"
        );
        if let Some(reply) = server.reply(&asked) {
            let _ = socket.send_to(&reply, client).await;
        }
    }
}

struct Answer {
    outcome: Outcome,
    message: Message,
    packets: usize,
    time: Duration,
}

impl Answer {
    fn data(&self) -> Vec<String> {
        let answers = self.message.answers.iter();
        answers.map(|record| record.data.to_string()).collect()
    }
}

fn root(lines: &[&str]) -> Zone {
    let own = ["@ 86400 NS ns.root.", "ns.root. 86400 A 127.53.0.1"];
    Zone::new(".", &[&own[..], lines].concat())
}

fn zone(apex: &str, lines: &[&str]) -> Zone {
    Zone::new(apex, &[&["@ 3600 NS ns"][..], lines].concat())
}

/// Root at 127.53.0.1, `test.` with `lines` at 127.53.0.2, `example.test.` with `example` at 127.53.0.3.
fn small(lines: &[&str], example: &[&str]) -> Vec<(&'static str, Server)> {
    let test = [
        "ns 3600 A 127.53.0.2",
        "example 600 NS ns.example",
        "ns.example 600 A 127.53.0.3",
    ];
    let own = ["ns 3600 A 127.53.0.3"];
    vec![
        (
            "127.53.0.1",
            Server::new(vec![root(&[
                "test. 7200 NS ns.test.",
                "ns.test. 7200 A 127.53.0.2",
            ])]),
        ),
        (
            "127.53.0.2",
            Server::new(vec![zone("test.", &[&test[..], lines].concat())]),
        ),
        (
            "127.53.0.3",
            Server::new(vec![zone("example.test.", &[&own[..], example].concat())]),
        ),
    ]
}

const A: u16 = internet::A;

#[tokio::test]
async fn name_is_resolved_from_the_root_cached_and_flushed() {
    let made = Made::new(small(&[], &["www 300 A 198.51.100.1"])).await;
    let answer = made.resolve("www.example.test.", A).await;
    assert_eq!(
        (answer.outcome, answer.data()),
        (Outcome::Resolved, vec!["198.51.100.1".into()])
    );
    assert_eq!(answer.packets, 4, "priming, root, test, example");
    assert_eq!(made.resolve("www.example.test.", A).await.packets, 0);
    let flush = Flush::Name(String::from("www.example.test."), None);
    assert_eq!(made.resolver.flush(&flush), 1);
    assert_eq!(
        made.resolve("www.example.test.", A).await.packets,
        1,
        "the name alone"
    );
    made.resolver.flush(&Flush::All);
    assert_eq!(made.resolve("www.example.test.", A).await.packets, 4);
}

#[tokio::test]
async fn missing_name_is_nxdomain_and_missing_type_is_empty() {
    let made = Made::new(small(&[], &["www 300 A 198.51.100.1"])).await;
    let missing = made.resolve("no.example.test.", A).await;
    assert_eq!(missing.message.response_code, ResponseCode::NXDomain);
    let typeless = made.resolve("www.example.test.", 16).await;
    assert_eq!(typeless.message.response_code, ResponseCode::NoError);
    assert_eq!(
        (
            typeless.message.answers.len(),
            typeless.message.authorities.len()
        ),
        (0, 1)
    );
}

#[tokio::test]
async fn referral_with_a_thousand_glueless_servers_costs_at_most_twenty_packets() {
    let mut lines = vec![
        String::from("victim 3600 NS ns.victim"),
        String::from("ns.victim 3600 A 127.53.0.4"),
    ];
    lines.extend((0..1_000).map(|n| format!("bomb 3600 NS n{n}.victim.test.")));
    let lines: Vec<&str> = lines.iter().map(|line| &**line).collect();
    let mut servers = small(&lines, &[]);
    servers.push((
        "127.53.0.4",
        Server::new(vec![zone("victim.test.", &["ns 3600 A 127.53.0.4"])]),
    ));
    let made = Made::new(servers).await;
    let answer = made.resolve("www.bomb.test.", A).await;
    assert_eq!(answer.outcome, Outcome::Servfail);
    assert!(answer.packets <= 20, "{}", answer.packets);
}

#[tokio::test]
async fn aliases_times_dead_servers_stay_within_packets_and_time() {
    let mut test = Vec::new();
    let mut zones = Vec::new();
    for n in 0..12 {
        test.push(format!("z{n} 600 NS ns.z{n}"));
        test.push(format!("ns.z{n} 600 A 127.53.1.{n}"));
        for dead in 0..4 {
            // Nobody is at home: the first are silent, the others refuse.
            test.push(format!("z{n} 600 NS dead{dead}.z{n}"));
            test.push(format!("dead{dead}.z{n} 600 A 127.53.{}.{n}", 2 + dead));
        }
        let alias = format!("www 300 CNAME www.z{}.test.", n + 1);
        let ns = format!("ns 600 A 127.53.1.{n}");
        zones.push((
            format!("127.53.1.{n}"),
            zone(&format!("z{n}.test."), &[&ns, &alias]),
        ));
    }
    let lines: Vec<&str> = test.iter().map(|line| &**line).collect();
    let mut servers = small(&lines, &[]);
    let silent: Vec<String> = (0..12)
        .flat_map(|n| [format!("127.53.2.{n}"), format!("127.53.3.{n}")])
        .collect();
    servers.extend(
        zones
            .iter()
            .map(|(at, zone)| (&**at, Server::new(vec![zone.clone()]))),
    );
    servers.extend(silent.iter().map(|at| (&**at, Server::dead())));
    let made = Made::new(servers).await;
    let answer = made.resolve("www.z0.test.", A).await;
    assert_eq!(answer.outcome, Outcome::Servfail);
    assert!(answer.packets <= 50, "{}", answer.packets);
    assert!(
        answer.time <= Duration::from_millis(5_200),
        "{:?}",
        answer.time
    );
}

#[tokio::test]
async fn alias_chain_of_eleven_resolves_seventeen_and_loops_end_within_a_second() {
    let mut lines: Vec<String> = (0..17)
        .map(|n| format!("c{n} 300 CNAME c{}", n + 1))
        .collect();
    lines.push(String::from("c17 300 A 198.51.100.1"));
    lines.push(String::from("loop 300 CNAME loop"));
    let lines: Vec<&str> = lines.iter().map(|line| &**line).collect();
    let made = Made::new(small(&[], &lines)).await;
    let eleven = made.resolve("c6.example.test.", A).await;
    assert_eq!(
        (eleven.outcome, eleven.message.answers.len()),
        (Outcome::Resolved, 12)
    );
    for name in ["c0.example.test.", "loop.example.test."] {
        let answer = made.resolve(name, A).await;
        assert_eq!(answer.outcome, Outcome::Servfail, "{name}");
        assert!(
            answer.time <= Duration::from_secs(1),
            "{name}: {:?}",
            answer.time
        );
    }
    assert_eq!(made.metrics.resolver.limits.aliases.get(), 2);
}

#[tokio::test]
async fn aliases_are_followed_into_forward_zones_and_out_of_them() {
    let example = [
        "toward 300 CNAME www.corp",
        "corp 300 DNAME nowhere.example.test.",
        "www 200 A 198.51.100.1",
    ];
    let corp = zone(
        "corp.example.test.",
        &[
            "ns 300 A 127.53.0.9",
            "www 250 A 10.0.0.1",
            "back 300 CNAME www.example.test.",
            "lost 300 CNAME nobody.example.test.",
        ],
    );
    let forward = ForwardZone {
        zone: String::from("corp.example.test."),
        upstreams: vec![upstream(Server::new(vec![corp])).await.into()],
    };
    let made = Made::with(small(&[], &example), |config| {
        config.forward = vec![forward]
    })
    .await;
    for (name, data, ttls) in [
        (
            "toward.example.test.",
            ["www.corp.example.test.", "10.0.0.1"],
            [300, 250],
        ),
        (
            "back.corp.example.test.",
            ["www.example.test.", "198.51.100.1"],
            [300, 200],
        ),
    ] {
        let answer = made.resolve(name, A).await;
        assert_eq!(
            (answer.outcome, answer.data()),
            (Outcome::Resolved, data.map(String::from).to_vec())
        );
        let found: Vec<u32> = answer
            .message
            .answers
            .iter()
            .map(|record| record.ttl)
            .collect();
        for (found, ttl) in found.iter().zip(ttls) {
            assert!((ttl - 2..=ttl).contains(found), "{name}: {found} of {ttl}");
        }
        assert_eq!(made.resolve(name, A).await.packets, 0, "{name}: kept");
    }
    let lost = made.resolve("lost.corp.example.test.", A).await;
    assert_eq!(lost.message.response_code, ResponseCode::NXDomain);
    let private = made.resolve("www.corp.example.test.", A).await;
    assert_eq!(private.data(), ["10.0.0.1"]);
}

#[tokio::test]
async fn names_beneath_a_dead_zone_do_not_cost_others_their_answers() {
    let mut servers = small(
        &["dead 600 NS ns.dead", "ns.dead 600 A 127.53.0.9"],
        &["www 300 A 198.51.100.1"],
    );
    servers.push(("127.53.0.9", Server::dead()));
    let made = Arc::new(Made::new(servers).await);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..500 {
        let made = Arc::clone(&made);
        tasks.spawn(async move {
            let answer = made.resolve(&format!("x{n}.dead.test."), A).await;
            assert_eq!(answer.outcome, Outcome::Servfail);
        });
    }
    // Nothing is known when all begin: what all need is asked for once.
    let answer = made.resolve("www.example.test.", A).await;
    assert_eq!(answer.outcome, Outcome::Resolved);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let late = made.resolve("late.dead.test.", A).await;
    assert_eq!(
        (late.outcome, late.packets),
        (Outcome::Servfail, 0),
        "it rests"
    );
}
