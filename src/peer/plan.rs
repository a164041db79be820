//! What a mirror ought to hold: the indexes of its nodes, in; wanted objects and those to remove, out. Pure.
//!
//! An object is wanted when the catalogue of an origin lists it; where two list different versions at one path, the
//! origin named first in the configuration wins. Nodes that hold the same version, whatever they are, are sources of it.
//! An object is removed when every origin has said all it publishes and none lists it, for a while: a node that is away,
//! fails or lies never takes anything from here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::message::Index;
use crate::content::catalogue::Catalogue;
use crate::content::chunk::Digest;
use crate::content::sign::PublicKey;
use crate::time::Now;

/// The plan of one mirrored prefix.
#[derive(Debug)]
pub struct Plan {
    nodes: Vec<Known>,
    origins: Vec<Option<Listing>>,
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

/// The last index of one node.
#[derive(Debug, Default)]
struct Known {
    /// The node's key, if its index was read.
    key: Option<PublicKey>,
    /// What it holds, and whether it publishes it.
    objects: HashMap<String, (Digest, bool)>,
}

/// The last catalogue of one origin: what it publishes (version and size), and whether that is all.
#[derive(Debug)]
struct Listing {
    objects: BTreeMap<String, (Digest, u64)>,
    complete: bool,
}

impl Plan {
    /// The plan over `nodes` nodes and `origins` origins. Rounds closer than `settle` count as one for removals.
    #[must_use]
    pub fn new(nodes: usize, origins: usize, settle: Duration) -> Self {
        Self {
            nodes: (0..nodes).map(|_| Known::default()).collect(),
            origins: (0..origins).map(|_| None).collect(),
            wanted: BTreeMap::new(),
            absent: HashMap::new(),
            settle,
        }
    }

    /// The node answered with a new index (checked by [`Index::parse`]).
    pub fn changed(&mut self, node: usize, index: Index) {
        if node >= self.nodes.len() {
            self.nodes.resize_with(node + 1, Known::default);
        }
        let objects = index.objects.into_iter();
        self.nodes[node] = Known {
            key: Some(index.key),
            objects: objects
                .map(|entry| (entry.path, (entry.manifest, entry.published)))
                .collect(),
        };
        self.wanted = self.gather();
    }

    /// Of the nodes only the first ones are still asked for their indexes.
    pub fn keep(&mut self, first: usize) {
        if self.nodes.len() > first {
            self.nodes.truncate(first);
            self.wanted = self.gather();
        }
    }

    /// The node at this place is another now.
    pub fn forget(&mut self, node: usize) {
        if let Some(known) = self.nodes.get_mut(node) {
            *known = Known::default();
            self.wanted = self.gather();
        }
    }

    /// An origin has a newer catalogue (verified). `mine` says which paths are this mirror's.
    pub fn catalogue(&mut self, origin: usize, catalogue: &Catalogue, mine: impl Fn(&str) -> bool) {
        let objects = catalogue.objects.iter();
        let objects = objects.filter(|listed| mine(&listed.path));
        self.origins[origin] = Some(Listing {
            objects: objects
                .map(|listed| (listed.path.clone(), (listed.manifest, listed.size)))
                .collect(),
            complete: catalogue.complete,
        });
        self.wanted = self.gather();
    }

