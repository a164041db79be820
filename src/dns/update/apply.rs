//! What an update does to a zone: prerequisites, checks and changes in the order of RFC 2136 section 3. All of it or,
//! with an error, nothing.

use std::collections::BTreeMap;

use super::command::may_stand_beside;
use crate::dns::transfer::history::{is_newer, number, serial};
use crate::dns::transfer::message::{Entry, IN, NONE};
use crate::dns::wire::Rcode;
use crate::dns::zone::overlay::folded;
use crate::dns::zone::tree::{CNAME, DNAME, NS, SOA};
use crate::dns::zone::{Record, Zone};

/// What differs afterwards, without the SOA.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::dns) struct Changed {
    pub(in crate::dns) removed: Vec<Record>,
    pub(in crate::dns) added: Vec<Record>,
    /// The SOA, if the update set it; else its serial is to be raised.
    pub(in crate::dns) soa: Option<Record>,
}

impl Changed {
    /// Whether nothing differs.
    pub(in crate::dns) fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty() && self.soa.is_none()
    }
}

/// The zone at work under updates one after the other: names that are touched, with all their records but the SOA.
pub(in crate::dns) struct Batch<'z> {
    zone: &'z Zone,
    soa: Record,
    soa_set: bool,
    /// The serial is that after the updates done.
    raised: bool,
    names: BTreeMap<Box<[u8]>, Vec<Record>>,
}

/// What `changes` make of `zone` if `prerequisites` hold.
///
/// # Errors
/// The code of the answer (RFC 2136 sections 3.2 and 3.4); the zone stays as it is.
#[cfg(test)]
fn apply(zone: &Zone, prerequisites: &[Entry], changes: &[Entry]) -> Result<Changed, Rcode> {
    let mut batch = Batch::new(zone)?;
    batch.apply(prerequisites, changes)?;
    Ok(batch.finish())
}

/// RFC 2136 section 3.4.1.
fn scan(zone: &Zone, changes: &[Entry]) -> Result<(), Rcode> {
    for Entry { class, record } in changes {
        if !zone.contains(&record.owner) {
            return Err(Rcode::NotZone);
        }
        let (any, data) = (record.rtype == ANY, is_data(record.rtype));
        let good = match *class {
            IN => data,
            CLASS_ANY => record.ttl == 0 && record.data.is_empty() && (any || data),
            NONE => record.ttl == 0 && data,
            _ => false,
        };
        if !good {
            return Err(Rcode::FormErr);
        }
    }
    Ok(())
}

impl<'z> Batch<'z> {
    /// Nothing done yet.
    ///
    /// # Errors
    /// SERVFAIL: a zone without a SOA.
    pub(in crate::dns) fn new(zone: &'z Zone) -> Result<Self, Rcode> {
        Ok(Self {
            zone,
            soa: zone.soa().ok_or(Rcode::ServFail)?,
            soa_set: false,
            raised: false,
            names: BTreeMap::new(),
        })
    }

    /// Does one update more; whether that changed anything.
    ///
    /// # Errors
    /// The code of the answer (RFC 2136 sections 3.2 and 3.4); nothing of this update is done.
    pub(in crate::dns) fn apply(
        &mut self,
        prerequisites: &[Entry],
        changes: &[Entry],
    ) -> Result<bool, Rcode> {
        self.check(prerequisites)?;
        scan(self.zone, changes)?;
        let before: BTreeMap<Box<[u8]>, Vec<Record>> = changes
            .iter()
            .map(|change| {
                let owner = change.record.owner.clone();
                let records = self.at(&owner).clone();
                (owner, records)
            })
            .collect();
        let soa = self.soa.clone();
        for change in changes {
            self.change(change);
        }
        let changed = before
            .iter()
            .any(|(owner, before)| self.names.get(owner) != Some(before));
        let set = self.soa != soa;
        if set {
            self.raised = false;
        } else if changed && !self.raised {
            // Updates that are done together are one version more.
            self.soa = with_serial(&self.soa, serial(&self.soa).wrapping_add(1));
            self.raised = true;
        }
        Ok(changed || set)
    }

