//! What dig and kdig see of an authoritative node.

use std::process::Command;

use super::harness::{Answer, COMMON, Node, run, tool};

/// A started node with the zone `cdn.test.` and no resolver.
fn node() -> Node {
    let mut node = Node::new(&format!(
        r#"{COMMON}
[resolver]
mode = "off"
[[zone]]
name = "cdn.test."
file = "cdn.test.zone"
ttl = "300s"
ttls = {{ "www" = "30s", "video/AAAA" = "45s" }}
"#
    ));
    let mut zone = String::from(
        "@ 3600 SOA ns hostmaster 2026010101 3600 600 86400 60\n\
         @ NS ns\n\
         ns A 127.0.0.1\n\
         video A 192.0.2.1\n\
         video AAAA 2001:db8::1\n\
         www A 192.0.2.2\n\
         alias CNAME video\n",
    );
    for number in 0..80 {
        zone.push_str(&format!("big TXT \"record {number:02} of a large set\"\n"));
    }
    node.write("cdn.test.zone", zone);
    node.start();
    node
}

#[test]
fn own_name_is_answered_with_aa_and_the_configured_ttl() {
    let node = node();
    let answer = node.dig(&["video.cdn.test", "A"]);
    assert_eq!(answer.status, "NOERROR");
    assert!(answer.flag("aa"), "{}", answer.text);
    assert!(!answer.flag("tc"), "{}", answer.text);
    assert_eq!(answer.answer.len(), 1, "{}", answer.text);
    assert_eq!(answer.answer[0].name, "video.cdn.test.");
    assert_eq!(answer.answer[0].ttl, 300);
    assert_eq!(answer.data("A"), ["192.0.2.1"]);
}

#[test]
fn ttls_of_the_configuration_win_for_their_names_and_types_only() {
    let node = node();
    let ttl = |name: &str, rtype: &str| {
        let answer = node.dig(&[name, rtype]);
        assert_eq!(answer.answer.len(), 1, "{}", answer.text);
        answer.answer[0].ttl
    };
    assert_eq!(ttl("www.cdn.test", "A"), 30);
    assert_eq!(ttl("video.cdn.test", "AAAA"), 45);
    assert_eq!(ttl("video.cdn.test", "A"), 300);
    assert_eq!(ttl("cdn.test", "SOA"), 3600);
}

#[test]
fn tcp_gives_the_same_answer() {
    let node = node();
    let udp = node.dig(&["video.cdn.test", "A"]);
    let tcp = node.dig(&["video.cdn.test", "A", "+tcp"]);
    assert!(tcp.text.contains("(TCP)"), "{}", tcp.text);
    assert_eq!(udp.answer, tcp.answer);
    assert_eq!(udp.flags, tcp.flags);
}

#[test]
fn cname_is_followed_within_the_zone() {
    let node = node();
    let answer = node.dig(&["alias.cdn.test", "A"]);
    assert_eq!(answer.data("CNAME"), ["video.cdn.test."]);
    assert_eq!(answer.data("A"), ["192.0.2.1"]);
}

#[test]
fn missing_name_is_nxdomain_and_missing_type_nodata_with_the_negative_ttl() {
    let node = node();
    for (name, rtype, status) in [
        ("nobody.cdn.test", "A", "NXDOMAIN"),
        ("www.cdn.test", "AAAA", "NOERROR"),
    ] {
        let answer = node.dig(&[name, rtype]);
        assert_eq!(answer.status, status, "{}", answer.text);
        assert!(answer.flag("aa"), "{}", answer.text);
        assert!(answer.answer.is_empty(), "{}", answer.text);
        assert_eq!(answer.authority.len(), 1, "{}", answer.text);
        assert_eq!(answer.authority[0].rtype, "SOA");
        // RFC 2308: the lesser of the SOA's TTL (3600) and its MINIMUM (60).
        assert_eq!(answer.authority[0].ttl, 60);
    }
}

