//! The DNS front: own UDP threads (one socket per core, batches), own pipelined TCP and TLS, HTTPS and QUIC.
//!
//! From ground to roof: `mmsg` (system calls), `outbox` (late answers), `sockets` (bind, or take over from systemd), `places` (connections
//! counted), `slow` (queries that wait for an upstream), `scratch` (buffers), `stream` and `handshake` (TLS), `accept`,
//! `single` (one message, one answer), `udp`, `tcp`, `https` and `quic` (the loops), and [`Front`] over all.
//! Sockets are bound early, by [`Front::bind`]; serving starts with [`Front::run`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use self::accept::Reception;
use self::handshake::Handshake;
use self::outbox::Outbox;
use self::places::Places;
use self::scratch::Pool;
use self::single::Single;
use self::slow::Slow;
use super::engine::Engine;
use super::wire::UDP_PLAIN;
use super::{Config, Transport};
use crate::metrics::Metrics;
use crate::time::Now;
use crate::tls::Certificates;

mod mmsg;
mod outbox;

mod sockets;

mod places;

mod slow;

mod scratch;

mod stream;

mod handshake;

mod accept;

mod single;

mod udp;

mod tcp;

mod https;

mod quic;

pub use self::sockets::Inherited;

/// Sockets that are bound and not served yet.
#[derive(Debug)]
pub struct Front {
    config: Config,
    metrics: Arc<Metrics>,
    sockets: Vec<sockets::Bound>,
    encrypted: sockets::Encrypted,
    certificates: Arc<Certificates>,
    heartbeat: Heartbeat,
}

/// The pulse of the UDP workers: an idle worker turns its loop at least twice a second.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    beats: Arc<[Arc<Beat>]>,
}

/// The pulse of one worker.
#[derive(Debug)]
struct Beat {
    name: String,
    mono_ns: AtomicU64,
}

impl Front {
    /// Binds UDP (one socket per worker) and TCP on every address of `config.listen`, except where `inherited`
    /// has a socket of that address. Port 0 gives UDP and TCP of one address the same free port. Binds the encrypted
    /// listeners, too, whose handshakes show what `certificates` has at the time.
    ///
    /// # Errors
    /// The address and what the kernel said.
    pub fn bind(
        config: Config,
        certificates: Arc<Certificates>,
        inherited: Inherited,
        metrics: Arc<Metrics>,
    ) -> Result<Self, anyhow::Error> {
        let sockets = sockets::bind(&config, inherited)?;
        let encrypted = sockets::bind_encrypted(&config)?;
        let now = Now::read();
        let beats = sockets.iter().flat_map(|bound| {
            (0..bound.udp.len()).map(|i| {
                Arc::new(Beat {
                    name: format!("dns-udp-{i} {}", bound.address),
                    mono_ns: AtomicU64::new(now.mono_ns),
                })
            })
        });
        Ok(Self {
            heartbeat: Heartbeat {
                beats: beats.collect(),
            },
            config,
            metrics,
            sockets,
            encrypted,
            certificates,
        })
    }