    /// RFC 2136 section 3.2.
    fn check(&self, prerequisites: &[Entry]) -> Result<(), Rcode> {
        let mut wanted: BTreeMap<(&[u8], u16), Vec<_>> = BTreeMap::new();
        for Entry { class, record } in prerequisites {
            if record.ttl != 0 {
                return Err(Rcode::FormErr);
            }
            if !self.zone.contains(&record.owner) {
                return Err(Rcode::NotZone);
            }
            let there = self.there(&record.owner);
            let exists = match record.rtype {
                ANY => !there.is_empty(),
                rtype => there.iter().any(|r| r.rtype == rtype),
            };
            match *class {
                CLASS_ANY | NONE if !record.data.is_empty() => return Err(Rcode::FormErr),
                CLASS_ANY if !exists && record.rtype == ANY => return Err(Rcode::NxDomain),
                CLASS_ANY if !exists => return Err(Rcode::NxRrset),
                NONE if exists && record.rtype == ANY => return Err(Rcode::YxDomain),
                NONE if exists => return Err(Rcode::YxRrset),
                CLASS_ANY | NONE => {}
                IN if is_data(record.rtype) => wanted
                    .entry((&record.owner, record.rtype))
                    .or_default()
                    .push(folded(record.rtype, &record.data)),
                _ => return Err(Rcode::FormErr),
            }
        }
        for ((owner, rtype), mut wanted) in wanted {
            let there = self.there(owner);
            let mut there: Vec<Box<[u8]>> = there
                .iter()
                .filter(|r| r.rtype == rtype)
                .map(|r| folded(rtype, &r.data))
                .collect();
            there.sort();
            wanted.sort();
            wanted.dedup();
            if there != wanted {
                return Err(Rcode::NxRrset);
            }
        }
        Ok(())
    }

    /// The records at a name, the SOA too.
    fn there(&self, owner: &[u8]) -> Vec<Record> {
        let touched = self.names.get(owner).cloned();
        let mut records = touched.unwrap_or_else(|| self.zone.records_at(owner));
        if *owner == *self.zone.apex() {
            records.retain(|record| record.rtype != SOA);
            records.push(self.soa.clone());
        }
        records
    }

    /// RFC 2136 section 3.4.2.
    fn change(&mut self, Entry { class, record }: &Entry) {
        let apex = *record.owner == *self.zone.apex();
        let rtype = record.rtype;
        match *class {
            IN if rtype == SOA => {
                if apex && is_newer(serial(record), serial(&self.soa)) {
                    self.soa = record.clone();
                    self.soa_set = true;
                }
            }
            IN => self.add(record, apex),
            CLASS_ANY => {
                let kept = |r: &Record| match rtype {
                    ANY => apex && r.rtype == NS,
                    rtype => r.rtype != rtype || apex && rtype == NS,
                };
                self.at(&record.owner).retain(kept);
            }
            _ => {
                let data = folded(rtype, &record.data);
                let there = self.at(&record.owner);
                let last =
                    apex && rtype == NS && there.iter().filter(|r| r.rtype == NS).count() < 2;
                if !last {
                    there.retain(|r| r.rtype != rtype || folded(rtype, &r.data) != data);
                }
            }
        }
    }

    fn add(&mut self, record: &Record, apex: bool) {
        let rtype = record.rtype;
        let there = self.at(&record.owner);
        // The SOA stands at the apex.
        let beside = |r: &Record| r.rtype != CNAME && !may_stand_beside(r.rtype);
        let clash = match rtype {
            CNAME => apex || there.iter().any(beside),
            rtype if may_stand_beside(rtype) => false,
            _ => there.iter().any(|r| r.rtype == CNAME),
        };
        if clash {
            return;
        }
        if matches!(rtype, CNAME | DNAME) {
            there.retain(|r| r.rtype != rtype);
        }
        let data = folded(rtype, &record.data);
        for same in there.iter_mut().filter(|r| r.rtype == rtype) {
            same.ttl = record.ttl; // One TTL for an RRset (RFC 2181 section 5.2).
        }
        match there
            .iter_mut()
            .find(|r| r.rtype == rtype && folded(rtype, &r.data) == data)
        {
            Some(same) => *same = record.clone(),
            None => there.push(record.clone()),
        }
    }

    /// The records at a name, but for the SOA.
    fn at(&mut self, owner: &[u8]) -> &mut Vec<Record> {
        let zone = self.zone;
        self.names.entry(owner.into()).or_insert_with(|| {
            let mut records = zone.records_at(owner);
            records.retain(|r| r.rtype != SOA);
            records
        })
    }

