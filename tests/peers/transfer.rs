//! Zones between servers: NSD, Knot and BIND, each as our secondary and as our primary, with TSIG.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

use super::harness::{Bind, COMMON, Node, Process, dig, free_port, poll, run, tool, try_dig};

const SECRET: &str = "c2VjcmV0IG9mIHNvbWUgbGVuZ3RoLCAzMiBieXRlcw==";
const KEY: &str = "hmac-sha256:transfer:c2VjcmV0IG9mIHNvbWUgbGVuZ3RoLCAzMiBieXRlcw==";

/// A notified server has the zone within this.
const SOON: Duration = Duration::from_secs(20);

/// The zone with so many hosts; its timers are long, so that only NOTIFY brings a change soon.
fn zone(serial: u32, hosts: usize) -> String {
    let mut text = format!(
        "$TTL 300\n@ SOA ns hostmaster {serial} 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n\
         @ MX 10 mail\nmail A 192.0.2.2\n*.wild TXT \"a b\" c\nold CNAME mail\nversion TXT \"{serial}\"\n\
         sub NS ns.sub\nns.sub A 192.0.2.9\nsvc SVCB 1 . alpn=h2\nunknown TYPE65280 \\# 3 010203\n"
    );
    for host in 0..hosts {
        let _ = writeln!(
            text,
            "host{host} A 192.0.{}.{}",
            host / 250 % 250,
            host % 250
        );
    }
    text
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Nsd,
    Knot,
    Bind,
}

/// One of them at work.
#[derive(Debug)]
struct Peer {
    kind: Kind,
    port: u16,
    process: Option<Process>,
    dir: TempDir,
}

