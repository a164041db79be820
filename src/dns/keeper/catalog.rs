//! Catalog zones (RFC 9432): zones that come and go as a catalog from elsewhere says, and a catalog of our own zones.
//!
//! What each catalog said last that made sense is kept beside it (`.members`), so that its members are served after a
//! restart even if the catalog is broken, expired or gone by then. A member's copy has its id in its name: with another
//! id the zone begins anew.
//!
//! A copy goes when the catalog says that its zone does. That a catalog is configured no more says nothing of its zones, and may be a
//! slip of the pen: they are out of service, but their copies stay for [`LEFT`], and serve at once should it come back.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::secondary::write;
use super::{Keeper, Kept, NOT_LOADED, canonical, lock};
use crate::dns::transfer::catalog::{self, Clash, Member, Owners};
use crate::dns::transfer::{copy, file_name};
use crate::dns::update::journal;
use crate::dns::zone::records::from_records;
use crate::dns::zone::tree::SOA;
use crate::dns::zone::{self, Change, Problem, Record, Zone};
use crate::dns::{Catalog, Template, ZoneConfig};
use crate::time::Now;

/// What is configured, and what the catalogs say.
#[derive(Debug, Default)]
pub(super) struct Catalogs {
    /// The configured zones, by apex.
    configured: BTreeMap<String, Arc<ZoneConfig>>,
    /// The catalogs that are followed.
    lists: BTreeMap<String, List>,
    /// The catalog and id of each member zone.
    owners: BTreeMap<String, (String, Box<[u8]>)>,
}

/// What one catalog says.
#[derive(Debug, Default)]
struct List {
    members: Vec<Member>,
    /// It has said something, now or before a restart.
    known: bool,
}

/// A zone's part in catalogs, for its status.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    /// The catalog it is a member of.
    pub(super) of: Option<String>,
    /// Members of the catalog it is.
    pub(super) members: Option<usize>,
    /// Why what it says is not followed.
    pub(super) broken: Option<String>,
    /// Zones it lists and does not get.
    pub(super) clashes: Vec<String>,
}

impl Keeper {
    /// Replaces the configured zones (after a configuration reload); call `reload` next. Zones that are configured
    /// no more are out of service at once, new ones come when they are loaded.
    pub fn configure(&self, zones: Vec<ZoneConfig>) {
        let mut catalogs = lock(&self.catalogs);
        let zones = zones.into_iter();
        catalogs.configured = zones
            .map(|zone| (canonical(&zone.name), Arc::new(zone)))
            .collect();
        let mut lists = std::mem::take(&mut catalogs.lists);
        let mut followed = Vec::new();
        for (name, config) in &catalogs.configured {
            if let Some(Catalog::Consumer { members, .. }) = &config.catalog {
                let list = lists.remove(name);
                let list = list.unwrap_or_else(|| List::read(name, config, *members));
                followed.push((name.clone(), list));
            }
        }
        catalogs.lists = followed.into_iter().collect();
        self.arrange(&mut catalogs);
    }

    /// A catalog is in service in a new version: its members come and go. The caller has its turn.
    pub(super) fn follow(&self, kept: &Kept, config: &ZoneConfig, zone: &Zone) {
        let Some(Catalog::Consumer { members: limit, .. }) = config.catalog else {
            return;
        };
        let mut catalogs = lock(&self.catalogs);
        let Some(list) = catalogs.lists.get_mut(&kept.name) else {
            return; // Configured so no more.
        };
        match catalog::members(zone, limit) {
            Ok(members) => {
                lock(&kept.part).broken = None;
                self.metrics.catalog.broken(&kept.name, false);
                if members != list.members || !list.known {
                    let file = members_file(config);
                    if let Err(error) = write(&file, &copy::encode(zone)) {
                        let file = file.display();
                        tracing::error!(zone = %kept.name, %file, %error, "members not written");
                    }
                    (list.members, list.known) = (members, true);
                }
            }
            Err(broken) => {
                if matches!(broken, catalog::Broken::Many { .. }) {
                    self.metrics.catalog.limit_members.inc();
                }
                let problem = format!("catalog not followed: {broken}");
                let (serial, members) = (zone.serial(), list.members.len());
                tracing::error!(zone = %kept.name, serial, members, %problem, "catalog broken; its members stay as they were");
                lock(&kept.part).broken = Some(problem);
                self.metrics.catalog.broken(&kept.name, true);
            }
        }
        let new = self.arrange(&mut catalogs);
        drop(catalogs);
        for kept in new {
            self.load(&kept);
        }
    }