    /// What differs from the zone as it was.
    pub(in crate::dns) fn finish(self) -> Changed {
        let mut changed = Changed {
            soa: self.soa_set.then_some(self.soa),
            ..Changed::default()
        };
        for (owner, after) in self.names {
            let mut before = self.zone.records_at(&owner);
            before.retain(|r| r.rtype != SOA);
            let without = |of: &[Record], other: &[Record]| -> Vec<Record> {
                of.iter().filter(|r| !other.contains(r)).cloned().collect()
            };
            changed.removed.append(&mut without(&before, &after));
            changed.added.append(&mut without(&after, &before));
        }
        changed
    }
}

/// A SOA with another serial.
pub(in crate::dns) fn with_serial(soa: &Record, serial: u32) -> Record {
    debug_assert!(number(soa, 20) == self::serial(soa));
    let mut soa = soa.clone();
    if let Some(at) = soa.data.len().checked_sub(20) {
        soa.data[at..at + 4].copy_from_slice(&serial.to_be_bytes());
    }
    soa
}

/// Whether a type is one that records in a zone have (RFC 6895 section 3.1).
fn is_data(rtype: u16) -> bool {
    !matches!(rtype, 0 | 41 | 128..=255)
}

const ANY: u16 = 255;
const CLASS_ANY: u16 = 255;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::ZoneConfig;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn zone() -> Arc<Zone> {
        let config = ZoneConfig {
            name: "test.".to_owned(),
            ..ZoneConfig::default()
        };
        let text = "@ 60 SOA ns h 5 2 3 4 5\n@ 60 NS ns\nns 60 A 192.0.2.1\nwww 60 A 192.0.2.1\n\
                    www 60 A 192.0.2.2\nalias 60 CNAME www\nx.y 60 A 192.0.2.3\n";
        let loaded = crate::dns::zone::load_text(&config, text.as_bytes());
        loaded.expect("a good zone").zone
    }

    fn wire(name: &str) -> Box<[u8]> {
        crate::dns::zone::apex(name)
            .expect("a name")
            .as_ref()
            .into()
    }

    fn entry(name: &str, class: u16, rtype: u16, ttl: u32, data: &[u8]) -> Entry {
        Entry {
            class,
            record: Record {
                owner: wire(name),
                rtype,
                ttl,
                data: data.into(),
            },
        }
    }

    const ONE: &[u8] = &[192, 0, 2, 1];
    const NINE: &[u8] = &[192, 0, 2, 9];

    #[test]
    fn prerequisites_hold_or_say_why() {
        let check = |entries: &[Entry], expected: Result<(), Rcode>| {
            let zone = zone();
            let found = Batch::new(&zone).expect("a SOA").check(entries);
            assert_eq!(found, expected, "{entries:?}");
        };
        check(&[entry("www.test.", 255, 255, 0, &[])], Ok(()));
        check(&[entry("nx.test.", 255, 255, 0, &[])], Err(Rcode::NxDomain));
        // An empty non-terminal is not in use.
        check(&[entry("y.test.", 255, 255, 0, &[])], Err(Rcode::NxDomain));
        check(&[entry("www.test.", 255, 1, 0, &[])], Ok(()));
        check(&[entry("www.test.", 255, 28, 0, &[])], Err(Rcode::NxRrset));
        check(&[entry("nx.test.", 254, 255, 0, &[])], Ok(()));
        check(
            &[entry("www.test.", 254, 255, 0, &[])],
            Err(Rcode::YxDomain),
        );
        check(&[entry("www.test.", 254, 1, 0, &[])], Err(Rcode::YxRrset));
        check(&[entry("www.test.", 254, 28, 0, &[])], Ok(()));
        check(&[entry("ns.test.", 1, 1, 0, ONE)], Ok(()));
        check(&[entry("ns.test.", 1, 1, 0, NINE)], Err(Rcode::NxRrset));
        check(&[entry("www.test.", 1, 1, 0, ONE)], Err(Rcode::NxRrset));
        let both = [
            entry("www.test.", 1, 1, 0, &[192, 0, 2, 2]),
            entry("www.test.", 1, 1, 0, ONE),
        ];
        check(&both, Ok(()));
        check(&[entry("www.test.", 1, 1, 9, ONE)], Err(Rcode::FormErr));
        check(&[entry("www.test.", 255, 1, 0, ONE)], Err(Rcode::FormErr));
        check(&[entry("www.test.", 3, 1, 0, ONE)], Err(Rcode::FormErr));
        check(
            &[entry("www.other.", 255, 255, 0, &[])],
            Err(Rcode::NotZone),
        );
    }

    /// Applies changes; what was removed and added, as text.
    #[track_caller]
    fn check(changes: &[Entry], expected: Result<(&[&str], &[&str]), Rcode>) {
        let found = apply(&zone(), &[], changes).map(|changed| {
            let text = |records: &[Record]| -> Vec<String> {
                records.iter().map(ToString::to_string).collect()
            };
            (text(&changed.removed), text(&changed.added))
        });
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let expected = expected.map(|(removed, added)| (own(removed), own(added)));
        assert_eq!(found, expected, "{changes:?}");
    }

    #[test]
    fn records_are_added_replaced_and_kept_apart_from_a_cname() {
        check(
            &[entry("new.test.", 1, 1, 30, NINE)],
            Ok((&[], &["new.test. 30 IN A 192.0.2.9"])),
        );
        check(&[entry("ns.test.", 1, 1, 60, ONE)], Ok((&[], &[])));
        // One TTL for an RRset.
        check(
            &[entry("ns.test.", 1, 1, 30, NINE)],
            Ok((
                &["ns.test. 60 IN A 192.0.2.1"],
                &["ns.test. 30 IN A 192.0.2.1", "ns.test. 30 IN A 192.0.2.9"],
            )),
        );
        check(&[entry("alias.test.", 1, 1, 30, NINE)], Ok((&[], &[])));
        check(&[entry("www.test.", 1, 5, 30, b"\x01a\0")], Ok((&[], &[])));
        check(&[entry("test.", 1, 5, 30, b"\x01a\0")], Ok((&[], &[])));
        check(
            &[entry("alias.test.", 1, 5, 60, b"\x01a\0")],
            Ok((
                &["alias.test. 60 IN CNAME www.test."],
                &["alias.test. 60 IN CNAME a."],
            )),
        );
        check(&[entry("a.other.", 1, 1, 30, NINE)], Err(Rcode::NotZone));
        check(&[entry("a.test.", 1, 255, 30, NINE)], Err(Rcode::FormErr));
        check(&[entry("a.test.", 255, 1, 30, &[])], Err(Rcode::FormErr));
    }

    #[test]
    fn records_are_removed_but_never_the_last_ns_nor_the_soa() {
        let www = ["www.test. 60 IN A 192.0.2.1", "www.test. 60 IN A 192.0.2.2"];
        check(&[entry("www.test.", 255, 1, 0, &[])], Ok((&www, &[])));
        check(&[entry("www.test.", 255, 255, 0, &[])], Ok((&www, &[])));
        check(&[entry("www.test.", 254, 1, 0, ONE)], Ok((&www[..1], &[])));
        check(&[entry("www.test.", 254, 1, 0, NINE)], Ok((&[], &[])));
        for change in [
            entry("test.", 255, 255, 0, &[]),
            entry("test.", 255, 2, 0, &[]),
            entry("test.", 255, 6, 0, &[]),
            entry("test.", 254, 2, 0, b"\x02NS\x04test\0"),
        ] {
            check(&[change], Ok((&[], &[])));
        }
        // Another one before, and it may go.
        let changes = [
            entry("test.", 1, 2, 60, b"\x01b\0"),
            entry("test.", 254, 2, 0, b"\x02NS\x04test\0"),
        ];
        check(
            &changes,
            Ok((&["test. 60 IN NS ns.test."], &["test. 60 IN NS b."])),
        );
    }

    #[test]
    fn soa_is_taken_only_with_a_newer_serial() {
        let soa = zone().soa().expect("a SOA");
        for (serial, taken) in [(4, false), (5, false), (6, true)] {
            let record = with_serial(&soa, serial);
            let change = Entry { class: 1, record };
            let changed = apply(&zone(), &[], &[change]).expect("a good update");
            assert_eq!(changed.soa.is_some(), taken, "{serial}");
        }
    }

    #[test]
    fn updates_done_together_see_those_before_them_and_are_whole_or_nothing() {
        let zone = zone();
        let mut batch = Batch::new(&zone).expect("a SOA");
        let free = [entry("new.test.", 254, 255, 0, &[])];
        let add = [entry("new.test.", 1, 1, 60, NINE)];
        let serial = |is| {
            entry(
                "test.",
                1,
                6,
                0,
                &with_serial(&zone.soa().expect("a SOA"), is).data,
            )
        };
        assert_eq!(batch.apply(&[serial(5)], &[]), Ok(false));
        assert_eq!(batch.apply(&free, &add), Ok(true));
        // Whoever wants the version before comes too late.
        assert_eq!(batch.apply(&[serial(5)], &add), Err(Rcode::NxRrset));
        assert_eq!(batch.apply(&[serial(6)], &[]), Ok(false));
        assert_eq!(batch.apply(&free, &add), Err(Rcode::YxDomain));
        // What stands before the fault is not done either.
        let half = [
            entry("half.test.", 1, 1, 60, NINE),
            entry("half.other.", 1, 1, 60, NINE),
        ];
        assert_eq!(batch.apply(&[], &half), Err(Rcode::NotZone));
        assert_eq!(batch.apply(&[], &add), Ok(false));
        let gone = [entry("www.test.", 255, 255, 0, &[])];
        let there = [entry("www.test.", 255, 1, 0, &[])];
        assert_eq!(batch.apply(&there, &gone), Ok(true));
        assert_eq!(batch.apply(&there, &gone), Err(Rcode::NxRrset));
        // Added and removed again: nothing differs.
        let more = [entry("x.test.", 1, 1, 60, NINE)];
        assert_eq!(batch.apply(&[], &more), Ok(true));
        assert_eq!(
            batch.apply(&[], &[entry("x.test.", 255, 255, 0, &[])]),
            Ok(true)
        );
        let changed = batch.finish();
        assert_eq!(changed.added, [add[0].record.clone()]);
        assert_eq!((changed.removed.len(), changed.soa), (2, None));
    }

    #[test]
    fn serial_set_by_an_update_is_raised_by_those_after_it() {
        let zone = zone();
        let mut batch = Batch::new(&zone).expect("a SOA");
        let soa = with_serial(&zone.soa().expect("a SOA"), 50);
        let set = [Entry {
            class: 1,
            record: soa.clone(),
        }];
        assert_eq!(batch.apply(&[], &set), Ok(true));
        assert_eq!(batch.apply(&[], &set), Ok(false));
        // It is what the next prerequisite sees.
        let is = |serial| entry("test.", 1, 6, 0, &with_serial(&soa, serial).data);
        assert_eq!(batch.apply(&[is(5)], &[]), Err(Rcode::NxRrset));
        assert_eq!(batch.apply(&[is(50)], &[]), Ok(false));
        let add = [entry("new.test.", 1, 1, 60, NINE)];
        assert_eq!(batch.apply(&[], &add), Ok(true));
        assert_eq!(batch.finish().soa.map(|soa| serial(&soa)), Some(51));
    }

    proptest! {
        /// Any changes leave something that is a zone, and are the same whether done at once or one by one.
        #[test]
        fn changes_leave_a_zone(
            changes in prop::collection::vec((0..6_usize, 0..5_usize, 0..3_usize, 1..4_u8), 1..12),
        ) {
            let names = ["test.", "www.test.", "alias.test.", "y.test.", "x.y.test.", "n.test."];
            let entries: Vec<Entry> = changes
                .into_iter()
                .map(|(name, form, rtype, last)| {
                    let (rtype, data) = [
                        (1, vec![192, 0, 2, last]),
                        (2, vec![1, b'a' + last, 0]),
                        (5, vec![1, b'a' + last, 0]),
                    ][rtype].clone();
                    match form {
                        0 => entry(names[name], 255, 255, 0, &[]),
                        1 => entry(names[name], 255, rtype, 0, &[]),
                        2 => entry(names[name], 254, rtype, 0, &data),
                        _ => entry(names[name], 1, rtype, u32::from(last), &data),
                    }
                })
                .collect();
            let build = |zone: &Zone, changed: &Changed| {
                let mut overlay = crate::dns::zone::overlay::Overlay::default();
                changed.removed.iter().for_each(|r| overlay.remove(r));
                changed.added.iter().for_each(|r| overlay.add(r.clone()));
                let soa = zone.soa().expect("a SOA");
                overlay.over(zone, &soa, "update", &[]).expect("a zone").zone
            };
            let at_once = apply(&zone(), &[], &entries).expect("a good update");
            let at_once = build(&zone(), &at_once);
            let mut step_by_step = zone();
            for entry in &entries {
                let changed = apply(&step_by_step, &[], std::slice::from_ref(entry));
                step_by_step = build(&step_by_step, &changed.expect("a good update"));
            }
            // The records of an RRset have no order (RFC 2181 section 5).
            let records = |zone: &Zone| {
                let mut lines: Vec<String> = zone.to_text().lines().map(str::to_owned).collect();
                lines.sort_unstable();
                lines
            };
            prop_assert_eq!(records(&at_once), records(&step_by_step));
        }
    }
}
