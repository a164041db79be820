//! Names made up beneath a dead zone, thousands a second.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;

const DEAD: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 18, 1, 1), Ipv4Addr::new(198, 18, 1, 2)];
const GOOD: Ipv4Addr = Ipv4Addr::new(198, 18, 2, 1);

/// Queries a second, and how many go out at once.
const RATE: u32 = 3_000;
const BURST: u32 = 30;

/// Networks they come from.
const NETWORKS: u8 = 64;

fn seconds() -> u64 {
    std::env::var("HEADWATER_ATTACK_SECONDS").map_or(10, |text| {
        text.parse().unwrap_or_else(|_| {
            panic!("HEADWATER_ATTACK_SECONDS: found {text:?}, expected a number")
        })
    })
}

/// Anonymous memory of the node, bytes: what it allocated, without its program and files.
fn memory(node: &Node) -> u64 {
    let path = format!("/proc/{}/status", node.pid().as_raw_pid());
    let status = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let words: Vec<&str> = line
        .unwrap_or_else(|| panic!("{status}"))
        .split_whitespace()
        .collect();
    assert_eq!(words[2], "kB");
    words[1].parse::<u64>().expect("a number") * 1_024
}

#[test]
fn names_beneath_a_dead_zone_cost_others_nothing_and_little_memory() {
    let lines = [
        String::from("dead 3600 NS ns1.dead"),
        format!("ns1.dead 3600 A {}", DEAD[0]),
        String::from("dead 3600 NS ns2.dead"),
        format!("ns2.dead 3600 A {}", DEAD[1]),
    ];
    let mut hosts = top(&[("good", GOOD)], &lines);
    hosts.extend(DEAD.map(|at| Host::new(at, Server::dead())));
    let good = zone(
        "good.test.",
        GOOD,
        &["www 300 A 192.0.2.1", "*.new 300 A 192.0.2.2"].map(String::from),
    );
    hosts.push(Host::new(GOOD, Server::new(vec![good])));
    beside(hosts, |internet| {
        let node = node(None, "");
        assert_eq!(ask(&node, "www.good.test.", A).data, ["192.0.2.1"]);
        // What a first few thousand names cost is the ordinary size of a resolver that is at work.
        let before = memory(&node);
        internet.take();
        let end = Instant::now() + Duration::from_secs(seconds());
        let (over, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
        let (node, over, sent) = (&node, &over, &sent);
        let (answers, most) = std::thread::scope(|scope| {
            scope.spawn(move || flood(node, end, sent));
            let peak = scope.spawn(move || {
                let mut most = 0;
                while !over.load(Ordering::SeqCst) {
                    most = most.max(memory(node));
                    std::thread::sleep(Duration::from_millis(50));
                }
                most
            });
            // One of the flood's networks, and one that has nothing to do with it; one name that is known, and new ones.
            let others = [Ipv4Addr::new(127, 4, 0, 9), Ipv4Addr::new(127, 5, 0, 9)]
                .map(|at| scope.spawn(move || others(node, at, end)));
            let answers = others.map(|other| other.join().expect("it counts"));
            over.store(true, Ordering::SeqCst);
            (answers, peak.join().expect("it looks"))
        });
        let sent = sent.load(Ordering::SeqCst) as u64;
        let full = u64::from(RATE) * seconds();
        assert!(sent >= full * 9 / 10, "only {sent} of {full} were sent");
        for (asked, answered) in answers {
            eprintln!("{answered} of {asked} others were answered");
            assert!(
                asked >= seconds() as usize * 20,
                "only {asked} others were asked"
            );
            assert!(
                answered * 100 >= asked * 99,
                "{answered} of {asked} others were answered"
            );
        }
        let grown = most.saturating_sub(before);
        eprintln!(
            "{} KiB before, {} KiB more at most",
            before >> 10,
            grown >> 10
        );
        assert!(
            grown <= 64 << 20,
            "{} KiB more than {} KiB",
            grown >> 10,
            before >> 10
        );
        let upstream = internet
            .seen()
            .iter()
            .filter(|s| DEAD.contains(&s.at))
            .count() as u64;
        eprintln!("{upstream} packets to the dead for {sent} queries");
        assert!(
            upstream <= sent / 4,
            "{upstream} packets to the dead for {sent} queries"
        );
    });
}

/// Sends [`RATE`] queries a second for new names until `end`, and takes what answers there are.
fn flood(node: &Node, end: Instant, sent: &AtomicUsize) {
    let clients: Vec<Client> = (0..NETWORKS)
        .map(|n| Client::new(Ipv4Addr::new(127, 4, n, 1), node))
        .collect();
    for client in &clients {
        client.0.set_nonblocking(true).expect("a socket can be");
    }
    let mut buffer = [0; 4_096];
    let mut next = Instant::now();
    let mut number = 0_u32;
    while Instant::now() < end {
        for _ in 0..BURST {
            let client = &clients[number as usize % clients.len()];
            client.send(number as u16, &format!("x{number}.dead.test."), A);
            number += 1;
        }
        sent.fetch_add(BURST as usize, Ordering::SeqCst);
        for client in &clients {
            while client.0.recv(&mut buffer).is_ok() {}
        }
        next += Duration::from_secs(1) * BURST / RATE;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// Asks for a living name every [`PAUSE`] until `end`, whatever has been answered; how many were asked for, and answered within
/// [`PATIENCE`], each without a second try.
fn others(node: &Node, at: Ipv4Addr, end: Instant) -> (usize, usize) {
    let client = Client::new(at, node);
    let mut waiting = BTreeMap::new();
    let (mut asked, mut answered) = (0_u16, 0);
    let mut next = Instant::now();
    while Instant::now() < end || !waiting.is_empty() {
        if Instant::now() < end && Instant::now() >= next {
            let name = if asked % 2 == 0 {
                String::from("www.good.test.")
            } else {
                format!("n{}-{asked}.new.good.test.", at.octets()[1])
            };
            client.send(asked, &name, A);
            waiting.insert(asked, Instant::now());
            asked += 1;
            next += PAUSE;
        }
        let left = next.saturating_duration_since(Instant::now());
        let limit = left.clamp(Duration::from_millis(1), PAUSE);
        if let Some((id, message)) = client.receive(limit)
            && waiting.remove(&id).is_some()
            && message.response_code == ResponseCode::NoError
            && message.answers.len() == 1
        {
            answered += 1;
        }
        waiting.retain(|_, sent| sent.elapsed() < PATIENCE);
    }
    (asked.into(), answered)
}

/// Between two questions of a client that is not part of the flood, and how long it waits.
const PAUSE: Duration = Duration::from_millis(40);
const PATIENCE: Duration = Duration::from_secs(5);
