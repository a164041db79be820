//! Recursion's hold on the world: the clock, the kernel's dice, and the exchange that forwarding uses, too.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustix::rand::{GetRandomFlags, getrandom};

use super::super::budget::Budget;
use super::super::forward::{Avoid, Unanswered, Upstreams};
use super::super::key::Parts;
use super::super::partition::Partition;
use super::super::reply::Invalid;
use super::super::upstream::{ExchangeError, Exchanger, Question, health};
use super::judge;
use super::net::{Net, Outlook, Silence};
use super::response::Response;
use crate::time::Now;

/// Name servers, on one port.
#[derive(Debug)]
pub(in super::super) struct Driver {
    exchanger: Arc<Exchanger>,
    port: u16,
    /// By partition.
    upstreams: Arc<[Upstreams]>,
}

impl Driver {
    pub(in super::super) fn new(
        exchanger: Arc<Exchanger>,
        port: u16,
        upstreams: Arc<[Upstreams]>,
    ) -> Self {
        Self {
            exchanger,
            port,
            upstreams,
        }
    }
}

impl Net for Driver {
    fn now(&self) -> Now {
        Now::read()
    }

    fn dice(&self) -> u64 {
        let mut bytes = [0; 8];
        // It only spreads load; ids and ports are drawn elsewhere.
        let _ = getrandom(&mut bytes, GetRandomFlags::empty());
        u64::from_ne_bytes(bytes)
    }

    fn outlook(&self, server: IpAddr, now: Now) -> Outlook {
        let health = self
            .exchanger
            .server(SocketAddr::new(server, self.port))
            .health();
        if health.is_dead() && health::due(&[health], now).is_none() {
            Outlook::Rests
        } else {
            Outlook::Ask(health.patience())
        }
    }

    async fn ask(
        &self,
        server: IpAddr,
        zone: &[u8],
        (name, qtype): (&[u8], u16),
        budget: &Budget,
        until: Now,
    ) -> Result<Vec<u8>, Silence> {
        let server = self.exchanger.server(SocketAddr::new(server, self.port));
        if server.health().is_dead() {
            // One query finds out whether it lives; others need not wait for it.
            server.put_off(Now::read());
        }
        let question = Question {
            name,
            qtype,
            zone,
            recursion_desired: false,
            checking_disabled: true,
            dnssec_ok: true,
        };
        self.exchanger
            .exchange(&server, &question, budget, until)
            .await
            .map_err(|error| match error {
                ExchangeError::Exhausted(_) => Silence::Spent,
                ExchangeError::Busy => Silence::Busy,
                // Its time was up, perhaps not that of the client query.
                ExchangeError::TimeUp
                | ExchangeError::Silent
                | ExchangeError::Unreachable(_)
                | ExchangeError::Insecure(_) => Silence::Silent,
                ExchangeError::Broken | ExchangeError::Unfit(_) => Silence::Broken,
            })
    }

    async fn forward(
        &self,
        partition: Partition,
        (name, qtype): (&[u8], u16),
        avoid: Avoid,
        budget: &Budget,
    ) -> Result<(Response, u8), Unanswered> {
        let upstreams = self.upstreams.get(usize::from(partition.0));
        let upstreams = upstreams.ok_or(Unanswered::Nobody)?;
        let question = Parts {
            name,
            qtype,
            dnssec_ok: true,
            checking_disabled: true,
            partition,
        };
        let read = |message: &[u8]| {
            let response = Response::read(message, name, qtype).ok_or(Invalid::Malformed)?;
            match response.rcode {
                judge::NOERROR | judge::NXDOMAIN => Ok(response),
                rcode => Err(Invalid::Rcode(rcode)),
            }
        };
        upstreams
            .fetch_avoiding(&self.exchanger, question, avoid, budget, read)
            .await
    }

    async fn wait<T: Send>(&self, coming: impl Future<Output = T> + Send, until: Now) -> Option<T> {
        let patience = until.since(Now::read());
        tokio::time::timeout(patience, coming).await.ok()
    }
}
