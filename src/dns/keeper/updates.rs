//! Zones that are changed by updates: the file of updates beside the master file, and the two joined.
//!
//! What an update said of a record counts over what the master file says, until both say the same; everything else
//! follows the file. So a file may be edited and reloaded beside updates. Each update is on disk before it is answered.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::past::Known;
use super::secondary::write;
use super::{Keeper, Kept, lock};
use crate::dns::transfer::history::{is_newer, serial};
use crate::dns::transfer::message::Entry;
use crate::dns::update::apply::{Batch, with_serial};
use crate::dns::update::command;
use crate::dns::update::journal::{self, Step};
use crate::dns::wire::Rcode;
use crate::dns::zone::name;
use crate::dns::zone::overlay::Overlay;
use crate::dns::zone::{Loaded, Problem, Record, Zone};
use crate::dns::{Catalog, ZoneConfig};

/// The updates of a zone, as on disk.
#[derive(Debug, Default)]
pub(super) struct Updates {
    /// The file has been read.
    read: bool,
    overlay: Overlay,
    soa: Option<Record>,
    /// The serial and content after the last step; `None`: there was none.
    last: Option<(u32, u128)>,
    /// The zone that updates change: file and updates joined.
    source: Option<Arc<Zone>>,
    /// The digest of its records, once it was asked for.
    content: Option<u128>,
    /// Bytes of the file, and when it is written anew.
    len: u64,
    rewrite_at: u64,
}

/// How an update ended: the serial after it, and whether anything differs; or the code of the answer.
type Done = Result<(u32, bool), Rcode>;

/// An update that waits for its turn.
#[derive(Debug)]
pub(super) struct Pending {
    prerequisites: Vec<Entry>,
    changes: Vec<Entry>,
    done: Mutex<Option<Done>>,
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Updated {
    /// The zone.
    pub zone: String,
    /// Its serial now.
    pub serial: u32,
    /// Whether anything differs from before.
    pub changed: bool,
}

impl Keeper {
    /// Changes a zone (apex in wire form) by one update; the serial after it, and whether anything differs. All of it
    /// is on disk and in service afterwards, or nothing is changed. Updates that wait for the zone meanwhile are
    /// committed together, in the order they came: one entry on disk, one version more. Blocking.
    ///
    /// # Errors
    /// The code of the answer.
    pub(in crate::dns) fn update(
        &self,
        apex: &[u8],
        prerequisites: Vec<Entry>,
        changes: Vec<Entry>,
    ) -> Result<(u32, bool), Rcode> {
        let kept = lock(&self.kept).get(&name::to_text(apex)).cloned();
        let kept = kept.ok_or(Rcode::NotAuth)?;
        let own = Arc::new(Pending {
            prerequisites,
            changes,
            done: Mutex::default(),
        });
        {
            let limit = lock(&kept.config).updates_waiting;
            let mut waiting = lock(&kept.waiting);
            if waiting.len() >= limit {
                self.metrics.transfer.limit_updates.inc();
                return Err(Rcode::ServFail);
            }
            waiting.push_back(own.clone());
        }
        let mut updates = lock(&kept.turn);
        // Who had the turn may have done it.
        if lock(&own.done).is_none() {
            let waiting: Vec<Arc<Pending>> = lock(&kept.waiting).drain(..).collect();
            self.commit(&kept, &mut updates, &waiting);
        }
        drop(updates);
        let done = lock(&own.done).take();
        done.unwrap_or(Err(Rcode::ServFail))
    }

    /// Does the updates that wait, all at once; one by one if together they make no zone. The caller has the turn.
    fn commit(&self, kept: &Arc<Kept>, updates: &mut Updates, waiting: &[Arc<Pending>]) {
        let together = self.commit_together(kept, updates, waiting);
        match (together, waiting) {
            (Ok(outcomes), _) => {
                for (one, outcome) in waiting.iter().zip(outcomes) {
                    *lock(&one.done) = Some(outcome);
                }
            }
            (Err(rcode), [one]) => *lock(&one.done) = Some(Err(rcode)),
            (Err(_), _) => {
                for one in waiting {
                    self.commit(kept, updates, std::slice::from_ref(one));
                }
            }
        }
    }

