//! Names answered here or not as asked: special-use names, local data, blocklists, private addresses.

use std::fs;
use std::net::SocketAddr;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use rustix::process::Signal;

use crate::harness::{Node, get, until};

/// Zones that stand for the rest of the world.
const WORLD: &str = "\
$TTL 300
@ SOA ns host 1 3600 600 86400 60
@ NS ns
ns A 192.0.2.53
www A 192.0.2.1
garden A 192.0.2.80
ads A 192.0.2.2
cloaked CNAME ads
inside A 10.1.2.3
both A 10.1.2.3
both A 192.0.2.9
";

fn world() -> Node {
    let config = "[resolver]\nmode = \"off\"\n[[zone]]\nname = \"world.example.\"\nfile = \"world.zone\"\n\
                  [[zone]]\nname = \"corp.example.\"\nfile = \"world.zone\"\n";
    Node::start(config, &[("world.zone", WORLD)])
}

fn resolver(upstream: SocketAddr, more: &str) -> String {
    format!("[resolver]\nupstreams = [\"{upstream}\"]\n{more}")
}

/// Code and data of the answer.
#[track_caller]
fn check(node: &Node, name: &str, rtype: RecordType, expected: (ResponseCode, &[&str])) -> Message {
    let message = node.ask(name, rtype);
    let data: Vec<_> = message.answers.iter().map(|r| r.data.to_string()).collect();
    let code = message.metadata.response_code;
    assert_eq!(
        (code, data.as_slice()),
        (expected.0, &own(expected.1)[..]),
        "{name}"
    );
    message
}

