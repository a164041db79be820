//! The cache as bytes, for a file. Pure.
//!
//! A head that names the format and its version, then one part per answer (length, body, digest of the body), then an end
//! that says how many there were. A part that is damaged is refused by itself; a file that ends early has lost only what
//! came behind. All numbers are big-endian.

use std::ops::Range;

use super::message::{CLASS_IN, Record};
use super::reply::Reply;

/// One answer as it lies in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Saved<'a> {
    /// When it was fetched, Unix milliseconds.
    pub(super) fetched_ms: u64,
    /// How long it was fresh from then on, seconds.
    pub(super) ttl: u32,
    pub(super) dnssec_ok: bool,
    pub(super) checking_disabled: bool,
    pub(super) authentic: bool,
    pub(super) negative: bool,
    /// The apex of the forward zone it came from (wire form); empty: none.
    pub(super) zone: &'a [u8],
    /// The message, question first.
    pub(super) wire: &'a [u8],
}

/// What is wrong with a part of a file, and where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("octet {at}: {fault}")]
pub(super) struct Refused {
    pub(super) at: usize,
    pub(super) fault: Fault,
}

/// What can be wrong with a part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("no cache file of this version; it begins otherwise")]
    Head,
    #[error("the file ends early")]
    End,
    #[error("{0} octets are no length of an answer")]
    Length(usize),
    #[error("the answer is damaged; its digest is another")]
    Digest,
    #[error("the answer is not well-formed")]
    Malformed,
    #[error("{found} answers were read, {said} were written")]
    Count { found: u32, said: u32 },
}

/// How a file begins.
pub(super) const HEAD: &[u8] = b"headwater cache 1\n";

/// Appends one answer.
pub(super) fn write(saved: &Saved<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend([0; 4]);
    out.extend(saved.fetched_ms.to_be_bytes());
    out.extend(saved.ttl.to_be_bytes());
    let flags = [
        saved.dnssec_ok,
        saved.checking_disabled,
        saved.authentic,
        saved.negative,
    ];
    let bits = flags
        .iter()
        .rev()
        .fold(0, |bits, &f| bits << 1 | u8::from(f));
    out.push(bits);
    // A name has at most 255 octets.
    out.push(saved.zone.len() as u8);
    out.extend(saved.zone);
    out.extend(saved.wire);
    // At most 64 KiB and some.
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    let digest = digest(&out[start + 4..]);
    out.extend(digest);
}

/// Appends the end of a file of `count` answers.
pub(super) fn finish(count: u32, out: &mut Vec<u8>) {
    out.extend([0; 4]);
    out.extend(count.to_be_bytes());
}

/// Reads the answers of a file.
pub(super) struct Reader<'a> {
    file: &'a [u8],
    at: usize,
    found: u32,
    ended: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a [u8]) -> Self {
        Self {
            file,
            at: 0,
            found: 0,
            ended: false,
        }
    }

    fn part(&mut self) -> Option<Result<Saved<'a>, Fault>> {
        if self.at == 0 {
            if !self.file.starts_with(HEAD) {
                self.ended = true;
                return Some(Err(Fault::Head));
            }
            self.at = HEAD.len();
        }
        let Some(length) = number(self.file, self.at) else {
            self.ended = true;
            return Some(Err(Fault::End));
        };
        if length == 0 {
            self.ended = true;
            let (found, said) = (self.found, number(self.file, self.at + 4));
            return match said {
                Some(said) if said == found => None,
                Some(said) => Some(Err(Fault::Count { found, said })),
                None => Some(Err(Fault::End)),
            };
        }
        let length = length as usize;
        if !LENGTHS.contains(&length) {
            self.ended = true;
            return Some(Err(Fault::Length(length)));
        }
        let body = self.at + 4..self.at + 4 + length;
        let (Some(body), Some(sum)) = (
            self.file.get(body.clone()),
            self.file.get(body.end..body.end + DIGEST),
        ) else {
            self.ended = true;
            return Some(Err(Fault::End));
        };
        self.at += 4 + length + DIGEST;
        self.found += 1;
        if sum != digest(body) {
            return Some(Err(Fault::Digest));
        }
        Some(read(body).ok_or(Fault::Malformed))
    }
}

