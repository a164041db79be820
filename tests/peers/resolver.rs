//! What dig sees of a forwarding node with a real Unbound as its upstream.

use std::time::{Duration, Instant};

use super::harness::{Answer, COMMON, Node, Unbound, poll};

/// A started node, own zone `cdn.test.`, forwarding to an Unbound that knows `up.test.`.
struct Forwarder {
    node: Node,
    upstream: Unbound,
}

impl Forwarder {
    fn start() -> Self {
        let mut records: Vec<String> = [
            "up.test. 3600 IN SOA ns.up.test. hostmaster.up.test. 1 3600 600 86400 60",
            "up.test. 3600 IN NS ns.up.test.",
            "www.up.test. 200 IN A 192.0.2.10",
            "www.up.test. 200 IN AAAA 2001:db8::10",
            "short.up.test. 1 IN A 192.0.2.11",
        ]
        .map(str::to_owned)
        .into();
        for number in 0..80 {
            records.push(format!(
                "big.up.test. 200 IN TXT \"record {number:02} of a large set\""
            ));
        }
        let records: Vec<_> = records.iter().map(String::as_str).collect();
        let upstream = Unbound::start("up.test.", &records);
        let mut node = Node::new(&format!(
            r#"{COMMON}
[resolver]
upstreams = ["127.0.0.1:{port}"]
allow = ["127.0.0.1"]
[[zone]]
name = "cdn.test."
file = "cdn.test.zone"
"#,
            port = upstream.port
        ));
        node.write(
            "cdn.test.zone",
            "@ 300 SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\nwww A 192.0.2.1\n",
        );
        node.start();
        Self { node, upstream }
    }

    /// Queries sent upstream so far.
    fn upstream_queries(&self) -> f64 {
        self.node
            .metric("headwater_resolver_upstream_queries_total", &[])
    }

    fn cache_requests(&self, outcome: &str) -> f64 {
        self.node.metric(
            "headwater_resolver_cache_requests_total",
            &[("outcome", outcome)],
        )
    }

    /// Asks until the answer has the TTL of a stale one; that answer and how long it took.
    fn stale(&self, name: &str) -> (Answer, Duration) {
        poll(Duration::from_secs(15), "a stale answer", || {
            let began = Instant::now();
            let answer = self.node.dig(&[name, "A"]);
            let took = began.elapsed();
            (answer.answer.first()?.ttl == 30).then_some((answer, took))
        })
    }
}

#[test]
fn foreign_name_is_resolved_and_then_cached_with_its_ttl_counting_down() {
    let forwarder = Forwarder::start();
    let first = forwarder.node.dig(&["www.up.test", "A"]);
    assert_eq!(first.status, "NOERROR", "{}", first.text);
    assert!(first.flag("ra") && !first.flag("aa"), "{}", first.text);
    assert_eq!(first.data("A"), ["192.0.2.10"]);
    let ttl = first.answer[0].ttl;
    assert!((199..=200).contains(&ttl), "{ttl}");
    let asked = forwarder.upstream_queries();
    assert!(asked >= 1.0);
    poll(Duration::from_secs(5), "the TTL to count down", || {
        let again = forwarder.node.dig(&["www.up.test", "A"]);
        assert_eq!(again.data("A"), ["192.0.2.10"]);
        (again.answer[0].ttl < ttl).then_some(())
    });
    assert!(
        forwarder.upstream_queries() <= asked,
        "asked upstream again"
    );
    assert_eq!(forwarder.cache_requests("miss"), 1.0);
    assert!(forwarder.cache_requests("hit") >= 1.0);
}

#[test]
fn foreign_name_is_resolved_over_tcp_too() {
    let forwarder = Forwarder::start();
    let answer = forwarder.node.dig(&["www.up.test", "AAAA", "+tcp"]);
    assert_eq!(answer.data("AAAA"), ["2001:db8::10"]);
}

#[test]
fn large_answer_is_fetched_whole_and_truncated_for_udp() {
    let forwarder = Forwarder::start();
    let cut = forwarder.node.dig(&["big.up.test", "TXT", "+ignore"]);
    assert!(cut.flag("tc"), "{}", cut.text);
    let whole = forwarder.node.dig(&["big.up.test", "TXT", "+tcp"]);
    assert_eq!(whole.data("TXT").len(), 80);
}

