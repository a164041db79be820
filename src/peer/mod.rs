//! Replication: a mirror fetches what other nodes publish, chunk by chunk, each verified before it is kept.
//!
//! From ground to roof: [`exchange`] (which chunks a node holds), [`message`] (index and paths of the peer protocol),
//! [`claims`] (what is on its way to others), [`schedule`] (which chunk next), [`filter`] (which objects) and [`plan`] (what ought to be held), pure;
//! [`secret`] (who is let in, by a [`window`] of numbers), [`beacon`] (what a node says to its network), [`heard`] (whom this one heard there),
//! [`candidate`] (addresses at which a node may be), [`tracker`] (who mirrors what), [`directory`] (who is known) and [`swarm`] (what of it is shared
//! with the serving side); [`client`] (one request to one node), `trust` (whose word is taken), `transfer` (one object being filled), `mirror` (the loop
//! of one prefix), [`replicate`] (all of them), [`discover`] (finding other nodes). The serving side is `http/peer.rs`.

use std::time::Duration;

use self::filter::Filter;
use crate::content::sign::PublicKey;

pub mod exchange;

pub mod message;

pub mod claims;

pub mod schedule;

pub mod plan;

pub mod filter;

pub mod window;

pub mod secret;

pub mod beacon;

pub mod heard;

pub mod candidate;

pub mod tracker;

pub mod directory;

pub mod swarm;

pub mod client;

mod node;

mod trust;

mod transfer;

mod job;

mod mirror;

pub mod replicate;

pub mod discover;

/// One mirrored prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorConfig {
    /// URL path prefix; begins and ends with `/`.
    pub prefix: String,
    /// Base URLs of the nodes to mirror from, such as `http://origin:8080`.
    pub from: Vec<String>,
    /// Public keys of the origins, the first first; none: each node's key is that of its first answer.
    pub keys: Vec<PublicKey>,
    /// Which objects are mirrored.
    pub filter: Filter,
    /// What is fetched unasked.
    pub mode: Mode,
    /// How often the index is asked for.
    pub interval: Duration,
    /// Chunks in flight at once, per mirrored prefix.
    pub in_flight: usize,
    /// Objects filled at once, per mirrored prefix; the others wait.
    pub filling: usize,
}

/// What a mirror fetches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Everything.
    #[default]
    Replicate,
    /// What readers ask for; it is kept and brought up to date then.
    OnDemand,
}

impl MirrorConfig {
    /// The defaults, for the objects beneath `prefix` of the nodes `from`.
    #[must_use]
    pub fn new(prefix: impl Into<String>, from: Vec<String>) -> Self {
        Self {
            prefix: prefix.into(),
            from,
            keys: Vec::new(),
            filter: Filter::default(),
            mode: Mode::Replicate,
            interval: Duration::from_secs(5),
            in_flight: 8,
            filling: 4,
        }
    }
}
