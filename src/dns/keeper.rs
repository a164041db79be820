//! The zones in service: which are configured, where each comes from, how it got on, and the snapshot that answers
//! are read from.
//!
//! Zones are configured, or a catalog lists them (`catalog`). A zone goes three steps: its *source* gives records (`Kept::load`), what has to be made of them is made, and
//! the result is *published* (`Keeper::publish`). Each zone has a lock of its own for the first two, so a slow load
//! holds nobody else; publishing one zone costs the same whatever the others hold. All this is for the blocking
//! pool; DNS threads only read [`Keeper::serving`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};

use self::catalog::{Catalogs, Part};
use self::past::{Known, Past};
use self::signing::Signing;
pub use self::signing::{Waiting, still_signed};
pub use self::updates::Updated;
use self::updates::{Pending, Updates};
use super::ZoneConfig;
use super::dnssec::signer::Signer;
use super::transfer::refresh::Refresh;
use super::tsig::Keys;
use super::wire::{Ede, Reason};
use super::zone::name;
use super::zone::{self, Change, Loaded, Problem, Zone, Zones};
use crate::metrics::Metrics;
use crate::time::Now;

pub(super) mod secondary;

mod past;

mod catalog;

mod signing;

mod updates;

/// The configured zones and the snapshot in service.
#[derive(Debug)]
pub struct Keeper {
    serving: ArcSwap<Zones>,
    /// By apex, text form. Held for looking up and for replacing, never while a zone is loaded.
    kept: Mutex<BTreeMap<String, Arc<Kept>>>,
    /// What is configured, and what catalogs say. Held while zones come and go, never while one is loaded; taken
    /// before `kept`, and after a zone's turn.
    catalogs: Mutex<Catalogs>,
    /// Held from one snapshot to the next.
    publishing: Mutex<()>,
    /// The keys of signed messages.
    keys: ArcSwap<Keys>,
    /// Apexes of zones that have changed since somebody last asked, and the bell for it.
    changes: Mutex<BTreeSet<Arc<[u8]>>>,
    bell: tokio::sync::Notify,
    /// The bell of those who ask primaries.
    wake: tokio::sync::Notify,
    /// What signs zones, and the bell for a new time to.
    signer: ArcSwapOption<Signer>,
    signing_bell: tokio::sync::Notify,
    /// The bell of the one who asks parents.
    waiting_bell: tokio::sync::Notify,
    metrics: Arc<Metrics>,
}

/// One configured zone.
#[derive(Debug)]
struct Kept {
    /// Apex, text form.
    name: String,
    /// Held for a moment.
    config: Mutex<Arc<ZoneConfig>>,
    /// Held while the zone changes: loads and updates go one after the other.
    turn: Mutex<Updates>,
    /// Updates that wait for the turn; held for a moment.
    waiting: Mutex<VecDeque<Arc<Pending>>>,
    /// Held for a moment.
    past: Mutex<Past>,
    /// When the primaries are asked, if it has some; held for a moment.
    refresh: Mutex<Refresh>,
    /// Held for a moment.
    signing: Mutex<Signing>,
    /// Held for a moment.
    part: Mutex<Part>,
    /// Held for a moment.
    status: Mutex<ZoneStatus>,
}

/// The state of one configured zone, for `status` and `zone list`.
#[derive(Clone, Debug)]
pub struct ZoneStatus {
    /// Apex, text form.
    pub name: String,
    /// Where it comes from.
    pub role: Role,
    /// Its master file, or the copy kept of it.
    pub file: String,
    /// Serial in service; `None`: never loaded.
    pub serial: Option<u32>,
    /// Records in service.
    pub records: usize,
    /// When the zone in service was loaded, Unix milliseconds.
    pub loaded_unix_ms: Option<u64>,
    /// Why the last load failed (file:line: …), until one succeeds.
    pub problems: Vec<String>,
    /// Warnings of the last good load.
    pub warnings: Vec<String>,
    /// When its primaries are asked next, Unix milliseconds; `None`: it has none, or they are being asked.
    pub refresh_unix_ms: Option<u64>,
    /// When it expires unless a primary confirms it, Unix milliseconds.
    pub expires_unix_ms: Option<u64>,
    /// When the first signature ends, Unix seconds; `None`: it is not signed.
    pub signed_until: Option<u64>,
    /// What it waits for at its parent, and what the parent said last; in words.
    pub waits_for: Option<String>,
    /// The catalog from elsewhere that it is a member of.
    pub catalog: Option<String>,
    /// Member zones of the catalog it is.
    pub members: Option<usize>,
}

/// Where a zone comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// From a master file.
    Primary,
    /// From other servers.
    Secondary,
    /// Made here: a catalog of own zones.
    Catalog,
}

