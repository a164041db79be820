//! The peer protocol's shapes, spoken over the same HTTP server.
//!
//! - `GET /.well-known/headwater/v1/index?prefix=P`: JSON [`Index`], with an `ETag`.
//! - `GET /.well-known/headwater/v1/manifest/ID`: the encoded manifest.
//! - `GET /.well-known/headwater/v1/chunk/ID/N`: chunk N of the object whose manifest digest is ID.

use serde::{Deserialize, Serialize};

/// Path beneath which the protocol lives; no published object may stand there.
pub const ROOT: &str = "/.well-known/headwater/v1/";

/// What a node holds beneath a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// The objects, by path.
    pub objects: Vec<IndexEntry>,
}

/// One object in an [`Index`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// Its path.
    pub path: String,
    /// Hex digest of its manifest.
    pub manifest: String,
    /// Its size, bytes.
    pub size: u64,
}
