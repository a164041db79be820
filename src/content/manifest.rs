//! The manifest of an object: what its bytes must be.

use super::chunk::{Digest, Layout};

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

/// Why bytes are not a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("manifest: {field}: found {found}, expected {expected}")]
pub struct ManifestError {
    /// The field.
    pub field: &'static str,
    /// What stands there.
    pub found: String,
    /// What should.
    pub expected: &'static str,
}

impl Manifest {
    /// The canonical bytes (versioned; equal manifests have equal bytes).
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        unimplemented!()
    }

    /// Reads what [`Manifest::encode`] wrote; every field is checked against the others and against bounds.
    ///
    /// # Errors
    /// The field, what was found, what was expected.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let _ = bytes;
        unimplemented!()
    }

    /// BLAKE3 of the canonical bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        unimplemented!()
    }
}
