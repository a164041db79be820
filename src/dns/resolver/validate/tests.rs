//! Validation over the Internet in memory: signed zones, broken ones, attacks.

use hickory_proto::op::ResponseCode;

use super::super::recurse::tests::internet::{self, Asked, Rec, Reply, Server, Signing, Zone};
use super::super::recurse::tests::{Made, Outcome, root, zone};
use super::super::recurse::trouble::{Bogus, Trouble};
use super::super::testing::START;
use super::*;

mod relayed;

mod rolling;

const A: u16 = internet::A;
const UNIX: u64 = START.unix_ms / 1_000;

/// How `example.test.` is signed, and what is done to it.
struct Scene {
    signing: Option<Signing>,
    /// Lines of `example.test.` beside its server.
    lines: &'static [&'static str],
    /// Whether `test.` has the DS.
    delegated: bool,
    root: Signing,
    test: Signing,
    /// Whether `example.test.` has a second server, at 192.0.2.4, that nothing is done to.
    twin: bool,
}

impl Default for Scene {
    fn default() -> Self {
        Self {
            signing: Some(Signing::at(3, UNIX)),
            lines: &[
                "www 300 A 198.51.100.1",
                "*.wild 300 A 198.51.100.2",
                "alias 300 CNAME www",
                "a.empty 300 A 198.51.100.3",
                "old 300 DNAME new.example.test.",
                "www.new 300 A 198.51.100.4",
                "sub 300 NS ns.sub",
                "ns.sub 300 A 192.0.2.3",
            ],
            delegated: true,
            root: Signing::at(1, UNIX),
            test: Signing::at(2, UNIX),
            twin: false,
        }
    }
}

impl Scene {
    fn made(self) -> Made {
        self.made_with(|server| server, |_| {})
    }

    /// `change` may put a hook into the server of `example.test.`.
    fn made_with(
        self,
        change: impl FnOnce(Server) -> Server,
        settings: impl FnOnce(&mut Config),
    ) -> Made {
        let (servers, mut dnssec) = self.parts(change);
        settings(&mut dnssec);
        Made::with(servers, |config| config.dnssec = Some(dnssec))
    }

