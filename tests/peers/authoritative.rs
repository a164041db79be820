//! Authoritative answers compared with NSD's on the same zones (`tests/data/zones`).
//!
//! Every name of the list is asked for every type, then again in other shapes: without EDNS, with small and large
//! payloads, with DO, in mixed case, over TCP. Code, flags, sections and TTLs must be equal, or one of
//! [`DIFFERENCES`] must turn NSD's answer into ours; each of those is argued, and one that no answer needs is stale.
//! `signed` asks the same of signed zones, with DO.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};

use super::harness::{COMMON, Node, Nsd};

#[test]
fn authoritative_answers_equal_those_of_nsd() {
    let mut node = Node::new(&format!(
        "{COMMON}\n[resolver]\nmode = \"off\"\n{}",
        ZONES
            .iter()
            .map(|zone| format!("[[zone]]\nname = \"{zone}.\"\nfile = \"{zone}.zone\"\n"))
            .collect::<String>()
    ));
    for zone in ZONES {
        node.write(&format!("{zone}.zone"), text(zone));
    }
    node.start();
    compare(SocketAddr::from((Ipv4Addr::LOCALHOST, node.dns)));
}

/// Compares the server at `ours`, which serves [`ZONES`] and does not recurse, with an NSD started here.
pub(crate) fn compare(ours: SocketAddr) {
    let texts: Vec<(&str, String)> = ZONES.iter().map(|zone| (*zone, text(zone))).collect();
    let zones: Vec<(&str, &str)> = texts
        .iter()
        .map(|(zone, text)| (*zone, text.as_str()))
        .collect();
    let nsd = Nsd::start(&zones);
    let theirs = SocketAddr::from((Ipv4Addr::LOCALHOST, nsd.port));
    let questions = questions();
    assert!(questions.len() >= 200, "{} questions", questions.len());
    alike(ours, theirs, "NSD", &questions, DIFFERENCES);
}

/// Asks both servers the same questions. Each answer is alike, or the differences turn theirs into ours, and none of
/// these is there for nothing.
pub(crate) fn alike(
    ours: SocketAddr,
    theirs: SocketAddr,
    peer: &str,
    questions: &[Question],
    differences: &[Difference],
) {
    let mut used = BTreeSet::new();
    let mut unlike = Vec::new();
    for question in questions {
        let (seen_ours, seen_theirs) = (question.ask(ours), question.ask(theirs));
        let mut adjusted = seen_theirs.clone();
        let mut needed = Vec::new();
        for difference in differences.iter().filter(|_| seen_ours != seen_theirs) {
            let before = adjusted.clone();
            (difference.adjust)(question, &seen_ours, &mut adjusted);
            if adjusted != before {
                needed.push(difference.name);
            }
        }
        if seen_ours == adjusted {
            used.extend(needed);
        } else {
            unlike.push(format!(
                "{question:?}\n  ours   {}\n  theirs {}",
                seen_ours.beside(&adjusted),
                adjusted.beside(&seen_ours)
            ));
        }
    }
    let total = questions.len();
    assert!(
        unlike.is_empty(),
        "{} of {total} answers are unlike those of {peer} for no reason given:\n{}",
        unlike.len(),
        unlike[..unlike.len().min(SHOWN)].join("\n")
    );
    for difference in differences {
        let Difference { name, why, .. } = difference;
        assert!(
            used.contains(name),
            "no answer needs the difference `{name}` ({why})"
        );
    }
}

/// What is meant to be unlike, and why ours is right.
const DIFFERENCES: &[Difference] = &[MINIMAL, ANY, GLUE];

pub(crate) const MINIMAL: Difference = Difference {
    name: "minimal",
    why: "A positive answer carries no NS of the zone and no addresses of those: nobody needs them, and they \
              make answers larger for an attacker's reflections. NSD has a switch for it, but that one also drops \
              the addresses of MX and SRV targets, which save a client its next question.",
    adjust: |_, _, theirs| {
        let ours = |row: &Row| ZONES.contains(&row.owner.trim_end_matches('.'));
        let servers = |row: &Row| row.rtype == "NS" || row.covers(2);
        // A referral, or the proof of a negative answer, at the end of an alias stays: it is what the answer says.
        let says = |row: &Row| row.rtype == "SOA" || row.rtype == "NS" && !ours(row);
        if theirs.answer.is_empty() || theirs.authority.iter().any(says) {
            return;
        }
        let named = |sections: &BTreeSet<Row>, owner: &str| {
            sections
                .iter()
                .any(|record| record.data.split(' ').next_back() == Some(owner))
        };
        let (authority, kept) = std::mem::take(&mut theirs.authority)
            .into_iter()
            .partition(servers);
        theirs.authority = kept;
        let answer = &theirs.answer;
        theirs
            .additional
            .retain(|record| named(answer, &record.owner) || !named(&authority, &record.owner));
    },
};

