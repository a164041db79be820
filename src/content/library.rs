//! The library: paths to objects, one immutable snapshot swapped on change.

use std::sync::Arc;

use super::chunk::Digest;
use super::object::Object;

/// What this node can serve. A cheap handle.
#[derive(Clone, Debug)]
pub struct Library {}

/// What stands at a path.
#[derive(Clone, Debug)]
pub enum Entry {
    /// An object.
    Object(Arc<Object>),
    /// A directory without an index file: its listing (names, directories with a final `/`), if allowed.
    Listing(Vec<String>),
    /// A directory asked for without its final `/`.
    Directory,
    /// Nothing.
    None,
}

impl Library {
    /// An empty library of at most `config.objects` objects.
    #[must_use]
    pub fn new(config: &super::StoreConfig) -> Self {
        let _ = config;
        Self {}
    }

    /// Looks up a decoded, normalised absolute path. Published files newer than the last scan are found too.
    pub async fn find(&self, path: &str) -> Entry {
        let _ = path;
        unimplemented!()
    }

    /// The object at `path`, if it is known already. No system call.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<Arc<Object>> {
        let _ = path;
        unimplemented!()
    }

    /// A version by its manifest digest (current ones, and old ones still being read).
    #[must_use]
    pub fn version(&self, id: Digest) -> Option<Arc<Object>> {
        let _ = id;
        unimplemented!()
    }

    /// All current objects, by path.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Object>> {
        unimplemented!()
    }

    /// A number that changes whenever `list` does (for the index's entity tag).
    #[must_use]
    pub fn generation(&self) -> u64 {
        unimplemented!()
    }
}
