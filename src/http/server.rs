//! Listeners, connections and their limits.
//!
//! One accept loop per listener; one task per connection, tracked, that lives until the client, a limit or the stop
//! ends it. On `stop` nothing more is accepted, idle connections close, and requests under way are answered to
//! their end; dropping the future of [`Server::run`] (the caller's deadline) leaves what is left to the runtime.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Config;
use super::access::Log;
use super::connection::{self, Terms};
use super::frames::Frames;
use super::object::{Heads, Site, Supply};
use super::pieces::Pieces;
use super::proxy::serve::Proxy;
use super::rules::Rules;
use super::seed::{self, Patience};
use super::upload::Uploads;
use crate::content::library::Library;
use crate::metrics::Metrics;
use crate::metrics::http::{Closed, Refused};
use crate::net;
use crate::peer::swarm::{Swarm, SwarmConfig};
use crate::tls::Certificates;

/// Bound and not served yet.
pub struct Server {
    config: Config,
    clear: Listeners,
    encrypted: Listeners,
    acceptor: Option<TlsAcceptor>,
    site: Arc<Site>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("clear", &self.clear)
            .field("encrypted", &self.encrypted)
            .finish_non_exhaustive()
    }
}

/// Sockets, and the addresses they have.
#[derive(Debug, Default)]
struct Listeners {
    sockets: Vec<TcpListener>,
    addrs: Vec<SocketAddr>,
}

impl Listeners {
    /// Binds `addresses`, but for those among `inherited`.
    fn bind(addresses: &[SocketAddr], inherited: &mut Vec<TcpListener>) -> anyhow::Result<Self> {
        let mut listeners = Self::default();
        for address in addresses {
            let held = inherited
                .iter()
                .position(|l| l.local_addr().is_ok_and(|local| local == *address));
            let listener = match held {
                Some(place) => Ok(inherited.swap_remove(place)),
                None => net::bind_tcp(*address, BACKLOG),
            };
            let listener = listener.with_context(|| format!("http: listen on {address}"))?;
            listener
                .set_nonblocking(true)
                .with_context(|| format!("http: listen on {address}"))?;
            listeners.addrs.push(listener.local_addr()?);
            listeners.sockets.push(listener);
        }
        Ok(listeners)
    }
}

impl Server {
    /// Binds every address of `config.listen` and `config.tls_listen` (using `inherited` sockets for the same addresses) and opens the
    /// access log.
    ///
    /// # Errors
    /// The address or file, and what the kernel said.
    pub fn bind(
        config: Config,
        inherited: Vec<TcpListener>,
        library: Library,
        metrics: Arc<Metrics>,
    ) -> Result<Self, anyhow::Error> {
        let mut inherited = inherited;
        let clear = Listeners::bind(&config.listen, &mut inherited)?;
        let encrypted = Listeners::bind(&config.tls_listen, &mut inherited)?;
        let access = config
            .access_log
            .as_ref()
            .map(|path| {
                let format = config.access_format;
                Log::open(path, format, config.access_lines, Arc::clone(&metrics))
                    .with_context(|| format!("http: access log {}", path.display()))
            })
            .transpose()?;
        let proxy = if config.proxy.rules.is_empty() {
            None
        } else {
            let opened = Proxy::open(&config.proxy, config.ranges, Arc::clone(&metrics));
            let folder = || format!("http: proxy cache {}", config.proxy.dir.display());
            Some(Arc::new(opened.with_context(folder)?))
        };
        let site = Site {
            library,
            frames: Frames::new(config.frames, Arc::clone(&metrics)),
            content: Supply::new(&metrics),
            pieces: Pieces::new(config.piece_digests, config.torrent_peers, metrics.clone()),
            swarm: Arc::new(Swarm::new(SwarmConfig::default(), 0, metrics.clone())),
            metrics,
            access,
            ranges: config.ranges,
            headers: config.headers,
            fill_wait: config.fill_wait,
            heads: Heads::new(HEADS),
            rules: Rules::new(config.rules.clone()),
            proxy,
            uploads: config.upload.clone().map(Uploads::new),
        };
        Ok(Self {
            config,
            clear,
            encrypted,
            acceptor: None,
            site: Arc::new(site),
        })
    }

