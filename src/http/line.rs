//! A connection's socket: what hyper reads and writes (through [`super::watch::Watched`]), and what the kernel says
//! became of it.
//!
//! A large body costs least when the kernel may hold much of it unsent: fewer wake-ups, larger writes. A client that
//! does not read must not hold as much. So the kernel takes [`FIRST`] bytes at first, and all that the configuration
//! allows once a client took that much between two looks; at a look at which it did not, the small bound is back. So it
//! is when very many read: what the kernel holds for all of them comes out of the same memory. And who has had its share of a
//! full link waits before more is written.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use nix::{getsockopt_impl, sockopt_impl};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{RecvFlags, SendFlags};
use tokio::io::{AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::frames::Frames;
use crate::link::clients::Client;
use crate::link::pace::Pace;

/// A handle of one connection's socket. One task polls it and looks at it, so the lock is never waited for.
#[derive(Clone, Debug)]
pub struct Line(Arc<Mutex<Socket>>);

#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    /// Bytes the kernel may hold unsent for a client that reads well.
    unsent: u32,
    /// Whether it may do so now.
    wide: bool,
    /// Bytes the kernel took since the last look.
    recent: u64,
    frames: Arc<Frames>,
    pace: Arc<Pace>,
    client: Arc<Client>,
    /// Set while the client has had its share.
    share: Option<Pin<Box<Sleep>>>,
    /// It serves another node's replication, which is no viewer.
    background: bool,
}

impl Line {
    /// Takes `stream`; the kernel will hold at most `unsent` bytes of it unsent, while there are few bodies among
    /// `frames`. What goes over it counts as a viewer's for `pace`, the one counted for `address`.
    #[must_use]
    pub fn new(
        stream: TcpStream,
        address: IpAddr,
        unsent: u32,
        frames: Arc<Frames>,
        pace: Arc<Pace>,
    ) -> Self {
        let line = Socket {
            client: pace.client(address),
            share: None,
            stream,
            unsent,
            wide: false,
            recent: 0,
            frames,
            pace,
            background: false,
        };
        line.bound(unsent.min(FIRST));
        Self(Arc::new(Mutex::new(line)))
    }

