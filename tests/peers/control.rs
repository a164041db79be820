//! The command line: checking a configuration, and talking to a running node.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::harness::{COMMON, Node, Output, READY, Unbound, headwater, noise, poll, run};

const ZONE: &str = "\
@ 300 SOA ns hostmaster 1 3600 600 86400 60
@ NS ns
ns A 127.0.0.1
www A 192.0.2.1
";

/// The zone with another serial.
fn zone(serial: u32) -> String {
    ZONE.replace("hostmaster 1 ", &format!("hostmaster {serial} "))
}

/// A started node with one zone, one published object, and a resolver that knows `up.test.`.
fn node() -> (Node, Unbound) {
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
name = "cdn.test."
file = "cdn.test.zone"
[[publish]]
prefix = "/"
dir = "content"
"#,
        upstream.port
    ));
    node.write("cdn.test.zone", ZONE);
    node.write("content/video.bin", noise(5, (3 << 20) + 5));
    node.start();
    (node, upstream)
}

fn serial(node: &Node) -> u32 {
    let answer = node.dig(&["cdn.test", "SOA"]);
    let data = answer.data("SOA")[0];
    let serial = data.split(' ').nth(2).expect("a SOA has seven fields");
    serial.parse().expect("a serial is a number")
}

fn check(config: &Path) -> Output {
    run(headwater().arg("check").arg("--config").arg(config))
}

/// Checks a configuration with one fault: what is printed has `expected` in this order on one line.
#[track_caller]
fn assert_faulty(config: &str, expected: &[&str]) {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let file = dir.path().join("bad.toml");
    std::fs::write(&file, config).expect("the temporary directory is writable");
    let output = check(&file);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = format!("{}{}", output.stdout, output.stderr);
    let good = said.lines().any(|line| {
        let mut rest = line;
        expected.iter().all(|part| match rest.split_once(part) {
            Some((_, after)) => {
                rest = after;
                true
            }
            None => false,
        })
    });
    assert!(good, "expected {expected:?} in:\n{said}");
}

#[test]
fn faulty_value_is_told_with_file_line_key_found_and_expected() {
    assert_faulty(
        "[node]\nid = \"a\"\n\n[dns]\nworkers = \"many\"\n",
        &["bad.toml:5: dns.workers: ", "found ", "many", "expected "],
    );
    assert_faulty(
        "[resolver.cache]\nsize = \"12 parsecs\"\n",
        &[
            "bad.toml:2: resolver.cache.size: ",
            "found ",
            "12 parsecs",
            "expected ",
        ],
    );
    assert_faulty(
        "[http]\nlisten = [\"127.0.0.1\"]\n",
        &[
            "bad.toml:2: http.listen",
            "found ",
            "127.0.0.1",
            "expected ",
        ],
    );
}

#[test]
fn unknown_key_is_told_with_the_nearest_one() {
    assert_faulty(
        "[dns]\nlisten = []\n[resolver.cache]\nmax_tll = \"1d\"\n",
        &["bad.toml:4: resolver.cache.max_tll: ", "max_ttl"],
    );
    assert_faulty(
        "[[zone]]\nname = \"cdn.test.\"\nfiel = \"x\"\nfile = \"x\"\n",
        &["bad.toml:3: zone", "fiel", "file"],
    );
}

#[test]
fn faulty_syntax_is_told_with_its_line() {
    assert_faulty("[dns]\nworkers = = 2\n", &["bad.toml:2:"]);
}

#[test]
fn faulty_zone_is_told_with_its_own_file_and_line() {
    let node = Node::new(&format!(
        "{COMMON}\n[[zone]]\nname = \"cdn.test.\"\nfile = \"cdn.test.zone\"\n"
    ));
    node.write("cdn.test.zone", format!("{ZONE}broken A 192.0.2.256\n"));
    let output = check(&node.path("config.toml"));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(said.contains("cdn.test.zone:5: "), "{said}");
}

#[test]
fn good_configuration_passes_and_wrong_usage_is_2() {
    let node = Node::new(COMMON);
    check(&node.path("config.toml")).assert_success();
    let usage = run(headwater().arg("serve-everything"));
    assert_eq!(usage.status.code(), Some(2), "{usage:?}");
    let absent = node.control(&["status"]);
    assert_eq!(absent.status.code(), Some(1), "{absent:?}");
    assert!(absent.stderr.contains("admin.sock"), "{absent:?}");
}

