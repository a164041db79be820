//! The daemon, phase by phase: build, bind, load, run, drain.
//!
//! It owns both runtimes, every long-lived task and the stop tokens. A task that ends early, or panics, ends the
//! node with an error that names it. Killed at any moment it comes up again from what the store holds.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use prometheus::IntGauge;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use self::buckets::Buckets;
use self::reload::Reloader;
use self::secrets::Secrets;
use crate::admin::api::Listener;
use crate::admin::handles::Handles;
use crate::admin::server::{Admin, Pages};
use crate::config::{Settings, Source};
use crate::content::edition::Editions;
use crate::content::library::Library;
use crate::content::publish::Publisher;
use crate::content::scrub::Scrub;
use crate::content::store::Store;
use crate::dns::dnssec::{self, again, ask, signer::Signer};
use crate::dns::engine::Engine;
use crate::dns::front::{Front, Heartbeat};
use crate::dns::keeper::Keeper;
use crate::dns::log::Log as QueryLog;
use crate::dns::resolver::Resolver;
use crate::dns::transfer::{notifier, secondary};
use crate::ftp;
use crate::http::access::Log;
use crate::http::server::Server;
use crate::link::Links;
use crate::metrics::Metrics;
use crate::peer::discover::{Discovery, Here, Published};
use crate::peer::replicate::Replicator;
use crate::peer::swarm::Swarm;
use crate::systemd::{self, Sockets};
use crate::time::Now;
use crate::tls::Certificates;
use crate::trace;

mod buckets;

mod first;

pub mod reload;

mod secrets;

/// Runs a node until it is told to stop. `announce` gets one text once everything is ready: where the node
/// listens, for people.
///
/// # Errors
/// What could not be built, bound or loaded; or the task that ended early.
pub fn run(
    source: Source,
    mut settings: Settings,
    announce: impl FnOnce(&[Listener]),
) -> Result<(), anyhow::Error> {
    let started = Now::read();
    let sockets = Sockets::inherit(&settings)?; // before any thread
    trace::init(&settings.log);
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    let _claim = Claim::take(&settings.state)?;
    if source.file.is_none() {
        first::prepare(&mut settings)?;
    }
    let metrics = Arc::new(Metrics::new());
    let runtimes = Runtimes::new(&settings, &metrics.content.threads)?;
    let ended = runtimes.http.block_on(async {
        let mut signals = Signals::new()?;
        let node = Node::build(source, settings, &runtimes, metrics)?;
        let bound = node.bind(sockets)?;
        let running = node.load(bound, started).await?;
        let mut running = running.spawn(&runtimes);
        announce(&running.handles.listeners);
        let ended = running.wait(&mut signals).await;
        running.drain(&mut signals).await.and(ended)
    });
    runtimes.shut_down();
    ended
}

/// The node's parts, built from its settings; nothing runs, nothing listens.
struct Node {
    source: Source,
    settings: Settings,
    metrics: Arc<Metrics>,
    engine: Arc<Engine>,
    certificates: Arc<Certificates>,
    library: Library,
    swarm: Arc<Swarm>,
    links: Links,
}

/// Every socket of the node, bound and not served.
struct Bound {
    front: Option<Front>,
    http: Option<Server>,
    ftp: Option<ftp::Server>,
    pages: Option<Pages>,
    admin: Admin,
    listeners: Vec<Listener>,
}

/// Everything loaded; the next step is to serve.
struct Loaded {
    bound: Bound,
    handles: Arc<Handles>,
    publisher: Option<Publisher>,
    buckets: Buckets,
    replicator: Option<Replicator>,
    discovery: Option<Discovery>,
    scrub: Scrub,
    links: Links,
    dnssec: dnssec::Config,
}

/// The node at work.
struct Running {
    handles: Arc<Handles>,
    tasks: JoinSet<Result<(), anyhow::Error>>,
    names: HashMap<Id, Task>,
    /// Ends what accepts: DNS and HTTP.
    accept: CancellationToken,
    /// Ends what works for them: replication, publishing, control.
    background: CancellationToken,
    store: Store,
    /// Reopened at each reload, after a log rotation.
    access_log: Option<Log>,
}

