//! Recursion's hold on the world: the clock, the kernel's dice, and the exchange that forwarding uses, too.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustix::rand::{GetRandomFlags, getrandom};

use super::super::budget::Budget;
use super::super::upstream::{ExchangeError, Exchanger, Question, health};
use super::net::{Net, Outlook, Silence};
use crate::time::Now;

/// Name servers, on one port.
#[derive(Debug)]
pub(in super::super) struct Driver {
    exchanger: Arc<Exchanger>,
    port: u16,
}

impl Driver {
    pub(in super::super) fn new(exchanger: Arc<Exchanger>, port: u16) -> Self {
        Self { exchanger, port }
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
                | ExchangeError::Broken
                | ExchangeError::Insecure(_)
                | ExchangeError::Unfit(_) => Silence::Silent,
            })
    }
    async fn wait<T: Send>(&self, coming: impl Future<Output = T> + Send, until: Now) -> Option<T> {
        let patience = until.since(Now::read());
        tokio::time::timeout(patience, coming).await.ok()
    }
}
