//! One RRset signed in the answer path (online signing), for records that are chosen per query: nothing is allocated,
//! nothing locked.
//!
//! A worker owns an [`OnlineSigner`]. Making a signature takes as long as some 100 answers, so each is kept until half of
//! its life is over, by a digest of what it signs: the table is as large as it was made, and a newcomer takes the place of
//! one that ends sooner.

use super::canonical;
use super::key::{Key, KeyError, SIGNATURE_LEN};
use super::rrset::{Digest, INCEPTION, Unsigned, Validity};
use super::sign::is_above;

/// Signs RRsets, and keeps the signatures it made last.
#[derive(Debug)]
pub struct OnlineSigner {
    /// Pairs of places that share an index; a power of two.
    slots: Box<[Slot]>,
    scratch: Box<Scratch>,
}

/// A place for a signature.
type Slot = Option<(Digest, Validity, [u8; SIGNATURE_LEN])>;

/// The RRSIG data that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes written.
    pub len: usize,
    /// Whether the signature was made; else it was kept from before.
    pub made: bool,
}

/// Why an RRset was not signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OnlineError {
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// More than [`RECORDS`] records, or more data than there is room for.
    #[error("found an RRset of {0} records, expected at most {RECORDS} with 4 KiB of data")]
    Large(usize),
    /// The buffer.
    #[error("found a buffer of {0} bytes, expected room for the RRSIG data")]
    Room(usize),
}

impl OnlineSigner {
    /// A signer that keeps at most `signatures`, about 100 bytes each; rounded up to a power of two, at least 2.
    #[must_use]
    pub fn new(signatures: usize) -> Self {
        Self {
            slots: vec![None; signatures.max(2).next_power_of_two()].into(),
            scratch: Box::default(),
        }
    }

    /// Writes the data of the RRSIG record of an RRset in the zone with this apex (wire form, lower case) to the start of
    /// `out`. The signature is valid from an hour before `now` (Unix seconds modulo 2^32) for `lifetime` seconds from then
    /// on, or one kept that is valid for more than half of that.
    ///
    /// # Errors
    /// See [`OnlineError`]; what is in `out` then means nothing.
    pub fn sign(
        &mut self,
        key: &Key,
        apex: &[u8],
        rrset: Unsigned<'_>,
        now: u32,
        lifetime: u32,
        out: &mut [u8],
    ) -> Result<Written, OnlineError> {
        let mut message = self.scratch.compose(key, apex, rrset)?;
        let digest = message.digest(key);
        let at = usize::from(u16::from_be_bytes([digest[0], digest[1]])) << 16
            | usize::from(u16::from_be_bytes([digest[2], digest[3]]));
        let at = at & (self.slots.len() - 1);
        let pair = [at, at ^ 1];
        let good = |validity: &Validity| {
            is_above(validity.expiration, now.wrapping_add(lifetime / 2))
                && !is_above(validity.inception, now)
        };
        for at in pair {
            if let Some((known, validity, signature)) = &self.slots[at]
                && *known == digest
                && good(validity)
            {
                message.set(*validity);
                let len = message.write(signature, out)?;
                return Ok(Written { len, made: false });
            }
        }
        let validity = Validity {
            inception: now.wrapping_sub(INCEPTION),
            expiration: now.wrapping_add(lifetime),
        };
        message.set(validity);
        let signature = key.sign(message.bytes)?;
        let len = message.write(&signature, out)?;
        // The place of an older one of the same, of nobody, or of the one that ends first.
        let left = |slot: &Slot| match slot {
            Some((known, validity, _)) if *known != digest => {
                validity.expiration.wrapping_sub(now).cast_signed()
            }
            _ => i32::MIN,
        };
        let place = if left(&self.slots[pair[0]]) <= left(&self.slots[pair[1]]) {
            pair[0]
        } else {
            pair[1]
        };
        self.slots[place] = Some((digest, validity, signature));
        Ok(Written { len, made: true })
    }
}

/// Writes the data of the RRSIG record of an RRset in the zone with this apex (wire form, lower case) to the start of `out`;
/// how many bytes that is. What is in `scratch` before and after means nothing.
///
/// # Errors
/// See [`OnlineError`].
pub fn write_rrsig(
    key: &Key,
    apex: &[u8],
    rrset: Unsigned<'_>,
    validity: Validity,
    scratch: &mut Scratch,
    out: &mut [u8],
) -> Result<usize, OnlineError> {
    let mut message = scratch.compose(key, apex, rrset)?;
    message.set(validity);
    let signature = key.sign(message.bytes)?;
    message.write(&signature, out)
}

/// Room for what is signed; made once.
#[derive(Debug)]
pub struct Scratch {
    /// Canonical data of the records, one after the other, and where each lies.
    data: [u8; DATA],
    spans: [(usize, usize); RECORDS],
    message: [u8; MESSAGE],
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            data: [0; DATA],
            spans: [(0, 0); RECORDS],
            message: [0; MESSAGE],
        }
    }
}

