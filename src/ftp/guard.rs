//! Passwords guessed: who failed too often is not asked again for a while. A function of its calls and `now`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::net::client_network;

/// Failures per client network. Users are not locked, so that nobody can lock out another.
#[derive(Debug)]
pub struct Guard {
    failures: u32,
    lockout: Duration,
    networks: usize,
    seen: HashMap<IpAddr, (u32, Duration)>,
}

impl Guard {
    /// After `failures` in a row, no login for `lockout`; at most `networks` are remembered.
    #[must_use]
    pub fn new(failures: u32, lockout: Duration, networks: usize) -> Self {
        Self {
            failures,
            lockout,
            networks,
            seen: HashMap::new(),
        }
    }

    /// Whether a login from `address` may be tried at `now` (of a clock that only goes on).
    #[must_use]
    pub fn admits(&self, address: IpAddr, now: Duration) -> bool {
        match self.seen.get(&client_network(address)) {
            Some((failed, last)) => *failed < self.failures || now >= *last + self.lockout,
            None => true,
        }
    }

    /// Takes the outcome of a login.
    pub fn note(&mut self, address: IpAddr, right: bool, now: Duration) {
        let network = client_network(address);
        if right {
            self.seen.remove(&network);
            return;
        }
        if self.seen.len() >= self.networks && !self.seen.contains_key(&network) {
            let lockout = self.lockout;
            self.seen.retain(|_, (_, last)| now < *last + lockout);
            let oldest = self.seen.iter().min_by_key(|(_, (_, last))| *last);
            if let (true, Some((&oldest, _))) = (self.seen.len() >= self.networks, oldest) {
                self.seen.remove(&oldest);
            }
        }
        let entry = self.seen.entry(network).or_insert((0, now));
        if now >= entry.1 + self.lockout {
            entry.0 = 0;
        }
        *entry = (entry.0.saturating_add(1), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_that_fails_thrice_waits_and_others_do_not() {
        let secs = Duration::from_secs;
        let [a, near, b] = ["192.0.2.1", "192.0.2.9", "198.51.100.1"].map(|a| a.parse().unwrap());
        let mut guard = Guard::new(3, secs(60), 2);
        for now in 0..3 {
            assert!(guard.admits(a, secs(now)));
            guard.note(a, false, secs(now));
        }
        assert!(!guard.admits(near, secs(3)));
        assert!(guard.admits(b, secs(3)));
        assert!(guard.admits(a, secs(62)));
        guard.note(a, false, secs(62));
        assert!(guard.admits(a, secs(63)), "the count began anew");
        guard.note(a, true, secs(63));
        for last in 1..=9 {
            guard.note(IpAddr::from([10, 0, last, 1]), false, secs(64));
        }
        assert!(guard.seen.len() <= 2);
    }
}
