//! One request for one object.
//!
//! The common request (a small object, or one that needs no body) is answered where it is read: no task, no wait,
//! no allocation but the response's own header map. The rest goes on in a boxed future.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::{BufMut, Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use prometheus::IntCounter;

use super::access::Log;
use super::body::{Body, Fault, Piece, Reader};
use super::digest::{self, CONTENT_DIGEST, REPR_DIGEST, Want, base64};
use super::faced;
use super::frames::Frames;
use super::fresh::{self, Validators, Verdict};
use super::listing;
use super::paced::Paced;
use super::pieces::Pieces as PieceDigests;
use super::proxy::serve::Proxy;
use super::range::{self, Plan};
use super::receipt::{Client, Receipt};
use super::route::{self, Route};
use super::rules::{Rules, encode};
use super::upload::{self, Uploads};
use crate::content::chunk::Digest;
use crate::content::library::{Entry, Library, Listed};
use crate::content::manifest::Manifest;
use crate::content::object::{self, Object};
use crate::metrics::Metrics;
use crate::metrics::http::{Outcome, Role};
use crate::peer::message;
use crate::peer::swarm::Swarm;
use crate::time::Now;

/// What a server serves, and how.
#[derive(Debug)]
pub struct Site {
    /// The objects.
    pub library: Library,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What this node is to others.
    pub swarm: Arc<Swarm>,
    /// Requests for objects, by where the bytes came from.
    pub content: Supply,
    /// Access log, if there is one.
    pub access: Option<Log>,
    /// Ranges honoured per request.
    pub ranges: usize,
    /// Header fields of a request.
    pub headers: usize,
    /// How long a reader waits for a chunk that is not held.
    pub fill_wait: Duration,
    /// How much of bodies is read at once.
    pub frames: Arc<Frames>,
    /// Headers of objects served lately.
    pub heads: Heads,
    /// What is said of the answers beneath each prefix.
    pub rules: Rules,
    /// The cache of other servers, if there are any.
    pub proxy: Option<Arc<Proxy>>,
    /// What takes uploads, if anything does.
    pub uploads: Option<Uploads>,
    /// Digests of pieces, for torrents and Metalink.
    pub pieces: PieceDigests,
}

/// Handles of `headwater_content_requests_total`.
#[derive(Debug)]
pub struct Supply {
    /// All that was asked for was held.
    pub hit: IntCounter,
    /// A chunk had to be waited for.
    pub fill: IntCounter,
    /// It did not come, or could not be read.
    pub failed: IntCounter,
}

impl Supply {
    /// Resolves the handles.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let handle = |outcome| metrics.content.requests.with_label_values(&[outcome]);
        Self {
            hit: handle("hit"),
            fill: handle("fill"),
            failed: handle("failed"),
        }
    }
}

/// A response, ready or to be waited for.
pub enum Answer {
    /// Ready; `None` once it was taken.
    Now(Option<Response<Body>>),
    /// Waits for the library, for a disk or for a chunk.
    Later(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

impl Future for Answer {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Now(response) => Poll::Ready(Ok(response
                .take()
                .expect("a future is not polled after its end"))),
            Self::Later(future) => future.as_mut().poll(cx).map(Ok),
        }
    }
}

impl From<Response<Body>> for Answer {
    fn from(response: Response<Body>) -> Self {
        Self::Now(Some(response))
    }
}

/// Answers one request.
pub fn answer<B>(client: &Arc<Client>, request: Request<B>) -> Answer
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
{
    // hyper gives an empty body to a request that announces none.
    let close = request.version() <= Version::HTTP_11 && !request.body().is_end_stream();
    let (parts, body) = request.into_parts();
    let receipt = Receipt::new(client, &parts);
    let mut answer = match &client.site.uploads {
        Some(uploads) => match upload_path(uploads, &parts) {
            Some(path) => Answer::Later(Box::pin(upload::serve(parts, path, body, receipt))),
            None => dispatch(parts, receipt),
        },
        None => dispatch(parts, receipt),
    };
    // A body is not read, or not screened: what follows on the connection cannot be told from another request.
    match &mut answer {
        Answer::Now(Some(response)) if close => close_after(response),
        Answer::Later(_) if close => {
            return Answer::Later(Box::pin(async move {
                let mut response = answer.await.unwrap_or_else(|never| match never {});
                close_after(&mut response);
                response
            }));
        }
        _ => {}
    }
    answer
}

