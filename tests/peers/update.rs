//! Zones changed while they are served: nsupdate, the command line, `kill -9`, files edited beside updates.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::harness::{COMMON, Node, dig, run, tool};

const SECRET: &str = "c2VjcmV0IG9mIHNvbWUgbGVuZ3RoLCAzMiBieXRlcw==";
const KEY: &str = "hmac-sha256:update:c2VjcmV0IG9mIHNvbWUgbGVuZ3RoLCAzMiBieXRlcw==";
const WRONG: &str = "hmac-sha256:update:d3JvbmcgYnV0IGxvbmcgZW5vdWdoIQ==";

const ZONE: &str = "\
$TTL 300
@ SOA ns hostmaster 1 3600 600 86400 60
@ NS ns
ns A 127.0.0.1
www A 192.0.2.1
alias CNAME www
";

fn node() -> Node {
    let mut node = Node::new(&format!(
        r#"{COMMON}
[resolver]
mode = "off"
[[key]]
name = "update."
secret_file = "update.key"
[[zone]]
name = "u.test."
file = "u.test.zone"
update_keys = ["update"]
allow_transfer = ["127.0.0.0/8"]
"#
    ));
    node.write("update.key", SECRET);
    node.write("u.test.zone", ZONE);
    node.start();
    node
}

/// Sends an update with nsupdate; what it said of it: empty if it was done.
#[track_caller]
fn update(node: &Node, key: Option<&str>, lines: &[&str]) -> String {
    let port = node.dns;
    let mut text = format!("server 127.0.0.1 {port}\nzone u.test\n");
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    text.push_str("send\n");
    let file = node.write("update.txt", text);
    let mut command = Command::new(tool("nsupdate"));
    command.args(["-t", "5", "-r", "0"]);
    if let Some(key) = key {
        command.args(["-y", key]);
    }
    let output = run(command.arg(file));
    output.stderr.trim().to_owned()
}

fn serial(node: &Node) -> u32 {
    let answer = dig(node.dns, &["u.test", "SOA"]);
    let data = answer.data("SOA")[0];
    let serial = data.split(' ').nth(2).expect("a SOA has seven fields");
    serial.parse().expect("a serial is a number")
}

#[track_caller]
fn addresses(node: &Node, name: &str) -> Vec<String> {
    let answer = dig(node.dns, &[name, "A"]);
    let mut found: Vec<String> = answer.data("A").iter().map(|d| (*d).to_owned()).collect();
    found.sort();
    found
}

/// The owners in the zone.
fn names(node: &Node) -> BTreeSet<String> {
    let mut command = Command::new(tool("dig"));
    command.args(["-r", "@127.0.0.1", "-p", &node.dns.to_string()]);
    let whole = run(command.args(["+noall", "+answer", "u.test", "AXFR"])).stdout;
    let owners = whole
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    owners.map(str::to_owned).collect()
}

