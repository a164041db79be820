//! Authoritative answers compared with NSD's, Knot's and BIND's on zones made of tricky shapes.
//!
//! The zones come from a generator with a fixed seed: names of few labels, so that wildcards, empty non-terminals,
//! delegations, DNAMEs and aliases meet at and beneath each other, within one zone and across several. What is unlike
//! is turned into ours by a named and argued difference, as in [`super::authoritative`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};

use super::authoritative::{Difference, Question, Row, alike};
use super::harness::{Bind, COMMON, Knot, Node, Nsd};

mod signed;

#[test]
fn generated_zones_are_answered_as_nsd_does() {
    compare("NSD", NSD, |zones, ask| ask(Nsd::start(zones).port));
}

#[test]
fn generated_zones_are_answered_as_knot_does() {
    compare("Knot", KNOT, |zones, ask| ask(Knot::start(zones).port));
}

#[test]
fn generated_zones_are_answered_as_bind_does() {
    compare("BIND", BIND, |zones, ask| ask(Bind::start(zones).port));
}

fn compare(
    peer: &str,
    differences: &[Difference],
    start: impl FnOnce(&[(&str, &str)], &dyn Fn(u16)),
) {
    let zones: Vec<(String, String)> = (0..ZONES).map(zone).collect();
    let texts: Vec<(&str, &str)> = zones.iter().map(|(a, t)| (&**a, &**t)).collect();
    let questions = questions(&texts, ASKED, false);
    assert!(questions.len() >= 10_000, "{} questions", questions.len());
    beside(peer, &zones, &questions, differences, start);
}

/// Compares a node that serves `zones` with the peer that `start` starts and has asked at its port.
fn beside(
    peer: &str,
    zones: &[(String, String)],
    questions: &[Question],
    differences: &[Difference],
    start: impl FnOnce(&[(&str, &str)], &dyn Fn(u16)),
) {
    let mut node = Node::new(&format!(
        "{COMMON}\n[resolver]\nmode = \"off\"\n{}",
        zones
            .iter()
            .map(|(apex, _)| format!("[[zone]]\nname = \"{apex}.\"\nfile = \"{apex}.zone\"\n"))
            .collect::<String>()
    ));
    for (apex, text) in zones {
        node.write(&format!("{apex}.zone"), text);
    }
    node.start();
    let zones: Vec<(&str, &str)> = zones.iter().map(|(a, t)| (&**a, &**t)).collect();
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let ask = |port| alike(at(node.dns), at(port), peer, questions, differences);
    start(&zones, &ask);
}

const NSD: &[Difference] = &[MINIMAL, STRAY, SERVICES];
const KNOT: &[Difference] = &[ACROSS, BINDINGS, STRAY, OWN];
const BIND: &[Difference] = &[ACROSS, BESIDE, ALIASES, OWN];

const MINIMAL: Difference = Difference {
    name: "minimal",
    why: "A positive answer carries no NS of the zone and no addresses of those, as in `authoritative`.",
    adjust: |_, _, theirs| {
        let of_apex = |row: &Row| (row.rtype == "NS" || row.covers(2)) && is_apex(&row.owner);
        if theirs.answer.is_empty() || !theirs.authority.iter().any(of_apex) {
            return;
        }
        let named = |rows: &BTreeSet<Row>, owner: &str| {
            rows.iter()
                .any(|row| row.data.split(' ').next_back() == Some(owner))
        };
        let answer = &theirs.answer;
        let servers = &theirs.authority;
        theirs
            .additional
            .retain(|row| named(answer, &row.owner) || !named(servers, &row.owner));
        theirs.authority.retain(|row| !of_apex(row));
    },
};

const STRAY: Difference = Difference {
    name: "stray",
    why: "What a wildcard gives to a target has the target as its owner. NSD makes one up where the target is more than one \
          label longer than what the wildcard hangs from, and Knot gives the wildcard itself; no answer names either.",
    adjust: |_, ours, theirs| {
        let is_named = |row: &Row| {
            let last = |answer: &Row| answer.data.split(' ').next_back() == Some(&row.owner);
            ours.answer.iter().any(last)
        };
        let strays = theirs.additional.iter().any(|row| !is_named(row));
        let addresses = |rows: &BTreeSet<Row>| {
            let pairs = rows.iter().map(|row| (row.rtype.clone(), row.data.clone()));
            pairs.collect::<BTreeSet<_>>()
        };
        if strays
            && ours.additional.iter().all(is_named)
            && addresses(&ours.additional) == addresses(&theirs.additional)
        {
            theirs.additional.clone_from(&ours.additional);
        }
    },
};

