//! A zone's keys from the first DS to the last, below a parent served by NSD: by BIND's `dnssec-cds` the parent takes what
//! the zone says in CDS, Unbound validates with the parent's key, and asks all along. Nobody tells the node anything but
//! what to begin: that the parent has changed it finds out by itself.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::answer::Record;
use super::harness::{
    COMMON, Node, Nsd, Validator, free_port, headwater, poll, run, tool, try_dig,
};

const PARENT: &str = "parent.test";
const CHILD: &str = "child.parent.test";

const ZONE: &str = "\
$TTL 2
@   SOA ns host 7 3600 900 604800 1
    NS  ns
ns  A   127.0.0.1
www A   192.0.2.1
*.w TXT \"wild\"
";

/// The parent: its keys, its zone, and the DS it has of the child.
struct Registry {
    dir: TempDir,
    serial: u32,
    ds: String,
    nsd: Nsd,
}

impl Registry {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let mut keygen = Command::new(tool("dnssec-keygen"));
        keygen
            .current_dir(dir.path())
            .args(["-q", "-f", "KSK", "-a", "ECDSAP256SHA256", PARENT]);
        run(&mut keygen).assert_success();
        let text = sign(&dir, 1, "");
        Self {
            nsd: Nsd::start(&[(PARENT, &text)]),
            dir,
            serial: 1,
            ds: String::new(),
        }
    }

    /// The parent's key, as an anchor.
    fn anchor(&self) -> String {
        let mut files = fs::read_dir(self.dir.path()).expect("readable");
        let file = files.find_map(|file| {
            let path = file.expect("readable").path();
            (path.extension()? == "key").then_some(path)
        });
        let text = fs::read_to_string(file.expect("the key")).expect("readable");
        let line = text.lines().find(|line| !line.starts_with(';'));
        line.expect("a record").to_owned()
    }

    /// What a registry does now and then: looks at the child's CDS, and takes over what is signed by a key it knows. The
    /// first DS is the one of the key there is (as over a registrar's form); `dnssec-cds` knows no deletion (RFC 8078 section
    /// 4), which is believed when the validator does. True: it has changed.
    fn look(&mut self, child: &Node, validator: u16) -> bool {
        let ask = |rtype| child.dig(&[CHILD, rtype, "+dnssec", "+tcp"]);
        let rows = |records: &[Record]| {
            let line =
                |row: &Record| format!("{} {} IN {} {}\n", row.name, row.ttl, row.rtype, row.data);
            records.iter().map(line).collect::<String>()
        };
        let cds = ask("CDS");
        if cds.data("CDS").is_empty() {
            return false;
        }
        let keys = ask("DNSKEY");
        let set = self.dir.path().join("dsset");
        let from = self.dir.path().join("child");
        fs::write(
            &from,
            [&cds, &ask("CDNSKEY"), &keys]
                .map(|answer| rows(&answer.answer))
                .concat(),
        )
        .expect("the temporary directory is writable");
        let told = if cds.data("CDS") == ["0 0 0 00"] {
            assert_eq!(ask("CDNSKEY").data("CDNSKEY"), ["0 3 0 AA=="]);
            let proven = try_dig(validator, &[CHILD, "CDS", "+dnssec"]);
            let proven = proven.filter(|answer| answer.flag("ad"));
            match proven.map(|answer| answer.data("CDS") == ["0 0 0 00"]) {
                Some(true) => String::new(),
                _ => return false,
            }
        } else if self.ds.is_empty() {
            let mut first = Command::new(tool("dnssec-dsfromkey"));
            first.args(["-2", "-T", "2", "-f"]).arg(&from).arg(CHILD);
            made(&mut first)
        } else {
            fs::write(&set, &self.ds).expect("the temporary directory is writable");
            let mut change = Command::new(tool("dnssec-cds"));
            // Signatures are kept, and may be older than the file.
            change.args(["-T", "2", "-s", "-86400", "-f"]).arg(&from);
            change.arg("-d").arg(&set).arg(CHILD);
            made(&mut change)
        };
        if told == self.ds {
            return false;
        }
        self.ds = told;
        self.serial += 1;
        let text = sign(&self.dir, self.serial, &self.ds);
        self.nsd.replace(0, &text);
        true
    }
}

/// What a command prints that has to succeed.
fn made(command: &mut Command) -> String {
    let output = run(command);
    output.assert_success();
    output.stdout
}