impl Role {
    /// As shown to people.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
            Self::Catalog => "catalog",
        }
    }
}

impl Keeper {
    /// A keeper with no zones loaded yet: names of `zones` get SERVFAIL until [`Keeper::reload`].
    #[must_use]
    pub fn new(zones: Vec<ZoneConfig>, metrics: Arc<Metrics>) -> Self {
        let keeper = Self {
            serving: ArcSwap::default(),
            kept: Mutex::default(),
            catalogs: Mutex::default(),
            publishing: Mutex::default(),
            keys: ArcSwap::default(),
            changes: Mutex::default(),
            bell: tokio::sync::Notify::new(),
            wake: tokio::sync::Notify::new(),
            signer: ArcSwapOption::empty(),
            signing_bell: tokio::sync::Notify::new(),
            waiting_bell: tokio::sync::Notify::new(),
            metrics,
        };
        keeper.configure(zones);
        let kept = lock(&keeper.kept).clone();
        let apexes = kept.keys().filter_map(|name| zone::apex(name));
        keeper.swap(apexes.map(|apex| Change::Unavailable(apex, NOT_LOADED)));
        keeper
    }

    /// Where it counts.
    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The zones of this instant. Take them once per batch: all its answers are of one version.
    pub fn serving(&self) -> Guard<Arc<Zones>> {
        self.serving.load()
    }

    /// Loads one zone (by apex, text form) or all, and puts each in service. A zone that does not load keeps the
    /// version in service. Reads files: call it on the blocking pool, never on a DNS thread. Returns the state
    /// after. `None`: no such zone.
    #[must_use]
    pub fn reload(&self, name: Option<&str>) -> Option<Vec<ZoneStatus>> {
        let zones: Vec<Arc<Kept>> = {
            let kept = lock(&self.kept);
            match name.map(canonical) {
                Some(name) => vec![kept.get(&name)?.clone()],
                None => kept.values().cloned().collect(),
            }
        };
        for zone in &zones {
            self.load(zone);
        }
        if name.is_none() {
            self.sweep();
            return Some(self.zones()); // Catalogs may have brought more.
        }
        Some(zones.iter().map(|zone| zone.status()).collect())
    }

    /// The configured zones and their state, in the order of their names.
    #[must_use]
    pub fn zones(&self) -> Vec<ZoneStatus> {
        let kept = lock(&self.kept).clone();
        kept.values().map(|zone| zone.status()).collect()
    }

