//! Whom this node heard on its network, by their beacons.
//!
//! A beacon counts once: within a minute of this node's clock, by a window of numbers per run, which is remembered for
//! as long as a beacon could be sent again. Where there is no secret anybody can make one; then only an address it comes
//! from counts, and runs are told apart by it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::beacon::{Beacon, BeaconError, Kind};
use super::secret::{Secret, WINDOW};
use super::window::Window;
use crate::metrics::peers::Heard as Outcome;
use crate::time::Now;

/// The nodes that were heard.
#[derive(Debug)]
pub struct Heard {
    secret: Secret,
    /// Whether all who can make a beacon are members.
    closed: bool,
    own: u64,
    entries: HashMap<(u64, Option<IpAddr>), Entry>,
    most: usize,
    /// Beacons looked at in this second, at most `pace`.
    second: u64,
    looked: u32,
    pace: u32,
}

#[derive(Debug)]
struct Entry {
    window: Window,
    last: Now,
    until: Now,
}

/// What a beacon says that was not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A node is here.
    Here {
        /// Its name.
        node: String,
        /// Where it serves HTTP.
        addresses: Vec<SocketAddr>,
        /// For how long that counts.
        life: Duration,
        /// Whether it wants to hear of this node soon: it asks, or was not known.
        soon: bool,
    },
    /// A node is going, which served HTTP there.
    Left(Vec<SocketAddr>),
}

impl Heard {
    /// Nobody yet. `own` is this node's run; `most` runs are remembered, `pace` beacons looked at in a second.
    #[must_use]
    pub fn new(secret: Option<Secret>, own: u64, most: usize, pace: u32) -> Self {
        Self {
            closed: secret.is_some(),
            secret: secret.unwrap_or_else(open),
            own,
            entries: HashMap::new(),
            most,
            second: 0,
            looked: 0,
            pace,
        }
    }

    /// Takes a datagram that came from the address `from`.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn take(&mut self, bytes: &[u8], from: IpAddr, now: Now) -> Result<News, Outcome> {
        if self.second != now.mono_secs() {
            (self.second, self.looked) = (now.mono_secs(), 0);
        }
        if self.looked >= self.pace {
            return Err(Outcome::Dropped);
        }
        self.looked += 1;
        let beacon = Beacon::open(bytes, &self.secret).map_err(|error| match error {
            BeaconError::Malformed => Outcome::Malformed,
            BeaconError::Stranger => Outcome::Stranger,
        })?;
        if beacon.run == self.own {
            return Err(Outcome::Own);
        }
        if now.unix_ms.abs_diff(beacon.unix_ms) > WINDOW.as_millis() as u64 {
            return Err(Outcome::Time);
        }
        let life = Duration::from_secs(beacon.life.into()).min(LIFE);
        let key = (beacon.run, (!self.closed).then_some(from));
        if !self.entries.contains_key(&key) && self.entries.len() >= self.most {
            let old = |entry: &Entry| entry.until <= now && now.since(entry.last) > WINDOW * 2;
            self.entries.retain(|_, entry| !old(entry));
            if self.entries.len() >= self.most {
                return Err(Outcome::Full);
            }
        }
        let entry = self.entries.entry(key).or_insert(Entry {
            window: Window::new(beacon.number),
            last: now,
            until: now,
        });
        if !entry.window.take(beacon.number) {
            return Err(Outcome::Replayed);
        }
        let known = entry.until > now;
        entry.last = now;
        let closed = self.closed;
        let reachable = beacon.addresses.iter().filter_map(|a| place(*a, from));
        let addresses = reachable.filter(|a| closed || a.ip() == from).collect();
        if beacon.kind == Kind::Leaving {
            entry.until = now;
            return Ok(News::Left(addresses));
        }
        entry.until = now.plus(life);
        Ok(News::Here {
            node: beacon.node,
            addresses,
            life,
            soon: beacon.kind == Kind::Asking || !known,
        })
    }
}

/// What beacons are sealed with where nodes share no secret: a checksum, then, and no proof.
#[must_use]
pub fn open() -> Secret {
    Secret::new(b"")
}

/// Where an announced address is, said from `from`; `None`: nowhere that can be asked.
fn place(address: SocketAddr, from: IpAddr) -> Option<SocketAddr> {
    let from = from.to_canonical();
    let ip = match address.ip() {
        ip if ip.is_unspecified() && ip.is_ipv4() == from.is_ipv4() => from,
        ip => ip,
    };
    // A link-local address means nothing without its link, which no URL can name.
    let local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let good = !ip.is_unspecified() && !ip.is_multicast() && !local && address.port() != 0;
    good.then(|| SocketAddr::new(ip, address.port()))
}

