//! The serving side of the peer protocol: index, manifests and chunks (see `peer::message`).

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;

use crate::content::chunk::Digest;
use crate::content::library::Library;
use crate::content::object::{Object, ReadError, Role};
use crate::metrics::Metrics;
use crate::peer::message::{Ask, INDEX_ENTRIES, Index, IndexEntry, ROOT};

/// Answers a request beneath `peer::message::ROOT`. Chunk bodies are verified before they leave.
pub async fn serve<B>(
    request: &Request<B>,
    library: &Library,
    metrics: &Metrics,
) -> Response<Full<Bytes>> {
    let head = match *request.method() {
        Method::GET => false,
        Method::HEAD => true,
        _ => {
            let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED, "expected GET or HEAD");
            let allowed = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(ALLOW, allowed);
            return response;
        }
    };
    let uri = request.uri();
    let mut response = match Ask::parse(uri.path(), uri.query()) {
        Ok(Ask::Index(prefix)) => index(&prefix, request.headers(), library),
        Ok(Ask::Manifest(id)) => manifest(id, library),
        Ok(Ask::Chunk(id, index)) => chunk(id, index, head, library, metrics).await,
        Err(error) => refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    if head {
        *response.body_mut() = Full::default();
    }
    response
}

/// The whole objects beneath a prefix. The entity tag is made of the versions themselves, so it is right across a
/// restart of this node too.
fn index(prefix: &str, headers: &HeaderMap, library: &Library) -> Response<Full<Bytes>> {
    // Before the list: what is added between the two is listed.
    let scanned = library.scanned();
    let mut objects = library.list();
    objects.retain(|object| {
        let path = object.manifest().path.as_str();
        path.starts_with(prefix) && !path.starts_with(ROOT) && object.complete()
    });
    if objects.len() > INDEX_ENTRIES {
        let text = format!(
            "{} objects beneath {prefix}, at most {INDEX_ENTRIES} fit an index: ask for a longer prefix",
            objects.len()
        );
        return refuse(StatusCode::INSUFFICIENT_STORAGE, &text);
    }
    objects.sort_by(|a, b| a.manifest().path.cmp(&b.manifest().path));
    let mut hash = blake3::Hasher::new();
    hash.update(&[u8::from(scanned)]);
    for object in &objects {
        hash.update(&object.id().0);
        hash.update(&[u8::from(object.role() == Role::Origin)]);
    }
    let etag = format!("\"{}\"", &hash.finalize().to_hex()[..32]);
    let unchanged = headers.get(IF_NONE_MATCH).is_some_and(|value| {
        value
            .to_str()
            .is_ok_and(|tags| tags.split(',').any(|tag| tag.trim() == etag))
    });
    let mut response = if unchanged {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let objects = objects.iter().map(|object| entry(object)).collect();
        let body = serde_json::to_vec(&Index { scanned, objects })
            .expect("an index is strings, numbers and booleans, which all have a JSON form");
        let mut response = answer(body.into(), "application/json");
        let fresh = HeaderValue::from_static("no-cache");
        response.headers_mut().insert(CACHE_CONTROL, fresh);
        response
    };
    let etag = HeaderValue::from_str(&etag).expect("quoted hex digits are a header value");
    response.headers_mut().insert(ETAG, etag);
    response
}

fn entry(object: &Object) -> IndexEntry {
    let manifest = object.manifest();
    IndexEntry {
        path: manifest.path.clone(),
        manifest: object.id(),
        size: manifest.layout.size,
        published: object.role() == Role::Origin,
    }
}

fn manifest(id: Digest, library: &Library) -> Response<Full<Bytes>> {
    match library.version(id) {
        Some(object) => immutable(answer(object.manifest().encode().into(), BYTES)),
        None => unknown(),
    }
}

async fn chunk(
    id: Digest,
    index: u32,
    head: bool,
    library: &Library,
    metrics: &Metrics,
) -> Response<Full<Bytes>> {
    let Some(object) = library.version(id) else {
        return unknown();
    };
    let layout = object.manifest().layout;
    if index >= layout.count() {
        let text = format!("chunk {index} of {} chunks", layout.count());
        return refuse(StatusCode::NOT_FOUND, &text);
    }
    let len = layout.len(index);
    if head {
        if !object.have().contains(index) {
            return refuse(StatusCode::NOT_FOUND, "not held");
        }
        let mut response = answer(Bytes::new(), BYTES);
        response.headers_mut().insert(CONTENT_LENGTH, len.into());
        return immutable(response);
    }
    match object.read(index, 0..len).await {
        Ok(bytes) => {
            let sent = match object.role() {
                Role::Origin => &metrics.replication.out_origin,
                Role::Mirror => &metrics.replication.out_peer,
            };
            sent.inc_by(bytes.len() as u64);
            immutable(answer(bytes, BYTES))
        }
        Err(ReadError::Missing { .. }) => refuse(StatusCode::NOT_FOUND, "not held"),
        // What stands there is not the chunk: dropped by now, or being published anew as another version.
        Err(error @ ReadError::Corrupt { .. }) => refuse(StatusCode::NOT_FOUND, &error.to_string()),
        Err(error @ ReadError::Io { .. }) => {
            tracing::error!(%error, index, "chunk not read for another node");
            refuse(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the chunk cannot be read",
            )
        }
    }
}

fn answer(body: Bytes, media_type: &'static str) -> Response<Full<Bytes>> {
    let length = body.len();
    let mut response = Response::new(Full::new(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CONTENT_LENGTH, length.into());
    response
}

fn immutable(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    let for_ever = HeaderValue::from_static("public, max-age=31536000, immutable");
    response.headers_mut().insert(CACHE_CONTROL, for_ever);
    response
}

fn unknown() -> Response<Full<Bytes>> {
    refuse(StatusCode::GONE, "no such version here")
}

fn refuse(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = answer(format!("{text}\n").into(), "text/plain; charset=utf-8");
    *response.status_mut() = status;
    response
}

const BYTES: &str = "application/octet-stream";
