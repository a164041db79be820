//! The library: paths to objects, one immutable snapshot swapped on change.
//!
//! The snapshot is cut into shards by path, so that one change among 100,000 objects copies a few hundred entries
//! and a reader takes no lock. Published and mirrored objects stand side by side; at one path the published one
//! wins: this node is the origin there. A mirrored path may have two versions: the one that serves, and the next
//! one, which fills beside it and takes its place when it is whole.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::StoreConfig;
use super::bucket::book::Book;
use super::catalogue::SignedCatalogue;
use super::chunk::Digest;
use super::demand::{Demand, Wish};
use super::edition::Editions;
use super::manifest::check_path;
use super::object::{Change, Object, Role};
use super::reader::Reader;
use super::remembered::Remembered;
use super::root::{Look, Root};
use crate::metrics::Metrics;
use crate::metrics::content::Limit;
use crate::time::Now;

mod mirrored;

mod published;

/// What this node can serve. A cheap handle.
#[derive(Clone, Debug)]
pub struct Library {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    paths: Shards<Arc<str>, Slot>,
    versions: Shards<Digest, Weak<Object>>,
    hasher: Hasher,
    /// Held by writers only.
    write: Mutex<()>,
    objects: AtomicUsize,
    objects_most: usize,
    generation: AtomicU64,
    reader: Arc<Reader>,
    published: OnceLock<Published>,
    /// What may be asked of mirrors, the longest prefix first.
    demands: ArcSwap<Vec<Arc<Demand>>>,
    /// What this node publishes from buckets, the longest prefix first.
    books: ArcSwap<Vec<Arc<Book>>>,
    /// This node as a publisher.
    editions: OnceLock<Editions>,
    /// What others publish, as they signed it; to be passed on.
    catalogues: ArcSwap<Vec<SignedCatalogue>>,
    /// Looks at the disk for paths that are not known, at once.
    looks: Arc<Semaphore>,
}

/// What find needs of the publisher.
#[derive(Debug)]
pub(super) struct Published {
    /// The longest prefix first.
    pub(super) roots: Vec<Root>,
    pub(super) remembered: Remembered,
    pub(super) chunk: u32,
    /// Files being digested, each by one thread; the token is cancelled when it is done.
    pub(super) open: Mutex<HashMap<String, CancellationToken>>,
    /// Every file that was there at the start has been read once.
    pub(super) scanned: AtomicBool,
    /// No file is digested to its end any more.
    pub(super) stop: AtomicBool,
}

type Hasher = foldhash::quality::RandomState;
type Shards<K, V> = Box<[ArcSwap<HashMap<K, V, Hasher>>]>;

/// What stands at one path.
#[derive(Clone, Debug, Default)]
struct Slot {
    published: Option<Arc<Object>>,
    mirrored: Option<Arc<Object>>,
    next: Option<Arc<Object>>,
}

/// What stands at a path.
#[derive(Clone, Debug)]
pub enum Entry {
    /// An object.
    Object(Arc<Object>),
    /// A directory without an index file: its listing, if allowed.
    Listing {
        /// In the order of their names.
        items: Vec<Listed>,
        /// There are more than are listed.
        more: bool,
    },
    /// A directory asked for without its final `/`.
    Directory,
    /// Another node publishes it, and it was not begun here in time.
    Later,
    /// Another node publishes it, and there is no room for it here.
    Full,
    /// Nothing.
    None,
}

/// One name of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The name; that of a directory ends with `/`.
    pub name: String,
    /// What is known of a file.
    pub file: Option<ListedFile>,
}

/// A file of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedFile {
    /// Its size, bytes.
    pub size: u64,
    /// Last modification, Unix seconds.
    pub modified: u64,
}

/// One object with its state, for `content list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Its path.
    pub path: String,
    /// Its size, bytes.
    pub size: u64,
    /// Where it comes from.
    pub role: Role,
    /// Chunks held.
    pub held: u32,
    /// Chunks in all.
    pub chunks: u32,
    /// Its manifest's digest.
    pub id: Digest,
    /// Whether every chunk is held.
    pub complete: bool,
    /// Whether requests for the path are answered with it; a next version that still fills is not.
    pub serving: bool,
}

