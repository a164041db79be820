//! What is stored, by target and by the fields it was chosen by; and what makes room.
//!
//! Entries are found by one hash; what was not used since the hand came by goes first (a clock), by the shard.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwapOption;
use http::{HeaderMap, StatusCode, header};

use super::content::Content;
use super::freshness::Life;
use super::vary;

/// One stored response.
#[derive(Debug)]
pub struct Stored {
    /// Host and target, see [`key`].
    pub key: Arc<str>,
    /// The fields it was chosen by.
    pub vary: vary::Key,
    /// Its status.
    pub status: StatusCode,
    /// Its end-to-end fields.
    pub head: HeaderMap,
    /// How long it may be used.
    pub life: Life,
    /// Its bytes.
    pub content: Arc<Content>,
    /// Used since the hand came by.
    used: AtomicBool,
    /// Somebody validates it.
    pub validating: AtomicBool,
    /// Tells it from those before and after it.
    number: AtomicU64,
    /// Its fields as a hit sends them, by the second they were made in.
    pub ready: ArcSwapOption<(u64, HeaderMap)>,
    /// Its head as a quick hit sends it, up to the value of `Age`; `None`: it is not for quick hits.
    pub(super) text: OnceLock<Option<Box<[u8]>>>,
}

impl Stored {
    /// A response as it is stored.
    #[must_use]
    pub fn new(
        key: Arc<str>,
        vary: vary::Key,
        status: StatusCode,
        head: HeaderMap,
        life: Life,
        content: Arc<Content>,
    ) -> Self {
        Self {
            key,
            vary,
            status,
            head,
            life,
            content,
            used: AtomicBool::new(false),
            validating: AtomicBool::new(false),
            number: AtomicU64::new(0),
            ready: ArcSwapOption::empty(),
            text: OnceLock::new(),
        }
    }

    /// Whether it was chosen by the fields `request` has.
    pub(super) fn answers(&self, request: &HeaderMap) -> bool {
        if self.vary.is_empty() {
            return true;
        }
        let language = self.head.get(header::CONTENT_LANGUAGE);
        vary::matches(&self.vary, language.map(|l| l.as_bytes()), request)
    }
}

/// All stored responses.
pub struct Table {
    shards: Box<[Mutex<Shard>]>,
    hasher: foldhash::fast::RandomState,
    entries: usize,
    variants: usize,
    count: AtomicUsize,
    numbers: AtomicU64,
    hand: AtomicUsize,
}

#[derive(Default)]
struct Shard {
    by_key: HashMap<Arc<str>, Vec<Arc<Stored>>, foldhash::fast::RandomState>,
    ring: VecDeque<(Arc<str>, u64)>,
    /// The ring is tidied when it is longer than this.
    tidy: usize,
}

/// What the table has for a request.
#[derive(Debug)]
pub enum Found {
    /// This response.
    Stored(Arc<Stored>),
    /// Only responses chosen by other fields.
    Others,
    /// Nothing.
    Nothing,
}

/// Follows the host in keys of what the upstream was asked for by clients within TLS. No host and no target has it.
const WITHIN_TLS: char = '\0';

/// What a target is stored by: host in lower case, whether the upstream is told that the client speaks TLS, then path and query.
///
/// What an upstream answers may hang on the scheme it is told though its Vary does not say so: a redirect to https that is kept for
/// those who are there already would lead nowhere.
#[must_use]
pub fn key(host: &str, encrypted: bool, target: &str) -> String {
    let mut key = String::with_capacity(host.len() + 1 + target.len());
    write_key(host, encrypted, target, &mut key);
    key
}

/// As [`key`], into what there is.
pub(super) fn write_key(host: &str, encrypted: bool, target: &str, key: &mut String) {
    key.clear();
    key.push_str(host);
    key.make_ascii_lowercase();
    if encrypted {
        key.push(WITHIN_TLS);
    }
    key.push_str(target);
}

/// What [`key`] was made of; `None` if it was not.
#[must_use]
pub fn parts(key: &str) -> Option<(&str, bool, &str)> {
    let (host, target) = key.split_at(key.find('/')?);
    Some(match host.strip_suffix(WITHIN_TLS) {
        Some(host) => (host, true, target),
        None => (host, false, target),
    })
}