    /// Serves other nodes as a member of `swarm`.
    #[must_use]
    pub fn within(mut self, swarm: Arc<Swarm>) -> Self {
        Arc::get_mut(&mut self.site)
            .expect("nobody else has it before it serves")
            .swarm = swarm;
        self
    }

    /// Has the encrypted listeners show what `certificates` has at the time of each handshake.
    ///
    /// # Errors
    /// What the TLS library said.
    pub fn certified(mut self, certificates: &Arc<Certificates>) -> Result<Self, anyhow::Error> {
        let config = certificates.server(&[b"h2", b"http/1.1"]);
        let config = Arc::new(config.context("http: TLS")?);
        self.acceptor = Some(TlsAcceptor::from(config));
        Ok(self)
    }

    /// Where it listens in the clear, ports resolved.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.clear.addrs.clone()
    }

    /// Where it listens for TLS, ports resolved.
    #[must_use]
    pub fn encrypted_addrs(&self) -> Vec<SocketAddr> {
        self.encrypted.addrs.clone()
    }

    /// The cache of other servers, if there are any.
    #[must_use]
    pub fn proxy(&self) -> Option<Arc<Proxy>> {
        self.site.proxy.clone()
    }

    /// The access log, to have it reopened after a rotation.
    #[must_use]
    pub fn access_log(&self) -> Option<Log> {
        self.site.access.clone()
    }

    /// Serves until `stop`, then lets open requests end (the caller's deadline bounds it).
    ///
    /// # Errors
    /// What ended it early.
    pub async fn run(self, stop: CancellationToken) -> Result<(), anyhow::Error> {
        let tracker = TaskTracker::new();
        let access = self.site.access.clone();
        let shared = Arc::new(Shared {
            terms: Terms::new(&self.config, self.site, &tracker, stop),
            peers: Patience {
                silent: self.config.silent,
                head: self.config.head_time,
                idle: self.config.idle,
                slow: self.config.slow,
            },
            places: Places::new(&self.config),
            tracker,
        });
        let mut listeners = Vec::new();
        for listener in self.clear.sockets {
            listeners.push((tokio::net::TcpListener::from_std(listener)?, None));
        }
        for listener in self.encrypted.sockets {
            let acceptor = self.acceptor.clone();
            let acceptor = acceptor.context("http: no certificates for the encrypted listeners")?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            listeners.push((listener, Some(acceptor)));
        }
        if listeners.is_empty() {
            shared.terms.stop.cancelled().await;
        }
        let accepting = listeners
            .into_iter()
            .map(|(listener, tls)| accept(listener, tls, &shared));
        let sweeping = async {
            if let Some(uploads) = &shared.terms.site.uploads {
                let (library, metrics) = (&shared.terms.site.library, &shared.terms.site.metrics);
                uploads.sweep(library, metrics, &shared.terms.stop).await;
            }
        };
        let site = &shared.terms.site;
        let seeding = site
            .pieces
            .keep_ready(&site.library, &site.rules, &shared.terms.stop);
        tokio::join!(join_all(accepting), sweeping, seeding);
        shared.tracker.close();
        shared.tracker.wait().await;
        if let Some(proxy) = &shared.terms.site.proxy {
            proxy.close().await;
        }
        if let Some(log) = access {
            tokio::task::spawn_blocking(move || log.flush()).await?;
        }
        Ok(())
    }
}

/// What all connections have in common.
struct Shared {
    terms: Terms,
    /// What BitTorrent peers may take.
    peers: Patience,
    places: Arc<Places>,
    tracker: TaskTracker,
}

/// Accepts connections, which begin with a TLS handshake if there is `tls`.
async fn accept(listener: tokio::net::TcpListener, tls: Option<TlsAcceptor>, shared: &Arc<Shared>) {
    let mut pause = ACCEPT_PAUSE_MIN;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.terms.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                pause = ACCEPT_PAUSE_MIN;
                admit(stream, address.ip().to_canonical(), tls.clone(), shared);
            }
            Err(error) if of_one_connection(&error) => {}
            Err(error) => {
                if pause == ACCEPT_PAUSE_MIN {
                    tracing::warn!(%error, "accept failed, http pauses");
                }
                shared.terms.site.metrics.http.accept_failures.inc();
                tokio::select! {
                    () = shared.terms.stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
            }
        }
    }
}

