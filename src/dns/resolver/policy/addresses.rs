//! What is to be done with which addresses of an answer.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use super::rules::{Act, Set};

/// Rules by network, the longest first. IPv4 stands as mapped into IPv6.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// Prefix lengths in use, longest first.
    lengths: Vec<u8>,
    rules: HashMap<(u8, u128), Act, foldhash::fast::RandomState>,
    sets: Vec<Vec<Set>>,
}

/// Rules being gathered.
#[derive(Debug)]
pub(super) struct Growing {
    addresses: Addresses,
    max: usize,
}

impl Addresses {
    /// The rule of the smallest network that holds the address.
    pub(super) fn find(&self, address: IpAddr) -> Option<Act> {
        let bits = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        }
        .to_bits();
        self.lengths.iter().find_map(|&length| {
            let masked = bits & (u128::MAX << (128 - u32::from(length)));
            self.rules.get(&(length, masked)).copied()
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.rules.len()
    }

    /// The records of [`Act::Records`].
    pub(super) fn sets(&self, index: u32) -> &[Set] {
        &self.sets[index as usize]
    }

    /// Bytes on the heap, about.
    pub(super) fn bytes(&self) -> usize {
        self.rules.capacity() * (size_of::<((u8, u128), Act)>() + 1)
    }
}

impl Growing {
    /// No rules; at most `max` are taken.
    pub(super) fn new(max: usize) -> Self {
        Self {
            addresses: Addresses::default(),
            max,
        }
    }

    /// Adds a rule. `Ok(false)`: the network has one already.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn add(&mut self, network: Ipv6Addr, length: u8, act: Act) -> Result<bool, String> {
        let key = (length, network.to_bits());
        if self.addresses.rules.contains_key(&key) {
            return Ok(false);
        }
        if self.addresses.rules.len() >= self.max {
            return Err(format!("found more than {} rules, the bound", self.max));
        }
        self.addresses.rules.insert(key, act);
        if !self.addresses.lengths.contains(&length) {
            self.addresses.lengths.push(length);
        }
        Ok(true)
    }

    /// Adds a record to the rule of a network. `Ok(false)`: its rule is another one.
    ///
    /// # Errors
    /// There are too many rules.
    pub(super) fn add_record(
        &mut self,
        network: Ipv6Addr,
        length: u8,
        rtype: u16,
        ttl: u32,
        data: &[u8],
    ) -> Result<bool, String> {
        let index = match self.addresses.rules.get(&(length, network.to_bits())) {
            Some(&Act::Records(index)) => index,
            Some(_) => return Ok(false),
            None => {
                let index = self.addresses.sets.len() as u32; // At most one per rule.
                self.addresses.sets.push(Vec::new());
                self.add(network, length, Act::Records(index))?;
                index
            }
        };
        Set::push(&mut self.addresses.sets[index as usize], rtype, ttl, data)?;
        Ok(true)
    }

    /// The rules as they are kept.
    pub(super) fn finish(mut self) -> Addresses {
        self.addresses.lengths.sort_unstable_by(|a, b| b.cmp(a));
        self.addresses
    }
}
