//! Catalog zones (RFC 9432): Knot and BIND follow ours, and we follow theirs. (NSD follows and makes catalogs from 4.9 on.)

use std::fs;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::harness::{COMMON, Node, Process, dig, free_port, poll, run, tool, try_dig};

const SECRET: &str = "c2VjcmV0IG9mIHNvbWUgbGVuZ3RoLCAzMiBieXRlcw==";

/// A notified server has what changed within this.
const SOON: Duration = Duration::from_secs(30);

/// The text at the apex tells versions apart.
fn zone(version: u32) -> String {
    format!(
        "$TTL 300\n@ SOA ns h {version} 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n@ TXT \"v{version}\"\n"
    )
}

/// Waits until a server answers for a zone in this version; `None`: not at all.
#[track_caller]
fn wait_for(port: u16, zone: &str, version: Option<u32>) {
    let text = version.map(|version| format!("\"v{version}\""));
    poll(SOON, &format!("{zone} in version {version:?}"), || {
        let answer = try_dig(port, &[zone, "TXT", "+norec", "+time=1"])?;
        let found = answer.data("TXT").first().map(|data| (*data).to_owned());
        let refused = version.is_none() && answer.status == "REFUSED";
        (refused || text.is_some() && found == text).then_some(())
    });
}

/// A node that makes the catalog, of the zones with these names and groups, and tells the server at `peer`.
fn producer_config(peer: u16, zones: &[(&str, &str)]) -> String {
    let mut config = format!(
        r#"{COMMON}
[resolver]
mode = "off"
[[key]]
name = "transfer."
secret_file = "transfer.key"
[[zone]]
name = "catalog.test."
catalog_role = "producer"
allow_transfer = ["key:transfer"]
notify = ["127.0.0.1:{peer} key:transfer"]
"#
    );
    for (name, group) in zones {
        config.push_str(&format!(
            "[[zone]]\nname = \"{name}\"\nfile = \"{name}.zone\"\ncatalog_zone = \"catalog.test.\"\n\
             catalog_group = [{group}]\nallow_transfer = [\"key:transfer\"]\n\
             notify = [\"127.0.0.1:{peer} key:transfer\"]\n"
        ));
    }
    config
}

fn producer(peer: u16) -> Node {
    let mut node = Node::new(&producer_config(
        peer,
        &[("a.test", ""), ("b.test", "\"other\"")],
    ));
    node.write("transfer.key", SECRET);
    for name in ["a.test", "b.test", "c.test"] {
        node.write(&format!("{name}.zone"), zone(1));
    }
    node.start();
    node
}

/// A node that follows the catalog of the server at `peer`.
fn consumer(peer: u16) -> Node {
    let mut node = Node::new(&format!(
        r#"{COMMON}
[resolver]
mode = "off"
[[key]]
name = "transfer."
secret_file = "transfer.key"
[[template]]
name = "member"
allow_transfer = ["127.0.0.0/8"]
[[template]]
name = "closed"
[[zone]]
name = "catalog.test."
primaries = ["127.0.0.1:{peer} key:transfer"]
catalog_role = "consumer"
catalog_templates = ["member", "closed"]
"#
    ));
    node.write("transfer.key", SECRET);
    node.start();
    node
}

/// Knot or BIND with this configuration.
struct Peer {
    port: u16,
    process: Option<Process>,
    dir: TempDir,
}

impl Peer {
    fn new() -> Self {
        Self {
            port: free_port(),
            process: None,
            dir: tempfile::tempdir().expect("a temporary directory can be made"),
        }
    }

    fn at(&self) -> String {
        self.dir.path().display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).expect("the temporary directory is writable");
    }

    fn knot(&mut self, rest: &str) {
        self.write_knot(rest);
        let mut command = Command::new(tool("knotd"));
        command.arg("-c").arg(self.dir.path().join("conf"));
        self.process = Some(Process::spawn(
            "knotd",
            command,
            self.dir.path().join("log"),
        ));
    }

    fn write_knot(&self, rest: &str) {
        let (at, port) = (self.at(), self.port);
        self.write(
            "conf",
            &format!(
                "server:\n  listen: 127.0.0.1@{port}\n  rundir: {at}\n  user: root\ndatabase:\n  storage: {at}\n\
                 log:\n  - target: stderr\n    any: info\nkey:\n  - id: transfer\n    algorithm: hmac-sha256\n    \
                 secret: {SECRET}\n{rest}"
            ),
        );
    }

    /// Has Knot read its configuration anew.
    fn knot_reload(&self) {
        let mut command = Command::new(tool("knotc"));
        command.arg("-s").arg(self.dir.path().join("knot.sock"));
        run(command.arg("reload")).assert_success();
    }

    fn bind(&mut self, options: &str, rest: &str) {
        let (at, port) = (self.at(), self.port);
        self.write(
            "conf",
            &format!(
                "options {{ directory \"{at}\"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};\n \
                 recursion no; pid-file none; session-keyfile none; notify-delay 0; serial-query-rate 100;\n \
                 {options} }};\ncontrols {{ }};\nkey transfer {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\n{rest}"
            ),
        );
        let mut command = Command::new(tool("named"));
        command
            .args(["-g", "-n", "1"])
            .arg("-c")
            .arg(self.dir.path().join("conf"));
        self.process = Some(Process::spawn(
            "named",
            command,
            self.dir.path().join("log"),
        ));
    }
}

