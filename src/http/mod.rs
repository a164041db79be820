//! The HTTP server: origin and mirror over one library of verified objects.
//!
//! From ground to roof: [`range`], [`fresh`], [`route`], [`message`], [`faces`], [`rules`], [`digest`], [`listing`], [`screen`], [`plain`] (pure); `seldom` (what is not polled each time), [`line`] (a connection's socket),
//! [`watch`] (what a connection does, and when that is too little), [`access`] (the log), [`receipt`] (what became of a request), [`frames`] (how much of bodies is read at once), `paced` (chunks for other nodes), [`body`] (verified chunks
//! as a body), [`pieces`] (their digests), `faced` (other faces of an object), `seed` (BitTorrent peers), [`object`] (one object request), [`upload`] (files put and deleted), [`peer`] (index, manifests and chunks for other nodes), [`proxy`]
//! (a cache of other servers), `quick` (plain requests for small objects, answered before hyper), [`wire`] (the stream hyper reads
//! and writes, watched), `connection` (one of them, from its first byte to its end), [`server`] (listeners, places, limits).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub mod range;

pub mod fresh;

pub mod route;

pub mod message;

pub mod faces;

pub mod rules;

pub mod digest;

pub mod listing;

pub mod screen;

pub mod plain;

mod seldom;

pub mod line;

pub mod watch;

pub mod access;

pub mod receipt;

pub mod frames;

mod paced;

pub mod body;

pub mod pieces;

mod faced;

mod seed;

pub mod object;

pub mod upload;

pub mod peer;

pub mod proxy;

mod quick;

pub mod wire;

mod connection;

pub mod server;

/// Settings of the HTTP server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where cleartext HTTP/1.1 and h2c are served; empty: off.
    pub listen: Vec<SocketAddr>,
    /// Where HTTP/1.1 and HTTP/2 are served over TLS; empty: off.
    pub tls_listen: Vec<SocketAddr>,
    /// A TLS handshake must be done within this.
    pub tls_handshake: Duration,
    /// Connections at once.
    pub connections: usize,
    /// Connections at once per address.
    pub connections_per_address: usize,
    /// A connection that has sent nothing is closed after this.
    pub silent: Duration,
    /// A request head must be whole within this.
    pub head_time: Duration,
    /// An idle kept-alive connection is closed after this.
    pub idle: Duration,
    /// A body or reader slower than 1 KiB/s for this long is closed.
    pub slow: Duration,
    /// Bytes the kernel may hold unsent for one connection.
    pub unsent: u32,
    /// Bytes of bodies that may be read before their clients take them.
    pub frames: u64,
    /// Bytes of a request head.
    pub head_size: usize,
    /// Header fields of a request.
    pub headers: usize,
    /// Bytes of an HTTP/2 request's header list (RFC 9113 section 6.5.2).
    pub header_list: u32,
    /// HTTP/2 streams per connection.
    pub streams: u32,
    /// HTTP/2 streams that the client resets before they were looked at (rapid reset), after which the connection is given up.
    pub resets: usize,
    /// The same, of those reset here for the client's errors.
    pub error_resets: usize,
    /// Ranges honoured per request.
    pub ranges: usize,
    /// How long a reader waits for a chunk that is not held yet.
    pub fill_wait: Duration,
    /// Access log; `None`: off.
    pub access_log: Option<PathBuf>,
    /// How its lines are written.
    pub access_format: access::Format,
    /// Lines of it that may wait for its writer.
    pub access_lines: usize,
    /// Bytes of digests of pieces kept, for torrents and Metalink.
    pub piece_digests: usize,
    /// Whether BitTorrent peers are served where cleartext HTTP is.
    pub torrent_peers: bool,
    /// What may be put where; `None`: nothing.
    pub upload: Option<upload::Config>,
    /// What is said of the answers beneath each prefix.
    pub rules: Vec<rules::Rule>,
    /// The cache of other servers.
    pub proxy: proxy::Config,
}

impl Config {
    /// Whether anything is listened on.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.listen.is_empty() || !self.tls_listen.is_empty()
    }
}
