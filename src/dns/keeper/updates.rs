//! Zones that are changed by updates: the file of updates beside the master file, and the two joined.
//!
//! What an update said of a record counts over what the master file says, until both say the same; everything else
//! follows the file. So a file may be edited and reloaded beside updates. Each update is on disk before it is answered.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::sync::Arc;

use super::secondary::write;
use super::{Keeper, Kept, lock};
use crate::dns::ZoneConfig;
use crate::dns::transfer::history::{is_newer, serial};
use crate::dns::transfer::message::Entry;
use crate::dns::update::apply::{Changed, apply, with_serial};
use crate::dns::update::command;
use crate::dns::update::journal::{self, Step};
use crate::dns::wire::Rcode;
use crate::dns::zone::name;
use crate::dns::zone::overlay::Overlay;
use crate::dns::zone::{Loaded, Problem, Record, Zone};

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
    /// Bytes of the file, and when it is written anew.
    len: u64,
    rewrite_at: u64,
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
    /// Changes a zone (apex in wire form) as `change` says; the serial after it. All of it is on disk and in service
    /// afterwards, or nothing is changed. Blocking.
    ///
    /// # Errors
    /// The code of the answer.
    pub(in crate::dns) fn update(
        &self,
        apex: &[u8],
        change: impl FnOnce(&Zone) -> Result<Changed, Rcode>,
    ) -> Result<(u32, bool), Rcode> {
        let kept = lock(&self.kept).get(&name::to_text(apex)).cloned();
        let kept = kept.ok_or(Rcode::NotAuth)?;
        let mut updates = lock(&kept.turn);
        let config = lock(&kept.config).clone();
        if !config.primaries.is_empty() {
            return Err(Rcode::Refused);
        }
        let source = updates.source.clone().ok_or(Rcode::ServFail)?;
        let changed = change(&source)?;
        if changed.is_empty() {
            return Ok((source.serial(), false));
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
                tracing::warn!(zone = %kept.name, %problem, "update refused");
                Rcode::Refused
            })?;
        let step = Step {
            serial: serial(&soa),
            content: journal::content(&loaded.zone),
            soa: changed.soa,
            removed: changed.removed,
            added: changed.added,
        };
        if let Err(error) = updates.append(&config, &step) {
            let file = config.updates_file.display();
            tracing::error!(zone = %kept.name, %file, %error, "update not written");
            return Err(Rcode::ServFail);
        }
        updates.source = Some(loaded.zone.clone());
        self.serve(&kept, &config, loaded);
        // Signing may have raised it once more.
        let serving = self.serving().get(apex).map(|zone| zone.serial());
        Ok((serving.unwrap_or(step.serial), true))
    }

    /// Makes a record, as in a master file with absolute names, the only one of its type at its name, or one more
    /// (`beside`). Blocking.
    ///
    /// # Errors
    /// Why nothing was changed.
    pub fn set(&self, record: &str, beside: bool) -> Result<Updated, String> {
        let record = command::record(record)?;
        let owner = record.owner.clone();
        self.command(&owner, &command::set(record, beside))
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
        let done = self.update(zone.apex(), |zone| apply(zone, &[], changes));
        match done {
            Ok((serial, changed)) => Ok(Updated {
                zone: zone.name().to_owned(),
                serial,
                changed,
            }),
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
