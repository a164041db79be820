//! Requests for other faces of an object: Metalink, torrent, magnet link, and what its tracker says.
//!
//! They are looked for where nothing else stands: a file that has such a name is served as it is.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode, header};

use super::body::{Body, Fault};
use super::faces::{self, Face, Places, SHA1};
use super::fresh::{self, Validators, Verdict};
use super::object::{Site, empty, later, page, plain, unreadable, value};
use super::receipt::{Client, Receipt};
use super::rules::{Rule, encode};
use crate::content::library::Entry;
use crate::content::object::Object;
use crate::metrics::http::{Outcome, Role};

/// The object of which `path` names a face, if its rule has that face.
pub(super) async fn find(site: &Site, path: &str) -> Option<(Face, Arc<Object>)> {
    let (face, path) = Face::of(path)?;
    let tracks = face != Face::Announce || site.pieces.seeds();
    if !tracks || !site.rules.of(path)?.has(face) {
        return None;
    }
    match site.library.find(path).await {
        Entry::Object(object) => Some((face, object)),
        _ => None,
    }
}

/// Answers with a face of an object.
pub(super) async fn serve(
    parts: &Parts,
    mut receipt: Receipt,
    face: Face,
    object: Arc<Object>,
) -> Response<Body> {
    let site = Arc::clone(&receipt.client().site);
    let manifest = object.manifest();
    let rule = site.rules.of(&manifest.path);
    let Some(places) = places(parts, receipt.client(), &object, rule) else {
        let text = "expected a Host field with this server's name";
        return plain(receipt, StatusCode::BAD_REQUEST, text);
    };
    if face == Face::Announce {
        return announced(parts, receipt, &places);
    }
    // A Metalink document has a use without them, and would have a mirror fetch all of the object for it.
    let mut with_pieces = face != Face::Metalink || object.complete();
    let tag = faces::etag(face, object.id(), with_pieces, &places);
    let validators = Validators {
        etag: &tag,
        modified: manifest.modified,
    };
    let mut response = match fresh::evaluate(&parts.method, &parts.headers, &validators) {
        Verdict::NotModified => empty(
            receipt,
            StatusCode::NOT_MODIFIED,
            Role::None,
            Outcome::NotModified,
        ),
        Verdict::PreconditionFailed => {
            let text = "this is not the version asked for";
            return plain(receipt, StatusCode::PRECONDITION_FAILED, text);
        }
        Verdict::Proceed => {
            let pieces = if receipt.head_only() {
                // Only their number shows in the head.
                Ok(Arc::new(vec![
                    0;
                    faces::pieces(manifest.layout.size) * SHA1
                ]))
            } else if with_pieces {
                receipt.waits(true);
                let wait = site.fill_wait;
                let pieces = tokio::time::timeout(wait, site.pieces.of(&object, wait)).await;
                receipt.waits(false);
                pieces.unwrap_or_else(|_| {
                    Err(Fault::Late {
                        path: manifest.path.clone(),
                        index: 0,
                        waited: wait,
                    })
                })
            } else {
                Ok(Arc::default())
            };
            let pieces = match pieces {
                Ok(pieces) => pieces,
                Err(Fault::Late { .. }) if face == Face::Metalink => {
                    with_pieces = false;
                    Arc::default()
                }
                Err(Fault::Late { .. }) => {
                    return later(
                        receipt,
                        StatusCode::SERVICE_UNAVAILABLE,
                        "the digests of its pieces are being made",
                    );
                }
                Err(fault) => {
                    fault.log();
                    return unreadable(receipt, &fault);
                }
            };
            let pieces = with_pieces.then_some(pieces.as_slice());
            let bytes = write(face, &object, pieces, &places);
            let media_type = face.media_type();
            let mut response = page(receipt, StatusCode::OK, Outcome::Ok, bytes, media_type);
            let head = response.headers_mut();
            let modified = fresh::http_date(manifest.modified);
            head.insert(header::LAST_MODIFIED, value(modified, ""));
            response
        }
    };
    let tag = faces::etag(face, object.id(), with_pieces, &places);
    let head = response.headers_mut();
    head.insert(header::ETAG, value(tag, "\"\""));
    if let Some(rule) = rule {
        rule.keep(head);
    }
    response
}

/// From what this node is called by its client, and what it knows of others; `None` if it is not called anything.
fn places(parts: &Parts, client: &Client, object: &Object, rule: Option<&Rule>) -> Option<Places> {
    let scheme = if client.encrypted { "https" } else { "http" };
    let path = encode(&object.manifest().path);
    let own = format!("{scheme}://{}{path}", host(parts)?);
    let others = rule.into_iter().flat_map(|rule| &rule.duplicates);
    let mut urls = vec![own];
    for url in others.map(|base| format!("{base}{path}")) {
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    Some(Places {
        urls,
        tracks: client.site.pieces.seeds(),
    })
}

fn write(face: Face, object: &Object, pieces: Option<&[u8]>, places: &Places) -> Bytes {
    let manifest = object.manifest();
    let known = pieces.unwrap_or_default();
    match face {
        Face::Metalink => faces::metalink(manifest, pieces, places).into(),
        Face::Torrent => faces::torrent(manifest, known, places).into(),
        Face::Magnet => (faces::magnet(manifest, known, places) + "\n").into(),
        Face::Announce => Bytes::new(),
    }
}

/// Answers a client that asks the tracker: this node and the others that have the object, if they can be peers. Who else asked is not
/// told.
fn announced(parts: &Parts, receipt: Receipt, places: &Places) -> Response<Body> {
    let peers: Vec<_> = places
        .urls
        .iter()
        .filter_map(|url| faces::peer(url))
        .collect();
    let query = parts.uri.query().unwrap_or_default();
    let compact = query.split('&').any(|field| field == "compact=1");
    let bytes = faces::announced(&peers, compact).into();
    let media_type = Face::Announce.media_type();
    let mut response = page(receipt, StatusCode::OK, Outcome::Ok, bytes, media_type);
    let no_store = HeaderValue::from_static("no-store");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, no_store);
    response
}

/// What a client calls this server, if that may stand in a URL.
fn host(parts: &Parts) -> Option<&str> {
    let host = match parts.uri.authority() {
        Some(authority) => authority.as_str(),
        None => parts.headers.get(header::HOST)?.to_str().ok()?,
    };
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    (!host.is_empty() && host.bytes().all(good)).then_some(host)
}
