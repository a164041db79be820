//! Published directories: scanned at start, watched after, every file turned into an object.
//!
//! The daemon runs one [`Publisher`]. It owns the watch and the order of work; the reading is done by
//! [`Library`] on the blocking pool, so that a request for a file that is not yet published and the scan never
//! digest it twice. Small files go first. A changed file is read once it was left alone for a moment; a file that
//! changes while it is read is left for the next event. Whatever the watch misses, a slow scan finds, and
//! [`Library::find`] looks for itself. On stop, a file half digested is given up; nothing is lost but the work.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::library::{Library, Published};
use super::manifest::check_path;
use super::remembered::Remembered;
use super::root::{Look, Root};
use super::{PublishConfig, StoreConfig};
use crate::metrics::Metrics;
use crate::time::Now;

/// The publisher of all configured directories.
#[derive(Debug)]
pub struct Publisher {
    library: Library,
    metrics: Arc<Metrics>,
}

/// What is to be looked at, and what is to be read.
#[derive(Debug, Default)]
struct Work {
    /// Paths that changed, and when each will have been left alone for long enough.
    due: BTreeMap<String, Instant>,
    /// Files to read, the smallest first.
    ready: BTreeSet<(u64, String)>,
}

/// What a look at the directories found.
#[derive(Debug, Default)]
struct Survey {
    /// Files that are not published as they are, with their sizes.
    changed: Vec<(u64, String)>,
    /// Files that are being written.
    restless: Vec<String>,
}

impl Publisher {
    /// Checks the directories. From now on [`Library::find`] looks below them.
    ///
    /// # Errors
    /// The directory and what is wrong with it.
    pub fn new(
        publish: Vec<PublishConfig>,
        store: &StoreConfig,
        library: Library,
        metrics: Arc<Metrics>,
    ) -> Result<Self, io::Error> {
        let mut roots = Vec::new();
        for mut config in publish {
            let named = config.dir.clone();
            let at = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", named.display()));
            // The watch names files by the real path.
            config.dir = std::fs::canonicalize(&config.dir).map_err(at)?;
            roots.push(Root::open(config).map_err(at)?);
        }
        roots.sort_by_key(|root| std::cmp::Reverse(root.config.prefix.len()));
        let fresh = library.set_published(Published {
            roots,
            remembered: Remembered::open(&store.dir, &store.disk)?,
            chunk: store.chunk,
            open: Mutex::default(),
            scanned: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        if !fresh {
            let reason = "this library has a publisher already";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, reason));
        }
        Ok(Self { library, metrics })
    }

    /// Scans, then watches until `stop`.
    ///
    /// # Errors
    /// What ended it early.
    pub async fn run(self, stop: CancellationToken) -> Result<(), anyhow::Error> {
        let (sender, mut events) = mpsc::channel(EVENTS);
        let missed = Arc::new(AtomicBool::new(false));
        let watcher = self.watch(sender, Arc::clone(&missed)).await;
        let interval = match watcher {
            Some(_) => RESCAN,
            None => RESCAN_UNWATCHED,
        };
        let mut work = Work::default();
        let mut reading = FuturesUnordered::new();
        let mut scan_at = Instant::now();
        let mut survey: Option<tokio::task::JoinHandle<Survey>> = None;
        let mut swept = false;
        while !stop.is_cancelled() {
            while reading.len() < READERS
                && let Some((_, path)) = work.ready.pop_first()
            {
                reading.push(self.library.publish(&path).cancelled_owned());
            }
            if survey.is_none() {
                let now = Instant::now();
                if missed.swap(false, Ordering::AcqRel) {
                    self.metrics.content.rescans.inc();
                    scan_at = now + QUIET;
                }
                let paths = if scan_at <= now {
                    scan_at = now + interval;
                    self.prefixes()
                } else {
                    work.take_due(now)
                };
                if !paths.is_empty() {
                    let library = self.library.clone();
                    let threads = &self.library.reader().threads;
                    survey = Some(threads.run(move || look(&library, paths)));
                } else if !swept && reading.is_empty() && work.due.is_empty() {
                    swept = true;
                    if let Some(published) = self.library.published() {
                        published.scanned.store(true, Ordering::Release);
                    }
                    self.sweep().await;
                }
            }
            let next = work.due.values().min().copied();
            let next = next.map_or(scan_at, |due| due.min(scan_at));
            tokio::select! {
                () = stop.cancelled() => {}
                Some(path) = events.recv() => {
                    self.changed(&path, &mut work, &missed);
                }
                paths = self.library.reader().suspects.take() => {
                    let now = Instant::now();
                    work.due.extend(paths.into_iter().map(|path| (path, now)));
                }
                Some(()) = reading.next() => {}
                found = finished(&mut survey) => {
                    survey = None;
                    work.add(found?);
                }
                () = tokio::time::sleep_until(next), if survey.is_none() => {}
            }
        }
        if let Some(published) = self.library.published() {
            published.stop.store(true, Ordering::Relaxed);
        }
        while reading.next().await.is_some() {}
        Ok(())
    }

