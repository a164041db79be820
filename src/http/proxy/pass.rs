//! What goes through without being kept; and what an unsafe request makes stale.

use std::ops::Range;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use hyper::body::Incoming;

use super::control;
use super::fetch::{Ask, Asker};
use super::fields;
use super::flow::Flow;
use super::freshness::Times;
use super::inform;
use super::reply::{self, Asked};
use super::serve::{self, Proxy};
use super::span::{Cut, value};
use super::table::Stored;
use super::told::{CACHE_STATUS, Told, Why};
use super::upstream::{Answer, Fault};
use crate::http::body::Body;
use crate::http::receipt::Receipt;
use crate::metrics::proxy::Outcome;
use crate::time::Now;

impl Proxy {
    /// A `HEAD` that what is stored cannot answer (RFC 9111 section 4.3.5).
    pub(super) async fn head(
        self: Arc<Self>,
        ask: &Ask,
        held: Option<Arc<Stored>>,
        why: Why,
        mut receipt: Receipt,
    ) -> Response<Body> {
        let asked = Now::read().unix_ms;
        let sent = self.upstreams.send(
            ask.rule,
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
    pub(super) async fn pass(
        self: Arc<Self>,
        ask: &Ask,
        upload: Option<Incoming>,
        why: Why,
        mut receipt: Receipt,
    ) -> Response<Body> {
        let (informer, informed) = inform::way(ask.parts.version);
        let asked = Now::read().unix_ms;
        let sent = self.upstreams.send(
            ask.rule,
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
        let mut gone = self.keep.table.purge(&ask.host, &ask.target);
        for target in fields::invalidated(&ask.host, &ask.target, answer) {
            gone += self.keep.table.purge(&ask.host, &target);
        }
        self.metrics.proxy.purged.inc_by(gone as u64);
        self.keep.count();
    }

    /// An answer straight to the client.
    pub(super) fn passing(
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
    pub(super) fn failed(&self, fault: Fault, receipt: Receipt) -> Response<Body> {
        self.metrics.proxy.request(Outcome::Failed);
        let status = match fault {
            Fault::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Fault::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Fault::Broken => StatusCode::BAD_GATEWAY,
        };
        serve::refuse(status, &fault.to_string(), receipt)
    }
}
