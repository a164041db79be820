//! The file of a zone's updates, entry by entry. One that is not whole is the end of the file: the process ended while it
//! was written, and nobody was told that it was done.

use crate::dns::transfer::copy::{self, put};
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
        copy::put_list(self.soa.as_slice(), &mut body);
        copy::put_list(&self.removed, &mut body);
        copy::put_list(&self.added, &mut body);
        copy::entry(&body)
    }

    fn read(body: &[u8]) -> Option<Self> {
        let (serial, body) = body.split_first_chunk::<4>()?;
        let (content, mut body) = body.split_first_chunk::<16>()?;
        let mut soa = copy::take_list(&mut body)?;
        Some(Self {
            serial: u32::from_be_bytes(*serial),
            content: u128::from_be_bytes(*content),
            soa: soa.pop(),
            removed: copy::take_list(&mut body)?,
            added: copy::take_list(&mut body)?,
        })
    }
}

/// The steps of a file, and how many of its octets they take; what is behind them is torn. `None`: it is no such file.
pub(in crate::dns) fn decode(bytes: &[u8]) -> Option<(Vec<Step>, usize)> {
    copy::entries(bytes, MAGIC, Step::read)
}

/// A digest of a zone's records, the SOA left out, whatever their order.
pub(in crate::dns) fn content(zone: &Zone) -> u128 {
    let (mut sum, mut octets) = (0_u128, Vec::new());
    zone.walk(&mut Cursor::default(), |owner, rtype, ttl, data| {
        sum = sum.wrapping_add(digest(owner, rtype, ttl, data, &mut octets));
        true
    });
    sum
}

/// The same after a change of some records.
pub(in crate::dns) fn content_after(content: u128, removed: &[Record], added: &[Record]) -> u128 {
    let mut octets = Vec::new();
    let mut sum = |records: &[Record]| {
        records.iter().fold(0_u128, |sum, r| {
            sum.wrapping_add(digest(&r.owner, r.rtype, r.ttl, &r.data, &mut octets))
        })
    };
    content.wrapping_sub(sum(removed)).wrapping_add(sum(added))
}

/// The share of one record in [`content`].
fn digest(owner: &[u8], rtype: u16, ttl: u32, data: &[u8], octets: &mut Vec<u8>) -> u128 {
    octets.clear();
    put(owner, rtype, ttl, data, octets);
    let digest = *blake3::hash(octets).as_bytes();
    let (low, _) = digest.split_at(16);
    let mut number = [0; 16];
    number.copy_from_slice(low);
    u128::from_be_bytes(number)
}

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