/// One long-lived task: its name, and whether it takes clients (and is stopped first).
#[derive(Clone, Copy, Debug)]
struct Task {
    name: &'static str,
    accepts: bool,
}

impl Node {
    fn build(
        source: Source,
        settings: Settings,
        runtimes: &Runtimes,
        metrics: Arc<Metrics>,
    ) -> Result<Self, anyhow::Error> {
        let resolver = {
            let _dns = runtimes.dns.enter(); // its pools live there
            let config = settings.resolver.clone();
            let built = config.map(|c| Resolver::new(c, metrics.clone()));
            built.transpose().context("resolver")?
        };
        let keeper = Arc::new(Keeper::new(settings.zones.clone(), metrics.clone()));
        keeper.set_keys(settings.tsig.clone());
        keeper.set_signer(Signer::new(settings.state.join("keys"), settings.dnssec));
        let engine = Engine::new(&settings.dns, keeper, resolver, metrics.clone());
        if let Some(config) = &settings.query_log {
            let log = QueryLog::open(config.clone(), Arc::clone(&metrics));
            engine.set_log(log.context("log.queries: not opened")?);
        }
        let library = Library::new(&settings.store, Arc::clone(&metrics));
        library.set_editions(Editions::open(&settings.state, Now::read()).context("node key")?);
        let links = Links::new(settings.link.clone(), Arc::clone(&metrics));
        let swarm = secrets::swarm(&settings, Arc::clone(&metrics))?.paced(links.pace());
        Ok(Self {
            swarm: Arc::new(swarm),
            links,
            source,
            settings,
            metrics,
            engine: Arc::new(engine),
            certificates: Arc::default(),
            library,
        })
    }

    fn bind(&self, sockets: Sockets) -> Result<Bound, anyhow::Error> {
        let settings = &self.settings;
        let mut listeners = Vec::new();
        let mut listening = |service: &str, address: String| {
            tracing::info!(service, %address, "listening");
            let service = service.to_owned();
            listeners.push(Listener { service, address });
        };
        let mut front = None;
        if settings.dns.is_on() {
            let (config, metrics) = (settings.dns.clone(), self.metrics.clone());
            let certificates = Arc::clone(&self.certificates);
            let bound = Front::bind(config, certificates, sockets.dns, metrics)?;
            let addresses = bound.local_addrs();
            addresses
                .iter()
                .for_each(|a| listening("dns", a.to_string()));
            for (transport, address) in bound.encrypted_addrs() {
                listening(&format!("dns-{}", transport.label()), address.to_string());
            }
            front = Some(bound);
        }
        let mut http = None;
        if settings.http.is_on() {
            let (config, metrics) = (settings.http.clone(), self.metrics.clone());
            let bound = Server::bind(config, sockets.http, self.library.clone(), metrics)?;
            let bound = bound
                .certified(&self.certificates)?
                .within(self.swarm.clone());
            for address in bound.local_addrs() {
                listening("http", address.to_string());
            }
            for address in bound.encrypted_addrs() {
                listening("https", address.to_string());
            }
            http = Some(bound);
        }
        let mut ftp = None;
        if !settings.ftp.listen.is_empty() {
            let bound = ftp::Server::bind(
                settings.ftp.clone(),
                &self.certificates,
                settings.tls.is_some(),
                self.library.clone(),
                Arc::clone(self.swarm.pace()),
                self.metrics.clone(),
            )?;
            for address in bound.local_addrs() {
                listening("ftp", address.to_string());
            }
            ftp = Some(bound);
        }
        let mut pages = None;
        if let Some(address) = settings.metrics_listen {
            let bound = Pages::bind(address, sockets.metrics, settings.metrics_connections)?;
            listening("metrics", bound.local_addr()?.to_string());
            pages = Some(bound);
        }
        let path = &settings.admin_socket;
        let admin = Admin::bind(path, sockets.admin, settings.admin_connections)?;
        listening("admin", path.display().to_string());
        Ok(Bound {
            front,
            http,
            ftp,
            pages,
            admin,
            listeners,
        })
    }

