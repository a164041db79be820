//! All own zones in one snapshot, found by the closest enclosing apex.
//!
//! A snapshot is made from the one before it ([`Zones::with`]): the zones stand in chunks that both share, so that a
//! change of one zone among many thousands copies one chunk and the list of chunks. The table is copied only when
//! an apex comes or goes.

use std::sync::Arc;

use super::path::{Path, is_same};
use super::table::Table;
use super::tree::Zone;
use crate::dns::wire::Reason;

/// All own zones: one immutable snapshot, swapped whole.
#[derive(Clone, Debug, Default)]
pub struct Zones {
    chunks: Vec<Arc<[Slot; CHUNK]>>,
    /// Slots by the hash of their apex.
    table: Arc<Table>,
    /// Slots ever used: those from here on are free.
    used: usize,
    /// Slots whose zone cannot be answered from.
    unavailable: usize,
    /// Fewest and most labels of an apex: no other suffix of a name is looked up.
    labels_min: usize,
    labels_max: usize,
    /// A zone is large, or was ([`Zone::is_large`]).
    large: bool,
}

/// What stands at one apex.
#[derive(Clone, Debug, Default)]
enum Slot {
    #[default]
    Free,
    /// The apex, wire form, lower case, and why it cannot be answered from.
    Unavailable(Arc<[u8]>, Reason),
    Zone(Arc<Zone>),
}

/// One step from a snapshot to the next.
#[derive(Clone, Debug)]
pub enum Change {
    /// The zone is answered from; it replaces one of the same apex.
    Serve(Arc<Zone>),
    /// The names beneath this apex (wire form, lower case) are own names that cannot be answered: SERVFAIL, not
    /// whatever an upstream says of them, and why.
    Unavailable(Arc<[u8]>, Reason),
    /// The apex (wire form, lower case) is no own zone any more.
    Remove(Arc<[u8]>),
}

/// Where a name is in own zones.
#[derive(Clone, Copy, Debug)]
pub(in crate::dns) struct Place<'a> {
    /// The zone.
    pub(in crate::dns) zone: &'a Zone,
    /// The label of the name where the apex starts: also the number of labels below it.
    pub(in crate::dns) apex: usize,
    /// The hash of the apex.
    pub(in crate::dns) hash: u64,
}

impl Zones {
    /// The snapshot of these zones (at most one per apex; the last wins).
    #[must_use]
    pub fn new(zones: Vec<Arc<Zone>>) -> Self {
        Self::default().with(zones.into_iter().map(Change::Serve))
    }

    /// The snapshot after `changes`, in their order. Costs what changes, not what is there; but an apex that comes
    /// or goes costs a copy of the table (11 bytes an apex), once for all changes.
    #[must_use]
    pub fn with(&self, changes: impl IntoIterator<Item = Change>) -> Self {
        let mut next = self.clone();
        let mut gone = false;
        for change in changes {
            let slot = match change {
                Change::Serve(zone) => Slot::Zone(zone),
                Change::Unavailable(apex, why) => Slot::Unavailable(apex, why),
                Change::Remove(apex) => {
                    if let Some(at) = next.at(&apex) {
                        // Found no more, but still in the table.
                        next.put(at, Slot::Free);
                        gone = true;
                    }
                    continue;
                }
            };
            let apex = slot.apex().unwrap_or_default();
            let at = next.at(apex).unwrap_or_else(|| next.place(apex));
            next.put(at, slot);
        }
        if gone {
            next.compact();
        }
        next
    }

