//! Plain requests for small objects, answered before hyper sees them.
//!
//! To hyper a request is a table of fields in and out, a service and a body: as much work again as the kernel's for 1 KiB. So while a
//! connection is at rest (hyper has answered and sent all it was given), what comes in is looked at here first: heads that are
//! [`super::plain`] and ask for an object in memory, or for a fresh response of the proxy's cache, are answered from the bytes kept for
//! its version. Everything else goes to hyper untouched. What is counted, logged, limited and said is the same either way;
//! `tests/it/http` holds both to one answer.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{StatusCode, Version};
use tokio::io::AsyncWrite;

use super::access::Asked;
use super::fresh;
use super::object::Site;
use super::plain::{self, Plain};
use super::proxy;
use super::receipt::Client;
use crate::content::object;
use crate::metrics::http::{Outcome, Role};
use crate::time::Now;

/// The quick answers of one connection.
#[derive(Debug)]
pub(super) struct Quick {
    site: Arc<Site>,
    /// Who asks.
    address: IpAddr,
    /// Within TLS.
    encrypted: bool,
    /// Answers; those before `sent` are with the kernel.
    out: Vec<u8>,
    sent: usize,
    /// The `Date` of answers, and its second.
    date: String,
    second: u64,
    /// Room for what a proxied response is stored by.
    key: String,
}

/// What was answered of some bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Bytes, from the first.
    pub(super) bytes: usize,
    /// Requests.
    pub(super) requests: u32,
}

/// One answer.
struct Answer {
    role: Role,
    status: StatusCode,
    outcome: Outcome,
    /// Bytes of its body.
    length: u64,
}

impl Quick {
    pub(super) fn new(client: &Client) -> Self {
        Self {
            site: Arc::clone(&client.site),
            address: client.address,
            encrypted: client.encrypted,
            out: Vec::new(),
            sent: 0,
            date: String::new(),
            second: u64::MAX,
            key: String::new(),
        }
    }

    /// Makes answers to the requests `bytes` begin with, until one is not for here or enough is waiting to be sent.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Taken {
        let mut taken = Taken::default();
        let now = Now::coarse();
        while self.out.len() < WAITING
            && let Some(head) = plain::read(&bytes[taken.bytes..], self.site.headers)
        {
            // The log says how long it took.
            let begun = self.site.access.as_ref().map(|_| Now::read());
            let Some(answer) = self.answer(&head, now) else {
                break;
            };
            let (role, outcome) = (answer.role, answer.outcome);
            self.site.metrics.http.request(role, outcome, answer.length);
            if let (Some(log), Some(begun)) = (&self.site.access, begun) {
                let asked = Asked {
                    address: self.address,
                    begun,
                    method: "GET",
                    target: head.target,
                    version: Version::HTTP_11,
                    host: Some(head.host),
                    referer: head.referer,
                    agent: head.agent,
                };
                log.write(&asked, answer.status, answer.length, outcome);
            }
            taken.bytes += head.len;
            taken.requests += 1;
        }
        if taken.requests > 0 {
            let quick = &self.site.metrics.http.quick;
            quick.inc_by(u64::from(taken.requests));
        }
        taken
    }

    /// Appends the answer to one request, if it is for here.
    fn answer(&mut self, head: &Plain<'_>, now: Now) -> Option<Answer> {
        if let Some(proxy) = &self.site.proxy {
            let host = head.host()?;
            if let Some(rule) = proxy.rule_of(host, head.path) {
                let asked = proxy::quick::Asked {
                    request: head,
                    host,
                    rule,
                    encrypted: self.encrypted,
                    now: now.unix_ms,
                };
                let (key, out) = (&mut self.key, &mut self.out);
                let hit = proxy::quick::hit(proxy, asked, LARGEST, key, out)?;
                return Some(Answer {
                    role: Role::Proxy,
                    status: hit.status,
                    outcome: hit.outcome,
                    length: hit.length,
                });
            }
        }
        self.object(head, now)
    }

    fn object(&mut self, head: &Plain<'_>, now: Now) -> Option<Answer> {
        let site = &*self.site;
        // What a query may mean to whoever makes answers is not for here.
        if head.target.len() > head.path.len() {
            return None;
        }
        let object = site.library.get(head.path)?;
        if object.manifest().layout.size > LARGEST {
            return None;
        }
        let body = object.small(now)?;
        let second = now.unix_ms / 1000;
        if self.second != second {
            self.second = second;
            self.date = fresh::http_date(second);
        }
        site.heads.append(&object, &site.rules, &mut self.out);
        self.out.extend_from_slice(self.date.as_bytes());
        self.out.extend_from_slice(b"\r\n\r\n");
        self.out.extend_from_slice(&body);
        site.content.hit.inc();
        Some(Answer {
            role: match object.role() {
                object::Role::Origin => Role::Origin,
                object::Role::Mirror => Role::Mirror,
            },
            status: StatusCode::OK,
            outcome: Outcome::Ok,
            length: body.len() as u64,
        })
    }

    /// Gives `stream` what waits. Ready when nothing does.
    ///
    /// # Errors
    /// What the stream said.
    pub(super) fn poll_send<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<io::Result<()>> {
        if self.out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while self.sent < self.out.len() {
            let rest = &self.out[self.sent..];
            let taken = ready!(Pin::new(&mut *stream).poll_write(cx, rest))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += taken;
        }
        // Within TLS, records may wait.
        ready!(Pin::new(stream).poll_flush(cx))?;
        self.sent = 0;
        self.out.clear();
        if self.out.capacity() > KEPT {
            self.out = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

/// Bodies up to this long are copied behind their heads: it costs less than to send them from where they are.
const LARGEST: u64 = 16 << 10;

/// No more is answered while this much waits to be sent.
const WAITING: usize = 64 << 10;

/// A connection at rest keeps room for this much.
const KEPT: usize = 8 << 10;
