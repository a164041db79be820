//! TLS and HTTPS to one upstream: one connection, opened when somebody asks, kept while somebody does.
//!
//! It is opened by a task of its own, so that a handshake goes on though the client that wanted it has been answered by
//! another upstream meanwhile. One that fails, or ends before it gave an answer, is tried again ever more rarely. There is
//! no way from here to asking in the clear.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::health::Backoff;
use super::https;
use super::query::Sent;
use super::stream::{self, End, Job, Manners, Pipeline};
use super::target::{Target, Way};
use super::{Config, ExchangeError};
use crate::metrics::Metrics;
use crate::time::Now;

/// What all encrypted upstreams share: whom they trust, and sessions to resume.
pub(super) struct Trust {
    tls: Arc<ClientConfig>,
    https: Arc<ClientConfig>,
}

/// The way to one upstream.
pub(super) struct Secure {
    target: Target,
    name: ServerName<'static>,
    client: Arc<ClientConfig>,
    config: Config,
    state: watch::Sender<State>,
    care: Mutex<Care>,
    metrics: Arc<Metrics>,
}

#[derive(Clone, Debug)]
enum State {
    Closed,
    /// A task is about it.
    Opening,
    Open(Channel),
}

/// An open connection.
#[derive(Clone, Debug)]
pub(super) enum Channel {
    Tls(mpsc::Sender<Job>),
    Https(https::Channel),
}

