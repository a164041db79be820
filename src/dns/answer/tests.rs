//! Zone text and a question in, the whole answer as text out; then the laws over generated zones.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::Message;

use super::*;
use crate::dns::resolver::CacheConfig;
use crate::dns::zone::load_text;
use crate::dns::{TtlOverride, ZoneConfig};
use crate::metrics::Metrics;

pub(super) fn config(name: &str, ttls: Vec<TtlOverride>) -> ZoneConfig {
    ZoneConfig {
        name: name.to_owned(),
        file: PathBuf::from("zone"),
        ttl: 300,
        ttls,
        ..ZoneConfig::default()
    }
}

/// Own zones from `(apex, master file)`.
pub(super) fn zones(texts: &[(&str, &str)]) -> Zones {
    let load =
        |(name, text): &(&str, &str)| match load_text(&config(name, Vec::new()), text.as_bytes()) {
            Ok(loaded) => loaded.zone,
            Err(problems) => panic!("{name}: {problems:?}"),
        };
    Zones::new(texts.iter().map(load).collect::<Vec<Arc<_>>>())
}

/// A query packet: `NAME TYPE`, then any of `+rd`, `+do` and `+edns=SIZE`.
pub(super) fn packet(question: &str) -> Vec<u8> {
    let mut words = question.split(' ');
    let (name, rtype) = (words.next().expect("a name"), words.next().expect("a type"));
    let mut packet = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    crate::dns::zone::name::from_text(name.as_bytes(), b"\0", &mut packet).expect("a good name");
    let number = crate::dns::zone::rdata::rtype(rtype.as_bytes()).expect("a type");
    packet.extend(number.to_be_bytes());
    packet.extend([0, 1]);
    let (mut size, mut flags) = (None, 0);
    for word in words {
        match word.split_once('=') {
            None if word == "+rd" => packet[2] |= 1,
            None if word == "+do" => flags = 0x80,
            Some(("+edns", value)) => size = Some(value.parse::<u16>().expect("a size")),
            _ => panic!("what is {word}?"),
        }
    }
    if let Some(size) = size {
        packet[11] = 1;
        packet.extend([0, 0, 41]);
        packet.extend(size.to_be_bytes());
        packet.extend([0, 0, flags, 0, 0, 0]);
    }
    packet
}

pub(super) const NOW: Now = Now {
    mono_ns: 1,
    unix_ms: 1,
};

/// Answers and decodes; every answer keeps within the limit.
pub(super) fn ask(zones: &Zones, question: &str, seed: u64) -> (Message, Outcome, usize) {
    let packet = packet(question);
    let query = Query::parse(&packet).expect("a good query");
    let limit = crate::dns::wire::udp_limit(&query, 1232);
    let mut out = [0xFF; 4096];
    let view = View {
        zones,
        cache: None,
        policy: None,
        chain: CHAIN_MAX,
    };
    let Action::Respond { len, outcome, .. } = answer(&query, view, NOW, seed, limit, &mut out)
    else {
        panic!("no cache, so nothing to recurse for");
    };
    assert!(len <= limit, "{len} bytes");
    let message = Message::from_vec(&out[..len]).expect("an answer that decodes");
    (message, outcome, len)
}

/// `RCODE[ aa][ tc]`, then a line per record: section, owner, TTL, type, data.
pub(super) fn render(message: &Message) -> String {
    let mut text = format!("{:?}", message.metadata.response_code).to_uppercase();
    for (flag, name) in [
        (message.metadata.authoritative, " aa"),
        (message.metadata.truncation, " tc"),
    ] {
        if flag {
            text.push_str(name);
        }
    }
    let sections = [
        ("an", &message.answers),
        ("au", &message.authorities),
        ("ad", &message.additionals),
    ];
    for (section, records) in sections {
        for record in records {
            text.push_str(&format!(
                "\n{section} {} {} {} {}",
                record.name,
                record.ttl,
                record.record_type(),
                record.data
            ));
        }
    }
    text
}

