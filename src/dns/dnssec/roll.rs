//! When which key does what: the life of a zone's keys, from one rollover to the next, and the way back to no signatures.
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
//! data and its double-KSK for DS). To a key of another algorithm it goes the conservative way (RFC 6781 section 4.1.4),
//! since some validators want the data signed by every algorithm in DNSKEY (RFC 6840 section 5.11):
//!
//! ```text
//! both sign the zone, old key in DNSKEY    active
//!   | TTLs of the zone + propagation       all data known anywhere has both signatures
//! new key in DNSKEY                        published
//!   | DNSKEY TTL + propagation             every validator can know the new key
//! CDS asks for the new key
//!   | the parent's DS changes              seen
//!   | DS TTL                               nobody looks for the old key any more
//! old key out of DNSKEY, still signs       withdrawn
//!   | DNSKEY TTL + propagation             nobody expects its signatures any more
//! old key gone
//! ```
//!
//! A zone that is to be signed no more has its DS removed first (RFC 8078 section 4); meanwhile its keys stay as they are.
//! Nothing here reads a clock.

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
    pub(super) published: Option<u64>,
    /// Signs the zone since.
    pub(super) active: Option<u64>,
    /// Signs only DNSKEY since; never if the next key is of another algorithm.
    pub(super) retired: Option<u64>,
    /// Out of DNSKEY since, but still signs the zone.
    #[serde(default)]
    pub(super) withdrawn: Option<u64>,
    /// The parent's DS points to it since, at all its servers.
    pub(super) seen: Option<u64>,
}

/// A zone on its way to no signatures, Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Leaving {
    /// Since when the parent is to remove its DS.
    pub(super) begun: u64,
    /// It has none since, at all its servers.
    pub(super) gone: Option<u64>,
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

/// The keys of a zone, the older first, one or two (none: it was never signed); and whether it is to be unsigned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Course {
    pub(super) lives: Vec<Life>,
    pub(super) leaving: Option<Leaving>,
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
    /// A new key of another algorithm signs and is not published yet.
    Presigned { until: u64 },
    /// A new key of another algorithm signs and is published.
    Introduced { until: u64 },
    /// The new key signs; the parent's DS is to change.
    Waiting,
    /// The parent's DS has changed; the old key is still believed somewhere.
    Retiring { until: u64 },
    /// The old key, of another algorithm, is published no more; its signatures are still expected somewhere.
    Withdrawn { until: u64 },
    /// The parent's DS is to go.
    Leaving,
    /// The parent has no DS; it is still believed somewhere.
    Left { until: u64 },
    /// Nobody expects signatures.
    Free,
}

/// What the parent is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing.
    Nothing,
    /// To point to this key alone.
    Key(usize),
    /// To have no DS (RFC 8078 section 4).
    Delete,
}

impl Life {
    /// A key published at `now`; the first of a zone signs it at once.
    pub(super) fn new(now: u64, first: bool) -> Self {
        Self {
            published: Some(now),
            active: first.then_some(now),
            retired: None,
            withdrawn: None,
            seen: None,
        }
    }

    /// A key of another algorithm than the one before: it signs at once and is published later.
    pub(super) fn of_other_algorithm(now: u64) -> Self {
        Self {
            published: None,
            active: Some(now),
            ..Self::new(now, true)
        }
    }
}

