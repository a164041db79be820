//! Zones to signed zones: keys and signatures from the store, the time from the caller.
//!
//! Signing takes a CPU for about 50 µs a record; it is for the blocking pool. Calls for one zone must come one after the
//! other, which the keeper's turn sees to.

use std::path::PathBuf;
use std::sync::Arc;

use super::key::{Key, KeyError};
use super::parent::Awaited;
use super::roll::{Course, Life, Limits, Stage, Told};
use super::sign::{self, Roles, Set, Terms};
use super::store::{State, Store, StoreError, Stored};
use super::{Config, Policy};
use crate::dns::zone::records::{Cursor, Take, from_records};
use crate::dns::zone::{Problem, Record, Zone};

/// Signs zones with the keys in a folder.
#[derive(Debug)]
pub struct Signer {
    store: Store,
    config: Config,
}

/// A zone that was signed.
#[derive(Debug)]
pub struct Signed {
    /// To be served.
    pub zone: Arc<Zone>,
    /// When it has to be signed again, Unix seconds.
    pub due: u64,
    /// Signatures made; the others were there.
    pub made: usize,
    /// What it waits for at its parent.
    pub awaited: Option<Awaited>,
}

/// Why a zone could not be signed, or a key not be changed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// A file of keys or signatures.
    #[error("{0}")]
    Store(String),
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The signed zone is none.
    #[error("signed zone: {}", .0.first().map_or("", |problem| problem.message.as_str()))]
    Zone(Vec<Problem>),
    /// Not now.
    #[error("{0}")]
    NotNow(String),
}

impl From<StoreError> for SignError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string())
    }
}

/// The keys of a zone, for `headwater zone ds`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyStatus {
    /// Its tag.
    pub tag: u16,
    /// Its algorithm, as in the configuration.
    pub algorithm: &'static str,
    /// What it does now, in words.
    pub doing: &'static str,
    /// Whether the parent's DS was seen to point to it.
    pub seen: bool,
    /// The DS record for the parent, as a line of a master file, once it may be there.
    pub ds: Option<String>,
    /// When this changes by itself, Unix seconds.
    pub until: Option<u64>,
}

impl Signer {
    /// A signer with its files in `dir`, which need not exist yet.
    #[must_use]
    pub fn new(dir: PathBuf, config: Config) -> Self {
        Self {
            store: Store::new(dir),
            config,
        }
    }