/// The peer has the members, follows what changes in them, and takes one up and lets one go.
fn check_consumer(peer: &Peer, node: &Node) {
    wait_for(peer.port, "a.test", Some(1));
    wait_for(peer.port, "b.test", Some(1));
    node.write("a.test.zone", zone(2));
    node.control(&["zone", "reload", "a.test"]).assert_success();
    wait_for(peer.port, "a.test", Some(2));
    let before = serial(node);
    node.configure(&producer_config(
        peer.port,
        &[("a.test", ""), ("c.test", "")],
    ));
    node.control(&["zone", "reload"]).assert_success();
    assert_eq!(serial(node), before + 1);
    wait_for(peer.port, "c.test", Some(1));
    wait_for(peer.port, "b.test", None);
    assert_eq!(
        node.metric("headwater_catalog_members", &[("zone", "catalog.test.")]),
        2.0
    );
}

fn listed(node: &Node, name: &str) -> Option<serde_json::Value> {
    let zones = node.control_json(&["zone", "list"]);
    let zones = zones.as_array().expect("a list");
    zones.iter().find(|zone| zone["name"] == name).cloned()
}

fn serial(node: &Node) -> u64 {
    let catalog = listed(node, "catalog.test.").expect("the catalog");
    assert_eq!(catalog["role"], "catalog");
    catalog["serial"].as_u64().expect("in service")
}

#[test]
fn catalog_made_here_has_no_file_that_a_check_could_miss() {
    let node = producer(free_port());
    let mut command = super::harness::headwater();
    command.arg("check").arg("--config");
    let checked = run(command.arg(node.path("config.toml")));
    checked.assert_success();
    assert!(
        checked.stdout.ends_with("good: 3 zones\n"),
        "{}",
        checked.stdout
    );
    let shown = node.control(&["zone", "list"]).stdout;
    assert!(shown.contains("catalog (2 members)"), "{shown}");
}

#[test]
fn knot_follows_our_catalog() {
    let mut peer = Peer::new();
    let node = producer(peer.port);
    let (at, dns) = (peer.at(), node.dns);
    peer.knot(&format!(
        "remote:\n  - id: primary\n    address: 127.0.0.1@{dns}\n    key: transfer\n\
         acl:\n  - id: notify\n    address: 127.0.0.1\n    key: transfer\n    action: notify\n\
         template:\n  - id: default\n    storage: {at}\n  - id: member\n    storage: {at}\n    master: primary\n    \
         acl: notify\n  - id: other\n    storage: {at}\n    master: primary\n    acl: notify\n\
         zone:\n  - domain: catalog.test\n    master: primary\n    acl: notify\n    catalog-role: interpret\n    \
         catalog-template: [member, other]\n"
    ));
    check_consumer(&peer, &node);
}

#[test]
fn bind_follows_our_catalog() {
    let mut peer = Peer::new();
    let node = producer(peer.port);
    let (at, dns) = (peer.at(), node.dns);
    peer.bind(
        &format!(
            "allow-notify {{ key transfer; }}; catalog-zones {{ zone \"catalog.test\" default-primaries {{ 127.0.0.1 port \
             {dns} key transfer; }} in-memory no zone-directory \"{at}\" min-update-interval 0; }};"
        ),
        &format!(
            "zone \"catalog.test\" {{ type secondary; file \"{at}/catalog.zone\";\n \
             primaries {{ 127.0.0.1 port {dns} key transfer; }}; }};\n"
        ),
    );
    check_consumer(&peer, &node);
}

/// We have the members of the peer's catalog, and keep them over a restart without the peer.
fn check_kept(mut node: Node, peer: &mut Peer) {
    let a = listed(&node, "a.test.").expect("a member");
    assert_eq!(
        (&a["role"], &a["catalog"]),
        (&"secondary".into(), &"catalog.test.".into())
    );
    let shown = node.control(&["zone", "list"]).stdout;
    assert!(
        shown.contains("secondary (member of catalog.test.)"),
        "{shown}"
    );
    peer.process.take().expect("it runs").stop();
    node.kill();
    node.start();
    for (name, version) in [("a.test", Some(2)), ("c.test", Some(1)), ("b.test", None)] {
        wait_for(node.dns, name, version);
    }
}

