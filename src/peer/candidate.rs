//! Addresses at which a node may be: found, and to be asked whether there is one that proves itself.
//!
//! Anybody can name addresses in a DHT, and on a network without a secret. So nothing follows from having found one but
//! one small request, repeated more and more rarely while it fails; what proved itself is asked again every minute as
//! long as it is found. A node found at several addresses is known by the first that answered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::metrics::peers::{Proof, Way};
use crate::time::Now;

/// The addresses that were found.
#[derive(Debug)]
pub struct Candidates {
    own: u64,
    entries: BTreeMap<SocketAddr, Candidate>,
    most: usize,
}

#[derive(Debug)]
struct Candidate {
    way: Way,
    /// Found so lately that it counts until then.
    until: Now,
    /// When it is asked next.
    due: Now,
    asking: bool,
    /// Answers in a row that proved nothing.
    failures: u32,
    /// The run of the node that proved itself here, while it does.
    node: Option<u64>,
}

/// What came of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The node with this run is there.
    Node(u64),
    /// Somebody who does not prove to be of the swarm, or nothing like a node.
    Stranger,
    /// Nobody.
    Nobody,
}

impl Candidates {
    /// None yet. `own` is this node's run; there is room for `most`.
    #[must_use]
    pub fn new(own: u64, most: usize) -> Self {
        Self {
            own,
            entries: BTreeMap::new(),
            most,
        }
    }

    /// An address was found; it counts for `life`. False: there is no room, for all others count and none has failed.
    pub fn found(&mut self, address: SocketAddr, way: Way, life: Duration, now: Now) -> bool {
        let until = now.plus(life);
        if let Some(known) = self.entries.get_mut(&address) {
            known.until = known.until.max(until);
            return true;
        }
        if self.entries.len() >= self.most && !self.make_room(now) {
            return false;
        }
        self.entries.insert(
            address,
            Candidate {
                way,
                until,
                due: now,
                asking: false,
                failures: 0,
                node: None,
            },
        );
        true
    }

    /// The next address to ask, which is being asked from now on.
    pub fn next(&mut self, now: Now) -> Option<SocketAddr> {
        self.entries.retain(|_, c| c.asking || c.until > now);
        let asking = self.entries.values().filter(|c| c.asking).count();
        let due = |(_, c): &(&SocketAddr, &mut Candidate)| !c.asking && c.due <= now;
        let mut waiting = self.entries.iter_mut().filter(due);
        let (address, candidate) = waiting.next().filter(|_| asking < AT_ONCE)?;
        candidate.asking = true;
        Some(*address)
    }

    /// What came of asking; gives the way the address was found when a node is to be known by it.
    pub fn asked(&mut self, address: SocketAddr, answer: Answer, now: Now) -> (Proof, Option<Way>) {
        let elsewhere = |node| {
            let others = self.entries.iter().filter(|(at, _)| **at != address);
            others
                .map(|(_, candidate)| candidate)
                .any(|c| c.node == Some(node) && c.until > now)
        };
        let known = matches!(answer, Answer::Node(node) if elsewhere(node));
        let Some(candidate) = self.entries.get_mut(&address) else {
            return (Proof::Away, None);
        };
        candidate.asking = false;
        candidate.node = None;
        let (proof, pause) = match answer {
            Answer::Node(node) if node == self.own => (Proof::Own, SELDOM),
            Answer::Node(_) if known => (Proof::Again, SELDOM),
            Answer::Node(node) => {
                candidate.node = Some(node);
                (Proof::Member, AGAIN)
            }
            Answer::Stranger | Answer::Nobody => {
                candidate.failures = candidate.failures.saturating_add(1);
                let pause = FIRST * 2u32.pow(candidate.failures.min(10));
                let proof = match answer {
                    Answer::Stranger => Proof::Stranger,
                    _ => Proof::Away,
                };
                (proof, pause.min(SELDOM))
            }
        };
        if matches!(answer, Answer::Node(_)) {
            candidate.failures = 0;
        }
        candidate.due = now.plus(pause);
        let way = (proof == Proof::Member).then_some(candidate.way);
        (proof, way)
    }

    /// A node said that it is no longer at this address. Whether it was known by it, and found that way.
    pub fn left(&mut self, address: SocketAddr, way: Way) -> bool {
        let gone = self.entries.get(&address).is_some_and(|c| c.way == way);
        gone && self
            .entries
            .remove(&address)
            .is_some_and(|candidate| candidate.node.is_some())
    }

    /// How long there is nothing to ask, unless an answer comes.
    #[must_use]
    pub fn idle(&self, now: Now) -> Duration {
        if self.entries.values().filter(|c| c.asking).count() >= AT_ONCE {
            return SELDOM; // The next answer comes first.
        }
        let waiting = self.entries.values().filter(|c| !c.asking);
        let due = waiting.map(|c| c.due.since(now)).min();
        due.unwrap_or(SELDOM)
    }

    /// Addresses there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets what was found too long ago, else the one that failed most.
    fn make_room(&mut self, now: Now) -> bool {
        self.entries.retain(|_, c| c.asking || c.until > now);
        if self.entries.len() < self.most {
            return true;
        }
        let idle = self.entries.iter().filter(|(_, c)| !c.asking);
        let worst = idle.max_by_key(|(_, c)| c.failures);
        let worst = worst.filter(|(_, c)| c.failures > 0).map(|(at, _)| *at);
        worst.is_some_and(|address| self.entries.remove(&address).is_some())
    }
}

