//! Why a question could not be resolved.

use super::super::forward::Unanswered;
use super::dname::Dname;

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
}

impl Trouble {
    /// What is to be done about it: counted, remembered or neither.
    pub(in super::super) fn as_unanswered(&self) -> Unanswered {
        match self {
            Self::Packets => Unanswered::Exhausted,
            Self::Time => Unanswered::TimeUp,
            Self::Busy(_) => Unanswered::Busy,
            Self::Depth | Self::Aliases | Self::Unreachable(_) => Unanswered::Nobody,
        }
    }
}
