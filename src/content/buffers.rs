//! Read buffers, used again.
//!
//! A fresh buffer of a quarter of a mebibyte costs its page faults, more than the copy into it. So a buffer goes
//! back on a bounded shelf when the last [`Bytes`] over it is dropped.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// The shelves: for blocks, for slices of a chunk, for whole chunks.
#[derive(Debug)]
pub(crate) struct Buffers {
    shelves: [Shelf; 3],
}

#[derive(Debug)]
struct Shelf {
    size: usize,
    most: usize,
    free: Mutex<Vec<Box<[u8]>>>,
}

/// One buffer; its first `len` bytes are in use.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    used: Range<usize>,
    home: Arc<Buffers>,
}

impl Buffers {
    /// Keeps at most `bytes` of unused buffers.
    pub(crate) fn new(bytes: u64) -> Arc<Self> {
        let third = usize::try_from(bytes / 3).unwrap_or(usize::MAX);
        let shelf = |size: usize| Shelf {
            size,
            most: third / size,
            free: Mutex::default(),
        };
        Arc::new(Self {
            shelves: [shelf(BLOCK), shelf(SLICE), shelf(CHUNK)],
        })
    }

    /// A buffer with `len` bytes in use. Their content is arbitrary.
    pub(crate) fn take(self: &Arc<Self>, len: usize) -> Buffer {
        let shelf = self.shelves.iter().find(|shelf| len <= shelf.size);
        let bytes = shelf.and_then(|shelf| {
            let mut free = shelf.free.lock().unwrap_or_else(PoisonError::into_inner);
            free.pop()
        });
        let size = shelf.map_or(len, |shelf| shelf.size);
        Buffer {
            bytes: bytes.unwrap_or_else(|| vec![0; size].into_boxed_slice()),
            used: 0..len,
            home: Arc::clone(self),
        }
    }
}

impl Buffer {
    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.used.clone()]
    }

    /// The bytes of `part` (within those in use), shared; the buffer goes back when the last sharer is done.
    pub(crate) fn share(mut self, part: Range<usize>) -> Bytes {
        self.used = self.used.start + part.start..self.used.start + part.end;
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.used.clone()]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut shelves = self.home.shelves.iter();
        if let Some(shelf) = shelves.find(|shelf| bytes.len() == shelf.size) {
            let mut free = shelf.free.lock().unwrap_or_else(PoisonError::into_inner);
            if free.len() < shelf.most {
                free.push(bytes);
            }
        }
    }
}

/// A block of a chunk that is verified by itself.
const BLOCK: usize = super::seal::BLOCK;

/// A body frame (256 KiB) and the seal blocks that it may begin and end in.
const SLICE: usize = 384 << 10;

/// A whole chunk of the usual size.
const CHUNK: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_dropped_is_used_again() {
        let buffers = Buffers::new(1 << 20);
        let mut buffer = buffers.take(5);
        buffer.as_mut().copy_from_slice(b"hello");
        let place = buffer.as_ref().as_ptr();
        let bytes = buffer.share(1..3);
        assert_eq!(&bytes[..], b"el");
        drop(bytes);
        assert_eq!(buffers.take(BLOCK).as_ref().as_ptr(), place);
    }

    #[test]
    fn buffers_beyond_the_bound_are_freed() {
        let buffers = Buffers::new(3 * SLICE as u64);
        let of = [BLOCK + 1, BLOCK + 1, SLICE, SLICE + 1];
        drop(of.map(|len| buffers.take(len)));
        let kept = buffers
            .shelves
            .each_ref()
            .map(|s| s.free.lock().unwrap().len());
        assert_eq!(kept, [0, 1, 0]);
    }
}