impl Peer {
    /// Not started: its directory and port.
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            port: free_port(),
            process: None,
            dir: tempfile::tempdir().expect("a temporary directory can be made"),
        }
    }

    fn at(&self) -> String {
        self.dir.path().display().to_string()
    }

    fn write_zone(&self, text: &str) {
        let file = self.dir.path().join("t.test.zone");
        fs::write(file, text).expect("the temporary directory is writable");
    }

    /// Starts it as a secondary of the server at `primary`.
    fn secondary(&mut self, primary: u16) {
        let at = self.at();
        let config = match self.kind {
            Kind::Nsd => format!(
                "{}zone:\n name: t.test\n zonefile: t.test.zone\n allow-notify: 127.0.0.1 transfer\n \
                 request-xfr: 127.0.0.1@{primary} transfer\n provide-xfr: 127.0.0.1 NOKEY\n",
                self.head()
            ),
            Kind::Knot => format!(
                "{}remote:\n  - id: primary\n    address: 127.0.0.1@{primary}\n    key: transfer\n\
                 acl:\n  - id: notify\n    address: 127.0.0.1\n    key: transfer\n    action: notify\n\
                 \x20 - id: out\n    address: 127.0.0.1\n    action: transfer\n\
                 zone:\n  - domain: t.test\n    master: primary\n    acl: [notify, out]\n    storage: {at}\n",
                self.head()
            ),
            Kind::Bind => format!(
                "{}zone \"t.test\" {{ type secondary; file \"{at}/t.test.zone\"; masterfile-format text;\n \
                 primaries {{ 127.0.0.1 port {primary} key transfer; }};\n \
                 allow-notify {{ key transfer; }}; allow-transfer {{ any; }}; }};\n",
                self.head()
            ),
        };
        self.start(&config);
    }

    /// Starts it as the primary, which tells the server at `secondary`.
    fn primary(&mut self, secondary: u16) {
        let at = self.at();
        let config = match self.kind {
            Kind::Nsd => format!(
                "{}zone:\n name: t.test\n zonefile: t.test.zone\n notify: 127.0.0.1@{secondary} transfer\n \
                 notify-retry: 5\n provide-xfr: 127.0.0.1 transfer\n store-ixfr: yes\n create-ixfr: yes\n",
                self.head()
            ),
            Kind::Knot => format!(
                "{}remote:\n  - id: secondary\n    address: 127.0.0.1@{secondary}\n    key: transfer\n\
                 acl:\n  - id: out\n    address: 127.0.0.1\n    key: transfer\n    action: transfer\n\
                 zone:\n  - domain: t.test\n    file: {at}/t.test.zone\n    notify: secondary\n    acl: out\n    \
                 storage: {at}\n    zonefile-load: difference\n",
                self.head()
            ),
            Kind::Bind => format!(
                "{}zone \"t.test\" {{ type primary; file \"{at}/t.test.zone\"; notify explicit;\n \
                 also-notify {{ 127.0.0.1 port {secondary} key transfer; }};\n \
                 allow-transfer {{ key transfer; }}; ixfr-from-differences yes; }};\n",
                self.head()
            ),
        };
        self.start(&config);
    }

    /// What every configuration begins with.
    fn head(&self) -> String {
        let (at, port) = (self.at(), self.port);
        match self.kind {
            Kind::Nsd => format!(
                "server:\n server-count: 1\n ip-address: 127.0.0.1@{port}\n username: \"\"\n zonesdir: \"{at}\"\n \
                 database: \"\"\n pidfile: \"\"\n xfrdfile: \"{at}/xfrd.state\"\n zonelistfile: \"{at}/zone.list\"\n \
                 xfrdir: \"{at}\"\n rrl-ratelimit: 0\n verbosity: 2\nremote-control:\n control-enable: no\n\
                 key:\n name: transfer\n algorithm: hmac-sha256\n secret: \"{SECRET}\"\n"
            ),
            Kind::Knot => format!(
                "server:\n    listen: 127.0.0.1@{port}\n    rundir: {at}\n    user: root\n\
                 database:\n    storage: {at}\nlog:\n  - target: stderr\n    any: info\n\
                 key:\n  - id: transfer\n    algorithm: hmac-sha256\n    secret: {SECRET}\n"
            ),
            Kind::Bind => format!(
                "options {{ directory \"{at}\"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};\n \
                 recursion no; pid-file none; session-keyfile none; notify-delay 0; serial-query-rate 100; }};\n\
                 controls {{ }};\nkey transfer {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\n"
            ),
        }
    }

    fn start(&mut self, config: &str) {
        let file = self.dir.path().join("conf");
        fs::write(&file, config).expect("the temporary directory is writable");
        self.run();
    }

    /// Starts it (again) with the configuration it has.
    fn run(&mut self) {
        let file = self.dir.path().join("conf");
        let (name, command) = match self.kind {
            Kind::Nsd => {
                let mut command = Command::new(tool("nsd"));
                command.arg("-d").arg("-c").arg(&file);
                ("nsd", command)
            }
            Kind::Knot => {
                let mut command = Command::new(tool("knotd"));
                command.arg("-c").arg(&file);
                ("knotd", command)
            }
            Kind::Bind => {
                let mut command = Command::new(tool("named"));
                command.arg("-g").arg("-c").arg(&file);
                ("named", command)
            }
        };
        self.process = Some(Process::spawn(name, command, self.dir.path().join("log")));
    }

    fn reload(&self) {
        let process = self.process.as_ref().expect("it runs");
        kill_process(process.pid(), Signal::HUP).expect("it is our child");
    }

    fn stop(&mut self) {
        self.process.take().expect("it runs").stop();
    }
}

/// The serial a server answers with, if it does.
fn serial(port: u16) -> Option<u32> {
    let answer = try_dig(port, &["t.test", "SOA", "+norec", "+time=1"])?;
    let data = answer.data("SOA");
    data.first()?.split(' ').nth(2)?.parse().ok()
}

/// Waits until a server has a serial.
#[track_caller]
fn wait_for(port: u16, wanted: u32) {
    poll(SOON, &format!("serial {wanted}"), || {
        (serial(port) == Some(wanted)).then_some(())
    });
}

/// The records of a whole transfer, sorted.
#[track_caller]
fn records(port: u16, key: Option<&str>) -> Vec<String> {
    let mut command = Command::new(tool("dig"));
    command.args([
        "-r",
        "@127.0.0.1",
        "-p",
        &port.to_string(),
        "+noall",
        "+answer",
        "+onesoa",
    ]);
    if let Some(key) = key {
        command.args(["-y", key]);
    }
    let text = run(command.args(["t.test", "AXFR"])).stdout;
    let mut records: Vec<String> = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with(';'))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    records.sort();
    records
}