impl Library {
    /// An empty library with the bounds of `config`.
    #[must_use]
    pub fn new(config: &StoreConfig, metrics: Arc<Metrics>) -> Self {
        // Not from 0: an index that was fetched before a restart must not look current after it.
        let generation = Now::read().unix_ms.saturating_mul(1_000);
        Self {
            inner: Arc::new(Inner {
                paths: shards(),
                versions: shards(),
                hasher: Hasher::default(),
                write: Mutex::default(),
                objects: AtomicUsize::new(0),
                objects_most: config.objects,
                generation: AtomicU64::new(generation),
                reader: Reader::new(config, metrics),
                published: OnceLock::new(),
                demands: ArcSwap::default(),
                books: ArcSwap::default(),
                editions: OnceLock::new(),
                catalogues: ArcSwap::default(),
                looks: Arc::new(Semaphore::new(config.reads)),
            }),
        }
    }

    /// Looks up a decoded, normalised absolute path. Published files newer than the last scan are found too, and
    /// known ones that changed are published anew: a small one before this returns, a large one while the version
    /// before it still serves. A directory's index file is found at the path with its final `/`.
    pub async fn find(&self, path: &str) -> Entry {
        let Some(dir) = path.strip_suffix('/') else {
            return self.find_file(path).await;
        };
        if !dir.is_empty() && check_path(dir).is_err() {
            return Entry::None;
        }
        let Some(root) = self.root(path) else {
            if let Some(book) = self.book(path) {
                return self.find_directory(&book, path).await;
            }
            // A mirror does not know its origin's index file; the usual name is worth a look.
            let index = self.get(&format!("{path}index.html"));
            return index.map_or(Entry::None, Entry::Object);
        };
        if !root.config.index.is_empty() {
            let index = format!("{path}{}", root.config.index);
            if let found @ Entry::Object(_) = self.find_file(&index).await {
                return found;
            }
        }
        if !root.config.listing {
            return Entry::None;
        }
        let listing = self.look(path, |root, path| match root.items(path, LISTED + 1) {
            Ok(mut items) => {
                let more = items.len() > LISTED;
                items.truncate(LISTED);
                let mut items: Vec<_> = items
                    .into_iter()
                    .filter_map(|item| match item.look {
                        Look::File(stamp) => Some(Listed {
                            name: item.name,
                            file: Some(ListedFile {
                                size: stamp.size,
                                modified: stamp.modified_secs(),
                            }),
                        }),
                        Look::Directory => Some(Listed {
                            name: item.name + "/",
                            file: None,
                        }),
                        Look::None => None,
                    })
                    .collect();
                items.sort_unstable_by(|a, b| a.name.cmp(&b.name));
                Entry::Listing { items, more }
            }
            Err(_) => Entry::None,
        });
        let listing = listing.await.unwrap_or(Entry::None);
        if matches!(listing, Entry::Listing { more: true, .. }) {
            self.inner.reader.metrics.content.limit(Limit::Listing);
        }
        listing
    }

    /// A directory of a bucket: the file that stands for it, or its listing.
    async fn find_directory(&self, book: &Book, path: &str) -> Entry {
        if !book.index().is_empty() {
            let index = format!("{path}{}", book.index());
            match Box::pin(self.find_file(&index)).await {
                found @ (Entry::Object(_) | Entry::Later | Entry::Full) => return found,
                Entry::Listing { .. } | Entry::Directory | Entry::None => {}
            }
        }
        let Some(mut entries) = book.entries(path, LISTED + 1) else {
            return Entry::None;
        };
        let more = entries.len() > LISTED;
        if more {
            entries.truncate(LISTED);
            self.inner.reader.metrics.content.limit(Limit::Listing);
        }
        let items = entries.into_iter().map(|entry| Listed {
            name: entry.name,
            file: entry
                .object
                .map(|(size, modified)| ListedFile { size, modified }),
        });
        let items = items.collect();
        Entry::Listing { items, more }
    }

