//! How fast a server answers, whether it lives, and which of several to ask. Pure.

use std::time::Duration;

use crate::time::Now;

/// What is known of one server's speed and life. Round trips are smoothed as in RFC 6298.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// Smoothed round trip and its variation, microseconds; both 0: never measured.
    srtt: u32,
    variation: u32,
    /// Waits in a row that ended without a reply.
    silences: u8,
    /// Not to be asked before, on the monotonic clock, unless nobody else is left.
    dead_until_ns: u64,
}

impl Health {
    /// A reply came `took` after the query.
    pub(super) fn answered(&mut self, took: Duration) {
        let took = u32::try_from(took.as_micros())
            .unwrap_or(u32::MAX)
            .clamp(1, MICROS_MAX);
        if self.srtt == 0 {
            (self.srtt, self.variation) = (took, took / 2);
        } else {
            let off = self.srtt.abs_diff(took);
            self.variation = self.variation - self.variation / 4 + off / 4;
            self.srtt = (self.srtt - self.srtt / 8 + took / 8).max(1);
        }
        self.lives();
    }

    /// It has answered, however late.
    pub(super) fn lives(&mut self) {
        (self.silences, self.dead_until_ns) = (0, 0);
    }

    /// The wait for a reply has ended at `now` without one. After [`SILENCES`] in a row the server counts as dead, for
    /// ever longer times.
    pub(super) fn fell_silent(&mut self, now: Now) {
        self.silences = self.silences.saturating_add(1).min(SILENCES + DOUBLINGS);
        if self.silences >= SILENCES {
            let rest = DEAD_FIRST * 2_u32.pow(u32::from(self.silences - SILENCES));
            self.dead_until_ns = now.plus(rest.min(DEAD_LONGEST)).mono_ns;
        }
    }

    /// It refused the connection, or there is no way to it: dead at once.
    pub(super) fn is_unreachable(&mut self, now: Now) {
        self.silences = self.silences.max(SILENCES - 1);
        self.fell_silent(now);
    }

    /// Somebody tries it again from `now` on; others need not.
    pub(super) fn put_off(&mut self, now: Now) {
        self.dead_until_ns = now.plus(DEAD_FIRST).mono_ns;
    }

    /// How long to wait for a reply before asking again.
    pub(crate) fn patience(&self) -> Duration {
        if self.srtt == 0 {
            return UNKNOWN;
        }
        let micros = u64::from(self.srtt) + 4 * u64::from(self.variation);
        Duration::from_micros(micros).clamp(PATIENCE_LEAST, PATIENCE_MOST)
    }

    /// The smoothed round trip; `None`: never measured.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        (self.srtt != 0).then(|| Duration::from_micros(self.srtt.into()))
    }

    /// Whether it is taken for dead, even if it is time to try it again.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead_until_ns != 0
    }
}

/// When a connection that failed may be tried again. A client query that comes before fails at once: handshakes cost both sides
/// more than questions do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    failures: u8,
    until_ns: u64,
}

impl Backoff {
    /// It failed at `now`: not again for twice as long as the last time.
    pub(super) fn failed(&mut self, now: Now) {
        let rest = BACKOFF_FIRST * 2_u32.pow(u32::from(self.failures));
        self.until_ns = now.plus(rest.min(BACKOFF_LONGEST)).mono_ns;
        self.failures = (self.failures + 1).min(DOUBLINGS);
    }

    /// It gave an answer.
    pub(super) fn worked(&mut self) {
        *self = Self::default();
    }

    /// Whether it is not to be tried at `now`.
    pub(super) fn rests(&self, now: Now) -> bool {
        now.mono_ns < self.until_ns
    }
}

/// The server to ask next: its place in `servers`. `tried` has a bit for each that was asked already.
///
/// One of those about as fast as the fastest, by the dice of `seed`; now and then any that lives, so that speeds stay
/// known. One never measured counts as fast. The dead come last, in the order of their time. `None`: all were tried.
///
/// At most 64 servers are looked at.
pub(crate) fn pick(servers: &[Health], tried: u64, seed: u64) -> Option<usize> {
    let left = || {
        servers
            .iter()
            .enumerate()
            .take(64)
            .filter(|(place, _)| tried >> place & 1 == 0)
    };
    let living = || left().filter(|(_, health)| !health.is_dead());
    let Some(best) = living().map(|(_, health)| health.srtt).min() else {
        return left()
            .min_by_key(|(_, health)| health.dead_until_ns)
            .map(|(place, _)| place);
    };
    let limit = if seed.is_multiple_of(EXPLORE) {
        u32::MAX
    } else {
        best.saturating_add(best / 2).saturating_add(BAND)
    };
    let near = || living().filter(|(_, health)| health.srtt <= limit);
    let count = near().count() as u64;
    // Below 64, so it fits; and there is one, the best.
    let place = (seed / EXPLORE % count.max(1)) as usize;
    near().nth(place).map(|(place, _)| place)
}

/// A dead server whose time has come to be tried again at `now`: to be asked beside one that lives, for no client to wait for it.
pub(crate) fn due(servers: &[Health], now: Now) -> Option<usize> {
    servers
        .iter()
        .position(|health| health.is_dead() && health.dead_until_ns <= now.mono_ns)
}

