//! Messages between servers, read and composed whole: those of transfers, NOTIFY and updates.
//!
//! Unlike [`wire`](crate::dns::wire), which answers queries, this reads records, and so allocates.

use std::collections::HashMap;

use crate::dns::wire::{EDE, HEADER_LEN, NAME_MAX, PAYLOAD, Rcode, Reason};
use crate::dns::zone::Record;
pub(in crate::dns) use crate::dns::zone::tree::SOA;
use crate::dns::zone::tree::{A, AAAA, DNAME, MX, NS, PTR, SRV};

/// A message taken apart. Names are uncompressed and, but for those in record data, in lower case.
#[derive(Clone, Debug)]
pub(in crate::dns) struct Message {
    pub(in crate::dns) id: u16,
    pub(in crate::dns) opcode: u8,
    pub(in crate::dns) response: bool,
    pub(in crate::dns) rcode: u8,
    pub(in crate::dns) question: Option<Question>,
    /// Answer, authority (in an update: prerequisites and updates) and additional section.
    pub(in crate::dns) sections: [Vec<Entry>; 3],
}

/// What is asked, or in an update the zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dns) struct Question {
    pub(in crate::dns) name: Box<[u8]>,
    pub(in crate::dns) qtype: u16,
    pub(in crate::dns) qclass: u16,
}

/// A record with its class, which updates use for more than IN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dns) struct Entry {
    pub(in crate::dns) class: u16,
    pub(in crate::dns) record: Record,
}

impl Message {
    /// Reads a message with at most one question. Data of class IN must be what its type says; in an update, data
    /// may be empty. `None`: it is malformed.
    pub(in crate::dns) fn parse(bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<HEADER_LEN>()?;
        let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let mut at = HEADER_LEN;
        let question = match count(4) {
            0 => None,
            1 => {
                let name = read_name(bytes, &mut at)?.to_ascii_lowercase();
                let fixed = bytes.get(at..at + 4)?;
                at += 4;
                Some(Question {
                    name: name.into(),
                    qtype: u16::from_be_bytes([fixed[0], fixed[1]]),
                    qclass: u16::from_be_bytes([fixed[2], fixed[3]]),
                })
            }
            _ => return None,
        };
        let mut sections = [Vec::new(), Vec::new(), Vec::new()];
        for (section, at_count) in sections.iter_mut().zip([6, 8, 10]) {
            for _ in 0..count(at_count) {
                section.push(Entry::read(bytes, &mut at)?);
            }
        }
        Some(Self {
            id: u16::from_be_bytes([header[0], header[1]]),
            opcode: header[2] >> 3 & 15,
            response: header[2] & 0x80 != 0,
            rcode: header[3] & 15,
            question,
            sections,
        })
    }

    /// The payload size of the OPT; `None`: there is none.
    pub(in crate::dns) fn payload(&self) -> Option<u16> {
        let opt = self.sections[2]
            .iter()
            .find(|entry| entry.record.rtype == OPT);
        opt.map(|opt| opt.class)
    }
}

impl Entry {
    fn read(bytes: &[u8], at: &mut usize) -> Option<Self> {
        let owner = read_name(bytes, at)?.to_ascii_lowercase();
        let fixed = bytes.get(*at..*at + 10)?;
        let number = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
        let (rtype, class) = (number(0), number(2));
        let ttl = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
        let start = *at + 10;
        let end = start + usize::from(number(8));
        let raw = bytes.get(start..end)?;
        *at = end;
        let data = if class == IN && rtype != OPT {
            read_data(bytes, rtype, start, end)?
        } else if raw.is_empty() || !matches!(class, NONE) {
            raw.to_vec()
        } else {
            read_data(bytes, rtype, start, end)?
        };
        Some(Self {
            class,
            record: Record {
                owner: owner.into(),
                rtype,
                ttl,
                data: data.into(),
            },
        })
    }
}

