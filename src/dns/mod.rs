//! Names: queries to answers.
//!
//! From ground to roof: [`wire`] (packets), [`zone`] (master files to immutable snapshots),
//! [`answer`] (the decision), [`chaos`] (what the server tells of itself), [`cookie`] and [`rrl`] (who gets how
//! much), [`doh`] (messages in HTTP), [`resolver`] (cache and upstreams), [`tsig`] (signed messages), [`transfer`] (zones between servers),
//! `update` (changes), [`dnssec`] (zones signed), [`keeper`] (the zones in service), [`exchange`] (what other servers say), `ahead` (what a batch will read), [`engine`] (zones and resolver joined,
//! with access lists and metrics), [`front`] (UDP threads and TCP).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::net::Network;

pub mod wire;

pub mod zone;

pub mod answer;

pub mod chaos;

pub mod cookie;

pub mod rrl;

pub mod doh;

pub mod resolver;

pub mod tsig;

pub mod transfer;

pub mod dnssec;

mod update;

pub mod keeper;

pub mod log;

pub mod exchange;

mod ahead;

pub mod engine;

pub mod front;

/// What a client query came over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// One datagram; answers are cut at the UDP limit.
    Udp,
    /// A stream of length-prefixed messages (RFC 7766).
    Tcp,
    /// The same within TLS (RFC 7858).
    Tls,
    /// HTTP exchanges within TLS (RFC 8484).
    Https,
    /// A QUIC stream for each query (RFC 9250).
    Quic,
}

impl Transport {
    /// All transports, in the order of their discriminants.
    pub const ALL: [Self; 5] = [Self::Udp, Self::Tcp, Self::Tls, Self::Https, Self::Quic];

    /// The label value in `headwater_dns_queries_total{transport}`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Https => "https",
            Self::Quic => "quic",
        }
    }

    /// Whether nobody on the way can read what is asked.
    #[must_use]
    pub fn is_encrypted(self) -> bool {
        matches!(self, Self::Tls | Self::Https | Self::Quic)
    }
}

/// How one query ended. Every query has exactly one; the metric's outcomes sum to the queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Own zone: data, positive.
    Authoritative,
    /// Own zone: the name exists, the type does not.
    Nodata,
    /// Own zone: the name does not exist.
    Nxdomain,
    /// Own zone: the name is delegated elsewhere.
    Referral,
    /// From the resolver cache, fresh.
    CacheHit,
    /// From the resolver cache, expired, because no upstream answered in time (RFC 8767).
    CacheStale,
    /// Fetched from an upstream for this query (or together with an equal one).
    Resolved,
    /// Local data or a special-use name.
    Local,
    /// A blocklist decided.
    Blocked,
    /// A zone transfer, or NOTIFY answered.
    Transfer,
    /// A dynamic update done, or found to change nothing.
    Update,
    /// The client may not ask this.
    Refused,
    /// The packet is malformed.
    Formerr,
    /// An operation or class not served here.
    Notimp,
    /// EDNS of a version not known here (RFC 6891).
    Badvers,
    /// Nothing could be found out in time, or a bound was hit.
    Servfail,
    /// Only a cookie: no question came with the client's (RFC 7873 section 5.4), or the server's is asked for
    /// (BADCOOKIE).
    Cookie,
    /// Over the rate limit, and answered with TC or BADCOOKIE only.
    Slipped,
    /// Over the rate limit, and not answered.
    RateLimited,
    /// No answer at all: a response, a runt, or a bound under attack.
    Dropped,
    /// Own zones: aliases, followed up to the bound.
    Chain,
}

impl Config {
    /// Whether anything is served with encryption.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        !(self.tls_listen.is_empty() && self.https_listen.is_empty() && self.quic_listen.is_empty())
    }

    /// Whether anything is served.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.listen.is_empty() || self.is_encrypted()
    }
}

