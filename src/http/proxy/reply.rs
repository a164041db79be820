//! Answers from what is stored: conditions, then ranges, then bytes (RFC 9111 section 4, RFC 9110 sections 13 and 14).

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use super::condition;
use super::fetch::Asker;
use super::flow::{Flow, Piece};
use super::serve::Proxy;
use super::storable;
use super::table::Stored;
use super::told::{CACHE_STATUS, Told};
use crate::http::body::Body;
use crate::http::fresh::Validators;
use crate::http::range::{self, Plan};
use crate::http::receipt::Receipt;
use crate::metrics::http::{Outcome, Role};

/// What a request for something stored is answered with.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) parts: &'a Parts,
    pub(super) asker: Asker,
    /// Milliseconds since 1970.
    pub(super) now: u64,
}

/// Answers from `stored`.
pub(super) fn stored(
    proxy: &Arc<Proxy>,
    stored: &Arc<Stored>,
    asked: Asked<'_>,
    told: Told,
    receipt: Receipt,
) -> Response<Body> {
    let Asked { parts, asker, now } = asked;
    let mut head = fields(stored, told, now);
    if stored.status == StatusCode::OK
        && condition::holds(&parts.headers, &stored.head, stored.life.born / 1_000)
    {
        for name in [
            header::CONTENT_TYPE,
            header::CONTENT_ENCODING,
            header::CONTENT_RANGE,
        ] {
            head.remove(name);
        }
        return finish(StatusCode::NOT_MODIFIED, head, Bytes::new(), receipt);
    }
    let len = stored.content.len();
    let head_only = parts.method == Method::HEAD;
    let bodiless = matches!(stored.status.as_u16(), 204 | 304);
    if stored.status == StatusCode::OK
        && !head_only
        && parts.headers.contains_key(header::RANGE)
        && let Some(len) = len
    {
        match plan(proxy, stored, parts, len) {
            Plan::Full => {}
            Plan::Partial(ranges) => {
                return partial(proxy, stored, asker, head, &ranges, len, receipt);
            }
            Plan::NotSatisfiable => {
                let text = format!("bytes */{len}");
                insert(&mut head, header::CONTENT_RANGE, text);
                head.remove(header::CONTENT_TYPE);
                return finish(
                    StatusCode::RANGE_NOT_SATISFIABLE,
                    head,
                    Bytes::new(),
                    receipt,
                );
            }
        }
    }
    if head_only || bodiless {
        if let Some(len) = len.filter(|_| !bodiless) {
            head.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
        }
        return finish(stored.status, head, Bytes::new(), receipt);
    }
    if let Some(whole) = stored.content.whole() {
        return finish(stored.status, head, whole, receipt);
    }
    let pieces = vec![Piece::Bytes(0..len.unwrap_or(u64::MAX))];
    let flow = Flow::stored(proxy, stored, asker, pieces, len);
    flowing(stored.status, head, flow, receipt)
}

/// The fields of a stored response as they leave now.
fn fields(stored: &Stored, told: Told, now: u64) -> HeaderMap {
    let make = |told: Told| {
        // Room for Content-Length and Content-Range.
        let mut head = HeaderMap::with_capacity(stored.head.len() + 5);
        head.extend(stored.head.clone());
        head.insert(header::AGE, HeaderValue::from(stored.life.age(now)));
        head.append(CACHE_STATUS, told.value());
        head
    };
    if !matches!(told, Told::Hit { .. }) {
        return make(told);
    }
    // All hits of one second have the same fields.
    let second = now / 1_000;
    if let Some(ready) = &*stored.ready.load()
        && ready.0 == second
    {
        return ready.1.clone();
    }
    let head = make(told);
    stored.ready.store(Some(Arc::new((second, head.clone()))));
    head
}

fn plan(proxy: &Proxy, stored: &Stored, parts: &Parts, len: u64) -> Plan {
    let tag = stored
        .head
        .get(header::ETAG)
        .and_then(|tag| tag.to_str().ok());
    let modified = super::date::field(&stored.head, &header::LAST_MODIFIED).flatten();
    // Only what is strong lets a range pass an If-Range.
    let strong = storable::has_strong_validator(&stored.head);
    let validators = Validators {
        etag: tag.filter(|tag| tag.starts_with('"')).unwrap_or(""),
        modified: modified.filter(|_| strong).unwrap_or(u64::MAX),
    };
    range::plan(
        &parts.method,
        &parts.headers,
        &validators,
        len,
        proxy.ranges,
    )
}