/// A node that is the primary, and tells the server at `secondary`.
fn primary(secondary: u16, hosts: usize) -> Node {
    let mut node = Node::new(&format!(
        r#"{COMMON}
[resolver]
mode = "off"
[[key]]
name = "transfer."
secret_file = "transfer.key"
[[zone]]
name = "t.test."
file = "t.test.zone"
allow_transfer = ["key:transfer"]
notify = ["127.0.0.1:{secondary} key:transfer"]
"#
    ));
    node.write("transfer.key", SECRET);
    node.write("t.test.zone", zone(1, hosts));
    node.start();
    node
}

/// A node that is a secondary of the server at `primary`.
fn secondary(primary: u16) -> Node {
    let mut node = Node::new(&format!(
        r#"{COMMON}
[resolver]
mode = "off"
[[key]]
name = "transfer."
secret_file = "transfer.key"
[[zone]]
name = "t.test."
primaries = ["127.0.0.1:{primary} key:transfer"]
allow_transfer = ["127.0.0.0/8"]
"#
    ));
    node.write("transfer.key", SECRET);
    node.start();
    node
}

fn transfers(node: &Node, direction: &str, kind: &str) -> f64 {
    let labels = [
        ("direction", direction),
        ("kind", kind),
        ("outcome", "done"),
    ];
    node.metric("headwater_zone_transfers_total", &labels)
}

/// The peer takes the zone whole, then a change of it by NOTIFY and differences.
fn check_secondary(kind: Kind) {
    let mut peer = Peer::new(kind);
    let node = primary(peer.port, 300);
    peer.secondary(node.dns);
    wait_for(peer.port, 1);
    assert_eq!(transfers(&node, "out", "axfr"), 1.0);
    node.write("t.test.zone", zone(2, 310));
    node.control(&["zone", "reload", "t.test"]).assert_success();
    wait_for(peer.port, 2);
    assert_eq!(transfers(&node, "out", "ixfr"), 1.0);
    assert_eq!(records(peer.port, None), records(node.dns, Some(KEY)));
    let answered = [("outcome", "answered")];
    poll(SOON, "the NOTIFY to be answered", || {
        (node.metric("headwater_zone_notifies_total", &answered) >= 1.0).then_some(())
    });
}

/// The node takes the zone whole, then a change of it by NOTIFY and differences, and serves its copy when it starts
/// again without the peer.
fn check_primary(kind: Kind) {
    let mut peer = Peer::new(kind);
    let mut node = secondary(peer.port);
    let early = dig(node.dns, &["t.test", "SOA"]);
    assert_eq!(early.status, "SERVFAIL", "{}", early.text);
    peer.write_zone(&zone(1, 300));
    peer.primary(node.dns);
    wait_for(node.dns, 1);
    assert_eq!(transfers(&node, "in", "axfr"), 1.0);
    peer.write_zone(&zone(2, 310));
    peer.reload();
    wait_for(node.dns, 2);
    assert_eq!(
        transfers(&node, "in", "ixfr"),
        1.0,
        "{}",
        node.control(&["zone", "list"]).stdout
    );
    assert_eq!(records(node.dns, None), records(peer.port, Some(KEY)));
    let shown = node.control_json(&["zone", "list"]);
    assert_eq!(shown[0]["role"], "secondary");
    assert_eq!(
        shown[0]["problems"].as_array().map(Vec::len),
        Some(0),
        "{shown}"
    );
    peer.stop();
    node.kill();
    node.start();
    assert_eq!(serial(node.dns), Some(2));
    let answer = dig(node.dns, &["version.t.test", "TXT"]);
    assert_eq!(answer.data("TXT"), ["\"2\""]);
}

#[test]
fn nsd_is_our_secondary() {
    check_secondary(Kind::Nsd);
}

#[test]
fn knot_is_our_secondary() {
    check_secondary(Kind::Knot);
}

