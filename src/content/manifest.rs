//! The manifest of an object: what its bytes must be.
//!
//! Its encoding is canonical (equal manifests have equal bytes), so that its BLAKE3 digest names the version on
//! every node. All integers are little-endian:
//!
//! | bytes | field |
//! |---|---|
//! | 8 | magic `HWMANIF` and the version, 1 |
//! | 8 | size |
//! | 4 | chunk size |
//! | 8 | last modification |
//! | 32 | SHA-256 of the object |
//! | 2 + n | length and bytes of the path |
//! | 2 + n | length and bytes of the media type |
//! | 4 + 32 n | number of chunks and the BLAKE3 digest of each |
//!
//! Between nodes and in the store the publisher's signature stands behind it (see [`super::sign`]): 32 bytes of its
//! public key, 64 of the signature. It is no part of the version: two nodes that publish the same file give it the
//! same digest.

use super::chunk::{Digest, Layout};
use super::name;
use super::sign::{PublicKey, Purpose, Seal, VerifyError};

/// An object's path, shape and digests. Its own digest (BLAKE3 of [`Manifest::encode`]) names the version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// Absolute, normalised URL path (decoded), such as `/video.bin`.
    pub path: String,
    /// Size and chunk size.
    pub layout: Layout,
    /// Media type, such as `video/mp4`.
    pub media_type: String,
    /// Last modification, Unix seconds.
    pub modified: u64,
    /// SHA-256 of the whole object (RFC 9530 `Repr-Digest`).
    pub sha256: [u8; 32],
    /// BLAKE3 of each chunk.
    pub chunks: Vec<Digest>,
}

impl Manifest {
    /// The canonical bytes (versioned; equal manifests have equal bytes).
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let strings = self.path.len() + self.media_type.len();
        let mut out = Vec::with_capacity(FIXED + strings + self.chunks.len() * 32);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.layout.size.to_le_bytes());
        out.extend_from_slice(&self.layout.chunk.to_le_bytes());
        out.extend_from_slice(&self.modified.to_le_bytes());
        out.extend_from_slice(&self.sha256);
        for text in [&self.path, &self.media_type] {
            let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(&text.as_bytes()[..usize::from(len)]);
        }
        let count = u32::try_from(self.chunks.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_le_bytes());
        for chunk in &self.chunks {
            out.extend_from_slice(&chunk.0);
        }
        out
    }

    /// Reads what [`Manifest::encode`] wrote; every field is checked against the others and against bounds.
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
            return Err(error(
                "magic",
                magic.escape_ascii(),
                "HWMANIF and version 1",
            ));
        }
        let size = u64::from_le_bytes(rest.array("size")?);
        let chunk = u32::from_le_bytes(rest.array("chunk size")?);
        let modified = u64::from_le_bytes(rest.array("last modification")?);
        let sha256 = rest.array("SHA-256")?;
        let path = rest.text("path")?;
        let media_type = rest.text("media type")?;
        let count = u32::from_le_bytes(rest.array("chunk count")?);
        if rest.0.len() as u64 != u64::from(count) * 32 {
            return Err(error(
                "chunk digests",
                format!("{} bytes for {count} chunks", rest.0.len()),
                "32 bytes for each chunk and nothing after",
            ));
        }
        let (digests, _) = rest.0.as_chunks::<32>();
        let manifest = Self {
            path,
            layout: Layout { size, chunk },
            media_type,
            modified,
            sha256,
            chunks: digests.iter().map(|digest| Digest(*digest)).collect(),
        };
        manifest.check()?;
        Ok(manifest)
    }

    /// Reads a manifest with the seal behind it. The signature is verified before anything else is read, and its
    /// key must be `trusted`.
    ///
    /// # Errors
    /// See [`VerifyError`]; then nothing of it is to be believed.
    pub fn verify(
        bytes: &[u8],
        trusted: impl Fn(PublicKey) -> bool,
    ) -> Result<(Self, Seal), VerifyError> {
        if bytes.len() > SIZE_MAX + Seal::SIZE {
            return Err(error("length", bytes.len(), "at most 64 MiB").into());
        }
        let (payload, seal) = Seal::split(bytes).ok_or(VerifyError::Unsigned)?;
        if !seal.holds(Purpose::Manifest, Digest::of(payload)) {
            return Err(match Self::decode(bytes) {
                Ok(_) => VerifyError::Unsigned,
                Err(_) => VerifyError::Wrong(seal.key),
            });
        }
        if !trusted(seal.key) {
            return Err(VerifyError::OtherKey(seal.key));
        }
        Ok((Self::decode(payload)?, seal))
    }

    /// Checks every field against the others and against bounds, as [`Manifest::decode`] does.
    ///
    /// # Errors
    /// The field, what was found, what was expected.
    pub fn check(&self) -> Result<(), ManifestError> {
        let Layout { size, chunk } = self.layout;
        if !(CHUNK_MIN..=CHUNK_MAX).contains(&chunk) || !chunk.is_multiple_of(CHUNK_MIN) {
            return Err(error(
                "chunk size",
                chunk,
                "a multiple of 64 KiB, at most 16 MiB",
            ));
        }
        if size.div_ceil(u64::from(chunk)) != self.chunks.len() as u64 {
            return Err(error(
                "chunk count",
                format!(
                    "{} for {size} bytes in chunks of {chunk}",
                    self.chunks.len()
                ),
                "as many as the size needs",
            ));
        }
        if self.chunks.len() > CHUNKS_MAX {
            return Err(error("chunk count", self.chunks.len(), "at most 2,000,000"));
        }
        check_path(&self.path)?;
        check_media_type(&self.media_type)
    }

    /// BLAKE3 of the canonical bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.encode())
    }
}