fn partial(
    proxy: &Arc<Proxy>,
    stored: &Arc<Stored>,
    asker: Asker,
    mut head: HeaderMap,
    ranges: &[Range<u64>],
    len: u64,
    receipt: Receipt,
) -> Response<Body> {
    let (pieces, length) = if let [range] = ranges {
        let text = format!("bytes {}-{}/{len}", range.start, range.end - 1);
        insert(&mut head, header::CONTENT_RANGE, text);
        (vec![Piece::Bytes(range.clone())], range.end - range.start)
    } else {
        let boundary = format!("headwater-{:032x}", super::fetch::dice());
        let media_type = head.get(header::CONTENT_TYPE).cloned();
        let text = format!("multipart/byteranges; boundary={boundary}");
        insert(&mut head, header::CONTENT_TYPE, text);
        multipart(&boundary, media_type.as_ref(), ranges, len)
    };
    if let ([Piece::Bytes(range)], Some(whole)) = (pieces.as_slice(), stored.content.whole())
        && let (Ok(start), Ok(end)) = (usize::try_from(range.start), usize::try_from(range.end))
    {
        return finish(
            StatusCode::PARTIAL_CONTENT,
            head,
            whole.slice(start..end),
            receipt,
        );
    }
    let flow = Flow::stored(proxy, stored, asker, pieces, Some(length));
    flowing(StatusCode::PARTIAL_CONTENT, head, flow, receipt)
}

/// The pieces of a `multipart/byteranges` body (RFC 9110 section 14.6) and its length.
fn multipart(
    boundary: &str,
    media_type: Option<&HeaderValue>,
    ranges: &[Range<u64>],
    len: u64,
) -> (Vec<Piece>, u64) {
    let mut pieces = Vec::with_capacity(2 * ranges.len() + 1);
    let mut length = 0;
    for range in ranges {
        let mut text = format!("\r\n--{boundary}\r\n");
        if let Some(media_type) = media_type.and_then(|t| t.to_str().ok()) {
            let _ = write!(text, "Content-Type: {media_type}\r\n");
        }
        let (first, last) = (range.start, range.end - 1);
        let _ = write!(text, "Content-Range: bytes {first}-{last}/{len}\r\n\r\n");
        length += text.len() as u64 + range.end - range.start;
        pieces.push(Piece::Text(text.into()));
        pieces.push(Piece::Bytes(range.clone()));
    }
    let end = format!("\r\n--{boundary}--\r\n");
    length += end.len() as u64;
    pieces.push(Piece::Text(end.into()));
    (pieces, length)
}

fn insert(head: &mut HeaderMap, name: header::HeaderName, text: String) {
    let value = HeaderValue::try_from(text).expect("words and numbers are a field value");
    head.insert(name, value);
}

/// A response with a body from memory.
pub(super) fn finish(
    status: StatusCode,
    head: HeaderMap,
    bytes: Bytes,
    mut receipt: Receipt,
) -> Response<Body> {
    let owed = if receipt.head_only() { 0 } else { bytes.len() };
    receipt.answer(status, Role::Proxy, outcome(status), owed as u64);
    respond(status, head, Body::memory(bytes, receipt))
}

/// A response with a body that flows.
pub(super) fn flowing(
    status: StatusCode,
    head: HeaderMap,
    flow: Flow,
    mut receipt: Receipt,
) -> Response<Body> {
    // Of a body of unknown length one byte is owed until it ends.
    receipt.answer(
        status,
        Role::Proxy,
        outcome(status),
        flow.left().unwrap_or(0),
    );
    respond(status, head, Body::flow(flow, receipt))
}

fn respond(status: StatusCode, head: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = head;
    response
}

/// As what an answer counts.
pub(super) fn outcome(status: StatusCode) -> Outcome {
    match status.as_u16() {
        206 => Outcome::Partial,
        304 => Outcome::NotModified,
        300..400 => Outcome::Redirect,
        404 => Outcome::NotFound,
        400..500 => Outcome::ClientError,
        503 => Outcome::Unavailable,
        500.. => Outcome::ServerError,
        _ => Outcome::Ok,
    }
}
