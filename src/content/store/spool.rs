//! An object that comes whole from its beginning to its end, before it is known what its digests are.
//!
//! It is written to `incoming/N` of the store, where it counts as used from the first byte, and becomes an object's data by a
//! rename once there is a manifest. What a crash leaves there is swept at the next start.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Inner, Purpose, Store};
use crate::content::chunk::Digest;
use crate::content::manifest::Manifest;
use crate::content::object::{Object, WriteError};
use crate::content::sign::Seal;
use crate::time::Now;

/// A file of known size on its way into the store. Dropped before [`Spool::keep`], nothing of it stays.
#[derive(Debug)]
pub struct Spool {
    inner: Arc<Inner>,
    pub(super) path: PathBuf,
    pub(super) file: Option<File>,
    /// Bytes it was given room for.
    size: u64,
    length: u64,
    /// Another counts and removes it now.
    pub(super) kept: bool,
}

impl Store {
    /// Makes room for `size` bytes of `path` that nobody waits for yet. Blocking.
    ///
    /// # Errors
    /// As [`Store::begin_signed`]; it may be read without being kept then.
    pub fn spool(&self, path: &str, size: u64) -> Result<Spool, WriteError> {
        let inner = &self.inner;
        let _change = inner.changing();
        // Not known yet which version it is, so none that went before.
        inner.make_room(Digest([0; 32]), size, Purpose::Replicate, Now::read());
        let used = inner.used.load(Ordering::Acquire);
        if used.saturating_add(size) > inner.size {
            return Err(WriteError::Full {
                path: path.to_owned(),
                reason: format!(
                    "{size} bytes, and the store has {used} of {} in use",
                    inner.size
                ),
            });
        }
        let number = inner.next_removed.fetch_add(1, Ordering::Relaxed);
        let file = inner.incoming.join(number.to_string());
        let spool = Spool {
            inner: Arc::clone(inner),
            path: file,
            file: None,
            size,
            length: 0,
            kept: false,
        };
        inner.count(size);
        spool.made().map_err(|e| WriteError::of(path, e))
    }
}

impl Spool {
    fn made(mut self) -> std::io::Result<Self> {
        let disk = &self.inner.disk;
        let file = disk.create(&self.path)?;
        disk.allocate(&file, self.size)?;
        self.file = Some(file);
        Ok(self)
    }

    /// Writes what comes next. Blocking.
    ///
    /// # Errors
    /// What the kernel said; `InvalidInput`: more than it was given room for.
    pub fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let end = self.length + bytes.len() as u64;
        let Some(file) = self.file.as_ref().filter(|_| end <= self.size) else {
            return Err(std::io::ErrorKind::InvalidInput.into());
        };
        self.inner.disk.write_at(file, bytes, self.length)?;
        self.length = end;
        Ok(())
    }

    /// Makes it the data of the object that `manifest` describes, which takes its place in the library, whole. The chunks
    /// are digested once more before they leave, as all are that were read from disk. Blocking.
    ///
    /// # Errors
    /// As [`Store::begin_signed`]; `InvalidInput` if it has not the manifest's size.
    pub fn keep(self, manifest: Manifest, seal: Seal) -> Result<Arc<Object>, WriteError> {
        if self.length != self.size || manifest.layout.size != self.size {
            return Err(WriteError::Io {
                path: manifest.path,
                source: std::io::ErrorKind::InvalidInput.into(),
            });
        }
        let inner = Arc::clone(&self.inner);
        let begun = inner.begin(manifest, Some(seal), Purpose::Replicate, Some(self));
        if let Err(error) = &begun {
            let metrics = &inner.metrics.content;
            match error {
                WriteError::Full { .. } => metrics.write_full.inc(),
                WriteError::Mismatch { .. } => metrics.write_mismatch.inc(),
                WriteError::Io { .. } => metrics.write_io.inc(),
            }
        }
        begun
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let used = self.inner.used.fetch_sub(self.size, Ordering::AcqRel) - self.size;
        self.inner
            .metrics
            .content
            .store_used
            .set(super::gauge(used));
        // What cannot be removed is swept at the next start.
        drop(self.inner.disk.remove(&self.path));
    }
}
