//! Servers that say more than they may: nothing of it is believed.

use super::internet::{Rec, Reply, name, rec};
use super::*;

const EVIL: Ipv4Addr = Ipv4Addr::new(198, 18, 66, 1);
/// It claims to be whatever it is asked about.
const FAKE: Ipv4Addr = Ipv4Addr::new(198, 18, 66, 2);
const BANK: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 1);
/// It answers for the forward zone `corp.test.`
const CORP: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 2);

/// What is true, and must stay so.
const TRUTHS: [(&str, u16, &str); 5] = [
    ("www.bank.test.", A, "192.0.2.1"),
    ("mail.bank.test.", A, "192.0.2.2"),
    ("ns.bank.test.", A, "198.18.1.1"),
    ("bank.test.", internet::NS, "ns.bank.test."),
    ("other.test.", A, "192.0.2.3"),
];

/// Attempts, by the first label of what is asked.
const ATTEMPTS: [&str; 18] = [
    "extra-answer",
    "extra-additional",
    "sibling-ns",
    "parent-ns",
    "root-ns",
    "alias",
    "alias-ns",
    "alias-nxdomain",
    "alias-soa",
    "dname",
    "sideways",
    "upward",
    "glue",
    "glue-own",
    "nxdomain-above",
    "owner",
    "mx",
    "wildcard",
];

fn lines(texts: &[&str]) -> Vec<Rec> {
    texts.iter().map(|text| rec(text)).collect()
}

/// What the evil server makes of its reply to a question that begins with the label of an attempt.
fn poison(attempt: &str, asked: &str, reply: &mut Reply) {
    let fake_ns = "bank.test. 86400 NS ns.fake.evil.test.";
    let fake_at = format!("ns.fake.evil.test. 86400 A {FAKE}");
    let own = format!("{asked} 300 A 192.0.2.9");
    *reply = Reply {
        authoritative: true,
        ..Reply::default()
    };
    let to_bank = format!("{asked} 300 CNAME www.bank.test.");
    let stolen = "www.bank.test. 86400 A 203.0.113.66";
    let soa = "SOA ns.evil.test. host.evil.test. 1 2 3 4 86400";
    match attempt {
        "extra-answer" => {
            reply.answer = lines(&[&own, stolen, "mail.bank.test. 86400 A 203.0.113.66"])
        }
        "extra-additional" => {
            reply.answer = lines(&[&own]);
            reply.additional = lines(&[stolen, &format!("ns.bank.test. 86400 A {FAKE}")]);
        }
        "sibling-ns" => {
            reply.answer = lines(&[&own]);
            reply.authority = lines(&[fake_ns]);
            reply.additional = lines(&[&fake_at]);
        }
        "parent-ns" => {
            reply.answer = lines(&[&own]);
            reply.authority = lines(&["test. 86400 NS ns.fake.evil.test."]);
            reply.additional = lines(&[&fake_at]);
        }
        "root-ns" => {
            reply.answer = lines(&[&own]);
            reply.authority = lines(&[". 86400 NS ns.fake.evil.test."]);
            reply.additional = lines(&[&fake_at]);
        }
        "alias" => reply.answer = lines(&[&to_bank, stolen]),
        "alias-ns" => {
            reply.answer = lines(&[&to_bank]);
            reply.authority = lines(&[fake_ns]);
            reply.additional = lines(&[&fake_at, stolen]);
        }
        "alias-nxdomain" => {
            reply.rcode = 3;
            reply.answer = lines(&[&to_bank]);
            reply.authority = lines(&[&format!("bank.test. 86400 {soa}")]);
        }
        "alias-soa" => {
            reply.answer = lines(&[&to_bank]);
            reply.authority = lines(&[&format!("bank.test. 86400 {soa}")]);
        }
        "dname" => {
            reply.answer = lines(&["dname.evil.test. 300 DNAME bank.test.", &to_bank, stolen]);
        }
        "sideways" => {
            reply.authoritative = false;
            reply.authority = lines(&[fake_ns]);
            reply.additional = lines(&[&fake_at, &format!("ns.bank.test. 86400 A {FAKE}")]);
        }
        "upward" => {
            reply.authoritative = false;
            reply.authority = lines(&["test. 86400 NS ns.fake.evil.test."]);
            reply.additional = lines(&[&fake_at]);
        }
        // A delegation within its own zone, to a server of the bank with an address of the evil one's.
        "glue" => {
            reply.authoritative = false;
            reply.authority = lines(&["glue.evil.test. 86400 NS ns.bank.test."]);
            reply.additional = lines(&[&format!("ns.bank.test. 86400 A {FAKE}"), stolen]);
        }
        "glue-own" => {
            reply.authoritative = false;
            reply.authority = lines(&["glue-own.evil.test. 86400 NS ns.fake.evil.test."]);
            reply.additional = lines(&[&fake_at, stolen]);
        }
        "nxdomain-above" => {
            reply.rcode = 3;
            reply.authority = lines(&[&format!("test. 86400 {soa}")]);
        }
        "owner" => reply.answer = lines(&[stolen]),
        "mx" => {
            reply.answer = lines(&[&format!("{asked} 300 MX 10 www.bank.test.")]);
            reply.additional = lines(&[stolen]);
        }
        "wildcard" => {
            reply.answer = lines(&[
                "*.test. 86400 A 203.0.113.66",
                "bank.test. 86400 A 203.0.113.66",
            ]);
        }
        other => panic!("{other} is no attempt"),
    }
}