    /// Recovers the store and loads the zones. A zone that does not load is said loudly and does not stop the
    /// node: the others are served.
    async fn load(self, mut bound: Bound, started: Now) -> Result<Loaded, anyhow::Error> {
        let Self {
            source,
            settings,
            metrics,
            engine,
            certificates,
            library,
            swarm,
            links,
        } = self;
        let store = {
            let (config, library, metrics) =
                (settings.store.clone(), library.clone(), metrics.clone());
            let open = move || Store::open(&config, &library, metrics);
            let opened = tokio::task::spawn_blocking(open).await?;
            opened.with_context(|| format!("store {}", settings.store.dir.display()))?
        };
        let buckets = buckets::open(&settings, &store, &library, &metrics).await?;
        let mut publisher = None;
        if !settings.publish.is_empty() {
            let publish = settings.publish.clone();
            let made = Publisher::new(publish, &settings.store, library.clone(), metrics.clone());
            publisher = Some(made.context("publish")?);
        }
        let mut replicator = None;
        if !settings.mirrors.is_empty() {
            replicator = Some(Replicator::new(
                settings.mirrors.clone(),
                settings.node.clone(),
                store.clone(),
                library.clone(),
                &swarm,
                metrics.clone(),
            ));
        }
        let mut discovery = None;
        let http: Vec<_> = bound.http.iter().flat_map(Server::local_addrs).collect();
        let own = settings.publish.iter().map(|publish| &publish.prefix);
        let own = own.chain(settings.buckets.iter().map(|bucket| &bucket.prefix));
        let published = Published {
            key: library.editions().key(),
            prefixes: own.cloned().collect(),
        };
        if !http.is_empty() && (replicator.is_some() || !published.prefixes.is_empty()) {
            let node = settings.node.clone();
            let here = Here { node, http };
            let mirrors = &settings.mirrors;
            discovery = Some(Discovery::new(mirrors, &published, here, swarm));
        }
        let scrub = Scrub::new(&settings.store, library.clone(), metrics.clone());
        let users = bound.ftp.as_ref().map(ftp::Server::users);
        let secrets = Secrets::new(&settings, users, Arc::clone(&engine), certificates);
        secrets.load()?;
        let reloader = Reloader::new(
            source,
            settings.clone(),
            engine.keeper().clone(),
            secrets,
            engine.resolver().cloned(),
            metrics.clone(),
        );
        reloader.load_policy().await;
        let zones = reloader.load_zones(None).await.unwrap_or_default();
        if let Some(resolver) = engine.resolver() {
            restore(resolver.clone()).await;
        }
        let start_time = i64::try_from(started.unix_ms / 1_000).unwrap_or(i64::MAX);
        metrics.node.start_time.set(start_time);
        let handles = Arc::new(Handles {
            node: settings.node,
            state: settings.state,
            started,
            listeners: std::mem::take(&mut bound.listeners),
            store_size: settings.store.size,
            ready: AtomicBool::new(false),
            engine,
            library,
            store,
            proxy: bound.http.as_ref().and_then(Server::proxy),
            mirrors: replicator.as_ref().map(Replicator::handle),
            buckets: buckets.status(),
            reloader,
            metrics,
        });
        tracing::info!(node = handles.node, zones = zones.len(), "loaded");
        Ok(Loaded {
            bound,
            handles,
            publisher,
            buckets,
            replicator,
            discovery,
            scrub,
            links,
            dnssec: settings.dnssec,
        })
    }
}

/// Reads what the cache held when the node was stopped. A node that has much to read begins to serve meanwhile.
async fn restore(resolver: Resolver) {
    let Some(file) = resolver.file().map(Path::to_path_buf) else {
        return;
    };
    if !file.exists() {
        return;
    }
    let read = tokio::task::spawn_blocking(move || match resolver.load(&file) {
        Ok(loaded) => {
            tracing::info!(
                answers = loaded.entries,
                skipped = loaded.skipped,
                "cache taken over"
            );
            for problem in &loaded.problems {
                tracing::warn!(file = %file.display(), problem, "part of the cache was refused");
            }
        }
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "the cache was not taken over");
        }
    });
    let _ = tokio::time::timeout(RESTORE, read).await;
}

