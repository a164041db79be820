//! `Cache-Status` (RFC 9211): what the cache did with a request, told to the client. Pure.

use http::{HeaderName, HeaderValue};

/// What became of a request in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Answered from the cache; seconds it is fresh yet (negative: stale).
    Hit {
        /// Seconds.
        ttl: i64,
    },
    /// Sent on; why, what the upstream said, and what came of it.
    Forwarded {
        /// Why.
        why: Why,
        /// The upstream's status, if it differs from the response's.
        status: Option<u16>,
        /// Stored.
        stored: bool,
        /// Shared a request that was under way.
        collapsed: bool,
    },
    /// Answered stale, since the upstream failed.
    StaleOnError {
        /// Seconds since it was fresh, negative.
        ttl: i64,
    },
}

/// Why a request was sent on (RFC 9211 section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The request's method is not one a cache answers.
    Method,
    /// Nothing is stored for its target.
    UriMiss,
    /// What is stored was chosen by other fields.
    VaryMiss,
    /// What is stored is stale.
    Stale,
    /// What is stored has other parts.
    Partial,
    /// The client wanted it so.
    Request,
}

impl Why {
    /// As the field says it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Stale => "stale",
            Self::Partial => "partial",
            Self::Request => "request",
        }
    }
}

impl Told {
    /// The field's value, a member of its list.
    #[must_use]
    pub fn value(self) -> HeaderValue {
        let text = match self {
            Self::Hit { ttl } => format!("{HIT}{ttl}"),
            Self::StaleOnError { ttl } => {
                format!("{HIT}{ttl}; detail=upstream-failed")
            }
            Self::Forwarded {
                why,
                status,
                stored,
                collapsed,
            } => {
                let mut text = format!("headwater; fwd={}", why.text());
                if let Some(status) = status {
                    text.push_str(&format!("; fwd-status={status}"));
                }
                if stored {
                    text.push_str("; stored");
                }
                if collapsed {
                    text.push_str("; collapsed");
                }
                text
            }
        };
        HeaderValue::try_from(text).expect("words and numbers are a field value")
    }
}

/// What the value begins with for an answer from the cache, up to its seconds.
pub const HIT: &str = "headwater; hit; ttl=";

/// The field.
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_a_member_of_a_structured_list() {
        let check = |told: Told, expected: &str| assert_eq!(told.value(), expected);
        check(Told::Hit { ttl: -3 }, "headwater; hit; ttl=-3");
        let told = Told::Forwarded {
            why: Why::Stale,
            status: Some(304),
            stored: true,
            collapsed: false,
        };
        check(told, "headwater; fwd=stale; fwd-status=304; stored");
        let told = Told::Forwarded {
            why: Why::UriMiss,
            status: None,
            stored: false,
            collapsed: true,
        };
        check(told, "headwater; fwd=uri-miss; collapsed");
        check(
            Told::StaleOnError { ttl: -9 },
            "headwater; hit; ttl=-9; detail=upstream-failed",
        );
    }
}