    /// Where it listens in the clear, ports resolved.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|bound| bound.address).collect()
    }

    /// Where it listens with encryption, ports resolved.
    #[must_use]
    pub fn encrypted_addrs(&self) -> Vec<(Transport, SocketAddr)> {
        self.encrypted.addresses()
    }

    /// How long each UDP worker has not turned its loop; for the watchdog, valid before and while `run` runs.
    #[must_use]
    pub fn heartbeat(&self) -> Heartbeat {
        self.heartbeat.clone()
    }

    /// Serves until `stop`, then finishes what is in flight (bounded by the caller's deadline). UDP threads are
    /// plain threads; connections and the slow path run on the tokio runtime this is awaited on (the DNS runtime).
    /// If the future is dropped, everything stops at once.
    ///
    /// # Errors
    /// A worker that ended early, by name; the others are stopped then.
    pub async fn run(
        mut self,
        engine: Arc<Engine>,
        stop: CancellationToken,
    ) -> Result<(), anyhow::Error> {
        let tracker = TaskTracker::new();
        let slow = Slow::new(
            &self.config,
            Arc::clone(&engine),
            Arc::clone(&self.metrics),
            Handle::current(),
            tracker.clone(),
        );
        let stopping = Stopping::new();
        let reception = Reception {
            places: Places::new(&self.config, Arc::clone(&self.metrics)),
            metrics: Arc::clone(&self.metrics),
            tracker: tracker.clone(),
            stop: stopping.token.clone(),
        };
        // Threads that keep copies of cached answers.
        let copies = self.heartbeat.beats.len() + Handle::current().metrics().num_workers();
        let mut parts = Parts::new();
        let single = Single {
            engine: Arc::clone(&engine),
            slow: Arc::clone(&slow),
            scratch: Arc::new(Pool::new(Arc::clone(&engine), copies)),
            metrics: Arc::clone(&self.metrics),
        };
        self.serve_streams(&single, &reception, &parts)?;
        let mut beats = self.heartbeat.beats.iter();
        for bound in self.sockets {
            for socket in bound.udp {
                let beat = Arc::clone(beats.next().expect("one beat per UDP socket"));
                let socket = Arc::new(socket);
                let segments = self.config.udp_segments;
                parts.push(start(udp::Worker {
                    outbox: Arc::new(Outbox::new(Arc::clone(&socket), segments)),
                    socket,
                    engine: Arc::clone(&engine),
                    slow: Arc::clone(&slow),
                    metrics: Arc::clone(&self.metrics),
                    beat,
                    stop: Arc::clone(&stopping.flag),
                    payload: usize::from(self.config.udp_payload.max(UDP_PLAIN)),
                    segments,
                    workers: copies,
                })?);
            }
        }
        let mut first_failure = tokio::select! {
            () = stop.cancelled() => None,
            Some(ended) = parts.next() => Some(ended.and_then(|()| {
                Err(anyhow::anyhow!("a DNS worker ended without being asked to"))
            })),
        };
        stopping.stop();
        while let Some(ended) = parts.next().await {
            if ended.is_err() && first_failure.is_none() {
                first_failure = Some(ended);
            }
        }
        tracker.close();
        tracker.wait().await;
        first_failure.unwrap_or(Ok(()))
    }

    /// Starts what serves connections, on the runtime this is called on.
    fn serve_streams(
        &mut self,
        single: &Single,
        reception: &Reception,
        parts: &Parts,
    ) -> Result<(), anyhow::Error> {
        let tcp = tcp::Server::new(&self.config, single.clone());
        let serve = |name: String, work: BoxFuture<'static, ()>| {
            let task = tokio::spawn(work);
            parts.push(Box::pin(async move {
                task.await.with_context(|| format!("{name}: ended early"))
            }));
        };
        for bound in &mut self.sockets {
            let listener = bound.take_tcp()?;
            let (tcp, stop) = (Arc::clone(&tcp), reception.stop.clone());
            let accept = reception.clone().accept(listener, move |stream, place| {
                Arc::clone(&tcp).serve_plain(stream, place, stop.clone())
            });
            serve(format!("dns-tcp {}", bound.address), Box::pin(accept));
        }
        let handshake = |protocols: &[&[u8]]| -> Result<Handshake, anyhow::Error> {
            let config = self.certificates.server(protocols).context("dns: TLS")?;
            let metrics = Arc::clone(&self.metrics);
            Ok(Handshake::new(config, self.config.tls_handshake, metrics))
        };
        for listener in std::mem::take(&mut self.encrypted.tls) {
            let name = format!("dns-tls {}", listener.local_addr()?);
            let listener = TcpListener::from_std(listener)?;
            let handshake = Arc::new(handshake(&[b"dot"])?);
            let (tcp, stop) = (Arc::clone(&tcp), reception.stop.clone());
            let accept = reception.clone().accept(listener, move |stream, place| {
                Arc::clone(&tcp).serve_tls(stream, Arc::clone(&handshake), place, stop.clone())
            });
            serve(name, Box::pin(accept));
        }
        for listener in std::mem::take(&mut self.encrypted.https) {
            let name = format!("dns-https {}", listener.local_addr()?);
            let listener = TcpListener::from_std(listener)?;
            let handshake = handshake(&[b"h2", b"http/1.1"])?;
            let https = https::Server::new(&self.config, single.clone(), handshake);
            let stop = reception.stop.clone();
            let accept = reception.clone().accept(listener, move |stream, place| {
                Arc::clone(&https).serve(stream, place, stop.clone())
            });
            serve(name, Box::pin(accept));
        }
        for socket in std::mem::take(&mut self.encrypted.quic) {
            let name = format!("dns-quic {}", socket.local_addr()?);
            let tls = self.certificates.server(&[b"doq"]).context("dns: TLS")?;
            let quic = quic::Server::new(&self.config, single.clone(), reception.clone());
            let endpoint = quic.endpoint(socket, tls).with_context(|| name.clone())?;
            serve(name, Box::pin(quic.accept(endpoint)));
        }
        Ok(())
    }
}

