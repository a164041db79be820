//! What the cache cannot answer: sent on, stored if it may be, and shared with those who want the same.

use std::ops::Range;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use hyper::body::Incoming;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::sync::oneshot;

use super::content::{CHUNK, Filler, Reading};
use super::control::{self, Directives};
use super::flight::{Lead, Place};
use super::flow::Flow;
use super::freshness::{Life, Times, Use};
use super::inform::{self, Informer};
use super::reply::{self, Asked};
use super::serve::{self, Proxy};
use super::table::{self, Found, Stored};
use super::told::{CACHE_STATUS, Told, Why};
use super::upstream::{Answer, Download, Fault};
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

/// The part of an upstream's partial answer that the client asked for.
#[derive(Clone, Debug)]
struct Cut {
    skip: u64,
    range: Range<u64>,
    total: u64,
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
        let upstream = &self.rule(ask.rule).upstream;
        let method = Method::GET;
        let sent = self
            .upstreams
            .send(upstream, &method, &ask.target, headers, None, informer);
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
        if len.is_none_or(|len| len > CHUNK) && self.keep.disk.fails(came) {
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
        let room = total <= self.object && !self.keep.disk.fails(times.came);
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

    /// What may be stored of an answer; `None`: nothing.
    fn make(
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
    async fn confirmed(
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

    /// Brings a body into its content, and that to disk, in a task of its own.
    fn fill(self: &Arc<Self>, stored: &Arc<Stored>, filler: Filler, body: Download) {
        let (this, stored) = (Arc::clone(self), Arc::clone(stored));
        self.tasks.spawn(async move {
            let content = Arc::clone(&stored.content);
            if !this.pump(filler, body).await {
                if content.is_failed() || !content.strong {
                    this.keep.table.remove(&stored);
                    this.keep.count();
                }
                return;
            }
            if content.is_complete() {
                this.keep.disk.entry(&stored).await;
            }
            this.keep.room();
        });
    }

    /// Brings a body into its content; `false` if it broke off, or nobody wants it any more.
    async fn pump(&self, mut filler: Filler, mut body: Download) -> bool {
        let content = Arc::clone(filler.content());
        while let Some(bytes) = body.next().await {
            let Ok(bytes) = bytes else {
                return false;
            };
            let Some(whole) = filler.append(bytes) else {
                return false;
            };
            for (index, chunk) in whole {
                self.keep.disk.chunk(&content, index, chunk).await;
            }
            // The disk does not take it.
            if self.keep.is_crowded() {
                return false;
            }
            if filler.past(self.object) {
                self.metrics.proxy.limit(Limit::Object);
                return false;
            }
            if !content.is_read() && filler.left() > FINISHED {
                self.metrics.proxy.abandoned.inc();
                return false;
            }
        }
        match filler.finish() {
            Ok(last) => {
                if let Some((index, chunk)) = last {
                    self.keep.disk.chunk(&content, index, chunk).await;
                }
                true
            }
            Err(()) => false,
        }
    }

    /// Fetches missing chunks of what is stored; returns when they are on their way, or `false` when another reader's
    /// fetch of them is over.
    ///
    /// # Errors
    /// They cannot be had: the upstream fails, or has another version.
    pub(super) async fn fetch_gap(
        self: &Arc<Self>,
        stored: &Arc<Stored>,
        asker: &Asker,
        gap: Range<u64>,
    ) -> Result<bool, Fault> {
        let _lead = match self
            .flights
            .join(&format!("{:x} {}", stored.content.id, gap.start))
        {
            Place::Lead(lead) => lead,
            Place::Follow(mut flight) => {
                while flight.changed().await.is_ok() {}
                return Ok(false);
            }
        };
        let Some(slash) = stored.key.find('/') else {
            return Err(Fault::Broken);
        };
        let (host, target) = stored.key.split_at(slash);
        let mut headers = HeaderMap::new();
        if let Ok(host) = HeaderValue::from_str(host) {
            headers.insert(header::HOST, host);
        }
        for (name, value) in &stored.vary {
            if let Some(value) = value
                .as_deref()
                .and_then(|v| HeaderValue::from_bytes(v).ok())
            {
                headers.insert(name, value);
            }
        }
        let text = format!("bytes={}-{}", gap.start, gap.end - 1);
        headers.insert(header::RANGE, value(text));
        let validator = stored.head.get(header::ETAG);
        let validator = validator.or_else(|| stored.head.get(header::LAST_MODIFIED));
        if let Some(validator) = validator {
            headers.insert(header::IF_RANGE, validator.clone());
        }
        fields::add_via(&mut headers, &self.via);
        let upstream = &self.rule(asker.rule).upstream;
        let method = Method::GET;
        let sent = self
            .upstreams
            .send(upstream, &method, target, headers, None, None);
        let answer = sent.await?;
        let expected = Some((gap.clone(), stored.content.len().unwrap_or(0)));
        if answer.head.status != StatusCode::PARTIAL_CONTENT
            || content_range(&answer.head.headers) != expected
            || !fields::confirms(&stored.head, &answer.head.headers)
        {
            // Another version: what is held of this one is of no use any more.
            self.keep.table.remove(stored);
            self.keep.count();
            return Err(Fault::Broken);
        }
        let filler = stored.content.begin(gap);
        self.fill(stored, filler, answer.body);
        Ok(true)
    }

    /// A `HEAD` that what is stored cannot answer (RFC 9111 section 4.3.5).
    async fn head(
        self: Arc<Self>,
        ask: &Ask,
        held: Option<Arc<Stored>>,
        why: Why,
        mut receipt: Receipt,
    ) -> Response<Body> {
        let asked = Now::read().unix_ms;
        let sent = self.upstreams.send(
            &self.rule(ask.rule).upstream,
            &ask.parts.method,
            &ask.target,
            self.forward(ask),
            None,
            None,
        );
        let mut answer = match sent.await {
            Ok(answer) => answer,
            Err(fault) => {
                receipt.waits(false);
                return self.failed(fault, receipt);
            }
        };
        receipt.waits(false);
        let came = Now::read().unix_ms;
        self.arrived(&mut answer.head.headers, came);
        if let Some(stored) =
            held.filter(|s| s.status == answer.head.status && s.status == StatusCode::OK)
        {
            let answered = &answer.head.headers;
            let len = stored.content.len().map(HeaderValue::from);
            let other_length = answered
                .get(header::CONTENT_LENGTH)
                .is_some_and(|said| len.is_some_and(|len| len != said));
            if other_length || fields::contradicts(&stored.head, answered) {
                self.keep.table.remove(&stored);
                self.keep.count();
            } else {
                self.confirmed(ask, &stored, answered, Times { asked, came })
                    .await;
            }
        }
        self.metrics.proxy.request(Outcome::Pass);
        self.passing(answer, None, why, receipt)
    }

    /// Sends a request on and its answer back, storing nothing but what a `POST` brings for `GET`.
    async fn pass(
        self: Arc<Self>,
        ask: &Ask,
        upload: Option<Incoming>,
        why: Why,
        mut receipt: Receipt,
    ) -> Response<Body> {
        let (informer, informed) = inform::way(ask.parts.version);
        let asked = Now::read().unix_ms;
        let sent = self.upstreams.send(
            &self.rule(ask.rule).upstream,
            &ask.parts.method,
            &ask.target,
            self.forward(ask),
            upload,
            informer,
        );
        let sent = informed.during(&receipt, sent).await;
        receipt.waits(false);
        let mut answer = match sent {
            Ok(answer) => answer,
            Err(fault) => return self.failed(fault, receipt),
        };
        let came = Now::read().unix_ms;
        self.arrived(&mut answer.head.headers, came);
        self.metrics.proxy.request(Outcome::Pass);
        let status = answer.head.status;
        if !ask.parts.method.is_safe() && (status.is_success() || status.is_redirection()) {
            self.invalidate(ask, &answer.head.headers);
            let location = answer.head.headers.get(header::CONTENT_LOCATION);
            let itself = location
                .and_then(|l| fields::resolve(&ask.host, &ask.target, l.to_str().ok()?))
                .is_some_and(|target| target == ask.target);
            // Its answer is what a GET would bring (RFC 9110 section 9.3.3).
            if ask.parts.method == Method::POST && status == StatusCode::OK && itself {
                return self.posted(ask, answer, Times { asked, came }, receipt);
            }
        }
        self.passing(answer, None, why, receipt)
    }

    /// Stores the answer to a `POST` that says how long it is fresh.
    fn posted(
        self: &Arc<Self>,
        ask: &Ask,
        answer: Answer,
        times: Times,
        receipt: Receipt,
    ) -> Response<Body> {
        let headers = &answer.head.headers;
        let (said, _) = control::of_response(headers);
        let stated =
            said.max_age.or(said.s_maxage).is_some() || headers.contains_key(header::EXPIRES);
        let len = answer.body.len().filter(|len| *len <= self.object);
        let made = len.filter(|_| stated).and_then(|len| {
            self.make(
                ask,
                &Method::GET,
                answer.head.status,
                headers.clone(),
                times,
                Some(len),
            )
        });
        let Some(stored) = made.filter(|s| s.vary.is_empty()) else {
            return self.passing(answer, None, Why::Method, receipt);
        };
        let stored = Arc::new(stored);
        let filler = stored.content.begin(0..len.unwrap_or(0));
        let _reading = stored.content.reader();
        self.keep.insert(&stored);
        self.fill(&stored, filler, answer.body);
        let asked = Asked {
            parts: &ask.parts,
            asker: Asker { rule: ask.rule },
            now: times.came,
        };
        let told = Told::Forwarded {
            why: Why::Method,
            status: None,
            stored: true,
            collapsed: false,
        };
        reply::stored(self, &stored, asked, told, receipt)
    }

    /// Drops what an unsafe request changed (RFC 9111 section 4.4).
    fn invalidate(&self, ask: &Ask, answer: &HeaderMap) {
        let mut gone = self.keep.table.purge(&ask.key);
        for target in fields::invalidated(&ask.host, &ask.target, answer) {
            gone += self.keep.table.purge(&table::key(&ask.host, &target));
        }
        self.metrics.proxy.purged.inc_by(gone as u64);
        self.keep.count();
    }

    /// The fields a request is sent on with.
    fn forward(&self, ask: &Ask) -> HeaderMap {
        let mut headers = ask.parts.headers.clone();
        fields::strip_hops(&mut headers);
        headers.remove(header::EXPECT);
        if ask.host.is_empty() {
            headers.remove(header::HOST);
        } else if let Ok(host) = HeaderValue::from_str(&ask.host) {
            headers.insert(header::HOST, host);
        }
        fields::add_via(&mut headers, &self.via);
        headers
    }

    /// What an answer gets on its arrival.
    fn arrived(&self, headers: &mut HeaderMap, now: u64) {
        fields::strip_hops(headers);
        if !headers.contains_key(header::DATE) {
            let date = crate::http::fresh::http_date(now / 1_000);
            headers.insert(header::DATE, value(date));
        }
        fields::add_via(headers, &self.via);
    }

    /// An answer straight to the client.
    fn passing(
        &self,
        answer: Answer,
        cut: Option<Cut>,
        why: Why,
        receipt: Receipt,
    ) -> Response<Body> {
        let Answer { mut head, body } = answer;
        let told = Told::Forwarded {
            why,
            status: None,
            stored: false,
            collapsed: false,
        };
        head.headers.append(CACHE_STATUS, told.value());
        let (skip, length) = match cut {
            None => (0, body.len()),
            Some(cut) => {
                let Range { start, end } = cut.range;
                let text = format!("bytes {start}-{}/{}", end - 1, cut.total);
                head.headers.insert(header::CONTENT_RANGE, value(text));
                head.headers
                    .insert(header::CONTENT_LENGTH, HeaderValue::from(end - start));
                (cut.skip, Some(end - start))
            }
        };
        if receipt.head_only() || body.is_empty() {
            return reply::finish(head.status, head.headers, bytes::Bytes::new(), receipt);
        }
        let flow = Flow::upstream(body, skip, length);
        reply::flowing(head.status, head.headers, flow, receipt)
    }

    /// An upstream that does not answer.
    fn failed(&self, fault: Fault, receipt: Receipt) -> Response<Body> {
        self.metrics.proxy.request(Outcome::Failed);
        let status = match fault {
            Fault::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Fault::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Fault::Broken => StatusCode::BAD_GATEWAY,
        };
        serve::refuse(status, &fault.to_string(), receipt)
    }
}

/// Statuses for which something stale may stand in (RFC 5861 section 4).
fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

/// The range a request names, as far as the cache deals with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// None.
    Whole,
    /// From the first to the last byte, or to the end.
    Range(u64, Option<u64>),
    /// Several, or of the end: where they lie is not known beforehand.
    Odd,
}

fn wanted_range(headers: &HeaderMap) -> Wanted {
    let mut fields = headers.get_all(header::RANGE).iter();
    let Some(field) = fields.next() else {
        return Wanted::Whole;
    };
    let parse = || {
        let text = field.to_str().ok()?.strip_prefix("bytes=")?;
        let (first, last) = text.split_once('-')?;
        let digits = |text: &str| {
            text.bytes()
                .all(|b| b.is_ascii_digit())
                .then(|| text.parse().ok())
        };
        let first: u64 = digits(first)??;
        if last.is_empty() {
            return Some(Wanted::Range(first, None));
        }
        let last: u64 = digits(last)??;
        (first <= last).then_some(Wanted::Range(first, Some(last)))
    };
    match parse() {
        Some(range) if fields.next().is_none() => range,
        _ => Wanted::Odd,
    }
}

/// A range widened to whole chunks: its first byte, and the field.
fn aligned(first: u64, last: Option<u64>) -> (u64, HeaderValue) {
    let first = first / CHUNK * CHUNK;
    let text = match last {
        Some(last) => {
            let end = (last / CHUNK).saturating_add(1).saturating_mul(CHUNK);
            format!("bytes={first}-{}", end - 1)
        }
        None => format!("bytes={first}-"),
    };
    (first, value(text))
}

/// Where a partial answer lies, and in how much (RFC 9110 section 14.4).
fn content_range(headers: &HeaderMap) -> Option<(Range<u64>, u64)> {
    let field = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = field.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let total: u64 = total.parse().ok()?;
    (first <= last && last < total).then(|| (first..last + 1, total))
}

fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("words and numbers are a field value")
}

/// A number nobody can guess: a file's name, a boundary.
pub(super) fn dice() -> u128 {
    let mut bytes = [0; 16];
    // Without entropy they would still differ by what follows.
    let _ = getrandom(&mut bytes, GetRandomFlags::empty());
    u128::from_le_bytes(bytes)
}

/// A transfer nobody reads any more is brought to its end if no more than this is left.
const FINISHED: u64 = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(range: &str, expected: Wanted) {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, range.parse().unwrap());
        assert_eq!(wanted_range(&headers), expected, "{range}");
    }

    #[test]
    fn one_range_from_the_start_is_dealt_with() {
        check("bytes=0-0", Wanted::Range(0, Some(0)));
        check("bytes=5-", Wanted::Range(5, None));
        for odd in [
            "bytes=-5",
            "bytes=1-2,4-5",
            "bytes=5-4",
            "lines=1-2",
            "bytes=+1-2",
        ] {
            check(odd, Wanted::Odd);
        }
        assert_eq!(wanted_range(&HeaderMap::new()), Wanted::Whole);
    }

    #[test]
    fn content_range_that_cannot_be_is_none() {
        for bad in [
            "bytes 5-4/9",
            "bytes 0-9/9",
            "bytes */9",
            "bytes 0-1/*",
            "0-1/9",
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_RANGE, bad.parse().unwrap());
            assert_eq!(content_range(&headers), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn aligned_range_covers_what_is_wanted_and_little_more(
            first in 0u64..1 << 50, more in 0u64..1 << 30,
        ) {
            let last = first + more;
            let (from, text) = aligned(first, Some(last));
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, text);
            let Wanted::Range(a, Some(b)) = wanted_range(&headers) else { panic!() };
            prop_assert_eq!(a, from);
            prop_assert!(a <= first && last <= b);
            prop_assert!(first - a < CHUNK && b - last < CHUNK);
        }
    }
}
