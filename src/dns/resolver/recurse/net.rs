//! What recursion needs of the world: a clock, dice, one exchange with one server or with upstreams, and a wait that ends. Tests have a made-up one.

use std::net::IpAddr;
use std::time::Duration;

use super::super::budget::Budget;
use super::super::forward::{Avoid, Unanswered};
use super::super::partition::Partition;
use super::response::Response;
use crate::time::Now;

/// Asks name servers.
pub(in super::super) trait Net: Send + Sync + 'static {
    /// Reads the clocks.
    fn now(&self) -> Now;

    /// Random bits, for the choice among servers.
    fn dice(&self) -> u64;

    /// What is known of a server's speed and life.
    fn outlook(&self, server: IpAddr, now: Now) -> Outlook;

    /// Sends the question (RD clear, DO set) to `server`, one of `zone`'s, and waits for the reply until `until`, over TCP if it
    /// comes truncated. A reply with another id or question is no reply. Every packet is charged to `budget` first.
    fn ask<'a>(
        &'a self,
        server: IpAddr,
        zone: &'a [u8],
        question: (&'a [u8], u16),
        budget: &'a Budget,
        until: Now,
    ) -> impl Future<Output = Result<Vec<u8>, Silence>> + Send + 'a;

    /// Puts the question (RD, CD and DO set) to the upstreams of `partition`, until one gives a usable reply; also which of them did. Every
    /// packet is charged to `budget`.
    fn forward<'a>(
        &'a self,
        partition: Partition,
        question: (&'a [u8], u16),
        avoid: Avoid,
        budget: &'a Budget,
    ) -> impl Future<Output = Result<(Response, u8), Unanswered>> + Send + 'a;

    /// Waits for what another errand is about to learn, at most until `until`; `None`: it did not come.
    fn wait<T: Send>(
        &self,
        coming: impl Future<Output = T> + Send,
        until: Now,
    ) -> impl Future<Output = Option<T>> + Send;
}

/// What to expect of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Outlook {
    /// Ask, and wait this long; the faster it is, the less.
    Ask(Duration),
    /// It has been silent so often that it is not asked now.
    Rests,
}

/// Why there is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Silence {
    /// Nothing came in time, or the server cannot be reached.
    Silent,
    /// What came makes no sense.
    Broken,
    /// The budget has no packet left.
    Spent,
    /// A bound of ours was reached: too many fetches in flight to the zone or the server, or no socket left.
    Busy,
}
