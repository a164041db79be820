//! Who reads from this node, by address: what each moved, and how long one with more than its share of a full link waits.
//!
//! Readers pay an atomic addition for each write, and nothing else while the link has room. Once it is nearly full, [`fair`] says
//! ten times a second how much each may have. HTTP asks before each write to a socket (`http/line.rs`), all else sends by [`Client::send`].

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

use super::fair::{self, Part};
use crate::metrics::link::Sharing;
use crate::time::Now;

/// All that read from this node now.
#[derive(Debug)]
pub struct Clients {
    /// Bytes per second that each may have; [`ALL`]: what it will.
    level: AtomicU64,
    seen: Mutex<Seen>,
    metrics: Sharing,
}

#[derive(Debug, Default)]
struct Seen {
    by_address: HashMap<IpAddr, Weak<Client>>,
    /// The last turn, and what all clients, and replication, had moved until then.
    last: Option<(Now, u64, u64)>,
}

/// One of them.
#[derive(Debug)]
pub struct Client {
    address: IpAddr,
    moved: AtomicU64,
    part: Mutex<Part>,
    clients: Arc<Clients>,
}

impl Clients {
    pub(super) fn new(metrics: Sharing) -> Arc<Self> {
        Arc::new(Self {
            level: AtomicU64::new(ALL),
            seen: Mutex::default(),
            metrics,
        })
    }

    /// The client at `address`; as long as somebody holds it, it is the same one.
    #[must_use]
    pub fn client(self: &Arc<Self>, address: IpAddr) -> Arc<Client> {
        let mut seen = self.seen();
        let entry = seen.by_address.entry(address).or_default();
        entry.upgrade().unwrap_or_else(|| {
            let client = Arc::new(Client {
                address,
                moved: AtomicU64::new(0),
                part: Mutex::new(Part::new(Now::coarse())),
                clients: Arc::clone(self),
            });
            *entry = Arc::downgrade(&client);
            self.metrics.clients.inc();
            client
        })
    }

    /// Shares out a link that carries `capacity` bytes per second. So far all clients moved `viewed` bytes over it, and replication
    /// `background`.
    pub(super) fn share(&self, capacity: f64, viewed: u64, background: u64, now: Now) {
        let mut seen = self.seen();
        let last = seen.last.replace((now, viewed, background));
        let Some((then, last_viewed, last_background)) = last else {
            return;
        };
        let passed = now.since(then).as_secs_f64().max(1e-9);
        let rate = |bytes: u64, before: u64| bytes.saturating_sub(before) as f64 / passed;
        let room = (capacity - rate(background, last_background)).max(1.0);
        let viewed = rate(viewed, last_viewed);
        let level = self.level();
        if level.is_none() && viewed < NEARLY / 2.0 * room {
            return; // There is nothing to share, and there may be many clients to look at.
        }
        // To be dropped when the lock is free again: a client's end takes it.
        let clients: Vec<Arc<Client>> =
            seen.by_address.values().filter_map(Weak::upgrade).collect();
        drop(seen);
        let mut wants: Vec<f64> = clients
            .iter()
            .map(|client| {
                let moved = client.moved.load(Relaxed);
                client.part().observe(moved, now, level)
            })
            .collect();
        // Who waits shows that there would be more.
        let full = viewed >= NEARLY * room || wants.contains(&f64::INFINITY);
        let level = (full && clients.len() > 1).then(|| fair::level(room, &mut wants));
        let level = level
            .flatten()
            .map_or(ALL, |level| (level as u64).max(LEAST));
        self.level.store(level, Relaxed);
        let shown = if level == ALL { 0 } else { level };
        self.metrics
            .level
            .set(i64::try_from(shown).unwrap_or(i64::MAX));
    }

    /// Bytes per second that each may have; `None`: what it will.
    fn level(&self) -> Option<f64> {
        let level = self.level.load(Relaxed);
        (level != ALL).then_some(level as f64)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// It moved `bytes`.
    pub fn took(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Relaxed);
        if self.clients.level().is_some() {
            self.part().took(bytes);
        }
    }

    /// Bytes it may move now, or how long it is to wait before it does.
    ///
    /// # Errors
    /// The time after which it is worth asking again.
    pub fn may(&self) -> Result<usize, Duration> {
        let Some(level) = self.clients.level() else {
            return Ok(usize::MAX);
        };
        let wait = self.part().wait(Now::read(), level);
        if wait.is_zero() {
            // So little that all its connections have their turn.
            Ok((level as usize / 50).clamp(WRITE_MIN, WRITE_MAX))
        } else {
            Err(wait)
        }
    }

    /// Writes `bytes` as its share allows.
    ///
    /// # Errors
    /// What `output` said, or that it took nothing for `patience`; the wait for the share is not counted.
    pub async fn send<W>(
        &self,
        output: &mut W,
        mut bytes: &[u8],
        patience: Duration,
    ) -> io::Result<()>
    where
        W: AsyncWrite + Unpin + ?Sized,
    {
        while !bytes.is_empty() {
            let most = match self.may() {
                Ok(most) => most,
                Err(wait) => {
                    self.delayed();
                    sleep(wait).await;
                    continue;
                }
            };
            let part = &bytes[..bytes.len().min(most)];
            timeout(patience, output.write_all(part)).await??;
            self.took(part.len() as u64);
            bytes = &bytes[part.len()..];
        }
        Ok(())
    }

    /// A write was put off.
    pub fn delayed(&self) {
        self.clients.metrics.delayed.inc();
    }

    fn part(&self) -> MutexGuard<'_, Part> {
        self.part.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut seen = self.clients.seen();
        // Another may have taken its place already.
        if let Some(known) = seen.by_address.get(&self.address)
            && known.strong_count() == 0
        {
            seen.by_address.remove(&self.address);
        }
        self.clients.metrics.clients.dec();
    }
}

/// No bound.
const ALL: u64 = u64::MAX;

/// A level below this would be no service at all.
const LEAST: u64 = 4 << 10;

/// Bytes of one write while the link is shared out: about what one may have in 20 ms.
const WRITE_MIN: usize = 4 << 10;
const WRITE_MAX: usize = 256 << 10;

/// The link is taken for full from this part of its capacity on.
const NEARLY: f64 = 0.9;
