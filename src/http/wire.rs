//! A connection's stream for hyper, in the clear or within TLS: leaves marks in its [`Pulse`] and screens request heads.
//!
//! What is written is counted where it goes to the socket, since that is what the client's side acknowledges; heads are screened
//! where they are clear text.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::line::Line;
use super::screen::Screen;
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
    /// Bytes that may still be taken away after the shutdown.
    surplus: usize,
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
    /// Watches `stream`, which goes over `line`.
    #[must_use]
    pub fn new(stream: S, line: Line, pulse: Arc<Pulse>) -> Self {
        Self {
            stream,
            line,
            pulse,
            screen: Screen::default(),
            surplus: SURPLUS,
        }
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

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        let fresh = &mut buf.filled_mut()[before..];
        if fresh.is_empty() {
            return Poll::Ready(Ok(()));
        }
        this.pulse.received.fetch_add(fresh.len() as u64, Relaxed);
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
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
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
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
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
