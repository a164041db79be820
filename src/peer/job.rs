//! What a mirror's task has done beside it: requests and disk work. Each job gives one [`Event`].

use std::sync::Arc;

use prometheus::IntCounter;
use tokio_util::sync::CancellationToken;

use super::client::{Client, Error, IndexAnswer, Patience};
use super::exchange::{HaveAnswer, HaveAsk};
use super::message::Edition;
use super::schedule::Fetch;
use super::trust::Files;
use crate::content::catalogue::SignedCatalogue;
use crate::content::chunk::Digest;
use crate::content::manifest::Manifest;
use crate::content::object::{Object, WriteError};
use crate::content::sign::{PublicKey, Seal};
use crate::content::store::{Purpose, Store};
use crate::content::threads::Threads;
use crate::metrics::Metrics;
use crate::metrics::peers::Waste;

/// What a job found.
#[derive(Debug)]
pub(super) enum Event {
    Index {
        node: usize,
        result: Result<IndexAnswer, Error>,
    },
    /// A catalogue of `key` that a node has.
    Catalogue {
        node: usize,
        key: PublicKey,
        result: Result<SignedCatalogue, Error>,
    },
    /// A key or catalogue was kept, or not.
    Kept(Result<(), std::io::Error>),
    Begun {
        path: String,
        id: Digest,
        node: Option<usize>,
        result: Result<Arc<Object>, Failure>,
    },
    Chunk {
        path: String,
        id: Digest,
        fetch: Fetch,
        result: Result<(), Failure>,
    },
    Have {
        node: usize,
        /// The versions asked about, by path.
        asked: Vec<(String, Digest)>,
        result: Result<HaveAnswer, Error>,
    },
    Removed {
        path: String,
        result: Result<bool, std::io::Error>,
    },
}

/// Why a job failed: for the node's sake or the disk's.
#[derive(Debug)]
pub(super) enum Failure {
    Node(Error),
    Write(WriteError),
    /// It was called off.
    Dropped,
}

/// Asks a node for its index.
pub(super) async fn ask_index(
    node: usize,
    client: Client,
    prefix: String,
    etag: Option<String>,
) -> Event {
    let result = client.index(&prefix, etag.as_deref()).await;
    Event::Index { node, result }
}

/// Fetches a catalogue and keeps it. That it cannot be kept is no reason not to go by it: an object it does not list
/// any more may be what fills the disk.
pub(super) async fn take_catalogue(
    node: usize,
    client: Client,
    edition: Edition,
    prefix: String,
    files: Files,
    threads: Threads,
) -> Event {
    let Edition { key, version } = edition;
    let result = client.catalogue(key, &prefix, version).await;
    if let Ok(signed) = &result {
        let signed = signed.clone();
        if let Err(error) = blocking(&threads, move || files.keep(&signed)).await {
            tracing::warn!(%error, prefix, "catalogue not kept: an older one counts after a restart");
        }
    }
    Event::Catalogue { node, key, result }
}

/// Keeps the key of a node that was asked for the first time.
pub(super) async fn pin(files: Files, base: String, key: PublicKey, threads: Threads) -> Event {
    tracing::info!(node = base, %key, "key of this node is trusted from now on");
    Event::Kept(blocking(&threads, move || files.keep_pin(&base, key)).await)
}

/// Begins the object of `manifest`; `node` gave it.
pub(super) async fn begin(
    store: Store,
    purpose: Purpose,
    path: String,
    id: Digest,
    node: Option<usize>,
    manifest: Result<(Manifest, Option<Seal>), Error>,
) -> Event {
    let result = match manifest {
        Err(error) => Err(Failure::Node(error)),
        Ok((manifest, seal)) => {
            let threads = store.threads().clone();
            let begun = blocking(&threads, move || {
                store.begin_signed(manifest, seal, purpose)
            })
            .await;
            begun.map_err(Failure::Write)
        }
    };
    Event::Begun {
        path,
        id,
        node,
        result,
    }
}

