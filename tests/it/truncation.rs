//! What an answer that does not fit leaves out: laws of truncation (RFC 2181 section 9, RFC 4035 section 3.1.1, RFC 9471),
//! for signed zones.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::OnceLock;

use headwater::dns::ZoneConfig;
use headwater::dns::answer::{Action, CHAIN_MAX, View, answer};
use headwater::dns::dnssec::signer::Signer;
use headwater::dns::dnssec::{Algorithm, Config, Policy, Proof};
use headwater::dns::wire::Query;
use headwater::dns::zone::{Zones, load_text};
use headwater::time::Now;
use hickory_proto::op::Message;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::prelude::*;

const NOW: Now = Now {
    mono_ns: 0,
    unix_ms: 1_700_000_000_000,
};

/// Large and small RRsets, what is added to them, delegations with much glue, aliases to all of it.
fn text() -> String {
    let mut text = String::from(
        "$TTL 300\n@ SOA ns host 1 3600 600 86400 60\n@ NS ns\n@ NS ns2\nns A 192.0.2.53\nns2 AAAA 2001:db8::53\n\
         alias CNAME many\nlong CNAME alias\nold DNAME new\nx.new CNAME many\n*.wild CNAME many\n*.text TXT \"wild\"\n\
         safe NS ns.safe\nsafe DS 7 13 2 0000000000000000000000000000000000000000000000000000000000000000\nns.safe A 192.0.2.9\n\
         out NS ns.elsewhere.example.\nsvc HTTPS 0 many\nsvcb SVCB 1 many alpn=h2 port=8443\n",
    );
    let mut line = |line: String| writeln!(text, "{line}").expect("a String takes all");
    for at in 1..=40 {
        line(format!("many A 192.0.2.{at}"));
        line(format!("many AAAA 2001:db8::{at:x}"));
        line(format!("mail MX {at} h{at}"));
        line(format!("h{at} A 192.0.2.{at}"));
        line(format!("h{at} AAAA 2001:db8::{at:x}"));
        line(format!("sub NS ns{at}.sub"));
        line(format!("ns{at}.sub A 192.0.2.{at}"));
        line(format!("srv SRV {at} 0 80 h{at}"));
    }
    for at in 1..=9 {
        line(format!("text TXT \"{at}{}\"", "x".repeat(200)));
        line(format!("few MX {at} h{at}"));
        line(format!("cut NS ns{at}.cut"));
        line(format!("ns{at}.cut AAAA 2001:db8::{at:x}"));
    }
    text
}

/// The zone unsigned, and signed both ways.
fn zones() -> &'static [Zones; 3] {
    static ZONES: OnceLock<[Zones; 3]> = OnceLock::new();
    ZONES.get_or_init(|| {
        let config = ZoneConfig {
            name: "t.test.".to_owned(),
            file: PathBuf::from("zone"),
            ..ZoneConfig::default()
        };
        let loaded = load_text(&config, text().as_bytes());
        let plain = loaded.unwrap_or_else(|p| panic!("{p:?}")).zone;
        let sign = |denial| {
            let folder = tempfile::tempdir().expect("a folder");
            let signer = Signer::new(folder.path().to_path_buf(), Config::default());
            let policy = Policy {
                algorithm: Algorithm::Ed25519,
                denial,
            };
            let signed = signer.sign(&plain, policy, NOW.unix_ms / 1_000);
            Zones::new(vec![signed.expect("a signed zone").zone])
        };
        [
            sign(Proof::Nsec),
            sign(Proof::Nsec3),
            Zones::new(vec![plain.clone()]),
        ]
    })
}

const NAMES: &[&str] = &[
    "",
    "many",
    "alias",
    "long",
    "x.old",
    "y.old",
    "q.wild",
    "q.text",
    "a.q.text",
    "text",
    "mail",
    "few",
    "srv",
    "svc",
    "svcb",
    "sub",
    "www.sub",
    "cut",
    "x.cut",
    "safe",
    "x.safe",
    "out",
    "x.out",
    "missing",
    "a.b.missing",
    "h1",
    "ns",
];

const TYPES: &[u16] = &[1, 28, 2, 6, 15, 16, 33, 43, 48, 64, 65, 5, ANY];

const ANY: u16 = 255;

fn query(name: &str, qtype: u16, dnssec_ok: bool) -> Vec<u8> {
    let mut packet = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in name
        .split('.')
        .chain(["t", "test"])
        .filter(|l| !l.is_empty())
    {
        packet.push(u8::try_from(label.len()).expect("a short label"));
        packet.extend_from_slice(label.as_bytes());
    }
    packet.push(0);
    packet.extend(qtype.to_be_bytes());
    packet.extend([0, 1]);
    packet.extend([
        0,
        0,
        41,
        0xFF,
        0xFF,
        0,
        0,
        u8::from(dnssec_ok) << 7,
        0,
        0,
        0,
    ]);
    packet
}

