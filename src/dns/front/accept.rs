//! Accepting connections of a listener, each with its place.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::places::{Place, Places};
use crate::metrics::Metrics;

/// What every listener of connections needs.
#[derive(Clone, Debug)]
pub(super) struct Reception {
    pub(super) places: Arc<Places>,
    pub(super) metrics: Arc<Metrics>,
    /// The connections' tasks; they end after `stop`, too.
    pub(super) tracker: TaskTracker,
    pub(super) stop: CancellationToken,
}

impl Reception {
    /// Accepts until the stop; `serve` makes the task of a connection.
    pub(super) async fn accept<F>(
        self,
        listener: TcpListener,
        serve: impl Fn(TcpStream, Place) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut pause = Duration::ZERO;
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, client)) => {
                    if !pause.is_zero() {
                        tracing::info!("accepting TCP connections again");
                        pause = Duration::ZERO;
                    }
                    if let Some(place) = self.places.take(client.ip().to_canonical()) {
                        // Answers are gathered already; Nagle's algorithm would only hold the last one back.
                        let _ = stream.set_nodelay(true);
                        self.tracker.spawn(serve(stream, place));
                    }
                }
                // The client went away before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.metrics.dns.accept_failures.inc();
                    if pause.is_zero() {
                        tracing::error!(%error, "cannot accept TCP connections, trying on");
                    }
                    pause = (pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
                    tokio::select! {
                        () = self.stop.cancelled() => return,
                        () = sleep(pause) => {}
                    }
                }
            }
        }
    }
}

/// Pauses after a failed accept.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
