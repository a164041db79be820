//! The one place that reads a clock. Everything below the drivers takes a [`Now`] as an argument.

use std::time::Duration;

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Nanoseconds of the monotonic clock, from an arbitrary start.
    pub mono_ns: u64,
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub unix_ms: u64,
}

impl Now {
    /// Reads the clocks. Only drivers and the roof call this.
    #[must_use]
    pub fn read() -> Self {
        use rustix::time::{ClockId, clock_gettime};
        let mono = clock_gettime(ClockId::Monotonic);
        // To the kernel's tick, some milliseconds: nothing needs it finer, and every packet reads it.
        let wall = clock_gettime(ClockId::RealtimeCoarse);
        Self {
            mono_ns: nanos(mono),
            unix_ms: nanos(wall) / 1_000_000,
        }
    }

    /// Reads both clocks to the kernel's tick, some milliseconds: for a fifth of the price, where no time is measured.
    #[must_use]
    pub fn coarse() -> Self {
        use rustix::time::{ClockId, clock_gettime};
        Self {
            mono_ns: nanos(clock_gettime(ClockId::MonotonicCoarse)),
            unix_ms: nanos(clock_gettime(ClockId::RealtimeCoarse)) / 1_000_000,
        }
    }

    /// The time between `earlier` and this reading on the monotonic clock; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.mono_ns.saturating_sub(earlier.mono_ns))
    }

    /// This reading moved forward by `by`, on both clocks. For tests and deadlines.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        let ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        Self {
            mono_ns: self.mono_ns.saturating_add(ns),
            unix_ms: self.unix_ms.saturating_add(ns / 1_000_000),
        }
    }

    /// Whole seconds of the monotonic clock.
    #[must_use]
    pub fn mono_secs(self) -> u64 {
        self.mono_ns / 1_000_000_000
    }
}

fn nanos(t: rustix::time::Timespec) -> u64 {
    let secs = u64::try_from(t.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(t.tv_nsec).unwrap_or(0);
    secs.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_plus_then_since_gives_the_step() {
        let start = Now {
            mono_ns: 5,
            unix_ms: 7,
        };
        let later = start.plus(Duration::from_secs(3));
        assert_eq!(later.since(start), Duration::from_secs(3));
        assert_eq!(start.since(later), Duration::ZERO);
        assert_eq!(later.unix_ms, 3_007);
    }
}
