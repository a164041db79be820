//! Published objects, brought up to date with their files: called by the publisher, and when a path is looked for.

use std::sync::{Arc, PoisonError};

use tokio_util::sync::{CancellationToken, DropGuard};

use super::super::file::Source;
use super::super::manifest::check_path;
use super::super::object::{Digested, Object};
use super::super::root::{Root, open_regular};
use super::super::seal::Seals;
use super::{Library, Published};
use crate::time::Now;

impl Library {
    /// Lets `find` look below published directories. Once.
    pub(in crate::content) fn set_published(&self, published: Published) -> bool {
        self.inner.published.set(published).is_ok()
    }

    pub(in crate::content) fn published(&self) -> Option<&Published> {
        self.inner.published.get()
    }

    /// The published directory that `path` is beneath.
    pub(in crate::content) fn root(&self, path: &str) -> Option<&Root> {
        let roots = &self.inner.published.get()?.roots;
        roots
            .iter()
            .find(|root| path.starts_with(&root.config.prefix))
    }

    /// The published objects.
    #[must_use]
    pub fn published_objects(&self) -> Vec<Arc<Object>> {
        self.collect(|slot| slot.published.clone())
    }

    pub(in crate::content) fn published_at(&self, path: &str) -> Option<Arc<Object>> {
        let shard = self.inner.paths[self.shard(path)].load();
        shard.get(path)?.published.clone()
    }

    /// Brings the published object at `path` up to date with its file, on the blocking pool; the token is cancelled
    /// when that is done, well or not. One thread works on one path, whoever asks.
    pub(in crate::content) fn publish(&self, path: &str) -> CancellationToken {
        let done = CancellationToken::new();
        let Some(published) = self.inner.published.get() else {
            done.cancel();
            return done;
        };
        let mut open = published
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(done) = open.get(path) {
            return done.clone();
        }
        open.insert(path.to_owned(), done.clone());
        drop(open);
        let turn = Turn {
            library: self.clone(),
            path: path.to_owned(),
            _done: done.clone().drop_guard(),
        };
        let threads = &self.inner.reader.threads;
        threads.run(move || turn.library.take_up(&turn.path));
        done
    }

    /// Brings the published object at `path` up to date with its file. Blocking.
    fn take_up(&self, path: &str) {
        let (Some(published), Some(root)) = (self.inner.published.get(), self.root(path)) else {
            return;
        };
        let metrics = &self.inner.reader.metrics.content;
        if self.published_at(path).is_none() && !self.has_room() {
            return;
        }
        match self.digest(published, root, path) {
            Ok(Taken::Same) => {}
            Ok(Taken::Nothing) => self.unpublish(path),
            Ok(Taken::Object(object)) => {
                tracing::debug!(%path, id = %object.id(), "published");
                self.update(path, |slot| slot.published = Some(Arc::new(*object)));
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                metrics.published_failed.inc();
                tracing::warn!(%path, %error, "file not published");
            }
        }
    }

    fn digest(
        &self,
        published: &Published,
        root: &Root,
        path: &str,
    ) -> Result<Taken, std::io::Error> {
        let Some(place) = root.place(path).filter(|_| check_path(path).is_ok()) else {
            return Ok(Taken::Nothing);
        };
        let Some((file, stamp)) = open_regular(&place)? else {
            return Ok(Taken::Nothing);
        };
        let known = self.published_at(path);
        if known.is_some_and(|known| known.stamp() == Some(stamp) && known.settled()) {
            return Ok(Taken::Same);
        }
        let reader = self.reader();
        let dir = &root.config.dir;
        let recalled = published
            .remembered
            .recall(dir, path, stamp, published.chunk);
        let (digested, place, file) = match recalled {
            Some(manifest) => {
                reader.metrics.content.published_remembered.inc();
                let digested = Digested {
                    manifest,
                    stamp,
                    settled: true,
                    seals: Seals::default(),
                };
                (digested, place, file)
            }
            None => {
                drop(file);
                let digested = root.digest(path, published.chunk, reader, &published.stop)?;
                let Some(digested) = digested else {
                    return Ok(Taken::Nothing);
                };
                reader.metrics.content.published_hashed.inc();
                digested
            }
        };
        if digested.manifest.check().is_err() {
            let reason = "too large for its chunk size";
            return Err(std::io::Error::other(reason));
        }
        if digested.settled && digested.seals.get(0).is_some() {
            let (stamp, manifest) = (digested.stamp, &digested.manifest);
            if let Err(error) = published.remembered.remember(dir, stamp, manifest) {
                tracing::warn!(%path, %error, "digests not remembered");
            }
        }
        let source = Source::new(place, false, &reader.open_files, &reader.disk).opened(file);
        let object = Object::published(digested, source, Now::read(), Arc::clone(reader));
        Ok(Taken::Object(Box::new(object)))
    }

    /// The file at `path` is gone.
    pub(in crate::content) fn unpublish(&self, path: &str) {
        if self.published_at(path).is_none() {
            return;
        }
        if let (Some(published), Some(root)) = (self.inner.published.get(), self.root(path)) {
            published.remembered.forget(&root.config.dir, path);
        }
        tracing::debug!(%path, "no longer published");
        self.update(path, |slot| slot.published = None);
    }
}

/// What a look at a published file gave.
enum Taken {
    Object(Box<Object>),
    Same,
    Nothing,
}

/// A thread's work on one path; over on drop.
struct Turn {
    library: Library,
    path: String,
    _done: DropGuard,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(published) = self.library.published() {
            let mut open = published
                .open
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            open.remove(&self.path);
        }
    }
}
