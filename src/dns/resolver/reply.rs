//! What an upstream said, checked and brought into the form that is kept and passed on.
//!
//! Only what belongs to the question survives: the answer records on the alias chain that begins at its name, and of
//! the authority section SOA and NS (with DO also the proofs). Additional records and OPT go.

use super::key::Parts;
use super::message::{CLASS_IN, Name, Record, Writer};

/// A checked reply: question first, names compressed, no OPT.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// The message; id and the client's flags are zero.
    pub(crate) wire: Vec<u8>,
    /// Where its TTLs lie.
    pub(crate) ttls: Vec<u16>,
    /// Where the answer section ends.
    pub(crate) answers_end: usize,
    /// How long it may be kept, seconds; 0: not at all.
    pub(crate) ttl: u32,
    /// NXDOMAIN or NODATA.
    pub(crate) negative: bool,
    /// Response code, 0 or 3.
    pub(crate) rcode: u8,
    /// Whether the upstream says it has validated this.
    pub(crate) authentic: bool,
    /// The most records of one type at one name.
    pub(crate) rrset: usize,
    /// The name (lower case) that the aliases lead to, out of the zone the sender speaks for; the answer ends with the alias.
    pub(crate) onward: Option<Box<[u8]>>,
    /// There are more aliases than may be followed; the answer ends with the first that is not.
    pub(crate) shortened: bool,
}

/// Bounds of what is taken from a reply; TTLs in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Floor of positive TTLs.
    pub(crate) min: u32,
    /// Ceiling of positive TTLs.
    pub(crate) max: u32,
    /// Ceiling of negative TTLs.
    pub(crate) negative_max: u32,
    /// Aliases followed.
    pub(crate) aliases: usize,
}

impl Reply {
    /// Checks `message` as the reply to a question and rewrites it. The sender speaks for `zone` (wire form, lower case) and
    /// nothing else; empty: for all.
    ///
    /// A negative answer is kept as long as RFC 2308 says: the lesser of the SOA's TTL and its MINIMUM; that is also
    /// the TTL its SOA then has.
    ///
    /// # Errors
    /// [`Invalid`]: what is wrong with it. The upstream is at fault.
    pub(crate) fn read(
        message: &[u8],
        question: &Parts<'_>,
        zone: &[u8],
        bounds: Bounds,
    ) -> Result<Self, Invalid> {
        let &Parts {
            name,
            qtype,
            dnssec_ok,
            ..
        } = question;
        let header: &[u8; 12] = message
            .get(..12)
            .and_then(|header| header.try_into().ok())
            .ok_or(Invalid::Malformed)?;
        let [_, _, high, low, q1, q2, an1, an2, ns1, ns2, ..] = *header;
        if high & 0xF8 != 0x80 || high & 0x02 != 0 {
            return Err(Invalid::Header(high));
        }
        let rcode = low & 0x0F;
        if rcode != NOERROR && rcode != NXDOMAIN {
            return Err(Invalid::Rcode(rcode));
        }
        if (q1, q2) != (0, 1) {
            return Err(Invalid::Question);
        }
        let (asked, at) = Name::read(message, 12).ok_or(Invalid::Malformed)?;
        let ([t1, t2], [c1, c2]) = (qtype.to_be_bytes(), CLASS_IN.to_be_bytes());
        if !asked.is(name) || message.get(at..at + 4) != Some(&[t1, t2, c1, c2][..]) {
            return Err(Invalid::Question);
        }
        let (answer, at) = section(message, at + 4, u16::from_be_bytes([an1, an2]))?;
        let (authority, _) = section(message, at, u16::from_be_bytes([ns1, ns2]))?;

        let (mut chain, shortened) = chain(message, &answer, name, qtype, bounds.aliases);
        let mut onward = None;
        if !zone.is_empty()
            && let Some(out) = (chain.iter()).position(|link| !is_in(link.as_wire(), zone))
        {
            onward = Some(chain[out].as_wire().to_ascii_lowercase().into());
            chain.truncate(out);
        }
        let answer = belonging(answer, &chain, qtype, dnssec_ok);
        let last = chain.last().map_or(name, Name::as_wire);
        // What is said of a name elsewhere, that it does not exist included, is not the sender's to say.
        let rcode = if onward.is_some() { NOERROR } else { rcode };
        let negative = rcode == NXDOMAIN
            || !answer
                .iter()
                .any(|record| (record.rtype == qtype && record.owner.is(last)) || qtype == ANY);
        let authority: Vec<Record> = authority
            .into_iter()
            .filter(|record| match record.rtype {
                _ if onward.is_some() => false,
                _ if !zone.is_empty() && !is_in(record.owner.as_wire(), zone) => false,
                SOA | NS => record.owner.holds(last),
                RRSIG | NSEC | NSEC3 | DS => dnssec_ok,
                _ => false,
            })
            .collect();

        let negative = negative && onward.is_none();
        let mut ttl = match (negative, negative_ttl(message, &authority)) {
            (false, _) => bounds.max,
            (true, Some(ttl)) => ttl.min(bounds.negative_max),
            // RFC 2308 section 5: without a SOA not to be kept; a few seconds keep a hot name off the upstream.
            (true, None) => NO_SOA.min(bounds.negative_max),
        };
        let clamp = |ttl: u32| ttl.clamp(bounds.min.min(bounds.max), bounds.max);
        for record in &answer {
            ttl = ttl.min(clamp(record.ttl));
        }
        if !negative {
            // What lies beside the answer must not run out before it.
            for record in &authority {
                ttl = ttl.min(clamp(record.ttl));
            }
        }

        // What is written is seldom longer than what was read.
        let records = answer.len() + authority.len();
        let mut writer = Writer::with_room(name, qtype, message.len(), records);
        for record in &answer {
            writer
                .record(message, record, clamp(record.ttl))
                .ok_or(Invalid::Malformed)?;
        }
        let answers_end = writer.bytes.len();
        for record in &authority {
            // The SOA of a negative answer tells the client how long to believe it.
            let own = if negative { ttl } else { clamp(record.ttl) };
            writer
                .record(message, record, own)
                .ok_or(Invalid::Malformed)?;
        }
        let answers = count(&answer)?;
        let mut wire = writer.bytes;
        wire[2] = 0x80;
        wire[3] = rcode;
        wire[4..6].copy_from_slice(&1_u16.to_be_bytes());
        wire[6..8].copy_from_slice(&answers.to_be_bytes());
        wire[8..10].copy_from_slice(&count(&authority)?.to_be_bytes());
        Ok(Self {
            wire,
            ttls: writer.ttls,
            answers_end,
            ttl,
            negative,
            rcode,
            authentic: low & 0x20 != 0,
            rrset: largest(&answer),
            onward,
            shortened,
        })
    }