/// Whether `path` may name an object: absolute, normalised, not a directory, at most [`PATH_MAX`] bytes.
///
/// # Errors
/// What was found, what was expected.
pub fn check_path(path: &str) -> Result<(), ManifestError> {
    let wrong = |expected| Err(error("path", format!("{path:?}"), expected));
    if path.len() > PATH_MAX {
        return Err(error(
            "path",
            format!("{} bytes", path.len()),
            "at most 4096",
        ));
    }
    let Some(inner) = path.strip_prefix('/') else {
        return wrong("an absolute path");
    };
    for segment in inner.split('/') {
        match segment {
            "" => return wrong("no empty segment and no final slash"),
            "." | ".." => return wrong("no `.` or `..` segment"),
            _ if name::to_bytes(segment).len() > 255 => {
                return wrong("segments of at most 255 bytes");
            }
            _ if segment.contains('\0') => return wrong("no NUL"),
            _ => {}
        }
    }
    if !name::is_canonical(path) {
        return wrong("the one text of its bytes");
    }
    Ok(())
}

/// `type/subtype`, both tokens (RFC 9110 section 8.3.1), and parameters in visible ASCII.
fn check_media_type(text: &str) -> Result<(), ManifestError> {
    let wrong = |expected| Err(error("media type", format!("{text:?}"), expected));
    if text.len() > 255 {
        return wrong("at most 255 bytes");
    }
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    let Some((kind, sub)) = essence.split_once('/') else {
        return wrong("type/subtype");
    };
    if ![kind, sub].iter().all(|part| is_token(part)) {
        return wrong("tokens around the slash");
    }
    if !parameters.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        return wrong("parameters in visible ASCII");
    }
    Ok(())
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// What is left to read.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(
        &mut self,
        field: &'static str,
        len: usize,
    ) -> Result<&'a [u8], ManifestError> {
        match self.0.split_at_checked(len) {
            Some((taken, rest)) => {
                self.0 = rest;
                Ok(taken)
            }
            None => Err(error(
                field,
                format!("{} bytes left", self.0.len()),
                "a whole field",
            )),
        }
    }

    pub(super) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], ManifestError> {
        let taken = self.take(field, N)?;
        Ok(taken.try_into().expect("N bytes were taken"))
    }

    pub(super) fn text(&mut self, field: &'static str) -> Result<String, ManifestError> {
        let len = u16::from_le_bytes(self.array(field)?);
        let taken = self.take(field, usize::from(len))?;
        std::str::from_utf8(taken)
            .map(str::to_owned)
            .map_err(|_| error(field, taken.escape_ascii(), "UTF-8"))
    }
}

pub(super) fn error(
    field: &'static str,
    found: impl std::fmt::Display,
    expected: &'static str,
) -> ManifestError {
    let mut found = found.to_string();
    if let Some((end, _)) = found.char_indices().nth(200) {
        found.truncate(end); // It came from elsewhere: it must not fill the log.
    }
    ManifestError {
        field,
        found,
        expected,
    }
}

/// Why bytes are not a manifest, or not a catalogue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: found {found}, expected {expected}")]
pub struct ManifestError {
    /// The field.
    pub field: &'static str,
    /// What stands there.
    pub found: String,
    /// What should.
    pub expected: &'static str,
}

/// Encoded bytes at most.
pub const SIZE_MAX: usize = 64 << 20;

/// Chunk sizes are multiples of this: then a page of the page cache, even one of 64 KiB, belongs to one chunk.
pub const CHUNK_MIN: u32 = 64 << 10;

/// Chunk size at most.
pub const CHUNK_MAX: u32 = 16 << 20;

/// Bytes of a path at most.
pub const PATH_MAX: usize = 4096;