    /// Signs a zone at `now` (Unix seconds): does with its keys what is due, takes the signatures that are still good,
    /// makes the others. All that the next start needs is on disk before this returns.
    ///
    /// # Errors
    /// See [`SignError`]; nothing is to be served then that was not.
    pub fn sign(&self, zone: &Zone, policy: Policy, now: u64) -> Result<Signed, SignError> {
        let name = zone.name();
        let sets = sets(zone);
        let mut state = self.store.state(name)?.unwrap_or_default();
        let before = state.clone();
        if state.keys.is_empty() {
            state.keys.push(stored(policy, now, true)?);
        }
        let highest = sets.iter().map(|set| set.ttl).max().unwrap_or(0);
        let mut course = course(&state);
        let steady = course.lives.len() == 1 && course.lives[0].seen.is_some();
        let (zone_ttl, dnskey_ttl) = if steady {
            (0, 0)
        } else {
            (state.zone_ttl, state.dnskey_ttl)
        };
        state.zone_ttl = zone_ttl.max(highest);
        state.dnskey_ttl = dnskey_ttl.max(seconds(self.config.dnskey_ttl));
        state.denial = policy.denial;
        let limits = self.limits(&state);
        if course.advance(limits, now) {
            state.keys.remove(0);
        }
        set_course(&mut state, &course);
        if state != before {
            self.store.set_state(name, &state)?;
        }
        let keys = keys(&state)?;
        let these = |places: Vec<usize>| places.into_iter().map(|at| keys[at].clone()).collect();
        let told = course.told(limits, self.config.cds, now);
        let roles = Roles {
            published: these(course.published()),
            signing: these(course.signing()),
            wanted: match told {
                Told::Key(at) => vec![keys[at].clone()],
                Told::Nothing | Told::Delete => Vec::new(),
            },
            delete: told == Told::Delete,
        };
        let kept = self.store.signatures(name);
        let (lifetime, refresh) = (seconds(self.config.lifetime), seconds(self.config.refresh));
        let terms = Terms {
            now: now as u32, // Modulo 2^32, as signatures have it.
            lifetime,
            refresh: refresh + TOGETHER.min(lifetime / 20),
            dnskey_ttl: seconds(self.config.dnskey_ttl),
            proof: policy.denial,
        };
        let signed = sign::sign(zone.apex(), sets, &roles, &kept, state.served, terms)?;
        if state.served != Some(signed.served) {
            state.served = Some(signed.served);
            self.store.set_state(name, &state)?;
        }
        if signed.made > 0 || signed.kept.len() != kept.len() {
            self.store.set_signatures(name, &signed.kept)?;
        }
        let left = signed.expires.wrapping_sub(terms.now).wrapping_sub(refresh);
        let resign = now.saturating_add(u64::from(left));
        let due = course.due(limits, now).unwrap_or(u64::MAX).min(resign);
        let records = |add: &mut Take<'_>| {
            for set in &signed.sets {
                for data in &set.data {
                    add(&set.owner, set.rtype, set.ttl, data);
                }
            }
        };
        let loaded = from_records(zone.apex(), name, &[], records).map_err(SignError::Zone)?;
        Ok(Signed {
            zone: loaded.zone,
            due,
            made: signed.made,
            awaited: match course.awaited(limits, now) {
                Told::Nothing => None,
                Told::Key(at) => Some(Awaited::Ds(keys[at].ds(zone.apex()).into())),
                Told::Delete => Some(Awaited::Gone),
            },
        })
    }

    /// Begins to replace the key of a zone; sign it next. The new one is of the policy's algorithm.
    ///
    /// # Errors
    /// It was never signed, or a rollover is going on.
    pub fn roll(&self, zone: &str, policy: Policy, now: u64) -> Result<(), SignError> {
        let mut state = self.known(zone)?;
        match course(&state).stage(self.limits(&state), now) {
            Stage::Steady => {}
            Stage::Fresh { .. } => {
                return Err(SignError::NotNow(format!(
                    "{zone} is signed since too short a time for another key"
                )));
            }
            Stage::Leaving | Stage::Left { .. } | Stage::Free => {
                return Err(SignError::NotNow(format!(
                    "{zone} is to be signed no more; `headwater zone insecure {zone} --cancel` undoes that"
                )));
            }
            _ => {
                return Err(SignError::NotNow(format!(
                    "{zone} has a rollover going on; `headwater zone ds` says what it waits for"
                )));
            }
        }
        let old = keys(&state)?;
        let new = loop {
            let new = stored(policy, now, false)?;
            let tag = Key::new(new.algorithm, &new.private)?.tag();
            // So that the tag alone says which key is meant.
            if old.iter().all(|old| old.tag() != tag) {
                break new;
            }
        };
        let same = state.keys.iter().all(|key| key.algorithm == new.algorithm);
        let life = match same {
            true => new.life,
            false => Life::of_other_algorithm(now),
        };
        state.keys.push(Stored { life, ..new });
        Ok(self.store.set_state(zone, &state)?)
    }

    /// Notes that the parent's DS points to the key with this tag, and to no other, at all servers of the parent; sign the
    /// zone next.
    ///
    /// # Errors
    /// There is no such key, or its DS may not be there yet.
    pub fn seen(&self, zone: &str, tag: u16, now: u64) -> Result<(), SignError> {
        let mut state = self.known(zone)?;
        let ready = course(&state).ready(self.limits(&state), now);
        let found = keys(&state)?.iter().position(|key| key.tag() == tag);
        let Some(found) = found else {
            return Err(SignError::NotNow(format!(
                "{zone} has no key with tag {tag}"
            )));
        };
        if ready != Some(found) {
            return Err(SignError::NotNow(format!(
                "key {tag} of {zone} is not the one that the parent's DS is to point to now"
            )));
        }
        state.keys[found].life.seen.get_or_insert(now);
        Ok(self.store.set_state(zone, &state)?)
    }

    /// Begins to have the DS of a zone removed, or with `cancel` keeps it after all; sign it next.
    ///
    /// # Errors
    /// It was never signed.
    pub fn leave(&self, zone: &str, cancel: bool, now: u64) -> Result<(), SignError> {
        let mut state = self.known(zone)?;
        let mut course = course(&state);
        if cancel {
            course.stay();
        } else {
            course.leave(self.limits(&state), now);
        }
        set_course(&mut state, &course);
        Ok(self.store.set_state(zone, &state)?)
    }

    /// Notes that the parent has no DS of the zone since `at`, at all its servers; sign it next.
    ///
    /// # Errors
    /// It is not to go.
    pub fn gone(&self, zone: &str, at: u64) -> Result<(), SignError> {
        let mut state = self.known(zone)?;
        let Some(leaving) = &mut state.leaving else {
            return Err(SignError::NotNow(format!(
                "the DS of {zone} is not to go; `headwater zone insecure {zone}` begins that"
            )));
        };
        leaving.gone.get_or_insert(at);
        Ok(self.store.set_state(zone, &state)?)
    }

    /// Notes that the parent shows since `at` what is waited for; sign the zone next.
    ///
    /// # Errors
    /// Something else is waited for by now.
    pub fn agreed(
        &self,
        zone: &str,
        apex: &[u8],
        awaited: &Awaited,
        at: u64,
        now: u64,
    ) -> Result<(), SignError> {
        let state = self.known(zone)?;
        let keys = keys(&state)?;
        match (course(&state).awaited(self.limits(&state), now), awaited) {
            (Told::Key(place), Awaited::Ds(ds)) if keys[place].ds(apex)[..] == **ds => {
                let mut state = state;
                state.keys[place].life.seen.get_or_insert(at);
                Ok(self.store.set_state(zone, &state)?)
            }
            (Told::Delete, Awaited::Gone) => self.gone(zone, at),
            _ => Err(SignError::NotNow(format!(
                "{zone} waits no more for {awaited}"
            ))),
        }
    }

    /// How a zone has to be signed though it is to be signed no more: its parent may still have a DS. `None`: it need not be,
    /// or was never.
    ///
    /// # Errors
    /// Its keys cannot be read.
    pub fn held(&self, zone: &str, now: u64) -> Result<Option<Policy>, SignError> {
        let Some(state) = self.store.state(zone)? else {
            return Ok(None);
        };
        Ok(match course(&state).stage(self.limits(&state), now) {
            Stage::Fresh { .. } | Stage::Free => None,
            _ => state.keys.last().map(|key| Policy {
                algorithm: key.algorithm,
                denial: state.denial,
            }),
        })
    }

    /// Puts the keys of a zone aside that is served unsigned; the serial served last, if it was ever signed.
    ///
    /// # Errors
    /// Files that cannot be read or renamed.
    pub fn retire(&self, zone: &str) -> Result<Option<u32>, SignError> {
        let Some(state) = self.store.state(zone)? else {
            return Ok(None);
        };
        self.store.retire(zone)?;
        Ok(state.served.map(|served| served.serial))
    }

    /// The keys of a zone, the older first.
    ///
    /// # Errors
    /// It was never signed here.
    pub fn keys(&self, zone: &str, apex: &[u8], now: u64) -> Result<Vec<KeyStatus>, SignError> {
        let state = self.known(zone)?;
        let (course, limits) = (course(&state), self.limits(&state));
        let stage = course.stage(limits, now);
        let ready = course.ready(limits, now);
        let signing = course.signing();
        let status = |(at, key): (usize, &Arc<Key>)| KeyStatus {
            tag: key.tag(),
            algorithm: key.algorithm().text(),
            doing: doing(stage, at, signing.contains(&at)),
            seen: course.lives[at].seen.is_some(),
            ds: (ready == Some(at)).then(|| {
                let ds = Record {
                    owner: apex.into(),
                    rtype: DS,
                    ttl: seconds(self.config.ds_ttl),
                    data: key.ds(apex).into(),
                };
                ds.to_string()
            }),
            until: match stage {
                Stage::Fresh { until } | Stage::Left { until } => Some(until),
                Stage::Published { until }
                | Stage::Presigned { until }
                | Stage::Introduced { until }
                    if at == 1 =>
                {
                    Some(until)
                }
                Stage::Retiring { until } | Stage::Withdrawn { until } if at == 0 => Some(until),
                _ => None,
            },
        };
        Ok(keys(&state)?.iter().enumerate().map(status).collect())
    }

    fn known(&self, zone: &str) -> Result<State, SignError> {
        let state = self.store.state(zone)?;
        state.ok_or_else(|| SignError::NotNow(format!("{zone} was never signed")))
    }

    fn limits(&self, state: &State) -> Limits {
        Limits {
            dnskey_ttl: u64::from(state.dnskey_ttl),
            zone_ttl: u64::from(state.zone_ttl),
            propagation: self.config.propagation.as_secs(),
            ds_ttl: self.config.ds_ttl.as_secs(),
        }
    }
}

