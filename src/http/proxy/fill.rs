//! Bodies on their way into the cache: one task for each, whoever reads it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::Forward;
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
    async fn pump(&self, stored: &Arc<Stored>, mut filler: Filler, mut body: Download) -> bool {
        let content = Arc::clone(filler.content());
        while let Some(bytes) = body.next().await {
            let Ok(bytes) = bytes else {
                return false;
            };
            let Some(whole) = filler.append(bytes) else {
                return false;
            };
            for index in whole {
                self.keep.disk.chunk(&content, index).await;
            }
            if content.is_unkept() && !self.pace(stored).await {
                return false;
            }
            // The disk is far behind, or fails and nobody goes on reading.
            if self.keep.is_crowded() {
                return false;
            }
            if filler.past(self.object) {
                self.metrics.proxy.limit(Limit::Object);
                return false;
            }
            if !content.is_read() && (filler.left() > FINISHED || content.is_unkept()) {
                self.metrics.proxy.abandoned.inc();
                return false;
            }
        }
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

/// A transfer nobody reads any more is brought to its end if no more than this is left.
const FINISHED: u64 = 8 << 20;

/// Bytes held of what the disk does not take, for one response.
const UNKEPT: u64 = 4 * CHUNK;

/// Its readers go on within this, or it ends: a client that stops reading is closed long before.
const PACE: Duration = Duration::from_secs(120);
