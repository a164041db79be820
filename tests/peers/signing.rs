//! Zones signed by the node itself, verified by BIND's and ldns's verifiers, validated by Unbound and delv.

use std::process::Command;

use super::harness::{COMMON, Node, Validator, run, tool};

/// A zone with every shape that needs a proof of its own; `DS` stands where the secure child's goes.
const ZONE: &str = "\
$TTL 300
@        SOA ns host 7 3600 900 604800 60
         NS  ns
         MX  10 mail
         TXT \"apex\"
ns       A   127.0.0.1
Mail     A   192.0.2.20
         AAAA 2001:db8::20
www      A   192.0.2.10
         A   192.0.2.11
*.wild   A   192.0.2.30
x.y.wild A   192.0.2.31
sub.*.star A 192.0.2.32
alias    CNAME www
*.alias2 CNAME alias
dangling CNAME missing
tochild  CNAME www.secure
a.b.c    A   192.0.2.50
old      DNAME new
h.new    A   192.0.2.60
srv      SRV 1 2 443 WWW.Valid.Test.
odd      TYPE65280 \\# 3 ABCDEF
plain    NS  ns.plain
ns.plain A   127.0.0.1
secure   NS  ns.secure
ns.secure A  127.0.0.1
DS
";

const CHILD: &str = "\
$TTL 300
@   SOA ns host 7 3600 900 604800 60
    NS  ns
ns  A   127.0.0.1
www A   192.0.2.70
";

/// Question, and code, number of answers and whether a validator says that they are authentic.
const QUESTIONS: &[(&str, &str, &str, usize, bool)] = &[
    ("valid.test", "SOA", "NOERROR", 1, true),
    ("valid.test", "DNSKEY", "NOERROR", 1, true),
    ("valid.test", "MX", "NOERROR", 1, true),
    ("valid.test", "AAAA", "NOERROR", 0, true),
    ("www.valid.test", "A", "NOERROR", 2, true),
    ("www.valid.test", "AAAA", "NOERROR", 0, true),
    ("mail.valid.test", "AAAA", "NOERROR", 1, true),
    ("missing.valid.test", "A", "NXDOMAIN", 0, true),
    ("a.missing.valid.test", "A", "NXDOMAIN", 0, true),
    ("zzz.valid.test", "A", "NXDOMAIN", 0, true),
    ("q.wild.valid.test", "A", "NOERROR", 1, true),
    ("q.r.wild.valid.test", "A", "NOERROR", 1, true),
    ("q.wild.valid.test", "MX", "NOERROR", 0, true),
    ("*.wild.valid.test", "A", "NOERROR", 1, true),
    ("y.wild.valid.test", "A", "NOERROR", 0, true),
    ("z.y.wild.valid.test", "A", "NXDOMAIN", 0, true),
    ("q.star.valid.test", "A", "NOERROR", 0, true),
    ("alias.valid.test", "A", "NOERROR", 3, true),
    ("alias.valid.test", "MX", "NOERROR", 1, true),
    ("q.alias2.valid.test", "A", "NOERROR", 4, true),
    ("dangling.valid.test", "A", "NXDOMAIN", 1, true),
    ("b.c.valid.test", "A", "NOERROR", 0, true),
    ("x.b.c.valid.test", "A", "NXDOMAIN", 0, true),
    ("h.old.valid.test", "A", "NOERROR", 3, true),
    ("x.old.valid.test", "A", "NXDOMAIN", 2, true),
    ("srv.valid.test", "SRV", "NOERROR", 1, true),
    ("odd.valid.test", "TYPE65280", "NOERROR", 1, true),
    ("plain.valid.test", "DS", "NOERROR", 0, true),
    ("www.plain.valid.test", "A", "NOERROR", 1, false),
    ("x.plain.valid.test", "A", "NXDOMAIN", 0, false),
    ("secure.valid.test", "DS", "NOERROR", 1, true),
    ("www.secure.valid.test", "A", "NOERROR", 1, true),
    ("x.secure.valid.test", "A", "NXDOMAIN", 0, true),
    ("tochild.valid.test", "A", "NOERROR", 2, true),
];

