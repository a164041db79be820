//! Verified chunks as a response body.
//!
//! A body is exact or broken: its length is known before its first byte, every frame is verified, and a fault in
//! the middle ends the connection, never the body.

use std::convert::Infallible;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::vec;

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use tokio::time::Instant;
use tokio_util::sync::ReusableBoxFuture;

use super::frames::{self, Held, Share};
use super::line::Line;
use super::paced::Paced;
use super::proxy::flow::Flow;
use super::proxy::upstream;
use super::receipt::Receipt;
use crate::content::chunk::Slice;
use crate::content::object::{self, Object, ReadError};
use crate::metrics::http::Role;

/// A response body; keeps the request's [`Receipt`] until its end or drop.
#[derive(Debug)]
pub struct Body {
    source: Source,
    receipt: Receipt,
}

#[derive(Debug)]
enum Source {
    /// From memory; empty when it was handed over.
    Memory(Bytes),
    /// Made by the peer protocol.
    Full(Full<Bytes>),
    /// For another node that replicates.
    Paced(Box<Paced>),
    /// Read from an object as it goes.
    Object(Box<Reader>),
    /// Of another server, as it comes.
    Flow(Box<Flow>),
}

/// Why a body could not be read on.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A chunk that is not held did not come in time.
    #[error("chunk {index} of {path} did not come within {waited:?}")]
    Late {
        /// Object path.
        path: String,
        /// Chunk number.
        index: u32,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The object could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The server it comes from failed.
    #[error(transparent)]
    Upstream(#[from] upstream::Fault),
}

/// A part of a body read from an object.
#[derive(Debug)]
pub enum Piece {
    /// Bytes of the object.
    Bytes(Range<u64>),
    /// Text between ranges.
    Text(Bytes),
}

impl Body {
    /// A body from memory.
    #[must_use]
    pub fn memory(bytes: Bytes, receipt: Receipt) -> Self {
        Self {
            source: Source::Memory(bytes),
            receipt,
        }
    }

    /// A body another handler made.
    #[must_use]
    pub fn full(body: Full<Bytes>, receipt: Receipt) -> Self {
        Self {
            source: Source::Full(body),
            receipt,
        }
    }

    /// A chunk for another node that replicates.
    #[must_use]
    pub fn paced(paced: Paced, receipt: Receipt) -> Self {
        Self {
            source: Source::Paced(Box::new(paced)),
            receipt,
        }
    }

    /// Counts the request for `role`, whoever made the body.
    pub fn relabel(&mut self, role: Role) {
        self.receipt.relabel(role);
    }

    /// A body of another server.
    #[must_use]
    pub fn flow(flow: Flow, receipt: Receipt) -> Self {
        Self {
            source: Source::Flow(Box::new(flow)),
            receipt,
        }
    }

    /// A body read from an object.
    #[must_use]
    pub fn object(reader: Reader, receipt: Receipt) -> Self {
        Self {
            source: Source::Object(Box::new(reader)),
            receipt,
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = &mut *self;
        let bytes = match &mut this.source {
            Source::Flow(flow) => {
                let polled = flow.poll_next(cx);
                this.receipt.waits(polled.is_pending());
                match ready!(polled) {
                    Some(Ok(bytes)) => bytes,
                    Some(Err(fault)) => {
                        this.receipt.broke();
                        return Poll::Ready(Some(Err(fault.into())));
                    }
                    None => Bytes::new(),
                }
            }
            Source::Memory(bytes) => std::mem::take(bytes),
            Source::Full(body) => match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                None => Bytes::new(),
                Some(Err(never)) => {
                    let never: Infallible = never;
                    match never {}
                }
            },
            Source::Paced(paced) => {
                let polled = paced.poll_next(cx);
                this.receipt.waits(polled.is_pending());
                ready!(polled)
            }
            Source::Object(reader) => {
                let polled = reader.poll_next(cx);
                this.receipt.waits(polled.is_pending() && reader.reading);
                if reader.filled {
                    this.receipt.filled();
                }
                match ready!(polled) {
                    Ok(bytes) => bytes,
                    Err(fault) => {
                        fault.log();
                        return Poll::Ready(Some(Err(fault)));
                    }
                }
            }
        };
        if bytes.is_empty() {
            return Poll::Ready(None);
        }
        this.receipt.hand(bytes.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Memory(bytes) => bytes.is_empty(),
            Source::Full(body) => body.is_end_stream(),
            Source::Paced(paced) => paced.left() == 0,
            Source::Object(reader) => reader.left == 0,
            Source::Flow(flow) => flow.left() == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Memory(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Full(body) => body.size_hint(),
            Source::Paced(paced) => SizeHint::with_exact(paced.left()),
            Source::Object(reader) => SizeHint::with_exact(reader.left),
            Source::Flow(flow) => flow.left().map_or_else(SizeHint::new, SizeHint::with_exact),
        }
    }
}

impl Fault {
    /// Logs it where it ends: once, here.
    pub fn log(&self) {
        match self {
            Self::Late { path, index, .. } => {
                tracing::debug!(path, index, "chunk not held in time");
            }
            Self::Read(error) => tracing::warn!(%error, "object not readable"),
            Self::Upstream(error) => tracing::debug!(%error, "upstream failed"),
        }
    }
}

/// Reads the pieces of a body, frame by frame.
pub struct Reader {
    object: Arc<Object>,
    pieces: vec::IntoIter<Piece>,
    /// What is left of the piece being read.
    range: Range<u64>,
    /// What is left of the body, bytes.
    left: u64,
    /// The next frame, already read.
    ready: Option<Bytes>,
    /// Verified bytes behind those handed over, where `range` begins; given up as soon as the client takes no more.
    rest: Option<(Bytes, Option<Held>)>,
    share: Share,
    /// A small frame was handed over, and may not have been tried to be sent.
    handed: bool,
    /// The connection, if the body is all that is sent on it.
    line: Option<Line>,
    fill_wait: Duration,
    /// A chunk had to be waited for.
    filled: bool,
    /// Reused for every frame; `reading` says whether it holds a read that has not ended.
    read: Option<ReusableBoxFuture<'static, (Result<Bytes, Fault>, bool)>>,
    reading: bool,
}

impl Reader {
    /// A reader of `pieces` of `object` that waits at most `fill_wait` for a chunk that is not held. It reads as much at
    /// once as its `share` allows; when memory is scarce, and if the body goes over `line` alone, only what there is room for.
    #[must_use]
    pub fn new(
        object: Arc<Object>,
        pieces: Vec<Piece>,
        fill_wait: Duration,
        share: Share,
        line: Option<Line>,
    ) -> Self {
        let left = pieces
            .iter()
            .map(|piece| match piece {
                Piece::Bytes(range) => range.end - range.start,
                Piece::Text(text) => text.len() as u64,
            })
            .sum();
        Self {
            object,
            pieces: pieces.into_iter(),
            range: 0..0,
            left,
            ready: None,
            rest: None,
            share,
            handed: false,
            line,
            fill_wait,
            filled: false,
            read: None,
            reading: false,
        }
    }

    /// Bytes of the body.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Whether a chunk had to be waited for.
    #[must_use]
    pub fn filled(&self) -> bool {
        self.filled
    }

    /// Reads the first frame, so that a fault can still be answered with a status.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn prepare(&mut self) -> Result<(), Fault> {
        let left = self.left;
        let first = std::future::poll_fn(|cx| self.poll_next(cx)).await?;
        self.left = left;
        self.ready = Some(first);
        Ok(())
    }

    /// The next frame; empty at the end.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Fault>> {
        let frame = match self.ready.take() {
            Some(frame) => frame,
            None => {
                ready!(self.poll_room(cx));
                ready!(self.poll_read(cx))?
            }
        };
        self.left -= frame.len() as u64;
        Poll::Ready(Ok(frame))
    }

    /// Waits until the client has room for more, if what it does not take is too much. What is read meanwhile is read
    /// again later: a block from the page cache costs little, one for each of a thousand clients is the server's memory.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.reading || self.scarce_line().is_none() {
            return Poll::Ready(());
        }
        if std::mem::take(&mut self.handed) {
            // hyper collects some frames before it writes: it has none to collect, and writes the one it has.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(line) = &self.line
            && line.poll_writable(cx).is_pending()
        {
            self.rest = None;
            return Poll::Pending;
        }
        // A connection that broke is noticed by whoever writes to it.
        Poll::Ready(())
    }

    /// The connection, if no more may be handed over than it takes.
    fn scarce_line(&self) -> Option<&Line> {
        self.line.as_ref().filter(|_| self.share.is_scarce())
    }

    /// Hands over verified bytes, counted as `held` if they are not of the store's memory, or what of them may wait for the client;
    /// those behind are kept for the next turn if there is room: of a thousand bodies that are all to go on, each would else wait for
    /// its turn with a block in hand.
    fn hand(&mut self, mut bytes: Bytes, held: Option<Held>) -> Bytes {
        if self.scarce_line().is_some() && bytes.len() > SMALL {
            let copy = Bytes::copy_from_slice(&bytes[..SMALL]);
            bytes.advance(SMALL);
            let rest = std::mem::replace(&mut bytes, copy);
            if held.is_none() || !self.share.is_full() {
                self.rest = Some((rest, held));
            }
            self.handed = true;
        } else if let Some(held) = held {
            bytes = held.within(bytes);
        }
        self.range.start += bytes.len() as u64;
        bytes
    }

    /// What is in memory of the chunk the range begins in.
    fn in_memory(&self) -> Option<Bytes> {
        let most = match self.scarce_line() {
            None => MEMORY_FRAME,
            Some(_) => self.share.size(),
        };
        let end = (self.range.start / most + 1) * most;
        let range = self.range.start..end.min(self.range.end);
        let slice = self.object.manifest().layout.cover(range).next()?;
        self.object.in_memory(slice.index, &slice.within)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Fault>> {
        if !self.reading {
            while self.range.is_empty() {
                match self.pieces.next() {
                    Some(Piece::Text(text)) => return Poll::Ready(Ok(text)),
                    Some(Piece::Bytes(range)) => self.range = range,
                    None => return Poll::Ready(Ok(Bytes::new())),
                }
            }
            if let Some((rest, held)) = self.rest.take() {
                return Poll::Ready(Ok(self.hand(rest, held)));
            }
            if let Some(bytes) = self.in_memory() {
                return Poll::Ready(Ok(self.hand(bytes, None)));
            }
            // Frames end at multiples of their size, so all but the first and last lie on whole blocks of the file.
            let size = self.share.size();
            let end = (self.range.start / size + 1) * size;
            let end = end.min(self.range.end);
            let slice = self
                .object
                .manifest()
                .layout
                .cover(self.range.start..end)
                .next()
                .expect("a range that is not empty lies in a chunk");
            let read = read(Arc::clone(&self.object), slice, self.fill_wait);
            match &mut self.read {
                Some(slot) => slot.set(read),
                None => self.read = Some(ReusableBoxFuture::new(read)),
            }
            self.reading = true;
        }
        let slot = self.read.as_mut().expect("set when `reading` was");
        let (bytes, filled) = ready!(slot.poll(cx));
        self.reading = false;
        self.filled |= filled;
        let bytes = bytes?;
        let held = self.share.hold(bytes.len());
        Poll::Ready(Ok(self.hand(bytes, Some(held))))
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("range", &self.range)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

/// Reads a slice; waits for its chunk until `fill_wait` is over when it is not held, and says whether it did.
pub(super) async fn read(
    object: Arc<Object>,
    slice: Slice,
    fill_wait: Duration,
) -> (Result<Bytes, Fault>, bool) {
    let Slice { index, within } = slice;
    let deadline = Instant::now() + fill_wait;
    // A chunk that comes and is dropped again at once must not be chased for ever.
    for turn in 0..TURNS {
        match object.read(index, within.clone()).await {
            Ok(bytes) => {
                assert_eq!(
                    bytes.len(),
                    (within.end - within.start) as usize,
                    "a read gives the bytes asked for"
                );
                return (Ok(bytes), turn > 0);
            }
            Err(ReadError::Missing { .. }) => {
                let wait = tokio::time::timeout_at(deadline, object.wanted(index));
                if wait.await.is_err() {
                    break;
                }
            }
            // A mirror fetches it again: the next turn waits for that.
            Err(ReadError::Corrupt { .. }) if object.role() == object::Role::Mirror => {}
            Err(error) => return (Err(error.into()), turn > 0),
        }
    }
    let path = object.manifest().path.clone();
    let late = Fault::Late {
        path,
        index,
        waited: fill_wait,
    };
    (Err(late), true)
}

/// How often a chunk that is not held is waited for.
const TURNS: usize = 4;

/// Bytes of one frame at most that is no copy.
const MEMORY_FRAME: u64 = 1 << 20;

/// Bytes of one frame at most when memory is scarce.
const SMALL: usize = frames::SMALL as usize;
