//! The query log of a running node.

use std::fs;

use hickory_proto::rr::RecordType;
use rustix::process::Signal;

use crate::harness::{Node, until};

const CONFIG: &str = "[resolver]\nmode = \"off\"\n[log]\nqueries = \"queries.log\"\n\
                      [[zone]]\nname = \"a.test.\"\nfile = \"a.zone\"\n";
const ZONE: &str = "@ 300 SOA ns host 1 3600 600 86400 60\n@ NS ns\nns A 192.0.2.1\n";

#[test]
fn query_log_tells_each_query_and_is_opened_anew_after_a_rotation() {
    let node = Node::start(CONFIG, &[("a.zone", ZONE)]);
    node.ask("nS.a.test.", RecordType::A);
    node.ask("none.a.test.", RecordType::TXT);
    let lines = |name: &str| -> Vec<serde_json::Value> {
        let text = fs::read_to_string(node.path(name)).unwrap_or_default();
        let whole = text.lines().filter(|line| line.ends_with('}'));
        whole
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    until("two lines", || lines("queries.log").len() == 2);
    let seen = lines("queries.log");
    assert_eq!(seen[0]["name"], "nS.a.test.");
    assert_eq!(seen[0]["client"], "127.0.0.1");
    assert_eq!(seen[0]["transport"], "udp");
    assert_eq!(seen[0]["outcome"], "authoritative");
    assert_eq!(seen[0]["rcode"], "NOERROR");
    assert_eq!(seen[1]["type"], "TXT");
    assert_eq!(seen[1]["rcode"], "NXDOMAIN");

    fs::rename(node.path("queries.log"), node.path("old.log")).unwrap();
    node.signal(Signal::HUP);
    until("the new file", || node.path("queries.log").exists());
    node.ask("ns.a.test.", RecordType::A);
    until("the line in it", || lines("queries.log").len() == 1);
    assert_eq!(lines("old.log").len(), 2);
}

#[test]
fn query_log_that_cannot_be_opened_is_an_error_at_the_start() {
    let dir = crate::harness::home();
    fs::write(
        dir.path().join("node.toml"),
        "[log]\nqueries = \"none/queries.log\"\n",
    )
    .unwrap();
    let mut command = crate::harness::command(dir.path());
    let output = command
        .args(["run", "--config", "node.toml"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("log.queries: not opened"), "{text}");
}