    /// Whether every zone loaded the last time it was tried.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let kept = lock(&self.kept);
        kept.values()
            .all(|zone| lock(&zone.status).problems.is_empty() && lock(&zone.part).broken.is_none())
    }

    /// One zone as master-file text; `None`: no such zone, or it was never loaded.
    #[must_use]
    pub fn zone_text(&self, name: &str) -> Option<String> {
        let apex = zone::apex(&canonical(name))?;
        Some(self.serving().get(&apex)?.to_text())
    }

    /// The keys of signed messages.
    pub fn keys(&self) -> Guard<Arc<Keys>> {
        self.keys.load()
    }

    /// Replaces the keys.
    pub fn set_keys(&self, keys: Keys) {
        self.keys.store(Arc::new(keys));
    }

    /// The configured zone at an apex (wire form, lower case): its version in service, unless it has none, and its
    /// settings.
    pub(in crate::dns) fn find(&self, apex: &[u8]) -> Option<(Option<Arc<Zone>>, Arc<ZoneConfig>)> {
        let kept = lock(&self.kept).get(&name::to_text(apex))?.clone();
        let config = lock(&kept.config).clone();
        Some((self.serving().get(apex).cloned(), config))
    }

    /// Waits until zones have changed; their apexes, wire form.
    pub(in crate::dns) async fn changed(&self) -> BTreeSet<Arc<[u8]>> {
        loop {
            let rung = self.bell.notified();
            let changes = std::mem::take(&mut *lock(&self.changes));
            if !changes.is_empty() {
                return changes;
            }
            rung.await;
        }
    }

    /// Takes one zone from its source into service. Says so once: on failure in the log, too.
    fn load(&self, kept: &Arc<Kept>) {
        let mut updates = lock(&kept.turn);
        let config = lock(&kept.config).clone();
        if !config.primaries.is_empty() {
            self.load_copy(kept, &config, Now::read());
            return;
        }
        if config.catalog.is_some() {
            self.produce(kept, &config);
            return;
        }
        let loaded = zone::load(&config);
        match loaded.and_then(|loaded| self.join(kept, &mut updates, &config, loaded)) {
            Ok(loaded) => self.serve(kept, &config, loaded, None),
            Err(problems) => self.failed(kept, &config, &problems),
        }
    }

    /// Puts a zone in service; `known`: how it differs from the version before, if that was found out already. The
    /// caller has the turn.
    fn publish(&self, kept: &Arc<Kept>, config: &ZoneConfig, loaded: Loaded, known: Option<Known>) {
        let Loaded { zone, warnings } = loaded;
        let (serial, records) = (zone.serial(), zone.records());
        let signed_until = zone.signatures_expire().map(u64::from);
        let apex: Arc<[u8]> = zone.apex().into();
        let changed = self.note(kept, config, &zone, known);
        if !self.change(kept, Change::Serve(zone.clone())) {
            return;
        }
        if changed {
            lock(&self.changes).insert(apex);
            self.bell.notify_one();
        }
        let mut status = lock(&kept.status);
        status.file = config.file.display().to_string();
        status.serial = Some(serial);
        status.records = records;
        status.loaded_unix_ms = Some(Now::read().unix_ms);
        status.problems.clear();
        status.signed_until = signed_until;
        status.warnings = warnings.iter().map(ToString::to_string).collect();
        tracing::info!(
            zone = %kept.name, serial, records, warnings = status.warnings.len(), "zone loaded"
        );
        self.metrics
            .dns
            .zone_in_service(&kept.name, serial, records);
        self.metrics.dns.zone_signed_until(&kept.name, signed_until);
        drop(status);
        self.follow(kept, config, &zone);
    }

    /// Keeps what is in service; without it the names of the zone are SERVFAIL.
    fn failed(&self, kept: &Arc<Kept>, config: &ZoneConfig, problems: &[Problem]) {
        let mut status = lock(&kept.status);
        status.file = config.file.display().to_string();
        status.problems = problems.iter().map(ToString::to_string).collect();
        tracing::error!(
            zone = %kept.name, problems = status.problems.len(),
            first = status.problems.first().map_or("", String::as_str),
            serial_in_service = status.serial, "zone not loaded"
        );
        let never = status.serial.is_none();
        drop(status);
        if never && let Some(apex) = zone::apex(&kept.name) {
            self.change(kept, Change::Unavailable(apex, BROKEN));
        }
        self.metrics.dns.zone_failed(&kept.name);
    }

    /// Swaps the snapshot for one with `change` of this zone; false if the zone is configured no more.
    fn change(&self, kept: &Arc<Kept>, change: Change) -> bool {
        // Not to be removed between the look and the swap.
        let current = lock(&self.kept);
        let known = current
            .get(&kept.name)
            .is_some_and(|known| Arc::ptr_eq(known, kept));
        if known {
            self.swap([change]);
        }
        known
    }

    fn swap(&self, changes: impl IntoIterator<Item = Change>) {
        let _publishing = lock(&self.publishing);
        let next = self.serving.load().with(changes);
        self.serving.store(Arc::new(next));
    }
}

impl Kept {
    fn new(name: String, config: Arc<ZoneConfig>) -> Self {
        Self {
            status: Mutex::new(ZoneStatus {
                name: name.clone(),
                file: config.file.display().to_string(),
                serial: None,
                records: 0,
                loaded_unix_ms: None,
                problems: Vec::new(),
                warnings: Vec::new(),
                role: Role::Primary,
                refresh_unix_ms: None,
                expires_unix_ms: None,
                signed_until: None,
                waits_for: None,
                catalog: None,
                members: None,
            }),
            name,
            config: Mutex::new(config),
            turn: Mutex::default(),
            waiting: Mutex::default(),
            past: Mutex::default(),
            refresh: Mutex::default(),
            signing: Mutex::default(),
            part: Mutex::default(),
        }
    }

    fn status(&self) -> ZoneStatus {
        let mut status = lock(&self.status).clone();
        status.waits_for = lock(&self.signing).waits_for();
        let config = lock(&self.config).clone();
        if config.primaries.is_empty() && config.catalog.is_some() {
            status.role = Role::Catalog;
        } else if !config.primaries.is_empty() {
            let refresh = lock(&self.refresh);
            status.role = Role::Secondary;
            status.refresh_unix_ms = refresh.next();
            status.expires_unix_ms = refresh.expires();
        }
        let part = lock(&self.part);
        status.catalog.clone_from(&part.of);
        status.members = part.members;
        status.problems.extend(part.broken.clone());
        status.warnings.extend(part.clashes.clone());
        status
    }
}