pub(crate) const ANY: Difference = Difference {
    name: "any",
    why: "Both answer ANY with one RRset (RFC 8482 section 4.1). Which one is free; ours is that of the lowest \
              type number.",
    adjust: |question, ours, theirs| {
        let single = |answer: &BTreeSet<Row>| {
            let keys: BTreeSet<_> = answer
                .iter()
                .filter(|row| row.rtype != "RRSIG")
                .map(|row| (&row.owner, &row.rtype))
                .collect();
            keys.len() == 1
        };
        if question.rtype == "ANY" && single(&ours.answer) && single(&theirs.answer) {
            theirs.answer.clone_from(&ours.answer);
            theirs.additional.clone_from(&ours.additional);
        }
    },
};

pub(crate) const GLUE: Difference = Difference {
    name: "glue",
    why: "A referral that cannot hold all glue beneath the delegation has TC set (RFC 9471 section 3.1); NSD \
              leaves glue out in silence, and a resolver that needs the missing part has no way to know.",
    adjust: |_, ours, theirs| {
        let referral = ours.answer.is_empty() && !ours.authoritative;
        // NSD also points a name server's name to an equal question, which makes room for one address more.
        if referral && ours.truncated && ours.additional.is_subset(&theirs.additional) {
            theirs.truncated = true;
            theirs.additional.clone_from(&ours.additional);
        }
    },
};

/// A way in which a peer's answer is turned into ours.
#[derive(Clone, Copy)]
pub(crate) struct Difference {
    pub(crate) name: &'static str,
    pub(crate) why: &'static str,
    pub(crate) adjust: fn(&Question, &Seen, &mut Seen),
}

impl Row {
    /// Whether it is the signature of an NSEC or NSEC3 record.
    pub(crate) fn covers_proof(&self) -> bool {
        // As below.
        self.rtype == "RRSIG" && (self.data.starts_with("ac8") || self.data.starts_with("adi"))
    }

    /// Whether it is the signature of an alias.
    pub(crate) fn covers_alias(&self) -> bool {
        // As below.
        self.rtype == "RRSIG" && self.data.starts_with("aau")
    }

    /// Whether this is a signature of a type of which the number is below 4.
    pub(crate) fn covers(&self, rtype: u8) -> bool {
        // The data is shown in base64, made lower case: the number is in its first three characters.
        let start = ["aaa", "aae", "aai", "aam"][usize::from(rtype)];
        self.rtype == "RRSIG" && self.data.starts_with(start)
    }
}

/// One question and how it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) name: String,
    pub(crate) rtype: &'static str,
    /// EDNS payload size; `None`: no EDNS.
    pub(crate) payload: Option<u16>,
    pub(crate) dnssec_ok: bool,
    pub(crate) tcp: bool,
}

/// One answer, as far as it is compared. Sections are sets: their order means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) code: ResponseCode,
    pub(crate) authoritative: bool,
    pub(crate) truncated: bool,
    /// Payload size and DO.
    pub(crate) edns: Option<(u16, bool)>,
    question: String,
    pub(crate) answer: BTreeSet<Row>,
    pub(crate) authority: BTreeSet<Row>,
    pub(crate) additional: BTreeSet<Row>,
}

impl Seen {
    /// What `other` does not have.
    fn beside(&self, other: &Self) -> String {
        let flags = (self.code, self.authoritative, self.truncated, self.edns);
        let beside = |mine: &BTreeSet<Row>, theirs: &BTreeSet<Row>| {
            let rows = mine.difference(theirs);
            let rows: Vec<String> = rows
                .map(|row| format!("{} {} {} {:.20}", row.owner, row.ttl, row.rtype, row.data))
                .collect();
            format!("{} of {}: {rows:?}", rows.len(), mine.len())
        };
        format!(
            "{flags:?} an {} au {} ad {}",
            beside(&self.answer, &other.answer),
            beside(&self.authority, &other.authority),
            beside(&self.additional, &other.additional)
        )
    }
}