#[test]
fn bind_is_our_secondary() {
    check_secondary(Kind::Bind);
}

#[test]
fn nsd_is_our_primary() {
    check_primary(Kind::Nsd);
}

#[test]
fn knot_is_our_primary() {
    check_primary(Kind::Knot);
}

#[test]
fn bind_is_our_primary() {
    check_primary(Kind::Bind);
}

#[test]
fn transfer_without_the_key_is_refused_and_with_a_wrong_one_not_believed() {
    let node = primary(free_port(), 1);
    assert_eq!(records(node.dns, None), [""; 0]);
    let wrong = "hmac-sha256:transfer:d3JvbmcgYnV0IGxvbmcgZW5vdWdoIQ==";
    assert_eq!(records(node.dns, Some(wrong)), [""; 0]);
    let answer = dig(node.dns, &["-y", wrong, "t.test", "SOA"]);
    assert_eq!(answer.status, "NOTAUTH", "{}", answer.text);
    assert!(answer.text.contains("BADSIG"), "{}", answer.text);
    let signed = dig(node.dns, &["-y", KEY, "ns.t.test", "A"]);
    assert_eq!(signed.data("A"), ["127.0.0.1"]);
    assert!(!signed.text.contains("verify"), "{}", signed.text);
    let refused = [("direction", "out"), ("outcome", "refused")];
    assert_eq!(node.metric("headwater_zone_transfers_total", &refused), 1.0);
    assert_eq!(
        node.metric("headwater_dns_signatures_refused_total", &[]),
        2.0
    );
}

/// A zone of 100,000 records goes to BIND and comes back from it.
#[test]
fn large_zone_goes_out_and_comes_in_whole() {
    let mut peer = Peer::new(Kind::Bind);
    let node = primary(peer.port, 100_000);
    peer.secondary(node.dns);
    wait_for(peer.port, 1);
    let back = {
        let mut node = Node::new(&format!(
            r#"{COMMON}
[resolver]
mode = "off"
[[zone]]
name = "t.test."
primaries = ["127.0.0.1:{}"]
allow_transfer = ["127.0.0.0/8"]
"#,
            peer.port
        ));
        node.start();
        node
    };
    wait_for(back.dns, 1);
    let records = records(back.dns, None);
    assert_eq!(records.len(), 100_012);
    assert_eq!(records, self::records(node.dns, Some(KEY)));
}

/// A zone that leaves over TLS only (RFC 9103), as kdig gets it.
#[test]
fn zone_for_tls_only_leaves_over_tls_and_not_in_the_clear() {
    let tls = free_port();
    let listeners = format!("listen = [\"127.0.0.1:@DNS@\"]\ntls_listen = [\"127.0.0.1:{tls}\"]\n");
    let common = COMMON.replace("listen = [\"127.0.0.1:@DNS@\"]\n", &listeners);
    let mut node = Node::new(&format!(
        r#"{common}
[tls]
cert = "cert.pem"
key = "key.pem"
[resolver]
mode = "off"
[[zone]]
name = "t.test."
file = "t.test.zone"
allow_transfer = ["127.0.0.0/8 tls"]
"#
    ));
    let made = rcgen::generate_simple_self_signed(["dns.test".to_owned()]).expect("a certificate");
    node.write("key.pem", made.signing_key.serialize_pem());
    node.write("cert.pem", made.cert.pem());
    node.write("t.test.zone", zone(1, 5_000));
    node.start();
    let transfer = |port: u16, more: &[&str], question: &str| {
        let mut command = Command::new(tool("kdig"));
        command.args(["@127.0.0.1", "-p", &port.to_string(), "+noall", "+answer"]);
        let text = run(command.args(more).args(["t.test", question])).stdout;
        text.lines().filter(|line| line.starts_with("host")).count()
    };
    let ca = format!("+tls-ca={}", node.path("cert.pem").display());
    let secure = ["+tls", ca.as_str(), "+tls-hostname=dns.test"];
    assert_eq!(transfer(tls, &secure, "AXFR"), 5_000);
    assert_eq!(transfer(node.dns, &["+tcp"], "AXFR"), 0);
    assert_eq!(transfer(node.dns, &["+tcp"], "IXFR=0"), 0);
    let refused = [("direction", "out"), ("outcome", "refused")];
    assert_eq!(node.metric("headwater_zone_transfers_total", &refused), 2.0);
    assert_eq!(transfers(&node, "out", "axfr"), 1.0);
}

