//! Parts of the daemon on real sockets of 127.0.0.1, and the built binary. Nothing but Rust is needed.

mod bounds;
mod commands;
mod config;
mod content;
mod daemon;
mod dns;
mod evict;
mod faults;
mod floors;
mod ftp;
mod fuzz;
mod harness;
mod http;
mod link;
mod log;
mod policy;
mod proxy;
mod recursion;
mod replication;
mod resolver;
mod swarm;
mod truncation;
mod zones;
