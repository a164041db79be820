//! Content: objects in fixed chunks, each with a digest; what this node publishes and what it mirrors.
//!
//! From ground to roof: [`name`], [`chunk`], [`sign`], [`manifest`], [`catalogue`], [`have`], [`evict`],
//! [`media`] (pure); [`edition`] (this
//! node's key and the catalogues it signs); `buffers`, `seal`, `memory`, `heat`, [`disk`], `file`,
//! `fill`, `threads` and `reader` (the parts of an object: read buffers, seals of proved blocks, chunks in memory, how hot it is, file operations,
//! its file, its filling, where it may wait, what all share);
//! [`object`] (one object: verified reads, verified writes), `root` (a published directory: files to objects),
//! [`demand`] (what readers wait for), [`bucket`] (buckets elsewhere, published from here), [`library`] (paths to objects), [`intake`] (files on their way into a published directory),
//! [`store`] (mirrored objects on disk, recovery),
//! [`scrub`] (all of it read again in the background), `remembered` (digests of
//! published files across a restart), [`publish`] (directories scanned and watched).

use std::path::PathBuf;
use std::time::Duration;

pub mod name;

pub mod chunk;

pub mod sign;

pub mod manifest;

pub mod catalogue;

pub mod edition;

pub mod have;

pub mod evict;

mod heat;

pub mod media;

pub(crate) mod buffers;

pub(crate) mod seal;

mod memory;

mod beneath;

pub mod disk;

pub(crate) mod file;

mod fill;

pub mod threads;

mod reader;

pub mod object;

mod root;

pub mod demand;

pub mod bucket;

pub mod library;

pub mod intake;

pub mod tree;

pub mod store;

pub mod scrub;

mod remembered;

pub mod publish;

use disk::Disk;

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
    /// Bytes of chunks of larger objects kept in memory; `None`: an eighth of what the process may have.
    pub memory: Option<u64>,
    /// Bytes of read buffers kept for the next read; those in use are bound by the readers.
    pub buffers: u64,
    /// Reads that wait for the disk, and looks beneath published directories, at once.
    pub reads: usize,
    /// Threads for work that waits for the disk.
    pub threads: usize,
    /// What was not read for this long may make room for what is new.
    pub cold: Duration,
    /// From the beginning of one scrub to the next; zero: none.
    pub scrub: Duration,
    /// Bytes per second that the scrub reads at most.
    pub scrub_rate: u64,
    /// Where its files are.
    pub disk: Disk,
}

impl StoreConfig {
    /// The defaults, below `dir`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            size: 50 << 30,
            chunk: 1 << 20,
            objects: 100_000,
            small_object: 64 << 10,
            small_total: 64 << 20,
            memory: None,
            buffers: 32 << 20,
            reads: 16,
            threads: 64,
            cold: Duration::from_secs(3_600),
            scrub: Duration::from_secs(7 * 86_400),
            scrub_rate: 16 << 20,
            disk: Disk::default(),
        }
    }
}
