//! Asking servers: one question to one server, and everything that keeps the answer honest.
//!
//! From ground to roof: `target` (where to ask, and over what), `query` (bytes out, and whether what came back is the reply),
//! [`health`] (speed, life, choice), `dice`, `sockets` (UDP), `stream` (TCP, and DNS over TLS), `https` (DNS over HTTPS),
//! `secure` (the connections of both, and whom they trust), `server` (what is known of each), then [`Exchanger`]. Forwarding
//! and recursion both ask through it.
//!
//! A reply counts if it comes from the server asked to the port asked from, with the id drawn, the question in the case drawn
//! and, once a server gives cookies, ours. Anything else is counted and passed over, and the wait goes on: who forges
//! can neither be believed nor end the wait. What the reply then says is for the caller to check. An upstream that is to be asked
//! over TLS or HTTPS is never asked in the clear, whatever happens.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::RootCertStore;
use tokio::sync::Semaphore;

use self::query::{Edns, Sent, Signs};
use self::secure::{Secure, Trust};
use self::server::{Overdue, Zones};
use self::sockets::Sockets;
use self::stream::{Manners, Pipeline};
use super::budget::{Budget, Exhausted};
use crate::metrics::Metrics;
use crate::time::Now;

mod target;

mod query;

pub(crate) mod health;

mod dice;

mod sockets;

mod stream;

mod https;

mod secure;

mod server;

pub(crate) use self::query::Question;
pub(crate) use self::server::Server;
pub use self::target::{Target, Unreadable};

/// Bounds towards all servers.
#[derive(Clone, Debug)]
pub struct Config {
    /// UDP sockets at most.
    pub sockets: usize,
    /// Connections at most: TCP, TLS and HTTPS.
    pub streams: usize,
    /// How long connections over TLS and HTTPS are kept without a question.
    pub tls_idle: Duration,
    /// By when they must be open.
    pub tls_handshake: Duration,
    /// Who may vouch for upstreams over TLS and HTTPS.
    pub roots: Arc<RootCertStore>,
    /// Servers remembered.
    pub servers: usize,
    /// Fetches in flight to one server.
    pub fetches_per_server: usize,
    /// Questions beneath one zone that wait longer than is usual; with more no other is asked.
    pub fetches_per_zone: usize,
    /// Sends of one question to one server, over each transport (RFC 9520 section 3.1).
    pub sends: u32,
    /// Queries in flight on one connection; as many more may wait to be sent.
    pub stream_queries: usize,
    /// What servers may be asked over.
    pub families: Families,
}

impl Default for Config {
    /// As in `config/base.toml`, but nobody is trusted.
    fn default() -> Self {
        Self {
            sockets: 1_024,
            streams: 256,
            tls_idle: Duration::from_secs(60),
            tls_handshake: Duration::from_secs(3),
            roots: Arc::new(RootCertStore::empty()),
            servers: 10_000,
            fetches_per_server: 200,
            fetches_per_zone: 100,
            sends: 3,
            stream_queries: 200,
            families: Families {
                ip4: true,
                ip6: true,
            },
        }
    }
}

/// Address families that may be used towards servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// IPv4.
    pub ip4: bool,
    /// IPv6.
    pub ip6: bool,
}

/// Asks servers.
#[derive(Debug)]
pub(crate) struct Exchanger {
    config: Config,
    sockets: Sockets,
    servers: moka::sync::Cache<SocketAddr, Arc<Server>, foldhash::fast::RandomState>,
    streams: Arc<Semaphore>,
    /// The configured ones over TLS and HTTPS.
    encrypted: Mutex<HashMap<Target, Arc<Server>>>,
    trust: Trust,
    zones: Arc<Zones>,
    metrics: Arc<Metrics>,
}

impl Exchanger {
    /// Opens no socket yet. Must be called inside the DNS runtime.
    ///
    /// # Errors
    /// What the kernel said to epoll, or the TLS library.
    pub(crate) fn new(config: Config, metrics: Arc<Metrics>) -> io::Result<Self> {
        Ok(Self {
            sockets: Sockets::new(config.sockets, metrics.resolver.rejected.clone())?,
            servers: moka::sync::Cache::builder()
                .name("servers")
                .max_capacity(config.servers as u64)
                .eviction_policy(moka::policy::EvictionPolicy::lru())
                .build_with_hasher(foldhash::fast::RandomState::default()),
            streams: Arc::new(Semaphore::new(config.streams.min(Semaphore::MAX_PERMITS))),
            encrypted: Mutex::default(),
            trust: Trust::new(&config.roots)?,
            zones: Zones::new(config.fetches_per_zone),
            config,
            metrics,
        })
    }

