//! Buffers of one turn, shared by all connections: at most one per thread of the runtime is ever taken.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::dns::engine::{Engine, MESSAGE_MAX};
use crate::dns::resolver::near::Near;

/// What a turn works with.
#[derive(Debug)]
pub(super) struct Scratch {
    pub(super) input: Box<[u8]>,
    pub(super) output: Box<[u8]>,
    /// Copies of cached answers.
    pub(super) near: Option<Near>,
}

/// Scratches not in use.
#[derive(Debug)]
pub(super) struct Pool {
    engine: Arc<Engine>,
    /// Threads that keep copies of cached answers, in all: what each may take follows from it.
    threads: usize,
    free: Mutex<Vec<Scratch>>,
}

impl Pool {
    pub(super) fn new(engine: Arc<Engine>, threads: usize) -> Self {
        Self {
            engine,
            threads,
            free: Mutex::default(),
        }
    }

    /// Works with a scratch; to be called where nothing is awaited.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Scratch) -> T) -> T {
        let free = self.lock().pop();
        let mut scratch = free.unwrap_or_else(|| Scratch {
            input: vec![0; INPUT].into(),
            output: vec![0; FLUSH + FRAME].into(),
            near: self.engine.near(self.threads),
        });
        let done = work(&mut scratch);
        self.lock().push(scratch);
        done
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Scratch>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A message with its length.
pub(super) const FRAME: usize = 2 + MESSAGE_MAX;

/// Input of one turn: what was left (less than a message) and what is read.
const INPUT: usize = 2 * FRAME;

/// Answers gathered before they are written.
pub(super) const FLUSH: usize = 64 << 10;
