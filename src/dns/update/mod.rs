//! Dynamic updates (RFC 2136): what a message does to a zone, and the file that keeps it.
//!
//! From ground to roof: [`apply`](apply::apply) (a message and a zone to changes), `command` (changes as an operator
//! writes them), `journal` (changes as octets, and back). The keeper joins them with the zone in service.

pub(super) mod apply;

pub(super) mod command;

pub(super) mod journal;
