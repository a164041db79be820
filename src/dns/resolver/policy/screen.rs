//! Answers of upstreams, looked at once before they are kept: aliases to blocked names, blocked addresses, and private
//! addresses in public names (DNS rebinding).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::super::message::{Name, Record};
use super::rules::{Act, Set};
use super::special::is_in;
use super::{List, Policy};
use crate::dns::zone::path::Path;

/// What is to be kept in place of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dns) struct Screened {
    /// The message.
    pub(in crate::dns) message: Vec<u8>,
    /// Private addresses were taken out of it (else it is a list's).
    pub(in crate::dns) private: bool,
}

impl Policy {
    /// What to keep in place of `message`, a reply of an upstream; `None`: itself. `forwarded`: the name is in a
    /// configured forward zone, whose addresses may be private.
    pub(in crate::dns) fn screen(&self, message: &[u8], forwarded: bool) -> Option<Screened> {
        if self.private.is_none() && self.lists.iter().all(|list| list.own) {
            return None;
        }
        let (name, at) = Name::read(message, 12)?;
        let allowed = self.private.as_ref().is_none_or(|names| {
            let lower = name.to_lowercase();
            forwarded || names.iter().any(|zone| is_in(lower.as_wire(), zone))
        });
        if allowed && self.lists.iter().all(|list| list.own) {
            return None;
        }
        let question = 12..at + 4;
        let count = u16::from_be_bytes([*message.get(6)?, *message.get(7)?]);
        let path = Path::new(name.as_wire());
        let mut answers = Vec::with_capacity(usize::from(count).min(USUAL));
        let mut at = question.end;
        for _ in 0..count {
            let start = at;
            let (record, next) = Record::read(message, at)?;
            answers.push((record, start..next));
            at = next;
        }
        if let Some((list, act, sets)) = self.trigger(message, &path, &answers) {
            list.hits.inc();
            return Some(Screened {
                message: replacement(act, sets, list.ttl, message, question, &path),
                private: false,
            });
        }
        if allowed {
            return None;
        }
        without_private(message, question, &answers, at)
    }

    /// The first list that has something against the aliases or addresses of an answer.
    fn trigger(
        &self,
        message: &[u8],
        path: &Path,
        answers: &[(Record, Range<usize>)],
    ) -> Option<(&List, Act, &[Set])> {
        for list in self.lists.iter().filter(|list| !list.own) {
            if let Some(found) = list.rules.find(path) {
                // The name was let through on purpose; blocked ones do not come here.
                if found.act == Act::Pass {
                    return None;
                }
            }
            for (record, _) in answers {
                let found = if record.rtype == CNAME {
                    let (target, _) = Name::read(message, record.rdata.start)?;
                    let found = list.rules.find(&Path::new(target.as_wire()));
                    found.map(|found| match found.act {
                        Act::Records(index) => (found.act, list.rules.sets(index)),
                        act => (act, &[][..]),
                    })
                } else if list.addresses.is_empty() {
                    None
                } else {
                    let found = address(message, record).and_then(|a| list.addresses.find(a));
                    found.map(|act| match act {
                        Act::Records(index) => (act, list.addresses.sets(index)),
                        act => (act, &[][..]),
                    })
                };
                match found {
                    None => {}
                    Some((Act::Pass, _)) => return None,
                    Some((act, sets)) => return Some((list, act, sets)),
                }
            }
        }
        None
    }
}

/// What stands in for an answer. Refusing, dropping and TCP make no sense for what has been fetched, and are NXDOMAIN.
fn replacement(
    act: Act,
    sets: &[Set],
    ttl: u32,
    message: &[u8],
    question: Range<usize>,
    path: &Path,
) -> Vec<u8> {
    let qtype = [message[question.end - 4], message[question.end - 3]];
    let qtype = u16::from_be_bytes(qtype);
    let mut out = head(message, question);
    let mut null = Vec::new();
    if act == Act::Null && matches!(qtype, A | AAAA) {
        let zeros = [0; 16];
        let length = if qtype == A { 4 } else { 16 };
        // A few bytes always fit.
        let _ = Set::push(&mut null, qtype, ttl, &zeros[..length]);
    }
    let mut sets = sets.iter().chain(&null);
    if let Some(set) = sets.find(|set| set.rtype == qtype || set.rtype == CNAME) {
        out[6..8].copy_from_slice(&set.count.to_be_bytes());
        out.extend_from_slice(&set.bytes);
        return out;
    }
    if !matches!(act, Act::NoData | Act::Null | Act::Records(_)) {
        out[3] |= NXDOMAIN;
    }
    // The SOA of the name above tells how long this may be kept.
    let above = (12 + path.offset(path.labels().min(1))) as u16; // In the question: below 300.
    out[8..10].copy_from_slice(&1_u16.to_be_bytes());
    out.extend((0xC000 | above).to_be_bytes());
    out.extend(SOA.to_be_bytes());
    out.extend([0, 1]);
    out.extend(ttl.to_be_bytes());
    out.extend([0, 38]);
    out.extend((0xC000 | above).to_be_bytes());
    out.extend_from_slice(b"\x06nobody\x07invalid\0");
    for number in [1, 3_600, 1_200, 604_800, ttl] {
        out.extend(u32::to_be_bytes(number));
    }
    out
}

