//! The task of one bucket: lists it in rounds, reads through what is new, fetches what readers want and is not here.
//!
//! One task decides; requests and disk work run beside it as jobs whose results come back to it as [`Event`]s. While the
//! server is away everything held is served, the status says why nothing new comes, and it is asked again ever more
//! rarely. On stop, what is on its way is dropped; after a crash the book says what was read through, and the store what
//! is held.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::super::StoreConfig;
use super::super::chunk::Digest;
use super::super::demand::Demand;
use super::super::library::Library;
use super::super::object::{Object, Role, WriteError};
use super::super::store::{Purpose, Store};
use super::book::Book;
use super::listing::{Change, Item, Tag, compare};
use super::remote::{Fault, Remote};
use super::take::{Failure, Taker};
use super::{BucketConfig, BucketStatus};
use crate::metrics::Metrics;
use crate::time::Now;

/// The task of one bucket.
#[derive(Debug)]
pub struct Bucket {
    config: BucketConfig,
    taker: Taker,
    book: Arc<Book>,
    demand: Arc<Demand>,
    store: Store,
    library: Library,
    metrics: Arc<Metrics>,
    status: Arc<ArcSwap<BucketStatus>>,
    /// Objects to be read through, the smallest first.
    waiting: VecDeque<Item>,
    taking: HashSet<String>,
    /// Objects readers wait for, to be begun.
    wished: VecDeque<String>,
    fills: BTreeMap<String, Fill>,
    /// Objects that are begun now.
    beginning: HashSet<String>,
    jobs: JoinSet<Event>,
    in_flight: usize,
    listing: bool,
    /// When the bucket is listed next.
    due: Now,
    /// Nothing is asked of the server before this.
    pause: Option<Now>,
    /// Failures in a row.
    failures: u32,
    /// The book has changed since readers and other nodes were told.
    news: bool,
    telling: bool,
    /// The first listing was read through, but for what was listed and did not come.
    listed: bool,
    problem: Option<String>,
    seen_unix_ms: Option<u64>,
    skipped: usize,
}

/// An object that is fetched chunk by chunk.
#[derive(Debug)]
struct Fill {
    object: Arc<Object>,
    key: String,
    tag: Tag,
    pending: HashSet<u32>,
    /// Chunks before this one are here or were asked for.
    next: u32,
}

#[derive(Debug)]
enum Event {
    Listed(Result<Listed, Fault>),
    Taken(Item, Result<(), Failure>),
    Removed,
    Told,
    Begun(String, Result<(Arc<Object>, Tag), Option<String>>),
    Chunk(String, Digest, u32, Result<(), ChunkFault>),
}

/// What a listing says.
#[derive(Debug)]
struct Listed {
    change: Change,
    over: bool,
    skipped: usize,
}

#[derive(Debug)]
enum ChunkFault {
    Remote(Fault),
    Write(WriteError),
}

impl Bucket {
    /// Takes up what is known of the bucket; readers may ask for it from now on. Blocking.
    ///
    /// # Errors
    /// The directory of its book, and what the kernel said.
    pub fn new(
        config: BucketConfig,
        remote: Remote,
        settings: &StoreConfig,
        store: Store,
        library: Library,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let book = Book::open(&config, store.dir(), &settings.disk, settings.chunk)?;
        let book = Arc::new(book);
        let demand = Arc::new(Demand::new(&config.prefix, WISHES));
        demand.list(book.listed(&config.prefix).into_iter());
        library.set_demand(&demand);
        library.set_book(&book);
        let taker = Taker {
            remote,
            book: Arc::clone(&book),
            store: store.clone(),
            library: library.clone(),
            metrics: Arc::clone(&metrics),
            chunk: settings.chunk,
        };
        let status = BucketStatus {
            prefix: config.prefix.clone(),
            bucket: config.name(),
            objects: book.len(),
            ..BucketStatus::default()
        };
        Ok(Self {
            config,
            taker,
            book,
            demand,
            store,
            library,
            metrics,
            status: Arc::new(ArcSwap::from_pointee(status)),
            waiting: VecDeque::new(),
            taking: HashSet::new(),
            wished: VecDeque::new(),
            fills: BTreeMap::new(),
            beginning: HashSet::new(),
            jobs: JoinSet::new(),
            in_flight: 0,
            listing: false,
            due: Now {
                mono_ns: 0,
                unix_ms: 0,
            },
            pause: None,
            failures: 0,
            news: false,
            telling: false,
            listed: false,
            problem: None,
            seen_unix_ms: None,
            skipped: 0,
        })
    }

