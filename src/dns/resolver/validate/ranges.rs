//! What validated NSEC records prove of names never asked for (RFC 8198): they are kept, and answer for all names between
//! their ends. A flood of made-up names beneath a signed zone then ends here.
//!
//! NSEC3 is not used so: with opt-out it proves little, and without it each look costs hashes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use foldhash::fast::RandomState;

use super::super::recurse::dname::Dname;
use super::super::recurse::fact::{Fact, Status, What};
use super::super::recurse::judge::Nothing;
use super::super::recurse::response::RrSet;
use super::super::recurse::rtype;
use super::Account;
use super::denial::{Proof, Proofs};
use crate::time::Now;

/// The ranges of all zones; bounded in number.
#[derive(Debug)]
pub(in super::super) struct Ranges {
    zones: Mutex<Zones>,
    most: usize,
}

#[derive(Debug, Default)]
struct Zones {
    zones: HashMap<Dname, Zone, RandomState>,
    /// Ranges of all zones.
    count: usize,
}

#[derive(Debug)]
struct Zone {
    /// With the time it holds; none: only of names a wildcard stands for has something been proven.
    soa: Option<(Arc<RrSet>, u64)>,
    ranges: BTreeMap<Dname, Range>,
}

#[derive(Clone, Debug)]
struct Range {
    nsec: Arc<RrSet>,
    until_ns: u64,
}

impl Ranges {
    /// At most `most` ranges; 0: none are kept.
    pub(in super::super) fn new(most: usize) -> Self {
        Self {
            zones: Mutex::default(),
            most,
        }
    }

    /// Keeps the NSEC sets among `proof`, verified as `zone`'s, until `until_ns`.
    pub(super) fn keep(
        &self,
        zone: &Dname,
        soa: Option<&Arc<RrSet>>,
        proof: &[Arc<RrSet>],
        until_ns: u64,
        now: Now,
    ) {
        let mut zones = self.lock();
        let zones = &mut *zones;
        for nsec in proof.iter().filter(|set| set.rtype == rtype::NSEC) {
            if zones.count >= self.most {
                zones.make_room(self.most, now);
            }
            if zones.count >= self.most {
                return;
            }
            let known = zones.zones.entry(zone.clone()).or_insert_with(|| Zone {
                soa: None,
                ranges: BTreeMap::new(),
            });
            if let Some(soa) = soa
                && known
                    .soa
                    .as_ref()
                    .is_none_or(|(_, until)| *until < until_ns)
            {
                known.soa = Some((Arc::clone(soa), until_ns));
            }
            let range = Range {
                nsec: Arc::clone(nsec),
                until_ns,
            };
            if known.ranges.insert(nsec.owner.clone(), range).is_none() {
                zones.count += 1;
            }
        }
    }

    /// That there is no (`name`, `qtype`), if that is proven at `now` by a zone that `speaks`.
    pub(in super::super) fn deny(
        &self,
        name: &Dname,
        qtype: u16,
        now: Now,
        speaks: impl Fn(&[u8]) -> bool,
    ) -> Option<Arc<Fact>> {
        let zones = self.lock();
        let (zone, known) = zones.of(name, qtype, speaks)?;
        let (soa, soa_until_ns) = known.soa.as_ref()?;
        if now.mono_ns >= *soa_until_ns {
            return None;
        }
        let at_or_before = |name: &Dname| known.at_or_before(name, now);
        let first = at_or_before(name)?;
        let mut proof = vec![Arc::clone(&first.nsec)];
        let mut until_ns = first.until_ns.min(*soa_until_ns);
        // NSEC takes no hashes and no checks.
        let mut account = Account::new(None);
        let mut nxdomain = false;
        if Proofs::new(&proof, &zone, &mut account).nodata(name, qtype, &mut account)
            != Proof::Secure
        {
            let encloser = Proofs::new(&proof, &zone, &mut account).encloser(name)?;
            let wildcard = encloser.wildcard()?;
            let second = at_or_before(&wildcard)?;
            until_ns = until_ns.min(second.until_ns);
            if second.nsec.owner != first.nsec.owner {
                proof.push(second.nsec);
            }
            let proofs = Proofs::new(&proof, &zone, &mut account);
            nxdomain = proofs.nxdomain(name, &mut account) == Proof::Secure;
            if !nxdomain && proofs.nodata(name, qtype, &mut account) != Proof::Secure {
                return None;
            }
        }
        Some(Arc::new(Fact {
            what: What::Nothing(Nothing {
                nxdomain,
                soa: Some(Arc::clone(soa)),
                proof,
            }),
            status: Status::Secure,
            from: None,
            until_ns,
        }))
    }

    /// That `name` is not there, and which wildcard may stand for it, if that is proven at `now` by a zone that `speaks`.
    pub(in super::super) fn absent(
        &self,
        name: &Dname,
        qtype: u16,
        now: Now,
        speaks: impl Fn(&[u8]) -> bool,
    ) -> Option<Absent> {
        let zones = self.lock();
        let (zone, known) = zones.of(name, qtype, speaks)?;
        let range = known.at_or_before(name, now)?;
        let proof = [Arc::clone(&range.nsec)];
        let mut account = Account::new(None);
        let proofs = Proofs::new(&proof, &zone, &mut account);
        let encloser = proofs.encloser(name)?;
        let absent = proofs.expanded(name, &encloser, &mut account) == Proof::Secure;
        let wildcard = encloser.wildcard().filter(|_| absent)?;
        Some(Absent {
            wildcard,
            nsec: range.nsec,
            until_ns: range.until_ns,
        })
    }