    /// How each of the updates ended.
    ///
    /// # Errors
    /// Nothing is changed: together they make no zone, or could not be written.
    fn commit_together(
        &self,
        kept: &Arc<Kept>,
        updates: &mut Updates,
        waiting: &[Arc<Pending>],
    ) -> Result<Vec<Done>, Rcode> {
        let config = lock(&kept.config).clone();
        if !config.primaries.is_empty() || config.catalog.is_some() {
            return Err(Rcode::Refused);
        }
        let source = updates.source.clone().ok_or(Rcode::ServFail)?;
        let mut batch = Batch::new(&source)?;
        let judged: Vec<Result<bool, Rcode>> = waiting
            .iter()
            .map(|one| batch.apply(&one.prerequisites, &one.changes))
            .collect();
        let changed = batch.finish();
        let with = |serial: u32| {
            let outcomes = judged.iter().map(|done| done.map(|any| (serial, any)));
            Ok(outcomes.collect())
        };
        if changed.is_empty() {
            return with(source.serial());
        }
        let soa = match &changed.soa {
            Some(soa) => soa.clone(),
            None => {
                let soa = source.soa().ok_or(Rcode::ServFail)?;
                with_serial(&soa, source.serial().wrapping_add(1))
            }
        };
        let mut delta = Overlay::default();
        changed.removed.iter().for_each(|r| delta.remove(r));
        changed.added.iter().for_each(|r| delta.add(r.clone()));
        let loaded = delta
            .over(&source, &soa, "update", &config.ttls)
            .map_err(|problems| {
                let problem = problems.first().map_or("", |p| p.message.as_str());
                let together = waiting.len();
                tracing::warn!(zone = %kept.name, together, %problem, "update refused");
                Rcode::Refused
            })?;
        let known = Known::between(&source, &loaded.zone, &changed, || match updates.content {
            Some(content) => content,
            None => journal::content(&source),
        });
        let known = known.ok_or(Rcode::ServFail)?;
        let step = Step {
            serial: serial(&soa),
            content: known.content,
            soa: changed.soa,
            removed: changed.removed,
            added: changed.added,
        };
        if let Err(error) = updates.append(&config, &step) {
            let file = config.updates_file.display();
            tracing::error!(zone = %kept.name, %file, %error, "update not written");
            return Err(Rcode::ServFail);
        }
        self.metrics.transfer.commits.inc();
        self.metrics.transfer.updates.inc_by(waiting.len() as u64);
        updates.source = Some(loaded.zone.clone());
        updates.content = Some(known.content);
        self.serve(kept, &config, loaded, Some(known));
        // Signing may have raised it once more.
        let serving = self.serving().get(source.apex()).map(|zone| zone.serial());
        with(serving.unwrap_or(step.serial))
    }

    /// Makes a record, as in a master file with absolute names, the only one of its type at its name, or one more
    /// (`beside`). Blocking.
    ///
    /// # Errors
    /// Why nothing was changed.
    pub fn set(&self, record: &str, beside: bool) -> Result<Updated, String> {
        let record = command::record(record)?;
        let owner = record.owner.clone();
        let done = self.command(&owner, &command::set(record.clone(), beside))?;
        if !done.changed
            && let Some(zone) = self.serving().closest(&owner)
            && let Some(why) = command::unfit(zone, &record)
        {
            return Err(format!("zone {} is as it was: {why}", zone.name()));
        }
        Ok(done)
    }

    /// Removes the records of a type (all without one) at a name. Blocking.
    ///
    /// # Errors
    /// Why nothing was changed.
    pub fn delete(&self, name: &str, rtype: Option<&str>) -> Result<Updated, String> {
        let owner = command::owner(name)?;
        let rtype = rtype.map_or(Ok(command::ALL_TYPES), command::rtype)?;
        let change = command::delete(owner.clone(), rtype);
        self.command(&owner, &[change])
    }

