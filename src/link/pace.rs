//! Replication held back for viewers, and viewers for each other: a [`Budget`] for each direction of the link, asked before each part of a chunk.
//!
//! The HTTP server and the mirrors of a node share one [`Pace`]. Whoever moves bytes for viewers adds to a counter and
//! goes on; whoever moves them for replication waits for its turn, in the order of asking, and in it for the budget. So
//! viewers pay nothing, and nodes that replicate from here get equal parts. What viewers have is shared among [`Clients`].

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::IntCounter;
use tokio::sync::Semaphore;

use super::budget::{Budget, WIRE};
use super::clients::{Client, Clients};
use crate::metrics::Metrics;
use crate::metrics::link::{Background, Direction};
use crate::time::Now;

/// Both directions of a node's link.
#[derive(Debug)]
pub struct Pace {
    /// What is sent.
    pub transmit: Lane,
    /// What is received.
    pub receive: Lane,
    clients: Arc<Clients>,
}

/// One direction.
#[derive(Debug)]
pub struct Lane {
    /// Bytes moved for viewers over HTTP so far.
    viewed: AtomicU64,
    /// What else is moved for them is counted already.
    others: Vec<IntCounter>,
    budget: Mutex<Budget>,
    turn: Semaphore,
    metrics: Background,
}

impl Pace {
    /// For a link of `capacity` bytes per second in each direction, of which replication has `share` (0 to 1) when viewers
    /// want all of it.
    #[must_use]
    pub fn new(capacity: u64, share: f64, metrics: &Metrics) -> Arc<Self> {
        let lane = |direction, others: &[&IntCounter]| Lane {
            viewed: AtomicU64::new(0),
            others: others.iter().copied().cloned().collect(),
            budget: Mutex::new(Budget::new(capacity, share)),
            turn: Semaphore::new(1),
            metrics: metrics.link.background(direction),
        };
        let pace = Self {
            transmit: lane(
                Direction::Transmit,
                &[&metrics.ftp.sent, &metrics.http.torrent_sent],
            ),
            receive: lane(
                Direction::Receive,
                &[&metrics.ftp.received, &metrics.proxy.received],
            ),
            clients: Clients::new(metrics.link.sharing()),
        };
        pace.look(capacity, Now::read());
        Arc::new(pace)
    }

    /// Takes a reading, and shows it; the link carries `capacity` bytes per second from now on.
    pub fn look(&self, capacity: u64, now: Now) {
        for lane in [&self.transmit, &self.receive] {
            let mut budget = lane.budget();
            budget.set_capacity(capacity);
            budget.observe(now, lane.moved_for_viewers());
            lane.show(&budget);
        }
    }

    /// The client at `address`, of whom what is sent counts.
    #[must_use]
    pub fn client(&self, address: IpAddr) -> Arc<Client> {
        self.clients.client(address)
    }

    /// Shares what viewers have of the link among them.
    pub fn share(&self, now: Now) {
        let lane = &self.transmit;
        let capacity = lane.budget().capacity() / WIRE;
        let moved = lane.metrics.moved.get();
        let viewed = lane.moved_for_viewers();
        self.clients.share(capacity, viewed, moved, now);
    }
}

impl Lane {
    /// Viewers moved `bytes`.
    pub fn viewed(&self, bytes: u64) {
        self.viewed.fetch_add(bytes, Relaxed);
    }

    fn moved_for_viewers(&self) -> u64 {
        let others: u64 = self.others.iter().map(IntCounter::get).sum();
        self.viewed.load(Relaxed) + others
    }

    /// Bytes of the next part at most.
    #[must_use]
    pub fn part(&self) -> u64 {
        self.budget().part()
    }

    /// Waits until replication may move `bytes`, or until `urgent` says that a viewer waits for them: then they are a
    /// viewer's. Cancel-safe: who does not wait to the end takes nothing.
    pub async fn pass(&self, bytes: u64, urgent: impl Fn() -> bool) {
        if urgent() {
            self.viewed(bytes);
            return;
        }
        // Closed by nobody.
        let _turn = self.turn.acquire().await;
        let mut delayed = false;
        loop {
            if urgent() {
                self.viewed(bytes);
                return;
            }
            let taken = {
                let mut budget = self.budget();
                let taken = budget.take(Now::read(), self.moved_for_viewers(), bytes);
                self.show(&budget);
                taken
            };
            match taken {
                Ok(()) => {
                    self.metrics.moved.inc_by(bytes);
                    return;
                }
                Err(wait) => {
                    if !std::mem::replace(&mut delayed, true) {
                        self.metrics.delayed.inc_by(bytes);
                    }
                    tokio::time::sleep(wait.min(LOOK)).await;
                }
            }
        }
    }

    fn show(&self, budget: &Budget) {
        self.metrics.allowance.set(budget.allowance() as i64);
        self.metrics.demand.set(budget.demand() as i64);
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever waits looks at what viewers do so often.
const LOOK: Duration = Duration::from_millis(10);
