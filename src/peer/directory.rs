//! The nodes that are known beside those a mirror names, and by which way they were found.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::metrics::Metrics;
use crate::metrics::peers::{Limit, Way};
use crate::time::Now;

/// The known nodes, by base URL. Filled by the ways of discovery, read by every mirror.
#[derive(Debug)]
pub struct Directory {
    entries: Mutex<BTreeMap<String, Entry>>,
    most: usize,
    metrics: Arc<Metrics>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    way: Way,
    /// `None`: for ever.
    until: Option<Now>,
}

impl Directory {
    /// With room for `most` nodes.
    #[must_use]
    pub fn new(most: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            entries: Mutex::default(),
            most,
            metrics,
        }
    }

    /// A node was found at `base` (a URL as `client::check_base` gives it); forgotten after `life`, unless it is found
    /// again. The way it was found first is the one that counts. When there is no room it is left out.
    pub fn found(&self, base: String, way: Way, life: Option<Duration>, now: Now) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| entry.until.is_none_or(|until| until > now));
        let until = life.map(|life| now.plus(life));
        if let Some(entry) = entries.get_mut(&base) {
            entry.until = entry.until.and(until).max(entry.until);
        } else if entries.len() < self.most {
            tracing::info!(node = base, way = way.label(), "node found");
            entries.insert(base, Entry { way, until });
        } else {
            self.metrics.peers.limit(Limit::Known);
        }
        self.show(&entries);
    }

    /// The node at `base`, found this way, says that it is going.
    pub fn left(&self, base: &str, way: Way) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.get(base).is_some_and(|entry| entry.way == way) {
            tracing::info!(node = base, way = way.label(), "node left");
            entries.remove(base);
        }
        self.show(&entries);
    }

    /// Forgets what was not found again for its life.
    pub fn sweep(&self, now: Now) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| entry.until.is_none_or(|until| until > now));
        self.show(&entries);
    }

    fn show(&self, entries: &BTreeMap<String, Entry>) {
        for way in Way::ALL {
            let known = entries.values().filter(|entry| entry.way == way).count();
            self.metrics.peers.known(way, known);
        }
    }

    /// The nodes known now.
    #[must_use]
    pub fn known(&self, now: Now) -> Vec<String> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let alive = |entry: &Entry| entry.until.is_none_or(|until| until > now);
        let known = entries.iter().filter(|(_, entry)| alive(entry));
        known.map(|(base, _)| base.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Now = Now {
        mono_ns: 0,
        unix_ms: 0,
    };

    const LIFE: Option<Duration> = Some(Duration::from_secs(60));

    #[test]
    fn node_is_known_until_it_was_not_found_for_its_life() {
        let metrics = Arc::new(Metrics::new());
        let directory = Directory::new(9, metrics.clone());
        let at = |secs| START.plus(Duration::from_secs(secs));
        directory.found("a".into(), Way::Static, None, START);
        directory.found("b".into(), Way::Tracker, LIFE, START);
        directory.found("b".into(), Way::Tracker, LIFE, at(30));
        directory.found("a".into(), Way::Tracker, LIFE, START);
        assert_eq!(directory.known(at(89)), ["a", "b"]);
        assert_eq!(directory.known(at(90)), ["a"]);
        let text = metrics.text();
        assert!(
            text.contains("headwater_peers_known{way=\"tracker\"} 1"),
            "{text}"
        );
    }

    #[test]
    fn node_that_leaves_is_forgotten_unless_it_is_known_otherwise() {
        let metrics = Arc::new(Metrics::new());
        let directory = Directory::new(9, metrics.clone());
        directory.found("a".into(), Way::Static, None, START);
        directory.found("b".into(), Way::Lan, LIFE, START);
        directory.found("c".into(), Way::Dht, LIFE, START);
        for base in ["a", "b"] {
            directory.left(base, Way::Lan);
        }
        assert_eq!(directory.known(START), ["a", "c"]);
        directory.sweep(START.plus(Duration::from_secs(60)));
        let text = metrics.text();
        assert!(
            text.contains("headwater_peers_known{way=\"dht\"} 0"),
            "{text}"
        );
    }

    #[test]
    fn node_beyond_the_bound_is_left_out_and_counted() {
        let metrics = Arc::new(Metrics::new());
        let directory = Directory::new(1, metrics.clone());
        directory.found("a".into(), Way::Tracker, LIFE, START);
        directory.found("b".into(), Way::Tracker, LIFE, START);
        assert_eq!(directory.known(START), ["a"]);
        let line = "headwater_peers_limit_reached_total{limit=\"known\"} 1";
        assert!(metrics.text().contains(line));
    }
}
