//! A rule as an answer, composed in place.

use super::rules::{Act, Match, Set};
use super::special::TTL;
use super::{List, Policy};
use crate::dns::wire::{Ede, HEADER_LEN, Query, Rcode, Reason, Section, Writer};
use crate::dns::zone::path::Path;
use crate::dns::{Outcome, Transport};

/// What the rules say of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dns) enum Ruling {
    /// `out[..len]` is the answer; with the outcome `Dropped` there is none.
    Respond {
        /// Bytes of the answer.
        len: usize,
        /// How it is counted.
        outcome: Outcome,
    },
    /// A local CNAME: its target is to be looked up ([`Policy::alias`]).
    Alias,
}

impl Policy {
    /// What the rules say of a query (class IN) from a client that may recurse; `None`: nothing, it is resolved as
    /// usual. `path` is that of its name. Allocates nothing.
    #[inline]
    pub(in crate::dns) fn answer(
        &self,
        query: &Query<'_>,
        path: &Path,
        transport: Transport,
        limit: usize,
        out: &mut [u8],
    ) -> Option<Ruling> {
        let (list, found) = self.find(path)?;
        list.answer(found, query, path, transport, limit, out)
    }
}

impl List {
    fn answer(
        &self,
        found: Match,
        query: &Query<'_>,
        path: &Path,
        transport: Transport,
        limit: usize,
        out: &mut [u8],
    ) -> Option<Ruling> {
        if found.act == Act::Truncate && transport != Transport::Udp {
            return None;
        }
        let is_apex = matches!(found.act, Act::Apex(_));
        if is_apex && query.qtype == DS && path.labels() > 1 {
            return None; // The parent's to say, so that validators see an insecure delegation.
        }
        let sets = match found.act {
            Act::Records(index) | Act::Apex(index) => self.rules.sets(index),
            _ => &[],
        };
        if query.recursion_desired && query.qtype != ANY && sets.iter().any(|s| s.rtype == CNAME) {
            return Some(Ruling::Alias);
        }
        self.hits.inc();
        let dropped = Some(Ruling::Respond {
            len: 0,
            outcome: Outcome::Dropped,
        });
        if found.act == Act::Drop {
            return dropped;
        }
        let Some(writer) = Writer::new(query, limit, out) else {
            return dropped;
        };
        let mut answer = Answer {
            writer,
            zone: HEADER_LEN + path.offset(found.zone),
            ttl: if self.own { TTL } else { self.ttl },
        };
        answer.writer.recursion_available();
        if self.own {
            answer.writer.authoritative();
        } else if let Some(reason) = self.reason(found.act) {
            answer.writer.reason(reason);
        }
        match found.act {
            Act::NxDomain => {
                answer.writer.rcode(Rcode::NxDomain);
                answer.negative();
            }
            Act::Refused => answer.writer.rcode(Rcode::Refused),
            Act::Truncate => answer.writer.truncated(),
            Act::Null => answer.null(query.qtype),
            Act::Apex(_) if query.qtype == SOA => answer.soa(Section::Answer),
            Act::Apex(_) if query.qtype == NS => answer.ns(),
            _ => answer.records(sets, query.qtype),
        }
        let outcome = if self.own {
            Outcome::Local
        } else {
            Outcome::Blocked
        };
        Some(Ruling::Respond {
            len: answer.writer.finish(),
            outcome,
        })
    }
}

impl List {
    /// Why an answer is not the one of the name's owner (RFC 8914 sections 4.5 and 4.16).
    fn reason(&self, act: Act) -> Option<Reason> {
        match act {
            Act::Truncate => None,
            Act::Null | Act::Records(_) => Some(Ede::ForgedAnswer.into()),
            _ => Some(self.ede.into()),
        }
    }
}

struct Answer<'o> {
    writer: Writer<'o>,
    /// Where the name of the SOA begins: in the question.
    zone: usize,
    ttl: u32,
}

