//! Laws over generated zones: every answer is what a naive reading of RFC 1034 section 4.3.2 and RFC 4592 gives,
//! keeps its limit, and decodes.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// Names relative to the apex, leftmost label first.
type Name = Vec<&'static str>;

/// What stands at a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Address,
    Text,
    Cut,
}

fn label() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b"), Just("c"), Just("*")]
}

fn name(labels: std::ops::Range<usize>) -> impl Strategy<Value = Name> {
    proptest::collection::vec(label(), labels)
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![3 => Just(Kind::Address), 2 => Just(Kind::Text), 1 => Just(Kind::Cut)]
}

/// The naive reference: a map of names, looked at suffix by suffix.
fn expected(zone: &BTreeMap<Name, BTreeSet<Kind>>, question: &Name) -> Outcome {
    let exists = |name: &[&str]| zone.keys().any(|owner| owner.ends_with(name));
    for depth in (0..question.len()).rev() {
        if zone
            .get(&question[depth..])
            .is_some_and(|kinds| kinds.contains(&Kind::Cut))
        {
            return Outcome::Referral;
        }
    }
    let found = if exists(question) {
        question.clone()
    } else {
        let encloser = (1..=question.len())
            .find(|&depth| exists(&question[depth..]))
            .unwrap_or(question.len());
        let wildcard = [&["*"][..], &question[encloser..]].concat();
        if !exists(&wildcard) {
            return Outcome::Nxdomain;
        }
        wildcard
    };
    match zone.get(&found) {
        Some(kinds) if kinds.contains(&Kind::Address) => Outcome::Authoritative,
        _ => Outcome::Nodata,
    }
}

fn text(zone: &BTreeMap<Name, BTreeSet<Kind>>) -> String {
    let mut text = String::from("@ SOA ns host 1 2 3 4 5\n@ NS ns.example.\n");
    for (name, kinds) in zone {
        let owner = name.join(".");
        for kind in kinds {
            text.push_str(&match kind {
                Kind::Address => format!("{owner} A 192.0.2.1\n"),
                Kind::Text => format!("{owner} TXT \"{owner}\"\n"),
                Kind::Cut => format!("{owner} NS ns.{owner}\nns.{owner} A 192.0.2.2\n"),
            });
        }
    }
    text
}

fn zone() -> impl Strategy<Value = BTreeMap<Name, BTreeSet<Kind>>> {
    let kinds = proptest::collection::btree_set(kind(), 1..3);
    proptest::collection::btree_map(name(1..5), kinds, 0..12).prop_map(|mut zone| {
        // A delegation by wildcard is refused at loading.
        for (name, kinds) in &mut zone {
            if name[0] == "*" && kinds.remove(&Kind::Cut) {
                kinds.insert(Kind::Text);
            }
        }
        zone
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_question_gets_what_a_naive_lookup_gives(zone in zone(), questions in proptest::collection::vec(name(1..6), 1..20)) {
        let text = text(&zone);
        let mut naive = zone.clone();
        for (name, kinds) in &zone {
            if kinds.contains(&Kind::Cut) {
                let glue = [&["ns"][..], name].concat();
                naive.entry(glue).or_default().insert(Kind::Address);
            }
        }
        let zones = zones(&[("test.", &text)]);
        for question in questions {
            let asked = format!("{}.test. A", question.join("."));
            let (message, outcome, _) = ask(&zones, &asked, 0);
            prop_assert_eq!(outcome, expected(&naive, &question), "{} in\n{}", asked, text);
            let soa = message.authorities.iter().any(|record| record.record_type().to_string() == "SOA");
            prop_assert_eq!(soa, matches!(outcome, Outcome::Nxdomain | Outcome::Nodata));
            prop_assert_eq!(message.metadata.authoritative, outcome != Outcome::Referral);
            prop_assert_eq!(message.answers.is_empty(), outcome != Outcome::Authoritative);
        }
    }

    #[test]
    fn any_answer_keeps_its_limit_and_decodes(
        records in 1usize..60, len in 0usize..200, limit in 512usize..3000, qtype in "A|TXT|MX|NS|SOA|ANY|AAAA",
    ) {
        let mut text = String::from("@ SOA ns host 1 2 3 4 5\n@ NS ns.example.\n");
        for number in 0..records {
            let filler = "x".repeat(len);
            text.push_str(&format!(
                "w A 192.0.2.{number}\nw AAAA 2001:db8::{number}\nw TXT \"{number} {filler}\"\nw MX {number} h{number}.w\n\
                 h{number}.w A 192.0.2.{number}\nh{number}.w AAAA 2001:db8::{number}\n"
            ));
        }
        let zones = zones(&[("test.", &text)]);
        let packet = packet(&format!("w.test. {qtype} +edns=4096"));
        let query = Query::parse(&packet).expect("a good query");
        let mut out = vec![0; 4096];
        let view = View { zones: &zones, cache: None, policy: None, chain: CHAIN_MAX };
        let Action::Respond { len, .. } = answer(&query, view, NOW, 3, limit, &mut out) else {
            return Err(TestCaseError::fail("no cache, so nothing to recurse for"));
        };
        prop_assert!(len <= limit);
        let message = Message::from_vec(&out[..len]);
        prop_assert!(message.is_ok(), "{message:?}");
        let message = message.expect("checked");
        let whole = match qtype.as_str() {
            "A" | "AAAA" | "TXT" | "MX" | "ANY" => records,
            _ => 0,
        };
        prop_assert!(message.answers.len() == whole || message.answers.is_empty() && message.metadata.truncation);
        prop_assert!(message.edns.is_some());
    }
}
