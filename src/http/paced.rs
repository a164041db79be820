//! A chunk on its way to another node that replicates: part by part, as viewers leave room on the link.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use crate::link::pace::Pace;

/// The bytes of a chunk that are still to go.
pub struct Paced {
    bytes: Bytes,
    pace: Arc<Pace>,
    /// The turn that is waited for: how many bytes may go then.
    turn: Option<Pin<Box<dyn Future<Output = usize> + Send>>>,
}

impl Paced {
    /// All of `bytes`.
    #[must_use]
    pub fn new(bytes: Bytes, pace: Arc<Pace>) -> Self {
        Self {
            bytes,
            pace,
            turn: None,
        }
    }

    /// Bytes still to go.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The next part; empty at the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        if self.bytes.is_empty() {
            return Poll::Ready(Bytes::new());
        }
        let turn = self.turn.get_or_insert_with(|| {
            let (pace, left) = (Arc::clone(&self.pace), self.bytes.len() as u64);
            Box::pin(async move {
                let part = pace.transmit.part().min(left);
                pace.transmit.pass(part, || false).await;
                usize::try_from(part).unwrap_or(usize::MAX)
            })
        });
        let part = ready!(turn.as_mut().poll(cx));
        self.turn = None;
        Poll::Ready(self.bytes.split_to(part))
    }
}

impl std::fmt::Debug for Paced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Paced")
            .field("left", &self.bytes.len())
            .finish_non_exhaustive()
    }
}
