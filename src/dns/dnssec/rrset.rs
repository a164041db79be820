//! One RRset of a zone, signed (RFC 4034 section 3). What is signed, and when it was, is all there is to it.

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

    /// What is signed, with zeros for the validity.
    #[cfg(test)]
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
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
}
