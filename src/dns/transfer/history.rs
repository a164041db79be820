//! The differences between the versions a zone had in service, for incremental transfers (RFC 1995).
//!
//! They are kept in memory, as many as fit the zone's bound, and in a file, so that a restart costs no secondary a
//! whole transfer. The file is believed if it leads to the very zone that is served: by serial, and by a digest of all
//! its records.

use std::collections::VecDeque;
use std::sync::Arc;

use super::copy;
use crate::dns::zone::{Record, Zone};

/// One step from a version to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dns) struct Difference {
    /// The SOA before and after.
    pub(in crate::dns) old: Record,
    /// See `old`.
    pub(in crate::dns) new: Record,
    /// Without the SOA.
    pub(in crate::dns) removed: Vec<Record>,
    /// Without the SOA.
    pub(in crate::dns) added: Vec<Record>,
}

/// The latest differences, each beginning where the one before it ends.
#[derive(Clone, Debug, Default)]
pub(in crate::dns) struct History {
    steps: VecDeque<Arc<Difference>>,
    bytes: usize,
}

impl Difference {
    /// From one version to another; `None` if the serial is the same.
    pub(in crate::dns) fn between(old: &Zone, new: &Zone) -> Option<Self> {
        if old.serial() == new.serial() {
            return None;
        }
        let (removed, added) = old.difference(new);
        Some(Self {
            old: old.soa()?,
            new: new.soa()?,
            removed,
            added,
        })
    }

    /// The serial it leads to.
    pub(in crate::dns) fn to(&self) -> u32 {
        serial(&self.new)
    }

    /// Records it sends, its SOAs included.
    pub(in crate::dns) fn records(&self) -> usize {
        2 + self.removed.len() + self.added.len()
    }

    /// As it stands in the file; `content` is the digest of the version it leads to.
    pub(in crate::dns) fn encode(&self, content: u128) -> Vec<u8> {
        let mut body = content.to_be_bytes().to_vec();
        copy::put_list(&[self.old.clone(), self.new.clone()], &mut body);
        copy::put_list(&self.removed, &mut body);
        copy::put_list(&self.added, &mut body);
        copy::entry(&body)
    }

    fn read(body: &[u8]) -> Option<(Self, u128)> {
        let (content, mut body) = body.split_first_chunk::<16>()?;
        let [old, new] = <[Record; 2]>::try_from(copy::take_list(&mut body)?).ok()?;
        let step = Self {
            old,
            new,
            removed: copy::take_list(&mut body)?,
            added: copy::take_list(&mut body)?,
        };
        Some((step, u128::from_be_bytes(*content)))
    }

    /// About the bytes it holds.
    fn bytes(&self) -> usize {
        let size = |record: &Record| size_of::<Record>() + record.owner.len() + record.data.len();
        self.removed
            .iter()
            .chain(&self.added)
            .map(size)
            .sum::<usize>()
            + 2 * size(&self.old)
    }
}

impl History {
    /// The history in a file, and the octets of it that are whole. `None`: it does not lead to the version with this
    /// serial and the digest that `content` gives.
    pub(in crate::dns) fn restore(
        bytes: &[u8],
        limit: usize,
        serial: u32,
        content: impl FnOnce() -> u128,
    ) -> Option<(Self, usize)> {
        let (steps, whole) = copy::entries(bytes, MAGIC, Difference::read)?;
        let (last, last_content) = steps.last()?;
        if last.to() != serial || *last_content != content() {
            return None;
        }
        let mut history = Self::default();
        for (step, _) in steps {
            history.push(step, limit);
        }
        Some((history, whole))
    }

    /// The file with all steps; `content` is the digest of the last version.
    pub(in crate::dns) fn encode(&self, content: u128) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for step in &self.steps {
            out.append(&mut step.encode(content)); // Only that of the last is looked at.
        }
        out
    }

    /// Takes the next step. One that does not follow the last, or is larger than `limit` bytes, begins anew.
    pub(in crate::dns) fn push(&mut self, step: Difference, limit: usize) {
        let follows = self
            .steps
            .back()
            .is_none_or(|last| serial(&last.new) == serial(&step.old));
        if !follows {
            self.clear();
        }
        self.bytes += step.bytes();
        self.steps.push_back(Arc::new(step));
        while self.bytes > limit {
            let Some(oldest) = self.steps.pop_front() else {
                break;
            };
            self.bytes -= oldest.bytes();
        }
    }

    /// Steps held.
    pub(in crate::dns) fn len(&self) -> usize {
        self.steps.len()
    }

    /// Forgets everything.
    pub(in crate::dns) fn clear(&mut self) {
        self.steps.clear();
        self.bytes = 0;
    }

    /// The steps from the version `from` to the last one; `None`: they are not all here.
    pub(in crate::dns) fn since(&self, from: u32) -> Option<Vec<Arc<Difference>>> {
        let first = self
            .steps
            .iter()
            .position(|step| serial(&step.old) == from)?;
        Some(self.steps.range(first..).cloned().collect())
    }
}