    /// The servers, and how they are validated.
    fn parts(self, change: impl FnOnce(Server) -> Server) -> (Vec<(&'static str, Server)>, Config) {
        let mut example = zone(
            "example.test.",
            &[&["ns 3600 A 192.0.2.3"][..], self.lines].concat(),
        );
        if let Some(signing) = self.signing {
            example = example.sign(signing);
        }
        let sub = zone(
            "sub.example.test.",
            &["ns 300 A 192.0.2.3", "www 300 A 198.51.100.9"],
        );
        let twin = [
            "example 3600 NS ns2.example",
            "ns2.example 3600 A 192.0.2.4",
        ];
        let lines = [
            "ns 3600 A 192.0.2.2",
            "example 3600 NS ns.example",
            "ns.example 3600 A 192.0.2.3",
        ];
        let twin: &[&str] = if self.twin { &twin } else { &[] };
        let mut test = zone("test.", &[&lines[..], twin].concat());
        if self.delegated {
            test.delegate_securely(&example);
        }
        let test = test.sign(self.test);
        let mut top = root(&["test. 7200 NS ns.test.", "ns.test. 7200 A 192.0.2.2"]);
        top.delegate_securely(&test);
        let anchor = self.root.ds(&[0]);
        let top = top.sign(self.root);
        let servers = vec![
            ("192.0.2.1", Server::new(vec![top])),
            ("192.0.2.2", Server::new(vec![test])),
            ("192.0.2.4", Server::new(vec![example.clone(), sub.clone()])),
            ("192.0.2.3", change(Server::new(vec![example, sub]))),
        ];
        let digest: String = anchor[4..].iter().map(|b| format!("{b:02X}")).collect();
        let tag = u16::from_be_bytes([anchor[0], anchor[1]]);
        let anchors = Anchors::parse(&format!(". DS {tag} 15 2 {digest}\n")).unwrap();
        (servers, config(anchors))
    }
}

fn config(anchors: Anchors) -> Config {
    Config {
        anchors,
        signature_checks: 48,
        signature_failures: 16,
        keys_per_tag: 2,
        signatures_per_rrset: 8,
        ds_records: 8,
        nsec3_iterations: 50,
        nsec3_hashes: 150,
        other_servers: 3,
        rolling: None,
        ranges: 1_000,
    }
}

/// NSEC, NSEC3 and NSEC3 with opt-out.
fn denials() -> [Signing; 3] {
    let plain = || Signing::at(3, UNIX);
    [plain(), plain().nsec3(5, false), plain().nsec3(0, true)]
}

#[track_caller]
fn check_bogus(outcome: &Outcome, expected: Bogus) {
    match outcome.trouble() {
        Trouble::Bogus { why, .. } => assert_eq!(*why, expected),
        other => panic!("{other:?}, expected {expected:?}"),
    }
}

#[test]
fn signed_data_is_authentic_and_the_chain_is_fetched_once() {
    let made = Scene::default().made();
    let outcome = made.resolve("www.example.test.", A);
    assert!(outcome.authentic());
    assert_eq!(outcome.data(), ["A 198.51.100.1"]);
    assert!(
        outcome.packets <= 7,
        "{}: three of them for keys",
        outcome.packets
    );
    let other = made.resolve("www.new.example.test.", A);
    assert!(other.authentic());
    assert_eq!(other.packets, 2);
}

#[test]
fn aliases_of_every_kind_are_authentic() {
    let made = Scene::default().made();
    for name in [
        "alias.example.test.",
        "www.old.example.test.",
        "x.wild.example.test.",
    ] {
        assert!(made.resolve(name, A).authentic(), "{name}");
    }
}

#[test]
fn absence_is_authentic_by_nsec_and_nsec3() {
    for (n, signing) in denials().into_iter().enumerate() {
        let opt_out = n == 2;
        let made = Scene {
            signing: Some(signing),
            ..Scene::default()
        }
        .made();
        let missing = made.resolve("no.such.example.test.", A);
        assert_eq!(missing.rcode(), ResponseCode::NXDomain, "{n}");
        assert_eq!(
            missing.authentic(),
            !opt_out,
            "{n}: opt-out says nothing for sure"
        );
        for (name, qtype) in [
            ("www.example.test.", 16),
            ("empty.example.test.", A),
            ("x.wild.example.test.", 16),
            ("example.test.", A),
        ] {
            let outcome = made.resolve(name, qtype);
            assert_eq!(outcome.rcode(), ResponseCode::NoError, "{n} {name}");
            assert_eq!(outcome.data(), [""; 0], "{n} {name}");
            let sure = !opt_out || !name.contains("wild");
            assert_eq!(outcome.authentic(), sure, "{n} {name}");
        }
        let wild = made.resolve("y.wild.example.test.", A);
        assert_eq!((wild.data().len(), wild.authentic()), (1, !opt_out), "{n}");
    }
}

#[test]
fn names_never_asked_for_are_denied_by_what_is_proven() {
    let made = Scene::default().made();
    assert_eq!(
        made.resolve("zzz1.example.test.", A).rcode(),
        ResponseCode::NXDomain
    );
    for name in ["zzz2.example.test.", "a.b.zzz3.example.test."] {
        let outcome = made.resolve(name, A);
        assert_eq!(
            (outcome.packets, outcome.rcode()),
            (0, ResponseCode::NXDomain),
            "{name}"
        );
        assert!(outcome.authentic());
        let proof = outcome.answer.unwrap().authorities;
        let of = |rtype| {
            proof
                .iter()
                .filter(|r| u16::from(r.record_type()) == rtype)
                .count()
        };
        assert!(
            of(internet::NSEC) >= 1 && of(internet::SOA) == 1,
            "{proof:?}"
        );
    }
    assert_eq!(made.metrics.resolver.denied.get(), 2);
    // What is there is still found, also beneath the unsigned delegation.
    for name in [
        "www.example.test.",
        "q.wild.example.test.",
        "www.sub.example.test.",
    ] {
        assert_eq!(made.resolve(name, A).data().len(), 1, "{name}");
    }
}

#[test]
fn wildcard_that_is_known_stands_for_names_proven_not_to_be_there() {
    let made = Scene::default().made();
    assert!(made.resolve("x.wild.example.test.", A).authentic());
    for name in ["y.wild.example.test.", "a.b.wild.example.test."] {
        let outcome = made.resolve(name, A);
        assert_eq!(outcome.data(), ["A 198.51.100.2"], "{name}");
        assert_eq!((outcome.packets, outcome.authentic()), (0, true), "{name}");
        let message = outcome.answer.unwrap();
        assert_eq!(message.answers[0].name.to_ascii(), name);
        // Whoever validates needs the signature and the proof, too.
        assert_eq!(u16::from(message.answers[1].record_type()), internet::RRSIG);
        let mut proof = message.authorities.iter();
        assert!(proof.any(|r| u16::from(r.record_type()) == internet::NSEC));
    }
    assert_eq!(made.metrics.resolver.denied.get(), 2);
    // Another type has to be asked for; names elsewhere, too; and it ends with its TTL.
    assert!(made.resolve("y.wild.example.test.", 16).packets > 0);
    assert_eq!(
        made.resolve("www.example.test.", A).data(),
        ["A 198.51.100.1"]
    );
    made.pass(301);
    assert!(made.resolve("z.wild.example.test.", A).packets > 0);
}

/// One of two servers serves what does not validate.
#[test]
fn bogus_answer_is_asked_of_another_server_first() {
    type Spoil = fn(&Asked, &mut Reply);
    let data: Spoil = |asked, reply| {
        for record in &mut reply.answer {
            if asked.qtype == A && record.rtype == A {
                record.rdata = vec![198, 51, 100, 66];
            }
        }
    };
    let keys: Spoil = |asked, reply| {
        if asked.qtype == internet::DNSKEY {
            reply
                .answer
                .retain(|record| record.rtype == internet::RRSIG);
        }
    };
    let signatures: Spoil = |_, reply| {
        for section in [&mut reply.answer, &mut reply.authority] {
            section.retain(|record| record.rtype != internet::RRSIG);
        }
    };
    let proofs: Spoil = |_, reply| {
        reply
            .authority
            .retain(|record| record.rtype != internet::NSEC);
    };
    let mut spoilt = 0;
    for (n, spoil) in [data, keys, signatures, proofs].into_iter().enumerate() {
        let scene = Scene {
            twin: true,
            ..Scene::default()
        };
        let made = scene.made_with(
            |server| {
                server.hook(move |asked, reply| {
                    if let Some(reply) = reply {
                        spoil(asked, reply);
                    }
                })
            },
            |_| {},
        );
        for name in ["www.example.test.", "nobody.example.test."] {
            let outcome = made.resolve(name, A);
            assert!(outcome.authentic(), "{n} {name}");
            assert!(outcome.packets <= 12, "{n} {name}: {}", outcome.packets);
        }
        spoilt += made.asked("192.0.2.3").len();
    }
    assert!(spoilt >= 4, "the bad one is asked, too: {spoilt}");
}

#[test]
fn bogus_answers_are_asked_for_again_no_more_often_than_allowed() {
    let spoil = |server: Server| {
        server.hook(|asked, reply| {
            for record in reply.iter_mut().flat_map(|reply| &mut reply.answer) {
                if asked.qtype == A && record.rtype == A {
                    record.rdata = vec![198, 51, 100, 66];
                }
            }
        })
    };
    let scene = || Scene {
        twin: true,
        ..Scene::default()
    };
    // The only one that has not been asked is spoilt, or none is left to be asked.
    let alone = Scene::default().made_with(spoil, |_| {});
    let outcome = alone.resolve("www.example.test.", A);
    check_bogus(&outcome, Bogus::Signature);
    assert!(outcome.packets <= 8, "{}", outcome.packets);
    let never = scene().made_with(spoil, |config| config.other_servers = 0);
    let limit = &never.metrics.resolver.limits.other_servers;
    let mut failed = 0;
    for name in [
        "www.example.test.",
        "x.wild.example.test.",
        "a.empty.example.test.",
    ] {
        failed += u64::from(never.resolve(name, A).answer.is_err());
    }
    assert_eq!(limit.get(), failed);
}

#[test]
fn delegation_without_ds_is_insecure_and_no_more() {
    for (n, signing) in denials().into_iter().enumerate() {
        let made = Scene {
            signing: Some(signing),
            ..Scene::default()
        }
        .made();
        let outcome = made.resolve("www.sub.example.test.", A);
        assert_eq!(
            (outcome.data().len(), outcome.authentic()),
            (1, false),
            "{n}"
        );
        let missing = made.resolve("no.sub.example.test.", A);
        assert_eq!(missing.rcode(), ResponseCode::NXDomain, "{n}");
        assert!(!missing.authentic());
    }
    // Also when the zone is signed and its parent does not say so.
    let made = Scene {
        delegated: false,
        ..Scene::default()
    }
    .made();
    let outcome = made.resolve("www.example.test.", A);
    assert_eq!((outcome.data().len(), outcome.authentic()), (1, false));
}

#[test]
fn missing_ds_is_denied_with_the_soa_of_the_parent() {
    let made = Scene {
        delegated: false,
        ..Scene::default()
    }
    .made();
    let _ = made.resolve("www.example.test.", A);
    let outcome = made.resolve("example.test.", internet::DS);
    assert!(outcome.authentic());
    let message = outcome.answer.unwrap();
    let soa = |owner: &str| {
        let found = message.authorities.iter();
        found
            .filter(|r| u16::from(r.record_type()) == internet::SOA && r.name.to_ascii() == owner)
            .count()
    };
    assert_eq!(soa("test."), 1);
}

#[test]
fn zone_that_should_be_signed_and_is_not_is_bogus() {
    let strip = |_: &Asked, reply: &mut Option<Reply>| {
        let reply = reply.as_mut().unwrap();
        for section in [&mut reply.answer, &mut reply.authority] {
            section.retain(|r| !matches!(r.rtype, internet::RRSIG | internet::NSEC));
        }
    };
    let made = Scene::default().made_with(|server| server.hook(strip), |_| {});
    check_bogus(&made.resolve("www.example.test.", A), Bogus::Unsigned);
    check_bogus(&made.resolve("no.example.test.", A), Bogus::Denial);
    let unchecked = made.ask("www.example.test.", A, true);
    assert_eq!(
        (unchecked.data().len(), unchecked.authentic()),
        (1, false),
        "CD"
    );
}

#[test]
fn signatures_out_of_time_are_bogus() {
    for (shift, why) in [(-10 * 86_400, Bogus::Expired), (10 * 86_400, Bogus::NotYet)] {
        let unix = UNIX.checked_add_signed(shift).unwrap();
        let made = Scene {
            signing: Some(Signing::at(3, unix)),
            ..Scene::default()
        }
        .made();
        check_bogus(&made.resolve("www.example.test.", A), why);
    }
}

#[test]
fn changed_data_and_wrong_keys_are_bogus() {
    let change = |asked: &Asked, reply: &mut Option<Reply>| {
        if asked.name.starts_with(b"\x03www") && asked.qtype == A {
            reply.as_mut().unwrap().answer[0].rdata = vec![203, 0, 113, 66];
        }
    };
    let made = Scene::default().made_with(|server| server.hook(change), |_| {});
    check_bogus(&made.resolve("www.example.test.", A), Bogus::Signature);

    // Signed with a key the DS does not speak of.
    let other = Signing::at(77, UNIX).dnskey();
    let swap = move |asked: &Asked, reply: &mut Option<Reply>| {
        if asked.qtype == internet::DNSKEY {
            reply.as_mut().unwrap().answer[0].rdata.clone_from(&other);
        }
    };
    let made = Scene::default().made_with(|server| server.hook(swap), |_| {});
    check_bogus(&made.resolve("www.example.test.", A), Bogus::Dnskey);
}

#[test]
fn denial_that_proves_something_else_is_bogus() {
    // The proof for another name, and NXDOMAIN for a name that the proof shows to exist.
    let nodata: Vec<Rec> = {
        let zone = zone(
            "example.test.",
            &[
                "ns 3600 A 192.0.2.3",
                "www 300 A 198.51.100.1",
                "zz 300 A 198.51.100.1",
            ],
        )
        .sign(Signing::at(3, UNIX));
        let asked = Asked {
            id: [0; 2],
            spelled: internet::name("www.example.test."),
            name: internet::name("www.example.test."),
            qtype: 16,
            dnssec_ok: true,
            recursion_desired: false,
        };
        zone.answer(&asked).authority
    };
    let lie = move |asked: &Asked, reply: &mut Option<Reply>| {
        if asked.name.starts_with(b"\x02zz") || asked.name.starts_with(b"\x03www") {
            let rcode = if asked.name.starts_with(b"\x03www") {
                3
            } else {
                0
            };
            *reply = Some(Reply {
                rcode,
                authoritative: true,
                authority: nodata.clone(),
                ..Reply::default()
            });
        }
    };
    let made = Scene::default().made_with(|server| server.hook(lie), |_| {});
    check_bogus(&made.resolve("zz.example.test.", A), Bogus::Denial);
    check_bogus(&made.resolve("www.example.test.", A), Bogus::Denial);
}

#[test]
fn parent_that_denies_a_ds_by_the_childs_proof_is_bogus() {
    // The child's own NSEC at its apex says that there is no DS. It must not count.
    let child = Server::new(vec![
        zone("example.test.", &["ns 3600 A 192.0.2.3"]).sign(Signing::at(3, UNIX)),
    ]);
    let asked = Asked {
        id: [0; 2],
        spelled: internet::name("example.test."),
        name: internet::name("example.test."),
        qtype: internet::DS,
        dnssec_ok: true,
        recursion_desired: false,
    };
    let denial = child.reply(&asked);
    assert!(denial.is_some());
    let proofs = {
        let zone = zone("example.test.", &["ns 3600 A 192.0.2.3"]).sign(Signing::at(3, UNIX));
        zone.answer(&asked).authority
    };
    let name = super::super::recurse::dname::Dname::parse("example.test.").unwrap();
    let nsec = proofs.iter().find(|r| r.rtype == internet::NSEC).unwrap();
    let set = std::sync::Arc::new(super::super::recurse::response::RrSet {
        owner: name.clone(),
        rtype: internet::NSEC,
        ttl: 300,
        data: vec![nsec.rdata.clone().into()],
        sigs: vec![],
    });
    let mut account = Account::new(Some(&config(Anchors::built_in())));
    let sets = [set];
    let proofs = denial::Proofs::new(&sets, &name, &mut account);
    assert_eq!(proofs.no_ds(&name, &mut account), denial::NoDs::Unproven);
    assert_eq!(
        proofs.nodata(&name, internet::DS, &mut account),
        denial::Proof::None
    );
}

#[test]
fn nsec3_with_too_many_iterations_is_insecure_and_hashes_nothing() {
    let made = Scene {
        signing: Some(Signing::at(3, UNIX).nsec3(500, false)),
        ..Scene::default()
    }
    .made();
    let outcome = made.resolve("a.b.c.d.e.f.no.example.test.", A);
    assert_eq!(
        (outcome.rcode(), outcome.authentic()),
        (ResponseCode::NXDomain, false)
    );
    assert!(made.metrics.resolver.limits.nsec3_iterations.get() > 0);
    assert!(
        made.resolve("www.example.test.", A).authentic(),
        "data needs no hashes"
    );
}

#[test]
fn nsec3_hashes_are_bounded_for_one_query() {
    let made = Scene {
        signing: Some(Signing::at(3, UNIX).nsec3(50, false)),
        ..Scene::default()
    }
    .made_with(|server| server, |config| config.nsec3_hashes = 10);
    let deep = format!("{}example.test.", "x.".repeat(60));
    check_bogus(&made.resolve(&deep, A), Bogus::Denial);
    assert!(made.metrics.resolver.limits.nsec3_hashes.get() > 0);
}

/// KeyTrap (CVE-2023-50387): many keys of one tag times many signatures, none of which holds; `everywhere`: not even of the keys.
fn key_trap(everywhere: bool) -> Made {
    let signing = Signing::at(3, UNIX);
    let tag = internet::tag(&signing.dnskey());
    let mut zone = zone(
        "example.test.",
        &["ns 3600 A 192.0.2.3", "www 300 A 198.51.100.1"],
    );
    for n in 0..60_u8 {
        // Two octets make up for the others, so that every key has the tag.
        let mut key = vec![1, 0, 3, 15, n, 0, 0, 0];
        key.extend([n; 28]);
        while internet::tag(&key) != tag {
            let off = tag.wrapping_sub(internet::tag(&key));
            let filler = u16::from_be_bytes([key[6], key[7]]).wrapping_add(off.max(1));
            key[6..8].copy_from_slice(&filler.to_be_bytes());
        }
        zone.add(Rec {
            owner: internet::name("example.test."),
            rtype: internet::DNSKEY,
            ttl: 300,
            rdata: key,
        });
    }
    let many = move |asked: &Asked, reply: &mut Option<Reply>| {
        if !everywhere && asked.qtype != A {
            return;
        }
        let reply = reply.as_mut().unwrap();
        let signatures: Vec<Rec> = reply
            .answer
            .iter()
            .filter(|r| r.rtype == internet::RRSIG)
            .flat_map(|r| {
                (0..60_u8).map(|n| {
                    let mut bad = r.clone();
                    *bad.rdata.last_mut().unwrap() ^= n + 1;
                    bad
                })
            })
            .collect();
        reply.answer.retain(|r| r.rtype != internet::RRSIG);
        reply.answer.extend(signatures);
    };
    let signed = zone.sign(signing);
    let mut test = super::super::recurse::tests::zone(
        "test.",
        &[
            "ns 3600 A 192.0.2.2",
            "example 3600 NS ns.example",
            "ns.example 3600 A 192.0.2.3",
        ],
    );
    test.delegate_securely(&signed);
    let test = test.sign(Signing::at(2, UNIX));
    let mut top = root(&["test. 7200 NS ns.test.", "ns.test. 7200 A 192.0.2.2"]);
    top.delegate_securely(&test);
    let anchor = Signing::at(1, UNIX).dnskey();
    let anchors = anchors_of(&anchor);
    Made::with(
        vec![
            (
                "192.0.2.1",
                Server::new(vec![top.sign(Signing::at(1, UNIX))]),
            ),
            ("192.0.2.2", Server::new(vec![test])),
            ("192.0.2.3", Server::new(vec![signed]).hook(many)),
        ],
        |c| c.dnssec = Some(config(anchors)),
    )
}

#[test]
fn keys_of_one_tag_times_signatures_take_no_more_than_the_checks_allowed() {
    for everywhere in [true, false] {
        let made = key_trap(everywhere);
        let outcome = made.resolve("www.example.test.", A);
        assert!(matches!(outcome.trouble(), Trouble::Bogus { .. }));
        assert!(outcome.packets < 20);
        let limits = &made.metrics.resolver.limits;
        assert!(limits.signatures_per_rrset.get() > 0, "{everywhere}");
        // One key alone is spoken of by the DS.
        assert_eq!(limits.keys_per_tag.get() > 0, !everywhere);
    }
}

#[test]
fn ds_records_beyond_those_looked_at_are_counted() {
    let signed = zone(
        "example.test.",
        &["ns 3600 A 192.0.2.3", "www 300 A 198.51.100.1"],
    )
    .sign(Signing::at(3, UNIX));
    let mut test = zone(
        "test.",
        &[
            "ns 3600 A 192.0.2.2",
            "example 3600 NS ns.example",
            "ns.example 3600 A 192.0.2.3",
        ],
    );
    test.delegate_securely(&signed);
    for n in 0..3 {
        test.add(Rec {
            owner: internet::name("example.test."),
            rtype: internet::DS,
            ttl: 3_600,
            rdata: [&[0, n, 15, 2][..], &[n; 32]].concat(),
        });
    }
    let test = test.sign(Signing::at(2, UNIX));
    let mut top = root(&["test. 7200 NS ns.test.", "ns.test. 7200 A 192.0.2.2"]);
    top.delegate_securely(&test);
    let top = top.sign(Signing::at(1, UNIX));
    for (ds_records, reached) in [(4, 0), (3, 1)] {
        let anchors = anchors_of(&Signing::at(1, UNIX).dnskey());
        let made = Made::with(
            vec![
                ("192.0.2.1", Server::new(vec![top.clone()])),
                ("192.0.2.2", Server::new(vec![test.clone()])),
                ("192.0.2.3", Server::new(vec![signed.clone()])),
            ],
            |c| {
                c.dnssec = Some(Config {
                    ds_records,
                    ..config(anchors)
                });
            },
        );
        made.resolve("www.example.test.", A);
        assert_eq!(made.metrics.resolver.limits.ds_records.get(), reached);
    }
}

fn anchors_of(dnskey: &[u8]) -> Anchors {
    let key = domain::utils::base64::encode_string(&dnskey[4..]);
    let flags = u16::from_be_bytes([dnskey[0], dnskey[1]]);
    Anchors::parse(&format!(
        ". DNSKEY {flags} {} {} {key}\n",
        dnskey[2], dnskey[3]
    ))
    .unwrap()
}

#[test]
fn anchor_may_be_a_key_and_names_may_be_spared() {
    let bad = |scene: Scene| {
        scene.made_with(
            |server| {
                server.hook(|_, reply| {
                    let reply = reply.as_mut().unwrap();
                    reply.answer.retain(|r| r.rtype != internet::RRSIG);
                })
            },
            |config| {
                let key = Signing::at(1, UNIX).dnskey();
                config.anchors = anchors_of(&key).without(&[String::from("example.test.")]);
            },
        )
    };
    let made = bad(Scene::default());
    let outcome = made.resolve("www.example.test.", A);
    assert_eq!(
        (outcome.data().len(), outcome.authentic()),
        (1, false),
        "spared"
    );
    assert!(made.resolve("ns.test.", A).authentic(), "not spared");
}

#[test]
fn signed_data_ends_with_its_signature() {
    let mut signing = Signing::at(3, UNIX);
    signing.expiration = u32::try_from(UNIX).unwrap() + 100;
    let made = Scene {
        signing: Some(signing),
        ..Scene::default()
    }
    .made();
    let ttl = made.resolve("www.example.test.", A).ttl();
    assert!(ttl <= 100, "{ttl}");
}

#[test]
fn key_algorithms_nobody_knows_leave_the_zone_insecure() {
    // The DS names algorithm 200.
    let mut test = zone(
        "test.",
        &[
            "ns 3600 A 192.0.2.2",
            "example 3600 NS ns.example",
            "ns.example 3600 A 192.0.2.3",
        ],
    );
    test.add(Rec {
        owner: internet::name("example.test."),
        rtype: internet::DS,
        ttl: 300,
        rdata: [&[1, 2, 200, 2][..], &[7; 32]].concat(),
    });
    let test = test.sign(Signing::at(2, UNIX));
    let mut top = root(&["test. 7200 NS ns.test.", "ns.test. 7200 A 192.0.2.2"]);
    top.delegate_securely(&test);
    let example: Zone = zone(
        "example.test.",
        &["ns 3600 A 192.0.2.3", "www 300 A 198.51.100.1"],
    );
    let anchors = anchors_of(&Signing::at(1, UNIX).dnskey());
    let made = Made::with(
        vec![
            (
                "192.0.2.1",
                Server::new(vec![top.sign(Signing::at(1, UNIX))]),
            ),
            ("192.0.2.2", Server::new(vec![test])),
            ("192.0.2.3", Server::new(vec![example])),
        ],
        |c| c.dnssec = Some(config(anchors)),
    );
    let outcome = made.resolve("www.example.test.", A);
    assert_eq!((outcome.data().len(), outcome.authentic()), (1, false));
}

#[test]
fn wildcard_without_the_proof_that_it_may_stand_there_is_bogus() {
    let strip = |_: &Asked, reply: &mut Option<Reply>| {
        let reply = reply.as_mut().unwrap();
        if !reply.answer.is_empty() {
            reply.authority.clear();
        }
    };
    let made = Scene::default().made_with(|server| server.hook(strip), |_| {});
    check_bogus(&made.resolve("x.wild.example.test.", A), Bogus::Denial);
    // And the wildcard's own data for a name that exists.
    let replay = |asked: &Asked, reply: &mut Option<Reply>| {
        if asked.name == internet::name("www.example.test.") && asked.qtype == A {
            let signing = Signing::at(3, UNIX);
            let wild = internet::rec("*.example.test. 300 A 203.0.113.66");
            let mut sig = signing.sign(
                &internet::name("example.test."),
                std::slice::from_ref(&wild),
            );
            sig.owner.clone_from(&asked.name);
            let reply = reply.as_mut().unwrap();
            reply.answer = vec![internet::rec("www.example.test. 300 A 203.0.113.66"), sig];
        }
    };
    let made = Scene::default().made_with(|server| server.hook(replay), |_| {});
    check_bogus(&made.resolve("www.example.test.", A), Bogus::Denial);
}

#[test]
fn signature_of_a_name_that_is_no_zone_is_bogus() {
    // The zone's owner signs as "www.example.test.", which is no zone.
    let evil = |asked: &Asked, reply: &mut Option<Reply>| {
        if asked.name == internet::name("www.example.test.") && asked.qtype == A {
            let signing = Signing::at(66, UNIX);
            let set = [internet::rec("www.example.test. 300 A 203.0.113.66")];
            let sig = signing.sign(&internet::name("www.example.test."), &set);
            reply.as_mut().unwrap().answer = vec![set[0].clone(), sig];
        }
    };
    let made = Scene::default().made_with(|server| server.hook(evil), |_| {});
    check_bogus(&made.resolve("www.example.test.", A), Bogus::Dnskey);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Whatever becomes of the replies on their way: what is called authentic is what the zone says.
    #[test]
    fn garbled_replies_are_never_authentic_and_wrong(seed: u64, nsec3: bool) {
        let signing = if nsec3 {
            Signing::at(3, UNIX).nsec3(2, false)
        } else {
            Signing::at(3, UNIX)
        };
        let made = Scene {
            signing: Some(signing),
            ..Scene::default()
        }
        .made();
        made.garble(seed);
        for (name, qtype, rcode, data) in [
            ("www.example.test.", A, ResponseCode::NoError, &["A 198.51.100.1"][..]),
            ("x.wild.example.test.", A, ResponseCode::NoError, &["A 198.51.100.2"]),
            ("no.example.test.", A, ResponseCode::NXDomain, &[]),
            ("www.example.test.", 16, ResponseCode::NoError, &[]),
        ] {
            let outcome = made.resolve(name, qtype);
            if outcome.answer.as_ref().is_ok_and(|message| message.authentic_data) {
                proptest::prop_assert_eq!(outcome.rcode(), rcode, "{}", name);
                proptest::prop_assert_eq!(outcome.data(), data, "{}", name);
            }
        }
    }
}
