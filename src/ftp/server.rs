//! Accepting FTP sessions, and what bounds each.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use libunftp::ServerBuilder;
use libunftp::options::{Binder, FtpsRequired, PassiveHost, SiteMd5};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, Handle};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use unftp_core::auth::{
    AuthenticationError, Authenticator, Credentials, Principal, UserDetailError, UserDetailProvider,
};

use super::backend::Backend;
use super::guard::Guard;
use super::users::User;
use super::{Config, UsersFile};
use crate::content::library::Library;
use crate::link::clients::Client;
use crate::link::pace::Pace;
use crate::metrics::Metrics;
use crate::net::{self, bind_tcp};
use crate::time::Now;
use crate::tls::Certificates;

/// The FTP server, bound.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<std::net::TcpListener>,
    shared: Arc<Shared>,
}

/// What all sessions share.
#[derive(Debug)]
struct Shared {
    config: Config,
    tls: Option<Arc<rustls::ServerConfig>>,
    library: Library,
    metrics: Arc<Metrics>,
    pace: Arc<Pace>,
    users: Arc<UsersFile>,
    guard: Mutex<Guard>,
    /// Sessions per address; their sum is bounded too.
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// One session's place among the others, until it is dropped.
#[derive(Debug)]
struct Place {
    shared: Arc<Shared>,
    address: IpAddr,
}

/// How one session logs in.
#[derive(Debug)]
struct Login {
    shared: Arc<Shared>,
    done: AtomicBool,
}

/// Where one session's data connections are taken.
#[derive(Debug)]
struct Ports {
    shared: Arc<Shared>,
}

impl Server {
    /// Binds every address and reads the users file.
    ///
    /// # Errors
    /// The key and what is wrong.
    pub fn bind(
        config: Config,
        certificates: &Arc<Certificates>,
        encrypted: bool,
        library: Library,
        pace: Arc<Pace>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, anyhow::Error> {
        let bind = |&address| {
            let bound = bind_tcp(address, BACKLOG);
            bound.with_context(|| format!("ftp.listen: {address}"))
        };
        let listeners = config.listen.iter().map(bind).collect::<Result<_, _>>()?;
        let users = UsersFile::open(config.users_file.clone()).map_err(anyhow::Error::msg)?;
        let tls = encrypted.then(|| {
            let mut tls = certificates.server(&[])?;
            // A client that only sends never reads a ticket, and closing with it unread resets the upload.
            tls.send_tls13_tickets = 0;
            Ok::<_, rustls::Error>(Arc::new(tls))
        });
        let guard = Guard::new(
            config.login_failures,
            config.login_lockout,
            config.login_networks,
        );
        Ok(Self {
            listeners,
            shared: Arc::new(Shared {
                tls: tls.transpose().context("ftp.tls")?,
                users: Arc::new(users),
                guard: Mutex::new(guard),
                open: Mutex::default(),
                config,
                library,
                metrics,
                pace,
            }),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        let addresses = self.listeners.iter().map(|l| l.local_addr());
        addresses.filter_map(Result::ok).collect()
    }

    /// The users, to read them again.
    #[must_use]
    pub fn users(&self) -> Arc<UsersFile> {
        Arc::clone(&self.shared.users)
    }

    /// Serves until `stop`; transfers under way end then.
    ///
    /// # Errors
    /// A listener that is none.
    pub async fn run(self, stop: CancellationToken) -> Result<(), anyhow::Error> {
        let Self { listeners, shared } = self;
        let library = shared.library.clone();
        tokio::task::spawn_blocking(move || library.sweep_incoming()).await?;
        let sessions = TaskTracker::new();
        let mut accepting = tokio::task::JoinSet::new();
        for listener in listeners {
            let listener = TcpListener::from_std(listener).context("ftp")?;
            let (shared, sessions, stop) = (shared.clone(), sessions.clone(), stop.clone());
            accepting.spawn(accept(listener, shared, sessions, stop));
        }
        while accepting.join_next().await.is_some() {}
        sessions.close();
        let _ = tokio::time::timeout(DRAIN, sessions.wait()).await;
        Ok(())
    }
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    sessions: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "ftp connection not accepted");
                sleep(Duration::from_millis(100)).await; // Too many open files: some will be closed.
                continue;
            }
        };
        let Some(place) = shared.admit(peer.ip()) else {
            continue; // Closed.
        };
        let client = shared.pace.client(net::holder(peer.ip()));
        let (shared, stop, alive) = (shared.clone(), stop.clone(), sessions.token());
        let work = move || {
            let _alive = alive;
            if let Err(error) = session(&shared, stream, client, &stop) {
                tracing::debug!(%error, "ftp session not served");
            }
            drop(place);
        };
        let thread = std::thread::Builder::new().name("ftp".to_owned());
        if let Err(error) = thread.spawn(work) {
            tracing::warn!(%error, "no thread for an ftp session");
        }
    }
}

