//! Header fields on their way through: what ends here, what is added, and how a validation updates what is stored
//! (RFC 9110 section 7.6, RFC 9111 sections 3.1, 3.2 and 4.3). Pure.

use std::net::IpAddr;

use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

use super::Forward;
use super::control::Directives;

/// Removes what concerns one connection only (RFC 9110 section 7.6.1).
pub fn strip_hops(headers: &mut HeaderMap) {
    let mut named = Vec::new();
    for field in headers.get_all(header::CONNECTION) {
        for name in field
            .as_bytes()
            .split(|b| *b == b',')
            .map(<[u8]>::trim_ascii)
        {
            if let Ok(name) = HeaderName::from_bytes(name) {
                named.push(name);
            }
        }
    }
    for name in named {
        // These say where a message goes and where it ends: a sender cannot take them away.
        if name != header::HOST && name != header::CONTENT_LENGTH {
            headers.remove(name);
        }
    }
    for name in &HOPS {
        headers.remove(name);
    }
}

/// Adds this node to `Via` (RFC 9110 section 7.6.3).
pub fn add_via(headers: &mut HeaderMap, node: &HeaderValue) {
    headers.append(header::VIA, node.clone());
}

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub struct Forwarded {
    /// The other side of its connection.
    pub client: IpAddr,
    /// Whether that was TLS.
    pub encrypted: bool,
}

/// Says in `X-Forwarded-Proto` whether the client spoke TLS.
pub fn tell_scheme(request: &mut HeaderMap, encrypted: bool) {
    let scheme = HeaderValue::from_static(scheme(encrypted));
    request.insert(FORWARDED_PROTO, scheme);
}

/// Says on whose behalf, and for which `host`, a request is sent on (RFC 7239).
pub fn tell_client(request: &mut HeaderMap, how: Forward, from: &Forwarded, host: &str) {
    if how == Forward::Off {
        return;
    }
    if how == Forward::Replace {
        request.remove(FORWARDED_FOR);
        request.remove(header::FORWARDED);
    }
    tell_scheme(request, from.encrypted);
    let client = from.client.to_canonical();
    append(request, FORWARDED_FOR, client.to_string());
    let node = match client {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    };
    let proto = scheme(from.encrypted);
    // A host that cannot stand within quotes is none.
    let plain = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    let host = if host.is_empty() || !host.bytes().all(plain) {
        String::new()
    } else {
        format!(";host=\"{host}\"")
    };
    append(
        request,
        header::FORWARDED,
        format!("for={node};proto={proto}{host}"),
    );
}

/// Whether a field says on whose behalf a request is sent on, other than by the scheme.
#[must_use]
pub fn names_client(name: &HeaderName) -> bool {
    *name == FORWARDED_FOR || *name == header::FORWARDED
}

/// Adds to a list, in one field: not all servers read several.
fn append(request: &mut HeaderMap, name: HeaderName, element: String) {
    let before: Vec<&str> = request
        .get_all(&name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let list = if before.is_empty() {
        element
    } else {
        format!("{}, {element}", before.join(", "))
    };
    if let Ok(value) = HeaderValue::try_from(list) {
        request.insert(name, value);
    }
}

fn scheme(encrypted: bool) -> &'static str {
    if encrypted { "https" } else { "http" }
}

/// Whether the message went through this node before.
#[must_use]
pub fn came_by(headers: &HeaderMap, node: &HeaderValue) -> bool {
    headers.get_all(header::VIA).iter().any(|field| {
        let mut steps = field.as_bytes().split(|b| *b == b',');
        steps.any(|step| step.trim_ascii() == node.as_bytes())
    })
}

/// Takes conditions and ranges out of a request that is to bring the whole.
pub fn strip_conditions(headers: &mut HeaderMap) {
    for name in &CONDITIONS {
        headers.remove(name);
    }
}

/// Whether a request has conditions of its own.
#[must_use]
pub fn has_conditions(headers: &HeaderMap) -> bool {
    CONDITIONS[..4]
        .iter()
        .any(|name| headers.contains_key(name))
}

/// Asks whether `stored` still holds, in place of the client's own conditions (RFC 9111 section 4.3.1).
pub fn validate(request: &mut HeaderMap, stored: &HeaderMap) {
    strip_conditions(request);
    if let Some(tag) = stored.get(header::ETAG) {
        request.insert(header::IF_NONE_MATCH, tag.clone());
    }
    if let Some(modified) = stored.get(header::LAST_MODIFIED) {
        request.insert(header::IF_MODIFIED_SINCE, modified.clone());
    }
}

