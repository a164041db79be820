//! A connection's stream for hyper, in the clear or within TLS: leaves marks in its [`Pulse`], answers plain requests and screens other heads.
//!
//! What is written is counted where it goes to the socket, since that is what the client's side acknowledges; heads are screened
//! where they are clear text.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::line::Line;
use super::quick::Quick;
use super::receipt::Client;
use super::screen::{self, Screen};
use super::watch::Pulse;

/// A connection's socket: counts what the kernel took.
#[derive(Debug)]
pub struct Wire {
    line: Line,
    pulse: Arc<Pulse>,
}

/// What hyper reads and writes.
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    line: Line,
    pulse: Arc<Pulse>,
    screen: Screen,
    quick: Quick,
    /// Bytes the connection began with that are for hyper.
    ahead: Vec<u8>,
    /// The client ended it before there were any.
    ended: bool,
    /// Requests hyper never saw.
    answered: u32,
    /// Requests hyper had begun when it had last sent all it had.
    flushed: u32,
    /// hyper has written since.
    writing: bool,
    /// Bytes that may still be taken away after the shutdown.
    surplus: usize,
}

/// What a connection turns out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// HTTP/1, with bytes that need hyper.
    Http1,
    /// HTTP/2.
    Http2,
    /// Its client has all answers and left.
    Ended,
}

impl Wire {
    /// Wraps `line`.
    #[must_use]
    pub fn new(line: Line, pulse: Arc<Pulse>) -> Self {
        Self { line, pulse }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.line.poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let taken = ready!(self.line.poll_write(cx, buf))?;
        self.pulse.written.fetch_add(taken as u64, Relaxed);
        Poll::Ready(Ok(taken))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let taken = ready!(self.line.poll_write_vectored(cx, bufs))?;
        self.pulse.written.fetch_add(taken as u64, Relaxed);
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was written is with the kernel.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.line.poll_shutdown(cx)
    }
}

impl<S> Watched<S> {
    /// Watches `stream`, which goes over `line` and is `client`'s.
    #[must_use]
    pub fn new(stream: S, line: Line, client: &Client) -> Self {
        Self {
            stream,
            line,
            pulse: Arc::clone(&client.pulse),
            screen: Screen::default(),
            quick: Quick::new(client),
            ahead: Vec::new(),
            ended: false,
            answered: 0,
            flushed: 0,
            writing: false,
            surplus: SURPLUS,
        }
    }

    /// Whether hyper has answered all heads it was given and sent the answers, and holds no part of another: then what is answered
    /// here comes in its turn.
    fn at_rest(&self) -> bool {
        let (begun, open) = self.pulse.requests();
        let begun = begun.wrapping_sub(self.answered);
        open == 0
            && !self.writing
            && begun == self.flushed
            && begun == self.screen.heads()
            && self.screen.between_heads()
    }

    /// Answers what of `bytes` is plain: so many, from the first.
    fn answer(&mut self, bytes: &[u8]) -> usize {
        let taken = self.quick.take(bytes);
        if taken.requests > 0 {
            self.pulse.quick(taken.requests);
            self.answered = self.answered.wrapping_add(taken.requests);
        }
        taken.bytes
    }

