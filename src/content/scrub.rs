//! The scrub: all that is held is read and digested again, slowly, in the background.
//!
//! What rots where nobody reads would else be found when it is needed. Whoever reads is first: while a read waits for
//! the disk, the scrub does. A pass begins `store.scrub` after the one before; a file says how far it is, so that a
//! restart goes on there.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::StoreConfig;
use super::chunk::Digest;
use super::disk::Disk;
use super::library::Library;
use super::object::Object;
use crate::metrics::Metrics;
use crate::time::Now;

/// The scrub of one store.
#[derive(Debug)]
pub struct Scrub {
    library: Library,
    metrics: Arc<Metrics>,
    disk: Disk,
    file: PathBuf,
    /// Zero: never.
    interval: Duration,
    /// Bytes per second at most.
    rate: u64,
}

/// Where the scrub is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pass {
    /// When it began, Unix seconds.
    began: u64,
    /// The object it did last; `None`: it is over.
    at: Option<Digest>,
}

impl Scrub {
    /// A scrub that is not running yet, of what `library` holds.
    #[must_use]
    pub fn new(config: &StoreConfig, library: Library, metrics: Arc<Metrics>) -> Self {
        Self {
            library,
            metrics,
            disk: config.disk.clone(),
            file: config.dir.join("scrub"),
            interval: config.scrub,
            rate: config.scrub_rate.max(1),
        }
    }

    /// Scrubs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        if self.interval.is_zero() {
            stop.cancelled().await;
            return;
        }
        stop.run_until_cancelled(self.passes()).await;
    }

    async fn passes(&self) {
        let never = Pass { began: 0, at: None };
        let mut pass = self.recall().unwrap_or(never);
        loop {
            let now = Now::read().unix_ms / 1_000;
            let after = match pass.at {
                Some(at) => at.0,
                None => {
                    let due = pass.began.saturating_add(self.interval.as_secs());
                    // A clock that was set back must not stop it for ever.
                    if now < due && pass.began <= now {
                        tokio::time::sleep(Duration::from_secs(due - now).min(LOOK)).await;
                        continue;
                    }
                    pass.began = now;
                    [0; 32]
                }
            };
            self.pass(&mut pass, after).await;
            pass.at = None;
            self.metrics.content.scrub_passes.inc();
            self.remember(pass).await;
        }
    }

    /// All objects after `after`, in the order of their ids.
    async fn pass(&self, pass: &mut Pass, after: [u8; 32]) {
        let mut objects = self.library.list();
        objects.retain(|object| object.id().0 > after);
        objects.sort_unstable_by_key(|object| object.id().0);
        let mut said = Now::read();
        // Not held until it is its turn: else nothing could be evicted meanwhile.
        let ids: Vec<Digest> = objects.iter().map(|object| object.id()).collect();
        drop(objects);
        for id in ids {
            let Some(object) = self.library.version(id) else {
                continue; // It went meanwhile.
            };
            self.object(&object).await;
            pass.at = Some(id);
            let now = Now::read();
            if now.since(said) >= REMEMBER {
                said = now;
                self.remember(*pass).await;
            }
        }
    }

    async fn object(&self, object: &Arc<Object>) {
        let metrics = &self.metrics.content;
        let layout = object.manifest().layout;
        for index in 0..layout.count() {
            let begun = Now::read();
            self.yields().await;
            let read = Arc::clone(object);
            match object.threads().run(move || read.scrub(index)).await {
                Ok(Some(true)) => metrics.scrub_good.inc(),
                Ok(Some(false)) => metrics.scrub_bad.inc(),
                Ok(None) | Err(_) => continue,
            }
            let len = u64::from(layout.len(index));
            metrics.scrubbed_bytes.inc_by(len);
            let pace = Duration::from_nanos(len.saturating_mul(1_000_000_000) / self.rate);
            tokio::time::sleep(pace.saturating_sub(Now::read().since(begun))).await;
        }
    }

    /// Waits while reads wait for the disk; not for ever, or rot in a busy node were never found.
    async fn yields(&self) {
        let mut waited = Duration::ZERO;
        while self.library.reader().is_waiting() && waited < YIELD {
            if waited.is_zero() {
                self.metrics.content.scrub_yielded.inc();
            }
            tokio::time::sleep(STEP).await;
            waited += STEP;
        }
    }

    fn recall(&self) -> Option<Pass> {
        let text = String::from_utf8(self.disk.read(&self.file).ok()?).ok()?;
        let (began, at) = text.trim_end().split_once(' ')?;
        let began = began.parse().ok()?;
        let at = match at {
            "-" => None,
            at => Some(at.parse().ok()?),
        };
        Some(Pass { began, at })
    }

    async fn remember(&self, pass: Pass) {
        let mut text = format!("{} ", pass.began);
        let written = match pass.at {
            Some(at) => writeln!(text, "{at}"),
            None => writeln!(text, "-"),
        };
        debug_assert!(written.is_ok(), "a String takes all");
        let (disk, file) = (self.disk.clone(), self.file.clone());
        let threads = &self.library.reader().threads;
        let kept = threads.run(move || disk.replace(&file, text.as_bytes()));
        if let Ok(Err(error)) = kept.await {
            tracing::warn!(path = %self.file.display(), %error, "scrub not remembered");
        }
    }
}

/// The clock is looked at again after this: it may have been set.
const LOOK: Duration = Duration::from_secs(60);

/// What a crash makes the scrub do again.
const REMEMBER: Duration = Duration::from_secs(60);

/// How long one chunk waits for readers at most, and between two looks at them.
const YIELD: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(20);
