//! The file of a zone's updates: entries one behind the other, each with its length and digest. One that is not whole
//! is the end of the file: the process ended while it was written, and nobody was told that it was done.

use crate::dns::transfer::copy::{put, take};
use crate::dns::zone::records::Cursor;
use crate::dns::zone::{Record, Zone};

/// One change of a zone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::dns) struct Step {
    /// The serial after it.
    pub(in crate::dns) serial: u32,
    /// [`content`] of the zone after it.
    pub(in crate::dns) content: u128,
    /// The SOA, if an update set it.
    pub(in crate::dns) soa: Option<Record>,
    /// Without the SOA.
    pub(in crate::dns) removed: Vec<Record>,
    /// Without the SOA.
    pub(in crate::dns) added: Vec<Record>,
}

/// The octets a file of updates begins with.
pub(in crate::dns) const MAGIC: &[u8] = b"headwater zone updates 1\n";

impl Step {
    /// As it stands in the file.
    pub(in crate::dns) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend(self.serial.to_be_bytes());
        body.extend(self.content.to_be_bytes());
        let soa: Vec<Record> = self.soa.iter().cloned().collect();
        for list in [&soa, &self.removed, &self.added] {
            body.extend((list.len() as u32).to_be_bytes()); // Memory ends before.
            for record in list {
                put(
                    &record.owner,
                    record.rtype,
                    record.ttl,
                    &record.data,
                    &mut body,
                );
            }
        }
        let mut out = Vec::with_capacity(HEAD + body.len());
        out.extend((body.len() as u32).to_be_bytes()); // An update has at most 64 KiB; all of them fit memory.
        out.extend_from_slice(blake3::hash(&body).as_bytes());
        out.append(&mut body);
        out
    }

    /// The step at the start of `rest`, and what follows it. `None`: it is not whole.
    fn read(rest: &[u8]) -> Option<(Self, &[u8])> {
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let (digest, rest) = rest.split_first_chunk::<{ blake3::OUT_LEN }>()?;
        let (body, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        if blake3::hash(body) != *digest {
            return None;
        }
        let (serial, body) = body.split_first_chunk::<4>()?;
        let (content, mut body) = body.split_first_chunk::<16>()?;
        let mut lists = [Vec::new(), Vec::new(), Vec::new()];
        for list in &mut lists {
            let (count, after) = body.split_first_chunk::<4>()?;
            body = after;
            for _ in 0..u32::from_be_bytes(*count) {
                list.push(take(&mut body)?);
            }
        }
        let [mut soa, removed, added] = lists;
        let step = Self {
            serial: u32::from_be_bytes(*serial),
            content: u128::from_be_bytes(*content),
            soa: soa.pop(),
            removed,
            added,
        };
        Some((step, rest))
    }
}

/// The steps of a file, and how many of its octets they take; what is behind them is torn. `None`: it is no such file.
pub(in crate::dns) fn decode(bytes: &[u8]) -> Option<(Vec<Step>, usize)> {
    // Torn within its first octets: nothing was done yet.
    if MAGIC.starts_with(bytes) && bytes.len() < MAGIC.len() {
        return Some((Vec::new(), 0));
    }
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let mut steps = Vec::new();
    while let Some((step, after)) = Step::read(rest) {
        steps.push(step);
        rest = after;
    }
    Some((steps, bytes.len() - rest.len()))
}

/// A digest of a zone's records, the SOA left out, whatever their order.
pub(in crate::dns) fn content(zone: &Zone) -> u128 {
    let (mut sum, mut octets) = (0_u128, Vec::new());
    zone.walk(&mut Cursor::default(), |owner, rtype, ttl, data| {
        octets.clear();
        put(owner, rtype, ttl, data, &mut octets);
        let digest = *blake3::hash(&octets).as_bytes();
        let (low, _) = digest.split_at(16);
        let mut number = [0; 16];
        number.copy_from_slice(low);
        sum = sum.wrapping_add(u128::from_be_bytes(number));
        true
    });
    sum
}

const HEAD: usize = 4 + blake3::OUT_LEN;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> impl Strategy<Value = Record> {
        (
            any::<u16>(),
            any::<u32>(),
            prop::collection::vec(any::<u8>(), 0..40),
        )
            .prop_map(|(rtype, ttl, data)| Record {
                owner: (*b"\x01a\x04test\0").into(),
                rtype,
                ttl,
                data: data.into(),
            })
    }

    fn step() -> impl Strategy<Value = Step> {
        let records = || prop::collection::vec(record(), 0..4);
        (
            any::<u32>(),
            any::<u128>(),
            prop::option::of(record()),
            records(),
            records(),
        )
            .prop_map(|(serial, content, soa, removed, added)| Step {
                serial,
                content,
                soa,
                removed,
                added,
            })
    }

    proptest! {
        /// Cut anywhere, the file gives the steps that were whole, and says where they end.
        #[test]
        fn file_cut_anywhere_gives_the_whole_steps(steps in prop::collection::vec(step(), 0..5), cut: prop::sample::Index) {
            let mut bytes = MAGIC.to_vec();
            let mut ends = vec![bytes.len()];
            for step in &steps {
                bytes.append(&mut step.encode());
                ends.push(bytes.len());
            }
            prop_assert_eq!(decode(&bytes), Some((steps.clone(), bytes.len())));
            let cut = cut.index(bytes.len() + 1);
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let (found, end) = decode(&bytes[..cut]).expect("a file of updates");
            prop_assert_eq!(found.len(), whole.saturating_sub(1));
            prop_assert_eq!(end, if whole == 0 { 0 } else { ends[whole - 1] });
        }

        #[test]
        fn octet_flipped_ends_the_file_there(steps in prop::collection::vec(step(), 1..4), at: prop::sample::Index) {
            let mut bytes = MAGIC.to_vec();
            steps.iter().for_each(|step| bytes.append(&mut step.encode()));
            let at = MAGIC.len() + at.index(bytes.len() - MAGIC.len());
            bytes[at] ^= 1;
            let (found, end) = decode(&bytes).expect("a file of updates");
            prop_assert!(found.len() < steps.len() && end <= at);
            prop_assert_eq!(&found[..], &steps[..found.len()]);
        }
    }
}
