//! One HTTP connection, from its first byte to its end.
//!
//! It begins without hyper: plain requests are answered by [`super::quick`], and many a client sends nothing else. hyper comes, with
//! its buffers, when there is something to think about, for the protocol that the first bytes show. It could tell the two apart
//! itself, but its HTTP/1 would then get the first head in two parts, and take a buffer of twice the size for the second.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Config;
use super::body::Body;
use super::line::Line;
use super::object::{self, Answer, Site};
use super::proxy;
use super::receipt::Client;
use super::seldom::Seldom;
use super::watch::{Judgement, Limits, Pulse, Watch};
use super::wire::{Begun, Watched, Wire};
use crate::metrics::http::Closed;
use crate::net;
use crate::time::Now;

/// What all connections are served by.
pub(super) struct Terms {
    http1: Builder<Spawn>,
    http2: Builder<Spawn>,
    limits: Limits,
    /// A TLS handshake must be done within this.
    handshake: Duration,
    /// Bytes the kernel may hold unsent for one connection.
    unsent: u32,
    pub(super) site: Arc<Site>,
    pub(super) stop: CancellationToken,
}

impl Terms {
    /// Serves `site` by the limits of `config` until `stop`; what connections spawn goes to `tracker`.
    pub(super) fn new(
        config: &Config,
        site: Arc<Site>,
        tracker: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let builder = builder(config, tracker);
        Self {
            http1: builder.clone().http1_only(),
            http2: builder.http2_only(),
            limits: Limits::new(config),
            handshake: config.tls_handshake,
            unsent: config.unsent,
            site,
            stop,
        }
    }
}

/// Serves HTTP on `stream`, within TLS or not; says why the connection ended.
pub(super) async fn speak(
    stream: TcpStream,
    address: IpAddr,
    tls: Option<TlsAcceptor>,
    terms: &Terms,
) -> Closed {
    let frames = Arc::clone(&terms.site.frames);
    let pace = Arc::clone(terms.site.swarm.pace());
    let line = Line::new(stream, net::holder(address), terms.unsent, frames, pace);
    let pulse = Arc::new(Pulse::default());
    let wire = Wire::new(line.clone(), Arc::clone(&pulse));
    let client = Client {
        site: Arc::clone(&terms.site),
        address,
        encrypted: tls.is_some(),
        line: line.clone(),
        pulse,
    };
    match tls {
        None => serve(wire, line, client, terms).await,
        Some(tls) => match shake(tls, wire, terms).await {
            Ok(stream) => serve(stream, line, client, terms).await,
            Err(reason) => reason,
        },
    }
}

/// Shakes hands; or says why the connection ended.
async fn shake(
    tls: TlsAcceptor,
    wire: Wire,
    terms: &Terms,
) -> Result<Box<TlsStream<Wire>>, Closed> {
    let shaken = tokio::time::timeout(terms.handshake, tls.accept(wire));
    tokio::select! {
        shaken = shaken => match shaken {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "TLS handshake failed");
                Err(Closed::Unshaken)
            }
            Err(_) => Err(Closed::TlsHandshake),
        },
        () = terms.stop.cancelled() => Err(Closed::Stop),
    }
}

/// Serves one connection to its end; says why it ended.
async fn serve<S>(stream: S, line: Line, client: Client, terms: &Terms) -> Closed
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let client = Arc::new(client);
    let mut watched = Watched::new(stream, line, &client);
    let stop = pin!(terms.stop.cancelled());
    let mut guard = Guard::new(&client, terms, stop);
    let begun = poll_fn(|cx| match watched.poll_begin(cx) {
        Poll::Ready(begun) => Poll::Ready(Ok(begun)),
        Poll::Pending => guard.poll(cx).map(Err),
    });
    let (builder, end) = match begun.await {
        Ok(Ok(Begun::Http1)) => (&terms.http1, None),
        Ok(Ok(Begun::Http2)) => (&terms.http2, None),
        Ok(Ok(Begun::Ended)) => return Closed::Done,
        Ok(Err(_)) => return Closed::Broken,
        Err(End::Close(reason)) => return reason,
        // To hyper an end in good order is nothing special.
        Err(end) => (&terms.http1, Some(end)),
    };
    Box::pin(converse(builder, watched, client, guard, end)).await
}

/// Lets hyper serve what has begun, and end it in good order when it is to `end`; says why it ended.
async fn converse<S, F>(
    builder: &Builder<Spawn>,
    watched: Watched<S>,
    client: Arc<Client>,
    mut guard: Guard<F>,
    mut end: Option<End>,
) -> Closed
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = ()> + Unpin,
{
    let connection = builder.serve_connection(TokioIo::new(watched), Handler(client));
    let mut connection = pin!(connection);
    loop {
        match end.take() {
            None => {}
            Some(End::Close(reason)) => return reason,
            Some(End::Stop | End::Idle) => connection.as_mut().graceful_shutdown(),
        }
        let turn = poll_fn(|cx| match connection.as_mut().poll(cx) {
            Poll::Ready(ended) => Poll::Ready(Ok(ended)),
            Poll::Pending => guard.poll(cx).map(Err),
        });
        match turn.await {
            Ok(ended) => return guard.reason(ended),
            Err(asked) => end = Some(asked),
        }
    }
}