fn evil(at: Ipv4Addr) -> Server {
    Server::new(vec![zone("evil.test.", EVIL, &[])]).hook(move |asked, reply| {
        let text = internet::text(&asked.name);
        let labels: Vec<&str> = text.trim_end_matches('.').split('.').collect();
        let attempt = labels.iter().find(|label| ATTEMPTS.contains(label));
        let Some(reply) = reply else { return };
        if at == FAKE && (attempt.is_none() || text.contains("glue")) {
            // Every name has its address, and it is the server of every zone.
            *reply = Reply {
                authoritative: true,
                answer: lines(&[&format!("{text} 86400 A 203.0.113.66")]),
                ..Reply::default()
            };
        } else if let Some(attempt) = attempt {
            // Minimised questions are answered as the zone is; the attempt is for the name.
            if labels[0] == "www" || asked.qtype == 15 {
                poison(attempt, &text, reply);
            } else {
                *reply = Reply {
                    authoritative: true,
                    authority: lines(&[
                        "evil.test. 300 SOA ns.evil.test. host.evil.test. 1 2 3 4 60",
                    ]),
                    ..Reply::default()
                };
            }
        }
    })
}

fn hosts() -> Vec<Host> {
    let children = [("evil", EVIL), ("bank", BANK)];
    let mut hosts = top(&children, &[String::from("other 300 A 192.0.2.3")]);
    let bank = ["www 300 A 192.0.2.1", "mail 300 A 192.0.2.2"].map(String::from);
    hosts.push(Host::new(
        BANK,
        Server::new(vec![zone("bank.test.", BANK, &bank)]),
    ));
    hosts.push(Host::new(EVIL, evil(EVIL)));
    hosts.push(Host::new(FAKE, evil(FAKE)));
    hosts
}

/// That all truths hold, and that nobody asks the fake server about another's names.
fn check(node: &Node, internet: &Internet, attempt: &str) {
    for (of, qtype, truth) in TRUTHS {
        let said = ask(node, of, qtype);
        assert_eq!(said.code, ResponseCode::NoError, "{attempt}: {of}");
        assert_eq!(said.data, [truth], "{attempt}: {of}");
    }
    let evil = name("evil.test.");
    let asked: Vec<Seen> = (internet.take().into_iter())
        .filter(|seen| seen.at == FAKE || seen.at == EVIL)
        .filter(|seen| !seen.asked.name.ends_with(&evil))
        .collect();
    assert!(asked.is_empty(), "{attempt}: {asked:?}");
    let held = node.control(&["cache", "lookup", "www.bank.test."]);
    held.assert_success();
    assert!(
        !held.stdout.contains("203.0.113.66"),
        "{attempt}: {}",
        held.stdout
    );
}

#[test]
fn poison_of_a_server_for_other_zones_is_never_believed() {
    beside(hosts(), |internet| {
        let node = node(None, "");
        for truths_known in [false, true] {
            for attempt in ATTEMPTS {
                node.control(&["cache", "flush", "--all"]).assert_success();
                internet.take();
                if truths_known {
                    check(&node, internet, attempt);
                }
                let asked = format!("www.{attempt}.evil.test.");
                let qtype = if attempt == "mx" { 15 } else { A };
                let said = ask(&node, &asked, qtype);
                assert!(
                    !said.data.contains(&String::from("203.0.113.66")) || attempt == "glue-own",
                    "{attempt}: {said:?}"
                );
                let tried = (internet.seen().iter())
                    .any(|seen| seen.at == EVIL && seen.asked.name == name(&asked));
                assert!(tried, "{attempt} was not made: {:?}", internet.seen());
                check(&node, internet, attempt);
            }
        }
    });
}

#[test]
fn forwarder_that_speaks_for_other_zones_is_not_believed() {
    let mut hosts = hosts();
    let own = zone("corp.test.", CORP, &[String::from("plain 300 A 192.0.2.8")]);
    let corp = Server::new(vec![own]).hook(|asked, reply| {
        let text = internet::text(&asked.name);
        let label = text.split('.').next().unwrap_or_default();
        let Some(reply) = reply else { return };
        if ATTEMPTS.contains(&label) {
            poison(label, &text, reply);
        }
        reply.recursive = true;
    });
    hosts.push(Host::new(CORP, corp));
    beside(hosts, |internet| {
        let zone =
            format!("[[resolver.forward]]\nzone = \"corp.test.\"\nupstreams = [\"{CORP}\"]\n");
        let node = node(None, &zone);
        assert_eq!(ask(&node, "plain.corp.test.", A).data, ["192.0.2.8"]);
        for attempt in ATTEMPTS {
            node.control(&["cache", "flush", "--all"]).assert_success();
            internet.take();
            let asked = format!("{attempt}.corp.test.");
            let qtype = if attempt == "mx" { 15 } else { A };
            let said = ask(&node, &asked, qtype);
            assert!(
                !said.data.contains(&String::from("203.0.113.66")),
                "{attempt}: {said:?}"
            );
            let tried = (internet.seen().iter())
                .any(|seen| seen.at == CORP && seen.asked.name == name(&asked));
            assert!(tried, "{attempt} was not made");
            check(&node, internet, attempt);
        }
    });
}