    /// Takes away what the client sends until it ends or the bound is reached. Without this the kernel resets the
    /// connection for the bytes nobody read, and the client may lose the answer that is on its way.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; 4096];
        while self.surplus > 0 {
            let mut buf = ReadBuf::new(&mut bytes);
            let read = ready!(self.line.poll_read(cx, &mut buf));
            let taken = buf.filled().len();
            if read.is_err() || taken == 0 {
                break;
            }
            self.surplus = self.surplus.saturating_sub(taken);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Watched<S> {
    /// Answers plain requests until something else comes, which is then read first, or the client leaves.
    ///
    /// # Errors
    /// What the stream said.
    pub fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Begun>> {
        loop {
            // Who does not take its answers is not read from.
            ready!(self.quick.poll_send(cx, &mut self.stream))?;
            if self.ended {
                ready!(Pin::new(&mut *self).poll_shutdown(cx))?;
                return Poll::Ready(Ok(Begun::Ended));
            }
            if !self.ahead.is_empty() {
                let bytes = std::mem::take(&mut self.ahead);
                let answered = self.answer(&bytes);
                self.ahead.extend_from_slice(&bytes[answered..]);
                if answered > 0 {
                    continue;
                }
                match screen::is_http2(&bytes) {
                    Some(true) => return Poll::Ready(Ok(Begun::Http2)),
                    Some(false) => return Poll::Ready(Ok(Begun::Http1)),
                    None => {
                        self.pulse.head.store(true, Relaxed);
                        self.pulse.preface.store(true, Relaxed);
                    }
                }
            }
            let mut space = [MaybeUninit::uninit(); FIRST];
            let mut buf = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf))?;
            let fresh = buf.filled();
            if fresh.is_empty() && self.ahead.is_empty() {
                self.ended = true;
                continue;
            }
            if fresh.is_empty() {
                return Poll::Ready(Ok(Begun::Http1));
            }
            self.pulse.received.fetch_add(fresh.len() as u64, Relaxed);
            let answered = if self.ahead.is_empty() {
                self.answer(fresh)
            } else {
                0
            };
            self.ahead.extend_from_slice(&fresh[answered..]);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        loop {
            // Who does not take its answers is not read from.
            ready!(this.quick.poll_send(cx, &mut this.stream))?;
            if this.ahead.is_empty() {
                ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
                let fresh = buf.filled().len() - before;
                if fresh == 0 {
                    return Poll::Ready(Ok(()));
                }
                this.pulse.received.fetch_add(fresh as u64, Relaxed);
            } else {
                let first = buf.remaining().min(this.ahead.len());
                buf.put_slice(&this.ahead[..first]);
                this.ahead.drain(..first);
                if this.ahead.is_empty() {
                    this.ahead = Vec::new();
                }
            }
            if this.at_rest() {
                let fresh = &mut buf.filled_mut()[before..];
                let answered = this.answer(fresh);
                let rest = fresh.len() - answered;
                fresh.copy_within(answered.., 0);
                buf.set_filled(before + rest);
            }
            if buf.filled().len() > before {
                break;
            }
        }
        let fresh = &mut buf.filled_mut()[before..];
        if this.screen.look(fresh).is_err() {
            this.pulse.fault.store(true, Relaxed);
        }
        this.pulse.head.store(this.screen.within_head(), Relaxed);
        this.pulse
            .preface
            .store(this.screen.within_preface(), Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.writing = true;
        // What was answered here comes first.
        ready!(this.quick.poll_send(cx, &mut this.stream))?;
        Pin::new(&mut this.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.writing = true;
        ready!(this.quick.poll_send(cx, &mut this.stream))?;
        Pin::new(&mut this.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper calls this once it has written all it had.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let (begun, open) = this.pulse.requests();
        if open == 0 {
            this.flushed = begun.wrapping_sub(this.answered);
        }
        this.writing = false;
        ready!(this.quick.poll_send(cx, &mut this.stream))?;
        // hyper holds nothing back when it flushes: what is written now comes after all it wrote.
        if this.pulse.informing.load(Relaxed) {
            let mut interim = this.pulse.interim();
            while !interim.bytes.is_empty() {
                let taken = ready!(Pin::new(&mut this.stream).poll_write(cx, &interim.bytes))?;
                if taken == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                interim.bytes.drain(..taken);
            }
            this.pulse.informing.store(false, Relaxed);
            if let Some(waker) = interim.waker.take() {
                waker.wake();
            }
        }
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.pulse.lingering.load(Relaxed) {
            let this = &mut *self;
            ready!(this.quick.poll_send(cx, &mut this.stream))?;
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if !self.screen.leaves_bytes() {
                return Poll::Ready(Ok(()));
            }
            self.pulse.lingering.store(true, Relaxed);
        }
        self.poll_linger(cx)
    }
}

/// Bytes of a refused request that are taken away at most.
const SURPLUS: usize = 64 << 10;

/// Bytes read at once before hyper is there.
const FIRST: usize = 8 << 10;