fn ask(zones: &Zones, packet: &[u8], seed: u64, limit: usize) -> (usize, Message) {
    let query = Query::parse(packet).expect("a good query");
    let view = View {
        zones,
        cache: None,
        policy: None,
        chain: CHAIN_MAX,
    };
    let mut out = vec![0; limit];
    let Action::Respond { len, .. } = answer(&query, view, NOW, seed, limit, &mut out) else {
        panic!("there is no resolver");
    };
    let message = Message::from_vec(&out[..len]).expect("a message");
    (len, message)
}

/// An RRset, or the signatures of one: owner, type, and the type that is covered.
type Of = (Name, RecordType, Option<u16>);

fn covered(record: &Record) -> Option<u16> {
    let RData::Unknown { rdata, .. } = &record.data else {
        return None;
    };
    let covered = rdata.anything.first_chunk().copied();
    (record.record_type() == RecordType::RRSIG)
        .then(|| u16::from_be_bytes(covered.expect("a type")))
}

/// The RRsets of a section, with the text of their data.
fn sets(records: &[Record]) -> BTreeMap<Of, BTreeSet<String>> {
    let mut sets: BTreeMap<Of, BTreeSet<String>> = BTreeMap::new();
    for record in records {
        let of = (
            record.name.to_lowercase(),
            record.record_type(),
            covered(record),
        );
        let new = sets.entry(of).or_default().insert(record.data.to_string());
        assert!(new, "a record twice: {record}");
    }
    sets
}

/// The laws, for one question at one limit.
fn check(
    zones: &Zones,
    name: &str,
    qtype: u16,
    dnssec_ok: bool,
    seed: u64,
    limit: usize,
) -> Result<(), TestCaseError> {
    let packet = query(name, qtype, dnssec_ok);
    let (_, whole) = ask(zones, &packet, seed, 65_535);
    prop_assert!(!whole.metadata.truncation);
    let (len, part) = ask(zones, &packet, seed, limit);
    prop_assert!(len <= limit);
    prop_assert_eq!(part.metadata.response_code, whole.metadata.response_code);
    prop_assert_eq!(part.metadata.authoritative, whole.metadata.authoritative);
    prop_assert!(part.edns.is_some(), "OPT stays");
    let sections = |message: &Message| {
        [&message.answers, &message.authorities, &message.additionals].map(|records| sets(records))
    };
    let (had, has) = (sections(&whole), sections(&part));
    for (had, has) in had.iter().zip(&has) {
        for (of, data) in has {
            prop_assert_eq!(Some(data), had.get(of), "a part of {:?}", of);
        }
        // An RRset and its signatures go together.
        for (owner, rtype, _) in had.keys().filter(|of| of.2.is_none()) {
            let signatures = (owner.clone(), RecordType::RRSIG, Some(u16::from(*rtype)));
            if had.contains_key(&signatures) {
                let set = (owner.clone(), *rtype, None);
                prop_assert_eq!(
                    has.contains_key(&set),
                    has.contains_key(&signatures),
                    "{:?}",
                    set
                );
            }
        }
        for (owner, _, covered) in has.keys() {
            let set = covered.map(|covered| (owner.clone(), RecordType::from(covered), None));
            prop_assert!(
                set.is_none_or(|set| has.contains_key(&set)),
                "signatures of nothing"
            );
        }
    }
    // All of the answer and of what proves it, and the addresses without which a delegation leads nowhere.
    let cuts: Vec<&Name> = (had[1].keys())
        .filter(|of| of.1 == RecordType::NS && !whole.metadata.authoritative)
        .map(|of| &of.0)
        .collect();
    let missing = |section: usize, which: &dyn Fn(&Of) -> bool| {
        had[section]
            .keys()
            .any(|of| which(of) && !has[section].contains_key(of))
    };
    let required = missing(0, &|_| true)
        || missing(1, &|_| true)
        || missing(2, &|of| cuts.iter().any(|cut| cut.zone_of(&of.0)));
    prop_assert_eq!(part.metadata.truncation, required, "TC");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn no_rrset_is_cut_and_tc_says_that_something_is_missing(
        which in 0_usize..3,
        name in proptest::sample::select(NAMES),
        qtype in proptest::sample::select(TYPES),
        dnssec_ok in proptest::bool::weighted(0.8),
        seed in any::<u64>(),
        limit in prop_oneof![3 => 512_usize..1_500, 1 => 1_500_usize..6_000],
    ) {
        check(&zones()[which], name, qtype, dnssec_ok, seed, limit)?;
    }
}

/// Where the last of an answer just fits, and one byte less.
#[test]
fn the_last_byte_decides() {
    for zones in zones() {
        for name in NAMES {
            for qtype in [1, 15, 16, 28] {
                let packet = query(name, qtype, true);
                let (len, _) = ask(zones, &packet, 7, 65_535);
                for limit in [len - 1, len].into_iter().filter(|limit| *limit >= 512) {
                    if let Err(error) = check(zones, name, qtype, true, 7, limit) {
                        panic!("{name} {qtype} at {limit}: {error}");
                    }
                }
            }
        }
    }
}
