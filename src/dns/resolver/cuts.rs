//! Names that do not exist, and so nothing beneath them (RFC 8020).
//!
//! The entries are those of the cache, found again by their name alone: whatever type was asked for.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use super::entry::Entry;
use super::key::{Kept, Key, Parts};
use super::message::{Record, Writer};
use super::reply::Reply;
use crate::time::Now;

/// The names known not to exist. Bounded in bytes.
pub(super) struct Cuts {
    entries: moka::sync::Cache<Kept, Arc<Entry>, RandomState>,
    /// Whether there has ever been one.
    any: AtomicBool,
}

impl Cuts {
    pub(super) fn new(bytes: u64) -> Self {
        Self {
            entries: moka::sync::Cache::builder()
                .name("cuts")
                .max_capacity(bytes)
                .weigher(|key: &Kept, entry: &Arc<Entry>| {
                    u32::try_from(key.len() + entry.weight() + OVERHEAD).unwrap_or(u32::MAX)
                })
                .expire_after(Life)
                .build_with_hasher(RandomState::default()),
            any: AtomicBool::new(false),
        }
    }

    /// Takes note of an answer to the question of `key`, if it says that the name does not exist.
    pub(super) fn learn(&self, key: &[u8], entry: &Arc<Entry>) {
        if entry.is_bare_nxdomain() {
            self.entries
                .insert(Kept::from(&*any_type(key)), Arc::clone(entry));
            self.any.store(true, Ordering::Release);
        }
    }

    /// The answer to the question of `key` if its name, or one above it, does not exist at `now`.
    pub(super) fn find(&self, key: &[u8], now: Now) -> Option<Entry> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let any = any_type(key);
        let mut rest: &[u8] = &any;
        let question = Key::parts(key);
        loop {
            if let Some(entry) = self.entries.get(rest)
                && entry.age(now).is_some()
            {
                return answer(question, &entry, now);
            }
            // The root exists.
            let label = usize::from(rest[0]);
            rest = rest.get(1 + label..)?;
            if rest[0] == 0 {
                return None;
            }
        }
    }

    /// Forgets what `matches`.
    pub(super) fn flush(&self, matches: impl Fn(&[u8]) -> bool) {
        for (key, _) in self.entries.iter().filter(|(key, _)| matches(key)) {
            self.entries.invalidate(&**key);
        }
    }
}

impl fmt::Debug for Cuts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cuts")
    }
}

/// The key with type 0, which is none.
fn any_type(key: &[u8]) -> Key {
    let Parts {
        name,
        dnssec_ok,
        checking_disabled,
        partition,
        ..
    } = Key::parts(key);
    Key::new(name, 0, dnssec_ok, checking_disabled, partition)
}

/// What `entry` proves about another question.
fn answer(question: Parts<'_>, entry: &Entry, now: Now) -> Option<Entry> {
    let old = entry.wire();
    let mut at = 12;
    while *old.get(at)? != 0 {
        at += 1 + usize::from(old[at]);
    }
    at += 5;
    let left = u32::try_from(entry.ttl_left(now)).unwrap_or(0).max(1);
    let mut writer = Writer::new(question.name, question.qtype);
    let answers_end = writer.bytes.len();
    let count = u16::from_be_bytes([*old.get(8)?, *old.get(9)?]);
    for _ in 0..count {
        let (record, next) = Record::read(old, at)?;
        writer.record(old, &record, record.ttl.min(left))?;
        at = next;
    }
    let mut wire = writer.bytes;
    wire[2..4].copy_from_slice(&[0x80, entry.rcode()]);
    wire[4..6].copy_from_slice(&1_u16.to_be_bytes());
    wire[8..10].copy_from_slice(&count.to_be_bytes());
    let reply = Reply {
        wire,
        ttls: writer.ttls,
        answers_end,
        ttl: left,
        negative: true,
        rcode: entry.rcode(),
        authentic: entry.is_authentic(),
        rrset: 0,
        onward: None,
        shortened: false,
    };
    Some(Entry::new(reply, now))
}

/// As long as it is fresh.
struct Life;

impl moka::Expiry<Kept, Arc<Entry>> for Life {
    fn expire_after_create(&self, _: &Kept, entry: &Arc<Entry>, _: Instant) -> Option<Duration> {
        Some(entry.fresh())
    }

    fn expire_after_update(
        &self,
        _: &Kept,
        entry: &Arc<Entry>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.fresh())
    }
}

/// What moka and the allocator take per entry beside key and entry: measured, 405 bytes at first and 640 once most have been
/// replaced.
const OVERHEAD: usize = 600;

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, ResponseCode};

    use super::super::partition::Partition;
    use super::super::reply::Bounds;
    use super::super::testing::{START, message, wire};
    use super::*;

    const BOUNDS: Bounds = Bounds {
        aliases: 11,
        min: 0,
        max: 86_400,
        negative_max: 3_600,
    };

    fn key(name: &str, qtype: u16) -> Key {
        Key::new(&wire(name), qtype, false, false, Partition(0))
    }

    fn cuts(name: &str, rcode: u16, answer: &[&str]) -> Cuts {
        let cuts = Cuts::new(1 << 20);
        let soa = "example. 600 SOA ns.example. host.example. 1 2 3 4 60";
        let message = message(name, 1, rcode, answer, &[soa]);
        let reply = Reply::read(&message, &Key::parts(&key(name, 1)), &[], BOUNDS).unwrap();
        cuts.learn(&key(name, 1), &Arc::new(Entry::new(reply, START)));
        cuts.entries.run_pending_tasks();
        cuts
    }

    #[test]
    fn name_beneath_one_that_does_not_exist_does_not_either() {
        let cuts = cuts("gone.example.", 3, &[]);
        let later = START.plus(Duration::from_secs(20));
        for (name, qtype) in [("a.b.gone.example.", 28), ("gone.example.", 16)] {
            let found = cuts.find(&key(name, qtype), later).unwrap();
            let message = Message::from_vec(found.wire()).unwrap();
            assert_eq!(message.response_code, ResponseCode::NXDomain);
            assert_eq!(message.queries[0].name.to_ascii(), name);
            assert_eq!(message.authorities[0].name.to_ascii(), "example.");
            assert_eq!(message.authorities[0].ttl, 40);
            assert_eq!(found.ttl_left(later), 40);
        }
        for name in ["example.", "begone.example.", "other."] {
            assert!(cuts.find(&key(name, 1), later).is_none(), "{name}");
        }
        let after = START.plus(Duration::from_secs(60));
        assert!(cuts.find(&key("a.gone.example.", 1), after).is_none());
    }

    #[test]
    fn name_that_exists_or_is_an_alias_cuts_nothing() {
        let nodata = cuts("here.example.", 0, &[]);
        assert!(nodata.find(&key("a.here.example.", 1), START).is_none());
        let alias = cuts("www.example.", 3, &["www.example. 9 CNAME gone.example."]);
        assert!(alias.find(&key("a.www.example.", 1), START).is_none());
    }

    #[test]
    fn cut_that_was_flushed_is_forgotten() {
        let cuts = cuts("gone.example.", 3, &[]);
        cuts.flush(|key| Key::parts(key).name == &*wire("gone.example."));
        assert!(cuts.find(&key("a.gone.example.", 1), START).is_none());
    }
}
