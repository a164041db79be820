//! What the cache cannot answer: sent on, stored if it may be, and shared with those who want the same.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use hyper::body::Incoming;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::sync::oneshot;

use super::content::{CHUNK, Reading};
use super::control::{self, Directives};
use super::fields::Forwarded;
use super::flight::{Lead, Place};
use super::freshness::{Life, Times, Use};
use super::inform::{self, Informer};
use super::reply::{self, Asked};
use super::serve::{self, Proxy};
use super::span::{Cut, Wanted, aligned, content_range, value, wanted_range};
use super::table::{Found, Stored};
use super::told::{Told, Why};
use super::upstream::{Answer, Fault};
use super::{fields, storable, vary};
use crate::http::body::Body;
use crate::http::receipt::Receipt;
use crate::metrics::proxy::{Limit, Outcome};
use crate::time::Now;

/// A request the cache could not answer at once.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) rule: usize,
    pub(super) host: String,
    pub(super) target: String,
    pub(super) key: Arc<str>,
    pub(super) directives: Directives,
    pub(super) parts: Parts,
    /// Whom the upstream is told it is for.
    pub(super) from: Forwarded,
}

/// On whose behalf missing chunks are fetched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) rule: usize,
}

/// What came of sending a request on.
enum Fetched {
    /// It is stored, or being stored.
    Stored {
        stored: Arc<Stored>,
        /// The upstream's status.
        status: StatusCode,
        /// The upstream confirmed what was stored.
        confirmed: bool,
        /// Whoever asked will read it: the fill is not given up before that.
        _reading: Reading,
    },
    /// It goes to the client only.
    Pass(Box<Answer>, Option<Cut>),
    /// There is none.
    Failed(Fault),
}

impl Proxy {
    /// Answers a request that needs the upstream, or did when it came.
    pub(super) async fn later(
        self: Arc<Self>,
        ask: Ask,
        upload: Option<Incoming>,
        mut receipt: Receipt,
    ) -> Response<Body> {
        receipt.waits(true);
        let cached = upload.is_none()
            && (ask.parts.method == Method::GET || ask.parts.method == Method::HEAD);
        if !cached {
            return self.pass(&ask, upload, Why::Method, receipt).await;
        }
        let mut collapsed = false;
        let (held, why, lead) = loop {
            let now = Now::read().unix_ms;
            let asked = |receipt: &mut Receipt| {
                receipt.waits(false);
                Asked {
                    parts: &ask.parts,
                    asker: Asker { rule: ask.rule },
                    now,
                }
            };
            let found = self.keep.table.find(&ask.key, &ask.parts.headers);
            let (held, why) = match found {
                Found::Nothing => (None, Why::UriMiss),
                Found::Others => (None, Why::VaryMiss),
                Found::Stored(stored) => match stored.life.usable(&ask.directives, now) {
                    Use::Fresh | Use::Accepted => {
                        let asked = asked(&mut receipt);
                        if !collapsed {
                            self.metrics.proxy.request(Outcome::Hit);
                            return serve::hit(&self, &stored, asked, receipt);
                        }
                        self.metrics.proxy.request(Outcome::Collapsed);
                        let told = Told::Forwarded {
                            why: Why::UriMiss,
                            status: None,
                            stored: false,
                            collapsed,
                        };
                        return reply::stored(&self, &stored, asked, told, receipt);
                    }
                    Use::WhileRevalidating => {
                        self.refresh(&ask, &stored);
                        self.metrics.proxy.request(Outcome::Stale);
                        return serve::hit(&self, &stored, asked(&mut receipt), receipt);
                    }
                    Use::Validate => {
                        let why = if stored.life.usable(&Directives::default(), now) == Use::Fresh {
                            Why::Request
                        } else {
                            Why::Stale
                        };
                        (Some(stored), why)
                    }
                },
            };
            if ask.directives.only_if_cached {
                receipt.waits(false);
                self.metrics.proxy.request(Outcome::Refused);
                let text = "nothing that is stored will do";
                return serve::refuse(StatusCode::GATEWAY_TIMEOUT, text, receipt);
            }
            if ask.parts.method == Method::HEAD {
                return self.head(&ask, held, why, receipt).await;
            }
            let wants = wanted_range(&ask.parts.headers);
            // What comes of these is of no use to others, or not to be taken for the whole.
            let single = ask.directives.no_store
                || fields::has_conditions(&ask.parts.headers)
                || ask.parts.headers.contains_key(header::IF_RANGE)
                || wants == Wanted::Odd;
            if single && held.is_none() {
                return self.pass(&ask, None, why, receipt).await;
            }
            // Others are not made to wait for an answer that may be for these credentials only.
            if collapsed || single || ask.parts.headers.contains_key(header::AUTHORIZATION) {
                break (held, why, None);
            }
            match self.flights.join(&ask.key) {
                Place::Lead(lead) => break (held, why, Some(lead)),
                Place::Follow(mut flight) => {
                    collapsed = true;
                    // It ends when the head came, or did not.
                    while flight.changed().await.is_ok() {}
                }
            }
        };
        self.get(ask, held, why, lead, receipt).await
    }