/// The path of a request that is an upload's, and a good one otherwise.
fn upload_path(uploads: &Uploads, parts: &Parts) -> Option<String> {
    if parts.method == Method::GET || parts.method == Method::HEAD {
        return None;
    }
    if parts.version == Version::HTTP_11 && !exactly_one(&parts.headers, &header::HOST) {
        return None;
    }
    let path = route::normalise(parts.uri.path()).ok()?;
    uploads
        .takes(&parts.method, &path)
        .then(|| path.into_owned())
}

/// Has the connection closed after this response.
pub(super) fn close_after(response: &mut Response<Body>) {
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
}

fn dispatch(parts: Parts, receipt: Receipt) -> Answer {
    // RFC 9112 section 3.2: exactly one Host, whatever the target's form.
    if parts.version == Version::HTTP_11 && !exactly_one(&parts.headers, &header::HOST) {
        return plain(receipt, StatusCode::BAD_REQUEST, "expected one Host field").into();
    }
    let path = match route::route(&parts.method, &parts.uri) {
        Route::Object(path) => path,
        Route::Peer => return Answer::Later(Box::pin(peer(parts, receipt))),
        Route::Options => return options(&parts, receipt).into(),
        Route::NotFound => return not_found(receipt).into(),
        Route::MethodNotAllowed => {
            let text = "only GET, HEAD and OPTIONS are served";
            let mut response = plain(receipt, StatusCode::METHOD_NOT_ALLOWED, text);
            allow(&mut response);
            return response.into();
        }
        Route::Bad(reason) => return plain(receipt, StatusCode::BAD_REQUEST, reason).into(),
    };
    if let Some(object) = receipt.client().site.library.get(&path) {
        return serve(&parts, object, receipt);
    }
    let path = path.into_owned();
    Answer::Later(Box::pin(find(parts, path, receipt)))
}

fn exactly_one(headers: &HeaderMap, name: &header::HeaderName) -> bool {
    let mut fields = headers.get_all(name).iter();
    fields.next().is_some() && fields.next().is_none()
}

fn allow(response: &mut Response<Body>) {
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(route::ALLOW));
}

/// Says what may be asked of a path, and by scripts of which pages.
fn options(parts: &Parts, receipt: Receipt) -> Response<Body> {
    let site = Arc::clone(&receipt.client().site);
    let mut response = empty(receipt, StatusCode::NO_CONTENT, Role::None, Outcome::Ok);
    let Ok(path) = route::normalise(parts.uri.path()) else {
        allow(&mut response);
        return response;
    };
    let put = site.uploads.as_ref().is_some_and(|u| u.covers(&path));
    let methods = if put { ALLOW_UPLOAD } else { route::ALLOW };
    let head = response.headers_mut();
    head.insert(header::ALLOW, HeaderValue::from_static(methods));
    if let Some(rule) = site.rules.of(&path) {
        rule.preflight(&parts.headers, methods, head);
    }
    response
}

/// Hands a request of another node on.
async fn peer(parts: Parts, mut receipt: Receipt) -> Response<Body> {
    let request = Request::from_parts(parts, ());
    receipt.waits(true);
    let site = Arc::clone(&receipt.client().site);
    let from = receipt.client().address;
    let (library, metrics) = (&site.library, &site.metrics);
    let response = super::peer::serve(&request, from, library, &site.swarm, metrics).await;
    receipt.waits(false);
    let (head, body) = response.into_parts();
    let outcome = match head.status.as_u16() {
        206 => Outcome::Partial,
        200..300 => Outcome::Ok,
        304 => Outcome::NotModified,
        404 => Outcome::NotFound,
        400..500 => Outcome::ClientError,
        503 => Outcome::Unavailable,
        _ => Outcome::ServerError,
    };
    let length = if request.method() == Method::HEAD {
        0
    } else {
        http_body::Body::size_hint(&body).exact().unwrap_or(0)
    };
    receipt.answer(head.status, Role::None, outcome, length);
    if outcome == Outcome::Ok && message::is_background(request.uri().path(), request.headers()) {
        receipt.client().line.recede();
        // All of it is there: nothing is waited for.
        let bytes = http_body_util::BodyExt::collect(body).await;
        let bytes = bytes.unwrap_or_else(|never| match never {}).to_bytes();
        let paced = Paced::new(bytes, Arc::clone(site.swarm.pace()));
        return Response::from_parts(head, Body::paced(paced, receipt));
    }
    Response::from_parts(head, Body::full(body, receipt))
}

