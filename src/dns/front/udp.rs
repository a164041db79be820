//! One UDP worker: a plain thread, one socket, batches of packets in and out.
//!
//! A query that zones or cache can answer is answered here, without allocation and without leaving the
//! thread. Others are copied to a task of the slow path, within its limits. On stop the worker answers
//! what has already arrived and ends.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::Beat;
use super::mmsg::Batch;
use super::outbox::Outbox;
use super::slow::Slow;
use crate::dns::ahead::{AT_ONCE, Ahead};
use crate::dns::engine::{Engine, Fast, Snapshot, error};
use crate::dns::log::Log;
use crate::dns::rrl;
use crate::dns::wire::Rcode;
use crate::dns::{Outcome, Transport};
use crate::metrics::Metrics;
use crate::metrics::dns::{Limit, Tally};
use crate::time::Now;

/// What one worker needs.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) socket: Arc<UdpSocket>,
    pub(super) engine: Arc<Engine>,
    pub(super) slow: Arc<Slow>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) beat: Arc<Beat>,
    pub(super) stop: Arc<AtomicBool>,
    /// Largest answer, bytes.
    pub(super) payload: usize,
    /// Answers to one client in one packet for the kernel, at most.
    pub(super) segments: usize,
    /// UDP workers in all.
    pub(super) workers: usize,
}

impl Worker {
    /// Serves until `stop` is set.
    ///
    /// # Errors
    /// What the kernel said, if receiving failed [`FAILURES`] times in a row.
    pub(super) fn run(self) -> io::Result<()> {
        let socket = Arc::clone(&self.socket);
        let mut batch = Batch::new(socket, BATCH, self.payload, self.segments, WAIT)?;
        let mut tally = Tally::new(Transport::Udp);
        let mut near = self.engine.near(self.workers);
        let mut buckets = self.engine.rate_limit();
        let mut tap = self.engine.log().map(Log::tap);
        // Successive queries get successive seeds, so the addresses of an RRset take turns.
        let mut seed = Now::read().mono_ns;
        let mut ahead = Ahead::new(BATCH);
        let mut failures = 0;
        let mut last_batches = LAST_BATCHES;
        loop {
            let stopping = self.stop.load(Relaxed);
            let received = batch.receive(!stopping);
            let now = Now::read();
            self.beat.turn(now);
            let count = match received {
                Ok(count) => {
                    failures = 0;
                    count
                }
                Err(error) if failures < FAILURES => {
                    failures += 1;
                    tracing::debug!(worker = self.beat.name(), %error, "receive failed");
                    std::thread::sleep(PAUSE);
                    0
                }
                Err(error) => return Err(error),
            };
            if stopping {
                if count == 0 || last_batches == 0 {
                    return Ok(());
                }
                last_batches -= 1;
            }
            if count > 0 {
                let snapshot = self.engine.snapshot().with(near.as_mut(), buckets.as_mut());
                let snapshot = snapshot.logging(tap.as_mut());
                snapshot.look_ahead(&mut ahead, count, |index| batch.packet(index));
                self.answer(snapshot, &ahead, &mut batch, now, &mut seed, &mut tally);
                tally.flush(&self.metrics.dns, Now::read().since(now));
                let lost = buckets.as_mut().map_or(0, rrl::Table::take_lost);
                if lost > 0 {
                    self.metrics.dns.limits(Limit::RateLimitBuckets, lost);
                }
            }
        }
    }

    fn answer(
        &self,
        mut snapshot: Snapshot<'_>,
        ahead: &Ahead,
        batch: &mut Batch,
        now: Now,
        seed: &mut u64,
        tally: &mut Tally,
    ) {
        for index in 0..batch.received() {
            let message = batch.message(index);
            *seed = seed.wrapping_add(1);
            let fast = if message.port == 0 {
                Fast::Drop(Outcome::Dropped)
            } else if message.whole {
                snapshot.fast_at(
                    message.packet,
                    ahead.path(index),
                    message.client,
                    Transport::Udp,
                    now,
                    *seed,
                    message.answer,
                )
            } else {
                error(message.packet, Rcode::FormErr, message.answer)
            };
            match fast {
                Fast::Respond { len, outcome } => {
                    tally.count(outcome);
                    batch.reply(index, len);
                }
                Fast::Drop(outcome) => tally.count(outcome),
                Fast::Slow { proven } => self.hand_over(batch, index, proven, now, tally),
            }
        }
        drop(snapshot);
        let failed = batch.send();
        if failed > 0 {
            self.metrics.dns.send_failures.inc_by(failed as u64);
        }
    }

    /// Gives a query to the slow path. A network over its share gets nothing, since its addresses may well be
    /// forged; when all is full the client hears so at once and can ask elsewhere.
    fn hand_over(
        &self,
        batch: &mut Batch,
        index: usize,
        proven: bool,
        now: Now,
        tally: &mut Tally,
    ) {
        let peer = batch.peer(index);
        let message = batch.message(index);
        match self.slow.admit(message.client, Transport::Udp, proven, now) {
            Ok(permit) => self.slow.resolve_datagram(
                permit,
                message.packet.into(),
                message.client,
                peer,
                Arc::clone(&self.outbox),
            ),
            Err(Limit::QueriesInFlight) => {
                if let Fast::Respond { len, outcome } =
                    error(message.packet, Rcode::ServFail, message.answer)
                {
                    tally.count(outcome);
                    batch.reply(index, len);
                }
            }
            Err(_) => tally.count(Outcome::Dropped),
        }
    }
}

/// Packets per system call, at most.
const BATCH: usize = AT_ONCE;

/// An idle worker turns its loop this often: it sees the stop and feeds the watchdog.
const WAIT: Duration = Duration::from_millis(500);

/// Failed receives in a row that end the worker, and the pause after each: the kernel may be short of memory.
const FAILURES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// Batches still answered after the stop, at most.
const LAST_BATCHES: u32 = 64;
