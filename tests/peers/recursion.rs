//! Recursion and validation beside a real Unbound: both resolve the same made-up Internet, of NSD and Knot servers with zones signed by
//! ldns-signzone, and must say the same.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use tempfile::TempDir;

use super::harness::{Answer, COMMON, Node, Process, READY, dig, free_port, poll, run, tool};

/// Addresses of this run; port 53, so it needs root, as all of `tests/peers` may.
fn address(server: u8) -> String {
    let pid = std::process::id();
    format!("127.{}.{}.{server}", 64 + pid / 256 % 64, pid % 256)
}

/// A zone: its master file, and the DS its parent is to have.
struct Zone {
    apex: &'static str,
    text: String,
    ds: Option<String>,
}

/// How `ldns-signzone` is called, beside the key.
struct Signed<'a> {
    algorithm: &'a str,
    options: &'a [&'a str],
}

fn zone(apex: &'static str, lines: &str, signed: Option<&Signed<'_>>) -> Zone {
    let origin = if apex == "." {
        String::from(".")
    } else {
        format!("{apex}.")
    };
    let text = format!(
        "$ORIGIN {origin}\n$TTL 3600\n@ SOA ns.{apex_dot} host.{apex_dot} 1 3600 600 86400 300\n{lines}",
        apex_dot = if apex == "." {
            String::from("root.")
        } else {
            origin.clone()
        }
    );
    let Some(signed) = signed else {
        return Zone {
            apex,
            text,
            ds: None,
        };
    };
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    fs::write(dir.path().join("zone"), &text).expect("the directory is writable");
    let in_dir = |program: &str, args: &[&str]| {
        let mut command = Command::new(tool(program));
        command.current_dir(dir.path()).args(args);
        let output = run(&mut command);
        output.assert_success();
        output.stdout.trim().to_owned()
    };
    let key = in_dir(
        "ldns-keygen",
        &["-a", signed.algorithm, "-b", "2048", "-k", apex],
    );
    let args = [
        &["-o", apex, "-f", "signed"][..],
        signed.options,
        &["zone", &key],
    ]
    .concat();
    in_dir("ldns-signzone", &args);
    let read = |name: &str| {
        fs::read_to_string(dir.path().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    };
    Zone {
        apex,
        text: read("signed"),
        ds: Some(read(&format!("{key}.ds"))),
    }
}

/// What most zones have.
fn lines(server: u8) -> String {
    format!(
        "@ NS ns\nns A {address}\nwww A 192.0.2.10\nwww AAAA 2001:db8::10\nalias CNAME www\nfar CNAME www.rsa.test.\n\
         *.wild TXT \"wild\"\na.b.ent A 192.0.2.11\nold DNAME www.good.test.\nmx MX 10 www\nMiXed A 192.0.2.12\n",
        address = address(server)
    )
}

/// Everything running; the order is that in which it ends.
struct Made {
    node: Node,
    /// Forwards everything to Unbound, and validates by itself.
    forwarder: Node,
    unbound: u16,
    _processes: Vec<Process>,
    _dir: TempDir,
}

impl Made {
    fn start() -> Self {
        let ecdsa = |options: &'static [&'static str]| Signed {
            algorithm: "ECDSAP256SHA256",
            options,
        };
        let nsec3 = &["-n", "-t", "5", "-s", "C0FFEE"];
        let opt_out = &["-n", "-p", "-t", "0", "-s", "AB"];
        let over = &["-n", "-t", "200", "-s", "AB"];
        let past = &["-i", "20200101", "-e", "20200201"];
        let rsa = Signed {
            algorithm: "RSASHA256",
            options: opt_out,
        };
        let edwards = Signed {
            algorithm: "ED25519",
            options: &[],
        };
        let with_child = format!("{}sub NS ns\n", lines(3));
        let mut second = vec![
            zone("good.test", &with_child, Some(&ecdsa(&[]))),
            zone(
                "sub.good.test",
                "@ NS ns.good.test.\nwww A 192.0.2.20\n",
                None,
            ),
            zone("nsec3.test", &lines(3), Some(&ecdsa(nsec3))),
            zone("rsa.test", &format!("{}sub NS ns\n", lines(3)), Some(&rsa)),
            zone(
                "sub.rsa.test",
                "@ NS ns.rsa.test.\nwww A 192.0.2.21\n",
                None,
            ),
            zone("edwards.test", &lines(3), Some(&edwards)),
            zone("over.test", &lines(3), Some(&ecdsa(over))),
            zone("unsigned.test", &lines(3), None),
            zone("expired.test", &lines(3), Some(&ecdsa(past))),
            zone("bogus.test", &lines(3), Some(&ecdsa(&[]))),
            zone("wrongds.test", &lines(3), Some(&ecdsa(&[]))),
            zone("stripped.test", &lines(3), None),
        ];
        let mut test = lines(2);
        for zone in &mut second {
            let apex = zone.apex;
            if apex.matches('.').count() > 1 {
                continue;
            }
            writeln!(test, "{apex}. NS ns.{apex}.\nns.{apex}. A {}", address(3)).expect("a String");
            match apex {
                "bogus.test" => zone.text = zone.text.replace("192.0.2.10", "192.0.2.66"),
                // The key of another zone.
                "wrongds.test" | "stripped.test" => {
                    let other = Signed {
                        algorithm: "ECDSAP256SHA256",
                        options: &[],
                    };
                    zone.ds = self::zone(apex, "@ NS ns\nns A 192.0.2.1\n", Some(&other)).ds;
                }
                _ => {}
            }
            test.push_str(zone.ds.as_deref().unwrap_or_default());
        }
        let test = zone("test", &test, Some(&ecdsa(opt_out)));
        let mut root = format!("@ NS ns.root.\nns.root. A {}\n", address(1));
        writeln!(root, "test. NS ns.test.\nns.test. A {}", address(2)).expect("a String");
        root.push_str(test.ds.as_deref().unwrap_or_default());
        let root = zone(
            ".",
            &root,
            Some(&Signed {
                algorithm: "RSASHA256",
                options: &[],
            }),
        );

        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).expect("the directory is writable");
            path.display().to_string()
        };
        let hints = write(
            "hints",
            &format!(". 3600 IN NS ns.root.\nns.root. 3600 IN A {}\n", address(1)),
        );
        let anchor = write("anchor", root.ds.as_deref().expect("the root is signed"));
        let mut processes = Vec::new();
        for (server, zones) in [(1, vec![root]), (2, vec![test]), (3, second)] {
            processes.push(nsd(&dir, server, &zones));
        }
        let unbound = unbound(&dir, &hints, &anchor, &mut processes);
        let mut node = Node::new(&format!(
            "{COMMON}\n[resolver]\nmode = \"recursive\"\nroot_hints = \"{hints}\"\ntrust_anchors = \"{anchor}\"\n\
             families = [\"ip4\"]\nspecial_use_names = false\n[resolver.recursion]\ndeny_servers = []\n"
        ));
        node.start();
        let mut forwarder = Node::new(&format!(
            "{COMMON}\n[resolver]\nmode = \"forward\"\nupstreams = [\"127.0.0.1:{unbound}\"]\ndnssec = true\n\
             trust_anchors = \"{anchor}\"\nspecial_use_names = false\n"
        ));
        forwarder.start();
        Self {
            node,
            forwarder,
            unbound,
            _processes: processes,
            _dir: dir,
        }
    }

    /// What Unbound and the node that resolves from the root say of a question, and whether that is the same.
    fn ask(&self, name: &str, rtype: &str, flag: &str) -> Result<Answer, String> {
        self.compare(&self.node, name, rtype, flag)
    }

    fn compare(&self, node: &Node, name: &str, rtype: &str, flag: &str) -> Result<Answer, String> {
        let args = [name, rtype, "+dnssec", flag, "+time=10", "+tries=1"];
        let ours = node.dig(&args);
        let theirs = dig(self.unbound, &args);
        let records = |answer: &Answer| {
            let mut all: Vec<String> = answer
                .answer
                .iter()
                .map(|r| format!("{} {} {}", r.name, r.rtype, r.data).to_lowercase())
                .collect();
            all.sort();
            all
        };
        let same = ours.status == theirs.status
            && ours.flag("ad") == theirs.flag("ad")
            && records(&ours) == records(&theirs);
        if same {
            Ok(ours)
        } else {
            Err(format!(
                "{name} {rtype} {flag}\nours: {}\nUnbound: {}",
                ours.text, theirs.text
            ))
        }
    }
}

