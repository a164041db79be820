//! Which numbers of one run of a node were seen, as IPsec remembers it (RFC 4303 section 3.4.3).

/// The highest number that was seen, and which of the 1,023 below it were.
#[derive(Clone, Debug)]
pub struct Window {
    highest: u64,
    seen: [u64; 16],
}

impl Window {
    /// Nothing seen yet; `first` is the highest known so far.
    #[must_use]
    pub fn new(first: u64) -> Self {
        Self {
            highest: first,
            seen: [0; 16],
        }
    }

    /// Notes a number; whether it is seen for the first time. One too far below the highest counts as seen.
    pub fn take(&mut self, number: u64) -> bool {
        const SLOTS: u64 = 16 * 64;
        if number > self.highest {
            let passed = (number - self.highest).min(SLOTS);
            for passed in (number - passed + 1)..=number {
                self.seen[place(passed)] &= !bit(passed);
            }
            self.highest = number;
        } else if self.highest - number >= SLOTS {
            return false;
        }
        let new = self.seen[place(number)] & bit(number) == 0;
        self.seen[place(number)] |= bit(number);
        new
    }
}

fn place(number: u64) -> usize {
    (number / 64 % 16) as usize
}

fn bit(number: u64) -> u64 {
    1 << (number % 64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn number_is_taken_once_whatever_the_order(
            numbers in prop::collection::vec(0u64..3_000, 1..300), start in 0u64..3_000
        ) {
            let mut window = Window::new(start);
            let mut seen = std::collections::HashSet::new();
            for number in numbers {
                let highest = window.highest;
                let taken = window.take(number);
                let recent = number + 1_024 > highest;
                prop_assert_eq!(taken, recent && seen.insert(number));
            }
        }
    }
}
