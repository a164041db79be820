//! A real dnstap reader as collector.

use std::process::Command;

use super::harness::{COMMON, Node, Process, READY, Unbound, poll, tool};

#[test]
fn collector_gets_queries_and_answers_of_every_kind_over_both_transports() {
    let reader = tool("dnstap");
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
[log]
dnstap = "@DIR@/tap.sock"
[[zone]]
name = "cdn.test."
file = "cdn.test.zone"
"#,
        upstream.port
    ));
    node.write(
        "cdn.test.zone",
        "@ 300 SOA ns host 1 3600 600 86400 60\n@ NS ns\nns A 192.0.2.1\n",
    );
    let socket = node.path("tap.sock");
    let seen = node.path("tap.yaml");
    let mut command = Command::new(reader);
    command
        .arg("-u")
        .arg(&socket)
        .arg("-y")
        .arg("-w")
        .arg(&seen);
    let collector = Process::spawn("dnstap", command, node.path("dnstap.log"));
    poll(READY, "the collector's socket", || {
        socket.exists().then_some(())
    });
    node.start();
    poll(READY, "the collector to be found", || {
        let written = node.metric("headwater_dns_log_written_total", &[("sink", "dnstap")]);
        node.dig(&["ns.cdn.test", "A"]);
        (written > 0.0).then_some(())
    });
    assert_eq!(node.dig(&["www.up.test", "A"]).data("A"), ["192.0.2.10"]);
    assert_eq!(
        node.dig(&["+tcp", "www.up.test", "A"]).data("A"),
        ["192.0.2.10"]
    );
    let stopped = node.stop();
    assert!(stopped.success(), "{stopped}");
    let text = poll(READY, "what the collector has read", || {
        let text = std::fs::read_to_string(&seen).unwrap_or_default();
        (text.matches("CLIENT_RESPONSE").count() >= 2).then_some(text)
    });
    for part in [
        "type: MESSAGE",
        "identity: \"test\"",
        "type: AUTH_QUERY",
        "type: AUTH_RESPONSE",
        "type: CLIENT_QUERY",
        "socket_protocol: UDP",
        "socket_protocol: TCP",
        "query_address: 127.0.0.1",
        "www.up.test.",
        "192.0.2.10",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    collector.stop();
}