/// The octets a file of differences begins with.
const MAGIC: &[u8] = b"headwater zone history 1\n";

/// The serial of a SOA.
pub(in crate::dns) fn serial(soa: &Record) -> u32 {
    number(soa, 20)
}

/// A number of a SOA, `from_end` octets before the end of its data.
pub(in crate::dns) fn number(soa: &Record, from_end: usize) -> u32 {
    let at = soa.data.len().saturating_sub(from_end);
    soa.data
        .get(at..at + 4)
        .map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

/// Whether serial `a` is after `b` (RFC 1982).
pub(in crate::dns) fn is_newer(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < 1 << 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::ZoneConfig;
    use proptest::prelude::*;

    fn zone(serial: u32, hosts: &[(u8, u8)]) -> Arc<Zone> {
        let config = ZoneConfig {
            name: "test.".to_owned(),
            ..ZoneConfig::default()
        };
        let mut text = format!("@ 60 SOA ns h {serial} 2 3 4 5\n@ 60 NS ns.other.\n");
        for (host, address) in hosts {
            text.push_str(&format!("h{host} 60 A 192.0.2.{address}\n"));
        }
        let loaded = crate::dns::zone::load_text(&config, text.as_bytes());
        loaded.expect("a good zone").zone
    }

    #[test]
    fn serial_is_newer_around_the_circle() {
        assert!(is_newer(2, 1) && !is_newer(1, 2) && !is_newer(1, 1));
        assert!(is_newer(0, u32::MAX) && !is_newer(u32::MAX, 0));
        assert!(!is_newer(1 << 31, 0) && !is_newer(0, 1 << 31));
    }

    #[test]
    fn history_from_a_file_leads_to_the_version_served_or_is_not_believed() {
        let mut history = History::default();
        let mut bytes = MAGIC.to_vec();
        for serial in 1..4 {
            let step = Difference::between(&zone(serial, &[]), &zone(serial + 1, &[(1, 1)]));
            let step = step.expect("a difference");
            bytes.append(&mut step.encode(u128::from(serial)));
            history.push(step, 10_000);
        }
        let restore = |bytes: &[u8], serial, content| {
            History::restore(bytes, 10_000, serial, || content)
                .map(|(h, whole)| (h.since(1), whole))
        };
        let all = (history.since(1), bytes.len());
        assert_eq!(restore(&bytes, 4, 3), Some(all.clone()));
        assert_eq!(restore(&history.encode(3), 4, 3), Some(all));
        // Another version, or another with the same serial.
        assert_eq!(restore(&bytes, 5, 3), None);
        assert_eq!(restore(&bytes, 4, 9), None);
        // Torn, or damaged: what is whole before leads elsewhere.
        for at in 0..bytes.len() {
            assert_eq!(restore(&bytes[..at], 4, 3), None);
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert_eq!(restore(&bad, 4, 3), None);
        }
        // The bound holds for what is read, too.
        let limit = history.bytes / 2;
        let (short, _) = History::restore(&bytes, limit, 4, || 3).expect("a history");
        assert!(short.since(1).is_none() && short.since(3).is_some());
    }

    #[test]
    fn history_beyond_its_bound_forgets_the_oldest() {
        let mut history = History::default();
        for serial in 1..9 {
            let step = Difference::between(&zone(serial, &[]), &zone(serial + 1, &[(1, 1)]));
            history.push(step.expect("a difference"), 1_000);
        }
        assert!(history.since(1).is_none());
        let kept = history.since(8).expect("the last step");
        assert_eq!((kept.len(), serial(&kept[0].new)), (1, 9));
        assert!(history.since(9).is_none());
        let gap = Difference::between(&zone(20, &[]), &zone(21, &[]));
        history.push(gap.expect("a difference"), 1_000);
        assert!(history.since(8).is_none() && history.since(20).is_some());
    }

    proptest! {
        /// The old version without what was removed and with what was added is the new one.
        #[test]
        fn difference_leads_from_one_version_to_the_other(
            old in prop::collection::vec((0..9_u8, 0..5_u8), 0..20),
            new in prop::collection::vec((0..9_u8, 0..5_u8), 0..20),
        ) {
            let (old, new) = (zone(1, &old), zone(2, &new));
            let step = Difference::between(&old, &new).expect("another serial");
            let records = |zone: &Zone| {
                let mut all = Vec::new();
                let mut at = Default::default();
                zone.walk(&mut at, |owner, rtype, ttl, data| {
                    all.push(Record { owner: owner.into(), rtype, ttl, data: data.into() });
                    true
                });
                all
            };
            let mut made = records(&old);
            for record in &step.removed {
                let at = made.iter().position(|r| r == record).expect("removed what was there");
                made.swap_remove(at);
            }
            for record in step.added {
                prop_assert!(!made.contains(&record));
                made.push(record);
            }
            made.sort();
            let mut expected = records(&new);
            expected.sort();
            prop_assert_eq!(made, expected);
        }
    }
}
