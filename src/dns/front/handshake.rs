//! TLS handshakes, each within a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::metrics::Metrics;
use crate::metrics::dns::Limit;

/// How one listener shakes hands.
pub(super) struct Handshake {
    acceptor: TlsAcceptor,
    time: Duration,
    metrics: Arc<Metrics>,
}

impl Handshake {
    pub(super) fn new(config: rustls::ServerConfig, time: Duration, metrics: Arc<Metrics>) -> Self {
        Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            time,
            metrics,
        }
    }

    /// The stream within TLS; `None` if it came to nothing, which is counted.
    pub(super) async fn shake(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        match timeout(self.time, self.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                self.metrics.dns.handshake_failures.inc();
                tracing::debug!(%error, "TLS handshake failed");
                None
            }
            Err(_) => {
                self.metrics.dns.limit(Limit::TlsHandshake);
                None
            }
        }
    }
}
