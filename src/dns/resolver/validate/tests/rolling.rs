//! Trust anchors that roll, over the Internet in memory: its root shows other keys while its clock runs.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::super::super::budget::Budget;
use super::super::super::recurse::dname::Dname;
use super::super::super::recurse::tests::block_on;
use super::super::super::rolling::Rolling;
use super::super::roll::{self, Terms};
use super::*;

const DAY: u64 = 86_400;

/// The keys that the root shows, and those that sign them.
type Shown = Arc<Mutex<(Vec<Signing>, Vec<Signing>)>>;

fn key(seed: u8) -> Signing {
    let signing = Signing::at(seed, UNIX);
    Signing {
        expiration: signing.expiration + 200 * DAY as u32,
        ..signing
    }
}

fn revoked(seed: u8) -> Signing {
    Signing {
        revoked: true,
        ..key(seed)
    }
}

/// A resolver, and an Internet whose root shows these keys.
fn made(shown: &Shown) -> Made {
    let (servers, dnssec) = Scene::default().parts(|server| server);
    let shown = Arc::clone(shown);
    let rolls = move |asked: &Asked, reply: &mut Option<Reply>| {
        let Some(reply) = reply.as_mut().filter(|_| asked.qtype == internet::DNSKEY) else {
            return;
        };
        let (keys, signers) = &*shown.lock().unwrap();
        let keys = keys.iter().map(|key| Rec {
            owner: vec![0],
            rtype: internet::DNSKEY,
            ttl: 3_600,
            rdata: key.dnskey(),
        });
        reply.answer = keys.collect();
        let signatures: Vec<Rec> = (signers.iter())
            .map(|signer| signer.sign(&[0], &reply.answer))
            .collect();
        reply.answer.extend(signatures);
    };
    let mut rolls = Some(rolls);
    let servers = servers.into_iter().map(|(at, server)| {
        let rolls = (at == "192.0.2.1").then(|| rolls.take()).flatten();
        let server = match rolls {
            Some(rolls) => server.hook(rolls),
            None => server,
        };
        (at, server)
    });
    Made::with(servers.collect(), |config| config.dnssec = Some(dnssec))
}

fn open(made: &Made, file: &Path) -> Rolling {
    let config = roll::Config {
        terms: Terms {
            add: 30 * DAY,
            remove: 30 * DAY,
            keys: 16,
        },
        file: file.to_owned(),
    };
    let mut anchors = None;
    made.recursor.believe(|configured| {
        anchors = Some(configured.clone());
        configured.clone()
    });
    let (anchors, metrics) = (anchors.unwrap(), &made.metrics.resolver.anchors);
    let rolling = Rolling::open(&config, &anchors, metrics, made.recursor.now());
    made.recursor
        .believe(|configured| rolling.anchors(configured));
    rolling
}

/// Looks at the root; the states of its keys, in order of their names.
fn visit(made: &Made, rolling: &Rolling) -> Vec<&'static str> {
    let until = made.recursor.now().plus(Duration::from_secs(5));
    let budget = Budget::new(50, until);
    block_on(rolling.visit(&made.recursor, &Dname::root(), &budget));
    states(rolling)
}

fn states(rolling: &Rolling) -> Vec<&'static str> {
    let keys = rolling.status().keys.into_iter();
    let mut states: Vec<_> = keys.map(|key| key.state.name()).collect();
    states.sort_unstable();
    states
}

/// Whether the root's keys validate.
fn validates(made: &Made) -> bool {
    made.recursor.flush(&|_, _| true);
    let outcome = made.resolve(".", internet::DNSKEY);
    outcome.answer.is_ok() && outcome.authentic()
}

#[test]
fn root_that_rolls_is_followed_and_its_old_key_is_worth_nothing_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trust-anchors");
    let shown = Shown::new(Mutex::new((vec![key(1)], vec![key(1)])));
    let show = |keys: Vec<Signing>, signers: Vec<Signing>| *shown.lock().unwrap() = (keys, signers);
    let made = made(&shown);
    let rolling = open(&made, &file);
    assert_eq!(visit(&made, &rolling), ["valid"]);
    show(vec![key(1), key(2)], vec![key(1)]);
    assert_eq!(visit(&made, &rolling), ["pending", "valid"]);
    // Not yet: nobody but its owner says so.
    show(vec![key(1), key(2)], vec![key(2)]);
    assert!(!validates(&made));
    show(vec![key(1), key(2)], vec![key(1)]);
    made.pass(30 * DAY);
    assert_eq!(visit(&made, &rolling), ["valid", "valid"]);
    show(vec![revoked(1), key(2)], vec![revoked(1), key(2)]);
    assert!(validates(&made));
    assert_eq!(visit(&made, &rolling), ["revoked", "valid"]);
    let gauges = &made.metrics.resolver.anchors.keys;
    assert_eq!(gauges[1].1.get(), 1, "{gauges:?}");
    // Whoever has the old key now has nothing, not even after a restart.
    show(vec![key(1)], vec![key(1)]);
    assert!(!validates(&made));
    let again = open(&made, &file);
    assert_eq!(states(&again), ["revoked", "valid"]);
    assert!(!validates(&made));
    assert_eq!(visit(&made, &again), ["revoked", "valid"]);
    assert!(again.status().problem.is_some());
    show(vec![key(2)], vec![key(2)]);
    assert!(validates(&made));
    visit(&made, &again);
    assert_eq!(again.status().problem, None);
}

#[test]
fn key_that_nobody_believed_signs_for_and_a_revocation_by_others_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let shown = Shown::new(Mutex::new((vec![key(1)], vec![key(1)])));
    let made = made(&shown);
    let rolling = open(&made, &folder.path().join("trust-anchors"));
    visit(&made, &rolling);
    for (keys, signers) in [
        (vec![key(3)], vec![key(3)]),
        (vec![key(1), key(3)], vec![key(3)]),
        (vec![revoked(1), key(3)], vec![key(3)]),
        (vec![key(1)], vec![]),
    ] {
        *shown.lock().unwrap() = (keys, signers);
        assert_eq!(visit(&made, &rolling), ["valid"]);
    }
    let anchors = &made.metrics.resolver.anchors;
    assert_eq!((anchors.seen.get(), anchors.failed.get()), (1, 4));
}

#[test]
fn state_that_cannot_be_read_is_told_and_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trust-anchors");
    std::fs::write(&file, "zone .\nkey of gold\n").unwrap();
    let shown = Shown::new(Mutex::new((vec![key(1)], vec![key(1)])));
    let made = made(&shown);
    let rolling = open(&made, &file);
    let problem = rolling.status().problem.expect("a problem");
    assert!(problem.contains("trust-anchors:2"), "{problem}");
    assert_eq!(visit(&made, &rolling), ["valid"]);
    assert_eq!(rolling.status().problem, None);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("\nkey valid "), "{text}");
}
