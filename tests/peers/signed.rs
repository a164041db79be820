//! Zones signed by other people's tools, served as they are: answers compared with NSD's and Knot's.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use hickory_proto::op::ResponseCode;

use super::authoritative::{
    ANY, Difference, GLUE, MINIMAL, Question, Row, SIGNED_TYPES, TYPES, ZONES, alike, names, text,
};
use super::harness::{COMMON, Knot, Node, Nsd, run, tool};

/// How a zone is signed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Chain {
    Nsec,
    /// With a salt and iterations, by ldns.
    Nsec3,
    /// As RFC 9276 has it: without either.
    Plain3,
    OptOut,
}

#[test]
fn answers_from_zones_signed_with_nsec_equal_those_of_nsd_and_knot() {
    compare(Chain::Nsec);
}

#[test]
fn answers_from_zones_signed_with_nsec3_equal_those_of_nsd_and_knot() {
    compare(Chain::Nsec3);
}

#[test]
fn answers_from_zones_signed_with_opt_out_equal_those_of_nsd_and_knot() {
    compare(Chain::OptOut);
}

fn compare(chain: Chain) {
    let signed: Vec<(&str, String)> = ZONES
        .iter()
        .map(|zone| (*zone, sign(zone, &text(zone), chain)))
        .collect();
    let zones: Vec<(&str, &str)> = signed
        .iter()
        .map(|(zone, text)| (*zone, text.as_str()))
        .collect();
    let mut node = Node::new(&format!(
        "{COMMON}\n[resolver]\nmode = \"off\"\n{}",
        ZONES
            .iter()
            .map(|zone| format!("[[zone]]\nname = \"{zone}.\"\nfile = \"{zone}.zone\"\n"))
            .collect::<String>()
    ));
    for (zone, text) in &zones {
        node.write(&format!("{zone}.zone"), text);
    }
    node.start();
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let questions = questions();
    let nsd = Nsd::start(&zones);
    let differences = [
        &[MINIMAL, ANY, RRSIG, CUT, ROOM, UNPROVED][..],
        match chain {
            Chain::Nsec => &[POINTERS, NSEC_AT_ALIAS, BEHIND_DNAME],
            Chain::Nsec3 | Chain::Plain3 => &[GLUE, WILDCARD, NSEC_AT_ALIAS],
            Chain::OptOut => &[WILDCARD, NSEC_AT_ALIAS, OPTED_OUT],
        },
    ]
    .concat();
    alike(at(node.dns), at(nsd.port), "NSD", &questions, &differences);
    // What Knot leaves out of an answer that is too large takes RRsets apart; it has its own ways with ANY and RRSIG.
    let large: Vec<_> = questions
        .into_iter()
        .filter(|question| question.payload == Some(1232))
        .filter(|question| !matches!(question.rtype, "ANY" | "RRSIG"))
        .collect();
    let knot = Knot::start(&zones);
    let differences = [
        &[UNPROVED, ACROSS][..],
        match chain {
            Chain::Nsec => &[WHOLE_PROOF],
            Chain::Nsec3 | Chain::Plain3 | Chain::OptOut => &[NSEC_AT_ALIAS],
        },
    ]
    .concat();
    alike(at(node.dns), at(knot.port), "Knot", &large, &differences);
}

const RRSIG: Difference = Difference {
    name: "RRSIG",
    why: "A question for RRSIG is answered like ANY, with the signatures of one RRset (RFC 8482 section 7); NSD gives \
          all there are.",
    adjust: |question, ours, theirs| {
        if question.rtype == "RRSIG"
            && !ours.answer.is_empty()
            && (theirs.truncated || ours.answer.is_subset(&theirs.answer))
        {
            theirs.truncated = ours.truncated;
            theirs.answer.clone_from(&ours.answer);
            theirs.authority.clone_from(&ours.authority);
        }
    },
};