/// The parent's zone, signed.
fn sign(dir: &TempDir, serial: u32, ds: &str) -> String {
    let text = format!(
        "$TTL 2\n@ SOA ns host {serial} 3600 900 604800 1\n@ NS ns\nns A 127.0.0.1\nchild NS ns.child\nns.child A 127.0.0.1\n{ds}"
    );
    fs::write(dir.path().join("zone"), text).expect("the temporary directory is writable");
    let mut sign = Command::new(tool("dnssec-signzone"));
    sign.current_dir(dir.path()).args([
        "-q", "-S", "-z", "-P", "-O", "full", "-o", PARENT, "-f", "signed", "zone",
    ]);
    run(&mut sign).assert_success();
    fs::read_to_string(dir.path().join("signed")).expect("it was written")
}

/// What is asked of the validator all along, and the code that comes.
const ASKED: &[(&str, &str, &str)] = &[
    ("www.child.parent.test", "A", "NOERROR"),
    ("missing.child.parent.test", "A", "NXDOMAIN"),
    ("child.parent.test", "DNSKEY", "NOERROR"),
    ("www.child.parent.test", "AAAA", "NOERROR"),
    ("x.w.child.parent.test", "TXT", "NOERROR"),
    ("child.parent.test", "SOA", "NOERROR"),
];

/// A client of the validator that asks on and on.
#[derive(Default)]
struct Client {
    stop: AtomicBool,
    /// Whether answers have to be authentic.
    secure: AtomicBool,
    asked: AtomicUsize,
}

impl Client {
    fn run(&self, port: u16) {
        for (name, rtype, code) in ASKED.iter().cycle() {
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            let secure = self.secure.load(Ordering::Acquire);
            // A machine that is too busy to answer in time breaks no law.
            let Some(answer) = try_dig(port, &[name, rtype, "+dnssec"]) else {
                continue;
            };
            let secure = secure && self.secure.load(Ordering::Acquire);
            assert_eq!(answer.status, *code, "{name} {rtype}:\n{}", answer.text);
            assert!(
                !secure || answer.flag("ad"),
                "{name} {rtype}:\n{}",
                answer.text
            );
            self.asked.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// Stops the client also when the test fails.
struct Stop<'a>(&'a Client);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Release);
    }
}

/// The keys of the child: tag, algorithm, what each does.
fn keys(node: &Node) -> Vec<(u64, String, String)> {
    let keys = node.control_json(&["zone", "ds", CHILD]);
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    let key = |key: &serde_json::Value| {
        let tag = key["tag"].as_u64().expect("a number");
        (tag, text(&key["algorithm"]), text(&key["doing"]))
    };
    keys.as_array().expect("a list").iter().map(key).collect()
}

/// Begins a rollover and has the registry look until it has ended; everything the keys did, in order.
fn roll(node: &Node, registry: &mut Registry, validator: u16) -> Vec<Vec<String>> {
    let old = keys(node);
    assert_eq!(old.len(), 1);
    node.control(&["zone", "rollover", CHILD]).assert_success();
    let mut changed = 0;
    let mut course: Vec<Vec<String>> = Vec::new();
    poll(LIMIT, "the rollover to end", || {
        let now = keys(node);
        let doing = now.iter().map(|key| key.2.clone()).collect::<Vec<_>>();
        if course.last() != Some(&doing) {
            course.push(doing);
        }
        changed += usize::from(registry.look(node, validator));
        (now.len() == 1 && now[0].0 != old[0].0).then_some(())
    });
    assert_eq!(changed, 1, "the parent changes once: {course:?}");
    course
}

