//! The built binary against the tools people really use: dig, kdig, curl, NSD, Unbound, Prometheus.
//!
//! Asked for by name: `cargo test --release --test peers -- --test-threads=1`. A tool that is missing is a
//! failure that names its Debian package, never a skipped test.

mod harness;

mod https;

mod answer;

mod attack;
mod catalog;

mod authoritative;

mod control;

mod curl;

mod dig;

mod dnstap;

mod edns;

mod ftp;

mod encrypted;

mod faces;

mod link;

mod masterfile;

mod memory;

mod mirror;

mod mutated;

mod names;

mod prometheus;

mod proxy;

mod readers;

mod recursion;

mod replication;

mod rescue;

mod resolver;

mod restart;

mod rollover;

#[cfg(feature = "s3")]
mod s3;

mod shapes;

mod signed;

mod signing;
mod store;

mod swarm;

mod transfer;

mod update;

mod upload;

mod upstreams;

mod versions;
