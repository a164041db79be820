//! One object: a manifest, a file, and which of its bytes have been proved.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::chunk::Digest;
use super::have::Have;
use super::manifest::Manifest;

/// Where an object comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Published by this node.
    Origin,
    /// Mirrored from another node.
    Mirror,
}

/// One version of one object. Shared by readers; a newer version is another `Object`.
#[derive(Debug)]
pub struct Object {}

/// Why bytes could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes on disk are not those of the manifest; the chunk was dropped (mirror) or the object is
    /// being published anew (origin). Nothing wrong left the node.
    #[error("chunk {index} of {path}: digest mismatch")]
    Corrupt {
        /// Object path.
        path: String,
        /// Chunk number.
        index: u32,
    },
    /// The chunk is not held (mirror still filling).
    #[error("chunk {index} of {path} is not held yet")]
    Missing {
        /// Object path.
        path: String,
        /// Chunk number.
        index: u32,
    },
    /// The operating system's error.
    #[error("{path}: {source}")]
    Io {
        /// Object path.
        path: String,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// Why a chunk was not kept.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Its bytes are not those of the manifest: whoever sent it is wrong.
    #[error("chunk {index} of {path}: digest mismatch")]
    Mismatch {
        /// Object path.
        path: String,
        /// Chunk number.
        index: u32,
    },
    /// The disk or the store's size is used up.
    #[error("{path}: no space: {reason}")]
    Full {
        /// Object path.
        path: String,
        /// What is full: the store (bytes used and allowed) or the disk.
        reason: String,
    },
    /// The operating system's error.
    #[error("{path}: {source}")]
    Io {
        /// Object path.
        path: String,
        /// What the kernel said.
        source: std::io::Error,
    },
}

impl Object {
    /// What its bytes must be.
    #[must_use]
    pub fn manifest(&self) -> &Arc<Manifest> {
        unimplemented!()
    }

    /// The manifest's digest: the version.
    #[must_use]
    pub fn id(&self) -> Digest {
        unimplemented!()
    }

    /// Where it comes from.
    #[must_use]
    pub fn role(&self) -> Role {
        unimplemented!()
    }

    /// Strong entity tag with its quotes, from the manifest's digest: equal on every node.
    #[must_use]
    pub fn etag(&self) -> &str {
        unimplemented!()
    }

    /// The whole object from memory, verified, if it is small and unchanged. No system call but a stat now and then.
    #[must_use]
    pub fn small(&self) -> Option<Bytes> {
        unimplemented!()
    }

    /// The chunks held now.
    #[must_use]
    pub fn have(&self) -> Have {
        unimplemented!()
    }

    /// Whether every chunk is held.
    #[must_use]
    pub fn complete(&self) -> bool {
        unimplemented!()
    }

    /// Verified bytes of one chunk. Does not wait when they are resident and proved before; else reads and
    /// digests the chunk on the blocking pool.
    ///
    /// # Errors
    /// See [`ReadError`]; `Missing` for a chunk not held.
    pub async fn read(&self, index: u32, within: Range<u32>) -> Result<Bytes, ReadError> {
        let _ = (index, within);
        unimplemented!()
    }

    /// Asks for a chunk to be fetched before others (a reader waits for it) and waits until it is held.
    /// Cancel-safe; the caller sets the deadline.
    pub async fn wanted(&self, index: u32) {
        let _ = index;
        unimplemented!()
    }

    /// Chunks readers wait for now, most urgent first (for the schedule).
    #[must_use]
    pub fn wants(&self) -> Vec<u32> {
        unimplemented!()
    }

    /// Verifies and keeps one chunk (mirror), then wakes its readers. Blocking: call on the blocking pool.
    ///
    /// # Errors
    /// See [`WriteError`]; nothing is kept then.
    pub fn write(&self, index: u32, bytes: &[u8]) -> Result<(), WriteError> {
        let _ = (index, bytes);
        unimplemented!()
    }

    /// Digests every held chunk anew; those that fail are dropped (mirror). Blocking. Returns (good, bad).
    #[must_use]
    pub fn verify(&self) -> (u32, u32) {
        unimplemented!()
    }
}
