//! Key pairs that zones are signed with.

use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use sha2::{Digest as _, Sha256};

/// A signature algorithm: those that RFC 8624 wants to be used, and that are small and quick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// ECDSAP256SHA256 (RFC 6605): the one that every validator knows.
    EcdsaP256,
    /// ED25519 (RFC 8080).
    Ed25519,
}

impl Algorithm {
    /// All, the default first.
    pub const ALL: [Self; 2] = [Self::EcdsaP256, Self::Ed25519];

    /// Its number in DNSKEY, DS and RRSIG records.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::EcdsaP256 => 13,
            Self::Ed25519 => 15,
        }
    }

    /// As in the configuration.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "ecdsa-p256",
            Self::Ed25519 => "ed25519",
        }
    }
}

/// A key pair in use, ready to sign.
#[derive(Debug)]
pub struct Key {
    algorithm: Algorithm,
    pair: Pair,
    /// The data of its DNSKEY record.
    dnskey: Vec<u8>,
    tag: u16,
    rng: SystemRandom,
}

#[derive(Debug)]
enum Pair {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// A key that cannot be made, read or used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The system gave no random bytes.
    #[error("found no random bytes in the system, expected some")]
    Random,
    /// The private key is none of its algorithm.
    #[error("found a private key that is none of its algorithm, expected PKCS#8")]
    Rejected,
}

impl Key {
    /// A new private key, PKCS#8.
    ///
    /// # Errors
    /// The system gave no random bytes.
    pub fn generate(algorithm: Algorithm) -> Result<Vec<u8>, KeyError> {
        let rng = SystemRandom::new();
        let made = match algorithm {
            Algorithm::EcdsaP256 => {
                EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng)
            }
            Algorithm::Ed25519 => Ed25519KeyPair::generate_pkcs8(&rng),
        };
        Ok(made.map_err(|_| KeyError::Random)?.as_ref().to_vec())
    }

    /// The key pair of a private key in PKCS#8.
    ///
    /// # Errors
    /// It is none of that algorithm.
    pub fn new(algorithm: Algorithm, pkcs8: &[u8]) -> Result<Self, KeyError> {
        let rng = SystemRandom::new();
        let pair = match algorithm {
            Algorithm::EcdsaP256 => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &rng)
                    .map(Pair::Ecdsa)
            }
            Algorithm::Ed25519 => Ed25519KeyPair::from_pkcs8(pkcs8).map(Pair::Ed25519),
        };
        let pair = pair.map_err(|_| KeyError::Rejected)?;
        let public = match &pair {
            // DNSKEY has the point without the byte that says it is uncompressed (RFC 6605 section 4).
            Pair::Ecdsa(pair) => &pair.public_key().as_ref()[1..],
            Pair::Ed25519(pair) => pair.public_key().as_ref(),
        };
        let mut dnskey = Vec::with_capacity(4 + public.len());
        dnskey.extend(FLAGS.to_be_bytes());
        dnskey.extend([PROTOCOL, algorithm.number()]);
        dnskey.extend_from_slice(public);
        Ok(Self {
            algorithm,
            tag: tag(&dnskey),
            pair,
            dnskey,
            rng,
        })
    }

    /// Its algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The data of its DNSKEY record: flags 257, since it signs the zone and is what DS points to.
    #[must_use]
    pub fn dnskey(&self) -> &[u8] {
        &self.dnskey
    }

    /// Its tag (RFC 4034 appendix B).
    #[must_use]
    pub fn tag(&self) -> u16 {
        self.tag
    }

    /// The data of its DS record at the parent of `zone` (wire form, lower case), with SHA-256 (RFC 4509).
    #[must_use]
    pub fn ds(&self, zone: &[u8]) -> Vec<u8> {
        let mut sha = Sha256::new();
        sha.update(zone);
        sha.update(&self.dnskey);
        let mut ds = self.tag.to_be_bytes().to_vec();
        ds.extend([self.algorithm.number(), DIGEST_SHA256]);
        ds.extend_from_slice(&sha.finalize());
        ds
    }

    /// Signs `message`.
    ///
    /// # Errors
    /// The system gave no random bytes.
    pub(super) fn sign(&self, message: &[u8]) -> Result<[u8; SIGNATURE_LEN], KeyError> {
        let signature = match &self.pair {
            Pair::Ecdsa(pair) => pair
                .sign(&self.rng, message)
                .map_err(|_| KeyError::Random)?,
            Pair::Ed25519(pair) => pair.sign(message),
        };
        signature
            .as_ref()
            .try_into()
            .map_err(|_| KeyError::Rejected)
    }
}

/// The tag of a key (RFC 4034 appendix B).
fn tag(dnskey: &[u8]) -> u16 {
    let sum = dnskey
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum::<u32>();
    ((sum + (sum >> 16)) & 0xFFFF) as u16 // Masked.
}

/// Zone key and secure entry point.
const FLAGS: u16 = 257;
const PROTOCOL: u8 = 3;
const DIGEST_SHA256: u8 = 2;

/// Bytes of a signature, the same for both algorithms.
pub(super) const SIGNATURE_LEN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_and_ds_are_those_of_rfc_6605() {
        // Section 6.1: example.net. DNSKEY 257 3 13, tag 55648.
        let public = domain::utils::base64::decode::<Vec<u8>>(
            "GojIhhXUN/u4v54ZQqGSnyhWJwaubCvTmeexv7bR6edbkrSqQpF64cYbcB7wNcP+e+MAnLr+Wi9xMWyQLc8NAA==",
        )
        .expect("base64");
        let mut dnskey = vec![1, 1, 3, 13];
        dnskey.extend(public);
        assert_eq!(tag(&dnskey), 55_648);
        let pkcs8 = Key::generate(Algorithm::EcdsaP256).expect("random bytes");
        let key = Key {
            tag: 55_648,
            dnskey,
            ..Key::new(Algorithm::EcdsaP256, &pkcs8).expect("its own key")
        };
        let digest = [
            0xb4, 0xc8, 0xc1, 0xfe, 0x2e, 0x74, 0x77, 0x12, 0x7b, 0x27, 0x11, 0x56, 0x56, 0xad,
            0x62, 0x56, 0xf4, 0x24, 0x62, 0x5b, 0xf5, 0xc1, 0xe2, 0x77, 0x0c, 0xe6, 0xd6, 0xe3,
            0x7d, 0xf6, 0x1d, 0x17,
        ];
        let ds = key.ds(b"\x07example\x03net\0");
        assert_eq!(ds[..4], [0xD9, 0x60, 13, 2]);
        assert_eq!(ds[4..], digest);
    }

    #[test]
    fn key_of_another_algorithm_is_rejected() {
        for algorithm in Algorithm::ALL {
            let pkcs8 = Key::generate(algorithm).expect("random bytes");
            let key = Key::new(algorithm, &pkcs8).expect("its own key");
            assert_eq!(key.dnskey()[..4], [1, 1, 3, algorithm.number()]);
            assert_eq!(key.sign(b"message").expect("random bytes").len(), 64);
            let other = Algorithm::ALL.into_iter().find(|other| *other != algorithm);
            let other = Key::new(other.expect("there are two"), &pkcs8);
            assert_eq!(other.err(), Some(KeyError::Rejected));
        }
    }
}
