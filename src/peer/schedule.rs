//! Which chunk to fetch next, from whom. Pure: time and seed are arguments.
//!
//! Chunks that readers wait for come first. Else, when every source that may be asked holds the whole object, the
//! first missing chunk comes next, so that the edge moves steadily and readers behind it never stop; when some hold
//! only a part, the chunk that the fewest hold comes next, so that none is lost with its only source.
//!
//! A source that publishes the object is asked last: for chunks that no other source has or will have soon, each mirror
//! in an order of its own, so that a chunk leaves it about once. Only when the others are too slow for what waits for
//! them is it asked for what they have, too.

use std::collections::HashSet;
use std::time::Duration;

use crate::content::have::Have;
use crate::time::Now;

/// A chunk to fetch, and the source to ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fetch {
    /// Chunk number.
    pub index: u32,
    /// Place of the source among those given.
    pub source: usize,
}

/// What is known of one source of one object.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The chunks it holds; `None`: it does not know the version.
    pub have: Option<&'a Have>,
    /// Chunks asked of it and not answered yet, of all objects.
    pub in_flight: usize,
    /// How many of them there may be.
    pub limit: usize,
    /// How it does.
    pub health: &'a Health,
    /// Whether it publishes the object itself: it is asked last.
    pub origin: bool,
    /// Chunks on their way to it.
    pub coming: &'a [u32],
    /// Chunks per second it gave lately; 0: not known.
    pub pace: f64,
    /// The number by which it knows itself, if it fills the same object: chunks of the origin are shared out by it.
    pub rival: Option<u64>,
}

/// How one source does: what its failures and lies cost it.
#[derive(Clone, Debug, Default)]
pub struct Health {
    failures: u32,
    lies: u32,
    cut_off: bool,
    closed_until_ns: u64,
}

/// Whether a source may be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It may.
    Open,
    /// It failed lately.
    BackOff,
    /// It sent wrong bytes.
    CutOff,
}