    /// Fetches, or validates, on behalf of this client and those who follow it.
    async fn get(
        self: Arc<Self>,
        ask: Ask,
        held: Option<Arc<Stored>>,
        why: Why,
        lead: Option<Lead>,
        mut receipt: Receipt,
    ) -> Response<Body> {
        let (tell, told) = oneshot::channel();
        let (informer, informed) = inform::way(ask.parts.version);
        let ask = Arc::new(ask);
        // A task of its own: others may follow it when this client is gone.
        self.tasks.spawn({
            let (this, ask, held) = (Arc::clone(&self), Arc::clone(&ask), held.clone());
            async move {
                let fetched = this.fetch(&ask, held.as_ref(), informer).await;
                drop(lead);
                // The client is gone.
                let _ = tell.send(fetched);
            }
        });
        let fetched = informed.during(&receipt, told).await;
        let fetched = fetched.unwrap_or(Fetched::Failed(Fault::Broken));
        receipt.waits(false);
        let now = Now::read().unix_ms;
        let asked = Asked {
            parts: &ask.parts,
            asker: Asker { rule: ask.rule },
            now,
        };
        let failed = match &fetched {
            Fetched::Failed(_) => true,
            Fetched::Pass(answer, _) => is_failure(answer.head.status),
            Fetched::Stored { .. } => false,
        };
        if failed
            && let Some(stored) = &held
            && stored.life.stands_in(now)
        {
            self.metrics.proxy.request(Outcome::Stale);
            let ttl = stored.life.left(now);
            return reply::stored(&self, stored, asked, Told::StaleOnError { ttl }, receipt);
        }
        match fetched {
            Fetched::Stored {
                stored,
                status,
                confirmed,
                _reading,
            } => {
                self.metrics.proxy.request(if confirmed {
                    Outcome::Revalidated
                } else {
                    Outcome::Miss
                });
                let told = Told::Forwarded {
                    why,
                    status: (status != stored.status).then_some(status.as_u16()),
                    stored: true,
                    collapsed: false,
                };
                reply::stored(&self, &stored, asked, told, receipt)
            }
            Fetched::Pass(answer, cut) => {
                self.metrics.proxy.request(Outcome::Pass);
                self.passing(*answer, cut, why, receipt)
            }
            Fetched::Failed(fault) => self.failed(fault, receipt),
        }
    }

    /// Validates what is stored while a client is served with it.
    fn refresh(self: &Arc<Self>, ask: &Ask, stored: &Arc<Stored>) {
        use std::sync::atomic::Ordering::Relaxed;
        if stored.validating.swap(true, Relaxed) {
            return;
        }
        let mut parts = http::Request::new(()).into_parts().0;
        parts.headers = ask.parts.headers.clone();
        fields::strip_conditions(&mut parts.headers);
        parts.version = ask.parts.version;
        let ask = Ask {
            rule: ask.rule,
            host: ask.host.clone(),
            target: ask.target.clone(),
            key: Arc::clone(&ask.key),
            directives: Directives::default(),
            parts,
            from: ask.from,
        };
        let (this, stored) = (Arc::clone(self), Arc::clone(stored));
        self.tasks.spawn(async move {
            this.fetch(&ask, Some(&stored), None).await;
            stored.validating.store(false, Relaxed);
        });
    }