fn doing(stage: Stage, at: usize, signing: bool) -> &'static str {
    match (stage, at, signing) {
        (Stage::Fresh { .. }, ..) => "signs; too new for a DS at the parent",
        (Stage::Published { .. }, 1, _) => "published; does not sign yet",
        (Stage::Presigned { .. }, 1, _) => "signs; not published yet",
        (Stage::Introduced { .. }, 1, _) => "signs; too new for a DS at the parent",
        (Stage::Waiting, 1, _) => "signs; waits for its DS at the parent",
        (Stage::Waiting, _, false) => "retired; the parent's DS points to it",
        (Stage::Waiting, ..) => "signs; the parent's DS points to it",
        (Stage::Retiring { .. }, 0, false) => "retired; its DS may still be cached",
        (Stage::Retiring { .. }, 0, true) => "signs; its DS may still be cached",
        (Stage::Withdrawn { .. }, 0, _) => "signs; published no more",
        (Stage::Leaving, ..) => "signs until the parent's DS is gone",
        (Stage::Left { .. }, ..) => "signs; the DS that is gone may still be cached",
        (Stage::Free, ..) => "signs; the zone may be served unsigned (sign = false)",
        _ => "signs",
    }
}

fn course(state: &State) -> Course {
    Course {
        lives: state.keys.iter().map(|key| key.life).collect(),
        leaving: state.leaving,
    }
}

