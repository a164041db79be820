//! Parts of the daemon on real sockets of 127.0.0.1. Nothing but Rust is needed.

mod dns;
mod floors;
mod resolver;