/// Serves one session on this thread.
fn session(
    shared: &Arc<Shared>,
    stream: TcpStream,
    client: Arc<Client>,
    stop: &CancellationToken,
) -> Result<(), anyhow::Error> {
    let stream = stream.into_std()?;
    let control = Arc::new(stream.try_clone()?);
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING)
        .build()?;
    let result = runtime.block_on(async {
        let stream = TcpStream::from_std(stream)?;
        let config = &shared.config;
        let login = Arc::new(Login {
            shared: Arc::clone(shared),
            done: AtomicBool::new(false),
        });
        let backend = Backend {
            library: shared.library.clone(),
            metrics: Arc::clone(&shared.metrics),
            idle: config.idle,
            max: config.max,
            control,
            client,
        };
        let host = config.passive_address;
        let mut server = ServerBuilder::with_user_detail_provider(
            Box::new(move || backend.clone()),
            Arc::clone(&login) as Arc<dyn UserDetailProvider<User = User> + Send + Sync>,
        )
        .authenticator(Arc::clone(&login) as Arc<dyn Authenticator + Send + Sync>)
        .greeting("Headwater")
        .idle_session_timeout(config.idle.as_secs().max(1))
        .passive_ports(config.passive_ports.clone())
        .passive_host(host.map_or(PassiveHost::FromConnection, PassiveHost::Ip))
        .sitemd5(SiteMd5::None)
        .binder(Ports {
            shared: Arc::clone(shared),
        });
        if let Some(tls) = &shared.tls {
            server = server.ftps_manual::<std::path::PathBuf>(Arc::clone(tls));
        }
        if config.tls_required {
            server = server.ftps_required(FtpsRequired::All, FtpsRequired::All);
        }
        let serve = server.build()?.service(stream);
        let limit = |limit: &str| shared.metrics.ftp.limits.with_label_values(&[limit]).inc();
        let late = async {
            sleep(config.login_time).await;
            if login.done.load(Ordering::Relaxed) {
                sleep(config.session_time).await;
                limit("session_time");
            } else {
                limit("login_time");
            }
        };
        tokio::select! {
            _ = serve => {}
            () = late => {}
            () = stop.cancelled() => {}
        }
        Ok(())
    });
    // With all that is left in it.
    runtime.shutdown_background();
    result
}

impl Shared {
    /// A place for one more session of `address`, or `None`, which is counted.
    fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, own) = (open.values().sum::<usize>(), open.get(&address).copied());
        let own = own.unwrap_or(0);
        let limit = match () {
            () if total >= self.config.sessions => "total",
            () if own >= self.config.sessions_per_address => "address",
            () => {
                open.insert(address, own + 1);
                self.metrics.ftp.sessions.inc();
                return Some(Place {
                    shared: Arc::clone(self),
                    address,
                });
            }
        };
        self.metrics.ftp.refused.with_label_values(&[limit]).inc();
        None
    }

    fn logged(&self, outcome: &str) {
        self.metrics.ftp.logins.with_label_values(&[outcome]).inc();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let open = &self.shared.open;
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = open.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.address);
            }
        }
        self.shared.metrics.ftp.sessions.dec();
    }
}

