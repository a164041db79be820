//! Response rate limiting: how many equal answers one network gets over UDP.
//!
//! Addresses of datagrams can be forged, so that answers go to somebody who did not ask. A network that is sent many
//! equal answers a second gets no more of them; but now and then a short one that a client who is real can act on
//! (TC, or BADCOOKIE). Each worker keeps a [`Table`] of its own: fixed in size, without a lock, under a seed of its own.
//!
//! Equal answers share a bucket that refills with time. When too many networks ask at once, the bucket that was used
//! longest ago makes room; the next answer of its key finds a full one. So the table errs on the side of answering.

use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::IpAddr;

use foldhash::fast::RandomState;

use crate::time::Now;

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is sent.
    Pass,
    /// A short one is sent in its place.
    Slip,
    /// Nothing is sent.
    Drop,
}

/// How much is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Equal answers per second and network, 1 to [`RATE_MAX`]; as many may come at once.
    pub responses: u32,
    /// Of this many refused answers one slips; 0: none.
    pub slip: u32,
}

/// What makes answers equal, beside the network they go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Equal {
    /// What in the zones they were made from.
    pub source: u64,
    /// How they ended, and, where it matters, for which type.
    pub kind: u64,
}

/// The buckets of one worker.
pub struct Table {
    sets: Box<[Set]>,
    hasher: RandomState,
    rate: Rate,
    lost: u64,
}

/// Buckets whose keys have the same low bits: one cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Set([Bucket; WAYS]);

/// What one network may still get of one kind of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    tag: u32,
    /// When it was last looked at, milliseconds of the monotonic clock, wrapping.
    at_ms: u32,
    /// Thousandths of answers left.
    left: u32,
    refused: u32,
}

impl Table {
    /// A table of so many full buckets: a power of two, at least [`BUCKETS_MIN`].
    #[must_use]
    pub fn new(rate: Rate, buckets: usize) -> Self {
        let rate = Rate {
            responses: rate.responses.clamp(1, RATE_MAX),
            ..rate
        };
        let sets = (buckets.max(BUCKETS_MIN) / WAYS).next_power_of_two();
        Self {
            sets: vec![Set([Bucket::full(0, 0, rate); WAYS]); sets].into(),
            hasher: RandomState::default(),
            rate,
            lost: 0,
        }
    }

    /// Counts one answer to `client`.
    #[inline]
    pub fn check(&mut self, client: IpAddr, equal: Equal, now: Now) -> Verdict {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u64(network(client));
        hasher.write_u64(equal.source);
        hasher.write_u64(equal.kind);
        let hash = hasher.finish();
        let now_ms = (now.mono_ns / 1_000_000) as u32; // Wraps after 49 days.
        let tag = (hash >> 32) as u32;
        let mask = self.sets.len() - 1;
        let Set(buckets) = &mut self.sets[hash as usize & mask];
        let place = buckets
            .iter()
            .position(|bucket| bucket.tag == tag)
            .unwrap_or_else(|| {
                let oldest = (0..WAYS).max_by_key(|&way| buckets[way].age(now_ms));
                let place = oldest.unwrap_or(0);
                self.lost += u64::from(!buckets[place].is_full(now_ms, self.rate));
                buckets[place] = Bucket::full(tag, now_ms, self.rate);
                place
            });
        buckets[place].take(now_ms, self.rate)
    }

    /// How many buckets that were not full yet made room for others since this was last asked.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("rate", &self.rate)
            .finish_non_exhaustive()
    }
}

impl Bucket {
    fn full(tag: u32, at_ms: u32, rate: Rate) -> Self {
        Self {
            tag,
            at_ms,
            left: rate.responses * ANSWER,
            refused: 0,
        }
    }

    fn age(&self, now_ms: u32) -> u32 {
        now_ms.wrapping_sub(self.at_ms)
    }

    /// What is left once it is refilled.
    #[inline]
    fn refilled(&self, now_ms: u32, rate: Rate) -> u32 {
        // A thousandth of the rate for each thousandth of a second; neither factor makes this overflow.
        let refill = self.age(now_ms).min(1_000) * rate.responses;
        (self.left + refill).min(rate.responses * ANSWER)
    }

    fn is_full(&self, now_ms: u32, rate: Rate) -> bool {
        self.refilled(now_ms, rate) == rate.responses * ANSWER
    }

    /// Refills, and takes one answer if there is one.
    #[inline]
    fn take(&mut self, now_ms: u32, rate: Rate) -> Verdict {
        self.left = self.refilled(now_ms, rate);
        self.at_ms = now_ms;
        if self.left >= ANSWER {
            self.left -= ANSWER;
            return Verdict::Pass;
        }
        self.refused = self.refused.wrapping_add(1);
        if rate.slip > 0 && self.refused.is_multiple_of(rate.slip) {
            Verdict::Slip
        } else {
            Verdict::Drop
        }
    }
}

/// The network of an address, /24 or /56, as a number. Both kinds never meet: no public IPv6 address begins with
/// so many zeros.
#[inline]
fn network(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => u64::from(address.to_bits() >> 8),
        IpAddr::V6(address) => (address.to_bits() >> 72) as u64,
    }
}

/// The highest rate.
pub const RATE_MAX: u32 = 1_000_000;

/// Thousandths of an answer in one.
const ANSWER: u32 = 1_000;

/// Buckets of the smallest table.
pub const BUCKETS_MIN: usize = 64;

