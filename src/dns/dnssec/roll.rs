//! When which key does what: the life of a zone's keys, from one rollover to the next.
//!
//! A zone has one kind of key, which signs everything and is what DS points to. A rollover goes
//!
//! ```text
//! new key in DNSKEY, both sign it          published
//!   | DNSKEY TTL + propagation             every validator can know the new key
//! new key signs the zone, CDS asks for it  active; the old one is retired
//!   | the parent's DS changes              seen
//!   | DS TTL, and TTLs of the zone         nobody needs the old key any more
//! old key gone
//! ```
//!
//! so that at every moment any mix of cached DS, DNSKEY and data validates (RFC 7583, with its pre-publication for the
//! data and its double-KSK for DS). Nothing here reads a clock.

use serde::{Deserialize, Serialize};

/// When the parent is told which key its DS shall point to (RFC 7344, RFC 8078).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cds {
    /// From when the key is ready until its DS was seen.
    Rollover,
    /// Whenever the key is ready.
    Always,
    /// Never.
    Never,
}

impl Cds {
    /// All, the default first.
    pub const ALL: [Self; 3] = [Self::Rollover, Self::Always, Self::Never];

    /// As in the configuration.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Rollover => "rollover",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

/// What happened to a key, Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Life {
    /// In DNSKEY since.
    pub(super) published: u64,
    /// Signs the zone since.
    pub(super) active: Option<u64>,
    /// Signs only DNSKEY since.
    pub(super) retired: Option<u64>,
    /// The parent's DS points to it since, at all its servers.
    pub(super) seen: Option<u64>,
}

/// How long what was published may be believed, seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) dnskey_ttl: u64,
    /// The highest TTL in the zone.
    pub(super) zone_ttl: u64,
    /// Until all secondaries have a change.
    pub(super) propagation: u64,
    pub(super) ds_ttl: u64,
}

/// Where the keys of a zone are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// One key, signing since too short a time for a DS record.
    Fresh { until: u64 },
    /// One key, ready for a DS record or with one.
    Steady,
    /// A new key is published and does not sign yet.
    Published { until: u64 },
    /// The new key signs; the parent's DS is to change.
    Waiting,
    /// The parent's DS has changed; the old key is still believed somewhere.
    Retiring { until: u64 },
}

impl Life {
    /// A key published at `now`; the first of a zone signs it at once.
    pub(super) fn new(now: u64, first: bool) -> Self {
        Self {
            published: now,
            active: first.then_some(now),
            retired: None,
            seen: None,
        }
    }
}

/// Where these keys (the older first, one or two) are at `now`.
pub(super) fn stage(lives: &[Life], limits: Limits, now: u64) -> Stage {
    match lives {
        [] => Stage::Steady,
        [only] => {
            let until = only.active.unwrap_or(now) + limits.zone_ttl + limits.propagation;
            if only.seen.is_none() && now < until {
                Stage::Fresh { until }
            } else {
                Stage::Steady
            }
        }
        [old, new, ..] => match (new.active, old.retired, new.seen) {
            (Some(_), Some(retired), Some(seen)) => Stage::Retiring {
                until: (seen + limits.ds_ttl).max(retired + limits.zone_ttl + limits.propagation),
            },
            (Some(_), ..) => Stage::Waiting,
            (None, ..) => Stage::Published {
                until: new.published + limits.dnskey_ttl + limits.propagation,
            },
        },
    }
}

/// Does what is due at `now`; true: the first key is to go, and is out of `lives`.
pub(super) fn advance(lives: &mut Vec<Life>, limits: Limits, now: u64) -> bool {
    match stage(lives, limits, now) {
        Stage::Published { until } if now >= until => {
            lives[0].retired = Some(now);
            lives[1].active = Some(now);
            false
        }
        Stage::Retiring { until } if now >= until => {
            lives.remove(0);
            true
        }
        _ => false,
    }
}

/// When `advance` or what the parent is told changes next by itself.
pub(super) fn due(lives: &[Life], limits: Limits, now: u64) -> Option<u64> {
    match stage(lives, limits, now) {
        Stage::Fresh { until } | Stage::Published { until } | Stage::Retiring { until } => {
            Some(until)
        }
        Stage::Steady | Stage::Waiting => None,
    }
}

/// The key that signs the zone: its place in `lives`.
pub(super) fn signing(lives: &[Life]) -> Option<usize> {
    lives
        .iter()
        .position(|life| life.active.is_some() && life.retired.is_none())
}

/// The key that the parent's DS may point to from now on; `None`: none yet that was not there before.
pub(super) fn ready(lives: &[Life], limits: Limits, now: u64) -> Option<usize> {
    match stage(lives, limits, now) {
        Stage::Steady | Stage::Waiting | Stage::Retiring { .. } => lives.len().checked_sub(1),
        Stage::Published { .. } => Some(0),
        Stage::Fresh { .. } => None,
    }
}