#[test]
fn nsupdate_with_the_key_changes_the_zone_and_raises_the_serial() {
    let node = node();
    let none: [&str; 0] = [];
    assert_eq!(
        update(&node, Some(KEY), &["update add new.u.test 60 A 192.0.2.9"]),
        ""
    );
    assert_eq!(addresses(&node, "new.u.test"), ["192.0.2.9"]);
    assert_eq!(serial(&node), 2);
    let both = [
        "prereq yxrrset www.u.test A 192.0.2.1",
        "prereq nxdomain other.u.test",
        "update delete www.u.test A",
        "update add www.u.test 60 A 192.0.2.2",
        "update add other.u.test 60 TXT hello",
    ];
    assert_eq!(update(&node, Some(KEY), &both), "");
    assert_eq!(addresses(&node, "www.u.test"), ["192.0.2.2"]);
    assert_eq!(serial(&node), 3);
    // The same again: its prerequisites hold no more, and nothing of it is done.
    let again = update(&node, Some(KEY), &both);
    assert_eq!(again, "update failed: YXDOMAIN");
    let gone = [
        "prereq yxrrset www.u.test A 192.0.2.1",
        "update add a.u.test 60 A 192.0.2.3",
    ];
    assert_eq!(update(&node, Some(KEY), &gone), "update failed: NXRRSET");
    let exists = [
        "prereq nxdomain other.u.test",
        "update add a.u.test 60 A 192.0.2.3",
    ];
    assert_eq!(update(&node, Some(KEY), &exists), "update failed: YXDOMAIN");
    let in_use = [
        "prereq nxrrset other.u.test TXT",
        "update add a.u.test 60 A 192.0.2.3",
    ];
    assert_eq!(update(&node, Some(KEY), &in_use), "update failed: YXRRSET");
    assert_eq!(addresses(&node, "a.u.test"), none);
    // What changes nothing does not raise the serial.
    assert_eq!(
        update(&node, Some(KEY), &["update delete nothing.u.test"]),
        ""
    );
    assert_eq!(
        update(
            &node,
            Some(KEY),
            &["update add alias.u.test 60 A 192.0.2.3"]
        ),
        ""
    );
    assert_eq!(serial(&node), 3);
    assert_eq!(update(&node, Some(KEY), &["update delete new.u.test"]), "");
    assert_eq!(dig(node.dns, &["new.u.test", "A"]).status, "NXDOMAIN");
    assert_eq!(serial(&node), 4);
    let done = [("outcome", "update")];
    assert_eq!(node.metric("headwater_dns_queries_total", &done), 5.0);
    // Each step goes to secondaries as a difference.
    let steps = run(Command::new(tool("dig")).args([
        "-r",
        "@127.0.0.1",
        "-p",
        &node.dns.to_string(),
        "+noall",
        "+answer",
        "u.test",
        "IXFR=1",
    ]));
    let soas = steps.stdout.lines().filter(|l| l.contains("SOA")).count();
    assert_eq!(soas, 8, "{}", steps.stdout);
}

#[test]
fn nsupdate_without_the_key_changes_nothing() {
    let node = node();
    let add = ["update add new.u.test 60 A 192.0.2.9"];
    assert_eq!(update(&node, None, &add), "update failed: REFUSED");
    let wrong = update(&node, Some(WRONG), &add);
    assert!(
        wrong.contains("BADSIG") || wrong.contains("NOTAUTH"),
        "{wrong}"
    );
    let unknown = format!("hmac-sha256:stranger:{SECRET}");
    let unknown = update(&node, Some(&unknown), &add);
    assert!(
        unknown.contains("BADKEY") || unknown.contains("NOTAUTH"),
        "{unknown}"
    );
    assert_eq!(dig(node.dns, &["new.u.test", "A"]).status, "NXDOMAIN");
    assert_eq!(serial(&node), 1);
}

#[test]
fn commands_set_and_delete_records_and_they_outlive_a_kill() {
    let mut node = node();
    let set = node.control(&["zone", "set", "www.u.test", "5m", "A", "192.0.2.7"]);
    set.assert_success();
    assert_eq!(set.stdout, "zone u.test. changed: serial 2\n");
    let beside = [
        "zone",
        "set",
        "www.u.test",
        "5m",
        "A",
        "192.0.2.8",
        "--beside",
    ];
    node.control(&beside).assert_success();
    assert_eq!(addresses(&node, "www.u.test"), ["192.0.2.7", "192.0.2.8"]);
    node.control(&["zone", "delete", "alias.u.test"])
        .assert_success();
    let again = node.control(&["zone", "delete", "alias.u.test"]);
    assert_eq!(again.stdout, "zone u.test. unchanged: serial 4\n");
    for (args, message) in [
        (
            &["zone", "set", "www.other.test", "60", "A", "192.0.2.1"][..],
            "in no zone",
        ),
        (
            &["zone", "set", "www.u.test", "60", "A", "192.0.2"],
            "expected",
        ),
        (
            &["zone", "delete", "www.u.test", "NOPE"],
            "expected a record type",
        ),
    ] {
        let refused = node.control(args);
        assert!(
            !refused.status.success() && refused.stderr.contains(message),
            "{refused:?}"
        );
    }
    node.kill();
    node.start();
    assert_eq!(serial(&node), 4);
    assert_eq!(addresses(&node, "www.u.test"), ["192.0.2.7", "192.0.2.8"]);
    assert_eq!(dig(node.dns, &["alias.u.test", "A"]).status, "NXDOMAIN");
    // The file is edited beside the updates: what they said stays, the rest follows the file.
    node.write("u.test.zone", format!("{ZONE}edited A 192.0.2.44\n"));
    node.control(&["zone", "reload", "u.test"]).assert_success();
    assert_eq!(serial(&node), 5);
    assert_eq!(addresses(&node, "edited.u.test"), ["192.0.2.44"]);
    assert_eq!(addresses(&node, "www.u.test"), ["192.0.2.7", "192.0.2.8"]);
    // Reloaded as it is, it stays as it is.
    node.control(&["zone", "reload", "u.test"]).assert_success();
    assert_eq!(serial(&node), 5);
    node.write(
        "u.test.zone",
        ZONE.replace("hostmaster 1 ", "hostmaster 100 "),
    );
    node.control(&["zone", "reload", "u.test"]).assert_success();
    assert_eq!(serial(&node), 100);
    assert_eq!(addresses(&node, "www.u.test"), ["192.0.2.7", "192.0.2.8"]);
}

