//! Why an answer is not what was hoped for: Extended DNS Errors (RFC 8914).

/// A code of the registry of Extended DNS Errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Ede {
    /// None of the others.
    Other = 0,
    /// Validation met only DNSKEY algorithms that are not known here.
    UnsupportedDnskeyAlgorithm = 1,
    /// Validation met only DS digests that are not known here.
    UnsupportedDsDigest = 2,
    /// Expired data, since fresh data could not be had (RFC 8767).
    StaleAnswer = 3,
    /// The answer is made up by policy, and differs from what the zone says.
    ForgedAnswer = 4,
    /// Validation ended undecided.
    DnssecIndeterminate = 5,
    /// Validation failed.
    DnssecBogus = 6,
    /// All signatures have expired.
    SignatureExpired = 7,
    /// No signature is valid yet.
    SignatureNotYetValid = 8,
    /// A DS has no DNSKEY to match.
    DnskeyMissing = 9,
    /// Signatures are missing.
    RrsigsMissing = 10,
    /// No DNSKEY has the Zone Key bit.
    NoZoneKeyBitSet = 11,
    /// The proof of absence is missing.
    NsecMissing = 12,
    /// A failure remembered from a moment ago (RFC 9520).
    CachedError = 13,
    /// The server cannot answer yet.
    NotReady = 14,
    /// Blocked by the operator's own policy.
    Blocked = 15,
    /// Blocked by a policy imposed on the operator.
    Censored = 16,
    /// Blocked as the client asked for.
    Filtered = 17,
    /// This client may not ask this.
    Prohibited = 18,
    /// An expired NXDOMAIN, since fresh data could not be had.
    StaleNxdomain = 19,
    /// Not a zone of this server, and recursion was not asked for or is not offered.
    NotAuthoritative = 20,
    /// The operation or query is not served here.
    NotSupported = 21,
    /// No server of the zone could be reached, or none gave a usable answer.
    NoReachableAuthority = 22,
    /// A network error on the way to another server.
    NetworkError = 23,
    /// The zone here is not usable: it has expired, or was never loaded.
    InvalidData = 24,
    /// A signature expires before it begins.
    SignatureExpiredBeforeValid = 25,
    /// Replayed TLS early data.
    TooEarly = 26,
    /// More NSEC3 iterations than are followed here (RFC 9276).
    UnsupportedNsec3Iterations = 27,
    /// A policy asked for cannot be kept.
    UnableToConformToPolicy = 28,
    /// The answer was synthesised (RFC 8198).
    Synthesized = 29,
    /// A type that may not be asked for.
    InvalidQueryType = 30,
}

impl Ede {
    /// Whether it says that validation failed.
    #[must_use]
    pub fn is_bogus(self) -> bool {
        matches!(
            self,
            Self::DnssecBogus
                | Self::SignatureExpired
                | Self::SignatureNotYetValid
                | Self::DnskeyMissing
                | Self::RrsigsMissing
                | Self::NoZoneKeyBitSet
                | Self::NsecMissing
        )
    }
}

/// A code and a few words for people, at most [`TEXT_MAX`] bytes. Carried by the OPT of
/// an answer when the query had one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The code.
    pub code: Ede,
    /// Plain words, or nothing.
    pub text: &'static str,
}

impl Reason {
    /// A code with a few words.
    #[must_use]
    pub const fn new(code: Ede, text: &'static str) -> Self {
        assert!(text.len() <= TEXT_MAX);
        Self { code, text }
    }

    /// Bytes of the option.
    pub(super) fn len(self) -> usize {
        6 + self.text.len()
    }
}

impl From<Ede> for Reason {
    fn from(code: Ede) -> Self {
        Self { code, text: "" }
    }
}

/// Why a message that cannot be read is answered with FORMERR.
pub const MALFORMED: Reason = Reason::new(Ede::Other, "the message is malformed");

/// The longest text of a [`Reason`], bytes.
pub const TEXT_MAX: usize = 58;
