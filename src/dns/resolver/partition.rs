//! Partitions: which upstreams, and so which part of the cache, a name belongs to.

use std::collections::HashMap;

use foldhash::fast::RandomState;

/// Names resolved by one set of upstreams share a partition; entries never cross.
/// 0 is for the names beneath no forward zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Partition(pub u16);

/// The forward zones, by apex in lower-cased wire form.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    zones: HashMap<Box<[u8]>, Partition, RandomState>,
}

impl Partitions {
    /// The first zone gets partition 1, and so on.
    ///
    /// # Errors
    /// The place, from 0, of a zone that has come before, or that is one too many.
    pub(super) fn new(zones: impl IntoIterator<Item = Box<[u8]>>) -> Result<Self, usize> {
        let mut map = HashMap::default();
        for (place, zone) in zones.into_iter().enumerate() {
            let number = u16::try_from(place + 1).map_err(|_| place)?;
            if map.insert(zone, Partition(number)).is_some() {
                return Err(place);
            }
        }
        Ok(Self { zones: map })
    }

    /// The apex of a partition's forward zone; empty for 0, which has none.
    pub(super) fn zone(&self, partition: Partition) -> &[u8] {
        self.zones
            .iter()
            .find(|(_, found)| **found == partition)
            .map_or(&[], |(apex, _)| apex)
    }

    /// The partition of the longest forward zone at or above `name` (wire form, any case). No allocation.
    pub(super) fn find(&self, name: &[u8]) -> Partition {
        if self.zones.is_empty() {
            return Partition(0);
        }
        let mut lower = [0; 255];
        let n = name.len().min(lower.len());
        lower[..n].copy_from_slice(&name[..n]);
        lower.make_ascii_lowercase();
        let mut rest = &lower[..n];
        loop {
            if let Some(&partition) = self.zones.get(rest) {
                return partition;
            }
            match rest.split_first() {
                Some((&label, tail)) if label != 0 && usize::from(label) < tail.len() => {
                    rest = &tail[usize::from(label)..];
                }
                _ => return Partition(0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(name: &str) -> Box<[u8]> {
        let mut wire = Vec::new();
        for label in name.split('.').filter(|label| !label.is_empty()) {
            wire.push(u8::try_from(label.len()).unwrap());
            wire.extend(label.as_bytes());
        }
        wire.push(0);
        wire.into()
    }

    #[track_caller]
    fn check(zones: &[&str], name: &str, expected: u16) {
        let partitions = Partitions::new(zones.iter().map(|zone| wire(zone))).unwrap();
        assert_eq!(partitions.find(&wire(name)), Partition(expected), "{name}");
    }

    #[test]
    fn partition_is_that_of_the_longest_zone() {
        let zones = ["corp.example.", "eu.corp.example.", "10.in-addr.arpa."];
        check(&zones, "corp.example.", 1);
        check(&zones, "a.b.CORP.example.", 1);
        check(&zones, "www.EU.corp.example.", 2);
        check(&zones, "1.0.0.10.in-addr.arpa.", 3);
    }

    #[test]
    fn partition_named_twice_is_refused() {
        let zones = ["a.example.", "b.example.", "a.example."];
        assert_eq!(Partitions::new(zones.map(wire)).unwrap_err(), 2);
    }

    #[test]
    fn partition_of_a_name_beneath_no_zone_is_0() {
        check(&["corp.example."], "notcorp.example.", 0);
        check(&["corp.example."], "example.", 0);
        check(&["corp.example."], ".", 0);
        check(&[], "corp.example.", 0);
        check(&["."], "corp.example.", 1);
    }
}