    /// Asks the upstream, with the validators of `held` if there is something; stores what comes if it may be.
    async fn fetch(
        self: &Arc<Self>,
        ask: &Ask,
        held: Option<&Arc<Stored>>,
        informer: Informer,
    ) -> Fetched {
        let mut headers = self.forward(ask);
        let wanted = wanted_range(&ask.parts.headers);
        let mut from = None;
        match held {
            Some(stored) => fields::validate(&mut headers, &stored.head),
            None => {
                if let Wanted::Range(first, last) = wanted {
                    let (first, text) = aligned(first, last);
                    headers.insert(header::RANGE, text);
                    from = Some(first);
                }
            }
        }
        let asked = Now::read().unix_ms;
        let method = Method::GET;
        let sent = self
            .upstreams
            .send(ask.rule, &method, &ask.target, headers, None, informer);
        let mut answer = match sent.await {
            Ok(answer) => answer,
            Err(fault) => return Fetched::Failed(fault),
        };
        let came = Now::read().unix_ms;
        self.arrived(&mut answer.head.headers, came);
        let times = Times { asked, came };
        let status = answer.head.status;
        if status == StatusCode::NOT_MODIFIED
            && let Some(stored) = held
        {
            if !fields::confirms(&stored.head, &answer.head.headers) {
                self.keep.table.remove(stored);
                return Fetched::Failed(Fault::Broken);
            }
            let stored = self
                .confirmed(ask, stored, &answer.head.headers, times)
                .await;
            return Fetched::Stored {
                _reading: stored.content.reader(),
                stored,
                status,
                confirmed: true,
            };
        }
        if status == StatusCode::PARTIAL_CONTENT {
            return self.part(ask, answer, from, wanted, times).await;
        }
        if is_failure(status) && held.is_some_and(|stored| stored.life.stands_in(came)) {
            return Fetched::Pass(Box::new(answer), None);
        }
        let len = answer.body.len();
        if len.is_some_and(|len| len > self.object) {
            self.metrics.proxy.limit(Limit::Object);
            return Fetched::Pass(Box::new(answer), None);
        }
        if len.is_none_or(|len| len > CHUNK) && !self.takes_in(len.unwrap_or(0), came) {
            return Fetched::Pass(Box::new(answer), None);
        }
        let made = self.make(
            ask,
            &Method::GET,
            status,
            answer.head.headers.clone(),
            times,
            len,
        );
        let Some(stored) = made else {
            return Fetched::Pass(Box::new(answer), None);
        };
        let stored = Arc::new(stored);
        let filler = stored.content.begin(0..len.unwrap_or(u64::MAX));
        let reading = stored.content.reader();
        self.keep.insert(&stored);
        self.fill(&stored, filler, answer.body);
        Fetched::Stored {
            stored,
            status,
            confirmed: false,
            _reading: reading,
        }
    }

