//! The catalogue: what one node publishes beneath a prefix, with a version, signed by it. Pure.
//!
//! A mirror may get it from any node: it is the publisher's word, whoever passes it on. Versions of one key only
//! rise, over restarts too and whatever the prefix, so that of two catalogues of a key the one with the higher
//! version is the later one, and a node that holds a version never takes an older one. The encoding is canonical.
//! All integers are little-endian:
//!
//! | bytes | field |
//! |---|---|
//! | 8 | magic `HWCATAL` and the version of the format, 1 |
//! | 8 | version |
//! | 1 | 1: everything published is listed; 0: the node has not read all its files yet |
//! | 2 + n | length and bytes of the prefix |
//! | 4 | number of objects, then for each, by path: |
//! | 2 + n | length and bytes of the path |
//! | 8 | size |
//! | 32 | digest of its manifest |
//! | 96 | behind the whole: the [`Seal`] |

use std::sync::Arc;

use super::chunk::Digest;
use super::manifest::{ManifestError, PATH_MAX, Reader, check_path, error};
use super::sign::{Identity, PublicKey, Purpose, Seal, VerifyError};

/// What a node publishes beneath a prefix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Catalogue {
    /// Higher than that of every catalogue the node signed before.
    pub version: u64,
    /// Whether everything published is listed. While a node that was just started has not read all its files, an
    /// object that is not listed may still come.
    pub complete: bool,
    /// URL path prefix; begins and ends with `/`.
    pub prefix: String,
    /// The objects, in the order of their paths.
    pub objects: Vec<Listed>,
}

/// One object of a [`Catalogue`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Its path.
    pub path: String,
    /// Its size, bytes.
    pub size: u64,
    /// Digest of its manifest: the version of the object.
    pub manifest: Digest,
}

/// A catalogue as it was signed, to be passed on byte by byte. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SignedCatalogue {
    bytes: Arc<[u8]>,
    key: PublicKey,
    catalogue: Arc<Catalogue>,
}

impl Catalogue {
    /// The canonical bytes, without a seal.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let paths: usize = self.objects.iter().map(|o| ENTRY + o.path.len()).sum();
        let mut out = Vec::with_capacity(FIXED + self.prefix.len() + paths + Seal::SIZE);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.push(u8::from(self.complete));
        put_text(&mut out, &self.prefix);
        let count = u32::try_from(self.objects.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_le_bytes());
        for object in &self.objects {
            put_text(&mut out, &object.path);
            out.extend_from_slice(&object.size.to_le_bytes());
            out.extend_from_slice(&object.manifest.0);
        }
        out
    }

    /// Reads what [`Catalogue::encode`] wrote. Every path is normalised, beneath the prefix and after the one before.
    ///
    /// # Errors
    /// The field, what was found, what was expected.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > SIZE_MAX {
            return Err(error("length", bytes.len(), "at most 64 MiB"));
        }
        let mut rest = Reader(bytes);
        let magic = rest.take("magic", MAGIC.len())?;
        if magic != MAGIC {
            let expected = "HWCATAL and version 1";
            return Err(error("magic", magic.escape_ascii(), expected));
        }
        let version = u64::from_le_bytes(rest.array("version")?);
        let complete = match rest.array("complete")? {
            [0] => false,
            [1] => true,
            [other] => return Err(error("complete", other, "0 or 1")),
        };
        let prefix = rest.text("prefix")?;
        check_prefix(&prefix)?;
        let count = u32::from_le_bytes(rest.array("object count")?);
        // The bound holds before the memory is taken.
        if count as usize > OBJECTS_MAX || count as usize > rest.0.len() / ENTRY {
            let expected = "at most 100,000, and bytes for each";
            return Err(error("object count", count, expected));
        }
        let mut objects: Vec<Listed> = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let path = rest.text("path")?;
            check_path(&path)?;
            if !path.starts_with(&prefix) {
                return Err(error("path", format!("{path:?}"), "one beneath the prefix"));
            }
            if objects.last().is_some_and(|last| last.path >= path) {
                return Err(error(
                    "path",
                    format!("{path:?}"),
                    "objects by path, each once",
                ));
            }
            objects.push(Listed {
                path,
                size: u64::from_le_bytes(rest.array("size")?),
                manifest: Digest(rest.array("manifest")?),
            });
        }
        if !rest.0.is_empty() {
            let found = format!("{} bytes more", rest.0.len());
            return Err(error("end", found, "nothing after the last object"));
        }
        Ok(Self {
            version,
            complete,
            prefix,
            objects,
        })
    }
}

impl SignedCatalogue {
    /// Signs a catalogue.
    #[must_use]
    pub fn sign(catalogue: Catalogue, identity: &Identity) -> Self {
        let mut bytes = catalogue.encode();
        let seal = identity.sign(Purpose::Catalogue, Digest::of(&bytes));
        bytes.extend_from_slice(&seal.encode());
        Self {
            bytes: bytes.into(),
            key: seal.key,
            catalogue: Arc::new(catalogue),
        }
    }

    /// Reads a signed catalogue that must be by `key`. The signature is verified before anything else is read.
    ///
    /// # Errors
    /// See [`VerifyError`]; then nothing of it is to be believed.
    pub fn verify(bytes: &[u8], key: PublicKey) -> Result<Self, VerifyError> {
        if bytes.len() > SIZE_MAX + Seal::SIZE {
            return Err(error("length", bytes.len(), "at most 64 MiB").into());
        }
        let (payload, seal) = Seal::split(bytes).ok_or(VerifyError::Unsigned)?;
        if !seal.holds(Purpose::Catalogue, Digest::of(payload)) {
            return Err(match Catalogue::decode(bytes) {
                Ok(_) => VerifyError::Unsigned,
                Err(_) => VerifyError::Wrong(seal.key),
            });
        }
        if seal.key != key {
            return Err(VerifyError::OtherKey(seal.key));
        }
        Ok(Self {
            catalogue: Arc::new(Catalogue::decode(payload)?),
            bytes: bytes.into(),
            key,
        })
    }

