//! One proxied request: from the cache if that may be, else sent on.

use std::sync::Arc;

use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::control::{self, Directives};
use super::fetch::{Ask, Asker};
use super::fields::Forwarded;
use super::flight::Flights;
use super::freshness::{Defaults, Use};
use super::keep::Keep;
use super::reply::{self, Asked};
use super::table::{self, Found, Stored};
use super::told::Told;
use super::upstream::Upstreams;
use super::{Config, Forward, Rule, fields};
use crate::http::body::Body;
use crate::http::object::{self, Answer};
use crate::http::receipt::{Client, Receipt};
use crate::metrics::Metrics;
use crate::metrics::proxy::Outcome;
use crate::time::Now;

/// The cache and its upstreams.
#[derive(Debug)]
pub struct Proxy {
    rules: Vec<Rule>,
    local: Vec<String>,
    pub(super) keep: Keep,
    pub(super) flights: Flights,
    pub(super) upstreams: Upstreams,
    /// Fills and validations, which outlive the requests that began them.
    pub(super) tasks: TaskTracker,
    /// Places for large bodies that have a thread each.
    pub(super) fill_threads: Semaphore,
    pub(super) via: HeaderValue,
    pub(super) object: u64,
    pub(super) on_error: u64,
    pub(super) ranges: usize,
    pub(super) metrics: Arc<Metrics>,
}

impl Proxy {
    /// Opens the cache and takes over what it held; blocks. `ranges` are honoured per request.
    ///
    /// # Errors
    /// What the kernel said of the cache's folder.
    pub fn open(config: &Config, ranges: usize, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let via = format!("1.1 {}", config.node);
        Ok(Self {
            rules: config.rules.clone(),
            local: config.local.clone(),
            keep: Keep::open(config, &metrics)?,
            flights: Flights::default(),
            upstreams: Upstreams::new(config, Arc::clone(&metrics))?,
            tasks: TaskTracker::new(),
            fill_threads: Semaphore::new(config.fill_threads),
            via: HeaderValue::try_from(via).unwrap_or(HeaderValue::from_static("1.1 headwater")),
            object: config.object,
            on_error: config.stale_if_error.as_secs(),
            ranges,
            metrics,
        })
    }

    /// The rule for a request, and the host it names; `None`: it is not for the proxy.
    #[must_use]
    pub fn takes<'a>(&self, request: &'a Request<Incoming>) -> Option<(usize, &'a str)> {
        let host = host(request.uri(), request.headers());
        Some((self.rule_of(host, request.uri().path())?, host))
    }

    /// The rule for a path of a host.
    #[must_use]
    pub fn rule_of(&self, host: &str, path: &str) -> Option<usize> {
        let name = host.rsplit_once(':').map_or(host, |(name, port)| {
            if port.bytes().all(|b| b.is_ascii_digit()) {
                name
            } else {
                host
            }
        });
        let named = |rule: &Rule| {
            rule.host.as_deref().is_some_and(|wanted| {
                wanted.eq_ignore_ascii_case(name) || wanted.eq_ignore_ascii_case(host)
            })
        };
        if let Some(rule) = self.rules.iter().position(named) {
            return Some(rule);
        }
        if path.starts_with(crate::peer::message::ROOT)
            || self.local.iter().any(|prefix| path.starts_with(prefix))
        {
            return None;
        }
        self.rules.iter().position(|rule| rule.host.is_none())
    }

    /// Removes what is stored for `host` and `target`; a target that ends in `*` is a prefix, and an empty host means
    /// all. Gives how many responses went.
    pub fn purge(&self, host: &str, target: &str) -> usize {
        let wanted = host.to_ascii_lowercase();
        let gone = match target.strip_suffix('*') {
            None if !host.is_empty() => self.keep.table.purge(host, target),
            prefix => self.keep.table.purge_where(|key| {
                let Some((of, _, at)) = table::parts(key) else {
                    return false;
                };
                let of_host = wanted.is_empty() || of == wanted;
                of_host && prefix.map_or(at == target, |prefix| at.starts_with(prefix))
            }),
        };
        self.metrics.proxy.purged.inc_by(gone as u64);
        self.keep.count();
        gone
    }

    /// Writes what is not on disk yet. For the end of the daemon.
    pub async fn close(&self) {
        for stored in self.keep.table.all() {
            if !stored.content.is_complete() && stored.content.strong {
                self.keep.disk.entry(&stored).await;
            }
        }
        self.keep.disk.close().await;
    }

    pub(super) fn rule(&self, rule: usize) -> &Rule {
        &self.rules[rule]
    }

    pub(super) fn defaults(&self, rule: usize) -> Defaults {
        Defaults {
            ttl: self.rules[rule].default_ttl,
            on_error: self.on_error,
        }
    }
}

/// The host a request is for (RFC 9112 section 3.2.2): that of its target, else its `Host`.
fn host<'a>(target: &'a Uri, headers: &'a HeaderMap) -> &'a str {
    match target.authority() {
        Some(authority) => authority.as_str(),
        None => headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .unwrap_or(""),
    }
}