#[async_trait]
impl Authenticator for Login {
    async fn authenticate(
        &self,
        username: &str,
        creds: &Credentials,
    ) -> Result<Principal, AuthenticationError> {
        let shared = &self.shared;
        let guard = || shared.guard.lock().unwrap_or_else(PoisonError::into_inner);
        let now = || Duration::from_secs(Now::read().mono_secs());
        let admitted = guard().admits(creds.source_ip, now());
        let password = creds.password.as_deref().unwrap_or_default();
        let users = shared.users.users.load_full();
        // A tenth of a second of work, on this session's own thread.
        if admitted && users.check(username, password).is_some() {
            guard().note(creds.source_ip, true, now());
            shared.logged("ok");
            self.done.store(true, Ordering::Relaxed);
            return Ok(Principal {
                username: username.to_owned(),
            });
        }
        if admitted {
            guard().note(creds.source_ip, false, now());
            shared.logged("wrong");
            if !guard().admits(creds.source_ip, now()) {
                tracing::warn!(client = %creds.source_ip, "too many wrong passwords, refused for a while");
            }
        } else {
            shared.logged("locked");
        }
        sleep(PENALTY).await;
        Err(AuthenticationError::BadPassword)
    }
}

#[async_trait]
impl UserDetailProvider for Login {
    type User = User;

    async fn provide_user_detail(&self, principal: &Principal) -> Result<User, UserDetailError> {
        let users = self.shared.users.users.load();
        let username = principal.username.clone();
        let known = users.get(&username).cloned();
        known.ok_or(UserDetailError::UserNotFound { username })
    }
}

#[async_trait]
impl Binder for Ports {
    async fn bind(
        &mut self,
        local: IpAddr,
        ports: RangeInclusive<u16>,
    ) -> std::io::Result<TcpSocket> {
        let limits = &self.shared.metrics.ftp.limits;
        // Each has a task that waits for it and one that serves it; the session has some of its own.
        let most = TASKS + 2 * self.shared.config.connections_per_session;
        if Handle::current().metrics().num_alive_tasks() > most {
            limits.with_label_values(&["connections_per_session"]).inc();
            return Err(std::io::ErrorKind::QuotaExceeded.into());
        }
        let mut dice = [0; 4];
        rustix::rand::getrandom(&mut dice, rustix::rand::GetRandomFlags::empty())?;
        let count = u32::from(ports.end() - ports.start()) + 1;
        let first = u32::from_ne_bytes(dice) % count;
        let deadline = Instant::now() + SEARCH;
        for step in 0..count {
            let port = u32::from(*ports.start()) + (first + step) % count;
            let socket = match local {
                IpAddr::V4(_) => TcpSocket::new_v4()?,
                IpAddr::V6(_) => TcpSocket::new_v6()?,
            };
            socket.set_reuseaddr(true)?;
            let port = u16::try_from(port).unwrap_or(*ports.end());
            if socket.bind(SocketAddr::new(local, port)).is_ok() {
                return Ok(socket);
            }
            if Instant::now() > deadline {
                break;
            }
        }
        Err(std::io::ErrorKind::AddrInUse.into())
    }
}

/// Connections the kernel holds for us.
const BACKLOG: u16 = 128;

/// Threads of one session that wait for the disk.
const BLOCKING: usize = 2;

/// Tasks of a session beside those of its data connections.
const TASKS: usize = 4;

/// How long a wrong password waits for its answer.
const PENALTY: Duration = Duration::from_secs(1);

/// How long a free port is looked for.
const SEARCH: Duration = Duration::from_millis(100);

/// How long sessions may take to end when the node does.
const DRAIN: Duration = Duration::from_secs(5);
