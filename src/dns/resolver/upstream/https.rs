//! DNS over HTTPS to one upstream (RFC 8484): POST over one HTTP/2 connection, every query a stream of its own.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;

use super::ExchangeError;
use super::query::Sent;
use super::stream::{End, Pipeline};
use crate::time::Now;

/// An open connection.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    sender: SendRequest<Full<Bytes>>,
    uri: Uri,
    usage: Arc<Usage>,
    seats: Arc<Semaphore>,
    waited: IntCounter,
}

/// Whether the connection is of use.
#[derive(Debug, Default)]
struct Usage {
    busy: AtomicUsize,
    /// When the last query began or ended, on the monotonic clock.
    last_ns: AtomicU64,
    over: AtomicBool,
}

/// A query under way.
struct Busy<'c>(&'c Usage);

/// Makes `stream`, over which HTTP/2 was agreed upon, a connection; the future carries it to its end, which comes when
/// it was `idle` for so long, too.
pub(super) async fn open<S>(
    stream: S,
    uri: Uri,
    idle: Duration,
    pipeline: Pipeline,
) -> hyper::Result<(Channel, impl Future<Output = End> + Send)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_header_list_size(HEADERS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW * 8)
        // Nothing may be pushed, and a server that is gone is noticed while it is asked.
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .keep_alive_while_idle(false)
        .handshake(TokioIo::new(stream))
        .await?;
    let usage = Arc::<Usage>::default();
    usage.last_ns.store(Now::read().mono_ns, Relaxed);
    let channel = Channel {
        sender,
        uri,
        usage: Arc::clone(&usage),
        seats: Arc::new(Semaphore::new(pipeline.queries)),
        waited: pipeline.waited,
    };
    let carry = async move {
        let mut connection = pin!(connection);
        loop {
            let ended = tokio::time::timeout(usage.may_rest(idle), connection.as_mut()).await;
            match ended {
                Ok(Ok(())) => return End::Closed,
                Ok(Err(error)) => return End::Broken(io::Error::other(error)),
                Err(_) if usage.may_rest(idle).is_zero() => {
                    usage.over.store(true, Relaxed);
                    return End::Idle;
                }
                Err(_) => {}
            }
        }
    };
    Ok((channel, carry))
}

impl Usage {
    /// How much longer nobody need ask.
    fn may_rest(&self, idle: Duration) -> Duration {
        if self.busy.load(Relaxed) > 0 {
            return idle;
        }
        let last = self.last_ns.load(Relaxed);
        let rested = Duration::from_nanos(Now::read().mono_ns.saturating_sub(last));
        idle.saturating_sub(rested)
    }
}

impl<'c> Busy<'c> {
    fn new(usage: &'c Usage) -> Self {
        usage.busy.fetch_add(1, Relaxed);
        Self(usage)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.last_ns.store(Now::read().mono_ns, Relaxed);
        self.0.busy.fetch_sub(1, Relaxed);
    }
}

impl Channel {
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed() && !self.usage.over.load(Relaxed)
    }

    /// Posts `sent`, whose id is 0 (RFC 8484 section 4.1); returns the reply.
    ///
    /// # Errors
    /// [`ExchangeError::Broken`]: the connection has ended. [`ExchangeError::Unfit`]: what came instead of a reply.
    pub(super) async fn ask(&self, sent: &Sent) -> Result<Vec<u8>, ExchangeError> {
        let _busy = Busy::new(&self.usage);
        let _seat = match self.seats.try_acquire() {
            Ok(seat) => seat,
            Err(_) => {
                self.waited.inc();
                let seat = self.seats.acquire().await;
                seat.map_err(|_| ExchangeError::Broken)?
            }
        };
        let mut request = Request::new(Full::new(Bytes::copy_from_slice(sent.bytes())));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, MEDIA_TYPE);
        headers.insert(ACCEPT, MEDIA_TYPE);
        let response = self.sender.clone().send_request(request).await;
        let response = response.map_err(|_| ExchangeError::Broken)?;
        let reply = body(response).await?;
        match sent.check(&reply) {
            Ok(()) => Ok(reply),
            Err(_) => Err(ExchangeError::Unfit("the body is no reply".to_owned())),
        }
    }
}

/// The message in a response.
async fn body(response: Response<Incoming>) -> Result<Vec<u8>, ExchangeError> {
    if response.status() != StatusCode::OK {
        let status = response.status();
        return Err(ExchangeError::Unfit(format!("HTTP status {status}")));
    }
    let media_type = response.headers().get(CONTENT_TYPE);
    if !media_type.is_some_and(|found| found.as_bytes().eq_ignore_ascii_case(MEDIA_TYPE.as_bytes()))
    {
        let found = media_type.map_or("none".into(), |t| String::from_utf8_lossy(t.as_bytes()));
        let problem = format!("media type: found {found}, expected application/dns-message");
        return Err(ExchangeError::Unfit(problem));
    }
    match Limited::new(response.into_body(), MESSAGE_MAX)
        .collect()
        .await
    {
        Ok(body) => Ok(body.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => {
            let problem = format!("a body of more than {MESSAGE_MAX} octets");
            Err(ExchangeError::Unfit(problem))
        }
        Err(_) => Err(ExchangeError::Broken),
    }
}

const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/dns-message");

/// Octets of a message.
const MESSAGE_MAX: usize = 65_535;

/// Octets of the header fields of a response.
const HEADERS: u32 = 16 << 10;

/// Octets a stream may send before we say more: a whole message.
const WINDOW: u32 = 65_536;

/// How long a server may say nothing while it is asked before it is pinged, and then before it is taken for gone.
const PING: Duration = Duration::from_millis(1_250);
