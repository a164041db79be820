//! A hash table from names to numbers: open addressing, keys kept elsewhere, one cache line for most lookups.

/// Numbers by the hash of a name. The caller compares the name itself.
#[derive(Clone, Debug, Default)]
pub(in crate::dns) struct Table {
    /// A power of two of slots, at most three quarters taken; or none.
    slots: Vec<Slot>,
    taken: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Bits of the hash the index does not use: most misses end here.
    tag: u32,
    value: u32,
}

impl Table {
    /// A table with room for `entries`.
    pub(in crate::dns) fn with_capacity(entries: usize) -> Self {
        let slots = if entries == 0 {
            0
        } else {
            (entries * 4).div_ceil(3).next_power_of_two().max(4)
        };
        Self {
            slots: vec![EMPTY; slots],
            taken: 0,
        }
    }

    /// The value under `hash` for which `is` holds.
    #[inline]
    pub(in crate::dns) fn get(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot.value == EMPTY.value {
                return None;
            }
            if slot.tag == tag(hash) && is(slot.value) {
                return Some(slot.value);
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds a value; `rehash` gives the hash of one added before, for when the table grows.
    pub(in crate::dns) fn insert(&mut self, hash: u64, value: u32, rehash: impl Fn(u32) -> u64) {
        if (self.taken + 1) * 4 > self.slots.len() * 3 {
            let mut grown = Self::with_capacity((self.taken + 1) * 2);
            for slot in self.slots.iter().filter(|slot| slot.value != EMPTY.value) {
                grown.place(rehash(slot.value), slot.value);
            }
            *self = grown;
        }
        self.place(hash, value);
    }

    /// Bytes on the heap.
    pub(in crate::dns) fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
    }

    fn place(&mut self, hash: u64, value: u32) {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at].value != EMPTY.value {
            at = (at + 1) & mask;
        }
        self.slots[at] = Slot {
            tag: tag(hash),
            value,
        };
        self.taken += 1;
    }
}

/// The upper half of a hash; the index uses the lower.
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

const EMPTY: Slot = Slot {
    tag: 0,
    value: u32::MAX,
};