/// Killed at any moment, the node has every update that was answered, whole, and none in parts.
#[test]
fn updates_answered_outlive_a_kill_at_any_moment() {
    let mut node = node();
    let mut done: BTreeSet<u32> = BTreeSet::new();
    let mut next = 0_u32;
    for round in 0..6_u64 {
        // One nsupdate that sends updates of two records each, as fast as they are answered.
        let mut text = format!("server 127.0.0.1 {}\nzone u.test\n", node.dns);
        let first = next;
        for n in first..first + 400 {
            text.push_str(&format!(
                "update add a{n}.u.test 60 A 192.0.2.1\nupdate add b{n}.u.test 60 A 192.0.2.2\nsend\nshow\n"
            ));
        }
        let file = node.write("many.txt", text);
        let mut child = Command::new(tool("nsupdate"))
            .args(["-t", "2", "-r", "0", "-y", KEY])
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nsupdate starts");
        // Not a wait for something: the moment is what varies.
        thread::sleep(Duration::from_millis(30 + 41 * round));
        let served = names(&node);
        node.kill();
        let _ = child.kill();
        child.wait().expect("it is our child");
        done.extend((0..first + 400).filter(|n| served.contains(&format!("b{n}.u.test."))));
        if round % 3 == 2 {
            // An update that was being written when the power went.
            let file = node.path("state/zones/u.test.updates");
            let mut file = OpenOptions::new()
                .append(true)
                .open(file)
                .expect("updates were made");
            file.write_all(&[0, 0, 1, 0, 7, 7, 7])
                .expect("the disk has room");
        }
        node.start();
        next = first + 400;
        let names = names(&node);
        for n in 0..next {
            let [a, b] = ["a", "b"].map(|host| names.contains(&format!("{host}{n}.u.test.")));
            assert_eq!(a, b, "update {n} is there in part");
            assert!(b || !done.contains(&n), "update {n} was served and is gone");
            if b {
                done.insert(n);
            }
        }
        assert_eq!(serial(&node) as usize, 1 + done.len());
    }
    assert!(done.len() > 20, "only {} updates were done", done.len());
}