fn nsd(dir: &TempDir, server: u8, zones: &[Zone]) -> Process {
    let at = dir.path().display();
    let address = address(server);
    let mut config = format!(
        "server:\n server-count: 1\n ip-address: {address}\n username: \"\"\n zonesdir: \"{at}\"\n database: \"\"\n \
         pidfile: \"\"\n xfrdfile: \"{at}/xfrd.{server}\"\n zonelistfile: \"{at}/list.{server}\"\n rrl-ratelimit: 0\n\
         remote-control:\n control-enable: no\n"
    );
    for (index, zone) in zones.iter().enumerate() {
        let file = dir.path().join(format!("{server}.{index}.zone"));
        fs::write(&file, &zone.text).expect("the directory is writable");
        writeln!(
            config,
            "zone:\n name: \"{}\"\n zonefile: \"{}\"",
            zone.apex,
            file.display()
        )
        .expect("a String");
    }
    let file = dir.path().join(format!("nsd.{server}.conf"));
    fs::write(&file, config).expect("the directory is writable");
    let mut command = Command::new(tool("nsd"));
    command.arg("-d").arg("-c").arg(&file);
    let mut process = Process::spawn("nsd", command, dir.path().join(format!("nsd.{server}.log")));
    poll(READY, "NSD to answer", || {
        process.assert_running();
        let mut dig = Command::new(tool("dig"));
        dig.args([
            &format!("@{address}"),
            zones[0].apex,
            "SOA",
            "+time=1",
            "+tries=1",
            "+norec",
        ]);
        let answer = Answer::parse(&run(&mut dig).stdout)?;
        (answer.status == "NOERROR").then_some(())
    });
    process
}