    /// The zones, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Zone>> {
        let mut zones: Vec<_> = self
            .slots()
            .filter_map(|slot| match slot {
                Slot::Zone(zone) => Some(zone),
                _ => None,
            })
            .collect();
        zones.sort_by(|one, other| one.name().cmp(other.name()));
        zones.into_iter()
    }

    /// The own zone with the longest apex that `name` (wire form) is in or equal to.
    #[must_use]
    pub fn closest(&self, name: &[u8]) -> Option<&Zone> {
        self.find(&Path::new(name), 0).map(|place| place.zone)
    }

    /// The zone at this apex (wire form, lower case).
    #[must_use]
    pub fn get(&self, apex: &[u8]) -> Option<&Arc<Zone>> {
        match self.slot(self.at(apex)?) {
            Slot::Zone(zone) => Some(zone),
            _ => None,
        }
    }

    /// Why the closest own zone of `name` (wire form) cannot be answered from, if so it is.
    #[must_use]
    pub fn unavailable(&self, name: &[u8]) -> Option<Reason> {
        if self.unavailable == 0 {
            return None;
        }
        let mut closest = None;
        self.walk(&Path::new(name), 0, |slot, _, _| {
            closest = match slot {
                Slot::Unavailable(_, why) => Some(*why),
                _ => None,
            };
        });
        closest
    }

    /// Whether looks in some zone mostly have to wait for memory.
    #[inline]
    pub(in crate::dns) fn is_large(&self) -> bool {
        self.large
    }

    /// The own zone with the longest apex that the name of `path` is in, its first `skip` labels left out.
    pub(in crate::dns) fn find(&self, path: &Path, skip: usize) -> Option<Place<'_>> {
        let mut found = None;
        self.walk(path, skip, |slot, apex, hash| {
            if let Slot::Zone(zone) = slot {
                found = Some(Place { zone, apex, hash });
            }
        });
        found
    }

    /// Gives `visit` what stands at each apex that the name of `path` is in, shortest first, with the label where the
    /// apex starts and its hash.
    fn walk<'s>(&'s self, path: &Path, skip: usize, mut visit: impl FnMut(&'s Slot, usize, u64)) {
        let labels = path.labels();
        let Some(most) = labels.checked_sub(skip) else {
            return;
        };
        if most < self.labels_min {
            return;
        }
        let mut hash = path.suffix_hash(labels - self.labels_min);
        for depth in self.labels_min..=self.labels_max.min(most) {
            let apex = labels - depth;
            if depth > self.labels_min {
                hash = path.hash_at(apex, hash);
            }
            let name = path.suffix(apex);
            let is = |at| self.slot(at).apex().is_some_and(|apex| is_same(apex, name));
            if let Some(at) = self.table.get(hash, is) {
                visit(self.slot(at), apex, hash);
            }
        }
    }

    /// The slot of an apex.
    fn at(&self, apex: &[u8]) -> Option<u32> {
        let is = |at| self.slot(at).apex() == Some(apex);
        self.table.get(Path::new(apex).hash(), is)
    }

    fn slot(&self, at: u32) -> &Slot {
        &self.chunks[at as usize / CHUNK][at as usize % CHUNK]
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// A new slot for an apex, in the table.
    fn place(&mut self, apex: &[u8]) -> u32 {
        let path = Path::new(apex);
        let at = self.used as u32; // Memory ends before 2^32 zones do.
        if self.used.is_multiple_of(CHUNK) {
            self.chunks.push(Arc::new([const { Slot::Free }; CHUNK]));
        }
        let labels = path.labels();
        self.labels_min = if self.used == 0 {
            labels
        } else {
            self.labels_min.min(labels)
        };
        self.labels_max = self.labels_max.max(labels);
        self.used += 1;
        let chunks = &self.chunks;
        let rehash = |other: u32| {
            let slot = &chunks[other as usize / CHUNK][other as usize % CHUNK];
            slot.apex().map_or(0, |apex| Path::new(apex).hash())
        };
        Arc::make_mut(&mut self.table).insert(path.hash(), at, rehash);
        at
    }

    fn put(&mut self, at: u32, slot: Slot) {
        self.large |= matches!(&slot, Slot::Zone(zone) if zone.is_large());
        let chunk = Arc::make_mut(&mut self.chunks[at as usize / CHUNK]);
        let old = std::mem::replace(&mut chunk[at as usize % CHUNK], slot);
        let unavailable = |slot: &Slot| usize::from(matches!(slot, Slot::Unavailable(..)));
        self.unavailable += unavailable(&chunk[at as usize % CHUNK]);
        self.unavailable -= unavailable(&old);
    }

    /// Places everything anew, without gaps.
    fn compact(&mut self) {
        let old = std::mem::take(self);
        for slot in old.slots() {
            if let Some(apex) = slot.apex() {
                let at = self.place(apex);
                self.put(at, slot.clone());
            }
        }
    }
}