impl<'a> Iterator for Reader<'a> {
    /// Each with where it begins.
    type Item = Result<(usize, Saved<'a>), Refused>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let at = if self.at == 0 && self.file.starts_with(HEAD) {
            HEAD.len()
        } else {
            self.at
        };
        let part = self.part()?;
        Some(match part {
            Ok(saved) => Ok((at, saved)),
            Err(fault) => Err(Refused { at, fault }),
        })
    }
}

fn read(body: &[u8]) -> Option<Saved<'_>> {
    let (fetched_ms, rest) = body.split_first_chunk()?;
    let (ttl, rest) = rest.split_first_chunk()?;
    let (&[bits, zone_len], rest) = rest.split_first_chunk()?;
    let (zone, wire) = rest.split_at_checked(zone_len.into())?;
    Some(Saved {
        fetched_ms: u64::from_be_bytes(*fetched_ms),
        ttl: u32::from_be_bytes(*ttl),
        dnssec_ok: bits & 1 != 0,
        checking_disabled: bits & 2 != 0,
        authentic: bits & 4 != 0,
        negative: bits & 8 != 0,
        zone,
        wire,
    })
}

fn number(file: &[u8], at: usize) -> Option<u32> {
    let (number, _) = file.get(at..)?.split_first_chunk()?;
    Some(u32::from_be_bytes(*number))
}

fn digest(body: &[u8]) -> [u8; DIGEST] {
    let mut sum = [0; DIGEST];
    sum.copy_from_slice(&blake3::hash(body).as_bytes()[..DIGEST]);
    sum
}

impl Saved<'_> {
    /// The name and type of the question, and the message as a reply that lives `ttl` seconds from now on, its TTLs lowered by `age`.
    /// `None`: the message is not well-formed.
    pub(super) fn restore(&self, ttl: u32, age: u32) -> Option<(Range<usize>, u16, Reply)> {
        let mut wire = self.wire.to_vec();
        let header: [u8; 12] = *self.wire.first_chunk()?;
        let [0, 0, 0x80, rcode @ (0 | 3), 0, 1, an1, an2, ns1, ns2, 0, 0] = header else {
            return None;
        };
        let mut name_end = 12;
        while *wire.get(name_end)? != 0 {
            if wire[name_end] > 63 {
                return None;
            }
            name_end += 1 + usize::from(wire[name_end]);
        }
        name_end += 1;
        if name_end > 12 + 255 {
            return None;
        }
        let question: [u8; 4] = *wire.get(name_end..)?.first_chunk()?;
        if question[2..] != CLASS_IN.to_be_bytes() {
            return None;
        }
        let mut at = name_end + 4;
        let answers = u16::from_be_bytes([an1, an2]);
        let all = u32::from(answers) + u32::from(u16::from_be_bytes([ns1, ns2]));
        let mut ttls = Vec::new();
        let mut answers_end = at;
        for n in 0..all {
            let (record, next) = Record::read(self.wire, at)?;
            let ttl_at = record.rdata.start.checked_sub(6)?;
            ttls.push(u16::try_from(ttl_at).ok()?);
            let left = record.ttl.saturating_sub(age);
            wire[ttl_at..ttl_at + 4].copy_from_slice(&left.to_be_bytes());
            at = next;
            if n + 1 == u32::from(answers) {
                answers_end = at;
            }
        }
        if at != wire.len() {
            return None;
        }
        let reply = Reply {
            wire,
            ttls,
            answers_end,
            ttl,
            negative: self.negative,
            rcode,
            authentic: self.authentic,
            rrset: 0,
            onward: None,
            shortened: false,
        };
        Some((
            12..name_end,
            u16::from_be_bytes([question[0], question[1]]),
            reply,
        ))
    }
}

const DIGEST: usize = 8;

