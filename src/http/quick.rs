//! Plain requests for small objects, answered before hyper sees them.
//!
//! To hyper a request is a table of fields in and out, a service and a body: as much work again as the kernel's for 1 KiB. So while a
//! connection is at rest (hyper has answered and sent all it was given), what comes in is looked at here first: heads that are
//! [`super::plain`] and ask for an object in memory are answered from the bytes kept for its version. Everything else goes to hyper
//! untouched. What is counted, logged, limited and said is the same either way; `tests/it/http` holds both to one answer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::fresh;
use super::object::Site;
use super::plain;
use crate::content::object::Role;
use crate::metrics::http;
use crate::time::Now;

/// The quick answers of one connection.
#[derive(Debug)]
pub(super) struct Quick {
    /// `None`: hyper gets everything.
    site: Option<Arc<Site>>,
    /// Answers; those before `sent` are with the kernel.
    out: Vec<u8>,
    sent: usize,
    /// The `Date` of answers, and its second.
    date: String,
    second: u64,
}

/// What was answered of some bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Bytes, from the first.
    pub(super) bytes: usize,
    /// Requests.
    pub(super) requests: u32,
}

impl Quick {
    pub(super) fn new(site: &Arc<Site>) -> Self {
        // A line of the log is made from hyper's request; and a proxied host may have any path.
        let quick = site.access.is_none() && site.proxy.is_none();
        Self {
            site: quick.then(|| Arc::clone(site)),
            out: Vec::new(),
            sent: 0,
            date: String::new(),
            second: u64::MAX,
        }
    }

    /// Makes answers to the requests `bytes` begin with, until one is not for here or enough is waiting to be sent.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Taken {
        let mut taken = Taken::default();
        let Some(site) = &self.site else {
            return taken;
        };
        while self.out.len() < WAITING
            && let Some(head) = plain::read(&bytes[taken.bytes..], site.headers)
            && let Some(object) = site.library.get(head.path)
            && object.manifest().layout.size <= LARGEST
            && let Some(body) = object.small()
        {
            let second = Now::read().unix_ms / 1000;
            if self.second != second {
                self.second = second;
                self.date = fresh::http_date(second);
            }
            site.heads.append(&object, &site.rules, &mut self.out);
            self.out.extend_from_slice(self.date.as_bytes());
            self.out.extend_from_slice(b"\r\n\r\n");
            self.out.extend_from_slice(&body);
            let role = match object.role() {
                Role::Origin => http::Role::Origin,
                Role::Mirror => http::Role::Mirror,
            };
            let length = body.len() as u64;
            site.metrics.http.request(role, http::Outcome::Ok, length);
            site.content.hit.inc();
            taken.bytes += head.len;
            taken.requests += 1;
        }
        taken
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