/// One zone with every shape.
const ZONE: &str = "
$TTL 300
@        SOA ns1 host 7 3600 900 604800 60
         NS  ns1
         NS  ns2.other.example.
         MX  10 mail
         MX  20 mail
         MX  30 mail.other.example.
         TXT \"apex\"
ns1      A   192.0.2.1
         AAAA 2001:db8::1
www  30  A   192.0.2.10
mail     A   192.0.2.20
*.wild   A   192.0.2.30
         TXT \"any\"
x.y.wild A   192.0.2.31
alias    CNAME www
chain    CNAME alias
loop1    CNAME loop2
loop2    CNAME loop1
self     CNAME self
dangling CNAME missing
out      CNAME www.other.example.
*.star   CNAME www
deep     CNAME host.sub
sub      NS  ns.sub
         NS  ns1
         NS  ns.sub2
         DS  1 13 2 ABCD
ns.sub   A   192.0.2.40
sub2     NS  ns.sub2
ns.sub2  A   192.0.2.41
a.b.c    A   192.0.2.50
_s._tcp  SRV 1 2 443 www
old      DNAME new
h.new    A   192.0.2.60
odd      TYPE65280 \\# 3 ABCDEF
";

#[track_caller]
fn check(question: &str, expected: &str) {
    let zones = zones(&[("test.", ZONE)]);
    let (message, _, _) = ask(&zones, question, 0);
    assert_eq!(render(&message), expected, "{question}");
}

const SOA: &str = "au test. 60 SOA ns1.test. host.test. 7 3600 900 604800 60";

#[test]
fn answer_existing_name_gives_its_rrset() {
    check("www.test. A", "NOERROR aa\nan www.test. 30 A 192.0.2.10");
    check(
        "ns1.test. AAAA",
        "NOERROR aa\nan ns1.test. 300 AAAA 2001:db8::1",
    );
    check(
        "odd.test. TYPE65280",
        "NOERROR aa\nan odd.test. 300 Unknown q83v",
    );
    check(
        "test. SOA",
        "NOERROR aa\nan test. 300 SOA ns1.test. host.test. 7 3600 900 604800 60",
    );
}

#[test]
fn answer_repeats_the_case_of_the_question() {
    let zones = zones(&[("test.", ZONE)]);
    let (message, _, _) = ask(&zones, "wWw.TeST. A", 0);
    assert_eq!(message.queries[0].name().to_string(), "wWw.TeST.");
    assert_eq!(message.answers[0].name.to_string(), "wWw.TeST.");
}

#[test]
fn answer_missing_name_or_type_gives_soa_with_the_negative_ttl() {
    check("missing.test. A", &format!("NXDOMAIN aa\n{SOA}"));
    check("x.www.test. A", &format!("NXDOMAIN aa\n{SOA}"));
    check("www.test. AAAA", &format!("NOERROR aa\n{SOA}"));
    check("b.c.test. A", &format!("NOERROR aa\n{SOA}"));
    check("_tcp.test. A", &format!("NOERROR aa\n{SOA}"));
}

#[test]
fn answer_wildcard_stands_in_only_where_nothing_exists() {
    check(
        "x.wild.test. A",
        "NOERROR aa\nan x.wild.test. 300 A 192.0.2.30",
    );
    check("z.x.y.wild.test. A", &format!("NXDOMAIN aa\n{SOA}"));
    check("y.wild.test. A", &format!("NOERROR aa\n{SOA}"));
    check("z.y.wild.test. A", &format!("NXDOMAIN aa\n{SOA}"));
    check(
        "a.b.wild.test. A",
        "NOERROR aa\nan a.b.wild.test. 300 A 192.0.2.30",
    );
    check("x.wild.test. MX", &format!("NOERROR aa\n{SOA}"));
    check(
        "*.wild.test. A",
        "NOERROR aa\nan *.wild.test. 300 A 192.0.2.30",
    );
    check(
        "x.star.test. A",
        "NOERROR aa\nan x.star.test. 300 CNAME www.test.\nan www.test. 30 A 192.0.2.10",
    );
}

