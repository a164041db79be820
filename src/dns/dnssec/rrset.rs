//! One RRset, signed (RFC 4034 section 3). What is signed, and when it was, is all there is to it: the same call makes
//! the signatures of a zone and those of a single answer made on the fly.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::canonical;
use super::key::{Key, KeyError, SIGNATURE_LEN};

/// An RRset about to be signed.
#[derive(Clone, Copy, Debug)]
pub struct Unsigned<'a> {
    /// Its owner, wire form, lower case.
    pub owner: &'a [u8],
    /// Its type.
    pub rtype: u16,
    /// Its TTL, seconds.
    pub ttl: u32,
    /// The data of its records, uncompressed, in any order.
    pub data: &'a [&'a [u8]],
}

/// From when to when a signature is valid, Unix seconds modulo 2^32 (RFC 4034 section 3.1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Validity {
    /// First second.
    pub inception: u32,
    /// Last second.
    pub expiration: u32,
}

/// The data of the RRSIG record of an RRset in the zone with this apex (wire form, lower case).
///
/// # Errors
/// The system gave no random bytes.
pub fn sign_rrset(
    key: &Key,
    apex: &[u8],
    rrset: Unsigned<'_>,
    validity: Validity,
) -> Result<Vec<u8>, KeyError> {
    let message = Message::new(key, apex, rrset);
    Ok(message.rrsig(validity, &message.sign(key, validity)?))
}

/// What is signed: the start of the RRSIG data, then the records in canonical form and order (section 3.1.8.1).
#[derive(Debug)]
pub(super) struct Message {
    bytes: Vec<u8>,
    /// Bytes of the RRSIG data, the signature left out.
    head: usize,
}

impl Message {
    pub(super) fn new(key: &Key, apex: &[u8], rrset: Unsigned<'_>) -> Self {
        let mut data: Vec<Vec<u8>> = rrset
            .data
            .iter()
            .map(|data| canonical::data(rrset.rtype, data))
            .collect();
        data.sort_unstable();
        data.dedup();
        let mut bytes = Vec::with_capacity(256);
        bytes.extend(rrset.rtype.to_be_bytes());
        bytes.extend([key.algorithm().number(), canonical::labels(rrset.owner)]);
        bytes.extend(rrset.ttl.to_be_bytes());
        bytes.extend([0; 8]); // The validity.
        bytes.extend(key.tag().to_be_bytes());
        bytes.extend_from_slice(apex);
        let head = bytes.len();
        for data in data {
            bytes.extend_from_slice(rrset.owner);
            bytes.extend(rrset.rtype.to_be_bytes());
            bytes.extend([0, 1]);
            bytes.extend(rrset.ttl.to_be_bytes());
            bytes.extend((data.len() as u16).to_be_bytes()); // Data of a record is no longer.
            bytes.extend(data);
        }
        Self { bytes, head }
    }

    /// What tells this message from others that `key` signs, whenever it does.
    pub(super) fn digest(&self, key: &Key) -> Digest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(key.dnskey());
        hasher.update(&self.bytes);
        let mut digest = Digest::default();
        hasher.finalize_xof().fill(&mut digest);
        digest
    }

    pub(super) fn sign(
        &self,
        key: &Key,
        validity: Validity,
    ) -> Result<[u8; SIGNATURE_LEN], KeyError> {
        let mut bytes = self.bytes.clone();
        set(&mut bytes, validity);
        key.sign(&bytes)
    }

    /// The data of the RRSIG record.
    pub(super) fn rrsig(&self, validity: Validity, signature: &[u8; SIGNATURE_LEN]) -> Vec<u8> {
        let mut rrsig = self.bytes[..self.head].to_vec();
        set(&mut rrsig, validity);
        rrsig.extend_from_slice(signature);
        rrsig
    }
}

fn set(head: &mut [u8], validity: Validity) {
    head[8..12].copy_from_slice(&validity.expiration.to_be_bytes());
    head[12..16].copy_from_slice(&validity.inception.to_be_bytes());
}