/// Fetches a chunk, verifies and keeps it, unless it is called off. `received` counts its bytes.
#[expect(clippy::too_many_arguments, reason = "what one request is made of")]
pub(super) async fn fetch(
    client: Client,
    object: Arc<Object>,
    path: String,
    fetch: Fetch,
    patience: Patience,
    cancel: CancellationToken,
    received: IntCounter,
    metrics: Arc<Metrics>,
) -> Event {
    let id = object.id();
    let len = object.manifest().layout.len(fetch.index);
    let urgent = || object.wants().contains(&fetch.index);
    let mut heard = 0;
    let hear = |bytes| heard += bytes;
    let asked = client.chunk(id, fetch.index, len, patience, urgent, hear);
    let (result, waste) = match cancel.run_until_cancelled(asked).await {
        None => (Err(Failure::Dropped), Some(Waste::Late)),
        Some(Err(error)) => {
            let waste = match error {
                Error::Liar { .. } | Error::Untrusted { .. } => Waste::Wrong,
                _ => Waste::Broken,
            };
            (Err(Failure::Node(error)), Some(waste))
        }
        Some(Ok(bytes)) => {
            received.inc_by(bytes.len() as u64);
            let threads = object.threads().clone();
            let write = move || object.write(fetch.index, &bytes);
            match blocking(&threads, write).await {
                Ok(true) => (Ok(()), None),
                Ok(false) => (Ok(()), Some(Waste::Late)),
                Err(error) => {
                    let waste = match error {
                        WriteError::Mismatch { .. } => Waste::Wrong,
                        _ => Waste::Unkept,
                    };
                    (Err(Failure::Write(error)), Some(waste))
                }
            }
        }
    };
    if let Some(why) = waste {
        metrics.peers.waste(why, heard);
    }
    Event::Chunk {
        path,
        id,
        fetch,
        result,
    }
}

/// Asks a node which chunks it holds.
pub(super) async fn ask_have(node: usize, client: Client, asks: Vec<(String, HaveAsk)>) -> Event {
    let asked = asks
        .iter()
        .map(|(path, ask)| (path.clone(), ask.id))
        .collect();
    let asks = asks.into_iter().map(|(_, ask)| ask).collect();
    let result = client.have(asks).await;
    Event::Have {
        node,
        asked,
        result,
    }
}

/// Removes an object.
pub(super) async fn remove(store: Store, path: String) -> Event {
    let gone = path.clone();
    let threads = store.threads().clone();
    let result = blocking(&threads, move || store.remove(&gone)).await;
    Event::Removed { path, result }
}

/// Fetches the manifest `id`, signed by one of `keys`, and checks that it is of the object the catalogue promised.
pub(super) async fn fetch_manifest(
    client: &Client,
    keys: &[PublicKey],
    id: Digest,
    path: &str,
    size: u64,
) -> Result<(Manifest, Option<Seal>), Error> {
    let trusted = |key| keys.contains(&key);
    let (manifest, seal) = client.manifest(id, trusted).await?;
    let liar = |reason: String| Error::Liar {
        node: client.base().to_owned(),
        reason,
    };
    if manifest.path != path {
        let found = &manifest.path;
        return Err(liar(format!(
            "manifest: found path {found:?}, expected {path:?}"
        )));
    }
    let layout = manifest.layout;
    if layout.size != size {
        let found = layout.size;
        return Err(liar(format!(
            "manifest of {path}: found size {found}, expected {size}"
        )));
    }
    if layout.chunk > CHUNK_SIZE {
        let found = layout.chunk;
        return Err(liar(format!(
            "manifest of {path}: found chunks of {found} bytes, expected at most {CHUNK_SIZE}"
        )));
    }
    Ok((manifest, Some(seal)))
}

/// Runs disk work on one of `threads`. Its panic is this job's.
pub(super) async fn blocking<T: Send + 'static>(
    threads: &Threads,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    match threads.run(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down, and this job with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Bytes of a chunk that are accepted at most: it is held in memory while it is verified.
const CHUNK_SIZE: u32 = 64 << 20;