/// What ends early only with an error.
type Parts = FuturesUnordered<BoxFuture<'static, Result<(), anyhow::Error>>>;

impl Heartbeat {
    /// The worker silent for longest, and for how long; `None`: no workers.
    #[must_use]
    pub fn silence(&self, now: Now) -> Option<(&str, Duration)> {
        self.beats
            .iter()
            .map(|beat| (beat.name(), beat.silence(now)))
            .max_by_key(|(_, silence)| *silence)
    }
}

impl Beat {
    fn name(&self) -> &str {
        &self.name
    }

    /// Called by the worker once per turn.
    fn turn(&self, now: Now) {
        self.mono_ns.store(now.mono_ns, Relaxed);
    }

    fn silence(&self, now: Now) -> Duration {
        Duration::from_nanos(now.mono_ns.saturating_sub(self.mono_ns.load(Relaxed)))
    }
}

/// Starts a UDP worker on a thread of its own; the future ends with it.
fn start(
    worker: udp::Worker,
) -> Result<BoxFuture<'static, Result<(), anyhow::Error>>, anyhow::Error> {
    let name = worker.beat.name().to_owned();
    let (ended, end) = oneshot::channel();
    // The kernel shows the first 15 octets of the name.
    std::thread::Builder::new()
        .name(name.clone())
        .spawn(move || {
            // The receiver is gone only when the front is.
            let _ = ended.send(worker.run());
        })
        .with_context(|| format!("{name}: thread"))?;
    Ok(Box::pin(async move {
        match end.await {
            Ok(result) => result.with_context(|| format!("{name}: receiving")),
            Err(_) => Err(anyhow::anyhow!("{name}: panicked")),
        }
    }))
}

/// Tells threads and tasks to stop; also when dropped.
#[derive(Debug)]
struct Stopping {
    flag: Arc<AtomicBool>,
    token: CancellationToken,
    _guard: DropGuard,
}

impl Stopping {
    fn new() -> Self {
        let token = CancellationToken::new();
        Self {
            flag: Arc::default(),
            _guard: token.clone().drop_guard(),
            token,
        }
    }

    fn stop(&self) {
        self.flag.store(true, Relaxed);
        self.token.cancel();
    }
}

impl Drop for Stopping {
    fn drop(&mut self) {
        self.flag.store(true, Relaxed);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::dns::chaos::Identity;

    /// The limits of the documentation, nothing to listen on.
    pub(in crate::dns) fn config() -> Config {
        Config {
            listen: vec![],
            workers: 1,
            udp_payload: 1232,
            udp_segments: crate::dns::UDP_SEGMENTS,
            edns_options: 32,
            cname_chain: 11,
            queries_in_flight: 4096,
            queries_in_flight_per_network: 200,
            queries_in_flight_per_proven_network: 2000,
            udp_late: Duration::from_millis(1900),
            tcp_connections: 12_000,
            tcp_connections_per_address: 100,
            tcp_idle: Duration::from_secs(10),
            tcp_message: Duration::from_secs(10),
            tcp_unanswered: 100,
            tcp_unread: 256 << 10,
            tcp_unread_time: Duration::from_secs(15),
            tls_listen: vec![],
            https_listen: vec![],
            quic_listen: vec![],
            tls_handshake: Duration::from_secs(5),
            https_path: String::from("/dns-query"),
            https_streams: 100,
            https_resets: 20,
            https_head: 16 << 10,
            quic_streams: 100,
            identity: Identity::default(),
            cookies: None,
            rate_limit: None,
            transfer: crate::dns::transfer::Config::default(),
        }
    }

    #[test]
    fn heartbeat_names_the_worker_silent_for_longest() {
        let now = Now::read();
        let beat = |name: &str, ago: u64| {
            Arc::new(Beat {
                name: name.to_owned(),
                mono_ns: AtomicU64::new(now.mono_ns - ago),
            })
        };
        let heartbeat = Heartbeat {
            beats: Arc::new([beat("a", 5), beat("b", 9), beat("c", 1)]),
        };
        assert_eq!(heartbeat.silence(now), Some(("b", Duration::from_nanos(9))));
    }
}