    async fn find_file(&self, path: &str) -> Entry {
        if let Some(object) = self.get(path) {
            match object.changed(Now::read()) {
                None => return Entry::Object(object),
                Some(Change::To(stamp)) if stamp.size > SOON => {
                    drop(self.publish(path));
                    return Entry::Object(object);
                }
                Some(_) => {
                    self.publish(path).cancelled().await;
                    return self.get(path).map_or(Entry::None, Entry::Object);
                }
            }
        }
        if check_path(path).is_err() {
            return Entry::None;
        }
        match self.look(path, Root::look).await {
            Some(Look::File(_)) => {
                self.publish(path).cancelled().await;
                self.get(path).map_or(Entry::None, Entry::Object)
            }
            Some(Look::Directory) => Entry::Directory,
            Some(Look::None) | None => match self.wish(path).await {
                Entry::None if self.is_directory(path) => Entry::Directory,
                found => found,
            },
        }
    }

    /// Whether objects of a bucket lie beneath `path`.
    fn is_directory(&self, path: &str) -> bool {
        let dir = format!("{path}/");
        self.book(&dir).is_some_and(|book| book.has_directory(&dir))
    }

    /// Asks the mirror of the path for it, and waits until it is begun.
    async fn wish(&self, path: &str) -> Entry {
        let Some(demand) = self.demand(path) else {
            return Entry::None;
        };
        match demand.wish(path, PATIENCE).await {
            Wish::Unknown => Entry::None,
            Wish::Refused => {
                self.inner.reader.metrics.content.limit(Limit::Wishes);
                Entry::Later
            }
            Wish::Done | Wish::Late => match self.get(path) {
                Some(object) => Entry::Object(object),
                None if demand.is_full() => Entry::Full,
                None => Entry::Later,
            },
        }
    }

    /// The object with this manifest, begun anew if this node publishes it from a bucket and does not hold it now.
    pub async fn version_or_wish(&self, id: Digest) -> Option<Arc<Object>> {
        if let Some(object) = self.version(id) {
            return Some(object);
        }
        let books = self.inner.books.load_full();
        let path = books.iter().find_map(|book| book.path_of(id))?;
        self.wish(&path).await;
        self.version(id)
    }

    /// Asks for the object with this manifest as [`Library::version_or_wish`] does, without waiting for it.
    pub fn wish_version(&self, id: Digest) {
        let books = self.inner.books.load();
        if let Some(path) = books.iter().find_map(|book| book.path_of(id))
            && let Some(demand) = self.demand(&path)
        {
            drop(demand.ask(&path));
        }
    }

    /// Publishes what is in `book` from now on. A prefix has one book.
    #[cfg(feature = "s3")]
    pub(super) fn set_book(&self, book: &Arc<Book>) {
        self.inner.books.rcu(|all| {
            let mut all = Vec::clone(all);
            all.retain(|other| other.prefix() != book.prefix());
            all.push(Arc::clone(book));
            all.sort_by_key(|book| std::cmp::Reverse(book.prefix().len()));
            all
        });
        self.touch();
    }

    /// What this node publishes from buckets.
    #[must_use]
    pub fn books(&self) -> Arc<Vec<Arc<Book>>> {
        self.inner.books.load_full()
    }

    /// The book of the bucket that `path` is beneath.
    fn book(&self, path: &str) -> Option<Arc<Book>> {
        let books = self.inner.books.load();
        books
            .iter()
            .find(|book| path.starts_with(book.prefix()))
            .cloned()
    }

    /// What is published has changed, beside the objects themselves.
    #[cfg(feature = "s3")]
    pub(super) fn touch(&self) {
        self.inner.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Lets readers ask for what a mirror does not hold yet. A prefix has one demand.
    pub fn set_demand(&self, demand: &Arc<Demand>) {
        self.inner.demands.rcu(|all| {
            let mut all = Vec::clone(all);
            all.retain(|other| other.prefix() != demand.prefix());
            all.push(Arc::clone(demand));
            all.sort_by_key(|demand| std::cmp::Reverse(demand.prefix().len()));
            all
        });
    }

    /// The demand of the mirror whose path this is.
    #[must_use]
    pub fn demand(&self, path: &str) -> Option<Arc<Demand>> {
        let demands = self.inner.demands.load();
        demands
            .iter()
            .find(|d| path.starts_with(d.prefix()))
            .cloned()
    }

    /// Asks the disk, on the blocking pool; `None` if the path is beneath no published prefix.
    async fn look<T: Send + 'static>(
        &self,
        path: &str,
        ask: impl FnOnce(&Root, &str) -> T + Send + 'static,
    ) -> Option<T> {
        self.root(path)?;
        let inner = &self.inner;
        let permit = inner.reader.permit(&inner.looks, Limit::Looks).await;
        let (library, path) = (self.clone(), path.to_owned());
        let looked = inner.reader.threads.run(move || {
            let _permit = permit; // Held until the thread is done, even if nobody waits any more.
            library.root(&path).map(|root| ask(root, &path))
        });
        looked.await.ok().flatten()
    }

