//! Records added to and removed from a zone: differences of a primary, or what updates made of a master file.

use std::collections::{HashMap, HashSet};

use super::records::{Cursor, Record, from_records};
use super::tree::{CNAME, DNAME, MX, NS, PTR, SRV, Zone};
use super::{Loaded, Problem};
use crate::dns::TtlOverride;

/// What became of some records; the last word on each counts. Records are the same if owner, type and data are,
/// letter case in names aside.
#[derive(Clone, Debug, Default)]
pub(in crate::dns) struct Overlay {
    /// `None`: not there.
    records: HashMap<Key, Option<Record>, foldhash::fast::RandomState>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    owner: Box<[u8]>,
    rtype: u16,
    data: Box<[u8]>,
}

impl Overlay {
    /// The record is there.
    pub(in crate::dns) fn add(&mut self, record: Record) {
        self.records.insert(Key::of(&record), Some(record));
    }

    /// The record is not there.
    pub(in crate::dns) fn remove(&mut self, record: &Record) {
        self.records.insert(Key::of(record), None);
    }

    /// Forgets what `zone` says, too.
    pub(in crate::dns) fn settle(&mut self, zone: &Zone) {
        self.records.retain(|key, record| {
            let there = zone.records_at(&key.owner);
            let there = there.iter().find(|r| Key::of(r) == *key);
            match (there, record) {
                (Some(there), Some(record)) => there.ttl != record.ttl,
                (None, None) => false,
                _ => true,
            }
        });
    }

    /// What it says: records there, and records not there.
    pub(in crate::dns) fn parts(&self) -> (Vec<Record>, Vec<Record>) {
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for (key, record) in &self.records {
            match record {
                Some(record) => added.push(record.clone()),
                None => removed.push(Record {
                    owner: key.owner.clone(),
                    rtype: key.rtype,
                    ttl: 0,
                    data: key.data.clone(),
                }),
            }
        }
        added.sort();
        removed.sort();
        (added, removed)
    }

    /// `zone` with this laid over it and another SOA.
    ///
    /// # Errors
    /// What keeps the records from being a zone.
    pub(in crate::dns) fn over(
        &self,
        zone: &Zone,
        soa: &Record,
        from: &str,
        ttls: &[TtlOverride],
    ) -> Result<Loaded, Vec<Problem>> {
        // Most names of a zone are none of those: for them no key is made.
        let owners: HashSet<&[u8], foldhash::fast::RandomState> =
            self.records.keys().map(|key| &*key.owner).collect();
        from_records(zone.apex(), from, ttls, |add| {
            add(&soa.owner, soa.rtype, soa.ttl, &soa.data);
            let mut at = Cursor::default();
            zone.walk(&mut at, |owner, rtype, ttl, data| {
                if !owners.contains(owner) || !self.speaks_of(owner, rtype, data) {
                    add(owner, rtype, ttl, data);
                }
                true
            });
            let mut added: Vec<&Record> = self.records.values().flatten().collect();
            added.sort();
            for record in added {
                add(&record.owner, record.rtype, record.ttl, &record.data);
            }
        })
    }

    fn speaks_of(&self, owner: &[u8], rtype: u16, data: &[u8]) -> bool {
        self.records.contains_key(&Key {
            owner: owner.into(),
            rtype,
            data: folded(rtype, data),
        })
    }
}

impl Key {
    fn of(record: &Record) -> Self {
        Self {
            owner: record.owner.clone(),
            rtype: record.rtype,
            data: folded(record.rtype, &record.data),
        }
    }
}

/// Data with its names in lower case, for the types whose layout that takes no reading.
pub(in crate::dns) fn folded(rtype: u16, data: &[u8]) -> Box<[u8]> {
    let mut data: Box<[u8]> = data.into();
    let names = match rtype {
        NS | CNAME | PTR | DNAME => 0,
        MX => 2,
        SRV => 6,
        _ => return data,
    };
    if let Some(names) = data.get_mut(names..) {
        names.make_ascii_lowercase();
    }
    data
}
