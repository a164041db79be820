//! Single flight: equal questions share one fetch.
//!
//! The client that came first fetches, the others wait. The number of flights is bounded by permits, the number of
//! clients that want each answer by a count.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use foldhash::fast::RandomState;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::entry::Entry;
use crate::dns::wire::Ede;

/// What a fetch brought; `None` while it is on its way.
pub(super) type Landed = Option<Result<Arc<Entry>, Failed>>;

/// The fetch failed; the details have been counted and logged where it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failed(pub(super) Ede);

/// The fetches in flight.
#[derive(Debug)]
pub(super) struct Flights {
    table: Arc<Table>,
    permits: Arc<Semaphore>,
    waiters: usize,
}

type Table = Mutex<Departures>;

#[derive(Debug, Default)]
struct Departures {
    flights: HashMap<Arc<[u8]>, Flight, RandomState>,
    /// For those who wait for a flight whose place another took after a flush, by its number.
    displaced: HashMap<u64, watch::Sender<Landed>, RandomState>,
    /// Numbers the flights.
    next: u64,
}

/// One fetch in flight.
#[derive(Debug)]
struct Flight {
    number: u64,
    /// The cache's generation when it began: who asks after a flush must not get what was asked before.
    generation: u64,
    /// For those who wait; made for the first of them, since most flights have none.
    result: Option<watch::Sender<Landed>>,
}

/// What a client that wants an answer is to do.
#[derive(Debug)]
pub(super) enum Seat {
    /// Fetch.
    Lead(Pilot),
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
    pub(super) fn board(&self, key: &[u8], generation: u64) -> Seat {
        let mut table = lock(&self.table);
        if let Some(flight) = table.flights.get_mut(key)
            && flight.generation == generation
        {
            return match &flight.result {
                // The pilot is one of those who want the answer.
                Some(result) if result.receiver_count() + 1 >= self.waiters => Seat::CrowdedOut,
                None if self.waiters <= 1 => Seat::CrowdedOut,
                Some(result) => Seat::Wait(result.subscribe()),
                None => Seat::Wait(flight.wait()),
            };
        }
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return Seat::Grounded;
        };
        let number = table.next;
        table.next += 1;
        let key = Arc::<[u8]>::from(key);
        let flight = Flight {
            number,
            generation,
            result: None,
        };
        if let Some(old) = table.flights.insert(Arc::clone(&key), flight)
            && let Some(result) = old.result
        {
            table.displaced.insert(old.number, result);
        }
        Seat::Lead(Pilot {
            key,
            number,
            generation,
            table: Arc::clone(&self.table),
            _permit: permit,
        })
    }

    /// Fetches that may still start.
    pub(super) fn free(&self) -> usize {
        self.permits.available_permits()
    }
}

impl Flight {
    fn wait(&mut self) -> watch::Receiver<Landed> {
        match &self.result {
            Some(result) => result.subscribe(),
            None => {
                let (sender, receiver) = watch::channel(None);
                self.result = Some(sender);
                receiver
            }
        }
    }
}

/// Held by who fetches. Dropped without [`Pilot::land`] (a panic, a runtime that stops), those who wait learn
/// that nothing will come.
pub(super) struct Pilot {
    key: Arc<[u8]>,
    number: u64,
    generation: u64,
    table: Arc<Table>,
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

    /// What it will bring, for a client that does not fetch itself.
    pub(super) fn wait(&self) -> Option<watch::Receiver<Landed>> {
        let mut table = lock(&self.table);
        let flight = table.flights.get_mut(&self.key)?;
        (flight.number == self.number).then(|| flight.wait())
    }

    /// Tells all who wait.
    pub(super) fn land(self, result: &Result<Arc<Entry>, Failed>) {
        if let Some(waiting) = self.leave() {
            waiting.send_replace(Some(result.clone()));
        }
    }

    /// Takes the flight out of the table; returns where those listen who wait for it.
    fn leave(&self) -> Option<watch::Sender<Landed>> {
        let mut table = lock(&self.table);
        match table.flights.get(&self.key) {
            Some(flight) if flight.number == self.number => table.flights.remove(&self.key)?.result,
            _ => table.displaced.remove(&self.number),
        }
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        drop(self.leave());
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

fn lock(table: &Table) -> std::sync::MutexGuard<'_, Departures> {
    table
        .lock()
        .expect("nothing panics while the table is held")
}

#[cfg(test)]
mod tests {
    use super::super::key::Key;
    use super::super::partition::Partition;
    use super::*;

    fn key(name: &[u8]) -> Key {
        Key::new(name, 1, false, false, Partition(0))
    }

    #[tokio::test]
    async fn flight_dropped_by_its_pilot_strands_nobody() {
        let flights = Flights::new(10, 10);
        let Seat::Lead(pilot) = flights.board(&key(b"\x01a\0"), 0) else {
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
        let Seat::Lead(before) = flights.board(&key(b"\x01a\0"), 0) else {
            panic!("the first one leads");
        };
        let Seat::Wait(early) = flights.board(&key(b"\x01a\0"), 0) else {
            panic!("the second one waits");
        };
        let Seat::Lead(_after) = flights.board(&key(b"\x01a\0"), 1) else {
            panic!("after a flush a new flight begins");
        };
        before.land(&Err(Failed(Ede::Other)));
        assert_eq!(early.borrow().as_ref().map(Result::is_err), Some(true));
        assert!(matches!(flights.board(&key(b"\x01a\0"), 1), Seat::Wait(_)));
        assert!(lock(&flights.table).displaced.is_empty());
    }
}
