//! Trust anchors that roll by themselves (RFC 5011): which keys of a zone are believed, by what its DNSKEY RRset has shown over time.
//!
//! ```text
//!   (not known) --shown--> Pending --shown for the hold-down--> Valid <--shown / not--> Missing
//!                             |                                   |                        |
//!                             +--not shown: forgotten             +------- revoked --------+--> Revoked --hold-down--> Removed
//! ```
//!
//! A key that the operator has configured is valid from its first sight. Every look is an RRset that keys believed so far have signed, so
//! who holds none of them can change nothing; who has stolen one has to show his own key for the whole hold-down, and the owner can revoke
//! the stolen one meanwhile. Functions of looks and the time; the state is a text for a file.

use std::fmt::Write as _;
use std::path::PathBuf;

use ring::digest;

use super::super::recurse::dname::Dname;
use super::anchor::{Anchor, Anchors, base64};
use super::crypto::{self, Dnskey, REVOKE};

/// Settings of trust anchors that roll.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long things take.
    pub terms: Terms,
    /// Where their state is kept.
    pub file: PathBuf,
}

/// How long things take, seconds, and how many keys are tracked.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How long a new key must have been shown.
    pub add: u64,
    /// How long a revoked key is told of.
    pub remove: u64,
    /// Keys of one zone that are not revoked.
    pub keys: usize,
}

/// A DNSKEY RRset that keys believed so far have signed; one that only revoked keys have signed shows nothing but that.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Look {
    /// RDATA of all its keys.
    pub(in super::super) keys: Vec<Box<[u8]>>,
    /// Those of them that are revoked and have signed it themselves.
    pub(in super::super) revoked: Vec<Box<[u8]>>,
    /// Whether a key has signed it that is believed still.
    pub(in super::super) whole: bool,
    /// The lesser of its TTL and what is left of the signature, seconds.
    pub(in super::super) ttl: u32,
}

/// What is known of one zone's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Point {
    /// As the operator has configured it.
    configured: Anchor,
    keys: Vec<Key>,
    /// Of the last look.
    ttl: u32,
    /// When to look again, Unix seconds.
    next: u64,
}

/// A key that was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    /// Without the bit that revokes it.
    rdata: Box<[u8]>,
    state: State,
    /// Unix seconds.
    since: u64,
}

/// Whether a key is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not yet: it is new.
    Pending,
    /// It is.
    Valid,
    /// It is, but the zone does not show it at present.
    Missing,
    /// No more: it says so itself.
    Revoked,
    /// Never again; revoked long ago.
    Removed,
}

impl State {
    const ALL: [Self; 5] = [
        Self::Pending,
        Self::Valid,
        Self::Missing,
        Self::Revoked,
        Self::Removed,
    ];

    /// In one word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Valid => "valid",
            Self::Missing => "missing",
            Self::Revoked => "revoked",
            Self::Removed => "removed",
        }
    }

    fn is_believed(self) -> bool {
        matches!(self, Self::Valid | Self::Missing)
    }
}

/// One key of a zone, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyStatus {
    /// The zone.
    pub zone: String,
    /// The key's tag.
    pub tag: u16,
    /// Whether it is believed.
    pub state: State,
    /// Since when, Unix seconds.
    pub since: u64,
    /// When its zone is looked at next, Unix seconds.
    pub next: u64,
}

/// What a look has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Change {
    /// Other keys are believed than before.
    pub(in super::super) believed: bool,
    /// New keys were left out, since there are too many.
    pub(in super::super) crowded: bool,
}

impl Point {
    /// Of a zone nobody has looked at; to be looked at from `now` on.
    pub(in super::super) fn new(configured: &Anchor, now: u64) -> Self {
        Self {
            configured: configured.clone(),
            keys: Vec::new(),
            ttl: 0,
            next: now,
        }
    }

    pub(in super::super) fn zone(&self) -> &Dname {
        &self.configured.zone
    }

    /// When to look again, Unix seconds.
    pub(in super::super) fn next(&self) -> u64 {
        self.next
    }

