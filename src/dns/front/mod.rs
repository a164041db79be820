//! The DNS front: own UDP threads (one socket per core, batches) and own pipelined TCP.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Config;
use super::engine::Engine;
use crate::metrics::Metrics;

/// Sockets that are bound and not served yet.
#[derive(Debug)]
pub struct Front {}

/// Sockets handed over by systemd, to be used in place of binding the same addresses.
#[derive(Debug, Default)]
pub struct Inherited {
    /// UDP sockets.
    pub udp: Vec<std::net::UdpSocket>,
    /// TCP listeners.
    pub tcp: Vec<std::net::TcpListener>,
}

/// The pulse of the UDP workers: an idle worker turns its loop at least twice a second.
#[derive(Clone, Debug)]
pub struct Heartbeat {}

impl Heartbeat {
    /// The worker silent for longest, and for how long; `None`: no workers.
    #[must_use]
    pub fn silence(&self, now: crate::time::Now) -> Option<(&str, std::time::Duration)> {
        let _ = now;
        None
    }
}

impl Front {
    /// Binds UDP (one socket per worker) and TCP on every address of `config.listen`. Port 0 gives UDP and TCP
    /// of one address the same free port.
    ///
    /// # Errors
    /// The address and what the kernel said.
    pub fn bind(
        config: Config,
        inherited: Inherited,
        metrics: Arc<Metrics>,
    ) -> Result<Self, anyhow::Error> {
        let _ = (config, inherited, metrics);
        Ok(Self {})
    }

    /// Where it listens, ports resolved.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        Vec::new()
    }

    /// How long each UDP worker has not turned its loop; for the watchdog, valid before and while `run` runs.
    #[must_use]
    pub fn heartbeat(&self) -> Heartbeat {
        Heartbeat {}
    }

    /// Serves until `stop`, then finishes what is in flight (bounded by the caller's deadline). UDP threads are
    /// plain threads; TCP and the slow path run on the tokio runtime this is awaited on (the DNS runtime).
    ///
    /// # Errors
    /// A worker that ended early, by name.
    pub async fn run(
        self,
        engine: Arc<Engine>,
        stop: CancellationToken,
    ) -> Result<(), anyhow::Error> {
        let _ = (engine, stop);
        unimplemented!()
    }
}