impl Table {
    /// A table of at most `entries` responses, `variants` of them for one target.
    #[must_use]
    pub fn new(entries: usize, variants: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: foldhash::fast::RandomState::default(),
            entries,
            variants,
            count: AtomicUsize::new(0),
            numbers: AtomicU64::new(1),
            hand: AtomicUsize::new(0),
        }
    }

    /// The response stored last of those that answer `request`.
    #[must_use]
    pub fn find(&self, key: &str, request: &HeaderMap) -> Found {
        self.choose(key, |stored| stored.answers(request))
    }

    /// The response stored last of those `suits` takes.
    pub(super) fn choose(&self, key: &str, mut suits: impl FnMut(&Stored) -> bool) -> Found {
        let shard = self.shard(key);
        let Some(stored) = shard.by_key.get(key) else {
            return Found::Nothing;
        };
        match stored.iter().rev().find(|s| suits(s)) {
            Some(found) => {
                if !found.used.load(Relaxed) {
                    found.used.store(true, Relaxed);
                }
                Found::Stored(Arc::clone(found))
            }
            None => Found::Others,
        }
    }

    /// Stores `stored` in place of what was chosen by the same fields. Gives what had to go for the bounds.
    pub fn insert(&self, stored: Arc<Stored>) -> Vec<Arc<Stored>> {
        let mut gone = Vec::new();
        let number = self.numbers.fetch_add(1, Relaxed);
        stored.number.store(number, Relaxed);
        let mut shard = self.shard(&stored.key);
        let shard_ = &mut *shard;
        let list = shard_.by_key.entry(Arc::clone(&stored.key)).or_default();
        let before = list.len();
        list.retain(|held| held.vary != stored.vary);
        if list.len() >= self.variants {
            gone.push(list.remove(0));
        }
        shard_.ring.push_back((Arc::clone(&stored.key), number));
        list.push(stored);
        let after = list.len();
        // Those replaced leave their places in the ring behind.
        if shard_.ring.len() > shard_.tidy {
            let by_key = &shard_.by_key;
            shard_.ring.retain(|(key, number)| {
                let mut list = by_key.get(key).into_iter().flatten();
                list.any(|s| s.number.load(Relaxed) == *number)
            });
            shard_.tidy = 2 * shard_.ring.len() + RING_MIN;
        }
        drop(shard);
        if after > before {
            self.count.fetch_add(1, Relaxed);
        } else {
            self.count.fetch_sub(before - after, Relaxed);
        }
        while self.count.load(Relaxed) > self.entries {
            match self.evict() {
                Some(stored) => gone.push(stored),
                None => break,
            }
        }
        gone
    }

    /// Takes out the response the hand finds unused; `None` if there is none.
    pub fn evict(&self) -> Option<Arc<Stored>> {
        // Twice round: the first time everything may have been used. And once more, if all of it is at work.
        for turn in 0..3 * SHARDS {
            let place = self.hand.fetch_add(1, Relaxed) % SHARDS;
            let mut shard = lock(&self.shards[place]);
            for _ in 0..shard.ring.len() {
                let (key, number) = shard.ring.pop_front()?;
                let list = shard.by_key.get(&key);
                let held = list.and_then(|l| l.iter().find(|s| s.number.load(Relaxed) == number));
                match held {
                    None => {}
                    Some(held) if held.used.swap(false, Relaxed) => {
                        shard.ring.push_back((key, number));
                    }
                    Some(held) if turn < 2 * SHARDS && is_at_work(held) => {
                        shard.ring.push_back((key, number));
                    }
                    Some(held) => {
                        let held = Arc::clone(held);
                        self.take(&mut shard, &held);
                        return Some(held);
                    }
                }
            }
        }
        None
    }

    /// Removes exactly this response, if it is still there.
    pub fn remove(&self, stored: &Arc<Stored>) {
        let mut shard = self.shard(&stored.key);
        self.take(&mut shard, stored);
    }

    /// Removes all that is stored for the target, whether its clients speak TLS or not; gives how many.
    pub fn purge(&self, host: &str, target: &str) -> usize {
        let of = |encrypted| {
            let key = key(host, encrypted, target);
            let mut shard = self.shard(&key);
            shard.by_key.remove(key.as_str()).map_or(0, |l| l.len())
        };
        let gone = of(false) + of(true);
        self.count.fetch_sub(gone, Relaxed);
        gone
    }

    /// Removes all whose key is `wanted`; gives how many.
    pub fn purge_where(&self, wanted: impl Fn(&str) -> bool) -> usize {
        let mut gone = 0;
        for shard in &self.shards {
            lock(shard).by_key.retain(|key, list| {
                let goes = wanted(key);
                gone += if goes { list.len() } else { 0 };
                !goes
            });
        }
        self.count.fetch_sub(gone, Relaxed);
        gone
    }

    /// Every stored response.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Stored>> {
        let lists = self.shards.iter().map(|shard| {
            let shard = lock(shard);
            shard.by_key.values().flatten().cloned().collect::<Vec<_>>()
        });
        lists.flatten().collect()
    }

    /// Responses stored.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    fn take(&self, shard: &mut Shard, stored: &Arc<Stored>) {
        if let Some(list) = shard.by_key.get_mut(&stored.key) {
            let before = list.len();
            list.retain(|held| !Arc::ptr_eq(held, stored));
            self.count.fetch_sub(before - list.len(), Relaxed);
            if list.is_empty() {
                shard.by_key.remove(&stored.key);
            }
        }
    }

    fn shard(&self, key: &str) -> MutexGuard<'_, Shard> {
        #[expect(clippy::cast_possible_truncation, reason = "reduced to a shard")]
        let place = self.hasher.hash_one(key) as usize % SHARDS;
        lock(&self.shards[place])
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table")
            .field("count", &self.count())
            .finish_non_exhaustive()
    }
}

