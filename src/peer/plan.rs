//! What a mirror ought to hold: the indexes of its nodes, in; wanted objects and those to remove, out. Pure.
//!
//! An object is wanted when one of the nodes publishes it itself; where two publish different versions at one path,
//! the one named first in the configuration wins. Nodes that only mirror the same version are further sources of it.
//! An object is removed after two whole rounds of indexes in a row without it: a node that is away, fails or lies
//! never takes anything from here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::message::Index;
use crate::content::chunk::Digest;
use crate::time::Now;

/// The plan of one mirrored prefix.
#[derive(Debug)]
pub struct Plan {
    nodes: Vec<Known>,
    wanted: BTreeMap<String, Wanted>,
    absent: HashMap<String, Now>,
    settle: Duration,
}

/// An object that ought to be held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its version.
    pub id: Digest,
    /// Its size, bytes.
    pub size: u64,
    /// For each node: what it is to this version.
    pub nodes: Vec<Holds>,
}

/// What a node is to a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// It publishes it.
    Published,
    /// It mirrors it and holds the whole.
    Mirrored,
    /// It does not have it.
    Nothing,
}

/// The last index of one node, whether it lists all, and whether the node answered in this round.
#[derive(Debug, Default)]
struct Known {
    objects: HashMap<String, (Digest, u64, bool)>,
    scanned: bool,
    answered: bool,
}

impl Plan {
    /// The plan over `nodes` nodes. Rounds closer than `settle` count as one for removals.
    #[must_use]
    pub fn new(nodes: usize, settle: Duration) -> Self {
        Self {
            nodes: (0..nodes).map(|_| Known::default()).collect(),
            wanted: BTreeMap::new(),
            absent: HashMap::new(),
            settle,
        }
    }

    /// Begins a round: no node has answered yet.
    pub fn begin_round(&mut self) {
        for node in &mut self.nodes {
            node.answered = false;
        }
    }

    /// The node answered that its index is as before.
    pub fn unchanged(&mut self, node: usize) {
        self.nodes[node].answered = true;
    }

    /// The node answered with a new index (checked by [`Index::parse`]). `mine` says which paths are this mirror's.
    pub fn changed(&mut self, node: usize, index: Index, mine: impl Fn(&str) -> bool) {
        let scanned = index.scanned;
        let objects = index.objects.into_iter().filter(|entry| mine(&entry.path));
        self.nodes[node] = Known {
            objects: objects
                .map(|entry| (entry.path, (entry.manifest, entry.size, entry.published)))
                .collect(),
            scanned,
            answered: true,
        };
        self.wanted = self.gather();
    }

    /// Ends a round: which of the mirrored paths held here are to be removed now.
    pub fn end_round(&mut self, held: impl Iterator<Item = String>, now: Now) -> Vec<String> {
        let held: HashSet<String> = held.collect();
        let wanted = &self.wanted;
        self.absent
            .retain(|path, _| held.contains(path) && !wanted.contains_key(path));
        if !self.nodes.iter().all(|node| node.answered && node.scanned) {
            return Vec::new();
        }
        let mut gone = Vec::new();
        for path in held {
            if self.wanted.contains_key(&path) {
                continue;
            }
            match self.absent.get(&path) {
                Some(first) if now.since(*first) >= self.settle => gone.push(path),
                Some(_) => {}
                None => {
                    self.absent.insert(path, now);
                }
            }
        }
        gone.sort();
        gone
    }

    /// The objects that ought to be held, by path.
    #[must_use]
    pub fn wanted(&self) -> &BTreeMap<String, Wanted> {
        &self.wanted
    }

    fn gather(&self) -> BTreeMap<String, Wanted> {
        let mut wanted: BTreeMap<String, Wanted> = BTreeMap::new();
        for node in &self.nodes {
            for (path, &(id, size, published)) in &node.objects {
                if published && !wanted.contains_key(path) {
                    let nodes = self.nodes.iter().map(|n| n.holds(path, id)).collect();
                    wanted.insert(path.clone(), Wanted { id, size, nodes });
                }
            }
        }
        wanted
    }
}

impl Known {
    fn holds(&self, path: &str, version: Digest) -> Holds {
        match self.objects.get(path) {
            Some(&(id, _, published)) if id == version => {
                if published {
                    Holds::Published
                } else {
                    Holds::Mirrored
                }
            }
            _ => Holds::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::IndexEntry;
    use super::*;

    /// A node's index as (path, version, published); `None`: it failed.
    type Answer = Option<&'static [(&'static str, u8, bool)]>;

