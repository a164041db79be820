//! Bodies on their way into the cache: one task for each, whoever reads it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use tokio::sync::{SemaphorePermit, oneshot};

use super::Forward;
use super::bulk::{Bulk, End};
use super::content::{CHUNK, Filler};
use super::fetch::Asker;
use super::fields;
use super::flight::Place;
use super::serve::Proxy;
use super::span::{content_range, value};
use super::table::{self, Stored};
use super::upstream::{Download, Fault};
use crate::metrics::proxy::Limit;

impl Proxy {
    /// Brings a body into its content, and that to disk, in a task of its own.
    pub(super) fn fill(self: &Arc<Self>, stored: &Arc<Stored>, filler: Filler, body: Download) {
        let (this, stored) = (Arc::clone(self), Arc::clone(stored));
        self.tasks.spawn(async move {
            let content = Arc::clone(&stored.content);
            if !this.pump(&stored, filler, body).await {
                if content.is_failed() || !content.strong {
                    this.keep.table.remove(&stored);
                    this.keep.count();
                }
                return;
            }
            if content.is_complete() && !content.is_unkept() {
                this.keep.disk.entry(&stored).await;
            }
            this.keep.room();
        });
    }

    /// Brings a body into its content; `false` if it broke off, or nobody wants it any more.
    async fn pump(
        self: &Arc<Self>,
        stored: &Arc<Stored>,
        mut filler: Filler,
        mut body: Download,
    ) -> bool {
        if let Some(rest) = filler.rest()
            && rest.end - rest.start >= BULK
            && body.len() == Some(rest.end - rest.start)
            && let Some(_thread) = self.fill_thread()
        {
            let mut before = Vec::new();
            let Ok(socket) = body.divert(&mut before).await else {
                return false;
            };
            for bytes in before {
                if !self.take(stored, &mut filler, bytes).await {
                    return false;
                }
            }
            if let (Some(socket), Some(rest)) = (socket, filler.rest()) {
                let bulk = Bulk::new(socket, rest.start, rest.end, self.keep.disk.buffers());
                let Ok(bulk) = bulk else {
                    return false;
                };
                let read = bulk.left();
                let whole = self.by_thread(stored, filler, bulk, body.silence()).await;
                let Some(bulk) = whole else {
                    return false;
                };
                if bulk.end().is_ok() {
                    body.give_back(read).await;
                }
                return true;
            }
        }
        while let Some(bytes) = body.next().await {
            let Ok(bytes) = bytes else {
                return false;
            };
            if !self.take(stored, &mut filler, bytes).await {
                return false;
            }
        }
        let content = Arc::clone(filler.content());
        match filler.finish() {
            Ok(last) => {
                if let Some(index) = last {
                    self.keep.disk.chunk(&content, index).await;
                }
                true
            }
            Err(()) => false,
        }
    }

