//! What readers ask for beneath a mirrored prefix that is not here yet.
//!
//! A mirror says which paths there are; a reader that asks for one of them waits until the mirror has begun it (then it
//! is served while it fills), found that it cannot, or took too long. Waiting readers of one path count once; with
//! `most` paths waiting, more are turned away at once.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::catalogue::Listed;

/// What is asked for beneath one mirrored prefix.
#[derive(Debug)]
pub struct Demand {
    prefix: String,
    /// Objects that may be asked for, by path.
    listed: ArcSwap<BTreeMap<String, Listed>>,
    most: usize,
    waiting: Mutex<Waiting>,
    asked: Notify,
    /// There is no room for what is not here yet.
    full: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Paths somebody asked for; cancelled when the mirror is done with it.
    paths: BTreeMap<String, CancellationToken>,
    /// Those the mirror was not told of yet.
    fresh: VecDeque<String>,
}

/// What came of a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// No such object is known beneath the prefix.
    Unknown,
    /// Too many others are waited for.
    Refused,
    /// It was begun, or cannot be now: look what is there.
    Done,
    /// It was not begun in time; the mirror goes on with it.
    Late,
}

impl Demand {
    /// Nothing is known beneath `prefix` yet; at most `most` paths are waited for at once.
    #[must_use]
    pub fn new(prefix: impl Into<String>, most: usize) -> Self {
        Self {
            prefix: prefix.into(),
            listed: ArcSwap::default(),
            most,
            waiting: Mutex::default(),
            asked: Notify::new(),
            full: AtomicBool::new(false),
        }
    }

    /// Says whether there is no room for what is not here yet.
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Release);
    }

    /// Whether there was no room when the mirror last began an object.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// The mirrored prefix.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Says which objects there are from now on.
    pub fn list(&self, objects: impl Iterator<Item = Listed>) {
        let objects = objects.map(|object| (object.path.clone(), object));
        self.listed.store(Arc::new(objects.collect()));
    }

    /// The objects there are beneath `path` (a prefix with its final `/`), or the one at it, by path.
    #[must_use]
    pub fn listed(&self, path: &str) -> Vec<Listed> {
        let listed = self.listed.load();
        if !path.ends_with('/') {
            return listed.get(path).cloned().into_iter().collect();
        }
        let from = listed.range::<str, _>((Bound::Included(path), Bound::Unbounded));
        from.take_while(|(p, _)| p.starts_with(path))
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Asks for an object and waits, at most `patience`. Cancel-safe: the mirror goes on with it.
    pub async fn wish(&self, path: &str, patience: Duration) -> Wish {
        let Some(done) = self.ask(path) else {
            let known = self.listed.load().contains_key(path);
            return if known { Wish::Refused } else { Wish::Unknown };
        };
        match tokio::time::timeout(patience, done.cancelled()).await {
            Ok(()) => Wish::Done,
            Err(_) => Wish::Late,
        }
    }

    /// Asks for an object without waiting; the token is cancelled when the mirror has begun it or cannot now. `None` if
    /// there is no such object, or too many are waited for.
    #[must_use]
    pub fn ask(&self, path: &str) -> Option<CancellationToken> {
        if !self.listed.load().contains_key(path) {
            return None;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(done) = waiting.paths.get(path) {
            return Some(done.clone());
        }
        if waiting.paths.len() >= self.most {
            return None;
        }
        let done = CancellationToken::new();
        waiting.paths.insert(path.to_owned(), done.clone());
        waiting.fresh.push_back(path.to_owned());
        drop(waiting);
        self.asked.notify_one();
        Some(done)
    }

    /// Whether somebody waits for the object.
    #[must_use]
    pub fn is_waited_for(&self, path: &str) -> bool {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.paths.contains_key(path)
    }

    /// The next path somebody asked for. For one mirror. Cancel-safe.
    pub async fn next(&self) -> String {
        loop {
            let asked = self.asked.notified();
            let fresh = {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                let fresh = waiting.fresh.pop_front();
                if !waiting.fresh.is_empty() {
                    self.asked.notify_one();
                }
                fresh
            };
            match fresh {
                Some(path) => return path,
                None => asked.await,
            }
        }
    }

    /// The mirror has begun the object, or cannot now: who waits for it may look.
    pub fn settle(&self, path: &str) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(done) = waiting.paths.remove(path) {
            done.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::chunk::Digest;
    use super::*;

    fn demand(most: usize) -> Demand {
        let demand = Demand::new("/v/", most);
        let paths = ["/v/a", "/v/b", "/v/d/c"];
        demand.list(paths.into_iter().map(|path| Listed {
            path: path.to_owned(),
            size: 7,
            manifest: Digest([1; 32]),
        }));
        demand
    }

    #[tokio::test]
    async fn wish_is_told_once_and_settled_for_all_who_wait() {
        let demand = demand(2);
        let first = demand.ask("/v/a").expect("it is listed");
        let second = demand.ask("/v/a").expect("it is listed");
        let third = demand.ask("/v/b").expect("it is listed");
        assert_eq!(demand.next().await, "/v/a");
        assert_eq!(demand.next().await, "/v/b");
        demand.settle("/v/a");
        assert!(first.is_cancelled() && second.is_cancelled() && !third.is_cancelled());
        assert!(demand.waiting.lock().unwrap().fresh.is_empty());
    }

    #[tokio::test]
    async fn wish_beyond_the_bounds_is_refused_unknown_or_late() {
        let demand = demand(1);
        let patience = Duration::from_millis(1);
        assert_eq!(demand.wish("/v/x", patience).await, Wish::Unknown);
        assert_eq!(demand.wish("/v/a", patience).await, Wish::Late);
        assert_eq!(demand.wish("/v/b", patience).await, Wish::Refused);
        demand.settle("/v/a");
        let done = demand.ask("/v/b").expect("there is room again");
        demand.settle("/v/b");
        assert!(done.is_cancelled());
    }

    #[test]
    fn listed_are_those_at_or_beneath_a_path() {
        let demand = demand(1);
        let paths =
            |at: &str| -> Vec<String> { demand.listed(at).into_iter().map(|o| o.path).collect() };
        assert_eq!(paths("/v/a"), ["/v/a"]);
        assert_eq!(paths("/v/"), ["/v/a", "/v/b", "/v/d/c"]);
        assert_eq!(paths("/v/d/"), ["/v/d/c"]);
        assert_eq!(paths("/v/d"), Vec::<String>::new());
    }
}