    /// Looks at what became of the bytes written so far: how many of them the client's side acknowledged.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn look(&self, written: u64) -> io::Result<u64> {
        let mut socket = self.socket();
        let slow = socket.recent < u64::from(socket.unsent);
        if socket.wide && (slow || !socket.frames.is_plenty()) {
            socket.wide = false;
            socket.bound(socket.unsent.min(FIRST));
        }
        socket.recent = 0;
        let info = nix::sys::socket::getsockopt(&socket.stream, Info)?;
        // Closing counts as one byte more.
        Ok(info[BYTES_ACKED].min(written))
    }

    pub(super) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let socket = self.socket();
        let room = buf.remaining().min(READ);
        if room == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut space = [MaybeUninit::uninit(); READ];
        let read = |stream: &TcpStream| {
            let flags = RecvFlags::empty();
            let ((read, _), _) = rustix::net::recv(stream, &mut space[..room], flags)?;
            buf.put_slice(read);
            // Nothing: it has ended, which is to be seen again.
            Ok((read.len(), read.is_empty() || read.len() == room))
        };
        let taken = socket.exchange(cx, Interest::READABLE, read);
        if let Poll::Ready(Ok(bytes)) = &taken
            && *bytes == READ
            && !socket.background
        {
            // Part of a body: requests are shorter, and not worth a count.
            socket.pace.receive.viewed(*bytes as u64);
        }
        taken.map_ok(|_| ())
    }

    pub(super) fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut socket = self.socket();
        let most = ready!(socket.poll_share(cx));
        let buf = &buf[..buf.len().min(most)];
        let send = |stream: &TcpStream| {
            let sent = rustix::net::send(stream, buf, SendFlags::NOSIGNAL)?;
            Ok((sent, sent == buf.len()))
        };
        let taken = socket.exchange(cx, Interest::WRITABLE, send);
        socket.took(taken)
    }

    pub(super) fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut socket = self.socket();
        let most = ready!(socket.poll_share(cx));
        let length: usize = bufs.iter().map(|buf| buf.len()).sum();
        if length > most {
            drop(socket);
            // The first that has bytes will do: another call follows.
            let first = bufs.iter().find(|buf| !buf.is_empty());
            return self.poll_write(cx, first.map_or(&[], |buf| buf));
        }
        let send = |stream: &TcpStream| {
            let sent = rustix::io::writev(stream, bufs)?;
            Ok((sent, sent == length))
        };
        let taken = socket.exchange(cx, Interest::WRITABLE, send);
        socket.took(taken)
    }

    /// From now on it serves another node's replication: that counts as no viewer's, and little of it waits in the kernel,
    /// where it could not be held back any more.
    pub(super) fn recede(&self) {
        let mut socket = self.socket();
        if !socket.background {
            (socket.background, socket.wide) = (true, false);
            socket.bound(BACKGROUND);
        }
    }

    /// Waits until the kernel takes something. For the task that writes.
    ///
    /// tokio believes that it does until a write has failed, and what was to be written then waits in memory. So the kernel is asked,
    /// which costs less; being asked, it also tells when there is room again.
    pub(super) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.socket();
        loop {
            ready!(socket.stream.poll_write_ready(cx))?;
            let asked = socket.stream.try_io(Interest::WRITABLE, || {
                let mut asked = [PollFd::new(&socket.stream, PollFlags::OUT)];
                match rustix::event::poll(&mut asked, Some(&Timespec::default()))? {
                    0 => Err(io::ErrorKind::WouldBlock.into()),
                    _ => Ok(()),
                }
            });
            match asked {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                asked => return Poll::Ready(asked),
            }
        }
    }

    pub(super) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket().stream).poll_shutdown(cx)
    }

    fn socket(&self) -> MutexGuard<'_, Socket> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Socket {
    /// Waits until the socket is ready and does `work`, which says how many bytes went over and whether there may be more
    /// to do at once; if not, the next call waits for the kernel's word first.
    ///
    /// The calls are made without the C library: being points at which a thread may be cancelled, its own are 2 % of what a
    /// small request costs.
    fn exchange(
        &self,
        cx: &mut Context<'_>,
        interest: Interest,
        mut work: impl FnMut(&TcpStream) -> rustix::io::Result<(usize, bool)>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(if interest.is_readable() {
                self.stream.poll_read_ready(cx)
            } else {
                self.stream.poll_write_ready(cx)
            })?;
            let mut done = None;
            let tried = self.stream.try_io(interest, || {
                loop {
                    match work(&self.stream) {
                        Ok((bytes, more)) => {
                            done = Some(bytes);
                            return if more {
                                Ok(())
                            } else {
                                // Not ready any more, as far as is known.
                                Err(io::ErrorKind::WouldBlock.into())
                            };
                        }
                        Err(rustix::io::Errno::INTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            });
            match (done, tried) {
                (Some(bytes), _) => return Poll::Ready(Ok(bytes)),
                (None, Err(error)) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Poll::Ready(Err(error));
                }
                (None, _) => {}
            }
        }
    }

    /// Waits until the client may have more of the link; says how many bytes.
    fn poll_share(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        if self.background {
            return Poll::Ready(usize::MAX);
        }
        let wait = match self.client.may() {
            Ok(most) => return Poll::Ready(most),
            Err(wait) => wait,
        };
        let until = Instant::now() + wait;
        let share = match &mut self.share {
            Some(share) => {
                share.as_mut().reset(until);
                share
            }
            None => {
                self.client.delayed();
                self.share.insert(Box::pin(sleep_until(until)))
            }
        };
        if share.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref(); // Over already.
        }
        Poll::Pending
    }

    fn took(&mut self, taken: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = taken {
            if self.background {
                return taken;
            }
            self.pace.transmit.viewed(bytes as u64);
            self.client.took(bytes as u64);
            self.share = None;
            self.recent += bytes as u64;
            let fast = self.recent >= u64::from(self.unsent);
            if fast && !self.wide && self.frames.is_plenty() {
                self.wide = true;
                self.bound(self.unsent);
            }
        }
        taken
    }

    /// Best effort: without it the connection works all the same.
    fn bound(&self, unsent: u32) {
        let _ = socket2::SockRef::from(&self.stream).set_tcp_notsent_lowat(unsent);
    }
}

sockopt_impl!(
    /// The first 128 bytes of the kernel's `struct tcp_info`. `libc` declares more of it than older kernels fill in.
    Info,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    [u64; 16]
);

/// Bytes read at once: requests are short.
const READ: usize = 8 << 10;

