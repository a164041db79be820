//! What a zone waits for at its parent, and when what the parent says may be believed.
//!
//! One answer is of one server, perhaps out of a cache. So a second look is taken when every server can have what the first
//! had, and when nothing the first came from can still be cached; all looks between must agree. What answers lack proof is
//! for the caller to leave out ([`Watch::take`] without a look).

/// What the parent is to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// DS with this data (SHA-256), and none of another key.
    Ds(Box<[u8]>),
    /// No DS.
    Gone,
}

impl Awaited {
    /// Whether these DS are what is waited for. Other digests of the same key may be there, too.
    #[must_use]
    pub fn is_met(&self, ds: &[Box<[u8]>]) -> bool {
        match self {
            Self::Gone => ds.is_empty(),
            Self::Ds(wanted) => {
                // Tag and algorithm.
                ds.contains(wanted) && ds.iter().all(|ds| ds.get(..3) == wanted.get(..3))
            }
        }
    }
}

impl std::fmt::Display for Awaited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ds(ds) => write!(f, "the parent's DS to point to key {}", tag(ds)),
            Self::Gone => f.write_str("the parent's DS to go"),
        }
    }
}

/// An answer to the question for DS that may be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// The data of the DS records.
    pub ds: Vec<Box<[u8]>>,
    /// How long it may be kept by those it came through, seconds; 0: it came through nobody.
    pub ttl: u64,
}

impl std::fmt::Display for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut tags: Vec<u16> = self.ds.iter().map(|ds| tag(ds)).collect();
        tags.sort_unstable();
        tags.dedup();
        let tags: Vec<String> = tags.iter().map(u16::to_string).collect();
        match &tags[..] {
            [] => f.write_str("it has no DS"),
            tags => write!(f, "it has DS of key {}", tags.join(", ")),
        }
    }
}

fn tag(ds: &[u8]) -> u16 {
    ds.first_chunk().copied().map_or(0, u16::from_be_bytes)
}

/// How the parent is watched, seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Between two looks.
    pub every: u64,
    /// Until all servers of the parent have a change.
    pub propagation: u64,
}

/// One zone that waits. Times are Unix seconds.
#[derive(Clone, Debug)]
pub struct Watch {
    awaited: Awaited,
    next: u64,
    met: Option<Met>,
}

#[derive(Clone, Copy, Debug)]
struct Met {
    since: u64,
    believed: u64,
}

impl Watch {
    /// To be looked after from `now` on.
    #[must_use]
    pub fn new(awaited: Awaited, now: u64) -> Self {
        Self {
            awaited,
            next: now,
            met: None,
        }
    }

    /// What is waited for.
    #[must_use]
    pub fn awaited(&self) -> &Awaited {
        &self.awaited
    }

    /// When to look next.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Takes what was seen at `now`; `None`: nothing that may be believed. Returns since when all servers of the parent
    /// show what is waited for, once that is sure.
    pub fn take(&mut self, look: Option<&Look>, now: u64, terms: Terms) -> Option<u64> {
        let every = terms.every.max(1);
        self.next = now + every;
        let look = look?;
        if !self.awaited.is_met(&look.ds) {
            self.met = None;
            return None;
        }
        let cached = if look.ttl > 0 { look.ttl + 1 } else { 0 };
        let met = *self.met.get_or_insert(Met {
            since: now,
            believed: now + terms.propagation.max(cached),
        });
        if now >= met.believed {
            return Some(met.since + terms.propagation);
        }
        self.next = self.next.min(met.believed);
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OLD: [u8; 6] = [0, 1, 13, 2, 7, 7];
    const NEW: [u8; 6] = [0, 2, 13, 2, 8, 8];
    const TERMS: Terms = Terms {
        every: 600,
        propagation: 3_600,
    };

    fn look(ds: &[&[u8]], ttl: u64) -> Look {
        let ds = ds.iter().map(|ds| (*ds).into()).collect();
        Look { ds, ttl }
    }

    #[test]
    fn wanted_key_alone_is_what_is_waited_for() {
        let awaited = Awaited::Ds(NEW.into());
        let met = |ds: &[&[u8]]| awaited.is_met(&look(ds, 0).ds);
        assert!(met(&[&NEW]));
        assert!(met(&[&NEW, &[0, 2, 13, 4, 9, 9, 9]]));
        assert!(!met(&[]) && !met(&[&OLD]) && !met(&[&OLD, &NEW]));
        // Another key with the same tag.
        assert!(!met(&[&[0, 2, 13, 2, 9, 9]]));
        assert!(Awaited::Gone.is_met(&[]) && !Awaited::Gone.is_met(&look(&[&OLD], 0).ds));
    }

    #[test]
    fn second_look_decides_when_no_server_or_cache_can_say_otherwise() {
        let mut watch = Watch::new(Awaited::Ds(NEW.into()), 100);
        assert_eq!(watch.take(Some(&look(&[&OLD], 60)), 100, TERMS), None);
        assert_eq!(watch.next(), 700);
        assert_eq!(watch.take(Some(&look(&[&NEW], 60)), 700, TERMS), None);
        assert_eq!(watch.take(None, 1_300, TERMS), None);
        assert_eq!(watch.next(), 1_900);
        // A server that is late begins the wait anew.
        assert_eq!(watch.take(Some(&look(&[&OLD], 60)), 1_900, TERMS), None);
        assert_eq!(watch.take(Some(&look(&[&NEW], 60)), 2_500, TERMS), None);
        assert_eq!(watch.take(Some(&look(&[&NEW], 60)), 5_900, TERMS), None);
        assert_eq!(watch.next(), 6_100);
        let at = watch.take(Some(&look(&[&NEW], 60)), 6_100, TERMS);
        assert_eq!(at, Some(6_100));
    }

    proptest! {
        /// Whatever the looks are: what is believed was so in all of them from then on, for long enough, and the last
        /// was taken when the first was in no cache any more.
        #[test]
        fn belief_needs_time_and_agreement(
            looks in proptest::collection::vec((proptest::option::of(any::<bool>()), 0_u64..90, 1_u64..60), 1..40),
            every in 0_u64..40, propagation in 0_u64..80,
        ) {
            let terms = Terms { every, propagation };
            let mut watch = Watch::new(Awaited::Gone, 0);
            let mut taken: Vec<(u64, Option<bool>, u64)> = Vec::new();
            let mut now = 0;
            for (gone, ttl, wait) in looks {
                taken.push((now, gone, ttl));
                let look = gone.map(|gone| if gone { look(&[], ttl) } else { look(&[&OLD], ttl) });
                let believed = watch.take(look.as_ref(), now, terms);
                prop_assert!(watch.next() > now || believed.is_some());
                if let Some(at) = believed {
                    let since = at - propagation;
                    prop_assert!(at <= now);
                    let first = taken.iter().find(|(when, ..)| *when == since).expect("a look");
                    prop_assert!(first.2 == 0 || now > since + first.2);
                    prop_assert!(taken.iter().all(|(when, gone, _)| *when < since || *gone != Some(false)));
                    return Ok(());
                }
                now += wait;
            }
        }
    }
}
