//! Random bits nobody can foretell: ids, ports, the case of names, cookies.

use rustix::rand::{GetRandomFlags, getrandom};

/// The kernel's generator, read some thousand octets at a time.
pub(super) struct Dice {
    bytes: Box<[u8; BYTES]>,
    at: usize,
}

impl Dice {
    pub(super) fn new() -> Self {
        Self {
            bytes: Box::new([0; BYTES]),
            at: BYTES,
        }
    }

    /// The next `N` octets; each is given out once.
    pub(super) fn octets<const N: usize>(&mut self) -> [u8; N] {
        const { assert!(N <= BYTES) }
        if self.at + N > self.bytes.len() {
            self.refill();
        }
        let mut out = [0; N];
        out.copy_from_slice(&self.bytes[self.at..self.at + N]);
        self.at += N;
        out
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_ne_bytes(self.octets())
    }

    /// A number below `bound`, which is not 0. The bias is below 2⁻³² for the bounds of this folder.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let random = u64::from_ne_bytes(self.octets());
        // The remainder is below a `usize`.
        (random % bound as u64) as usize
    }

    fn refill(&mut self) {
        let mut filled = 0;
        while filled < self.bytes.len() {
            match getrandom(&mut self.bytes[filled..], GetRandomFlags::empty()) {
                Ok(n) => filled += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("the kernel gives no random numbers: {error}"),
            }
        }
        self.at = 0;
    }
}

impl std::fmt::Debug for Dice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dice")
    }
}

const BYTES: usize = 4_096;
