//! The cache over a restart: how much of it is there two seconds after the start, with no upstream left to ask.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};

use super::harness::{COMMON, Node, READY, Unbound, poll};

const NAMES: usize = 2_000;

/// Within this after the start the cache is warm.
const WARM: Duration = Duration::from_secs(2);

fn name(n: usize) -> String {
    format!("n{n}.up.test.")
}

/// A node that has resolved all names, and its upstream.
fn full(save: &str) -> (Node, Unbound) {
    let mut records = vec![String::from(
        "up.test. 3600 IN SOA ns.up.test. h.up.test. 1 3600 600 86400 60",
    )];
    records.extend((0..NAMES).map(|n| format!("{} 3600 IN A 192.0.2.{}", name(n), n % 250)));
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    let upstream = Unbound::start("up.test.", &records);
    let mut node = Node::new(&format!(
        "{COMMON}\n[resolver]\nupstreams = [\"127.0.0.1:{}\"]\n[resolver.cache]\nsave = \"{save}\"\n",
        upstream.port
    ));
    node.start();
    let answered = poll(READY, "all names to be resolved", || {
        let answered = ask(&node, Instant::now() + READY);
        (answered == NAMES).then_some(answered)
    });
    assert_eq!(answered, NAMES);
    (node, upstream)
}

/// Asks for every name once, some at a time; how many were answered with an address before `end`.
fn ask(node: &Node, end: Instant) -> usize {
    let client = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    client.connect(("127.0.0.1", node.dns)).expect("loopback");
    let (mut answered, mut buffer) = (0, [0; 4_096]);
    let names: Vec<usize> = (0..NAMES).collect();
    for some in names.chunks(50) {
        for &n in some {
            let mut packet = (n as u16).to_be_bytes().to_vec();
            packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
            for label in name(n).trim_end_matches('.').split('.') {
                packet.push(label.len() as u8);
                packet.extend(label.bytes());
            }
            packet.extend([0, 0, 1, 0, 1]);
            // The port is closed until the node listens.
            let _ = client.send(&packet);
        }
        for _ in some {
            let left = end.saturating_duration_since(Instant::now());
            let limit = left.clamp(Duration::from_millis(1), Duration::from_millis(500));
            client.set_read_timeout(Some(limit)).expect("not zero");
            let Ok(length) = client.recv(&mut buffer) else {
                break;
            };
            let message = Message::from_vec(&buffer[..length]).expect("an answer is well-formed");
            let good = message.response_code == ResponseCode::NoError && message.answers.len() == 1;
            answered += usize::from(good && Instant::now() < end);
        }
    }
    answered
}

/// Starts `node` again with a dead upstream; panics unless nearly all is answered within [`WARM`], and the metrics say so.
fn assert_warm(node: &mut Node, mut upstream: Unbound) {
    upstream.stop();
    node.start();
    // From when it says that it is ready, which a client cannot know earlier.
    let answered = ask(node, Instant::now() + WARM);
    assert!(
        answered * 100 >= NAMES * 99,
        "{answered} of {NAMES} were answered"
    );
    let restored = node.metric("headwater_resolver_cache_restored_entries", &[]);
    assert!(
        restored >= NAMES as f64 * 0.99,
        "{restored} were taken over"
    );
    let ratio = poll(READY, "the ratio of the first seconds", || {
        let ratio = node.metric("headwater_resolver_cache_warm_hit_ratio", &[]);
        (ratio > 0.0).then_some(ratio)
    });
    assert!(ratio >= 0.99, "{ratio}");
    let asked = node.metric("headwater_resolver_upstream_queries_total", &[]);
    assert!(
        asked <= NAMES as f64 * 0.01,
        "{asked} questions went upstream"
    );
}

#[test]
fn cache_is_warm_within_two_seconds_of_a_restart() {
    let (mut node, upstream) = full("15m");
    assert!(node.stop().success());
    assert_warm(&mut node, upstream);
}

#[test]
fn cache_is_warm_within_two_seconds_of_a_start_after_kill() {
    let (mut node, upstream) = full("1s");
    // Twice more after the last name was resolved: the first may have been begun before.
    let file = node.path("state/cache.saved");
    let written = || {
        std::fs::metadata(&file)
            .and_then(|file| file.modified())
            .ok()
    };
    for _ in 0..2 {
        let before = written();
        poll(READY, "the cache to be written", || {
            (written() > before).then_some(())
        });
    }
    node.kill();
    assert_warm(&mut node, upstream);
}
