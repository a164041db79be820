//! Validation of what upstreams say: resolvers over the same Internet in memory.

use super::*;

/// What a client can tell an answer by.
fn gist(outcome: &Outcome) -> Result<(ResponseCode, Vec<String>, bool), Bogus> {
    match &outcome.answer {
        Ok(_) => Ok((outcome.rcode(), outcome.data(), outcome.authentic())),
        Err(Trouble::Bogus { why, .. }) => Err(*why),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn answers_through_an_upstream_are_validated_like_those_from_the_root() {
    let mut secure = 0;
    for signing in denials() {
        let scene = || Scene {
            signing: Some(signing.clone()),
            ..Scene::default()
        };
        let direct = scene().made();
        let relayed = scene().made().forwarding(false);
        for (name, qtype) in [
            ("www.example.test.", A),
            ("www.example.test.", 16),
            ("x.wild.example.test.", A),
            ("x.wild.example.test.", 16),
            ("alias.example.test.", A),
            ("empty.example.test.", A),
            ("nobody.example.test.", A),
            ("www.old.example.test.", A),
            ("www.sub.example.test.", A),
            ("nobody.sub.example.test.", A),
            ("sub.example.test.", internet::DS),
            ("example.test.", internet::DS),
            ("example.test.", internet::DNSKEY),
            ("nobody.test.", A),
            ("nobody.", A),
        ] {
            let (one, other) = (direct.resolve(name, qtype), relayed.resolve(name, qtype));
            assert_eq!(gist(&one), gist(&other), "{name} {qtype}");
            assert!(other.packets <= 14, "{name}: {}", other.packets);
            secure += usize::from(other.authentic());
            assert_eq!(relayed.resolve(name, qtype).packets, 0, "{name}: kept");
        }
    }
    assert!(secure >= 30, "{secure}");
}

#[test]
fn what_is_bogus_stays_so_through_an_upstream_unless_the_client_looks_for_itself() {
    let change = |server: Server| {
        server.hook(|_, reply| {
            for record in reply.iter_mut().flat_map(|reply| &mut reply.answer) {
                if record.rtype == A {
                    record.rdata = vec![198, 51, 100, 66];
                }
            }
        })
    };
    let (servers, dnssec) = Scene::default().parts(change);
    let made = Made::with(servers, |config| config.dnssec = Some(dnssec)).forwarding(false);
    check_bogus(&made.resolve("www.example.test.", A), Bogus::Signature);
    let unchecked = made.ask("www.example.test.", A, true);
    assert_eq!(unchecked.data(), ["A 198.51.100.66"]);
    assert!(!unchecked.authentic());
}

#[test]
fn upstream_that_leaves_out_signatures_is_named_as_the_reason() {
    let made = Scene::default().made().forwarding(true);
    for name in [
        "www.example.test.",
        "nobody.example.test.",
        "www.sub.example.test.",
        "x.wild.example.test.",
    ] {
        check_bogus(&made.resolve(name, A), Bogus::Stripped);
    }
    let unchecked = made.ask("www.example.test.", A, true);
    assert_eq!(unchecked.data(), ["A 198.51.100.1"]);
}

/// What an upstream does to what it passes on.
type Spoil = fn(&Asked, &mut Reply);

/// A resolver with these upstreams, each over the same Internet, and what each does to what it passes on; the first is asked first.
fn among(spoils: &[Spoil], other_servers: u32) -> Made {
    let mut dnssec = None;
    let upstreams = (spoils.iter())
        .map(|&spoil| {
            let (servers, validation) = Scene::default().parts(|server| server);
            dnssec = Some(validation);
            let spoilt = servers.into_iter().map(|(at, server)| {
                let server = server.hook(move |asked, reply| {
                    if let Some(reply) = reply {
                        spoil(asked, reply);
                    }
                });
                (at, server)
            });
            (".", Made::new(spoilt.collect()))
        })
        .collect();
    Made::behind(Vec::new(), upstreams, &[], |config| {
        config.from_root = false;
        config.forwards = true;
        config.dnssec = dnssec.map(|dnssec| Config {
            other_servers,
            ..dnssec
        });
    })
}

const HONEST: Spoil = |_, _| {};

const FORGED: Spoil = |asked, reply| {
    for record in &mut reply.answer {
        if asked.qtype == A && record.rtype == A {
            record.rdata = vec![198, 51, 100, 66];
        }
    }
};

const WITHOUT_SIGNATURES: Spoil = |_, reply| {
    for section in [&mut reply.answer, &mut reply.authority] {
        section.retain(|record| record.rtype != internet::RRSIG);
    }
};

const WITHOUT_PROOFS: Spoil = |_, reply| {
    reply
        .authority
        .retain(|record| record.rtype != internet::NSEC);
};

const WITHOUT_KEYS: Spoil = |asked, reply| {
    if asked.qtype == internet::DNSKEY {
        reply
            .answer
            .retain(|record| record.rtype == internet::RRSIG);
    }
};

#[test]
fn bogus_word_of_one_upstream_is_asked_of_another_first() {
    for (n, spoil) in [FORGED, WITHOUT_SIGNATURES, WITHOUT_PROOFS, WITHOUT_KEYS]
        .into_iter()
        .enumerate()
    {
        let made = among(&[spoil, HONEST], 3);
        for name in ["www.example.test.", "nobody.example.test."] {
            let outcome = made.resolve(name, A);
            assert!(outcome.authentic(), "{n} {name}: {outcome:?}");
            assert!(outcome.packets <= 14, "{n} {name}: {}", outcome.packets);
        }
        assert_eq!(
            made.resolve("www.example.test.", A).data(),
            ["A 198.51.100.1"]
        );
        assert!(
            !made.asked("0.0.0.0").is_empty(),
            "{n}: the bad one is asked first"
        );
    }
}

#[test]
fn upstream_that_was_caught_comes_last_for_the_rest_of_the_query() {
    let made = among(&[WITHOUT_SIGNATURES, HONEST], 3);
    assert!(made.resolve("www.example.test.", A).authentic());
    // The address and the first DS it came to: by then it was known.
    let asked = made.asked("0.0.0.0");
    assert!(asked.len() <= 2, "{asked:?}");
}

#[test]
fn bogus_word_of_all_upstreams_is_bogus_and_each_is_asked_once() {
    let made = among(&[FORGED, FORGED, FORGED], 3);
    check_bogus(&made.resolve("www.example.test.", A), Bogus::Signature);
    for at in ["0.0.0.0", "0.0.1.0", "0.0.2.0"] {
        let asked = made.asked(at);
        let times = asked.iter().filter(|q| *q == "www.example.test. 1").count();
        assert_eq!(times, 1, "{at}: {asked:?}");
    }
}

#[test]
fn other_upstreams_are_asked_no_more_often_than_allowed() {
    let made = among(&[FORGED, HONEST], 0);
    check_bogus(&made.resolve("www.example.test.", A), Bogus::Signature);
    assert_eq!(made.asked("0.0.1.0"), [""; 0]);
    assert_eq!(made.metrics.resolver.limits.other_servers.get(), 1);
}

/// A resolver of a private Internet with `zone`, which is not signed.
fn private(apex: &str, lines: &[&str]) -> Made {
    let delegation = format!("{apex} 7200 NS ns.{apex}");
    let glue = format!("ns.{apex} 7200 A 192.0.2.9");
    Made::new(vec![
        ("192.0.2.1", Server::new(vec![root(&[&delegation, &glue])])),
        (
            "192.0.2.9",
            Server::new(vec![zone(apex, &[&["ns 300 A 192.0.2.9"], lines].concat())]),
        ),
    ])
}

/// From the root, with upstreams for `zone`; all is validated.
fn beside(scene: Scene, upstreams: Vec<(&str, Made)>, spared: &[&str]) -> Made {
    let (servers, mut dnssec) = scene.parts(|server| server);
    let spared: Vec<_> = spared.iter().map(|name| String::from(*name)).collect();
    dnssec.anchors = dnssec.anchors.without(&spared);
    Made::behind(servers, upstreams, &[], |config| {
        config.forwards = true;
        config.dnssec = Some(dnssec);
    })
}

#[test]
fn private_zone_that_its_parent_does_not_vouch_for_is_insecure() {
    // The parent has no such name; it has it, unsigned.
    for apex in ["corp.test.", "sub.example.test."] {
        let www = "www 300 A 10.0.0.1";
        let made = beside(Scene::default(), vec![(apex, private(apex, &[www]))], &[]);
        let outcome = made.resolve(&format!("www.{apex}"), A);
        assert_eq!(outcome.data(), ["A 10.0.0.1"], "{apex}");
        assert!(!outcome.authentic());
        let missing = made.resolve(&format!("no.{apex}"), A);
        assert_eq!(missing.rcode(), ResponseCode::NXDomain, "{apex}");
        // What the parent has proven of the name does not hide the zone.
        assert_eq!(made.resolve(apex, 2).data().len(), 1, "{apex}");
    }
}

#[test]
fn private_zone_whose_namesake_is_signed_needs_a_negative_anchor() {
    let zone = || private("example.test.", &["www 300 A 10.0.0.1"]);
    let made = beside(Scene::default(), vec![("example.test.", zone())], &[]);
    check_bogus(&made.resolve("www.example.test.", A), Bogus::Unsigned);
    let upstreams = vec![("example.test.", zone())];
    let made = beside(Scene::default(), upstreams, &["example.test."]);
    assert_eq!(made.resolve("www.example.test.", A).data(), ["A 10.0.0.1"]);
}

#[test]
fn aliases_end_where_another_partition_begins() {
    let scene = Scene {
        lines: &[
            "toward 300 CNAME www.corp.example.test.",
            "www.corp 300 A 203.0.113.66",
            "www 300 A 198.51.100.1",
            "down 300 DNAME corp.example.test.",
        ],
        ..Scene::default()
    };
    let lines = [
        "www 300 A 10.0.0.1",
        "back 300 CNAME www.example.test.",
        "away 300 DNAME example.test.",
    ];
    let upstreams = vec![("corp.example.test.", private("corp.example.test.", &lines))];
    let made = beside(scene, upstreams, &[]);
    for (name, onward, first) in [
        ("toward.example.test.", "www.corp.example.test.", "CNAME"),
        ("www.down.example.test.", "www.corp.example.test.", "DNAME"),
        ("back.corp.example.test.", "www.example.test.", "CNAME"),
        ("www.away.corp.example.test.", "www.example.test.", "DNAME"),
    ] {
        let outcome = made.resolve(name, A);
        assert_eq!(outcome.onward.as_deref(), Some(onward), "{name}");
        let data = outcome.data();
        assert!(data[0].starts_with(first), "{name}: {data:?}");
        assert!(data.iter().all(|line| !line.starts_with("A ")), "{data:?}");
    }
    // The public server has told of a name it does not speak for.
    let private = made.resolve("www.corp.example.test.", A);
    assert_eq!(private.data(), ["A 10.0.0.1"]);
    assert_eq!(private.onward, None);
    let public = made.resolve("www.example.test.", A);
    assert_eq!(
        (public.data(), public.authentic()),
        (vec![String::from("A 198.51.100.1")], true)
    );
}
