//! The slow path: how many queries may wait for an upstream, and the tasks that wait.
//!
//! UDP workers and TCP connections ask for a [`Permit`]; without one the query is not resolved. A task
//! holds its permit to its end, so the bounds cover everything that is under way.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use super::mmsg::Peer;
use super::outbox::Outbox;
use crate::dns::engine::Engine;
use crate::dns::{Config, Outcome, Transport};
use crate::metrics::Metrics;
use crate::metrics::dns::Limit;
use crate::net::client_network;
use crate::time::Now;

/// The slow path of all workers and connections.
#[derive(Debug)]
pub(super) struct Slow {
    engine: Arc<Engine>,
    metrics: Arc<Metrics>,
    runtime: Handle,
    tracker: TaskTracker,
    in_flight: Mutex<InFlight>,
    total_max: usize,
    network_max: usize,
    proven_network_max: usize,
    late: Duration,
}

/// Queries under way. A network is in the map only while it has some, so the map is bounded by the total.
#[derive(Debug, Default)]
struct InFlight {
    total: usize,
    networks: HashMap<IpAddr, usize, foldhash::fast::RandomState>,
}

/// The right to be resolved. Dropped, it makes room and counts the query, as dropped if nothing else was said.
#[derive(Debug)]
pub(super) struct Permit {
    slow: Arc<Slow>,
    network: IpAddr,
    transport: Transport,
    received: Now,
    outcome: Outcome,
}

impl Slow {
    /// The slow path of `engine` on `runtime`; its tasks are tracked by `tracker`.
    pub(super) fn new(
        config: &Config,
        engine: Arc<Engine>,
        metrics: Arc<Metrics>,
        runtime: Handle,
        tracker: TaskTracker,
    ) -> Arc<Self> {
        Arc::new(Self {
            engine,
            metrics,
            runtime,
            tracker,
            in_flight: Mutex::default(),
            total_max: config.queries_in_flight,
            network_max: config.queries_in_flight_per_network,
            proven_network_max: config.queries_in_flight_per_proven_network,
            late: config.udp_late,
        })
    }

    /// A permit for a query of `client`; one that is `proven` to be at its address may have more at once.
    ///
    /// # Errors
    /// The limit that was reached; it has been counted.
    pub(super) fn admit(
        self: &Arc<Self>,
        client: IpAddr,
        transport: Transport,
        proven: bool,
        received: Now,
    ) -> Result<Permit, Limit> {
        let network_max = if proven {
            self.proven_network_max
        } else {
            self.network_max
        };
        let network = client_network(client);
        let reached = {
            let mut in_flight = self.lock();
            if in_flight.total >= self.total_max {
                Some(Limit::QueriesInFlight)
            } else {
                let of_network = in_flight.networks.get(&network).copied().unwrap_or(0);
                if of_network >= network_max {
                    Some(Limit::QueriesInFlightPerNetwork)
                } else {
                    in_flight.networks.insert(network, of_network + 1);
                    in_flight.total += 1;
                    None
                }
            }
        };
        if let Some(limit) = reached {
            self.metrics.dns.limit(limit);
            return Err(limit);
        }
        self.metrics.dns.in_flight.inc();
        Ok(Permit {
            slow: Arc::clone(self),
            network,
            transport,
            received,
            outcome: Outcome::Dropped,
        })
    }

    /// Resolves a query that came as a datagram, and sends the answer by `outbox`.
    pub(super) fn resolve_datagram(
        &self,
        permit: Permit,
        packet: Box<[u8]>,
        client: IpAddr,
        peer: Peer,
        outbox: Arc<Outbox>,
    ) {
        self.spawn(async move {
            let slow = Arc::clone(&permit.slow);
            let mut out = Vec::new();
            let outcome = slow
                .engine
                .slow(&packet, client, Transport::Udp, &mut out)
                .await;
            if Now::read().since(permit.received) > slow.late && slow.crowded(permit.network) {
                slow.metrics.dns.limit(Limit::UdpLate);
                return;
            }
            if out.is_empty() {
                return;
            }
            permit.end(outcome);
            let failed = outbox.send(peer, out).await;
            if failed > 0 {
                slow.metrics.dns.send_failures.inc_by(failed as u64);
            }
        });
    }

