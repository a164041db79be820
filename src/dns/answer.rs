//! The decision about one query: own zones first, then the resolver cache. Pure: bytes, snapshot,
//! `now` and `seed` in, bytes and an outcome out; allocates nothing.

use super::Outcome;
use super::resolver::cache::{Cache, Partition};
use super::wire::Query;
use super::zone::Zones;
use crate::time::Now;

/// What a query may be answered from.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Own zones.
    pub zones: &'a Zones,
    /// The resolver's cache and the partition of this name, if this client may recurse.
    pub cache: Option<(&'a Cache, Partition)>,
}

/// What to do with a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The answer is in `out[..len]`. `refresh`: it is good, but the slow path should fetch it anew.
    Respond {
        /// Bytes of the answer.
        len: usize,
        /// How it is counted.
        outcome: Outcome,
    },
    /// Neither zone nor cache has it: the slow path shall resolve it.
    Recurse,
}

/// Answers `query` into `out`, at most `limit` bytes (then TC, never a partial RRset).
///
/// Own zones are authoritative and never answered from the cache. What is in no own zone is answered
/// from the cache, or is to be resolved, when `view.cache` is there and RD is set; else REFUSED.
/// `seed` rotates the addresses of an RRset.
#[must_use]
pub fn answer(
    query: &Query<'_>,
    view: View<'_>,
    now: Now,
    seed: u64,
    limit: usize,
    out: &mut [u8],
) -> Action {
    let _ = (query, view, now, seed, limit, out);
    unimplemented!()
}