    const START: Now = Now {
        mono_ns: 0,
        unix_ms: 0,
    };

    fn index(entries: &[(&str, u8, bool)]) -> Index {
        let objects = entries.iter().map(|(path, id, published)| IndexEntry {
            path: (*path).to_owned(),
            manifest: Digest([*id; 32]),
            size: 1,
            published: *published,
        });
        Index {
            scanned: true,
            objects: objects.collect(),
        }
    }

    /// Rounds of a two-node plan, a second apart: each node's answer (`None`: it failed). Held is `/a`; `removed`
    /// says in which rounds it is to go.
    #[track_caller]
    fn check(rounds: &[[Answer; 2]], removed: &[usize]) {
        let mut plan = Plan::new(2, Duration::from_millis(500));
        let mut found = Vec::new();
        for (round, answers) in rounds.iter().enumerate() {
            plan.begin_round();
            for (node, answer) in answers.iter().enumerate() {
                if let Some(entries) = answer {
                    plan.changed(node, index(entries), |_| true);
                }
            }
            let now = START.plus(Duration::from_secs(round as u64));
            if !plan
                .end_round(["/a".to_owned()].into_iter(), now)
                .is_empty()
            {
                found.push(round);
            }
        }
        assert_eq!(found, removed);
    }

    const WITH: Answer = Some(&[("/a", 1, true)]);
    const MIRRORED: Answer = Some(&[("/a", 1, false)]);
    const WITHOUT: Answer = Some(&[]);

    #[test]
    fn object_absent_twice_in_a_row_is_removed() {
        check(
            &[[WITH, WITHOUT], [WITHOUT, WITHOUT], [WITHOUT, WITHOUT]],
            &[2],
        );
    }

    #[test]
    fn object_that_comes_back_is_kept() {
        check(
            &[[WITHOUT, WITHOUT], [WITH, WITHOUT], [WITHOUT, WITHOUT]],
            &[],
        );
    }

    #[test]
    fn object_is_kept_while_a_node_is_away() {
        check(&[[WITHOUT, None], [WITHOUT, None], [WITHOUT, None]], &[]);
        check(&[[None, None], [None, None]], &[]);
    }

    #[test]
    fn object_that_others_only_mirror_is_removed() {
        check(&[[WITHOUT, MIRRORED], [WITHOUT, MIRRORED]], &[1]);
    }

    #[test]
    fn object_is_kept_while_a_node_has_not_read_all_it_publishes() {
        let mut plan = Plan::new(1, Duration::ZERO);
        for _ in 0..3 {
            let unread = Index {
                scanned: false,
                objects: Vec::new(),
            };
            plan.begin_round();
            plan.changed(0, unread, |_| true);
            assert!(
                plan.end_round(["/a".to_owned()].into_iter(), START)
                    .is_empty()
            );
        }
    }

    #[test]
    fn rounds_close_together_count_once() {
        let mut plan = Plan::new(1, Duration::from_secs(1));
        let mut round = |ms| {
            plan.begin_round();
            plan.changed(0, index(&[]), |_| true);
            let now = START.plus(Duration::from_millis(ms));
            plan.end_round(["/a".to_owned()].into_iter(), now).len()
        };
        assert_eq!(
            [round(0), round(10), round(999), round(1_000)],
            [0, 0, 0, 1]
        );
    }

    #[test]
    fn version_of_the_first_node_wins_and_mirrors_of_it_are_sources() {
        let mut plan = Plan::new(3, Duration::ZERO);
        plan.changed(1, index(&[("/a", 2, true), ("/b", 3, true)]), |_| true);
        plan.changed(0, index(&[("/a", 1, true)]), |_| true);
        plan.changed(2, index(&[("/a", 1, false), ("/c", 4, false)]), |p| {
            p != "/b"
        });
        let a = &plan.wanted()["/a"];
        assert_eq!(a.id, Digest([1; 32]));
        assert_eq!(a.nodes, [Holds::Published, Holds::Nothing, Holds::Mirrored]);
        assert!(plan.wanted().contains_key("/b"));
        assert!(!plan.wanted().contains_key("/c"));
    }
}
