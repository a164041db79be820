//! Look-ups under way, shared: of all errands that need the same of one zone's servers (a delegation, the address of a server, keys) one
//! asks, and the others wait for what it learns.
//!
//! An errand that waits holds up what it is asked for itself, so two could wait for each other. But each waits for one other at a time:
//! from errand to errand there is one path, and who would close it to a ring asks by itself. Who leads and gives up, or is dropped,
//! strands nobody: the first that notices leads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use foldhash::fast::RandomState;
use tokio::sync::watch;

use super::cut::Cut;
use super::dname::Dname;
use super::fact::Fact;
use super::trouble::Trouble;

/// What the servers of a zone said of one name and type, kept.
#[derive(Clone, Debug)]
pub(super) enum Learnt {
    /// Those of another zone know.
    Cut(Arc<Cut>),
    /// Data, an alias, or that there is nothing.
    Fact(Arc<Fact>),
}

/// What is waited for; `None` while it is on its way.
type Landed = Option<Result<Learnt, Trouble>>;

/// The look-ups under way. Each errand leads a few, so their number is bounded by that of the fetches.
pub(super) struct Shared {
    table: Mutex<Table>,
    waiters: usize,
}

#[derive(Default)]
struct Table {
    lookups: HashMap<Box<[u8]>, Lookup, RandomState>,
    /// By errands that wait, which errand each is waiting for.
    waiting: HashMap<u64, u64, RandomState>,
    /// Numbers the errands.
    errands: u64,
}

struct Lookup {
    leader: u64,
    /// For those who wait; made for the first of them, since most look-ups have none.
    landed: Option<watch::Sender<Landed>>,
}

/// What an errand that needs something is to do.
pub(super) enum Seat<'s> {
    /// Ask, and tell the others.
    Lead(Lead<'s>),
    /// Wait.
    Wait(Wait<'s>),
    /// Ask, and tell nobody: who asks already waits for this errand.
    Alone,
    /// Too many wait for this already.
    Crowded,
}

impl Shared {
    /// At most `waiters` errands wait for each look-up.
    pub(super) fn new(waiters: usize) -> Self {
        Self {
            table: Mutex::default(),
            waiters,
        }
    }

    /// A number for a new errand.
    pub(super) fn enrol(&self) -> u64 {
        let mut table = self.lock();
        table.errands += 1;
        table.errands
    }

    /// What `errand` is to do about the look-up of `key`.
    pub(super) fn board(&self, errand: u64, key: &[u8]) -> Seat<'_> {
        let mut table = self.lock();
        let Table {
            lookups, waiting, ..
        } = &mut *table;
        let Some(lookup) = lookups.get_mut(key) else {
            let lookup = Lookup {
                leader: errand,
                landed: None,
            };
            lookups.insert(key.into(), lookup);
            return Seat::Lead(Lead {
                shared: self,
                errand,
                key: key.into(),
            });
        };
        if leads_to(waiting, lookup.leader, errand) {
            return Seat::Alone;
        }
        let sender = lookup.landed.get_or_insert_with(|| watch::channel(None).0);
        if sender.receiver_count() >= self.waiters {
            return Seat::Crowded;
        }
        waiting.insert(errand, lookup.leader);
        Seat::Wait(Wait {
            shared: self,
            errand,
            landed: sender.subscribe(),
        })
    }

    /// Who asks from now on is not told what was asked before.
    pub(super) fn forget(&self) {
        self.lock().lookups.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("nothing panics while it is held")
    }
}

/// The key of a look-up: what is asked of whose servers.
pub(super) fn key(zone: &Dname, name: &Dname, qtype: u16) -> Vec<u8> {
    [zone, name, &qtype.to_be_bytes()[..]].concat()
}

/// Whether `from` is `errand`, or waits for it, or for one that does. There are no rings, so this ends; a path too long to walk is
/// taken for one.
fn leads_to(waiting: &HashMap<u64, u64, RandomState>, from: u64, errand: u64) -> bool {
    let mut at = from;
    for _ in 0..PATH {
        if at == errand {
            return true;
        }
        match waiting.get(&at) {
            Some(&next) => at = next,
            None => return false,
        }
    }
    true
}

/// Held by who asks.
pub(super) struct Lead<'s> {
    shared: &'s Shared,
    errand: u64,
    key: Box<[u8]>,
}

impl Lead<'_> {
    /// Tells all who wait.
    pub(super) fn land(self, learnt: &Result<Learnt, Trouble>) {
        if let Some(landed) = self.leave() {
            landed.send_replace(Some(learnt.clone()));
        }
    }

    fn leave(&self) -> Option<watch::Sender<Landed>> {
        let mut table = self.shared.lock();
        // After a flush another may lead.
        match table.lookups.get(&self.key) {
            Some(lookup) if lookup.leader == self.errand => table.lookups.remove(&self.key)?.landed,
            _ => None,
        }
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        drop(self.leave());
    }
}

/// Held by who waits.
pub(super) struct Wait<'s> {
    shared: &'s Shared,
    errand: u64,
    landed: watch::Receiver<Landed>,
}

impl Wait<'_> {
    /// What was learnt; `None`: who asked has given up.
    pub(super) async fn landed(mut self) -> Option<Result<Learnt, Trouble>> {
        let landed = self.landed.wait_for(Option::is_some).await;
        landed.ok().and_then(|landed| landed.clone())
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.shared.lock().waiting.remove(&self.errand);
    }
}

/// Steps from errand to errand looked at. Names of servers nest less deep.
const PATH: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(seat: Seat<'_>) -> Wait<'_> {
        match seat {
            Seat::Wait(wait) => wait,
            _ => panic!("expected to wait"),
        }
    }

    fn lead(seat: Seat<'_>) -> Lead<'_> {
        match seat {
            Seat::Lead(lead) => lead,
            _ => panic!("expected to lead"),
        }
    }

    #[test]
    fn errand_that_would_close_a_ring_asks_by_itself() {
        let shared = Shared::new(10);
        let _a = lead(shared.board(1, b"a"));
        let _b = lead(shared.board(2, b"b"));
        let _c = lead(shared.board(3, b"c"));
        let two = wait(shared.board(2, b"a"));
        let _three = wait(shared.board(3, b"b"));
        assert!(matches!(shared.board(1, b"a"), Seat::Alone), "itself");
        assert!(matches!(shared.board(1, b"c"), Seat::Alone), "1, 3, 2, 1");
        drop(two);
        drop(wait(shared.board(1, b"c")));
    }

    #[tokio::test]
    async fn leader_that_gives_up_strands_nobody() {
        let shared = Shared::new(10);
        let first = lead(shared.board(1, b"a"));
        let waiting = wait(shared.board(2, b"a"));
        drop(first);
        assert!(waiting.landed().await.is_none());
        let second = lead(shared.board(2, b"a"));
        let waiting = wait(shared.board(3, b"a"));
        second.land(&Err(Trouble::Depth));
        assert_eq!(waiting.landed().await.unwrap().unwrap_err(), Trouble::Depth);
        assert!(shared.lock().waiting.is_empty() && shared.lock().lookups.is_empty());
    }

    #[test]
    fn waiters_are_bounded_and_a_flush_begins_anew() {
        let shared = Shared::new(1);
        let before = lead(shared.board(1, b"a"));
        let waiting = wait(shared.board(2, b"a"));
        assert!(matches!(shared.board(3, b"a"), Seat::Crowded));
        shared.forget();
        let _after = lead(shared.board(3, b"a"));
        drop(before);
        drop(waiting);
        drop(wait(shared.board(4, b"a")));
    }
}
