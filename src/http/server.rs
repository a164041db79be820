//! Listeners, connections and their limits.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Config;
use crate::content::library::Library;
use crate::metrics::Metrics;

/// Bound and not served yet.
#[derive(Debug)]
pub struct Server {}

impl Server {
    /// Binds every address of `config.listen` (using `inherited` sockets for the same addresses).
    ///
    /// # Errors
    /// The address and what the kernel said.
    pub fn bind(
        config: Config,
        inherited: Vec<TcpListener>,
        library: Library,
        metrics: Arc<Metrics>,
    ) -> Result<Self, anyhow::Error> {
        let _ = (config, inherited, library, metrics);
        Ok(Self {})
    }

    /// Where it listens, ports resolved.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        Vec::new()
    }

    /// Serves until `stop`, then lets open requests end (the caller's deadline bounds it).
    ///
    /// # Errors
    /// What ended it early.
    pub async fn run(self, stop: CancellationToken) -> Result<(), anyhow::Error> {
        let _ = stop;
        unimplemented!()
    }
}
