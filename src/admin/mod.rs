//! The control socket, and the metrics, health and status pages.
//!
//! From ground to roof: [`api`] (shapes of requests and answers, shared with the command line), [`page`] (the
//! status page), [`handles`] (verbs over the topics' handles), `put` (files that
//! come over the control socket), [`client`] (the command line's side of the
//! socket), [`server`] (both listeners).

pub mod api;

pub mod page;

pub mod handles;

mod put;

pub mod client;

pub mod server;
