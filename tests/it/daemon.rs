//! The life of a node: first start, reload, faults, stop.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{RData, RecordType};
use rustix::process::Signal;

use crate::harness::{Node, command, get, until};

#[test]
fn default_start_serves_names_bytes_and_numbers() {
    let node = Node::start_default();

    let answer = node.ask("video.cdn.test.", RecordType::A);
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert!(answer.metadata.authoritative);
    assert_eq!(answer.answers[0].ttl, 300);
    assert_eq!(
        answer.answers[0].data,
        RData::A(std::net::Ipv4Addr::LOCALHOST.into())
    );
    // Its own TTL, from `ttls`.
    assert_eq!(node.ask("live.cdn.test.", RecordType::A).answers[0].ttl, 5);

    let range = ["range: bytes=1000000-1000003"];
    let part = get(node.address("http"), "/video.bin", &range);
    assert_eq!(part.status, 206);
    assert!(
        part.head
            .contains("content-range: bytes 1000000-1000003/67108864"),
        "{}",
        part.head
    );
    let sample = fs::read(node.path("content/video.bin")).unwrap();
    assert_eq!(part.body, sample[1_000_000..1_000_004]);

    let pages = node.address("metrics");
    assert_eq!(get(pages, "/healthz", &[]).status, 200);
    assert_eq!(get(pages, "/readyz", &[]).status, 200);
    assert_eq!(get(pages, "/else", &[]).status, 404);
    let metrics = get(pages, "/metrics", &[]);
    let text = String::from_utf8(metrics.body).unwrap();
    assert!(
        metrics
            .head
            .contains("content-type: text/plain; version=0.0.4; charset=utf-8"),
        "{}",
        metrics.head
    );
    assert!(text.contains("headwater_build_info{"), "{text}");
    assert!(
        text.contains("headwater_dns_queries_total{outcome=\"authoritative\",transport=\"udp\"} 2"),
        "{text}"
    );
    let page = String::from_utf8(get(pages, "/", &[]).body).unwrap();
    assert!(page.contains("<td>cdn.test.</td>"), "{page}");

    let status = node.status();
    assert_eq!(status.zones[0].name, "cdn.test.");
    assert!(status.zones[0].serial.is_some());
    assert!(status.problems.is_empty(), "{:?}", status.problems);
    let log = node.log();
    assert!(log.contains("dig @127.0.0.1 -p "), "{log}");
}

#[test]
fn default_start_makes_the_same_sample_every_time() {
    let node = Node::start_default();
    let file = fs::read(node.path("content/video.bin")).unwrap();
    let digest = blake3::hash(&file).to_hex();
    assert_eq!(digest.as_str(), SAMPLE_BLAKE3);
}

#[test]
fn commands_speak_to_the_running_node() {
    let node = Node::start(ZONED, &[("a.zone", ZONE), ("content/a.txt", "hello")]);
    let out = |args: &[&str]| {
        let output = node.command(args);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {text}");
        text
    };
    assert!(out(&["status"]).contains("a.test."));
    let json: serde_json::Value = serde_json::from_str(&out(&["status", "--json"])).unwrap();
    assert_eq!(json["zones"][0]["serial"], 1);
    assert!(out(&["zone", "list"]).contains("a.test."));
    assert!(out(&["zone", "show", "A.test"]).contains("192.0.2.1"));
    assert!(out(&["cache", "stats"]).contains("entries"));
    assert!(out(&["cache", "flush", "--all"]).contains("0 entries"));
    until("the file to be published", || {
        out(&["content", "list"]).contains("/a.txt")
    });
    assert!(out(&["content", "show", "/a.txt"]).contains("5 bytes"));
    assert!(out(&["content", "verify"]).contains("/a.txt"));
    let socket = node.path("state/admin.sock");
    let socket = socket.to_str().unwrap();
    assert!(out(&["zone", "list", "--socket", socket]).contains("a.test."));
    assert!(out(&["zone", "list", "--config", "node.toml"]).contains("a.test."));
}