const SERVICES: Difference = Difference {
    name: "services",
    why: "With a service binding come the addresses of its target, and what its alias leads to (RFC 9460 section 4.1), which are \
          the client's next questions; not all add all of these.",
    adjust: |question, ours, theirs| {
        let binding = |row: &Row| row.rtype == question.rtype;
        if matches!(question.rtype, "SVCB" | "HTTPS")
            && ours.answer.iter().any(binding)
            && theirs.additional.is_subset(&ours.additional)
        {
            theirs.additional.clone_from(&ours.additional);
        }
    },
};

const BINDINGS: Difference = Difference {
    name: "bindings",
    why: "With a service binding that is no alias come the addresses of its target, which is all a client wants of it (RFC 9460 \
          section 4.1); Knot adds the bindings of the target, too, which nobody follows.",
    adjust: |question, ours, theirs| {
        let service = |row: &Row| row.rtype == question.rtype && !row.data.starts_with("0 ");
        if matches!(question.rtype, "SVCB" | "HTTPS") && theirs.answer.iter().any(service) {
            let kept = |row: &Row| row.rtype != question.rtype || ours.additional.contains(row);
            theirs.additional.retain(kept);
        }
    },
};

const OWN: Difference = Difference {
    name: "own",
    why: "A service binding to its owner's own name brings the addresses of that name, as that of any other target does (RFC 9460 \
          section 4.1); NSD and Knot leave them out, and BIND those of a wildcard asked for by its own name.",
    adjust: |question, ours, theirs| {
        let own = |row: &Row| row.rtype == question.rtype && row.data.contains(" . ");
        let beside = |row: &&Row| !ours.answer.iter().any(|answer| answer.owner == row.owner);
        if ours.answer.iter().any(own)
            && ours.additional.iter().filter(beside).eq(&theirs.additional)
        {
            theirs.additional.clone_from(&ours.additional);
        }
    },
};

const ALIASES: Difference = Difference {
    name: "aliases",
    why: "A target that is an alias has no address of its own (RFC 2181 section 10.3); BIND adds the alias, which resolvers do not \
          keep from an additional section.",
    adjust: |_, ours, theirs| {
        let alias = |row: &Row| row.rtype == "CNAME" || row.covers_alias();
        let named = |row: &Row| {
            ours.answer
                .iter()
                .any(|answer| answer.data.contains(&*row.owner))
        };
        theirs.additional.retain(|row| !alias(row) || !named(row));
    },
};

const ACROSS: Difference = Difference {
    name: "across",
    why: "An alias is followed into other zones of the same server (RFC 1034 section 4.3.2 step 3a goes back to step 1, \
          which looks for the zone); Knot and BIND stop at the border of the zone.",
    adjust: |question, ours, theirs| {
        let home = zone_of(&question.name);
        let leaves = theirs
            .answer
            .iter()
            .any(|row| row.rtype == "CNAME" && zone_of(&row.data) != home);
        if leaves && theirs.answer.is_subset(&ours.answer) && theirs.authority.is_empty() {
            theirs.clone_from(ours);
        }
    },
};

const BESIDE: Difference = Difference {
    name: "beside",
    why: "A referral has the addresses of all its servers that the zone knows. BIND, told to leave the NS of positive \
          answers out (`minimal-responses no-auth`), leaves out those that are not beneath the delegation, and the \
          resolver asks once more.",
    adjust: |_, ours, theirs| {
        let cuts = |row: &Row| {
            let beneath = |cut: &Row| row.owner.ends_with(&format!(".{}", cut.owner));
            ours.authority
                .iter()
                .any(|cut| cut.owner == row.owner || beneath(cut))
        };
        let referral = ours.authority.iter().any(|row| row.rtype == "NS");
        if referral
            && theirs
                .additional
                .iter()
                .eq(ours.additional.iter().filter(|row| cuts(row)))
        {
            theirs.additional.clone_from(&ours.additional);
        }
    },
};

/// The apex of the generated zone that `name` lies in, or its last labels.
fn zone_of(name: &str) -> &str {
    let ends: Vec<usize> = name.match_indices('.').map(|(at, _)| at).collect();
    match ends.len().checked_sub(3) {
        Some(cut) => &name[ends[cut] + 1..],
        None => name,
    }
}

fn is_apex(name: &str) -> bool {
    zone_of(name) == name
}

/// A generator of numbers, the same on every machine (Knuth's constants).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    /// A name beneath the apex, leftmost label first; a wildcard now and then.
    fn name(&mut self) -> String {
        let labels = 1 + self.below(3);
        let mut name: Vec<&str> = (0..labels).map(|_| self.pick(&LABELS)).collect();
        if self.below(6) == 0 {
            name[0] = "*";
        }
        name.join(".")
    }

    /// A name to point to: mostly of this zone, else of another, or of nobody's.
    fn target(&mut self) -> String {
        match self.below(8) {
            0 => format!("{}.g{}.test.", self.name(), self.below(ZONES)),
            1 => "out.example.".to_owned(),
            _ => self.name(),
        }
    }
}

