//! Who mirrors what, as the nodes themselves announce it to this one.
//!
//! `GET announce?prefix=P&port=N` says that the asker mirrors `P` and serves HTTP on port `N` of the address it asks
//! from; so nobody can announce somebody else. The answer names others who announced the same prefix, one around it or
//! one within it. An announcement lives for [`LIFE`] and is repeated meanwhile.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Now;

/// Bytes of an answer at most.
pub const ANSWER_SIZE: u64 = 16 << 10;

/// How long an announcement counts.
pub const LIFE: Duration = Duration::from_secs(60);

/// The answer to an announcement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Others {
    /// Where other nodes serve HTTP.
    pub peers: Vec<SocketAddr>,
}

/// The announcements that count.
#[derive(Debug)]
pub struct Tracker {
    entries: Mutex<Vec<Entry>>,
    most: usize,
}

#[derive(Clone, Debug)]
struct Entry {
    peer: SocketAddr,
    prefix: String,
    until: Now,
}

/// The table has no room for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Tracker {
    /// With room for `most` announcements.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            entries: Mutex::default(),
            most,
        }
    }

    /// Takes an announcement; returns others, chosen by `seed` if there are many.
    ///
    /// # Errors
    /// There is no room: all that are remembered still count. Of one address at most [`PER_ADDRESS`] are.
    pub fn announce(
        &self,
        peer: SocketAddr,
        prefix: &str,
        now: Now,
        seed: u64,
    ) -> Result<Others, Full> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|entry| entry.until > now);
        let until = now.plus(LIFE);
        let own = |entry: &&mut Entry| entry.peer == peer && entry.prefix == prefix;
        if let Some(entry) = entries.iter_mut().find(own) {
            entry.until = until;
        } else {
            let of_address = |ip: IpAddr| entries.iter().filter(|e| e.peer.ip() == ip).count();
            if entries.len() >= self.most || of_address(peer.ip()) >= PER_ADDRESS {
                return Err(Full);
            }
            entries.push(Entry {
                peer,
                prefix: prefix.to_owned(),
                until,
            });
        }
        let near = |entry: &&Entry| {
            entry.peer != peer
                && (entry.prefix.starts_with(prefix) || prefix.starts_with(&entry.prefix))
        };
        let mut peers: Vec<SocketAddr> = entries.iter().filter(near).map(|e| e.peer).collect();
        peers.sort_unstable();
        peers.dedup();
        if peers.len() > PEERS {
            let start = usize::try_from(seed % peers.len() as u64).unwrap_or(0);
            peers.rotate_left(start);
            peers.truncate(PEERS);
        }
        Ok(Others { peers })
    }

    /// Announcements that are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Others {
    /// Reads an answer; `None` if it is none.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let others: Self = serde_json::from_slice(body).ok()?;
        (others.peers.len() <= PEERS).then_some(others)
    }
}

/// Nodes named in one answer.
const PEERS: usize = 32;

/// Announcements of one address (nodes and prefixes) at most.
const PER_ADDRESS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const START: Now = Now {
        mono_ns: 0,
        unix_ms: 0,
    };

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn ports(others: Result<Others, Full>) -> Vec<u16> {
        others.unwrap().peers.iter().map(SocketAddr::port).collect()
    }

    #[test]
    fn nodes_of_one_prefix_learn_of_each_other_while_they_announce() {
        let tracker = Tracker::new(9);
        let tell = |port: u16, prefix: &str, secs| {
            let now = START.plus(Duration::from_secs(secs));
            let peer = SocketAddr::new("192.0.2.1".parse().unwrap(), port);
            ports(tracker.announce(peer, prefix, now, 0))
        };
        assert!(tell(1, "/v/", 0).is_empty());
        assert_eq!(tell(2, "/v/", 1), [1]);
        assert_eq!(tell(3, "/v/w/", 2), [1, 2]);
        assert!(tell(4, "/x/", 3).is_empty());
        assert_eq!(tell(5, "/", 4), [1, 2, 3, 4]);
        assert_eq!(tell(2, "/v/", 60), [3, 5]);
        assert_eq!(tracker.len(), 4, "the first is forgotten");
    }

    #[test]
    fn table_that_is_full_takes_no_other() {
        let tracker = Tracker::new(2);
        assert!(tracker.announce(at("192.0.2.1:1"), "/", START, 0).is_ok());
        assert!(tracker.announce(at("192.0.2.2:1"), "/", START, 0).is_ok());
        let third = tracker.announce(at("192.0.2.3:1"), "/", START, 0);
        assert_eq!(third, Err(Full));
        assert!(tracker.announce(at("192.0.2.1:1"), "/", START, 0).is_ok());
        let later = START.plus(LIFE);
        assert!(tracker.announce(at("192.0.2.3:1"), "/", later, 0).is_ok());
    }

    #[test]
    fn one_address_does_not_fill_the_table() {
        let tracker = Tracker::new(1_000);
        let tell = |port| {
            let peer = SocketAddr::new("192.0.2.1".parse().unwrap(), port);
            tracker.announce(peer, "/", START, u64::from(port))
        };
        let admitted = (1..200).filter(|&port| tell(port).is_ok()).count();
        assert_eq!(admitted, PER_ADDRESS);
        assert!(
            tracker
                .announce(at("192.0.2.2:1"), "/", START, 5)
                .unwrap()
                .peers
                .len()
                == PEERS
        );
    }
}