const CUT: Difference = Difference {
    name: "cut",
    why: "Of an authority section that does not fit, what is left out is free: TC says that there is more, and the \
          client asks again over TCP.",
    adjust: |_, ours, theirs| {
        if ours.truncated && theirs.truncated {
            theirs.authority.clone_from(&ours.authority);
            theirs.additional.clone_from(&ours.additional);
        }
    },
};

const ROOM: Difference = Difference {
    name: "room",
    why: "What the NS of the zone took in NSD's answer, and do not take in ours, is room for addresses.",
    adjust: |question, ours, theirs| {
        if question.payload.is_some_and(|payload| payload < 1232)
            && !ours.answer.is_empty()
            && theirs.additional.is_subset(&ours.additional)
        {
            theirs.additional.clone_from(&ours.additional);
        }
    },
};

const POINTERS: Difference = Difference {
    name: "pointers",
    why: "NSD points every name to an equal one anywhere before, ours only the ends known to be there, which is \
          cheaper: sometimes a few bytes decide whether the last proof fits. TC then says so.",
    adjust: |question, ours, theirs| {
        let small = question.payload.is_some_and(|payload| payload < 1232);
        if small && ours.truncated && ours.authority.is_subset(&theirs.authority) {
            theirs.truncated = true;
            theirs.authority.clone_from(&ours.authority);
            theirs.additional.clone_from(&ours.additional);
        }
    },
};

pub(crate) const WILDCARD: Difference = Difference {
    name: "wildcard",
    why: "A wildcard asked for by its own name exists: its NSEC3 record proves what types it has. NSD proves its \
          closest encloser besides, as if it had stood in for another name.",
    adjust: |question, ours, theirs| {
        if question.name.contains("*.") && ours.authority.iter().any(|row| row.rtype == "NSEC3") {
            let fits = ours.authority.is_subset(&theirs.authority) || theirs.truncated;
            if fits {
                theirs.truncated = ours.truncated;
                theirs.authority.clone_from(&ours.authority);
            }
        }
    },
};

const UNPROVED: Difference = Difference {
    name: "unproved",
    why: "An address that a wildcard gives to a target would need a proof that the target itself does not exist. \
          Without it no validator takes it, so it is left out.",
    adjust: |question, ours, theirs| {
        if question.name == "x.mx.tricky.test." && ours.additional.is_empty() {
            theirs.additional.clear();
        }
    },
};

const BEHIND_DNAME: Difference = Difference {
    name: "behind a DNAME",
    why: "That the name a DNAME leads to does not exist needs proof as for any other; NSD proves only that there is \
          no wildcard for it.",
    adjust: |question, ours, theirs| {
        if ["x.old.", "x.h.old.", "x.away."]
            .iter()
            .any(|start| question.name.starts_with(start))
            && ours.code == ResponseCode::NXDomain
            && (ours.truncated || theirs.authority.is_subset(&ours.authority))
        {
            theirs.truncated = ours.truncated;
            theirs.authority.clone_from(&ours.authority);
        }
    },
};

const OPTED_OUT: Difference = Difference {
    name: "opted out",
    why: "A name above nothing but delegations that were opted out has no NSEC3 record: its closest encloser and the \
          gap it lies in prove what is missing (RFC 5155 section 7.2.4). NSD gives the encloser alone.",
    adjust: |question, ours, theirs| {
        if question.name == "deleg.tricky.test." && theirs.authority.is_subset(&ours.authority) {
            theirs.truncated = ours.truncated;
            theirs.authority.clone_from(&ours.authority);
        }
    },
};

const ACROSS: Difference = Difference {
    name: "across zones",
    why: "An alias is followed into other zones of the same server, as RFC 1034 section 4.3.2 has it; Knot stops at \
          the zone's end and leaves the rest to the resolver.",
    adjust: |_, ours, theirs| {
        let alias = theirs.answer.iter().any(|row| row.rtype == "CNAME");
        let child = |row: &Row| row.owner == "child.tricky.test.";
        if alias && theirs.authority.iter().all(child) && theirs.answer.is_subset(&ours.answer) {
            theirs.clone_from(ours);
        }
    },
};