/// The chunk that a reader waits for and that some source can be asked for now. `wants` is in the order of urgency;
/// `busy` are the chunks in flight.
#[must_use]
pub fn urgent(
    have: &Have,
    wants: &[u32],
    busy: &[u32],
    sources: &[Source<'_>],
    now: Now,
    seed: u64,
) -> Option<Fetch> {
    wants
        .iter()
        .copied()
        .filter(|&index| index < have.count() && !have.contains(index) && !busy.contains(&index))
        .find_map(|index| ask(index, sources, |_, _| true, now, seed))
}

/// The chunk to fetch next, readers' wants first; `own` is the number by which this node knows itself. `None` if nothing is missing that some source can be asked for now.
#[must_use]
pub fn next(
    have: &Have,
    wants: &[u32],
    busy: &[u32],
    sources: &[Source<'_>],
    now: Now,
    (own, seed): (u64, u64),
) -> Option<Fetch> {
    if let Some(fetch) = urgent(have, wants, busy, sources, now, seed) {
        return Some(fetch);
    }
    if !sources.iter().any(|source| source.room(now)) {
        return None;
    }
    let free = || have.missing().filter(|index| !busy.contains(index));
    let peers = |_: usize, source: &Source<'_>| !source.origin;
    let origins = |_: usize, source: &Source<'_>| source.origin;
    let open = |source: &&Source<'_>| source.health.standing(now) == Standing::Open;
    let others = || sources.iter().filter(open).filter(|s| !s.origin);
    if !others().any(|source| source.have.is_some() || !source.coming.is_empty()) {
        return free().find_map(|index| ask(index, sources, origins, now, seed));
    }
    let of_peers = {
        let mut candidates = free().filter_map(|index| ask(index, sources, peers, now, seed));
        let partial = others().any(|source| source.have.is_some_and(|h| h.held() < h.count()));
        if partial {
            candidates.take(WINDOW).min_by_key(|fetch| {
                let order = mix(seed ^ u64::from(fetch.index));
                (holders(fetch.index, sources), order)
            })
        } else {
            candidates.next()
        }
    };
    let of_origin = {
        let claimed: HashSet<u32> = others().flat_map(|s| s.coming).copied().collect();
        let alone = |i: &u32| !claimed.contains(i) && !others().any(|source| source.holds(*i));
        let candidates = free().filter(alone).take(WINDOW);
        candidates
            .filter_map(|index| ask(index, sources, origins, now, seed))
            .min_by_key(|fetch| {
                // Each chunk has its first among those that fill the object, by rendezvous hashing; so they do not ask
                // the origin for the same one, even before they hear of each other's claims.
                let weight = |run: u64| mix(run ^ mix(u64::from(fetch.index)));
                let rivals = others().filter_map(|source| source.rival);
                let before = rivals.filter(|run| weight(*run) > weight(own)).count();
                (before, mix(seed ^ u64::from(fetch.index)))
            })
    };
    match (of_peers, of_origin) {
        // Both are kept at work.
        (Some(peer), Some(origin)) => {
            let load = |fetch: &Fetch| sources[fetch.source].in_flight;
            Some(if load(&origin) < load(&peer) {
                origin
            } else {
                peer
            })
        }
        (None, None) => {
            let pace: f64 = others().map(|source| source.pace).sum();
            let backlog = free().filter(|i| others().any(|s| s.holds(*i))).count();
            let late = pace > 0.0 && backlog as f64 / pace > PATIENCE.as_secs_f64();
            // From the end: the others are asked for the rarest, or from the edge.
            let mut left: Vec<u32> = if late { free().collect() } else { Vec::new() };
            left.reverse();
            left.into_iter()
                .find_map(|index| ask(index, sources, origins, now, seed))
        }
        (peer, origin) => peer.or(origin),
    }
}

/// Another source than `first` for a chunk that one is late with: one that does not publish the object, if there is one.
#[must_use]
pub fn instead(first: Fetch, sources: &[Source<'_>], now: Now, seed: u64) -> Option<Fetch> {
    let other = |place: usize, _: &Source<'_>| place != first.source;
    ask(first.index, sources, other, now, seed)
}

impl Source<'_> {
    /// Whether one more chunk may be asked of it. A source that failed last gets one chunk as a trial.
    fn room(&self, now: Now) -> bool {
        let limit = if self.health.failures > 0 {
            1
        } else {
            self.limit
        };
        self.health.standing(now) == Standing::Open && self.in_flight < limit
    }

    fn holds(&self, index: u32) -> bool {
        self.have.is_some_and(|have| have.contains(index))
    }
}

impl Health {
    /// Whether it may be asked.
    #[must_use]
    pub fn standing(&self, now: Now) -> Standing {
        if now.mono_ns >= self.closed_until_ns {
            Standing::Open
        } else if self.cut_off {
            Standing::CutOff
        } else {
            Standing::BackOff
        }
    }

    /// How long it may not be asked yet; zero when it may.
    #[must_use]
    pub fn closed_for(&self, now: Now) -> Duration {
        Duration::from_nanos(self.closed_until_ns.saturating_sub(now.mono_ns))
    }

    /// It answered as it should. What was in flight when it was cut off does not help it.
    pub fn succeeded(&mut self, now: Now) {
        if self.standing(now) == Standing::CutOff {
            return;
        }
        self.failures = 0;
        self.closed_until_ns = 0;
        self.cut_off = false;
    }

    /// It was away, too slow or had a fault: it is left alone for 0.5 s, doubling to 30 s. Failures of what was in
    /// flight together count once.
    pub fn failed(&mut self, now: Now, seed: u64) {
        if self.standing(now) != Standing::Open {
            return;
        }
        let pause = doubled(BACK_OFF, self.failures, BACK_OFF_MAX);
        // Up to half as much again, so that those who lost it together do not return together.
        let extra = pause.mul_f64((mix(seed) % 1_000) as f64 / 2_000.0);
        self.failures = self.failures.saturating_add(1);
        self.cut_off = false;
        self.close(now, (pause + extra).min(BACK_OFF_MAX));
    }

    /// It sent wrong bytes: it is cut off for 30 s, doubling with each time to an hour. Good chunks in between do not
    /// shorten the next.
    pub fn lied(&mut self, now: Now) {
        if self.standing(now) == Standing::CutOff {
            return;
        }
        let pause = doubled(CUT_OFF, self.lies, CUT_OFF_MAX);
        self.lies = self.lies.saturating_add(1);
        self.cut_off = true;
        self.close(now, pause);
    }

    fn close(&mut self, now: Now, pause: Duration) {
        self.closed_until_ns = now.plus(pause).mono_ns;
    }
}

/// The source to ask for a chunk: of those that hold it and `may` be asked, the one with the least in flight; one that
/// publishes the object last.
fn ask(
    index: u32,
    sources: &[Source<'_>],
    may: impl Fn(usize, &Source<'_>) -> bool,
    now: Now,
    seed: u64,
) -> Option<Fetch> {
    sources
        .iter()
        .enumerate()
        .filter(|(place, source)| may(*place, source) && source.holds(index) && source.room(now))
        .min_by_key(|(place, source)| (source.origin, source.in_flight, mix(seed ^ *place as u64)))
        .map(|(source, _)| Fetch { index, source })
}

fn holders(index: u32, sources: &[Source<'_>]) -> usize {
    sources.iter().filter(|source| source.holds(index)).count()
}

fn doubled(first: Duration, times: u32, most: Duration) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(most)
}

/// Spreads a seed over all bits (the finaliser of SplitMix64).
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// First pause after a failure.
const BACK_OFF: Duration = Duration::from_millis(500);

/// Longest pause after failures.
const BACK_OFF_MAX: Duration = Duration::from_secs(30);

/// First pause after a lie.
const CUT_OFF: Duration = Duration::from_secs(30);

/// Longest pause after lies.
const CUT_OFF_MAX: Duration = Duration::from_secs(3_600);

/// An origin is asked for what others have, too, when they would take longer than this.
const PATIENCE: Duration = Duration::from_secs(8);

/// Chunks among which the rarest is looked for.
const WINDOW: usize = 4_096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Now = Now {
        mono_ns: 1_000_000_000_000,
        unix_ms: 0,
    };

    fn bitmap(bits: &[bool]) -> Have {
        let mut have = Have::empty(u32::try_from(bits.len()).unwrap());
        for (index, _) in bits.iter().enumerate().filter(|(_, bit)| **bit) {
            have.insert(u32::try_from(index).unwrap());
        }
        have
    }

    fn peer_source(health: &Health) -> Source<'_> {
        Source {
            have: None,
            in_flight: 0,
            limit: 0,
            health,
            origin: false,
            coming: &[],
            pace: 0.0,
            rival: None,
        }
    }

    fn whole(count: usize) -> Have {
        bitmap(&vec![true; count])
    }

    /// Fetches until nothing can be, each answered before the next; `from` are the sources' bitmaps.
    #[track_caller]
    fn check(have: &[bool], wants: &[u32], from: &[&[bool]], order: &[u32]) {
        let mut have = bitmap(have);
        let from: Vec<Have> = from.iter().map(|bits| bitmap(bits)).collect();
        let health = Health::default();
        let sources: Vec<Source<'_>> = from
            .iter()
            .map(|have| Source {
                have: Some(have),
                in_flight: 0,
                limit: 1,
                ..peer_source(&health)
            })
            .collect();
        let mut found = Vec::new();
        while let Some(fetch) = next(&have, wants, &[], &sources, START, (1, 7)) {
            found.push(fetch.index);
            have.insert(fetch.index);
        }
        assert_eq!(found, order);
    }

    #[test]
    fn whole_sources_are_asked_in_order_from_the_edge() {
        check(
            &[true, false, false, true, false],
            &[],
            &[&[true; 5], &[true; 5]],
            &[1, 2, 4],
        );
    }

    #[test]
    fn wanted_chunks_come_first_in_their_order() {
        check(&[false; 6], &[4, 2, 9], &[&[true; 6]], &[4, 2, 0, 1, 3, 5]);
    }

    #[test]
    fn partial_sources_are_asked_for_the_rarest_first() {
        check(
            &[false; 3],
            &[],
            &[
                &[true, true, true],
                &[true, false, true],
                &[true, false, false],
            ],
            &[1, 2, 0],
        );
    }

    #[test]
    fn chunk_that_no_source_holds_is_not_asked_for() {
        check(&[false; 3], &[1], &[&[true, false, false]], &[0]);
    }

    #[test]
    fn origin_is_asked_for_what_no_other_has_or_awaits() {
        let (all, some, health) = (
            whole(4),
            bitmap(&[true, false, false, false]),
            Health::default(),
        );
        let mut sources = [peer_source(&health), peer_source(&health)];
        (sources[0].have, sources[0].origin, sources[0].limit) = (Some(&all), true, 9);
        (sources[1].have, sources[1].coming, sources[1].limit) = (Some(&some), &[2], 1);
        let mut asked = Vec::new();
        while let Some(fetch) = next(&Have::empty(4), &[], &asked, &sources, START, (1, 5)) {
            asked.push(fetch.index);
            assert_eq!(fetch.source, usize::from(fetch.index == 0), "{fetch:?}");
            sources[fetch.source].in_flight += 1;
        }
        asked.sort_unstable();
        assert_eq!(asked, [0, 1, 3]);
        // A reader does not wait for the other.
        let fetch = next(&Have::empty(4), &[2], &asked, &sources, START, (1, 5)).unwrap();
        assert_eq!((fetch.index, fetch.source), (2, 0));
    }

    #[test]
    fn origin_helps_others_that_are_too_slow() {
        let (all, health) = (whole(100), Health::default());
        let mut sources = [peer_source(&health), peer_source(&health)];
        (sources[0].have, sources[0].origin, sources[0].limit) = (Some(&all), true, 9);
        (sources[1].have, sources[1].limit, sources[1].in_flight) = (Some(&all), 1, 1);
        let mut ask = |pace| {
            sources[1].pace = pace;
            next(&Have::empty(100), &[], &[0], &sources, START, (1, 5))
        };
        assert_eq!(ask(0.0), None);
        assert_eq!(ask(50.0), None);
        let late = Fetch {
            index: 99,
            source: 0,
        };
        assert_eq!(ask(5.0), Some(late));
    }

    #[test]
    fn mirrors_share_out_what_only_the_origin_has() {
        const RUNS: [u64; 3] = [11, 12, 13];
        let (all, some, health) = (whole(99), Have::empty(99), Health::default());
        let share = |own: u64| {
            let mut sources = vec![peer_source(&health)];
            (sources[0].have, sources[0].origin, sources[0].limit) = (Some(&all), true, 9);
            sources.extend(RUNS.iter().filter(|run| **run != own).map(|run| Source {
                have: Some(&some),
                rival: Some(*run),
                ..peer_source(&health)
            }));
            let mut asked = Vec::new();
            for seed in 0..20 {
                let fetch = next(&some, &[], &asked, &sources, START, (own, seed)).unwrap();
                asked.push(fetch.index);
            }
            asked
        };
        let asked: HashSet<u32> = RUNS.into_iter().flat_map(share).collect();
        assert_eq!(asked.len(), 60, "no chunk twice");
    }

    #[test]
    fn failing_source_backs_off_from_half_a_second_to_thirty() {
        let mut health = Health::default();
        let mut now = START;
        let mut last = Duration::ZERO;
        for round in 0..20 {
            health.failed(now, round);
            health.failed(now, round + 1);
            let pause = health.closed_for(now);
            assert!(pause >= BACK_OFF && pause <= BACK_OFF_MAX, "{pause:?}");
            assert!(pause >= last.min(Duration::from_secs(20)), "{pause:?}");
            assert_eq!(health.standing(now), Standing::BackOff);
            last = pause;
            now = now.plus(pause);
            assert_eq!(health.standing(now), Standing::Open);
        }
        health.succeeded(now);
        health.failed(now, 3);
        assert!(health.closed_for(now) < Duration::from_secs(1));
    }

    #[test]
    fn liar_is_cut_off_twice_as_long_each_time() {
        let mut health = Health::default();
        let mut now = START;
        for expected in [30, 60, 120, 240] {
            health.lied(now);
            health.succeeded(now); // What was in flight.
            health.failed(now, 1);
            assert_eq!(health.standing(now), Standing::CutOff);
            assert_eq!(health.closed_for(now), Duration::from_secs(expected));
            now = now.plus(Duration::from_secs(expected));
            assert_eq!(health.standing(now), Standing::Open);
            health.succeeded(now);
        }
    }

    #[test]
    fn source_that_failed_gets_one_chunk_as_a_trial() {
        let mut health = Health::default();
        health.failed(START, 1);
        let now = START.plus(Duration::from_secs(1));
        let have = whole(9);
        let source = |in_flight| Source {
            have: Some(&have),
            in_flight,
            limit: 4,
            ..peer_source(&health)
        };
        let empty = Have::empty(9);
        assert!(next(&empty, &[], &[], &[source(0)], START, (1, 1)).is_none());
        assert!(next(&empty, &[], &[], &[source(0)], now, (1, 1)).is_some());
        assert!(next(&empty, &[], &[0], &[source(1)], now, (1, 1)).is_none());
    }

    #[test]
    fn equal_sources_get_equal_shares() {
        let (have, all, health) = (Have::empty(30), whole(30), Health::default());
        for seed in 0..50 {
            let mut in_flight = [0; 3];
            let mut busy = Vec::new();
            for _ in 0..30 {
                let sources = in_flight.map(|in_flight| Source {
                    have: Some(&all),
                    in_flight,
                    limit: 10,
                    ..peer_source(&health)
                });
                let fetch = next(&have, &[], &busy, &sources, START, (1, seed)).unwrap();
                busy.push(fetch.index);
                in_flight[fetch.source] += 1;
                let (most, least) = (in_flight.iter().max(), in_flight.iter().min());
                assert!(most.unwrap() - least.unwrap() <= 1, "{in_flight:?}");
            }
            assert_eq!(in_flight, [10; 3]);
        }
    }

    #[derive(Debug, Clone)]
    struct Peer {
        knows: bool,
        bits: Vec<bool>,
        in_flight: usize,
        limit: usize,
        events: Vec<u8>,
        origin: bool,
        coming: Vec<u32>,
    }

    fn peer(count: usize) -> impl Strategy<Value = Peer> {
        (
            any::<bool>(),
            prop::collection::vec(prop::bool::weighted(0.7), count),
            0usize..4,
            0usize..4,
            prop::collection::vec(0u8..6, 0..4),
            any::<bool>(),
            prop::collection::vec(0u32..40, 0..4),
        )
            .prop_map(
                |(knows, bits, in_flight, limit, events, origin, coming)| Peer {
                    knows,
                    bits,
                    in_flight,
                    limit,
                    events,
                    origin,
                    coming,
                },
            )
    }

    fn case() -> impl Strategy<Value = (Vec<bool>, Vec<u32>, Vec<u32>, Vec<Peer>, u64)> {
        (1usize..40).prop_flat_map(|count| {
            let index = 0..u32::try_from(count).unwrap() + 2;
            (
                prop::collection::vec(any::<bool>(), count),
                prop::collection::vec(index.clone(), 0..4),
                prop::collection::vec(index, 0..6),
                prop::collection::vec(peer(count), 0..4),
                any::<u64>(),
            )
        })
    }

    proptest! {
        #[test]
        fn next_is_missing_idle_and_from_an_open_source_exactly_when_there_is_one(
            (bits, wants, busy, peers, seed) in case()
        ) {
            let have = bitmap(&bits);
            let mut now = START;
            let bitmaps: Vec<Have> = peers.iter().map(|p| bitmap(&p.bits)).collect();
            let mut healths = Vec::new();
            for peer in &peers {
                let mut health = Health::default();
                for event in &peer.events {
                    match event {
                        0 => health.lied(now),
                        1 => health.failed(now, seed),
                        2 => health.succeeded(now),
                        3 => now = now.plus(Duration::from_secs(1)),
                        _ => now = now.plus(Duration::from_secs(40)),
                    }
                }
                healths.push(health);
            }
            let sources: Vec<Source<'_>> = peers.iter().enumerate().map(|(i, p)| Source {
                have: p.knows.then_some(&bitmaps[i]),
                in_flight: p.in_flight,
                limit: p.limit,
                health: &healths[i],
                origin: p.origin,
                coming: &p.coming,
                pace: 0.0,
                rival: None,
            }).collect();
            let able = |index: u32, place: usize| {
                let limit = if healths[place].failures > 0 { 1 } else { peers[place].limit };
                peers[place].knows
                    && peers[place].bits[index as usize]
                    && peers[place].in_flight < limit
                    && healths[place].closed_for(now).is_zero()
            };
            let free = |index: u32| {
                (index as usize) < bits.len() && !bits[index as usize] && !busy.contains(&index)
            };
            let can = |index: u32| free(index) && (0..peers.len()).any(|p| able(index, p));
            // Others that may be asked, though not now, and have the chunk or will have it.
            let awaited = |index: u32| (0..peers.len()).any(|p| {
                let holds = peers[p].knows && peers[p].bits[index as usize];
                let open = healths[p].closed_for(now).is_zero();
                !peers[p].origin && open && (holds || peers[p].coming.contains(&index))
            });
            let can_unwanted = |index: u32| free(index) && (0..peers.len()).any(|p| {
                able(index, p) && (!peers[p].origin || !awaited(index))
            });
            match next(&have, &wants, &busy, &sources, now, (1, seed)) {
                Some(fetch) => {
                    prop_assert!(free(fetch.index));
                    prop_assert!(able(fetch.index, fetch.source));
                    let wanted = wants.contains(&fetch.index);
                    if peers[fetch.source].origin && !wanted {
                        prop_assert!(!awaited(fetch.index), "the origin is asked last");
                    }
                    if let Some(first) = wants.iter().find(|&&index| can(index)) {
                        prop_assert_eq!(fetch.index, *first);
                    }
                }
                None => {
                    prop_assert!(!(0..have.count()).any(can_unwanted));
                    prop_assert!(!wants.iter().any(|&index| can(index)));
                }
            }
        }
    }
}
