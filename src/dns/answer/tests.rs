//! Zone text and a question in, the whole answer as text out; then the laws over generated zones.

use std::path::PathBuf;
use std::sync::Arc;

use hickory_proto::op::Message;

use super::*;
use crate::dns::zone::load_text;
use crate::dns::{TtlOverride, ZoneConfig};

pub(super) fn config(name: &str, ttls: Vec<TtlOverride>) -> ZoneConfig {
    ZoneConfig {
        name: name.to_owned(),
        file: PathBuf::from("zone"),
        ttl: 300,
        ttls,
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
    let view = View { zones, cache: None };
    let Action::Respond { len, outcome } = answer(&query, view, NOW, seed, limit, &mut out) else {
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