fn set_course(state: &mut State, course: &Course) {
    for (key, life) in state.keys.iter_mut().zip(&course.lives) {
        key.life = *life;
    }
    state.leaving = course.leaving;
}

fn keys(state: &State) -> Result<Vec<Arc<Key>>, KeyError> {
    let key = |key: &Stored| Key::new(key.algorithm, &key.private).map(Arc::new);
    state.keys.iter().map(key).collect()
}

fn stored(policy: Policy, now: u64, first: bool) -> Result<Stored, KeyError> {
    Ok(Stored {
        algorithm: policy.algorithm,
        private: Key::generate(policy.algorithm)?,
        life: Life::new(now, first),
    })
}

/// The RRsets of a zone.
fn sets(zone: &Zone) -> Vec<Set> {
    let mut sets: Vec<Set> = Vec::new();
    let soa = zone
        .soa()
        .map(|soa| Set::one(&soa.owner, soa.rtype, soa.ttl, soa.data.into()));
    sets.extend(soa);
    zone.walk(&mut Cursor::default(), |owner, rtype, ttl, data| {
        match sets.last_mut() {
            Some(set) if set.rtype == rtype && *set.owner == *owner => set.data.push(data.into()),
            _ => sets.push(Set {
                owner: owner.into(),
                rtype,
                ttl,
                data: vec![data.into()],
            }),
        }
        true
    });
    sets
}

fn seconds(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

/// Signatures due within this of each other are made in one go, seconds: a large zone does not change every second.
const TOGETHER: u32 = 3_600;

const DS: u16 = 43;
