//! How hot one object is: [`evict::decayed`] readings of the whole, counted without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

use super::evict;
use crate::time::Now;

/// The heat of one object: in the upper half as it was at the second in the lower half.
#[derive(Debug)]
pub(super) struct Heat {
    state: AtomicU64,
    /// Half of it is forgotten in this time.
    cold_secs: u64,
}

impl Heat {
    /// Of an object that is new.
    pub(super) fn new(now: Now, cold_secs: u64) -> Self {
        Self {
            state: AtomicU64::new(pack(evict::NEW, now)),
            cold_secs,
        }
    }

    pub(super) fn at(&self, now: Now) -> f32 {
        self.of(self.state.load(Ordering::Relaxed), now)
    }

    /// `read` of `size` bytes were read.
    pub(super) fn warm(&self, read: u64, size: u64, now: Now) {
        let more = read as f32 / size.max(1) as f32;
        let warmer = |state| Some(pack(self.of(state, now) + more, now));
        let updated = self
            .state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, warmer);
        debug_assert!(updated.is_ok(), "the function always gives a value");
    }

    /// A small object was read whole. Counted once a second: else all processors would write to one line at every
    /// request.
    pub(super) fn touch(&self, now: Now) {
        if self.state.load(Ordering::Relaxed) as u32 != now.mono_secs() as u32 {
            self.warm(1, 1, now);
        }
    }

    fn of(&self, state: u64, now: Now) -> f32 {
        // The seconds fit for 136 years, and wrap together.
        let secs = (now.mono_secs() as u32).wrapping_sub(state as u32);
        let heat = f32::from_bits((state >> 32) as u32);
        // Another thread may have read the clock a moment later.
        let secs = if secs > u32::MAX / 2 { 0 } else { secs };
        evict::decayed(heat, u64::from(secs), self.cold_secs)
    }
}

fn pack(heat: f32, now: Now) -> u64 {
    u64::from(heat.to_bits()) << 32 | u64::from(now.mono_secs() as u32)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn heat_rises_by_what_is_read_and_halves_when_cold() {
        let start = Now {
            mono_ns: 5_000_000_000,
            unix_ms: 0,
        };
        let heat = Heat::new(start, 60);
        let later = start.plus(Duration::from_secs(60));
        assert!((heat.at(later) - 0.5).abs() < 1e-6);
        heat.warm(50, 100, later);
        assert!((heat.at(later) - 1.0).abs() < 1e-6);
        assert!(
            (heat.at(start) - 1.0).abs() < 1e-6,
            "an earlier look forgets nothing"
        );
    }

    #[test]
    fn small_object_is_warmed_once_a_second() {
        let start = Now {
            mono_ns: 5_000_000_000,
            unix_ms: 0,
        };
        let heat = Heat::new(start, 3_600);
        let next = start.plus(Duration::from_secs(1));
        for now in [start, start, next, next] {
            heat.touch(now);
        }
        assert!((heat.at(next) - 2.0).abs() < 0.01, "{}", heat.at(next));
    }
}