impl Answer<'_> {
    /// The records of the type, or that there are none. ANY is answered with one RRset (RFC 8482 section 4.1).
    fn records(&mut self, sets: &[Set], qtype: u16) {
        let set = sets.iter().find(|set| set.rtype == qtype || qtype == ANY);
        match set {
            None => self.negative(),
            Some(set) => self.put(&set.bytes, set.count, Section::Answer),
        }
    }

    fn null(&mut self, qtype: u16) {
        let length = match qtype {
            A => 4,
            AAAA => 16,
            _ => return self.negative(),
        };
        let mut record = [0; 28];
        record[..2].copy_from_slice(&[0xC0, 0x0C]);
        record[2..4].copy_from_slice(&qtype.to_be_bytes());
        record[5] = 1;
        record[6..10].copy_from_slice(&self.ttl.to_be_bytes());
        record[11] = length;
        self.put(&record[..12 + usize::from(length)], 1, Section::Answer);
    }

    /// A SOA, so that the client may keep the answer (RFC 2308 section 5).
    fn negative(&mut self) {
        self.soa(Section::Authority);
    }

    /// The SOA of RFC 6303 section 3.
    fn soa(&mut self, section: Section) {
        let mut record = [0; 12 + SOA_LEN];
        let zone = (0xC000 | self.zone as u16).to_be_bytes(); // In the question: below 300.
        self.head(&mut record, SOA, SOA_LEN as u8);
        record[12..14].copy_from_slice(&zone);
        record[14..14 + NOBODY.len()].copy_from_slice(NOBODY);
        let numbers = [1, 3_600, 1_200, 604_800, self.ttl];
        for (index, number) in numbers.into_iter().enumerate() {
            let at = 14 + NOBODY.len() + 4 * index;
            record[at..at + 4].copy_from_slice(&u32::to_be_bytes(number));
        }
        self.put(&record, 1, section);
    }

    fn ns(&mut self) {
        let mut record = [0; 14];
        self.head(&mut record, NS, 2);
        record.copy_within(..2, 12);
        self.put(&record, 1, Section::Answer);
    }

    fn head(&self, record: &mut [u8], rtype: u16, length: u8) {
        record[..2].copy_from_slice(&(0xC000 | self.zone as u16).to_be_bytes()); // As above.
        record[2..4].copy_from_slice(&rtype.to_be_bytes());
        record[5] = 1;
        record[6..10].copy_from_slice(&self.ttl.to_be_bytes());
        record[11] = length;
    }

    fn put(&mut self, records: &[u8], count: u16, section: Section) {
        if self.writer.append(records) {
            self.writer.count(section, count);
        } else {
            self.writer.truncated();
        }
    }
}

const NOBODY: &[u8] = b"\x06nobody\x07invalid\0";

/// Bytes of the SOA's data: two names and five numbers.
const SOA_LEN: usize = 2 + NOBODY.len() + 20;

