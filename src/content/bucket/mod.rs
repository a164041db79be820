//! A bucket of an S3-compatible server, published like a directory.
//!
//! A published directory keeps its bytes in place; a bucket is far away. So each of its objects is read through once
//! for its manifest, and held like a mirrored object: in chunks in the store, evicted when room is needed, and fetched
//! again by ranges when somebody asks. What was read is known by the server's entity tag, every later range is asked of
//! that very version (`If-Match`, and the tag of the answer is compared), and each chunk must have the digest it had when
//! the object was read through: two versions never mix, whatever the server does.
//!
//! From ground to roof: [`listing`] (pure: keys to paths, what changed), [`digests`] (pure), [`book`] (what is known of each object, in memory
//! and on disk), and with the feature `s3` `connect` (HTTP for the client library), `remote` (the bucket as we ask it), `take` (one object
//! read through) and `origin` (the task that lists, reads and fetches).

use std::time::Duration;

pub mod book;
#[cfg(feature = "s3")]
mod connect;
pub mod digests;
pub mod listing;
#[cfg(feature = "s3")]
pub mod origin;
#[cfg(feature = "s3")]
pub mod remote;
#[cfg(feature = "s3")]
mod take;

/// A prefix of a bucket that this node publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketConfig {
    /// URL path prefix; begins and ends with `/`.
    pub prefix: String,
    /// The bucket.
    pub bucket: String,
    /// What the keys of its objects begin with; empty, or with a final `/`.
    pub beneath: String,
    /// Base URL of the server; `None`: as the environment says, or Amazon's.
    pub endpoint: Option<String>,
    /// Its region; `None`: as the environment says.
    pub region: Option<String>,
    /// Requests are not signed.
    pub anonymous: bool,
    /// The bucket is named by the host of the request, not by its path.
    pub virtual_host: bool,
    /// File that stands for a directory; empty: none.
    pub index: String,
    /// Whether a directory without an index file is listed.
    pub listing: bool,
    /// From one listing of the bucket to the next.
    pub interval: Duration,
    /// Objects taken from it at most.
    pub objects: usize,
    /// Objects read through at once.
    pub reads: usize,
    /// Chunks fetched at once.
    pub in_flight: usize,
    /// A server that says nothing for so long has failed.
    pub silence: Duration,
}

impl BucketConfig {
    /// The bucket as it is written, such as `s3://bucket/models/`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.beneath)
    }
}

/// The state of one bucket, for `status`.
#[derive(Clone, Debug, Default)]
pub struct BucketStatus {
    /// The prefix it is published at.
    pub prefix: String,
    /// The bucket.
    pub bucket: String,
    /// Objects published.
    pub objects: usize,
    /// Objects to be read through, or being filled.
    pub filling: usize,
    /// When it was listed last, Unix milliseconds.
    pub seen_unix_ms: Option<u64>,
    /// What went wrong last, until it goes right.
    pub problem: Option<String>,
}
