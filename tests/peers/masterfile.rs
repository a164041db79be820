//! Master files of tricky shapes: which are taken and which are refused, beside the checkers of BIND, Knot and NSD; and whether
//! what is taken means the same as to BIND.
//!
//! Who judges a file unlike us is named beside it with the reason; a peer named for nothing is a failure.

use std::path::Path;
use std::process::Command;

use super::harness::{COMMON, Node, headwater, run, tool};

/// A zone `test.`: [`HEAD`] and this.
#[derive(Debug)]
struct File {
    name: &'static str,
    text: &'static str,
    taken: bool,
    /// Peers that judge otherwise, and why we do not follow them.
    unlike: &'static [(&'static str, &'static str)],
}

const HEAD: &str = "$TTL 300\n@ SOA ns h 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\n";

const fn taken(name: &'static str, text: &'static str) -> File {
    File {
        name,
        text,
        taken: true,
        unlike: &[],
    }
}

const fn refused(name: &'static str, text: &'static str) -> File {
    File {
        name,
        text,
        taken: false,
        unlike: &[],
    }
}

impl File {
    const fn unlike(mut self, unlike: &'static [(&'static str, &'static str)]) -> Self {
        self.unlike = unlike;
        self
    }
}

const NO_GENERATE: &[(&str, &str)] = &[
    ("NSD", "it does not know $GENERATE"),
    ("Knot", "it does not know $GENERATE"),
];

