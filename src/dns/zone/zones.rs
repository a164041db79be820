//! All own zones in one snapshot, found by the closest enclosing apex.

use std::sync::Arc;

use super::path::{Path, ROOT_HASH, hash_label};
use super::table::Table;
use super::tree::Zone;

/// All own zones: one immutable snapshot, swapped whole.
#[derive(Debug, Default)]
pub struct Zones {
    /// In the order of their names.
    zones: Vec<Arc<Zone>>,
    table: Table,
    /// Fewest and most labels of an apex: no other suffix of a name is looked up.
    labels_min: usize,
    labels_max: usize,
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
        let mut sorted = zones;
        sorted.reverse(); // The sort is stable, so of equal names the last comes first and stays.
        sorted.sort_by(|one, other| one.name().cmp(other.name()));
        sorted.dedup_by(|later, first| later.name() == first.name());
        let paths: Vec<Path> = sorted.iter().map(|zone| Path::new(zone.apex())).collect();
        let hash = |path: &Path| {
            (0..path.labels())
                .rev()
                .fold(ROOT_HASH, |hash, label| hash_label(hash, path.label(label)))
        };
        let mut table = Table::with_capacity(sorted.len());
        for (at, path) in paths.iter().enumerate() {
            table.insert(hash(path), at as u32, |other| hash(&paths[other as usize]));
        }
        Self {
            zones: sorted,
            table,
            labels_min: paths.iter().map(Path::labels).min().unwrap_or(0),
            labels_max: paths.iter().map(Path::labels).max().unwrap_or(0),
        }
    }

    /// The zones, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Zone>> {
        self.zones.iter()
    }

    /// The own zone with the longest apex that `name` (wire form) is in or equal to.
    #[must_use]
    pub fn closest(&self, name: &[u8]) -> Option<&Zone> {
        self.find(&Path::new(name), 0).map(|place| place.zone)
    }

    /// The own zone with the longest apex that the name of `path` is in, its first `skip` labels left out.
    pub(in crate::dns) fn find(&self, path: &Path, skip: usize) -> Option<Place<'_>> {
        let mut hash = ROOT_HASH;
        let mut found = None;
        let labels = path.labels();
        for depth in 0..=self.labels_max.min(labels.checked_sub(skip)?) {
            let apex = labels - depth;
            if depth > 0 {
                hash = hash_label(hash, path.label(apex));
            }
            if depth < self.labels_min {
                continue;
            }
            let name = path.suffix(apex);
            if let Some(at) = self
                .table
                .get(hash, |at| self.zones[at as usize].apex() == name)
            {
                let zone = &*self.zones[at as usize];
                found = Some(Place { zone, apex, hash });
            }
        }
        found
    }
}