    /// Takes a 206 to a range that was widened to chunks.
    async fn part(
        self: &Arc<Self>,
        ask: &Ask,
        answer: Answer,
        from: Option<u64>,
        wanted: Wanted,
        times: Times,
    ) -> Fetched {
        let (Some(from), Wanted::Range(first, last)) = (from, wanted) else {
            return Fetched::Pass(Box::new(answer), None);
        };
        let Some((range, total)) = content_range(&answer.head.headers) else {
            return Fetched::Failed(Fault::Broken);
        };
        let exact = answer
            .body
            .len()
            .is_none_or(|len| len == range.end - range.start);
        if range.start != from || !exact {
            return Fetched::Failed(Fault::Broken);
        }
        let mut headers = answer.head.headers.clone();
        headers.remove(header::CONTENT_RANGE);
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(total));
        let whole = range == (0..total);
        let keeps = whole || storable::has_strong_validator(&headers);
        let room = total <= self.object && self.takes_in(range.end - range.start, times.came);
        let made = if keeps && room {
            self.make(
                ask,
                &Method::GET,
                StatusCode::OK,
                headers,
                times,
                Some(total),
            )
        } else {
            None
        };
        let Some(stored) = made else {
            let end = last.map_or(range.end, |last| range.end.min(last.saturating_add(1)));
            if first >= end {
                return Fetched::Failed(Fault::Broken);
            }
            let cut = Cut {
                skip: first - from,
                range: first..end,
                total,
            };
            return Fetched::Pass(Box::new(answer), Some(cut));
        };
        let stored = Arc::new(stored);
        let filler = stored.content.begin(range);
        let reading = stored.content.reader();
        self.keep.insert(&stored);
        self.fill(&stored, filler, answer.body);
        Fetched::Stored {
            stored,
            status: StatusCode::PARTIAL_CONTENT,
            confirmed: false,
            _reading: reading,
        }
    }

    /// Whether the disk is likely to take `len` bytes, as far as is known.
    fn takes_in(&self, len: u64, now: u64) -> bool {
        !self.keep.disk.fails(now) && self.keep.fits(len)
    }

    /// What may be stored of an answer; `None`: nothing.
    pub(super) fn make(
        &self,
        ask: &Ask,
        method: &Method,
        status: StatusCode,
        mut headers: HeaderMap,
        times: Times,
        len: Option<u64>,
    ) -> Option<Stored> {
        let (said, targeted) = control::of_response(&headers);
        let request = &ask.parts.headers;
        if !storable::may_store(method, request, &ask.directives, status, &headers, &said) {
            return None;
        }
        let vary = vary::key(request, &headers)?;
        // Of these the upstream sees another value than the client sent.
        if vary.iter().any(|(name, _)| fields::names_client(name)) {
            return None;
        }
        let defaults = self.defaults(ask.rule);
        let life = Life::of(status, &headers, &said, targeted, times, defaults);
        let useful = life.fresh > times.came
            || life.revalidate > times.came
            || storable::has_validator(&headers);
        if !useful {
            return None;
        }
        fields::keep_out(&mut headers, &said);
        headers.remove(header::AGE);
        headers.remove(header::CONTENT_LENGTH);
        let strong = status == StatusCode::OK && storable::has_strong_validator(&headers);
        let content = self.keep.content(len, strong);
        Some(Stored::new(
            Arc::clone(&ask.key),
            vary,
            status,
            headers,
            life,
            content,
        ))
    }

    /// A stored response whose upstream confirmed it.
    pub(super) async fn confirmed(
        &self,
        ask: &Ask,
        stored: &Arc<Stored>,
        answer: &HeaderMap,
        times: Times,
    ) -> Arc<Stored> {
        let mut head = stored.head.clone();
        fields::update(&mut head, answer);
        let (said, targeted) = control::of_response(&head);
        fields::keep_out(&mut head, &said);
        // Its age is that of the confirmation.
        let aged = if answer.contains_key(header::AGE) {
            answer
        } else {
            &head
        };
        let mut dated = head.clone();
        if let Some(age) = aged.get(header::AGE) {
            dated.insert(header::AGE, age.clone());
        }
        let defaults = self.defaults(ask.rule);
        let life = Life::of(stored.status, &dated, &said, targeted, times, defaults);
        head.remove(header::AGE);
        let updated = Arc::new(Stored::new(
            Arc::clone(&stored.key),
            stored.vary.clone(),
            stored.status,
            head,
            life,
            Arc::clone(&stored.content),
        ));
        self.keep.insert(&updated);
        if updated.content.is_complete() {
            self.keep.disk.entry(&updated).await;
        }
        updated
    }

    /// The fields a request is sent on with.
    pub(super) fn forward(&self, ask: &Ask) -> HeaderMap {
        let mut headers = ask.parts.headers.clone();
        fields::strip_hops(&mut headers);
        headers.remove(header::EXPECT);
        if ask.host.is_empty() {
            headers.remove(header::HOST);
        } else if let Ok(host) = HeaderValue::from_str(&ask.host) {
            headers.insert(header::HOST, host);
        }
        fields::tell_client(
            &mut headers,
            self.rule(ask.rule).forwarded,
            &ask.from,
            &ask.host,
        );
        fields::add_via(&mut headers, &self.via);
        headers
    }

    /// What an answer gets on its arrival.
    pub(super) fn arrived(&self, headers: &mut HeaderMap, now: u64) {
        fields::strip_hops(headers);
        if !headers.contains_key(header::DATE) {
            let date = crate::http::fresh::http_date(now / 1_000);
            headers.insert(header::DATE, value(date));
        }
        fields::add_via(headers, &self.via);
    }
}

/// Statuses for which something stale may stand in (RFC 5861 section 4).
fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

/// A number nobody can guess: a file's name, a boundary.
pub(super) fn dice() -> u128 {
    let mut bytes = [0; 16];
    // Without entropy they would still differ by what follows.
    let _ = getrandom(&mut bytes, GetRandomFlags::empty());
    u128::from_le_bytes(bytes)
}