fn unbound(dir: &TempDir, hints: &str, anchor: &str, processes: &mut Vec<Process>) -> u16 {
    let port = free_port();
    let config = format!(
        "server:\n interface: 127.0.0.1\n port: {port}\n username: \"\"\n chroot: \"\"\n directory: \"{at}\"\n \
         pidfile: \"\"\n use-syslog: no\n do-daemonize: no\n num-threads: 1\n do-ip6: no\n \
         module-config: \"validator iterator\"\n access-control: 127.0.0.0/8 allow\n do-not-query-localhost: no\n \
         root-hints: \"{hints}\"\n trust-anchor-file: \"{anchor}\"\n local-zone: \"test.\" nodefault\n \
         outgoing-interface: 127.0.0.1\nremote-control:\n control-enable: no\n",
        at = dir.path().display()
    );
    let file = dir.path().join("unbound.conf");
    fs::write(&file, config).expect("the directory is writable");
    let mut command = Command::new(tool("unbound"));
    command.arg("-d").arg("-c").arg(&file);
    let mut process = Process::spawn("unbound", command, dir.path().join("unbound.log"));
    poll(READY, "Unbound to answer", || {
        process.assert_running();
        let answer = super::harness::try_dig(port, &["www.good.test", "A", "+time=2"])?;
        (answer.status == "NOERROR").then_some(())
    });
    processes.push(process);
    port
}

#[test]
fn answers_equal_those_of_unbound_over_a_signed_internet() {
    let made = Made::start();
    let zones = [
        "good", "nsec3", "rsa", "edwards", "over", "unsigned", "expired", "bogus", "wrongds",
        "stripped",
    ];
    let names = [
        ("www", "A"),
        ("www", "AAAA"),
        ("WwW", "A"),
        ("www", "TXT"),
        ("alias", "A"),
        ("far", "A"),
        ("far", "TXT"),
        ("mx", "MX"),
        ("mixed", "A"),
        ("x.wild", "TXT"),
        ("y.x.wild", "TXT"),
        ("x.wild", "A"),
        ("wild", "TXT"),
        ("ent", "A"),
        ("b.ent", "TXT"),
        ("a.b.ent", "A"),
        ("nobody", "A"),
        ("no.body.at.all", "A"),
        ("old", "A"),
        ("", "SOA"),
        ("", "NS"),
        ("", "DNSKEY"),
        ("", "DS"),
        ("", "A"),
        ("www.sub", "A"),
        ("no.sub", "A"),
        ("sub", "DS"),
        ("sub", "NS"),
    ];
    let mut differences = Vec::new();
    let mut asked = 0;
    let mut statuses = std::collections::BTreeMap::<(String, bool), usize>::new();
    for flag in ["+nocd", "+cd"] {
        // With CD they differ from each other in how they fail, if at all.
        let zones = if flag == "+cd" {
            &zones[6..]
        } else {
            &zones[..]
        };
        for zone in zones {
            for (label, rtype) in names {
                let name = format!("{label}.{zone}.test.");
                match made.ask(name.trim_start_matches('.'), rtype, flag) {
                    Ok(answer) => {
                        let seen = (answer.status.clone(), answer.flag("ad"));
                        *statuses.entry(seen).or_default() += 1;
                    }
                    Err(difference) => differences.push(difference),
                }
                asked += 1;
            }
        }
        for (name, rtype) in [
            (".", "SOA"),
            (".", "NS"),
            (".", "DNSKEY"),
            (".", "DS"),
            ("nothing.", "A"),
            ("test.", "DS"),
            ("test.", "NS"),
            ("nothing.test.", "A"),
            ("nothing.test.", "DS"),
        ] {
            if let Err(difference) = made.ask(name, rtype, flag) {
                differences.push(difference);
            }
            asked += 1;
        }
    }
    assert!(
        differences.is_empty(),
        "{} of {asked} answers differ:\n{}",
        differences.len(),
        differences.join("\n")
    );
    // That both fail everywhere would be equal, too.
    for seen in [
        ("NOERROR", true),
        ("NOERROR", false),
        ("NXDOMAIN", true),
        ("NXDOMAIN", false),
        ("SERVFAIL", false),
    ] {
        let seen = (seen.0.to_owned(), seen.1);
        assert!(
            statuses.get(&seen).is_some_and(|&n| n >= 5),
            "{seen:?} of {statuses:?}"
        );
    }
}