    /// The paths that stand for everything.
    fn prefixes(&self) -> Vec<String> {
        let roots = self.library.published().into_iter().flat_map(|p| &p.roots);
        roots.map(|root| root.config.prefix.clone()).collect()
    }

    /// Watches every directory; `None` if that is not possible at all.
    async fn watch(
        &self,
        events: mpsc::Sender<PathBuf>,
        missed: Arc<AtomicBool>,
    ) -> Option<RecommendedWatcher> {
        let roots = self.library.published().into_iter().flat_map(|p| &p.roots);
        let dirs: Vec<_> = roots.map(|root| root.config.dir.clone()).collect();
        let report = move |event: notify::Result<Event>| {
            let Ok(event) = event else {
                missed.store(true, Ordering::Release);
                return;
            };
            if event.need_rescan() {
                missed.store(true, Ordering::Release);
            }
            if is_change(event.kind) {
                for path in event.paths {
                    if events.try_send(path).is_err() {
                        missed.store(true, Ordering::Release);
                    }
                }
            }
        };
        // Each directory below is visited: that may take a while.
        let watching = self.library.reader().threads.run(move || {
            let mut watcher = notify::recommended_watcher(report)?;
            for dir in dirs {
                watcher.watch(&dir, RecursiveMode::Recursive)?;
            }
            Ok::<_, notify::Error>(watcher)
        });
        match watching.await {
            Ok(Ok(watcher)) => Some(watcher),
            Ok(Err(error)) => {
                tracing::warn!(%error, "published directories are not watched, only scanned");
                None
            }
            Err(error) => {
                tracing::warn!(%error, "published directories are not watched, only scanned");
                None
            }
        }
    }

    /// Notes a file or directory that changed, under each prefix it is published at.
    fn changed(&self, file: &Path, work: &mut Work, missed: &AtomicBool) {
        let roots = self.library.published().into_iter().flat_map(|p| &p.roots);
        let due = Instant::now() + QUIET;
        for path in roots.filter_map(|root| root.path_of(file)) {
            if work.due.len() < DUE {
                work.due.insert(path, due);
            } else {
                missed.store(true, Ordering::Release);
            }
        }
    }

    /// Forgets the digests of files that are gone.
    async fn sweep(&self) {
        let library = self.library.clone();
        let swept = self.library.reader().threads.run(move || {
            let Some(published) = library.published() else {
                return Ok(());
            };
            let objects = library.published_objects();
            let paths = objects.iter().map(|object| object.manifest().path.as_str());
            let named = paths.filter_map(|path| {
                let mut roots = published.roots.iter();
                let root = roots.find(|root| path.starts_with(&root.config.prefix))?;
                Some((root.config.dir.as_path(), path))
            });
            published.remembered.sweep(named)
        });
        if let Ok(Err(error)) = swept.await {
            tracing::warn!(%error, "remembered digests not swept");
        }
    }
}

impl Work {
    /// Takes the paths that have been left alone for long enough.
    fn take_due(&mut self, now: Instant) -> Vec<String> {
        let due = self.due.extract_if(.., |_, due| *due <= now);
        due.map(|(path, _)| path).collect()
    }

    fn add(&mut self, survey: Survey) {
        self.ready.extend(survey.changed);
        let due = Instant::now() + QUIET;
        for path in survey.restless {
            self.due.entry(path).or_insert(due);
        }
    }
}

