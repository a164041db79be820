//! Signing own zones (RFC 4033 to 4035, 5155, 9276).
//!
//! From ground to roof: `canonical` (the form that is signed), `key` (key pairs), [`rrset`] (one RRset signed), [`online`]
//! (one signed in the answer path), `chain` (NSEC and NSEC3), `sign` (a whole zone), `roll` (when which key does what), [`parent`] (what its
//! answers for DS mean), `store` (keys and signatures on disk), [`signer`] (all of it, for the keeper of zones); the tasks
//! [`again`] (has zones signed again) and [`ask`] (asks parents).

use std::time::Duration;

mod canonical;

mod key;

pub mod rrset;

pub mod online;

mod chain;

mod sign;

mod roll;

pub mod parent;

mod store;

pub mod signer;

pub mod again;

pub mod ask;

pub use key::{Algorithm, Key};
pub use roll::Cds;

/// How one zone is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The algorithm of new keys.
    pub algorithm: Algorithm,
    /// How what does not exist is proved.
    pub denial: Proof,
}

/// How what does not exist is proved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proof {
    /// NSEC (RFC 4034): the names can be listed.
    #[default]
    Nsec,
    /// NSEC3 without iterations, salt and opt-out (RFC 9276).
    Nsec3,
}

impl Proof {
    /// All, the default first.
    pub const ALL: [Self; 2] = [Self::Nsec, Self::Nsec3];

    /// As in the configuration.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Nsec => "nsec",
            Self::Nsec3 => "nsec3",
        }
    }
}

/// Times that hold for all signed zones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a signature is valid.
    pub lifetime: Duration,
    /// A signature that is valid for less than this is made anew.
    pub refresh: Duration,
    /// TTL of DNSKEY, CDS and CDNSKEY.
    pub dnskey_ttl: Duration,
    /// How long a change takes to reach all secondaries.
    pub propagation: Duration,
    /// TTL of the DS records in the parent zone.
    pub ds_ttl: Duration,
    /// When the parent is told of keys.
    pub cds: Cds,
    /// How often the parent is asked for the DS that a zone waits for; zero: never.
    pub ask_parent: Duration,
    /// How long a change takes to reach all servers of the parent.
    pub parent_propagation: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let days = |days: u64| Duration::from_secs(days * 86_400);
        Self {
            lifetime: days(14),
            refresh: days(7),
            dnskey_ttl: Duration::from_secs(3_600),
            propagation: Duration::from_secs(3_600),
            ds_ttl: days(1),
            cds: Cds::Rollover,
            ask_parent: Duration::from_secs(600),
            parent_propagation: Duration::from_secs(3_600),
        }
    }
}
