//! The cache in a file: written when the node stops and now and then, read when it starts, or as the operator says.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::Weak;
use std::time::Duration;

use super::dump::{self, Refused, Saved};
use super::entry::Entry;
use super::key::Key;
use super::{Inner, Resolver};
use crate::time::Now;

/// What came of reading a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Answers taken over.
    pub entries: usize,
    /// Answers left out: too old, of a forward zone there is no more, or fetched anew meanwhile.
    pub skipped: usize,
    /// Answers refused.
    pub refused: usize,
    /// What was wrong with the first of them, and where.
    pub problems: Vec<String>,
}

/// Why a cache file was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// What the kernel said.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is larger than any file of a cache of this size.
    #[error("found {found} octets, expected at most {most}")]
    Large {
        /// Its size.
        found: u64,
        /// The most there may be.
        most: u64,
    },
}

impl Resolver {
    /// The file the cache is kept in over a restart, if it is.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.inner.config.cache.file.as_deref()
    }

    /// Writes every answer the cache holds to `path`, in one step: beside it first, then in its place. Returns how many.
    /// Walks the whole cache and writes a file: not for a DNS thread.
    ///
    /// # Errors
    /// What the kernel said; what was there before stays.
    pub fn save(&self, path: &Path) -> Result<usize, SaveError> {
        let inner = &self.inner;
        let beside = path.with_extension("new");
        let mut file = BufWriter::new(File::create(&beside)?);
        let mut part = dump::HEAD.to_vec();
        let mut count = 0_u32;
        let now = Now::read();
        for (key, entry) in inner.cache.entries() {
            if entry.is_gone(now, inner.config.cache.stale) {
                continue;
            }
            let parts = Key::parts(&key);
            let zone = inner.partitions.zone(parts.partition);
            dump::write(&entry.to_saved(parts, zone, now), &mut part);
            file.write_all(&part)?;
            part.clear();
            count += 1;
        }
        dump::finish(count, &mut part);
        file.write_all(&part)?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(count as usize)
    }

    /// Takes over the answers of a file, each checked, with the time they have left; what the cache holds already stays. Ends
    /// after half a minute, whatever is left. Reads a file: not for a DNS thread.
    ///
    /// # Errors
    /// The file cannot be read, or is too large. Answers that are refused are in what is returned.
    pub fn load(&self, path: &Path) -> Result<Loaded, SaveError> {
        let inner = &self.inner;
        let most = inner.config.cache.size.max(LEAST);
        let found = fs::metadata(path)?.len();
        if found > most {
            return Err(SaveError::Large { found, most });
        }
        let file = fs::read(path)?;
        let began = Now::read();
        let mut loaded = Loaded::default();
        for (place, part) in dump::Reader::new(&file).enumerate() {
            let taken = part.and_then(|(at, saved)| {
                let fault = dump::Fault::Malformed;
                take(inner, &saved, began).ok_or(Refused { at, fault })
            });
            match taken {
                Ok(true) => loaded.entries += 1,
                Ok(false) => loaded.skipped += 1,
                Err(refused) => {
                    loaded.refused += 1;
                    if loaded.problems.len() < PROBLEMS {
                        loaded.problems.push(refused.to_string());
                    }
                }
            }
            if place % 4_096 == 4_095 && Now::read().since(began) > TIME {
                loaded
                    .problems
                    .push(String::from("out of time; the rest was left out"));
                break;
            }
        }
        let entries = i64::try_from(loaded.entries).unwrap_or(i64::MAX);
        inner.metrics.resolver.restored.set(entries);
        Ok(loaded)
    }
}

/// Writes the cache to its file now and then, as long as there is a resolver. At the end the node does it itself.
pub(super) async fn keep(inner: Weak<Inner>) {
    let Some((file, save)) = inner.upgrade().and_then(|inner| {
        let cache = &inner.config.cache;
        Some((cache.file.clone()?, cache.save))
    }) else {
        return;
    };
    loop {
        tokio::time::sleep(save).await;
        let Some(inner) = inner.upgrade() else { return };
        let (resolver, path) = (Resolver { inner }, file.clone());
        let saved = tokio::task::spawn_blocking(move || resolver.save(&path)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(file = %file.display(), %error, "the cache was not written");
        }
    }
}

/// Takes over one answer; `false`: it is too old or not wanted. `None`: it is not well-formed.
fn take(inner: &Inner, saved: &Saved<'_>, now: Now) -> Option<bool> {
    // A clock that was set back makes an answer as old as new, not younger.
    let age_ms = now.unix_ms.saturating_sub(saved.fetched_ms);
    let age = u32::try_from(age_ms / 1_000).unwrap_or(u32::MAX);
    let bounds = inner.cache.bounds();
    let most = if saved.negative {
        bounds.negative_max
    } else {
        bounds.max
    };
    let ttl = saved.ttl.min(most);
    let since_boot = u32::try_from(now.mono_secs()).unwrap_or(u32::MAX);
    // What was fetched before the machine started cannot be told apart by its clock: it begins anew with what it has left.
    let (life, lowered, back) = if age < since_boot {
        (ttl, 0, age)
    } else {
        (ttl.saturating_sub(age), age, 0)
    };
    let (name, qtype, reply) = saved.restore(life, lowered)?;
    let partition = inner.partitions.find(&saved.wire[name.clone()]);
    if inner.partitions.zone(partition) != saved.zone || life == 0 {
        return Some(false);
    }
    let key = Key::new(
        &saved.wire[name],
        qtype,
        saved.dnssec_ok,
        saved.checking_disabled,
        partition,
    );
    let fetched = Now {
        mono_ns: now.mono_ns - Duration::from_secs(back.into()).as_nanos() as u64,
        unix_ms: now.unix_ms,
    };
    let forwarded = partition.0 != 0;
    // What the policy has changed since is fetched anew.
    if inner.policy.load().screen(&reply.wire, forwarded).is_some() {
        return Some(false);
    }
    let entry = Entry::new(reply, fetched);
    if entry.is_gone(now, inner.config.cache.stale) || inner.cache.held(&key).is_some() {
        return Some(false);
    }
    let entry = inner.cache.put(&key, entry, now);
    inner.cuts.learn(&key, &entry);
    Some(true)
}

/// The least a file may have, however small the cache, and the longest reading may take.
const LEAST: u64 = 1 << 20;
const TIME: Duration = Duration::from_secs(30);

/// Problems told of one file.
const PROBLEMS: usize = 10;
