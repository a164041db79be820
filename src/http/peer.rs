//! The serving side of the peer protocol: index, catalogues, manifests, chunks, bitmaps, announcements and greetings (see
//! `peer::message`).

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;

use crate::content::catalogue::{Listed, SignedCatalogue};
use crate::content::chunk::Digest;
use crate::content::library::Library;
use crate::content::object::{Object, ReadError, Role};
use crate::content::sign::{PublicKey, Purpose};
use crate::metrics::Metrics;
use crate::peer::exchange::{ANSWER_PAGES, HaveAnswer, HaveAsk, Holding};
use crate::peer::message::{
    Ask, CATALOGUES, Edition, Hello, INDEX_ENTRIES, Index, IndexEntry, ROOT,
};
use crate::peer::secret::PROOF;
use crate::peer::swarm::Swarm;
use crate::time::Now;

/// Answers a request beneath `peer::message::ROOT` that comes from the address `from`. Chunk bodies are verified before
/// they leave. Where nodes share a secret, who does not prove to know it gets 401 and nothing else.
pub async fn serve<B>(
    request: &Request<B>,
    from: IpAddr,
    library: &Library,
    swarm: &Swarm,
    metrics: &Metrics,
) -> Response<Full<Bytes>> {
    let target = request.uri().path_and_query().map_or("/", |t| t.as_str());
    let field = request.headers().get(AUTHORIZATION);
    let field = field.and_then(|value| value.to_str().ok());
    let method = request.method().as_str();
    let proof = match swarm.admit(method, target, field, Now::read()) {
        Ok(proof) => proof,
        Err(refused) => {
            tracing::debug!(%from, %refused, "node not let in");
            return refuse(StatusCode::UNAUTHORIZED, &refused.to_string());
        }
    };
    let mut response = admitted(request, from, library, swarm, metrics).await;
    if let Some(proof) = proof {
        let proof = HeaderValue::from_str(&proof).expect("hex digits are a header value");
        response.headers_mut().insert(PROOF, proof);
    }
    response
}

async fn admitted<B>(
    request: &Request<B>,
    from: IpAddr,
    library: &Library,
    swarm: &Swarm,
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
        Ok(Ask::Catalogue(key, prefix)) => catalogue(key, &prefix, library),
        Ok(Ask::Manifest(id)) => manifest(id, library).await,
        Ok(Ask::Chunk(id, index)) => chunk(id, index, head, library, metrics).await,
        Ok(Ask::Have(asks)) => have(&asks, library, swarm),
        Ok(Ask::Announce(prefix, port)) => announced(from, port, &prefix, swarm),
        Ok(Ask::Hello) => fresh(&Hello { node: swarm.run() }),
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
    let own = match own_catalogue(prefix, library) {
        Ok(own) => own,
        Err(text) => return refuse(StatusCode::INSUFFICIENT_STORAGE, &text),
    };
    let others = library.catalogues();
    let mut catalogues: Vec<Edition> = std::iter::once(edition(&own))
        .chain(covering(&others, prefix).map(edition))
        .collect();
    catalogues.truncate(CATALOGUES);
    let listed = |object: &Object| is_listed(&object.manifest().path, prefix);
    let mut objects: Vec<IndexEntry> = library
        .list()
        .iter()
        .filter(|object| listed(object) && object.complete())
        .map(|object| entry(object, library))
        .collect();
    // What is published from a bucket can be had, held or not; what was held is the same, or an older version.
    objects.extend(from_buckets(prefix, library).map(|listed| IndexEntry {
        path: listed.path,
        manifest: listed.manifest,
        size: listed.size,
        published: true,
    }));
    objects.sort_by(|a, b| (&a.path, !a.published).cmp(&(&b.path, !b.published)));
    objects.dedup_by(|a, b| a.path == b.path);
    if objects.len() > INDEX_ENTRIES {
        return refuse(
            StatusCode::INSUFFICIENT_STORAGE,
            &too_many(objects.len(), prefix),
        );
    }
    let mut hash = blake3::Hasher::new();
    for edition in &catalogues {
        hash.update(&edition.key.0);
        hash.update(&edition.version.to_le_bytes());
    }
    for object in &objects {
        hash.update(&object.manifest.0);
        hash.update(&[u8::from(object.published)]);
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
        let index = Index {
            key: library.editions().key(),
            catalogues,
            objects,
        };
        let body = serde_json::to_vec(&index)
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

/// What the publisher with this key publishes beneath a prefix.
fn catalogue(key: PublicKey, prefix: &str, library: &Library) -> Response<Full<Bytes>> {
    let found = if key == library.editions().key() {
        match own_catalogue(prefix, library) {
            Ok(own) => Some(own),
            Err(text) => return refuse(StatusCode::INSUFFICIENT_STORAGE, &text),
        }
    } else {
        let others = library.catalogues();
        let of_key = covering(&others, prefix).filter(|signed| signed.key() == key);
        of_key
            .max_by_key(|signed| signed.catalogue().version)
            .cloned()
    };
    let Some(found) = found else {
        return refuse(StatusCode::GONE, "no such catalogue here");
    };
    let mut response = answer(Bytes::from_owner(found), BYTES);
    let fresh = HeaderValue::from_static("no-cache");
    response.headers_mut().insert(CACHE_CONTROL, fresh);
    response
}

/// What this node publishes beneath a prefix, signed.
fn own_catalogue(prefix: &str, library: &Library) -> Result<SignedCatalogue, String> {
    let scanned = || library.scanned_beneath(prefix);
    let generation = || library.generation().wrapping_shl(1) | u64::from(scanned());
    library.editions().catalogue(prefix, generation, || {
        // Before the list: what is added between the two is listed.
        let scanned = scanned();
        let mut objects: Vec<Listed> = library
            .published_objects()
            .iter()
            .filter(|object| is_listed(&object.manifest().path, prefix))
            .map(|object| Listed {
                path: object.manifest().path.clone(),
                size: object.manifest().layout.size,
                manifest: object.id(),
            })
            .collect();
        // At one path the file goes before the object of a bucket, as it does for readers.
        objects.extend(from_buckets(prefix, library));
        objects.sort_by(|a, b| a.path.cmp(&b.path));
        objects.dedup_by(|a, b| a.path == b.path);
        if objects.len() > INDEX_ENTRIES {
            return Err(too_many(objects.len(), prefix));
        }
        Ok((scanned, objects))
    })
}

/// The catalogues that say everything of their key beneath `prefix`.
fn covering<'a>(
    all: &'a [SignedCatalogue],
    prefix: &'a str,
) -> impl Iterator<Item = &'a SignedCatalogue> {
    all.iter()
        .filter(move |signed| prefix.starts_with(&signed.catalogue().prefix))
}

