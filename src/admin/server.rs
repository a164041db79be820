//! The two listeners of the operator: the control socket (`POST /v1/VERB`, JSON) and the metrics listener
//! (`GET /metrics`, `/healthz`, `/readyz`, `/`). Both are bounded in connections, time and size.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::api::{self, Verb};
use super::handles::{Handles, VerbError};
use super::page;
use super::put;
use crate::dns::keeper::Updated;
use crate::time::Now;

/// The control socket, bound; removed from the file system when dropped.
#[derive(Debug)]
pub struct Admin {
    listener: UnixListener,
    connections: usize,
    /// The path to remove at the end; `None`: systemd owns it.
    path: Option<PathBuf>,
}

/// The metrics listener, bound.
#[derive(Debug)]
pub struct Pages {
    listener: TcpListener,
    connections: usize,
}

/// An answer of either listener.
type Answer = Response<Full<Bytes>>;

impl Admin {
    /// Binds the control socket at `path`: its directory is made, and a socket nobody answers on is replaced.
    ///
    /// # Errors
    /// Another node answers there; else the path and what the kernel said.
    pub fn bind(
        path: &Path,
        inherited: Option<UnixListener>,
        connections: usize,
    ) -> Result<Self, anyhow::Error> {
        if let Some(listener) = inherited {
            return Ok(Self {
                listener,
                connections,
                path: None,
            });
        }
        let what = || format!("control socket {}", path.display());
        if let Some(dir) = path.parent() {
            let mut builder = std::fs::DirBuilder::new();
            let made = builder.recursive(true).mode(0o750).create(dir);
            made.with_context(what)?;
        }
        match UnixStream::connect(path) {
            Ok(_) => bail!("{}: another headwater answers there", what()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            // Nobody listens: what is left of a node that was killed.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).with_context(what)?;
            }
            Err(e) => return Err(e).with_context(what),
        }
        let listener = UnixListener::bind(path).with_context(what)?;
        // Whoever may write to the socket may command the node: its user and group.
        let mode = std::fs::Permissions::from_mode(0o660);
        std::fs::set_permissions(path, mode).with_context(what)?;
        listener.set_nonblocking(true).with_context(what)?;
        Ok(Self {
            listener,
            connections,
            path: Some(path.to_owned()),
        })
    }

    /// Serves until `stop`.
    ///
    /// # Errors
    /// The socket cannot be served.
    pub async fn run(
        self,
        handles: Arc<Handles>,
        stop: CancellationToken,
    ) -> Result<(), anyhow::Error> {
        let listener = tokio::net::UnixListener::from_std(self.listener.try_clone()?)?;
        let refused = handles.metrics.node.admin_refused.clone();
        let serve = |stream, stop| {
            let handles = handles.clone();
            async move {
                let service = |request| control(request, handles.clone());
                connection(stream, service, stop).await;
            }
        };
        accept(listener, self.connections, &refused, stop, serve).await;
        Ok(())
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Gone already is as good.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Pages {
    /// Binds the metrics listener.
    ///
    /// # Errors
    /// The address and what the kernel said.
    pub fn bind(
        address: SocketAddr,
        inherited: Option<TcpListener>,
        connections: usize,
    ) -> Result<Self, anyhow::Error> {
        let listener = match inherited {
            Some(listener) => listener,
            None => crate::net::bind_tcp(address, 64)
                .with_context(|| format!("metrics listener {address}"))?,
        };
        Ok(Self {
            listener,
            connections,
        })
    }

    /// Where it listens, port resolved.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`.
    ///
    /// # Errors
    /// The socket cannot be served.
    pub async fn run(
        self,
        handles: Arc<Handles>,
        stop: CancellationToken,
    ) -> Result<(), anyhow::Error> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let refused = handles.metrics.node.metrics_refused.clone();
        let serve = |stream, stop| {
            let handles = handles.clone();
            async move {
                let service = |request| pages(request, handles.clone());
                // Nothing here takes long: the whole connection has an end.
                let served = connection(stream, service, stop);
                let _ = tokio::time::timeout(CONNECTION_TIME, served).await;
            }
        };
        accept(listener, self.connections, &refused, stop, serve).await;
        Ok(())
    }
}

/// A listener of either kind.
trait Listener {
    type Stream;

    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for tokio::net::UnixListener {
    type Stream = tokio::net::UnixStream;

    async fn accept(&self) -> io::Result<Self::Stream> {
        Ok(self.accept().await?.0)
    }
}

impl Listener for tokio::net::TcpListener {
    type Stream = tokio::net::TcpStream;

    async fn accept(&self) -> io::Result<Self::Stream> {
        Ok(self.accept().await?.0)
    }
}

/// Has `serve` serve at most `connections` at once until `stop`, then waits for them; more are closed as they come and
/// counted in `refused`.
async fn accept<L, S, F>(
    listener: L,
    connections: usize,
    refused: &IntCounter,
    stop: CancellationToken,
    serve: S,
) where
    L: Listener,
    S: Fn(L::Stream, CancellationToken) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(connections));
    let tracker = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                back_off(&error).await;
                continue;
            }
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            refused.inc();
            continue;
        };
        let served = serve(stream, stop.clone());
        tracker.spawn(async move {
            served.await;
            drop(permit);
        });
    }
    tracker.close();
    tracker.wait().await;
}