    /// This reply, whose aliases lead out of its sender's zone, with what `rest` says of the name they lead to. `None`: they do not fit.
    pub(crate) fn join(&self, rest: &Self) -> Option<Self> {
        let (name, at) = Name::read(&self.wire, 12)?;
        let qtype = u16::from_be_bytes([*self.wire.get(at)?, *self.wire.get(at + 1)?]);
        let mut writer = Writer::new(name.as_wire(), qtype);
        let (_, rest_at) = Name::read(&rest.wire, 12)?;
        let counts = |reply: &Self| {
            let count = |at: usize| u16::from_be_bytes([reply.wire[at], reply.wire[at + 1]]);
            (count(6), count(8))
        };
        let ((ours, _), (theirs, authorities)) = (counts(self), counts(rest));
        let mut copy = |message: &[u8], mut at: usize, count: u16| {
            for _ in 0..count {
                let (record, next) = Record::read(message, at)?;
                writer.record(message, &record, record.ttl)?;
                at = next;
            }
            Some((at, writer.bytes.len()))
        };
        copy(&self.wire, at + 4, ours)?;
        let (rest_at, answers_end) = copy(&rest.wire, rest_at + 4, theirs)?;
        copy(&rest.wire, rest_at, authorities)?;
        let mut wire = writer.bytes;
        wire[2..4].copy_from_slice(&[0x80, rest.rcode]);
        wire[4..6].copy_from_slice(&1_u16.to_be_bytes());
        wire[6..8].copy_from_slice(&ours.checked_add(theirs)?.to_be_bytes());
        wire[8..10].copy_from_slice(&authorities.to_be_bytes());
        Some(Self {
            wire,
            ttls: writer.ttls,
            answers_end,
            ttl: self.ttl.min(rest.ttl),
            negative: rest.negative,
            rcode: rest.rcode,
            authentic: self.authentic && rest.authentic,
            rrset: self.rrset.max(rest.rrset),
            onward: rest.onward.clone(),
            shortened: self.shortened || rest.shortened,
        })
    }
}

/// Whether `name` (any case) is `zone` (lower case) or beneath it.
fn is_in(name: &[u8], zone: &[u8]) -> bool {
    let mut rest = name;
    while rest.len() > zone.len() {
        let Some(tail) = rest.get(1 + usize::from(rest[0])..) else {
            return false;
        };
        rest = tail;
    }
    rest.eq_ignore_ascii_case(zone)
}

