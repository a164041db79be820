//! Single flight: equal questions share one fetch.
//!
//! A fetch runs on a task of its own, not on that of the client that came first: when that client goes away the
//! others still get their answer. The number of flights is bounded by permits, the number of those who wait for
//! each by a count.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use foldhash::fast::RandomState;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::entry::Entry;
use super::key::{Kept, Key};

/// What a fetch brought; `None` while it is on its way.
pub(super) type Landed = Option<Result<Arc<Entry>, Failed>>;

/// The fetch failed; why has been counted and logged where it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failed;

/// The fetches in flight.
#[derive(Debug)]
pub(super) struct Flights {
    table: Arc<Table>,
    permits: Arc<Semaphore>,
    waiters: usize,
}

type Table = Mutex<HashMap<Kept, Flight, RandomState>>;

/// One fetch in flight.
#[derive(Debug)]
struct Flight {
    /// The cache's generation when it began: who asks after a flush must not get what was asked before.
    generation: u64,
    result: Arc<watch::Sender<Landed>>,
}

/// What a client that wants an answer is to do.
#[derive(Debug)]
pub(super) enum Seat {
    /// Start the fetch, then wait.
    Lead(Pilot, watch::Receiver<Landed>),
    /// Wait.
    Wait(watch::Receiver<Landed>),
    /// Too many wait for this already.
    CrowdedOut,
    /// Too many fetches are in flight.
    Grounded,
}

impl Flights {
    /// At most `fetches` flights, and `waiters` clients waiting for each.
    pub(super) fn new(fetches: usize, waiters: usize) -> Self {
        Self {
            table: Arc::default(),
            permits: Arc::new(Semaphore::new(fetches.min(Semaphore::MAX_PERMITS))),
            waiters,
        }
    }

    /// A seat on the flight for `key`.
    pub(super) fn board(&self, key: &Key, generation: u64) -> Seat {
        let mut table = lock(&self.table);
        if let Some(flight) = table.get(&**key)
            && flight.generation == generation
        {
            if flight.result.receiver_count() >= self.waiters {
                return Seat::CrowdedOut;
            }
            return Seat::Wait(flight.result.subscribe());
        }
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return Seat::Grounded;
        };
        let (sender, receiver) = watch::channel(None);
        let result = Arc::new(sender);
        let key = Kept::from(&**key);
        table.insert(
            key.clone(),
            Flight {
                generation,
                result: Arc::clone(&result),
            },
        );
        let pilot = Pilot {
            key,
            generation,
            table: Arc::clone(&self.table),
            result,
            _permit: permit,
        };
        Seat::Lead(pilot, receiver)
    }

    /// Fetches that may still start.
    pub(super) fn free(&self) -> usize {
        self.permits.available_permits()
    }
}

/// Held by the task that fetches. Dropped without [`Pilot::land`] (a panic, a runtime that stops), those who wait
/// learn that nothing will come.
pub(super) struct Pilot {
    key: Kept,
    generation: u64,
    table: Arc<Table>,
    result: Arc<watch::Sender<Landed>>,
    _permit: OwnedSemaphorePermit,
}

impl Pilot {
    /// The question.
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    /// The cache's generation when the flight began.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Tells all who wait.
    pub(super) fn land(self, result: Result<Arc<Entry>, Failed>) {
        self.result.send_replace(Some(result));
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        let mut table = lock(&self.table);
        // After a flush another flight may have taken the place.
        if table
            .get(&*self.key)
            .is_some_and(|flight| Arc::ptr_eq(&flight.result, &self.result))
        {
            table.remove(&*self.key);
        }
    }
}

impl std::fmt::Debug for Pilot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pilot")
            .field("key", &&*self.key)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

fn lock(table: &Table) -> std::sync::MutexGuard<'_, HashMap<Kept, Flight, RandomState>> {
    table
        .lock()
        .expect("nothing panics while the table is held")
}

#[cfg(test)]
mod tests {
    use super::super::partition::Partition;
    use super::*;

    fn key(name: &[u8]) -> Key {
        Key::new(name, 1, false, false, Partition(0))
    }

    #[tokio::test]
    async fn flight_dropped_by_its_pilot_strands_nobody() {
        let flights = Flights::new(10, 10);
        let Seat::Lead(pilot, _leader) = flights.board(&key(b"\x01a\0"), 0) else {
            panic!("the first one leads");
        };
        let Seat::Wait(mut waiter) = flights.board(&key(b"\x01A\0"), 0) else {
            panic!("the second one waits");
        };
        drop(pilot);
        assert!(waiter.wait_for(Option::is_some).await.is_err());
        assert_eq!(flights.free(), 10);
        assert!(matches!(flights.board(&key(b"\x01a\0"), 0), Seat::Lead(..)));
    }

    #[test]
    fn flight_with_all_seats_taken_turns_clients_away() {
        let flights = Flights::new(10, 2);
        let a = flights.board(&key(b"\x01a\0"), 0);
        let b = flights.board(&key(b"\x01a\0"), 0);
        assert!(matches!((&a, &b), (Seat::Lead(..), Seat::Wait(_))));
        assert!(matches!(
            flights.board(&key(b"\x01a\0"), 0),
            Seat::CrowdedOut
        ));
        drop(b);
        assert!(matches!(flights.board(&key(b"\x01a\0"), 0), Seat::Wait(_)));
    }

    #[test]
    fn flights_beyond_the_bound_do_not_start() {
        let flights = Flights::new(1, 10);
        let first = flights.board(&key(b"\x01a\0"), 0);
        assert!(matches!(flights.board(&key(b"\x01b\0"), 0), Seat::Grounded));
        drop(first);
        assert!(matches!(flights.board(&key(b"\x01b\0"), 0), Seat::Lead(..)));
    }

    #[test]
    fn flight_begun_before_a_flush_takes_nobody_after_it() {
        let flights = Flights::new(10, 10);
        let Seat::Lead(before, _r1) = flights.board(&key(b"\x01a\0"), 0) else {
            panic!("the first one leads");
        };
        let Seat::Lead(_after, _r2) = flights.board(&key(b"\x01a\0"), 1) else {
            panic!("after a flush a new flight begins");
        };
        drop(before);
        assert!(matches!(flights.board(&key(b"\x01a\0"), 1), Seat::Wait(_)));
    }
}
