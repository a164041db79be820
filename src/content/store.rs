//! Mirrored objects on disk: begun, filled chunk by chunk, recovered after a crash, removed.

use std::sync::Arc;

use super::StoreConfig;
use super::library::Library;
use super::manifest::Manifest;
use super::object::{Object, WriteError};
use crate::metrics::Metrics;

/// The store. A cheap handle.
#[derive(Clone, Debug)]
pub struct Store {}

impl Store {
    /// Opens (or makes) the store: recovers whole and partial objects into `library`, sweeps what a crash left.
    /// Blocking.
    ///
    /// # Errors
    /// The path and what the kernel said.
    pub fn open(
        config: &StoreConfig,
        library: &Library,
        metrics: Arc<Metrics>,
    ) -> Result<Self, std::io::Error> {
        let _ = (config, library, metrics);
        unimplemented!()
    }

    /// Begins a mirrored object, or gives the one already begun with the same manifest. It becomes visible in the
    /// library at once and is served while it fills; an older version at the same path stays in service until
    /// the new one is whole. Blocking.
    ///
    /// # Errors
    /// See [`WriteError`]: `Full` when the store's size would be exceeded.
    pub fn begin(&self, manifest: Manifest) -> Result<Arc<Object>, WriteError> {
        let _ = manifest;
        unimplemented!()
    }

    /// Removes the mirrored object at `path` from library and disk; readers finish on the open file. Blocking.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn remove(&self, path: &str) -> Result<bool, std::io::Error> {
        let _ = path;
        unimplemented!()
    }

    /// Bytes of mirrored objects on disk.
    #[must_use]
    pub fn used(&self) -> u64 {
        unimplemented!()
    }

    /// Makes everything written so far durable (drain). Blocking.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn flush(&self) -> Result<(), std::io::Error> {
        unimplemented!()
    }
}