/// Unbound as the upstream of a node that validates: it must come to the same end as Unbound itself.
#[test]
fn answers_validated_through_an_upstream_equal_its_own() {
    let made = Made::start();
    let mut differences = Vec::new();
    let mut authentic = 0;
    for zone in [
        "good", "nsec3", "rsa", "edwards", "over", "unsigned", "expired", "bogus", "wrongds",
        "stripped",
    ] {
        for (label, rtype) in [
            ("www", "A"),
            ("www", "TXT"),
            ("alias", "A"),
            ("far", "A"),
            ("x.wild", "TXT"),
            ("ent", "A"),
            ("nobody", "A"),
            ("no.body.at.all", "A"),
            ("old", "A"),
            ("", "DNSKEY"),
            ("", "DS"),
            ("www.sub", "A"),
            ("sub", "DS"),
        ] {
            let name = format!("{label}.{zone}.test.");
            match made.compare(
                &made.forwarder,
                name.trim_start_matches('.'),
                rtype,
                "+nocd",
            ) {
                Ok(answer) => authentic += usize::from(answer.flag("ad")),
                Err(difference) => differences.push(difference),
            }
        }
    }
    assert!(
        differences.is_empty(),
        "{} answers differ:\n{}",
        differences.len(),
        differences.join("\n")
    );
    assert!(authentic >= 40, "{authentic}");
    for name in ["www.bogus.test", "www.expired.test"] {
        let answer = made.forwarder.dig(&[name, "A", "+cd"]);
        assert_eq!(
            (&*answer.status, answer.answer.len()),
            ("NOERROR", 1),
            "{}",
            answer.text
        );
    }
}

#[test]
fn failures_of_validation_say_why() {
    let made = Made::start();
    for (name, code) in [
        ("www.bogus.test", "6 "),
        ("www.expired.test", "7 "),
        ("www.wrongds.test", "9 "),
        ("www.stripped.test", "10 "),
    ] {
        let answer = made.node.dig(&[name, "A", "+dnssec"]);
        assert_eq!(answer.status, "SERVFAIL", "{}", answer.text);
        assert!(
            answer.text.contains(&format!("EDE: {code}")),
            "{name}: {}",
            answer.text
        );
    }
}

#[test]
fn delv_validates_what_the_resolver_gives() {
    let made = Made::start();
    for (name, expected) in [
        ("www.good.test", "; fully validated"),
        ("nobody.nsec3.test", "; negative response, fully validated"),
        ("www.unsigned.test", "; unsigned answer"),
    ] {
        let anchor = fs::read_to_string(made._dir.path().join("anchor")).expect("it was written");
        // Root DS in the form delv wants.
        let words: Vec<&str> = anchor.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "DS").expect("a DS");
        let keys = format!(
            "trust-anchors {{ . static-ds {} {} {} \"{}\"; }};\n",
            words[at + 1],
            words[at + 2],
            words[at + 3],
            words[at + 4..].concat()
        );
        let file = made._dir.path().join("delv.keys");
        fs::write(&file, keys).expect("the directory is writable");
        let mut command = Command::new(tool("delv"));
        let port = made.node.dns.to_string();
        let file = file.display().to_string();
        command.args(["@127.0.0.1", "-p", &port, "-a", &file, "+root=.", name, "A"]);
        let output = run(&mut command);
        assert!(
            output.stdout.contains(expected),
            "{name}: {}{}",
            output.stdout,
            output.stderr
        );
    }
}
