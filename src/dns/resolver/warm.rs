//! What is fetched before it is asked for: answers in use that are about to expire, and names that are to be there always.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::budget::Budget;
use super::key::Key;
use super::{Inner, fetch, names};
use crate::metrics::resolver::{CacheRequest, Metrics};
use crate::time::Now;

/// A name whose answers are kept fresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmName {
    /// Lower case, final dot.
    pub name: String,
    /// Which types.
    pub types: Vec<u16>,
}

/// Refreshes what the threads that answer want refreshed, as long as there is a resolver.
pub(super) async fn refresh(inner: Weak<Inner>) {
    let Some(wanted) = inner
        .upgrade()
        .map(|inner| Arc::clone(inner.cache.wanted()))
    else {
        return;
    };
    let Some(seats) = seats(&inner) else { return };
    loop {
        // Looked for now and then, for the task to end with the resolver.
        let next = tokio::time::timeout(LOOK, wanted.next()).await;
        let Some(inner) = inner.upgrade() else { return };
        for key in next.unwrap_or_default() {
            let prefetches = &inner.metrics.resolver.prefetches;
            let Ok(seat) = Arc::clone(&seats).try_acquire_owned() else {
                prefetches.dropped.inc();
                inner.metrics.resolver.limits.refreshes.inc();
                continue;
            };
            let inner = Arc::clone(&inner);
            tokio::spawn(async move {
                let prefetches = &inner.metrics.resolver.prefetches;
                match fetch::again(&inner, &key, &budget(&inner)).await {
                    Ok(_) => prefetches.done.inc(),
                    Err(_) => prefetches.failed.inc(),
                }
                drop(seat);
            });
        }
    }
}

/// Keeps the configured names warm, as long as there is a resolver.
pub(super) async fn keep(inner: Weak<Inner>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let Some(keys) = inner.upgrade().map(|inner| keys(&inner)) else {
        return;
    };
    if keys.is_empty() {
        return;
    }
    let Some(seats) = seats(&inner) else { return };
    loop {
        tick.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        let now = Now::read();
        for key in &keys {
            let held = inner.cache.held(key);
            if held.is_some_and(|entry| !entry.is_to_be_warmed(now)) {
                continue;
            }
            // What does not get a seat gets one in a second.
            let Ok(seat) = Arc::clone(&seats).try_acquire_owned() else {
                inner.metrics.resolver.limits.refreshes.inc();
                break;
            };
            let (inner, key) = (Arc::clone(&inner), *key);
            tokio::spawn(async move {
                drop(fetch::again(&inner, &key, &budget(&inner)).await);
                drop(seat);
            });
        }
    }
}

/// Who refreshes holds one of them.
fn seats(inner: &Weak<Inner>) -> Option<Arc<Semaphore>> {
    let refreshes = inner.upgrade()?.config.cache.refreshes;
    Some(Arc::new(Semaphore::new(
        refreshes.min(Semaphore::MAX_PERMITS),
    )))
}

fn keys(inner: &Inner) -> Vec<Key> {
    let mut keys = Vec::new();
    for warm in &inner.config.cache.keep_warm {
        if let Some(name) = names::wire(&warm.name) {
            let partition = inner.partitions.find(&name);
            keys.extend(
                warm.types
                    .iter()
                    .map(|&qtype| Key::new(&name, qtype, false, false, partition)),
            );
        }
    }
    keys
}

fn budget(inner: &Inner) -> Budget {
    Budget::new(inner.config.packets, Now::read().plus(inner.config.time))
}

/// How warm the cache is at the start: the share of the first queries that it answers.
#[derive(Debug, Default)]
pub(super) struct Warmth {
    /// Looks since the first query.
    looks: u32,
}

impl Warmth {
    /// To be called once a second. Two seconds after the first query came, what is known then stays.
    pub(super) fn note(&mut self, metrics: &Metrics) {
        if self.looks > 2 {
            return;
        }
        let count = |request| metrics.cache.get(request);
        let answered = count(CacheRequest::Hit) + count(CacheRequest::Negative);
        let all = answered + count(CacheRequest::Stale) + count(CacheRequest::Miss);
        if all > 0 {
            self.looks += 1;
            metrics.warm_ratio.set(answered as f64 / all as f64);
        }
    }
}

const LOOK: Duration = Duration::from_secs(1);