#[test]
fn answer_follows_aliases_to_their_end() {
    check(
        "chain.test. A",
        "NOERROR aa\nan chain.test. 300 CNAME alias.test.\nan alias.test. 300 CNAME www.test.\nan www.test. 30 A 192.0.2.10",
    );
    check(
        "chain.test. CNAME",
        "NOERROR aa\nan chain.test. 300 CNAME alias.test.",
    );
    check(
        "dangling.test. A",
        &format!("NXDOMAIN aa\nan dangling.test. 300 CNAME missing.test.\n{SOA}"),
    );
    check(
        "out.test. A",
        "NOERROR aa\nan out.test. 300 CNAME www.other.example.",
    );
    check(
        "self.test. A",
        "NOERROR aa\nan self.test. 300 CNAME self.test.",
    );
    check(
        "loop1.test. A",
        "NOERROR aa\nan loop1.test. 300 CNAME loop2.test.\nan loop2.test. 300 CNAME loop1.test.",
    );
}

#[test]
fn answer_below_a_cut_is_a_referral_with_all_glue_there_is() {
    let referral = "NOERROR\nau sub.test. 300 NS ns.sub.test.\nau sub.test. 300 NS ns1.test.\n\
                    au sub.test. 300 NS ns.sub2.test.\nad ns.sub.test. 300 A 192.0.2.40\n\
                    ad ns1.test. 300 A 192.0.2.1\nad ns.sub2.test. 300 A 192.0.2.41\nad ns1.test. 300 AAAA 2001:db8::1";
    for question in [
        "sub.test. A",
        "sub.test. NS",
        "sub.test. ANY",
        "x.y.sub.test. TXT",
        "ns.sub.test. A",
    ] {
        check(question, referral);
    }
    let aliased = referral.replacen(
        "NOERROR",
        "NOERROR aa\nan deep.test. 300 CNAME host.sub.test.",
        1,
    );
    check("deep.test. A", &aliased);
}

#[test]
fn answer_ds_comes_from_the_parent_side_of_the_cut() {
    check("sub.test. DS", "NOERROR aa\nan sub.test. 300 DS AAENAqvN");
    check("sub2.test. DS", &format!("NOERROR aa\n{SOA}"));
    let child = "@ SOA ns host 1 2 3 4 5\n@ NS ns.sub.test.\nns A 192.0.2.40\n";
    let zones = zones(&[("test.", ZONE), ("sub.test.", child)]);
    let (message, _, _) = ask(&zones, "sub.test. DS", 0);
    assert!(
        render(&message).starts_with("NOERROR aa\nan sub.test. 300 DS"),
        "{}",
        render(&message)
    );
    let (message, _, _) = ask(&zones, "sub.test. A", 0);
    assert!(
        render(&message).starts_with("NOERROR aa\nau sub.test. 5 SOA"),
        "{}",
        render(&message)
    );
}

#[test]
fn answer_mx_and_srv_bring_each_address_once() {
    check(
        "test. MX",
        "NOERROR aa\nan test. 300 MX 10 mail.test.\nan test. 300 MX 20 mail.test.\n\
         an test. 300 MX 30 mail.other.example.\nad mail.test. 300 A 192.0.2.20",
    );
    check(
        "_s._tcp.test. SRV",
        "NOERROR aa\nan _s._tcp.test. 300 SRV 1 2 443 www.test.\nad www.test. 30 A 192.0.2.10",
    );
}

#[test]
fn answer_any_is_one_rrset() {
    check("ns1.test. ANY", "NOERROR aa\nan ns1.test. 300 A 192.0.2.1");
    check(
        "alias.test. ANY",
        "NOERROR aa\nan alias.test. 300 CNAME www.test.",
    );
}