const FILES: &[File] = &[
    taken("class and TTL in any order", "a IN 10 A 192.0.2.1\nb 10 IN A 192.0.2.1\nc 1h30m A 192.0.2.1\n"),
    taken("unknown type, generic data", "a tYpE1 \\# 4 c0000201\nb TYPE65280 \\# 3 ab cdef\n"),
    taken("several lines", "a TXT ( \"x\" ; comment )\n \"y;z\" )\nb\tA\t192.0.2.1\n"),
    taken("lines that end in CR LF", "b A 192.0.2.1\r\n").unlike(&[("Knot", "files are edited on all systems, and nothing else could be meant")]),
    taken("escapes", "a\\.b A 192.0.2.1\n\\097 A 192.0.2.2\n\\@ TXT \"\\\"q\\\" \\065\"\n"),
    taken("generate", "$GENERATE 1-3 h$ A 192.0.2.$\n$GENERATE 0-4/2 x${10,4,d} CNAME t${0,2,x}\n").unlike(NO_GENERATE),
    refused("generate beyond the data", "$GENERATE 250-260 h$ A 192.0.2.$\n"),
    refused("generate from high to low", "$GENERATE 3-1 h$ A 192.0.2.$\n"),
    refused("CNAME and other data", "a CNAME b\na A 192.0.2.1\n"),
    refused("two CNAMEs", "a CNAME b\na CNAME c\n"),
    refused("CNAME and DNAME", "d DNAME e.example.\nd CNAME x\n"),
    refused("two DNAMEs", "d DNAME e.example.\nd DNAME x\n"),
    taken("CNAME and NSEC", "a CNAME b\na NSEC b A\n"),
    refused("two SOAs", "@ SOA ns h 2 2 3 4 5\n").unlike(&[("Knot", "it takes the first and says nothing")]),
    refused("SOA below the apex", "x SOA ns h 1 2 3 4 5\n").unlike(&[("Knot", "it takes it and says nothing")]),
    refused("NS at a wildcard", "*.w NS ns\n").unlike(&[
        ("NSD", "RFC 4592 section 4.2 leaves open what it means"),
        ("Knot", "RFC 4592 section 4.2 leaves open what it means"),
    ]),
    refused("another class", "a CH TXT x\n"),
    refused("bad address", "a A 192.0.2.256\n"),
    refused("a character string of 256 bytes", concat!("a TXT \"", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "\"\n"))
        .unlike(&[("Knot", "it cuts it into two")]),
    refused("a label of 64 bytes", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef A 192.0.2.1\n"),
    refused("an empty label", "a..b A 192.0.2.1\n"),
    refused("an open quote", "a TXT \"x\nb A 192.0.2.1\n"),
    refused("an open parenthesis", "a A ( 192.0.2.1\n").unlike(&[("NSD", "the end of the file may have been lost: we refuse it, as BIND and Knot do")]),
    refused("data that goes on", "a A 192.0.2.1 x\n"),
    refused("data that ends early", "a MX 10\n"),
    refused("generic data of another form", "a A \\# 3 c00002\n").unlike(&[("Knot", "an address has four bytes; we refuse it, as BIND and NSD do")]),
    refused("generic data of another length", "a TYPE65280 \\# 3 abcd\n").unlike(&[("NSD", "the length is wrong; we refuse it, as BIND and Knot do")]),
    refused("an unknown directive", "$NOTHING x\n"),
    refused("an unknown type", "a NOTHING x\n"),
    refused("include of nothing", "$INCLUDE /nonexistent/file\n"),
    taken("out of the zone", "a.example. A 192.0.2.1\n").unlike(&[("NSD", "we leave the record out and warn, as BIND and Knot do")]),
    taken("a delegation without glue", "sub NS ns.sub\n").unlike(&[("Knot", "we warn, as BIND does: the rest of the zone is fine")]),
    taken("an alias as a name server", "sub NS c\nc CNAME ns\n").unlike(&[("Knot", "we warn, as BIND does")]),
    refused("an own name server without address", "@ NS gone\n").unlike(&[("NSD", "it looks at no names but owners")]),
    refused("an own name server that is an alias", "@ NS c\nc CNAME ns\n").unlike(&[("NSD", "it looks at no names but owners")]),
    taken("mail to an alias or nowhere", "a MX 10 gone\nb MX 10 c\nc CNAME ns\n"),
    taken("a service at an alias or nowhere", "_a._tcp SRV 0 0 1 gone\n_b._tcp SRV 0 0 1 c\nc CNAME ns\n"),
    taken("TTLs that differ", "a 10 A 192.0.2.1\na 20 A 192.0.2.2\n"),
    taken("the same record twice", "a A 192.0.2.1\na A 192.0.2.1\n"),
    taken("names below a DNAME", "d DNAME e.example.\nx.d A 192.0.2.1\n").unlike(&[
        ("NSD", "we warn, as BIND does: the record is never answered and harms nobody"),
        ("Knot", "as NSD"),
    ]),
    taken("addresses below a delegation", "sub NS ns.sub\nns.sub A 192.0.2.1\nx.sub A 192.0.2.1\n"),
    taken("DS without NS", "x DS 1 13 2 0000000000000000000000000000000000000000000000000000000000000000\n"),
    taken("places", "a LOC 42 21 54 N 71 06 18 W -24m 30m\nb LOC 52 14 05 N 00 08 50 E 10m\n"),
    refused("a place beyond the pole", "a LOC 91 N 0 E 0m\n").unlike(&[("NSD", "there are none")]),
    taken("types few use", "a AFSDB 1 ns\na X25 \"311061700956\"\na RT 10 ns\na KX 1 ns\na EUI48 00-00-5e-00-53-2a\na L32 10 10.1.2.0\n").unlike(&[("Knot", "it does not know X25")]),
    taken("key and digest for the parent", "@ CDS 0 0 0 00\n@ CDNSKEY 0 3 0 AA==\n"),
];

/// Files of which we warn and BIND does not, or the other way round, and why.
const WARNED_UNLIKE: &[(&str, &str)] = &[
    (
        "escapes",
        "BIND looks at the letters of host names, which no DNS server needs (RFC 2181 section 11)",
    ),
    (
        "the same record twice",
        "one of them is of no use, and perhaps meant to be another",
    ),
    (
        "names below a DNAME",
        "the record is never answered, which its owner may want to know",
    ),
];

/// Whether BIND says more of a file than that it is good.
fn warns(stdout: &str, stderr: &str) -> bool {
    let mut lines = stdout.lines().chain(stderr.lines());
    lines.any(|line| !line.contains("loaded serial") && line != "OK" && !line.is_empty())
}

#[test]
fn files_are_taken_and_refused_as_by_bind_knot_and_nsd() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let file = dir.path().join("zone");
    let config = dir.path().join("config.toml");
    std::fs::write(
        &config,
        format!(
            "[[zone]]\nname = \"test.\"\nfile = \"{}\"\n",
            file.display()
        ),
    )
    .expect("the temporary directory is writable");
    let judge = |program: &Path, args: &[&str]| {
        let args = args
            .iter()
            .map(|arg| arg.replace('@', &file.display().to_string()));
        run(Command::new(program).args(args))
    };
    let (bind, knot, nsd) = (
        tool("named-checkzone"),
        tool("kzonecheck"),
        tool("nsd-checkzone"),
    );
    let mut wrong = Vec::new();
    for File {
        name,
        text,
        taken,
        unlike,
    } in FILES
    {
        std::fs::write(&file, format!("{HEAD}{text}"))
            .expect("the temporary directory is writable");
        let ours = run(headwater().arg("check").arg("--config").arg(&config));
        if ours.status.success() != *taken {
            wrong.push(format!("{name}: headwater says {}", ours.stdout));
        }
        // Of a file that is refused the line is named (`zone:5`), or the file as a whole.
        if !taken && !ours.stdout.contains(&format!("{}:", file.display())) {
            wrong.push(format!("{name}: no place is named in {}", ours.stdout));
        }
        let said = judge(&bind, &["test.", "@"]);
        let warned = ours.stdout.contains(": warning: ");
        let reason = WARNED_UNLIKE.iter().find(|(named, _)| named == name);
        if *taken && (warned == warns(&said.stdout, &said.stderr)) == reason.is_some() {
            wrong.push(format!(
                "{name}: headwater warns {warned} of what BIND says {}{}",
                said.stdout, said.stderr
            ));
        }
        for (peer, said) in [
            ("BIND", said),
            ("Knot", judge(&knot, &["-o", "test.", "@"])),
            ("NSD", judge(&nsd, &["test.", "@"])),
        ] {
            let reason = unlike.iter().find(|(named, _)| *named == peer);
            match (said.status.success() == *taken, reason) {
                (true, Some((_, why))) => wrong.push(format!(
                    "{name}: {peer} judges as we do, yet it is named ({why})"
                )),
                (false, None) => wrong.push(format!(
                    "{name}: {peer} says {}{}",
                    said.stdout, said.stderr
                )),
                _ => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Of every type that a zone may have and BIND knows, with the odd ways to write them.
const RECORDS: &str = "
$GENERATE 1-3 h$ A 192.0.2.$
$GENERATE 0-20/5 ${0,3}.gen 60 IN MX \"10 m${1,2,x}\"
$GENERATE 250-260 ${0,3,n}.nib PTR h${-250,3,d}
$GENERATE 1-2 text$ TXT \"a $ b\"
$ORIGIN low.test.
a 1h A 192.0.2.7
@ TXT ( \"one\" two
  \"th\\\"ree\" \\065\\032b )
$ORIGIN test.
a\\.b A 192.0.2.8
UPPER A 192.0.2.9
$TTL 1d2h
a AFSDB 1 ns
a X25 311061700956
a ISDN 150862028003217 \"004\"
a RT 10 ns
a NSAP 0x47.0005.80.005a00.0000.0001.e133.ffffff000161.00
a KEY 256 3 8 AQAB
a PX 10 a b.example.
a GPOS -32.6882 116.8652 10.0
a LOC 42 21 54 N 71 06 18 W -24m 30m
b LOC 32 7 19.1 S 116 2 25 E 10.5m 1.5m 0.5m 0
c LOC 52 N 0 E 0
a KX 1 ns
a CERT PGP 0 0 AQAB
a CERT 9 1 8 AQ AB
a APL 1:192.168.32.0/21 !1:192.168.38.0/28 2:FF00:0:0:0:0:0:0:0/8
a DHCID AAIBY2/AuCccgoJbsaxcQc9TUapptP69lOjxfNuVAA2kjEA=
a SMIMEA 3 1 1 0000000000000000000000000000000000000000000000000000000000000000
a HIP 2 200100107B1A74DF365639CC39F1D578 AwEAAbdxyhNuSutc5EMzxTs9LBPCIkOFH8cIvM4p9+LrV4e19WzK00+CI6zBCQTdtWsuxKbWIy87UOoJTwkUs7lBu+Upr1gsNrut79ryra+bSRGQb1slImA8YVJyuIDsj7kwzG7jnERNqnWxZ48AWkskmdHaVDP4BcelrTI3rMXdXF5D rvs.example.
a NINFO \"about\" it
a RKEY 0 1 8 AQAB
a TALINK a b
@ CSYNC 66 3 NS A AAAA
a SPF \"v=spf1 -all\"
a NID 10 0014:4fff:ff20:ee64
a L32 10 10.1.2.0
a L64 10 2001:0DB8:1140:1000
a LP 10 a
a EUI48 00-00-5e-00-53-2a
a EUI64 00-00-5e-ef-10-00-00-2a
a URI 10 1 \"ftp://ftp1.example.com/public\"
a AMTRELAY 10 0 1 192.0.2.5
b AMTRELAY 10 1 2 2001:db8::15
c AMTRELAY 10 0 3 relay.example.
a DLV 1 8 2 0000000000000000000000000000000000000000000000000000000000000000
a CAA 0 issue \"ca.example\"
a NAPTR 100 50 \"s\" \"z3950+I2L+I2C\" \"\" _z3950._tcp
a SSHFP 2 1 123456789abcdef67890123456789abcdef67890
a TLSA 3 1 1 0000000000000000000000000000000000000000000000000000000000000000
a RP mbox txt
a HINFO PC Linux
a OPENPGPKEY AQAB
@ ZONEMD 1 1 1 000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000
@ CDS 0 0 0 00
@ CDNSKEY 0 3 0 AA==
a HTTPS 1 . alpn=\"h2,h3\" port=8443
a DS 1 13 2 0000000000000000000000000000000000000000000000000000000000000000
x DNAME y.example.
_s._tcp SRV 1 2 443 ns
t TYPE65280 \\# 3 abcdef
";

#[test]
fn records_are_those_that_bind_reads() {
    let mut node = Node::new(&format!(
        "{COMMON}\n[resolver]\nmode = \"off\"\n[[zone]]\nname = \"test.\"\nfile = \"zone\"\n"
    ));
    let file = node.write("zone", format!("{HEAD}{RECORDS}"));
    node.start();
    let show = || {
        let shown = node.control(&["zone", "show", "test."]);
        shown.assert_success();
        shown.stdout
    };
    let ours = show();
    // BIND writes what it understood, absolute names and one record a line; we read that again.
    let theirs = node.path("bind");
    let mut checkzone = Command::new(tool("named-checkzone"));
    checkzone
        .args(["-D", "-s", "full", "-o"])
        .arg(&theirs)
        .arg("test.")
        .arg(&file);
    run(&mut checkzone).assert_success();
    let dumped = std::fs::read_to_string(&theirs).expect("BIND wrote it");
    assert!(
        !dumped.contains("$GENERATE") && dumped.contains("URI"),
        "{dumped}"
    );
    node.write("zone", dumped);
    node.control(&["zone", "reload", "test."]).assert_success();
    let again = show();
    let only = |one: &str, other: &str| {
        let other: Vec<&str> = other.lines().collect();
        let lines = one.lines().filter(|line| !other.contains(line));
        lines.collect::<Vec<_>>().join("\n")
    };
    assert_eq!(only(&ours, &again), only(&again, &ours));
    assert!(ours.lines().count() > 70, "{ours}");
}