#[test]
fn missing_name_and_missing_type_are_cached_as_such() {
    let forwarder = Forwarder::start();
    for (name, rtype, status) in [
        ("nobody.up.test", "A", "NXDOMAIN"),
        ("short.up.test", "AAAA", "NOERROR"),
    ] {
        let first = forwarder.node.dig(&[name, rtype]);
        let asked = forwarder.upstream_queries();
        let negative = forwarder.cache_requests("negative");
        let second = forwarder.node.dig(&[name, rtype]);
        for answer in [&first, &second] {
            assert_eq!(answer.status, status, "{}", answer.text);
            assert!(answer.answer.is_empty(), "{}", answer.text);
            assert_eq!(answer.authority.len(), 1, "{}", answer.text);
            assert!(answer.authority[0].ttl <= 60, "{}", answer.text);
        }
        assert_eq!(forwarder.upstream_queries(), asked, "{name} asked again");
        assert_eq!(forwarder.cache_requests("negative"), negative + 1.0);
    }
}

#[test]
fn stale_answer_is_given_when_the_upstream_has_gone() {
    let mut forwarder = Forwarder::start();
    assert_eq!(
        forwarder.node.dig(&["short.up.test", "A"]).data("A"),
        ["192.0.2.11"]
    );
    forwarder.upstream.stop();
    let (answer, took) = forwarder.stale("short.up.test");
    assert_eq!(answer.data("A"), ["192.0.2.11"]);
    assert!(took < Duration::from_millis(2_500), "{took:?}");
    assert!(forwarder.cache_requests("stale") >= 1.0);
    // What was never asked has no stale answer.
    let unknown = forwarder.node.dig(&["www.up.test", "A", "+time=8"]);
    assert_eq!(unknown.status, "SERVFAIL");
}

#[test]
fn stale_answer_is_given_within_two_seconds_when_the_upstream_is_silent() {
    let forwarder = Forwarder::start();
    forwarder.node.dig(&["short.up.test", "A"]);
    forwarder.upstream.pause();
    let (answer, took) = forwarder.stale("short.up.test");
    assert_eq!(answer.data("A"), ["192.0.2.11"]);
    assert!(took < Duration::from_millis(2_500), "{took:?}");
    forwarder.upstream.resume();
}

#[test]
fn client_outside_allow_is_refused_foreign_names_but_not_own_ones() {
    let forwarder = Forwarder::start();
    forwarder.node.dig(&["www.up.test", "A"]);
    let refused = forwarder.node.dig(&["-b", "127.0.0.2", "www.up.test", "A"]);
    assert_eq!(refused.status, "REFUSED");
    assert!(refused.answer.is_empty(), "not even from the cache");
    let own = forwarder
        .node
        .dig(&["-b", "127.0.0.2", "www.cdn.test", "A"]);
    assert_eq!(own.data("A"), ["192.0.2.1"]);
    assert!(own.flag("aa"));
}

#[test]
fn forward_zone_goes_to_its_own_upstream() {
    let general = Unbound::start(
        "up.test.",
        &["up.test. 60 IN SOA ns.up.test. h.up.test. 1 2 3 4 60"],
    );
    let corporate = Unbound::start(
        "corp.test.",
        &[
            "corp.test. 60 IN SOA ns.corp.test. h.corp.test. 1 2 3 4 60",
            "intra.corp.test. 60 IN A 10.1.2.3",
        ],
    );
    let mut node = Node::new(&format!(
        r#"{COMMON}
[resolver]
upstreams = ["127.0.0.1:{}"]
[[resolver.forward]]
zone = "corp.test."
upstreams = ["127.0.0.1:{}"]
"#,
        general.port, corporate.port
    ));
    node.start();
    let answer = node.dig(&["intra.corp.test", "A"]);
    assert_eq!(answer.data("A"), ["10.1.2.3"], "{}", answer.text);
}

#[test]
fn flushed_name_is_asked_for_anew() {
    let forwarder = Forwarder::start();
    forwarder.node.dig(&["www.up.test", "A"]);
    let asked = forwarder.upstream_queries();
    let found = forwarder.node.control(&["cache", "lookup", "www.up.test"]);
    found.assert_success();
    assert!(found.stdout.contains("192.0.2.10"), "{}", found.stdout);
    forwarder
        .node
        .control(&["cache", "flush", "www.up.test"])
        .assert_success();
    let gone = forwarder.node.control(&["cache", "lookup", "www.up.test"]);
    assert!(!gone.stdout.contains("192.0.2.10"), "{}", gone.stdout);
    let again = forwarder.node.dig(&["www.up.test", "A"]);
    assert_eq!(again.data("A"), ["192.0.2.10"]);
    assert!(forwarder.upstream_queries() > asked);
}
