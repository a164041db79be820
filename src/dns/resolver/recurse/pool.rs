//! Which of a zone's servers is asked next.

use std::net::IpAddr;
use std::time::Duration;

use super::Config;
use super::cut::Cut;
use super::dname::Dname;
use super::fact::{Fact, Source, What};
use super::judge;
use super::net::{Net, Outlook};
use super::store::Store;
use crate::time::Now;

/// The addresses of a zone's servers, and which were asked how often.
pub(super) struct Pool {
    addresses: Vec<Candidate>,
    /// Servers whose address is not known yet.
    pub(super) nameless: Vec<Dname>,
    /// Never asked.
    avoided: Vec<Source>,
    dice: u64,
}

struct Candidate {
    address: IpAddr,
    asked: u8,
    excluded: bool,
}

impl Pool {
    /// The servers of `cut`, as far as `config` allows them and their addresses are known.
    pub(super) fn new(
        cut: &Cut,
        avoided: &[Source],
        config: &Config,
        facts: &Store<Fact>,
        dice: u64,
        now: Now,
    ) -> Self {
        let mut pool = Self {
            addresses: Vec::new(),
            nameless: Vec::new(),
            avoided: avoided.to_vec(),
            dice,
        };
        for server in &cut.servers {
            let mut found = server.glue.clone();
            if found.is_empty() {
                for rtype in config.address_types() {
                    if let Some(fact) = facts.find(&server.name, rtype, now)
                        && let What::Set { set, .. } = &fact.what
                    {
                        found.extend(judge::addresses(set));
                    }
                }
            }
            found.retain(|&address| config.may_ask(address));
            if found.is_empty() {
                pool.nameless.push(server.name.clone());
            } else {
                pool.add(found);
            }
        }
        // By the dice, so that not all resolvers ask the same server first.
        for at in (1..pool.nameless.len()).rev() {
            let other = pool.roll() % (at as u64 + 1);
            pool.nameless.swap(at, other as usize);
        }
        pool
    }

    pub(super) fn add(&mut self, addresses: Vec<IpAddr>) {
        for address in addresses {
            if !self.addresses.iter().any(|known| known.address == address) {
                self.addresses.push(Candidate {
                    address,
                    asked: 0,
                    excluded: self.avoided.contains(&Source::Server(address)),
                });
            }
        }
    }

    /// The next one to ask and how long to wait for it. Those not asked yet come first, among them the fastest; a server whose
    /// time is not known is taken for a fast one. While names are left to look up nobody is asked twice.
    pub(super) fn pick(&mut self, net: &impl Net, now: Now) -> Option<(IpAddr, Duration)> {
        let jitter = self.roll();
        let turns = if self.nameless.is_empty() { TURNS } else { 1 };
        let (place, patience) = self
            .addresses
            .iter()
            .enumerate()
            .filter(|(_, candidate)| !candidate.excluded && candidate.asked < turns)
            .filter_map(|(place, candidate)| {
                match net.outlook(candidate.address, now) {
                    Outlook::Ask(patience) => {
                        // Servers about as fast as the fastest take turns.
                        let spread =
                            Duration::from_micros(jitter.rotate_left(8 * place as u32) & 0x7FFF);
                        Some(((candidate.asked, patience + spread), place, patience))
                    }
                    Outlook::Rests => None,
                }
            })
            .min_by_key(|(rank, ..)| *rank)
            .map(|(_, place, patience)| (place, patience))?;
        let candidate = &mut self.addresses[place];
        // The second time long enough to be sent it twice more: three times in all (RFC 9520 section 3.1).
        let patience = if candidate.asked == 0 {
            patience
        } else {
            patience * 3
        };
        candidate.asked += 1;
        Some((candidate.address, patience))
    }

    pub(super) fn exclude(&mut self, address: IpAddr) {
        for candidate in &mut self.addresses {
            candidate.excluded |= candidate.address == address;
        }
    }

    /// SplitMix64: good enough to spread, and a test can repeat it.
    fn roll(&mut self) -> u64 {
        self.dice = self.dice.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// Turns each server gets with one question.
const TURNS: u8 = 2;