impl Outcome {
    /// All outcomes, in the order of their discriminants.
    pub const ALL: [Self; 21] = [
        Self::Authoritative,
        Self::Nodata,
        Self::Nxdomain,
        Self::Referral,
        Self::CacheHit,
        Self::CacheStale,
        Self::Resolved,
        Self::Local,
        Self::Blocked,
        Self::Transfer,
        Self::Update,
        Self::Refused,
        Self::Formerr,
        Self::Notimp,
        Self::Badvers,
        Self::Servfail,
        Self::Cookie,
        Self::Slipped,
        Self::RateLimited,
        Self::Dropped,
        Self::Chain,
    ];

    /// The label value in `headwater_dns_queries_total{outcome}`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Authoritative => "authoritative",
            Self::Nodata => "nodata",
            Self::Nxdomain => "nxdomain",
            Self::Referral => "referral",
            Self::CacheHit => "cache_hit",
            Self::CacheStale => "cache_stale",
            Self::Resolved => "resolved",
            Self::Local => "local",
            Self::Blocked => "blocked",
            Self::Transfer => "transfer",
            Self::Update => "update",
            Self::Refused => "refused",
            Self::Formerr => "formerr",
            Self::Notimp => "notimp",
            Self::Badvers => "badvers",
            Self::Servfail => "servfail",
            Self::Cookie => "cookie",
            Self::Slipped => "slipped",
            Self::RateLimited => "rate_limited",
            Self::Dropped => "dropped",
            Self::Chain => "cname_chain",
        }
    }
}

/// Answers in one packet for the kernel at most: the least bound of any kernel (`UDP_MAX_SEGMENTS`), and no fewer than a batch has.
pub const UDP_SEGMENTS: usize = 64;

/// Settings of the front. Limits named after TCP are those of TLS, HTTPS and QUIC, too.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where UDP and TCP are served. Without any listener DNS is off.
    pub listen: Vec<SocketAddr>,
    /// UDP threads per address; 0: one per core.
    pub workers: usize,
    /// Largest answer over UDP, bytes, whatever the client advertises (512 without EDNS).
    pub udp_payload: u16,
    /// Answers of one length to one client that the kernel gets as one packet to cut, at most; 1: none.
    pub udp_segments: usize,
    /// EDNS options looked at per query.
    pub edns_options: usize,
    /// Aliases followed through own zones for one query.
    pub cname_chain: usize,
    /// Client queries on the slow path at once: in all, and per /24 or /56.
    pub queries_in_flight: usize,
    /// See `queries_in_flight`.
    pub queries_in_flight_per_network: usize,
    /// The same per /24 or /56 for clients that have shown a cookie.
    pub queries_in_flight_per_proven_network: usize,
    /// Over UDP, an answer later than this is dropped for a network that uses more than half of its
    /// `queries_in_flight_per_network` (a pulse of late answers is a weapon: DNSBomb).
    pub udp_late: Duration,
    /// TCP connections at once: in all, and per address.
    pub tcp_connections: usize,
    /// See `tcp_connections`.
    pub tcp_connections_per_address: usize,
    /// A TCP connection without a query is closed after this (2 s above 80 % of `tcp_connections`).
    pub tcp_idle: Duration,
    /// A message begun must be whole within this.
    pub tcp_message: Duration,
    /// Unanswered queries per TCP connection.
    pub tcp_unanswered: usize,
    /// Answer bytes a TCP client may leave unread, and for how long.
    pub tcp_unread: usize,
    /// See `tcp_unread`.
    pub tcp_unread_time: Duration,
    /// Bounds of zone transfers.
    pub transfer: transfer::Config,
    /// Where TLS, HTTPS and QUIC are served.
    pub tls_listen: Vec<SocketAddr>,
    /// See `tls_listen`.
    pub https_listen: Vec<SocketAddr>,
    /// See `tls_listen`.
    pub quic_listen: Vec<SocketAddr>,
    /// A TLS or QUIC handshake must be done within this.
    pub tls_handshake: Duration,
    /// The path of queries over HTTPS.
    pub https_path: String,
    /// Queries at once on an HTTP/2 connection.
    pub https_streams: u32,
    /// Streams of an HTTP/2 connection that the client resets before they were looked at, or we for its errors, after which it is
    /// given up.
    pub https_resets: usize,
    /// Bytes of an HTTP request's head.
    pub https_head: u32,
    /// Queries at once on a QUIC connection.
    pub quic_streams: u32,
    /// What the server tells of itself; its name is also its NSID.
    pub identity: chaos::Identity,
    /// Cookies; `None`: off.
    pub cookies: Option<CookieConfig>,
    /// Response rate limiting; `None`: off.
    pub rate_limit: Option<RateLimit>,
}