/// The message without the private addresses of its answer; `None`: it has none.
fn without_private(
    message: &[u8],
    question: Range<usize>,
    answers: &[(Record, Range<usize>)],
    end: usize,
) -> Option<Screened> {
    let is_bad = |record: &Record| address(message, record).is_some_and(is_private);
    if !answers.iter().any(|(record, _)| is_bad(record)) {
        return None;
    }
    // Names may point into a record that goes, so what stays is written anew.
    let (name, _) = Name::read(message, question.start)?;
    let qtype = u16::from_be_bytes([message[question.end - 4], message[question.end - 3]]);
    let mut writer = super::super::message::Writer::new(name.as_wire(), qtype);
    let mut counts = [0_u16; 2];
    for (record, _) in answers.iter().filter(|(record, _)| !is_bad(record)) {
        // A signature over what is gone is worth nothing.
        if record.rtype != RRSIG {
            writer.record(message, record, record.ttl)?;
            counts[0] += 1;
        }
    }
    let mut at = end;
    for _ in 0..u16::from_be_bytes([message[8], message[9]]) {
        let (record, next) = Record::read(message, at)?;
        writer.record(message, &record, record.ttl)?;
        counts[1] += 1;
        at = next;
    }
    let mut out = writer.bytes;
    out[..4].copy_from_slice(&message[..4]);
    out[3] &= !FLAG_AD;
    out[5] = 1;
    out[6..8].copy_from_slice(&counts[0].to_be_bytes());
    out[8..10].copy_from_slice(&counts[1].to_be_bytes());
    Some(Screened {
        message: out,
        private: true,
    })
}

/// Header and question, no records, no error.
fn head(message: &[u8], question: Range<usize>) -> Vec<u8> {
    let mut out = message[..question.end].to_vec();
    out[2] = FLAG_QR | message[2] & 1;
    out[3] = message[3] & 0x80;
    out[6..12].fill(0);
    out
}

/// The address of an A or AAAA record.
fn address(message: &[u8], record: &Record) -> Option<IpAddr> {
    let data = message.get(record.rdata.clone())?;
    match record.rtype {
        A => Some(IpAddr::from(<[u8; 4]>::try_from(data).ok()?)),
        AAAA => Some(IpAddr::from(<[u8; 16]>::try_from(data).ok()?)),
        _ => None,
    }
}

/// Whether a public name has no business with this address: loopback, link-local, private and unspecified networks, also
/// inside IPv6.
fn is_private(address: IpAddr) -> bool {
    let v4 = |address: Ipv4Addr| {
        address.is_private()
            || address.is_loopback()
            || address.is_link_local()
            || address.octets()[0] == 0
    };
    match address {
        IpAddr::V4(address) => v4(address),
        IpAddr::V6(address) => {
            address == Ipv6Addr::UNSPECIFIED
                || address.is_loopback()
                || address.is_unique_local()
                || address.is_unicast_link_local()
                || address.to_ipv4_mapped().is_some_and(v4)
        }
    }
}

const A: u16 = 1;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const AAAA: u16 = 28;
const RRSIG: u16 = 46;
const NXDOMAIN: u8 = 3;
const FLAG_QR: u8 = 0x80;
const FLAG_AD: u8 = 0x20;

