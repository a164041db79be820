//! The chains that prove what does not exist: NSEC (RFC 4034 section 4) and NSEC3 (RFC 5155 section 7.1).

use std::collections::HashSet;

use super::canonical;
use super::sign::Set;
use crate::dns::zone::denial;

/// A name that goes into the chain, and the types it has there, in the order of their numbers.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) owner: Box<[u8]>,
    pub(super) types: Vec<u16>,
}

/// The NSEC records of these names, which are in canonical order, the apex first.
pub(super) fn nsec(entries: &[Entry], ttl: u32) -> Vec<Set> {
    let next = entries.iter().cycle().skip(1);
    let record = |(entry, next): (&Entry, &Entry)| {
        let mut types = entry.types.clone();
        types.extend([RRSIG, NSEC]);
        let mut data = next.owner.to_vec();
        bitmap(types, &mut data);
        Set::one(&entry.owner, NSEC, ttl, data)
    };
    entries.iter().zip(next).map(record).collect()
}

/// The NSEC3 records of these names and of the empty non-terminals above them: SHA-1, no iterations, no salt, no opt-out
/// (RFC 9276). `is_signed` says whether a name has signatures.
pub(super) fn nsec3(
    apex: &[u8],
    entries: &[Entry],
    ttl: u32,
    is_signed: impl Fn(&Entry) -> bool,
) -> Vec<Set> {
    let mut known: HashSet<&[u8]> = entries.iter().map(|entry| &*entry.owner).collect();
    let hash = |name: &[u8]| denial::hash([name, &[]], &[], 0);
    let mut hashed: Vec<(denial::Hash, Vec<u16>)> = Vec::with_capacity(entries.len());
    for entry in entries {
        let mut types = entry.types.clone();
        if is_signed(entry) {
            types.push(RRSIG);
        }
        hashed.push((hash(&entry.owner), types));
        let mut above = canonical::parent(&entry.owner);
        while above.len() > apex.len() && known.insert(above) {
            hashed.push((hash(above), Vec::new()));
            above = canonical::parent(above);
        }
    }
    hashed.sort_unstable();
    let next = hashed.iter().cycle().skip(1);
    let record = |((hash, types), (next, _)): (&(denial::Hash, _), &(denial::Hash, _))| {
        let mut data = vec![1, 0, 0, 0, 0, HASH_LEN];
        data.extend_from_slice(next);
        bitmap(Vec::clone(types), &mut data);
        let mut owner = vec![LABEL_LEN];
        owner.extend(denial::to_label(hash));
        owner.extend_from_slice(apex);
        Set::one(&owner, NSEC3, ttl, data)
    };
    hashed.iter().zip(next).map(record).collect()
}

/// The data of the NSEC3PARAM record of such a chain.
pub(super) const NSEC3PARAM_DATA: [u8; 5] = [1, 0, 0, 0, 0];

/// Types as a bitmap in windows (RFC 4034 section 4.1.2).
fn bitmap(mut types: Vec<u16>, out: &mut Vec<u8>) {
    types.sort_unstable();
    types.dedup();
    for window in types.chunk_by(|one, next| one >> 8 == next >> 8) {
        let last = window.last().map_or(0, |last| last & 0xFF);
        let [number, _] = window[0].to_be_bytes();
        let len = usize::from(last) / 8 + 1;
        out.extend([number, len as u8]); // At most 32.
        let start = out.len();
        out.resize(start + len, 0);
        for rtype in window {
            let bit = usize::from(rtype & 0xFF);
            out[start + bit / 8] |= 0x80 >> (bit % 8);
        }
    }
}

pub(super) const RRSIG: u16 = 46;
pub(super) const NSEC: u16 = 47;
pub(super) const NSEC3: u16 = 50;
pub(super) const NSEC3PARAM: u16 = 51;
const HASH_LEN: u8 = 20;
const LABEL_LEN: u8 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bitmap_is_that_of_the_rfc() {
        // RFC 4034 section 4.3: A MX RRSIG NSEC TYPE1234.
        let mut out = Vec::new();
        bitmap(vec![1, 15, 46, 47, 1234], &mut out);
        let mut expected = vec![0, 6, 0x40, 1, 0, 0, 0, 3, 4, 0x1B];
        expected.extend([0; 26]);
        expected.push(0x20);
        assert_eq!(out, expected);
        out.clear();
        bitmap(Vec::new(), &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn nsec3_has_the_empty_non_terminals_once() {
        let entry = |owner: &[u8]| Entry {
            owner: owner.into(),
            types: vec![1],
        };
        let entries = [
            entry(b"\x04test\0"),
            entry(b"\x01a\x01b\x01c\x04test\0"),
            entry(b"\x01d\x01b\x01c\x04test\0"),
        ];
        let sets = nsec3(b"\x04test\0", &entries, 60, |_| true);
        assert_eq!(sets.len(), 5);
        let owners: HashSet<_> = sets.iter().map(|set| set.owner.clone()).collect();
        assert_eq!(owners.len(), 5);
        // The hashes are a ring.
        let mut label = sets[0].owner.to_vec();
        for _ in 0..5 {
            let set = sets
                .iter()
                .find(|set| *set.owner == label[..])
                .expect("in the ring");
            let next: denial::Hash = set.data[0][6..26].try_into().expect("20 bytes");
            label = [&[32][..], &denial::to_label(&next), b"\x04test\0"].concat();
        }
        assert_eq!(label, sets[0].owner.to_vec());
    }
}
