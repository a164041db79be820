//! Fair shares of a full link: who opens many connections has no more of it than who opens one. Pure.
//!
//! A link that its readers fill is shared as water fills basins ([`level`]): who wants less than the level has all of that, the others
//! have the level each (max-min fairness). Who had to wait wants all it can have. What others want beyond what they have cannot be
//! seen, so they are held to want a tenth more, and half as much again while they have more and more: who is kept short
//! gains as much in every turn, until it has its share or all it wants.

use std::time::Duration;

use crate::time::Now;

/// What one client is to wait for, and what it moved lately. Bytes and bytes per second.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// What it moved, smoothed over [`FAST`] and over [`SLOW`].
    fast: f64,
    slow: f64,
    /// The last reading: when it was taken, and what had been moved.
    last: (Now, u64),
    /// Bytes that may go now; less than none when more has gone.
    tokens: f64,
    /// When tokens were last counted.
    at: Option<Now>,
    /// It had to wait since the last turn.
    held: bool,
}

impl Part {
    /// Of a client that comes `now` and has moved nothing.
    #[must_use]
    pub fn new(now: Now) -> Self {
        Self {
            fast: 0.0,
            slow: 0.0,
            last: (now, 0),
            tokens: 0.0,
            at: None,
            held: false,
        }
    }

    /// Takes a reading: until `now` it moved `moved` bytes in all, and might have `level` bytes per second, or what it would. Gives
    /// what it is held to want.
    pub fn observe(&mut self, moved: u64, now: Now, level: Option<f64>) -> f64 {
        let (then, before) = std::mem::replace(&mut self.last, (now, moved));
        let secs = now.since(then).as_secs_f64();
        let rate = moved.saturating_sub(before) as f64 / secs.max(1e-9);
        for (smoothed, time) in [(&mut self.fast, FAST), (&mut self.slow, SLOW)] {
            let weight = 1.0 - (-secs / time.as_secs_f64()).exp();
            *smoothed += weight * (rate - *smoothed);
        }
        let held = std::mem::take(&mut self.held);
        match level {
            Some(level) => {
                if self.wait(now, level) > Duration::ZERO || held {
                    self.held = false;
                    return f64::INFINITY;
                }
            }
            None => (self.tokens, self.at) = (0.0, None),
        }
        let rising = self.fast > RISE * self.slow;
        self.fast * if rising { RISING } else { STEADY }
    }

    /// How long it is to wait until it may move more, at `level` bytes per second; zero: it may now.
    pub fn wait(&mut self, now: Now, level: f64) -> Duration {
        let before = self.at.replace(now).unwrap_or(now);
        let gathered = now.since(before).as_secs_f64() * level;
        let most = level * BURST.as_secs_f64();
        self.tokens = (self.tokens + gathered).min(most);
        if self.tokens >= 0.0 {
            return Duration::ZERO;
        }
        self.held = true;
        Duration::from_secs_f64((-self.tokens / level).min(1.0)).max(SOONEST)
    }

    /// It moved `bytes`.
    pub fn took(&mut self, bytes: u64) {
        self.tokens -= bytes as f64;
    }
}

/// The level to which clients that want `wants` (any order, which is changed) fill a link of `capacity`; `None`: together they want
/// no more than it carries, and each may have all.
#[must_use]
pub fn level(capacity: f64, wants: &mut [f64]) -> Option<f64> {
    wants.sort_unstable_by(f64::total_cmp);
    let mut left = capacity;
    for (place, want) in wants.iter().enumerate() {
        let each = left / (wants.len() - place) as f64;
        if *want > each {
            return Some(each);
        }
        left -= want;
    }
    None
}

/// How soon a rise is seen.
const FAST: Duration = Duration::from_millis(300);

/// How long what a client moved is remembered.
const SLOW: Duration = Duration::from_millis(1_500);

/// The newest rate over the longer one, above which a client has more and more.
const RISE: f64 = 1.1;

/// What such a client is held to want, as a multiple of what it has.
const RISING: f64 = 1.5;

/// The same for a client that goes on as it did.
const STEADY: f64 = 1.1;

/// What gathers while a client moves nothing.
const BURST: Duration = Duration::from_millis(50);

