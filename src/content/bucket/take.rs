//! One object of a bucket read through: digested as it comes, and kept if there is room.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use super::super::chunk::Layout;
use super::super::library::Library;
use super::super::manifest::{CHUNKS_MAX, Manifest};
use super::super::object::WriteError;
use super::super::store::{Spool, Store};
use super::book::Book;
use super::digests::Digests;
use super::listing::{Item, Tag};
use super::remote::{Fault, Remote};
use crate::metrics::Metrics;

/// What is needed to read objects through.
#[derive(Clone, Debug)]
pub(super) struct Taker {
    pub(super) remote: Remote,
    pub(super) book: Arc<Book>,
    pub(super) store: Store,
    pub(super) library: Library,
    pub(super) metrics: Arc<Metrics>,
    /// Chunk size of new objects, bytes.
    pub(super) chunk: u32,
}

/// Why an object was not taken.
#[derive(Debug)]
pub(super) enum Failure {
    Remote(Fault),
    Disk(String),
}

impl Taker {
    /// Reads the object of `item` through and publishes it in the version it has by then.
    pub(super) async fn take(self, item: Item) -> Result<(), Failure> {
        let (tag, mut bytes) = self.remote.read(&item.key).await.map_err(Failure::Remote)?;
        let layout = Layout {
            size: tag.size,
            chunk: self.chunk,
        };
        if tag.size.div_ceil(u64::from(self.chunk)) > CHUNKS_MAX as u64 {
            let text = format!(
                "{} bytes are too many for chunks of {}",
                tag.size, self.chunk
            );
            return Err(Failure::Disk(text)); // Before its bytes come.
        }
        // Bounded: the server is held back by the disk.
        let (sender, receiver) = mpsc::channel::<Bytes>(PARTS);
        let (taker, path) = (self.clone(), item.path.clone());
        let threads = self.store.threads().clone();
        let work = threads.run(move || taker.digest(&path, layout, receiver));
        let mut fault = None;
        while let Some(part) = bytes.next().await {
            match part {
                Ok(part) => {
                    self.metrics.bucket.received.inc_by(part.len() as u64);
                    if sender.send(part).await.is_err() {
                        break;
                    }
                }
                Err(error) => {
                    fault = Some(error);
                    break;
                }
            }
        }
        drop(sender);
        let digested = work.await.map_err(|e| Failure::Disk(e.to_string()))?;
        if let Some(fault) = fault {
            return Err(Failure::Remote(fault));
        }
        let (digests, spool) = digested;
        if digests.length() != layout.size {
            let text = format!("{} bytes of {}", digests.length(), layout.size);
            return Err(Failure::Remote(Fault::Server(format!(
                "{}: {text}",
                item.key
            ))));
        }
        let modified = u64::try_from(tag.modified_ms / 1_000).unwrap_or(0);
        let manifest = digests.manifest(&item.path, layout, modified);
        // What is listed next is compared with what was listed: had another version come meanwhile, it is read once more.
        let tag = Tag {
            modified_ms: item.tag.modified_ms,
            ..tag
        };
        let work = threads.run(move || {
            manifest.check().map_err(|e| e.to_string())?;
            if let Err(error) = self.book.put(&manifest, tag) {
                tracing::warn!(path = item.path, %error, "digests not remembered");
            }
            self.keep(spool, manifest);
            Ok(())
        });
        match work.await {
            Ok(kept) => kept.map_err(Failure::Disk),
            Err(error) => Err(Failure::Disk(error.to_string())),
        }
    }

    /// Digests what comes, and writes it where there is room for all of it. Blocking.
    fn digest(
        &self,
        path: &str,
        layout: Layout,
        mut parts: mpsc::Receiver<Bytes>,
    ) -> (Digests, Option<Spool>) {
        let mut digests = Digests::new(layout);
        let mut spool = match self.store.spool(path, layout.size) {
            Ok(spool) => Some(spool),
            Err(error) => {
                // It is digested nevertheless: whoever asks for it makes room.
                tracing::debug!(%error, "object of a bucket not kept");
                None
            }
        };
        while let Some(part) = parts.blocking_recv() {
            digests.take(&part);
            if let Some(Err(error)) = spool.as_mut().map(|spool| spool.write(&part)) {
                tracing::warn!(path, %error, "object of a bucket not kept");
                spool = None;
            }
        }
        (digests, spool)
    }

    /// The version in the store is the one in the book, or none. Blocking.
    fn keep(&self, spool: Option<Spool>, manifest: Manifest) {
        let path = manifest.path.clone();
        let id = manifest.digest();
        let metrics = &self.metrics.bucket;
        if let Some(spool) = spool {
            match spool.keep(manifest, self.library.editions().seal(id)) {
                Ok(object) => {
                    object.set_elsewhere(true);
                    metrics.taken_kept.inc();
                    return;
                }
                Err(error @ (WriteError::Full { .. } | WriteError::Mismatch { .. })) => {
                    tracing::debug!(%error, "object of a bucket not kept");
                }
                Err(error) => tracing::warn!(%error, "object of a bucket not kept"),
            }
        }
        metrics.taken.inc();
        let older = self.library.get(&path).filter(|object| object.id() != id);
        if older.is_some()
            && let Err(error) = self.store.remove(&path)
        {
            tracing::warn!(path, %error, "replaced version not removed");
        }
    }
}

/// Parts of an object that wait to be digested.
const PARTS: usize = 16;
