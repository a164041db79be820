//! Large bodies in the clear, read from the socket by a thread that may wait, chunk by chunk.
//!
//! A task that reads whatever has come wakes its readers and the disk for each few packets. The kernel gathers a chunk at
//! a time instead (`MSG_WAITALL`), which is then digested, written and sent as one: half the system calls, and writes that
//! the file system takes in large folios. A server that is slow is not waited for: what came within [`GATHER`] goes on.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, recv};

use super::content::CHUNK;
use crate::content::buffers::Buffers;

/// The rest of a body, on its socket.
#[derive(Debug)]
pub(super) struct Bulk {
    socket: OwnedFd,
    /// Where in the object the next byte belongs.
    at: u64,
    end: u64,
    buffers: Arc<Buffers>,
}

/// Why there are no more bytes.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// Nobody wants them.
    #[error("it is not wanted any more")]
    Unwanted,
    /// The server said nothing for too long.
    #[error("the server was silent")]
    Silent,
    /// The connection broke.
    #[error(transparent)]
    Broken(#[from] io::Error),
}

impl Bulk {
    /// The bytes from `at` to `end` of an object, which are all that `socket` still brings for this answer.
    ///
    /// # Errors
    /// What the kernel said when the socket was made to wait.
    pub(super) fn new(
        socket: OwnedFd,
        at: u64,
        end: u64,
        buffers: &Arc<Buffers>,
    ) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, false)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(GATHER))?;
        Ok(Self {
            socket,
            at,
            end,
            buffers: Arc::clone(buffers),
        })
    }

    /// Bytes to come.
    pub(super) fn left(&self) -> u64 {
        self.end - self.at
    }

    /// Has the socket wait for nobody again, when all was read.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn end(self) -> io::Result<()> {
        Ok(rustix::io::ioctl_fionbio(&self.socket, true)?)
    }

    /// The next bytes, at most to the end of their chunk: waits for them, as long as they are `wanted`, and no longer than
    /// `silence`. Blocks.
    ///
    /// # Errors
    /// See [`End`].
    pub(super) fn next(
        &mut self,
        silence: Duration,
        mut wanted: impl FnMut() -> bool,
    ) -> Result<Bytes, End> {
        let whole = (CHUNK - self.at % CHUNK).min(self.left());
        let mut buffer = self.buffers.take(usize::try_from(whole).unwrap_or(0));
        let since = Instant::now();
        let got = loop {
            match recv(&self.socket, buffer.as_mut(), RecvFlags::WAITALL) {
                Ok((_, 0)) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok((_, got)) => break got,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
            if !wanted() {
                return Err(End::Unwanted);
            }
            let left = silence.saturating_sub(since.elapsed());
            if left.is_zero() {
                return Err(End::Silent);
            }
            self.wait(left.min(LOOK))?;
        };
        self.at += got as u64;
        Ok(if got < SHARED {
            Bytes::copy_from_slice(&buffer.as_ref()[..got])
        } else {
            buffer.share(0..got)
        })
    }

    /// Waits for bytes, no longer than `time`.
    fn wait(&self, time: Duration) -> io::Result<()> {
        let time = Timespec::try_from(time).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&time)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// A chunk is gathered for so long; then what came goes on.
const GATHER: Duration = Duration::from_millis(4);

/// While nothing comes, whether it is wanted is looked at so often.
const LOOK: Duration = Duration::from_millis(250);

/// What is less than this is copied: it would hold the buffer of a whole chunk.
const SHARED: usize = 768 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    const LONG: Duration = Duration::from_secs(60);

    fn pair() -> (TcpStream, OwnedFd) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (here, _) = listener.accept().unwrap();
        here.set_nonblocking(true).unwrap();
        (there, here.into())
    }

    fn bulk(socket: OwnedFd, at: u64, end: u64) -> Bulk {
        Bulk::new(socket, at, end, &Buffers::new(4 << 20)).unwrap()
    }

    fn bytes(from: u64, end: u64) -> Vec<u8> {
        (from..end).map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn pieces_end_where_chunks_do_and_are_all_that_was_sent() {
        let (mut there, here) = pair();
        let (from, end) = (CHUNK - 5, 4 * CHUNK + 7);
        let sender = std::thread::spawn(move || {
            for part in bytes(from, end).chunks(300_000) {
                there.write_all(part).unwrap();
            }
            there
        });
        let mut bulk = bulk(here, from, end);
        let mut all = Vec::new();
        while bulk.left() > 0 {
            let piece = bulk.next(LONG, || true).unwrap();
            let at = from + all.len() as u64;
            assert_eq!(
                at / CHUNK,
                (at + piece.len() as u64 - 1) / CHUNK,
                "one chunk"
            );
            all.extend_from_slice(&piece);
        }
        assert!(all == bytes(from, end), "the bytes differ");
        drop(sender.join().unwrap());
    }

    #[test]
    fn what_came_from_a_slow_server_goes_on_before_the_chunk_is_whole() {
        let (mut there, here) = pair();
        there.write_all(b"abc").unwrap();
        let mut bulk = bulk(here, 0, CHUNK);
        assert_eq!(&bulk.next(LONG, || true).unwrap()[..], b"abc");
        assert_eq!(bulk.left(), CHUNK - 3);
    }

    #[test]
    fn connection_that_ends_early_is_broken_and_one_that_is_silent_is_told() {
        let (there, here) = pair();
        let mut silent = bulk(here, 0, CHUNK);
        let short = Duration::from_millis(10);
        assert!(matches!(silent.next(short, || true), Err(End::Silent)));
        assert!(matches!(silent.next(LONG, || false), Err(End::Unwanted)));
        drop(there);
        assert!(matches!(silent.next(LONG, || true), Err(End::Broken(_))));
    }
}