    /// Takes in what was seen at `now` (Unix seconds); `None`: nothing that keys believed so far have signed.
    pub(in super::super) fn take(&mut self, look: Option<&Look>, now: u64, terms: Terms) -> Change {
        let Some(look) = look else {
            // RFC 5011 section 2.3: the retry time.
            self.next = now + (u64::from(self.ttl) / 10).clamp(HOUR, DAY);
            return Change::default();
        };
        self.ttl = look.ttl;
        self.next = now + (u64::from(look.ttl) / 2).clamp(HOUR, 15 * DAY);
        let before = self.anchor();
        self.keys.retain_mut(|key| {
            let next = key.next(look, now, terms);
            if let Some(state) = next.filter(|state| *state != key.state) {
                (key.state, key.since) = (state, now);
            }
            next.is_some()
        });
        for rdata in &look.revoked {
            let rdata = unrevoked(rdata);
            // Configured, and revoked before it was ever seen.
            if self.is_configured(&rdata) && self.keys.iter().all(|key| key.rdata != rdata) {
                self.keys.push(Key {
                    rdata,
                    state: State::Revoked,
                    since: now,
                });
            }
        }
        let mut crowded = false;
        for rdata in look.keys.iter().filter(|_| look.whole) {
            // A key signing key, as the operator of the zone marks it (RFC 5011 section 4.2: only these).
            let new = rdata.get(1).is_some_and(|low| low & SEP != 0)
                && Dnskey::read(rdata).is_some_and(|key| crypto::is_known(key.algorithm))
                && self.keys.iter().all(|key| key.rdata != *rdata);
            if !new {
                continue;
            }
            let gone = |key: &&Key| matches!(key.state, State::Revoked | State::Removed);
            let tracked = self.keys.len() - self.keys.iter().filter(gone).count();
            let configured = self.is_configured(rdata);
            if tracked >= terms.keys && !configured {
                crowded = true;
                continue;
            }
            self.keys.push(Key {
                rdata: rdata.clone(),
                state: if configured {
                    State::Valid
                } else {
                    State::Pending
                },
                since: now,
            });
        }
        Change {
            believed: self.anchor() != before,
            crowded,
        }
    }

    fn is_configured(&self, rdata: &[u8]) -> bool {
        let Anchor { zone, ds, keys } = &self.configured;
        let matches = |key: Dnskey<'_>| ds.iter().any(|ds| key.matches(zone, ds));
        keys.iter().any(|key| **key == *rdata) || Dnskey::read(rdata).is_some_and(matches)
    }

    /// What is believed now: the keys that are, and what is configured and was never shown. `None`: every key was revoked, and the zone has
    /// no anchor any more (RFC 5011 section 5).
    pub(in super::super) fn anchor(&self) -> Option<Anchor> {
        let Anchor { zone, ds, keys } = &self.configured;
        let shown = |ds: &[u8]| {
            let mut keys = self.keys.iter().filter_map(|key| Dnskey::read(&key.rdata));
            keys.any(|key| key.matches(zone, ds))
        };
        let tracked = |rdata: &[u8]| self.keys.iter().any(|key| *key.rdata == *rdata);
        let believed = self.keys.iter().filter(|key| key.state.is_believed());
        let anchor = Anchor {
            zone: zone.clone(),
            ds: ds.iter().filter(|ds| !shown(ds)).cloned().collect(),
            keys: (keys.iter().filter(|key| !tracked(key)).cloned())
                .chain(believed.map(|key| key.rdata.clone()))
                .collect(),
        };
        (!anchor.ds.is_empty() || !anchor.keys.is_empty()).then_some(anchor)
    }

    /// Its keys, for the operator.
    pub(in super::super) fn status(&self) -> impl Iterator<Item = KeyStatus> + '_ {
        self.keys.iter().map(|key| KeyStatus {
            zone: self.zone().to_string(),
            tag: Dnskey::read(&key.rdata).map_or(0, |key| key.tag()),
            state: key.state,
            since: key.since,
            next: self.next,
        })
    }
}

impl Key {
    /// Its state after this look; `None`: it is forgotten.
    fn next(&self, look: &Look, now: u64, terms: Terms) -> Option<State> {
        let shown = look.keys.contains(&self.rdata);
        let as_revoked = |rdata: &[u8]| *unrevoked(rdata) == *self.rdata;
        let revoked = look.revoked.iter().any(|rdata| as_revoked(rdata));
        let age = now.saturating_sub(self.since);
        match self.state {
            State::Valid | State::Missing if revoked => Some(State::Revoked),
            state if !look.whole => Some(state),
            State::Pending if !shown => None,
            State::Pending if age >= terms.add.max(look.ttl.into()) => Some(State::Valid),
            State::Pending => Some(State::Pending),
            State::Valid | State::Missing if shown => Some(State::Valid),
            State::Valid | State::Missing => Some(State::Missing),
            State::Revoked if age >= terms.remove => Some(State::Removed),
            State::Revoked => Some(State::Revoked),
            State::Removed => Some(State::Removed),
        }
    }
}