    /// Makes the zones of this keeper those that are configured and those that catalogs list; the members among them
    /// that are new and to be loaded.
    fn arrange(&self, catalogs: &mut Catalogs) -> Vec<Arc<Kept>> {
        let (owners, clashes) = catalogs.owners();
        let old = lock(&self.kept).clone();
        let (mut next, mut changes, mut new) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut stale = Vec::new();
        let member_of = |name: &str| catalogs.owners.get(name).map(|(_, id)| id);
        let mut place = |name: String, config: Arc<ZoneConfig>, member: Option<&Member>| {
            let id = member.map(|member| &member.id);
            let known = old.get(&name).filter(|_| member_of(&name) == id);
            let kept = match known {
                Some(known) => {
                    *lock(&known.config) = config;
                    known.clone()
                }
                None => {
                    let kept = Arc::new(Kept::new(name.clone(), config));
                    let replaced = old.contains_key(&name);
                    if let Some(apex) = zone::apex(&name).filter(|_| member.is_some() || replaced) {
                        changes.push(Change::Unavailable(apex, NOT_LOADED));
                    }
                    if member.is_some() {
                        new.push(kept.clone());
                    }
                    kept
                }
            };
            next.insert(name, kept);
        };
        for (name, config) in &catalogs.configured {
            place(name.clone(), config.clone(), None);
        }
        for (name, (catalog, member)) in &owners {
            if let Some(config) = catalogs
                .configured
                .get(catalog)
                .and_then(|c| of_member(c, member))
            {
                place(name.clone(), Arc::new(config), Some(member));
            }
        }
        for (name, kept) in &old {
            let replacement = next.get(name);
            if replacement.is_none() {
                changes.extend(zone::apex(name).map(Change::Remove));
                self.metrics.dns.zone_gone(name);
                self.metrics.catalog.gone(name);
            }
            let stays = replacement.is_some_and(|next| Arc::ptr_eq(next, kept));
            let owner = catalogs.owners.get(name);
            if !stays && owner.is_some_and(|(catalog, _)| catalogs.lists.contains_key(catalog)) {
                let config = lock(&kept.config);
                stale.extend([config.file.clone(), config.history_file.clone()]);
            }
        }
        *lock(&self.kept) = next;
        if !changes.is_empty() {
            self.swap(changes);
        }
        for file in stale {
            let _ = std::fs::remove_file(file); // It may never have come.
        }
        let counted = |name: &str| owners.values().filter(|(c, _)| c == name).count();
        for name in catalogs.lists.keys() {
            self.metrics.catalog.members(name, counted(name));
        }
        self.tell(&owners, catalogs.lists.keys(), &clashes);
        catalogs.owners = owners
            .into_iter()
            .map(|(zone, (catalog, member))| (zone, (catalog, member.id)))
            .collect();
        new
    }