/// Updates of a zone that is signed here: what BIND's and ldns's verifiers say of a transfer of it, and delv of what is
/// new, changed and gone.
fn check_signed(denial: &str) {
    let mut node = Node::new(&format!(
        r#"{COMMON}
[resolver]
mode = "off"
[[key]]
name = "update."
secret_file = "update.key"
[[zone]]
name = "u.test."
file = "u.test.zone"
update_keys = ["update"]
allow_transfer = ["127.0.0.0/8"]
sign = true
denial = "{denial}"
"#
    ));
    node.write("update.key", SECRET);
    node.write("u.test.zone", ZONE);
    node.start();
    let before = serial(&node);
    let lines = [
        "update add new.u.test 60 A 192.0.2.9",
        "update add *.wild.u.test 60 TXT any",
        "update delete www.u.test A",
        "update add www.u.test 60 A 192.0.2.7",
        "update add deep.er.u.test 60 AAAA 2001:db8::1",
    ];
    assert_eq!(update(&node, Some(KEY), &lines), "");
    assert_eq!(
        update(&node, Some(KEY), &["update delete alias.u.test"]),
        ""
    );
    assert_eq!(serial(&node), before + 2);
    verify(&node);
    let answer = dig(node.dns, &["u.test", "DNSKEY"]);
    let key = answer.data("DNSKEY")[0].to_owned();
    let mut parts = key.splitn(4, ' ');
    let mut next = || parts.next().expect("four parts").replace(' ', "");
    let (flags, protocol, algorithm, public) = (next(), next(), next(), next());
    let anchor = format!(
        "trust-anchors {{ \"u.test\" static-key {flags} {protocol} {algorithm} \"{public}\"; }};\n"
    );
    let file = node.write("anchors", anchor);
    for (name, rtype, expected) in [
        ("new.u.test", "A", "192.0.2.9"),
        ("www.u.test", "A", "192.0.2.7"),
        ("x.wild.u.test", "TXT", "\"any\""),
        ("deep.er.u.test", "AAAA", "2001:db8::1"),
        ("er.u.test", "A", "ncache nxrrset"),
        ("alias.u.test", "CNAME", "ncache nxdomain"),
    ] {
        let mut delv = Command::new(tool("delv"));
        let port = node.dns.to_string();
        delv.args(["@127.0.0.1", "-p", &port, "+root=u.test", "-a"]);
        let output = run(delv.arg(&file).args([name, rtype]));
        let text = format!("{}{}", output.stdout, output.stderr);
        assert!(
            text.contains("fully validated") && text.contains(expected),
            "{name} {rtype} with {denial}:\n{text}"
        );
    }
    // The updates outlive a kill, and the zone is whole and signed as before.
    let signed = names(&node);
    node.kill();
    node.start();
    assert_eq!((serial(&node), names(&node)), (before + 2, signed));
    verify(&node);
}

/// Both verifiers find a transfer of the zone whole.
#[track_caller]
fn verify(node: &Node) {
    let mut command = Command::new(tool("dig"));
    command.args(["-r", "@127.0.0.1", "-p", &node.dns.to_string()]);
    let whole = run(command.args(["+noall", "+answer", "+onesoa", "u.test", "AXFR"])).stdout;
    assert!(
        whole.contains("RRSIG") && whole.contains("new.u.test."),
        "{whole}"
    );
    let file = node.write("signed", whole);
    let mut bind = Command::new(tool("dnssec-verify"));
    run(bind.args(["-q", "-z", "-o", "u.test"]).arg(&file)).assert_success();
    run(Command::new(tool("ldns-verify-zone")).arg(&file)).assert_success();
}

#[test]
fn zone_signed_with_nsec_validates_after_updates() {
    check_signed("nsec");
}

#[test]
fn zone_signed_with_nsec3_validates_after_updates() {
    check_signed("nsec3");
}

/// A secondary gets the differences from before a restart, not the whole zone.
#[test]
fn differences_outlive_a_kill() {
    let mut node = node();
    for last in 1..4 {
        let add = format!("update add n{last}.u.test 60 A 192.0.2.{last}");
        assert_eq!(update(&node, Some(KEY), &[&add]), "");
    }
    let steps = |node: &Node| {
        let mut command = Command::new(tool("dig"));
        command.args(["-r", "@127.0.0.1", "-p", &node.dns.to_string()]);
        let text = run(command.args(["+noall", "+answer", "u.test", "IXFR=1"])).stdout;
        let soas = text.lines().filter(|line| line.contains("SOA")).count();
        (soas, text.contains("www.u.test."))
    };
    // First and last SOA, and two for each step; no record that stayed.
    assert_eq!(steps(&node), (8, false));
    node.kill();
    node.start();
    assert_eq!(steps(&node), (8, false));
    // Another version while it was down: there is no way from the one before.
    node.kill();
    node.write("u.test.zone", ZONE.replace(" 1 3600", " 9 3600"));
    node.start();
    assert_eq!(serial(&node), 9);
    assert_eq!(steps(&node), (2, true));
}