/// A node that serves valid.test. and secure.valid.test. signed, and plain.valid.test. unsigned.
fn node(keys: &str) -> Node {
    let mut node = Node::new(&format!(
        "{COMMON}\n[resolver]\nmode = \"off\"\n\
         [[zone]]\nname = \"valid.test.\"\nfile = \"valid.zone\"\nsign = true\n{keys}\n\
         [[zone]]\nname = \"secure.valid.test.\"\nfile = \"secure.zone\"\nsign = true\n{keys}\n\
         [[zone]]\nname = \"plain.valid.test.\"\nfile = \"plain.zone\"\n"
    ));
    node.write("valid.zone", ZONE.replace("DS\n", ""));
    node.write("secure.zone", CHILD);
    node.write("plain.zone", CHILD);
    node.start();
    // The child's DS, as its own CDS says it in the end, goes to the parent.
    let ds = ds(&node, "secure.valid.test");
    let with_ds = ZONE.replace("DS\n", &format!("secure DS {ds}\n"));
    node.write("valid.zone", with_ds);
    node.control(&["zone", "reload", "valid.test."])
        .assert_success();
    node
}

/// The key of a zone as a record.
fn dnskey(node: &Node, zone: &str) -> String {
    let answer = node.dig(&[zone, "DNSKEY"]);
    let data = answer.data("DNSKEY");
    assert_eq!(data.len(), 1, "{}", answer.text);
    format!("{zone}. DNSKEY {}", data[0])
}

/// The data of the DS of a zone's key, made by BIND's tool.
fn ds(node: &Node, zone: &str) -> String {
    let file = node.write(
        "dnskey",
        format!(
            "{}\n",
            dnskey(node, zone).replace(". DNSKEY", ". 300 IN DNSKEY")
        ),
    );
    let mut command = Command::new(tool("dnssec-dsfromkey"));
    command.args(["-2", "-f"]).arg(file).arg(zone);
    let output = run(&mut command);
    output.assert_success();
    let (_, data) = output
        .stdout
        .trim()
        .split_once(" DS ")
        .expect("a DS record");
    data.to_owned()
}

fn check(keys: &str) {
    let node = node(keys);
    for zone in ["valid.test", "secure.valid.test"] {
        let shown = node.control(&["zone", "show", zone]);
        shown.assert_success();
        let file = node.write("signed", &shown.stdout);
        let mut bind = Command::new(tool("dnssec-verify"));
        bind.args(["-q", "-z", "-o", zone]).arg(&file);
        run(&mut bind).assert_success();
        let mut ldns = Command::new(tool("ldns-verify-zone"));
        ldns.arg(&file);
        run(&mut ldns).assert_success();
    }
    let zones = ["valid.test.", "secure.valid.test.", "plain.valid.test."].map(|z| (z, node.dns));
    let validator = Validator::start(&zones, &[dnskey(&node, "valid.test")]);
    for (name, rtype, code, answers, authentic) in QUESTIONS {
        let answer = super::harness::dig(validator.port, &[name, rtype, "+dnssec"]);
        let count = answer
            .answer
            .iter()
            .filter(|row| row.rtype != "RRSIG")
            .count();
        assert_eq!(
            (answer.status.as_str(), count, answer.flag("ad")),
            (*code, *answers, *authentic),
            "{name} {rtype} with {keys}:\n{}",
            answer.text
        );
    }
    let anchor = dnskey(&node, "valid.test");
    let (name, key) = anchor.split_once(" DNSKEY ").expect("as made above");
    let mut parts = key.splitn(4, ' ');
    let mut next = || parts.next().expect("four parts");
    let (flags, protocol, algorithm, public) = (next(), next(), next(), next());
    let anchors = format!(
        "trust-anchors {{ {name} static-key {flags} {protocol} {algorithm} \"{public}\"; }};"
    );
    let file = node.write("anchors", anchors);
    for (name, rtype, _, _, authentic) in QUESTIONS {
        // delv asks one server: it cannot follow into zones below.
        if !authentic || name.contains("secure") || *name == "tochild.valid.test" {
            continue;
        }
        let mut delv = Command::new(tool("delv"));
        delv.args([
            "@127.0.0.1",
            "-p",
            &node.dns.to_string(),
            "+root=valid.test",
            "-a",
        ])
        .arg(&file)
        .args([name, rtype]);
        let output = run(&mut delv);
        let text = format!("{}{}", output.stdout, output.stderr);
        assert!(
            text.contains("fully validated") && !text.contains("unsigned"),
            "{name} {rtype} with {keys}:\n{text}"
        );
    }
}

#[test]
fn zones_signed_with_ecdsa_and_nsec_validate_everywhere() {
    check("");
}

#[test]
fn zones_signed_with_ed25519_and_nsec3_validate_everywhere() {
    check("algorithm = \"ed25519\"\ndenial = \"nsec3\"");
}