#[test]
fn status_tells_listeners_zones_and_content() {
    let (node, _upstream) = node();
    let status = node.control_json(&["status"]);
    assert_eq!(status["node"], "test");
    assert_eq!(status["ready"], true, "{status:#}");
    assert_eq!(status["problems"], serde_json::json!([]), "{status:#}");
    assert_eq!(status["zones"][0]["serial"], 1, "{status:#}");
    assert_eq!(status["pid"], node.pid().as_raw_nonzero().get());
    for (service, address) in [
        ("dns", format!("127.0.0.1:{}", node.dns)),
        ("http", format!("127.0.0.1:{}", node.http)),
        ("metrics", format!("127.0.0.1:{}", node.metrics)),
    ] {
        let found = status["listeners"].as_array().expect("a list");
        assert!(
            found
                .iter()
                .any(|l| l["service"] == service && l["address"] == address.as_str()),
            "{status:#}"
        );
    }
    let text = node.control(&["status"]);
    text.assert_success();
    assert!(text.stdout.contains("cdn.test."), "{}", text.stdout);
}

#[test]
fn cache_commands_count_find_and_drop() {
    let (node, _upstream) = node();
    for _ in 0..3 {
        node.dig(&["www.up.test", "A"]);
    }
    node.dig(&["nobody.up.test", "A"]);
    node.dig(&["nobody.up.test", "A"]);
    let stats = node.control_json(&["cache", "stats"]);
    assert_eq!(stats["hits"], 2, "{stats:#}");
    assert_eq!(stats["misses"], 2, "{stats:#}");
    assert_eq!(stats["negative"], 1, "{stats:#}");
    assert_eq!(stats["entries"], 2, "{stats:#}");
    node.control(&["cache", "stats"]).assert_success();

    let found = node.control_json(&["cache", "lookup", "WWW.up.test", "A"]);
    assert_eq!(found[0]["rtype"], "A", "{found:#}");
    assert_eq!(found[0]["rcode"], "NOERROR", "{found:#}");
    let ttl = found[0]["ttl"].as_i64().expect("a number");
    assert!((190..=200).contains(&ttl), "{found:#}");
    assert!(
        found[0]["records"][0]
            .as_str()
            .is_some_and(|record| record.contains("192.0.2.10")),
        "{found:#}"
    );
    let other = node.control(&["cache", "lookup", "www.up.test", "MX"]);
    assert_eq!(other.status.code(), Some(1), "{other:?}");

    let dropped = node.control_json(&["cache", "flush", "--zone", "up.test"]);
    assert_eq!(dropped["entries"], 2, "{dropped:#}");
    node.dig(&["www.up.test", "A"]);
    let dropped = node.control_json(&["cache", "flush", "--all"]);
    assert_eq!(dropped["entries"], 1, "{dropped:#}");
    assert_eq!(node.control_json(&["cache", "stats"])["entries"], 0);
}

#[test]
fn zone_commands_list_show_and_reload() {
    let (node, _upstream) = node();
    let zones = node.control_json(&["zone", "list"]);
    assert_eq!(zones[0]["name"], "cdn.test.", "{zones:#}");
    assert_eq!(zones[0]["serial"], 1, "{zones:#}");
    assert_eq!(zones[0]["records"], 4, "{zones:#}");
    let text = node.control(&["zone", "show", "cdn.test."]);
    text.assert_success();
    assert!(text.stdout.contains("192.0.2.1"), "{}", text.stdout);
    let unknown = node.control(&["zone", "show", "nothing.test."]);
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");

    node.write("cdn.test.zone", zone(2));
    let reloaded = node.control_json(&["zone", "reload", "cdn.test."]);
    assert_eq!(reloaded["zones"][0]["serial"], 2, "{reloaded:#}");
    assert_eq!(serial(&node), 2);
    assert_eq!(node.metric("headwater_zone_serial", &[]), 2.0);
}

