//! The same shapes, signed by BIND's tools and served as they are: every answer with its signatures and proofs.

use super::super::authoritative::{Difference, Row};
use super::super::harness::{Bind, Knot, Nsd};
use super::super::signed::{Chain, WILDCARD, sign};
use super::{ACROSS, MINIMAL, OWN, Question, SERVICES, beside, questions, zone};

#[test]
fn generated_zones_that_are_signed_are_answered_as_nsd_does() {
    compare("NSD", NSD, |zones, ask| ask(Nsd::start(zones).port));
}

#[test]
fn generated_zones_that_are_signed_are_answered_as_knot_does() {
    compare("Knot", KNOT, |zones, ask| ask(Knot::start(zones).port));
}

#[test]
fn generated_zones_that_are_signed_are_answered_as_bind_does() {
    compare("BIND", BIND, |zones, ask| ask(Bind::start(zones).port));
}

fn compare(
    peer: &str,
    differences: &[Difference],
    start: impl FnOnce(&[(&str, &str)], &dyn Fn(u16)),
) {
    let plain: Vec<(String, String)> = (0..CHAINS.len()).map(zone).collect();
    let texts: Vec<(&str, &str)> = plain.iter().map(|(a, t)| (&**a, &**t)).collect();
    let questions: Vec<Question> = questions(&texts, ASKED, true);
    assert!(questions.len() >= 2_000, "{} questions", questions.len());
    let signed: Vec<(String, String)> = (plain.iter().zip(CHAINS))
        .map(|((apex, text), &chain)| (apex.clone(), sign(apex, text, chain)))
        .collect();
    beside(peer, &signed, &questions, differences, start);
}

/// How each zone is signed.
const CHAINS: &[Chain] = &[
    Chain::Nsec,
    Chain::Plain3,
    Chain::OptOut,
    Chain::Nsec,
    Chain::Plain3,
    Chain::OptOut,
];

const ASKED: &[&str] = &["A", "MX", "NS", "DS", "CNAME", "HTTPS"];

const NSD: &[Difference] = &[MINIMAL, LITERAL, SERVICES, WILDCARD];
const KNOT: &[Difference] = &[ACROSS, PROOFS, LITERAL, OWN];
const BIND: &[Difference] = &[ACROSS, LITERAL, OWN];

const PROOFS: Difference = Difference {
    name: "proofs beside",
    why: "What a target has is of use beside an answer; that it has no more need not be proven there. Knot adds such proofs.",
    adjust: |_, _, theirs| {
        let proofs = |row: &Row| matches!(&*row.rtype, "NSEC" | "NSEC3") || row.covers_proof();
        theirs.additional.retain(|row| !proofs(row));
    },
};

const LITERAL: Difference = Difference {
    name: "literal",
    why: "An address that a wildcard gives to a target would need a proof, so none are added; not even to a target that is spelt as the \
          wildcard itself, which nobody means.",
    adjust: |_, ours, theirs| {
        if ours.additional.is_subset(&theirs.additional) {
            theirs.additional.retain(|row| !row.owner.starts_with("*."));
        }
    },
};
