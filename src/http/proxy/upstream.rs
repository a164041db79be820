//! Requests to the configured servers: connections kept and shared, times bounded, nobody else ever asked.
//!
//! The address connected to is made from the configuration alone, whatever a request's target or `Host` says (and looked
//! at again, see `connect`), and redirects are passed on, not followed.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::connect::Connector;
use super::tap::Tap;
use super::{Config, Rule};
use crate::metrics::Metrics;
use crate::metrics::proxy::{Limit, Upstream as Outcome};

/// Asks upstreams.
#[derive(Clone, Debug)]
pub struct Upstreams {
    /// One for each rule.
    servers: Arc<[Server]>,
    places: Arc<Semaphore>,
    head_time: Duration,
    silence: Duration,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Server {
    /// Scheme, host and port.
    base: String,
    client: Client<Connector, Upload>,
}

/// The answer of an upstream.
#[derive(Debug)]
pub struct Answer {
    /// Its head.
    pub head: http::response::Parts,
    /// Its body.
    pub body: Download,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Too many requests are at upstreams already.
    #[error("too many requests are at upstreams")]
    Busy,
    /// It did not answer in time.
    #[error("the upstream did not answer in time")]
    Timeout,
    /// It cannot be reached, or its answer is none.
    #[error("the upstream cannot be reached, or does not speak HTTP")]
    Broken,
}

/// An informational response (1xx) on its way.
pub type Interim = (StatusCode, HeaderMap);

impl Upstreams {
    /// With the times and bounds of `config`.
    ///
    /// # Errors
    /// An upstream cannot be asked over TLS.
    pub fn new(config: &Config, metrics: Arc<Metrics>) -> io::Result<Self> {
        let server = |rule: &Rule| {
            let connector = Connector::new(&rule.upstream, rule.roots.as_ref(), config.connect)?;
            let client = Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .timer(TokioTimer::new())
                .pool_idle_timeout(config.idle)
                .pool_max_idle_per_host(config.requests)
                .http1_max_buf_size(READ)
                .build(connector);
            let scheme = if rule.roots.is_some() {
                "https"
            } else {
                "http"
            };
            Ok(Server {
                base: format!("{scheme}://{}", rule.upstream),
                client,
            })
        };
        Ok(Self {
            servers: config.rules.iter().map(server).collect::<io::Result<_>>()?,
            places: Arc::new(Semaphore::new(config.requests)),
            head_time: config.head_time,
            silence: config.silence,
            metrics,
        })
    }

    /// Sends a request to the upstream of a rule. A safe request without a body is sent once more if the connection
    /// broke: it may have been one that the upstream was just closing.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn send(
        &self,
        rule: usize,
        method: &Method,
        target: &str,
        headers: HeaderMap,
        upload: Option<Incoming>,
        interim: Option<mpsc::UnboundedSender<Interim>>,
    ) -> Result<Answer, Fault> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.metrics.proxy.limit(Limit::Requests);
            return Err(Fault::Busy);
        };
        let Server { base, client } = &self.servers[rule];
        let uri: Uri = format!("{base}{target}")
            .parse()
            .map_err(|_| Fault::Broken)?;
        let again = upload.is_none() && (method == Method::GET || method == Method::HEAD);
        let sent = Arc::new(AtomicU64::new(0));
        let mut request = self.request(
            &uri,
            method,
            headers.clone(),
            upload,
            &sent,
            interim.as_ref(),
        );
        for turn in 0..2 {
            match self.once(client, request, &sent).await {
                Ok(response) => {
                    let (mut head, body) = response.into_parts();
                    self.metrics.proxy.upstream(match head.status.as_u16() {
                        304 => Outcome::NotModified,
                        200..400 => Outcome::Ok,
                        400..500 => Outcome::ClientError,
                        _ => Outcome::ServerError,
                    });
                    let body = Download {
                        body,
                        tap: head.extensions.remove(),
                        silence: self.silence,
                        timer: None,
                        metrics: Arc::clone(&self.metrics),
                        _place: place,
                    };
                    return Ok(Answer { head, body });
                }
                Err(fault) => {
                    self.metrics.proxy.upstream(match fault {
                        Fault::Timeout => Outcome::Timeout,
                        _ => Outcome::Broken,
                    });
                    if turn > 0 || !again || fault != Fault::Broken {
                        return Err(fault);
                    }
                    request =
                        self.request(&uri, method, headers.clone(), None, &sent, interim.as_ref());
                }
            }
        }
        Err(Fault::Broken)
    }

    fn request(
        &self,
        uri: &Uri,
        method: &Method,
        headers: HeaderMap,
        upload: Option<Incoming>,
        sent: &Arc<AtomicU64>,
        interim: Option<&mpsc::UnboundedSender<Interim>>,
    ) -> Request<Upload> {
        let body = Upload {
            body: upload,
            sent: Arc::clone(sent),
        };
        let mut request = Request::new(body);
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = headers;
        if let Some(interim) = interim.cloned() {
            hyper::ext::on_informational(&mut request, move |response| {
                // Nobody listens any more: the client is gone.
                let _ = interim.send((response.status(), response.headers().clone()));
            });
        }
        request
    }

    async fn once(
        &self,
        client: &Client<Connector, Upload>,
        request: Request<Upload>,
        sent: &AtomicU64,
    ) -> Result<Response<Incoming>, Fault> {
        let mut asked = std::pin::pin!(client.request(request));
        let mut seen = 0;
        loop {
            match tokio::time::timeout(self.head_time, asked.as_mut()).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(error)) => {
                    tracing::debug!(%error, source = ?std::error::Error::source(&error), "upstream failed");
                    if error.is_connect() {
                        self.metrics.proxy.limit(Limit::Connect);
                    }
                    return Err(if error.is_connect() && is_timeout(&error) {
                        Fault::Timeout
                    } else {
                        Fault::Broken
                    });
                }
                // While the client still sends its body the upstream need not answer.
                Err(_) if sent.load(Relaxed) > seen => seen = sent.load(Relaxed),
                Err(_) => {
                    self.metrics.proxy.limit(Limit::HeadTime);
                    return Err(Fault::Timeout);
                }
            }
        }
    }
}

