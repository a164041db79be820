//! When a secondary asks its primaries, and when it stops answering: the timers of the SOA (RFC 1034 section 4.3.5,
//! RFC 1035 section 3.3.13). Times are Unix milliseconds, since some of them outlive the process.

use super::history::number;
use crate::dns::zone::Record;

/// The timers of one secondary zone.
#[derive(Clone, Debug, Default)]
pub(in crate::dns) struct Refresh {
    timers: Option<Timers>,
    /// When a primary last said that the version here is current, or gave it.
    confirmed: Option<u64>,
    /// When the primaries are to be asked.
    due: u64,
    /// They are being asked.
    busy: bool,
    /// Told of a change meanwhile: they are to be asked once more.
    again: bool,
    failures: u32,
}

/// Seconds, from the SOA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Timers {
    refresh: u64,
    retry: u64,
    expire: u64,
}

impl Refresh {
    /// The version of this SOA was current at `confirmed`; the primaries are asked at once.
    pub(in crate::dns) fn restored(soa: &Record, confirmed: u64) -> Self {
        Self {
            timers: Some(Timers::of(soa)),
            confirmed: Some(confirmed),
            ..Self::default()
        }
    }

    /// Whether the primaries are to be asked now; if so, they are being asked until one of the next three.
    pub(in crate::dns) fn begin(&mut self, now: u64) -> bool {
        let due = !self.busy && self.due <= now;
        if due {
            self.busy = true;
            self.again = false;
        }
        due
    }

    /// Nobody could be asked: as many transfers as allowed are under way.
    pub(in crate::dns) fn postponed(&mut self) {
        self.busy = false;
    }

    /// The version of this SOA is current. `seed` spreads the zones.
    pub(in crate::dns) fn succeeded(&mut self, soa: &Record, now: u64, seed: u64) {
        let timers = Timers::of(soa);
        self.timers = Some(timers);
        self.confirmed = Some(now);
        self.failures = 0;
        self.end(now, timers.refresh, seed);
    }

    /// No primary gave an answer.
    pub(in crate::dns) fn failed(&mut self, now: u64, seed: u64) {
        self.failures = self.failures.saturating_add(1);
        let wait = match self.timers {
            Some(timers) => timers.retry,
            // Nothing to serve yet: eager at first.
            None => (FIRST_RETRY << self.failures.min(8).saturating_sub(1)).min(RETRY_MAX),
        };
        self.end(now, wait, seed);
    }

    /// A primary says that the zone has changed, or the operator wants to know.
    pub(in crate::dns) fn notified(&mut self, now: u64) {
        self.again = true;
        self.due = self.due.min(now);
    }

    /// When the primaries are asked next; `None`: they are being asked.
    pub(in crate::dns) fn next(&self) -> Option<u64> {
        (!self.busy).then_some(self.due)
    }

    /// When the version here may be answered no more; `None`: there is none.
    pub(in crate::dns) fn expires(&self) -> Option<u64> {
        Some(self.confirmed? + self.timers?.expire * 1_000)
    }

    fn end(&mut self, now: u64, wait_secs: u64, seed: u64) {
        self.busy = false;
        let wait = wait_secs * 1_000;
        // Up to a tenth earlier, so that zones of one primary do not come together.
        let early = if wait == 0 {
            0
        } else {
            seed % (wait / 10).max(1)
        };
        self.due = if std::mem::take(&mut self.again) {
            now
        } else {
            now + wait - early
        };
    }
}

impl Timers {
    fn of(soa: &Record) -> Self {
        let field = |from_end| u64::from(number(soa, from_end)).clamp(1, TIMER_MAX);
        Self {
            refresh: field(16),
            retry: field(12),
            expire: field(8),
        }
    }
}

/// Seconds before the first retry of a zone that never came.
const FIRST_RETRY: u64 = 2;

/// The longest such wait, seconds.
const RETRY_MAX: u64 = 300;

/// Longer timers are cut, seconds: half a year.
const TIMER_MAX: u64 = 15_768_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn soa(refresh: u32, retry: u32, expire: u32) -> Record {
        let mut data = vec![0, 0];
        for number in [1, refresh, retry, expire, 60] {
            data.extend(number.to_be_bytes());
        }
        Record {
            owner: (*b"\0").into(),
            rtype: 6,
            ttl: 60,
            data: data.into(),
        }
    }

    #[test]
    fn refresh_follows_the_soa_after_success_and_retry_after_failure() {
        let mut zone = Refresh::default();
        assert!(zone.begin(0) && !zone.begin(0));
        zone.failed(0, 0);
        assert_eq!((zone.next(), zone.expires()), (Some(2_000), None));
        assert!(zone.begin(2_000));
        zone.succeeded(&soa(100, 10, 1_000), 5_000, 0);
        assert_eq!(
            (zone.next(), zone.expires()),
            (Some(105_000), Some(1_005_000))
        );
        assert!(zone.begin(105_000));
        zone.failed(106_000, 0);
        assert_eq!(
            (zone.next(), zone.expires()),
            (Some(116_000), Some(1_005_000))
        );
    }

    #[test]
    fn notice_while_busy_asks_once_more() {
        let mut zone = Refresh::default();
        assert!(zone.begin(0));
        zone.notified(10);
        assert!(!zone.begin(10));
        zone.succeeded(&soa(100, 10, 1_000), 20, 0);
        assert!(zone.begin(20));
        zone.succeeded(&soa(100, 10, 1_000), 30, 0);
        assert!(!zone.begin(30));
    }

    #[test]
    fn failures_without_a_zone_back_off_to_a_bound() {
        let mut zone = Refresh::default();
        let mut now = 0;
        let waits: Vec<u64> = (0..10)
            .map(|_| {
                assert!(zone.begin(now));
                zone.failed(now, 0);
                let wait = zone.next().expect("not busy") - now;
                now += wait;
                wait / 1_000
            })
            .collect();
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 256, 256]);
    }

    proptest! {
        /// Whatever the SOA says, the zone is asked for again, and not before nine tenths of the time.
        #[test]
        fn next_is_never_at_once_and_always_comes(refresh: u32, retry: u32, expire: u32, seed: u64) {
            let mut zone = Refresh::default();
            zone.succeeded(&soa(refresh, retry, expire), 1_000, seed);
            let next = zone.next().expect("not busy");
            let wanted = u64::from(refresh).clamp(1, TIMER_MAX) * 1_000;
            prop_assert!(next > 1_000 + wanted * 9 / 10 - 1 && next <= 1_000 + wanted);
            prop_assert!(zone.expires().expect("a zone") > 1_000);
        }
    }
}
