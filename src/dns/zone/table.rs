//! A hash table from names to what is known of them: open addressing, keys kept elsewhere, one cache line for most lookups.

/// Values by the hash of a name: numbers, or more where that saves a look elsewhere. The caller compares the name itself.
#[derive(Clone, Debug, Default)]
pub(in crate::dns) struct Table<V = u32> {
    /// A power of two of slots, at most three quarters taken; or none.
    slots: Vec<Slot<V>>,
    taken: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot<V> {
    /// Bits of the hash the index does not use: most misses end here.
    tag: u32,
    value: V,
}

/// What a table holds.
pub(in crate::dns) trait Value: Copy + std::fmt::Debug {
    /// Stands in free slots; never put in.
    const EMPTY: Self;

    /// Whether this is [`Value::EMPTY`].
    fn is_empty(self) -> bool;
}

impl Value for u32 {
    const EMPTY: Self = Self::MAX;

    fn is_empty(self) -> bool {
        self == Self::EMPTY
    }
}

impl<V: Value> Table<V> {
    /// A table with room for `entries`.
    pub(in crate::dns) fn with_capacity(entries: usize) -> Self {
        Self::with_slots(match entries {
            0 => 0,
            _ => (entries * 4).div_ceil(3).next_power_of_two().max(SLOTS_MIN),
        })
    }

    fn with_slots(slots: usize) -> Self {
        let empty = Slot {
            tag: 0,
            value: V::EMPTY,
        };
        Self {
            slots: vec![empty; slots],
            taken: 0,
        }
    }

    /// The value under `hash` for which `is` holds.
    #[inline]
    pub(in crate::dns) fn get(&self, hash: u64, mut is: impl FnMut(V) -> bool) -> Option<V> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot.value.is_empty() {
                return None;
            }
            if slot.tag == tag(hash) && is(slot.value) {
                return Some(slot.value);
            }
            at = (at + 1) & mask;
        }
    }

    /// Something of the slot where a value under `hash` is looked for first.
    #[inline]
    pub(in crate::dns) fn near(&self, hash: u64) -> usize {
        let mask = self.slots.len().wrapping_sub(1);
        let slot = self.slots.get(hash as usize & mask);
        slot.map_or(0, |slot| slot.tag as usize)
    }

    /// The first value whose hash begins and ends as `hash` does: most likely the one.
    #[inline]
    pub(in crate::dns) fn first(&self, hash: u64) -> Option<V> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot.value.is_empty() {
                return None;
            }
            if slot.tag == tag(hash) {
                return Some(slot.value);
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds a value; `rehash` gives the hash of one added before, for when the table grows.
    pub(in crate::dns) fn insert(&mut self, hash: u64, value: V, rehash: impl Fn(V) -> u64) {
        if (self.taken + 1) * 4 > self.slots.len() * 3 {
            let mut grown = Self::with_slots((self.slots.len() * 2).max(SLOTS_MIN));
            for slot in self.slots.iter().filter(|slot| !slot.value.is_empty()) {
                grown.place(rehash(slot.value), slot.value);
            }
            *self = grown;
        }
        self.place(hash, value);
    }

    /// Changes the values, not what they are found by.
    pub(in crate::dns) fn update(&mut self, mut change: impl FnMut(&mut V)) {
        for slot in self.slots.iter_mut().filter(|slot| !slot.value.is_empty()) {
            change(&mut slot.value);
        }
    }

    /// Bytes on the heap.
    pub(in crate::dns) fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot<V>>()
    }

    fn place(&mut self, hash: u64, value: V) {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while !self.slots[at].value.is_empty() {
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

const SLOTS_MIN: usize = 4;