/// The place of `tcpi_bytes_acked`.
const BYTES_ACKED: usize = 15;

/// Bytes the kernel holds unsent for another node's replication.
const BACKGROUND: u32 = 32 << 10;

/// Bytes the kernel holds unsent for a client not known yet, or slow.
const FIRST: u32 = 128 << 10;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket};
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::metrics::Metrics;

    const LONG: Duration = Duration::from_secs(10);

    async fn pair(unsent: u32) -> (Line, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpSocket::new_v4().unwrap();
        client.set_recv_buffer_size(16 << 10).unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, client) = tokio::join!(listener.accept(), client.connect(address));
        let (stream, from) = accepted.unwrap();
        let metrics = Arc::new(Metrics::new());
        let frames = Frames::new(1 << 20, Arc::clone(&metrics));
        let pace = Pace::new(1 << 30, 0.3, &metrics);
        (
            Line::new(stream, from.ip(), unsent, frames, pace),
            client.unwrap(),
        )
    }

    /// Writes until the kernel takes no more; what it took.
    async fn fill(line: &Line) -> u64 {
        let mut taken = 0;
        let bytes = vec![7; 1 << 20];
        while let Ok(more) = timeout(
            Duration::from_millis(50),
            std::future::poll_fn(|cx| line.poll_write(cx, &bytes)),
        )
        .await
        {
            taken += more.unwrap() as u64;
        }
        taken
    }

    async fn take(client: &mut TcpStream, bytes: u64) {
        let mut buffer = vec![0; usize::try_from(bytes).unwrap()];
        timeout(LONG, client.read_exact(&mut buffer))
            .await
            .expect("in time")
            .unwrap();
    }

    #[tokio::test]
    async fn acknowledged_bytes_are_those_the_client_has() {
        let (line, mut client) = pair(1 << 20).await;
        assert_eq!(line.look(0).unwrap(), 0);
        let taken = fill(&line).await;
        let before = line.look(taken).unwrap();
        assert!(before < taken, "{before} of {taken}");
        take(&mut client, taken).await;
        let deadline = Instant::now() + LONG;
        while line.look(taken).unwrap() < taken {
            assert!(Instant::now() < deadline, "acknowledged in time");
            sleep(Duration::from_millis(1)).await;
        }
        client.write_all(b"x").await.unwrap();
        assert_eq!(line.look(taken).unwrap(), taken);
    }

    #[tokio::test]
    async fn line_is_writable_only_while_the_kernel_takes_more() {
        let (line, mut client) = pair(1 << 20).await;
        let part = [7; 16 << 10];
        let soon = |line: Line| async move {
            let writable = std::future::poll_fn(|cx| line.poll_writable(cx));
            timeout(Duration::from_millis(50), writable).await
        };
        let mut taken = 0;
        // Every write that follows the word takes something at once.
        while let Ok(writable) = soon(line.clone()).await {
            writable.unwrap();
            let written = std::future::poll_fn(|cx| Poll::Ready(line.poll_write(cx, &part))).await;
            let Poll::Ready(Ok(bytes)) = written else {
                panic!("{written:?} after {taken}");
            };
            taken += bytes as u64;
        }
        let waits =
            tokio::spawn(async move { std::future::poll_fn(|cx| line.poll_writable(cx)).await });
        take(&mut client, taken).await;
        let told = timeout(LONG, waits).await.expect("there is room again");
        told.unwrap().unwrap();
    }

    #[tokio::test]
    async fn kernel_holds_much_only_for_a_client_that_reads() {
        let unsent = 2 << 20;
        let (line, mut client) = pair(unsent).await;
        let narrow = fill(&line).await;
        assert!(narrow < u64::from(unsent) / 4, "{narrow} at first");
        // It reads as much as the bound, so the kernel may hold that much.
        let (mut taken, mut last) = (narrow, narrow);
        while taken < u64::from(unsent) {
            take(&mut client, last).await;
            last = fill(&line).await;
            taken += last;
        }
        assert!(last > u64::from(unsent) / 2, "{last} after {taken}");
        // Between these looks it reads nothing, and then all of it: the next bytes are few again.
        line.look(taken).unwrap();
        line.look(taken).unwrap();
        take(&mut client, last).await;
        let last = fill(&line).await;
        assert!(last <= 2 * narrow, "{last} after a rest, {narrow} at first");
    }
}
