//! One object being filled: what is asked for, and what each node holds of it.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::claims::Claims;
use super::exchange::{ExchangeError, HaveAsk, Holding, Known};
use super::plan::{Holds, Wanted};
use super::schedule::Fetch;
use crate::content::have::Have;
use crate::content::object::Object;
use crate::time::Now;

/// An object being filled.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) object: Arc<Object>,
    /// Chunks in flight.
    pub(super) pending: Vec<Pending>,
    /// By node: what it has of the object.
    seats: Vec<Seat>,
}

/// A chunk in flight.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) fetch: Fetch,
    since: Now,
    cancel: CancellationToken,
}

/// What one node has of one object.
#[derive(Debug, Default)]
struct Seat {
    /// Its index says that it has the whole.
    whole: Option<Have>,
    /// What it says itself.
    known: Option<Known>,
    claims: Claims,
    publishes: bool,
}

impl Transfer {
    /// Of an object that is wanted so, among `nodes` nodes.
    pub(super) fn new(object: Arc<Object>, wanted: &Wanted, nodes: usize) -> Self {
        let mut transfer = Self {
            object,
            pending: Vec::new(),
            seats: Vec::new(),
        };
        transfer.make_room(nodes);
        transfer.refresh(wanted);
        transfer
    }

    /// There are `nodes` nodes now.
    pub(super) fn make_room(&mut self, nodes: usize) {
        self.seats.resize_with(nodes, Seat::default);
    }

    /// Takes over what the indexes of the first nodes say.
    pub(super) fn refresh(&mut self, wanted: &Wanted) {
        let count = self.object.manifest().layout.count();
        for (seat, holds) in self.seats.iter_mut().zip(&wanted.nodes) {
            seat.publishes = *holds == Holds::Published;
            seat.whole = (*holds != Holds::Nothing).then(|| Have::full(count));
        }
    }

    /// What a node is to be asked about this object; `None`: nothing.
    pub(super) fn ask(&self, place: usize) -> Option<HaveAsk> {
        let seat = &self.seats[place];
        let tags = seat.known.as_ref().map(Known::tags).unwrap_or_default();
        let open = seat.whole.is_none() && self.object.manifest().layout.count() > 1;
        open.then(|| HaveAsk {
            id: self.object.id(),
            tags: tags.to_vec(),
        })
    }

    /// Takes over what a node said when it was asked; `None`: it does not know the version. Whether that changes
    /// anything.
    ///
    /// # Errors
    /// It cannot be right.
    pub(super) fn answered(
        &mut self,
        place: usize,
        holding: Option<&Holding>,
        now: Now,
    ) -> Result<bool, ExchangeError> {
        let count = self.object.manifest().layout.count();
        let seat = &mut self.seats[place];
        let Some(holding) = holding else {
            seat.claims = Claims::default();
            return Ok(seat.known.take().is_some());
        };
        let known = seat.known.get_or_insert_with(|| Known::nothing(count));
        let changed = known.apply(&holding.pages)?;
        seat.publishes = holding.published;
        seat.claims.update(&holding.coming, known.have(), now);
        Ok(changed)
    }

    /// The node at `place` is another now.
    pub(super) fn forget(&mut self, place: usize) {
        self.seats[place] = Seat::default();
    }

    pub(super) fn have(&self, place: usize) -> Option<&Have> {
        let seat = &self.seats[place];
        seat.whole
            .as_ref()
            .or_else(|| seat.known.as_ref().map(Known::have))
    }

    pub(super) fn publishes(&self, place: usize) -> bool {
        self.seats[place].publishes
    }

    pub(super) fn coming(&self, place: usize, now: Now) -> Vec<u32> {
        self.seats[place].claims.believed(now)
    }

    /// A node does not hold a chunk it was thought to.
    pub(super) fn misses(&mut self, place: usize, index: u32) {
        let seat = &mut self.seats[place];
        if let Some(whole) = &mut seat.whole {
            whole.remove(index);
        }
        if let Some(known) = &mut seat.known {
            known.remove(index);
        }
    }

    /// A node does not know the version any more.
    pub(super) fn gone(&mut self, place: usize) {
        (self.seats[place].whole, self.seats[place].known) = (None, None);
    }

    pub(super) fn busy(&self) -> Vec<u32> {
        self.pending.iter().map(|p| p.fetch.index).collect()
    }

    /// A chunk was asked for; what ends the request.
    pub(super) fn asked(&mut self, fetch: Fetch, now: Now) -> CancellationToken {
        let cancel = CancellationToken::new();
        self.pending.push(Pending {
            fetch,
            since: now,
            cancel: cancel.clone(),
        });
        cancel
    }

    /// A request has ended; how long it took.
    pub(super) fn ended(&mut self, fetch: Fetch, now: Now) -> Duration {
        let Some(at) = self.pending.iter().position(|p| p.fetch == fetch) else {
            return Duration::ZERO;
        };
        now.since(self.pending.swap_remove(at).since)
    }

    /// Ends the requests to one node.
    pub(super) fn leave(&self, place: usize) {
        let those = self.pending.iter().filter(|p| p.fetch.source == place);
        those.for_each(|p| p.cancel.cancel());
    }

    /// Ends further requests for a chunk that is held now; who was asked, and for how long.
    pub(super) fn had(&self, index: u32, now: Now) -> Vec<(usize, Duration)> {
        let those = self.pending.iter().filter(|p| p.fetch.index == index);
        those
            .map(|p| {
                p.cancel.cancel();
                (p.fetch.source, now.since(p.since))
            })
            .collect()
    }

    /// Chunks that one node alone is asked for, for longer than `patience`, or `wanted` if a reader waits; the oldest
    /// first, with that node.
    pub(super) fn late(&self, patience: Duration, wanted: Duration, now: Now) -> Vec<Fetch> {
        let wants = self.object.wants();
        let mut late: Vec<&Pending> = self
            .pending
            .iter()
            .filter(|p| {
                let index = p.fetch.index;
                let bound = if wants.contains(&index) {
                    wanted
                } else {
                    patience
                };
                let alone = self.pending.iter().filter(|o| o.fetch.index == index);
                now.since(p.since) > bound && alone.count() == 1
            })
            .collect();
        late.sort_by_key(|p| p.since);
        late.into_iter().map(|p| p.fetch).collect()
    }

    /// Whether some node that `may` be asked has something of it.
    pub(super) fn has_source(&self, may: impl Fn(usize) -> bool) -> bool {
        (0..self.seats.len()).any(|place| may(place) && self.have(place).is_some())
    }

    /// Whether some node holds the chunk.
    pub(super) fn is_held(&self, index: u32) -> bool {
        (0..self.seats.len()).any(|p| self.have(p).is_some_and(|have| have.contains(index)))
    }
}
