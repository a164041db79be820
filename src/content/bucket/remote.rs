//! A bucket as it is asked: what there is, an object from its beginning to its end, a range of one version.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::{
    BackoffConfig, Error, GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, RetryConfig,
};

use super::BucketConfig;
use super::connect::Connect;
use super::listing::{Item, Listing, Tag, path_of};

/// The bucket. A cheap handle.
#[derive(Clone, Debug)]
pub struct Remote {
    store: Arc<dyn ObjectStore>,
    prefix: String,
    beneath: String,
    objects: usize,
}

/// Why a bucket did not give what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The object has another version now, or is gone: it is to be listed again.
    #[error("{0}")]
    Changed(String),
    /// The server is away, refuses, or makes no sense: it is to be asked again later.
    #[error("{0}")]
    Server(String),
}

impl Remote {
    /// The bucket of `config`, over TLS with the settings `tls` where the endpoint says `https`. Credentials, and what the
    /// configuration leaves out, come from the environment (`AWS_…`).
    ///
    /// # Errors
    /// What of it makes no sense.
    pub fn open(config: &BucketConfig, tls: rustls::ClientConfig) -> Result<Self, String> {
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&config.bucket)
            .with_http_connector(Connect {
                tls,
                silence: config.silence,
                idle: config.in_flight + config.reads,
            })
            .with_retry(RetryConfig {
                backoff: BackoffConfig {
                    init_backoff: Duration::from_millis(100),
                    max_backoff: Duration::from_secs(2),
                    base: 2.0,
                },
                max_retries: 2, // A server that is away is asked again by the task, which says so meanwhile.
                retry_timeout: config.silence,
            });
        if let Some(endpoint) = &config.endpoint {
            // This one goes before the other where the environment has both.
            builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
        }
        let endpoint = builder
            .get_config_value(&AmazonS3ConfigKey::S3Endpoint)
            .or_else(|| builder.get_config_value(&AmazonS3ConfigKey::Endpoint));
        if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
            builder = builder.with_allow_http(true);
        }
        if let Some(region) = &config.region {
            builder = builder.with_region(region);
        }
        if config.virtual_host {
            builder = builder.with_virtual_hosted_style_request(true);
        }
        if config.anonymous {
            builder = builder.with_skip_signature(true);
        }
        let store = builder.build().map_err(|error| told(&error))?;
        Ok(Self::over(Arc::new(store), config))
    }

    /// The bucket that `store` is.
    #[must_use]
    pub fn over(store: Arc<dyn ObjectStore>, config: &BucketConfig) -> Self {
        Self {
            store,
            prefix: config.prefix.clone(),
            beneath: config.beneath.clone(),
            objects: config.objects,
        }
    }

    /// Everything beneath the prefix, page by page, up to the bound on objects.
    ///
    /// # Errors
    /// See [`Fault`]; half a listing is none.
    pub async fn list(&self) -> Result<Listing, Fault> {
        let beneath = Path::parse(&self.beneath);
        let beneath = beneath.map_err(|error| Fault::Server(error.to_string()))?;
        let beneath = Some(&beneath).filter(|_| !self.beneath.is_empty());
        let mut metas = self.store.list(beneath);
        let mut listing = Listing::default();
        while let Some(meta) = metas.next().await {
            let meta = meta.map_err(|error| fault(&error))?;
            let key = meta.location.as_ref();
            match path_of(key, &self.beneath, &self.prefix) {
                _ if listing.items.len() == self.objects => {
                    listing.over = true;
                    break;
                }
                Some(path) => listing.items.push(Item {
                    path,
                    key: key.to_owned(),
                    tag: tag(&meta),
                }),
                None => listing.skipped += 1,
            }
        }
        Ok(listing)
    }

    /// The object from its beginning, in the version it has now, and which that is.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn read(
        &self,
        key: &str,
    ) -> Result<(Tag, BoxStream<'static, Result<Bytes, Fault>>), Fault> {
        let found = self.get(key, GetOptions::default()).await?;
        let tag = tag(&found.meta);
        let bytes = found.into_stream();
        let bytes = bytes.map(|bytes| bytes.map_err(|error| fault(&error)));
        Ok((tag, bytes.boxed()))
    }

    /// The bytes `range` of the object's version `version`, and no other's.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn range(
        &self,
        key: &str,
        version: &Tag,
        range: std::ops::Range<u64>,
    ) -> Result<Bytes, Fault> {
        let options = GetOptions {
            if_match: version.etag.clone(),
            range: Some(GetRange::Bounded(range.clone())),
            ..GetOptions::default()
        };
        let found = self.get(key, options).await?;
        // Not every server knows If-Match.
        let now = tag(&found.meta);
        if !now.is_of(version) {
            return Err(Fault::Changed(format!("{key}: another version now")));
        }
        let bytes = found.bytes().await.map_err(|error| fault(&error))?;
        match bytes.len() as u64 == range.end - range.start {
            true => Ok(bytes),
            false => Err(Fault::Server(format!(
                "{key}: {} bytes for the range {range:?}",
                bytes.len()
            ))),
        }
    }

    async fn get(&self, key: &str, options: GetOptions) -> Result<GetResult, Fault> {
        let path = Path::parse(key).map_err(|error| Fault::Server(error.to_string()))?;
        let found = self.store.get_opts(&path, options).await;
        found.map_err(|error| fault(&error))
    }
}

fn tag(meta: &ObjectMeta) -> Tag {
    Tag {
        etag: meta.e_tag.clone(),
        size: meta.size,
        modified_ms: meta.last_modified.timestamp_millis(),
    }
}

fn fault(error: &Error) -> Fault {
    match error {
        Error::NotFound { .. } | Error::Precondition { .. } | Error::NotModified { .. } => {
            Fault::Changed(told(error))
        }
        _ => Fault::Server(told(error)),
    }
}

/// The error and its causes as one line of bounded length: some servers answer with a page.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = text.char_indices().nth(TOLD) {
        text.truncate(end);
    }
    text
}

/// Characters of an error at most.
const TOLD: usize = 600;
