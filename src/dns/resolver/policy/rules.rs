//! What is to be done with which names: exact ones, and all beneath one.

use std::collections::HashMap;

use super::suffixes::{Growing, Suffixes};
use crate::dns::zone::path::Path;

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Act {
    /// There is no rule.
    None,
    /// No rule of this list holds, although one for names above would.
    Except,
    /// Resolved as usual; later lists are not asked.
    Pass,
    /// The name does not exist.
    NxDomain,
    /// The name has no data.
    NoData,
    /// REFUSED.
    Refused,
    /// No answer.
    Drop,
    /// The unspecified address, for A and AAAA.
    Null,
    /// Over UDP an empty answer with TC; over TCP as usual.
    Truncate,
    /// These records, and no others.
    Records(u32),
    /// The apex of an empty zone (RFC 6303 section 3): its SOA and NS, and these records.
    Apex(u32),
}

/// The rules at one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pair {
    exact: Act,
    below: Act,
}

/// Records of one type.
#[derive(Clone, Debug)]
pub(super) struct Set {
    pub(super) rtype: u16,
    pub(super) count: u16,
    /// The records as they go behind a question: the owner points at its name.
    pub(super) bytes: Vec<u8>,
}

/// The rule for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) act: Act,
    /// The label at which the part of the name that the rule is about begins: where a SOA stands.
    pub(super) zone: usize,
}

/// Rules by name, immutable.
#[derive(Debug)]
pub(super) struct Rules {
    names: Suffixes,
    pairs: Vec<Pair>,
    sets: Vec<Vec<Set>>,
    len: usize,
}

/// Rules being gathered. Of two for one name the first holds.
#[derive(Debug)]
pub(super) struct Builder {
    names: Growing,
    pairs: Vec<Pair>,
    known: HashMap<Pair, u32, foldhash::fast::RandomState>,
    sets: Vec<Vec<Set>>,
    len: usize,
    max: usize,
}

impl Rules {
    /// The rule for the name of `path`: of the name itself, else of the closest name above it.
    #[inline]
    pub(super) fn find(&self, path: &Path) -> Option<Match> {
        let mut found = Match {
            act: Act::None,
            zone: usize::MAX,
        };
        self.names.walk(path, |index, value| {
            if value == 0 {
                return;
            }
            let pair = self.pairs[value as usize];
            if index > 0 {
                if pair.below != Act::None {
                    found = Match {
                        act: pair.below,
                        zone: index,
                    };
                }
            } else if pair.exact != Act::None {
                found.act = pair.exact;
                if pair.below != Act::None || found.zone == usize::MAX {
                    found.zone = 0;
                }
            }
        });
        (!matches!(found.act, Act::None | Act::Except)).then_some(found)
    }

    /// The records of [`Act::Records`] and [`Act::Apex`].
    pub(super) fn sets(&self, index: u32) -> &[Set] {
        &self.sets[index as usize]
    }

    /// How many rules.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        let sets = self.sets.iter().map(|sets| {
            let bytes: usize = sets.iter().map(|set| set.bytes.capacity()).sum();
            bytes + sets.capacity() * size_of::<Set>() + size_of::<Vec<Set>>()
        });
        self.names.bytes() + self.pairs.capacity() * size_of::<Pair>() + sets.sum::<usize>()
    }
}

impl Builder {
    /// No rules; at most `max` are taken.
    pub(super) fn new(max: usize) -> Self {
        let none = Pair {
            exact: Act::None,
            below: Act::None,
        };
        Self {
            names: Growing::new(),
            pairs: vec![none],
            known: [(none, 0)].into_iter().collect(),
            sets: Vec::new(),
            len: 0,
            max,
        }
    }

    /// How many rules there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a rule for a name (wire form, lower case) or for all names beneath it. `Ok(false)`: it has one already.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn add(&mut self, name: &[u8], below: bool, act: Act) -> Result<bool, String> {
        let path = Path::new(name);
        let mut pair = self.pairs[*self.names.value(&path) as usize];
        let place = pair.place(below);
        if *place != Act::None {
            return Ok(false);
        }
        if self.len >= self.max {
            return Err(format!("found more than {} rules, the bound", self.max));
        }
        *place = act;
        self.len += 1;
        let number = match self.known.get(&pair) {
            Some(&number) => number,
            None => {
                let number = self.pairs.len() as u32; // At most one per rule.
                self.pairs.push(pair);
                self.known.insert(pair, number);
                number
            }
        };
        *self.names.value(&path) = number;
        Ok(true)
    }

    /// Adds one rule for a name and all beneath it; where one of the two has a rule already, that stays.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn add_tree(&mut self, name: &[u8], act: Act) -> Result<(), String> {
        let exact = self.add(name, false, act)?;
        if exact {
            // The two are one rule.
            self.len -= 1;
        }
        let below = self.add(name, true, act)?;
        if exact && !below {
            self.len += 1;
        }
        Ok(())
    }

    /// Adds a record to the rule of a name. `Ok(false)`: its rule is another one.
    ///
    /// # Errors
    /// There are too many rules, or too many records of the type at the name.
    pub(super) fn add_record(
        &mut self,
        name: &[u8],
        below: bool,
        rtype: u16,
        ttl: u32,
        data: &[u8],
    ) -> Result<bool, String> {
        let mut pair = self.pairs[*self.names.value(&Path::new(name)) as usize];
        let index = match *pair.place(below) {
            Act::Records(index) | Act::Apex(index) => index,
            Act::None => {
                let index = self.new_sets();
                self.add(name, below, Act::Records(index))?;
                index
            }
            _ => return Ok(false),
        };
        Set::push(&mut self.sets[index as usize], rtype, ttl, data)?;
        Ok(true)
    }

    /// The number of a new, empty list of records.
    pub(super) fn new_sets(&mut self) -> u32 {
        self.sets.push(Vec::new());
        (self.sets.len() - 1) as u32 // At most one per rule.
    }

    /// The rules as they are kept.
    pub(super) fn finish(mut self) -> Rules {
        self.pairs.shrink_to_fit();
        self.sets.shrink_to_fit();
        for set in self.sets.iter_mut().flatten() {
            set.bytes.shrink_to_fit();
        }
        Rules {
            names: self.names.finish(),
            pairs: self.pairs,
            sets: self.sets,
            len: self.len,
        }
    }
}