/// Settings of cookies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieConfig {
    /// Whether clients that send a cookie over UDP must send a good one; else BADCOOKIE.
    pub required: bool,
    /// The file of the secrets; `None`: one in the state directory, made at the first start.
    pub secret_file: Option<PathBuf>,
}

/// Settings of response rate limiting.
#[derive(Clone, Debug)]
pub struct RateLimit {
    /// How much is allowed.
    pub rate: rrl::Rate,
    /// Buckets per UDP worker: a power of two, 16 bytes each.
    pub buckets: usize,
    /// Networks without a limit.
    pub exempt: Vec<Network>,
}

/// One own zone, as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ZoneConfig {
    /// Its apex, as a domain name with a final dot, lower case.
    pub name: String,
    /// Its master file; of a secondary, the copy kept of it.
    pub file: PathBuf,
    /// Where updates of it are kept.
    pub updates_file: PathBuf,
    /// Where differences between its versions are kept; empty: in memory only.
    pub history_file: PathBuf,
    /// Default TTL, seconds, where the file has no `$TTL`.
    pub ttl: u32,
    /// Configured TTLs; they win over the file.
    pub ttls: Vec<TtlOverride>,
    /// Who may have the whole zone.
    pub allow_transfer: Vec<transfer::Allow>,
    /// Where it comes from, if not from a master file.
    pub primaries: Vec<transfer::Remote>,
    /// Names of the keys that may update it.
    pub update_keys: Vec<String>,
    /// Who is told when it changes.
    pub notify: Vec<transfer::Remote>,
    /// Differences kept for incremental transfers, bytes in memory; in the file up to twice as many.
    pub journal: usize,
    /// Updates that may wait to be committed.
    pub updates_waiting: usize,
    /// What it is for other zones.
    pub catalog: Option<Catalog>,
    /// The catalog made here that lists it.
    pub member: Option<Membership>,
    /// How the zone is signed here; `None`: it is served as it is.
    pub sign: Option<dnssec::Policy>,
}

/// What a catalog zone (RFC 9432) is to this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Catalog {
    /// It is made here, of the zones whose [`Membership`] names it.
    Producer,
    /// It comes from other servers, and so do the zones it lists.
    Consumer {
        /// What its members are configured with: the first whose name is a group of the member, else the first.
        templates: Vec<Template>,
        /// Members it may have.
        members: usize,
        /// Where copies of members are kept.
        folder: PathBuf,
    },
}

/// What the members of a catalog are configured with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// What catalogs call it.
    pub name: String,
    /// Where members come from; none: where the catalog does.
    pub primaries: Vec<transfer::Remote>,
    /// As in [`ZoneConfig`].
    pub allow_transfer: Vec<transfer::Allow>,
    /// As in [`ZoneConfig`].
    pub notify: Vec<transfer::Remote>,
    /// As in [`ZoneConfig`].
    pub journal: usize,
}

/// What a catalog made here says of a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The catalog's apex.
    pub catalog: String,
    /// The label that stands for the zone; `None`: one made of its name.
    pub id: Option<String>,
    /// Its groups.
    pub groups: Vec<String>,
    /// The catalog it moves to.
    pub coo: Option<String>,
}

/// A configured TTL: one name relative to the zone (`@`: the apex), all types or one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TtlOverride {
    /// Name relative to the zone, such as `www` or `@`.
    pub name: String,
    /// The type's mnemonic (`AAAA`), or all types.
    pub rtype: Option<String>,
    /// The TTL, seconds.
    pub ttl: u32,
}