impl Course {
    /// Where the keys are at `now`.
    pub(super) fn stage(&self, limits: Limits, now: u64) -> Stage {
        match self.leaving {
            None => {}
            Some(Leaving { gone: None, .. }) => return Stage::Leaving,
            Some(Leaving { gone: Some(at), .. }) => {
                let until = at + limits.ds_ttl;
                return if now < until {
                    Stage::Left { until }
                } else {
                    Stage::Free
                };
            }
        }
        let known = limits.dnskey_ttl + limits.propagation;
        let signed = limits.zone_ttl + limits.propagation;
        match &self.lives[..] {
            [] => Stage::Steady,
            [only] => {
                let until = only.active.unwrap_or(now) + signed;
                if only.seen.is_none() && now < until {
                    Stage::Fresh { until }
                } else {
                    Stage::Steady
                }
            }
            [old, new, ..] => match (new.published, new.active, old.withdrawn) {
                (.., Some(withdrawn)) => Stage::Withdrawn {
                    until: withdrawn + known,
                },
                (None, active, _) => Stage::Presigned {
                    until: active.unwrap_or(now) + signed,
                },
                (Some(published), None, _) => Stage::Published {
                    until: published + known,
                },
                (Some(published), Some(_), _) => match (old.retired, new.seen) {
                    (Some(retired), Some(seen)) => Stage::Retiring {
                        until: (seen + limits.ds_ttl).max(retired + signed),
                    },
                    (None, Some(seen)) => Stage::Retiring {
                        until: seen + limits.ds_ttl,
                    },
                    (None, None) if now < published + known => Stage::Introduced {
                        until: published + known,
                    },
                    (_, None) => Stage::Waiting,
                },
            },
        }
    }

    /// Does what is due at `now`; true: the first key is to go, and is out of `lives`.
    pub(super) fn advance(&mut self, limits: Limits, now: u64) -> bool {
        match self.stage(limits, now) {
            Stage::Published { until } if now >= until => {
                self.lives[0].retired = Some(now);
                self.lives[1].active = Some(now);
                false
            }
            Stage::Presigned { until } if now >= until => {
                self.lives[1].published = Some(now);
                false
            }
            Stage::Retiring { until } if now >= until && self.lives[0].retired.is_none() => {
                self.lives[0].withdrawn = Some(now);
                false
            }
            Stage::Retiring { until } | Stage::Withdrawn { until } if now >= until => {
                self.lives.remove(0);
                true
            }
            _ => false,
        }
    }

    /// When `advance` or what the parent is told changes next by itself.
    pub(super) fn due(&self, limits: Limits, now: u64) -> Option<u64> {
        match self.stage(limits, now) {
            Stage::Fresh { until }
            | Stage::Published { until }
            | Stage::Presigned { until }
            | Stage::Introduced { until }
            | Stage::Retiring { until }
            | Stage::Withdrawn { until }
            | Stage::Left { until } => Some(until),
            Stage::Steady | Stage::Waiting | Stage::Leaving | Stage::Free => None,
        }
    }

    /// The keys in DNSKEY: their places in `lives`.
    pub(super) fn published(&self) -> Vec<usize> {
        self.those(|life| life.published.is_some() && life.withdrawn.is_none())
    }

    /// The keys that sign the zone.
    pub(super) fn signing(&self) -> Vec<usize> {
        self.those(|life| life.active.is_some() && life.retired.is_none())
    }

    fn those(&self, which: impl Fn(&Life) -> bool) -> Vec<usize> {
        let lives = self.lives.iter().enumerate();
        let those = lives.filter(|(_, life)| which(life));
        those.map(|(at, _)| at).collect()
    }

    /// The key that the parent's DS may point to from now on; `None`: none yet that was not there before.
    pub(super) fn ready(&self, limits: Limits, now: u64) -> Option<usize> {
        match self.stage(limits, now) {
            Stage::Steady | Stage::Waiting | Stage::Retiring { .. } | Stage::Withdrawn { .. } => {
                self.lives.len().checked_sub(1)
            }
            Stage::Published { .. } | Stage::Presigned { .. } | Stage::Introduced { .. } => Some(0),
            Stage::Fresh { .. } | Stage::Leaving | Stage::Left { .. } | Stage::Free => None,
        }
    }

    /// What the parent is to show, and does not as far as is known: `Told::Nothing` if nothing is waited for.
    pub(super) fn awaited(&self, limits: Limits, now: u64) -> Told {
        match (self.stage(limits, now), self.ready(limits, now)) {
            (Stage::Leaving, _) => Told::Delete,
            (_, Some(ready)) if self.lives[ready].seen.is_none() => Told::Key(ready),
            _ => Told::Nothing,
        }
    }