/// What became of the connections so far.
#[derive(Debug, Default)]
struct Care {
    backoff: Backoff,
    /// Whether the one that is open has given an answer.
    answered: bool,
    /// What went wrong last, until an answer comes.
    problem: Option<Arc<str>>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no connection: {0}")]
    Unreachable(#[source] io::Error),
    #[error("no handshake within {0:?}")]
    TimeUp(Duration),
    #[error("its certificate does not hold: {0}")]
    Certificate(#[source] rustls::Error),
    #[error("the handshake failed: {0}")]
    Handshake(#[source] io::Error),
    #[error("it does not speak HTTP/2")]
    NoHttp2,
    #[error("HTTP/2: {0}")]
    Http2(#[source] hyper::Error),
    #[error("the connection gave no answer: {0}")]
    Useless(End),
}

impl Trust {
    pub(super) fn new(roots: &Arc<RootCertStore>) -> io::Result<Self> {
        let client = |protocol: &[u8]| {
            let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
            let mut config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(io::Error::other)?
                .with_root_certificates(Arc::clone(roots))
                .with_no_client_auth();
            config.alpn_protocols = vec![protocol.to_vec()];
            // Early data stays off: who records it can send it again.
            config.resumption = Resumption::in_memory_sessions(SESSIONS);
            Ok::<_, io::Error>(Arc::new(config))
        };
        Ok(Self {
            tls: client(b"dot")?,
            https: client(b"h2")?,
        })
    }
}

impl Secure {
    /// The way to `target`; `None`: it is asked in the clear.
    pub(super) fn new(
        target: &Target,
        trust: &Trust,
        config: &Config,
        metrics: &Arc<Metrics>,
    ) -> Option<Arc<Self>> {
        let (name, client) = match &target.way {
            Way::Clear => return None,
            Way::Tls(name) => (name, &trust.tls),
            Way::Https(name, _) => (name, &trust.https),
        };
        Some(Arc::new(Self {
            target: target.clone(),
            name: name.clone(),
            client: Arc::clone(client),
            config: config.clone(),
            state: watch::Sender::new(State::Closed),
            care: Mutex::default(),
            metrics: Arc::clone(metrics),
        }))
    }

    fn address(&self) -> SocketAddr {
        self.target.address
    }

    /// Whether queries over it ask how long the connection may be idle.
    pub(super) fn keeps_alive(&self) -> bool {
        matches!(self.target.way, Way::Tls(_))
    }

    /// The connection there is, or a new one. `pay` is called once for each packet of ours that opening takes.
    pub(super) async fn channel(
        self: &Arc<Self>,
        streams: &Arc<Semaphore>,
        pay: impl Fn() -> Result<(), ExchangeError>,
    ) -> Result<Channel, ExchangeError> {
        let mut states = self.state.subscribe();
        loop {
            let state = states.borrow_and_update().clone();
            match state {
                State::Open(channel) if channel.is_open() => return Ok(channel),
                State::Opening => {
                    // Who sends is `self`.
                    let _ = states.changed().await;
                    continue;
                }
                State::Open(_) | State::Closed => {}
            }
            if let Some(problem) = self.rests(Now::read()) {
                return Err(ExchangeError::Insecure(problem));
            }
            let Some(opening) = Opening::claim(self) else {
                continue;
            };
            let Ok(permit) = Arc::clone(streams).try_acquire_owned() else {
                self.metrics.resolver.limits.streams.inc();
                return Err(ExchangeError::Busy);
            };
            // The connection, and the handshake.
            pay()?;
            pay()?;
            tokio::spawn(opening.run(permit));
        }
    }

    /// An answer came: all is well.
    pub(super) fn answered(&self) {
        let mut care = self.care();
        care.answered = true;
        care.backoff.worked();
        if care.problem.take().is_some() {
            tracing::info!(upstream = %self.target, "upstream answers again");
        }
    }

    /// Something is wrong with what it says, though the connection holds.
    pub(super) fn complain(&self, problem: &str) {
        let mut care = self.care();
        if care.problem.as_deref() != Some(problem) {
            tracing::warn!(upstream = %self.target, problem, "upstream is of no use");
            care.problem = Some(problem.into());
        }
    }

    /// What is wrong, if something is.
    pub(super) fn problem(&self) -> Option<Arc<str>> {
        self.care().problem.clone()
    }

    /// How the connection is: `"open"`, `"opening"` or `"closed"`.
    pub(super) fn connection(&self) -> &'static str {
        match &*self.state.borrow() {
            State::Open(channel) if channel.is_open() => "open",
            State::Opening => "opening",
            State::Open(_) | State::Closed => "closed",
        }
    }

    /// Why no connection is to be tried at `now`.
    fn rests(&self, now: Now) -> Option<Arc<str>> {
        let care = self.care();
        let problem = || care.problem.clone().unwrap_or_else(|| "".into());
        care.backoff.rests(now).then(problem)
    }

    fn failed(&self, failure: &Failure) {
        let handshakes = &self.metrics.resolver.handshakes;
        match failure {
            Failure::Unreachable(_) => Some(&handshakes.unreachable),
            Failure::TimeUp(_) => Some(&handshakes.timeout),
            Failure::Certificate(_) => Some(&handshakes.certificate),
            Failure::Handshake(_) | Failure::NoHttp2 | Failure::Http2(_) => {
                Some(&handshakes.failed)
            }
            Failure::Useless(_) => None,
        }
        .inspect(|counter| counter.inc());
        self.care().backoff.failed(Now::read());
        self.complain(&failure.to_string());
    }

    /// Over TCP, with the certificate it should have.
    async fn shake(&self) -> Result<TlsStream<TcpStream>, Failure> {
        let stream = TcpStream::connect(self.address()).await;
        let stream = stream.map_err(Failure::Unreachable)?;
        // Queries are small and written whole.
        let _ = stream.set_nodelay(true);
        let connector = TlsConnector::from(Arc::clone(&self.client));
        connector
            .connect(self.name.clone(), stream)
            .await
            .map_err(|error| match tls_error(&error) {
                Some(certificate @ rustls::Error::InvalidCertificate(_)) => {
                    Failure::Certificate(certificate.clone())
                }
                _ => Failure::Handshake(error),
            })
    }

    /// A new connection, and what carries it to its end.
    async fn open(&self) -> Result<(Channel, BoxFuture<'static, End>), Failure> {
        let stream = self.shake().await?;
        let session = stream.get_ref().1;
        let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        let (channel, connection) = match &self.target.way {
            Way::Https(_, uri) => {
                if session.alpn_protocol() != Some(b"h2") {
                    return Err(Failure::NoHttp2);
                }
                let idle = self.config.tls_idle;
                let opened = https::open(stream, uri.clone(), idle, self.pipeline()).await;
                let (channel, connection) = opened.map_err(Failure::Http2)?;
                (Channel::Https(channel), connection.boxed())
            }
            Way::Tls(_) | Way::Clear => {
                let manners = Manners {
                    idle: self.config.tls_idle,
                    silence: SILENCE,
                    pipeline: self.pipeline(),
                };
                let (sender, jobs) = mpsc::channel(manners.pipeline.queries);
                let connection = stream::carry(stream, jobs, manners);
                (Channel::Tls(sender), connection.boxed())
            }
        };
        let handshakes = &self.metrics.resolver.handshakes;
        if resumed {
            handshakes.resumed.inc();
        } else {
            handshakes.full.inc();
        }
        self.care().answered = false;
        Ok((channel, connection))
    }

    fn pipeline(&self) -> Pipeline {
        Pipeline {
            queries: self.config.stream_queries,
            waited: self.metrics.resolver.limits.stream_queries.clone(),
        }
    }

    fn care(&self) -> MutexGuard<'_, Care> {
        self.care.lock().expect("nothing panics while it is held")
    }
}

impl fmt::Debug for Secure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secure")
            .field("target", &self.target)
            .field("state", &self.state)
            .field("care", &self.care)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").finish_non_exhaustive()
    }
}