    /// Its state, for others to read.
    #[must_use]
    pub fn status(&self) -> Arc<ArcSwap<BucketStatus>> {
        Arc::clone(&self.status)
    }

    /// Publishes the bucket until `stop`.
    ///
    /// # Errors
    /// A job that panicked.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), anyhow::Error> {
        self.resume();
        loop {
            let now = Now::read();
            self.begin_jobs(now);
            self.tell();
            self.show();
            let wake = tokio::time::sleep(self.sleep(now));
            tokio::select! {
                () = stop.cancelled() => break,
                Some(event) = self.jobs.join_next() => self.take(event?, Now::read()),
                path = self.demand.next() => self.wished.push_back(path),
                () = wake => {}
            }
        }
        self.jobs.shutdown().await;
        self.metrics.bucket.in_flight.sub(self.in_flight as i64);
        Ok(())
    }

    /// Goes on with what was held at the start, and drops what another version took the place of, or what is of another
    /// bucket.
    fn resume(&mut self) {
        for object in self.library.list() {
            let path = object.manifest().path.clone();
            let demand = self.library.demand(&path);
            let mine = demand.is_some_and(|demand| Arc::ptr_eq(&demand, &self.demand));
            if !mine || object.role() != Role::Mirror {
                continue;
            }
            let known = self.book.known(&path);
            if known.is_none_or(|known| known.id != object.id()) {
                self.remove(path);
                continue;
            }
            object.set_elsewhere(true);
            if !object.complete() {
                self.wished.push_back(path);
            }
        }
    }

    /// How long nothing but a job's result or a wish can be of interest.
    fn sleep(&self, now: Now) -> Duration {
        let list = (!self.listing).then(|| self.due.since(now));
        let until = self.pause.map(|pause| pause.since(now));
        // Readers of an object that is being filled are looked for this often.
        let look = (!self.fills.is_empty()).then_some(LOOK);
        let next = match until {
            Some(until) if !until.is_zero() => Some(until),
            _ => list,
        };
        let next = next.into_iter().chain(look).min();
        next.unwrap_or(self.config.interval)
            .max(Duration::from_millis(1))
    }

    fn begin_jobs(&mut self, now: Now) {
        self.begin_wishes();
        if self.pause.is_some_and(|pause| now < pause) {
            return;
        }
        self.pause = None;
        if !self.listing && now >= self.due {
            self.listing = true;
            let (remote, book) = (self.taker.remote.clone(), Arc::clone(&self.book));
            let threads = self.store.threads().clone();
            self.jobs.spawn(async move {
                let listing = match remote.list().await {
                    Ok(listing) => listing,
                    Err(fault) => return Event::Listed(Err(fault)),
                };
                // Of 100,000 objects this takes a while.
                let compared = threads.run(move || Listed {
                    over: listing.over,
                    skipped: listing.skipped,
                    change: compare(listing, &book.tags()),
                });
                let compared = compared.await;
                Event::Listed(compared.map_err(|error| Fault::Server(error.to_string())))
            });
        }
        while self.taking.len() < self.config.reads
            && let Some(item) = self.waiting.pop_front()
        {
            self.taking.insert(item.path.clone());
            self.count(1);
            let taker = self.taker.clone();
            self.jobs.spawn(async move {
                let taken = taker.take(item.clone()).await;
                Event::Taken(item, taken)
            });
        }
        self.fetch();
    }

    /// Begins objects that readers wait for.
    fn begin_wishes(&mut self) {
        while self.beginning.len() + self.fills.len() < FILLING
            && let Some(path) = self.wished.pop_front()
        {
            if self.fills.contains_key(&path) || !self.beginning.insert(path.clone()) {
                self.demand.settle(&path);
                continue;
            }
            let (book, store, library) =
                (self.book.clone(), self.store.clone(), self.library.clone());
            let threads = self.store.threads().clone();
            self.jobs.spawn(async move {
                let at = path.clone();
                let begun = threads.run(move || {
                    let (tag, manifest) = book.manifest(&at).ok_or(None)?;
                    let seal = library.editions().seal(manifest.digest());
                    let begun = store.begin_signed(manifest, Some(seal), Purpose::Reader);
                    let object = begun.map_err(|error| Some(error.to_string()))?;
                    object.set_elsewhere(true);
                    Ok((object, tag))
                });
                let begun = begun.await;
                let begun = begun.unwrap_or_else(|error| Err(Some(error.to_string())));
                Event::Begun(path, begun)
            });
        }
    }

    /// Asks for chunks: those readers wait for first, then the others in their order.
    fn fetch(&mut self) {
        let library = &self.library;
        self.fills.retain(|_, fill| {
            // Another version took its place, or it was dropped by the operator.
            library.is_current(&fill.object) && !fill.object.complete()
        });
        for fill in self.fills.values_mut() {
            let asked = fill.next == fill.object.manifest().layout.count();
            if asked && fill.pending.is_empty() {
                fill.next = 0; // One that was here was found wrong.
            }
        }
        while self.in_flight_chunks() < self.config.in_flight {
            let Some((path, index)) = self.next_chunk() else {
                return;
            };
            let Some(fill) = self.fills.get_mut(&path) else {
                return;
            };
            fill.pending.insert(index);
            let (object, key, tag) = (fill.object.clone(), fill.key.clone(), fill.tag.clone());
            let (remote, metrics) = (self.taker.remote.clone(), self.metrics.clone());
            let threads = self.store.threads().clone();
            self.count(1);
            self.jobs.spawn(async move {
                let (id, layout) = (object.id(), object.manifest().layout);
                let start = layout.start(index);
                let range = start..start + u64::from(layout.len(index));
                let result = match remote.range(&key, &tag, range).await {
                    Ok(bytes) => {
                        metrics.bucket.received.inc_by(bytes.len() as u64);
                        let written = threads.run(move || object.write(index, &bytes).map(|_| ()));
                        match written.await {
                            Ok(written) => written.map_err(ChunkFault::Write),
                            Err(error) => Err(ChunkFault::Remote(Fault::Server(error.to_string()))),
                        }
                    }
                    Err(fault) => Err(ChunkFault::Remote(fault)),
                };
                Event::Chunk(path, id, index, result)
            });
        }
    }

    fn in_flight_chunks(&self) -> usize {
        self.fills.values().map(|fill| fill.pending.len()).sum()
    }

    fn next_chunk(&mut self) -> Option<(String, u32)> {
        for (path, fill) in &self.fills {
            let wants = fill.object.wants().into_iter();
            if let Some(index) = wants.into_iter().find(|i| !fill.pending.contains(i)) {
                return Some((path.clone(), index));
            }
        }
        for (path, fill) in &mut self.fills {
            let have = fill.object.have();
            while fill.next < have.count() {
                let index = fill.next;
                fill.next += 1;
                if !have.contains(index) && !fill.pending.contains(&index) {
                    return Some((path.clone(), index));
                }
            }
        }
        None
    }

    fn take(&mut self, event: Event, now: Now) {
        match event {
            Event::Listed(listed) => self.take_listing(listed, now),
            Event::Taken(item, taken) => self.take_object(item, taken, now),
            Event::Removed => {}
            Event::Told => self.telling = false,
            Event::Begun(path, begun) => {
                self.beginning.remove(&path);
                match begun {
                    Ok((object, tag)) if !object.complete() => {
                        let inner = path.strip_prefix(&self.config.prefix).unwrap_or(&path);
                        let fill = Fill {
                            key: format!("{}{inner}", self.config.beneath),
                            object,
                            tag,
                            pending: HashSet::new(),
                            next: 0,
                        };
                        self.fills.insert(path.clone(), fill);
                    }
                    Ok(_) => {}
                    // Gone, or its page of the book is: the next listing says which.
                    Err(None) => {
                        self.book.forget(&path);
                        self.news = true;
                        self.due = now;
                    }
                    Err(Some(error)) => {
                        tracing::debug!(path, error, "object of a bucket not begun");
                        self.problem = Some(error);
                    }
                }
                self.demand.settle(&path);
            }
            Event::Chunk(path, id, index, result) => {
                self.count(-1);
                self.take_chunk(&path, id, index, result, now);
            }
        }
    }

    fn take_listing(&mut self, listed: Result<Listed, Fault>, now: Now) {
        self.listing = false;
        let metrics = &self.metrics.bucket;
        let listing = match listed {
            Ok(listing) => listing,
            Err(fault) => {
                metrics.listings_failed.inc();
                self.failed(&fault.to_string(), now);
                return;
            }
        };
        self.due = now.plus(self.config.interval);
        self.seen_unix_ms = Some(now.unix_ms);
        metrics.listings_ok.inc();
        if listing.skipped > 0 && listing.skipped != self.skipped {
            let (bucket, keys) = (self.config.name(), listing.skipped);
            tracing::warn!(
                bucket,
                keys,
                "keys that no path can stand for, not published"
            );
        }
        self.skipped = listing.skipped;
        if listing.over {
            metrics.objects_limit.inc();
        }
        for path in listing.change.gone {
            self.book_remove(path);
        }
        self.waiting = listing
            .change
            .read
            .into_iter()
            .filter(|item| !self.taking.contains(&item.path))
            .collect();
        self.listed = true;
        self.well();
        self.problem = listing.over.then(|| {
            format!(
                "more than {} objects: the rest is not published",
                self.config.objects
            )
        });
        self.settle_first();
    }

    fn take_object(&mut self, item: Item, taken: Result<(), Failure>, now: Now) {
        self.count(-1);
        self.taking.remove(&item.path);
        match taken {
            Ok(()) => {
                tracing::debug!(path = item.path, "published from a bucket");
                self.news = true;
                self.well();
            }
            Err(Failure::Remote(Fault::Changed(_))) => {
                // The next listing says what it is now.
                self.metrics.bucket.taken_failed.inc();
                self.listed = false;
                self.due = now.plus(PAUSE);
            }
            Err(Failure::Remote(Fault::Server(error))) => {
                self.metrics.bucket.taken_failed.inc();
                self.waiting.push_front(item);
                self.failed(&error, now);
            }
            Err(Failure::Disk(error)) => {
                self.metrics.bucket.taken_failed.inc();
                let path = &item.path;
                tracing::warn!(path, error, "object of a bucket not published");
                self.problem = Some(format!("{path}: {error}"));
            }
        }
        self.settle_first();
    }

    fn take_chunk(
        &mut self,
        path: &str,
        id: Digest,
        index: u32,
        result: Result<(), ChunkFault>,
        now: Now,
    ) {
        let metrics = &self.metrics.bucket;
        let Some(fill) = self.fills.get_mut(path) else {
            return;
        };
        if fill.object.id() != id {
            return;
        }
        fill.pending.remove(&index);
        match result {
            Ok(()) => {
                metrics.chunks_ok.inc();
                if fill.object.complete() {
                    self.fills.remove(path);
                }
                self.well();
            }
            Err(ChunkFault::Remote(Fault::Server(error))) => {
                metrics.chunks_failed.inc();
                fill.next = fill.next.min(index);
                self.failed(&error, now);
            }
            Err(ChunkFault::Write(error @ (WriteError::Full { .. } | WriteError::Io { .. }))) => {
                metrics.chunks_failed.inc();
                fill.next = fill.next.min(index);
                self.failed(&error.to_string(), now);
            }
            // This version is not to be had any more: it is not mixed with what has come in its place.
            Err(ChunkFault::Remote(Fault::Changed(_)) | ChunkFault::Write(_)) => {
                metrics.chunks_changed.inc();
                tracing::info!(path, "object of a bucket has another version now");
                self.book_remove(path.to_owned());
                self.due = now;
            }
        }
    }

    /// The object at `path` is not in the bucket in the version that is known.
    fn book_remove(&mut self, path: String) {
        self.fills.remove(&path);
        self.news = true;
        let (book, at) = (Arc::clone(&self.book), path.clone());
        book.forget(&at);
        self.remove(path);
    }

    /// Drops what is held at `path`, and the book's file.
    fn remove(&mut self, path: String) {
        let (book, store) = (Arc::clone(&self.book), self.store.clone());
        let threads = self.store.threads().clone();
        self.jobs.spawn(async move {
            let removed = threads.run(move || {
                book.sweep(&path);
                if let Err(error) = store.remove(&path) {
                    tracing::warn!(path, %error, "object of a bucket not removed");
                }
            });
            drop(removed.await);
            Event::Removed
        });
    }

    /// The server, or the disk, does not do what it should: a pause, twice as long each time.
    fn failed(&mut self, error: &str, now: Now) {
        if self.failures == 0 {
            let bucket = self.config.name();
            tracing::warn!(bucket, error, "bucket not read");
        }
        self.problem = Some(error.to_owned());
        let pause = PAUSE * 2u32.saturating_pow(self.failures.min(5));
        self.failures += 1;
        self.pause = Some(now.plus(pause.min(self.config.interval.max(PAUSE))));
        self.metrics.bucket.pauses.inc();
    }

    fn well(&mut self) {
        if self.failures > 0 {
            tracing::info!(bucket = self.config.name(), "bucket read again");
            self.failures = 0;
            self.problem = None;
        }
    }

    /// Once all that was listed first is read through, a path that is not in the book is not in the bucket.
    fn settle_first(&mut self) {
        if self.listed && self.waiting.is_empty() && self.taking.is_empty() && self.book.set_read()
        {
            self.library.touch();
        }
    }

    /// Tells readers and other nodes what there is, when something has changed: not for each of many objects.
    fn tell(&mut self) {
        let many = self.taking.len() + self.waiting.len() > FEW;
        if !self.news || self.telling || (many && !self.waiting.len().is_multiple_of(FEW)) {
            return;
        }
        (self.news, self.telling) = (false, true);
        let (book, demand, library) =
            (self.book.clone(), self.demand.clone(), self.library.clone());
        let threads = self.store.threads().clone();
        self.jobs.spawn(async move {
            let told = threads.run(move || {
                demand.list(book.listed(book.prefix()).into_iter());
                library.touch();
            });
            drop(told.await);
            Event::Told
        });
    }

    fn show(&self) {
        let status = BucketStatus {
            prefix: self.config.prefix.clone(),
            bucket: self.config.name(),
            objects: self.book.len(),
            filling: self.waiting.len() + self.taking.len() + self.fills.len(),
            seen_unix_ms: self.seen_unix_ms,
            problem: self.problem.clone(),
        };
        self.status.store(Arc::new(status));
    }

    fn count(&mut self, requests: i64) {
        self.metrics.bucket.in_flight.add(requests);
        self.in_flight = self.in_flight.saturating_add_signed(requests as isize);
    }
}

/// Objects readers wait for to be begun, at once.
const WISHES: usize = 1_024;

/// Objects that are fetched again at once.
const FILLING: usize = 64;

/// How often those are looked at for what readers wait for.
const LOOK: Duration = Duration::from_millis(50);

/// After the first failure.
const PAUSE: Duration = Duration::from_secs(1);

/// With more objects on their way, news of them is told by so many.
const FEW: usize = 64;
