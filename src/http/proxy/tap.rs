//! The socket of a connection, taken from the client that reads it.
//!
//! hyper reads an answer's head, and as much behind it as has come. A large body is then better read by a loop that knows
//! where its chunks end (see `bulk`). So the connection has a tap: once it is turned, hyper reads nothing more, and the
//! socket is handed over when hyper asks for the next bytes. It asks only when all it had read is passed on; so what
//! comes through hyper and then from the socket is the body, without a gap.
//!
//! A connection that has grown fast is worth keeping. So when the body was read to its end, hyper gets as many zeros as it
//! missed bytes, which nobody looks at, and is where the connection is. One that is not given back, hyper closes.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;

use futures_util::task::AtomicWaker;
use hyper::rt::ReadBufCursor;

/// The tap of one connection: one end is with what hyper reads from, the other comes with each answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Tap(Arc<State>);

#[derive(Debug, Default)]
struct State {
    turned: AtomicBool,
    socket: Mutex<Option<OwnedFd>>,
    /// Bytes read beside hyper that it has not got zeros for.
    missed: AtomicU64,
    /// Who waits for the socket.
    taker: AtomicWaker,
    /// hyper, which waits for bytes.
    reader: AtomicWaker,
}

impl Tap {
    /// hyper gets nothing more from now on.
    pub(super) fn turn(&self) {
        // What hyper was woken for by chance, after the last body was taken, would be handed over before its time.
        *self.socket() = None;
        self.0.turned.store(true, Ordering::SeqCst);
    }

    /// Whether hyper gets nothing more.
    pub(super) fn is_turned(&self) -> bool {
        self.0.turned.load(Ordering::SeqCst)
    }

    /// `missed` bytes were read beside hyper, to the end of its body: it goes on behind them.
    pub(super) fn give_back(&self, missed: u64) {
        self.0.missed.store(missed, Ordering::SeqCst);
        self.0.turned.store(false, Ordering::SeqCst);
        self.0.reader.wake();
    }

    /// Zeros for what hyper missed; `false` if it missed nothing.
    pub(super) fn make_up(&self, buffer: &mut ReadBufCursor<'_>) -> bool {
        let missed = self.0.missed.load(Ordering::SeqCst);
        let mut left = missed;
        while left > 0 && buffer.remaining() > 0 {
            let some = ZEROS.len().min(buffer.remaining());
            let some = usize::try_from(left).map_or(some, |left| left.min(some));
            buffer.put_slice(&ZEROS[..some]);
            left -= some as u64;
        }
        self.0.missed.store(left, Ordering::SeqCst);
        missed > 0
    }

    /// Hands over a copy of `socket`: all that came before is passed on. If there is no room for another file, the tap is
    /// turned back, and hyper reads on.
    pub(super) fn hand_over(&self, socket: &impl AsFd, cx: &Context<'_>) {
        self.0.reader.register(cx.waker());
        match socket.as_fd().try_clone_to_owned() {
            Ok(copy) => *self.socket() = Some(copy),
            Err(error) => {
                tracing::debug!(%error, "no second handle of an upstream's connection");
                self.give_back(0);
            }
        }
        self.0.taker.wake();
    }

    /// The socket, once it is handed over; `cx` is woken by that.
    pub(super) fn take(&self, cx: &Context<'_>) -> Option<OwnedFd> {
        self.0.taker.register(cx.waker());
        self.socket().take()
    }

    fn socket(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        self.0.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What hyper gets for the bytes it missed, at a time.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