/// Serves HTTP/1.1 on one connection until it ends or `stop`, then lets the request in work end.
async fn connection<IO, S, F>(io: IO, service: S, stop: CancellationToken)
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Fn(Request<Incoming>) -> F,
    F: Future<Output = Answer>,
{
    let service = service_fn(|request| {
        let answer = service(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_SIZE)
        .serve_connection(TokioIo::new(io), service);
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "control connection ended");
    }
}

/// One request on the metrics listener.
async fn pages(request: Request<Incoming>, handles: Arc<Handles>) -> Answer {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
        answer
            .headers_mut()
            .insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    match request.uri().path() {
        "/metrics" => typed(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            handles.metrics.text(),
        ),
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" if !handles.is_ready() => text(StatusCode::SERVICE_UNAVAILABLE, "loading\n"),
        "/readyz" => {
            let mut body = String::from("ready\n");
            for problem in handles.status(Now::read()).problems {
                body.push_str(&problem);
                body.push('\n');
            }
            text(StatusCode::OK, body)
        }
        "/" => {
            let status = handles.status(Now::read());
            let objects = handles.objects();
            let body = page::render(&status, &objects);
            let mut answer = typed(StatusCode::OK, "text/html; charset=utf-8", body);
            answer.headers_mut().insert(
                header::CONTENT_SECURITY_POLICY,
                header::HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'"),
            );
            answer
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "expected /metrics, /healthz, /readyz or /\n",
        ),
    }
}

/// One request on the control socket.
async fn control(request: Request<Incoming>, handles: Arc<Handles>) -> Answer {
    let (head, body) = request.into_parts();
    if head.method != Method::POST {
        return failure(StatusCode::METHOD_NOT_ALLOWED, "expected POST");
    }
    if head.uri.path() == api::ContentPut::PATH {
        let stored = put::put(body, &handles).await;
        return answer(stored.and_then(|stored| done::<api::ContentPut>(&stored)));
    }
    let body = Limited::new(body, BODY_MAX).collect();
    let body = match tokio::time::timeout(HEAD_TIME, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => {
            let message = format!("expected a body of at most {BODY_MAX} bytes");
            return failure(StatusCode::PAYLOAD_TOO_LARGE, message);
        }
        Err(_) => return failure(StatusCode::REQUEST_TIMEOUT, "the body did not come"),
    };
    answer(verb(head.uri.path(), &body, handles).await)
}

