//! What one connection does, and when that is too little.
//!
//! hyper's own head timeout costs a timer per request and says nothing of silent, idle or slow connections. Here
//! the connection's reads, writes and requests leave marks in a [`Pulse`], and its task looks at them about eight
//! times in the shortest limit ([`Watch::judge`], pure); a connection that does nothing costs one timer.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::Config;
use super::line::Line;
use crate::metrics::http::Closed;
use crate::time::Now;

/// Marks left by one connection. All relaxed: they are read by its own task or much later.
#[derive(Debug, Default)]
pub struct Pulse {
    /// Bytes received (of the clear text, within TLS).
    pub(super) received: AtomicU64,
    /// Bytes of request bodies that were taken in.
    taken: AtomicU64,
    /// Bytes the kernel took (of the records, within TLS).
    pub(super) written: AtomicU64,
    /// Requests begun.
    requests: AtomicU32,
    /// Requests begun and not ended.
    open: AtomicU32,
    /// Of these, the ones that wait for content and so have nothing to send.
    waiting: AtomicU32,
    /// A request head, or the HTTP/2 preface, has begun and is not whole.
    pub(super) head: AtomicBool,
    pub(super) preface: AtomicBool,
    /// A head was refused.
    pub(super) fault: AtomicBool,
    /// All is sent; what the client still sends is taken away.
    pub(super) lingering: AtomicBool,
    /// There are informational responses to be written.
    pub(super) informing: AtomicBool,
    interim: Mutex<Interim>,
}

/// Informational responses (1xx) on their way to an HTTP/1.1 client, which hyper does not send.
#[derive(Debug, Default)]
pub(super) struct Interim {
    pub(super) bytes: Vec<u8>,
    /// Woken when they are with the kernel.
    pub(super) waker: Option<Waker>,
}

/// A [`Pulse`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Beat {
    received: u64,
    written: u64,
    /// Of these, the bytes the client's side acknowledged.
    acked: u64,
    /// Bytes of request bodies that were taken in.
    taken: u64,
    requests: u32,
    open: u32,
    waiting: u32,
    head: bool,
    preface: bool,
    lingering: bool,
}

/// What is to be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing.
    Keep,
    /// Ask it to end in good order: it is idle.
    Finish,
    /// Close it.
    Close(Closed),
}

/// The judge of one connection.
#[derive(Debug)]
pub struct Watch {
    limits: Limits,
    last: Beat,
    /// Since when no request was begun, and no byte written or acknowledged.
    quiet: Now,
    /// Since when a head is being sent.
    head: Now,
    /// From when on, and from how many bytes on, what is acknowledged is weighed.
    slow: (Now, u64),
    finishing: bool,
}

/// How long a connection may do what.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    silent: Duration,
    head_time: Duration,
    idle: Duration,
    slow: Duration,
}

impl Limits {
    /// Those of `config`.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            silent: config.silent,
            head_time: config.head_time,
            idle: config.idle,
            slow: config.slow,
        }
    }

    /// How often to judge.
    #[must_use]
    pub fn step(&self) -> Duration {
        let shortest = self
            .silent
            .min(self.head_time)
            .min(self.idle)
            .min(self.slow);
        (shortest / 8).clamp(Duration::from_millis(10), Duration::from_secs(5))
    }
}

impl Pulse {
    /// A request began.
    pub fn begin(&self) {
        self.requests.fetch_add(1, Relaxed);
        self.open.fetch_add(1, Relaxed);
    }

    /// A request ended.
    pub fn end(&self) {
        self.open.fetch_sub(1, Relaxed);
    }

    /// An open request begins to wait for content, or ends waiting.
    pub fn wait(&self, waits: bool) {
        if waits {
            self.waiting.fetch_add(1, Relaxed);
        } else {
            self.waiting.fetch_sub(1, Relaxed);
        }
    }

    /// Has an informational response written. Only while the final one has not begun, and only to HTTP/1.1; what went
    /// before it is written first.
    pub fn inform(&self, head: &[u8]) {
        self.interim().bytes.extend_from_slice(head);
        self.informing.store(true, Relaxed);
    }

    /// Waits until all of them are written: the final response may begin then.
    pub fn poll_informed(&self, cx: &Context<'_>) -> Poll<()> {
        let mut interim = self.interim();
        if interim.bytes.is_empty() {
            return Poll::Ready(());
        }
        interim.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) fn interim(&self) -> MutexGuard<'_, Interim> {
        self.interim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `requests` began and ended at once.
    pub(super) fn quick(&self, requests: u32) {
        self.requests.fetch_add(requests, Relaxed);
    }

