//! How large the parts are in which bodies are read.
//!
//! What a client did not take yet of the part it was handed last waits in memory: next to nothing while few read, and
//! most of what a server takes when a thousand do. So parts get smaller as more bodies are read at once, and there are
//! places ([`Share::is_scarce`]) at which nothing at all is read before the client has room for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;

use crate::metrics::Metrics;

/// The bodies that are read now, and what parts of them may take together.
#[derive(Debug)]
pub struct Frames {
    /// Bytes at most of the parts that are read at once, as far as the smallest allow. As much again may be on its way to clients.
    most: u64,
    bodies: AtomicU64,
    metrics: Arc<Metrics>,
}

/// Bytes that were read and not sent yet; counted until its drop.
#[derive(Debug)]
pub struct Held {
    frames: Arc<Frames>,
    bytes: u64,
}

/// A part on its way to the client.
struct Part {
    bytes: Bytes,
    _held: Held,
}

/// One body's part in them; given back on drop.
#[derive(Debug)]
pub struct Share(Arc<Frames>);

impl Frames {
    /// Parts of bodies take `most` bytes together.
    #[must_use]
    pub fn new(most: u64, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            most,
            bodies: AtomicU64::new(0),
            metrics,
        })
    }

    /// A body is read from now on.
    #[must_use]
    pub fn open(self: &Arc<Self>) -> Share {
        let bodies = self.bodies.fetch_add(1, Relaxed) + 1;
        self.metrics.http.bodies.inc();
        if size(self.most, bodies) < LARGE {
            self.metrics.http.frames_reduced.inc();
        }
        Share(Arc::clone(self))
    }

    /// Whether as much as possible may wait for each client.
    #[must_use]
    pub fn is_plenty(&self) -> bool {
        size(self.most, self.bodies.load(Relaxed)) == LARGE
    }
}

impl Share {
    /// Bytes of the next part at most, and where parts end: at multiples of it.
    #[must_use]
    pub fn size(&self) -> u64 {
        size(self.0.most, self.0.bodies.load(Relaxed)).max(BLOCK)
    }

    /// Whether nothing is to be read that the client does not take at once.
    #[must_use]
    pub fn is_scarce(&self) -> bool {
        size(self.0.most, self.0.bodies.load(Relaxed)) < BLOCK || self.is_full()
    }

    /// Whether parts that were read and not sent take all they may: those of few bodies that were read while there were not more may
    /// wait long for their clients.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.held() > self.0.most.saturating_mul(2)
    }

    /// Counts `bytes` that were read.
    #[must_use]
    pub fn hold(&self, bytes: usize) -> Held {
        let bytes = bytes as u64;
        self.0.metrics.http.frame_bytes.add(bytes.cast_signed());
        Held {
            frames: Arc::clone(&self.0),
            bytes,
        }
    }
}

impl Frames {
    /// Bytes that were read and not sent.
    fn held(&self) -> u64 {
        self.metrics.http.frame_bytes.get().try_into().unwrap_or(0)
    }
}

impl Held {
    /// `bytes`, counted until the last handle of them is dropped.
    #[must_use]
    pub fn within(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Part { bytes, _held: self })
    }
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let gauge = &self.frames.metrics.http.frame_bytes;
        gauge.sub(self.bytes.cast_signed());
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.bodies.fetch_sub(1, Relaxed);
        self.0.metrics.http.bodies.dec();
    }
}

/// Bytes of one part if `bodies` are read at once.
fn size(most: u64, bodies: u64) -> u64 {
    let each = most / bodies.max(1);
    [LARGE, BLOCK]
        .into_iter()
        .find(|size| each >= *size)
        .unwrap_or(SMALL)
}

/// Bytes of a part while few read.
const LARGE: u64 = 256 << 10;

/// Bytes that are verified together: nothing smaller is read.
const BLOCK: u64 = 64 << 10;

/// Bytes of a part while very many read: a copy, so that the block it was cut out of need not stay.
pub(super) const SMALL: u64 = 16 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_shrink_as_more_bodies_are_read_and_grow_again() {
        let metrics = Arc::new(Metrics::new());
        let frames = Frames::new(1 << 20, Arc::clone(&metrics));
        let mut shares: Vec<Share> = (0..4).map(|_| frames.open()).collect();
        assert_eq!((shares[0].size(), frames.is_plenty()), (LARGE, true));
        shares.push(frames.open());
        assert_eq!((shares[0].size(), frames.is_plenty()), (BLOCK, false));
        shares.extend((5..17).map(|_| frames.open()));
        assert!(shares[0].is_scarce());
        assert_eq!(metrics.http.bodies.get(), 17);
        assert_eq!(metrics.http.frames_reduced.get(), 13);
        shares.truncate(4);
        assert!(!shares[0].is_scarce());
        assert_eq!(shares[0].size(), LARGE);
        drop(shares);
        assert_eq!(metrics.http.bodies.get(), 0);
    }

    #[test]
    fn parts_that_are_not_sent_make_others_small_until_they_are() {
        let metrics = Arc::new(Metrics::new());
        let frames = Frames::new(LARGE, Arc::clone(&metrics));
        let share = frames.open();
        let hold = || share.hold(256 << 10).within(Bytes::from_static(b"part"));
        let (first, second) = (hold(), hold());
        assert!(!share.is_full() && !share.is_scarce());
        let third = hold();
        assert!(share.is_full() && share.is_scarce());
        assert_eq!(metrics.http.frame_bytes.get(), 768 << 10);
        let slice = first.slice(1..2);
        drop(first);
        assert!(share.is_full(), "{slice:?} is of it");
        drop(slice);
        assert!(!share.is_full() && !share.is_scarce());
        drop((second, third));
        assert_eq!(metrics.http.frame_bytes.get(), 0);
    }

    proptest! {
        #[test]
        fn parts_of_all_bodies_keep_to_the_bound_or_are_as_small_as_can_be(
            most in 0u64..1 << 32,
            bodies in 1u64..1 << 20,
        ) {
            let each = size(most, bodies);
            prop_assert!(each == SMALL || each * bodies <= most);
            prop_assert!(size(most, bodies + 1) <= each);
        }
    }
}