fn own(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

use ResponseCode::{NXDomain, NoError, Refused};

#[test]
fn special_names_stay_here_unless_somebody_claims_them() {
    let world = world();
    let upstream = world.address("dns");
    let forward = format!(
        "[[resolver.forward]]\nzone = \"10.in-addr.arpa.\"\nupstreams = [\"{upstream}\"]\n"
    );
    let node = Node::start(&resolver(upstream, &forward), &[]);
    let message = check(
        &node,
        "x.localhost.",
        RecordType::A,
        (NoError, &["127.0.0.1"]),
    );
    assert!(message.metadata.authoritative && message.metadata.recursion_available);
    check(&node, "a.invalid.", RecordType::A, (NXDomain, &[]));
    check(
        &node,
        "1.1.168.192.in-addr.arpa.",
        RecordType::PTR,
        (NXDomain, &[]),
    );
    // The upstream, which has no such zone, refuses; what is ours would not exist.
    let message = node.ask("1.0.0.10.in-addr.arpa.", RecordType::PTR);
    assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
    check(
        &node,
        "www.world.example.",
        RecordType::A,
        (NoError, &["192.0.2.1"]),
    );
    let seen = get(world.address("metrics"), "/metrics", &[]);
    let seen = String::from_utf8(seen.body).unwrap();
    let line = r#"headwater_dns_queries_total{outcome="authoritative",transport="udp"} 1"#;
    assert!(seen.contains(line), "{seen}");
}

#[test]
fn special_names_are_asked_for_when_switched_off() {
    let world = world();
    let more = "special_use_names = false\n";
    let node = Node::start(&resolver(world.address("dns"), more), &[]);
    let message = node.ask("a.invalid.", RecordType::A);
    assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn local_names_win_over_the_world_and_leave_their_neighbours_alone() {
    let world = world();
    let more = "[resolver.local]\nhosts = [\"hosts\"]\nttl = \"5m\"\n\
                records = [\"www.world.example. 60 A 192.0.2.99\", \"alias.lan. 60 CNAME garden.world.example.\"]\n";
    let hosts = "192.0.2.7 printer.lan copier.lan # the big one\n";
    let node = Node::start(&resolver(world.address("dns"), more), &[("hosts", hosts)]);
    check(
        &node,
        "printer.lan.",
        RecordType::A,
        (NoError, &["192.0.2.7"]),
    );
    check(&node, "copier.lan.", RecordType::AAAA, (NoError, &[]));
    check(
        &node,
        "7.2.0.192.in-addr.arpa.",
        RecordType::PTR,
        (NoError, &["printer.lan."]),
    );
    check(
        &node,
        "www.world.example.",
        RecordType::A,
        (NoError, &["192.0.2.99"]),
    );
    check(
        &node,
        "garden.world.example.",
        RecordType::A,
        (NoError, &["192.0.2.80"]),
    );
    let data = ["garden.world.example.", "192.0.2.80"];
    check(&node, "alias.lan.", RecordType::A, (NoError, &data));

    fs::write(node.path("hosts"), "192.0.2.8 printer.lan\n").unwrap();
    node.signal(Signal::HUP);
    until("the new address", || {
        let message = node.ask("printer.lan.", RecordType::A);
        message
            .answers
            .iter()
            .any(|r| r.data.to_string() == "192.0.2.8")
    });
    fs::write(node.path("hosts"), "printer.lan 192.0.2.9\n").unwrap();
    let reload = node.command(&["zone", "reload"]);
    assert_eq!(reload.status.code(), Some(1));
    let problems = node.status().problems;
    assert!(
        problems[0].contains("hosts:1: found `printer.lan`, expected an IP address"),
        "{problems:?}"
    );
    check(
        &node,
        "printer.lan.",
        RecordType::A,
        (NoError, &["192.0.2.8"]),
    );
}

#[test]
fn blocklists_decide_in_their_order_and_are_read_again() {
    let world = world();
    let more = "\
[[resolver.blocklist]]
name = \"ads\"
file = \"ads.txt\"
[[resolver.blocklist]]
name = \"policy.test.\"
file = \"policy.zone\"
format = \"rpz\"
";
    let policy = "$TTL 60\n@ SOA ns host 1 2 3 4 5\n@ NS ns\n\
                  www.world.example CNAME garden.world.example.\n\
                  silent.world.example CNAME *.\n";
    let files = [("ads.txt", "ads.world.example\n"), ("policy.zone", policy)];
    let node = Node::start(&resolver(world.address("dns"), more), &files);
    check(
        &node,
        "x.ads.world.example.",
        RecordType::A,
        (NXDomain, &[]),
    );
    // The name is not on the list; what it stands for is.
    check(
        &node,
        "cloaked.world.example.",
        RecordType::A,
        (NXDomain, &[]),
    );
    check(
        &node,
        "silent.world.example.",
        RecordType::A,
        (NoError, &[]),
    );
    let garden = ["garden.world.example.", "192.0.2.80"];
    check(
        &node,
        "www.world.example.",
        RecordType::A,
        (NoError, &garden),
    );

    let other = "both.world.example\ngarden.world.example\n";
    fs::write(node.path("ads.txt"), other).unwrap();
    assert_eq!(node.command(&["zone", "reload"]).status.code(), Some(0));
    check(
        &node,
        "ads.world.example.",
        RecordType::A,
        (NoError, &["192.0.2.2"]),
    );
    check(
        &node,
        "garden.world.example.",
        RecordType::A,
        (NXDomain, &[]),
    );
    fs::write(node.path("ads.txt"), "<html> <body>\n").unwrap();
    assert_eq!(node.command(&["zone", "reload"]).status.code(), Some(1));
    check(
        &node,
        "garden.world.example.",
        RecordType::A,
        (NXDomain, &[]),
    );
    let metrics = String::from_utf8(get(node.address("metrics"), "/metrics", &[]).body).unwrap();
    for line in [
        r#"headwater_policy_rules{list="ads"} 2"#,
        r#"headwater_policy_load_failures_total{list="ads"} 1"#,
        r#"headwater_policy_hits_total{list="policy.test."} 2"#,
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
}

#[test]
fn private_addresses_are_for_names_that_may_have_them() {
    let world = world();
    let upstream = world.address("dns");
    let forward =
        format!("[[resolver.forward]]\nzone = \"corp.example.\"\nupstreams = [\"{upstream}\"]\n");
    let node = Node::start(&resolver(upstream, &forward), &[]);
    check(
        &node,
        "inside.world.example.",
        RecordType::A,
        (NoError, &[]),
    );
    check(
        &node,
        "both.world.example.",
        RecordType::A,
        (NoError, &["192.0.2.9"]),
    );
    check(
        &node,
        "inside.corp.example.",
        RecordType::A,
        (NoError, &["10.1.2.3"]),
    );
    let more = "private_answers = [\"world.example.\"]\n";
    let node = Node::start(&resolver(upstream, more), &[]);
    check(
        &node,
        "inside.world.example.",
        RecordType::A,
        (NoError, &["10.1.2.3"]),
    );
}

#[test]
fn client_that_may_not_recurse_hears_nothing_of_local_names() {
    let config = "[resolver]\nallow = [\"192.0.2.0/24\"]\nupstreams = [\"192.0.2.53\"]\n\
                  [resolver.local]\nrecords = [\"printer.lan. 300 A 192.0.2.7\"]\n";
    let node = Node::start(config, &[]);
    check(&node, "printer.lan.", RecordType::A, (Refused, &[]));
    check(&node, "localhost.", RecordType::A, (Refused, &[]));
}
