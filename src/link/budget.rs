//! What replication may take of a link, so that viewers have what they want of it.
//!
//! [`Budget`] is one direction of the link. It is told how many bytes viewers moved so far, guesses from that how much they
//! want, and gives replication the rest of the capacity: all of it while nobody views, never less than its share. Guessing
//! has two sides. Viewers that just began cannot show yet what they want, since replication is in their way, so a rise counts
//! for more than it is; those that go on at one pace leave the rest unused, so little more than what they move is kept
//! free. That little is enough for them to show that they want more.

use std::time::Duration;

use crate::time::Now;

/// One direction of a link. Bytes and bytes per second.
#[derive(Clone, Debug)]
pub struct Budget {
    capacity: f64,
    share: f64,
    /// The last reading, and what viewers had moved until then.
    last: Option<(Now, u64)>,
    /// Viewers' rate, smoothed over [`FAST`] and over [`SLOW`].
    fast: f64,
    slow: f64,
    /// Bytes that may go now; less than none when a part that has gone was larger.
    tokens: f64,
}

impl Budget {
    /// Of a link that carries `capacity` bytes per second, of which replication has `share` (0 to 1) when viewers want all.
    #[must_use]
    pub fn new(capacity: u64, share: f64) -> Self {
        Self {
            capacity: capacity.max(1) as f64,
            share: share.clamp(0.0, 1.0),
            last: None,
            fast: 0.0,
            slow: 0.0,
            tokens: 0.0,
        }
    }

    /// The link carries `capacity` bytes per second from now on.
    pub fn set_capacity(&mut self, capacity: u64) {
        self.capacity = capacity.max(1) as f64;
    }

    /// What the link carries, bytes per second.
    #[must_use]
    pub fn capacity(&self) -> f64 {
        self.capacity
    }

    /// Takes a reading: until `now` viewers moved `viewed` bytes in all.
    pub fn observe(&mut self, now: Now, viewed: u64) {
        let Some((then, before)) = self.last else {
            self.last = Some((now, viewed));
            return;
        };
        let passed = now.since(then);
        if passed < READING {
            return; // Over so short a time a single write would be a flood.
        }
        self.last = Some((now, viewed));
        let secs = passed.as_secs_f64();
        let rate = viewed.saturating_sub(before) as f64 / secs;
        self.fast += weight(secs, FAST) * (rate - self.fast);
        self.slow += weight(secs, SLOW) * (rate - self.slow);
        let allowance = self.allowance();
        let most = (allowance * BURST.as_secs_f64()).max(PART_MIN as f64);
        self.tokens = (self.tokens + allowance * secs).min(most);
    }

    /// What viewers are held to want, bytes per second.
    #[must_use]
    pub fn demand(&self) -> f64 {
        let rising = self.fast > RISE * self.slow;
        let (rate, room) = if rising {
            (self.fast, RISING)
        } else {
            (self.fast.max(self.slow), STEADY)
        };
        (rate * room).min(self.capacity)
    }

    /// What replication may move now, bytes per second.
    #[must_use]
    pub fn allowance(&self) -> f64 {
        (self.capacity - self.demand()).max(self.capacity * self.share)
    }

    /// Bytes of the next part at most: about what may go in a hundredth of a second.
    #[must_use]
    pub fn part(&self) -> u64 {
        ((self.allowance() / 100.0) as u64).clamp(PART_MIN, PART_MAX)
    }

    /// Takes `bytes` out of the budget, if they may go now; else says how long it takes at least until they may.
    ///
    /// # Errors
    /// The time after which it is worth asking again.
    pub fn take(&mut self, now: Now, viewed: u64, bytes: u64) -> Result<(), Duration> {
        self.observe(now, viewed);
        // A part larger than what gathers at once is paid for afterwards.
        if self.tokens >= 0.0 {
            self.tokens -= bytes as f64 * WIRE;
            return Ok(());
        }
        let wait = -self.tokens / self.allowance();
        Err(Duration::from_secs_f64(wait.min(1.0)).max(READING))
    }
}

/// The weight of a reading that spans `secs` in an average over about `time`.
fn weight(secs: f64, time: Duration) -> f64 {
    1.0 - (-secs / time.as_secs_f64()).exp()
}

