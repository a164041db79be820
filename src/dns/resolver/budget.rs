//! One budget per client query: upstream packets and time. Passed by reference, never reset.
//!
//! The engine opens one per client query; everything done for that query, on whatever task, spends from the
//! same account: retransmissions, TCP after TC, a second upstream. Nothing can refill it, so no detour of the
//! resolver (an alias, a retry, a fallback) buys an attacker a fresh one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::time::Now;

/// What one client query may still spend.
#[derive(Debug)]
pub struct Budget {
    account: Arc<Account>,
}

#[derive(Debug)]
struct Account {
    packets: AtomicU32,
    deadline: Now,
}

impl Budget {
    /// A budget of `packets` upstream packets (datagrams, connects, TLS handshakes and queries on connections each count one),
    /// until `deadline` on the monotonic clock.
    #[must_use]
    pub fn new(packets: u32, deadline: Now) -> Self {
        Self {
            account: Arc::new(Account {
                packets: AtomicU32::new(packets),
                deadline,
            }),
        }
    }

    /// Takes one packet from the account; to be called before the packet is sent.
    ///
    /// # Errors
    /// [`Exhausted`] when there is none left; then nothing may be sent.
    pub fn charge_packet(&self) -> Result<(), Exhausted> {
        self.account
            .packets
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            })
            .map(|_| ())
            .map_err(|_| Exhausted)
    }

    /// Packets left.
    #[must_use]
    pub fn packets(&self) -> u32 {
        self.account.packets.load(Ordering::Relaxed)
    }

    /// Time left at `now`; zero once the deadline has passed.
    #[must_use]
    pub fn remaining(&self, now: Now) -> Duration {
        self.account.deadline.since(now)
    }

    /// A second handle on the same account, for a task that works on behalf of this query.
    pub(super) fn share(&self) -> Self {
        Self {
            account: Arc::clone(&self.account),
        }
    }
}

/// How much of `limit` may be spent on work, for the answer to be with the client when it is over. The rest, a twentieth, is for what
/// comes after the last wait: checking, composing and sending, on a machine that has other things to do, too.
pub(super) fn for_work(limit: Duration) -> Duration {
    limit - limit / 20
}

/// A client query has sent all the upstream packets it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client query has used up its upstream packets")]
pub struct Exhausted;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Now {
        Now {
            mono_ns: secs * 1_000_000_000,
            unix_ms: 0,
        }
    }

    #[test]
    fn budget_shared_with_a_task_is_one_account() {
        let budget = Budget::new(3, at(5));
        let task = budget.share();
        assert_eq!(budget.charge_packet(), Ok(()));
        assert_eq!(task.charge_packet(), Ok(()));
        assert_eq!(budget.charge_packet(), Ok(()));
        assert_eq!(task.charge_packet(), Err(Exhausted));
        assert_eq!(budget.charge_packet(), Err(Exhausted));
        assert_eq!(budget.packets(), 0);
    }

    #[test]
    fn work_leaves_a_twentieth_for_the_answer() {
        let work = |millis| for_work(Duration::from_millis(millis)).as_millis();
        assert_eq!((work(5_000), work(1_800), work(0)), (4_750, 1_710, 0));
    }

    #[test]
    fn budget_remaining_ends_at_the_deadline() {
        let budget = Budget::new(1, at(5));
        assert_eq!(budget.remaining(at(2)), Duration::from_secs(3));
        assert_eq!(budget.remaining(at(9)), Duration::ZERO);
    }
}