/// The wait for a server never measured, and the bounds for others.
const UNKNOWN: Duration = Duration::from_millis(376);
const PATIENCE_LEAST: Duration = Duration::from_millis(50);
const PATIENCE_MOST: Duration = Duration::from_millis(1_500);

/// Longest round trip that counts, microseconds.
const MICROS_MAX: u32 = 60_000_000;

/// Silences in a row that make a server dead; for how long at first and at most.
const SILENCES: u8 = 3;
const DEAD_FIRST: Duration = Duration::from_secs(1);
const DEAD_LONGEST: Duration = Duration::from_secs(60);
const DOUBLINGS: u8 = 6;

/// The rest after the first failed connection, and the longest.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
const BACKOFF_LONGEST: Duration = Duration::from_secs(8);

/// What does not count as slower, microseconds, beside half as slow again.
const BAND: u32 = 2_000;

/// One question of so many goes to any server that lives.
const EXPLORE: u64 = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::testing::START;
    use super::*;

    fn measured(millis: u64) -> Health {
        let mut health = Health::default();
        for _ in 0..20 {
            health.answered(Duration::from_millis(millis));
        }
        health
    }

    #[test]
    fn patience_follows_the_round_trip_within_its_bounds() {
        assert_eq!(Health::default().patience(), UNKNOWN);
        assert_eq!(measured(1).patience(), PATIENCE_LEAST);
        let far = measured(300).patience();
        assert!(far >= Duration::from_millis(300) && far < Duration::from_millis(350));
        assert_eq!(measured(30_000).patience(), PATIENCE_MOST);
    }

    #[test]
    fn server_silent_three_times_is_dead_for_ever_longer_until_it_answers() {
        let mut health = measured(10);
        let mut now = START;
        for _ in 0..2 {
            health.fell_silent(now);
            assert!(!health.is_dead());
        }
        for secs in [1, 2, 4, 8, 16, 32, 60, 60] {
            health.fell_silent(now);
            assert!(health.is_dead());
            let last = now.plus(Duration::from_millis(secs * 1_000 - 1));
            assert_eq!(due(&[health], last), None, "{secs} s");
            now = now.plus(Duration::from_secs(secs));
            assert_eq!(due(&[health], now), Some(0), "{secs} s");
        }
        health.answered(Duration::from_millis(10));
        assert!(!health.is_dead());
    }

    #[test]
    fn server_that_cannot_be_reached_is_dead_at_once() {
        let mut health = measured(10);
        health.is_unreachable(START);
        assert!(health.is_dead());
    }

    #[test]
    fn connection_that_fails_is_tried_again_ever_more_rarely_until_it_works() {
        let mut backoff = Backoff::default();
        let mut now = START;
        assert!(!backoff.rests(now));
        for millis in [250, 500, 1_000, 2_000, 4_000, 8_000, 8_000, 8_000] {
            backoff.failed(now);
            assert!(backoff.rests(now.plus(Duration::from_millis(millis - 1))));
            now = now.plus(Duration::from_millis(millis));
            assert!(!backoff.rests(now), "{millis} ms");
        }
        backoff.failed(now);
        backoff.worked();
        assert!(!backoff.rests(now));
    }

    fn any_health() -> impl Strategy<Value = Health> {
        (0_u64..500, 0_u8..6).prop_map(|(millis, silences)| {
            let mut health = if millis == 0 {
                Health::default()
            } else {
                measured(millis)
            };
            for _ in 0..silences {
                health.fell_silent(START);
            }
            health
        })
    }

    proptest! {
        /// Every server is picked in the end, once, the living before the dead.
        #[test]
        fn pick_goes_through_all_the_dead_last(servers in prop::collection::vec(any_health(), 1..20), seed: u64) {
            let (mut tried, mut dead_before) = (0, false);
            for _ in 0..servers.len() {
                let place = pick(&servers, tried, seed).unwrap();
                prop_assert!(tried >> place & 1 == 0, "picked twice");
                prop_assert!(!dead_before || servers[place].is_dead());
                dead_before = servers[place].is_dead();
                tried |= 1 << place;
            }
            prop_assert_eq!(pick(&servers, tried, seed), None);
        }

        /// But for the exploring ones, picks are about as fast as the best that lives; and no such server is left out.
        #[test]
        fn pick_is_among_the_fastest(servers in prop::collection::vec(any_health(), 1..8), start: u64) {
            let best = servers.iter().filter(|h| !h.is_dead()).map(|h| h.srtt).min();
            let Some(best) = best else { return Ok(()) };
            let limit = best + best / 2 + BAND;
            let mut seen = vec![0; servers.len()];
            for seed in 0..2_048_u64 {
                seen[pick(&servers, 0, start.wrapping_add(seed)).unwrap()] += 1;
            }
            for (health, times) in servers.iter().zip(seen) {
                if health.is_dead() {
                    prop_assert_eq!(times, 0);
                } else if health.srtt > limit {
                    prop_assert!(times <= 2 * 2_048 / EXPLORE, "{} of the slow", times);
                } else {
                    prop_assert!(times > 0, "one of the fast is never asked");
                }
            }
        }
    }
}