    fn command(&self, owner: &[u8], changes: &[Entry]) -> Result<Updated, String> {
        let zones = self.serving();
        let shown = name::to_text(owner);
        let zone = zones.closest(owner);
        let zone = zone.ok_or_else(|| format!("{shown} is in no zone in service here"))?;
        let done = self.update(zone.apex(), Vec::new(), changes.to_vec());
        match done {
            Ok((serial, changed)) => Ok(Updated {
                zone: zone.name().to_owned(),
                serial,
                changed,
            }),
            Err(Rcode::Refused) if self.is_catalog(zone.apex()) => Err(format!(
                "zone {} is made of the zones that name it as their catalog_zone",
                zone.name()
            )),
            Err(Rcode::Refused) if self.is_secondary(zone.apex()) => Err(format!(
                "zone {} comes from other servers; it is changed there",
                zone.name()
            )),
            Err(Rcode::Refused) => Err(format!(
                "{shown}: zone {} would not be good with that",
                zone.name()
            )),
            Err(rcode) => Err(format!(
                "{shown}: not changed ({rcode:?}); the log says why"
            )),
        }
    }

    fn is_secondary(&self, apex: &[u8]) -> bool {
        let found = self.find(apex);
        found.is_some_and(|(_, config)| !config.primaries.is_empty())
    }

    fn is_catalog(&self, apex: &[u8]) -> bool {
        let found = self.find(apex);
        found.is_some_and(|(_, config)| matches!(config.catalog, Some(Catalog::Producer)))
    }