/// What TLS itself said.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

impl Channel {
    /// The reply to `sent`.
    ///
    /// # Errors
    /// What is wrong, or [`ExchangeError::Broken`]: the connection has ended.
    pub(super) async fn ask(&self, sent: Sent) -> Result<Vec<u8>, ExchangeError> {
        match self {
            Self::Tls(jobs) => match stream::ask(jobs, sent).await {
                Ok(Ok(reply)) => Ok(reply),
                Ok(Err(_)) | Err(_) => Err(ExchangeError::Broken),
            },
            Self::Https(channel) => channel.ask(&sent).await,
        }
    }

    fn is_open(&self) -> bool {
        match self {
            Self::Tls(jobs) => !jobs.is_closed(),
            Self::Https(channel) => channel.is_open(),
        }
    }
}

/// The right to open the connection. Dropped, those who wait see that there is none.
struct Opening {
    secure: Arc<Secure>,
    opened: bool,
}

impl Opening {
    /// `None`: somebody else has it, or there is a connection.
    fn claim(secure: &Arc<Secure>) -> Option<Self> {
        let claimed = secure.state.send_if_modified(|state| match state {
            State::Opening => false,
            State::Open(channel) if channel.is_open() => false,
            State::Open(_) | State::Closed => {
                *state = State::Opening;
                true
            }
        });
        claimed.then(|| Self {
            secure: Arc::clone(secure),
            opened: false,
        })
    }

    /// Opens the connection and carries it to its end.
    async fn run(mut self, _permit: OwnedSemaphorePermit) {
        let secure = Arc::clone(&self.secure);
        let handshake = secure.config.tls_handshake;
        let failure = match tokio::time::timeout(handshake, secure.open()).await {
            Ok(Ok((channel, connection))) => {
                secure.state.send_replace(State::Open(channel));
                self.opened = true;
                match connection.await {
                    End::Idle => return,
                    _ if secure.care().answered => return,
                    end => Failure::Useless(end),
                }
            }
            Ok(Err(failure)) => failure,
            Err(_) => Failure::TimeUp(handshake),
        };
        secure.failed(&failure);
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.secure.state.send_if_modified(|state| {
            let over = match state {
                State::Opening => !self.opened,
                // Another one may have been opened since.
                State::Open(channel) => !channel.is_open(),
                State::Closed => false,
            };
            if over {
                *state = State::Closed;
            }
            over
        });
    }
}

/// A connection with questions and without a word for so long is taken for broken: half of the time a client query has.
pub(super) const SILENCE: Duration = Duration::from_millis(2_500);

/// Sessions kept to be resumed, for all upstreams of one transport.
const SESSIONS: usize = 64;
