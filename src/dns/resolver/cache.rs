//! The resolver cache: wire answers on moka, freshness decided by the `now` given.

use crate::dns::wire::Query;
use crate::time::Now;

/// Names resolved by one set of upstreams share a partition; entries never cross.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Partition(pub u16);

/// The cache.
#[derive(Debug)]
pub struct Cache {}

/// What the cache has for a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cached {
    /// `out[..len]` is the answer, fresh; `negative`: NXDOMAIN or NODATA.
    Fresh {
        /// Bytes of the answer.
        len: usize,
        /// NXDOMAIN or NODATA.
        negative: bool,
    },
    /// `out[..len]` is an expired answer that may be given at once, since its refresh failed a moment ago.
    Stale {
        /// Bytes of the answer.
        len: usize,
    },
    /// Nothing that may be given without asking upstream.
    Miss,
}

impl Cache {
    /// Answers `query` into `out`, at most `limit` bytes, from an entry of `partition`. Allocates nothing.
    #[must_use]
    pub fn answer(
        &self,
        query: &Query<'_>,
        partition: Partition,
        now: Now,
        limit: usize,
        out: &mut [u8],
    ) -> Cached {
        let _ = (query, partition, now, limit, out);
        unimplemented!()
    }
}
