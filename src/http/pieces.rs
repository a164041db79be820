//! SHA-1 digests of pieces, which torrents and Metalink have: made when first asked for, one object at a time, and kept.
//!
//! A manifest has no SHA-1, and to make it of everything at publication would cost half as much again as all other digests, for
//! what few objects are asked for. So the request that asks does the work, in the threads that may wait, from verified bytes; if it gives
//! up, the next one goes on where it was.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sha1::Digest as _;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::body::{self, Fault};
use super::faces::{self, Face, SHA1};
use super::message::InfoHash;
use super::rules::Rules;
use crate::content::chunk::Digest;
use crate::content::library::Library;
use crate::content::object::Object;
use crate::metrics::Metrics;

/// Digests made so far; the oldest are given up when there are too many.
#[derive(Debug)]
pub struct Pieces {
    kept: Mutex<Kept>,
    /// Bytes kept at most, but for those made last.
    most: usize,
    /// Whether peers are served.
    seeds: bool,
    turn: Semaphore,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Kept {
    by_version: HashMap<Digest, Arc<Vec<u8>>>,
    /// The oldest first.
    order: VecDeque<Digest>,
    bytes: usize,
    /// What peers may ask for, by what its torrent is known by.
    by_info: HashMap<InfoHash, Digest>,
}

impl Pieces {
    /// Keeps at most `most` bytes of them, but always those made last. `seeds`: peers are served.
    #[must_use]
    pub fn new(most: usize, seeds: bool, metrics: Arc<Metrics>) -> Self {
        Self {
            kept: Mutex::default(),
            most,
            seeds,
            turn: Semaphore::new(1),
            metrics,
        }
    }

    /// The digests of all pieces of `object`, one after the other. A chunk that is not held is asked for and waited for, at most
    /// `patience`. Cancel-safe: what was made stays.
    ///
    /// # Errors
    /// The object could not be read, or a chunk did not come.
    pub async fn of(
        &self,
        object: &Arc<Object>,
        patience: Duration,
    ) -> Result<Arc<Vec<u8>>, Fault> {
        let size = object.manifest().layout.size;
        let piece = faces::piece(size);
        let length = faces::pieces(size).saturating_mul(SHA1);
        if length == 0 {
            return Ok(Arc::default());
        }
        if let Some(whole) = self.made(object.id()).filter(|made| made.len() == length) {
            return Ok(whole);
        }
        loop {
            // For a piece, not for all: who asks for a small object does not wait for a large one. Never closed.
            let _turn = self.turn.acquire().await;
            let made = self.made(object.id()).unwrap_or_default();
            if made.len() == length {
                return Ok(made);
            }
            let start = (made.len() / SHA1) as u64 * piece;
            let end = (start + piece).min(size);
            let parts = read(object, start, end, patience).await?;
            let work = move || {
                let mut sum = sha1::Sha1::new();
                parts.iter().for_each(|part| sum.update(part));
                sum.finalize()
            };
            if let Ok(digest) = object.threads().run(work).await {
                self.metrics.http.pieces_digested.inc_by(end - start);
                self.add(object.id(), &digest);
            }
        }
    }

    /// Whether peers are served.
    #[must_use]
    pub fn seeds(&self) -> bool {
        self.seeds
    }

    /// The object whose torrent is known by `info`, if it was made ready.
    #[must_use]
    pub fn object(&self, info: &InfoHash, library: &Library) -> Option<Arc<Object>> {
        let version = self.kept().by_info.get(info).copied()?;
        library.version(version)
    }

    /// Makes the digests of all objects beneath `rules` that have torrents, and of new ones, until `stop`, so that peers that come
    /// with nothing but a name of a torrent find it. Ends at once where no peers are served.
    pub async fn keep_ready(&self, library: &Library, rules: &Rules, stop: &CancellationToken) {
        if self.seeds {
            tokio::select! {
                () = self.make_ready(library, rules) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    async fn make_ready(&self, library: &Library, rules: &Rules) {
        let mut done = HashSet::new();
        let mut seen = None;
        loop {
            let generation = library.generation();
            if seen != Some(generation) {
                seen = Some(generation);
                let listed = library.clone();
                let objects = tokio::task::spawn_blocking(move || listed.list()).await;
                for object in objects.unwrap_or_default() {
                    let rule = rules.of(&object.manifest().path);
                    if done.contains(&object.id()) || !rule.is_some_and(|r| r.has(Face::Torrent)) {
                        continue;
                    }
                    if !object.complete() {
                        seen = None;
                        continue;
                    }
                    match self.of(&object, PAUSE).await {
                        Ok(pieces) => {
                            let info = faces::info_hash(object.manifest(), &pieces);
                            self.kept().by_info.insert(info, object.id());
                            done.insert(object.id());
                        }
                        Err(fault) => {
                            fault.log();
                            seen = None;
                        }
                    }
                }
                done.retain(|version| library.version(*version).is_some());
                let mut kept = self.kept();
                kept.by_info.retain(|_, version| done.contains(version));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn made(&self, version: Digest) -> Option<Arc<Vec<u8>>> {
        self.kept().by_version.get(&version).cloned()
    }

    fn add(&self, version: Digest, digest: &[u8]) {
        let mut kept = self.kept();
        if !kept.by_version.contains_key(&version) {
            kept.order.push_back(version);
            kept.bytes += ENTRY;
        }
        let made = kept.by_version.entry(version).or_default();
        Arc::make_mut(made).extend_from_slice(digest);
        kept.bytes += digest.len();
        while kept.bytes > self.most
            && let Some(oldest) = kept.order.pop_front_if(|oldest| *oldest != version)
        {
            let given_up = kept.by_version.remove(&oldest);
            kept.bytes -= ENTRY + given_up.map_or(0, |made| made.len());
            self.metrics.http.pieces_given_up.inc();
        }
        let bytes = i64::try_from(kept.bytes).unwrap_or(i64::MAX);
        self.metrics.http.pieces_bytes.set(bytes);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes from `start` to `end`, verified as any that leave.
async fn read(
    object: &Arc<Object>,
    start: u64,
    end: u64,
    patience: Duration,
) -> Result<Vec<Bytes>, Fault> {
    let mut parts = Vec::new();
    let mut at = start;
    while at < end {
        let next = ((at / STEP + 1) * STEP).min(end);
        for slice in object.manifest().layout.cover(at..next) {
            parts.push(body::read(Arc::clone(object), slice, patience).await.0?);
        }
        at = next;
    }
    Ok(parts)
}

/// Between two looks for objects that are new, or whole now.
const PAUSE: Duration = Duration::from_secs(1);

/// Bytes read at once.
const STEP: u64 = 256 << 10;

/// Bytes an object takes here beside its digests.
const ENTRY: usize = 160;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_digests_are_given_up_first_and_the_newest_never() {
        let metrics = Arc::new(Metrics::new());
        let pieces = Pieces::new(2 * ENTRY + 50, false, Arc::clone(&metrics));
        let version = |n: u8| Digest([n; 32]);
        for n in [1, 2, 2, 3] {
            pieces.add(version(n), &[n; 20]);
        }
        let made = |n| pieces.made(version(n)).map(|made| made.len());
        assert_eq!((made(1), made(2), made(3)), (None, None, Some(20)));
        for _ in 0..50 {
            pieces.add(version(3), &[3; 20]);
        }
        assert_eq!(made(3), Some(51 * 20));
        assert_eq!(pieces.kept().bytes, ENTRY + 51 * 20);
        assert_eq!(metrics.http.pieces_given_up.get(), 2);
    }
}
