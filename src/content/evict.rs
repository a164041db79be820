//! What to drop under a byte budget. Pure.
//!
//! The worth of an object is what it saves the link: bytes read of it, per byte it takes. That is its *heat*, counted
//! in readings of the whole, of which half is forgotten in every `store.cold`. A small object read once and a
//! large one read once are worth the same per byte; who reads a tenth of an object warms it by a tenth.
//!
//! What is new has the heat of one reading. What a reader waits for displaces the coldest there is, as in any cache; what is
//! replicated ahead of readers displaces only what is colder than [`COLD`]: not read for one
//! `store.cold`. So whoever publishes very much at once washes nothing out that is read, and a store too small for all that
//! is mirrored settles instead of turning over.

/// One object that might go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Bytes that its going gives back.
    pub bytes: u64,
    /// Readings of the whole lately; see [`decayed`].
    pub heat: f32,
    /// Somebody reads or fills it: its bytes would stay.
    pub pinned: bool,
    /// It stays at another node.
    pub elsewhere: bool,
}

/// What is needed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Need {
    /// Bytes to be given back.
    pub bytes: u64,
    /// Bytes that may be given back beyond, so that the next need is met already.
    pub spare: u64,
    /// Only what is colder goes.
    pub colder_than: f32,
}

/// The places of the candidates to drop, and their bytes: the coldest first, none that is pinned or stays at no other node, and
/// none that is not needed. Less than `need.bytes` if that is all there is.
#[must_use]
pub fn choose(candidates: &[Candidate], need: Need) -> (Vec<usize>, u64) {
    let may = |c: &Candidate| !c.pinned && c.elsewhere && c.bytes > 0 && c.heat < need.colder_than;
    let mut order: Vec<usize> = (0..candidates.len())
        .filter(|&place| may(&candidates[place]))
        .collect();
    order.sort_by(|&a, &b| {
        let heat = candidates[a].heat.total_cmp(&candidates[b].heat);
        heat.then(candidates[b].bytes.cmp(&candidates[a].bytes)) // Of equals few large ones.
    });
    let mut freed = 0;
    let enough = order.iter().position(|&place| {
        freed += candidates[place].bytes;
        freed >= need.bytes
    });
    let Some(last) = enough.filter(|_| need.bytes > 0) else {
        return if need.bytes > 0 {
            (order, freed)
        } else {
            (Vec::new(), 0)
        };
    };
    let rest = order.split_off(last + 1);
    // A large one at the end may have made smaller, hotter ones before it needless.
    let mut at = order.len();
    while at > 0 {
        at -= 1;
        let bytes = candidates[order[at]].bytes;
        if freed - bytes >= need.bytes {
            freed -= bytes;
            order.remove(at);
        }
    }
    let most = need.bytes.saturating_add(need.spare);
    for place in rest {
        let bytes = candidates[place].bytes;
        if freed.saturating_add(bytes) > most {
            break;
        }
        freed += bytes;
        order.push(place);
    }
    (order, freed)
}

/// The heat that is left of `heat` after `secs`, if half of it is forgotten in `cold_secs`.
#[must_use]
pub fn decayed(heat: f32, secs: u64, cold_secs: u64) -> f32 {
    // Years are cold enough: the conversion is exact for any time a process lives.
    heat * (-(secs as f32) / cold_secs.max(1) as f32).exp2()
}

/// Heat of what is new.
pub const NEW: f32 = 1.0;

