//! Content: objects in fixed chunks, each with a digest; what this node publishes and what it mirrors.
//!
//! From ground to roof: [`chunk`], [`manifest`], [`have`] (pure); [`object`] (one object: verified reads,
//! verified writes), [`library`] (paths to objects), [`store`] (mirrored objects on disk, recovery), [`publish`]
//! (a directory scanned and watched).

use std::path::PathBuf;

pub mod chunk;

pub mod manifest;

pub mod have;

pub mod object;

pub mod library;

pub mod store;

pub mod publish;

/// A directory this node is the origin of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishConfig {
    /// URL path prefix; begins and ends with `/`.
    pub prefix: String,
    /// The directory.
    pub dir: PathBuf,
    /// File that stands for a directory; empty: none.
    pub index: String,
    /// Whether a directory without an index file is listed.
    pub listing: bool,
}

/// Settings of the store.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Directory for manifests, chunks and what was learned of published files.
    pub dir: PathBuf,
    /// Bytes of mirrored objects at most.
    pub size: u64,
    /// Chunk size for published objects, bytes.
    pub chunk: u32,
    /// Objects (published and mirrored) at most.
    pub objects: usize,
    /// Objects up to this many bytes are kept in memory, and how many bytes of them.
    pub small_object: u32,
    /// See `small_object`.
    pub small_total: u64,
}
