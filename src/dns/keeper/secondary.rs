//! Zones that come from primaries: what is asked for when, the copy on disk, and the end of a zone nobody confirms.

use std::path::Path;
use std::sync::Arc;

use super::{Keeper, Kept, lock};
use crate::dns::ZoneConfig;
use crate::dns::transfer::copy;
use crate::dns::transfer::history::Difference;
use crate::dns::transfer::incoming::Came;
use crate::dns::transfer::refresh::Refresh;
use crate::dns::wire::{Ede, Reason};
use crate::dns::zone::overlay::Overlay;
use crate::dns::zone::records::from_records;
use crate::dns::zone::{self, Change, Loaded, Problem, Zone};
use crate::time::Now;

/// A zone whose primaries are to be asked.
#[derive(Debug)]
pub(in crate::dns) struct Due {
    pub(super) kept: Arc<Kept>,
    pub(in crate::dns) apex: Arc<[u8]>,
    pub(in crate::dns) config: Arc<ZoneConfig>,
    /// The version here.
    pub(in crate::dns) have: Option<Arc<Zone>>,
}

impl Keeper {
    /// The secondary zones whose primaries are to be asked now, and when the next is due (Unix milliseconds). Zones
    /// that nobody confirmed for too long go out of service.
    pub(in crate::dns) fn due(&self, now: Now) -> (Vec<Due>, Option<u64>) {
        let kept: Vec<Arc<Kept>> = lock(&self.kept).values().cloned().collect();
        let (mut due, mut next) = (Vec::new(), None::<u64>);
        for kept in kept {
            let config = lock(&kept.config).clone();
            if config.primaries.is_empty() {
                continue;
            }
            let Some(apex) = zone::apex(&kept.name) else {
                continue;
            };
            let mut refresh = lock(&kept.refresh);
            let expires = refresh.expires();
            let begin = refresh.begin(now.unix_ms);
            let wake = [refresh.next(), expires.filter(|at| *at > now.unix_ms)];
            drop(refresh);
            let have = self.serving().get(&apex).cloned();
            if have.is_some() && expires.is_some_and(|at| at <= now.unix_ms) {
                self.expire(&kept, &apex);
            }
            next = wake.into_iter().flatten().chain(next).min();
            if begin {
                due.push(Due {
                    kept,
                    apex,
                    config,
                    have,
                });
            }
        }
        (due, next)
    }

    /// Waits until a secondary zone may be due earlier than it was.
    pub(in crate::dns) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// The primaries of a secondary zone are asked at once. False: there is no such zone.
    pub(in crate::dns) fn ask(&self, apex: &[u8], now: Now) -> bool {
        let found = lock(&self.kept).get(&zone::name::to_text(apex)).cloned();
        let found = found.filter(|kept| !lock(&kept.config).primaries.is_empty());
        if let Some(kept) = &found {
            lock(&kept.refresh).notified(now.unix_ms);
            self.wake.notify_one();
        }
        found.is_some()
    }

    /// Nobody could be asked: as many transfers as allowed are under way.
    pub(in crate::dns) fn postponed(&self, due: &Due) {
        lock(&due.kept.refresh).postponed();
    }

    /// A primary has confirmed the version here.
    pub(in crate::dns) fn confirmed(&self, due: &Due, now: Now) {
        let Some(soa) = due.have.as_ref().and_then(|zone| zone.soa()) else {
            return;
        };
        lock(&due.kept.refresh).succeeded(&soa, now.unix_ms, now.mono_ns);
        // The age of the copy is what counts after a restart.
        let touched = std::fs::File::options()
            .append(true)
            .open(&due.config.file)
            .and_then(|file| file.set_modified(std::time::SystemTime::now()));
        if let Err(error) = touched {
            tracing::debug!(zone = %due.kept.name, %error, "copy not touched");
        }
        self.settle(&due.kept, due.have.as_ref(), &due.apex);
        self.wake.notify_one();
    }

    /// No primary gave the zone; it is asked for again.
    pub(in crate::dns) fn unanswered(&self, due: &Due, problem: String, now: Now) {
        lock(&due.kept.refresh).failed(now.unix_ms, now.mono_ns);
        let mut status = lock(&due.kept.status);
        // Once per change, not per try.
        if status.problems.first() != Some(&problem) {
            tracing::warn!(zone = %due.kept.name, %problem, "zone not transferred");
        }
        status.problems = vec![problem];
        drop(status);
        self.metrics.dns.zone_failed(&due.kept.name);
        self.wake.notify_one();
    }