/// DNSKEY RDATA without the bit that revokes it.
pub(super) fn unrevoked(rdata: &[u8]) -> Box<[u8]> {
    let mut rdata = Box::<[u8]>::from(rdata);
    if let Some(low) = rdata.get_mut(1) {
        *low &= !REVOKE;
    }
    rdata
}

/// The text that [`read`] reads.
pub(in super::super) fn write(points: &[Point]) -> String {
    let mut text = String::from(HEAD);
    for point in points {
        let Point { ttl, next, .. } = point;
        let digest = digest_of(&point.configured);
        let zone = point.zone();
        let _ = writeln!(
            text,
            "\nzone {zone}\nconfigured {digest}\nttl {ttl}\nnext {next}"
        );
        for Key {
            rdata,
            state,
            since,
        } in &point.keys
        {
            let (state, key) = (state.name(), domain::utils::base64::encode_string(rdata));
            let _ = writeln!(text, "key {state} {since} {key}");
        }
    }
    text
}

/// What is known of the zones of `anchors`, by a `text` that [`write`] wrote. Zones that it does not tell of, or that are configured
/// otherwise by now, begin anew at `now`.
///
/// # Errors
/// The line that cannot be read, from 1.
pub(in super::super) fn read(text: &str, anchors: &Anchors, now: u64) -> Result<Vec<Point>, usize> {
    let mut points: Vec<Point> = (anchors.all().iter())
        .map(|anchor| Point::new(anchor, now))
        .collect();
    let mut at: Option<usize> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split(';').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        let whole = |word: &str| word.parse::<u64>().map_err(|_| number);
        let point = at.and_then(|at| points.get_mut(at));
        match (&words[..], point) {
            ([], _) => {}
            (["zone", zone], _) => {
                let zone = Dname::parse(zone).ok_or(number)?;
                at = points.iter().position(|point| *point.zone() == zone);
            }
            (["configured", digest], Some(point)) => {
                if digest_of(&point.configured) != *digest {
                    at = None;
                }
            }
            (["ttl", ttl], Some(point)) => point.ttl = ttl.parse().map_err(|_| number)?,
            // A clock that was set back does not put the next look off for years.
            (["next", next], Some(point)) => point.next = whole(next)?.min(now + 15 * DAY),
            (["key", state, since, key], Some(point)) => {
                let mut states = State::ALL.into_iter();
                let state = states.find(|known| known.name() == *state).ok_or(number)?;
                let rdata = base64(key).ok_or(number)?;
                Dnskey::read(&rdata).ok_or(number)?;
                point.keys.push(Key {
                    rdata: rdata.into(),
                    state,
                    since: whole(since)?,
                });
            }
            (["configured" | "ttl" | "next", _] | ["key", _, _, _], None) => {}
            _ => return Err(number),
        }
    }
    Ok(points)
}

/// What the operator has configured for a zone, in a few digits.
fn digest_of(anchor: &Anchor) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for (kind, all) in [(0_u8, &anchor.ds), (1, &anchor.keys)] {
        let mut all: Vec<_> = all.iter().collect();
        all.sort();
        for rdata in all {
            context.update(&[kind]);
            context.update(&(rdata.len() as u64).to_be_bytes());
            context.update(rdata);
        }
    }
    let digest = context.finish();
    digest.as_ref()[..16]
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

const HEAD: &str = "; The keys of trust anchors that roll by themselves (RFC 5011), kept by headwater. Without this file it begins anew
; with those configured.
";