/// What a verb gave, as JSON.
fn answer(done: Result<String, VerbError>) -> Answer {
    match done {
        Ok(json) => typed(StatusCode::OK, JSON, json),
        Err(error) => {
            let status = match &error {
                VerbError::NotFound(_) => StatusCode::NOT_FOUND,
                VerbError::Invalid(_) => StatusCode::BAD_REQUEST,
                VerbError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            failure(status, error.to_string())
        }
    }
}

/// Does what `path` names; the answer as JSON.
async fn verb(path: &str, body: &[u8], handles: Arc<Handles>) -> Result<String, VerbError> {
    match path {
        api::GetStatus::PATH => done::<api::GetStatus>(&handles.status(Now::read())),
        api::CacheStats::PATH => done::<api::CacheStats>(&handles.cache_stats()?),
        api::CacheLookup::PATH => {
            let verb: api::CacheLookup = parse(body)?;
            done::<api::CacheLookup>(&handles.cache_lookup(&verb)?)
        }
        api::CacheFlush::PATH => {
            let verb: api::CacheFlush = parse(body)?;
            done::<api::CacheFlush>(&handles.cache_flush(verb)?)
        }
        api::CacheDump::PATH => {
            let verb: api::CacheDump = parse(body)?;
            let work = move || handles.cache_dump(verb);
            let dumped = tokio::task::spawn_blocking(work).await;
            done::<api::CacheDump>(&dumped.map_err(|e| VerbError::Failed(format!("dump: {e}")))??)
        }
        api::CacheLoad::PATH => {
            let verb: api::CacheLoad = parse(body)?;
            let work = move || handles.cache_load(verb);
            let loaded = tokio::task::spawn_blocking(work).await;
            done::<api::CacheLoad>(&loaded.map_err(|e| VerbError::Failed(format!("load: {e}")))??)
        }
        api::ZoneList::PATH => done::<api::ZoneList>(&handles.zones()),
        api::ZoneShow::PATH => {
            let verb: api::ZoneShow = parse(body)?;
            done::<api::ZoneShow>(&handles.zone_show(&verb.name)?)
        }
        api::ZoneSet::PATH => {
            let verb: api::ZoneSet = parse(body)?;
            let keeper = handles.engine.keeper().clone();
            let work = move || keeper.set(&verb.record, verb.beside);
            done::<api::ZoneSet>(&zone_changed(work).await?)
        }
        api::ZoneDelete::PATH => {
            let verb: api::ZoneDelete = parse(body)?;
            let keeper = handles.engine.keeper().clone();
            let work = move || keeper.delete(&verb.name, verb.rtype.as_deref());
            done::<api::ZoneDelete>(&zone_changed(work).await?)
        }
        api::ZoneReload::PATH => {
            let verb: api::ZoneReload = parse(body)?;
            let reloaded = handles.zone_reload(verb.name.as_deref()).await?;
            done::<api::ZoneReload>(&reloaded)
        }
        api::ZoneDs::PATH => {
            let verb: api::ZoneDs = parse(body)?;
            done::<api::ZoneDs>(&blocking(move || handles.zone_ds(&verb)).await?)
        }
        api::ZoneInsecure::PATH => {
            let verb: api::ZoneInsecure = parse(body)?;
            done::<api::ZoneInsecure>(&blocking(move || handles.zone_insecure(&verb)).await?)
        }
        api::ZoneRollover::PATH => {
            let verb: api::ZoneRollover = parse(body)?;
            done::<api::ZoneRollover>(&blocking(move || handles.zone_rollover(&verb)).await?)
        }
        api::CachePurge::PATH => {
            let verb: api::CachePurge = parse(body)?;
            done::<api::CachePurge>(&handles.cache_purge(&verb.url)?)
        }
        api::ContentList::PATH => done::<api::ContentList>(&handles.objects()),
        api::ContentShow::PATH => {
            let verb: api::ContentShow = parse(body)?;
            done::<api::ContentShow>(&handles.object(&verb.path)?)
        }
        api::ContentVerify::PATH => {
            let verb: api::ContentVerify = parse(body)?;
            let work = move || handles.verify(verb.path.as_deref());
            let verified = tokio::task::spawn_blocking(work).await;
            let verified = verified.map_err(|e| VerbError::Failed(format!("verify: {e}")))?;
            done::<api::ContentVerify>(&verified?)
        }
        api::ContentPrefetch::PATH => {
            let verb: api::ContentPrefetch = parse(body)?;
            done::<api::ContentPrefetch>(&handles.prefetch(&verb.path)?)
        }
        api::ContentPurge::PATH => {
            let verb: api::ContentPurge = parse(body)?;
            done::<api::ContentPurge>(&blocking(move || handles.purge(&verb.path)).await?)
        }
        api::ContentDelete::PATH => {
            let deleted = put::delete(&parse(body)?, &handles).await?;
            done::<api::ContentDelete>(&deleted)
        }
        _ => Err(VerbError::NotFound(format!("{path}: no such verb"))),
    }
}

/// Runs a verb that reads and writes files.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VerbError> + Send + 'static,
) -> Result<T, VerbError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| VerbError::Failed(error.to_string()))?
}

/// Changes a zone on the blocking pool: it writes to disk.
async fn zone_changed(
    work: impl FnOnce() -> Result<Updated, String> + Send + 'static,
) -> Result<api::ZoneChanged, VerbError> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|e| VerbError::Failed(format!("zone: {e}")))?;
    let updated = done.map_err(VerbError::Invalid)?;
    Ok(api::ZoneChanged {
        zone: updated.zone,
        serial: updated.serial,
        changed: updated.changed,
    })
}

pub(super) fn parse<V: Verb>(body: &[u8]) -> Result<V, VerbError> {
    let parsed = serde_json::from_slice(body);
    parsed.map_err(|e| VerbError::Invalid(format!("{}: {e}", V::PATH)))
}

fn done<V: Verb>(answer: &V::Answer) -> Result<String, VerbError> {
    serde_json::to_string(answer).map_err(|e| VerbError::Failed(format!("{}: {e}", V::PATH)))
}

fn failure(status: StatusCode, message: impl Into<String>) -> Answer {
    let error = message.into();
    let body = serde_json::to_string(&api::Failure { error }).unwrap_or_default();
    typed(status, JSON, body)
}

fn text(status: StatusCode, body: impl Into<String>) -> Answer {
    typed(status, "text/plain; charset=utf-8", body.into())
}

fn typed(status: StatusCode, media_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(media_type),
    );
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("no-store"),
    );
    answer
}

/// Out of descriptors, accept fails at once again: a pause keeps the loop from spinning.
async fn back_off(error: &io::Error) {
    tracing::warn!(%error, "accept failed");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Bytes of a request body at most.
const BODY_MAX: usize = 1 << 20;

/// Bytes of a request head at most.
const HEAD_SIZE: usize = 16 << 10;

/// A request must be whole within this.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// A connection to the metrics listener ends after this.
const CONNECTION_TIME: Duration = Duration::from_secs(300);

const JSON: &str = "application/json";