    /// Has each zone say what its part in catalogs is.
    fn tell<'c>(
        &self,
        owners: &Owners,
        followed: impl Iterator<Item = &'c String>,
        clashes: &[Clash],
    ) {
        let followed: BTreeSet<&String> = followed.collect();
        let mut members: BTreeMap<&str, usize> = BTreeMap::new();
        for (catalog, _) in owners.values() {
            *members.entry(catalog).or_default() += 1;
        }
        for (name, kept) in lock(&self.kept).iter() {
            let mut part = lock(&kept.part);
            part.of = owners.get(name).map(|(catalog, _)| catalog.clone());
            let is_followed = followed.contains(name);
            part.members = is_followed.then(|| members.get(&**name).copied().unwrap_or(0));
            if !is_followed {
                part.broken = None;
            }
            let now: Vec<String> = clashes
                .iter()
                .filter(|clash| clash.catalog == *name)
                .map(|clash| match &clash.holder {
                    Some(holder) => format!("zone {} belongs to catalog {holder}", clash.zone),
                    None => format!("zone {} is configured here", clash.zone),
                })
                .collect();
            for clash in now.iter().filter(|clash| !part.clashes.contains(clash)) {
                tracing::error!(zone = %name, %clash, "member of a catalog not taken");
                self.metrics.catalog.clashes.inc();
            }
            part.clashes = now;
        }
    }

    /// Makes the catalog of our own zones, with another serial if it lists others than before. The caller has the
    /// turn.
    pub(super) fn produce(&self, kept: &Arc<Kept>, config: &ZoneConfig) {
        let problem = |message: String| {
            vec![Problem {
                file: config.file.display().to_string(),
                line: 0,
                message,
            }]
        };
        let Some(apex) = zone::apex(&kept.name) else {
            return;
        };
        let members = lock(&self.catalogs).members_of(&kept.name);
        let build = |serial: u32| build(&apex, config, &catalog::records(&apex, serial, &members));
        let serving = self.serving().get(&apex).cloned();
        let before = serving.or_else(|| read(&config.file, &apex, config));
        let made = build(before.as_ref().map_or(first_serial(), |zone| zone.serial()));
        let made = made.and_then(|zone| match &before {
            Some(before) if journal::content(before) == journal::content(&zone) => Ok((zone, true)),
            Some(before) => build(before.serial().wrapping_add(1)).map(|zone| (zone, false)),
            None => Ok((zone, false)),
        });
        let written = made.and_then(|(zone, same)| {
            // Without it the serial may go back after a restart.
            if !same {
                let written = write(&config.file, &copy::encode(&zone));
                written.map_err(|error| problem(format!("not written: {error}")))?;
            }
            Ok(zone)
        });
        match written {
            Ok(zone) => {
                lock(&kept.part).members = Some(members.len());
                self.metrics.catalog.members(&kept.name, members.len());
                let warnings = Vec::new();
                self.serve(kept, config, zone::Loaded { zone, warnings }, None);
            }
            Err(problems) => self.failed(kept, config, &problems),
        }
    }

    /// Removes copies in the members' folder that belong to no member, once all catalogs have said what they list, and to none of a
    /// catalog that was configured until lately.
    pub(super) fn sweep(&self) {
        let catalogs = lock(&self.catalogs);
        if catalogs.lists.values().any(|list| !list.known) {
            return;
        }
        let folders: BTreeSet<&PathBuf> = catalogs
            .configured
            .values()
            .filter_map(|config| match &config.catalog {
                Some(Catalog::Consumer { folder, .. }) => Some(folder),
                _ => None,
            })
            .collect();
        let kept = lock(&self.kept).clone();
        let mut wanted: BTreeSet<PathBuf> = BTreeSet::new();
        for name in catalogs.owners.keys() {
            if let Some(kept) = kept.get(name) {
                let config = lock(&kept.config);
                wanted.extend([config.file.clone(), config.history_file.clone()]);
            }
        }
        for member in catalogs.left(Now::read()) {
            for folder in &folders {
                let copy = copy_file(folder, &member);
                wanted.extend([copy.with_added_extension("history"), copy]);
            }
        }
        for folder in folders {
            let Ok(entries) = std::fs::read_dir(folder) else {
                continue; // Nothing came yet.
            };
            for path in entries.flatten().map(|entry| entry.path()) {
                // What is being written beside a copy is left to who writes it.
                let beside = path.extension().is_some_and(|last| last == "new");
                let whose = if beside {
                    path.with_extension("")
                } else {
                    path.clone()
                };
                if !wanted.contains(&whose) {
                    let removed = std::fs::remove_file(&path).is_ok();
                    tracing::info!(file = %path.display(), removed, "copy of no member zone");
                }
            }
        }
    }
}

impl Catalogs {
    /// Which catalog has which zone.
    fn owners(&self) -> (Owners, Vec<Clash>) {
        let lists = self.lists.iter();
        let lists: BTreeMap<String, Vec<Member>> = lists
            .map(|(name, list)| (name.clone(), list.members.clone()))
            .collect();
        let before = self.owners.iter();
        let before = before
            .map(|(zone, (catalog, _))| (zone.clone(), catalog.clone()))
            .collect();
        let folder = self
            .configured
            .values()
            .find_map(|config| match &config.catalog {
                Some(Catalog::Consumer { folder, .. }) => Some(folder),
                _ => None,
            });
        let is_kept = |member: &Member| {
            let several = lists.len() > 1; // Else there is nothing to choose.
            several && folder.is_some_and(|folder| copy_file(folder, member).exists())
        };
        let configured = |zone: &str| self.configured.contains_key(zone);
        catalog::owners(&lists, &before, configured, is_kept)
    }

    /// What catalogs listed last that were configured until lately. Marks those that are not any more, and forgets those that have
    /// not been for [`LEFT`].
    fn left(&self, now: Now) -> Vec<Member> {
        let mut followed = BTreeMap::new();
        for config in self.configured.values() {
            if let Some(Catalog::Consumer { members, .. }) = config.catalog {
                followed.insert(members_file(config), (config, members));
            }
        }
        let folders: BTreeSet<&Path> = followed.keys().filter_map(|file| file.parent()).collect();
        let entries = folders.iter().filter_map(|f| std::fs::read_dir(f).ok());
        let mut found = Vec::new();
        for path in entries.flatten().flatten().map(|entry| entry.path()) {
            let mark = path.extension().and_then(|last| last.to_str());
            let file = match mark {
                Some("members") if !followed.contains_key(&path) => {
                    let file = path.with_added_extension("left");
                    let at = UNIX_EPOCH + Duration::from_millis(now.unix_ms);
                    let marked = std::fs::File::options().append(true).open(&path);
                    let marked = marked.and_then(|file| file.set_modified(at));
                    if let Err(error) = marked.and_then(|()| std::fs::rename(&path, &file)) {
                        tracing::error!(file = %path.display(), %error, "members of a former catalog not marked");
                        path
                    } else {
                        tracing::info!(file = %file.display(), days = LEFT.as_secs() / 86_400, "catalog configured no more; copies of its members stay for now");
                        file
                    }
                }
                Some("left") => path,
                _ => continue,
            };
            let since = std::fs::metadata(&file).and_then(|about| about.modified());
            let since = since.ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            let age = since.map(|at| Duration::from_millis(now.unix_ms).saturating_sub(at));
            if age.is_none_or(|age| age >= LEFT) {
                let _ = std::fs::remove_file(&file); // Else the next time.
                continue;
            }
            // Any catalog's settings do to read it: its apex is in the file.
            let records = std::fs::read(&file).ok().and_then(|b| copy::decode(&b));
            let Some((config, limit)) = followed.values().next() else {
                continue;
            };
            let soa = records.iter().flatten().find(|record| record.rtype == SOA);
            let zone = soa.and_then(|soa| build(&soa.owner, config, records.as_ref()?).ok());
            let members = zone.and_then(|zone| catalog::members(&zone, *limit).ok());
            found.extend(members.unwrap_or_default());
        }
        found
    }