fn is_timeout(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |&error| error.source())
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == std::io::ErrorKind::TimedOut)
}

/// The body of a request on its way to an upstream.
#[derive(Debug)]
pub struct Upload {
    body: Option<Incoming>,
    /// Counts its bytes, to tell a slow client from a slow upstream.
    sent: Arc<AtomicU64>,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.sent.fetch_add(data.len() as u64, Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Some(body) => body.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

/// The body of an upstream's answer, frame by frame within its time.
#[derive(Debug)]
pub struct Download {
    body: Incoming,
    /// To take its socket; `None`: it is not in the clear.
    tap: Option<Tap>,
    silence: Duration,
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
    metrics: Arc<Metrics>,
    /// Its place among the requests at upstreams.
    _place: OwnedSemaphorePermit,
}

impl Download {
    /// Its length, if the head says it.
    #[must_use]
    pub fn len(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.body.is_end_stream()
    }

    /// Takes the socket, if it is to be had: gives it when all that was read of it before is in `before`. The rest of the
    /// body is to be read from it while this is kept, as nothing more comes here.
    ///
    /// # Errors
    /// The body broke off, or was silent for too long.
    pub async fn divert(&mut self, before: &mut Vec<Bytes>) -> Result<Option<OwnedFd>, Fault> {
        let Some(tap) = self.tap.clone() else {
            return Ok(None);
        };
        tap.turn();
        std::future::poll_fn(|cx| {
            // Looked at first: what hyper passed on is there by the time it is handed over.
            let socket = tap.take(cx);
            loop {
                match self.poll_next(cx) {
                    Poll::Ready(Some(Ok(bytes))) => before.push(bytes),
                    Poll::Ready(Some(Err(fault))) => return Poll::Ready(Err(fault)),
                    Poll::Ready(None) => {
                        tap.give_back(0);
                        return Poll::Ready(Ok(None));
                    }
                    Poll::Pending if socket.is_some() => {
                        self.timer = None;
                        return Poll::Ready(Ok(socket));
                    }
                    Poll::Pending if tap.is_turned() => return Poll::Pending,
                    Poll::Pending => return Poll::Ready(Ok(None)),
                }
            }
        })
        .await
    }

    /// All that was left of the body, `read` bytes, was read from the diverted socket, which waits for nobody again: its
    /// connection may serve others.
    pub async fn give_back(&mut self, read: u64) {
        if let Some(tap) = &self.tap {
            tap.give_back(read);
            let mut over = |cx: &mut Context<'_>| Pin::new(&mut self.body).poll_frame(cx);
            while let Some(Ok(_)) = std::future::poll_fn(&mut over).await {}
        }
    }

    /// Bytes follow each other within this.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.silence
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// It broke off, or was silent for too long.
    pub async fn next(&mut self) -> Option<Result<Bytes, Fault>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`Download::next`].
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Fault>>> {
        loop {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.timer = None;
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        self.metrics.proxy.received.inc_by(data.len() as u64);
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(%error, "upstream's answer broke off");
                    return Poll::Ready(Some(Err(Fault::Broken)));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => break,
            }
        }
        let silence = self.silence;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(silence)));
        if timer.as_mut().poll(cx).is_ready() {
            self.metrics.proxy.limit(Limit::Silence);
            return Poll::Ready(Some(Err(Fault::Timeout)));
        }
        Poll::Pending
    }
}

/// Bytes read from an upstream at once, which a head must fit into as well.
const READ: usize = 256 << 10;