/// Lengths a body may have: what stands before the message, a zone of 255 octets, a message of 64 KiB.
const LENGTHS: std::ops::RangeInclusive<usize> = 14..=14 + 255 + 65_535;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::key::Key;
    use super::super::partition::Partition;
    use super::super::reply::Bounds;
    use super::super::testing::{message, wire};
    use super::*;

    const BOUNDS: Bounds = Bounds {
        aliases: 11,
        min: 0,
        max: 86_400,
        negative_max: 3_600,
    };

    fn reply() -> Reply {
        let answer = [
            "www.example. 300 CNAME a.example.",
            "a.example. 60 A 192.0.2.1",
        ];
        let message = message("www.example.", 1, 0, &answer, &[]);
        let key = Key::new(&wire("www.example."), 1, false, false, Partition(0));
        Reply::read(&message, &Key::parts(&key), &[], BOUNDS).unwrap()
    }

    fn saved(reply: &Reply) -> Saved<'_> {
        Saved {
            fetched_ms: 1_700_000_000_000,
            ttl: 60,
            dnssec_ok: false,
            checking_disabled: true,
            authentic: true,
            negative: false,
            zone: b"\x04corp\0",
            wire: &reply.wire,
        }
    }

    fn file(parts: &[Saved<'_>]) -> Vec<u8> {
        let mut file = HEAD.to_vec();
        for part in parts {
            write(part, &mut file);
        }
        finish(u32::try_from(parts.len()).unwrap(), &mut file);
        file
    }

    #[test]
    fn answer_comes_back_as_it_was_with_its_ttls_lowered() {
        let reply = reply();
        let file = file(&[saved(&reply), saved(&reply)]);
        let found: Vec<_> = Reader::new(&file).map(|part| part.unwrap().1).collect();
        assert_eq!(found, [saved(&reply), saved(&reply)]);
        let (name, qtype, back) = found[0].restore(60, 0).unwrap();
        assert_eq!((&found[0].wire[name], qtype), (&*wire("www.example."), 1));
        assert_eq!(back.wire, reply.wire);
        assert_eq!(
            (back.ttls, back.answers_end),
            (reply.ttls.clone(), reply.answers_end)
        );
        let (_, _, later) = found[0].restore(20, 40).unwrap();
        let ttl = |at: u16| later.wire[usize::from(at) + 2..usize::from(at) + 4].to_vec();
        assert_eq!(
            later.ttls.iter().map(|&at| ttl(at)).collect::<Vec<_>>(),
            [[1, 4], [0, 20]]
        );
    }

    #[test]
    fn part_that_is_damaged_is_refused_by_its_place_and_the_next_is_not() {
        let reply = reply();
        let mut file = file(&[saved(&reply), saved(&reply)]);
        file[HEAD.len() + 30] ^= 1;
        let found: Vec<_> = Reader::new(&file).collect();
        let fault = Fault::Digest;
        assert_eq!(
            found[0],
            Err(Refused {
                at: HEAD.len(),
                fault
            })
        );
        assert_eq!(found[1].map(|(_, saved)| saved), Ok(saved(&reply)));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn file_cut_anywhere_keeps_what_is_whole_and_says_so() {
        let reply = reply();
        let file = file(&[saved(&reply), saved(&reply)]);
        for end in 0..file.len() {
            let found: Vec<_> = Reader::new(&file[..end]).collect();
            assert!(found.last().unwrap().is_err(), "{end}");
            assert!(found.len() <= 3);
        }
    }

    proptest! {
        /// Whatever lies in a file, reading it ends, and what is restored is a message with its TTLs where they are said to be.
        #[test]
        fn anything_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0_usize..200, with: u8) {
            let reply = reply();
            let mut bent = reply.wire.clone();
            let place = at % bent.len();
            bent[place] = with;
            for wire in [&bent, &bytes] {
                let part = Saved { wire, ..saved(&reply) };
                if let Some((name, _, back)) = part.restore(1, 1) {
                    prop_assert!(name.end <= back.wire.len());
                    prop_assert!(back.ttls.iter().all(|&at| usize::from(at) + 4 <= back.wire.len()));
                }
            }
            prop_assert!(Reader::new(&bytes).count() <= 200);
            let with_head = [HEAD, &bytes].concat();
            prop_assert!(Reader::new(&with_head).count() <= 200);
        }
    }
}
