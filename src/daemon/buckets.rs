//! The buckets this node publishes from; none in a program that was built without the feature `s3`.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use super::Running;
use crate::config::Settings;
use crate::content::bucket::BucketStatus;
#[cfg(feature = "s3")]
use crate::content::bucket::{origin::Bucket, remote::Remote};
use crate::content::library::Library;
use crate::content::store::Store;
use crate::metrics::Metrics;

/// The task of each bucket, not running yet.
pub(super) struct Buckets {
    #[cfg(feature = "s3")]
    buckets: Vec<Bucket>,
}

/// Takes up what is known of the configured buckets. No server is asked yet.
///
/// # Errors
/// The bucket, and what of its configuration or of the environment makes no sense, or what the disk said.
#[cfg(feature = "s3")]
pub(super) async fn open(
    settings: &Settings,
    store: &Store,
    library: &Library,
    metrics: &Arc<Metrics>,
) -> Result<Buckets, anyhow::Error> {
    use anyhow::{Context as _, anyhow};

    let mut buckets = Vec::new();
    for config in &settings.buckets {
        let name = config.name();
        let at = |why: String| anyhow!("publish {name}: {why}");
        let https = config.endpoint.as_deref();
        // A server in the clear needs no authorities.
        let roots = match https.is_some_and(|endpoint| endpoint.starts_with("http://")) {
            true => rustls::RootCertStore::empty(),
            false => crate::tls::roots(None).map_err(at)?,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| at(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let remote = Remote::open(config, tls).map_err(at)?;
        let (config, settings) = (config.clone(), settings.store.clone());
        let (store, library, metrics) = (store.clone(), library.clone(), Arc::clone(metrics));
        let open = move || Bucket::new(config, remote, &settings, store, library, metrics);
        let opened = tokio::task::spawn_blocking(open).await?;
        buckets.push(opened.with_context(|| format!("publish {name}"))?);
    }
    Ok(Buckets { buckets })
}

/// Nothing: the configuration refuses buckets.
#[cfg(not(feature = "s3"))]
pub(super) async fn open(
    _: &Settings,
    _: &Store,
    _: &Library,
    _: &Arc<Metrics>,
) -> Result<Buckets, anyhow::Error> {
    Ok(Buckets {})
}

impl Buckets {
    /// Their states, for others to read.
    pub(super) fn status(&self) -> Vec<Arc<ArcSwap<BucketStatus>>> {
        #[cfg(feature = "s3")]
        return self.buckets.iter().map(Bucket::status).collect();
        #[cfg(not(feature = "s3"))]
        Vec::new()
    }

    /// Publishes them until `stop`.
    pub(super) fn spawn(self, running: &mut Running, stop: &CancellationToken) {
        #[cfg(feature = "s3")]
        for bucket in self.buckets {
            running.spawn("bucket", false, bucket.run(stop.clone()));
        }
        #[cfg(not(feature = "s3"))]
        let _ = (running, stop);
    }
}