#[test]
fn keys_roll_unattended_and_nothing_is_bogus_on_the_way() {
    let validator_port = free_port();
    let config = |zone: &str| {
        format!(
            "{COMMON}\n[dnssec]\ndnskey_ttl = \"2s\"\npropagation = \"1s\"\nds_ttl = \"8s\"\nask_parent = \"1s\"\n\
             parent_propagation = \"1s\"\n[resolver]\nmode = \"forward\"\nspecial_use_names = false\n\
             upstreams = [\"127.0.0.1:{validator_port}\"]\n\
             [[zone]]\nname = \"{CHILD}.\"\nfile = \"child.zone\"\n{zone}\n"
        )
    };
    let mut node = Node::new(&config("sign = true"));
    node.write("child.zone", ZONE);
    node.start();
    let mut registry = Registry::new();
    let zones = [(CHILD, node.dns), (PARENT, registry.nsd.port)];
    let validator = Validator::start_at(validator_port, &zones, &[registry.anchor()]);
    let client = Client::default();
    thread::scope(|scope| {
        scope.spawn(|| {
            let _stop = Stop(&client);
            client.run(validator.port);
        });
        let _stop = Stop(&client);
        let waits_for = || {
            let zones = node.control_json(&["zone", "list"]);
            zones[0]["waits_for"].as_str().map(str::to_owned)
        };
        let running = || {
            assert!(
                !client.stop.load(Ordering::Acquire),
                "the client has failed"
            )
        };
        let set = |zone: &str| {
            node.configure(&config(zone));
            node.control(&["zone", "reload"]).assert_success();
        };

        // The first DS.
        let first = keys(&node)[0].0;
        poll(LIMIT, "the parent to have a DS", || {
            registry.look(&node, validator.port).then_some(())
        });
        let awaited = waits_for().expect("nobody has told it");
        assert!(
            awaited.starts_with(&format!("the parent's DS to point to key {first}")),
            "{awaited}"
        );
        poll(LIMIT, "the node to see the DS", || {
            waits_for().is_none().then_some(())
        });
        poll(LIMIT, "answers to be authentic", || {
            let all = ASKED.iter().all(|(name, rtype, _)| {
                try_dig(validator.port, &[name, rtype, "+dnssec"]).is_some_and(|a| a.flag("ad"))
            });
            all.then_some(())
        });
        client.secure.store(true, Ordering::Release);
        running();

        // A new key of the same algorithm.
        let course = roll(&node, &mut registry, validator.port);
        for step in [
            ["signs", "published; does not sign yet"],
            [
                "retired; the parent's DS points to it",
                "signs; waits for its DS at the parent",
            ],
            ["retired; its DS may still be cached", "signs"],
        ] {
            assert!(
                course.contains(&step.map(str::to_owned).to_vec()),
                "{course:?}"
            );
        }
        running();

        // Another algorithm, and back.
        for algorithm in ["ed25519", "ecdsa-p256"] {
            set(&format!("sign = true\nalgorithm = \"{algorithm}\""));
            let course = roll(&node, &mut registry, validator.port);
            for step in [
                ["signs", "signs; not published yet"],
                ["signs", "signs; too new for a DS at the parent"],
                [
                    "signs; the parent's DS points to it",
                    "signs; waits for its DS at the parent",
                ],
                ["signs; its DS may still be cached", "signs"],
                ["signs; published no more", "signs"],
            ] {
                assert!(
                    course.contains(&step.map(str::to_owned).to_vec()),
                    "{course:?}"
                );
            }
            assert_eq!(keys(&node)[0].1, algorithm);
            running();
        }

        // `sign = false` alone takes nothing away.
        set("sign = false");
        let checked = run(headwater().arg("check").arg("--config").arg(path(&node)));
        checked.assert_success();
        assert!(
            checked.stdout.contains("headwater zone insecure"),
            "{}",
            checked.stdout
        );
        assert_eq!(node.dig(&[CHILD, "DNSKEY"]).data("DNSKEY").len(), 1);
        running();

        // No DS, and then no signatures.
        node.control(&["zone", "insecure", CHILD]).assert_success();
        client.secure.store(false, Ordering::Release);
        poll(LIMIT, "the parent to have no DS", || {
            registry.look(&node, validator.port);
            registry.ds.is_empty().then_some(())
        });
        poll(LIMIT, "the zone to be unsigned", || {
            let answer = node.dig(&[CHILD, "DNSKEY"]);
            answer.data("DNSKEY").is_empty().then_some(())
        });
        let asked = client.asked.load(Ordering::Acquire);
        poll(LIMIT, "the client to ask everything once more", || {
            running();
            let more = client.asked.load(Ordering::Acquire) - asked;
            (more > 2 * ASKED.len()).then_some(())
        });
    });
    let log = validator.log();
    assert!(!log.contains("validation failure"), "{log}");
    assert!(client.asked.load(Ordering::Acquire) > 100);
    let seen = node.metric(
        "headwater_zone_parent_looks_total",
        &[("outcome", "as_awaited")],
    );
    assert!(seen >= 5.0, "{seen}");
}

fn path(node: &Node) -> PathBuf {
    node.path("config.toml")
}

/// How long one stretch of the way may take; each waits for some seconds of TTL.
const LIMIT: Duration = Duration::from_secs(120);