pub(super) const CHUNKS_MAX: usize = 2_000_000; // 61 MiB of digests: the rest of the manifest always fits in SIZE_MAX.
const MAGIC: &[u8; 8] = b"HWMANIF\x01";
const FIXED: usize = 8 + 8 + 4 + 8 + 32 + 2 + 2 + 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::sign::Identity;
    use super::*;

    fn sample(size: u64) -> Manifest {
        let layout = Layout {
            size,
            chunk: CHUNK_MIN,
        };
        Manifest {
            path: "/a/b c.bin".into(),
            layout,
            media_type: "text/plain; charset=utf-8".into(),
            modified: 1_700_000_000,
            sha256: [7; 32],
            chunks: (0..layout.count()).map(|i| Digest([i as u8; 32])).collect(),
        }
    }

    /// Changes a good manifest; the field that `decode` then complains of.
    #[track_caller]
    fn check(change: impl FnOnce(&mut Manifest), expected: &str) {
        let mut manifest = sample(100_000);
        change(&mut manifest);
        let found = Manifest::decode(&manifest.encode()).expect_err("a broken manifest");
        assert_eq!(found.field, expected, "{found}");
    }

    #[test]
    fn decode_wrong_chunk_size_is_refused() {
        for chunk in [0, 1, 65_535, 65_537, (16 << 20) + 65_536] {
            check(|m| m.layout.chunk = chunk, "chunk size");
        }
    }

    #[test]
    fn decode_count_against_size_is_refused() {
        check(|m| m.layout.size = 1, "chunk count");
        check(|m| m.layout.size = u64::MAX, "chunk count");
        check(|m| m.chunks.truncate(1), "chunk count");
    }

    #[test]
    fn decode_path_not_normalised_is_refused() {
        for path in [
            "", "/", "a", "/a/", "//a", "/a//b", "/a/./b", "/..", "/a/..", "/a\0b",
        ] {
            check(|m| m.path = path.into(), "path");
        }
        check(|m| m.path = format!("/{}", "x/".repeat(2100)), "path");
    }

    #[test]
    fn decode_media_type_not_a_token_is_refused() {
        for media_type in [
            "",
            "text",
            "/",
            "text/",
            "te xt/plain",
            "a/b;x=\r\ny",
            "a/b\n",
        ] {
            check(|m| m.media_type = media_type.into(), "media type");
        }
    }

    #[test]
    fn decode_other_version_or_more_bytes_is_refused() {
        let mut bytes = sample(1).encode();
        bytes.push(0);
        assert_eq!(Manifest::decode(&bytes).unwrap_err().field, "chunk digests");
        bytes[7] = 2;
        assert_eq!(Manifest::decode(&bytes).unwrap_err().field, "magic");
        assert_eq!(Manifest::decode(b"").unwrap_err().field, "magic");
    }

    #[test]
    fn verify_needs_a_good_signature_by_a_trusted_key() {
        let identity = Identity::from_seed(&[1; 32]);
        let manifest = sample(100_000);
        let mut bytes = manifest.encode();
        let unsigned = bytes.clone();
        let seal = identity.sign(Purpose::Manifest, manifest.digest());
        bytes.extend_from_slice(&seal.encode());
        let verify = |bytes: &[u8], trusted: bool| Manifest::verify(bytes, |_| trusted);
        assert_eq!(verify(&bytes, true), Ok((manifest, seal)));
        let other = VerifyError::OtherKey(identity.key());
        assert_eq!(verify(&bytes, false), Err(other));
        assert_eq!(verify(&unsigned, true), Err(VerifyError::Unsigned));
        assert_eq!(verify(b"", true), Err(VerifyError::Unsigned));
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            let found = verify(&bytes, true);
            assert!(
                matches!(found, Err(VerifyError::Wrong(_))),
                "{at}: {found:?}"
            );
        }
    }

    #[test]
    fn manifest_of_an_empty_object_has_no_chunks() {
        let manifest = sample(0);
        assert_eq!(manifest.chunks.len(), 0);
        assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn encode_then_decode_is_the_manifest(
            size in 0u64..10_000_000, path in "(/[^/\0.]{1,20}){1,4}", modified: u64, sha256: [u8; 32],
        ) {
            let manifest = Manifest { path, modified, sha256, ..sample(size) };
            let bytes = manifest.encode();
            let back = Manifest::decode(&bytes).expect("a good manifest");
            prop_assert_eq!(back.encode(), bytes);
            prop_assert_eq!(back, manifest);
        }

        #[test]
        fn decode_arbitrary_bytes_never_panics(bytes: Vec<u8>) {
            let _ = Manifest::decode(&bytes);
        }

        #[test]
        fn decode_damaged_bytes_is_refused_or_canonical(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            let mut bytes = sample(200_000).encode();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            prop_assert_eq!(Manifest::decode(&bytes).map(|m| m.encode()).unwrap_or(bytes.clone()), bytes.clone());
            prop_assert!(Manifest::decode(&bytes[..cut.index(bytes.len())]).is_err());
        }
    }
}