const WAYS: usize = 4;
const _: () = assert!(size_of::<Set>() == 64);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const START: Now = Now {
        mono_ns: 5_000_000_000,
        unix_ms: 0,
    };
    const RATE: Rate = Rate {
        responses: 100,
        slip: 2,
    };
    const EQUAL: Equal = Equal { source: 1, kind: 2 };
    const BUCKETS: usize = 16_384;

    fn ms(ms: u64) -> Now {
        START.plus(Duration::from_millis(ms))
    }

    fn client(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn network_gets_its_rate_and_every_second_one_beyond_slips() {
        let mut table = Table::new(RATE, BUCKETS);
        let mut check = |text, now| table.check(client(text), EQUAL, now);
        for _ in 0..100 {
            assert_eq!(check("192.0.2.1", START), Verdict::Pass);
        }
        assert_eq!(check("192.0.2.1", START), Verdict::Drop);
        assert_eq!(check("192.0.2.200", START), Verdict::Slip, "the same /24");
        assert_eq!(check("192.0.3.1", START), Verdict::Pass, "another");
        assert_eq!(
            check("192.0.2.1", ms(10)),
            Verdict::Pass,
            "one a hundredth of a second"
        );
        assert_eq!(check("192.0.2.1", ms(10)), Verdict::Drop);
        let passed = (0..200).filter(|_| check("192.0.2.9", ms(5_000)) == Verdict::Pass);
        assert_eq!(passed.count(), 100, "not more for having been silent");
    }

    #[test]
    fn answers_that_differ_have_buckets_of_their_own() {
        let rate = Rate {
            responses: 1,
            slip: 0,
        };
        let mut table = Table::new(rate, BUCKETS);
        let six = client("2001:db8:0:100::1");
        assert_eq!(table.check(six, EQUAL, START), Verdict::Pass);
        assert_eq!(table.check(six, EQUAL, START), Verdict::Drop);
        assert_eq!(
            table.check(six, EQUAL, START),
            Verdict::Drop,
            "nothing slips"
        );
        assert_eq!(
            table.check(six, Equal { source: 9, ..EQUAL }, START),
            Verdict::Pass
        );
        assert_eq!(
            table.check(six, Equal { kind: 9, ..EQUAL }, START),
            Verdict::Pass
        );
        assert_eq!(
            table.check(client("2001:db8:0:1ff::1"), EQUAL, START),
            Verdict::Drop
        );
        assert_eq!(
            table.check(client("2001:db8:0:200::1"), EQUAL, START),
            Verdict::Pass
        );
    }

    #[test]
    fn buckets_that_make_room_too_early_are_counted() {
        let mut table = Table::new(RATE, BUCKETS_MIN);
        let network = |n: u32| IpAddr::V4((n << 8).into());
        for n in 0..u32::try_from(BUCKETS_MIN).unwrap() * 4 {
            table.check(network(n), EQUAL, START);
        }
        let lost = table.take_lost();
        // At least all that cannot be in the table any more, but for those that never were.
        assert!(
            (2 * BUCKETS_MIN as u64..=4 * BUCKETS_MIN as u64).contains(&lost),
            "{lost}"
        );
        assert_eq!(table.take_lost(), 0);
        // A second later every bucket is full again, and none is missed.
        for n in 0..u32::try_from(BUCKETS_MIN).unwrap() {
            table.check(
                network(1_000_000 + n),
                EQUAL,
                ms(1_000 + u64::from(n) * 1_000),
            );
        }
        assert_eq!(table.take_lost(), 0);
    }

    proptest! {
        /// Whatever the times: within any stretch at most the rate for its seconds and one more.
        #[test]
        fn no_stretch_of_time_gives_more_than_its_share(
            responses in 1u32..300, slip in 0u32..4,
            steps in prop::collection::vec((0u64..50, 1usize..40), 1..200),
        ) {
            let mut bucket = Bucket::full(0, 0, Rate { responses, slip });
            let mut passed: Vec<u64> = Vec::new();
            let (mut now, mut refused, mut slipped) = (0, 0u32, 0);
            for (wait, count) in steps {
                now += wait;
                for _ in 0..count {
                    match bucket.take(now as u32, Rate { responses, slip }) {
                        Verdict::Pass => passed.push(now),
                        verdict => {
                            refused += 1;
                            slipped += u32::from(verdict == Verdict::Slip);
                        }
                    }
                }
            }
            for (i, start) in passed.iter().enumerate() {
                for (j, end) in passed.iter().enumerate().skip(i) {
                    let allowed = u64::from(responses) * (1_000 + end - start) / 1_000;
                    prop_assert!((j - i) as u64 <= allowed);
                }
            }
            prop_assert_eq!(slipped, refused.checked_div(slip).unwrap_or(0));
        }

        /// Below the rate nothing is refused, however many networks ask beside: a lost bucket comes back full.
        #[test]
        fn who_keeps_below_the_rate_is_always_answered(
            asks in prop::collection::vec((0u64..30, any::<u32>()), 1..300),
        ) {
            let mut table = Table::new(RATE, BUCKETS);
            let mut now = 0;
            for (wait, other) in asks {
                now += wait.max(10);
                let quiet = table.check(client("192.0.2.1"), EQUAL, ms(now));
                prop_assert_eq!(quiet, Verdict::Pass);
                table.check(IpAddr::V4(other.into()), EQUAL, ms(now));
            }
        }

        #[test]
        fn clock_that_wraps_refuses_at_most_for_a_second(start in any::<u32>()) {
            let mut bucket = Bucket::full(0, start, RATE);
            for _ in 0..200 {
                bucket.take(start, RATE);
            }
            prop_assert_eq!(bucket.take(start.wrapping_add(1_000), RATE), Verdict::Pass);
        }
    }
}
