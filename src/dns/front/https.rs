//! DNS over HTTPS (RFC 8484), HTTP/2 and HTTP/1.1: bounded streams, heads, bodies and times.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::handshake::Handshake;
use super::places::{IDLE_CROWDED, Place};
use super::single::Single;
use crate::dns::engine::MESSAGE_MAX;
use crate::dns::{Config, Transport, doh};
use crate::metrics::dns::Limit;
use crate::net::is_flood;
use crate::time::Now;

/// What all connections share.
pub(super) struct Server {
    config: Config,
    single: Single,
    handshake: Handshake,
}

/// One connection.
struct Client {
    server: Arc<Server>,
    address: IpAddr,
    /// Requests being answered.
    busy: AtomicUsize,
    /// The last request or answer, on the monotonic clock.
    active_ns: AtomicU64,
}

/// A request being answered.
struct Busy<'c>(&'c Client);

impl Server {
    pub(super) fn new(config: &Config, single: Single, handshake: Handshake) -> Arc<Self> {
        Arc::new(Self {
            config: config.clone(),
            single,
            handshake,
        })
    }

    /// Serves one connection to its end.
    pub(super) async fn serve(
        self: Arc<Self>,
        stream: TcpStream,
        place: Place,
        stop: CancellationToken,
    ) {
        let Some(stream) = self.handshake.shake(stream).await else {
            return;
        };
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let client = Arc::new(Client {
            address: place.address,
            busy: AtomicUsize::new(0),
            active_ns: AtomicU64::new(Now::read().mono_ns),
            server: Arc::clone(&self),
        });
        let service = {
            let client = Arc::clone(&client);
            service_fn(move |request| {
                let client = Arc::clone(&client);
                async move { Ok::<_, Infallible>(client.answer(request).await) }
            })
        };
        let io = TokioIo::new(stream);
        let head = self.config.https_head;
        let ended = if is_http2 {
            let connection = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(self.config.https_streams)
                .max_header_list_size(head)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_send_buf_size(SEND_BUFFER)
                .max_pending_accept_reset_streams(self.config.https_resets)
                .max_local_error_reset_streams(self.config.https_resets)
                .serve_connection(io, service);
            let mut connection = pin!(connection);
            let go = |connection: std::pin::Pin<&mut _>| {
                http2::Connection::graceful_shutdown(connection)
            };
            client.watch(connection.as_mut(), go, &place, &stop).await
        } else {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(self.config.tcp_message)
                .max_buf_size((head as usize).max(HTTP1_BUFFER_MIN))
                .serve_connection(io, service);
            let mut connection = pin!(connection);
            let go = |connection: std::pin::Pin<&mut _>| {
                http1::Connection::graceful_shutdown(connection)
            };
            client.watch(connection.as_mut(), go, &place, &stop).await
        };
        if let Err(error) = ended {
            if is_flood(&error) {
                self.single.metrics.dns.limit(Limit::HttpsResets);
            }
            tracing::trace!(%error, "HTTPS connection broken off");
        }
    }
}

impl Client {
    /// Drives a connection until it ends, is idle for too long, or the node stops.
    async fn watch<C>(
        &self,
        mut connection: std::pin::Pin<&mut C>,
        finish: impl Fn(std::pin::Pin<&mut C>),
        place: &Place,
        stop: &CancellationToken,
    ) -> hyper::Result<()>
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let config = &self.server.config;
        let mut tick = interval(IDLE_CROWDED.min(config.tcp_idle).max(TICK_MIN));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut finishing = None;
        loop {
            tokio::select! {
                ended = connection.as_mut() => return ended,
                () = stop.cancelled(), if finishing.is_none() => {
                    finish(connection.as_mut());
                    finishing = Some(Now::read());
                }
                _ = tick.tick() => {
                    let now = Now::read();
                    let idle = self.busy.load(Relaxed) == 0
                        && now.mono_ns.saturating_sub(self.active_ns.load(Relaxed))
                            >= place.idle().as_nanos() as u64;
                    match finishing {
                        // What is still to be read is small; who does not take it now never will.
                        Some(since) if idle && now.since(since) >= PART => return Ok(()),
                        Some(since) if now.since(since) >= config.tcp_unread_time => return Ok(()),
                        None if idle => {
                            self.server.single.metrics.dns.limit(Limit::TcpIdle);
                            finish(connection.as_mut());
                            finishing = Some(now);
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let _busy = Busy::new(self);
        let config = &self.server.config;
        if request.uri().path() != config.https_path {
            return status(StatusCode::NOT_FOUND);
        }
        let message = match *request.method() {
            Method::GET => match doh::dns_parameter(request.uri().query().unwrap_or_default()) {
                Some(message) => message,
                None => return status(StatusCode::BAD_REQUEST),
            },
            Method::POST => {
                let kind = request.headers().get(CONTENT_TYPE);
                if kind.is_none_or(|kind| kind != MEDIA_TYPE) {
                    return status(StatusCode::UNSUPPORTED_MEDIA_TYPE);
                }
                let body = Limited::new(request.into_body(), MESSAGE_MAX).collect();
                match timeout(config.tcp_message, body).await {
                    Ok(Ok(body)) => body.to_bytes().to_vec(),
                    Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                        return status(StatusCode::PAYLOAD_TOO_LARGE);
                    }
                    Ok(Err(_)) => return status(StatusCode::BAD_REQUEST),
                    Err(_) => {
                        self.server.single.metrics.dns.limit(Limit::TcpMessage);
                        return status(StatusCode::REQUEST_TIMEOUT);
                    }
                }
            }
            _ => {
                let mut response = status(StatusCode::METHOD_NOT_ALLOWED);
                let methods = http::HeaderValue::from_static("GET, POST");
                response.headers_mut().insert(ALLOW, methods);
                return response;
            }
        };
        let single = &self.server.single;
        let answer = single.answer(&message, self.address, Transport::Https);
        let Some(answer) = answer.await else {
            return status(StatusCode::BAD_REQUEST);
        };
        let age = doh::freshness(&answer);
        let mut response = Response::new(Full::new(Bytes::from(answer)));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(MEDIA_TYPE));
        if let Ok(value) = http::HeaderValue::try_from(format!("max-age={age}")) {
            headers.insert(CACHE_CONTROL, value);
        }
        response
    }
}

impl<'c> Busy<'c> {
    fn new(client: &'c Client) -> Self {
        client.busy.fetch_add(1, Relaxed);
        Self(client)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.active_ns.store(Now::read().mono_ns, Relaxed);
        self.0.busy.fetch_sub(1, Relaxed);
    }
}

/// An answer that is only a status.
fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

const MEDIA_TYPE: &str = "application/dns-message";

/// One query fits a stream's window; a few long ones a connection's.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 256 << 10;

/// Octets of answers held per stream while the client does not take them.
const SEND_BUFFER: usize = 64 << 10;

/// hyper takes no less.
const HTTP1_BUFFER_MIN: usize = 8192;

/// A tick is never shorter, however short a limit.
const TICK_MIN: Duration = Duration::from_millis(10);

/// How long a client may take to read the last answers.
const PART: Duration = Duration::from_secs(1);
