//! CNAMEs of local data and policy zones: the target is looked up as any other name, and the two answers are joined.

use super::super::message::{Name, Record, Writer};
use super::Policy;
use super::rules::Act;
use crate::dns::wire::{self, NAME_MAX, Query, Rcode, Section};
use crate::dns::zone::path::Path;

/// A local CNAME for the name of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dns) struct Alias {
    /// Its target in wire form.
    target: Vec<u8>,
    ttl: u32,
}

impl Policy {
    /// The CNAME that the rules have for the name of a query.
    pub(in crate::dns) fn alias(&self, query: &Query<'_>) -> Option<Alias> {
        let (list, found) = self.find(&Path::new(query.name))?;
        let (Act::Records(index) | Act::Apex(index)) = found.act else {
            return None;
        };
        let sets = list.rules.sets(index);
        let record = &sets.iter().find(|set| set.rtype == CNAME)?.bytes;
        list.hits.inc();
        let ttl = u32::from_be_bytes([record[6], record[7], record[8], record[9]]);
        let mut target = record[12..].to_vec();
        // `*.garden.example`: beneath it the name that was asked for, if there is room.
        if target.starts_with(b"\x01*") && query.name.len() + target.len() - 3 <= NAME_MAX {
            let name = &query.name[..query.name.len() - 1];
            target.splice(..2, name.iter().copied());
        }
        Some(Alias { target, ttl })
    }
}

impl Alias {
    /// The query for the target, as the client would ask it.
    pub(in crate::dns) fn query(&self, query: &Query<'_>) -> Vec<u8> {
        let header = &query.packet[..12];
        let additional = u8::from(query.edns.is_some());
        let mut packet = header[..4].to_vec();
        packet.extend([0, 1, 0, 0, 0, 0, 0, additional]);
        packet.extend_from_slice(&self.target);
        packet.extend_from_slice(&query.packet[12 + query.name.len()..12 + query.name.len() + 4]);
        if let Some(edns) = query.edns {
            packet.extend(opt(edns.dnssec_ok));
        }
        packet
    }

    /// The CNAME, then what `answer` says of its target, as the answer to `query` in at most `limit` bytes; else only TC.
    /// `None`: `answer` is no message, or `limit` is none.
    pub(in crate::dns) fn join(
        &self,
        query: &Query<'_>,
        answer: &[u8],
        limit: usize,
    ) -> Option<Vec<u8>> {
        let header = answer.get(..12)?;
        let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let mut records = Writer::new(query.name, query.qtype);
        let question = records.bytes.len();
        // The CNAME as a message of its own, to be read from.
        let mut own = query.name.to_vec();
        own.extend(CNAME.to_be_bytes());
        own.extend([0, 1]);
        own.extend(self.ttl.to_be_bytes());
        own.extend((self.target.len() as u16).to_be_bytes()); // At most NAME_MAX.
        own.extend_from_slice(&self.target);
        let (record, _) = Record::read(&own, 0)?;
        records.record(&own, &record, self.ttl)?;
        let mut counts = [1_u16, 0];
        if query.qtype != CNAME {
            let (_, mut at) = Name::read(answer, 12)?;
            at += 4;
            for (section, number) in [count(6), count(8)].into_iter().enumerate() {
                for _ in 0..number {
                    let (record, next) = Record::read(answer, at)?;
                    records.record(answer, &record, record.ttl)?;
                    counts[section] += 1;
                    at = next;
                }
            }
        }
        let mut out = vec![0; limit];
        let mut writer = wire::Writer::new(query, limit, &mut out)?;
        writer.recursion_available();
        // Header and question are as long, so the pointers hold.
        if writer.append(&records.bytes[question..]) {
            writer.count(Section::Answer, counts[0]);
            writer.count(Section::Authority, counts[1]);
        } else {
            writer.truncated();
        }
        if header[2] & FLAG_TC != 0 {
            writer.truncated();
        }
        // The code for the last name of the chain (RFC 6604 section 3).
        match header[3] & 0x0F {
            _ if query.qtype == CNAME => {}
            0 => {}
            3 => writer.rcode(Rcode::NxDomain),
            _ => writer.rcode(Rcode::ServFail),
        }
        let len = writer.finish();
        out.truncate(len);
        Some(out)
    }
}

/// An OPT record with our payload size.
fn opt(dnssec_ok: bool) -> [u8; 11] {
    let [high, low] = crate::dns::wire::PAYLOAD.to_be_bytes();
    let flags = u8::from(dnssec_ok) << 7;
    [0, 0, 41, high, low, 0, 0, flags, 0, 0, 0]
}

const CNAME: u16 = 5;
const FLAG_TC: u8 = 0x02;

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;

    use super::super::super::testing::{Asked, message};
    use super::super::load::testing::policy;
    use super::super::{Format, Response};
    use super::*;

    const ZONE: &str =
        "$TTL 60\nwww.example CNAME garden.test.\n*.wild.example CNAME *.garden.test.\n";

    #[test]
    fn alias_and_answer_of_its_target_are_one_answer() {
        let policy = policy(&[("rpz.test.", ZONE, Format::Rpz, Response::NxDomain)]);
        let asked = Asked::new("wWw.example.", 1).edns(true);
        let query = asked.query();
        let alias = policy.alias(&query).unwrap();
        let packet = alias.query(&query);
        let inner = Query::parse(&packet).unwrap();
        assert_eq!((inner.name, inner.qtype), (&b"\x06garden\x04test\0"[..], 1));
        assert!(inner.edns.is_some_and(|edns| edns.dnssec_ok));
        let reply = message("garden.test.", 1, 0, &["garden.test. 30 A 192.0.2.1"], &[]);
        let joined = alias.join(&query, &reply, 1232).unwrap();
        let whole = Message::from_vec(&joined).unwrap();
        let answers: Vec<_> = whole.answers.iter().map(ToString::to_string).collect();
        assert_eq!(
            answers,
            [
                "wWw.example. 60 IN CNAME garden.test.",
                "garden.test. 30 IN A 192.0.2.1"
            ]
        );
        assert_eq!(whole.metadata.id, query.id);
        assert!(whole.edns.is_some());
        let many: Vec<_> = (1..100)
            .map(|n| format!("garden.test. 30 A 192.0.2.{n}"))
            .collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let reply = message("garden.test.", 1, 0, &many, &[]);
        let cut = Message::from_vec(&alias.join(&query, &reply, 1232).unwrap()).unwrap();
        assert!(cut.metadata.truncation && cut.answers.is_empty());
    }

    #[test]
    fn alias_to_a_wildcard_keeps_the_name_asked_for() {
        let policy = policy(&[("rpz.test.", ZONE, Format::Rpz, Response::NxDomain)]);
        let asked = Asked::new("a.wild.example.", 1);
        let alias = policy.alias(&asked.query()).unwrap();
        assert_eq!(
            alias.target,
            b"\x01a\x04wild\x07example\x06garden\x04test\0"
        );
    }
}
