//! Signatures and digests, by ring.

use ring::digest;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};

/// The RDATA of a DNSKEY record, in parts.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Dnskey<'a> {
    rdata: &'a [u8],
    pub(in super::super) algorithm: u8,
    key: &'a [u8],
}

impl<'a> Dnskey<'a> {
    /// `None`: it is no key that may sign a zone's data (RFC 4034 section 2.1), or it is revoked (RFC 5011).
    pub(in super::super) fn read(rdata: &'a [u8]) -> Option<Self> {
        Self::any(rdata).filter(|_| rdata[1] & REVOKE == 0)
    }

    /// A key that is revoked (RFC 5011 section 2.1); `None`: it is not, or no key at all. It can say of nothing but itself that this is so.
    pub(in super::super) fn revoked(rdata: &'a [u8]) -> Option<Self> {
        Self::any(rdata).filter(|_| rdata[1] & REVOKE != 0)
    }

    fn any(rdata: &'a [u8]) -> Option<Self> {
        let (&[high, _, protocol, algorithm], key) = rdata.split_first_chunk()?;
        (high & 0x01 != 0 && protocol == 3).then_some(Self {
            rdata,
            algorithm,
            key,
        })
    }

    /// RFC 4034 appendix B.
    pub(in super::super) fn tag(&self) -> u16 {
        let sum = self.rdata.chunks(2).fold(0_u32, |sum, pair| {
            sum + (u32::from(pair[0]) << 8) + u32::from(pair.get(1).copied().unwrap_or(0))
        });
        // The carry is added once, and the result cut to its low half.
        (sum.wrapping_add(sum >> 16) & 0xFFFF) as u16
    }

    /// Whether `signature` over `data` was made with this key.
    pub(in super::super) fn verify(&self, data: &[u8], signature: &[u8]) -> bool {
        let parsed = |algorithm: &'static dyn signature::VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(algorithm, key)
                .verify(data, signature)
                .is_ok()
        };
        // Ring wants the mark of an uncompressed point in front.
        let point = || [&[4], self.key].concat();
        match self.algorithm {
            RSASHA1 | RSASHA1_NSEC3 => self.rsa(
                &signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
                data,
                signature,
            ),
            RSASHA256 => self.rsa(
                &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
                data,
                signature,
            ),
            RSASHA512 => self.rsa(
                &signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
                data,
                signature,
            ),
            ECDSAP256 => parsed(&signature::ECDSA_P256_SHA256_FIXED, &point()),
            ECDSAP384 => parsed(&signature::ECDSA_P384_SHA384_FIXED, &point()),
            ED25519 => parsed(&signature::ED25519, self.key),
            _ => false,
        }
    }

    fn rsa(
        &self,
        parameters: &'static signature::RsaParameters,
        data: &[u8],
        signature: &[u8],
    ) -> bool {
        // RFC 3110: the exponent's length in one octet or, after a zero, in two.
        let split = match *self.key {
            [0, high, low, ref rest @ ..] => {
                rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))
            }
            [length, ref rest @ ..] => rest.split_at_checked(usize::from(length)),
            [] => None,
        };
        split.is_some_and(|(e, n)| {
            RsaPublicKeyComponents { n, e }
                .verify(parameters, data, signature)
                .is_ok()
        })
    }

    /// Whether the DS RDATA `ds` is of this key, in the zone `owner` (lower-cased wire form).
    pub(in super::super) fn matches(&self, owner: &[u8], ds: &[u8]) -> bool {
        let Some((&[t1, t2, algorithm, kind], expected)) = ds.split_first_chunk() else {
            return false;
        };
        let Some(kind) = digest_of(kind) else {
            return false;
        };
        if u16::from_be_bytes([t1, t2]) != self.tag() || algorithm != self.algorithm {
            return false;
        }
        let mut context = digest::Context::new(kind);
        context.update(owner);
        context.update(self.rdata);
        context.finish().as_ref() == expected
    }
}

/// Whether the DS RDATA names an algorithm and a digest known here. Signatures of DSA, GOST and RSA/MD5 are not checked, as RFC 8624
/// wishes; those of Ed448 ring cannot.
pub(in super::super) fn is_supported(ds: &[u8]) -> bool {
    matches!(ds, [_, _, algorithm, kind, ..] if is_known(*algorithm) && digest_of(*kind).is_some())
}

/// Whether signatures of this algorithm are checked here.
pub(in super::super) fn is_known(algorithm: u8) -> bool {
    matches!(
        algorithm,
        RSASHA1 | RSASHA1_NSEC3 | RSASHA256 | RSASHA512 | ECDSAP256 | ECDSAP384 | ED25519
    )
}

/// In the second octet of DNSKEY RDATA: the key is revoked.
pub(in super::super) const REVOKE: u8 = 0x80;

fn digest_of(kind: u8) -> Option<&'static digest::Algorithm> {
    Some(match kind {
        1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        2 => &digest::SHA256,
        4 => &digest::SHA384,
        _ => return None,
    })
}

/// The NSEC3 hash of a name in lower-cased wire form (RFC 5155 section 5).
pub(in super::super) fn nsec3_hash(name: &[u8], salt: &[u8], iterations: u16) -> [u8; 20] {
    let round = |bytes: &[u8]| {
        let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        context.update(bytes);
        context.update(salt);
        let mut hash = [0; 20];
        hash.copy_from_slice(context.finish().as_ref());
        hash
    };
    (0..iterations).fold(round(name), |hash, _| round(&hash))
}

const RSASHA1: u8 = 5;
const RSASHA1_NSEC3: u8 = 7;
const RSASHA256: u8 = 8;
const RSASHA512: u8 = 10;
const ECDSAP256: u8 = 13;
const ECDSAP384: u8 = 14;
const ED25519: u8 = 15;

#[cfg(test)]
mod tests {
    use super::super::denial::base32hex;
    use super::*;

    /// The vectors of RFC 5155 appendix A: salt AABBCCDD, 12 iterations.
    #[test]
    fn nsec3_hashes_are_those_of_rfc_5155() {
        let hash = |name: &[u8]| base32hex(&nsec3_hash(name, &[0xAA, 0xBB, 0xCC, 0xDD], 12));
        assert_eq!(hash(b"\x07example\0"), *b"0p9mhaveqvm6t7vbl5lop2u3t2rp3tom");
        assert_eq!(
            hash(b"\x01a\x07example\0"),
            *b"35mthgpgcu1qg68fab165klnsnk3dpvl"
        );
    }

    #[test]
    fn key_that_may_not_sign_zone_data_is_none() {
        for flags in [[0, 0], [0, 1], [1, 0x80]] {
            let rdata = [&flags[..], &[3, 15, 1, 2, 3]].concat();
            assert!(Dnskey::read(&rdata).is_none(), "{flags:?}");
        }
        assert!(Dnskey::read(&[1, 0, 2, 15, 1]).is_none(), "protocol");
        assert!(Dnskey::read(&[1, 0, 3, 15, 1]).is_some());
    }

    #[test]
    fn malformed_keys_and_signatures_do_not_hold() {
        for algorithm in 0..=255 {
            for key in [
                &[][..],
                &[0],
                &[0, 0],
                &[0, 0xFF, 0xFF, 1],
                &[3, 1, 0, 1],
                &[1; 64],
            ] {
                let rdata = [&[1, 0, 3, algorithm][..], key].concat();
                let key = Dnskey::read(&rdata).unwrap();
                assert!(!key.verify(b"data", b"signature"), "algorithm {algorithm}");
                assert!(!key.verify(b"data", &[0; 64]), "algorithm {algorithm}");
            }
        }
    }
}