#[test]
fn answer_any_is_no_signature_alone() {
    let text = "@ SOA ns h 1 2 3 4 5\n@ NS ns.other.\nh HTTPS 1 . alpn=h3\n\
        h RRSIG HTTPS 13 2 300 20300101000000 20200101000000 1 test. AAAA\n";
    let zones = zones(&[("test.", text)]);
    let text = render(&ask(&zones, "h.test. ANY", 0).0);
    assert!(text.contains("HTTPS") && !text.contains("RRSIG"), "{text}");
}

#[test]
fn answer_below_a_dname_is_an_alias_made_for_it() {
    let zones = zones(&[("test.", ZONE)]);
    let (message, outcome, _) = ask(&zones, "h.old.test. A", 0);
    let text = render(&message);
    assert!(
        text.contains("an h.old.test. 300 CNAME h.new.test.\nan h.new.test. 300 A 192.0.2.60"),
        "{text}"
    );
    assert_eq!(outcome, Outcome::Authoritative);
    let long = format!(
        "{}{}old.test. A +edns=1232",
        "x.".repeat(110),
        "yyyyyyyyyyyyyyyyy."
    );
    let (message, ..) = ask(&zones, &long, 0);
    assert!(
        render(&message).starts_with("NXDOMAIN"),
        "{}",
        render(&message)
    );
    let long_target = format!("old DNAME {}new\n", "z.".repeat(60));
    let zone = format!("@ SOA n h 1 2 3 4 5\n@ NS ns.example.\n{long_target}");
    let zones = self::zones(&[("test.", &zone)]);
    let (message, ..) = ask(&zones, &long, 0);
    assert!(
        render(&message).starts_with("YXDOMAIN aa\nan old.test."),
        "{}",
        render(&message)
    );
}

#[test]
fn answer_outside_own_zones_or_class_is_refused() {
    for question in [
        "www.example. A",
        ". NS",
        "est. A",
        "atest. A",
        "test. AXFR",
        "test. IXFR",
    ] {
        check(question, "REFUSED");
    }
    let zones = zones(&[("test.", ZONE)]);
    let mut packet = packet("test. TXT");
    let class = packet.len() - 1;
    packet[class] = 3;
    let mut out = [0; 512];
    let query = Query::parse(&packet).expect("a good query");
    let view = View {
        zones: &zones,
        cache: None,
        policy: None,
        chain: CHAIN_MAX,
    };
    let action = answer(&query, view, NOW, 0, 512, &mut out);
    assert_eq!(
        action,
        Action::Respond {
            len: packet.len(),
            outcome: Outcome::Refused,
            source: 0
        }
    );
}

#[test]
fn answer_of_an_own_zone_comes_before_a_copy_of_a_cached_one() {
    let (own, none) = (zones(&[("test.", ZONE)]), zones(&[]));
    let packet = packet("www.test. A +rd");
    let query = Query::parse(&packet).expect("a good query");
    let config = CacheConfig {
        size: 1 << 20,
        min_ttl: Duration::ZERO,
        max_ttl: Duration::from_secs(86_400),
        negative_max_ttl: Duration::from_secs(3_600),
        stale: Duration::ZERO,
        stale_wait: Duration::ZERO,
        stale_ttl: Duration::ZERO,
        failure_ttl: (Duration::ZERO, Duration::ZERO),
        entry: 16 << 10,
        records: 100,
        ..CacheConfig::default()
    };
    let cache = Cache::new(config, Arc::new(Metrics::new()));
    let mut near = cache.near(1);
    let mut ask = |zones| {
        let view = View {
            zones,
            cache: Some((&cache, Partition(0))),
            policy: None,
            chain: CHAIN_MAX,
        };
        let mut out = [0; 512];
        let own = Own {
            path: &Path::new(query.name),
            near: Some(&mut near),
        };
        let action = answer_with(&query, own, view, NOW, 0, 512, &mut out);
        let len = match action {
            Action::Respond { len, .. } => len,
            Action::Recurse => 0,
        };
        (action, out[..len].to_vec())
    };
    let (_, message) = ask(&own);
    assert_eq!(ask(&none).0, Action::Recurse);
    assert!(cache.store(&query, Partition(0), &message, NOW));
    for (zones, expected) in [
        (&none, Outcome::CacheHit),
        (&none, Outcome::CacheHit),
        (&own, Outcome::Authoritative),
    ] {
        let (action, _) = ask(zones);
        assert!(
            matches!(action, Action::Respond { outcome, .. } if outcome == expected),
            "{action:?}, {expected:?} expected"
        );
    }
}