#[test]
fn content_commands_list_show_and_verify() {
    let (node, _upstream) = node();
    let object = poll(READY, "the object to be published", || {
        let output = node.control(&["content", "show", "/video.bin", "--json"]);
        serde_json::from_str::<serde_json::Value>(&output.stdout).ok()
    });
    assert_eq!(object["size"], (3 << 20) + 5, "{object:#}");
    assert_eq!(object["chunks"], 4, "{object:#}");
    assert_eq!(object["held"], 4, "{object:#}");
    let list = node.control_json(&["content", "list"]);
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list:#}");
    assert_eq!(list[0], object);
    let sum = super::harness::sha256(&node.path("content/video.bin"));
    assert_eq!(object["sha256"], sum.as_str(), "{object:#}");
    let text = node.control(&["content", "list"]);
    text.assert_success();
    assert!(text.stdout.contains("/video.bin"), "{}", text.stdout);
    let verified = node.control_json(&["content", "verify"]);
    assert_eq!(verified[0]["good"], 4, "{verified:#}");
    assert_eq!(verified[0]["bad"], 0, "{verified:#}");
}

#[test]
fn hangup_serves_the_edited_zone_and_a_broken_file_leaves_the_old_one() {
    let (mut node, _upstream) = node();
    node.write("cdn.test.zone", zone(2));
    node.signal(Signal::HUP);
    poll(READY, "serial 2", || (serial(&node) == 2).then_some(()));

    node.write("cdn.test.zone", format!("{}broken A nowhere\n", zone(3)));
    node.signal(Signal::HUP);
    let problem = poll(READY, "status to tell the problem", || {
        let status = node.control_json(&["status"]);
        let problem = status["zones"][0]["problems"][0].as_str()?.to_owned();
        Some((problem, status))
    });
    assert!(problem.0.contains("cdn.test.zone:5: "), "{problem:?}");
    assert_eq!(problem.1["zones"][0]["serial"], 2);
    let text = node.control(&["status"]).stdout;
    assert!(text.contains("cdn.test.zone:5: "), "{text}");
    assert_eq!(serial(&node), 2);
    assert_eq!(node.dig(&["www.cdn.test", "A"]).data("A"), ["192.0.2.1"]);
    let reload = node.control(&["zone", "reload"]);
    assert_eq!(reload.status.code(), Some(1), "{reload:?}");

    node.write("cdn.test.zone", zone(4));
    node.control(&["zone", "reload"]).assert_success();
    assert_eq!(serial(&node), 4);
    let status = node.control_json(&["status"]);
    assert_eq!(status["zones"][0]["problems"], serde_json::json!([]));
    assert!(node.stop().success());
}

#[test]
fn no_query_is_lost_during_twenty_reloads() {
    const RELOADS: u32 = 20;
    const QUERIES: u64 = 2_000;
    let (node, _upstream) = node();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, node.dns));
    let stop = AtomicBool::new(false);
    let answered = AtomicU64::new(0);
    let asker = || {
        while !stop.load(Ordering::Relaxed) {
            let id = answered.load(Ordering::Relaxed) as u16;
            ask(address, id);
            answered.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let askers = [scope.spawn(asker), scope.spawn(asker)];
        for reload in 1..=RELOADS {
            node.write("cdn.test.zone", zone(100 + reload));
            if reload % 2 == 0 {
                node.signal(Signal::HUP);
            } else {
                node.control(&["zone", "reload"]).assert_success();
            }
            poll(READY, "the new serial", || {
                (serial(&node) == 100 + reload).then_some(())
            });
            // Reloads spread over the queries, however fast the node is.
            let share = QUERIES * u64::from(reload) / u64::from(RELOADS);
            poll(READY, "more queries", || {
                let going = askers.iter().all(|asker| !asker.is_finished());
                let enough = answered.load(Ordering::Relaxed) >= share;
                (enough || !going).then_some(())
            });
        }
        stop.store(true, Ordering::Relaxed);
        for asker in askers {
            asker.join().expect("every query was answered rightly");
        }
    });
    let answered = answered.into_inner();
    assert!(answered >= QUERIES, "{answered}");
}

/// Asks for `www.cdn.test A` once over UDP; panics unless the right answer comes.
fn ask(address: SocketAddr, id: u16) {
    let mut query = id.to_be_bytes().to_vec();
    query.extend(
        b"\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x03cdn\x04test\x00\x00\x01\x00\x01",
    );
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    socket.connect(address).expect("loopback is there");
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .expect("not zero");
    socket.send(&query).expect("the node listens");
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).expect("no query is lost");
    assert_eq!(answer[..2], id.to_be_bytes());
    assert_eq!(answer[3] & 0x0f, 0, "NOERROR");
    assert_eq!(answer[6..8], [0, 1], "one record");
    assert!(length > query.len());
}
