//! DNSSEC validation (RFC 4033 to 4035, 5155, 6840, 9276).
//!
//! From ground to roof, all functions of their arguments: `crypto` (ring: signatures and digests), [`anchor`] (where trust
//! begins), `signature` (one RRset under one zone's keys), `denial` (what NSEC and NSEC3 sets prove), `ranges` (what
//! they prove of names never asked for), [`roll`] (which keys of an anchor's zone are believed over time, RFC 5011; a `look` feeds it). The walk along the
//! chain of trust, `chain` (and who is to `blame` where it breaks), is part of an errand of [`super::recurse`]: keys and DS records are looked up on the account of the
//! client query that needs them.

use self::anchor::Anchors;

pub(super) mod crypto;

pub mod anchor;

pub(super) mod signature;

pub(super) mod denial;

pub(super) mod ranges;

pub(super) mod chain;

mod blame;

pub mod roll;

mod look;

#[cfg(test)]
mod tests;

/// Settings of validation (`dnssec = true`).
#[derive(Clone, Debug)]
pub struct Config {
    /// Where trust begins and where it is not asked for.
    pub anchors: Anchors,
    /// Signatures checked for one client query.
    pub signature_checks: u32,
    /// Of these, those that may fail.
    pub signature_failures: u32,
    /// Keys of one tag that are tried for one signature.
    pub keys_per_tag: usize,
    /// Signatures of one RRset that are looked at.
    pub signatures_per_rrset: usize,
    /// DS records of one zone that are tried.
    pub ds_records: usize,
    /// NSEC3 iterations beyond which a zone counts as unsigned (RFC 9276 section 3.2).
    pub nsec3_iterations: u16,
    /// Names hashed for one client query.
    pub nsec3_hashes: u32,
    /// How often what does not validate is asked of another server of the zone, for one client query.
    pub other_servers: u32,
    /// How anchors roll by themselves (RFC 5011), if they do.
    pub rolling: Option<roll::Config>,
    /// NSEC ranges kept to deny names never asked for (RFC 8198); 0: none.
    pub ranges: usize,
}

/// What validation may still spend for one client query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    pub(super) checks: u32,
    pub(super) failures: u32,
    pub(super) hashes: u32,
    pub(super) keys_per_tag: usize,
    pub(super) signatures_per_rrset: usize,
    pub(super) iterations: u16,
    pub(super) reached: Reached,
}

/// Which bounds took effect since somebody last looked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reached {
    /// A key with the tag of a signature was not tried.
    pub(super) keys_per_tag: bool,
    /// A signature of an RRset was not looked at.
    pub(super) signatures_per_rrset: bool,
    /// Records with too many iterations were left out.
    pub(super) nsec3_iterations: bool,
    /// A name was not hashed.
    pub(super) nsec3_hashes: bool,
}

impl Account {
    /// By the settings; without any, nothing.
    pub(super) fn new(config: Option<&Config>) -> Self {
        config.map_or(
            Self {
                checks: 0,
                failures: 0,
                hashes: 0,
                keys_per_tag: 0,
                signatures_per_rrset: 0,
                iterations: 0,
                reached: Reached::default(),
            },
            |config| Self {
                checks: config.signature_checks,
                failures: config.signature_failures,
                hashes: config.nsec3_hashes,
                keys_per_tag: config.keys_per_tag,
                signatures_per_rrset: config.signatures_per_rrset,
                iterations: config.nsec3_iterations,
                reached: Reached::default(),
            },
        )
    }
}