#[test]
fn command_that_names_nothing_known_is_refused() {
    let node = Node::start(ZONED, &[("a.zone", ZONE), ("content/a.txt", "hello")]);
    let refused = |args: &[&str], code: i32, message: &str| {
        let output = node.command(args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.contains(message), "{args:?}: {text}");
    };
    refused(&["zone", "show", "b.test"], 1, "expected one of a.test.");
    refused(&["zone", "reload", "b.test"], 1, "expected one of a.test.");
    refused(&["content", "show", "/b"], 1, "no such object");
    refused(
        &["cache", "lookup", "a", "NOPE"],
        1,
        "expected a record type",
    );
    refused(&["zone", "walk"], 2, "unrecognized subcommand");
    refused(
        &["status", "--socket", "none.sock"],
        1,
        "nothing answers at none.sock",
    );
}

#[test]
fn zone_edited_is_served_after_a_signal() {
    let node = Node::start(ZONED, &[("a.zone", ZONE), ("content/a.txt", "hello")]);
    assert_eq!(serial(&node), 1);
    let edited = ZONE
        .replace("( 1 ", "( 2 ")
        .replace("192.0.2.1", "192.0.2.2");
    fs::write(node.path("a.zone"), edited).unwrap();
    node.signal(Signal::HUP);
    until("the new serial", || serial(&node) == 2);
    let answer = node.ask("www.a.test.", RecordType::A);
    let address: std::net::Ipv4Addr = "192.0.2.2".parse().unwrap();
    assert_eq!(answer.answers[0].data, RData::A(address.into()));
}

#[test]
fn zone_that_is_broken_keeps_the_old_one() {
    let node = Node::start(ZONED, &[("a.zone", ZONE), ("content/a.txt", "hello")]);
    fs::write(node.path("a.zone"), format!("{ZONE}www A nonsense\n")).unwrap();
    let reload = node.command(&["zone", "reload"]);
    let text = String::from_utf8(reload.stdout).unwrap();
    let line = format!("a.zone:{}:", ZONE.lines().count() + 1);
    assert_eq!(reload.status.code(), Some(1), "{text}");
    assert!(text.contains(&line), "{text}");
    assert_eq!(serial(&node), 1);
    let problems = node.status().problems;
    assert!(problems[0].contains(&line), "{problems:?}");
    let ready = get(node.address("metrics"), "/readyz", &[]);
    assert_eq!(ready.status, 200);
    let body = String::from_utf8(ready.body).unwrap();
    assert!(body.contains(&line), "{body}");

    fs::write(node.path("a.zone"), ZONE.replace("( 1 ", "( 3 ")).unwrap();
    let reload = node.command(&["zone", "reload", "a.test"]);
    assert_eq!(reload.status.code(), Some(0));
    assert_eq!(serial(&node), 3);
    assert!(node.status().problems.is_empty());
}

#[test]
fn zone_that_is_broken_at_the_start_does_not_stop_the_others() {
    let config = format!("{ZONED}\n[[zone]]\nname = \"b.test.\"\nfile = \"b.zone\"\n");
    let node = Node::start(
        &config,
        &[
            ("a.zone", ZONE),
            ("b.zone", "nonsense\n"),
            ("content/a.txt", "hello"),
        ],
    );
    assert_eq!(serial(&node), 1);
    let status = node.status();
    let broken = status.zones.iter().find(|z| z.name == "b.test.").unwrap();
    assert_eq!(broken.serial, None);
    let said = broken.problems.iter().any(|p| p.contains("b.zone:1:"));
    assert!(said, "{broken:?}");
}

#[test]
fn configuration_that_is_broken_keeps_the_old_one() {
    let node = Node::start(ZONED, &[("a.zone", ZONE), ("content/a.txt", "hello")]);
    fs::write(node.path("node.toml"), "[dns]\nwrokers = 1\n").unwrap();
    node.signal(Signal::HUP);
    until("the problem in the status", || {
        let problems = node.status().problems;
        problems
            .iter()
            .any(|p| p.contains("node.toml:2: dns.wrokers"))
    });
    assert_eq!(serial(&node), 1);
}