impl Scratch {
    /// What is signed, as [`super::rrset::Message`] has it, with zeros for the validity.
    fn compose(
        &mut self,
        key: &Key,
        apex: &[u8],
        rrset: Unsigned<'_>,
    ) -> Result<Composed<'_>, OnlineError> {
        let large = OnlineError::Large(rrset.data.len());
        let spans = self.spans.get_mut(..rrset.data.len()).ok_or(large)?;
        let mut end = 0;
        for (span, data) in spans.iter_mut().zip(rrset.data) {
            let room = self.data.get_mut(end..end + data.len()).ok_or(large)?;
            room.copy_from_slice(data);
            canonical::lower(rrset.rtype, room);
            *span = (end, end + data.len());
            end += data.len();
        }
        let all = &self.data;
        spans.sort_unstable_by(|one, other| all[one.0..one.1].cmp(&all[other.0..other.1]));
        let mut pen = Pen {
            room: &mut self.message,
            len: 0,
        };
        let ttl = rrset.ttl.to_be_bytes();
        let rtype = rrset.rtype.to_be_bytes();
        let mut put = |bytes: &[u8]| pen.put(bytes).ok_or(large);
        put(&rtype)?;
        put(&[key.algorithm().number(), canonical::labels(rrset.owner)])?;
        put(&ttl)?;
        put(&[0; 8])?;
        put(&key.tag().to_be_bytes())?;
        put(apex)?;
        let mut before: Option<&[u8]> = None;
        for span in &*spans {
            let data = &all[span.0..span.1];
            if before == Some(data) {
                continue;
            }
            before = Some(data);
            let len = u16::try_from(data.len()).map_err(|_| large)?;
            put(rrset.owner)?;
            put(&rtype)?;
            put(&CLASS_IN)?;
            put(&ttl)?;
            put(&len.to_be_bytes())?;
            put(data)?;
        }
        let len = pen.len;
        Ok(Composed {
            bytes: &mut self.message[..len],
            head: HEAD + apex.len(),
        })
    }
}

struct Pen<'a> {
    room: &'a mut [u8],
    len: usize,
}

impl Pen<'_> {
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len + bytes.len();
        self.room.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(())
    }
}

/// What is signed.
struct Composed<'a> {
    bytes: &'a mut [u8],
    /// Bytes of the RRSIG data, the signature left out.
    head: usize,
}

impl Composed<'_> {
    /// What tells it from others that `key` signs, whenever it does.
    fn digest(&self, key: &Key) -> Digest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(key.dnskey());
        hasher.update(self.bytes);
        let mut digest = Digest::default();
        hasher.finalize_xof().fill(&mut digest);
        digest
    }

    fn set(&mut self, validity: Validity) {
        self.bytes[8..12].copy_from_slice(&validity.expiration.to_be_bytes());
        self.bytes[12..16].copy_from_slice(&validity.inception.to_be_bytes());
    }

    fn write(&self, signature: &[u8; SIGNATURE_LEN], out: &mut [u8]) -> Result<usize, OnlineError> {
        let len = self.head + SIGNATURE_LEN;
        let room = OnlineError::Room(out.len());
        let out = out.get_mut(..len).ok_or(room)?;
        out[..self.head].copy_from_slice(&self.bytes[..self.head]);
        out[self.head..].copy_from_slice(signature);
        Ok(len)
    }
}

/// Most records of an RRset.
pub const RECORDS: usize = 64;

/// Bytes of their data.
const DATA: usize = 4 << 10;

/// Bytes of what is signed: the data and, before each, at most an owner of 255 bytes and ten more.
const MESSAGE: usize = DATA + RECORDS * 265 + HEAD + 255;

/// Bytes of RRSIG data before the signer's name (RFC 4034 section 3.1).
const HEAD: usize = 18;