/// Whether an accept error concerns the connection that was to be accepted, not the listener.
fn of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Gives a new connection its place and task, or closes it.
fn admit(stream: TcpStream, address: IpAddr, tls: Option<TlsAcceptor>, shared: &Arc<Shared>) {
    let metrics = &shared.terms.site.metrics.http;
    let place = match Places::take(&shared.places, address) {
        Ok(place) => place,
        Err(limit) => {
            metrics.refuse(limit);
            tracing::debug!(%address, ?limit, "connection refused");
            return;
        }
    };
    // Best effort: without it the connection works all the same.
    let _ = stream.set_nodelay(true);
    metrics.connections.inc();
    let shared = Arc::clone(shared);
    let tracker = shared.tracker.clone();
    tracker.spawn(async move {
        let seeds = tls.is_none() && shared.terms.site.pieces.seeds();
        let reason = if seeds {
            Box::pin(either(stream, address, &shared)).await
        } else {
            connection::speak(stream, address, tls, &shared.terms).await
        };
        let metrics = &shared.terms.site.metrics.http;
        metrics.connections.dec();
        metrics.close(reason);
        drop(place);
    });
}

/// Serves HTTP or a BitTorrent peer, whichever comes.
async fn either(stream: TcpStream, address: IpAddr, shared: &Shared) -> Closed {
    match seed::is_peer(&stream, shared.peers, &shared.terms.stop).await {
        Ok(true) => {
            let client = shared.terms.site.swarm.pace().client(net::holder(address));
            let site = &shared.terms.site;
            seed::serve(stream, site, &client, shared.peers, &shared.terms.stop).await
        }
        Ok(false) => connection::speak(stream, address, None, &shared.terms).await,
        Err(reason) => reason,
    }
}

/// Connections taken, in all and by address.
struct Places {
    total: usize,
    per_address: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One connection's place; given back on drop.
struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Places {
    fn new(config: &Config) -> Arc<Self> {
        Arc::new(Self {
            total: config.connections,
            per_address: config.connections_per_address,
            taken: Mutex::default(),
        })
    }

    /// Takes a place.
    fn take(this: &Arc<Self>, address: IpAddr) -> Result<Place, Refused> {
        let address = net::holder(address);
        let mut taken = this.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.total >= this.total {
            return Err(Refused::Total);
        }
        let count = taken.by_address.get(&address).copied().unwrap_or(0);
        if count >= this.per_address {
            return Err(Refused::Address);
        }
        taken.by_address.insert(address, count + 1);
        taken.total += 1;
        Ok(Place {
            places: Arc::clone(this),
            address,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self
            .places
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        taken.total -= 1;
        if let Entry::Occupied(mut count) = taken.by_address.entry(self.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

const BACKLOG: u16 = 1024;

/// Versions whose header fields are kept ready.
const HEADS: usize = 4096;

const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(10);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn places(total: usize, per_address: usize) -> Arc<Places> {
        Arc::new(Places {
            total,
            per_address,
            taken: Mutex::default(),
        })
    }

    #[track_caller]
    fn check(places: &Arc<Places>, address: &str, expected: Result<(), Refused>) -> Option<Place> {
        let taken = Places::take(places, address.parse().unwrap());
        assert_eq!(taken.as_ref().map(|_| ()).map_err(|e| *e), expected);
        taken.ok()
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let places = places(3, 2);
        let a = check(&places, "192.0.2.1", Ok(()));
        let _b = check(&places, "192.0.2.1", Ok(()));
        check(&places, "192.0.2.1", Err(Refused::Address));
        let c = check(&places, "192.0.2.2", Ok(()));
        check(&places, "192.0.2.3", Err(Refused::Total));
        drop((a, c));
        let _a = check(&places, "192.0.2.1", Ok(()));
        assert_eq!(places.taken.lock().unwrap().by_address.len(), 1);
    }

    #[test]
    fn addresses_of_one_ipv6_network_share_places() {
        let places = places(9, 1);
        let _a = check(&places, "2001:db8::1", Ok(()));
        check(&places, "2001:db8::2:3", Err(Refused::Address));
        let _b = check(&places, "2001:db8:0:1::1", Ok(()));
    }
}