fn count(records: &[Record]) -> Result<u16, Invalid> {
    u16::try_from(records.len()).map_err(|_| Invalid::Malformed)
}

/// Reads `count` records from `at` on.
fn section(message: &[u8], at: usize, count: u16) -> Result<(Vec<Record>, usize), Invalid> {
    // As many as it says, unless it says what it may not keep.
    let mut records = Vec::with_capacity(usize::from(count).min(USUAL));
    let mut at = at;
    for _ in 0..count {
        let (record, next) = Record::read(message, at).ok_or(Invalid::Malformed)?;
        if record.class != CLASS_IN && record.rtype != OPT {
            return Err(Invalid::Class(record.class));
        }
        records.push(record);
        at = next;
    }
    Ok((records, at))
}

/// The names from `name` along at most `most` aliases, `name` first; and whether there is one more.
fn chain(
    message: &[u8],
    answer: &[Record],
    name: &[u8],
    qtype: u16,
    most: usize,
) -> (Vec<Name>, bool) {
    let mut chain: Vec<Name> = Name::read(name, 0)
        .map(|(name, _)| name)
        .into_iter()
        .collect();
    if qtype == CNAME || qtype == ANY {
        return (chain, false);
    }
    loop {
        let next = chain.last().and_then(|last| {
            answer
                .iter()
                .find(|record| record.rtype == CNAME && record.owner.is(last.as_wire()))
                .and_then(|alias| Name::read(message, alias.rdata.start))
        });
        match next {
            Some((next, _)) if !chain.iter().any(|seen| seen.is(next.as_wire())) => {
                if chain.len() > most {
                    return (chain, true);
                }
                chain.push(next);
            }
            _ => return (chain, false),
        }
    }
}

/// The records of the answer section that `chain` explains.
fn belonging(answer: Vec<Record>, chain: &[Name], qtype: u16, dnssec_ok: bool) -> Vec<Record> {
    answer
        .into_iter()
        .filter(|record| {
            let on = chain.iter().any(|name| record.owner.is(name.as_wire()));
            let above = || chain.iter().any(|name| record.owner.holds(name.as_wire()));
            match record.rtype {
                OPT => false,
                rtype if rtype == qtype || qtype == ANY => on,
                CNAME => on,
                // An alias of a whole subtree stands above the chain, and so does its signature.
                DNAME => above(),
                RRSIG => dnssec_ok && above(),
                _ => false,
            }
        })
        .collect()
}

/// The lesser of the first SOA's TTL and MINIMUM (RFC 2308 section 5).
fn negative_ttl(message: &[u8], authority: &[Record]) -> Option<u32> {
    let soa = authority.iter().find(|record| record.rtype == SOA)?;
    let minimum: [u8; 4] = message
        .get(soa.rdata.end.checked_sub(4)?..soa.rdata.end)?
        .try_into()
        .ok()?;
    Some(soa.ttl.min(u32::from_be_bytes(minimum)))
}

/// The size of the largest RRset.
fn largest(records: &[Record]) -> usize {
    if records.len() < 2 {
        return records.len();
    }
    let mut sorted: Vec<_> = records
        .iter()
        .map(|record| (record.rtype, record.owner.as_wire().to_ascii_lowercase()))
        .collect();
    sorted.sort_unstable();
    sorted
        .chunk_by(|a, b| a == b)
        .map(<[_]>::len)
        .max()
        .unwrap_or(0)
}

/// Why a reply is not one. Each is the upstream's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    /// It ends early, or a name or length in it is impossible.
    #[error("the reply is malformed")]
    Malformed,
    /// Its third octet.
    #[error("the reply's flags are {0:#04x}; a whole response to a query was expected")]
    Header(u8),
    /// Not NOERROR or NXDOMAIN.
    #[error("the reply's code is {0}; 0 or 3 was expected")]
    Rcode(u8),
    /// It answers something else.
    #[error("the reply answers another question")]
    Question,
    /// A record of another class.
    #[error("the reply has a record of class {0}; 1 was expected")]
    Class(u16),
}

const NOERROR: u8 = 0;
const NXDOMAIN: u8 = 3;

const NS: u16 = 2;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const DNAME: u16 = 39;
const OPT: u16 = 41;
const DS: u16 = 43;
const RRSIG: u16 = 46;
const NSEC: u16 = 47;
const NSEC3: u16 = 50;
const ANY: u16 = 255;

/// Records of a section there is room for at once.
const USUAL: usize = 8;