/// Ends a connection when the node stops, or it does too little.
struct Guard<F> {
    /// The stop, until it has come.
    stop: Option<Seldom<F>>,
    watch: Watch,
    step: Seldom<Interval>,
    client: Arc<Client>,
}

/// How a connection is to end.
enum End {
    /// In good order, since the node stops.
    Stop,
    /// In good order, since it is idle.
    Idle,
    /// At once.
    Close(Closed),
}

impl<F: Future<Output = ()> + Unpin> Guard<F> {
    fn new(client: &Arc<Client>, terms: &Terms, stop: F) -> Self {
        let mut step = interval(terms.limits.step());
        step.set_missed_tick_behavior(MissedTickBehavior::Delay);
        step.reset();
        Self {
            stop: Some(Seldom::new(stop)),
            watch: Watch::new(terms.limits, Now::read()),
            step: Seldom::new(step),
            client: Arc::clone(client),
        }
    }

    /// Ready when the connection is to end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Some(stop) = &mut self.stop
            && Pin::new(stop).poll(cx).is_ready()
        {
            self.stop = None;
            return Poll::Ready(End::Stop);
        }
        loop {
            ready!(self.step.poll(cx, Interval::poll_tick));
            let client = &self.client;
            match self.watch.judge(&client.pulse, &client.line, Now::read()) {
                Judgement::Keep => {}
                Judgement::Finish => return Poll::Ready(End::Idle),
                Judgement::Close(reason) => {
                    tracing::debug!(address = %client.address, ?reason, "connection closed");
                    return Poll::Ready(End::Close(reason));
                }
            }
        }
    }

    /// Why a connection ended that hyper says has `ended`.
    fn reason(&self, ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) -> Closed {
        match ended {
            _ if self.client.pulse.fault() => Closed::Protocol,
            Err(error) if net::is_flood(&*error) => Closed::Flood,
            Err(error) if is_parse(&*error) => Closed::Protocol,
            Ok(()) if self.watch.finishing() => Closed::Idle,
            _ if self.stop.is_none() => Closed::Stop,
            Ok(()) => Closed::Done,
            Err(_) => Closed::Broken,
        }
    }
}

/// Whether a connection ended for what the client sent.
fn is_parse(error: &(dyn std::error::Error + 'static)) -> bool {
    error
        .downcast_ref::<hyper::Error>()
        .is_some_and(hyper::Error::is_parse)
}

/// Hands requests to the proxy or to [`object::answer`].
struct Handler(Arc<Client>);

impl Service<Request<Incoming>> for Handler {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        if let Some(proxy) = &self.0.site.proxy
            && let Some((rule, _)) = proxy.takes(&request)
        {
            return proxy::serve::answer(proxy, &self.0, rule, request);
        }
        object::answer(&self.0, request)
    }
}

/// Spawns HTTP/2 streams where the stop waits for them.
#[derive(Clone)]
struct Spawn(TaskTracker);

impl<F> hyper::rt::Executor<F> for Spawn
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

fn builder(config: &Config, tracker: &TaskTracker) -> Builder<Spawn> {
    let mut builder = Builder::new(Spawn(tracker.clone()));
    builder
        .http1()
        .timer(TokioTimer::new())
        // `watch` bounds heads: hyper's timeout would arm a timer for every request.
        .header_read_timeout(None)
        // The read buffer holds a whole head, so its size is the head's bound.
        .max_buf_size(config.head_size.max(BUFFER_MIN));
    // hyper fills its header table for every request once a bound is set, even for its own default.
    if config.headers != HYPER_HEADERS {
        builder.http1().max_headers(config.headers);
    }
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.streams)
        .max_header_list_size(config.header_list)
        .max_pending_accept_reset_streams(config.resets)
        .max_local_error_reset_streams(config.error_resets)
        .max_send_buf_size(SEND_BUFFER)
        // A client that vanished behind a stalled stream is found by its missing pong.
        .keep_alive_interval(config.idle)
        .keep_alive_timeout(config.silent);
    builder
}

/// Header fields hyper takes when it is not told.
const HYPER_HEADERS: usize = 100;

/// hyper's smallest buffer.
const BUFFER_MIN: usize = 8192;

/// Bytes an HTTP/2 stream buffers to send.
const SEND_BUFFER: usize = 256 << 10;
