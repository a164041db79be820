//! `[[proxy]]` and `[proxy_cache]`.

use std::path::Path;

use super::super::read::Section;
use super::values::{ms, secs};
use crate::http::proxy::{Config, Rule};

pub(super) fn settings(
    sections: &[Section<'_, '_>],
    cache: &Section<'_, '_>,
    node: &str,
    state: &Path,
    local: Vec<String>,
) -> Config {
    let mut rules: Vec<Rule> = Vec::new();
    for section in sections {
        let host = section.text_or("host", "*");
        let upstream = section.text("upstream");
        let ttl = section.duration_or("default_ttl", secs(0)..=secs(31_536_000), secs(0));
        section.end();
        let host = match host.as_str() {
            "*" => None,
            name if is_host(name) => Some(name.to_ascii_lowercase()),
            _ => {
                section.error("host", format!("found {host:?}, expected {HOST}"));
                continue;
            }
        };
        if rules.iter().any(|rule| rule.host == host) {
            let host = host.as_deref().unwrap_or("*");
            section.error(
                "host",
                format!("found {host:?} a second time, expected it once"),
            );
            continue;
        }
        if host.is_none() && local.iter().any(|prefix| prefix == "/") {
            section.warning(
                "host",
                "never asked: this node publishes or mirrors \"/\", which goes before \"*\"",
            );
        }
        match upstream_of(&upstream) {
            Some(upstream) => rules.push(Rule {
                host,
                upstream,
                default_ttl: ttl.as_secs(),
            }),
            None if section.failed("upstream") => {}
            None => section.error(
                "upstream",
                format!("found {upstream:?}, expected {UPSTREAM}"),
            ),
        }
    }
    let config = Config {
        rules,
        local,
        node: node.to_owned(),
        dir: state.join("proxy"),
        size: cache.size("size", 1 << 20..=1 << 50),
        memory: cache.size("memory", 1 << 20..=1 << 40),
        entries: cache.integer("entries", 1..=100_000_000),
        variants: cache.integer("variants", 1..=10_000),
        object: cache.size("object", 1..=1 << 50),
        requests: cache.integer("requests", 1..=100_000),
        connect: cache.duration("connect", ms(10)..=secs(3_600)),
        head_time: cache.duration("head_time", ms(10)..=secs(3_600)),
        silence: cache.duration("silence", ms(10)..=secs(3_600)),
        idle: cache.duration("idle", ms(0)..=secs(3_600)),
        stale_if_error: cache.duration("stale_if_error", secs(0)..=secs(31_536_000)),
    };
    if config.object > config.size {
        cache.warning(
            "object",
            "found more than size: one response may fill the cache",
        );
    }
    cache.end();
    config
}

/// A host name or address, with or without a port.
fn is_host(name: &str) -> bool {
    let authority = name.parse::<::http::uri::Authority>();
    authority.is_ok_and(|a| !a.as_str().contains('@') && !a.host().contains('*'))
}

/// Host and port of `http://host[:port]`.
fn upstream_of(text: &str) -> Option<String> {
    let uri: ::http::Uri = text.parse().ok()?;
    let authority = uri.authority()?;
    let good = uri.scheme_str() == Some("http")
        && !authority.as_str().contains('@')
        && uri.path() == "/"
        && uri.query().is_none();
    good.then(|| authority.as_str().to_ascii_lowercase())
}

const HOST: &str = "a host name such as \"files.example.com\", or \"*\" for all others";

const UPSTREAM: &str = "the base URL of a server such as \"http://127.0.0.1:8000\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_is_a_host_and_nothing_more() {
        assert_eq!(
            upstream_of("http://A.test:80/").as_deref(),
            Some("a.test:80")
        );
        assert_eq!(
            upstream_of("http://[::1]:8000").as_deref(),
            Some("[::1]:8000")
        );
        for bad in [
            "",
            "a.test",
            "https://a.test",
            "http://u@a.test",
            "http://a.test/x",
            "http://a.test/?q",
        ] {
            assert_eq!(upstream_of(bad), None, "{bad}");
        }
    }
}