impl Set {
    /// Adds a record to those of one name.
    ///
    /// # Errors
    /// A CNAME beside other data, or too many bytes.
    pub(super) fn push(
        sets: &mut Vec<Self>,
        rtype: u16,
        ttl: u32,
        data: &[u8],
    ) -> Result<(), String> {
        if sets.iter().any(|set| set.rtype == CNAME || rtype == CNAME) {
            return Err(String::from(
                "found CNAME and other data at one name, expected a CNAME alone",
            ));
        }
        let at = sets.iter().position(|set| set.rtype == rtype);
        let at = at.unwrap_or_else(|| {
            sets.push(Self {
                rtype,
                count: 0,
                bytes: Vec::new(),
            });
            sets.len() - 1
        });
        let (set, record) = (&mut sets[at], record(rtype, ttl, data));
        if set.bytes.len() + record.len() > SET_MAX {
            return Err(format!(
                "found more than {SET_MAX} bytes of records of one type at one name, the bound"
            ));
        }
        set.count += 1;
        set.bytes.extend_from_slice(&record);
        Ok(())
    }
}

impl Pair {
    fn place(&mut self, below: bool) -> &mut Act {
        if below {
            &mut self.below
        } else {
            &mut self.exact
        }
    }
}

/// A record whose owner is the question's name.
fn record(rtype: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(12 + data.len());
    record.extend([0xC0, 0x0C]);
    record.extend(rtype.to_be_bytes());
    record.extend([0, 1]);
    record.extend(ttl.to_be_bytes());
    record.extend((data.len() as u16).to_be_bytes()); // The reader gives at most 65,535 bytes.
    record.extend_from_slice(data);
    record
}

const CNAME: u16 = 5;

/// Bytes of records of one type at one name.
const SET_MAX: usize = 32 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rules: &Rules, name: &[u8], expected: Option<(Act, usize)>) {
        let found = rules.find(&Path::new(name)).map(|m| (m.act, m.zone));
        assert_eq!(found, expected, "{}", name.escape_ascii());
    }

    #[test]
    fn rule_of_the_name_wins_over_the_closest_above() {
        let mut builder = Builder::new(10);
        for (name, below, act) in [
            (&b"\x03ads\0"[..], true, Act::NxDomain),
            (b"\x04good\x03ads\0", false, Act::Pass),
            (b"\x01x\x03ads\0", true, Act::NoData),
            (b"\x01y\x03ads\0", true, Act::Except),
        ] {
            assert_eq!(builder.add(name, below, act), Ok(true));
        }
        assert_eq!(builder.add(b"\x03ads\0", true, Act::Drop), Ok(false));
        let rules = builder.finish();
        check(&rules, b"\x03ads\0", None);
        check(&rules, b"\x01a\x01b\x03ads\0", Some((Act::NxDomain, 2)));
        check(&rules, b"\x04good\x03ads\0", Some((Act::Pass, 1)));
        check(&rules, b"\x01a\x04good\x03ads\0", Some((Act::NxDomain, 2)));
        check(&rules, b"\x01a\x01x\x03ads\0", Some((Act::NoData, 1)));
        check(&rules, b"\x01a\x01y\x03ads\0", None);
        check(&rules, b"\x03adz\0", None);
        assert_eq!(rules.len(), 4);
    }

    #[test]
    fn rules_beyond_the_bound_are_an_error() {
        let mut builder = Builder::new(1);
        assert_eq!(builder.add(b"\x01a\0", false, Act::Drop), Ok(true));
        assert!(builder.add(b"\x01b\0", false, Act::Drop).is_err());
    }

    #[test]
    fn records_of_one_name_are_gathered_by_type() {
        let mut builder = Builder::new(10);
        for data in [[192, 0, 2, 1], [192, 0, 2, 2]] {
            assert_eq!(
                builder.add_record(b"\x01a\0", false, 1, 60, &data),
                Ok(true)
            );
        }
        builder
            .add_record(b"\x01a\0", false, 16, 60, b"\x01t")
            .unwrap();
        let rules = builder.finish();
        let Some(Match {
            act: Act::Records(index),
            ..
        }) = rules.find(&Path::new(b"\x01a\0"))
        else {
            panic!("no records");
        };
        let sets = rules.sets(index);
        let counts: Vec<_> = sets.iter().map(|set| (set.rtype, set.count)).collect();
        assert_eq!(counts, [(1, 2), (16, 1)]);
        assert_eq!(
            &sets[0].bytes[..16],
            b"\xC0\x0C\0\x01\0\x01\0\0\0\x3C\0\x04\xC0\0\x02\x01"
        );
    }
}