/// Whether a 304 is about the stored response: it names the same version, or none (RFC 9111 section 4.3.4).
#[must_use]
pub fn confirms(stored: &HeaderMap, answer: &HeaderMap) -> bool {
    let opaque = |headers: &HeaderMap| {
        headers.get(header::ETAG).map(|tag| {
            let tag = tag.as_bytes();
            tag.strip_prefix(b"W/").unwrap_or(tag).to_vec()
        })
    };
    match (opaque(stored), opaque(answer)) {
        (Some(held), Some(said)) => held == said,
        _ => true,
    }
}

/// Whether a `HEAD` answer shows that the stored response to `GET` is another version (RFC 9111 section 4.3.5).
#[must_use]
pub fn contradicts(stored: &HeaderMap, answer: &HeaderMap) -> bool {
    let same = |name: HeaderName| match (stored.get(&name), answer.get(&name)) {
        (Some(held), Some(said)) => held == said,
        _ => true,
    };
    !(confirms(stored, answer) && same(header::LAST_MODIFIED) && same(header::CONTENT_LENGTH))
}

/// Updates the stored fields from a validation (RFC 9111 section 3.2).
pub fn update(stored: &mut HeaderMap, answer: &HeaderMap) {
    // An age that was counted before belongs to the response that is replaced.
    stored.remove(header::AGE);
    for name in answer.keys() {
        if !KEPT.contains(name) {
            stored.remove(name);
            for value in answer.get_all(name) {
                stored.append(name, value.clone());
            }
        }
    }
}

/// What of a response is stored: not what its directives keep out.
pub fn keep_out(headers: &mut HeaderMap, directives: &Directives) {
    for name in &directives.fields {
        headers.remove(name);
    }
}

/// The targets that a successful unsafe request made stale besides its own: `Location` and `Content-Location`, where
/// they are of the same origin (RFC 9111 section 4.4).
#[must_use]
pub fn invalidated(host: &str, target: &str, response: &HeaderMap) -> Vec<String> {
    [header::LOCATION, header::CONTENT_LOCATION]
        .iter()
        .filter_map(|name| response.get(name)?.to_str().ok())
        .filter_map(|reference| resolve(host, target, reference))
        .collect()
}

/// The path and query that `reference` means at `target`; `None` if it leads to another host.
#[must_use]
pub fn resolve(host: &str, target: &str, reference: &str) -> Option<String> {
    let reference = reference.split('#').next().unwrap_or_default();
    if reference.starts_with("//") || reference.contains("://") {
        let uri: Uri = if reference.starts_with("//") {
            format!("http:{reference}").parse().ok()?
        } else {
            reference.parse().ok()?
        };
        let same = uri
            .authority()
            .map(Authority::as_str)?
            .eq_ignore_ascii_case(host);
        return same.then(|| uri.path_and_query().map_or("/", |p| p.as_str()).to_owned());
    }
    let path = target.split('?').next().unwrap_or(target);
    if reference.is_empty() {
        return Some(target.to_owned());
    }
    if reference.starts_with('?') {
        return Some(format!("{path}{reference}"));
    }
    let (mut segments, rest) = if let Some(rest) = reference.strip_prefix('/') {
        (Vec::new(), rest)
    } else {
        let mut base: Vec<&str> = path.split('/').skip(1).collect();
        base.pop();
        (base, reference)
    };
    let (rest, query) = rest
        .split_once('?')
        .map_or((rest, None), |(r, q)| (r, Some(q)));
    let mut parts = rest.split('/').peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        match part {
            "." | ".." => {
                if part == ".." {
                    segments.pop();
                }
                if last {
                    segments.push("");
                }
            }
            part => segments.push(part),
        }
    }
    let mut out = format!("/{}", segments.join("/"));
    if let Some(query) = query {
        out.push('?');
        out.push_str(query);
    }
    Some(out)
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

const HOPS: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-authentication-info"),
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

const CONDITIONS: [HeaderName; 6] = [
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_MATCH,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
    header::RANGE,
];