/// Answers for a path the library does not know at once.
async fn find(parts: Parts, path: String, mut receipt: Receipt) -> Response<Body> {
    receipt.waits(true);
    let site = Arc::clone(&receipt.client().site);
    let entry = site.library.find(&path).await;
    receipt.waits(false);
    let mut response = match entry {
        Entry::Object(object) => {
            return match serve(&parts, object, receipt) {
                Answer::Now(response) => response.expect("an answer just made was not taken"),
                Answer::Later(future) => future.await,
            };
        }
        Entry::Listing { items, more } => {
            let mut response = listed(&parts, receipt, &path, &items, more);
            if let Some(rule) = site.rules.of(&path) {
                rule.keep(response.headers_mut());
            }
            return response;
        }
        Entry::Directory => redirect(receipt, &path),
        Entry::Later => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            later(receipt, status, "the object is on its way to this mirror")
        }
        Entry::Full => {
            let status = StatusCode::INSUFFICIENT_STORAGE;
            later(receipt, status, "this mirror has no room for the object")
        }
        Entry::None => match faced::find(&site, &path).await {
            Some((face, object)) => faced::serve(&parts, receipt, face, object).await,
            None => not_found(receipt),
        },
    };
    share(&site, &path, &mut response);
    response
}

/// Lets scripts of other pages read an answer, if the rule of `path` does.
fn share(site: &Site, path: &str, response: &mut Response<Body>) {
    if let Some(rule) = site.rules.of(path) {
        rule.share(response.headers_mut());
    }
}