/// Reads a name at `at`, pointers followed, and moves `at` behind it.
fn read_name(bytes: &[u8], at: &mut usize) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    let mut here = *at;
    let mut end = None;
    loop {
        let len = *bytes.get(here)?;
        match len {
            0 => {
                name.push(0);
                break;
            }
            1..=63 => {
                let next = here + 1 + usize::from(len);
                name.extend_from_slice(bytes.get(here..next)?);
                here = next;
            }
            0xC0.. => {
                let low = *bytes.get(here + 1)?;
                let target = usize::from(u16::from_be_bytes([len & 0x3F, low]));
                end.get_or_insert(here + 2);
                // Only backwards, so that it ends.
                if target >= here {
                    return None;
                }
                here = target;
            }
            _ => return None,
        }
        if name.len() >= NAME_MAX {
            return None;
        }
    }
    *at = end.unwrap_or(here + 1);
    Some(name)
}

/// The data of a record, its names uncompressed. `None`: it is not what its type says.
fn read_data(bytes: &[u8], rtype: u16, start: usize, end: usize) -> Option<Vec<u8>> {
    let message = &bytes[..end];
    let mut at = start;
    let mut data = Vec::with_capacity(end - start);
    let exact = match rtype {
        A => Some(4),
        AAAA => Some(16),
        SOA => Some(20), // Behind its names.
        _ => None,
    };
    for part in layout(rtype) {
        match part {
            Part::Bytes(len) => {
                data.extend_from_slice(message.get(at..at + len)?);
                at += len;
            }
            Part::Text => {
                let len = usize::from(*message.get(at)?) + 1;
                data.extend_from_slice(message.get(at..at + len)?);
                at += len;
            }
            Part::Name => data.append(&mut read_name(message, &mut at)?),
        }
    }
    let rest = &message[at..];
    let bounded = match exact {
        Some(len) => rest.len() == len,
        None => rest.is_empty() || !ends_with_name(rtype),
    };
    data.extend_from_slice(rest);
    bounded.then_some(data)
}

/// A part of record data that matters for names in it.
#[derive(Clone, Copy, Debug)]
enum Part {
    Bytes(usize),
    /// A length and as many octets.
    Text,
    Name,
}

/// Where names are in the data of types that senders may compress (RFC 1035, RFC 3597 section 4), or that a reader
/// may take apart later.
fn layout(rtype: u16) -> &'static [Part] {
    use Part::{Bytes, Name, Text};
    match rtype {
        NS | 3 | 4 | 5 | 7 | 8 | 9 | PTR | DNAME => &[Name],
        SOA | 14 | 17 => &[Name, Name],
        MX | 18 | 21 | 36 => &[Bytes(2), Name],
        SRV => &[Bytes(6), Name],
        26 => &[Bytes(2), Name, Name],
        24 | 46 => &[Bytes(18), Name],
        30 | 47 => &[Name],
        35 => &[Bytes(4), Text, Text, Text, Name],
        _ => &[],
    }
}

/// Whether nothing follows the parts of [`layout`].
fn ends_with_name(rtype: u16) -> bool {
    !layout(rtype).is_empty() && !matches!(rtype, SOA | 24 | 46 | 30 | 47)
}

/// Composes one message: header, question, records with their names compressed.
#[derive(Debug)]
pub(in crate::dns) struct Composer {
    out: Vec<u8>,
    limit: usize,
    counts: [u16; 3],
    /// Where names that pointers reach begin.
    names: HashMap<Box<[u8]>, u16, foldhash::fast::RandomState>,
}

impl Composer {
    /// A message of at most `limit` octets, which must hold header and question. `flags` as in the header.
    pub(in crate::dns) fn new(
        id: u16,
        flags: u16,
        question: Option<&Question>,
        limit: usize,
    ) -> Self {
        let mut out = Vec::with_capacity(limit.min(1 << 10));
        out.extend(id.to_be_bytes());
        out.extend(flags.to_be_bytes());
        out.extend([0, u8::from(question.is_some()), 0, 0, 0, 0, 0, 0]);
        let mut composer = Self {
            out,
            limit,
            counts: [0; 3],
            names: HashMap::default(),
        };
        if let Some(question) = question {
            composer.name(&question.name);
            composer.out.extend(question.qtype.to_be_bytes());
            composer.out.extend(question.qclass.to_be_bytes());
        }
        composer
    }

    /// Appends a record of class IN to a section (0: answer); false, and nothing is changed, if it does not fit.
    /// Sections must be filled in their order.
    pub(in crate::dns) fn push(
        &mut self,
        section: usize,
        owner: &[u8],
        rtype: u16,
        ttl: u32,
        data: &[u8],
    ) -> bool {
        self.put(section, owner, rtype, IN, ttl, data)
    }