    /// The server at `address`. Hold on to it where it is asked often.
    pub(crate) fn server(&self, address: SocketAddr) -> Arc<Server> {
        self.servers.get_with(address, || {
            Server::new(address, None, self.sockets.cookie(), &self.config)
        })
    }

    /// The server behind a configured upstream; those in the clear are as [`Exchanger::server`] knows them. To be called for
    /// as many as there are in the configuration.
    pub(crate) fn upstream(&self, target: &Target) -> Arc<Server> {
        let secure = || Secure::new(target, &self.trust, &self.config, &self.metrics);
        if target.is_clear() {
            return self.server(target.address());
        }
        let mut encrypted = self
            .encrypted
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let server = encrypted.entry(target.clone()).or_insert_with(|| {
            let cookie = self.sockets.cookie();
            Server::new(target.address(), secure(), cookie, &self.config)
        });
        Arc::clone(server)
    }

    /// Whether servers of the family of `address` may be asked.
    pub(crate) fn may_ask(&self, address: SocketAddr) -> bool {
        match address {
            SocketAddr::V4(_) => self.config.families.ip4,
            SocketAddr::V6(_) => self.config.families.ip6,
        }
    }

    /// Asks `server` until it replies, at most until `until`; returns the bytes of the reply, whatever its code.
    ///
    /// At most `sends` times over UDP, waiting as long as the server usually needs, then twice and four times that (a server
    /// that is itself a resolver: to the end, since it may have to ask others). Over TCP after TC, and when something about
    /// the datagrams is not as it should be. Without EDNS if the server does not understand it. Each packet is charged to
    /// `budget` before it is sent. Over TLS or HTTPS, and nothing else, if that is the server's way: each query counts as a
    /// packet, a new connection as two.
    ///
    /// # Errors
    /// [`ExchangeError`]. The server's health has been noted.
    pub(crate) async fn exchange(
        &self,
        server: &Arc<Server>,
        question: &Question<'_>,
        budget: &Budget,
        until: Now,
    ) -> Result<Vec<u8>, ExchangeError> {
        if !self.may_ask(server.address()) {
            let error = io::Error::from(io::ErrorKind::AddrNotAvailable);
            return Err(ExchangeError::Unreachable(error));
        }
        let Some(zone) = self.zones.admit(question.zone) else {
            self.metrics.resolver.limits.zone_fetches.inc();
            return Err(ExchangeError::Busy);
        };
        let _seat = self.seat(server, until).await?;
        if self.zones.admit(question.zone).is_none() {
            // It fell ill while this waited.
            self.metrics.resolver.limits.zone_fetches.inc();
            return Err(ExchangeError::Busy);
        }
        let mut asking = Asking {
            exchanger: self,
            server,
            question,
            budget,
            until,
            zone,
            overdue: None,
            plain: false,
            datagrams: 0,
            messages: 0,
        };
        let mut streaming = server.secure.is_some();
        loop {
            let reply = if let Some(secure) = &server.secure {
                // Boxed, as TCP is, so that over UDP nobody carries them along.
                Box::pin(asking.over_tls(secure)).await?
            } else if streaming {
                Box::pin(asking.over_stream()).await?
            } else {
                match asking.over_udp().await? {
                    Some(reply) => reply,
                    None => {
                        streaming = true;
                        continue;
                    }
                }
            };
            match asking.weigh(&reply, streaming)? {
                Weighed::Reply => return Ok(reply),
                Weighed::AskAgain => {}
                Weighed::AskByStream => streaming = true,
            }
        }
    }