/// Answers with an object: conditions, then ranges, then bytes.
fn serve(parts: &Parts, object: Arc<Object>, mut receipt: Receipt) -> Answer {
    let site = Arc::clone(&receipt.client().site);
    let role = match object.role() {
        object::Role::Origin => Role::Origin,
        object::Role::Mirror => Role::Mirror,
    };
    let manifest = object.manifest();
    let validators = Validators {
        etag: object.etag(),
        modified: manifest.modified,
    };
    match fresh::evaluate(&parts.method, &parts.headers, &validators) {
        Verdict::Proceed => {}
        Verdict::NotModified => {
            let mut response = empty(
                receipt,
                StatusCode::NOT_MODIFIED,
                role,
                Outcome::NotModified,
            );
            let head = site.heads.of(&object, &site.rules);
            if let Some(etag) = head.get(header::ETAG) {
                response.headers_mut().insert(header::ETAG, etag.clone());
            }
            if let Some(rule) = site.rules.of(&manifest.path) {
                rule.keep(response.headers_mut());
            }
            return response.into();
        }
        Verdict::PreconditionFailed => {
            let text = "the object is not the version asked for";
            let mut response = plain(receipt, StatusCode::PRECONDITION_FAILED, text);
            share(&site, &manifest.path, &mut response);
            response.body_mut().relabel(role);
            return response.into();
        }
    }
    let size = manifest.layout.size;
    let plan = range::plan(
        &parts.method,
        &parts.headers,
        &validators,
        size,
        site.ranges,
    );
    let mut head = site.heads.of(&object, &site.rules);
    let (status, pieces, length) = match plan {
        Plan::Full => {
            if parts.method == Method::GET && parts.headers.contains_key(header::RANGE) {
                site.metrics.http.ranges_ignored.inc();
            }
            (StatusCode::OK, Pieces::One(0..size), size)
        }
        Plan::Partial(ranges) if ranges.len() == 1 => {
            let range = ranges[0].clone();
            head.insert(header::CONTENT_RANGE, content_range(&range, size));
            let length = range.end - range.start;
            (StatusCode::PARTIAL_CONTENT, Pieces::One(range), length)
        }
        Plan::Partial(ranges) => {
            let (pieces, length) = multipart(&object, &ranges);
            head.insert(header::CONTENT_TYPE, multipart_type(&object));
            (StatusCode::PARTIAL_CONTENT, Pieces::Many(pieces), length)
        }
        Plan::NotSatisfiable => {
            let text = "no range lies within the object";
            let mut response = plain(receipt, StatusCode::RANGE_NOT_SATISFIABLE, text);
            response.headers_mut().insert(
                header::CONTENT_RANGE,
                value(format!("bytes */{size}"), "bytes */0"),
            );
            share(&site, &manifest.path, &mut response);
            response.body_mut().relabel(role);
            return response.into();
        }
    };
    let outcome = if status == StatusCode::OK {
        Outcome::Ok
    } else {
        Outcome::Partial
    };
    if digest::want(&parts.headers, &digest::WANT_REPR_DIGEST) == Want::Unwanted {
        head.remove(REPR_DIGEST);
    }
    if status == StatusCode::OK
        && digest::want(&parts.headers, &digest::WANT_CONTENT_DIGEST) == Want::Welcome
    {
        // The content of this message is the whole object.
        head.insert(CONTENT_DIGEST, digest_value(manifest));
    }
    if parts.method == Method::HEAD {
        head.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        receipt.answer(status, role, outcome, 0);
        return respond(status, head, Body::memory(Bytes::new(), receipt)).into();
    }
    if let Some(whole) = object.small(Now::coarse()) {
        let bytes = pieces.of(&whole);
        receipt.answer(status, role, outcome, bytes.len() as u64);
        return respond(status, head, Body::memory(bytes, receipt)).into();
    }
    let pieces = match pieces {
        Pieces::One(range) => vec![Piece::Bytes(range)],
        Pieces::Many(pieces) => pieces,
    };
    // The streams of an HTTP/2 connection have windows of their own.
    let line = (parts.version <= Version::HTTP_11).then(|| receipt.client().line.clone());
    Answer::Later(Box::pin(async move {
        let share = site.frames.open();
        let mut reader = Reader::new(object, pieces, site.fill_wait, share, line);
        receipt.waits(true);
        let prepared = reader.prepare().await;
        receipt.waits(false);
        if reader.filled() {
            receipt.filled();
        }
        match prepared {
            Ok(()) => {
                receipt.answer(status, role, outcome, length);
                respond(status, head, Body::object(reader, receipt))
            }
            Err(fault) => {
                fault.log();
                let mut response = unreadable(receipt, &fault);
                response.body_mut().relabel(role);
                response
            }
        }
    }))
}

/// What of an object is sent.
enum Pieces {
    One(Range<u64>),
    Many(Vec<Piece>),
}

impl Pieces {
    /// Cut out of an object held in memory.
    fn of(self, whole: &Bytes) -> Bytes {
        let cut = |range: Range<u64>| {
            let place = |at: u64| usize::try_from(at).expect("within an object held in memory");
            whole.slice(place(range.start)..place(range.end))
        };
        match self {
            Self::One(range) => cut(range),
            Self::Many(pieces) => {
                let mut out = BytesMut::new();
                for piece in pieces {
                    match piece {
                        Piece::Bytes(range) => out.put(cut(range)),
                        Piece::Text(text) => out.put(text),
                    }
                }
                out.freeze()
            }
        }
    }
}

fn content_range(range: &Range<u64>, size: u64) -> HeaderValue {
    let text = format!("bytes {}-{}/{size}", range.start, range.end - 1);
    value(text, "bytes */0")
}

/// The pieces of a `multipart/byteranges` body (RFC 9110 section 14.6) and its length.
fn multipart(object: &Object, ranges: &[Range<u64>]) -> (Vec<Piece>, u64) {
    let manifest = object.manifest();
    let size = manifest.layout.size;
    let boundary = boundary(object);
    let media_type = media_type(manifest);
    let media_type = media_type.to_str().unwrap_or(OCTETS);
    let mut pieces = Vec::with_capacity(2 * ranges.len() + 1);
    let mut length = 0;
    for range in ranges {
        let text = format!(
            "\r\n--{boundary}\r\nContent-Type: {media_type}\r\nContent-Range: bytes {}-{}/{size}\r\n\r\n",
            range.start,
            range.end - 1
        );
        length += text.len() as u64 + range.end - range.start;
        pieces.push(Piece::Text(text.into()));
        pieces.push(Piece::Bytes(range.clone()));
    }
    let end = format!("\r\n--{boundary}--\r\n");
    length += end.len() as u64;
    pieces.push(Piece::Text(end.into()));
    (pieces, length)
}

