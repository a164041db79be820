//! Why a question could not be resolved.

use super::super::forward::Unanswered;
use super::dname::Dname;
use crate::dns::wire::Ede;

/// Why there is no answer; the client gets SERVFAIL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in super::super) enum Trouble {
    /// The client query has used up its upstream packets.
    #[error("the upstream packets of this query are used up")]
    Packets,
    /// The client query has used up its time.
    #[error("the time of this query is used up")]
    Time,
    /// Servers of servers of servers: too deep.
    #[error("the names of name servers nest too deep")]
    Depth,
    /// The aliases end nowhere, or too late.
    #[error("the aliases loop or are too many")]
    Aliases,
    /// A bound of ours was reached while this zone was asked; it has been counted.
    #[error("too many queries in flight towards {0}")]
    Busy(Dname),
    /// No server of the zone gives a usable answer.
    #[error("no server of {0} answers")]
    Unreachable(Dname),
    /// Servers of the zone reply, but none gives an answer.
    #[error("the servers of {0} reply to no avail")]
    Useless(Dname),
    /// It does not validate.
    #[error("{name} does not validate: {why}")]
    Bogus {
        /// Whose records or absence.
        name: Dname,
        /// What is wrong.
        why: Bogus,
    },
}

/// Why something does not validate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in super::super) enum Bogus {
    /// A signature or its key is wrong.
    #[error("no signature holds")]
    Signature,
    /// The time of the signature is over.
    #[error("a signature has expired")]
    Expired,
    /// The time of the signature is to come.
    #[error("a signature is not valid yet")]
    NotYet,
    /// The keys are not those the parent or the anchor speaks of.
    #[error("there is no DNSKEY that the DS speaks of")]
    Dnskey,
    /// It comes without signatures.
    #[error("there are no signatures, and should be")]
    Unsigned,
    /// Upstreams leave out signatures and proofs.
    #[error("the upstream passes on no signatures")]
    Stripped,
    /// NSEC or NSEC3 do not prove it.
    #[error("the proof of absence does not hold")]
    Denial,
    /// The account of the client query is used up.
    #[error("it takes too many signature checks")]
    Checks,
}

impl Trouble {
    /// What is to be done about it (counted, remembered or neither), and what the client is told.
    pub(in super::super) fn as_unanswered(&self) -> Unanswered {
        match self {
            Self::Packets => Unanswered::Exhausted,
            Self::Time => Unanswered::TimeUp,
            Self::Busy(_) => Unanswered::Busy,
            Self::Depth | Self::Aliases => Unanswered::Failed(Ede::Other),
            Self::Unreachable(_) => Unanswered::Nobody,
            Self::Useless(_) => Unanswered::Failed(Ede::NetworkError),
            Self::Bogus { why, .. } => Unanswered::Failed(match why {
                Bogus::Signature | Bogus::Checks => Ede::DnssecBogus,
                Bogus::Expired => Ede::SignatureExpired,
                Bogus::NotYet => Ede::SignatureNotYetValid,
                Bogus::Dnskey => Ede::DnskeyMissing,
                Bogus::Unsigned | Bogus::Stripped => Ede::RrsigsMissing,
                Bogus::Denial => Ede::NsecMissing,
            }),
        }
    }
}