#[test]
fn answer_counts_as_what_it_is() {
    let zones = zones(&[("test.", ZONE)]);
    for (question, expected) in [
        ("www.test. A", Outcome::Authoritative),
        ("www.test. MX", Outcome::Nodata),
        ("no.test. MX", Outcome::Nxdomain),
        ("sub.test. MX", Outcome::Referral),
        ("example. MX", Outcome::Refused),
    ] {
        assert_eq!(ask(&zones, question, 0).1, expected, "{question}");
    }
}

#[test]
fn answer_too_large_has_tc_and_no_partial_rrset() {
    let mut zone = String::from("@ SOA ns host 1 2 3 4 5\n@ NS ns.example.\n");
    for number in 0..30 {
        zone.push_str(&format!("big TXT \"text number {number:02} of thirty\"\n"));
    }
    let zones = zones(&[("test.", &zone)]);
    let (message, _, len) = ask(&zones, "big.test. TXT", 0);
    assert_eq!(render(&message), "NOERROR aa tc");
    assert!(len < 64);
    let (message, ..) = ask(&zones, "big.test. TXT +edns=4096", 0);
    assert!(message.metadata.truncation || message.answers.len() == 30);
    assert_eq!(
        message.edns.as_ref().map(|edns| edns.max_payload()),
        Some(1232)
    );
}

#[test]
fn answer_without_room_for_glue_beneath_the_cut_has_tc() {
    let mut zone = String::from("@ SOA ns host 1 2 3 4 5\n@ NS ns.example.\n");
    for number in 0..16 {
        zone.push_str(&format!(
            "sub NS server{number:02}.sub\nserver{number:02}.sub A 192.0.2.1\n"
        ));
        zone.push_str(&format!(
            "near NS server{number:02}.far\nserver{number:02}.far A 192.0.2.1\n"
        ));
    }
    let zones = zones(&[("test.", &zone)]);
    let (message, ..) = ask(&zones, "x.sub.test. A", 0);
    assert!(message.metadata.truncation);
    assert_eq!(message.authorities.len(), 16);
    assert!(!message.additionals.is_empty());
    // Addresses that the other servers have too may be left out.
    let (message, ..) = ask(&zones, "x.near.test. A", 0);
    assert!(!message.metadata.truncation);
    assert!(message.additionals.len() < 16);
}

#[test]
fn answer_rotates_addresses_by_the_seed() {
    let zone =
        "@ SOA ns host 1 2 3 4 5\n@ NS ns.example.\nw A 192.0.2.0\nw A 192.0.2.1\nw A 192.0.2.2\n";
    let zones = zones(&[("test.", zone)]);
    for seed in 0..6 {
        let (message, ..) = ask(&zones, "w.test. A", seed);
        let order: Vec<String> = message
            .answers
            .iter()
            .map(|record| record.data.to_string())
            .collect();
        let expected: Vec<String> = (0..3)
            .map(|at| format!("192.0.2.{}", (at + seed) % 3))
            .collect();
        assert_eq!(order, expected);
    }
}

#[test]
fn answer_keeps_edns_and_do() {
    let zones = zones(&[("test.", ZONE)]);
    for question in ["www.test. A", "no.test. A", "x.sub.test. A", "example. A"] {
        let (message, ..) = ask(&zones, &format!("{question} +do +edns=4096"), 0);
        let edns = message.edns.as_ref().expect("an OPT for an OPT");
        assert_eq!(
            (edns.max_payload(), edns.flags().dnssec_ok, edns.version()),
            (1232, true, 0)
        );
        let (message, ..) = ask(&zones, question, 0);
        assert!(message.edns.is_none());
    }
}