/// One record; names in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) owner: String,
    ttl: u32,
    pub(crate) rtype: String,
    pub(crate) data: String,
}

fn questions() -> Vec<Question> {
    let mut questions = Vec::new();
    let plain = |name: &str, rtype| Question {
        name: name.to_owned(),
        rtype,
        payload: Some(1232),
        dnssec_ok: false,
        tcp: false,
    };
    for name in names() {
        for (rtype, _) in TYPES {
            let question = plain(&name, rtype);
            questions.push(question.clone());
            if !matches!(*rtype, "A" | "TXT" | "NS" | "DS" | "MX" | "ANY") {
                continue;
            }
            questions.push(Question {
                payload: None,
                ..question.clone()
            });
            questions.push(Question {
                tcp: true,
                ..question.clone()
            });
            if matches!(*rtype, "A" | "TXT") {
                for payload in [0, 512, 700, 4096] {
                    questions.push(Question {
                        payload: Some(payload),
                        ..question.clone()
                    });
                }
                questions.push(Question {
                    dnssec_ok: true,
                    ..question.clone()
                });
                let mixed = name.char_indices().map(|(at, letter)| {
                    if at % 2 == 0 {
                        letter.to_ascii_uppercase()
                    } else {
                        letter
                    }
                });
                questions.push(Question {
                    name: mixed.collect(),
                    ..question
                });
            }
        }
    }
    questions
}

/// The names asked, absolute.
pub(crate) fn names() -> impl Iterator<Item = String> {
    NAMES.iter().map(|name| match *name {
        "@" => "tricky.test.".to_owned(),
        name if name.ends_with('.') => name.to_owned(),
        name => format!("{name}.tricky.test."),
    })
}

impl Question {
    fn packet(&self) -> Vec<u8> {
        let mut packet = vec![
            0x12,
            0x34,
            0,
            0,
            0,
            1,
            0,
            0,
            0,
            0,
            0,
            u8::from(self.payload.is_some()),
        ];
        let mut label = Vec::new();
        let mut bytes = self.name.trim_start_matches('.').bytes(); // The root is no label.
        while let Some(byte) = bytes.next() {
            match byte {
                b'\\' => label.push(bytes.next().expect("an escaped character")),
                b'.' => {
                    packet.push(u8::try_from(label.len()).expect("a short label"));
                    packet.append(&mut label);
                }
                byte => label.push(byte),
            }
        }
        packet.push(0);
        let (_, number) = TYPES
            .iter()
            .chain(SIGNED_TYPES)
            .chain(SERVICE_TYPES)
            .find(|(name, _)| *name == self.rtype)
            .expect("a listed type");
        packet.extend(number.to_be_bytes());
        packet.extend([0, 1]);
        if let Some(payload) = self.payload {
            packet.extend([0, 0, 41]);
            packet.extend(payload.to_be_bytes());
            packet.extend([0, 0, if self.dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
        }
        packet
    }

    fn ask(&self, server: SocketAddr) -> Seen {
        let packet = self.packet();
        let answer = if self.tcp {
            over_tcp(server, &packet)
        } else {
            over_udp(server, &packet)
        };
        let message = Message::from_vec(&answer).unwrap_or_else(|error| {
            panic!("{self:?} at {server}: not a message ({error}): {answer:?}")
        });
        assert_eq!(message.metadata.id, 0x1234);
        let rows = |records: &[hickory_proto::rr::Record]| {
            let row = |record: &hickory_proto::rr::Record| Row {
                owner: record.name.to_string().to_ascii_lowercase(),
                ttl: record.ttl,
                rtype: record.record_type().to_string(),
                data: record.data.to_string().to_ascii_lowercase(),
            };
            let set: BTreeSet<Row> = records.iter().map(row).collect();
            assert_eq!(
                set.len(),
                records.len(),
                "{self:?} at {server}: a record twice"
            );
            set
        };
        Seen {
            code: message.metadata.response_code,
            authoritative: message.metadata.authoritative,
            truncated: message.metadata.truncation,
            edns: message
                .edns
                .as_ref()
                .map(|edns| (edns.max_payload(), edns.flags().dnssec_ok)),
            question: message
                .queries
                .iter()
                .map(|query| query.to_string())
                .collect(),
            answer: rows(&message.answers),
            authority: rows(&message.authorities),
            additional: rows(&message.additionals),
        }
    }
}

fn over_udp(server: SocketAddr, packet: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    socket.set_read_timeout(Some(WAIT)).expect("a timeout");
    socket.connect(server).expect("loopback");
    let mut buffer = [0; 65_535];
    for _ in 0..3 {
        socket.send(packet).expect("loopback takes a datagram");
        if let Ok(len) = socket.recv(&mut buffer) {
            return buffer[..len].to_vec();
        }
    }
    panic!("no answer from {server}");
}

fn over_tcp(server: SocketAddr, packet: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server).expect("the server accepts");
    stream.set_read_timeout(Some(WAIT)).expect("a timeout");
    let len = u16::try_from(packet.len()).expect("a short query");
    let framed = [&len.to_be_bytes()[..], packet].concat();
    stream.write_all(&framed).expect("the server reads");
    let mut len = [0; 2];
    stream.read_exact(&mut len).expect("an answer");
    let mut answer = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut answer).expect("an answer");
    answer
}