#[test]
fn we_follow_the_catalog_of_knot() {
    let mut peer = Peer::new();
    let node = consumer(peer.port);
    let (at, dns) = (peer.at(), node.dns);
    let config = |zones: &str| {
        format!(
            "remote:\n  - id: node\n    address: 127.0.0.1@{dns}\n    key: transfer\n\
             acl:\n  - id: out\n    address: 127.0.0.1\n    key: transfer\n    action: transfer\n\
             template:\n  - id: default\n    storage: {at}\n    notify: node\n    acl: out\n    \
             zonefile-load: difference\n  - id: member\n    storage: {at}\n    notify: node\n    acl: out\n    \
             zonefile-load: difference\n    catalog-role: member\n    catalog-zone: catalog.test\n\
             zone:\n  - domain: catalog.test\n    catalog-role: generate\n{zones}"
        )
    };
    for name in ["a.test", "b.test", "c.test"] {
        peer.write(&format!("{name}.zone"), &zone(1));
    }
    peer.knot(&config(
        "  - domain: a.test\n    template: member\n  - domain: b.test\n    template: member\n    catalog-group: closed\n",
    ));
    wait_for(node.dns, "a.test", Some(1));
    wait_for(node.dns, "b.test", Some(1));
    // The template of its group lets nobody have the zone.
    let transfer = |name: &str| {
        let mut command = Command::new(tool("dig"));
        command.args([
            "-r",
            "@127.0.0.1",
            "-p",
            &node.dns.to_string(),
            "+noall",
            "+answer",
        ]);
        let text = run(command.args([name, "AXFR"])).stdout;
        text.contains("SOA")
    };
    assert!(transfer("a.test") && !transfer("b.test"));
    peer.write("a.test.zone", &zone(2));
    peer.write_knot(&config(
        "  - domain: a.test\n    template: member\n  - domain: c.test\n    template: member\n",
    ));
    peer.knot_reload();
    wait_for(node.dns, "a.test", Some(2));
    wait_for(node.dns, "c.test", Some(1));
    wait_for(node.dns, "b.test", None);
    check_kept(node, &mut peer);
}

#[test]
fn we_follow_the_catalog_of_bind() {
    let mut peer = Peer::new();
    let node = consumer(peer.port);
    let dns = node.dns;
    // BIND makes none of its zones: its catalog is a zone as any other, kept by updates.
    let catalog = |serial: u32, rest: &str| {
        format!(
            "$TTL 0\n@ SOA invalid. invalid. {serial} 3600 600 86400 0\n@ NS invalid.\nversion TXT \"2\"\n{rest}"
        )
    };
    peer.write(
        "catalog.test.zone",
        &catalog(1, "a1.zones PTR a.test.\nb1.zones PTR b.test.\n"),
    );
    let mut zones = String::new();
    for name in ["catalog.test", "a.test", "b.test", "c.test"] {
        if name != "catalog.test" {
            peer.write(&format!("{name}.zone"), &zone(1));
        }
        zones.push_str(&format!(
            "zone \"{name}\" {{ type primary; file \"{name}.zone\"; notify explicit; allow-transfer {{ key transfer; }};\n \
             also-notify {{ 127.0.0.1 port {dns} key transfer; }}; allow-update {{ key transfer; }}; }};\n"
        ));
    }
    peer.bind("", &zones);
    wait_for(node.dns, "a.test", Some(1));
    wait_for(node.dns, "b.test", Some(1));
    let update = |zone: &str, lines: &[&str]| {
        let lines = lines.join("\n");
        let text = format!(
            "server 127.0.0.1 {}\nzone {zone}\n{lines}\nsend\n",
            peer.port
        );
        peer.write("update", &text);
        let mut command = Command::new(tool("nsupdate"));
        command.args(["-y", &format!("hmac-sha256:transfer:{SECRET}")]);
        run(command.arg(peer.dir.path().join("update"))).assert_success();
    };
    update(
        "a.test",
        &["update delete a.test TXT", "update add a.test 60 TXT v2"],
    );
    wait_for(node.dns, "a.test", Some(2));
    // Broken: nothing changes, and it is said.
    update(
        "catalog.test",
        &[
            "update delete b1.zones.catalog.test PTR",
            "update add version.catalog.test 0 TXT 3",
        ],
    );
    poll(SOON, "the broken catalog to be told", || {
        let told = node.metric("headwater_catalog_broken", &[("zone", "catalog.test.")]);
        (told == 1.0).then_some(())
    });
    let told = node.control(&["zone", "list"]).stdout;
    assert!(
        told.contains("catalog not followed: found 2 versions"),
        "{told}"
    );
    assert_eq!(dig(node.dns, &["b.test", "SOA"]).status, "NOERROR");
    // Whole again: one has left, one has come.
    update(
        "catalog.test",
        &[
            "update delete version.catalog.test TXT 3",
            "update add c1.zones.catalog.test 0 PTR c.test",
        ],
    );
    wait_for(node.dns, "c.test", Some(1));
    wait_for(node.dns, "b.test", None);
    check_kept(node, &mut peer);
}