    /// The object at `path`, if it is known already. No system call.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<Arc<Object>> {
        let shard = self.inner.paths[self.shard(path)].load();
        shard.get(path)?.serving().cloned()
    }

    /// A version by its manifest digest (current ones, and old ones still being read).
    #[must_use]
    pub fn version(&self, id: Digest) -> Option<Arc<Object>> {
        let shard = self.inner.versions[usize::from(id.0[0])].load();
        shard.get(&id)?.upgrade()
    }

    /// All current objects, by path.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Object>> {
        let mut objects = self.collect(|slot| slot.serving().cloned());
        objects.sort_unstable_by(|a, b| a.manifest().path.cmp(&b.manifest().path));
        objects
    }

    /// All objects with their states, by path: the current ones, then at each path the next version that fills.
    #[must_use]
    pub fn holdings(&self) -> Vec<Holding> {
        let mut slots = self.collect(|slot| Some(slot.clone()));
        slots.retain(|slot| slot.serving().is_some());
        let mut holdings: Vec<_> = slots
            .iter()
            .flat_map(|slot| {
                let serving = slot.serving().into_iter().map(|object| (object, true));
                serving.chain(slot.next.iter().map(|object| (object, false)))
            })
            .map(|(object, serving)| Holding {
                path: object.manifest().path.clone(),
                size: object.manifest().layout.size,
                role: object.role(),
                held: object.held(),
                chunks: object.manifest().layout.count(),
                id: object.id(),
                complete: object.complete(),
                serving,
            })
            .collect();
        holdings.sort_by(|a, b| a.path.cmp(&b.path)); // Stable: the serving one stays first.
        holdings
    }

    fn collect<T>(&self, mut pick: impl FnMut(&Slot) -> Option<T>) -> Vec<T> {
        let mut all = Vec::new();
        for shard in &self.inner.paths {
            all.extend(shard.load().values().filter_map(&mut pick));
        }
        all
    }

    /// A number that changes whenever `list` does (for the index's entity tag).
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.inner.generation.load(Ordering::Acquire)
    }

    /// Whether every published directory has been scanned, so that a path that is not known is not published.
    #[must_use]
    pub fn scanned(&self) -> bool {
        let published = self.inner.published.get();
        published.is_none_or(|published| published.scanned.load(Ordering::Acquire))
    }

    /// As [`Library::scanned`], of directories and of the buckets at or beneath `prefix`, or around it.
    #[must_use]
    pub fn scanned_beneath(&self, prefix: &str) -> bool {
        let books = self.inner.books.load();
        let mut within = books
            .iter()
            .filter(|book| book.prefix().starts_with(prefix) || prefix.starts_with(book.prefix()));
        self.scanned() && within.all(|book| book.is_read())
    }

    /// Gives the library the key that what it publishes is signed with. Once, before anybody asks for it.
    pub fn set_editions(&self, editions: Editions) -> bool {
        self.inner.editions.set(editions).is_ok()
    }

    /// This node as a publisher. A library that was given no key signs with one that nobody keeps.
    ///
    /// # Panics
    /// The kernel has no random bytes.
    #[must_use]
    pub fn editions(&self) -> &Editions {
        let unkept = || Editions::unkept(Now::read()).expect("the kernel gives random bytes");
        self.inner.editions.get_or_init(unkept)
    }

    /// The catalogues of other nodes, to be passed on: the newest of each key for each prefix.
    #[must_use]
    pub fn catalogues(&self) -> Arc<Vec<SignedCatalogue>> {
        self.inner.catalogues.load_full()
    }

    /// Passes a catalogue on from now on, in place of an older one of its key and prefix.
    pub fn offer(&self, signed: &SignedCatalogue) {
        let same = |other: &SignedCatalogue| {
            other.key() == signed.key() && other.catalogue().prefix == signed.catalogue().prefix
        };
        self.inner.catalogues.rcu(|all| {
            let mut all = Vec::clone(all);
            all.retain(|other| !same(other));
            all.push(signed.clone());
            all
        });
        self.inner.generation.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn reader(&self) -> &Arc<Reader> {
        &self.inner.reader
    }

    fn shard(&self, path: &str) -> usize {
        let hash = self.inner.hasher.hash_one(path);
        usize::try_from(hash % SHARDS as u64).expect("less than SHARDS")
    }

    /// Changes what stands at `path`; `change` may refuse.
    fn update<T>(&self, path: &str, change: impl FnOnce(&mut Slot) -> T) -> T {
        let write = self
            .inner
            .write
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let shard = &self.inner.paths[self.shard(path)];
        let old = shard.load_full();
        let before = old.get(path).cloned().unwrap_or_default();
        let mut slot = before.clone();
        let result = change(&mut slot);
        let objects = before.objects().count();
        let count = slot.objects().count();
        let mut map = HashMap::clone(&old);
        for object in slot.objects() {
            self.index(object);
        }
        if count == 0 {
            map.remove(path);
        } else {
            map.insert(Arc::from(path), slot.clone());
        }
        shard.store(Arc::new(map));
        let stays = |old: &Arc<Object>| slot.objects().any(|new| Arc::ptr_eq(old, new));
        for old in before.objects().filter(|old| !stays(old)) {
            old.end();
        }
        self.inner.objects.fetch_add(count, Ordering::AcqRel);
        self.inner.objects.fetch_sub(objects, Ordering::AcqRel);
        self.inner.generation.fetch_add(1, Ordering::AcqRel);
        let metrics = &self.inner.reader.metrics.content;
        let role = |slot: &Slot, role| slot.objects().filter(|o| o.role() == role).count() as i64;
        for (gauge, kind) in [
            (&metrics.origin_objects, Role::Origin),
            (&metrics.mirror_objects, Role::Mirror),
        ] {
            gauge.add(role(&slot, kind) - role(&before, kind));
        }
        drop(write);
        result // What was replaced is dropped after the lock.
    }

    /// Makes `object` found by its manifest's digest.
    fn index(&self, object: &Arc<Object>) {
        let shard = &self.inner.versions[usize::from(object.id().0[0])];
        let old = shard.load_full();
        let known = old.get(&object.id());
        if known.is_some_and(|known| known.as_ptr() == Arc::as_ptr(object)) {
            return;
        }
        let mut map = HashMap::clone(&old);
        map.retain(|_, known| known.strong_count() > 0);
        map.insert(object.id(), Arc::downgrade(object));
        shard.store(Arc::new(map));
    }

    /// Whether one more object is within the bound; counted and logged if not.
    pub(super) fn has_room(&self) -> bool {
        let room = self.inner.objects.load(Ordering::Acquire) < self.inner.objects_most;
        if !room {
            let metrics = &self.inner.reader.metrics.content;
            if metrics.objects_refused.get() == 0 {
                tracing::error!(
                    objects = self.inner.objects_most,
                    "bound on objects reached, new ones are refused"
                );
            }
            metrics.objects_refused.inc();
        }
        room
    }

    pub(super) fn objects_most(&self) -> usize {
        self.inner.objects_most
    }
}

impl Slot {
    fn serving(&self) -> Option<&Arc<Object>> {
        self.published.as_ref().or(self.mirrored.as_ref())
    }

    /// Puts a mirrored object beside a whole one or in place of a partial one; gives those replaced.
    fn put_mirrored(&mut self, object: &Arc<Object>) -> Vec<Arc<Object>> {
        let mut replaced = Vec::from_iter(self.next.take());
        let stays = self.mirrored.as_ref().is_some_and(|old| old.complete());
        if stays && !object.complete() {
            self.next = Some(Arc::clone(object));
        } else {
            replaced.extend(self.mirrored.replace(Arc::clone(object)));
        }
        replaced
    }

    fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.published
            .iter()
            .chain(&self.mirrored)
            .chain(&self.next)
    }
}

fn shards<K, V>() -> Shards<K, V> {
    (0..SHARDS).map(|_| ArcSwap::default()).collect()
}

const SHARDS: usize = 256;

/// Names in a listing at most.
const LISTED: usize = 10_000;

/// How long a reader waits for its object to be begun: some round trips to the other node, and its turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// A changed file up to this size is digested while its reader waits: some milliseconds.
const SOON: u64 = 1 << 20;