    /// Puts what a primary gave in service and keeps a copy. Blocking.
    ///
    /// # Errors
    /// It is no zone, or does not fit the version here.
    pub(in crate::dns) fn install(
        &self,
        due: &Due,
        came: Came,
        from: &str,
        now: Now,
    ) -> Result<(), String> {
        let _turn = lock(&due.kept.turn);
        let built = match came {
            Came::Nothing => return Ok(()),
            Came::Whole(soa, records) => from_records(&due.apex, from, &due.config.ttls, |add| {
                for record in std::iter::once(&soa).chain(&records) {
                    add(&record.owner, record.rtype, record.ttl, &record.data);
                }
            }),
            Came::Steps(steps) => {
                let zone = due.have.as_ref().ok_or("differences, and no zone here")?;
                lay_over(zone, &steps, from, &due.config)?
            }
        };
        let loaded = built.map_err(|problems| {
            let first = problems.first().map(|p| p.message.clone());
            format!("{from}: {}", first.unwrap_or_default())
        })?;
        let zone = loaded.zone.clone();
        if let Err(error) = write(&due.config.file, &copy::encode(&zone)) {
            // Served all the same; after a restart it is asked for again.
            let file = due.config.file.display();
            tracing::error!(zone = %due.kept.name, %file, %error, "copy not written");
        }
        if let Some(soa) = zone.soa() {
            lock(&due.kept.refresh).succeeded(&soa, now.unix_ms, now.mono_ns);
        }
        self.publish(&due.kept, &due.config, loaded, None);
        self.wake.notify_one();
        Ok(())
    }

    /// Takes a secondary zone into service from its copy, or keeps the version in service; then its primaries are
    /// asked.
    pub(super) fn load_copy(&self, kept: &Arc<Kept>, config: &ZoneConfig, now: Now) {
        let Some(apex) = zone::apex(&kept.name) else {
            return;
        };
        if self.serving().get(&apex).is_none() {
            match read(config, &apex) {
                Ok(Some((loaded, confirmed))) => {
                    if let Some(soa) = loaded.zone.soa() {
                        *lock(&kept.refresh) = Refresh::restored(&soa, confirmed);
                    }
                    let expires = lock(&kept.refresh).expires();
                    if expires.is_some_and(|at| at <= now.unix_ms) {
                        self.change(kept, Change::Unavailable(apex, OVER));
                        lock(&kept.status).problems = vec![EXPIRED.to_owned()];
                    } else {
                        self.publish(kept, config, loaded, None);
                    }
                }
                Ok(None) => {
                    self.change(kept, Change::Unavailable(apex, NOT_YET));
                    lock(&kept.status).problems = vec![WAITING.to_owned()];
                }
                Err(problem) => {
                    tracing::warn!(zone = %kept.name, %problem, "copy not read");
                    self.change(kept, Change::Unavailable(apex, NOT_YET));
                    lock(&kept.status).problems = vec![problem];
                }
            }
        }
        lock(&kept.refresh).notified(now.unix_ms);
        self.wake.notify_one();
    }

    /// Takes a zone that nobody confirmed out of service.
    fn expire(&self, kept: &Arc<Kept>, apex: &Arc<[u8]>) {
        self.change(kept, Change::Unavailable(apex.clone(), OVER));
        let mut status = lock(&kept.status);
        status.serial = None;
        status.problems = vec![EXPIRED.to_owned()];
        tracing::error!(zone = %kept.name, "zone expired: no primary confirmed it in time");
        self.metrics.transfer.expired.inc();
    }

    /// A version that is confirmed is in service again, if it had expired.
    fn settle(&self, kept: &Arc<Kept>, zone: Option<&Arc<Zone>>, apex: &[u8]) {
        let mut status = lock(&kept.status);
        status.problems.clear();
        if let Some(zone) = zone.filter(|_| self.serving().get(apex).is_none()) {
            status.serial = Some(zone.serial());
            drop(status);
            self.change(kept, Change::Serve(zone.clone()));
        }
    }
}

/// The zone with differences laid over it.
fn lay_over(
    zone: &Zone,
    steps: &[Difference],
    from: &str,
    config: &ZoneConfig,
) -> Result<Result<Loaded, Vec<Problem>>, String> {
    let last = steps.last().ok_or("no differences")?;
    let mut overlay = Overlay::default();
    for step in steps {
        step.removed
            .iter()
            .for_each(|record| overlay.remove(record));
        step.added
            .iter()
            .for_each(|record| overlay.add(record.clone()));
    }
    Ok(overlay.over(zone, &last.new, from, &config.ttls))
}

/// The zone of a copy, and when it was confirmed last. `None`: there is no copy.
fn read(config: &ZoneConfig, apex: &[u8]) -> Result<Option<(Loaded, u64)>, String> {
    let file = config.file.display();
    let bytes = match std::fs::read(&config.file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{file}: {error}")),
    };
    let modified = std::fs::metadata(&config.file).and_then(|found| found.modified());
    let confirmed = modified
        .ok()
        .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok())
        .map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(0));
    let records = copy::decode(&bytes).ok_or_else(|| format!("{file}: the copy is damaged"))?;
    let from = file.to_string();
    let loaded = from_records(apex, &from, &config.ttls, |add| {
        for record in &records {
            add(&record.owner, record.rtype, record.ttl, &record.data);
        }
    });
    match loaded {
        Ok(loaded) => Ok(Some((loaded, confirmed))),
        Err(problems) => Err(problems
            .first()
            .map(ToString::to_string)
            .unwrap_or_default()),
    }
}

/// Writes a file so that after a crash there is the old one or the new one.
pub(super) fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut file = std::fs::File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    std::fs::File::open(dir)?.sync_all()
}

const EXPIRED: &str = "expired: no primary confirmed the zone in time";
const WAITING: &str = "not transferred yet";

const OVER: Reason = Reason::new(Ede::InvalidData, "the zone expired");
const NOT_YET: Reason = Reason::new(Ede::NotReady, "the zone was not transferred yet");