/// The key that the parent is told to point to.
pub(super) fn wanted(lives: &[Life], limits: Limits, cds: Cds, now: u64) -> Option<usize> {
    let ready = ready(lives, limits, now)?;
    match cds {
        Cds::Always => Some(ready),
        Cds::Rollover => lives[ready].seen.is_none().then_some(ready),
        Cds::Never => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// What a zone shows at one moment: keys in DNSKEY (all of which sign it), and the one that signs the data.
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
    struct Shown {
        keys: Vec<u32>,
        signing: u32,
    }

    /// A zone whose keys have numbers, second by second, and what its parent's DS may be at each.
    struct World {
        limits: Limits,
        /// Names of the keys in `lives`.
        names: Vec<u32>,
        lives: Vec<Life>,
        shown: Vec<Shown>,
        ds: Vec<BTreeSet<Option<u32>>>,
    }

    impl World {
        fn now(&self) -> u64 {
            self.shown.len() as u64
        }

        fn step(&mut self, ds: &BTreeSet<Option<u32>>) {
            let now = self.now();
            if advance(&mut self.lives, self.limits, now) {
                self.names.remove(0);
            }
            let signing = self.names[signing(&self.lives).expect("one key signs")];
            self.shown.push(Shown {
                keys: self.names.clone(),
                signing,
            });
            self.ds.push(ds.clone());
        }

        /// The different things seen at the end of `list` by caches that hold them for `ttl`.
        fn seen<T: Ord + Clone>(list: &[T], ttl: u64) -> BTreeSet<T> {
            let from = list.len().saturating_sub(ttl as usize + 1);
            list[from..].iter().cloned().collect()
        }

        /// Every validator, whatever it holds of DS, DNSKEY and data, finds a way from DS to the data.
        fn check(&self) -> Result<(), TestCaseError> {
            let limits = self.limits;
            let late = limits.propagation;
            let ds: BTreeSet<_> = Self::seen(&self.ds, limits.ds_ttl)
                .into_iter()
                .flatten()
                .collect();
            let dnskey = Self::seen(&self.shown, limits.dnskey_ttl + late);
            let data = Self::seen(&self.shown, limits.zone_ttl + late);
            for point in ds.into_iter().flatten() {
                for held in &dnskey {
                    prop_assert!(
                        held.keys.contains(&point),
                        "at {}: DS of key {point}, DNSKEY {held:?}",
                        self.now()
                    );
                    for data in &data {
                        prop_assert!(
                            held.keys.contains(&data.signing),
                            "at {}: data of key {}, DNSKEY {held:?}",
                            self.now(),
                            data.signing
                        );
                    }
                }
            }
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn any_rollovers_leave_no_validator_behind(
            dnskey_ttl in 0u64..12, zone_ttl in 0u64..12, propagation in 0u64..8, ds_ttl in 0u64..12,
            waits in proptest::collection::vec((0u64..30, 0u64..20, 0u64..6), 1..5),
        ) {
            let limits = Limits { dnskey_ttl, zone_ttl, propagation, ds_ttl };
            let mut world = World {
                limits,
                names: vec![0],
                lives: vec![Life::new(0, true)],
                shown: Vec::new(),
                ds: Vec::new(),
            };
            let mut point = None;
            let mut next = 1;
            for (before, parent, spread) in waits {
                for _ in 0..before {
                    world.step(&BTreeSet::from([point]));
                    world.check()?;
                }
                if world.lives.len() == 1 && point.is_some() {
                    world.lives.push(Life::new(world.now(), false));
                    world.names.push(next);
                    next += 1;
                }
                // The parent takes what it is told, some of its servers later than others.
                let mut patience = 100;
                while wanted(&world.lives, limits, Cds::Rollover, world.now()).is_none() && patience > 0 {
                    world.step(&BTreeSet::from([point]));
                    world.check()?;
                    patience -= 1;
                }
                let Some(at) = wanted(&world.lives, limits, Cds::Rollover, world.now()) else {
                    continue;
                };
                let told = world.names[at];
                for _ in 0..parent {
                    world.step(&BTreeSet::from([point]));
                    world.check()?;
                }
                for _ in 0..spread {
                    world.step(&BTreeSet::from([point, Some(told)]));
                    world.check()?;
                }
                point = Some(told);
                let at = world.names.iter().position(|name| *name == told).expect("it waits");
                world.lives[at].seen = Some(world.now());
                world.step(&BTreeSet::from([point]));
                world.check()?;
            }
            // Left alone, every rollover ends.
            for _ in 0..60 {
                world.step(&BTreeSet::from([point]));
                world.check()?;
            }
            prop_assert_eq!(world.lives.len(), 1);
            prop_assert!(point.is_none_or(|point| point == world.names[0]));
        }
    }

    #[test]
    fn parent_is_told_when_the_key_is_ready_until_its_ds_is_seen() {
        let limits = Limits {
            dnskey_ttl: 10,
            zone_ttl: 100,
            propagation: 5,
            ds_ttl: 50,
        };
        let mut lives = vec![Life::new(1_000, true)];
        let told = |lives: &[Life], cds, now| wanted(lives, limits, cds, now);
        assert_eq!(told(&lives, Cds::Rollover, 1_104), None);
        assert_eq!(due(&lives, limits, 1_104), Some(1_105));
        assert_eq!(told(&lives, Cds::Rollover, 1_105), Some(0));
        assert_eq!(told(&lives, Cds::Never, 1_105), None);
        lives[0].seen = Some(1_200);
        assert_eq!(told(&lives, Cds::Rollover, 1_200), None);
        assert_eq!(told(&lives, Cds::Always, 1_200), Some(0));
        lives.push(Life::new(2_000, false));
        assert_eq!(
            stage(&lives, limits, 2_000),
            Stage::Published { until: 2_015 }
        );
        assert!(!advance(&mut lives, limits, 2_014));
        assert_eq!(signing(&lives), Some(0));
        assert!(!advance(&mut lives, limits, 2_015));
        assert_eq!(
            (signing(&lives), stage(&lives, limits, 2_015)),
            (Some(1), Stage::Waiting)
        );
        assert_eq!(told(&lives, Cds::Rollover, 2_015), Some(1));
        lives[1].seen = Some(2_100);
        assert_eq!(
            stage(&lives, limits, 2_100),
            Stage::Retiring { until: 2_150 }
        );
        assert!(advance(&mut lives, limits, 2_150));
        assert_eq!(lives.len(), 1);
    }
}