/// Records of an answer there is room for at once.
const USUAL: usize = 8;

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;

    use super::super::super::testing::message;
    use super::super::load::testing::{policy, private};
    use super::super::{Format, Response};
    use super::*;

    /// What is kept: the code and the answers.
    #[track_caller]
    fn check(
        policy: &Policy,
        question: &str,
        qtype: u16,
        answers: &[&str],
        expected: Option<(u16, &[&str])>,
    ) {
        let reply = message(question, qtype, 0, answers, &[]);
        let screened = policy.screen(&reply, false).map(|screened| {
            let message = Message::from_vec(&screened.message).unwrap();
            let left: Vec<_> = message.answers.iter().map(ToString::to_string).collect();
            (u16::from(message.metadata.response_code), left)
        });
        let expected = expected.map(|(code, left)| {
            let left: Vec<_> = left.iter().map(|&text| text.to_owned()).collect();
            (code, left)
        });
        assert_eq!(screened, expected, "{question}");
    }

    #[test]
    fn private_addresses_go_and_the_rest_stays() {
        let policy = private(&["corp.example."]);
        for address in [
            "10.0.0.1",
            "127.0.0.1",
            "192.168.1.1",
            "169.254.0.1",
            "0.0.0.0",
        ] {
            let record = format!("www.example. 60 A {address}");
            check(&policy, "www.example.", 1, &[&record], Some((0, &[])));
        }
        check(
            &policy,
            "www.example.",
            1,
            &[
                "www.example. 60 CNAME a.example.",
                "a.example. 60 A 10.0.0.1",
                "a.example. 60 A 192.0.2.1",
            ],
            Some((
                0,
                &[
                    "www.example. 60 IN CNAME a.example.",
                    "a.example. 60 IN A 192.0.2.1",
                ],
            )),
        );
        let public = ["www.example. 60 A 192.0.2.1"];
        check(&policy, "www.example.", 1, &public, None);
        let own = ["a.CORP.example. 60 A 10.0.0.1"];
        check(&policy, "a.CORP.example.", 1, &own, None);
        let reply = message("www.example.", 1, 0, &["www.example. 60 A 10.0.0.1"], &[]);
        assert_eq!(policy.screen(&reply, true), None);
    }

    #[test]
    fn private_is_also_what_ipv6_wraps() {
        for text in ["::1", "fd00::1", "fe80::1", "::", "::ffff:10.0.0.1"] {
            assert!(is_private(text.parse().unwrap()), "{text}");
        }
        for text in ["2001:db8::1", "::ffff:192.0.2.1", "192.0.2.1", "100.64.0.1"] {
            assert!(!is_private(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn alias_to_a_blocked_name_and_a_blocked_address_are_replaced() {
        let zone = "$TTL 60\n*.tracker.example CNAME .\nfine.example CNAME rpz-passthru.\n\
                    24.0.2.0.192.rpz-ip CNAME *.\n32.7.100.51.198.rpz-ip A 203.0.113.1\n";
        let policy = policy(&[("rpz.test.", zone, Format::Rpz, Response::NxDomain)]);
        check(
            &policy,
            "www.example.",
            1,
            &[
                "www.example. 60 CNAME x.tracker.example.",
                "x.tracker.example. 60 A 203.0.113.9",
            ],
            Some((3, &[])),
        );
        let blocked = ["www.example. 60 A 192.0.2.7"];
        check(&policy, "www.example.", 1, &blocked, Some((0, &[])));
        let fine = ["fine.example. 60 A 192.0.2.7"];
        check(&policy, "fine.example.", 1, &fine, None);
        let replaced = ["www.example. 60 A 198.51.100.7"];
        check(
            &policy,
            "www.example.",
            1,
            &replaced,
            Some((0, &["www.example. 60 IN A 203.0.113.1"])),
        );
        let other = ["www.example. 60 A 198.51.100.8"];
        check(&policy, "www.example.", 1, &other, None);
    }

    #[test]
    fn message_cut_anywhere_is_passed_on_or_screened_without_panic() {
        let policy = private(&[]);
        let reply = message("www.example.", 1, 0, &["www.example. 60 A 10.0.0.1"], &[]);
        for end in 0..reply.len() {
            let _ = policy.screen(&reply[..end], false);
        }
        assert!(policy.screen(&reply, false).is_some());
    }

    #[test]
    fn message_with_any_byte_changed_is_screened_without_panic() {
        let zone = "$TTL 60\n*.tracker.example CNAME .\n24.0.2.0.192.rpz-ip CNAME *.\n";
        let lists = policy(&[("rpz.test.", zone, Format::Rpz, Response::NxDomain)]);
        let answers = [
            "www.example. 60 CNAME a.a.example.",
            "a.a.example. 60 A 10.0.0.1",
            "a.a.example. 60 A 198.51.100.1",
        ];
        let soa = "example. 600 SOA ns.example. host.example. 1 2 3 4 90";
        let reply = message("www.example.", 1, 0, &answers, &[soa]);
        for at in 0..reply.len() {
            for value in [0, 1, 5, 0x3F, 0x40, 0xC0, 0xFF] {
                let mut changed = reply.clone();
                changed[at] = value;
                for policy in [&lists, &private(&[])] {
                    if let Some(screened) = policy.screen(&changed, false) {
                        assert!(screened.message.len() >= 12);
                    }
                }
            }
        }
    }
}