/// In the second octet of DNSKEY RDATA: a key signing key.
const SEP: u8 = 0x01;

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TERMS: Terms = Terms {
        add: 30 * DAY,
        remove: 30 * DAY,
        keys: 8,
    };

    const START: u64 = 1_700_000_000;

    /// A key signing key (Ed25519) that `n` tells from others.
    fn key(n: u8) -> Box<[u8]> {
        [&[1, 1, 3, 15][..], &[n; 32]].concat().into()
    }

    fn revoked(n: u8) -> Box<[u8]> {
        let mut key = key(n);
        key[1] |= REVOKE;
        key
    }

    fn look(keys: &[u8], revoking: &[u8]) -> Look {
        let revoking: Vec<_> = revoking.iter().map(|n| revoked(*n)).collect();
        Look {
            keys: (keys.iter().map(|n| key(*n)))
                .chain(revoking.iter().cloned())
                .collect(),
            revoked: revoking,
            whole: true,
            ttl: 172_800,
        }
    }

    fn anchors(n: u8) -> Anchors {
        let key = domain::utils::base64::encode_string(&key(n)[4..]);
        Anchors::parse(&format!(". DNSKEY 257 3 15 {key}\n")).unwrap()
    }

    fn point() -> Point {
        Point::new(&anchors(1).all()[0], START)
    }

    /// The numbers of the keys that are believed.
    fn believed(point: &Point) -> Vec<u8> {
        let anchor = point.anchor();
        let keys = anchor.map_or(Vec::new(), |anchor| anchor.keys);
        let mut numbers: Vec<u8> = keys.iter().map(|key| key[4]).collect();
        numbers.sort_unstable();
        numbers
    }

    fn states(point: &Point) -> Vec<(u8, &'static str)> {
        let keys = point.keys.iter();
        keys.map(|key| (key.rdata[4], key.state.name())).collect()
    }

    #[test]
    fn key_rolls_after_the_hold_down_and_the_old_one_goes_when_it_revokes_itself() {
        let mut point = point();
        let mut now = START;
        assert!(!point.take(Some(&look(&[1], &[])), now, TERMS).believed);
        assert_eq!(point.next(), now + DAY, "half of its TTL");
        assert!(!point.take(Some(&look(&[1, 2], &[])), now, TERMS).believed);
        assert_eq!(states(&point), [(1, "valid"), (2, "pending")]);
        now += TERMS.add - 1;
        assert!(!point.take(Some(&look(&[1, 2], &[])), now, TERMS).believed);
        assert_eq!(believed(&point), [1]);
        now += 1;
        assert!(point.take(Some(&look(&[1, 2], &[])), now, TERMS).believed);
        assert_eq!(believed(&point), [1, 2]);
        assert!(point.take(Some(&look(&[2], &[1])), now, TERMS).believed);
        assert_eq!(believed(&point), [2]);
        assert_eq!(states(&point), [(1, "revoked"), (2, "valid")]);
        now += TERMS.remove;
        point.take(Some(&look(&[2], &[])), now, TERMS);
        // It is configured, and yet never believed again.
        point.take(Some(&look(&[1, 2], &[])), now + DAY, TERMS);
        assert_eq!(states(&point), [(1, "removed"), (2, "valid")]);
        assert_eq!(believed(&point), [2]);
    }

    #[test]
    fn new_key_that_is_taken_back_begins_its_wait_anew() {
        let mut point = point();
        point.take(Some(&look(&[1, 2], &[])), START, TERMS);
        point.take(Some(&look(&[1], &[])), START + 20 * DAY, TERMS);
        assert_eq!(states(&point), [(1, "valid")]);
        point.take(Some(&look(&[1, 2], &[])), START + 21 * DAY, TERMS);
        point.take(Some(&look(&[1, 2], &[])), START + 31 * DAY, TERMS);
        assert_eq!(believed(&point), [1]);
        point.take(Some(&look(&[1, 2], &[])), START + 51 * DAY, TERMS);
        assert_eq!(believed(&point), [1, 2]);
    }

    #[test]
    fn key_that_is_not_shown_is_believed_still_and_looks_that_fail_change_nothing() {
        let mut point = point();
        point.take(Some(&look(&[1], &[])), START, TERMS);
        point.take(Some(&look(&[], &[])), START + DAY, TERMS);
        assert_eq!(
            (states(&point), believed(&point)),
            (vec![(1, "missing")], vec![1])
        );
        point.take(Some(&look(&[1], &[])), START + 2 * DAY, TERMS);
        let before = point.clone();
        point.take(None, START + 3 * DAY, TERMS);
        assert_eq!(point.next(), START + 3 * DAY + 17_280, "a tenth of its TTL");
        assert_eq!(states(&point), states(&before));
    }

    #[test]
    fn zone_whose_keys_are_all_revoked_has_no_anchor() {
        let mut point = point();
        point.take(Some(&look(&[1, 2], &[])), START, TERMS);
        // What a revoked key has signed says nothing of others.
        let only = Look {
            whole: false,
            ..look(&[3], &[1])
        };
        assert!(point.take(Some(&only), START, TERMS).believed);
        assert_eq!(states(&point), [(1, "revoked"), (2, "pending")]);
        assert_eq!(point.anchor(), None);
        let mut never_seen = super::tests::point();
        assert!(never_seen.take(Some(&only), START, TERMS).believed);
        assert_eq!(never_seen.anchor(), None);
    }

    #[test]
    fn keys_are_tracked_up_to_their_bound_and_only_those_that_sign_keys() {
        let mut point = point();
        let mut look = look(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], &[]);
        assert!(point.take(Some(&look), START, TERMS).crowded);
        assert_eq!(point.keys.len(), TERMS.keys);
        let mut other = point.clone();
        look.keys = vec![key(1), key(11)];
        look.keys[1][1] = 0;
        assert!(!other.take(Some(&look), START, TERMS).crowded);
        assert_eq!(states(&other), [(1, "valid")]);
    }

    #[test]
    fn state_outlives_a_restart_unless_the_operator_has_changed_the_anchor() {
        let mut point = point();
        point.take(Some(&look(&[1, 2], &[])), START, TERMS);
        point.take(Some(&look(&[1, 2], &[])), START + TERMS.add, TERMS);
        point.take(Some(&look(&[2, 3], &[1])), START + TERMS.add, TERMS);
        let text = write(std::slice::from_ref(&point));
        let now = START + TERMS.add;
        assert_eq!(read(&text, &anchors(1), now).unwrap(), [point]);
        let anew = read(&text, &anchors(9), now).unwrap();
        assert_eq!((anew[0].keys.len(), anew[0].next), (0, now));
        for (bad, line) in [
            ("zone .\nkey believed 1 AAAA\n", 2),
            ("\n\nnothing\n", 3),
            ("zone .\nnext soon\n", 2),
            ("zone .\nkey valid 1 !!\n", 2),
        ] {
            assert_eq!(read(bad, &anchors(1), now), Err(line), "{bad:?}");
        }
    }

    #[test]
    fn clock_that_was_set_back_does_not_put_the_next_look_off() {
        let text = "zone .\nnext 99999999999\n";
        let points = read(text, &anchors(1), START).unwrap();
        assert_eq!(points[0].next(), START + 15 * DAY);
    }

    proptest! {
        /// Whatever a zone shows: a key that was not configured is believed only after it was in every look of a hold-down, and none is after
        /// it has revoked itself.
        #[test]
        fn belief_takes_a_hold_down_and_ends_with_a_revocation(
            looks in proptest::collection::vec(
                (proptest::option::of((proptest::collection::btree_set(1_u8..5, 0..5), proptest::collection::btree_set(1_u8..5, 0..2))), 1_u64..20),
                1..40,
            ),
        ) {
            let mut point = point();
            let mut now = START;
            let mut since = std::collections::BTreeMap::new();
            let mut dead: std::collections::BTreeSet<u8> = std::collections::BTreeSet::new();
            let mut ever = std::collections::BTreeSet::from([1]);
            for (seen, days) in looks {
                if let Some((keys, revoking)) = &seen {
                    let keys: Vec<u8> = keys.difference(revoking).copied().collect();
                    since.retain(|n, _| keys.contains(n));
                    for n in &keys {
                        since.entry(*n).or_insert(now);
                    }
                    let revoking: Vec<u8> = revoking.iter().copied().collect();
                    dead.extend(revoking.iter().filter(|n| believed(&point).contains(n)));
                    point.take(Some(&look(&keys, &revoking)), now, TERMS);
                } else {
                    point.take(None, now, TERMS);
                }
                prop_assert!(point.next() > now);
                for n in believed(&point) {
                    prop_assert!(!dead.contains(&n), "{n} is revoked");
                    let waited = since.get(&n).is_some_and(|since| now - since >= TERMS.add);
                    prop_assert!(ever.contains(&n) || waited, "{n} has not waited");
                    ever.insert(n);
                }
                let text = write(std::slice::from_ref(&point));
                prop_assert_eq!(&read(&text, &anchors(1), now).unwrap()[0], &point);
                now += days * DAY;
            }
        }
    }
}