    async fn seat<'s>(
        &self,
        server: &'s Server,
        until: Now,
    ) -> Result<tokio::sync::SemaphorePermit<'s>, ExchangeError> {
        if let Ok(seat) = server.seats.try_acquire() {
            return Ok(seat);
        }
        self.metrics.resolver.limits.server_fetches.inc();
        let left = until.since(Now::read());
        match tokio::time::timeout(left, server.seats.acquire()).await {
            Ok(Ok(seat)) => Ok(seat),
            Ok(Err(_)) | Err(_) => Err(ExchangeError::Busy),
        }
    }

    /// The bound of one connection.
    fn pipeline(&self) -> Pipeline {
        Pipeline {
            queries: self.config.stream_queries,
            waited: self.metrics.resolver.limits.stream_queries.clone(),
        }
    }

    /// Closes what has rested too long; sets the gauges. To be called now and then.
    pub(crate) fn tidy(&self, now: Now) {
        let open = self.sockets.tidy(now);
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.resolver.sockets.set(gauge(open));
        let streams = self
            .config
            .streams
            .saturating_sub(self.streams.available_permits());
        self.metrics.resolver.streams.set(gauge(streams));
    }
}

/// One question to one server, under way.
struct Asking<'a> {
    exchanger: &'a Exchanger,
    server: &'a Arc<Server>,
    question: &'a Question<'a>,
    budget: &'a Budget,
    until: Now,
    /// The zone's mark, and that it takes longer than usual.
    zone: u64,
    overdue: Option<Overdue>,
    /// Without EDNS from here on.
    plain: bool,
    /// Sent so far.
    datagrams: u32,
    messages: u32,
}

/// What is to be done about a reply.
enum Weighed {
    /// It is the answer.
    Reply,
    AskAgain,
    AskByStream,
}

impl<'a> Asking<'a> {
    /// The reply to a datagram; `None`: something forged its replies, or a server does not repeat case.
    async fn over_udp(&mut self) -> Result<Option<Vec<u8>>, ExchangeError> {
        let server = self.server;
        let metrics = &self.exchanger.metrics.resolver;
        let began = Now::read();
        let drawn = self.exchanger.sockets.take(server.address(), began);
        let drawn = drawn.map_err(|error| self.unreachable(error))?;
        let Some(drawn) = drawn else {
            metrics.limits.sockets.inc();
            return Err(ExchangeError::Busy);
        };
        let cookie = self.cookie(began);
        let edns = cookie.as_ref().map_or(Edns::Absent, Edns::Cookie);
        let sent = Sent::new(self.question, drawn.id, Some(drawn.case), edns);
        let expected = drawn.expect(sent);
        let mut wait = server.health().patience();
        let mut now = began;
        let sends = self.exchanger.config.sends;
        while self.datagrams < sends {
            self.pay()?;
            self.datagrams += 1;
            if now != began {
                metrics.retransmissions.inc();
            }
            expected.send().map_err(|error| self.unreachable(error))?;
            let left = self.until.since(now);
            let last = self.datagrams == sends && self.question.recursion_desired;
            let patience = if last { left } else { wait.min(left) };
            match tokio::time::timeout(patience, poll_fn(|cx| expected.poll(cx))).await {
                Ok(Ok(reply)) => {
                    server.answered(Now::read().since(began));
                    return Ok(Some(reply));
                }
                Ok(Err(error)) => return Err(self.unreachable(error)),
                Err(_) => now = Now::read(),
            }
            if self.datagrams == sends {
                metrics.limits.sends.inc();
            }
            // One question counts once, however often it is sent: a resolver may be slow with one name and not with others.
            if self.datagrams == 1 {
                server.fell_silent(now);
            }
            if self.until.since(now).is_zero() {
                return Err(ExchangeError::TimeUp);
            }
            self.is_overdue()?;
            if expected.saw_odd_case() {
                return Ok(None);
            }
            wait *= 2;
        }
        server.is_unreachable(now);
        Err(ExchangeError::Silent)
    }

    /// It takes longer than usual: takes its place among those of its zone, or gives up.
    fn is_overdue(&mut self) -> Result<(), ExchangeError> {
        if self.overdue.is_none() {
            self.overdue = Some(self.place_among_overdue()?);
        }
        Ok(())
    }

    fn place_among_overdue(&self) -> Result<Overdue, ExchangeError> {
        self.exchanger.zones.is_overdue(self.zone).ok_or_else(|| {
            self.exchanger.metrics.resolver.limits.zone_fetches.inc();
            ExchangeError::Busy
        })
    }

