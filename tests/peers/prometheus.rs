//! A real Prometheus over an origin and its mirror.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::harness::{COMMON, Node, Prometheus, READY, Unbound, http_get, noise, poll, tool};

const SIZE: usize = 16 << 20;

#[test]
fn prometheus_scrapes_both_nodes_and_tells_replicated_bytes_and_hit_ratio() {
    let upstream = Unbound::start(
        "up.test.",
        &[
            "up.test. 3600 IN SOA ns.up.test. h.up.test. 1 3600 600 86400 60",
            "www.up.test. 200 IN A 192.0.2.10",
        ],
    );
    let mut origin = Node::new(&format!(
        r#"{COMMON}
[resolver]
upstreams = ["127.0.0.1:{}"]
[[publish]]
prefix = "/"
dir = "content"
"#,
        upstream.port
    ));
    origin.write("content/video.bin", noise(2, SIZE));
    origin.start();
    let mut mirror = Node::new(&format!(
        r#"{COMMON}
[resolver]
mode = "off"
[[mirror]]
prefix = "/"
from = ["http://127.0.0.1:{}"]
interval = "500ms"
"#,
        origin.http
    ));
    mirror.start();
    // One miss and three hits.
    for _ in 0..4 {
        let answer = origin.dig(&["www.up.test", "A"]);
        assert_eq!(answer.data("A"), ["192.0.2.10"], "{}", answer.text);
    }

    let prometheus = Prometheus::start(&[("origin", origin.metrics), ("mirror", mirror.metrics)]);
    for node in ["origin", "mirror"] {
        poll(READY, "both nodes to be up", || {
            (prometheus.query(&format!("up{{node=\"{node}\"}}")) == Some(1.0)).then_some(())
        });
    }
    poll(READY, "the mirror's bytes in Prometheus", || {
        let bytes = prometheus.query("sum(headwater_replication_bytes_total{node=\"mirror\"})")?;
        (bytes >= SIZE as f64).then_some(())
    });
    poll(READY, "the cache hit ratio in Prometheus", || {
        let ratio = prometheus.query(
            "sum(headwater_resolver_cache_requests_total{node=\"origin\",outcome=\"hit\"}) \
             / sum(headwater_resolver_cache_requests_total{node=\"origin\"})",
        )?;
        ((ratio - 0.75).abs() < 1e-9).then_some(())
    });
    // Outcomes sum to totals.
    let queries = prometheus.query("sum(headwater_dns_queries_total{node=\"origin\"})");
    assert_eq!(queries, Some(4.0));
    let links = prometheus.query("count(headwater_link_receive_bytes_total{node=\"origin\"})");
    assert!(links.is_some_and(|links| links >= 1.0), "{links:?}");
    let utilisation = poll(Duration::from_secs(5), "a link's utilisation", || {
        prometheus.query("max(headwater_link_utilization_ratio)")
    });
    assert!((0.0..=1.5).contains(&utilisation), "{utilisation}");

    let targets = prometheus.api("/api/v1/targets");
    let active = targets["data"]["activeTargets"]
        .as_array()
        .expect("a list of targets");
    assert_eq!(active.len(), 2);
    for target in active {
        assert_eq!(target["health"], "up", "{target:#}");
        assert_eq!(target["lastError"], "", "{target:#}");
    }
    for line in prometheus.log().lines() {
        assert!(
            !line.contains("level=warn") && !line.contains("level=error"),
            "{line}"
        );
    }
    for node in [&origin, &mirror] {
        assert_promtool_is_silent(node);
    }
}

/// `promtool check metrics` finds no fault with names, units or help texts.
#[track_caller]
fn assert_promtool_is_silent(node: &Node) {
    let (_, text) = http_get(node.metrics, "/metrics").expect("the node serves /metrics");
    let file = node.write("metrics.txt", text);
    let output = Command::new(tool("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::from(
            std::fs::File::open(file).expect("just written"),
        ))
        .output()
        .expect("promtool starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}