/// Readings are this far apart at least.
const READING: Duration = Duration::from_millis(2);

/// How soon a rise is seen.
const FAST: Duration = Duration::from_millis(40);

/// How long what viewers moved is remembered: longer than the kernel takes to send what it takes at once for one of them.
const SLOW: Duration = Duration::from_millis(600);

/// The newest rate over the longer one, above which viewers want more and more.
const RISE: f64 = 2.0;

/// What is kept free for viewers that want more and more, as a multiple of what they move.
const RISING: f64 = 4.0;

/// The same for viewers that go on as they did.
const STEADY: f64 = 1.25;

/// What gathers while nothing is to be moved.
const BURST: Duration = Duration::from_millis(20);

/// Bytes on the wire for each that is paid for: headers of Ethernet, IP and TCP. With less, replication would fill the
/// queue in front of the link, and viewers would wait behind it.
pub(super) const WIRE: f64 = 1.06;

/// Bytes of one part: so few that many connections have their turn in a second on a slow link, and so many that a
/// fast one is not kept busy with parts.
const PART_MIN: u64 = 1 << 10;
const PART_MAX: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Now = Now {
        mono_ns: 1,
        unix_ms: 1,
    };

    /// 100 Mbit/s.
    const CAPACITY: u64 = 12_500_000;

    /// A link of `capacity` on which time goes by in steps of 5 ms.
    struct Link {
        budget: Budget,
        capacity: f64,
        now: Now,
        viewed: u64,
        /// Bytes that viewers want and did not get yet, and that replication sent and the link has still to carry.
        wanting: f64,
        queued: f64,
    }

    impl Link {
        fn new(capacity: u64, share: f64) -> Self {
            let mut budget = Budget::new(capacity, share);
            budget.observe(START, 0);
            Self {
                budget,
                capacity: capacity as f64,
                now: START,
                viewed: 0,
                wanting: 0.0,
                queued: 0.0,
            }
        }

        /// `time` goes by in which viewers move what they want (bytes per second) as far as replication, which takes
        /// all it may, leaves room on the link. Returns the rates of both.
        fn pass(&mut self, time: Duration, wanted: f64) -> (f64, f64) {
            let steps = time.as_millis() / 5;
            let (mut viewers, mut background) = (0.0, 0.0);
            for _ in 0..steps {
                self.now = self.now.plus(Duration::from_millis(5));
                let (mut taken, part) = (0, self.budget.part());
                while self.budget.take(self.now, self.viewed, part).is_ok() {
                    taken += part;
                }
                let carries = self.capacity * 0.005;
                self.queued += taken as f64 * WIRE;
                self.wanting = (self.wanting + wanted * 0.005).min(20.0 * carries);
                // Who sends is never quite kept from the link.
                let moved = self
                    .wanting
                    .min((carries - self.queued).max(0.05 * carries));
                self.wanting -= moved;
                self.queued = (self.queued + moved - carries).max(0.0);
                self.viewed += moved as u64;
                viewers += moved;
                background += taken as f64;
            }
            let secs = steps as f64 * 0.005;
            (viewers / secs, background / secs)
        }
    }

    #[test]
    fn idle_link_is_used_fully() {
        let mut link = Link::new(CAPACITY, 0.3);
        let (_, background) = link.pass(Duration::from_secs(2), 0.0);
        assert!(background * WIRE > 0.98 * link.capacity, "{background}");
        assert!(background * WIRE < 1.02 * link.capacity, "{background}");
    }

    #[test]
    fn replication_yields_to_viewers_within_a_tenth_of_a_second() {
        let mut link = Link::new(CAPACITY, 0.3);
        link.pass(Duration::from_secs(2), 0.0);
        link.pass(Duration::from_millis(100), f64::MAX);
        let (viewers, background) = link.pass(Duration::from_millis(100), f64::MAX);
        assert!(background * WIRE < 0.32 * link.capacity, "{background}");
        assert!(viewers > 0.66 * link.capacity, "{viewers}");
    }

    #[test]
    fn replication_takes_what_viewers_leave() {
        let mut link = Link::new(CAPACITY, 0.3);
        link.pass(Duration::from_secs(1), 0.0);
        let wanted = 0.4 * link.capacity;
        link.pass(Duration::from_secs(2), wanted);
        let (viewers, background) = link.pass(Duration::from_secs(2), wanted);
        assert!(viewers > 0.98 * wanted, "{viewers}");
        assert!(background * WIRE > 0.45 * link.capacity, "{background}");
    }

    #[test]
    fn replication_has_the_link_again_once_viewers_are_gone() {
        let mut link = Link::new(CAPACITY, 0.3);
        link.pass(Duration::from_secs(3), f64::MAX);
        link.pass(Duration::from_secs(2), 0.0);
        let (_, background) = link.pass(Duration::from_secs(1), 0.0);
        assert!(background * WIRE > 0.95 * link.capacity, "{background}");
    }

    #[test]
    fn part_larger_than_the_burst_is_paid_for_afterwards() {
        let mut budget = Budget::new(1_000, 0.5);
        assert_eq!(budget.take(START, 0, 10_000), Ok(()));
        let wait = budget.take(START, 0, 1).unwrap_err();
        assert_eq!(wait, Duration::from_secs(1));
        let later = START.plus(Duration::from_millis(10_590));
        assert!(budget.take(later, 0, 1).is_err());
        assert_eq!(budget.take(later.plus(READING * 10), 0, 1), Ok(()));
    }

    proptest! {
        /// Whatever viewers do, and however readings are spaced, replication has its share and never more than the link.
        #[test]
        fn allowance_lies_between_the_share_and_the_link(
            capacity in 1u64..1 << 40,
            share in 0.0f64..=1.0,
            steps in prop::collection::vec((0u64..2_000, 0u64..1 << 40), 1..60),
        ) {
            let mut budget = Budget::new(capacity, share);
            let (mut now, mut viewed) = (START, 0u64);
            for (millis, moved) in steps {
                now = now.plus(Duration::from_millis(millis));
                viewed += moved;
                budget.observe(now, viewed);
                let allowance = budget.allowance();
                prop_assert!(allowance >= capacity as f64 * share * 0.999_999, "{allowance}");
                prop_assert!(allowance <= capacity as f64 * 1.000_001, "{allowance}");
                prop_assert!(budget.demand() >= 0.0);
            }
        }

        /// Over any time replication takes no more than the link carries, and one burst and one part.
        #[test]
        fn what_is_taken_keeps_to_the_link(
            capacity in 10_000u64..1 << 34,
            parts in prop::collection::vec((0u64..50, 1u64..=64 << 10), 1..200),
        ) {
            let mut budget = Budget::new(capacity, 0.3);
            let (mut now, mut taken) = (START, 0u64);
            for (millis, bytes) in parts {
                now = now.plus(Duration::from_millis(millis));
                while budget.take(now, 0, bytes).is_ok() {
                    taken += bytes;
                }
            }
            let secs = now.since(START).as_secs_f64();
            let burst = (capacity as f64 * BURST.as_secs_f64()).max(PART_MIN as f64);
            let most = capacity as f64 * secs + burst + 66_000.0 * WIRE;
            prop_assert!(taken as f64 * WIRE <= most * 1.000_001, "{taken} of {most}");
        }

        /// Saturating viewers of any link have what is theirs after 100 ms, whatever the share.
        #[test]
        fn viewers_who_want_all_are_yielded_to(
            capacity in 1_000_000u64..1 << 32,
            share in 0.05f64..0.9,
            idle in 100u64..3_000,
        ) {
            let mut link = Link::new(capacity, share);
            link.pass(Duration::from_millis(idle), 0.0);
            link.pass(Duration::from_millis(100), f64::MAX);
            let (_, background) = link.pass(Duration::from_millis(200), f64::MAX);
            let part = PART_MAX as f64 * 5.0 * WIRE;
            prop_assert!(background * WIRE <= share * link.capacity * 1.06 + part, "{background}");
            prop_assert!(background * WIRE >= share * link.capacity * 0.94 - part, "{background}");
        }
    }
}
