//! A shared cache of ordinary HTTP servers (RFC 9111): `[[proxy]]`.
//!
//! It lies within `http` because it answers requests with the same receipts, bodies and range plans as objects do.
//!
//! From ground to roof: [`dictionary`], [`control`], [`date`], [`freshness`], [`storable`], [`vary`], [`fields`],
//! [`condition`], [`told`], `span` (pure: functions of header fields and the time); [`content`] (the bytes of a response, in
//! chunks), [`table`] (what is stored, and what makes room), `entry` (what is stored, as a file holds it), [`disk`] (chunks
//! and entries in files), `keep` (memory and disk within their budgets), `flight` (requests under way); `tap` (a
//! connection's socket, taken from hyper), `connect` (connections to the configured servers), [`upstream`] (requests over
//! them), `bulk` (large bodies, by a thread), [`flow`] (bodies), `inform` (informational responses), `reply` (answers from
//! what is stored), `fill` (bodies into the cache), `pass` (what goes through without it), `fetch`
//! (what is sent on), [`serve`] (one request), `quick` (hits for plain requests, as bytes).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;

pub mod dictionary;

pub mod control;

pub mod date;

pub mod freshness;

pub mod storable;

pub mod vary;

pub mod fields;

pub mod condition;

pub mod told;

mod span;

pub mod content;

pub mod table;

mod entry;

pub mod disk;

mod keep;

mod flight;

mod tap;

mod connect;

pub mod upstream;

pub mod flow;

mod bulk;

mod inform;

mod reply;

mod fill;

mod pass;

mod fetch;

pub mod serve;

pub(super) mod quick;

/// One `[[proxy]]`.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The host it is for, in lower case; `None`: every host no other rule names.
    pub host: Option<String>,
    /// Host and port of the upstream.
    pub upstream: String,
    /// Whom its certificate must come from; `None`: it is asked in the clear.
    pub roots: Option<Arc<RootCertStore>>,
    /// What it is told about the client.
    pub forwarded: Forward,
    /// Freshness where the upstream states none, seconds; 0: heuristics.
    pub default_ttl: u64,
}

/// What an upstream is told about the client: `X-Forwarded-For`, `X-Forwarded-Proto`, `Forwarded` (RFC 7239).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// Where the request came from. What the client claims itself is dropped.
    Replace,
    /// That, behind what the client says: it is a proxy that is trusted.
    Append,
    /// Nothing of our own; what the client says is passed on.
    Off,
}

/// Settings of the cache.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Who is asked for which host; empty: nothing is proxied.
    pub rules: Vec<Rule>,
    /// Paths beneath these are served by this node itself, unless a rule names their host.
    pub local: Vec<String>,
    /// The node's name, for `Via`.
    pub node: String,
    /// Where responses are kept.
    pub dir: PathBuf,
    /// Bytes on disk.
    pub size: u64,
    /// Bytes in memory.
    pub memory: u64,
    /// Responses kept.
    pub entries: usize,
    /// Responses kept for one target.
    pub variants: usize,
    /// Bytes of the largest response kept.
    pub object: u64,
    /// Requests at upstreams at once.
    pub requests: usize,
    /// Large bodies that are brought by a thread each at once.
    pub fill_threads: usize,
    /// A connection to an upstream is made within this.
    pub connect: Duration,
    /// The head of its answer comes within this.
    pub head_time: Duration,
    /// Bytes of its answer come within this of each other.
    pub silence: Duration,
    /// A connection nobody uses is kept for so long.
    pub idle: Duration,
    /// A response that does not say so is served stale for so long when its upstream fails.
    pub stale_if_error: Duration,
}