/// Waits for the survey under way; for ever if there is none. Cancel-safe.
async fn finished(
    survey: &mut Option<tokio::task::JoinHandle<Survey>>,
) -> Result<Survey, tokio::task::JoinError> {
    match survey {
        Some(survey) => survey.await,
        None => std::future::pending().await,
    }
}

/// Looks at files and directories by URL path, takes out what is gone, and says what is to be read. Blocking.
fn look(library: &Library, paths: Vec<String>) -> Survey {
    let mut survey = Survey::default();
    let mut seen = BTreeSet::new();
    let mut trees = Vec::new();
    let Some(published) = library.published() else {
        return survey;
    };
    let now = Now::read();
    for path in paths {
        let Some(root) = owner(published, &path) else {
            continue;
        };
        let mut open = vec![(path, 0)];
        while let Some((path, depth)) = open.pop() {
            match root.look(&path) {
                Look::File(stamp) => {
                    if seen.len() > library.objects_most() || check_path(&path).is_err() {
                        continue; // The bound is reported where the object is refused.
                    }
                    let known = library.published_at(&path);
                    if known.is_none_or(|known| known.stamp() != Some(stamp) || !known.settled()) {
                        if is_restless(stamp.touched_ns(), now) {
                            survey.restless.push(path.clone());
                        } else {
                            survey.changed.push((stamp.size, path.clone()));
                        }
                    }
                    seen.insert(path);
                }
                Look::Directory => {
                    let dir = format!("{}/", path.trim_end_matches('/'));
                    match root.items(&dir, library.objects_most()) {
                        Ok(items) if depth < DEPTH => {
                            let inner = items.into_iter().filter(|item| {
                                // A link to a directory may lead round in a circle.
                                !(item.link && item.look == Look::Directory)
                            });
                            open.extend(inner.map(|i| (format!("{dir}{}", i.name), depth + 1)));
                        }
                        Ok(_) => tracing::warn!(path = %dir, "directory too deep, not published"),
                        Err(error) => tracing::warn!(path = %dir, %error, "directory not read"),
                    }
                    trees.push(dir);
                }
                Look::None if library.published_at(&path).is_some() => library.unpublish(&path),
                Look::None => trees.push(format!("{}/", path.trim_end_matches('/'))),
            }
        }
    }
    if trees.is_empty() {
        return survey;
    }
    trees.sort_unstable();
    for object in library.published_objects() {
        let path = &object.manifest().path;
        let beneath = || {
            let mut ends = path.match_indices('/').map(|(at, _)| &path[..=at]);
            ends.any(|dir| {
                trees
                    .binary_search_by(|tree| tree.as_str().cmp(dir))
                    .is_ok()
            })
        };
        if !seen.contains(path)
            && beneath()
            && let Some(root) = owner(published, path)
            && !matches!(root.look(path), Look::File(_))
        {
            library.unpublish(path);
        }
    }
    survey
}

fn owner<'a>(published: &'a Published, path: &str) -> Option<&'a Root> {
    let mut roots = published.roots.iter();
    roots.find(|root| path.starts_with(&root.config.prefix))
}

/// Whether a file was touched a moment ago. One from the future was not.
fn is_restless(touched_ns: i64, now: Now) -> bool {
    let touched_ms = u64::try_from(touched_ns / 1_000_000).unwrap_or(0);
    (touched_ms..touched_ms + QUIET.as_millis() as u64).contains(&now.unix_ms)
}

/// Whether an event may mean other bytes, another name or a removal; our own reading is none.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}

/// How long a changed file must be left alone before it is read.
const QUIET: Duration = Duration::from_millis(200);

/// Time between scans: what a watch may miss (network file systems, exhausted watches below) is found then.
const RESCAN: Duration = Duration::from_secs(60);

/// Time between scans without a watch.
const RESCAN_UNWATCHED: Duration = Duration::from_secs(10);

/// Files read at once: disks and digests gain little by more, and requests need the processor too.
const READERS: usize = 2;

/// Events that wait; beyond, everything is scanned.
const EVENTS: usize = 4_096;

/// Changed paths that wait; beyond, everything is scanned.
const DUE: usize = 10_000;

/// Directories within directories.
const DEPTH: u32 = 64;