/// Shorter waits are not worth a timer.
const SOONEST: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TURN: Duration = Duration::from_millis(100);

    const START: Now = Now {
        mono_ns: 7,
        unix_ms: 7,
    };

    #[track_caller]
    fn check(capacity: f64, wants: &[f64], expected: Option<f64>) {
        assert_eq!(level(capacity, &mut wants.to_vec()), expected, "{wants:?}");
    }

    #[test]
    fn level_is_where_the_link_is_full() {
        check(10.0, &[], None);
        check(10.0, &[9.0], None);
        check(10.0, &[30.0], Some(10.0));
        check(10.0, &[30.0, f64::INFINITY], Some(5.0));
        check(10.0, &[30.0, 1.0, 30.0], Some(4.5));
        check(10.0, &[3.0, 3.0, 4.0], None);
    }

    #[test]
    fn client_waits_for_what_it_took_too_much() {
        let mut part = Part::new(START);
        assert_eq!(part.wait(START, 1_000.0), Duration::ZERO);
        part.took(250);
        assert_eq!(part.wait(START, 1_000.0), Duration::from_millis(250));
        let later = START.plus(Duration::from_millis(251));
        assert_eq!(part.wait(later, 1_000.0), Duration::ZERO);
        // It did wait, and does no more; when nobody is held nothing is owed.
        let level = Some(1_000.0);
        assert_eq!(part.observe(250, later, level), f64::INFINITY);
        assert!(part.observe(250, later, level).is_finite());
        part.took(1 << 20);
        assert_eq!(part.observe(250, later, level), f64::INFINITY);
        assert!(part.observe(250, later, None).is_finite());
        assert_eq!(part.wait(later, 1_000.0), Duration::ZERO);
    }

    /// A link that gives each connection the same, as TCP does: what clients with so many `connections`, that take at most so
    /// much each, have of it after `secs`.
    fn share(capacity: f64, clients: &[(usize, f64)], secs: u64) -> Vec<f64> {
        let mut parts = vec![Part::new(START); clients.len()];
        let mut moved = vec![0.0; clients.len()];
        let mut had = vec![0.0; clients.len()];
        let mut now = START;
        let mut held = None;
        for _ in 0..secs * 10 {
            let most = held.unwrap_or(f64::INFINITY);
            now = now.plus(TURN);
            // Connections of clients that have their fill leave the rest to the others.
            had.fill(0.0);
            let mut left = capacity;
            loop {
                let wanting: Vec<f64> = (0..clients.len())
                    .map(|c| clients[c].1.min(most) - had[c])
                    .collect();
                let wants = |c: &usize| wanting[*c] > 1e-6;
                let open: usize = (0..clients.len()).filter(wants).map(|c| clients[c].0).sum();
                if open == 0 || left < 1e-6 {
                    break;
                }
                let each = left / open as f64;
                for c in (0..clients.len()).filter(wants) {
                    let more = wanting[c].min(each * clients[c].0 as f64);
                    had[c] += more;
                    left -= more;
                }
            }
            let mut wants: Vec<f64> = Vec::new();
            for c in 0..clients.len() {
                moved[c] += had[c] * TURN.as_secs_f64();
                parts[c].held = had[c] >= most;
                wants.push(parts[c].observe(moved[c] as u64, now, held));
            }
            held = level(capacity, &mut wants);
        }
        had
    }

    #[test]
    fn client_with_one_connection_comes_to_its_share_beside_one_with_many() {
        let had = share(12.5e6, &[(40, f64::MAX), (1, f64::MAX)], 5);
        assert!(had[1] > 0.48 * 12.5e6, "{had:?}");
        assert!(had[0] + had[1] > 0.999 * 12.5e6, "{had:?}");
    }

    #[test]
    fn client_that_wants_little_has_it_and_leaves_the_rest() {
        let had = share(12.5e6, &[(40, f64::MAX), (1, 2e6), (3, f64::MAX)], 5);
        assert!(had[1] > 0.99 * 2e6, "{had:?}");
        assert!((had[0] - had[2]).abs() < 0.06 * 12.5e6, "{had:?}");
        assert!(had.iter().sum::<f64>() > 0.98 * 12.5e6, "{had:?}");
    }

    proptest! {
        /// Nobody has more than the level, nobody who wants less is held, and what is given out is all there is.
        #[test]
        fn level_gives_out_the_link_and_no_more(
            capacity in 1.0f64..1e12,
            mut wants in prop::collection::vec(0.0f64..1e12, 0..40),
        ) {
            let all: f64 = wants.iter().sum();
            let found = level(capacity, &mut wants);
            let given: f64 = wants.iter().map(|w| w.min(found.unwrap_or(f64::INFINITY))).sum();
            let slack = capacity * 1e-9 + 1e-6;
            prop_assert!(given <= capacity + slack, "{given} of {capacity}");
            prop_assert!((given - all.min(capacity)).abs() <= slack + all * 1e-9, "{given}");
        }

        /// Over any time a client that is held moves its level and no more, but for one burst and one write.
        #[test]
        fn client_that_is_held_keeps_to_the_level(
            level in 1_000.0f64..1e9,
            steps in prop::collection::vec((0u64..300, 1u64..1 << 18), 1..200),
        ) {
            let mut now = START;
            let (mut part, mut moved) = (Part::new(START), 0);
            for (millis, bytes) in steps {
                now = now.plus(Duration::from_millis(millis));
                if part.wait(now, level).is_zero() {
                    part.took(bytes);
                    moved += bytes;
                }
            }
            let secs = now.since(START).as_secs_f64() + BURST.as_secs_f64();
            let most = level * secs + f64::from(1 << 18);
            prop_assert!(moved as f64 <= most * 1.000_001, "{moved} of {most}");
        }
    }
}