/// Fields that describe the stored bytes: a validation does not change those.
const KEPT: [HeaderName; 4] = [
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    header::TRANSFER_ENCODING,
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn fields_of_one_connection_end_here() {
        let mut found = headers(&[
            ("connection", "a, Host"),
            ("connection", "b"),
            ("a", "1"),
            ("b", "2"),
            ("c", "3"),
            ("host", "x"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("proxy-connection", "keep-alive"),
        ]);
        strip_hops(&mut found);
        assert_eq!(found, headers(&[("c", "3"), ("host", "x")]));
    }

    #[test]
    fn validation_updates_all_but_what_describes_the_bytes() {
        let mut stored = headers(&[
            ("a", "1"),
            ("b", "1"),
            ("age", "9"),
            ("content-length", "5"),
            ("set-cookie", "x"),
        ]);
        let answer = headers(&[
            ("a", "2"),
            ("content-length", "0"),
            ("set-cookie", "y"),
            ("set-cookie", "z"),
        ]);
        update(&mut stored, &answer);
        assert_eq!(
            stored,
            headers(&[
                ("a", "2"),
                ("b", "1"),
                ("content-length", "5"),
                ("set-cookie", "y"),
                ("set-cookie", "z"),
            ])
        );
    }

    #[test]
    fn answer_about_another_version_confirms_nothing() {
        let stored = headers(&[("etag", "W/\"a\"")]);
        assert!(confirms(&stored, &headers(&[("etag", "\"a\"")])));
        assert!(confirms(&stored, &headers(&[])));
        assert!(!confirms(&stored, &headers(&[("etag", "\"b\"")])));
        assert!(contradicts(
            &headers(&[("content-length", "4")]),
            &headers(&[("content-length", "5")])
        ));
    }

    #[track_caller]
    fn check(reference: &str, expected: Option<&str>) {
        let found = resolve("example.test:80", "/a/b/c?q", reference);
        assert_eq!(found.as_deref(), expected, "{reference}");
    }

    #[test]
    fn reference_is_resolved_at_its_target() {
        check("d", Some("/a/b/d"));
        check("../d?x=/../y", Some("/a/d?x=/../y"));
        check("/d", Some("/d"));
        check("", Some("/a/b/c?q"));
        check("?r", Some("/a/b/c?r"));
        check("http://EXAMPLE.test:80/x?y", Some("/x?y"));
        check("//example.test:80/x", Some("/x"));
        check("http://other.test/x", None);
        check("..", Some("/a/"));
    }

    #[test]
    fn upstream_is_told_where_a_request_came_from() {
        let from = Forwarded {
            client: "::ffff:192.0.2.7".parse().unwrap(),
            encrypted: true,
        };
        let claimed = [
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-proto", "ftp"),
            ("forwarded", "for=10.0.0.1"),
        ];
        let told = |how, from| {
            let mut request = headers(&claimed);
            tell_client(&mut request, how, &from, "a.test:80");
            request
        };
        let own = "for=192.0.2.7;proto=https;host=\"a.test:80\"";
        assert_eq!(
            told(Forward::Replace, from),
            headers(&[
                ("x-forwarded-for", "192.0.2.7"),
                ("x-forwarded-proto", "https"),
                ("forwarded", own),
            ])
        );
        assert_eq!(
            told(Forward::Append, from),
            headers(&[
                ("x-forwarded-for", "10.0.0.1, 10.0.0.2, 192.0.2.7"),
                ("x-forwarded-proto", "https"),
                ("forwarded", &format!("for=10.0.0.1, {own}")),
            ])
        );
        assert_eq!(told(Forward::Off, from), headers(&claimed));
        let six = Forwarded {
            client: "2001:db8::1".parse().unwrap(),
            encrypted: false,
        };
        let told = told(Forward::Replace, six);
        assert_eq!(
            told["forwarded"],
            "for=\"[2001:db8::1]\";proto=http;host=\"a.test:80\""
        );
    }

    #[test]
    fn node_is_known_by_its_via() {
        let node = HeaderValue::from_static("1.1 a");
        let mut request = headers(&[("via", "1.0 fred, 1.1 b")]);
        assert!(!came_by(&request, &node));
        add_via(&mut request, &node);
        assert!(came_by(&request, &node));
    }

    proptest! {
        #[test]
        fn reference_never_leaves_the_root(reference in "[a./?:]{0,20}") {
            if let Some(path) = resolve("h", "/a/b", &reference) {
                prop_assert!(path.starts_with('/'));
            }
        }
    }
}