    /// Resolves a query that came over a stream; `deliver` gets the answer, empty if there is none.
    pub(super) fn resolve_message<D, F>(
        &self,
        permit: Permit,
        packet: Box<[u8]>,
        client: IpAddr,
        deliver: D,
    ) where
        D: FnOnce(Vec<u8>) -> F + Send + 'static,
        F: Future<Output = ()> + Send,
    {
        self.spawn(async move {
            let slow = Arc::clone(&permit.slow);
            let mut out = Vec::new();
            let outcome = slow
                .engine
                .slow(&packet, client, permit.transport, &mut out)
                .await;
            permit.end(outcome);
            deliver(out).await;
        });
    }

    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
        // The task is not waited for one by one: the tracker knows when all are done.
        drop(self.tracker.spawn_on(task, &self.runtime));
    }

    /// Whether a network uses more than half of what it may.
    fn crowded(&self, network: IpAddr) -> bool {
        let of_network = self.lock().networks.get(&network).copied().unwrap_or(0);
        of_network > self.network_max / 2
    }

    fn lock(&self) -> MutexGuard<'_, InFlight> {
        self.in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// The query has ended so.
    fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        {
            let mut in_flight = self.slow.lock();
            in_flight.total -= 1;
            if let Some(of_network) = in_flight.networks.get_mut(&self.network) {
                *of_network -= 1;
                if *of_network == 0 {
                    in_flight.networks.remove(&self.network);
                }
            }
        }
        let dns = &self.slow.metrics.dns;
        dns.in_flight.dec();
        dns.record(
            self.transport,
            self.outcome,
            Now::read().since(self.received),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::keeper::Keeper;

    fn slow(total: usize, network: usize) -> (Arc<Slow>, Arc<Metrics>, tokio::runtime::Runtime) {
        let metrics = Arc::new(Metrics::new());
        let config = Config {
            queries_in_flight: total,
            queries_in_flight_per_network: network,
            queries_in_flight_per_proven_network: network + 1,
            ..super::super::tests::config()
        };
        let keeper = Arc::new(Keeper::new(vec![], Arc::clone(&metrics)));
        let engine = Arc::new(Engine::new(&config, keeper, None, Arc::clone(&metrics)));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let slow = Slow::new(
            &config,
            engine,
            Arc::clone(&metrics),
            runtime.handle().clone(),
            TaskTracker::new(),
        );
        (slow, metrics, runtime)
    }

    fn admit(slow: &Arc<Slow>, client: &str) -> Result<Permit, Limit> {
        slow.admit(client.parse().unwrap(), Transport::Udp, false, Now::read())
    }

    #[test]
    fn network_over_its_share_is_refused_until_one_is_done() {
        let (slow, metrics, _runtime) = slow(10, 2);
        let first = admit(&slow, "192.0.2.1").unwrap();
        let _second = admit(&slow, "192.0.2.99").unwrap();
        assert_eq!(
            admit(&slow, "192.0.2.7").unwrap_err(),
            Limit::QueriesInFlightPerNetwork
        );
        let address = "192.0.2.7".parse().unwrap();
        let proven = || slow.admit(address, Transport::Udp, true, Now::read());
        let with_a_cookie = proven().unwrap();
        assert_eq!(proven().unwrap_err(), Limit::QueriesInFlightPerNetwork);
        drop(with_a_cookie);
        let _other = admit(&slow, "198.51.100.1").unwrap();
        drop(first);
        let _third = admit(&slow, "192.0.2.7").unwrap();
        assert_eq!(metrics.dns.limit_count(Limit::QueriesInFlightPerNetwork), 2);
        assert_eq!(metrics.dns.in_flight.get(), 3);
    }

    #[test]
    fn total_reached_is_refused_for_all_and_leaves_no_network_behind() {
        let (slow, metrics, _runtime) = slow(1, 1);
        let only = admit(&slow, "192.0.2.1").unwrap();
        assert_eq!(
            admit(&slow, "198.51.100.1").unwrap_err(),
            Limit::QueriesInFlight
        );
        drop(only);
        assert!(slow.lock().networks.is_empty());
        assert_eq!(slow.lock().total, 0);
        assert_eq!(metrics.dns.query_count(Transport::Udp, Outcome::Dropped), 1);
    }
}