    /// The bytes with their seal.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whose word it is.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// What it says.
    #[must_use]
    pub fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }
}

impl AsRef<[u8]> for SignedCatalogue {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn check_prefix(prefix: &str) -> Result<(), ManifestError> {
    let good = prefix.starts_with('/') && prefix.ends_with('/') && prefix.len() <= PATH_MAX;
    if good {
        Ok(())
    } else {
        let expected = "a path that begins and ends with /";
        Err(error("prefix", format!("{prefix:?}"), expected))
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&text.as_bytes()[..usize::from(len)]);
}

/// Objects of a catalogue at most.
pub const OBJECTS_MAX: usize = 100_000;

/// Bytes of a catalogue at most, without its seal.
pub const SIZE_MAX: usize = 64 << 20;

const MAGIC: &[u8; 8] = b"HWCATAL\x01";
const FIXED: usize = 8 + 8 + 1 + 2 + 4;

/// Bytes of one object without its path.
const ENTRY: usize = 2 + 8 + 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listed(path: &str) -> Listed {
        Listed {
            path: path.into(),
            size: 9,
            manifest: Digest([3; 32]),
        }
    }

    fn sample(paths: &[&str]) -> Catalogue {
        Catalogue {
            version: 77,
            complete: true,
            prefix: "/v/".into(),
            objects: paths.iter().map(|path| listed(path)).collect(),
        }
    }

    fn identity() -> Identity {
        Identity::from_seed(&[1; 32])
    }

    #[track_caller]
    fn refused(catalogue: &Catalogue, field: &str) {
        let found = Catalogue::decode(&catalogue.encode()).expect_err("a broken catalogue");
        assert_eq!(found.field, field, "{found}");
    }

    #[test]
    fn decode_paths_out_of_place_are_refused() {
        refused(&sample(&["/v/b", "/v/a"]), "path");
        refused(&sample(&["/v/a", "/v/a"]), "path");
        refused(&sample(&["/w/a"]), "path");
        refused(&sample(&["/v/../a"]), "path");
        refused(&sample(&["/v/"]), "path");
        let mut other = sample(&[]);
        other.prefix = "/v".into();
        refused(&other, "prefix");
    }

    #[test]
    fn decode_count_beyond_the_bytes_takes_no_memory() {
        let mut bytes = sample(&[]).encode();
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Catalogue::decode(&bytes).unwrap_err().field, "object count");
        bytes[at..].copy_from_slice(&1u32.to_le_bytes());
        assert_eq!(Catalogue::decode(&bytes).unwrap_err().field, "object count");
    }

    #[test]
    fn decode_with_more_behind_is_refused() {
        let mut bytes = sample(&["/v/a"]).encode();
        bytes.push(0);
        assert_eq!(Catalogue::decode(&bytes).unwrap_err().field, "end");
    }

    #[test]
    fn verify_needs_the_key_and_its_signature() {
        let signed = SignedCatalogue::sign(sample(&["/v/a"]), &identity());
        let key = identity().key();
        let good = SignedCatalogue::verify(signed.bytes(), key).expect("a good one");
        assert_eq!(**good.catalogue(), sample(&["/v/a"]));
        assert_eq!(good.bytes(), signed.bytes());

        let error = |bytes: &[u8], key| SignedCatalogue::verify(bytes, key).unwrap_err();
        let other = Identity::from_seed(&[2; 32]);
        assert_eq!(
            error(signed.bytes(), other.key()),
            VerifyError::OtherKey(key)
        );
        let unsigned = sample(&["/v/a", "/v/b", "/v/c"]).encode();
        assert_eq!(error(&unsigned, key), VerifyError::Unsigned);
        assert_eq!(error(b"", key), VerifyError::Unsigned);
        for at in [8, 16, 20, 40] {
            let mut bytes = signed.bytes().to_vec();
            bytes[at] ^= 1;
            assert_eq!(error(&bytes, key), VerifyError::Wrong(key), "byte {at}");
        }
        // Signed as a manifest is not signed as a catalogue.
        let mut bytes = sample(&[]).encode();
        let seal = identity().sign(Purpose::Manifest, Digest::of(&bytes));
        bytes.extend_from_slice(&seal.encode());
        assert_eq!(error(&bytes, key), VerifyError::Wrong(key));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn encode_then_decode_is_the_catalogue(
            version: u64, complete: bool,
            names in prop::collection::btree_set("[^/\0.]{1,20}", 0..20),
        ) {
            let mut paths: Vec<String> = names.iter().map(|name| format!("/v/{name}")).collect();
            paths.sort();
            let objects = paths.iter().map(|path| listed(path)).collect();
            let catalogue = Catalogue { version, complete, objects, ..sample(&[]) };
            prop_assert_eq!(Catalogue::decode(&catalogue.encode()), Ok(catalogue));
        }

        #[test]
        fn decode_damaged_bytes_is_refused_or_canonical(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            let mut bytes = sample(&["/v/a", "/v/b/c"]).encode();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            prop_assert_eq!(Catalogue::decode(&bytes).map(|c| c.encode()).unwrap_or(bytes.clone()), bytes.clone());
            prop_assert!(Catalogue::decode(&bytes[..cut.index(bytes.len())]).is_err());
        }
    }
}