    /// A place among the large bodies that have a thread each.
    fn fill_thread(&self) -> Option<SemaphorePermit<'_>> {
        let place = self.fill_threads.try_acquire().ok();
        if place.is_none() {
            self.metrics.proxy.limit(Limit::FillThreads);
        }
        place
    }

    /// The next bytes of a body; `false` if they are the last that are wanted.
    async fn take(&self, stored: &Arc<Stored>, filler: &mut Filler, bytes: Bytes) -> bool {
        let Some(whole) = filler.append(bytes) else {
            return false;
        };
        for index in whole {
            self.keep.disk.chunk(filler.content(), index).await;
        }
        if filler.content().is_unkept() && !self.pace(stored).await {
            return false;
        }
        self.wants_more(filler)
    }

    /// Whether more of a body is wanted; counts why it is not.
    fn wants_more(&self, filler: &Filler) -> bool {
        // The disk is far behind, or fails and nobody goes on reading.
        if self.keep.is_crowded() {
            return false;
        }
        if filler.past(self.object) {
            self.metrics.proxy.limit(Limit::Object);
            return false;
        }
        let content = filler.content();
        if !content.is_read() && (filler.left() > FINISHED || content.is_unkept()) {
            self.metrics.proxy.abandoned.inc();
            return false;
        }
        true
    }

    /// Has a thread bring the rest of a large body; `None` if it broke off, or nobody wants it any more.
    async fn by_thread(
        self: &Arc<Self>,
        stored: &Arc<Stored>,
        mut filler: Filler,
        mut bulk: Bulk,
        silence: Duration,
    ) -> Option<Bulk> {
        while bulk.left() > 0 {
            let this = Arc::clone(self);
            let (tell, told) = oneshot::channel();
            let work = move || {
                this.metrics.proxy.fill_threads.inc();
                let goes_on = this.pour(&mut filler, &mut bulk, silence);
                this.metrics.proxy.fill_threads.dec();
                // Nobody listens any more: the daemon ends.
                let _ = tell.send((goes_on, filler, bulk));
            };
            let thread = std::thread::Builder::new().name("proxy-fill".to_owned());
            if let Err(error) = thread.spawn(work) {
                tracing::warn!(%error, "proxy cache: no thread for a large body");
                return None;
            }
            let (goes_on, its_filler, its_bulk) = told.await.ok()?;
            (filler, bulk) = (its_filler, its_bulk);
            if !goes_on || filler.content().is_unkept() && !self.pace(stored).await {
                return None;
            }
        }
        filler.finish().ok()?;
        Some(bulk)
    }

    /// Brings what is left of a large body, as long as the disk takes it; `false` if it broke off, or nobody wants it any
    /// more. Blocks.
    fn pour(&self, filler: &mut Filler, bulk: &mut Bulk, silence: Duration) -> bool {
        let content = Arc::clone(filler.content());
        while bulk.left() > 0 {
            let bytes = match bulk.next(silence, || self.wants_more(filler)) {
                Ok(bytes) => bytes,
                Err(end) => {
                    tracing::debug!(%end, "upstream's answer broke off");
                    if matches!(end, End::Silent) {
                        self.metrics.proxy.limit(Limit::Silence);
                    }
                    return false;
                }
            };
            self.metrics.proxy.received.inc_by(bytes.len() as u64);
            let Some(whole) = filler.append(bytes) else {
                return false;
            };
            // Those who read it send it first, while it is in the processor's cache, and its buffer is free again when it is
            // written.
            std::thread::yield_now();
            for index in whole {
                self.keep.disk.write(&content, index);
            }
            if !self.wants_more(filler) {
                return false;
            }
            if content.is_unkept() {
                break;
            }
        }
        true
    }

    /// Of what the disk does not take only a little is held for those who read it, and nobody else begins with it: waits
    /// until the slowest has gone on. `false` if it does not.
    async fn pace(&self, stored: &Arc<Stored>) -> bool {
        let content = &stored.content;
        self.keep.table.remove(stored);
        self.keep.count();
        loop {
            let mut changed = std::pin::pin!(content.changed.notified());
            changed.as_mut().enable();
            if content.forget_passed() <= UNKEPT {
                return true;
            }
            if tokio::time::timeout(PACE, changed).await.is_err() {
                return false;
            }
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
        let Some((host, encrypted, target)) = table::parts(&stored.key) else {
            return Err(Fault::Broken);
        };
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
        if self.rule(asker.rule).forwarded != Forward::Off {
            fields::tell_scheme(&mut headers, encrypted);
        }
        let text = format!("bytes={}-{}", gap.start, gap.end - 1);
        headers.insert(header::RANGE, value(text));
        let validator = stored.head.get(header::ETAG);
        let validator = validator.or_else(|| stored.head.get(header::LAST_MODIFIED));
        if let Some(validator) = validator {
            headers.insert(header::IF_RANGE, validator.clone());
        }
        fields::add_via(&mut headers, &self.via);
        let method = Method::GET;
        let sent = self
            .upstreams
            .send(asker.rule, &method, target, headers, None, None);
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
}

/// A body in the clear of at least this size has a thread, if one is free.
const BULK: u64 = 8 * CHUNK;

/// A transfer nobody reads any more is brought to its end if no more than this is left.
const FINISHED: u64 = 8 << 20;

/// Bytes held of what the disk does not take, for one response.
const UNKEPT: u64 = 4 * CHUNK;

/// Its readers go on within this, or it ends: a client that stops reading is closed long before.
const PACE: Duration = Duration::from_secs(120);