/// Tells what is signed from all else.
pub(super) type Digest = [u8; 16];

/// Signatures of answers that are made on the fly: each is made once and kept, at most so many.
#[derive(Debug)]
pub struct Cache {
    kept: Mutex<HashMap<Digest, (Validity, [u8; SIGNATURE_LEN])>>,
    limit: usize,
}

impl Cache {
    /// A cache of at most `limit` signatures, about 100 bytes each.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            kept: Mutex::default(),
            limit,
        }
    }

    /// As [`sign_rrset`] with a signature valid for `lifetime` seconds from an hour before `now` (Unix seconds), and kept
    /// until half of that is over.
    ///
    /// # Errors
    /// As [`sign_rrset`].
    pub fn sign(
        &self,
        key: &Key,
        apex: &[u8],
        rrset: Unsigned<'_>,
        now: u32,
        lifetime: u32,
    ) -> Result<Vec<u8>, KeyError> {
        let message = Message::new(key, apex, rrset);
        let digest = message.digest(key);
        let known = self.locked().get(&digest).copied();
        if let Some((validity, signature)) = known
            && (validity.expiration.wrapping_sub(now) as i32) > (lifetime / 2) as i32
        {
            return Ok(message.rrsig(validity, &signature));
        }
        let validity = Validity {
            inception: now.wrapping_sub(INCEPTION),
            expiration: now.wrapping_add(lifetime),
        };
        let signature = message.sign(key, validity)?;
        let mut kept = self.locked();
        if kept.len() >= self.limit && !kept.contains_key(&digest) {
            kept.clear(); // Rarely: steered names have few answers each.
        }
        kept.insert(digest, (validity, signature));
        Ok(message.rrsig(validity, &signature))
    }

    fn locked(
        &self,
    ) -> std::sync::MutexGuard<'_, HashMap<Digest, (Validity, [u8; SIGNATURE_LEN])>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long before it is made a signature is valid, for validators whose clocks are late, seconds.
pub(super) const INCEPTION: u32 = 3_600;

#[cfg(test)]
mod tests {
    use super::super::Algorithm;
    use super::*;

    fn key() -> Key {
        let pkcs8 = Key::generate(Algorithm::Ed25519).expect("random bytes");
        Key::new(Algorithm::Ed25519, &pkcs8).expect("its own key")
    }

    const SET: Unsigned<'static> = Unsigned {
        owner: b"\x01*\x04test\0",
        rtype: 2,
        ttl: 300,
        data: &[b"\x02NS\0", b"\x01a\0", b"\x02ns\0"],
    };

    #[test]
    fn message_has_the_records_once_in_canonical_form_and_order() {
        let key = key();
        let message = Message::new(&key, b"\x04test\0", SET);
        assert_eq!(message.bytes[..8], [0, 2, 15, 1, 0, 0, 1, 44]);
        assert_eq!(message.bytes[18..24], *b"\x04test\0");
        let record = |data: &[u8]| {
            let len = data.len() as u8;
            [
                b"\x01*\x04test\0\0\x02\0\x01\0\0\x01\x2C\0",
                &[len][..],
                data,
            ]
            .concat()
        };
        let expected = [record(b"\x01a\0"), record(b"\x02ns\0")].concat();
        assert_eq!(message.bytes[24..], expected);
    }

    #[test]
    fn cache_signs_once_until_half_of_the_time_is_over_and_keeps_to_its_bound() {
        let (key, cache) = (key(), Cache::new(2));
        let sign = |set, now| {
            cache
                .sign(&key, b"\x04test\0", set, now, 1_000)
                .expect("signed")
        };
        let first = sign(SET, 10_000);
        assert_eq!(sign(SET, 10_499), first);
        assert_ne!(sign(SET, 10_501), first);
        for ttl in 0..10 {
            let other = Unsigned { ttl, ..SET };
            assert_ne!(sign(other, 10_000), first);
            assert!(cache.locked().len() <= 2);
        }
    }
}