/// A secondary of a node that gives its zone away over TLS only, and of BIND's the same: the zone comes in over TLS, with differences, and
/// not at all from who shows another name.
#[test]
fn zone_comes_in_over_tls_from_who_shows_the_name_and_from_nobody_else() {
    let made = rcgen::generate_simple_self_signed(["dns.test".to_owned()]).expect("a certificate");
    let tls = free_port();
    let listeners = format!("listen = [\"127.0.0.1:@DNS@\"]\ntls_listen = [\"127.0.0.1:{tls}\"]\n");
    let common = COMMON.replace("listen = [\"127.0.0.1:@DNS@\"]\n", &listeners);
    let mut primary = Node::new(&format!(
        r#"{common}
[tls]
cert = "cert.pem"
key = "key.pem"
[resolver]
mode = "off"
[[zone]]
name = "t.test."
file = "t.test.zone"
allow_transfer = ["127.0.0.0/8 tls"]
"#
    ));
    primary.write("key.pem", made.signing_key.serialize_pem());
    primary.write("cert.pem", made.cert.pem());
    primary.write("t.test.zone", zone(1, 5_000));
    primary.start();
    let shown = tempfile::tempdir().expect("a temporary directory can be made");
    let at = |name: &str| shown.path().join(name).display().to_string();
    fs::write(at("key.pem"), made.signing_key.serialize_pem()).expect("writable");
    fs::write(at("cert.pem"), made.cert.pem()).expect("writable");
    let theirs = free_port();
    let bind = Bind::start_with(
        &[("b.test.", &zone(1, 100))],
        &format!(
            "listen-on port {theirs} tls shown {{ 127.0.0.1; }}; allow-transfer port {theirs} transport tls {{ any; }};"
        ),
        &format!(
            "tls shown {{ cert-file \"{}\"; key-file \"{}\"; }};\n",
            at("cert.pem"),
            at("key.pem")
        ),
    );
    let secondary = |ours: &str, theirs: &str| {
        let mut node = Node::new(&format!(
            "{COMMON}\n[resolver]\nmode = \"off\"\n[dns.transfer]\nca_file = \"ca.pem\"\n\
             [[zone]]\nname = \"t.test.\"\nprimaries = [\"{ours}\"]\n\
             [[zone]]\nname = \"b.test.\"\nprimaries = [\"{theirs}\"]\n"
        ));
        node.write("ca.pem", made.cert.pem());
        node.start();
        node
    };
    let over = |port: u16, name: &str| format!("tls://127.0.0.1:{port}#{name}");
    let node = secondary(&over(tls, "dns.test"), &over(theirs, "dns.test"));
    wait_for(node.dns, 1);
    poll(SOON, "BIND's zone", || {
        let answer = try_dig(node.dns, &["host99.b.test", "A"])?;
        (answer.data("A") == ["192.0.0.99"]).then_some(())
    });
    drop(bind);
    // A new version comes as differences, over TLS too, since nothing else is allowed.
    primary.write("t.test.zone", zone(2, 5_001));
    primary.control(&["zone", "reload"]).assert_success();
    node.control(&["zone", "reload", "t.test."])
        .assert_success();
    wait_for(node.dns, 2);
    assert_eq!(transfers(&node, "in", "ixfr"), 1.0);
    // Another name, and in the clear.
    let node = secondary(
        &over(tls, "other.test"),
        &format!("127.0.0.1:{}", primary.dns),
    );
    poll(SOON, "the reason", || {
        let zones = node.control_json(&["zone", "list"]).to_string();
        zones
            .contains("its certificate does not hold")
            .then_some(())
    });
    assert_eq!(dig(node.dns, &["t.test", "SOA"]).status, "SERVFAIL");
}