    /// The members of a catalog made here.
    fn members_of(&self, catalog: &str) -> Vec<Member> {
        let zones = self.configured.iter();
        zones
            .filter_map(|(name, config)| {
                let membership = config.member.as_ref()?;
                (canonical(&membership.catalog) == catalog).then(|| Member {
                    zone: name.clone(),
                    id: match &membership.id {
                        Some(id) => id.as_bytes().into(),
                        None => catalog::id(name),
                    },
                    groups: membership.groups.clone(),
                    coo: membership.coo.clone(),
                })
            })
            .collect()
    }
}

impl List {
    /// What the catalog said last before a restart.
    fn read(name: &str, config: &ZoneConfig, limit: usize) -> Self {
        let apex = zone::apex(name);
        let file = members_file(config);
        // It was configured before.
        if !file.exists() {
            let _ = std::fs::rename(file.with_added_extension("left"), &file);
        }
        let zone = apex.and_then(|apex| read(&members_file(config), &apex, config));
        match zone.map(|zone| catalog::members(&zone, limit)) {
            Some(Ok(members)) => Self {
                members,
                known: true,
            },
            _ => Self::default(),
        }
    }
}

/// The configuration of a member of the catalog with this one. `None`: it is no catalog that is followed.
fn of_member(catalog: &ZoneConfig, member: &Member) -> Option<ZoneConfig> {
    let Some(Catalog::Consumer {
        templates, folder, ..
    }) = &catalog.catalog
    else {
        return None;
    };
    let of_group = |template: &&Template| member.groups.contains(&template.name);
    let template = templates.iter().find(of_group).or(templates.first())?;
    let file = copy_file(folder, member);
    Some(ZoneConfig {
        name: member.zone.clone(),
        history_file: file.with_added_extension("history"),
        file,
        primaries: if template.primaries.is_empty() {
            catalog.primaries.clone()
        } else {
            template.primaries.clone()
        },
        allow_transfer: template.allow_transfer.clone(),
        notify: template.notify.clone(),
        journal: template.journal,
        ttl: catalog.ttl,
        ..ZoneConfig::default()
    })
}

/// Where the copy of a member is kept.
fn copy_file(folder: &Path, member: &Member) -> PathBuf {
    let id = blake3::hash(&member.id).to_hex();
    folder.join(format!(
        "{}.{}",
        file_name(&member.zone),
        &id.as_str()[..16]
    ))
}

/// Where is kept what a catalog said last that made sense.
fn members_file(config: &ZoneConfig) -> PathBuf {
    let mut path: OsString = config.file.clone().into();
    path.push(".members");
    path.into()
}

/// The zone of a copy. `None`: there is none that is whole.
fn read(path: &Path, apex: &[u8], config: &ZoneConfig) -> Option<Arc<Zone>> {
    let records = copy::decode(&std::fs::read(path).ok()?)?;
    build(apex, config, &records).ok()
}

fn build(apex: &[u8], config: &ZoneConfig, records: &[Record]) -> Result<Arc<Zone>, Vec<Problem>> {
    let from = config.file.display().to_string();
    let loaded = from_records(apex, &from, &[], |add| {
        for record in records {
            add(&record.owner, record.rtype, record.ttl, &record.data);
        }
    });
    loaded.map(|loaded| loaded.zone)
}

/// The first serial of a catalog: seconds of Unix time, so that one whose state was lost is still newer than it was.
fn first_serial() -> u32 {
    u32::try_from(Now::read().unix_ms / 1_000).unwrap_or(1)
}

/// How long copies of the members of a catalog stay that is configured no more.
const LEFT: Duration = Duration::from_secs(30 * 86_400);

#[cfg(test)]
mod tests;