    /// What the parent is told.
    pub(super) fn told(&self, limits: Limits, cds: Cds, now: u64) -> Told {
        match (cds, self.ready(limits, now)) {
            (Cds::Never, _) => Told::Nothing,
            (Cds::Always, Some(ready)) => Told::Key(ready),
            _ => self.awaited(limits, now),
        }
    }

    /// Begins to have the DS removed. A zone that can have none yet needs no signatures at once.
    pub(super) fn leave(&mut self, limits: Limits, now: u64) {
        let never = matches!(self.stage(limits, now), Stage::Fresh { .. });
        self.leaving.get_or_insert(Leaving {
            begun: now,
            gone: never.then_some(0),
        });
    }

    /// Stays signed after all. The parent may have removed its DS in the meantime, so it is asked for anew.
    pub(super) fn stay(&mut self) {
        self.leaving = None;
        for life in &mut self.lives {
            life.seen = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// A key: a number of its own, and its algorithm.
    type Name = (u32, bool);

    /// What a zone shows at one moment: keys in DNSKEY (all of which sign it), and those that sign the data.
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
    struct Shown {
        keys: Vec<Name>,
        signing: Vec<Name>,
    }

    /// What happens to a zone, and to its parent.
    #[derive(Clone, Copy, Debug)]
    enum Act {
        /// A rollover; to another algorithm or not.
        Roll(bool),
        /// The parent does as it is told, its servers one after the other.
        Parent {
            spread: u64,
        },
        Leave,
        Stay,
        Wait(u64),
    }

    /// A zone second by second, and what its parent's DS may be at each.
    struct World {
        limits: Limits,
        /// Names of the keys in `lives`.
        names: Vec<Name>,
        course: Course,
        /// What DS points to.
        point: Option<Name>,
        shown: Vec<Shown>,
        ds: Vec<BTreeSet<Option<Name>>>,
    }

    impl World {
        fn now(&self) -> u64 {
            self.shown.len() as u64
        }

        fn stage(&self) -> Stage {
            self.course.stage(self.limits, self.now())
        }

        fn step(&mut self, other: Option<Name>) -> Result<(), TestCaseError> {
            let now = self.now();
            if self.course.advance(self.limits, now) {
                self.names.remove(0);
            }
            let names = |those: Vec<usize>| those.into_iter().map(|at| self.names[at]).collect();
            let unsigned = self.stage() == Stage::Free;
            self.shown.push(match unsigned {
                true => Shown {
                    keys: Vec::new(),
                    signing: Vec::new(),
                },
                false => Shown {
                    keys: names(self.course.published()),
                    signing: names(self.course.signing()),
                },
            });
            self.ds.push(BTreeSet::from([self.point, other]));
            self.check()
        }

        fn act(&mut self, act: Act) -> Result<(), TestCaseError> {
            let (limits, now) = (self.limits, self.now());
            match act {
                Act::Roll(other) if self.stage() == Stage::Steady => {
                    let (number, algorithm) = self.names[0];
                    self.names.push((number + 1, algorithm != other));
                    self.course.lives.push(match other {
                        true => Life::of_other_algorithm(now),
                        false => Life::new(now, false),
                    });
                }
                Act::Leave => self.course.leave(limits, now),
                // What is served unsigned starts anew, with another key.
                Act::Stay if self.stage() != Stage::Free => self.course.stay(),
                Act::Parent { spread } => {
                    let target = match self.course.told(limits, Cds::Rollover, now) {
                        Told::Nothing => return Ok(()),
                        Told::Key(at) => Some(self.names[at]),
                        Told::Delete => None,
                    };
                    let before = std::mem::replace(&mut self.point, target);
                    for _ in 0..spread {
                        self.step(before)?;
                    }
                    let now = self.now();
                    match self.course.awaited(limits, now) {
                        Told::Key(at) if target == Some(self.names[at]) => {
                            self.course.lives[at].seen = Some(now);
                        }
                        Told::Delete if target.is_none() => {
                            self.course.leaving.as_mut().expect("it leaves").gone = Some(now);
                        }
                        _ => {}
                    }
                }
                Act::Wait(seconds) => {
                    for _ in 0..seconds {
                        self.step(self.point)?;
                    }
                }
                Act::Roll(_) | Act::Stay => {}
            }
            self.step(self.point)
        }

        /// The different things seen at the end of `list` by caches that hold them for `ttl`.
        fn seen<T: Ord + Clone>(list: &[T], ttl: u64) -> BTreeSet<T> {
            let from = list.len().saturating_sub(ttl as usize + 1);
            list[from..].iter().cloned().collect()
        }

        /// Every validator, whatever it holds of DS, DNSKEY and data, finds a way from DS to the data, and the data signed
        /// by every algorithm that DNSKEY has.
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
                        "at {}: DS of key {point:?}, DNSKEY {held:?}",
                        self.now()
                    );
                    for data in &data {
                        let signed = |algorithm| {
                            let mut signing = data.signing.iter();
                            signing.any(|key| key.1 == algorithm && held.keys.contains(key))
                        };
                        prop_assert!(
                            held.keys.iter().all(|key| signed(key.1)),
                            "at {}: data of keys {:?}, DNSKEY {held:?}",
                            self.now(),
                            data.signing
                        );
                    }
                }
            }
            Ok(())
        }
    }

    fn acts() -> impl Strategy<Value = Act> {
        prop_oneof![
            3 => any::<bool>().prop_map(Act::Roll),
            4 => (0_u64..6).prop_map(|spread| Act::Parent { spread }),
            1 => Just(Act::Leave),
            1 => Just(Act::Stay),
            3 => (0_u64..40).prop_map(Act::Wait),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_leaves_no_validator_behind(
            dnskey_ttl in 0u64..12, zone_ttl in 0u64..12, propagation in 0u64..8, ds_ttl in 0u64..12,
            acts in proptest::collection::vec(acts(), 1..30),
        ) {
            let limits = Limits { dnskey_ttl, zone_ttl, propagation, ds_ttl };
            let mut world = World {
                limits,
                names: vec![(0, false)],
                course: Course { lives: vec![Life::new(0, true)], leaving: None },
                point: None,
                shown: Vec::new(),
                ds: Vec::new(),
            };
            for act in acts {
                world.act(act)?;
            }
            if world.stage() == Stage::Free {
                return Ok(());
            }
            // Left alone with a parent that does as it is told, every rollover ends.
            world.act(Act::Stay)?;
            for _ in 0..4 {
                world.act(Act::Wait(60))?;
                world.act(Act::Parent { spread: 1 })?;
            }
            world.act(Act::Wait(60))?;
            prop_assert_eq!(world.stage(), Stage::Steady);
            prop_assert_eq!(world.course.lives.len(), 1);
            prop_assert_eq!(world.point, Some(world.names[0]));
            // And so does the way out.
            world.act(Act::Leave)?;
            world.act(Act::Parent { spread: 1 })?;
            world.act(Act::Wait(60))?;
            prop_assert_eq!(world.stage(), Stage::Free);
        }
    }

    const LIMITS: Limits = Limits {
        dnskey_ttl: 10,
        zone_ttl: 100,
        propagation: 5,
        ds_ttl: 50,
    };

    fn course() -> Course {
        Course {
            lives: vec![Life::new(1_000, true)],
            leaving: None,
        }
    }

    #[test]
    fn parent_is_told_when_the_key_is_ready_until_its_ds_is_seen() {
        let mut course = course();
        let told = |course: &Course, cds, now| course.told(LIMITS, cds, now);
        assert_eq!(told(&course, Cds::Rollover, 1_104), Told::Nothing);
        assert_eq!(course.due(LIMITS, 1_104), Some(1_105));
        assert_eq!(told(&course, Cds::Rollover, 1_105), Told::Key(0));
        assert_eq!(told(&course, Cds::Never, 1_105), Told::Nothing);
        assert_eq!(course.awaited(LIMITS, 1_105), Told::Key(0));
        course.lives[0].seen = Some(1_200);
        assert_eq!(told(&course, Cds::Rollover, 1_200), Told::Nothing);
        assert_eq!(told(&course, Cds::Always, 1_200), Told::Key(0));
        course.lives.push(Life::new(2_000, false));
        let stage = |course: &Course, now| course.stage(LIMITS, now);
        assert_eq!(stage(&course, 2_000), Stage::Published { until: 2_015 });
        assert!(!course.advance(LIMITS, 2_014));
        assert_eq!(course.signing(), [0]);
        assert!(!course.advance(LIMITS, 2_015));
        assert_eq!(
            (course.signing(), stage(&course, 2_015)),
            (vec![1], Stage::Waiting)
        );
        assert_eq!(told(&course, Cds::Rollover, 2_015), Told::Key(1));
        course.lives[1].seen = Some(2_100);
        assert_eq!(stage(&course, 2_100), Stage::Retiring { until: 2_150 });
        assert!(course.advance(LIMITS, 2_150));
        assert_eq!(course.lives.len(), 1);
    }

    #[test]
    fn another_algorithm_signs_first_and_is_published_then_and_leaves_the_other_way_round() {
        let mut course = course();
        course.lives[0].seen = Some(1_200);
        course.lives.push(Life::of_other_algorithm(2_000));
        let look = |course: &Course, now| {
            let stage = course.stage(LIMITS, now);
            (stage, course.published(), course.signing())
        };
        let both = vec![0, 1];
        let until = 2_105;
        let presigned = (Stage::Presigned { until }, vec![0], both.clone());
        assert_eq!(look(&course, 2_000), presigned);
        assert!(!course.advance(LIMITS, 2_104));
        assert_eq!(look(&course, 2_104), presigned);
        assert!(!course.advance(LIMITS, 2_105));
        let introduced = (
            Stage::Introduced { until: 2_120 },
            both.clone(),
            both.clone(),
        );
        assert_eq!(look(&course, 2_119), introduced);
        assert_eq!(course.told(LIMITS, Cds::Rollover, 2_119), Told::Nothing);
        assert_eq!(course.told(LIMITS, Cds::Rollover, 2_120), Told::Key(1));
        assert_eq!(
            look(&course, 2_120),
            (Stage::Waiting, both.clone(), both.clone())
        );
        course.lives[1].seen = Some(2_200);
        assert!(!course.advance(LIMITS, 2_249));
        assert!(!course.advance(LIMITS, 2_250));
        let withdrawn = (Stage::Withdrawn { until: 2_265 }, vec![1], both);
        assert_eq!(look(&course, 2_250), withdrawn);
        assert!(course.advance(LIMITS, 2_265));
        assert_eq!(look(&course, 2_265), (Stage::Steady, vec![0], vec![0]));
    }

    #[test]
    fn zone_needs_no_signatures_when_its_ds_is_gone_everywhere() {
        let mut course = course();
        course.lives[0].seen = Some(1_200);
        course.leave(LIMITS, 3_000);
        assert_eq!(course.told(LIMITS, Cds::Rollover, 9_000), Told::Delete);
        assert_eq!(course.told(LIMITS, Cds::Never, 9_000), Told::Nothing);
        assert_eq!(course.awaited(LIMITS, 9_000), Told::Delete);
        if let Some(leaving) = &mut course.leaving {
            leaving.gone = Some(9_000);
        }
        assert_eq!(course.stage(LIMITS, 9_049), Stage::Left { until: 9_050 });
        assert_eq!(course.stage(LIMITS, 9_050), Stage::Free);
        assert_eq!(course.told(LIMITS, Cds::Always, 9_050), Told::Nothing);
        course.stay();
        assert_eq!(course.told(LIMITS, Cds::Rollover, 9_050), Told::Key(0));
        // Too new for a DS: nobody has ever expected a signature.
        let mut fresh = super::tests::course();
        fresh.leave(LIMITS, 1_001);
        assert_eq!(fresh.stage(LIMITS, 1_001), Stage::Free);
    }
}