#[test]
fn answer_across_own_zones_follows_the_alias() {
    let one = "@ SOA ns host 1 2 3 4 5\n@ NS ns.example.\na CNAME b.two.\nn CNAME n.two.\n";
    let two = "@ SOA ns host 1 2 3 4 9\n@ NS ns.example.\nb A 192.0.2.9\n";
    let zones = zones(&[("one.", one), ("two.", two)]);
    let (message, ..) = ask(&zones, "a.one. A", 0);
    assert_eq!(
        render(&message),
        "NOERROR aa\nan a.one. 300 CNAME b.two.\nan b.two. 300 A 192.0.2.9"
    );
    let (message, ..) = ask(&zones, "n.one. A", 0);
    assert_eq!(
        render(&message),
        "NXDOMAIN aa\nan n.one. 300 CNAME n.two.\nau two. 9 SOA ns.two. host.two. 1 2 3 4 9"
    );
}

#[test]
fn answer_over_tcp_writes_out_owners_that_no_pointer_reaches() {
    let mut zone = String::from("@ SOA ns host 1 2 3 4 5\n@ NS ns.example.\n");
    for number in 0..700 {
        zone.push_str(&format!(
            "many MX 1 a-rather-long-mail-exchanger-name-{number:03}.m\n"
        ));
        zone.push_str(&format!(
            "a-rather-long-mail-exchanger-name-{number:03}.m A 192.0.2.1\n"
        ));
    }
    let zones = zones(&[("test.", &zone)]);
    let packet = packet("many.test. MX");
    let query = Query::parse(&packet).expect("a good query");
    let mut out = vec![0; 65_535];
    let view = View {
        zones: &zones,
        cache: None,
        policy: None,
        chain: CHAIN_MAX,
    };
    let Action::Respond { len, .. } = answer(&query, view, NOW, 0, 65_535, &mut out) else {
        panic!("no cache, so nothing to recurse for");
    };
    let message = Message::from_vec(&out[..len]).expect("an answer that decodes");
    assert_eq!(message.answers.len(), 700);
    assert!(message.additionals.len() > 400);
    for (answer, additional) in message.answers.iter().zip(&message.additionals) {
        assert!(
            answer
                .data
                .to_string()
                .ends_with(&additional.name.to_string())
        );
    }
}

/// `unsafe` is denied in this crate, so no counting allocator can watch; that no type or call which allocates is
/// named on the path of an answer is as good.
#[test]
fn answer_path_names_nothing_that_allocates() {
    let files = [
        ("answer", include_str!("../answer.rs")),
        ("proof", include_str!("proof.rs")),
        ("wire", include_str!("../wire.rs")),
        ("path", include_str!("../zone/path.rs")),
    ];
    for (file, source) in files {
        let code = source.split("#[cfg(test)]").next().unwrap_or_default();
        for word in [
            "Vec", "String", "Box", "Arc", "format!", "vec!", "to_vec", "to_owned", "collect",
            "clone()",
        ] {
            let found = code
                .lines()
                .find(|line| line.contains(word) && !line.trim_start().starts_with("//"));
            assert_eq!(found, None, "{file}: `{word}`");
        }
    }
}

mod laws;