const WHOLE_PROOF: Difference = Difference {
    name: "whole proof",
    why: "NSEC records of a wildcard need the same proof as its other types, and a wildcard that is an empty \
          non-terminal has to be shown to be one; Knot leaves these out.",
    adjust: |question, ours, theirs| {
        let concerned = question.rtype == "NSEC" || question.name.ends_with("x.star.tricky.test.");
        if concerned && theirs.answer == ours.answer && theirs.authority.is_subset(&ours.authority)
        {
            theirs.authority.clone_from(&ours.authority);
        }
    },
};

const NSEC_AT_ALIAS: Difference = Difference {
    name: "NSEC at an alias",
    why: "Only what stands beside an alias is not looked for behind it. Where there is no NSEC record, or none may be \
          (NSEC3 records are at hashes), the alias is followed as for any other type.",
    adjust: |question, ours, theirs| {
        if matches!(question.rtype, "NSEC" | "NSEC3")
            && ours.answer.iter().any(|row| row.rtype == "CNAME")
        {
            theirs.clone_from(ours);
        }
    },
};

/// Every name for every type with DO; some in small answers, over TCP and without DO.
fn questions() -> Vec<Question> {
    let mut questions = Vec::new();
    for name in names() {
        for (rtype, _) in TYPES.iter().chain(SIGNED_TYPES) {
            let question = Question {
                name: name.clone(),
                rtype,
                payload: Some(1232),
                dnssec_ok: true,
                tcp: false,
            };
            questions.push(question.clone());
            if matches!(*rtype, "A" | "TXT" | "DS" | "NS" | "RRSIG" | "MX") {
                for payload in [512, 700] {
                    questions.push(Question {
                        payload: Some(payload),
                        ..question.clone()
                    });
                }
                questions.push(Question {
                    tcp: true,
                    ..question.clone()
                });
                questions.push(Question {
                    dnssec_ok: false,
                    ..question
                });
            }
        }
    }
    assert!(questions.len() > 2_000, "{} questions", questions.len());
    questions
}

/// The text of a zone, signed.
pub(crate) fn sign(zone: &str, text: &str, chain: Chain) -> String {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let at = |name: &str| dir.path().join(name);
    fs::write(at("zone"), text).expect("the temporary directory is writable");
    let in_dir = |program: &str, args: &[&str]| {
        let mut command = Command::new(tool(program));
        command.current_dir(dir.path()).args(args);
        let output = run(&mut command);
        output.assert_success();
        output.stdout.trim().to_owned()
    };
    match chain {
        Chain::Nsec | Chain::Plain3 | Chain::OptOut => {
            for flags in [&["-f", "KSK"][..], &[]] {
                in_dir(
                    "dnssec-keygen",
                    &[&["-q", "-a", "ECDSAP256SHA256"], flags, &[zone]].concat(),
                );
            }
            let chain: &[&str] = match chain {
                Chain::OptOut => &["-3", "-", "-A"],
                Chain::Plain3 => &["-3", "-"],
                Chain::Nsec | Chain::Nsec3 => &[],
            };
            in_dir(
                "dnssec-signzone",
                &[
                    &["-q", "-S", "-P", "-O", "full", "-o", zone, "-f", "signed"],
                    chain,
                    &["zone"],
                ]
                .concat(),
            );
        }
        Chain::Nsec3 => {
            let key = in_dir("ldns-keygen", &["-a", "ECDSAP256SHA256", "-k", zone]);
            in_dir(
                "ldns-signzone",
                &[
                    "-n", "-t", "5", "-s", "C0FFEE", "-o", zone, "-f", "signed", "zone", &key,
                ],
            );
        }
    }
    read(&at("signed"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