impl Loaded {
    fn spawn(self, runtimes: &Runtimes) -> Running {
        let Self {
            bound,
            handles,
            publisher,
            buckets,
            replicator,
            discovery,
            scrub,
            links,
            dnssec,
        } = self;
        let mut running = Running {
            store: handles.store.clone(),
            access_log: bound.http.as_ref().and_then(Server::access_log),
            handles,
            tasks: JoinSet::new(),
            names: HashMap::new(),
            accept: CancellationToken::new(),
            background: CancellationToken::new(),
        };
        let (accept, background) = (running.accept.clone(), running.background.clone());
        let handles = running.handles.clone();
        let mut heartbeat = None;
        if let Some(front) = bound.front {
            heartbeat = Some(front.heartbeat());
            let work = front.run(handles.engine.clone(), accept.clone());
            let work = runtimes.dns.spawn(work);
            // A panic over there is passed on, so that it is named here.
            running.spawn("dns", true, async move { work.await? });
            let keeper = handles.engine.keeper().clone();
            let metrics = handles.metrics.clone();
            let transfer = handles.engine.exchange().config().clone();
            let (at_once, stop) = (transfer.notifies, background.clone());
            let work = notifier::run(keeper.clone(), at_once, metrics.clone(), stop);
            let work = runtimes.dns.spawn(work);
            running.spawn("notify", false, async move { work.await? });
            let work = secondary::run(keeper, transfer, metrics, background.clone());
            let work = runtimes.dns.spawn(work);
            running.spawn("secondary", false, async move { work.await? });
        }
        let keeper = handles.engine.keeper().clone();
        running.spawn(
            "sign",
            false,
            again::run(keeper.clone(), background.clone()),
        );
        let work = ask::run(
            keeper,
            handles.engine.resolver().cloned(),
            dnssec,
            handles.metrics.clone(),
            background.clone(),
        );
        let work = runtimes.dns.spawn(work);
        running.spawn("parent", false, async move { work.await? });
        if let Some(http) = bound.http {
            running.spawn("http", true, http.run(accept));
        }
        if let Some(ftp) = bound.ftp {
            running.spawn("ftp", true, ftp.run(running.accept.clone()));
        }
        if let Some(pages) = bound.pages {
            let work = pages.run(handles.clone(), background.clone());
            running.spawn("metrics", false, work);
        }
        let work = bound.admin.run(handles.clone(), background.clone());
        running.spawn("admin", false, work);
        if let Some(publisher) = publisher {
            running.spawn("publish", false, publisher.run(background.clone()));
        }
        buckets.spawn(&mut running, &background);
        if let Some(replicator) = replicator {
            running.spawn("replicate", false, replicator.run(background.clone()));
        }
        if let Some(discovery) = discovery {
            running.spawn("discover", false, discovery.run(background.clone()));
        }
        let work = scrub.run(background.clone());
        running.spawn("scrub", false, async move {
            work.await;
            Ok(())
        });
        running.spawn("link", false, links.run(background.clone()));
        if let Some(interval) = systemd::watchdog() {
            let work = watchdog(interval, heartbeat, background);
            running.spawn("watchdog", false, work);
        }
        handles.ready.store(true, Ordering::Release);
        systemd::ready(&reload::summary(&handles.engine.keeper().zones()));
        running
    }
}

impl Running {
    fn spawn(
        &mut self,
        name: &'static str,
        accepts: bool,
        work: impl Future<Output = Result<(), anyhow::Error>> + Send + 'static,
    ) {
        let id = self.tasks.spawn(work).id();
        self.names.insert(id, Task { name, accepts });
    }