    /// Joins what a master file gave with the updates of the zone.
    pub(super) fn join(
        &self,
        kept: &Kept,
        updates: &mut Updates,
        config: &ZoneConfig,
        loaded: Loaded,
    ) -> Result<Loaded, Vec<Problem>> {
        let problem = |message: String| {
            vec![Problem {
                file: config.updates_file.display().to_string(),
                line: 0,
                message,
            }]
        };
        if !updates.read {
            let torn = updates.open(&config.updates_file).map_err(problem)?;
            if torn > 0 {
                tracing::warn!(zone = %kept.name, bytes = torn, "an update that was not finished is dropped");
            }
        }
        let Some((last, content)) = updates.last else {
            updates.source = Some(loaded.zone.clone());
            updates.content = None;
            return Ok(loaded);
        };
        let file = &loaded.zone;
        updates.overlay.settle(file);
        let soa = updates.soa.clone().or_else(|| file.soa());
        let soa = soa.ok_or_else(|| problem("found no SOA".to_owned()))?;
        let from = config.file.display().to_string();
        let over = |serial| {
            updates
                .overlay
                .over(file, &with_serial(&soa, serial), &from, &config.ttls)
        };
        let mut joined = over(last)?;
        let now = journal::content(&joined.zone);
        if now != content || is_newer(file.serial(), last) {
            let serial = if is_newer(file.serial(), last) {
                file.serial()
            } else {
                last.wrapping_add(1)
            };
            joined = over(serial)?;
            let step = Step {
                serial,
                content: now,
                ..Step::default()
            };
            let appended = updates.append(config, &step);
            appended.map_err(|error| problem(format!("not written: {error}")))?;
        }
        updates.source = Some(joined.zone.clone());
        updates.content = Some(now);
        joined.warnings.extend(loaded.warnings);
        Ok(joined)
    }
}

impl Updates {
    /// Reads the file; how many octets at its end were torn, and are cut off.
    fn open(&mut self, path: &Path) -> Result<usize, String> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error.to_string()),
        };
        let expected = || "found no file of updates, expected one".to_owned();
        let (steps, end) = journal::decode(&bytes).ok_or_else(expected)?;
        for step in steps {
            self.take(&step);
        }
        if end < bytes.len() {
            let cut = File::options()
                .write(true)
                .open(path)
                .and_then(|file| file.set_len(end as u64).and_then(|()| file.sync_all()));
            cut.map_err(|error| error.to_string())?;
        }
        self.len = end as u64;
        self.read = true;
        Ok(bytes.len() - end)
    }

    /// What a step says counts from now on.
    fn take(&mut self, step: &Step) {
        step.removed.iter().for_each(|r| self.overlay.remove(r));
        step.added.iter().for_each(|r| self.overlay.add(r.clone()));
        if step.soa.is_some() {
            self.soa.clone_from(&step.soa);
        }
        self.last = Some((step.serial, step.content));
    }

    /// Adds a step to the file, synced; or writes the file anew, with what all steps together say, when it has grown.
    fn append(&mut self, config: &ZoneConfig, step: &Step) -> std::io::Result<()> {
        let path = &config.updates_file;
        if self.len == 0 || self.len > self.rewrite_at.max(config.journal as u64) {
            let mut all = Self {
                overlay: self.overlay.clone(),
                soa: self.soa.clone(),
                ..Self::default()
            };
            all.take(step);
            let (added, removed) = all.overlay.parts();
            let whole = Step {
                removed,
                added,
                soa: all.soa,
                ..step.clone()
            };
            let bytes = [journal::MAGIC, &whole.encode()].concat();
            write(path, &bytes)?;
            self.len = bytes.len() as u64;
            self.rewrite_at = 2 * self.len;
        } else {
            let bytes = step.encode();
            let mut file = File::options().append(true).open(path)?;
            let written = file.write_all(&bytes).and_then(|()| file.sync_data());
            if written.is_err() {
                // A part of it may be there: the next step must not stand behind it.
                let _ = file.set_len(self.len);
                return written;
            }
            self.len += bytes.len() as u64;
        }
        self.take(step);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::dns::transfer::message::{IN, NONE};
    use crate::metrics::Metrics;

    /// A keeper of `a.test.` with so many hosts, loaded.
    fn keeper(folder: &Path, hosts: usize) -> Keeper {
        let mut text =
            "@ IN SOA ns hostmaster 1 2 3 4 5\n@ IN NS ns\nns IN A 192.0.2.1\n".to_owned();
        for host in 0..hosts {
            writeln!(text, "h{host} IN A 192.0.2.1").expect("a String takes all");
        }
        std::fs::write(folder.join("zone"), text).expect("writable");
        started(folder)
    }

    fn started(folder: &Path) -> Keeper {
        let config = ZoneConfig {
            name: "a.test.".to_owned(),
            file: folder.join("zone"),
            updates_file: folder.join("updates"),
            history_file: folder.join("history"),
            allow_transfer: vec!["192.0.2.0/24".parse().expect("a network")],
            journal: 1 << 20,
            updates_waiting: 1_000,
            ttl: 300,
            ..ZoneConfig::default()
        };
        let keeper = Keeper::new(vec![config], Arc::new(Metrics::new()));
        let states = keeper.reload(None).expect("all zones");
        assert!(states[0].problems.is_empty(), "{:?}", states[0].problems);
        keeper
    }

    const APEX: &[u8] = b"\x01a\x04test\0";

    fn entry(name: &str, class: u16, rtype: u16, data: &[u8]) -> Entry {
        Entry {
            class,
            record: Record {
                owner: command::owner(name).expect("a name"),
                rtype,
                ttl: if class == IN { 60 } else { 0 },
                data: data.into(),
            },
        }
    }

    /// Adds an address to a name that nobody has.
    fn add(keeper: &Keeper, name: &str) -> Result<(u32, bool), Rcode> {
        let free = entry(name, NONE, 255, &[]);
        let add = entry(name, IN, 1, &[192, 0, 2, 9]);
        keeper.update(APEX, vec![free], vec![add])
    }

    fn metric(keeper: &Keeper, name: &str) -> u64 {
        let text = keeper.metrics().text();
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")));
        let value = line.and_then(|line| line.rsplit(' ').next());
        value.expect(name).parse().expect("a number")
    }

    /// Does `updates` from as many threads, which all wait for the zone before the first is judged.
    fn together<T: Send>(
        keeper: &Keeper,
        count: usize,
        update: impl Fn(usize) -> T + Sync,
    ) -> Vec<T> {
        let kept = lock(&keeper.kept)["a.test."].clone();
        let turn = lock(&kept.turn);
        std::thread::scope(|scope| {
            let update = &update;
            let threads: Vec<_> = (0..count)
                .map(|at| {
                    let thread = std::thread::Builder::new().stack_size(256 << 10);
                    let thread = thread.spawn_scoped(scope, move || update(at));
                    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
                    while lock(&kept.waiting).len() <= at {
                        assert!(
                            std::time::Instant::now() < deadline,
                            "update {at} does not wait"
                        );
                        std::thread::yield_now();
                    }
                    thread.expect("a thread")
                })
                .collect();
            drop(turn);
            threads
                .into_iter()
                .map(|t| t.join().expect("no panic"))
                .collect()
        })
    }

    #[test]
    fn command_that_cannot_be_done_says_why() {
        let folder = tempfile::tempdir().expect("a folder");
        let keeper = keeper(folder.path(), 1);
        let check = |record: &str, expected: Option<&str>| match keeper.set(record, false) {
            Ok(done) => assert_eq!(expected, None, "{record}: {done:?}"),
            Err(error) => assert!(error.contains(expected.expect(record)), "{record}: {error}"),
        };
        check("alias.a.test. 60 CNAME h0.a.test.", None);
        let alias = Some("alias.a.test. is an alias (CNAME) of h0.a.test.");
        check("alias.a.test. 60 A 192.0.2.2", alias);
        check("alias.a.test. 60 CNAME ns.a.test.", None);
        check("h0.a.test. 60 CNAME ns.a.test.", Some("has other records"));
        check("a.test. 60 CNAME ns.a.test.", Some("its SOA and NS"));
        check(
            "h0.a.test. 60 SOA ns.a.test. h.a.test. 9 2 3 4 5",
            Some("has a SOA"),
        );
        check(
            "a.test. 60 SOA ns.a.test. h.a.test. 1 2 3 4 5",
            Some("is not newer than"),
        );
        // There already: done, with nothing to change.
        check("h0.a.test. 60 A 192.0.2.1", None);
        check("h0.a.test. 60 A 192.0.2.1", None);
    }

    #[test]
    fn thousand_updates_that_wait_for_a_large_zone_are_one_commit() {
        let folder = tempfile::tempdir().expect("a folder");
        let keeper = keeper(folder.path(), 100_000);
        // In the order they came: the second of each pair finds the name taken.
        let outcomes = together(&keeper, 1_000, |at| {
            add(&keeper, &format!("new{}.a.test", at / 2))
        });
        for (at, outcome) in outcomes.into_iter().enumerate() {
            let expected = if at % 2 == 0 {
                Ok((2, true))
            } else {
                Err(Rcode::YxDomain)
            };
            assert_eq!(outcome, expected, "{at}");
        }
        assert_eq!(metric(&keeper, "headwater_zone_update_commits_total"), 1);
        assert_eq!(metric(&keeper, "headwater_zone_updates_total"), 1_000);
        let bytes = std::fs::read(folder.path().join("updates")).expect("the file");
        assert_eq!(
            journal::decode(&bytes).expect("a file of updates").0.len(),
            1
        );
        // One after the other they cost a commit each, and the files stay in bounds.
        for at in 0..3 {
            assert_eq!(
                add(&keeper, &format!("more{at}.a.test")),
                Ok((3 + at, true))
            );
        }
        assert_eq!(metric(&keeper, "headwater_zone_update_commits_total"), 4);
        let zones = keeper.serving();
        let zone = zones.get(APEX).expect("in service").clone();
        assert_eq!((zone.serial(), zone.records()), (5, 100_003 + 500 + 3));
        // What was found out by the names touched is what all of the zone says.
        let steps = keeper.steps(APEX, 1, &zone).expect("the differences");
        let added: usize = steps.iter().map(|step| step.added.len()).sum();
        assert_eq!((steps.len(), added), (4, 503));
        let kept = lock(&keeper.kept)["a.test."].clone();
        assert_eq!(lock(&kept.turn).content, Some(journal::content(&zone)));
        // After a restart it is the same zone, and secondaries get differences.
        let again = started(folder.path());
        let zones = again.serving();
        let same = zones.get(APEX).expect("in service");
        assert_eq!(journal::content(same), journal::content(&zone));
        assert_eq!(again.steps(APEX, 1, same), Some(steps));
    }

    #[test]
    fn update_that_makes_no_zone_takes_none_down_with_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let keeper = keeper(folder.path(), 1);
        // NS at a wildcard is refused by the zone, not by the rules of updates.
        let outcomes = together(&keeper, 3, |at| match at {
            1 => {
                let bad = entry("*.a.test", IN, 2, b"\x01x\0");
                keeper.update(APEX, vec![], vec![bad])
            }
            at => add(&keeper, &format!("n{at}.a.test")),
        });
        assert_eq!(
            outcomes,
            [Ok((2, true)), Err(Rcode::Refused), Ok((3, true))]
        );
        assert_eq!(metric(&keeper, "headwater_zone_update_commits_total"), 2);
    }

    #[test]
    fn updates_over_the_bound_are_refused_and_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let keeper = keeper(folder.path(), 1);
        {
            let kept = lock(&keeper.kept)["a.test."].clone();
            let mut config = lock(&kept.config);
            Arc::make_mut(&mut config).updates_waiting = 2;
        }
        let refused = std::sync::OnceLock::new();
        let outcomes = together(&keeper, 3, |at| {
            if at < 2 {
                return add(&keeper, &format!("n{at}.a.test"));
            }
            let outcome = add(&keeper, "n2.a.test");
            let _ = refused.set(outcome);
            // Not in the queue: the others are let go by hand.
            lock(&lock(&keeper.kept)["a.test."].waiting).push_back(Arc::new(Pending {
                prerequisites: vec![],
                changes: vec![],
                done: Mutex::default(),
            }));
            outcome
        });
        assert_eq!(
            outcomes,
            [Ok((2, true)), Ok((2, true)), Err(Rcode::ServFail)]
        );
        assert_eq!(
            metric(&keeper, "headwater_zone_updates_waiting_limit_total"),
            1
        );
    }

    #[test]
    fn history_of_another_version_is_not_believed() {
        let folder = tempfile::tempdir().expect("a folder");
        let keeper = keeper(folder.path(), 10);
        assert_eq!(add(&keeper, "n.a.test"), Ok((2, true)));
        drop(keeper);
        let history = folder.path().join("history");
        assert!(history.exists());
        // The same serial with other records: edited while nobody looked.
        std::fs::remove_file(folder.path().join("updates")).expect("the file");
        let text =
            "@ IN SOA ns hostmaster 2 2 3 4 5\n@ IN NS ns\nns IN A 192.0.2.1\nx IN A 192.0.2.2\n";
        std::fs::write(folder.path().join("zone"), text).expect("writable");
        let again = started(folder.path());
        let zones = again.serving();
        let zone = zones.get(APEX).expect("in service");
        assert_eq!(zone.serial(), 2);
        assert!(again.steps(APEX, 1, zone).is_none() && !history.exists());
    }

    #[test]
    fn history_on_disk_stays_within_twice_its_bound() {
        let folder = tempfile::tempdir().expect("a folder");
        let keeper = keeper(folder.path(), 1);
        {
            let kept = lock(&keeper.kept)["a.test."].clone();
            let mut config = lock(&kept.config);
            Arc::make_mut(&mut config).journal = 2_000;
        }
        let mut largest = 0;
        for at in 0..100 {
            assert_eq!(add(&keeper, &format!("n{at}.a.test")), Ok((2 + at, true)));
            let len = std::fs::metadata(folder.path().join("history"))
                .expect("the file")
                .len();
            assert!(len <= 4_000, "{len}");
            largest = largest.max(len);
        }
        assert!(largest > 2_000, "{largest}");
        let zones = keeper.serving();
        let zone = zones.get(APEX).expect("in service");
        assert!(keeper.steps(APEX, 100, zone).is_some() && keeper.steps(APEX, 2, zone).is_none());
    }
}