pub(crate) fn text(zone: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/zones")
        .join(format!("{zone}.zone"));
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The zones both serve; each in the file of its name.
pub(crate) const ZONES: [&str; 3] = ["tricky.test", "other.test", "child.tricky.test"];

/// Unlike answers that a failure shows.
const SHOWN: usize = 20;

const WAIT: Duration = Duration::from_secs(2);

pub(crate) const TYPES: &[(&str, u16)] = &[
    ("A", 1),
    ("AAAA", 28),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("PTR", 12),
    ("MX", 15),
    ("TXT", 16),
    ("SRV", 33),
    ("DNAME", 39),
    ("DS", 43),
    ("CAA", 257),
    ("TYPE65280", 65_280),
    ("ANY", 255),
];

/// Types of signed zones, asked only there.
pub(crate) const SIGNED_TYPES: &[(&str, u16)] = &[
    ("RRSIG", 46),
    ("NSEC", 47),
    ("DNSKEY", 48),
    ("NSEC3", 50),
    ("NSEC3PARAM", 51),
];

/// Types of service bindings, asked where there are some.
const SERVICE_TYPES: &[(&str, u16)] = &[("SVCB", 64), ("HTTPS", 65)];

/// Names asked, relative to tricky.test. unless they end in a dot.
const NAMES: &[&str] = &[
    // The apex, and out of zone.
    "@",
    "test.",
    ".",
    "example.",
    "nottricky.test.",
    "other.test.",
    "www.other.test.",
    "missing.other.test.",
    "back.other.test.",
    "child",
    "www.child",
    "missing.child",
    "up.child",
    // Names and missing names.
    "www",
    "mixed",
    "ns1",
    "mail",
    "short",
    "zero",
    "odd",
    "medium",
    "large",
    "tolarge",
    "missing",
    "x.www",
    "x.y.z.www",
    "esc\\.aped",
    "\\*",
    "a-label-of-sixty-three-bytes-which-is-as-long-as-a-label-may-be",
    // Empty non-terminals.
    "ent",
    "b.ent",
    "a.b.ent",
    "x.ent",
    "x.b.ent",
    "x.a.b.ent",
    "_udp",
    "_sip._udp",
    "x._sip._udp",
    // Wildcards.
    "wild",
    "*.wild",
    "x.wild",
    "x.y.wild",
    "host.wild",
    "x.host.wild",
    "ent.wild",
    "x.ent.wild",
    "y.ent.wild",
    "x.*.wild",
    "x.aliased",
    "y.x.aliased",
    "aliased",
    "x.chased",
    "star",
    "*.star",
    "x.star",
    "sub.*.star",
    "x.*.star",
    "sub.x.star",
    "x.mx",
    "host.covered",
    // Aliases.
    "alias",
    "chain",
    "longer",
    "dangling",
    "nodata",
    "outside",
    "elsewhere",
    "there",
    "loop1",
    "loop2",
    "self",
    "towild",
    "todeleg",
    "tochild",
    "hop1",
    "hop6",
    // Delegations and what is at and beneath them.
    "sub",
    "host.sub",
    "x.host.sub",
    "ns.sub",
    "sibling",
    "ns.sibling",
    "atcut",
    "x.atcut",
    "noglue",
    "x.noglue",
    "deleg",
    "deep.deleg",
    "x.deep.deleg",
    "ns.deep.deleg",
    "wide",
    "x.wide",
    "ns-number-one.wide",
    // DNAME.
    "old",
    "h.old",
    "x.old",
    "x.h.old",
    "new",
    "h.new",
    "away",
    "www.away",
    "x.away",
];
