//! Remembered failures (RFC 9520): what could not be resolved is not asked again at once, but ever more rarely.

use std::fmt;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use super::key::Kept;
use crate::time::Now;

/// The failures remembered, by cache key. Bounded in bytes; the least used go first.
pub(super) struct Failures {
    entries: moka::sync::Cache<Kept, Failure, RandomState>,
    first: Duration,
    longest: Duration,
}

/// What is remembered of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// No failure.
    None,
    /// A failure long enough ago to ask again.
    Old,
    /// A failure so lately that it is not to be asked.
    Fresh,
}

#[derive(Clone, Copy)]
struct Failure {
    until: Now,
    life: Duration,
}

impl Failures {
    /// `lives`: how long the first failure of a question and, after doublings, the longest is remembered.
    pub(super) fn new(bytes: u64, lives: (Duration, Duration)) -> Self {
        let (first, longest) = lives;
        Self {
            entries: moka::sync::Cache::builder()
                .name("failures")
                .max_capacity(bytes)
                .weigher(|key: &Kept, _: &Failure| {
                    u32::try_from(key.len() + OVERHEAD).unwrap_or(u32::MAX)
                })
                .expire_after(Life)
                .build_with_hasher(RandomState::default()),
            first,
            longest,
        }
    }

    /// What is remembered of the question of `key` at `now`.
    pub(super) fn recall(&self, key: &[u8], now: Now) -> Memory {
        match self.entries.get(key) {
            None => Memory::None,
            Some(failure) if now.mono_ns < failure.until.mono_ns => Memory::Fresh,
            Some(_) => Memory::Old,
        }
    }

    /// Remembers a failure at `now`, twice as long as the one before.
    pub(super) fn remember(&self, key: &[u8], now: Now) {
        let life = self
            .entries
            .get(key)
            .map_or(self.first, |last| last.life * 2)
            .min(self.longest);
        let failure = Failure {
            until: now.plus(life),
            life,
        };
        self.entries.insert(Kept::from(key), failure);
    }

    /// Forgets what `key` failed: it has been answered.
    pub(super) fn forget(&self, key: &[u8]) {
        self.entries.invalidate(key);
    }

    /// Forgets every failure whose key `matches`.
    pub(super) fn flush(&self, matches: impl Fn(&[u8]) -> bool) {
        for (key, _) in self.entries.iter().filter(|(key, _)| matches(key)) {
            self.entries.invalidate(&**key);
        }
    }

    /// Does the bookkeeping moka has put off, then returns how many are remembered.
    pub(super) fn settle(&self) -> u64 {
        self.entries.run_pending_tasks();
        self.entries.entry_count()
    }
}

impl fmt::Debug for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failures")
            .field("first", &self.first)
            .field("longest", &self.longest)
            .finish_non_exhaustive()
    }
}

/// A failure is kept for as long again as it holds, so that the next one can be twice as long.
struct Life;

impl moka::Expiry<Kept, Failure> for Life {
    fn expire_after_create(&self, _: &Kept, failure: &Failure, _: Instant) -> Option<Duration> {
        Some(failure.life * 2)
    }

    fn expire_after_update(
        &self,
        _: &Kept,
        failure: &Failure,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(failure.life * 2)
    }
}

/// What moka and the allocator take per entry beside the key: measured, 405 bytes at first and 640 once most have been
/// replaced.
const OVERHEAD: usize = 600;

#[cfg(test)]
mod tests {
    use super::*;

    fn is_remembered(failures: &Failures, key: &[u8], now: Now) -> bool {
        failures.recall(key, now) == Memory::Fresh
    }

    #[test]
    fn failure_is_remembered_twice_as_long_each_time_up_to_the_longest() {
        let failures = Failures::new(1 << 20, (Duration::from_secs(1), Duration::from_secs(5)));
        let mut now = Now {
            mono_ns: 0,
            unix_ms: 0,
        };
        for life in [1, 2, 4, 5, 5] {
            failures.remember(b"key", now);
            let last = now.plus(Duration::from_millis(life * 1_000 - 1));
            assert!(is_remembered(&failures, b"key", last), "{life} s");
            now = now.plus(Duration::from_secs(life));
            assert!(!is_remembered(&failures, b"key", now), "{life} s");
        }
        failures.forget(b"key");
        failures.remember(b"key", now);
        let later = now.plus(Duration::from_secs(1));
        assert!(!is_remembered(&failures, b"key", later));
    }

    #[test]
    fn failures_flushed_are_forgotten_and_others_are_not() {
        let failures = Failures::new(1 << 20, (Duration::from_secs(9), Duration::from_secs(9)));
        let now = Now {
            mono_ns: 0,
            unix_ms: 0,
        };
        failures.remember(b"one", now);
        failures.remember(b"two", now);
        failures.flush(|key| key == b"one");
        assert!(!is_remembered(&failures, b"one", now));
        assert!(is_remembered(&failures, b"two", now));
    }
}