const CLASS_IN: [u8; 2] = [0, 1];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};

    use super::super::Algorithm;
    use super::super::rrset::Message;
    use super::*;

    const APEX: &[u8] = b"\x04test\0";

    fn key(algorithm: Algorithm) -> Key {
        let pkcs8 = Key::generate(algorithm).expect("random bytes");
        Key::new(algorithm, &pkcs8).expect("its own key")
    }

    /// Whether `rrsig` verifies by the public key over its own head and the records in the form that is signed.
    fn verifies(key: &Key, rrsig: &[u8], records: &[u8]) -> bool {
        let head = rrsig.len() - SIGNATURE_LEN;
        let message = [&rrsig[..head], records].concat();
        let public = &key.dnskey()[4..];
        let signature = &rrsig[head..];
        match key.algorithm() {
            Algorithm::EcdsaP256 => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, [&[4], public].concat())
                    .verify(&message, signature)
                    .is_ok()
            }
            Algorithm::Ed25519 => UnparsedPublicKey::new(&ED25519, public)
                .verify(&message, signature)
                .is_ok(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// What is signed is what zones are signed over, and each signature verifies.
        #[test]
        fn signatures_verify_over_the_records_in_canonical_form(
            algorithm in proptest::sample::select(Algorithm::ALL.to_vec()),
            rtype in proptest::sample::select(vec![1_u16, 2, 15, 16, 28, 33, 64, 65]),
            ttl in 0_u32..1 << 31,
            data in proptest::collection::vec(proptest::collection::vec(b'@'..b'F', 0..24), 0..9),
            owner in proptest::sample::select(vec![&b"\x04test\0"[..], b"\x01*\x04test\0", b"\x01a\x01*\x04test\0"]),
            (inception, expiration) in any::<(u32, u32)>(),
        ) {
            let key = key(algorithm);
            let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
            let rrset = Unsigned { owner, rtype, ttl, data: &data };
            let message = Message::new(&key, APEX, rrset);
            let validity = Validity { inception, expiration };
            let mut out = [0; 512];
            let mut scratch = Scratch::default();
            let len = write_rrsig(&key, APEX, rrset, validity, &mut scratch, &mut out);
            let out = &out[..len.expect("it fits")];
            let expected = message.rrsig(validity, &[0; SIGNATURE_LEN]);
            let head = expected.len() - SIGNATURE_LEN;
            prop_assert_eq!(&out[..head], &expected[..head]);
            prop_assert!(verifies(&key, out, &message.as_bytes()[head..]));
        }
    }

    const SET: Unsigned<'static> = Unsigned {
        owner: b"\x03www\x04test\0",
        rtype: 1,
        ttl: 30,
        data: &[&[192, 0, 2, 2], &[192, 0, 2, 1]],
    };

    #[test]
    fn signature_is_made_once_until_half_of_its_life_is_over() {
        let key = key(Algorithm::EcdsaP256); // Of which no two signatures are equal.
        let mut signer = OnlineSigner::new(8);
        let mut out = [0; 128];
        let mut sign = |signer: &mut OnlineSigner, rrset, now| {
            let written = signer.sign(&key, APEX, rrset, now, 1_000, &mut out);
            let written = written.expect("it fits");
            (written.made, out[..written.len].to_vec())
        };
        let (made, first) = sign(&mut signer, SET, 10_000);
        assert!(made);
        assert_eq!(sign(&mut signer, SET, 10_499), (false, first.clone()));
        // In another order it is the same RRset.
        let turned = Unsigned {
            data: &[&[192, 0, 2, 1], &[192, 0, 2, 2]],
            ..SET
        };
        assert_eq!(sign(&mut signer, turned, 10_000), (false, first));
        assert!(sign(&mut signer, SET, 10_500).0);
        // A clock that was set back finds one from the future.
        assert!(sign(&mut signer, SET, 10_500 - INCEPTION - 1).0);
        // Of two that share a pair of places both stay; others take the place of what ends first.
        let mut pair = OnlineSigner::new(0);
        for ttl in [1, 2, 1, 2] {
            sign(&mut pair, Unsigned { ttl, ..SET }, 10_000);
        }
        assert!(!sign(&mut pair, Unsigned { ttl: 1, ..SET }, 10_000).0);
        assert!(!sign(&mut pair, Unsigned { ttl: 2, ..SET }, 10_000).0);
        for ttl in 3..100 {
            assert!(sign(&mut pair, Unsigned { ttl, ..SET }, 10_000 + ttl).0);
        }
        assert!(!sign(&mut pair, Unsigned { ttl: 98, ..SET }, 10_100).0);
        assert_eq!(pair.slots.len(), 2);
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let key = key(Algorithm::Ed25519);
        let mut signer = OnlineSigner::new(2);
        let mut sign = |data: &[&[u8]], room| {
            let mut out = [0; 128];
            let rrset = Unsigned { data, ..SET };
            signer.sign(&key, APEX, rrset, 0, 1_000, &mut out[..room])
        };
        let len = 18 + APEX.len() + SIGNATURE_LEN;
        assert_eq!(sign(SET.data, len).expect("it fits").len, len);
        assert_eq!(sign(SET.data, len - 1), Err(OnlineError::Room(len - 1)));
        let address: &[u8] = &[192, 0, 2, 1];
        assert!(sign(&[address; RECORDS], len).is_ok());
        assert_eq!(
            sign(&[address; RECORDS + 1], len),
            Err(OnlineError::Large(RECORDS + 1))
        );
        assert_eq!(sign(&[&[0; DATA + 1]], len), Err(OnlineError::Large(1)));
        // The longest of everything has room.
        let data: &[u8] = &[7; DATA / RECORDS];
        assert!(sign(&[data; RECORDS], len).is_ok());
    }
}
