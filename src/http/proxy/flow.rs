//! Bodies of proxied answers: from what is stored, following the fill's edge; or straight from the upstream.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream;

use super::content::{Look, Reading};
use super::fetch;
use super::keep::Open;
use super::serve::Proxy;
use super::table::Stored;
use super::upstream::{Download, Fault};

/// A body of a proxied answer.
pub struct Flow {
    source: Source,
    /// Bytes to come, where that is known.
    left: Option<u64>,
}

enum Source {
    Upstream {
        download: Box<Download>,
        /// Bytes at its beginning that the client did not ask for.
        skip: u64,
    },
    Stored(Pin<Box<dyn Stream<Item = Result<Bytes, Fault>> + Send>>),
}

impl Flow {
    /// Straight from the upstream: `length` bytes from `skip` on, or all.
    pub(super) fn upstream(download: Download, skip: u64, length: Option<u64>) -> Self {
        Self {
            source: Source::Upstream {
                download: Box::new(download),
                skip,
            },
            left: length,
        }
    }

    /// From what is stored: the pieces of a body, in order. What is missing is fetched.
    pub(super) fn stored(
        proxy: &Arc<Proxy>,
        stored: &Arc<Stored>,
        asker: fetch::Asker,
        pieces: Vec<Piece>,
        length: Option<u64>,
    ) -> Self {
        let walk = Walk {
            proxy: Arc::clone(proxy),
            stored: Arc::clone(stored),
            reading: stored.content.reader(),
            open: Open::new(&stored.content),
            asker,
            pieces: pieces.into_iter(),
            range: 0..0,
            fetched: None,
        };
        let stream = stream::unfold(walk, |mut walk| async move {
            let item = walk.next().await?;
            Some((item, walk))
        });
        Self {
            source: Source::Stored(Box::pin(stream)),
            left: length,
        }
    }

    /// The next bytes; `None` at the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Fault>>> {
        if self.left == Some(0) {
            return Poll::Ready(None);
        }
        loop {
            let polled = match &mut self.source {
                Source::Upstream { download, .. } => download.poll_next(cx),
                Source::Stored(stream) => stream.as_mut().poll_next(cx),
            };
            let Some(item) = ready!(polled) else {
                // It announced more.
                return Poll::Ready(self.left.map(|_| Err(Fault::Broken)));
            };
            let mut bytes = item?;
            if let Source::Upstream { skip, .. } = &mut self.source {
                let cut = usize::try_from(*skip).map_or(bytes.len(), |s| s.min(bytes.len()));
                bytes = bytes.slice(cut..);
                *skip -= cut as u64;
            }
            if let Some(left) = &mut self.left {
                let most = usize::try_from(*left).unwrap_or(usize::MAX);
                bytes.truncate(most);
                *left -= bytes.len() as u64;
            }
            if !bytes.is_empty() {
                return Poll::Ready(Some(Ok(bytes)));
            }
        }
    }

    /// Bytes to come, where that is known.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        self.left
    }
}

impl std::fmt::Debug for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flow")
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

/// A part of a body.
pub(super) enum Piece {
    /// Bytes of what is stored.
    Bytes(Range<u64>),
    /// Text between ranges.
    Text(Bytes),
}

/// A reader of what is stored.
struct Walk {
    proxy: Arc<Proxy>,
    stored: Arc<Stored>,
    reading: Reading,
    open: Open,
    asker: fetch::Asker,
    pieces: std::vec::IntoIter<Piece>,
    /// What is left of the piece being read.
    range: Range<u64>,
    /// The chunk this reader had fetched last: it is not fetched twice in a row.
    fetched: Option<u64>,
}

impl Walk {
    /// Nothing before this is wanted any more.
    fn position(&self) -> u64 {
        let later = self
            .pieces
            .as_slice()
            .iter()
            .filter_map(|piece| match piece {
                Piece::Bytes(range) => Some(range.start),
                Piece::Text(_) => None,
            });
        later.fold(self.range.start, u64::min)
    }

    async fn next(&mut self) -> Option<Result<Bytes, Fault>> {
        while self.range.is_empty() {
            match self.pieces.next()? {
                Piece::Text(text) => return Some(Ok(text)),
                Piece::Bytes(range) => self.range = range,
            }
        }
        let content = Arc::clone(&self.stored.content);
        self.reading.passed(self.position());
        loop {
            let mut changed = std::pin::pin!(content.changed.notified());
            changed.as_mut().enable();
            match content.look(self.range.start, self.range.end) {
                Look::Bytes(bytes) => {
                    self.range.start += bytes.len() as u64;
                    return Some(Ok(bytes));
                }
                // What is lost is looked at again: it may be fetched.
                Look::Disk(part) => {
                    if let Some(bytes) = self.proxy.keep.read(&self.open, part).await {
                        self.range.start += bytes.len() as u64;
                        return Some(Ok(bytes));
                    }
                }
                Look::Wait => {
                    // A fill is bounded by the silence of its upstream; this is for one that cannot tell.
                    if tokio::time::timeout(WAIT, changed).await.is_err() {
                        return Some(Err(Fault::Timeout));
                    }
                }
                Look::Absent(index) => {
                    if self.fetched == Some(index) {
                        return Some(Err(Fault::Broken));
                    }
                    let gap = content.gap(index, self.range.end);
                    match self.proxy.fetch_gap(&self.stored, &self.asker, gap).await {
                        Ok(true) => self.fetched = Some(index),
                        Ok(false) => {}
                        Err(fault) => return Some(Err(fault)),
                    }
                }
                Look::Failed => {
                    self.proxy.keep.table.remove(&self.stored);
                    return Some(Err(Fault::Broken));
                }
                Look::End => {
                    self.range.start = self.range.end;
                    return Box::pin(self.next()).await;
                }
            }
        }
    }
}

/// No reader waits longer than this for the next bytes of a fill.
const WAIT: Duration = Duration::from_secs(120);
