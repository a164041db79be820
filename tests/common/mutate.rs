//! Seeds and their mutations, the same ones at each run.

use std::fs;
use std::path::Path;

/// Makes packets out of seeds.
pub(crate) struct Mutator {
    seeds: Vec<Vec<u8>>,
    random: u64,
}

impl Mutator {
    /// Of the seeds of one fuzz target.
    pub(crate) fn new(target: &str) -> Self {
        let random = 0x5EED;
        let seeds = seeds(target);
        Self { seeds, random }
    }

    /// Fills `out` with a seed that has been changed at one to four places.
    pub(crate) fn next(&mut self, out: &mut Vec<u8>) {
        let seed = self.below(self.seeds.len());
        out.clear();
        out.extend_from_slice(&self.seeds[seed]);
        for _ in 0..=self.below(4) {
            self.change(out);
        }
        out.truncate(4_096);
    }

    fn change(&mut self, out: &mut Vec<u8>) {
        let len = out.len();
        if len == 0 {
            out.push(0);
            return;
        }
        let at = self.below(len);
        match self.below(8) {
            0 => out[at] ^= 1 << self.below(8),
            1 => out[at] = self.below(256) as u8,
            2 => out[at] = [0, 1, 0x3F, 0x40, 0x7F, 0x80, 0xC0, 0xFF][self.below(8)],
            3 => out.truncate(at),
            4 => out.insert(at, self.below(256) as u8),
            5 => {
                out.remove(at);
            }
            6 => {
                let end = at + self.below(len - at + 1);
                let part = out[at..end].to_vec();
                out.extend(part);
            }
            _ => {
                let other = self.below(self.seeds.len());
                let from = self.below(self.seeds[other].len() + 1);
                out.truncate(at);
                out.extend_from_slice(&self.seeds[other][from..]);
            }
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % bound as u64) as usize
    }
}

/// The seeds of one fuzz target, in the order of their names.
pub(crate) fn seeds(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut files: Vec<_> = fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    files.sort();
    assert!(files.len() > 5, "{} has too few seeds", dir.display());
    files
        .iter()
        .map(|file| fs::read(file).expect("a seed"))
        .collect()
}