    /// Requests begun, and how many of them have not ended.
    pub(super) fn requests(&self) -> (u32, u32) {
        (self.requests.load(Relaxed), self.open.load(Relaxed))
    }

    /// So many bytes of a request's body were taken in.
    pub fn take(&self, bytes: u64) {
        self.taken.fetch_add(bytes, Relaxed);
    }

    /// Whether a head was refused before the parser saw it.
    pub fn fault(&self) -> bool {
        self.fault.load(Relaxed)
    }

    fn beat(&self) -> Beat {
        Beat {
            received: self.received.load(Relaxed),
            written: self.written.load(Relaxed),
            acked: 0,
            taken: self.taken.load(Relaxed),
            requests: self.requests.load(Relaxed),
            open: self.open.load(Relaxed),
            waiting: self.waiting.load(Relaxed),
            head: self.head.load(Relaxed),
            preface: self.preface.load(Relaxed),
            lingering: self.lingering.load(Relaxed),
        }
    }
}

impl Watch {
    /// Begins with a connection accepted at `now`.
    #[must_use]
    pub fn new(limits: Limits, now: Now) -> Self {
        Self {
            limits,
            last: Beat::default(),
            quiet: now,
            head: now,
            slow: (now, 0),
            finishing: false,
        }
    }

    /// Judges by the marks left so far and what the kernel knows of `line`.
    pub fn judge(&mut self, pulse: &Pulse, line: &Line, now: Now) -> Judgement {
        let mut beat = pulse.beat();
        // Nothing is known of a connection that broke: its task ends by itself.
        beat.acked = line.look(beat.written).unwrap_or(beat.written);
        self.weigh(beat, now)
    }

    fn weigh(&mut self, beat: Beat, now: Now) -> Judgement {
        let last = std::mem::replace(&mut self.last, beat);
        let limits = self.limits;
        if beat.requests != last.requests
            || beat.written != last.written
            || beat.acked != last.acked
        {
            self.quiet = now;
        }
        // Another head than at the last look, or none: its time begins anew.
        if beat.requests != last.requests || !(beat.head && last.head) {
            self.head = now;
        }
        // The client has bytes to take when it did not take all that was written, or when a request is open that
        // does not itself wait for content.
        let unread = beat.written > beat.acked;
        let enough = SLOWEST.saturating_mul(limits.slow.as_secs().max(1));
        let sending = unread || beat.open > beat.waiting;
        // A client that sends a body is weighed by what it sends.
        let moved = beat.acked + beat.taken;
        if !sending || moved.saturating_sub(self.slow.1) >= enough {
            self.slow = (now, moved);
        }
        if beat.requests == 0 && (beat.received == 0 || beat.preface) {
            return if now.since(self.quiet) >= limits.silent {
                Judgement::Close(Closed::Silent)
            } else {
                Judgement::Keep
            };
        }
        if beat.lingering {
            return if now.since(self.quiet) >= limits.silent {
                Judgement::Close(Closed::Done)
            } else {
                Judgement::Keep
            };
        }
        if beat.head && now.since(self.head) >= limits.head_time {
            return Judgement::Close(Closed::Head);
        }
        if now.since(self.slow.0) >= limits.slow {
            return Judgement::Close(Closed::Slow);
        }
        if beat.open > 0 || unread {
            return Judgement::Keep;
        }
        if self.finishing && now.since(self.quiet) >= limits.idle + limits.silent {
            return Judgement::Close(Closed::Idle);
        }
        if !self.finishing && now.since(self.quiet) >= limits.idle {
            self.finishing = true;
            return Judgement::Finish;
        }
        Judgement::Keep
    }

    /// Whether it was asked to end because it was idle.
    #[must_use]
    pub fn finishing(&self) -> bool {
        self.finishing
    }
}