/// Seconds a negative answer without a SOA is kept.
const NO_SOA: u32 = 5;

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;

    use super::super::partition::Partition;
    use super::super::testing::{message, wire};
    use super::*;

    const BOUNDS: Bounds = Bounds {
        min: 0,
        max: 86_400,
        negative_max: 3_600,
        aliases: 11,
    };

    #[track_caller]
    fn read(question: &str, qtype: u16, answer: &[&str], authority: &[&str]) -> Reply {
        let message = message(question, qtype, 0, answer, authority);
        parse(&message, question, qtype, false, BOUNDS).unwrap()
    }

    fn parse(
        message: &[u8],
        name: &str,
        qtype: u16,
        dnssec_ok: bool,
        bounds: Bounds,
    ) -> Result<Reply, Invalid> {
        parse_of(message, name, qtype, dnssec_ok, &[], bounds)
    }

    fn parse_of(
        message: &[u8],
        name: &str,
        qtype: u16,
        dnssec_ok: bool,
        zone: &[u8],
        bounds: Bounds,
    ) -> Result<Reply, Invalid> {
        let parts = Parts {
            name: &wire(name),
            qtype,
            dnssec_ok,
            checking_disabled: false,
            partition: Partition(0),
        };
        Reply::read(message, &parts, zone, bounds)
    }

    /// The records that are left, as `owner type`.
    #[track_caller]
    fn check(reply: &Reply, expected: &[&str]) {
        let message = Message::from_vec(&reply.wire).unwrap();
        let left: Vec<String> = message
            .all_sections()
            .map(|record| format!("{} {}", record.name, record.record_type()))
            .collect();
        assert_eq!(left, expected);
    }

    #[test]
    fn reply_keeps_the_alias_chain_and_nothing_else() {
        let reply = read(
            "www.example.",
            1,
            &[
                "www.example. 300 CNAME a.example.",
                "a.example. 60 CNAME b.other.",
                "b.other. 120 A 192.0.2.1",
                "stray.example. 5 A 192.0.2.66",
            ],
            &["other. 900 NS ns.other.", "victim. 900 NS ns.evil."],
        );
        check(
            &reply,
            &[
                "www.example. CNAME",
                "a.example. CNAME",
                "b.other. A",
                "other. NS",
            ],
        );
        assert_eq!((reply.ttl, reply.negative), (60, false));
    }

    #[test]
    fn reply_with_more_aliases_than_are_followed_ends_there() {
        let chain = |aliases: usize| {
            let mut lines: Vec<String> = (0..aliases)
                .map(|n| format!("a{n}.example. 60 CNAME a{}.example.", n + 1))
                .collect();
            lines.push(format!("a{aliases}.example. 60 A 192.0.2.1"));
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            read("a0.example.", 1, &lines, &[])
        };
        let most = BOUNDS.aliases;
        for (aliases, shortened) in [(most, false), (most + 1, true), (30, true)] {
            let reply = chain(aliases);
            let message = Message::from_vec(&reply.wire).unwrap();
            assert_eq!(
                (message.answers.len(), reply.shortened),
                (most + 1, shortened)
            );
        }
    }

    #[test]
    fn reply_without_data_is_kept_for_the_lesser_of_soa_ttl_and_minimum() {
        let soa = "example. 600 SOA ns.example. host.example. 1 2 3 4 90";
        let reply = read("none.example.", 28, &[], &[soa]);
        assert_eq!((reply.ttl, reply.negative), (90, true));
        let message = Message::from_vec(&reply.wire).unwrap();
        assert_eq!(message.authorities[0].ttl, 90);

        let soa = "example. 90 SOA ns.example. host.example. 1 2 3 4 600";
        assert_eq!(read("none.example.", 28, &[], &[soa]).ttl, 90);
        let soa = "example. 90000 SOA ns.example. host.example. 1 2 3 4 90000";
        assert_eq!(read("none.example.", 28, &[], &[soa]).ttl, 3_600);
    }

    #[test]
    fn reply_without_data_and_without_a_soa_of_its_zone_is_kept_5_seconds() {
        assert_eq!(read("none.example.", 28, &[], &[]).ttl, 5);
        let soa = "other. 600 SOA ns.other. host.other. 1 2 3 4 90";
        let reply = read("none.example.", 28, &[], &[soa]);
        check(&reply, &[]);
        assert_eq!(reply.ttl, 5);
    }

    #[test]
    fn reply_whose_alias_leads_nowhere_is_negative() {
        let reply = read(
            "www.example.",
            1,
            &["www.example. 30 CNAME gone.example."],
            &["example. 600 SOA ns.example. host.example. 1 2 3 4 90"],
        );
        assert_eq!((reply.ttl, reply.negative), (30, true));
    }

    #[test]
    fn reply_ttls_are_clamped() {
        let message = message("a.example.", 1, 0, &["a.example. 5 A 192.0.2.1"], &[]);
        let bounds = Bounds { min: 30, ..BOUNDS };
        let reply = parse(&message, "a.example.", 1, false, bounds).unwrap();
        assert_eq!(reply.ttl, 30);
        let reply = Message::from_vec(&reply.wire).unwrap();
        assert_eq!(reply.answers[0].ttl, 30);
    }

    #[test]
    fn reply_of_one_zone_says_nothing_of_others() {
        let zone = wire("corp.example.");
        let chain = [
            "www.corp.example. 300 CNAME a.corp.example.",
            "a.corp.example. 60 CNAME www.bank.example.",
            "www.bank.example. 120 A 192.0.2.66",
        ];
        let soa = "bank.example. 600 SOA ns.example. host.example. 1 2 3 4 90";
        for rcode in [0, 3] {
            let message = message("www.corp.example.", 1, rcode, &chain, &[soa]);
            let reply = parse_of(&message, "www.corp.example.", 1, false, &zone, BOUNDS).unwrap();
            check(
                &reply,
                &["www.corp.example. CNAME", "a.corp.example. CNAME"],
            );
            assert_eq!(reply.onward.as_deref(), Some(&*wire("www.bank.example.")));
            assert_eq!((reply.rcode, reply.negative), (0, false));

            let bank = read(
                "www.bank.example.",
                1,
                &["www.bank.example. 30 A 192.0.2.1"],
                &[],
            );
            let joined = reply.join(&bank).unwrap();
            check(
                &joined,
                &[
                    "www.corp.example. CNAME",
                    "a.corp.example. CNAME",
                    "www.bank.example. A",
                ],
            );
            assert_eq!((joined.ttl, joined.onward), (30, None));
        }
    }

    #[test]
    fn reply_to_another_question_is_invalid() {
        let message = message("a.example.", 1, 0, &["a.example. 5 A 192.0.2.1"], &[]);
        let invalid = |name, qtype| parse(&message, name, qtype, false, BOUNDS).unwrap_err();
        assert_eq!(invalid("b.example.", 1), Invalid::Question);
        assert_eq!(invalid("a.example.", 28), Invalid::Question);
    }

    #[test]
    fn reply_of_an_unknown_type_keeps_its_rdata_to_the_byte() {
        let mut raw = message("a.example.", 65_400, 0, &[], &[]);
        raw[7] = 1;
        raw.extend(b"\xC0\x0C\xFF\x78\0\x01\0\0\0\x3C\0\x04\xC0\x0C\x01\xFF");
        let reply = parse(&raw, "a.example.", 65_400, false, BOUNDS).unwrap();
        assert_eq!(reply.wire[12..], raw[12..]);
        assert!(!reply.negative);
    }

    #[test]
    fn reply_below_a_dname_keeps_the_dname() {
        let mut raw = message(
            "www.old.example.",
            1,
            0,
            &[
                "www.old.example. 60 CNAME www.new.example.",
                "www.new.example. 60 A 192.0.2.1",
            ],
            &[],
        );
        raw[7] = 3;
        raw.extend(b"\x03old\x07example\0\0\x27\0\x01\0\0\0\x1E\0\x0D\x03new\x07example\0");
        let reply = parse(&raw, "www.old.example.", 1, false, BOUNDS).unwrap();
        check(
            &reply,
            &[
                "www.old.example. CNAME",
                "www.new.example. A",
                "old.example. DNAME",
            ],
        );
        assert_eq!(reply.ttl, 30);
        let target = b"\0\x0D\x03new\x07example\0";
        assert!(reply.wire.ends_with(target), "not compressed");
    }

    #[test]
    fn reply_cut_anywhere_is_invalid_and_never_panics() {
        let whole = message(
            "www.example.",
            1,
            0,
            &[
                "www.example. 300 CNAME a.example.",
                "a.example. 60 MX 5 mail.example.",
                "a.example. 60 A 192.0.2.1",
            ],
            &["example. 600 SOA ns.example. host.example. 1 2 3 4 90"],
        );
        for end in 0..whole.len() {
            let cut = parse(&whole[..end], "www.example.", 1, true, BOUNDS);
            assert!(cut.is_err(), "{end} of {}", whole.len());
        }
    }
}
