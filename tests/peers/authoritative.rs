//! Authoritative answers compared with NSD's on the same zone.