/// For so long a node is known that proved itself: it is asked twice meanwhile.
pub const LIFE: Duration = Duration::from_secs(150);

/// Addresses asked at once.
const AT_ONCE: usize = 8;

/// Pause after a proof.
const AGAIN: Duration = Duration::from_secs(60);

/// Half of the pause after the first failure; each doubles it.
const FIRST: Duration = Duration::from_secs(1);

/// Longest pause; and that before this node itself, or a second address of a node, is looked at again.
const SELDOM: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    const START: Now = Now {
        mono_ns: 0,
        unix_ms: 0,
    };

    const HOUR: Duration = Duration::from_secs(3_600);

    fn at(secs: u64) -> Now {
        START.plus(Duration::from_secs(secs))
    }

    fn place(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn with(ports: impl IntoIterator<Item = u16>, most: usize) -> Candidates {
        let mut candidates = Candidates::new(1, most);
        for port in ports {
            assert!(candidates.found(place(port), Way::Dht, HOUR, START));
        }
        candidates
    }

    #[test]
    fn node_that_proves_itself_is_known_and_asked_again_while_it_is_found() {
        let mut candidates = with([80], 9);
        assert_eq!(candidates.next(START), Some(place(80)));
        assert_eq!(candidates.next(START), None, "it is being asked");
        let known = candidates.asked(place(80), Answer::Node(7), START);
        assert_eq!(known, (Proof::Member, Some(Way::Dht)));
        assert_eq!(candidates.idle(START), AGAIN);
        assert_eq!(candidates.next(at(59)), None);
        assert_eq!(candidates.next(at(60)), Some(place(80)));
        candidates.asked(place(80), Answer::Node(7), at(60));
        assert!(candidates.found(place(80), Way::Dht, HOUR, at(1_000)));
        assert_eq!(candidates.next(at(4_599)), Some(place(80)));
        candidates.asked(place(80), Answer::Nobody, at(4_599));
        assert_eq!(candidates.next(at(4_600)), None);
        assert!(candidates.is_empty(), "it was not found for an hour");
    }

    #[test]
    fn address_that_fails_is_asked_ever_more_rarely() {
        let mut candidates = with([80], 9);
        let mut asked = Vec::new();
        for second in 0..1_500 {
            while let Some(address) = candidates.next(at(second)) {
                asked.push(second);
                let (proof, known) = candidates.asked(address, Answer::Stranger, at(second));
                assert_eq!((proof, known), (Proof::Stranger, None));
            }
        }
        assert_eq!(
            asked,
            [0, 2, 6, 14, 30, 62, 126, 254, 510, 810, 1_110, 1_410]
        );
    }

    #[test]
    fn this_node_and_second_addresses_of_a_node_are_left_out() {
        let mut candidates = with([80, 81, 82], 9);
        while candidates.next(START).is_some() {}
        let own = candidates.asked(place(80), Answer::Node(1), START);
        assert_eq!(own, (Proof::Own, None));
        let first = candidates.asked(place(81), Answer::Node(7), START);
        assert_eq!(first, (Proof::Member, Some(Way::Dht)));
        let second = candidates.asked(place(82), Answer::Node(7), START);
        assert_eq!(second, (Proof::Again, None));
        // When the first is gone, the second takes its place.
        assert_eq!(candidates.next(at(60)), Some(place(81)));
        candidates.asked(place(81), Answer::Nobody, at(60));
        candidates.found(place(82), Way::Dht, HOUR, at(300));
        let next: Vec<_> = std::iter::from_fn(|| candidates.next(at(300))).collect();
        assert!(next.contains(&place(82)));
        let second = candidates.asked(place(82), Answer::Node(7), at(300));
        assert_eq!(second, (Proof::Member, Some(Way::Dht)));
    }

    #[test]
    fn table_that_is_full_forgets_who_failed_and_keeps_the_others() {
        let mut candidates = with(1..=4, 4);
        assert!(!candidates.found(place(5), Way::Lan, HOUR, START));
        assert!(candidates.next(START).is_some());
        candidates.asked(place(1), Answer::Nobody, START);
        assert!(candidates.found(place(5), Way::Lan, HOUR, START));
        assert!(!candidates.found(place(6), Way::Lan, HOUR, START));
        assert_eq!(candidates.len(), 4);
    }

    #[test]
    fn few_are_asked_at_once() {
        let mut candidates = with(1..=20, 40);
        let asked = std::iter::from_fn(|| candidates.next(START)).count();
        assert_eq!(asked, AT_ONCE);
        candidates.asked(place(1), Answer::Nobody, START);
        assert_eq!(candidates.next(START), Some(place(9)));
    }

    #[test]
    fn goodbye_counts_for_what_was_found_the_same_way() {
        let mut candidates = with([80], 9);
        candidates.next(START);
        candidates.asked(place(80), Answer::Node(7), START);
        assert!(!candidates.left(place(80), Way::Lan));
        assert!(candidates.left(place(80), Way::Dht));
        assert!(!candidates.left(place(80), Way::Dht));
    }
}