    /// The reply over TCP, on the connection there is or a new one.
    async fn over_stream(&mut self) -> Result<Vec<u8>, ExchangeError> {
        let server = self.server;
        while self.messages < self.exchanger.config.sends {
            if !server.line.is_open() {
                self.connect().await?;
            }
            self.pay()?;
            self.messages += 1;
            let began = Now::read();
            let cookie = self.cookie(began);
            let edns = cookie.as_ref().map_or(Edns::Absent, Edns::Cookie);
            let sent = Sent::new(self.question, 0, None, edns);
            let left = self.until.since(began);
            let patience = if self.question.recursion_desired {
                left
            } else {
                left.min(STREAM_PATIENCE)
            };
            match tokio::time::timeout(patience, server.line.ask(sent)).await {
                Ok(Ok(Ok(reply))) => {
                    server.lives();
                    return Ok(reply);
                }
                // The connection has ended, as an old one may at any time.
                Ok(Ok(Err(_)) | Err(_)) => {}
                Err(_) => {
                    let now = Now::read();
                    server.fell_silent(now);
                    return Err(if self.until.since(now).is_zero() {
                        ExchangeError::TimeUp
                    } else {
                        ExchangeError::Silent
                    });
                }
            }
        }
        self.exchanger.metrics.resolver.limits.sends.inc();
        Err(ExchangeError::Broken)
    }

    /// The reply over TLS or HTTPS.
    async fn over_tls(&mut self, secure: &Arc<Secure>) -> Result<Vec<u8>, ExchangeError> {
        let (server, began) = (self.server, Now::read());
        let left = self.until.since(began);
        let patience = server.health().patience().min(left);
        let asked = {
            // Without the rest of `self`: what is overdue is noted while this goes on.
            let mut ask = pin!(self.ask_over_tls(secure));
            match tokio::time::timeout(patience, ask.as_mut()).await {
                Ok(asked) => asked,
                Err(_) => {
                    server.fell_silent(Now::read());
                    let _overdue = self.place_among_overdue()?;
                    let left = self.until.since(Now::read());
                    let timed = tokio::time::timeout(left, ask);
                    timed.await.unwrap_or(Err(ExchangeError::TimeUp))
                }
            }
        };
        match asked {
            Ok((reply, messages, took)) => {
                self.messages += messages;
                server.answered(took);
                secure.answered();
                Ok(reply)
            }
            Err(error) => {
                let now = Now::read();
                let health = server.health();
                // While it rests it is no deader than it was.
                let news = !health.is_dead() || health::due(&[health], now).is_some();
                match &error {
                    ExchangeError::Insecure(_) | ExchangeError::Broken if news => {
                        server.is_unreachable(now);
                    }
                    ExchangeError::Unfit(problem) => secure.complain(problem),
                    _ => {}
                }
                Err(error)
            }
        }
    }

    /// The reply, the queries it took, and how long the last of them.
    async fn ask_over_tls(
        &self,
        secure: &Arc<Secure>,
    ) -> Result<(Vec<u8>, u32, Duration), ExchangeError> {
        let streams = &self.exchanger.streams;
        let most = self.exchanger.config.sends;
        for sends in 1..=most.saturating_sub(self.messages) {
            let channel = secure.channel(streams, || self.pay()).await?;
            self.pay()?;
            let began = Now::read();
            let edns = match self.cookie(began) {
                None => Edns::Absent,
                // Who answers has shown who it is: no cookie is needed.
                Some(_) => Edns::Padded {
                    keepalive: secure.keeps_alive(),
                },
            };
            let sent = Sent::new(self.question, 0, None, edns);
            match channel.ask(sent).await {
                Ok(reply) => return Ok((reply, sends, Now::read().since(began))),
                // The connection has ended, as an old one may at any time.
                Err(ExchangeError::Broken) => {}
                Err(error) => return Err(error),
            }
        }
        self.exchanger.metrics.resolver.limits.sends.inc();
        Err(ExchangeError::Broken)
    }