    /// As [`Composer::push`], with a class.
    pub(in crate::dns) fn put(
        &mut self,
        section: usize,
        owner: &[u8],
        rtype: u16,
        class: u16,
        ttl: u32,
        data: &[u8],
    ) -> bool {
        let start = self.out.len();
        // Compression only shortens; the names it may point to are noted when the record stays.
        self.name(owner);
        self.out.extend(rtype.to_be_bytes());
        self.out.extend(class.to_be_bytes());
        self.out.extend(ttl.to_be_bytes());
        let len_at = self.out.len();
        self.out.extend([0, 0]);
        self.data(rtype, data);
        if self.out.len() > self.limit || self.counts[section] == u16::MAX {
            self.out.truncate(start);
            self.names.retain(|_, at| usize::from(*at) < start);
            return false;
        }
        let len = (self.out.len() - len_at - 2) as u16; // Never longer than what came in.
        self.out[len_at..len_at + 2].copy_from_slice(&len.to_be_bytes());
        self.counts[section] += 1;
        true
    }

    /// The message.
    pub(in crate::dns) fn finish(mut self) -> Vec<u8> {
        for (at, count) in [6, 8, 10].into_iter().zip(self.counts) {
            self.out[at..at + 2].copy_from_slice(&count.to_be_bytes());
        }
        self.out
    }

    /// Data of the types whose names may be compressed (RFC 3597 section 4).
    fn data(&mut self, rtype: u16, data: &[u8]) {
        let names = match rtype {
            NS | 5 | PTR => 1,
            SOA => 2,
            MX => {
                self.out.extend_from_slice(&data[..2]);
                self.name(&data[2..]);
                return;
            }
            _ => 0,
        };
        let mut rest = data;
        for _ in 0..names {
            let len = name_end(rest);
            self.name(&rest[..len]);
            rest = &rest[len..];
        }
        self.out.extend_from_slice(rest);
    }

    /// A name, its longest part that stands already replaced by a pointer. Names are compared as they are: those of
    /// owners are in lower case, and most of those in data.
    fn name(&mut self, name: &[u8]) {
        let mut at = 0;
        while name[at] != 0 {
            if let Some(&there) = self.names.get(&name[at..]) {
                self.out.extend((0xC000 | there).to_be_bytes());
                return;
            }
            if self.out.len() < POINTER_END {
                let here = self.out.len() as u16; // Below POINTER_END.
                self.names.insert(name[at..].into(), here);
            }
            let end = at + 1 + usize::from(name[at]);
            self.out.extend_from_slice(&name[at..end]);
            at = end;
        }
        self.out.push(0);
    }
}

/// The length of an uncompressed name, root included.
fn name_end(bytes: &[u8]) -> usize {
    let mut at = 0;
    while bytes[at] != 0 {
        at += 1 + usize::from(bytes[at]);
    }
    at + 1
}

/// An answer that is only a code.
pub(in crate::dns) fn code(request: &[u8], question: Option<&Question>, rcode: Rcode) -> Vec<u8> {
    let flags = response_flags(request) | (rcode as u16 & 15);
    let id = u16::from_be_bytes([request[0], request[1]]);
    Composer::new(id, flags, question, usize::from(u16::MAX)).finish()
}

/// Adds an OPT to a message without one; with the reason for its code (RFC 8914), if there is one.
pub(in crate::dns) fn append_opt(message: &mut Vec<u8>, reason: Option<Reason>) {
    let [high, low] = PAYLOAD.to_be_bytes();
    message.extend([0, 0, 41, high, low, 0, 0, 0, 0]);
    match reason {
        None => message.extend([0, 0]),
        Some(Reason { code, text }) => {
            // At most TEXT_MAX octets of text.
            let len = text.len() as u16;
            message.extend((len + 6).to_be_bytes());
            message.extend(EDE.to_be_bytes());
            message.extend((len + 2).to_be_bytes());
            message.extend((code as u16).to_be_bytes());
            message.extend(text.as_bytes());
        }
    }
    let count = u16::from_be_bytes([message[10], message[11]]);
    message[10..12].copy_from_slice(&(count + 1).to_be_bytes());
}

