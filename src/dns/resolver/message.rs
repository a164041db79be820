//! Reading and writing records of upstream messages byte by byte: names out of compression, names into it.
//!
//! Hickory's codec would do for the types it knows; but what it decodes it encodes anew in its own way, and an
//! answer passed on must keep the RDATA its signatures were made over. Here RDATA is opaque (RFC 3597), save
//! that the old types whose names senders may compress are taken out of the compression of one message and
//! put into that of the other.

use std::ops::Range;

use super::form;

/// A name in wire form, never compressed.
#[derive(Clone, Copy)]
pub(super) struct Name {
    bytes: [u8; 255],
    len: usize,
}

impl Name {
    /// Reads the name at `at`; returns it and where what follows it begins. `None`: it loops, runs over or is longer
    /// than 255 bytes.
    pub(super) fn read(message: &[u8], at: usize) -> Option<(Self, usize)> {
        let mut name = Self {
            bytes: [0; 255],
            len: 0,
        };
        let (mut at, mut start, mut end) = (at, at, None);
        loop {
            let label = usize::from(*message.get(at)?);
            match label {
                0 => {
                    name.push(&[0])?;
                    return Some((name, end.unwrap_or(at + 1)));
                }
                1..=63 => {
                    name.push(message.get(at..=at + label)?)?;
                    at += 1 + label;
                }
                192.. => {
                    let target = (label & 63) << 8 | usize::from(*message.get(at + 1)?);
                    end.get_or_insert(at + 2);
                    // Only to before where this stretch began, so there is no loop.
                    if target >= start {
                        return None;
                    }
                    (at, start) = (target, target);
                }
                _ => return None,
            }
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Option<()> {
        self.bytes
            .get_mut(self.len..self.len + bytes.len())?
            .copy_from_slice(bytes);
        self.len += bytes.len();
        Some(())
    }

    pub(super) fn as_wire(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(super) fn to_lowercase(self) -> Self {
        let mut lower = self;
        lower.bytes[..lower.len].make_ascii_lowercase();
        lower
    }

    /// Equal but for case (RFC 4343).
    pub(super) fn is(&self, other: &[u8]) -> bool {
        self.as_wire().eq_ignore_ascii_case(other)
    }

    /// Whether `name` is this name or beneath it.
    pub(super) fn holds(&self, name: &[u8]) -> bool {
        let mut rest = name;
        while rest.len() > self.len {
            let Some(tail) = rest.get(1 + usize::from(rest[0])..) else {
                return false;
            };
            rest = tail;
        }
        self.is(rest)
    }
}

/// One record of a message.
pub(super) struct Record {
    pub(super) owner: Name,
    pub(super) rtype: u16,
    pub(super) class: u16,
    pub(super) ttl: u32,
    /// Where its RDATA lies in the message.
    pub(super) rdata: Range<usize>,
}

impl Record {
    /// Reads the record at `at`; returns it and where the next begins.
    pub(super) fn read(message: &[u8], at: usize) -> Option<(Self, usize)> {
        let (owner, at) = Name::read(message, at)?;
        let fixed: &[u8; 10] = message.get(at..at + 10)?.try_into().ok()?;
        let [t1, t2, c1, c2, l1, l2, l3, l4, d1, d2] = *fixed;
        let rdata = at + 10..at + 10 + usize::from(u16::from_be_bytes([d1, d2]));
        message.get(rdata.clone())?;
        let end = rdata.end;
        let ttl = u32::from_be_bytes([l1, l2, l3, l4]);
        let record = Self {
            owner,
            rtype: u16::from_be_bytes([t1, t2]),
            class: u16::from_be_bytes([c1, c2]),
            // RFC 2181 section 8: a TTL with the top bit set is 0.
            ttl: if ttl > i32::MAX as u32 { 0 } else { ttl },
            rdata,
        };
        Some((record, end))
    }
}

/// RDATA of `message` with its names out of compression; in lower case too if `canonical` (RFC 4034 section 6.2, as
/// RFC 6840 section 5.1 mends it). `None`: it is malformed.
pub(super) fn rdata(
    message: &[u8],
    rtype: u16,
    rdata: Range<usize>,
    canonical: bool,
) -> Option<Vec<u8>> {
    let whole = message.get(..rdata.end)?;
    let mut out = Vec::with_capacity(rdata.len());
    let mut at = rdata.start;
    for field in fields(rtype) {
        match *field {
            Field::Bytes(n) => {
                out.extend(whole.get(at..at + n)?);
                at += n;
            }
            Field::Strings(n) => {
                for _ in 0..n {
                    let length = usize::from(*whole.get(at)?);
                    out.extend(whole.get(at..=at + length)?);
                    at += 1 + length;
                }
            }
            Field::Name { .. } => {
                let (name, end) = Name::read(whole, at)?;
                if canonical {
                    out.extend(name.as_wire().iter().map(u8::to_ascii_lowercase));
                } else {
                    out.extend(name.as_wire());
                }
                at = end;
            }
        }
    }
    let rest = whole.get(at..)?;
    out.extend(rest);
    ends_well(rtype, rest).then_some(out)
}

/// Whether RDATA may end so, behind its [`fields`]; a reply with a record that may not is malformed as a whole.
fn ends_well(rtype: u16, rest: &[u8]) -> bool {
    form::ends_well(rtype, fields(rtype).is_empty(), rest)
}

/// The record at `at`, without its names: where its owner ends, its type, and where it ends itself.
pub(super) fn peek(message: &[u8], at: usize) -> Option<(usize, u16, usize)> {
    let mut end = at;
    let owner_end = loop {
        match *message.get(end)? {
            0 => break end + 1,
            label @ 1..=63 => end += 1 + usize::from(label),
            192.. => break end + 2,
            _ => return None,
        }
    };
    let fixed: &[u8; 10] = message.get(owner_end..)?.first_chunk()?;
    let rtype = u16::from_be_bytes([fixed[0], fixed[1]]);
    let end = owner_end + 10 + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
    (end <= message.len()).then_some((owner_end, rtype, end))
}

/// Writes records behind a header and a question, compressing names.
pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
    /// Where names or tails of names begin that a pointer may point to.
    names: Vec<u16>,
    /// Where the TTLs lie.
    pub(super) ttls: Vec<u16>,
}

impl Writer {
    /// Begins with a header of zeros and the question.
    pub(super) fn new(name: &[u8], qtype: u16) -> Self {
        Self::with_room(name, qtype, 0, 0)
    }

    /// Likewise, with room for a message of that length and that many records: nothing is moved as it grows.
    pub(super) fn with_room(name: &[u8], qtype: u16, length: usize, records: usize) -> Self {
        let mut bytes = Vec::with_capacity(length.max(12));
        bytes.resize(12, 0);
        let mut writer = Self {
            bytes,
            names: Vec::new(),
            ttls: Vec::with_capacity(records),
        };
        writer.name(name, true);
        writer.bytes.extend(qtype.to_be_bytes());
        writer.bytes.extend(CLASS_IN.to_be_bytes());
        writer
    }

    /// Appends `record` of `message` with the given TTL. `None`: its RDATA is malformed, or there is no more room in 64 KiB.
    pub(super) fn record(&mut self, message: &[u8], record: &Record, ttl: u32) -> Option<()> {
        self.name(record.owner.as_wire(), true);
        self.bytes.extend(record.rtype.to_be_bytes());
        self.bytes.extend(record.class.to_be_bytes());
        self.ttls.push(u16::try_from(self.bytes.len()).ok()?);
        self.bytes.extend(ttl.to_be_bytes());
        let length_at = self.bytes.len();
        self.bytes.extend([0, 0]);
        self.rdata(message, record.rtype, record.rdata.clone())?;
        let length = u16::try_from(self.bytes.len() - length_at - 2).ok()?;
        self.bytes[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
        (self.bytes.len() <= usize::from(u16::MAX)).then_some(())
    }

    fn rdata(&mut self, message: &[u8], rtype: u16, rdata: Range<usize>) -> Option<()> {
        // A name may be compressed against anything before it, but must end inside the RDATA.
        let whole = message.get(..rdata.end)?;
        let mut at = rdata.start;
        for field in fields(rtype) {
            match *field {
                Field::Bytes(n) => {
                    self.bytes.extend(whole.get(at..at + n)?);
                    at += n;
                }
                Field::Strings(n) => {
                    for _ in 0..n {
                        let length = usize::from(*whole.get(at)?);
                        self.bytes.extend(whole.get(at..=at + length)?);
                        at += 1 + length;
                    }
                }
                Field::Name { compress } => {
                    let (name, end) = Name::read(whole, at)?;
                    self.name(name.as_wire(), compress);
                    at = end;
                }
            }
        }
        let rest = whole.get(at..)?;
        self.bytes.extend(rest);
        ends_well(rtype, rest).then_some(())
    }

    fn name(&mut self, name: &[u8], compress: bool) {
        let mut at = 0;
        while name[at] != 0 {
            if compress
                && let Some(&target) = self
                    .names
                    .iter()
                    .find(|&&target| self.is_at(usize::from(target), &name[at..]))
            {
                self.bytes.extend((0xC000 | target).to_be_bytes());
                return;
            }
            if self.bytes.len() < 0x4000 && self.names.len() < NAMES {
                self.names
                    .push(u16::try_from(self.bytes.len()).expect("checked to be below 0x4000"));
            }
            let next = at + 1 + usize::from(name[at]);
            self.bytes.extend(&name[at..next]);
            at = next;
        }
        self.bytes.push(0);
    }

    /// Whether the name written at `at` is `name`, but for case.
    fn is_at(&self, mut at: usize, mut name: &[u8]) -> bool {
        loop {
            // A tail of the very name that is being written ends where the bytes do.
            let Some(&label) = self.bytes.get(at) else {
                return false;
            };
            let label = usize::from(label);
            if label >= 192 {
                at = (label & 63) << 8 | usize::from(self.bytes[at + 1]);
                continue;
            }
            let (Some(ours), Some(theirs)) = (self.bytes.get(at..=at + label), name.get(..=label))
            else {
                return false;
            };
            if !ours.eq_ignore_ascii_case(theirs) {
                return false;
            }
            if label == 0 {
                return true;
            }
            at += 1 + label;
            name = &name[1 + label..];
        }
    }
}

/// A part of RDATA that names lie in or behind.
#[derive(Clone, Copy)]
enum Field {
    Bytes(usize),
    Strings(usize),
    Name { compress: bool },
}

/// How RDATA begins, for the types whose names may come compressed: those of RFC 1035, which may also be sent so,
/// and those of RFC 3597 section 4, which may only be received so. What follows is opaque.
fn fields(rtype: u16) -> &'static [Field] {
    const COMPRESSED: Field = Field::Name { compress: true };
    const PLAIN: Field = Field::Name { compress: false };
    match rtype {
        // NS, MD, MF, CNAME, MB, MG, MR, PTR
        2 | 3 | 4 | 5 | 7 | 8 | 9 | 12 => &[COMPRESSED],
        // SOA, MINFO
        6 | 14 => &[COMPRESSED, COMPRESSED],
        // MX
        15 => &[Field::Bytes(2), COMPRESSED],
        // RP
        17 => &[PLAIN, PLAIN],
        // AFSDB, RT, KX
        18 | 21 | 36 => &[Field::Bytes(2), PLAIN],
        // SIG; RRSIG must not be compressed, but is as easily read
        24 | 46 => &[Field::Bytes(18), PLAIN],
        // PX
        26 => &[Field::Bytes(2), PLAIN, PLAIN],
        // NXT, DNAME
        30 | 39 => &[PLAIN],
        // SRV
        33 => &[Field::Bytes(6), PLAIN],
        // NAPTR
        35 => &[Field::Bytes(4), Field::Strings(3), PLAIN],
        _ => &[],
    }
}

pub(super) const CLASS_IN: u16 = 1;

/// Places kept to point to: more costs time with messages made to be slow, and saves nothing with others.
const NAMES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_pointers_is_read_whole_and_a_loop_is_not() {
        let message = b"\x03com\0\x07example\xC0\0\x03www\xC0\x05\xC0\x11";
        let (name, end) = Name::read(message, 15).unwrap();
        assert_eq!(name.as_wire(), b"\x03www\x07example\x03com\0");
        assert_eq!(end, 21);
        assert!(Name::read(b"\xC0\0", 0).is_none(), "points at itself");
        assert!(
            Name::read(b"\x01a\xC0\0", 2).is_none(),
            "comes back to itself"
        );
        assert!(Name::read(b"\x05abc", 0).is_none(), "runs over");
    }

    #[test]
    fn rdata_of_another_length_than_its_type_has_is_malformed() {
        let check = |rtype: u16, good: &[u8]| {
            let read = |data: &[u8]| rdata(data, rtype, 0..data.len(), false);
            assert_eq!(read(good).as_deref(), Some(good), "type {rtype}");
            assert_eq!(read(&good[..good.len() - 1]), None, "type {rtype}, cut");
            let longer = [good, &[7]].concat();
            assert_eq!(read(&longer), None, "type {rtype}, longer");
            let mut writer = Writer::new(b"\0", rtype);
            assert_eq!(writer.rdata(good, rtype, 0..good.len()), Some(()));
            let mut writer = Writer::new(b"\0", rtype);
            assert_eq!(writer.rdata(&longer, rtype, 0..longer.len()), None);
        };
        check(1, &[192, 0, 2, 1]);
        check(28, &[0; 16]);
        for alias in [2, 5, 12, 39] {
            check(alias, b"\x01a\0");
        }
        check(6, &[&b"\x01a\0\x01b\0"[..], &[0; 20]].concat());
        check(15, b"\0\x0A\x01a\0");
        check(33, b"\0\0\0\0\0\x35\x01a\0");
        check(13, b"\x01a\x01b");
        check(16, b"\x02ab\x01c");
        assert_eq!(rdata(&[], 16, 0..0, false), None, "TXT of no string");
        assert!(rdata(&[1, 2, 3], 65_280, 0..3, false).is_some(), "opaque");
    }

    #[test]
    fn name_holds_itself_and_what_is_beneath() {
        let (name, _) = Name::read(b"\x07example\0", 0).unwrap();
        assert!(name.holds(b"\x07EXAMPLE\0"));
        assert!(name.holds(b"\x03www\x07example\0"));
        assert!(!name.holds(b"\x0anotexample\0"));
        assert!(!name.holds(b"\0"));
    }

    #[test]
    fn writer_takes_a_name_with_a_label_twice_in_a_row() {
        let mut writer = Writer::new(b"\x01a\x01a\x01b\0", 1);
        let start = writer.bytes.len();
        assert_eq!(&writer.bytes[12..start], b"\x01a\x01a\x01b\0\0\x01\0\x01");
        writer.name(b"\x01a\x01b\0", true);
        assert_eq!(&writer.bytes[start..], b"\xC0\x0E");
    }

    #[test]
    fn writer_points_to_names_it_has_written() {
        let mut writer = Writer::new(b"\x03www\x07example\0", 1);
        let start = writer.bytes.len();
        writer.name(b"\x03WWW\x07example\0", true);
        writer.name(b"\x04mail\x07Example\0", true);
        writer.name(b"\x04mail\x07example\0", false);
        assert_eq!(
            &writer.bytes[start..],
            b"\xC0\x0C\x04mail\xC0\x10\x04mail\x07example\0"
        );
    }
}