/// The key of a zone: lower case, with a final dot.
fn canonical(name: &str) -> String {
    let mut name = name.to_ascii_lowercase();
    if !name.ends_with('.') {
        name.push('.');
    }
    name
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const NOT_LOADED: Reason = Reason::new(Ede::NotReady, "the zone is not loaded yet");
const BROKEN: Reason = Reason::new(Ede::InvalidData, "the zone could not be loaded");

#[cfg(test)]
mod tests {
    use super::*;

    /// A keeper of `zones` (none loaded) and the folder of their files: `a.test.` and `b.test.` are good.
    fn keeper(zones: &[&str]) -> (Keeper, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["a.test.", "b.test."] {
            let text = "@ IN SOA ns hostmaster 1 2 3 4 5\n@ IN NS ns\nns IN A 192.0.2.1\n";
            std::fs::write(folder.path().join(name), text).expect("a file");
        }
        let keeper = Keeper::new(configs(&folder, zones), Arc::new(Metrics::new()));
        (keeper, folder)
    }

    fn configs(folder: &tempfile::TempDir, zones: &[&str]) -> Vec<ZoneConfig> {
        let config = |name: &&str| ZoneConfig {
            name: (*name).to_owned(),
            file: folder.path().join(name.to_ascii_lowercase()),
            ..ZoneConfig::default()
        };
        zones.iter().map(config).collect()
    }

    fn served(keeper: &Keeper) -> Vec<String> {
        let zones = keeper.serving();
        zones.iter().map(|zone| zone.name().to_owned()).collect()
    }

    #[test]
    fn zone_not_loaded_is_unavailable_until_it_is() {
        let (keeper, folder) = keeper(&["a.test.", "missing.test."]);
        assert!(keeper.serving().unavailable(b"\x01a\x04test\0").is_some());
        let states = keeper.reload(None).expect("all zones");
        assert_eq!(states[0].problems, [""; 0]);
        assert!(!states[1].problems.is_empty() && !keeper.is_good());
        assert!(keeper.serving().unavailable(b"\x01a\x04test\0").is_none());
        let missing = b"\x01x\x07missing\x04test\0";
        assert!(keeper.serving().unavailable(missing).is_some());
        let from = folder.path().join("b.test.");
        std::fs::rename(from, folder.path().join("missing.test.")).expect("a file");
        assert!(keeper.reload(Some("MISSING.test")).is_some());
        assert!(keeper.serving().unavailable(missing).is_none() && keeper.is_good());
    }

    #[test]
    fn configure_removes_at_once_and_adds_with_the_next_reload() {
        let (keeper, folder) = keeper(&["a.test."]);
        let _ = keeper.reload(None);
        keeper.configure(configs(&folder, &["a.test.", "B.test"]));
        assert_eq!(served(&keeper), ["a.test."]);
        assert!(keeper.serving().unavailable(b"\x01b\x04test\0").is_none());
        keeper.configure(configs(&folder, &["B.test."]));
        assert_eq!(served(&keeper), [""; 0]);
        let states = keeper.reload(Some("b.test")).expect("the zone");
        assert_eq!(states[0].name, "b.test.");
        assert_eq!(served(&keeper), ["b.test."]);
        assert!(keeper.reload(Some("a.test.")).is_none());
        assert!(keeper.zone_text("b.test").is_some());
    }

    #[test]
    fn reload_of_one_zone_reads_no_other_file() {
        let (keeper, folder) = keeper(&["a.test.", "b.test."]);
        let _ = keeper.reload(None);
        std::fs::remove_file(folder.path().join("b.test.")).expect("the file");
        let states = keeper.reload(Some("a.test.")).expect("the zone");
        assert_eq!(states.len(), 1);
        assert!(keeper.is_good());
        assert_eq!(served(&keeper), ["a.test.", "b.test."]);
    }

    #[test]
    fn slow_load_of_one_zone_does_not_hold_the_others() {
        let (keeper, folder) = keeper(&["a.test.", "b.test."]);
        let fifo = folder.path().join("b.test.");
        std::fs::remove_file(&fifo).expect("the file");
        // Opening it to read waits for a writer.
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0)
            .expect("a pipe");
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| keeper.reload(Some("b.test.")));
            let states = keeper.reload(Some("a.test.")).expect("the zone");
            assert_eq!(states[0].serial, Some(1));
            assert_eq!(served(&keeper), ["a.test."]);
            let text = "@ IN SOA ns hostmaster 7 2 3 4 5\n@ IN NS ns\nns IN A 192.0.2.1\n";
            std::fs::write(&fifo, text).expect("a reader");
            let states = slow.join().expect("no panic").expect("the zone");
            assert_eq!(states[0].serial, Some(7));
        });
    }

    #[test]
    fn zone_removed_while_it_loads_does_not_come_back() {
        let (keeper, folder) = keeper(&["a.test."]);
        let kept = lock(&keeper.kept)["a.test."].clone();
        keeper.configure(configs(&folder, &["b.test."]));
        keeper.load(&kept);
        assert_eq!(served(&keeper), [""; 0]);
    }
}