/// A beacon counts for so long at most, whatever it says.
const LIFE: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests {
    use super::*;

    const START: Now = Now {
        mono_ns: 1_000_000_000_000,
        unix_ms: 1_700_000_000_000,
    };

    const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn secret() -> Secret {
        Secret::new(b"all of us")
    }

    fn heard() -> Heard {
        Heard::new(Some(secret()), 1, 4, 1_000)
    }

    fn beacon(run: u64, number: u64, kind: Kind, now: Now) -> Beacon {
        Beacon {
            kind,
            run,
            number,
            unix_ms: now.unix_ms,
            life: 90,
            node: "b".to_owned(),
            addresses: vec!["0.0.0.0:80".parse().unwrap()],
        }
    }

    fn at(secs: u64) -> Now {
        START.plus(Duration::from_secs(secs))
    }

    fn here(news: Result<News, Outcome>) -> (Vec<String>, bool) {
        match news.unwrap() {
            News::Here {
                addresses, soon, ..
            } => (addresses.iter().map(ToString::to_string).collect(), soon),
            News::Left(_) => panic!("it is here"),
        }
    }

    #[test]
    fn node_is_heard_where_its_beacon_comes_from() {
        let mut heard = heard();
        let mut take = |beacon: Beacon, now| heard.take(&beacon.seal(&secret()), FROM, now);
        let first = here(take(beacon(7, 0, Kind::Here, START), START));
        assert_eq!(first, (vec!["192.0.2.1:80".to_owned()], true));
        let again = here(take(beacon(7, 1, Kind::Here, at(30)), at(30)));
        assert!(!again.1, "it was known");
        let asks = here(take(beacon(7, 2, Kind::Asking, at(31)), at(31)));
        assert!(asks.1);
        let mut said = beacon(7, 3, Kind::Here, at(32));
        said.addresses = ["[fe80::1]:80", "192.0.2.9:0", "239.0.0.1:80", "[::]:80"]
            .iter()
            .chain(&["[2001:db8::1]:81", "127.0.0.1:82"])
            .map(|a| a.parse().unwrap())
            .collect();
        let (addresses, _) = here(take(said, at(32)));
        assert_eq!(addresses, ["[2001:db8::1]:81", "127.0.0.1:82"]);
        let left = take(beacon(7, 4, Kind::Leaving, at(33)), at(33));
        assert_eq!(left, Ok(News::Left(vec!["192.0.2.1:80".parse().unwrap()])));
    }

    #[test]
    fn beacon_sent_again_or_at_another_time_does_not_count() {
        let mut heard = heard();
        let once = beacon(7, 5, Kind::Here, START).seal(&secret());
        assert!(heard.take(&once, FROM, START).is_ok());
        assert_eq!(heard.take(&once, FROM, at(59)), Err(Outcome::Replayed));
        assert_eq!(heard.take(&once, FROM, at(61)), Err(Outcome::Time));
        let bye = beacon(7, 6, Kind::Leaving, at(1)).seal(&secret());
        assert!(heard.take(&bye, FROM, at(1)).is_ok());
        let other = "192.0.2.66".parse().unwrap();
        assert_eq!(heard.take(&once, other, at(2)), Err(Outcome::Replayed));
        let own = beacon(1, 9, Kind::Here, START).seal(&secret());
        assert_eq!(heard.take(&own, FROM, START), Err(Outcome::Own));
        let stranger = beacon(8, 0, Kind::Here, START).seal(&Secret::new(b"others"));
        assert_eq!(heard.take(&stranger, FROM, START), Err(Outcome::Stranger));
        assert_eq!(heard.take(b"hello", FROM, START), Err(Outcome::Malformed));
    }

    #[test]
    fn table_that_is_full_takes_no_other_until_old_ones_are_forgotten() {
        let mut heard = heard();
        let mut take = |run, now| {
            let bytes = beacon(run, 0, Kind::Here, now).seal(&secret());
            heard.take(&bytes, FROM, now).map(drop)
        };
        for run in 2..6 {
            assert_eq!(take(run, START), Ok(()));
        }
        assert_eq!(take(6, at(60)), Err(Outcome::Full));
        assert_eq!(take(6, at(100)), Err(Outcome::Full), "it could be replayed");
        assert_eq!(take(6, at(121)), Ok(()));
    }

    #[test]
    fn more_beacons_in_a_second_than_are_looked_at_are_dropped() {
        let mut heard = Heard::new(Some(secret()), 1, 4, 2);
        let mut take = |now| heard.take(b"noise", FROM, now);
        assert_eq!(take(START), Err(Outcome::Malformed));
        assert_eq!(take(START), Err(Outcome::Malformed));
        assert_eq!(take(START), Err(Outcome::Dropped));
        assert_eq!(take(at(1)), Err(Outcome::Malformed));
    }

    #[test]
    fn without_a_secret_only_the_address_it_comes_from_counts() {
        let mut heard = Heard::new(None, 1, 4, 1_000);
        let mut said = beacon(7, 0, Kind::Here, START);
        said.addresses = vec![
            "198.51.100.1:80".parse().unwrap(),
            "192.0.2.1:8080".parse().unwrap(),
        ];
        let (addresses, _) = here(heard.take(&said.seal(&open()), FROM, START));
        assert_eq!(addresses, ["192.0.2.1:8080"]);
        // Another who takes up its number does not silence it.
        let mut forged = beacon(7, u64::MAX, Kind::Leaving, START);
        forged.addresses = said.addresses.clone();
        let left = heard.take(&forged.seal(&open()), "192.0.2.66".parse().unwrap(), START);
        assert_eq!(left, Ok(News::Left(Vec::new())));
        said.number = 1;
        assert!(heard.take(&said.seal(&open()), FROM, START).is_ok());
    }
}