const A: u16 = 1;
const NS: u16 = 2;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const AAAA: u16 = 28;
const DS: u16 = 43;
const ANY: u16 = 255;

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;

    use super::super::load::testing::policy;
    use super::super::{Format, Response};
    use super::*;
    use crate::dns::wire::CODE_LEN_MAX;

    /// The answer: code, records of the answer section, owners of the authority section.
    fn ask(
        policy: &Policy,
        name: &str,
        qtype: u16,
        transport: Transport,
    ) -> Option<(Outcome, u16, Vec<String>, Vec<String>)> {
        let asked = super::super::super::testing::Asked::new(name, qtype);
        let query = asked.query();
        let mut out = [0; 1232];
        let ruling = policy.answer(&query, &Path::new(query.name), transport, 1232, &mut out)?;
        let Ruling::Respond { len, outcome } = ruling else {
            return Some((Outcome::Resolved, 0, vec![], vec![]));
        };
        if len == 0 {
            return Some((outcome, 0, vec![], vec![]));
        }
        let message = Message::from_vec(&out[..len]).unwrap();
        assert_eq!(message.metadata.id, query.id);
        assert!(message.metadata.recursion_available);
        let answers = message.answers.iter().map(ToString::to_string).collect();
        let owners = message.authorities.iter().map(|r| r.name.to_ascii());
        let code = u16::from(message.metadata.response_code);
        Some((outcome, code, answers, owners.collect()))
    }

    #[track_caller]
    fn check(
        policy: &Policy,
        name: &str,
        qtype: u16,
        expected: Option<(Outcome, u16, &[&str], &[&str])>,
    ) {
        let found = ask(policy, name, qtype, Transport::Udp);
        let expected = expected.map(|(outcome, code, answers, owners)| {
            let own = |texts: &[&str]| texts.iter().map(|&t| t.to_owned()).collect::<Vec<_>>();
            (outcome, code, own(answers), own(owners))
        });
        assert_eq!(found, expected, "{name} {qtype}");
    }

    #[test]
    fn special_names_are_answered_as_their_registries_say() {
        use Outcome::Local;
        let policy = policy(&[]);
        check(
            &policy,
            "A.localhost.",
            1,
            Some((Local, 0, &["A.localhost. 10800 IN A 127.0.0.1"], &[])),
        );
        check(
            &policy,
            "localhost.",
            28,
            Some((Local, 0, &["localhost. 10800 IN AAAA ::1"], &[])),
        );
        check(
            &policy,
            "localhost.",
            15,
            Some((Local, 0, &[], &["localhost."])),
        );
        check(
            &policy,
            "a.invalid.",
            1,
            Some((Local, 3, &[], &["invalid."])),
        );
        check(
            &policy,
            "7.1.168.192.in-addr.arpa.",
            12,
            Some((Local, 3, &[], &["168.192.in-addr.arpa."])),
        );
        check(
            &policy,
            "168.192.in-addr.arpa.",
            2,
            Some((
                Local,
                0,
                &["168.192.in-addr.arpa. 10800 IN NS 168.192.in-addr.arpa."],
                &[],
            )),
        );
        check(
            &policy,
            "1.0.0.127.in-addr.arpa.",
            12,
            Some((
                Local,
                0,
                &["1.0.0.127.in-addr.arpa. 10800 IN PTR localhost."],
                &[],
            )),
        );
        check(
            &policy,
            "_dns.resolver.arpa.",
            64,
            Some((Local, 0, &[], &["resolver.arpa."])),
        );
        check(&policy, "home.arpa.", 43, None);
        check(&policy, "www.example.", 1, None);
        check(&policy, ".", 2, None);
    }

    #[test]
    fn lists_answer_in_their_order_and_as_configured() {
        use Outcome::Blocked;
        let policy = policy(&[
            ("allow", "fine.ads.example\n", Format::Names, Response::Pass),
            ("null", "zero.example\n", Format::Names, Response::Null),
            (
                "ads",
                "ads.example\nzero.example\n",
                Format::Names,
                Response::NxDomain,
            ),
            ("no", "no.example\n", Format::Names, Response::Refused),
        ]);
        check(
            &policy,
            "x.ads.example.",
            1,
            Some((Blocked, 3, &[], &["ads.example."])),
        );
        check(&policy, "fine.ads.example.", 1, None);
        check(
            &policy,
            "zero.example.",
            1,
            Some((Blocked, 0, &["zero.example. 60 IN A 0.0.0.0"], &[])),
        );
        check(
            &policy,
            "zero.example.",
            28,
            Some((Blocked, 0, &["zero.example. 60 IN AAAA ::"], &[])),
        );
        check(
            &policy,
            "zero.example.",
            16,
            Some((Blocked, 0, &[], &["zero.example."])),
        );
        check(&policy, "no.example.", 1, Some((Blocked, 5, &[], &[])));
    }

    #[test]
    fn policy_zone_drops_and_asks_for_tcp() {
        let zone = "$TTL 60\nslow.example CNAME rpz-tcp-only.\nsilent.example CNAME rpz-drop.\n\
                    walled.example A 192.0.2.80\nalias.example CNAME walled.example.\n";
        let policy = policy(&[("rpz.test.", zone, Format::Rpz, Response::NxDomain)]);
        check(
            &policy,
            "silent.example.",
            1,
            Some((Outcome::Dropped, 0, &[], &[])),
        );
        check(
            &policy,
            "slow.example.",
            1,
            Some((Outcome::Blocked, 0, &[], &[])),
        );
        assert_eq!(ask(&policy, "slow.example.", 1, Transport::Tcp), None);
        check(
            &policy,
            "walled.example.",
            1,
            Some((
                Outcome::Blocked,
                0,
                &["walled.example. 60 IN A 192.0.2.80"],
                &[],
            )),
        );
        // To be looked up.
        check(
            &policy,
            "alias.example.",
            1,
            Some((Outcome::Resolved, 0, &[], &[])),
        );
    }

    #[test]
    fn answer_without_room_is_none() {
        let policy = policy(&[]);
        let asked = super::super::super::testing::Asked::new("a.invalid.", 1);
        let query = asked.query();
        let mut out = [0; CODE_LEN_MAX - 1];
        let path = Path::new(query.name);
        let ruling = policy.answer(&query, &path, Transport::Udp, 1232, &mut out);
        assert_eq!(
            ruling,
            Some(Ruling::Respond {
                len: 0,
                outcome: Outcome::Dropped
            })
        );
    }
}
