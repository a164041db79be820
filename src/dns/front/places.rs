//! Connections counted: in all, and per address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::dns::Config;
use crate::metrics::Metrics;
use crate::metrics::dns::Limit;

/// The connections of all streams, encrypted or not.
#[derive(Debug)]
pub(super) struct Places {
    total: usize,
    per_address: usize,
    idle: Duration,
    open: AtomicUsize,
    addresses: Mutex<HashMap<IpAddr, usize, foldhash::fast::RandomState>>,
    metrics: Arc<Metrics>,
}

/// One connection counted against the limits; made free when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    pub(super) address: IpAddr,
}

impl Places {
    pub(super) fn new(config: &Config, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            total: config.tcp_connections,
            per_address: config.tcp_connections_per_address,
            idle: config.tcp_idle,
            open: AtomicUsize::new(0),
            addresses: Mutex::default(),
            metrics,
        })
    }

    /// A place for a connection from `address`, unless a limit is reached (and counted).
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        self.metrics.dns.tcp_accepted.inc();
        let reached = {
            let mut addresses = self.lock();
            let of_address = addresses.get(&address).copied().unwrap_or(0);
            if self.open.load(Relaxed) >= self.total {
                Some(Limit::TcpConnections)
            } else if of_address >= self.per_address {
                Some(Limit::TcpConnectionsPerAddress)
            } else {
                addresses.insert(address, of_address + 1);
                self.open.fetch_add(1, Relaxed);
                None
            }
        };
        if let Some(limit) = reached {
            self.metrics.dns.limit(limit);
            return None;
        }
        self.metrics.dns.tcp_connections.inc();
        Some(Place {
            places: Arc::clone(self),
            address,
        })
    }

    /// Whether more than half are taken, in all or by this address.
    pub(super) fn are_half_taken(&self, address: IpAddr) -> bool {
        let of_address = self.lock().get(&address).copied().unwrap_or(0);
        self.open.load(Relaxed) * 2 > self.total || of_address * 2 > self.per_address
    }

    /// Whether more than four fifths are taken.
    fn are_scarce(&self) -> bool {
        self.open.load(Relaxed) * 5 > self.total * 4
    }

    fn idle(&self) -> Duration {
        if self.are_scarce() {
            self.idle.min(IDLE_CROWDED)
        } else {
            self.idle
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize, foldhash::fast::RandomState>> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// How long the connection may be idle now.
    pub(super) fn idle(&self) -> Duration {
        self.places.idle()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut addresses = self.places.lock();
        if let Some(of_address) = addresses.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                addresses.remove(&self.address);
            }
        }
        self.places.open.fetch_sub(1, Relaxed);
        self.places.metrics.dns.tcp_connections.dec();
    }
}

/// Idle time of a connection when more than 80 % of all are in use.
pub(super) const IDLE_CROWDED: Duration = Duration::from_secs(2);
