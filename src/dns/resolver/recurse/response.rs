//! A name server's reply, read: RRsets out of compression, each with its signatures.

use std::ops::Range;
use std::sync::Arc;

use super::super::message::{self, CLASS_IN, Name, Record};
use super::dname::Dname;
use super::rtype;

/// The records of one type at one name, with the signatures over them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct RrSet {
    pub(in super::super) owner: Dname,
    pub(in super::super) rtype: u16,
    /// The least TTL of its records, seconds.
    pub(in super::super) ttl: u32,
    /// RDATA, names out of compression, as spelled by the server; no two are equal.
    pub(in super::super) data: Vec<Box<[u8]>>,
    /// RDATA of the RRSIG records that cover it.
    pub(in super::super) sigs: Vec<Box<[u8]>>,
}

impl RrSet {
    /// Bytes it takes.
    pub(in super::super) fn weight(&self) -> usize {
        let bytes = |all: &[Box<[u8]>]| all.iter().map(|one| one.len() + 16).sum::<usize>();
        size_of::<Self>() + self.owner.len() + 16 + bytes(&self.data) + bytes(&self.sigs)
    }

    /// The name in its first RDATA, for types whose RDATA is one name (NS, CNAME, DNAME).
    pub(in super::super) fn target(&self) -> Option<Dname> {
        let (name, _) = Name::read(self.data.first()?, 0)?;
        Some(Dname::new(name.as_wire()))
    }
}

/// A whole reply to the question that was asked.
#[derive(Debug)]
pub(in super::super) struct Response {
    pub(in super::super) rcode: u8,
    pub(in super::super) authoritative: bool,
    /// RA: whoever says this is a resolver, too.
    pub(in super::super) recursive: bool,
    pub(in super::super) answer: Vec<Arc<RrSet>>,
    pub(in super::super) authority: Vec<Arc<RrSet>>,
    pub(in super::super) additional: Vec<Arc<RrSet>>,
}

impl Response {
    /// Reads `message`. `None`: it is malformed, truncated, no response, of another class, or answers something else.
    pub(super) fn read(message: &[u8], name: &[u8], qtype: u16) -> Option<Self> {
        let header: &[u8; 12] = message.get(..12)?.try_into().ok()?;
        let [_, _, high, low, q1, q2, counts @ ..] = *header;
        // QR alone of QR, opcode and TC.
        if high & 0xFA != 0x80 || (q1, q2) != (0, 1) {
            return None;
        }
        let (asked, at) = Name::read(message, 12)?;
        let [t1, t2] = qtype.to_be_bytes();
        if !asked.is(name) || message.get(at..at + 4)? != [t1, t2, 0, 1] {
            return None;
        }
        let mut at = at + 4;
        let mut sections = [Vec::new(), Vec::new(), Vec::new()];
        let mut rcode = u16::from(low & 0x0F);
        for (section, count) in sections.iter_mut().zip(counts.chunks_exact(2)) {
            let records;
            (records, at) = read(message, at, u16::from_be_bytes([count[0], count[1]]))?;
            if let Some(opt) = records.iter().find(|record| record.rtype == rtype::OPT) {
                rcode |= u16::try_from(opt.ttl >> 24).ok()? << 4;
            }
            *section = sets(message, &records, qtype)?;
        }
        let [answer, authority, additional] = sections;
        Some(Self {
            rcode: u8::try_from(rcode).unwrap_or(u8::MAX),
            authoritative: high & 0x04 != 0,
            recursive: low & 0x80 != 0,
            answer,
            authority,
            additional,
        })
    }
}

/// Reads `count` records from `at` on; returns them and where what follows begins.
fn read(message: &[u8], at: usize, count: u16) -> Option<(Vec<Record>, usize)> {
    let mut records = Vec::new();
    let mut at = at;
    for _ in 0..count {
        let (record, next) = Record::read(message, at)?;
        if record.class != CLASS_IN && record.rtype != rtype::OPT {
            return None;
        }
        records.push(record);
        at = next;
    }
    Some((records, at))
}

/// Groups records to RRsets, in the order of their first records. Signatures go to what they cover, and to nothing if that is
/// not there; only for who asks for signatures they are data.
fn sets(message: &[u8], records: &[Record], qtype: u16) -> Option<Vec<Arc<RrSet>>> {
    let is_signature = |record: &&Record| record.rtype == rtype::RRSIG && qtype != rtype::RRSIG;
    let mut order: Vec<(Dname, u16, usize)> = Vec::with_capacity(records.len());
    for (place, record) in records.iter().enumerate() {
        if record.rtype == rtype::OPT {
            continue;
        }
        let rtype = if is_signature(&record) {
            let covered: [u8; 2] = message.get(pair(&record.rdata))?.try_into().ok()?;
            u16::from_be_bytes(covered)
        } else {
            record.rtype
        };
        order.push((Dname::new(record.owner.as_wire()), rtype, place));
    }
    order.sort_by(|a, b| (&*a.0, a.1, a.2).cmp(&(&*b.0, b.1, b.2)));
    let mut sets: Vec<(usize, RrSet)> = Vec::new();
    for group in order.chunk_by(|a, b| (&a.0, a.1) == (&b.0, b.1)) {
        let (owner, rtype, first) = &group[0];
        let mut set = RrSet {
            owner: owner.clone(),
            rtype: *rtype,
            ttl: u32::MAX,
            data: Vec::new(),
            sigs: Vec::new(),
        };
        for record in group.iter().map(|&(_, _, place)| &records[place]) {
            let rdata: Box<[u8]> =
                message::rdata(message, record.rtype, record.rdata.clone(), false)?.into();
            let to = if is_signature(&record) {
                &mut set.sigs
            } else {
                set.ttl = set.ttl.min(record.ttl);
                &mut set.data
            };
            if !is_whole(record.rtype, &rdata) {
                return None;
            }
            if to.len() < RRSET && !to.contains(&rdata) {
                to.push(rdata);
            }
        }
        if !set.data.is_empty() {
            sets.push((*first, set));
        }
    }
    sets.sort_by_key(|(first, _)| *first);
    Some(sets.into_iter().map(|(_, set)| Arc::new(set)).collect())
}

/// Whether RDATA of the types that recursion itself reads is as long as it says.
fn is_whole(rtype: u16, rdata: &[u8]) -> bool {
    let end = |at| Name::read(rdata, at).map(|(_, end)| end);
    match rtype {
        rtype::A => rdata.len() == 4,
        rtype::AAAA => rdata.len() == 16,
        rtype::NS | rtype::CNAME | rtype::DNAME => end(0) == Some(rdata.len()),
        rtype::SOA => end(0).and_then(end).map(|end| end + 20) == Some(rdata.len()),
        _ => true,
    }
}

fn pair(rdata: &Range<usize>) -> Range<usize> {
    rdata.start..rdata.start + 2
}

/// Records read of one RRset; more are of no use to anybody.
const RRSET: usize = 1_000;