fn multipart_type(object: &Object) -> HeaderValue {
    let text = format!("multipart/byteranges; boundary={}", boundary(object));
    value(text, "multipart/byteranges")
}

/// From the digest of the manifest, which depends on every byte of the object: the object cannot hold it.
fn boundary(object: &Object) -> String {
    object.id().0[..16]
        .iter()
        .fold(String::new(), |mut hex, b| {
            let _ = write!(hex, "{b:02x}");
            hex
        })
}

fn media_type(manifest: &Manifest) -> HeaderValue {
    value(manifest.media_type.clone(), OCTETS)
}

/// `text` as a field value, or `fallback` if it has bytes no field may have (a manifest may come from afar).
pub(super) fn value(text: String, fallback: &'static str) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(fallback))
}

/// The header fields an object is served with, made once per version. A version met again after others took its
/// place is made anew: a bounded table without a lock.
pub struct Heads {
    slots: Box<[ArcSwapOption<Head>]>,
}

impl Heads {
    /// A table of `slots` versions.
    #[must_use]
    pub fn new(slots: usize) -> Self {
        Self {
            slots: (0..slots.max(1)).map(|_| ArcSwapOption::empty()).collect(),
        }
    }

    /// The header fields of `object`.
    fn of(&self, object: &Object, rules: &Rules) -> HeaderMap {
        self.with(object, rules, |head| head.fields.clone())
    }

    /// Appends to `out` the head of a whole `object`, up to and with the name of the last field: `Date`.
    pub(super) fn append(&self, object: &Object, rules: &Rules, out: &mut Vec<u8>) {
        self.with(object, rules, |head| out.extend_from_slice(&head.whole));
    }

    fn with<T>(&self, object: &Object, rules: &Rules, take: impl FnOnce(&Head) -> T) -> T {
        let id = object.id();
        let place = usize::from(u16::from_le_bytes([id.0[0], id.0[1]])) % self.slots.len();
        let slot = &self.slots[place];
        if let Some(held) = &*slot.load()
            && held.id == id
        {
            return take(held);
        }
        let fields = make_head(object, rules);
        let whole = write_head(&fields, object.manifest().layout.size);
        let head = Arc::new(Head { id, fields, whole });
        slot.store(Some(Arc::clone(&head)));
        take(&head)
    }
}

/// What the versions of [`Heads`] are served with.
struct Head {
    id: Digest,
    fields: HeaderMap,
    /// See [`Heads::append`].
    whole: Box<[u8]>,
}

/// The head of a whole object of `size` bytes, as hyper writes it, but for the value of `Date`.
fn write_head(fields: &HeaderMap, size: u64) -> Box<[u8]> {
    let mut out = b"HTTP/1.1 200 OK\r\n".to_vec();
    for (name, value) in fields {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(format!("content-length: {size}\r\ndate: ").as_bytes());
    out.into()
}

impl std::fmt::Debug for Heads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Heads")
            .field("slots", &self.slots.len())
            .finish()
    }
}

fn make_head(object: &Object, rules: &Rules) -> HeaderMap {
    let manifest = object.manifest();
    let modified = fresh::http_date(manifest.modified);
    // Room for Content-Length, Content-Range, Connection and Date as well.
    let mut head = HeaderMap::with_capacity(12);
    head.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    head.insert(header::CONTENT_TYPE, media_type(manifest));
    head.insert(header::ETAG, value(object.etag().to_owned(), "\"\""));
    head.insert(header::LAST_MODIFIED, value(modified, ""));
    head.insert(REPR_DIGEST, digest_value(manifest));
    if let Some(rule) = rules.of(&manifest.path) {
        rule.keep(&mut head);
        rule.link(&manifest.path, &base64(&manifest.sha256), &mut head);
    }
    head
}