/// Apex without its dot, and master file, of zone `number`.
fn zone(number: usize) -> (String, String) {
    let mut dice = Dice(number as u64 + 1);
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for _ in 0..22 {
        let name = dice.name();
        let wild = name.starts_with('*');
        let host = dice.below(200);
        let records = match dice.below(15) {
            0 => vec![format!("CNAME {}", dice.target())],
            1 if !wild => vec![format!("DNAME {}", dice.target())],
            2 | 3 if !wild => {
                // Glue of the delegation itself, of others by chance, and none.
                let server = format!("ns.{name}");
                names
                    .entry(server.clone())
                    .or_insert_with(|| vec![format!("A 192.0.2.{host}")]);
                let mut records = vec![format!("NS {server}"), format!("NS {}", dice.target())];
                if host.is_multiple_of(2) {
                    records.push(format!("DS {host} 13 2 {host:064X}"));
                }
                records
            }
            4 => vec![
                format!("MX 10 {}", dice.target()),
                format!("MX 20 {}", dice.target()),
            ],
            5 => vec![format!("SRV 1 2 80 {}", dice.target())],
            6 => vec!["TXT \"text\"".to_owned()],
            7 => vec![format!("AAAA 2001:db8::{host:x}")],
            9 => vec![format!("SVCB 0 {}", dice.target())],
            10 => vec![
                format!("HTTPS 1 . alpn=h2 ipv4hint=192.0.2.{host}"),
                format!("A 192.0.2.{host}"),
            ],
            11 => vec![
                format!("HTTPS 1 {} port=8443", dice.target()),
                format!("HTTPS 2 {} alpn=h3", dice.target()),
                format!("SVCB 1 {}", dice.target()),
            ],
            8 => vec![
                format!("A 192.0.2.{host}"),
                format!("AAAA 2001:db8::{host:x}"),
                format!("MX 5 {}", dice.target()),
            ],
            _ => vec![format!("A 192.0.2.{host}")],
        };
        names.entry(name).or_insert(records);
    }
    // NSD refuses a zone with names beneath a DNAME, so its records there cannot be compared.
    let dnames: Vec<String> = names
        .iter()
        .filter(|(_, records)| records[0].starts_with("DNAME"))
        .map(|(name, _)| format!(".{name}"))
        .collect();
    names.retain(|name, _| !dnames.iter().any(|dname| name.ends_with(dname)));
    let mut text =
        String::from("$TTL 300\n@ SOA ns0 host 7 3600 600 86400 60\n@ NS ns0\nns0 A 192.0.2.250\n");
    // More than fits in a datagram, of data and of glue.
    for n in 0..90 {
        writeln!(text, "large A 192.0.2.{n}").expect("a String takes all");
    }
    for n in 0..13 {
        let glue = format!("ns{n}.wide A 192.0.2.{n}\nns{n}.wide AAAA 2001:db8::{n}");
        writeln!(text, "wide NS ns{n}.wide\n{glue}").expect("a String takes all");
    }
    for (name, records) in &names {
        for record in records {
            writeln!(text, "{name} {record}").expect("a String takes all");
        }
    }
    (format!("g{number}.test"), text)
}

/// Every owner, what is above, beside and beneath it, for these types; what does not fit a datagram, over TCP, too.
fn questions(zones: &[(&str, &str)], asked: &[&'static str], dnssec_ok: bool) -> Vec<Question> {
    let mut names = BTreeSet::new();
    for (apex, text) in zones {
        for line in text.lines().skip(1) {
            let owner = line.split(' ').next().expect("a word");
            if owner == "@" {
                names.insert(format!("{apex}."));
                continue;
            }
            let mut rest = owner;
            loop {
                names.insert(format!("{rest}.{apex}."));
                names.insert(format!("x.{rest}.{apex}."));
                let Some((_, above)) = rest.split_once('.') else {
                    break;
                };
                rest = above;
            }
            names.insert(format!("a.y.{owner}.{apex}."));
        }
    }
    let question = |name: &String, rtype, tcp| Question {
        name: name.clone(),
        rtype,
        payload: Some(1232),
        dnssec_ok,
        tcp,
    };
    let mut questions = Vec::new();
    for name in &names {
        let large = dnssec_ok || name.contains("large") || name.contains("wide");
        for &rtype in asked {
            questions.extend((!dnssec_ok).then(|| question(name, rtype, false)));
            questions.extend(large.then(|| question(name, rtype, true)));
        }
    }
    questions
}

const ZONES: usize = 12;

const LABELS: [&str; 5] = ["a", "b", "c", "d", "e"];

const ASKED: &[&str] = &[
    "A", "CNAME", "NS", "MX", "SRV", "DS", "TXT", "SVCB", "HTTPS",
];