/// Bytes per second below which a reader is slow.
const SLOWEST: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use Judgement::*;

    const LIMITS: Limits = Limits {
        silent: Duration::from_secs(10),
        head_time: Duration::from_secs(15),
        idle: Duration::from_secs(60),
        slow: Duration::from_secs(30),
    };

    /// Feeds (second, beat) pairs; gives the first judgement that is not `Keep`, with its second.
    fn first(beats: impl IntoIterator<Item = (u64, Beat)>) -> Option<(u64, Judgement)> {
        let start = Now {
            mono_ns: 0,
            unix_ms: 0,
        };
        let mut watch = Watch::new(LIMITS, start);
        beats.into_iter().find_map(|(second, beat)| {
            match watch.weigh(beat, start.plus(Duration::from_secs(second))) {
                Keep => None,
                other => Some((second, other)),
            }
        })
    }

    #[track_caller]
    fn check(beat: impl Fn(u64) -> Beat, expected: Option<(u64, Judgement)>) {
        assert_eq!(first((1..=200).map(|s| (s, beat(s)))), expected);
    }

    #[test]
    fn connection_that_sends_nothing_is_closed() {
        check(|_| Beat::default(), Some((10, Close(Closed::Silent))));
    }

    #[test]
    fn connection_within_the_preface_is_closed() {
        let beat = Beat {
            received: 5,
            head: true,
            preface: true,
            ..Beat::default()
        };
        check(|_| beat, Some((10, Close(Closed::Silent))));
    }

    #[test]
    fn head_that_drips_is_closed() {
        let beat = |s| Beat {
            received: s,
            head: true,
            ..Beat::default()
        };
        check(beat, Some((16, Close(Closed::Head))));
    }

    #[test]
    fn heads_that_end_are_kept() {
        let beat = |s: u64| Beat {
            received: s,
            requests: u32::try_from(s / 10).unwrap(),
            head: true,
            ..Beat::default()
        };
        check(beat, None);
    }

    #[test]
    fn idle_connection_is_asked_to_finish() {
        let beat = Beat {
            received: 9,
            requests: 1,
            ..Beat::default()
        };
        check(|_| beat, Some((61, Finish)));
    }

    #[test]
    fn reader_that_takes_nothing_is_closed() {
        let beat = Beat {
            received: 9,
            requests: 1,
            open: 1,
            written: 1 << 20,
            acked: 1 << 18,
            ..Beat::default()
        };
        check(|_| beat, Some((31, Close(Closed::Slow))));
    }

    #[test]
    fn reader_is_weighed_by_what_it_acknowledged() {
        // Half a kilobyte a second, while the kernel takes megabytes.
        let beat = |s: u64| Beat {
            received: 9,
            requests: 1,
            open: 1,
            written: s << 20,
            acked: s << 9,
            ..Beat::default()
        };
        check(beat, Some((30, Close(Closed::Slow))));
    }

    #[test]
    fn connection_is_not_idle_while_its_answer_is_read() {
        // All of the answer is with the kernel, of which the client takes two kilobytes a second.
        let beat = |s: u64| Beat {
            received: 9,
            requests: 1,
            written: 200 << 11,
            acked: s << 11,
            ..Beat::default()
        };
        check(beat, None);
    }

    #[test]
    fn answer_left_unread_closes_the_connection() {
        let beat = Beat {
            received: 9,
            requests: 1,
            written: 1 << 20,
            ..Beat::default()
        };
        check(|_| beat, Some((30, Close(Closed::Slow))));
    }

    #[test]
    fn reader_at_two_kilobytes_a_second_is_kept() {
        let beat = |s: u64| Beat {
            received: 9,
            requests: 1,
            open: 1,
            written: 1 << 20,
            acked: s << 11,
            ..Beat::default()
        };
        check(beat, None);
    }

    #[test]
    fn client_is_weighed_by_the_body_it_sends() {
        let beat = |bytes_per_second: u64| {
            move |s: u64| Beat {
                received: s * bytes_per_second,
                requests: 1,
                open: 1,
                taken: s * bytes_per_second,
                ..Beat::default()
            }
        };
        check(beat(2_048), None);
        check(beat(512), Some((30, Close(Closed::Slow))));
    }

    #[test]
    fn client_that_goes_on_sending_after_its_answer_is_closed() {
        let beat = |s| Beat {
            received: s,
            requests: 1,
            head: true,
            lingering: true,
            ..Beat::default()
        };
        check(beat, Some((11, Close(Closed::Done))));
    }

    #[test]
    fn request_that_waits_for_content_is_kept() {
        let beat = Beat {
            received: 9,
            requests: 1,
            open: 1,
            waiting: 1,
            ..Beat::default()
        };
        check(|_| beat, None);
    }
}