    /// Waits for a signal to stop, and reloads at each SIGHUP; or for a task that ends early.
    async fn wait(&mut self, signals: &mut Signals) -> Result<(), anyhow::Error> {
        let mut reloads: JoinSet<()> = JoinSet::new();
        loop {
            tokio::select! {
                name = signals.stop.asked() => {
                    tracing::info!(signal = name, "stopping");
                    return Ok(());
                }
                _ = signals.reload.recv() => {
                    tracing::info!("reloading");
                    if let Some(log) = &self.access_log {
                        log.reopen();
                    }
                    if let Some(log) = self.handles.engine.log() {
                        log.reopen();
                    }
                    let handles = self.handles.clone();
                    // Beside the loop: a signal to stop is heard during a long load too.
                    reloads.spawn(async move { drop(handles.reloader.all().await) });
                }
                Some(_) = reloads.join_next() => {}
                Some(ended) = self.tasks.join_next_with_id() => {
                    let (task, ended) = self.ended(ended);
                    let name = task.name;
                    return match ended {
                        Ok(()) => Err(anyhow!("task {name} ended early")),
                        Err(error) => Err(error.context(format!("task {name} failed"))),
                    };
                }
            }
        }
    }

    /// Stops what accepts and lets its clients be served, then the rest, then makes the store durable.
    async fn drain(mut self, signals: &mut Signals) -> Result<(), anyhow::Error> {
        systemd::stopping();
        self.handles.ready.store(false, Ordering::Release);
        self.accept.cancel();
        let mut late = Vec::new();
        tokio::select! {
            () = self.ends(|task| task.accepts) => {}
            () = tokio::time::sleep(ACCEPT_DRAIN) => late.extend(self.still(|task| task.accepts)),
            name = signals.stop.asked() => bail!("a second {name}: stopped at once"),
        }
        self.background.cancel();
        tokio::select! {
            () = self.ends(|task| !task.accepts) => {}
            () = tokio::time::sleep(BACKGROUND_DRAIN) => late.extend(self.still(|task| !task.accepts)),
            name = signals.stop.asked() => bail!("a second {name}: stopped at once"),
        }
        if !late.is_empty() {
            tracing::warn!(tasks = %late.join(", "), "cut off: did not end in time");
        }
        self.tasks.abort_all();
        let engine = self.handles.engine.clone();
        let closed = tokio::task::spawn_blocking(move || engine.log().map(QueryLog::close));
        if tokio::time::timeout(LOG_DRAIN, closed).await.is_err() {
            tracing::warn!("cut off: the query log was not written in time");
        }
        if let Some(resolver) = self.handles.engine.resolver()
            && let Some(file) = resolver.file().map(Path::to_path_buf)
        {
            let resolver = resolver.clone();
            let saved = tokio::task::spawn_blocking(move || resolver.save(&file));
            match tokio::time::timeout(FLUSH_DRAIN, saved).await {
                Ok(Ok(Ok(answers))) => tracing::info!(answers, "cache written"),
                Ok(Ok(Err(error))) => tracing::warn!(%error, "the cache was not written"),
                Ok(Err(error)) => tracing::warn!(%error, "the cache was not written"),
                Err(_) => tracing::warn!("cut off: the cache was not written in time"),
            }
        }
        let store = self.store.clone();
        let flushed = tokio::task::spawn_blocking(move || store.flush());
        match tokio::time::timeout(FLUSH_DRAIN, flushed).await {
            Ok(flushed) => flushed?.context("store: not made durable")?,
            Err(_) => tracing::warn!("cut off: the store was not durable in time"),
        }
        tracing::info!("stopped");
        Ok(())
    }

    /// Waits until no such task is left.
    async fn ends(&mut self, which: impl Fn(&Task) -> bool) {
        while self.names.values().any(&which) {
            let Some(ended) = self.tasks.join_next_with_id().await else {
                return;
            };
            if let (task, Err(error)) = self.ended(ended) {
                tracing::warn!(task = task.name, "ended with: {error:#}");
            }
        }
    }

    fn still(&self, which: impl Fn(&Task) -> bool) -> Vec<&'static str> {
        let tasks = self.names.values().filter(|t| which(t));
        tasks.map(|t| t.name).collect()
    }

    /// Name and result of a task that ended, a panic among the errors.
    fn ended(
        &mut self,
        ended: Result<(Id, Result<(), anyhow::Error>), tokio::task::JoinError>,
    ) -> (Task, Result<(), anyhow::Error>) {
        let (id, result) = match ended {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(error.into())),
        };
        let task = self.names.remove(&id).unwrap_or(Task {
            name: "unnamed",
            accepts: false,
        });
        (task, result)
    }
}

