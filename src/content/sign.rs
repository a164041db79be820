//! Signatures (Ed25519, RFC 8032) over manifests and catalogues: who published them. Pure.
//!
//! What is signed is a purpose and a digest: `headwater manifest 1` or `headwater catalogue 1`, a zero byte, and the
//! BLAKE3 digest of the canonical bytes. So a signature for one can never be shown as one for the other, and a
//! manifest's own digest, which names the version, is the same whoever publishes it. The signature travels behind
//! the bytes it is for, as a [`Seal`]: 32 bytes of the public key, 64 of the signature. Whoever has them can pass
//! them on; only who has the private key can make them.

use std::fmt;
use std::str::FromStr;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::chunk::Digest;
use super::manifest::ManifestError;

/// The public key of a node that publishes. As text (also in JSON): 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; 32]);

/// A signature and the key it is by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// The key that says it made the signature.
    pub key: PublicKey,
    /// The signature.
    pub signature: [u8; 64],
}

/// What a signature is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// The digest of a manifest.
    Manifest,
    /// The digest of a catalogue.
    Catalogue,
}

/// The private key of this node, with its public one.
pub struct Identity {
    pair: Ed25519KeyPair,
    key: PublicKey,
}

impl Identity {
    /// The key pair of a seed (RFC 8032 section 5.1.5). Whoever knows the seed can sign.
    ///
    /// # Panics
    /// Never: any 32 bytes are a seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are a seed");
        let key = pair.public_key().as_ref().try_into();
        let key = PublicKey(key.expect("an Ed25519 key has 32 bytes"));
        Self { pair, key }
    }

    /// The public key.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// Signs the digest of a manifest or a catalogue. Some 20 µs.
    ///
    /// # Panics
    /// Never: an Ed25519 signature has 64 bytes.
    #[must_use]
    pub fn sign(&self, purpose: Purpose, digest: Digest) -> Seal {
        let signature = self.pair.sign(&message(purpose, digest));
        Seal {
            key: self.key,
            signature: signature
                .as_ref()
                .try_into()
                .expect("an Ed25519 signature has 64 bytes"),
        }
    }
}

impl fmt::Debug for Identity {
    /// The public key only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.key).finish()
    }
}

impl Seal {
    /// Bytes of a seal.
    pub const SIZE: usize = 96;

    /// Whether the key made this signature for this digest and purpose. Some 40 µs.
    #[must_use]
    pub fn holds(&self, purpose: Purpose, digest: Digest) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, &self.key.0);
        key.verify(&message(purpose, digest), &self.signature)
            .is_ok()
    }

    /// Key and signature, one behind the other.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..32].copy_from_slice(&self.key.0);
        bytes[32..].copy_from_slice(&self.signature);
        bytes
    }

    /// Cuts the seal off the end of `bytes`; gives what it is for and the seal, not verified. `None`: too short.
    #[must_use]
    pub fn split(bytes: &[u8]) -> Option<(&[u8], Self)> {
        let (rest, seal) = bytes.split_last_chunk::<{ Self::SIZE }>()?;
        let (key, signature) = seal.split_first_chunk::<32>()?;
        let seal = Self {
            key: PublicKey(*key),
            signature: signature.try_into().ok()?,
        };
        Some((rest, seal))
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Seal").field(&self.key).finish()
    }
}

fn message(purpose: Purpose, digest: Digest) -> Vec<u8> {
    let purpose: &[u8] = match purpose {
        Purpose::Manifest => b"headwater manifest 1\0",
        Purpose::Catalogue => b"headwater catalogue 1\0",
    };
    [purpose, &digest.0].concat()
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Digest(self.0), f)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let digits: Digest = text.parse().map_err(|_| KeyError)?;
        Ok(Self(digits.0))
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Why signed bytes are not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// No signature stands behind them.
    #[error("found no signature, expected one of the origin")]
    Unsigned,
    /// The key that is named did not make the signature.
    #[error("found a wrong signature in the name of key {0}, expected a good one")]
    Wrong(PublicKey),
    /// The signature is good, but by a key that is not trusted for them. Who sent them need be no liar.
    #[error("found a signature of key {0}, expected one of the origin's")]
    OtherKey(PublicKey),
    /// They are signed, and are not what they should be.
    #[error(transparent)]
    Format(#[from] ManifestError),
}

/// A text is no public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a node's public key, 64 lower-case hexadecimal digits")]
pub struct KeyError;

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: Digest = Digest([5; 32]);

    fn seal() -> Seal {
        Identity::from_seed(&[7; 32]).sign(Purpose::Manifest, DIGEST)
    }

    #[test]
    fn key_of_a_seed_is_that_of_the_standard() {
        // RFC 8032 section 7.1, test 1.
        let seed: Digest = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
            .parse()
            .unwrap();
        let key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert_eq!(Identity::from_seed(&seed.0).key().to_string(), key);
    }

    #[test]
    fn seal_holds_for_its_digest_and_purpose_only() {
        let seal = seal();
        assert!(seal.holds(Purpose::Manifest, DIGEST));
        assert!(!seal.holds(Purpose::Catalogue, DIGEST));
        assert!(!seal.holds(Purpose::Manifest, Digest([6; 32])));
    }

    #[test]
    fn seal_with_one_bit_flipped_does_not_hold() {
        for bit in 0..Seal::SIZE * 8 {
            let mut bytes = seal().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let (_, flipped) = Seal::split(&bytes).unwrap();
            assert!(!flipped.holds(Purpose::Manifest, DIGEST), "bit {bit}");
        }
    }

    #[test]
    fn seal_of_another_key_under_this_name_does_not_hold() {
        let mut forged = Identity::from_seed(&[8; 32]).sign(Purpose::Manifest, DIGEST);
        forged.key = seal().key;
        assert!(!forged.holds(Purpose::Manifest, DIGEST));
    }

    #[test]
    fn seal_split_off_is_the_one_put_behind() {
        let bytes = [b"payload".as_slice(), &seal().encode()].concat();
        assert_eq!(Seal::split(&bytes), Some((b"payload".as_slice(), seal())));
        assert_eq!(Seal::split(&bytes[..95]), None);
    }

    #[test]
    fn private_key_is_not_in_debug_output() {
        let text = format!("{:?}", Identity::from_seed(&[0xab; 32]));
        assert!(!text.contains(&"ab".repeat(32)) && !text.contains("171, 171"));
    }
}
