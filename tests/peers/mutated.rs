//! A million mutated packets at the built binary, over a real socket.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use super::harness::{COMMON, Node, READY, Unbound, poll};

#[path = "../common/mutate.rs"]
mod mutate;

const PACKETS: usize = 1_000_000;

/// Packets sent before what has come back is read: fewer than a socket buffer holds.
const BATCH: usize = 64;

#[test]
fn node_answers_after_a_million_mutated_packets_as_before() {
    let upstream = Unbound::start(
        "up.test.",
        &[
            "up.test. 3600 IN SOA ns.up.test. h.up.test. 1 3600 600 86400 60",
            "www.up.test. 200 IN A 192.0.2.10",
        ],
    );
    let mut node = Node::new(&format!(
        r#"{COMMON}
[resolver]
upstreams = ["127.0.0.1:{}"]
[[zone]]
name = "example.test."
file = "example.test.zone"
"#,
        upstream.port
    ));
    let zone = "@ 300 SOA ns host 1 3600 600 86400 60\n@ NS ns\nns A 192.0.2.53\nwww A 192.0.2.1\n";
    node.write("example.test.zone", zone);
    node.start();
    let client = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    client.connect(("127.0.0.1", node.dns)).expect("loopback");
    client.set_nonblocking(true).expect("a socket can be");
    let (mut mutator, mut packet) = (mutate::Mutator::new("message"), Vec::new());
    let mut answers = 0_usize;
    let mut buffer = [0; 65_535];
    for batch in 0..PACKETS / BATCH {
        for _ in 0..BATCH {
            mutator.next(&mut packet);
            // A full buffer or a refusal shows in the counts below.
            let _ = client.send(&packet);
        }
        // Some get no answer, so that there is nothing to wait for: a moment, then on.
        let end = Instant::now() + Duration::from_millis(if batch % 64 == 0 { 20 } else { 0 });
        loop {
            match client.recv(&mut buffer) {
                Ok(_) => answers += 1,
                Err(_) if Instant::now() >= end => break,
                Err(_) => std::thread::sleep(Duration::from_micros(100)),
            }
        }
    }
    assert_eq!(
        node.dig(&["www.example.test", "A"]).data("A"),
        ["192.0.2.1"]
    );
    // The names that nobody knows have used up this network's share of the slow path.
    poll(READY, "the queries in flight to end", || {
        (node.metric("headwater_dns_queries_in_flight", &[]) == 0.0).then_some(())
    });
    assert_eq!(node.dig(&["www.up.test", "A"]).data("A"), ["192.0.2.10"]);
    let seen = node.metric("headwater_dns_queries_total", &[("transport", "udp")]);
    assert!(
        seen > PACKETS as f64 * 0.5,
        "only {seen} of {PACKETS} arrived"
    );
    // Most of the rest are of names to be resolved, beyond this network's share.
    assert!(answers > PACKETS / 10, "only {answers} answers");
    // A task that panics does not end the node.
    let log = std::fs::read_to_string(node.path("log")).expect("the node has a log");
    assert!(!log.contains("panicked"), "{log}");
}
