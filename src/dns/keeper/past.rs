//! What a zone was before: the differences between its versions, in memory and in a file beside its other state.
//!
//! The file is no truth of its own: it saves secondaries a whole transfer after a restart. So it is written without
//! waiting for the disk, and believed only if it leads to the version in service.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;

use super::secondary::write;
use super::{Keeper, Kept, lock};
use crate::dns::ZoneConfig;
use crate::dns::transfer::history::{Difference, History, serial};
use crate::dns::transfer::message::SOA;
use crate::dns::update::apply::Changed;
use crate::dns::update::journal::{content, content_after};
use crate::dns::zone::{Record, Zone};

/// The differences kept of a zone.
#[derive(Debug, Default)]
pub(super) struct Past {
    pub(super) history: History,
    /// Bytes of the file; 0: there is none.
    len: u64,
}

/// A step to the next version that need not be looked for, and the digest of the records after it.
#[derive(Debug)]
pub(super) struct Known {
    step: Difference,
    pub(super) content: u128,
}

impl Known {
    /// What `changed` made of `old`, by the names it touched; `before`: the digest of the records of `old`.
    pub(super) fn between(
        old: &Zone,
        new: &Zone,
        changed: &Changed,
        before: impl FnOnce() -> u128,
    ) -> Option<Self> {
        let touched = changed.removed.iter().chain(&changed.added);
        let owners: BTreeSet<&[u8]> = touched.map(|record| &*record.owner).collect();
        let (mut removed, mut added) = (Vec::new(), Vec::new());
        for owner in owners {
            let [was, is] = [old, new].map(|zone| {
                let mut records = zone.records_at(owner);
                records.retain(|record| record.rtype != SOA);
                records
            });
            let without = |of: &[Record], other: &[Record]| -> Vec<Record> {
                of.iter().filter(|r| !other.contains(r)).cloned().collect()
            };
            removed.append(&mut without(&was, &is));
            added.append(&mut without(&is, &was));
        }
        Some(Self {
            content: content_after(before(), &removed, &added),
            step: Difference {
                old: old.soa()?,
                new: new.soa()?,
                removed,
                added,
            },
        })
    }
}

impl Keeper {
    /// The differences from serial `from` to `zone`; `None`: they are not all here, or they are more than the zone.
    pub(in crate::dns) fn steps(
        &self,
        apex: &[u8],
        from: u32,
        zone: &Zone,
    ) -> Option<Vec<Arc<Difference>>> {
        let kept = lock(&self.kept)
            .get(&crate::dns::zone::name::to_text(apex))?
            .clone();
        let steps = lock(&kept.past).history.since(from)?;
        let leads_there = steps.last().is_some_and(|last| last.to() == zone.serial());
        let records: usize = steps.iter().map(|step| step.records()).sum();
        (leads_there && records < zone.records().max(100)).then_some(steps)
    }

    /// Notes how a version about to be in service differs from the one that is, if that may be asked for. True:
    /// others are to be told. The caller has the turn.
    pub(super) fn note(
        &self,
        kept: &Kept,
        config: &ZoneConfig,
        zone: &Arc<Zone>,
        known: Option<Known>,
    ) -> bool {
        let serving = self.serving();
        let old = serving.get(zone.apex());
        let changed = old.is_none_or(|old| old.serial() != zone.serial());
        if changed && !config.allow_transfer.is_empty() && config.journal > 0 {
            // The lock is for a moment: what is slow is done beside it, and nobody else writes.
            let past = std::mem::take(&mut *lock(&kept.past));
            let past = match old {
                None => restored(config, zone),
                Some(old) => follow(past, config, old, zone, known),
            };
            *lock(&kept.past) = past.unwrap_or_else(|error| {
                let file = config.history_file.display();
                tracing::warn!(zone = %kept.name, %file, %error, "differences not kept");
                let _ = std::fs::remove_file(&config.history_file); // It leads nowhere.
                Past::default()
            });
        }
        changed && !config.notify.is_empty()
    }
}

/// The past of the version that is served first, from the file.
fn restored(config: &ZoneConfig, zone: &Zone) -> std::io::Result<Past> {
    let path = &config.history_file;
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Past::default()),
        Err(error) => return Err(error),
    };
    let restored = History::restore(&bytes, config.journal, zone.serial(), || content(zone));
    let Some((history, whole)) = restored else {
        std::fs::remove_file(path)?;
        return Ok(Past::default());
    };
    if whole < bytes.len() {
        let file = File::options().write(true).open(path)?;
        file.set_len(whole as u64)?;
    }
    Ok(Past {
        history,
        len: whole as u64,
    })
}

/// The past with one step more.
fn follow(
    mut past: Past,
    config: &ZoneConfig,
    old: &Zone,
    zone: &Zone,
    known: Option<Known>,
) -> std::io::Result<Past> {
    let path = &config.history_file;
    let known = known.filter(|known| serial(&known.step.old) == old.serial());
    let (step, digest) = match known {
        Some(known) => (Some(known.step), Some(known.content)),
        None => (Difference::between(old, zone), None),
    };
    let Some(step) = step else {
        return Ok(Past::default());
    };
    if path.as_os_str().is_empty() {
        past.history.push(step, config.journal);
        return Ok(past);
    }
    let digest = digest.unwrap_or_else(|| content(zone));
    let entry = step.encode(digest);
    past.history.push(step, config.journal);
    let most = 2 * config.journal as u64;
    // Alone there: it does not follow what the file ends with.
    let follows = past.len > 0 && past.history.len() > 1;
    if follows && past.len + entry.len() as u64 <= most {
        let mut file = File::options().append(true).open(path)?;
        file.write_all(&entry)?;
        past.len += entry.len() as u64;
    } else if past.history.len() == 0 {
        // The step alone is over the bound.
        if past.len > 0 {
            std::fs::remove_file(path)?;
        }
        past.len = 0;
    } else {
        let bytes = past.history.encode(digest);
        write(path, &bytes)?;
        past.len = bytes.len() as u64;
    }
    Ok(past)
}