/// Whether it is read, filled or written, so that its room would come only when that is over.
fn is_at_work(held: &Arc<Stored>) -> bool {
    Arc::strong_count(held) > 1 || Arc::strong_count(&held.content) > 1
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

const SHARDS: usize = 16;

const RING_MIN: usize = 64;

#[cfg(test)]
mod tests {
    use super::super::content::{Ledger, Reads};
    use super::*;
    use prometheus::IntGauge;

    fn stored(name: &str, vary: &[(&'static str, &str)]) -> Arc<Stored> {
        let gauge = || IntGauge::new("a", "b").unwrap();
        let ledger = Ledger {
            memory: gauge(),
            disk: gauge(),
            reads: Reads::new(1),
            files: None,
        };
        let vary = vary
            .iter()
            .map(|(n, v)| ((*n).try_into().unwrap(), Some(v.as_bytes().to_vec())))
            .collect();
        let life = Life {
            born: 0,
            fresh: 0,
            revalidate: 0,
            on_error: 0,
            always: false,
            strict: false,
        };
        let content = Content::new(1, Some(0), false, ledger);
        let key = key("H", false, name).into();
        Arc::new(Stored::new(
            key,
            vary,
            StatusCode::OK,
            HeaderMap::new(),
            life,
            content,
        ))
    }

    fn has(table: &Table, name: &str) -> bool {
        matches!(
            table.find(&key("h", false, name), &HeaderMap::new()),
            Found::Stored(_)
        )
    }

    #[test]
    fn newer_response_takes_the_place_of_the_older() {
        let table = Table::new(10, 3);
        table.insert(stored("/a", &[]));
        let second = stored("/a", &[]);
        table.insert(Arc::clone(&second));
        assert_eq!(table.count(), 1);
        let Found::Stored(found) = table.find("h/a", &HeaderMap::new()) else {
            panic!("it was stored")
        };
        assert!(Arc::ptr_eq(&found, &second));
    }

    #[test]
    fn variants_lie_beside_each_other_and_are_bounded() {
        let table = Table::new(10, 3);
        for value in ["1", "2", "3", "4"] {
            table.insert(stored("/a", &[("x", value)]));
        }
        assert_eq!(table.count(), 3);
        let mut request = HeaderMap::new();
        assert!(matches!(table.find("h/a", &request), Found::Others));
        request.insert("x", "4".parse().unwrap());
        assert!(matches!(table.find("h/a", &request), Found::Stored(_)));
        request.insert("x", "1".parse().unwrap());
        assert!(matches!(table.find("h/a", &request), Found::Others));
    }

    #[test]
    fn what_is_used_outlives_what_is_not() {
        let table = Table::new(100, 3);
        table.insert(stored("/hot", &[]));
        for n in 0..2_000 {
            assert!(has(&table, "/hot"), "after {n}");
            table.insert(stored(&format!("/{n}"), &[]));
            assert!(table.count() <= 100);
        }
    }

    #[test]
    fn what_is_at_work_goes_last() {
        let table = Table::new(100, 3);
        for name in 0..40 {
            table.insert(stored(&format!("/{name}"), &[]));
        }
        let read = stored("/read", &[]);
        let content = Arc::clone(&read.content);
        table.insert(read);
        for _ in 0..40 {
            assert!(table.evict().is_some());
            assert!(has(&table, "/read"));
        }
        assert!(table.evict().is_some());
        assert!(!has(&table, "/read"));
        drop(content);
    }

    #[test]
    fn key_says_what_it_was_made_of() {
        for (host, encrypted, target) in [
            ("a.test", false, "/b"),
            ("a.test:80", true, "/b/c?d"),
            ("", false, "/"),
        ] {
            let made = key(host, encrypted, target);
            assert_eq!(parts(&made), Some((host, encrypted, target)));
        }
        assert_eq!(parts("h"), None);
    }

    #[test]
    fn purge_takes_all_it_names() {
        let table = Table::new(100, 3);
        for name in ["/a/1", "/a/2", "/b/1"] {
            table.insert(stored(name, &[]));
        }
        assert_eq!(table.purge("H", "/b/1"), 1);
        assert_eq!(table.purge("h", "/b/1"), 0);
        assert_eq!(table.purge_where(|key| key.starts_with("h/a/")), 2);
        assert_eq!(table.count(), 0);
        assert!(table.evict().is_none());
    }
}
