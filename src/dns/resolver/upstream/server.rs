//! What is known of each server: speed, life, what it understands; and the bounds on what is asked of it.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::sync::Semaphore;

use super::Config;
use super::health::Health;
use super::query::{Cookie, Signs};
use super::secure::Secure;
use super::stream::Line;
use crate::time::Now;

/// One server.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    facts: Mutex<Facts>,
    /// Queries in flight to it.
    pub(super) seats: Semaphore,
    pub(super) line: Line,
    /// Held by who opens a connection.
    pub(super) opening: tokio::sync::Mutex<()>,
    /// The only way to ask it, if it is to be asked over TLS or HTTPS.
    pub(super) secure: Option<Arc<Secure>>,
}

#[derive(Clone, Copy, Debug)]
struct Facts {
    health: Health,
    cookie: Cookie,
    /// It did not understand EDNS; until then it is not tried again.
    plain_until: Option<Now>,
}

impl Server {
    pub(super) fn new(
        address: SocketAddr,
        secure: Option<Arc<Secure>>,
        cookie: [u8; 8],
        config: &Config,
    ) -> Arc<Self> {
        Arc::new(Self {
            address,
            facts: Mutex::new(Facts {
                health: Health::default(),
                cookie: Cookie::new(cookie),
                plain_until: None,
            }),
            seats: Semaphore::new(config.fetches_per_server.min(Semaphore::MAX_PERMITS)),
            line: Line::default(),
            opening: tokio::sync::Mutex::default(),
            secure,
        })
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What is wrong with its encrypted connection, and how that is; `None`: it is asked in the clear.
    pub(crate) fn connection(&self) -> Option<(&'static str, Option<Arc<str>>)> {
        let secure = self.secure.as_ref()?;
        Some((secure.connection(), secure.problem()))
    }

    /// Its speed and life as of now, for [`super::health::pick`].
    pub(crate) fn health(&self) -> Health {
        self.facts().health
    }

    pub(super) fn answered(&self, took: Duration) {
        self.facts().health.answered(took);
    }

    pub(super) fn lives(&self) {
        self.facts().health.lives();
    }

    pub(super) fn fell_silent(&self, now: Now) {
        self.facts().health.fell_silent(now);
    }

    pub(super) fn is_unreachable(&self, now: Now) {
        self.facts().health.is_unreachable(now);
    }

    /// Dead for a while longer: it is being tried again.
    pub(crate) fn put_off(&self, now: Now) {
        self.facts().health.put_off(now);
    }

    /// The cookie to send, unless EDNS is not to be used at `now`.
    pub(super) fn cookie(&self, now: Now) -> Option<Cookie> {
        let facts = self.facts();
        match facts.plain_until {
            Some(until) if now.mono_ns < until.mono_ns => None,
            _ => Some(facts.cookie),
        }
    }

    /// It answers without EDNS what it did not with.
    pub(super) fn is_plain(&self, now: Now) {
        self.facts().plain_until = Some(now.plus(PLAIN));
    }

    /// Takes note of the cookie in a reply that was checked. Whether one is missing that should be there: the reply may
    /// be anybody's.
    pub(super) fn lacks_cookie(&self, signs: &Signs<'_>) -> bool {
        let mut facts = self.facts();
        match signs.cookie {
            Some(cookie) => {
                // Eight octets are ours.
                facts.cookie.learn(cookie.get(8..).unwrap_or_default());
                false
            }
            None => !facts.cookie.server().is_empty(),
        }
    }

    /// It gives no cookies any more.
    pub(super) fn forget_cookie(&self) {
        self.facts().cookie.learn(&[]);
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().expect("nothing panics while it is held")
    }
}

/// Questions of each zone whose servers do not reply in their usual time. When there are too many, the zone counts as
/// ailing and no more are asked: names made up beneath a dead zone must not take the place of others.
///
/// Zones are told apart by a hash: two that share one also share a bound.
#[derive(Debug)]
pub(super) struct Zones {
    overdue: Mutex<HashMap<u64, usize, RandomState>>,
    hasher: RandomState,
    most: usize,
}

impl Zones {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            overdue: Mutex::default(),
            hasher: RandomState::default(),
            most,
        })
    }

    /// The mark of `zone` (wire form, lower case); `None`: it is ailing.
    pub(super) fn admit(&self, zone: &[u8]) -> Option<u64> {
        let hash = self.hasher.hash_one(zone);
        let count = self.overdue().get(&hash).copied().unwrap_or(0);
        (count < self.most).then_some(hash)
    }

    /// Counts a question of the zone of that mark as overdue, if there is room for one more.
    pub(super) fn is_overdue(self: &Arc<Self>, hash: u64) -> Option<Overdue> {
        let mut overdue = self.overdue();
        let count = overdue.entry(hash).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Overdue {
            zones: Arc::clone(self),
            hash,
        })
    }

    fn overdue(&self) -> MutexGuard<'_, HashMap<u64, usize, RandomState>> {
        self.overdue
            .lock()
            .expect("nothing panics while it is held")
    }
}

/// A question that waits longer than is usual. Dropped, it waits no more.
#[derive(Debug)]
pub(super) struct Overdue {
    zones: Arc<Zones>,
    hash: u64,
}

impl Drop for Overdue {
    fn drop(&mut self) {
        let mut overdue = self.zones.overdue();
        if let Some(count) = overdue.get_mut(&self.hash) {
            *count -= 1;
            if *count == 0 {
                overdue.remove(&self.hash);
            }
        }
    }
}

/// How long a server is asked without EDNS before that is tried again.
const PLAIN: Duration = Duration::from_secs(900);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zone_with_too_many_overdue_is_ailing_until_one_ends() {
        let zones = Zones::new(2);
        let dead = zones.admit(b"\x04dead\0").unwrap();
        let first = zones.is_overdue(dead).unwrap();
        assert_eq!(zones.admit(b"\x04dead\0"), Some(dead));
        let _second = zones.is_overdue(dead).unwrap();
        assert_eq!(zones.admit(b"\x04dead\0"), None);
        assert!(zones.is_overdue(dead).is_none(), "that began before");
        let other = zones.admit(b"\x05alive\0").unwrap();
        drop(zones.is_overdue(other).unwrap());
        drop(first);
        assert!(zones.admit(b"\x04dead\0").is_some());
        assert_eq!(zones.overdue().len(), 1, "nothing is left of the other");
    }
}
