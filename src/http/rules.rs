//! What the configuration says of the answers beneath a path prefix. Pure.
//!
//! The rule of a path is that of the longest prefix it lies beneath; its fields are made once, at the start, and go into the
//! kept header fields of each version, so that they cost a small object nothing but their bytes.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::faces::Face;
use crate::content::name;

/// What is said of the answers beneath one prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// URL path prefix; begins and ends with `/`.
    pub prefix: String,
    /// `Cache-Control` of objects and listings; `None`: none is sent.
    pub cache_control: Option<HeaderValue>,
    /// Whether scripts of any web page may read what stands here.
    pub cors: bool,
    /// Base URLs (without a final slash) of other servers that have the same objects at the same paths, the best first.
    pub duplicates: Vec<String>,
    /// Which other faces of an object stand at its path with their suffix.
    pub faces: Vec<Face>,
}

/// All rules, the longest prefix first.
#[derive(Clone, Debug, Default)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// Takes the rules in any order.
    #[must_use]
    pub fn new(mut rules: Vec<Rule>) -> Self {
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.prefix.len()));
        Self(rules)
    }

    /// The rule of `path`, if it lies beneath any prefix.
    #[must_use]
    pub fn of(&self, path: &str) -> Option<&Rule> {
        self.0.iter().find(|rule| path.starts_with(&rule.prefix))
    }
}

impl Rule {
    /// Adds what goes with every answer about `path`, errors among them: the origins that may read it.
    pub fn share(&self, head: &mut HeaderMap) {
        if self.cors {
            head.insert(
                header::ACCESS_CONTROL_ALLOW_ORIGIN,
                HeaderValue::from_static("*"),
            );
            head.insert(
                header::ACCESS_CONTROL_EXPOSE_HEADERS,
                HeaderValue::from_static(EXPOSED),
            );
        }
    }

    /// Adds what goes with an answer that may be kept (200, 206, 304).
    pub fn keep(&self, head: &mut HeaderMap) {
        if let Some(cache_control) = &self.cache_control {
            head.insert(header::CACHE_CONTROL, cache_control.clone());
        }
        self.share(head);
    }

    /// Adds where else an object at `path` with this SHA-256 (base64) is to be had, and what describes it (RFC 6249 sections 2, 5, 6).
    pub fn link(&self, path: &str, sha256: &str, head: &mut HeaderMap) {
        if self.duplicates.is_empty() {
            return;
        }
        let path = encode(path);
        // A field each: aria2 reads no list of them.
        let mut add = |link: String| {
            if let Ok(link) = HeaderValue::try_from(link) {
                head.append(header::LINK, link);
            }
        };
        for (at, base) in self.duplicates.iter().enumerate() {
            let pri = at + 1;
            add(format!("<{base}{path}>; rel=duplicate; pri={pri}"));
        }
        for face in [Face::Metalink, Face::Torrent] {
            if self.has(face) {
                let (suffix, media_type) = (face.suffix(), face.media_type());
                add(format!(
                    "<{path}{suffix}>; rel=describedby; type=\"{media_type}\""
                ));
            }
        }
        // What RFC 6249 asks for and its clients read; `Repr-Digest` says the same to newer ones.
        if let Ok(digest) = HeaderValue::try_from(format!("SHA-256={sha256}")) {
            head.insert(DIGEST, digest);
        }
    }

    /// Whether objects have this face; magnet link and tracker belong to the torrent.
    #[must_use]
    pub fn has(&self, face: Face) -> bool {
        self.faces.contains(match face {
            Face::Magnet | Face::Announce => &Face::Torrent,
            Face::Metalink | Face::Torrent => &face,
        })
    }

    /// Answers a browser that asks beforehand whether a script may send what it means to (Fetch, section 3.2.2). `methods` are
    /// those served here.
    pub fn preflight(&self, asked: &HeaderMap, methods: &'static str, head: &mut HeaderMap) {
        if !self.cors || !asked.contains_key(header::ORIGIN) {
            return;
        }
        self.share(head);
        if asked.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
            for (name, value) in [
                (header::ACCESS_CONTROL_ALLOW_METHODS, methods),
                (header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED),
                (header::ACCESS_CONTROL_MAX_AGE, "86400"),
            ] {
                head.insert(name, HeaderValue::from_static(value));
            }
        }
    }
}