#[test]
fn configuration_with_another_zone_serves_it_after_a_signal() {
    let node = Node::start(ZONED, &[("a.zone", ZONE), ("content/a.txt", "hello")]);
    fs::write(node.path("b.zone"), ZONE).unwrap();
    let config = format!(
        "{ZONED}\n[[zone]]\nname = \"b.test.\"\nfile = \"b.zone\"\nttls = {{ www = \"7s\" }}\n[store]\nobjects = 7\n"
    );
    fs::write(node.path("node.toml"), config).unwrap();
    node.signal(Signal::HUP);
    until("the new zone", || node.status().zones.len() == 2);
    until("its answer", || {
        let answer = node.ask("www.b.test.", RecordType::A);
        answer.answers.first().is_some_and(|r| r.ttl == 7)
    });
    until("the hint at a restart", || {
        node.log().contains("takes effect after a restart")
    });
}

#[test]
fn signal_to_stop_ends_the_node_quickly() {
    let mut node = Node::start(ZONED, &[("a.zone", ZONE), ("content/a.txt", "hello")]);
    let begun = Instant::now();
    node.signal(Signal::TERM);
    assert_eq!(node.ended().code(), Some(0), "{}", node.log());
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    assert!(!node.path("state/admin.sock").exists());
}

#[test]
fn signal_to_stop_does_not_wait_for_silent_clients() {
    let mut node = Node::start(ZONED, &[("a.zone", ZONE), ("content/a.txt", "hello")]);
    let mut clients = Vec::new();
    for service in ["dns", "http", "metrics"] {
        let mut stream = TcpStream::connect(node.address(service)).unwrap();
        stream.write_all(b"\0").unwrap();
        clients.push(stream);
    }
    let begun = Instant::now();
    node.signal(Signal::INT);
    assert_eq!(node.ended().code(), Some(0), "{}", node.log());
    assert!(
        begun.elapsed() < Duration::from_secs(9),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn second_node_on_the_same_state_is_refused() {
    let node = Node::start(ZONED, &[("a.zone", ZONE), ("content/a.txt", "hello")]);
    let second = command(&node.path("."))
        .env("HEADWATER__NODE__STATE", node.path("state"))
        .args(["run", "--config", "node.toml"])
        .output()
        .unwrap();
    let text = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{text}");
    assert!(
        text.contains("in use by another headwater (process "),
        "{text}"
    );
}

#[test]
fn node_killed_starts_again_on_its_socket() {
    let mut node = Node::start(ZONED, &[("a.zone", ZONE), ("content/a.txt", "hello")]);
    node.signal(Signal::KILL);
    node.ended();
    assert!(node.path("state/admin.sock").exists());
    node.start_again();
    assert_eq!(serial(&node), 1);
}

fn serial(node: &Node) -> u32 {
    let answer = node.ask("a.test.", RecordType::SOA);
    match answer.answers.first().map(|r| &r.data) {
        Some(RData::SOA(soa)) => soa.serial,
        other => panic!("no SOA but {other:?}:\n{}", node.log()),
    }
}

const ZONED: &str = "\
[[zone]]
name = \"a.test.\"
file = \"a.zone\"

[resolver]
upstreams = [\"192.0.2.53\"]

[[publish]]
dir = \"content\"
";

const ZONE: &str = "\
$TTL 60
@    SOA  ns hostmaster ( 1 1h 15m 1w 5m )
     NS   ns
ns   A    192.0.2.1
www  A    192.0.2.1
";

/// BLAKE3 of the sample: it must never change, or nodes of two versions would not agree on it.
const SAMPLE_BLAKE3: &str = "c5636c0349e5d7fc4b9e5400da8640d2dd2570266fbcbd90c6b73f284ae6fb54";