impl Slot {
    fn apex(&self) -> Option<&[u8]> {
        match self {
            Self::Free => None,
            Self::Unavailable(apex, _) => Some(apex),
            Self::Zone(zone) => Some(zone.apex()),
        }
    }
}

/// Zones of one chunk: about as many chunks as zones in a chunk, for some thousands of zones.
const CHUNK: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::ZoneConfig;
    use crate::dns::wire::Ede;
    use proptest::prelude::*;

    const WHY: Reason = Reason::new(Ede::NotReady, "");

    fn zone(name: &str, serial: u32) -> Arc<Zone> {
        let config = ZoneConfig {
            name: name.to_owned(),
            ..ZoneConfig::default()
        };
        let text = format!("@ 60 SOA ns h {serial} 2 3 4 5\n@ 60 NS ns.elsewhere.\n");
        let loaded = super::super::load_text(&config, text.as_bytes());
        loaded.expect("a good zone").zone
    }

    fn apex(name: &str) -> Arc<[u8]> {
        zone(name, 1).apex().into()
    }

    #[test]
    fn zone_unavailable_is_not_answered_from_the_zone_above() {
        let zones = Zones::new(vec![zone("test.", 1), zone("a.test.", 1)]);
        assert_eq!(zones.unavailable(b"\x01a\x04test\0"), None);
        let next = zones.with([Change::Unavailable(apex("a.test."), WHY)]);
        assert_eq!(next.unavailable(b"\x01x\x01a\x04test\0"), Some(WHY));
        assert_eq!(next.unavailable(b"\x01x\x04test\0"), None);
        assert_eq!(
            zones.unavailable(b"\x01a\x04test\0"),
            None,
            "the old snapshot stays"
        );
        let back = next.with([Change::Serve(zone("a.test.", 2))]);
        assert_eq!(back.unavailable(b"\x01a\x04test\0"), None);
        assert_eq!(back.get(b"\x01a\x04test\0").map(|z| z.serial()), Some(2));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Serve(u8, u32),
        Unavailable(u8),
        Remove(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..200_u8, 1..9_u32).prop_map(|(n, serial)| Step::Serve(n, serial)),
            (0..200_u8).prop_map(Step::Unavailable),
            (0..200_u8).prop_map(Step::Remove),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Whatever the order and grouping of changes, the snapshot holds what a plain map would.
        #[test]
        fn zones_after_changes_are_those_of_a_plain_map(steps in prop::collection::vec(prop::collection::vec(step(), 1..8), 1..40)) {
            let mut zones = Zones::default();
            let mut model = std::collections::BTreeMap::new();
            for group in steps {
                let mut changes = Vec::new();
                for step in group {
                    let name = |n: u8| format!("z{n}.test.");
                    changes.push(match step {
                        Step::Serve(n, serial) => {
                            model.insert(name(n), Some(serial));
                            Change::Serve(zone(&name(n), serial))
                        }
                        Step::Unavailable(n) => {
                            model.insert(name(n), None);
                            Change::Unavailable(apex(&name(n)), WHY)
                        }
                        Step::Remove(n) => {
                            model.remove(&name(n));
                            Change::Remove(apex(&name(n)))
                        }
                    });
                }
                zones = zones.with(changes);
            }
            let served: Vec<_> = zones.iter().map(|z| (z.name().to_owned(), z.serial())).collect();
            let expected: Vec<_> = model.iter().filter_map(|(n, s)| Some((n.clone(), (*s)?))).collect();
            prop_assert_eq!(served, expected);
            for n in 0..200_u8 {
                let name = format!("z{n}.test.");
                let unavailable = zones.unavailable(&apex(&name)).is_some();
                prop_assert_eq!(unavailable, model.get(&name) == Some(&None));
            }
        }
    }
}