    /// Forgets all.
    pub(in super::super) fn clear(&self) {
        *self.lock() = Zones::default();
    }

    fn lock(&self) -> MutexGuard<'_, Zones> {
        self.zones.lock().expect("nothing panics while it is held")
    }
}

/// A name that is not there.
#[derive(Debug)]
pub(in super::super) struct Absent {
    /// The wildcard that may stand for it.
    pub(in super::super) wildcard: Dname,
    /// What proves it.
    pub(in super::super) nsec: Arc<RrSet>,
    pub(in super::super) until_ns: u64,
}

impl Zone {
    /// What begins at `name`, or else closest before it.
    fn at_or_before(&self, name: &Dname, now: Now) -> Option<Range> {
        let (_, range) = self.ranges.range::<Dname, _>(..=name).next_back()?;
        (now.mono_ns < range.until_ns).then(|| range.clone())
    }
}

impl Zones {
    /// The closest zone of which something is known and that has a say in (`name`, `qtype`), if it `speaks`.
    fn of(
        &self,
        name: &Dname,
        qtype: u16,
        speaks: impl Fn(&[u8]) -> bool,
    ) -> Option<(Dname, &Zone)> {
        let zone = name.ancestors().find(|above| {
            // Of the DS the parent speaks.
            self.zones.contains_key(*above) && (qtype != rtype::DS || above.len() < name.len())
        })?;
        if !speaks(zone) {
            return None;
        }
        let zone = Dname::new(zone);
        let known = self.zones.get(&zone)?;
        Some((zone, known))
    }

    /// Drops what has run out; if that is not a quarter of all, whole zones as well, the largest first.
    fn make_room(&mut self, most: usize, now: Now) {
        for zone in self.zones.values_mut() {
            zone.ranges.retain(|_, range| now.mono_ns < range.until_ns);
        }
        self.zones.retain(|_, zone| !zone.ranges.is_empty());
        self.count = self.zones.values().map(|zone| zone.ranges.len()).sum();
        while self.count > most / 4 * 3 {
            let largest = self.zones.iter().max_by_key(|(_, zone)| zone.ranges.len());
            let Some(apex) = largest.map(|(apex, _)| apex.clone()) else {
                return;
            };
            if let Some(zone) = self.zones.remove(&apex) {
                self.count -= zone.ranges.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::recurse::tests::internet;
    use super::super::super::testing::START;
    use super::*;

    fn name(text: &str) -> Dname {
        Dname::parse(text).unwrap()
    }

    fn set(owner: &str, rtype: u16, rdata: Vec<u8>) -> Arc<RrSet> {
        Arc::new(RrSet {
            owner: name(owner),
            rtype,
            ttl: 300,
            data: vec![rdata.into()],
            sigs: Vec::new(),
        })
    }

    /// An NSEC with A, NSEC and RRSIG.
    fn nsec(owner: &str, next: &str) -> Arc<RrSet> {
        let rdata = [internet::name(next), vec![0, 6, 0x40, 0, 0, 0, 0, 3]].concat();
        set(owner, rtype::NSEC, rdata)
    }

    fn ranges(most: usize, all: &[Arc<RrSet>]) -> Ranges {
        let ranges = Ranges::new(most);
        let until_ns = START.plus(Duration::from_secs(60)).mono_ns;
        let soa = set("z.test.", rtype::SOA, vec![0; 22]);
        ranges.keep(&name("z.test."), Some(&soa), all, until_ns, START);
        ranges
    }

    #[track_caller]
    fn check(ranges: &Ranges, asked: &str, qtype: u16, secs: u64, expected: Option<bool>) {
        let now = START.plus(Duration::from_secs(secs));
        let found = ranges.deny(&name(asked), qtype, now, |_| true);
        let nxdomain = found.map(|fact| match &fact.what {
            What::Nothing(nothing) => nothing.nxdomain,
            What::Set { .. } => panic!("{asked}: nothing is made up"),
        });
        assert_eq!(nxdomain, expected, "{asked}");
    }

    #[test]
    fn names_between_the_ends_are_denied_while_the_proof_holds() {
        let ranges = ranges(
            100,
            &[
                nsec("z.test.", "d.z.test."),
                nsec("d.z.test.", "m.k.z.test."),
            ],
        );
        check(&ranges, "a.z.test.", 1, 0, Some(true));
        check(&ranges, "b.a.z.test.", 16, 59, Some(true));
        check(&ranges, "a.z.test.", 1, 60, None);
        // There, without the type; there, with it; empty, since a name is beneath it.
        check(&ranges, "d.z.test.", 16, 0, Some(false));
        check(&ranges, "d.z.test.", 1, 0, None);
        check(&ranges, "k.z.test.", 1, 0, Some(false));
        // Beyond what is known, and of another zone.
        check(&ranges, "x.z.test.", 1, 0, None);
        check(&ranges, "a.y.test.", 1, 0, None);
    }

    #[test]
    fn name_a_wildcard_may_stand_for_is_not_denied() {
        let known = [nsec("d.z.test.", "f.z.test.")];
        let ranges = ranges(100, &known);
        check(&ranges, "e.z.test.", 1, 0, None);
    }

    #[test]
    fn ranges_stay_within_their_number() {
        let all: Vec<_> = (0..50)
            .map(|n| nsec(&format!("n{n}.z.test."), &format!("n{n}a.z.test.")))
            .collect();
        let ranges = ranges(10, &all);
        assert!(ranges.lock().count <= 10);
        let none = super::tests::ranges(0, &all);
        assert_eq!(none.lock().count, 0);
        none.clear();
    }
}