fn is_listed(path: &str, prefix: &str) -> bool {
    path.starts_with(prefix) && !path.starts_with(ROOT)
}

/// What this node publishes from buckets beneath a prefix. Where one lies within another, the inner one's.
fn from_buckets(prefix: &str, library: &Library) -> impl Iterator<Item = Listed> {
    let books = library.books();
    let lists: Vec<_> = books.iter().map(|book| book.listed(prefix)).collect();
    let mut all: Vec<Listed> = lists.into_iter().flatten().collect();
    all.retain(|listed| is_listed(&listed.path, prefix));
    all.into_iter()
}

/// Whether an object is published by this node, from a file or from a bucket.
fn publishes(object: &Object, library: &Library) -> bool {
    let own = library.editions().key();
    object.role() == Role::Origin || object.seal().is_some_and(|seal| seal.key == own)
}

fn edition(signed: &SignedCatalogue) -> Edition {
    Edition {
        key: signed.key(),
        version: signed.catalogue().version,
    }
}

fn too_many(objects: usize, prefix: &str) -> String {
    format!(
        "{objects} objects beneath {prefix}, at most {INDEX_ENTRIES} fit an index: ask for a longer prefix"
    )
}

fn entry(object: &Object, library: &Library) -> IndexEntry {
    let manifest = object.manifest();
    IndexEntry {
        path: manifest.path.clone(),
        manifest: object.id(),
        size: manifest.layout.size,
        published: publishes(object, library),
    }
}

async fn manifest(id: Digest, library: &Library) -> Response<Full<Bytes>> {
    match library.version_or_wish(id).await {
        Some(object) => {
            let seal = match object.role() {
                Role::Origin => Some(library.editions().seal(id)),
                // What it is worth is looked at here, not at the start, when there may be many.
                Role::Mirror => object.seal().filter(|s| s.holds(Purpose::Manifest, id)),
            };
            let Some(seal) = seal else {
                return refuse(StatusCode::GONE, "no publisher's signature here");
            };
            let mut bytes = object.manifest().encode();
            bytes.extend_from_slice(&seal.encode());
            immutable(answer(bytes.into(), BYTES))
        }
        None => unknown(),
    }
}

/// Which chunks of the versions asked about are held here.
fn have(asks: &[HaveAsk], library: &Library, swarm: &Swarm) -> Response<Full<Bytes>> {
    let mut room = ANSWER_PAGES;
    let objects = asks.iter().filter_map(|ask| {
        let Some(object) = library.version(ask.id) else {
            library.wish_version(ask.id);
            return None;
        };
        let (published, have) = (publishes(&object, library), object.have());
        let coming = swarm.coming(ask.id);
        let (tags, room) = (&ask.tags, &mut room);
        Some(Holding::since(ask.id, published, &have, tags, coming, room))
    });
    let said = HaveAnswer {
        node: swarm.run(),
        objects: objects.collect(),
    };
    fresh(&said)
}

/// Another node says what it mirrors, and learns who else does.
fn announced(from: IpAddr, port: u16, prefix: &str, swarm: &Swarm) -> Response<Full<Bytes>> {
    match swarm.announced(from, port, prefix, Now::read()) {
        Some(Ok(others)) => fresh(&others),
        Some(Err(_)) => refuse(StatusCode::SERVICE_UNAVAILABLE, "no room for another node"),
        None => refuse(StatusCode::NOT_FOUND, "no tracker"),
    }
}

/// JSON that is right only now.
fn fresh(body: &impl serde::Serialize) -> Response<Full<Bytes>> {
    let body =
        serde_json::to_vec(body).expect("numbers, strings and lists, which all have a JSON form");
    let mut response = answer(body.into(), "application/json");
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
    response
}

async fn chunk(
    id: Digest,
    index: u32,
    head: bool,
    library: &Library,
    metrics: &Metrics,
) -> Response<Full<Bytes>> {
    let Some(object) = library.version_or_wish(id).await else {
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