    /// Ends a round: which of the mirrored paths held here are to be removed now.
    pub fn end_round(&mut self, held: impl Iterator<Item = String>, now: Now) -> Vec<String> {
        let held: HashSet<String> = held.collect();
        let wanted = &self.wanted;
        self.absent
            .retain(|path, _| held.contains(path) && !wanted.contains_key(path));
        let all_said = |origin: &Option<Listing>| origin.as_ref().is_some_and(|l| l.complete);
        if !self.origins.iter().all(all_said) {
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

    /// Whether version `id` at `path` stays at a node that `answers` when this one, whose key is `own`, drops it.
    ///
    /// Two mirrors that both hold the last copies must not both rely on the other. So an origin counts, which does not
    /// evict, and of the mirrors that hold it only one that comes before this node in an order that all see alike: the
    /// first of those that hold it never drops it for another mirror's sake. The order is drawn for each version, so the
    /// last copies are spread over the mirrors.
    #[must_use]
    pub fn stays_elsewhere(
        &self,
        path: &str,
        id: Digest,
        own: PublicKey,
        answers: impl Fn(usize) -> bool,
    ) -> bool {
        let mine = rank(id, own);
        let stays = |known: &Known| match (holds(known, path, id), known.key) {
            (Holds::Published, _) => true,
            (Holds::Mirrored, Some(key)) => rank(id, key) < mine,
            _ => false,
        };
        (0..)
            .zip(&self.nodes)
            .any(|(place, known)| stays(known) && answers(place))
    }

    fn gather(&self) -> BTreeMap<String, Wanted> {
        let mut wanted: BTreeMap<String, Wanted> = BTreeMap::new();
        for listing in self.origins.iter().flatten() {
            for (path, &(id, size)) in &listing.objects {
                if !wanted.contains_key(path) {
                    let nodes = self.nodes.iter().map(|n| holds(n, path, id)).collect();
                    wanted.insert(path.clone(), Wanted { id, size, nodes });
                }
            }
        }
        wanted
    }
}

fn holds(node: &Known, path: &str, version: Digest) -> Holds {
    match node.objects.get(path) {
        Some(&(id, true)) if id == version => Holds::Published,
        Some(&(id, false)) if id == version => Holds::Mirrored,
        _ => Holds::Nothing,
    }
}

/// The place of a node among those that hold a version.
fn rank(id: Digest, key: PublicKey) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    hash.update(&id.0).update(&key.0);
    *hash.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::message::IndexEntry;
    use super::*;
    use crate::content::catalogue::Listed;

    /// A catalogue as (path, version), and whether it is complete; `None`: nothing newer came in this round.
    type Said = Option<(&'static [(&'static str, u8)], bool)>;

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
            key: PublicKey([0; 32]),
            catalogues: Vec::new(),
            objects: objects.collect(),
        }
    }

    fn catalogue(entries: &[(&str, u8)], complete: bool) -> Catalogue {
        let objects = entries.iter().map(|(path, id)| Listed {
            path: (*path).to_owned(),
            manifest: Digest([*id; 32]),
            size: 1,
        });
        Catalogue {
            version: 1,
            complete,
            prefix: "/".into(),
            objects: objects.collect(),
        }
    }

    /// Rounds of a plan with two origins, a second apart. Held is `/a`; `removed` says in which rounds it is to go.
    #[track_caller]
    fn check(rounds: &[[Said; 2]], removed: &[usize]) {
        let mut plan = Plan::new(2, 2, Duration::from_millis(500));
        let mut found = Vec::new();
        for (round, said) in rounds.iter().enumerate() {
            for (origin, said) in said.iter().enumerate() {
                if let Some((entries, complete)) = said {
                    plan.catalogue(origin, &catalogue(entries, *complete), |_| true);
                }
            }
            // What nodes hold is no reason to hold it here.
            plan.changed(1, index(&[("/a", 1, false)]));
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

    const WITH: Said = Some((&[("/a", 1)], true));
    const WITHOUT: Said = Some((&[], true));
    const UNREAD: Said = Some((&[], false));

    #[test]
    fn object_absent_twice_in_a_row_is_removed() {
        check(&[[WITH, WITHOUT], [WITHOUT, None], [None, None]], &[2]);
    }

    #[test]
    fn object_that_comes_back_is_kept() {
        check(&[[WITHOUT, WITHOUT], [WITH, None], [WITHOUT, None]], &[]);
    }

    #[test]
    fn object_is_kept_while_an_origin_was_never_heard() {
        check(&[[WITHOUT, None], [WITHOUT, None], [WITHOUT, None]], &[]);
        check(&[[None, None], [None, None]], &[]);
    }

    #[test]
    fn object_is_kept_while_an_origin_has_not_read_all_it_publishes() {
        check(&[[UNREAD, WITHOUT], [None, None], [None, None]], &[]);
        check(
            &[
                [UNREAD, WITHOUT],
                [WITHOUT, None],
                [None, None],
                [WITH, None],
            ],
            &[2],
        );
    }

    #[test]
    fn node_beyond_the_named_is_a_source_until_it_is_not_asked_any_more() {
        let mut plan = Plan::new(1, 1, Duration::ZERO);
        plan.catalogue(0, &catalogue(&[("/a", 1)], true), |_| true);
        let nodes = |plan: &Plan| plan.wanted()["/a"].nodes.clone();
        plan.changed(2, index(&[("/a", 1, false)]));
        let (nothing, mirrored) = (Holds::Nothing, Holds::Mirrored);
        assert_eq!(nodes(&plan), [nothing, nothing, mirrored]);
        plan.forget(2);
        assert_eq!(nodes(&plan), [nothing, nothing, nothing]);
        plan.changed(2, index(&[("/a", 1, false)]));
        plan.keep(1);
        assert_eq!(nodes(&plan), [nothing]);
    }

    #[test]
    fn rounds_close_together_count_once() {
        let mut plan = Plan::new(1, 1, Duration::from_secs(1));
        let mut round = |ms| {
            plan.catalogue(0, &catalogue(&[], true), |_| true);
            let now = START.plus(Duration::from_millis(ms));
            plan.end_round(["/a".to_owned()].into_iter(), now).len()
        };
        assert_eq!(
            [round(0), round(10), round(999), round(1_000)],
            [0, 0, 0, 1]
        );
    }

    #[test]
    fn version_of_the_first_origin_wins_and_whoever_holds_it_is_a_source() {
        let mut plan = Plan::new(3, 2, Duration::ZERO);
        plan.catalogue(1, &catalogue(&[("/a", 2), ("/b", 3)], true), |_| true);
        plan.catalogue(0, &catalogue(&[("/a", 1), ("/c", 9)], true), |p| p != "/c");
        plan.changed(0, index(&[("/a", 1, true)]));
        plan.changed(1, index(&[("/a", 2, true), ("/b", 3, true)]));
        plan.changed(2, index(&[("/a", 1, false), ("/d", 4, true)]));
        let a = &plan.wanted()["/a"];
        assert_eq!(a.id, Digest([1; 32]));
        assert_eq!(a.nodes, [Holds::Published, Holds::Nothing, Holds::Mirrored]);
        assert_eq!(plan.wanted()["/b"].id, Digest([3; 32]));
        assert!(!plan.wanted().contains_key("/c"), "it is another mirror's");
        assert!(!plan.wanted().contains_key("/d"), "no catalogue lists it");
    }

    /// What the node with key `own` knows when those of `others` hold version 1 of `/a`; `true`: they publish it.
    fn holders(others: &[(u8, bool)]) -> Plan {
        let mut plan = Plan::new(others.len(), 1, Duration::ZERO);
        for (place, &(key, published)) in others.iter().enumerate() {
            let said = Index {
                key: PublicKey([key; 32]),
                ..index(&[("/a", 1, published)])
            };
            plan.changed(place, said);
        }
        plan
    }

    fn stays(plan: &Plan, own: u8, version: u8, answers: impl Fn(usize) -> bool) -> bool {
        plan.stays_elsewhere("/a", Digest([version; 32]), PublicKey([own; 32]), answers)
    }

    #[test]
    fn object_of_an_origin_that_answers_stays_there() {
        let plan = holders(&[(9, true)]);
        assert!(stays(&plan, 1, 1, |_| true));
        assert!(!stays(&plan, 1, 1, |_| false), "it is away");
        assert!(!stays(&plan, 1, 2, |_| true), "it has another version");
    }

    #[test]
    fn one_of_two_mirrors_with_the_last_copies_keeps_it() {
        let drops = |own, other| stays(&holders(&[(other, false)]), own, 1, |_| true);
        assert_ne!(drops(1, 2), drops(2, 1));
    }

    #[test]
    fn node_that_was_forgotten_holds_nothing() {
        let mut plan = holders(&[(9, true)]);
        plan.forget(0);
        assert!(!stays(&plan, 1, 1, |_| true));
    }

    proptest! {
        #[test]
        fn last_copy_is_dropped_by_nobody(keys in proptest::collection::hash_set(any::<u8>(), 1..8), version: u8) {
            let keys: Vec<u8> = keys.into_iter().collect();
            // All mirrors hold it, know of each other and decide at once.
            let kept = keys.iter().filter(|own| {
                let others: Vec<_> = keys.iter().filter(|key| key != own).map(|key| (*key, false)).collect();
                let mut plan = holders(&others);
                for (place, (key, _)) in others.iter().enumerate() {
                    let said = Index { key: PublicKey([*key; 32]), ..index(&[("/a", version, false)]) };
                    plan.changed(place, said);
                }
                !stays(&plan, **own, version, |_| true)
            });
            prop_assert_eq!(kept.count(), 1);
        }
    }
}