    /// Opens a connection, unless somebody else has meanwhile.
    async fn connect(&self) -> Result<(), ExchangeError> {
        let server = self.server;
        let left = self.until.since(Now::read()).min(STREAM_PATIENCE);
        let connect = async {
            let _opening = server.opening.lock().await;
            if server.line.is_open() {
                return Ok(());
            }
            let Ok(permit) = Arc::clone(&self.exchanger.streams).try_acquire_owned() else {
                self.exchanger.metrics.resolver.limits.streams.inc();
                return Err(ExchangeError::Busy);
            };
            self.pay()?;
            let stream = tokio::net::TcpStream::connect(server.address()).await;
            let stream = stream.map_err(|error| self.unreachable(error))?;
            // Queries are small and written whole.
            let _ = stream.set_nodelay(true);
            let manners = Manners {
                idle: STREAM_IDLE,
                silence: STREAM_IDLE,
                pipeline: self.exchanger.pipeline(),
            };
            let carry = server.line.open(stream, manners);
            tokio::spawn(async move {
                carry.await;
                drop(permit);
            });
            Ok(())
        };
        match tokio::time::timeout(left, connect).await {
            Ok(result) => result,
            Err(_) => {
                server.fell_silent(Now::read());
                Err(ExchangeError::Silent)
            }
        }
    }

    /// What header and OPT of a reply ask for.
    fn weigh(&mut self, reply: &[u8], streaming: bool) -> Result<Weighed, ExchangeError> {
        let server = self.server;
        let signs = Signs::read(reply).ok_or(ExchangeError::Broken)?;
        let now = Now::read();
        let sent_edns = self.cookie(now).is_some();
        let lacks_cookie = sent_edns && server.secure.is_none() && server.lacks_cookie(&signs);
        if sent_edns && matches!(signs.rcode, FORMERR | NOTIMP | BADVERS) {
            self.plain = true;
            return Ok(Weighed::AskAgain);
        }
        if self.plain && !matches!(signs.rcode, FORMERR | NOTIMP) {
            server.is_plain(now);
        }
        if signs.rcode == BADCOOKIE {
            // With the cookie it has just given; and if that was not it, where none is needed (RFC 7873 section 5.3).
            return if streaming {
                Err(ExchangeError::Broken)
            } else if self.datagrams < 2 {
                Ok(Weighed::AskAgain)
            } else {
                Ok(Weighed::AskByStream)
            };
        }
        if streaming {
            if lacks_cookie {
                server.forget_cookie();
            }
            return Ok(Weighed::Reply);
        }
        Ok(if signs.truncated || lacks_cookie {
            Weighed::AskByStream
        } else {
            Weighed::Reply
        })
    }

    /// The cookie to send; `None`: no EDNS.
    fn cookie(&self, now: Now) -> Option<query::Cookie> {
        if self.plain {
            return None;
        }
        self.server.cookie(now)
    }

    fn pay(&self) -> Result<(), ExchangeError> {
        self.budget.charge_packet()?;
        self.exchanger.metrics.resolver.upstream_packets.inc();
        Ok(())
    }

    fn unreachable(&self, error: io::Error) -> ExchangeError {
        self.server.is_unreachable(Now::read());
        ExchangeError::Unreachable(error)
    }
}

/// Why there is no reply. What to do next: after [`ExchangeError::is_final`] nothing, else ask another server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// The client query may send no more.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// The client query has no time left.
    #[error("out of time")]
    TimeUp,
    /// The server did not reply as often as it was asked.
    #[error("no reply")]
    Silent,
    /// There is no way to the server, or nobody listens there.
    #[error("not reached: {0}")]
    Unreachable(#[source] io::Error),
    /// What it replied makes no sense.
    #[error("the reply makes no sense")]
    Broken,
    /// A bound of ours was reached; it has been counted.
    #[error("too many queries in flight")]
    Busy,
    /// There is no encrypted connection to it, and no other is wanted.
    #[error("no encrypted connection: {0}")]
    Insecure(Arc<str>),
    /// It answered over HTTPS, but with no reply.
    #[error("{0}")]
    Unfit(String),
}

impl ExchangeError {
    /// Whether no other server may be asked either.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Exhausted(_) | Self::TimeUp)
    }
}

/// How long a connection or an answer over one may take, unless the server is a resolver.
const STREAM_PATIENCE: Duration = Duration::from_secs(2);

/// A TCP connection without a word is closed after this.
const STREAM_IDLE: Duration = Duration::from_secs(10);

const FORMERR: u16 = 1;
const NOTIMP: u16 = 4;
const BADVERS: u16 = 16;
const BADCOOKIE: u16 = 23;
