//! Published directories: scanned at start, watched after, every file turned into an object.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::library::Library;
use super::{PublishConfig, StoreConfig};
use crate::metrics::Metrics;

/// The publisher of all configured directories.
#[derive(Debug)]
pub struct Publisher {}

impl Publisher {
    /// Checks the directories.
    ///
    /// # Errors
    /// The directory and what is wrong with it.
    pub fn new(
        publish: Vec<PublishConfig>,
        store: &StoreConfig,
        library: Library,
        metrics: Arc<Metrics>,
    ) -> Result<Self, std::io::Error> {
        let _ = (publish, store, library, metrics);
        unimplemented!()
    }

    /// Scans, then watches until `stop`.
    ///
    /// # Errors
    /// What ended it early.
    pub async fn run(self, stop: CancellationToken) -> Result<(), anyhow::Error> {
        let _ = stop;
        unimplemented!()
    }
}