#[test]
fn service_brings_addresses_of_its_target_and_an_alias_its_service_too() {
    let text = "$TTL 300\n@ SOA ns host 1 2 3 4 60\n@ NS ns\nns A 192.0.2.1\n\
        @ HTTPS 0 svc\nsvc HTTPS 1 . alpn=h2\nsvc HTTPS 2 pool\nsvc A 192.0.2.2\npool AAAA 2001:db8::1\n\
        out SVCB 0 svc.example.\nport SVCB 1 pool port=8443\nport SVCB 2 svc port=53 alpn=dot\n\
        port SVCB 3 pool port=53\nnone HTTPS 0 .\nnone A 192.0.2.3\n\
        *.w SVCB 1 . port=1\n*.w SVCB 2 *.w port=2\n*.w A 192.0.2.4\n";
    let zones = zones(&[("s.test.", text)]);
    let additional = |question: &str| {
        let (message, ..) = ask(&zones, question, 0);
        let row = |r: &hickory_proto::rr::Record| format!("{} {}", r.name, r.record_type());
        message.additionals.iter().map(row).collect::<Vec<_>>()
    };
    assert_eq!(
        additional("s.test. HTTPS"),
        ["svc.s.test. A", "svc.s.test. HTTPS", "svc.s.test. HTTPS"]
    );
    // Its own name is one of its targets.
    assert_eq!(
        additional("svc.s.test. HTTPS"),
        ["svc.s.test. A", "pool.s.test. AAAA"]
    );
    assert_eq!(additional("none.s.test. HTTPS"), [""; 0]);
    assert_eq!(additional("x.w.s.test. SVCB"), ["x.w.s.test. A"]);
    assert_eq!(additional("out.s.test. SVCB"), [""; 0]);
    assert_eq!(
        additional("port.s.test. SVCB"),
        ["svc.s.test. A", "pool.s.test. AAAA"]
    );
}

#[test]
fn loops_give_no_record_twice() {
    let text = "$TTL 300\n@ SOA ns host 1 2 3 4 60\n@ NS ns\nns A 192.0.2.1\n\
        *.w CNAME self.w\nup DNAME x.up\na DNAME b\nb DNAME a\n";
    let zones = zones(&[("l.test.", text)]);
    let check = |name: &str, records, expected| {
        let (message, outcome, _) = ask(&zones, &format!("{name}.l.test. A +edns=4096"), 0);
        let rows: std::collections::BTreeSet<_> =
            message.answers.iter().map(ToString::to_string).collect();
        assert_eq!(rows.len(), message.answers.len(), "{name}: {rows:?}");
        assert_eq!(
            (rows.len(), outcome),
            (records, expected),
            "{name}: {rows:?}"
        );
    };
    check("q.w", 2, Outcome::Authoritative);
    check("self.w", 1, Outcome::Authoritative);
    check("q.a", 4, Outcome::Authoritative);
    check("q.up", 1 + CHAIN_MAX + 1, Outcome::Chain);
}

#[test]
fn aliases_are_followed_up_to_the_bound() {
    let mut text = String::from(
        "$TTL 300\n@ SOA ns host 1 2 3 4 60\n@ NS ns\nns A 192.0.2.1\na13 A 192.0.2.2\n",
    );
    for i in 0..13 {
        text += &format!("a{i} CNAME a{}\n", i + 1);
    }
    let zones = zones(&[("chain.test.", &text)]);
    let check = |name: &str, chain, records, expected| {
        let packet = packet(&format!("{name}.chain.test. A"));
        let query = Query::parse(&packet).expect("a good query");
        let view = View {
            zones: &zones,
            cache: None,
            policy: None,
            chain,
        };
        let mut out = [0; 1232];
        let Action::Respond { outcome, .. } = answer(&query, view, NOW, 0, 1232, &mut out) else {
            panic!("no cache, so nothing to recurse for");
        };
        assert_eq!(
            (outcome, out[7]),
            (expected, records),
            "{name} with {chain}"
        );
    };
    check("a0", CHAIN_MAX, 11, Outcome::Chain);
    check("a1", 1_000, 11, Outcome::Chain);
    check("a2", CHAIN_MAX, 12, Outcome::Authoritative);
    check("a11", 2, 3, Outcome::Authoritative);
    check("a11", 1, 1, Outcome::Chain);
    check("a13", 0, 1, Outcome::Authoritative);
    check("a11", 0, 0, Outcome::Chain);
}