/// Percent-encodes what may not stand in a path.
#[must_use]
pub fn encode(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for &byte in name::to_bytes(path).iter() {
        if byte.is_ascii_alphanumeric() || b"/-._~!$()*+,;=:@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Whether `text` is what a `Cache-Control` field may say (RFC 9111 section 5.2): directives, each with a value or none.
#[must_use]
pub fn is_cache_control(text: &str) -> bool {
    let token = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    let quoted = |text: &str| {
        text.len() >= 2
            && text.starts_with('"')
            && text.ends_with('"')
            && text[1..text.len() - 1]
                .bytes()
                .all(|b| (b' '..=b'~').contains(&b) && b != b'"' && b != b'\\')
    };
    text.split(',').all(|directive| {
        let directive = directive.trim_matches([' ', '\t']);
        match directive.split_once('=') {
            Some((name, value)) => token(name) && (token(value) || quoted(value)),
            None => token(directive),
        }
    })
}

const DIGEST: HeaderName = HeaderName::from_static("digest");

/// Fields a script may read beside those it always may.
const EXPOSED: &str = "Accept-Ranges, Content-Digest, Content-Length, Content-Range, Digest, ETag, Link, Location, Repr-Digest, Upload-Offset";

/// Fields a script may send beside those it always may.
const ALLOWED: &str = "Authorization, Content-Digest, Content-Range, Content-Type, If-Match, If-Modified-Since, If-None-Match, If-Range, If-Unmodified-Since, Range, Repr-Digest, Want-Content-Digest, Want-Repr-Digest";

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(prefix: &str) -> Rule {
        Rule {
            prefix: prefix.into(),
            ..Rule::default()
        }
    }

    #[test]
    fn longest_prefix_decides() {
        let rules = Rules::new(vec![rule("/"), rule("/a/b/"), rule("/a/")]);
        for (path, prefix) in [
            ("/x", "/"),
            ("/a", "/"),
            ("/a/x", "/a/"),
            ("/a/b/", "/a/b/"),
        ] {
            assert_eq!(rules.of(path).unwrap().prefix, prefix, "{path}");
        }
        assert!(Rules::new(vec![rule("/a/")]).of("/b").is_none());
    }

    #[test]
    fn path_is_encoded_where_it_must_be() {
        assert_eq!(encode("a b\"<é%"), "a%20b%22%3C%C3%A9%25");
        assert_eq!(encode("/a/b-1.bin"), "/a/b-1.bin");
        assert_eq!(encode("/caf\u{10FFE9}"), "/caf%E9");
    }

    #[test]
    fn cache_control_is_a_list_of_directives() {
        for good in [
            "no-store",
            "public, max-age=31536000,immutable",
            "private=\"set-cookie\"",
        ] {
            assert!(is_cache_control(good), "{good}");
        }
        for bad in [
            "",
            "max-age=",
            "max age=1",
            "a,,b",
            "x=\"a",
            "x=\"a\"b\"",
            "no-store;",
        ] {
            assert!(!is_cache_control(bad), "{bad}");
        }
    }

    #[test]
    fn duplicates_are_linked_in_their_order() {
        let rule = Rule {
            duplicates: vec!["http://b".into(), "https://c:8443".into()],
            faces: vec![Face::Metalink],
            ..rule("/")
        };
        let mut head = HeaderMap::new();
        rule.link("/a b", "AAAA", &mut head);
        let links: Vec<_> = head.get_all(header::LINK).iter().collect();
        let expected = [
            "<http://b/a%20b>; rel=duplicate; pri=1",
            "<https://c:8443/a%20b>; rel=duplicate; pri=2",
            "</a%20b.meta4>; rel=describedby; type=\"application/metalink4+xml\"",
        ];
        assert_eq!(links, expected);
        assert_eq!(head[DIGEST], "SHA-256=AAAA");
    }

    #[test]
    fn preflight_without_the_switch_is_not_answered() {
        let mut asked = HeaderMap::new();
        asked.insert(header::ORIGIN, HeaderValue::from_static("http://x"));
        let method = HeaderValue::from_static("PUT");
        asked.insert(header::ACCESS_CONTROL_REQUEST_METHOD, method);
        let mut head = HeaderMap::new();
        rule("/").preflight(&asked, "GET", &mut head);
        assert!(head.is_empty());
        let open = Rule {
            cors: true,
            ..rule("/")
        };
        open.preflight(&asked, "GET, HEAD", &mut head);
        assert_eq!(head[header::ACCESS_CONTROL_ALLOW_METHODS], "GET, HEAD");
        assert_eq!(head[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    }
}