/// What is colder may go for what nobody asked for yet: it was not read for as long as half is forgotten in.
pub const COLD: f32 = 0.5;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(bytes: u64, heat: f32) -> Candidate {
        Candidate {
            bytes,
            heat,
            pinned: false,
            elsewhere: true,
        }
    }

    #[track_caller]
    fn check(candidates: &[Candidate], bytes: u64, spare: u64, expected: &[usize]) {
        let need = Need {
            bytes,
            spare,
            colder_than: 1.0,
        };
        let (dropped, freed) = choose(candidates, need);
        assert_eq!(dropped, expected);
        let sum: u64 = expected.iter().map(|&place| candidates[place].bytes).sum();
        assert_eq!(freed, sum);
    }

    #[test]
    fn coldest_goes_first_and_no_more_than_needed() {
        let some = [candidate(10, 0.3), candidate(10, 0.1), candidate(10, 0.2)];
        check(&some, 5, 0, &[1]);
        check(&some, 15, 0, &[1, 2]);
        check(&some, 0, 100, &[]);
    }

    #[test]
    fn large_one_makes_smaller_ones_needless() {
        check(&[candidate(3, 0.1), candidate(90, 0.2)], 50, 0, &[1]);
    }

    #[test]
    fn hot_pinned_and_only_copies_stay() {
        let hot = candidate(10, 1.0);
        let pinned = Candidate {
            pinned: true,
            ..candidate(10, 0.0)
        };
        let only = Candidate {
            elsewhere: false,
            ..candidate(10, 0.0)
        };
        check(&[hot, pinned, only], 10, 10, &[]);
        check(&[hot, pinned, only, candidate(10, 0.5)], 10, 10, &[3]);
    }

    #[test]
    fn spare_takes_what_is_cold_next_and_fits() {
        let some = [candidate(10, 0.1), candidate(10, 0.2), candidate(10, 0.3)];
        check(&some, 10, 9, &[0]);
        check(&some, 10, 10, &[0, 1]);
    }

    #[test]
    fn heat_halves_in_each_time_that_makes_cold() {
        assert!((decayed(8.0, 0, 60) - 8.0).abs() < 1e-6);
        assert!((decayed(8.0, 180, 60) - 1.0).abs() < 1e-6);
        assert!(decayed(f32::MAX, u64::MAX, 1).abs() < f32::EPSILON);
    }

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let one = (
            0u64..50,
            0u8..20,
            prop::bool::weighted(0.2),
            prop::bool::weighted(0.8),
        );
        let one = one.prop_map(|(bytes, heat, pinned, elsewhere)| Candidate {
            bytes,
            heat: f32::from(heat) / 10.0,
            pinned,
            elsewhere,
        });
        proptest::collection::vec(one, 0..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn need_is_met_if_it_can_be_by_the_coldest_that_may_go(
            candidates in candidates(), bytes in 0u64..600, spare in 0u64..30, hot in 0u8..25,
        ) {
            let colder_than = f32::from(hot) / 10.0;
            let (dropped, freed) = choose(&candidates, Need { bytes, spare, colder_than });
            let may = |c: &Candidate| !c.pinned && c.elsewhere && c.heat < colder_than;
            let all: u64 = candidates.iter().filter(|c| may(c)).map(|c| c.bytes).sum();
            // Each at most once, each allowed to go, the sum right.
            let set: std::collections::BTreeSet<_> = dropped.iter().collect();
            prop_assert_eq!(set.len(), dropped.len());
            prop_assert!(dropped.iter().all(|&place| may(&candidates[place])));
            prop_assert_eq!(freed, dropped.iter().map(|&place| candidates[place].bytes).sum::<u64>());
            // Never above the budget when something can be dropped; never much below.
            prop_assert!(freed >= bytes.min(all));
            let needed = choose(&candidates, Need { bytes, spare: 0, colder_than });
            prop_assert!(freed <= needed.1.max(bytes + spare));
            for &place in &needed.0 {
                prop_assert!(needed.1 - candidates[place].bytes < bytes, "one is needless");
            }
            // What is hotter stays if what is colder is enough.
            let hottest = needed.0.iter().map(|&place| candidates[place].heat).fold(0.0, f32::max);
            let colder = candidates.iter().filter(|c| may(c) && c.heat < hottest);
            prop_assert!(needed.0.is_empty() || colder.map(|c| c.bytes).sum::<u64>() < bytes);
        }
    }
}