/// Answers a request the proxy takes.
pub fn answer(
    proxy: &Arc<Proxy>,
    client: &Arc<Client>,
    rule: usize,
    request: Request<Incoming>,
) -> Answer {
    let has_body = !http_body::Body::is_end_stream(request.body());
    // What follows a body on its connection was not screened.
    let close = has_body && request.version() <= Version::HTTP_11;
    let (mut parts, body) = request.into_parts();
    let receipt = Receipt::new(client, &parts);
    if let Err((status, text)) = check(proxy, &parts) {
        proxy.metrics.proxy.request(Outcome::Refused);
        let mut response = refuse(status, text, receipt);
        if close {
            object::close_after(&mut response);
        }
        return response.into();
    }
    let tells = proxy.rule(rule).forwarded != Forward::Off;
    if tells {
        // Here, since a response may be chosen by it.
        fields::tell_scheme(&mut parts.headers, client.encrypted);
    }
    let host = host(&parts.uri, &parts.headers);
    let target = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    let key = table::key(host, tells && client.encrypted, target);
    let directives = directives(&parts.headers);
    let cached = !has_body && (parts.method == Method::GET || parts.method == Method::HEAD);
    let now = Now::read().unix_ms;
    let asker = Asker { rule };
    if cached && let Found::Stored(stored) = proxy.keep.table.find(&key, &parts.headers) {
        match stored.life.usable(&directives, now) {
            Use::Fresh => {
                proxy.metrics.proxy.request(Outcome::Hit);
                let asked = Asked {
                    parts: &parts,
                    asker,
                    now,
                };
                return hit(proxy, &stored, asked, receipt).into();
            }
            Use::Accepted => {
                proxy.metrics.proxy.request(Outcome::Stale);
                let asked = Asked {
                    parts: &parts,
                    asker,
                    now,
                };
                return hit(proxy, &stored, asked, receipt).into();
            }
            Use::WhileRevalidating | Use::Validate => {}
        }
    }
    let ask = Ask {
        rule,
        host: host.to_owned(),
        target: target.to_owned(),
        key: key.into(),
        directives,
        parts,
        from: Forwarded {
            client: client.address,
            encrypted: client.encrypted,
        },
    };
    let body = has_body.then_some(body);
    let proxy = Arc::clone(proxy);
    Answer::Later(Box::pin(async move {
        let mut response = proxy.later(ask, body, receipt).await;
        if close {
            object::close_after(&mut response);
        }
        response
    }))
}

/// Answers from what is stored, as it is.
pub(super) fn hit(
    proxy: &Arc<Proxy>,
    stored: &Arc<Stored>,
    asked: Asked<'_>,
    receipt: Receipt,
) -> Response<Body> {
    let ttl = stored.life.left(asked.now);
    reply::stored(proxy, stored, asked, Told::Hit { ttl }, receipt)
}

/// The request's own directives; most requests have none.
fn directives(headers: &HeaderMap) -> Directives {
    if headers.contains_key(header::CACHE_CONTROL) || headers.contains_key(header::PRAGMA) {
        control::of_request(headers)
    } else {
        Directives::default()
    }
}

/// What is refused whatever is stored.
fn check(proxy: &Proxy, parts: &Parts) -> Result<(), (StatusCode, &'static str)> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let first = hosts.next();
    // RFC 9112 section 3.2: exactly one Host, whatever the target's form.
    if parts.version == Version::HTTP_11 && (first.is_none() || hosts.next().is_some()) {
        return Err((StatusCode::BAD_REQUEST, "expected one Host field"));
    }
    let host = host(&parts.uri, &parts.headers);
    // Most are plain, and need no parser.
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':');
    let odd = !host.bytes().all(plain);
    if odd && (host.contains('@') || host.parse::<Authority>().is_err()) {
        return Err((StatusCode::BAD_REQUEST, "expected a host and a port"));
    }
    // What reflects requests, or opens a way through, is of no use here and of much to others.
    if parts.method == Method::CONNECT || parts.method == Method::TRACE {
        return Err((
            StatusCode::METHOD_NOT_ALLOWED,
            "this method is not passed on",
        ));
    }
    if parts.headers.contains_key(header::VIA) && fields::came_by(&parts.headers, &proxy.via) {
        return Err((
            StatusCode::LOOP_DETECTED,
            "the request came through this node before",
        ));
    }
    Ok(())
}

/// A refusal of our own.
pub(super) fn refuse(status: StatusCode, text: &str, receipt: Receipt) -> Response<Body> {
    let mut head = HeaderMap::new();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    head.insert(header::CONTENT_TYPE, plain);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let allow = HeaderValue::from_static("GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE");
        head.insert(header::ALLOW, allow);
    }
    let text = format!("{status}: {text}\n");
    reply::finish(status, head, text.into(), receipt)
}
