//! Headwater: one daemon that answers names and serves, verified, the bytes behind them.
//!
//! The map, from ground to roof (ARCHITECTURE.md says more):
//!
//! - [`time`], [`net`], [`tls`]: the clock, networks and sockets, certificates.
//! - [`metrics`]: one owned registry, one struct per topic.
//! - [`content`]: chunks, manifests, the store and what is published. Knows nobody.
//! - [`dns`]: queries to answers: own zones, the resolver and its cache, the UDP and TCP front.
//! - [`peer`]: replication of what other nodes publish.
//! - [`link`]: load of the network interfaces.
//! - [`http`]: the origin and mirror server over [`content`] and [`peer`], and a cache of other servers.
//! - [`config`]: layers of settings, turned once into the topics' own types.
//! - [`admin`]: the control socket, and the metrics and health pages.
//! - [`daemon`]: build, bind, load, run, drain. [`cli`]: the command line.

pub mod time;

pub mod net;

pub mod tls;

pub mod metrics;

pub mod content;

pub mod dns;

pub mod peer;

pub mod link;

pub mod ftp;

pub mod http;

pub mod config;

pub mod admin;

pub mod daemon;

pub mod cli;

pub mod systemd;

pub mod trace;
