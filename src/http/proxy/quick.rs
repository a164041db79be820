//! Hits for plain requests, as the bytes of their answers: what [`super::reply`] says of a fresh response in memory, without
//! tables of fields. Whatever needs more thought is left to [`super::serve`].

use std::io::Write as _;

use http::{HeaderMap, StatusCode, header};

use super::Forward;
use super::control::Directives;
use super::fields::tell_scheme;
use super::freshness::Use;
use super::reply;
use super::serve::Proxy;
use super::table::{self, Found, Stored};
use super::told::{CACHE_STATUS, HIT};
use crate::http::plain::Plain;
use crate::metrics::http::Outcome;
use crate::metrics::proxy;

/// What a plain request asks of the cache.
#[derive(Clone, Copy)]
pub(in crate::http) struct Asked<'a> {
    pub(in crate::http) request: &'a Plain<'a>,
    pub(in crate::http) host: &'a str,
    /// The rule for it.
    pub(in crate::http) rule: usize,
    /// It came within TLS.
    pub(in crate::http) encrypted: bool,
    /// Milliseconds since 1970.
    pub(in crate::http) now: u64,
}

/// What was answered.
pub(in crate::http) struct Hit {
    pub(in crate::http) status: StatusCode,
    pub(in crate::http) outcome: Outcome,
    /// Bytes of the body.
    pub(in crate::http) length: u64,
}

/// Appends to `out` the answer, if a fresh one of at most `largest` bytes lies in memory, and counts the hit. `key` is room for what
/// it is stored by.
pub(in crate::http) fn hit(
    proxy: &Proxy,
    asked: Asked<'_>,
    largest: u64,
    key: &mut String,
    out: &mut Vec<u8>,
) -> Option<Hit> {
    let Asked { request, now, .. } = asked;
    // It may want another answer, or have come by here before.
    if request.caching {
        return None;
    }
    let tells = proxy.rule(asked.rule).forwarded != Forward::Off;
    table::write_key(asked.host, tells && asked.encrypted, request.target, key);
    let mut fields: Option<HeaderMap> = None;
    let made = || {
        let mut fields = request.fields();
        if tells {
            tell_scheme(&mut fields, asked.encrypted);
        }
        fields
    };
    let suits =
        |stored: &Stored| stored.vary.is_empty() || stored.answers(fields.get_or_insert_with(made));
    let Found::Stored(stored) = proxy.keep.table.choose(key, suits) else {
        return None;
    };
    if stored.life.usable(&Directives::default(), now) != Use::Fresh {
        return None;
    }
    let text = stored.text.get_or_init(|| write(&stored)).as_deref()?;
    let body = stored.content.whole()?;
    let length = body.len() as u64;
    if length > largest {
        return None;
    }
    out.extend_from_slice(text);
    let (age, ttl) = (stored.life.age(now), stored.life.left(now));
    // Writing to a vector cannot fail.
    let _ = write!(
        out,
        "{age}\r\n{CACHE_STATUS}: {HIT}{ttl}\r\ncontent-length: {length}\r\n\r\n"
    );
    out.extend_from_slice(&body);
    proxy.metrics.proxy.request(proxy::Outcome::Hit);
    Some(Hit {
        status: stored.status,
        outcome: reply::outcome(stored.status),
        length,
    })
}

/// The head of a hit as hyper writes it, up to the value of `Age`; `None` if hyper would do more about it.
fn write(stored: &Stored) -> Option<Box<[u8]>> {
    let head = &stored.head;
    let status = stored.status;
    let of_body = [
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
    ];
    let bodiless = matches!(status.as_u16(), ..200 | 204..=206 | 304);
    if bodiless || !head.contains_key(header::DATE) || of_body.iter().any(|n| head.contains_key(n))
    {
        return None;
    }
    let reason = status.canonical_reason()?;
    let mut text = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in head {
        // The upstream's own has been counted in.
        if name != header::AGE {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                text.extend_from_slice(part);
            }
        }
    }
    text.extend_from_slice(b"age: ");
    Some(text.into())
}