/// Tells systemd that the node is alive, as long as the DNS workers turn their loops and this runtime gets to run.
async fn watchdog(
    interval: Duration,
    heartbeat: Option<Heartbeat>,
    stop: CancellationToken,
) -> Result<(), anyhow::Error> {
    let mut every = tokio::time::interval(interval / 4);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = every.tick() => {}
        }
        let silent = heartbeat.as_ref().and_then(|h| h.silence(Now::read()));
        match silent {
            Some((worker, silence)) if silence > interval / 2 => {
                tracing::error!(worker, ?silence, "worker does not turn its loop");
            }
            _ => systemd::alive(),
        }
    }
}

/// The two runtimes: DNS does not feel the bytes.
struct Runtimes {
    /// HTTP, store, replication, control.
    http: Runtime,
    /// DNS over TCP and the slow path.
    dns: Runtime,
}

impl Runtimes {
    /// The threads of the first are counted in `threads`.
    fn new(settings: &Settings, threads: &IntGauge) -> Result<Self, anyhow::Error> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let builder = |name: &'static str, workers, blocking| {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder
                .worker_threads(workers)
                .max_blocking_threads(blocking)
                .thread_name(name)
                .enable_all();
            builder
        };
        let http_workers = match settings.http_workers {
            0 => cores,
            workers => workers,
        };
        let (begun, ended) = (threads.clone(), threads.clone());
        let http = builder("http", http_workers, settings.store.threads)
            .on_thread_start(move || begun.inc())
            .on_thread_stop(move || ended.dec())
            .build();
        let dns = builder("dns-slow", cores.min(4), 4).build();
        Ok(Self {
            http: http.context("runtime http")?,
            dns: dns.context("runtime dns-slow")?,
        })
    }

    /// Ends both; what still blocks is left to the process's end.
    fn shut_down(self) {
        self.dns.shutdown_timeout(Duration::from_millis(100));
        self.http.shutdown_timeout(Duration::from_millis(100));
    }
}

/// The signals a node listens to.
struct Signals {
    stop: Stop,
    reload: Signal,
}

/// The signals that end a node.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, anyhow::Error> {
        Ok(Self {
            stop: Stop {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
            },
            reload: signal(SignalKind::hangup())?,
        })
    }
}

impl Stop {
    /// Waits for SIGTERM or SIGINT. Cancel-safe.
    async fn asked(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// The state directory is this process's as long as it lives.
#[derive(Debug)]
struct Claim {
    _file: File,
}

impl Claim {
    fn take(state: &Path) -> Result<Self, anyhow::Error> {
        let path: PathBuf = state.join("lock");
        let what = || format!("state directory {}", state.display());
        std::fs::create_dir_all(state).with_context(what)?;
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).with_context(what)?;
        let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        match rustix::fs::flock(&file, exclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                // Only for the message.
                let _ = file.read_to_string(&mut pid);
                bail!(
                    "{}: in use by another headwater (process {})",
                    what(),
                    pid.trim()
                );
            }
            Err(error) => return Err(error).with_context(what),
        }
        file.set_len(0).with_context(what)?;
        file.rewind().with_context(what)?;
        writeln!(file, "{}", std::process::id()).with_context(what)?;
        Ok(Self { _file: file })
    }
}

/// Requests in work when the node is told to stop may end within this.
const ACCEPT_DRAIN: Duration = Duration::from_secs(5);

/// Replication, publishing and control stop within this.
const BACKGROUND_DRAIN: Duration = Duration::from_secs(1);

/// How long the query log may take to be written at the end.
const LOG_DRAIN: Duration = Duration::from_secs(5);

/// How long serving waits for what the cache held before.
const RESTORE: Duration = Duration::from_secs(1);

/// The store is made durable within this.
const FLUSH_DRAIN: Duration = Duration::from_secs(5);