fn digest_value(manifest: &Manifest) -> HeaderValue {
    value(format!("sha-256=:{}:", base64(&manifest.sha256)), "")
}

fn respond(status: StatusCode, headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

pub(super) fn empty(
    mut receipt: Receipt,
    status: StatusCode,
    role: Role,
    outcome: Outcome,
) -> Response<Body> {
    receipt.answer(status, role, outcome, 0);
    respond(
        status,
        HeaderMap::new(),
        Body::memory(Bytes::new(), receipt),
    )
}

/// A short text that says what was wrong.
pub(super) fn plain(receipt: Receipt, status: StatusCode, text: &str) -> Response<Body> {
    let outcome = match status {
        StatusCode::NOT_FOUND => Outcome::NotFound,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE => Outcome::Unavailable,
        status if status.is_server_error() => Outcome::ServerError,
        _ => Outcome::ClientError,
    };
    let text = Bytes::from(format!("{status}: {text}\n"));
    page(receipt, status, outcome, text, "text/plain; charset=utf-8")
}

/// A page made here. The body of an answer to HEAD is never taken, so nothing of it is owed.
pub(super) fn page(
    mut receipt: Receipt,
    status: StatusCode,
    outcome: Outcome,
    bytes: Bytes,
    media_type: &'static str,
) -> Response<Body> {
    let owed = if receipt.head_only() { 0 } else { bytes.len() };
    receipt.answer(status, Role::None, outcome, owed as u64);
    let mut response = respond(status, HeaderMap::new(), Body::memory(bytes, receipt));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

fn not_found(receipt: Receipt) -> Response<Body> {
    plain(receipt, StatusCode::NOT_FOUND, "nothing stands here")
}

pub(super) fn unreadable(receipt: Receipt, fault: &Fault) -> Response<Body> {
    match fault {
        Fault::Late { .. } => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            later(receipt, status, "the bytes are on their way to this mirror")
        }
        Fault::Read(_) | Fault::Upstream(_) => {
            let text = "the object cannot be read";
            plain(receipt, StatusCode::INTERNAL_SERVER_ERROR, text)
        }
    }
}

/// For now this is not to be had here.
pub(super) fn later(receipt: Receipt, status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = plain(receipt, status, text);
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
    response
}

fn redirect(receipt: Receipt, path: &str) -> Response<Body> {
    let mut response = empty(
        receipt,
        StatusCode::MOVED_PERMANENTLY,
        Role::None,
        Outcome::Redirect,
    );
    response
        .headers_mut()
        .insert(header::LOCATION, value(format!("{}/", encode(path)), "/"));
    response
}

/// The listing of a directory, in the form the client would rather have.
fn listed(
    parts: &Parts,
    receipt: Receipt,
    path: &str,
    items: &[Listed],
    more: bool,
) -> Response<Body> {
    let (text, media_type) = if listing::wants_json(&parts.headers) {
        (listing::json(items), "application/json")
    } else {
        (listing::html(path, items, more), "text/html; charset=utf-8")
    };
    let mut response = page(
        receipt,
        StatusCode::OK,
        Outcome::Ok,
        text.into(),
        media_type,
    );
    let head = response.headers_mut();
    head.insert(header::VARY, HeaderValue::from_static("accept"));
    if more {
        head.insert(LISTING_TRUNCATED, HeaderValue::from_static("?1"));
    }
    response
}

/// On a listing that leaves out names.
const LISTING_TRUNCATED: header::HeaderName =
    header::HeaderName::from_static("headwater-listing-truncated");

/// The methods served where files may be put.
const ALLOW_UPLOAD: &str = "GET, HEAD, OPTIONS, PUT, DELETE";

const OCTETS: &str = "application/octet-stream";

/// Seconds after which a client may ask again for what a mirror does not hold yet.
const RETRY_AFTER: &str = "2";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_that_could_split_a_response_is_replaced() {
        assert_eq!(value("a\r\nSet-Cookie: b".into(), OCTETS), OCTETS);
        assert_eq!(value("video/mp4".into(), OCTETS), "video/mp4");
    }
}