#[test]
fn foreign_name_without_a_resolver_is_refused() {
    let answer = node().dig(&["www.example", "A"]);
    assert_eq!(answer.status, "REFUSED");
    assert!(!answer.flag("ra"), "{}", answer.text);
}

#[test]
fn edns_version_1_is_answered_with_badvers_and_version_0() {
    let answer = node().dig(&["video.cdn.test", "A", "+edns=1", "+noednsnegotiation"]);
    assert_eq!(answer.status, "BADVERS");
    let edns = answer.edns.expect("an OPT record comes back");
    assert!(edns.starts_with("version: 0"), "{edns}");
    assert!(answer.answer.is_empty());
}

#[test]
fn query_without_edns_is_answered_without() {
    let answer = node().dig(&["video.cdn.test", "A", "+noedns"]);
    assert_eq!(answer.edns, None);
    assert_eq!(answer.data("A"), ["192.0.2.1"]);
}

#[test]
fn chaos_class_is_not_served() {
    let answer = node().dig(&["version.bind", "CH", "TXT"]);
    assert!(
        ["REFUSED", "NOTIMP"].contains(&answer.status.as_str()),
        "{}",
        answer.text
    );
    assert!(answer.answer.is_empty(), "{}", answer.text);
}

#[test]
fn any_is_answered_with_one_rrset() {
    // RFC 8482, section 4.1.
    let answer = node().dig(&["video.cdn.test", "ANY", "+notcp"]);
    assert_eq!(answer.status, "NOERROR");
    assert_eq!(answer.answer.len(), 1, "{}", answer.text);
}

#[test]
fn large_rrset_is_truncated_over_udp_whatever_is_advertised_and_whole_over_tcp() {
    let node = node();
    for size in ["+bufsize=512", "+bufsize=1232", "+bufsize=4096", "+noedns"] {
        let cut = node.dig(&["big.cdn.test", "TXT", size, "+ignore"]);
        assert!(cut.flag("tc"), "{size}: {}", cut.text);
        assert!(cut.answer.is_empty(), "no part of an RRset: {}", cut.text);
    }
    // Without +ignore dig falls back to TCP by itself.
    let whole = node.dig(&["big.cdn.test", "TXT"]);
    assert!(whole.text.contains("(TCP)"), "{}", whole.text);
    assert!(!whole.flag("tc"), "{}", whole.text);
    assert_eq!(whole.data("TXT").len(), 80);
}

#[test]
fn kdig_asks_many_questions_over_one_connection() {
    let node = node();
    let mut command = Command::new(tool("kdig"));
    command
        .args(["@127.0.0.1", "-p", &node.dns.to_string()])
        .args(["+tcp", "+keepopen", "+retry=0"]);
    let questions = [
        ("video.cdn.test", "A", "NOERROR"),
        ("nobody.cdn.test", "A", "NXDOMAIN"),
        ("big.cdn.test", "TXT", "NOERROR"),
        ("www.cdn.test", "A", "NOERROR"),
        ("cdn.test", "SOA", "NOERROR"),
    ];
    for (name, rtype, _) in questions {
        command.args([name, rtype]);
    }
    let output = run(&mut command);
    output.assert_success();
    let answers: Vec<_> = output
        .stdout
        .split(";; ->>HEADER<<-")
        .skip(1)
        .filter_map(|text| Answer::parse(&format!(";; ->>HEADER<<-{text}")))
        .collect();
    let statuses: Vec<_> = answers
        .iter()
        .map(|answer| answer.status.as_str())
        .collect();
    assert_eq!(
        statuses,
        questions.map(|(_, _, status)| status),
        "{}",
        output.stdout
    );
    // One connection has one source port; kdig names it nowhere, the node counts its queries.
    assert_eq!(
        node.metric("headwater_dns_queries_total", &[("transport", "tcp")]),
        questions.len() as f64
    );
}