/// Bytes of the OPT of [`append_opt`] without a reason.
pub(in crate::dns) const OPT_LEN: usize = 11;

/// QR, and opcode and RD of the request.
pub(in crate::dns) fn response_flags(request: &[u8]) -> u16 {
    0x8000 | (u16::from(request[2] & 0x79) << 8)
}

/// AA.
pub(in crate::dns) const FLAG_AA: u16 = 0x0400;

/// Offsets from here on are beyond the reach of a pointer.
const POINTER_END: usize = 0x4000;

/// Types of a question that asks for differences, and for a whole zone.
pub(in crate::dns) const IXFR: u16 = 251;
/// See [`IXFR`].
pub(in crate::dns) const AXFR: u16 = 252;
/// Operations.
pub(in crate::dns) const QUERY: u8 = 0;
/// See [`QUERY`].
pub(in crate::dns) const NOTIFY: u8 = 4;
/// See [`QUERY`].
pub(in crate::dns) const UPDATE: u8 = 5;
/// Class IN.
pub(in crate::dns) const IN: u16 = 1;
/// Class NONE (RFC 2136).
pub(in crate::dns) const NONE: u16 = 254;
const OPT: u16 = 41;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn label() -> impl Strategy<Value = Vec<u8>> {
        prop::sample::select(vec![&b"a"[..], b"b", b"www", b"mail", b"x-y"])
            .prop_map(<[u8]>::to_vec)
    }

    fn name() -> impl Strategy<Value = Box<[u8]>> {
        prop::collection::vec(label(), 0..6).prop_map(|labels| {
            let mut name = Vec::new();
            for label in labels {
                name.push(label.len() as u8);
                name.extend(label);
            }
            name.push(0);
            name.into()
        })
    }

    fn record() -> impl Strategy<Value = Record> {
        let data = prop_oneof![
            any::<[u8; 4]>().prop_map(|a| (A, a.to_vec())),
            name().prop_map(|n| (NS, n.to_vec())),
            (any::<[u8; 2]>(), name()).prop_map(|(p, n)| (MX, [&p[..], &n].concat())),
            (name(), name(), any::<[u8; 20]>())
                .prop_map(|(m, r, n)| (SOA, [&m[..], &r, &n].concat())),
            (any::<[u8; 6]>(), name()).prop_map(|(p, n)| (SRV, [&p[..], &n].concat())),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(|d| (16, d)),
        ];
        (name(), any::<u32>(), data).prop_map(|(owner, ttl, (rtype, data))| Record {
            owner,
            rtype,
            ttl,
            data: data.into(),
        })
    }

    proptest! {
        /// What is composed reads as what went in, however it was compressed and wherever it was full.
        #[test]
        fn message_composed_reads_the_same(
            records in prop::collection::vec(record(), 0..60),
            zone in name(),
            limit in 300..3_000_usize,
        ) {
            let question = Question { name: zone, qtype: 252, qclass: IN };
            let mut composer = Composer::new(7, 0x8400, Some(&question), limit);
            let mut taken = Vec::new();
            for record in records {
                if composer.push(0, &record.owner, record.rtype, record.ttl, &record.data) {
                    taken.push(record);
                }
            }
            let bytes = composer.finish();
            prop_assert!(bytes.len() <= limit);
            let message = Message::parse(&bytes).expect("a good message");
            prop_assert_eq!(message.question, Some(question));
            let read: Vec<Record> = message.sections[0].iter().map(|e| e.record.clone()).collect();
            prop_assert_eq!(read, taken);
        }

        #[test]
        fn any_octets_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::parse(&bytes);
        }
    }

    #[test]
    fn data_that_is_not_what_its_type_says_is_refused() {
        for (rtype, data) in [
            (A, &[1, 2, 3][..]),
            (AAAA, &[0; 15]),
            (MX, &[0]),
            (NS, b"\x01a"),
            (NS, b"\x01a\0\0"),
            (SOA, &[0; 21]),
        ] {
            let mut bytes = vec![0, 1, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0];
            bytes.extend(rtype.to_be_bytes());
            bytes.extend([0, 1, 0, 0, 0, 9, 0, data.len() as u8]);
            bytes.extend_from_slice(data);
            assert!(Message::parse(&bytes).is_none(), "{rtype} {data:?}");
        }
    }
}
